"""Runners of one step: everything is done once, by no more than there are slots, with children that may die."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dittohead.model.errors import TransientError
from dittohead.system.threads import Stop
from dittohead.toolkit.runners import Renewed, Runners
from dittohead.workers import convert, describe
from tests.support.context import LoneContext


class Slots(LoneContext):
    """Gives so many slots, and wants them back when it is told to."""

    wanted_back = False

    @property
    def contended(self) -> bool:
        return self.wanted_back


class Work:
    """So many things, each with a moment in which others may go on."""

    def __init__(self, ctx: Slots, count: int, known: frozenset[int] = frozenset()) -> None:
        self.ctx, self.count, self.known = ctx, count, known
        self.things: Iterator[int] = iter(range(count))
        self.made: Counter[int] = Counter()
        self.good: Counter[int] = Counter()
        self.children = self.alive = self.most_alive = 0
        self.dies_of: frozenset[int] = frozenset()
        self.fails_at = -1

    def pick(self, stop: Stop) -> tuple[int, bool | None] | None:
        thing = next(self.things, None)
        return None if thing is None else (thing, True if thing in self.known else None)

    async def make(self, thing: int, own: Renewed[int]) -> None:
        child = await own.get()
        assert await own.get() == child
        if thing == self.fails_at:
            raise TransientError("the disk is full")
        if thing in self.dies_of:
            await own.drop()
            assert await own.get() != child
        await asyncio.sleep(0)
        self.made[thing] += 1

    @contextlib.asynccontextmanager
    async def start(self) -> AsyncIterator[int]:
        self.children, self.alive = self.children + 1, self.alive + 1
        self.most_alive = max(self.most_alive, self.alive)
        try:
            yield self.children
        finally:
            self.alive -= 1

    async def run(self) -> None:
        await Runners(
            self.ctx,
            "x",
            self.count,
            pick=self.pick,
            make=self.make,
            good=lambda thing, _: self.good.update([thing]),
            start=self.start,
        ).run()


@pytest.fixture
def ctx(tmp_path: Path) -> Slots:
    (tmp_path / "payload").mkdir()
    return Slots(tmp_path, tmp_path / "payload", spare=3)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 40])
async def test_everything_is_done_once_by_as_many_as_there_are_slots(ctx: Slots, count: int) -> None:
    """Its own and three spare ones; no more than there are things."""
    work = Work(ctx, count)
    await work.run()
    assert work.made == Counter(range(count))
    assert work.most_alive <= min(4, count)
    assert count < 40 or work.most_alive == 4
    assert work.alive == 0


async def test_what_is_done_already_needs_no_child(ctx: Slots) -> None:
    """It is taken note of."""
    work = Work(ctx, 9, known=frozenset(range(9)))
    await work.run()
    assert (work.good, work.made, work.children) == (Counter(range(9)), Counter(), 0)


async def test_a_child_that_died_is_renewed(ctx: Slots) -> None:
    """Nothing is left of the one before, nor of the last."""
    ctx.spare = 0
    work = Work(ctx, 9)
    work.dies_of = frozenset({2, 5})
    await work.run()
    assert (work.children, work.most_alive, work.alive) == (3, 1, 0)


async def test_extra_runners_leave_when_others_wait(ctx: Slots) -> None:
    """The step's own goes on to the end."""
    ctx.wanted_back = True
    work = Work(ctx, 40)
    await work.run()
    assert work.made == Counter(range(40))
    assert work.children <= 4


async def test_the_first_fault_ends_all_of_them(ctx: Slots) -> None:
    """As an error by itself, and no child is left."""
    work = Work(ctx, 40)
    work.fails_at = 7
    with pytest.raises(TransientError, match="full"):
        await work.run()
    assert work.alive == 0


def test_both_workers_go_by_it() -> None:
    """Neither has runners of its own."""
    assert convert.Runners is describe.Runners is Runners  # type: ignore[attr-defined]
