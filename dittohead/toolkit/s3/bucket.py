"""One bucket: what its store can do, found by trying; objects sent, compared and verified there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Final

from botocore.exceptions import ClientError

from dittohead.model.errors import StepError, TargetError, TransientError
from dittohead.toolkit import checksums
from dittohead.toolkit.checksums import Digests
from dittohead.toolkit.s3 import connection
from dittohead.toolkit.s3.request_rate import RequestRate

#: How a store says that a checksum does not fit what arrived.
_MISMATCH: Final = frozenset({"BadDigest", "XAmzContentChecksumMismatch"})

#: How a store says that there is an object already (If-None-Match: *).
EXISTS: Final = frozenset({"PreconditionFailed", "412"})

#: How a store says that it knows no If-None-Match.
NO_CONDITIONS: Final = frozenset({"NotImplemented", "501"})

#: How a store says that there is no such object, or no such upload.
ABSENT: Final = frozenset({"NoSuchKey", "NotFound", "404", "NoSuchVersion"})
GONE: Final = frozenset({"NoSuchUpload", "404"})

#: What answers to HEAD, which have no body, may mean much by: 400, 401 and 403.
_MUTE: Final = frozenset({"400", "SignatureDoesNotMatch", "AccessDenied"})

#: How a store says that it does not know a request or a header.
_UNKNOWN: Final = frozenset(
    {"NotImplemented", "MethodNotAllowed", "InvalidArgument", "InvalidRequest", "InvalidDigest", "501", "405"}
)

#: Seconds that what a store was found to do is believed.
_BELIEVED_S = 3600.0

#: Sendings of one object that arrives wrong before the store is given up.
SENDINGS = 3

#: Seconds without a byte taken by the store before a sending is given up.
_STALL_S = 60.0

_READ = 256 * 1024

#: Sent to find out what a store checks.
_PROBE: Final = b"probe"


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What a store was found to do."""

    checksum: str | None  #: the algorithm by which it refuses what arrives wrong; None: by none
    versioned: bool  #: an object that is overwritten is kept as an earlier version
    conditional: bool | None = None  #: If-None-Match: * keeps from overwriting; None: not tried yet

    @property
    def algorithm(self) -> str:
        """The checksum to take: the store's, or MD5 to compare with the ETag."""
        return self.checksum or "MD5"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One object as it is known to lie in the bucket."""

    key: str
    verified_by: str
    checksum: str = ""  #: "ALGORITHM:BASE64" as the store gives it; "" when it gives none
    version: str = ""
    fresh: bool = True  #: sent now, not found there


#: (address, bucket) -> (when it was found out, what).
_known: dict[tuple[str, str], tuple[float, Abilities]] = {}

PieceSent = Callable[[int], Awaitable[None]]


class Bucket:
    """A bucket of a store, for one step.

    Args:
        client: see `connection.client`.
        address: of the store; see `connection.Connection.address`.
        rate: shared by all who use this store.
    """

    def __init__(self, client: Any, name: str, address: str, rate: RequestRate) -> None:
        self._client, self.name, self.rate = client, name, rate
        self._place = (address, name)
        self._asking = asyncio.Lock()

    def uri(self, key: str) -> str:
        """Return an object's s3:// address, as people write it."""
        return f"s3://{self.name}/{key}"

    async def ask(
        self,
        operation: str,
        doing: str,
        *,
        expected: frozenset[str] = frozenset(),
        trying: Callable[[], None] = lambda: None,
        wanted: str = "",
        patience_s: float = 0.0,
        **parameters: Any,
    ) -> dict[str, Any]:
        """Make one request of the bucket, again and again while its fault passes.

        Args:
            trying: called before each try.
            patience_s: for one try, in all; by default a minute.
            wanted: what an answer must hold; without it it is none of S3's.

        Raises: StepError; ClientError of an expected code.
        """
        method = getattr(self._client, operation)
        where = self.uri(parameters.get("Key", ""))

        async def once() -> dict[str, Any]:
            trying()
            async with asyncio.timeout(patience_s or _STALL_S):
                answer: dict[str, Any] = await method(Bucket=self.name, **parameters)
            return _holding(wanted, answer, where)

        return await self.rate.persist(once, where=where, doing=doing, expected=expected, who=self)

    async def send(
        self,
        operation: str,
        doing: str,
        body: Callable[[PieceSent], Any],
        *,
        expected: frozenset[str] = frozenset(),
        **parameters: Any,
    ) -> dict[str, Any]:
        """Make one request with a body; a store that takes no byte of it for a minute has failed it.

        Args:
            body: makes the body again for each try, given what to await for each piece.

        Raises: StepError; ClientError of an expected code.
        """
        method, loop = getattr(self._client, operation), asyncio.get_running_loop()
        where = self.uri(parameters["Key"])

        async def once() -> dict[str, Any]:
            async with asyncio.timeout(_STALL_S) as patience:

                async def piece_sent(size: int) -> None:
                    patience.reschedule(None)
                    await self.rate.spend(size)
                    patience.reschedule(loop.time() + _STALL_S)

                content = body(piece_sent)
                if isinstance(content, bytes):  # sent as one piece
                    await piece_sent(len(content))
                answer: dict[str, Any] = await method(Bucket=self.name, Body=content, **parameters)
            return _holding("ETag", answer, where)

        return await self.rate.persist(once, where=where, doing=doing, expected=expected, who=self)

    # -- what the store can do ---------------------------------------------------------------

    async def abilities(self, prefix: str = "") -> Abilities:
        """Return what the store can do; asked of it once an hour.

        An object of a few bytes is sent with a wrong checksum: a store that checks refuses it and
        keeps nothing. One that takes it does not check; the object is removed again.

        Args:
            prefix: where in the bucket this user may write.
        """
        async with self._asking:
            when, known = _known.get(self._place, (0.0, None))
            if known is None or time.monotonic() - when > _BELIEVED_S:
                known = Abilities(checksum=await self._checks(prefix), versioned=await self.versioned())
                _known[self._place] = (time.monotonic(), known)
            return known

    async def _checks(self, prefix: str) -> str | None:
        key = await self._free(f"{prefix}.dittohead-probe")
        taken: list[str] = []  # versions
        try:
            for algorithm in checksums.WANTED:
                wrong: dict[str, Any] = {
                    f"Checksum{algorithm}": checksums.checksum(algorithm, b"something else")
                }
                try:
                    answer = await self.ask(
                        "put_object",
                        "asking what it checks",
                        expected=_MISMATCH | _UNKNOWN,
                        Key=key,
                        Body=_PROBE,
                        **wrong,
                    )
                    taken.append(version_of(answer))
                except ClientError as error:
                    if connection.code_of(error) in _MISMATCH:
                        return algorithm
        finally:
            for version in dict.fromkeys(taken):
                with contextlib.suppress(StepError):  # who may not delete leaves five bytes
                    given: dict[str, Any] = {"VersionId": version} if version else {}
                    await self.ask("delete_object", "removing what it was asked with", Key=key, **given)
        return None

    async def _free(self, key: str) -> str:
        """Return a key that no object has, or that we have left there: this one, or one like it."""
        head = await self.head(key)
        if head is None or checksums.etag_md5(head) == hashlib.md5(_PROBE, usedforsecurity=False).hexdigest():
            return key
        return f"{key}-{secrets.token_hex(8)}"

    async def versioned(self) -> bool:
        """Return whether an object that is overwritten is kept as an earlier version."""
        try:
            answer = await self.ask(
                "get_bucket_versioning",
                "asking for versioning",
                expected=_UNKNOWN | {"AccessDenied"} | ABSENT,
            )
        except ClientError:
            return False  # not told: as careful as without
        return bool(answer.get("Status") == "Enabled")

    def learnt(self, *, conditional: bool) -> None:
        """Keep whether If-None-Match was obeyed."""
        when, known = _known[self._place]
        _known[self._place] = (when, replace(known, conditional=conditional))

    # -- what lies there ---------------------------------------------------------------------

    async def head(self, key: str, version: str = "") -> dict[str, Any] | None:
        """Return what the store says of an object, its checksums included; None when there is none."""
        given: dict[str, Any] = {"VersionId": version} if version else {}
        try:
            return await self.ask(
                "head_object",
                "looking",
                expected=ABSENT | _MUTE,
                wanted="ContentLength",
                Key=key,
                ChecksumMode="ENABLED",
                **given,
            )
        except ClientError as error:
            if connection.code_of(error) in ABSENT:
                return None
            # Another request is told what is wrong, such as that credentials have expired.
            await self.ask("list_objects_v2", "looking", Prefix=key, MaxKeys=1)
            raise connection.fault(error, where=self.uri(key), doing="looking") from error

    async def absent(self, keys: Collection[str]) -> set[str]:
        """Return those of some keys that surely are not there, by one listing of where they would lie.

        The others may be there: they lie behind others' keys, or the user may not list.
        """
        first = min(keys)
        given: dict[str, Any] = {"StartAfter": first[:-1]} if len(first) > 1 else {}
        try:
            answer = await self.ask(
                "list_objects_v2",
                "listing",
                expected=_UNKNOWN | {"AccessDenied"},
                Prefix=os.path.commonprefix(list(keys)),  # noqa: RUF071  # of characters, as S3 has it
                **given,
            )
        except ClientError:
            return set()
        listed = [item["Key"] for item in answer.get("Contents", ())]
        there = {_plain(key) for key in listed}
        absent = {key for key in keys if _plain(key) not in there and key.isprintable()}
        if not answer.get("IsTruncated"):
            return absent
        order = [key.encode() for key in listed]  # S3 sorts by UTF-8; who does not has told nothing
        last = order[-1] if order and order == sorted(order) else b""
        return {key for key in absent if key.encode() < last}

    async def same(self, key: str, head: dict[str, Any], digests: Digests) -> Stored | None:
        """Return how an object in the bucket is known to be exactly this file; None when it is another.

        Args:
            key: the object's key.
            head: the store's answer to a HEAD of it.
            digests: of the file, computed already.

        Raises: StepError: it had to be read back, and that was not possible.
        """
        if head["ContentLength"] != digests.size:
            return None
        version = version_of(head)
        found = checksums.stored(head)
        if found is not None and digests.has(found[0]):
            if digests.value(found[0]) != found[1]:
                return None
            told = f"{found[0]}:{found[1]}"
            words = f"{found[0]} kept by the store"
            return Stored(key=key, verified_by=words, checksum=told, version=version, fresh=False)
        md5 = checksums.etag_md5(head)
        if md5 is not None and digests.has("MD5") and checksums.hex_of(digests.value("MD5")) == md5:
            return Stored(key=key, verified_by="MD5 (ETag) kept by the store", version=version, fresh=False)
        if await self.sha256(key, version) != digests.sha256:
            return None
        return Stored(key=key, verified_by="SHA-256 read back", version=version, fresh=False)

    async def sha256(self, key: str, version: str = "") -> str:
        """Read an object back, whole, and return its SHA-256; 64 hex digits."""
        given = {"VersionId": version} if version else {}

        async def once() -> str:
            running = hashlib.sha256()
            async with asyncio.timeout(_STALL_S) as patience:
                answer = await self._client.get_object(Bucket=self.name, Key=key, **given)
                async with answer["Body"] as body:
                    async for piece in body.iter_chunks(_READ):
                        patience.reschedule(asyncio.get_running_loop().time() + _STALL_S)
                        await asyncio.to_thread(running.update, piece)
            return running.hexdigest()

        return await self.rate.persist(once, where=self.uri(key), doing="reading back", who=self)

    async def verified(
        self, key: str, answer: dict[str, Any], digests: Digests, abilities: Abilities
    ) -> Stored | None:
        """Return how an object that was just sent in one piece is known to be whole; None when it is not.

        In this order: the store refuses what does not fit its checksum; it gives the MD5 of what it
        holds as the ETag; it is read back.

        Args:
            key: the object's key.
            answer: the store's answer to the put.
            digests: what was computed while the file was sent.
            abilities: what this store can do.

        Raises: StepError: it had to be read back, and that was not possible.
        """
        version = version_of(answer)
        if abilities.checksum is not None:
            told = f"{abilities.checksum}:{digests.value(abilities.checksum)}"
            words = f"{abilities.checksum} checked by the store"
            return Stored(key=key, verified_by=words, checksum=told, version=version)
        md5 = checksums.etag_md5(answer)
        if md5 is not None and md5 == checksums.hex_of(digests.value("MD5")):
            return Stored(key=key, verified_by="MD5 (ETag) computed by the store", version=version)
        if await self.sha256(key, version) == digests.sha256:
            return Stored(key=key, verified_by="SHA-256 read back", version=version)
        return None

    # -- unfinished uploads ------------------------------------------------------------------

    async def unfinished(self, key: str) -> list[str]:
        """Return the ids of the multipart uploads of a key that are not complete."""
        found: list[str] = []
        marker: dict[str, Any] = {}
        while True:
            try:
                answer = await self.ask(
                    "list_multipart_uploads",
                    "listing unfinished uploads",
                    expected=_UNKNOWN | GONE | {"AccessDenied"},
                    Prefix=key,
                    **marker,
                )
            except ClientError:
                return found
            found += [upload["UploadId"] for upload in answer.get("Uploads", ()) if upload["Key"] == key]
            if not answer.get("IsTruncated"):
                return found
            marker = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    async def abort(self, key: str, upload_id: str) -> None:
        """Give up a multipart upload; one that is gone already is as good."""
        try:
            await self.ask(
                "abort_multipart_upload",
                "giving up an upload",
                expected=GONE | ABSENT,
                Key=key,
                UploadId=upload_id,
            )
        except ClientError:
            return

    async def discard(self, key: str, version: str) -> None:
        """Remove what arrived wrong. Raises: TargetError: always; a store that does this is not a place."""
        given: dict[str, Any] = {"VersionId": version} if version else {}
        try:
            await self.ask("delete_object", "removing what arrived wrong", Key=key, **given)
            left = "it was removed"
        except StepError as error:
            left = f"it could not be removed: {error}"
        raise TargetError(
            f"the store keeps something else than what was sent, {SENDINGS} times; {left}",
            where=self.uri(key),
            hint="Check the store's disks and whatever lies between, then it goes on by itself",
        )


def _holding(wanted: str, answer: dict[str, Any], where: str) -> dict[str, Any]:
    """Return an answer. Raises: TransientError: it lacks what S3 says; a proxy's page, for one."""
    if wanted and answer.get(wanted) in (None, ""):
        raise TransientError(f"the answer holds no {wanted}: is it the store's?", where=where)
    return answer


def _plain(key: str) -> str:
    """Return a listed key so that it does not matter how the store encodes spaces: as " " or as "+"."""
    return key.replace("+", " ")


def version_of(answer: dict[str, Any]) -> str:
    """Return the version's id in an answer; "" where the bucket keeps no versions."""
    version = str(answer.get("VersionId") or "")
    return "" if version == "null" else version
