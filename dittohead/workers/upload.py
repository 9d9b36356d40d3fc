"""upload: files to an S3 bucket, each verified by the store's own checksum; never over another object."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from botocore.exceptions import ClientError
from pydantic import Field

from dittohead import __version__
from dittohead.contract.options import Size
from dittohead.contract.worker import (
    Done,
    Inputs,
    Options,
    Planned,
    StepContext,
    StepResult,
    VerifyContext,
    Worker,
)
from dittohead.model.errors import ItemError, StepError, TargetError, TransientError, ungrouped
from dittohead.model.events import Event, EventType
from dittohead.model.records import Entry, Location
from dittohead.model.text import counted, display
from dittohead.system import attributes, fail_points, files
from dittohead.system.attributes import Keeps
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit.checksums import Digests
from dittohead.toolkit.faulty_files import FaultyFiles
from dittohead.toolkit.file_slice import PIECE, Slice
from dittohead.toolkit.s3 import connection
from dittohead.toolkit.s3.bucket import (
    EXISTS,
    NO_CONDITIONS,
    SENDINGS,
    Abilities,
    Bucket,
    PieceSent,
    Stored,
    version_of,
)
from dittohead.toolkit.s3.comparing import There, compare
from dittohead.toolkit.s3.intent_log import UploadIntentLog
from dittohead.toolkit.s3.intent_log import read as read_notes
from dittohead.toolkit.s3.objects import ObjectOptions
from dittohead.toolkit.s3.parts import LEAST_PART, AlreadyThere, LargeFile, Parts, part_size
from dittohead.toolkit.s3.request_rate import RequestRate

T = TypeVar("T")

_AGENT = f"dittohead {__version__} (aiobotocore)"

#: Files up to this size are read once, into memory, and sent from there.
_SMALL = 1 << 20

#: S3 takes no more in one request. Source: Amazon S3 User Guide, "Uploading objects".
_MOST_AT_ONCE = 5 << 30

#: Requests at once to one store, whatever the number of jobs: each holds about one piece of memory.
_MOST_REQUESTS = 32

#: Parts of one large file at once.
_PARTS = 8

#: Files under way at once in one step.
_FILES = 16

#: Files that one listing looks for: S3 lists a thousand keys at a time.
_AHEAD = 500

#: Seconds that what a job left at a key waits for another job at that key; that one may be over as well.
_SPARED_S = 86400.0


class UploadOptions(connection.Connection, ObjectOptions, Options):
    """What an upload step may be told."""

    bucket: str = Field(description="The bucket, which must exist.")
    replace: bool = Field(
        False,
        description="Replace an object of the same key that is another; refused by default, unless the "
        "bucket keeps versions. One that is the same is always left as it is.",
    )
    verify: Literal["checksum", "read-back"] = Field(
        "checksum",
        description="`checksum`: by the store's own checksum, read back only where it has none; "
        "`read-back`: every object is read back too.",
    )
    part_size: Size = Field(
        8 << 20, ge=LEAST_PART, le=5 << 30, description="Bytes of a part; more for files above 80 GB."
    )
    parallel: int = Field(_FILES, ge=1, le=64, description="Files under way at once.")
    bandwidth: Size | None = Field(
        None, gt=0, description="Bytes a second to this bucket, of all jobs together."
    )


_SAME = "is compared with the object that is there"

#: What a plan says of a file, by what is there and whether it may be replaced.
_PLANNED: dict[tuple[There, bool], tuple[Literal["send", "keep", "change"], str]] = {
    ("nothing", False): ("send", ""),
    ("nothing", True): ("send", ""),
    ("same", False): ("keep", "is there already"),
    ("same", True): ("keep", "is there already"),
    ("other", False): ("keep", "another object is there: refused"),
    ("other", True): ("change", "in place of another object, or as a new version of it"),
    ("unknown", False): ("send", f"{_SAME}; another is not replaced"),
    ("unknown", True): ("send", f"{_SAME}; another is replaced, or becomes an earlier version"),
}


class UploadWorker(Worker[UploadOptions]):
    """Sends every file of its source to a bucket, and knows afterwards that it is whole there."""

    name = "upload"
    Options = UploadOptions
    delivers = True
    per_file = frozenset({"key", "metadata"})
    default_limit = 4

    def stage(self, options: Mapping[str, Any]) -> str:
        """Call a folder that was stored."""
        return "stored"

    def __init__(self) -> None:
        self._paces: dict[str, RequestRate] = {}

    def target(self, options: UploadOptions) -> str:
        """Return the bucket, with its store where that is not Amazon's, and the credential's name."""
        address = options.address()
        # By whose keys, too: what one may not, or has a wrong key for, does not stop another.
        return (
            f"s3://{options.bucket}"
            + (f" at {address}" if address else "")
            + (f" as {options.credentials}" if options.credentials else "")
        )

    async def doctor(
        self, options: UploadOptions, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Say whether the bucket can be reached and what its store does."""
        try:
            async with connection.client(options, secret) as client:
                bucket = Bucket(client, options.bucket, options.address(), self._rate(options))
                found = await bucket.abilities(options.place)
        except StepError as error:
            yield False, str(error)
            return
        how = f"checks {found.checksum}" if found.checksum else "checks nothing: ETag or read-back is used"
        versions = "keeps versions" if found.versioned else "keeps no versions"
        yield True, f"{self.target(options)} can be written; the store {how}, the bucket {versions}"

    def _rate(self, options: UploadOptions) -> RequestRate:
        return self._paces.setdefault(self.target(options), RequestRate(_MOST_REQUESTS))

    async def run(self, ctx: StepContext, options: UploadOptions) -> StepResult:
        """Send what is not there yet; a try after a crash goes on where the last one was."""
        left = await in_thread(lambda stop: _left(ctx.source, options, stop))
        head = {"worker": self.name, "job": ctx.job_id, "options": options.model_dump(mode="json")}
        notes = await asyncio.to_thread(UploadIntentLog, ctx.outside, head)
        done = False
        try:
            rate = self._rate(options)
            async with connection.client(options, ctx.secret) as client:
                bucket = Bucket(client, options.bucket, options.address(), rate)
                sending = _Sending(ctx, options, bucket, notes, await bucket.abilities(options.place))
                with rate.limited(options.bandwidth):
                    await sending.run()
            done = True
        finally:
            await asyncio.to_thread(notes.close, done=done)
        return sending.result(self.target(options), left)

    async def plan(self, ctx: StepContext, options: UploadOptions) -> AsyncIterator[Planned]:
        """Yield each object by its key, and what lies there already; nothing is sent.

        Raises: ItemError: others' objects lie there that may not be replaced; after all were yielded.
        """
        left = await in_thread(lambda stop: _left(ctx.source, options, stop))
        refused = FaultyFiles()
        async with connection.client(options, ctx.secret) as client:
            bucket = Bucket(client, options.bucket, options.address(), self._rate(options))
            replaces = options.replace or await bucket.versioned()
            entries = (entry for entry in ctx.source.entries() if not entry.is_dir)
            async for entry, key, there in compare(bucket, entries, options.key_of, ctx.source.root):
                uri = bucket.uri(key)
                place = Location(
                    uri=uri, path=entry.path, size=entry.size, sha256=entry.sha256, verified_by=""
                )
                ctx.location(place)
                if there == "other" and not replaces:
                    refused.add(entry.path, f"there is another object at {uri}, and replace is not set")
                action, words = _PLANNED[there, replaces]
                size = f"{entry.size:,} bytes" if entry.size else ""
                detail = ", ".join(part for part in (size, words) if part)
                yield Planned(action=action, what=display(entry.path), where=uri, detail=detail)
        for words in left:
            yield Planned(action="leave", what=words, detail="not delivered")
        if refused.count:
            hint = "Give them other keys, or set replace: true"
            raise ItemError(f"{counted(refused.count, 'file')} could not be uploaded: {refused}", hint=hint)

    async def let_go(self, notes: Path, secret: Callable[[str], str]) -> None:
        """Abort the multipart uploads of an ended job."""
        head, unfinished = await asyncio.to_thread(read_notes, notes)
        if not unfinished:
            return
        options = UploadOptions.model_validate(head["options"])
        others = await asyncio.to_thread(_others, notes, _place(head))
        spared: list[str] = []
        async with connection.client(options, secret) as client:
            bucket = Bucket(client, options.bucket, options.address(), self._rate(options))
            for upload in unfinished.values():
                if upload.upload_id:
                    await bucket.abort(upload.key, upload.upload_id)
                elif upload.key not in others:
                    for upload_id in await bucket.unfinished(upload.key):
                        await bucket.abort(upload.key, upload_id)
                else:
                    spared.append(upload.key)
        if spared and time.time() - await asyncio.to_thread(_written_at, notes) < _SPARED_S:
            raise TransientError("another job uploads to this key just now", where=bucket.uri(spared[0]))

    async def verify(self, ctx: VerifyContext, options: UploadOptions) -> None:
        """Ask the store for each object's size and checksum; read it back where it gives none."""
        async with connection.client(options, ctx.secret) as client:
            bucket = Bucket(client, options.bucket, options.address(), self._rate(options))
            places = _stream(ctx.locations())
            await _each(places, options.parallel, lambda location: _verify(ctx, bucket, location))


async def _verify(ctx: VerifyContext, bucket: Bucket, location: Location) -> None:
    key = location.uri.removeprefix(bucket.uri(""))
    try:
        head = await bucket.head(key, location.version)
        if head is None:
            problem = "is missing"
        elif head["ContentLength"] != location.size:
            problem = f"has {head['ContentLength']} bytes, not {location.size}"
        elif await _kept(ctx, bucket, key, head, location):
            problem = ""
        else:
            problem = "is another object now"
    except StepError as error:
        problem = f"cannot be checked: {error}"
    ctx.report(not problem, location.uri, problem)


async def _kept(
    ctx: VerifyContext, bucket: Bucket, key: str, head: dict[str, Any], location: Location
) -> bool:
    algorithm, _, value = location.checksum.partition(":")
    told = head.get(f"Checksum{algorithm}") if algorithm else None
    if told is not None and (told != value or not ctx.reads):
        return bool(told == value)
    await ctx.pace.spend(location.size)
    return await bucket.sha256(key, location.version) == location.sha256


@dataclass(frozen=True, kw_only=True)
class _Content:
    """A file's bytes, or the open file where they are many, with the digests of what was read."""

    fd: int
    size: int
    data: bytes | None
    digests: Digests

    def body(self, piece_sent: PieceSent) -> Any:
        """Return it as a request's body."""
        if self.data is not None and self.size <= PIECE:
            return self.data
        return Slice(self.fd, 0, self.size, piece_sent, self.data)


class _Sending:
    """One try of one upload step."""

    def __init__(
        self,
        ctx: StepContext,
        options: UploadOptions,
        bucket: Bucket,
        notes: UploadIntentLog,
        abilities: Abilities,
    ) -> None:
        self.ctx, self.options, self.bucket, self.notes = ctx, options, bucket, notes
        self.abilities = abilities
        self.sent = self.there = self.bytes = 0
        self.size = 0  #: bytes of the files that are there, verified
        self.faulty = FaultyFiles()
        self.verified_by: Counter[str] = Counter()
        self._settling = asyncio.Lock()
        self._asked = False

    async def run(self) -> None:
        """Send every file; a file at fault does not keep the others. Raises: StepError."""
        await _each(self._files(), self.options.parallel, self._file)
        if self.faulty.count:
            raise ItemError(
                f"{counted(self.faulty.count, 'file')} cannot be uploaded: {self.faulty}",
                # A job keeps the options it was claimed with.
                hint=f"When that is settled: `dittohead retry {self.ctx.job_id}`; or, when an option such as "
                f"replace was changed for it: `dittohead rerun {self.ctx.job_id}`",
            )

    async def _files(self) -> AsyncIterator[tuple[Entry, str, bool]]:
        """Yield each file, its key, and whether to look what lies there before it is sent."""
        entries = (entry for entry in self.ctx.source.entries() if not entry.is_dir)
        looks = False
        while some := [(entry, self.options.key_of(entry)) for entry in islice(entries, _AHEAD)]:
            looks = looks or await self._may_be_there()
            absent = await self.bucket.absent([key for _, key in some]) if looks else set()
            for entry, key in some:
                yield entry, key, looks and key not in absent

    async def _may_be_there(self) -> bool:
        """Tell whether to look before sending: a store that refuses what is there takes all of it first."""
        if self.ctx.attempt > 1 or self._replaces or not self.abilities.conditional:
            return True
        return await self.ctx.came_before()

    async def _file(self, item: tuple[Entry, str, bool]) -> None:
        entry, key, look = item
        try:
            with files.opened_beneath(self.ctx.source.root, entry.path) as fd:
                stored = await self._stored(entry, key, fd, look=look)
        except ItemError as error:
            self.faulty.add(entry.path, error.what)
            return
        if self.options.verify == "read-back" and "read back" not in stored.verified_by:
            await self._read_back(stored, entry)
        self._good(entry, stored)

    async def _read_back(self, stored: Stored, entry: Entry) -> None:
        if await self.bucket.sha256(stored.key, stored.version) == entry.sha256:
            return
        if stored.fresh:
            await self.bucket.discard(stored.key, stored.version)
        raise TargetError(
            "what lies there reads back as something else than its checksum says; it is left as it is",
            where=self.bucket.uri(stored.key),
            hint="Check the store's disks and whatever lies between, then it goes on by itself",
        )

    def _in_parts(self, entry: Entry) -> bool:
        return entry.size >= 2 * self.options.part_size or entry.size > _MOST_AT_ONCE

    async def _stored(self, entry: Entry, key: str, fd: int, *, look: bool) -> Stored:
        if self._in_parts(entry):
            return await self._large(entry, key, fd)
        content = await in_thread(lambda stop: _read(fd, entry, self.abilities.algorithm, stop))
        self.ctx.progress(self.bytes, self.ctx.source.size, "bytes")
        guarded = self.abilities.conditional is not False
        if look:
            found, other = await self._found(key, content.digests)
            if found is not None:
                return found
            guarded = guarded and not other
        return await self._small(entry, key, content, guarded=guarded)

    # -- an object that is there -------------------------------------------------------------

    @property
    def _replaces(self) -> bool:
        return self.options.replace or self.abilities.versioned

    async def _may_replace(self) -> bool:
        # Anyone who suspends a bucket's versions would lose the object: asked again, never cached.
        return self.options.replace or (self.abilities.versioned and await self.bucket.versioned())

    async def _found(self, key: str, digests: Digests) -> tuple[Stored | None, bool]:
        """Return (the object of this key if it is this file, whether it is another that may be replaced).

        Raises: ItemError: there is another, which may not be replaced.
        """
        head = await self.bucket.head(key)
        if head is None:
            return None, False
        same = await self.bucket.same(key, head, digests)
        if same is None and not await self._may_replace():
            raise ItemError(f"there is another object at {self.bucket.uri(key)}, and replace is not set")
        return same, same is None

    # -- one request -------------------------------------------------------------------------

    async def _small(self, entry: Entry, key: str, content: _Content, *, guarded: bool) -> Stored:
        wrong: dict[str, Any] | None = None
        for _ in range(SENDINGS):
            try:
                answer = await self._put(entry, key, content, guarded=guarded)
            except ClientError as error:
                unknown = connection.code_of(error) not in EXISTS  # it knows no If-None-Match
                if unknown:
                    self._learnt(conditional=False)
                found, other = await self._found(key, content.digests)
                if found is not None:
                    return found
                guarded = not unknown and not other
                continue
            stored = await self.bucket.verified(key, answer, content.digests, self.abilities)
            if stored is not None:
                await self._try_condition(entry, key, content)
                return stored
            wrong = answer
            guarded = False  # what lies there is ours, and wrong
        if wrong is None:
            raise TransientError("the key comes and goes", where=self.bucket.uri(key))
        await self.bucket.discard(key, version_of(wrong))
        raise AssertionError  # discard raises

    async def _put(self, entry: Entry, key: str, content: _Content, *, guarded: bool) -> dict[str, Any]:
        guard = {"IfNoneMatch": "*"} if guarded else {}
        algorithm = self.abilities.algorithm
        name = "ContentMD5" if self.abilities.checksum is None else f"Checksum{algorithm}"
        return await self.bucket.send(
            "put_object",
            "uploading",
            content.body,
            expected=EXISTS | (NO_CONDITIONS if guarded else frozenset()),
            Key=key,
            **{name: content.digests.value(algorithm)},
            **self.options.parameters(entry),
            **guard,
        )

    async def _try_condition(self, entry: Entry, key: str, content: _Content) -> None:
        """Find out, once, whether the store obeys If-None-Match: by sending the same object again."""
        if self.abilities.conditional is not None or self._asked or self._settling.locked():
            return
        if self._replaces:  # the bucket is read in any case, and a second version would stay
            return
        async with self._settling:
            try:
                await self._put(entry, key, content, guarded=True)
                self._learnt(conditional=False)
            except ClientError as error:
                self._learnt(conditional=connection.code_of(error) in EXISTS)
            except StepError as error:
                # It lets nobody send what is there, or is troubled: no fault of what has arrived.
                self._asked = True
                self.ctx.log.debug("upload.unasked", error=str(error))

    def _learnt(self, *, conditional: bool) -> None:
        self.bucket.learnt(conditional=conditional)
        self.abilities = dataclasses.replace(self.abilities, conditional=conditional)

    # -- parts -------------------------------------------------------------------------------

    async def _large(self, entry: Entry, key: str, fd: int) -> Stored:
        """Send a large file in parts, unless it is there."""
        there = await self.bucket.head(key) is not None
        for _ in range(SENDINGS):
            replace = await self._may_replace()
            parts = Parts(
                self.bucket,
                self.abilities,
                self.notes,
                self._large_file(entry, key, fd, replace=replace),
                at_once=_PARTS,
                sent=self._progress,
            )
            if there:
                digests = await in_thread(lambda stop: _digest(fd, self.abilities, stop))
                found, _ = await self._found(key, digests)
                if found is not None:
                    await parts.forget()
                    return found
            try:
                return await parts.run()
            except AlreadyThere:
                there = True
        raise TransientError("the key comes and goes", where=self.bucket.uri(key))

    def _large_file(self, entry: Entry, key: str, fd: int, *, replace: bool) -> LargeFile:
        return LargeFile(
            fd=fd,
            size=entry.size,
            sha256=entry.sha256,
            key=key,
            part_size=part_size(entry.size, self.options.part_size),
            parameters=self.options.parameters(entry),
            replace=replace,
        )

    # -- results -----------------------------------------------------------------------------

    def _progress(self, size: int) -> None:
        self.bytes += size
        self.ctx.progress(self.bytes, self.ctx.source.size, "bytes")

    def _good(self, entry: Entry, stored: Stored) -> None:
        fail_points.point("upload.verified")
        if stored.fresh:
            self.sent += 1
        else:
            self.there += 1
        self.verified_by[stored.verified_by] += 1
        self.size += entry.size
        self.ctx.location(
            Location(
                uri=self.bucket.uri(stored.key),
                path=entry.path,
                size=entry.size,
                sha256=entry.sha256,
                verified_by=stored.verified_by,
                checksum=stored.checksum,
                version=stored.version,
            )
        )
        if not self._in_parts(entry):
            self._progress(entry.size)

    def result(self, target: str, left: list[str]) -> Done:
        """Return what was done; `left`: what stays behind."""
        count = self.sent + self.there
        words = f"{counted(count, 'file')}, {self.size:,} bytes to {target}"
        if self.there:
            words += f"; {self.there} of them were there already"
        if left:
            words += f"; not delivered: {', '.join(left)}"
        outcome = "warning" if left else "success"
        self.ctx.event(Event(type=EventType.REPLICATION, outcome=outcome, detail=words, agent=_AGENT))
        for how, verified in sorted(self.verified_by.items()):
            detail = f"{counted(verified, 'file')}: {how}"
            self.ctx.event(Event(type=EventType.FIXITY, outcome="success", detail=detail, agent=_AGENT))
        return Done(detail=words)


# -- files -----------------------------------------------------------------------------------


def _left(source: Inputs, options: UploadOptions, stop: Stop) -> list[str]:
    """Check every key; return what of the folder no object holds, in words. Raises: ItemError."""
    options.check_keys(source.entries, stop)
    root, own = os.fsencode(source.root), source.made is None
    given = attributes.survey(root, source.entries(), lambda entry: stop.check(), attributes=own)
    return given.left(Keeps(empty_folders=False))


def _read(fd: int, entry: Entry, algorithm: str, stop: Stop) -> _Content:
    """Read a file, into memory where it is small. Raises: ItemError: it is not what it was."""
    digests = Digests([algorithm])
    data: bytes | None = None
    if entry.size <= _SMALL:
        data = _whole(fd, entry.size)
        digests.update(data)
    else:
        _feed(fd, digests, stop)
    if digests.sha256 != entry.sha256:
        raise ItemError("the file is not what it was at the claim")
    return _Content(fd=fd, size=entry.size, data=data, digests=digests)


def _whole(fd: int, size: int) -> bytes:
    # One byte more, so that a file that has grown is seen.
    return os.pread(fd, size + 1, 0)


def _digest(fd: int, abilities: Abilities, stop: Stop) -> Digests:
    digests = Digests([abilities.algorithm])
    _feed(fd, digests, stop)
    return digests


def _feed(fd: int, digests: Digests, stop: Stop) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    files.hash_fd(fd, [digests], files.hash_buffer(), lambda block: stop.check())


async def _each(
    items: AsyncIterator[T], at_once: int, work: Callable[[T], Coroutine[Any, Any, None]]
) -> None:
    """Do `work` with every item, several at once. Raises: the first StepError or OSError of any."""
    turn = asyncio.Lock()

    async def runner() -> None:
        while True:
            async with turn:
                try:
                    item = await anext(items)
                except StopAsyncIteration:
                    return
            await work(item)

    with ungrouped(StepError, OSError):
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(runner())


async def _stream(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


def _others(notes: Path, place: tuple[Any, Any]) -> set[str]:
    """Return the keys that another job means to upload there just now, by the notes beside these."""
    found: set[str] = set()
    for path in notes.parent.iterdir():
        if path != notes:
            head, unfinished = read_notes(path)
            if _place(head) in (place, (None, None)):  # who does not say where may mean it here
                found |= unfinished.keys()
    return found


def _written_at(notes: Path) -> float:
    return notes.stat().st_mtime


def _place(head: dict[str, Any]) -> tuple[Any, Any]:
    options = head.get("options", {})
    return options.get("endpoint_url"), options.get("bucket")
