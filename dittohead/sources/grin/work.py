"""One pass of work: queues are drawn from, what is converted goes to the engine, the rest is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from dittohead.contract.catalogue import CatalogueEntry, Keep, Told
from dittohead.contract.source import Look
from dittohead.model.errors import SourceStopped, TransientError
from dittohead.sources.grin import options as words
from dittohead.sources.grin.client import Grin
from dittohead.sources.grin.details import Details, Pause
from dittohead.sources.grin.fetch import archive_of, file_fault, sighting
from dittohead.sources.grin.options import QUEUES, VOLUME, GrinOptions
from dittohead.sources.grin.requests import ConversionRequests

#: Archives that the engine knows of and has not begun, for each folder that may be under way.
_AHEAD = 4

#: Volumes looked at between two notes in the store.
_PIECE = 50

#: So many volumes one after another of which GRIN does not say what it has: then it is GRIN, and not they.
_IN_A_ROW = 3

#: What a person wished of a volume, and what stood in its way: over when it gets a stage of its own.
_SETTLED = {"again": None, "turn": None, "job": None, "looks": None}

#: Volumes named by a dry run.
_DRY = 200

#: Stages of volumes that a queue has brought on the way.
_UNDER_WAY = (words.WANTED, words.FETCHING)


@dataclass
class State:
    """What all connections of one source share about its work."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  #: one pass at a time
    blocked_until: float = 0.0  #: nothing is asked for before, seconds since the epoch
    details: Pause = field(default_factory=Pause)  #: GRIN did not give any
    wake: asyncio.Event = field(default_factory=asyncio.Event)  #: somebody wants something


class Work:
    """Passes of work of one source."""

    def __init__(self, options: GrinOptions, keep: Keep, grin: Grin, state: State) -> None:
        self._options, self._keep, self._grin, self._state = options, keep, grin, state
        self._catalogue = keep.catalogue
        self._details = Details(options, keep, grin, state.details)
        self._requests = ConversionRequests(options, keep, grin, self._details)

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
            archive = await archive_of(self._grin, file) if file else None
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
        failed: dict[str, tuple[CatalogueEntry, TransientError]] = {}
        in_a_row = 0
        while room > 0:
            limit = min(room, _PIECE) + len(failed)  # those that failed are picked once more, at the end
            found = await self._catalogue.pick(VOLUME, [words.CONVERTED], [words.WANTED], limit)
            some = [entry for entry in found if entry.key not in failed]
            if not some:
                break
            await self._details.learn(some)
            for entry in some:
                try:
                    await self._offer_one(ctx, entry)
                    in_a_row = 0
                except SourceStopped:
                    raise
                except TransientError as error:
                    failed[entry.key] = entry, error
                    in_a_row += 1
                    if in_a_row >= _IN_A_ROW or error.retry_after_s is not None:
                        raise  # of all of them
            room -= len(some)
        await self._later(list(failed.values()))

    async def _offer_one(self, ctx: Look, entry: CatalogueEntry) -> None:
        file = str(entry.attributes.get("file", ""))
        why = ctx.folder_fault(entry.key) or file_fault(file)
        if why or not file:
            await self._say(entry, words.ASIDE, why or "GRIN does not say what its archive is called")
            return
        archive = await archive_of(self._grin, file)
        if archive is None:
            told = Told(
                key=entry.key,
                state=words.PREVIOUS,
                reason="it left the pool of converted volumes before it was looked at",
                attributes={"file": None},
            )
            await self._catalogue.tell(VOLUME, [told], by="fetch", only_known=True)
        elif archive.etag == entry.attributes.get("stored_etag") and not entry.attributes.get("turn"):
            await self._say(entry, words.STORED, "GRIN has the archive that was stored")
        else:
            # 1 the item  2 what waits for it  3 where we are: killed in between, all of it is said again
            turn = str(entry.attributes.get("turn") or "")
            seen = sighting(entry.key, file, archive, priority=entry.priority, turn=turn)
            await ctx.saw([seen])
            await ctx.ordered(entry.key, [file], {"etag": archive.etag})
            await self._say(entry, words.FETCHING, "")

    async def _later(self, failed: Sequence[tuple[CatalogueEntry, TransientError]]) -> None:
        """Let volumes whose archive GRIN does not describe wait behind the others, a few times."""
        told = []
        for entry, error in failed:
            looks = int(entry.attributes.get("looks", 0)) + 1
            over = looks >= self._options.refusals
            told.append(
                Told(
                    key=entry.key,
                    stage=words.ASIDE if over else None,
                    priority=entry.priority - 1,
                    reason=f"{error.what}, {looks} times" if over else error.what,
                    attributes={"looks": None if over else looks},
                )
            )
        if told:
            await self._catalogue.tell(VOLUME, told, by="fetch", only_known=True)

    async def _say(self, entry: CatalogueEntry, stage: str, reason: str) -> None:
        told = Told(key=entry.key, stage=stage, reason=reason, attributes=_SETTLED)
        await self._catalogue.tell(VOLUME, [told], by="fetch", only_known=True)

    async def stored(self, barcodes: Sequence[tuple[str, str]]) -> None:
        """Note (barcode, ETag) of volumes whose jobs are done."""
        told = [
            Told(
                key=barcode,
                stage=words.STORED,
                reason="",
                attributes={**_SETTLED, "stored_etag": etag, "evictions": None},
            )
            for barcode, etag in barcodes
        ]
        await self._catalogue.tell(VOLUME, told, by="jobs", only_known=True)
