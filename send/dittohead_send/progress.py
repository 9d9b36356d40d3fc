"""What is shown while folders are sent: one line that changes; in a log, a line now and then."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from dittohead_send.words import counted, duration, size, visible

#: On a terminal; and where lines stay, as in a log. Seconds.
_EVERY_S, _SELDOM_S = 0.2, 30.0
#: The rate is that of the last seconds.
_WINDOW_S = 15.0


class Progress:
    """Counts, and shows; without a stream it only counts."""

    def __init__(self, out: TextIO | None, now: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._now = now
        self._is_terminal = out is not None and out.isatty()
        self._line = ""
        self._shown_at = now()
        self._rates: deque[tuple[float, int]] = deque()
        self.begin("", 0, 0)

    def begin(self, name: str, files: int, size: int) -> None:
        """Start with a folder."""
        self.name, self.files, self.size = name, files, size
        self.files_done = self.confirmed = self.sent = 0
        self._rates.clear()

    def restart(self) -> None:
        """Count again after a break: what is there is found there. What was sent stays counted as sent."""
        self.files_done = self.confirmed = 0
        self._rates.clear()

    def add(self, count: int, *, sent: bool) -> None:
        """Count bytes that are on the server now; those that were found there are not `sent`."""
        self.confirmed += count
        if sent:
            self.sent += count
        self.show()

    def take_back(self, count: int) -> None:
        """Count bytes of a file that is sent again as missing."""
        self.confirmed -= count

    def file_done(self) -> None:
        """Count a file."""
        self.files_done += 1
        self.show()

    def show(self) -> None:
        """Show how far it is, if it is time."""
        now = self._now()
        if now - self._shown_at < (_EVERY_S if self._is_terminal else _SELDOM_S):
            return
        self._shown_at = now
        if self._out is not None:
            self._write(self._out, self.text())

    def text(self) -> str:
        """Return how far it is: at most 79 columns."""
        percent = 100 * self.confirmed // self.size if self.size else 100
        parts = [f"{percent}% of {size(self.size)}", f"{self.files_done:,} of {counted(self.files, 'file')}"]
        rate = self._rate()
        if rate:
            parts.append(f"{size(rate)}/s")
            parts.append(f"{duration((self.size - self.confirmed) / rate)} left")
        tail = ", ".join(parts)
        room = max(79 - len(tail) - 2, 8)
        name = visible(self.name)
        name = name if len(name) <= room else name[: room - 3] + "..."
        return f"{name}: {tail}"

    def _rate(self) -> float:
        now = self._now()
        self._rates.append((now, self.confirmed))
        while len(self._rates) > 2 and now - self._rates[0][0] > _WINDOW_S:
            self._rates.popleft()
        then, before = self._rates[0]
        return (self.confirmed - before) / (now - then) if now > then else 0.0

    def _write(self, out: TextIO, text: str) -> None:
        if self._is_terminal:
            columns = shutil.get_terminal_size().columns
            text = text[: max(columns - 1, 20)]
            out.write("\r" + text.ljust(len(self._line)))
            self._line = text
        else:
            out.write(text + "\n")
        out.flush()

    def clear(self) -> None:
        """Make way for something else."""
        if self._line and self._out is not None:
            self._out.write("\r" + " " * len(self._line) + "\r")
            self._out.flush()
            self._line = ""

    def tell(self, text: str) -> None:
        """Show a line that stays."""
        self.clear()
        if self._out is not None:
            self._out.write(text + "\n")
            self._out.flush()


def stream(*, quiet: bool) -> TextIO | None:
    """Return where progress is shown."""
    return None if quiet else sys.stderr
