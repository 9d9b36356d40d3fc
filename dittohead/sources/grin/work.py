"""One pass of work: queues are drawn from, what is converted goes to the engine, the rest is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from dittohead.contract.catalogue import Entry, Keep, Told
from dittohead.contract.source import Look, folder_fault
from dittohead.model.errors import SourceStopped, TransientError
from dittohead.sources.grin import options as words
from dittohead.sources.grin.client import Grin
from dittohead.sources.grin.fetch import look_at, sighting
from dittohead.sources.grin.options import QUEUES, VOLUME, GrinOptions
from dittohead.sources.grin.requests import Requests

#: Archives that the engine knows of and has not begun, for each folder that may be under way.
_AHEAD = 4

#: Volumes looked at between two notes in the store.
_PIECE = 50

#: Volumes named by a dry run.
_DRY = 200

#: Stages of volumes that a queue has brought on the way.
_UNDER_WAY = (words.WANTED, words.FETCHING)


@dataclass
class State:
    """What all connections of one source share about its work."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  #: one pass at a time
    blocked_until: float = 0.0  #: nothing is asked for before, seconds since the epoch
    wake: asyncio.Event = field(default_factory=asyncio.Event)  #: somebody wants something


class Work:
    """Passes of work of one source."""

    def __init__(self, options: GrinOptions, keep: Keep, grin: Grin, state: State) -> None:
        self._options, self._keep, self._grin, self._state = options, keep, grin, state
        self._catalogue = keep.catalogue
        self._requests = Requests(options, keep, grin)

    async def once(self, ctx: Look) -> None:
        """Make one pass. Raises: SourceStopped, TransientError."""
        async with self._state.turn:
            await self._fill()
            await self._offer(ctx)
            self._state.blocked_until = await self._requests.ask(self._state.blocked_until)

    async def dry(self, ctx: Look) -> None:
        """Only say what would be fetched now."""
        for entry in await self._catalogue.pick(VOLUME, [words.CONVERTED], [words.WANTED], _DRY):
            file = str(entry.attributes.get("file", ""))
            archive = await look_at(self._grin, file) if file else None
            if archive is not None:
                await ctx.saw([sighting(entry.key, file, archive)])

    async def _fill(self) -> None:
        """Have volumes wanted out of the queues, while fewer than `limit` are under way."""
        for queue in self._options.queues:
            counts = await self._catalogue.counts(VOLUME)
            busy = sum(count for (_, stage), count in counts.items() if stage in _UNDER_WAY)
            room = self._options.limit - busy
            while room > 0:
                some = await self._catalogue.pick(VOLUME, [QUEUES[queue]], [""], min(room, 1000))
                if not some:
                    break
                idle, why = frozenset({""}), f"of the queue {queue}"
                told = [
                    Told(key=entry.key, stage=words.WANTED, over_stages=idle, reason=why) for entry in some
                ]
                await self._catalogue.tell(VOLUME, told, by="queue", only_known=True)
                room -= len(some)

    # -- what is converted -------------------------------------------------------------------

    async def _offer(self, ctx: Look) -> None:
        """Offer the engine wanted volumes that are converted, as many as it needs for a while."""
        room = self._options.ahead * _AHEAD - await ctx.waiting()
        while room > 0:
            some = await self._catalogue.pick(VOLUME, [words.CONVERTED], [words.WANTED], min(room, _PIECE))
            if not some:
                return
            for entry in some:
                await self._offer_one(ctx, entry)
            room -= len(some)

    async def _offer_one(self, ctx: Look, entry: Entry) -> None:
        file = str(entry.attributes.get("file", ""))
        why = folder_fault(entry.key)
        if why or not file:
            await self._say(entry, words.ASIDE, why or "GRIN does not say what its archive is called")
            return
        try:
            archive = await look_at(self._grin, file)
        except SourceStopped:
            raise
        except TransientError as error:
            # One volume's: it waits behind the others. Of all of them, and the pass ends with it.
            await self._later(entry, error)
            raise
        if archive is None:
            told = Told(
                key=entry.key,
                state=words.PREVIOUS,
                reason="it left the pool of converted volumes before it was looked at",
                attributes={"file": None},
            )
            await self._catalogue.tell(VOLUME, [told], by="fetch", only_known=True)
        elif archive.etag == entry.attributes.get("stored_etag") and not entry.attributes.get("again"):
            await self._say(entry, words.STORED, "GRIN has the archive that was stored")
        else:
            # 1 the item  2 what waits for it  3 where we are: killed in between, all of it is said again
            await ctx.saw([sighting(entry.key, file, archive)])
            await ctx.ordered(entry.key, [file], {"etag": archive.etag})
            await self._say(entry, words.FETCHING, "")

    async def _later(self, entry: Entry, error: TransientError) -> None:
        told = Told(key=entry.key, priority=entry.priority - 1, reason=str(error))
        await self._catalogue.tell(VOLUME, [told], by="fetch", only_known=True)

    async def _say(self, entry: Entry, stage: str, reason: str) -> None:
        told = Told(key=entry.key, stage=stage, reason=reason, attributes={"again": None})
        await self._catalogue.tell(VOLUME, [told], by="fetch", only_known=True)

    async def stored(self, barcodes: Sequence[tuple[str, str]]) -> None:
        """Note (barcode, ETag) of volumes whose jobs are done."""
        told = [
            Told(
                key=barcode,
                stage=words.STORED,
                reason="",
                attributes={"stored_etag": etag, "evictions": None},
            )
            for barcode, etag in barcodes
        ]
        await self._catalogue.tell(VOLUME, told, by="jobs", only_known=True)
