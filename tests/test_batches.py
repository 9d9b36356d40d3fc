"""A dropped collection: a job for each of its folders, under one batch."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dittohead.config.loader import load
from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.engine.claim import Claimer
from dittohead.engine.reconcile import reconcile
from dittohead.model.errors import ConfigError, ItemError
from dittohead.model.records import Batch
from dittohead.model.states import JobState, Station
from dittohead.store import batches as batch_store
from dittohead.store import queries
from dittohead.store.tables import outbox
from tests.support.harness import Harness
from tests.support.trees import read_tree, tree

CONFIG = """
root: .
limits: {jobs: 4, script: 4}
retry: {attempts: 1}
space: {floor: 0}
pipelines:
  collections:
    match: "(?P<series>coll)-.*"
    each: folder
    steps:
      - script: {name: first, do: "{series} {batch} {name}"}
      - script: {name: second}
  one:
    match: ".*"
    steps: [script: {name: first}]
"""


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "root", CONFIG)
    yield made
    made.store.close()


def collection(harness: Harness, name: str = "coll-a", folders: int = 3, **more: Any) -> Path:
    """Put a collection into the inbox."""
    what: dict[str | bytes, Any] = {f"{n:04}": {"a.txt": f"{name} {n}"} for n in range(folders)}
    return harness.arrive(name, {**what, **more})


async def over(harness: Harness, name: str = "coll-a") -> dict[str, Any]:
    """Wait until the latest batch of a name has ended and told; return it."""
    await harness.until(
        lambda: (b := harness.store.run(batch_store.named, name)) is not None and b.told in ("done", "failed")
    )
    return harness.store.run(queries.batch, name)


async def settled(harness: Harness) -> None:
    """Wait until each folder of what was claimed has its job, or that has failed."""
    await asyncio.gather(*harness.claimer._splitting.values())


async def gone(harness: Harness) -> None:
    """Wait until the collection has left processing/: told of is its end, a moment before."""
    await harness.until(lambda: not harness.stations.exists(Station.PROCESSING, b"coll-a"))


def told(harness: Harness) -> int:
    """Return how many notices were put in."""
    query = sa.select(sa.func.count()).select_from(outbox)
    return harness.store.run(lambda connection: connection.execute(query).scalar_one())


def bad(*names: str) -> Any:
    async def play(ctx: StepContext) -> StepResult:
        if ctx.name in names:
            raise ItemError("it is truncated", where="a.txt")
        return Done()

    return play


async def test_each_folder_is_a_job_and_the_whole_comes_to_done(harness: Harness) -> None:
    source = read_tree(collection(harness))
    async with harness.running():
        batch = await over(harness)
        await gone(harness)
    assert (batch["state"], batch["jobs"], batch["done"]) == ("done", 3, 3)
    assert harness.where("coll-a") == ["done"]
    assert read_tree(harness.stations.folder(Station.DONE, b"coll-a")) == source
    assert sorted(job.name for job in harness.jobs()) == ["coll-a/0000", "coll-a/0001", "coll-a/0002"]
    assert {harness.steps(job)[0].result.detail for job in harness.jobs()} == {
        f"coll coll-a 000{n}" for n in range(3)
    }
    receipts = sorted(path.name.partition(".")[0] for path in harness.stations.receipts.iterdir())
    assert receipts == ["coll-a_0000", "coll-a_0001", "coll-a_0002"]


async def test_one_bad_folder_leaves_the_others_alone(harness: Harness) -> None:
    collection(harness)
    harness.worker.plays["second"] = bad("0001")
    async with harness.running():
        batch = await over(harness)
        assert (batch["state"], batch["done"], batch["failed"]) == ("failed", 2, 1)
        failed, done = (harness.stations.folder(place, b"coll-a") for place in (Station.FAILED, Station.DONE))
        assert sorted(os.listdir(failed)) == ["0001", "0001.reason.txt"]
        assert sorted(os.listdir(done)) == ["0000", "0002"]
        reason = (failed / "0001.reason.txt").read_text()
        assert f"mv {failed} {harness.root / 'inbox'}/" in reason
        # Told once, of all.
        assert told(harness) == 1
        event, facts = harness.told[-1]
        assert (event, facts["outcome"], facts["counts"].failed) == ("batch", "failed", 1)
        assert [job.name for job in facts["failures"]] == ["coll-a/0001"]
        # Tried again together: it comes to lie with the others.
        harness.worker.plays.clear()
        answer = await harness.ask("retry-batch", "coll-a")
        assert answer["message"] == "coll-a: 1 folder tried again, each from the step that failed"
        await harness.until(lambda: told(harness) == 2)
        await gone(harness)
    assert harness.told[-1][1]["outcome"] == "recovered"
    assert sorted(os.listdir(done)) == ["0000", "0001", "0002"]
    assert harness.where("coll-a") == ["done"]


async def test_the_whole_is_run_again_when_it_is_moved_back(harness: Harness) -> None:
    source = read_tree(collection(harness))
    async with harness.running():
        first = await over(harness)
        await gone(harness)  # else the next of its name is held, and offered again by no scan
        harness.stations.folder(Station.DONE, b"coll-a").rename(harness.root / "inbox" / "coll-a")
        harness.offer()
        await harness.until(lambda: len(harness.jobs()) == 6)
        second = await over(harness)
        await gone(harness)
    assert first["id"] != second["id"]
    assert (second["jobs"], second["done"]) == (3, 3)
    assert read_tree(harness.stations.folder(Station.DONE, b"coll-a")) == source


async def test_what_failed_is_mended_and_moved_back_by_itself(harness: Harness) -> None:
    """Its reason file is not in the collection; the others are where they were."""
    collection(harness)
    harness.worker.plays["second"] = bad("0001")
    async with harness.running():
        await over(harness)
        await gone(harness)  # else the next of its name is held, and offered again by no scan
        failed = harness.stations.folder(Station.FAILED, b"coll-a")
        (failed / "0001" / "a.txt").write_text("mended")
        harness.worker.plays.clear()
        failed.rename(harness.root / "inbox" / "coll-a")
        harness.offer()
        await harness.until(lambda: len(harness.jobs()) == 4)
        batch = await over(harness)
        await gone(harness)
    assert (batch["jobs"], batch["done"]) == (1, 1)
    assert sorted(os.listdir(harness.stations.folder(Station.DONE, b"coll-a"))) == ["0000", "0001", "0002"]
    assert harness.where("coll-a") == ["done"]
    assert harness.told[-1][1]["outcome"] == "recovered"
    assert told(harness) == 2


async def test_what_lies_beside_the_folders_goes_with_them(harness: Harness) -> None:
    others = {"README.txt": "about", ".DS_Store": "x", "list.csv": "a,b"}
    source = read_tree(collection(harness, **others))
    async with harness.running():
        batch = await over(harness)
        await gone(harness)
    assert batch["jobs"] == 3
    assert read_tree(harness.stations.folder(Station.DONE, b"coll-a")) == source
    assert harness.where("coll-a") == ["done"]


async def test_all_failed_and_what_lies_beside_them_is_with_them(harness: Harness) -> None:
    collection(harness, **{"README.txt": "about"})
    harness.worker.plays["first"] = bad("0000", "0001", "0002")
    async with harness.running():
        await over(harness)
        await gone(harness)
    assert harness.where("coll-a") == ["failed"]
    assert "README.txt" in os.listdir(harness.stations.folder(Station.FAILED, b"coll-a"))


@pytest.mark.parametrize("after", [0, 1, 2, 3])
async def test_nothing_is_lost_when_the_daemon_dies_in_the_middle_of_the_splitting(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Some folders have their job, and the others get it: each exactly one."""
    monkeypatch.setattr("dittohead.engine.claim._AT_ONCE", 1)
    source = read_tree(collection(harness))
    create, left = Claimer._create, iter(range(after))

    def dies(*args: Any, **more: Any) -> Any:
        if next(left, None) is None:
            raise SystemError("killed")
        return create(*args, **more)

    monkeypatch.setattr(Claimer, "_create", dies)
    (arrival,) = harness.stations.scan().arrivals
    if after == 3:
        monkeypatch.setattr(batch_store, "set_whole", dies)
    assert isinstance(await harness.claimer.claim(arrival), Batch)
    await settled(harness)
    monkeypatch.undo()
    assert len(harness.jobs()) == min(after, 2)  # with the last of them the batch is whole
    assert harness.where("coll-a") == ["processing"]
    await reconcile(harness.engine, harness.claimer, ())
    async with harness.running():
        batch = await over(harness)
        await gone(harness)
    assert (batch["jobs"], batch["done"]) == (3, 3)
    assert read_tree(harness.stations.folder(Station.DONE, b"coll-a")) == source


async def test_a_claim_without_any_row_is_split_at_the_next_start(harness: Harness) -> None:
    """Killed between the rename and the first row."""
    collection(harness)
    (arrival,) = harness.stations.scan().arrivals
    harness.stations.claim(arrival)
    await reconcile(harness.engine, harness.claimer, ())
    async with harness.running():
        batch = await over(harness)
    assert (batch["jobs"], batch["done"]) == (3, 3)


async def test_an_end_that_nobody_was_told_of_is_told_at_the_next_start(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the last job's end."""
    collection(harness)

    async def dies(*args: object) -> None:
        return None

    monkeypatch.setattr("dittohead.engine.batches.ended", dies)
    async with harness.running():
        await harness.until(
            lambda: sum(job.station is Station.DONE for job in harness.jobs()) == 3, timeout_s=20
        )
    assert harness.told == []
    monkeypatch.undo()
    await reconcile(harness.engine, harness.claimer, ())
    await reconcile(harness.engine, harness.claimer, ())
    assert [(event, facts["outcome"]) for event, facts in harness.told] == [("batch", "done")]
    assert told(harness) == 1


async def test_a_folder_that_comes_later_gets_its_job(harness: Harness) -> None:
    """It is neither left behind nor taken for delivered."""
    collection(harness)
    late = harness.stations.folder(Station.PROCESSING, b"coll-a") / "late"

    async def play(ctx: StepContext) -> StepResult:
        if not late.exists() and not harness.stations.exists(Station.DONE, b"coll-a/late"):
            tree(late, {"b.txt": "late"})
        return Done()

    harness.worker.plays["first"] = play
    async with harness.running():
        await harness.until(lambda: sum(job.station is Station.DONE for job in harness.jobs()) == 3)
        await reconcile(harness.engine, harness.claimer, harness.dispatch.running)
        harness.dispatch.wake()
        await harness.until_over("coll-a/late")
        batch = await over(harness)
        await gone(harness)
    assert (batch["jobs"], batch["done"]) == (4, 4)
    assert harness.where("coll-a") == ["done"]


async def test_one_folder_is_run_again_by_itself(harness: Harness) -> None:
    collection(harness)
    async with harness.running():
        await over(harness)
        answer = await harness.ask("rerun", "coll-a/0001")
        assert answer == {"ok": True, "message": "coll-a/0001: moved back to processing/; a new job begins"}
        await reconcile(harness.engine, harness.claimer, harness.dispatch.running)
        harness.dispatch.wake()
        await harness.until(lambda: len(harness.jobs("coll-a/0001")) == 2)
        job = await harness.until_over("coll-a/0001")
        await over(harness)
        await gone(harness)
    assert job.state is JobState.DONE
    assert harness.where("coll-a/0001") == ["done"]
    assert harness.where("coll-a") == ["done"]
    answer = await harness.ask("rename", "coll-a/0001", name="other")
    assert not answer["ok"]


async def test_a_collection_of_a_name_waits_for_the_other(harness: Harness) -> None:
    """The second waits in the inbox; its folders then lie beside the first one's, nothing replaced."""
    collection(harness)
    async with harness.running():
        await over(harness)
        await gone(harness)
        collection(harness)
        harness.offer()
        await harness.until(lambda: len(harness.jobs()) == 6)
        await over(harness)
    there = sorted(os.listdir(harness.stations.folder(Station.DONE, b"coll-a")))
    assert len(there) == 6
    assert there[::2] == ["0000", "0001", "0002"]


async def test_a_folder_by_itself_in_done_is_not_put_into(harness: Harness) -> None:
    """Its receipt would not be true any more."""
    alone = Harness(harness.root, CONFIG.replace("each: folder", "").replace("{batch}", ""), harness.store)
    folder = alone.arrive("coll-a", {"a.txt": "by itself"})
    assert folder.exists()
    async with alone.running():
        await alone.until_over("coll-a")
    collection(harness)
    async with harness.running():
        await over(harness)
    assert os.listdir(harness.stations.folder(Station.DONE, b"coll-a")) == ["a.txt"]
    (other,) = (name for name in harness.stations.listing(Station.DONE) if name != b"coll-a")
    assert other.startswith(b"coll-a.2")
    assert len(harness.stations.listing(Station.DONE, other)) == 3
    # Moved back as it is called now, it is the same collection.
    harness.stations.folder(Station.DONE, other).rename(harness.stations.folder(Station.INBOX, other))
    async with harness.running():
        await harness.until(lambda: len(harness.jobs("coll-a/0000")) == 2)
        await over(harness)


@pytest.mark.parametrize("what", [{}, {"a.txt": "a file"}, {".hidden": {"a": "b"}}])
async def test_what_holds_no_folder_fails_with_the_reason(
    harness: Harness, what: dict[str | bytes, Any]
) -> None:
    harness.arrive("coll-a", what)
    async with harness.running():
        job = await harness.until_over("coll-a")
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "makes a job of each folder" in job.error.what
    assert harness.where("coll-a") == ["failed"]


async def test_a_batch_of_many_does_not_keep_others_waiting(harness: Harness) -> None:
    """Neither a folder of the same uploader in the inbox, nor a job of his that is tried again."""
    started: list[str] = []

    async def play(ctx: StepContext) -> StepResult:
        started.append(ctx.name)
        return Done()

    harness.worker.plays["first"] = play
    collection(harness, folders=250)
    async with harness.running():
        await harness.until(lambda: len(started) > 3)
        harness.arrive("single")
        harness.offer()
        await harness.until_over("single")
        assert started.index("single") < 100
        assert (await over(harness))["done"] == 250


async def test_a_collection_moved_out_of_processing_cancels_its_jobs(harness: Harness) -> None:
    collection(harness)
    (arrival,) = harness.stations.scan().arrivals
    assert isinstance(await harness.claimer.claim(arrival), Batch)
    await settled(harness)
    harness.stations.folder(Station.PROCESSING, b"coll-a").rename(harness.root / "elsewhere")
    await reconcile(harness.engine, harness.claimer, ())
    assert {job.state for job in harness.jobs()} == {JobState.FAILED}
    found = harness.store.run(queries.batch, "coll-a")
    assert (found["state"], found["settled"]) == ("done", 3)


def test_only_folder_is_understood(tmp_path: Path, harness: Harness) -> None:
    for text, named in (("each: file", "folder"), ('match: "(?P<batch>a)", each: folder', "batch")):
        path = tmp_path / "config.yaml"
        path.write_text(
            f'root: .\npipelines:\n  a: {{match: ".*", {text}, steps: [checksum: {{}}]}}\n'.replace(
                'match: ".*", match', "match"
            )
        )
        with pytest.raises(ConfigError) as met:
            load(path, harness.workers)
        assert named in str(met.value)
        assert f"{path}:3:" in str(met.value)
