"""Dispatch within this process: a bounded set of tasks, chosen fairly between owners.

Rows are read again when they may have changed, when a moment has come that was known at the last look (a
job's `wake_at`, the end of a back-off), and each minute whatever is known. All of it is worked out afresh
before each sleep, from what is left to be done: there is no wake-up that could be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

from dittohead.engine.claim import Claimer
from dittohead.engine.dispatch.deadlines import Deadlines
from dittohead.engine.engine import Engine
from dittohead.engine.job_run import run_job
from dittohead.model.errors import StoreError
from dittohead.model.held import Held
from dittohead.model.records import Arrival, Batch, Job
from dittohead.model.text import display
from dittohead.store import jobs as job_store
from dittohead.store import suspects as suspect_store
from dittohead.system import log
from dittohead.system.waiting import event_or_time

#: After a fault of the store or of the receipts' disk a job is left alone for this long.
_BACK_OFF_S = 10.0

#: Where more jobs may run than are asked for, some of each owner and batch are asked for this often.
_FAIR_S = 1.0

#: Rows are read this often when nothing says that they have changed: no job is ever overlooked for longer,
#: also when the clock was set forward, or the machine has slept.
_ROUTINE_S = 60.0

#: The shortest sleep between two looks. Seconds.
_LEAST_S = 0.05


@dataclass(frozen=True)
class _Waiting:
    arrival: Arrival
    timer: asyncio.TimerHandle | None  #: None: somebody tells when it has ended

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class LocalDispatch:
    """Runs jobs as tasks of this process's loop. The inbox itself is the backlog."""

    def __init__(self, engine: Engine, claimer: Claimer, limit: int) -> None:
        self.engine, self.claimer, self.limit = engine, claimer, limit
        self.held: dict[bytes, Held] = {}  #: arrivals that cannot be taken yet, and why
        self._waiting: dict[bytes, _Waiting] = {}  # those that are not to be tried before something has ended
        self.draining = False
        self.idle = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[bool]] = {}
        self._owners: dict[str, int] = {}
        self._served: dict[int, int] = {}
        self._turn = 0
        self._was_batch = False  # the job that was started last
        self._wake = asyncio.Event()
        self._arrivals: dict[int, deque[Arrival]] = {}
        self._ready: dict[int, deque[Job]] = {}
        self._look = True  # rows may have become ready since they were last read
        self._read_at = 0.0  # when that was, by the clock that only goes on
        self._next_wake: float | None = None  # of the rows, as last read, by the system's clock
        self._fair_at = 0.0  # when the rows of each owner and batch are read next, by the same clock
        self._left_alone: Deadlines[str] = Deadlines()  # jobs; read again when due, see `_rows_due`
        self._halted: Counter[str] = Counter()  # jobs; who halts one says when it may run again
        self._taken_over = False
        self.on_trouble: Callable[[], None] = lambda: None  #: store and stations may differ
        engine.targets.on_resume = self.wake
        engine.suspects.on_free = self.wake
        claimer.waiting_room.on_looked = self._try_again
        claimer.on_split = self.wake

    @property
    def running(self) -> Collection[str]:
        """The jobs that run now."""
        return self._tasks.keys()

    @property
    def backlog(self) -> int:
        """Arrivals seen in the inbox and not yet claimed."""
        return sum(len(queue) for queue in self._arrivals.values()) + len(
            self.held.keys() | self._waiting.keys()
        )

    @property
    def oldest(self) -> float | None:
        """When the arrival was first seen that waits longest, seconds since the epoch."""
        first = [queue[0] for queue in self._arrivals.values() if queue]
        first += [waiting.arrival for waiting in self._waiting.values()]
        return min((arrival.seen_at for arrival in first), default=None)

    def offer(self, arrivals: Collection[Arrival], held: Mapping[bytes, Held] | None = None) -> None:
        """Replace what is known of the inbox; those held before are tried again, when it is time.

        Args:
            held: what else lies there, and why it cannot be taken.
        """
        held = held or {}
        self._wait_on(arrivals)
        fresh: dict[int, list[Arrival]] = {}
        for arrival in arrivals:
            if arrival.folder not in self._waiting:
                fresh.setdefault(arrival.uid, []).append(arrival)
        self._arrivals = {
            uid: deque(sorted(found, key=lambda a: (a.seen_at, a.folder))) for uid, found in fresh.items()
        }
        if self.held:
            present = {arrival.folder for arrival in arrivals} | held.keys()
            self.held = {folder: why for folder, why in self.held.items() if folder in present}
        for folder, why in held.items():
            self._hold(folder, why)
        if fresh:
            self._wake.set()

    def wake(self) -> None:
        """Look for jobs that may run: rows have changed."""
        self._look = True
        self._wake.set()

    @contextlib.asynccontextmanager
    async def halted(self, job_id: str) -> AsyncIterator[None]:
        """End a job's run if there is one, and start none while inside."""
        self._halted[job_id] += 1
        try:
            task = self._tasks.get(job_id)
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            yield
        finally:
            self._halted[job_id] -= 1
            self._halted += Counter()  # without those that are at nought
            self.wake()

    async def take_over(self) -> None:
        """Charge the death of an earlier daemon to the steps it was in; to be called before all else.

        Raises: StoreError: it is to be called again.
        """
        if self._taken_over:
            return
        charged = await self.engine.store.write(suspect_store.take_over)
        for job, seconds in self.engine.suspects.learn(charged).items():
            self._left_alone.put(job, seconds)
            log.get().warning(
                log.JOB_SUSPECTED, job=job, deaths=max(charged[job].values()), wait_seconds=seconds
            )
        self._taken_over = True

    async def run(self) -> None:
        """Start jobs until cancelled; on cancellation every run has ended."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self.take_over()
                    await self._fill()
                    patience = self._patience()
                except Exception as error:  # noqa: BLE001  # whatever it is, the other jobs go on
                    patience = self._stumbled(error)
                await event_or_time(self._wake, patience)
        finally:
            for task in list(self._tasks.values()):
                task.cancel()
            if self._tasks:
                await asyncio.wait(list(self._tasks.values()))
            await self.claimer.close()

    def _stumbled(self, error: Exception) -> float:
        """Say what kept jobs from being started, and return for how long to wait then.

        The store, or the disk under the stations, most likely; a claim may have been left half done.
        """
        foreseen = isinstance(error, (StoreError, OSError))
        log.get().error(log.CLAIM_FAILED, error=str(error), exc_info=None if foreseen else error)
        self._look = True
        self.on_trouble()
        return _BACK_OFF_S

    def _patience(self) -> float:
        """Return the seconds until something is due by the clock."""
        if self.draining:  # nothing is begun any more
            return _ROUTINE_S
        now = time.time()
        moments = (self._next_wake, self.engine.targets.next_probe())
        waits = [moment - now for moment in moments if moment is not None]
        waits += [self._read_at + _ROUTINE_S - time.monotonic()]
        if (left_alone := self._left_alone.next_in()) is not None:
            waits.append(left_alone)
        return max(min(waits), _LEAST_S)

    async def _fill(self) -> None:
        if self.draining:
            return
        await self._read_ready()
        while len(self._tasks) < self.limit and not self.draining:
            owner = self._fairest()
            if owner is None and self._look:  # more than were asked for, or changed meanwhile
                await self._read_ready()
                owner = self._fairest()
            if owner is None:
                return
            if self._ready.get(owner) and not self._turn_of_arrivals(owner):
                job = self._ready[owner].popleft()
                if job.id not in self._tasks and job.id not in self._not_now():
                    self._start(job, fresh=False)
            elif not await self._claim(self._arrivals[owner].popleft()):
                return

    def _turn_of_arrivals(self, owner: int) -> bool:
        """Tell whether a folder in the inbox goes before a job of a batch, which may have thousands."""
        return bool(self._arrivals.get(owner)) and bool(self._ready[owner][0].batch) and self._was_batch

    def _not_now(self) -> set[str]:
        """Return the jobs that are not to be started now; what ends that makes rows be read again."""
        return self._left_alone.held() | self._halted.keys() | self.engine.suspects.waiting()

    def _rows_due(self) -> bool:
        """Tell whether rows may have become ready since they were last read."""
        woken = self._next_wake is not None and self._next_wake <= time.time()
        return self._look or woken or bool(self._left_alone.due())

    async def _read_ready(self) -> None:
        targets = self.engine.targets
        queued = {job.id for queue in self._ready.values() for job in queue}
        targets.probed_only_by({*self._tasks, *queued})
        for job_id in await targets.probes(self._not_now()):
            self._await_turn(await self.engine.store.read(job_store.get, job_id))
        if self._rows_due():
            await self._read_rows()
        elif time.monotonic() >= self._read_at + _ROUTINE_S:
            # Nothing says that there is anything. What is found all the same was lost, by a defect of ours.
            lost = set(await targets.wake_forgotten()) | await self._read_rows()
            if lost:
                log.get().warning(log.JOB_OVERLOOKED, jobs=sorted(lost))

    async def _read_rows(self) -> set[str]:
        """Let jobs that may run now await their turn; return those that did not yet."""
        store, now = self.engine.store, time.time()
        due, self._look = self._left_alone.due(), False
        room = max(self.limit - len(self._tasks), 0) + self.limit
        try:
            leaving_out = [*self._tasks, *self._not_now()]
            found = await store.read(job_store.ready, now, room, leaving_out)
            if len(found) >= room and time.monotonic() >= self._fair_at:
                # Of a batch there may be thousands: others' jobs are not to wait behind all of them.
                found = await store.read(job_store.ready_of_each, now, room, leaving_out)
                self._fair_at = time.monotonic() + _FAIR_S
            self._next_wake = await store.read(job_store.next_wake, now)
        except BaseException:
            self._look = True
            raise
        self._read_at = time.monotonic()
        self._left_alone.drop(due)
        # There may be more than were asked for; and what was told meanwhile is not forgotten.
        self._look = self._look or len(found) >= room
        return {job.id for job in found if self._await_turn(job)}

    def _await_turn(self, job: Job) -> bool:
        queue = self._ready.setdefault(job.uid, deque())
        is_new = job.id not in {known.id for known in queue}
        if is_new:
            queue.append(job)
        return is_new

    def _fairest(self) -> int | None:
        """Return the owner with something to do who has the fewest jobs running, longest unserved."""
        owners = {uid for uid, queue in (*self._ready.items(), *self._arrivals.items()) if queue}
        held = Counter(self._owners.values())
        return min(owners, key=lambda uid: (held[uid], self._served.get(uid, 0)), default=None)

    def _wait_on(self, arrivals: Collection[Arrival]) -> None:
        """Let those wait on that are still there, and the others be forgotten."""
        self.claimer.waiting_room.forget_all_but({arrival.folder for arrival in arrivals})
        if not self._waiting:
            return
        # What is known of it by now may end its wait: another folder of the name, or one seen to be renamed.
        known = {arrival.folder: (arrival.ino, arrival.renamed) for arrival in arrivals}
        for folder, waiting in list(self._waiting.items()):
            if known.get(folder) != (waiting.arrival.ino, waiting.arrival.renamed):
                self._waiting.pop(folder).cancel()

    def _wait(self, arrival: Arrival, held: Held) -> None:
        """Try an arrival no more until its time has come, or the look at it has ended."""
        timer = None
        if held.again_s is not None:
            timer = asyncio.get_running_loop().call_later(held.again_s, self._try_again, arrival)
        self._waiting[arrival.folder] = _Waiting(arrival=arrival, timer=timer)

    def _try_again(self, arrival: Arrival) -> None:
        waiting = self._waiting.get(arrival.folder)
        if waiting is None or waiting.arrival.ino != arrival.ino:
            return
        self._waiting.pop(arrival.folder).cancel()
        self._arrivals.setdefault(arrival.uid, deque()).appendleft(arrival)
        self._wake.set()

    def _hold(self, folder: bytes, held: Held) -> None:
        known = self.held.get(folder)
        if known is None or known.reason != held.reason:
            log.get().warning(log.CLAIM_HELD, name=display(folder), reason=held.text)
        self.held[folder] = held

    async def _claim(self, arrival: Arrival) -> bool:
        """Try to claim; return False when nothing more is to be tried for now."""
        result = await self.claimer.claim(arrival)
        if isinstance(result, Job):
            self.held.pop(arrival.folder, None)
            self._start(result, fresh=True)
        elif isinstance(result, Batch):
            self.held.pop(arrival.folder, None)
            self.wake()  # its jobs wait for their turn
        elif isinstance(result, Held):
            if result.looking:
                pass  # what is known of it stays until the look has ended
            elif result.quiet:
                self.held.pop(arrival.folder, None)
            else:
                self._hold(arrival.folder, replace(result, arrival=arrival))
            if result.looking or result.again_s is not None:
                self._wait(arrival, result)
            # A large folder that waits for room is not overtaken forever by small ones.
            return not result.for_space
        else:
            self.held.pop(arrival.folder, None)
        return True

    def _start(self, job: Job, *, fresh: bool) -> None:
        self._turn += 1
        self._served[job.uid] = self._turn
        self._was_batch = bool(job.batch)
        self._owners[job.id] = job.uid
        self.idle.clear()
        self.engine.suspects.begins(job.id)
        task = asyncio.create_task(self._run(job, fresh=fresh), name=f"job:{job.id}")
        self._tasks[job.id] = task
        # Not at the end of `_run`: a task that is cancelled before it has begun never comes there.
        task.add_done_callback(partial(self._ended, job.id))

    async def _run(self, job: Job, *, fresh: bool) -> bool:
        """Return whether the job has ended."""
        try:
            return await run_job(self.engine, job, fresh=fresh)
        except StoreError as error:
            log.get().error(log.JOB_CRASHED, job=job.id, name=job.name, error=str(error))
        except Exception as error:  # noqa: BLE001  # around one job
            log.get().exception(log.JOB_CRASHED, job=job.id, name=job.name, error=str(error))
        self._left_alone.put(job.id, _BACK_OFF_S)
        self.on_trouble()
        return False

    def _ended(self, job_id: str, task: asyncio.Task[bool]) -> None:
        over = not task.cancelled() and task.exception() is None and task.result()
        del self._tasks[job_id], self._owners[job_id]
        self.claimer.budget.release(job_id)
        self.engine.suspects.ended(job_id, over=over)
        if not self._tasks:
            self.idle.set()
        # An ended job makes no row ready; only its slot is free.
        self._look = self._look or not over
        self._wake.set()
