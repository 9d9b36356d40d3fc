"""The child program that touches images, and the only door to libvips: `python -m dittohead.vips`.

The daemon never imports this module: a crash, a leak or a hostile image ends a child, not the
daemon. One child serves many images, since starting one costs more than a small image. It reads a
JSON request a line and answers a JSON line (file names as Python's surrogateescape text):

    {"root": DIR, "path": REL, "sha256": HEX, "temp": FILE, "out": FILE, "recipe": {...}, "careful": BOOL}
    {"ok": true, "size": N, "sha256": HEX, "detail": {...}}
    {"ok": false, "kind": "image" | "disk" | "memory", "what": TEXT}

`--probe` prints what this libvips can read and write and ends.

libvips itself never sees a file's name, only /proc/self/fd/N of a descriptor opened here: no link
is followed, a name that is not UTF-8 can be opened, "a.tif[page=1]" is not taken for options, and
each opening has a position of its own. All loaders open by path, so this serves every one of them.

Limits of libvips: of a JPEG's EXIF only orientation and resolution reach a TIFF (ICC and XMP do
whole); an image that gives no resolution is written with 10 pixels per centimetre.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import re
import resource
import struct
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from dittohead import files
from dittohead.errors import ItemError

if TYPE_CHECKING:
    import pyvips

#: A TIFF above 4 GiB needs BigTIFF; the estimate is rough, hence the margin.
_BIGTIFF = int(3.5 * (1 << 30))

#: Compressions that change no pixel, for which nothing else is changed either.
LOSSLESS = frozenset({"none", "deflate", "lzw", "zstd"})

#: deflate at libvips' own level (6) takes three times as long as 3 for files 6 % smaller.
_LEVELS = {"deflate": 3, "zstd": 3}

#: What may be loaded: name, libvips class. Others are left out because they read further files
#: (OpenSlide, SVG), run interpreters (ImageMagick) or take any text for numbers (CSV, matrix).
_LOADERS = {
    "tiff": "VipsForeignLoadTiff",
    "jpeg": "VipsForeignLoadJpeg",
    "png": "VipsForeignLoadPng",
    "webp": "VipsForeignLoadWebp",
    "jp2k": "VipsForeignLoadJp2k",
    "heif": "VipsForeignLoadHeif",
    "gif": "VipsForeignLoadNsgif",
    "jxl": "VipsForeignLoadJxl",
    "pdf": "VipsForeignLoadPdf",
}

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
_PDF_DPI = 300

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}

_DAMAGED = (
    r"premature end|truncat|not enough data|unexpected end|end of (file|stream)|bytes, expected"
    r"|inconsistent with stream length|corrupt|read error|decod|unable to (read|parse)|bad |invalid"
    r"|not yet in table"
)

#: libvips' words and what they mean to a technician; the first that matches.
_MEANINGS = (
    ("disk", r"No space left|Disk quota|Read-only file system", "the disk of work/ is full"),
    (
        "memory",
        r"(out of|insufficient) memory|(unable to|cannot) allocate",
        "it needs more memory than is allowed",
    ),
    # The two look alike to most decoders, and ask for the same: scan or copy it again.
    ("image", _DAMAGED, "the file ends early or is damaged inside"),
)

#: Said of sound images too: private tags of scanners, and a profile every second PNG carries.
_HARMLESS = re.compile(r"Unknown field with tag|known incorrect sRGB|error in tile|^read gave")

_WORDS_OF_COLOUR = ("lab", "labs", "labq", "lch", "xyz", "scrgb", "hsv", "yxy", "cmc")


class Refused(Exception):  # says what happened to the image
    """This image cannot be converted; the message is for people."""


class _Overheard:
    """Keeps what the libraries print to standard error during one image, then passes it on.

    By descriptor, since a log handler of ours would be a C callback (see `_library`).
    """

    def __init__(self) -> None:
        self._kept = os.memfd_create("said")
        fcntl.fcntl(self._kept, fcntl.F_SETFL, os.O_APPEND)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        real = os.dup(2)
        os.ftruncate(self._kept, 0)
        os.dup2(self._kept, 2)
        try:
            yield
        finally:
            os.dup2(real, 2)
            os.close(real)
            with contextlib.suppress(OSError):  # a full disk under the step's log
                os.write(2, self._text())

    def _text(self) -> bytes:
        return os.pread(self._kept, _HEARD_MAX, 0)

    @property
    def warnings(self) -> list[str]:
        """What libvips complained of, each thing once."""
        found = _WARNING.findall(self._text().decode("utf-8", "replace"))
        return list(dict.fromkeys(line.strip() for line in found))

    @property
    def notable(self) -> list[str]:
        """The complaints worth a place in the receipt."""
        return [line for line in self.warnings if not _HARMLESS.search(line)][:3]


#: A damaged TIFF can make libtiff complain once for each of a million strips.
_HEARD_MAX = 64 * 1024

#: How GLib prints a warning: "(process:12): VIPS-WARNING **: 10:11:12.123: TEXT".
_WARNING = re.compile(r"VIPS-WARNING \*\*: (?:[\d:.]+: )?(.*)")

_overheard = _Overheard()


def main() -> None:
    """Serve requests from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a library that prints must not break the protocol
    memory = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if "--probe" in sys.argv:
        _answer(answers, probe())
        return
    vips = _library()
    for line in sys.stdin.buffer:
        _answer(answers, serve(vips, json.loads(line)))


def _answer(answers: IO[bytes], value: dict[str, Any]) -> None:
    answers.write(json.dumps(value).encode() + b"\n")


def _library() -> Any:
    # Read by libvips when it is loaded. One thread: the daemon runs as many children as it may.
    os.environ["VIPS_CONCURRENCY"] = "1"
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
    pyvips.operation_block_set("VipsForeignLoad", True)
    for kind in _LOADERS.values():
        pyvips.operation_block_set(kind, False)
    return pyvips


def probe() -> dict[str, Any]:
    """Return {"version", "load": [...], "compressions": [...]} of this machine's libvips."""
    vips = _library()
    return {
        "version": ".".join(str(vips.version(i)) for i in range(3)),
        "load": [name for name in _LOADERS if vips.type_find("VipsOperation", f"{name}load")],
        "compressions": [n for n in ("jpeg", "deflate", "lzw", "webp", "zstd", "none") if _writes(vips, n)],
    }


def _writes(vips: Any, compression: str) -> bool:
    # Three bands and no pyramid: libvips 8.14 crashes when writing one fails (WebP holds no grey).
    try:
        vips.Image.black(16, 16, bands=3).tiffsave_buffer(compression=compression, tile=True)
    except vips.Error:
        return False
    return True


def serve(vips: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Convert one image and return the answer, whatever happens to it."""
    with _overheard.listening():
        return _attempt(vips, request)


def _attempt(vips: Any, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"ok": True, **convert(vips, request)}
    except Refused as error:
        return {"ok": False, "kind": "image", "what": str(error)}
    except ItemError as error:
        return {"ok": False, "kind": "image", "what": error.what}
    except MemoryError:
        return {"ok": False, "kind": "memory", "what": "it needs more memory than is allowed"}
    except OSError as error:
        kind = "disk" if error.errno in _DISK else "image"
        return {"ok": False, "kind": kind, "what": error.strerror or str(error)}
    except vips.Error as error:
        kind, what = explain(str(error), _overheard.warnings)
        return {"ok": False, "kind": kind, "what": what}
    except Exception as error:  # noqa: BLE001  # one image's surprise must not take the next one along
        return {"ok": False, "kind": "image", "what": f"unforeseen {type(error).__name__}: {error}"}


def explain(complaint: str, said: list[str]) -> tuple[str, str]:
    """Return (kind, libvips' complaint in words with its own last line in brackets).

    Args:
        complaint: the error's text.
        said: the warnings before it, which often tell more.
    """
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    telling = (
        [line for line in lines if not line.startswith("unable to call")] or lines or ["no reason given"]
    )
    own = re.sub(r'"?/proc/self/fd/\d+"?', "the file", telling[-1])[:200]
    for kind, pattern, meaning in _MEANINGS:
        if re.search(pattern, "\n".join([complaint, *said]), re.IGNORECASE):
            return kind, f"{meaning} ({own})"
    return "image", f"the image library refused it ({own})"


def convert(vips: Any, request: dict[str, Any]) -> dict[str, Any]:
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
            answer = _make(vips, fd, made, recipe, careful=request.get("careful", False))
            os.replace(temp, out)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temp)
            raise
        finally:
            os.close(made)
    return answer


def _make(vips: Any, fd: int, made: int, recipe: dict[str, Any], *, careful: bool) -> dict[str, Any]:
    if careful:
        # libvips 8.14 crashes when a source fails late in writing a pyramid: find the reason first.
        _open(vips, fd).avg()
    image, detail = _prepare(vips, fd, recipe)
    _save(image, f"/proc/self/fd/{made}", recipe)
    if recipe["verify"]:
        detail["levels"] = _verify(vips, made, image, recipe)
        if recipe["compression"] in LOSSLESS:
            _compare(vips, _prepare(vips, fd, recipe)[0], made)
            detail["lossless"] = True
    if _overheard.notable:
        detail.setdefault("warnings", []).extend(_overheard.notable)
    os.fsync(made)
    os.lseek(made, 0, os.SEEK_SET)
    digest, size = files.sha256_fd(made, files.hash_buffer())
    return {"size": size, "sha256": digest, "detail": detail}


# -- reading ---------------------------------------------------------------------------------


def _prepare(vips: Any, fd: int, recipe: dict[str, Any]) -> tuple[pyvips.Image, dict[str, Any]]:
    """Open an image and bring it to what the compression can hold; say every change made."""
    image = _open(vips, fd)
    changes: list[str] = []
    detail: dict[str, Any] = {}
    pages = _pages(vips, fd, image)
    orientation = image.get("orientation") if image.get_typeof("orientation") else 1
    if 2 <= orientation <= 8:
        # Turning takes the pixels in another order than they come.
        image = _open(vips, fd, access="random").autorot()
        changes.append(f"turned upright (orientation {orientation})")
    if image.get("vips-loader") == "pdfload":
        changes.append(f"drawn at {_PDF_DPI} dpi")
    if recipe["compression"] not in LOSSLESS:
        image = _fit_for_lossy(image, recipe["compression"], changes)
    detail |= {"width": image.width, "height": image.height, "bands": image.bands}
    if changes:
        detail["changes"] = changes
    if pages > 1:
        detail["pages"] = pages
        detail["warnings"] = [f"only the first of {pages} pages was converted"]
    return image, detail


def _open(vips: Any, fd: int, **options: Any) -> pyvips.Image:
    """Open an image so that any damage fails it; an unknown tag is no damage."""
    head = os.pread(fd, 16, 0)
    if not head:
        raise Refused("the file is empty: no image")
    # BMP is read by ImageMagick alone; nothing that begins otherwise gets there.
    vips.operation_block_set("VipsForeignLoadMagick", not head.startswith(b"BM"))
    # "warning" is what sees a damaged Huffman code in a JPEG; "error" writes its garbage out.
    given = {"access": "sequential", "fail_on": "warning", **options}
    if head.startswith(b"%PDF"):
        given["dpi"] = _PDF_DPI
    try:
        image: pyvips.Image = vips.Image.new_from_file(f"/proc/self/fd/{fd}", **given)
    except vips.Error as error:
        if re.search("not a known file format|not in a known format|operation is blocked", str(error)):
            raise Refused(_unknown(head)) from error
        raise
    return image


def _unknown(head: bytes) -> str:
    kind = next((kind for begin, kind in _SIGNATURES if head.startswith(begin)), "")
    if kind:
        return f"it begins like a {kind}, but the file ends early or is damaged"
    return "this is no image, or of a kind that cannot be read"


def _pages(vips: Any, fd: int, image: pyvips.Image) -> int:
    """Return the number of pages; the levels of a pyramid, and a thumbnail, are no pages."""
    count = int(image.get("n-pages")) if image.get_typeof("n-pages") else 1
    if count > 1:
        second = _open(vips, fd, page=1)
        if second.width <= image.width // 2 + 1 and second.height <= image.height // 2 + 1:
            return 1
    return count


def _fit_for_lossy(image: pyvips.Image, compression: str, changes: list[str]) -> pyvips.Image:
    """Return the image as 8-bit grey or RGB, which is what JPEG and WebP tiles hold."""
    image = _coloured(image, changes)
    if image.format == "ushort":
        # By shift: white (65535) becomes 255; a plain cast would clip all above 255.
        image = (image >> 8).cast("uchar").copy(interpretation="b-w" if image.bands < 3 else "srgb")
        changes.append("16 bits made 8")
    if image.format in ("float", "double"):
        raise Refused("its pixels are floating-point numbers of unknown range; use compression: deflate")
    if image.format != "uchar":
        raise Refused(
            f"its pixels are of type {image.format}, whose white is unknown; use compression: deflate"
        )
    if image.hasalpha():
        image = image.flatten(background=[255] * (image.bands - 1))
        changes.append("transparency laid on white")
    if image.bands not in (1, 3):
        raise Refused(f"it has {image.bands} bands, neither grey nor colour; use compression: deflate")
    if image.bands == 1 and compression == "webp":
        image = _without_profile(image.bandjoin([image, image]).copy(interpretation="srgb"))
        changes.append("grey made RGB, as WebP wants")
    return image


def _coloured(image: pyvips.Image, changes: list[str]) -> pyvips.Image:
    """Return grey or RGB: viewers show other colours in JPEG tiles wrongly."""
    if image.interpretation == "cmyk":
        own = bool(image.get_typeof("icc-profile-data"))
        changes.append("CMYK made sRGB" + (" by its profile" if own else ""))
        return image.icc_transform("srgb", embedded=True, input_profile="cmyk")
    if image.interpretation in _WORDS_OF_COLOUR:
        changes.append(f"{image.interpretation} made sRGB")
        return _without_profile(image.colourspace("srgb"))
    return image


def _without_profile(image: pyvips.Image) -> pyvips.Image:
    """Return the image without the profile of the colours it no longer has."""
    image = image.copy()
    if image.get_typeof("icc-profile-data"):
        image.remove("icc-profile-data")
    return image


# -- writing ---------------------------------------------------------------------------------


def _save(image: pyvips.Image, made: str, recipe: dict[str, Any]) -> None:
    sample = {"uchar": 1, "char": 1, "ushort": 2, "short": 2, "double": 8, "complex": 8, "dpcomplex": 16}
    raw = image.width * image.height * image.bands * sample.get(image.format, 4)
    compression = recipe["compression"]
    options = {"level": _LEVELS[compression]} if compression in _LEVELS else {}
    image.tiffsave(
        made,
        tile=True,
        pyramid=True,
        compression=compression,
        Q=recipe["quality"],
        tile_width=recipe["tile"],
        tile_height=recipe["tile"],
        bigtiff=raw * (4 / 3 if compression in LOSSLESS else 1 / 2) > _BIGTIFF,
        **options,
    )


def _verify(vips: Any, made: int, image: pyvips.Image, recipe: dict[str, Any]) -> int:
    """Open and decode every level; return how many there are."""
    width, height, tile = image.width, image.height, recipe["tile"]
    levels = list(directories(made))
    for level, tags in enumerate(levels):
        page = vips.Image.new_from_file(
            f"/proc/self/fd/{made}", page=level, access="sequential", fail_on="warning"
        )
        if (page.width, page.height, page.bands) != (width, height, image.bands):
            raise Refused(
                f"level {level} of the result is {page.width}x{page.height}x{page.bands}, "
                f"not {width}x{height}x{image.bands}"
            )
        if (tags.get(_TILE_WIDTH), tags.get(_TILE_HEIGHT)) != (tile, tile):
            raise Refused(f"level {level} of the result has no tiles of {tile}x{tile}")
        # One row of each row of tiles decodes every tile; the mean of all pixels takes twice as long.
        rows = -(-height // tile) * tile
        page.embed(0, 0, width, rows, extend="copy").subsample(1, tile).avg()
        width, height = max(width // 2, 1), max(height // 2, 1)
    if width > tile or height > tile:
        raise Refused("the result lacks its smallest levels")
    return len(levels)


def _compare(vips: Any, image: pyvips.Image, made: int) -> None:
    written = vips.Image.new_from_file(f"/proc/self/fd/{made}", access="sequential", fail_on="warning")
    if (written.bands, written.format) != (image.bands, image.format):
        raise Refused("the result's pixels are of another type than the source's")
    image, written = image.copy(coding="none"), written.copy(coding="none")
    differs = image != written
    if image.format in ("float", "double"):  # not-a-number is unlike itself
        differs = differs & ((image == image) | (written == written))
    if differs.max() != 0:
        raise Refused("the result's pixels differ from the source's")


_TILE_WIDTH, _TILE_HEIGHT = 322, 323


def directories(fd: int) -> Iterator[dict[int, int]]:
    """Yield {tag: value} of each directory of a TIFF, for tags of one short or long value.

    libvips does not tell how a TIFF is tiled.
    Source: TIFF 6.0 section 2; BigTIFF as in libtiff's documentation.
    """
    head = os.pread(fd, 16, 0)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    count_format, entry, offset = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    (at,) = struct.unpack_from(order + offset, head, 8 if big else 4)
    while at:
        (count,) = struct.unpack(order + count_format, _piece(fd, struct.calcsize(order + count_format), at))
        at += struct.calcsize(order + count_format)
        size = struct.calcsize(order + entry)
        block = _piece(fd, count * size + struct.calcsize(order + offset), at)
        yield {
            tag: struct.unpack_from(order + ("H" if kind == 3 else "I"), value)[0]
            for tag, kind, number, value in struct.iter_unpack(order + entry, block[: count * size])
            if number == 1 and kind in (3, 4)
        }
        (at,) = struct.unpack_from(order + offset, block, count * size)


def _piece(fd: int, size: int, at: int) -> bytes:
    data = os.pread(fd, size, at)
    if len(data) != size:
        raise Refused("the result's directories cannot be read")
    return data


if __name__ == "__main__":
    main()
