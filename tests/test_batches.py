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
from tests.support.house import House
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
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "root", CONFIG)
    yield made
    made.store.close()


def collection(house: House, name: str = "coll-a", folders: int = 3, **more: Any) -> Path:
    """Put a collection into the inbox."""
    what: dict[str | bytes, Any] = {f"{n:04}": {"a.txt": f"{name} {n}"} for n in range(folders)}
    return house.arrive(name, {**what, **more})


async def over(house: House, name: str = "coll-a") -> dict[str, Any]:
    """Wait until the latest batch of a name has ended and told; return it."""
    await house.until(
        lambda: (b := house.store.run(batch_store.named, name)) is not None and b.told in ("done", "failed")
    )
    return house.store.run(queries.batch, name)


async def settled(house: House) -> None:
    """Wait until each folder of what was claimed has its job, or that has failed."""
    await asyncio.gather(*house.claimer._splitting.values())


async def gone(house: House) -> None:
    """Wait until the collection has left processing/: told of is its end, a moment before."""
    await house.until(lambda: not house.stations.exists(Station.PROCESSING, b"coll-a"))


def told(house: House) -> int:
    """Return how many notices were put in."""
    query = sa.select(sa.func.count()).select_from(outbox)
    return house.store.run(lambda connection: connection.execute(query).scalar_one())


def bad(*names: str) -> Any:
    async def play(ctx: StepContext) -> StepResult:
        if ctx.name in names:
            raise ItemError("it is truncated", where="a.txt")
        return Done()

    return play


async def test_each_folder_is_a_job_and_the_whole_comes_to_done(house: House) -> None:
    source = read_tree(collection(house))
    async with house.running():
        batch = await over(house)
        await gone(house)
    assert (batch["state"], batch["jobs"], batch["done"]) == ("done", 3, 3)
    assert house.where("coll-a") == ["done"]
    assert read_tree(house.stations.folder(Station.DONE, b"coll-a")) == source
    assert sorted(job.name for job in house.jobs()) == ["coll-a/0000", "coll-a/0001", "coll-a/0002"]
    assert {house.steps(job)[0].result.detail for job in house.jobs()} == {
        f"coll coll-a 000{n}" for n in range(3)
    }
    receipts = sorted(path.name.partition(".")[0] for path in house.stations.receipts.iterdir())
    assert receipts == ["coll-a_0000", "coll-a_0001", "coll-a_0002"]


async def test_one_bad_folder_leaves_the_others_alone(house: House) -> None:
    collection(house)
    house.worker.plays["second"] = bad("0001")
    async with house.running():
        batch = await over(house)
        assert (batch["state"], batch["done"], batch["failed"]) == ("failed", 2, 1)
        failed, done = (house.stations.folder(place, b"coll-a") for place in (Station.FAILED, Station.DONE))
        assert sorted(os.listdir(failed)) == ["0001", "0001.reason.txt"]
        assert sorted(os.listdir(done)) == ["0000", "0002"]
        reason = (failed / "0001.reason.txt").read_text()
        assert f"mv {failed} {house.root / 'inbox'}/" in reason
        # Told once, of all.
        assert told(house) == 1
        event, facts = house.told[-1]
        assert (event, facts["outcome"], facts["counts"].failed) == ("batch", "failed", 1)
        assert [job.name for job in facts["failures"]] == ["coll-a/0001"]
        # Tried again together: it comes to lie with the others.
        house.worker.plays.clear()
        answer = await house.ask("retry-batch", "coll-a")
        assert answer["message"] == "coll-a: 1 folder tried again, each from the step that failed"
        await house.until(lambda: told(house) == 2)
        await gone(house)
    assert house.told[-1][1]["outcome"] == "recovered"
    assert sorted(os.listdir(done)) == ["0000", "0001", "0002"]
    assert house.where("coll-a") == ["done"]


async def test_the_whole_is_run_again_when_it_is_moved_back(house: House) -> None:
    source = read_tree(collection(house))
    async with house.running():
        first = await over(house)
        house.stations.folder(Station.DONE, b"coll-a").rename(house.root / "inbox" / "coll-a")
        house.look()
        await house.until(lambda: len(house.jobs()) == 6)
        second = await over(house)
        await gone(house)
    assert first["id"] != second["id"]
    assert (second["jobs"], second["done"]) == (3, 3)
    assert read_tree(house.stations.folder(Station.DONE, b"coll-a")) == source


async def test_what_failed_is_mended_and_moved_back_by_itself(house: House) -> None:
    """Its reason file is not in the collection; the others are where they were."""
    collection(house)
    house.worker.plays["second"] = bad("0001")
    async with house.running():
        await over(house)
        failed = house.stations.folder(Station.FAILED, b"coll-a")
        (failed / "0001" / "a.txt").write_text("mended")
        house.worker.plays.clear()
        failed.rename(house.root / "inbox" / "coll-a")
        house.look()
        await house.until(lambda: len(house.jobs()) == 4)
        batch = await over(house)
        await gone(house)
    assert (batch["jobs"], batch["done"]) == (1, 1)
    assert sorted(os.listdir(house.stations.folder(Station.DONE, b"coll-a"))) == ["0000", "0001", "0002"]
    assert house.where("coll-a") == ["done"]
    assert house.told[-1][1]["outcome"] == "recovered"
    assert told(house) == 2


async def test_what_lies_beside_the_folders_goes_with_them(house: House) -> None:
    beside = {"README.txt": "about", ".DS_Store": "x", "list.csv": "a,b"}
    source = read_tree(collection(house, **beside))
    async with house.running():
        batch = await over(house)
        await gone(house)
    assert batch["jobs"] == 3
    assert read_tree(house.stations.folder(Station.DONE, b"coll-a")) == source
    assert house.where("coll-a") == ["done"]


async def test_all_failed_and_what_lies_beside_them_is_with_them(house: House) -> None:
    collection(house, **{"README.txt": "about"})
    house.worker.plays["first"] = bad("0000", "0001", "0002")
    async with house.running():
        await over(house)
        await gone(house)
    assert house.where("coll-a") == ["failed"]
    assert "README.txt" in os.listdir(house.stations.folder(Station.FAILED, b"coll-a"))


@pytest.mark.parametrize("after", [0, 1, 2, 3])
async def test_nothing_is_lost_when_the_daemon_dies_in_the_middle_of_the_splitting(
    house: House, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Some folders have their job, and the others get it: each exactly one."""
    monkeypatch.setattr("dittohead.engine.claim._AT_ONCE", 1)
    source = read_tree(collection(house))
    create, left = Claimer._create, iter(range(after))

    def dies(*args: Any, **more: Any) -> Any:
        if next(left, None) is None:
            raise SystemError("killed")
        return create(*args, **more)

    monkeypatch.setattr(Claimer, "_create", dies)
    (arrival,) = house.stations.scan().arrivals
    if after == 3:
        monkeypatch.setattr(batch_store, "set_whole", dies)
    assert isinstance(await house.claimer.claim(arrival), Batch)
    await settled(house)
    monkeypatch.undo()
    assert len(house.jobs()) == min(after, 2)  # with the last of them the batch is whole
    assert house.where("coll-a") == ["processing"]
    await reconcile(house.engine, house.claimer, ())
    async with house.running():
        batch = await over(house)
        await gone(house)
    assert (batch["jobs"], batch["done"]) == (3, 3)
    assert read_tree(house.stations.folder(Station.DONE, b"coll-a")) == source


async def test_a_claim_without_any_row_is_split_at_the_next_start(house: House) -> None:
    """Killed between the rename and the first row."""
    collection(house)
    (arrival,) = house.stations.scan().arrivals
    house.stations.claim(arrival)
    await reconcile(house.engine, house.claimer, ())
    async with house.running():
        batch = await over(house)
    assert (batch["jobs"], batch["done"]) == (3, 3)


async def test_an_end_that_nobody_was_told_of_is_told_at_the_next_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the last job's end."""
    collection(house)

    async def dies(*args: object) -> None:
        return None

    monkeypatch.setattr("dittohead.engine.batches.ended", dies)
    async with house.running():
        await house.until(lambda: sum(job.station is Station.DONE for job in house.jobs()) == 3, timeout_s=20)
    assert house.told == []
    monkeypatch.undo()
    await reconcile(house.engine, house.claimer, ())
    await reconcile(house.engine, house.claimer, ())
    assert [(event, facts["outcome"]) for event, facts in house.told] == [("batch", "done")]
    assert told(house) == 1


async def test_a_folder_that_comes_later_gets_its_job(house: House) -> None:
    """It is neither left behind nor taken for delivered."""
    collection(house)
    late = house.stations.folder(Station.PROCESSING, b"coll-a") / "late"

    async def play(ctx: StepContext) -> StepResult:
        if not late.exists() and not house.stations.exists(Station.DONE, b"coll-a/late"):
            tree(late, {"b.txt": "late"})
        return Done()

    house.worker.plays["first"] = play
    async with house.running():
        await house.until(lambda: sum(job.station is Station.DONE for job in house.jobs()) == 3)
        await reconcile(house.engine, house.claimer, house.dispatch.running)
        house.dispatch.wake()
        await house.until_over("coll-a/late")
        batch = await over(house)
        await gone(house)
    assert (batch["jobs"], batch["done"]) == (4, 4)
    assert house.where("coll-a") == ["done"]


async def test_one_folder_is_run_again_by_itself(house: House) -> None:
    collection(house)
    async with house.running():
        await over(house)
        answer = await house.ask("rerun", "coll-a/0001")
        assert answer == {"ok": True, "message": "coll-a/0001: moved back to processing/; a new job begins"}
        await reconcile(house.engine, house.claimer, house.dispatch.running)
        house.dispatch.wake()
        await house.until(lambda: len(house.jobs("coll-a/0001")) == 2)
        job = await house.until_over("coll-a/0001")
        await over(house)
        await gone(house)
    assert job.state is JobState.DONE
    assert house.where("coll-a/0001") == ["done"]
    assert house.where("coll-a") == ["done"]
    answer = await house.ask("rename", "coll-a/0001", name="other")
    assert not answer["ok"]


async def test_a_collection_of_a_name_waits_for_the_other(house: House) -> None:
    """The second waits in the inbox; its folders then lie beside the first one's, nothing replaced."""
    collection(house)
    async with house.running():
        await over(house)
        await gone(house)
        collection(house)
        house.look()
        await house.until(lambda: len(house.jobs()) == 6)
        await over(house)
    there = sorted(os.listdir(house.stations.folder(Station.DONE, b"coll-a")))
    assert len(there) == 6
    assert there[::2] == ["0000", "0001", "0002"]


async def test_a_folder_by_itself_in_done_is_not_put_into(house: House) -> None:
    """Its receipt would not be true any more."""
    alone = House(house.root, CONFIG.replace("each: folder", "").replace("{batch}", ""), house.store)
    folder = alone.arrive("coll-a", {"a.txt": "by itself"})
    assert folder.exists()
    async with alone.running():
        await alone.until_over("coll-a")
    collection(house)
    async with house.running():
        await over(house)
    assert os.listdir(house.stations.folder(Station.DONE, b"coll-a")) == ["a.txt"]
    (other,) = (name for name in house.stations.listing(Station.DONE) if name != b"coll-a")
    assert other.startswith(b"coll-a.2")
    assert len(house.stations.listing(Station.DONE, other)) == 3
    # Moved back as it is called now, it is the same collection.
    house.stations.folder(Station.DONE, other).rename(house.stations.folder(Station.INBOX, other))
    async with house.running():
        await house.until(lambda: len(house.jobs("coll-a/0000")) == 2)
        await over(house)


@pytest.mark.parametrize("what", [{}, {"a.txt": "a file"}, {".hidden": {"a": "b"}}])
async def test_what_holds_no_folder_fails_with_the_reason(house: House, what: dict[str | bytes, Any]) -> None:
    house.arrive("coll-a", what)
    async with house.running():
        job = await house.until_over("coll-a")
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "makes a job of each folder" in job.error.what
    assert house.where("coll-a") == ["failed"]


async def test_a_batch_of_many_does_not_keep_others_waiting(house: House) -> None:
    """Neither a folder of the same uploader in the inbox, nor a job of his that is tried again."""
    started: list[str] = []

    async def play(ctx: StepContext) -> StepResult:
        started.append(ctx.name)
        return Done()

    house.worker.plays["first"] = play
    collection(house, folders=250)
    async with house.running():
        await house.until(lambda: len(started) > 3)
        house.arrive("single")
        house.look()
        await house.until_over("single")
        assert started.index("single") < 100
        assert (await over(house))["done"] == 250


async def test_a_collection_moved_out_of_processing_cancels_its_jobs(house: House) -> None:
    collection(house)
    (arrival,) = house.stations.scan().arrivals
    assert isinstance(await house.claimer.claim(arrival), Batch)
    await settled(house)
    house.stations.folder(Station.PROCESSING, b"coll-a").rename(house.root / "elsewhere")
    await reconcile(house.engine, house.claimer, ())
    assert {job.state for job in house.jobs()} == {JobState.FAILED}
    found = house.store.run(queries.batch, "coll-a")
    assert (found["state"], found["settled"]) == ("done", 3)


def test_only_folder_is_understood(tmp_path: Path, house: House) -> None:
    for text, named in (("each: file", "folder"), ('match: "(?P<batch>a)", each: folder', "batch")):
        path = tmp_path / "config.yaml"
        path.write_text(
            f'root: .\npipelines:\n  a: {{match: ".*", {text}, steps: [checksum: {{}}]}}\n'.replace(
                'match: ".*", match', "match"
            )
        )
        with pytest.raises(ConfigError) as met:
            load(path, house.workers)
        assert named in str(met.value)
        assert f"{path}:3:" in str(met.value)
