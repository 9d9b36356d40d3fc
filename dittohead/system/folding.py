"""Names that some file systems treat as one: by case, by how accents are written, by last dots."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain

from dittohead.model.records import Entry

#: What FAT and SMB leave away at the end of a name.
_ENDS = re.compile(r"[. ]+(?=/|$)")


def key(path: bytes) -> str:
    """Return what is the same for names that any file system treats as one."""
    return _ENDS.sub("", caseless(path.decode("utf-8", "surrogateescape")))


def caseless(text: str) -> str:
    """Return what is the same for texts that differ by case, or by how accents are written, alone.

    Source: Unicode 15.0, 3.13, D145 (canonical caseless match).
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())


class Alike:
    """Finds such names in a list of files: a first pass keeps hashes alone, a second is rarely needed."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._folders: set[bytes] = {b""}
        self._twice: set[str] = set()

    def add(self, entry: Entry) -> None:
        """Note a file or an empty folder, and the folders that it lies in."""
        for path in chain([entry.path], self._new(os.path.dirname(entry.path))):
            name = key(path)
            if hash(name) in self._seen:
                self._twice.add(name)
            self._seen.add(hash(name))

    def _new(self, folder: bytes) -> Iterator[bytes]:
        while folder not in self._folders:
            self._folders.add(folder)
            yield folder
            folder = os.path.dirname(folder)

    def groups(self, entries: Iterable[Entry]) -> list[list[bytes]]:
        """Return the names that may be one, outermost alone: of two such folders not what is in them."""
        self._seen, self._folders = set(), {b""}
        found: dict[str, list[bytes]] = {}
        for entry in entries if self._twice else ():
            for path in chain([entry.path], self._new(os.path.dirname(entry.path))):
                if key(path) in self._twice:
                    found.setdefault(key(path), []).append(path)
        several = {name: paths for name, paths in found.items() if len(paths) > 1}
        return [paths for name, paths in several.items() if os.path.dirname(name) not in several]
