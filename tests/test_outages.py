"""The store is away for a while, at any moment: everything goes on by itself, and nothing is done twice.

Time is scaled: a back-off of ten seconds takes some milliseconds, and an outage lasts for a number of calls.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import sqlalchemy as sa

from dittohead.contract.worker import Done, StepContext, StepResult, Wait
from dittohead.engine.dispatch import local
from dittohead.engine.reconcile import reconcile
from dittohead.folders.stations import Stations
from dittohead.model.errors import StoreError, TargetError, TransientError
from dittohead.model.records import Job
from dittohead.model.states import JobState, Station, StepState
from dittohead.store import Store, sqlite_url
from dittohead.store import jobs as job_store
from dittohead.store.queries import listing
from tests.support.harness import Harness
from tests.support.length import budget
from tests.support.outage import Outage
from tests.support.postgres import postgres

#: More of them: OUTAGE_SEEDS=500 pytest tests/test_outages.py
SEEDS = int(os.environ.get("OUTAGE_SEEDS", "6"))

CONFIG = """
root: .
limits: {jobs: 3, script: 4}
retry: {attempts: 50, first: 1ms, most: 2ms}
space: {floor: 0}
pipelines:
  p:
    match: ".*"
    steps:
      - script: {name: first}
      - script: {name: left, after: [first], target: there}
      - script: {name: right, after: [first]}
      - script: {name: last}
"""


@pytest.fixture(autouse=True)
def _scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_BACK_OFF_S", 0.02)
    monkeypatch.setattr(local, "_ROUTINE_S", 3600.0)  # the second net is not to hide a hole in the first
    monkeypatch.setattr(local, "_LEAST_S", 0.001)
    monkeypatch.setattr("dittohead.engine.targets.PROBE_FIRST_S", 0.01)
    monkeypatch.setattr("dittohead.engine.targets._PROBE_LATER_S", 0.01)


class Play:
    """Steps that also meet other trouble, and note what they do after their end was recorded."""

    def __init__(self, harness: Harness, random: Random, witness: Store) -> None:
        self.harness, self.random, self.witness = harness, random, witness
        self.wrong: list[str] = []
        self.tries: Counter[tuple[str, str]] = Counter()
        for name in ("first", "left", "right", "last"):
            harness.worker.plays[name] = self.act

    async def act(self, ctx: StepContext) -> StepResult:
        rows = self.witness.run(job_store.steps_of, ctx.job_id)
        if any(row.name == ctx.step and row.state is StepState.DONE for row in rows):
            self.wrong.append(f"{ctx.step} of {ctx.name} was done and runs again")
        self.tries[ctx.name, ctx.step] += 1
        await asyncio.sleep(self.random.choice([0, 0, 0.002]))
        trouble = self.random.random() if self.tries[ctx.name, ctx.step] < 4 else 1.0
        if trouble < 0.1:
            raise TransientError("busy")
        if trouble < 0.2 and ctx.step == "left":
            raise TargetError("down")
        if trouble < 0.25:
            return Wait(reason="an answer", seconds=0.002)
        return Done()


async def daemon(harness: Harness) -> None:
    """Compare store and stations after trouble, and scan the inbox, as the daemon does."""
    trouble = asyncio.Event()
    harness.dispatch.on_trouble = trouble.set
    while True:
        harness.offer()
        await asyncio.sleep(0.003)
        if not trouble.is_set():
            continue
        trouble.clear()
        try:
            if await reconcile(harness.engine, harness.claimer, harness.dispatch.running):
                harness.dispatch.wake()
        except StoreError:
            trouble.set()


async def one(root: Path, seed: int, store: Store, witness: Store) -> None:
    random = Random(seed)
    harness = Harness(root, CONFIG, store=store)
    outage, play = Outage(store, random), Play(harness, random, witness)
    names = [f"f{n}" for n in range(random.randint(1, 6))]
    for name in names:
        harness.arrive(name)
    running = asyncio.create_task(daemon(harness))
    async with harness.running():
        for _ in range(random.randint(1, 4)):
            await asyncio.sleep(random.random() * 0.02)
            outage.begin(random.choice([1, 2, 5, 10_000]), reads_too=random.random() < 0.5)
            await asyncio.sleep(random.uniform(0.002, 0.12))  # 1 to 60 s
            outage.end()
        try:
            await harness.until(lambda: over(witness, names), 30)
        except TimeoutError:
            left = [(j.name, j.state, j.station, j.reason, j.target) for j in jobs(witness)]
            pytest.fail(f"seed {seed}: not every job has ended: {left}, {harness.targets.rows()}")
        await harness.until(lambda: not harness.dispatch.running)
    running.cancel()
    assert play.wrong == [], f"seed {seed}"
    for name in names:
        assert [j.state for j in jobs(witness) if j.name == name] == [JobState.DONE], f"seed {seed}"
        assert harness.where(name) == ["done"], f"seed {seed}"


def jobs(witness: Store) -> list[Job]:
    return witness.run(listing, limit=1000)


def over(witness: Store, names: list[str]) -> bool:
    ended = [job for job in jobs(witness) if job.station is not Station.PROCESSING and job.finished_at]
    return {job.name for job in ended} == set(names)


@pytest.mark.parametrize("seed", budget(range(SEEDS), 0, 1, 2))
async def test_whenever_sqlite_fails_every_job_ends_and_no_step_is_done_twice(
    tmp_path: Path, seed: int
) -> None:
    """A full disk, a disk's error, a lock that somebody else holds: at any statement and any commit."""
    Stations(tmp_path).prepare()
    url = sqlite_url(tmp_path / "state")
    store, witness = Store.open(url), Store.open(url, check=False)
    await one(tmp_path, seed, store, witness)
    store.close()
    witness.close()


@pytest.fixture(scope="module")
def server() -> Iterator[sa.URL]:
    with postgres() as url:
        yield url


async def test_whenever_postgresql_fails_every_job_ends_and_no_step_is_done_twice(
    tmp_path: Path, server: sa.URL
) -> None:
    """Its connection is lost; a commit whose answer did not come may have been made."""
    witness = Store.open(server)
    for seed in range(1000, 1000 + max(SEEDS // 2, 1)):
        with witness.engine.begin() as connection:
            for table in ("events", "steps", "jobs", "targets", "requests", "outbox"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        store = Store.open(server)
        await one(tmp_path / str(seed), seed, store, witness)
        store.close()
    witness.close()


async def test_jobs_that_a_full_disk_has_put_off_go_on_when_there_is_room(tmp_path: Path) -> None:
    """Nobody else ends meanwhile, nobody asks: the end of the back-off alone must have them looked for."""
    harness = Harness(tmp_path, CONFIG)
    outage, go = Outage(harness.store, Random(1)), asyncio.Event()

    async def wait_for_it(ctx: StepContext) -> StepResult:
        await go.wait()
        return Done()

    harness.worker.plays["first"] = wait_for_it
    for name in ("a", "b", "c"):
        harness.arrive(name)
    async with harness.running():
        await harness.until(lambda: len(harness.worker.ran) == 3)
        outage.begin(1000, reads_too=False)
        go.set()
        await harness.until(lambda: len(harness.worker.ran) == 3 and not harness.dispatch.running)
        outage.end()
        for name in ("a", "b", "c"):
            assert (await harness.until_over(name)).state is JobState.DONE
    harness.store.close()
