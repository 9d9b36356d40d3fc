"""What is asked for is carried out once: also where the answer cannot be written, or the daemon dies before it."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from dittohead.admin import actions as actions_module
from dittohead.admin.actions import Actions
from dittohead.model.errors import StoreError
from dittohead.model.records import Answer
from dittohead.model.states import JobState
from dittohead.store import requests as request_store
from tests.support.house import House
from tests.test_replacement import broken, offered


def refuse(house: House, column: str) -> None:
    """Have the store refuse to write a column, as a full disk does."""
    house.store.run(
        lambda c: c.execute(
            sa.text(
                f"CREATE TRIGGER full BEFORE UPDATE OF {column} ON requests BEGIN "
                "SELECT RAISE(ABORT, 'database or disk is full'); END"
            )
        )
    )


def allow(house: House) -> None:
    house.store.run(lambda c: c.execute(sa.text("DROP TRIGGER full")))


async def asked(house: House, action: str, **args: Any) -> int:
    return await house.store.write(request_store.add, action, "n", args, "tester")


async def over(house: House, count: int = 1) -> None:
    async with house.running():
        await house.until(lambda: len(house.jobs("n")) == count)
        await house.until_over("n")


async def test_an_answer_that_cannot_be_written_is_written_later_and_nothing_done_twice(house: House) -> None:
    """The folder is run again once, though it is in done/ again before the disk has room."""
    house.arrive("n")
    await over(house)
    number = await asked(house, "rerun")
    refuse(house, "answer")
    with pytest.raises(StoreError):
        await house.actions.answer_all()
    await over(house, 2)
    for _ in range(3):
        with pytest.raises(StoreError):
            await house.actions.answer_all()
    assert (len(house.jobs("n")), house.where("n")) == (2, ["done"])
    allow(house)
    await house.actions.answer_all()
    answer = house.store.run(request_store.answer_to, number)
    assert answer == Answer(ok=True, message="n: moved back to the inbox; a new job begins")
    assert house.where("n") == ["done"]


async def test_what_cannot_be_noted_is_not_begun(house: House) -> None:
    """It is tried again when there is room."""
    house.arrive("n")
    await over(house)
    number = await asked(house, "rerun")
    refuse(house, "args")
    with pytest.raises(StoreError):
        await house.actions.answer_all()
    assert house.where("n") == ["done"]
    allow(house)
    await house.actions.answer_all()
    answer = house.store.run(request_store.answer_to, number)
    assert answer is not None
    assert (answer.ok, house.where("n")) == (True, ["inbox"])


@pytest.mark.parametrize("action", sorted(actions_module._ONCE))
async def test_a_daemon_that_dies_before_it_answers_does_nothing_twice(house: House, action: str) -> None:
    """The next one sees that the folder has gone on, or does what was not done yet."""
    job = await broken(house)
    house.worker.plays.clear()
    args = {"rename": {"name": "m"}, "replace": {"with": offered(house, job).id}}.get(action, {})
    number = await asked(house, action, **args)
    refuse(house, "answer")
    with pytest.raises(StoreError):
        await house.actions.answer_all()
    name, count = ("m", 1) if action == "rename" else ("n", 1 if action == "retry" else 2)
    async with house.running():
        await house.until(lambda: [one.state for one in house.jobs(name)][:1] == [JobState.DONE])
        await house.until(lambda: len(house.jobs(name)) == count)
        await house.until_over(name)
    ran = len(house.worker.ran)
    allow(house)
    fresh = Actions(house.engine, house.dispatch, config=lambda: house.config)
    await fresh.answer_all()
    answer = house.store.run(request_store.answer_to, number)
    assert answer is not None
    assert (answer.ok, "not done twice" in answer.message) == (True, True), answer
    async with house.running():
        assert (house.where(name), len(house.worker.ran)) == (["done"], ran)
    (asked_for,) = house.store.run(request_store.listing, action=action)
    assert "before" not in asked_for.args
