"""Put another file in the place of one in a failed folder: in one step, and the earlier one is kept.

A new file comes to `state/replacements/<id>/new` and waits there, with `about.json` that says whose it is and
what for. When it is asked for, all of that moves to `state/replaced/<job id>/<id>/`, which nobody removes;
there the two files change places, and the earlier one gets its name back, in `earlier/`.

    # 1 note durable  2 set: moved to state/replaced/  3 swapped  4 durable  5 the earlier one has its name
A crash at any moment leaves the old or the new file in the folder, and the other one below state/; asked for
again, what is done is seen by the new file's inode, and the rest follows.

Everything here blocks and runs in threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode

from dittohead.folders import manifest
from dittohead.folders.job_files import JobFiles
from dittohead.folders.stations import Stations
from dittohead.model import paths
from dittohead.model.errors import ItemError, Unreadable
from dittohead.model.records import Job
from dittohead.model.states import JobState
from dittohead.model.text import display, visible
from dittohead.system import fail_points, files, folding, own_files

_ID = re.compile(r"[0-9a-f]{32}")
_NEW, _ABOUT, _EARLIER = "new", "about.json", "earlier"

#: What nobody has asked for is removed after this long. Seconds.
KEPT_S = 86_400.0

_AGAIN = "Upload the new file again"


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A file that waits to be put in the place of another."""

    id: str
    job: str
    path: str  #: as `paths.path_fields` writes it, within the folder
    encoding: str  #: "percent", or "" for a path that is text
    who: str
    size: int = 0
    sha256: str = ""
    ino: int = 0
    was: str = ""  #: the SHA-256 of the earlier file; "" until it is replaced, "unreadable" where it was that
    was_size: int = 0

    @property
    def name(self) -> bytes:
        """The path to the byte."""
        return paths.path_bytes({"path": self.path, "encoding": self.encoding})

    @property
    def shown(self) -> str:
        """The path for people."""
        return visible(display(self.name))


def path_of(path: str, encoding: str = "") -> bytes:
    """Return a path as it came from outside. Raises: ItemError: it cannot be that of a file in a folder."""
    try:
        name = paths.path_bytes({"path": path, "encoding": encoding})
    except UnicodeEncodeError:
        raise _no_path(path, "is not UTF-8 text") from None
    parts = name.split(b"/")
    if any(part in (b"", b".", b"..") for part in parts):
        raise _no_path(path, "has an empty part, or one of dots alone")
    if b"\0" in name:
        raise _no_path(path, "holds a NUL")
    return name


def _no_path(path: str, why: str) -> ItemError:
    return ItemError(f"this path {why}", where=visible(path), hint="Give it as the list of files has it")


@contextlib.contextmanager
def place(folder: Path, path: bytes) -> Iterator[tuple[int, bytes, os.stat_result]]:
    """Give (open directory, name in it, its lstat) of a regular file in a folder. No link is followed.

    The name must be there to the letter: a file system that folds names would find another one.
    Raises: ItemError: there is no such file, or it is something else; OSError.
    """
    parent, _, name = path.rpartition(b"/")
    shown = visible(display(path))
    try:
        with files.directory_beneath(folder, parent) as directory:
            names = [os.fsencode(one) for one in os.listdir(directory)]
            if name not in names:
                raise _no_such(shown, name, names)
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                kind = files.kind_of(status.st_mode)
                raise ItemError(f"this is a {kind}, and no file", where=shown, hint="Only files are replaced")
            yield directory, name, status
    except FileNotFoundError as error:
        raise _no_such(shown, name, []) from error


def _no_such(shown: str, name: bytes, names: list[bytes]) -> ItemError:
    alike = [visible(display(one)) for one in names if folding.key(one) == folding.key(name)]
    hint = f"There is {' and '.join(sorted(alike))}" if alike else "See its list of files"
    return ItemError("there is no such file in the folder", where=shown, hint=hint)


class Replacements:
    """The files that wait to be put in the place of others, and those that were replaced."""

    def __init__(self, stations: Stations) -> None:
        self.stations = stations
        self.waiting = stations.state / "replacements"

    def kept(self, job: str) -> Path:
        """Return where the earlier files of a job are kept."""
        return self.stations.state / "replaced" / job

    # -- a new file comes ----------------------------------------------------------------------

    def expect(self, job: Job, path: str, encoding: str, who: str) -> Offer:
        """Return what is to come: an offer with an id of its own. Nothing is written yet.

        Args:
            job: the job whose folder has the damaged file.
            path: that file, relative to the folder, as the list of files has it.
            encoding: "percent" where the path is percent-encoded, otherwise "".
            who: the person who replaces it.

        Raises: ItemError: there is no such file, or it cannot be replaced.
        """
        name = path_of(path, encoding)
        with place(self.stations.folder(job.station, job.folder), name):
            pass
        fields = paths.path_fields(name)
        return Offer(
            id=secrets.token_hex(16),
            job=job.id,
            who=who,
            path=fields["path"],
            encoding=fields.get("encoding", ""),
        )

    @contextlib.contextmanager
    def receiving(self, offer: Offer) -> Iterator[IO[bytes]]:
        """Give the file that its bytes are written to; what raises inside leaves nothing behind."""
        home = self.waiting / offer.id
        home.mkdir(mode=0o700, parents=True)
        try:
            with open(home / _NEW, "xb", buffering=0) as file:
                yield file
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise

    def received(self, offer: Offer, sha256: str = "") -> Offer:
        """Read a file back from the disk, make it durable, and return it with its size and digest.

        Args:
            sha256: what it is to be, where the sender has computed it.

        Raises: ItemError: it is empty, or not what was sent; OSError. Then nothing of it stays.
        """
        home = self.waiting / offer.id
        try:
            files.fsync_file(home / _NEW)
            digest, size = files.sha256_file(home / _NEW)
            if not size:
                raise ItemError("the new file is empty", where=offer.shown, hint="Choose one that is whole")
            if sha256 and digest != sha256:
                raise ItemError("what came is not what was sent", where=offer.shown, hint="Send it again")
            whole = replace(offer, size=size, sha256=digest, ino=os.lstat(home / _NEW).st_ino)
            self._note(home, whole)
            files.fsync_dir(self.waiting)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        return whole

    def get(self, id_: str, job: str) -> Offer:
        """Return a file that waits for a job, or was put in its place already.

        Raises: ItemError: there is none.
        """
        return self._read(self._home(id_, job))

    def _home(self, id_: str, job: str) -> Path:
        if _ID.fullmatch(id_):
            for home in (self.waiting / id_, self.kept(job) / id_):
                if home.is_dir():
                    return home
        raise ItemError("the new file is not here any more", hint=_AGAIN)

    def _read(self, home: Path) -> Offer:
        try:
            return own_files.document(home / _ABOUT, lambda found: Offer(**found))
        except (OSError, Unreadable) as error:
            raise ItemError("what was noted of the new file cannot be read", hint=_AGAIN) from error

    def _note(self, home: Path, offer: Offer) -> None:
        files.write_durably(home / _ABOUT, json.dumps(asdict(offer)).encode(), 0o600)

    def give_up(self, id_: str) -> None:
        """Remove a file that waits."""
        if _ID.fullmatch(id_):
            shutil.rmtree(self.waiting / id_, ignore_errors=True)

    def sweep(self) -> int:
        """Remove files that nobody has asked for in a day; return how many."""
        count = 0
        with contextlib.suppress(FileNotFoundError):
            for home in list(self.waiting.iterdir()):
                if _ID.fullmatch(home.name) and time.time() - home.lstat().st_mtime > KEPT_S:
                    shutil.rmtree(home, ignore_errors=True)
                    count += 1
        return count

    # -- and takes the other's place --------------------------------------------------------------

    def put(self, job: Job, offer: Offer) -> tuple[Offer, Path]:
        """Put a new file in the place of the earlier one; return it, and where the earlier one is kept.

        Harmless to repeat.
        Raises: ItemError: it cannot be done, and nothing was changed; OSError.
        """
        folder = self.stations.folder(job.station, job.folder)
        earlier = self.kept(job.id) / offer.id / _EARLIER / os.fsdecode(offer.name.rpartition(b"/")[2])
        home = earlier.parent.parent
        if os.path.lexists(earlier) and not os.path.lexists(home / _NEW):  # done before
            return offer, earlier
        with self._there(folder, offer, earlier) as (directory, name, status):
            if status is not None and status.st_ino != offer.ino:
                offer = self._measured(job, offer, directory, name)
            self._set(offer, home)
            if status is None or status.st_ino != offer.ino:
                self._take_place(directory, name, home / _NEW, earlier, status)
            fail_points.point("replace.swapped")
            os.fsync(directory)
        files.fsync_dir(home)
        if os.path.lexists(home / _NEW):
            files.rename_noreplace(os.fsencode(home / _NEW), os.fsencode(earlier))
        files.fsync_dir(earlier.parent)
        files.fsync_dir(home)
        fail_points.point("replace.kept")
        return offer, earlier

    @contextlib.contextmanager
    def _there(
        self, folder: Path, offer: Offer, earlier: Path
    ) -> Iterator[tuple[int, bytes, os.stat_result | None]]:
        """As `place`; without an lstat where the earlier file has left already."""
        if not os.path.lexists(earlier):
            with place(folder, offer.name) as found:
                yield found
            return
        parent, _, name = offer.name.rpartition(b"/")
        with files.directory_beneath(folder, parent) as directory:
            try:
                yield directory, name, os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                yield directory, name, None

    def _measured(self, job: Job, offer: Offer, directory: int, name: bytes) -> Offer:
        """Note what the earlier file is, before it leaves. Raises: ItemError: it is the same."""
        try:
            fd, status = files.open_regular(name, directory)
            with open(fd, "rb", buffering=0):
                digest, size = files.sha256_fd(fd, files.hash_buffer())[0], status.st_size
        except (ItemError, OSError):  # of a disk that gives it back no more, say: the reason to replace it
            digest, size = self.listed(job, offer.name), 0
        if digest == offer.sha256:
            raise ItemError(
                "the new file is the same as the one in the folder",
                where=offer.shown,
                hint="Choose another; if it failed of something else: dittohead retry " + job.id,
            )
        measured = replace(offer, was=digest or "unreadable", was_size=size)
        self._note(self._home(offer.id, job.id), measured)
        fail_points.point("replace.noted")
        return measured

    def listed(self, job: Job, path: bytes) -> str:
        """Return the digest that a file had at the claim; "" where nobody knows."""
        with contextlib.suppress(OSError, Unreadable):
            for entry in manifest.read(JobFiles(self.stations, job).manifest, ignored=True):
                if entry.path == path:
                    return entry.sha256
        return ""

    def _set(self, offer: Offer, home: Path) -> None:
        """Move what waits to where the earlier file will be kept; nothing there is ever removed."""
        if not home.is_dir():
            home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.rename_noreplace(os.fsencode(self.waiting / offer.id), os.fsencode(home))
        (home / _EARLIER).mkdir(mode=0o700, exist_ok=True)
        for directory in (home, home.parent, home.parent.parent, self.stations.state):
            files.fsync_dir(directory)
        fail_points.point("replace.set")

    def _take_place(
        self, directory: int, name: bytes, new: Path, earlier: Path, status: os.stat_result | None
    ) -> None:
        if status is not None:
            _like(new, status)
        try:
            if status is not None and files.exchange(directory, name, os.fsencode(new)):
                return
            # Not in one step here: between the two the earlier file is kept, and the new one comes again.
            here = f"/proc/self/fd/{directory}/".encode() + name
            if status is not None:
                files.rename_noreplace(here, os.fsencode(earlier))
                files.fsync_dir(earlier.parent)
            files.rename_noreplace(os.fsencode(new), here)
        except PermissionError as error:
            raise ItemError(
                f"the daemon may not write in the folder it lies in ({error.strerror})",
                where=visible(display(name)),
                hint="Let its group write there (chmod g+w), then replace it again",
            ) from error


def _like(new: Path, status: os.stat_result) -> None:
    """Give a new file the mode of the one it stands in for, and its owner and group where that may be."""
    for uid, gid in ((status.st_uid, status.st_gid), (-1, status.st_gid)):
        with contextlib.suppress(OSError):
            os.chown(new, uid, gid)
            break
    os.chmod(new, stat.S_IMODE(status.st_mode) & 0o777)


def at_fault(stations: Stations, job: Job) -> list[dict[str, str]]:
    """Return the files that a job has failed of and that lie in its folder, each with a query for them."""
    if job.state is not JobState.FAILED or job.error is None:
        return []
    given = job.error.files or (job.error.where,)
    folder = stations.folder(job.station, job.folder)
    return [{"shown": path, "query": urlencode({"path": path})} for path in given if _is_there(folder, path)]


def _is_there(folder: Path, path: Any) -> bool:
    try:
        with place(folder, path_of(path)):
            return True
    except (ItemError, OSError, TypeError, AttributeError):  # what a damaged row says may be anything
        return False


def in_place(stations: Stations, job: str, folder: Path) -> list[str]:
    """Return the beginning of the sentence on each file that replaced another and lies there still.

    Args:
        job: the job's id.
        folder: where the job's folder lies now.
    """
    found = []
    replacements = Replacements(stations)
    with contextlib.suppress(FileNotFoundError):
        for home in replacements.kept(job).iterdir():
            with contextlib.suppress(ItemError, OSError):
                offer = replacements.get(home.name, job)
                with place(folder, offer.name) as (_, _, status):
                    # A file system gives the number of a removed file to the next one.
                    if (status.st_ino, status.st_size) == (offer.ino, offer.size):
                        found.append(_begins(offer))
    return found


def _begins(offer: Offer) -> str:
    return _beginning(offer.name)


def _beginning(path: bytes) -> str:
    return f"{visible(display(path))} replaced by "


def is_told(sentences: Sequence[str], path: bytes, sha256: str) -> bool:
    """Tell whether one of the sentences of `words` says that a file of this digest took the place of one."""
    begins, now = _beginning(path), f", is {sha256} ("
    return any(one.startswith(begins) and now in one for one in sentences)


def words(offer: Offer, who: str, why: str, earlier: Path, root: Path) -> str:
    """Return what was done in one sentence, as histories and receipts have it.

    Args:
        offer: the new file; with its size, its SHA-256 and that of the file it replaces.
        who: the person who replaced it.
        why: the reason they gave; "" for none.
        earlier: where the earlier file is kept; below `root`.
        root: the root of the stations.
    """
    kept = visible(str(earlier.relative_to(root)))
    reason = f": {why}" if why else ""
    return (
        f"{_begins(offer)}{who}{reason}; SHA-256 was {offer.was}, is {offer.sha256} "
        f"({offer.size:,} bytes); the earlier file is kept as {kept}"
    )


def fields(offer: Offer) -> dict[str, Any]:
    """Return an offer for programs."""
    return {
        "id": offer.id,
        "path": offer.path,
        "encoding": offer.encoding,
        "size": offer.size,
        "sha256": offer.sha256,
    }
