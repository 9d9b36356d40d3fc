"""What the simulated ArchivesSpace accepts: properties, lengths, lists. Source: common/schemas/*.rb."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

STOCK: dict[str, list[str]] = {
    "file_version_use_statement": [
        "application",
        "application-pdf",
        "audio-clip",
        "audio-master",
        "audio-master-edited",
        "audio-service",
        "image-master",
        "image-master-edited",
        "image-service",
        "image-service-edited",
        "image-thumbnail",
        "text-codebook",
        "test-data",
        "text-data_definition",
        "text-georeference",
        "text-ocr-edited",
        "text-ocr-unedited",
        "text-tei-transcripted",
        "text-tei-translated",
        "video-clip",
        "video-master",
        "video-master-edited",
        "video-service",
        "video-streaming",
    ],  # "text-json" and "iiif" come with migration 176, which no release up to v4.2.1 has
    "file_version_file_format_name": ["aiff", "avi", "gif", "jpeg", "mp3", "pdf", "tiff", "txt"],
    "file_version_checksum_methods": ["md5", "sha-1", "sha-256", "sha-384", "sha-512"],
    "file_version_xlink_show_attribute": ["new", "replace", "embed", "other", "none"],
    "file_version_xlink_actuate_attribute": ["none", "other", "onLoad", "onRequest"],
    "digital_object_digital_object_type": [
        "cartographic",
        "mixed_materials",
        "moving_image",
        "notated_music",
        "software_multimedia",
        "sound_recording",
        "sound_recording_musical",
        "sound_recording_nonmusical",
        "still_image",
        "text",
    ],
    "digital_object_level": ["collection", "work", "image"],
    "instance_instance_type": [
        "accession",
        "audio",
        "books",
        "computer_disks",
        "digital_object",
        "graphic_materials",
        "maps",
        "microform",
        "mixed_materials",
        "moving_images",
        "realia",
        "text",
    ],
    "archival_record_level": [
        "class",
        "collection",
        "file",
        "fonds",
        "item",
        "otherlevel",
        "recordgrp",
        "series",
        "subfonds",
        "subgrp",
        "subseries",
    ],
    "event_event_type": [
        "accession",
        "capture",
        "compression",
        "deaccession",
        "decompression",
        "deletion",
        "digital_signature_validation",
        "fixity_check",
        "ingestion",
        "message_digest_calculation",
        "migration",
        "normalization",
        "replication",
        "validation",
        "virus_check",
    ],
    "event_outcome": ["pass", "partial pass", "fail"],
    "linked_agent_event_roles": [
        "authorizer",
        "executing_program",
        "implementer",
        "recipient",
        "transmitter",
        "validator",
    ],
    "linked_event_archival_record_roles": ["source", "outcome", "transfer"],
    "name_source": ["local", "naf", "nad", "ulan", "ingest"],
}


@dataclass(frozen=True)
class P:
    """One property."""

    kind: str = "any"  #: str, bool, int, list (of `of`), object (of `of`), any
    most: int = 0  #: characters
    required: bool = False
    enum: str = ""
    of: str = ""  #: name of the nested schema
    readonly: bool = False
    least: int = 0  #: items


S = lambda most=65000, **more: P("str", most=most, **more)  # noqa: E731
B = P("bool")
ANY = P()
RO = P(readonly=True)
E = lambda enum, **more: P("str", enum=enum, **more)  # noqa: E731

#: What every record has and nobody writes.
COMMON = dict.fromkeys(
    [
        "uri",
        "jsonmodel_type",
        "lock_version",
        "created_by",
        "last_modified_by",
        "create_time",
        "system_mtime",
        "user_mtime",
        "repository",
        "_resolved",
        "display_string",
        "suppressed",
    ],
    RO,
)

_DESCRIPTIVE = dict.fromkeys(
    [
        "dates",
        "extents",
        "lang_materials",
        "rights_statements",
        "external_ids",
        "external_documents",
        "linked_agents",
        "subjects",
        "notes",
        "user_defined",
        "metadata_rights_declarations",
    ],
    ANY,
)

SCHEMAS: dict[str, dict[str, P]] = {
    "digital_object": {
        "digital_object_id": S(255, required=True),
        "title": S(16384, required=True),
        "digital_object_type": E("digital_object_digital_object_type"),
        "level": E("digital_object_level"),
        "publish": B,
        "restrictions": B,
        "slug": S(255),
        "is_slug_auto": B,
        "collection_management": ANY,
        "file_versions": P("list", of="file_version"),
        **dict.fromkeys(
            ("tree", "collection", "linked_instances", "linked_events", "representative_file_version"), RO
        ),
        **_DESCRIPTIVE,
    },
    "digital_object_component": {
        "digital_object": P("ref", required=True),
        "parent": P("ref"),
        "title": S(8192),
        "label": S(255),
        "component_id": S(255),
        "position": P("int"),
        "publish": B,
        "file_versions": P("list", of="file_version"),
        **dict.fromkeys(("has_unpublished_ancestor", "linked_events", "representative_file_version"), RO),
        **_DESCRIPTIVE,
    },
    "archival_object": {
        "resource": P("ref", required=True),
        "level": E("archival_record_level", required=True),
        "other_level": S(255),
        "title": S(8192),
        "ref_id": S(255),
        "component_id": S(255),
        "parent": P("ref"),
        "position": P("int"),
        "publish": B,
        "restrictions_apply": B,
        "repository_processing_note": S(),
        "instances": P("list", of="instance"),
        "external_ark_url": S(),
        "series": ANY,
        "accession_links": ANY,
        **dict.fromkeys(("has_unpublished_ancestor", "ancestors", "ark_name", "linked_events"), RO),
        **_DESCRIPTIVE,
    },
    "instance": {
        "instance_type": E("instance_instance_type", required=True),
        "is_representative": B,
        "digital_object": P("ref"),
        "sub_container": ANY,
    },
    "file_version": {
        "file_uri": S(16384, required=True),
        "publish": B,
        "is_representative": B,
        "use_statement": E("file_version_use_statement"),
        "file_format_name": E("file_version_file_format_name"),
        "file_format_version": S(255),
        "file_size_bytes": P("int"),
        "checksum": S(255),
        "checksum_method": E("file_version_checksum_methods"),
        "xlink_actuate_attribute": E("file_version_xlink_actuate_attribute"),
        "xlink_show_attribute": E("file_version_xlink_show_attribute"),
        "caption": S(16384),
        **dict.fromkeys(("identifier", "derived_from", "link_uri"), RO),
    },
    "event": {
        "event_type": E("event_event_type", required=True),
        "external_ids": P("list", of="external_id"),
        "date": ANY,
        "timestamp": S(),
        "outcome": E("event_outcome"),
        "outcome_note": S(16384),
        "linked_agents": P("list", of="event_agent", required=True, least=1),
        "linked_records": P("list", of="event_record", required=True, least=1),
    },
    "external_id": {"external_id": S(255), "source": S(255)},
    "event_agent": {"role": E("linked_agent_event_roles", required=True), "ref": S(required=True)},
    "event_record": {"role": E("linked_event_archival_record_roles", required=True), "ref": S(required=True)},
    "agent_software": {
        "agent_type": S(),
        "publish": B,
        "names": P("list", of="name_software", required=True, least=1),
        "display_name": RO,
        "title": RO,
    },
    "name_software": {
        "software_name": S(required=True),
        "version": S(),
        "manufacturer": S(),
        "sort_name": S(required=True),
        "sort_name_auto_generate": B,
        "source": E("name_source"),
        "rules": S(),
        "authorized": B,
        "is_display_name": B,
    },
}


#: Source: common/mixed_content_validator.rb, 4.2.0 and later.
_DISALLOWED = frozenset(
    [
        "script",
        "style",
        "iframe",
        "object",
        "embed",
        "applet",
        "meta",
        "link",
        "base",
        "form",
        "input",
        "button",
        "select",
        "textarea",
        "option",
        "optgroup",
        "label",
        "fieldset",
    ]
)
_TAG = re.compile(r"<(/)?([A-Za-z][A-Za-z0-9:_-]*)([^>]*)>")
_QUOTED = re.compile(r"""\s+[A-Za-z_:][\w:.-]*\s*=\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")


def mixed_content_error(text: str) -> str:
    """Return the code with which a title is refused; "" for one that is taken."""
    names = re.findall(r"</?([A-Za-z][A-Za-z0-9:_-]*)", text)
    if any(name.lower() in _DISALLOWED for name in names):
        return "mixed_content_disallowed_tag"
    opened: list[str] = []
    for closing, name, rest in _TAG.findall(text):
        if not closing and (re.search("[“”‘’]", rest) or "=" in _QUOTED.sub(" ", rest)):
            return "mixed_content_invalid_inline_ead"
        if closing and (not opened or opened.pop() != name):
            return "mixed_content_invalid_inline_ead"
        if not closing and not rest.strip().endswith("/"):
            opened.append(name)
    return "mixed_content_invalid_inline_ead" if opened else ""


class Invalid(Exception):
    """Answered with 400."""

    def __init__(self, errors: Any, invalid: Any = None) -> None:
        super().__init__(str(errors))
        self.errors, self.invalid = errors, invalid


def cleaned(kind: str, body: Any, enums: dict[str, list[str]]) -> dict[str, Any]:
    """Return what of a body is written: readonly properties are dropped, absent ones are null.

    Raises: Invalid: with ArchivesSpace's words.
    """
    errors: dict[str, list[str]] = {}
    if not isinstance(body, dict):
        raise Invalid("Had some trouble parsing your request: it is not an object")
    result = _object(kind, body, enums, "", errors)
    if kind == "digital_object_component" and not any(body.get(name) for name in ("title", "label", "dates")):
        errors["title"] = ["must not be an empty string (or enter a Label or Date)"]
    if kind == "archival_object" and not body.get("title") and not body.get("dates"):
        errors["dates"] = ["one or more required (or enter a Title)"]
    if kind == "event" and not body.get("date") and not body.get("timestamp"):
        errors["date"] = ["Can't be blank (or enter a Timestamp)"]
    if kind == "digital_object":
        _described(body, errors)
    if errors:
        raise Invalid(errors, body)
    return result


#: Source: migrations, note_digital_object_type.
_NOTES = frozenset(
    [
        "summary",
        "bioghist",
        "accessrestrict",
        "userestrict",
        "custodhist",
        "dimensions",
        "edition",
        "extent",
        "altformavail",
        "originalsloc",
        "note",
        "acqinfo",
        "inscription",
        "langmaterial",
        "legalstatus",
        "physdesc",
        "prefercite",
        "processinfo",
        "relatedmaterial",
    ]
)
_NEEDS = {
    "dates": ("label", "date_type"),
    "extents": ("portion", "number", "extent_type"),
    "linked_agents": ("ref", "role"),
    "subjects": ("ref",),
    "notes": ("type", "content"),
}


def _described(body: dict[str, Any], errors: dict[str, list[str]]) -> None:
    """What the nested records of a digital object need. Source: common/schemas, not run."""
    for name, needs in _NEEDS.items():
        for i, one in enumerate(body.get(name) or ()):
            for key in needs:
                if not one.get(key):
                    errors[f"{name}/{i}/{key}"] = ["Property is required but was missing"]
    for i, one in enumerate(body.get("notes") or ()):
        if one.get("jsonmodel_type") != "note_digital_object" or not isinstance(one.get("content"), list):
            errors[f"notes/{i}"] = [
                "Must be one of: JSONModel(:note_bibliography), JSONModel(:note_digital_object)"
            ]
        elif one.get("type") not in _NOTES:
            errors[f"notes/{i}/type"] = [f"Invalid value '{one.get('type')}'"]


def _object(
    kind: str, body: dict[str, Any], enums: dict[str, list[str]], path: str, errors: dict[str, list[str]]
) -> dict[str, Any]:
    schema = SCHEMAS[kind]
    for name in body:
        if name not in schema and name not in COMMON:
            errors[path + name] = ["Unrecognised property"]
    result: dict[str, Any] = {}
    for name, spec in schema.items():
        if spec.readonly:
            continue
        value = body.get(name)
        if value is None or (value == "" and spec.kind == "str"):
            if spec.required:
                errors[path + name] = ["Property is required but was missing"]
            result[name] = [] if spec.kind == "list" else None
            continue
        result[name] = _value(spec, value, enums, path + name, errors)
    if kind == "instance":
        _instance(result, path, errors)
    return result


def _value(spec: P, value: Any, enums: dict[str, list[str]], path: str, errors: dict[str, list[str]]) -> Any:
    kinds = {"str": str, "bool": bool, "int": int, "list": list, "ref": dict}
    if spec.kind in kinds and (
        not isinstance(value, kinds[spec.kind]) or (spec.kind == "int" and isinstance(value, bool))
    ):
        errors[path] = [f"Must be a {spec.kind} (you provided a {type(value).__name__})"]
    elif spec.enum and value not in enums[spec.enum]:
        errors[path] = [
            f"The property '#/{path}' of value '{value}' did not match one of the following configurable values: "
            + ", ".join(enums[spec.enum])
        ]
    elif spec.most and len(value) > spec.most:
        errors[path] = [f"Must be {spec.most} characters or fewer"]
    elif spec.kind == "ref":
        if not isinstance(value.get("ref"), str):
            errors[path + "/ref"] = ["Property is required but was missing"]
        return {"ref": value.get("ref")}
    elif spec.kind == "list":
        if len(value) < spec.least:
            errors[path] = [f"At least {spec.least} item(s) is required"]
        return [_object(spec.of, one, enums, f"{path}/{i}/", errors) for i, one in enumerate(value)]
    return copy.deepcopy(value)


def _instance(result: dict[str, Any], path: str, errors: dict[str, list[str]]) -> None:
    if result["instance_type"] == "digital_object":
        if not result["digital_object"]:
            errors[path + "digital_object"] = ["Can't be empty"]
    elif not result["sub_container"]:
        errors[path + "sub_container"] = ["Can't be empty"]
