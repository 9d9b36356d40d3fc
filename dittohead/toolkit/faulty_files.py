"""Files at fault, collected so that one does not keep the others: all are counted, a few are named."""

from __future__ import annotations

from collections import Counter

from dittohead.contract.worker import Inputs
from dittohead.model.errors import ItemError
from dittohead.model.text import display

#: Reasons that are given, and files that are named for each; the rest is counted.
_REASONS, _NAMED = 5, 5


class FaultyFiles:
    """What is wrong with some of many files; a reason that several share is given once."""

    def __init__(self) -> None:
        self.count = 0
        self.kinds: Counter[str] = Counter()  #: how many are at fault in which way
        self._names: dict[str, list[str]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, path: bytes, what: str, kind: str = "") -> None:
        """Take down what is wrong with a file.

        Args:
            kind: the way in which it is at fault, for those who say what to do about it.
        """
        self.count += 1
        self.kinds[kind] += 1
        if what not in self._names and len(self._names) >= _REASONS:
            return
        names = self._names.setdefault(what, [])
        self._counts[what] += 1
        if len(names) < _NAMED:
            names.append(display(path))

    @property
    def named(self) -> list[str]:
        """The files that are named, in the order of the reasons."""
        return [name for names in self._names.values() for name in names]

    def __str__(self) -> str:
        parts = []
        for what, names in self._names.items():
            more = self._counts[what] - len(names)
            parts.append(f"{', '.join(names)}{f' and {more:,} more' if more else ''}: {what}")
        left = self.count - self._counts.total()
        return "; ".join(parts) + (f"; and {left:,} more" if left else "")


def blamed(error: ItemError, source: Inputs, path: bytes) -> ItemError:
    """Return an error that names the file of the folder that is at fault: another may take its place.

    Args:
        error: what the step fails of.
        source: what the step takes; files that another step made are not the folder's.
        path: of the file, within that.
    """
    if source.made is None:
        error.files = [display(path)]
    return error
