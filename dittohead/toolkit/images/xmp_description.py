"""What XMP says of a file: what is known of its object, and the file's own history.

Source: XMP Specification Part 1, 8.3 to 8.7 (Dublin Core, XMP basic, rights, media management) and the
kinds of their values; docs/describe.md has the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dittohead.model.description import Description
from dittohead.toolkit.images.xmp import Property

#: What a date of XMP looks like, as far as descriptions have one: YYYY, YYYY-MM, YYYY-MM-DD.
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")


@dataclass(frozen=True, kw_only=True)
class ObjectFacts:
    """What is known of one file."""

    description: Description
    number: int  #: its place among the object's images, counted from 1
    total: int  #: how many images the object has
    media_type: str  #: of the file that is written
    original: str  #: path of the folder's own file it was made of, for people
    original_sha256: str  #: "" when it is not known
    converted: str  #: what was done to that one, for people; "" for nothing: this is a copy of it
    agent: str  #: program and version


def properties(facts: ObjectFacts) -> Iterator[Property]:
    """Yield what is to be said; nothing that is not known."""
    known = facts.description
    yield Property(
        "dc:title", "alt", [f"{known.title.strip() or known.identifier} [{facts.number}/{facts.total}]"]
    )
    yield Property("dc:identifier", "text", [known.identifier])
    yield Property("dc:format", "text", [facts.media_type])
    yield from _text("dc:source", source(known))
    for name, text in (
        ("dc:description", known.abstract),
        ("dc:rights", known.rights),
        ("xmpRights:UsageTerms", known.rights),
    ):
        if text:
            yield Property(name, "alt", [text])
    yield from _text("xmpRights:WebStatement", known.rights_uri)
    yield from _list("dc:creator", "seq", [agent.name for agent in known.creators])
    yield from _list("dc:date", "seq", [date for date in _dates(known) if _DATE.fullmatch(date)])
    yield from _list("dittohead:DateExpression", "bag", [date.expression for date in known.dates])
    yield from _list("dc:publisher", "bag", [known.publisher])
    yield from _list("dc:subject", "bag", [subject.name for subject in known.subjects])
    yield from _list("dc:language", "bag", list(known.languages))
    yield from _list("dc:relation", "bag", [known.page, known.ref])
    yield from _list("xmp:Identifier", "bag", [known.identifier, *known.other_identifiers])
    yield from _history(facts)


def source(known: Description) -> str:
    """Return where in the archives an object is, from the institution down."""
    levels = [
        f"{level.title} ({level.identifier})" if level.identifier else level.title
        for level in known.ancestors
    ]
    return ": ".join(part for part in (known.publisher, " / ".join(filter(None, levels))) if part)


def _dates(known: Description) -> Iterator[str]:
    for date in known.dates:
        yield date.begin
        yield date.end


def _text(name: str, text: str) -> Iterator[Property]:
    if text:
        yield Property(name, "text", [text])


def _list(name: str, kind: str, texts: list[str]) -> Iterator[Property]:
    some = [text for text in texts if text]
    if some:
        yield Property(name, "bag" if kind == "bag" else "seq", some)


def _history(facts: ObjectFacts) -> Iterator[Property]:
    yield Property("xmpMM:PreservedFileName", "text", [facts.original.rpartition("/")[2]])
    yield Property("xmpMM:DerivedFrom", "struct", fields=[{"stRef:filePath": facts.original}])
    yield from _text("dittohead:OriginalSHA256", facts.original_sha256)
    # Without a time: the receipt says when, and a folder that is done again gives the same bytes, which a
    # bucket treats as the same object.
    done = {"stEvt:softwareAgent": facts.agent}
    events = []
    if facts.converted:
        events.append({"stEvt:action": "converted", "stEvt:parameters": facts.converted, **done})
    events.append({"stEvt:action": "saved", "stEvt:changed": "/metadata", **done})
    yield Property("xmpMM:History", "events", fields=events)
