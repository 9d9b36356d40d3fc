"""What any dispatch must do, no matter who runs the jobs: the contract of dittohead/dispatch/."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.engine.dispatch import Dispatch
from dittohead.engine.dispatch.local import LocalDispatch
from dittohead.model.errors import StoreError
from dittohead.model.held import HeldKind
from dittohead.model.states import JobState, Station
from dittohead.store import jobs as job_store
from tests.support.harness import Harness

pytestmark = pytest.mark.usefixtures("nothing_blocks_the_loop")

Make = Callable[[Harness], Dispatch]


def local(harness: Harness) -> Dispatch:
    return LocalDispatch(harness.engine, harness.claimer, limit=2)


@pytest.fixture(params=[local])
async def dispatch(request: pytest.FixtureRequest, harness: Harness) -> Dispatch:
    """Each dispatch in turn, with room for two jobs, not yet running."""
    made: Dispatch = request.param(harness)
    harness.dispatch = made  # type: ignore[assignment]
    await harness.targets.load()
    return made


@contextlib.asynccontextmanager
async def running(dispatch: Dispatch) -> AsyncIterator[asyncio.Task[None]]:
    await dispatch.take_over()
    task = asyncio.create_task(dispatch.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Gate:
    """Steps that wait until they are let through, and tell how many of them there are at once."""

    def __init__(self, harness: Harness) -> None:
        self.open = asyncio.Event()
        self.at_once, self.most = 0, 0
        harness.worker.plays["first"] = self.play

    async def play(self, ctx: StepContext) -> StepResult:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.open.wait()
        finally:
            self.at_once -= 1
        return Done()


async def test_no_more_run_at_once_than_allowed_and_all_come_to_their_end(
    harness: Harness, dispatch: Dispatch
) -> None:
    """Also when the limit grows meanwhile."""
    gate = Gate(harness)
    for number in range(6):
        harness.arrive(f"n{number}")
    async with running(dispatch):
        harness.offer()
        await harness.until(lambda: gate.at_once == 2)
        assert len(dispatch.running) == 2
        assert not dispatch.idle.is_set()
        assert dispatch.backlog == 4
        assert dispatch.oldest is not None
        dispatch.limit = 3
        dispatch.wake()
        await harness.until(lambda: gate.at_once == 3)
        gate.open.set()
        await harness.until(lambda: len(harness.stations.listing(Station.DONE)) == 6)
        async with asyncio.timeout(20):
            await dispatch.idle.wait()
    assert gate.most == 3
    assert dispatch.running == set()


async def test_owners_have_their_turn(harness: Harness, dispatch: Dispatch) -> None:
    """Anyone who has one folder does not wait behind the hundred of another."""
    order: list[str] = []

    async def play(ctx: StepContext) -> StepResult:
        order.append(ctx.name)
        return Done()

    harness.worker.plays["first"] = play
    for number in range(30):
        harness.arrive(f"a{number:02}")
    harness.arrive("z")
    scan = harness.stations.scan()
    owned = [replace(found, uid=found.uid + (found.folder == b"z")) for found in scan.arrivals]
    dispatch.offer(owned)
    async with running(dispatch):
        await harness.until(lambda: "z" in order)
    assert order.index("z") < 5


async def test_what_is_offered_replaces_what_was(harness: Harness, dispatch: Dispatch) -> None:
    """A folder that has gone from the inbox needs no attention, and is not counted."""
    harness.arrive("x")
    harness.offer()
    assert dispatch.backlog == 1
    harness.stations.folder(Station.INBOX, b"x").rename(harness.root / "elsewhere")
    harness.offer()
    assert (dispatch.backlog, dispatch.oldest) == (0, None)
    async with running(dispatch):
        harness.arrive("y")
        harness.offer()
        await harness.until_over("y")
    assert [job.name for job in harness.jobs()] == ["y"]


async def test_what_cannot_be_taken_is_told_and_taken_when_it_can(
    harness: Harness, dispatch: Dispatch
) -> None:
    """The others go on meanwhile."""
    harness.arrive("x", {"a.part": "half"})
    harness.arrive("y")
    async with running(dispatch):
        harness.offer()
        await harness.until_over("y")
        await harness.until(lambda: b"x" in dispatch.held)
        assert dispatch.held[b"x"].kind is HeldKind.UNFINISHED
        assert dispatch.backlog == 1
        (harness.root / "inbox" / "x" / "a.part").rename(harness.root / "inbox" / "x" / "a")
        await harness.until_over("x")
    assert dispatch.held == {}


async def test_a_halted_job_runs_not_and_goes_on_afterwards(harness: Harness, dispatch: Dispatch) -> None:
    """Its run has ended when the block begins; its later run is a new one."""
    gate = Gate(harness)
    harness.arrive("x")
    async with running(dispatch):
        harness.offer()
        await harness.until(lambda: gate.at_once == 1)
        job = harness.job("x")
        async with dispatch.halted(job.id):
            assert gate.at_once == 0
            assert job.id not in dispatch.running
            harness.arrive("y")
            harness.offer()
            await harness.until(lambda: gate.at_once == 1)
            dispatch.wake()
            assert set(dispatch.running) == {harness.job("y").id}
        gate.open.set()
        over = await harness.until_over("x")
    assert over.state is JobState.DONE
    assert over.token > job.token


async def test_draining_ends_what_runs_and_begins_nothing(harness: Harness, dispatch: Dispatch) -> None:
    gate = Gate(harness)
    harness.arrive("x")
    async with running(dispatch):
        harness.offer()
        await harness.until(lambda: gate.at_once == 1)
        dispatch.draining = True
        harness.arrive("y")
        harness.offer()
        gate.open.set()
        async with asyncio.timeout(20):
            await dispatch.idle.wait()
        assert harness.job("x").state is JobState.DONE
        assert harness.where("y") == ["inbox"]


async def test_a_stop_ends_every_run_and_the_next_start_goes_on(harness: Harness, dispatch: Dispatch) -> None:
    """An interrupted job waits; nobody is charged with a death."""
    gate = Gate(harness)
    harness.arrive("x")
    async with running(dispatch):
        harness.offer()
        await harness.until(lambda: gate.at_once == 1)
    assert gate.at_once == 0
    assert dispatch.running == set()
    job = harness.job("x")
    assert job.state is JobState.WAITING
    assert [step.crashes for step in harness.steps(job)] == [0, 0, 0]
    gate.open.set()
    async with running(dispatch):
        assert (await harness.until_over("x")).state is JobState.DONE


async def test_a_death_is_charged_once(harness: Harness, dispatch: Dispatch) -> None:
    """To the step that was in flight; `take_over` may be called again."""
    harness.arrive("x")
    (arrival,) = harness.stations.scan().arrivals
    job = await harness.claimer.claim(arrival)
    if not hasattr(job, "token"):  # it is being looked at
        await harness.until(lambda: not harness.claimer.waiting_room._pending)
        job = await harness.claimer.claim(arrival)
    await harness.store.write(job_store.start_step, harness.job("x").id, 1, 0)
    await dispatch.take_over()
    await dispatch.take_over()
    assert harness.steps(harness.job("x"))[0].crashes == 1
    async with running(dispatch):
        assert (await harness.until_over("x")).state is JobState.DONE


async def test_trouble_is_told_and_ends_nothing(
    harness: Harness, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The store fails at a claim: anyone who compares store and stations is called, and jobs go on later."""
    told = asyncio.Event()
    dispatch.on_trouble = told.set
    claim, fails = harness.claimer.claim, [True]

    async def failing(arrival: object) -> object:
        if fails and fails.pop():
            raise StoreError("it went away")
        return await claim(arrival)  # type: ignore[arg-type]

    monkeypatch.setattr(harness.claimer, "claim", failing)
    monkeypatch.setattr("dittohead.engine.dispatch.local._BACK_OFF_S", 0.01)
    harness.arrive("x")
    async with running(dispatch) as task:
        harness.offer()
        async with asyncio.timeout(20):
            await told.wait()
        harness.offer()
        await harness.until_over("x")
        assert not task.done()
