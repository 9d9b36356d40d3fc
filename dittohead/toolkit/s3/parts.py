"""One large file to a bucket in parts: in parallel, resumed after a crash, verified as a whole."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from dittohead.model.errors import ItemError, StepError, TransientError, ungrouped
from dittohead.system import fail_points
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit import checksums
from dittohead.toolkit.checksums import Digests
from dittohead.toolkit.file_slice import Slice
from dittohead.toolkit.s3 import connection
from dittohead.toolkit.s3.bucket import (
    ABSENT,
    EXISTS,
    GONE,
    NO_CONDITIONS,
    Abilities,
    Bucket,
    Stored,
    version_of,
)
from dittohead.toolkit.s3.intent_log import BegunUpload, UploadIntentLog

#: Limits of S3. Source: Amazon S3 User Guide, "Amazon S3 multipart upload limits".
MOST_PARTS: Final = 10_000
LEAST_PART: Final = 5 << 20
MOST_OBJECT: Final = 48 << 40  #: bytes; 5 TiB at many other stores, which say so themselves

#: S3 takes minutes to put thousands of parts together, and sends white space meanwhile. Silence is given
#: up sooner. Source: Amazon S3 API Reference, "CompleteMultipartUpload".
_COMPLETION_S = 900.0

_MIB = 1 << 20


class AlreadyThere(Exception):  # no error: the caller looks what it is
    """There is an object of that key, and it may not be replaced."""


@dataclass(frozen=True, kw_only=True)
class LargeFile:
    """A file to be sent in parts."""

    fd: int
    size: int
    sha256: str  #: as the manifest has it
    key: str
    part_size: int
    parameters: dict[str, Any]  #: of CreateMultipartUpload
    replace: bool  #: an object that is there may be replaced


def part_size(size: int, wanted: int) -> int:
    """Return the bytes of a part: as wanted, or more, so that no file needs more than 10,000 parts."""
    least = -(-size // MOST_PARTS)
    return max(wanted, LEAST_PART, -(-least // _MIB) * _MIB)


class Parts:
    """Sends one large file.

    # 1 note the intention  2 begin  3 note its id  4 send parts  5 all read is as the manifest has it
    # 6 complete  7 see what lies there.  Parts that the store has are not sent again.

    Args:
        at_once: parts under way.
        sent: told the bytes of each part that the store has.
    """

    def __init__(
        self,
        bucket: Bucket,
        abilities: Abilities,
        notes: UploadIntentLog,
        file: LargeFile,
        *,
        at_once: int,
        sent: Callable[[int], None],
    ) -> None:
        self.bucket, self.abilities, self.notes, self.file = bucket, abilities, notes, file
        self._slots = asyncio.Semaphore(at_once)
        self._sent = sent
        self._algorithm = abilities.algorithm
        self._done: dict[int, dict[str, Any]] = {}  #: number -> {PartNumber, ETag, Checksum...}
        self._proved = True  #: whether the store has given the MD5 of every part
        self._beginnings = 0  #: requests to begin; of those whose answer was lost we know no id
        self._certain = True  #: whether what lies there is what we completed
        self._version = ""  #: of what we completed

    async def run(self) -> Stored:
        """Send it and return how it is known to be whole.

        Raises: AlreadyThere; ItemError: the file is not what it was at the claim; StepError.
        """
        upload, there = await self._upload()
        whole = Digests([self._algorithm] if self.abilities.checksum else [])
        with ungrouped(StepError, OSError):
            async with asyncio.TaskGroup() as group:
                for number, start in enumerate(range(0, self.file.size, upload.part_size), 1):
                    size = min(upload.part_size, self.file.size - start)
                    await self._slots.acquire()
                    digest = await in_thread(self._digest(whole, start, size))
                    if not self._is_there(upload, number, size, digest, there):
                        task = self._part(upload, number, start, size, digest)
                        group.create_task(task, name=f"part:{self.file.key}:{number}")
                    else:
                        self._slots.release()
                        self._sent(size)
        if whole.sha256 != self.file.sha256:
            await self.give_up(upload)
            raise ItemError("the file is not what it was at the claim")
        fail_points.point("upload.sent")
        await self._complete(upload, whole)
        return await self._seen(upload, whole)

    # -- beginning and resuming --------------------------------------------------------------

    async def _upload(self) -> tuple[BegunUpload, dict[int, dict[str, Any]]]:
        """Return the upload to go on with, and its parts that the store has."""
        known = self.notes.open.get(self.file.key)
        if known is not None:
            if known.upload_id and known.sha256 == self.file.sha256:
                there = await self._listed(known)
                if there is not None:
                    return known, there
            await self.forget()
        await asyncio.to_thread(self.notes.intend, self.file.key)
        fail_points.point("upload.intended")
        answer = await self.bucket.ask(
            "create_multipart_upload",
            "beginning an upload",
            trying=self._begin,
            wanted="UploadId",
            Key=self.file.key,
            **self.file.parameters,
            **self._kind(),
        )
        fail_points.point("upload.begun")
        upload = BegunUpload(self.file.key, answer["UploadId"], self.file.sha256, self.file.part_size)
        await self._forget_lost(upload)
        await asyncio.to_thread(self.notes.began, upload)
        return upload, {}

    def _begin(self) -> None:
        self._beginnings += 1

    def _kind(self) -> dict[str, Any]:
        if self.abilities.checksum is None:
            return {}
        whole = {"ChecksumType": "FULL_OBJECT"} if self._is_crc else {}
        return {"ChecksumAlgorithm": self._algorithm, **whole}

    @property
    def _is_crc(self) -> bool:
        # A SHA-256 of parts cannot be made that of the whole; a CRC can.
        return self._algorithm.startswith("CRC")

    async def _listed(self, upload: BegunUpload) -> dict[int, dict[str, Any]] | None:
        """Return the parts the store has of an upload; None when it does not know it any more."""
        found: dict[int, dict[str, Any]] = {}
        marker: dict[str, Any] = {}
        while True:
            try:
                answer = await self.bucket.ask(
                    "list_parts",
                    "listing parts",
                    expected=GONE | ABSENT,
                    Key=upload.key,
                    UploadId=upload.upload_id,
                    **marker,
                )
            except ClientError:
                return None
            found |= {part["PartNumber"]: part for part in answer.get("Parts", ())}
            if not answer.get("IsTruncated"):
                return found
            marker = {"PartNumberMarker": answer["NextPartNumberMarker"]}

    async def forget(self) -> None:
        """Abort what an earlier try began and is not gone on with; it may not know its id."""
        known = self.notes.open.get(self.file.key)
        if known is None:
            return
        ids = [known.upload_id] if known.upload_id else await self.bucket.unfinished(known.key)
        for upload_id in ids:
            await self.bucket.abort(known.key, upload_id)
        self.notes.over(known.key)

    async def _forget_lost(self, upload: BegunUpload) -> None:
        """Abort what was begun by requests whose answers were lost: no later try knows of them."""
        if self._beginnings > 1:
            for upload_id in await self.bucket.unfinished(upload.key):
                if upload_id != upload.upload_id:
                    await self.bucket.abort(upload.key, upload_id)

    async def give_up(self, upload: BegunUpload) -> None:
        """Abort the upload: nothing of it is kept, or paid for."""
        await self.bucket.abort(upload.key, upload.upload_id)
        self.notes.over(upload.key)

    # -- parts -------------------------------------------------------------------------------

    def _digest(self, whole: Digests, start: int, size: int) -> Callable[[Stop], str]:
        """Return what reads one part: into the digests of the whole, and for a checksum of its own."""

        def work(stop: Stop) -> str:
            part = Digests([self._algorithm], sha256=False)
            at = start
            while at < start + size:
                stop.check()
                piece = os.pread(self.file.fd, min(_MIB, start + size - at), at)
                if not piece:
                    raise ItemError("the file is not what it was at the claim: it has become shorter")
                whole.update(piece)
                part.update(piece)
                at += len(piece)
            return part.value(self._algorithm)

        return work

    def _is_there(
        self, upload: BegunUpload, number: int, size: int, digest: str, there: dict[int, dict[str, Any]]
    ) -> bool:
        """Tell whether the store has exactly this part: by its checksum, or by what we noted of its ETag."""
        part = there.get(number)
        if part is None or part.get("Size") != size:
            return False
        etag = part["ETag"]
        told = part.get(f"Checksum{self._algorithm}")
        if told is None and self.abilities.checksum is None:
            same = checksums.etag_md5(part) == checksums.hex_of(digest)
        elif told is None:
            same = upload.parts.get(number) == (etag, digest)
        else:
            same = told == digest
        if same:
            self._keep(number, part)
        return same

    async def _part(self, upload: BegunUpload, number: int, start: int, size: int, digest: str) -> None:
        try:
            name = "ContentMD5" if self.abilities.checksum is None else f"Checksum{self._algorithm}"
            answer = await self.bucket.send(
                "upload_part",
                "uploading a part",
                lambda piece_sent: Slice(self.file.fd, start, size, piece_sent),
                expected=GONE,
                Key=upload.key,
                UploadId=upload.upload_id,
                PartNumber=number,
                **{name: digest},
            )
        except ClientError as error:
            # Somebody's lifecycle rule has removed it meanwhile: begun again at the next try.
            self.notes.over(upload.key)
            raise TransientError("the store has forgotten the upload", where=self._uri) from error
        finally:
            self._slots.release()
        if self.abilities.checksum is None and checksums.etag_md5(answer) != checksums.hex_of(digest):
            self._proved = False
        self._keep(number, answer)
        self.notes.sent(upload, number, answer["ETag"], digest)
        fail_points.point("upload.part")
        self._sent(size)

    def _keep(self, number: int, answer: dict[str, Any]) -> None:
        name = f"Checksum{self._algorithm}"
        told = {name: answer[name]} if answer.get(name) else {}
        self._done[number] = {"PartNumber": number, "ETag": answer["ETag"], **told}

    @property
    def _uri(self) -> str:
        return self.bucket.uri(self.file.key)

    # -- the whole ---------------------------------------------------------------------------

    async def _complete(self, upload: BegunUpload, whole: Digests) -> None:
        given: dict[str, Any] = {}
        if self.abilities.checksum is not None and self._is_crc:
            given[f"Checksum{self._algorithm}"] = whole.value(self._algorithm)
            given["ChecksumType"] = "FULL_OBJECT"
        guarded = self.abilities.conditional is not False and not self.file.replace
        if not (self.abilities.conditional or self.file.replace):
            await self._see_free(upload)
        parts = [self._done[number] for number in sorted(self._done)]
        try:
            answer = await self._completed(
                Key=upload.key,
                UploadId=upload.upload_id,
                MultipartUpload={"Parts": parts},
                guarded=guarded,
                **given,
            )
        except ClientError as error:
            await self.give_up(upload)
            # Gone: an earlier request's answer was lost on the way; what lies there tells.
            if connection.code_of(error) in EXISTS:
                raise AlreadyThere from error
            self._certain = False
        else:
            self._version = version_of(answer)
        fail_points.point("upload.completed")

    async def _completed(self, *, guarded: bool, **given: Any) -> dict[str, Any]:
        """Complete it, where the store knows If-None-Match only if there is no such object."""
        doing, expected = "completing an upload", EXISTS | GONE
        if guarded:
            try:
                return await self.bucket.ask(
                    "complete_multipart_upload",
                    doing,
                    expected=expected | NO_CONDITIONS,
                    IfNoneMatch="*",
                    wanted="ETag",
                    patience_s=_COMPLETION_S,
                    **given,
                )
            except ClientError as error:
                if connection.code_of(error) not in NO_CONDITIONS:
                    raise
        return await self.bucket.ask(
            "complete_multipart_upload",
            doing,
            expected=expected,
            wanted="ETag",
            patience_s=_COMPLETION_S,
            **given,
        )

    async def _see_free(self, upload: BegunUpload) -> None:
        """See that nothing has come while the parts were sent, where the store may not see to it."""
        if await self.bucket.head(upload.key) is not None:
            await self.give_up(upload)
            raise AlreadyThere

    async def _seen(self, upload: BegunUpload, whole: Digests) -> Stored:
        """Look at what lies there now, and return how it is known to be whole."""
        head = await self.bucket.head(upload.key, self._version)
        if head is None or head["ContentLength"] != self.file.size:
            self.notes.over(upload.key)
            raise TransientError("the completed object is not there, or of another size", where=self._uri)
        stored = await self._proof(head, whole)
        await self._forget_lost(upload)
        self.notes.over(upload.key)
        if stored is None:
            if not self._certain:  # what lies there is another's, or older: not ours to remove
                raise TransientError("the store has forgotten the upload", where=self._uri)
            await self.bucket.discard(upload.key, self._version)
            raise AssertionError  # discard raises
        return stored

    async def _proof(self, head: dict[str, Any], whole: Digests) -> Stored | None:
        algorithm, version = self._algorithm, version_of(head)
        told = checksums.stored(head)
        if told is not None and whole.has(told[0]):
            if told[1] != whole.value(told[0]):
                return None
            words = f"{told[0]} of the whole, kept by the store"
            return Stored(
                key=self.file.key, verified_by=words, checksum=f"{told[0]}:{told[1]}", version=version
            )
        if self.abilities.checksum is not None and self._certain:
            words = f"{algorithm} of every part, checked by the store"
            return Stored(key=self.file.key, verified_by=words, version=version)
        if self.abilities.checksum is None and self._proved and self._certain:
            words = "MD5 (ETag) of every part, computed by the store"
            return Stored(key=self.file.key, verified_by=words, version=version)
        if await self.bucket.sha256(self.file.key, version) != whole.sha256:
            return None
        return Stored(key=self.file.key, verified_by="SHA-256 read back", version=version)
