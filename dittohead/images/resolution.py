"""How many pixels an image has to the inch: the source's own, or none; never one that is invented.

libvips gives every image a resolution: 72 dpi to a JPEG or PNG that says none, 25.4 dpi to others.
It neither reads that in the EXIF of WebP and HEIF.
"""

from __future__ import annotations

import os
import re
import struct
import zlib

from dittohead.images import tiff
from dittohead.images.library import pyvips

_MM = 25.4  #: of an inch

#: Pixels per mm that libvips gives a PNG without any: a true 72 dpi is 2835 pixels per metre.
_OF_PNG = 2.834


def of(image: pyvips.Image) -> tuple[float, float] | None:
    """Return the pixels per mm across and down, None when the file says nothing."""
    loader = image.get("vips-loader")
    here = (image.xres, image.yres)
    if loader in ("webpload", "heifload"):
        return _by_exif(image)
    if loader == "pngload":
        return None if here == (_OF_PNG, _OF_PNG) else here
    if loader in ("tiffload", "jpegload"):
        return here if image.get_typeof("resolution-unit") else None
    return None if here == (1.0, 1.0) else here


def _by_exif(image: pyvips.Image) -> tuple[float, float] | None:
    found = [_ratio(image, f"exif-ifd0-{axis}Resolution") for axis in "XY"]
    unit = _text(image, "exif-ifd0-ResolutionUnit")[:1]
    if None in found or unit not in ("2", "3"):
        return None
    per = _MM if unit == "2" else 10.0
    return (found[0] or 0) / per, (found[1] or 0) / per


def _ratio(image: pyvips.Image, name: str) -> float | None:
    match = re.match(r"(\d+)/(\d+) ", _text(image, name))
    if match is None or not int(match[1]) or not int(match[2]):
        return None
    return int(match[1]) / int(match[2])


def _text(image: pyvips.Image, name: str) -> str:
    return str(image.get(name)) if image.get_typeof(name) else ""


def dpi(known: tuple[float, float]) -> list[float]:
    """Return pixels per mm as pixels per inch, as a receipt gives them."""
    return [round(value * _MM, 2) for value in known]


def remove(fd: int, form: str) -> None:
    """Take the resolution that libvips invented out of a result."""
    if form == "pyramid-tiff":
        tiff.without_resolution(fd)
    elif form == "png":
        _of_png(fd)


def _of_png(fd: int) -> None:
    # Source: PNG section 11.3.5.3: pHYs holds two numbers and a unit; 0: only a shape.
    at = 8
    while len(head := os.pread(fd, 8, at)) == 8:
        size, kind = struct.unpack(">I4s", head)
        if kind == b"pHYs":
            chunk = kind + struct.pack(">IIB", 1, 1, 0)
            os.pwrite(fd, chunk + struct.pack(">I", zlib.crc32(chunk)), at + 4)
            return
        at += size + 12
