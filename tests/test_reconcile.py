"""Store and stations are brought together, and never mend what is only half done."""

from __future__ import annotations

import asyncio

from dittohead.model import JobState, Station
from dittohead.reconcile import reconcile
from tests.support.house import House
from tests.support.trees import tree


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
    from dittohead.store import jobs as job_store

    await house.store.write(job_store.moved, house.job("x").id, Station.PROCESSING, b"x")
    assert await reconcile(house.engine, house.claimer, ()) == 1
    assert house.where("x") == ["done"]
    assert len(house.jobs()) == 1


async def test_a_reopened_job_whose_folder_was_not_fetched_is_fetched(house: House) -> None:
    """Killed between the commit of a retry and the rename."""
    house.arrive("!x")
    async with house.running():
        job = await house.until_over("!x")
    from dittohead.store import jobs as job_store

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
