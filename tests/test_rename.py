"""A failed folder gets another name and is done: checked before it moves, recorded in both jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dittohead.folders import receipt
from dittohead.model.states import JobState
from dittohead.store import history
from dittohead.store import jobs as job_store
from tests.support.harness import Harness
from tests.test_outcome import failed, opened


def told(harness: Harness, name: str) -> list[str]:
    """Return what a job's events and its receipt say of names."""
    job = harness.job(name)
    stored = [e.detail for e in harness.store.run(job_store.events_of, job.id) if e.type == "filename change"]
    path = receipt.path_of(harness.stations.receipts, job)
    written = json.loads(path.read_text())["events"]
    assert [event["detail"] for event in written if event["type"] == "filename change"] == stored
    return stored


async def test_a_failed_folder_is_renamed_and_done(harness: Harness) -> None:
    """Both jobs say so, and the failure needs nobody any more."""
    await failed(harness)
    said = await harness.ask("rename", "!x", name="x")
    assert said == {"ok": True, "message": "!x: renamed to x; a new job begins, by the pipeline three"}
    async with harness.running():
        assert (await harness.until_over("x")).state is JobState.DONE
    assert (harness.where("x"), harness.where("!x"), opened(harness)) == (["done"], [], [])
    assert not list((harness.root / "failed").iterdir())
    assert told(harness, "!x") == ["renamed to x by tester"]
    assert told(harness, "x") == ["renamed from !x by tester"]
    assert harness.store.run(history.taken_up_by, harness.job("!x")) == harness.job("x").id
    # Done once more it is a folder of its name like any other.
    assert (await harness.ask("rerun", "x"))["ok"]
    async with harness.running():
        await harness.until(lambda: len(harness.jobs("x")) == 2)
        await harness.until_over("x")
    assert told(harness, "x") == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("!y", "no pipeline's match fits the folder's name"),
        ("!x", "called so already"),
        ("", "a name is required"),
        (".x", "begins with a dot"),
        ("../x", "begins with a dot"),
        ("a/b", "holds a slash"),
        ("x" * 255, "has more than 254 bytes"),
        ("taken", "in the inbox already"),
        ("under-way", "in the inbox already"),
    ],
)
async def test_a_name_that_cannot_be_is_refused_and_nothing_moves(
    harness: Harness, name: str, why: str
) -> None:
    """Not even one that another upload is to have."""
    await failed(harness)
    for there in ("taken", ".under-way"):
        (harness.root / "inbox" / there).mkdir()
    said = await harness.ask("rename", "!x", name=name)
    assert not said["ok"]
    assert why in said["message"]
    assert harness.where("!x") == ["failed"]
    assert opened(harness) == ["!x"]


async def test_only_failures_are_renamed(harness: Harness) -> None:
    """What is done stays what it was delivered as; what is gone cannot be moved."""
    harness.arrive("x")
    async with harness.running():
        await harness.until_over("x")
    said = await harness.ask("rename", "x", name="y")
    assert "has not failed" in said["message"]
    await failed(harness)
    (harness.root / "failed" / "!x").rename(harness.root / "away")
    said = await harness.ask("rename", "!x", name="y")
    assert "no longer there" in said["message"]


async def test_a_name_of_a_pipeline_for_others_is_refused(tmp_path: Path) -> None:
    """It would fail there for its owner."""
    config = (
        'root: .\nspace: {floor: 0}\npipelines:\n  theirs: {match: "t.*", uploaders: [nobody],'
        " steps: [{script: {}}]}\n"
    )
    harness = Harness(tmp_path / "root", config)
    await failed(harness)
    said = await harness.ask("rename", "!x", name="t1")
    assert "the pipeline theirs takes folders of nobody, and not of" in said["message"]
    assert harness.where("!x") == ["failed"]
    harness.store.close()
