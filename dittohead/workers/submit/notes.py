"""What a submit step has noted of its packages: before each call that cannot be repeated, and after it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dittohead.toolkit import intent_log
from dittohead.toolkit.intent_log import IntentLog


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One package that is sent, or may have been."""

    number: int  #: from 1
    name: str  #: of its file at the service
    object_id: str
    sha256: str
    size: int  #: bytes
    at: float  #: when it was intended, seconds since the epoch
    created: str = ""  #: CREATEDATE of its first version
    handle: str = ""  #: the service's own id of the transfer, where it has one
    committed: float = 0.0  #: the call that hands it over was about to be made; 0: never
    sent: float = 0.0  #: it is known that the service has it whole
    answer: str = ""  #: "accepted" or "rejected"
    why: str = ""  #: it was rejected

    @property
    def may_be_there(self) -> bool:
        """Whether the service may have it whole: it is then never sent again."""
        return self.committed > 0 or self.sent > 0


class SubmitNotes:
    """The attempts of one step of one job; a file that outlives work/ and the store."""

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        self._log = IntentLog(path, head)
        self.attempts = read(path)

    @classmethod
    async def opened(cls, path: Path, head: Mapping[str, Any]) -> SubmitNotes:
        """Read what there is. Raises: Unreadable."""
        return await asyncio.to_thread(cls, path, head)

    @property
    def last(self) -> Attempt | None:
        """The latest attempt; None before the first."""
        return self.attempts[-1] if self.attempts else None

    async def intend(self, attempt: Attempt) -> Attempt:
        """Note an attempt before anything of it is sent."""
        await self._write(asdict(attempt))
        self.attempts.append(attempt)
        return attempt

    async def change(self, attempt: Attempt, **changes: Any) -> Attempt:
        """Note what became of an attempt."""
        await self._write({"number": attempt.number, **changes})
        changed = replace(attempt, **changes)
        self.attempts[attempt.number - 1] = changed
        return changed

    async def _write(self, line: Mapping[str, Any]) -> None:
        await asyncio.to_thread(self._log.write, [line], durable=True)

    async def close(self) -> None:
        """Finish."""
        await asyncio.to_thread(self._log.close)


def read(path: Path) -> list[Attempt]:
    """Return the attempts that a file holds, in their order. Blocking. Raises: Unreadable."""
    found: dict[int, dict[str, Any]] = {}
    for line in intent_log.read(path):
        if "number" in line:
            found.setdefault(line["number"], {}).update(line)
    return [Attempt(**found[number]) for number in sorted(found)]


def now(clock: Callable[[], float] = time.time) -> float:
    """Return this moment as notes have it: whole milliseconds since the epoch, in seconds."""
    return round(clock(), 3)
