"""What the engine gives a source to keep: its catalogue in the store, and a directory in state/."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from dittohead.contract.catalogue import (
    Catalogue,
    CatalogueEntry,
    Change,
    Keep,
    Leaving,
    Listing,
    Told,
    ToldCounts,
)
from dittohead.store import Store
from dittohead.store import catalogue as catalogue_store
from dittohead.system import fail_points, log

#: Listings of a name that are remembered, with their files.
_LISTINGS = 10


class KeptCatalogue(Catalogue):
    """A source's entries in the store.

    Args:
        directory: the source's own; files of listings that are forgotten go from it.
    """

    def __init__(self, store: Store, name: str, directory: Path) -> None:
        self._store, self._name, self._directory = store, name, directory

    async def tell(
        self,
        kind: str,
        told: Sequence[Told],
        *,
        by: str = "",
        listing: Listing | None = None,
        position: Mapping[str, Any] | None = None,
        only_known: bool = False,
    ) -> ToldCounts:
        tally = await self._store.write(
            catalogue_store.tell,
            self._name,
            kind,
            told,
            time.time(),
            by=by or (listing.name if listing is not None else ""),
            listing=None if listing is None else listing.id,
            position=position,
            only_known=only_known,
        )
        fail_points.point("source.told")
        return tally

    async def begin(self, kind: str, name: str) -> Listing:
        return await self._store.write(catalogue_store.begin, self._name, kind, name, time.time())

    async def note(self, listing: Listing, position: Mapping[str, Any]) -> None:
        await self._store.write(catalogue_store.note, listing.id, position)

    async def cut(self, listing: Listing, why: str) -> None:
        await self._store.write(catalogue_store.over, listing.id, "cut", time.time(), reason=why)
        await self._tidy(listing)

    async def end(
        self, listing: Listing, leaving: Leaving | None, *, sha256: str = "", file: str = ""
    ) -> Listing:
        over = {"sha256": sha256, "file": file}
        if leaving is not None and await self._is_doubtful(listing, leaving, over):
            return await self._ended(listing)
        if leaving is not None:
            await self._store.write(catalogue_store.over, listing.id, "ending", time.time(), **over)
            where = (listing.id, self._name, listing.kind, leaving)
            while await self._store.write(catalogue_store.leave, *where, time.time()):
                fail_points.point("source.left")
        await self._store.write(catalogue_store.over, listing.id, "whole", time.time(), **over)
        return await self._ended(listing)

    async def _is_doubtful(self, listing: Listing, leaving: Leaving, over: Mapping[str, str]) -> bool:
        """End a listing by which too much would leave, and tell whether it is such."""
        if leaving.most is None or listing.state == "ending":
            return False
        count = await self._store.read(catalogue_store.leaving, listing.id, self._name, listing.kind, leaving)
        if count <= leaving.most:
            return False
        why = f"{count:,} entries would leave by it, more than the {leaving.most:,} that are believed"
        await self._store.write(catalogue_store.over, listing.id, "doubtful", time.time(), reason=why, **over)
        return True

    async def _ended(self, listing: Listing) -> Listing:
        await self._tidy(listing)
        return await self._store.read(catalogue_store.listing, listing.id)

    async def _tidy(self, listing: Listing) -> None:
        while await self._store.write(catalogue_store.forget_named, listing.id):
            pass
        old = await self._store.write(
            catalogue_store.forget_listings, self._name, listing.kind, listing.name, _LISTINGS
        )
        for file in old:
            (self._directory / file).unlink(missing_ok=True)

    async def last(self, kind: str, name: str) -> Listing | None:
        found = await self._store.read(catalogue_store.listings_of, self._name, kind, name, 1, state="whole")
        return found[0] if found else None

    async def listings(self, kind: str, name: str, limit: int) -> list[Listing]:
        return await self._store.read(catalogue_store.listings_of, self._name, kind, name, limit)

    async def counts(self, kind: str) -> dict[tuple[str, str], int]:
        return await self._store.read(catalogue_store.counts, self._name, kind)

    async def get(self, kind: str, keys: Sequence[str]) -> dict[str, CatalogueEntry]:
        return await self._store.read(catalogue_store.get, self._name, kind, keys)

    async def pick(
        self, kind: str, states: Collection[str], stages: Collection[str], limit: int, *, sample: bool = False
    ) -> list[CatalogueEntry]:
        return await self._store.read(
            catalogue_store.pick, self._name, kind, states, stages, limit, sample=sample
        )

    async def page(
        self, kind: str, *, after: str = "", limit: int = 1000, state: str = "", stage: str | None = None
    ) -> list[CatalogueEntry]:
        return await self._store.read(
            catalogue_store.page,
            self._name,
            kind,
            after=after,
            limit=limit,
            state=state,
            stage=stage,
        )

    async def history(self, kind: str, key: str, limit: int = 200) -> list[Change]:
        return await self._store.read(catalogue_store.history, self._name, kind, key, limit)


def keep(store: Store, state: Path, name: str, secret: Callable[[str], str]) -> Keep:
    """Return what a source may keep. Its directory is made when it is first needed.

    Args:
        state: the root's state/ directory.
        name: the source's name in config.yaml.
    """
    directory = state / "sources" / name
    return Keep(
        name=name,
        directory=directory,
        catalogue=KeptCatalogue(store, name, directory),
        secret=secret,
        log=log.get().bind(source=name),
    )
