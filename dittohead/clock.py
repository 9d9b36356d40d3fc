"""The system's clock being set back, which would put off everything that is due by it."""

from __future__ import annotations

import time

#: Smaller steps are the ordinary work of NTP.
_LEAST_S = 5.0


class Clock:
    """Compares the clock people see with the one that only goes on."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def set_back_by(self) -> float:
        """Return seconds by which the clock was set back since the last call; 0.0 when it was not.

        A clock set forward only lets things be done early, and a machine that slept has done the same.
        """
        offset = time.time() - time.monotonic()
        step = self._offset - offset
        self._offset = offset
        return step if step >= _LEAST_S else 0.0
