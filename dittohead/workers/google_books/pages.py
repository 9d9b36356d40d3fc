"""A volume's files by their names: which belong to which page, which is the METS file, what is missing.

What is known of the names comes from what public clients of GRIN, and HathiTrust's tools, do with them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from dittohead.model.records import Output
from dittohead.toolkit.checksum_lists import named

_PAGE = re.compile(rb"(\d{8})\.(jp2|tif|txt|html)")
_METS = re.compile(rb"(?!\d{8}\.)[^/]+\.xml")
_KIND = {b"jp2": "image", b"tif": "image", b"txt": "text", b"html": "hocr"}

#: Words for people.
_WORDS = {"image": "image", "text": "text", "hocr": "hOCR"}


@dataclass(kw_only=True)
class VolumePage:
    """One page's files; None where there is none."""

    name: str  #: eight digits
    image: Output | None = None
    text: Output | None = None
    hocr: Output | None = None


@dataclass(kw_only=True)
class Volume:
    """What a volume's files are."""

    pages: list[VolumePage] = field(default_factory=list)  #: in the order of their numbers
    mets: list[Output] = field(default_factory=list)
    twice: list[bytes] = field(default_factory=list)  #: second images of a page
    others: list[Output] = field(default_factory=list)  #: what is none of these

    @classmethod
    def of(cls, outputs: Iterable[Output]) -> Volume:
        """Sort a volume's files."""
        volume, pages = cls(), dict[str, VolumePage]()
        for output in outputs:
            found = _PAGE.fullmatch(output.path)
            if found is not None:
                page = pages.setdefault(found[1].decode(), VolumePage(name=found[1].decode()))
                kind = _KIND[found[2]]
                if getattr(page, kind) is not None:
                    volume.twice.append(output.path)
                setattr(page, kind, output)
            else:
                (volume.mets if _METS.fullmatch(output.path) else volume.others).append(output)
        volume.pages = [pages[name] for name in sorted(pages)]
        return volume

    def faults(self, tolerated: Collection[str]) -> list[str]:
        """Return what is wrong with its pages, for people; [] when nothing is.

        Args:
            tolerated: of "no-text", "no-hocr", "empty-text", "empty-hocr".
        """
        if not self.pages:
            return ["it has no pages (no 00000001.jp2 or .tif, .txt and .html)"]
        found = [f"pages with two images ({named(self.twice)})"] if self.twice else []
        for kind, word in _WORDS.items():
            if f"no-{kind}" not in tolerated and (lacking := self.lacking(kind)):
                found.append(f"{len(lacking):,} without {word} ({named(lacking)})")
            if f"empty-{kind}" not in tolerated and (empty := self.empty(kind)):
                found.append(f"{len(empty):,} with an empty {word} file ({named(empty)})")
        if gaps := self._gaps():
            found.append(f"{len(gaps):,} missing in the row of numbers ({named(gaps)})")
        return found

    def lacking(self, kind: str) -> list[bytes]:
        """Return the pages without a file of a kind."""
        return [page.name.encode() for page in self.pages if getattr(page, kind) is None]

    def empty(self, kind: str) -> list[bytes]:
        """Return the files of a kind that are empty."""
        found: list[Output | None] = [getattr(page, kind) for page in self.pages]
        return [output.path for output in found if output is not None and output.size == 0]

    def _gaps(self) -> list[bytes]:
        numbers = {int(page.name) for page in self.pages}
        return [b"%08d" % n for n in range(1, min(max(numbers), 100_000)) if n not in numbers]
