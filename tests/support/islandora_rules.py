"""What an Islandora 2 site refuses, and in which words; see tests.support.islandora for the sources."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Known = dict[str, tuple[str, int]]


@dataclass(frozen=True)
class Site:
    """What may be referenced, and by whom."""

    nodes: Json  #: by number
    terms: Json
    bypasses: bool = True  #: the user has "bypass node access"


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
    "corporate_body": {},
    "family": {},
    "geo_location": {},
    "subject": {},
    "temporal_subjects": {},
}

#: Vocabularies whose terms have their URI in `field_authority_link`, not in `field_external_uri` (measured).
AUTHORITIES = frozenset({"person", "corporate_body", "family", "geo_location", "subject"})

#: Vocabularies of the terms that a field takes: `target_bundles` of the starter site (measured).
VOCABULARIES = {
    "field_subject": ("subject",),
    "field_subjects_name": ("person", "corporate_body", "family"),
    "field_geographic_subject": ("geo_location",),
    "field_temporal_subject": ("temporal_subjects",),
    "field_linked_agent": ("person", "corporate_body", "family"),
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
    "field_rights": ("text_long", -1),  # 2025 and August 2026
    "field_description": ("string_long", 1),
    "field_note": ("text_long", -1),
    "field_edtf_date": ("edtf", -1),
    "field_edtf_date_created": ("edtf", -1),
    "field_edtf_date_issued": ("edtf", -1),
    "field_copyright_date": ("edtf", -1),
    "field_linked_agent": ("typed_relation", -1),
    "field_subject": ("taxonomy_term", -1),
    "field_subjects_name": ("taxonomy_term", -1),
    "field_geographic_subject": ("taxonomy_term", -1),
    "field_temporal_subject": ("taxonomy_term", -1),
}
MEDIA_FIELDS = {
    "name": ("string", 1),
    "status": ("boolean", 1),
    "field_media_of": ("node", 1),
    "field_media_use": ("taxonomy_term", -1),
    "field_edited_text": ("text_long", 1),
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
        raise Refused(422, f'"{key}" is not a bundle there is')
    return fields


def validated(fields: Json, known: Known, kind: str, there: Site, *, new: bool) -> Json:
    problems = []
    for name, items in fields.items():
        if name not in known:
            raise Refused(422, f"Field {name} is unknown.")
        if not isinstance(items, list) or any(not isinstance(item, dict) for item in items):
            raise Refused(422, f"{name}: an array of arrays is required")
        problems += _problems(name, items, *known[name], there)
    required = {"node": ("title", "field_model"), "media": ("name",)}[kind]
    for name in required:
        if not fields.get(name) if new else name in fields and not fields[name]:
            problems.append(f"{name}: This value should not be null.")
    if problems:
        raise Refused(422, "Unprocessable Entity: validation failed.\n" + "\n".join(problems) + "\n")
    return {name: [stored(known[name][0], i) for i in items] for name, items in fields.items()}


def _problems(name: str, items: list[Json], kind: str, most: int, entities: Site) -> list[str]:
    found = []
    if 0 < most < len(items):
        found.append(f"{name}: {name}: this field cannot hold more than {most} values.")
    for number, item in enumerate(items):
        path = f"{name}.{number}"
        if "processed" in item or "url" in item:
            raise Refused(422, f"{path}: a computed property cannot be written")
        if kind in ("node", "taxonomy_term", "typed_relation"):
            found += _not_referenced(name, path, item, kind, entities)
            if kind == "typed_relation" and not str(item.get("rel_type", "")).startswith("relators:"):
                found.append(f"{path}.rel_type: The value you selected is not a valid choice.")
        elif "value" not in item:
            found.append(f"{path}: This value should not be null.")
        elif kind == "string" and len(item["value"]) > 255:
            found.append(f"{path}.value: {name}: may not be longer than 255 characters.")
        # REST does not ask the EDTF field's own validator: a day that is none passes (measured).
        elif kind == "edtf" and not _EDTF.fullmatch(item["value"]):
            found.append(f"{path}.value: Could not parse the date.")
        elif (kind == "integer" and not isinstance(item["value"], int)) or (
            kind == "boolean" and not isinstance(item["value"], bool)
        ):
            found.append(f"{path}.value: This value should be of the correct primitive type.")
        elif kind == "text_long" and item.get("format") not in (None, "plain_text", "basic_html"):
            found.append(f"{path}.format: The value you selected is not a valid choice.")
    return found


def _not_referenced(name: str, path: str, item: Json, kind: str, site: Site) -> list[str]:
    """Return what is wrong with a reference."""
    target = int(item.get("target_id", 0))
    what = "node" if kind == "node" else "taxonomy_term"
    there = site.nodes if kind == "node" else site.terms
    if target not in there:
        return [f"{path}.target_id: The referenced entity ({what}: {target}) does not exist."]
    # Core's NodeSelection: only published nodes, or with "bypass node access"; TermSelection: only the
    # vocabularies of target_bundles (both measured).
    hidden = kind == "node" and not there[target]["status"][0]["value"] and not site.bypasses
    foreign = name in VOCABULARIES and there[target]["vocabulary"] not in VOCABULARIES[name]
    if hidden or foreign:
        return [f"{path}.target_id: This entity ({what}: {target}) cannot be referenced."]
    return []


def place_of(given: str) -> str:
    if not given:
        raise Refused(400, "Missing Content-Location header")
    if not re.match(r"[a-z][a-z0-9+.-]*://", given):
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


def check_security(uri: str, field: str) -> None:
    """Refuse a file that could be run. Source: Drupal core, FileSystemInterface, INSECURE_EXTENSION_REGEX."""
    if re.search(r"\.(phar|php|pl|py|cgi|asp|js|htaccess)(\.|$)", uri.rpartition("/")[2], re.IGNORECASE):
        said = "For security reasons, your upload has been rejected."
        raise Refused(422, f"Unprocessable Entity: validation failed.\n{field}.0: {said}\n")


def found(wanted: str, there: str, contains: bool) -> bool:
    return wanted in there if contains else wanted == there


def listed(rows: list[Json], query: dict[str, str], most: int, *, turns: bool) -> list[Json]:
    """Return what a REST export gives of its rows: the first ones, whatever `page` says (measured).

    Source: Drupal core 10.4 (and 11.4), views RestExport: usesPager = FALSE, so that a display without a pager
    of its own shows "some, 10 items".

    Args:
        most: rows of one answer; 0: all ("display all items").
        turns: its pages can be turned, as with a contributed module.
    """
    if not most:
        return rows
    page = int(query.get("page", 0)) if turns else 0
    return rows[page * most : (page + 1) * most]


def stored(kind: str, item: Json) -> Json:
    if kind in ("node", "taxonomy_term", "typed_relation"):
        kept = {"target_id": int(item["target_id"])}
        return kept | ({"rel_type": item["rel_type"]} if "rel_type" in item else {})
    return {key: value for key, value in item.items() if key in ("value", "format")}
