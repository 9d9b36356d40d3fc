"""Run until nothing is left to do: a scheduled run in place of a service.

It ends at once when inbox, jobs, sources and notices hold nothing more. What only waits (a paused
target, an answer from outside, a folder that cannot be moved) is waited for as long as the patience, counted
from the moment when something was last under way; then it is left for the next run, and said.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from dittohead.engine.dispatch import Dispatch
from dittohead.folders.stations import Scan
from dittohead.intake import Intake
from dittohead.model.errors import StoreError
from dittohead.model.states import ItemState, JobState
from dittohead.store import Connection, Store, history, queries
from dittohead.store import batches as batch_store
from dittohead.store import drops as drop_store
from dittohead.store import items as item_store
from dittohead.system import log

#: Between two looks. Seconds.
_TURN_S = 0.25

#: States of items that a source still has to fetch.
_TO_FETCH = (ItemState.SEEN, ItemState.FETCHING)


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is not over yet, counted."""

    under_way: int = 0  #: jobs that run or may run now, and sources at work
    waiting: int = 0  #: jobs that wait or are paused
    frozen: int = 0  #: jobs that only a person lets go on
    inbox: int = 0  #: folders in the inbox
    items: int = 0  #: upstream, still to be fetched; and sources that have not looked yet
    notices: int = 0  #: that are not sent yet

    @property
    def nothing(self) -> bool:
        """Whether nothing is left that goes on by itself; what is frozen does not."""
        return not any(getattr(self, field.name) for field in fields(self) if field.name != "frozen")


class UntilEmpty:
    """Watches the daemon's work and says when it has ended."""

    def __init__(
        self,
        store: Store,
        dispatch: Dispatch,
        intake: Intake,
        scan: Callable[[], Scan | None],
        patience_s: float,
    ) -> None:
        self._store, self._dispatch, self._intake, self._scan = store, dispatch, intake, scan
        self._patience_s = patience_s
        self._began = time.time()

    async def run(self) -> int:
        """Return the exit status once it has ended: 0, 65 where a job failed, 75 where something is left.

        Source of the numbers: sysexits.h, EX_DATAERR and EX_TEMPFAIL.
        """
        self._intake.look_all()
        left, busy_at = Left(under_way=1), time.monotonic()
        while not left.nothing and time.monotonic() - busy_at < self._patience_s:
            await asyncio.sleep(_TURN_S)
            try:
                left = await self._left()
            except StoreError:  # it may come back; the patience bounds this as well
                continue
            if left.under_way:
                busy_at = time.monotonic()
        failed = await self._store.read(history.count_failed_since, self._began)
        log.get().info(log.BATCH_OVER, failed=failed, **vars(left))
        if failed:
            return os.EX_DATAERR
        return os.EX_OK if left.nothing and not left.frozen else os.EX_TEMPFAIL

    async def _left(self) -> Left:
        scan = self._scan()
        if scan is None:
            return Left(under_way=1)
        sources = list(self._intake.names)

        def left(connection: Connection) -> Left:
            counts = queries.counts(connection)
            items = 0
            for name in sources:
                found = item_store.counts(connection, name)
                items += sum(found[state.value] for state in _TO_FETCH)
                # Also of a folder that has just been dropped, before a scan has seen it.
                dropped = drop_store.of_source(connection, name)
                items += sum(drop.job_id is None for drop in dropped)
                looked = item_store.rounds(connection, name).finished_at
                items += looked is None or looked < self._began
            return Left(
                under_way=counts[JobState.RUNNING.value]
                + len(self._dispatch.running)
                + self._intake.busy
                + batch_store.unfinished(connection),
                waiting=counts[JobState.WAITING.value] + counts[JobState.PAUSED.value],
                frozen=counts[JobState.FROZEN.value],
                inbox=len(scan.arrivals),
                items=items,
                notices=queries.unsent(connection),
            )

        return await self._store.read(left)
