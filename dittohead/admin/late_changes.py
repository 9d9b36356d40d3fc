"""A late look at what lies in done/: what was written there after the job's end is recorded and told.

Which folders are due is read from the store; how far the looks have come stands in one small file, so
that a folder that stayed as it was costs no transaction.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dittohead.engine.engine import Engine
from dittohead.folders import manifest, receipt
from dittohead.folders.job_files import JobFiles
from dittohead.model.errors import ItemError, StoreError, Unreadable
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Job
from dittohead.model.states import Station
from dittohead.model.text import counted, visible
from dittohead.store import Connection, history
from dittohead.store import jobs as job_store
from dittohead.store import outbox as outbox_store
from dittohead.system import log, own_files
from dittohead.system.files import write_durably
from dittohead.system.threads import Hung, Stop, in_own_thread

#: Between two rounds, at most; and a part of the time until a look is due.
_ROUND_S, _PART = 30.0, 0.25

#: Jobs read at once.
_PAGE = 200

#: Names of changed files that are recorded.
_SHOWN = 20

#: A look without a sign of life for this long hangs. Seconds.
_STALL_S = 30.0


@dataclass(frozen=True, kw_only=True)
class LateChanges:
    """What came or changed in a folder after its job's end."""

    count: int
    files: list[str]  #: the first of them, each as "PATH: added"


class LateChangeCheck:
    """Makes rounds."""

    def __init__(self, engine: Engine, after_s: Callable[[], float]) -> None:
        """Args: after_s: how long after a job's end its folder is looked at; 0: never."""
        self._engine, self._after_s = engine, after_s
        self._path = engine.stations.state / "late-look.json"

    async def run(self) -> None:
        """Make rounds until cancelled."""
        while True:
            after = self._after_s()
            try:
                if after:
                    await self.round(after)
            except (StoreError, OSError) as error:
                log.get().error(log.TASK_CRASHED, task="late", error=str(error))
            await asyncio.sleep(min(_ROUND_S, max(after * _PART, 0.05)) if after else _ROUND_S)

    async def round(self, after_s: float) -> None:
        """Compare every folder that is due."""
        until = time.time() - after_s
        begin = await asyncio.to_thread(_read, self._path)
        if begin is None:  # before the first job of all
            await asyncio.to_thread(_write, self._path, time.time())
            return
        if begin > time.time():  # the clock was set back: what ends from now on is due by the new one
            begin = until
            await asyncio.to_thread(_write, self._path, begin)
        while due := await self._engine.store.read(history.ended_between, begin, until, _PAGE):
            for job in due:
                started = time.monotonic()
                await self._alone(job)
                await asyncio.sleep(min(time.monotonic() - started, 1.0))  # the work goes first
            assert due[-1].finished_at is not None  # noqa: S101
            begin = due[-1].finished_at.timestamp()
            await asyncio.to_thread(_write, self._path, begin)

    async def _compare(self, job: Job) -> None:
        folder = self._engine.stations.folder(Station.DONE, job.folder)
        listed = JobFiles(self._engine.stations, job).manifest
        try:
            found = await in_own_thread(
                lambda stop: _changes(folder, listed, job.ino, stop), key=f"done/{job.id}", stall_s=_STALL_S
            )
        except Hung:
            self._unseen(job, "its file system does not answer")
        except (OSError, ItemError, ValueError) as error:
            self._unseen(job, str(error))
        else:
            if found is not None and found.count:
                await self._record(job, found)

    async def _alone(self, job: Job) -> None:
        """Compare one folder; what nobody has foreseen there holds up none of the others."""
        try:
            await self._compare(job)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  # around one folder
            log.get().exception(log.JOB_UNSEEN, job=job.id, name=job.name, reason=str(error))

    def _unseen(self, job: Job, reason: str) -> None:
        log.get().warning(log.JOB_UNSEEN, job=job.id, name=job.name, reason=reason)

    async def _record(self, job: Job, found: LateChanges) -> None:
        # 1 receipt  2 event, mark and notices: one commit.  After a crash between the two the receipt
        # has the event twice.
        if await self._engine.store.read(job_store.changed_late, job.id):
            return
        more = f" and {found.count - len(found.files):,} more" if found.count > len(found.files) else ""
        event = Event(
            type=EventType.FIXITY,
            outcome="failure",
            detail=f"{job_store.LATE}: {counted(found.count, 'file')} came or changed in done/ after the end "
            f"and were not delivered: {', '.join(found.files)}{more}",
            agent=AGENT,
        )
        path = receipt.path_of(self._engine.stations.receipts, job)
        try:
            await asyncio.to_thread(receipt.add_event, path, event)
        except (OSError, ValueError) as error:
            self._unseen(job, f"{path}: {error}")
        notices = await asyncio.to_thread(
            self._engine.compose, "late_change", job=job, count=found.count, files=found.files
        )

        def work(connection: Connection) -> None:
            job_store.mark_changed_late(connection, job.id, event)
            outbox_store.add(connection, notices)

        await self._engine.store.write(work)
        first = found.files[0]
        log.get().warning(log.JOB_CHANGED_LATE, job=job.id, name=job.name, files=found.count, first=first)
        if notices:
            self._engine.wake_notifier()


def _changes(folder: Path, listed: Path, ino: int, stop: Stop) -> LateChanges | None:
    """Return what is new in a folder; None where it, or its manifest, is no longer there."""
    try:
        if folder.stat(follow_symlinks=False).st_ino != ino:
            return None
        shown: list[str] = []
        count = 0
        for path, how in manifest.changes(folder, listed, stop=stop):
            count += 1
            if len(shown) < _SHOWN:
                shown.append(f"{visible(path.decode('utf-8', 'surrogateescape'))}: {how}")
    except FileNotFoundError:  # moved away, or back to the inbox
        return None
    return LateChanges(count=count, files=shown)


def _read(path: Path) -> float | None:
    try:
        return own_files.document(path, lambda found: float(found["until"]))
    except (OSError, Unreadable):
        return None


def _write(path: Path, until: float) -> None:
    write_durably(path, json.dumps({"until": until}).encode())
