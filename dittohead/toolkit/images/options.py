"""What a convert step may be told."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dittohead.contract.options import Duration, Size
from dittohead.contract.worker import Options
from dittohead.toolkit.images.recipe import LOSSLESS, MASTERS, PROFILES, page_range
from dittohead.toolkit.uris import is_template

#: Every ending that can be read; what has none, or another, its content tells.
_IMAGES = [
    *("*.tif", "*.tiff", "*.tf8", "*.btf", "*.ptif", "*.ptiff"),
    *("*.jpg", "*.jpeg", "*.jpe", "*.jfif", "*.jif"),
    *("*.png", "*.apng", "*.webp", "*.gif", "*.bmp", "*.dib", "*.jxl"),
    *("*.jp2", "*.j2k", "*.j2c", "*.jpc", "*.jpf", "*.jpx"),
    *("*.heic", "*.heif", "*.heics", "*.heifs", "*.hif", "*.avif", "*.avifs"),
]

#: Width and height of a tile where none is given, pixels: a static service is many small files.
_TILES = {"pyramid-tiff": 256, "jp2": 1024, "jph": 1024, "iiif-static": 512}

#: From this quality on libvips writes the JPEG tiles of a TIFF as RGB.
_RGB_QUALITY = 90

#: Tiles of this side are read in levels of any size, pixels.
_READABLE = 256

Format = Literal["pyramid-tiff", "jpeg", "png", "jp2", "jph", "iiif-static"]


class SizeRule(BaseModel):
    """A smaller size for some images. Where several rules fit, each side's smallest number holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str = Field(
        "*",
        description="The images meant: a pattern for the file's name, or with a `/` for its path in the "
        "folder; upper and lower case alike.",
    )
    sidecar: str = Field(
        "",
        description="Only images that have this file beside them: `.copyright` stands for a.copyright or "
        "a.tif.copyright beside a.tif, a name without leading dot for a file in the same folder.",
    )
    max_width: int | None = Field(None, ge=1, description="Pixels.")
    max_height: int | None = Field(None, ge=1, description="Pixels.")

    @field_validator("sidecar")
    @classmethod
    def _name(cls, value: str) -> str:
        if "/" in value:
            raise ValueError("a file's name is required, without a folder")
        return value

    @model_validator(mode="after")
    def _a_size(self) -> SizeRule:
        if self.max_width is None and self.max_height is None:
            raise ValueError("max_width, max_height or both are required")
        return self


class ConvertOptions(Options):
    """What a convert step may be told."""

    format: Format = Field(
        "pyramid-tiff",
        description="What is made: `pyramid-tiff`; `jpeg`; `png`, lossless and compared with the source; "
        "`jp2`, a preservation master in JPEG 2000 (see `master`); `jph`, the same in High-Throughput "
        "JPEG 2000, several times faster and some 10 % larger, whole images in memory; `iiif-static`, a "
        "folder NAME.iiif that is a IIIF image service of level 0.",
    )
    master: bool | None = Field(
        None,
        description="Of `jp2` and `jph`, where it is true when left out: every sample is kept as it is, "
        "which decoders of others than made it prove, and an image that JPEG 2000 cannot hold so is "
        "refused (see `unfit`). `false` makes an access copy: changed as other formats are where it must "
        "be, in a size of your choice.",
    )
    unfit: Literal["fail", "keep"] = Field(
        "fail",
        description="What happens to an image that a master cannot hold unchanged (1 bit, a palette, CMYK, "
        "an orientation, further pages ...): `fail`, or `keep`: the original file is the result, copied and "
        "compared, with the reason in its detail.",
    )
    compression: Literal["jpeg", "deflate", "lzw", "webp", "zstd", "none"] = Field(
        "jpeg",
        description="How a pyramid's tiles are compressed. `jpeg` and `webp` hold 8-bit grey or colour, and "
        "images are brought to that; the others keep every pixel and are compared with the source.",
    )
    quality: int = Field(
        85,
        ge=1,
        le=100,
        description="Of JPEG and WebP; from 90 on a pyramid's tiles are RGB, and three times larger.",
    )
    effort: int = Field(
        4,
        ge=1,
        le=12,
        description="How hard `deflate` tries to make a pyramid small: 1 takes 40 % of the time of 4, for "
        "files 8 % larger; 6 twice as long for files 2 % smaller.",
    )
    subsampling: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether JPEG holds colour at half the resolution; `auto`: below quality 90. A pyramid "
        "can have it no other way.",
    )
    tile: int | None = Field(
        None,
        ge=64,
        le=1024,
        description="Width and height of a tile, pixels: a power of two; when left out 256 for a pyramid, "
        "1024 for `jp2` and `jph`, 512 for `iiif-static`.",
    )
    levels: Literal["tile", "pixel", "one"] = Field(
        "tile",
        description="Where a pyramid ends: with a level that fits into one tile, with one pixel, or at once: "
        "tiles, and no smaller levels.",
    )
    colour: Literal["keep", "srgb"] | None = Field(
        None,
        description="`keep`: colours and ICC profile stay where the format can hold them; `srgb`: they are "
        "transformed by the profile. When left out `keep`, for `iiif-static` `srgb`.",
    )
    max_width: int | None = Field(None, ge=1, description="Pixels; larger images are made smaller.")
    max_height: int | None = Field(None, ge=1, description="Pixels; both are kept, and the shape is.")
    enlarge: bool = Field(False, description="Also make smaller images larger, up to that size.")
    sizes: list[SizeRule] = Field(
        default_factory=list,
        description="Smaller sizes for some images, by name or by a file beside them (of copyrighted ones); "
        "the keys of an entry are below.",
    )
    pages: str = Field(
        "first",
        description="Of a TIFF or PDF of several pages: `first` (and a warning), `all`, or such as `2-5`; "
        "each page becomes a result of its own, NAME-0001, numbered as in the file.",
    )
    dpi: int = Field(300, ge=10, le=2400, description="Pixels per inch a PDF is drawn at.")
    iiif_id: str = Field(
        "",
        description="Of `iiif-static`: the URI at which the folder of an image will be found, such as "
        "`https://iiif.example.org/{name}/{path}`; `{path}` is that folder's path.",
    )
    match: list[str] = Field(
        default_factory=lambda: list(_IMAGES),
        description="Names of the files that are images; upper and lower case alike. When left out, every "
        "ending that can be read, and besides whatever file is such an image by its content, with another "
        "ending or none; PDFs are not among them. When given, these names alone.",
    )
    others: Literal["skip", "images", "fail"] | None = Field(
        None,
        description="What to do with other files: `skip` leaves them, and the receipt names them; `images` "
        "too, but fails where one is an image by its content; `fail` fails for any of them. When left out "
        "`images` for masters, otherwise `skip`.",
    )
    stray_bytes: Literal["fail", "allow"] = Field(
        "fail",
        description="What happens to a JPEG in which bytes that belong to nothing stand between its parts; "
        "most programs open it and say nothing. `allow` converts it, and the receipt has the warning; one "
        "that is damaged inside fails all the same.",
    )
    verify: bool = Field(
        True,
        description="Compare each image with the manifest first, and read all of the result back.",
    )
    pixels: int = Field(
        1_000_000_000,
        ge=1,
        description="The most pixels an image, or a page of one, may have: a small file can stand for very "
        "many. A scan of 24,000 x 32,000 has 768 million.",
    )
    memory: Size = Field(2 << 30, ge=512 << 20, description="Address space a child process may use.")
    timeout: Duration = Field(
        600.0,
        gt=0,
        description="The longest an image may take, or one page, of up to 100 million "
        "pixels; a larger one as much longer.",
    )

    @field_validator("tile")
    @classmethod
    def _power(cls, value: int | None) -> int | None:
        if value is not None and value & (value - 1):
            raise ValueError("a power of two from 64 to 1024 is required")
        return value

    @field_validator("pages", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        text = str(value)
        if text not in ("first", "all"):
            try:
                page_range(text if re.fullmatch(r"\d+(-\d+)?", text) else "")
            except ValueError:
                raise ValueError('first, all, or pages such as "2-5" or "3" are required') from None
        return text

    @model_validator(mode="after")
    def _together(self) -> ConvertOptions:
        problems = list(self._unheeded()) + list(self._impossible())
        if self.is_master:
            problems += self._unlike_a_master()
        elif "unfit" in self.model_fields_set and self.format in MASTERS:
            problems.append("unfit means nothing with master: false")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _unheeded(self) -> Any:
        """Yield what is set and would do nothing."""
        only: dict[str, tuple[str, ...]] = {
            "compression": ("pyramid-tiff",),
            "levels": ("pyramid-tiff",),
            "effort": ("pyramid-tiff",),
            "tile": ("pyramid-tiff", "jp2", "jph", "iiif-static"),
            "iiif_id": ("iiif-static",),
            "quality": ("pyramid-tiff", "jpeg", "iiif-static"),
            "subsampling": ("pyramid-tiff", "jpeg", "iiif-static"),
            "master": tuple(MASTERS),
            "unfit": tuple(MASTERS),
        }
        for name, formats in only.items():
            if name in self.model_fields_set and self.format not in formats:
                yield f"{name} means nothing with format: {self.format}"

    def _impossible(self) -> Any:
        """Yield what cannot be done."""
        if self.format == "iiif-static" and not re.search(r"\{(path|file|stem|sha256)\}", self.iiif_id):
            yield "iiif_id is required, a URI with {path} in it, such as https://iiif.example.org/{path}"
        elif self.format == "iiif-static" and not is_template(self.iiif_id):
            yield "iiif_id: a URL that begins with https:// or http:// and names a host is required"
        if "effort" in self.model_fields_set and self.compression != "deflate":
            yield f"effort means nothing with compression: {self.compression}"
        if self.levels == "pixel" and (self.tile or 0) > _READABLE:
            yield (
                f"levels: pixel needs tiles of {_READABLE} pixels at most: libvips from 8.15 on, and what is "
                "built on it, cannot read small levels in larger tiles"
            )
        if self.enlarge and self.max_width is None and self.max_height is None:
            yield "enlarge needs max_width, max_height or both"
        subsampled = {"auto": None, "on": True, "off": False}[self.subsampling]
        if (
            self.format == "pyramid-tiff"
            and subsampled is not None
            and (self.compression != "jpeg" or subsampled != (self.quality < _RGB_QUALITY))
        ):
            yield f"a pyramid's JPEG tiles are subsampled below quality {_RGB_QUALITY}, and not from there on"

    def _unlike_a_master(self) -> Any:
        """Yield what would change a master."""
        cure = "set master: false for an access copy"
        for name in ("max_width", "max_height", "enlarge", "sizes"):
            if getattr(self, name):
                yield f"{name} would change a master's size; {cure}"
        if self.colour == "srgb":
            yield f"colour: srgb would change a master's colours; {cure}"
        if not self.verify:
            yield f"verify: false leaves a master without its proof; {cure}"

    @property
    def is_master(self) -> bool:
        """Whether nothing may be changed, and that is proved."""
        return self.format in MASTERS and self.master is not False

    @property
    def keeps_unfit(self) -> bool:
        """Whether the original of an image that a master cannot hold is its result."""
        return self.is_master and self.unfit == "keep"

    @property
    def about_others(self) -> str:
        """What happens to files that are not converted: skip, images, fail."""
        return self.others or ("images" if self.is_master else "skip")

    def words(self) -> str:
        """Return what is made, for people."""
        return f"{self.format}, {self.compression}" if self.format == "pyramid-tiff" else self.format

    def recipe(self) -> dict[str, Any]:
        """Return what decides the results, and nothing else: for recognising them again."""
        recipe = self.child_recipe() | {"sizes": [rule.model_dump() for rule in self.sizes]}
        return recipe | ({"profile": PROFILES[self.format]} if self.format in MASTERS else {})

    def child_recipe(self) -> dict[str, Any]:
        """Return what a child must know, but for `sizes`, which is for each image another."""
        recipe: dict[str, Any] = {
            "format": self.format,
            "colour": self.colour or ("srgb" if self.format == "iiif-static" else "keep"),
            "max_width": self.max_width,
            "max_height": self.max_height,
            "enlarge": self.enlarge,
            "pages": self.pages,
            "dpi": self.dpi,
            "verify": self.verify,
        }
        if self.stray_bytes != "fail":
            recipe["stray_bytes"] = self.stray_bytes
        if self.format in _TILES:
            recipe["tile"] = self.tile or _TILES[self.format]
        if self.format == "pyramid-tiff":
            recipe |= {"compression": self.compression, "levels": self.levels}
            if self.compression == "deflate":
                recipe["effort"] = self.effort
        if self.format in MASTERS:
            recipe |= {"master": self.is_master, "unfit": self.unfit}
        if self.format == "iiif-static":
            recipe["iiif_id"] = self.iiif_id
        if self.format in ("jpeg", "iiif-static", "pyramid-tiff") and self.compression not in LOSSLESS:
            recipe["quality"] = self.quality
            if self.format != "pyramid-tiff":
                recipe["subsampling"] = self.subsampling
        return recipe
