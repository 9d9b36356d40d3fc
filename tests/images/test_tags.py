"""Tags of people and devices, moved between files of both kinds and byte orders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dittohead.toolkit.images import tags, tiff
from dittohead.toolkit.images.tags import Tag, Tags
from tests.support.images import encode, pixels

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8, 12: 8}


def tag(kind: int, count: int) -> st.SearchStrategy[Tag]:
    size = SIZES[kind] * count
    return st.binary(min_size=size, max_size=size).map(lambda data: Tag(kind, count, data))


TAG = st.tuples(st.sampled_from(sorted(SIZES)), st.integers(1, 40)).flatmap(lambda pair: tag(*pair))
DIRECTORY = st.dictionaries(st.integers(1, 37_000), TAG, max_size=12)
ANY = st.builds(
    Tags, st.dictionaries(st.sampled_from(sorted(tags.NAMES)), TAG, max_size=6), DIRECTORY, DIRECTORY
)


@given(found=ANY)
def test_a_block_gives_back_what_was_put_in(found: Tags) -> None:
    """Every kind of value, within an entry and beyond it."""
    assert tags.of_exif(tags.block(found)) == found
    assert bool(tags.block(found)) is bool(found)


@pytest.fixture(params=[False, True], ids=["classic", "big"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A TIFF of two pages."""
    one = Image.fromarray(pixels(60, 40))
    path = tmp_path / "a.tif"
    one.save(path, save_all=True, append_images=[one.resize((30, 20))], big_tiff=request.param)
    fd = os.open(path, os.O_RDWR)
    yield path, fd
    os.close(fd)


def test_tags_are_added_to_a_finished_tiff(page: tuple[Path, int]) -> None:
    """Its pixels and its second page are where they were; what was there already stays."""
    path, fd = page
    before = list(tiff.directories(fd))
    wanted = Tags(
        {315: Tag(2, 4, b"Zoe\0"), 33432: Tag(2, 9, b"(c) us ok")},
        {
            0x8827: Tag(3, 1, b"\x90\x01"),
            0x829A: Tag(5, 1, (1).to_bytes(4, "little") + (250).to_bytes(4, "little")),
        },
    )
    assert tags.append(fd, wanted)
    assert tags.append(fd, Tags({315: Tag(2, 4, b"Ann\0")})) is False
    assert [
        {tag: value for tag, value in found.items() if tag != 34665} for found in tiff.directories(fd)
    ] == before
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), pixels(60, 40))
        assert image.getexif()[315] == "Zoe"
        inner = image.getexif().get_ifd(34665)
        assert (inner[0x8827], float(inner[0x829A])) == (400, 1 / 250)
        image.seek(1)
        assert image.size == (30, 20)
        image.load()


def test_what_is_no_tiff_or_has_too_many_tags_has_none() -> None:
    """A hostile block costs nothing."""
    assert tags.of_exif(b"Exif\0\0" + b"\xff" * 100) == Tags()
    assert tags.of_exif(encode(pixels(9, 9), "JPEG")) == Tags()
    many = Tags({}, {number: Tag(1, 1, b"x") for number in range(1, 600)})
    assert tags.of_exif(tags.block(many)) == Tags()


def test_a_makers_note_is_left_and_named() -> None:
    """It holds places within the source."""
    found = tags.of_exif(tags.block(Tags({}, {37500: Tag(7, 3, b"abc"), 0x8827: Tag(3, 1, b"\x90\x01")})))
    assert set(found.exif) == {0x8827}
    assert found.left == ("EXIF MakerNote",)
