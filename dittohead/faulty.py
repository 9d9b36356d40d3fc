"""Files at fault, collected so that one does not keep the others: all are counted, a few are named."""

from __future__ import annotations

from dittohead.model import display

#: Named in a reason; the rest is counted.
_NAMED = 5


class Faulty:
    """What is wrong with some of many files."""

    def __init__(self) -> None:
        self.count = 0
        self._reasons: list[str] = []

    def add(self, path: bytes, what: str) -> None:
        """Take down what is wrong with a file."""
        self.count += 1
        if self.count <= _NAMED:
            self._reasons.append(f"{display(path)}: {what}")

    def __str__(self) -> str:
        more = f"; and {self.count - _NAMED} more" if self.count > _NAMED else ""
        return "; ".join(self._reasons) + more
