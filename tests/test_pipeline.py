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
from dittohead.contract.worker import Done, StepContext, StepResult, Wait
from dittohead.folders import receipt
from dittohead.model.errors import ItemError, Superseded, TargetError, TransientError
from dittohead.model.events import EventType
from dittohead.model.records import Output
from dittohead.model.states import JobState, Station, StepState
from dittohead.store import jobs as job_store
from dittohead.store import queries
from dittohead.store import suspects as suspect_store
from tests.support.house import CONFIG, House
from tests.support.trees import fifo, read_tree, symlink

pytestmark = pytest.mark.usefixtures("nothing_blocks_the_loop")


def hang_in(house: House, step: str) -> asyncio.Event:
    """Make a step never end; the event is set when it is reached."""
    reached = asyncio.Event()

    async def hang(ctx: StepContext) -> StepResult:
        reached.set()
        await asyncio.Event().wait()
        return Done()

    house.worker.plays[step] = hang
    return reached


async def test_what_a_folder_costs_the_store_does_not_grow_unseen(house: House) -> None:
    """Three steps: a few reads for the whole run, and none for each step."""
    asked: list[str] = []
    read = house.store.read

    async def counted(work: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(getattr(work, "__name__", ""))
        return await read(work, *args, **kwargs)

    house.store.read = counted  # type: ignore[method-assign]
    house.arrive("lab-1")
    async with house.running():
        await house.until_over("lab-1")
    of_the_run = Counter(asked)
    assert of_the_run["earlier"] <= 1, of_the_run
    assert of_the_run["steps"] <= 1, of_the_run


async def test_a_step_can_ask_whether_the_folder_came_before(house: House) -> None:
    """By its name, among ended jobs."""
    told: list[bool] = []

    async def ask(ctx: StepContext) -> StepResult:
        told.append(await ctx.came_before())
        return Done()

    house.worker.plays["second"] = ask
    async with house.running():
        for number in (1, 2):
            house.arrive("lab-1")
            house.look()
            await house.until(lambda n=number: len(told) == n and house.where("lab-1") == ["done"])
            shutil.rmtree(house.stations.folder(Station.DONE, b"lab-1"))
    assert told == [False, True]


async def test_a_folder_goes_through_every_step_to_done(house: House) -> None:
    """The story of a job: claimed, three steps in order, done, with a receipt."""
    house.arrive("lab-1", {"a.txt": "hello", "sub": {"b.bin": b"\0" * 300_000}, "empty": {}})
    async with house.running():
        job = await house.until_over("lab-1")
    assert job.state is JobState.DONE
    assert house.worker.ran == [("lab-1", "first"), ("lab-1", "second"), ("lab-1", "third")]
    assert house.where("lab-1") == ["done"]
    assert read_tree(house.stations.folder(Station.DONE, b"lab-1"))[b"sub/b.bin"] == b"\0" * 300_000
    found = json.loads(receipt.path_of(house.stations.receipts, job).read_bytes())
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
    assert [event for event, _ in house.told] == ["done"]


async def test_done_steps_are_not_run_again_after_an_interruption(house: House) -> None:
    """A stop in the second step: the next start resumes there."""
    house.arrive("x")
    reached = hang_in(house, "second")
    async with house.running():
        await reached.wait()
    assert house.where("x") == ["processing"]
    del house.worker.plays["second"]
    again = House(house.root)
    async with again.running():
        job = await again.until_over("x")
    assert job.state is JobState.DONE
    assert [step for _, step in again.worker.ran] == ["second", "third"]
    again.store.close()


async def test_an_item_error_ends_in_failed_with_a_reason(house: House) -> None:
    """The reason file says what, where, what to do, and the exact command."""
    house.arrive("x")

    async def refuse(ctx: StepContext) -> StepResult:
        raise ItemError("the image is truncated", where="a.tif", hint="Scan it again")

    house.worker.plays["second"] = refuse
    async with house.running():
        job = await house.until_over("x")
    assert job.state is JobState.FAILED
    assert house.where("x") == ["failed"]
    reason = house.stations.reason_path(b"x").read_text()
    for part in ("the image is truncated", "a.tif", "Scan it again", f"dittohead retry {job.id}"):
        assert part in reason
    assert job.reason == "step second: a.tif: the image is truncated. Scan it again"
    assert house.steps(job)[1].state is StepState.FAILED
    assert house.told[-1][0] == "failed"


async def test_a_retry_goes_on_from_the_failed_step(house: House) -> None:
    """The same job, its earlier steps kept, its reason file gone, its history in one receipt."""
    house.arrive("x")

    async def refuse(ctx: StepContext) -> StepResult:
        raise ItemError("no")

    house.worker.plays["third"] = refuse
    async with house.running():
        failed = await house.until_over("x")
        house.worker.plays.clear()
        answer = await house.ask("retry", "x")
        assert answer == {"ok": True, "message": "x: tried again from step third"}
        await house.until(lambda: house.job("x").station is Station.DONE)
    assert house.job("x").id == failed.id
    assert [s for _, s in house.worker.ran] == ["first", "second", "third", "third"]
    assert not house.stations.reason_path(b"x").exists()
    found = json.loads(receipt.path_of(house.stations.receipts, failed).read_bytes())
    assert [e["outcome"] for e in found["events"] if e["type"] == EventType.INGESTION_END] == [
        "failure",
        "success",
    ]


async def test_a_retry_says_that_the_configuration_has_changed_since_the_claim(house: House) -> None:
    """Anyone who has corrected an address in config.yaml expects it to be used, and it is not."""
    house.arrive("x")

    async def refuse(ctx: StepContext) -> StepResult:
        raise ItemError("no")

    house.worker.plays["third"] = refuse
    async with house.running():
        job = await house.until_over("x")
        text = (house.root / "config.yaml").read_text()
        (house.root / "config.yaml").write_text(text.replace("name: third", "name: third, do: otherwise"))
        house.config = load(house.root / "config.yaml", house.workers)
        said = (await house.ask("retry", "x"))["message"]
    assert "options it was claimed with" in said
    assert "others by now for third." in said
    assert said.endswith(f"dittohead rerun {job.id}")


async def test_a_folder_that_was_mended_is_a_new_job_and_no_retry(house: House) -> None:
    """Its manifest names another; what to do instead is one command."""
    folder = house.arrive("x", {"good.tif": "1", "bad.tif": "2"})

    async def refuse(ctx: StepContext) -> StepResult:
        raise ItemError("no image", where="bad.tif")

    house.worker.plays["second"] = refuse
    async with house.running():
        job = await house.until_over("x")
        failed = house.stations.folder(Station.FAILED, b"x")
        (failed / "bad.tif").unlink()
        answer = await house.ask("retry", "x")
        assert not answer["ok"]
        assert "x is not what it was at the claim any more (bad.tif: this was removed" in answer["message"]
        assert f"mv {failed} {folder.parent}/" in answer["message"]
        assert house.job("x").state is JobState.FAILED
        house.worker.plays.clear()
        failed.rename(folder)
        house.look()
        await house.until(lambda: house.job("x").state is JobState.DONE)
    assert house.job("x").id != job.id


async def test_what_is_told_during_a_look_at_the_rows_is_looked_at_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends while the rows are read leaves a job ready that the reading left out."""
    looks = []
    read = house.store.read

    async def told_meanwhile(work: Any, *args: Any) -> Any:
        found = await read(work, *args)
        if work is job_store.ready:
            looks.append(work)
            if len(looks) == 1:
                house.dispatch.wake()
        return found

    monkeypatch.setattr(house.store, "read", told_meanwhile)
    async with house.running():
        await house.until(lambda: len(looks) == 2)


async def test_a_retry_is_not_offered_where_nothing_can_be_tried(house: House) -> None:
    """A folder that no pipeline fits: only another name helps."""
    house.arrive("!x")
    async with house.running():
        await house.until_over("!x")
        assert "dittohead retry" not in house.stations.reason_path(b"!x").read_text()
        answer = await house.ask("retry", "!x")
    assert not answer["ok"]
    assert "has no steps to be tried" in answer["message"]


async def test_a_failure_that_a_later_job_of_the_folder_took_up_needs_nobody(house: House) -> None:
    """`status` shows what somebody has still to look at, and how many more there are."""

    async def refuse(ctx: StepContext) -> StepResult:
        raise ItemError("no")

    house.worker.plays["second"] = refuse
    async with house.running():
        for n in range(7):
            house.arrive(f"x{n}")
        house.look()
        for n in range(7):
            await house.until(lambda n=n: bool(house.jobs(f"x{n}")))
            await house.until_over(f"x{n}")
        shown = house.store.run(queries.overview)
        assert (len(shown["failed"]), shown["failed_count"]) == (5, 7)
        house.worker.plays.clear()
        await house.ask("rerun", "x6")
        house.look()
        await house.until(lambda: house.job("x6").state is JobState.DONE)
    shown = house.store.run(queries.overview)
    assert shown["failed_count"] == 6
    assert "x6" not in {job["name"] for job in shown["failed"]}


async def test_a_passing_fault_is_tried_again_until_it_is_no_more(house: House) -> None:
    """Two transient failures, then success: the job is done."""
    house.arrive("x")
    tries = []

    async def shaky(ctx: StepContext) -> StepResult:
        tries.append(ctx.attempt)
        if len(tries) < 3:
            raise TransientError("the line is busy")
        return Done()

    house.worker.plays["first"] = shaky
    async with house.running():
        job = await house.until_over("x")
    assert job.state is JobState.DONE
    assert tries == [1, 2, 3]


async def test_a_fault_that_does_not_pass_fails_the_job(house: House) -> None:
    """After the policy's tries the reason says how often it was tried."""
    house.arrive("x")

    async def busy(ctx: StepContext) -> StepResult:
        raise TransientError("the line is busy")

    house.worker.plays["first"] = busy
    async with house.running():
        job = await house.until_over("x")
    assert job.state is JobState.FAILED
    assert "the line is busy (tried 3 times)" in job.reason


async def test_a_defect_of_a_worker_fails_only_its_job(house: House) -> None:
    """An exception nobody foresaw: that folder to failed/, the others go on."""
    house.arrive("bad")
    house.arrive("good")

    async def break_(ctx: StepContext) -> StepResult:
        if ctx.name == "bad":
            raise ZeroDivisionError
        return Done()

    house.worker.plays["first"] = break_
    async with house.running():
        assert (await house.until_over("good")).state is JobState.DONE
        bad = await house.until_over("bad")
    assert bad.error is not None
    assert bad.error.kind == "defect"


async def test_a_waiting_step_holds_no_slot_and_survives_a_restart(house: House) -> None:
    """Hours of waiting are a row with a wake-up time; what the worker saved comes back."""
    house.arrive("x")

    async def ask(ctx: StepContext) -> StepResult:
        if ctx.saved.get("ticket") is None:
            return Wait(reason="accepted by the remote system?", seconds=3600, state={"ticket": "T1"})
        return Done(detail=ctx.saved["ticket"])

    house.worker.plays["second"] = ask
    async with house.running():
        await house.until(lambda: bool(house.jobs("x")) and house.job("x").wake_at is not None)
        await house.until(lambda: not house.dispatch.running)
        assert house.job("x").state is JobState.WAITING
        assert house.job("x").reason == "accepted by the remote system?"
    again = House(house.root)
    again.worker.plays["second"] = ask
    async with again.running():
        assert (await again.ask("poke", "x"))["ok"]
        job = await again.until_over("x")
    assert job.state is JobState.DONE
    assert again.steps(job)[1].result.detail == "T1"
    assert [s for _, s in again.worker.ran] == ["second", "third"]
    again.store.close()


async def test_a_waiting_step_wakes_by_itself(house: House) -> None:
    """The wake-up time is kept without anybody asking."""
    house.arrive("x")
    asked: list[float] = []

    async def ask(ctx: StepContext) -> StepResult:
        asked.append(time.time())
        return Done() if len(asked) == 3 else Wait(reason="not yet", seconds=0.05)

    house.worker.plays["second"] = ask
    async with house.running():
        await house.until_over("x")
    assert len(asked) == 3


TARGETS = CONFIG.replace("- script: {name: second}", '- script: {name: second, target: "store-1"}')


async def test_a_target_that_is_down_is_paused_and_its_jobs_wait(tmp_path, monkeypatch) -> None:
    """No folder fails for it; people are told once; all go on by themselves when it is back."""
    monkeypatch.setattr("dittohead.engine.targets.PROBE_FIRST_S", 0.05)
    house = House(tmp_path, TARGETS)
    for i in range(6):
        house.arrive(f"x{i}")
    down = True

    async def deliver(ctx: StepContext) -> StepResult:
        if down:
            raise TargetError("the disk is full", where="store-1")
        return Done()

    house.worker.plays["second"] = deliver
    async with house.running():
        await house.until(lambda: len(house.worker.ran) > 8)
        house.look()
        await house.until(lambda: not house.dispatch.running)
        assert not [j for j in house.jobs() if j.state is JobState.FAILED]
        assert house.targets.paused("store-1") == "store-1: the disk is full"
        house.look()
        await house.until(lambda: bool(house.dispatch.held) or len(house.jobs()) == 6)
        down = False
        for i in range(6):
            await house.until(lambda: (house.look() or True) and house.targets.paused("store-1") is None)
            await house.until_over(f"x{i}")
    assert [
        (j.name, j.state.value, j.reason, j.target) for j in house.jobs() if j.state is not JobState.DONE
    ] == []
    assert [event for event, _ in house.told if event in ("paused", "resumed")] == ["paused", "resumed"]
    house.store.close()


async def test_a_file_changed_after_the_claim_is_found_before_the_end(house: House) -> None:
    """Somebody still held the file open: the job fails and says which file."""
    house.arrive("x", {"a.txt": "hello", "b.txt": "world"})

    async def meddle(ctx: StepContext) -> StepResult:
        (ctx.payload / "b.txt").write_text("WORLD")
        return Done()

    house.worker.plays["third"] = meddle
    async with house.running():
        job = await house.until_over("x")
    assert job.state is JobState.FAILED
    assert "b.txt: this was changed after the folder was handed over" in job.reason


async def test_a_file_only_touched_after_the_claim_is_no_change(house: House) -> None:
    """Chmod and touch leave the bytes: not a failure."""
    house.arrive("x")

    async def touch(ctx: StepContext) -> StepResult:
        (ctx.payload / "a.txt").chmod(0o600)
        (ctx.payload / "a.txt").touch()
        return Done()

    house.worker.plays["third"] = touch
    async with house.running():
        assert (await house.until_over("x")).state is JobState.DONE


async def test_links_and_special_files_are_refused_by_name(house: House) -> None:
    """Nothing outside the folder is ever read; the technician is told which name it was."""
    house.arrive("x", {"a.txt": "1", "l": symlink("/etc/passwd"), "p": fifo()})
    async with house.running():
        job = await house.until_over("x")
    assert job.state is JobState.FAILED
    assert "'l' is a symbolic link; 'p' is a FIFO" in job.reason
    assert house.worker.ran == []


async def test_a_folder_no_pipeline_wants_ends_in_failed(house: House) -> None:
    """The reason names the patterns that would have fitted."""
    house.arrive("!x")
    async with house.running():
        job = await house.until_over("!x")
    assert job.state is JobState.FAILED
    assert "no pipeline's match fits" in job.reason
    assert "three (match: [^!].*)" in job.reason


async def test_a_name_that_is_not_utf8_ends_in_failed(house: House) -> None:
    """The watcher and the engine live on, and the name is shown percent-encoded."""
    house.arrive(b"bad\xff\xfe")
    house.arrive("good")
    async with house.running():
        await house.until_over("good")
        job = await house.until_over("bad%FF%FE")
    assert job.state is JobState.FAILED
    assert "not UTF-8" in job.reason
    assert house.where(b"bad\xff\xfe") == ["failed"]


async def test_trouble_with_names_that_are_no_text_ends_in_failed_too(house: House) -> None:
    """The reason, the receipt and the store take it; the folder is not stuck."""
    what: dict[str | bytes, Any] = {"a": "1"}
    for _ in range(300):
        what = {b"\xff": what}
    house.arrive("deep", what)
    house.arrive("fifo", {b"\xfe": fifo()})
    async with house.running():
        assert "nested too deeply" in (await house.until_over("deep")).reason
        assert "is a FIFO" in (await house.until_over("fifo")).reason
    assert house.where("deep") == house.where("fifo") == ["failed"]


async def test_an_empty_folder_ends_in_failed(house: House) -> None:
    """An upload truncated right at its start."""
    house.arrive("x", {})
    async with house.running():
        assert "holds no files" in (await house.until_over("x")).reason


async def test_the_second_arrival_of_a_name_waits_and_then_gets_a_suffix(house: House) -> None:
    """Never merged, never overwritten; both receipts keep the original name."""
    house.arrive("x", {"a.txt": "one"})
    hold = asyncio.Event()

    async def wait(ctx: StepContext) -> StepResult:
        await hold.wait()
        return Done()

    house.worker.plays["first"] = wait
    async with house.running():
        await house.until(lambda: bool(house.worker.ran))
        house.arrive("x", {"a.txt": "two"})
        house.look()
        await house.until(lambda: b"x" in house.dispatch.held)
        assert "earlier folder of this name" in house.dispatch.held[b"x"].reason
        hold.set()
        await house.until_over("x")
        house.look()
        await house.until(lambda: len(house.jobs("x")) == 2)
        await house.until_over("x")
    names = sorted(house.stations.listing(Station.DONE))
    assert names[0] == b"x"
    assert names[1].startswith(b"x.2")
    assert read_tree(house.stations.folder(Station.DONE, b"x")) == {b"a.txt": b"one"}
    assert read_tree(house.stations.folder(Station.DONE, names[1])) == {b"a.txt": b"two"}
    assert {job.name for job in house.jobs()} == {"x"}


async def test_moving_a_folder_back_to_the_inbox_runs_it_again(house: House) -> None:
    """The admins' recipe, while running; a suffixed folder gets its original name back."""
    house.arrive("x", {"a.txt": "one"})
    async with house.running():
        await house.until_over("x")
        house.arrive("x", {"a.txt": "two"})
        house.look()
        await house.until(lambda: len(house.jobs("x")) == 2)
        await house.until_over("x")
        suffixed = max(house.stations.listing(Station.DONE))
        house.stations.folder(Station.DONE, suffixed).rename(house.stations.folder(Station.INBOX, suffixed))
        house.look()
        await house.until(lambda: len(house.jobs("x")) == 3)
        await house.until_over("x")
    assert len({job.id for job in house.jobs("x")}) == 3


async def test_freeze_stops_a_running_job_and_thaw_lets_it_go_on(house: House) -> None:
    """A frozen job holds no slot and says by whom and why."""
    house.arrive("x")
    reached = hang_in(house, "second")
    async with house.running():
        await reached.wait()
        assert (await house.ask("freeze", "x", reason="rights unclear"))["ok"]
        assert house.job("x").state is JobState.FROZEN
        assert house.job("x").reason == "frozen by tester: rights unclear"
        assert not house.dispatch.running
        house.worker.plays.clear()
        assert (await house.ask("thaw", "x"))["ok"]
        assert (await house.until_over("x")).state is JobState.DONE


async def test_cancel_ends_a_job_in_failed(house: House) -> None:
    """A running step is stopped; the folder can be retried."""
    house.arrive("x")
    reached = hang_in(house, "second")
    async with house.running():
        await reached.wait()
        assert (await house.ask("cancel", "x"))["ok"]
        assert house.where("x") == ["failed"]
        assert house.job("x").reason.endswith(f"To go on after all: dittohead retry {house.job('x').id}")
        house.worker.plays.clear()
        assert (await house.ask("retry", "x"))["ok"]
        await house.until(lambda: house.job("x").station is Station.DONE)


async def test_rerun_from_a_step_keeps_what_earlier_steps_made(house: House) -> None:
    """The same job runs again from there; its outputs before that are used, not made again."""
    house.arrive("x")

    async def make(ctx: StepContext) -> StepResult:
        (ctx.work / "made").write_bytes(b"123")
        ctx.output(Output(path=b"made", size=3, sha256="0" * 64))
        return Done()

    house.worker.plays["first"] = make
    async with house.running():
        await house.until_over("x")
        assert (await house.ask("rerun", "x", **{"from": "second"}))["ok"]
        await house.until(lambda: len(house.worker.ran) == 5)
        await house.until(lambda: house.job("x").station is Station.DONE)
    assert [s for _, s in house.worker.ran] == ["first", "second", "third", "second", "third"]


async def test_what_a_step_made_is_made_again_when_it_was_lost(house: House) -> None:
    """work/ may be emptied by hand at any time: at worst steps repeat."""
    house.arrive("x")

    async def make(ctx: StepContext) -> StepResult:
        (ctx.work / "made").write_bytes(b"123")
        ctx.output(Output(path=b"made", size=3, sha256="0" * 64))
        return Done()

    house.worker.plays["first"] = make
    async with house.running():
        job = await house.until_over("x")
        shutil.rmtree(house.stations.work / job.id / "first")
        assert (await house.ask("rerun", "x", **{"from": "third"}))["ok"]
        await house.until(lambda: house.worker.ran.count(("x", "first")) == 2)
        await house.until(lambda: house.job("x").station is Station.DONE)


async def test_a_result_of_an_earlier_run_is_refused(house: House) -> None:
    """The fencing token: what a superseded run would commit changes nothing."""
    house.arrive("x")
    reached, go = asyncio.Event(), asyncio.Event()

    async def slow(ctx: StepContext) -> StepResult:
        if reached.is_set():
            return Done(detail="fresh")
        reached.set()
        await go.wait()
        return Done(detail="late")

    house.worker.plays["first"] = slow
    async with house.running():
        await reached.wait()
        # Another host takes the job over while this run is stuck.
        await house.store.write(job_store.begin_run, house.job("x").id)
        go.set()
        job = await house.until_over("x")
    assert house.steps(job)[0].result.detail == "fresh"


async def test_one_persons_many_folders_do_not_starve_anothers(tmp_path) -> None:
    """With two slots and fifty folders of one uid, another uid's folder is among the next two."""
    house = House(tmp_path, CONFIG.replace("jobs: 4", "jobs: 2"))
    for i in range(50):
        house.arrive(f"bulk-{i:02}")
    house.arrive("single")
    arrivals = [
        a
        if a.folder != b"single"
        else type(a)(folder=a.folder, dev=a.dev, ino=a.ino, uid=a.uid + 1, seen_at=a.seen_at + 100)
        for a in house.stations.scan().arrivals
    ]
    house.stations.scan = lambda: None  # type: ignore[assignment,method-assign,return-value]
    task = asyncio.create_task(house.dispatch.run())
    house.dispatch.offer(arrivals)
    await house.until(lambda: len(house.jobs()) == 51)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    order = [job.name for job in reversed(house.jobs())]
    assert order.index("single") <= 2
    house.store.close()


async def test_an_interruption_after_the_last_commit_leaves_the_job_done(house: House) -> None:
    """A stop in the moment between the commit and the end of the run does not resurrect the job."""
    house.arrive("x")
    async with house.running():
        job = await house.until_over("x")
    with pytest.raises(Superseded):
        await house.store.write(job_store.interrupt, job.id, job.token)
    assert house.job("x").state is JobState.DONE


async def test_a_nearly_full_target_is_told_once(house: House) -> None:
    """Again only after it had room in between."""
    used = 0.95

    async def deliver(ctx: StepContext) -> StepResult:
        ctx.full("/study/lab1", used, 1000)
        return Done()

    house.worker.plays["first"] = deliver
    async with house.running():
        for name, used in (("a", 0.95), ("b", 0.97), ("c", 0.88), ("d", 0.5), ("e", 0.93)):  # noqa: B007
            house.arrive(name)
            house.look()
            await house.until(lambda name=name: bool(house.jobs(name)))
            await house.until_over(name)
    assert [round(f["percent"]) for e, f in house.told if e == "nearly_full"] == [95, 93]


async def test_a_target_that_is_resumed_while_a_job_is_laid_aside_for_it_holds_nothing_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another job's success in the moment between the pause and its record."""
    errors = [TargetError("down")]

    async def fail(ctx: StepContext) -> StepResult:
        if errors:
            raise errors.pop()
        return Done()

    house.worker.plays["first"] = fail
    pause = house.targets.pause

    async def pause_and_resume(name: str, reason: str, **more: bool) -> None:
        await pause(name, reason)
        await house.targets.resume(name)

    monkeypatch.setattr(house.targets, "pause", pause_and_resume)
    house.arrive("x")
    async with house.running():
        assert (await house.until_over("x")).state is JobState.DONE


async def test_a_target_with_a_place_for_each_folder_is_nearly_full_once(tmp_path: Path) -> None:
    """Whatever the deliveries call their places, it is one disk."""
    house = House(tmp_path / "root", CONFIG.replace("{name: first}", "{name: first, target: /study}"))

    async def deliver(ctx: StepContext) -> StepResult:
        ctx.full(f"/study/{ctx.name}", 0.95, 1000)
        return Done()

    house.worker.plays["first"] = deliver
    async with house.running():
        for name in ("a", "b"):
            house.arrive(name)
            house.look()
            await house.until(lambda name=name: bool(house.jobs(name)))
            await house.until_over(name)
    assert [f["target"] for e, f in house.told if e == "nearly_full"] == ["/study"]
    house.store.close()


async def test_a_step_that_kills_the_daemon_again_and_again_is_frozen(house: House) -> None:
    """Five deaths in one step, and the folder is set aside instead of the service."""
    house.arrive("x")
    reached = hang_in(house, "second")
    async with house.running():
        await reached.wait()
        job = house.job("x")
    for _ in range(5):
        await house.store.write(job_store.begin_run, job.id)
        await house.store.write(job_store.start_step, job.id, house.job("x").token, 1)
        await house.store.write(suspect_store.take_over)  # at the start after a kill
    again = House(house.root)
    async with again.running():
        await again.until(lambda: again.job("x").state is JobState.FROZEN)
        assert "died 5 times during step second" in again.job("x").reason
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
    house = House(tmp_path, SOURCES)
    house.arrive("x", {"a.txt": "hello"})
    async with house.running():
        job = await house.until_over("x")
    assert job.state is JobState.DONE, job.reason
    assert (house.stations.work / job.id / "take" / "taken").read_text() == "hello"
