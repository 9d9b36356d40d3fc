"""Check a finished job: its receipt against the folder, what was made, and the targets."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from dittohead.admin.finished_steps import recorded
from dittohead.config.registry import Registry
from dittohead.contract.worker import Inputs, VerifyContext, Worker
from dittohead.folders import receipt
from dittohead.folders.job_files import JobFiles
from dittohead.folders.receipt import Receipt, RecordedLocation
from dittohead.folders.stations import Stations
from dittohead.model.definition import StepTotals
from dittohead.model.errors import DittoheadError, StepError, Unreadable
from dittohead.model.paths import path_bytes
from dittohead.model.records import Job
from dittohead.model.shown import ShownReport
from dittohead.model.states import TERMINAL, JobState
from dittohead.model.text import display
from dittohead.store import Store, custody, history
from dittohead.store import jobs as job_store
from dittohead.system import files
from dittohead.system.pace import Pace
from dittohead.system.process import environment
from dittohead.system.threads import Stop, in_thread


@dataclass
class Report:
    """What was found."""

    job: str
    checked: dict[str, int] = field(default_factory=dict)  #: files as they should be, by place
    problems: list[tuple[str, str]] = field(default_factory=list)  #: (where, what): they differ
    unchecked: list[tuple[str, str]] = field(default_factory=list)  #: (where, why): nobody knows
    taken_back: list[str] = field(
        default_factory=list
    )  #: steps whose work was undone: nothing is to be there
    looked: int = 0  #: files and places that were looked at
    total: int = 0  #: of so many

    @property
    def good(self) -> bool:
        """Whether everything was looked at, and is as the receipt says."""
        return not self.problems and not self.unchecked

    def note(self, place: str, problem: str | None) -> None:
        """Record one file's check."""
        self.looked += 1
        if problem is None:
            self.checked[place] = self.checked.get(place, 0) + 1
        else:
            self.problems.append((place, problem))

    def as_dict(self) -> ShownReport:
        """Return it as JSON fields."""
        return {
            "job": self.job,
            "good": self.good,
            "checked": self.checked,
            "problems": [{"where": where, "what": what} for where, what in self.problems],
            "taken_back": self.taken_back,
            "unchecked": [{"where": where, "why": why} for where, why in self.unchecked],
        }


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How closely it is looked at, and how fast."""

    pace: Pace = field(default_factory=Pace)
    reads: bool = False  #: also what a place tells a checksum of by itself
    only_there: bool = False  #: the folder, only where it still lies where its job left it


async def verify_job(
    job: Job,
    store: Store,
    stations: Stations,
    workers: Registry,
    secret: Callable[[str], str],
    report: Report | None = None,
    reading: Reading | None = None,
) -> Report:
    """Read every file again, here and at the targets, and compare with the receipt.

    Args:
        job: one that has ended.
        store: of the daemon.
        stations: of the root.
        workers: of the job's steps.
        secret: gives a credential by its file name.
        report: is filled; the caller sees how far it is.
        reading: how closely and how fast; by default as fast as it goes.

    Raises: DittoheadError: the job is not over, or has no receipt.
    """
    if job.state not in TERMINAL:
        raise DittoheadError(f"{job.name} is not over ({job.state})", hint=f"dittohead show {job.id}")
    later = await store.read(history.taken_up_by, job)
    if later is not None and job.state is JobState.FAILED:
        raise DittoheadError(
            f"{job.name} was done again since, and its folder is that job's", hint=f"dittohead verify {later}"
        )
    path = receipt.path_of(stations.receipts, job)
    try:
        fields = receipt.read(path)
    except OSError as error:
        raise DittoheadError(f"the receipt cannot be read ({error.strerror})", where=str(path)) from error
    report, reading = report or Report(job.id), reading or Reading()
    outputs = fields["outputs"] if JobFiles(stations, job).home.exists() else ()
    removed = (await store.read(custody.get, job.id)).removed_at is not None
    there = not removed and (
        not reading.only_there or await in_thread(lambda stop: _lies_there(job, stations))
    )
    listed = len(fields["manifest"]["files"]) if there else 0
    report.total = listed + len(outputs) + len(fields["locations"])
    if there:
        await in_thread(lambda stop: _folder(job, stations, fields, report, reading.pace, stop))
    await in_thread(lambda stop: _outputs(job, stations, fields, report, reading.pace, stop))
    await _targets(job, store, stations, workers, secret, fields["locations"], report, reading)
    return report


def _lies_there(job: Job, stations: Stations) -> bool:
    try:
        return os.lstat(stations.folder(job.station, job.folder)).st_ino == job.ino
    except FileNotFoundError:
        return False


def _folder(job: Job, stations: Stations, fields: Receipt, report: Report, pace: Pace, stop: Stop) -> None:
    root = stations.folder(job.station, job.folder)
    expected = {path_bytes(item): item for item in fields["manifest"]["files"]}
    found = 0
    try:
        for item in files.walk(root):
            if item.kind != "file":
                continue
            known = expected.pop(item.path, None)
            place = f"{root}/{display(item.path)}"
            if known is None:
                report.note(place, "is not in the manifest")
                continue
            fd, _ = files.open_regular(item.name, item.dir_fd)
            with open(fd, "rb", buffering=0):
                digest, _ = files.sha256_fd(
                    fd, files.hash_buffer(), lambda size: pace.spend_in_thread(size, stop)
                )
            if digest != known["sha256"]:
                report.note(place, "differs from the manifest")
            else:
                found += 1
                report.looked += 1
    except (OSError, DittoheadError) as error:
        report.note(str(root), str(error))
    if found:
        report.checked[str(root)] = found
    for path in expected:
        report.note(f"{root}/{display(path)}", "is missing")


def _outputs(job: Job, stations: Stations, fields: Receipt, report: Report, pace: Pace, stop: Stop) -> None:
    home = JobFiles(stations, job).home
    if not home.exists():
        return  # kept only as long as the pipeline says; the receipt and the targets remain
    for output in fields["outputs"]:
        pace.spend_in_thread(output["size"], stop)
        directory = home / output["step"]
        path = bytes(directory) + b"/" + path_bytes(output)
        try:
            good = files.sha256_file(path)[0] == output["sha256"]
        except (OSError, DittoheadError) as error:
            report.note(display(path), str(error))
            continue
        if good:
            report.note(str(directory), None)
        else:
            report.note(display(path), "differs from the receipt")


async def _targets(
    job: Job,
    store: Store,
    stations: Stations,
    workers: Registry,
    secret: Callable[[str], str],
    locations: list[RecordedLocation],
    report: Report,
    reading: Reading,
) -> None:
    job_files = JobFiles(stations, job)
    undone = await store.read(job_store.was_undone, job.id)
    async for step in recorded(job, store, stations, workers):
        delivered = [fields for fields in locations if fields["step"] == step.row.name]
        if not delivered:
            continue
        if step.problem:
            report.unchecked.append((f"step {step.row.name}", step.problem))
            continue
        if undone and type(step.worker).undo is not Worker.undo:
            report.taken_back.append(step.row.name)
            continue
        context = VerifyContext(
            locations=lambda delivered=delivered: map(receipt.read_location, delivered),  # type: ignore[misc]
            source=_source(job, stations, job_files, step.source, step.row.result),
            env=environment(stations.root),
            secret=secret,
            pace=reading.pace,
            reads=reading.reads,
            report=functools.partial(_told, report, _common(delivered)),
        )
        try:
            await step.worker.verify(context, step.options)
        except (StepError, Unreadable) as error:
            report.unchecked.append((f"step {step.row.name}", str(error)))


#: How workers begin a statement on what they could not look at.
_UNKNOWN = "cannot be "


def _told(report: Report, place: str, ok: bool, uri: str, what: str) -> None:
    if not ok and what.startswith(_UNKNOWN):
        report.looked += 1
        report.unchecked.append((uri, what))
    else:
        report.note(place if ok else uri, None if ok else what)


def _common(delivered: list[RecordedLocation]) -> str:
    """Return what all the places of a step begin with, up to and with a slash."""
    uris = [fields["uri"].rpartition("/")[0].split("/") for fields in delivered]
    levels = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*uris, strict=False))
    return "/".join(parts[0] for parts in levels) + "/"


def _source(
    job: Job, stations: Stations, job_files: JobFiles, step: str, result: StepTotals
) -> Inputs | None:
    source = job_files.source(step, result)
    if step:
        return source if source.root.is_dir() else None
    root = stations.folder(job.station, job.folder)
    return Inputs(root=root, entries=source.entries, files=source.files, size=source.size)
