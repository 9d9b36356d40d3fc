"""What the front page shows: gathered from the store, from what is true only now, and from the inbox."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from dittohead.admin import views
from dittohead.config import registry
from dittohead.config.loader import SourceSetting
from dittohead.folders.stations import Stations
from dittohead.model.job_filter import JobFilter
from dittohead.model.records import Job, StepRow
from dittohead.model.shown import LiveStatus, ShownPanel, ShownProgress
from dittohead.model.states import JobState, Station, StepState
from dittohead.model.text import counted, display
from dittohead.store import Connection, history, numbers, queries
from dittohead.store import items as item_store
from dittohead.store import jobs as job_store
from dittohead.store import targets as target_store
from dittohead.store.search import find
from dittohead.store.targets import TargetRow
from dittohead.system import disk_space
from dittohead.web.pages.cures import cures
from dittohead.web.pages.people import uploaders

#: Rows of each kind; the others are counted, with a link to all of them.
RUNNING, WAITING, FAILED, LATELY, INBOX = 40, 12, 20, 10, 12

#: What "lately" is. Seconds.
DAY_S = 86400.0

#: Watching modes in which the inbox is seen.
_SEEING = ("inotify", "polling")


class StepInFlight(TypedDict):
    """A step whose turn it is."""

    name: str
    progress: ShownProgress | None  #: None where none is told


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job in a list."""

    job: Job
    done: int = 0  #: steps
    steps: int = 0
    now: Sequence[StepInFlight] = ()  #: its steps in flight

    @property
    def turn(self) -> int:
        """The number of the step whose turn it is."""
        return min(self.done + 1, self.steps)


@dataclass(frozen=True, kw_only=True)
class FrontData:
    """What the store says."""

    counts: Mapping[str, int]
    running: Sequence[tuple[Job, Sequence[StepRow]]]
    waiting: Sequence[tuple[Job, Sequence[StepRow]]]
    frozen: Sequence[Job]
    failed: Sequence[Job]
    failed_count: int
    lately: Sequence[Job]
    lately_count: int
    lately_bytes: int
    targets: Sequence[TargetRow]
    waits_for: Mapping[str, int]  #: target -> jobs that wait for it
    unsent: int
    looked: Mapping[str, float | None]  #: source -> when its last round began
    panels: Mapping[str, Sequence[ShownPanel]]  #: source -> what it shows of its catalogue
    boards: Collection[str]  #: sources that have a board
    uploaders: Mapping[str, str]  #: job's id -> who has brought its folder


def gather(connection: Connection, sources: Sequence[SourceSetting]) -> FrontData:
    """Ask the store, in one transaction."""

    def some(*states: JobState, limit: int) -> list[Job]:
        return queries.listing(connection, states=states, limit=limit)

    def with_steps(found: Sequence[Job]) -> list[tuple[Job, Sequence[StepRow]]]:
        return [(job, job_store.steps_of(connection, job.id)) for job in found]

    done, size = numbers.done_since(connection, time.time() - DAY_S)
    targets = target_store.load(connection)
    running = with_steps(some(JobState.RUNNING, limit=RUNNING))
    waiting = with_steps(some(JobState.WAITING, JobState.PAUSED, limit=WAITING))
    frozen, failed = some(JobState.FROZEN, limit=FAILED), history.open_failures(connection, FAILED)
    lately = find(connection, JobFilter(states=[JobState.DONE]), limit=LATELY).jobs
    shown = [*(job for job, _ in [*running, *waiting]), *frozen, *failed, *lately]
    return FrontData(
        counts=queries.counts(connection),
        running=running,
        waiting=waiting,
        frozen=frozen,
        failed=failed,
        failed_count=history.count_open_failures(connection),
        lately=lately,
        lately_count=done,
        lately_bytes=size,
        targets=targets,
        waits_for=numbers.waiting_for(connection, [row.name for row in targets if row.paused]),
        unsent=queries.unsent(connection),
        looked={one.name: item_store.rounds(connection, one.name).looked_at for one in sources},
        panels={one.name: views.panels(connection, one) for one in sources},
        boards=[one.name for one in sources if registry.sources().get(one.kind).board is not None],
        uploaders=uploaders(connection, shown),
    )


def arrivals(stations: Stations) -> list[str]:
    """Return the names of the folders in the inbox, in order. Blocking."""
    try:
        found = stations.listing(Station.INBOX)
        return sorted(display(name) for name in found if not stations.is_ignored(name))
    except OSError:  # the watcher says so itself
        return []


def free_space(stations: Stations) -> tuple[int, int]:
    """Return (free bytes, all bytes) of the root's file system. Blocking."""
    return disk_space.free(stations.root), disk_space.capacity(stations.root)


def in_flight(
    steps: Sequence[StepRow], progress: ShownProgress | None, *, running: bool
) -> list[StepInFlight]:
    """Return a job's steps in flight, in order.

    Args:
        steps: the job's steps, in the pipeline's order.
        progress: as the daemon's live status has it, with other steps under "beside"; None where there is
            none.
        running: the job runs now; otherwise no progress is shown.
    """
    told = {one["step"]: one for one in (progress, *progress.get("beside", ()))} if progress else {}
    names = [step.name for step in steps if step.state is StepState.RUNNING]
    if not names:
        names = [step.name for step in steps if step.state is not StepState.DONE][:1]
    return [{"name": name, "progress": told.get(name) if running else None} for name in names]


def rows(found: Sequence[tuple[Job, Sequence[StepRow]]], live: LiveStatus) -> list[JobRow]:
    """Return jobs with their steps as rows."""
    return [
        JobRow(
            job=job,
            done=sum(step.state is StepState.DONE for step in steps),
            steps=len(steps),
            now=in_flight(steps, live.get("progress", {}).get(job.id), running=job.state is JobState.RUNNING),
        )
        for job, steps in found
    ]


def front(
    seen: FrontData,
    live: LiveStatus,
    inbox: Sequence[str],
    disk: tuple[int, int],
    floor: int,
    rooms: Mapping[str, float],
) -> dict[str, Any]:
    """Return what the front page's templates are filled with.

    Args:
        live: see engine/live_status.py.
        inbox: names of the folders that are there.
        disk: free bytes and all bytes of the root's file system.
        floor: bytes that are to stay free.
        rooms: target -> free bytes, where a delivery has seen them.
    """
    held: Mapping[str, str] = live.get("held", {})
    known, overdue = set(held), live.get("overdue", [])
    counts = seen.counts
    troubles = _troubles(seen, live, disk[0], floor)
    waiting = counts["waiting"] + counts["paused"]
    return {
        "glance": _glance(troubles, counts, len(inbox), seen.lately_count),
        "well": not troubles,
        "troubles": troubles,
        "failed": [(job, cures(job)[0]) for job in seen.failed],
        "failed_more": seen.failed_count - len(seen.failed),
        "frozen": seen.frozen,
        "frozen_more": counts["frozen"] - len(seen.frozen),
        "targets": seen.targets,
        "waits_for": seen.waits_for,
        "places": _places(seen.targets, rooms),
        "looked": seen.looked,
        "who_of": seen.uploaders,
        "running": rows(seen.running, live),
        "running_more": counts["running"] - len(seen.running),
        "waiting": rows(seen.waiting, live),
        "waiting_more": waiting - len(seen.waiting),
        "held": held,
        "inbox": [name for name in inbox if name not in known][:INBOX],
        "inbox_count": len(inbox),
        "overdue": overdue,
        "overdue_more": live.get("overdue_count", len(overdue)) - len(overdue),
        "stale": live.get("stale", []),
        "stale_more": live.get("stale_count", 0) - len(live.get("stale", [])),
        "uploads": live.get("uploads", 0),
        "lately": seen.lately,
        "lately_count": seen.lately_count,
        "lately_bytes": seen.lately_bytes,
        "sources": live.get("sources", {}),
        "panels": seen.panels,
        "boards": seen.boards,
        "watcher": live.get("watcher", {}),
        "missing": live.get("troubles", []),
        "stuck": live.get("stuck", {}),
        "damaged": live.get("damaged_rows", []),
        "fixity": live.get("fixity"),
        "deletions": live.get("deletions", []),
        "free": disk_space.in_steps(disk[0]),
        "whole": disk[1],
        "floor": floor,
        "version": live.get("version", ""),
        "unsent": seen.unsent,
    }


def _places(targets: Sequence[TargetRow], rooms: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return every target that is known, with what is known of it."""
    known = {row.name: row for row in targets}
    found = []
    for name in sorted(known.keys() | rooms.keys()):
        row = known.get(name)
        paused, full = row is not None and row.paused, row is not None and row.nearly_full
        state, mark = (
            ("paused", "paused") if paused else ("nearly full", "waiting") if full else ("in use", "done")
        )
        found.append({"name": name, "state": state, "mark": mark, "free": rooms.get(name)})
    return found


def _troubles(seen: FrontData, live: LiveStatus, free: int, floor: int) -> list[str]:
    """Return what is wrong, each in a few words, the worst first."""
    mode = live.get("watcher", {}).get("mode", "starting")
    sources = live.get("sources", {}).values()
    paused = sum(target.paused for target in seen.targets)
    full = sum(target.nearly_full for target in seen.targets)
    stale = live.get("stale_count", len(live.get("stale", [])))
    strays = live.get("overdue_strays", 0)
    damaged = len(live.get("damaged_rows", []))
    stuck = live.get("overdue_count", 0) - strays
    fixity, deletions = live.get("fixity"), len(live.get("deletions", []))
    wrong = fixity["wrong"] if fixity else 0
    found = [
        *((True, trouble["what"]) for trouble in live.get("troubles", [])),
        (damaged, f"{counted(damaged, 'row')} of the store damaged"),
        (mode not in _SEEING, "the inbox is not watched"),
        (seen.failed_count, f"{counted(seen.failed_count, 'job')} failed"),
        (seen.counts["frozen"], f"{counted(seen.counts['frozen'], 'job')} frozen"),
        (paused, f"{counted(paused, 'target')} paused"),
        (free < floor, "the disk is too full to take folders in"),
        (full, f"{counted(full, 'target')} nearly full"),
        (any(source["error"] for source in sources), "a source fails"),
        (stuck, f"{counted(stuck, 'folder')} held in the inbox"),
        (strays, f"{counted(strays, 'thing')} in the inbox outside of any folder"),
        (stale, f"{counted(stale, 'stale upload')}"),
        (wrong, f"the copies of {counted(wrong, 'job')} are not as they were delivered"),
        (deletions, f"{counted(deletions, 'deletion')} to be approved"),
    ]
    return [words for wrong, words in found if wrong]


def _glance(troubles: Sequence[str], counts: Mapping[str, int], inbox: int, lately: int) -> str:
    """Return the page in one line."""
    going = counts["waiting"] + counts["paused"]
    parts = [f"{counts['running']:,} running", f"{going:,} waiting"]
    if inbox:
        parts.append(f"{inbox:,} in the inbox")
    parts.append(f"{lately:,} done in 24 hours")
    first = "; ".join(troubles) if troubles else "all is well"
    return f"{first[0].upper()}{first[1:]}. {', '.join(parts)}."
