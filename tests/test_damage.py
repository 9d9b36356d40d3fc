"""A damaged file, row or folder ends what needs it, and nothing else."""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import pytest
import sqlalchemy as sa

from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.engine.reconcile import reconcile
from dittohead.folders import receipt
from dittohead.folders.job_files import JobFiles
from dittohead.model.records import Location, Output
from dittohead.model.states import JobState, Station
from dittohead.store import requests as request_store
from tests.support.damage import DAMAGES
from tests.support.harness import Harness
from tests.support.trees import tree

#: Those that leave a JSON-lines file one that is still good, or that root is not hindered by.
_HARMLESS = {"one more newline", "mode 000"}


async def fail(ctx: StepContext) -> StepResult:
    from dittohead.model.errors import ItemError

    raise ItemError("no")


async def over(harness: Harness, name: str) -> Any:
    harness.arrive(name)
    async with harness.running():
        return await harness.until_over(name)


async def ask_in_time(harness: Harness, *request: Any, **args: Any) -> dict[str, Any]:
    async with asyncio.timeout(20):
        return await harness.ask(*request, **args)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_manifest_refuses_the_retry_that_needs_it(harness: Harness, damage: str) -> None:
    """And is answered: a row that stays open is met again at each start."""
    harness.worker.plays["second"] = fail
    job = await over(harness, "x")
    listed = JobFiles(harness.stations, job).manifest
    DAMAGES[damage](listed, random.Random(1))
    said = await ask_in_time(harness, "retry", job.id)
    assert said["message"]
    if damage not in {*_HARMLESS, "gone", "a bit flipped", "cut"}:
        assert not said["ok"], said
    assert harness.store.run(request_store.open_requests) == []
    harness.worker.plays.clear()
    assert (await over(harness, "innocent")).state is JobState.DONE


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_receipt_refuses_what_is_added_to_it(harness: Harness, damage: str) -> None:
    """The store has it all the same; nothing is written over what somebody may want to look at."""
    job = await over(harness, "x")
    path = receipt.path_of(harness.stations.receipts, job)
    DAMAGES[damage](path, random.Random(2))
    readable = path.is_file() and damage != "a link elsewhere" and os.access(path, os.R_OK)
    before = path.read_bytes() if readable else None
    said = await ask_in_time(harness, "undone", job.id, what="x", good=True)
    if damage not in {"mode 000", "gone", "a bit flipped"}:
        assert not said["ok"], said
        assert "recorded in the store" in said["message"]
        assert before is None or path.read_bytes() == before
    assert harness.store.run(request_store.open_requests) == []


async def test_whatever_a_request_meets_refuses_it_alone(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of ours, too."""
    job = await over(harness, "x")

    def break_down(*_: object) -> None:
        raise RuntimeError("this is not foreseen")

    monkeypatch.setattr(receipt, "add_event", break_down)
    said = await harness.ask("undone", job.id, what="x", good=True)
    assert not said["ok"]
    assert "RuntimeError" in said["message"]
    assert (await harness.ask("rerun", job.id))["ok"]


async def test_a_request_that_two_daemons_died_of_is_refused_at_the_third_start(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash of the process leaves no exception to be caught: it is counted before it is tried."""
    job = await over(harness, "x")
    number = await harness.store.write(request_store.add, "undone", job.id, {"what": "x"}, "me")

    class Death(BaseException):
        """Stands for SIGKILL: nothing runs after it."""

    def die(*_: object) -> None:
        raise Death

    monkeypatch.setattr(receipt, "add_event", die)
    for _ in range(2):
        harness.actions.begun.clear()  # as in another process
        with pytest.raises(Death):
            await harness.actions.answer_all()
        assert await harness.store.read(request_store.answer_to, number) is None
    harness.actions.begun.clear()
    await harness.actions.answer_all()
    answer = await harness.store.read(request_store.answer_to, number)
    assert answer is not None
    assert not answer.ok
    assert "died 2 times" in answer.message
    (asked,) = harness.store.run(request_store.listing)
    assert asked.args == {"what": "x"}  # how often it was tried is nobody's argument


async def test_a_stop_in_good_order_is_no_death(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the daemon is restarted while a request is carried out."""
    job = await over(harness, "x")
    number = await harness.store.write(request_store.add, "freeze", job.id, {}, "me")
    hang = asyncio.Event()

    async def slowly(*_: object) -> str:
        hang.set()
        await asyncio.Event().wait()
        return ""

    monkeypatch.setattr(type(harness.actions), "carry_out", slowly)
    for _ in range(4):
        harness.actions.begun.clear()
        hang.clear()
        task = asyncio.create_task(harness.actions.answer_all())
        await hang.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await harness.store.read(request_store.get, number)).tries == 0


@pytest.mark.parametrize("args", ['{"from": "sec', "[]", "7", '{"tries": "many"}', "null"])
async def test_a_damaged_row_of_a_request_is_answered_and_the_others_are_carried_out(
    harness: Harness, args: str
) -> None:
    """And is never carried out with what is left of its arguments."""
    job = await over(harness, "x")
    number = await harness.store.write(request_store.add, "rerun", job.id, {"from": "second"}, "me")

    def damage(connection: sa.Connection) -> None:
        connection.execute(
            sa.text("UPDATE requests SET args = :args WHERE id = :id"), {"args": args, "id": number}
        )

    await harness.store.write(damage)
    later = await harness.store.write(request_store.add, "retry", job.id, {}, "me")
    await harness.actions.answer_all()
    answer = await harness.store.read(request_store.answer_to, number)
    assert answer is not None
    assert not answer.ok
    assert "is done" in (await harness.store.read(request_store.answer_to, later)).message
    assert harness.where("x") == ["done"]
    assert len(harness.store.run(request_store.listing)) == 2  # it can be looked at


@pytest.mark.parametrize("which", ["outputs", "locations", "manifest"])
@pytest.mark.parametrize("damage", ["half a line", "wrong types", "a directory", "a FIFO", "nested deep"])
async def test_a_list_that_is_damaged_before_the_end_fails_its_job(
    harness: Harness, which: str, damage: str
) -> None:
    """What cannot be written into the receipt cannot be said to have been verified."""

    async def make(ctx: StepContext) -> StepResult:
        (ctx.work / "o").write_bytes(b"x")
        ctx.output(Output(path=b"o", size=1, sha256="0" * 64))
        ctx.location(Location(uri="file:///o", path=b"o", size=1, sha256="0" * 64, verified_by="read"))
        return Done()

    async def spoil(ctx: StepContext) -> StepResult:
        files = JobFiles(harness.stations, harness.job("x"))
        path = {
            "outputs": files.outputs("first"),
            "locations": files.locations("first"),
            "manifest": files.manifest,
        }[which]
        await asyncio.to_thread(DAMAGES[damage], path, random.Random(3))
        return Done()

    harness.worker.plays = {"first": make, "third": spoil}
    job = await over(harness, "x")
    assert job.state is JobState.FAILED
    assert job.reason
    assert "unforeseen" not in job.reason
    assert harness.where("x") == ["failed"]
    found = receipt.read(receipt.path_of(harness.stations.receipts, job))
    assert found["state"] == "failed"
    assert any("not complete" in event["detail"] for event in found["events"])
    harness.worker.plays.clear()
    assert (await over(harness, "innocent")).state is JobState.DONE


async def test_one_folder_that_nobody_foresaw_holds_up_no_other(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison goes on with the next, and says which is stuck and why."""
    for name in ("a", "b", "c"):
        tree(harness.stations.folder(Station.PROCESSING, name.encode()), {"f": name})
    adopt = harness.claimer.adopt

    async def stumble(arrival: Any) -> Any:
        if arrival.folder == b"b":
            raise KeyError("unforeseen")
        return await adopt(arrival)

    monkeypatch.setattr(harness.claimer, "adopt", stumble)
    assert await reconcile(harness.engine, harness.claimer, ()) == 2
    assert sorted(job.name for job in harness.jobs()) == ["a", "c"]
    assert "unforeseen" in harness.claimer.stuck[b"b"]
    harness.arrive("b")
    (arrival,) = harness.stations.scan().arrivals
    held = await harness.claimer.claim(arrival)
    assert "unforeseen" in held.reason  # type: ignore[union-attr]
    monkeypatch.undo()
    await reconcile(harness.engine, harness.claimer, ())
    assert harness.claimer.stuck == {}


@pytest.mark.parametrize("damage", ["a FIFO", "a directory", "a link elsewhere"])
async def test_what_lies_where_a_step_writes_is_put_out_of_its_way(harness: Harness, damage: str) -> None:
    """Its log, its lists, its receipt: opening a FIFO for writing would hold the loop forever."""

    async def write(ctx: StepContext) -> StepResult:
        files = JobFiles(harness.stations, harness.job("x"))
        for path in (
            files.log("third"),
            files.outputs("third"),
            receipt.path_of(harness.stations.receipts, harness.job("x")),
        ):
            DAMAGES[damage](path, random.Random(4))
        return Done()

    async def log(ctx: StepContext) -> StepResult:
        with open(ctx.log_file(), "ab") as file:
            file.write(b"said\n")
        (ctx.work / "o").write_bytes(b"x")
        ctx.output(Output(path=b"o", size=1, sha256="0" * 64))
        return Done()

    harness.worker.plays = {"second": write, "third": log}
    job = await over(harness, "x")
    assert job.state is JobState.DONE, job.reason
    assert JobFiles(harness.stations, job).log("third").read_bytes() == b"said\n"
    assert [o["path"] for o in receipt.read(receipt.path_of(harness.stations.receipts, job))["outputs"]] == [
        "o"
    ]
