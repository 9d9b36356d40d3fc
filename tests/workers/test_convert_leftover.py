"""convert: no image is left out in silence, whatever it is called; content decides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import imagecodecs
import pillow_heif
import pytest
from PIL import Image

from dittohead.model.errors import ItemError
from dittohead.toolkit.images.kinds import HEAD, is_read, kind_of
from dittohead.toolkit.images.process import abilities
from tests.support.convert import Rig
from tests.support.images import encode, jpeg, pixels, tiff

SMALL = pixels(40, 30)
PNG = encode(SMALL, "PNG")
UNREAD = {
    "a.psd": b"8BPS\0\1" + bytes(80),
    "a.cr2": b"II*\0\x10\0\0\0CR\2\0" + bytes(80),
    "a.raf": b"FUJIFILMCCD-RAW 0201" + bytes(80),
    "a.exr": b"\x76\x2f\x31\x01\2\0\0\0" + bytes(80),
    "a.dcm": bytes(128) + b"DICM" + bytes(80),
}
TEXTS: dict[str | bytes, Any] = {
    "a.txt": "BM is what bitmaps begin with",
    "a.md5": "0" * 32,
    "a.xml": "<mets/>",
    "README": "GIF8 and so on",
    "BMW": "BMW cars, many of them, with words for more than fifty bytes in all",
    "empty": "",
}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def every_kind(tmp_path: Path) -> dict[str, bytes]:
    """Return images of every kind that this libvips reads, by other writers, under their rarer endings."""
    (tmp_path / "a.heif").parent.mkdir(exist_ok=True)
    found = {"jfif": jpeg(40, 30), "jpe": jpeg(40, 30), "dib": encode(SMALL, "BMP")}
    found |= {"ptif": tiff(40, 30), "apng": PNG, "webp": encode(SMALL, "WEBP"), "gif": encode(SMALL, "GIF")}
    load = abilities()["load"]
    if "jp2k" in load:
        found["j2k"] = bytes(imagecodecs.jpeg2k_encode(SMALL, codecformat="j2k", reversible=True))
        found["jpx"] = bytes(imagecodecs.jpeg2k_encode(SMALL, codecformat="jp2", reversible=True))
    if "jxl" in load:
        found["jxl"] = bytes(imagecodecs.jpegxl_encode(SMALL))
    if "heif" in load:
        pillow_heif.from_pillow(Image.fromarray(SMALL)).save(tmp_path / "a.heif")
        found["heif"] = found["hif"] = (tmp_path / "a.heif").read_bytes()
    if "heif" in load and pillow_heif.libheif_info()["encoders"].get("aom"):
        Image.fromarray(SMALL).save(tmp_path / "a.avif")
        found["avif"] = (tmp_path / "a.avif").read_bytes()
    return found


async def test_every_image_is_converted_whatever_it_is_called(rig: Rig, tmp_path: Path) -> None:
    """By its ending, in upper case, without an ending, under a wrong one."""
    found = every_kind(tmp_path)
    what: dict[str | bytes, Any] = {f"1.{ending}": data for ending, data in found.items()}
    what |= {f"2.{ending.upper()}": data for ending, data in found.items()}
    what |= {f"3-{ending}": data for ending, data in found.items()}
    what |= {f"4-{ending}.dat": data for ending, data in found.items()}
    ctx = await rig.convert({**what, **TEXTS}, compression="deflate")
    assert {os.fsdecode(output.source or b"") for output in ctx.outputs} == set(what)
    assert "6 other files left: " in rig.result.detail
    assert "of them images" not in rig.result.detail
    said = next(event.detail for event in ctx.events if str(event.type) == "migration")
    assert "README" in said
    assert "and 1 more" in said


async def test_what_is_left_is_named_and_its_images_first(rig: Rig) -> None:
    what: dict[str | bytes, Any] = {"a.png": PNG, "b.jfif": jpeg(40, 30), "scan": tiff(40, 30), **TEXTS}
    ctx = await rig.convert({**what, "a.psd": UNREAD["a.psd"]}, match=["*.png"])
    assert rig.result.detail.startswith(
        "1 images, 9 other files left (3 of them images): a.psd (Photoshop (PSD))"
    )
    assert "b.jfif (JPEG), scan (TIFF)" in rig.result.detail
    said = next(event for event in ctx.events if str(event.type) == "migration")
    assert said.outcome == "warning"
    assert "b.jfif (JPEG), scan (TIFF)" in said.detail


@pytest.mark.parametrize("options", [{"format": "jp2"}, {"others": "images"}])
async def test_an_image_that_is_left_out_fails_a_master(tmp_path: Path, options: dict[str, Any]) -> None:
    """And, by option, any other; side-cars never do."""
    rig, other = Rig(tmp_path / "one"), Rig(tmp_path / "other")
    await rig.convert({"a.png": PNG, **TEXTS}, **options)
    what: dict[str | bytes, Any] = dict(UNREAD)
    with pytest.raises(ItemError, match="5 of 6 images") as caught:
        await rig.convert(what, **options)
    assert "a.psd: it is an image (Photoshop (PSD)), which is not read here" in str(caught.value)
    assert "others: skip" in str(caught.value)
    with pytest.raises(ItemError, match=r"b.jfif: it is an image \(JPEG\), match leaves it out"):
        await other.convert({"a.png": PNG, "b.jfif": jpeg(40, 30)}, match=["*.png"], **options)
    await other.convert(match=["*.png"], **options | {"others": "skip"})


async def test_junk_is_no_image(rig: Rig) -> None:
    """Also where it is one: thumbnails of a file server."""
    junk: dict[str | bytes, Any] = {"@eaDir": {"x": jpeg(20, 10)}, "._b": PNG, "Thumbs.db": PNG}
    ctx = await rig.convert({"a.png": PNG, **junk}, format="jp2")
    assert [output.path for output in ctx.outputs] == [b"a.jp2"]


def test_kinds_are_known_by_content(tmp_path: Path) -> None:
    for ending, data in every_kind(tmp_path).items():
        assert is_read(kind_of(data[:HEAD])), ending
    for name, data in UNREAD.items():
        kind = kind_of(data[:HEAD])
        assert kind, name
        assert not is_read(kind), name
    for name, text in TEXTS.items():
        assert kind_of(str(text).encode()[:HEAD]) == "", name
