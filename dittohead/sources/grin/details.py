"""What GRIN knows of single volumes besides its lists: `_barcode_search`, a table with a header.

Viewability, why a volume is not given out, its rates of errors, the library's own key: for people who look at
a volume or at a table of all. Nothing is decided by it, and where GRIN does not answer, work goes on without.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from dittohead.contract.catalogue import CatalogueEntry, Keep, Told
from dittohead.model.errors import TransientError
from dittohead.model.text import short
from dittohead.sources.grin.client import Grin, read_whole
from dittohead.sources.grin.options import URL_MOST, VOLUME, GrinOptions
from dittohead.system import log

#: Under this name a volume's details are kept: column, as GRIN calls it -> text.
DETAILS = "details"

#: Where GRIN did not answer as it should it is not asked again for this long. Seconds.
_AGAIN_S = 6 * 3600.0

#: Columns that are kept, and bytes of an answer: two hundred volumes have some 60 kB.
_COLUMNS_MOST, _ANSWER_MOST = 60, 8 << 20


@dataclass
class Pause:
    """Until when nothing is asked."""

    until: float = 0.0  #: seconds since the epoch


class Details:
    """Asks for details, of volumes of which there are none yet.

    Args:
        options: of the source.
        keep: where they are kept.
        grin: an open session.
        pause: of all sessions of the source.
    """

    def __init__(self, options: GrinOptions, keep: Keep, grin: Grin, pause: Pause) -> None:
        self._options, self._keep, self._grin, self._pause = options, keep, grin, pause

    async def learn(self, entries: Sequence[CatalogueEntry]) -> None:
        """Keep what GRIN knows of these volumes. Raises: SourceStopped."""
        fresh = [entry.key for entry in entries if DETAILS not in entry.attributes]
        if not fresh or not self._options.details or time.time() < self._pause.until:
            return
        try:
            for part in self._parts(fresh):
                found = await self._search(part)
                told = [Told(key=key, attributes={DETAILS: found.get(key.casefold(), {})}) for key in part]
                await self._keep.catalogue.tell(VOLUME, told, by="details", only_known=True)
        except TransientError as error:
            self._pause.until = time.time() + _AGAIN_S
            self._keep.log.warning(log.SOURCE_DETAILS_UNREAD, error=str(error), volumes=len(fresh))

    def _parts(self, keys: Sequence[str]) -> Iterator[list[str]]:
        """Yield what fits into one address each."""
        part: list[str] = []
        for key in keys:
            if part and (len(part) >= self._options.batch or len(self._address([*part, key])) > URL_MOST):
                yield part
                part = []
            part.append(key)
        yield part

    def _address(self, keys: Sequence[str]) -> str:
        asked = {"execute_query": "true", "format": "text", "mode": "full", "barcodes": " ".join(keys)}
        return f"{self._options.base}/_barcode_search?{urlencode(asked)}"

    async def _search(self, keys: Sequence[str]) -> Mapping[str, dict[str, str]]:
        async with self._grin.request("GET", self._address(keys)) as answer:
            if answer.status != 200:
                raise TransientError(f"GRIN answers with {answer.status} to a search for barcodes")
            body = await read_whole(answer, _ANSWER_MOST)
        return table(body.decode("utf-8", "replace").splitlines())


def table(lines: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return a table with a header: barcode without regard to case -> title -> text, where there is one.

    A row may be shorter than the header. Raises: TransientError: no column is called Barcode.
    """
    titles = [short(title) for title in lines[0].split("\t")][:_COLUMNS_MOST] if lines else []
    at = next((number for number, title in enumerate(titles) if title.casefold() == "barcode"), None)
    if at is None:
        raise TransientError("GRIN's answer to a search for barcodes has no column of them")
    found = {}
    for line in lines[1:]:
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) > at and cells[at]:
            named = zip(titles, cells, strict=False)  # rows may be shorter, or have what no title names
            said = {title: short(cell) for title, cell in named if title and cell}
            said.pop(titles[at], None)
            found[cells[at].casefold()] = said
    return found
