"""A file of a failed folder is replaced: the new bytes or the old ones, never neither, and the old ones are kept."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.folders import receipt
from dittohead.folders.replacement import KEPT_S, Offer, Replacements
from dittohead.model.errors import ItemError
from dittohead.model.records import Job
from dittohead.model.states import JobState
from dittohead.store import jobs as job_store
from dittohead.system import fail_points, files
from tests.support.harness import Harness

WHAT: dict[str | bytes, Any] = {"a.tif": "half", "b.tif": "whole", "sub": {"c.tif": "odd"}}


async def fails_of_half(ctx: StepContext) -> StepResult:
    """A step as convert is: it says which file is at fault."""
    bad = [path for path in sorted(ctx.payload.rglob("*.tif")) if path.read_text() == "half"]
    if bad:
        error = ItemError("1 of 3 images cannot be converted: a.tif: damaged", hint="Scan it again")
        error.files = [path.name for path in bad]
        raise error
    return Done(detail="good")


async def broken(harness: Harness, name: str = "n", what: dict[str | bytes, Any] | None = None) -> Job:
    """Let a folder fail of one of its files."""
    harness.worker.plays["second"] = fails_of_half
    harness.arrive(name, WHAT if what is None else what)
    async with harness.running():
        job = await harness.until_over(name)
    assert job.state is JobState.FAILED
    return job


def offered(
    harness: Harness, job: Job, path: str = "a.tif", data: bytes = b"mended", who: str = "tester"
) -> Offer:
    """Let a new file come."""
    replacements = Replacements(harness.stations)
    offer = replacements.expect(job, path, "", who)
    with replacements.receiving(offer) as file:
        file.write(data)
    return replacements.received(offer)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def again(harness: Harness, count: int = 2) -> Job:
    """Let the folder be done as its next job."""
    async with harness.running():
        await harness.until(lambda: len(harness.jobs("n")) == count)
        return await harness.until_over("n")


def told(harness: Harness, job: Job) -> list[str]:
    """Return what a job's events and its receipt say of replaced files."""
    stored = [e.detail for e in harness.store.run(job_store.events_of, job.id) if e.type == "modification"]
    written = json.loads(receipt.path_of(harness.stations.receipts, job).read_text())["events"]
    assert [event["detail"] for event in written if event["type"] == "modification"] == stored
    return stored


def kept(harness: Harness, job: Job) -> list[Path]:
    return sorted((harness.stations.state / "replaced" / job.id).glob("*/earlier/*"))


async def test_a_damaged_file_is_replaced_and_the_folder_done(harness: Harness) -> None:
    """By a new job, with a manifest of its own; the old bytes stay, and both jobs' receipts say all of it."""
    job = await broken(harness)
    assert job.error is not None
    assert job.error.files == ("a.tif",)
    (harness.root / "failed/n/a.tif").chmod(0o640)
    offer = offered(harness, job)
    said = await harness.ask("replace", "n", reason="scanned again", **{"with": offer.id})
    assert said == {"ok": True, "message": "n: a.tif replaced; moved back to the inbox, and a new job begins"}
    later = await again(harness)
    assert (later.state, harness.where("n")) == (JobState.DONE, ["done"])
    assert later.id != job.id
    there = harness.root / "done/n/a.tif"
    assert (there.read_bytes(), there.stat().st_mode & 0o777) == (b"mended", 0o640)
    (old,) = kept(harness, job)
    assert (old.name, old.read_text()) == ("a.tif", "half")
    (detail,) = told(harness, job)
    assert detail == (
        f"a.tif replaced by tester: scanned again; SHA-256 was {sha(b'half')}, is {sha(b'mended')} (6 bytes); "
        f"the earlier file is kept as {old.relative_to(harness.root)}"
    )
    assert told(harness, later) == [detail]
    listed = json.loads(receipt.path_of(harness.stations.receipts, later).read_text())["manifest"]["files"]
    assert {file["path"]: file["sha256"] for file in listed}["a.tif"] == sha(b"mended")
    # Done once more it is a folder like any other.
    assert (await harness.ask("rerun", "n"))["ok"]
    assert told(harness, await again(harness, 3)) == []


async def test_several_files_are_replaced_before_it_is_run_again(harness: Harness) -> None:
    """Retry then says that the folder is another one."""
    job = await broken(harness)
    for path in ("a.tif", "sub/c.tif"):
        offer = offered(harness, job, path, path.encode())
        said = await harness.ask("replace", job.id, run=False, **{"with": offer.id})
        assert said["ok"]
        assert f"dittohead rerun {job.id}" in said["message"]
    assert harness.where("n") == ["failed"]
    assert "not what it was at the claim" in (await harness.ask("retry", job.id))["message"]
    assert (await harness.ask("rerun", job.id))["ok"]
    later = await again(harness)
    assert later.state is JobState.DONE
    assert len(told(harness, later)) == len(told(harness, job)) == 2
    assert {path.read_text() for path in kept(harness, job)} == {"half", "odd"}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("A.tif", "There is a.tif"),
        ("a.tif.", "There is a.tif"),
        ("nothing.tif", "no such file"),
        ("gone/a.tif", "no such file"),
        ("../n/a.tif", "of dots alone"),
        ("sub/../a.tif", "of dots alone"),
        ("/etc/passwd", "has an empty part"),
        ("", "has an empty part"),
        ("a\0b", "holds a NUL"),
        ("\udcff", "is not UTF-8"),
        ("sub", "is a directory"),
        ("link", "is a symbolic link"),
        ("away/passwd", "a link stands in this path"),
        ("pipe", "is a FIFO"),
        ("a.tif/b", "a link stands in this path"),
    ],
)
async def test_only_a_file_of_the_folder_is_replaced(harness: Harness, path: str, why: str) -> None:
    """Named to the letter; no link is followed, nothing is waited for."""
    job = await broken(harness)
    folder = harness.root / "failed/n"
    (folder / "link").symlink_to("a.tif")
    (folder / "away").symlink_to("/etc")
    os.mkfifo(folder / "pipe")
    with pytest.raises(ItemError) as refused:
        offered(harness, job, path)
    assert why in str(refused.value)
    assert not list((harness.stations.state).glob("repl*/*"))


async def test_names_alike_by_their_accents_are_told_apart(harness: Harness) -> None:
    """The one that is there is named."""
    job = await broken(harness, what={"u\u0308.tif": "half"})
    with pytest.raises(ItemError, match="There is u\u0308.tif"):
        offered(harness, job, "\u00fc.tif")
    name = b"\xff.tif"
    os.rename(harness.root / "failed/n/u\u0308.tif", os.fsencode(harness.root / "failed/n") + b"/" + name)
    offer = Replacements(harness.stations).expect(job, "%FF.tif", "percent", "tester")
    assert (offer.name, offer.encoding) == (name, "percent")


async def test_a_file_that_is_empty_or_the_same_or_not_what_was_sent_is_refused(harness: Harness) -> None:
    """The folder stays as it was, and nothing of it stays."""
    job = await broken(harness)
    with pytest.raises(ItemError, match="the new file is empty"):
        offered(harness, job, data=b"")
    replacements = Replacements(harness.stations)
    offer = replacements.expect(job, "a.tif", "", "tester")
    with replacements.receiving(offer) as file:
        file.write(b"mende")
    with pytest.raises(ItemError, match="not what was sent"):
        replacements.received(offer, sha(b"mended"))
    assert not list(replacements.waiting.iterdir())
    said = await harness.ask("replace", "n", **{"with": offered(harness, job, data=b"half").id})
    assert "the same as the one in the folder" in said["message"]
    assert (harness.where("n"), kept(harness, job)) == (["failed"], [])


async def test_it_is_refused_where_it_is_not_ones_own_or_the_job_is_another(harness: Harness) -> None:
    """What one person has uploaded for one job is for nobody else."""
    job, other = await broken(harness), await broken(harness, "m")
    offer = offered(harness, job, who="somebody")
    for wanted, why in ((job.id, "by somebody else"), (other.id, "for another job")):
        said = await harness.ask("replace", wanted, **{"with": offer.id})
        assert not said["ok"]
        assert why in said["message"]
    for wrong in ("", "../../inbox", "0" * 32):
        assert "not here any more" in (await harness.ask("replace", job.id, **{"with": wrong}))["message"]
    mine = offered(harness, job)
    harness.arrive("n")
    assert "in the inbox already" in (await harness.ask("replace", job.id, **{"with": mine.id}))["message"]
    fresh = await again(harness)
    assert fresh.state is JobState.DONE
    said = await harness.ask("replace", fresh.id, **{"with": mine.id})
    assert "has not failed" in said["message"]
    assert (harness.root / "failed/n/a.tif").read_text() == "half"


class Death(BaseException):
    """The daemon dies here."""


@pytest.mark.parametrize("point", [*fail_points.REPLACE_POINTS, "move.renamed"])
@pytest.mark.parametrize("swaps", [True, False])
async def test_a_death_at_any_moment_loses_neither_file(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, point: str, swaps: bool
) -> None:
    """And the next daemon finishes it, once; also on a file system that cannot swap in one step."""
    job = await broken(harness)
    offer = offered(harness, job)
    if not swaps:
        monkeypatch.setattr(files, "exchange", lambda *_: False)

    def die(name: str) -> None:
        if name == point:
            raise Death

    with monkeypatch.context() as dying:
        dying.setattr(fail_points, "point", die)
        with pytest.raises(Death):
            await harness.ask("replace", "n", **{"with": offer.id})
    assert _everywhere(harness, job, offer) == {"half", "mended"}
    harness.actions.begun.clear()
    await harness.actions.answer_all()
    later = await again(harness)
    assert (later.state, (harness.root / "done/n/a.tif").read_text()) == (JobState.DONE, "mended")
    assert [path.read_text() for path in kept(harness, job)] == ["half"]
    assert len(told(harness, later)) == 1
    assert len([e for e in harness.store.run(job_store.events_of, job.id) if e.type == "modification"]) == 1


def _everywhere(harness: Harness, job: Job, offer: Offer) -> set[str]:
    """Return what the two files hold, wherever they lie now."""
    homes = [harness.stations.state / "replacements" / offer.id, harness.stations.state / "replaced" / job.id]
    found = [path for home in homes for path in home.rglob("*") if path.is_file() and path.suffix != ".json"]
    found += [path for at in ("failed/n", "inbox/n") for path in (harness.root / at).glob("a.tif")]
    return {path.read_text() for path in found}


async def test_without_a_swap_a_death_between_the_two_renames_is_mended(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier file has left, the new one is not there yet."""
    job = await broken(harness)
    offer = offered(harness, job)
    monkeypatch.setattr(files, "exchange", lambda *_: False)
    real = files.rename_noreplace

    def once(source: bytes, destination: bytes) -> None:
        if source.endswith(b"/new"):
            raise Death
        real(source, destination)

    with monkeypatch.context() as dying:
        dying.setattr(files, "rename_noreplace", once)
        with pytest.raises(Death):
            await harness.ask("replace", "n", **{"with": offer.id})
    assert not (harness.root / "failed/n/a.tif").exists()
    assert _everywhere(harness, job, offer) == {"half", "mended"}
    harness.actions.begun.clear()
    await harness.actions.answer_all()
    assert (harness.root / "inbox/n/a.tif").read_text() == "mended"


async def test_a_file_that_the_disk_gives_back_no_more_is_replaced(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest is that of the claim."""
    job = await broken(harness)
    offer = offered(harness, job)
    with monkeypatch.context() as bad:

        def unreadable(fd: int, buffer: memoryview, on_block: Any = None) -> tuple[str, int]:
            raise OSError(errno.EIO, "Input/output error")

        bad.setattr(files, "sha256_fd", unreadable)
        assert (await harness.ask("replace", "n", **{"with": offer.id}))["ok"]
    assert f"SHA-256 was {sha(b'half')}" in harness.store.run(job_store.events_of, job.id)[-1].detail
    assert [path.read_text() for path in kept(harness, job)] == ["half"]


async def test_where_the_daemon_may_not_write_nothing_is_changed(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words say what helps."""
    job = await broken(harness)
    offer = offered(harness, job)

    def denied(*_: Any) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "exchange", denied)
    said = await harness.ask("replace", "n", **{"with": offer.id})
    assert "may not write in the folder" in said["message"]
    assert "chmod g+w" in said["message"]
    assert (harness.root / "failed/n/a.tif").read_text() == "half"


async def test_a_new_folder_of_the_same_inode_had_nothing_replaced(harness: Harness) -> None:
    """What lies there now is what counts, not a number that the file system has given again."""
    job = await broken(harness)
    offer = offered(harness, job)
    assert (await harness.ask("replace", "n", run=False, **{"with": offer.id}))["ok"]
    os.unlink(harness.root / "failed/n/a.tif")
    (harness.root / "failed/n/a.tif").write_text("another")
    os.rename(harness.root / "failed/n", harness.root / "inbox/n")
    later = await again(harness)
    assert later.state is JobState.DONE
    assert told(harness, later) == []


async def test_what_nobody_asks_for_is_removed_after_a_day(harness: Harness) -> None:
    """What was replaced never is."""
    job = await broken(harness)
    replacements = Replacements(harness.stations)
    old, fresh = offered(harness, job), offered(harness, job)
    os.utime(replacements.waiting / old.id, (1, KEPT_S))
    assert replacements.sweep() == 1
    assert [home.name for home in replacements.waiting.iterdir()] == [fresh.id]
    replacements.give_up(fresh.id)
    assert not list(replacements.waiting.iterdir())
