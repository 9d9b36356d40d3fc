"""Watch the inbox: events are hints, the scan is the truth.

Arm the watch, then scan; scan again on every hint, on every error and every few seconds. An event
only ever says "look soon": what is ready is decided by names and types on disk. The watch is
supervised: when it ends, fails or looks at a directory that is no longer the inbox, it is made
again, and the timed scan goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path

from watchfiles import Change, awatch

from dittohead.config.settings import Watch
from dittohead.folders.stations import Scan, Stations
from dittohead.model.errors import ItemError
from dittohead.model.states import Station
from dittohead.system import log
from dittohead.system.files import walk
from dittohead.system.machine_faults import short_of
from dittohead.system.mounts import filesystem_type, needs_polling
from dittohead.system.threads import Hung, in_own_thread
from dittohead.system.waiting import event_or_time
from dittohead.toolkit.backoff import wait_s

#: watchfiles looks for collected events this often; a hint takes one and a half of it. 11 ms keeps
#: rename-to-claim under 20 ms at half a percent of one core when idle.
_STEP_MS = 11
_DEBOUNCE_MS = 60

#: Without events the inbox is looked at at least this often.
_POLL_S = 1.0

#: A scan that shows no sign of life for this long hangs.
_STALL_S = 30.0

#: A scan may use at most one part in this many of the time, however large the inbox.
_REST = 10

#: How long the self-test waits for its own event before events are given up for polling.
_SELF_TEST_S = 5.0

_RETRY_FIRST_S, _RETRY_MOST_S = 0.5, 30.0


class Watcher:
    """Looks at the inbox and hands each scan to `on_scan`; never touches what it sees."""

    def __init__(self, stations: Stations, settings: Watch, on_scan: Callable[[Scan], None]) -> None:
        self._stations, self._settings, self._on_scan = stations, settings, on_scan
        self._inbox = stations.path(Station.INBOX)
        self._hint = asyncio.Event()
        self._rearm = asyncio.Event()
        self._back = asyncio.Event()  # the inbox was missing and is there again
        self._decided = asyncio.Event()  # armed for the first time, or given up
        self._armed_inode: tuple[int, int] | None = None
        self._renamed: set[bytes] = (
            set()
        )  # names that came as their dotted ones went, since the last scan began
        self.mode = "starting"  #: "inotify", "polling", or "starting"; "missing" without an inbox
        self.reason = ""  #: why that mode
        self.last_scan_at = 0.0  #: of the last scan that worked, seconds since the epoch
        self.losses = 0  #: times the watch had to be made again
        self.ready = asyncio.Event()  #: the watch is armed (or given up) and a scan has been done since

    def scan_soon(self) -> None:
        """Scan soon."""
        self._hint.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        polling = self._polling_reason()
        async with asyncio.TaskGroup() as group:
            if polling:
                self.mode, self.reason = "polling", polling
                log.get().info(log.WATCH_ARMED, mode=self.mode, reason=polling)
            else:
                group.create_task(self._keep_watch(), name="watch:events")
                await self._decided.wait()
            group.create_task(self._keep_scanning(), name="watch:scan")

    def _polling_reason(self) -> str:
        if self._settings.mode == "polling":
            return "set by watch: {mode: polling}"
        kind = filesystem_type(self._inbox)
        if self._settings.mode == "auto" and needs_polling(kind):
            return f"{kind} sends no events for what others do"
        return ""

    # -- scans -------------------------------------------------------------------------------

    async def _keep_scanning(self) -> None:
        while True:
            self._hint.clear()
            started = time.monotonic()
            await self._scan_once()
            # A large inbox under a storm of events is not to be scanned without pause.
            await asyncio.sleep(min((time.monotonic() - started) * _REST, 2.0) if self._hint.is_set() else 0)
            limit = self._settings.interval
            if self.mode != "inotify":
                limit = min(limit, _POLL_S)
            await event_or_time(self._hint, limit)

    async def _scan_once(self) -> None:
        renamed, self._renamed = self._renamed, set()
        try:
            # In a thread of its own: one that hangs must not use up those of the loop.
            scan = await in_own_thread(
                functools.partial(self._stations.scan, renamed=renamed), key="inbox", stall_s=_STALL_S
            )
        except (OSError, Hung) as error:
            self._renamed |= renamed
            if short := short_of(error):  # which says nothing of the inbox
                log.get().warning(log.MACHINE_SHORT, of=short, task="watcher")
                return
            why = "its file system does not answer" if isinstance(error, Hung) else str(error.strerror)
            if self.mode != "missing":
                log.get().error(log.WATCH_LOST, inbox=str(self._inbox), reason=why)
            self.mode, self.reason = "missing", f"the inbox cannot be read: {why}"
            self._rearm.set()
            self._on_scan(Scan(arrivals=[], uploads=[], strays=[], inode=(0, 0)))
            self.ready.set()
            return
        if self._armed_inode is not None and scan.inode != self._armed_inode:
            self._armed_inode = None
            self._rearm.set()  # the watch sees a directory that is no longer the inbox
        if self.mode == "missing":
            self.mode = "polling"
            self._rearm.set()
            self._back.set()
        self.last_scan_at = time.time()
        self._on_scan(scan)
        self.ready.set()

    # -- events ------------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        losses = 0  #: since a watch that held
        while True:
            self._rearm = asyncio.Event()
            started = time.monotonic()
            try:
                await self._watch()
                reason = "the inbox was replaced"
            except Exception as error:  # noqa: BLE001  # whatever the watch fails with, scanning goes on
                reason = f"{type(error).__name__}: {error}"
            self._armed_inode = None
            self.losses += 1
            if self.mode != "missing":
                self.mode, self.reason = "polling", f"the watch was lost ({reason})"
            self._decided.set()
            log.get().warning(log.WATCH_LOST, reason=reason, losses=self.losses)
            self._hint.set()
            losses = 1 if time.monotonic() - started > _RETRY_MOST_S else losses + 1
            wait = wait_s(losses, first_s=_RETRY_FIRST_S, most_s=_RETRY_MOST_S)
            self._back.clear()
            await event_or_time(self._back, wait)

    async def _watch(self) -> None:
        status = os.stat(self._inbox)
        events = awatch(
            self._inbox,
            watch_filter=None,
            recursive=False,
            step=_STEP_MS,
            debounce=_DEBOUNCE_MS,
            stop_event=self._rearm,
            force_polling=False,
        )
        test = asyncio.create_task(self._self_test(), name="watch:self-test")
        try:
            async for changes in events:
                if self._armed_inode is None and not self._rearm.is_set():
                    self._armed_inode = (status.st_dev, status.st_ino)
                    self.mode, self.reason = "inotify", ""
                    self._decided.set()
                    log.get().info(log.WATCH_ARMED, mode="inotify")
                    self._hint.set()
                self._note_renames(changes)
                # What only went away brings no arrival; our own claims are most of those.
                if any(change is not Change.deleted for change, _ in changes) or any(
                    path == str(self._inbox) for _, path in changes
                ):
                    self._hint.set()
        finally:
            test.cancel()
            await asyncio.gather(test, return_exceptions=True)

    def _note_renames(self, changes: Collection[tuple[Change, str]]) -> None:
        """Note which names came as their dotted ones went.

        Only of what was told together (within `_DEBOUNCE_MS`): a rename is two events, one right after the
        other (inotify(7)), and a dotted folder that was deleted says nothing of one that is made later.
        """
        went = {path for change, path in changes if change is Change.deleted}
        for change, path in changes:
            folder, name = os.path.split(path)
            dotted = os.path.join(folder, f".{name}")
            if change is Change.added and dotted in went:
                self._renamed.add(os.fsencode(name))

    async def _self_test(self) -> None:
        """Make events of our own until one arrives: only then is the watch known to be armed.

        awatch does not say when it is armed; a file system may also just send no events.
        """
        end = time.monotonic() + _SELF_TEST_S
        while self._armed_inode is None and time.monotonic() < end:
            probe = self._inbox / f".dittohead-{uuid.uuid4().hex}"
            with contextlib.suppress(OSError):
                probe.mkdir(0o700)
                probe.rmdir()
            await asyncio.sleep(_STEP_MS * 3 / 1000)
        if self._armed_inode is None:
            kind = filesystem_type(self._inbox)
            self.mode, self.reason = "polling", f"no events arrive here ({kind})"
            self._decided.set()
            log.get().warning(log.WATCH_ARMED, mode=self.mode, reason=self.reason)
            self._hint.set()


async def stale_uploads(
    stations: Stations, uploads: Sequence[bytes], older_than_s: float
) -> AsyncIterator[tuple[bytes, float, int]]:
    """Yield (name, age in seconds, bytes) of each dotted folder that has not been written to for some time.

    The age is that of the last change of anything inside, by ctime: what copies old files sets their mtime
    back, and nobody can set a ctime. Nothing dotted is opened or changed.

    Args:
        uploads: names of dotted folders in the inbox, as bytes.
        older_than_s: only those that nobody has written to for this time. Seconds.
    """
    for name in uploads:
        found = await asyncio.to_thread(_newest, stations.folder(Station.INBOX, name))
        if found is not None and time.time() - found[0] >= older_than_s:
            yield name, time.time() - found[0], found[1]


def _newest(folder: Path) -> tuple[float, int] | None:
    """Return (ctime of the newest thing inside, bytes), as far as it can be looked at."""
    newest, size = 0.0, 0
    try:
        newest = os.lstat(folder).st_ctime
        for found in walk(folder):
            # The directory too: a name in it may have come, gone or changed last.
            newest = max(newest, found.status.st_ctime, os.fstat(found.dir_fd).st_ctime)
            size += found.status.st_size if found.kind == "file" else 0
    except (OSError, ItemError):  # changed meanwhile, closed to us, or deeper than can be handled
        return None if newest == 0.0 else (newest, size)
    return newest, size
