"""Outside places: whether a step may start now, when one is paused, resumed, full or nearly so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from dittohead.store import Connection, Store
from dittohead.store import outbox as outbox_store
from dittohead.store import targets as target_store
from dittohead.store.outbox import NewNotice, instead
from dittohead.store.targets import TargetRow
from dittohead.system import log
from dittohead.toolkit.backoff import wait_s

#: First wait before one job may try a paused target again; doubled up to the last.
PROBE_FIRST_S = 15.0
PROBE_MOST_S = 600.0

#: A due probe whose job may not run now is looked at again after this long.
_PROBE_LATER_S = 5.0

#: A target reported as nearly full is reported again only after it had this much (percent) more room.
_HYSTERESIS = 5.0

#: Makes the notices of an event: (event, facts) -> rows for the outbox.
Compose = Callable[..., list[NewNotice]]


@dataclass(frozen=True, kw_only=True)
class _Change:
    """What happens to a target."""

    row: TargetRow
    notices: list[NewNotice] = field(default_factory=list)
    wake: bool = False  #: its jobs may run again


#: Works a change out from what is known of the target; None: there is nothing to change.
_Decision = Callable[[TargetRow | None], _Change | None]


class Targets:
    """The paused targets, in memory and in the store.

    The store's rows lead: jobs are laid aside and woken by them. What is in memory follows once it is
    durable, so that a store that is away for a while leaves no job waiting for a target that nobody
    knows to be paused, and no notice untold.
    """

    def __init__(self, store: Store, compose: Compose, nearly_full: float) -> None:
        self._store = store
        self._compose = compose
        self._nearly_full = nearly_full
        self._rows: dict[str, TargetRow] = {}
        self._probing: dict[str, str] = {}  #: target -> the job that is to try it
        self._probed: dict[str, set[str]] = {}  #: target -> jobs that have tried it in vain since its pause
        self._turn = asyncio.Lock()  #: one change at a time
        self.on_resume: Callable[[], None] = lambda: None  #: its jobs may run again

    async def wake_forgotten(self) -> list[str]:
        """Let jobs go on that wait for a target that is not paused; return them: there are to be none."""
        found = await self._store.read(target_store.forgotten)
        if found:
            await self._store.write(target_store.wake_forgotten)
        return found

    async def load(self) -> None:
        """Read what the store remembers; a probe is due at once after a start."""
        await self._store.write(target_store.wake_forgotten)
        for row in await self._store.read(target_store.load):
            self._rows[row.name] = replace(row, probe_at=0.0) if row.paused else row

    def rows(self) -> list[TargetRow]:
        """Return every target known."""
        return sorted(self._rows.values(), key=lambda row: row.name)

    def paused(self, name: str) -> str | None:
        """Return why a target is paused, None when it is not."""
        row = self._rows.get(name)
        return row.reason if row is not None and row.paused else None

    def may_try(self, name: str, job: str) -> bool:
        """Tell whether a job may use the target now: it is not paused, or the job is its probe."""
        row = self._rows.get(name)
        if row is None or not row.paused:
            return True
        return self._probing.get(name) == job

    def next_probe(self) -> float | None:
        """Return when the next paused target is to be tried, seconds since the epoch."""
        times = [
            row.probe_at
            for row in self._rows.values()
            if row.paused and row.probe_at is not None and row.name not in self._probing
        ]
        return min(times, default=None)

    def probed_only_by(self, jobs: Collection[str]) -> None:
        """Forget the probes of other jobs than those that run or are about to: another is to try then."""
        self._probing = {name: probe for name, probe in self._probing.items() if probe in jobs}

    async def probes(self, not_now: Collection[str] = ()) -> list[str]:
        """Return jobs that may try a paused target now, one each.

        Whether a target that nobody waits for is well is not known: the next job finds out.

        Args:
            not_now: jobs that cannot be started at present.
        """
        chosen = []
        for row in list(self._rows.values()):
            due = row.paused and row.probe_at is not None and row.probe_at <= time.time()
            if not due or row.name in self._probing:
                continue
            job = await self._next_probe(row.name, not_now)
            if job is not None:
                self._probing[row.name] = job
                chosen.append(job)
            elif (await self._store.read(target_store.first_waiting, row.name)) is not None:
                self._rows[row.name] = replace(row, probe_at=time.time() + _PROBE_LATER_S)
            else:
                await self.lift(row.name)
        return chosen

    async def _next_probe(self, name: str, not_now: Collection[str]) -> str | None:
        """Return the job that tries a target next: each in its turn, as what one needs another may not."""
        tried = self._probed.setdefault(name, set())
        job = await self._store.read(target_store.first_waiting, name, {*not_now, *tried})
        if job is None and tried:
            tried.clear()
            job = await self._store.read(target_store.first_waiting, name, not_now)
        if job is not None:
            tried.add(job)
        return job

    async def lift(self, name: str) -> None:
        """Let any job use a paused target that is not known to be well again; nobody is told that it is."""

        def decide(row: TargetRow | None) -> _Change | None:
            if row is None or not row.paused:
                return None
            return _Change(row=replace(row, paused=False, probe_at=None), wake=True)

        if await self._change(name, decide):
            self._probing.pop(name, None)
            log.get().info(log.TARGET_TRIED, target=name)

    async def worked(self, name: str, job: str) -> None:
        """Let a file system under the root be used again, where the job that has used it was its probe.

        Any other may have needed little of it: that it succeeded says nothing to those that wait.
        """
        row = self._rows.get(name)
        if row is not None and (not row.paused or self._probing.get(name) == job):
            await self.resume(name, is_own=True)

    def try_now(self, name: str) -> bool:
        """Have a paused target tried by one of its jobs now; return False when it is not paused."""
        row = self._rows.get(name)
        if row is None or not row.paused:
            return False
        self._rows[name] = replace(row, probe_at=0.0)
        return True

    async def pause(self, name: str, reason: str, *, full: bool = False, is_own: bool = False) -> None:
        """Pause a target, or put off its next probe; people are told once, until it was used again.

        Args:
            full: it has no room; told besides, or instead where somebody asks for both.
            is_own: it is a file system under the root.
        """
        again = False

        def decide(known: TargetRow | None) -> _Change:
            nonlocal again
            again = known is not None and known.paused
            row = _paused(known or _blank(name), reason, full=full)
            notices = []
            if row.filled and not (known is not None and known.filled):
                notices = self._compose("full", target=name, reason=reason, is_root=is_own)
                log.get().error(log.TARGET_FULL, target=name, reason=reason)
            if not (known is not None and known.told):
                notices = instead(notices, self._compose("paused", target=name, reason=reason))
            return _Change(row=row, notices=notices)

        await self._change(name, decide)
        self._probing.pop(name, None)
        if not again:
            log.get().error(log.TARGET_PAUSED, target=name, reason=reason)

    async def resume(self, name: str, *, is_own: bool = False) -> None:
        """Let the target's jobs go on: a step that used it succeeded, or a look at it did."""
        self._probing.pop(name, None)
        self._probed.pop(name, None)
        known = self._rows.get(name)
        if known is None or not (known.paused or known.told):  # nearly always
            return

        def decide(row: TargetRow | None) -> _Change | None:
            if row is None or not (row.paused or row.told):
                return None
            # A file system of ours has space again when its floor is free: see `has_room`. Until then what
            # fits is small, and the next wait goes on from this one.
            filled = row.filled and is_own
            again = replace(
                _blank(name),
                nearly_full=row.nearly_full,
                filled=filled,
                failures=row.failures if filled else 0,
            )
            return _Change(row=again, notices=self._compose("resumed", target=name), wake=True)

        if await self._change(name, decide):
            log.get().info(log.TARGET_RESUMED, target=name)

    def sooner(self, seconds: float) -> None:
        """Let probes be due so much earlier: the clock was set back."""
        for row in self.rows():
            if row.probe_at is not None:
                self._rows[row.name] = replace(row, probe_at=row.probe_at - seconds)

    def probe_over(self, job: str) -> None:
        """Forget the probes of a job that came to no result (it was frozen, cancelled or failed)."""
        self._probing = {name: probe for name, probe in self._probing.items() if probe != job}

    async def fullness(self, name: str, used: float, capacity: int) -> None:
        """Tell people, once, when a target's disk is nearly full.

        Args:
            used: the part in use, 0 to 1.
            capacity: bytes of the whole.
        """
        percent = used * 100

        def decide(known: TargetRow | None) -> _Change | None:
            row = known or _blank(name)
            if row.nearly_full and percent < self._nearly_full - _HYSTERESIS:
                return _Change(row=replace(row, nearly_full=False))
            if row.nearly_full or percent < self._nearly_full:
                return None
            free = int(capacity * (1 - used))
            notices = self._compose("nearly_full", target=name, percent=percent, free=free)
            log.get().warning(log.TARGET_NEARLY_FULL, target=name, percent=round(percent, 1))
            return _Change(row=replace(row, nearly_full=True), notices=notices)

        await self._change(name, decide)

    async def filled(self, name: str, reason: str, *, is_own: bool) -> None:
        """Tell people that a place is full: once, until it has room again.

        Args:
            name: the target.
            reason: how full it is, in words.
            is_own: it is a file system under the root, and not a target of steps.

        Raises: StoreError.
        """

        def decide(known: TargetRow | None) -> _Change | None:
            row = known or _blank(name)
            if row.filled:
                return None
            log.get().error(log.TARGET_FULL, target=name, reason=reason)
            notices = self._compose("full", target=name, reason=reason, is_root=is_own)
            return _Change(row=replace(row, filled=True), notices=notices)

        await self._change(name, decide)

    async def has_space(self, name: str) -> None:
        """Forget that a place was full."""

        def decide(known: TargetRow | None) -> _Change | None:
            if known is None or not known.filled or known.paused:
                return None
            return _Change(row=replace(known, filled=False, failures=0))

        await self._change(name, decide)

    async def _change(self, name: str, decide: _Decision) -> bool:
        """Change a target, to the end also when the caller is cancelled; tell whether it was changed.

        Raises: StoreError: nothing was changed, neither there nor in memory.
        """
        return await asyncio.shield(asyncio.ensure_future(self._changed(name, decide)))

    async def _changed(self, name: str, decide: _Decision) -> bool:
        # 1 commit  2 memory  3 its jobs are searched for
        async with self._turn:
            change = decide(self._rows.get(name))
            if change is None:
                return False

            def work(connection: Connection) -> None:
                target_store.put(connection, change.row)
                outbox_store.add(connection, change.notices)
                if change.wake:
                    target_store.wake(connection, name)

            await self._store.write(work)
            self._rows[name] = change.row
        if change.wake:
            self.on_resume()
        return True


def _paused(known: TargetRow, reason: str, *, full: bool) -> TargetRow:
    """Return a target's row when a job has found it down, again or for the first time."""
    failures = known.failures + 1 if known.paused or known.filled else 1
    wait = wait_s(failures, first_s=PROBE_FIRST_S, most_s=PROBE_MOST_S)
    return replace(
        known,
        paused=True,
        reason=reason,
        since=known.since if known.paused else time.time(),
        probe_at=time.time() + wait,
        failures=failures,
        told=True,
        filled=full or known.filled,
    )


def _blank(name: str) -> TargetRow:
    return TargetRow(
        name=name, paused=False, reason="", since=None, probe_at=None, failures=0, nearly_full=False
    )
