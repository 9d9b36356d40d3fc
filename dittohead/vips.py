"""The child program that touches images, and the only door to libvips: `python -m dittohead.vips`.

The daemon never imports this module's libvips: a crash, a leak or a hostile image ends a child, not
the daemon. One child serves many images, since starting one costs more than a small image. It
reads a JSON request a line and answers a JSON line:

    {"root": DIR, "path": REL, "sha256": HEX, "out": FILE, "recipe": {...}}
    {"ok": true, "size": N, "sha256": HEX, "detail": {...}}
    {"ok": false, "kind": "image" | "disk" | "memory", "what": TEXT}

`--probe` prints what this libvips can read and write and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import resource
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dittohead import files
from dittohead.errors import ItemError

if TYPE_CHECKING:
    import pyvips

#: A TIFF above 4 GiB needs BigTIFF; overheads and the pyramid's third are why this is lower.
_BIGTIFF = int(2.5 * (1 << 30))

#: Compressions that change no pixel, for which nothing else is changed either.
LOSSLESS = frozenset({"none", "deflate", "lzw", "zstd", "packbits"})

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}

#: libvips' words and what they mean to a technician.
_ENDS_EARLY = (
    r"premature end|truncat|not enough data|read error|end of (file|stream)|unexpected end|incomplete"
    r"|short read|Read(Scan|Encoded)|IDAT: |unable to read"
)
_MEANINGS = (
    (
        _ENDS_EARLY,
        "the file ends early or is damaged inside",
    ),
    (
        r"not a known file format|not in a known format|no suitable load",
        "this is no image, or its beginning is damaged",
    ),
    (r"out of memory|unable to allocate|cannot allocate", "the image needs more memory than allowed"),
    (r"No space left|Disk quota", "the disk is full"),
)


class Refused(Exception):  # says what happened to the image
    """This image cannot be converted; the message is for people."""


def main() -> None:
    """Serve requests from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a library that prints must not break the protocol
    memory = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # Read by libvips when it is loaded. One thread: the parent runs as many children as it may.
    os.environ |= {"VIPS_CONCURRENCY": "1", "VIPS_WARNING": "1"}
    if "--probe" in sys.argv:
        _answer(answers, probe())
        return
    vips = _library()
    for line in sys.stdin.buffer:
        _answer(answers, _serve(vips, json.loads(line)))


def _answer(answers: IO[bytes], value: dict[str, Any]) -> None:
    answers.write(json.dumps(value).encode() + b"\n")


def _library() -> Any:
    import cffi

    # pyvips makes C callbacks at import (for its log and for progress signals, neither used here),
    # which needs memory that is writable and executable: the service is denied that
    # (MemoryDenyWriteExecute=). GLib's own log handler, which writes to standard error, stands in.
    handler = ctypes.cast(ctypes.CDLL("libglib-2.0.so.0").g_log_default_handler, ctypes.c_void_p).value

    def callback(ffi: Any, kind: Any, function: Any = None, **_: Any) -> Any:
        pointer = ffi.cast("void *", handler if kind == "GLogFunc" else 0)
        return pointer if function is not None else lambda function: pointer

    cffi.FFI.callback = callback
    import pyvips

    # libvips remembers loaded files by name: /proc/self/fd/5 is another file each time.
    pyvips.cache_set_max(0)
    return pyvips


def probe() -> dict[str, Any]:
    """Return {"version", "load": [...], "compressions": [...]} of this machine's libvips."""
    vips = _library()
    loaders = [
        n
        for n in ("tiff", "jpeg", "png", "webp", "jp2k", "heif", "gif", "pdf", "svg", "jxl")
        if _has(vips, f"{n}load")
    ]
    return {
        "version": ".".join(str(vips.version(i)) for i in range(3)),
        "load": loaders,
        "compressions": [
            name for name in ("jpeg", "deflate", "lzw", "webp", "zstd", "none") if _writes(vips, name)
        ],
    }


def _has(vips: Any, operation: str) -> bool:
    return bool(vips.type_find("VipsOperation", operation))


def _writes(vips: Any, compression: str) -> bool:
    try:
        vips.Image.black(16, 16).tiffsave_buffer(compression=compression, tile=True)
    except vips.Error:
        return False
    return True


def _serve(vips: Any, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"ok": True, **convert(vips, request)}
    except Refused as error:
        return {"ok": False, "kind": "image", "what": str(error)}
    except ItemError as error:
        return {"ok": False, "kind": "image", "what": error.what}
    except MemoryError:
        return {"ok": False, "kind": "memory", "what": "the image needs more memory than allowed"}
    except vips.Error as error:
        what = explain(str(error))
        kind = "disk" if "disk is full" in what else "memory" if "more memory" in what else "image"
        return {"ok": False, "kind": kind, "what": what}
    except OSError as error:
        kind = "disk" if error.errno in _DISK else "image"
        return {"ok": False, "kind": kind, "what": error.strerror or str(error)}
    except Exception as error:  # noqa: BLE001  # one image's surprise must not take the next one along
        return {"ok": False, "kind": "image", "what": f"unforeseen {type(error).__name__}: {error}"}


def explain(said: str) -> str:
    """Return libvips' complaint in words, with its own last line in brackets."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = (
        [line for line in lines if not line.startswith("unable to call")] or lines or ["no reason given"]
    )
    own = re.sub(r"/proc/self/fd/\d+", "the file", telling[-1])[:200]
    for pattern, meaning in _MEANINGS:
        if re.search(pattern, said, re.IGNORECASE):
            return f"{meaning} ({own})"
    return f"the image library refused it ({own})"


def convert(vips: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Make one pyramid TIFF: check the input's digest, convert, read back, publish.

    # 1 write temp  2 read every level back  3 fsync  4 rename.  The caller makes the names durable.
    """
    recipe, out = request["recipe"], os.fsencode(request["out"])
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with contextlib.ExitStack() as stack:
        fd = stack.enter_context(
            files.opened_beneath(os.fsencode(request["root"]), os.fsencode(request["path"]))
        )
        folder = os.open(os.path.dirname(out), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, folder)
        # A plain name below a descriptor: libvips takes only UTF-8, and reads "x.tif[...]" as options.
        temp = Path(f"/proc/self/fd/{folder}/.{os.getpid()}.tmp")
        if files.sha256_fd(fd, files.hash_buffer())[0] != request["sha256"]:
            raise Refused("the file is not what it was at the claim")
        # By descriptor: no link is followed, and no name is taken for libvips' options ("a.tif[page=1]").
        source = f"/proc/self/fd/{fd}"
        try:
            image, detail = _prepare(vips, source, recipe)
            _save(image, temp, recipe)
            if recipe["verify"]:
                detail["levels"] = _verify(vips, temp, image.width, image.height, recipe)
                if recipe["compression"] in LOSSLESS:
                    again, _ = _prepare(vips, source, recipe)
                    _compare(vips, again, temp)
                    detail["lossless"] = True
            files.fsync_file(temp)
            digest, size = files.sha256_file(temp)
            os.replace(temp, out)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise
    return {"size": size, "sha256": digest, "detail": detail}


# -- reading ---------------------------------------------------------------------------------


def _prepare(vips: Any, source: str, recipe: dict[str, Any]) -> tuple[pyvips.Image, dict[str, Any]]:
    """Open an image and bring it to what the compression can hold; say every change made."""
    image = _open(vips, source)
    changes: list[str] = []
    warnings: list[str] = []
    pages = _pages(vips, source, image)
    if pages > 1:
        warnings.append(f"only the first of {pages} pages was converted")
    orientation = image.get("orientation") if image.get_typeof("orientation") else 1
    if orientation != 1:
        # Turning needs the pixels in another order than they come.
        image = _open(vips, source, access="random").autorot()
        changes.append(f"turned upright (orientation {orientation})")
    if recipe["compression"] not in LOSSLESS:
        image = _fit_for_lossy(image, changes)
    detail: dict[str, Any] = {"width": image.width, "height": image.height, "bands": image.bands}
    if changes:
        detail["changes"] = changes
    if warnings:
        detail["warnings"] = warnings
    return image, detail


def _open(vips: Any, source: str, **options: Any) -> pyvips.Image:
    # "error": half images and damaged data fail; a mere warning, such as an unknown tag, does not.
    given = {"access": "sequential", "fail_on": "error", **options}
    image: pyvips.Image = vips.Image.new_from_file(source, **given)
    return image


def _pages(vips: Any, source: str, image: pyvips.Image) -> int:
    """Return the number of pages; the levels of a pyramid are no pages."""
    count = int(image.get("n-pages")) if image.get_typeof("n-pages") else 1
    if count > 1:
        second = _open(vips, source, page=1)
        if second.width <= image.width // 2 + 1 and second.height <= image.height // 2 + 1:
            return 1
    return count


def _fit_for_lossy(image: pyvips.Image, changes: list[str]) -> pyvips.Image:
    """Return the image as 8-bit grey or RGB, which is what JPEG and WebP tiles hold."""
    if image.format in ("float", "double", "complex", "dpcomplex") and image.interpretation not in (
        "lab",
        "scrgb",
        "xyz",
        "labs",
        "lch",
    ):
        raise Refused("its pixels are floating-point numbers without a known range; use compression: deflate")
    if image.hasalpha():
        image = _flattened(image)
        changes.append("transparency laid on white")
    image = _coloured(image, changes)
    if image.format == "ushort":
        image = (image >> 8).cast("uchar").copy(interpretation="srgb" if image.bands == 3 else "b-w")
        changes.append("16 bits made 8")
    if image.format != "uchar":
        raise Refused(f"its pixels are of type {image.format}; use compression: deflate")
    if image.bands not in (1, 3):
        raise Refused(f"it has {image.bands} bands, neither grey nor colour; use compression: deflate")
    return image


def _flattened(image: pyvips.Image) -> pyvips.Image:
    white = 65535 if image.format == "ushort" else 255
    return image.flatten(background=[white] * (image.bands - 1), max_alpha=white)


def _coloured(image: pyvips.Image, changes: list[str]) -> pyvips.Image:
    if image.interpretation == "cmyk":
        changes.append("CMYK made sRGB" + (" by its profile" if image.get_typeof("icc-profile-data") else ""))
        return image.icc_transform("srgb", embedded=True, input_profile="cmyk")
    if image.interpretation in ("lab", "labs", "labq", "lch", "xyz", "scrgb", "hsv", "yxy"):
        changes.append(f"{image.interpretation} made sRGB")
        return image.colourspace("srgb")
    return image


# -- writing ---------------------------------------------------------------------------------


def _save(image: pyvips.Image, temp: Path, recipe: dict[str, Any]) -> None:
    uncompressed = image.width * image.height * image.bands * {"uchar": 1, "ushort": 2}.get(image.format, 4)
    estimate = uncompressed * (4 / 3 if recipe["compression"] in LOSSLESS else 1 / 3)
    image.tiffsave(
        str(temp),
        tile=True,
        pyramid=True,
        compression=recipe["compression"],
        Q=recipe["quality"],
        tile_width=recipe["tile"],
        tile_height=recipe["tile"],
        bigtiff=estimate > _BIGTIFF,
    )


def _verify(vips: Any, temp: Path, width: int, height: int, recipe: dict[str, Any]) -> int:
    """Open and decode every level; return how many there are."""
    first = vips.Image.new_from_file(str(temp), access="sequential", fail_on="error")
    count = int(first.get("n-pages")) if first.get_typeof("n-pages") else 1
    if (first.width, first.height) != (width, height):
        raise Refused(f"the result is {first.width}x{first.height}, not {width}x{height}")
    for level in range(count):
        page = vips.Image.new_from_file(str(temp), page=level, access="sequential", fail_on="error")
        if page.width not in (width, width + 1) or page.height not in (height, height + 1):
            raise Refused(f"level {level} of the result has a wrong size, {page.width}x{page.height}")
        page.avg()  # decodes every tile
        width, height = max(page.width // 2, 1), max(page.height // 2, 1)
    if max(width, height) >= recipe["tile"] * 2:
        raise Refused("the result lacks its smallest levels")
    return count


def _compare(vips: Any, image: pyvips.Image, temp: Path) -> None:
    written = vips.Image.new_from_file(str(temp), access="sequential", fail_on="error")
    if (written.bands, written.format) != (image.bands, image.format) or (image != written).max() != 0:
        raise Refused("the result's pixels differ from the source's")


if __name__ == "__main__":
    main()
