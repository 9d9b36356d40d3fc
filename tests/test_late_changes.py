"""A look at done/ some time after the end: what came after it is recorded, marked and told, once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from dittohead.admin.housekeeping import Housekeeper
from dittohead.admin.late_changes import LateChangeCheck
from dittohead.model.states import JobState
from tests.support.harness import CONFIG, Harness

AFTER_S = 0.2


@pytest.fixture
async def harness(tmp_path: Path) -> Harness:
    """One whose looks have begun, and which has done a folder."""
    made = Harness(tmp_path)
    await LateChangeCheck(made.engine, lambda: AFTER_S).round(AFTER_S)
    await done(made, "x")
    return made


async def done(harness: Harness, name: str) -> None:
    harness.arrive(name, {"a": b"1", "d": {"b": b"2"}})
    async with harness.running():
        await harness.until_over(name)


async def looked_at(harness: Harness, after_s: float = AFTER_S) -> list[str]:
    """Let the time pass, look, and return the events of late changes."""
    await asyncio.sleep(after_s)
    await LateChangeCheck(harness.engine, lambda: after_s).round(after_s)  # as after a restart
    (path,) = harness.stations.receipts.glob("x.*.json")
    events = json.loads(path.read_bytes())["events"]
    return [event["detail"] for event in events if event["detail"].startswith("late change")]


async def test_what_comes_after_the_end_is_recorded_marked_and_told_once(harness: Harness) -> None:
    folder = harness.root / "done" / "x"
    (folder / "late").write_bytes(b"3")
    with open(folder / "a", "ab") as file:
        file.write(b"more")
    (said,) = await looked_at(harness)
    assert "2 files came or changed in done/ after the end and were not delivered" in said
    assert said.endswith("a: changed, late: added")
    job = harness.job("x")
    assert (job.state, job.reason) == (JobState.DONE, said)
    told = [facts for event, facts in harness.told if event == "late_change"]
    assert [(facts["count"], facts["job"].id) for facts in told] == [(2, job.id)]
    (harness.stations.state / "late-look.json").write_text(json.dumps({"until": 0}))
    assert await looked_at(harness) == [said]
    assert len([event for event, _ in harness.told if event == "late_change"]) == 1


async def test_what_stays_as_it_was_costs_no_transaction(harness: Harness) -> None:
    """Nor does a mere chmod or touch change anything; what was taken out did not come late."""
    folder = harness.root / "done" / "x"
    (folder / "a").chmod(0o600)
    os.utime(folder / "d" / "b")
    harness.store.write = None  # type: ignore[method-assign,assignment]
    assert await looked_at(harness) == []
    shutil.rmtree(folder / "d")
    (harness.stations.state / "late-look.json").write_text(json.dumps({"until": 0}))
    assert await looked_at(harness) == []


async def test_a_folder_that_has_left_done_is_no_alarm(harness: Harness) -> None:
    """Moved away, back to the inbox, or replaced by another of its name."""
    folder = harness.root / "done" / "x"
    folder.rename(harness.root / "aside")
    folder.mkdir()
    (folder / "other").write_bytes(b"")
    assert await looked_at(harness) == []


async def test_a_folder_that_was_done_again_is_compared_with_its_last_job(harness: Harness) -> None:
    (harness.root / "done" / "x" / "more").write_bytes(b"3")
    await harness.ask("rerun", "x")
    async with harness.running():
        await harness.until(lambda: len(harness.jobs("x")) == 2)
        await harness.until_over("x")
    await looked_at_all(harness)
    assert [event for event, _ in harness.told if event == "late_change"] == []


async def test_a_clock_that_was_set_back_hides_nothing(harness: Harness) -> None:
    late = harness.stations.state / "late-look.json"
    late.write_text(json.dumps({"until": time.time() + 3600}))
    await looked_at_all(harness)
    await done(harness, "y")
    (harness.root / "done" / "y" / "late").write_bytes(b"3")
    await looked_at_all(harness)
    assert [facts["job"].name for event, facts in harness.told if event == "late_change"] == ["y"]


async def test_a_damaged_folder_receipt_or_manifest_stops_no_other_look(harness: Harness) -> None:
    await done(harness, "y")
    (harness.root / "done" / "x" / "late").write_bytes(b"3")
    (harness.root / "done" / "y" / "late").write_bytes(b"3")
    (harness.stations.work / harness.job("x").id / "manifest.jsonl").write_text("{")
    for receipt in harness.stations.receipts.glob("y.*.json"):
        receipt.write_text("no receipt")
    await looked_at_all(harness)
    assert [facts["job"].name for event, facts in harness.told if event == "late_change"] == ["y"]


async def looked_at_all(harness: Harness) -> None:
    await asyncio.sleep(AFTER_S)
    await LateChangeCheck(harness.engine, lambda: AFTER_S).round(AFTER_S)


async def test_the_manifest_is_kept_for_the_late_look_though_work_is_not(tmp_path: Path) -> None:
    harness = Harness(tmp_path, CONFIG.replace('match: "[^!].*"', 'match: "[^!].*"\n    keep_work: 0'))
    await done(harness, "x")
    home = harness.stations.work / harness.job("x").id
    (home / "first").mkdir(exist_ok=True)
    await Housekeeper(harness.engine, harness.config.settings.watch, lambda: None).work_round()
    assert (home / "manifest.jsonl").exists()
    assert not (home / "first").exists()
    never = harness.config.settings.watch.model_copy(update={"late_look": 0.0})
    await Housekeeper(harness.engine, never, lambda: None).work_round()
    assert not home.exists()
