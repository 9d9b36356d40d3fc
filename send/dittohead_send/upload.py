"""One folder, by the uploader's protocol: sent as .NAME, confirmed, its manifest last, then renamed to NAME.

The order, each step only after the one before:
  1 make .NAME, and the journal in it        4 write the manifest
  2 send and confirm every file              5 remove the journal
  3 compare both sides once more             6 rename .NAME to NAME, which must not exist
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import os
import platform
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from dittohead_send import __version__, local, manifest
from dittohead_send.errors import EXISTS, TEMPORARY, UNAVAILABLE, ConnectionGone, SendError
from dittohead_send.local import File, Listing
from dittohead_send.progress import Progress
from dittohead_send.remote import Remote, Session, There
from dittohead_send.transfer import BLOCK, Earlier, Sent, seconds, send
from dittohead_send.words import counted, shown, size, some

T = TypeVar("T")

#: Files under way at once in a session: a small one waits for answers more than for the line.
_SMALL_AT_ONCE = 8
#: Files up to this size count as small. Bytes.
_SMALL = 256 << 10
#: How often the journal is written. Seconds.
_JOURNAL_S = 1.0
#: How often what changed here while the rest was sent is sent again.
_ROUNDS = 3
#: Of a manifest or journal; a million files with long names. Bytes.
_RECORD_MOST = 1 << 30
#: Enough for the lines of comment at the top. Bytes.
_HEADER_MOST = 4096


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is sent, and as what."""

    name: str
    inbox: bytes  #: as the account names it; b"" for the usual places
    follow: bool  #: what links stand for is sent
    verify: bool  #: everything is read back
    restart: bool  #: what an earlier run left is removed first


@dataclass(kw_only=True)
class Outcome:
    """What became of it."""

    already: bool = False  #: it was in the inbox
    digests: dict[bytes, str]


class Upload:
    """One folder on its way; it lives longer than a connection."""

    def __init__(self, listing: Listing, plan: Plan, progress: Progress) -> None:
        self.listing = listing
        self.plan = plan
        self.progress = progress
        self.inbox = plan.inbox
        self._identity = listing.identity()
        self._sent: dict[bytes, Sent] = {}  #: confirmed by this run
        self._earlier = manifest.Record()  #: what the journal says
        self._is_begun = False  #: .NAME is ours
        self._renaming = False  #: the rename was asked for, and the answer has not come
        self._undescribed = 0
        self._posix = os.name == "posix"

    @property
    def not_kept(self) -> str:
        """What of the folder the server did not take, in words; "" for nothing."""
        return f"modes or times of {counted(self._undescribed, 'folder')}" if self._undescribed else ""

    async def attempt(self, remote: Remote) -> Outcome:
        """Send what is missing, on one connection.

        Raises: ConnectionGone: to be called again, on another one; SendError.
        """
        session = remote.first
        await self._find_inbox(session)
        if (found := await self._is_there(session)) is not None:
            return found
        there = await self._begin(session)
        await self._check_space(session, there)
        await self._make_folders(session, there)
        for _ in range(_ROUNDS):
            await self._send_all(remote, there)
            if await self._settled():
                break
        else:
            raise SendError(
                "the folder changes while it is sent",
                where=shown(os.fsencode(self.listing.root)),
                hint="Wait until no program writes to it, then type the same command again; it continues",
                status=TEMPORARY,
            )
        await self._compare(session)
        if self.plan.verify:
            await self._verify(remote)
        await self._describe_folders(session)
        await self._finish(session)
        return Outcome(digests=self._digests())

    # Places

    @property
    def _hidden(self) -> bytes:
        return self._below(b"." + self.plan.name.encode())

    @property
    def _ready(self) -> bytes:
        return self._below(self.plan.name.encode())

    def _below(self, name: bytes) -> bytes:
        return self.inbox.rstrip(b"/") + b"/" + name

    def _at(self, path: bytes) -> bytes:
        return self._hidden + b"/" + path if path else self._hidden

    def _where(self, session: Session, path: bytes) -> str:
        return f"{session.address}:{shown(path)}"

    async def _find_inbox(self, session: Session) -> None:
        usual = (b"inbox", b"/srv/dittohead/inbox")
        for path in (self.inbox,) if self.inbox else usual:
            if await session.is_directory(path):
                self.inbox = path
                return
        named = self._where(session, self.inbox) if self.inbox else session.address
        raise SendError(
            "there is no such directory" if self.inbox else "no inbox is in the usual places",
            where=named,
            hint="Ask the administrator for the path of the inbox, and write it behind the colon",
            status=UNAVAILABLE,
        )

    # Begin, or continue

    async def _is_there(self, session: Session) -> Outcome | None:
        """Return the outcome if the folder has its final name already. Raises: SendError: another has it."""
        found = await session.look(self._ready)
        if found is None:
            if self._renaming and await session.look(self._hidden) is None:
                return Outcome(digests=self._digests())  # renamed, and claimed since
            return None
        record = await self._record(session, self._ready, whole=True)
        if record is not None and record.identity is not None and await session.look(self._hidden) is None:
            same = record.identity.content == self._identity.content
            if same and record.digests.keys() == self.listing.files.keys():
                return Outcome(already=True, digests=record.digests)
        raise SendError(
            "a folder of this name is in the inbox",
            where=self._where(session, self._ready),
            hint="Send this one under another name (--name), or wait until the daemon has taken the other",
            status=EXISTS,
        )

    async def _record(self, session: Session, folder: bytes, *, whole: bool) -> manifest.Record | None:
        """Return what manifest and journal of a folder say together; None where there is neither."""
        found = None
        for name in (manifest.NAME, manifest.JOURNAL):
            with contextlib.suppress(SendError):  # of another account, and not to be read
                data = await session.content(folder + b"/" + name, _RECORD_MOST if whole else _HEADER_MOST)
                if data is not None:
                    found = manifest.read(data, found)
        return found

    async def _begin(self, session: Session) -> dict[bytes, There]:
        """Make .NAME, or take up the one that an earlier run left; return what lies in it."""
        there = await session.look(self._hidden)
        if there is not None:
            # What this run has confirmed it knows better than the journal.
            record = await self._record(session, self._hidden, whole=not self._is_begun)
            if record is None or not self._identity.matches(record.identity):
                if not await self._remove_bare(session):
                    raise self._taken(session)
                there = None
            elif self.plan.restart and not self._is_begun:
                await session.remove_all(self._hidden)
                there = None
            elif not self._is_begun:
                self._earlier = record
        if there is None:
            return await self._anew(session)
        self._is_begun = True
        found = await self._tree(session)
        self._check_tree(session, found, whole=False)
        # All was confirmed: from here on, it is under way again.
        if found.pop(manifest.NAME, None) is not None:
            if manifest.JOURNAL not in found:
                await self._write_journal(session)
            await session.remove(self._at(manifest.NAME))
        return found

    async def _remove_bare(self, session: Session) -> bool:
        """Remove .NAME if it was made, and nothing written; return whether it was so."""
        if await session.remove_empty(self._hidden):
            return True
        with contextlib.suppress(SendError):
            entries = await session.entries(self._hidden)
            if all(name == manifest.JOURNAL and not there.size for name, there in entries):
                await session.remove(self._at(manifest.JOURNAL))
                return await session.remove_empty(self._hidden)
        return False

    def _taken(self, session: Session) -> SendError:
        return SendError(
            "another upload of this name has begun there, of another folder or by somebody else",
            where=self._where(session, self._hidden),
            hint="Send this one under another name (--name), or have that one removed",
            status=EXISTS,
        )

    async def _anew(self, session: Session) -> dict[bytes, There]:
        try:
            await session.make(self._hidden)
        except SendError as error:
            if error.status == EXISTS:
                raise self._taken(session) from error
            raise
        self._is_begun = True
        self._sent.clear()
        self._earlier = manifest.Record()
        await self._write_journal(session)
        return {}

    async def _write_journal(self, session: Session) -> None:
        journal = await session.open(self._at(manifest.JOURNAL))
        try:
            data = manifest.text(self._header(), self._earlier.digests)
            for start in range(0, len(data), session.chunk):
                await journal.write(data[start : start + session.chunk], start)
            await journal.sync()
        finally:
            await journal.close()

    async def _tree(self, session: Session) -> dict[bytes, There]:
        """Return all that lies in .NAME."""
        found: dict[bytes, There] = {}
        todo = [b""]
        while todo:
            path = todo.pop()
            for name, there in await session.entries(self._at(path)):
                inner = path + b"/" + name if path else name
                found[inner] = there
                if there.is_folder:
                    todo.append(inner)
        return found

    def _check_tree(self, session: Session, found: dict[bytes, There], *, whole: bool) -> None:
        """Compare names and kinds, and sizes if `whole`. Raises: SendError."""
        ours = {manifest.JOURNAL, manifest.NAME}
        strange = sorted(
            shown(path)
            for path, there in found.items()
            if path not in ours
            and not (path in self.listing.files and there.is_file)
            and not (path in self.listing.folders and there.is_folder)
        )
        if strange:
            raise SendError(
                f"there is something that is not in the folder here: {some(strange)}",
                where=self._where(session, self._hidden),
                hint="If you removed or renamed it here since: --restart sends everything again",
                status=EXISTS,
            )
        if whole:
            wrong = [
                shown(path)
                for path, sent in self._sent.items()
                if path not in found or found[path].size != sent.state.size
            ]
            wrong += [shown(path) for path in self.listing.folders if path and path not in found]
            if wrong:
                raise SendError(
                    f"what was sent is not there as it was confirmed: {some(sorted(wrong))}",
                    where=self._where(session, self._hidden),
                    hint="Tell the administrator. --restart sends everything again",
                    status=TEMPORARY,
                )

    async def _check_space(self, session: Session, there: dict[bytes, There]) -> None:
        present = sum(one.size for path, one in there.items() if path in self.listing.files)
        missing = self.listing.size - present
        free = await session.free(self.inbox)
        if free is not None and missing > free:
            raise SendError(
                f"the server has space for {size(free)}, and {size(missing)} are to be sent",
                where=self._where(session, self.inbox),
                hint="Tell the administrator. When there is space, type the same command again",
                status=TEMPORARY,
            )

    # Folders

    async def _make_folders(self, session: Session, there: dict[bytes, There]) -> None:
        levels: dict[int, list[bytes]] = {}
        for path in self.listing.folders:
            if path and path not in there:
                levels.setdefault(path.count(b"/"), []).append(path)
        for _, paths in sorted(levels.items()):
            await each([self._at(path) for path in paths], session.make, 16)

    async def _give(self, session: Session, path: bytes, mtime: int | None) -> None:
        """Let the inbox's group read and move a directory; otherwise its mode is what the inbox gives it.

        When all is in it: for an account that is not in the group, the kernel takes the setgid bit away, and
        what comes into the directory later would have another group. Source: chmod(2).
        """
        made = await session.look(self._at(path))
        mode = None if made is None or made.mode & 0o770 == 0o770 else made.mode | 0o770
        self._undescribed += not await session.describe(self._at(path), mode, mtime)

    async def _describe_folders(self, session: Session) -> None:
        """Give folders their times, now that nothing is put into them, and make their names durable."""

        async def one(path: bytes) -> None:
            mtime = seconds(self.listing.folders[path].mtime_ns)
            if path:
                await self._give(session, path, mtime)
            await session.sync_directory(self._at(path))

        await each(self.listing.folders, one, 16)

    # Files

    async def _send_all(self, remote: Remote, there: dict[bytes, There]) -> None:
        journal = _Journal(remote.first, self._at(manifest.JOURNAL))
        todo = [file for file in self.listing.files.values() if not self._has(file)]
        for file in self.listing.files.values():
            if self._has(file):
                self.progress.add(file.state.size, sent=False)
                self.progress.file_done()
        small = iter([file for file in todo if file.state.size <= _SMALL])
        large = iter([file for file in todo if file.state.size > _SMALL])
        async with _first_error(), asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(journal.run(), name="journal")
            async with asyncio.TaskGroup() as senders:
                for session in remote.sessions:
                    for files, count in ((large, 1), (small, _SMALL_AT_ONCE)):
                        for _ in range(count):
                            senders.create_task(self._work(session, files, there, journal))
            writer.cancel()
        await journal.flush()

    def _has(self, file: File) -> bool:
        sent = self._sent.get(file.path)
        return sent is not None and sent.state == file.state

    async def _work(
        self, session: Session, files: Iterator[File], there: dict[bytes, There], journal: _Journal
    ) -> None:
        for file in files:
            path = file.path
            earlier = None
            if path in there or path in self._sent:
                earlier = Earlier(
                    size=there[path].size if path in there else -1,
                    digest=self._earlier.digests.get(path),
                    points=self._earlier.points.get(path, {}),
                )

            def note(offset: int, digest: str, path: bytes = path) -> None:
                self._earlier.points.setdefault(path, {})[offset] = digest
                journal.add(manifest.point(offset, digest, path))

            # From now on something of it may be there, whatever happens.
            there.setdefault(path, There(is_folder=False, is_file=True, size=-1, mode=0))
            sent = await send(session, self._at(path), file, earlier, self.progress, note, posix=self._posix)
            self._sent[path] = sent
            there[path] = There(is_folder=False, is_file=True, size=sent.state.size, mode=0)
            if sent.is_durable:
                journal.add(manifest.line(sent.digest, path))
            self.progress.file_done()

    async def _settled(self) -> bool:
        """List the folder here once more; return whether it is as it was sent. If not, a round follows."""
        now = await asyncio.to_thread(local.scan, self.listing.root, follow=self.plan.follow)
        if now.files.keys() != self.listing.files.keys() or now.folders.keys() != self.listing.folders.keys():
            names = sorted(shown(path) for path in now.files.keys() ^ self.listing.files.keys()) or sorted(
                shown(path) for path in now.folders.keys() ^ self.listing.folders.keys()
            )
            raise SendError(
                f"the folder changed while it was sent: {some(names)} came or went",
                where=shown(os.fsencode(self.listing.root)),
                hint="Wait until no program writes to it, then type the same command again; it continues",
                status=TEMPORARY,
            )
        changed = [path for path, sent in self._sent.items() if sent.state != now.files[path].state]
        self.listing.files, self.listing.folders = now.files, now.folders
        for path in changed:
            self.progress.take_back(self._sent[path].state.size)
            self.progress.files_done -= 1
            if self._sent[path].is_durable:  # where only its times changed, it is not sent again
                self._earlier.digests[path] = self._sent[path].digest
        return not changed

    async def _compare(self, session: Session) -> None:
        self._check_tree(session, await self._tree(session), whole=True)

    async def _verify(self, remote: Remote) -> None:
        """Read everything back, and compare. Raises: SendError."""
        paths = iter(sorted(self._sent))
        wrong: list[str] = []

        async def one(session: Session) -> None:
            for path in paths:
                digest = await self._read_back(session, path)
                wrong.extend([shown(path)] if digest != self._sent[path].digest else [])

        await each(remote.sessions, one, len(remote.sessions))
        if wrong:
            raise SendError(
                f"read back, this is not what was sent: {some(sorted(wrong))}",
                where=self._where(remote.first, self._hidden),
                hint="Tell the administrator: the disk may be damaged. --restart sends everything again",
            )

    async def _read_back(self, session: Session, path: bytes) -> str:
        made = hashlib.sha256()
        file = await session.open(self._at(path), read=True)
        try:
            offset, left = 0, self._sent[path].state.size
            while left and (block := await file.read(min(BLOCK, left), offset)):
                await asyncio.to_thread(made.update, block)
                offset, left = offset + len(block), left - len(block)
        finally:
            await file.close()
        return made.hexdigest()

    # The end

    def _digests(self) -> dict[bytes, str]:
        return {path: sent.digest for path, sent in self._sent.items()}

    def _header(self) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        return manifest.header(
            self._identity,
            [
                f"dittohead-send {__version__}",
                f"sender: {local.user()}@{platform.node()}",
                f"time: {now:%Y-%m-%dT%H:%M:%SZ}",
                f"files: {len(self.listing.files)}, bytes: {self.listing.size}",
            ],
        )

    async def _finish(self, session: Session) -> None:
        self._identity = self.listing.identity()
        data = manifest.text(self._header(), self._digests())
        place = self._at(manifest.NAME)
        file = await session.open(place)
        try:
            for start in range(0, len(data), session.chunk):
                await file.write(data[start : start + session.chunk], start)
            _, _, there = await asyncio.gather(file.describe(0o664, None), file.sync(), file.state())
        finally:
            await file.close()
        if there.size != len(data) or await session.content(place, len(data)) != data:
            raise SendError(
                "the manifest is not there as it was written",
                where=self._where(session, place),
                status=TEMPORARY,
            )
        await session.remove(self._at(manifest.JOURNAL))
        await self._give(session, b"", seconds(self.listing.folders[b""].mtime_ns))
        await session.sync_directory(self._hidden)
        self._renaming = True
        try:
            await session.rename(self._hidden, self._ready)
        except SendError as error:
            self._renaming = False
            raise SendError(
                f"all is there as .{self.plan.name}, and could not get its name ({error.what})",
                where=self._where(session, self._ready),
                hint="Type the same command again, when no folder of this name is in the inbox",
                status=error.status,
            ) from error
        await session.sync_directory(self.inbox)


class _Journal:
    """Lines that are added to the journal, some at a time, by one writer."""

    def __init__(self, session: Session, place: bytes) -> None:
        self._session, self._place = session, place
        self._lines: list[bytes] = []

    def add(self, line: bytes) -> None:
        """Have a line written soon."""
        self._lines.append(line)

    async def run(self) -> None:
        """Write from time to time, until cancelled."""
        while True:
            await asyncio.sleep(_JOURNAL_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what was added. A line break stands before it: what a break has torn is a line of its own."""
        if not self._lines:
            return
        data, self._lines = b"\n" + b"".join(self._lines), []
        file = await self._session.open(self._place)
        try:
            at = (await file.state()).size
            for start in range(0, len(data), self._session.chunk):
                await file.write(data[start : start + self._session.chunk], at + start)
        finally:
            await file.close()


async def each(items: Iterable[T], action: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Do something with each item, so many at once; at the first error the others are broken off."""
    left = iter(items)

    async def work() -> None:
        for item in left:
            await action(item)

    async with _first_error(), asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(work())


class _first_error:  # read as a function
    """Raise one of a group's errors: what a person can act on before a broken connection."""

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, BaseExceptionGroup):
            return
        found = list(_leaves(error))
        for wanted in (SendError, ConnectionGone):
            for one in found:
                if isinstance(one, wanted):
                    raise one from error
        raise found[0] from error


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(one)
        else:
            yield one
