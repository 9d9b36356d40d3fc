"""Daemons and commands that are forked from a process which has imported dittohead: they start at once.

For tests in which the start of the process is not the point. What is forked is the installed program.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from tests.support import fork_server
from tests.support.wheel import installed

#: Variables that Python, the loader and the C library read once, at the start.
_AT_START = ("LANG", "LC_", "LD_", "MALLOC_", "PYTHON", "TZ", "FAKETIME")


class Forked:
    """A forked process, used as subprocess.Popen is."""

    #: Seconds of a processor used by all that have ended; the costs of tests are counted with it.
    cpu = 0.0

    def __init__(self, args: Sequence[str], told: socket.socket) -> None:
        self.args = list(args)
        self._told = told
        answer = told.recv(4096)
        assert answer, "the server that forks has ended; its complaint is on stderr"
        self.pid: int = json.loads(answer)["pid"]
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raises: subprocess.TimeoutExpired: it has not come in so many seconds."""
        if self.returncode is None:
            # 0 would be "do not block", which says the same by another exception
            self._told.settimeout(timeout)
            try:
                answer = self._told.recv(4096)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            said = json.loads(answer)
            self.returncode = said["status"]
            Forked.cpu += said["cpu"]
            self._told.close()
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def __del__(self) -> None:
        self._told.close()


def can_be(env: Mapping[str, str]) -> bool:
    """Tell whether a process with this environment can be forked: what is read at the start is as ours."""

    def read(given: Mapping[str, str]) -> dict[str, str]:
        return {key: value for key, value in given.items() if key.startswith(_AT_START)}

    return read(env) == read(os.environ)


def fork(
    main: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    files: tuple[int, int, int],
    session: bool,
) -> Forked:
    """Start a process.

    Args:
        main: "dittohead", or "mortal" for one whose fail points are armed (tests/support/mortal.py).
        argv: its arguments, the program's name first.
        env: its whole environment; `can_be` of it is true.
        cwd: its directory.
        files: descriptors of its stdin, stdout and stderr.
        session: whether it is given a session of its own.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = {
        "main": main,
        "argv": list(argv),
        "env": dict(env),
        "cwd": str(cwd),
        "session": session,
    }
    with theirs:
        socket.send_fds(_server(), [json.dumps(request).encode()], [*files, theirs.fileno()])
    return Forked(argv, ours)


def run(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as subprocess.run with `capture_output` does."""
    files: list[IO[bytes]] = [open(os.memfd_create(name), "w+b") for name in ("stdout", "stderr")]  # noqa: SIM115
    with files[0] as out, files[1] as err:
        made = fork("dittohead", argv, env=env, cwd=cwd, files=(0, out.fileno(), err.fileno()), session=False)
        try:
            status = made.wait(timeout)
        except subprocess.TimeoutExpired:
            made.kill()
            made.wait()
            raise
        said = []
        for file in files:
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(list(argv), status, *said)


@cache
def _server() -> socket.socket:
    """Start the process that forks, once in each process of the tests; it ends with them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    python = sys.executable if os.environ.get("TEST_CHECKOUT") else str(installed() / "bin" / "python")
    with theirs:
        process = subprocess.Popen(
            [python, fork_server.__file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd="/",
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stderr=os.dup(2),
        )

    def end() -> None:
        ours.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)

    atexit.register(end)
    return ours
