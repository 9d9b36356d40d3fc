"""One object to one file: pinned to its ETag, resumed where it stopped, verified by the store's checksum."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from botocore.exceptions import ClientError, FlexibleChecksumError

from dittohead.model.errors import ItemError, TransientError
from dittohead.system import fail_points
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit import checksums
from dittohead.toolkit.checksums import Digests
from dittohead.toolkit.s3 import connection
from dittohead.toolkit.s3.bucket import ABSENT, Bucket

#: Fetchings of one object that arrives wrong before it is given up.
FETCHINGS = 3

#: Seconds without a byte before a request is given up.
_STALL_S = 60.0

#: Bytes written at a time; they come in pieces of some ten thousand.
_PIECE = 1 << 20

#: Objects up to this size are held in memory, and come with one request.
_SMALL = 1 << 20

#: How a store says that the object is another than the one wanted (If-Match), or shorter (Range).
_ANOTHER: Final = frozenset({"PreconditionFailed", "412", "InvalidRange", "416"})

#: Part sizes of the usual programs, in MiB, tried where the store does not tell: AWS' own tools 8, 16 and
#: 64; others 5, 10, 15, 32, 50, 100 to 512.
_PARTS = (8, 16, 5, 64, 15, 10, 32, 50, 100, 128, 256, 512)


class Changed(Exception):
    """The object is another now."""


class Gone(Exception):
    """There is no such object any more."""


def etag_of(head: Mapping[str, Any]) -> str:
    """Return an answer's ETag without its quotes; "" when it gives none."""
    return str(head.get("ETag") or "").strip('"')


class Download:
    """One object on its way into a file.

    Args:
        etag: of the wanted object, without quotes; "" when the store gives none.
        size: bytes.
        opaque: ETags of this store are not MD5.
    """

    def __init__(self, bucket: Bucket, client: Any, key: str, etag: str, size: int, *, opaque: bool) -> None:
        self._bucket, self._client = bucket, client
        self._key, self._etag, self._size, self._opaque = key, etag, size, opaque
        self._digests = Digests()
        self._offset = 0
        self._fd = -1

    async def to(self, path: str) -> str:
        """Bring the object to a file, going on with what lies there; return how it was verified.

        Raises: Changed, Gone; ItemError: it arrives wrong again and again; StepError; OSError.
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            if self._size <= _SMALL and os.fstat(self._fd).st_size == 0 and (how := await self._at_once()):
                return how
            head = await self._head()
            verifiable = self._algorithm(head) is not None or "-" in self._etag
            for number in range(1, FETCHINGS + 1):
                # What cannot be verified in the end is not gone on with either.
                await self._begin(head, keep=number == 1 and verifiable)
                await self._fill()
                how = await self._verified(head)
                if how:
                    return how
        finally:
            os.close(self._fd)
        raise ItemError(
            f"arrives otherwise than the store's checksum says, {FETCHINGS} times",
            where=self._bucket.uri(self._key),
            hint="Check the store's disks and whatever lies between; it is tried again by itself",
        )

    async def _at_once(self) -> str:
        """Bring a small object and its checksum with one request; "" when that is not enough to verify it."""
        try:
            answer, data = await self._bucket.rate.persist(
                self._whole, where=self._bucket.uri(self._key), doing="fetching", expected=_ANOTHER | ABSENT
            )
        except ClientError as error:
            if connection.code_of(error) in ABSENT:
                raise Gone from error
            return ""
        await self._bucket.rate.spend(len(data))
        told = self._algorithm(answer)
        if told is None or len(data) != self._size or etag_of(answer) != self._etag:
            return ""
        self._digests = Digests([told[0]], sha256=False)
        await self._write(data)
        how = await self._verified(answer)
        if not how:
            os.ftruncate(self._fd, 0)
        return how

    async def _whole(self) -> tuple[dict[str, Any], bytes]:
        given: dict[str, Any] = {"IfMatch": f'"{self._etag}"'} if self._etag else {}
        async with asyncio.timeout(_STALL_S):
            answer: dict[str, Any] = await self._client.get_object(
                Bucket=self._bucket.name, Key=self._key, ChecksumMode="ENABLED", **given
            )
            async with answer["Body"] as body:
                try:
                    data: bytes = await body.read()
                except FlexibleChecksumError:  # botocore looks at some checksums too
                    data = b""
        return answer, data

    async def _head(self) -> dict[str, Any]:
        head = await self._bucket.head(self._key)
        if head is None:
            raise Gone
        if (self._etag and etag_of(head) != self._etag) or head["ContentLength"] != self._size:
            raise Changed
        return head

    def _algorithm(self, head: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return (algorithm, hex or base64) of the whole object as the store tells it."""
        found = checksums.stored(head)
        if found is not None:
            return found
        # Of objects encrypted by keys of KMS or of a customer the ETag is not an MD5.
        hidden = str(head.get("ServerSideEncryption", "")).startswith("aws:kms")
        md5 = checksums.etag_md5(head)
        if md5 is None or self._opaque or hidden or head.get("SSECustomerAlgorithm"):
            return None
        return "MD5", md5

    async def _begin(self, head: Mapping[str, Any], *, keep: bool) -> None:
        """Take the digest of what lies there already; or begin with nothing."""
        told = self._algorithm(head)
        self._digests = Digests([told[0]] if told else [], sha256=told is None)
        self._offset = os.fstat(self._fd).st_size if keep else 0
        if self._offset > self._size:
            self._offset = 0
        os.ftruncate(self._fd, self._offset)
        if self._offset:
            await in_thread(self._digest_file)

    def _digest_file(self, stop: Stop) -> None:
        at = 0
        while at < self._offset:
            stop.check()
            data = os.pread(self._fd, 1 << 20, at)
            if not data:
                raise OSError("the file became shorter while it was read")
            self._digests.update(data)
            at += len(data)

    async def _fill(self) -> None:
        """Bring what is missing, again and again while faults pass."""
        if self._offset == self._size:
            return
        try:
            await self._bucket.rate.persist(
                self._once,
                where=self._bucket.uri(self._key),
                doing="fetching",
                expected=_ANOTHER | ABSENT,
            )
        except ClientError as error:
            if connection.code_of(error) in ABSENT:
                raise Gone from error
            await self._head()  # raises if it is another
            raise TransientError("the store contradicts itself", where=self._bucket.uri(self._key)) from error

    async def _once(self) -> None:
        given: dict[str, Any] = {"IfMatch": f'"{self._etag}"'} if self._etag else {}
        if self._offset:
            given["Range"] = f"bytes={self._offset}-"
        async with asyncio.timeout(_STALL_S) as patience:
            answer = await self._client.get_object(Bucket=self._bucket.name, Key=self._key, **given)
            async with answer["Body"] as body:
                self._check(answer)
                await self._receive(body, patience)
        if self._offset != self._size:
            raise TransientError(f"it ended after {self._offset} of {self._size} bytes")

    async def _receive(self, body: Any, patience: asyncio.Timeout) -> None:
        """Write each piece, and take its digest, while the next one comes."""
        loop = asyncio.get_running_loop()
        writing: asyncio.Future[None] = loop.create_future()
        writing.set_result(None)
        try:
            async for piece in _gathered(body):
                patience.reschedule(None)
                await self._bucket.rate.spend(len(piece))
                await writing
                writing = asyncio.ensure_future(self._write(piece))
                patience.reschedule(loop.time() + _STALL_S)
            patience.reschedule(None)
            await writing
        finally:
            # To its end, also when the store is given up: bytes, digests and offset belong together.
            await asyncio.wait([writing])
            if not writing.cancelled():
                writing.exception()  # it is raised above, or something else is

    def _check(self, answer: Mapping[str, Any]) -> None:
        """See that a store which does not obey If-Match or Range has given what was asked for."""
        if self._etag and etag_of(answer) not in ("", self._etag):
            raise Changed
        if self._offset and answer.get("ContentRange", "").split("-")[0] != f"bytes {self._offset}":
            self._offset = 0
            os.ftruncate(self._fd, 0)
            self._digests = Digests(self._digests.algorithms, sha256=False)

    async def _write(self, piece: bytes) -> None:
        if self._offset + len(piece) > self._size:
            raise Changed
        await in_thread(lambda stop: self._write_sync(piece))
        self._offset += len(piece)
        fail_points.point("source.piece")

    def _write_sync(self, piece: bytes) -> None:
        view, at = memoryview(piece), self._offset
        while view:
            count = os.pwrite(self._fd, view, at)
            view, at = view[count:], at + count
        self._digests.update(piece)

    # -- verified ----------------------------------------------------------------------------

    async def _verified(self, head: Mapping[str, Any]) -> str:
        """Return how the file is known to be the object; "" when it is another."""
        told = self._algorithm(head)
        if told is not None:
            name, expected = told
            value = self._digests.value(name)
            same = (
                checksums.hex_of(value) == expected
                if name == "MD5" and len(expected) == 32
                else value == expected
            )
            how = "MD5 (ETag)" if name == "MD5" else name
            return f"{how} kept by the store" if same else ""
        if "-" in self._etag and not self._opaque:
            part = await self._part_size(head)
            if part:
                return "MD5 of parts (ETag) kept by the store"
        return await self._read_twice()

    async def _part_size(self, head: Mapping[str, Any]) -> int:
        """Return the part size by which the file's multipart ETag is the store's; 0 when none is.

        Source: the ETag of a multipart upload is the MD5 of its parts' MD5s, "-" and their number.
        """
        parts = self._etag.rpartition("-")[2]
        if not parts.isdigit():
            return 0
        sizes = [size << 20 for size in _PARTS]
        with contextlib.suppress(ClientError):
            first = await self._bucket.ask(
                "head_object",
                "asking for the size of a part",
                expected=ABSENT | _ANOTHER | frozenset({"NotImplemented", "InvalidArgument", "400", "501"}),
                Key=self._key,
                PartNumber=1,
            )
            sizes.insert(0, int(first["ContentLength"]))
        for size in dict.fromkeys(sizes):
            fits = size and -(-self._size // size) == int(parts)
            if fits and await in_thread(lambda stop, size=size: self._etag_by(size, stop)) == self._etag:  # type: ignore[misc]  # bound now
                return size
        return 0

    def _etag_by(self, part: int, stop: Stop) -> str:
        whole, count = hashlib.md5(usedforsecurity=False), 0
        for begin in range(0, self._size, part):
            running, at = hashlib.md5(usedforsecurity=False), begin
            while at < min(begin + part, self._size):
                stop.check()
                data = os.pread(self._fd, min(1 << 20, min(begin + part, self._size) - at), at)
                if not data:
                    return ""
                running.update(data)
                at += len(data)
            whole.update(running.digest())
            count += 1
        return f"{whole.hexdigest()}-{count}"

    async def _read_twice(self) -> str:
        """Read the object once more, where its store gives nothing to compare it with."""
        sha256 = await self._bucket.sha256(self._key)
        await self._head()
        return "SHA-256, read twice" if self._digests.sha256 == sha256 else ""


async def _gathered(body: Any) -> AsyncIterator[bytes]:
    """Yield what arrives in pieces that are worth a thread's while."""
    parts: list[bytes] = []
    size = 0
    async for part in body.iter_chunks(_PIECE):
        parts.append(part)
        size += len(part)
        if size >= _PIECE:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)
