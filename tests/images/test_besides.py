"""What a file holds besides its picture is told by name."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from dittohead.toolkit.images import losses
from tests.support.images import encode, pixels

RGB = pixels(40, 30)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def tiff(*tags: tuple[int, str, int, object, bool]) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, RGB, photometric="rgb", software=None, metadata=None, extratags=tags)
    return out.getvalue()


def several(kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(RGB).save(out, kind, save_all=True, append_images=[Image.fromarray(255 - RGB)])
    return out.getvalue()


JPEG, PNG = encode(RGB, "JPEG"), encode(RGB, "PNG")
JP2 = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
XMP = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (JPEG, []),
        (JPEG + bytes(9), []),
        (JPEG + b"a film", ["what follows the image"]),
        (JPEG[:2] + segment(0xFE, b"a word") + segment(0xEB, b"?") + JPEG[2:], ["JPEG comment", "JPEG APP11"]),
        (several("MPO"), ["further images (MPF)"]),
        (PNG, []),
        (PNG + b"?", ["what follows the image"]),
        (PNG[:33] + chunk(b"tEXt", b"Author\0A") + chunk(b"tIME", bytes(7)) + PNG[33:], ["PNG Author", "PNG tIME"]),
        (PNG[:33] + chunk(b"gAMA", bytes(4)) + PNG[33:], ["PNG gAMA"]),
        (PNG[:33] + chunk(b"gAMA", bytes(4)) + chunk(b"sRGB", b"\0") + PNG[33:], []),
        (several("PNG"), ["further images (APNG)"]),
        (tiff(), []),
        (tiff((33550, "d", 3, (1.0, 1.0, 0.0), True)), ["GeoTIFF"]),
        (tiff((65000, "s", 0, "a word", True), (18246, "H", 1, 3, True)), ["TIFF Rating", "TIFF tag 65000"]),
        (JP2 + box(b"jp2h", box(b"res ", b"")) + box(b"jp2c", b""), ["resolution"]),
        (JP2 + box(b"uuid", XMP) + box(b"xml ", b"") + box(b"uuid", bytes(16)), ["XMP", "JP2 box xml", "JP2 box uuid"]),
        (JP2 + box(b"jp2c", b"") + box(b"jp2c", b""), ["further images (codestreams)"]),
        (b"", []),
        (JPEG[:30], []),
        (PNG[:40], []),
    ],
)  # fmt: skip
def test_what_is_held_besides_is_named(tmp_path: Path, data: bytes, wanted: list[str]) -> None:
    (tmp_path / "a").write_bytes(data)
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    try:
        assert losses.held(fd) == wanted
    finally:
        os.close(fd)


def test_a_heif_names_depths_and_colours_in_numbers() -> None:
    """Of alpha, and of the numbers of sRGB, nothing is to be said: they are read."""
    out = io.BytesIO()
    picture = Image.fromarray(np.full((60, 80, 4), 90, np.uint8))
    pillow_heif.from_pillow(picture).save(out)
    data = out.getvalue()
    assert _held(data) == []
    assert _held(data.replace(b"auxid:1\0", b"auxid:2\0")) == ["auxiliary images (depth, light)"]
    at = data.index(b"nclx") + 4
    wide = data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :]
    assert _held(wide) == ["colours by number (nclx 12/13)"]


def _held(data: bytes) -> list[str]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return losses.held(file.fileno())
