"""Child programs that are forks of one that has made itself ready: apart from each other, and quick.

A child of its own for each piece of work keeps a crash, a leak and a limit of memory to that piece. But to
start Python, to import and to compile takes far longer than many a piece of work. So a template does that
once, and forks for each piece. It works on nothing itself. It ends when nothing has been asked for a while,
and with it all that it has forked.
"""

from __future__ import annotations

import array
import asyncio
import atexit
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from dittohead.system.process import GRACE_S, to_its_end

#: Where the package lies: children start there, so that no folder they work on is on their sys.path.
_HOME = Path(__file__).resolve().parents[2]

#: What stands for a descriptor in a child's arguments: its place among those that the child is given.
FD = "fd:"


class TemplateLost(Exception):
    """A template has ended, and with it what it had forked."""


class ForkedChild:
    """A fork of a template; `forked` sees to its end."""

    def __init__(self, stdout: asyncio.StreamReader) -> None:
        self.stdout = stdout  #: what it prints


@contextlib.asynccontextmanager
async def forked(
    module: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stderr: int,
    line_most: int,
    fds: Sequence[int] = (),
) -> AsyncIterator[ForkedChild]:
    """Run `module.main()` in a fork of a template that has imported the module.

    Before it forks, the template calls `module.warm()` with the same arguments, where there is one.

    Args:
        argv: its arguments; one that is `FD` and a number stands for a descriptor of `fds`.
        env: the template's environment; of equal ones it is the same template.
        stderr: a descriptor, or subprocess.DEVNULL.
        line_most: bytes of the longest line that can be read from it.
        fds: descriptors that it has open as well.

    On leaving, for whatever reason, its group has ended.
    Raises: OSError: no template can be started; TemplateLost.
    """
    async with contextlib.AsyncExitStack() as stack:
        told, there = stack.enter_context(_pair())
        read, write = os.pipe2(os.O_CLOEXEC)
        reader = os.fdopen(read, "rb", buffering=0)
        stack.callback(reader.close)
        try:
            with contextlib.ExitStack() as opened:
                if stderr == subprocess.DEVNULL:
                    stderr = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
                    opened.callback(os.close, stderr)
                order = json.dumps({"argv": list(argv)}).encode()
                given = [there.fileno(), write, stderr, *fds]
                await asyncio.to_thread(_templates.ask, module, env, order, given)
        finally:
            os.close(write)
            there.close()
        loop = asyncio.get_running_loop()
        stdout = asyncio.StreamReader(limit=line_most)
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdout), reader)
        stack.callback(transport.close)
        told.setblocking(False)
        try:
            if not await loop.sock_recv(told, 1):
                raise TemplateLost(module)
            yield ForkedChild(stdout)
        finally:
            await to_its_end(_over(told))


async def _over(told: socket.socket) -> None:
    """Let a child end, where it has not, and wait until the template has reaped it."""
    with contextlib.suppress(OSError):
        told.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(GRACE_S):
            while await asyncio.get_running_loop().sock_recv(told, 64):
                pass


@contextlib.contextmanager
def _pair():  # type: ignore[no-untyped-def]  # two sockets
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


class _Templates:
    """The templates of this process. Blocking; for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], socket.socket] = {}
        self._pid = os.getpid()
        atexit.register(self.close)

    def ask(self, module: str, env: Mapping[str, str], order: bytes, fds: Sequence[int]) -> None:
        """Ask for a fork; start the template where there is none. Raises: OSError."""
        key = (module, json.dumps(sorted(env.items())))
        with self._lock:
            if self._pid != os.getpid():  # forked ourselves: these are another's
                self._running, self._pid = {}, os.getpid()
            for again in (True, False):
                if key not in self._running:
                    self._running[key] = self._start(module, env)
                try:
                    _send(self._running[key], order, fds)
                except (BrokenPipeError, ConnectionResetError):
                    self._running.pop(key).close()
                    if not again:
                        raise
                else:
                    return

    def _start(self, module: str, env: Mapping[str, str]) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-m", "dittohead.system.template_child", module, str(theirs.fileno())]
        with theirs:
            process = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=_HOME,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        threading.Thread(target=process.wait, name="template", daemon=True).start()  # reaped when it ends
        return ours

    def close(self) -> None:
        """Let all of them end."""
        for one in self._running.values():
            one.close()
        self._running = {}


def _send(to: socket.socket, order: bytes, fds: Sequence[int]) -> None:
    to.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


_templates = _Templates()
