"""Write a single image: JPEG or PNG; jp2.py writes JPEG 2000."""

from __future__ import annotations

import os
import struct
import tempfile
from typing import Any

from dittohead.toolkit.images import jp2, tags
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.reasons import RefusedImage
from dittohead.toolkit.images.recipe import JPEG_MOST, ImageRecipe

#: Pixels.
_SMALL = 16_000_000

#: Markers: the begin of the scan, the JFIF header, and where EXIF and XMP lie.
_SCAN, _APP0, _APP1 = 0xFFDA, 0xFFE0, 0xFFE1


def write(
    image: pyvips.Image, made: int, recipe: ImageRecipe, known: tuple[float, float] | None, exif: bytes
) -> None:
    """Write the image to the open file `made`.

    Args:
        image: what the format holds.
        made: open for reading and writing.
        recipe: how.
        known: pixels per mm across and down, None when they are not known.
        exif: a block for the formats to which libvips carries none; PNG is not among them.
    """
    name = f"/proc/self/fd/{made}"
    if recipe.format == "jpeg":
        see_that_jpeg_holds(image)
        _jpeg(image, made, recipe, known, exif)
    else:
        image.pngsave(name)


def _jpeg(
    image: pyvips.Image, made: int, recipe: ImageRecipe, known: tuple[float, float] | None, exif: bytes
) -> None:
    own = bool(image.get_typeof("exif-data"))
    if own and known:
        image.jpegsave(f"/proc/self/fd/{made}", **_options(image, recipe))
        return
    # libvips makes EXIF up, and a resolution where there is none, and leaves the JFIF header out.
    with tempfile.TemporaryFile() as file:
        image.jpegsave(f"/proc/self/fd/{file.fileno()}", **_options(image, recipe))
        jp2.write_all(made, b"\xff\xd8" + _jfif(known) + (b"" if own else _exif(exif)))
        _copy_segments(file.fileno(), made, own=own)


def _jfif(known: tuple[float, float] | None) -> bytes:
    # Source: JFIF 1.02: version, units (1: of an inch, 0: only a shape), Xdensity, Ydensity, no thumbnail.
    across, down = (min(round(value * 25.4), 0xFFFF) for value in known or (0, 0))
    given = (1, across, down) if across and down else (0, 1, 1)
    return struct.pack(">HH5sHBHHBB", _APP0, 16, b"JFIF\0", 0x0102, *given, 0, 0)


def _exif(block: bytes) -> bytes:
    content = b"Exif\0\0" + block
    fits = block and len(content) + 2 <= 0xFFFF  # what does not is named as lost
    return struct.pack(">HH", _APP1, len(content) + 2) + content if fits else b""


def _copy_segments(source: int, made: int, *, own: bool) -> None:
    """Copy a JPEG from its second segment on, but for headers and EXIF; the source's own says no resolution.

    Source: ITU T.81 annex B: segments of a marker and a length before the scan; EXIF 2.3 4.5.4: APP1.
    """
    at = 2
    while True:
        marker, size = struct.unpack(">HH", os.pread(source, 4, at))
        if marker == _SCAN:
            break
        segment = os.pread(source, size + 2, at)
        if marker == _APP1 and segment[4:10] == b"Exif\0\0":
            segment = segment[:10] + tags.without_resolution(segment[10:]) if own else b""
        if marker != _APP0:
            jp2.write_all(made, segment)
        at += size + 2
    while piece := os.pread(source, 1 << 20, at):
        jp2.write_all(made, piece)
        at += len(piece)


def _options(image: pyvips.Image, recipe: ImageRecipe) -> dict[str, Any]:
    # Better Huffman tables are 3 % or so smaller; libjpeg keeps the whole image in memory for them.
    small = image.width * image.height <= _SMALL
    return {**jpeg_options(recipe), "optimize_coding": small}


def jpeg_options(recipe: ImageRecipe) -> dict[str, int | str]:
    """Return libvips' options for a JPEG."""
    return {"Q": recipe.quality, "subsample_mode": recipe.subsampling}


def see_that_jpeg_holds(image: pyvips.Image) -> None:
    """See that a JPEG can be this large. Raises: RefusedImage."""
    if max(image.width, image.height) > JPEG_MOST:
        raise RefusedImage(
            f"{image.width}x{image.height} is more than a JPEG holds ({JPEG_MOST} pixels on a side); "
            "set max_width and max_height, or use format: pyramid-tiff"
        )
