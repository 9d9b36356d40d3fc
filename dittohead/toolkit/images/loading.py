"""Open an image so that damage fails it, and find its pages."""

from __future__ import annotations

import os
import re
import struct
from typing import Any

from dittohead.toolkit.images import chunks, fallback_reader, jp2, kinds, pages, tiff
from dittohead.toolkit.images.library import may_use_imagemagick, pyvips, reads, unlimited, version
from dittohead.toolkit.images.reasons import DamagedImage, Missing, RefusedImage, Unfit, is_unsupported

#: PostScript is a program, and its interpreter reads files.
_POSTSCRIPT = (b"%!PS", b"\xc5\xd0\xd3\xc6")


def open_image(
    fd: int, *, page: int | None = None, dpi: int = 300, access: str = "sequential", stray: bool = False
) -> Any:
    """Open an image so that any damage fails it; an unknown tag is not damage.

    Args:
        fd: the file.
        page: counted from 1; None for the one that the file calls its first.
        dpi: what a PDF is drawn at: it has no pixels of its own.
        access: "sequential", or "random" where the pixels are taken in another order.
        stray: of a JPEG, go on where libjpeg warns; anyone who asks for it looks at the warnings.
    """
    head = os.pread(fd, kinds.HEAD, 0)
    if not head:
        raise RefusedImage("the file is empty: no image")
    if (kind := kinds.kind_of(head)) and not kinds.is_read(kind):
        raise Unfit(f"it is {kind}, which is not read here")
    if head.startswith(_POSTSCRIPT):
        raise RefusedImage("PostScript is not drawn here; make a PDF or an image of it")
    # BMP is read by ImageMagick alone; nothing that begins otherwise gets there.
    may_use_imagemagick(head.startswith(b"BM"))
    # "warning" is what sees a damaged Huffman code in a JPEG; "error" writes its garbage out.
    lenient = stray and kind == "JPEG"
    given: dict[str, Any] = {"access": access, "fail_on": "error" if lenient else "warning"}
    given |= without_limits(fd)
    if page is not None:
        given["page"] = page - 1
    if head.startswith(b"%PDF"):
        given["dpi"] = dpi
    try:
        return _opened(fd, page or 1, given)
    except pyvips.Error as error:
        if is_unsupported(str(error)) and (other := fallback_reader.opened(fd, page or 1)) is not None:
            return other
        if re.search("not a known file format|not in a known format|operation is blocked", str(error)):
            raise _unknown(head) from error
        raise


def _opened(fd: int, page: int, given: dict[str, Any]) -> Any:
    """Open an image by libvips, but for what it would read wrongly. Raises: pyvips.Error, Unfit, OSError."""
    path = f"/proc/self/fd/{chunks.readable(fd)}"
    image = pyvips.Image.new_from_file(path, **given)
    if fallback_reader.is_raw_ycbcr(fd, page):
        raise Unfit("its colours are YCbCr, not coded by JPEG, which is not read here")
    if fallback_reader.is_old_jpeg(fd, page):
        other = fallback_reader.opened(fd, page)
        return image.extract_band(0, n=fallback_reader.bands(fd, page)) if other is None else other
    if fallback_reader.must_be_tried(fd, page):
        pyvips.Image.new_from_file(path, **given).crop(0, 0, 1, 1).avg()
    return image


def without_limits(fd: int) -> dict[str, bool]:
    """Return the option with which a loader reads all that its format allows, where it has such a thing."""
    return unlimited(kinds.loader_of(os.pread(fd, kinds.HEAD, 0))[1])


def _unknown(head: bytes) -> RefusedImage:
    kind, loader = kinds.loader_of(head)
    if not kind:
        return RefusedImage("this is not an image, or of a kind that cannot be read")
    if not reads(loader):
        return Missing(
            f"it is a {kind}, which libvips {version()} here is built without; Debian's libvips42 reads it"
        )
    return DamagedImage(f"it begins like a {kind}, but the file ends early or is damaged")


def count(image: pyvips.Image) -> int:
    """Return how many images libvips finds in a file, pages or not."""
    if image.get("vips-loader") == "jp2kload" or not image.get_typeof("n-pages"):
        return 1  # the pages of a JPEG 2000 are its resolutions
    return int(image.get("n-pages"))


def pages_of(fd: int, image: pyvips.Image) -> list[int]:
    """Return where the pages stand; the levels of a pyramid, and a thumbnail, are not pages.

    Raises: RefusedImage: it is a TIFF of which pages are missing.
    """
    tiff.see_whole(fd)
    return pages.numbers(fd, count(image))


def is_keyed(fd: int, image: pyvips.Image) -> bool:
    """Tell whether one colour of a PNG stands for transparency, of which libvips makes an alpha.

    Source: PNG 11.3.1.1: tRNS stands before the pixels, and in an image that has an alpha never.
    """
    if image.get("vips-loader") != "pngload" or not image.hasalpha():
        return False
    return os.pread(fd, 1, 25) in (b"\0", b"\2")  # colour types 0 and 2 have no alpha of their own


def sample(fd: int, image: pyvips.Image, page: int) -> tuple[int, bool]:
    """Return (bits of a sample or 0, whether the pixels are places in a palette), as the file has them.

    libvips makes 8 bits of fewer, 16 of 9 and more, and colours of a palette, and does not tell.

    Args:
        fd: an open descriptor of the file; its offset stays.
        image: the same file, as libvips has loaded it.
        page: the page's number in the file, from 1.
    """
    loader = image.get("vips-loader")
    if loader == "tiffload":
        return tiff.sample(fd, page)
    if loader == "jp2kload":
        return jp2.bits(fd), False
    if loader == "heifload" and image.get_typeof("heif-bitdepth"):
        return int(image.get("heif-bitdepth")), False
    if loader == "pngload":
        # Source: PNG section 11.2.1: IHDR is first; bit depth and colour type at bytes 24 and 25.
        depth, kind = struct.unpack("BB", os.pread(fd, 2, 24))
        return depth, kind == 3
    return 0, loader == "gifload"
