"""What a preservation master may be made of: images that JPEG 2000 holds without any change.

The table is in docs/images.md. An image that is not on it is sound all the same: it is refused, or kept
as it is.
"""

from __future__ import annotations

import os
import struct

from dittohead.images import colour, jp2, loading, tiff
from dittohead.images.library import pyvips
from dittohead.images.reasons import Refused, Unfit

#: Tags of TIFF: NewSubfileType, Compression, SamplesPerPixel, SubIFDs, ExtraSamples, SampleFormat;
#: Photoshop's ImageSourceData (layers).
_KIND, _COMPRESSION, _SAMPLES, _SUB, _EXTRA, _FORMAT, _LAYERS = 254, 259, 277, 330, 338, 339, 37724

#: Of NewSubfileType: bit 0 is a smaller copy of another image.
_SMALLER = 1

_MIN_IS_BLACK, _RGB, _YCBCR, _JPEG = 1, 2, 6, 7

#: What TIFF's ExtraSamples is in JPEG 2000.
_OPACITY = {0: jp2.UNSPECIFIED, 2: jp2.OPACITY}

#: ExtraSamples: alpha that colours are multiplied by; libvips divides them by it, and rounds.
_ASSOCIATED = 1

#: Bits of a sample that libvips reads from a TIFF.
_DEPTHS = frozenset({0, 1, 2, 4, 8, 16, 32})

#: Of SampleFormat: floating-point numbers, of which libvips reads those of 32 bits.
_FLOAT = 3

#: Directories of a TIFF that are looked at.
_MOST = 10_000


def odd_samples(fd: int) -> str:
    """Return in words what the samples of a TIFF are where libvips does not read them, "" where it does."""
    bits, _ = tiff.sample(fd, 1) if _is_tiff(fd) else (0, False)
    if bits == 16 and _number(fd, tiff.of_page(fd, 1).get(_FORMAT)) == _FLOAT:
        return "its samples are floating-point numbers of 16 bits"
    return "" if bits in _DEPTHS else f"its samples have {bits} bits"


def see_pages(fd: int, pages: str, count: int, wanted: int) -> None:
    """See that no page is left out that nobody asked to leave out.

    Args:
        fd: the source.
        pages: the option.
        count: pages as `loading` counts them.
        wanted: how many of them become masters.

    Raises: Unfit.
    """
    there = max(count, _pages_of_tiff(fd))
    if pages in ("first", "all") and there > wanted:
        more = "set pages: all" if pages == "first" and count == there else "they are of unlike sizes"
        raise Unfit(f"it has {there} pages, and {wanted} would become a master; {more}")


def _pages_of_tiff(fd: int) -> int:
    """Return how many images of a TIFF are no smaller copies of others."""
    try:
        found = 0
        for number, fields in enumerate(tiff.fields(fd) if _is_tiff(fd) else ()):
            found += not _number(fd, fields.get(_KIND)) & _SMALLER
            if number > _MOST:
                break
    except (Refused, struct.error, OverflowError):
        return 0
    return found


def _is_tiff(fd: int) -> bool:
    return os.pread(fd, 4, 0) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _number(fd: int, field: tiff.Field | None) -> int:
    """Return a field's first value, 0 when there is none."""
    found = tiff.numbers(fd, field) if field else []
    return found[0] if found else 0


def see_fit(fd: int, page: int, image: pyvips.Image, changes: list[str]) -> None:
    """See that JPEG 2000 holds a page as it is.

    Args:
        fd: the source.
        page: counted from 1.
        image: as it would be written.
        changes: made to it by then, those of loading among them.

    Raises: Unfit.
    """
    if changes:
        raise Unfit(f"it would be changed ({'; '.join(changes)})")
    bits, _ = loading.sample(fd, image, page)
    if image.get("vips-loader") == "jp2kload" and bits not in (8, 16):
        raise Unfit("its components have unlike depths, or depths that are not told")
    icc = colour.profile(image)
    if icc and not (jp2.embeddable(icc) and colour.usable(icc, colour.SPACES.get(image.interpretation, b""))):
        raise Unfit("its ICC profile is none that JP2 may hold (of grey, or of RGB by a matrix)")
    if _is_tiff(fd):
        _see_tiff(fd, tiff.of_page(fd, page))


def _see_tiff(fd: int, fields: dict[int, tiff.Field]) -> None:
    meaning, compression = (_number(fd, fields.get(tag)) for tag in (tiff.PHOTOMETRIC, _COMPRESSION))
    if meaning not in (_MIN_IS_BLACK, _RGB) and (meaning, compression) != (_YCBCR, _JPEG):
        kinds = {0: "white is 0 in it (WhiteIsZero)", _YCBCR: "its colours are YCbCr, not coded by JPEG"}
        raise Unfit(kinds.get(meaning, f"its colours are of kind {meaning} (PhotometricInterpretation)"))
    depths = set(tiff.numbers(fd, fields[tiff.BITS])) if tiff.BITS in fields else {1}
    if len(depths) != 1:
        raise Unfit("its samples have unlike depths")
    if _number(fd, fields.get(_KIND)) & _SMALLER:
        raise Unfit("it says of itself that it is a smaller copy of another image in the file")
    extra = tiff.numbers(fd, fields[_EXTRA]) if _EXTRA in fields else []
    colours = (_number(fd, fields.get(_SAMPLES)) or 1) - len(extra)
    if colours != (1 if meaning == _MIN_IS_BLACK else 3):
        raise Unfit(f"it has {colours} bands of {'grey' if meaning == _MIN_IS_BLACK else 'colour'}")
    if len(extra) > 1:
        raise Unfit(f"it has {len(extra)} bands that are no colour")
    if extra == [_ASSOCIATED]:
        raise Unfit("its colours are multiplied by its alpha, which reading it would undo")
    if _LAYERS in fields:
        raise Unfit("it holds Photoshop's layers")
    for at in tiff.numbers(fd, fields[_SUB]) if _SUB in fields else ():
        if not _number(fd, next(tiff.fields(fd, at)).get(_KIND)) & _SMALLER:
            raise Unfit("it holds another image within (SubIFDs)")


def opacity(fd: int, page: int) -> int:
    """Return what the band of a page that is no colour is, as JPEG 2000 numbers it (cdef)."""
    extra = tiff.of_page(fd, page).get(_EXTRA)
    return _OPACITY.get(_number(fd, extra), jp2.UNSPECIFIED) if extra else jp2.OPACITY
