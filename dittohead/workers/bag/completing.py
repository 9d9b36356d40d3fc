"""Complete a bag: fetch what fetch.txt lists and the bag lacks, from hosts that are allowed.

The payload of a job never changes, so the completed bag is made in the step's directory: the files that were
dropped are copied, each compared with the claim's SHA-256, and what was fetched lies beside them. Whether
that is the right content, the bag's manifests say, by which the completed bag is checked as any other.
Source: RFC 8493, 2.2.3.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO
from urllib.parse import urljoin, urlsplit

import aiohttp
from yarl import URL

from dittohead.contract.worker import Inputs, StepContext
from dittohead.model.errors import ItemError, StepError, TransientError
from dittohead.model.records import Entry
from dittohead.model.text import display, visible
from dittohead.system import files
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit import retry_after
from dittohead.toolkit.bagit import declaration, manifests
from dittohead.toolkit.faulty_files import FaultyFiles
from dittohead.workers.bag.check import top_of

#: Files that are fetched at once.
_AT_ONCE = 2

#: Seconds to connect, and without a byte of an answer.
_CONNECT_S, _SILENT_S = 30.0, 120.0

#: A server that sends on and on to other addresses is given up.
_REDIRECTS = 5

_MOVED = (301, 302, 303, 307, 308)

#: A file is asked for again from where it broke off, this often in a row without a byte more.
_TRIES = 3

_PIECE = 1 << 18

#: A path that this bag cannot have: a file lies where a directory would be, or a name is too long.
_NO_PLACE = frozenset({errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """A file that is fetched."""

    path: bytes  #: within the folder
    url: str
    size: int | None  #: bytes, where fetch.txt says them


class HostNotAllowed(Exception):
    """An address leads to where nothing may be fetched from; says why."""


def must_be_allowed(url: str, hosts: Sequence[str]) -> None:
    """See that something may be fetched from an address.

    Args:
        url: an absolute URL.
        hosts: names, or patterns such as `*.example.org`.

    Raises: HostNotAllowed.
    """
    try:
        parts = urlsplit(url)
        host, user = (parts.hostname or "").rstrip("."), parts.username
        parts.port  # noqa: B018  # read to be checked
    except ValueError:
        raise HostNotAllowed("this is not an address") from None
    if parts.scheme not in ("https", "http") or not host:
        raise HostNotAllowed("only http and https are fetched")
    if user is not None or parts.password is not None:
        raise HostNotAllowed("it holds a user's name")
    if not any(host == name or (name[:2] == "*." and host.endswith(name[1:])) for name in hosts):
        raise HostNotAllowed(f"the host {visible(host)} is not among fetch: {', '.join(hosts)}")


async def complete(ctx: StepContext, hosts: Sequence[str]) -> Inputs:
    """Make the completed bag in the step's directory; return its files.

    Args:
        ctx: the step; its directory holds what earlier tries have fetched.
        hosts: may be fetched from.

    Raises: ItemError: a file may not or cannot be fetched, all of them named; TransientError: a host is away;
        OSError.
    """
    faulty = FaultyFiles()
    lines = await in_thread(lambda stop: list(_wanted(ctx.source, hosts, faulty, stop)))
    wanted = list({one.path: one for one in reversed(lines)}.values())  # a path has one content
    if faulty.count:
        raise ItemError(
            f"fetch.txt lists files that may not be fetched: {faulty}",
            where=ctx.name,
            hint="Complete the bag and drop it again; or name the hosts under fetch: in config.yaml, and "
            f"run it again: dittohead rerun {ctx.job_id}",
        )
    async with _session() as session:
        fetched = await _Fetching(ctx, session, hosts).all(wanted)
    await in_thread(lambda stop: _copy(ctx, stop))
    files.sync_filesystem(ctx.work)
    source = ctx.source

    def entries() -> Iterator[Entry]:
        yield from source.entries()
        yield from fetched

    return Inputs(
        root=ctx.work,
        entries=entries,
        files=source.files + len(fetched),
        size=source.size + sum(entry.size for entry in fetched),
    )


def _wanted(source: Inputs, hosts: Sequence[str], faulty: FaultyFiles, stop: Stop) -> Iterator[_Wanted]:
    """Yield what is to be fetched; what may not be is put into `faulty`. Blocking.

    A list that cannot be read yields nothing: the check of the bag says what is wrong with it.
    """
    top = top_of(source, stop)
    try:
        with _opened(source.root, top + b"bagit.txt") as file:
            encoding = declaration.read(file.read(declaration.LARGEST)).encoding
        with _opened(source.root, top + b"fetch.txt") as file:
            for one in manifests.fetches(file, encoding):
                stop.check()
                path = manifests.plain(one.path)
                there = os.path.lexists(os.path.join(bytes(source.root), top, path))
                if there or manifests.outside(one.path):
                    continue
                try:
                    must_be_allowed(one.url, hosts)
                except HostNotAllowed as error:
                    faulty.add(path, str(error))
                    continue
                yield _Wanted(path=top + path, url=one.url, size=one.size)
    except (OSError, ItemError, declaration.Malformed, manifests.BadLine):
        return


@contextmanager
def _opened(root: Path, path: bytes) -> Iterator[IO[bytes]]:
    with files.opened_beneath(root, path) as fd, open(fd, "rb", closefd=False) as file:
        yield file


def _copy(ctx: StepContext, stop: Stop) -> None:
    """Copy the files that were dropped, each compared with the claim's digest. Blocking.

    Raises: ItemError: one has changed since; OSError; Stopped.
    """
    for entry in ctx.source.entries():
        stop.check()
        target = Path(os.fsdecode(os.path.join(bytes(ctx.work), entry.path)))
        if entry.is_dir:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with (
            files.opened_beneath(ctx.source.root, entry.path) as fd,
            open(fd, "rb", closefd=False) as file,
            open(target, "wb") as out,
        ):
            while piece := file.read(_PIECE):
                stop.check()
                digest.update(piece)
                out.write(piece)
        if digest.hexdigest() != entry.sha256:
            raise ItemError(
                "this file is not what it was at the claim",
                where=display(entry.path),
                hint="Compare it with the original and upload the folder again",
            )


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENT_S)
    # As it lies there: of a packed body the length and the place to go on from would be others.
    headers = {"User-Agent": f"dittohead/{version('dittohead')}", "Accept-Encoding": "identity"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers, auto_decompress=False) as session:
        yield session


class _Fetching:
    """Fetches files of one bag into the step's directory."""

    def __init__(self, ctx: StepContext, session: aiohttp.ClientSession, hosts: Sequence[str]) -> None:
        self._ctx, self._session, self._hosts = ctx, session, hosts
        self._faulty = FaultyFiles()
        self._away: list[StepError] = []
        self._done = 0

    async def all(self, wanted: Sequence[_Wanted]) -> list[Entry]:
        """Fetch all of them; return them as files of the bag, in any order.

        Raises: ItemError: some are not available, all named; TransientError: a host is away; OSError.
        """
        total = sum(one.size or 0 for one in wanted)

        def progress(size: int) -> None:
            self._done += size
            self._ctx.progress(self._done, max(total, self._done), "bytes")

        left, found = iter(wanted), list[Entry]()

        async def some() -> None:
            for one in left:  # each is taken by one of those that fetch
                if (entry := await self._one(one, progress)) is not None:
                    found.append(entry)

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(some())
        if self._faulty.count:
            raise ItemError(
                f"fetch.txt lists files that cannot be fetched: {self._faulty}",
                where=self._ctx.name,
                hint="Complete the bag and drop it again",
            )
        if self._away:
            raise self._away[0]
        return found

    async def _one(self, one: _Wanted, progress: Callable[[int], None]) -> Entry | None:
        """Fetch one file; what is wrong with it is noted, so that all are tried."""
        target = Path(os.fsdecode(os.path.join(bytes(self._ctx.work), one.path)))
        part = target.with_name(f".{hashlib.sha256(one.path).hexdigest()[:32]}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                await self._whole(one, part, progress)
                # Its name says that it is whole, also after a power cut.
                await asyncio.to_thread(files.fsync_file, part)
                part.rename(target)
            digest, size = await in_thread(lambda stop: files.sha256_file(target))
            return Entry(path=one.path, size=size, sha256=digest)
        except (HostNotAllowed, ItemError) as error:
            self._faulty.add(one.path, str(error))
        except TransientError as error:
            self._away.append(error)
        except OSError as error:
            if error.errno not in _NO_PLACE:
                raise
            self._faulty.add(one.path, f"it has no place in the bag ({error.strerror})")
        return None

    async def _whole(self, one: _Wanted, part: Path, progress: Callable[[int], None]) -> None:
        """Fetch a file into `part`, from where an earlier answer broke off. Raises: as `_answer`."""
        mark = part.with_suffix(".mark")
        left = _TRIES
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                await self._rest(one, part, mark, progress)
                mark.unlink(missing_ok=True)
                return
            except (aiohttp.ClientError, TimeoutError) as error:
                now = part.stat().st_size if part.exists() else 0
                left = _TRIES if now > before else left - 1
                if not left:
                    host = visible(urlsplit(one.url).hostname or "")
                    reason = str(error) or type(error).__name__
                    raise TransientError(f"{host} does not send {display(one.path)}: {reason}") from error

    async def _rest(self, one: _Wanted, part: Path, mark: Path, progress: Callable[[int], None]) -> None:
        known = mark.read_text() if mark.exists() and part.exists() else ""
        begin = part.stat().st_size if known else 0
        headers = {"Range": f"bytes={begin}-", "If-Range": known} if begin else {}
        async with self._answer(one.url, headers) as answer:
            if answer.status == 416 and begin:  # all of it, or another file: from the beginning
                part.unlink()
                raise aiohttp.ClientPayloadError("the place to go on from is not there")
            # A weak validator does not say that the bytes are the same. Source: RFC 9110, 13.1.5.
            etag = answer.headers.get("ETag", "")
            mark.write_text(etag if etag.startswith('"') else "")
            goes_on = answer.status == 206
            if goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
                part.unlink()
                raise aiohttp.ClientPayloadError("the answer does not go on from where the file ends")
            with open(part, "ab" if goes_on else "wb") as out:
                async for piece in answer.content.iter_chunked(_PIECE):
                    await asyncio.to_thread(out.write, piece)
                    progress(len(piece))
                    if one.size is not None and out.tell() > one.size:
                        raise ItemError(f"the server sends more than the {one.size:,} bytes of fetch.txt")
        if one.size is not None and part.stat().st_size < one.size:
            raise ItemError(f"the server sends {part.stat().st_size:,} bytes; fetch.txt says {one.size:,}")

    @asynccontextmanager
    async def _answer(self, url: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for an address, and for those that it leads to, each of which must be allowed.

        Raises: HostNotAllowed; ItemError: there is no such file; TransientError: later, perhaps;
            aiohttp.ClientError, TimeoutError.
        """
        for _ in range(_REDIRECTS + 1):
            must_be_allowed(url, self._hosts)
            try:
                place = URL(url, encoded=True)
            except ValueError as error:
                raise HostNotAllowed("this is not an address") from error
            async with self._session.get(place, headers=headers, allow_redirects=False) as answer:
                if answer.status not in _MOVED:
                    _must_be_sent(answer)
                    yield answer
                    return
                url = urljoin(url, answer.headers.get("Location", ""))
        raise ItemError(f"it leads to other addresses more than {_REDIRECTS} times")


def _must_be_sent(answer: aiohttp.ClientResponse) -> None:
    """See that an answer holds the file. Raises: ItemError, TransientError."""
    status = answer.status
    if status in (200, 206, 416):
        return
    host = visible(answer.url.host or "")
    if status == 429 or status >= 500:
        wait = retry_after.asked_s(answer.headers.get("Retry-After", ""))
        raise TransientError(f"{host} answers {status} {answer.reason}", retry_after_s=wait)
    raise ItemError(f"{host} answers {status} {answer.reason}")
