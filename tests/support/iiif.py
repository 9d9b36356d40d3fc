"""What a IIIF Presentation 3 manifest must be, read from the specification and not from our code.

Source: IIIF Presentation API 3.0, sections 3 to 5, and what the community's validator demands beyond
(ids by http, rights by http). What others say of it, too: see `prezi`. Also: tiles as a convert step makes
them, without the work.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema

from dittohead.contract.worker import Made
from dittohead.model.records import Output
from dittohead.system.files import sha256_file
from dittohead.toolkit.images.iiif import info, promised
from tests.support import prezi

#: RFC 3986, 3 and appendix A: nothing that is not encoded, no sign of encoding that encodes nothing.
_CHAR = r"([A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})"
_ID = {
    "title": "URI",
    "type": "string",
    "pattern": rf"^https?://([A-Za-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]*)?(/{_CHAR}*)?(\?({_CHAR}|\?)*)?(#({_CHAR}|\?)*)?$",
}
_WORDS = {
    "type": "object",
    "patternProperties": {
        "^(none|[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*)$": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "pattern": r"\S"},
        }
    },
    "additionalProperties": False,
    "minProperties": 1,
}
_PAIR = {
    "type": "object",
    "properties": {"label": _WORDS, "value": _WORDS},
    "required": ["label", "value"],
    "additionalProperties": False,
}
_SIZE = {"type": "integer", "minimum": 1}


def _thing(kind: str | None, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    known = {"id": _ID, "type": {"const": kind} if kind else {"type": "string"}, **properties}
    return {
        "type": "object",
        "properties": known,
        "required": ["id", "type", *required],
        "additionalProperties": False,
    }


def _some(item: dict[str, Any], least: int = 1) -> dict[str, Any]:
    return {"type": "array", "minItems": least, "items": item}


_SERVICE = _thing("ImageService3", ("profile",), profile={"enum": ["level0", "level1", "level2"]})
_IMAGE = _thing(
    "Image",
    (),
    format={"const": "image/jpeg"},
    width=_SIZE,
    height=_SIZE,
    service=_some(_SERVICE),
)
_HOME = _thing("Text", ("label", "format"), label=_WORDS, format={"const": "text/html"})
_OTHER = _thing(None, (), label=_WORDS, format={"type": "string", "pattern": "^[a-z]+/[^ ].*$"})
_AGENT = _thing("Agent", ("label", "homepage"), label=_WORDS, homepage=_some(_HOME), logo=_some(_IMAGE))
_BODY = {**_IMAGE, "required": ["id", "type", "format", "width", "height", "service"]}
_PAINTING = _thing(
    "Annotation",
    ("motivation", "body", "target"),
    motivation={"const": "painting"},
    body=_BODY,
    target=_ID,
)
_CANVAS = _thing(
    "Canvas",
    ("label", "width", "height", "items"),
    label=_WORDS,
    width=_SIZE,
    height=_SIZE,
    thumbnail=_some(_IMAGE),
    items=_some(_thing("AnnotationPage", ("items",), items=_some(_PAINTING))),
)
_RANGE = _thing(
    "Range",
    ("items",),
    label=_WORDS,
    items=_some({"oneOf": [{"$ref": "#/$defs/range"}, _thing("Canvas")]}),
)
_RIGHTS = r"^http://(creativecommons\.org/(licenses|publicdomain)/|rightsstatements\.org/vocab/)\S+$"
MANIFEST = {
    "$defs": {"range": _RANGE},
    **_thing(
        "Manifest",
        ("@context", "label", "items"),
        **{"@context": {"const": "http://iiif.io/api/presentation/3/context.json"}},
        label=_WORDS,
        summary=_WORDS,
        metadata=_some(_PAIR),
        requiredStatement=_PAIR,
        rights={"type": "string", "pattern": _RIGHTS},
        provider=_some(_AGENT),
        thumbnail=_some(_IMAGE),
        homepage=_some(_HOME),
        seeAlso=_some(_OTHER),
        rendering=_some({**_OTHER, "required": ["id", "type", "label"]}),
        partOf=_some(_thing("Collection")),
        viewingDirection={"enum": ["left-to-right", "right-to-left", "top-to-bottom", "bottom-to-top"]},
        behavior=_some({"enum": ["individuals", "paged", "continuous", "unordered"]}),
        items=_some(_CANVAS),
        structures=_some({"$ref": "#/$defs/range"}),
    ),
}
COLLECTION = _thing(
    "Collection",
    ("@context", "label", "items"),
    **{"@context": {"const": "http://iiif.io/api/presentation/3/context.json"}},
    label=_WORDS,
    items=_some(_thing("Manifest", ("label",), label=_WORDS, thumbnail=_some(_IMAGE))),
)

#: Elements that may stand in a value that begins with "<" and ends with ">" (4.5).
_MARKUP = re.compile(r"<(?!/?(a|b|br|i|img|p|small|span|sub|sup)\b)")


def see(made: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest or collection that keeps the rules, all of them. Raises: AssertionError: which not."""
    found = list(faults(made))
    assert not found, "\n".join(["this is not valid IIIF Presentation 3:", *found[:20]])
    return made


def faults(made: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a manifest or collection, as lines of by what, where and what."""
    checker = jsonschema.Draft202012Validator(COLLECTION if made["type"] == "Collection" else MANIFEST)
    broken = [f"specification: {line}" for line in prezi.lines(checker.iter_errors(made))]
    yield from broken or (f"specification: {line}" for line in _joined(made))
    yield from prezi.by_model(made)
    yield from prezi.by_published_schema(made)


def _joined(made: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong between the parts of what is right in itself."""
    ids = Counter(thing["id"] for thing in _things(made) if thing["type"] in _OWN and len(thing) > 2)
    yield from (f"{uri}: is there {often} times" for uri, often in ids.items() if often > 1)
    yield from (f"{uri}: has a fragment (5.3)" for uri in ids if urlsplit(uri).fragment)
    for value in _values(made):
        if value.startswith("<") and value.endswith(">") and _MARKUP.search(value):
            yield f"{value}: markup that may not be there (4.5)"
    for canvas in made["items"] if made["type"] == "Manifest" else ():
        painting = canvas["items"][0]["items"][0]
        if painting["target"] != canvas["id"]:
            yield f"{canvas['id']}: what is painted is not on it"
        if any(painting["body"][side] != canvas[side] for side in ("width", "height")):
            yield f"{canvas['id']}: is of another size than its image"
    canvases = {canvas["id"] for canvas in made["items"]}
    for thing in _things(made.get("structures", [])):
        if thing["type"] == "Canvas" and thing["id"] not in canvases:
            yield f"{thing['id']}: a range names a canvas that is not there"


_OWN = ("Manifest", "Canvas", "AnnotationPage", "Annotation", "Range", "Collection")


def _things(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "id" in value and "type" in value:
            yield value
        for inner in value.values():
            yield from _things(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _things(inner)


def _values(made: dict[str, Any]) -> Iterator[str]:
    pairs = [*made.get("metadata", ()), *filter(None, [made.get("requiredStatement")])]
    for words in [*(pair["value"] for pair in pairs), *filter(None, [made.get("summary")])]:
        for values in words.values():
            yield from values


def tiles(root: Path, pictures: dict[str, tuple[int, int]], uri: str, *, jpeg: bytes = b"jpeg") -> Made:
    """Return a step that has made static tiles: info.json and smallest sizes on disk, the rest only told of.

    Args:
        pictures: {path of the source: its width and height}.
        uri: what the ids of the images begin with.
    """
    from urllib.parse import quote

    outputs: list[Output] = []
    for source, (width, height) in pictures.items():
        folder = source.rpartition(".")[0] + ".iiif"
        path = root / folder
        said = info(width, height, 512, f"{uri}/{quote(folder, errors='surrogateescape')}")
        path.mkdir(parents=True)
        (path / "info.json").write_text(json.dumps(said))
        digest, size = sha256_file(path / "info.json")
        raw, origin = folder.encode("utf-8", "surrogateescape"), source.encode("utf-8", "surrogateescape")
        detail = {"width": width, "height": height, "tiles": 1}
        outputs.append(
            Output(path=raw + b"/info.json", size=size, sha256=digest, source=origin, detail=detail)
        )
        for name, _ in promised(width, height, 512):
            if name.startswith("full/") and not name.startswith("full/max"):
                (path / name).parent.mkdir(parents=True)
                (path / name).write_bytes(jpeg)
            outputs.append(Output(path=raw + b"/" + name.encode(), size=4, sha256="0" * 64, source=origin))
    return Made(
        name="tiles",
        worker="convert",
        source="",
        root=root,
        outputs=lambda: iter(outputs),
        locations=lambda: iter(()),
    )
