"""What an image's own header says of it, for technical metadata: nothing is decoded.

Sources: TIFF 6.0 and its supplements; ITU T.81 B.2.2; PNG 11.2.1; GIF 89a 18; ISO/IEC 15444-1 A.5, A.6, I.5;
RFC 9649 (WebP). Names of compressions and colour spaces are those of MIX (NISO Z39.87: 6.6, 8.1).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from dittohead.toolkit.images import jp2_header, jpeg, tiff
from dittohead.toolkit.images.jp2_structure import COD, SIZ, boxes
from dittohead.toolkit.images.kinds import HEAD, kind_of
from dittohead.toolkit.images.reasons import RefusedImage

MEDIA_TYPES = {
    "TIFF": "image/tiff", "JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif",
    "JPEG 2000": "image/jp2", "WebP": "image/webp",
}  # fmt: skip

#: TIFF 6.0, Compression; Supplement 2 (Deflate, JPEG); libtiff's for those that are registered elsewhere.
_TIFF_COMPRESSIONS = {
    1: "no compression", 2: "CCITT 1D", 3: "CCITT Group 3", 4: "CCITT Group 4", 5: "LZW", 6: "JPEG",
    7: "JPEG", 8: "Deflate", 9: "JBIG", 10: "JBIG", 32773: "PackBits", 32946: "Deflate", 33003: "JPEG 2000",
    33005: "JPEG 2000", 34661: "JBIG", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 34933: "PNG",
    34934: "JPEG XR", 50000: "ZSTD", 50001: "WebP", 52546: "JPEG XL",
}  # fmt: skip

#: TIFF 6.0, PhotometricInterpretation; Supplement 1, DNG 1.7.
_TIFF_COLOURS = {
    0: "WhiteIsZero", 1: "BlackIsZero", 2: "RGB", 3: "PaletteColor", 4: "TransparencyMask", 5: "CMYK",
    6: "YCbCr", 8: "CIELab", 9: "ICCLab", 10: "ITULab", 32803: "CFA", 34892: "LinearRaw",
}  # fmt: skip

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _EXTRAS, _FORMAT = (
    256,
    257,
    258,
    259,
    262,
    277,
    338,
    339,
)

#: DNGVersion: a camera's raw file. Source: DNG 1.7.
_DNG = 50706

#: PNG 11.2.1, colour type: (colour space, samples).
_PNG = {0: ("BlackIsZero", 1), 2: ("RGB", 3), 3: ("PaletteColor", 1), 4: ("BlackIsZero", 2), 6: ("RGB", 4)}

#: Enumerated colour spaces of the colr box. Source: ISO/IEC 15444-1 I.5.3.3, 15444-2 M.11.7.3.
_JP2_COLOURS = {
    12: "CMYK", 14: "CIELab", 16: "sRGB", 17: "greyscale", 18: "sYCC", 20: "e-sRGB", 21: "ROMM-RGB",
}  # fmt: skip

#: Segments of a main header that are looked at; there are some ten.
_MOST = 1000

#: Frames of a JPEG, but for DHT, JPG and DAC; those of lossless coding. Source: ITU T.81, table B.1.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})


#: Samples of each colour space.
_SAMPLES_OF = {
    "WhiteIsZero": 1, "BlackIsZero": 1, "PaletteColor": 1, "TransparencyMask": 1, "greyscale": 1, "RGB": 3,
    "sRGB": 3, "e-sRGB": 3, "ROMM-RGB": 3, "YCbCr": 3, "sYCC": 3, "CIELab": 3, "ICCLab": 3, "ITULab": 3,
    "CMYK": 4, "YCCK": 4,
}  # fmt: skip

_UNSPECIFIED, _ALPHA = "unspecified data", "unassociated alpha data"

#: What each extra sample of a TIFF is. Source: TIFF 6.0, ExtraSamples.
_EXTRA = (_UNSPECIFIED, "associated alpha data (with pre-multiplied color)", _ALPHA)


@dataclass(frozen=True, kw_only=True)
class Jpeg2000:
    """How a JPEG 2000 is coded."""

    tile_width: int
    tile_height: int
    layers: int
    levels: int


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What an image says of itself: its first page, or its only one."""

    media_type: str
    width: int  #: pixels
    height: int  #: pixels
    compression: str
    colour_space: str
    bits: tuple[int, ...]  #: of each sample
    floating: bool = False  #: whether samples are floating point numbers
    byte_order: str = ""  #: "big endian" or "little endian", of a TIFF
    extra: tuple[str, ...] = ()  #: what samples are besides those of the colour space, in MIX's words
    jpeg2000: Jpeg2000 | None = None


class Unclear(Exception):
    """A header lacks something, or is damaged; says what."""


def read(fd: int) -> ImageHeader | None:
    """Return what an image's header says; None for a file of another kind.

    Raises: Unclear.
    """
    kind = kind_of(os.pread(fd, HEAD, 0))
    if kind not in _READERS:
        return None
    try:
        found = _READERS[kind](fd)
    except (RefusedImage, struct.error, OverflowError, ValueError, LookupError) as error:
        raise Unclear(f"the header of this {kind} cannot be read") from error
    # A damaged one may also give less than nothing: its right edge left of its left one.
    if not (found.width > 0 and found.height > 0 and found.bits and min(found.bits) > 0):
        raise Unclear(f"the header of this {kind} does not say how large the image is")
    return found


def _extra(colour: str, samples: int, told: Sequence[str]) -> tuple[str, ...]:
    """Return what the samples are that a colour space does not have."""
    more = samples - _SAMPLES_OF.get(colour, samples)
    return tuple([*told, *[_UNSPECIFIED] * more][:more]) if more > 0 else ()


def _tiff(fd: int) -> ImageHeader:
    page = tiff.of_page(fd, 1)
    if _DNG in page:
        raise ValueError("its first directory is of a smaller copy")
    numbers = {tag: tiff.number(fd, page.get(tag)) for tag in (_WIDTH, _HEIGHT, _COMPRESSION, _SAMPLES)}
    samples = numbers[_SAMPLES] or 1
    bits = tiff.numbers(fd, page[_BITS]) if _BITS in page else [1] * samples
    meaning = tiff.number(fd, page[_PHOTOMETRIC]) if _PHOTOMETRIC in page else -1
    compression = numbers[_COMPRESSION] or 1
    colour = _TIFF_COLOURS.get(meaning, f"TIFF photometric interpretation {meaning}")
    told = [_EXTRA[min(one, 2)] for one in tiff.numbers(fd, page[_EXTRAS])] if _EXTRAS in page else []
    return ImageHeader(
        media_type=MEDIA_TYPES["TIFF"],
        width=numbers[_WIDTH],
        height=numbers[_HEIGHT],
        compression=_TIFF_COMPRESSIONS.get(compression, f"TIFF compression {compression}"),
        colour_space=colour,
        extra=_extra(colour, samples, told),
        bits=tuple(bits if len(bits) == samples else bits[:1] * samples),
        floating=tiff.number(fd, page.get(_FORMAT)) == 3,
        byte_order="little endian" if os.pread(fd, 2, 0) == b"II" else "big endian",
    )


def _jpeg(fd: int) -> ImageHeader:
    adobe = -1
    for marker, at, size in jpeg.segments(fd):
        content = os.pread(fd, min(size, 64), at)
        if marker == 0xEE and content[:5] == b"Adobe" and len(content) >= 12:
            adobe = content[11]
        if marker in _FRAMES:
            depth, height, width, samples = struct.unpack(">BHHB", content[:6])
            return ImageHeader(
                media_type=MEDIA_TYPES["JPEG"],
                width=width,
                height=height,
                compression="JPEG lossless" if marker in _LOSSLESS else "JPEG",
                colour_space=_jpeg_colour(samples, adobe, content[6::3]),
                bits=(depth,) * samples,
            )
    raise ValueError("no frame")


def _jpeg_colour(samples: int, adobe: int, ids: bytes) -> str:
    """Return a colour space. Source: Adobe TN 5116, 18 (APP14 transform); JFIF 1.02; libjpeg's guess."""
    if samples == 3:
        return "RGB" if adobe == 0 or (adobe < 0 and ids[:3] == b"RGB") else "YCbCr"
    return {1: "BlackIsZero", 4: "YCCK" if adobe == 2 else "CMYK"}.get(samples, f"{samples} components")


def _png(fd: int) -> ImageHeader:
    width, height, depth, kind = struct.unpack(">IIBB", os.pread(fd, 10, 16))
    colour, samples = _PNG.get(kind, ("", 0))
    return ImageHeader(
        media_type=MEDIA_TYPES["PNG"],
        width=width,
        height=height,
        compression="Deflate",
        colour_space=colour,
        bits=(depth,) * samples,
        extra=_extra(colour, samples, [_ALPHA]),
    )


def _gif(fd: int) -> ImageHeader:
    width, height, packed = struct.unpack("<HHB", os.pread(fd, 5, 6))
    depth = (packed & 7) + 1 if packed & 128 else 8
    media_type = MEDIA_TYPES["GIF"]
    return ImageHeader(
        media_type=media_type, width=width, height=height, compression="LZW", colour_space="PaletteColor",
        bits=(depth,),
    )  # fmt: skip


def _webp(fd: int) -> ImageHeader:
    chunk, body = os.pread(fd, 4, 12), os.pread(fd, 10, 20)
    alpha = False
    if chunk == b"VP8X":
        alpha, lossless = bool(body[0] & 16), b"VP8L" in os.pread(fd, 4096, 30)
        width = int.from_bytes(body[4:7], "little") + 1
        height = int.from_bytes(body[7:10], "little") + 1
    elif chunk == b"VP8L":
        (packed,) = struct.unpack("<I", body[1:5])
        width, height, alpha = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, bool(packed >> 28 & 1)
        lossless = True
    else:
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", body[6:10]))
        lossless = False
    return ImageHeader(
        media_type=MEDIA_TYPES["WebP"],
        width=width,
        height=height,
        compression="WebP lossless" if lossless else "WebP lossy",
        colour_space="RGB" if lossless else "YCbCr",
        bits=(8,) * (4 if alpha else 3),
        extra=(_ALPHA,) if alpha else (),
    )


def _jpeg2000(fd: int) -> ImageHeader:
    main = dict(islice(jp2_header.main_header(fd), _MOST))
    size = main[SIZ]
    _, x, y, x0, y0, tile_width, tile_height, _, _, samples = struct.unpack_from(">H8IH", size)
    bits = tuple((depth & 127) + 1 for depth in size[36 : 36 + 3 * samples : 3])
    layers, levels = struct.unpack_from(">xxHxB", main[COD])
    colour = _jp2_colour(fd) or {1: "greyscale", 3: "RGB"}.get(samples, f"{samples} components")
    return ImageHeader(
        media_type=MEDIA_TYPES["JPEG 2000"],
        width=x - x0,
        height=y - y0,
        compression="JPEG 2000 lossless" if jp2_header.is_reversible(fd) else "JPEG 2000 lossy",
        colour_space=colour,
        bits=bits,
        extra=_extra(colour, samples, []),
        jpeg2000=Jpeg2000(tile_width=tile_width, tile_height=tile_height, layers=layers, levels=levels),
    )


def _jp2_colour(fd: int) -> str:
    if os.pread(fd, 4, 0) == b"\xff\x4f\xff\x51":
        return ""
    for box in boxes(fd, 0, os.fstat(fd).st_size):
        for inner in boxes(fd, box.at, box.end) if box.kind == b"jp2h" else ():
            if inner.kind == b"colr":
                method, space = struct.unpack(">BxxI", os.pread(fd, 7, inner.at))
                return _JP2_COLOURS.get(space, "") if method == 1 else ""
    return ""


_READERS: dict[str, Callable[[int], ImageHeader]] = {
    "TIFF": _tiff, "JPEG": _jpeg, "PNG": _png, "GIF": _gif, "WebP": _webp, "JPEG 2000": _jpeg2000,
}  # fmt: skip
