"""One file: read, hashed and sent in one pass, continued after a break, confirmed and made durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dittohead_send.errors import TEMPORARY, SendError
from dittohead_send.local import POINT, ChangedError, File, Reader, State
from dittohead_send.progress import Progress
from dittohead_send.remote import Open, Session
from dittohead_send.words import shown

#: Read, hashed and compared at once. Bytes.
BLOCK = 2 << 20
#: Requests of one file that are not answered yet: 8 MiB at OpenSSH's size of a request.
_WINDOW = 32
#: How often a file is sent that changes meanwhile.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Sent:
    """A file that is on the server."""

    digest: str
    state: State  #: of the file here, when it was read
    is_durable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """What is on the server of a file before it is sent."""

    size: int  #: bytes that lie there
    digest: str | None  #: of the whole file, if it was confirmed
    points: Mapping[int, str]  #: digests of beginnings that were confirmed


#: Called with (offset, digest of what is before it) when so much of a file is on the server's disk.
OnPoint = Callable[[int, str], None]


async def send(
    session: Session,
    place: bytes,
    file: File,
    earlier: Earlier | None,
    progress: Progress,
    on_point: OnPoint,
    *,
    posix: bool,
) -> Sent:
    """Send one file to its place.

    What lies there is never believed by its size alone: a server that lost power may keep the length of a
    file and lose its content. It counts if its digest was noted after the server had made it durable.
    Everything else is read back and compared, and sent from the first block that differs.

    Raises: SendError: it cannot be read, or changes again and again; ConnectionGone.
    """
    for _ in range(_TRIES):
        one = _Transfer(session, place, file, earlier, progress, on_point, posix)
        try:
            return await one.run()
        except ChangedError:
            progress.take_back(one.confirmed)
            earlier = Earlier(size=-1, digest=None, points={})
    raise SendError(
        "the file changes while it is sent",
        where=shown(file.path),
        hint="Wait until no program writes to it, then type the same command again; it continues",
        status=TEMPORARY,
    )


class _Transfer:
    def __init__(
        self,
        session: Session,
        place: bytes,
        file: File,
        earlier: Earlier | None,
        progress: Progress,
        on_point: OnPoint,
        posix: bool,
    ) -> None:
        self._session, self._place, self._file, self._earlier = session, place, file, earlier
        self._progress, self._on_point, self._posix = progress, on_point, posix
        self._window = asyncio.Semaphore(_WINDOW)
        self._writes: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        self.confirmed = 0

    async def run(self) -> Sent:
        if self._earlier is None and self._file.state.size <= self._session.chunk:
            return await self._small()
        reader = await asyncio.to_thread(Reader, self._file)
        try:
            if self._earlier is not None and await self._is_whole(reader):
                return Sent(reader.digest, reader.state, is_durable=True)
            return await self._all(reader)
        finally:
            for task in self._writes:
                task.cancel()
            await asyncio.gather(*self._writes, return_exceptions=True)
            reader.close()

    async def _small(self) -> Sent:
        """Send a new file that fits one request; all about it is asked for at once."""
        data, digest, state = await asyncio.to_thread(_whole, self._file)
        file = await self._session.open(self._place, fresh=True)
        try:
            mode, mtime = _mode(self._file, posix=self._posix), seconds(state.mtime_ns)
            # Its size is compared with all others' at the end, which costs a request for each folder.
            _, _, synced = await asyncio.gather(file.write(data, 0), file.describe(mode, mtime), file.sync())
        finally:
            await file.close()
        self._count(len(data), sent=True)
        return Sent(digest, state, is_durable=synced)

    async def _is_whole(self, reader: Reader) -> bool:
        """Tell whether the journal says that the whole file is there; the reader has read it then."""
        earlier = self._earlier
        if earlier is None or earlier.digest is None or earlier.size != reader.state.size:
            return False
        while reader.left:
            self._count(len(await asyncio.to_thread(reader.read, BLOCK)), sent=False)
        if reader.digest == earlier.digest:
            await asyncio.to_thread(reader.check)
            return True
        self._forget()
        return False

    def _forget(self) -> None:
        self._progress.take_back(self.confirmed)
        self.confirmed = 0

    async def _all(self, reader: Reader) -> Sent:
        if reader.left != reader.state.size:  # read once already, in vain
            reader.rewind()
        known = 0 if self._earlier is None else await self._known(reader, self._earlier)
        file = await self._session.open(self._place, fresh=self._earlier is None)
        try:
            there = (await file.state()).size if self._earlier is not None else 0
            if there > reader.state.size:
                await file.cut(reader.state.size)
            durable = await self._content(reader, file, known, there)
            return await self._confirmed(reader, file, durable)
        finally:
            await file.close()

    async def _known(self, reader: Reader, earlier: Earlier) -> int:
        """Read to the last point whose digest in the journal is that of the file here; return its offset."""
        points = earlier.points
        usable = [at for at in points if at % BLOCK == 0 and 0 < at <= min(earlier.size, reader.state.size)]
        for at in sorted(usable, reverse=True):
            while reader.state.size - reader.left < at:
                self._count(len(await asyncio.to_thread(reader.read, BLOCK)), sent=False)
            if reader.digest == points[at]:
                return at
            self._forget()
            reader.rewind()
        return 0

    async def _content(self, reader: Reader, file: Open, offset: int, there: int) -> bool:
        """Send from an offset on; what lies there is compared first. Return whether points were durable."""
        durable = True
        ahead = asyncio.create_task(asyncio.to_thread(reader.read, BLOCK))
        comparing = offset < there
        try:
            while block := await ahead:
                ahead = asyncio.create_task(asyncio.to_thread(reader.read, BLOCK))
                same = 0
                if comparing:
                    found = await file.read(min(len(block), there - offset), offset)
                    same = len(found) if block.startswith(found) else 0
                    comparing = same == len(block) and offset + same < there
                    self._count(same, sent=False)
                await self._write(file, block[same:] if same else block, offset + same)
                offset += len(block)
                if offset % POINT == 0:
                    durable = await self._point(reader, file, offset) and durable
        finally:
            if not ahead.done():
                await asyncio.wait([ahead])
            if not ahead.cancelled():
                ahead.exception()
        await self._drained()
        return durable

    async def _point(self, reader: Reader, file: Open, offset: int) -> bool:
        """Have the server make it durable, and note it."""
        await self._drained()
        if not await file.sync():
            return False
        if (digest := reader.digests.get(offset)) is not None:
            self._on_point(offset, digest)
        return True

    async def _write(self, file: Open, data: bytes, offset: int) -> None:
        view, chunk = memoryview(data), self._session.chunk
        for start in range(0, len(data), chunk):
            await self._window.acquire()
            self._raise()
            task = asyncio.create_task(self._one(file, bytes(view[start : start + chunk]), offset + start))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)

    async def _one(self, file: Open, data: bytes, offset: int) -> None:
        try:
            await file.write(data, offset)
            self._count(len(data), sent=True)
        except Exception as error:  # noqa: BLE001  # raised by who writes next
            self._failed = self._failed or error
        finally:
            self._window.release()

    async def _drained(self) -> None:
        while self._writes:
            await asyncio.wait(self._writes)
        self._raise()

    def _raise(self) -> None:
        if self._failed is not None:
            raise self._failed

    async def _confirmed(self, reader: Reader, file: Open, durable: bool) -> Sent:
        await asyncio.to_thread(reader.check)
        mode, mtime = _mode(self._file, posix=self._posix), seconds(reader.state.mtime_ns)
        # Sent at once, carried out in this order.
        _, synced, there = await asyncio.gather(file.describe(mode, mtime), file.sync(), file.state())
        if there.size != reader.state.size:
            raise SendError(
                f"the server has {there.size:,} bytes of this file, and not {reader.state.size:,}",
                where=shown(self._file.path),
                hint="Type the same command again; it continues. If it happens again, tell the administrator",
                status=TEMPORARY,
            )
        return Sent(reader.digest, reader.state, is_durable=durable and synced)

    def _count(self, count: int, *, sent: bool) -> None:
        self.confirmed += count
        self._progress.add(count, sent=sent)


def _whole(file: File) -> tuple[bytes, str, State]:
    """Read a small file. Blocking. Raises: ChangedError: also where it has grown."""
    reader = Reader(file)
    try:
        if reader.state.size != file.state.size:
            raise ChangedError
        data = reader.read(reader.state.size)
        reader.check()
    finally:
        reader.close()
    return data, reader.digest, reader.state


def _mode(file: File, *, posix: bool) -> int:
    """Return the mode of a copy: the daemon reads it by its group. Windows has none: the usual one."""
    return file.mode & 0o777 | 0o640 if posix else 0o664


def seconds(mtime_ns: int) -> int | None:
    """Return a time as it is sent, or None where it is not.

    Times have 32 bits. 0 is what rsync gives to an unfinished file, and the daemon waits for such a file.
    """
    found = mtime_ns // 1_000_000_000
    return found if 0 < found < 1 << 32 else None
