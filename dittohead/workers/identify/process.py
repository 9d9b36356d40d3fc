"""The daemon's side of the child program: start it, ask it, see what it answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dittohead.model.errors import TransientError
from dittohead.model.records import Entry
from dittohead.system import program_output
from dittohead.system.process import Child

#: Where the package lies: children start there, so that no folder they work on is on their sys.path.
_HOME = Path(__file__).resolve().parents[3]

#: Seconds in which it has to begin: it reads all signatures.
_BEGIN_S = 120.0

#: Bytes of the longest answer.
_LINE_MOST = 16 << 20


class Match(BaseModel):
    """One format that a file may have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str  #: the PUID, or UNKNOWN
    format: str  #: its name
    version: str
    mime: str
    basis: str  #: by what it is known: bytes, extension, container, text
    warning: str


class Identified(BaseModel):
    """What is known of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    matches: list[Match]
    error: str  #: why it could not be identified; "" where it could


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    files: list[Identified]


@dataclass(frozen=True, kw_only=True)
class About:
    """By what files are identified."""

    siegfried: str
    signatures: str


class Identifier:
    """One running child."""

    def __init__(self, child: Child, about: About) -> None:
        self._child, self.about = child, about

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, env: Mapping[str, str], log: Path | None) -> AsyncIterator[Identifier]:
        """Run a child while the block runs.

        Args:
            log: takes what it prints; None: that is dropped.

        Raises: TransientError: it does not start.
        """
        async with contextlib.AsyncExitStack() as stack:
            links = stack.enter_context(tempfile.TemporaryDirectory(prefix="dittohead-"))
            errors = subprocess.DEVNULL
            if log is not None:
                errors = stack.enter_context(program_output.opened(log)).fileno()
            argv = [sys.executable, "-m", "dittohead.workers.identify.child", links]
            started = Child.start(
                argv, env=env, cwd=_HOME, stdin=subprocess.PIPE, stderr=errors, line_most=_LINE_MOST
            )
            child = await stack.enter_async_context(started)
            told = await _line(child, _BEGIN_S)
            try:
                about = About(**json.loads(told or b""))
            except (ValueError, TypeError) as error:
                raise TransientError(
                    "the program that identifies formats does not start",
                    where="pygfried",
                    hint="See the step's log; install it again: pip install 'dittohead[identify]'",
                ) from error
            yield cls(child, about)

    async def ask(
        self, root: Path, entries: Sequence[Entry], *, workers: int, timeout_s: float
    ) -> list[Identified] | None:
        """Return what is known of files, in their order; None when it died, took too long or is confused.

        Args:
            root: what the entries are relative to.
            workers: threads.
            timeout_s: the longest until it answers.
        """
        paths = [entry.path.hex() for entry in entries]
        request = {"root": str(root), "paths": paths, "workers": workers}
        assert self._child.process.stdin is not None  # noqa: S101
        try:
            self._child.process.stdin.write(json.dumps(request).encode() + b"\n")
            line = await _line(self._child, timeout_s)
            files = _Answer.model_validate_json(line).files if line else []
        except (ConnectionError, ValidationError):
            return None
        return files if len(files) == len(entries) else None


async def _line(child: Child, timeout_s: float) -> bytes | None:
    """Return the next whole line; None where none comes."""
    assert child.process.stdout is not None  # noqa: S101
    try:
        async with asyncio.timeout(timeout_s):
            line = await child.process.stdout.readline()
    except (TimeoutError, ValueError):  # a line that is too long is a ValueError
        return None
    return line if line.endswith(b"\n") else None


def as_dict(found: Identified) -> dict[str, Any]:
    """Return it as lists of formats hold it."""
    formats = [
        {
            "puid": one.id, "name": one.format, "version": one.version, "mime": one.mime,
            "basis": one.basis, "warning": one.warning,
        }
        for one in found.matches
    ]  # fmt: skip
    return {"formats": formats, **({"error": found.error} if found.error else {})}
