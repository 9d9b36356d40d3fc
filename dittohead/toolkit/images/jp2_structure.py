"""Read a JP2 or JPH file from end to end, and refuse one that is not built as it should be.

Everything but the coded pixels is read: boxes, main header, the header of every tile-part, and by
PLT the length of every packet. Nothing is taken on trust from who wrote it. What stands in the
packets only decoding can tell (proof.py).

Source: ISO/IEC 15444-1:2019 annex A (codestream), B (geometry), I (boxes); ISO/IEC 15444-15:2019
annexes A (CAP) and D (the brand jph); for what a reader must find, the sections are named beside it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dittohead.toolkit.images.reasons import RefusedImage

SOC, SOT, SOD, EOC = 0xFF4F, 0xFF90, 0xFF93, 0xFFD9
CAP, SIZ, COD, QCD, TLM, PLT, COM = 0xFF50, 0xFF51, 0xFF52, 0xFF5C, 0xFF55, 0xFF58, 0xFF64

_NAMES = {CAP: "CAP", SIZ: "SIZ", COD: "COD", QCD: "QCD", TLM: "TLM", PLT: "PLT"}

_SIGNATURE = b"\r\n\x87\n"

#: Values of a SIZ segment before those of the components: A.5.1.
_SIZ = struct.Struct(">HIIIIIIIIH")

#: Bit 14 of Rsiz, and of SPcod's style: the codestream is of Part 15.
_HT_CAPABILITY, _HT_BLOCKS = 0x4000, 0x40

_RPCL, _REVERSIBLE = 2, 1

#: Bytes of a header that is read; ours are a tenth of it.
_LONGEST = 1 << 20


class Box(NamedTuple):
    """One box of a file."""

    kind: bytes
    at: int  #: where its content begins
    end: int


class TilePart(NamedTuple):
    """One tile-part."""

    tile: int
    at: int  #: where SOT begins
    data: int  #: where packets begin
    end: int
    packets: tuple[int, ...]  #: lengths by PLT


@dataclass(frozen=True, kw_only=True)
class ExpectedStructure:
    """What a file is to hold; all of it is compared."""

    width: int
    height: int
    bands: int
    bits: int  #: of a sample, unsigned
    colour: bytes  #: content of the colr box
    channels: bytes = b""  #: content of the cdef box, b"" for none
    resolution: bytes = b""  #: content of the res box, b"" for none
    uuids: tuple[bytes, ...] = ()  #: contents of the uuid boxes
    tile: tuple[int, int]  #: width, height
    levels: int
    precincts: tuple[int, ...] = ()  #: sides, of the largest resolution first; () for undivided
    block: int = 64  #: width and height of a code block
    high_throughput: bool = False

    @property
    def brand(self) -> bytes:
        """What ftyp says."""
        return b"jph " if self.high_throughput else b"jp2 "


@dataclass(frozen=True)
class Structure:
    """Where things lie in a file that was found sound."""

    wanted: ExpectedStructure
    at: int  #: where the codestream begins
    end: int
    segments: list[tuple[int, bytes]] = field(default_factory=list)  #: of the main header: marker, content
    parts: list[TilePart] = field(default_factory=list)

    @property
    def tiles_across(self) -> int:
        """How many tiles stand in parallel."""
        return -(-self.wanted.width // self.wanted.tile[0])

    def area(self, tile: int) -> tuple[int, int, int, int]:
        """Return where a tile lies: left, top, right, bottom, in pixels."""
        across, down = self.wanted.tile
        left, top = tile % self.tiles_across * across, tile // self.tiles_across * down
        return left, top, min(left + across, self.wanted.width), min(top + down, self.wanted.height)


def boxes(fd: int, at: int, end: int) -> Iterator[Box]:
    """Yield the boxes between two places of a file (ISO/IEC 15444-1, I.4).

    Args:
        fd: an open descriptor; its offset stays.
        at: offset of the first box, in bytes.
        end: offset behind the last box, in bytes.

    Raises: RefusedImage: a box reaches further, or they do not end there.
    """
    while at + 8 <= end:
        size, kind = struct.unpack(">I4s", os.pread(fd, 8, at))
        start = at + 8
        if size == 1:
            (size,) = struct.unpack(">Q", os.pread(fd, 8, start))
            start += 8
        after = end if size == 0 else at + size
        if not start <= after <= end:
            raise RefusedImage("the result's boxes cannot be read")
        yield Box(kind, start, after)
        at = after
    if at != end:
        raise RefusedImage("the result's boxes do not end where they should")


def verify(fd: int, wanted: ExpectedStructure) -> Structure:
    """Read a file from end to end and compare it with what it is to hold. Raises: RefusedImage."""
    try:
        return _verified(fd, wanted)
    except (struct.error, IndexError) as error:
        raise RefusedImage(f"the result's structure cannot be read ({error})") from error


def _see(sound: bool, what: str) -> None:
    if not sound:
        raise RefusedImage(f"the result is not built as it should be: {what}")


def _read(fd: int, at: int, end: int) -> bytes:
    _see(0 <= end - at <= _LONGEST, "a header is too long")
    return os.pread(fd, end - at, at)


# -- boxes -----------------------------------------------------------------------------------


def _verified(fd: int, wanted: ExpectedStructure) -> Structure:
    found = list(boxes(fd, 0, os.fstat(fd).st_size))
    kinds = [box.kind for box in found]
    # I.2.1: signature and file type come first, the header before the codestream.
    order = [b"jP  ", b"ftyp", b"jp2h", *[b"uuid"] * len(wanted.uuids), b"jp2c"]
    _see(kinds == order, f"its boxes are {b' '.join(kinds).decode('ascii', 'replace')}")
    signature, kind, header, *uuids, stream = found
    _see(_read(fd, signature.at, signature.end) == _SIGNATURE, "its signature is another")  # I.5.1
    _file_type(_read(fd, kind.at, kind.end), wanted)
    _header(fd, header, wanted)
    for box, content in zip(uuids, wanted.uuids, strict=True):
        _see(_same(fd, box, content), "a uuid box (XMP, EXIF) holds something else")
    structure = Structure(wanted, stream.at, stream.end)
    _codestream(fd, structure)
    return structure


def _same(fd: int, box: Box, content: bytes) -> bool:
    size = box.end - box.at
    return size == len(content) and os.pread(fd, size, box.at) == content


def _file_type(content: bytes, wanted: ExpectedStructure) -> None:
    # I.5.2: brand, minor version, compatible with
    _see(content == struct.pack(">4sI4s", wanted.brand, 0, wanted.brand), "ftyp has another brand")


def _header(fd: int, header: Box, wanted: ExpectedStructure) -> None:
    found = {box.kind: box for box in boxes(fd, header.at, header.end)}
    contents = {
        b"ihdr": image_header(wanted),
        b"colr": wanted.colour,
        b"cdef": wanted.channels,
        b"res ": wanted.resolution,
    }
    kinds = [kind for kind, content in contents.items() if content]
    # I.5.3: ihdr is first; bpcc is for components of unlike depth, pclr and cmap for palettes.
    there = [box.kind for box in boxes(fd, header.at, header.end)]
    _see(there == kinds, f"jp2h holds {b' '.join(there).decode('ascii', 'replace')}")
    for kind in kinds:
        name = kind.decode().strip()
        _see(_same(fd, found[kind], contents[kind]), f"{name} says something else than it should")


def image_header(wanted: ExpectedStructure) -> bytes:
    """Return an ihdr box's content (I.5.3.1): compression type 7, colour space known, no rights."""
    size = wanted.height, wanted.width, wanted.bands
    return struct.pack(">IIHBBBB", *size, wanted.bits - 1, 7, 0, 0)


# -- codestream ------------------------------------------------------------------------------


def _codestream(fd: int, structure: Structure) -> None:
    at = _main_header(fd, structure)
    _size(structure)
    _coding(structure)
    _quantization(structure)
    numbers = _tiles(structure)
    while at < structure.end - 2:
        part = _part(fd, at, structure)
        structure.parts.append(part)
        at = part.end
    _see(at == structure.end - 2 and _marker(fd, at) == EOC, "it does not end with EOC")  # A.4.4
    found = [part.tile for part in structure.parts]
    _see(found == list(range(numbers)), "tiles are missing, doubled or out of order")
    _lengths(structure)


def _marker(fd: int, at: int) -> int:
    (marker,) = struct.unpack(">H", os.pread(fd, 2, at))
    return int(marker)


def _segments(fd: int, at: int, until: int, end: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield (marker, content, where the next one begins) up to the marker `until` (A.1.2)."""
    while (marker := _marker(fd, at)) != until:
        size = _marker(fd, at + 2)
        _see(size >= 2 and at + 2 + size <= end, f"a marker segment at {at} has an impossible length")
        content = os.pread(fd, size - 2, at + 4)
        at += 2 + size
        yield marker, content, at


def _main_header(fd: int, structure: Structure) -> int:
    """Take in the main header; return where the first tile-part begins."""
    _see(_marker(fd, structure.at) == SOC, "its codestream does not begin with SOC")
    at = structure.at + 2
    for marker, content, after in _segments(fd, at, SOT, structure.end):
        structure.segments.append((marker, content))
        at = after
    markers = [marker for marker, _ in structure.segments]
    allowed = {SIZ, COD, QCD, TLM, COM} | ({CAP} if structure.wanted.high_throughput else set())
    others = [f"{marker:04X}" for marker in markers if marker not in allowed]
    _see(not others, f"its main header has segments that are not wanted: {' '.join(others)}")
    _see(markers[:1] == [SIZ], "SIZ is not first in its codestream")  # A.3
    for marker in allowed - {TLM, COM}:
        _see(markers.count(marker) == 1, f"its main header does not have one {_NAMES[marker]}")
    for marker, content in structure.segments:
        # A.9.2: 1 is text in ISO/IEC 8859-15
        _see(marker != COM or content[:2] == b"\0\1", "a comment (COM) is not text")
    return at


def segment(structure: Structure, marker: int) -> bytes:
    """Return the content of a segment of the main header, b"" when there is none."""
    return next((content for found, content in structure.segments if found == marker), b"")


def _size(structure: Structure) -> None:
    wanted, content = structure.wanted, segment(structure, SIZ)
    kind = _HT_CAPABILITY if wanted.high_throughput else 0
    size = wanted.width, wanted.height, 0, 0, *wanted.tile, 0, 0
    _see(content[: _SIZ.size] == _SIZ.pack(kind, *size, wanted.bands), "SIZ has another geometry")
    # A.5.1: bit 7 of Ssiz is the sign; no component is subsampled
    components = bytes((wanted.bits - 1, 1, 1)) * wanted.bands
    _see(content[_SIZ.size :] == components, "SIZ has other depths, signs or samplings")


def _coding(structure: Structure) -> None:
    # A.6.1: Scod: precincts are given, no SOP, no EPH; then progression, layers, component transform.
    wanted, content = structure.wanted, segment(structure, COD)
    precincts = bytes(side.bit_length() - 1 << 4 | side.bit_length() - 1 for side in wanted.precincts[::-1])
    scod, order, layers, together = struct.unpack_from(">BBHB", content)
    _see(scod == bool(precincts), "COD has precincts, SOP or EPH that are not wanted")
    _see(order == _RPCL, f"its progression is not RPCL but number {order}")
    _see(layers == 1, f"it has {layers} layers, not one")
    _see(together == (wanted.bands >= 3), "its component transform is not the one wanted")
    levels, across, down, style, wavelet = content[5:10]
    _see(wavelet == _REVERSIBLE, "its wavelet is not the reversible 5-3")
    _see(levels == wanted.levels, f"it has {levels} decompositions, not {wanted.levels}")
    exponent = wanted.block.bit_length() - 3
    _see((across, down) == (exponent, exponent), "its code blocks are of another size")
    _see(style == (_HT_BLOCKS if wanted.high_throughput else 0), "its code blocks are of another style")
    _see(content[10:] == precincts, "its precincts are of other sizes")


def _quantization(structure: Structure) -> None:
    # A.6.4: the lower 5 bits of Sqcd: 0 for none; then one exponent for each subband, in 5 bits.
    wanted, content = structure.wanted, segment(structure, QCD)
    _see(content[0] & 31 == 0, "it is quantized")
    _see(len(content) == 2 + 3 * wanted.levels, "QCD has another number of subbands")
    if not wanted.high_throughput:
        # E.1.1: a subband's samples have the image's bits and those of its gain (table E.1).
        gains = (0, *(1, 1, 2) * wanted.levels)
        _see(content[0] >> 5 == 2, "it has another number of guard bits than two")
        _see(content[1:] == bytes(wanted.bits + gain << 3 for gain in gains), "QCD has other exponents")


def _tiles(structure: Structure) -> int:
    down = -(-structure.wanted.height // structure.wanted.tile[1])
    return structure.tiles_across * down


def _part(fd: int, at: int, structure: Structure) -> TilePart:
    """Read the header of a tile-part; its packets must have the lengths that PLT gives (A.4.2, A.7.3)."""
    marker, size, tile, length, number, count = struct.unpack(">HHHIBB", os.pread(fd, 12, at))
    _see((marker, size) == (SOT, 10), f"at {at} no tile-part begins")
    _see(14 <= length <= structure.end - 2 - at, f"tile {tile} is truncated or too long")
    _see((number, count) == (0, 1), f"tile {tile} is not one tile-part")
    end, after, packets = at + length, at + 12, b""
    for place, (kind, content, following) in enumerate(_segments(fd, at + 12, SOD, end)):
        _see(kind == PLT, f"tile {tile} has a segment that is not wanted: {kind:04X}")
        _see(content[0] == place, f"tile {tile} has PLT out of order")
        packets, after = packets + content[1:], following
    part = TilePart(tile, at, after + 2, end, tuple(_numbers(packets)))
    if not structure.wanted.high_throughput:
        _see(bool(packets), f"tile {tile} has no PLT")
        _see(sum(part.packets) == end - part.data, f"tile {tile} is not as long as its packets")
        _see(len(part.packets) == _packets(structure, tile), f"tile {tile} has packets too few or too many")
    return part


def _numbers(content: bytes) -> Iterator[int]:
    """Yield the lengths in PLT: seven bits a byte, the highest first; bit 7 says that more follow."""
    value = 0
    for byte in content:
        value = value << 7 | byte & 127
        if not byte & 128:
            yield value
            value = 0
    _see(not content or not content[-1] & 128, "PLT ends within a number")


def _packets(structure: Structure, tile: int) -> int:
    """Return how many packets a tile has: one for each precinct of each resolution and component (B.6)."""
    wanted, count = structure.wanted, 0
    for level, side in enumerate(wanted.precincts):
        left, top, right, bottom = (-(-edge // (1 << level)) for edge in structure.area(tile))
        if right > left and bottom > top:
            count += (-(-right // side) - left // side) * (-(-bottom // side) - top // side)
    return count * wanted.bands


def _lengths(structure: Structure) -> None:
    """See that TLM, where there is one, tells each tile-part's number and length (A.7.1)."""
    told = segment(structure, TLM)
    if not told:
        return
    # Stlm: bits 4 and 5 are the bytes of a tile's number, bit 6 whether lengths have 4 bytes.
    _see(told[:2] in (b"\0\x50", b"\0\x60", b"\0\x40"), "TLM is of another kind than wanted")
    form = {0x40: ">I", 0x50: ">BI", 0x60: ">HI"}[told[1]]
    found = [numbers[-2:] for numbers in struct.iter_unpack(form, told[2:])]
    lengths = [part.end - part.at for part in structure.parts]
    _see([numbers[-1] for numbers in found] == lengths, "TLM gives other lengths")
    tiles = [numbers[0] for numbers in found if len(numbers) == 2]
    _see(not tiles or tiles == [part.tile for part in structure.parts], "TLM gives other tiles")


# -- one tile --------------------------------------------------------------------------------


def cut(fd: int, structure: Structure, tile: int) -> bytes:
    """Return one tile as a codestream of its own, for a decoder that keeps all of an image in memory.

    The main header and the tile-part are the file's own bytes, but for SIZ, which says that the image
    begins and ends with this tile, SOT, which numbers it 0, and TLM, which is left out. On the
    reference grid (B.2, B.3) the tile is moved by whole periods of all that is anchored there,
    precincts, code blocks and the wavelet, so that these fall as they did: FFmpeg reads no image
    whose grid exceeds 268 million places, however small its image area.

    Args:
        fd: an open descriptor of the file; its offset stays.
        structure: where things lie in that file.
        tile: the tile's number, from 0: row by row, from the top left.
    """
    wanted = structure.wanted
    period = max([wanted.block << wanted.levels, *(s << level for level, s in enumerate(wanted.precincts))])
    left, top, right, bottom = structure.area(tile)
    right, bottom = right - left + left % period, bottom - top + top % period
    left, top = left % period, top % period
    made = struct.pack(">H", SOC)
    for marker, content in structure.segments:
        if marker == SIZ:
            kind = content[:2]
            area = struct.pack(">8I", right, bottom, left, top, *wanted.tile, left, top)
            content = kind + area + content[34:]
        if marker != TLM:
            made += struct.pack(">HH", marker, len(content) + 2) + content
    for part in structure.parts:
        if part.tile == tile:
            data = os.pread(fd, part.end - part.at, part.at)
            made += data[:4] + b"\0\0" + data[6:]
    return made + struct.pack(">H", EOC)
