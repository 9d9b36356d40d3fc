"""How many steps of a kind run at once, shared fairly between the people whose folders they are."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator


class FairLimiter:
    """A bound on slots, granted in turn to owners: the one holding the fewest is served next.

    One person's five hundred folders do not keep another's single folder waiting for more than
    one slot to come free.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: Counter[int] = Counter()
        self._queues: OrderedDict[int, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def free(self) -> int:
        """Slots nobody holds."""
        return self.limit - self._held.total()

    @property
    def contended(self) -> bool:
        """Whether somebody waits."""
        return any(self._queues.values())

    @contextlib.asynccontextmanager
    async def slot(self, owner: int) -> AsyncIterator[None]:
        """Hold a slot for the owner (a uid); waits for its turn."""
        await self._acquire(owner)
        try:
            yield
        finally:
            self._release(owner)

    def spare(self, owner: int) -> contextlib.AbstractAsyncContextManager[None] | None:
        """Return a slot if one is free and nobody waits, taken at once; None otherwise."""
        if self.free <= 0 or self.contended:
            return None
        self._held[owner] += 1
        return self._taken(owner)

    @contextlib.asynccontextmanager
    async def _taken(self, owner: int) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self._release(owner)

    async def _acquire(self, owner: int) -> None:
        if self.free > 0 and not self.contended:
            self._held[owner] += 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(owner, deque()).append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # granted in the same moment
                self._release(owner)
            else:
                with contextlib.suppress(KeyError, ValueError):  # a slot came back, and it was passed over
                    self._queues[owner].remove(future)
            raise

    def _release(self, owner: int) -> None:
        self._held[owner] -= 1
        self._grant()

    def resize(self, limit: int) -> None:
        """Change the bound; a smaller one takes effect as slots come back."""
        self.limit = limit
        self._grant()

    def _grant(self) -> None:
        while self.free > 0:
            waiting = [owner for owner, queue in self._queues.items() if queue]
            if not waiting:
                self._queues.clear()
                return
            owner = min(waiting, key=lambda who: self._held[who])  # ties: longest not served
            future = self._queues[owner].popleft()
            self._queues.move_to_end(owner)
            if not future.done():
                self._held[owner] += 1
                future.set_result(None)
