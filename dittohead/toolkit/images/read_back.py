"""Read back what was written: all of it decoded, lossless results compared pixel by pixel."""

from __future__ import annotations

import os
from typing import Any

from dittohead.toolkit.images import kinds, tiff
from dittohead.toolkit.images.library import pyvips, unlimited
from dittohead.toolkit.images.reasons import RefusedImage
from dittohead.toolkit.images.recipe import ImageRecipe


def reopened(made: int, page: int = 0) -> pyvips.Image:
    """Return the result as it is in its file."""
    options: dict[str, Any] = {"page": page} if page else {}
    options |= unlimited(kinds.loader_of(os.pread(made, kinds.HEAD, 0))[1])
    return pyvips.Image.new_from_file(
        f"/proc/self/fd/{made}", access="sequential", fail_on="warning", **options
    )


def verify_levels(made: int, image: pyvips.Image, recipe: ImageRecipe) -> int:
    """Open and decode every level of a pyramid; return how many levels there are.

    Args:
        made: an open descriptor of the pyramid TIFF.
        image: what was written: size, bands and sample format are compared, pixels are not.
        recipe: with the tile size and the levels that were asked for.

    Raises: RefusedImage: a level is missing or is not what was asked for; pyvips.Error: it cannot be
        decoded.
    """
    width, height, tile = image.width, image.height, recipe.tile_for(image.width, image.height)
    levels = list(tiff.directories(made))
    last = (width, height)
    for level, tags in enumerate(levels):
        page = reopened(made, level)
        if (page.width, page.height, page.bands) != (width, height, image.bands):
            raise RefusedImage(
                f"level {level} of the result is {page.width}x{page.height}x{page.bands}, "
                f"not {width}x{height}x{image.bands}"
            )
        if page.format != image.format:
            raise RefusedImage(
                f"level {level} of the result has samples of type {page.format}, not {image.format}: "
                "this libvips leaves out of which type they are; use compression: deflate, or levels: one"
            )
        if (tags.get(tiff.TILE_WIDTH), tags.get(tiff.TILE_HEIGHT)) != (tile, tile):
            raise RefusedImage(f"level {level} of the result has no tiles of {tile}x{tile}")
        # One row of each row of tiles decodes every tile; the mean of all pixels takes twice as long.
        rows = -(-height // tile) * tile
        page.embed(0, 0, width, rows, extend="copy").subsample(1, tile).avg()
        last = (width, height)
        width, height = max(width // 2, 1), max(height // 2, 1)
        if last == (width, height):
            break
    _see_the_smallest(len(levels), last, recipe.levels, tile)
    return len(levels)


def _see_the_smallest(levels: int, last: tuple[int, int], end: str, tile: int) -> None:
    """See that a pyramid ends where it is to end; `last` is the size of its last level."""
    if end == "one":
        if levels != 1:
            raise RefusedImage("the result has smaller levels, and none are required")
    # libvips makes no smaller level of one that is a single pixel wide or high.
    elif max(last) > (tile if end == "tile" else 1) and min(last) > 1:
        raise RefusedImage("the result lacks its smallest levels")


def verify_single(made: int, image: pyvips.Image) -> None:
    """Decode a result of one image. Raises: RefusedImage."""
    see_size(reopened(made), (image.width, image.height), "the result").avg()


def see_size(found: pyvips.Image, size: tuple[int, int], what: str) -> pyvips.Image:
    """Return an image after its size was compared.

    Args:
        found: the image.
        size: (width, height) that it has to have, in pixels.
        what: what it is, for the message.

    Raises: RefusedImage: it has another size.
    """
    if (found.width, found.height) != size:
        raise RefusedImage(f"{what} is {found.width}x{found.height}, not {size[0]}x{size[1]}")
    return found


def compare(image: pyvips.Image, made: int) -> None:
    """Compare a written image with what it was made of, pixel by pixel. Raises: RefusedImage."""
    written = see_size(reopened(made), (image.width, image.height), "the result")
    if (written.bands, written.format) != (image.bands, image.format):
        raise RefusedImage("the result's pixels are of another type than the source's")
    image, written = image.copy(coding="none"), written.copy(coding="none")
    differs = image != written
    if image.format in ("float", "double"):  # not-a-number is unlike itself
        differs = differs & ((image == image) | (written == written))
    if differs.max() != 0:
        raise RefusedImage("the result's pixels differ from the source's")
