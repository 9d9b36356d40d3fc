"""Open an image so that damage fails it, and count its pages."""

from __future__ import annotations

import os
import re
from typing import Any

from dittohead.images.library import may_use_imagemagick, pyvips
from dittohead.images.reasons import Refused

#: How files begin, to tell a damaged image from a text.
_SIGNATURES = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"\xff\xd8", "JPEG"),
    (b"\x89PNG", "PNG"),
    (b"RIFF", "WebP"),
    (b"GIF8", "GIF"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"BM", "BMP"),
    (b"%PDF", "PDF"),
)

#: Pixels per inch a PDF's first page is drawn at: it has none of its own.
PDF_DPI = 300


def open_image(fd: int, **options: Any) -> pyvips.Image:
    """Open an image so that any damage fails it; an unknown tag is no damage."""
    head = os.pread(fd, 16, 0)
    if not head:
        raise Refused("the file is empty: no image")
    # BMP is read by ImageMagick alone; nothing that begins otherwise gets there.
    may_use_imagemagick(head.startswith(b"BM"))
    # "warning" is what sees a damaged Huffman code in a JPEG; "error" writes its garbage out.
    given = {"access": "sequential", "fail_on": "warning", **options}
    if head.startswith(b"%PDF"):
        given["dpi"] = PDF_DPI
    try:
        image: pyvips.Image = pyvips.Image.new_from_file(f"/proc/self/fd/{fd}", **given)
    except pyvips.Error as error:
        if re.search("not a known file format|not in a known format|operation is blocked", str(error)):
            raise Refused(_unknown(head)) from error
        raise
    return image


def _unknown(head: bytes) -> str:
    kind = next((kind for begin, kind in _SIGNATURES if head.startswith(begin)), "")
    if kind:
        return f"it begins like a {kind}, but the file ends early or is damaged"
    return "this is no image, or of a kind that cannot be read"


def count_pages(fd: int, image: pyvips.Image) -> int:
    """Return the number of pages; the levels of a pyramid, and a thumbnail, are no pages."""
    count = int(image.get("n-pages")) if image.get_typeof("n-pages") else 1
    if count > 1:
        second = open_image(fd, page=1)
        if second.width <= image.width // 2 + 1 and second.height <= image.height // 2 + 1:
            return 1
    return count
