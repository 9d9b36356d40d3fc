"""Look for what people want to know and no single job reports: jobs that are stuck, a full root."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from dittohead.config.settings import Settings
from dittohead.engine.engine import Engine
from dittohead.engine.supervisor import alone
from dittohead.engine.targets import disk_of
from dittohead.model import units
from dittohead.store import history
from dittohead.store import outbox as outbox_store
from dittohead.system import disk_space

#: Between two rounds; the first comes soon after the start.
_ROUND_S, _FIRST_S = 60.0, 2.0

#: A root that was full is so no more when this part more than its floor is free.
_HYSTERESIS = 0.05


class Monitor:
    """Makes rounds."""

    def __init__(self, engine: Engine, settings: Callable[[], Settings]) -> None:
        self._engine, self._settings = engine, settings

    async def run(self) -> None:
        """Make rounds until cancelled."""
        wait = _FIRST_S
        while True:
            await asyncio.sleep(wait)
            wait = _ROUND_S
            for task in (self.root_round, self.stuck_round):
                await alone("lookout", task)

    async def root_round(self) -> None:
        """Tell, once until there is room again, that the root's disk takes no more folders."""
        root, floor = self._engine.stations.root, self._settings().space.floor
        if disk_space.lacking(root, 0, floor) > 0:
            free = units.size(disk_space.free(root))
            reason = f"{free} are free, and {units.size(floor)} must stay free (space: floor)"
            await self._engine.targets.filled(disk_of(root), reason, is_root=True)
            self._engine.wake_notifier()
        elif disk_space.lacking(root, 0, floor * (1 + _HYSTERESIS)) <= 0:
            await self._engine.targets.has_room(disk_of(root))

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
