"""How long an arrival still has to wait until nothing in it has changed for long enough.

Two clocks tell. The times the file system gives are trusted where its clock is ours and has not been
set lately. What holds with any clock: two looks, far enough apart, that saw the same.

A folder that the daemon may not read or move lies there until somebody opens it to the daemon. That is not an
upload: it makes nothing grow, and the time until then is not a pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, auto

from dittohead.config.settings import Watch
from dittohead.engine.folder_activity import FolderActivity
from dittohead.model.records import Arrival

#: A folder that was seen to grow waits this many times the longest pause seen between two times it grew.
_PAUSES = 2.0

#: After a longer pause it is somebody who came back to it, and no writer's pace: so nothing waits longer than
#: `_PAUSES` times this for its pauses. Seconds.
_LONGEST_S = 300.0

#: Smaller steps are the ordinary work of NTP.
_STEP_S = 0.5

#: After the due moment a look comes this much later: file systems stamp by a clock of coarse steps. Seconds.
_AFTER_S = 0.005


class Why(Enum):
    """What tells that something may still come."""

    FRESH = auto()  #: only that it changed a short time ago
    GREW = auto()  #: it was seen to grow
    EMPTY = auto()  #: there is nothing in it
    LATER = auto()  #: something in it changed after it got its name
    ONE_STEP = auto()  #: it was filled and got its name in one step of the clock, and nobody saw which way
    UNSEEN = auto()  #: it could not be read before
    WRITTEN = auto()  #: the last that happened to a file is that it was written to


@dataclass(frozen=True, kw_only=True)
class SettlingWait:
    """An arrival is to be looked at again."""

    seconds: float
    need_s: float  #: nothing may have changed for this long
    in_place: bool  #: it is written to under its final name, or may be
    grew: bool  #: it changed between two looks
    why: Why = Why.FRESH


@dataclass(kw_only=True)
class _Known:
    """What earlier looks at an arrival saw."""

    ino: int
    seen: FolderActivity  #: the last that saw something new
    since: float  #: the end of that walk, by the clock that only goes on
    closed: bool  #: at the last look of all the daemon might not read or move it
    grown_ns: int  #: the newest ctime of the look that first saw what it holds now
    grown_since: float  #: the end of that look
    cured: bool = False  #: since then it was only opened to the daemon, which changed its times
    pause_s: float = 0.0  #: the longest time between two times it grew
    grew: bool = False
    why: Why | None = None  #: settled by what earlier looks saw, whatever its times say now


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

    def wait(
        self,
        arrival: Arrival,
        seen: FolderActivity,
        watch: Watch,
        ago_s: float = 0.0,
        *,
        closed: bool = False,
    ) -> SettlingWait | None:
        """Return how long it is still to be waited for; None when it had settled as the look began.

        Args:
            ago_s: how long ago that was: what was written behind the walk, or since, it has not seen.
            closed: the daemon may not move it as it is.
        """
        if watch.settle == 0:
            return None
        known = self._note(arrival, seen, closed)
        why = known.why or _why(seen, arrival)
        in_place = why is not Why.FRESH
        need = max(watch.settle, watch.settle_in_place if in_place else 0.0, known.pause_s * _PAUSES)
        left = max(
            self._left(seen.newest_ns, known.since, watch.settle, ago_s),
            self._left(known.grown_ns, known.grown_since, need, ago_s),
        )
        if left <= 0:
            return None
        return SettlingWait(seconds=left + _AFTER_S, need_s=need, in_place=in_place, grew=known.grew, why=why)

    def forget_all_but(self, present: Collection[bytes]) -> None:
        """Forget arrivals that are no longer there."""
        if self._known:
            self._known = {folder: known for folder, known in self._known.items() if folder in present}

    def forget(self, folder: bytes) -> None:
        """Forget an arrival that was claimed."""
        self._known.pop(folder, None)

    def _note(self, arrival: Arrival, seen: FolderActivity, closed: bool) -> _Known:
        now = self._monotonic()
        known = self._known.get(arrival.folder)
        if known is None or known.ino != arrival.ino:
            known = _Known(
                ino=arrival.ino,
                seen=seen,
                since=now,
                closed=closed,
                grown_ns=seen.newest_ns,
                grown_since=now,
            )
            self._known[arrival.folder] = known
        elif known.seen.trace != seen.trace:
            self._changed(known, seen, arrival, closed, now)
            known.seen, known.since, known.grew = seen, now, True
        known.closed = closed
        if not known.cured:
            known.grown_ns = seen.newest_ns
        return known

    @staticmethod
    def _changed(known: _Known, seen: FolderActivity, arrival: Arrival, closed: bool, now: float) -> None:
        """Note a change: somebody who writes, or only what opens the folder to the daemon."""
        if known.seen.content == seen.content and known.closed:
            known.why = known.why or _why(known.seen, arrival)  # its times told it before they were changed
            known.cured = True
            return
        if known.seen.content != seen.content:
            known.why, known.pause_s = _grown(known, seen, closed)
        known.grown_since, known.cured = now, False

    def _left(self, newest_ns: int, since: float, need: float, ago_s: float) -> float:
        """Return what is left of a time in which nothing may change."""
        quiet = self._monotonic() - ago_s - since
        return min(self._left_by_times(newest_ns, need, ago_s), need - quiet)

    def _left_by_times(self, newest_ns: int, need: float, ago_s: float) -> float:
        """Return what is left by the folder's own times; infinity where they cannot be trusted."""
        offset = self._now() - self._monotonic()
        if abs(offset - self._offset) > _STEP_S:
            self._stepped_at = self._monotonic()
        self._offset = offset
        just_set = self._stepped_at is not None and self._monotonic() - self._stepped_at < need
        age = self._now() - ago_s - newest_ns / 1e9
        if self._shared or just_set or age < 0:
            return float("inf")
        return need - age


def _why(seen: FolderActivity, arrival: Arrival) -> Why:
    """Return what the times of a folder tell; and who saw it renamed, where they do not."""
    if not seen.written_in_place:
        return Why.FRESH
    if seen.is_empty:
        return Why.EMPTY
    if seen.newest_ns > seen.own_ns:
        return Why.LATER
    if arrival.renamed:
        return Why.FRESH
    return Why.WRITTEN if seen.is_file else Why.ONE_STEP


def _grown(known: _Known, seen: FolderActivity, closed: bool) -> tuple[Why | None, float]:
    """Return what it tells that a folder holds something else than before, and its longest pause."""
    if str(known.seen.error) != str(seen.error):
        return Why.UNSEEN, known.pause_s  # what it held before was not seen, or not all of it
    pause_s = _pause_s(known, seen)
    if known.closed and not closed:
        return Why.GREW, known.pause_s
    # Who was seen to write at a pace writes under the final name, whatever the times say.
    return (Why.GREW if pause_s > 0 else known.why), max(known.pause_s, pause_s)


def _pause_s(known: _Known, seen: FolderActivity) -> float:
    """Return the time between two changes, by the file system's own clock; 0.0 for what is not a pause."""
    pause_s = (seen.newest_ns - known.grown_ns) / 1e9
    return pause_s if 0 < pause_s <= _LONGEST_S else 0.0
