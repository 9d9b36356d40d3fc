"""The folder here: what is in it, what cannot be sent, and reading a file while nobody changes it."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import platform
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dittohead_send import manifest, names
from dittohead_send.errors import IO, NO_INPUT, TEMPORARY, USAGE, SendError
from dittohead_send.words import counted, plain, some, visible

#: At each multiple of this a file's digest so far is kept. After so many bytes the server's disk has them,
#: and the journal says so: at most as many are read back after a break. Bytes.
POINT = 256 << 20

#: Links of Windows: symbolic links, and junctions, which Python 3.11 does not call links. Files that a
#: cloud service keeps elsewhere have other tags. Source: Microsoft, "Reparse Point Tags".
_LINK_TAGS = (0xA000000C, 0xA0000003)

_KINDS = {
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


class ChangedError(Exception):
    """The file changed while it was read."""


@dataclass(frozen=True, slots=True)
class State:
    """What tells whether a file was written to: the file itself, its size and its times (nanoseconds)."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> State:
        """Return that of a file. Windows calls the time of its creation ctime, which never changes."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class File:
    """A file of the folder."""

    path: bytes  #: within the folder, with `/`, as it is sent
    local: str  #: absolute
    state: State
    mode: int
    follow: bool  #: whether a link may stand at its place


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory within the folder; `path` is b"" for the folder itself."""

    path: bytes
    mtime_ns: int
    mode: int


@dataclass(kw_only=True, slots=True)
class Listing:
    """All that is sent of a folder."""

    root: str  #: absolute
    files: dict[bytes, File] = field(default_factory=dict)
    folders: dict[bytes, Folder] = field(default_factory=dict)  #: each after the one that holds it
    left_out: list[str] = field(default_factory=list)  #: junk
    unfinished: list[str] = field(default_factory=list)  #: names for which the daemon waits
    decomposed: int = 0  #: names with letter and accent apart

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.state.size for file in self.files.values())

    def identity(self) -> manifest.Identity:
        """Return what an upload of this folder is recognised by."""
        who = f"{user()}@{platform.node()}"
        files = (
            b"%s\0%d\0%d" % (file.path, file.state.size, file.state.mtime_ns // 1_000_000_000)
            for _, file in sorted(self.files.items())
        )
        return manifest.Identity(
            origin=manifest.digest_of(
                [
                    b"dittohead-send",
                    who.encode(),
                    os.path.realpath(self.root).encode(
                        "utf-8", "surrogatepass" if os.name == "nt" else "surrogateescape"
                    ),
                ]
            ),
            content=manifest.digest_of(files),
        )


def user() -> str:
    """Return the name of the person here, or "somebody" where the system has none."""
    with contextlib.suppress(KeyError, OSError):  # OSError: since Python 3.13
        return getpass.getuser()
    return "somebody"


def usable(path: str) -> str:
    """Return an absolute path by which anything of any length and name is reached."""
    if os.name == "nt":
        return names.long_path(os.path.abspath(names.unquoted(path)))
    return os.path.abspath(path)


def scan(folder: str, *, follow: bool = False) -> Listing:
    """List a folder. Blocking; reads no content.

    Args:
        follow: send what links stand for, instead of refusing them.

    Raises: SendError: it is not a folder, is empty, or holds what cannot be sent.
    """
    root = usable(folder)
    _check_root(root, folder, follow=follow)
    scanner = _Scanner(Listing(root=root), follow)
    try:
        scanner.walk()
    except OSError as error:
        raise SendError(
            f"this cannot be read ({plain(error)})",
            where=visible(os.fsdecode(error.filename or folder)),
            hint="Check your rights to it",
            status=IO,
        ) from error
    scanner.check()
    return scanner.listing


def _check_root(root: str, given: str, *, follow: bool) -> None:
    where = visible(given)
    try:
        status = os.stat(root, follow_symlinks=follow)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise SendError(
            "there is no such folder" if missing else f"this cannot be read ({plain(error)})",
            where=where,
            hint="Check the path" if missing else "Check your rights to it",
            status=NO_INPUT,
        ) from error
    if _is_link(status):
        hint = f"Give what it stands for: {visible(os.path.realpath(root))}"
        raise SendError("this is a link", where=where, hint=hint, status=NO_INPUT)
    if not stat.S_ISDIR(status.st_mode):
        hint = "Put it into a folder, and send that"
        raise SendError("this is a file; only folders are sent", where=where, hint=hint, status=NO_INPUT)


def _is_link(status: os.stat_result) -> bool:
    return stat.S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) in _LINK_TAGS


#: A directory to list: where it is, what stands before its names, and what it is in (device, inode).
_Todo = tuple[str, bytes, tuple[tuple[int, int], ...]]


class _Scanner:
    """One walk; each directory's entries by name."""

    def __init__(self, listing: Listing, follow: bool) -> None:
        self.listing = listing
        self.follow = follow
        self.refused: list[tuple[str, str]] = []  #: path, why

    def walk(self) -> None:
        root = self.listing.root
        status = os.stat(root)
        self.listing.folders[b""] = Folder(b"", status.st_mtime_ns, stat.S_IMODE(status.st_mode))
        #: directories to do, each with those above it: a link that leads to one of them would never end
        todo: list[_Todo] = [(root, b"", ((status.st_dev, status.st_ino),))]
        while todo:
            directory, prefix, above = todo.pop()
            entries = (
                self._entry(os.path.join(directory, name), name, prefix, above)
                for name in sorted(os.listdir(directory), reverse=True)
            )
            todo.extend(entry for entry in entries if entry is not None)

    def _entry(
        self, local: str, name: str, prefix: bytes, above: tuple[tuple[int, int], ...]
    ) -> _Todo | None:
        status = os.stat(local, follow_symlinks=False)
        where = visible(os.path.relpath(local, self.listing.root))
        try:
            path = prefix + names.encoded(name)
        except UnicodeEncodeError:
            self.refused.append((where, "its name is not Unicode text"))
            return None
        is_link = _is_link(status)
        if is_link and self.follow:
            try:
                status = os.stat(local)
            except OSError:
                self.refused.append((where, "a link that leads nowhere"))
                return None
        elif is_link:
            self.refused.append((where, "a link"))
            return None
        if why := self._wrong(path, name, status):
            self.refused.append((where, why))
        elif stat.S_ISDIR(status.st_mode):
            self._note(name, where)
            if (status.st_dev, status.st_ino) in above:
                self.refused.append((where, "a link to a folder that it is in"))
                return None
            self.listing.folders[path] = Folder(path, status.st_mtime_ns, stat.S_IMODE(status.st_mode))
            return local, path + b"/", (*above, (status.st_dev, status.st_ino))
        elif name.lower() in names.JUNK:
            self.listing.left_out.append(where)
        else:
            self._note(name, where)
            state, mode = State.of(status), stat.S_IMODE(status.st_mode)
            self.listing.files[path] = File(path, local, state, mode, is_link or self.follow)
        return None

    def _note(self, name: str, where: str) -> None:
        if names.unfinished(name):
            self.listing.unfinished.append(where)
        self.listing.decomposed += names.is_decomposed(name)

    @staticmethod
    def _wrong(path: bytes, name: str, status: os.stat_result) -> str:
        kind = stat.S_IFMT(status.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            return f"a {_KINDS.get(kind, 'special file')}"
        if path in (manifest.NAME, manifest.JOURNAL):
            return "a manifest of this program: the folder was sent before, or received"
        if len(path) > names.PATH_MOST or path.count(b"/") >= names.DEPTH_MOST:
            return f"its path has more than {names.PATH_MOST:,} bytes or {names.DEPTH_MOST} folders"
        return f"its name has more than {names.NAME_MOST + 1} bytes" if len(names.encoded(name)) > 255 else ""

    def check(self) -> None:
        where = visible(self.listing.root)
        if self.refused:
            listed = some([f"{path} ({why})" for path, why in sorted(self.refused)])
            hint = "Remove them, or put copies in their place"
            if not self.follow and any(why == "a link" for _, why in self.refused):
                hint += "; --follow-links sends what links stand for"
            raise SendError(
                f"{counted(len(self.refused), 'name')} cannot be sent: {listed}", where=where, hint=hint
            )
        if not self.listing.files:
            raise SendError("the folder holds no files", where=where, hint="Check that it is the right one")


class Reader:
    """A file that is read once, from its beginning, and hashed meanwhile. All methods are blocking.

    Raises: SendError: it cannot be opened; ChangedError: it is another, or has become shorter.
    """

    def __init__(self, file: File) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._fd = _opened(file)
        self.state = State.of(os.fstat(self._fd))
        self.left = self.state.size
        self.digests: dict[int, str] = {}  #: of what is before the last multiple of POINT

    def rewind(self) -> None:
        """Begin again."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self.left = self.state.size

    def read(self, most: int) -> bytes:
        """Return the next bytes: as many as were asked for, but at the end."""
        block = bytearray()
        want = min(most, self.left)
        try:
            while len(block) < want and (data := os.read(self._fd, want - len(block))):
                block += data
        except OSError as error:
            raise _unreadable(self._file, error) from error
        if len(block) < want:
            raise ChangedError
        self.left -= want
        self._hash.update(block)
        at = self.state.size - self.left
        if at % POINT == 0:
            self.digests = {at: self.digest}
        return bytes(block)

    @property
    def digest(self) -> str:
        """SHA-256 of what has been read, in hex."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Close it; after this only `digest` and `state` are of use."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def check(self) -> None:
        """Compare the file with what it was when it was opened. Raises: ChangedError."""
        try:
            now = (
                State.of(os.fstat(self._fd)),
                State.of(os.stat(self._file.local, follow_symlinks=self._file.follow)),
            )
        except OSError as error:
            raise ChangedError from error
        if any(state != self.state for state in now):
            raise ChangedError


def _opened(file: File) -> int:
    flags = (
        os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    )
    if not file.follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        fd = os.open(file.local, flags)
    except FileNotFoundError as error:
        raise ChangedError from error
    except OSError as error:
        raise _unreadable(file, error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ChangedError
    return fd


def _unreadable(file: File, error: OSError) -> SendError:
    return SendError(
        f"this cannot be read ({plain(error)})",
        where=visible(file.local),
        hint="Check your rights to it, and the disk that it is on",
        status=IO,
    )


@contextlib.contextmanager
def locked(identity: manifest.Identity) -> Iterator[None]:
    """Keep a second run of this program from sending the same folder. Raises: SendError: one does already."""
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    place = Path(base) / "dittohead-send"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(place / f"{identity.origin[:32]}.lock", "ab")  # noqa: SIM115  # open until the end
    except OSError:  # a home that cannot be written to
        yield
        return
    with file:
        if not _lock(file.fileno()):
            raise SendError(
                "another run of this program is sending this folder",
                hint="Wait until it has ended",
                status=TEMPORARY,
            )
        yield


def _lock(fd: int) -> bool:
    """Lock a file until it is closed, or this process ends; return whether that was possible."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]  # of Windows
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def name_of(folder: str, given: str | None) -> str:
    """Return what a folder is called in the inbox. Raises: SendError."""
    name = given if given is not None else names.of_folder(folder) or names.of_folder(os.path.abspath(folder))
    if not name:
        raise SendError(
            "this has no name", where=visible(folder), hint="Give it one with --name", status=USAGE
        )
    return names.checked(name)
