"""Outside places: whether a step may start now, when one is paused, resumed, full or nearly so."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sqlalchemy.engine import Connection

from dittohead import log
from dittohead.store import Store
from dittohead.store import outbox as outbox_store
from dittohead.store import targets as target_store
from dittohead.store.outbox import NewNotice, instead
from dittohead.store.targets import TargetRow

#: First wait before one job may try a paused target again; doubled up to the last.
PROBE_FIRST_S = 15.0
PROBE_MOST_S = 600.0

#: A target reported as nearly full is reported again only after it had this much (percent) more room.
_HYSTERESIS = 5.0

#: Makes the notices of an event: (event, facts) -> rows for the outbox.
Composer = Callable[..., list[NewNotice]]


def disk_of(root: Path) -> str:
    """Return the name by which the root's own disk is paused, and told to be full."""
    return f"disk of {root}"


class Targets:
    """The paused targets, in memory and in the store."""

    def __init__(self, store: Store, compose: Composer, nearly_full: float) -> None:
        self._store = store
        self._compose = compose
        self._nearly_full = nearly_full
        self._rows: dict[str, TargetRow] = {}
        self._probing: dict[str, str] = {}  #: target -> the job that is to try it
        self.on_resume: Callable[[], None] = lambda: None  #: its jobs may run again

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

    async def probes(self) -> list[str]:
        """Return jobs that may try a paused target now, one each.

        Whether a target that nobody waits for is well is not known: the next job finds out.
        """
        chosen = []
        for row in list(self._rows.values()):
            due = row.paused and row.probe_at is not None and row.probe_at <= time.time()
            if not due or row.name in self._probing:
                continue
            job = await self._store.read(target_store.first_waiting, row.name)
            if job is None:
                await self.lift(row.name)
            else:
                self._probing[row.name] = job
                chosen.append(job)
        return chosen

    async def lift(self, name: str) -> None:
        """Let any job use a paused target that is not known to be well again; nobody is told that it is."""
        row = self._rows.get(name)
        if row is None or not row.paused:
            return
        self._rows[name] = replace(row, paused=False, probe_at=None)
        self._probing.pop(name, None)
        await self._put(self._rows[name], [], wake=True)
        log.get().info(log.TARGET_TRIED, target=name)
        self.on_resume()

    def try_now(self, name: str) -> bool:
        """Have a paused target tried by one of its jobs now; return False when it is not paused."""
        row = self._rows.get(name)
        if row is None or not row.paused:
            return False
        self._rows[name] = replace(row, probe_at=0.0)
        return True

    async def pause(self, name: str, reason: str, *, full: bool = False, is_root: bool = False) -> None:
        """Pause a target, or put off its next probe; people are told once, until it was used again.

        Args:
            full: it has no room; told besides, or instead where somebody asks for both.
            is_root: it is the root's own disk.
        """
        known = self._rows.get(name)
        again = known is not None and known.paused
        failures = known.failures + 1 if known is not None and again else 1
        wait = min(PROBE_FIRST_S * 2 ** min(failures - 1, 20), PROBE_MOST_S) * random.uniform(0.8, 1.2)  # noqa: S311
        row = TargetRow(
            name=name,
            paused=True,
            reason=reason,
            since=known.since if known is not None and again else time.time(),
            probe_at=time.time() + wait,
            failures=failures,
            nearly_full=known.nearly_full if known is not None else False,
            told=True,
            filled=full or (known is not None and known.filled),
        )
        self._rows[name] = row
        self._probing.pop(name, None)
        notices = []
        if full and not (known is not None and known.filled):
            notices = self._compose("full", target=name, reason=reason, is_root=is_root)
            log.get().error(log.TARGET_FULL, target=name, reason=reason)
        if not (known is not None and known.told):
            notices = instead(notices, self._compose("paused", target=name, reason=reason))
        await self._put(row, notices)
        if not again:
            log.get().error(log.TARGET_PAUSED, target=name, reason=reason)

    async def resume(self, name: str, *, is_root: bool = False) -> None:
        """Let the target's jobs go on: a step that used it succeeded, or a look at it did."""
        row = self._rows.get(name)
        self._probing.pop(name, None)
        if row is None or not (row.paused or row.told):
            return
        row = replace(
            row,
            paused=False,
            reason="",
            since=None,
            probe_at=None,
            failures=0,
            told=False,
            filled=row.filled and is_root,  # a root has room again when its floor is free: see `has_room`
        )
        self._rows[name] = row
        await self._put(row, self._compose("resumed", target=name), wake=True)
        log.get().info(log.TARGET_RESUMED, target=name)
        self.on_resume()

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
        known = self._rows.get(name)
        was = known is not None and known.nearly_full
        if was and percent < self._nearly_full - _HYSTERESIS:
            await self._set_full(name, full=False, notices=[])
        elif not was and percent >= self._nearly_full:
            free = int(capacity * (1 - used))
            log.get().warning(log.TARGET_NEARLY_FULL, target=name, percent=round(percent, 1))
            await self._set_full(
                name,
                full=True,
                notices=self._compose("nearly_full", target=name, percent=percent, free=free),
            )

    async def filled(self, name: str, reason: str, *, is_root: bool) -> None:
        """Tell people, once until it has room, that a place is full."""
        known = self._rows.get(name) or _blank(name)
        if known.filled:
            return
        log.get().error(log.TARGET_FULL, target=name, reason=reason)
        self._rows[name] = replace(known, filled=True)
        await self._put(self._rows[name], self._compose("full", target=name, reason=reason, is_root=is_root))

    async def has_room(self, name: str) -> None:
        """Forget that a place was full."""
        known = self._rows.get(name)
        if known is not None and known.filled and not known.paused:
            self._rows[name] = replace(known, filled=False)
            await self._put(self._rows[name], [])

    async def _set_full(self, name: str, *, full: bool, notices: list[NewNotice]) -> None:
        known = self._rows.get(name) or _blank(name)
        self._rows[name] = replace(known, nearly_full=full)
        await self._put(self._rows[name], notices)

    async def _put(self, row: TargetRow, notices: list[NewNotice], *, wake: bool = False) -> None:
        def work(connection: Connection) -> None:
            target_store.put(connection, row)
            outbox_store.add(connection, notices)
            if wake:
                target_store.wake(connection, row.name)

        await self._store.write(work)


def _blank(name: str) -> TargetRow:
    return TargetRow(
        name=name, paused=False, reason="", since=None, probe_at=None, failures=0, nearly_full=False
    )
