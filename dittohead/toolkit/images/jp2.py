"""Write a lossless JP2 or JPH: boxes that carry colours, resolution and metadata, and a codestream.

Source: ISO/IEC 15444-1 annex I (boxes; colr I.5.3.3, cdef I.5.3.6, res I.5.3.7, uuid I.7.2); ISO/IEC
15444-15:2019 annex D (JPH); the UUID of XMP from the XMP Specification Part 3, 1.1.5; that of EXIF as
cameras and ExifTool write it.
"""

from __future__ import annotations

import dataclasses
import os
import struct
import tempfile
from typing import Any

import numpy as np

from dittohead.toolkit.images import colour, htj2k, iptc, jp2_header, openjpeg
from dittohead.toolkit.images.jp2_structure import (
    SIZ,
    ExpectedStructure,
    boxes,
    image_header,
)
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.reasons import RefusedImage, Unfit

_XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF = b"JpgTiffExif->JP2"

#: What the boxes of these UUIDs hold.
UUIDS = {_XMP: "XMP", _EXIF: "EXIF", iptc.UUID: "IPTC"}

#: libvips' names of what stands in boxes as it is.
_BLOBS = ("xmp-data", "iptc-data")

_PIECE = 1 << 20

#: Of Rsiz: bit 14, a codestream of Part 15. Bytes of SIZ before its components (A.5.1).
_PART_15, _SIZ_LEAST = 0x4000, 36

#: Colour spaces of the colr box by number (I.5.3.3): sRGB, and grey of sRGB's curve.
_SRGB, _GREY = 16, 17

#: What a channel is (I.5.3.6): colour, opacity, nobody knows.
COLOUR, OPACITY, UNSPECIFIED = 0, 1, 0xFFFF

#: Not associated with any colour.
_NO_COLOUR = 0xFFFF


def bits(fd: int) -> int:
    """Return the bits of a sample as a file's header gives them, 0 when it does not."""
    try:
        for box in boxes(fd, 0, os.fstat(fd).st_size):
            for inner in boxes(fd, box.at, box.end) if box.kind == b"jp2h" else ():
                if inner.kind == b"ihdr":
                    (depth,) = os.pread(fd, 1, inner.at + 10)
                    return 0 if depth == 255 else (depth & 127) + 1
    except (RefusedImage, struct.error, ValueError):
        pass
    return 0


def see_readable(fd: int) -> None:
    """See that libvips reads a JPEG 2000 as it is; of other files nothing is said.

    It asks libopenjp2 for one area after another where an image is not tiled, and gets wrong samples,
    without a word, from codestreams of Part 15 and from those that do not begin at the origin.

    Raises: Unfit.
    """
    siz = _siz(fd)
    if len(siz) < _SIZ_LEAST:
        return
    # A.5.1: Rsiz; Xsiz, Ysiz; XOsiz, YOsiz; XTsiz, YTsiz; XTOsiz, YTOsiz
    rsiz, *sizes = struct.unpack_from(">H8I", siz)
    if rsiz & _PART_15:
        raise Unfit("it is High-Throughput JPEG 2000 (Part 15), which libvips reads wrongly")
    if any(sizes[2:4]) or any(sizes[6:8]):
        raise Unfit("its JPEG 2000 does not begin at the origin, which libvips reads wrongly")


def _siz(fd: int) -> bytes:
    return next((content for marker, content in jp2_header.main_header(fd) if marker == SIZ), b"")


def write(
    image: pyvips.Image,
    made: int,
    tile: int,
    known: tuple[float, float] | None,
    exif: bytes,
    opacity: int = OPACITY,
    *,
    high_throughput: bool = False,
) -> ExpectedStructure:
    """Write the image to the open, empty file `made`; return what must be found in it.

    Args:
        image: of 8 or 16 bits, grey or RGB, with or without a last band that is not a colour; read once
            from top to bottom.
        made: open for writing.
        tile: width and height of a tile, pixels.
        known: pixels per mm across and down, None when they are not known.
        exif: a block to be carried, b"" for none.
        opacity: what that last band is.
        high_throughput: code it by Part 15, as a JPH.
    """
    profile = openjpeg.CodestreamProfile(tile=tile)
    if high_throughput:
        profile = openjpeg.CodestreamProfile(tile=tile, levels=htj2k.LEVELS, precincts=(), block=htj2k.BLOCK)
    wanted = dataclasses.replace(
        _wanted(image, profile, known, exif, opacity), high_throughput=high_throughput
    )
    with tempfile.TemporaryFile() as file:
        shape = image.height, image.width, image.bands
        if high_throughput:
            htj2k.encode(rows_of(image), shape, wanted.bits, file.fileno(), tile)
        else:
            openjpeg.encode(rows_of(image), shape, wanted.bits, file.fileno(), profile)
        _assemble(made, wanted, file.fileno())
    return wanted


def _assemble(made: int, wanted: ExpectedStructure, stream: int) -> None:
    """Write the boxes, the codestream last: a reader that streams knows then what it is."""
    write_all(made, _box(b"jP  ", b"\r\n\x87\n"))
    write_all(made, _box(b"ftyp", struct.pack(">4sI4s", wanted.brand, 0, wanted.brand)))
    header = [(b"ihdr", image_header(wanted)), (b"colr", wanted.colour)]
    header += [(b"cdef", wanted.channels), (b"res ", wanted.resolution)]
    write_all(made, _box(b"jp2h", b"".join(_box(kind, content) for kind, content in header if content)))
    for content in wanted.uuids:
        write_all(made, _box(b"uuid", content))
    size = os.fstat(stream).st_size
    # I.4: a length of 1 says that it follows in 64 bits
    long = size + 8 > 0xFFFFFFFF
    write_all(made, struct.pack(">I4sQ", 1, b"jp2c", size + 16) if long else _head(b"jp2c", size))
    _copy(stream, made, size)


def _wanted(
    image: pyvips.Image,
    profile: openjpeg.CodestreamProfile,
    known: tuple[float, float] | None,
    exif: bytes,
    opacity: int,
) -> ExpectedStructure:
    icc = colour.profile(image)
    xmp, datasets = (bytes(image.get(name)) if image.get_typeof(name) else b"" for name in _BLOBS)
    space = struct.pack(">BBBI", 1, 0, 0, _SRGB if image.bands >= 3 else _GREY)
    known_by = ((_XMP, xmp), (_EXIF, exif), (iptc.UUID, datasets))
    return ExpectedStructure(
        width=image.width,
        height=image.height,
        bands=image.bands,
        bits=16 if image.format == "ushort" else 8,
        colour=struct.pack(">BBB", 2, 0, 0) + icc if colour.embeddable(icc) else space,
        channels=_channels(image.bands, opacity) if image.bands in (2, 4) else b"",
        resolution=_box(b"resc", _resolution(known)) if known else b"",
        uuids=tuple(uuid + content for uuid, content in known_by if content),
        tile=(profile.tile, profile.tile),
        levels=profile.levels,
        precincts=profile.precincts,
        block=profile.block,
    )


def rows_of(image: pyvips.Image) -> Any:
    """Return a function that gives so many rows of an image from one on, as (height, width, bands).

    Each array is valid until the next is asked for.
    """
    region = pyvips.Region.new(image)
    kind = "u2" if image.format == "ushort" else "u1"

    def rows(top: int, count: int) -> Any:
        data = region.fetch(0, top, image.width, count)
        return np.frombuffer(data, kind).reshape(count, image.width, image.bands)

    return rows


def _channels(bands: int, opacity: int) -> bytes:
    """Return a cdef box's content: colours in their order, then the band that is none."""
    colours = [(band, COLOUR, band + 1) for band in range(bands - 1)]
    last = (bands - 1, opacity, _NO_COLOUR if opacity == UNSPECIFIED else 0)
    return struct.pack(">H", bands) + b"".join(struct.pack(">HHH", *entry) for entry in [*colours, last])


def write_all(fd: int, data: bytes) -> None:
    """Write data whole: a disk that fills up takes a part of it without an error."""
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:])


def _resolution(known: tuple[float, float]) -> bytes:
    # Pixels per metre as a fraction of 16 bits each and a power of ten; down comes before across.
    across, down = (_fraction(value * 1000) for value in known)
    return struct.pack(">HHHHbb", down[0], down[1], across[0], across[1], down[2], across[2])


def _fraction(value: float) -> tuple[int, int, int]:
    power = 0
    while value >= 6553.5:
        value, power = value / 10, power + 1
    return round(value * 10), 10, power


def _head(kind: bytes, size: int) -> bytes:
    return struct.pack(">I4s", size + 8, kind)


def _box(kind: bytes, content: bytes) -> bytes:
    return _head(kind, len(content)) + content


def _copy(stream: int, made: int, size: int) -> None:
    at = 0
    while at < size:
        piece = os.pread(stream, _PIECE, at)
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
