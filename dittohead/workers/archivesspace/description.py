"""An archival object, with what is above and around it, in the words of `dittohead.model.description`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from typing import Any

from dittohead.model.description import Dated, Description, Level, Named

Record = dict[str, Any]

#: What is to be resolved when an archival object is read to be described.
RESOLVED = ("ancestors", "linked_agents", "subjects", "repository")

#: EAD's inline elements, as titles and notes may hold them: <emph render="italic">, <lb/>.
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")

#: Those between which words end.
_BREAK = re.compile(
    r"</?(?:p|lb|br|list|item|head|blockquote|chronlist|chronitem|event)\b[^<>]*>", re.IGNORECASE
)


def plain(text: Any) -> str:
    """Return a title or note as plain text: no markup, no entities, no runs of white space."""
    # A tag within a word parts nothing: H<sub>2</sub>O.
    bare = _TAG.sub("", _BREAK.sub(" ", str(text or "")))
    return " ".join(html.unescape(bare).split())


def title_of(record: Record) -> str:
    """Return what people call a record; an archival object may have only a date."""
    return plain(record.get("display_string") or record.get("title"))


def describe(record: Record, public_url: str = "") -> Description:
    """Return what is known of an archival object that was read with `RESOLVED`."""
    above = [one.get("_resolved") or {} for one in record.get("ancestors", ())]  # the nearest first
    levels = [record, *above]
    ark = (record.get("ark_name") or {}).get("current") or record.get("external_ark_url")
    identifier = record.get("component_id") or record.get("ref_id") or record["uri"]
    others = (record.get("ref_id"), ark)
    return Description(
        identifier=identifier,
        title=title_of(record) or identifier,
        ref=record["uri"],
        page=public_url + record["uri"] if public_url else "",
        other_identifiers=tuple(one for one in others if one and one != identifier),
        level=_level(record),
        ancestors=tuple(_ancestors(record)),
        dates=tuple(_dates(record)),
        creators=tuple(_agents(record, {"creator"})),
        subjects=(*_subjects(record), *_agents(record, {"subject"})),
        languages=tuple(_languages(record)),
        extents=tuple(_extents(record)),
        abstract=_first(_notes([record], ("abstract", "scopecontent"))),
        rights=_first(_notes(levels, ("userestrict",))),
        rights_uri=_first(_licences(levels)),
        publisher=plain(((record.get("repository") or {}).get("_resolved") or {}).get("name")),
        published=bool(record.get("publish")) and not record.get("has_unpublished_ancestor"),
    )


def _first(texts: Iterable[str]) -> str:
    return next(iter(texts), "")


def _level(record: Record) -> str:
    level = record.get("level") or ""
    return str(record.get("other_level") or level) if level == "otherlevel" else str(level)


def _ancestors(record: Record) -> Iterator[Level]:
    for one in reversed(record.get("ancestors", ())):
        found = one.get("_resolved") or {}
        parts = [found.get(f"id_{number}") for number in range(4)]
        yield Level(
            level=one.get("level") or _level(found),
            title=title_of(found),
            identifier="-".join(part for part in parts if part) or found.get("component_id") or "",
            uri=one["ref"],
        )


def _dates(record: Record) -> Iterator[Dated]:
    for date in record.get("dates", ()):
        names = ("label", "expression", "begin", "end")
        yield Dated(**{name: plain(date.get(name)) for name in names})


def _agents(record: Record, roles: set[str]) -> Iterator[Named]:
    for link in record.get("linked_agents", ()):
        found = link.get("_resolved") or {}
        if link.get("role") not in roles or not found.get("publish", True):
            continue
        name = found.get("display_name") or {}
        yield Named(
            name=plain(found.get("title") or name.get("sort_name")),
            role=link.get("relator") or "",
            uri=_uri(name.get("authority_id")),
        )


def _subjects(record: Record) -> Iterator[Named]:
    for link in record.get("subjects", ()):
        found = link.get("_resolved") or {}
        if found.get("title"):
            yield Named(name=plain(found["title"]), uri=_uri(found.get("authority_id")))


def _uri(text: Any) -> str:
    return text if isinstance(text, str) and text.startswith(("http://", "https://")) else ""


def _languages(record: Record) -> Iterator[str]:
    for one in record.get("lang_materials", ()):
        language = (one.get("language_and_script") or {}).get("language")
        if language:
            yield language


def _extents(record: Record) -> Iterator[str]:
    for one in record.get("extents", ()):
        words = f"{one.get('number', '')} {str(one.get('extent_type', '')).replace('_', ' ')}".strip()
        more = plain(one.get("container_summary"))
        yield f"{words} ({more})" if more else words


def _notes(levels: Iterable[Record], types: tuple[str, ...]) -> Iterator[str]:
    """Yield the published notes of these types: the nearest level's first, in the order of types."""
    for record in levels:
        for type_ in types:
            for note in record.get("notes", ()):
                if note.get("type") == type_ and note.get("publish"):
                    text = " ".join(_texts(note))
                    if text:
                        yield text


def _texts(note: Record) -> Iterator[str]:
    content = note.get("content") or []
    for text in content if isinstance(content, list) else [content]:
        yield plain(text)
    for part in note.get("subnotes", ()):
        if part.get("jsonmodel_type") == "note_text" and part.get("publish", True):
            yield plain(part.get("content"))


def _licences(levels: Iterable[Record]) -> Iterator[str]:
    for record in levels:
        for statement in record.get("rights_statements", ()):
            for document in statement.get("external_documents", ()):
                if uri := _uri(document.get("location")):
                    yield uri
