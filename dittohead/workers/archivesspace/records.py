"""The shapes that are written to ArchivesSpace, and what of a record counts when two are compared.

Source of fields, lengths and lists: ArchivesSpace, common/schemas/{digital_object,file_version,...}.rb,
and backend/app/lib/../db/migrations 001 and 176 for the values that every new installation has.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from dittohead.model.records import Use

Record = dict[str, Any]
Enumerations = Mapping[str, frozenset[str]]

#: Names of the controlled value lists, as /config/enumerations/names/ has them.
USE = "file_version_use_statement"
FORMAT = "file_version_file_format_name"
CHECKSUM = "file_version_checksum_methods"
SHOW = "file_version_xlink_show_attribute"
INSTANCE = "instance_instance_type"
TYPE = "digital_object_digital_object_type"
EVENT = "event_event_type"
OUTCOME = "event_outcome"
AGENT_ROLE = "linked_agent_event_roles"
RECORD_ROLE = "linked_event_archival_record_roles"

#: Lengths. Source: common/schemas/digital_object.rb, digital_object_component.rb, file_version.rb; where the
#: database's column is shorter than the schema says (title, caption), that (information_schema, v4.2.1).
LONGEST_ID = 255
LONGEST_TITLE = 8704
LONGEST_CAPTION = 255
LONGEST_URI = 16384

#: What staff call the lists, under System > Manage Controlled Value Lists.
_SHOWN_AS = {
    USE: "File Version Use Statement",
    FORMAT: "File Version File Format Name",
    CHECKSUM: "File Version Checksum Methods",
    SHOW: "File Version XLink Show Attribute",
    INSTANCE: "Instance Instance Type",
    TYPE: "Digital Object Digital Object Type",
    EVENT: "Event Event Type",
    OUTCOME: "Event Outcome",
    AGENT_ROLE: "Linked Agent Event Roles",
    RECORD_ROLE: "Linked Event Archival Record Roles",
}


@dataclass(frozen=True, kw_only=True)
class RecordKind:
    """What a file's ending says of it."""

    type: str  #: of a digital object that holds only such files
    master: str  #: use statement of a master
    format: str  #: file format name, where the site's list has it
    version: str  #: file format version otherwise


_IMAGE, _TEXT, _SOUND, _FILM = "still_image", "text", "sound_recording", "moving_image"

_KINDS = {
    ".tif": (_IMAGE, "tiff", "TIFF"),
    ".jp2": (_IMAGE, "jp2", "JPEG 2000 Part 1 (JP2)"),
    ".jpg": (_IMAGE, "jpeg", "JPEG"),
    ".png": (_IMAGE, "png", "PNG"),
    ".gif": (_IMAGE, "gif", "GIF"),
    ".dng": (_IMAGE, "dng", "DNG"),
    ".webp": (_IMAGE, "webp", "WebP"),
    ".pdf": (_TEXT, "pdf", "PDF"),
    ".txt": (_TEXT, "txt", "plain text"),
    ".xml": (_TEXT, "xml", "XML"),
    ".wav": (_SOUND, "wav", "WAVE"),
    ".aif": (_SOUND, "aiff", "AIFF"),
    ".mp3": (_SOUND, "mp3", "MP3"),
    ".flac": (_SOUND, "flac", "FLAC"),
    ".mp4": (_FILM, "mp4", "MPEG-4"),
    ".mov": (_FILM, "mov", "QuickTime"),
    ".mkv": (_FILM, "mkv", "Matroska"),
    ".avi": (_FILM, "avi", "AVI"),
}
_SAME = {".tiff": ".tif", ".jpeg": ".jpg", ".jpe": ".jpg", ".aiff": ".aif", ".jpx": ".jp2", ".jpf": ".jp2"}
_MASTER = {_IMAGE: "image-master", _SOUND: "audio-master", _FILM: "video-master"}
_SERVICE = {_SOUND: "audio-service", _FILM: "video-service"}


def ending(path: bytes) -> str:
    """Return the ending of a file's name, ".tif", in lower case."""
    return os.path.splitext(os.fsdecode(path))[1].lower()


def kind_of(path: bytes) -> RecordKind:
    """Return what a file's ending says of it; nothing for one that says nothing."""
    end = ending(path)
    found, name, version = _KINDS.get(_SAME.get(end, end), ("", "", ""))
    master = "application-pdf" if name == "pdf" else _MASTER.get(found, "")
    return RecordKind(type=found, master=master, format=name, version=version)


def type_of(types: Iterable[str]) -> str:
    """Return the type of a digital object that holds files of these types; "" when nothing says it."""
    found = {one for one in types if one}
    return found.pop() if len(found) == 1 else "mixed_materials" if found else ""


def where_to_add(values: Iterable[str], enumeration: str, staff_url: str) -> str:
    """Return the words that tell staff how to add values to a controlled list.

    Args:
        values: those that the list lacks.
        enumeration: the list's name in the API.
        staff_url: address of the staff interface; "" where it is not known.
    """
    place = f" at {staff_url}/enumerations" if staff_url else ""
    named = ", ".join(f'"{value}"' for value in sorted(values))
    shown = _SHOWN_AS.get(enumeration, enumeration)
    return f'add {named} to "{shown}" ({enumeration}) under System > Manage Controlled Value Lists{place}'


# -- texts that the database takes ------------------------------------------------------------

#: What ß and ı are to the database's collation; every other character is its base, without accents.
_BASES = {"ß": "S", "ı": "I"}


def alike(text: str) -> str:
    """Return what is the same for identifiers that ArchivesSpace's database treats as one.

    Source: utf8mb3_general_ci, by which it compares: no capitals, no accents, no blanks at the end.
    """
    return "".join(map(_base, text)).rstrip(" ")


def _base(character: str) -> str:
    base = unicodedata.normalize("NFD", character)[0]
    upper = base.upper()
    return _BASES.get(base) or (upper if len(upper) == 1 else base)


def beyond(text: str) -> str:
    """Return the characters that its database (utf8mb3, three bytes each) cannot hold, such as emoji."""
    return "".join(dict.fromkeys(one for one in text if ord(one) > 0xFFFF))


def held(text: str, most: int) -> str:
    """Return a text as a column of the database takes it, cut with an ellipsis where it is too long."""
    taken = re.sub("[^\0-\uffff]", "\ufffd", text)
    return taken if len(taken) <= most else taken[: most - 1].rstrip() + "…"


_ELEMENT = re.compile(r"<(/)?([A-Za-z][A-Za-z0-9:_-]*)([^>]*)>")
_ATTRIBUTE = re.compile(r"""\s+[A-Za-z_:][\w:.-]*\s*=\s*(?:"[^"]*"|'[^']*')""")

#: Elements that titles may not hold. Source: common/mixed_content_validator.rb (4.2.0).
_NEVER = re.compile(
    r"</?(?:script|style|iframe|object|embed|applet|meta|link|base|form|input|button|select|textarea|option|"
    r"optgroup|label|fieldset)(?![A-Za-z0-9:_-])",
    re.IGNORECASE,
)


def malformed(title: str) -> bool:
    """Tell whether ArchivesSpace 4.2.0 and later refuses a title for its markup."""
    opened: list[str] = []
    for closing, name, rest in _ELEMENT.findall(title):
        if closing:
            if not opened or opened.pop() != name:
                return True
            continue
        if "=" in _ATTRIBUTE.sub(" ", rest) or re.search("[“”‘’]", rest):
            return True
        if not rest.rstrip().endswith("/"):
            opened.append(name)
    return bool(opened) or _NEVER.search(title) is not None


def title_of(markup: str, plain: str) -> str:
    """Return a digital object's title, which is markup: the archival object's own, or plain text escaped."""
    if markup and not malformed(markup) and len(markup) <= LONGEST_TITLE:
        return markup
    return html.escape(held(plain, LONGEST_TITLE // 5), quote=False)


# -- what is written -------------------------------------------------------------------------


def master_version(
    *,
    uri: str,
    path: bytes,
    size: int,
    sha256: str,
    caption: str,
    use: str,
    formats: Mapping[str, str],
    known: Enumerations,
) -> Record:
    """Return the file version of a master; it is never public.

    Args:
        path: of the file that lies at the URI, for its ending.
        known: the site's lists; a format that they lack is named in words.
    """
    kind = kind_of(path)
    own = formats.get(ending(path), kind.format)
    version: Record = {"jsonmodel_type": "file_version", "file_uri": uri, "publish": False}
    version["is_representative"] = False
    if size or sha256:
        version["file_size_bytes"] = size
    if sha256:
        version |= {"checksum_method": "sha-256", "checksum": sha256}
    if own and own in known.get(FORMAT, frozenset()):
        version["file_format_name"] = own
    elif kind.version:
        version["file_format_version"] = kind.version
    if use or kind.master:
        version["use_statement"] = use or kind.master
    if caption:
        version["caption"] = held(caption, LONGEST_CAPTION)
    return version


def access_version(role: Use, uri: str, title: str, type_: str, known: Enumerations) -> Record:
    """Return the file version of a page, thumbnail or manifest; always public.

    Args:
        role: what it is for the public: a page, a thumbnail, a manifest.
        uri: where the file is.
        title: the object's title; the caption of a thumbnail, cut where it is too long.
        type_: the digital object's type, which decides the use statement of a page; "" for none.
        known: the controlled values that the site has, by enumeration; others are left out of a manifest.

    Source of what the public interface makes of it: representative_file_version.rb, and the
    IIIF viewer's condition (iiif, text-json, embed).
    """
    version: Record = {"jsonmodel_type": "file_version", "file_uri": uri, "publish": True}
    version["is_representative"] = role is Use.THUMBNAIL
    version["xlink_show_attribute"] = "new" if role is Use.PAGE else "embed"
    if role is Use.THUMBNAIL:
        version |= {"use_statement": "image-thumbnail", "caption": held(title, LONGEST_CAPTION)}
    elif role is Use.PAGE:
        version["use_statement"] = _SERVICE.get(type_, "image-service")
    else:
        version |= {
            name: value
            for name, value, of in (("use_statement", "text-json", USE), ("file_format_name", "iiif", FORMAT))
            if value in known.get(of, frozenset())
        }
    return version


def component(component_id: str, label: str, versions: list[Record]) -> Record:
    """Return a new component, which is not published.

    Args:
        component_id: unique within the digital object.
        label: what people see.
        versions: its file versions, in their order.
    """
    return {
        "jsonmodel_type": "digital_object_component",
        "component_id": component_id,
        "label": label,
        "publish": False,
        "file_versions": versions,
    }


def digital_object(id_: str, title: str, type_: str, *, publish: bool, versions: list[Record]) -> Record:
    """Return a new digital object.

    Args:
        title: as `title_of` returns it.
    """
    made: Record = {
        "jsonmodel_type": "digital_object",
        "digital_object_id": id_,
        "title": title,
        "publish": publish,
        "file_versions": versions,
    }
    return made | ({"digital_object_type": type_} if type_ else {})


def instance(digital_object: str, *, representative: bool) -> Record:
    """Return what links an archival object to a digital object; only one may be its representative."""
    return {
        "jsonmodel_type": "instance",
        "instance_type": "digital_object",
        "is_representative": representative,
        "digital_object": {"ref": digital_object},
    }


def linked(archival_object: Record) -> list[str]:
    """Return the digital objects an archival object is linked to, one as often as it is linked."""
    found = (one.get("digital_object") or {} for one in archival_object.get("instances", ()))
    return [one["ref"] for one in found if one.get("ref")]


# -- what counts -----------------------------------------------------------------------------

#: What the server makes of a record by itself.
_MADE = frozenset(
    {"lock_version", "created_by", "last_modified_by", "create_time", "system_mtime", "user_mtime"}
)
_MADE |= {"uri", "jsonmodel_type", "identifier", "_resolved", "position", "slug", "is_slug_auto", "parent"}
_MADE |= {"has_unpublished_ancestor", "display_string", "ancestors", "link_uri", "derived_from", "tree"}
_MADE |= {"linked_events", "linked_instances", "collection", "representative_file_version", "repository"}
_MADE |= {"digital_object", "persistent_id"}


def canonical(record: Any) -> Any:
    """Return what people and programs have put into a record: nothing of the server's, nothing empty."""
    if isinstance(record, dict):
        kept = {key: canonical(value) for key, value in record.items() if key not in _MADE}
        return {key: value for key, value in kept.items() if value not in (None, "", [], {}, False)}
    if isinstance(record, list):
        return [canonical(one) for one in record]
    return record


def digest(value: Any) -> str:
    """Return the SHA-256 of a value as JSON with sorted keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def content(record: Record) -> str:
    """Return the digest of what counts in a record."""
    return digest(canonical(record))


#: Fields of a file version that people may have filled in better: set only where they are empty.
_THEIRS = frozenset({"caption", "use_statement", "file_format_name", "file_format_version"})
_LEFT = frozenset({"jsonmodel_type", "identifier"})


def brought_up(old: Record, new: Record) -> Record:
    """Return a file version of the same URI as it is to be: what differs is ours, the rest as it was."""
    result = dict(old)
    for name, value in new.items():
        if name in _LEFT or (name in _THEIRS and old.get(name)):
            continue
        if (result.get(name) or False) != (value or False):
            result[name] = value
    return result


#: File versions of one component of which all choices are tried: 256 digests.
_CHOICES = 8


def fixity(component: Record) -> str:
    """Return the digest of what a component says of where its file lies: id, and versions with a SHA-256.

    Links and notes that people add later do not count.
    """
    return _fixity(component, _fixed(component))


def still_says(component: Record, fixity: str) -> bool:
    """Tell whether a component says what it said, whatever file versions were added since.

    A digest does not tell which versions it is of: it is searched for among all choices of those there.
    """
    versions = _fixed(component)
    fewest = 0 if len(versions) <= _CHOICES else len(versions) - 1
    return any(
        _fixity(component, list(some)) == fixity
        for number in range(len(versions), fewest - 1, -1)
        for some in combinations(versions, number)
    )


def _fixed(component: Record) -> list[Record]:
    names = ("file_uri", "file_size_bytes", "checksum_method", "checksum", "publish")
    versions = [
        {name: one.get(name) for name in names}
        for one in component.get("file_versions", ())
        if one.get("checksum_method") == "sha-256" and one.get("checksum")
    ]
    return sorted(versions, key=lambda one: str(one["file_uri"]))


def _fixity(component: Record, versions: list[Record]) -> str:
    return digest([component.get("component_id"), versions])
