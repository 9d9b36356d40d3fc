"""Listen: on the address of the settings and on the daemon's own socket, with bounds on who holds a line."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import secrets
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from dittohead.config.settings import Http
from dittohead.system import log
from dittohead.system.control_socket import CONFIGURATION, OWN_SOCKET, near
from dittohead.web.server.app_state import SITE
from dittohead.web.server.identity import IDENTITY, Handler
from dittohead.web.server.problems import Problem

#: A request's body holds no more, unless its handler reads it as a stream.
MOST_BYTES = 1 << 18

#: A connection may be silent between two requests, or need for a request's head, this long. Seconds.
IDLE_S = 30.0

#: Descriptors of which lines take no more than a part: the daemon's own work needs the others.
_MOST_FILES = 4096

_SWEEP_S = 2.0

#: A connection that is closed may take this long for what is still to be sent to it. Seconds.
_LAST_S = 10.0

#: The log says so seldom that there are too many connections. Seconds.
_CROWDED_S = 60.0

#: How long a stop waits for answers under way. Seconds.
_SHUTDOWN_S = 2.0


@dataclass(frozen=True)
class ListenLimits:
    """How many lines there may be at once."""

    most: int  #: all together
    strangers: int  #: those on which nobody has said yet who they are
    one: int  #: requests of one person under way
    backlog: int  #: taken in one turn of the loop, before those in excess are closed


def bounds(files: int | None = None) -> ListenLimits:
    """Return what fits into the descriptors that this process may have: three eighths of them, at most.

    Args:
        files: None: what the system allows this process (RLIMIT_NOFILE).
    """
    if files is None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MOST_FILES if files == resource.RLIM_INFINITY else min(files, _MOST_FILES)
    most = max(files * 3 // 8, 24)
    return ListenLimits(
        most=most, strangers=max(files // 8, 8), one=max(most // 4, 8), backlog=min(max(files // 32, 4), 128)
    )


class OpenConnections:
    """The connections: which have a request under way, and whose; closes those that only hold a line.

    A client that sends a request's head a byte at a time costs a descriptor forever: aiohttp bounds the
    head's size, and the time between requests, but not the time that a head may take, nor how many
    there are. A *stranger* is a line on which nobody has been recognised yet, whatever it does: of too many
    the oldest is closed, so that none of them can keep out who comes next.
    """

    def __init__(self, within: ListenLimits | None = None) -> None:
        self.bounds = within or bounds()
        self._busy: dict[object, int] = {}
        self._since: dict[object, float] = {}  #: when a connection was first seen, or last answered
        self._closed: dict[asyncio.WriteTransport, float] = {}  #: when
        # The oldest first. A connection that is being closed no longer knows its transport.
        self._strangers: dict[web.RequestHandler, asyncio.Transport] = {}
        self._known: dict[web.RequestHandler, asyncio.Transport] = {}
        self._people: dict[str, int] = {}  #: requests under way, by name
        self._crowded_at = float("-inf")

    # -- who comes and goes --------------------------------------------------------------------

    def attach(self, server: web.Server) -> None:
        """Learn of each connection as soon as it is there: a flood of them is not waited for."""
        made, lost = server.connection_made, server.connection_lost

        def connection_made(handler: web.RequestHandler, transport: asyncio.Transport) -> None:
            made(handler, transport)
            self._opened(handler, transport)

        def connection_lost(handler: web.RequestHandler, exc: BaseException | None = None) -> None:
            lost(handler, exc)
            self._forget(handler)

        # aiohttp has no way of its own to be told; tests/web/test_lines.py fails where it calls them no more.
        server.connection_made = connection_made  # type: ignore[method-assign]  # see above
        server.connection_lost = connection_lost  # type: ignore[method-assign]  # see above

    def _opened(self, line: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Take a new connection in; close another, or this one, where there are too many."""
        (self._known if is_own(transport) else self._strangers)[line] = transport
        if len(self._strangers) > self.bounds.strangers:
            self._drop(next(iter(self._strangers)))
        elif len(self._strangers) + len(self._known) > self.bounds.most:
            idle = (known for known in self._known if known not in self._busy)
            self._drop(next(idle, None) or next(iter(self._strangers), line))

    def recognised(self, line: web.RequestHandler) -> None:
        """Take somebody's connection for a stranger's no longer."""
        if line in self._strangers:
            self._known[line] = self._strangers.pop(line)

    def _forget(self, line: web.RequestHandler) -> asyncio.Transport | None:
        return self._strangers.pop(line, None) or self._known.pop(line, None)

    def _drop(self, line: web.RequestHandler) -> None:
        """Close a connection at once, whatever is still to be sent to it."""
        transport = self._forget(line)
        line.force_close()
        if transport is not None:
            transport.abort()
        now = time.monotonic()
        if now - self._crowded_at > _CROWDED_S:
            self._crowded_at = now
            log.get().warning(log.HTTP_CROWDED, strangers=len(self._strangers), known=len(self._known))

    # -- what they do --------------------------------------------------------------------------

    @contextlib.contextmanager
    def busy(self, request: web.BaseRequest) -> Iterator[None]:
        """Count a request as under way while inside."""
        protocol = request.protocol
        self._busy[protocol] = self._busy.get(protocol, 0) + 1
        try:
            yield
        finally:
            self._busy[protocol] -= 1
            if not self._busy[protocol]:
                del self._busy[protocol]
            self._since[protocol] = asyncio.get_running_loop().time()

    @contextlib.contextmanager
    def of(self, who: str, *, refuse: bool = True) -> Iterator[None]:
        """Count a request as this person's while inside.

        Args:
            refuse: False for one that was admitted before.

        Raises: Problem: too many of theirs are under way.
        """
        if refuse and self._people.get(who, 0) >= self.bounds.one:
            raise Problem(
                429,
                f"{who} has {self.bounds.one} requests under way already",
                hint="Let some of them end first",
                headers={"Retry-After": "1"},
            )
        self._people[who] = self._people.get(who, 0) + 1
        try:
            yield
        finally:
            self._people[who] -= 1
            if not self._people[who]:
                del self._people[who]

    # -- those that are silent -----------------------------------------------------------------

    def sweep(self, server: web.Server, now: float) -> int:
        """Close connections that are idle for too long; return how many."""
        for line, transport in (self._strangers | self._known).items():
            if line.transport is None:  # aiohttp has closed it
                self._closed.setdefault(transport, now)
        self._abort(now)
        # A connection that was closed stays among the server's until its last bytes are taken.
        known = [line for line in server.connections if line.transport is not None]
        self._since = {line: self._since.get(line, now) for line in known}
        closed = 0
        for line in known:
            if line not in self._busy and now - self._since[line] > IDLE_S:
                if isinstance(line.transport, asyncio.WriteTransport):
                    self._closed[line.transport] = now
                line.force_close()
                closed += 1
        return closed

    def _abort(self, now: float) -> None:
        """Let go of closed connections whose other end takes nothing: closing waits for it forever."""
        for transport, since in list(self._closed.items()):
            if not transport.get_write_buffer_size():
                del self._closed[transport]
            elif now - since > _LAST_S:
                transport.abort()
                del self._closed[transport]

    async def watch(self, server: web.Server) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.sweep(server, asyncio.get_running_loop().time())


LINES = web.AppKey("lines", OpenConnections)


@web.middleware
async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Know of each request while it is under way."""
    with request.app[LINES].busy(request):
        return await handler(request)


class Sent(web.FileResponse):
    """A file as an answer: its request is under way until all of it is sent, however long that takes.

    aiohttp sends it when the middlewares have ended.
    """

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send it."""
        assert isinstance(request, web.Request)  # noqa: S101
        lines, who = request.app[LINES], request[IDENTITY].name
        with lines.busy(request), lines.of(who, refuse=False) if who else contextlib.nullcontext():
            return await super().prepare(request)


@web.middleware
async def as_it_is(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what is packed: it is not unpacked, and would be misread. Raises: Problem."""
    packed = request.headers.get("Content-Encoding", "identity").strip().lower()
    if packed not in ("", "identity"):
        raise Problem(415, "the body is packed (Content-Encoding)", hint="Send it as it is")
    return await handler(request)


def runner_of(app: web.Application) -> web.AppRunner:
    """Return what serves an application."""
    # What a parser says of unknown bytes does not belong in our log.
    quiet = logging.getLogger("dittohead.http")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    return web.AppRunner(
        app,
        access_log=None,
        logger=quiet,
        keepalive_timeout=IDLE_S,
        shutdown_timeout=_SHUTDOWN_S,
        handler_cancellation=True,
        # It would be unpacked in the loop, no matter who sends it: a megabyte holds a gigabyte.
        auto_decompress=False,
    )


@contextlib.asynccontextmanager
async def listening(app: web.Application, settings: Http | None, state: Path) -> AsyncIterator[None]:
    """Serve while inside: on the daemon's own socket, and where the settings say.

    Args:
        app: with its routes and `LINES`.
        settings: `http:` in config.yaml; None: the daemon's own socket alone.
        state: the directory state/, where that socket is made.

    Raises: OSError: an address cannot be used.
    """
    runner = runner_of(app)
    await runner.setup()
    assert runner.server is not None  # noqa: S101
    lines = app[LINES]
    lines.attach(runner.server)
    watching = asyncio.create_task(lines.watch(runner.server), name="http-lines")
    try:
        await web.SockSite(runner, own_socket(state), backlog=lines.bounds.backlog).start()
        if settings is not None:
            await site_of(runner, settings.listen, lines.bounds.backlog).start()
        yield
    finally:
        watching.cancel()
        await runner.cleanup()
        for path in (state / OWN_SOCKET, *([Path(settings.listen)] if _is_socket(settings) else [])):
            with contextlib.suppress(OSError):  # gone already, or in a directory that is no more
                path.unlink()


def _is_socket(settings: Http | None) -> TypeGuard[Http]:
    return settings is not None and settings.listen.startswith("/")


def site_of(runner: web.AppRunner, listen: str, backlog: int = 128) -> web.BaseSite:
    """Return the place where a runner is to listen; it does not listen yet.

    Args:
        listen: "host:port", "[address]:port", or the absolute path of a socket.
        backlog: connections that may wait to be accepted.

    Raises: OSError: the socket cannot be made.
    """
    if listen.startswith("/"):
        return web.SockSite(runner, _proxys_socket(Path(listen)), backlog=backlog)
    host, _, port = listen.rpartition(":")
    return web.TCPSite(runner, host.strip("[]"), int(port), backlog=backlog)


def is_own(transport: asyncio.BaseTransport) -> bool:
    """Tell whether a connection came by the daemon's own socket in state/."""
    return transport.get_extra_info("sockname") in (OWN_SOCKET, OWN_SOCKET.encode())


async def tell_configuration(request: web.Request, response: web.StreamResponse) -> None:
    """Tell commands which configuration is in force: what the daemon has checked, they need not."""
    if request.transport is not None and is_own(request.transport):
        response.headers[CONFIGURATION] = request.app[SITE].config().digest


def own_socket(state: Path) -> socket.socket:
    """Return the daemon's own socket, bound: for its user, root, and the group of state/ where it may enter.

    Anyone who can connect may act: see docs/rights.md.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK((state / OWN_SOCKET).lstat().st_mode):  # nobody can have meant to keep it there
            (state / OWN_SOCKET).rename(state / f"aside-{secrets.token_hex(4)}")
    with near(state):
        sock = _bound(state / OWN_SOCKET, OWN_SOCKET)
    status = state.stat()
    if status.st_mode & stat.S_IXGRP:
        _admit(state / OWN_SOCKET, status.st_gid)
    return sock


def _proxys_socket(path: Path) -> socket.socket:
    """Return the socket of the settings, bound; for the group of its directory where that has the setgid bit.

    Not for the service's own group: uploaders are in it, and who can connect is trusted as the proxy is.
    """
    sock = _bound(path, str(path))
    status = path.parent.stat()
    if status.st_mode & stat.S_ISGID:
        _admit(path, status.st_gid)
    return sock


def _bound(path: Path, name: str) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):  # left by a daemon that was killed
            path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)  # never wider than it ends, not even for a moment
    try:
        sock.bind(name)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _admit(path: Path, gid: int) -> None:
    if path.stat().st_gid != gid:
        try:
            os.chown(path, -1, gid)
        except OSError:  # not a member, or the service may not: a setgid bit on the directory does the same
            return
    path.chmod(0o660)
