"""What a preservation master may be made of: images that JPEG 2000 holds without any change.

The table is in docs/images.md. An image that is not on it is sound all the same: it is refused, or kept
as it is.
"""

from __future__ import annotations

from dittohead.toolkit.images import colour, jp2, loading, pages, tiff
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.reasons import Unfit

#: Tags of TIFF: NewSubfileType, Compression, SamplesPerPixel, ExtraSamples, SampleFormat;
#: Photoshop's ImageSourceData (layers).
_KIND, _COMPRESSION, _SAMPLES, _EXTRA, _FORMAT, _LAYERS = 254, 259, 277, 338, 339, 37724

#: Of NewSubfileType: bit 0 is a smaller copy of another image.
_SMALLER = 1

_MIN_IS_BLACK, _RGB, _YCBCR, _JPEGS = 1, 2, 6, (6, 7)

#: What TIFF's ExtraSamples is in JPEG 2000.
_OPACITY = {0: jp2.UNSPECIFIED, 2: jp2.OPACITY}

#: ExtraSamples: alpha that colours are multiplied by; libvips divides them by it, and rounds.
_ASSOCIATED = 1

#: Bits of a sample that libvips reads from a TIFF.
_DEPTHS = frozenset({0, 1, 2, 4, 8, 16, 32})

#: Of SampleFormat: floating-point numbers, of which libvips reads those of 32 bits.
_FLOAT = 3


def odd_samples(fd: int) -> str:
    """Return in words what the samples of a TIFF are where libvips does not read them, "" where it does."""
    bits, _ = tiff.sample(fd, 1) if tiff.is_tiff(fd) else (0, False)
    if bits == 16 and tiff.number(fd, tiff.of_page(fd, 1).get(_FORMAT)) == _FLOAT:
        return "its samples are floating-point numbers of 16 bits"
    return "" if bits in _DEPTHS else f"its samples have {bits} bits"


def see_pages(wanted: str, count: int) -> None:
    """See that no page is left out that nobody asked to leave out.

    Args:
        wanted: the option `pages`.
        count: pages that there are.

    Raises: Unfit.
    """
    if wanted == "first" and count > 1:
        raise Unfit(f"it has {count} pages, and 1 would become a master; set pages: all")


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
    if icc and not colour.embeddable(icc):
        raise Unfit("its ICC profile is none that JP2 may hold (of grey, or of RGB by a matrix)")
    if tiff.is_tiff(fd):
        _see_tiff(fd, tiff.of_page(fd, page))
        for name in pages.besides(fd, page):
            raise Unfit(f"it holds what would be left out: {name}")


def _see_tiff(fd: int, fields: dict[int, tiff.Field]) -> None:
    meaning, compression = (tiff.number(fd, fields.get(tag)) for tag in (tiff.PHOTOMETRIC, _COMPRESSION))
    if meaning not in (_MIN_IS_BLACK, _RGB) and (meaning != _YCBCR or compression not in _JPEGS):
        kinds = {0: "white is 0 in it (WhiteIsZero)", _YCBCR: "its colours are YCbCr, not coded by JPEG"}
        raise Unfit(kinds.get(meaning, f"its colours are of kind {meaning} (PhotometricInterpretation)"))
    depths = set(tiff.numbers(fd, fields[tiff.BITS])) if tiff.BITS in fields else {1}
    if len(depths) != 1:
        raise Unfit("its samples have unlike depths")
    if tiff.number(fd, fields.get(_KIND)) & _SMALLER:
        raise Unfit("it says of itself that it is a smaller copy of another image in the file")
    extra = tiff.numbers(fd, fields[_EXTRA]) if _EXTRA in fields else []
    colours = (tiff.number(fd, fields.get(_SAMPLES)) or 1) - len(extra)
    if colours != (1 if meaning == _MIN_IS_BLACK else 3):
        raise Unfit(f"it has {colours} bands of {'grey' if meaning == _MIN_IS_BLACK else 'colour'}")
    if len(extra) > 1:
        raise Unfit(f"it has {len(extra)} bands that are not colour")
    if extra == [_ASSOCIATED]:
        raise Unfit("its colours are multiplied by its alpha, which reading it would undo")
    if _LAYERS in fields:
        raise Unfit("it holds Photoshop's layers")


def opacity(fd: int, page: int) -> int:
    """Return what the band of a page that is not a colour is, as JPEG 2000 numbers it (cdef)."""
    extra = tiff.of_page(fd, page).get(_EXTRA)
    return _OPACITY.get(tiff.number(fd, extra), jp2.UNSPECIFIED) if extra else jp2.OPACITY
