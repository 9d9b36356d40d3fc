"""A text stream that neither blocks nor raises: a bounded queue, and one thread that writes."""

from __future__ import annotations

import io
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

#: Bytes that wait to be written: some twenty thousand lines. What comes on top is dropped and counted.
MOST = 4 << 20

#: Bytes of one write: a pipe's size.
_PIECE = 64 * 1024

#: How long to wait before it is tried again where it cannot be written (a full disk, no reader).
_AGAIN_S = 1.0

#: The longest the end of the process waits for what is left. A stop must take less than ten seconds.
_END_S = 2.0


class LogStream(io.TextIOBase):
    """Takes text at once; a thread writes it to a descriptor as fast as that goes.

    Where nothing can be written (a pipe that nobody reads, a closed one, a full disk), text waits up
    to a bound, then lines are dropped. As soon as it can be written again, `dropped` is told how many.
    """

    encoding, errors = "utf-8", "backslashreplace"

    def __init__(self, fd: int | None, dropped: Callable[[int], None], most: int = MOST) -> None:
        """Write to `fd`; to nothing when there is none."""
        self._fd, self._say_dropped, self._most = fd, dropped, most
        self._waiting: deque[bytes] = deque()
        self._size = 0  #: bytes that wait, and those being written
        self._dropped = 0  #: lines since it was last said
        self._in_line = self._ending = self._stuck = False
        # Reentrant: a finalizer may write while the same thread holds it.
        self._changed = threading.Condition(threading.RLock())
        if fd is not None:
            threading.Thread(target=self._write_all, name="log", daemon=True).start()

    # -- what writers of text call -----------------------------------------------------------

    def write(self, text: str) -> int:
        data = text.encode(self.encoding, self.errors)
        with self._changed:
            # Once lines are dropped, all are until it has been said: so it is said at the right place.
            if self._dropped or self._size + len(data) > self._most:
                self._drop(data)
            elif self._fd is not None and data:
                self._add(data)
        return len(text)

    def _add(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        self._in_line = not data.endswith(b"\n")
        self._changed.notify_all()

    def _drop(self, data: bytes) -> None:
        if self._in_line:
            self._add(b"\n")
        self._dropped += max(data.count(b"\n"), 1)
        self._changed.notify_all()

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Return at once: the thread writes without being asked."""

    def fileno(self) -> int:
        if self._fd is None:
            raise OSError("standard error is closed")
        return self._fd

    def isatty(self) -> bool:
        return self._fd is not None and os.isatty(self._fd)

    def close(self) -> None:
        """Stay open: what is said last must come out too."""

    def finish(self, within_s: float = _END_S) -> None:
        """Wait until all is written, but not for long, and not where it cannot be written."""
        end = time.monotonic() + within_s
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            while (self._size or self._dropped) and not self._stuck and time.monotonic() < end:
                self._changed.wait(max(end - time.monotonic(), 0))

    # -- the thread --------------------------------------------------------------------------

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._dropped)
                data = b"".join(self._waiting)
                self._waiting.clear()
            if data:
                self._write(data)
            self._tell()

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            written = self._try(left[:_PIECE])
            left = left[written:]
            with self._changed:
                self._size -= written
                self._changed.notify_all()

    def _try(self, piece: memoryview) -> int:
        """Write some of it, or wait a while. Returns: how many bytes were written."""
        assert self._fd is not None  # noqa: S101
        try:
            return os.write(self._fd, piece)
        except BlockingIOError:  # somebody who shares it has asked for that
            select.select([], [self._fd], [], _AGAIN_S)
        except OSError:
            with self._changed:
                if self._ending:
                    self._stuck = True
                    self._changed.notify_all()
                self._changed.wait_for(lambda: self._ending and not self._stuck, _AGAIN_S)
        return 0

    def _tell(self) -> None:
        with self._changed:
            if self._waiting:
                return
            lines, self._dropped = self._dropped, 0
        if lines:  # not under our lock: who tells it has locks of its own
            self._say_dropped(lines)
