"""Read the directories of a TIFF."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from dittohead.toolkit.images.reasons import DamagedImage, RefusedImage

#: Tags: the sides of a tile, the bits of a sample, what the samples mean, the unit of resolution.
TILE_WIDTH, TILE_HEIGHT = 322, 323
BITS, PHOTOMETRIC, RESOLUTION_UNIT = 258, 262, 296

#: Tags of people and devices, and whole blocks; ICC and XMP are read by libvips.
TEXTS = {
    269: "DocumentName",
    270: "ImageDescription",
    271: "Make",
    272: "Model",
    285: "PageName",
    305: "Software",
    306: "DateTime",
    315: "Artist",
    316: "HostComputer",
    33432: "Copyright",
    34377: "Photoshop",
    34665: "EXIF",
    34853: "GPS",
}

#: Bytes of a value by its kind.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}

#: A value longer than this is not read: no text is, and a hostile file may claim any length.
_LONGEST = 1 << 20

#: Directories that are looked at.
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Field:
    """One entry of a directory."""

    kind: int
    count: int
    value: bytes  #: as it stands in the entry: the value, or where it is
    at: int  #: where `value` stands in the file


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """How the numbers of a file are written: formats for `struct`."""

    order: str
    count: str
    entry: str
    offset: str
    first: int


def layout_of(fd: int) -> TiffLayout:
    """Return a file's layout. Raises: RefusedImage, struct.error."""
    head = piece(fd, 16, 0)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    count, entry, offset = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    (first,) = struct.unpack_from(order + offset, head, 8 if big else 4)
    return TiffLayout(order, order + count, order + entry, order + offset, first)


def fields(fd: int, start: int = 0) -> Iterator[dict[int, Field]]:
    """Yield {tag: field} of each directory of a TIFF, from the one at `start`. Raises: RefusedImage.

    Source: TIFF 6.0 section 2; BigTIFF as in libtiff's documentation.
    """
    layout = layout_of(fd)
    at, seen = start or layout.first, set[int]()
    while at and at not in seen:
        seen.add(at)
        (count,) = struct.unpack(layout.count, piece(fd, struct.calcsize(layout.count), at))
        at += struct.calcsize(layout.count)
        size, place = struct.calcsize(layout.entry), struct.calcsize(layout.offset)
        if count * size > _LONGEST:
            raise RefusedImage("the result's directories cannot be read")
        block = piece(fd, count * size + place, at)
        found = {}
        for i, entry in enumerate(struct.iter_unpack(layout.entry, block[: count * size])):
            tag, kind, number, value = entry
            found[tag] = Field(kind, number, value, at + (i + 1) * size - place)
        yield found
        (at,) = struct.unpack_from(layout.offset, block, count * size)


def see_whole(fd: int) -> None:
    """See that every directory of a TIFF is there; of other files nothing is said.

    libtiff takes a place that lies beyond the end for the end of the chain, and has then fewer pages.

    Raises: RefusedImage.
    """
    if not is_tiff(fd):
        return
    at = 1
    try:
        for _ in itertools.islice(fields(fd), _MOST):
            at += 1
    except (RefusedImage, struct.error, OverflowError) as error:
        if at > 1:  # of the first nobody reads anything without it
            raise DamagedImage(
                f"the file ends early or is damaged: directory {at}, of a page or a smaller copy, "
                "cannot be read"
            ) from error


def directories(fd: int) -> Iterator[dict[int, int]]:
    """Yield {tag: value} of each directory of a TIFF, for tags of one short or long value.

    libvips does not tell how a TIFF is tiled.
    """
    order = layout_of(fd).order
    for found in fields(fd):
        yield {tag: _number(order, field) for tag, field in found.items() if _is_number(field)}


def is_tiff(fd: int) -> bool:
    """Tell whether a file begins as a TIFF does, small or big."""
    return os.pread(fd, 4, 0) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def number(fd: int, field: Field | None) -> int:
    """Return a field's first value, 0 when there is none."""
    found = numbers(fd, field) if field else []
    return found[0] if found else 0


def _is_number(field: Field) -> bool:
    return field.count == 1 and field.kind in (3, 4)


def _number(order: str, field: Field) -> int:
    value: int = struct.unpack_from(order + ("H" if field.kind == 3 else "I"), field.value)[0]
    return value


def of_page(fd: int, page: int) -> dict[int, Field]:
    """Return a page's fields; {} of no TIFF, and of one that only libtiff can read."""
    if not is_tiff(fd):
        return {}
    try:
        return next(itertools.islice(fields(fd), page - 1, None), {})
    except (RefusedImage, struct.error, OverflowError):
        return {}


def texts(fd: int, page: int = 1) -> dict[str, bytes]:
    """Return {name: value} of what people and devices wrote into a page's directory.

    Of EXIF and GPS, which are directories of their own, only that they are there.
    """
    found = of_page(fd, page)
    try:
        return {TEXTS[tag]: value(fd, field) for tag, field in found.items() if tag in TEXTS}
    except (RefusedImage, struct.error, OverflowError):
        return {}


def value(fd: int, field: Field) -> bytes:
    """Return a field's bytes as they stand in the file; b"there" for a directory's place."""
    if field.kind in (4, 13, 16, 18) and field.count == 1:
        return b"there"
    return raw(fd, field).rstrip(b"\0")


def raw(fd: int, field: Field) -> bytes:
    """Return a field's bytes as they stand in the file. Raises: RefusedImage."""
    size = field.count * SIZES.get(field.kind, 1)
    if size <= len(field.value):
        return field.value[:size]
    (at,) = struct.unpack(layout_of(fd).offset, field.value)
    return piece(fd, min(size, _LONGEST), at)


def numbers(fd: int, field: Field) -> list[int]:
    """Return a field's values where they are whole numbers of 8 to 64 bits, [] of another kind.

    Raises: RefusedImage: they are not there, or too many.
    """
    code = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(field.kind)
    if code is None:
        return []
    layout, size = layout_of(fd), field.count * SIZES.get(field.kind, 8)
    if size > _LONGEST:
        raise RefusedImage("the file's directories cannot be read")
    inline = size <= len(field.value)
    data = field.value[:size] if inline else piece(fd, size, struct.unpack(layout.offset, field.value)[0])
    return list(struct.unpack(f"{layout.order}{field.count}{code}", data))


def sample(fd: int, page: int) -> tuple[int, bool]:
    """Return (bits of a sample or 0, whether pixels are places in a palette) of a page."""
    found = of_page(fd, page)
    meaning, bits = found.get(PHOTOMETRIC), found.get(BITS)
    if not found or bits is None:
        return (1 if found else 0), False  # TIFF 6.0: 1 is the default
    layout = layout_of(fd)
    palette = meaning is not None and _is_number(meaning) and _number(layout.order, meaning) == 3
    try:
        inline = bits.count * 2 <= len(bits.value)
        data = bits.value if inline else piece(fd, 2, struct.unpack(layout.offset, bits.value)[0])
        return struct.unpack_from(layout.order + "H", data)[0], palette
    except (RefusedImage, struct.error, OverflowError):
        return 0, palette


def without_resolution(fd: int) -> None:
    """Say in every directory that the resolution has no unit: TIFF has no way to leave it out."""
    order = layout_of(fd).order
    for found in fields(fd):
        field = found.get(RESOLUTION_UNIT)
        if field is not None and _is_number(field):
            os.pwrite(fd, struct.pack(order + "H", 1), field.at)


def piece(fd: int, size: int, at: int) -> bytes:
    """Return a number of bytes from a place.

    Args:
        fd: an open descriptor; its offset stays.
        size: how many bytes.
        at: offset of the first, in bytes.
    """
    data = os.pread(fd, size, at)
    if len(data) != size:
        raise RefusedImage("the result's directories cannot be read")
    return data
