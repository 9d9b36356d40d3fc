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
from tests.support.harness import Harness
from tests.support.trees import tree


async def fail(ctx: StepContext) -> StepResult:
    raise ItemError("no")


async def test_a_claim_under_way_is_not_adopted_as_well(harness: Harness) -> None:
    """Between the rename and the commit of its row a folder looks like one without a job."""
    harness.arrive("x")
    (arrival,) = harness.stations.scan().arrivals
    reached, go = asyncio.Event(), asyncio.Event()
    adopt = harness.claimer.adopt

    async def slowly(found: object) -> object:
        reached.set()
        await go.wait()
        return await adopt(arrival)

    harness.claimer.adopt = slowly  # type: ignore[assignment,method-assign]
    claiming = asyncio.create_task(harness.claimer.claim(arrival))
    await reached.wait()
    assert harness.where("x") == ["processing"]
    assert await reconcile(harness.engine, harness.claimer, ()) == 0
    go.set()
    await claiming
    assert len(harness.jobs()) == 1


async def test_a_finished_row_whose_folder_has_not_moved_is_moved(harness: Harness) -> None:
    """Killed between the last commit and the rename."""
    harness.arrive("x")
    async with harness.running():
        await harness.until_over("x")
    harness.stations.folder(Station.DONE, b"x").rename(harness.stations.folder(Station.PROCESSING, b"x"))
    await harness.store.write(job_store.moved, harness.job("x").id, Station.PROCESSING, b"x")
    assert await reconcile(harness.engine, harness.claimer, ()) == 1
    assert harness.where("x") == ["done"]
    assert len(harness.jobs()) == 1


async def test_a_reopened_job_whose_folder_was_not_fetched_is_fetched(harness: Harness) -> None:
    """Killed between the commit of a retry and the rename."""
    harness.arrive("!x")
    async with harness.running():
        job = await harness.until_over("!x")
    await harness.store.write(job_store.reopen, job.id, range(9))
    assert await reconcile(harness.engine, harness.claimer, ()) == 1
    assert harness.where("!x") == ["processing"]
    assert harness.job("!x").state is JobState.WAITING


async def test_a_folder_put_into_processing_by_hand_is_adopted(harness: Harness) -> None:
    """Whatever lies there has a job."""
    tree(harness.stations.folder(Station.PROCESSING, b"y"), {"a": "1"})
    assert await reconcile(harness.engine, harness.claimer, ()) == 1
    async with harness.running():
        assert (await harness.until_over("y")).state is JobState.DONE


@pytest.mark.parametrize("missing", [Station.DONE, Station.FAILED])
async def test_a_job_that_is_over_is_not_run_again_because_its_station_is_missing(
    harness: Harness, missing: Station
) -> None:
    """Its folder stays in processing/, as its job's; it moves when the station is back."""
    if missing is Station.FAILED:
        harness.worker.plays["second"] = fail
    harness.stations.path(missing).rename(harness.root / "away")
    harness.arrive("x")
    async with harness.running():
        await harness.until(lambda: bool(harness.jobs("x")) and harness.job("x").finished_at is not None)
    ran = list(harness.worker.ran)
    for _ in range(3):
        assert await reconcile(harness.engine, harness.claimer, ()) == 0
    assert harness.where("x") == ["processing"]
    assert harness.job("x").station is Station.PROCESSING
    harness.arrive("x")
    (arrival,) = harness.stations.scan().arrivals
    held = await harness.claimer.claim(arrival)
    assert f"{missing.value}/ is missing" in held.reason  # type: ignore[union-attr]
    (harness.root / "away").rename(harness.stations.path(missing))
    assert await reconcile(harness.engine, harness.claimer, ()) == 1
    assert harness.where("x") == ["inbox", missing.value]
    assert harness.worker.ran == ran
    assert len(harness.jobs()) == 1


async def test_a_folder_that_got_a_suffix_in_the_moment_of_a_crash_is_found_by_its_inode(
    harness: Harness,
) -> None:
    """Killed between the rename and the row: else the row means the older folder of the name."""
    for _ in range(2):
        harness.arrive("x")
        async with harness.running():
            await harness.until(lambda: harness.where("x") == ["done"])
            job = await harness.until_over("x")
    assert job.folder != b"x"
    await harness.store.write(job_store.moved, job.id, Station.PROCESSING, b"x")
    await reconcile(harness.engine, harness.claimer, ())
    assert harness.job("x").folder == job.folder


@pytest.mark.parametrize("what", ["symlink", "file", "fifo"])
async def test_what_is_no_folder_in_processing_does_not_hold_its_name(harness: Harness, what: str) -> None:
    """It is nobody's job, and would block the name forever."""
    stray = harness.stations.folder(Station.PROCESSING, b"x")
    {"symlink": lambda: stray.symlink_to("/etc"), "file": stray.touch, "fifo": lambda: os.mkfifo(stray)}[
        what
    ]()
    harness.arrive("x")
    (arrival,) = harness.stations.scan().arrivals
    held = await harness.claimer.claim(arrival)
    assert "moved to failed/" in held.reason  # type: ignore[union-attr]
    assert await reconcile(harness.engine, harness.claimer, ()) == 1
    assert harness.where("x") == ["inbox", "failed"]
    assert "belonged to no job" in harness.stations.reason_path(b"x").read_text()
    async with harness.running():
        assert (await harness.until_over("x")).state is JobState.DONE


async def test_a_folder_taken_out_of_processing_while_it_runs_is_said_to_be(harness: Harness) -> None:
    """Not that a worker had failed in an unforeseen way."""

    async def moved(ctx: StepContext) -> StepResult:
        await asyncio.to_thread(ctx.payload.rename, harness.root / "away")
        return Done(detail=(ctx.payload / "a.txt").read_text())

    harness.worker.plays["second"] = moved
    harness.arrive("x")
    async with harness.running():
        job = await harness.until_over("x")
    assert "moved out of processing/ by hand" in job.reason
    assert "unforeseen" not in job.reason


@pytest.mark.parametrize("missing", ["receipts", "work", "processing", "root"])
async def test_what_is_missing_under_a_running_job_makes_it_wait(harness: Harness, missing: str) -> None:
    """No fault of its folder: it goes on when the directory is back."""
    gone = harness.root if missing == "root" else harness.root / missing
    away = harness.root.parent / "away"

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

    harness.worker.plays = {"second": make, "third": move}
    harness.arrive("x")
    async with harness.running():
        await harness.until(lambda: bool(harness.targets.rows()))
        assert (
            "missing" in harness.targets.rows()[0].reason or "not there" in harness.targets.rows()[0].reason
        )
        away.rename(gone)
        harness.worker.plays.pop("third")
        await harness.targets.lift(harness.targets.rows()[0].name)
        job = await harness.until_over("x")
    assert job.state is JobState.DONE, job.reason
    assert [step for _, step in harness.worker.ran].count("second") == 1
