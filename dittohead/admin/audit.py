"""What a source says is stored, compared with the receipts, and with a bucket: missing, surplus, changed.

One entry at a time, in bounded memory: its receipt, and what lies in the bucket below the part that all of
its objects' keys share. Of a bucket only sizes are compared; `dittohead verify` compares checksums.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dittohead.folders import receipt
from dittohead.model.errors import DittoheadError, Unreadable
from dittohead.store import Connection, Store
from dittohead.store import catalogue as catalogue_store
from dittohead.store import drops as drop_store
from dittohead.store import jobs as job_store
from dittohead.toolkit.s3.bucket import Bucket

#: Entries read from the store at once.
_PAGE = 500

#: Kinds of findings.
KINDS: tuple[str, ...] = ("missing", "surplus", "changed")

#: What is named of each kind of finding; the others are only counted.
_NAMED = 1000


@dataclass
class Audit:
    """What was found."""

    stored: int = 0  #: entries that the source says are stored
    objects: int = 0  #: of them in the bucket
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
            "wrong": wrong,
            "counts": self.counts,
            **self.named,
        }


async def audit(
    store: Store, receipts: Path, source: str, kind: str, stage: str, bucket: Bucket | None, prefix: str
) -> Audit:
    """Compare everything that a source says is stored.

    Args:
        receipts: their directory.
        kind: of the entries.
        stage: of those that are stored.
        bucket: None: only receipts are looked at.
        prefix: below which their objects lie in the bucket.

    Raises: StoreError, TargetError, TransientError.
    """
    found = Audit()
    owned: set[str] = set()  #: the first part below the prefix of each entry's keys
    async for key, path in _stored(store, receipts, source, kind, stage):
        found.stored += 1
        objects = _objects(path, key, found, bucket, prefix)
        if bucket is not None and objects:
            owned |= {name[len(prefix) :].split("/")[0] for name in objects}
            await _compare(bucket, prefix, key, objects, found)
    await _without_entry(store, source, kind, stage, found)
    if bucket is not None:
        async for name in _tops(bucket, prefix):
            if name not in owned:
                found.add("surplus", bucket.uri(f"{prefix}{name}"), "no stored entry's receipt names it")
    return found


async def _stored(
    store: Store, receipts: Path, source: str, kind: str, stage: str
) -> AsyncIterator[tuple[str, Path | None]]:
    """Yield (key, its receipt) of each stored entry; None where no job of its folder is done."""
    after = ""
    while True:

        def look(connection: Connection, after: str = after) -> list[tuple[str, Path | None]]:
            page = catalogue_store.page(connection, source, kind, after=after, limit=_PAGE, stage=stage)
            jobs = drop_store.done_jobs(connection, source, [entry.key for entry in page])
            return [(entry.key, _path(connection, receipts, jobs.get(entry.key))) for entry in page]

        found = await store.read(look)
        if not found:
            return
        for one in found:
            yield one
        after = found[-1][0]


def _path(connection: Connection, receipts: Path, job_id: str | None) -> Path | None:
    return None if job_id is None else receipt.path_of(receipts, job_store.get(connection, job_id))


def _objects(path: Path | None, key: str, found: Audit, bucket: Bucket | None, prefix: str) -> dict[str, int]:
    """Return the objects that an entry's receipt names in the bucket: key -> bytes."""
    if path is None:
        found.add("missing", key, "it is said to be stored, and no job of its folder is done")
        return {}
    try:
        locations = receipt.read(path)["locations"]
    except FileNotFoundError:
        found.add("missing", key, f"its receipt is not there: {path}")
        return {}
    except (Unreadable, OSError) as error:
        found.add("changed", key, f"its receipt cannot be read: {error}")
        return {}
    if bucket is None:
        return {}
    begin = bucket.uri(prefix)
    root = bucket.uri("")
    objects = {one["uri"][len(root) :]: int(one["size"]) for one in locations if one["uri"].startswith(begin)}
    if not objects:
        found.add("missing", key, f"its receipt names no object below {begin}")
    return objects


async def _compare(bucket: Bucket, prefix: str, key: str, objects: dict[str, int], found: Audit) -> None:
    below = posixpath.commonprefix(list(objects))
    below = below[: below.rfind("/") + 1]
    left = dict(objects)
    async for name, size in _listed(bucket, below):
        expected = left.pop(name, None)
        if expected is None:
            # Below the prefix itself lie those of other entries.
            if below != prefix and len(below) > len(prefix):
                found.add("surplus", bucket.uri(name), f"the receipt of {key} does not name it")
        elif expected != size:
            found.add("changed", bucket.uri(name), f"{size:,} bytes; the receipt says {expected:,}")
        else:
            found.objects += 1
    for name in left:
        found.add("missing", bucket.uri(name), f"the receipt of {key} names it")


async def _listed(bucket: Bucket, prefix: str) -> AsyncIterator[tuple[str, int]]:
    after = ""
    while True:
        answer = await bucket.ask("list_objects_v2", "listing", Prefix=prefix, StartAfter=after)
        page = answer.get("Contents", ())
        for one in page:
            yield one["Key"], int(one["Size"])
        if not answer.get("IsTruncated") or not page:
            return
        after = page[-1]["Key"]


async def _tops(bucket: Bucket, prefix: str) -> AsyncIterator[str]:
    """Yield the first parts of all keys below a prefix."""
    more: dict[str, Any] = {}
    while True:
        answer = await bucket.ask("list_objects_v2", "listing", Prefix=prefix, Delimiter="/", **more)
        for one in answer.get("CommonPrefixes", ()):
            yield one["Prefix"][len(prefix) :].rstrip("/")
        for one in answer.get("Contents", ()):
            yield one["Key"][len(prefix) :]
        if not answer.get("IsTruncated"):
            return
        more = {"ContinuationToken": answer["NextContinuationToken"]}


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


def place(text: str) -> tuple[str, str]:
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
