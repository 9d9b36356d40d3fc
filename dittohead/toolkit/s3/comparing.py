"""What lies in a bucket where files would go: for plans, which write nothing and read no object."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from dittohead.model.records import Entry
from dittohead.system import files
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit import checksums
from dittohead.toolkit.checksums import Digests
from dittohead.toolkit.s3.bucket import Bucket

#: Keys looked for by one listing.
_AHEAD = 500

#: "unknown": there is an object, and only reading it, or making the file, would tell whether it is the same.
There = Literal["nothing", "same", "other", "unknown"]


async def compare(
    bucket: Bucket, entries: Iterable[Entry], key_of: Callable[[Entry], str], root: Path
) -> AsyncIterator[tuple[Entry, str, There]]:
    """Yield each file, its key, and what is there. A file yet to be made has sha256 "" and size 0.

    Args:
        entries: the files, in the order in which they are yielded.
        key_of: a file's key in the bucket.
        root: the directory that the files are relative to.

    Raises: TransientError, TargetError: the bucket cannot be asked; OSError: a file cannot be read.
    """
    rest = iter(entries)
    while some := [(entry, key_of(entry)) for entry in islice(rest, _AHEAD)]:
        absent = await bucket.absent([key for _, key in some])
        for entry, key in some:
            head = None if key in absent else await bucket.head(key)
            yield entry, key, "nothing" if head is None else await _found(entry, head, root)


async def _found(entry: Entry, head: dict[str, Any], root: Path) -> There:
    if not entry.sha256:
        return "unknown"
    if head["ContentLength"] != entry.size:
        return "other"
    told, md5 = checksums.stored(head), checksums.etag_md5(head)
    if told is None and md5 is None:
        return "unknown"
    algorithm, value = told or ("MD5", "")
    digests = await in_thread(lambda stop: _digest(root, entry.path, algorithm, stop))
    if told is not None:
        return "same" if digests.value(algorithm) == value else "other"
    # An ETag need not be an MD5: only a match tells something.
    return "same" if checksums.hex_of(digests.value("MD5")) == md5 else "unknown"


def _digest(root: Path, path: bytes, algorithm: str, stop: Stop) -> Digests:
    digests = Digests([algorithm], sha256=False)
    with files.opened_beneath(root, path) as fd:
        files.hash_fd(fd, [digests], files.hash_buffer(), lambda block: stop.check())
    return digests
