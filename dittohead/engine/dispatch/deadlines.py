"""Items to skip until a set time, each looked at again when its time has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

K = TypeVar("K")


class Deadlines(Generic[K]):
    """Keys that are left alone, each until a moment of the clock that only goes on.

    One whose moment has come is *due*, and stays so until somebody has acted on it and drops it: an
    error in between, or a look at the wrong moment, loses nothing. Who sleeps asks `next_in`.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._until: dict[K, float] = {}

    def put(self, key: K, seconds: float) -> None:
        """Leave a key alone for this long from now."""
        self._until[key] = self._now() + seconds

    def holds(self, key: K) -> bool:
        """Tell whether a key is still to be left alone."""
        return key in self._until and self._until[key] > self._now()

    def held(self) -> set[K]:
        """Return the keys that are still to be left alone."""
        now = self._now()
        return {key for key, until in self._until.items() if until > now}

    def due(self) -> set[K]:
        """Return the keys whose moment has come, and that nobody has dropped since."""
        now = self._now()
        return {key for key, until in self._until.items() if until <= now}

    def drop(self, keys: Collection[K]) -> None:
        """Forget keys: they were acted upon."""
        for key in keys:
            self._until.pop(key, None)

    def next_in(self) -> float | None:
        """Return the seconds until the next key is due, 0.0 when one is; None without any."""
        if not self._until:
            return None
        return max(min(self._until.values()) - self._now(), 0.0)
