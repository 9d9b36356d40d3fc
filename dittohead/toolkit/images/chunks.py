"""Give libvips a PNG without the texts that are too many for it.

libspng, by which libvips reads PNGs in Debian 13, stores a thousand chunks and refuses a file of more,
whatever it is asked. No pixel depends on them; what is left out is told as all that a result does not carry.

Source: PNG 3rd edition, 5.3 to 5.6; spng.h of libspng 0.7.4, SPNG_CHUNK_COUNT_LIMIT.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator

#: Chunks of kinds that may be repeated which a file keeps; libspng stores some others too.
MOST = 900

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: Ancillary chunks that stand in a file once, or are not stored. APNG's are among its further images.
_OTHERS = frozenset(
    (
        b"cHRM",
        b"gAMA",
        b"iCCP",
        b"sBIT",
        b"sRGB",
        b"bKGD",
        b"hIST",
        b"tRNS",
        b"pHYs",
        b"eXIf",
        b"tIME",
        b"cICP",
    )
)

#: A chunk that is read wherever it stands.
_XMP = b"iTXtXML:com.adobe.xmp\0"

#: Bytes copied at once.
_PIECE = 1 << 20

#: The copy that was made last, and of which file: one is read at a time, several times over.
_copies: dict[tuple[int, ...], int] = {}


def readable(fd: int) -> int:
    """Return a descriptor for libvips: the file's own, or that of a copy without the chunks beyond `MOST`.

    The copy has no name and lies in TMPDIR; it stands until another file needs one.
    Raises: OSError: it has no room.
    """
    if os.pread(fd, len(_SIGNATURE), 0) != _SIGNATURE or _count(fd) <= MOST:
        return fd
    status = os.fstat(fd)
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _copies:
        while _copies:
            os.close(_copies.popitem()[1])
        _copies[key] = _copy(fd)
    return _copies[key]


def _count(fd: int) -> int:
    return sum(repeats for repeats, _, _ in _chunks(fd))


def _copy(fd: int) -> int:
    with tempfile.TemporaryFile() as file:
        left, at = MOST, 0
        for repeats, begins, end in _chunks(fd):
            if repeats:
                left -= 1
                if left < 0:
                    _add(fd, at, begins, file.fileno())
                    at = end
        _add(fd, at, os.fstat(fd).st_size, file.fileno())
        return os.dup(file.fileno())


def _add(fd: int, at: int, end: int, to: int) -> None:
    """Add a part of a file to another."""
    while at < end:
        piece = os.pread(fd, min(_PIECE, end - at), at)
        if not piece:
            return
        at += len(piece)
        while piece:
            piece = piece[os.write(to, piece) :]


def _chunks(fd: int) -> Iterator[tuple[bool, int, int]]:
    """Yield (whether its kind may be repeated, where it begins, where it ends) of each chunk of a PNG."""
    at = len(_SIGNATURE)
    while len(head := os.pread(fd, 8 + len(_XMP) - 4, at)) >= 8:
        size, kind = struct.unpack(">I4s", head[:8])
        end = at + 12 + size
        # Bit 5 of a kind's first byte: ancillary.
        yield bool(kind[0] & 32) and kind not in _OTHERS and head[4:] != _XMP, at, end
        at = end
