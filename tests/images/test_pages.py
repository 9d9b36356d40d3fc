"""Which pages a file has: what it says of each of its images counts, their sizes say nothing."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from dittohead.model.errors import ItemError
from dittohead.toolkit.images.process import abilities
from tests.support.convert import Rig
from tests.support.images import decoded, pixels

FULL, SMALLER, PAGE, MASK = 0, 1, 2, 4
SIZE, HALF = (300, 200), (150, 100)
PLAIN: dict[str, Any] = {"metadata": None, "software": False}
FORMATS = ["pyramid-tiff", "jpeg", "png", "jp2"]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def images(*given: tuple[tuple[int, int], int]) -> bytes:
    """Return a TIFF of images, each of ((width, height), NewSubfileType); its grey is its place."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        for place, ((width, height), kind) in enumerate(given, start=1):
            grey = np.full((height, width), 10 * place, np.uint8)
            meaning = "mask" if kind == MASK else "minisblack"
            file.write(grey > 0 if kind == MASK else grey, photometric=meaning, subfiletype=kind, **PLAIN)
    return out.getvalue()


def with_images_within(kind: int, within: int, *, size: tuple[int, int] = SIZE) -> bytes:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        for (width, height), said, subs in ((HALF, kind, 1), (size, within, 0)):
            grey = np.full((height, width), 20, np.uint8)
            file.write(grey, photometric="minisblack", subfiletype=said, subifds=subs, **PLAIN)
    return out.getvalue()


def heif(sizes: Sequence[tuple[int, int]], primary: int = 0) -> bytes:
    out, file = io.BytesIO(), pillow_heif.HeifFile()
    for place, (width, height) in enumerate(sizes, start=1):
        file.add_from_pillow(Image.fromarray(np.full((height, width, 3), 60 * place, np.uint8)))
    file.save(out, primary_index=primary, quality=-1)
    return out.getvalue()


BOOKS: dict[str, list[tuple[tuple[int, int], int]]] = {
    "a small plate between texts": [(SIZE, PAGE), (HALF, PAGE), (SIZE, PAGE)],
    "and nobody says what they are": [(SIZE, FULL), (HALF, FULL), (SIZE, FULL)],
    "each half of the one before": [(SIZE, FULL), (HALF, FULL), ((75, 50), FULL)],
    "small ones only, after a large one": [(SIZE, PAGE), ((20, 20), PAGE), ((30, 10), PAGE)],
    "with a smaller copy of each": [
        (SIZE, PAGE),
        (HALF, SMALLER),
        (SIZE, PAGE),
        (HALF, SMALLER),
        (HALF, PAGE),
    ],
    "with the smaller copies first": [(HALF, SMALLER), (SIZE, PAGE), (SIZE, PAGE), (SIZE, PAGE)],
    "one is larger than what it copies": [(SIZE, PAGE), (SIZE, PAGE), ((310, 200), SMALLER)],
}


def of(details: dict[str, dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Return the details of one image's results."""
    return {path: detail for path, detail in details.items() if path.startswith((f"{name}.", f"{name}-00"))}


@pytest.mark.parametrize("form", FORMATS)
async def test_no_page_is_lost(rig: Rig, form: str) -> None:
    books = {kind: book for kind, book in BOOKS.items() if form != "jp2" or "larger" not in kind}
    what: dict[str | bytes, Any] = {f"{kind}.tif": images(*book) for kind, book in books.items()}
    all_details = await rig.details(what, format=form, pages="all")
    for kind, book in books.items():
        wanted = [n for n, (size, said) in enumerate(book, start=1) if said != SMALLER or size[0] > 300]
        details = of(all_details, kind)
        assert [detail["page"] for detail in details.values()] == [1, 2, 3], kind
        assert {detail["pages"] for detail in details.values()} == {3}
        sizes = [(detail["width"], detail["height"]) for detail in details.values()]
        assert sizes == [book[place - 1][0] for place in wanted], kind
        if form != "jp2":
            greys = [int(decoded(rig.ctx.work / name).flat[0]) for name in details]
            assert greys == [10 * place for place in wanted], kind


async def test_the_first_page_alone_is_warned_of_and_makes_no_master(rig: Rig) -> None:
    """It is the first page, and no smaller copy that stands before it."""
    what: dict[str | bytes, Any] = {f"{kind}.tif": images(*book) for kind, book in BOOKS.items()}
    for name, detail in (await rig.details(what)).items():
        assert detail["warnings"] == ["only the first of 3 pages was converted"]
        assert decoded(rig.ctx.work / name).shape == SIZE[::-1]
    with pytest.raises(ItemError, match="it has 3 pages, and 1 would become a master; set pages: all"):
        await rig.convert(what, format="jp2")
    assert rig.ctx.outputs == []


@pytest.mark.parametrize("form", FORMATS)
async def test_what_is_no_page_is_named_or_a_smaller_copy(rig: Rig, form: str) -> None:
    """A mask, and an image within another: not only their loss is seen, but of what."""
    kept: dict[str | bytes, Any] = {
        "first.tif": images((HALF, SMALLER), (SIZE, FULL)),  # as cameras write them
        "second.tif": images((SIZE, FULL), (HALF, SMALLER)),
        "within.tif": with_images_within(FULL, SMALLER, size=(75, 50)),
        "levels.tif": with_levels_within(),
    }
    lost: dict[str | bytes, Any] = {
        "mask.tif": images((SIZE, FULL), (HALF, SMALLER), (SIZE, MASK)),
        "full.tif": with_images_within(FULL, FULL),
    }
    details = await rig.details(kept if form == "jp2" else kept | lost, format=form, pages="all")
    for name in ("first", "second", "within", "levels"):
        ((path, detail),) = of(details, name).items()
        assert detail.keys().isdisjoint({"warnings", "lost", "pages"}), name
        assert detail.get("lossless", True)
        if name in ("first", "second"):
            assert (detail["width"], detail["height"]) == SIZE
        if name == "first" and form != "jp2":
            assert abs(int(decoded(rig.ctx.work / path).flat[0]) - 20) <= 1
    if form == "jp2":
        with pytest.raises(ItemError, match="it holds what would be left out") as caught:
            await rig.convert(lost, format=form)
        assert "transparency mask" in str(caught.value)
        assert "another image within" in str(caught.value)
    else:
        assert [of(details, name).popitem()[1]["lost"] for name in ("mask", "full")] == [
            ["transparency mask"],
            ["another image within (SubIFDs)"],
        ]


def with_levels_within() -> bytes:
    """Return a pyramid whose levels are in SubIFDs."""
    out, full = io.BytesIO(), pixels(512, 384)
    with tifffile.TiffWriter(out) as file:
        file.write(full, photometric="rgb", tile=(64, 64), subifds=2, **PLAIN)
        for step in (2, 4):
            small = full[::step, ::step]
            file.write(small, photometric="rgb", tile=(64, 64), subfiletype=SMALLER, **PLAIN)
    return out.getvalue()


def of_a_camera() -> bytes:
    """Return what a DNG is like: a preview, and within it what the sensor saw."""
    data = with_images_within(SMALLER, FULL)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = file.pages[0].pages[0].tags[262]  # type: ignore[union-attr,index]  # of a page, no frame
    return data[: tag.valueoffset] + (32803).to_bytes(2, "little") + data[tag.valueoffset + 2 :]


@pytest.mark.parametrize("form", FORMATS)
async def test_a_preview_does_not_pass_for_the_picture(rig: Rig, form: str) -> None:
    what: dict[str | bytes, Any] = {"a.tif": of_a_camera(), "b.tif": with_images_within(SMALLER, FULL)}
    with pytest.raises(ItemError, match="2 of 2 images") as caught:
        await rig.convert(what, format=form)
    assert "a.tif: its picture is a camera's raw data" in str(caught.value)
    assert "b.tif: its picture lies within a smaller copy (SubIFDs)" in str(caught.value)
    assert "damaged" not in str(caught.value)
    if form == "jp2":
        ctx = await rig.convert(what, format=form, unfit="keep")
        assert {os.fsdecode(output.path) for output in ctx.outputs} == set(what)


@pytest.mark.skipif("heif" not in abilities().get("load", ()), reason="this libvips reads no HEIF")
@pytest.mark.parametrize("form", FORMATS)
async def test_every_picture_of_a_heif_is_one(rig: Rig, form: str) -> None:
    """A series of a telephone; the one that it calls the first is not always number one."""
    data = heif([SIZE, HALF, SIZE], primary=2)
    details = await rig.details({"a.heic": data}, format=form, pages="all")
    sizes = [(detail["width"], detail["height"]) for detail in details.values()]
    assert sizes == [SIZE, HALF, SIZE]
    if form == "jp2":
        with pytest.raises(ItemError, match="it has 3 pages, and 1 would become a master"):
            await rig.one("a.heic", data, format=form)
        return
    path, output = await rig.one("a.heic", data, format=form)
    assert "only the first of 3 pages was converted" in output.detail["warnings"]
    assert abs(int(decoded(path).flat[0]) - 180) <= 3
