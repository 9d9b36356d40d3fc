"""Write what is known of an object and its images as a IIIF Presentation manifest.

Source: IIIF Presentation API 3.0 (https://iiif.io/api/presentation/3.0/), section numbers below are its.
The dictionaries have their keys in the order they are written in; of equal input the result is equal.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from dittohead.model.description import Described, Description, Level, Named
from dittohead.model.text import display
from dittohead.toolkit.provenance import Owners
from dittohead.toolkit.uris import encoded, web_address
from dittohead.workers.iiif.pictures import Picture

CONTEXT = "http://iiif.io/api/presentation/3/context.json"

#: Licences and public domain marks, as a browser's address line has them: kind, name, version, jurisdiction.
_CREATIVE_COMMONS = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/(licenses|publicdomain)/([a-z+-]+)/(\d\.\d)"
    r"(?:/([a-z]{2}|igo|scotland))?(?:/(?:(?:deed|legalcode|rdf)[^/?#]*)?)?(?:[?#].*)?",
    re.IGNORECASE,
)

_RIGHTS_STATEMENT = re.compile(
    r"https?://(?:www\.)?rightsstatements\.org/(?:vocab|page|data)/([a-z-]+)/1\.0/?(?:[?#].*)?", re.IGNORECASE
)

#: The statements there are. Source: rightsstatements.org, version 1.0.
_STATEMENTS = {
    code.lower(): code
    for code in [
        "InC",
        "InC-OW-EU",
        "InC-EDU",
        "InC-NC",
        "InC-RUU",
        "NoC-CR",
        "NoC-NC",
        "NoC-OKLR",
        "NoC-US",
        "CNE",
        "UND",
        "NKC",
    ]
}

#: The labels' own language; values of which nobody knows the language are under "none".
_ENGLISH = "en"

#: Types of picture services (Image API 3.0, 5).
_SERVICE = "ImageService3"


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How manifests are written, whatever the object."""

    language: str = "none"  #: of titles and descriptions: BCP 47, or "none"
    behavior: str = "individuals"
    viewing_direction: str = "left-to-right"
    canvas_labels: str = "number"  #: number, name
    structures: bool = False  #: a range for each folder
    thumbnail: int = 200  #: pixels the longer side of a thumbnail has at least
    providers: Sequence[dict[str, Any]] = ()  #: {"id", "name", "homepage", "logo"}
    see_also: Sequence[dict[str, Any]] = ()  #: {"id", "label", "format", "type"}
    rendering: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, kw_only=True)
class ShownObject:
    """One object with its images, and where its manifest and page will be."""

    description: Description
    pictures: Sequence[Picture]
    base: str  #: URL of the folder its manifest lies in, encoded, without a slash at its end
    #: (uri, width, height) of a picture that stands for it
    thumbnail: tuple[str, int, int] | None = None
    page: str = ""  #: URL of its page
    part_of: str = ""  #: URI of the collection it belongs to
    folder: str = field(default="")  #: that of its files among the step's, with a slash at its end

    @property
    def uri(self) -> str:
        """The manifest's URI."""
        return f"{self.base}/manifest.json"

    @property
    def title(self) -> str:
        """Its title, or what it is called by."""
        return titled(self.description.title, self.description.identifier)


def manifest(shown: ShownObject, manner: Manner) -> dict[str, Any]:
    """Return an object's manifest (5.2)."""
    known = shown.description
    made: dict[str, Any] = {
        "@context": CONTEXT,
        "id": shown.uri,
        "type": "Manifest",
        "label": {manner.language: [shown.title]},
    }
    if known.abstract.strip():
        made["summary"] = {manner.language: [plain(known.abstract)]}
    made |= _some("metadata", list(metadata(known, manner.language)))
    made |= _rights(known, manner)
    made |= _some("provider", [_agent(provider, known, manner) for provider in manner.providers])
    made |= _some("thumbnail", [_picture(*shown.thumbnail)] if shown.thumbnail else [])
    made |= _some("homepage", homepages(shown, manner))
    made |= _some("seeAlso", [_linked(given, "Dataset") for given in manner.see_also])
    made |= _some("rendering", [_linked(given, "Text") for given in manner.rendering])
    if shown.part_of:
        made["partOf"] = [{"id": shown.part_of, "type": "Collection"}]
    made["viewingDirection"] = manner.viewing_direction
    made["behavior"] = [manner.behavior]
    made["items"] = [_canvas(shown, manner, number) for number in range(len(shown.pictures))]
    if manner.structures:
        made |= _some("structures", _ranges(shown))
    return made


def collection(title: str, base: str, objects: Iterable[ShownObject], manner: Manner) -> dict[str, Any]:
    """Return the collection of several objects' manifests (IIIF Presentation 3.0, section 5.1).

    Args:
        title: the collection's title.
        base: URI of the directory that collection.json goes into, without a slash at the end.
        objects: in the order in which they are listed.
        manner: the language of the titles.
    """
    return {
        "@context": CONTEXT,
        "id": f"{base}/collection.json",
        "type": "Collection",
        "label": {manner.language: [titled(title)]},
        "items": [
            {
                "id": shown.uri,
                "type": "Manifest",
                "label": {manner.language: [shown.title]},
                **_some("thumbnail", [_picture(*shown.thumbnail)] if shown.thumbnail else []),
            }
            for shown in objects
        ],
    }


def written(value: dict[str, Any]) -> bytes:
    """Return a manifest as the file's bytes: UTF-8, the same of the same."""
    return json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"


# -- words -----------------------------------------------------------------------------------


def titled(*texts: str) -> str:
    """Return the first text that is more than spaces, as a title: a viewer lists objects by it."""
    return clean(next((text.strip() for text in texts if text.strip()), "Untitled"))


def clean(text: str) -> str:
    """Return text that UTF-8 and XML can hold: without control characters and lone surrogates."""
    return "".join(
        c if c in "\t\n\r" or (c >= " " and not "\x7f" <= c <= "\x9f" and not "\ud800" <= c <= "\udfff"
                               and c not in "\ufffe\uffff") else "\ufffd"
        for c in text
    )  # fmt: skip


def plain(text: str) -> str:
    """Return a text as a value that no viewer treats as markup.

    One that begins with "<" and ends with ">" is HTML to them (4.5 of the specification), others are
    plain text.
    """
    text = clean(text).strip()
    return f"<span>{html.escape(text)}</span>" if text.startswith("<") and text.endswith(">") else text


def metadata(known: Description, language: str) -> Iterator[dict[str, Any]]:
    """Yield what is known of an object as pairs of label and value, for people."""
    for label, values, spoken in facts(known):
        yield {
            "label": {_ENGLISH: [clean(label)]},
            "value": {language if spoken else "none": [plain(value) for value in values]},
        }


def facts(known: Description) -> Iterator[tuple[str, list[str], bool]]:
    """Yield (label, values, whether they are words of a language) of what is known; none are empty."""
    identifiers = list(dict.fromkeys((known.identifier, *known.other_identifiers)))
    pairs: list[tuple[str, Iterable[str], bool]] = [
        ("Date", [_date(date.words, date.label) for date in known.dates if date.words.strip()], False),
        ("Creator", [_agent_words(agent) for agent in known.creators if agent.name.strip()], True),
        ("Extent", known.extents, True),
        ("Subject", (subject.name for subject in known.subjects), True),
        ("Language", known.languages, False),
        *(
            (level.level.strip().capitalize() or "Part of", [_level(level)], True)
            for level in known.ancestors
        ),
        ("Repository", [known.publisher], True),
        ("Identifier", identifiers, False),
    ]
    for label, values, spoken in pairs:
        some = [value for value in values if value.strip()]
        if some:
            yield label, some, spoken


def _date(words: str, label: str) -> str:
    return words if label in ("", "creation") else f"{words} ({label})"


def _agent_words(agent: Named) -> str:
    return agent.name if agent.role in ("", "cre") else f"{agent.name} ({agent.role})"


def _level(level: Level) -> str:
    if not level.title.strip():
        return level.identifier
    return f"{level.title} ({level.identifier})" if level.identifier.strip() else level.title


def rights_uri(known: Description) -> str:
    """Return the rights' URI as a manifest may have it, "" for none and for what it may not have.

    A manifest names what stands for the rights, not a page about them in some language.
    Source: Presentation API 3.0, 3.2, rights: URIs of Creative Commons and rightsstatements.org, by http.
    """
    given = known.rights_uri.strip()
    if found := _CREATIVE_COMMONS.fullmatch(given):
        return f"http://creativecommons.org/{'/'.join(part for part in found.groups() if part).lower()}/"
    found = _RIGHTS_STATEMENT.fullmatch(given)
    code = _STATEMENTS.get(found[1].lower()) if found else None
    return f"http://rightsstatements.org/vocab/{code}/1.0/" if code else ""


def statement(known: Description) -> str:
    """Return what must be shown to anyone who sees the object; "" for nothing."""
    if known.rights.strip():
        return known.rights
    return known.rights_uri if known.rights_uri.strip() and not rights_uri(known) else ""


def _rights(known: Description, manner: Manner) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if text := statement(known):
        made["requiredStatement"] = {
            "label": {_ENGLISH: ["Rights"]},
            "value": {manner.language if known.rights.strip() else "none": [plain(text)]},
        }
    if uri := rights_uri(known):
        made["rights"] = uri
    return made


# -- parts -----------------------------------------------------------------------------------


def _some(key: str, value: list[Any]) -> dict[str, Any]:
    return {key: value} if value else {}


def _agent(provider: dict[str, Any], known: Description, manner: Manner) -> dict[str, Any]:
    name = titled(provider.get("name") or "", known.publisher, provider["id"])
    homepage = {
        "id": encoded(provider.get("homepage") or provider["id"]),
        "type": "Text",
        "label": {manner.language: [name]},
        "format": "text/html",
    }
    made = {
        "id": encoded(provider["id"]),
        "type": "Agent",
        "label": {manner.language: [name]},
        "homepage": [homepage],
    }
    if provider.get("logo"):
        made["logo"] = [{"id": encoded(provider["logo"]), "type": "Image"}]
    return made


def _linked(given: dict[str, Any], kind: str) -> dict[str, Any]:
    made: dict[str, Any] = {"id": encoded(given["id"]), "type": given.get("type") or kind}
    label = given.get("label") or ""
    if kind != "Dataset" and not label.strip():  # a rendering must have one (3.3.3)
        label = given.get("format") or made["type"]
    if label.strip():
        made["label"] = {_ENGLISH: [clean(label)]}
    if given.get("format"):
        made["format"] = given["format"]
    return made


def public_page(known: Description) -> str:
    """Return where the public reads an object's record; "" where it may not."""
    return web_address(known.page) if known.published is not False else ""


def homepages(shown: ShownObject, manner: Manner) -> list[dict[str, Any]]:
    """Return the object's pages for people (3.3.1): its record's, or the page beside the manifest."""
    uri = public_page(shown.description) or shown.page
    if not uri:
        return []
    return [{"id": uri, "type": "Text", "label": {manner.language: [shown.title]}, "format": "text/html"}]


def _picture(uri: str, width: int, height: int) -> dict[str, Any]:
    return {"id": uri, "type": "Image", "format": "image/jpeg", "width": width, "height": height}


def _service(picture: Picture) -> list[dict[str, Any]]:
    return [{"id": picture.uri, "type": _SERVICE, "profile": picture.profile}]


def canvas_uri(shown: ShownObject, picture: Picture) -> str:
    """Return a canvas's URI: made from its image's path, so that it stays when others come before it."""
    return f"{shown.base}/canvas/{quote(picture.path)}"


def label_of(picture: Picture, number: int, manner: Manner) -> str:
    """Return the label of a canvas: the file's name or the number, as the manner says.

    Args:
        picture: what is on the canvas.
        number: the canvas's number, from 0; people see it from 1.
        manner: says which of both.
    """
    name = picture.name if manner.canvas_labels == "name" else ""
    return titled(name, str(number + 1))


def _canvas(shown: ShownObject, manner: Manner, number: int) -> dict[str, Any]:
    picture = shown.pictures[number]
    uri = canvas_uri(shown, picture)
    size = picture.nearest(manner.thumbnail)
    thumbnail = _picture(picture.at(size), *(size or (picture.width, picture.height)))
    if picture.profile != "level0":
        thumbnail["service"] = _service(picture)
    return {
        "id": uri,
        "type": "Canvas",
        "label": {"none": [label_of(picture, number, manner)]},
        "width": picture.width,
        "height": picture.height,
        "thumbnail": [thumbnail],
        "items": [
            {
                "id": f"{uri}/page",
                "type": "AnnotationPage",
                "items": [
                    {
                        "id": f"{uri}/image",
                        "type": "Annotation",
                        "motivation": "painting",
                        "body": {
                            **_picture(picture.at(None), picture.width, picture.height),
                            "service": _service(picture),
                        },
                        "target": uri,
                    }
                ],
            }
        ],
    }


def _ranges(shown: ShownObject) -> list[dict[str, Any]]:
    """Return a range for each folder (5.4), those of inner folders within those of outer ones."""
    top: list[dict[str, Any]] = []
    known: dict[bytes, list[dict[str, Any]]] = {b"": top}
    for picture in shown.pictures:
        folder = (picture.origin or picture.path).rpartition(b"/")[0]
        items = known[b""]
        for depth in range(1, len(folder.split(b"/")) + 1) if folder else ():
            inner = b"/".join(folder.split(b"/")[:depth])
            if inner not in known:
                known[inner] = []
                items.append(
                    {
                        "id": f"{shown.base}/range/{quote(inner)}",
                        "type": "Range",
                        "label": {"none": [titled(display(inner.rpartition(b"/")[2]))]},
                        "items": known[inner],
                    }
                )
            items = known[inner]
        if folder:
            items.append({"id": canvas_uri(shown, picture), "type": "Canvas"})
    return top


def shares(described: Described, pictures: Iterable[Picture]) -> tuple[list[list[Picture]], int]:
    """Return each object's own pictures, in the order of the objects, and how many belong to no object."""
    own: list[list[Picture]] = [[] for _ in described.objects]
    owners = Owners(described)
    ignored = 0
    for picture in pictures:
        found = owners.of(picture.origin or picture.path)
        if found is None:
            ignored += 1
        else:
            own[found].append(picture)
    return own, ignored
