"""A later job of a folder takes over what an earlier one made, where input, recipe and tools are the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from dittohead.toolkit.images import process
from dittohead.workers import convert
from tests.support.context import LoneContext
from tests.support.convert import Rig
from tests.support.images import encode, pixels
from tests.support.trees import read_tree, tree

EARLIER, LATER = "01JEARLIER", "01JLATER"


def images(count: int = 3) -> dict[str | bytes, Any]:
    return {f"{i}.png": encode(pixels(20, 10, seed=i), "PNG") for i in range(count)}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def later(rig: Rig, **options: Any) -> LoneContext:
    """Convert again, as a later job of the folder does."""
    earlier = rig.ctx
    ctx = LoneContext(rig.base, rig.payload, job_id=LATER)
    ctx.earlier = [earlier.work]
    return await rig.convert(ctx=ctx, **options)


async def first(rig: Rig, what: dict[str | bytes, Any], **options: Any) -> LoneContext:
    tree(rig.payload, what)
    return await rig.convert(ctx=LoneContext(rig.base, rig.payload, job_id=EARLIER), **options)


def reused(ctx: LoneContext) -> dict[bytes, str]:
    return {output.path: output.detail.get("reused_from", "") for output in ctx.outputs}


async def test_unchanged_images_are_taken_over_and_the_receipt_says_from_where(rig: Rig) -> None:
    before = await first(rig, images())
    ctx = await later(rig)
    assert reused(ctx) == dict.fromkeys([b"0.tif", b"1.tif", b"2.tif"], EARLIER)
    assert read_tree(ctx.work) == read_tree(before.work)
    assert rig.result.detail == f"3 images, 3 of them from job {EARLIER}"
    events = {event.type.value: event.detail for event in ctx.events}
    assert f"3 of them from job {EARLIER}" in events["fixity check"]
    assert "validation" not in events  # nothing was decoded now


async def test_what_was_taken_over_outlives_the_earlier_jobs_work(rig: Rig) -> None:
    before = await first(rig, images())
    ctx = await later(rig)
    made = read_tree(before.work)
    shutil.rmtree(before.work)
    assert read_tree(ctx.work) == made


async def test_a_changed_file_alone_is_converted(rig: Rig) -> None:
    await first(rig, images())
    (rig.payload / "1.png").write_bytes(encode(pixels(20, 10, seed=77), "PNG"))
    ctx = await later(rig)
    assert reused(ctx) == {b"0.tif": EARLIER, b"1.tif": "", b"2.tif": EARLIER}
    assert rig.result.detail == f"3 images, 2 of them from job {EARLIER}"


async def test_another_recipe_takes_nothing_over(rig: Rig) -> None:
    await first(rig, images())
    assert set(reused(await later(rig, quality=60)).values()) == {""}


@pytest.mark.parametrize("changed", ["libvips", "converter"])
async def test_another_version_of_a_tool_takes_nothing_over(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    await first(rig, images())
    if changed == "converter":
        monkeypatch.setattr(convert, "VERSION", "next")
    else:
        found = {**process.abilities(), "version": "99.0.0"}
        monkeypatch.setattr(convert, "abilities", lambda: found)
    assert set(reused(await later(rig)).values()) == {""}


async def test_a_result_that_is_damaged_or_gone_is_made_anew(rig: Rig) -> None:
    before = await first(rig, images())
    whole = read_tree(before.work)
    (before.work / "0.tif").write_bytes(whole[b"0.tif"][:-1] + b"!")
    (before.work / "1.tif").unlink()
    ctx = await later(rig)
    assert reused(ctx) == {b"0.tif": "", b"1.tif": "", b"2.tif": EARLIER}
    assert read_tree(ctx.work) == whole
    assert (before.work / "0.tif").read_bytes() != whole[b"0.tif"]  # the earlier job's own is left alone


async def test_a_folder_of_tiles_is_taken_over_whole(rig: Rig) -> None:
    options = {"format": "iiif-static", "iiif_id": "https://iiif.example.org/{path}"}
    before = await first(rig, images(1), **options)
    ctx = await later(rig, **options)
    assert set(reused(ctx).values()) == {EARLIER}
    assert len(ctx.outputs) == len(before.outputs) > 2
    assert read_tree(ctx.work) == read_tree(before.work)


async def test_a_third_job_knows_who_made_it(rig: Rig) -> None:
    await first(rig, images(1))
    second = await later(rig)
    ctx = LoneContext(rig.base, rig.payload, job_id="01JTHIRD")
    ctx.earlier = [second.work]
    assert reused(await rig.convert(ctx=ctx)) == {b"0.tif": EARLIER}


async def test_a_link_in_the_place_of_a_result_is_not_followed(rig: Rig) -> None:
    before = await first(rig, images(1))
    data = (before.work / "0.tif").read_bytes()
    (rig.base / "elsewhere").write_bytes(data)
    (before.work / "0.tif").unlink()
    (before.work / "0.tif").symlink_to(rig.base / "elsewhere")
    ctx = await later(rig)
    assert reused(ctx) == {b"0.tif": ""}
    assert not (ctx.work / "0.tif").is_symlink()
