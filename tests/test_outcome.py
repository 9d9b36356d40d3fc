"""A failure waits for somebody until it has ended; then it is neither counted nor shown as one."""

from __future__ import annotations

import os
import shutil

import pytest

from dittohead.engine.reconcile import reconcile
from dittohead.model.job_filter import JobFilter
from dittohead.model.states import JobState, Outcome, Station
from dittohead.store import Connection, history, numbers, queries
from dittohead.store.search import find
from tests.support.house import House


async def failed(house: House, name: str = "!x") -> None:
    """Let a folder fail: no pipeline's match fits a name with an exclamation mark."""
    house.arrive(name)
    async with house.running():
        assert (await house.until_over(name)).state is JobState.FAILED


def opened(house: House) -> list[str]:
    """Return the names of the failures that wait for somebody, by each way there is to ask."""
    return house.store.run(_opened)  # in one transaction: work may go on meanwhile


def _opened(connection: Connection) -> list[str]:
    names = [job.name for job in history.open_failures(connection, 100)]
    assert history.count_open_failures(connection) == len(names)
    assert [job.name for job in find(connection, JobFilter(open=True)).jobs] == names
    assert [job["name"] for job in queries.overview(connection)["failed"]] == names[:5]
    return names


async def test_a_failure_is_dismissed_with_who_and_why(house: House) -> None:
    """Its state and station stay; it can still be run again, and fails then as a new one."""
    await failed(house)
    assert opened(house) == ["!x"]
    said = await house.ask("dismiss", "!x", reason="scanned again")
    assert said == {"ok": True, "message": "!x: dismissed; its folder stays in failed/"}
    job = house.job("!x")
    assert (job.state, job.outcome, house.where("!x")) == (JobState.FAILED, Outcome.DISMISSED, ["failed"])
    assert opened(house) == []
    assert "already" in (await house.ask("dismiss", "!x"))["message"]
    assert (await house.ask("rerun", "!x"))["ok"]
    async with house.running():
        await house.until(lambda: opened(house) == ["!x"])


async def test_only_failures_can_be_dismissed(house: House) -> None:
    """What is done, and what is under way, has nothing to be dismissed."""
    house.arrive("x")
    async with house.running():
        await house.until_over("x")
    said = await house.ask("dismiss", "x")
    assert not said["ok"]
    assert "has not failed" in said["message"]


async def test_cancelled_is_not_failed(house: House) -> None:
    """Neither in counts nor in notices; a later end that is good is not a recovery."""
    house.arrive("x")
    assert await house.claimer.claim(house.stations.scan().arrivals[0])
    said = await house.ask("cancel", "x")
    assert said["ok"]
    job = house.job("x")
    assert (job.state, job.outcome) == (JobState.FAILED, Outcome.CANCELLED)
    assert opened(house) == []
    assert [event for event, _ in house.told] == ["cancelled"]
    assert house.store.run(numbers.days, 1)[0].failed == 0
    assert (await house.ask("rerun", "x"))["ok"]
    async with house.running():
        await house.until(lambda: house.where("x") == ["done"])
    assert [event for event, _ in house.told] == ["cancelled", "done"]


async def test_a_failed_folder_that_is_gone_waits_for_nobody(house: House) -> None:
    """Until it is back; while failed/ itself cannot be seen, nothing is concluded."""
    await failed(house)
    place = house.stations.folder(Station.FAILED, b"!x")
    station, away = house.stations.path(Station.FAILED), house.root / "away"
    os.rename(station, away)
    assert await reconcile(house.engine, house.claimer, ()) == 0
    os.rename(away, station)
    assert opened(house) == ["!x"]

    os.rename(place, house.root / "elsewhere")
    assert await reconcile(house.engine, house.claimer, ()) == 1
    assert (opened(house), house.job("!x").outcome) == ([], Outcome.GONE)
    assert await reconcile(house.engine, house.claimer, ()) == 0

    # Its inode is another where a root was copied to another disk; its name stays.
    shutil.copytree(house.root / "elsewhere", place)
    assert await reconcile(house.engine, house.claimer, ()) == 1
    assert opened(house) == ["!x"]


@pytest.mark.parametrize("how", ["renamed as advised", "uploaded again"])
async def test_a_failure_whose_folder_was_done_since_is_over(house: House, how: str) -> None:
    """By the same folder under a name that fits, or by another folder of the same name."""
    await failed(house)
    place = house.stations.folder(Station.FAILED, b"!x")
    if how == "renamed as advised":
        os.rename(place, house.stations.folder(Station.INBOX, b"x"))
        house.dispatch.offer(house.stations.scan().arrivals)
        async with house.running():
            await house.until(lambda: house.where("x") == ["done"])
    else:
        house.store.run(lambda c: c.exec_driver_sql("UPDATE jobs SET name = 'y'"))
        house.arrive("y")
        async with house.running():
            await house.until(lambda: house.where("y") == ["done"])
    assert opened(house) == []


async def test_a_dismissed_failure_that_is_retried_is_open_when_it_fails_again(house: House) -> None:
    """What was dismissed was the failure of then."""
    await failed(house)
    await house.ask("dismiss", "!x")
    house.store.run(lambda c: c.exec_driver_sql("UPDATE jobs SET definition = '{\"steps\": []}'"))
    assert (await house.ask("retry", "!x"))["ok"]
    assert house.job("!x").outcome is Outcome.NONE
