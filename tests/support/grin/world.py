"""What a simulated GRIN knows of a library's volumes, on a clock that only a test moves.

Source of all of it: what public clients of GRIN do with it (docs/simulators.md says what of it is read and
what assumed): nobody outside its partners reaches it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.support.grin.archives import unreadable

_WHEN = "%Y/%m/%d %H:%M"

#: Columns with mode=all, without a header. Source: Princeton's siphon.
COLUMNS = {
    "_all_books": ("barcode", "scanned", "processed", "analyzed", "converted", "ocrd", "link"),
    "_available": ("barcode", "scanned", "processed", "analyzed", "ocrd", "link"),
    "_in_process": ("barcode", "scanned", "processed", "analyzed", "ocrd", "link"),
    "_converted": ("file", "scanned", "converted", "downloaded", "link"),
    "_failed": (
        "barcode", "scanned", "processed", "analyzed", "failed", "info", "ocrd", "detail", "link",
    ),
}  # fmt: skip

#: The same columns as the HTML pages call them.
TITLES = {
    "barcode": "Barcode",
    "file": "Filename",
    "scanned": "Scanned",
    "processed": "Processed",
    "analyzed": "Analyzed",
    "converted": "Converted",
    "ocrd": "OCR'd",
    "downloaded": "Downloaded",
    "failed": "Convert Failed Date",
    "info": "Convert Failed Info",
    "detail": "Detailed Conversion Info",
    "link": "Google Books",
}


@dataclass
class Book:
    """One volume."""

    barcode: str
    state: str = "available"  #: checked_in, available, in_process, converted, failed, forbidden, other
    file: str = ""
    archive: bytes | None = None
    dates: dict[str, str] = field(default_factory=dict)
    info: str = ""
    details: tuple[str, ...] = ("CHECKED_IN", "VIEW_FULL", "", "b123")


@dataclass
class World:
    """The library's place at GRIN."""

    library: str = "LIB"
    now: datetime = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
    books: dict[str, Book] = field(default_factory=dict)
    in_process: list[str] = field(default_factory=list)
    converted: list[str] = field(default_factory=list)  #: barcodes, the oldest first
    queue_limit: int = 50_000
    pool: int = 5_000  #: converted volumes that are kept
    prefix: bool = False  #: whether files are called LIB_BARCODE
    failing: set[str] = field(default_factory=set)  #: barcodes that cannot be converted
    noise: list[str] = field(default_factory=list)  #: lines in _all_books that are not books of ours
    asked: Counter[str] = field(default_factory=Counter)  #: barcode -> how often its conversion was asked for
    asked_in_process: Counter[str] = field(default_factory=Counter)  #: of these, while it was in process
    bulk: int = 0  #: so many more volumes stand in _all_books, made as they are listed

    def add(self, *barcodes: str, state: str = "available") -> None:
        for barcode in barcodes:
            scanned = (self.now - timedelta(days=30)).strftime(_WHEN)
            book = self.books[barcode] = Book(barcode, dates={"scanned": scanned, "processed": scanned})
            if state == "converted":
                self._convert(book)
            else:
                book.state = state
                if state == "in_process":
                    self.in_process.append(barcode)

    def _convert(self, book: Book) -> None:
        book.state = "converted"
        book.dates["converted"] = self.now.strftime(_WHEN)
        book.file = (f"{self.library}_" if self.prefix else "") + f"{book.barcode}.tar.gz.gpg"
        if book.archive is None:
            book.archive = unreadable(book.barcode)
        self.converted.append(book.barcode)
        while len(self.converted) > self.pool:
            self.evict(self.converted[0])

    def evict(self, barcode: str) -> None:
        """Let a converted volume leave the pool."""
        self.converted.remove(barcode)
        self.books[barcode].state = "available"

    def tick(self, hours: float = 1, most: int = 1_000_000) -> None:
        """Let time pass: so many of those in process come to their end."""
        self.now += timedelta(hours=hours)
        for barcode in self.in_process[:most]:
            self.in_process.remove(barcode)
            book = self.books[barcode]
            if barcode in self.failing:
                book.state, book.info = "failed", "Page images could not be read"
                book.dates["failed"] = self.now.strftime(_WHEN)
            else:
                self._convert(book)

    def again(self, barcode: str, archive: bytes) -> None:
        """Convert a volume once more: another archive, another ETag."""
        book = self.books[barcode]
        if barcode in self.converted:
            self.converted.remove(barcode)
        book.archive = archive
        self._convert(book)

    def process(self, barcode: str) -> str:
        """Ask for a conversion; return the status that `_process` says."""
        self.asked[barcode] += 1
        book = self.books.get(barcode)
        if book is None or book.state == "other":
            return "Other error"
        if book.state in ("forbidden", "checked_in"):
            return "Not allowed to be downloaded"
        if book.state == "in_process":
            self.asked_in_process[barcode] += 1
            return "Already being converted"
        if book.state == "converted":
            return "Already available for download"
        book.state = "in_process"
        self.in_process.append(barcode)
        return "Success"

    def rows(self, name: str, since: str = "", until: str = "") -> Iterator[dict[str, str]]:
        """Yield the rows of a list: column -> text."""
        if name == "_in_process":
            chosen = [self.books[barcode] for barcode in self.in_process]
        elif name == "_converted":
            chosen = [self.books[barcode] for barcode in self.converted]
        elif name == "_all_books":
            chosen = list(self.books.values())
        else:
            chosen = [book for book in self.books.values() if book.state == name.removeprefix("_")]
        for book in chosen:
            day = book.dates.get("scanned", "")[:10].replace("/", "-")
            if (since and day < since) or (until and day > until):
                continue
            link = f"https://books.google.com/books?vid={self.library}{book.barcode}"
            yield {
                "barcode": book.barcode, "file": book.file, "link": link, "info": book.info, **book.dates,
            }  # fmt: skip
        if name == "_all_books" and not since:
            yield from ({"barcode": line} for line in self.noise)
            yield from ({"barcode": f"3{number:013}"} for number in range(self.bulk))

    def by_file(self, file: str) -> Book | None:
        """Return the converted volume of a file; None: 404."""
        for barcode in self.converted:
            if self.books[barcode].file == file:
                return self.books[barcode]
        return None


def etag(archive: bytes) -> str:
    """Return an archive's ETag, quoted."""
    return f'"{hashlib.md5(archive).hexdigest()}"'
