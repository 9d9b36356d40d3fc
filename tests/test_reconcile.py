"""Store and stations are brought together, and never fix what is only half done."""

from __future__ import annotations

import asyncio
import os

import pytest

from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.engine.reconcile import reconcile
from dittohead.model.errors import ItemError
from dittohead.model.states import JobState, Station
from dittohead.store import jobs as job_store
from tests.support.house import House
from tests.support.trees import tree


async def fail(ctx: StepContext) -> StepResult:
    raise ItemError("no")


async def test_a_claim_under_way_is_not_adopted_as_well(house: House) -> None:
    """Between the rename and the commit of its row a folder looks like one without a job."""
    house.arrive("x")
    (arrival,) = house.stations.scan().arrivals
    reached, go = asyncio.Event(), asyncio.Event()
    adopt = house.claimer.adopt

    async def slowly(found: object) -> object:
        reached.set()
        await go.wait()
        return await adopt(arrival)

    house.claimer.adopt = slowly  # type: ignore[assignment,method-assign]
    claiming = asyncio.create_task(house.claimer.claim(arrival))
    await reached.wait()
    assert house.where("x") == ["processing"]
    assert await reconcile(house.engine, house.claimer, ()) == 0
    go.set()
    await claiming
    assert len(house.jobs()) == 1


async def test_a_finished_row_whose_folder_has_not_moved_is_moved(house: House) -> None:
    """Killed between the last commit and the rename."""
    house.arrive("x")
    async with house.running():
        await house.until_over("x")
    house.stations.folder(Station.DONE, b"x").rename(house.stations.folder(Station.PROCESSING, b"x"))
    await house.store.write(job_store.moved, house.job("x").id, Station.PROCESSING, b"x")
    assert await reconcile(house.engine, house.claimer, ()) == 1
    assert house.where("x") == ["done"]
    assert len(house.jobs()) == 1


async def test_a_reopened_job_whose_folder_was_not_fetched_is_fetched(house: House) -> None:
    """Killed between the commit of a retry and the rename."""
    house.arrive("!x")
    async with house.running():
        job = await house.until_over("!x")
    await house.store.write(job_store.reopen, job.id, range(9))
    assert await reconcile(house.engine, house.claimer, ()) == 1
    assert house.where("!x") == ["processing"]
    assert house.job("!x").state is JobState.WAITING


async def test_a_folder_put_into_processing_by_hand_is_adopted(house: House) -> None:
    """Whatever lies there has a job."""
    tree(house.stations.folder(Station.PROCESSING, b"y"), {"a": "1"})
    assert await reconcile(house.engine, house.claimer, ()) == 1
    async with house.running():
        assert (await house.until_over("y")).state is JobState.DONE


@pytest.mark.parametrize("missing", [Station.DONE, Station.FAILED])
async def test_a_job_that_is_over_is_not_run_again_because_its_station_is_missing(
    house: House, missing: Station
) -> None:
    """Its folder stays in processing/, as its job's; it moves when the station is back."""
    if missing is Station.FAILED:
        house.worker.plays["second"] = fail
    house.stations.path(missing).rename(house.root / "away")
    house.arrive("x")
    async with house.running():
        await house.until(lambda: bool(house.jobs("x")) and house.job("x").finished_at is not None)
    ran = list(house.worker.ran)
    for _ in range(3):
        assert await reconcile(house.engine, house.claimer, ()) == 0
    assert house.where("x") == ["processing"]
    assert house.job("x").station is Station.PROCESSING
    house.arrive("x")
    (arrival,) = house.stations.scan().arrivals
    held = await house.claimer.claim(arrival)
    assert f"{missing.value}/ is missing" in held.reason  # type: ignore[union-attr]
    (house.root / "away").rename(house.stations.path(missing))
    assert await reconcile(house.engine, house.claimer, ()) == 1
    assert house.where("x") == ["inbox", missing.value]
    assert house.worker.ran == ran
    assert len(house.jobs()) == 1


async def test_a_folder_that_got_a_suffix_in_the_moment_of_a_crash_is_found_by_its_inode(
    house: House,
) -> None:
    """Killed between the rename and the row: else the row means the older folder of the name."""
    for _ in range(2):
        house.arrive("x")
        async with house.running():
            await house.until(lambda: house.where("x") == ["done"])
            job = await house.until_over("x")
    assert job.folder != b"x"
    await house.store.write(job_store.moved, job.id, Station.PROCESSING, b"x")
    await reconcile(house.engine, house.claimer, ())
    assert house.job("x").folder == job.folder


@pytest.mark.parametrize("what", ["symlink", "file", "fifo"])
async def test_what_is_no_folder_in_processing_does_not_hold_its_name(house: House, what: str) -> None:
    """It is nobody's job, and would block the name forever."""
    stray = house.stations.folder(Station.PROCESSING, b"x")
    {"symlink": lambda: stray.symlink_to("/etc"), "file": stray.touch, "fifo": lambda: os.mkfifo(stray)}[
        what
    ]()
    house.arrive("x")
    (arrival,) = house.stations.scan().arrivals
    held = await house.claimer.claim(arrival)
    assert "moved to failed/" in held.reason  # type: ignore[union-attr]
    assert await reconcile(house.engine, house.claimer, ()) == 1
    assert house.where("x") == ["inbox", "failed"]
    assert "belonged to no job" in house.stations.reason_path(b"x").read_text()
    async with house.running():
        assert (await house.until_over("x")).state is JobState.DONE


async def test_a_folder_taken_out_of_processing_while_it_runs_is_said_to_be(house: House) -> None:
    """Not that a worker had failed in an unforeseen way."""

    async def moved(ctx: StepContext) -> StepResult:
        await asyncio.to_thread(ctx.payload.rename, house.root / "away")
        return Done(detail=(ctx.payload / "a.txt").read_text())

    house.worker.plays["second"] = moved
    house.arrive("x")
    async with house.running():
        job = await house.until_over("x")
    assert "moved out of processing/ by hand" in job.reason
    assert "unforeseen" not in job.reason


@pytest.mark.parametrize("missing", ["receipts", "work", "processing", "root"])
async def test_what_is_missing_under_a_running_job_makes_it_wait(house: House, missing: str) -> None:
    """No fault of its folder: it goes on when the directory is back."""
    gone = house.root if missing == "root" else house.root / missing
    away = house.root.parent / "away"

    async def move(ctx: StepContext) -> StepResult:
        if not away.exists():
            await asyncio.to_thread(gone.rename, away)
        if missing != "receipts":
            (ctx.payload / "a.txt").read_text()
            (ctx.work / "made").read_text()
        return Done()

    async def make(ctx: StepContext) -> StepResult:
        (ctx.work / "made").write_text("x")
        return Done()

    house.worker.plays = {"second": make, "third": move}
    house.arrive("x")
    async with house.running():
        await house.until(lambda: bool(house.targets.rows()))
        assert "missing" in house.targets.rows()[0].reason or "not there" in house.targets.rows()[0].reason
        away.rename(gone)
        house.worker.plays.pop("third")
        await house.targets.lift(house.targets.rows()[0].name)
        job = await house.until_over("x")
    assert job.state is JobState.DONE, job.reason
    assert [step for _, step in house.worker.ran].count("second") == 1
