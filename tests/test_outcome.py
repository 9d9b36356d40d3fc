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
from tests.support.harness import Harness


async def failed(harness: Harness, name: str = "!x") -> None:
    """Let a folder fail: no pipeline's match fits a name with an exclamation mark."""
    harness.arrive(name)
    async with harness.running():
        assert (await harness.until_over(name)).state is JobState.FAILED


def opened(harness: Harness) -> list[str]:
    """Return the names of the failures that wait for somebody, by each way there is to ask."""
    return harness.store.run(_opened)  # in one transaction: work may go on meanwhile


def _opened(connection: Connection) -> list[str]:
    names = [job.name for job in history.open_failures(connection, 100)]
    assert history.count_open_failures(connection) == len(names)
    assert [job.name for job in find(connection, JobFilter(open=True)).jobs] == names
    assert [job["name"] for job in queries.overview(connection)["failed"]] == names[:5]
    return names


async def test_a_failure_is_dismissed_with_who_and_why(harness: Harness) -> None:
    """Its state and station stay; it can still be run again, and fails then as a new one."""
    await failed(harness)
    assert opened(harness) == ["!x"]
    said = await harness.ask("dismiss", "!x", reason="scanned again")
    assert said == {"ok": True, "message": "!x: dismissed; its folder stays in failed/"}
    job = harness.job("!x")
    assert (job.state, job.outcome, harness.where("!x")) == (JobState.FAILED, Outcome.DISMISSED, ["failed"])
    assert opened(harness) == []
    assert "already" in (await harness.ask("dismiss", "!x"))["message"]
    assert (await harness.ask("rerun", "!x"))["ok"]
    async with harness.running():
        await harness.until(lambda: opened(harness) == ["!x"])


async def test_only_failures_can_be_dismissed(harness: Harness) -> None:
    """What is done, and what is under way, has nothing to be dismissed."""
    harness.arrive("x")
    async with harness.running():
        await harness.until_over("x")
    said = await harness.ask("dismiss", "x")
    assert not said["ok"]
    assert "has not failed" in said["message"]


async def test_cancelled_is_not_failed(harness: Harness) -> None:
    """Neither in counts nor in notices; a later end that is good is not a recovery."""
    harness.arrive("x")
    assert await harness.claimer.claim(harness.stations.scan().arrivals[0])
    said = await harness.ask("cancel", "x")
    assert said["ok"]
    job = harness.job("x")
    assert (job.state, job.outcome) == (JobState.FAILED, Outcome.CANCELLED)
    assert opened(harness) == []
    assert [event for event, _ in harness.told] == ["cancelled"]
    assert harness.store.run(numbers.days, 1)[0].failed == 0
    assert (await harness.ask("rerun", "x"))["ok"]
    async with harness.running():
        await harness.until(lambda: harness.where("x") == ["done"])
    assert [event for event, _ in harness.told] == ["cancelled", "done"]


async def test_a_failed_folder_that_is_gone_waits_for_nobody(harness: Harness) -> None:
    """Until it is back; while failed/ itself cannot be seen, nothing is concluded."""
    await failed(harness)
    place = harness.stations.folder(Station.FAILED, b"!x")
    station, away = harness.stations.path(Station.FAILED), harness.root / "away"
    os.rename(station, away)
    assert await reconcile(harness.engine, harness.claimer, ()) == 0
    os.rename(away, station)
    assert opened(harness) == ["!x"]

    os.rename(place, harness.root / "elsewhere")
    assert await reconcile(harness.engine, harness.claimer, ()) == 1
    assert (opened(harness), harness.job("!x").outcome) == ([], Outcome.GONE)
    assert await reconcile(harness.engine, harness.claimer, ()) == 0

    # Its inode is another where a root was copied to another disk; its name stays.
    shutil.copytree(harness.root / "elsewhere", place)
    assert await reconcile(harness.engine, harness.claimer, ()) == 1
    assert opened(harness) == ["!x"]


@pytest.mark.parametrize("how", ["renamed as advised", "uploaded again"])
async def test_a_failure_whose_folder_was_done_since_is_over(harness: Harness, how: str) -> None:
    """By the same folder under a name that fits, or by another folder of the same name."""
    await failed(harness)
    place = harness.stations.folder(Station.FAILED, b"!x")
    if how == "renamed as advised":
        os.rename(place, harness.stations.folder(Station.INBOX, b"x"))
        harness.dispatch.offer(harness.stations.scan().arrivals)
        async with harness.running():
            await harness.until(lambda: harness.where("x") == ["done"])
    else:
        harness.store.run(lambda c: c.exec_driver_sql("UPDATE jobs SET name = 'y'"))
        harness.arrive("y")
        async with harness.running():
            await harness.until(lambda: harness.where("y") == ["done"])
    assert opened(harness) == []


async def test_a_dismissed_failure_that_is_retried_is_open_when_it_fails_again(harness: Harness) -> None:
    """What was dismissed was the failure of then."""
    await failed(harness)
    await harness.ask("dismiss", "!x")
    harness.store.run(lambda c: c.exec_driver_sql("UPDATE jobs SET definition = '{\"steps\": []}'"))
    assert (await harness.ask("retry", "!x"))["ok"]
    assert harness.job("!x").outcome is Outcome.NONE
