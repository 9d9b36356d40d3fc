"""Paths as JSON holds them: a name that is not UTF-8 is kept byte for byte, percent-encoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict
from urllib.parse import quote_from_bytes, unquote_to_bytes

from dittohead.model.text import is_utf8


class PathFields(TypedDict):
    """A path as it is written in JSON."""

    path: str
    encoding: NotRequired[str]  #: "percent", where it is not UTF-8


def path_fields(path: bytes) -> PathFields:
    """Return how a path is written in JSON: as text, or percent-encoded and flagged."""
    if is_utf8(path):
        return {"path": path.decode()}
    return {"path": quote_from_bytes(path, safe="/"), "encoding": "percent"}


def path_bytes(fields: Mapping[str, Any]) -> bytes:
    """Return the path that `path_fields` wrote."""
    text: str = fields["path"]
    return unquote_to_bytes(text) if fields.get("encoding") == "percent" else text.encode()
