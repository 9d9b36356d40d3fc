"""A service's directories over SFTP.

`transfer/NAME.incomplete` is not looked at. When it is renamed to `transfer/NAME`, the service takes it away
at some time. The answer is `accepted/DAY/NAME/NAME-UUID-ingest-report.xml` and `.html`, or the same in
`rejected/`. That a name is not in `transfer/` proves nothing.
Source: digitalpreservation.fi, the interfaces of the national services.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from dittohead.model.errors import ItemError, StepError, TargetError, TransientError
from dittohead.model.text import display, short
from dittohead.system import fail_points, files
from dittohead.workers.submit import report
from dittohead.workers.submit.notes import Attempt
from dittohead.workers.submit.options import SftpPlace
from dittohead.workers.submit.service import PackageFile, PreservationService, Said, Sight
from dittohead.workers.submit.ssh import SshThread

T = TypeVar("T")

#: Bytes that are read from the disk, sent and compared at a time.
_BLOCK = 1 << 20

#: Answers lie in directories named by the service's day, which may not be ours.
_DAYS_BEFORE = timedelta(days=2)

_ENDINGS = ("xml", "html")

_SSH = SshThread()


class SftpService(PreservationService):
    """Speaks with one service; each call is a session of its own."""

    def __init__(self, place: SftpPlace, key: str, hosts: str) -> None:
        self._place, self._key, self._hosts = place, key, hosts

    async def _with(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        async def body() -> T:
            async with _SSH.sftp(self._place, self._key, self._hosts) as client:
                return await work(client)

        try:
            return await _SSH.run(body)
        except (asyncssh.Error, asyncssh.SFTPError, TimeoutError, ConnectionError) as error:
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> StepError:
        where, said = self._place.address, short(str(getattr(error, "reason", "") or error))
        if isinstance(error, (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)):
            return TargetError(f"it has no room ({said})", where=where, full=True)
        if isinstance(error, asyncssh.SFTPPermissionDenied):
            hint = "Ask the service which directories this user may use; see directory: of the step"
            return TargetError(f"it does not allow that ({said})", where=where, hint=hint)
        if isinstance(error, (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)):
            hint = "See directory: of the step, and `dittohead doctor`"
            return TargetError(f"a directory is not there ({said})", where=where, hint=hint)
        if isinstance(error, asyncssh.SFTPError) and not isinstance(
            error, (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection)
        ):
            return TransientError(f"it refuses a request ({said or type(error).__name__})", where=where)
        what = f"the connection broke ({said or type(error).__name__})"
        return TargetError(what, where=where, hint="It goes on where it was, by itself")

    def _path(self, *parts: str) -> str:
        return "/".join((self._place.directory.rstrip("/") or "", *parts))

    def _uri(self, path: str) -> str:
        return f"{self._place.address}/{path.removeprefix('./').lstrip('/')}"

    # -- looking -----------------------------------------------------------------------------

    async def sights_of(self, attempts: Sequence[Attempt]) -> list[Sight]:
        return await self._with(lambda client: self._sights(client, attempts))

    async def _sights(self, client: asyncssh.SFTPClient, attempts: Sequence[Attempt]) -> list[Sight]:
        days = {verdict: await _names(client, self._path(verdict)) for verdict in ("accepted", "rejected")}
        return [await self._seen(client, one, days) for one in attempts]

    async def _seen(self, client: asyncssh.SFTPClient, attempt: Attempt, days: dict[str, list[str]]) -> Sight:
        # The transfer directory first: what leaves it meanwhile is then found among the answers.
        there = await _size(client, self._path("transfer", attempt.name))
        part = await _size(client, self._path("transfer", f"{attempt.name}.incomplete"))
        since = (datetime.fromtimestamp(attempt.at, UTC) - _DAYS_BEFORE).strftime("%Y-%m-%d")
        found = False
        for verdict in ("accepted", "rejected"):
            for day in sorted(days[verdict], reverse=True):
                if day < since:
                    break
                place = self._path(verdict, day, attempt.name)
                names = await _names(client, place)
                found = found or bool(names)
                if sight := self._answer(verdict, place, names, attempt.name):
                    return sight
        if there is not None or found:
            return Sight(state="whole")
        return Sight(state="absent") if part is None else Sight(state="part", size=part)

    def _answer(self, verdict: str, place: str, names: Sequence[str], package: str) -> Sight | None:
        ours = sorted(name for name in names if name.startswith(f"{package}-"))
        reports = [name for name in ours if name.endswith("-ingest-report.xml")]
        if not reports:
            return None
        stem = reports[-1].removesuffix(".xml")
        found = tuple(f"{place}/{stem}.{end}" for end in _ENDINGS if f"{stem}.{end}" in ours)
        transfer = stem.removeprefix(f"{package}-").removesuffix("-ingest-report")
        return Sight(
            state="accepted" if verdict == "accepted" else "rejected",
            handle=transfer,
            where=self._uri(found[0]),
            reports=found,
        )

    async def fetch(self, attempt: Attempt, sight: Sight) -> dict[str, bytes]:
        async def work(client: asyncssh.SFTPClient) -> dict[str, bytes]:
            return {path.rpartition(".")[2]: await _whole(client, path) for path in sight.reports}

        return await self._with(work)

    # -- sending -----------------------------------------------------------------------------

    async def send(
        self,
        attempt: Attempt,
        package: PackageFile,
        sight: Sight,
        *,
        begun: Callable[[str], Awaitable[Attempt]],
        commit: Callable[[], Awaitable[None]],
        progress: Callable[[int], None],
    ) -> None:
        here = asyncio.get_running_loop()

        def tell(done: int) -> None:
            here.call_soon_threadsafe(progress, done)

        target = self._path("transfer", attempt.name)
        fail_points.point("submit.begun")
        if not attempt.committed:
            await self._with(lambda client: _put(client, f"{target}.incomplete", package, sight.size, tell))
        # Otherwise it was whole, and a rename of an earlier try may still be on its way: a part that was made
        # now would be handed over a second time.
        fail_points.point("submit.sent")
        await commit()

        async def rename(client: asyncssh.SFTPClient) -> None:
            try:
                await client.rename(f"{target}.incomplete", target)
            except asyncssh.SFTPNoSuchFile:
                if not attempt.committed:
                    raise

        await self._with(rename)

    # -- taking back -------------------------------------------------------------------------

    async def withdraw(self, attempt: Attempt, *, whole: bool, dry_run: bool) -> Said:
        return await self._with(lambda client: self._withdraw(client, attempt, whole=whole, dry_run=dry_run))

    async def _withdraw(
        self, client: asyncssh.SFTPClient, attempt: Attempt, *, whole: bool, dry_run: bool
    ) -> Said:
        words = "would be removed" if dry_run else "removed"
        names = [f"{attempt.name}.incomplete", *([attempt.name] if whole else [])]
        for name in names:
            path = self._path("transfer", name)
            if await _size(client, path) is not None:
                if not dry_run:
                    with contextlib.suppress(asyncssh.SFTPNoSuchFile):
                        await client.remove(path)
                return True, f"{self._uri(path)}: {words}"
        return False, "nothing of it is in transfer"

    async def examined(self) -> AsyncIterator[Said]:
        async def work(client: asyncssh.SFTPClient) -> list[Said]:
            found: list[Said] = []
            for name in ("transfer", "accepted", "rejected"):
                path = self._path(name)
                is_there = await client.isdir(path)
                found.append((is_there, f"{self._uri(path)} {'is there' if is_there else 'is not there'}"))
            return found

        said = await self._with(work)
        yield True, f"{self._place.address}: the host key is known, and the key of {self._place.key} logs in"
        for one in said:
            yield one


async def _names(client: asyncssh.SFTPClient, path: str) -> list[str]:
    """Return what is in a directory; [] where there is none."""
    try:
        return [name for name in map(str, await client.listdir(path)) if name not in (".", "..")]
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        return []


async def _size(client: asyncssh.SFTPClient, path: str) -> int | None:
    """Return the bytes of a file; None where there is none."""
    try:
        found = await client.lstat(path)
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        return None
    if found.permissions is not None and not stat.S_ISREG(found.permissions):
        raise asyncssh.SFTPFailure(f"{path} is not a file")
    return found.size or 0


async def _whole(client: asyncssh.SFTPClient, path: str) -> bytes:
    async with client.open(path, "rb", encoding=None) as file:
        found: Any = await file.read(report.LARGEST + 1)
        return bytes(found)


async def _put(
    client: asyncssh.SFTPClient, target: str, package: PackageFile, there: int, tell: Callable[[int], None]
) -> None:
    """Write what is missing of a package, and see that all of it is there.

    What is there of an earlier try is read back and compared, and written again where it differs. SFTP has no
    checksums: of the rest, the size is compared, and SSH has seen that no byte changed on its way.

    Raises: ItemError: the file is not what its digest says.
    """
    digest, at = hashlib.sha256(), 0
    with _opened(package) as fd:
        mode = "r+b" if there and there <= package.size else "wb"
        async with client.open(target, mode, encoding=None) as file:
            while at < package.size:
                ours = await asyncio.to_thread(_block, fd, at, digest)
                if not ours:
                    break
                same = mode == "r+b" and at + len(ours) <= there and await _reads(file, at, len(ours)) == ours
                if not same:
                    await file.write(ours, at)
                at += len(ours)
                tell(at)
    if at != package.size or digest.hexdigest() != package.sha256:
        raise ItemError(
            "the package is not what was made: its digest is another one. It was not handed over",
            where=display(package.path),
            hint="Look at the disk; then make it again: dittohead rerun",
        )
    size = await _size(client, target)
    if size != package.size:
        raise asyncssh.SFTPFailure(f"{size} bytes are there, not {package.size}")


async def _reads(file: Any, at: int, size: int) -> bytes:
    found: bytes = await file.read(size, at)
    return found


@contextlib.contextmanager
def _opened(package: PackageFile) -> Iterator[int]:
    with files.opened_beneath(Path(package.root), package.path) as fd:
        yield fd


def _block(fd: int, at: int, digest: Any) -> bytes:
    data = os.pread(fd, _BLOCK, at)
    digest.update(data)
    return data
