"""Write a High-Throughput JPEG 2000 codestream by OpenJPH, as imagecodecs brings it along.

It is several times faster to write and to read than that of Part 1, and some 10 % larger. imagecodecs
takes and gives whole images, so that what fits into memory bounds their size; neither precincts nor
PLT can be asked of it.

Source: ISO/IEC 15444-15:2019.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from importlib import metadata, util
from typing import Any

from numpy.typing import NDArray

from dittohead.model import units
from dittohead.toolkit.images.reasons import RefusedImage

#: Decompositions, and the side of a code block: what OpenJPH takes by itself.
LEVELS, BLOCK = 5, 64

#: Bytes of memory for each byte of samples: they themselves, OpenJPH's own and the result, measured 4.
_FACTOR = 5


def version() -> str:
    """Return what writes it, with its version; "" when nothing does."""
    if util.find_spec("imagecodecs") is None:
        return ""
    import imagecodecs  # large, and of use to few

    return f"imagecodecs {metadata.version('imagecodecs')}" if imagecodecs.HTJ2K.available else ""


def encode(
    rows: Callable[[int, int], NDArray[Any]], shape: tuple[int, int, int], bits: int, fd: int, tile: int
) -> None:
    """Write an image's codestream, reversible and in RPCL, to an open, empty file.

    Args:
        rows: gives so many rows from one on, as (height, width, bands) of unsigned numbers.
        shape: height, width, bands; 3 and more begin with red, green and blue.
        bits: of a sample, 8 or 16.
        fd: a regular file, open for writing.
        tile: width and height of a tile, pixels.

    Raises:
        OSError: the disk takes no more.
        RefusedImage: the image is too large for the memory that is allowed.
    """
    import imagecodecs  # large, and of use to few

    height, width, bands = shape
    _see_memory(height * width * bands * bits // 8)
    whole = rows(0, height)
    colour = bands >= 3
    data = imagecodecs.htj2k_encode(whole, reversible=True, tile=(tile, tile), rgb=colour, planar=False)
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.write(fd, view[done : done + (1 << 20)])


def _see_memory(samples: int) -> None:
    """See that so many bytes of samples can be coded. Raises: RefusedImage."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm", "rb") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    needed = used + _FACTOR * samples
    if allowed != resource.RLIM_INFINITY and needed > allowed:
        raise RefusedImage(
            f"HTJ2K keeps all of an image in memory, and would need {units.size(needed)} of it where "
            f"{units.size(allowed)} are allowed; raise memory, or use format: jp2"
        )
