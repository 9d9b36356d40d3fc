"""Work in threads that really ends when its task is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Stopped(Exception):  # not an error: how a thread leaves when told to
    """The task this thread works for was cancelled."""


class Stop:
    """Tells a thread that its task was cancelled; `check` it between pieces of work."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask the thread to leave."""
        self._event.set()

    def check(self) -> None:
        """Leave if asked to. Raises: Stopped."""
        if self._event.is_set():
            raise Stopped


async def in_thread(work: Callable[[Stop], T]) -> T:
    """Run `work(stop)` in a thread; on cancellation tell it so and return only when it has left.

    A plain asyncio.to_thread leaves the thread running after cancellation: it would still write
    into a directory whose job goes on elsewhere.
    """
    stop = Stop()
    task = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:  # a second cancellation changes nothing
                continue
        if not task.cancelled():
            task.exception()  # seen: Stopped, or what no longer matters
        raise
