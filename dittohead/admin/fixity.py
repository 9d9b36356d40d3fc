"""The fixity schedule: each job's copies are compared with its receipt again, the longest ago first.

What a check finds is an event in the receipt, a row of the store, and a notice where something is wrong. Of
what could not be looked at nothing is known: it is tried again a day later, and is overdue meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from dittohead.admin.verify import Reading, Report
from dittohead.config.settings import Verify
from dittohead.engine.engine import Engine
from dittohead.folders import receipt
from dittohead.model.errors import DittoheadError, StoreError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Job
from dittohead.model.shown import ShownDamage, ShownFixity
from dittohead.model.states import Fixity
from dittohead.model.text import counted, visible
from dittohead.store import Connection, custody
from dittohead.store import jobs as job_store
from dittohead.store import outbox as outbox_store
from dittohead.store.custody import FixityReport
from dittohead.system import log
from dittohead.system.pace import Pace

#: Between two rounds that found nothing due; the first comes soon after the start. Seconds.
_ROUND_S, _FIRST_S = 600.0, 5.0

#: What could not be looked at is tried again after this time, or at the schedule's next turn. Seconds.
_AGAIN_S = 86_400.0

#: Jobs read at once, and findings that are recorded.
_PAGE, _NAMED = 50, 20

#: Compares one job with its receipt. Raises: DittoheadError, OSError.
Compare = Callable[[Job, Reading], Awaitable[Report]]


class FixityCheck:
    """Makes rounds.

    Args:
        schedule: what config.yaml says now; None: nothing is checked.
        compare: looks at one job.
    """

    def __init__(self, engine: Engine, schedule: Callable[[], Verify | None], compare: Compare) -> None:
        self._engine, self._schedule, self._compare = engine, schedule, compare
        self._pace, self._rate = Pace(), 0
        self.report: FixityReport | None = None  #: of the latest round; None without a schedule
        self.wrong: list[ShownDamage] = []  #: for readers: jobs whose copies are not as they were delivered

    async def run(self) -> None:
        """Make rounds until cancelled."""
        wait = _FIRST_S
        while True:
            await asyncio.sleep(wait)
            schedule = self._schedule()
            wait = _ROUND_S if schedule is None else min(_ROUND_S, max(schedule.every / 4, 1.0))
            if schedule is None:
                self.report = None
                continue
            try:
                if await self.round(schedule):
                    wait = 0.0
            except (StoreError, OSError) as error:
                log.get().error(log.TASK_CRASHED, task="fixity", error=str(error))

    async def round(self, schedule: Verify) -> int:
        """Check some jobs that are due; return how many. Raises: StoreError."""
        now = time.time()
        tried_until = now - min(_AGAIN_S, schedule.every)
        jobs = await self._engine.store.read(custody.due, now - schedule.every, tried_until, _PAGE)
        for job in jobs:
            await self.check(job, schedule)
        await self._tell(schedule)
        return len(jobs)

    async def _tell(self, schedule: Verify) -> None:
        read = self._engine.store.read
        self.report = await read(custody.report, time.time() - schedule.every)
        self.wrong = [
            {"job": job.id, "name": job.name, "reason": known.reason, "at": known.checked_at}
            for job, known in await read(custody.wrong, _NAMED)
        ]

    def shown(self) -> ShownFixity | None:
        """Return how the checks stand, for readers; None without a schedule."""
        return None if self.report is None else {**self.report.as_dict(), "found": self.wrong}

    async def check(self, job: Job, schedule: Verify) -> Fixity:
        """Compare one job with its receipt, and record what was found. Raises: StoreError."""
        if schedule.rate != self._rate:
            self._pace, self._rate = Pace(schedule.rate), schedule.rate
        reading = Reading(pace=self._pace, reads=schedule.read, only_there=True)
        try:
            report = await self._compare(job, reading)
        except StoreError:
            raise
        except (DittoheadError, OSError) as error:
            report = Report(job.id, unchecked=[(job.name, str(error))])
        except Exception as error:  # noqa: BLE001  # around one job: a site's own worker may raise anything
            log.get().exception(log.JOB_UNSEEN, job=job.id, name=job.name, reason=str(error))
            report = Report(job.id, unchecked=[(job.name, f"{type(error).__name__}: {error}")])
        return await self._record(job, report)

    async def _record(self, job: Job, report: Report) -> Fixity:
        # 1 receipt  2 event, row and notices: one commit.  After a crash between the two it is checked again.
        found = fixity_of(report)
        reason = words(report)
        now = time.time()
        values = {"fixity": found.value, "reason": reason, "looked": report.looked, "tried_at": now}
        if found is Fixity.UNKNOWN:
            await self._engine.store.write(custody.put, job.id, **values)
            log.get().warning(log.JOB_UNSEEN, job=job.id, name=job.name, reason=reason)
            return found
        before = (await self._engine.store.read(custody.get, job.id)).fixity
        event = Event(
            type=EventType.FIXITY,
            outcome="success" if found is Fixity.GOOD else "failure",
            detail=reason or f"{counted(report.looked, 'file')} and places as the receipt says",
            agent=AGENT,
        )
        await self._to_receipt(job, event)
        is_news = found is Fixity.WRONG and before is not Fixity.WRONG
        notices = await self._notices(job, report) if is_news else []

        def work(connection: Connection) -> None:
            job_store.add_events(connection, job.id, [event])
            custody.put(connection, job.id, **values, checked_at=now)
            outbox_store.add(connection, notices)

        await self._engine.store.write(work)
        if found is Fixity.WRONG:
            log.get().error(log.JOB_DAMAGED, job=job.id, name=job.name, reason=reason)
        else:
            log.get().info(log.JOB_CHECKED, job=job.id, name=job.name, looked=report.looked)
        if notices:
            self._engine.wake_notifier()
        return found

    async def _notices(self, job: Job, report: Report) -> list[outbox_store.NewNotice]:
        shown = [f"{visible(where)}: {visible(what)}" for where, what in report.problems[:_NAMED]]
        return await asyncio.to_thread(
            self._engine.compose, "damaged", job=job, count=len(report.problems), files=shown
        )

    async def _to_receipt(self, job: Job, event: Event) -> None:
        path = receipt.path_of(self._engine.stations.receipts, job)
        try:
            await asyncio.to_thread(receipt.add_event, path, event)
        except (OSError, ValueError, DittoheadError) as error:
            log.get().warning(log.JOB_UNSEEN, job=job.id, name=job.name, reason=f"{path}: {error}")


def fixity_of(report: Report) -> Fixity:
    """Return what a report comes to: what differs counts before what could not be looked at."""
    if report.problems:
        return Fixity.WRONG
    return Fixity.UNKNOWN if report.unchecked else Fixity.GOOD


def words(report: Report) -> str:
    """Return in words what a report found that is not good; "" when all is."""
    found = report.problems or report.unchecked
    if not found:
        return ""
    named = "; ".join(f"{visible(where)} {visible(what)}" for where, what in found[:3])
    more = f"; and {len(found) - 3:,} more" if len(found) > 3 else ""
    return named + more
