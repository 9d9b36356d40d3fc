"""Which pages a file has, by what it says of each of its images; sizes alone say nothing.

Source: TIFF 6.0 section 8 (NewSubfileType, SubfileType, PageNumber), Adobe PageMaker 6.0 TIFF Technical
Notes (SubIFDs), DNG 1.7 (previews). Of other formats libvips tells how many there are: a HEIF's items
that are neither thumbnails nor auxiliary images, a GIF's frames, a PDF's pages.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from dittohead.toolkit.images import tiff
from dittohead.toolkit.images.reasons import RefusedImage, Unfit

_NEW_KIND, _WIDTH, _HEIGHT, _OLD_KIND, _SUB, _DNG = 254, 256, 257, 255, 330, 50706

#: Bits of NewSubfileType; SubfileType's word for a smaller copy.
_SMALLER, _MASK, _OLD_SMALLER = 1, 4, 2

#: PhotometricInterpretation of what a camera's sensor saw: CFA, LinearRaw.
_RAW = frozenset({32803, 34892})

#: Directories, and images within one, that are looked at.
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Directory:
    """What a directory of a TIFF says of its image."""

    width: int
    height: int
    smaller: bool  #: it is a smaller copy of another image
    mask: bool  #: it tells which parts of another image are seen
    raw: bool  #: its pixels are a sensor's
    within: tuple[int, ...] = ()  #: where the directories of the images within it are

    def copies(self, other: Directory) -> bool:
        """Tell whether this can be the smaller copy of another that it says it is."""
        return self is not other and self.width <= other.width and self.height <= other.height


def numbers(fd: int, counted: int) -> list[int]:
    """Return where the pages of a file stand among its images, counted from 1.

    Args:
        fd: the file.
        counted: how many images libvips finds.

    Raises: RefusedImage: pages are missing; Unfit: the picture is none of those that can be read.
    """
    found = _directories(fd)
    if not found:
        return list(range(1, counted + 1))
    if len(found) > counted:
        raise Unfit(f"it has {len(found)} images, of which {counted} can be read")
    own = [each for each in found if not (each.smaller or each.mask)]
    if not own and (hidden := [one for each in found for one in _within(fd, each) if not one.smaller]):
        raise Unfit(_hidden(fd, hidden))
    # What says that it is a smaller copy, and is larger than any page, is a page: no picture is lost.
    pages = own or [max(found, key=lambda each: each.width * each.height)]
    return [
        number
        for number, each in enumerate(found, start=1)
        if each in pages or (each.smaller and not each.mask and not any(each.copies(page) for page in pages))
    ]


def _hidden(fd: int, hidden: list[Directory]) -> str:
    if any(one.raw for one in hidden):
        return "its picture is a camera's raw data, and what can be read is a smaller copy"
    return "its picture lies within a smaller copy (SubIFDs), and only that copy can be read"


def besides(fd: int, page: int) -> Iterator[str]:
    """Yield the names of a page's images that are neither pages nor smaller copies."""
    found = _directories(fd)
    for each in found[page - 1 : page]:
        if any(not one.smaller for one in _within(fd, each)):
            yield "another image within (SubIFDs)"
    # A mask stands somewhere behind its page.
    following = itertools.takewhile(lambda each: each.smaller or each.mask, found[page:])
    if any(each.mask for each in following):
        yield "transparency mask"


def _directories(fd: int) -> list[Directory]:
    """Return the directories of a TIFF in their order; [] of no TIFF, and of one that only libtiff reads."""
    if not tiff.is_tiff(fd):
        return []
    try:
        return [_directory(fd, fields) for fields in itertools.islice(tiff.fields(fd), _MOST)]
    except (RefusedImage, struct.error, OverflowError):
        return []


def _within(fd: int, directory: Directory) -> Iterator[Directory]:
    """Yield the images within an image. Raises: RefusedImage."""
    for at in directory.within[:_MOST]:
        yield _directory(fd, next(tiff.fields(fd, at)))


def _directory(fd: int, fields: dict[int, tiff.Field]) -> Directory:
    new, old = tiff.number(fd, fields.get(_NEW_KIND)), tiff.number(fd, fields.get(_OLD_KIND))
    sub = fields.get(_SUB)
    return Directory(
        width=tiff.number(fd, fields.get(_WIDTH)),
        height=tiff.number(fd, fields.get(_HEIGHT)),
        smaller=bool(new & _SMALLER) or old == _OLD_SMALLER,
        mask=bool(new & _MASK),
        raw=tiff.number(fd, fields.get(tiff.PHOTOMETRIC)) in _RAW,
        within=tuple(tiff.numbers(fd, sub)) if sub else (),
    )
