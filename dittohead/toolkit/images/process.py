"""The daemon's side of the child program: start it, ask it, say how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from dittohead.model import units
from dittohead.model.errors import TransientError
from dittohead.system import program_output
from dittohead.system.process import Child, environment
from dittohead.toolkit.images.reasons import LINE_MOST, USUAL_PIXELS

#: Where the package lies: children start there, so that no folder they work on is on their sys.path.
_HOME = Path(__file__).resolve().parents[3]


def abilities() -> dict[str, Any]:
    """Return what this machine's libvips can do, asked of a child once; {} when there is none."""
    if not (found := _abilities()):
        _abilities.cache_clear()  # the child may have lacked memory
    return found


@cache
def _abilities() -> dict[str, Any]:
    asked = subprocess.run(
        [sys.executable, "-m", "dittohead.toolkit.images", "--probe"],
        capture_output=True,
        check=False,
        timeout=60,
        cwd=_HOME,
        env=environment(),
    )
    if asked.returncode != 0:
        return {}
    found: dict[str, Any] = json.loads(asked.stdout)
    return found


#: More than this a child is not believed.
_PIXELS_MOST = 100_000_000_000


class ChildLimits(Protocol):
    """What bounds a child; a step's options have it."""

    @property
    def memory(self) -> int:
        """Address space, bytes."""

    @property
    def timeout(self) -> float:
        """The longest one request may take, seconds."""


class Surroundings(Protocol):
    """Where a child runs; a step's context is one."""

    @property
    def env(self) -> Mapping[str, str]:
        """The environment."""

    def log_file(self) -> Path:
        """Where what it prints is added."""


class _NoAnswer(Exception):
    """A child said what is not an answer: a hostile image may have made it another program."""


def _is_sound(told: Any) -> bool:
    """Tell whether a line is one of an answer: a file's record, or the last one."""
    if not isinstance(told, dict):
        return False
    if "ok" in told:
        return told["ok"] is True or (isinstance(told.get("what"), str) and isinstance(told.get("kind"), str))
    if "pixels" in told:
        return isinstance(told["pixels"], int) and 0 < told["pixels"] <= _PIXELS_MOST
    kinds = {"file": str, "size": int, "sha256": str, "detail": dict}
    return all(isinstance(told.get(key), kind) for key, kind in kinds.items())


class ImageChild:
    """One running image process."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._timed_out = self._confused = False

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, ctx: Surroundings, options: ChildLimits, scratch: Path) -> AsyncIterator[ImageChild]:
        """Run a child process for images while the block runs.

        Args:
            ctx: gives the environment, and the file that takes what the child prints.
            options: with the most memory the child may have.
            scratch: a directory for libvips's temporary files; the caller owns and empties it.
        """
        argv = [sys.executable, "-m", "dittohead.toolkit.images", str(options.memory)]
        # libvips puts the smaller levels, and large turned images, in TMPDIR: that is to be our
        # disk, and swept. Each arena of malloc, and each thread of numpy's, reserves address space,
        # which is limited.
        env = {**ctx.env, "TMPDIR": str(scratch), "MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}
        with program_output.opened(ctx.log_file()) as log:
            async with Child.start(
                argv, env=env, cwd=_HOME, stdin=subprocess.PIPE, stderr=log.fileno(), line_most=LINE_MOST
            ) as child:
                yield cls(child)

    async def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Return the answer, None when the child died or took too long (and is dead now)."""
        process = self._child.process
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            answer = await self._answer(process.stdout, timeout_s)
        except TimeoutError:
            self._timed_out = True
            await self._child.end()
            return None
        except (BrokenPipeError, ConnectionResetError):
            answer = None
        except _NoAnswer:  # what it is now nobody knows
            self._confused = True
            await self._child.end()
            return None
        if answer is None:
            await self._child.exited()
        return answer

    @staticmethod
    async def _answer(lines: asyncio.StreamReader, timeout_s: float) -> dict[str, Any] | None:
        """Return the last line of an answer, with the files told before it; None when it is truncated.

        Raises: TimeoutError: no line came for this long; _NoAnswer: what came is none.
        """
        made: list[dict[str, Any]] = []
        longer = 1.0
        while True:
            try:
                async with asyncio.timeout(timeout_s * longer):
                    line = await lines.readline()
                if not line.endswith(b"\n"):
                    return None
                told = json.loads(line)
            except (ValueError, RecursionError) as error:  # a line too long, too, is a ValueError
                raise _NoAnswer from error
            if not _is_sound(told):
                raise _NoAnswer
            if "ok" in told:
                return {**told, "files": made}
            longer = max(told.get("pixels", 0) / USUAL_PIXELS, 1.0)
            if "pixels" not in told:
                made.append(told)

    def must_not_be_killed(self, where: str) -> None:
        """See that a child that gave no answer has ended by itself.

        The kernel kills what takes memory when a machine has none left, whosever fault that is.
        Raises: TransientError.
        """
        if self._timed_out or self._confused or self._child.process.returncode != -signal.SIGKILL:
            return
        raise TransientError(
            "the image program was killed, most likely for want of memory",
            where=where,
            hint="See whether this machine's memory ran out (journalctl -k), and how many run at once "
            "(limits: in config.yaml)",
        )

    def epitaph(self, options: ChildLimits) -> str:
        """Say how the child ended, in words."""
        if self._timed_out:
            return f"it took longer than {options.timeout:g} s"
        if self._confused:
            return "what was said about it cannot be read"
        status = self._child.process.returncode or 0
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return (
            f"the image library crashed ({name}), or needed more than {units.size(options.memory)} of memory"
        )
