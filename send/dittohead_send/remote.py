"""The inbox on the server: one connection, some SFTP sessions, and its errors in words.

Everything here raises SendError for what a person has to act on, and ConnectionGone for a broken connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import asyncssh
from asyncssh import FXF_CREAT, FXF_EXCL, FXF_READ, FXF_WRITE
from asyncssh.constants import FILEXFER_TYPE_DIRECTORY, FILEXFER_TYPE_REGULAR

from dittohead_send.errors import EXISTS, NO_PERMISSION, TEMPORARY, UNAVAILABLE, ConnectionGone, SendError
from dittohead_send.words import shown

#: What a server takes in one request at least, and OpenSSH's own limit. Source: draft-ietf-secsh-filexfer-02,
#: 3; OpenSSH, PROTOCOL, limits@openssh.com.
_CHUNK, _CHUNK_MOST = 32_768, 261_120

_GONE = (
    asyncssh.DisconnectError,
    asyncssh.ChannelOpenError,
    asyncssh.SFTPNoConnection,
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPBadMessage,
    ConnectionError,
    BrokenPipeError,
    asyncio.IncompleteReadError,
    TimeoutError,
)
_MISSING = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory)
_EXISTS = (asyncssh.SFTPFileAlreadyExists,)
_FULL = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)

#: Below this a disk counts as full: what file systems keep for themselves is not always told. Bytes.
_LITTLE = 1 << 20


@dataclass(frozen=True, slots=True)
class There:
    """Something on the server."""

    is_folder: bool
    is_file: bool
    size: int
    mode: int


@contextlib.contextmanager
def broken() -> Iterator[None]:
    """Turn the many ways in which a connection breaks into one. Raises: ConnectionGone."""
    try:
        yield
    except _GONE as error:
        raise ConnectionGone(str(error) or type(error).__name__) from error
    except OSError as error:
        raise ConnectionGone(error.strerror or str(error)) from error


def _there(attrs: asyncssh.SFTPAttrs) -> There:
    mode = attrs.permissions or 0
    kind = attrs.type
    return There(
        is_folder=kind == FILEXFER_TYPE_DIRECTORY,
        is_file=kind == FILEXFER_TYPE_REGULAR,
        size=attrs.size or 0,
        mode=mode & 0o7777,
    )


class Open:
    """A file on the server, open for writing. Its requests are carried out in the order of the calls."""

    def __init__(self, session: Session, file: asyncssh.SFTPClientFile, path: bytes) -> None:
        self._session, self._file, self.path = session, file, path

    async def write(self, data: bytes, offset: int) -> None:
        """Write one chunk: at most `session.chunk` bytes."""
        async with self._session.said(self.path):
            await self._file.write(data, offset)

    async def read(self, length: int, offset: int) -> bytes:
        """Return bytes from a place; fewer at the end."""
        chunk = self._session.chunk
        async with self._session.said(self.path):
            starts = range(offset, offset + length, chunk)
            parts = await asyncio.gather(
                *(self._read_part(min(chunk, offset + length - start), start) for start in starts)
            )
        return b"".join(parts)

    async def _read_part(self, length: int, offset: int) -> bytes:
        found = b""
        while len(found) < length:
            part: bytes = await self._file.read(length - len(found), offset + len(found))
            if not part:
                break
            found += part
        return found

    async def cut(self, length: int) -> None:
        """Give the file another length."""
        async with self._session.said(self.path):
            await self._file.setstat(asyncssh.SFTPAttrs(size=length))

    async def describe(self, mode: int | None, mtime: int | None) -> bool:
        """Set mode and time; return whether the server's file system takes them."""
        attrs = asyncssh.SFTPAttrs(permissions=mode)
        if mtime is not None:
            attrs.atime = attrs.mtime = mtime
        try:
            with broken():
                await self._file.setstat(attrs)
        except asyncssh.SFTPError:
            return False
        return True

    async def sync(self) -> bool:
        """Make what was written durable; return False where the server cannot. Source: fsync@openssh.com."""
        try:
            async with self._session.said(self.path):
                await self._file.fsync()
        except _Unsupported:
            return False
        return True

    async def state(self) -> There:
        """Return what the server has now."""
        async with self._session.said(self.path):
            return _there(await self._file.stat())

    async def close(self) -> None:
        """Close it."""
        async with self._session.said(self.path):
            await self._file.close()


class _Unsupported(SendError):
    """The server does not know a request."""


class Session:
    """One SFTP session. Paths are bytes."""

    def __init__(self, sftp: asyncssh.SFTPClient, address: str) -> None:
        self._sftp = sftp
        self.address = address
        known = getattr(sftp.limits, "max_write_len", 0)
        self.chunk = min(known, _CHUNK_MOST) if known else _CHUNK

    @contextlib.asynccontextmanager
    async def said(self, path: bytes) -> AsyncIterator[None]:
        """Turn errors of the server into words."""
        try:
            with broken():
                yield
        except asyncssh.SFTPOpUnsupported as error:
            raise _Unsupported(
                f"the server does not support a request ({error.reason})",
                where=self.address,
                status=UNAVAILABLE,
            ) from error
        except asyncssh.SFTPError as error:
            raise await self._error(error, path) from error

    async def _error(self, error: asyncssh.SFTPError, path: bytes) -> SendError:
        where = f"{self.address}:{shown(path)}"
        if isinstance(error, _MISSING):
            return SendError("there is no such file or directory", where=where, status=UNAVAILABLE)
        if isinstance(error, asyncssh.SFTPPermissionDenied):
            return SendError(
                "the server does not permit this",
                where=where,
                hint="Ask the administrator to let this account write to the inbox",
                status=NO_PERMISSION,
            )
        if isinstance(error, _EXISTS):
            return SendError("something is in this place", where=where, status=EXISTS)
        # OpenSSH says "Failure" of a full disk, of a full quota and of all else that it has no word for.
        free = await self.free(path)
        if isinstance(error, asyncssh.SFTPNoSpaceOnFilesystem) or (free is not None and free < _LITTLE):
            return SendError(
                "the server's disk is full",
                where=where,
                hint="Tell the administrator. When there is space, type the same command again; it continues",
                status=TEMPORARY,
            )
        may = "" if isinstance(error, asyncssh.SFTPQuotaExceeded) else " can"
        return SendError(
            f"the server refused this ({error.reason or type(error).__name__})",
            where=where,
            hint=f"A full quota of the account{may or ' does'} cause this: ask the administrator. "
            "Then type the same command again; it continues",
            status=TEMPORARY,
        )

    async def free(self, path: bytes) -> int | None:
        """Return how many bytes there is space for at a path, or None where the server does not tell."""
        while True:
            try:
                with broken():
                    found = await self._sftp.statvfs(path or b".")
            except asyncssh.SFTPOpUnsupported:
                return None
            except asyncssh.SFTPError:
                if b"/" not in path.strip(b"/"):
                    return None
                path = path.rpartition(b"/")[0]
                continue
            return int(found.bavail or 0) * int(found.frsize or 0)

    async def look(self, path: bytes) -> There | None:
        """Return what is at a path, without following a link at its end; None for nothing."""
        try:
            with broken():
                return _there(await self._sftp.lstat(path))
        except _MISSING:
            return None
        except asyncssh.SFTPError as error:
            raise await self._error(error, path) from error

    async def is_directory(self, path: bytes) -> bool:
        """Tell whether a path, or what it leads to, is a directory that this account may see."""
        try:
            with broken():
                return _there(await self._sftp.stat(path)).is_folder
        except asyncssh.SFTPError:
            return False

    async def open(self, path: bytes, *, fresh: bool = False, read: bool = False) -> Open:
        """Open a file for writing, and create it where it is not there; with `read`, an existing one to read.

        Args:
            fresh: it must not exist.
        """
        flags = FXF_READ if read else FXF_READ | FXF_WRITE | FXF_CREAT | (FXF_EXCL if fresh else 0)
        async with self.said(path):
            # 0: no requests split by the library, whose order would not be that of the calls.
            file = await self._sftp.open(path, flags, encoding=None, block_size=0)
        return Open(self, file, path)

    async def content(self, path: bytes, most: int) -> bytes | None:
        """Return the first bytes of a file; None where it is not there, or no file."""
        found = await self.look(path)
        if found is None or not found.is_file:
            return None
        file = await self.open(path, read=True)
        try:
            return await file.read(min(most, found.size), 0)
        finally:
            await file.close()

    async def make(self, path: bytes) -> None:
        """Make a directory. Raises: SendError, of status EXISTS where there is something."""
        try:
            with broken():
                await self._sftp.mkdir(path)
        except asyncssh.SFTPError as error:
            if await self.look(path) is not None:
                raise SendError(
                    "something is in this place", where=f"{self.address}:{shown(path)}", status=EXISTS
                ) from error
            raise await self._error(error, path) from error

    async def describe(self, path: bytes, mode: int | None, mtime: int | None = None) -> bool:
        """Set mode and time of a directory; return whether that was possible."""
        attrs = asyncssh.SFTPAttrs(permissions=mode)
        if mtime is not None:
            attrs.atime = attrs.mtime = mtime
        try:
            with broken():
                await self._sftp.setstat(path, attrs)
        except asyncssh.SFTPError:
            return False
        return True

    async def entries(self, path: bytes) -> list[tuple[bytes, There]]:
        """Return what is in a directory."""
        async with self.said(path):
            found = await self._sftp.readdir(path)
        pairs = [(_bytes(entry.filename), _there(entry.attrs)) for entry in found]
        return [(name, there) for name, there in pairs if name not in (b".", b"..")]

    async def sync_directory(self, path: bytes) -> None:
        """Make the names in a directory durable, where the server opens one as a file: OpenSSH does."""
        try:
            with broken():
                file = await self._sftp.open(path, FXF_READ, encoding=None, block_size=0)
                try:
                    await file.fsync()
                finally:
                    await file.close()
        except asyncssh.SFTPError:
            return

    async def remove(self, path: bytes) -> None:
        """Remove a file, if it is there."""
        try:
            with broken():
                await self._sftp.remove(path)
        except _MISSING:
            return
        except asyncssh.SFTPError as error:
            raise await self._error(error, path) from error

    async def remove_empty(self, path: bytes) -> bool:
        """Remove an empty directory; return whether that was possible."""
        try:
            with broken():
                await self._sftp.rmdir(path)
        except asyncssh.SFTPError:
            return False
        return True

    async def remove_all(self, path: bytes) -> None:
        """Remove a directory and all that is in it. Links in it are removed, not followed."""
        async with self.said(path):
            await self._sftp.rmtree(path)

    async def rename(self, old: bytes, new: bytes) -> None:
        """Rename a directory to a name that must not exist.

        The plain request of SFTP: it fails where the name exists. `posix-rename@openssh.com` would replace an
        empty directory. Source: draft-ietf-secsh-filexfer-02, 6.5; OpenSSH, sftp-server.c, process_rename.
        """
        if await self.look(new) is not None:
            raise SendError("something is in this place", where=f"{self.address}:{shown(new)}", status=EXISTS)
        async with self.said(new):
            await self._sftp.rename(old, new)


def _bytes(name: Any) -> bytes:
    return name if isinstance(name, bytes) else str(name).encode("utf-8", "surrogateescape")


class Remote:
    """A connection, and its sessions; the first is for everything but content."""

    def __init__(self, connection: asyncssh.SSHClientConnection, sessions: list[Session]) -> None:
        self.connection = connection
        self.sessions = sessions

    @property
    def first(self) -> Session:
        """The session for everything but content."""
        return self.sessions[0]

    async def close(self) -> None:
        """Close it; what is under way is broken off."""
        self.connection.abort()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.connection.wait_closed(), 5)


async def opened(connection: asyncssh.SSHClientConnection, address: str, count: int) -> Remote:
    """Open sessions on a connection: as many as wanted, or as the server allows, but one.

    Raises: SendError: the server has no SFTP; ConnectionGone.
    """
    sessions: list[Session] = []
    for _ in range(count):
        try:
            sftp = await connection.start_sftp_client(path_encoding=None)
        except asyncssh.ChannelOpenError as error:  # sshd's MaxSessions
            if not sessions:
                raise SendError(
                    f"the server opens no session ({error.reason})",
                    where=address,
                    hint="Ask the administrator whether this account may use SFTP",
                    status=NO_PERMISSION,
                ) from error
            break
        except (asyncssh.SFTPError, asyncssh.Error, OSError) as error:
            if connection.is_closed():
                raise ConnectionGone(str(error)) from error
            raise SendError(
                f"the account has no SFTP ({error})",
                where=address,
                hint="Ask the administrator to let this account use SFTP (Subsystem sftp internal-sftp)",
                status=UNAVAILABLE,
            ) from error
        sessions.append(Session(sftp, address))
    return Remote(connection, sessions)
