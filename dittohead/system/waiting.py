"""Waiting for something to happen, or for a time to pass, whichever comes first."""

from __future__ import annotations

import asyncio
import contextlib


async def event_or_time(event: asyncio.Event, seconds: float | None) -> bool:
    """Wait for an event, or this long; tell whether the event is set.

    Args:
        seconds: None: as long as it takes; nothing is waited for 0 and less.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
