"""The file in a folder that says what is to be done with it: `dittohead.yaml`, written by the uploader."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dittohead.model.errors import ItemError
from dittohead.system import files

#: At the top of the folder; no step is given it.
NAME = "dittohead.yaml"

#: It holds a few words. What an uploader wrote is not read whole into memory.
_MOST = 4096
_DEEPEST = 8

_HINT = "Write: purpose: access; then move the folder to the inbox again"


#: What people call it by mistake.
_NEARLY = ("dittohead.yml", "Dittohead.yaml", "dittohead.yaml.txt", "dittohead.txt", ".dittohead.yaml")


def purposes(folder: Path) -> frozenset[str]:
    """Return what the folder's side-car asks for; empty when there is none. Blocking, but short.

    Raises: ItemError: it cannot be understood.
    """
    try:
        with files.opened_beneath(bytes(folder), NAME.encode()) as fd, open(fd, "rb", closefd=False) as file:
            text = file.read(_MOST + 1)
    except FileNotFoundError:
        for name in _NEARLY:  # what was to stay private would be published
            if os.path.lexists(folder / name):
                raise _wrong(f"the folder has a file {name}, which is not read") from None
        return frozenset()
    except OSError as error:
        raise _wrong(f"it cannot be read ({error.strerror})") from error
    if len(text) > _MOST:
        raise _wrong("it is longer than 4 KiB")
    try:
        found = yaml.load(text, Loader=_Plain)  # noqa: S506  # makes words, lists and mappings only
    except (yaml.YAMLError, ValueError) as error:
        raise _wrong("it is not valid YAML") from error
    if not isinstance(found, dict) or set(found) != {"purpose"}:
        raise _wrong("one key is required, purpose")
    named = found["purpose"]
    words = [named] if isinstance(named, str) else named
    if not isinstance(words, list) or not words or not all(_is_word(w) for w in words):
        raise _wrong("purpose is a word or a list of words")
    return frozenset(words)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and bool(value)


def text(words: Sequence[str]) -> bytes:
    """Return a side-car that asks for something."""
    return yaml.safe_dump({"purpose": list(words)}).encode()


class _Plain(yaml.BaseLoader):
    """Reads words, lists and mappings alone.

    Refuses aliases (a few lines of them stand for more than memory holds), tags (PyYAML itself
    stumbles over `!!timestamp x`), and what is nested deeper than Python's stack holds.
    """

    _depth = 0

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep=deep)
        if len(found) != len(node.value):
            raise yaml.YAMLError("a key stands there twice")
        return found

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not wanted")
        event = self.peek_event()  # type: ignore[no-untyped-call]  # the parser's part has no types
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError("tags are not wanted")
        if self._depth > _DEEPEST:
            raise yaml.YAMLError("it is nested too deep")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _wrong(what: str) -> ItemError:
    return ItemError(what, where=NAME, hint=_HINT)
