"""Write a lossless JPEG 2000 with its ICC profile, XMP and resolution, which libvips leaves out silently.

Source: ISO/IEC 15444-1 annex I (boxes; colr I.5.3.3, res I.5.3.7, uuid I.7.2); the UUID of XMP from
the XMP Specification Part 3, 1.1.5; that of EXIF as cameras and ExifTool write it.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from dittohead.images import colour
from dittohead.images.library import pyvips
from dittohead.images.reasons import Refused

_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF = b"JpgTiffExif->JP2"

_PIECE = 1 << 20


class Box(NamedTuple):
    """One box of a file."""

    kind: bytes
    at: int  #: where its content begins
    end: int


def boxes(fd: int, at: int, end: int) -> Iterator[Box]:
    """Yield the boxes that lie between two places. Raises: Refused."""
    while at + 8 <= end:
        size, kind = struct.unpack(">I4s", os.pread(fd, 8, at))
        start = at + 8
        if size == 1:
            (size,) = struct.unpack(">Q", os.pread(fd, 8, start))
            start += 8
        after = end if size == 0 else at + size
        if not start <= after <= end:
            raise Refused("the result's boxes cannot be read")
        yield Box(kind, start, after)
        at = after


def bits(fd: int) -> int:
    """Return the bits of a sample as a file's header gives them, 0 when it does not."""
    try:
        for box in boxes(fd, 0, os.fstat(fd).st_size):
            for inner in boxes(fd, box.at, box.end) if box.kind == b"jp2h" else ():
                if inner.kind == b"ihdr":
                    (depth,) = os.pread(fd, 1, inner.at + 10)
                    return 0 if depth == 255 else (depth & 127) + 1
    except (Refused, struct.error, ValueError):
        pass
    return 0


def write(image: pyvips.Image, made: int, tile: int, known: tuple[float, float] | None, exif: bytes) -> None:
    """Write the image to the open file `made`: what libvips writes, and the boxes it leaves out."""
    icc = colour.profile(image)
    xmp = bytes(image.get("xmp-data")) if image.get_typeof("xmp-data") else b""
    with tempfile.TemporaryFile() as file:
        bare = file.fileno()
        _see_room(bare, 2 * image.width * image.height * image.bands * (2 if image.format == "ushort" else 1))
        name = f"/proc/self/fd/{bare}"
        image.jp2ksave(name, lossless=True, tile_width=tile, tile_height=tile)
        end = os.fstat(bare).st_size
        for box in boxes(bare, 0, end):
            if box.kind == b"jp2h":
                write_all(made, _box(b"jp2h", _header(bare, box, icc if embeddable(icc) else b"", known)))
            elif box.kind == b"jp2c":
                for uuid, content in ((_XMP, xmp), (_EXIF, exif)):
                    if content:
                        write_all(made, _box(b"uuid", uuid + content))
                _copy(bare, made, box)
            else:
                write_all(made, _box(box.kind, os.pread(bare, box.end - box.at, box.at)))


def _see_room(fd: int, size: int) -> None:
    """See that the disk takes so many bytes: libvips 8.14 never ends when it becomes full."""
    there = os.fstatvfs(fd)
    if there.f_bavail * there.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def embeddable(icc: bytes) -> bool:
    """Tell whether JP2 may hold a profile: of grey or of three colours by matrix."""
    if not icc:
        return False
    tags = {icc[at : at + 4] for at in range(132, min(len(icc), 132 + 1200) - 11, 12)}
    return (icc[16:20], b"rXYZ" in tags or b"kTRC" in tags) in ((b"RGB ", True), (b"GRAY", True))


def write_all(fd: int, data: bytes) -> None:
    """Write data whole: a disk that fills up takes a part of it without an error."""
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:])


def _header(bare: int, header: Box, icc: bytes, known: tuple[float, float] | None) -> bytes:
    made = b""
    for box in boxes(bare, header.at, header.end):
        content = os.pread(bare, box.end - box.at, box.at)
        if box.kind == b"colr" and icc:
            content = struct.pack(">BBB", 2, 0, 0) + icc
        made += _box(box.kind, content)
    return made + (_box(b"res ", _box(b"resc", _resolution(known))) if known else b"")


def _resolution(known: tuple[float, float]) -> bytes:
    # Pixels per metre as a fraction of 16 bits each and a power of ten; down comes before across.
    across, down = (_fraction(value * 1000) for value in known)
    return struct.pack(">HHHHbb", down[0], down[1], across[0], across[1], down[2], across[2])


def _fraction(value: float) -> tuple[int, int, int]:
    power = 0
    while value >= 6553.5:
        value, power = value / 10, power + 1
    return round(value * 10), 10, power


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def _copy(bare: int, made: int, box: Box) -> None:
    """Copy the codestream; its length is left open, as the last box's may be."""
    write_all(made, struct.pack(">I4s", 0, b"jp2c"))
    at = box.at
    while at < box.end:
        piece = os.pread(bare, min(_PIECE, box.end - at), at)
        write_all(made, piece)
        at += len(piece)


def carried(fd: int) -> tuple[bytes, bytes, bytes]:
    """Return the ICC profile, the XMP and the EXIF block of a file, b"" for what it does not have."""
    icc, found = b"", {_XMP: b"", _EXIF: b""}
    for box in boxes(fd, 0, os.fstat(fd).st_size):
        if box.kind == b"uuid":
            found[os.pread(fd, 16, box.at)] = os.pread(fd, box.end - box.at - 16, box.at + 16)
        if box.kind == b"jp2h":
            for inner in boxes(fd, box.at, box.end):
                if inner.kind == b"colr" and os.pread(fd, 1, inner.at) == b"\x02":
                    icc = os.pread(fd, inner.end - inner.at - 3, inner.at + 3)
    return icc, found[_XMP], found[_EXIF]
