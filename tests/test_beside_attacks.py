"""Steps in parallel when several things go wrong at once: nothing is forgotten, nothing left running."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.contract.worker import Done, StepContext, StepResult, Wait
from dittohead.engine import live_status
from dittohead.model.errors import ItemError, TargetError, TransientError
from dittohead.model.records import Output
from dittohead.model.states import JobState, StepState
from tests.support.harness import CONFIG, Harness
from tests.test_beside import DIAMOND, LookingWorker, gate, looking, state, states

BOTH_THERE = DIAMOND.replace("name: left, after: [begin]", "name: left, after: [begin], target: there")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def harness(root: Path) -> Iterator[Harness]:
    made = Harness(root, DIAMOND)
    yield made
    made.store.close()


@pytest.fixture
def both(root: Path) -> Iterator[Harness]:
    made = Harness(root, BOTH_THERE)
    yield made
    made.store.close()


async def down(ctx: StepContext) -> StepResult:
    raise TargetError("the host is down")


async def wait(ctx: StepContext) -> StepResult:
    return Wait(reason="an answer", seconds=3600)


async def test_a_target_that_one_branch_finds_down_and_the_other_up_forgets_no_job(both: Harness) -> None:
    """Left pauses it; right, under way, succeeds there: the job is not left waiting for what is up."""
    reached, go = gate(both, "right")
    tries = []

    async def once(ctx: StepContext) -> StepResult:
        tries.append(1)
        if len(tries) == 1:
            await reached.wait()
            raise TargetError("the host is down")
        return Done()

    both.worker.plays["left"] = once
    both.arrive("x")
    async with both.running():
        await both.until(lambda: both.targets.paused("there") is not None)
        await both.until(lambda: states(both)["left"] is StepState.WAITING)
        go.set()
        assert (await both.until_over("x")).state is JobState.DONE


async def test_a_probe_whose_job_is_cancelled_before_it_runs_is_not_waited_for(root: Path) -> None:
    """There is one place, and it is taken: the next of those that wait for the target probes it."""
    harness = Harness(
        root,
        """
        root: .
        limits: {jobs: 2, script: 4}
        space: {floor: 0}
        pipelines:
          there: {match: "[ab]", steps: [script: {name: send, target: t}]}
          busy: {match: "c", steps: [script: {name: work}]}
        """,
    )
    met = asyncio.Barrier(2)

    async def down_for_both(ctx: StepContext) -> StepResult:
        await met.wait()
        return await down(ctx)

    harness.worker.plays["send"] = down_for_both
    for name in ("a", "b"):
        harness.arrive(name)
    async with harness.running():
        await harness.until(
            lambda: all(harness.jobs(n) and state_of(harness, n) is JobState.PAUSED for n in "ab")
        )
        reached, go = gate(harness, "work")
        del harness.worker.plays["send"]
        harness.dispatch.limit = 1
        harness.arrive("c")
        harness.offer()
        await reached.wait()
        harness.targets.sooner(3600)
        await harness.dispatch._read_ready()  # chooses a; all places are taken
        await harness.ask("cancel", "a")
        go.set()
        assert (await harness.until_over("b")).state is JobState.DONE
    harness.store.close()


def state_of(harness: Harness, name: str) -> JobState:
    return harness.job(name).state


async def test_a_stop_while_a_failed_step_waits_for_its_sibling_leaves_nothing_running(
    harness: Harness,
) -> None:
    """Anyone who takes long to end is waited for, however often the run is told to end."""
    reached, ending, go = asyncio.Event(), asyncio.Event(), asyncio.Event()
    ended = []

    async def slow(ctx: StepContext) -> StepResult:
        try:
            reached.set()
            await asyncio.Event().wait()
        finally:
            ending.set()
            while not go.is_set():
                try:
                    await go.wait()
                except asyncio.CancelledError:
                    continue
            ended.append(ctx.step)
        return Done()

    async def fail(ctx: StepContext) -> StepResult:
        await reached.wait()
        raise ItemError("no")

    harness.worker.plays |= {"right": slow, "left": fail}
    harness.arrive("x")
    async with harness.running():
        await ending.wait()
        frozen = asyncio.create_task(harness.ask("freeze", "x"))
        await harness.until(lambda: bool(harness.dispatch._halted))
        for _ in range(3):  # whatever the run wanted to write would be written by now
            await harness.store.write(lambda connection: None)
        assert harness.job("x").state is JobState.RUNNING
        go.set()
        await frozen
        assert ended == ["right"]
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("step:")]


async def test_a_target_that_is_down_is_told_once_however_long_a_sibling_waits(harness: Harness) -> None:
    """Its jobs probe it, also those that wait for something else besides."""
    harness.worker.plays |= {"right": down, "left": wait}
    harness.arrive("x")
    async with harness.running():
        await harness.until(lambda: state(harness) is JobState.WAITING)
        for _ in range(2):
            tried = harness.worker.ran.count(("x", "right"))
            harness.targets.sooner(3600)  # a probe is due
            harness.dispatch.wake()
            await harness.until(lambda n=tried: harness.worker.ran.count(("x", "right")) > n)
            await harness.until(lambda: not harness.dispatch.running)
        assert [event for event, _ in harness.told] == ["paused"]
        assert harness.worker.ran.count(("x", "left")) == 1
        del harness.worker.plays["right"]
        harness.targets.sooner(3600)
        harness.dispatch.wake()
        await harness.until(
            lambda: states(harness)["right"] is StepState.DONE and not harness.dispatch.running
        )
        assert [event for event, _ in harness.told] == ["paused", "resumed"]


async def test_two_targets_that_are_down_are_probed_each_for_itself(root: Path) -> None:
    """The one that is back is used; the other stays paused."""
    harness = Harness(
        root, DIAMOND.replace("name: left, after: [begin]", "name: left, after: [begin], target: here")
    )
    harness.worker.plays |= {"left": down, "right": down}
    harness.arrive("x")
    async with harness.running():
        await harness.until(lambda: state(harness) is JobState.PAUSED)
        del harness.worker.plays["right"]
        harness.targets.sooner(3600)
        harness.dispatch.wake()
        await harness.until(
            lambda: states(harness)["right"] is StepState.DONE and not harness.dispatch.running
        )
        assert harness.targets.paused("there") is None
        assert harness.targets.paused("here") is not None
        del harness.worker.plays["left"]
        harness.targets.sooner(3600)
        harness.dispatch.wake()
        assert (await harness.until_over("x")).state is JobState.DONE
    harness.store.close()


async def test_a_passing_fault_is_tried_again_while_the_sibling_runs(harness: Harness) -> None:
    """A connection that breaks for a moment does not wait for hours of another step's work."""
    reached, go = gate(harness, "right")
    tries = []

    async def shaky(ctx: StepContext) -> StepResult:
        await reached.wait()
        tries.append(ctx.attempt)
        if len(tries) < 3:
            raise TransientError("busy")
        return Done()

    harness.worker.plays["left"] = shaky
    harness.arrive("x")
    async with harness.running():
        await reached.wait()
        await harness.until(lambda: states(harness).get("left") is StepState.DONE)
        assert tries == [1, 2, 3]
        go.set()
        assert (await harness.until_over("x")).state is JobState.DONE


async def test_what_waits_for_lost_outputs_is_done_again_after_an_interruption_too(root: Path) -> None:
    """The loss is noted before anything is made again: mid rests on files that are no more."""
    text = CONFIG.replace("name: third", "name: third, from: second")
    text = text.replace("name: second", "name: second, from: first")
    harness = Harness(root, text)

    async def make(ctx: StepContext) -> StepResult:
        (ctx.work / "f").write_bytes(b"1")
        ctx.output(Output(path=b"f", size=1, sha256="0" * 64))
        return Done()

    harness.worker.plays |= {"first": make, "second": make}
    reached, _ = gate(harness, "third")
    harness.arrive("x")
    async with harness.running():
        await reached.wait()
    shutil.rmtree(harness.stations.work / harness.job("x").id / "first")
    harness.store.close()
    harness = Harness(root, text)
    tries = []

    async def shaky(ctx: StepContext) -> StepResult:
        tries.append(1)
        if len(tries) == 1:
            raise TransientError("busy")
        return await make(ctx)

    harness.worker.plays |= {"first": shaky, "second": make}
    async with harness.running():
        assert (await harness.until_over("x")).state is JobState.DONE
    assert [step for _, step in harness.worker.ran] == ["first", "first", "second", "third"]
    harness.store.close()


async def test_a_stop_fails_no_job_that_waits_for_its_turn(root: Path) -> None:
    """One slot, several jobs: the stop interrupts who has it and who waits for it."""
    harness = Harness(root, CONFIG.replace("script: 4", "script: 1"))
    reached, _ = gate(harness, "second")
    for name in ("a", "b", "c"):
        harness.arrive(name)
    async with harness.running():
        await reached.wait()
        await harness.until(lambda: len(harness.dispatch.running) == 3)
        await harness.until(
            lambda: len(harness.engine.limits["script"]._queues.get(harness.job("a").uid, ())) == 2
        )
    assert {harness.job(n).state for n in "abc"} == {JobState.WAITING}
    harness.store.close()


async def test_what_was_found_out_is_found_out_again_when_it_is_lost(root: Path) -> None:
    """Work is gone, the step that described is done: the others are not told that nothing is known."""

    class Describing(LookingWorker):
        name = "describing"
        describes = True

    text = DIAMOND.replace("script: {name: begin}", "describing: {name: begin}")
    found = {"described": {"objects": [{"description": {"identifier": "i", "title": "Letters"}}]}}
    titles = []

    async def read(ctx: StepContext) -> StepResult:
        titles.append(ctx.described().objects[0].description.title)
        return Done()

    harness = Harness(root, text, workers=[describing := Describing()])
    describing.has_preflight["begin"] = lambda ctx: found
    reached, _ = gate(harness, "end")
    harness.arrive("x")
    async with harness.running():
        await reached.wait()
        home = harness.stations.work / harness.job("x").id
    shutil.rmtree(home)
    harness.store.close()
    harness = Harness(root, text, workers=[describing := Describing()])
    describing.has_preflight["begin"] = lambda ctx: found
    harness.worker.plays["end"] = read
    async with harness.running():
        assert (await harness.until_over("x")).state is JobState.DONE
    assert (titles, describing.ran) == (["Letters"], [])
    harness.store.close()


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"[]"])
async def test_facts_that_cannot_be_read_are_looked_for_again(harness: Harness, damage: bytes) -> None:
    """A disk's damage is not a reason for the folder to fail forever."""
    looking(harness)
    reached, _ = gate(harness, "left")
    harness.arrive("x")
    async with harness.running():
        await reached.wait()
        home = harness.stations.work / harness.job("x").id
    (home / "end.facts.json").write_bytes(damage)
    again = Harness(harness.root, DIAMOND)
    worker = looking(again)
    found = {}

    async def read(ctx: StepContext) -> StepResult:
        found.update(ctx.facts("end"))
        return Done()

    worker.plays["end"] = read
    async with again.running():
        assert (await again.until_over("x")).state is JobState.DONE
    assert (worker.looked, found) == (["end"], {"seen": "end"})
    again.store.close()


async def test_progress_is_told_of_what_goes_on_and_of_nothing_else(harness: Harness) -> None:
    """Not of the manifest while steps run, nor of a step that was put off."""
    told = live_status.Live(harness.root / "live.json")
    engine = harness.engine
    engine.report, engine.step_over, engine.clear_report = told.report, told.step_over, told.clear

    async def ask(ctx: StepContext) -> StepResult:
        ctx.progress(1, 2, "files")
        raise TransientError("busy", retry_after_s=3600)

    async def show(ctx: StepContext) -> StepResult:
        await harness.until(lambda: states(harness)["left"] is StepState.WAITING)
        ctx.progress(1, 2, "files")
        seen.update(told.snapshot()["progress"][ctx.job_id])
        return Done()

    seen: dict[str, object] = {}
    harness.worker.plays |= {"left": ask, "right": show}
    harness.arrive("x")
    async with harness.running():
        await harness.until(lambda: state(harness) is JobState.WAITING)
    assert (seen["step"], "beside" in seen) == ("right", False)


async def test_a_step_that_swallows_its_cancellation_ends_the_run_when_it_ends(root: Path) -> None:
    """It is done, and recorded; but the next one does not begin, and the freeze is not waited for in vain."""
    harness = Harness(root, CONFIG)
    reached = asyncio.Event()

    async def swallow(ctx: StepContext) -> StepResult:
        reached.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return Done()

    harness.worker.plays["first"] = swallow
    gate(harness, "second")
    harness.arrive("x")
    async with harness.running():
        await reached.wait()
        async with asyncio.timeout(20):
            await harness.ask("freeze", "x")
        assert harness.job("x").state is JobState.FROZEN
        assert [step for _, step in harness.worker.ran] == ["first"]
        assert states(harness)["first"] is StepState.DONE
    harness.store.close()
