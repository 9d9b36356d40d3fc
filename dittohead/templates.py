"""Placeholders in options: `{name}`, `{id}`, `{date}`, `{payload}`, `{work}` and the match's groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dittohead.errors import ItemError

#: What every step may use besides the named groups of its pipeline's `match`.
BUILT_IN = frozenset({"name", "id", "date", "payload", "work"})

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
        raise _unusable("it would begin with a dash and be taken for an option", text)
    return filled


def _unusable(why: str, text: str) -> ItemError:
    return ItemError(
        f'"{text}" cannot be filled in for this folder: {why}',
        hint="Rename the folder so that it fits the pipeline's match, then move it to the inbox again",
    )
