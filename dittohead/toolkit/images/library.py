"""The only door to libvips: loaded without executable memory, told what it may open."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

import cffi

#: What may be loaded, and libvips' operation for it. Others are left out because they read further files
#: (OpenSlide, SVG), run interpreters (ImageMagick, but for BMP) or take any text for numbers (CSV, matrix).
#: A build of libvips may lack any; its classes are called after the library behind them, operations are not.
_LOADERS = {
    "tiff": "tiffload",
    "jpeg": "jpegload",
    "png": "pngload",
    "webp": "webpload",
    "jp2k": "jp2kload",
    "heif": "heifload",
    "gif": "gifload",
    "jxl": "jxlload",
    "pdf": "pdfload",
    "bmp": "magickload",
}


def _without_callbacks() -> None:
    # pyvips makes C callbacks at import (for its log and for progress signals, neither used here),
    # which needs memory that is writable and executable: the service is denied that
    # (MemoryDenyWriteExecute=). GLib's own log handler, which writes to standard error, stands in.
    handler = ctypes.cast(ctypes.CDLL("libglib-2.0.so.0").g_log_default_handler, ctypes.c_void_p).value

    def callback(ffi: Any, kind: Any, function: Any = None, **_: Any) -> Any:
        pointer = ffi.cast("void *", handler if kind == "GLogFunc" else 0)
        return pointer if function is not None else lambda function: pointer

    cffi.FFI.callback = callback


# Read by libvips when it is loaded. One thread: the daemon runs as many children as it may.
os.environ["VIPS_CONCURRENCY"] = "1"
_without_callbacks()
import pyvips as pyvips  # noqa: E402  # after what it must find


def _text_as_it_is() -> None:
    # What files say of themselves is named and told in their own bytes (a PNG's keywords are Latin-1), and
    # pyvips takes all of it for UTF-8: one such name, and none of an image's fields can be listed.
    def to_string(given: Any) -> str:
        text = "NULL" if given == pyvips.ffi.NULL else pyvips.ffi.string(given)
        return text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else str(text)

    def to_bytes(given: Any) -> Any:
        text = str(given) if isinstance(given, (str, os.PathLike)) else given
        return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text

    for name, module in list(sys.modules.items()):
        for own in (to_string, to_bytes):
            if name.partition(".")[0] == "pyvips" and hasattr(module, f"_{own.__name__}"):
                setattr(module, f"_{own.__name__}", own)


_text_as_it_is()

# libvips remembers loaded files by name: /proc/self/fd/5 is another file each time.
pyvips.cache_set_max(0)
pyvips.operation_block_set("VipsForeignLoad", True)


def _allow(operation: str, allowed: bool) -> None:
    if found := _found(operation):
        pyvips.operation_block_set(pyvips.type_name(found), not allowed)


def _found(operation: str) -> int:
    """Return the number of an operation's class; 0 where this libvips has none."""
    return int(pyvips.type_find("VipsOperation", operation))


for _loader in _LOADERS.values():
    _allow(_loader, _loader != "magickload")


def may_use_imagemagick(allowed: bool) -> None:
    """Let libvips open the next file by ImageMagick, or not."""
    _allow("magickload", allowed)


def reads(loader: str) -> bool:
    """Tell whether this libvips has a loader, by its name of ours."""
    return loader in _LOADERS and _has(_LOADERS[loader])


@cache
def unlimited(loader: str) -> dict[str, bool]:
    """Return the option that lifts what a loader allows itself, where it has such a thing.

    Sound images are beyond it: PNGs of a thousand texts, JPEGs of a hundred scans, HEIFs of 16,385 pixels on
    a side. What a hostile one may take is bounded all the same, by the child's memory, pixels and time.
    """
    if not reads(loader):
        return {}
    return (
        {"unlimited": True} if "unlimited" in pyvips.Introspect.get(_LOADERS[loader]).optional_input else {}
    )


def version() -> str:
    """Return libvips' version."""
    return ".".join(str(pyvips.version(i)) for i in range(3))


#: What each format is written by.
_SAVERS = {"jpeg": "jpegsave", "png": "pngsave", "iiif-static": "dzsave"}


def probe() -> dict[str, Any]:
    """Return the version of this machine's libvips, and what it can load and write."""
    return {
        "version": version(),
        "load": [name for name in _LOADERS if reads(name)],
        "formats": ["pyramid-tiff", *(name for name, saver in _SAVERS.items() if _has(saver))],
        "compressions": [n for n in ("jpeg", "deflate", "lzw", "webp", "zstd", "none") if _writes(n)],
    }


def _has(operation: str) -> bool:
    return bool(_found(operation))


def _writes(compression: str) -> bool:
    # Three bands and no pyramid: libvips 8.14 crashes when writing one fails (WebP holds no grey).
    try:
        pyvips.Image.black(16, 16, bands=3).tiffsave_buffer(compression=compression, tile=True)
    except pyvips.Error:
        return False
    return True
