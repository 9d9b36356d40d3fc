"""How many pixels an image has to the inch: as its file says, or none; never one that is invented.

libvips gives every image a resolution: 72 dpi to a JPEG or PNG that says none, 25.4 dpi to others; and
libexif puts 72 dpi into every EXIF block without one. So what the file itself says is read here.

Source: TIFF 6.0 section 8 and EXIF 2.32, 4.6.4 (XResolution, YResolution, ResolutionUnit); JFIF 1.02
(density); PNG 3rd edition, 11.3.4.3 (pHYs).
"""

from __future__ import annotations

import os
import struct
import zlib

from dittohead.toolkit.images import tags, tiff
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.reasons import RefusedImage

_MM = 25.4  #: of an inch

_ACROSS, _DOWN, _UNIT = 282, 283, 296

#: Pixels per mm of one per unit, by TIFF's and by JFIF's number of it: inch, centimetre.
_OF_TIFF, _OF_JFIF = {2: 1 / _MM, 3: 1 / 10}, {1: 1 / _MM, 2: 1 / 10}

_RATIONAL, _FLOAT, _DOUBLE = 5, 11, 12

#: Chunks of a PNG that are looked at.
_MOST = 1000

Known = tuple[float, float] | None  #: pixels per mm across and down, None where nobody says


def of(fd: int, image: pyvips.Image, page: int = 1) -> Known:
    """Return the pixels per mm (across, down); None when the file says nothing, or nothing sensible.

    Args:
        fd: an open descriptor of the file; its offset stays.
        image: the same file, as libvips has loaded it.
        page: the page's number in the file, from 1.
    """
    loader = image.get("vips-loader")
    try:
        if loader == "tiffload":
            return _of_directory(fd, tiff.of_page(fd, page))
        if loader == "jpegload":
            return _by_exif(image) or _of_jfif(fd)
        if loader == "pngload":
            return _of_phys(fd) or _by_exif(image)
        if loader in ("webpload", "heifload", "jxlload"):
            return _by_exif(image)
    except (RefusedImage, struct.error, OverflowError):
        return None
    here = (image.xres, image.yres)
    return None if here == (1.0, 1.0) else _sensible(*here)


def _sensible(across: float, down: float) -> Known:
    """Return a resolution, None for one that is zero, less, no number or beyond all measure."""
    return (across, down) if all(0 < value < 1e6 for value in (across, down)) else None


def _of_directory(fd: int, fields: dict[int, tiff.Field]) -> Known:
    across, down = (_number(fd, fields.get(tag)) for tag in (_ACROSS, _DOWN))
    unit = tiff.number(fd, fields.get(_UNIT)) if _UNIT in fields else 2
    per = _OF_TIFF.get(unit, 0.0)
    return _sensible(across * per, down * per)


def _number(fd: int, field: tiff.Field | None) -> float:
    """Return a field's number, 0 for none, and for a fraction of nothing."""
    if field is None or field.kind not in (_RATIONAL, _FLOAT, _DOUBLE):
        return float(tiff.number(fd, field))
    layout, size = tiff.layout_of(fd), tiff.SIZES[field.kind]
    inline = size <= len(field.value)
    data = field.value if inline else tiff.piece(fd, size, struct.unpack(layout.offset, field.value)[0])
    if field.kind != _RATIONAL:
        return float(struct.unpack_from(layout.order + ("f" if field.kind == _FLOAT else "d"), data)[0])
    above, below = struct.unpack_from(layout.order + "II", data)
    return float(above / below) if below else 0.0


def _by_exif(image: pyvips.Image) -> Known:
    if not image.get_typeof("exif-data"):
        return None
    block = os.memfd_create("exif")
    try:
        os.write(block, bytes(image.get("exif-data")).removeprefix(b"Exif\0\0"))
        return _of_directory(block, tiff.of_page(block, 1))
    finally:
        os.close(block)


def _of_jfif(fd: int) -> Known:
    head = os.pread(fd, 18, 2)
    if head[:2] != b"\xff\xe0" or head[4:9] != b"JFIF\0":
        return None
    unit, across, down = struct.unpack_from(">BHH", head, 11)
    per = _OF_JFIF.get(unit, 0.0)
    return _sensible(across * per, down * per)


def _of_phys(fd: int) -> Known:
    at = 8
    for _ in range(_MOST):
        size, kind = struct.unpack(">I4s", os.pread(fd, 8, at))
        if kind == b"pHYs":
            across, down, unit = struct.unpack(">IIB", os.pread(fd, 9, at + 8))
            return _sensible(across / 1000, down / 1000) if unit == 1 else None
        if kind in (b"IDAT", b"IEND"):
            return None
        at += size + 12
    return None


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
    # pHYs holds two numbers and a unit; 0: only a shape.
    at = 8
    while len(head := os.pread(fd, 8, at)) == 8:
        size, kind = struct.unpack(">I4s", head)
        content = b""
        if kind == b"pHYs":
            content = struct.pack(">IIB", 1, 1, 0)
        elif kind == b"eXIf":
            content = tags.without_resolution(os.pread(fd, size, at + 8))
        if content:
            chunk = kind + content
            os.pwrite(fd, chunk + struct.pack(">I", zlib.crc32(chunk)), at + 4)
        at += size + 12
