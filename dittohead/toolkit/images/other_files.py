"""The files of a folder that are not converted: which they are, and which of them are images all the same."""

from __future__ import annotations

import os
from pathlib import Path

from dittohead.model.errors import ItemError
from dittohead.model.text import counted, display
from dittohead.system import files
from dittohead.toolkit.images import kinds
from dittohead.toolkit.images.names import is_junk

#: Files that stand beside images: texts, whatever their first letters are.
_BESIDE = frozenset(
    b".txt .text .md .md5 .sha1 .sha256 .sha512 .sfv .xml .xmp .json .csv .tsv .yaml .yml .log .html".split()
)

#: Files that are named; the rest is counted.
_NAMED = 5


class Leftover:
    """What is left of a folder: counted, a few named, the images among them by their kind."""

    def __init__(self) -> None:
        self.count = self.images = 0
        self._names: list[str] = []  #: the images among them first
        self._plain: list[str] = []

    def add(self, path: bytes, kind: str) -> None:
        """Take down a file that is left, and which kind of image it is, if it is one."""
        self.count += 1
        self.images += bool(kind)
        names, name = (self._names, f"{display(path)} ({kind})") if kind else (self._plain, display(path))
        if len(names) < _NAMED:
            names.append(name)

    def __str__(self) -> str:
        images = f" ({self.images} of them images)" if self.images else ""
        return f"{counted(self.count, 'other file')} left{images}: {self.named}" if self.count else ""

    @property
    def named(self) -> str:
        """A few of their names, the images among them first, and how many more there are."""
        names = (self._names + self._plain)[:_NAMED]
        more = f" and {self.count - len(names):,} more" if self.count > len(names) else ""
        return f"{', '.join(names)}{more}"


def kind_of(root: Path, path: bytes) -> str:
    """Return which kind of image a file is by its content, "" for none and for what cannot be opened."""
    if is_junk(path) or os.path.splitext(path)[1].lower() in _BESIDE:
        return ""
    try:
        with files.opened_beneath(root, path) as fd:
            return kinds.kind_of(os.pread(fd, kinds.HEAD, 0))
    except (OSError, ItemError):
        return ""  # those who read it all say why
