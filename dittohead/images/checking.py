"""Read back what was written: every level decoded, lossless ones compared pixel by pixel."""

from __future__ import annotations

from typing import Any

from dittohead.images import tiff
from dittohead.images.library import pyvips
from dittohead.images.reasons import Refused


def verify_levels(made: int, image: pyvips.Image, recipe: dict[str, Any]) -> int:
    """Open and decode every level; return how many there are."""
    width, height, tile = image.width, image.height, recipe["tile"]
    levels = list(tiff.directories(made))
    for level, tags in enumerate(levels):
        page = pyvips.Image.new_from_file(
            f"/proc/self/fd/{made}", page=level, access="sequential", fail_on="warning"
        )
        if (page.width, page.height, page.bands) != (width, height, image.bands):
            raise Refused(
                f"level {level} of the result is {page.width}x{page.height}x{page.bands}, "
                f"not {width}x{height}x{image.bands}"
            )
        if (tags.get(tiff.TILE_WIDTH), tags.get(tiff.TILE_HEIGHT)) != (tile, tile):
            raise Refused(f"level {level} of the result has no tiles of {tile}x{tile}")
        # One row of each row of tiles decodes every tile; the mean of all pixels takes twice as long.
        rows = -(-height // tile) * tile
        page.embed(0, 0, width, rows, extend="copy").subsample(1, tile).avg()
        width, height = max(width // 2, 1), max(height // 2, 1)
    if width > tile or height > tile:
        raise Refused("the result lacks its smallest levels")
    return len(levels)


def compare(image: pyvips.Image, made: int) -> None:
    """Compare a written image with what it was made of, pixel by pixel. Raises: Refused."""
    written = pyvips.Image.new_from_file(f"/proc/self/fd/{made}", access="sequential", fail_on="warning")
    if (written.bands, written.format) != (image.bands, image.format):
        raise Refused("the result's pixels are of another type than the source's")
    image, written = image.copy(coding="none"), written.copy(coding="none")
    differs = image != written
    if image.format in ("float", "double"):  # not-a-number is unlike itself
        differs = differs & ((image == image) | (written == written))
    if differs.max() != 0:
        raise Refused("the result's pixels differ from the source's")
