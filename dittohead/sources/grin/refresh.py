"""The catalogue, brought up to date from GRIN's lists.

The small lists (in process, failed, converted) are read together in the order in which a volume moves on:
one that does so meanwhile is in the later list. Then they are compared the other way round, so that the later
one counts. A list that broke off changes what it named, and lets nothing leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from dittohead.contract import schedule
from dittohead.contract.catalogue import Keep, Leaving, Listing, Told
from dittohead.model.errors import SourceStopped, StepError, TransientError
from dittohead.sources.grin import options as words
from dittohead.sources.grin import raw, rows
from dittohead.sources.grin.client import Grin, read_whole
from dittohead.sources.grin.options import VOLUME, GrinOptions
from dittohead.system import log
from dittohead.system.files import sha256_file

#: A listing that was begun this long ago does not go on: what it read is old. Seconds, of the small and the
#: large lists.
_OLD_SMALL_S, _OLD_FULL_S = 600.0, 2 * 86400.0

#: What was asked for this lately may not stand in GRIN's list yet. Seconds.
_GRACE_S = 60.0

#: A volume may leave the lists of this many at once whatever the part of them is.
_FEW = 20

#: Bytes of one page: 50,000 rows have some 25 MB.
_PAGE_MOST = 256 << 20

#: Under this kind it keeps what a person wishes of the next round, and whose catalogue it is.
WISH = "wish"


@dataclass(frozen=True)
class _What:
    """What being in a list says of a volume."""

    state: str
    over: frozenset[str] | None  #: only of volumes in these states


_SAYS = {
    "_all_books": _What(words.KNOWN, frozenset({words.GONE})),
    "_available": _What(words.AVAILABLE, frozenset({words.KNOWN, words.GONE, words.UNAVAILABLE})),
    "_in_process": _What(
        words.IN_PROCESS,
        frozenset(
            {
                words.KNOWN, words.AVAILABLE, words.PREVIOUS, words.REQUESTED, words.FAILED,
                words.UNAVAILABLE, words.GONE,
            }
        ),
    ),
    "_converted": _What(words.CONVERTED, None),
    "_failed": _What(
        words.FAILED, frozenset({words.KNOWN, words.AVAILABLE, words.PREVIOUS, words.GONE, words.FAILED})
    ),
}  # fmt: skip


class Refresh:
    """Reads GRIN's lists into the catalogue of one source."""

    def __init__(self, options: GrinOptions, keep: Keep, grin: Grin) -> None:
        self._options, self._keep, self._grin = options, keep, grin
        self._catalogue = keep.catalogue

    # -- the small lists ---------------------------------------------------------------------

    async def small(self) -> None:
        """Learn what is in process, failed and converted now."""
        read = {
            name: await self._read(name, _OLD_SMALL_S) for name in ("_in_process", "_failed", "_converted")
        }
        await self._compare(read["_converted"])
        await self._compare(read["_in_process"])
        await self._end(read["_in_process"], self._left_process(read["_in_process"].begun_at))
        await self._compare(read["_failed"])
        await self._end(read["_failed"], self._left_failed(read["_failed"].begun_at))
        pool = await self._count(words.CONVERTED)
        await self._end(read["_converted"], self._left_pool(read["_converted"].begun_at, pool))

    def _left_process(self, began: float) -> Leaving:
        return Leaving(
            states=frozenset({words.IN_PROCESS, words.REQUESTED}),
            state=words.AVAILABLE,
            reason="it is not in process any more",
            before=began - _GRACE_S,
        )

    def _left_failed(self, began: float) -> Leaving:
        return Leaving(
            states=frozenset({words.FAILED}),
            state=words.AVAILABLE,
            reason="it is not among those any more that could not be converted",
            before=began,
        )

    def _left_pool(self, began: float, pool: int) -> Leaving:
        return Leaving(
            states=frozenset({words.CONVERTED}),
            state=words.PREVIOUS,
            reason="it has left the pool of converted volumes",
            before=began,
            # An empty answer is a fault of GRIN's rather than an empty pool.
            most=max(_FEW, int(pool * 0.9)),
        )

    async def _count(self, *states: str) -> int:
        counts = await self._catalogue.counts(VOLUME)
        return sum(count for (state, _), count in counts.items() if not states or state in states)

    # -- all books ---------------------------------------------------------------------------

    async def books(self) -> None:
        """List all books where that is due, or those that were scanned since the last time."""
        wish = (await self._catalogue.get(WISH, ["refresh"])).get("refresh")
        asked = wish is not None and wish.state in ("due", "accept")
        full = await self._catalogue.last(VOLUME, "_all_books")
        if asked or full is None or self._is_due(full):
            await self._full(believe=wish is not None and wish.state == "accept")
            if asked:
                await self._catalogue.tell(WISH, [Told(key="refresh", state="done")], by="refresh")
            return
        lately = await self._catalogue.last(VOLUME, "_all_books lately")
        since = max(full.begun_at, lately.begun_at if lately is not None else 0.0)
        if time.time() - since >= self._options.increment:
            await self._increment(since)

    def _is_due(self, full: Listing) -> bool:
        return schedule.next_after(self._options.full, full.begun_at, self._options.timezone) <= time.time()

    async def _full(self, *, believe: bool) -> None:
        for name in ("_all_books", "_available"):
            listing = await self._read(name, _OLD_FULL_S)
            await self._compare(listing)
            await self._end(listing, await self._left_books(listing, believe=believe))

    async def _left_books(self, listing: Listing, *, believe: bool) -> Leaving:
        known = await self._count()
        most = None if believe else max(_FEW, int(known * self._options.believed))
        if listing.name == "_all_books":
            why = "it is not in GRIN's list of all books any more"
            states = frozenset({words.KNOWN, words.AVAILABLE, words.PREVIOUS, words.UNAVAILABLE})
            return Leaving(states=states, state=words.GONE, reason=why, before=listing.begun_at, most=most)
        return Leaving(
            states=frozenset({words.AVAILABLE}),
            state=words.KNOWN,
            reason="it is not among those any more that may be asked for",
            before=listing.begun_at,
            most=most,
        )

    async def _increment(self, since: float) -> None:
        """List what was scanned since; a day more, for no clock is GRIN's."""
        begin = datetime.fromtimestamp(since, UTC) - timedelta(days=1)
        end = datetime.fromtimestamp(time.time(), UTC) + timedelta(days=1)
        dates = _scanned(begin, end)
        listing = await self._read("_all_books", _OLD_SMALL_S, called="_all_books lately", more=dates)
        await self._compare(listing)
        await self._end(listing, None)

    # -- one list ----------------------------------------------------------------------------

    async def _read(
        self, name: str, old_s: float, *, called: str = "", more: Mapping[str, str] | None = None
    ) -> Listing:
        """Have a list's file, or go on with one that a kill left in the middle."""
        listing = await self._catalogue.begin(VOLUME, called or name)
        why = self._outdated(listing, old_s)
        if why:
            await self._cut(listing, why)
            listing = await self._catalogue.begin(VOLUME, called or name)
        if listing.position or self._is_html:
            return listing
        query = {
            "format": "text",
            **({"mode": "all"} if self._options.lists == "all" else {}),
            **(more or {}),
        }
        file = raw.name_for(called or name, listing.begun_at, "txt")
        try:
            async with self._grin.request("GET", f"{name}?{urlencode(query)}") as answer:
                if answer.status != 200:
                    raise TransientError(f"GRIN answers with {answer.status} where a list should be")
                await raw.store_text(answer, self._keep.directory / file)
        except StepError as error:
            if not isinstance(error, SourceStopped):
                await self._cut(listing, error.what)
            raise
        await self._catalogue.note(listing, {"file": file, "line": 0})
        return await self._catalogue.begin(VOLUME, listing.name)

    def _outdated(self, listing: Listing, old_s: float) -> str:
        """Return why an open listing does not go on; "" when it does, or has just been begun."""
        if not listing.position or listing.state != "open":
            return ""
        if ("next" in listing.position) is not self._is_html:
            return "lists: says another form now than when it was begun"
        too_old = time.time() - listing.begun_at > old_s
        return "it was begun too long ago to go on" if too_old else ""

    @property
    def _is_html(self) -> bool:
        return self._options.lists == "html"

    async def _cut(self, listing: Listing, why: str) -> None:
        """End a listing that broke off; its file is of no use."""
        await self._catalogue.cut(listing, why)
        file = str(listing.position.get("file", ""))
        if file:
            with contextlib.suppress(OSError):
                (self._keep.directory / file).unlink()

    async def _compare(self, listing: Listing) -> None:
        """Tell the catalogue of a list, from where a kill left off."""
        if listing.state != "open":  # compared before; it was killed while it ended
            return
        try:
            if self._is_html:
                await self._compare_pages(listing)
            else:
                await self._compare_lines(listing)
        except StepError as error:
            if not isinstance(error, SourceStopped) and not self._is_html:
                await self._cut(listing, error.what)
            raise

    async def _compare_lines(self, listing: Listing) -> None:
        name = listing.name.split(" ")[0]
        file = str(listing.position["file"])
        columns = self._options.columns.get(name) if self._options.lists == "all" else None
        async for at, part in raw.lines(self._keep.directory / file, int(listing.position["line"])):
            found = [rows.of_line(line, columns, self._options.library) for line in part if line.strip()]
            await self._told(listing, name, found, {"file": file, "line": at})

    async def _compare_pages(self, listing: Listing) -> None:
        """Read pages one by one; each is kept, told, and noted with where the next one is."""
        name = listing.name.split(" ")[0]
        position = dict(listing.position) or {
            "file": raw.name_for(listing.name, listing.begun_at, "html"),
            "size": 0,
            "next": f"{name}?{urlencode({'result_count': self._options.page, **self._dates(listing)})}",
        }
        seen: set[str] = set()
        while (address := str(position["next"])) and address not in seen:
            seen.add(address)
            page, body = await self._page(address)
            if page.following and not page.rows:
                raise TransientError("GRIN's list goes on behind a page without rows", where=listing.name)
            path = self._keep.directory / str(position["file"])
            size = await asyncio.to_thread(raw.append_page, path, body, int(position["size"]))
            position = {**position, "size": size, "next": page.following}
            await self._told(listing, name, [*page.rows, *([None] * page.unread)], position)

    def _dates(self, listing: Listing) -> dict[str, str]:
        if " " not in listing.name:
            return {}
        begin = datetime.fromtimestamp(listing.begun_at - self._options.increment, UTC) - timedelta(days=2)
        end = datetime.fromtimestamp(listing.begun_at, UTC) + timedelta(days=1)
        return _scanned(begin, end)

    async def _page(self, address: str) -> tuple[rows.ListPage, bytes]:
        async with self._grin.request("GET", address, page=True) as answer:
            body, where = await read_whole(answer, _PAGE_MOST), str(answer.url)
        fault = self._grin.fault_of_page(body, where)
        if fault is not None:
            raise fault
        page = await asyncio.to_thread(
            rows.of_page, body.decode("utf-8", "replace"), where, self._options.library
        )
        if answer.status != 200 or not page.has_header:
            raise TransientError("GRIN answers with a page that is not a list", where=where.partition("?")[0])
        return page, body

    async def _told(
        self,
        listing: Listing,
        name: str,
        found: Sequence[rows.VolumeRow | None],
        position: Mapping[str, object],
    ) -> None:
        good = [row for row in found if row is not None]
        if len(good) < len(found):
            self._keep.log.warning(log.SOURCE_LIST_UNREAD, list=name, lines=len(found) - len(good))
        told = [_told(name, row) for row in good]
        await self._catalogue.tell(VOLUME, told, listing=listing, position=position)

    async def _end(self, listing: Listing, leaving: Leaving | None) -> None:
        now = await self._catalogue.begin(VOLUME, listing.name)
        file = str(now.position.get("file", ""))
        path = self._keep.directory / file
        sha256, _ = await asyncio.to_thread(sha256_file, path) if file and path.exists() else ("", 0)
        ended = await self._catalogue.end(now, leaving, sha256=sha256, file=file)
        if ended.state == "doubtful":
            self._keep.log.warning(log.SOURCE_LIST_DOUBTFUL, list=listing.name, reason=ended.reason)


def _scanned(begin: datetime, end: datetime) -> dict[str, str]:
    """Return the query for volumes that were scanned between two days."""
    return {
        "execute_query": "true",
        "last_scan_date_start": f"{begin:%Y-%m-%d}",
        "last_scan_date_end": f"{end:%Y-%m-%d}",
    }


def _told(name: str, row: rows.VolumeRow) -> Told:
    says = _SAYS[name]
    attributes: dict[str, object] = dict(row.attributes)
    state, over = says.state, says.over
    since = None
    if name == "_converted":
        attributes["file"] = row.file
        since = _moment(row.attributes.get("converted", ""))
    if name == "_all_books" and (row.attributes.get("converted") or row.attributes.get("downloaded")):
        state, over = words.PREVIOUS, frozenset({words.KNOWN, words.AVAILABLE, words.GONE})
    reason = row.attributes.get("info") if name == "_failed" else None
    return Told(key=row.barcode, state=state, over=over, reason=reason, since=since, attributes=attributes)


def _moment(date: str) -> float | None:
    """Return a date as GRIN writes it, in seconds since the epoch; None where it is none.

    Its time zone is not known. For their order, and the oldest leaves the pool first, it does not matter.
    """
    text = " ".join(date.replace("/", "-").split())
    for form in ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"):
        with contextlib.suppress(ValueError):
            return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
    return None
