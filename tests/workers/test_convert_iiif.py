"""convert: a static IIIF service is whole and right, or not there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dittohead.config.loader import load
from dittohead.model.errors import ConfigError, ItemError
from dittohead.system.files import sha256_file
from dittohead.toolkit.images.iiif import info, promised
from tests.support.context import LoneContext
from tests.support.convert import Rig
from tests.support.images import decoded, encode, jpeg, pixels, tiff
from tests.support.trees import read_tree, tree

IIIF = {"format": "iiif-static", "iiif_id": "https://iiif.example.org/{path}", "tile": 256}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (200, 256), (257, 256), (1001, 777), (512, 512), (40, 1500)])
async def test_every_tile_and_size_that_is_promised_is_there_and_right(
    rig: Rig, size: tuple[int, int]
) -> None:
    """As another library decodes them, against the source's own region; and nothing else is there."""
    source = pixels(*size)
    ctx = await rig.convert({"a.png": encode(source, "PNG")}, quality=95, **IIIF)
    folder = ctx.work / "a.iiif"
    said = json.loads((folder / "info.json").read_text())
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {"info.json"}
    wanted = set()
    for tile in said["tiles"]:
        for factor in tile["scaleFactors"]:
            for x in range(0, size[0], tile["width"] * factor):
                for y in range(0, size[1], tile["height"] * factor):
                    w, h = min(tile["width"] * factor, size[0] - x), min(tile["height"] * factor, size[1] - y)
                    tw, th = -(-w // factor), -(-h // factor)
                    region = "full" if (w, h) == size else f"{x},{y},{w},{h}"
                    wanted.add(name := f"{region}/{tw},{th}/0/default.jpg")
                    part = source[y : y + h, x : x + w]
                    here = decoded(folder / name)
                    assert here.shape == (th, tw, 3)
                    if w > 8 and h > 8:
                        assert abs(here.mean() - part.mean()) < 3
                    if factor == 1:
                        assert np.abs(here.astype(int) - part).mean() < 4
    for given in said["sizes"]:
        wanted.add(name := f"full/{given['width']},{given['height']}/0/default.jpg")
        assert decoded(folder / name).shape == (given["height"], given["width"], 3)
    wanted.add("full/max/0/default.jpg")
    assert decoded(folder / "full/max/0/default.jpg").shape == (size[1], size[0], 3)
    assert found == wanted


async def test_info_json_is_what_image_api_3_asks_for(rig: Rig) -> None:
    """Source: IIIF Image API 3.0, section 5."""
    ctx = await rig.convert({"sub": {"a ü.tif": tiff(600, 400)}}, **IIIF)
    said = json.loads((ctx.work / "sub/a ü.iiif/info.json").read_text())
    assert said == {
        "@context": "http://iiif.io/api/image/3/context.json",
        "id": "https://iiif.example.org/sub/a%20%C3%BC.iiif",
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level0",
        "width": 600,
        "height": 400,
        "sizes": [{"width": 150, "height": 100}, {"width": 300, "height": 200}],
        "tiles": [{"width": 256, "height": 256, "scaleFactors": [1, 2, 4]}],
    }


async def test_every_file_is_an_output_with_its_digest(rig: Rig) -> None:
    """So that rsync and upload send and check them like any others."""
    ctx = await rig.convert({"a.jpg": jpeg(700, 500)}, **IIIF)
    assert {output.path: output.sha256 for output in ctx.outputs} == {
        path: sha256_file(ctx.work / os.fsdecode(path))[0] for path in read_tree(ctx.work)
    }
    assert {output.source for output in ctx.outputs} == {b"a.jpg"}
    (detail,) = [output.detail for output in ctx.outputs if output.detail]
    assert detail["tiles"] == len(ctx.outputs) - 1


async def test_colours_are_srgb_without_a_profile_or_keep_theirs(rig: Rig, tmp_path: Path) -> None:
    """A profile in each tile only where it is asked for."""
    profile = b""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = {"a.tif": tiff(600, 400, icc_profile=profile, software="x" * 5000)}
    for colour, wanted in (("srgb", None), ("keep", profile)):
        ctx = await rig.convert(data, colour=colour, **IIIF)
        for path in read_tree(ctx.work):
            if path.endswith(b".jpg"):
                with Image.open(ctx.work / os.fsdecode(path)) as image:
                    assert image.info.get("icc_profile") == wanted


async def test_a_bad_image_leaves_no_folder(rig: Rig) -> None:
    """The other one's is whole."""
    with pytest.raises(ItemError, match="1 of 2 images cannot be converted: a.jpg"):
        await rig.convert({"a.jpg": jpeg(800, 600)[:20_000], "b.jpg": jpeg(300, 200)}, **IIIF)
    assert sorted(p.name for p in rig.ctx.work.iterdir()) == ["b.iiif"]


async def test_an_earlier_folder_is_kept_when_right_and_replaced_when_not(rig: Rig) -> None:
    """One tile that is damaged or one too many: no old tile is among the new ones."""
    data: dict[str | bytes, Any] = {f"{i}.jpg": jpeg(600, 400) for i in range(3)}
    ctx = await rig.convert(data, **IIIF)
    before = {p.name: p.stat().st_ino for p in ctx.work.iterdir()}
    (ctx.work / "1.iiif/full/max/0/default.jpg").write_bytes(b"damaged")
    (ctx.work / "2.iiif/0,0,9,9").mkdir()
    (ctx.work / "2.iiif/0,0,9,9/stray.jpg").write_bytes(b"stray")
    ctx.again()
    await rig.convert(ctx=ctx, **IIIF)
    after = {p.name: p.stat().st_ino for p in ctx.work.iterdir()}
    assert rig.result.detail == "3 images, 2 of them from before"
    assert {name for name in after if after[name] == before[name]} == {"0.iiif", "2.iiif"}
    assert set(read_tree(ctx.work)) == {output.path for output in ctx.outputs}


@pytest.mark.usefixtures("real_image_children")
async def test_a_killed_child_leaves_no_half_folder(rig: Rig) -> None:
    """A folder appears by one rename."""
    from tests.workers.test_convert import _children

    tree(rig.payload, {f"{i}.tif": tiff(3000, 2500) for i in range(2)})
    ctx = LoneContext(rig.base, rig.payload)
    task = asyncio.create_task(rig.convert(ctx=ctx, **IIIF))
    scratch = ctx.work.parent / "step.scratch"
    async with asyncio.timeout(60):
        while not list(scratch.glob("*/making/tiles")) or not (found := _children(rig.base)):
            await asyncio.sleep(0.005)
    assert not (ctx.work / "0.iiif").exists()
    os.kill(found[0], signal.SIGKILL)
    await task
    assert set(read_tree(ctx.work)) == {output.path for output in ctx.outputs}
    assert len([output for output in ctx.outputs if output.detail]) == 2


@pytest.mark.parametrize("fault", ["less", "more", "smaller", "cut"])
def test_a_set_of_tiles_that_is_not_right_is_found(tmp_path: Path, fault: str) -> None:
    """By a child of its own, since only that loads the image library."""
    import subprocess
    import sys

    folder = tmp_path / "a"
    for name, size in promised(600, 400, 256):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(*size))
    (folder / "info.json").write_text(json.dumps(info(600, 400, 256, "https://x")))
    tile = folder / "256,0,256,256/256,256/0/default.jpg"
    if fault == "less":
        tile.unlink()
    elif fault == "more":
        (folder / "vips-properties.xml").write_text("x")
    elif fault == "smaller":
        tile.write_bytes(jpeg(255, 256))
    else:
        tile.write_bytes(tile.read_bytes()[:-2000])
    script = (
        "import sys; from pathlib import Path; from dittohead.toolkit.images.iiif import verify\n"
        "from dittohead.toolkit.images.recipe import ImageRecipe\n"
        "print(verify(Path(sys.argv[1]), (600, 400), ImageRecipe(format='iiif-static', tile=256)))"
    )
    said = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert ("premature" in said.stderr.lower()) if fault == "cut" else ("Refused" in said.stderr)


def test_the_id_is_a_template_for_each_image(tmp_path: Path) -> None:
    """The folder's own placeholders are filled in by the engine, the image's by the step."""
    text = """
root: .
pipelines:
  all:
    match: "(?P<study>.*)"
    steps:
      - convert: {format: iiif-static, iiif_id: "https://x/{study}/{name}/{WORD}"}
"""
    (tmp_path / "config.yaml").write_text(text.replace("WORD", "path"))
    load(tmp_path / "config.yaml")
    (tmp_path / "config.yaml").write_text(text.replace("{WORD}", "{path}{page}"))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "config.yaml")
    assert "there is no placeholder {page}" in str(caught.value.problems)
