"""The image child: its protocol, and what it lets near a hostile file."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dittohead.toolkit.images import pyramid
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.options import ConvertOptions
from dittohead.toolkit.images.reasons import explain
from dittohead.toolkit.images.recipe import ImageRecipe
from dittohead.toolkit.images.tiff import directories
from tests.support.images import encode, jpeg, pixels, tiff


class ImageChild:
    """A running child and a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dittohead.toolkit.images", str(2 << 30)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def ask(self, name: str, data: bytes, **recipe: Any) -> dict[str, Any]:
        (self.folder / name).write_bytes(data)
        request = {
            "root": str(self.folder),
            "path": name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "temp": str(self.folder / "temp"),
            "work": str(self.folder / "out"),
            "out": "a.tif",
            "recipe": {"compression": "jpeg", "quality": 85, "tile": 256, "verify": True, **recipe},
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        made: list[dict[str, Any]] = []
        while "ok" not in (answer := json.loads(self.process.stdout.readline())):
            made.append(answer)
        return {**answer, "files": made, **({"detail": made[0]["detail"]} if made else {})}


@pytest.fixture
def child(tmp_path: Path) -> Iterator[ImageChild]:
    made = ImageChild(tmp_path)
    yield made
    assert made.process.stdin is not None
    assert made.process.stdout is not None
    made.process.stdin.close()
    made.process.wait()
    made.process.stdout.close()


def test_one_child_serves_many_images_under_one_name(child: ImageChild) -> None:
    """The image library remembers what it loaded by name; the second picture is not to be the first."""
    sizes = [(60, 40), (30, 20), (90, 10)]
    answers = [child.ask("a.tif", tiff(*size))["detail"] for size in sizes]
    assert [(answer["width"], answer["height"]) for answer in answers] == sizes


def test_a_bad_image_leaves_the_child_and_no_file(child: ImageChild) -> None:
    """The next one is served; no temporary file stays."""
    answer = child.ask("a.png", encode(pixels(300, 200), "PNG")[:40_000])
    assert not answer["ok"]
    assert child.ask("b.tif", tiff(60, 40))["ok"]
    assert sorted(p.name for p in child.folder.iterdir()) == ["a.png", "b.tif", "out"]


def test_what_the_library_warns_of_is_told_unless_it_is_harmless(child: ImageChild) -> None:
    """A private tag is nothing; a TIFF whose strips are misdescribed is worth a look."""
    private = tiff(60, 40, tiffinfo={65000: "private"})
    assert "warnings" not in child.ask("a.tif", private)["detail"]
    data = bytearray(tiff(60, 40))
    at = int.from_bytes(data[4:8], "little")
    for entry in range(at + 2, at + 2 + 12 * int.from_bytes(data[at : at + 2], "little"), 12):
        if int.from_bytes(data[entry : entry + 2], "little") == 279:  # StripByteCounts
            data[entry + 8 : entry + 12] = (10**6).to_bytes(4, "little")
    answer = child.ask("a.tif", bytes(data))
    assert "StripByteCounts" in answer["detail"]["warnings"][0]
    assert "warnings" not in child.ask("a.tif", tiff(60, 40))["detail"]


HOSTILE = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>',
    "csv": b"1,2,3\n4,5,6\n",
    "mvg": b"viewbox 0 0 9 9\nimage over 0,0 0,0 '/etc/passwd'\n",
    "vips": b"\xb6\xa6\xf2\x08" + bytes(60),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_kinds_that_read_other_files_or_any_text_are_not_loaded(child: ImageChild, kind: str) -> None:
    """Whatever the name promises."""
    answer = child.ask("a.png", HOSTILE[kind])
    assert answer["what"] == "this is not an image, or of a kind that cannot be read"


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (257, 257), (1025, 77), (64, 3000)])
@pytest.mark.parametrize("tile", [64, 256, 1024])
def test_sizes_around_a_tile_are_verified(child: ImageChild, size: tuple[int, int], tile: int) -> None:
    """Edges of the pyramid: the check that every level is half the one before knows them."""
    for compression in ("deflate", "zstd"):  # our own writer, and libvips'
        answer = child.ask("a.tif", tiff(*size), tile=tile, compression=compression)
        assert answer["ok"], answer
        assert answer["detail"]["lossless"]


@pytest.mark.parametrize(
    ("size", "tile", "wanted"),
    [((3, 2), 1024, 256), ((257, 257), 1024, 512), ((600, 20), 1024, 1024), ((3, 2), 64, 64)],
)
def test_a_tile_is_no_larger_than_its_image_asks_for(
    tmp_path: Path, size: tuple[int, int], tile: int, wanted: int
) -> None:
    """The libvips of Debian 13 refuses tiles several times the size of an image; a level of few pixels too."""
    for compression in ("deflate", "zstd"):
        recipe = ImageRecipe(compression=compression, tile=tile)
        (tmp_path / "a.tif").write_bytes(tiff(*size))
        image = pyvips.Image.new_from_file(str(tmp_path / "a.tif"))
        with open(tmp_path / "made.tif", "w+b") as made:
            pyramid.write(image, made.fileno(), recipe)
            tags = next(iter(directories(made.fileno())))
        assert (tags[322], tags[323]) == (wanted, wanted)
    with pytest.raises(ValueError, match="levels: pixel needs tiles of 256 pixels at most"):
        ConvertOptions(levels="pixel", tile=512)
    assert ConvertOptions(levels="pixel", tile=128).levels == "pixel"


def test_limits_stand_before_the_first_image(child: ImageChild) -> None:
    """No core dump of people's images; the memory limit holds."""
    assert child.ask("a.jpg", jpeg(20, 10))["ok"]
    limits = Path(f"/proc/{child.process.pid}/limits").read_text()
    values = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert values["Max core file size"] == "0"
    assert values["Max address space"] == str(2 << 30)


@pytest.mark.parametrize("big", [False, True])
def test_directories_of_a_tiff(tmp_path: Path, big: bool) -> None:
    """Pillow's own idea of the tags, in both kinds of TIFF."""
    page = Image.fromarray(pixels(60, 40))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page.resize((30, 20))], big_tiff=big)
    fd = os.open(tmp_path / "a.tif", os.O_RDONLY)
    try:
        assert [(tags[256], tags[257]) for tags in directories(fd)] == [(60, 40), (30, 20)]
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("complaint", "kind"),
    [
        ("unable to call tiffsave\n  unix error: No space left on device\n", "disk"),
        ("unable to call avg\n  vips_tracked: out of memory --- size == 960MB\n", "memory"),
        ("unable to call avg\n  VipsJpeg: Premature end of input file\n", "damaged"),
        ("", "image"),
    ],
)
def test_libvips_complaints_are_sorted_by_what_to_do(complaint: str, kind: str) -> None:
    """A full disk waits, memory is tried once more in a fresh child; of the rest it is said what to do."""
    assert explain(complaint, [])[0] == kind
