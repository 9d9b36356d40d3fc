"""Make a small picture of an image for the page: what can be seen of it, also where it is damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dittohead.system import files
from dittohead.toolkit.images import chunks, fallback_reader, loading, pages, tiff
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.reasons import RefusedImage

_QUALITY = 78


def make(request: dict[str, Any]) -> dict[str, Any]:
    """Write a JPEG in sRGB that fits a square, and return its {"width", "height"}.

    Args:
        request: {"root": DIR, "thumbnail": REL, "out": PATH, "size": pixels of the longer side}.

    Raises: RefusedImage, ItemError, OSError, pyvips.Error.
    """
    with files.opened_beneath(os.fsencode(request["root"]), os.fsencode(request["thumbnail"])) as fd:
        image = _small(fd, request["size"])
        if image.hasalpha():
            image = image.flatten(background=[255])
        if image.interpretation not in ("srgb", "b-w"):
            image = image.colourspace("srgb")
        data = image.cast("uchar").jpegsave_buffer(Q=_QUALITY, strip=True, optimize_coding=True)
    out = Path(request["out"])
    temp = out.with_suffix(f".{os.getpid()}.tmp")
    try:
        temp.write_bytes(data)
        os.replace(temp, out)
    finally:
        temp.unlink(missing_ok=True)
    return {"width": image.width, "height": image.height}


def _small(fd: int, size: int) -> pyvips.Image:
    """Return the picture that `convert` takes first, smaller; where it can take none, what can be seen."""
    bounds = {"height": size, "size": "down"}
    first = loading.open_image(fd)  # refuses what is not an image; only its head is read
    found = _other(fd, first)
    if found is not None:
        return found.thumbnail_image(size, **bounds)
    # By path: libvips takes the nearest level of a pyramid, a JPEG's own smaller scale, and of a HEIF the
    # picture that it calls its first.
    options = "[unlimited]" if loading.without_limits(fd) else ""
    return pyvips.Image.thumbnail(f"/proc/self/fd/{chunks.readable(fd)}{options}", size, **bounds)


def _other(fd: int, first: pyvips.Image) -> pyvips.Image | None:
    """Return the picture where libvips by the file's path finds another or none; None where it finds it.

    In a TIFF it begins with the first image, and takes each that is half of the one before for a level.
    """
    if first.get_typeof(fallback_reader.READER):
        return first
    try:
        places = loading.pages_of(fd, first)
    except RefusedImage:
        return None
    if not tiff.is_tiff(fd) or (places == [1] and not any(pages.besides(fd, 1))):
        return None
    return loading.open_image(fd, page=places[0])
