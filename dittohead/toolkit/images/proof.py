"""Prove that a JP2 holds exactly its source's samples: both decoded by others than those who made it.

libvips reads the source and libopenjp2 codes it. So the result is decoded by FFmpeg's own decoder of
JPEG 2000, which shares no code with OpenJPEG, from the bytes that are published; and the source,
where its coding is exact and of a kind that tifffile (TIFF), libpng as imagecodecs builds it (PNG) or
FFmpeg (JPEG 2000 of the reversible wavelet) can read, by these. Sources of other kinds are read by
libvips a second time, which a proof then says.

What this cannot see: an error that two unrelated decoders share; a source whose own file was
wrong from the first.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dittohead.toolkit.images.fallback_reader import READER
from dittohead.toolkit.images.jp2 import rows_of
from dittohead.toolkit.images.jp2_header import is_reversible
from dittohead.toolkit.images.jp2_structure import Structure, cut
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.reasons import DamagedImage, RefusedImage, Unfit

#: Samples of an image that is decoded whole; a larger one is, a tile at a time.
_WHOLE = 1 << 25

#: Rows that are read at once where nothing else says how many.
_ROWS = 256

#: Samples of a strip that is decoded at once.
_STRIP = 1 << 26

#: Compressions of TIFF that give back exactly what was put in: none, LZW, deflate (two numbers),
#: PackBits, Zstandard, LZMA. Source: TIFF 6.0 sections 3, 9, 13; libtiff's tiff.h.
_EXACT = frozenset({1, 5, 8, 32946, 32773, 50000, 34925})

_UNCOMPRESSED = 1

#: Of FillOrder: the bits of each byte are turned round. Source: TIFF 6.0 section 8.
_LOWEST_FIRST = 2


#: What tifffile says of a coding that neither it nor imagecodecs knows.
_UNKNOWN = re.compile(
    "not supported|unsupported|requires|unknown|not implemented|cannot decode", re.IGNORECASE
)


class Samples:
    """The digest of an image's samples, whatever file they lie in.

    SHA-256 over a line of ASCII that ends in a line feed, "width=W height=H bands=B bits=N unsigned",
    and then the samples row by row from the top, pixel by pixel from the left, band by band, each a
    big-endian number of N bits, 8 or 16.
    """

    def __init__(self, width: int, height: int, bands: int, bits: int) -> None:
        self._shape = (width, bands)
        self._kind = np.dtype(f">u{bits // 8}")
        self._missing = height
        line = f"width={width} height={height} bands={bands} bits={bits} unsigned\n"
        self._digest = hashlib.sha256(line.encode())

    def add(self, rows: NDArray[Any]) -> None:
        """Take in the next rows, of (height, width, bands). Raises: RefusedImage: another shape."""
        if rows.shape[1:] != self._shape or rows.dtype.itemsize != self._kind.itemsize:
            raise RefusedImage(
                f"its rows are {rows.shape[1:]} of {rows.dtype}, not {self._shape} of {self._kind}"
            )
        if rows.dtype.kind != "u":
            raise RefusedImage(f"its samples are of type {rows.dtype}, not unsigned")
        self._missing -= len(rows)
        self._digest.update(np.ascontiguousarray(rows, self._kind).data)

    def hexdigest(self) -> str:
        """Return the digest. Raises: RefusedImage: rows are missing, or too many."""
        if self._missing:
            raise RefusedImage(
                f"it has {abs(self._missing)} rows too {'few' if self._missing > 0 else 'many'}"
            )
        return self._digest.hexdigest()


def prove(
    fd: int | None, number: int, again: Callable[[], pyvips.Image], made: int, structure: Structure
) -> dict[str, Any]:
    """Decode a source and its result, compare, and return the evidence for the receipt.

    Args:
        fd: the source; None when it was changed, and `again` gives what it became.
        number: of its page, counted from 1.
        again: opens that page again by libvips.
        made: the result, of the structure that was found in it.
        structure: with the size that both must have.

    Raises:
        RefusedImage: the samples are not the same.
        Unfit: what they are is not certain: two decoders find others in the source.
    """
    wanted = structure.wanted
    size = wanted.width, wanted.height, wanted.bands, wanted.bits
    source, reader = _source(fd, number, again, Samples(*size))
    result = Samples(*size)
    for rows in _decoded(made, structure):
        result.add(rows)
    if result.hexdigest() != source:
        if reader == decoder() and result.hexdigest() == _digest(_by_libvips(again()), Samples(*size)):
            raise Unfit("libvips and FFmpeg do not read the same samples in it")
        raise RefusedImage(
            f"the result's samples are not the source's: {decoder()} finds {result.hexdigest()[:12]}..., "
            f"{reader} in the source {source[:12]}...; nothing was published"
        )
    whole = wanted.width * wanted.height * wanted.bands <= _WHOLE
    return {
        "samples": f"sha256:{source}",
        "bits": wanted.bits,
        "source_decoder": reader,
        "result_decoder": decoder() + ("" if whole else ", tile by tile"),
    }


@cache  # looking for the versions takes longer than reading a small image
def tools() -> dict[str, str]:
    """Return the versions of what a proof is made by; "ffmpeg" is missing where there is no decoder."""
    found = {}
    for name, package in (("tifffile", "tifffile"), ("imagecodecs", "imagecodecs")):
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    try:
        import av  # large, and of use to masters only
    except ImportError:
        return found
    major, minor, micro = av.library_versions["libavcodec"]
    return found | {"ffmpeg": f"libavcodec {major}.{minor}.{micro}"}


def decoder() -> str:
    """Return what decodes results, with its version."""
    return f"FFmpeg jpeg2000 ({tools()['ffmpeg']})"


# -- the source ------------------------------------------------------------------------------


def _source(
    fd: int | None, number: int, again: Callable[[], pyvips.Image], samples: Samples
) -> tuple[str, str]:
    """Return the digest of a source, and who has decoded it."""
    head = b"" if fd is None else os.pread(fd, 8, 0)
    here = tools()
    if fd is None:
        rows, name = None, ""
    elif head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and {"tifffile", "imagecodecs"} <= here.keys():
        rows = _tiff(fd, number)
        name = f"tifffile {here['tifffile']}, imagecodecs {here['imagecodecs']}"
    elif head.startswith(b"\x89PNG") and "imagecodecs" in here:
        rows, name = _png(fd), f"libpng in imagecodecs {here['imagecodecs']}"
    elif is_reversible(fd):
        rows, name = _jpeg2000(fd, again()), decoder()
    else:
        rows, name = None, ""
    if rows is None:
        image = again()
        reader = str(image.get(READER)) if image.get_typeof(READER) else f"libvips {_libvips()}"
        rows, name = _by_libvips(image), f"{reader}, a second time"
    return _digest(rows, samples), name


def _digest(rows: Iterator[NDArray[Any]], samples: Samples) -> str:
    for some in rows:
        samples.add(some)
    return samples.hexdigest()


def _jpeg2000(fd: int, image: pyvips.Image) -> Iterator[NDArray[Any]] | None:
    """Yield a JPEG 2000's samples; None of one that is too large, or that FFmpeg does not read."""
    if image.width * image.height * image.bands > _WHOLE:
        return None
    try:
        rows = _by_ffmpeg(os.pread(fd, os.fstat(fd).st_size, 0))
    except RefusedImage:
        return None
    return iter([rows])


def _libvips() -> str:
    return ".".join(str(pyvips.version(i)) for i in range(3))


def _by_libvips(image: pyvips.Image) -> Iterator[NDArray[Any]]:
    rows = rows_of(image)
    for top in range(0, image.height, _ROWS):
        yield rows(top, min(_ROWS, image.height - top))


def decode_tiff(fd: int) -> None:
    """Decode every page of a TIFF that libvips does not read. Raises: Unfit: none can; RefusedImage."""
    import tifffile  # large, and of use to masters only

    try:
        with tifffile.TiffFile(f"/proc/self/fd/{fd}") as file:
            for page in file.pages:
                page.asarray(maxworkers=1)
    except Exception as error:  # of as many kinds as there are codecs
        if _UNKNOWN.search(str(error)):
            raise Unfit(f"nothing here reads it ({error})") from error
        raise DamagedImage(f"the file is damaged, or of a kind that cannot be read ({error})") from error


def _png(fd: int) -> Iterator[NDArray[Any]] | None:
    """Yield a PNG's samples; None of one that is too large to be decoded whole."""
    import imagecodecs  # large, and of use to masters only

    width, height = (int.from_bytes(os.pread(fd, 4, at), "big") for at in (16, 20))
    if width * height * 4 > _STRIP:
        return None
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    return iter([_with_bands(np.asarray(imagecodecs.png_decode(data)))])


def _with_bands(rows: NDArray[Any]) -> NDArray[Any]:
    return rows if rows.ndim == 3 else rows[:, :, np.newaxis]


def _tiff(fd: int, number: int) -> Iterator[NDArray[Any]] | None:
    """Yield a page's samples, a row of tiles or strips at a time; None of one that libvips must read."""
    import tifffile  # large, and of use to masters only

    try:
        file = tifffile.TiffFile(f"/proc/self/fd/{fd}")
    except tifffile.TiffFileError:
        return None
    rows = _rows_of(fd, file.pages[number - 1]) if number <= len(file.pages) else None
    if rows is None:
        file.close()
        return None
    return _closing(file, rows)


def _closing(file: Any, rows: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    with file:
        yield from rows


def _rows_of(fd: int, page: Any) -> Iterator[NDArray[Any]] | None:
    tall = page.tilelength if page.is_tiled else page.rowsperstrip
    if (
        page.compression not in _EXACT
        or page.dtype is None
        or page.dtype.kind != "u"
        or not page.bitspersample
    ):
        return None
    as_it_lies = page.compression == _UNCOMPRESSED and page.fillorder != _LOWEST_FIRST
    if as_it_lies and not page.is_tiled and page.planarconfig == 1:
        return _uncompressed(fd, page)
    if tall * page.imagewidth * page.samplesperpixel > _STRIP:
        return None
    return _segments(fd, page)


def _uncompressed(fd: int, page: Any) -> Iterator[NDArray[Any]]:
    """Yield samples as they lie in strips, some rows at a time: a strip may be the whole image."""
    kind = np.dtype(page.parent.byteorder + page.dtype.str[1:])
    row = page.imagewidth * page.samplesperpixel * kind.itemsize
    left = page.imagelength
    for offset in page.dataoffsets:
        rows = min(page.rowsperstrip, left)
        left -= rows
        for top in range(0, rows, _ROWS):
            some = min(_ROWS, rows - top)
            data = os.pread(fd, some * row, offset + top * row)
            if len(data) != some * row:
                raise DamagedImage("the file ends early")
            yield np.frombuffer(data, kind).reshape(some, page.imagewidth, page.samplesperpixel)


def _segments(fd: int, page: Any) -> Iterator[NDArray[Any]]:
    """Yield rows of a compressed or tiled page, put together of their tiles and planes."""
    tall = page.tilelength if page.is_tiled else page.rowsperstrip
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
    down = -(-page.imagelength // tall)
    for step in range(down):
        rows = min(tall, page.imagelength - step * tall)
        band = np.empty((rows, page.imagewidth, page.samplesperpixel), page.dtype)
        for plane in range(planes):
            for column in range(across):
                index = (plane * down + step) * across + column
                data = os.pread(fd, page.databytecounts[index], page.dataoffsets[index])
                piece, place, _ = page.decode(data, index)
                left = place[3]
                bands = slice(plane, plane + 1) if planes > 1 else slice(None)
                some = band[:, left : left + piece.shape[2], bands]
                some[...] = piece[0, :rows, : some.shape[1]]
        yield band


# -- the result ------------------------------------------------------------------------------


def _decoded(made: int, structure: Structure) -> Iterator[NDArray[Any]]:
    """Yield a result's samples by FFmpeg, whole or a row of tiles at a time."""
    wanted = structure.wanted
    if wanted.width * wanted.height * wanted.bands <= _WHOLE:
        yield _by_ffmpeg(os.pread(made, os.fstat(made).st_size, 0))
        return
    across = structure.tiles_across
    for first in range(0, structure.parts[-1].tile + 1, across):
        tiles = range(first, first + across)
        yield np.hstack([_by_ffmpeg(cut(made, structure, tile)) for tile in tiles])


def _by_ffmpeg(data: bytes) -> NDArray[Any]:
    """Return the samples of a JP2 file or codestream. Raises: RefusedImage."""
    import av  # large, and of use to masters only

    context = av.CodecContext.create("jpeg2000", "r")
    context.thread_count = 1
    try:
        frames = [*context.decode(av.Packet(data)), *context.decode(None)]
    except av.FFmpegError as error:
        raise RefusedImage(f"{decoder()} cannot read the result: {error}") from error
    if len(frames) != 1:
        raise RefusedImage(f"{decoder()} finds {len(frames)} images in the result")
    frame, plane = frames[0], frames[0].planes[0]
    bands, bits = len(frame.format.components), frame.format.components[0].bits
    if bits not in (8, 16) or len(frame.planes) != 1:
        raise RefusedImage(f"{decoder()} finds samples of another kind ({frame.format.name})")
    order = ">" if frame.format.name.endswith("be") else "<"
    kind = np.dtype(f"{order}u{bits // 8}")
    # Rows of a frame are padded.
    rows: NDArray[Any] = np.frombuffer(memoryview(plane), kind).reshape(-1, plane.line_size // kind.itemsize)
    return rows[: frame.height, : frame.width * bands].reshape(frame.height, frame.width, bands)
