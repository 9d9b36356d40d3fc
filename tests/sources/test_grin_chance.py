"""Whatever happens in whatever order: nothing is lost, nothing is asked for twice while it is in process."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.model.errors import DittoheadError, ItemError
from dittohead.sources.grin import refresh as refresh_module
from dittohead.system import fail_points
from tests.support.grin import Server, serving, unreadable
from tests.support.grin.library import Library
from tests.support.length import LONG, budget
from tests.support.trees import read_tree

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

POINTS = [
    "grin.noted", "grin.asked", "source.told", "source.left", "source.made", "source.piece", "source.fetched",
    "source.durable", "source.recorded", "source.renamed", "source.settled", "file.written", "file.renamed",
]  # fmt: skip


class Killed(BaseException):
    """The daemon's death, at a named moment."""


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def calm(name: str) -> None:
    """Nothing happens at this moment."""


class Chance:
    """A library with many volumes, and what happens to them."""

    def __init__(self, library: Library, server: Server, seed: int, volumes: int) -> None:
        self.library, self.server, self.world = library, server, library.world
        self.chance = random.Random(seed)
        self.barcodes = [f"B{n:05}" for n in range(volumes)]
        self.done: Counter[tuple[str, bytes]] = Counter()
        self.failing = True
        library.house.worker.plays["first"] = self.job

    async def job(self, ctx: StepContext) -> StepResult:
        if self.failing and self.chance.random() < 0.05:
            raise ItemError("by chance")
        (body,) = read_tree(ctx.payload).values()
        self.done[ctx.name, body] += 1
        return Done()

    async def step(self) -> None:
        await self.chance.choice(
            [self.round, self.round, self.die, self.die, self.time, self.jobs, self.fault]
        )()

    async def round(self) -> None:
        try:
            self.library.runner._waits.clear()
            await self.library.round()
        except (DittoheadError, Killed, BaseExceptionGroup):
            self.library.again()

    async def die(self) -> None:
        """At the Nth time that a round comes to a named moment."""
        wanted, left = self.chance.choice(POINTS), self.chance.randrange(1, 6)

        def point(name: str) -> None:
            nonlocal left
            left -= name == wanted
            if left == 0:
                fail_points.point = calm
                raise Killed

        fail_points.point = point
        try:
            await self.round()
        finally:
            fail_points.point = calm
        self.library.again()

    async def time(self) -> None:
        """Conversions come to their end; the oldest leave the pool."""
        self.world.tick(most=self.chance.randrange(60))

    async def fault(self) -> None:
        path = self.chance.choice(["_process", "_converted", "_in_process", ".gpg", "_all_books"])
        kinds = {"_process": ["loses-answer", "no-answer", "503"], ".gpg": ["cut", "503", "404"]}
        kind = self.chance.choice(kinds.get(path, ["cut", "throttled", "500"]))
        self.server.fail(path, kind, after=self.chance.randrange(30_000) if path == ".gpg" else 3)

    async def jobs(self) -> None:
        await self.library.jobs()
        house = self.library.house
        async with house.running():
            for job in house.jobs():
                if job.state == "failed":
                    await house.ask("retry", job.id)
            await house.until(self.library.house.quiet)
        await self.library.runner.follow()


@pytest.mark.parametrize("seed", range(4) if LONG else [1])
@pytest.mark.parametrize(("volumes", "steps"), budget([(60, 20), (200, 60)], (60, 20)))
async def test_many_volumes_through_kills_faults_and_evictions(
    tmp_path: Path, server: Server, seed: int, volumes: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dittohead.sources.grin.pace._THROTTLED_S", 0.001)
    monkeypatch.setattr("dittohead.sources.grin.requests._FULL_S", 0.0)
    monkeypatch.setattr(refresh_module, "_GRACE_S", 0.0)
    library = Library(tmp_path, server, ahead=30, batch=20, in_process=50, evictions=1000, stall=1)
    library.sign_in()
    world = Chance(library, server, seed, volumes)
    library.world.pool, library.world.queue_limit = 40, 60
    library.world.add(*world.barcodes)
    for _ in range(3):
        await world.round()
    await library.want(*world.barcodes)
    for _ in range(steps):
        await world.step()
    server.faults.clear()
    world.failing = False
    for _ in range(60):
        library.world.tick(most=30)
        await world.round()
        await world.jobs()
        if set(await stages(library)) == {"stored"}:
            break
    assert await stages(library) == {"stored": volumes}
    assert {name for name, _ in world.done} == set(world.barcodes)
    assert {body for _, body in world.done} == {unreadable(barcode) for barcode in world.barcodes}
    assert world.done.most_common(1)[0][1] == 1
    assert server.world.asked_in_process == {}
    assert await library.counts_hold()
    assert library.listing() == []
    library.house.store.close()


async def stages(library: Library) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (_, stage), count in (await library.keep.catalogue.counts("volume")).items():
        found[stage] += count
    return dict(found)
