"""What is told of: recovered, stuck, full, and a target that is back only when somebody has used it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dittohead.admin.monitor import Monitor
from dittohead.config.notice_rules import Rule
from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.engine.disks import disk_of
from dittohead.model.errors import ItemError, TargetError
from dittohead.model.states import JobState
from dittohead.notices.compose import Composer
from dittohead.store import targets as target_store
from dittohead.store.tables import jobs, outbox
from tests.support.harness import Harness
from tests.support.notices import rule


class Told(Harness):
    """A harness whose notices are made by rules, as the daemon makes them."""

    def __init__(self, root: Path, *rules: Rule, **addresses: str) -> None:
        super().__init__(root)
        self.composer = Composer(rules, root, addresses=addresses)
        self.engine.compose = self.composer
        self.targets._compose = self.composer
        self.engine.wants = self.composer.wants

    def said(self) -> list[tuple[str, str]]:
        """Return (event, subject) of each notice, in the order they were put in."""
        query = sa.select(outbox.c.event, outbox.c.subject).order_by(outbox.c.created_at, outbox.c.id)
        return [(row[0], row[1]) for row in self.store.run(lambda c: list(c.execute(query)))]


ALL = ["done", "failed", "recovered", "stuck", "stale", "paused", "resumed", "nearly_full", "full"]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path / "root", rule(url="json://h", on=ALL))
    yield made
    made.store.close()


def failing(harness: Harness, errors: list[Exception]) -> None:
    async def fail(ctx: StepContext) -> StepResult:
        if errors:
            raise errors.pop(0)
        return Done()

    harness.worker.plays["first"] = fail


async def test_recovered_is_told_once_instead_of_done(told: Told) -> None:
    """Of a job that is tried again, and of another of the same name."""
    failing(told, [ItemError("truncated"), ItemError("again")])
    told.arrive("x")
    async with told.running():
        await told.until_over("x")
        assert (await told.ask("retry", "x"))["ok"]
        await told.until(lambda: len(told.said()) == 2)
        await told.until_over("x")
        told.arrive("x")  # another folder of the same name
        told.offer()
        await told.until(lambda: len(told.jobs("x")) == 2)
        await told.until_over("x")
        told.arrive("x")
        told.offer()
        await told.until(lambda: len(told.jobs("x")) == 3)
        await told.until_over("x")
    assert [event for event, _ in told.said()] == ["failed", "failed", "recovered", "done"]


async def test_recovered_of_the_same_job(told: Told) -> None:
    """And a rerun of what was done already is not a recovery."""
    failing(told, [ItemError("truncated")])
    told.arrive("x")
    async with told.running():
        await told.until_over("x")
        await told.ask("retry", "x")
        await told.until(lambda: len(told.said()) == 2)
        await told.until_over("x")
        assert (await told.ask("rerun", "x", **{"from": "second"}))["ok"]
        await told.until(lambda: len(told.said()) == 3)
    assert [event for event, _ in told.said()] == ["failed", "recovered", "done"]


async def test_nothing_is_looked_up_where_nobody_asks(tmp_path: Path) -> None:
    """A folder costs what it cost before."""
    harness = Told(tmp_path / "root", rule(url="json://h", on=["stale"]))

    def never(*given: Any, **more: Any) -> Any:
        raise AssertionError("composed for nobody")

    harness.engine.compose = never
    harness.arrive("x")
    async with harness.running():
        assert (await harness.until_over("x")).state is JobState.DONE
    harness.store.close()


@pytest.mark.parametrize("by", ["poke", "retry", "resume"])
async def test_a_target_that_is_still_down_when_a_job_is_tried_is_not_told_to_be_back(
    told: Told, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither in the log nor to people; and that it is still down is not news either."""
    failing(told, [TargetError("down"), TargetError("still down")])
    told.arrive("x")
    async with told.running():
        await told.until(lambda: [job.state for job in told.jobs("x")] == [JobState.PAUSED])
        of = "first" if by == "resume" else "x"
        assert (await told.ask(by, of))["ok"]
        await told.until(lambda: told.job("x").reason == "still down")
        assert "target.resumed" not in capsys.readouterr().out
        assert [event for event, _ in told.said()] == ["paused"]
        await told.until(lambda: told.job("x").state is JobState.PAUSED)
        assert (await told.ask(by, of))["ok"]
        await told.until_over("x")
    assert [event for event, _ in told.said()] == ["paused", "resumed", "done"]
    assert "target.resumed" in capsys.readouterr().out


async def test_a_target_nobody_waits_for_is_not_told_to_be_back(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its job was cancelled: whether it is well is not known until another has used it."""
    failing(told, [TargetError("down"), TargetError("down")])
    told.arrive("x")
    async with told.running():
        await told.until(lambda: bool(told.targets.paused("first")))
        await told.ask("cancel", "x")
        told.targets.try_now("first")
        told.dispatch.wake()
        await told.until(lambda: not told.targets.paused("first"))
        assert "target.resumed" not in capsys.readouterr().out
        told.arrive("y")
        told.offer()
        await told.until(lambda: bool(told.targets.paused("first")))
        assert [event for event, _ in told.said()] == ["paused"]
        told.targets.try_now("first")
        told.dispatch.wake()
        await told.until_over("y")
    assert [event for event, _ in told.said()] == ["paused", "resumed", "done"]


async def test_what_people_were_told_is_remembered_by_the_store(told: Told) -> None:
    """A restart tells nothing a second time."""
    await told.targets.pause("t", "down", full=True)
    await told.targets.pause("t", "down", full=True)
    (row,) = told.store.run(target_store.load)
    assert (row.told, row.filled) == (True, True)
    await told.targets.load()
    await told.targets.pause("t", "down", full=True)
    assert [event for event, _ in told.said()] == ["full"]
    await told.targets.resume("t")
    await told.targets.pause("t", "no room", full=True)
    assert [event for event, _ in told.said()] == ["full", "resumed", "full"]


async def test_a_full_target_is_paused_for_those_who_ask_only_for_that(tmp_path: Path) -> None:
    """And nobody is told both."""
    full, paused = rule(url="json://a", on=["full", "paused"]), rule(url="json://b", on=["paused"])
    harness = Told(tmp_path / "root", full, paused)
    failing(harness, [TargetError("no room", full=True)])
    harness.arrive("x")
    async with harness.running():
        await harness.until(lambda: bool(harness.targets.paused("first")))
    query = sa.select(outbox.c.rule, outbox.c.event)
    found = {tuple(row) for row in harness.store.run(lambda c: list(c.execute(query)))}
    assert found == {(full.key, "full"), (paused.key, "paused")}
    harness.store.close()


async def test_a_full_root_is_told_once_until_there_is_room(told: Told) -> None:
    """And again when it is full again."""
    space = {"floor": 1 << 60}

    def settings() -> Any:
        found = told.config.settings
        return found.model_copy(update={"space": found.space.model_copy(update=space)})

    look = Monitor(told.engine, settings)
    await look.root_round()
    await look.root_round()
    assert told.said() == [("full", f"Full: {disk_of(told.root)}")]
    space["floor"] = 0
    await look.root_round()
    space["floor"] = 1 << 60
    await look.root_round()
    assert [event for event, _ in told.said()] == ["full", "full"]


def age(harness: Harness, column: str, hours: float) -> None:
    with harness.store.engine.begin() as connection:
        connection.execute(jobs.update().values({column: time.time() - hours * 3600}))


async def test_stuck_jobs_are_one_notice_a_day_that_says_what_to_do(told: Told) -> None:
    """Of those not over; what was tried again a moment ago is not stuck."""
    told.arrive("over")
    async with told.running():
        await told.until_over("over")
    failing(told, [TargetError("down")] * 9)
    told.arrive("left")
    look = Monitor(told.engine, lambda: told.config.settings)
    async with told.running():
        await told.until(lambda: [job.state for job in told.jobs("left")] == [JobState.PAUSED])
        left = told.job("left")
        await told.ask("freeze", left.name, reason="looked at")
        await look.stuck_round()
        assert "stuck" not in [event for event, _ in told.said()]
        age(told, "claimed_at", 30)
        await look.stuck_round()
        await look.stuck_round()
        stuck = [subject for event, subject in told.said() if event == "stuck"]
        assert stuck == ["1 job not over after 24 hours"]
        with told.store.engine.begin() as connection:
            (body,) = connection.execute(sa.select(outbox.c.body).where(outbox.c.event == "stuck")).scalars()
            connection.execute(outbox.update().values(created_at=outbox.c.created_at - 25 * 3600))
        assert f"{left.name}: frozen for 30 hours\n  Why: frozen by tester: looked at\n" in body
        assert f"dittohead thaw {left.id}" in body
        await look.stuck_round()
        assert len([event for event, _ in told.said() if event == "stuck"]) == 2
        with told.store.engine.begin() as connection:
            connection.execute(outbox.delete())
        age(told, "reopened_at", 1)
        await look.stuck_round()
        assert told.said() == []


async def test_each_is_told_of_their_own_stuck_jobs(tmp_path: Path) -> None:
    """An uploader of theirs, an archivist of all, a curator of a pipeline's."""
    smtp = {"host": "h", "sender": "d@x", "to": ["all@example.org", "uploader"]}
    harness = Told(
        tmp_path / "root",
        rule(smtp=smtp, on=["stuck"]),
        rule(url="json://none", on=["stuck"], pipelines=["another"]),
        **{"1001": "one@example.org"},
    )
    for name in ("a", "b"):
        harness.arrive(name)
    async with harness.running():
        await harness.until_over("a")
        await harness.until_over("b")
    with harness.store.engine.begin() as connection:
        connection.execute(jobs.update().values(state="frozen", uid=1002))
        connection.execute(jobs.update().where(jobs.c.name == "a").values(uid=1001))
    age(harness, "claimed_at", 30)
    await Monitor(harness.engine, lambda: harness.config.settings).stuck_round()
    query = sa.select(outbox.c.recipient, outbox.c.subject)
    found = {tuple(row) for row in harness.store.run(lambda c: list(c.execute(query)))}
    assert found == {
        ("", "2 jobs not over after 24 hours"),
        ("one@example.org", "1 job not over after 24 hours"),
    }
    harness.store.close()
