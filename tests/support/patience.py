"""Time limits of a module that run out when a test says so, and not by a clock: a busy machine decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest


class Patience:
    """Stands in for `asyncio.timeout` in one module."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
        self._limits: list[asyncio.Timeout] = []
        stand_in = SimpleNamespace(**{**vars(asyncio), "timeout": self._timeout})
        monkeypatch.setattr(module, "asyncio", stand_in)

    def _timeout(self, delay: float | None) -> asyncio.Timeout:
        made = asyncio.timeout(delay)
        self._limits.append(made)
        return made

    def run_out(self, most_s: float) -> int:
        """Let all limits run out that would do so within so many seconds; return how many there were."""
        now = asyncio.get_running_loop().time()
        running = [limit for limit in self._limits if _is_running(limit)]
        due = [limit for limit in running if now < (limit.when() or 0) <= now + most_s]
        for limit in due:
            limit.reschedule(now)
        self._limits = [limit for limit in running if limit not in due]
        return len(due)

    async def run_out_when(self, check: Callable[[], bool], most_s: float) -> None:
        """Let limits run out, as `run_out`, once a condition holds and there are any."""
        async with asyncio.timeout(60):
            while not (check() and self.run_out(most_s)):
                await asyncio.sleep(0.005)


def _is_running(limit: asyncio.Timeout) -> bool:
    """Tell whether a limit's block was entered, and has neither ended nor run out."""
    return "[active]" in repr(limit)
