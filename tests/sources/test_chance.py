"""Whatever happens in whatever order: every object comes through a job that is done, none comes twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.model.errors import DittoheadError, ItemError
from dittohead.system import fail_points
from dittohead.system.fail_points import SOURCE_POINTS
from tests.support.length import LONG, budget
from tests.support.s3_server import S3Server
from tests.support.source_harness import SourceHarness
from tests.support.trees import read_tree

pytestmark = pytest.mark.service

KINDS = ["500", "slow-down", "cut", "half", "flip-answer", "ExpiredToken"]


class Killed(BaseException):
    """The daemon's death, at a named moment."""


@pytest.fixture(scope="module")
def strict() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


class World:
    """A source and what is known of its bucket."""

    def __init__(self, source_harness: SourceHarness, server: S3Server, seed: int) -> None:
        self.source_harness, self.server = source_harness, server
        self.chance = random.Random(seed)
        self.objects: dict[str, bytes] = {}
        self.done: Counter[tuple[str, bytes]] = Counter()  #: (key, content) -> jobs that are done
        self.wanted: dict[str, str] = {}  #: token -> key
        self.failing = True
        self.number = 0
        source_harness.harness.worker.plays["first"] = self.play

    async def play(self, ctx: StepContext) -> StepResult:
        if self.failing and self.chance.random() < 0.3:
            raise ItemError("by chance")
        for path, body in read_tree(ctx.payload).items():
            self.done[f"{ctx.name}/{path.decode()}", body] += 1
        return Done()

    async def step(self) -> None:
        """Let one thing happen."""
        await self.chance.choice(
            [self.put, self.put, self.order, self.round, self.jobs, self.fault, self.die]
        )()

    async def put(self) -> None:
        self.number += 1
        key = f"s{self.chance.randrange(3)}/{self.chance.randrange(4)}"
        self.objects[key] = b"%d" % self.number * self.chance.choice([1, 1000, 300_000])
        await self.source_harness.put(key, self.objects[key])

    async def order(self) -> None:
        if self.objects:
            self.number += 1
            key = self.chance.choice(sorted(self.objects))
            self.wanted[f"tokens/{self.number}"] = key
            await self.source_harness.put(f"tokens/{self.number}", b'{"key": "%s"}' % key.encode())

    async def round(self) -> None:
        try:
            await self.source_harness.round()
        except (DittoheadError, Killed, BaseExceptionGroup):
            self.source_harness.again(list=True, tokens={"prefix": "tokens/"}, ignore=["tokens/*"])
        await self.look_at_tokens()

    async def fault(self) -> None:
        self.server.fail("get", self.chance.choice(KINDS), key=f"/{self.chance.randrange(4)}")

    async def die(self) -> None:
        """At a named moment of the next round."""
        wanted = self.chance.choice([*SOURCE_POINTS, "store.written", "store.committed"])

        def point(name: str) -> None:
            if name == wanted and not name.startswith("store."):
                fail_points.point = calm
                raise Killed

        fail_points.point = point
        try:
            await self.round()
        finally:
            fail_points.point = calm
        self.source_harness.again(list=True, tokens={"prefix": "tokens/"}, ignore=["tokens/*"])

    async def jobs(self) -> None:
        """Let every job come to its end, and have some of the failed ones run again."""
        harness = self.source_harness.harness
        async with harness.running():
            harness.dispatch.wake()  # what the last stop interrupted
            await harness.until(harness.quiet)
            for job in harness.jobs():
                if job.state == "failed" and (not self.failing or self.chance.random() < 0.5):
                    await harness.ask(
                        self.chance.choice(["retry", "rerun"]) if self.failing else "retry", job.id
                    )
            await harness.until(harness.quiet)

    async def look_at_tokens(self) -> None:
        """A token goes only when the object has come through a job, as it was ordered or later."""
        answer = await self.source_harness.call("list_objects_v2", Prefix="tokens/")
        there = {item["Key"] for item in answer.get("Contents", ())}
        for token in [token for token in self.wanted if token not in there]:
            key = self.wanted.pop(token)
            assert any(done == key for done, _ in self.done), (token, key)


def calm(name: str) -> None:
    """Nothing happens at this moment."""


@pytest.mark.parametrize("seed", [1, 2, 3, 113] if LONG else budget([3, 113], 113))
async def test_nothing_is_lost_and_nothing_comes_twice(
    strict: S3Server, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Puts, tokens, faults, deaths, jobs that fail and are run again; then all is put right."""
    monkeypatch.setattr("dittohead.toolkit.s3.request_rate._FIRST_S", 0.001)
    monkeypatch.setattr("dittohead.intake.runner._FIRST_S", 0.0)
    strict.faults.clear()
    source_harness = SourceHarness(
        tmp_path, strict.url, list=True, tokens={"prefix": "tokens/"}, ignore=["tokens/*"]
    )
    await source_harness.call("create_bucket")
    world = World(source_harness, strict, seed)
    for _ in range(60):
        await world.step()
    strict.faults.clear()
    world.failing = False
    for _ in range(8):
        await world.round()
        await world.jobs()
    await world.round()
    known = source_harness.known()
    assert {state: n for state, n in known["items"].items() if n} == {"done": len(world.objects)}
    assert known["orders"] == {"open": 0, "unreadable": 0}
    assert world.wanted == {}
    for key, body in world.objects.items():
        assert world.done[key, body] == 1, key
    assert source_harness.listing() == []
    source_harness.harness.store.close()
