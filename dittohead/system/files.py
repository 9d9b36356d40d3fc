"""Files made durable, renamed without replacing, and read safely by directory descriptor."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dittohead.model.errors import ClosedError, ItemError
from dittohead.model.text import own_group
from dittohead.system import fail_points

#: Deeper trees, and longer paths, cannot be handed to other programs (PATH_MAX is 4096 with the
#: root in front of it), and each level costs one open descriptor during the walk.
MAX_DEPTH = 256
MAX_PATH = 3500

#: One read for hashing or copying: large enough that the interpreter's part vanishes, and fits the cache.
BLOCK = 1 << 20

_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


def rename_noreplace(source: bytes, destination: bytes) -> None:
    """Rename, or fail when the destination exists, even as an empty directory.

    Not durable by itself: fsync both parents.
    Raises: FileExistsError, OSError (EXDEV across file systems and bind mounts).
    Source: rename(2), renameat2 with RENAME_NOREPLACE, Linux 3.15.
    """
    result = _libc.renameat2(
        _AT_FDCWD, ctypes.c_char_p(source), _AT_FDCWD, ctypes.c_char_p(destination), _RENAME_NOREPLACE
    )
    if result == 0:
        return
    code = ctypes.get_errno()
    if code != errno.EINVAL:
        raise OSError(code, os.strerror(code), source, None, destination)
    _rename_by_claim(source, destination)


def give_name(hidden: bytes, visible: bytes) -> None:
    """Rename a finished upload of our own to its name, so that its times tell that the rename came last.

    In one step of the kernel's clock the two may have the same: then what was put in is told to be older.
    Raises: as `rename_noreplace`.
    """
    status = os.lstat(hidden)
    if status.st_mtime_ns == status.st_ctime_ns:
        times = (status.st_atime_ns, status.st_mtime_ns - 1)
        os.utime(hidden, ns=times, follow_symlinks=False)
    rename_noreplace(hidden, visible)


def _rename_by_claim(source: bytes, destination: bytes) -> None:
    """Rename on a file system without RENAME_NOREPLACE (NFS): take the name by mkdir, then replace it.

    Between mkdir and rename an empty directory stands there, which rename replaces atomically.
    """
    if stat.S_ISDIR(os.lstat(source).st_mode):
        os.mkdir(destination, 0o700)
        try:
            os.rename(source, destination)
        except OSError:
            os.rmdir(destination)
            raise
    else:
        os.link(source, destination, follow_symlinks=False)
        os.unlink(source)


def exchange(directory: int, name: bytes, other: bytes) -> bool:
    """Let two names stand for each other's file, in one step.

    Not durable by itself: fsync both parents.

    Args:
        directory: an open descriptor.
        name: a name in that directory.
        other: a path, absolute or relative to the working directory.

    Returns: False where the file system cannot (NFS); nothing was changed then.
    Raises: OSError (EXDEV across file systems and bind mounts).
    Source: rename(2), renameat2 with RENAME_EXCHANGE, Linux 3.15.
    """
    names = ctypes.c_char_p(name), ctypes.c_char_p(other)
    if _libc.renameat2(directory, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EINVAL:
        return False
    raise OSError(code, os.strerror(code), other, None, name)


def fsync_dir(path: str | bytes | Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, _OPEN_DIR & ~os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: str | bytes | Path) -> None:
    """Make a file's bytes durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_filesystem(path: str | bytes | Path) -> None:
    """Make all that was written to the file system that holds `path` durable (syncfs).

    One call costs less than an fsync for each of thousands of files.
    Raises: OSError: also for write-back errors since Linux 5.8.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), os.fspath(path))
    finally:
        os.close(fd)


@contextlib.contextmanager
def durable_file(path: Path, mode: int = 0o640) -> Iterator[IO[bytes]]:
    """Write a file that is there whole and durable, or not at all.

    # 1 write temp  2 fsync  3 rename (replacing)  4 fsync parent
    """
    # A name of its own, not one made from the file's, which may fill a directory entry already.
    temp = path.with_name(f".{os.getpid()}-{secrets.token_hex(8)}.tmp")
    try:
        with open(temp, "wb", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, mode)) as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask
            yield file
            file.flush()
            fail_points.point("file.written")
            os.fsync(file.fileno())
        fail_points.point("file.durable")
        _put(temp, path)
        fail_points.point("file.renamed")
        fsync_dir(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temp)
        raise


def created(path: Path, mode: int = 0o640) -> IO[bytes]:
    """Open a file of our own for writing, empty; what was there is replaced, whatever it was.

    A file that is there may be a FIFO, which opening for writing would wait for, or a link to another.
    """
    make_way(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return open(os.open(path, flags, mode), "wb")


def replace_file(path: Path, data: bytes, mode: int = 0o640) -> None:
    """Write a small file that need not be durable. A reader sees the old one or the new one, whole.

    Args:
        path: where it goes; its directory exists.
        data: the whole content.
        mode: permission bits of the new file, before the umask.

    Raises: OSError: the old file is as it was.
    """
    temp = path.with_name(f".{os.getpid()}-{secrets.token_hex(8)}.tmp")
    try:
        with open(temp, "xb", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, mode)) as file:
            file.write(data)
        _put(temp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temp)
        raise


def _put(temp: Path, path: Path) -> None:
    try:
        os.replace(temp, path)
    except IsADirectoryError:
        make_way(path)
        os.replace(temp, path)


def make_way(path: Path) -> None:
    """See that where a file of our own is to be written lies a regular file or nothing. Blocking, but short.

    A directory is renamed to `aside-XXXXXXXX` beside it, so that nothing somebody put into it is lost;
    anything else (a link, a FIFO, a socket) is removed.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            os.rename(path, path.with_name(f"aside-{secrets.token_hex(4)}"))
        elif not stat.S_ISREG(mode):
            os.unlink(path)


def empty(directory: Path, on_each: Callable[[], None] = lambda: None) -> None:
    """Remove all that lies in a directory of our own; links are removed, not followed. Blocking.

    Args:
        directory: stays itself.
        on_each: called before each of its entries; what it raises ends the work.

    Raises: OSError.
    """
    for entry in directory.iterdir():
        on_each()
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


#: The names `durable_file` gives what it has not finished.
_TEMPORARY = re.compile(rb"\.\d+-[0-9a-f]{16}\.tmp")


def remove_unfinished(directory: Path) -> int:
    """Remove what a crash left of files that `durable_file` was writing here; return how many.

    Only while nobody else writes here.
    """
    count = 0
    with os.scandir(os.fsencode(directory)) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                os.unlink(entry.path)
                count += 1
    return count


def write_durably(path: Path, data: bytes, mode: int = 0o640) -> None:
    """Write a small file durably, replacing what was there.

    Args:
        path: where it goes; its directory exists.
        data: the whole content.
        mode: permission bits of the new file, whatever the umask.

    Raises: OSError: what was there is as it was.
    """
    with durable_file(path, mode) as file:
        file.write(data)


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundName:
    """One name met by `walk`; `dir_fd` is open only until the walk goes on."""

    path: bytes  #: relative to the walk's root
    name: bytes
    dir_fd: int
    status: os.stat_result  #: lstat
    is_empty_dir: bool = False

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        return kind_of(self.status.st_mode)


def kind_of(mode: int) -> str:
    """Return what a thing on disk is, in a word, by its st_mode."""
    return _KINDS.get(stat.S_IFMT(mode), "thing of an unknown kind")


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


def walk(root: Path | bytes, *, directories: bool = False) -> Iterator[FoundName]:
    """Walk a tree by directory descriptors; no link is followed, no special file is opened.

    Yields everything that is not a directory, and directories that are empty. A file system
    mounted inside the tree is refused. Memory is that of the largest single directory's names.

    Args:
        directories: yield the others as well, each before what it holds.

    Raises: ItemError: too deep, a path too long, or a directory that cannot be read.
    """
    root_bytes = os.fsencode(root)
    top = _open_dir(root_bytes, None, b"")
    device = os.fstat(top).st_dev
    stack: list[tuple[int, bytes, Iterator[bytes]]] = [(top, b"", iter(sorted(_names(top, b""))))]
    try:
        while stack:
            fd, prefix, names = stack[-1]
            name = next(names, None)
            if name is None:
                stack.pop()
                os.close(fd)
                continue
            path = prefix + name
            status = _status(name, fd, path)
            if not stat.S_ISDIR(status.st_mode):
                yield FoundName(path=path, name=name, dir_fd=fd, status=status)
                continue
            _check_size(path, len(stack), status.st_dev, device)
            inner = _open_dir(name, fd, path)
            listing = _names(inner, path)
            if listing:
                stack.append((inner, path + b"/", iter(sorted(listing))))
                if directories:
                    yield FoundName(path=path, name=name, dir_fd=fd, status=status)
            else:
                os.close(inner)
                yield FoundName(path=path, name=name, dir_fd=fd, status=status, is_empty_dir=True)
    except FileNotFoundError as error:
        raise ItemError(
            "the folder changed while it was read",
            where=os.fsdecode(error.filename or b""),
            hint="Upload it again, renaming only when the copy is complete",
        ) from error
    finally:
        for fd, _, _ in stack:
            os.close(fd)


def walk_one(root: Path | bytes, name: bytes) -> Iterator[FoundName]:
    """Yield one name of a directory, as `walk` yields those below it. Raises: FileNotFoundError, OSError."""
    with directory_beneath(root, b"") as fd:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        yield FoundName(path=name, name=name, dir_fd=fd, status=status)


def _status(name: bytes, dir_fd: int, path: bytes) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except PermissionError as error:  # a directory may be listed without x, and nothing more
        raise _unreadable(path) from error


def _check_size(path: bytes, depth: int, device: int, root_device: int) -> None:
    if depth > MAX_DEPTH or len(path) > MAX_PATH:
        raise ItemError(
            f"the folder is nested too deeply (more than {MAX_DEPTH} levels or {MAX_PATH} bytes of path)",
            where=os.fsdecode(path[:120]) + "...",
            hint="Pack the deep part into an archive file, then move the folder to the inbox again",
        )
    if device != root_device:
        raise ItemError(
            "another file system is mounted inside the folder",
            where=os.fsdecode(path),
            hint="Unmount it, then move the folder to the inbox again",
        )


def _open_dir(name: bytes, dir_fd: int | None, path: bytes) -> int:
    try:
        return os.open(name, _OPEN_DIR, dir_fd=dir_fd)
    except PermissionError as error:
        raise _unreadable(path) from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise ItemError(
            "this was no longer a directory when it was to be read",
            where=os.fsdecode(path),
            hint="Make sure that no program still writes to it, then move the folder to the inbox again",
        ) from error


def _names(fd: int, path: bytes) -> list[bytes]:
    try:
        return [os.fsencode(name) for name in os.listdir(fd)]
    except PermissionError as error:
        raise _unreadable(path) from error


def _unreadable(path: bytes) -> ClosedError:
    return ClosedError(
        "the daemon may not read this",
        where=os.fsdecode(path) or ".",
        hint=f"Let the daemon's group, {own_group()}, read it, then move the folder to the inbox again",
    )


def open_regular(name: bytes, dir_fd: int | None = None) -> tuple[int, os.stat_result]:
    """Open a regular file for reading: no link followed, no FIFO waited on.

    Returns: the descriptor, to be closed by the caller, and its fstat.
    Raises: ItemError: it is not (or no longer) a regular file, or may not be read.
    """
    try:
        fd = os.open(name, _OPEN_FILE, dir_fd=dir_fd)
    except PermissionError as error:
        raise _unreadable(name) from error
    except BlockingIOError as error:  # a lease, as Samba takes. Source: fcntl(2), F_SETLEASE
        raise ItemError(
            "another program holds this file open",
            where=os.fsdecode(name),
            hint="Close it there, then move the folder to the inbox again",
        ) from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise ItemError("this is not a regular file", where=os.fsdecode(name)) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise ItemError("this is not a regular file", where=os.fsdecode(name))
    return fd, status


@contextlib.contextmanager
def opened_beneath(root: Path | bytes, path: bytes) -> Iterator[int]:
    """Open a regular file below a root, following no link in any component below it.

    Raises: ItemError: it is not a regular file, or a link stands in its path; FileNotFoundError, OSError.
    """
    parent, _, name = path.rpartition(b"/")
    with directory_beneath(root, parent) as directory:
        fd, _ = open_regular(name, directory)
        try:
            yield fd
        finally:
            os.close(fd)


def remove_if_written_since(name: bytes, dir_fd: int, since: float) -> bool:
    """Remove a regular file whose ctime is a moment or later; return whether it was removed.

    Args:
        name: a name in the directory.
        dir_fd: an open descriptor of that directory.
        since: seconds since the epoch.

    Raises: OSError: it is not there, or cannot be removed.
    """
    status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode) or status.st_ctime < since:
        return False
    os.unlink(name, dir_fd=dir_fd)
    return True


@contextlib.contextmanager
def directory_beneath(root: Path | bytes, path: bytes) -> Iterator[int]:
    """Open a directory below a root (b"" for the root itself), following no link below it.

    Raises: ItemError: a link stands in its path; FileNotFoundError, OSError.
    """
    fds = [os.open(root, _OPEN_DIR & ~os.O_NOFOLLOW)]
    try:
        for parent in path.split(b"/") if path else ():
            try:
                fds.append(os.open(parent, _OPEN_DIR, dir_fd=fds[-1]))
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                raise ItemError("a link stands in this path", where=os.fsdecode(path)) from error
        yield fds[-1]
    finally:
        for fd in fds:
            os.close(fd)


def sha256_fd(fd: int, buffer: memoryview, on_block: Callable[[int], None] | None = None) -> tuple[str, int]:
    """Return (SHA-256 as 64 hex digits, bytes read) of an open file, from where it stands.

    Releases the interpreter lock while it reads and hashes, so threads run side by side.

    Args:
        buffer: from `hash_buffer`, one per thread.
        on_block: is given the size of each block read; may raise to stop.
    """
    digest = hashlib.sha256()
    size = hash_fd(fd, [digest], buffer, None if on_block is None else lambda block: on_block(len(block)))
    return digest.hexdigest(), size


def hash_fd(
    fd: int,
    hashes: Collection[Any],
    buffer: memoryview,
    on_block: Callable[[memoryview], None] | None = None,
) -> int:
    """Update hash objects with an open file, from where it stands, in one read; return the bytes read.

    Args:
        fd: the file.
        hashes: objects of `hashlib`.
        buffer: from `hash_buffer`, one per thread.
        on_block: is given each block read; may raise to stop.
    """
    total = 0
    while count := os.readv(fd, [buffer]):
        block = buffer[:count]
        for one in hashes:
            one.update(block)
        total += count
        if on_block is not None:
            on_block(block)
    return total


_local = threading.local()


def hash_buffer() -> memoryview:
    """Return the calling thread's buffer for `sha256_fd`, made once: new memory is not free."""
    buffer: memoryview | None = getattr(_local, "buffer", None)
    if buffer is None:
        buffer = _local.buffer = memoryview(bytearray(BLOCK))
    return buffer


def sha256_file(path: Path | bytes) -> tuple[str, int]:
    """Return (SHA-256, size) of a regular file. Raises: ItemError, OSError."""
    fd, _ = open_regular(os.fsencode(path))
    try:
        return sha256_fd(fd, hash_buffer())
    finally:
        os.close(fd)
