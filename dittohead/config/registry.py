"""Find workers and sources by their entry-point groups; broken and doubled ones are named."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from dittohead.contract.source import Source
from dittohead.contract.worker import Worker
from dittohead.model.errors import ConfigError

GROUP = "dittohead.workers"
SOURCES = "dittohead.sources"

T = TypeVar("T", Worker[Any], Source[Any])


class Offered(Generic[T]):
    """What packages offer of one kind, by name."""

    kind: type[T]
    word: str  #: what one of them is called

    def __init__(self, found: Iterable[EntryPoint]) -> None:
        self._points: dict[str, EntryPoint] = {}
        self._loaded: dict[str, T] = {}
        for point in found:
            other = self._points.setdefault(point.name, point)
            if other.value != point.value:
                raise ConfigError(
                    f'two packages offer a {self.word} "{point.name}": {other.value} and {point.value}',
                    hint="Uninstall one of them",
                )

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._points)

    def get(self, name: str) -> T:
        """Return one by its name; it is imported at its first use.

        Raises: KeyError: there is none; ConfigError: it cannot be imported or is of another kind.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(self._points[name])
        return self._loaded[name]

    def _load(self, point: EntryPoint) -> T:
        try:
            found = point.load()()
        except Exception as error:  # whatever a site's package raises at import
            raise ConfigError(
                f'the {self.word} "{point.name}" cannot be loaded: {type(error).__name__}: {error}',
                where=point.value,
            ) from error
        if not isinstance(found, self.kind):
            raise ConfigError(f'"{point.name}" is not a dittohead.{self.kind.__name__}', where=point.value)
        return found

    def add(self, made: T) -> None:
        """Add one that no package offers; for tests and embedding."""
        self._loaded[made.name] = made
        self._points[made.name] = EntryPoint(made.name, type(made).__module__, GROUP)


class Registry(Offered[Worker[Any]]):
    """The workers there are, by name."""

    kind, word = Worker, "worker"


class Sources(Offered[Source[Any]]):
    """The sources there are, by name."""

    kind, word = Source, "source"


@cache
def default() -> Registry:
    """Return the workers of all installed packages."""
    return Registry(entry_points(group=GROUP))


@cache
def sources() -> Sources:
    """Return the sources of all installed packages."""
    return Sources(entry_points(group=SOURCES))
