"""Any steps in any order, failing in every way, stopped and killed, with people's requests in between.

No step runs beside itself, before what it needs, or again once it is done (unless somebody asked); and when
the faults end, every job ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa

from dittohead.contract.worker import Done, StepContext, StepResult, Wait
from dittohead.engine.reconcile import reconcile
from dittohead.model import step_graph
from dittohead.model.errors import ItemError, StoreError, Superseded, TargetError, TransientError
from dittohead.model.states import JobState, StepState
from dittohead.store import Store
from dittohead.store import jobs as job_store
from tests.support.harness import Harness
from tests.support.length import budget
from tests.support.postgres import postgres

#: More of them: RANDOM_SEEDS=500 pytest tests/test_beside_random.py
SEEDS = int(os.environ.get("RANDOM_SEEDS", "4"))

FAULTS = ("done", "wait", "save", "transient", "target", "item", "hang", "stubborn")


def pipeline(random: Random) -> str:
    """Return a configuration with a random plan of steps."""
    lines = []
    for n in range(random.randint(2, 7)):
        after = sorted(random.sample(range(n), random.randint(0, min(n, 3))))
        then = f", after: [{', '.join(f's{i}' for i in after)}]" if random.random() < 0.8 else ""
        target = f", target: t{random.randint(0, 1)}" if random.random() < 0.6 else ""
        lines.append(f"      - script: {{name: s{n}{then}{target}}}")
    return "\n".join(
        [
            "root: .",
            f"limits: {{jobs: {random.randint(1, 3)}, script: {random.randint(1, 4)}}}",
            "retry: {attempts: 4, first: 1ms, most: 2ms}",
            "space: {floor: 0}",
            "pipelines:",
            "  p:",
            '    match: ".*"',
            "    steps:",
            *lines,
        ]
    )


class Play:
    """What the steps do: each a few faults, then what is right."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.script: dict[tuple[str, str], list[str]] = {}
        self.running: set[tuple[str, str]] = set()
        self.wrong: list[str] = []
        self.calm = False

    def put_on(self, harness: Harness) -> None:
        for step in harness.config.pipelines[0].steps:
            harness.worker.plays[step.name] = lambda ctx: self.act(harness, ctx)

    async def act(self, harness: Harness, ctx: StepContext) -> StepResult:
        key = (ctx.job_id, ctx.step)
        if key in self.running:
            self.wrong.append(f"{ctx.step} runs beside itself")
        self.running.add(key)
        try:
            await self._check(harness, ctx)
            faults = self.script.setdefault(key, self.random.choices(FAULTS, k=self.random.randint(0, 3)))
            return await self._do("done" if self.calm or not faults else faults.pop(), ctx)
        finally:
            self.running.discard(key)

    async def _check(self, harness: Harness, ctx: StepContext) -> None:
        try:
            job = await harness.store.read(job_store.get, ctx.job_id)
            rows = await harness.store.read(job_store.steps_of, ctx.job_id)
            await ctx.fence()
        except (Superseded, StoreError):
            return
        needed = step_graph.needs(job.definition)
        at = next(row.position for row in rows if row.name == ctx.step)
        if rows[at].state is not StepState.RUNNING:
            self.wrong.append(f"{ctx.step} runs while it is {rows[at].state}")
        if any(rows[n].state is not StepState.DONE for n in needed[at]):
            self.wrong.append(f"{ctx.step} runs before what it needs")

    async def _do(self, what: str, ctx: StepContext) -> StepResult:
        await asyncio.sleep(0)
        match what:
            case "wait":
                return Wait(reason="an answer", seconds=0.001, state={"n": 1})
            case "save":
                await ctx.save({"n": 2})
                raise TransientError("busy")
            case "transient":
                raise TransientError("busy")
            case "target":
                raise TargetError("down")
            case "item":
                raise ItemError("no")
            case "hang":  # until it is interrupted, or there is peace
                while not self.calm:
                    await asyncio.sleep(0.001)
            case "stubborn":  # takes its time to end
                for _ in range(3):
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(0.001)
        return Done()


ACTIONS = ("freeze", "thaw", "cancel", "poke", "retry", "rerun")


async def disturb(harness: Harness, random: Random) -> None:
    """Let time pass, or ask for something at random."""
    await harness.until(lambda: bool(harness.jobs()))
    for _ in range(random.randint(0, 4)):
        await harness.store.write(lambda connection: None)
    harness.targets.sooner(3600)
    harness.dispatch.wake()
    if random.random() < 0.6:
        args = {}
        action = random.choice(ACTIONS)
        if action == "rerun":
            args = {"from": f"s{random.randint(0, 3)}"}
        await harness.ask(action, random.choice(harness.jobs()).id, **args)


async def end(harness: Harness, names: list[str]) -> None:
    """No more faults: every job must come to its end."""

    async def go_on() -> None:
        while True:
            jobs = [harness.job(name) for name in names if harness.jobs(name)]
            if (
                len(jobs) == len(names)
                and all(j.state is JobState.DONE for j in jobs)
                and not harness.dispatch.running
            ):
                return
            for job in jobs:
                if job.state is JobState.FROZEN:
                    await harness.ask("thaw", job.id)
                elif job.state is JobState.FAILED:
                    await harness.ask("retry", job.id)
            harness.targets.sooner(3600)  # probes are due; nothing else is done for what waits
            harness.dispatch.wake()
            await asyncio.sleep(0.005)

    try:
        await asyncio.wait_for(go_on(), 20)
    except TimeoutError:
        left = [
            (j.state, j.station, j.reason, j.target, j.wake_at, harness.steps(j))
            for j in map(harness.job, names)
        ]
        pytest.fail(
            f"not every job has ended: {left}, {harness.dispatch._left_alone}, {harness.targets.rows()}"
        )


async def one(root: Path, seed: int, store: Store | None, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed)
    text, names = pipeline(random), ["a", "b", "c"][: random.randint(1, 3)]
    play = Play(random)
    harness = Harness(root, text, store=store)
    for name in names:
        harness.arrive(name)
    for _ in range(random.randint(1, 4)):
        play.put_on(harness)
        killed = random.random() < 0.4
        with monkeypatch.context() as patch:
            await reconcile(harness.engine, harness.claimer, ())  # as at each start
            async with harness.running():
                for _ in range(random.randint(0, 6)):
                    await disturb(harness, random)
                if killed:  # nothing is put in order any more
                    patch.setattr(job_store, "interrupt", lambda *args: None)
        assert play.wrong == []
        harness = Harness(root, text, store=harness.store)
    play.calm = True
    play.put_on(harness)
    await reconcile(harness.engine, harness.claimer, ())
    async with harness.running():
        await end(harness, names)
    assert play.wrong == []
    assert not play.running
    if store is None:
        harness.store.close()


@pytest.mark.parametrize("seed", budget(range(SEEDS), 0, 1))
async def test_every_job_ends_and_no_step_runs_out_of_turn(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the embedded store."""
    await one(tmp_path / "root", seed, None, monkeypatch)


@pytest.fixture(scope="module")
def server() -> Iterator[sa.URL]:
    with postgres() as url:
        yield url


async def test_every_job_ends_on_postgresql_too(
    tmp_path: Path, server: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose transactions are others."""
    store = Store.open(server)
    for seed in range(1000, 1000 + max(SEEDS // 4, 1)):
        with store.engine.begin() as connection:
            for table in ("events", "steps", "jobs", "targets", "requests", "outbox"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        await one(tmp_path / str(seed), seed, store, monkeypatch)
    store.close()
