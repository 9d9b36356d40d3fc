"""What libvips' loaders allow themselves is lifted, within what a child may take; and a loader that is missing is named."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from dittohead.model.errors import ItemError
from dittohead.toolkit.images.process import abilities
from tests.support.boot import TOP
from tests.support.convert import Rig
from tests.support.images import decoded, encode, jpeg, pixels, tiff
from tests.support.length import budget
from tests.support.trees import tree


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(before: list[bytes], after: list[bytes] | None = None) -> bytes:
    """A grey PNG with further chunks before its pixels, and behind them."""
    plain = encode(pixels(40, 30, 1), "PNG")
    at = plain.index(b"IDAT") - 4
    return plain[:at] + b"".join(before) + plain[at:-12] + b"".join(after or []) + plain[-12:]


TEXTS = [chunk(b"tEXt", b"Word %d\0x" % number) for number in range(7000)]


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def of_many_scans() -> bytes:
    """A grey progressive JPEG of 8 x 8 pixels in 127 scans: each coefficient alone, and its last bit alone.

    Source: ITU-T T.81 B.2 and G.1.
    """
    tables = b"".join(
        segment(0xC4, bytes([place]) + bytes([1, *[0] * 15]) + bytes([0]))
        for place in (0x00, 0x10)  # one code, "0": no difference; end of block
    )
    frame = segment(0xC2, struct.pack(">BHHB", 8, 8, 8, 1) + bytes([1, 0x11, 0]))
    scans = [(0, 0, 0x00)]
    scans += [(place, place, bits) for place in range(1, 64) for bits in (0x01, 0x10)]
    parts = [segment(0xDA, bytes([1, 1, 0x00, *scan])) + b"\x7f" for scan in scans]
    quant = segment(0xDB, bytes([0] + [1] * 64))
    return b"\xff\xd8" + quant + frame + tables + b"".join(parts) + b"\xff\xd9"


BEYOND = {
    "before.png": png(TEXTS),
    "behind.png": png([], TEXTS),
    "large.png": png([chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes([120]) * (70 << 20), 1))]),
    "scans.jpg": of_many_scans(),
}


@pytest.fixture(scope="module")
def wide() -> bytes:
    """An AVIF wider than libvips takes by itself."""
    out = io.BytesIO()
    Image.new("RGB", (16_400, 64), "teal").save(out, "AVIF", speed=10)
    return out.getvalue()


@pytest.mark.parametrize(
    "options", [{}, {"compression": "deflate"}, {"format": "png"}, {"format": "jpeg"}, {"format": "jp2"}]
)
async def test_a_sound_image_beyond_a_loaders_own_limits_is_converted(
    tmp_path: Path, wide: bytes, options: dict[str, Any]
) -> None:
    """Thousands of texts, before the pixels and behind them, a hundred scans, 16,400 pixels on a side."""
    rig = Rig(tmp_path)
    ctx = await rig.convert({**BEYOND, "wide.avif": wide}, **options)
    assert {output.source.decode() for output in ctx.outputs} == {*BEYOND, "wide.avif"}
    widths = {output.source: output.detail["width"] for output in ctx.outputs}
    assert (widths[b"wide.avif"], widths[b"scans.jpg"], widths[b"before.png"]) == (16_400, 8, 40)
    lost = {output.source: output.detail.get("lost", []) for output in ctx.outputs}
    assert len(lost[b"behind.png"]) == len(lost[b"before.png"]) == 101


async def test_xmp_behind_thousands_of_texts_is_kept(tmp_path: Path) -> None:
    """What is left out of a PNG are texts, and the last of them; the pixels are its own."""
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    path, output = await Rig(tmp_path).one("a.png", png([*TEXTS, xmp]), format="png")
    assert "XMP" not in output.detail["lost"]
    assert np.array_equal(decoded(path), pixels(40, 30, 1))


@pytest.mark.rest
async def test_thumbnails_are_made_of_them_too(tmp_path: Path, wide: bytes) -> None:
    tree(tmp_path / "in", {**BEYOND, "wide.avif": wide})
    for name in (*BEYOND, "wide.avif"):
        request = {
            "root": str(tmp_path / "in"),
            "thumbnail": name,
            "out": str(tmp_path / "t.jpg"),
            "size": 16,
        }
        (answer,) = asked(request)
        assert answer["ok"], answer
        assert max(decoded(tmp_path / "t.jpg").shape) <= 16


@pytest.mark.rest
@pytest.mark.slow
async def test_a_text_that_grows_to_gigabytes_ends_at_the_childs_memory(tmp_path: Path) -> None:
    """A megabyte stands for 750: libpng reads past them, libspng fails that image by what the step allows."""
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes([120]) * (50 << 20), 9))
    bomb = png([text] * 15)
    assert len(bomb) < 1 << 20
    rig = Rig(tmp_path)
    said = ""
    try:
        await rig.convert({"bomb.png": bomb, "good.tif": tiff(50, 40)}, memory=512 << 20)
    except ItemError as error:
        said = str(error)
    made = {output.source for output in rig.ctx.outputs}
    if said:
        assert "1 of 2 images cannot be converted: bomb.png: it needs more than 512 MiB of memory" in said
    assert made == ({b"good.tif"} if said else {b"good.tif", b"bomb.png"})


#: A child on whose machine libvips lacks an operation.
LACKING = """
import sys
for name in [name for name in sys.modules if name.partition(".")[0] == "dittohead"]:
    del sys.modules[name]
sys.path.insert(0, {top!r})
from dittohead.toolkit.images import library
found = library._found
library._allow({operation!r}, False)
library._found = lambda operation: 0 if operation == {operation!r} else found(operation)
from dittohead.toolkit.images.child import main
main()
"""


def _jxl() -> bytes:
    return bytes(imagecodecs.jpegxl_encode(pixels(60, 40), lossless=True))


KINDS: dict[str, tuple[str, str, bytes]] = {
    "bmp": ("BMP", "magickload", encode(pixels(60, 40), "BMP")),
    "jp2k": ("JPEG 2000", "jp2kload", encode(pixels(60, 40), "JPEG2000")),
    "heif": ("AVIF", "heifload", encode(pixels(60, 40), "AVIF")),
    "jxl": ("JPEG XL", "jxlload", _jxl()),
    "webp": ("WebP", "webpload", encode(pixels(60, 40), "WEBP")),
    "gif": ("GIF", "gifload", encode(pixels(60, 40), "GIF")),
    "png": ("PNG", "pngload", encode(pixels(60, 40), "PNG")),
    "jpeg": ("JPEG", "jpegload", jpeg(60, 40)),
    "tiff": ("TIFF", "tiffload", tiff(60, 40)),
    "pdf": ("PDF", "pdfload", encode(pixels(60, 40), "PDF")),
}


@pytest.fixture
def lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make children's libvips lack an operation."""

    def lack(operation: str) -> Path:
        home = tmp_path / "home"
        child = LACKING.format(top=str(TOP), operation=operation)
        tree(home, {"dittohead": {"toolkit": {"images": {"__main__.py": child}}}})
        monkeypatch.setattr("dittohead.toolkit.images.process._HOME", home)
        return home

    abilities()
    return lack


@pytest.mark.parametrize("loader", KINDS)
async def test_what_libvips_says_it_reads_it_reads(tmp_path: Path, loader: str) -> None:
    """Its classes have other names in other builds: what is let in is found by what it does."""
    assert loader in abilities()["load"]
    await Rig(tmp_path).convert({"a": KINDS[loader][2]}, match=["*"])


@pytest.mark.parametrize("loader", budget(list(KINDS), *list(KINDS)[:3]))
@pytest.mark.parametrize("unfit", ["fail", "keep"])
async def test_a_kind_whose_loader_is_missing_is_not_called_damaged(
    tmp_path: Path, lacking: Any, loader: str, unfit: str
) -> None:
    """It is said what is missing and what brings it; it is not kept as if nothing could read it."""
    kind, operation, data = KINDS[loader]
    home = lacking(operation)
    rig = Rig(tmp_path)
    form = {"format": "jp2", "unfit": unfit} if unfit == "keep" else {}
    form = form or ({} if loader == "png" else {"format": "png"})  # which is read back
    other = "other.png" if loader != "png" else "other.tif"
    sound = encode(pixels(50, 40), "PNG") if loader != "png" else tiff(50, 40)
    with pytest.raises(ItemError) as caught:
        await rig.convert({"a": data, other: sound}, match=["*"], **form)
    assert f"a: it is a {kind}, which libvips {abilities()['version']} here is built without" in str(
        caught.value
    )
    assert "apt-get install libvips42" in str(caught.value.hint)
    assert "damaged" not in str(caught.value)
    assert caught.value.good
    assert [os.fsdecode(output.source) for output in rig.ctx.outputs] == [other]
    assert loader not in probed(home)["load"]


#: A child whose libheif finds no plugin.
BARE = """
import os
os.environ["LIBHEIF_PLUGIN_PATH"] = "/var/empty/none"
"""


async def test_a_decoder_that_libheif_lacks_is_named(tmp_path: Path, lacking: Any) -> None:
    """It was called damaged: libheif's words are of decoding. Where decoders are built in, it is read."""
    home = lacking("none")
    child = home / "dittohead/toolkit/images/__main__.py"
    child.write_text(BARE + child.read_text())
    rig = Rig(tmp_path)
    said = ""
    try:
        await rig.convert({"a.avif": KINDS["heif"][2], "other.png": KINDS["png"][2]})
    except ItemError as error:
        said = str(error)
        assert error.good  # noqa: PT017  # where it is read there is no error
    if said:
        assert "libheif here lacks the decoder for it: libheif-plugin-dav1d (AVIF)" in said
        assert "Install a libvips, or decoders, that read" in said
        assert "damaged" not in said
    made = {output.source for output in rig.ctx.outputs}
    assert made == ({b"other.png"} if said else {b"a.avif", b"other.png"})


def probed(home: Path) -> dict[str, Any]:
    argv = [sys.executable, "-m", "dittohead.toolkit.images", "--probe"]
    said: dict[str, Any] = json.loads(subprocess.run(argv, cwd=home, capture_output=True, check=True).stdout)
    return said


def asked(*requests: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a child answers."""
    argv = [sys.executable, "-m", "dittohead.toolkit.images", str(2 << 30)]
    lines = "".join(json.dumps(request) + "\n" for request in requests).encode()
    said = subprocess.run(argv, cwd=TOP, input=lines, capture_output=True, check=True).stdout
    return [json.loads(line) for line in said.splitlines()]
