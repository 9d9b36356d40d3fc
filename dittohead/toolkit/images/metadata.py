"""What an image says of itself besides its pixels: compared before and after, and what is lost named."""

from __future__ import annotations

from typing import Any

from dittohead.toolkit.images import iptc, losses, tags, tiff
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.reasons import RefusedImage

_BLOBS = {"icc-profile-data": "ICC profile", "xmp-data": "XMP"}

#: EXIF that is about the file and not the picture: made again with the file.
_OF_THE_FILE = {"Orientation", "XResolution", "YResolution", "ResolutionUnit", "YCbCrPositioning"}
_OF_THE_FILE |= {"PixelXDimension", "PixelYDimension", "ExifVersion", "FlashpixVersion", "ColorSpace"}
_OF_THE_FILE |= {"InteroperabilityIndex", "InteroperabilityVersion", "ComponentsConfiguration"}

#: ifd1 is the thumbnail.
_DIRECTORIES = ("exif-ifd0-", "exif-ifd2-", "exif-ifd3-")


def found_in(fd: int, image: pyvips.Image, page: int = 1) -> dict[str, Any]:
    """Return {name: value} of the metadata that a file has of the picture on a page.

    Args:
        fd: an open descriptor of the file; its offset stays.
        image: that page, as libvips has loaded it.
        page: the page's number in the file, from 1.
    """
    found: dict[str, Any] = {
        name: bytes(image.get(key)) for key, name in _BLOBS.items() if image.get_typeof(key)
    }
    if datasets := iptc.of(fd, page):
        found["IPTC"] = datasets
    for field in image.get_fields():
        if field.startswith(_DIRECTORIES):
            name = field.rsplit("-", 1)[1]
            if name not in _OF_THE_FILE:
                # "1/125 sec. (1/125 sec., Rational, 1 components, 8 bytes)": the first form is the value.
                found[f"EXIF {name}"] = str(image.get(field)).rsplit(" (", 1)[0]
    found |= dict.fromkeys(tags.of_tiff(fd, page).left, b"there")
    read = {"PNG eXIf"} if image.get_typeof("exif-data") else set()
    found |= {name: b"there" for name in losses.held(fd, page) if name not in found and name not in read}
    return found | {f"TIFF {name}": value for name, value in tiff.texts(fd, page).items()}


def carried_by(image: pyvips.Image) -> set[str]:
    """Return the names of the EXIF that `tags` carries to a TIFF."""
    first = {f"EXIF {name}" for name in tags.NAMES.values()}
    found = set()
    for field in image.get_fields():
        name = f"EXIF {field.rsplit('-', 1)[1]}" if field.startswith(_DIRECTORIES) else ""
        if name and (name in first or not field.startswith("exif-ifd0-")):
            found.add(name)
    return found - {"EXIF MakerNote"}


#: Names of what is lost that are told; of more only the number. A small file may hold thousands.
_TOLD = 100


def lost(before: dict[str, Any], after: dict[str, Any], *, transformed: bool) -> list[str]:
    """Return the names of what a result no longer says.

    Args:
        before: of the source.
        after: of the result.
        transformed: the pixels were brought to another colour space, and its profile is another.

    Raises: RefusedImage: the profile is there and another.
    """
    missing = [name for name, value in before.items() if after.get(name) != value]
    if "ICC profile" in missing and "ICC profile" in after:
        if not transformed:
            raise RefusedImage("the result's ICC profile is not the source's")
        missing.remove("ICC profile")
    named = _together(missing, before)
    more = [f"{len(named) - _TOLD:,} more"] if len(named) > _TOLD else []
    return named[:_TOLD] + more


def _together(missing: list[str], before: dict[str, Any]) -> list[str]:
    """Name EXIF once when all of it is gone."""
    all_exif = [name for name in before if name.startswith("EXIF ")]
    gone = [name for name in missing if name.startswith("EXIF ")]
    if gone and gone == all_exif:
        missing = [name for name in missing if name not in gone]
        missing.append("EXIF")
    return missing
