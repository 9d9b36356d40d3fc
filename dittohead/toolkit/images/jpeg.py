"""Read the segments of a JPEG."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

#: Segments that are looked at: a hostile file may have millions.
_MOST = 10_000

_FILL, _SCAN = 0xFF, 0xDA


def segments(fd: int) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, where its content begins, bytes of its content) of each segment before the first scan.

    Ends where something else than a segment stands. Source: ITU T.81, annex B.

    Raises: struct.error: the file ends within a segment's head.
    """
    at = 2
    for _ in range(_MOST):
        lead, marker, size = struct.unpack(">BBH", os.pread(fd, 4, at))
        if marker == _FILL:  # any marker may be preceded by any number of these
            at += 1
            continue
        if lead != 0xFF or marker == _SCAN:
            return
        yield marker, at + 4, max(size - 2, 0)
        at += size + 2
