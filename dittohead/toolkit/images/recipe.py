"""What decides a result: the part of the options that a child is told."""

from __future__ import annotations

from dataclasses import dataclass

#: Raised when the same recipe makes other results than before, with the same libvips.
VERSION = "3"

#: Compressions of a TIFF that change no pixel.
LOSSLESS = frozenset({"none", "deflate", "lzw", "zstd"})

#: Formats of JPEG 2000: a preservation master, unless `master: false` makes it a copy like others.
MASTERS = frozenset({"jp2", "jph"})

#: How a JPEG 2000 is laid out (openjpeg.py, htj2k.py, jp2.py); changed with it, so that the change is seen.
PROFILES = {
    "jp2": "5-3, RPCL, 5 levels, precincts 256 256 128, blocks 64, 1 layer, PLT, TLM",
    "jph": "HT, 5-3, RPCL, 5 levels, blocks 64, 1 layer",
}

#: What each format's results end in; that of iiif-static is a directory.
SUFFIXES = {
    "pyramid-tiff": ".tif",
    "jpeg": ".jpg",
    "png": ".png",
    "jp2": ".jp2",
    "jph": ".jph",
    "iiif-static": ".iiif",
}

#: What reads files of an ending, where it may be missing from a build of libvips.
LOADERS = {
    "pdf": "pdf",
    "jp2": "jp2k",
    **dict.fromkeys(("j2k", "j2c", "jpc", "jpf", "jpx"), "jp2k"),
    "heic": "heif",
    **dict.fromkeys(("heif", "heics", "heifs", "hif", "avif", "avifs"), "heif"),
    "jxl": "jxl",
    "webp": "webp",
    "gif": "gif",
    "bmp": "bmp",
    "dib": "bmp",
}

#: The most pixels a JPEG has on a side.
#: Source: libjpeg's JPEG_MAX_DIMENSION.
JPEG_MOST = 65_500

#: Every reader takes a tile of this side, whatever the size of the image, pixels.
_SMALL_TILE = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRecipe:
    """How one image is made; what is left out has no part in it."""

    format: str = "pyramid-tiff"
    compression: str = ""  #: of the tiles of a pyramid
    quality: int = 85  #: of JPEG and WebP
    effort: int = 4  #: of deflate: 1 to 12
    subsampling: str = "auto"  #: of the colour of a JPEG: auto, on, off
    tile: int = 256  #: width and height, pixels
    levels: str = "tile"  #: where a pyramid ends: tile, pixel, one
    colour: str = "keep"  #: keep, srgb
    max_width: int | None = None  #: pixels
    max_height: int | None = None  #: pixels
    enlarge: bool = False
    pages: str = "first"  #: first, all, or such as 2-5
    dpi: int = 300  #: a PDF is drawn at
    iiif_id: str = ""  #: template of an image's URI
    verify: bool = True
    master: bool = False  #: nothing is changed, and that is proved
    stray_bytes: str = "fail"  #: between the parts of a JPEG: fail, allow
    unfit: str = "fail"  #: what happens to an image that a master cannot hold: fail, keep

    @property
    def suffix(self) -> str:
        """What the result's name ends in."""
        return SUFFIXES[self.format]

    def tile_for(self, width: int, height: int) -> int:
        """Return the side of a tile of a pyramid of this image, pixels: no larger than the image asks for.

        libvips from 8.15 on refuses to read an image in tiles several times its size.
        """
        enough = 1 << (max(width, height, _SMALL_TILE) - 1).bit_length()
        return min(self.tile, enough)

    @property
    def holds(self) -> str:
        """Which pixels the format holds.

        "any" all of them; "exact" 8 or 16 bits, grey or RGB, with or without alpha; "lossy" 8
        bits, grey or RGB.
        """
        if self.format == "pyramid-tiff":
            return "any" if self.compression in LOSSLESS else "lossy"
        return "exact" if self.exact else "lossy"

    @property
    def exact(self) -> bool:
        """Whether it is a single image whose samples are those of what it was made of."""
        return self.format == "png" or self.format in MASTERS

    @property
    def proved(self) -> bool:
        """Whether a decoder that is not libvips' compares it: of JPH that reads other pixels in silence."""
        return self.master or (self.format == "jph" and self.verify)

    @property
    def grey(self) -> bool:
        """Whether grey stays grey: WebP holds colour only."""
        return self.compression != "webp"


def wanted_pages(pages: str, count: int) -> list[int]:
    """Return the pages to be taken, counted from 1, of an image that has `count`; may be empty."""
    if pages == "first":
        return [1]
    first, last = (1, count) if pages == "all" else page_range(pages)
    return list(range(first, min(last, count) + 1))


def page_range(pages: str) -> tuple[int, int]:
    """Return the first and the last page of "2-5" or "3". Raises: ValueError."""
    first, _, last = pages.partition("-")
    found = int(first), int(last or first)
    if not 1 <= found[0] <= found[1] <= 9999:
        raise ValueError
    return found
