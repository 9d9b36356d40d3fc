"""A resolution that nobody gave is not invented, and one that somebody gave is kept."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest
import tifffile
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from tests.support.convert import Rig
from tests.support.images import encode, pixels

PICTURE = Image.fromarray(pixels(60, 40))


def exif(across: Any = None, unit: int | None = 2) -> Any:
    """Return an EXIF block of a camera, with a resolution or none."""
    found = PICTURE.getexif()
    found[0x010F] = "Phase One"
    if across is not None:
        found[0x011A] = found[0x011B] = across
    if across is not None and unit is not None:
        found[0x0128] = unit
    return found


def tiff_of(resolution: Any, unit: int = 2) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, pixels(60, 40), photometric="rgb", resolution=resolution, resolutionunit=unit)
    return out.getvalue()


def nothing_over_nothing() -> bytes:
    """Return a TIFF whose resolution is 0/0."""
    data = bytearray(tiff_of((300, 300)))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for name in ("XResolution", "YResolution"):
            at = file.pages[0].tags[name].valueoffset  # type: ignore[union-attr]  # a page, no frame
            data[at : at + 8] = bytes(8)
    return bytes(data)


def jfif(unit: int, across: int) -> bytes:
    data = bytearray(encode(PICTURE, "JPEG", dpi=(300, 300)))
    data[13:18] = struct.pack(">BHH", unit, across, across)
    return bytes(data)


NOBODY: dict[str | bytes, Any] = {
    "webp.webp": encode(PICTURE, "WEBP", exif=exif()),
    "webp0.webp": encode(PICTURE, "WEBP", exif=exif(IFDRational(0, 1))),
    "jpeg.jpg": encode(PICTURE, "JPEG", exif=exif()),
    "jpeg0.jpg": encode(PICTURE, "JPEG", exif=exif(IFDRational(0, 1))),
    "jfif0.jpg": jfif(1, 0),
    "shape.jpg": jfif(0, 1),
    "png.png": encode(PICTURE, "PNG", exif=exif()),
    "tiff0.tif": tiff_of((0, 0)),
    "tiff00.tif": nothing_over_nothing(),
    "unit.tif": tiff_of((300, 300), unit=1),
    "bmp.bmp": (bmp := encode(PICTURE, "BMP"))[:38] + bytes(8) + bmp[46:],
}

SOMEBODY: dict[str | bytes, Any] = {
    "webp.webp": encode(PICTURE, "WEBP", exif=exif(IFDRational(300, 1))),
    "cm.webp": encode(PICTURE, "WEBP", exif=exif(IFDRational(30000, 254), 3)),
    "exif.jpg": encode(PICTURE, "JPEG", exif=exif(IFDRational(300, 1))),
    "jfif.jpg": jfif(1, 300),
    "both.jpg": encode(PICTURE, "JPEG", exif=exif(), dpi=(300, 300)),
    "cm.jpg": jfif(2, 118),
    "png.png": encode(PICTURE, "PNG", dpi=(300, 300)),
    "tiff.tif": tiff_of((300, 300)),
    "cm.tif": tiff_of((118.11, 118.11), unit=3),
}


def said_by(path: Path) -> Any:
    with Image.open(path) as image:
        block = image.getexif()
        return image.info.get("dpi"), image.info.get("resolution"), [n for n in (282, 283) if n in block]


@pytest.mark.parametrize("form", ["pyramid-tiff", "jpeg", "png", "jp2"])
async def test_none_is_invented(tmp_path: Path, form: str) -> None:
    rig = Rig(tmp_path)
    extra: dict[str, Any] = {"master": False} if form == "jp2" else {}
    for name, detail in (await rig.details(NOBODY, format=form, match=["*"], **extra)).items():
        assert "dpi" not in detail, name
        dpi, resolution, tags = said_by(rig.ctx.work / name)
        if form != "jpeg" or dpi != (72, 72):  # which Pillow says of every EXIF that says none
            assert dpi in (None, (1.0, 1.0), (1, 1)), (name, dpi)
        if form in ("jpeg", "png"):
            assert tags == [], name
        if form != "pyramid-tiff":  # there it has no unit
            assert resolution is None, name


@pytest.mark.parametrize("form", ["pyramid-tiff", "jpeg", "png", "jp2"])
async def test_what_is_given_is_kept(tmp_path: Path, form: str) -> None:
    rig = Rig(tmp_path)
    extra: dict[str, Any] = {"master": False} if form == "jp2" else {}
    for name, detail in (await rig.details(SOMEBODY, format=form, match=["*"], **extra)).items():
        assert detail["dpi"] == pytest.approx([300, 300], abs=0.5), name
        dpi, _, _ = said_by(rig.ctx.work / name)
        assert [float(value) for value in dpi] == pytest.approx([300, 300], abs=1), name
