"""Taking back what a job created outside: by its workers, recorded in its receipt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dittohead.admin.undo import undo_all, undo_job
from dittohead.admin.verify import verify_job
from dittohead.contract.worker import Done, StepContext, StepResult, UndoContext
from dittohead.folders import receipt
from dittohead.model.errors import DittoheadError, ItemError, TransientError
from dittohead.model.events import Event, EventType
from dittohead.model.records import Location
from dittohead.model.states import JobState
from tests.support.harness import Harness, ScriptOptions, ScriptWorker


class RecordingWorker(ScriptWorker):
    """Creates a record outside, here a file, and notes it first."""

    name = "recording"

    def __init__(self, outside: Path) -> None:
        super().__init__()
        self.records = outside
        self.down = False
        self.undone: list[str] = []

    async def run(self, ctx: StepContext, options: ScriptOptions) -> StepResult:
        if ctx.step in self.plays:
            return await self.plays[ctx.step](ctx)
        ctx.ledger.parent.mkdir(parents=True, exist_ok=True)
        ctx.ledger.write_text(ctx.step + "\n")
        (self.records / ctx.step).write_text("as it was made")
        ctx.location(
            Location(
                uri=f"rec:{ctx.step}", path=b"", size=0, sha256="", verified_by="read back", use="record"
            )
        )
        return Done()

    async def undo(self, ctx: UndoContext, options: ScriptOptions) -> None:
        if self.down:
            raise TransientError("down")
        if not ctx.ledger.exists():
            return
        assert [location.use for location in ctx.locations()] == ["record"]
        for name in ctx.ledger.read_text().split():
            self.undone.append(name)
            record = self.records / name
            if record.read_text() != "as it was made":
                ctx.report(False, f"rec:{name}", "somebody has changed it")
                continue
            if not ctx.dry_run:
                record.unlink()
            ctx.report(True, f"rec:{name}", "removed")


CONFIG = """
root: .
pipelines:
  p:
    match: ".*"
    steps:
      - checksum: {}
      - recording: {name: one}
      - recording: {name: two}
"""


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    (tmp_path / "outside").mkdir()
    recording = RecordingWorker(tmp_path / "outside")
    made = Harness(tmp_path / "root", CONFIG, workers=[recording])
    made.arrive("x")
    async with made.running():
        await made.until_over("x")
    yield made
    made.store.close()


def worker(harness: Harness) -> RecordingWorker:
    found = harness.workers.get("recording")
    assert isinstance(found, RecordingWorker)
    return found


async def test_what_was_created_is_taken_back_the_last_step_first(harness: Harness) -> None:
    """What others changed stays, and is named."""
    (worker(harness).records / "one").write_text("changed")
    undone = await undo_job(
        harness.job("x"), harness.store, harness.stations, harness.workers, str, dry_run=False
    )
    assert worker(harness).undone == ["two", "one"]
    assert undone.gone == [("rec:two", "removed")]
    assert undone.kept == [("rec:one", "somebody has changed it")]
    assert sorted(path.name for path in worker(harness).records.iterdir()) == ["one"]


async def test_a_dry_run_removes_nothing(harness: Harness) -> None:
    """It says what would go."""
    undone = await undo_job(
        harness.job("x"), harness.store, harness.stations, harness.workers, str, dry_run=True
    )
    assert [uri for uri, _ in undone.gone] == ["rec:two", "rec:one"]
    assert sorted(path.name for path in worker(harness).records.iterdir()) == ["one", "two"]


async def test_nothing_is_taken_from_under_a_rerun(harness: Harness) -> None:
    """It finds what the first job created, says it is there, and would be done with nothing there."""
    first = harness.job("x")
    gate, there = asyncio.Event(), asyncio.Event()

    async def look(ctx: StepContext) -> StepResult:
        there.set()
        await gate.wait()
        return Done()

    worker(harness).plays["one"] = look
    async with harness.running():
        await harness.ask("rerun", first.id)
        harness.offer()
        await there.wait()
        with pytest.raises(DittoheadError, match="is being done again .*dittohead cancel"):
            await undo_job(first, harness.store, harness.stations, harness.workers, str, dry_run=False)
        assert worker(harness).undone == []
        undone = await undo_job(first, harness.store, harness.stations, harness.workers, str, dry_run=True)
        assert len(undone.gone) == 2
        gate.set()
        await harness.until(lambda: harness.jobs("x")[0].finished_at is not None)
    with pytest.raises(DittoheadError, match="was done again since"):
        await undo_job(first, harness.store, harness.stations, harness.workers, str, dry_run=False)


async def again(harness: Harness) -> None:
    """Do the folder once more: its steps find the records there, and create nothing."""

    async def found(ctx: StepContext) -> StepResult:
        there = Location(
            uri=f"rec:{ctx.step}", path=b"", size=0, sha256="", verified_by="read back", use="record"
        )
        ctx.location(there)
        return Done()

    plays = worker(harness).plays
    plays["one"] = plays["two"] = found
    async with harness.running():
        await harness.ask("rerun", harness.job("x").id)
        harness.offer()
        await harness.until(
            lambda: len(harness.jobs("x")) == 2 and harness.jobs("x")[0].finished_at is not None
        )


async def test_nothing_is_taken_from_under_a_later_job(harness: Harness) -> None:
    """It found the records right and is done: anyone who undoes the first means both, or neither."""
    await again(harness)
    later, first = harness.jobs("x")
    with pytest.raises(DittoheadError, match=f"{later.id}.*dittohead undo --all {first.id}"):
        await undo_job(first, harness.store, harness.stations, harness.workers, str, dry_run=True)
    undone = await undo_job(later, harness.store, harness.stations, harness.workers, str, dry_run=True)
    assert (undone.gone, undone.kept, undone.created_by) == ([], [], [first.id])
    every = undo_all(later, harness.store, harness.stations, harness.workers, str, dry_run=False)
    assert [(one.job, len(one.gone)) async for one in every] == [(later.id, 0), (first.id, 2)]
    assert list(worker(harness).records.iterdir()) == []


async def test_a_later_job_that_was_undone_stands_in_nobodys_way(harness: Harness) -> None:
    """What it went by is its own matter."""
    await again(harness)
    later, first = harness.jobs("x")
    await harness.ask("undone", later.id, what="0 taken back", good=True)
    undone = await undo_job(first, harness.store, harness.stations, harness.workers, str, dry_run=True)
    assert len(undone.gone) == 2


async def test_an_undone_job_says_so_and_is_not_called_damaged(harness: Harness) -> None:
    """In lists by its reason; `verify` compares what is still to be there."""
    job = harness.job("x")
    await undo_job(job, harness.store, harness.stations, harness.workers, str, dry_run=False)
    await harness.ask("undone", job.id, what="2 taken back", good=True)
    assert harness.job("x").reason == "undone by tester: 2 taken back"
    report = await verify_job(harness.job("x"), harness.store, harness.stations, harness.workers, str)
    assert (report.good, report.taken_back) == (True, ["one", "two"])
    assert report.checked


async def test_notes_that_cannot_be_read_are_told(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other steps are undone all the same."""

    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)
        undone = await undo_job(
            harness.job("x"), harness.store, harness.stations, harness.workers, str, dry_run=False
        )
    assert [uri for uri, _ in undone.kept] == ["step two", "step one"]


async def test_a_system_that_is_down_leaves_its_step_to_be_undone(harness: Harness) -> None:
    """It is said, and the command can be given again."""
    worker(harness).down = True
    undone = await undo_job(
        harness.job("x"), harness.store, harness.stations, harness.workers, str, dry_run=False
    )
    assert undone.kept == [
        ("step two", "cannot be undone now: down"),
        ("step one", "cannot be undone now: down"),
    ]


async def test_that_it_was_undone_stands_in_the_receipt(harness: Harness) -> None:
    """Appended; what stood there stands there still."""
    job = harness.job("x")
    path = receipt.path_of(harness.stations.receipts, job)
    before = json.loads(path.read_bytes())
    answer = await harness.ask("undone", job.id, what="2 taken back", good=True)
    assert answer["ok"]
    after = json.loads(path.read_bytes())
    event = after["events"].pop()
    assert (event["type"], event["detail"]) == ("deletion", "undone by tester: 2 taken back")
    assert after == before


async def test_what_was_undone_is_not_gone_on_with(harness: Harness) -> None:
    """A step that is done would stay so, and a later one record what is no longer there."""

    async def fail(ctx: StepContext) -> StepResult:
        raise ItemError("no")

    worker(harness).plays["two"] = fail
    harness.arrive("y")
    async with harness.running():
        job = await harness.until_over("y")
        undone = await undo_job(job, harness.store, harness.stations, harness.workers, str, dry_run=False)
        assert ("rec:one", "removed") in undone.gone
        await harness.ask("undone", job.id, what="1 taken back: one", good=True)
        del worker(harness).plays["two"]
        for action, args in (("retry", {}), ("rerun", {"from": "two"})):
            answer = await harness.ask(action, job.id, **args)
            assert not answer["ok"]
            assert f"dittohead rerun {job.id}" in answer["message"]
        assert (await harness.ask("rerun", job.id))["ok"]
        harness.offer()
        await harness.until(lambda: harness.jobs("y")[0].state is JobState.DONE)
    assert sorted(path.name for path in worker(harness).records.iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    "events", [[], [Event(type=EventType.FIXITY, outcome="success", detail="d", agent="a")]]
)
async def test_an_event_is_appended_whatever_stands_before(
    harness: Harness, tmp_path: Path, events: list[Event]
) -> None:
    """A receipt without events, and one with."""
    path = tmp_path / "receipt.json"
    receipt.write(path, harness.job("x"), entries=(), outputs=(), locations=(), events=events)
    receipt.add_event(path, Event(type=EventType.DELETION, outcome="success", detail="gone", agent="a"))
    assert [e["detail"] for e in json.loads(path.read_bytes())["events"]] == [*("d" for _ in events), "gone"]


async def test_what_is_no_receipt_is_left_as_it_is(tmp_path: Path) -> None:
    """Never half rewritten."""
    path = tmp_path / "receipt.json"
    path.write_text("{}")
    with pytest.raises((ValueError, OSError)):
        receipt.add_event(path, Event(type=EventType.DELETION, outcome="success", detail="gone", agent="a"))
    assert path.read_text() == "{}"
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


async def test_a_job_without_such_steps_says_what_to_do(tmp_path: Path) -> None:
    """Files in buckets and at targets stay."""
    made = Harness(tmp_path / "other")
    made.arrive("y")
    async with made.running():
        job = await made.until_over("y")
    assert job.state is JobState.DONE
    with pytest.raises(DittoheadError, match="no step of y can be undone"):
        await undo_job(job, made.store, made.stations, made.workers, str, dry_run=False)
    made.store.close()
