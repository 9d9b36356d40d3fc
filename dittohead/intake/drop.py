"""One folder of a source, by the uploader's protocol: fetched as .NAME, durable, renamed to NAME."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from dittohead.contract.source import Fetch, Item, Sighting, Upstream
from dittohead.folders.stations import Stations
from dittohead.model.errors import ItemError
from dittohead.model.states import ItemState, Station
from dittohead.store import Store
from dittohead.store import drops as drop_store
from dittohead.store import items as item_store
from dittohead.store.drops import SourceDrop
from dittohead.system import fail_points, files, log

#: Items read from the store at once, and fetched files recorded at once.
_PAGE = 500


class Fetching(Fetch):
    """The folder's items from the store, and what became of each to the store."""

    def __init__(self, store: Store, drop: SourceDrop, root: Path, on_fetched: Callable[[int], None]) -> None:
        self._store, self._drop, self._on_fetched = store, drop, on_fetched
        self.root = root
        self.log = log.get().bind(source=drop.source, folder=drop.folder)
        self._done: list[tuple[int, str]] = []
        self.how: dict[str, int] = {}  #: how files were verified -> how many
        self.changes = 0

    async def items(self) -> AsyncIterator[Item]:
        after: str | None = None
        while page := await self._store.read(drop_store.page, self._drop.id, after, _PAGE):
            for item in page:
                yield item
            after = page[-1].key

    async def fetched(self, item: Item, how: str) -> None:
        self._done.append((item.id, item.version))
        self.how[how] = self.how.get(how, 0) + 1
        self._on_fetched(item.size)
        if len(self._done) >= _PAGE:
            await self.flush()

    async def flush(self) -> None:
        """Record what was fetched so far."""
        done, self._done = self._done, []
        if done:
            await self._store.write(drop_store.fetched, done)

    async def changed(self, now: Sighting) -> None:
        self.changes += 1
        self.log.warning(log.SOURCE_CHANGED, key=now.key)
        await self._store.write(item_store.saw, self._drop.source, [now], time.time())

    async def gone(self, item: Item) -> None:
        self.log.warning(log.SOURCE_GONE, key=item.key)
        await self._leave_out(item, ItemState.GONE, "it was no longer there when it was to be fetched")

    async def refuse(self, item: Item, why: str) -> None:
        self.log.warning(log.SOURCE_REFUSED, key=item.key, reason=why)
        await self._leave_out(item, ItemState.REFUSED, why)

    async def _leave_out(self, item: Item, state: ItemState, why: str) -> None:
        with contextlib.suppress(OSError):  # what it is not allowed to be is not there
            os.unlink(os.path.join(self.root, item.path))
        await self._store.write(drop_store.leave_out, item.id, state, why)


class Dropper:
    """Fetches folders and renames them into the inbox; each step can be repeated after a crash."""

    def __init__(self, store: Store, stations: Stations) -> None:
        self._store, self._stations = store, stations

    def hidden(self, drop: SourceDrop) -> Path:
        """Return where a folder is fetched to."""
        return self._stations.path(Station.INBOX) / f".{drop.folder}"

    async def bring(self, upstream: Upstream, drop: SourceDrop, on_fetched: Callable[[int], None]) -> bool:
        """Fetch a folder and drop it into the inbox; False when nothing was left of it.

        # 1 mkdir .NAME  2 record its inode  3 fetch and verify  4 syncfs  5 record it as dropped
        # 6 rename to NAME  7 fsync the inbox.  A crash after 5 is corrected by `publish`.

        Args:
            on_fetched: is given the size of each file that is there.

        Raises: StepError; ItemError: only this folder is not available now.
        """
        root = self.hidden(drop)
        ino = await asyncio.to_thread(self._claim_directory, drop)
        fail_points.point("source.made")
        if drop.ino != str(ino):
            await self._store.write(drop_store.made, drop.id, ino)
        ctx = Fetching(self._store, drop, root, on_fetched)
        try:
            await upstream.fetch(ctx)
        finally:
            await ctx.flush()
        fail_points.point("source.fetched")
        count, size, undone = await self._store.read(drop_store.progress, drop.id)
        if undone or ctx.changes:
            raise ItemError(f"{max(undone, ctx.changes)} of its items changed while they were fetched")
        if not count:
            await asyncio.to_thread(shutil.rmtree, root)
            await self._store.write(drop_store.give_back, drop.id, "nothing was left to fetch")
            return False
        await asyncio.to_thread(_check_tree, root, count, size)
        await asyncio.to_thread(files.sync_filesystem, root)
        fail_points.point("source.durable")
        verified = ", ".join(f"{files} by {how}" for how, files in sorted(ctx.how.items()))
        if not await self._store.write(drop_store.dropped, drop.id, verified, time.time()):
            raise ItemError("some of its items changed while they were fetched")
        fail_points.point("source.recorded")
        ctx.log.info(log.SOURCE_DROPPED, files=count, bytes=size, verified=ctx.how)
        self.publish(await self._store.read(drop_store.get, drop.id))
        return True

    def _claim_directory(self, drop: SourceDrop) -> int:
        """Make .NAME, or find the one made before; return its st_ino. Another's upload is left alone."""
        path = self.hidden(drop)
        if os.path.lexists(path.parent / drop.folder):
            raise ItemError("a folder of this name is in the inbox", where=str(path.parent / drop.folder))
        with contextlib.suppress(FileExistsError):
            path.mkdir()
        status = os.lstat(path)
        # Empty: made just now, or right before a crash, when its inode was not recorded.
        fresh = status.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode) and not os.listdir(path)
        mine = drop.ino == str(status.st_ino) or fresh
        if not stat.S_ISDIR(status.st_mode) or not mine:
            raise ItemError(
                "somebody else's upload of this name is under way",
                where=str(path),
                hint="Remove it if it was given up; this folder waits",
            )
        return status.st_ino

    def publish(self, drop: SourceDrop) -> bool:
        """Rename .NAME to NAME if that was not done yet; True when it is done now.

        Raises: ItemError: the name is taken; it is tried again.
        """
        hidden = os.fsencode(self.hidden(drop))
        visible = os.path.join(os.path.dirname(hidden), os.fsencode(drop.folder))
        try:
            if str(os.lstat(hidden).st_ino) != drop.ino:
                return False  # a later upload of somebody else's
            files.give_name(hidden, visible)
        except FileNotFoundError:
            return False
        except FileExistsError as error:
            raise ItemError("a folder of this name is in the inbox", where=os.fsdecode(visible)) from error
        fail_points.point("source.renamed")
        files.fsync_dir(os.path.dirname(visible))
        return True

    def lies_somewhere(self, drop: SourceDrop) -> bool:
        """Tell whether a dropped folder is in inbox/ or processing/, under whatever name. Blocking."""
        places = [self._stations.path(station) for station in (Station.INBOX, Station.PROCESSING)]
        for place in places:
            with contextlib.suppress(FileNotFoundError):
                if str(os.lstat(place / drop.folder).st_ino) == drop.ino:
                    return True
        for place in places:
            with os.scandir(place) as entries:
                if any(str(entry.inode()) == drop.ino for entry in entries):
                    return True
        return False


def _check_tree(root: Path, count: int, size: int) -> None:
    """See that the folder holds what was fetched and nothing else. Raises: ItemError."""
    files_there = bytes_there = 0
    for found in files.walk(root):
        if not found.is_empty_dir:
            files_there += 1
            bytes_there += found.status.st_size
    if (files_there, bytes_there) != (count, size):
        raise ItemError(
            f"it holds {files_there} files of {bytes_there:,} bytes; {count} of {size:,} were fetched",
            where=str(root),
            hint="Remove it if nobody else writes there; it is fetched again",
        )
