"""Collections that are odd, hostile or touched by hand: nothing of them is lost, left behind or told wrongly."""

from __future__ import annotations

import os
from typing import Any

import pytest
import sqlalchemy as sa

from dittohead.contract.worker import StepContext, StepResult
from dittohead.engine.reconcile import reconcile
from dittohead.model.errors import ItemError
from dittohead.model.held import Held, HeldKind
from dittohead.model.records import Batch
from dittohead.model.states import JobState, Station
from dittohead.store import batches as batch_store
from dittohead.store import queries
from dittohead.system import capabilities
from tests.support.harness import Harness
from tests.support.trees import read_tree, tree
from tests.test_batches import CONFIG, bad, collection, gone, harness, over, settled, told

__all__ = ["harness"]

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="OTHER USERS' FOLDERS NEED ROOT: test left out")


async def claim(harness: Harness, name: str = "coll-a") -> Batch:
    """Claim a collection and wait until each folder has its job; none is run."""
    (arrival,) = [a for a in harness.stations.scan().arrivals if a.folder == os.fsencode(name)]
    taken = await harness.claimer.claim(arrival)
    assert isinstance(taken, Batch)
    await settled(harness)
    return taken


def names_in(harness: Harness, station: Station) -> list[str]:
    """Return what lies in the collection of a station."""
    return sorted(os.listdir(harness.stations.folder(station, b"coll-a")))


def alone(harness: Harness) -> Harness:
    """Return the same root under a configuration that makes one job of a collection."""
    return Harness(harness.root, CONFIG.replace("each: folder", "").replace("{batch}", ""), harness.store)


# -- what lies beside the folders ------------------------------------------------------------


@pytest.mark.parametrize("name", ["@eaDir", "lost+found", ".hidden"])
async def test_directories_that_are_no_objects_are_moved_with_the_others(harness: Harness, name: str) -> None:
    """What a file server puts into any directory would else hold the collection in processing/ forever."""
    source = read_tree(collection(harness, **{name: {"x": "y"}}))
    async with harness.running():
        batch = await over(harness)
        await gone(harness)
    assert batch["jobs"] == 3
    assert read_tree(harness.stations.folder(Station.DONE, b"coll-a")) == source


async def test_a_file_that_is_called_like_a_reason_is_the_uploaders(harness: Harness) -> None:
    source = read_tree(
        collection(harness, **{"0001.reason.txt": "the uploader's own", "0002.reason.txt": ""})
    )
    async with harness.running():
        await over(harness)
        await gone(harness)
    assert read_tree(harness.stations.folder(Station.DONE, b"coll-a")) == source


async def test_a_reason_replaces_no_file_of_the_uploader(harness: Harness) -> None:
    collection(harness, folders=1, **{"0001.reason.txt": "the uploader's own"})
    harness.worker.plays["first"] = bad("0000", "0001")
    async with harness.running():
        await over(harness)
        await gone(harness)
        harness.arrive("coll-a", {"0001": {"a.txt": "b"}})
        harness.offer()
        await harness.until(lambda: len(harness.jobs()) == 2)
        await over(harness)
        await gone(harness)
        failed = harness.stations.folder(Station.FAILED, b"coll-a")
        assert (failed / "0001.reason.txt").read_text() == "the uploader's own"
        assert "it is truncated" in (failed / "0001.reason-2.txt").read_text()
        # Moved back, both go by what they are.
        harness.worker.plays.clear()
        failed.rename(harness.root / "inbox" / "coll-a")
        harness.offer()
        await harness.until(lambda: len(harness.jobs()) == 4)
        await over(harness)
        await gone(harness)
    assert names_in(harness, Station.DONE) == ["0000", "0001", "0001.reason.txt"]


async def test_what_lay_beside_failures_comes_to_done_with_them(harness: Harness) -> None:
    """When all have failed it is in failed/: nobody would be told of it there any more."""
    source = read_tree(collection(harness, **{"README.txt": "about", ".hidden": {"a": "b"}}))
    harness.worker.plays["first"] = bad("0000", "0001", "0002")
    async with harness.running():
        await over(harness)
        await gone(harness)
        harness.worker.plays.clear()
        await harness.ask("retry-batch", "coll-a")
        await harness.until(lambda: told(harness) == 2)
        await gone(harness)
    assert harness.where("coll-a") == ["done"]
    assert read_tree(harness.stations.folder(Station.DONE, b"coll-a")) == source


async def test_people_are_told_of_what_belongs_to_no_job(harness: Harness) -> None:
    """A link that was meant for an object, and a folder that still has its dot: they would think it delivered."""
    folder = collection(
        harness, **{"list.csv": "x", ".0009": {"a": "b"}, ".DS_Store": "x", "@eaDir": {"x": "y"}}
    )
    (folder / "0008").symlink_to("0001")
    os.mkfifo(folder / "pipe")
    async with harness.running():
        await over(harness)
        await gone(harness)
    others = harness.told[-1][1]["beside"]
    assert others == [".0009 (a directory)", "0008 (a symbolic link)", "list.csv", "pipe (a FIFO)"]
    assert set(names_in(harness, Station.DONE)) >= {
        "list.csv",
        ".0009",
        ".DS_Store",
        "@eaDir",
        "0008",
        "pipe",
    }


async def test_what_lies_beside_is_not_put_into_a_folder_by_itself(harness: Harness) -> None:
    alone(harness).arrive("coll-a", {"a.txt": "by itself"})
    other = alone(harness)
    async with other.running():
        await other.until_over("coll-a")
    collection(harness, **{"README.txt": "about"})
    async with harness.running():
        await over(harness)
        await gone(harness)
    assert names_in(harness, Station.DONE) == ["a.txt"]
    (suffixed,) = (name for name in harness.stations.listing(Station.DONE) if name != b"coll-a")
    assert (harness.stations.folder(Station.DONE, suffixed) / "README.txt").exists()


# -- where the folders come to lie -----------------------------------------------------------


async def test_a_collection_that_was_given_its_folders_later_lies_under_its_name(harness: Harness) -> None:
    """The job that it was before has left failed/; it does not stand in the way."""
    harness.arrive("coll-a", {"a.txt": "a file"})
    async with harness.running():
        await harness.until_over("coll-a")
        failed = harness.stations.folder(Station.FAILED, b"coll-a")
        tree(failed / "0000", {"a.txt": "x"})
        tree(failed / "0001", {"a.txt": "x"})
        failed.rename(harness.root / "inbox" / "coll-a")
        harness.worker.plays["first"] = bad("0001")
        harness.offer()
        await harness.until(lambda: len(harness.jobs()) == 3)
        await over(harness)
        await gone(harness)
    assert harness.stations.listing(Station.FAILED) == [b"coll-a"]
    assert names_in(harness, Station.FAILED) == ["0001", "0001.reason.txt"]


async def test_a_folder_by_itself_that_was_moved_away_does_not_stand_in_the_way(harness: Harness) -> None:
    other = alone(harness)
    other.arrive("coll-a", {"a.txt": "by itself"})
    async with other.running():
        await other.until_over("coll-a")
    harness.stations.folder(Station.DONE, b"coll-a").rename(harness.root / "elsewhere")
    collection(harness)
    async with harness.running():
        await over(harness)
    assert harness.stations.listing(Station.DONE) == [b"coll-a"]


async def test_reasons_of_folders_that_an_admin_moved_do_not_stay(harness: Harness) -> None:
    """Moved out of processing/ and to the inbox, they are cancelled and done again."""
    collection(harness)
    await claim(harness)
    harness.stations.folder(Station.PROCESSING, b"coll-a").rename(harness.root / "inbox" / "coll-a")
    await reconcile(harness.engine, harness.claimer, ())
    assert "in a folder called coll-a" in harness.job("coll-a/0000").reason
    async with harness.running():
        await harness.until(lambda: len(harness.jobs()) == 6)
        await over(harness)
        await gone(harness)
    assert harness.where("coll-a") == ["done"]


async def test_a_folder_never_takes_the_place_of_one_that_was_moved_before(harness: Harness) -> None:
    """Its job has ended and its folder moved, but a crash came before that was noted; another collection has come."""
    collection(harness)
    await claim(harness)
    first = harness.job("coll-a/0000")
    async with harness.running():
        await over(harness)
        await gone(harness)
    query = "UPDATE jobs SET station = 'processing', folder = :folder WHERE id = :id"
    harness.store.run(
        lambda connection: connection.execute(sa.text(query), {"folder": b"coll-a/0000", "id": first.id})
    )
    collection(harness)
    await claim(harness)
    await reconcile(harness.engine, harness.claimer, ())
    assert len(harness.stations.listing(Station.PROCESSING, b"coll-a")) == 3
    assert harness.store.run(queries.resolve, first.id).station is Station.DONE


async def test_a_folder_does_not_come_back_into_one_by_itself(harness: Harness) -> None:
    """Under another configuration the collection's name is a folder's, which is being processed."""
    collection(harness)
    harness.worker.plays["first"] = bad("0001")
    async with harness.running():
        await over(harness)
        await gone(harness)
    other = alone(harness)
    other.arrive("coll-a", {"a.txt": "by itself"})
    (arrival,) = other.stations.scan().arrivals
    await other.claimer.claim(arrival)
    for action, of in (("retry", "coll-a/0001"), ("rerun", "coll-a/0000")):
        answer = await other.ask(action, of)
        assert not answer["ok"]
        assert "dropped by itself" in answer["message"]
    assert read_tree(harness.stations.folder(Station.PROCESSING, b"coll-a")) == {b"a.txt": b"by itself"}


async def test_names_of_every_kind(harness: Harness) -> None:
    names: dict[str | bytes, Any] = {
        b"\xff\xfe": {"a": "1"},
        "-rf": {"a": "2"},
        "x" * 255: {"a": "3"},
        "coll-a": {"a": "4"},
        "a.reason.txt": {"a": "5"},
        "a": {"a": "6"},
        "e\u0301": {"a": "7"},
        "\u00e9": {"a": "8"},
        "new\nline": {"a": "9"},
        "empty": {},
        "deep": {"d": {"e": {"f": "g"}}},
    }
    harness.arrive("coll-a", names)
    harness.worker.plays["first"] = bad("a", "x" * 255, "a.reason.txt")
    async with harness.running():
        batch = await over(harness)
        await gone(harness)
        assert (batch["jobs"], batch["done"], batch["failed"]) == (11, 6, 5)
        failed = harness.stations.folder(Station.FAILED, b"coll-a")
        assert len([path for path in failed.iterdir() if path.is_file()]) == 5
        harness.worker.plays.clear()
        failed.rename(harness.root / "inbox" / "coll-a")
        harness.offer()
        await harness.until(lambda: len(harness.jobs()) == 16)
        batch = await over(harness)
        await gone(harness)
    assert (batch["jobs"], batch["done"], batch["failed"]) == (5, 3, 2)
    assert [
        path for path in harness.stations.folder(Station.DONE, b"coll-a").iterdir() if path.is_file()
    ] == []


# -- what is counted and told ----------------------------------------------------------------


async def test_a_folder_that_is_done_again_counts_once(harness: Harness) -> None:
    collection(harness)
    async with harness.running():
        await over(harness)
        harness.worker.plays["second"] = bad("0001")
        for count, state in ((2, "failed"), (3, "done")):
            await harness.ask("rerun", "coll-a/0001")
            await reconcile(harness.engine, harness.claimer, harness.dispatch.running)
            harness.dispatch.wake()
            await harness.until(lambda count=count: len(harness.jobs("coll-a/0001")) == count)
            await harness.until_over("coll-a/0001")
            batch = await over(harness)
            assert (batch["state"], batch["jobs"], batch["settled"]) == (state, 3, 0)
            harness.worker.plays.clear()


async def test_what_was_cancelled_is_neither_done_nor_tried_again(harness: Harness) -> None:
    """`retry --batch` does what its --dry-run says: what somebody has cancelled stays so."""
    collection(harness)
    await claim(harness)
    for number in range(3):
        assert (await harness.ask("cancel", f"coll-a/000{number}"))["ok"]
    assert [facts["outcome"] for _, facts in harness.told] == ["cancelled"]
    answer = await harness.ask("retry-batch", "coll-a")
    assert not answer["ok"]
    assert "nothing of coll-a has failed" in answer["message"]


async def test_a_failed_folder_is_not_told_to_be_dropped_by_itself(harness: Harness) -> None:
    """In the inbox alone it would not be of its collection any more."""

    async def play(ctx: StepContext) -> StepResult:
        raise ItemError("it is bad", hint="Fix it, then move the folder to the inbox again")

    collection(harness, folders=1)
    harness.worker.plays["first"] = play
    async with harness.running():
        await over(harness)
    job = harness.job("coll-a/0000")
    assert "then move failed/coll-a to the inbox again" in job.reason
    (harness.stations.folder(Station.FAILED, job.folder) / "a.txt").write_text("mended")
    answer = await harness.ask("retry", job.id)
    assert f"dittohead rerun {job.id}" in answer["message"]


async def test_a_folder_that_no_pipeline_takes_any_more(harness: Harness) -> None:
    """The configuration has changed; no name of a folder chooses a pipeline, but that of its collection."""
    collection(harness, folders=1)
    await claim(harness)
    text = CONFIG.replace('"(?P<series>coll)-.*"', '"x"').replace('".*"', '"y"').replace("{series} ", "")
    other = Harness(harness.root, text, harness.store)
    harness.stations.folder(Station.PROCESSING, b"coll-a/new").mkdir()
    await reconcile(other.engine, other.claimer, ())
    async with other.running():
        await over(other)
    assert "Rename failed/coll-a to fit one of" in harness.job("coll-a/new").reason


# -- crashes, and what cannot be looked at ---------------------------------------------------


async def test_a_second_drop_whose_claim_was_cut_short_is_a_batch_of_its_own(harness: Harness) -> None:
    """Also where uploader and daemon are one user, who has made the directory."""
    collection(harness)
    async with harness.running():
        first = await over(harness)
        await gone(harness)
    await reconcile(harness.engine, harness.claimer, ())  # as each start does
    collection(harness)
    (arrival,) = harness.stations.scan().arrivals
    harness.stations.claim(arrival)
    await reconcile(harness.engine, harness.claimer, ())
    async with harness.running():
        await harness.until(lambda: len(harness.jobs()) == 6)
        second = await over(harness)
    assert first["id"] != second["id"]
    assert (second["jobs"], second["done"]) == (3, 3)


@pytest.mark.parametrize("station", [Station.PROCESSING, Station.FAILED])
async def test_a_collection_that_cannot_be_listed_holds_up_nobody(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, station: Station
) -> None:
    """Its uploader has taken the rights away, or the disk is bad."""
    collection(harness)
    harness.worker.plays["first"] = bad("0000", "0001", "0002", "single", "other")
    await claim(harness)
    harness.arrive("other")
    if station is Station.FAILED:
        async with harness.running():
            await over(harness)
            await harness.until_over("other")
        harness.stations.folder(Station.FAILED, b"other").rename(harness.root / "away")
    harness.arrive("single")
    (arrival,) = [a for a in harness.stations.scan().arrivals if a.folder == b"single"]
    harness.stations.claim(arrival)
    listing = harness.stations.listing

    def refused(asked: Station, collection: bytes = b"") -> list[bytes]:
        if collection == b"coll-a" and asked is station:
            raise PermissionError(13, "Permission denied", "coll-a")
        return listing(asked, collection)

    monkeypatch.setattr(harness.stations, "listing", refused)
    await reconcile(harness.engine, harness.claimer, ())
    assert len(harness.jobs("single")) == 1
    states = {job.state for job in harness.jobs() if job.batch}
    assert states == {JobState.WAITING if station is Station.PROCESSING else JobState.FAILED}
    if station is Station.FAILED:
        assert harness.job("other").outcome == "gone"
        assert {job.outcome for job in harness.jobs() if job.batch} == {""}
    else:
        assert b"coll-a" in harness.claimer.stuck


async def test_a_folder_that_has_its_job_gets_no_other(harness: Harness) -> None:
    """One of another batch came back into the collection before all of it was split."""
    collection(harness)
    harness.worker.plays["first"] = bad("0001")
    async with harness.running():
        first = await over(harness)
        await gone(harness)
    harness.arrive("coll-a", {"0007": {"a": "b"}})
    second = await claim(harness)
    assert (await harness.ask("retry", "coll-a/0001"))["ok"]
    harness.store.run(lambda connection: connection.execute(batch_store.batches.update().values(whole=0)))
    await reconcile(harness.engine, harness.claimer, ())
    assert [job.batch for job in harness.jobs("coll-a/0001")] == [first["id"]]
    assert [job.batch for job in harness.jobs("coll-a/0007")] == [second.id]


# -- rights ----------------------------------------------------------------------------------


def as_user(uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on as another user, who has no capability; the test's end brings root back."""
    monkeypatch.setattr(capabilities, "has", lambda capability: False)
    os.seteuid(uid)


@AS_ROOT
@pytest.mark.parametrize("what", ["object", "dotted", "sticky", "link in sticky"])
async def test_what_may_not_be_moved_holds_the_collection_in_the_inbox(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Once claimed, it could not leave processing/, and its name would be taken forever."""
    folder = collection(harness, **{".dotted": {"x": "y"}})
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 1234, 1234)
        path.chmod(0o777 if path.is_dir() else 0o666)
    match what:
        case "object":
            (folder / "0001").chmod(0o755)
        case "dotted":
            (folder / ".dotted").chmod(0o755)
        case "sticky":
            folder.chmod(0o1777)
        case _:
            (folder / "link").symlink_to("0001")
            os.lchown(folder / "link", 4321, 4321)
            folder.chmod(0o1777)
    for path in harness.root.rglob("*"):
        if not path.is_relative_to(folder):
            os.chown(path, 4321, 4321)
    for parent in [path for path in harness.root.parents if "pytest" in str(path)]:
        parent.chmod(0o755)
    (arrival,) = harness.stations.scan().arrivals
    try:
        as_user(4321, monkeypatch)
        held = await harness.claimer.claim(arrival)
    finally:
        os.seteuid(0)
    assert isinstance(held, Held)
    assert held.kind is HeldKind.IMMOVABLE
    assert "out of this collection" in held.reason
    assert str(folder) in held.command
    assert harness.where("coll-a") == ["inbox"]
