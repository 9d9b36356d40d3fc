"""The daemon's side of the child program: start it, follow it, take what it has made."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dittohead.model.errors import ItemError, TransientError
from dittohead.system import program_output
from dittohead.system.template import FD, ForkedChild, TemplateLost, forked
from dittohead.toolkit.sip.content import PackageRequest

_CHILD = "dittohead.toolkit.sip.child"

#: Bytes of the longest answer.
_LINE_MOST = 4 << 20


@dataclass(frozen=True, kw_only=True)
class MetsResult:
    """What a child says at its end."""

    result: Mapping[str, Any]  #: `making.Result` as JSON values
    faulty: str  #: what is wrong with files, in words
    count: int  #: of what is wrong with files
    named: list[str]  #: those of them that `faulty` names
    others: list[str]  #: what else is wrong


class _Compiled:
    """Schematrons that children have compiled, which takes them seconds; kept while this process lives."""

    def __init__(self) -> None:
        self._data = b""
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def lent(self) -> Iterator[tuple[int, int]]:
        """Give two descriptors: one to read what there is, one to write what there is then."""
        with contextlib.ExitStack() as stack:
            fds = []
            for name in ("compiled", "compiled now"):
                fds.append(os.memfd_create(name))
                stack.callback(os.close, fds[-1])
            with self._lock, open(fds[0], "wb", closefd=False) as known:
                known.write(self._data)
            os.lseek(fds[0], 0, os.SEEK_SET)
            yield fds[0], fds[1]
            size = os.fstat(fds[1]).st_size
            if size:
                with self._lock:
                    self._data = os.pread(fds[1], size, 0)


_COMPILED = _Compiled()


async def make(
    request: PackageRequest,
    *,
    env: Mapping[str, str],
    log: Path | None,
    memory: int,
    timeout_s: float,
    progress: Callable[[int], None],
) -> MetsResult:
    """Have a child make and validate a METS document.

    Args:
        request: what is made.
        env: the environment for the child.
        log: takes what it prints: every finding, a line each; None: that is dropped.
        memory: bytes of its address space.
        timeout_s: the longest until its next sign of life.
        progress: told how many files were looked at.

    Raises: ItemError: it ended early, by a package that is too large for it or by a defect; TransientError.
    """
    asked = Path(request.scratch) / "request.json"
    await asyncio.to_thread(asked.write_text, request.model_dump_json(), "utf-8")
    with contextlib.ExitStack() as stack:
        errors = subprocess.DEVNULL
        if log is not None:
            errors = stack.enter_context(program_output.opened(log)).fileno()
        known, now = stack.enter_context(_COMPILED.lent())
        argv = [str(asked), str(memory), f"{FD}0", f"{FD}1"]
        try:
            async with forked(
                _CHILD, argv, env=env, stderr=errors, line_most=_LINE_MOST, fds=(known, now)
            ) as child:
                return await _followed(child, timeout_s, progress)
        except TemplateLost:
            raise TransientError(
                "the program that writes METS documents was ended", where="package"
            ) from None


async def _followed(child: ForkedChild, timeout_s: float, progress: Callable[[int], None]) -> MetsResult:
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                line = await child.stdout.readline()
        except (TimeoutError, ValueError):
            raise TransientError(
                "the program that writes the METS document takes too long",
                where="package",
                hint="See the step's log; raise timeout: of the step",
            ) from None
        if not line.endswith(b"\n"):
            raise ItemError(
                "the program that writes the METS document ended early",
                where="package",
                hint="See the step's log; a larger memory: of the step may be needed",
            )
        told = json.loads(line)
        if "result" in told:
            return MetsResult(**told)
        progress(told["files"])
