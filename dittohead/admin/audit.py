"""What a source says is stored, compared with the receipts, and with a bucket: missing, surplus, changed.

One entry at a time, in bounded memory: its receipt, and what lies in the bucket in the directory of its own.
Of each object the size is compared, and what proves its content at the least cost: an ETag that is the MD5
which the receipt has, or a checksum that the store keeps. Where a store gives neither, only reading tells.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from dittohead.folders import receipt
from dittohead.model.errors import DittoheadError, TransientError, Unreadable
from dittohead.store import Connection, Store
from dittohead.store import catalogue as catalogue_store
from dittohead.store import drops as drop_store
from dittohead.store import jobs as job_store
from dittohead.toolkit import checksums
from dittohead.toolkit.s3.bucket import Bucket

T = TypeVar("T")

#: Entries read from the store at once.
_PAGE = 500

#: How an object is known of which the store tells no more than its size.
_SIZE = "size alone"

#: Objects asked for at once.
_ASKED = 16

#: Kinds of findings.
KINDS: tuple[str, ...] = ("missing", "surplus", "changed")

#: What is named of each kind of finding; the others are only counted.
_NAMED = 1000


@dataclass
class Audit:
    """What was found."""

    stored: int = 0  #: entries that the source says are stored
    objects: int = 0  #: of them in the bucket, as their receipts say
    by: Counter[str] = field(default_factory=Counter)  #: of these: by what that is known -> how many
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    named: dict[str, list[dict[str, str]]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def add(self, kind: str, what: str, why: str) -> None:
        """Add a finding: it is counted, and named while there are not too many of its kind.

        Args:
            kind: one of `KINDS`.
            what: what it is about: a key, or an object.
            why: what is wrong, in words.
        """
        self.counts[kind] += 1
        if len(self.named[kind]) < _NAMED:
            self.named[kind].append({"what": what, "why": why})

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON fields."""
        wrong = sum(self.counts.values())
        return {
            "stored": self.stored,
            "objects": self.objects,
            "by": dict(self.by),
            "wrong": wrong,
            "counts": self.counts,
            **self.named,
        }


@dataclass(frozen=True, kw_only=True)
class ComparedBucket:
    """Which bucket is compared, and how closely."""

    bucket: Bucket
    prefix: str  #: below which they lie; "" for the whole bucket
    read: bool = False  #: read each object, whole, whatever the store says of it


async def audit(
    store: Store, receipts: Path, source: str, kind: str, stage: str, place: ComparedBucket | None
) -> Audit:
    """Compare everything that a source says is stored.

    Args:
        store: of the daemon.
        receipts: their directory.
        source: the source's name.
        kind: of the entries.
        stage: of those that are stored.
        place: a bucket; None: only receipts are looked at.

    Raises: StoreError, TargetError, TransientError.
    """
    found = Audit()
    owned: set[str] = set()  #: the first part below the prefix of each entry's keys
    async for key, path in _stored(store, receipts, source, kind, stage):
        found.stored += 1
        objects = _objects(path, key, found, place)
        if place is not None and objects:
            owned |= {name[len(place.prefix) :].split("/")[0] for name in objects}
            await _compare(place, key, objects, found)
    await _without_entry(store, source, kind, stage, found)
    if place is not None:
        async for name in _tops(place):
            if name not in owned:
                what = place.bucket.uri(f"{place.prefix}{name}")
                found.add("surplus", what, "no stored entry's receipt names it")
    return found


async def _stored(
    store: Store, receipts: Path, source: str, kind: str, stage: str
) -> AsyncIterator[tuple[str, Path | None]]:
    """Yield (key, its receipt) of each stored entry; None where no job of its folder is done."""
    after = ""
    while True:

        def page_of(connection: Connection, after: str = after) -> list[tuple[str, Path | None]]:
            page = catalogue_store.page(connection, source, kind, after=after, limit=_PAGE, stage=stage)
            jobs = drop_store.done_jobs(connection, source, [entry.key for entry in page])
            return [(entry.key, _path(connection, receipts, jobs.get(entry.key))) for entry in page]

        found = await store.read(page_of)
        if not found:
            return
        for one in found:
            yield one
        after = found[-1][0]


def _path(connection: Connection, receipts: Path, job_id: str | None) -> Path | None:
    return None if job_id is None else receipt.path_of(receipts, job_store.get(connection, job_id))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Expected:
    """One object as a receipt has it."""

    size: int  #: bytes
    sha256: str
    checksum: str  #: "ALGORITHM:BASE64", as the store gave it; "" for none
    md5: str  #: in hex; "" where the receipt has none


def _objects(path: Path | None, key: str, found: Audit, place: ComparedBucket | None) -> dict[str, _Expected]:
    """Return the objects that an entry's receipt names in the bucket, by their keys."""
    if path is None:
        found.add("missing", key, "it is said to be stored, and no job of its folder is done")
        return {}
    try:
        fields = receipt.read(path)
    except FileNotFoundError:
        found.add("missing", key, f"its receipt is not there: {path}")
        return {}
    except (Unreadable, OSError) as error:
        found.add("changed", key, f"its receipt cannot be read: {error}")
        return {}
    if place is None:
        return {}
    begin, root = place.bucket.uri(place.prefix), place.bucket.uri("")
    md5 = {one["sha256"]: str(one.get("detail", {}).get("md5", "")) for one in fields["outputs"]}
    objects = {
        one["uri"][len(root) :]: _Expected(
            size=int(one["size"]),
            sha256=one["sha256"],
            checksum=one.get("checksum", ""),
            md5=md5.get(one["sha256"], ""),
        )
        for one in fields["locations"]
        if one["uri"].startswith(begin)
    }
    if not objects:
        found.add("missing", key, f"its receipt names no object below {begin}")
    return objects


async def _compare(place: ComparedBucket, key: str, objects: dict[str, _Expected], found: Audit) -> None:
    """Compare an entry's objects with what lies in the bucket."""
    bucket = place.bucket
    left = dict(objects)
    own = _own_directory(key, objects, place.prefix)
    if own:
        async for page in _pages(bucket, Prefix=own):
            there = {one["Key"]: one for one in page.get("Contents", ())}
            for name in sorted(there.keys() - objects.keys()):
                found.add("surplus", bucket.uri(name), f"the receipt of {key} does not name it")
            known = {name: (left.pop(name), one) for name, one in there.items() if name in left}
            await _each(place, known, found)
    else:  # others' objects lie beside them: each is asked for
        for some in batched(sorted(objects), _ASKED):
            heads = await asyncio.gather(*(bucket.head(name) for name in some))
            there = {name: head for name, head in zip(some, heads, strict=True) if head is not None}
            await _each(place, {name: (left.pop(name), head) for name, head in there.items()}, found)
    for name in left:
        found.add("missing", bucket.uri(name), f"the receipt of {key} names it")


def _own_directory(key: str, objects: Collection[str], prefix: str) -> str:
    """Return the directory that an entry's objects have for themselves; "" where they have none."""
    below = posixpath.commonprefix(list(objects))
    below = below[: below.rfind("/") + 1]
    return below if key in below[len(prefix) :].split("/") else ""


async def _each(
    place: ComparedBucket, known: Mapping[str, tuple[_Expected, Mapping[str, Any]]], found: Audit
) -> None:
    """Compare objects with what a listing or HEAD says of them, some at once."""
    for some in batched(known.items(), _ASKED):
        said = await asyncio.gather(*(_judged(place, name, *pair) for name, pair in some))
        for (name, _), (problem, by) in zip(some, said, strict=True):
            if problem:
                found.add("changed", place.bucket.uri(name), problem)
            else:
                found.objects += 1
                found.by[by] += 1


async def _judged(
    place: ComparedBucket, name: str, expected: _Expected, told: Mapping[str, Any]
) -> tuple[str, str]:
    """Return (what is wrong with an object, or by what it is known to be right)."""
    size = int(told["Size"] if "Size" in told else told["ContentLength"])
    if size != expected.size:
        return f"{size:,} bytes; the receipt says {expected.size:,}", ""
    if place.read:
        return await _by_reading(place, name, expected)
    # Only a match tells something: an ETag need not be an MD5.
    if expected.md5 and checksums.etag_md5(told) == expected.md5:
        return "", "ETag"
    head = told if "ContentLength" in told else await place.bucket.head(name)
    if head is None:
        return "it was removed while it was looked at", ""
    said = _by_checksum(expected, head)
    # Where it may be another one the store does not say so for certain: this one is read.
    return (
        await _by_reading(place, name, expected)
        if said[1] == _SIZE and _is_doubtful(expected, head)
        else said
    )


async def _by_reading(place: ComparedBucket, name: str, expected: _Expected) -> tuple[str, str]:
    same = await place.bucket.sha256(name) == expected.sha256
    return ("", "reading") if same else ("its bytes have another SHA-256 than the receipt says", "")


def _is_doubtful(expected: _Expected, head: Mapping[str, Any]) -> bool:
    """Tell whether an ETag that would be an MD5 is another, or a checksum that was there is not any more.

    Source: Amazon S3 API, Object: the ETag of what a KMS key or a customer's key encrypts is not an MD5.
    """
    encrypted = "kms" in str(head.get("ServerSideEncryption", "")) or "SSECustomerAlgorithm" in head
    other = bool(expected.md5) and checksums.etag_md5(head) is not None and not encrypted
    return other or bool(expected.checksum)


def _by_checksum(expected: _Expected, head: Mapping[str, Any]) -> tuple[str, str]:
    """Compare what the store says of an object's content."""
    if expected.md5 and checksums.etag_md5(head) == expected.md5:
        return "", "ETag"
    algorithm, _, value = expected.checksum.partition(":")
    kept = head.get(f"Checksum{algorithm}") if algorithm else None
    sha256 = head.get("ChecksumSHA256") or ""
    if kept is not None:
        return "" if kept == value else f"its {algorithm} is another than the receipt says", "checksum"
    if sha256 and "-" not in sha256:
        same = checksums.hex_of(sha256) == expected.sha256
        return "" if same else "its SHA-256 is another than the receipt says", "checksum"
    return "", _SIZE


async def _pages(bucket: Bucket, **given: Any) -> AsyncIterator[dict[str, Any]]:
    """Yield the pages of a listing. Raises: TransientError: it does not go on as it should."""
    token = ""
    while True:
        more: dict[str, Any] = {"ContinuationToken": token} if token else {}
        answer = await bucket.ask("list_objects_v2", "listing", **given, **more)
        yield answer
        if not answer.get("IsTruncated"):
            return
        following = str(answer.get("NextContinuationToken") or "")
        if following in ("", token):
            raise TransientError(
                "the store says that its listing goes on, and not where", where=bucket.uri(given["Prefix"])
            )
        token = following


async def _tops(place: ComparedBucket) -> AsyncIterator[str]:
    """Yield the first parts of all keys below a prefix."""
    begin = len(place.prefix)
    async for page in _pages(place.bucket, Prefix=place.prefix, Delimiter="/"):
        for one in page.get("CommonPrefixes", ()):
            yield one["Prefix"][begin:].rstrip("/")
        for one in page.get("Contents", ()):
            yield one["Key"][begin:]


async def _without_entry(store: Store, source: str, kind: str, stage: str, found: Audit) -> None:
    """Find folders of the source whose jobs are done, and whose entries are not said to be stored."""
    after = ""
    while folders := await store.read(drop_store.done_folders, source, after, _PAGE):
        known = await store.read(catalogue_store.get, source, kind, folders)
        for folder in folders:
            if folder not in known:
                found.add("surplus", folder, "its job is done, and the source does not know it")
            elif known[folder].stage != stage:
                found.add("changed", folder, f'its job is done; the source has it as "{known[folder].stage}"')
        after = folders[-1]


def batched(found: Iterable[T], most: int) -> Iterator[tuple[T, ...]]:
    """Yield what is found, so many at once. `itertools` has it from Python 3.12 on."""
    rest = iter(found)
    while some := tuple(islice(rest, most)):
        yield some


def bucket_of(text: str) -> tuple[str, str]:
    """Return (bucket, prefix) of s3://BUCKET/PREFIX. Raises: DittoheadError."""
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://") or not bucket:
        raise DittoheadError(f'"{text}" is not a bucket', hint="Write it as s3://BUCKET/PREFIX")
    return bucket, prefix


def findings(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, what, why) of each finding that is named."""
    for kind in KINDS:
        for one in found[kind]:
            yield kind, one["what"], one["why"]
