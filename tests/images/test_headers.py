"""What headers say of images, compared with what another library decodes; and headers that are damaged."""

from __future__ import annotations

import io
import os
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dittohead.toolkit.images.headers import ImageHeader, Unclear, read
from tests.support.images import encode, jpeg, pixels, tiff


def header(data: bytes) -> ImageHeader | None:
    fd = os.memfd_create("image")
    try:
        os.write(fd, data)
        return read(fd)
    finally:
        os.close(fd)


RGB, RGBA = Image.fromarray(pixels(61, 40)), Image.fromarray(pixels(61, 40, 4))
GREY = Image.fromarray(pixels(61, 40, 1))
ALPHA = "unassociated alpha data"

#: (file, compression, colour space, bits, extra samples)
KINDS: list[tuple[bytes, str, str, tuple[int, ...], tuple[str, ...]]] = [
    (tiff(61, 40), "no compression", "RGB", (8, 8, 8), ()),
    (encode(RGB, "TIFF", compression="tiff_lzw"), "LZW", "RGB", (8, 8, 8), ()),
    (encode(RGB, "TIFF", compression="jpeg"), "JPEG", "RGB", (8, 8, 8), ()),
    (encode(RGB, "TIFF", compression="tiff_adobe_deflate"), "Deflate", "RGB", (8, 8, 8), ()),
    (encode(RGBA, "TIFF"), "no compression", "RGB", (8, 8, 8, 8), (ALPHA,)),
    (encode(RGB.convert("CMYK"), "TIFF"), "no compression", "CMYK", (8,) * 4, ()),
    (encode(GREY.convert("1"), "TIFF", compression="group4"), "CCITT Group 4", "BlackIsZero", (1,), ()),
    (encode(RGB.quantize(16), "TIFF"), "no compression", "PaletteColor", (8,), ()),
    (encode(pixels(61, 40, 1, np.uint16), "TIFF"), "no compression", "BlackIsZero", (16,), ()),
    (encode(Image.fromarray(np.ones((40, 61), np.float32)), "TIFF"), "no compression", "BlackIsZero", (32,), ()),
    (jpeg(61, 40), "JPEG", "YCbCr", (8, 8, 8), ()),
    (encode(RGB, "JPEG", progressive=True), "JPEG", "YCbCr", (8, 8, 8), ()),
    (encode(GREY, "JPEG"), "JPEG", "BlackIsZero", (8,), ()),
    (encode(RGB.convert("CMYK"), "JPEG"), "JPEG", "CMYK", (8,) * 4, ()),
    (encode(RGB, "JPEG", keep_rgb=True), "JPEG", "RGB", (8, 8, 8), ()),
    (encode(RGB, "PNG"), "Deflate", "RGB", (8, 8, 8), ()),
    (encode(RGBA, "PNG"), "Deflate", "RGB", (8,) * 4, (ALPHA,)),
    (encode(GREY.convert("LA"), "PNG"), "Deflate", "BlackIsZero", (8, 8), (ALPHA,)),
    (encode(RGB.quantize(4), "PNG", bits=2), "Deflate", "PaletteColor", (2,), ()),
    (encode(pixels(61, 40, 1, np.uint16), "PNG"), "Deflate", "BlackIsZero", (16,), ()),
    (encode(RGB, "GIF"), "LZW", "PaletteColor", (8,), ()),
    (encode(RGB, "WEBP"), "WebP lossy", "YCbCr", (8, 8, 8), ()),
    (encode(RGB, "WEBP", lossless=True), "WebP lossless", "RGB", (8, 8, 8), ()),
    (encode(RGBA, "WEBP", lossless=True), "WebP lossless", "RGB", (8,) * 4, (ALPHA,)),
    (encode(RGBA, "WEBP"), "WebP lossy", "YCbCr", (8,) * 4, (ALPHA,)),
    (encode(RGB, "JPEG2000", irreversible=False), "JPEG 2000 lossless", "sRGB", (8, 8, 8), ()),
    (encode(RGB, "JPEG2000", irreversible=True), "JPEG 2000 lossy", "sRGB", (8, 8, 8), ()),
    (encode(GREY, "JPEG2000", no_jp2=True), "JPEG 2000 lossless", "greyscale", (8,), ()),
    (encode(RGBA, "JPEG2000"), "JPEG 2000 lossless", "sRGB", (8,) * 4, ("unspecified data",)),
]  # fmt: skip


@pytest.mark.parametrize(("data", "compression", "colour", "bits", "extra"), KINDS, ids=range(len(KINDS)))
def test_what_a_header_says(
    data: bytes, compression: str, colour: str, bits: tuple[int, ...], extra: tuple[str, ...]
) -> None:
    found = header(data)
    assert found is not None
    with Image.open(io.BytesIO(data)) as image:
        assert (found.width, found.height) == image.size
        assert found.media_type == Image.MIME[image.format or ""]
    assert (found.compression, found.colour_space, found.bits, found.extra) == (
        compression,
        colour,
        bits,
        extra,
    )
    assert bool(found.byte_order) == (found.media_type == "image/tiff")


def test_both_byte_orders_and_floating_samples() -> None:
    found = header(encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"))
    assert found is not None
    assert (found.floating, found.byte_order) == (True, "little endian")
    big = b"MM\0*" + struct.pack(">I", 8) + struct.pack(">H", 3)
    for tag, value in ((256, 7), (257, 5), (262, 1)):
        big += struct.pack(">HHIHH", tag, 3, 1, value, 0)
    found = header(big + bytes(4))
    assert found is not None
    assert (found.byte_order, found.width, found.bits) == ("big endian", 7, (1,))


@pytest.mark.parametrize("data", [b"", b"text", b"%PDF-1.4", b"II*\0", b"\x89PNG", b"GIF89a"])
def test_no_image_or_no_header(data: bytes) -> None:
    """What is no image is nothing; what begins as one and ends there is unclear, and nothing worse."""
    if data[:2] in (b"II", b"\x89P", b"GI"):
        with pytest.raises(Unclear):
            header(data)
    else:
        assert header(data) is None


def test_an_image_whose_right_edge_lies_left_of_its_left_one_is_unclear() -> None:
    """JPEG 2000 gives both edges. Source: ISO 15444-1, A.5.1."""
    data = next(data for data, *_ in KINDS if b"ftypjp2" in data[:40])
    at = data.index(b"\xff\x51") + 6  # Xsiz; XOsiz stands 8 bytes behind it
    damaged = data[: at + 8] + (2**24).to_bytes(4, "big") + data[at + 12 :]
    with pytest.raises(Unclear, match="how large"):
        header(damaged)


@given(data=st.data(), which=st.integers(0, len(KINDS) - 1))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_no_damage_ends_in_anything_else(data: Any, which: int) -> None:
    file = bytearray(KINDS[which][0][:4000])
    for at in data.draw(st.lists(st.integers(0, min(len(file) - 1, 400)), max_size=6)):
        file[at] ^= data.draw(st.integers(1, 255))
    try:
        found = header(bytes(file[: data.draw(st.integers(0, len(file)))]))
    except Unclear:
        return
    assert found is None or (found.width > 0 and found.height > 0 and found.bits)
