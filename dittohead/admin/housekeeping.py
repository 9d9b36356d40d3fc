"""What is done now and then: removing old work, reporting stale uploads."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dittohead.admin.stale_uploads import StaleUploads
from dittohead.config.settings import Watch
from dittohead.engine.engine import Engine
from dittohead.engine.finish import remove_work
from dittohead.engine.supervisor import alone
from dittohead.folders.replacement import Replacements
from dittohead.folders.stations import Scan
from dittohead.model.errors import Unreadable
from dittohead.model.states import TERMINAL, JobState, Station
from dittohead.store import history
from dittohead.store import jobs as job_store
from dittohead.system import log, own_files
from dittohead.toolkit import intent_log
from dittohead.toolkit.backoff import wait_s

#: Between two looks at what jobs left unfinished outside; nothing is there nearly always.
_OUTSIDE_S = 20.0

#: Seconds until what could not be undone outside is tried again, at first and at most.
_UNDO_S, _UNDO_MOST_S = 60.0, 3600.0

#: How the names of notes end whose job was over, and which are being followed up.
_OVER = ".over"

#: The late look at a finished folder needs its manifest; it comes so much later than due, at most. Seconds.
_LATE_S = 300.0

#: Between two rounds; the first comes soon after the start.
_ROUND_S = 600.0
_FIRST_S = 2.0


class Housekeeper:
    """Keeps work/ from growing and uploads from being forgotten."""

    def __init__(self, engine: Engine, watch: Watch, scan: Callable[[], Scan | None]) -> None:
        self._engine, self._watch, self._scan = engine, watch, scan
        self.stale = StaleUploads(engine)
        self._put_off: dict[Path, tuple[float, int]] = {}  #: notes -> (not before, tries that failed)

    async def run(self) -> None:
        """Make rounds until cancelled."""
        wait = min(_FIRST_S, self._watch.stale_after)
        while True:
            await asyncio.sleep(wait)
            wait = min(_ROUND_S, max(self._watch.stale_after / 2, 0.2))
            for task in (self.stale_round, self.work_round, self.offers_round):
                await alone("housekeeping", task)

    async def stale_round(self) -> None:
        """Look for dotted folders nobody writes to any more."""
        scan = self._scan()
        if scan is not None:
            await self.stale.round(scan.uploads, self._watch.stale_after)

    async def work_round(self) -> None:
        """Remove work/<job id>/ of jobs that have been done for longer than their pipeline keeps it."""
        homes = await asyncio.to_thread(_names, self._engine.stations.work)
        for job_id in homes:
            await alone("housekeeping", functools.partial(self._one_home, job_id))

    async def offers_round(self) -> None:
        """Remove files that came to stand in for others, and that nobody has asked for in a day."""
        await asyncio.to_thread(Replacements(self._engine.stations).sweep)

    async def _one_home(self, job_id: str) -> None:
        try:
            job = await self._engine.store.read(job_store.get, job_id)
        except KeyError:
            return  # not ours to judge: a rebuilt store may not know it yet
        keep, late = job.definition.keep_work_s, self._watch.late_look
        if await self._engine.store.read(history.is_superseded, job):
            keep = late = 0.0  # a later job of the folder has made it all again, or taken it over
        if job.state is not JobState.DONE or job.station is not Station.DONE or keep is None:
            return
        age = 0.0 if job.finished_at is None else time.time() - job.finished_at.timestamp()
        if age >= keep:
            but_manifest = late > 0 and age < late + _LATE_S
            await asyncio.to_thread(remove_work, self._engine.stations, job_id, but_manifest=but_manifest)

    async def run_outside(self) -> None:
        """Undo what ended jobs left unfinished outside; at the start and until cancelled."""
        while True:
            await alone("outside", self.outside_round)
            await asyncio.sleep(_OUTSIDE_S)

    async def outside_round(self) -> None:
        """Have each worker let go of what its notes say, where their job has ended."""
        for notes in await asyncio.to_thread(_notes, self._engine.stations.state / "outside"):
            await alone("outside", functools.partial(self._one_of_outside, notes))

    async def _one_of_outside(self, notes: Path) -> None:
        job_id, step, *_ = notes.name.split(".")
        due, failures = self._put_off.get(notes, (0.0, 0))
        if time.monotonic() < due:
            return
        if notes.suffix != _OVER:
            if not await self._is_over(job_id):
                return
            notes = await asyncio.to_thread(_set_aside, notes)  # the same, renamed
        with log.bind(job=job_id, step=step):
            try:
                await self._let_go(notes)
            except Exception as error:  # noqa: BLE001  # a site's own worker may raise anything
                wait = wait_s(failures + 1, first_s=_UNDO_S, most_s=_UNDO_MOST_S)
                self._put_off[notes] = (time.monotonic() + wait, failures + 1)
                log.get().warning(log.OUTSIDE_LEFT, error=str(error), wait_seconds=round(wait, 1))
            else:
                self._put_off.pop(notes, None)
                log.get().info(log.OUTSIDE_UNDONE)

    async def _is_over(self, job_id: str) -> bool:
        try:
            job = await self._engine.store.read(job_store.get, job_id)
        except KeyError:
            return True
        return job.state in TERMINAL

    async def _let_go(self, notes: Path) -> None:
        head = await asyncio.to_thread(_head, notes)
        if head is not None:
            await self._engine.workers.get(head["worker"]).let_go(notes, self._engine.secret)
        await asyncio.to_thread(notes.unlink, missing_ok=True)


def _notes(directory: Path) -> list[Path]:
    return sorted([*directory.glob("*.jsonl"), *directory.glob(f"*{_OVER}")])


def _set_aside(notes: Path) -> Path:
    """Rename notes, so that those of a job that is tried again meanwhile are others, and stay."""
    aside = notes.with_name(f"{notes.name.removesuffix('.jsonl')}.{time.time_ns()}{_OVER}")
    notes.rename(aside)
    return aside


def _head(notes: Path) -> dict[str, Any] | None:
    """Return whose notes these are; None when the daemon died before it could write that.

    Raises: Unreadable: there is more than half a line, and none says whose: it is not to be forgotten.
    """
    fields = next(
        (fields for fields in intent_log.read(notes) if isinstance(fields.get("worker"), str)), None
    )
    if fields is None and any(line.endswith(b"\n") and line.strip() for line in own_files.lines(notes)):
        raise Unreadable(
            "these notes of what was left outside are damaged",
            where=str(notes),
            hint="Look what they say, clean up by hand, then remove the file",
        )
    return fields


def _names(path: Any) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())
