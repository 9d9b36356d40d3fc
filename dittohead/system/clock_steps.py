"""The system's clock being set back, which would put off everything that is due by it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

#: Smaller steps are the ordinary work of NTP.
_LEAST_S = 5.0


class Clock:
    """Compares the clock people see with the one that only goes on."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def begin(self, state: Path) -> None:
        """Count what it was set back by since an earlier daemon last wrote to state/. Blocking, but short.

        While none runs nobody sees it happen: on a machine that had started with a wrong clock, say.
        """
        now = time.time()
        newest = max((moment for _, moment in _later(state, now)), default=now)
        self._offset = newest - time.monotonic()  # again: a start may be tried again and again

    def set_back_by(self) -> float:
        """Return seconds by which the clock was set back since the last call; 0.0 when it was not.

        A clock set forward only lets things be done early, and a machine that slept has done the same.
        """
        offset = time.time() - time.monotonic()
        step = self._offset - offset
        self._offset = offset
        return step if step >= _LEAST_S else 0.0


def heeded(state: Path) -> None:
    """Let nothing in state/ be of the future any more: that the clock was set back has been obeyed."""
    for path, _ in _later(state, time.time()):
        with contextlib.suppress(OSError):
            os.utime(path, follow_symlinks=False)


def _later(state: Path, now: float) -> Iterator[tuple[Path, float]]:
    """Yield what was written after now, and when."""
    with contextlib.suppress(OSError):
        for path in (*state.iterdir(), state):
            with contextlib.suppress(OSError):
                if (moment := path.lstat().st_mtime) > now:
                    yield path, moment
