"""A small picture is one of the picture that `convert` takes: of no smaller copy, no mask, no other page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dittohead.toolkit.images import thumbnail
from dittohead.toolkit.images.process import abilities
from tests.images.test_pages import (
    BOOKS,
    FULL,
    HALF,
    MASK,
    SIZE,
    SMALLER,
    heif,
    images,
    of_a_camera,
    with_images_within,
    with_levels_within,
)
from tests.images.test_second import READ
from tests.support.convert import Rig
from tests.support.images import decoded

#: Pixels of the longer side: small pictures, and those that are to be looked at.
SIDES = (100, 320)


def small(folder: Path, data: bytes, size: int = 320) -> Any:
    """Return the pixels of a file's small picture."""
    folder.joinpath("a").write_bytes(data)
    out = folder / "small.jpg"
    made = thumbnail.make({"root": str(folder), "thumbnail": "a", "out": str(out), "size": size})
    assert made == dict(zip(("height", "width"), decoded(out).shape, strict=False))
    return decoded(out)


def agrees(one: Any, other: Any) -> bool:
    """Tell whether two pictures are of one grey, of one shape but for what rounding makes of it."""
    flat = [float(np.mean(each)) for each in (one, other)]
    return (
        abs(flat[0] - flat[1]) < 4
        and abs(one.shape[1] / one.shape[0] - other.shape[1] / other.shape[0]) < 0.05
    )


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "kind", [*BOOKS, "of a camera", "a mask of half the size", "smaller copies of copies"]
)
async def test_it_is_of_the_picture_that_convert_takes(tmp_path: Path, kind: str, side: int) -> None:
    """Each image of these files has a grey of its own."""
    given = {
        **{name: images(*book) for name, book in BOOKS.items()},
        "of a camera": images(((160, 120), SMALLER), (SIZE, FULL)),  # whose preview has other proportions
        "a mask of half the size": images((SIZE, FULL), (HALF, MASK)),
        "smaller copies of copies": images((HALF, SMALLER), ((75, 50), SMALLER), (SIZE, FULL)),
    }
    converted, _ = await Rig(tmp_path).one("a.tif", given[kind], format="png")
    assert agrees(small(tmp_path, given[kind], side), decoded(converted))


@pytest.mark.skipif("heif" not in abilities().get("load", ()), reason="this libvips reads no HEIF")
@pytest.mark.parametrize("primary", [0, 1, 2])
async def test_of_a_heif_it_is_the_one_that_the_file_calls_its_first(tmp_path: Path, primary: int) -> None:
    data = heif([SIZE, HALF, SIZE], primary=primary)
    converted, _ = await Rig(tmp_path).one("a.heic", data, format="png")
    assert agrees(small(tmp_path, data, 100), decoded(converted))


@pytest.mark.parametrize("name", READ)
async def test_what_only_the_second_reader_reads_has_one(tmp_path: Path, name: str) -> None:
    """Convert takes it, so that people want to see it."""
    data = READ[name]
    converted, _ = await Rig(tmp_path).one("a.tif", data, format="png")
    assert agrees(small(tmp_path, data, 100), decoded(converted))


@pytest.mark.parametrize("data", [of_a_camera(), with_images_within(SMALLER, FULL), with_levels_within()])
def test_where_convert_takes_none_it_is_of_what_can_be_seen(tmp_path: Path, data: bytes) -> None:
    """A camera's raw data: its preview is better than no picture."""
    assert small(tmp_path, data, 100).shape[1] == 100


def test_a_damaged_file_shows_what_is_there(tmp_path: Path) -> None:
    """In a child of its own, as the page has it."""
    data = images((SIZE, FULL), (SIZE, FULL))
    tmp_path.joinpath("a").write_bytes(data[: len(data) - 200])
    said = f'{{"root": "{tmp_path}", "thumbnail": "a", "out": "{tmp_path}/o.jpg", "size": 100}}\n'
    run = subprocess.run(
        [sys.executable, "-m", "dittohead.toolkit.images", str(2 << 30)],
        input=said.encode(),
        capture_output=True,
        check=True,
    )
    assert b'"ok": true' in run.stdout, run.stdout
    assert os.path.getsize(tmp_path / "o.jpg")
