"""Every external program: spawn it in its own group, stream what it says, kill it, reap it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dittohead.model.errors import ItemError

#: Marks each child (and what it starts) as ours, so that the next start can end what a killed
#: daemon left behind. The value is the root the daemon works on.
MARK = "DITTOHEAD_ROOT"

#: What programs make is readable unless they say otherwise (deliveries); our own files say by mode.
UMASK = 0o022

#: What children get of the daemon's environment: where programs, homes and temporary files are, who we
#: are, which day it is; and what tells the loader, Python, malloc and libvips how to work.
_PASSED = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "TMPDIR", "LANG", "LANGUAGE"})
_PASSED_KINDS = ("LC_", "LD_", "PYTHON", "MALLOC_", "OMP_", "OPENBLAS_", "VIPS")

#: Seconds between SIGTERM and SIGKILL: rsync needs well under one to put its partial file aside.
GRACE_S = 3.0

#: Bytes kept of each output stream for messages and results.
TAIL = 64 * 1024

_CHUNK = 64 * 1024

#: A group of programs that has moved and computed less than this has done nothing.
_IDLE_BYTES, _IDLE_TICKS = 4096, 10


@dataclass(frozen=True, kw_only=True)
class Completed:
    """How a program ended."""

    argv: tuple[str | bytes, ...]
    returncode: int  #: negative: minus the signal's number
    stdout: bytes  #: the last 64 KiB
    stderr: bytes  #: the last 64 KiB
    seconds: float

    @property
    def complaint(self) -> str:
        """The last non-empty line of stderr, or how it ended, for messages."""
        lines = [line for line in self.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        if lines:
            return lines[-1].strip()
        if self.returncode < 0:
            return f"ended by {signal.Signals(-self.returncode).name}"
        return f"exit status {self.returncode}"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Whether a program is there, and which version; apart from running it."""

    program: str
    package: str  #: the Debian package that holds it
    version_argv: tuple[str, ...] = ("--version",)
    version_pattern: str = r"(\d+(?:\.\d+)+)"

    def path(self) -> str:
        """Return the program's absolute path. Raises: ItemError: not installed."""
        found = shutil.which(self.program)
        if found is None:
            raise ItemError(
                f"{self.program} is not installed",
                where=self.program,
                hint=f"apt-get install {self.package}",
            )
        return found

    def version(self) -> str | None:
        """Return the version it prints, "?" where it prints none, None when not installed."""
        found = shutil.which(self.program)
        return None if found is None else _version((found, *self.version_argv), self.version_pattern)


@functools.cache
def _version(argv: tuple[str, ...], pattern: str) -> str:
    said = subprocess.run(argv, capture_output=True, check=False, timeout=20, env=environment())
    match = re.search(pattern, (said.stdout + said.stderr).decode("utf-8", "replace"))
    return match[1] if match else "?"


def environment(root: Path | None = None, also: Iterable[str] = ()) -> dict[str, str]:
    """Return the environment for children: what programs need, in the C locale, with our mark.

    The daemon's own may hold keys (AWS', PostgreSQL's): a program that works on people's files, or one
    that prints its environment, is given none of them.

    Args:
        root: what the child works for; None where it works for nothing.
        also: names of further variables of the daemon's that it is given, where they are there.
    """
    named = _PASSED | frozenset(also)
    env = {key: os.environ[key] for key in os.environ if key in named or key.startswith(_PASSED_KINDS)}
    return env | {"LC_ALL": "C"} | ({} if root is None else {MARK: str(root)})


class Child:
    """A running program, from `start()`; use the context manager so that it is always reaped."""

    def __init__(self, process: asyncio.subprocess.Process, argv: Sequence[str | bytes]) -> None:
        self.process = process
        self.argv = tuple(argv)

    @classmethod
    @contextlib.asynccontextmanager
    async def start(
        cls,
        argv: Sequence[str | bytes],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        line_most: int = _CHUNK,
        fds: Sequence[int] = (),
        umask: int = UMASK,
    ) -> AsyncIterator[Child]:
        """Start `argv` (absolute program, no shell) in a session of its own.

        Args:
            line_most: bytes of the longest line that can be read from it.

        On leaving, for whatever reason, the whole group has ended and the child is reaped.
        Raises: OSError: it cannot be started.
        """
        spawned: list[Child] = []

        async def spawn() -> None:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=dict(env),
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                umask=umask,
                limit=line_most,
                pass_fds=tuple(fds),
            )
            spawned.append(cls(process, argv))

        try:
            # To its end also when we are cancelled: asyncio would kill the program alone, leave what that
            # has started, and wait for all who hold its pipes.
            await to_its_end(spawn())
        except asyncio.CancelledError:
            for child in spawned:
                await to_its_end(child.end())
            raise
        (child,) = spawned
        try:
            yield child
        finally:
            await to_its_end(child.end())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child's whole group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    async def exited(self) -> int:
        """Wait for the child itself to end, and return its exit status.

        asyncio's own wait() returns only when every pipe is closed as well, which a grandchild that
        holds one open can put off forever.
        """
        await _ended(self.process.pid)
        while (status := self.process.returncode) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # the child watcher is about to learn of it
        return status

    async def end(self) -> None:
        """Ask the group to end, then make it; return when the child is reaped."""
        if self.process.returncode is None:
            self.signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(GRACE_S):
                    await self._drained()
            except TimeoutError:
                self.signal(signal.SIGKILL)
                await self._drained()
        # What the child started may have outlived it.
        left: Iterable[int] = ()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
            left = _members(self.process.pid)
        transport = getattr(self.process, "_transport", None)
        if transport is not None:  # closes our ends of pipes that a grandchild still holds
            transport.close()
        with contextlib.suppress(TimeoutError):  # one that hangs in the kernel is left to it
            async with asyncio.timeout(GRACE_S):
                for pid in left:  # killed, but each first ends the write or rename it is in
                    await _ended(pid)

    async def _drained(self) -> None:
        """Wait for the child's end, reading away what it still says so that it cannot block."""
        waiting = asyncio.ensure_future(self.exited())
        readers = [
            asyncio.ensure_future(_discard(stream))
            for stream in (self.process.stdout, self.process.stderr)
            if stream is not None
        ]
        try:
            await waiting
        finally:
            for task in (waiting, *readers):
                task.cancel()
            await asyncio.gather(waiting, *readers, return_exceptions=True)


async def _ended(pid: int) -> None:
    """Wait until a process has ended, reaped or not."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ProcessLookupError):  # reaped already
        fd = os.pidfd_open(pid)
        loop.add_reader(fd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)


async def run(
    argv: Sequence[str | bytes],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: Path | None = None,
    timeout_s: float | None = None,
    stall_s: float | None = None,
    on_stdout: Callable[[bytes], None] | None = None,
    on_output: Callable[[bytes], None] | None = None,
    fds: Sequence[int] = (),
    umask: int = UMASK,
) -> Completed:
    """Run a program to its end and return how it ended.

    Args:
        argv: absolute program and its arguments; no shell.
        env: from `environment()`, or `StepContext.env`.
        stdin: a file for it to read; nothing otherwise.
        timeout_s: ends the whole group when it takes longer.
        stall_s: ends the whole group when its processes together have done next to nothing for this long.
        on_stdout: is given each piece of standard output as it comes (for progress).
        on_output: is given each piece of standard output and of standard error.
        fds: descriptors it is to have open as well, under the same numbers.
        umask: what the files that it makes lack.

    Returns: also for a non-zero exit status; mapping those is the caller's.
    Raises: TimeoutError: after `timeout_s` or `stall_s`; OSError: it cannot be started.
    On cancellation the group has ended and is reaped before CancelledError leaves.
    """
    started = time.monotonic()
    tails = (bytearray(), bytearray())
    with contextlib.ExitStack() as files:
        feed = files.enter_context(open(stdin, "rb")).fileno() if stdin else subprocess.DEVNULL

        def keep(index: int, data: bytes) -> None:
            tails[index].extend(data)
            del tails[index][:-TAIL]
            if on_output is not None:
                on_output(data)
            if index == 0 and on_stdout is not None:
                on_stdout(data)

        async with (
            asyncio.timeout(timeout_s),
            Child.start(argv, env=env, cwd=cwd, stdin=feed, fds=fds, umask=umask) as child,
        ):
            process = child.process
            assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018
            async with asyncio.TaskGroup() as group:
                pumps = [
                    group.create_task(_pump(process.stdout, keep, 0)),
                    group.create_task(_pump(process.stderr, keep, 1)),
                ]
                async with _watched(child, stall_s):
                    await child.exited()
                # A grandchild may hold the pipes open forever: what it says later is not waited for.
                await asyncio.wait(pumps, timeout=GRACE_S)
                for pump in pumps:
                    pump.cancel()
    assert process.returncode is not None  # noqa: S101
    return Completed(
        argv=tuple(argv),
        returncode=process.returncode,
        stdout=bytes(tails[0]),
        stderr=bytes(tails[1]),
        seconds=time.monotonic() - started,
    )


@contextlib.asynccontextmanager
async def _watched(child: Child, stall_s: float | None) -> AsyncIterator[None]:
    """Raise TimeoutError inside the block when the child's group shows no sign of life for this long."""
    if stall_s is None:
        yield
        return
    async with asyncio.timeout(None) as limit:

        async def watch() -> None:
            while True:
                before = _work_done(child.process.pid)
                await asyncio.sleep(stall_s)
                after = _work_done(child.process.pid)
                moved = sum(bytes_ - before.get(pid, (0, 0))[0] for pid, (bytes_, _) in after.items())
                ticks = sum(ticks - before.get(pid, (0, 0))[1] for pid, (_, ticks) in after.items())
                # Programs that wait for each other still say so from time to time.
                if moved < _IDLE_BYTES and ticks < _IDLE_TICKS:
                    limit.reschedule(asyncio.get_running_loop().time())

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()


def _work_done(group: int) -> dict[int, tuple[int, int]]:
    """Return (bytes read and written, clock ticks computed) so far of each process of a group.

    Source: proc(5), /proc/PID/stat (fields 5, 14, 15) and /proc/PID/io (rchar, wchar).
    """
    found = {}
    for pid in _members(group):
        with contextlib.suppress(OSError, IndexError):
            fields = _stat(pid)
            moved = Path(f"/proc/{pid}/io").read_text().split()[1:4:2]
            found[pid] = (sum(map(int, moved)), sum(map(int, fields[11:13])))
    return found


def _members(group: int) -> list[int]:
    """Return the processes of a group, those among them that nobody has reaped yet."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError):
            if int(_stat(int(entry))[2]) == group:
                found.append(int(entry))
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of a process behind its name. Source: proc(5), /proc/PID/stat from field 3 on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def sweep(root: Path) -> list[int]:
    """Kill what a daemon of this root that was killed left running; return the process ids.

    To be called under the root's lock, before anything is started. A process counts as ours when
    its environment carries our mark with this root; only /proc entries we may read are seen.
    """
    mark = f"{MARK}={root}".encode()
    killed: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                ours = mark in file.read().split(b"\0")
            if ours:
                ended = os.pidfd_open(int(entry))
                killed[int(entry)] = ended
                signal.pidfd_send_signal(ended, signal.SIGKILL)
        except OSError:
            continue
    _see_ended(killed.values())
    return list(killed)


def _see_ended(pidfds: Iterable[int]) -> None:
    """Wait until processes that were killed have ended, each after the write or rename it is in; close these.

    One that hangs in the kernel is left to it.
    """
    end = time.monotonic() + GRACE_S
    for pidfd in pidfds:
        waiting = select.poll()
        waiting.register(pidfd, select.POLLIN)
        waiting.poll(max(end - time.monotonic(), 0) * 1000)
        os.close(pidfd)


def use_pidfd() -> None:
    """Reap children by pidfd on Python 3.11, whose default is a thread for every child.

    Later versions do so by themselves. To be called before the loop is made.
    """
    if sys.version_info < (3, 12):
        with contextlib.suppress(NotImplementedError):
            asyncio.get_event_loop_policy().set_child_watcher(asyncio.PidfdChildWatcher())


async def _pump(stream: asyncio.StreamReader, keep: Callable[[int, bytes], None], index: int) -> None:
    while data := await stream.read(_CHUNK):
        keep(index, data)


async def _discard(stream: asyncio.StreamReader) -> None:
    with contextlib.suppress(RuntimeError):  # another coroutine is reading it, which serves as well
        while await stream.read(_CHUNK):
            pass


async def to_its_end(work: Coroutine[None, None, None]) -> None:
    """Run `work` to its end even if we are cancelled meanwhile (again), then let that through."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.exception()  # seen: anyone who cancelled us does not ask for it
        raise asyncio.CancelledError
    task.result()
