"""Write a tiled pyramid TIFF."""

from __future__ import annotations

from typing import Any

from dittohead.toolkit.images import tiles
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.recipe import ImageRecipe

#: A TIFF above 4 GiB needs BigTIFF; the estimate is rough, hence the margin.
_BIGTIFF = int(3.5 * (1 << 30))

#: The most zlib knows, which is what libvips has; libdeflate goes to 12.
_ZLIB_MOST = 9

#: Newer libvips: zstd's own level takes much longer for files little smaller.
_ZSTD_LEVEL = 3

#: Where a pyramid ends: with a level that fits into one tile, with one pixel, at once.
DEPTHS = {"tile": "onetile", "pixel": "onepixel", "one": "one"}

#: From this quality on libvips writes tiles as RGB, whose colour is not subsampled.
RGB_QUALITY = 90

SAMPLE = {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "double": 8, "complex": 8, "dpcomplex": 16}


def write(image: pyvips.Image, made: int, recipe: ImageRecipe) -> None:
    """Write the image as a pyramid TIFF to an open file.

    Args:
        image: as the recipe wants it.
        made: a descriptor of an empty file, open for writing.
        recipe: compression, quality, tile size and levels.
    """
    if recipe.compression == "deflate" and recipe.levels == "tile" and tiles.can_write(image):
        tile = recipe.tile_for(image.width, image.height)
        tiles.write(image, made, tile=tile, level=recipe.effort)
        return
    lossy = tiles.Lossy(recipe.compression, recipe.quality)
    if recipe.holds == "lossy" and tiles.can_write(image, lossy):
        tile = recipe.tile_for(image.width, image.height)
        tiles.write(image, made, tile=tile, lossy=lossy, end=recipe.levels)
        return
    _by_libvips(image, f"/proc/self/fd/{made}", recipe)


def _by_libvips(image: pyvips.Image, made: str, recipe: ImageRecipe) -> None:
    options: dict[str, Any] = {}
    tile = recipe.tile_for(image.width, image.height)
    if recipe.compression == "deflate":
        options["level"] = min(recipe.effort, _ZLIB_MOST)
    elif recipe.compression == "zstd":
        options["level"] = _ZSTD_LEVEL
    if recipe.levels != "one":
        options |= {"pyramid": True, "depth": DEPTHS[recipe.levels]}
    image.tiffsave(
        made,
        tile=True,
        compression=recipe.compression,
        Q=recipe.quality,
        tile_width=tile,
        tile_height=tile,
        bigtiff=is_big(image.width * image.height * image.bands * SAMPLE.get(image.format, 4), recipe),
        **options,
    )


def is_big(raw: int, recipe: ImageRecipe) -> bool:
    """Tell whether a pyramid of so many bytes of pixels may need BigTIFF."""
    # Noise in JPEG tiles of quality 100 takes nearly what it takes uncompressed.
    small = recipe.holds == "lossy" and recipe.quality < RGB_QUALITY
    return raw * (1 / 2 if small else 4 / 3) > _BIGTIFF
