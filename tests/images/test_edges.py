"""The last column and row of a lossy pyramid are as right as the others, at every level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.support.convert import Rig
from tests.support.images import encode

COLOURS = {"colour": (250, 120, 30), "white": (255, 255, 255), "grey": 200}
SIZES = [(300, 301), (513, 257), (64, 1), (1, 40), (256, 256)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quality": 92},
        {"quality": 60, "tile": 64},
        {"levels": "pixel", "tile": 64},
        {"levels": "one"},
        {"compression": "webp"},
        {"tile": 1024},
    ],
)
async def test_an_even_image_stays_even(tmp_path: Path, options: dict[str, Any]) -> None:
    """Tiles at the edge were filled up with black, half of which a JPEG mixes into what lies beside it."""
    rig = Rig(tmp_path)
    what: dict[str | bytes, Any] = {}
    for name, colour in COLOURS.items():
        for height, width in SIZES:
            shape = (height, width, 3) if name != "grey" else (height, width)
            what[f"{name}-{height}.png"] = encode(np.full(shape, colour, np.uint8), "PNG")
    ctx = await rig.convert(what, **options)
    for output in ctx.outputs:
        name = output.path.decode()
        wanted = np.array(COLOURS[name.partition("-")[0]])
        with tifffile.TiffFile(ctx.work / name) as file:
            for level in file.pages:
                found = level.asarray().astype(int)
                assert np.abs(found - wanted).max() <= 3, (name, found.shape)
