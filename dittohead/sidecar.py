"""The file in a folder that says what is to be done with it: `dittohead.yaml`, written by whoever uploads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dittohead import files
from dittohead.errors import ItemError

#: At the top of the folder; no step is given it.
NAME = "dittohead.yaml"

#: It holds a few words. What an uploader wrote is not read whole into memory.
_MOST = 4096

_HINT = "Write: purpose: access; then move the folder to the inbox again"


def purposes(folder: Path) -> frozenset[str]:
    """Return what the folder's side-car asks for; empty when there is none. Blocking, but short.

    Raises: ItemError: it cannot be understood.
    """
    try:
        with files.opened_beneath(bytes(folder), NAME.encode()) as fd, open(fd, "rb", closefd=False) as file:
            text = file.read(_MOST + 1)
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise _wrong(f"it cannot be read ({error.strerror})") from error
    if len(text) > _MOST:
        raise _wrong("it is longer than 4 KiB")
    try:
        found = yaml.load(text, Loader=_Plain)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise _wrong("it is no valid YAML") from error
    if not isinstance(found, dict) or set(found) != {"purpose"}:
        raise _wrong("one key is wanted, purpose")
    named = found["purpose"]
    words = [named] if isinstance(named, str) else named
    if not isinstance(words, list) or not words or not all(isinstance(w, str) and w for w in words):
        raise _wrong("purpose is a word or a list of words")
    return frozenset(words)


def text(words: Sequence[str]) -> bytes:
    """Return a side-car that asks for something."""
    return yaml.safe_dump({"purpose": list(words)}).encode()


class _Plain(yaml.SafeLoader):
    """Refuses aliases: a few lines of them stand for more than memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not wanted")
        return super().compose_node(parent, index)


def _wrong(what: str) -> ItemError:
    return ItemError(what, where=NAME, hint=_HINT)
