"""Dispatch within this process: a bounded set of tasks, chosen fairly between owners."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, replace

from dittohead import log
from dittohead.claims import Claimer
from dittohead.engine import Engine
from dittohead.errors import StoreError
from dittohead.held import Held
from dittohead.model import Arrival, Job, display
from dittohead.pipeline import run_job
from dittohead.store import jobs as job_store

#: After a fault of the store or of the receipts' disk a job is left alone for this long.
_BACK_OFF_S = 10.0


@dataclass(frozen=True)
class _Waiting:
    arrival: Arrival
    timer: asyncio.TimerHandle | None  #: None: somebody tells when it is over

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()


class LocalDispatch:
    """Runs jobs as tasks of this process's loop. The inbox itself is the backlog."""

    def __init__(self, engine: Engine, claimer: Claimer, limit: int) -> None:
        self.engine, self.claimer, self.limit = engine, claimer, limit
        self.held: dict[bytes, Held] = {}  #: arrivals that cannot be taken yet, and why
        self._waiting: dict[bytes, _Waiting] = {}  # those that are not to be tried before something is over
        self.draining = False
        self.idle = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._owners: dict[str, int] = {}
        self._served: dict[int, int] = {}
        self._turn = 0
        self._wake = asyncio.Event()
        self._arrivals: dict[int, deque[Arrival]] = {}
        self._ready: dict[int, deque[Job]] = {}
        self._look = True  # rows may have become ready since they were last read
        self._next_wake: float | None = None
        self._left_alone: dict[str, float] = {}
        self.on_trouble: Callable[[], None] = lambda: None  #: store and stations may differ
        engine.targets.on_resume = self.wake
        claimer.room.on_looked = self._try_again

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

    def sooner(self, seconds: float) -> None:
        """Let what was left alone be looked at so much earlier: the clock was set back."""
        self._left_alone = {job: until - seconds for job, until in self._left_alone.items()}
        self.wake()

    @contextlib.asynccontextmanager
    async def halted(self, job_id: str) -> AsyncIterator[None]:
        """End a job's run if there is one, and start none while inside."""
        self._left_alone[job_id] = math.inf
        try:
            task = self._tasks.get(job_id)
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            yield
        finally:
            self._left_alone.pop(job_id, None)
            self.wake()

    async def run(self) -> None:
        """Start jobs until cancelled; on cancellation every run has ended."""
        try:
            while True:
                self._wake.clear()
                try:
                    await self._fill()
                except (StoreError, OSError) as error:
                    # The store, or the disk under the stations; a claim may have been left half done.
                    log.get().error(log.CLAIM_FAILED, error=str(error))
                    self._look = True
                    self._next_wake = time.time() + _BACK_OFF_S
                    self.on_trouble()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._patience()):
                        await self._wake.wait()
        finally:
            for task in list(self._tasks.values()):
                task.cancel()
            if self._tasks:
                await asyncio.wait(list(self._tasks.values()))

    def _patience(self) -> float | None:
        """Return seconds until something is due by the clock; None when nothing is."""
        now = time.time()
        if self._next_wake is not None and self._next_wake <= now:
            self._look = True
        times = [
            moment
            for moment in (
                self._next_wake,
                self.engine.targets.next_probe(),
                *self._left_alone.values(),
            )
            if moment is not None and moment < math.inf
        ]
        if not times:
            return None
        return max(min(times) - now, 0.05)

    async def _fill(self) -> None:
        if self.draining:
            return
        await self._read_ready()
        while len(self._tasks) < self.limit and not self.draining:
            owner = self._fairest()
            if owner is None:
                return
            if self._ready.get(owner):
                job = self._ready[owner].popleft()
                if job.id in self._left_alone:
                    self.engine.targets.probe_over(job.id)  # another may be the probe
                elif job.id not in self._tasks:
                    self._start(job, fresh=False)
            elif not await self._claim(self._arrivals[owner].popleft()):
                return

    async def _read_ready(self) -> None:
        now = time.time()
        due = self._next_wake is not None and self._next_wake <= now
        self._left_alone = {job: until for job, until in self._left_alone.items() if until > now}
        for job_id in await self.engine.targets.probes():
            job = await self.engine.store.read(job_store.get, job_id)
            self._ready.setdefault(job.uid, deque()).append(job)
        if not self._look and not due and any(self._ready.values()):
            return
        if self._look or due:
            self._look = False
            room = max(self.limit - len(self._tasks), 0) + self.limit
            found = await self.engine.store.read(
                job_store.ready, now, room, [*self._tasks, *self._left_alone]
            )
            known = {job.id for queue in self._ready.values() for job in queue}
            for job in found:
                if job.id not in known:
                    self._ready.setdefault(job.uid, deque()).append(job)
            # There may be more than were asked for; and what was told meanwhile is not forgotten.
            self._look = self._look or len(found) >= room
            self._next_wake = await self.engine.store.read(job_store.next_wake, now)

    def _fairest(self) -> int | None:
        """Return the owner with something to do who has the fewest jobs running, longest unserved."""
        owners = {uid for uid, queue in (*self._ready.items(), *self._arrivals.items()) if queue}
        held = Counter(self._owners.values())
        return min(owners, key=lambda uid: (held[uid], self._served.get(uid, 0)), default=None)

    def _wait_on(self, arrivals: Collection[Arrival]) -> None:
        """Let those wait on that are still there, and the others be forgotten."""
        self.claimer.room.forget_all_but({arrival.folder for arrival in arrivals})
        if not self._waiting:
            return
        known = {arrival.folder: arrival.ino for arrival in arrivals}
        for folder, waiting in list(self._waiting.items()):
            if known.get(folder) != waiting.arrival.ino:
                self._waiting.pop(folder).cancel()

    def _wait(self, arrival: Arrival, held: Held) -> None:
        """Try an arrival no more until its time has come, or the look at it is over."""
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
        elif isinstance(result, Held):
            if result.quiet:
                self.held.pop(arrival.folder, None)
            else:
                self._hold(arrival.folder, replace(result, arrival=arrival))
            if result.looking or result.again_s is not None:
                self._wait(arrival, result)
            # A large folder that waits for room is not overtaken for ever by small ones.
            return not result.for_space
        else:
            self.held.pop(arrival.folder, None)
        return True

    def _start(self, job: Job, *, fresh: bool) -> None:
        self._turn += 1
        self._served[job.uid] = self._turn
        self._owners[job.id] = job.uid
        self.idle.clear()
        self._tasks[job.id] = asyncio.create_task(self._run(job, fresh=fresh), name=f"job:{job.id}")

    async def _run(self, job: Job, *, fresh: bool) -> None:
        over = False
        try:
            over = await run_job(self.engine, job, fresh=fresh)
        except Exception as error:  # noqa: BLE001  # around one job
            log.get().exception(log.JOB_CRASHED, job=job.id, name=job.name, error=str(error))
            self._left_alone[job.id] = time.time() + _BACK_OFF_S
        finally:
            del self._tasks[job.id], self._owners[job.id]
            self.claimer.released(job.id)
            if not self._tasks:
                self.idle.set()
            # A job that is over makes no row ready; only its slot is free.
            self._look = self._look or not over
            self._wake.set()
