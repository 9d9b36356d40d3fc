"""What libvips does not read another reads, or it is called what it is; never damaged."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image, ImageCms

from dittohead.model.errors import ItemError
from dittohead.toolkit.images import fallback_reader, loading, process
from dittohead.toolkit.images.library_messages import LibraryMessages
from dittohead.toolkit.images.reasons import is_unsupported
from tests.support.convert import Rig
from tests.support.images import decoded, jpeg, pixels

RGB = pixels(300, 200)
PLANES = RGB.transpose(2, 0, 1)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def written(array: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, metadata=None, software=False, **{"photometric": "rgb", **options})
    return out.getvalue()


def old_jpeg() -> bytes:
    """Return a TIFF with a JPEG of the old style, as scanners of the nineties wrote it."""
    data, place = jpeg(300, 200, subsampling=2), 8 + 2 + 12 * 12 + 4
    tags = [(256, 4, 300), (257, 4, 200), (258, 3, place), (259, 3, 6), (262, 3, 6), (273, 4, place + 8)]
    tags += [
        (277, 3, 3),
        (278, 4, 200),
        (279, 4, len(data)),
        (512, 3, 1),
        (513, 4, place + 8),
        (514, 4, len(data)),
    ]
    entries = b"".join(
        struct.pack("<HHII", tag, kind, 3 if tag == 258 else 1, value) for tag, kind, value in tags
    )
    return b"II*\0" + struct.pack("<IH", 8, 12) + entries + bytes(4) + struct.pack("<4H", 8, 8, 8, 0) + data


READ: dict[str | bytes, Any] = {
    "tiles of planes.tif": written(PLANES, planarconfig="separate", tile=(64, 64), iccprofile=PROFILE),
    "the same, LZW.tif": written(PLANES, planarconfig="separate", tile=(64, 64), compression="lzw"),
    "the same, 16 bits.tif": written(
        PLANES.astype(np.uint16) * 257, planarconfig="separate", tile=(64, 64), byteorder=">"
    ),
    "JPEG 2000 within.tif": written(RGB, compression="jpeg2000", tile=(64, 64), resolution=(300, 300)),
    "PNG within.tif": written(RGB, compression="png", tile=(64, 64)),
}

#: Sound, and read by nothing here with certainty.
ODD: dict[str | bytes, Any] = {
    "12 bits.tif": written(pixels(60, 40, 1).astype(np.uint16), photometric="minisblack", bitspersample=12),
    "float16.tif": written(pixels(60, 40, 1).astype(np.float16), photometric="minisblack"),
    "signed planes.tif": written(PLANES.astype(np.int16), planarconfig="separate", tile=(64, 64)),
    "canon.cr2": b"II*\0\x10\0\0\0CR\2\0" + bytes(200),
    "fuji.raf": b"FUJIFILMCCD-RAW 0201" + bytes(200),
    "photoshop.tif": b"8BPS\0\1" + bytes(200),
}


@pytest.mark.parametrize("form", ["png", "jp2"])
async def test_another_reads_what_libvips_does_not(tmp_path: Path, form: str) -> None:
    rig = Rig(tmp_path)
    ctx = await rig.convert(READ, format=form)
    assert len(ctx.outputs) == len(READ)
    for output in ctx.outputs:
        name, detail = os.fsdecode(output.path), output.detail
        assert detail["lossless"] is True
        assert detail["read_by"].startswith("tifffile "), name
        assert detail.keys().isdisjoint({"warnings", "changes", "lost"}), name
        assert ("dpi" in detail) is name.startswith("JPEG 2000")
        if form == "png" and "16" not in name:
            assert np.array_equal(decoded(ctx.work / name), RGB), name
        if form == "jp2":
            assert detail["proof"]["source_decoder"].startswith("tifffile "), name
        if form == "png" and name.startswith("tiles"):
            with Image.open(ctx.work / name) as image:
                assert image.info["icc_profile"] == PROFILE


async def test_jpeg_of_the_old_style_is_read(tmp_path: Path) -> None:
    """By tifffile, whether libvips can read it or not: the same on every machine."""
    path, output = await Rig(tmp_path).one("a.tif", old_jpeg(), format="png")
    assert output.detail["read_by"].startswith("tifffile ")
    assert output.detail["bands"] == 3
    wanted = np.asarray(Image.open(io.BytesIO(jpeg(300, 200, subsampling=2)))).astype(int)
    assert np.abs(decoded(path).astype(int) - wanted).mean() < 2


def test_jpeg_of_the_old_style_has_no_alpha_where_libvips_alone_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer libvips adds one, which the file does not have; older ones say that they do not read it."""
    (tmp_path / "a.tif").write_bytes(old_jpeg())
    monkeypatch.setattr(fallback_reader.util, "find_spec", lambda name: None)
    with open(tmp_path / "a.tif", "rb") as file:
        try:
            image = loading.open_image(file.fileno())
        except pyvips.Error as error:
            assert is_unsupported(str(error))  # noqa: PT017  # either is right
        else:
            assert (image.bands, image.hasalpha()) == (3, False)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("form", ["png", "jpeg", "pyramid-tiff", "jp2"])
async def test_luma_and_chroma_as_they_lie_are_not_taken_for_colours(
    tmp_path: Path, compression: str | None, form: str
) -> None:
    """Libvips takes them for red, green and blue without a word."""
    out = io.BytesIO()
    Image.fromarray(RGB).convert("YCbCr").save(out, "TIFF", compression=compression)
    with pytest.raises(ItemError, match="its colours are YCbCr, not coded by JPEG, which is not read here"):
        await Rig(tmp_path).convert({"a.tif": out.getvalue()}, format=form)


async def test_what_nothing_reads_is_not_called_damaged_and_can_be_kept(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for form in ("jp2", "pyramid-tiff"):
        with pytest.raises(ItemError, match="images cannot be converted") as caught:
            await rig.convert(ODD, format=form, match=["*"])
        assert "damaged" not in str(caught.value)
        assert "Scan or copy" not in str(caught.value)
    ctx = await rig.convert(ODD, format="jp2", unfit="keep")
    kept = {os.fsdecode(output.path): output.detail for output in ctx.outputs}
    assert kept.keys() == ODD.keys()
    assert all("kept" in detail for detail in kept.values())
    unseen = {name for name, detail in kept.items() if "warnings" in detail}
    assert unseen == {"canon.cr2", "fuji.raf", "photoshop.tif"}


async def test_a_damaged_one_is_damaged_whoever_reads_it(tmp_path: Path) -> None:
    data = READ["the same, LZW.tif"]
    for unfit in ("fail", "keep"):
        with pytest.raises(ItemError, match="cannot be converted"):
            await Rig(tmp_path / unfit).convert({"a.tif": data[:-3000]}, format="jp2", unfit=unfit)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("tiff2vips: tiled separate planes not supported", True),
        ("source input: JPEG-XL compression support is not configured", True),
        ("VipsJpeg: Unsupported JPEG process: SOF type 0xc3", True),
        ("VipsJpeg: Premature end of input file", False),
        ("VipsJpeg: Unsupported marker type 0x05", False),
        ("source input: Not enough data at scanline 3 (short 7 bytes)", False),
    ],
)
def test_words_of_libraries_are_told_apart(words: str, wanted: bool) -> None:
    assert is_unsupported(words) is wanted


async def test_stray_bytes_in_a_jpeg_are_let_through_if_asked_and_recorded(tmp_path: Path) -> None:
    """Damage is not, which shows in other words."""
    good = jpeg(300, 200)
    scan = good.index(b"\xff\xda")
    stray = good[:scan] + b"\0\0\0" + good[scan:]
    rig = Rig(tmp_path)
    with pytest.raises(ItemError, match="extraneous bytes"):
        await rig.convert({"a.jpg": stray})
    path, output = await rig.one("a.jpg", stray, stray_bytes="allow", format="png")
    assert any("3 extraneous bytes before marker" in each for each in output.detail["warnings"])
    assert np.array_equal(decoded(path), np.asarray(Image.open(io.BytesIO(good))))
    with pytest.raises(ItemError, match="damaged"):
        await rig.convert({"a.jpg": stray[:-2000]}, stray_bytes="allow")


@pytest.mark.parametrize(
    ("words", "damaged"),
    [
        ("Corrupt JPEG data: 3 extraneous bytes before marker 0xda", False),
        ("Corrupt JPEG data: 17 extraneous bytes before marker 0xe1", False),
        ("Corrupt JPEG data: 3 extraneous bytes before marker 0xd9", True),
        ("Corrupt JPEG data: 9 extraneous bytes before marker 0xd4", True),
        ("Corrupt JPEG data: bad Huffman code", True),
        ("Corrupt JPEG data: premature end of data segment", True),
    ],
)
def test_only_bytes_between_the_parts_are_stray(words: str, damaged: bool) -> None:
    """Those before the end of a scan, or of a part of it, are what a damaged code leaves over."""
    heard = LibraryMessages()
    with heard.listening():
        os.write(2, f"(process:12): VIPS-WARNING **: 10:11:12.123: VipsJpeg: {words}\n".encode())
        assert bool(heard.of_damage) is damaged


def test_a_child_is_believed_how_large_an_image_is_within_bounds() -> None:
    assert process._is_sound({"pixels": 768_000_000})
    for odd in (0, -1, 10**12, "7", None, True):
        assert not process._is_sound({"pixels": odd}) or odd is True


async def test_a_large_page_may_take_as_much_longer() -> None:
    """600 s for each 100 million pixels, not for all of them."""
    import asyncio

    lines = asyncio.StreamReader()
    asked: list[float] = []

    class Clock:
        def __init__(self, seconds: float) -> None:
            asked.append(seconds)

        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *_: object) -> None: ...

    lines.feed_data(
        b'{"pixels": 768000000}\n{"file": "a", "size": 1, "sha256": "", "detail": {}}\n{"ok": true}\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process.asyncio, "timeout", Clock)
        answer = await process.ImageChild._answer(lines, 600)
    assert answer is not None
    assert [file["file"] for file in answer["files"]] == ["a"]
    assert asked == [600, 600 * 7.68, 600]
