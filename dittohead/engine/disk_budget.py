"""Disk space under the root that is promised to jobs and sources which are still going to use it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dittohead.engine.disks import Disk, Disks


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes that somebody is still going to write."""

    folder: int = 0  #: where the stations are
    work: int = 0  #: in work/

    def on(self, disk: Disk) -> int:
        """Return how many of them lie on one file system."""
        return self.folder * disk.takes_folders + self.work * disk.takes_work

    def without(self, other: Need) -> Need:
        """Return what is left; of nothing less than nothing."""
        return Need(folder=max(0, self.folder - other.folder), work=max(0, self.work - other.work))

    def part(self, of: int) -> Need:
        """Return an equal share, rounded down, of so many."""
        return Need(folder=self.folder // of, work=self.work // of)

    def times(self, count: int) -> Need:
        """Return so many times as much."""
        return Need(folder=self.folder * count, work=self.work * count)


@dataclass(frozen=True, kw_only=True)
class Lack:
    """A file system has too little free space."""

    disk: Disk
    size: int  #: bytes that are missing
    capacity: int  #: bytes that could be free at best


class DiskBudget:
    """Who may still write how much under the root. Kept in memory: after a start nothing is promised."""

    def __init__(self, disks: Disks) -> None:
        self._disks = disks
        self._promised: dict[str, Need] = {}

    @property
    def promised(self) -> Need:
        """Bytes that are promised, and not written yet."""
        return Need(
            folder=sum(need.folder for need in self._promised.values()),
            work=sum(need.work for need in self._promised.values()),
        )

    @property
    def is_promised(self) -> bool:
        """Whether anybody may give space back by ending."""
        return bool(self._promised)

    def promised_to(self, names: Collection[str]) -> int:
        """Return the bytes that are promised to some, and not written yet."""
        needs = [self._promised[name] for name in names if name in self._promised]
        return sum(need.folder + need.work for need in needs)

    def reserve(self, who: str, need: Need) -> None:
        """Promise somebody so much, in place of what was promised before."""
        self._promised[who] = need

    def written(self, who: str, size: int) -> None:
        """Promise so many bytes less: they lie in a station. No matter for whom nothing is promised."""
        if who in self._promised:
            self._promised[who] = self._promised[who].without(Need(folder=size))

    def share(self, whole: str, parts: Sequence[str], left: int) -> None:
        """Give some parts of a whole their share of what is promised to it; the rest stays the whole's own.

        Args:
            whole: to whom it is promised.
            parts: who gets a share, each the same.
            left: how many have no part yet, these among them.
        """
        part = self._promised.get(whole, Need()).part(left)
        if part != Need():
            self._promised[whole] = self._promised[whole].without(part.times(len(parts)))
            self._promised.update(dict.fromkeys(parts, part))

    def release(self, who: str) -> None:
        """Forget what is promised to somebody who has ended; twice does no harm."""
        self._promised.pop(who, None)

    def lacking(self, need: Need) -> Lack | None:
        """Return which file system is too full for so much beside what is promised, None for none.

        Of several the one that lacks most. Raises: OSError.
        """
        worst, promised = None, self.promised
        for disk in self._disks.all():
            size = disk.lacking(need.on(disk) + promised.on(disk))
            if size > 0 and (worst is None or size > worst.size):
                worst = Lack(disk=disk, size=size, capacity=disk.capacity)
        return worst

    @property
    def is_full(self) -> bool:
        """Whether a floor itself is not free, whatever is promised. Raises: OSError."""
        return any(disk.lacking(0) > 0 for disk in self._disks.all())
