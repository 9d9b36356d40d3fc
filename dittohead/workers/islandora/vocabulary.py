"""The words of Islandora's stock configuration: models, uses, bundles, and which file goes where."""

from __future__ import annotations

import mimetypes

#: Models by our word for them, as external URIs of terms in the vocabulary `islandora_models`.
MODELS = {
    "collection": "http://purl.org/dc/dcmitype/Collection",
    "image": "http://purl.org/coar/resource_type/c_c513",
    "paged": "https://schema.org/Book",
    "page": "http://id.loc.gov/ontologies/bibframe/part",
}

#: Uses of media, as external URIs of terms in the vocabulary `islandora_media_use`.
USES = {
    "original": "http://pcdm.org/use#OriginalFile",
    "preservation": "http://pcdm.org/use#PreservationMasterFile",
    "intermediate": "http://pcdm.org/use#IntermediateFile",
    "service": "http://pcdm.org/use#ServiceFile",
    "thumbnail": "http://pcdm.org/use#ThumbnailImage",
    "extracted-text": "http://pcdm.org/use#ExtractedText",
    "transcript": "http://pcdm.org/use#Transcript",
    "hocr": "https://discoverygarden.ca/use#hocr",
}

#: The vocabulary that the terms of a word's URI belong to, as doctor names it.
VOCABULARIES = {
    **dict.fromkeys(MODELS.values(), "islandora_models"),
    **dict.fromkeys(USES.values(), "islandora_media_use"),
}

#: The field that holds the file, by media bundle.
FILE_FIELDS = {
    "file": "field_media_file",
    "image": "field_media_image",
    "document": "field_media_document",
    "audio": "field_media_audio_file",
    "video": "field_media_video_file",
    "extracted_text": "field_media_file",
}

#: Media bundles by file extension; those that are not named go to `file`.
_BUNDLES = {
    **dict.fromkeys(("png", "gif", "jpg", "jpeg"), "image"),
    "pdf": "document",
}

#: Extensions that are images, hence pages.
IMAGES = frozenset({"jp2", "jpg", "jpeg", "png", "gif", "tif", "tiff"})

#: Media types that Python does not know, or knows otherwise.
_TYPES = {
    "jp2": "image/jp2",
    "hocr": "text/vnd.hocr+html",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "txt": "text/plain",
    "jpg": "image/jpeg",
}


def extension(name: str) -> str:
    """Return a file name's extension in small letters, without its dot; "" when it has none."""
    stem, dot, found = name.rpartition(".")
    return found.lower() if dot and stem else ""


def bundle_of(name: str, use: str, given: dict[str, str]) -> str:
    """Return the media bundle a file belongs in.

    Args:
        use: a URI of `USES`.
        given: bundles by extension, before the stock ones.
    """
    ext = extension(name)
    if ext in given:
        return given[ext]
    if use == USES["extracted-text"]:
        return "extracted_text"
    return _BUNDLES.get(ext, "file")


def media_type(name: str) -> str:
    """Return the media type sent with a file of this name."""
    ext = extension(name)
    return _TYPES.get(ext) or mimetypes.guess_type(f"x.{ext}")[0] or "application/octet-stream"
