"""How fast a store is asked: requests at once, waits when it throttles, bytes a second; for all jobs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

from dittohead.model.errors import TransientError
from dittohead.toolkit.backoff import FULL, wait_s
from dittohead.toolkit.s3 import connection

T = TypeVar("T")

#: Tries of one request before its step is put off; with the waits between them about six seconds.
_TRIES = 5
_FIRST_S, _MOST_S = 0.3, 4.8

#: A wait that the store asks for and that is longer than this is not sat out holding a slot.
_PATIENCE_S = 20.0

#: Answers of one throttled moment count once.
_MOMENT_S = 1.0


class RequestRate:
    """A window of requests that halves when the store throttles and grows again as answers come.

    Additive increase, multiplicative decrease, as TCP does: many jobs find the rate that a store
    bears without knowing of each other. Turns are given to all who wait in turn, and to each in the
    order it asks for them: a job with a hundred parts under way does not starve one of three files.

    Args:
        most: requests at once when nothing is wrong.
        bytes_per_s: bandwidth that may be used; None for all there is.
    """

    def __init__(self, most: int, bytes_per_s: float | None = None) -> None:
        self._most = most
        self.window = float(most)  #: requests at once, just now
        self.bytes_per_s = bytes_per_s
        self._limits = [bytes_per_s] if bytes_per_s is not None else []
        self._running = 0
        self._waiting: dict[object, deque[asyncio.Future[None]]] = {}  #: who -> places; the next comes first
        self._halved_at = 0.0
        self._next_byte_at = 0.0

    @contextlib.asynccontextmanager
    async def turn(self, who: object = None) -> AsyncIterator[None]:
        """Hold one place in the window; waits for it.

        Args:
            who: asks; one for each job.
        """
        if self._running >= int(self.window) or self._waiting:
            await self._queue(who)
        else:
            self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._admit()

    async def _queue(self, who: object) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(who, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # admitted in the same moment
                self._running -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._running < int(self.window):
            who = next(iter(self._waiting))
            places = self._waiting.pop(who)
            place = places.popleft()
            if places:
                self._waiting[who] = places  # behind the others
            if not place.done():
                self._running += 1
                place.set_result(None)

    def well(self) -> None:
        """Take note of a good answer."""
        self.window = min(float(self._most), self.window + 1 / self.window)
        self._admit()

    def slow_down(self) -> None:
        """Take note of a refusal for want of capacity."""
        now = time.monotonic()
        if now - self._halved_at > _MOMENT_S:
            self._halved_at = now
            self.window = max(1.0, self.window / 2)

    @contextlib.contextmanager
    def limited(self, bytes_per_s: float | None) -> Iterator[None]:
        """Limit the bandwidth while the block runs; of several limits the lowest holds for all."""
        if bytes_per_s is None:
            yield
            return
        self._limits.append(bytes_per_s)
        self.bytes_per_s = min(self._limits)
        try:
            yield
        finally:
            self._limits.remove(bytes_per_s)
            self.bytes_per_s = min(self._limits, default=None)

    async def spend(self, size: int) -> None:
        """Wait until `size` more bytes may be sent."""
        if self.bytes_per_s is None:
            return
        now = time.monotonic()
        begin = max(now, self._next_byte_at)
        self._next_byte_at = begin + size / self.bytes_per_s
        if begin > now:
            await asyncio.sleep(begin - now)

    async def persist(
        self,
        request: Callable[[], Awaitable[T]],
        *,
        where: str,
        doing: str,
        expected: frozenset[str] = frozenset(),
        who: object = None,
    ) -> T:
        """Make a request until it succeeds, or its fault is none that passes.

        Args:
            request: makes it once; called again for each try.
            who: asks; see `turn`.
            expected: codes of answers that the caller deals with; raised as they are.

        Raises: StepError: see `connection.fault`; ClientError of an expected code.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                async with self.turn(who):
                    answer = await request()
            except Exception as error:
                code = connection.code_of(error)
                if code in expected:
                    raise
                fault = connection.fault(error, where=where, doing=doing)
                if connection.says_slow_down(error):
                    self.slow_down()
                if not isinstance(fault, TransientError) or attempt == _TRIES:
                    raise fault from error
                asked = fault.retry_after_s
                if (asked or 0.0) > _PATIENCE_S:
                    raise fault from error
                # With equal waits all retries would fall into one throttle window.
                wait = wait_s(attempt, first_s=_FIRST_S, most_s=_MOST_S, jitter=FULL, asked_s=asked)
                await asyncio.sleep(wait)
            else:
                self.well()
                return answer
        raise AssertionError  # the last try returns or raises
