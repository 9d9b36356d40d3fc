"""Write a tiled pyramid TIFF."""

from __future__ import annotations

from typing import Any

from dittohead.images.library import pyvips

#: A TIFF above 4 GiB needs BigTIFF; the estimate is rough, hence the margin.
_BIGTIFF = int(3.5 * (1 << 30))

#: Compressions that change no pixel, for which nothing else is changed either.
LOSSLESS = frozenset({"none", "deflate", "lzw", "zstd"})

#: deflate at libvips' own level (6) takes three times as long as 3 for files 6 % smaller.
_LEVELS = {"deflate": 3, "zstd": 3}


def write(image: pyvips.Image, made: str, recipe: dict[str, Any]) -> None:
    """Write the image to the file `made`."""
    sample = {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "double": 8, "complex": 8, "dpcomplex": 16}
    raw = image.width * image.height * image.bands * sample.get(image.format, 4)
    compression = recipe["compression"]
    options = {"level": _LEVELS[compression]} if compression in _LEVELS else {}
    image.tiffsave(
        made,
        tile=True,
        pyramid=True,
        compression=compression,
        Q=recipe["quality"],
        tile_width=recipe["tile"],
        tile_height=recipe["tile"],
        bigtiff=raw * (4 / 3 if compression in LOSSLESS else 1 / 2) > _BIGTIFF,
        **options,
    )
