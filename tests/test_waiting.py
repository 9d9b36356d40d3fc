"""An event or a time, whichever comes first."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

import dittohead
from dittohead.system.waiting import event_or_time


@pytest.mark.parametrize("seconds", [None, 60.0, 0.0, -1.0])
async def test_an_event_that_is_set_is_not_waited_for(seconds: float | None) -> None:
    """However long it might have been waited for."""
    event = asyncio.Event()
    event.set()
    assert await event_or_time(event, seconds)


@pytest.mark.parametrize("seconds", [0.01, 0.0, -1.0])
async def test_time_goes_by_without_it(seconds: float) -> None:
    """No error: nothing has happened."""
    assert not await event_or_time(asyncio.Event(), seconds)


@pytest.mark.parametrize("seconds", [None, 60.0])
async def test_an_event_ends_the_wait(seconds: float | None) -> None:
    """The rest of the time does not matter."""
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)
    assert await event_or_time(event, seconds)


async def test_whoever_is_cancelled_meanwhile_is_cancelled() -> None:
    """It is not a time-out."""
    task = asyncio.create_task(event_or_time(asyncio.Event(), 60.0))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_nobody_else_waits_so() -> None:
    """A time-out around an event stands in one module."""
    own = re.compile(r"asyncio\.timeout\([^\n]*\n\s+await [\w.]+\.wait\(\)|wait_for\([\w.]+\.wait\(\)")
    package = Path(dittohead.__file__).parent
    found = [path.name for path in package.rglob("*.py") if own.search(path.read_text())]
    assert found == ["waiting.py"]
