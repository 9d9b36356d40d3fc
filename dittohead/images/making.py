"""One image from its file to a published, verified result."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from dittohead import files
from dittohead.images import checking, colour, loading, pyramid
from dittohead.images.library import pyvips
from dittohead.images.overheard import Overheard
from dittohead.images.reasons import Refused


def convert(request: dict[str, Any], overheard: Overheard) -> dict[str, Any]:
    """Make one pyramid TIFF: check the input's digest, convert, read back, publish.

    # 1 write temp  2 read every level back  3 fsync  4 rename.  The daemon makes the names durable.
    """
    recipe, temp, out = request["recipe"], os.fsencode(request["temp"]), os.fsencode(request["out"])
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with files.opened_beneath(os.fsencode(request["root"]), os.fsencode(request["path"])) as fd:
        # First, so that the load finds the file in memory. Nothing else sees a flipped bit in a JPEG.
        if request["recipe"]["verify"] and files.sha256_fd(fd, files.hash_buffer())[0] != request["sha256"]:
            raise Refused("the file is not what it was at the claim")
        made = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            answer = _make(fd, made, recipe, careful=request.get("careful", False))
            if overheard.notable:
                answer["detail"].setdefault("warnings", []).extend(overheard.notable)
            os.replace(temp, out)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temp)
            raise
        finally:
            os.close(made)
    return answer


def _make(fd: int, made: int, recipe: dict[str, Any], *, careful: bool) -> dict[str, Any]:
    if careful:
        # libvips 8.14 crashes when a source fails late in writing a pyramid: find the reason first.
        loading.open_image(fd).avg()
    image, detail = _prepare(fd, recipe)
    pyramid.write(image, f"/proc/self/fd/{made}", recipe)
    if recipe["verify"]:
        detail["levels"] = checking.verify_levels(made, image, recipe)
        if recipe["compression"] in pyramid.LOSSLESS:
            checking.compare(_prepare(fd, recipe)[0], made)
            detail["lossless"] = True
    os.fsync(made)
    os.lseek(made, 0, os.SEEK_SET)
    digest, size = files.sha256_fd(made, files.hash_buffer())
    return {"size": size, "sha256": digest, "detail": detail}


def _prepare(fd: int, recipe: dict[str, Any]) -> tuple[pyvips.Image, dict[str, Any]]:
    """Open an image and bring it to what the compression can hold; say every change made."""
    image = loading.open_image(fd)
    changes: list[str] = []
    detail: dict[str, Any] = {}
    pages = loading.count_pages(fd, image)
    orientation = image.get("orientation") if image.get_typeof("orientation") else 1
    if 2 <= orientation <= 8:
        # Turning takes the pixels in another order than they come.
        image = loading.open_image(fd, access="random").autorot()
        changes.append(f"turned upright (orientation {orientation})")
    if image.get("vips-loader") == "pdfload":
        changes.append(f"drawn at {loading.PDF_DPI} dpi")
    if recipe["compression"] not in pyramid.LOSSLESS:
        image = colour.fit_for_lossy(image, recipe["compression"], changes)
    detail |= {"width": image.width, "height": image.height, "bands": image.bands}
    if changes:
        detail["changes"] = changes
    if pages > 1:
        detail["pages"] = pages
        detail["warnings"] = [f"only the first of {pages} pages was converted"]
    return image, detail
