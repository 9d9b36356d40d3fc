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
from tests.support.house import House

pytestmark = pytest.mark.usefixtures("nothing_blocks_the_loop")

Make = Callable[[House], Dispatch]


def local(house: House) -> Dispatch:
    return LocalDispatch(house.engine, house.claimer, limit=2)


@pytest.fixture(params=[local])
async def dispatch(request: pytest.FixtureRequest, house: House) -> Dispatch:
    """Each dispatch in turn, with room for two jobs, not yet running."""
    made: Dispatch = request.param(house)
    house.dispatch = made  # type: ignore[assignment]
    await house.targets.load()
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

    def __init__(self, house: House) -> None:
        self.open = asyncio.Event()
        self.at_once, self.most = 0, 0
        house.worker.plays["first"] = self.play

    async def play(self, ctx: StepContext) -> StepResult:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.open.wait()
        finally:
            self.at_once -= 1
        return Done()


async def test_no_more_run_at_once_than_allowed_and_all_come_to_their_end(
    house: House, dispatch: Dispatch
) -> None:
    """Also when the limit grows meanwhile."""
    gate = Gate(house)
    for number in range(6):
        house.arrive(f"n{number}")
    async with running(dispatch):
        house.look()
        await house.until(lambda: gate.at_once == 2)
        assert len(dispatch.running) == 2
        assert not dispatch.idle.is_set()
        assert dispatch.backlog == 4
        assert dispatch.oldest is not None
        dispatch.limit = 3
        dispatch.wake()
        await house.until(lambda: gate.at_once == 3)
        gate.open.set()
        await house.until(lambda: len(house.stations.listing(Station.DONE)) == 6)
        async with asyncio.timeout(20):
            await dispatch.idle.wait()
    assert gate.most == 3
    assert dispatch.running == set()


async def test_owners_have_their_turn(house: House, dispatch: Dispatch) -> None:
    """Anyone who has one folder does not wait behind the hundred of another."""
    order: list[str] = []

    async def play(ctx: StepContext) -> StepResult:
        order.append(ctx.name)
        return Done()

    house.worker.plays["first"] = play
    for number in range(30):
        house.arrive(f"a{number:02}")
    house.arrive("z")
    scan = house.stations.scan()
    owned = [replace(found, uid=found.uid + (found.folder == b"z")) for found in scan.arrivals]
    dispatch.offer(owned)
    async with running(dispatch):
        await house.until(lambda: "z" in order)
    assert order.index("z") < 5


async def test_what_is_offered_replaces_what_was(house: House, dispatch: Dispatch) -> None:
    """A folder that has gone from the inbox needs no attention, and is not counted."""
    house.arrive("x")
    house.look()
    assert dispatch.backlog == 1
    house.stations.folder(Station.INBOX, b"x").rename(house.root / "elsewhere")
    house.look()
    assert (dispatch.backlog, dispatch.oldest) == (0, None)
    async with running(dispatch):
        house.arrive("y")
        house.look()
        await house.until_over("y")
    assert [job.name for job in house.jobs()] == ["y"]


async def test_what_cannot_be_taken_is_told_and_taken_when_it_can(house: House, dispatch: Dispatch) -> None:
    """The others go on meanwhile."""
    house.arrive("x", {"a.part": "half"})
    house.arrive("y")
    async with running(dispatch):
        house.look()
        await house.until_over("y")
        await house.until(lambda: b"x" in dispatch.held)
        assert dispatch.held[b"x"].kind is HeldKind.UNFINISHED
        assert dispatch.backlog == 1
        (house.root / "inbox" / "x" / "a.part").rename(house.root / "inbox" / "x" / "a")
        await house.until_over("x")
    assert dispatch.held == {}


async def test_a_halted_job_runs_not_and_goes_on_afterwards(house: House, dispatch: Dispatch) -> None:
    """Its run has ended when the block begins; its later run is a new one."""
    gate = Gate(house)
    house.arrive("x")
    async with running(dispatch):
        house.look()
        await house.until(lambda: gate.at_once == 1)
        job = house.job("x")
        async with dispatch.halted(job.id):
            assert gate.at_once == 0
            assert job.id not in dispatch.running
            house.arrive("y")
            house.look()
            await house.until(lambda: gate.at_once == 1)
            dispatch.wake()
            assert set(dispatch.running) == {house.job("y").id}
        gate.open.set()
        over = await house.until_over("x")
    assert over.state is JobState.DONE
    assert over.token > job.token


async def test_draining_ends_what_runs_and_begins_nothing(house: House, dispatch: Dispatch) -> None:
    gate = Gate(house)
    house.arrive("x")
    async with running(dispatch):
        house.look()
        await house.until(lambda: gate.at_once == 1)
        dispatch.draining = True
        house.arrive("y")
        house.look()
        gate.open.set()
        async with asyncio.timeout(20):
            await dispatch.idle.wait()
        assert house.job("x").state is JobState.DONE
        assert house.where("y") == ["inbox"]


async def test_a_stop_ends_every_run_and_the_next_start_goes_on(house: House, dispatch: Dispatch) -> None:
    """An interrupted job waits; nobody is charged with a death."""
    gate = Gate(house)
    house.arrive("x")
    async with running(dispatch):
        house.look()
        await house.until(lambda: gate.at_once == 1)
    assert gate.at_once == 0
    assert dispatch.running == set()
    job = house.job("x")
    assert job.state is JobState.WAITING
    assert [step.crashes for step in house.steps(job)] == [0, 0, 0]
    gate.open.set()
    async with running(dispatch):
        assert (await house.until_over("x")).state is JobState.DONE


async def test_a_death_is_charged_once(house: House, dispatch: Dispatch) -> None:
    """To the step that was in flight; `take_over` may be called again."""
    house.arrive("x")
    (arrival,) = house.stations.scan().arrivals
    job = await house.claimer.claim(arrival)
    if not hasattr(job, "token"):  # it is being looked at
        await house.until(lambda: not house.claimer.room._pending)
        job = await house.claimer.claim(arrival)
    await house.store.write(job_store.start_step, house.job("x").id, 1, 0)
    await dispatch.take_over()
    await dispatch.take_over()
    assert house.steps(house.job("x"))[0].crashes == 1
    async with running(dispatch):
        assert (await house.until_over("x")).state is JobState.DONE


async def test_trouble_is_told_and_ends_nothing(
    house: House, dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The store fails at a claim: anyone who compares store and stations is called, and jobs go on later."""
    told = asyncio.Event()
    dispatch.on_trouble = told.set
    claim, fails = house.claimer.claim, [True]

    async def failing(arrival: object) -> object:
        if fails and fails.pop():
            raise StoreError("it went away")
        return await claim(arrival)  # type: ignore[arg-type]

    monkeypatch.setattr(house.claimer, "claim", failing)
    monkeypatch.setattr("dittohead.engine.dispatch.local._BACK_OFF_S", 0.01)
    house.arrive("x")
    async with running(dispatch) as task:
        house.look()
        async with asyncio.timeout(20):
            await told.wait()
        house.look()
        await house.until_over("x")
        assert not task.done()
