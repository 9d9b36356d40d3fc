"""What a file holds besides what any result carries: told by name, so that its loss is known.

Places and lengths are read, no content; a file of a kind that is not known here holds nothing.

Source: TIFF 6.0 section 8 and part 2 (tags); ITU T.81 annex B and CIPA DC-007 (JPEG); PNG 3rd edition,
5.3 and 11.3 (chunks); ISO/IEC 15444-1 annex I (boxes); ISO/IEC 23008-12 6.5.5 and ITU-T H.273 (HEIF).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from dittohead.toolkit.images import iptc, jp2, jpeg, pages, tags, tiff
from dittohead.toolkit.images.jp2_structure import Box, boxes
from dittohead.toolkit.images.reasons import RefusedImage

#: Tags by which pixels are found and read, or whose content is known elsewhere (resolution, ICC, XMP).
_OF_PIXELS = frozenset(
    {*range(254, 260), 262, *range(264, 267), 273, 274, *range(277, 280), 282, 283, 284, 292, 293, 296, 297}
    | {
        317,
        320,
        *range(322, 329),
        330,
        338,
        339,
        347,
        *range(512, 522),
        *range(529, 533),
        700,
        33723,
        34675,
        50674,
    }
)

_GEO = frozenset({33550, 33922, 34264, 34735, 34736, 34737})

#: Of a JPEG: JFIF, EXIF, XMP, ICC, IPTC and Adobe's word on colours, by how their segments begin.
_KNOWN_SEGMENTS = (
    (0xE0, b"JFIF\0"),
    (0xE0, b"JFXX\0"),  # a thumbnail
    (0xE1, b"Exif\0"),
    (0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
    (0xE2, b"ICC_PROFILE\0"),
    (0xED, b"Photoshop 3.0\0"),
    (0xEE, b"Adobe"),
)

_KNOWN_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"sRGB", b"pHYs", b"sBIT"})
_COLOUR_CHUNKS = frozenset({b"gAMA", b"cHRM"})
#: What stands behind the last chunk.
_REST = b"rest"

#: Of ITU-T H.273: unspecified, and those of sRGB; curves that cameras write for sRGB are among them.
_SRGB_PRIMARIES = frozenset({1, 2})
_SRGB_CURVES = frozenset({1, 2, 6, 13})

#: What an auxiliary image is by its name: these are an image's alpha, which is read.
_ALPHA = frozenset({b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"})

_FRAMES = frozenset({b"fcTL", b"fdAT"})

#: Parts of a file that are looked at: a hostile one may have millions.
_MOST = 10_000

_JPEG_END = b"\xff\xd9"


def held(fd: int, page: int = 1) -> list[str]:
    """Return the names of what a file, or a page of a TIFF, holds besides; each once, in its order."""
    head = os.pread(fd, 12, 0)
    found: Iterator[str] = iter(())
    if head[:3] == b"\xff\xd8\xff":
        found = _of_jpeg(fd)
    elif head[:8] == b"\x89PNG\r\n\x1a\n":
        found = _of_png(fd)
    elif head == b"\0\0\0\x0cjP  \r\n\x87\n":
        found = _of_jp2(fd)
    elif head[4:8] == b"ftyp":
        found = _of_heif(fd)
    else:
        found = _of_tiff(fd, page)
    names: dict[str, None] = {}
    try:
        for name in found:
            names[name] = None
    except (RefusedImage, struct.error):
        pass  # where it is damaged nothing more is found; reading its pixels says so
    return list(names)


def _of_tiff(fd: int, page: int) -> Iterator[str]:
    yield from pages.besides(fd, page)
    for number in tiff.of_page(fd, page):
        if number in _GEO:
            yield "GeoTIFF"
        elif number not in _OF_PIXELS and number not in tiff.TEXTS:
            yield f"TIFF {tags.NAMES.get(number) or f'tag {number}'}"


def _of_jpeg(fd: int) -> Iterator[str]:
    end = os.fstat(fd).st_size
    for marker, at, size in jpeg.segments(fd):
        begins = os.pread(fd, min(size, 40), at)
        if marker == 0xFE:
            yield "JPEG comment"
        elif marker == 0xE2 and begins.startswith(b"MPF\0"):
            yield "further images (MPF)"
        elif 0xE0 <= marker <= 0xEF and not any(
            marker == kind and begins.startswith(start) for kind, start in _KNOWN_SEGMENTS
        ):
            yield f"JPEG APP{marker - 0xE0}"
    if iptc.has_more(fd):
        yield "Photoshop"
    # Some writers fill up with zeros.
    if not os.pread(fd, 1 << 16, max(end - (1 << 16), 0)).rstrip(b"\0").endswith(_JPEG_END):
        yield "what follows the image"


def _of_png(fd: int) -> Iterator[str]:
    chunks = list(_chunks(fd))
    kinds = {kind for kind, _ in chunks}
    for kind, begins in chunks:
        keyword = begins.partition(b"\0")[0].decode("latin-1")
        if kind in _COLOUR_CHUNKS:
            if not kinds & {b"iCCP", b"sRGB"}:  # these go before
                yield f"PNG {kind.decode()}"
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            if keyword != "XML:com.adobe.xmp":
                yield f"PNG {keyword}"
        elif kind == _REST:
            yield "what follows the image"
        elif kind == b"acTL":
            yield "further images (APNG)"
        elif kind not in _KNOWN_CHUNKS | _FRAMES:
            yield f"PNG {kind.decode('latin-1')}"


def _chunks(fd: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, first bytes) of each chunk but for the pixels'."""
    at, seen = 8, 0
    while seen < _MOST:
        size, kind = struct.unpack(">I4s", os.pread(fd, 8, at))
        if kind not in (b"IDAT", b"fdAT"):
            seen += 1
            yield kind, os.pread(fd, min(size, 80), at + 8)
        at += size + 12
        if kind == b"IEND":
            if at < os.fstat(fd).st_size:
                yield _REST, b""
            return


def _of_heif(fd: int) -> Iterator[str]:
    """Yield what libvips does not read: colours in numbers that are not sRGB's, depths and further light."""
    for box in _inner(fd, (b"meta", b"iprp", b"ipco")):
        if box.kind == b"colr" and os.pread(fd, 4, box.at) == b"nclx":
            primaries, curve = struct.unpack(">HH", os.pread(fd, 4, box.at + 4))
            if primaries not in _SRGB_PRIMARIES or curve not in _SRGB_CURVES:
                yield f"colours by number (nclx {primaries}/{curve})"
        elif box.kind == b"auxC":
            urn = os.pread(fd, min(box.end - box.at - 4, 100), box.at + 4).partition(b"\0")[0]
            if urn not in _ALPHA:
                yield "auxiliary images (depth, light)"


def _inner(fd: int, path: tuple[bytes, ...]) -> Iterator[Box]:
    """Yield the boxes in a path of boxes; "meta" begins with four bytes of its own."""
    ranges = [(0, os.fstat(fd).st_size)]
    for kind in path:
        found = [box for at, end in ranges for box in boxes(fd, at, end) if box.kind == kind]
        ranges = [(box.at + (4 if kind == b"meta" else 0), box.end) for box in found]
    for at, end in ranges:
        yield from boxes(fd, at, end)


def _of_jp2(fd: int) -> Iterator[str]:
    streams = 0
    for box in boxes(fd, 0, os.fstat(fd).st_size):
        if box.kind == b"jp2h":
            yield from ("resolution" for inner in boxes(fd, box.at, box.end) if inner.kind == b"res ")
        elif box.kind == b"jp2c":
            streams += 1
            if streams > 1:
                yield "further images (codestreams)"
        elif box.kind == b"uuid":
            yield jp2.UUIDS.get(os.pread(fd, 16, box.at), "JP2 box uuid")
        elif box.kind not in (b"jP  ", b"ftyp", b"free"):
            yield f"JP2 box {box.kind.decode('latin-1').strip()}"
