"""Read the directories of a TIFF."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from dittohead.images.reasons import Refused

#: Tags: the sides of a tile.
TILE_WIDTH, TILE_HEIGHT = 322, 323


def directories(fd: int) -> Iterator[dict[int, int]]:
    """Yield {tag: value} of each directory of a TIFF, for tags of one short or long value.

    libvips does not tell how a TIFF is tiled.
    Source: TIFF 6.0 section 2; BigTIFF as in libtiff's documentation.
    """
    head = os.pread(fd, 16, 0)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    count_format, entry, offset = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    (at,) = struct.unpack_from(order + offset, head, 8 if big else 4)
    while at:
        (count,) = struct.unpack(order + count_format, _piece(fd, struct.calcsize(order + count_format), at))
        at += struct.calcsize(order + count_format)
        size = struct.calcsize(order + entry)
        block = _piece(fd, count * size + struct.calcsize(order + offset), at)
        yield {
            tag: struct.unpack_from(order + ("H" if kind == 3 else "I"), value)[0]
            for tag, kind, number, value in struct.iter_unpack(order + entry, block[: count * size])
            if number == 1 and kind in (3, 4)
        }
        (at,) = struct.unpack_from(order + offset, block, count * size)


def _piece(fd: int, size: int, at: int) -> bytes:
    data = os.pread(fd, size, at)
    if len(data) != size:
        raise Refused("the result's directories cannot be read")
    return data
