"""Who is charged with the deaths of the daemon: the guilty is frozen, those who were there are not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from dittohead.contract.worker import Done, Options, StepContext, StepResult, Worker
from dittohead.engine import suspects
from dittohead.engine.reconcile import reconcile
from dittohead.model.records import Job
from dittohead.model.states import JobState, Station
from dittohead.store import jobs as job_store
from tests.support.harness import Harness
from tests.support.length import budget

CONFIG = """
root: .
limits: {jobs: 4, script: 8}
space: {floor: 0}
pipelines:
  p:
    match: ".*"
    steps:
      - script: {name: begin}
      - script: {name: work}
"""

#: More than any guilty one needs, with everybody else in between.
MOST_DEATHS = 60


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "_FIRST_S", 0.03)


class Lives:
    """A daemon that dies whenever a guilty job comes to its deed, or is killed; and starts again."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, config: str = CONFIG) -> None:
        self.root, self.config, self.patch = root, config, patch
        self.guilty: Callable[[str], bool] = lambda name: False
        self.takes_s: Callable[[str], float] = lambda name: 0.001
        self.deaths = 0
        self.together = 0  #: most jobs at work at one time, in any life
        self.extra: list[Worker[Options]] = []
        self.kill_after_s: float | None = None

    def harness(self) -> Harness:
        return Harness(self.root, self.config, workers=self.extra)

    async def live(self) -> bool:
        """Live until a death, or until nothing is left to be done; return whether it has died."""
        harness, died = self.harness(), asyncio.Event()
        at_work: set[str] = set()

        async def work(ctx: StepContext) -> StepResult:
            at_work.add(ctx.name)
            self.together = max(self.together, len(at_work))
            try:
                await asyncio.sleep(self.takes_s(ctx.name))
                if self.guilty(ctx.name):
                    died.set()
                    await asyncio.Event().wait()
            finally:
                at_work.discard(ctx.name)
            return Done()

        harness.worker.plays["work"] = work
        await harness.dispatch.take_over()  # as at each start
        await reconcile(harness.engine, harness.claimer, ())
        with self.patch.context() as patch:
            async with harness.running():
                ends = harness.until(lambda: died.is_set() or self._quiet(harness), 60)
                if self.kill_after_s is None:
                    await ends
                else:
                    try:
                        await asyncio.wait_for(ends, self.kill_after_s)
                    except TimeoutError:
                        died.set()
                if died.is_set():  # nothing is put in order any more
                    patch.setattr(job_store, "interrupt", lambda *args: None)
        harness.store.close()
        self.deaths += died.is_set()
        return died.is_set()

    def _quiet(self, harness: Harness) -> bool:
        frozen = [job for job in harness.jobs() if job.state is JobState.FROZEN]
        left = harness.stations.listing(Station.PROCESSING)  # before its row is there, a folder is
        return not harness.stations.scan().arrivals and len(left) == len(frozen)

    async def to_the_end(self) -> dict[str, Job]:
        while await self.live():
            assert self.deaths < MOST_DEATHS
        harness = self.harness()
        jobs = {job.name: job for job in harness.jobs()}
        harness.store.close()
        return jobs


def arrive(root: Path, *names: str) -> None:
    harness = Harness(root, CONFIG)
    for name in names:
        harness.arrive(name)
    harness.store.close()


async def test_the_job_that_kills_is_frozen_and_those_beside_it_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though they were in a step at each of the first deaths, and never came to its end."""
    lives = Lives(tmp_path, monkeypatch)
    lives.guilty = lambda name: name == "b"
    lives.takes_s = lambda name: 0.01 if name == "b" else 0.08
    arrive(tmp_path, "a", "b", "c", "d")
    jobs = await lives.to_the_end()
    assert {name: job.state for name, job in jobs.items()} == {
        "a": JobState.DONE, "b": JobState.FROZEN, "c": JobState.DONE, "d": JobState.DONE,
    }  # fmt: skip
    assert lives.deaths == 5
    assert "died 5 times during step work" in jobs["b"].reason


async def test_a_job_alone_is_frozen_after_five_deaths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ever; thawed, it may be tried as often again."""
    lives = Lives(tmp_path, monkeypatch)
    lives.guilty = lambda name: True
    arrive(tmp_path, "a")
    assert (await lives.to_the_end())["a"].state is JobState.FROZEN
    assert lives.deaths == 5


@pytest.mark.parametrize("seed", budget(range(4), 0, 1))
async def test_any_number_of_guilty_jobs_are_frozen_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Quick and slow ones, which come at any time; what comes later is done beside them."""
    random = Random(seed)
    lives = Lives(tmp_path, monkeypatch)
    names = [f"f{n}" for n in range(8)]
    guilty = set(random.sample(names, random.randint(1, 3)))
    takes = {name: random.choice([0.001, 0.01, 0.05]) for name in names}
    lives.guilty, lives.takes_s = guilty.__contains__, takes.__getitem__
    later = random.sample(names, 4)
    arrive(tmp_path, *(name for name in names if name not in later))
    while later:
        await lives.live()
        arrive(tmp_path, later.pop())
    jobs = await lives.to_the_end()
    frozen = {name for name, job in jobs.items() if job.state is JobState.FROZEN}
    assert frozen == guilty, f"seed {seed}"
    assert lives.deaths <= 5 * len(guilty), f"seed {seed}"


@pytest.mark.parametrize("seed", budget(range(2), 0))
async def test_somebody_who_kills_the_daemon_again_and_again_has_no_job_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """It cannot be told from a crash; but it comes as well when a suspect is kept waiting."""
    random = Random(seed)
    lives = Lives(tmp_path, monkeypatch)
    lives.takes_s = lambda name: 0.03
    arrive(tmp_path, *(f"f{n}" for n in range(8)))
    monkeypatch.setattr(suspects, "_FIRST_S", 3600.0)  # it comes again before a suspect is tried
    for _ in range(15):
        lives.kill_after_s = random.uniform(0.005, 0.03)
        await lives.live()
    monkeypatch.setattr(suspects, "_FIRST_S", 0.03)
    lives.kill_after_s = None
    jobs = await lives.to_the_end()
    assert {job.state for job in jobs.values()} == {JobState.DONE}, f"seed {seed}"


class Looking(Worker[Options]):
    """Takes the daemon down in its look ahead."""

    name = "looking"
    Options = Options

    def __init__(self, died: Callable[[], None]) -> None:
        self._died = died

    async def preflight(self, ctx: StepContext, options: Options) -> dict[str, object]:
        if ctx.name == "bad":
            self._died()
            await asyncio.Event().wait()
        return {}

    async def run(self, ctx: StepContext, options: Options) -> StepResult:
        return Done()


async def test_a_job_that_kills_in_its_preflight_is_frozen_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in no step, and was never charged."""
    lives = Lives(tmp_path, monkeypatch, CONFIG.replace("script: {name: begin}", "looking: {name: begin}"))
    died = asyncio.Event()
    lives.extra = [Looking(died.set)]
    harness = lives.harness()
    for name in ("bad", "good"):
        harness.arrive(name)
    harness.store.close()
    for _ in range(5):
        died.clear()
        harness = lives.harness()
        with monkeypatch.context() as patch:
            async with harness.running():
                await asyncio.wait_for(died.wait(), 20)
                patch.setattr(job_store, "interrupt", lambda *args: None)
        harness.store.close()
    jobs = await lives.to_the_end()
    assert jobs["bad"].state is JobState.FROZEN
    assert "during step begin" in jobs["bad"].reason
    assert jobs["good"].state is JobState.DONE


async def test_suspects_run_one_at_a_time_and_what_is_new_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three deaths with all of them in a step; then one after the other, and nobody else waits for that."""
    lives = Lives(tmp_path, monkeypatch)
    lives.takes_s = lambda name: 60.0
    arrive(tmp_path, "a", "b", "c")
    for _ in range(3):
        harness = lives.harness()
        with monkeypatch.context() as patch:
            met = asyncio.Barrier(4)

            async def work(ctx: StepContext, met: asyncio.Barrier = met) -> StepResult:
                await met.wait()
                await asyncio.Event().wait()
                return Done()

            harness.worker.plays["work"] = work
            async with harness.running():
                await asyncio.wait_for(met.wait(), 20)
                patch.setattr(job_store, "interrupt", lambda *args: None)
        harness.store.close()
    arrive(tmp_path, "new")
    harness, go, seen = lives.harness(), asyncio.Event(), []

    async def one(ctx: StepContext) -> StepResult:
        seen.append(ctx.name)
        if ctx.name != "new":
            await go.wait()
        return Done()

    harness.worker.plays["work"] = one
    async with harness.running():
        await harness.until_over("new")
        await harness.until(lambda: len(seen) == 2)
        for _ in range(5):
            harness.dispatch.wake()
            await harness.store.write(lambda connection: None)
        assert len(seen) == 2
        go.set()
        for name in ("a", "b", "c"):
            assert (await harness.until_over(name)).state is JobState.DONE
    harness.store.close()
