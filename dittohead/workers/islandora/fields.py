"""A description as a node's fields, in the shapes and lengths of Islandora's stock content type.

Source: the starter site's field storages: `string` fields hold 255 characters, `string_long` and
`text_long` (`field_rights` among them, in 2025 and 2026) any number; all but `title`, `field_full_title` and
`field_weight` hold several values.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from dittohead.model.description import Dated, Description
from dittohead.model.errors import ItemError

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

#: How a note begins that holds what is too long for its field.
_NOTES = {"field_identifier": "Identifier", "field_extent": "Extent", "field_rights": "Rights"}

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
    """Return a date in EDTF: `1951-03/1951-08`; "" when its start is not a date."""
    if not _is_date(date.begin):
        return ""
    if date.end and date.end != date.begin:
        return f"{date.begin}/{date.end}" if _is_date(date.end) else ""
    return date.begin


def _is_date(text: str) -> bool:
    """Tell whether a text is a day, a month or a year there is: Drupal does not ask."""
    if not _DATE.fullmatch(text):
        return False
    year, month, day = (int(part) for part in (*text.split("-"), "1", "1")[:3])
    try:
        datetime.date(year or 4, month, day)  # the year 0 is one of EDTF, and a leap year
    except ValueError:
        return False
    return True


def described(found: Description, leave_out: Iterable[str] = (), whole: Collection[str] = ()) -> Fields:
    """Return the fields that say what an object is; one without a value is to be empty.

    Args:
        whole: fields that take texts of any length there; what is too long for the others goes to a note.

    Raises: ItemError: its identifier is too long.
    """
    if len(found.identifier) > SHORT:
        raise ItemError(f"its identifier has more than {SHORT} characters: {found.identifier[:60]}...")
    title = " ".join(found.title.split()) or found.identifier
    fields: Fields = {
        "title": [{"value": fitted(title)}],
        "field_local_identifier": [{"value": found.identifier}],
        "field_full_title": [{"value": title}] if len(title) > SHORT else [],
        "field_note": [],
    }
    for name, texts in _texts_of(found).items():
        _texts(fields, name, texts, whole=name in whole)
    for date in found.dates:
        if text := edtf(date):
            _texts(fields, _DATE_FIELDS.get(date.label.lower(), "field_edtf_date"), (text,))
    if found.abstract:
        fields["field_description"] = [{"value": found.abstract}]
    left_out = set(leave_out) - {"title", "field_local_identifier"}
    return {name: items for name, items in fields.items() if name not in left_out}


def _texts_of(found: Description) -> dict[str, tuple[str, ...]]:
    """Return the texts of fields that may be too short for them."""
    return {
        "field_identifier": (found.ref, *found.other_identifiers),
        "field_extent": found.extents,
        "field_rights": (found.rights_uri, found.rights),
    }


def long_ones(found: Description) -> list[str]:
    """Return the names of fields with a text that a `string` field does not take."""
    return [name for name, texts in _texts_of(found).items() if any(len(text) > SHORT for text in texts)]


def unwritten(found: Description, leave_out: Collection[str] = ()) -> list[str]:
    """Return what of a description no field says, in words."""
    said = [
        f"the date {date.words} is not written: it is none of EDTF"
        for date in found.dates
        if date.words and not edtf(date)
    ]
    if "field_note" in leave_out:
        names = [name for name in long_ones(found) if name not in leave_out]
        said += [f"what is longer than {SHORT} characters of {name} may not be written" for name in names]
    return said


def _texts(fields: Fields, name: str, texts: Iterable[str], *, whole: bool = False) -> None:
    items = fields.setdefault(name, [])
    for text in texts:
        if len(text) > SHORT and not whole:  # truncated it would say something else
            fields["field_note"].append({"value": f"{_NOTES[name]}: {text}", "format": "plain_text"})
        elif text and {"value": text} not in items:
            items.append({"value": text})
    if not items:
        del fields[name]


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
    if how == "all":
        wanted = {**wanted, **_instead(there, wanted)}
    return {
        name: items
        for name, items in wanted.items()
        if not _holds(there.get(name), items) and (how == "all" or not there.get(name))
    }


def _instead(there: Mapping[str, Any], wanted: Fields) -> Fields:
    """Return the fields that hold both what is derived from the old words and what people have said."""
    found: Fields = {}
    if "field_note" in wanted:
        notes = bare(there.get("field_note") or ())
        found["field_note"] = [*wanted["field_note"], *(note for note in notes if not _derived(note))]
    title = wanted.get("title")
    if title and not wanted.get("field_full_title", title) and _holds(there.get("field_full_title"), title):
        found["field_full_title"] = title  # the whole title, though it would fit: it is right
    return found


def _derived(note: Mapping[str, Any]) -> bool:
    """Tell whether a note is one that holds what was too long for its field."""
    text = str(note.get("value", ""))
    return any(text.startswith(f"{word}: ") and len(text) > SHORT + len(word) + 2 for word in _NOTES.values())


def _holds(there: Any, items: list[dict[str, Any]]) -> bool:
    """Tell whether a field has these values and no others; the site adds keys of its own to each."""
    there = there or []
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
