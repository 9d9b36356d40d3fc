"""What a source is given while it looks: items and orders to the store, or to a list in a dry run."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dittohead.contract.source import Look, Sighting, folder_fault, path_fault
from dittohead.store import Store
from dittohead.store import items as item_store
from dittohead.system import log
from dittohead.system.ignored_names import DEFAULT


def _guarded(sighting: Sighting, ignore: Sequence[str]) -> Sighting:
    """Refuse what would be written elsewhere than below its folder, whatever the source thinks of it."""
    if sighting.refused:
        return sighting
    why = folder_fault(sighting.folder, ignore) or ("" if sighting.marker else path_fault(sighting.path))
    return dataclasses.replace(sighting, refused=why) if why else sighting


class SourceLook(Look):
    """Remembers what is told.

    Args:
        position: where a round goes on; None for a look that is not a round and leaves it alone.
        on_news: called when something new or changed was remembered.
        ignore: names in the inbox that are ignored.
        on_urgent: called when something was remembered that goes before others.
    """

    dry = False

    def __init__(
        self,
        store: Store,
        name: str,
        prefix: str,
        position: Mapping[str, Any] | None,
        on_news: Callable[[], None],
        ignore: Sequence[str] = (DEFAULT,),
        on_urgent: Callable[[], None] = lambda: None,
    ) -> None:
        self._ignore, self._on_urgent = ignore, on_urgent
        self._store, self._on_news, self._keeps = store, on_news, position is not None
        position = position or {}
        self.name, self.prefix, self.position = name, prefix, position
        self.log = log.get().bind(source=name)
        self.seen = self.new = self.changed = 0

    async def saw(self, found: Sequence[Sighting], *, position: dict[str, Any] | None = None) -> None:
        if not found and position is None:
            return
        now, found = time.time(), [_guarded(sighting, self._ignore) for sighting in found]

        def work(connection: Any) -> tuple[int, int]:
            said = item_store.saw(connection, self.name, found, now)
            if position is not None and self._keeps:
                item_store.put_round(connection, self.name, position=position)
            return said

        fresh, changed = await self._store.write(work)
        self.seen += len(found)
        self.new += fresh
        self.changed += changed
        if fresh or changed:
            self._say_refused(found)
            if any(sighting.priority > 0 for sighting in found):
                self._on_urgent()
            self._on_news()

    def _say_refused(self, found: Sequence[Sighting]) -> None:
        for sighting in found:
            if sighting.refused:
                self.log.warning(log.SOURCE_REFUSED, key=sighting.key, reason=sighting.refused)

    async def ordered(
        self, handle: str, keys: Sequence[str], data: dict[str, Any], *, keep_at: float | None = None
    ) -> None:
        await self._store.write(
            item_store.put_order, self.name, handle, keys, data, time.time(), keep_at=keep_at
        )
        self._on_news()

    async def unreadable(self, handle: str, why: str, data: dict[str, Any]) -> None:
        known = await self.orders([handle])
        if handle not in known:
            self.log.warning(log.SOURCE_UNREADABLE, order=handle, reason=why)
        await self._store.write(
            item_store.put_order, self.name, handle, (), data, time.time(), unreadable=why
        )

    async def orders(self, handles: Sequence[str]) -> dict[str, dict[str, Any]]:
        return await self._store.read(item_store.known_orders, self.name, handles)

    async def waiting(self) -> int:
        return await self._store.read(item_store.waiting, self.name)

    def folder_fault(self, name: str) -> str:
        return folder_fault(name, self._ignore)


class DrySourceLook(Look):
    """Only notes what `SourceLook` would remember."""

    dry = True

    def __init__(self, store: Store, name: str, prefix: str, ignore: Sequence[str] = (DEFAULT,)) -> None:
        self._store, self._ignore = store, ignore
        self.name, self.prefix = name, prefix
        self.position: Mapping[str, Any] = {}
        self.log = log.get().bind(source=name)
        self.seen = 0
        self.found: list[Sighting] = []  #: new or changed
        self.problems: list[tuple[str, str]] = []  #: (order, why it cannot be read)

    async def saw(self, found: Sequence[Sighting], *, position: dict[str, Any] | None = None) -> None:
        self.seen += len(found)
        found = [_guarded(sighting, self._ignore) for sighting in found]
        known = {sighting.key for sighting in self.found}
        news = await self._store.read(item_store.differing, self.name, found)
        self.found += [sighting for sighting in news if sighting.key not in known]

    async def ordered(
        self, handle: str, keys: Sequence[str], data: dict[str, Any], *, keep_at: float | None = None
    ) -> None:
        return

    async def unreadable(self, handle: str, why: str, data: dict[str, Any]) -> None:
        self.problems.append((handle, why))

    async def orders(self, handles: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {}

    async def waiting(self) -> int:
        return await self._store.read(item_store.waiting, self.name)
