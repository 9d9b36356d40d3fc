"""Decode an image as it lies there, and say what it is; nothing is written."""

from __future__ import annotations

import os
from typing import Any

from dittohead.system import files
from dittohead.toolkit.images import loading


def decode(request: dict[str, Any]) -> dict[str, Any]:
    """Return {"width", "height", "bands"} of a file of which every pixel was decoded.

    Args:
        request: {"root": DIR, "probe": REL}.

    Raises: RefusedImage, ItemError, OSError, pyvips.Error.
    """
    with files.opened_beneath(os.fsencode(request["root"]), os.fsencode(request["probe"])) as fd:
        image = loading.open_image(fd)
        image.avg()
        return {"width": image.width, "height": image.height, "bands": image.bands}
