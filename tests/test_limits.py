"""Slots are bounded, and granted to the owner who holds the fewest."""

from __future__ import annotations

import asyncio

from dittohead.system.limits import FairLimiter


async def test_the_owner_with_the_fewest_slots_is_served_next() -> None:
    """A bulk drop waits behind another person's single folder."""
    limiter, order = FairLimiter(1), []
    first = limiter.slot(1)
    await first.__aenter__()

    async def use(owner: int) -> None:
        async with limiter.slot(owner):
            order.append(owner)

    tasks = [asyncio.create_task(use(owner)) for owner in (1, 1, 1, 2)]
    await asyncio.sleep(0)
    assert limiter.contended
    await first.__aexit__(None, None, None)
    await asyncio.gather(*tasks)
    assert order.index(2) <= 1
    assert limiter.free == 1


async def test_never_more_than_the_limit() -> None:
    """Also with many owners and cancellations."""
    limiter, now, most = FairLimiter(3), 0, 0

    async def use(owner: int) -> None:
        nonlocal now, most
        async with limiter.slot(owner):
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    tasks = [asyncio.create_task(use(i % 5)) for i in range(60)]
    await asyncio.sleep(0)
    for task in tasks[10:20]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3
    assert limiter.free == 3


async def test_who_holds_and_who_waits_may_be_cancelled_in_the_same_moment() -> None:
    """As at a stop: each of them ends as cancelled, whichever is the first to hear of it."""
    limiter = FairLimiter(1)

    async def use(owner: int) -> None:
        async with limiter.slot(owner):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(use(owner)) for owner in (1, 1, 2)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert limiter.free == 1
    assert not limiter.contended


async def test_a_spare_slot_is_given_only_when_nobody_waits() -> None:
    """Further child processes use what is idle, and no more."""
    limiter = FairLimiter(2)
    async with limiter.slot(1):
        spare = limiter.spare(1)
        assert spare is not None
        assert limiter.spare(1) is None
        async with spare:
            waiting = asyncio.create_task(limiter.slot(2).__aenter__())
            await asyncio.sleep(0)
            assert limiter.contended
        await waiting
    assert limiter.free == 1
