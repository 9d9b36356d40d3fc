"""Write an image as a static IIIF service: every tile and size of level 0 a file of its own.

Source: IIIF Image API 3.0, 5 (image information), 4.7 (canonical URIs) and its compliance level 0.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dittohead.toolkit.images import derivative, read_back
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.reasons import RefusedImage
from dittohead.toolkit.images.recipe import ImageRecipe

_LEAF = "0/default.jpg"


def write(prepare: Callable[[], pyvips.Image], folder: Path, recipe: ImageRecipe, uri: str) -> None:
    """Write info.json and all it promises into a folder that does not exist yet.

    Args:
        prepare: opens the image again; its pixels come once, from top to bottom.
        folder: made here.
        recipe: how.
        uri: the image's `id`.
    """
    image = prepare()
    derivative.see_that_jpeg_holds(image)
    width, height, tile = image.width, image.height, recipe.tile
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # By descriptor: a "[" in the folder's path would be read as options.
        _tiles(image, f"/proc/self/fd/{fd}", recipe)
        _whole(prepare(), f"/proc/self/fd/{fd}", "max", recipe)
        _smaller(prepare(), f"/proc/self/fd/{fd}", sizes(width, height, tile), recipe)
    finally:
        os.close(fd)
    (folder / "info.json").write_text(json.dumps(info(width, height, tile, uri), indent=2) + "\n")


def _options(recipe: ImageRecipe) -> dict[str, Any]:
    return {**derivative.jpeg_options(recipe), "strip": recipe.colour == "srgb"}


def _tiles(image: pyvips.Image, folder: str, recipe: ImageRecipe) -> None:
    words = ",".join(f"{key}={value}" for key, value in derivative.jpeg_options(recipe).items())
    # In a folder of its own: some releases of libvips put a list of its fields inside, others beside.
    aside = Path(folder, "making")
    aside.mkdir()
    image.dzsave(
        f"{aside}/tiles",
        layout="iiif3",
        tile_size=recipe.tile,
        depth="onetile",
        suffix=f".jpg[{words}]",
        no_strip=recipe.colour != "srgb",
    )
    made = aside / "tiles"
    for name in os.listdir(made):
        # The whole image in one tile is called "full" in a canonical URI; `_smaller` makes that.
        if name == f"0,0,{image.width},{image.height}":
            shutil.rmtree(made / name)
        elif name[0].isdigit():
            os.rename(made / name, Path(folder, name))
    shutil.rmtree(aside)  # libvips' own idea of info.json, and that list


def _whole(image: pyvips.Image, folder: str, size: str, recipe: ImageRecipe) -> None:
    path = Path(folder, "full", size, _LEAF)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        image.jpegsave(f"/proc/self/fd/{fd}", **_options(recipe))
    finally:
        os.close(fd)


def _smaller(
    image: pyvips.Image, folder: str, wanted: list[tuple[int, int, int]], recipe: ImageRecipe
) -> None:
    """Write the whole image at each size, each from the one before, as libvips makes its tiles."""
    for factor, width, height in wanted:
        if factor > 1:
            # On disk beyond some size, for it to be read twice.
            made = pyvips.Image.new_temp_file("%s.v")
            image.shrink(2, 2, ceil=True).write(made)
            image = read_back.see_size(made, (width, height), f"the size at 1/{factor}")
        _whole(image, folder, f"{width},{height}", recipe)


def factors(width: int, height: int, tile: int) -> list[int]:
    """Return the scale factors 1, 2, 4, ... up to the one at which the image is one tile.

    Args:
        width, height: the image's size in pixels.
        tile: length of a tile's sides in pixels.
    """
    found = [1]
    while max(-(-width // found[-1]), -(-height // found[-1])) > tile:
        found.append(found[-1] * 2)
    return found


def sizes(width: int, height: int, tile: int) -> list[tuple[int, int, int]]:
    """Return (scale factor, width, height) of each size of the whole image in pixels, the largest first.

    An image of one tile has its own size; otherwise full size is `max` alone.

    Args:
        width, height: the image's size in pixels.
        tile: length of a tile's sides in pixels.
    """
    known = factors(width, height, tile)
    return [(f, -(-width // f), -(-height // f)) for f in known if f > 1 or len(known) == 1]


def info(width: int, height: int, tile: int, uri: str) -> dict[str, Any]:
    """Return the content of info.json: IIIF Image API 3.0, level 0.

    Args:
        width, height: the image's size in pixels.
        tile: length of a tile's sides in pixels; tiles are square.
        uri: the image's own URI, without "/info.json".
    """
    return {
        "@context": "http://iiif.io/api/image/3/context.json",
        "id": uri,
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level0",
        "width": width,
        "height": height,
        "sizes": [{"width": w, "height": h} for _, w, h in reversed(sizes(width, height, tile))],
        "tiles": [{"width": tile, "height": tile, "scaleFactors": factors(width, height, tile)}],
    }


def promised(width: int, height: int, tile: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield (path, (width, height) in pixels) of each image file that info.json promises.

    Args:
        width, height: the image's size in pixels.
        tile: length of a tile's sides in pixels.
    """
    yield f"full/max/{_LEAF}", (width, height)
    for _, w, h in sizes(width, height, tile):
        yield f"full/{w},{h}/{_LEAF}", (w, h)
    known = factors(width, height, tile)
    for factor in known[:-1]:
        step = tile * factor
        for y in range(0, height, step):
            for x in range(0, width, step):
                across, down = min(step, width - x), min(step, height - y)
                size = -(-across // factor), -(-down // factor)
                yield f"{x},{y},{across},{down}/{size[0]},{size[1]}/{_LEAF}", size


def verify(folder: Path, size: tuple[int, int], recipe: ImageRecipe) -> int:
    """Verify that exactly the promised files are there, and decode each; return how many there are.

    Args:
        folder: the directory with info.json.
        size: (width, height) of the image in pixels.
        recipe: with the tile's size; without its `verify` only the names are compared.

    Raises: RefusedImage.
    """
    wanted = dict(promised(*size, recipe.tile))
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    if there != {*wanted, "info.json"}:
        odd = sorted(there ^ {*wanted, "info.json"})
        raise RefusedImage(f"the result's files are not those of its info.json: {len(odd)}, such as {odd[0]}")
    for name, pixels in wanted.items() if recipe.verify else ():
        fd = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            read_back.see_size(read_back.reopened(fd), pixels, name).avg()
        finally:
            os.close(fd)
    return len(wanted)
