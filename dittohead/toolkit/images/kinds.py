"""Which kind of image a file is, by how it begins; its name says nothing.

Source: the specifications of each; ISO/IEC 14496-12 4.3 and 23008-12 10.2 (brands).
"""

from __future__ import annotations

import re

#: Bytes of a file's beginning that tell.
HEAD = 144

#: Brands of the ISO file format: those of HEIF and AVIF, and one of a camera.
_HEIF = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"})
_AVIF = frozenset({b"avif", b"avis"})

_READ: tuple[tuple[str, str], ...] = (
    ("TIFF", r"II\*\0(?!\x10\0\0\0CR)|MM\0\*|II\+\0|MM\0\+"),
    ("JPEG", r"\xff\xd8\xff"),
    ("PNG", r"\x89PNG"),
    ("WebP", r"RIFF....WEBP"),
    ("GIF", r"GIF8[79]a"),
    ("JPEG 2000", r"\0\0\0\x0cjP[ \x1a]{2}\r\n\x87\n(?!....ftypjph )|\xff\x4f\xff\x51"),
    ("JPEG XL", r"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    # With zeros that are reserved, and a header of a length that there is.
    ("BMP", r"BM....\0\0\0\0....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
)

#: Kinds that nothing here reads.
_UNREAD: tuple[tuple[str, str], ...] = (
    ("JPH (High-Throughput JPEG 2000)", r"\0\0\0\x0cjP  \r\n\x87\n....ftypjph "),
    ("a camera's raw file (Canon)", r"II\*\0\x10\0\0\0CR|....ftypcrx "),
    ("a camera's raw file (Fujifilm)", r"FUJIFILMCCD-RAW"),
    ("a camera's raw file (Olympus)", r"IIR[OS]|MMOR"),
    ("a camera's raw file (Panasonic)", r"IIU\0"),
    ("a camera's raw file (Minolta)", r"\0MRM"),
    ("a camera's raw file (Sigma)", r"FOVb"),
    ("Photoshop (PSD)", r"8BPS\0[\1\2]"),
    ("JPEG XR", r"II\xbc[\0\1]"),
    ("DPX", r"SDPX|XPDS"),
    ("OpenEXR", r"\x76\x2f\x31\x01"),
    ("DjVu", r"AT&TFORM....DJV"),
    ("DICOM", r".{128}DICM"),
    ("FITS", r"SIMPLE  =  "),
    ("PNM", r"P[1-7]\n|P[4-6] "),
)

_PATTERNS = [(kind, re.compile(pattern.encode("latin-1"), re.DOTALL)) for kind, pattern in (*_READ, *_UNREAD)]

_NAMES_OF_READ = frozenset({kind for kind, _ in _READ} | {"HEIF", "AVIF"})

#: What reads each kind; a PDF has pages and no pixels, and is not an image unless it is asked for.
_LOADERS = {
    "TIFF": "tiff",
    "JPEG": "jpeg",
    "PNG": "png",
    "WebP": "webp",
    "GIF": "gif",
    "JPEG 2000": "jp2k",
    "JPEG XL": "jxl",
    "BMP": "bmp",
    "HEIF": "heif",
    "AVIF": "heif",
    "PDF": "pdf",
}


def kind_of(head: bytes) -> str:
    """Return what a file is that begins so, in words; "" for one that is not an image."""
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, min(_box(head), len(head)), 4))}
        if brands & _AVIF:
            return "AVIF"
        if brands & _HEIF:
            return "HEIF"
    return next((kind for kind, pattern in _PATTERNS if pattern.match(head)), "")


def _box(head: bytes) -> int:
    return int.from_bytes(head[:4], "big")


def is_read(kind: str) -> bool:
    """Tell whether images of a kind can be read."""
    return kind in _NAMES_OF_READ


def loader_of(head: bytes) -> tuple[str, str]:
    """Return (kind, what reads it) of a file that begins so; ("", "") where nothing here does."""
    kind = "PDF" if head.startswith(b"%PDF") else kind_of(head)
    return (kind, _LOADERS[kind]) if kind in _LOADERS else ("", "")
