"""What of an archival object's description a new digital object is given, in ArchivesSpace's own shapes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from dittohead.workers.archivesspace import records
from dittohead.workers.archivesspace.options import COPIED
from dittohead.workers.archivesspace.records import Record

#: Notes that hold for what is below them: a digital object has nothing above it.
_CONDITIONS = ("accessrestrict", "userestrict")

#: What a digital object calls "summary", the best first.
_SUMMARY = ("abstract", "scopecontent")


def copied(archival: Record, parts: Collection[str]) -> Record:
    """Return the fields that a new digital object is given; nothing empty.

    Source of their shapes: common/schemas/digital_object.rb, note_digital_object.rb, date.rb, extent.rb.

    Args:
        archival: read with its ancestors resolved.
        parts: as the option `copy_description` names them.
    """
    levels = [archival, *((one.get("_resolved") or {}) for one in archival.get("ancestors", ()))]
    made = {field: take(levels) for part in COPIED if part in parts for field, take in [_PARTS[part]]}
    return {field: value for field, value in made.items() if value}


def _bare(kind: str, ones: Iterable[Any]) -> list[Record]:
    """Return nested records without what the server has made of them."""
    return [{"jsonmodel_type": kind, **records.canonical(one)} for one in ones]


def _dates(levels: list[Record]) -> list[Record]:
    return _bare("date", levels[0].get("dates", ()))


def _extents(levels: list[Record]) -> list[Record]:
    return _bare("extent", levels[0].get("extents", ()))


def _languages(levels: list[Record]) -> list[Record]:
    told = (one.get("language_and_script") for one in levels[0].get("lang_materials", ()))
    return [
        {"jsonmodel_type": "lang_material", "language_and_script": one}
        for one in _bare("language_and_script", filter(None, told))
    ]


def _agents(levels: list[Record]) -> list[Record]:
    names = ("ref", "role", "relator", "title", "terms")
    return [
        {name: records.canonical(one[name]) for name in names if one.get(name)}
        for one in levels[0].get("linked_agents", ())
    ]


def _subjects(levels: list[Record]) -> list[Record]:
    return [{"ref": one["ref"]} for one in levels[0].get("subjects", ())]


def _restrictions(levels: list[Record]) -> bool:
    """Tell whether restrictions apply, here or above: resources call it otherwise."""
    return any(one.get("restrictions_apply") or one.get("restrictions") for one in levels)


def _notes(levels: list[Record]) -> list[Record]:
    """Return the conditions of the nearest level that has any, and what the object is about."""
    found = []
    for type_ in _CONDITIONS:
        nearest = next((some for some in (_of(level, type_) for level in levels) if some), [])
        found += [_note(type_, one) for one in nearest]
    about = next((some for some in (_of(levels[0], type_) for type_ in _SUMMARY) if some), [])
    found += [_note("summary", one) for one in about]
    return [one for one in found if one["content"]]


def _of(level: Record, type_: str) -> list[Record]:
    return [one for one in level.get("notes", ()) if one.get("type") == type_]


def _note(type_: str, note: Record) -> Record:
    texts = list(_texts(note))
    made: Record = {"jsonmodel_type": "note_digital_object", "type": type_, "content": texts}
    made["publish"] = bool(note.get("publish"))
    return made | ({"label": note["label"]} if note.get("label") else {})


def _texts(note: Record) -> Iterator[str]:
    """Yield a note's texts as they are; of parts, those that are shown as it is."""
    content = note.get("content") or []
    yield from (text for text in (content if isinstance(content, list) else [content]) if text)
    for part in note.get("subnotes", ()):
        hidden = note.get("publish") and not part.get("publish", True)
        if part.get("jsonmodel_type") == "note_text" and part.get("content") and not hidden:
            yield part["content"]


_PARTS: dict[str, tuple[str, Callable[[list[Record]], Any]]] = {
    "dates": ("dates", _dates),
    "agents": ("linked_agents", _agents),
    "subjects": ("subjects", _subjects),
    "languages": ("lang_materials", _languages),
    "notes": ("notes", _notes),
    "restrictions": ("restrictions", _restrictions),
    "extents": ("extents", _extents),
}
