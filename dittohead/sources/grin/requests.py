"""Asking GRIN for conversions: in batches, never above its queue, each volume's own answer kept.

What is about to be asked for is noted first, and asked for after it: a kill in between, or an answer that is
lost, leaves a volume that GRIN's own list of what is in process decides about, before it is asked for again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlencode

from dittohead.contract.catalogue import CatalogueEntry, Keep, Told
from dittohead.model.errors import TransientError
from dittohead.model.text import short
from dittohead.sources.grin import options as words
from dittohead.sources.grin.client import Grin, QueueFull, read_whole
from dittohead.sources.grin.details import Details
from dittohead.sources.grin.options import URL_MOST, VOLUME, GrinOptions
from dittohead.system import fail_points, log

#: Bytes of an answer: two hundred volumes have some 20 kB.
_ANSWER_MOST = 1 << 20

#: How long nothing is asked for when GRIN's queue is full and it does not say for how long. Seconds.
_FULL_S = 1800.0

#: States of volumes that may be asked for.
_ASKABLE = (words.AVAILABLE, words.PREVIOUS, words.KNOWN)

#: What `_process` says, in small letters, and what it means. The first that fits counts.
_ANSWERS = (
    ("not allowed", words.UNAVAILABLE),
    ("available for download", words.REQUESTED),
    ("being converted", words.IN_PROCESS),
    ("in process", words.IN_PROCESS),
    ("success", words.REQUESTED),
)


class ConversionRequests:
    """Asks for conversions for one source."""

    def __init__(self, options: GrinOptions, keep: Keep, grin: Grin, details: Details) -> None:
        self._options, self._keep, self._grin, self._details = options, keep, grin, details
        self._catalogue = keep.catalogue

    async def may_ask(self) -> int:
        """Return how many volumes may be asked for now."""
        counts = await self._catalogue.counts(VOLUME)
        busy = (words.REQUESTED, words.IN_PROCESS)
        return max(self._options.in_process - sum(n for (state, _), n in counts.items() if state in busy), 0)

    async def next(self, limit: int) -> list[CatalogueEntry]:
        """Return wanted volumes that are to be asked for, the most urgent first."""
        found = await self._catalogue.pick(VOLUME, _ASKABLE, [words.WANTED], limit)
        again = await self._catalogue.pick(VOLUME, [words.FAILED, words.UNAVAILABLE], [words.WANTED], limit)
        found += [entry for entry in again if entry.attributes.get("again")]
        found.sort(key=lambda entry: (-entry.priority, entry.id))
        return found[:limit]

    async def ask(self, blocked_until: float) -> float:
        """Ask for as much as there is room for. Returns: not to be called before, as `time.time`."""
        if time.time() < blocked_until or await self._keep.paused("requests"):
            return blocked_until
        await self._lay_aside()
        while count := await self.may_ask():
            chosen = await self.next(min(count, self._options.batch))
            if not chosen:
                return 0.0
            for part in self._parts(chosen):
                wait = await self._ask(part)
                if wait is not None:
                    return time.time() + wait
        return 0.0

    async def _lay_aside(self) -> None:
        """What GRIN could not convert, or does not give out, is not asked for, unless somebody insists."""
        for state in (words.FAILED, words.UNAVAILABLE):
            found = await self._catalogue.pick(VOLUME, [state], [words.WANTED], 1000)
            told = [
                Told(key=e.key, stage=words.ASIDE, reason=e.reason or _WHY[state])
                for e in found
                if not e.attributes.get("again")
            ]
            if told:
                await self._catalogue.tell(VOLUME, told, by="requests", only_known=True)
                await self._details.learn([e for e in found if not e.attributes.get("again")])

    def _parts(self, chosen: Sequence[CatalogueEntry]) -> Iterator[list[CatalogueEntry]]:
        """Yield what fits into one request each."""
        if self._options.ask_by == "post":
            yield list(chosen)
            return
        part: list[CatalogueEntry] = []
        for entry in chosen:
            if part and len(self._address([*part, entry])) > URL_MOST:
                yield part
                part = []
            part.append(entry)
        yield part

    def _address(self, part: Sequence[CatalogueEntry]) -> str:
        asked = urlencode([("barcodes", entry.key) for entry in part])
        return f"{self._options.base}/_process?{asked}"

    async def _ask(self, part: Sequence[CatalogueEntry]) -> float | None:
        """Ask for one batch. Returns: for how long nothing more may be asked for; None: go on."""
        noted = [_noted(entry) for entry in part]
        await self._catalogue.tell(VOLUME, noted, by="requests", only_known=True)
        fail_points.point("grin.noted")
        try:
            lines = await self._send(part)
        except QueueFull as full:
            await self._back(part, "GRIN's queue is full")
            wait = _FULL_S if full.wait_s is None else full.wait_s
            self._keep.log.info(log.SOURCE_QUEUE_FULL, wait_seconds=round(wait, 1))
            return wait
        except TransientError as error:
            # Whether it was heard is not known: the list of what is in process will say.
            self._keep.log.warning(log.SOURCE_REQUEST_LOST, error=str(error), volumes=len(part))
            raise
        fail_points.point("grin.asked")
        await self._answered(part, lines)
        return None

    async def _send(self, part: Sequence[CatalogueEntry]) -> list[str]:
        if self._options.ask_by == "get":
            what, data, method = self._address(part), None, "GET"
        else:
            what, data, method = "_process", "\n".join(entry.key for entry in part).encode(), "POST"
        headers = {"Content-Type": "text/plain; charset=utf-8"} if data is not None else {}
        async with self._grin.request(method, what, headers=headers, data=data) as answer:
            if answer.status != 200:
                raise TransientError(f"GRIN answers with {answer.status} to a request for conversions")
            body = await read_whole(answer, _ANSWER_MOST)
        return body.decode("utf-8", "replace").splitlines()

    async def _answered(self, part: Sequence[CatalogueEntry], lines: Sequence[str]) -> None:
        said = _statuses(lines)
        told = [self._meaning(entry, said.get(entry.key.casefold(), "")) for entry in part]
        await self._catalogue.tell(VOLUME, told, by="requests", only_known=True)
        self._keep.log.info(log.SOURCE_ASKED, volumes=len(part), answered=len(said))
        refused = {one.key for one in told if one.stage == words.ASIDE}
        await self._details.learn([entry for entry in part if entry.key in refused])

    def _meaning(self, entry: CatalogueEntry, status: str) -> Told:
        """Return what one answer says of a volume."""
        if not status:  # GRIN's list of what is in process will say
            return Told(key=entry.key, reason="asked for; GRIN said nothing of it")
        reason = f"GRIN says: {short(status)}"
        state = next((state for part, state in _ANSWERS if part in status.lower()), None)
        if state == words.UNAVAILABLE:
            return Told(key=entry.key, state=state, stage=words.ASIDE, reason=reason)
        if state is not None:
            return Told(key=entry.key, state=state, reason=reason, attributes={"refusals": None})
        refusals = int(entry.attributes.get("refusals", 0)) + 1
        return Told(
            key=entry.key,
            state=entry.state,
            stage=words.ASIDE if refusals >= self._options.refusals else None,
            reason=reason,
            priority=entry.priority - 1,  # the others first
            attributes={"refusals": refusals},
        )

    async def _back(self, part: Sequence[CatalogueEntry], why: str) -> None:
        """Nothing of a batch was taken: it is as before."""
        told = [Told(key=entry.key, state=entry.state, reason=why) for entry in part]
        await self._catalogue.tell(VOLUME, told, by="requests", only_known=True)


_WHY = {words.FAILED: "GRIN could not convert it", words.UNAVAILABLE: "GRIN does not give it out"}


def _noted(entry: CatalogueEntry) -> Told:
    asked = int(entry.attributes.get("asked", 0)) + 1
    attributes = {"asked_at": time.time(), "asked": asked, "again": None}
    return Told(key=entry.key, state=words.REQUESTED, reason="asked for", attributes=attributes)


def _statuses(lines: Sequence[str]) -> Mapping[str, str]:
    """Return what `_process` says: barcode without regard to case -> status.

    Its header says which column is which.
    """
    if not lines:
        return {}
    header = [cell.strip().lower() for cell in lines[0].split("\t")]
    if not {"barcode", "status"} <= set(header):
        raise _NoTable()
    at, said = header.index("barcode"), header.index("status")
    found = {}
    for line in lines[1:]:
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) > max(at, said):
            found[cells[at].casefold()] = cells[said]
    return found


class _NoTable(TransientError):
    def __init__(self) -> None:
        super().__init__("GRIN's answer to a request for conversions is not a table of barcodes and statuses")
