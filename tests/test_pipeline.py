"""The engine: steps are durable, run in order, once; what goes wrong ends in the right place."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dittohead.config.loader import load
from dittohead.contract.worker import Done, Freeze, StepContext, StepResult, Wait
from dittohead.folders import receipt
from dittohead.model.errors import ItemError, Superseded, TargetError, TransientError
from dittohead.model.events import Event, EventType
from dittohead.model.records import Output
from dittohead.model.states import JobState, Station, StepState
from dittohead.store import jobs as job_store
from dittohead.store import queries
from dittohead.store import suspects as suspect_store
from tests.support.harness import CONFIG, Harness
from tests.support.trees import fifo, read_tree, symlink

pytestmark = pytest.mark.usefixtures("nothing_blocks_the_loop")


def hang_in(harness: Harness, step: str) -> asyncio.Event:
    """Make a step never end; the event is set when it is reached."""
    reached = asyncio.Event()

    async def hang(ctx: StepContext) -> StepResult:
        reached.set()
        await asyncio.Event().wait()
        return Done()

    harness.worker.plays[step] = hang
    return reached


async def test_what_a_folder_costs_the_store_does_not_grow_unseen(harness: Harness) -> None:
    """Three steps: a few reads for the whole run, and none for each step."""
    asked: list[str] = []
    read = harness.store.read

    async def counted(work: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(getattr(work, "__name__", ""))
        return await read(work, *args, **kwargs)

    harness.store.read = counted  # type: ignore[method-assign]
    harness.arrive("lab-1")
    async with harness.running():
        await harness.until_over("lab-1")
    of_the_run = Counter(asked)
    assert of_the_run["earlier"] <= 1, of_the_run
    assert of_the_run["steps"] <= 1, of_the_run


async def test_a_step_can_ask_whether_the_folder_came_before(harness: Harness) -> None:
    """By its name, among ended jobs."""
    told: list[bool] = []

    async def ask(ctx: StepContext) -> StepResult:
        told.append(await ctx.came_before())
        return Done()

    harness.worker.plays["second"] = ask
    async with harness.running():
        for number in (1, 2):
            harness.arrive("lab-1")
            harness.offer()
            await harness.until(lambda n=number: len(told) == n and harness.where("lab-1") == ["done"])
            shutil.rmtree(harness.stations.folder(Station.DONE, b"lab-1"))
    assert told == [False, True]


async def test_a_step_knows_what_happened_before_it(harness: Harness) -> None:
    """What the job and the steps before have recorded, in order, and the same again after a failure."""
    told: list[list[tuple[str, str]]] = []

    async def note(ctx: StepContext) -> StepResult:
        ctx.event(Event(type=EventType.VALIDATION, outcome="success", detail="seen", agent="a 1"))
        return Done()

    async def ask(ctx: StepContext) -> StepResult:
        told.append([(event.step, event.type) for event in await ctx.history()])
        ctx.event(Event(type=EventType.FIXITY, outcome="failure", detail="mine", agent="a 1"))
        if len(told) == 1:
            raise ItemError("the first time it fails")
        return Done()

    harness.worker.plays |= {"first": note, "second": ask, "third": note}
    harness.arrive("lab-1")
    async with harness.running():
        await harness.until_over("lab-1")
        await harness.ask("retry", "lab-1")
        await harness.until(lambda: harness.where("lab-1") == ["done"])
    assert told[0][-1] == ("first", "validation")
    assert ("", "ingestion start") in told[0]
    assert [one for one in told[1] if one[0]] == [("first", "validation")]


async def test_a_folder_goes_through_every_step_to_done(harness: Harness) -> None:
    """The story of a job: claimed, three steps in order, done, with a receipt."""
    harness.arrive("lab-1", {"a.txt": "hello", "sub": {"b.bin": b"\0" * 300_000}, "empty": {}})
    async with harness.running():
        job = await harness.until_over("lab-1")
    assert job.state is JobState.DONE
    assert harness.worker.ran == [("lab-1", "first"), ("lab-1", "second"), ("lab-1", "third")]
    assert harness.where("lab-1") == ["done"]
    assert read_tree(harness.stations.folder(Station.DONE, b"lab-1"))[b"sub/b.bin"] == b"\0" * 300_000
    found = json.loads(receipt.path_of(harness.stations.receipts, job).read_bytes())
    assert found["state"] == "done"
    assert [f["path"] for f in found["manifest"]["files"]] == ["a.txt", "sub/b.bin"]
    assert found["manifest"]["files"][0]["sha256"] == (
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    )
    assert [e["type"] for e in found["events"]] == [
        EventType.INGESTION_START,
        EventType.DIGEST,
        EventType.INGESTION_END,
    ]
    assert [event for event, _ in harness.told] == ["done"]


async def test_done_steps_are_not_run_again_after_an_interruption(harness: Harness) -> None:
    """A stop in the second step: the next start resumes there."""
    harness.arrive("x")
    reached = hang_in(harness, "second")
    async with harness.running():
        await reached.wait()
    assert harness.where("x") == ["processing"]
    del harness.worker.plays["second"]
    again = Harness(harness.root)
    async with again.running():
        job = await again.until_over("x")
    assert job.state is JobState.DONE
    assert [step for _, step in again.worker.ran] == ["second", "third"]
    again.store.close()


async def test_an_item_error_ends_in_failed_with_a_reason(harness: Harness) -> None:
    """The reason file says what, where, what to do, and the exact command."""
    harness.arrive("x")

    async def refuse(ctx: StepContext) -> StepResult:
        raise ItemError("the image is truncated", where="a.tif", hint="Scan it again")

    harness.worker.plays["second"] = refuse
    async with harness.running():
        job = await harness.until_over("x")
    assert job.state is JobState.FAILED
    assert harness.where("x") == ["failed"]
    reason = harness.stations.reason_path(b"x").read_text()
    for part in ("the image is truncated", "a.tif", "Scan it again", f"dittohead retry {job.id}"):
        assert part in reason
    assert job.reason == "step second: a.tif: the image is truncated. Scan it again"
    assert harness.steps(job)[1].state is StepState.FAILED
    assert harness.told[-1][0] == "failed"


async def test_a_retry_goes_on_from_the_failed_step(harness: Harness) -> None:
    """The same job, its earlier steps kept, its reason file gone, its history in one receipt."""
    harness.arrive("x")

    async def refuse(ctx: StepContext) -> StepResult:
        raise ItemError("no")

    harness.worker.plays["third"] = refuse
    async with harness.running():
        failed = await harness.until_over("x")
        harness.worker.plays.clear()
        answer = await harness.ask("retry", "x")
        assert answer == {"ok": True, "message": "x: tried again from step third"}
        await harness.until(lambda: harness.job("x").station is Station.DONE)
    assert harness.job("x").id == failed.id
    assert [s for _, s in harness.worker.ran] == ["first", "second", "third", "third"]
    assert not harness.stations.reason_path(b"x").exists()
    found = json.loads(receipt.path_of(harness.stations.receipts, failed).read_bytes())
    assert [e["outcome"] for e in found["events"] if e["type"] == EventType.INGESTION_END] == [
        "failure",
        "success",
    ]


async def test_a_retry_says_that_the_configuration_has_changed_since_the_claim(harness: Harness) -> None:
    """Anyone who has corrected an address in config.yaml expects it to be used, and it is not."""
    harness.arrive("x")

    async def refuse(ctx: StepContext) -> StepResult:
        raise ItemError("no")

    harness.worker.plays["third"] = refuse
    async with harness.running():
        job = await harness.until_over("x")
        text = (harness.root / "config.yaml").read_text()
        (harness.root / "config.yaml").write_text(text.replace("name: third", "name: third, do: otherwise"))
        harness.config = load(harness.root / "config.yaml", harness.workers)
        said = (await harness.ask("retry", "x"))["message"]
    assert "options it was claimed with" in said
    assert "others by now for third." in said
    assert said.endswith(f"dittohead rerun {job.id}")


async def test_a_folder_that_was_mended_is_a_new_job_and_no_retry(harness: Harness) -> None:
    """Its manifest names another; what to do instead is one command."""
    folder = harness.arrive("x", {"good.tif": "1", "bad.tif": "2"})

    async def refuse(ctx: StepContext) -> StepResult:
        raise ItemError("no image", where="bad.tif")

    harness.worker.plays["second"] = refuse
    async with harness.running():
        job = await harness.until_over("x")
        failed = harness.stations.folder(Station.FAILED, b"x")
        (failed / "bad.tif").unlink()
        answer = await harness.ask("retry", "x")
        assert not answer["ok"]
        assert "x is not what it was at the claim any more (bad.tif: this was removed" in answer["message"]
        assert f"mv {failed} {folder.parent}/" in answer["message"]
        assert harness.job("x").state is JobState.FAILED
        harness.worker.plays.clear()
        failed.rename(folder)
        harness.offer()
        await harness.until(lambda: harness.job("x").state is JobState.DONE)
    assert harness.job("x").id != job.id


async def test_what_is_told_during_a_look_at_the_rows_is_looked_at_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends while the rows are read leaves a job ready that the reading left out."""
    looks = []
    read = harness.store.read

    async def told_meanwhile(work: Any, *args: Any) -> Any:
        found = await read(work, *args)
        if work is job_store.ready:
            looks.append(work)
            if len(looks) == 1:
                harness.dispatch.wake()
        return found

    monkeypatch.setattr(harness.store, "read", told_meanwhile)
    async with harness.running():
        await harness.until(lambda: len(looks) == 2)


async def test_a_retry_is_not_offered_where_nothing_can_be_tried(harness: Harness) -> None:
    """A folder that no pipeline fits: only another name helps."""
    harness.arrive("!x")
    async with harness.running():
        await harness.until_over("!x")
        assert "dittohead retry" not in harness.stations.reason_path(b"!x").read_text()
        answer = await harness.ask("retry", "!x")
    assert not answer["ok"]
    assert "has no steps to be tried" in answer["message"]


async def test_a_failure_that_a_later_job_of_the_folder_took_up_needs_nobody(harness: Harness) -> None:
    """`status` shows what somebody has still to look at, and how many more there are."""

    async def refuse(ctx: StepContext) -> StepResult:
        raise ItemError("no")

    harness.worker.plays["second"] = refuse
    async with harness.running():
        for n in range(7):
            harness.arrive(f"x{n}")
        harness.offer()
        for n in range(7):
            await harness.until(lambda n=n: bool(harness.jobs(f"x{n}")))
            await harness.until_over(f"x{n}")
        shown = harness.store.run(queries.overview)
        assert (len(shown["failed"]), shown["failed_count"]) == (5, 7)
        harness.worker.plays.clear()
        await harness.ask("rerun", "x6")
        harness.offer()
        await harness.until(lambda: harness.job("x6").state is JobState.DONE)
    shown = harness.store.run(queries.overview)
    assert shown["failed_count"] == 6
    assert "x6" not in {job["name"] for job in shown["failed"]}


async def test_a_passing_fault_is_tried_again_until_it_is_no_more(harness: Harness) -> None:
    """Two transient failures, then success: the job is done."""
    harness.arrive("x")
    tries = []

    async def shaky(ctx: StepContext) -> StepResult:
        tries.append(ctx.attempt)
        if len(tries) < 3:
            raise TransientError("the line is busy")
        return Done()

    harness.worker.plays["first"] = shaky
    async with harness.running():
        job = await harness.until_over("x")
    assert job.state is JobState.DONE
    assert tries == [1, 2, 3]


async def test_a_fault_that_does_not_pass_fails_the_job(harness: Harness) -> None:
    """After the policy's tries the reason says how often it was tried."""
    harness.arrive("x")

    async def busy(ctx: StepContext) -> StepResult:
        raise TransientError("the line is busy")

    harness.worker.plays["first"] = busy
    async with harness.running():
        job = await harness.until_over("x")
    assert job.state is JobState.FAILED
    assert "the line is busy (tried 3 times)" in job.reason


async def test_a_defect_of_a_worker_fails_only_its_job(harness: Harness) -> None:
    """An exception nobody foresaw: that folder to failed/, the others go on."""
    harness.arrive("bad")
    harness.arrive("good")

    async def break_(ctx: StepContext) -> StepResult:
        if ctx.name == "bad":
            raise ZeroDivisionError
        return Done()

    harness.worker.plays["first"] = break_
    async with harness.running():
        assert (await harness.until_over("good")).state is JobState.DONE
        bad = await harness.until_over("bad")
    assert bad.error is not None
    assert bad.error.kind == "defect"


async def test_a_waiting_step_holds_no_slot_and_survives_a_restart(harness: Harness) -> None:
    """Hours of waiting are a row with a wake-up time; what the worker saved comes back."""
    harness.arrive("x")

    async def ask(ctx: StepContext) -> StepResult:
        if ctx.saved.get("ticket") is None:
            return Wait(reason="accepted by the remote system?", seconds=3600, state={"ticket": "T1"})
        return Done(detail=ctx.saved["ticket"])

    harness.worker.plays["second"] = ask
    async with harness.running():
        await harness.until(lambda: bool(harness.jobs("x")) and harness.job("x").wake_at is not None)
        await harness.until(lambda: not harness.dispatch.running)
        assert harness.job("x").state is JobState.WAITING
        assert harness.job("x").reason == "accepted by the remote system?"
    again = Harness(harness.root)
    again.worker.plays["second"] = ask
    async with again.running():
        assert (await again.ask("poke", "x"))["ok"]
        job = await again.until_over("x")
    assert job.state is JobState.DONE
    assert again.steps(job)[1].result.detail == "T1"
    assert [s for _, s in again.worker.ran] == ["second", "third"]
    again.store.close()


async def test_a_waiting_step_wakes_by_itself(harness: Harness) -> None:
    """The wake-up time is kept without anybody asking."""
    harness.arrive("x")
    asked: list[float] = []

    async def ask(ctx: StepContext) -> StepResult:
        asked.append(time.time())
        return Done() if len(asked) == 3 else Wait(reason="not yet", seconds=0.05)

    harness.worker.plays["second"] = ask
    async with harness.running():
        await harness.until_over("x")
    assert len(asked) == 3


TARGETS = CONFIG.replace("- script: {name: second}", '- script: {name: second, target: "store-1"}')


async def test_a_step_that_a_person_has_to_decide_about_freezes_its_job(harness: Harness) -> None:
    """Also after a restart; what it has found is kept; thawed, it is run again and knows what it was frozen for."""
    asked: list[dict[str, Any]] = []

    async def decides(ctx: StepContext) -> StepResult:
        if ctx.name != "n":
            return Done()
        asked.append(dict(ctx.saved))
        ctx.event(Event(type=EventType.VALIDATION, outcome="warning", detail="odd", agent="t"))
        return Done() if ctx.saved else Freeze(reason="is this right?", state={"of": "a.txt"})

    harness.worker.plays["second"] = decides
    harness.arrive("n")
    async with harness.running():
        await harness.until(lambda: [job.state for job in harness.jobs("n")] == [JobState.FROZEN])
    (job,) = harness.jobs("n")
    assert job.reason == "is this right?"
    assert [facts["reason"] for event, facts in harness.told if event == "frozen"] == ["is this right?"]
    assert [
        event.detail for event in harness.store.run(job_store.events_of, job.id) if event.detail == "odd"
    ] == ["odd"]
    harness.arrive("another")
    async with harness.running():
        await harness.until_over("another")
    assert asked == [{}]
    await harness.ask("thaw", "n")
    async with harness.running():
        await harness.until_over("n")
    assert harness.job("n").state is JobState.DONE
    assert asked == [{}, {"of": "a.txt"}]
    assert len([event for event, _ in harness.told if event == "frozen"]) == 1


async def test_steps_beside_one_that_is_frozen_go_on_to_their_end(tmp_path: Path) -> None:
    """Then the job is frozen, whatever else waits for a time or a target."""
    steps = (
        "[{script: {name: first}}, {script: {name: second, after: []}}, {script: {name: third, after: []}}]"
    )
    text = f"root: .\npipelines: {{p: {{match: .*, steps: {steps}}}}}\n"
    harness = Harness(tmp_path / "root", text)
    others: list[str] = []

    async def freezes(ctx: StepContext) -> StepResult:
        return Freeze(reason="is this right?", state={"x": 1}) if not ctx.saved else Done()

    async def waits(ctx: StepContext) -> StepResult:
        others.append("waits")
        return Wait(reason="not yet", seconds=3600, state={})

    async def works(ctx: StepContext) -> StepResult:
        others.append("works")
        return Done()

    harness.worker.plays |= {"first": freezes, "second": waits, "third": works}
    harness.arrive("n")
    async with harness.running():
        await harness.until(lambda: [job.state for job in harness.jobs("n")] == [JobState.FROZEN])
    assert sorted(others) == ["waits", "works"]
    states = {step.name: step.state.value for step in harness.steps(harness.job("n"))}
    assert states == {"first": "waiting", "second": "waiting", "third": "done"}
    harness.store.close()


async def test_a_target_that_is_down_is_paused_and_its_jobs_wait(tmp_path, monkeypatch) -> None:
    """No folder fails for it; people are told once; all go on by themselves when it is back."""
    monkeypatch.setattr("dittohead.engine.targets.PROBE_FIRST_S", 0.05)
    harness = Harness(tmp_path, TARGETS)
    for i in range(6):
        harness.arrive(f"x{i}")
    down = True

    async def deliver(ctx: StepContext) -> StepResult:
        if down:
            raise TargetError("the disk is full", where="store-1")
        return Done()

    harness.worker.plays["second"] = deliver
    async with harness.running():
        await harness.until(lambda: len(harness.worker.ran) > 8)
        harness.offer()
        await harness.until(lambda: not harness.dispatch.running)
        assert not [j for j in harness.jobs() if j.state is JobState.FAILED]
        assert harness.targets.paused("store-1") == "store-1: the disk is full"
        harness.offer()
        await harness.until(lambda: bool(harness.dispatch.held) or len(harness.jobs()) == 6)
        down = False
        for i in range(6):
            await harness.until(
                lambda: (harness.offer() or True) and harness.targets.paused("store-1") is None
            )
            await harness.until_over(f"x{i}")
    assert [
        (j.name, j.state.value, j.reason, j.target) for j in harness.jobs() if j.state is not JobState.DONE
    ] == []
    assert [event for event, _ in harness.told if event in ("paused", "resumed")] == ["paused", "resumed"]
    harness.store.close()


async def test_a_file_changed_after_the_claim_is_found_before_the_end(harness: Harness) -> None:
    """Somebody still held the file open: the job fails and says which file."""
    harness.arrive("x", {"a.txt": "hello", "b.txt": "world"})

    async def meddle(ctx: StepContext) -> StepResult:
        (ctx.payload / "b.txt").write_text("WORLD")
        return Done()

    harness.worker.plays["third"] = meddle
    async with harness.running():
        job = await harness.until_over("x")
    assert job.state is JobState.FAILED
    assert "b.txt: this was changed after the folder was handed over" in job.reason


async def test_a_file_only_touched_after_the_claim_is_no_change(harness: Harness) -> None:
    """Chmod and touch leave the bytes: not a failure."""
    harness.arrive("x")

    async def touch(ctx: StepContext) -> StepResult:
        (ctx.payload / "a.txt").chmod(0o600)
        (ctx.payload / "a.txt").touch()
        return Done()

    harness.worker.plays["third"] = touch
    async with harness.running():
        assert (await harness.until_over("x")).state is JobState.DONE


async def test_links_and_special_files_are_refused_by_name(harness: Harness) -> None:
    """Nothing outside the folder is ever read; the technician is told which name it was."""
    harness.arrive("x", {"a.txt": "1", "l": symlink("/etc/passwd"), "p": fifo()})
    async with harness.running():
        job = await harness.until_over("x")
    assert job.state is JobState.FAILED
    assert "'l' is a symbolic link; 'p' is a FIFO" in job.reason
    assert harness.worker.ran == []


async def test_a_folder_no_pipeline_wants_ends_in_failed(harness: Harness) -> None:
    """The reason names the patterns that would have fitted."""
    harness.arrive("!x")
    async with harness.running():
        job = await harness.until_over("!x")
    assert job.state is JobState.FAILED
    assert "no pipeline's match fits" in job.reason
    assert "three (match: [^!].*)" in job.reason


async def test_a_name_that_is_not_utf8_ends_in_failed(harness: Harness) -> None:
    """The watcher and the engine live on, and the name is shown percent-encoded."""
    harness.arrive(b"bad\xff\xfe")
    harness.arrive("good")
    async with harness.running():
        await harness.until_over("good")
        job = await harness.until_over("bad%FF%FE")
    assert job.state is JobState.FAILED
    assert "not UTF-8" in job.reason
    assert harness.where(b"bad\xff\xfe") == ["failed"]


async def test_trouble_with_names_that_are_no_text_ends_in_failed_too(harness: Harness) -> None:
    """The reason, the receipt and the store take it; the folder is not stuck."""
    what: dict[str | bytes, Any] = {"a": "1"}
    for _ in range(300):
        what = {b"\xff": what}
    harness.arrive("deep", what)
    harness.arrive("fifo", {b"\xfe": fifo()})
    async with harness.running():
        assert "nested too deeply" in (await harness.until_over("deep")).reason
        assert "is a FIFO" in (await harness.until_over("fifo")).reason
    assert harness.where("deep") == harness.where("fifo") == ["failed"]


async def test_an_empty_folder_ends_in_failed(harness: Harness) -> None:
    """An upload truncated right at its start."""
    harness.arrive("x", {})
    async with harness.running():
        assert "holds no files" in (await harness.until_over("x")).reason


async def test_the_second_arrival_of_a_name_waits_and_then_gets_a_suffix(harness: Harness) -> None:
    """Never merged, never overwritten; both receipts keep the original name."""
    harness.arrive("x", {"a.txt": "one"})
    hold = asyncio.Event()

    async def wait(ctx: StepContext) -> StepResult:
        await hold.wait()
        return Done()

    harness.worker.plays["first"] = wait
    async with harness.running():
        await harness.until(lambda: bool(harness.worker.ran))
        harness.arrive("x", {"a.txt": "two"})
        harness.offer()
        await harness.until(lambda: b"x" in harness.dispatch.held)
        assert "earlier folder of this name" in harness.dispatch.held[b"x"].reason
        hold.set()
        await harness.until_over("x")
        harness.offer()
        await harness.until(lambda: len(harness.jobs("x")) == 2)
        await harness.until_over("x")
    names = sorted(harness.stations.listing(Station.DONE))
    assert names[0] == b"x"
    assert names[1].startswith(b"x.2")
    assert read_tree(harness.stations.folder(Station.DONE, b"x")) == {b"a.txt": b"one"}
    assert read_tree(harness.stations.folder(Station.DONE, names[1])) == {b"a.txt": b"two"}
    assert {job.name for job in harness.jobs()} == {"x"}


async def test_moving_a_folder_back_to_the_inbox_runs_it_again(harness: Harness) -> None:
    """The admins' recipe, while running; a suffixed folder gets its original name back."""
    harness.arrive("x", {"a.txt": "one"})
    async with harness.running():
        await harness.until_over("x")
        harness.arrive("x", {"a.txt": "two"})
        harness.offer()
        await harness.until(lambda: len(harness.jobs("x")) == 2)
        await harness.until_over("x")
        suffixed = max(harness.stations.listing(Station.DONE))
        harness.stations.folder(Station.DONE, suffixed).rename(
            harness.stations.folder(Station.INBOX, suffixed)
        )
        harness.offer()
        await harness.until(lambda: len(harness.jobs("x")) == 3)
        await harness.until_over("x")
    assert len({job.id for job in harness.jobs("x")}) == 3


async def test_freeze_stops_a_running_job_and_thaw_lets_it_go_on(harness: Harness) -> None:
    """A frozen job holds no slot and says by whom and why."""
    harness.arrive("x")
    reached = hang_in(harness, "second")
    async with harness.running():
        await reached.wait()
        assert (await harness.ask("freeze", "x", reason="rights unclear"))["ok"]
        assert harness.job("x").state is JobState.FROZEN
        assert harness.job("x").reason == "frozen by tester: rights unclear"
        assert not harness.dispatch.running
        harness.worker.plays.clear()
        assert (await harness.ask("thaw", "x"))["ok"]
        assert (await harness.until_over("x")).state is JobState.DONE


async def test_cancel_ends_a_job_in_failed(harness: Harness) -> None:
    """A running step is stopped; the folder can be retried."""
    harness.arrive("x")
    reached = hang_in(harness, "second")
    async with harness.running():
        await reached.wait()
        assert (await harness.ask("cancel", "x"))["ok"]
        assert harness.where("x") == ["failed"]
        assert harness.job("x").reason.endswith(f"To go on after all: dittohead retry {harness.job('x').id}")
        harness.worker.plays.clear()
        assert (await harness.ask("retry", "x"))["ok"]
        await harness.until(lambda: harness.job("x").station is Station.DONE)


async def test_rerun_from_a_step_keeps_what_earlier_steps_made(harness: Harness) -> None:
    """The same job runs again from there; its outputs before that are used, not made again."""
    harness.arrive("x")

    async def make(ctx: StepContext) -> StepResult:
        (ctx.work / "made").write_bytes(b"123")
        ctx.output(Output(path=b"made", size=3, sha256="0" * 64))
        return Done()

    harness.worker.plays["first"] = make
    async with harness.running():
        await harness.until_over("x")
        assert (await harness.ask("rerun", "x", **{"from": "second"}))["ok"]
        await harness.until(lambda: len(harness.worker.ran) == 5)
        await harness.until(lambda: harness.job("x").station is Station.DONE)
    assert [s for _, s in harness.worker.ran] == ["first", "second", "third", "second", "third"]


async def test_what_a_step_made_is_made_again_when_it_was_lost(harness: Harness) -> None:
    """work/ may be emptied by hand at any time: at worst steps repeat."""
    harness.arrive("x")

    async def make(ctx: StepContext) -> StepResult:
        (ctx.work / "made").write_bytes(b"123")
        ctx.output(Output(path=b"made", size=3, sha256="0" * 64))
        return Done()

    harness.worker.plays["first"] = make
    async with harness.running():
        job = await harness.until_over("x")
        shutil.rmtree(harness.stations.work / job.id / "first")
        assert (await harness.ask("rerun", "x", **{"from": "third"}))["ok"]
        await harness.until(lambda: harness.worker.ran.count(("x", "first")) == 2)
        await harness.until(lambda: harness.job("x").station is Station.DONE)


async def test_a_result_of_an_earlier_run_is_refused(harness: Harness) -> None:
    """The fencing token: what a superseded run would commit changes nothing."""
    harness.arrive("x")
    reached, go = asyncio.Event(), asyncio.Event()

    async def slow(ctx: StepContext) -> StepResult:
        if reached.is_set():
            return Done(detail="fresh")
        reached.set()
        await go.wait()
        return Done(detail="late")

    harness.worker.plays["first"] = slow
    async with harness.running():
        await reached.wait()
        # Another host takes the job over while this run is stuck.
        await harness.store.write(job_store.begin_run, harness.job("x").id)
        go.set()
        job = await harness.until_over("x")
    assert harness.steps(job)[0].result.detail == "fresh"


async def test_one_persons_many_folders_do_not_starve_anothers(tmp_path) -> None:
    """With two slots and fifty folders of one uid, another uid's folder is among the next two."""
    harness = Harness(tmp_path, CONFIG.replace("jobs: 4", "jobs: 2"))
    for i in range(50):
        harness.arrive(f"bulk-{i:02}")
    harness.arrive("single")
    arrivals = [
        a
        if a.folder != b"single"
        else type(a)(folder=a.folder, dev=a.dev, ino=a.ino, uid=a.uid + 1, seen_at=a.seen_at + 100)
        for a in harness.stations.scan().arrivals
    ]
    harness.stations.scan = lambda: None  # type: ignore[assignment,method-assign,return-value]
    task = asyncio.create_task(harness.dispatch.run())
    harness.dispatch.offer(arrivals)
    await harness.until(lambda: len(harness.jobs()) == 51)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    order = [job.name for job in reversed(harness.jobs())]
    assert order.index("single") <= 2
    harness.store.close()


async def test_an_interruption_after_the_last_commit_leaves_the_job_done(harness: Harness) -> None:
    """A stop in the moment between the commit and the end of the run does not resurrect the job."""
    harness.arrive("x")
    async with harness.running():
        job = await harness.until_over("x")
    with pytest.raises(Superseded):
        await harness.store.write(job_store.interrupt, job.id, job.token)
    assert harness.job("x").state is JobState.DONE


async def test_a_nearly_full_target_is_told_once(harness: Harness) -> None:
    """Again only after it had room in between."""
    used = 0.95

    async def deliver(ctx: StepContext) -> StepResult:
        ctx.full("/study/lab1", used, 1000)
        return Done()

    harness.worker.plays["first"] = deliver
    async with harness.running():
        for name, used in (("a", 0.95), ("b", 0.97), ("c", 0.88), ("d", 0.5), ("e", 0.93)):  # noqa: B007
            harness.arrive(name)
            harness.offer()
            await harness.until(lambda name=name: bool(harness.jobs(name)))
            await harness.until_over(name)
    assert [round(f["percent"]) for e, f in harness.told if e == "nearly_full"] == [95, 93]


async def test_a_target_that_is_resumed_while_a_job_is_laid_aside_for_it_holds_nothing_up(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another job's success in the moment between the pause and its record."""
    errors = [TargetError("down")]

    async def fail(ctx: StepContext) -> StepResult:
        if errors:
            raise errors.pop()
        return Done()

    harness.worker.plays["first"] = fail
    pause = harness.targets.pause

    async def pause_and_resume(name: str, reason: str, **more: bool) -> None:
        await pause(name, reason)
        await harness.targets.resume(name)

    monkeypatch.setattr(harness.targets, "pause", pause_and_resume)
    harness.arrive("x")
    async with harness.running():
        assert (await harness.until_over("x")).state is JobState.DONE


async def test_a_target_with_a_place_for_each_folder_is_nearly_full_once(tmp_path: Path) -> None:
    """Whatever the deliveries call their places, it is one disk."""
    harness = Harness(tmp_path / "root", CONFIG.replace("{name: first}", "{name: first, target: /study}"))

    async def deliver(ctx: StepContext) -> StepResult:
        ctx.full(f"/study/{ctx.name}", 0.95, 1000)
        return Done()

    harness.worker.plays["first"] = deliver
    async with harness.running():
        for name in ("a", "b"):
            harness.arrive(name)
            harness.offer()
            await harness.until(lambda name=name: bool(harness.jobs(name)))
            await harness.until_over(name)
    assert [f["target"] for e, f in harness.told if e == "nearly_full"] == ["/study"]
    harness.store.close()


async def test_a_step_that_kills_the_daemon_again_and_again_is_frozen(harness: Harness) -> None:
    """Five deaths in one step, and the folder is set aside instead of the service."""
    harness.arrive("x")
    reached = hang_in(harness, "second")
    async with harness.running():
        await reached.wait()
        job = harness.job("x")
    for _ in range(5):
        await harness.store.write(job_store.begin_run, job.id)
        await harness.store.write(job_store.start_step, job.id, harness.job("x").token, 1)
        await harness.store.write(suspect_store.take_over)  # at the start after a kill
    again = Harness(harness.root)
    async with again.running():
        await again.until(lambda: again.job("x").state is JobState.FROZEN)
        assert "died 5 times during step second" in again.job("x").reason
        assert [facts["reason"] for event, facts in again.told if event == "frozen"] == [
            again.job("x").reason
        ]
        assert (await again.ask("thaw", "x"))["ok"]
        await again.until_over("x")
    again.store.close()


SOURCES = """
root: .
pipelines:
  p:
    match: ".*"
    steps:
      - command: {name: make, argv: [sh, -c, 'cp "$1/a.txt" "$2/made.txt"', make, "{source}", "{work}"]}
      - command: {name: take, from: make, argv: [sh, -c, 'test "$1" = "$DITTOHEAD_SOURCE" && cp "$1/made.txt" taken', take, "{source}"]}
"""


async def test_a_program_is_told_where_the_files_are_that_it_takes(tmp_path: Path) -> None:
    """The payload's for a step without `from`, else those the named step has made; also by the environment."""
    harness = Harness(tmp_path, SOURCES)
    harness.arrive("x", {"a.txt": "hello"})
    async with harness.running():
        job = await harness.until_over("x")
    assert job.state is JobState.DONE, job.reason
    assert (harness.stations.work / job.id / "take" / "taken").read_text() == "hello"
