"""What a library's GRIN is asked at most: one rate, one number of connections, for everything that asks."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from dittohead.toolkit.retry_after import bounded

#: The slowest that GRIN is asked however often it throttles, as a part of the rate.
_SLOWEST = 1 / 64

#: After so many good answers the rate grows by a tenth of what it may be.
_STREAK = 20

#: How long nothing is asked after GRIN has throttled without saying for how long. Seconds.
_THROTTLED_S = 30.0


class Most(NamedTuple):
    """What is asked of a library's GRIN at most."""

    rate: float  #: requests a second
    connections: int  #: requests at once
    downloads: int  #: archives at once, of those


class RateLimit:
    """Turns for requests: evenly spaced, never in bursts; slower when GRIN throttles.

    Those who ask say what they may; of several the lowest holds, from now on.
    """

    def __init__(self, most: Most) -> None:
        self._most = most
        self._asking: dict[object, Most] = {}  #: each connection that is open
        self._part = 1.0  #: of the rate, since GRIN has throttled
        self._open, self._downloads = Places(most.connections), Places(most.downloads)
        self._line = asyncio.Lock()
        self._next_at = 0.0  #: by the clock that only goes on
        self._good = 0

    @property
    def rate(self) -> float:
        """Requests a second at most, just now."""
        return self._most.rate * self._part

    @contextlib.contextmanager
    def held(self, most: Most) -> Iterator[None]:
        """Ask no more than this while the block runs, also when others may ask more."""
        who = object()
        self._asking[who] = most
        self._set()
        try:
            yield
        finally:
            del self._asking[who]
            self._set()

    def _set(self) -> None:
        if self._asking:  # else it stays as it was
            self._most = Most(*map(min, zip(*self._asking.values(), strict=True)))
            self._open.resize(self._most.connections)
            self._downloads.resize(self._most.downloads)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold one connection, and begin when the rate allows it."""
        async with self._open.one():
            await self.spaced()
            yield

    @contextlib.asynccontextmanager
    async def download(self) -> AsyncIterator[None]:
        """Hold one place among the archives that are fetched at once."""
        async with self._downloads.one():
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
            self._part = min(self._part + 0.1, 1.0)

    def throttled(self, asked_s: float | None) -> float:
        """Note that GRIN throttles: nothing is asked for a while, then at half the rate. Returns: seconds."""
        wait = bounded(asked_s) if asked_s is not None else _THROTTLED_S
        self._good = 0
        self._part = max(self._part / 2, _SLOWEST)
        self._next_at = max(self._next_at, time.monotonic() + wait)
        return wait


class Places:
    """So many places, each held by one; how many there are may change while some are held.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold one place; waits for it, behind those who waited before."""
        if self._held >= self._most or self._waiting:
            await self._wait()
        else:
            self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._admit()

    async def _wait(self) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # admitted in the same moment
                self._held -= 1
                self._admit()
            raise

    def resize(self, most: int) -> None:
        """Let there be so many places; those that are held stay so."""
        self._most = most
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._held < self._most:
            place = self._waiting.popleft()
            if not place.done():
                self._held += 1
                place.set_result(None)
