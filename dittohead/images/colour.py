"""Bring pixels to what a format can hold, and say every change; docs/images.md has the table."""

from __future__ import annotations

import struct
from typing import Any

from dittohead.images.library import pyvips
from dittohead.images.reasons import Refused, Unfit
from dittohead.images.recipe import Recipe

_WORDS_OF_COLOUR = ("lab", "labs", "labq", "lch", "xyz", "scrgb", "hsv", "yxy", "cmc")

#: What libvips calls pixels, and a profile their space.
SPACES = {"srgb": b"RGB ", "rgb": b"RGB ", "rgb16": b"RGB ", "b-w": b"GRAY", "grey16": b"GRAY"}

_KEEP_FLOAT = "use format: pyramid-tiff with compression: deflate"


def fit(image: pyvips.Image, recipe: Recipe, changes: list[str]) -> tuple[pyvips.Image, bool]:
    """Return the image as the recipe wants it, and whether its colours were transformed."""
    before = image
    if recipe.colour == "srgb":
        image = _srgb(image, changes)
    if recipe.holds != "any":
        image = _coloured(image, changes)
        transformed = image is not before
        image = _of_type(image, recipe, changes)
        image = _of_bands(image, recipe, changes)
        return image, transformed
    return image, image is not before


def profile(image: pyvips.Image) -> bytes:
    """Return the image's ICC profile, b"" when it has none."""
    return bytes(image.get("icc-profile-data")) if image.get_typeof("icc-profile-data") else b""


def usable(icc: bytes, space: bytes) -> bool:
    """Tell whether this is a profile, and for that colour space.

    Source: ICC.1:2010 7.2: the space at byte 16, the signature at byte 36.
    """
    return len(icc) > 132 and icc[36:40] == b"acsp" and icc[16:20] == space


def description(icc: bytes) -> str:
    """Return what an ICC profile calls itself, "" when that cannot be read.

    Source: ICC.1:2010 7.3 (tag table); 6.5.17 of ICC.1:2001 ("desc"), 10.15 ("mluc").
    """
    try:
        (count,) = struct.unpack_from(">I", icc, 128)
        for i in range(min(count, 100)):
            name, at, size = struct.unpack_from(">4sII", icc, 132 + 12 * i)
            if name == b"desc":
                return _text(icc[at : at + size])
    except struct.error:
        pass
    return ""


def _text(tag: bytes) -> str:
    if tag[:4] == b"desc":
        (size,) = struct.unpack_from(">I", tag, 8)
        return tag[12 : 12 + size].rstrip(b"\0").decode("ascii", "replace")
    if tag[:4] == b"mluc":
        size, at = struct.unpack_from(">II", tag, 20)
        return tag[at : at + size].decode("utf-16-be", "replace")
    return ""


def _srgb(image: pyvips.Image, changes: list[str]) -> pyvips.Image:
    """Return the image in sRGB; one without a profile is taken for what it calls itself."""
    if image.interpretation == "cmyk":
        return _from_cmyk(image, changes)
    own = profile(image)
    if own and image.interpretation in SPACES:
        if not usable(own, SPACES[image.interpretation]):
            changes.append("a profile that does not fit left out")
            return without_profile(image)
        called = description(own)
        if "sRGB" in called:  # once more would only round
            return image
        if image.format not in ("uchar", "ushort"):
            raise Refused(f"its pixels are of type {image.format}, whose colours cannot be transformed")
        changes.append(f"made sRGB by its profile ({called or 'without a name'})")
        return image.icc_transform(
            "srgb",
            embedded=True,
            intent="relative",
            black_point_compensation=True,
            depth=16 if image.format == "ushort" else 8,
        )
    return _from_device_independent(image, changes)


def _coloured(image: pyvips.Image, changes: list[str]) -> pyvips.Image:
    """Return grey or RGB: viewers show other colours in JPEG tiles wrongly, and PNG has no others."""
    if image.interpretation == "cmyk":
        return _from_cmyk(image, changes)
    return _from_device_independent(image, changes)


def _from_cmyk(image: pyvips.Image, changes: list[str]) -> pyvips.Image:
    own = usable(profile(image), b"CMYK")
    changes.append("CMYK made sRGB" + (" by its profile" if own else ""))
    depth = 16 if image.format == "ushort" else 8
    return image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth)


def _from_device_independent(image: pyvips.Image, changes: list[str]) -> pyvips.Image:
    if image.interpretation in _WORDS_OF_COLOUR:
        changes.append(f"{image.interpretation} made sRGB")
        return without_profile(image.colourspace("srgb"))
    return image


def without_profile(image: pyvips.Image) -> pyvips.Image:
    """Return the image without the profile of the colours it no longer has."""
    image = image.copy()
    if profile(image):
        image.remove("icc-profile-data")
    return image


def _of_type(image: pyvips.Image, recipe: Recipe, changes: list[str]) -> pyvips.Image:
    """Return the image with samples of 8 bits, or also 16 where the format holds them."""
    if image.format == "ushort" and recipe.holds == "lossy":
        # By shift: white (65535) becomes 255; a plain cast would clip all above 255.
        image = (image >> 8).cast("uchar").copy(interpretation="b-w" if image.bands < 3 else "srgb")
        changes.append("16 bits made 8")
    if image.format in ("float", "double"):
        raise Unfit(f"its pixels are floating-point numbers of unknown range; {_KEEP_FLOAT}")
    if image.format not in ("uchar", "ushort"):
        raise Unfit(f"its pixels are of type {image.format}, whose white is unknown; {_KEEP_FLOAT}")
    return image


def _of_bands(image: pyvips.Image, recipe: Recipe, changes: list[str]) -> pyvips.Image:
    """Return the image as grey or RGB, with its alpha where the format holds one."""
    if image.hasalpha() and recipe.holds == "lossy":
        white = 65535 if image.format == "ushort" else 255
        image = image.flatten(background=[white] * (image.bands - 1))
        changes.append("transparency laid on white")
    most = (1, 3) if recipe.holds == "lossy" else (1, 2, 3, 4)
    if image.bands not in most or (image.bands in (2, 4) and not image.hasalpha()):
        raise Unfit(f"it has {image.bands} bands, neither grey nor colour; {_KEEP_FLOAT}")
    if image.bands == 1 and not recipe.grey:
        image = without_profile(image.bandjoin([image, image]).copy(interpretation="srgb"))
        changes.append("grey made RGB, as WebP wants")
    return image


def resize(image: pyvips.Image, width: int, height: int) -> Any:
    """Return the image at a size in pixels, alpha weighed."""
    across, down = width / image.width, height / image.height
    if not image.hasalpha():
        made = image.resize(across, vscale=down)
    else:
        made = image.premultiply().resize(across, vscale=down).unpremultiply().cast(image.format)
        made = made.copy(interpretation=image.interpretation)
    if (made.width, made.height) != (width, height):
        raise Refused(f"it became {made.width}x{made.height} instead of {width}x{height}")
    return made
