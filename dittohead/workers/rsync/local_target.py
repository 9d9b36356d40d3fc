"""A target on a mounted file system: what lies there, read by threads that are given up when it hangs.

A mount whose server has gone can hold anyone who touches it forever. So nothing here is done in the
loop's thread or in its pool: each look has a thread of its own, which is left behind, and the target
paused, when nothing has come of it for too long.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from dittohead.contract.worker import Inputs
from dittohead.model.errors import ItemError
from dittohead.model.records import Entry
from dittohead.system import attributes, disk_space, files
from dittohead.system.attributes import Keeps, PathCounts
from dittohead.system.process import UMASK
from dittohead.system.threads import Stop
from dittohead.toolkit import mounted

T = TypeVar("T")

#: Writing back what was delivered may take long without any sign of life in between.
_SYNC_LEAST_S = 600.0
#: Names of files shown at most.
SHOWN = 5
#: What rsync calls a file it is writing. Source: rsync(1), --temp-dir; receiver.c, get_tmpname.
_TEMPORARY = re.compile(rb"\.(?P<name>.+)\.[A-Za-z0-9]{6}", re.DOTALL)
#: A name longer than this is cut in that.
_CUT_FROM = 200


_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(kw_only=True)
class Arrived:
    """What lies at a target after a delivery."""

    wrong: list[str] = field(default_factory=list)  #: names of what is not as in the manifest
    bare: list[str] = field(default_factory=list)  #: of what lacks something that was to be kept
    files: int = 0  #: that were read, and are as in the manifest
    size: int = 0  #: bytes of those
    untimed: PathCounts = field(default_factory=PathCounts)  #: those with another time than in the folder


class LocalTarget:
    """One directory to deliver to.

    Args:
        path: absolute.
        fixed: the beginning of it that config.yaml gives, and so an administrator chose. A link in it is
            followed; in what lies below, which names fill in, only where it is root's or the daemon's
            own; and as the last part none at all. Members of a study can plant links there.
        umask: what directories that it makes lack.
    """

    def __init__(
        self, path: str, *, mount: str | None, stall_s: float, fixed: str | None = None, umask: int = UMASK
    ) -> None:
        self.path, self.mount, self._stall_s, self._umask = path, mount, stall_s, umask
        self._fixed = os.path.dirname(path) if fixed is None else fixed
        self.name = mount or path  #: what people know it by
        self.fd = -1  #: the directory itself once it is held: whatever happens to its name

    async def run(self, work: Callable[[Stop], T], stall_s: float | None = None) -> T:
        """Run `work` in a thread of its own.

        Raises: TargetError: nothing came of it for too long, now or earlier; what `work` raises.
        """
        return await mounted.run(work, self.name, stall_s or self._stall_s)

    async def check(self, *, mkpath: bool, job: str) -> None:
        """See that the place can be delivered to.

        Raises: TargetError: its mount is gone or hangs; ItemError: its parent does not exist.
        """
        await self.run(lambda stop: self._check(mkpath=mkpath, job=job))

    def _check(self, *, mkpath: bool, job: str) -> None:
        if self.mount:
            mounted.see_mounted(self.mount)
        parent = os.path.dirname(self.path)
        if _is_dir(parent) or mkpath:
            return
        raise ItemError(
            "the target folder does not exist",
            where=parent,
            hint="Check the folder's name; or make it, then: "
            f"`dittohead retry {job}`; or set mkpath: true, have the daemon read config.yaml again, then: "
            f"`dittohead rerun {job}`",
        )

    def _open(self, *, make: bool = False, mkpath: bool = False) -> int:
        return open_folder(self.path, self._fixed, make=make, mkpath=mkpath)

    async def hold(self, *, mkpath: bool) -> None:
        """Open the directory, and make it where it is missing; to be let go with `close`.

        From now on it is written and read by its descriptor: a link put in its place changes nothing.

        Raises: TargetError; ItemError: a link stands in its path, or it cannot be made.
        """
        if self.fd < 0:
            self.fd = await self.run(
                lambda stop: mounted.with_umask(lambda: self._open(make=True, mkpath=mkpath), self._umask)
            )

    def close(self) -> None:
        """Let the directory go. Threads that were left behind keep their own hold of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @contextlib.contextmanager
    def _held(self, stop: Stop) -> Iterator[bytes]:
        """Give the held directory a descriptor of this thread's own, and yield a path to that."""
        own = os.dup(self.fd)
        try:
            stop.check()  # anyone who closes it tells us before
            yield b"/proc/self/fd/%d" % own
        finally:
            os.close(own)

    async def conflicts(self, source: Inputs) -> list[str] | None:
        """Return what lies there under our names and is something else, a few of many.

        Returns: None when there is nothing at all.
        Raises: ItemError: a link stands in its path.
        """

        def work(stop: Stop) -> list[str] | None:
            try:
                fd = self._open()
            except FileNotFoundError:
                return None
            try:
                return list(itertools.islice(_conflicting(b"/proc/self/fd/%d" % fd, source, stop), SHOWN + 1))
            finally:
                os.close(fd)

        return await self.run(work)

    async def names(self, parent: bytes) -> list[bytes]:
        """Return the names in a folder below; it must be held."""

        def work(stop: Stop) -> list[bytes]:
            with self._held(stop) as place, files.directory_beneath(place, parent) as fd:
                return [os.fsencode(name) for name in os.listdir(fd)]

        return await self.run(work)

    async def read_back(
        self, source: Inputs, good: Callable[[Entry], None], since: float, keeps: Keeps
    ) -> tuple[Arrived, tuple[float, int]]:
        """Make what was delivered durable, read all of it, and call `good` for each file as in the manifest.

        It must be held.

        Then remove what a killed rsync of an earlier try had half written: files named as rsync names
        them for files of ours, closed to others as rsync keeps them, written `since` (seconds since the
        epoch) the claim, and holding nothing but the beginning of our file.

        Args:
            source: what was delivered.
            good: called in a thread, once for each file that is right.
            since: when the folder was claimed, in seconds since the epoch.
            keeps: what is compared besides content and times.

        Returns: what was found, and (share used, size in bytes) of the file system.
        Raises: ItemError: another directory, or a link, has come to stand at the path meanwhile.
        """

        # Written data first goes to disk as a whole: one call, not one for each file.
        def flush(stop: Stop) -> None:
            with self._held(stop) as place:
                files.sync_filesystem(place)

        await self.run(flush, max(_SYNC_LEAST_S, 10 * self._stall_s))

        def work(stop: Stop) -> tuple[Arrived, tuple[float, int]]:
            with self._held(stop) as place:
                self._see_it_is_there(place)
                found = _Comparison(source, place, keeps, good).run(stop)
                if not found.wrong:
                    _remove_leftovers(place, source, since, stop)
                return found, disk_space.used(place)

        return await self.run(work)

    def _see_it_is_there(self, place: bytes) -> None:
        """See that the path leads to the directory that is held."""
        fd = self._open()
        try:
            if not os.path.samestat(os.fstat(fd), os.stat(place)):
                raise ItemError(
                    "this is another folder now than when the delivery began",
                    where=self.path,
                    hint="See who moved it; then run the folder again",
                )
        finally:
            os.close(fd)


def open_folder(path: str, fixed: str, *, make: bool = False, mkpath: bool = False) -> int:
    """Open a directory, following links only where an administrator has put them. See `LocalTarget`.

    Args:
        make: make it where it is missing; with `mkpath` its parents too.

    Raises: ItemError: a link stands in its path that is not to be followed; FileNotFoundError, OSError.
    """
    fixed = fixed if (path + "/").startswith(fixed.rstrip("/") + "/") else os.path.dirname(path)
    if fixed == path:  # all of it was chosen: yet anyone who may write its parent can exchange the last part
        parent, name = os.path.split(path)
        return _below(parent, [(name, True)], path, make=make, mkpath=mkpath)
    parts = path[len(fixed.rstrip("/")) :].strip("/").split("/")
    below = [(part, number < len(parts)) for number, part in enumerate(parts, 1)]
    return _below(fixed or "/", below, path, make=make, mkpath=mkpath)


def _below(base: str, parts: list[tuple[str, bool]], path: str, *, make: bool, mkpath: bool) -> int:
    """Open `parts` below a directory, each with whether a link may stand for it."""
    if make and mkpath:
        os.makedirs(base, exist_ok=True)
    # O_PATH: a directory that may be passed need not be one that may be listed.
    fd = os.open(base + "/.", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for number, (part, may_be_link) in enumerate(parts, 1):
        try:
            if make and (mkpath or number == len(parts)):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=fd)
            inner = _into(part, fd, path, may_be_link=may_be_link)
        finally:
            os.close(fd)
        fd = inner
    return fd


def _into(part: str, fd: int, path: str, *, may_be_link: bool) -> int:
    try:
        return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=fd)
    except PermissionError:
        return os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        status = os.stat(part, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISLNK(status.st_mode):
            raise ItemError("this is not a folder", where=path, hint="See what lies there") from error
        # Another name of a link is made by the one who may not make the link itself.
        if not may_be_link or status.st_uid not in (0, os.geteuid()) or status.st_nlink > 1:
            raise ItemError(
                f'"{part}" is a link: what lies behind it is not read, and nothing is delivered there',
                where=path,
                hint="Put a folder in its place; or write the path it stands for in to:",
            ) from error
        return os.open(part + "/.", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)


def _is_dir(path: str) -> bool:
    """Tell whether it is a directory; unlike os.path's, lets other troubles through."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _conflicting(place: bytes, source: Inputs, stop: Stop) -> Iterator[str]:
    for entry in source.entries():
        stop.check()
        if not entry.is_dir and not _same_or_absent(place, entry, stop):
            yield os.fsdecode(entry.path)


def _same_or_absent(place: bytes, entry: Entry, stop: Stop) -> bool:
    try:
        with files.opened_beneath(place, entry.path) as fd:
            if os.fstat(fd).st_size != entry.size:
                return False
            return files.sha256_fd(fd, files.hash_buffer(), lambda n: stop.check())[0] == entry.sha256
    except FileNotFoundError:
        return True
    except ItemError:
        return False


class _Comparison:
    """Compares what lies at a place with what was to be delivered."""

    def __init__(self, source: Inputs, place: bytes, keeps: Keeps, good: Callable[[Entry], None]) -> None:
        self._source, self._place, self._keeps, self._good = source, place, keeps, good
        self._root = os.fsencode(source.root)
        self._buffer = files.hash_buffer()
        self._linked: dict[tuple[int, int], tuple[int, int]] = {}  #: file there, by file here
        self._found = Arrived()

    def run(self, stop: Stop) -> Arrived:
        """Read everything there. Raises: Stopped, OSError."""
        folders = attributes.FolderAttributes()
        if self._own:
            self._folder(b"")
        for entry in self._source.entries():
            stop.check()
            for folder in folders.new(entry) if self._own or entry.is_dir else ():
                self._folder(folder)
            if not entry.is_dir:
                self._file(entry, stop)
        return self._found

    @property
    def _own(self) -> bool:
        """Whether these are the uploader's files and folders, with times and attributes of their own."""
        return self._source.made is None

    def _file(self, entry: Entry, stop: Stop) -> None:
        try:
            with files.opened_beneath(self._place, entry.path) as fd:
                digest, size = files.sha256_fd(fd, self._buffer, lambda n: stop.check())
                stop.check()  # left behind, it must not speak any more
                if digest != entry.sha256:
                    self._found.wrong.append(os.fsdecode(entry.path))
                    return
                self._good(entry)
                self._found.files += 1
                self._found.size += size
                if self._own:
                    self._extras(entry.path, fd, entry.mtime_ns)
        except (FileNotFoundError, ItemError):
            self._found.wrong.append(os.fsdecode(entry.path))

    def _folder(self, path: bytes) -> None:
        try:
            with files.directory_beneath(self._place, path) as fd:
                if self._own:
                    self._extras(path, fd, None)
        except (FileNotFoundError, ItemError):
            self._found.wrong.append(os.fsdecode(path))

    def _extras(self, path: bytes, fd: int, mtime_ns: int | None) -> None:
        """Compare what a file or folder has besides its content with its original."""
        original, keeps, is_dir = os.path.join(self._root, path), self._keeps, mtime_ns is None
        there = os.fstat(fd)
        if is_dir and path and keeps.folder_times:  # the target's own folder may be others' as well
            mtime_ns = os.lstat(original).st_mtime_ns
        # Whole seconds, as rsync compares: file systems differ in what they keep of the rest.
        if mtime_ns is not None and there.st_mtime_ns // 10**9 != mtime_ns // 10**9:
            self._found.untimed.add(is_dir=is_dir)
        lacks = bool(keeps) and attributes.lacking(
            original, fd, xattrs=keeps.xattrs, private=keeps.private, lists=keeps.acls
        )
        if lacks or (keeps.hard_links and not is_dir and not self._is_linked_alike(original, there)):
            self._found.bare.append(os.fsdecode(path) or ".")

    def _is_linked_alike(self, original: bytes, there: os.stat_result) -> bool:
        here = os.lstat(original)
        if here.st_nlink == 1:
            return True
        known = self._linked.setdefault((here.st_dev, here.st_ino), (there.st_dev, there.st_ino))
        return known == (there.st_dev, there.st_ino)


def _remove_leftovers(place: bytes, source: Inputs, since: float, stop: Stop) -> int:
    # Names are kept only for directories where there is something like a leftover, which is rare.
    suspects: dict[bytes, list[bytes]] = {}
    seen: set[bytes] = set()
    for entry in source.entries():
        stop.check()
        parent = os.path.dirname(entry.path)
        if parent not in seen:
            seen.add(parent)
            if found := _alike(place, parent):
                suspects[parent] = found
    ours: defaultdict[bytes, set[bytes]] = defaultdict(set)
    for entry in source.entries() if suspects else ():
        parent, name = os.path.split(entry.path)
        if parent in suspects:
            ours[parent].add(name)
    count = 0
    for parent, found in suspects.items():
        stop.check()
        with files.directory_beneath(place, parent) as fd:
            for name in found:
                whole = _whose(name, ours[parent])
                path = os.path.join(parent, whole) if whole else b""
                if path and _is_beginning(name, fd, os.fsencode(source.root), path):
                    status = os.fstat(fd)
                    count += files.remove_if_written_since(name, fd, since)
                    with contextlib.suppress(PermissionError):  # another's folder keeps no time of ours
                        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
    return count


def _alike(place: bytes, parent: bytes) -> list[bytes]:
    """Return the names in a directory that look like those of rsync's temporary files."""
    try:
        with (
            files.directory_beneath(place, parent) as fd,
            os.scandir(fd) as entries,
        ):
            return [name for e in entries if _TEMPORARY.fullmatch(name := os.fsencode(e.name))]
    except (FileNotFoundError, ItemError):
        return []


def _whose(found: bytes, names: set[bytes]) -> bytes:
    """Return the file of ours that rsync would give such a temporary name; b"" when there is none."""
    match = _TEMPORARY.fullmatch(found)
    if match is None or found in names:
        return b""
    name = match["name"]
    if name in names:
        return name
    alike = [full for full in names if full.startswith(name)] if len(name) > _CUT_FROM else []
    return alike[0] if len(alike) == 1 else b""


def _is_beginning(name: bytes, dir_fd: int, root: bytes, path: bytes) -> bool:
    """Tell whether a file holds what one of ours begins with, and is closed to all but its owner."""
    try:
        fd, status = files.open_regular(name, dir_fd)
    except (OSError, ItemError):
        return False
    try:
        if status.st_mode & 0o077:  # rsync opens a file to others when it is whole
            return False
        with files.opened_beneath(root, path) as own:
            while part := os.read(fd, 1 << 20):
                if os.pread(own, len(part), os.lseek(fd, 0, os.SEEK_CUR) - len(part)) != part:
                    return False
        return True
    except (OSError, ItemError):
        return False
    finally:
        os.close(fd)
