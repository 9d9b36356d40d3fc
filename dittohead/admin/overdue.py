"""Notices of what stays in the inbox until somebody acts: at most a few for each owner.

Arrivals that are held, and strays: what is not a folder. Dotted uploads are in `stale_uploads.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import stat
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dittohead.admin.notice_limits import WEEK_S, NoticeGroup, NoticeLimits
from dittohead.engine.engine import Engine
from dittohead.engine.supervisor import alone
from dittohead.folders.stations import Scan
from dittohead.model.held import AT_ONCE, IN_TIME, Held
from dittohead.model.shown import ShownOverdue
from dittohead.model.states import Station
from dittohead.model.text import display, own_group, shell_word
from dittohead.store import outbox as outbox_store
from dittohead.store.outbox import NewNotice
from dittohead.system.files import kind_of
from dittohead.system.users import owner

#: That `status` and the page name.
SHOWN = 50

#: Between two rounds, and how many times what one took. Seconds.
_ROUND_S, _REST = 2.0, 20.0

#: The kind of what is not a folder, beside those of `held.Kind`.
STRAY = "stray"


class Holding(Protocol):
    """Knows what is held."""

    @property
    def held(self) -> Mapping[bytes, Held]:
        """Arrivals that cannot be taken yet, and why."""


@dataclass(frozen=True, kw_only=True)
class OverdueItem:
    """Something in the inbox that waits for somebody."""

    folder: bytes  #: its name
    kind: str
    reason: str
    cure: str
    command: str
    since: float  #: seconds since the epoch
    uid: int | None  #: None: it could not be looked at
    identity: str  #: the same as long as it is this one, and nobody has touched it

    @property
    def name(self) -> str:
        """Its name, for people."""
        return display(self.folder)


class Overdue:
    """Those there are now."""

    def __init__(
        self,
        engine: Engine,
        dispatch: Holding,
        scan: Callable[[], Scan | None],
        held_after_s: Callable[[], float],
    ) -> None:
        self._engine, self._dispatch, self._scan, self._held_after_s = engine, dispatch, scan, held_after_s
        self._first: dict[tuple[bytes, str], float] = {}  #: (folder, kind) -> when it was first seen so
        self._told: dict[str, float] = {}  #: identity -> when it was reported. Seconds, monotonic
        self._sparing = NoticeLimits[OverdueItem](lambda thing: thing.folder)
        self.shown: list[ShownOverdue] = []  #: the longest first, `SHOWN` at most
        self.count = 0  #: of all, strays with them
        self.strays = 0

    async def run(self) -> None:
        """Make rounds until cancelled."""
        while True:
            began = time.monotonic()
            await alone("held", self.round)
            await asyncio.sleep(max(_ROUND_S, (time.monotonic() - began) * _REST))

    async def round(self) -> None:
        """See what waits for somebody, and report what has done so for too long."""
        scan, after_s, now = self._scan(), self._held_after_s(), time.time()
        names = scan.strays if scan is not None else []
        strays = await asyncio.to_thread(self._strays, names) if names else []
        held = self._held(now, after_s)
        things = sorted([*held, *strays], key=lambda thing: thing.since)
        shown = await asyncio.to_thread(_shown, things[:SHOWN]) if things else []
        self.shown, self.count, self.strays = shown, len(things), len(strays)
        self._told = {one.identity: at for one in things if (at := self._told.get(one.identity)) is not None}
        if things and self._engine.wants("held", None):
            await self._tell([thing for thing in things if now - thing.since >= after_s], now)

    # -- what there is -------------------------------------------------------------------------

    def _held(self, now: float, after_s: float) -> list[OverdueItem]:
        found = []
        kinds = AT_ONCE | IN_TIME
        held = {name: why for name, why in self._dispatch.held.items() if why.kind in kinds}
        keys = {(folder, why.kind.value) for folder, why in held.items()}
        self._first = {key: self._first.get(key, now) for key in keys}
        for folder, why in held.items():
            since = self._first[folder, why.kind.value]
            if why.since is not None:
                # What cannot be moved may have lain so before our start; a mark changes while it is written.
                since = why.since if why.kind in AT_ONCE else max(since, why.since)
            if why.kind in AT_ONCE or now - since >= after_s:
                found.append(_thing(folder, why, min(since, now)))
        return found

    def _strays(self, names: Sequence[bytes]) -> list[OverdueItem]:
        """Return what is not a folder. Blocking, but short."""
        stations, found = self._engine.stations, []
        for name in names:
            try:
                status = stations.identity(Station.INBOX, name)
            except OSError:  # taken away meanwhile
                continue
            if not stat.S_ISDIR(status.st_mode):
                found.append(_stray(stations.path(Station.INBOX), name, status))
        return found

    # -- telling -------------------------------------------------------------------------------

    async def _tell(self, things: Collection[OverdueItem], now: float) -> None:
        by_owner = sorted(things, key=lambda thing: -1 if thing.uid is None else thing.uid)
        for uid, theirs in itertools.groupby(by_owner, key=lambda thing: thing.uid):
            listed = sorted(theirs, key=lambda thing: thing.since)
            fresh = sum(not self._was_told(thing) for thing in listed)
            for part in self._sparing.parts(uid, listed, fresh) if fresh else ():
                await self._put(part, now)
                self._sparing.told(uid, part)
                self._told |= dict.fromkeys((thing.identity for thing in part.things), time.monotonic())

    def _was_told(self, thing: OverdueItem) -> bool:
        at = self._told.get(thing.identity)
        return at is not None and time.monotonic() - at < WEEK_S

    async def _put(self, part: NoticeGroup[OverdueItem], now: float) -> None:
        first = part.things[0]

        def compose() -> list[NewNotice]:
            arrivals = [_facts(thing, now) for thing in part.things]
            return self._engine.compose("held", uid=first.uid, arrivals=arrivals)

        notices = await asyncio.to_thread(compose)
        identities = sorted(thing.identity for thing in part.things)
        about = "h" + hashlib.sha256("\0".join(identities).encode()).hexdigest()[:25]
        if notices:
            await self._engine.store.write(outbox_store.add, notices, about=about)
            self._engine.wake_notifier()


def _thing(folder: bytes, why: Held, since: float) -> OverdueItem:
    which = why.arrival
    # An inode's number is used again; the moment at which it was last touched is not.
    identity = f"{which.ino} {which.seen_at}" if which is not None else folder.hex()
    return OverdueItem(
        folder=folder,
        kind=why.kind.value,
        reason=why.reason,
        cure=why.cure,
        command=why.command,
        since=since,
        uid=None if which is None else which.uid,
        identity=f"{why.kind.value} {identity}",
    )


def _stray(inbox: Path, name: bytes, status: os.stat_result) -> OverdueItem:
    path, hidden = (os.path.join(os.fsencode(inbox), part) for part in (name, b"." + name))
    kind, mode = kind_of(status.st_mode), stat.S_IMODE(status.st_mode)
    if stat.S_ISREG(status.st_mode):
        cure = "Put it into a folder of its own; or set files: folder in a pipeline whose match fits its name"
        command = _into_a_folder(path, hidden)
    else:
        cure, command = "Remove it, when nobody needs it", f"sudo rm -i {shell_word(path)}"
    return OverdueItem(
        folder=name,
        kind=STRAY,
        reason=f"this is a {kind}, mode {mode:04o}; only folders are processed",
        cure=cure,
        command=command,
        since=min(status.st_ctime, time.time()),
        uid=status.st_uid,
        identity=f"{STRAY} {status.st_ino} {status.st_ctime}",
    )


def _into_a_folder(path: bytes, hidden: bytes) -> str:
    """Return the command that makes a folder of a file, as uploaders do: whole before it has its name."""
    file, folder = shell_word(path), shell_word(hidden)
    return " && ".join(
        f"sudo {command}"
        for command in (
            f"mkdir {folder}",
            f"chown --reference={file} {folder}",
            f"mv -n {file} {folder}/",
            f"chgrp -R {own_group()} {folder}",
            f"chmod -R g+rwX {folder}",
            f"mv -nT {folder} {file}",
        )
    )


def _facts(thing: OverdueItem, now: float) -> dict[str, Any]:
    """Return what a notice says of it."""
    return {
        "name": thing.name,
        "kind": thing.kind,
        "seconds": round(max(now - thing.since, 0.0)),
        "reason": thing.reason,
        "cure": thing.cure,
        "command": thing.command,
    }


def _shown(things: Sequence[OverdueItem]) -> list[ShownOverdue]:
    """Return what readers see. Blocking: names of users may come from the network."""
    users = {thing.uid: "" if thing.uid is None else owner(thing.uid).user for thing in things}
    return [
        {
            "name": thing.name,
            "kind": thing.kind,
            "reason": thing.reason,
            "cure": thing.cure,
            "command": thing.command,
            "since": round(thing.since),
            "uid": thing.uid,
            "owner": users[thing.uid],
        }
        for thing in things
    ]
