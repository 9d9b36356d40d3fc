"""Carry over what people and devices wrote into an image: a TIFF's own tags, and EXIF and GPS.

libvips writes EXIF to no TIFF and a TIFF's tags to nothing. To a TIFF they are appended with a new
first directory, the pixels stay where they are; for other formats they become an EXIF block.

Source: TIFF 6.0 section 2; EXIF 2.32, 4.6.3 (the directories EXIF and GPS).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field, replace

from dittohead.toolkit.images import tiff
from dittohead.toolkit.images.reasons import RefusedImage

#: Tags of the first directory that are carried, by their names in EXIF.
NAMES = {
    269: "DocumentName",
    270: "ImageDescription",
    271: "Make",
    272: "Model",
    285: "PageName",
    305: "Software",
    306: "DateTime",
    315: "Artist",
    316: "HostComputer",
    18246: "Rating",
    18249: "RatingPercent",
    33432: "Copyright",
    40091: "XPTitle",
    40092: "XPComment",
    40093: "XPAuthor",
    40094: "XPKeywords",
    40095: "XPSubject",
}

_LONG, _UNDEFINED, _LONG8 = 4, 7, 16
_EXIF, _GPS = 34665, 34853

#: Not carried: places within the source (MakerNote, Interoperability), and what is about its pixels
#: as they were (ColorSpace, PixelXDimension, PixelYDimension).
_MAKER_NOTE = 37500
_LEFT = frozenset({_MAKER_NOTE, 40961, 40962, 40963, 40965})

#: Bounds for a hostile file: bytes of a value, tags of a directory. MakerNote aside none comes near.
_LONGEST, _MOST = 1 << 16, 500

#: Bytes that are turned round together where the byte order is another.
_UNITS = {3: 2, 8: 2, 4: 4, 5: 4, 9: 4, 10: 4, 11: 4, 13: 4, 12: 8, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True, slots=True)
class Tag:
    """One tag."""

    kind: int
    count: int
    data: bytes  #: little-endian


@dataclass(frozen=True, slots=True)
class Tags:
    """What is carried."""

    texts: dict[int, Tag] = field(default_factory=dict)
    exif: dict[int, Tag] = field(default_factory=dict)
    gps: dict[int, Tag] = field(default_factory=dict)
    #: What cannot be carried, by name.
    left: tuple[str, ...] = field(default=(), compare=False)

    def __bool__(self) -> bool:
        return bool(self.texts or self.exif or self.gps)

    @property
    def names(self) -> set[str]:
        """What `metadata` calls those of a TIFF."""
        found = {f"TIFF {NAMES[number]}" for number in self.texts}
        inner = (("TIFF EXIF", self.exif), ("TIFF GPS", self.gps))
        return found | {name for name, tags in inner if tags}

    def along(self, number: int, data: bytes) -> Tags:
        """Return these and one more of the first directory, of no kind; the same where it has no content."""
        one = {number: Tag(_UNDEFINED, len(data), data)} if data else {}
        return replace(self, texts=self.texts | one)

    def within(self, other: Tags) -> bool:
        """Tell whether another has all of these."""
        same = (self.exif, self.gps) == (other.exif, other.gps)
        return same and self.texts.items() <= other.texts.items()


def of_tiff(fd: int, page: int = 1) -> Tags:
    """Return the tags of a page of a TIFF; none of what is not a TIFF or cannot be read."""
    first = tiff.of_page(fd, page)
    try:
        if not first:
            return Tags()
        exif, gps = (_inner(fd, first.get(number)) for number in (_EXIF, _GPS))
        left = ("EXIF MakerNote",) if _MAKER_NOTE in exif else ()
        exif = {number: tag for number, tag in exif.items() if number not in _LEFT}
        return Tags(_of_first(fd, first), exif, gps, left)
    except (RefusedImage, struct.error, OverflowError):
        return Tags()


def of_exif(block: bytes) -> Tags:
    """Return the tags of an EXIF block, which is a TIFF without pixels."""
    fd = os.memfd_create("exif")
    try:
        os.write(fd, block.removeprefix(b"Exif\0\0"))
        return of_tiff(fd)
    finally:
        os.close(fd)


def _inner(fd: int, where: tiff.Field | None) -> dict[int, Tag]:
    if where is None:
        return {}
    order = tiff.layout_of(fd).order
    (at,) = struct.unpack_from(order + ("Q" if where.kind in (16, 18) else "I"), where.value)
    return _tags(fd, next(tiff.fields(fd, at), {})) if at else {}


def _of_first(fd: int, first: dict[int, tiff.Field]) -> dict[int, Tag]:
    return _tags(fd, {number: each for number, each in first.items() if number in NAMES})


def _tags(fd: int, fields: dict[int, tiff.Field]) -> dict[int, Tag]:
    if len(fields) > _MOST:
        raise RefusedImage("its EXIF has too many tags")
    known = {number: each for number, each in fields.items() if each.kind in tiff.SIZES}
    return {
        number: _tag(fd, each)
        for number, each in known.items()
        if number == _MAKER_NOTE or each.count * tiff.SIZES[each.kind] <= _LONGEST
    }


def _tag(fd: int, one: tiff.Field) -> Tag:
    layout = tiff.layout_of(fd)
    size = one.count * tiff.SIZES[one.kind]
    data = one.value[:size]
    if size > len(one.value):
        (at,) = struct.unpack(layout.offset, one.value)
        data = tiff.piece(fd, min(size, _LONGEST), at)
    unit = _UNITS.get(one.kind, 1)
    if layout.order == ">" and unit > 1:
        data = b"".join(data[i : i + unit][::-1] for i in range(0, len(data), unit))
    return Tag(one.kind, one.count, data)


def append(made: int, tags: Tags) -> bool:
    """Write tags into the first directory of a finished TIFF; return whether they are there now.

    Tags that are there already stay as they are. Nothing but the place of the first directory is
    changed in what was written before, and that last.
    """
    layout = tiff.layout_of(made)
    if layout.order != "<" or not tags:
        return not tags
    first = next(tiff.fields(made))
    added = {number: tag for number, tag in tags.texts.items() if number not in first}
    for number, inner in ((_EXIF, tags.exif), (_GPS, tags.gps)):
        if inner and number not in first:
            at = _directory(made, layout, _placed(made, layout, inner), 0)
            added[number] = _offset(layout, at)
    kept = {n: struct.pack(layout.entry, n, f.kind, f.count, f.value) for n, f in first.items()}
    at = _directory(made, layout, kept | _placed(made, layout, added), _next(made, layout, len(first)))
    os.pwrite(made, struct.pack(layout.offset, at), 8 if layout.count.endswith("Q") else 4)
    return tags.within(of_tiff(made))


def block(tags: Tags) -> bytes:
    """Return tags as an EXIF block, without its "Exif" mark; b"" for none."""
    if not tags:
        return b""
    fd = os.memfd_create("exif")
    try:
        os.write(fd, struct.pack("<2sHIHI", b"II", 42, 8, 0, 0).ljust(16, b"\0"))
        append(fd, tags)
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


#: XResolution, YResolution, ResolutionUnit.
_RESOLUTION = frozenset({282, 283, 296})


def without_resolution(block: bytes) -> bytes:
    """Return an EXIF block, of the same length, that says no resolution: libexif invents one."""
    order = "<" if block[:2] == b"II" else ">"
    try:
        (at,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, at)
        end = at + 2 + 12 * count
        entries = [block[place : place + 12] for place in range(at + 2, end, 12)]
        kept = [each for each in entries if struct.unpack_from(order + "H", each)[0] not in _RESOLUTION]
    except struct.error:
        return block
    made = struct.pack(order + "H", len(kept)) + b"".join(kept) + block[end : end + 4]
    return block[:at] + made.ljust(end + 4 - at, b"\0") + block[end + 4 :]


def _offset(layout: tiff.TiffLayout, at: int) -> Tag:
    big = layout.count.endswith("Q")
    return Tag(_LONG8 if big else _LONG, 1, struct.pack(layout.offset, at))


def _next(made: int, layout: tiff.TiffLayout, count: int) -> int:
    """Return the place of the second directory."""
    at = layout.first + struct.calcsize(layout.count) + count * struct.calcsize(layout.entry)
    (found,) = struct.unpack(layout.offset, tiff.piece(made, struct.calcsize(layout.offset), at))
    return int(found)


def _placed(made: int, layout: tiff.TiffLayout, tags: dict[int, Tag]) -> dict[int, bytes]:
    """Return {number: entry}, after writing what does not fit into an entry to the file's end."""
    room = struct.calcsize(layout.offset)
    found = {}
    for number, tag in tags.items():
        short = len(tag.data) <= room
        data = tag.data.ljust(room, b"\0") if short else struct.pack(layout.offset, _end(made, tag.data))
        found[number] = struct.pack(layout.entry, number, tag.kind, tag.count, data)
    return found


def _directory(made: int, layout: tiff.TiffLayout, entries: dict[int, bytes], after: int) -> int:
    """Write a directory to the file's end; return its place."""
    ordered = b"".join(entries[number] for number in sorted(entries))
    return _end(made, struct.pack(layout.count, len(entries)) + ordered + struct.pack(layout.offset, after))


def _end(made: int, data: bytes) -> int:
    """Write data to the file's end, on a word; return its place."""
    at = -(-os.fstat(made).st_size // 8) * 8
    done = 0
    while done < len(data):
        done += os.pwrite(made, data[done:], at + done)
    return at
