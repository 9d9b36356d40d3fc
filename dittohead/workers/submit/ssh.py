"""Connections to SSH servers, in a thread of their own: encryption does not hold up the daemon's loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import asyncssh

from dittohead.model.errors import TargetError
from dittohead.model.text import short
from dittohead.workers.submit.options import SftpPlace

T = TypeVar("T")

#: Seconds to connect, and to log in.
_CONNECT_S, _LOGIN_S = 15.0, 30.0

#: Seconds between two signs of life, of which three may be missing.
_ALIVE_S = 30.0

#: Seconds until a connection that nobody uses is closed.
_IDLE_S = 10.0


class SshThread:
    """A loop in a thread that dies with the process; started when it is first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._lines: dict[tuple[SftpPlace, str, str], _Line] = {}

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="ssh", daemon=True).start()
            return self._loop

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Have a coroutine function run there; on cancellation return only when it has ended."""
        here = asyncio.get_running_loop()
        over = asyncio.Event()

        async def body() -> T:
            try:
                return await work()
            finally:
                with contextlib.suppress(RuntimeError):  # the daemon's loop is closed
                    here.call_soon_threadsafe(over.set)

        task = asyncio.run_coroutine_threadsafe(body(), self._running())
        try:
            return await asyncio.wrap_future(task)
        except asyncio.CancelledError:
            task.cancel()
            while not over.is_set():
                with contextlib.suppress(asyncio.CancelledError):  # a second one changes nothing
                    await over.wait()
            raise

    @contextlib.asynccontextmanager
    async def sftp(self, place: SftpPlace, key: str, hosts: str) -> AsyncIterator[asyncssh.SFTPClient]:
        """Open a session, over a connection that others may use as well. For coroutines of this thread.

        Raises: TargetError: there is no such host, it has another key, it refuses ours.
        """
        line = self._lines.setdefault((place, key, hosts), _Line(place, key, hosts))
        client = await line.entered()
        try:
            yield client
        finally:
            client.exit()
            line.left()


class _Line:
    """One connection; made again when it is lost."""

    def __init__(self, place: SftpPlace, key: str, hosts: str) -> None:
        self._place, self._key, self._hosts = place, key, hosts
        self._connection: asyncssh.SSHClientConnection | None = None
        self._turn = asyncio.Lock()
        self._users = 0
        self._closing: asyncio.TimerHandle | None = None

    async def entered(self) -> asyncssh.SFTPClient:
        self._users += 1
        try:
            if self._closing is not None:
                self._closing.cancel()
            async with self._turn:
                return await self._session()
        except BaseException:
            self.left()
            raise

    async def _session(self) -> asyncssh.SFTPClient:
        if self._connection is not None and not self._connection.is_closed():
            # It may have been lost without a word, or take no more sessions.
            with contextlib.suppress(asyncssh.Error, OSError):
                async with asyncio.timeout(_CONNECT_S):
                    return await self._connection.start_sftp_client()
        self._connection = None
        self._connection = await _connected(self._place, self._key, self._hosts)
        try:
            async with asyncio.timeout(_LOGIN_S):
                return await self._connection.start_sftp_client()
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise TargetError(
                f"it offers no SFTP ({short(str(error)) or type(error).__name__})", where=self._place.address
            ) from error

    def left(self) -> None:
        self._users -= 1
        if not self._users:
            self._closing = asyncio.get_running_loop().call_later(_IDLE_S, self._close)

    def _close(self) -> None:
        if self._connection is not None and not self._users:
            self._connection.close()
            self._connection = None


async def _connected(place: SftpPlace, key: str, hosts: str) -> asyncssh.SSHClientConnection:
    where = place.address
    try:
        known = asyncssh.import_known_hosts(hosts)
    except ValueError as error:
        raise TargetError(f"known_hosts cannot be read: {error}", where=str(place.known_hosts)) from None
    try:
        private = asyncssh.import_private_key(key)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError):  # their words may hold parts of it
        hint = f"Put a private key without a passphrase into the credential {place.key}"
        raise TargetError(
            "the credential holds no private key that can be used", where=where, hint=hint
        ) from None
    try:
        return await asyncssh.connect(
            place.host,
            place.port,
            username=place.user,
            client_keys=[private],
            known_hosts=known,
            config=None,
            agent_path=None,
            preferred_auth="publickey",
            gss_kex=False,
            gss_auth=False,
            x509_trusted_certs=None,
            connect_timeout=_CONNECT_S,
            login_timeout=_LOGIN_S,
            keepalive_interval=_ALIVE_S,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise TargetError(
            f"its host key is not the one in known_hosts ({short(error.reason)})",
            where=where,
            hint=f"Ask the service for its key, not over this network, and put it into {place.known_hosts}",
        ) from None
    except asyncssh.PermissionDenied as error:
        raise TargetError(
            f"it refuses the key ({short(error.reason)})",
            where=where,
            hint=f"Give the service the public key of the credential {place.key}",
        ) from None
    except (asyncssh.Error, OSError, TimeoutError) as error:
        said = getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error)
        what = f"it cannot be reached ({short(said) or type(error).__name__})"
        raise TargetError(what, where=where, hint="It is tried again by itself") from error
