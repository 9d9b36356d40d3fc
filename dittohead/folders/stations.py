"""The only renames of people's folders: inbox, processing, done, failed, each move durable."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pwd
import re
import stat
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from dittohead.folders.sent_manifest import CONTROL
from dittohead.model.errors import Immovable, NameTaken, StationError, StationMissing
from dittohead.model.held import Held, mounted, movable, unreadable
from dittohead.model.records import Arrival, collection_of
from dittohead.model.states import Station
from dittohead.model.text import display, shell_word, utcnow, visible
from dittohead.system import capabilities, fail_points
from dittohead.system.control_socket import state_of
from dittohead.system.files import fsync_dir, kind_of, remove_unfinished, rename_noreplace, write_durably
from dittohead.system.ignored_names import DEFAULT, IgnoredNames, ignored_names
from dittohead.system.machine_faults import PASSING
from dittohead.system.mounts import mounts_beneath
from dittohead.system.threads import Stop

#: The directories under the root, with the permission bits they are made with.
_MODES = {
    Station.INBOX.value: 0o755,
    Station.PROCESSING.value: 0o700,
    Station.DONE.value: 0o750,
    Station.FAILED.value: 0o750,
    "work": 0o700,
    "receipts": 0o750,
    "state": 0o700,
}

#: What the system says of a path that leads nowhere: a loop of links too.
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

#: How often a collection's directory is made that others remove, being empty.
_TRIES = 5

#: A reason is no longer than this. Bytes.
_REASON_MOST = 1 << 20

#: How the names of the folders begin by which renaming is tried.
_TRIAL = ".trial-"

_MOUNTED = "See that its file system is mounted there, and that nobody has moved it"

_ASIDE = """{name} was not processed.

What:   this is a {kind}; only folders are processed. It lay in processing/ and belonged to no job.
Where:  {lies}
Do:     Remove it, and this file; nothing else refers to it.
"""

#: The longest file name of the usual file systems, in bytes.
NAME_MAX = 255
_REASON = b".reason.txt"

#: How a reason that was written here begins and ends: no other file is mistaken for one.
_BEGINS = re.compile(rb".* was not (finished|processed)\.")
_ENDS = re.compile(
    rb"Job [0-9A-Z]{26}, pipeline .*, step .*\."
    rb"|Do:     Remove it, and this file; nothing else refers to it\."
)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What one look at the inbox found."""

    arrivals: list[Arrival]
    uploads: list[bytes]  #: dotted directories: uploads in progress, or given up
    strays: list[bytes]  #: undotted things that are neither directories nor taken files; left alone
    inode: tuple[int, int]  #: (st_dev, st_ino) of the inbox itself
    ignored: int = 0  #: how many names there are ignored
    #: directories that cannot be taken as they are, and why
    held: dict[bytes, Held] = field(default_factory=dict)


@dataclass
class Stations:
    """The four directories under one root, on one file system."""

    root: Path
    ignore: Sequence[str] = (DEFAULT,)  #: names that are ignored (see system/ignored_names.py)
    #: which files in the inbox become a folder by themselves, by their names (see folders/lone_files.py)
    takes_file: Callable[[bytes], bool] = lambda name: False
    #: held while a folder is made of a file
    wrapping: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _known: dict[bytes, Arrival] = field(default_factory=dict)
    _others: IgnoredNames | None = None  #: by which those were judged
    #: (st_dev, st_ino) of the root, as it was at the start
    _root_was: tuple[int, int] | None = None
    #: (permission bits, gid) of each directory, as they were when it was last seen
    _modes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def path(self, station: Station) -> Path:
        """Return the station's directory."""
        return self.root / station.value

    def folder(self, station: Station, folder: bytes) -> Path:
        """Return where a folder lies in a station."""
        return Path(os.fsdecode(os.path.join(os.fsencode(self.path(station)), folder)))

    @property
    def work(self) -> Path:
        """Where steps put what they make."""
        return self.root / "work"

    @property
    def receipts(self) -> Path:
        """Where receipts are written."""
        return self.root / "receipts"

    @property
    def state(self) -> Path:
        """Where the SQLite store and the lock lie."""
        return state_of(self.root)

    def prepare(self) -> set[str]:
        """Make what is missing, and prove by trial that folders can be renamed between the stations.

        Returns: the names of the directories that were made.
        Raises: StationError: a directory cannot be made or written, or the stations lie on
        different file systems (or bind mounts of one, which rename(2) treats alike); OSError: the
        disk, or the kernel, cannot do it now.
        """
        made = {name for name, mode in _MODES.items() if self._make(self.root / name, mode)}
        self._trial()
        status = os.stat(self.root)
        self._root_was = (status.st_dev, status.st_ino)
        self.missing_names()
        return made

    def missing_names(self) -> list[str]:
        """Return the names of the directories under the root that are missing now. Blocking, but short.

        Raises: StationMissing: the root itself is not there, or is another directory; OSError.
        """
        self._must_have_root()
        missing = []
        for name in _MODES:
            try:
                status = os.stat(self.root / name)
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    raise
                missing.append(name)
                continue
            if stat.S_ISDIR(status.st_mode):
                self._modes[name] = (stat.S_IMODE(status.st_mode), status.st_gid)
            else:
                missing.append(name)
        return missing

    def _must_have_root(self) -> None:
        try:
            status = os.stat(self.root)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            raise StationMissing("the root is not there", where=str(self.root), hint=_MOUNTED) from error
        if self._root_was not in (None, (status.st_dev, status.st_ino)):
            raise StationMissing(
                "the root is not the directory any more that the daemon began with",
                where=str(self.root),
                hint=_MOUNTED,
            )

    def make_again(self, name: str) -> None:
        """Make a directory that was moved away, with the mode and the group that it had. Blocking, but short.

        Raises: StationMissing: the root is not the one the daemon began with: a file system that is not
        mounted is not filled underneath; OSError.
        """
        self._must_have_root()
        mode, gid = self._modes.get(name, (_MODES[name], -1))
        path = self.root / name
        path.mkdir(mode=0o700)
        with contextlib.suppress(OSError):  # not a member of that group any more
            os.chown(path, -1, gid)
        path.chmod(mode)
        fsync_dir(self.root)

    def tidy(self) -> int:
        """Remove half-written receipts and reasons that a crash left; return how many.

        Only under the root's lock.
        """
        for station in Station:
            for path in self.path(station).glob(f"{_TRIAL}*"):
                with contextlib.suppress(OSError):
                    path.rmdir()
        return sum(remove_unfinished(path) for path in (self.receipts, self.path(Station.FAILED), self.state))

    def _make(self, path: Path, mode: int) -> bool:
        made = False
        try:
            if not path.is_dir():
                path.mkdir(parents=True)
                path.chmod(mode)  # whatever the umask; one that is there keeps its own
                made = True
        except OSError as error:
            if error.errno in PASSING:
                raise
            raise StationError(
                f"this directory cannot be made ({error.strerror})",
                where=str(path),
                hint="Check root: in config.yaml, and that the daemon's user may write there",
            ) from error
        if not os.access(path, os.W_OK | os.X_OK):
            raise StationError(
                "the daemon may not write here",
                where=str(path),
                hint=f"chown {_user(os.geteuid())} {path}",
            )
        return made

    def _trial(self) -> None:
        name = f"{_TRIAL}{uuid.uuid4().hex}".encode()
        places = [os.fsencode(self.path(station)) for station in Station]
        here = os.path.join(places[0], name)
        os.mkdir(here, 0o700)
        try:
            for place in (*places[1:], places[0]):
                there = os.path.join(place, name)
                rename_noreplace(here, there)
                here = there
        except OSError as error:
            if error.errno in PASSING:
                raise
            raise StationError(
                f"a folder cannot be renamed between the stations ({error.strerror})",
                where=str(self.root),
                hint="inbox, processing, done and failed must lie on one file system and one mount; "
                "under systemd list their common parent once in ReadWritePaths=",
            ) from error
        finally:
            with contextlib.suppress(OSError):  # swept at the next start
                os.rmdir(here)

    def immovable(self, folder: bytes) -> Immovable | None:
        """Return why a folder of the inbox may not be moved, by its mode; None where that does not forbid it.

        Only the attempt tells for certain. Blocking.
        """
        here, inbox = self.folder(Station.INBOX, folder), self.path(Station.INBOX)
        # By effective ids: only those have capabilities. Where nothing may be written, modes tell nothing.
        if os.access(here, os.W_OK, effective_ids=True) or not os.access(inbox, os.W_OK, effective_ids=True):
            return None
        denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        found = refusal(denied, here, self.path(Station.PROCESSING))
        return found if isinstance(found, Immovable) else None

    def immovable_in(self, collection: bytes) -> Immovable | None:
        """Return why something in a collection in the inbox may not be moved; None where all may. Blocking.

        What lies beside its folders is moved as well. What helps is told for all of the collection.
        """
        whole, uid = self.folder(Station.INBOX, collection), os.geteuid()
        place = os.stat(whole)
        sticky = place.st_mode & stat.S_ISVTX and uid != place.st_uid
        sticky = sticky and not capabilities.has(capabilities.FOWNER)
        with os.scandir(os.fsencode(whole)) as entries:
            for entry in entries:
                if sticky and entry.stat(follow_symlinks=False).st_uid != uid:
                    return self._immovable_within(whole, entry, errno.EPERM)
                closed = not os.access(entry.path, os.W_OK, effective_ids=True)
                if closed and entry.is_dir(follow_symlinks=False):
                    return self._immovable_within(whole, entry, errno.EACCES)
        return None

    def _immovable_within(self, whole: Path, closed: os.DirEntry[bytes], number: int) -> Immovable:
        status, user = closed.stat(follow_symlinks=False), shell_word(os.fsencode(_user(os.geteuid())))
        cure, command = movable(number, whole, status, (whole, self.path(Station.PROCESSING)), user)
        return Immovable(
            f"the daemon may not move {visible(os.fsdecode(closed.name))} out of this collection: "
            f"mode {stat.S_IMODE(status.st_mode):04o}, owner {_user(status.st_uid)}",
            where=display(os.fsencode(whole)),
            cure=cure,
            command=command,
        )

    def scan(self, stop: Stop | None = None, renamed: Collection[bytes] = ()) -> Scan:
        """Look at the inbox once: what is ready, what is being uploaded, what does not belong.

        Decides by names and types on disk, never by events. What is ignored is passed over, here and
        nowhere else. What is mounted there is not touched: it may never answer. What cannot be looked at is
        held, and only that. Blocking; 1,000 entries cost well
        under a millisecond, since only new names are looked at closely.

        Args:
            renamed: names of which a watch saw that `.NAME` became `NAME`.

        Raises: OSError: the inbox is missing or cannot be read.
        """
        inbox = os.fsencode(self.path(Station.INBOX))
        found = Scan(arrivals=[], uploads=[], strays=[], inode=(0, 0))
        points, others, ignored = (
            mounts_beneath(self.path(Station.INBOX)),
            ignored_names(tuple(self.ignore)),
            0,
        )
        if others is not self._others:  # another configuration
            self._known, self._others = {}, others
        with os.scandir(inbox) as entries:
            for entry in entries:
                if stop is not None:
                    stop.check()
                if entry.name not in self._known and entry.name in others:
                    ignored += 1
                    continue
                if entry.name in points:
                    if not entry.name.startswith(b"."):
                        found.held[entry.name] = mounted(points[entry.name])
                    continue
                try:
                    self._sort(entry, found, renamed)
                except OSError as error:
                    found.held[entry.name] = unreadable(error, self.folder(Station.INBOX, entry.name))
        self._known = {arrival.folder: arrival for arrival in found.arrivals}
        status = os.stat(inbox)
        return replace(found, inode=(status.st_dev, status.st_ino), ignored=ignored)

    def _sort(self, entry: os.DirEntry[bytes], found: Scan, renamed: Collection[bytes]) -> None:
        if entry.name.startswith(b"."):
            if entry.is_dir(follow_symlinks=False):
                found.uploads.append(entry.name)
        elif not entry.is_dir(follow_symlinks=False) and not self._is_taken_file(entry):
            found.strays.append(entry.name)
        elif (arrival := self._arrival(entry)) is not None:
            found.arrivals.append(replace(arrival, renamed=True) if arrival.folder in renamed else arrival)

    def _is_taken_file(self, entry: os.DirEntry[bytes]) -> bool:
        return entry.is_file(follow_symlinks=False) and self.takes_file(entry.name)

    def _arrival(self, entry: os.DirEntry[bytes]) -> Arrival | None:
        is_file = not entry.is_dir(follow_symlinks=False)
        known = self._known.get(entry.name)
        if known is not None and known.ino == entry.inode() and known.is_file == is_file:
            return known
        try:
            status = entry.stat(follow_symlinks=False)
            uid = owner_of(entry.path, status)
        except FileNotFoundError:
            return None
        return Arrival(
            folder=entry.name,
            dev=status.st_dev,
            ino=status.st_ino,
            uid=uid,
            seen_at=status.st_ctime,  # the rename that made it ready touches the ctime
            is_file=is_file,
        )

    def is_ignored(self, name: bytes) -> bool:
        """Tell whether a name is one that file systems, file servers or desktops put into any directory."""
        return name in ignored_names(tuple(self.ignore))

    def claim(self, arrival: Arrival) -> bool:
        """Move inbox/NAME to processing/NAME, durably.

        After return a power cut leaves the folder in processing/, never in both.

        Returns: False when the folder is no longer in the inbox.
        Raises: NameTaken: processing/ holds the name; the arrival waits. StationError: it may not
        be moved, with the owner and mode that stand in the way.
        Source: rename(2), RENAME_NOREPLACE.
        """
        try:
            self._move(Station.INBOX, arrival.folder, Station.PROCESSING, arrival.folder)
        except FileNotFoundError:
            return False
        self._known.pop(arrival.folder, None)
        place = self.folder(Station.PROCESSING, arrival.folder)
        if not stat.S_ISDIR(os.lstat(place).st_mode):
            # Swapped for something else between scan and rename: back to where it came from.
            self._hand_back(arrival.folder)
            return False
        if not self.exists(Station.FAILED, arrival.folder):
            self.forget_reason(arrival.folder)
        return True

    def move_to(
        self,
        folder: bytes,
        station: Station,
        *,
        now: datetime | None = None,
        to: bytes | None = None,
        source: Station = Station.PROCESSING,
    ) -> bytes:
        """Move processing/FOLDER to done/ or failed/, durably; return its name there.

        A name taken there gets a time suffix; nothing is ever replaced.

        Args:
            to: the name it is to have there; None: the same.
            source: where it lies now.

        A folder of a collection comes to lie in one of the same name.
        Raises: FileNotFoundError: it is not in processing/; StationMissing: processing/, or where it is
        to go, is not there; StationError.
        """
        for name in _free_names(folder if to is None else to, now or utcnow()):
            try:
                self._move(source, folder, station, name)
            except NameTaken:
                continue
            return name
        raise AssertionError("unreachable: the names go on forever")

    def _hand_back(self, name: bytes) -> None:
        """Let go of something in processing/ that is not a folder: back to the inbox, or otherwise aside."""
        try:
            self._move(Station.PROCESSING, name, Station.INBOX, name)
        except NameTaken:  # its name was taken meanwhile, and is not to be blocked by it
            self.put_aside(name)

    def put_aside(self, name: bytes) -> bytes:
        """Move what is not a folder from processing/ to failed/, with a reason; return its name there.

        Raises: FileNotFoundError, StationError, OSError.
        """
        kind = kind_of(self.identity(Station.PROCESSING, name).st_mode)
        aside = self.move_to(name, Station.FAILED)
        lies = display(os.fsencode(self.folder(Station.FAILED, aside)))
        self.write_reason(aside, _ASIDE.format(name=visible(display(name)), kind=kind, lies=visible(lies)))
        return aside

    def strays(self) -> list[bytes]:
        """Return the names in processing/ that are not folders, and so no job's."""
        with os.scandir(os.fsencode(self.path(Station.PROCESSING))) as entries:
            return [
                entry.name
                for entry in entries
                if not entry.name.startswith(b".") and not entry.is_dir(follow_symlinks=False)
            ]

    def bring_back(self, station: Station, folder: bytes, to: Station, name: bytes | None = None) -> None:
        """Move a finished folder back, to be worked on again: to processing/ or to inbox/.

        Args:
            station: where it lies: done or failed.
            folder: its name there, as bytes.
            to: processing or inbox.
            name: the name it gets there; None: it keeps its own.

        Raises: NameTaken: something of that name is there; FileNotFoundError: the folder is not;
            StationError.
        """
        self._move(station, folder, to, folder if name is None else name)
        if station is Station.FAILED:
            self.forget_reason(folder)
        elif collection := collection_of(folder):
            self.clear(station, collection)

    def exists(self, station: Station, folder: bytes) -> bool:
        """Tell whether the station holds that name."""
        return os.path.lexists(self.folder(station, folder))

    def listing(self, station: Station, collection: bytes = b"") -> list[bytes]:
        """Return the names of the folders in a station, or in a collection there: COLLECTION/NAME.

        In a collection without those that are ignored.
        """
        head = collection + b"/" if collection else b""
        with os.scandir(os.fsencode(self.folder(station, collection))) as entries:
            return [head + entry.name for entry in entries if self._is_folder(entry, collection)]

    def holds_folders(self, station: Station, collection: bytes) -> bool:
        """Tell whether there is a folder in a collection, however many there are."""
        with os.scandir(os.fsencode(self.folder(station, collection))) as entries:
            return any(self._is_folder(entry, collection) for entry in entries)

    def beside(self, station: Station, collection: bytes) -> list[bytes]:
        """Return what lies in a collection beside its folders: files, links, dotted names, what is ignored.

        Without the reasons that were written here.
        """
        with os.scandir(os.fsencode(self.folder(station, collection))) as entries:
            names = [entry.name for entry in entries if not self._is_folder(entry, collection)]
        found = [collection + b"/" + name for name in names]
        return [path for path in found if not self.is_reason(self.folder(station, path))]

    def _is_folder(self, entry: os.DirEntry[bytes], collection: bytes) -> bool:
        if entry.name.startswith(b".") or (collection and self.is_ignored(entry.name)):
            return False
        return entry.is_dir(follow_symlinks=False)

    def clear(self, station: Station, collection: bytes) -> bool:
        """Remove a collection of a station with nothing in it; return whether it is gone. Blocking."""
        try:
            os.rmdir(self.folder(station, collection))
        except FileNotFoundError:
            return True
        except OSError:  # there is something in it, or it is not to be removed: it does no harm
            return False
        self._sync(station)
        return True

    @staticmethod
    def aside(folder: bytes, job_id: str) -> bytes:
        """Return where a folder is set aside to be removed: beside it, under a name that nobody claims."""
        collection = collection_of(folder)
        return (collection + b"/" if collection else b"") + f".{job_id}.removing".encode()

    def set_aside(self, station: Station, folder: bytes, job_id: str) -> None:
        """Rename a folder that is to be removed, durably, so that nobody takes a part of it for the whole.

        Raises: FileNotFoundError: it does not lie there; NameTaken, StationMissing, StationError.
        """
        self._move(station, folder, station, self.aside(folder, job_id))

    def put_back(self, station: Station, folder: bytes, job_id: str) -> bytes:
        """Give a folder that was set aside its name again, as `move_to` does; return its name.

        Raises: FileNotFoundError, StationMissing, StationError.
        """
        return self.move_to(self.aside(folder, job_id), station, to=folder, source=station)

    def identity(self, station: Station, folder: bytes) -> os.stat_result:
        """Return the folder's own lstat."""
        return os.lstat(self.folder(station, folder))

    def is_another(self, station: Station, folder: bytes, ino: int) -> bool:
        """Tell whether what lies in a station under a name is not the folder of this inode.

        Args:
            folder: its name there, as bytes.
            ino: the inode number of the folder that is expected.

        Returns: False also where nothing lies there.
        """
        try:
            return self.identity(station, folder).st_ino != ino
        except (FileNotFoundError, NotADirectoryError):
            return False

    def write_reason(self, folder: bytes, text: str) -> Path:
        """Write failed/NAME.reason.txt beside a folder, durably; it replaces an earlier reason only.

        Raises: StationMissing, OSError.
        """
        self._make_way(Station.FAILED, folder, self.folder(Station.PROCESSING, collection_of(folder)))
        path = self.reason_path(folder)
        try:
            write_durably(path, text.encode("utf-8", "backslashreplace"))
        except FileNotFoundError as error:
            raise self.missing(Station.FAILED) from error
        return path

    def forget_reason(self, folder: bytes) -> None:
        """Remove a reason file whose folder has left failed/."""
        path = self.reason_path(folder)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
        if collection := collection_of(folder):
            self.clear(Station.FAILED, collection)

    def forget_old_reasons(self, collection: bytes) -> None:
        """Remove the reasons of a collection's folders that are not in failed/ any more.

        Those that came back with it, and those that were left where a folder was taken away by hand.
        """
        place = os.fsencode(self.folder(Station.PROCESSING, collection))
        with os.scandir(place) as entries:
            named = [entry.name for entry in entries if b".reason" in entry.name]
        for name in named:
            path = self.folder(Station.PROCESSING, collection + b"/" + name)
            if self.is_reason(path):
                path.unlink(missing_ok=True)
        if self.exists(Station.FAILED, collection):
            for folder in self.listing(Station.PROCESSING, collection):
                if not self.exists(Station.FAILED, folder):
                    self.forget_reason(folder)

    def reason_path(self, folder: bytes) -> Path:
        """Return where a failed folder's reason is written: where nothing else is named like that."""
        path = self.folder(Station.FAILED, fit(folder, _REASON))
        number = 2
        while os.path.lexists(path) and not self.is_reason(path):
            path = self.folder(Station.FAILED, fit(folder, b".reason-%d.txt" % number))
            number += 1
        return path

    @staticmethod
    def is_reason(path: Path) -> bool:
        """Tell whether a file is a reason that was written here: people may call theirs as they like."""
        if not path.name.endswith(".txt") or ".reason" not in path.name:
            return False
        try:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                return False
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
                text = file.read(_REASON_MOST).splitlines()
        except OSError:
            return False
        return bool(text and _BEGINS.fullmatch(text[0]) and any(map(_ENDS.fullmatch, text)))

    def lies_as(self, station: Station, folder: bytes, ino: int) -> bytes:
        """Return the name under which a folder that was moved to a station lies there now.

        It may have got a time suffix there; the inode tells it from another one of the name.

        Args:
            folder: the name it had, as bytes.
            ino: its inode number.

        Returns: `folder` itself where it is not found.
        """
        try:
            there = self.listing(station, collection_of(folder))
            for name in (folder, *(n for n in there if n.startswith(folder[:200]))):
                if self.exists(station, name) and self.identity(station, name).st_ino == ino:
                    return name
        except OSError:  # where it is not found, it is as well not looked for
            pass
        return folder

    def missing(self, directory: str) -> StationMissing:
        """Return the error of a directory under the root that is not there."""
        return StationMissing(
            f"{directory}/ is missing",
            where=str(self.root / directory),
            hint="Move it back; what waits for it goes on by itself",
        )

    def _move(self, source: Station, name: bytes, destination: Station, new_name: bytes) -> None:
        # 1 rename without replacing  2 fsync the new parent  3 fsync the old parent.
        # The new parent first: a cut between the two shows the folder in both, never in neither,
        # and the file system's journal resolves that to one of them.
        must_be_folder(name)
        must_be_folder(new_name)
        here, there = self.folder(source, name), self.folder(destination, new_name)
        try:
            self._rename(here, there, destination, new_name)
        except FileExistsError as error:
            raise NameTaken("this name is taken", where=str(there)) from error
        except OSError as error:
            if error.errno in _NOT_THERE:
                # Of the three that may be missing the folder is the last to be believed so.
                for station in (source, destination):
                    if not os.path.isdir(self.path(station)):
                        raise self.missing(station) from error
                if isinstance(error, FileNotFoundError) and not os.path.lexists(here):
                    raise
            raise refusal(error, here, self.path(destination)) from error
        fail_points.point("move.renamed")
        self._sync(destination, collection_of(new_name))
        fail_points.point("move.arrived")
        self._sync(source, collection_of(name))
        fail_points.point("move.durable")

    def _rename(self, here: Path, there: Path, destination: Station, new_name: bytes) -> None:
        """Rename, into the collection's directory where it is in one; others may remove that, being empty."""
        for _ in range(_TRIES):
            self._make_way(destination, new_name, here.parent)
            try:
                rename_noreplace(os.fsencode(here), os.fsencode(there))
            except FileNotFoundError:
                if not collection_of(new_name) or there.parent.is_dir() or not os.path.lexists(here):
                    raise
            else:
                return
        raise StationError(
            "its directory goes away again and again", where=display(os.fsencode(there.parent))
        )

    def _make_way(self, station: Station, folder: bytes, like: Path) -> None:
        """Make the directory of a collection that a folder is to lie in, with another's mode and group."""
        collection = collection_of(folder)
        path = self.folder(station, collection)
        if not collection or path.is_dir() or not self.path(station).is_dir():
            return
        status = os.stat(like if like.is_dir() else self.path(station))
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            with contextlib.suppress(OSError):  # not a member of that group
                os.chown(path, -1, status.st_gid)
            path.chmod(stat.S_IMODE(status.st_mode) | 0o700)
            self._sync(station)

    def _sync(self, station: Station, collection: bytes = b"") -> None:
        try:
            fsync_dir(self.folder(station, collection))
        except (
            FileNotFoundError
        ) as error:  # moved away in this moment; not to be mistaken for the folder's own
            if collection:  # an emptied one, which another job has removed
                self._sync(station)
                return
            raise self.missing(station) from error


def owner_of(folder: bytes, status: os.stat_result) -> int:
    """Return whose a folder is: its owner; of one that the daemon made of a file, the file's owner.

    That is a directory of the daemon's own with nothing in it but one file, beside what says something of it.
    Nothing else need be remembered of it, whatever crashes or moves come after. Blocking, but short.

    Args:
        folder: its path.
        status: its lstat.

    Raises: FileNotFoundError: it has gone.
    """
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
        return status.st_uid
    owners: list[int] = []
    with contextlib.suppress(PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in CONTROL:
                continue
            inner = entry.stat(follow_symlinks=False)
            # A further name may be somebody's who may not even read it.
            if owners or not stat.S_ISREG(inner.st_mode) or inner.st_nlink != 1:
                return status.st_uid
            owners.append(inner.st_uid)
    return owners[0] if owners else status.st_uid


def must_be_plain(name: bytes) -> None:
    """See that a name is that of an entry of a directory, and of no other. Raises: StationError."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise StationError(
            f"{display(name)!r} cannot be the name of a folder", hint="Nothing was moved; see docs/words.md"
        )


def must_be_folder(path: bytes) -> None:
    """See that a path is NAME or COLLECTION/NAME, of plain names. Raises: StationError."""
    names = path.split(b"/")
    if len(names) > 2:
        raise StationError(f"{display(path)!r} lies too deep to be a folder", hint="Nothing was moved")
    for name in names:
        must_be_plain(name)


def refusal(error: OSError, folder: Path, to: Path) -> StationError:
    """Return the error of a rename that failed: who may not, and what helps.

    Args:
        error: the rename's.
        folder: what was to be moved.
        to: the directory that it was to come to.
    """
    status = None
    if error.errno in (errno.EACCES, errno.EPERM):
        with contextlib.suppress(OSError):  # not even looked at: a mount of another user's, say
            status = os.lstat(folder)
    if status is not None:
        user = shell_word(os.fsencode(_user(os.geteuid())))
        cure, command = movable(error.errno, folder, status, (folder.parent, to), user)
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "file"
        return Immovable(
            f"the daemon may not move this {kind}: mode {stat.S_IMODE(status.st_mode):04o}, "
            f"owner {_user(status.st_uid)}",
            where=display(os.fsencode(folder)),
            cure=cure,
            command=command,
        )
    return StationError(f"this folder cannot be moved ({error.strerror})", where=display(os.fsencode(folder)))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def fit(name: bytes, ending: bytes) -> bytes:
    """Return name + ending, the name cut at a character so that it fits a directory entry.

    Names alike in what is left of them are told apart by eight digits of their SHA-256.
    Of COLLECTION/NAME the name is cut.
    """
    head, slash, name = name.rpartition(b"/")
    return head + slash + _fit(name, ending)


def _fit(name: bytes, ending: bytes) -> bytes:
    if len(name) + len(ending) <= NAME_MAX:
        return name + ending
    ending = b"~" + hashlib.sha256(name).hexdigest()[:8].encode() + ending
    kept = name[: NAME_MAX - len(ending)]
    while kept and name[len(kept)] & 0xC0 == 0x80:  # not inside a UTF-8 character
        kept = kept[:-1]
    return kept + ending


def _free_names(folder: bytes, now: datetime) -> Iterator[bytes]:
    yield folder
    moment = now.strftime(".%Y%m%dT%H%M%SZ").encode()
    yield fit(folder, moment)
    number = 2
    while True:
        yield fit(folder, moment + b".%d" % number)
        number += 1
