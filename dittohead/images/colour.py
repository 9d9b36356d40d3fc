"""Bring pixels to what a format can hold, and say every change."""

from __future__ import annotations

from dittohead.images.library import pyvips
from dittohead.images.reasons import Refused

_WORDS_OF_COLOUR = ("lab", "labs", "labq", "lch", "xyz", "scrgb", "hsv", "yxy", "cmc")


def fit_for_lossy(image: pyvips.Image, compression: str, changes: list[str]) -> pyvips.Image:
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
