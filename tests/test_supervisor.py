"""The daemon's parts: one that fails is started again, and ends no other."""

from __future__ import annotations

import asyncio

import pytest

from dittohead.engine import supervisor
from dittohead.engine.supervisor import CannotGoOn, Service, Supervisor


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_S", 0.001)
    monkeypatch.setattr(supervisor, "_MOST_S", 0.002)


async def for_ever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("error", [OSError(5, "EIO"), RuntimeError("unforeseen"), MemoryError(), None])
async def test_a_part_that_fails_again_and_again_ends_no_other(error: Exception | None) -> None:
    """What only reports must never take down the work it reports."""
    starts, enough = 0, asyncio.Event()

    async def stumble() -> None:
        nonlocal starts
        starts += 1
        if starts > 20:
            enough.set()
            await for_ever()
        if error is not None:
            raise error

    kept = Supervisor([Service(name="live", run=stumble), Service(name="work", run=for_ever, vital=True)])
    task = asyncio.create_task(kept.run())
    await enough.wait()
    assert not task.done()
    assert "live" in kept.failing
    assert "work" not in kept.failing
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_part_that_the_work_needs_ends_the_daemon_only_when_starting_it_again_does_not_help() -> None:
    """And every other part has ended then."""
    ended = []
    starts = 0

    async def work() -> None:
        nonlocal starts
        starts += 1
        raise RuntimeError("unforeseen")

    async def other() -> None:
        try:
            await for_ever()
        finally:
            ended.append("other")

    with pytest.raises(CannotGoOn, match="dispatch failed"):
        await Supervisor(
            [Service(name="dispatch", run=work, vital=True), Service(name="other", run=other)]
        ).run()
    assert starts > 3
    assert ended == ["other"]


async def test_a_part_that_is_well_again_is_not_said_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Health is about now."""
    monkeypatch.setattr(supervisor, "_WELL_S", 0.01)
    starts = 0

    async def once() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise RuntimeError("once")
        await for_ever()

    kept = Supervisor([Service(name="pings", run=once)])
    task = asyncio.create_task(kept.run())
    async with asyncio.timeout(10):
        while starts < 2 or kept.failing:
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
