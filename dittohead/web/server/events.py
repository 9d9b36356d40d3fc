"""Server-sent events: what readers of a page see changing, computed once however many there are.

What is told is state, not history: a topic is a set of named parts, each with the number of the change
that made it what it is. A reader holds the number of the last change sent to it and is sent whatever is
newer, so that nothing has to be kept for anybody: a slow reader misses what lay between, never the
outcome, and one that comes back with `Last-Event-ID` goes on where it was.

Source: HTML Living Standard, 9.2 "Server-sent events".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field

from dittohead.model.errors import DittoheadError
from dittohead.system import log

#: Seconds between two looks while somebody reads, and the part of the time they may take up.
EVERY_S = 0.5
_SHARE = 0.1

#: A comment is sent after this long without news: proxies close what is silent, and dead readers are found.
HEARTBEAT_S = 15.0

#: A reader that takes nothing for this long is let go.
PATIENCE_S = 10.0

#: After this long a stream ends: anyone who reads asks again, and may have lost the right to.
LIFE_S = 900.0

#: Streams at once, and topics: more than any house has; what comes from anywhere is bounded.
READERS = 500
TOPICS = 100

#: Stands for the reader's own CSRF token in what all readers share; nobody outside can know it.
CSRF = "csrf-" + secrets.token_hex(16)


@dataclass(frozen=True)
class Fragment:
    """One thing that a topic tells: an event's name and its data, one line of JSON."""

    event: str
    data: str


Make = Callable[[], Awaitable[Mapping[str, Fragment]]]


class TooMany(Exception):
    """As many read already as may."""


def fragment(id_: str, html: str) -> Fragment:
    """Return a piece of a page that takes the place of the element with this id."""
    return Fragment("fragment", json.dumps({"id": id_, "html": html}, ensure_ascii=True))


def for_reader(text: str, csrf: str) -> str:
    """Put a reader's own token where the shared text has none. `csrf` needs no escaping: [A-Za-z0-9._~-]."""
    return text.replace(CSRF, csrf)


@dataclass
class _Topic:
    """What some readers look at."""

    make: Make
    numbers: Callable[[], int]
    parts: dict[str, tuple[int, Fragment]] = field(default_factory=dict)
    readers: int = 0
    began: float = -1.0  #: when the last refresh began that came to its end
    took: float = 0.0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def refresh(self) -> None:
        """Make the parts again, unless somebody else's making begins and ends meanwhile."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self._lock:
            if self.began >= asked:
                return
            began = loop.time()
            found = await self.make()
            self.began, self.took = began, loop.time() - began
            self._take(found)

    def _take(self, found: Mapping[str, Fragment]) -> None:
        changed = False
        for key in self.parts.keys() - found.keys():
            del self.parts[key]
        for key, part in found.items():
            known = self.parts.get(key)
            if known is None or known[1] != part:
                self.parts[key] = (self.numbers(), part)
                changed = True
        if changed:
            self.news.set()
            self.news = asyncio.Event()

    def newer(self, than: int) -> list[tuple[int, Fragment]]:
        """Return what has changed after a change, in order."""
        return sorted((found for found in self.parts.values() if found[0] > than), key=lambda pair: pair[0])


class Broadcaster:
    """Looks for all readers of a topic at once; nobody reads, nobody looks. Of one event loop."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._epoch = secrets.token_hex(4)  # numbers of an earlier daemon mean nothing
        self._number = 0
        self._topics: dict[Hashable, _Topic] = {}
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}
        self._closed = asyncio.Event()

    @property
    def readers(self) -> int:
        """How many read now."""
        return sum(topic.readers for topic in self._topics.values())

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def now(self, key: Hashable, make: Make) -> dict[str, Fragment]:
        """Return a topic's parts as they are now: looked at after this was called, together with others."""
        topic = self._topics.get(key)
        if topic is None:
            return dict(await make())
        await topic.refresh()
        return {name: part for name, (_, part) in topic.parts.items()}

    async def follow(self, key: Hashable, make: Make, last: str = "") -> AsyncIterator[str]:
        """Yield a stream of events until the daemon stops or the stream has grown old.

        Args:
            last: the id of the last event that the reader had, as its `Last-Event-ID` says.

        Raises: TooMany.
        """
        topic = self._enter(key, make)
        loop = asyncio.get_running_loop()
        end, seen = loop.time() + LIFE_S, self._number_of(last)
        try:
            await topic.refresh()
            yield "retry: 2000\n\n"
            while not self._closed.is_set() and loop.time() < end:
                news = topic.news
                newer = topic.newer(seen)
                if newer:
                    seen = newer[-1][0]
                    yield "".join(self._event(number, part) for number, part in newer)
                elif not await self._either(news, HEARTBEAT_S):
                    yield ": still here\n\n"
        finally:
            topic.readers -= 1
            if not topic.readers and self._topics.get(key) is topic:
                del self._topics[key]
                self._tasks.pop(key).cancel()

    def _enter(self, key: Hashable, make: Make) -> _Topic:
        topic = self._topics.get(key)
        if self.readers >= READERS or (topic is None and len(self._topics) >= TOPICS):
            raise TooMany
        if topic is None:
            topic = self._topics[key] = _Topic(make, self._next)
            self._tasks[key] = asyncio.create_task(self._keep_fresh(topic), name=f"events {key}")
        topic.readers += 1
        return topic

    async def _keep_fresh(self, topic: _Topic) -> None:
        while True:
            await asyncio.sleep(max(self._every_s, topic.took / _SHARE))
            try:
                await topic.refresh()
            except (DittoheadError, LookupError, OSError) as error:  # of the store or a disk; they may fix
                log.get().error(log.TASK_CRASHED, task="events", error=str(error))

    async def _either(self, news: asyncio.Event, seconds: float) -> bool:
        """Wait for news or the end; False when there was neither for this long."""
        waiting = [asyncio.ensure_future(event.wait()) for event in (news, self._closed)]
        try:
            done, _ = await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return bool(done)
        finally:
            for task in waiting:
                task.cancel()

    def _event(self, number: int, part: Fragment) -> str:
        return f"id: {self._epoch}-{number}\nevent: {part.event}\ndata: {part.data}\n\n"

    def _number_of(self, last: str) -> int:
        epoch, _, number = last.partition("-")
        return int(number) if epoch == self._epoch and number.isascii() and number.isdecimal() else 0

    async def close(self) -> None:
        """End every stream."""
        self._closed.set()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
