"""What a library's GRIN is asked at most: one rate, one number of connections, for everything that asks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from dittohead.toolkit.retry_after import bounded

#: The slowest that GRIN is asked however often it throttles, as a part of the rate.
_SLOWEST = 1 / 64

#: After so many good answers the rate grows by a tenth of what it may be.
_STREAK = 20

#: How long nothing is asked after GRIN has throttled without saying for how long. Seconds.
_THROTTLED_S = 30.0


class Limits:
    """Turns for requests: evenly spaced, never in bursts; slower when GRIN throttles.

    Args:
        rate: requests a second at most.
        connections: requests at once.
        downloads: archives at once, of those.
    """

    def __init__(self, rate: float, connections: int, downloads: int) -> None:
        self.most = self.rate = rate
        self._open = asyncio.Semaphore(connections)
        self._downloads = asyncio.Semaphore(downloads)
        self._line = asyncio.Lock()
        self._next_at = 0.0  #: by the clock that only goes on
        self._good = 0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold one connection, and begin when the rate allows it."""
        async with self._open:
            await self.spaced()
            yield

    @contextlib.asynccontextmanager
    async def download(self) -> AsyncIterator[None]:
        """Hold one place among the archives that are fetched at once."""
        async with self._downloads:
            yield

    async def spaced(self) -> None:
        """Wait until the next request may begin: also for each request that a redirect causes."""
        async with self._line:
            # It may be put off meanwhile: there is nothing to wait for but the time.
            while (left := self._next_at - time.monotonic()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(left)
            self._next_at = time.monotonic() + 1 / self.rate

    def answered(self) -> None:
        """Note a good answer; after many of them the rate grows again."""
        self._good += 1
        if self._good >= _STREAK:
            self._good = 0
            self.rate = min(self.rate + self.most / 10, self.most)

    def throttled(self, asked_s: float | None) -> float:
        """Note that GRIN throttles: nothing is asked for a while, then at half the rate. Returns: seconds."""
        wait = bounded(asked_s) if asked_s is not None else _THROTTLED_S
        self._good = 0
        self.rate = max(self.rate / 2, self.most * _SLOWEST)
        self._next_at = max(self._next_at, time.monotonic() + wait)
        return wait
