"""Technical metadata of images as MIX 2.0 (NISO Z39.87). Source: www.loc.gov/standards/mix/mix20."""

from __future__ import annotations

from typing import Any

from lxml import etree

from dittohead.toolkit.images.headers import ImageHeader, Jpeg2000
from dittohead.toolkit.sip.xml import add

NAMESPACE = "http://www.loc.gov/mix/v20"


def element(image: ImageHeader, place: str) -> Any:
    """Return what is known of an image as a `mix` element.

    Args:
        image: what its header says.
        place: where the image lies, for what it holds itself: a colour map, a colour profile.
    """
    root = etree.Element(f"{{{NAMESPACE}}}mix", nsmap={"mix": NAMESPACE})

    def put(path: str, text: object) -> None:
        add(root, NAMESPACE, path, str(text))

    put("BasicDigitalObjectInformation/byteOrder", image.byte_order)
    put("BasicDigitalObjectInformation/Compression/compressionScheme", image.compression)
    basic = "BasicImageInformation/BasicImageCharacteristics"
    put(f"{basic}/imageWidth", image.width)
    put(f"{basic}/imageHeight", image.height)
    put(f"{basic}/PhotometricInterpretation/colorSpace", image.colour_space)
    if image.colour_space == "ICCLab":
        put(f"{basic}/PhotometricInterpretation/ColorProfile/IccProfile/iccProfileURI", place)
    if image.jpeg2000 is not None:
        _jpeg2000(root, image.jpeg2000)
    colour = "ImageAssessmentMetadata/ImageColorEncoding"
    for bits in image.bits:
        put(f"{colour}/BitsPerSample/bitsPerSampleValue", bits)
    put(f"{colour}/BitsPerSample/bitsPerSampleUnit", "floating point" if image.floating else "integer")
    put(f"{colour}/samplesPerPixel", len(image.bits))
    for extra in image.extra:
        put(f"{colour}/extraSamples", extra)
    if image.colour_space == "PaletteColor":
        put(f"{colour}/Colormap/colormapReference", place)
    return root


def _jpeg2000(root: Any, coded: Jpeg2000) -> None:
    options = "BasicImageInformation/SpecialFormatCharacteristics/JPEG2000/EncodingOptions"
    for path, number in (
        ("Tiles/tileWidth", coded.tile_width),
        ("Tiles/tileHeight", coded.tile_height),
        ("qualityLayers", coded.layers),
        ("resolutionLevels", coded.levels),
    ):
        add(root, NAMESPACE, f"{options}/{path}", str(number) if number else "")
