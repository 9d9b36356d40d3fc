"""Folders that are removed: only when their copies are good, whole or not at all, and by whom the rights allow."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.admin import removal
from dittohead.admin.removal import Removal, only_here
from dittohead.admin.verify import Reading, Report, verify_job
from dittohead.config.loader import load
from dittohead.config.registry import default
from dittohead.model.definition import JobDefinition, StepDefinition
from dittohead.model.errors import ConfigError
from dittohead.model.records import Job
from dittohead.model.states import JobState
from dittohead.store import custody
from dittohead.store import jobs as job_store
from dittohead.system import fail_points
from tests.support.delivering import Delivering
from tests.support.harness import Harness

CONFIG = """root: .
approve_deletion: {approve}
pipelines:
  p: {{match: .*, keep_done: 30d, ignore: [Thumbs.db], steps: [{steps}]}}
"""
DAY = 86_400.0


class Rig:
    """A harness, and what removes its folders."""

    def __init__(self, root: Path, *, steps: str = "delivering: {}", approve: bool = False) -> None:
        self.worker = Delivering()
        text = CONFIG.format(steps=steps, approve=str(approve).lower())
        self.harness = Harness(root, text, workers=[self.worker])
        self.during: list[Any] = []  #: called while copies are compared
        self.again()

    def again(self) -> None:
        """As after a restart."""
        self.removal = Removal(self.harness.engine, lambda: self.harness.config, self.compare)
        self.harness.actions = type(self.harness.actions)(
            self.harness.engine,
            self.harness.dispatch,
            dict(self.removal.handlers),
            config=lambda: self.harness.config,
        )

    async def compare(self, job: Job, reading: Reading) -> Report:
        harness = self.harness
        report = await verify_job(job, harness.store, harness.stations, harness.workers, str, reading=reading)
        for one in self.during:
            one()
        return report

    async def done(
        self, name: str, what: dict[str | bytes, Any] | None = None, *, days_ago: float = 40
    ) -> Path:
        self.harness.arrive(name, what or {"a": b"1", "d": {"b": b"2"}})
        async with self.harness.running():
            job = await self.harness.until_over(name)
        ended = time.time() - days_ago * DAY
        self.harness.store.run(
            lambda connection: connection.exec_driver_sql(
                "UPDATE jobs SET finished_at = ? WHERE id = ?", (ended, job.id)
            )
        )
        return self.harness.root / job.station.value / name

    async def rounds(self) -> None:
        await self.removal.unfinished_round()
        await self.removal.asked_round()
        await self.removal.due_round()

    def known(self, name: str) -> custody.Custody:
        return self.harness.store.run(custody.get, self.harness.job(name).id)

    def deletions(self, name: str) -> list[str]:
        """Return what the receipt says of removals; the store says the same."""
        (path,) = self.harness.stations.receipts.glob(f"{name}.*.json")
        noted = [e["detail"] for e in json.loads(path.read_bytes())["events"] if e["type"] == "deletion"]
        stored = self.harness.store.run(job_store.events_of, self.harness.job(name).id)
        assert [event.detail for event in stored if event.type == "deletion"] == noted
        return noted


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "root")
    yield made
    made.harness.store.close()


async def test_what_has_lain_long_enough_goes_and_its_receipt_says_so(rig: Rig) -> None:
    old = await rig.done("old")
    young = await rig.done("young", days_ago=20)
    await rig.rounds()
    assert (old.exists(), young.exists()) == (False, True)
    assert rig.deletions("old") == [
        "removed from done/old, 2 files, 2 bytes: keep_done of the pipeline p: 30 d"
    ]
    assert rig.known("old").removed_at is not None
    assert os.listdir(old.parent) == ["young"]
    job = rig.harness.job("old")
    assert job.state is JobState.DONE
    assert not rig.harness.store.run(job_store.was_undone, job.id)
    said = await rig.harness.ask("rerun", "old")
    assert not said["ok"]
    assert "no longer there" in said["message"]
    await rig.rounds()
    assert len(rig.deletions("old")) == 1


@pytest.mark.parametrize("what", ["is missing", "cannot be checked: it is away"])
async def test_copies_that_are_not_good_keep_the_folder_and_hold_up_no_other(rig: Rig, what: str) -> None:
    bad, good = await rig.done("bad"), await rig.done("good")
    rig.worker.wrong["bad"] = what
    await rig.rounds()
    assert (bad.is_dir(), good.exists()) == (True, False)
    assert "its copies are not all as the receipt says" in rig.known("bad").stays
    assert what in rig.known("bad").stays
    asked = len(rig.worker.asked)
    await rig.rounds()
    assert len(rig.worker.asked) == asked  # not compared again before a day has passed


async def test_a_folder_that_was_changed_stays(rig: Rig) -> None:
    """Before its copies are compared, or while they are."""
    changed, during = await rig.done("changed"), await rig.done("during")
    (changed / "late").write_bytes(b"3")

    def change() -> None:
        if rig.worker.asked[-1] == "during":
            (during / "d" / "b").write_bytes(b"3")

    rig.during.append(change)
    await rig.rounds()
    assert changed.is_dir()
    assert "is not in the manifest" in rig.known("changed").stays
    assert (during / "d" / "b").read_bytes() == b"3"
    assert "d/b was changed while its copies were compared" in rig.known("during").stays
    assert sorted(os.listdir(changed.parent)) == ["changed", "during"]
    assert rig.deletions("during") == []


async def test_one_that_people_take_away_meanwhile_is_theirs(rig: Rig) -> None:
    gone, taken = await rig.done("gone"), await rig.done("taken")
    gone.rename(rig.harness.root / "elsewhere")
    rig.during.append(lambda: taken.rename(rig.harness.root / "inbox" / "taken"))
    await rig.rounds()
    assert (rig.harness.root / "elsewhere" / "a").read_bytes() == b"1"
    assert (rig.harness.root / "inbox" / "taken" / "a").read_bytes() == b"1"
    assert rig.known("gone").removed_why == "it was no longer there"
    assert rig.known("taken").removed_at is None
    assert rig.deletions("gone") == rig.deletions("taken") == []


async def test_another_folder_of_its_name_is_not_taken_for_it(rig: Rig) -> None:
    folder = await rig.done("x")
    folder.rename(rig.harness.root / "elsewhere")
    folder.mkdir()
    (folder / "precious").write_bytes(b"!")
    await rig.rounds()
    assert (folder / "precious").read_bytes() == b"!"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may remove everything")
async def test_a_directory_that_may_not_be_emptied_is_named(rig: Rig) -> None:
    folder = await rig.done("x")
    (folder / "d").chmod(0o500)
    await rig.rounds()
    assert (folder / "d" / "b").read_bytes() == b"2"
    assert f"may not remove what lies in this directory: {folder}/d" in rig.known("x").stays


async def test_a_link_is_removed_and_what_it_leads_to_stays(rig: Rig, tmp_path: Path) -> None:
    """No link is delivered; one may have come to lie in a folder later."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"!")
    folder = await rig.done("x")
    (folder / "link").symlink_to(precious)
    said = await rig.harness.ask("delete", "x", reason="rubbish", unverified=True)
    assert said["ok"], said
    await rig.rounds()
    assert not folder.exists()
    assert (precious / "file").read_bytes() == b"!"


class Death(BaseException):
    """The daemon dies here."""


@pytest.mark.parametrize(
    "point", [*fail_points.REMOVAL_POINTS, "move.renamed", "file.renamed", "store.written"]
)
@pytest.mark.parametrize("number", [1, 2])
async def test_a_death_at_any_moment_leaves_it_whole_or_has_it_gone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, point: str, number: int
) -> None:
    """The next daemon finishes it, once; in between no part of it can be taken for the whole."""
    folder = await rig.done("x")
    seen = []

    def die(name: str) -> None:
        if name == point:
            seen.append(name)
            if len(seen) == number:
                raise Death

    with monkeypatch.context() as dying:
        dying.setattr(fail_points, "point", die)
        with contextlib.suppress(Death):
            await rig.rounds()
    if folder.exists():
        assert sorted(os.listdir(folder)) == ["a", "d"]
    rig.again()
    await rig.removal.unfinished_round()
    assert os.listdir(folder.parent) in ([], ["x"])
    await rig.rounds()
    assert os.listdir(folder.parent) == []
    assert len(rig.deletions("x")) == 1


async def test_a_death_before_the_receipt_puts_it_back_beside_another_of_its_name(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = await rig.done("x")
    monkeypatch.setattr(fail_points, "point", _dying("removal.aside"))
    with pytest.raises(Death):
        await rig.rounds()
    monkeypatch.undo()
    folder.mkdir()
    rig.again()
    await rig.removal.unfinished_round()
    job = rig.harness.job("x")
    assert job.folder != b"x"
    assert (rig.harness.root / "done" / os.fsdecode(job.folder) / "a").read_bytes() == b"1"


def _dying(point: str) -> Any:
    def die(name: str) -> None:
        if name == point:
            raise Death

    return die


# -- what people ask for ---------------------------------------------------------------------------


async def test_without_people_known_one_deletes_and_the_copies_are_compared(rig: Rig) -> None:
    folder = await rig.done("x", days_ago=0)
    rig.worker.wrong["x"] = "is missing"
    said = await rig.harness.ask("delete", "x", reason="twice here")
    assert said["message"] == "x: is removed as soon as its copies are compared with the receipt once more"
    await rig.rounds()
    assert folder.is_dir()
    assert "is missing" in rig.known("x").stays
    assert (await rig.harness.ask("delete", "x", reason="twice here", unverified=True))["ok"]
    await rig.rounds()
    assert not folder.exists()
    (said_there,) = rig.deletions("x")
    assert said_there.endswith(": tester, whatever its copies are like: twice here")


async def test_with_people_known_another_one_approves(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "root", approve=True)
    folder = await rig.done("x", days_ago=0)
    said = await rig.harness.ask("delete", "x", reason="twice here")
    assert "another person has to approve it" in said["message"]
    await rig.rounds()
    assert folder.is_dir()
    assert [(one["name"], one["by"], one["why"]) for one in rig.removal.pending] == [
        ("x", "tester", "twice here")
    ]
    said = await rig.harness.ask("approve", "x")
    assert not said["ok"]
    assert "tester asked for it" in said["message"]
    assert (await rig.harness.ask("keep", "x"))["ok"]
    assert rig.removal.pending == []
    assert not (await rig.harness.ask("approve", "x"))["ok"]
    await rig.harness.ask("delete", "x", reason="twice here")
    number = await rig.harness.store.write(removal_request, "approve", rig.harness.job("x").id, {}, "bob")
    await rig.harness.actions.answer_all()
    assert number
    await rig.rounds()
    assert not folder.exists()
    assert rig.deletions("x")[0].endswith(": tester, approved by bob: twice here")
    rig.harness.store.close()


def removal_request(connection: Any, action: str, job: str, args: dict[str, Any], who: str) -> int:
    from dittohead.store import requests as request_store

    return request_store.add(connection, action, job, args, who)


@pytest.mark.parametrize("action", ["approve", "keep"])
async def test_what_nobody_asked_for_cannot_be_approved(rig: Rig, action: str) -> None:
    await rig.done("x")
    said = await rig.harness.ask(action, "x")
    assert (said["ok"], "nobody has asked to delete it" in said["message"]) == (False, True)


async def test_a_folder_taken_up_again_before_it_goes_stays(rig: Rig) -> None:
    folder = await rig.done("x", days_ago=0)
    assert (await rig.harness.ask("delete", "x", reason="twice here"))["ok"]
    rig.during.append(lambda: folder.rename(rig.harness.root / "inbox" / "x"))
    await rig.rounds()
    assert (rig.harness.root / "inbox" / "x" / "a").read_bytes() == b"1"


# -- what lies nowhere else ------------------------------------------------------------------------


def _file(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "size": 1, "sha256": "0" * 64, **more}


def _receipt(outputs: list[dict[str, Any]], locations: list[dict[str, Any]]) -> dict[str, Any]:
    places = [
        {"uri": f"s3://b/{one['path']}", "size": 1, "sha256": "0" * 64, "verified_by": "v", **one}
        for one in locations
    ]
    files = [_file("a.tif"), _file("b.tif"), _file("Thumbs.db", ignored=True)]
    return {"manifest": {"files": files}, "outputs": outputs, "locations": places}


def _steps(*steps: tuple[str, str, str]) -> JobDefinition:
    return JobDefinition(
        steps=tuple(
            StepDefinition(name=name, worker=worker, options={}, source=source)
            for name, worker, source in steps
        )
    )


MADE = [_file("a.jp2", step="jp2", source="a.tif"), _file("b.jp2", step="jp2", source="b.tif")]


@pytest.mark.parametrize(
    ("definition", "outputs", "locations", "left"),
    [
        (_steps(("put", "rsync", "")), [], [{"step": "put", "path": "a.tif"}], [b"b.tif"]),
        (
            _steps(("jp2", "convert", ""), ("put", "upload", "jp2")),
            MADE,
            [{"step": "put", "path": "a.jp2"}, {"step": "put", "path": "b.jp2"}],
            [],
        ),
        (
            _steps(("jp2", "convert", ""), ("put", "upload", "jp2")),
            MADE,
            [{"step": "put", "path": "b.jp2"}],
            [b"a.tif"],
        ),
        (  # a record or a page is no copy
            _steps(("jp2", "convert", ""), ("put", "upload", "jp2")),
            MADE,
            [
                {"step": "put", "path": "a.jp2", "use": "page"},
                {"step": "put", "path": "b.jp2", "use": "record"},
            ],
            [b"a.tif", b"b.tif"],
        ),
        (  # a description of all of them holds none of them
            _steps(("about", "describe", ""), ("put", "upload", "about")),
            [_file("about.json", step="about")],
            [{"step": "put", "path": "about.json"}],
            [b"a.tif", b"b.tif"],
        ),
        (  # a bag in one file holds what it was made of
            _steps(("jp2", "convert", ""), ("bag", "bag", "jp2"), ("put", "upload", "bag")),
            [*MADE, _file("x.tar", step="bag")],
            [{"step": "put", "path": "x.tar"}],
            [],
        ),
        *(
            (
                _steps((worker, worker, ""), ("put", "upload", worker)),
                [_file("x.tar", step=worker)],
                [{"step": "put", "path": "x.tar"}],
                [],
            )
            for worker in ("pack", "package")
        ),
        (  # what was written beside the files of a package that is a folder holds none of them
            _steps(("sip", "package", ""), ("put", "upload", "sip")),
            [_file("mets.xml", step="sip"), _file("data/a.tif", step="sip", source="a.tif")],
            [{"step": "put", "path": "mets.xml"}],
            [b"a.tif", b"b.tif"],
        ),
    ],
    ids=[
        "a file is left out",
        "all converted",
        "one converted",
        "no copies",
        "description",
        "bag",
        "pack",
        "package",
        "METS alone",
    ],
)
def test_a_file_lies_elsewhere_where_it_or_what_was_made_of_it_was_delivered(
    definition: JobDefinition, outputs: list[Any], locations: list[Any], left: list[bytes]
) -> None:
    assert only_here(_receipt(outputs, locations), definition, default()) == left


async def test_files_that_were_delivered_nowhere_are_named_and_the_folder_stays(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = await rig.done("x")
    monkeypatch.setattr(removal, "only_here", lambda *_: [b"a", b"d/b"])
    await rig.rounds()
    assert folder.is_dir()
    assert "2 files of it were delivered nowhere: a, d/b" in rig.known("x").stays


def test_a_pipeline_that_delivers_nothing_may_not_remove_its_folders(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "root: .\npipelines:\n  p:\n    match: .*\n    keep_done: 30d\n    steps: [checksum: {}]\n"
    )
    with pytest.raises(ConfigError, match="a folder that is removed from done/ would be lost") as found:
        load(tmp_path / "config.yaml")
    assert "config.yaml:5:16:" in str(found.value)
