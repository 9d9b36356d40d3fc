"""Room on the root's disk that is promised to those that are still going to write there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from dittohead.system import disk_space


class DiskBudget:
    """Who may still write how much under the root. Kept in memory: after a start nothing is promised.

    Args:
        root: lies on the disk.
        floor: returns the bytes that are to stay free, by the configuration in force.
    """

    def __init__(self, root: Path, floor: Callable[[], int]) -> None:
        self._root, self._floor = root, floor
        self._promised: dict[str, int] = {}

    @property
    def promised(self) -> int:
        """Bytes that are promised, and not written yet."""
        return sum(self._promised.values())

    @property
    def is_promised(self) -> bool:
        """Whether anybody may give room back by ending."""
        return bool(self._promised)

    def promised_to(self, names: Collection[str]) -> int:
        """Return the bytes that are promised to some, and not written yet."""
        return sum(self._promised.get(name, 0) for name in names)

    def reserve(self, who: str, needed: int) -> None:
        """Promise somebody so many bytes, in place of what was promised before."""
        self._promised[who] = needed

    def written(self, who: str, size: int) -> None:
        """Promise so much less: it lies on the disk. No matter for whom nothing is promised."""
        if who in self._promised:
            self._promised[who] = max(0, self._promised[who] - size)

    def share(self, whole: str, parts: Sequence[str], left: int) -> None:
        """Give some parts of a whole their share of what is promised to it; the rest stays the whole's own.

        Args:
            left: how many have no part yet, these among them.
        """
        if part := self._promised.get(whole, 0) // left:
            self._promised[whole] -= part * len(parts)
            self._promised.update(dict.fromkeys(parts, part))

    def release(self, who: str) -> None:
        """Forget what is promised to somebody who has ended; twice does no harm."""
        self._promised.pop(who, None)

    def lacking(self, needed: int) -> int:
        """Return by how many bytes the disk is too full for so much beside what is promised; see `space`."""
        return disk_space.lacking(self._root, needed + self.promised, self._floor())

    @property
    def is_full(self) -> bool:
        """Whether the floor itself is not free, whatever is promised."""
        return disk_space.lacking(self._root, 0, self._floor()) > 0

    @property
    def capacity(self) -> int:
        """Bytes that could be free at best."""
        return disk_space.capacity(self._root)
