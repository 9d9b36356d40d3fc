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
from tests.support.house import House

WHAT: dict[str | bytes, Any] = {"a.tif": "half", "b.tif": "whole", "sub": {"c.tif": "odd"}}


async def fails_of_half(ctx: StepContext) -> StepResult:
    """A step as convert is: it says which file is at fault."""
    bad = [path for path in sorted(ctx.payload.rglob("*.tif")) if path.read_text() == "half"]
    if bad:
        error = ItemError("1 of 3 images cannot be converted: a.tif: damaged", hint="Scan it again")
        error.files = [path.name for path in bad]
        raise error
    return Done(detail="good")


async def broken(house: House, name: str = "n", what: dict[str | bytes, Any] | None = None) -> Job:
    """Let a folder fail of one of its files."""
    house.worker.plays["second"] = fails_of_half
    house.arrive(name, WHAT if what is None else what)
    async with house.running():
        job = await house.until_over(name)
    assert job.state is JobState.FAILED
    return job


def offered(
    house: House, job: Job, path: str = "a.tif", data: bytes = b"mended", who: str = "tester"
) -> Offer:
    """Let a new file come."""
    replacements = Replacements(house.stations)
    offer = replacements.expect(job, path, "", who)
    with replacements.receiving(offer) as file:
        file.write(data)
    return replacements.received(offer)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def again(house: House, count: int = 2) -> Job:
    """Let the folder be done as its next job."""
    async with house.running():
        await house.until(lambda: len(house.jobs("n")) == count)
        return await house.until_over("n")


def told(house: House, job: Job) -> list[str]:
    """Return what a job's events and its receipt say of replaced files."""
    stored = [e.detail for e in house.store.run(job_store.events_of, job.id) if e.type == "modification"]
    written = json.loads(receipt.path_of(house.stations.receipts, job).read_text())["events"]
    assert [event["detail"] for event in written if event["type"] == "modification"] == stored
    return stored


def kept(house: House, job: Job) -> list[Path]:
    return sorted((house.stations.state / "replaced" / job.id).glob("*/earlier/*"))


async def test_a_damaged_file_is_replaced_and_the_folder_done(house: House) -> None:
    """By a new job, with a manifest of its own; the old bytes stay, and both jobs' receipts say all of it."""
    job = await broken(house)
    assert job.error is not None
    assert job.error.files == ("a.tif",)
    (house.root / "failed/n/a.tif").chmod(0o640)
    offer = offered(house, job)
    said = await house.ask("replace", "n", reason="scanned again", **{"with": offer.id})
    assert said == {"ok": True, "message": "n: a.tif replaced; moved back to the inbox, and a new job begins"}
    later = await again(house)
    assert (later.state, house.where("n")) == (JobState.DONE, ["done"])
    assert later.id != job.id
    there = house.root / "done/n/a.tif"
    assert (there.read_bytes(), there.stat().st_mode & 0o777) == (b"mended", 0o640)
    (old,) = kept(house, job)
    assert (old.name, old.read_text()) == ("a.tif", "half")
    (detail,) = told(house, job)
    assert detail == (
        f"a.tif replaced by tester: scanned again; SHA-256 was {sha(b'half')}, is {sha(b'mended')} (6 bytes); "
        f"the earlier file is kept as {old.relative_to(house.root)}"
    )
    assert told(house, later) == [detail]
    listed = json.loads(receipt.path_of(house.stations.receipts, later).read_text())["manifest"]["files"]
    assert {file["path"]: file["sha256"] for file in listed}["a.tif"] == sha(b"mended")
    # Done once more it is a folder like any other.
    assert (await house.ask("rerun", "n"))["ok"]
    assert told(house, await again(house, 3)) == []


async def test_several_files_are_replaced_before_it_is_run_again(house: House) -> None:
    """Retry then says that the folder is another one."""
    job = await broken(house)
    for path in ("a.tif", "sub/c.tif"):
        offer = offered(house, job, path, path.encode())
        said = await house.ask("replace", job.id, run=False, **{"with": offer.id})
        assert said["ok"]
        assert f"dittohead rerun {job.id}" in said["message"]
    assert house.where("n") == ["failed"]
    assert "not what it was at the claim" in (await house.ask("retry", job.id))["message"]
    assert (await house.ask("rerun", job.id))["ok"]
    later = await again(house)
    assert later.state is JobState.DONE
    assert len(told(house, later)) == len(told(house, job)) == 2
    assert {path.read_text() for path in kept(house, job)} == {"half", "odd"}


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
async def test_only_a_file_of_the_folder_is_replaced(house: House, path: str, why: str) -> None:
    """Named to the letter; no link is followed, nothing is waited for."""
    job = await broken(house)
    folder = house.root / "failed/n"
    (folder / "link").symlink_to("a.tif")
    (folder / "away").symlink_to("/etc")
    os.mkfifo(folder / "pipe")
    with pytest.raises(ItemError) as refused:
        offered(house, job, path)
    assert why in str(refused.value)
    assert not list((house.stations.state).glob("repl*/*"))


async def test_names_alike_by_their_accents_are_told_apart(house: House) -> None:
    """The one that is there is named."""
    job = await broken(house, what={"u\u0308.tif": "half"})
    with pytest.raises(ItemError, match="There is u\u0308.tif"):
        offered(house, job, "\u00fc.tif")
    name = b"\xff.tif"
    os.rename(house.root / "failed/n/u\u0308.tif", os.fsencode(house.root / "failed/n") + b"/" + name)
    offer = Replacements(house.stations).expect(job, "%FF.tif", "percent", "tester")
    assert (offer.name, offer.encoding) == (name, "percent")


async def test_a_file_that_is_empty_or_the_same_or_not_what_was_sent_is_refused(house: House) -> None:
    """The folder stays as it was, and nothing of it stays."""
    job = await broken(house)
    with pytest.raises(ItemError, match="the new file is empty"):
        offered(house, job, data=b"")
    replacements = Replacements(house.stations)
    offer = replacements.expect(job, "a.tif", "", "tester")
    with replacements.receiving(offer) as file:
        file.write(b"mende")
    with pytest.raises(ItemError, match="not what was sent"):
        replacements.received(offer, sha(b"mended"))
    assert not list(replacements.waiting.iterdir())
    said = await house.ask("replace", "n", **{"with": offered(house, job, data=b"half").id})
    assert "the same as the one in the folder" in said["message"]
    assert (house.where("n"), kept(house, job)) == (["failed"], [])


async def test_it_is_refused_where_it_is_not_ones_own_or_the_job_is_another(house: House) -> None:
    """What one person has uploaded for one job is for nobody else."""
    job, other = await broken(house), await broken(house, "m")
    offer = offered(house, job, who="somebody")
    for wanted, why in ((job.id, "by somebody else"), (other.id, "for another job")):
        said = await house.ask("replace", wanted, **{"with": offer.id})
        assert not said["ok"]
        assert why in said["message"]
    for wrong in ("", "../../inbox", "0" * 32):
        assert "not here any more" in (await house.ask("replace", job.id, **{"with": wrong}))["message"]
    mine = offered(house, job)
    house.arrive("n")
    assert "in the inbox already" in (await house.ask("replace", job.id, **{"with": mine.id}))["message"]
    fresh = await again(house)
    assert fresh.state is JobState.DONE
    said = await house.ask("replace", fresh.id, **{"with": mine.id})
    assert "has not failed" in said["message"]
    assert (house.root / "failed/n/a.tif").read_text() == "half"


class Death(BaseException):
    """The daemon dies here."""


@pytest.mark.parametrize("point", [*fail_points.REPLACE_POINTS, "move.renamed"])
@pytest.mark.parametrize("swaps", [True, False])
async def test_a_death_at_any_moment_loses_neither_file(
    house: House, monkeypatch: pytest.MonkeyPatch, point: str, swaps: bool
) -> None:
    """And the next daemon finishes it, once; also on a file system that cannot swap in one step."""
    job = await broken(house)
    offer = offered(house, job)
    if not swaps:
        monkeypatch.setattr(files, "exchange", lambda *_: False)

    def die(name: str) -> None:
        if name == point:
            raise Death

    with monkeypatch.context() as dying:
        dying.setattr(fail_points, "point", die)
        with pytest.raises(Death):
            await house.ask("replace", "n", **{"with": offer.id})
    assert _everywhere(house, job, offer) == {"half", "mended"}
    house.actions.begun.clear()
    await house.actions.answer_all()
    later = await again(house)
    assert (later.state, (house.root / "done/n/a.tif").read_text()) == (JobState.DONE, "mended")
    assert [path.read_text() for path in kept(house, job)] == ["half"]
    assert len(told(house, later)) == 1
    assert len([e for e in house.store.run(job_store.events_of, job.id) if e.type == "modification"]) == 1


def _everywhere(house: House, job: Job, offer: Offer) -> set[str]:
    """Return what the two files hold, wherever they lie now."""
    homes = [house.stations.state / "replacements" / offer.id, house.stations.state / "replaced" / job.id]
    found = [path for home in homes for path in home.rglob("*") if path.is_file() and path.suffix != ".json"]
    found += [path for at in ("failed/n", "inbox/n") for path in (house.root / at).glob("a.tif")]
    return {path.read_text() for path in found}


async def test_without_a_swap_a_death_between_the_two_renames_is_mended(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier file has left, the new one is not there yet."""
    job = await broken(house)
    offer = offered(house, job)
    monkeypatch.setattr(files, "exchange", lambda *_: False)
    real = files.rename_noreplace

    def once(source: bytes, destination: bytes) -> None:
        if source.endswith(b"/new"):
            raise Death
        real(source, destination)

    with monkeypatch.context() as dying:
        dying.setattr(files, "rename_noreplace", once)
        with pytest.raises(Death):
            await house.ask("replace", "n", **{"with": offer.id})
    assert not (house.root / "failed/n/a.tif").exists()
    assert _everywhere(house, job, offer) == {"half", "mended"}
    house.actions.begun.clear()
    await house.actions.answer_all()
    assert (house.root / "inbox/n/a.tif").read_text() == "mended"


async def test_a_file_that_the_disk_gives_back_no_more_is_replaced(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest is that of the claim."""
    job = await broken(house)
    offer = offered(house, job)
    with monkeypatch.context() as bad:

        def unreadable(fd: int, buffer: memoryview, on_block: Any = None) -> tuple[str, int]:
            raise OSError(errno.EIO, "Input/output error")

        bad.setattr(files, "sha256_fd", unreadable)
        assert (await house.ask("replace", "n", **{"with": offer.id}))["ok"]
    assert f"SHA-256 was {sha(b'half')}" in house.store.run(job_store.events_of, job.id)[-1].detail
    assert [path.read_text() for path in kept(house, job)] == ["half"]


async def test_where_the_daemon_may_not_write_nothing_is_changed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words say what helps."""
    job = await broken(house)
    offer = offered(house, job)

    def denied(*_: Any) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "exchange", denied)
    said = await house.ask("replace", "n", **{"with": offer.id})
    assert "may not write in the folder" in said["message"]
    assert "chmod g+w" in said["message"]
    assert (house.root / "failed/n/a.tif").read_text() == "half"


async def test_a_new_folder_of_the_same_inode_had_nothing_replaced(house: House) -> None:
    """What lies there now is what counts, not a number that the file system has given again."""
    job = await broken(house)
    offer = offered(house, job)
    assert (await house.ask("replace", "n", run=False, **{"with": offer.id}))["ok"]
    os.unlink(house.root / "failed/n/a.tif")
    (house.root / "failed/n/a.tif").write_text("another")
    os.rename(house.root / "failed/n", house.root / "inbox/n")
    later = await again(house)
    assert later.state is JobState.DONE
    assert told(house, later) == []


async def test_what_nobody_asks_for_is_removed_after_a_day(house: House) -> None:
    """What was replaced never is."""
    job = await broken(house)
    replacements = Replacements(house.stations)
    old, fresh = offered(house, job), offered(house, job)
    os.utime(replacements.waiting / old.id, (1, KEPT_S))
    assert replacements.sweep() == 1
    assert [home.name for home in replacements.waiting.iterdir()] == [fresh.id]
    replacements.give_up(fresh.id)
    assert not list(replacements.waiting.iterdir())
