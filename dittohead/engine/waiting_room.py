"""Where arrivals wait until nobody writes to them any more; they are looked at beside the loop.

An arrival that cannot be looked at, or whose file system hangs, holds up itself alone.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from dittohead.config.settings import Watch
from dittohead.engine.folder_activity import FolderActivity, expanded, read_activity, read_file_activity
from dittohead.engine.settling import Settling, SettlingWait, Why
from dittohead.folders import completeness, lone_files, sent_manifest
from dittohead.folders.completeness import Verdict
from dittohead.folders.stations import Stations
from dittohead.model.errors import Immovable
from dittohead.model.held import Held, HeldKind, immovable, writers
from dittohead.model.records import Arrival
from dittohead.model.states import Station
from dittohead.model.text import shell_word, visible
from dittohead.model.units import clock, duration
from dittohead.system.mounts import filesystem_type, needs_polling
from dittohead.system.threads import Crew, Hung, Piece, Stop

#: Looks at once. Most take less than a millisecond; one at a folder of a million files takes seconds.
_WALKS = 8

#: A look that takes longer goes on beside what else there is to do; the arrival is offered again then.
_PATIENCE_S = 0.1

#: What such a look saw is used when the arrival's turn comes, if that is as soon as this (and as the look
#: took): a folder may be written to again while all slots are taken. Seconds.
_KEPT_S = 2.0

#: An arrival whose turn came too late for that is waited for a while; another would take each turn.
_PATIENCE_MOST_S = 3.0

#: A look without a sign of life for this long hangs, and is left behind; at most so many of them.
_STALL_S, _LEFT_MOST = 10.0, 64

#: When what is held is looked at again: soon where it changed just now, seldom where it lies there for
#: long (a part of its age).
_SOON_S, _SELDOM_S, _PART_OF_AGE = 1.0, 30.0, 0.25

#: What to do another time, said only where a folder was surely written under its final name.
_DOTTED = "Another time upload as .NAME, then rename"

#: Looks at one arrival that changes, or that is held, take at most one part in this many of the time.
_REST = 10.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Promises:
    """By what a pipeline's folders are seen to be complete."""

    asked: tuple[str, ...] = ()  #: bag, list, or both; the manifest that was sent along always counts
    ignore: tuple[str, ...] = ()  #: names that no step is given
    each: bool = False  #: it is a collection


_NONE = Promises()


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """A verdict on whether an arrival is complete, and what it was given for."""

    ino: int
    trace: int  #: of its activity
    promises: Promises
    verdict: Verdict
    took_s: float
    newest: float  #: when something in it last changed, seconds since the epoch


@dataclass(frozen=True, kw_only=True)
class _Sighting:
    """What came of a look that took long."""

    ino: int
    value: Any
    error: BaseException | None
    began: float
    at: float

    @property
    def took_s(self) -> float:
        """How long the look took, and waited for a thread."""
        return self.at - self.began

    def for_(self, arrival: Arrival) -> bool:
        """Tell whether it is still of use."""
        return self.ino == arrival.ino and time.monotonic() - self.at < max(_KEPT_S, self.took_s)


class WaitingRoom:
    """Knows which arrivals have settled."""

    def __init__(self, stations: Stations) -> None:
        self._stations = stations
        self._settling: Settling | None = None
        self._crew = Crew("read_activity", _WALKS)
        self._pending: dict[tuple[bytes, str], Piece[Any]] = {}
        self._seen: dict[tuple[bytes, str], _Sighting] = {}
        self._hung: dict[bytes, Piece[Any]] = {}
        self._judged: dict[bytes, _Judged] = {}
        self.on_looked: Callable[[Arrival], None] = lambda arrival: None  #: a look that took long has ended

    async def admit(
        self,
        arrival: Arrival,
        watch: Watch,
        partial: Collection[str],
        *,
        each: bool = False,
        promises: Promises = _NONE,
    ) -> int | Held:
        """Return the bytes of an arrival that has settled and is complete, or why it is not.

        Args:
            each: it is a collection, whose folders are to be moved by themselves.
            promises: by what it is seen to be complete.

        Raises: OSError, Hung: it cannot be looked at.
        """
        if (still := await self._still_incomplete(arrival, promises)) is not None:
            return still
        names = expanded(tuple(partial))

        def work(stop: Stop) -> tuple[FolderActivity, Immovable | None, float, float]:
            folder, began = self._stations.folder(Station.INBOX, arrival.folder), time.monotonic()
            if arrival.is_file:
                seen = read_file_activity(folder.parent, arrival.folder, names, now_ns=time.time_ns())
                closed = lone_files.fault(self._stations, arrival.folder)
                return seen, closed, began, time.monotonic() - began
            seen = read_activity(folder, names, stop=stop, now_ns=time.time_ns())
            closed = self._stations.immovable(arrival.folder)
            if each and closed is None and seen.error is None:
                closed = self._stations.immovable_in(arrival.folder)
            return seen, closed, began, time.monotonic() - began

        found = await self.beside(arrival, "read_activity", work)
        if isinstance(found, Held):
            return found
        seen, closed, began, took_s = found
        ago_s = time.monotonic() - began
        held = self._judge(arrival, seen, watch, ago_s, closed=closed is not None)
        if held is None and closed is not None and (each or arrival.is_file):
            # It may be movable itself: the claim would not tell.
            return replace(immovable(closed, arrival), again_s=max(_SOON_S, took_s * _REST))
        if held is None:
            held = None if arrival.is_file else await self._incomplete(arrival, seen, promises)
            return seen.size if held is None else held
        if closed is not None and held.kind is HeldKind.SETTLING:
            # Waiting will not help; and what cannot be read was not seen.
            held = replace(immovable(closed, arrival), again_s=_SOON_S)
        rest_s = took_s * (1.0 if held.quiet else _REST)
        return replace(held, again_s=max(held.again_s or 0.0, rest_s))

    async def is_complete(self, arrival: Arrival, promises: Promises) -> Held | None:
        """Return how an arrival is held that need not settle and is not complete; None where it is.

        Raises: OSError, Hung: it cannot be looked at.
        """
        folder = self._stations.folder(Station.INBOX, arrival.folder)
        if not promises.asked and not sent_manifest.lies_in(folder):
            return None

        def work(stop: Stop) -> tuple[Verdict, float]:
            began = time.monotonic()
            verdict = completeness.verdict_on(
                folder, promises.asked, promises.ignore, stop, each=promises.each
            )
            return verdict, time.monotonic() - began

        found = await self.beside(arrival, "completeness", work)
        if isinstance(found, Held):
            return found
        verdict, took_s = found
        return _lacks(verdict, arrival, folder, arrival.seen_at, took_s) if verdict.lack else None

    async def _incomplete(self, arrival: Arrival, seen: FolderActivity, promises: Promises) -> Held | None:
        """Return how an arrival is held that has settled and is not complete.

        What a look has found out counts as long as nothing in the folder changes, whenever it ended.
        """
        folder = self._stations.folder(Station.INBOX, arrival.folder)
        if not promises.asked and not sent_manifest.lies_in(folder):
            return None

        def work(stop: Stop) -> _Judged:
            began = time.monotonic()
            verdict = completeness.verdict_on(
                folder, promises.asked, promises.ignore, stop, each=promises.each
            )
            judged = _Judged(
                ino=arrival.ino,
                trace=seen.trace,
                promises=promises,
                verdict=verdict,
                took_s=time.monotonic() - began,
                newest=seen.newest_ns / 1e9,
            )
            self._judged[arrival.folder] = judged
            return judged

        judged = self._judged.get(arrival.folder)
        wanted = (arrival.ino, seen.trace, promises)
        if judged is None or (judged.ino, judged.trace, judged.promises) != wanted:
            found = await self.beside(arrival, "completeness", work)
            if isinstance(found, Held):
                return found
            judged = found
        if not judged.verdict.lack:
            return None
        return _lacks(judged.verdict, arrival, folder, judged.newest, judged.took_s)

    async def _still_incomplete(self, arrival: Arrival, promises: Promises) -> Held | None:
        """Return how an arrival is held where no name has come or gone since a look found it incomplete."""
        judged = self._judged.get(arrival.folder)
        if judged is None or (judged.ino, judged.promises) != (arrival.ino, promises):
            return None
        if not judged.verdict.lack or not judged.verdict.marks:
            return None
        folder, began = self._stations.folder(Station.INBOX, arrival.folder), time.monotonic()
        marks = judged.verdict.marks

        def work(stop: Stop) -> bool:
            return completeness.is_unchanged(folder, marks, stop)

        same = await self.beside(arrival, "marks", work)
        if isinstance(same, Held):
            return same
        took_s = time.monotonic() - began
        return _lacks(judged.verdict, arrival, folder, judged.newest, took_s) if same else None

    async def beside(self, arrival: Arrival, what: str, work: Callable[[Stop], T]) -> T | Held:
        """Return what a piece of work at an arrival returns; Held while it takes long.

        Args:
            what: tells pieces of work at one arrival apart.

        Raises: Hung: its file system does not answer; what the work raises.
        """
        key = (arrival.folder, what)
        seen = self._seen.pop(key, None)
        if seen is not None and seen.for_(arrival):
            if seen.error is not None:
                raise seen.error
            return cast("T", seen.value)
        if key not in self._pending:
            self._must_answer(arrival.folder)
            piece, began = self._crew.begin(work), time.monotonic()
            await asyncio.wait([piece.done], timeout=_patience_s(seen))
            if piece.done.done():
                return piece.done.result()
            self._pending[key] = piece
            piece.done.add_done_callback(functools.partial(self._over, key, arrival, began))
            self._watch(arrival.folder, piece, -1)
        return Held(reason="it is being looked at", looking=True, quiet=True)

    def forget_all_but(self, present: Collection[bytes]) -> None:
        """Forget arrivals that are no longer there."""
        if self._settling is not None:
            self._settling.forget_all_but(present)
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] in present}
        self._judged = {folder: judged for folder, judged in self._judged.items() if folder in present}

    def forget(self, folder: bytes) -> None:
        """Forget an arrival that was claimed: when it is moved back to the inbox, it comes again."""
        if self._settling is not None:
            self._settling.forget(folder)
        self._seen = {key: seen for key, seen in self._seen.items() if key[0] != folder}
        self._judged.pop(folder, None)

    # -- looks that take long, or never end ---------------------------------------------------

    def _must_answer(self, folder: bytes) -> None:
        self._hung = {name: piece for name, piece in self._hung.items() if not piece.over}
        if folder in self._hung or len(self._hung) >= _LEFT_MOST:
            raise Hung

    def _over(
        self, key: tuple[bytes, str], arrival: Arrival, began: float, done: asyncio.Future[Any]
    ) -> None:
        del self._pending[key]
        if done.cancelled():
            return
        error = done.exception()
        value = None if error is not None else done.result()
        now = time.monotonic()
        self._seen[key] = _Sighting(ino=arrival.ino, value=value, error=error, began=began, at=now)
        self.on_looked(arrival)

    def _watch(self, folder: bytes, piece: Piece[Any], beats: int) -> None:
        """Leave a piece of work behind when it shows no sign of life."""
        if piece.done.done():
            return
        if piece.begun and piece.stop.beats == beats:
            self._hung[folder] = piece
            self._crew.leave(piece)
            return
        now = piece.stop.beats if piece.begun else -1
        asyncio.get_running_loop().call_later(_STALL_S, self._watch, folder, piece, now)

    # -- what a look says ---------------------------------------------------------------------

    def _judge(
        self, arrival: Arrival, seen: FolderActivity, watch: Watch, ago_s: float, *, closed: bool
    ) -> Held | None:
        if self._settling is None:
            # Times that another machine gives, as on NFS and SMB, are by another clock than ours.
            kind = filesystem_type(self._stations.path(Station.INBOX))
            self._settling = Settling(shared=needs_polling(kind))
        wait = self._settling.wait(arrival, seen, watch, ago_s, closed=closed)
        if seen.mark or (seen.writer and watch.settle):
            folder = self._stations.folder(Station.INBOX, arrival.folder)
            # The mark of a file is its own name.
            return _unfinished(seen, os.fsencode(folder.parent if arrival.is_file else folder))
        return None if wait is None else _waits(wait, time.time())


def _patience_s(lapsed: _Sighting | None) -> float:
    """Return how long a look is waited for, by the one before whose time has ended, if there was one."""
    return _PATIENCE_S if lapsed is None else min(max(2 * lapsed.took_s, _PATIENCE_S), _PATIENCE_MOST_S)


def _unfinished(seen: FolderActivity, folder: bytes) -> Held:
    """Return how a folder is held that somebody still writes to, or so it seems."""
    since = seen.newest_ns / 1e9
    again_s = min(max((time.time() - since) * _PART_OF_AGE, _SOON_S), _SELDOM_S)
    path = seen.mark or seen.writer
    inside = os.path.join(folder, os.fsencode(path))
    named, word = visible(path), shell_word(inside)
    if not seen.mark:
        return Held(
            reason=f"a program on this machine has it open for writing: {named}",
            kind=HeldKind.WRITTEN,
            cure="Let it finish, or end it",
            command=writers(inside),
            since=since,
            again_s=again_s,
        )
    if seen.is_cut:
        why = "rsync left this file truncated (it is dated 1970)"
        cure = "Upload the folder again; or delete this file, when nobody needs it"
    else:
        why = "so is called what is still being uploaded, or was cut off"
        cure = "Finish the upload; or delete this, when nobody needs it"
    return Held(
        reason=f"{named}: {why}",
        kind=HeldKind.UNFINISHED,
        cure=f"{cure}. Where such names are meant: watch: {{partial: ...}} in config.yaml",
        command=f"sudo rm -ri {word}",
        since=since,
        again_s=again_s,
    )


#: What tells that something may still come, in words. Who did as the documents say is blamed for nothing.
_WHY = {
    Why.FRESH: "it changed a short time ago",
    Why.GREW: f"it grew while it lay here. {_DOTTED}",
    Why.EMPTY: "it is empty, so it cannot be told whether somebody is about to fill it",
    Why.LATER: f"something in it (or its mode or owner) changed after it got its name. {_DOTTED}",
    Why.ONE_STEP: (
        "it was filled and named within one tick of the clock, and the daemon did not see it renamed: it "
        "cannot be told from one that is still being written"
    ),
    Why.WRITTEN: "it was written to last, so it cannot be told whether more of it will come",
    Why.UNSEEN: "the daemon could not read it before, so it cannot be told whether it is still being written",
}


def _lacks(verdict: Verdict, arrival: Arrival, folder: Path, since: float, took_s: float) -> Held:
    """Return how a folder is held that is not complete: looked at again soon where it changed just now."""
    again_s = min(max((time.time() - since) * _PART_OF_AGE, _SOON_S), _SELDOM_S)
    path = os.path.join(os.fsencode(folder), os.fsencode(sent_manifest.NAME))
    return Held(
        reason=verdict.lack,
        kind=HeldKind.INCOMPLETE,
        cure=verdict.cure,
        command=f"sudo rm -i {shell_word(path)}" if verdict.has_sent else "",
        since=max(since, arrival.seen_at),
        again_s=max(again_s, took_s * _REST),
    )


def _waits(wait: SettlingWait, now: float) -> Held:
    at = clock(now + wait.seconds, now)
    return Held(
        due=f"taken at {at} if nothing in it changes for {duration(wait.need_s)}",
        reason=_WHY[wait.why],
        again_s=wait.seconds,
        quiet=not wait.in_place and not wait.grew,
    )
