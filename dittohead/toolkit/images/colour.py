"""Bring pixels to what a format can hold, and say every change; docs/images.md has the table."""

from __future__ import annotations

import struct
from typing import Any

from dittohead.toolkit.images.icc import by_relative, icc_tags, is_srgb
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.reasons import RefusedImage, Unfit
from dittohead.toolkit.images.recipe import MASTERS, ImageRecipe

_WORDS_OF_COLOUR = ("lab", "labs", "labq", "lch", "xyz", "scrgb", "hsv", "yxy", "cmc")

#: What libvips calls pixels, and a profile their space.
SPACES = {"srgb": b"RGB ", "rgb": b"RGB ", "rgb16": b"RGB ", "b-w": b"GRAY", "grey16": b"GRAY"}
SPACES |= {"cmyk": b"CMYK", "scrgb": b"RGB ", "lab": b"Lab ", "labs": b"Lab ", "labq": b"Lab "}

#: Profiles of devices, by which alone colours are known.
_OF_DEVICES = (b"scnr", b"mntr", b"prtr", b"spac")

_KEEP_FLOAT = "use format: pyramid-tiff with compression: deflate"
_UNKNOWN_RANGE = f"its pixels are floating-point numbers of unknown range; {_KEEP_FLOAT}"


def fit(image: pyvips.Image, recipe: ImageRecipe, changes: list[str]) -> tuple[pyvips.Image, bool]:
    """Return the image as the recipe wants it, and whether its colours were transformed.

    Args:
        image: as it was loaded.
        recipe: which colours, samples and bands the result has.
        changes: what was changed is appended to it, in words.
    """
    image = fitting(image, changes)
    before = image
    if recipe.colour == "srgb":
        image = _srgb(image, changes)
    elif _unheld(image, recipe):
        image = _by_profile(image, changes)
    if recipe.holds != "any":
        image = _coloured(image, changes)
        transformed = image is not before
        image = _of_type(image, recipe, changes)
        image = _of_bands(image, recipe, changes)
        return image, transformed
    return image, image is not before


def fitting(image: pyvips.Image, changes: list[str]) -> pyvips.Image:
    """Return the image without a profile that is none, or none for its pixels."""
    own, space = profile(image), SPACES.get(image.interpretation)
    if own and space is not None and not usable(own, space):
        changes.append("an ICC profile that does not fit left out")
        return without_profile(image)
    return image


def _unheld(image: pyvips.Image, recipe: ImageRecipe) -> bool:
    """Tell whether the pixels are colours by a profile that the format cannot hold beside them."""
    own = profile(image)
    if not own or recipe.master or image.interpretation == "cmyk":
        return False
    if recipe.format in MASTERS:
        return not embeddable(own)
    return not recipe.grey and image.bands < 3


def profile(image: pyvips.Image) -> bytes:
    """Return the image's ICC profile, b"" when it has none."""
    return bytes(image.get("icc-profile-data")) if image.get_typeof("icc-profile-data") else b""


def usable(icc: bytes, space: bytes) -> bool:
    """Tell whether this is a profile, of a device, and for that colour space.

    Source: ICC.1:2010 7.2: the class at byte 12, the space at byte 16, the signature at byte 36.
    """
    whole = len(icc) > 132 and icc[36:40] == b"acsp" and icc[16:20] == space
    return whole and icc[12:16] in _OF_DEVICES


def embeddable(icc: bytes) -> bool:
    """Tell whether JP2 may hold a profile: of grey or of three colours by matrix."""
    if not icc:
        return False
    tags = icc_tags(icc).keys()
    return (icc[16:20], b"rXYZ" in tags or b"kTRC" in tags) in ((b"RGB ", True), (b"GRAY", True))


def description(icc: bytes) -> str:
    """Return what an ICC profile calls itself, "" when that cannot be read.

    Source: ICC.1:2010 7.3 (tag table); 6.5.17 of ICC.1:2001 ("desc"), 10.15 ("mluc").
    """
    try:
        return _text(icc_tags(icc).get(b"desc", b""))
    except struct.error:
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
    """Return the image in sRGB; one without a profile is treated as what it calls itself."""
    if image.interpretation == "cmyk":
        return _from_cmyk(image, changes)
    own = profile(image)
    if own and SPACES.get(image.interpretation) in (b"RGB ", b"GRAY"):
        if is_srgb(own):  # once more would only round
            return image
        return _by_profile(image, changes)
    return _from_device_independent(image, changes)


def _by_profile(image: pyvips.Image, changes: list[str]) -> pyvips.Image:
    """Return the image in sRGB by its own profile. Raises: RefusedImage: its samples are of another type."""
    if image.format not in ("uchar", "ushort"):
        raise RefusedImage(f"its pixels are of type {image.format}, whose colours cannot be transformed")
    own = profile(image)
    changes.append(f"made sRGB by its profile ({description(own) or 'without a name'})")
    return _transformed(image, own, embedded=True)


def _transformed(image: pyvips.Image, own: bytes, **given: Any) -> pyvips.Image:
    # By the table of another intent where that of this one is not there, as lcms does: libvips would put the
    # profile aside, and with it all that is known of the colours.
    return image.icc_transform(
        "srgb",
        intent="relative" if by_relative(own) else "perceptual",
        black_point_compensation=True,
        depth=16 if image.format == "ushort" else 8,
        **given,
    )


def _coloured(image: pyvips.Image, changes: list[str]) -> pyvips.Image:
    """Return grey or RGB: viewers show other colours in JPEG tiles wrongly, and PNG has no others."""
    if image.interpretation == "cmyk":
        return _from_cmyk(image, changes)
    return _from_device_independent(image, changes)


def _from_cmyk(image: pyvips.Image, changes: list[str]) -> pyvips.Image:
    if image.format not in ("uchar", "ushort"):
        raise RefusedImage(f"its pixels are of type {image.format}, whose colours cannot be transformed")
    own = profile(image)
    changes.append("CMYK made sRGB" + (" by its profile" if own else ""))
    return _transformed(image, own, embedded=True, **({} if own else {"input_profile": "cmyk"}))


def _from_device_independent(image: pyvips.Image, changes: list[str]) -> pyvips.Image:
    if image.interpretation == "scrgb" and image.get("vips-loader") == "tiffload":
        # So libvips calls whatever is floating-point and RGB in a TIFF.
        raise Unfit(_UNKNOWN_RANGE)
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


def _of_type(image: pyvips.Image, recipe: ImageRecipe, changes: list[str]) -> pyvips.Image:
    """Return the image with samples of 8 bits, or also 16 where the format holds them."""
    if image.format == "ushort" and recipe.holds == "lossy":
        # By shift: white (65535) becomes 255; a plain cast would clip all above 255.
        image = (image >> 8).cast("uchar").copy(interpretation="b-w" if image.bands < 3 else "srgb")
        changes.append("16 bits made 8")
    if image.format in ("float", "double"):
        raise Unfit(_UNKNOWN_RANGE)
    if image.format not in ("uchar", "ushort"):
        raise Unfit(f"its pixels are of type {image.format}, whose white is unknown; {_KEEP_FLOAT}")
    return image


def _of_bands(image: pyvips.Image, recipe: ImageRecipe, changes: list[str]) -> pyvips.Image:
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
    """Return the image at a size, with colours weighed by alpha where it has that.

    Args:
        image: any number of bands; the result has the same bands and sample format.
        width, height: the result's size in pixels.

    Raises: RefusedImage: libvips made another size of it.
    """
    across, down = width / image.width, height / image.height
    if not image.hasalpha():
        made = image.resize(across, vscale=down)
    else:
        made = image.premultiply().resize(across, vscale=down).unpremultiply().cast(image.format)
        made = made.copy(interpretation=image.interpretation)
    if (made.width, made.height) != (width, height):
        raise RefusedImage(f"it became {made.width}x{made.height} instead of {width}x{height}")
    return made
