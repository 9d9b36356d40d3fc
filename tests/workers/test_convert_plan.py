"""What convert would make is told by names and headers, and is what it then makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.worker import Planned
from dittohead.model.errors import ItemError
from dittohead.model.text import display
from dittohead.toolkit.images.options import ConvertOptions
from tests.support.context import LoneContext
from tests.support.convert import Rig
from tests.support.images import encode, pixels
from tests.support.trees import read_tree, tree

TIFF, PNG = encode(pixels(60, 40), "TIFF"), encode(pixels(60, 40), "PNG")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def planned(
    rig: Rig, what: dict[str | bytes, Any], **options: Any
) -> tuple[list[Planned], LoneContext]:
    tree(rig.payload, what)
    ctx = LoneContext(rig.base, rig.payload)
    found = [one async for one in rig.worker.plan(ctx, ConvertOptions.model_validate(options))]
    return found, ctx


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"format": "jp2"},
        {"format": "iiif-static", "iiif_id": "https://iiif.example.org/{path}"},
        {"format": "jpeg", "pages": "all", "sizes": [{"sidecar": ".copyright", "max_width": 20}]},
    ],
)
async def test_what_is_planned_is_what_is_made(rig: Rig, options: dict[str, Any]) -> None:
    """Names that clash, folders, other files and side-cars; nothing is written by planning."""
    what: dict[str | bytes, Any] = {
        "a.tif": TIFF,
        "a.png": PNG,
        "sub": {"b.png": PNG, b"\xff.tif": TIFF},
        "c.txt": "text",
        "sub.copyright": "",
    }
    found, ctx = await planned(rig, what, **options)
    assert all(name.endswith(b"step.log") for name in read_tree(rig.base / "work"))
    made = [one for one in found if one.action == "make"]
    assert [one.what for one in made] == [display(output.path) for output in ctx.outputs]
    assert {(output.size, output.sha256) for output in ctx.outputs} == {(0, "")}
    assert [(one.action, one.what) for one in found[len(made) :]] == [("keep", "2 other files")]
    done = await rig.convert(**options)
    results = [output for output in done.outputs if output.detail]
    assert {(output.path, output.source) for output in results} == {
        (output.path, output.source) for output in ctx.outputs
    }


async def test_pages_sizes_and_originals_are_spoken_of(rig: Rig) -> None:
    (one,), _ = await planned(rig, {"a.tif": TIFF}, format="jp2", pages="all", unfit="keep")
    assert one.what == "a.jp2"
    assert one.detail == ("of a.tif, jp2; a-0001.jp2 and so on for each page where there are several")
    rule = {"match": "a*", "max_height": 20}
    (one,), _ = await planned(rig, {"a.tif": TIFF}, format="jpeg", sizes=[rule])
    assert one.detail == "of a.tif, jpeg, height at most 20"


async def test_what_would_fail_fails_the_plan(rig: Rig) -> None:
    with pytest.raises(ItemError, match="there are no images in the folder"):
        await planned(rig, {"a.txt": "text"})
    with pytest.raises(ItemError, match=r"1 of 1 images cannot be converted: a\.txt: this is not an image"):
        await planned(rig, {"a.tif": TIFF}, others="fail")
