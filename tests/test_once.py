"""What is asked for is carried out once: also where the answer cannot be written, or the daemon dies before it."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from dittohead.admin import actions as actions_module
from dittohead.admin.actions import Actions
from dittohead.model.errors import StoreError
from dittohead.model.records import RequestAnswer
from dittohead.model.states import JobState
from dittohead.store import requests as request_store
from tests.support.harness import Harness
from tests.test_replacement import broken, offered


def refuse(harness: Harness, column: str) -> None:
    """Have the store refuse to write a column, as a full disk does."""
    harness.store.run(
        lambda c: c.execute(
            sa.text(
                f"CREATE TRIGGER full BEFORE UPDATE OF {column} ON requests BEGIN "
                "SELECT RAISE(ABORT, 'database or disk is full'); END"
            )
        )
    )


def allow(harness: Harness) -> None:
    harness.store.run(lambda c: c.execute(sa.text("DROP TRIGGER full")))


async def asked(harness: Harness, action: str, **args: Any) -> int:
    return await harness.store.write(request_store.add, action, "n", args, "tester")


async def over(harness: Harness, count: int = 1) -> None:
    async with harness.running():
        await harness.until(lambda: len(harness.jobs("n")) == count)
        await harness.until_over("n")


async def test_an_answer_that_cannot_be_written_is_written_later_and_nothing_done_twice(
    harness: Harness,
) -> None:
    """The folder is run again once, though it is in done/ again before the disk has room."""
    harness.arrive("n")
    await over(harness)
    number = await asked(harness, "rerun")
    refuse(harness, "answer")
    with pytest.raises(StoreError):
        await harness.actions.answer_all()
    await over(harness, 2)
    for _ in range(3):
        with pytest.raises(StoreError):
            await harness.actions.answer_all()
    assert (len(harness.jobs("n")), harness.where("n")) == (2, ["done"])
    allow(harness)
    await harness.actions.answer_all()
    answer = harness.store.run(request_store.answer_to, number)
    assert answer == RequestAnswer(ok=True, message="n: moved back to the inbox; a new job begins")
    assert harness.where("n") == ["done"]


async def test_what_cannot_be_noted_is_not_begun(harness: Harness) -> None:
    """It is tried again when there is room."""
    harness.arrive("n")
    await over(harness)
    number = await asked(harness, "rerun")
    refuse(harness, "args")
    with pytest.raises(StoreError):
        await harness.actions.answer_all()
    assert harness.where("n") == ["done"]
    allow(harness)
    await harness.actions.answer_all()
    answer = harness.store.run(request_store.answer_to, number)
    assert answer is not None
    assert (answer.ok, harness.where("n")) == (True, ["inbox"])


@pytest.mark.parametrize("action", sorted(actions_module._ONCE))
async def test_a_daemon_that_dies_before_it_answers_does_nothing_twice(harness: Harness, action: str) -> None:
    """The next one sees that the folder has gone on, or does what was not done yet."""
    job = await broken(harness)
    harness.worker.plays.clear()
    args = {"rename": {"name": "m"}, "replace": {"with": offered(harness, job).id}}.get(action, {})
    number = await asked(harness, action, **args)
    refuse(harness, "answer")
    with pytest.raises(StoreError):
        await harness.actions.answer_all()
    name, count = ("m", 1) if action == "rename" else ("n", 1 if action == "retry" else 2)
    async with harness.running():
        await harness.until(lambda: [one.state for one in harness.jobs(name)][:1] == [JobState.DONE])
        await harness.until(lambda: len(harness.jobs(name)) == count)
        await harness.until_over(name)
    ran = len(harness.worker.ran)
    allow(harness)
    fresh = Actions(harness.engine, harness.dispatch, config=lambda: harness.config)
    await fresh.answer_all()
    answer = harness.store.run(request_store.answer_to, number)
    assert answer is not None
    assert (answer.ok, "not done twice" in answer.message) == (True, True), answer
    async with harness.running():
        assert (harness.where(name), len(harness.worker.ran)) == (["done"], ran)
    (asked_for,) = harness.store.run(request_store.listing, action=action)
    assert "before" not in asked_for.args
