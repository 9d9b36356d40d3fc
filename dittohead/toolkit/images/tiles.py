"""Writes pyramid TIFFs as libvips' tiffsave does: lossless in a tenth of its time, lossy with clean edges.

libtiff compresses in one thread, and libvips has it compress every level but the first twice. Here
libvips reads, shrinks and says which tags there are; only predictor, compression and the file's
layout are ours. Tiles lie in the order they are made, directories at the end, and the header comes
last: a file that was not finished is not a TIFF.

Of lossy tiles libvips makes each, as it would in a whole pyramid; but what a tile at the edge has too much
is the last pixel again. libvips leaves it black, and a JPEG has half of that in the last column and row.

Memory: a row of tiles of every level, with threads three times, whatever the height.

Numpy makes the predictor's differences: libvips' operations need six times as long (0.26 s against
0.04 s for 144 MB).

Source: TIFF 6.0 sections 2 (directories), 14 (predictor), 15 (tiles); Adobe Photoshop TIFF Technical
Notes, 22 March 2002 (compression 8); TIFF Technical Note 3 (predictor 3); BigTIFF as in libtiff's
documentation.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import deflate

from dittohead.toolkit.images.library import pyvips

# Read when numpy is loaded: else a buffer for each core, of address space that the child must not exceed.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np
from numpy.typing import NDArray

#: libvips' names of pixel formats, and what numpy calls them. Doubles libvips cannot read back from a TIFF.
_FORMATS = {
    "uchar": "u1",
    "char": "i1",
    "ushort": "u2",
    "short": "i2",
    "uint": "u4",
    "int": "i4",
    "float": "f4",
}

_NAMES = {code: name for name, code in _FORMATS.items()}

#: Colours that libvips writes as they lie in memory; Lab and its kin are repacked on the way.
_COLOURS = frozenset({"multiband", "b-w", "rgb", "srgb", "rgb16", "grey16", "cmyk", "scrgb"})

#: The end of the tiles above which a file becomes a BigTIFF: directories and profiles must fit below 4 GiB.
_BIG = int(3.5 * (1 << 30))

#: Where classic TIFF's tiles must end: half of what is left by its 4 GiB is more than directories need.
_CLASSIC_END = int(3.75 * (1 << 30))

_WIDTH, _LENGTH, _BITS, _COMPRESSION = 256, 257, 258, 259
_SAMPLES, _PREDICTOR, _SAMPLE_FORMAT = 277, 317, 339
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325

_SHORT, _LONG, _LONG8 = 3, 4, 16

#: Bytes of one value of a field's type (TIFF 6.0 section 2).
_SIZES = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8), start=1))

_ADOBE_DEFLATE, _HORIZONTAL, _FLOATING = 8, 2, 3

#: Compressions, and the tag of what all tiles' JPEGs have in common. Source: TIFF Technical Note 2; tiff.h.
_JPEG, _WEBP, _TABLES = 7, 50001, 347

#: The smallest tile TIFF knows, for the sample that shows the tags.
_SMALLEST = 16

#: Left free at the beginning: a BigTIFF's header is that long.
_HEADER = 16

#: libvips' VIPS_REGION_SHRINK_MEAN.
_MEAN = 0

_Data = bytes | bytearray
_Encode = Callable[[NDArray[Any]], _Data]  #: one tile
_EncodeRow = Callable[[NDArray[Any]], Iterator[_Data]]  #: a row of tiles

Tags = dict[int, tuple[int, int, bytes]]  #: tag: (type, count, values as in the file)


@dataclass(frozen=True, slots=True)
class Lossy:
    """How tiles are compressed that do not keep every pixel."""

    compression: str  #: jpeg, webp
    quality: int

    @property
    def options(self) -> dict[str, Any]:
        """For libvips."""
        return {"compression": self.compression, "Q": self.quality}


def can_write(image: pyvips.Image, lossy: Lossy | None = None) -> bool:
    """Return whether `write` makes of this image what libvips would; if not, have libvips do it."""
    if image.coding != "none" or image.format not in _FORMATS or image.interpretation not in _COLOURS:
        return False
    if sys.byteorder != "little" or _vips() is None or image.get_page_height() != image.height:
        return False
    first, _ = _tags_of(image, lossy)
    if lossy is not None:
        code = struct.unpack("<H", first[_COMPRESSION][2])[0]
        return code == _WEBP or (code == _JPEG and _TABLES in first)
    bits = np.dtype(_FORMATS[image.format]).itemsize * 8
    return (
        first[_COMPRESSION][2] == _short(_ADOBE_DEFLATE)
        and first[_PREDICTOR][2] == _short(_FLOATING if _is_floating(image) else _HORIZONTAL)
        and first[_SAMPLES][2] == _short(image.bands)
        and first[_BITS][2] == _short(bits) * image.bands
    )


def write(
    image: pyvips.Image,
    fd: int,
    *,
    tile: int = 256,
    level: int = 1,
    threads: int = 1,
    bigtiff: bool | None = None,
    lossy: Lossy | None = None,
    end: str = "tile",
) -> None:
    """Write an image, read once from top to bottom, as a tiled pyramid TIFF by deflate, JPEG or WebP.

    Every level has the pixels and tags that libvips' tiffsave(compression="deflate", tile=True,
    pyramid=True) gives it, with predictor="float" where pixels are floating-point numbers.
    Not durable by itself: fsync the file.

    Args:
        image: one that `can_write`; access="sequential" is enough.
        fd: a regular file open for writing; it is emptied first, its position is not used.
        tile: width and height of tiles in pixels, a multiple of 16.
        level: libdeflate's, 1 (fastest) to 12; 4 makes smaller files than libvips' 6.
        threads: compress that many tiles at once.
        bigtiff: write offsets of 64 bits; None: if the tiles end above 3.5 GiB.
        lossy: make such tiles instead, of 8 bits, grey or RGB.
        end: the last level fits a "tile", or is one "pixel"; "one": there is but one.

    Raises:
        pyvips.Error: the image could not be read to its end.
        OSError: the file could not be written (full disk, quota, limit).
    """
    if tile % 16 or tile <= 0:
        raise ValueError("tiles measure a multiple of 16 pixels")
    os.ftruncate(fd, 0)
    file = _File(fd)
    first, further = _tags_of(image, lossy)
    last = {"tile": tile, "pixel": 1}.get(end, max(image.width, image.height))
    levels = [_Level(width, height, tile) for width, height in _sizes(image.width, image.height, last)]
    encode = _lossless(_is_floating(image), tile, level)
    row = _lossy(image.interpretation, tile, lossy) if lossy else None
    packer = _Packer(file, encode, row, tile=tile, threads=threads, ahead=2 * -(-image.width // tile))
    with packer:
        for strip in _strips(image, tile):
            _add(strip, levels, image.interpretation, packer)
    big = file.end > _BIG if bigtiff is None else bigtiff
    if not big and file.end > _CLASSIC_END:
        raise OSError(errno.EFBIG, "a TIFF above 4 GiB must be a BigTIFF")
    both = [first, *[further] * (len(levels) - 1)]
    _finish(file, [tags | one.tags(big=big) for tags, one in zip(both, levels, strict=True)], big=big)


# -- pixels ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Level:
    """One size of the picture, and where its tiles lie."""

    width: int
    height: int
    tile: int
    rows: int = 0  #: received so far
    strip: NDArray[Any] | None = None  #: the row of tiles that is being filled
    offsets: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def tags(self, *, big: bool) -> Tags:
        return {
            _WIDTH: _one(self.width),
            _LENGTH: _one(self.height),
            _TILE_WIDTH: _one(self.tile),
            _TILE_LENGTH: _one(self.tile),
            _TILE_OFFSETS: _numbers(self.offsets, big=big),
            _TILE_COUNTS: _numbers(self.counts, big=False),
        }


def _sizes(width: int, height: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the levels libvips makes: until one fits a square, or a side is a single pixel."""
    yield width, height
    while (width > last or height > last) and width > 1 and height > 1:
        width, height = width // 2, height // 2
        yield width, height


def _strips(image: pyvips.Image, tile: int) -> Iterator[NDArray[Any]]:
    """Yield the image in rows of tiles: (tile or what is left, width, bands)."""
    # One region for all: what ends a pipeline of libvips empties caches, and lines of a strip that was
    # read in part could not be read again from a source that is read once.
    region = pyvips.Region.new(image)
    for top in range(0, image.height, tile):
        rows = min(tile, image.height - top)
        data = region.fetch(0, top, image.width, rows)
        yield np.frombuffer(data, _FORMATS[image.format]).reshape(rows, image.width, image.bands)


def _add(strip: NDArray[Any], levels: list[_Level], colour: str, packer: _Packer) -> None:
    """Hand a full row of tiles to the packer, and its half to the level below, which may fill in turn."""
    here, *below = levels
    packer.pack(strip, here)
    rows = len(strip) // 2  # a last odd row is dropped, as libvips does
    if not below or not rows:
        return
    low = below[0]
    if low.strip is None:
        shape = (min(low.tile, low.height - low.rows), low.width, strip.shape[2])
        low.strip = np.empty(shape, strip.dtype)
    at = low.rows % low.tile
    _halve(strip, low.strip[at : at + rows], colour)
    low.rows += rows
    if at + rows == len(low.strip):
        full, low.strip = low.strip, None
        _add(full, below, colour, packer)


class _Rect(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in ("left", "top", "width", "height")]


@cache
def _vips() -> Any:
    """Return the libvips that pyvips uses, or None if that has another name (a wheel's own, say)."""
    try:
        library = ctypes.CDLL("libvips.so.42", mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:
        return None
    area = ctypes.POINTER(_Rect)
    library.vips_region_prepare.argtypes = [ctypes.c_void_p, area]
    library.vips_region_shrink_method.argtypes = [ctypes.c_void_p, ctypes.c_void_p, area, ctypes.c_int]
    return library


def _halve(source: NDArray[Any], target: NDArray[Any], colour: str) -> None:
    """Fill `target` with the means of 2x2 pixels, by libvips' own function.

    With an alpha band the mean is a weighted one; how it is rounded has changed between versions.
    """
    before = _memory(source).copy(interpretation=colour)  # the colour tells whether a band is alpha
    regions = [pyvips.Region.new(image) for image in (before, _memory(target))]
    source_at, target_at = (int(pyvips.ffi.cast("uintptr_t", region.pointer)) for region in regions)
    vips, area = _vips(), _Rect(0, 0, target.shape[1], target.shape[0])
    failed = vips.vips_region_prepare(source_at, _Rect(0, 0, source.shape[1], source.shape[0]))
    failed = failed or vips.vips_region_prepare(target_at, area)
    if failed or vips.vips_region_shrink_method(source_at, target_at, area, _MEAN):
        raise pyvips.Error("unable to shrink")


def _memory(pixels: NDArray[Any]) -> pyvips.Image:
    """Return an image that is this memory, not a copy of it."""
    height, width, bands = pixels.shape
    return pyvips.Image.new_from_memory(pixels.data, width, height, bands, _NAMES[pixels.dtype.str[1:]])


# -- tiles -----------------------------------------------------------------------------------


class _Packer:
    """Compresses rows of tiles, each while the next one is made, and appends them to the file."""

    def __init__(
        self, file: _File, encode: _Encode, row: _EncodeRow | None, *, tile: int, threads: int, ahead: int
    ) -> None:
        self._file, self._encode, self._row, self._tile, self._ahead = file, encode, row, tile, ahead
        self._pool = ThreadPoolExecutor(threads, "tiles") if threads > 1 else None
        self._waiting: deque[tuple[_Level, Future[_Data]]] = deque()

    def __enter__(self) -> _Packer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._write_ahead()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)

    def pack(self, strip: NDArray[Any], to: _Level) -> None:
        """Compress and write one row of tiles; with threads, while later ones are made."""
        if self._row is not None:
            for data in self._row(strip):
                self._store(to, data)
            return
        blocks = [strip[:, left : left + self._tile] for left in range(0, strip.shape[1], self._tile)]
        if self._pool is None:
            for block in blocks:
                self._store(to, self._encode(block))
            return
        self._waiting.extend((to, self._pool.submit(self._encode, block)) for block in blocks)
        self._write_ahead(self._ahead)

    def _write_ahead(self, left: int = 0) -> None:
        """Write the oldest tiles until so many are left."""
        while len(self._waiting) > left:
            to, done = self._waiting.popleft()
            self._store(to, done.result())

    def _store(self, to: _Level, data: _Data) -> None:
        to.offsets.append(self._file.append(data))
        to.counts.append(len(data))


def _lossless(floating: bool, tile: int, level: int) -> _Encode:
    differences = _floating if floating else _horizontal

    def encode(block: NDArray[Any]) -> _Data:
        found: bytearray = deflate.zlib_compress(differences(block, tile), level)
        return found

    return encode


def _lossy(colour: str, tile: int, lossy: Lossy) -> _EncodeRow:
    """Return what makes a row of lossy tiles: libvips, of a TIFF that is this row alone."""

    def encode(strip: NDArray[Any]) -> Iterator[_Data]:
        height, width, _ = strip.shape
        room = ((0, tile - height), (0, -width % tile), (0, 0))
        whole = np.pad(strip, room, mode="edge") if (height, width % tile) != (tile, 0) else strip
        data = (
            _memory(whole)
            .copy(interpretation=colour)
            .tiffsave_buffer(**lossy.options, tile=True, tile_width=tile, tile_height=tile)
        )
        tags = next(_directories(bytes(data)))
        for at, size in zip(*(_values(tags[tag]) for tag in (_TILE_OFFSETS, _TILE_COUNTS)), strict=True):
            yield bytes(data[at : at + size])

    return encode


def _horizontal(block: NDArray[Any], tile: int) -> NDArray[Any]:
    """Return a whole tile's differences to the pixel on the left, modulo the sample's size.

    What an edge tile has too much is zeros: the last pixel of the row again, for the least of bytes.
    Source: TIFF 6.0 section 14; libtiff does the same to samples of 32 and 64 bits.
    """
    rows, width, bands = block.shape
    whole = np.uint8 if block.itemsize == 1 else np.dtype(f"u{block.itemsize}")
    found = np.zeros((tile, tile * bands), whole)
    pixels = block.reshape(rows, width * bands).view(whole)
    found[:rows, :bands] = pixels[:, :bands]
    np.subtract(pixels[:, bands:], pixels[:, :-bands], out=found[:rows, bands : width * bands])
    return found


def _floating(block: NDArray[Any], tile: int) -> NDArray[Any]:
    """Return a whole tile's rows with all first bytes, the highest, then all second ..., as differences.

    Source: TIFF Technical Note 3.
    """
    rows, width, bands = block.shape
    pixels = np.zeros((tile, tile, bands), block.dtype)
    pixels[:rows, :width] = block
    planes = pixels.view(np.uint8).reshape(tile, tile * bands, block.itemsize)[:, :, ::-1]
    lined = planes.transpose(0, 2, 1).reshape(tile, -1)
    found = lined.copy()
    np.subtract(lined[:, bands:], lined[:, :-bands], out=found[:, bands:])
    return found


# -- the file --------------------------------------------------------------------------------


class _File:
    """A file that grows at its end; the header's place is kept free."""

    def __init__(self, fd: int) -> None:
        self.fd, self.end = fd, _HEADER

    def append(self, data: bytes | bytearray) -> int:
        """Write at the end; return where that was."""
        at = self.end
        self.put(data, at)
        self.end += len(data)
        return at

    def align(self) -> None:
        """Make the end a multiple of 8: directories and values begin at even offsets."""
        self.append(bytes(-self.end % 8))

    def put(self, data: bytes | bytearray, at: int) -> None:
        left = memoryview(data)
        while left:
            written = os.pwrite(self.fd, left, at)
            left, at = left[written:], at + written


def _finish(file: _File, directories: list[Tags], *, big: bool) -> None:
    """Write the directories, and at last the header, which makes a TIFF of it."""
    following = 0
    for tags in reversed(directories):  # so that each knows where the next one lies
        following = _append(file, tags, following, big=big)
    if big:
        file.put(struct.pack("<2sHHHQ", b"II", 43, 8, 0, following), 0)
    else:
        file.put(struct.pack("<2sHI", b"II", 42, following), 0)


def _append(file: _File, tags: Tags, following: int, *, big: bool) -> int:
    """Append one directory, its longer values before it; return where it begins."""
    count, entry, offset = ("<Q", "<HHQ", "<Q") if big else ("<H", "<HHI", "<I")
    inside = struct.calcsize(offset)
    lines = []
    for tag, (kind, number, value) in sorted(tags.items()):
        if len(value) > inside:
            file.align()
            value = struct.pack(offset, file.append(value))
        lines.append(struct.pack(entry, tag, kind, number) + value.ljust(inside, b"\0"))
    file.align()
    return file.append(struct.pack(count, len(lines)) + b"".join(lines) + struct.pack(offset, following))


# -- tags ------------------------------------------------------------------------------------


def _tags_of(image: pyvips.Image, lossy: Lossy | None = None) -> tuple[Tags, Tags]:
    """Return the tags libvips gives the first level of an image and the further ones.

    It is asked to write a sample of two tiles. Geometry and places in these are the sample's.
    """
    sample = pyvips.Image.black(_SMALLEST + 1, 2, bands=image.bands).cast(image.format)
    sample = sample.copy(interpretation=image.interpretation, xres=image.xres, yres=image.yres)
    # Laid outside, where none of its pixels is read; its profile and other metadata come along.
    sample = sample.insert(image, sample.width, 0).copy()
    sample.remove("page-height")
    predictor = "float" if _is_floating(image) else "horizontal"
    coded = lossy.options if lossy else {"compression": "deflate", "predictor": predictor}
    data = sample.tiffsave_buffer(
        **coded,
        tile=True,
        tile_width=_SMALLEST,
        tile_height=_SMALLEST,
        pyramid=True,
    )
    first, further = _directories(bytes(data))
    # libvips before 8.15 leaves it out there, by which signed and floating-point levels are misread.
    return first, further | {_SAMPLE_FORMAT: first[_SAMPLE_FORMAT]}


def _directories(data: bytes) -> Iterator[Tags]:
    (at,) = struct.unpack_from("<I", data, 4)
    while at:
        (count,) = struct.unpack_from("<H", data, at)
        entries = data[at + 2 : at + 2 + count * 12]
        yield {tag: _field(data, *rest) for tag, *rest in struct.iter_unpack("<HHI4s", entries)}
        (at,) = struct.unpack_from("<I", data, at + 2 + count * 12)


def _values(field: tuple[int, int, bytes]) -> tuple[int, ...]:
    kind, number, value = field
    return struct.unpack(f"<{number}{'H' if kind == _SHORT else 'I'}", value)


def _field(data: bytes, kind: int, number: int, value: bytes) -> tuple[int, int, bytes]:
    size = _SIZES[kind] * number
    if size > len(value):
        (at,) = struct.unpack("<I", value)
        value = data[at:]
    return kind, number, value[:size]


def _is_floating(image: pyvips.Image) -> bool:
    return _FORMATS[image.format].startswith("f")


def _one(value: int) -> tuple[int, int, bytes]:
    """Return a field of one number, in as few bytes as libtiff uses."""
    return (_SHORT, 1, _short(value)) if value < 1 << 16 else (_LONG, 1, struct.pack("<I", value))


def _short(value: int) -> bytes:
    return struct.pack("<H", value)


def _numbers(values: list[int], *, big: bool) -> tuple[int, int, bytes]:
    return (
        (_LONG8 if big else _LONG),
        len(values),
        struct.pack(f"<{len(values)}{'Q' if big else 'I'}", *values),
    )
