"""Find the IPTC of an image, whichever file it stands in, and wrap it for another.

Source: IPTC-NAA IIM 4.2, 1.6 (datasets begin with 0x1C); Adobe Photoshop File Formats Specification, "Image
Resource Blocks" (8BIM, 0x0404: IPTC); XMP Specification Part 3, 1.1.3 (JPEG APP13, TIFF tag 33723).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from dittohead.toolkit.images import jpeg, tiff
from dittohead.toolkit.images.jp2_structure import boxes
from dittohead.toolkit.images.reasons import RefusedImage

#: Of the box in which JPEG 2000 holds it, as ExifTool reads and writes it.
UUID = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")

#: Of a TIFF.
TAG, _PHOTOSHOP_TAG = 33723, 34377

_MARK = b"Photoshop 3.0\0"
_RESOURCE = b"8BIM"
_IPTC = 0x0404

#: What begins a dataset.
_DATASET = b"\x1c"

#: What one segment of a JPEG holds of it: a length of 16 bits, less itself, the mark and the resource's head.
JPEG_MOST = 0xFFFF - 2 - len(_MARK) - 12


def of(fd: int, page: int = 1) -> bytes:
    """Return the datasets of a file or a page of a TIFF, b"" for none; without fillings behind the last."""
    head = os.pread(fd, 12, 0)
    try:
        if head[:3] == b"\xff\xd8\xff":
            return _in_resources(b"".join(_segments(fd)))
        if head == b"\0\0\0\x0cjP  \r\n\x87\n":
            return _of_jp2(fd)
        fields = tiff.of_page(fd, page)
        own, around = (tiff.raw(fd, fields[tag]) if tag in fields else b"" for tag in (TAG, _PHOTOSHOP_TAG))
        return _clean(own) or _in_resources(around)
    except (RefusedImage, struct.error, OverflowError):
        return b""


def has_more(fd: int) -> bool:
    """Tell whether a JPEG holds resources of Photoshop's besides IPTC. Raises: struct.error."""
    return any(number != _IPTC for number, _ in _resources(b"".join(_segments(fd))))


def is_in_one_piece(fd: int) -> bool:
    """Tell whether a JPEG's resources are in one segment, as libvips carries them."""
    try:
        return len(list(_segments(fd))) == 1
    except struct.error:
        return False


def for_jpeg(datasets: bytes) -> bytes:
    """Return the content of a JPEG's APP13."""
    head = _RESOURCE + struct.pack(">HxxI", _IPTC, len(datasets))
    return _MARK + head + datasets + bytes(len(datasets) % 2)


def _clean(data: bytes) -> bytes:
    return data.rstrip(b"\0") if data.startswith(_DATASET) else b""


def _of_jp2(fd: int) -> bytes:
    for box in boxes(fd, 0, os.fstat(fd).st_size):
        if box.kind == b"uuid" and os.pread(fd, 16, box.at) == UUID:
            return _clean(os.pread(fd, box.end - box.at - 16, box.at + 16))
    return b""


def _segments(fd: int) -> Iterator[bytes]:
    """Yield the pieces of Photoshop's resources in a JPEG. Raises: struct.error."""
    for marker, at, size in jpeg.segments(fd):
        if marker == 0xED:
            content = os.pread(fd, size, at)
            if content.startswith(_MARK):
                yield content[len(_MARK) :]


def _in_resources(data: bytes) -> bytes:
    """Return the IPTC among Photoshop's resources. Raises: struct.error."""
    return next((_clean(content) for number, content in _resources(data) if number == _IPTC), b"")


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (number, content) of each. Raises: struct.error."""
    at = 0
    while data[at : at + 4] == _RESOURCE:
        number, length = struct.unpack_from(">HB", data, at + 4)
        at += 7 + length + (length + 1) % 2  # the name, with its length, is even
        (size,) = struct.unpack_from(">I", data, at)
        yield number, data[at + 4 : at + 4 + size]
        at += 4 + size + size % 2
