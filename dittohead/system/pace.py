"""Reading at so many bytes a second and no more, so that the work goes first."""

from __future__ import annotations

import asyncio
import threading
import time

from dittohead.system.threads import Stop

#: A thread that waits looks this often whether it is to leave. Seconds.
_PIECE_S = 0.2


class Pace:
    """Counts what was read, and says when more may be; threads and tasks may share one.

    Args:
        bytes_per_s: the most; None for no limit.
    """

    def __init__(self, bytes_per_s: float | None = None) -> None:
        self._bytes_per_s = bytes_per_s
        self._next = 0.0
        self._lock = threading.Lock()

    def owed(self, size: int) -> float:
        """Note that so many bytes were read; return how long to wait before more are. Seconds."""
        if not self._bytes_per_s:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now) + size / self._bytes_per_s
            return self._next - now

    async def spend(self, size: int) -> None:
        """Note that so many bytes were read, and wait until more may be."""
        wait = self.owed(size)
        if wait > 0:
            await asyncio.sleep(wait)

    def spend_in_thread(self, size: int, stop: Stop) -> None:
        """Do the same in a thread. Blocking. Raises: Stopped."""
        end = time.monotonic() + self.owed(size)
        stop.check()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _PIECE_S))
            stop.check()
