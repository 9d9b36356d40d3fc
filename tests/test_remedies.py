"""What is said to be done about a failed folder can be typed as it stands, and helps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dittohead.admin import views
from dittohead.admin.doctor import DoctorFinding, _once_each
from dittohead.cli import jobs
from dittohead.contract.worker import StepContext, StepResult
from dittohead.model.errors import ClosedError, ItemError
from dittohead.model.records import Job
from dittohead.model.states import JobState
from dittohead.model.text import display, own_group
from dittohead.system import files
from tests.support.harness import Harness
from tests.support.notices import told_of
from tests.test_replacement import broken, offered

NO_TEXT = """
root: .
space: {floor: 0}
pipelines: {scans: {match: "scan-.*", steps: [{script: {name: first}}]}}
"""


async def failed(harness: Harness, name: str | bytes) -> Job:
    harness.arrive(os.fsdecode(name))
    async with harness.running():
        job = await harness.until_over(display(os.fsencode(name)))
    assert job.state is JobState.FAILED
    return job


def said(harness: Harness, job: Job) -> tuple[str, str, str]:
    """Return what the reason file, the mail and the job itself say."""
    reason = harness.stations.reason_path(job.folder).read_text()
    return reason, told_of(harness.stations.root, job)[1], job.reason


async def test_of_a_file_at_fault_the_command_that_replaces_it_comes_first(harness: Harness) -> None:
    """With the folder's and the file's name, wherever the failure is told."""
    job = await broken(harness, "lab1 sec", {"a b.tif": "half", "c.tif": "half"})
    for text in said(harness, job):
        assert "`dittohead replace 'lab1 sec' 'a b.tif' --with NEW` (on the page: Replace a file)" in text
        assert text.index("dittohead replace") < text.index("Scan it again")
    offered(harness, job, "a b.tif")


async def test_files_that_are_good_are_not_to_be_replaced(harness: Harness) -> None:
    """Where it is the step's settings that do not let it take them."""

    async def short(ctx: StepContext) -> StepResult:
        error = ItemError("1 of 1 images cannot be converted", hint="Give the step more memory")
        error.files, error.good = ["a.tif"], True
        raise error

    harness.worker.plays["first"] = short
    job = await failed(harness, "lab1-x")
    assert job.reason.endswith("cannot be converted. Give the step more memory")


async def test_an_unreadable_file_is_named_with_the_whole_command(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then the job is tried again: nothing need be moved."""

    async def closed(ctx: StepContext) -> StepResult:
        raise ClosedError("the daemon may not read this", where="sub/my x")

    harness.worker.plays["first"] = closed
    job = await failed(harness, "lab1-x")
    place = f"'{harness.stations.root}/failed/lab1-x/sub/my x'"
    command = f"sudo chgrp -R {own_group()} {place} && sudo chmod -R ug+rX {place}"
    for text in said(harness, job):
        assert f"Type: `{command}`, and then: `dittohead retry lab1-x`" in text


async def test_where_the_name_is_taken_in_failed_no_other_folder_is_opened(harness: Harness) -> None:
    """The earlier one of the name is not the one at fault."""

    async def closed(ctx: StepContext) -> StepResult:
        raise ClosedError("the daemon may not read this", where="a")

    harness.worker.plays["first"] = closed
    (harness.stations.root / "failed" / "lab1-x").mkdir()
    job = await failed(harness, "lab1-x")
    assert "read the folder that `dittohead show lab1-x` names, and then: `dittohead retry" in job.reason


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        (b"lab1-bad\xff", "`dittohead rename lab1-bad%FF NEWNAME`"),
        (b"lab1 x", "`dittohead rename 'lab1 x' NEWNAME`"),
    ],
)
async def test_a_name_that_will_not_do_is_changed_by_a_command(
    tmp_path: Path, folder: bytes, command: str
) -> None:
    """Not by hand: who reads this may not be allowed to move anything."""
    harness = Harness(tmp_path, NO_TEXT)
    job = await failed(harness, folder)
    for text in said(harness, job):
        assert command in text
    harness.store.close()


def test_what_the_daemon_may_not_read_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and directories alike, and no words stand for a path."""

    def shut(*_: Any, **__: Any) -> int:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(os, "open", shut)
    for look in (lambda: files.open_regular(b"a/b"), lambda: list(files.walk(tmp_path))):
        with pytest.raises(ClosedError) as caught:
            look()
        assert "FOLDER" not in str(caught.value)
        assert isinstance(caught.value, ItemError)


async def test_what_was_told_is_not_told_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By `show`: the reason once, and the folder under one name."""
    harness = Harness(tmp_path, NO_TEXT.replace("scan-.*", ".*"))

    async def bad(ctx: StepContext) -> StepResult:
        raise ItemError("it is damaged beyond all repair", hint="Scan it again")

    harness.worker.plays["first"] = bad
    job = await failed(harness, "scan-x")
    fields = harness.store.run(views.job, harness.stations, job)
    fields["folder_path"] = os.fsdecode(os.fsencode(fields["folder_path"]) + b"\xff")
    capsys.readouterr()  # what was logged
    jobs._print_job(fields)
    said = capsys.readouterr().out
    assert said.count("it is damaged beyond all repair") == 1
    assert said.count("see above") >= 1
    assert "scan-x%FF" in said
    harness.store.close()


def test_a_fault_that_many_steps_meet_is_said_once() -> None:
    """By `doctor`: of all of them; what is well is said about each."""
    found = [
        DoctorFinding(level="bad", about="scans, step a", message="h: no"),
        DoctorFinding(level="good", about="scans, step a", message="rsync 3"),
        DoctorFinding(level="bad", about="scans, step b", message="h: no"),
        DoctorFinding(level="good", about="scans, step b", message="rsync 3"),
        DoctorFinding(level="bad", about="scans, step b", message="other"),
    ]
    assert [(one.level, one.about) for one in _once_each(found)] == [
        ("bad", "scans, step a; scans, step b"),
        ("good", "scans, step a"),
        ("good", "scans, step b"),
        ("bad", "scans, step b"),
    ]
