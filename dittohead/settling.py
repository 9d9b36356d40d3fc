"""How long an arrival still has to wait until nothing in it has changed for long enough.

Two clocks tell. The times the file system gives are trusted where its clock is ours and has not been
set lately. What holds with any clock: two looks, far enough apart, that saw the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from dittohead.looks import Look
from dittohead.model import Arrival
from dittohead.settings import Watch

#: A folder that was seen to grow waits this many times the longest pause seen between two changes.
_PAUSES = 2.0

#: After a longer pause it is somebody who came back to it, and no writer's pace. Seconds.
_LONGEST_S = 300.0

#: Smaller steps are the ordinary work of NTP.
_STEP_S = 0.5

#: After the due moment a look comes this much later: file systems stamp by a clock of coarse steps. Seconds.
_AFTER_S = 0.005


@dataclass(frozen=True, kw_only=True)
class Wait:
    """An arrival is to be looked at again."""

    seconds: float
    need_s: float  #: nothing may have changed for so long
    in_place: bool  #: it is written to under its final name
    grew: bool  #: it changed between two looks


@dataclass(kw_only=True)
class _Known:
    """What earlier looks at an arrival saw."""

    ino: int
    trace: int
    newest_ns: int
    since: float  #: the end of the first look that saw this, by the clock that only goes on
    pause_s: float = 0.0  #: the longest time between two changes
    grew: bool = False


class Settling:
    """Remembers what looks at arrivals saw."""

    def __init__(
        self,
        *,
        shared: bool,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: shared: the inbox's times are another machine's."""
        self._shared, self._now, self._monotonic = shared, now, monotonic
        self._known: dict[bytes, _Known] = {}
        self._offset = now() - monotonic()
        self._stepped_at: float | None = None

    def wait(self, arrival: Arrival, look: Look, watch: Watch, ago_s: float = 0.0) -> Wait | None:
        """Return how long it is still to be waited for; None when it had settled as the look began.

        Args: ago_s: how long ago that was: what was written behind the look, or since, it has not seen.
        """
        if watch.settle == 0:
            return None
        known = self._note(arrival, look)
        # Who was seen to write at a pace writes under the final name, whatever the times say.
        in_place = look.written_in_place or known.pause_s > 0
        need = max(watch.settle, watch.settle_in_place if in_place else 0.0, known.pause_s * _PAUSES)
        quiet = self._monotonic() - ago_s - known.since
        left = min(self._left_by_times(look, need, ago_s), need - quiet)
        if left <= 0:
            return None
        return Wait(seconds=left + _AFTER_S, need_s=need, in_place=in_place, grew=known.grew)

    def forget_all_but(self, present: Collection[bytes]) -> None:
        """Forget arrivals that are no longer there."""
        if self._known:
            self._known = {folder: known for folder, known in self._known.items() if folder in present}

    def forget(self, folder: bytes) -> None:
        """Forget an arrival that was claimed."""
        self._known.pop(folder, None)

    def _note(self, arrival: Arrival, look: Look) -> _Known:
        now = self._monotonic()
        before = self._known.get(arrival.folder)
        if before is None or before.ino != arrival.ino:
            known = _Known(ino=arrival.ino, trace=look.trace, newest_ns=look.newest_ns, since=now)
            self._known[arrival.folder] = known
            return known
        if before.trace != look.trace:
            before.pause_s = max(before.pause_s, _pause_s(before, look))
            before.trace, before.newest_ns = look.trace, look.newest_ns
            before.since, before.grew = now, True
        return before

    def _left_by_times(self, look: Look, need: float, ago_s: float) -> float:
        """Return what is left by the folder's own times; infinity where they cannot be trusted."""
        offset = self._now() - self._monotonic()
        if abs(offset - self._offset) > _STEP_S:
            self._stepped_at = self._monotonic()
        self._offset = offset
        just_set = self._stepped_at is not None and self._monotonic() - self._stepped_at < need
        age = self._now() - ago_s - look.newest_ns / 1e9
        if self._shared or just_set or age < 0:
            return float("inf")
        return need - age


def _pause_s(before: _Known, look: Look) -> float:
    """Return the time between two changes, by the file system's own clock; 0.0 for what is no pause."""
    pause_s = (look.newest_ns - before.newest_ns) / 1e9
    return pause_s if 0 < pause_s <= _LONGEST_S else 0.0
