"""Placeholders in options: `{name} {id} {date}`, `{payload} {source} {work}`, and the groups of the match."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from dittohead.model.errors import ItemError

#: What every step may use besides the named groups of its pipeline's `match`.
BUILT_IN = frozenset({"name", "id", "date", "payload", "work", "source"})

#: What an option that is a template for each file may use besides; its worker fills them in.
FILE = frozenset({"path", "folder", "file", "stem", "ext", "sha256", "size"})

#: What some workers put into theirs besides; see `Worker.file_values`.
FILE_MORE = frozenset({"object-id"})

_Text = TypeVar("_Text", str, bytes)

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|\{|\}")


def problems(text: str, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield (what is wrong, the unknown name or "") for each placeholder that cannot be filled in."""
    for match in _TOKEN.finditer(text):
        if match[0] in ("{{", "}}"):
            continue
        if match[1] is None:
            yield f'a single "{match[0]}"; write "{match[0] * 2}" for the character itself', ""
        elif match[1] not in known:
            yield f"there is no placeholder {{{match[1]}}}", match[1]


def named(text: str) -> list[str]:
    """Return the names of a text's placeholders, in order."""
    return [match[1] for match in _TOKEN.finditer(text) if match[1] is not None]


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return a file's template with its placeholders filled in, whatever they hold, even nothing."""
    return _TOKEN.sub(
        lambda match: match[0][0] if match[0] in ("{{", "}}") else values.get(match[1] or "", ""), text
    )


def path_values(path: _Text) -> dict[str, _Text]:
    """Return what the placeholders for a file's path stand for; "ext" is without its dot."""
    folder, file = os.path.split(path)
    stem, ext = os.path.splitext(file)
    return {"path": path, "folder": folder, "file": file, "stem": stem, "ext": ext[1:]}


class Fillable(Protocol):
    """What must be known of a worker to fill in its options."""

    @property
    def Options(self) -> Any:
        """The model of its options, whose defaults may hold placeholders as well."""

    @property
    def per_file(self) -> frozenset[str]:
        """Options that are templates for each file."""

    @property
    def uris(self) -> frozenset[str]:
        """Options that are URIs; those inside another as "see_also.id"."""


def render_options(options: Mapping[str, Any], values: Mapping[str, str], worker: Fillable) -> dict[str, Any]:
    """Return a step's options with their placeholders filled in.

    In an option of `worker.uris` each value is percent-encoded as it is put in: a folder may be called
    `Box 1 #3`. In one of `worker.per_file` what stands for a file is left, and braces in values are
    doubled, so that no name is mistaken for a placeholder later.

    Args:
        options: as config.yaml has them.
        values: what each placeholder stands for, by name without braces.
        worker: says which options are URIs, and which are templates for each file.

    Raises: ItemError: a placeholder has no value, or a value cannot stand there.
    """
    filled = {}
    for key, value in {**_defaults(worker), **options}.items():
        known = _Encoded(values) if key in worker.uris else values
        inner = {uri.partition(".")[2] for uri in worker.uris if uri.startswith(f"{key}.")}
        if key in worker.per_file:
            filled[key] = render(_double(value), _ForLater(known))
        elif inner:
            filled[key] = _render_parts(value, values, inner)
        else:
            filled[key] = render(value, known)
    return filled


def _defaults(worker: Fillable) -> dict[str, str]:
    """Return the defaults that hold placeholders of the folder's; templates for each file stay defaults."""
    return {
        key: field.default
        for key, field in worker.Options.model_fields.items()
        if isinstance(field.default, str) and named(field.default) and key not in worker.per_file
    }


class _Encoded(dict[str, str]):
    """Values as parts of a URI's path, percent-encoded when they are taken; slashes stay.

    Source: RFC 3986 sections 2.1 and 3.3.
    """

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__()
        self._values = values

    def get(self, key: str, default: Any = "") -> str:
        return quote(self._values.get(key, ""), errors="surrogateescape")


def _render_parts(value: Any, values: Mapping[str, str], uris: set[str]) -> Any:
    """Fill in an option that is a table, or a list of them, of which some entries are URIs."""
    if isinstance(value, list):
        return [_render_parts(item, values, uris) for item in value]
    if not isinstance(value, dict):
        return render(value, values)
    return {key: render(item, _Encoded(values) if key in uris else values) for key, item in value.items()}


class _ForLater(dict[str, str]):
    """Values for a template that is filled in once more, for each file."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__()
        self._values = values

    def get(self, key: str, default: Any = "") -> str:
        if key in FILE or key in FILE_MORE:
            return f"{{{key}}}"
        return self._values.get(key, "").replace("{", "{{").replace("}", "}}")


def _double(value: Any) -> Any:
    """Double the doubled braces of a template that is filled in twice."""
    if isinstance(value, str):
        return value.replace("{{", "{{{{").replace("}}", "}}}}")
    if isinstance(value, dict):
        return {key: _double(item) for key, item in value.items()}
    return value


def render(value: Any, values: Mapping[str, str]) -> Any:
    """Return the value with the placeholders of every text in it filled in; lists and maps too.

    A name chosen by an uploader must not become a path or an option of its own making: a value
    that is empty, "." or "..", a ".." that arises in a path, and a leading dash that was not in
    the configuration are refused.

    Raises: ItemError.
    """
    if isinstance(value, str):
        return _render_text(value, values)
    if isinstance(value, list):
        return [render(item, values) for item in value]
    if isinstance(value, dict):
        return {key: render(item, values) for key, item in value.items()}
    return value


def _render_text(text: str, values: Mapping[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        name = match[1]
        value = values.get(name, "")
        if value in ("", ".", ".."):
            raise _unusable(f"{{{name}}} is {value!r} here, which names no folder", text)
        return value

    filled = _TOKEN.sub(fill, text)
    if filled == text:
        return text
    if ".." in filled.split("/") and ".." not in text.split("/"):
        raise _unusable('".." arises in it', text)
    if filled.startswith("-") and not text.startswith("-"):
        raise _unusable("it would begin with a dash and be read as an option", text)
    return filled


def _unusable(why: str, text: str) -> ItemError:
    return ItemError(
        f'"{text}" cannot be filled in for this folder: {why}',
        hint="Rename the folder so that it fits the pipeline's match, then move it to the inbox again",
    )
