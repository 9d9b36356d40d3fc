"""What images say of themselves in bytes that are not text, or at great length; and images that are larger than their files."""

from __future__ import annotations

import errno
import io
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image, TiffImagePlugin

from dittohead.model.errors import ItemError
from dittohead.toolkit.images.process import abilities
from dittohead.toolkit.images.recipe import ImageRecipe
from tests.support.convert import Rig
from tests.support.images import jpeg, tiff
from tests.support.trees import tree

LATIN = "Légende ü".encode("latin-1")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, width: int = 40, height: int = 30) -> bytes:
    """A grey PNG with further chunks."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes(width) for _ in range(height)))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def with_tags(tags: dict[int, bytes]) -> bytes:
    made = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in tags.items():
        made[number] = value
        made.tagtype[number] = 2
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(out, "TIFF", tiffinfo=made)
    return out.getvalue()


def with_exif() -> bytes:
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = LATIN, LATIN  # ImageDescription, Artist
    out = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(out, "JPEG", exif=exif)
    return out.getvalue()


def with_segment(marker: int, data: bytes) -> bytes:
    plain = jpeg(40, 30)
    return plain[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + plain[2:]


#: Sound images, each with bytes that are not UTF-8 where text stands.
STRANGE = {
    "keyword.png": png(chunk(b"tEXt", LATIN + b"\0x")),
    "text.png": png(chunk(b"tEXt", b"Comment\0" + LATIN)),
    "packed.png": png(chunk(b"zTXt", LATIN + b"\0\0" + zlib.compress(LATIN))),
    "profile.png": png(chunk(b"iTXt", b"Title\0\0\0\0\0" + LATIN)),
    "chunk.png": png(chunk(b"teXt", LATIN)),
    "tags.tif": with_tags({270: LATIN, 315: LATIN, 65001: LATIN}),
    "exif.jpg": with_exif(),
    "comment.jpg": with_segment(0xFE, LATIN),
    "xmp.jpg": with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x>" + LATIN + b"</x>"),
    "iptc.jpg": with_segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", 14) + b"\x1c\x02\x78\0\x09" + LATIN),
    "app.jpg": with_segment(0xE9, LATIN),
}  # fmt: skip


@pytest.mark.parametrize(
    "options", [{}, {"compression": "deflate"}, {"format": "png"}, {"format": "jpeg"}, {"format": "iiif-static", "iiif_id": "https://x/{path}"}]
)  # fmt: skip
async def test_text_that_is_no_utf_8_harms_no_image(tmp_path: Path, options: dict[str, Any]) -> None:
    """Latin-1 is what PNG's keywords are in, and what old cameras wrote: converted, and what is lost is named."""
    rig = Rig(tmp_path)
    ctx = await rig.convert({**STRANGE}, **options)
    made = {output.source.decode() for output in ctx.outputs}
    assert made == STRANGE.keys()
    lost = [name for output in ctx.outputs for name in output.detail.get("lost", ())]
    if options.get("format") != "png":  # that keeps its own texts
        assert "PNG Légende ü" in lost
    for name in lost:
        name.encode()


@pytest.mark.rest
@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
async def test_thousands_of_names_are_counted_and_harm_no_image(tmp_path: Path, compression: str) -> None:
    """A small file may hold as many as it likes; the answer is bounded, whatever the file says."""
    words = [chunk(b"tEXt", b"word %d %s\0x" % (number, b"\xe9" * 60)) for number in range(7000)]
    images = {
        "words.png": png(*words),
        "tags.tif": with_tags(dict.fromkeys(range(60000, 63900), b"x")),
        "app.jpg": jpeg(40, 30)[:2] + b"".join(b"\xff\xfe\0\x03x" for _ in range(5000)) + jpeg(40, 30)[2:],
        "good.tif": tiff(50, 40),
    }
    details = await Rig(tmp_path).details({**images}, compression=compression)
    assert len(details) == 4
    assert len(details["words.tif"]["lost"]) <= 101
    assert details["words.tif"]["lost"][-1].endswith(" more")


#: A child that says something else of bad.tif.
CHILD = """
import json, os, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["path"] == "bad.tif":
        print({answer}, flush=True)
        continue
    with open(os.path.join(request["work"], request["out"]), "wb") as file:
        file.write(b"x")
    print(json.dumps({{"file": request["out"], "size": 1, "sha256": "0" * 64, "detail": {{}}}}))
    print(json.dumps({{"ok": True}}), flush=True)
"""


@pytest.mark.parametrize(
    "answer", ["'x' * (2 << 20)", "'[1]'", "'{'", "'[' * 200_000", "'{}'", "json.dumps({'ok': False})"]
)
async def test_what_is_no_answer_fails_that_image_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """A child that a hostile image has taken over says anything, of any length; it is ended, others go on."""
    abilities()
    tree(
        tmp_path / "home",
        {"dittohead": {"toolkit": {"images": {"__main__.py": CHILD.format(answer=answer)}}}},
    )
    monkeypatch.setattr("dittohead.toolkit.images.process._HOME", tmp_path / "home")
    rig = Rig(tmp_path)
    with pytest.raises(ItemError) as caught:
        await rig.convert({f"{name}.tif": b"x" for name in ("a", "bad", "c")}, verify=False)
    assert "1 of 3 images cannot be converted: bad.tif: what was said about it cannot be read" in str(
        caught.value
    )
    assert {output.source for output in rig.ctx.outputs} == {b"a.tif", b"c.tif"}


async def test_an_image_of_more_pixels_than_allowed_is_refused_by_its_header(tmp_path: Path) -> None:
    """A PNG of 437 KB stood for 3,600 megapixels, and grew to gigabytes; nothing of it is written."""
    rig = Rig(tmp_path)
    row = b"\0" + bytes(60_000 // 8)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(2000)) + packer.flush()
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    with pytest.raises(ItemError) as caught:
        await rig.convert({"bomb.png": bomb, "good.tif": tiff(50, 40)}, compression="none")
    said = str(caught.value)
    assert "1 of 2 images cannot be converted: bomb.png: it has 60000 x 60000 pixels" in said
    assert "3,600,000,000, and more than the 1,000,000,000 that `pixels:` of the step allows" in said
    assert [path.name for path in rig.ctx.work.iterdir() if path.suffix == ".tif"] == ["good.tif"]
    await rig.convert(pixels=2000, compression="none", match=["good.tif"])


async def test_pages_are_bounded_too(tmp_path: Path) -> None:
    """The first page of a file says nothing of the others."""
    out = io.BytesIO()
    pages = [Image.new("L", size) for size in ((10, 10), (300, 200))]
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(ItemError, match="it has 300 x 200 pixels"):
        await Rig(tmp_path).convert({"a.tif": out.getvalue()}, pages="all", pixels=10_000)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"compression": "none"}, 3600 * 4 // 3),
        ({"compression": "deflate"}, 3600 * 4 // 3),
        ({"compression": "jpeg"}, 1800 * 4 // 3),
        ({"format": "png"}, 3600),
    ],
)
def test_a_result_that_the_disk_cannot_hold_waits_before_it_is_written(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], needed: int
) -> None:
    """What may come is known by the header: a small file can stand for gigabytes."""
    making = pytest.importorskip("dittohead.toolkit.images.conversion")
    image: Any = SimpleNamespace(width=60, height=10, bands=3, format="ushort")
    request: Any = SimpleNamespace(recipe=ImageRecipe(**options), work=b"/", path=b"a.png")
    for free in (needed, needed - 1):
        monkeypatch.setattr("os.statvfs", lambda path, free=free: SimpleNamespace(f_bavail=free, f_frsize=1))
        if free == needed:
            making._see_space(image, request)
    with pytest.raises(OSError, match="a.png may need") as caught:
        making._see_space(image, request)
    assert caught.value.errno == errno.ENOSPC
