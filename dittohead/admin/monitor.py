"""Look for what people want to know and no single job reports: jobs that are stuck, a full root."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from dittohead.config.settings import Settings
from dittohead.engine.disks import Disks
from dittohead.engine.engine import Engine
from dittohead.engine.supervisor import alone
from dittohead.model import units
from dittohead.store import history
from dittohead.store import outbox as outbox_store

#: Between two rounds; the first comes soon after the start.
_ROUND_S, _FIRST_S = 60.0, 2.0

#: A root that was full is so no more when this part more than its floor is free.
_HYSTERESIS = 0.05

#: Somebody has made space when so many bytes more are free than a round ago.
_MADE = 16 << 20


class Monitor:
    """Makes rounds."""

    def __init__(self, engine: Engine, settings: Callable[[], Settings]) -> None:
        self._engine, self._settings = engine, settings
        self._disks = Disks(engine.stations, lambda: settings().space.floor)
        self._free: dict[str, int] = {}  #: bytes that were free at the last round, by file system

    async def run(self) -> None:
        """Make rounds until cancelled."""
        wait = _FIRST_S
        while True:
            await asyncio.sleep(wait)
            wait = _ROUND_S
            for task in (self.root_round, self.stuck_round):
                await alone("lookout", task)

    async def root_round(self) -> None:
        """Tell, once until there is space again, that a file system under the root takes no more folders.

        One that is paused is tried at once by one job where somebody has made space.
        """
        targets = self._engine.targets
        for disk in await asyncio.to_thread(self._disks.all):
            free, before = disk.free, self._free.get(disk.name)
            self._free[disk.name] = free
            if disk.lacking(0) > 0:
                reason = (
                    f"{units.size(free)} are free, and {units.size(disk.floor)} must stay free (space: floor)"
                )
                await targets.filled(disk.name, reason, is_own=True)
                self._engine.wake_notifier()
            elif disk.lacking(0, 1 + _HYSTERESIS) <= 0:
                await targets.has_space(disk.name)
                if before is not None and free >= before + _MADE and targets.try_now(disk.name):
                    targets.on_resume()

    async def stuck_round(self) -> None:
        """Tell, once a day, of the jobs that are not over after too long."""
        after = self._settings().stuck_after
        if not self._engine.wants("stuck", None):
            return
        jobs = await self._engine.store.read(history.under_way_since, time.time() - after)
        if not jobs:
            return
        notices = await asyncio.to_thread(self._engine.compose, "stuck", jobs=jobs, hours=after / 3600)
        if notices:
            await self._engine.store.write(outbox_store.add, notices)
            self._engine.wake_notifier()
