"""Look now and then whether what the daemon stands on is still there: its root, the stations, its lock.

An admin may move a station away while the daemon runs, a file system may be unmounted. What needs a
directory that is missing waits, and it is said; an empty one is made again where nothing is lost by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from dittohead.engine.disks import Disks
from dittohead.engine.supervisor import CannotGoOn
from dittohead.engine.targets import Targets
from dittohead.folders.stations import Stations
from dittohead.model.errors import DittoheadError, StationMissing, StoreError
from dittohead.model.states import Station
from dittohead.system import log
from dittohead.system.lock import Lock, Locked
from dittohead.system.threads import Hung, in_own_thread

#: Between two looks. Seconds.
_CHECK_S = 5.0

#: A disk that does not answer for this long is said not to. Seconds.
_STALL_S = 20.0

#: A directory that is missing for this long is not just being replaced. Seconds.
_GRACE_S = 10.0

#: Those that may be empty: what lay in them has ended, or is made again. The others hold what jobs or
#: uploaders are at, or have permissions that only an admin knows.
_MADE_AGAIN = frozenset({Station.DONE.value, Station.FAILED.value, "receipts", "work"})

_HINTS = {
    Station.INBOX.value: "Move it back, or make it again with the uploaders' permissions (docs/install.md)",
    Station.PROCESSING.value: "Move it back. If its folders are gone permanently: mkdir -m 700 {path}; their "
    "jobs are then cancelled",
    "state": "Move it back; the daemon goes on with the store that it has open",
}


class RootWatch:
    """Looks, and says what is missing; `troubles` is empty while all is there."""

    def __init__(self, stations: Stations, lock: Lock, targets: Targets, on_back: Callable[[], None]) -> None:
        self._stations, self._lock, self._targets, self._on_back = stations, lock, targets, on_back
        self._since: dict[str, float] = {}  #: directory ("" the root) -> when it was first missed
        self._errors: dict[str, DittoheadError] = {}
        self._replaced = False

    @property
    def troubles(self) -> list[DittoheadError]:
        """What is missing now."""
        return list(self._errors.values())

    async def run(self) -> None:
        """Check until cancelled. Raises: Over: the root, or its lock, is another's by now."""
        while True:
            await self.check()
            await asyncio.sleep(_CHECK_S)

    async def check(self) -> None:
        """Check once. Raises: Over."""
        try:
            found = await in_own_thread(lambda stop: self._missing(), key="ground", stall_s=_STALL_S)
        except Hung:
            found = {"": DittoheadError("the root's disk does not answer", where=str(self._stations.root))}
        back = set(self._errors) - set(found)
        self._say(found)
        self._errors = found
        if back:
            await self._go_on(back)

    def _missing(self) -> dict[str, DittoheadError]:
        """Return what is missing, after making again what can be; blocking."""
        try:
            names = self._stations.missing_names()
        except StationMissing as error:
            self._must_not_be_replaced()
            return {"": error}
        except OSError as error:
            text = f"the root cannot be looked at ({error.strerror})"
            return {"": DittoheadError(text, where=str(self._stations.root))}
        self._replaced = False
        if "state" not in names:
            self._hold_the_lock()
        now = time.monotonic()
        self._since = {name: self._since.get(name, now) for name in names}
        return {name: self._error(name) for name in names if not self._made_again(name, now)}

    def _must_not_be_replaced(self) -> None:
        """See that no other directory stays in the root's place: its lock is not ours."""
        if not self._stations.root.is_dir():
            self._replaced = False
        elif self._replaced:
            raise CannotGoOn(
                "another directory lies in the root's place",
                where=str(self._stations.root),
                hint="Was its file system mounted or unmounted meanwhile? The daemon has to be started again",
            )
        else:
            self._replaced = True  # it may be in the middle of being changed: looked at once more

    def _hold_the_lock(self) -> None:
        try:
            if self._lock.renew():
                log.get().error(log.LOCK_LOST, reason="its file was deleted or replaced; it is held again")
        except Locked as error:
            raise CannotGoOn(
                "another dittohead has taken this root's lock, whose file was deleted",
                where=error.where,
                hint="Only one may run: stop one of them. Never delete state/lock",
            ) from error
        except OSError as error:
            log.get().error(log.LOCK_LOST, reason=f"its file is gone, and cannot be made ({error.strerror})")

    def _made_again(self, name: str, now: float) -> bool:
        if name not in _MADE_AGAIN or now - self._since[name] < _GRACE_S:
            return False
        try:
            self._stations.make_again(name)
        except FileExistsError:  # by hand, in this moment; or a file lies there
            return (self._stations.root / name).is_dir()
        except (OSError, DittoheadError):
            return False
        log.get().warning(log.STATION_MADE, directory=name)
        return True

    def _error(self, name: str) -> DittoheadError:
        missing = self._stations.missing(name)
        hint = "An empty one is made in a moment" if name in _MADE_AGAIN else _HINTS[name]
        return DittoheadError(missing.what, where=missing.where, hint=hint.format(path=missing.where))

    def _say(self, found: dict[str, DittoheadError]) -> None:
        for name in set(found) - set(self._errors):
            log.get().error(log.STATION_MISSING, directory=name or "root", error=str(found[name]))

    async def _go_on(self, back: set[str]) -> None:
        for name in back:
            log.get().warning(log.STATION_BACK, directory=name or "root")
        with contextlib.suppress(StoreError):  # its own probe comes later
            for name in Disks(self._stations, lambda: 0).names:
                await self._targets.lift(name)
        self._on_back()
