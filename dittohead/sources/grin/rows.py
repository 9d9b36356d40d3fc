"""The rows of GRIN's lists: read by a header or by what a cell looks like, never by where it stands.

Public clients disagree on the order of columns, which seems to differ from library to library; lines have no
header. So a cell counts as a date where it is written as one, and as a link where it begins as one. Which
date is which only a header says, or a site's `columns`; without these only the scan is known: it is the
earliest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import parse_qs, urljoin, urlsplit

from dittohead.model.errors import TransientError
from dittohead.model.text import visible
from dittohead.sources.grin.options import ENDING

#: Dates as GRIN writes them, and as a partner's inventory has them.
_DATE = re.compile(r"\d{4}[/-]\d{2}[/-]\d{2}(?: \d{2}:\d{2}(?::\d{2})?)?")

#: A barcode as a key and a folder's name; GRIN's own have letters, digits, ".", "$", "-" and "_".
_BARCODE = re.compile(r"[^\s/\\\x00-\x1f]{1,200}")

#: What a header calls a column -> what we call it.
_TITLES = {
    "barcode": "barcode",
    "filename": "file",
    "file": "file",
    "scanned": "scanned",
    "scanned date": "scanned",
    "processed": "processed",
    "processed date": "processed",
    "analyzed": "analyzed",
    "analyzed date": "analyzed",
    "converted": "converted",
    "converted date": "converted",
    "downloaded": "downloaded",
    "downloaded date": "downloaded",
    "ocr'd": "ocrd",
    "ocr'd date": "ocrd",
    "convert failed date": "failed",
    "convert failed info": "info",
    "detailed conversion info": "detail",
    "google books": "link",
    "google books link": "link",
}

#: Characters of a cell that are kept.
_CELL_MOST = 1000

#: Columns whose text is kept as an attribute of the volume.
_KEPT = ("scanned", "processed", "analyzed", "converted", "downloaded", "ocrd", "failed", "info", "detail")


@dataclass(frozen=True, slots=True)
class VolumeRow:
    """One volume of a list."""

    barcode: str
    file: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


def barcode_of(file: str, library: str) -> str:
    """Return the barcode of an archive's file name: BARCODE.tar.gz.gpg or LIB_BARCODE.tar.gz.gpg."""
    return file.removesuffix(ENDING).removeprefix(f"{library}_")


def of_cells(cells: Sequence[str], columns: Sequence[str], library: str) -> VolumeRow | None:
    """Return a row whose columns are known; None where there is no barcode in it."""
    named = {column: cell.strip() for column, cell in zip(columns, cells, strict=False)}
    return _row(named.get("barcode", ""), named.get("file", ""), named, library)


def of_line(line: str, columns: Sequence[str] | None, library: str) -> VolumeRow | None:
    """Return the row of a line, bare or with tabs; None where it cannot be read.

    Args:
        columns: what a site says of the list, used where the line has as many cells and dates where it says.
    """
    cells = [cell.strip() for cell in line.split("\t")]
    if columns is not None and len(cells) == len(columns) and _fits(cells, columns):
        return of_cells(cells, columns, library)
    first = next((cell for cell in cells if cell and not _DATE.fullmatch(cell) and "://" not in cell), "")
    dates = sorted(cell.replace("-", "/") for cell in cells if _DATE.fullmatch(cell))
    named = {"scanned": dates[0]} if dates else {}
    is_file = first.endswith(ENDING)
    return _row("" if is_file else first, first if is_file else "", named, library)


def _fits(cells: Sequence[str], columns: Sequence[str]) -> bool:
    words = ("barcode", "file", "link", "info", "detail")
    return all(
        not cell or column in words or _DATE.fullmatch(cell)
        for cell, column in zip(cells, columns, strict=True)
    )


def _row(barcode: str, file: str, named: dict[str, str], library: str) -> VolumeRow | None:
    barcode = barcode_of(file, library) if file else barcode_of(barcode, library)
    # Bytes that are not text would make a name that nobody can ask GRIN for.
    if not _BARCODE.fullmatch(barcode) or barcode.startswith(".") or not f"{barcode}{file}".isprintable():
        return None
    kept = {name: _text(named[name]) for name in _KEPT if named.get(name)}
    return VolumeRow(barcode, file, kept)


def _text(cell: str) -> str:
    """Return what a cell says, for people: no control characters, and not without end."""
    return visible(cell[:_CELL_MOST])


@dataclass
class ListPage:
    """A page of a list as people see it."""

    rows: list[VolumeRow]
    unread: int  #: rows without a barcode
    following: str  #: the address of the next page; "" on the last
    has_header: bool


def of_page(text: str, address: str, library: str) -> ListPage:
    """Return what a page of HTML holds."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    columns = [_TITLES.get(" ".join(title.lower().split()), "") for title in reader.titles]
    found = [of_cells(cells, columns, library) for cells in reader.cells]
    rows = [row for row in found if row is not None]
    following = next(_next_links(reader.links, address), "")
    return ListPage(rows, len(found) - len(rows), following, bool({"barcode", "file"} & set(columns)))


def _next_links(links: Sequence[tuple[str, str]], address: str) -> Iterator[str]:
    """Yield the addresses of next pages. Raises: TransientError: a link to one leads nowhere."""
    for text, link in links:
        if not text.strip().lower().startswith("next"):
            continue
        try:
            asked = parse_qs(urlsplit(link).query)
            if "first" in asked or "ctoken" in asked:
                yield urljoin(address, link)
        except ValueError:
            raise TransientError("the link to GRIN's next page is not an address") from None


class _Reader(HTMLParser):
    """Cells of table rows, titles of the row that is a heading, links with their text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.titles: list[str] = []
        self.cells: list[list[str]] = []
        self.links: list[tuple[str, str]] = []
        self._row: list[str] | None = None
        self._heading = False
        self._cell: list[str] | None = None
        self._link: tuple[str, list[str]] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "tr":
            self._row, self._heading = [], "heading" in given.get("class", "").split()
        elif tag in ("td", "th") and self._row is not None:
            self._cell = []
        elif tag == "a" and given.get("href"):
            self._link = (given["href"], [])

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)
        if self._link is not None:
            self._link[1].append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None and self._row is not None:
            self._row.append(" ".join("".join(self._cell).split()))
            self._cell = None
        elif tag == "a" and self._link is not None:
            self.links.append((" ".join("".join(self._link[1]).split()), self._link[0]))
            self._link = None
        elif tag == "tr" and self._row is not None:
            if self._heading:
                self.titles = self._row
            elif self._row:
                self.cells.append(self._row)
            self._row = None
