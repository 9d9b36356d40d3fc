"""Find workers by the entry-point group `dittohead.workers`; broken and doubled ones are named."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from dittohead.errors import ConfigError
from dittohead.worker import Worker

GROUP = "dittohead.workers"


class Registry:
    """The workers there are, by name."""

    def __init__(self, found: Iterable[EntryPoint]) -> None:
        self._points: dict[str, EntryPoint] = {}
        self._workers: dict[str, Worker[Any]] = {}
        for point in found:
            other = self._points.setdefault(point.name, point)
            if other.value != point.value:
                raise ConfigError(
                    f'two packages offer a worker "{point.name}": {other.value} and {point.value}',
                    hint="Uninstall one of them",
                )

    def names(self) -> list[str]:
        """Return the names of all workers, sorted."""
        return sorted(self._points)

    def get(self, name: str) -> Worker[Any]:
        """Return a worker; it is imported at its first use.

        Raises: KeyError: there is none; ConfigError: it cannot be imported or is no Worker.
        """
        if name not in self._workers:
            self._workers[name] = self._load(self._points[name])
        return self._workers[name]

    def _load(self, point: EntryPoint) -> Worker[Any]:
        try:
            found = point.load()()
        except Exception as error:  # whatever a site's package raises at import
            raise ConfigError(
                f'the worker "{point.name}" cannot be loaded: {type(error).__name__}: {error}',
                where=point.value,
            ) from error
        if not isinstance(found, Worker):
            raise ConfigError(f'"{point.name}" is not a dittohead.Worker', where=point.value)
        return found

    def add(self, worker: Worker[Any]) -> None:
        """Add a worker that no package offers; for tests and embedding."""
        self._workers[worker.name] = worker
        self._points[worker.name] = EntryPoint(worker.name, type(worker).__module__, GROUP)


@cache
def default() -> Registry:
    """Return the workers of all installed packages."""
    return Registry(entry_points(group=GROUP))
