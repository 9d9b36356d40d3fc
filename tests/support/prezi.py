"""What others say of a IIIF Presentation 3 manifest: the community's schema and its model.

- `iiif-prezi3`, the model: classes made of the published schema. They look at types, languages, motivations,
  and drop in silence what they do not know, so that what they write back must be what they have read.
- The published schema itself, `schema/iiif_3_0.json` of the public repository IIIF/presentation-validator. It
  is in no package and its repository names no licence, so that it is not kept here: where it lies in
  `../shared/data`, it is asked, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import iiif_prezi3
import jsonschema
from pydantic import AnyUrl, ValidationError

#: The published schema, where somebody has put it.
PUBLISHED = Path(__file__).parents[3] / "shared/data/iiif_3_0.json"

#: A language with digits in it, such as es-419. BCP 47 has these (2.2.4), the schema and so the model have not.
_DIGITS = re.compile(r"(?<=[A-Za-z0-9-])[0-9]")

_KINDS = {"Manifest": iiif_prezi3.Manifest, "Collection": iiif_prezi3.Collection}


def by_model(made: dict[str, Any]) -> Iterator[str]:
    """Yield what the model finds wrong, as lines of where and what."""
    given = _without_digits(made)
    if made.get("type") not in _KINDS:
        yield f"iiif-prezi3: type: {made.get('type')!r} is neither a Manifest nor a Collection"
        return
    try:
        read = _KINDS[made["type"]].model_validate_json(json.dumps(given))
    except ValidationError as error:
        for each in error.errors(include_url=False, include_context=False, include_input=False):
            yield f"iiif-prezi3: {_place(each['loc'])}: {each['msg']}"
        return
    written = json.loads(read.model_dump_json(by_alias=True, exclude_none=True))
    # Of a collection's context the model knows nothing.
    dropped = {key: value for key, value in given.items() if key != "@context" or key in written}
    yield from (f"iiif-prezi3: {line}" for line in _differing(dropped, written))


def by_published_schema(made: dict[str, Any]) -> Iterator[str]:
    """Yield likewise what the published schema finds; nothing where it is not there."""
    checker = _published(made["type"].lower())
    if checker is not None:
        yield from (f"published schema: {line}" for line in lines(checker.iter_errors(_without_digits(made))))


def lines(errors: Iterable[jsonschema.ValidationError]) -> Iterator[str]:
    """Yield errors of a JSON schema as lines; of alternatives the fault of the one that fits best."""
    for error in errors:
        best = jsonschema.exceptions.best_match([error])
        named = best.validator == "pattern" and isinstance(best.schema, dict) and best.schema.get("title")
        what = f"{best.instance!r} is not a {named}" if named else best.message
        yield f"{_place(best.absolute_path)}: {what[:300]}"


@cache
def _published(kind: str) -> jsonschema.Draft7Validator | None:
    if not PUBLISHED.exists():
        return None
    schema = json.loads(PUBLISHED.read_text())
    if kind in schema["classes"]:  # what else it could be is of no interest
        del schema["oneOf"]
        schema["allOf"] = [{"$ref": f"#/classes/{kind}"}]
    return jsonschema.Draft7Validator(schema)


def _place(path: Iterable[str | int]) -> str:
    return "/".join(map(str, path)) or "the whole"


def _without_digits(value: Any) -> Any:
    """Return a manifest of which the languages have letters alone."""
    if isinstance(value, list):
        return [_without_digits(item) for item in value]
    if not isinstance(value, dict):
        return value
    are_words = value and all(
        isinstance(item, list) and item and isinstance(item[0], str) for item in value.values()
    )
    return {_DIGITS.sub("x", key) if are_words else key: _without_digits(item) for key, item in value.items()}


def _normal(value: Any) -> Any:
    """Return an address as browsers write it: with a small host, without dots for folders; what is none stays."""
    try:
        return str(AnyUrl(value))
    except (ValidationError, TypeError):
        return value


def _differing(given: Any, read: Any, place: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Yield where what was read is not what was given."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key in given.keys() | read.keys():
            yield from _differing(given.get(key), read.get(key), (*place, key))
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for number, (one, other) in enumerate(zip(given, read, strict=True)):
            yield from _differing(one, other, (*place, number))
    elif given is None and read == [] and place[-1] == "items":
        return  # the model adds these to a canvas that a range names
    elif given != read and _normal(given) != read:
        yield f"{_place(place)}: given {given!r}, understood as {read!r}"
