"""The manifest: path, size and SHA-256 of every file, taken at the claim and checked before the end.

One JSON object a line, in the order of `files.walk`, so that a million files need no memory and two
walks can be compared line by line.
"""

from __future__ import annotations

import fnmatch
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dittohead.model.errors import ChangedError, ItemError
from dittohead.model.paths import path_bytes, path_fields
from dittohead.model.records import Entry
from dittohead.model.text import counted
from dittohead.system import files, leases, own_files
from dittohead.system.leases import WRITERS_S
from dittohead.system.threads import Stop

#: Below this a file is hashed by the walking thread itself: handing it over costs more.
_INLINE = 256 * 1024
#: Files open at once while their digests are computed.
_AHEAD = 16
#: Hashing threads: two keep a fast disk and both of a small machine's cores busy.
_THREADS = 2
#: Stands for the ctime of a file that was written while the manifest was taken: it is not a file's.
HOT = -1
#: The coarsest step of the kernel's clock for time stamps. Source: Linux, CONFIG_HZ_100.
_TICK_NS = 10_000_000
#: Names shown of those that are refused.
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What a manifest amounts to."""

    files: int  #: that steps are given
    size: int  #: bytes of those
    ignored: int = 0  #: files that no step is given, by the pipeline's wish
    ignored_size: int = 0  #: bytes of those
    skipped: int  #: links and special files left out, by the pipeline's wish

    @property
    def left_out(self) -> str:
        """What no step is given, in words; "" when there is nothing."""
        said = []
        if self.ignored:
            said.append(f"{counted(self.ignored, 'file')} ignored, {self.ignored_size:,} bytes")
        if self.skipped:
            said.append(f"{self.skipped} links or special files left out")
        return "; ".join(said)


def measure(root: Path) -> tuple[int, int]:
    """Return (files, bytes) of a tree, reading no content. Raises: ItemError."""
    count = size = 0
    for found in files.walk(root):
        count += 1
        size += found.status.st_size if found.kind == "file" else 0
    return count, size


def nothing_in(totals: Totals, where: str = "") -> ItemError:
    """Return the error of a folder that holds nothing for any step."""
    if totals.ignored:
        return ItemError(
            f"every file of the folder is ignored by the pipeline ({counted(totals.ignored, 'file')})",
            where=where,
            hint="See ignore: in config.yaml; add files to be kept, then move the folder to the inbox again",
        )
    return ItemError(
        "the folder holds no files",
        where=where,
        hint="If the upload was truncated, upload it again under the same name",
    )


def take(
    root: Path,
    destination: Path,
    *,
    stop: Stop,
    skip_specials: bool = False,
    ignore: Sequence[str] = (),
    only: bytes = b"",
    progress: Callable[[int], None] = lambda size: None,
) -> Totals:
    """Walk the folder, hash every file, and write the manifest durably to `destination`.

    Blocking: to be run in a thread. Links and special files are refused, or left out and counted
    when `skip_specials`. Names matching an `ignore` pattern stand in the manifest as ignored.

    Args:
        only: the name of a file in it; nothing else is looked at.
        progress: is given the number of bytes hashed since its last call, from any thread.

    Raises: ItemError: something that is not a file, cannot be read or changes meanwhile; Stopped.
    """
    # What the uploader has written is made durable, and every page of it clean: one that is written
    # through a mapping from now on shows in the file's times, which an already dirty page does not.
    begun = time.time_ns() - _TICK_NS
    files.sync_filesystem(root.parent)
    refused: list[str] = []
    holder = os.lstat(os.path.join(os.fsencode(root), only) if only else root).st_uid
    totals = {"files": 0, "size": 0, "ignored": 0, "ignored_size": 0, "skipped": 0, "refused": 0}
    with files.durable_file(destination) as out, _Hasher(out, stop, progress, totals, begun) as hasher:
        for found in files.walk_one(root, only) if only else files.walk(root):
            stop.check()
            if found.is_empty_dir:
                hasher.directory(found)
            elif found.kind == "file" and _is_anothers(found.status, holder):
                totals["refused"] += 1
                if len(refused) < _SHOWN:
                    refused.append(f"{os.fsdecode(found.path)!r} is a hard link to a file of another owner")
            elif found.kind == "file":
                hasher.file(found, ignored=is_ignored(found.path, ignore))
            elif skip_specials:
                totals["skipped"] += 1
                hasher.special(found)
            else:
                totals["refused"] += 1
                if len(refused) < _SHOWN:
                    refused.append(f"{os.fsdecode(found.path)!r} is a {found.kind}")
        hasher.drain(0)
        if refused:
            raise _refusal(refused, totals["refused"])
    return Totals(
        files=totals["files"],
        size=totals["size"],
        ignored=totals["ignored"],
        ignored_size=totals["ignored_size"],
        skipped=totals["skipped"],
    )


def _is_anothers(status: os.stat_result, holder: int) -> bool:
    """Tell whether a file may have been linked into the folder by somebody who cannot read it.

    Linux lets people link to files they can neither read nor write where fs.protected_hardlinks is
    off, and the daemon may be able to read them. What root hands over, root could read.
    """
    return status.st_nlink > 1 and status.st_uid != holder != 0


def _refusal(refused: list[str], count: int) -> ItemError:
    more = f" and {count - len(refused)} more" if count > len(refused) else ""
    return ItemError(
        "only plain files and directories can be taken: " + "; ".join(refused) + more,
        hint="Replace each by a copy of what it stands for, or delete it",
    )


def is_ignored(path: bytes, patterns: Sequence[str]) -> bool:
    """Tell whether no step is given a file, by a pipeline's patterns.

    Args:
        path: in the folder.
        patterns: each fits any part of a path; one with a slash in front is the path of one file.
    """
    if not patterns:
        return False
    text = os.fsdecode(path)
    return any(
        text == pattern[1:]
        if pattern.startswith("/")
        else any(fnmatch.fnmatchcase(part, pattern) for part in text.split("/"))
        for pattern in patterns
    )


class _Hasher:
    """Writes entries in order while a few large files are hashed ahead of the writing."""

    def __init__(
        self,
        out: IO[bytes],
        stop: Stop,
        progress: Callable[[int], None],
        totals: dict[str, int],
        begun: int,
    ) -> None:
        self._begun = begun
        self._out, self._stop, self._progress, self._totals = out, stop, progress, totals
        self._pool: ThreadPoolExecutor | None = None
        self._queue: deque[tuple[dict[str, Any], Future[str] | str | None]] = deque()

    def __enter__(self) -> _Hasher:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=kind is not None)

    def directory(self, found: files.FoundName) -> None:
        self._queue.append(({**path_fields(found.path), "dir": True}, None))
        self.drain(_AHEAD)

    def special(self, found: files.FoundName) -> None:
        self._queue.append(({**path_fields(found.path), "special": found.kind}, None))
        self.drain(_AHEAD)

    def file(self, found: files.FoundName, *, ignored: bool) -> None:
        fd, status = _open(found)
        fields: dict[str, Any] = {
            **path_fields(found.path),
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            # One that is being written may go on being written unseen: its times prove nothing.
            "ctime_ns": status.st_ctime_ns if status.st_ctime_ns < self._begun else HOT,
            "ino": status.st_ino,
        }
        if ignored:
            fields["ignored"] = True
        self._totals["ignored" if ignored else "files"] += 1
        self._totals["ignored_size" if ignored else "size"] += status.st_size
        if status.st_size <= _INLINE:
            self._queue.append((fields, self._hash(fd, status.st_size, found.path)))
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="manifest")
            self._queue.append((fields, self._pool.submit(self._hash, fd, status.st_size, found.path)))
        self.drain(_AHEAD)

    def _hash(self, fd: int, size: int, path: bytes) -> str:
        try:
            digest, count = files.sha256_fd(fd, files.hash_buffer(), self._block)
        finally:
            os.close(fd)
        if count != size:
            raise ItemError(
                f"the file had {size} bytes when it was opened and {count} when it was read",
                where=os.fsdecode(path),
                hint="Upload the folder again, renaming it only when the copy is complete",
            )
        return digest

    def _block(self, size: int) -> None:
        self._stop.check()
        self._progress(size)

    def drain(self, keep: int) -> None:
        """Write entries from the front until at most `keep` wait."""
        while len(self._queue) > keep:
            fields, digest = self._queue.popleft()
            if digest is not None:
                fields["sha256"] = digest if isinstance(digest, str) else digest.result()
            self._out.write(_line(fields))


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _open(found: files.FoundName) -> tuple[int, os.stat_result]:
    try:
        return files.open_regular(found.name, found.dir_fd)
    except ItemError as error:
        raise ItemError(error.what, where=os.fsdecode(found.path), hint=error.hint) from error
    except FileNotFoundError as error:
        raise changed(found.path, "vanished") from error


def read(path: Path, *, ignored: bool = False) -> Iterator[Entry]:
    """Read a manifest's entries in order; those that are ignored only when asked for.

    Links and special files that were left out are not entries.
    Raises: Unreadable: it is damaged; FileNotFoundError, OSError.
    """
    for entry, special in _read(path, ignored=ignored):
        if not special:
            yield entry


def _read(path: Path, *, ignored: bool) -> Iterator[tuple[Entry, str]]:
    """Yield (entry, what it is if it is not a file or directory), in order."""
    for entry, special, is_ignored in own_files.records(path, _listed):
        if ignored or not is_ignored:
            yield entry, special


def _listed(fields: dict[str, Any]) -> tuple[Entry, str, bool]:
    entry = Entry(
        path=path_bytes(fields),
        size=own_files.size(fields.get("size", 0)),
        sha256=own_files.text(fields.get("sha256", "")),
        mtime_ns=fields.get("mtime_ns", 0),
        ctime_ns=fields.get("ctime_ns", 0),
        ino=fields.get("ino", 0),
        is_dir=fields.get("dir", False),
        is_ignored=fields.get("ignored", False),
    )
    return entry, own_files.text(fields.get("special", "")), bool(fields.get("ignored"))


@dataclass(frozen=True, kw_only=True)
class ManifestCheck:
    """What a comparison with a manifest saw."""

    files: int
    newest_ns: int  #: the newest ctime of a file


def recheck(
    root: Path,
    manifest: Path,
    *,
    stop: Stop,
    digests: bool = False,
    quick: bool = False,
    writers: bool = False,
) -> ManifestCheck:
    """Compare the folder with its manifest, entry by entry.

    A file whose size, mtime and ctime are unchanged is taken as unchanged, unless `digests`; any
    other is hashed again, so that a mere `chmod` or `touch` is not a change; with `quick` none is, and
    what has its size and its mtime counts as unchanged.

    Args:
        writers: refuse also what a program on this machine has open for writing, where that can be known,
            of what was new when the manifest was taken.

    Raises: ItemError: a file was changed, added or removed since the claim; Unreadable: the manifest
        is damaged; Stopped.
    """
    count = newest_ns = 0
    since_ns = os.stat(manifest).st_mtime_ns - int(WRITERS_S * 1e9) if writers else None
    buffer = files.hash_buffer()
    expected = _read(manifest, ignored=True)
    for found in files.walk(root):
        stop.check()
        entry, special = next(expected, (None, ""))
        if entry is None or entry.path != found.path:
            raise _difference(entry, found.path)
        kind = special or ("directory" if entry.is_dir else "file")
        if found.kind != kind:
            raise changed(found.path, f"replaced by a {found.kind}")
        if kind == "file":
            count += 1
            newest_ns = max(newest_ns, found.status.st_ctime_ns)
            if since_ns is not None and found.status.st_ctime_ns >= since_ns and leases.written(found):
                raise changed(found.path, "still open for writing by a program on this machine")
            if quick:
                _glance(found, entry)
            else:
                _compare(found, entry, buffer, stop, digests=digests)
    missing, _ = next(expected, (None, ""))
    if missing is not None:
        raise changed(missing.path, "removed")
    return ManifestCheck(files=count, newest_ns=newest_ns)


def changes(root: Path, manifest: Path, *, stop: Stop) -> Iterator[tuple[bytes, str]]:
    """Yield (path, how) of what was added or changed since the manifest was taken; not what is gone.

    Args:
        root: the folder.
        manifest: the manifest's file. Sizes and times are compared, no digests.
        stop: checked before each file.

    Raises: ItemError: it cannot be read to the end; FileNotFoundError: it is not there; Stopped.
    """
    buffer = files.hash_buffer()
    expected = _read(manifest, ignored=True)
    entry, special = next(expected, (None, ""))
    for found in files.walk(root):
        stop.check()
        while entry is not None and entry.path.split(b"/") < found.path.split(b"/"):
            entry, special = next(expected, (None, ""))
        if entry is None or entry.path != found.path:
            yield found.path, "added"
        elif found.kind != (special or ("directory" if entry.is_dir else "file")):
            yield found.path, f"replaced by a {found.kind}"
        elif found.kind == "file":
            try:
                _compare(found, entry, buffer, stop, digests=False)
            except ItemError:
                yield found.path, "changed"


def _difference(entry: Entry | None, path: bytes) -> ItemError:
    if entry is None or entry.path.split(b"/") > path.split(b"/"):
        return changed(path, "added")
    return changed(entry.path, "removed")


def _glance(found: files.FoundName, entry: Entry) -> None:
    if (found.status.st_size, found.status.st_mtime_ns) != (entry.size, entry.mtime_ns):
        raise changed(entry.path, "changed")


def _compare(found: files.FoundName, entry: Entry, buffer: memoryview, stop: Stop, *, digests: bool) -> None:
    status = found.status
    same = (status.st_size, status.st_mtime_ns, status.st_ctime_ns) == (
        entry.size,
        entry.mtime_ns,
        entry.ctime_ns,
    )
    if same and not digests:
        return
    if status.st_size != entry.size:
        raise changed(entry.path, "changed")
    fd, _ = _open(found)
    try:
        digest, _ = files.sha256_fd(fd, buffer, lambda size: stop.check())
    finally:
        os.close(fd)
    if digest != entry.sha256:
        raise changed(entry.path, "changed")


def changed(path: bytes, how: str) -> ChangedError:
    """Return the error of a file that is not what it was at the claim."""
    return ChangedError(
        f"this was {how} after the folder was handed over",
        where=os.fsdecode(path),
        hint="Make sure that no program still writes to it, then move the folder to the inbox again",
    )
