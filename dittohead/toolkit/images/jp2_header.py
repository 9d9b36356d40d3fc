"""Read the main header of a JPEG 2000: how its codestream is coded. Source: ISO/IEC 15444-1, annex A."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from dittohead.toolkit.images.jp2_structure import COD, SIZ, SOC, SOD, SOT, boxes
from dittohead.toolkit.images.reasons import RefusedImage

#: A.6.2: how one component is coded where not as the others.
_COC = 0xFF53


def is_reversible(fd: int) -> bool:
    """Tell whether every component of a JPEG 2000 is coded by the reversible wavelet, 5-3.

    Only then do all decoders give the same samples.
    """
    found = False
    for marker, content in main_header(fd):
        # A.6.1, A.6.2: the wavelet is the last of SPcod's and SPcoc's first five bytes; there may be COC in
        # tiles as well, which a comparison finds.
        if marker == COD:
            found = content[9:10] == b"\1"
        if marker == _COC:
            return False
    return found


def main_header(fd: int) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, content) of a JPEG 2000's main header; nothing of another file or a damaged one."""
    try:
        at = _codestream(fd)
        while at is not None:
            marker, size = struct.unpack(">HH", os.pread(fd, 4, at))
            if marker in (SOT, SOD) or size < 2:
                return
            yield marker, os.pread(fd, size - 2, at + 4)
            at += size + 2
    except (RefusedImage, struct.error):
        return


def _codestream(fd: int) -> int | None:
    """Return where the first segment of a file's first codestream begins."""
    if os.pread(fd, 4, 0) == struct.pack(">HH", SOC, SIZ):
        return 2
    if os.pread(fd, 12, 0) != b"\0\0\0\x0cjP  \r\n\x87\n":
        return None
    return next((box.at + 2 for box in boxes(fd, 0, os.fstat(fd).st_size) if box.kind == b"jp2c"), None)
