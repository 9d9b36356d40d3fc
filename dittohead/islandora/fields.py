"""A description as a node's fields, in the shapes and lengths of Islandora's stock content type.

Source: the starter site's field storages: `string` fields hold 255 characters, `string_long` and
`text_long` any number; all but `title`, `field_full_title` and `field_weight` hold several values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from dittohead.description import Dated, Description
from dittohead.errors import ItemError

#: Characters of a title and of any `string` field.
SHORT = 255

#: A date at level 0 of EDTF. Source: Library of Congress, EDTF (2019), "Level 0".
_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")

#: Fields of dates by what a date is of; the others go to `field_edtf_date`.
_DATE_FIELDS = {
    "creation": "field_edtf_date_created",
    "publication": "field_edtf_date_issued",
    "issued": "field_edtf_date_issued",
    "copyright": "field_copyright_date",
}

#: What may be written of a field's value; the site shows more, such as `processed` and `url`.
_WRITABLE = ("value", "format", "target_id", "rel_type", "uri", "title", "alt")

Fields = dict[str, list[dict[str, Any]]]


def reference(target: int, kind: str) -> list[dict[str, Any]]:
    """Return a reference to an entity; `kind` is "node" or "taxonomy_term"."""
    return [{"target_id": target, "target_type": kind}]


def bundle(content_type: str) -> Fields:
    """Return what tells Drupal the content type."""
    return {"type": [{"target_id": content_type, "target_type": "node_type"}]}


def fitted(title: str) -> str:
    """Return a title in as many characters as the site takes."""
    title = " ".join(title.split())
    return title if len(title) <= SHORT else title[: SHORT - 1].rstrip() + "…"


def page_title(title: str, weight: int) -> str:
    """Return the title of a page: `TITLE, page 12`."""
    end = f", page {weight}"
    title = " ".join(title.split())
    return (title if len(title) + len(end) <= SHORT else title[: SHORT - len(end) - 1].rstrip() + "…") + end


def edtf(date: Dated) -> str:
    """Return a date in EDTF: `1951-03/1951-08`; "" when its begin is no date."""
    if not _DATE.fullmatch(date.begin):
        return ""
    if date.end and date.end != date.begin:
        return f"{date.begin}/{date.end}" if _DATE.fullmatch(date.end) else ""
    return date.begin


def described(found: Description, leave_out: Iterable[str] = ()) -> Fields:
    """Return the fields that say what an object is. Raises: ItemError: its identifier is too long."""
    if len(found.identifier) > SHORT:
        raise ItemError(f"its identifier has more than {SHORT} characters: {found.identifier[:60]}...")
    title = " ".join(found.title.split()) or found.identifier
    fields: Fields = {
        "title": [{"value": fitted(title)}],
        "field_local_identifier": [{"value": found.identifier}],
    }
    if len(title) > SHORT:
        fields["field_full_title"] = [{"value": title}]
    _texts(fields, "field_identifier", (found.ref, *found.other_identifiers))
    _texts(fields, "field_extent", found.extents)
    for date in found.dates:
        if text := edtf(date):
            _texts(fields, _DATE_FIELDS.get(date.label.lower(), "field_edtf_date"), (text,))
    if found.abstract:
        fields["field_description"] = [{"value": found.abstract}]
    _rights(fields, found)
    left_out = set(leave_out) - {"title", "field_local_identifier"}
    return {name: items for name, items in fields.items() if name not in left_out}


def _texts(fields: Fields, name: str, texts: Iterable[str]) -> None:
    items = fields.setdefault(name, [])
    for text in texts:
        if text and len(text) <= SHORT and {"value": text} not in items:
            items.append({"value": text})
    if not items:
        del fields[name]


def _rights(fields: Fields, found: Description) -> None:
    _texts(fields, "field_rights", (found.rights_uri, found.rights))
    if len(found.rights) > SHORT:  # cut short it would say something else
        fields["field_note"] = [{"value": f"Rights: {found.rights}", "format": "plain_text"}]


def bare(items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a field's values as they may be written: without what the site computes, and refuses."""
    return [{key: item[key] for key in _WRITABLE if key in item} for item in items]


def changes(there: Mapping[str, Any], wanted: Fields, how: str) -> Fields:
    """Return the fields of a node to be changed.

    Args:
        there: the node's JSON.
        how: "nothing", "empty" (fields without a value) or "all" (those that hold something else).
    """
    if how == "nothing":
        return {}
    return {
        name: items
        for name, items in wanted.items()
        if not _holds(there.get(name), items) and (how == "all" or not there.get(name))
    }


def _holds(there: Any, items: list[dict[str, Any]]) -> bool:
    """Tell whether a field has these values and no others; the site adds keys of its own to each."""
    if not isinstance(there, list) or len(there) != len(items):
        return False
    return all(
        all(str(found.get(key)) == str(wanted) for key, wanted in item.items() if key != "format")
        for found, item in zip(there, items, strict=True)
    )


def kept(there: Mapping[str, Any], written: Mapping[str, Any]) -> list[str]:
    """Return the names of fields that no longer hold what was written."""
    return [
        name
        for name, items in written.items()
        if name not in ("type", "uuid") and not _holds(there.get(name), items)
    ]
