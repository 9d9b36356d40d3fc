"""The file systems under the root: most often one; work/, receipts/ or state/ may lie on others."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dittohead.folders.stations import Stations
from dittohead.model.states import Station
from dittohead.system import disk_space, machine_faults

#: Of a file system other than the root's at most this part stays free: it may be much smaller.
_PART = 0.1


@dataclass(frozen=True, kw_only=True)
class Disk:
    """One file system under the root."""

    place: Path  #: the highest directory of ours on it
    takes_folders: bool  #: the stations lie on it
    takes_work: bool  #: what steps make lies on it
    floor: int  #: bytes that are to stay free

    @property
    def name(self) -> str:
        """The name by which it is paused, and reported as full."""
        return disk_of(self.place)

    @property
    def capacity(self) -> int:
        """Bytes that could be free at best. Raises: OSError."""
        return disk_space.capacity(self.place)

    @property
    def free(self) -> int:
        """Bytes that may still be written. Raises: OSError."""
        return disk_space.free(self.place)

    def lacking(self, needed: int, factor: float = 1.0) -> int:
        """Return by how many bytes it is too full; 0 or less where it is not. Raises: OSError.

        Args:
            needed: bytes that are to come.
            factor: so many times its floor is to stay free.
        """
        return disk_space.lacking(self.place, needed, self.floor * factor)


class Disks:
    """Finds them each time: a file system may be mounted or unmounted while the daemon runs.

    Args:
        stations: of the root.
        floor: returns the bytes that are to stay free, by the configuration in force.
    """

    def __init__(self, stations: Stations, floor: Callable[[], int]) -> None:
        self._stations, self._floor = stations, floor
        #: by which our own file systems are paused, whether they are apart or not
        self.names = frozenset(map(disk_of, [*self._places(), *map(stations.path, Station)]))

    def _places(self) -> list[Path]:
        stations = self._stations
        inbox, processing = stations.path(Station.INBOX), stations.path(Station.PROCESSING)
        return [stations.root, inbox, processing, stations.work, stations.receipts, stations.state]

    def all(self) -> list[Disk]:
        """Return them, the root's first; without directories that are missing. Raises: OSError."""
        found: dict[int, list[Path]] = {}
        for place in self._places():
            try:
                found.setdefault(_device(place), []).append(place)
            except FileNotFoundError:
                if place == self._stations.root:
                    raise
        return [self._disk(held) for held in found.values()]

    def _disk(self, held: list[Path]) -> Disk:
        stations, floor = self._stations, self._floor()
        is_root = held[0] == stations.root
        return Disk(
            place=held[0],
            takes_folders=stations.path(Station.PROCESSING) in held,
            takes_work=stations.work in held,
            floor=floor if is_root else min(floor, int(disk_space.capacity(held[0]) * _PART)),
        )

    def of_error(self, error: OSError) -> str:
        """Return the name of the file system that an error of a step is about. Blocking.

        An error may name no file under the root. If it is a lack of space, it is about the one with the
        least space. Otherwise it is about the one that steps write to.
        """
        try:
            disks = self.all()
        except OSError:  # the root itself is away
            return disk_of(self._stations.root)
        named = [disk for disk in disks if error.filename and _is_below(error.filename, disk.place)]
        if named:
            return max(named, key=lambda disk: len(disk.place.parts)).name
        if error.errno in machine_faults.FULL:
            return min(disks, key=lambda disk: disk.free).name
        return next((disk for disk in disks if disk.takes_work), disks[0]).name


def disk_of(place: Path) -> str:
    """Return the name by which a file system of ours is paused, and reported as full."""
    return f"disk of {place}"


def _device(place: Path) -> int:
    return os.stat(place).st_dev


def _is_below(path: str | bytes | int, place: Path) -> bool:
    return not isinstance(path, int) and Path(os.fsdecode(path)).is_relative_to(place)
