"""What an Islandora 2 site refuses, and in which words; see tests.support.islandora for the sources."""

from __future__ import annotations

import json
import re
from typing import Any

Json = dict[str, Any]
Known = dict[str, tuple[str, int]]
There = tuple[Json, Json]  #: nodes and terms by number

TERMS = {
    "islandora_models": {
        "Collection": "http://purl.org/dc/dcmitype/Collection",
        "Image": "http://purl.org/coar/resource_type/c_c513",
        "Paged Content": "https://schema.org/Book",
        "Page": "http://id.loc.gov/ontologies/bibframe/part",
    },
    "islandora_media_use": {
        "Original File": "http://pcdm.org/use#OriginalFile",
        "Preservation Master File": "http://pcdm.org/use#PreservationMasterFile",
        "Service File": "http://pcdm.org/use#ServiceFile",
        "Thumbnail Image": "http://pcdm.org/use#ThumbnailImage",
        "Extracted Text": "http://pcdm.org/use#ExtractedText",
    },
    "person": {"Hale, George Ellery": "http://id.loc.gov/authorities/names/n79018806"},
}

#: Field storages of the content type: (type, cardinality), -1 for any number.
NODE_FIELDS = {
    "title": ("string", 1),
    "status": ("boolean", 1),
    "field_model": ("taxonomy_term", 1),
    "field_member_of": ("node", -1),
    "field_local_identifier": ("string", -1),
    "field_identifier": ("string", -1),
    "field_full_title": ("string_long", 1),
    "field_weight": ("integer", 1),
    "field_extent": ("string", -1),
    "field_rights": ("string", -1),
    "field_description": ("string_long", 1),
    "field_note": ("text_long", -1),
    "field_edtf_date": ("edtf", -1),
    "field_edtf_date_created": ("edtf", -1),
    "field_edtf_date_issued": ("edtf", -1),
    "field_copyright_date": ("edtf", -1),
    "field_linked_agent": ("typed_relation", -1),
    "field_subject": ("taxonomy_term", -1),
}
MEDIA_FIELDS = {
    "name": ("string", 1),
    "status": ("boolean", 1),
    "field_media_of": ("node", 1),
    "field_media_use": ("taxonomy_term", -1),
    "field_edited_text": ("string_long", 1),
    "field_mime_type": ("string", 1),
}
#: Media bundles: (file field, extensions).
BUNDLES = {
    "file": ("field_media_file", "txt rtf doc docx pdf tiff tif jp2 xml zip"),
    "image": ("field_media_image", "png gif jpg jpeg"),
    "document": ("field_media_document", "pdf doc docx"),
    "extracted_text": ("field_media_file", "txt"),
}
_EDTF = re.compile(r"\d{4}(-\d\d(-\d\d)?)?[?~%]?(/(\d{4}(-\d\d(-\d\d)?)?[?~%]?)?)?")


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        self.status, self.message, self.headers = status, message, headers


def decoded(body: bytes, key: str, bundles: set[str]) -> Json:
    try:
        fields = json.loads(body)
    except ValueError:
        raise Refused(400, "Syntax error") from None
    if not isinstance(fields, dict) or not fields.get(key):
        raise Refused(422, f'Could not determine entity type bundle: "{key}" field is missing.')
    if fields.pop(key)[0]["target_id"] not in bundles:
        raise Refused(422, f'"{key}" is no bundle there is')
    return fields


def validated(fields: Json, known: Known, kind: str, there: There, *, new: bool) -> Json:
    problems = []
    for name, items in fields.items():
        if name not in known:
            raise Refused(422, f"Field {name} is unknown.")
        if not isinstance(items, list) or any(not isinstance(item, dict) for item in items):
            raise Refused(422, f"{name}: an array of arrays is wanted")
        problems += _problems(name, items, *known[name], there)
    required = {"node": ("title", "field_model"), "media": ("name",)}[kind]
    for name in required:
        if not fields.get(name) if new else name in fields and not fields[name]:
            problems.append(f"{name}: This value should not be null.")
    if problems:
        raise Refused(422, "Unprocessable Entity: validation failed.\n" + "\n".join(problems) + "\n")
    return {name: [stored(known[name][0], i) for i in items] for name, items in fields.items()}


def _problems(name: str, items: list[Json], kind: str, most: int, entities: There) -> list[str]:
    found = []
    if 0 < most < len(items):
        found.append(f"{name}: {name}: this field cannot hold more than {most} values.")
    for number, item in enumerate(items):
        path = f"{name}.{number}"
        if "processed" in item or "url" in item:
            raise Refused(422, f"{path}: a computed property cannot be written")
        if kind in ("node", "taxonomy_term", "typed_relation"):
            there = entities[0 if kind == "node" else 1]
            if int(item.get("target_id", 0)) not in there:
                said = f"The referenced entity ({kind}: {item.get('target_id')}) does not exist."
                found.append(f"{path}.target_id: {said}")
            if kind == "typed_relation" and not str(item.get("rel_type", "")).startswith("relators:"):
                found.append(f"{path}.rel_type: The value you selected is not a valid choice.")
        elif "value" not in item:
            found.append(f"{path}: This value should not be null.")
        elif kind == "string" and len(item["value"]) > 255:
            found.append(f"{path}.value: {name}: may not be longer than 255 characters.")
        elif kind == "edtf" and not _EDTF.fullmatch(item["value"]):
            found.append(f"{path}.value: Could not parse the date.")
        elif (kind == "integer" and not isinstance(item["value"], int)) or (
            kind == "boolean" and not isinstance(item["value"], bool)
        ):
            found.append(f"{path}.value: This value should be of the correct primitive type.")
        elif kind == "text_long" and item.get("format") not in ("plain_text", "basic_html"):
            found.append(f"{path}.format: The value you selected is not a valid choice.")
    return found


def place_of(given: str) -> str:
    if not given:
        raise Refused(400, "Missing Content-Location header")
    if not re.match(r"(fedora|public|private)://", given):
        raise Refused(400, "Content-Location must be a valid stream wrapper URI")
    target = given.partition("://")[2].strip("/")
    if not target:
        raise Refused(400, "Content-Location must include a filename")
    if "\\" in target or any(part in ("", ".", "..") for part in target.split("/")):
        raise Refused(400, "Content-Location must not contain path traversal segments")
    return given


def check_extension(name: str, bundle: str) -> None:
    allowed = BUNDLES[bundle][1]
    if name.rpartition(".")[2].lower() not in allowed.split():
        raise Refused(400, f"Invalid file extension.  Valid types are {allowed}")


def found(wanted: str, there: str, contains: bool) -> bool:
    return wanted in there if contains else wanted == there


def paged(rows: list[Json], query: dict[str, str], size: int) -> list[Json]:
    page = int(query.get("page", 0))
    return rows[page * size : (page + 1) * size]


def stored(kind: str, item: Json) -> Json:
    if kind in ("node", "taxonomy_term", "typed_relation"):
        kept = {"target_id": int(item["target_id"])}
        return kept | ({"rel_type": item["rel_type"]} if "rel_type" in item else {})
    return {key: value for key, value in item.items() if key in ("value", "format")}
