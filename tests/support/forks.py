"""Daemons, commands and image children, forked from a process that has imported what they import.

For tests in which the start of the process is not the point. Daemons and commands are the installed program's.
"""

from __future__ import annotations

import asyncio
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
from typing import IO, Any

from tests.support import fork_server
from tests.support.wheel import TOP, installed

#: Variables that Python, the loader and the C library read once, at the start.
_AT_START = ("FAKETIME", "LANG", "LC_", "LD_", "MALLOC_", "OMP_", "OPENBLAS_", "PYTHON", "TZ", "VIPS")


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
    return _read_at_start(env) == _read_at_start(os.environ)


def _read_at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in env.items() if key.startswith(_AT_START)}


def fork(
    main: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    files: tuple[int, int, int],
    session: bool,
    umask: int = -1,
    user: tuple[int, int, list[int]] | None = None,
    kind: str = "daemon",
) -> Forked:
    """Start a process.

    Args:
        main: "dittohead", "mortal" for one whose fail points are armed (tests/support/mortal.py), or "images".
        argv: its arguments, the program's name first.
        env: its whole environment; `can_be` of it is true.
        cwd: its directory.
        files: descriptors of its stdin, stdout and stderr.
        session: whether it is given a session of its own.
        umask: the process's; ours if it is negative.
        user: uid, gid and further groups of whoever it is run by; None for whoever runs the tests.
        kind: of the server, as tests/support/fork_server.py names it.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = {
        "main": main,
        "argv": list(argv),
        "env": dict(env),
        "cwd": str(cwd),
        "session": session,
        "umask": umask,
        "user": user,
    }
    with theirs:
        socket.send_fds(_server(kind), [json.dumps(request).encode()], [*files, theirs.fileno()])
    return Forked(argv, ours)


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    timeout: float,
    user: tuple[int, int, list[int]] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as subprocess.run with `capture_output` does.

    Args: as of `fork`, and
        timeout: seconds after which it is killed.

    Raises: subprocess.TimeoutExpired.
    """
    files: list[IO[bytes]] = [open(os.memfd_create(name), "w+b") for name in ("stdout", "stderr")]  # noqa: SIM115
    with files[0] as out, files[1] as err:
        made = fork(
            "dittohead",
            argv,
            env=env,
            cwd=cwd,
            files=(0, out.fileno(), err.fileno()),
            session=False,
            user=user,
        )
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


#: What the environment of an image child holds from its start: see dittohead/toolkit/images/process.py.
_IMAGES = {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C"}


@cache
def _server(kind: str) -> socket.socket:
    """Start the process that forks, once in each process of the tests; it ends with them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    checkout = kind == "images" or os.environ.get("TEST_CHECKOUT")
    python = sys.executable if checkout else str(installed() / "bin" / "python")
    with theirs:
        process = subprocess.Popen(
            [python, fork_server.__file__, kind, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd="/",
            env=os.environ | (_IMAGES if kind == "images" else {}),
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


class ImageProcess:
    """A forked image child, as much of asyncio.subprocess.Process as dittohead.system.process uses."""

    stderr = None

    def __init__(self, made: Forked) -> None:
        self._made, self._transport = made, self
        self.pid = made.pid
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self._pipes: list[asyncio.BaseTransport] = []

    async def connect(self, stdin: int, stdout: int, limit: int) -> None:
        """Read and write our ends of its pipes."""
        loop = asyncio.get_running_loop()
        self.stdout = asyncio.StreamReader(limit=limit)
        protocol = asyncio.StreamReaderProtocol(self.stdout)
        reads, _ = await loop.connect_read_pipe(lambda: protocol, open(stdout, "rb", buffering=0))  # noqa: SIM115
        writes, flow = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin,
            open(stdin, "wb", buffering=0),  # noqa: SIM115
        )
        self.stdin = asyncio.StreamWriter(writes, flow, None, loop)
        self._pipes = [reads, writes]

    @property
    def returncode(self) -> int | None:
        """How it has ended, if it has."""
        return self._made.poll()

    def close(self) -> None:
        """Close our ends."""
        for pipe in self._pipes:
            pipe.close()


async def _fork_image_child(
    argv: tuple[str, ...], *, env: dict[str, str], cwd: Path, stderr: int, limit: int, umask: int
) -> ImageProcess:
    stdin, ours_in = os.pipe()
    ours_out, stdout = os.pipe()
    made = fork(
        "images",
        argv[2:],
        env=env,
        cwd=cwd,
        files=(stdin, stdout, stderr),
        session=True,
        umask=umask,
        kind="images",
    )
    for fd in (stdin, stdout):
        os.close(fd)
    process = ImageProcess(made)
    await process.connect(ours_in, ours_out, limit)
    return process


def fork_image_children() -> None:
    """Let image children that are started in this process be forked, from now on, unless `real_image_children`."""
    start = asyncio.create_subprocess_exec

    async def forking(*argv: Any, **given: Any) -> Any:
        ours = argv[:3] == (sys.executable, "-m", "dittohead.toolkit.images")
        if not ours or real_image_children or given["cwd"] != TOP or not _can_be_image_child(given["env"]):
            return await start(*argv, **given)
        kept = {key: given[key] for key in ("env", "cwd", "stderr", "limit", "umask")}
        return await _fork_image_child(argv, **kept)

    asyncio.create_subprocess_exec = forking


#: Not empty while a test is about how these children start.
real_image_children: list[str] = []


def _can_be_image_child(env: Mapping[str, str]) -> bool:
    return _read_at_start(env) == _read_at_start(os.environ | _IMAGES)
