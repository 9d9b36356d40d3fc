"""Put an XMP packet into an image file, and prove that nothing else was changed; no pixel is decoded.

A file is treated as a row of parts, of which XMP is one kind. What is written is those parts in their
order with the new packet among them; what is compared afterwards are the parts of the two files, read
again, byte for byte. A TIFF is not a row but a web of places: there the new packet and a new first
directory are appended, and the whole of the source must be found in the result, but for the four or
eight bytes that say where the first directory is.

Source: ISO/IEC 15444-1 annex I (boxes) and XMP Specification Part 3: 1.1.5 (JPEG 2000), 1.1.3 (JPEG),
1.1.4 (PNG), 1.1.7 (TIFF, tag 700); PNG 3rd edition, 5 and 11.3.3.4; TIFF 6.0 section 2.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest

from dittohead.toolkit.images import tiff
from dittohead.toolkit.images.reasons import DamagedImage, RefusedImage
from dittohead.toolkit.images.xmp import MOST

#: Media types of what can hold XMP here.
JP2, JPH, JPX = "image/jp2", "image/jph", "image/jpx"
TIFF, JPEG, PNG = "image/tiff", "image/jpeg", "image/png"

_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_XAP = b"http://ns.adobe.com/xap/1.0/\0"
_EXTENDED = b"http://ns.adobe.com/xmp/extension/\0"
#: Says where further images of a JPEG are, by their distance from here. Source: CIPA DC-007, 5.
_MPF = b"MPF\0"
_KEYWORD = b"XML:com.adobe.xmp\0"

#: Boxes that name places in the file by their number of bytes: they would be wrong afterwards.
_PLACES = frozenset({b"ftbl", b"flst", b"cidx", b"fidx"})

#: What one segment of a JPEG holds of a packet: a length of 16 bits, less itself and the name.
_JPEG_MOST = 65535 - 2 - len(_XAP)

_XMP_TAG = 700

#: Parts of a file: a hostile one may have a hundred million. A PNG of 8 GiB in pieces of 8 KiB has a million.
_MOST_PARTS = 1_000_000

#: Segments of a JPEG before its pixels; the longest ICC profiles, in 255 pieces, come nowhere near.
_MOST_SEGMENTS = 10_000

_PIECE = 1 << 20

Tick = Callable[[], None]


@dataclass(frozen=True, slots=True)
class FilePart:
    """A part of a file."""

    name: bytes
    at: int
    size: int
    xmp: bool = False
    before: bool = False  #: a new packet stands before this part


def kind_of(fd: int) -> str:
    """Return the media type of a file that can hold XMP, "" for others; by its content, not its name."""
    head = os.pread(fd, 32, 0)
    if head[:12] == b"\0\0\0\x0cjP  \r\n\x87\n" and head[16:20] == b"ftyp":
        return {b"jph ": JPH, b"jpx ": JPX}.get(head[20:24], JP2)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return TIFF
    if head[:3] == b"\xff\xd8\xff":
        return JPEG
    return PNG if head[:8] == b"\x89PNG\r\n\x1a\n" else ""


def packet_of(fd: int, kind: str) -> bytes:
    """Return a file's XMP packet, b"" for none. Raises: RefusedImage: the file cannot be read."""
    if kind == TIFF:
        return _of_tiff(fd)
    found = [part for part in _parts(fd, kind) if part.xmp]
    if len(found) > 1:
        raise RefusedImage(f"it has {len(found)} packets of XMP, and one is allowed")
    if not found:
        return b""
    (part,) = found
    if part.size > MOST:
        raise RefusedImage(f"its XMP has {part.size} bytes")
    return _UNWRAP[kind](_piece(fd, part.size, part.at))


def write(source: int, made: int, kind: str, packet: bytes, tick: Tick) -> None:
    """Write the source with another packet to the empty file `made`.

    Args:
        tick: called for each piece; may raise to stop.

    Raises: RefusedImage: the file cannot be read, or the format cannot hold the packet.
    """
    if kind == TIFF:
        _write_tiff(source, made, packet, tick)
        return
    placed = False
    for part in _parts(source, kind):
        if part.before:
            _append(made, _WRAP[kind](packet))
            placed = True
        if not part.xmp:
            _copy(source, made, part.at, part.size, tick)
    if not placed:
        raise RefusedImage("there is no image in it")


def compare(source: int, made: int, kind: str, packet: bytes, tick: Tick) -> int:
    """Verify that the result holds the packet, and besides it every byte of the source, in order.

    Args:
        source, made: open descriptors of both files, for reading; their offsets stay.
        kind: the media type of both: TIFF, JPEG or PNG.
        packet: the XMP packet, as it was to be written.
        tick: called after each piece; it may raise to end the comparison.

    Returns: how many bytes were compared.
    Raises: RefusedImage: it does not.
    """
    if kind == TIFF:
        if packet_of(made, kind) != packet:
            raise RefusedImage("the XMP does not read back as it was written")
        return _compare_tiff(source, made, tick)
    written = [os.pread(made, part.size, part.at) for part in _parts(made, kind) if part.xmp]
    if written != [_WRAP[kind](packet)]:  # with its head and, in a PNG, its checksum
        raise RefusedImage("the XMP does not read back as it was written")
    compared = 0
    rows = ((part for part in _parts(fd, kind) if not part.xmp) for fd in (source, made))
    for one, two in zip_longest(*rows):
        if one is None or two is None or (one.name, one.size) != (two.name, two.size):
            raise RefusedImage("the result's parts are not the source's")
        compared += _compare(source, one.at, made, two.at, one.size, tick)
    return compared


# -- rows of parts ---------------------------------------------------------------------------


def _parts(fd: int, kind: str) -> Iterator[FilePart]:
    for number, part in enumerate(_PARTS[kind](fd)):
        if number >= _MOST_PARTS:
            raise RefusedImage(f"it has more than {_MOST_PARTS} parts")
        yield part


def _boxes(fd: int) -> Iterator[FilePart]:
    """Yield the boxes of a JPEG 2000, each with its head."""
    at, end, placed = 0, os.fstat(fd).st_size, False
    while at < end:
        head = _piece(fd, 8, at)
        size, name = struct.unpack(">I4s", head)
        start = 8
        if size == 1:
            (size,) = struct.unpack(">Q", _piece(fd, 8, at + 8))
            start = 16
        size = size or end - at
        if size < start or at + size > end:
            raise RefusedImage("its boxes cannot be read")
        if name in _PLACES:
            raise RefusedImage(f"it has a box {name.decode()}, which names places in the file")
        is_xmp = name == b"uuid" and os.pread(fd, 16, at + start) == _UUID
        # The first codestream: none is searched for beyond it by some readers.
        before = name == b"jp2c" and not placed
        placed = placed or before
        yield FilePart(name, at, size, is_xmp, before)
        at += size


def _segments(fd: int) -> Iterator[FilePart]:
    """Yield the segments of a JPEG up to the first scan, and all the rest as one part."""
    yield FilePart(b"SOI", 0, 2)
    at, end = 2, os.fstat(fd).st_size
    while True:
        lead, marker = _piece(fd, 2, at)
        if lead != 0xFF:
            raise RefusedImage("its segments cannot be read")
        if marker == 0xFF:  # any marker may be preceded by any number of these
            yield FilePart(b"fill", at, 1)
            at += 1
            continue
        (size,) = struct.unpack(">H", _piece(fd, 2, at + 2))
        if size < 2 or at + 2 + size > end:
            raise RefusedImage("its segments cannot be read")
        if marker == 0xDA:
            yield FilePart(b"scan", at, end - at)
            return
        head = os.pread(fd, min(size - 2, 40), at + 4)
        if marker == 0xE1 and head.startswith(_EXTENDED):
            raise RefusedImage("its XMP goes on in further segments, which is not put together here")
        is_xmp = marker == 0xE1 and head.startswith(_XAP)
        # After what says JFIF and EXIF, which readers want first. Source: DCF 2.0, 3.3.4.
        first = marker == 0xE0 or (marker == 0xE1 and head.startswith(b"Exif\0"))
        yield FilePart(
            _MPF if marker == 0xE2 and head.startswith(_MPF) else bytes([marker]), at, size + 2, is_xmp
        )
        at += size + 2
        yield FilePart(b"", at, 0, before=first)


def _jpeg_parts(fd: int) -> Iterator[FilePart]:
    """Yield the segments, of which the one after JFIF and EXIF has the packet before it."""
    found = list(islice(_segments(fd), 2 * _MOST_SEGMENTS))
    if len(found) == 2 * _MOST_SEGMENTS:
        raise RefusedImage(f"it has more than {_MOST_SEGMENTS} segments before its pixels")
    place = max((n for n, part in enumerate(found) if part.before), default=1)
    index = next((n for n, part in enumerate(found) if part.name == _MPF), len(found))
    if any(n > index and (part.xmp or n == place) for n, part in enumerate(found)):
        raise RefusedImage("it holds further images, found by a distance that would change")
    for number, part in enumerate(found):
        if part.size or number == place:
            yield FilePart(part.name, part.at, part.size, part.xmp, before=number == place)


def _chunks(fd: int) -> Iterator[FilePart]:
    """Yield the chunks of a PNG, and what follows the last as one part."""
    yield FilePart(b"head", 0, 8)
    at, end, placed = 8, os.fstat(fd).st_size, False
    while at < end:
        size, name = struct.unpack(">I4s", _piece(fd, 8, at))
        if at + size + 12 > end:
            raise RefusedImage("its chunks cannot be read")
        is_xmp = name == b"iTXt" and os.pread(fd, len(_KEYWORD), at + 8) == _KEYWORD
        before = name == b"IDAT" and not placed
        placed = placed or before
        yield FilePart(name, at, size + 12, is_xmp, before)
        at += size + 12
        if name == b"IEND":
            if at < end:
                yield FilePart(b"rest", at, end - at)
            return
    raise RefusedImage("its chunks have no end")


def _wrap_box(packet: bytes) -> bytes:
    return struct.pack(">I4s", len(packet) + 24, b"uuid") + _UUID + packet


def _unwrap_box(box: bytes) -> bytes:
    return box[32 if box[:4] == b"\0\0\0\1" else 24 :]


def _wrap_segment(packet: bytes) -> bytes:
    if len(packet) > _JPEG_MOST:
        raise RefusedImage(
            f"its XMP would have {len(packet)} bytes, and a JPEG holds {_JPEG_MOST} in one piece"
        )
    return struct.pack(">BBH", 0xFF, 0xE1, 2 + len(_XAP) + len(packet)) + _XAP + packet


def _wrap_chunk(packet: bytes) -> bytes:
    data = b"iTXt" + _KEYWORD + b"\0\0\0\0" + packet
    return struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


def _unwrap_chunk(chunk: bytes) -> bytes:
    body = chunk[8 + len(_KEYWORD) : -4]
    compressed, text = body[:1] == b"\1", body[2:].split(b"\0", 2)
    if len(text) < 3:
        raise RefusedImage("its XMP cannot be read")
    if not compressed:
        return text[2]
    inflating = zlib.decompressobj()
    try:
        packet = inflating.decompress(text[2], MOST)
    except zlib.error as error:
        raise RefusedImage("its XMP cannot be read") from error
    if inflating.unconsumed_tail:
        raise RefusedImage(f"its XMP has more than {MOST} bytes")
    return packet


_PARTS: dict[str, Callable[[int], Iterator[FilePart]]] = {
    JP2: _boxes,
    JPH: _boxes,
    JPX: _boxes,
    JPEG: _jpeg_parts,
    PNG: _chunks,
}
_WRAP = {JP2: _wrap_box, JPH: _wrap_box, JPX: _wrap_box, JPEG: _wrap_segment, PNG: _wrap_chunk}
_UNWRAP: dict[str, Callable[[bytes], bytes]] = {
    JP2: _unwrap_box,
    JPH: _unwrap_box,
    JPX: _unwrap_box,
    JPEG: lambda segment: segment[4 + len(_XAP) :],
    PNG: _unwrap_chunk,
}


# -- TIFF ------------------------------------------------------------------------------------


def _first(fd: int) -> tuple[tiff.TiffLayout, dict[int, tiff.Field]]:
    try:
        return tiff.layout_of(fd), next(tiff.fields(fd))
    except (RefusedImage, struct.error, StopIteration, OverflowError) as error:
        raise RefusedImage("its first directory cannot be read") from error


def _of_tiff(fd: int) -> bytes:
    layout, first = _first(fd)
    field = first.get(_XMP_TAG)
    if field is None:
        return b""
    size = field.count * tiff.SIZES.get(field.kind, 1)
    if size <= len(field.value):
        return field.value[:size]
    if size > MOST:
        raise RefusedImage(f"its XMP has {size} bytes")
    return _piece(fd, size, struct.unpack(layout.offset, field.value)[0])


def _write_tiff(source: int, made: int, packet: bytes, tick: Tick) -> None:
    layout, first = _first(source)
    size = os.fstat(source).st_size
    _copy(source, made, 0, size, tick)
    at = _end(made, packet)
    # Type BYTE, as the specification has it; what is longer than a place stands elsewhere.
    entries = {n: struct.pack(layout.entry, n, f.kind, f.count, f.value) for n, f in first.items()}
    place = struct.pack(layout.offset, at) if layout.count.endswith("Q") or at < 1 << 32 else b""
    if not place:
        raise RefusedImage("it would grow beyond 4 GiB, which a TIFF that is not a BigTIFF cannot")
    entries[_XMP_TAG] = struct.pack(layout.entry, _XMP_TAG, 1, len(packet), place)
    rows = b"".join(entries[number] for number in sorted(entries))
    after = layout.first + struct.calcsize(layout.count) + len(first) * struct.calcsize(layout.entry)
    following = _piece(source, struct.calcsize(layout.offset), after)
    at = _end(made, struct.pack(layout.count, len(entries)) + rows + following)
    if os.fstat(made).st_size > 1 << 32 and not layout.count.endswith("Q"):
        raise RefusedImage("it would grow beyond 4 GiB, which a TIFF that is not a BigTIFF cannot")
    os.pwrite(made, struct.pack(layout.offset, at), _head(layout))


def _head(layout: tiff.TiffLayout) -> int:
    """Return where the place of the first directory stands."""
    return 8 if layout.count.endswith("Q") else 4


def _compare_tiff(source: int, made: int, tick: Tick) -> int:
    layout, before = _first(source)
    changed, after = _first(made)
    rest = {number: (f.kind, f.count, f.value) for number, f in after.items() if number != _XMP_TAG}
    wanted = {number: (f.kind, f.count, f.value) for number, f in before.items() if number != _XMP_TAG}
    pages = [[_entries(f) for f in list(tiff.fields(fd))[1:]] for fd in (source, made)]
    if (
        rest != wanted
        or pages[0] != pages[1]
        or (layout.order, layout.count) != (changed.order, changed.count)
    ):
        raise RefusedImage("the result's directories are not the source's")
    head, size = _head(layout), os.fstat(source).st_size
    start = head + struct.calcsize(layout.offset)
    compared = _compare(source, 0, made, 0, head, tick)
    return compared + _compare(source, start, made, start, size - start, tick)


def _entries(fields: dict[int, tiff.Field]) -> dict[int, tuple[int, int, bytes, int]]:
    return {number: (f.kind, f.count, f.value, f.at) for number, f in fields.items()}


# -- bytes -----------------------------------------------------------------------------------


def _piece(fd: int, size: int, at: int) -> bytes:
    """Return so many bytes. Raises: RefusedImage: they are not there."""
    try:
        data = os.pread(fd, size, at)
    except (OverflowError, OSError):
        data = b""
    if len(data) != size:
        raise DamagedImage("it is truncated")
    return data


def _append(made: int, data: bytes) -> None:
    """Write data whole to where the file stands."""
    done = 0
    while done < len(data):
        done += os.write(made, data[done:])


def _end(made: int, data: bytes) -> int:
    """Write data to the file's end, on a word; return its place."""
    at = -(-os.fstat(made).st_size // 8) * 8
    done = 0
    while done < len(data):
        done += os.pwrite(made, data[done:], at + done)
    return at


def _copy(source: int, made: int, at: int, size: int, tick: Tick) -> None:
    end = at + size
    while at < end:
        tick()
        piece = _piece(source, min(_PIECE, end - at), at)
        _append(made, piece)
        at += len(piece)


def _compare(source: int, one: int, made: int, two: int, size: int, tick: Tick) -> int:
    for done in range(0, size, _PIECE):
        tick()
        count = min(_PIECE, size - done)
        if _piece(source, count, one + done) != _piece(made, count, two + done):
            raise RefusedImage("the result's bytes are not the source's")
    return size
