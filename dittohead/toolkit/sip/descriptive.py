"""Descriptive metadata: documents that were given, and what is known of an object as Dublin Core or MODS.

Sources: DCMES 1.1; MODS 3.8 user guidelines; the mapping between both of www.loc.gov/standards/mods.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lxml import etree

from dittohead.model.description import Description
from dittohead.toolkit.sip.profile import Descriptive, Profile
from dittohead.toolkit.sip.xml import NotXml, add

DC = "http://purl.org/dc/elements/1.1/"
MODS = "http://www.loc.gov/mods/v3"

#: The elements of Dublin Core. Source: DCMES 1.1.
ELEMENTS = frozenset(
    {
        "contributor", "coverage", "creator", "date", "description", "format", "identifier", "language",
        "publisher", "relation", "rights", "source", "subject", "title", "type",
    }
)  # fmt: skip

#: Where MODS has each of them.
_IN_MODS = {
    "title": "titleInfo/title", "subject": "subject/topic", "description": "abstract",
    "publisher": "originInfo/publisher", "date": "originInfo/dateCreated", "type": "genre",
    "format": "physicalDescription/extent", "identifier": "identifier",
    "source": "relatedItem/titleInfo/title",
    "language": "language/languageTerm", "relation": "relatedItem/titleInfo/title",
    "coverage": "subject/geographic", "rights": "accessCondition",
}  # fmt: skip

_ROLES = {"creator": "creator", "contributor": "contributor"}


@dataclass(frozen=True, kw_only=True)
class Section:
    """What one dmdSec holds."""

    mdtype: str
    othermdtype: str
    version: str
    elements: tuple[Any, ...]


def terms_of(about: Description) -> Iterator[tuple[str, str]]:
    """Yield what is known of an object as (element of Dublin Core, value)."""
    found = [
        ("title", [about.title]),
        ("identifier", [about.identifier, *about.other_identifiers]),
        ("creator", [one.name for one in about.creators]),
        ("subject", [one.name for one in about.subjects]),
        ("description", [about.abstract]),
        ("publisher", [about.publisher]),
        ("date", [one.words for one in about.dates]),
        ("format", about.extents),
        ("language", about.languages),
        ("relation", [one.title for one in about.ancestors]),
        ("rights", [about.rights, about.rights_uri]),
    ]
    yield from ((name, value) for name, values in found for value in values if value.strip())


def dublin_core(terms: tuple[tuple[str, str], ...]) -> Section:
    """Return terms as elements of Dublin Core."""
    around = etree.Element("around", nsmap={"dc": DC})
    elements = tuple(add(around, DC, name, value) for name, value in terms if value)
    return Section(mdtype="DC", othermdtype="", version="1.1", elements=elements)


def mods(terms: tuple[tuple[str, str], ...]) -> Section:
    """Return terms as a MODS record."""
    root = etree.Element(f"{{{MODS}}}mods", nsmap={"mods": MODS}, version="3.8")
    for name, value in terms:
        if name in _ROLES:
            person = etree.SubElement(root, f"{{{MODS}}}name")
            add(person, MODS, "namePart", value)
            add(person, MODS, "role/roleTerm", _ROLES[name], type="text")
        else:
            *outer, last = _IN_MODS[name].split("/", 1)
            parent = etree.SubElement(root, f"{{{MODS}}}{outer[0]}") if outer else root
            add(parent, MODS, last, value)
    return Section(mdtype="MODS", othermdtype="", version="3.8", elements=(root,))


def given(root: Any, profile: Profile) -> Section:
    """Return a document that was given, by its root. Raises: NotXml: the profile knows no such root."""
    name = etree.QName(root)
    for kind in profile.descriptive:
        if kind.namespace != name.namespace:
            continue
        if name.localname == kind.wrapper:
            inner = tuple(one for one in root if isinstance(one.tag, str))
            if inner:
                return _section(kind, inner)
            raise NotXml(f"its root {name.localname} holds nothing")
        if not kind.roots or name.localname in kind.roots:
            return _section(kind, (root,))
    known = ", ".join(dict.fromkeys(one.othermdtype or one.mdtype for one in profile.descriptive))
    raise NotXml(f"its root is {root.tag}, which the profile does not know as metadata ({known})")


def _section(kind: Descriptive, elements: tuple[Any, ...]) -> Section:
    version = elements[0].get(kind.version_attribute, "") if kind.version_attribute else ""
    return Section(
        mdtype=kind.mdtype, othermdtype=kind.othermdtype, version=version or kind.version, elements=elements
    )
