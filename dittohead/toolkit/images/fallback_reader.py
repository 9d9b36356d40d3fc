"""Read a TIFF that libvips does not read, by tifffile: tiles of planes, JPEG of the old style, rarer codecs.

Whole in memory. Only samples of 8 and 16 bits, grey or RGB, whose meaning is beyond doubt.
"""

from __future__ import annotations

from importlib import metadata, util
from typing import Any

from dittohead.toolkit.images import tiff
from dittohead.toolkit.images.library import pyvips

#: The field of an image that says who has read it.
READER = "dittohead-reader"

_COMPRESSION, _ORIENTATION, _SAMPLES, _PLANES, _XMP, _ICC = 259, 274, 277, 284, 700, 34675

#: Of PlanarConfiguration.
_SEPARATE = 2

_GREY, _RGB, _YCBCR = 1, 2, 6

#: Compressions that bring YCbCr to RGB when they are decoded: JPEG, of old and new.
_JPEGS = frozenset({6, 7})

_OLD_JPEG = 6

#: Compressions out of which samples come as they are: none, LZW, deflate, PackBits, LZMA, Zstandard.
_RAW = frozenset({1, 5, 8, 32773, 32946, 34925, 50000})

#: Compressions that each libtiff reads; of another it is asked, by one pixel.
_USUAL = frozenset({0, 1, 2, 3, 4, 5, 7, 8, 32773, 32946})

_SPACES = {(1, 1): "b-w", (1, 2): "grey16", (3, 1): "srgb", (3, 2): "rgb16"}


def must_be_tried(fd: int, page: int) -> bool:
    """Tell whether libvips says only of a page's pixels that it does not read them."""
    fields = tiff.of_page(fd, page)
    if tiff.TILE_WIDTH in fields and tiff.number(fd, fields.get(_PLANES)) == _SEPARATE:
        return True
    return bool(fields) and tiff.number(fd, fields.get(_COMPRESSION)) not in _USUAL


def is_old_jpeg(fd: int, page: int) -> bool:
    """Tell whether a page is a JPEG of the old style: libvips reads none, or gives it an alpha."""
    return tiff.number(fd, tiff.of_page(fd, page).get(_COMPRESSION)) == _OLD_JPEG


def bands(fd: int, page: int) -> int:
    """Return how many samples a pixel of a page has, as the file says."""
    return tiff.number(fd, tiff.of_page(fd, page).get(_SAMPLES)) or 1


def is_raw_ycbcr(fd: int, page: int) -> bool:
    """Tell whether a page's samples are luma and chroma as they lie: libvips takes them for RGB."""
    fields = tiff.of_page(fd, page)
    raw = tiff.number(fd, fields.get(_COMPRESSION)) in _RAW
    return raw and tiff.number(fd, fields.get(tiff.PHOTOMETRIC)) == _YCBCR


def opened(fd: int, page: int) -> Any:
    """Return a page, None when it cannot be read for certain. Raises: MemoryError."""
    if not (tiff.is_tiff(fd) and util.find_spec("tifffile") and util.find_spec("imagecodecs")):
        return None
    import tifffile  # large, and seldom needed

    try:
        with tifffile.TiffFile(f"/proc/self/fd/{fd}") as file:
            found = file.pages[page - 1]
            return _image(fd, page, found, len(file.pages)) if _is_plain(found) else None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # of as many kinds as there are codecs; what libvips says of it stands
        return None


def _is_plain(page: Any) -> bool:
    known = page.photometric in (_GREY, _RGB) or (page.photometric == _YCBCR and page.compression in _JPEGS)
    samples = page.dtype is not None and page.dtype.kind == "u" and page.dtype.itemsize in (1, 2)
    return bool(known and samples and page.bitspersample == 8 * page.dtype.itemsize)


def _image(fd: int, number: int, page: Any, count: int) -> Any:
    rows = page.asarray(maxworkers=1)
    if page.planarconfig == 2 and rows.ndim == 3:
        rows = rows.transpose(1, 2, 0)
    rows = rows if rows.ndim == 3 else rows[:, :, None]
    height, width, bands = rows.shape
    kind = "uchar" if rows.dtype.itemsize == 1 else "ushort"
    data = rows.astype(rows.dtype.newbyteorder("=")).tobytes()
    image = pyvips.Image.new_from_memory(data, width, height, bands, kind)
    colours = 1 if page.photometric == _GREY else 3
    image = image.copy(interpretation=_SPACES[colours, rows.dtype.itemsize])
    return _described(fd, tiff.of_page(fd, number), image, count)


def _described(fd: int, fields: dict[int, tiff.Field], image: Any, count: int) -> Any:
    """Return the image with what libvips would know of it."""
    versions = (f"{name} {metadata.version(name)}" for name in ("tifffile", "imagecodecs"))
    image.set_type(pyvips.GValue.gstr_type, READER, ", ".join(versions))
    image.set_type(pyvips.GValue.gstr_type, "vips-loader", "tiffload")
    image.set_type(pyvips.GValue.gint_type, "n-pages", count)
    if _ORIENTATION in fields:
        image.set_type(pyvips.GValue.gint_type, "orientation", tiff.number(fd, fields[_ORIENTATION]))
    for tag, name in ((_ICC, "icc-profile-data"), (_XMP, "xmp-data")):
        if tag in fields:
            image.set_type(pyvips.GValue.blob_type, name, tiff.raw(fd, fields[tag]))
    return image
