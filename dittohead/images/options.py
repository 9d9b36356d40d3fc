"""What a convert step may be told."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from dittohead.options import Duration, Size
from dittohead.worker import Options

_IMAGES = ["*.tif", "*.tiff", "*.jpg", "*.jpeg", "*.png", "*.webp", "*.jp2", "*.heic", "*.bmp", "*.gif"]


class ConvertOptions(Options):
    """What a convert step may be told."""

    format: Literal["pyramid-tiff"] = Field("pyramid-tiff", description="What is made.")
    compression: Literal["jpeg", "deflate", "lzw", "webp", "zstd", "none"] = Field(
        "jpeg",
        description="How tiles are compressed. `jpeg` and `webp` hold 8-bit grey or colour, and images are "
        "brought to that; the others keep every pixel and are compared with the source.",
    )
    quality: int = Field(
        85,
        ge=1,
        le=100,
        description="Of JPEG and WebP; from 90 on libvips writes JPEG tiles as RGB, three times larger.",
    )
    tile: int = Field(256, ge=64, le=1024, multiple_of=16, description="Width and height of a tile, pixels.")
    match: list[str] = Field(
        default_factory=lambda: list(_IMAGES),
        description="Names of the files that are images; upper and lower case alike.",
    )
    others: Literal["skip", "fail"] = Field("skip", description="What to do with other files.")
    verify: bool = Field(
        True,
        description="Compare each image with the manifest first, and read every level of the result back.",
    )
    memory: Size = Field(2 << 30, ge=512 << 20, description="Address space a child process may use.")
    timeout: Duration = Field(600.0, gt=0, description="The longest one image may take.")

    @field_validator("tile")
    @classmethod
    def _power(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("a power of two from 64 to 1024 is wanted")
        return value

    def recipe(self) -> dict[str, Any]:
        """Return what decides the result, for the child and for recognising it again."""
        return {
            "format": self.format,
            "compression": self.compression,
            "quality": self.quality,
            "tile": self.tile,
            "verify": self.verify,
        }
