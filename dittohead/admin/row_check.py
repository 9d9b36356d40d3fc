"""Look through the store for rows that nobody can have written so: at the start, and when one is met."""

from __future__ import annotations

import asyncio
import time

from dittohead.model.shown import ShownRow
from dittohead.store import Store, damage
from dittohead.store.columns import MET
from dittohead.system import log

#: Between two looks whether a damaged value was met. Seconds.
_MET_S = 5.0

#: Between two looks through all rows: this long at least, and so many times what one has taken.
_ALL_S, _SPARING = 15.0, 200

#: Where some are known they are met again and again: then all rows are read through so often. Seconds.
_KNOWN_S = 300.0

#: Rows that are shown.
_SHOWN = 50


class RowCheck:
    """Knows which rows are damaged; each is logged once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._told: set[tuple[str, str, tuple[str, ...]]] = set()
        self.shown: list[ShownRow] = []

    async def run(self) -> None:
        """Look, again and again, until cancelled."""
        while True:
            MET.take()
            began = time.monotonic()
            await self.round()
            most, waited = max(_ALL_S, _SPARING * (time.monotonic() - began)), 0.0
            while waited < most and not (MET.any and waited >= (_KNOWN_S if self.shown else 0)):
                await asyncio.sleep(_MET_S)
                waited += _MET_S

    async def round(self) -> None:
        """Look through all rows, a piece at a time."""
        found: list[damage.DamagedRow] = []
        for table in damage.TABLES:
            after: int | None = 0
            while after is not None and len(found) < _SHOWN:
                some, after = await self._store.read_apart(damage.damaged_rows, table, after)
                found += some
        self.shown = [row.as_dict() for row in found[:_SHOWN]]
        for row in found:
            if (mark := (row.table, row.key, row.columns)) not in self._told:
                self._told.add(mark)
                log.get().error(log.ROW_DAMAGED, **row.as_dict())
