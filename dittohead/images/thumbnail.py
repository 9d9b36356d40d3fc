"""Make a small picture of an image for the page: what can be seen of it, also where it is damaged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dittohead import files
from dittohead.images import loading
from dittohead.images.library import pyvips

_QUALITY = 78


def make(request: dict[str, Any]) -> dict[str, Any]:
    """Write a JPEG in sRGB that fits a square, and return its {"width", "height"}.

    Args:
        request: {"root": DIR, "thumbnail": REL, "out": PATH, "size": pixels of the longer side}.

    Raises: Refused, ItemError, OSError, pyvips.Error.
    """
    with files.opened_beneath(os.fsencode(request["root"]), os.fsencode(request["thumbnail"])) as fd:
        loading.open_image(fd)  # refuses what is no image; only its head is read
        # By path: libvips takes the nearest level of a pyramid, and a JPEG's own smaller scale.
        image = pyvips.Image.thumbnail(
            f"/proc/self/fd/{fd}", request["size"], height=request["size"], size="down"
        )
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
