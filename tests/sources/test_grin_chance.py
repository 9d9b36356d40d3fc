"""Whatever happens in whatever order: nothing is lost, nothing is asked for twice while it is in process."""

from __future__ import annotations

import contextlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.model.errors import DittoheadError, ItemError
from dittohead.sources.grin import refresh as refresh_module
from dittohead.system import fail_points
from dittohead.system.fail_points import CATALOGUE_POINTS, SOURCE_POINTS
from tests.support.grin import Server, serving, unreadable
from tests.support.grin.library import Library
from tests.support.length import LONG, budget
from tests.support.trees import read_tree

pytestmark = [pytest.mark.service, pytest.mark.timeout(600)]

POINTS = [*CATALOGUE_POINTS, *SOURCE_POINTS, "file.written", "file.durable", "file.renamed"]


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
        library.harness.worker.plays["first"] = self.job

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
        harness = self.library.harness
        async with harness.running():
            for job in harness.jobs():
                if job.state == "failed":
                    await harness.ask("retry", job.id)
            await harness.until(self.library.harness.quiet)
        await self.library.runner.follow()


@pytest.mark.parametrize("seed", range(4) if LONG else [1])
@pytest.mark.parametrize(("volumes", "steps"), budget([(60, 20), (200, 60)], (60, 20)))
async def test_many_volumes_through_kills_faults_and_evictions(
    tmp_path: Path, server: Server, seed: int, volumes: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dittohead.sources.grin.limits._THROTTLED_S", 0.001)
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
    library.harness.store.close()


#: At which time that a round comes to a moment it dies. Of transactions there are many: at later ones, too.
NUMBERS = (1, 2) if LONG else (1,)
MOMENTS = [
    *((point, number) for point in POINTS for number in NUMBERS),
    *((point, number) for point in ("store.written", "store.committed") for number in (2, 9, 17)),
]


@pytest.mark.rest
async def test_killed_at_every_named_moment(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each moment a few volumes are on their way: asked for, converted, one evicted before it is fetched."""
    monkeypatch.setattr(refresh_module, "_GRACE_S", 0.0)
    library = Library(tmp_path, server, evictions=1000, details=False)
    library.sign_in()
    world = Chance(library, server, 1, 0)
    world.failing = False
    died: Counter[str] = Counter()
    for turn, (wanted, number) in enumerate(MOMENTS):
        barcodes = [f"M{turn:03}-{n}" for n in range(3)]
        library.world.add(*barcodes[:2])
        library.world.add(barcodes[2], state="converted")
        await library.tell("refresh")
        await world.round()
        await library.want(*barcodes)
        library.token.write_text(json.dumps(json.loads(library.token.read_text()) | {"expires_at": 0}))
        library.again()
        library.world.evict(barcodes[2])
        left = number

        def point(name: str, wanted: str = wanted) -> None:
            nonlocal left
            left -= name == wanted
            if left == 0 and name == wanted:
                died[name] += 1
                fail_points.point = calm
                raise Killed

        fail_points.point = point
        try:
            for _ in range(4):
                await world.round()
                library.world.tick(most=5)
                if wanted == "source.settled":  # which comes when jobs are done
                    with contextlib.suppress(Killed, BaseExceptionGroup):
                        await library.jobs()
        finally:
            fail_points.point = calm
        library.again()
        for _ in range(8):
            await world.round()
            await library.jobs()
            if set(await stages(library)) == {"stored"}:
                break
            library.world.tick(most=5)
        assert set(await stages(library)) == {"stored"}, (wanted, number, await library.states())
        assert server.world.asked_in_process == {}, (wanted, number)
    assert {point for point, _ in MOMENTS} - set(died) == set(), "some moments were never reached"
    assert world.done.most_common(1)[0][1] == 1
    assert len(world.done) == 3 * len(MOMENTS)
    assert await library.counts_hold()
    assert library.listing() == []
    library.harness.store.close()


async def stages(library: Library) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (_, stage), count in (await library.keep.catalogue.counts("volume")).items():
        found[stage] += count
    return dict(found)
