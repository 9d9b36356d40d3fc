"""What a job's page shows: gathered from the store and from the job's own files."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dittohead.folders import receipt, replacement
from dittohead.folders.job_files import JobFiles
from dittohead.folders.stations import Stations
from dittohead.model import step_graph
from dittohead.model.errors import Unreadable
from dittohead.model.events import Event
from dittohead.model.records import Job, StepRow
from dittohead.model.shown import LiveStatus
from dittohead.model.states import TERMINAL, StepState
from dittohead.model.text import display
from dittohead.store import Connection, custody, history, queries
from dittohead.store import jobs as job_store
from dittohead.store import requests as request_store
from dittohead.store.custody import Custody
from dittohead.store.requests import RequestRow
from dittohead.web.pages.cures import cures
from dittohead.web.pages.front import rows
from dittohead.web.pages.log_text import last_lines
from dittohead.web.pages.people import uploaders

#: Events, requests, links and other jobs of the name that are shown; the receipt has all events and places.
EVENTS, ASKED, LINKS, HISTORY = 200, 50, 100, 20

#: Lines of a log shown with a step that failed.
LINES = 8


@dataclass(frozen=True, kw_only=True)
class JobData:
    """What the store says of one job."""

    job: Job
    steps: Sequence[StepRow]
    events: Sequence[Event]
    asked: Sequence[RequestRow]
    history: Sequence[Job]
    later: str | None  #: the job that has taken up the same folder since
    undone: bool  #: what it had created outside was taken back
    uploader: str
    custody: Custody  #: when its copies were checked, and what is to become of its folder


def gather(connection: Connection, wanted: str) -> JobData:
    """Ask the store, in one transaction. Raises: NoSuchJob."""
    job = queries.resolve(connection, wanted)
    return JobData(
        job=job,
        steps=job_store.steps_of(connection, job.id),
        events=job_store.events_of(connection, job.id)[-EVENTS:],
        asked=_asked(connection, job),
        history=history.others_of_name(connection, job, HISTORY),
        later=history.taken_up_by(connection, job),
        undone=job_store.was_undone(connection, job.id),
        uploader=uploaders(connection, [job])[job.id],
        custody=custody.get(connection, job.id),
    )


def _asked(connection: Connection, job: Job) -> list[RequestRow]:
    """Return what people asked of this job, the latest first, and who dropped it through the page."""
    dropped = request_store.listing(connection, job=job.name, action="drop", limit=ASKED)
    return [
        *request_store.listing(connection, job=job.id, limit=ASKED),
        # Of folders that came under this name, this one alone.
        *(one for one in dropped if one.given.ino == job.ino),
    ]


def levels(job: Job, steps: Sequence[StepRow]) -> list[list[StepRow]]:
    """Return the steps as they follow each other; those of one level may run in parallel."""
    needed = step_graph.needs(job.definition)
    if len(needed) < len(steps):  # the definition is damaged: as they are numbered
        return [[step] for step in steps]
    depth: list[int] = []
    for before in needed:  # what a step needs comes before it
        depth.append(1 + max((depth[position] for position in before), default=-1))
    found: list[list[StepRow]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for step in steps:
        found[depth[step.position]].append(step)
    return found


_Links = tuple[tuple[str, str], ...]


@functools.lru_cache(maxsize=256)
def _delivered(path: Path, mtime_ns: int, size: int) -> tuple[_Links, str, tuple[tuple[str, int], ...]]:
    """Return (links, place of the copies, (how verified, how many)) of a list of locations.

    Args:
        mtime_ns, size: of the file: it is read again when it is another one.
    """
    links: list[tuple[str, str]] = []
    place, ways = "", Counter[str]()
    for location in receipt.read_locations(path):
        if location.use:
            links.append((location.use, location.uri))
            continue
        if not ways:
            place = location.uri.rsplit("/", location.path.count(b"/") + 1)[0] + "/"
        ways[location.verified_by] += 1
    return tuple(links), place, tuple(ways.items())


def files_of(stations: Stations, seen: JobData) -> dict[str, Any]:
    """Return what a job's files say: where everything is, which steps have logs, the receipt. Blocking."""
    files = JobFiles(stations, seen.job)
    links: list[tuple[str, str]] = []
    places: list[tuple[str, int, str]] = []
    for step in seen.steps:
        path = files.locations(step.name)
        try:
            status = os.stat(path)
            found, place, ways = _delivered(path, status.st_mtime_ns, status.st_size)
        except (OSError, Unreadable):  # nothing delivered, or damaged
            continue
        if step.state is StepState.DONE:
            links.extend(found)
            places.extend((place, count, how) for how, count in ways)
    return {
        "links": links[:LINKS],
        "links_more": max(len(links) - LINKS, 0),
        "places": places,
        "logs": {step.name for step in seen.steps if _holds(files.log(step.name))},
        "printed": _printed(files, seen),
        "faulty": replacement.at_fault(stations, seen.job) if not seen.later else [],
        "receipt": receipt.path_of(stations.receipts, seen.job).exists(),
        **_where(stations, seen.job),
    }


def _printed(files: JobFiles, seen: JobData) -> dict[str, str]:
    """Return the last lines that the steps which did not succeed have printed."""
    troubled = [step for step in seen.steps if step.error and step.state is not StepState.DONE]
    return {step.name: text for step in troubled if (text := last_lines(files.log(step.name), LINES))}


def _where(stations: Stations, job: Job) -> dict[str, Any]:
    """Return whether a job's folder lies where the store says, and that in words. Blocking."""
    place = f"{job.station.value}/{display(job.folder)}"
    try:
        stations.identity(job.station, job.folder)
        there = True  # by its name: on another disk, and on overlayfs, its inode is another
    except FileNotFoundError:
        there = False
    except OSError as error:
        return {"there": True, "lies": f"{place} cannot be looked at ({error.strerror})"}
    return {
        "there": there,
        "lies": f"the folder is in {place}" if there else f"the folder is no longer in {place}",
    }


def _holds(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def values(stations: Stations, seen: JobData, known: Mapping[str, Any], live: LiveStatus) -> dict[str, Any]:
    """Return what the templates of a job's page are filled with.

    Args:
        known: from `files_of`.
        live: see engine/live_status.py.
    """
    job = seen.job
    return {
        **known,
        "job": job,
        "row": rows([(job, seen.steps)], live)[0],
        "steps": seen.steps,
        "levels": levels(job, seen.steps),
        "events": seen.events,
        "asked": seen.asked,
        "history": seen.history,
        "later": seen.later,
        "uploader": seen.uploader,
        "cures": _cures(seen, there=known["there"], faulty=bool(known["faulty"])),
        "custody": seen.custody,
        "deletable": known["there"] and not seen.later and job.state in TERMINAL,
        "folder": f"{job.station.value}/{display(job.folder)}",
    }


def _cures(seen: JobData, *, there: bool, faulty: bool) -> list[str]:
    """Return what can be asked for: of a folder that is elsewhere only to let it be."""
    if seen.later:
        return []
    found = [cure for cure in cures(seen.job, undone=seen.undone) if there or cure == "dismiss"]
    if faulty and "replace" not in found:
        found.insert(1, "replace")
    return [cure for cure in found if faulty or cure != "replace"]


def day(text: str, *, end: bool = False) -> datetime | None:
    """Return the beginning of a day, UTC, of a form's date; None for none. Raises: ValueError, in words.

    Args:
        end: the beginning of the next day: up to that, the day itself counts too.
    """
    if not text:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=end)
    except (ValueError, OverflowError) as error:
        raise ValueError(f'"{text[:40]}" is not a date; write it as 2026-01-31') from error
