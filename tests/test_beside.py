"""Steps in parallel, and the look before all of them: what each may do to the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.worker import Done, StepContext, StepResult, Wait
from dittohead.model.errors import ItemError, TargetError, TransientError
from dittohead.model.records import Output
from dittohead.model.states import JobState, StepState
from tests.support.harness import Harness, ScriptOptions, ScriptWorker

DIAMOND = """
root: .
limits: {jobs: 4, script: 4}
retry: {attempts: 3, first: 1ms, most: 2ms}
space: {floor: 0}
pipelines:
  diamond:
    match: "[^!].*"
    steps:
      - script: {name: begin}
      - script: {name: left, after: [begin]}
      - script: {name: right, after: begin, target: there}
      - script: {name: end}
"""


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    made = Harness(tmp_path / "root", DIAMOND)
    yield made
    made.store.close()


def gate(
    harness: Harness, step: str, result: Callable[[], StepResult] = Done
) -> tuple[asyncio.Event, asyncio.Event]:
    """Let a step wait for an event; returns (reached, go on)."""
    reached, go = asyncio.Event(), asyncio.Event()

    async def wait(ctx: StepContext) -> StepResult:
        reached.set()
        await go.wait()
        return result()

    harness.worker.plays[step] = wait
    return reached, go


def states(harness: Harness) -> dict[str, StepState]:
    return {row.name: row.state for row in harness.steps(harness.job("x"))}


def state(harness: Harness) -> JobState | None:
    return harness.jobs("x")[0].state if harness.jobs("x") else None


async def test_independent_steps_run_at_the_same_time_and_the_last_waits_for_both(harness: Harness) -> None:
    """Both are reached before either may end."""
    (left, go_left), (right, go_right) = gate(harness, "left"), gate(harness, "right")
    harness.arrive("x")
    async with harness.running():
        await left.wait()
        await right.wait()
        assert states(harness)["end"] is StepState.PENDING
        go_left.set()
        await harness.until(lambda: states(harness)["left"] is StepState.DONE)
        assert states(harness) | {"begin": StepState.DONE} == states(harness)
        assert states(harness)["end"] is StepState.PENDING
        go_right.set()
        job = await harness.until_over("x")
    assert job.state is JobState.DONE
    ran = [step for _, step in harness.worker.ran]
    assert (ran[0], ran[-1]) == ("begin", "end")


async def test_a_failure_ends_the_job_at_once_and_a_retry_does_only_what_is_left(harness: Harness) -> None:
    """The sibling is interrupted; what was done stays done."""
    reached, _ = gate(harness, "right")

    async def fail(ctx: StepContext) -> StepResult:
        await reached.wait()
        raise ItemError("no")

    harness.worker.plays["left"] = fail
    harness.arrive("x")
    async with harness.running():
        job = await harness.until_over("x")
        assert job.state is JobState.FAILED
        assert states(harness) == {
            "begin": StepState.DONE,
            "left": StepState.FAILED,
            "right": StepState.PENDING,
            "end": StepState.PENDING,
        }
        harness.worker.plays.clear()
        harness.worker.ran.clear()
        assert (await harness.ask("retry", "x"))["message"] == "x: tried again from step left"
        await harness.until(lambda: state(harness) is JobState.DONE)
    assert sorted(step for _, step in harness.worker.ran) == ["end", "left", "right"]


async def test_what_is_done_beside_a_failure_is_not_done_again(harness: Harness) -> None:
    """Right is done before left fails: a retry leaves it alone, although it comes later."""

    async def fail(ctx: StepContext) -> StepResult:
        await harness.until(lambda: states(harness)["right"] is StepState.DONE)
        raise ItemError("no")

    harness.worker.plays["left"] = fail
    harness.arrive("x")
    async with harness.running():
        await harness.until_over("x")
        harness.worker.plays.clear()
        harness.worker.ran.clear()
        await harness.ask("retry", "x")
        await harness.until(lambda: state(harness) is JobState.DONE)
    assert [step for _, step in harness.worker.ran] == ["left", "end"]


async def test_a_step_that_waits_does_not_hold_up_the_one_beside_it(harness: Harness) -> None:
    """The job goes on with the other, and is laid aside when nothing else can be done."""
    reached, go = gate(harness, "right")

    async def wait(ctx: StepContext) -> StepResult:
        return Done() if ctx.saved else Wait(reason="an answer", seconds=3600, state={"asked": 1})

    harness.worker.plays["left"] = wait
    harness.arrive("x")
    async with harness.running():
        await reached.wait()
        await harness.until(lambda: states(harness)["left"] is StepState.WAITING)
        row = harness.steps(harness.job("x"))[1]
        assert row.saved == {"asked": 1}  # durable while the other still runs
        assert harness.job("x").state is JobState.RUNNING
        go.set()
        await harness.until(lambda: state(harness) is JobState.WAITING)
        assert harness.job("x").reason == "an answer"
        assert states(harness)["right"] is StepState.DONE
        await harness.ask("poke", "x")
        job = await harness.until_over("x")
    assert job.state is JobState.DONE


async def test_an_interruption_keeps_what_a_waiting_step_had_saved(harness: Harness) -> None:
    """A stop while its sibling runs: the answer that was asked for is not asked for twice."""
    reached, _ = gate(harness, "right")
    asked = []

    async def wait(ctx: StepContext) -> StepResult:
        if not ctx.saved:
            asked.append(ctx.step)
        return Wait(reason="an answer", seconds=3600, state={"asked": 1})

    harness.worker.plays["left"] = wait
    harness.arrive("x")
    async with harness.running():
        await reached.wait()
        await harness.until(lambda: states(harness)["left"] is StepState.WAITING)
    again = Harness(harness.root, DIAMOND)
    again.worker.plays["left"] = wait
    async with again.running():
        await again.until(lambda: again.job("x").wake_at is not None)
    assert asked == ["left"]
    assert [step for _, step in again.worker.ran] == ["right"]  # left is not due yet
    again.store.close()


async def test_a_retry_does_not_ask_twice_what_a_step_beside_the_failed_one_waits_for(
    harness: Harness,
) -> None:
    """Left has asked and waits; right fails: after a retry left goes on with what it had saved."""
    asked = []

    async def wait(ctx: StepContext) -> StepResult:
        if ctx.saved:
            return Done()
        asked.append(ctx.step)
        return Wait(reason="an answer", seconds=3600, state={"asked": 1})

    async def fail(ctx: StepContext) -> StepResult:
        await harness.until(lambda: states(harness)["left"] is StepState.WAITING)
        raise ItemError("no")

    harness.worker.plays |= {"left": wait, "right": fail}
    harness.arrive("x")
    async with harness.running():
        await harness.until_over("x")
        del harness.worker.plays["right"]
        assert (await harness.ask("retry", "x"))["message"] == "x: tried again from step right"
        await harness.until(lambda: state(harness) is JobState.DONE)
    assert asked == ["left"]


async def test_a_paused_target_and_a_wait_are_both_looked_after(harness: Harness) -> None:
    """One job, two reasons: it is woken by whichever comes first."""

    async def down(ctx: StepContext) -> StepResult:
        raise TargetError("the host is down")

    async def wait(ctx: StepContext) -> StepResult:
        return Wait(reason="an answer", seconds=3600)

    harness.worker.plays |= {"right": down, "left": wait}
    harness.arrive("x")
    async with harness.running():
        await harness.until(lambda: state(harness) is JobState.WAITING)
        job = harness.job("x")
        assert set(job.reason.split("; ")) == {"the host is down", "an answer"}
        assert job.wake_at is not None
        left = harness.steps(job)[1].wake_at
        assert left is not None
        # Each is reckoned from a clock that goes on meanwhile.
        assert abs(job.wake_at - left) < timedelta(seconds=10)
        assert job.target == ""
        assert harness.steps(job)[2].target == "there"
        assert harness.targets.paused("there") == "the host is down"
        harness.worker.plays.clear()
        await harness.targets.resume("there")
        await harness.until(
            lambda: states(harness)["right"] is StepState.DONE and state(harness) is JobState.WAITING
        )
        await harness.ask("poke", "x")
        assert (await harness.until_over("x")).state is JobState.DONE


async def test_both_transient_faults_are_counted_for_themselves(harness: Harness) -> None:
    """Each step has its own tries."""
    tries = {"left": 0, "right": 0}

    async def shaky(ctx: StepContext) -> StepResult:
        tries[ctx.step] += 1
        if tries[ctx.step] < 3:
            raise TransientError("busy")
        return Done()

    harness.worker.plays |= {"left": shaky, "right": shaky}
    harness.arrive("x")
    async with harness.running():
        job = await harness.until_over("x")
    assert job.state is JobState.DONE
    assert tries == {"left": 3, "right": 3}


async def test_run_again_from_a_step_leaves_alone_what_does_not_wait_for_it(harness: Harness) -> None:
    """Left and what comes after it; right stays as it is."""
    harness.arrive("x")
    async with harness.running():
        await harness.until_over("x")
        harness.worker.ran.clear()
        await harness.ask("rerun", "x", **{"from": "left"})
        await harness.until(lambda: len(harness.worker.ran) == 2 and harness.job("x").state is JobState.DONE)
    assert [step for _, step in harness.worker.ran] == ["left", "end"]


async def test_outputs_that_are_lost_are_made_again_with_all_that_waits_for_them(harness: Harness) -> None:
    """And nothing else."""

    async def make(ctx: StepContext) -> StepResult:
        (ctx.work / "f").write_bytes(b"1")
        ctx.output(Output(path=b"f", size=1, sha256="0" * 64))
        return Done()

    harness.worker.plays["left"] = make
    reached, _ = gate(harness, "end")
    harness.arrive("x")
    async with harness.running():
        await reached.wait()
        work = harness.stations.work / harness.job("x").id / "left"
    (work / "f").unlink()
    work.rmdir()
    again = Harness(harness.root, DIAMOND)
    again.worker.plays["left"] = make
    async with again.running():
        assert (await again.until_over("x")).state is JobState.DONE
    assert [step for _, step in again.worker.ran] == ["left", "end"]
    again.store.close()


class LookingWorker(ScriptWorker):
    """Looks before the steps, as `looks` says for a step's name."""

    def __init__(self) -> None:
        super().__init__()
        self.has_preflight: dict[str, Callable[[StepContext], Any]] = {}
        self.looked: list[str] = []

    async def preflight(self, ctx: StepContext, options: ScriptOptions) -> Mapping[str, Any]:
        self.looked.append(ctx.step)
        return self.has_preflight.get(ctx.step, lambda ctx: {"seen": ctx.step})(ctx)


def looking(harness: Harness) -> LookingWorker:
    worker = LookingWorker()
    harness.workers.add(worker)
    harness.worker = worker
    return worker


async def test_every_step_looks_before_the_first_runs(harness: Harness) -> None:
    """And finds its facts later, as do the others."""
    worker = looking(harness)
    found = {}

    async def read(ctx: StepContext) -> StepResult:
        found.update({step: dict(ctx.facts(step)) for step in ("begin", "end")})
        assert worker.looked == ["begin", "left", "right", "end"]
        return Done()

    worker.plays["begin"] = read
    harness.arrive("x")
    async with harness.running():
        assert (await harness.until_over("x")).state is JobState.DONE
    assert found == {"begin": {"seen": "begin"}, "end": {"seen": "end"}}


async def test_the_step_that_knows_what_the_folder_holds_looks_first(harness: Harness) -> None:
    """Wherever it stands: the others look with that in mind."""

    class Describing(LookingWorker):
        name = "describing"
        describes = True

    worker, describing = looking(harness), Describing()
    describing.has_preflight["end"] = lambda ctx: {
        "described": {"objects": [{"description": {"identifier": "i", "title": "Letters"}}]}
    }
    titles = []
    worker.has_preflight["begin"] = lambda ctx: (
        titles.append(ctx.described().objects[0].description.title) or {}
    )
    other = Harness(
        harness.root.parent / "other",
        DIAMOND.replace("script: {name: end}", "describing: {name: end}"),
        workers=[describing],
    )
    other.workers.add(worker)
    other.arrive("x")
    async with other.running():
        assert (await other.until_over("x")).state is JobState.DONE
    assert titles == ["Letters"]
    other.store.close()


async def test_what_the_last_step_finds_amiss_fails_the_job_before_anything_ran(harness: Harness) -> None:
    """Its reason names the step that found it; a retry looks again."""
    worker = looking(harness)

    def missing(ctx: StepContext) -> Any:
        raise ItemError("there is no such record", hint="Correct the name")

    worker.has_preflight["end"] = missing
    harness.arrive("x")
    async with harness.running():
        job = await harness.until_over("x")
        assert (job.state, worker.ran) == (JobState.FAILED, [])
        assert job.reason == "step end: there is no such record. Correct the name"
        worker.has_preflight.clear()
        worker.looked.clear()
        await harness.ask("retry", "x")
        await harness.until(lambda: state(harness) is JobState.DONE)
    assert worker.looked == ["begin", "left", "right", "end"]  # the first's facts may be out of date, too


async def test_a_look_that_cannot_be_had_now_pauses_its_target(harness: Harness) -> None:
    """Nothing runs; it is looked at again when the target is back."""
    worker = looking(harness)

    def down(ctx: StepContext) -> Any:
        raise TargetError("down")

    worker.has_preflight["right"] = down
    harness.arrive("x")
    async with harness.running():
        await harness.until(lambda: state(harness) is JobState.PAUSED)
        assert worker.ran == []
        worker.has_preflight.clear()
        await harness.targets.resume("there")
        assert (await harness.until_over("x")).state is JobState.DONE


async def test_a_look_that_failed_in_passing_is_not_counted_against_the_step(harness: Harness) -> None:
    """Its tries begin again when it runs."""
    worker = looking(harness)
    calls, tries = [], []

    def shaky(ctx: StepContext) -> Any:
        calls.append(1)
        if len(calls) < 3:
            raise TransientError("busy")
        return {}

    async def shaky_too(ctx: StepContext) -> StepResult:
        tries.append(ctx.attempt)
        if len(tries) < 3:
            raise TransientError("busy")
        return Done()

    worker.has_preflight["begin"] = shaky
    worker.plays["begin"] = shaky_too
    harness.arrive("x")
    async with harness.running():
        assert (await harness.until_over("x")).state is JobState.DONE
    assert tries == [1, 2, 3]


async def test_after_a_step_is_done_nobody_looks_again(harness: Harness) -> None:
    """What later steps were told stays true for them, whatever has changed meanwhile."""
    worker = looking(harness)
    reached, _ = gate(harness, "left")
    harness.arrive("x")
    async with harness.running():
        await reached.wait()
    again = Harness(harness.root, DIAMOND)
    worker = looking(again)
    async with again.running():
        assert (await again.until_over("x")).state is JobState.DONE
    assert worker.looked == []
    again.store.close()


async def test_a_defect_in_a_look_fails_the_job_and_nothing_else(harness: Harness) -> None:
    """As in a step."""
    worker = looking(harness)
    worker.has_preflight["left"] = lambda ctx: 1 / 0
    harness.arrive("x")
    async with harness.running():
        job = await harness.until_over("x")
    assert job.error is not None
    assert (job.state, job.error.kind, job.error.step) == (JobState.FAILED, "defect", "left")
