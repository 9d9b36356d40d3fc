"""IPTC is carried to whatever can hold it, byte for byte, wherever it stood."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tifffile
from PIL import Image, IptcImagePlugin

from tests.support.convert import Rig
from tests.support.images import encode, jpeg, pixels

DATASETS = b"\x1c\x01\x5a\0\x03\x1b%G\x1c\x02\0\0\x02\0\x04\x1c\x02\x69\0\x0dGr\xc3\xbc\xc3\x9fe, Jean\x1c\x02\x50\0\x03Me."
PICTURE = pixels(60, 40)


def resources(*more: tuple[int, bytes]) -> bytes:
    """Return Photoshop's resources: one of another kind and of an odd length first."""
    every = [(0x0425, b"digest of nothing"), (0x0404, DATASETS), *more]
    return b"".join(
        b"8BIM" + struct.pack(">HxxI", number, len(data)) + data + bytes(len(data) % 2)
        for number, data in every
    )


def as_tag(number: int, kind: int, data: bytes, order: str = "<") -> bytes:
    out, count, value = io.BytesIO(), len(data), data
    given: Any = value
    if kind == 4:
        data = data.ljust(-(-len(data) // 4) * 4, b"\0")
        count, given = len(data) // 4, struct.unpack(f"{order}{len(data) // 4}I", data)
    tags = [(number, kind, count, given, True)]
    tifffile.imwrite(out, PICTURE, photometric="rgb", extratags=tags, byteorder=order, metadata=None)
    return out.getvalue()


def as_segment(*, split: bool = False) -> bytes:
    """Return a JPEG with APP13, which may go on in a second one."""
    data, whole = jpeg(60, 40), resources()
    pieces = [whole[:30], whole[30:]] if split else [whole]
    segments = [b"Photoshop 3.0\0" + piece for piece in pieces]
    marked = b"".join(b"\xff\xed" + struct.pack(">H", len(each) + 2) + each for each in segments)
    return data[:20] + marked + data[20:]  # behind the JFIF header


SOURCES: dict[str | bytes, Any] = {
    "undefined.tif": as_tag(33723, 7, DATASETS),
    "long.tif": as_tag(33723, 4, DATASETS),
    "big-endian.tif": as_tag(33723, 4, DATASETS, ">"),
    "photoshop.tif": as_tag(34377, 7, resources()),
    "app13.jpg": as_segment(),
    "split.jpg": as_segment(split=True),
}


@pytest.mark.parametrize("form", ["pyramid-tiff", "deflate", "jpeg", "jp2", "png"])
async def test_iptc_comes_along(tmp_path: Path, form: str) -> None:
    rig = Rig(tmp_path)
    options = {"compression": "deflate"} if form == "deflate" else {"format": form}
    ctx = await rig.convert(SOURCES, **options)
    assert len(ctx.outputs) == len(SOURCES)
    more = {os.fsdecode(each.path) for each in ctx.outputs if each.path[:3] in (b"app", b"spl")}
    more -= {"app13.jpg"}  # to which all of it comes along
    for output in ctx.outputs:
        name, lost = os.fsdecode(output.path), output.detail.get("lost", [])
        assert ("IPTC" in lost) is (form == "png"), name
        assert ("Photoshop" in lost) is (name in more), name
        path = ctx.work / name
        if form == "jp2":
            at = path.read_bytes().index(bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"))
            assert path.read_bytes()[at + 16 :].startswith(DATASETS)
        elif form != "png":
            with Image.open(path) as image:
                found = IptcImagePlugin.getiptcinfo(image)
            assert found is not None, name
            assert found[2, 105] == "Grüße, Jean".encode(), name
        if form != "png" and shutil.which("exiftool"):
            asked = ["exiftool", "-s3", "-IPTC:Headline", str(path)]
            assert (
                subprocess.run(asked, capture_output=True, check=True).stdout.decode().strip()
                == "Grüße, Jean"
            )


@pytest.mark.parametrize("form", ["pyramid-tiff", "jpeg", "jp2"])
async def test_what_is_no_iptc_is_left_and_hurts_nobody(tmp_path: Path, form: str) -> None:
    what: dict[str | bytes, Any] = {
        "noise.tif": as_tag(33723, 7, b"\xff" * 40),
        "cut.tif": as_tag(34377, 7, resources()[:23]),
        "empty.tif": as_tag(33723, 7, bytes(8)),
        "none.jpg": encode(PICTURE, "JPEG"),
    }
    ctx = await Rig(tmp_path).convert(what, format=form)
    assert len(ctx.outputs) == len(what)
