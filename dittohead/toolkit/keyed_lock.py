"""One at a time at one thing outside, of all jobs of this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Hashable, Iterable


class KeyedLock:
    """Locks by name, each there only while somebody holds it or waits for it. For one loop."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, asyncio.Lock] = {}
        self._wanted: dict[Hashable, int] = {}  #: by how many, its holder among them

    @property
    def waiting(self) -> int:
        """How many wait, once for each name."""
        return sum(number - 1 for number in self._wanted.values())

    @contextlib.asynccontextmanager
    async def all_of(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Hold every one of these names; who wants some of the same waits."""
        async with contextlib.AsyncExitStack() as held:
            for name in sorted(set(names)):  # in one order: two that want the same two never wait in a ring
                await held.enter_async_context(self._one(name))
            yield

    @contextlib.asynccontextmanager
    async def _one(self, name: str) -> AsyncIterator[None]:
        self._wanted[name] = self._wanted.get(name, 0) + 1
        try:
            async with self._locks.setdefault(name, asyncio.Lock()):
                yield
        finally:
            self._wanted[name] -= 1
            if not self._wanted[name]:
                del self._wanted[name], self._locks[name]
