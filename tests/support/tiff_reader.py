"""A second reader of TIFFs: directories by hand, tiles by imagecodecs; neither libvips nor libtiff."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

Tags = dict[int, tuple[Any, ...]]

_FORMS = {1: "B", 2: "c", 3: "H", 4: "I", 5: "II", 6: "b", 7: "c", 11: "f", 12: "d", 13: "I", 16: "Q"}
_KINDS = {1: "u", 2: "i", 3: "f"}  # SampleFormat


def directories(path: Path) -> list[Tags]:
    """Return {tag: all its values} of each directory of a little-endian TIFF or BigTIFF."""
    found = []
    with open(path, "rb") as file:
        magic, version = struct.unpack("<2sH", file.read(4))
        assert (magic, version) in ((b"II", 42), (b"II", 43)), "no little-endian TIFF"
        big = version == 43
        if big:
            assert struct.unpack("<HH", file.read(4)) == (8, 0)
        at = _read(file, "<Q" if big else "<I")
        while at:
            assert at % 2 == 0, "a directory begins at an odd offset"
            file.seek(at)
            count = _read(file, "<Q" if big else "<H")
            entries = [
                struct.unpack("<HHQ8s" if big else "<HHI4s", file.read(20 if big else 12))
                for _ in range(count)
            ]
            at = _read(file, "<Q" if big else "<I")
            assert [entry[0] for entry in entries] == sorted({entry[0] for entry in entries})
            found.append({tag: _values(file, kind, number, inside) for tag, kind, number, inside in entries})
    return found


def pixels_of(path: Path, level: int) -> NDArray[Any]:
    """Return one level's pixels: (height, width, bands)."""
    tags = directories(path)[level]
    (width,), (height,), (across,), (down,) = (tags[tag] for tag in (256, 257, 322, 323))
    (bands,), kind, bits = tags[277], _KINDS[tags[339][0]], tags[258][0]
    pixels = np.zeros((-(-height // down) * down, -(-width // across) * across, bands), f"{kind}{bits // 8}")
    corners = [(y, x) for y in range(0, height, down) for x in range(0, width, across)]
    with open(path, "rb") as file:
        for (y, x), offset, count in zip(corners, tags[324], tags[325], strict=True):
            file.seek(offset)
            data = np.frombuffer(imagecodecs.zlib_decode(file.read(count)), pixels.dtype)
            tile = data.reshape(down, across, bands)
            pixels[y : y + down, x : x + across] = _integrated(tile, tags[317][0])
    return pixels[:height, :width]


def _integrated(tile: NDArray[Any], predictor: int) -> NDArray[Any]:
    if predictor == 3:
        return np.asarray(imagecodecs.floatpred_decode(tile, axis=-2))
    assert predictor == 2
    return np.cumsum(tile, axis=1, dtype=tile.dtype)


def _read(file: IO[bytes], form: str) -> int:
    (value,) = struct.unpack(form, file.read(struct.calcsize(form)))
    return int(value)


def _values(file: IO[bytes], kind: int, number: int, inside: bytes) -> tuple[Any, ...]:
    size = struct.calcsize("<" + _FORMS[kind]) * number
    if size > len(inside):
        (at,) = struct.unpack("<Q" if len(inside) == 8 else "<I", inside)
        here = file.tell()
        file.seek(at)
        inside = file.read(size)
        file.seek(here)
        assert len(inside) == size, "a value lies outside the file"
    return struct.unpack("<" + _FORMS[kind] * number, inside[:size])
