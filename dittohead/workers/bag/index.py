"""What lies in a bag and what its manifests list, in an index on disk: a million files need little memory."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

#: Rows written at once.
_BATCH = 2_000

_TABLES = """
    CREATE TABLE file (
        path BLOB PRIMARY KEY, size INTEGER NOT NULL, sha256 BLOB NOT NULL, payload INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE listed (
        path BLOB, manifest INTEGER, digest BLOB NOT NULL, PRIMARY KEY (path, manifest)
    ) WITHOUT ROWID;
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class BagFile:
    """A file of the bag."""

    path: bytes  #: within the bag
    size: int  #: bytes
    sha256: bytes  #: 32 bytes, as the manifest of the claim has it


class Index:
    """Two tables in a file of its own, which is removed at the end; only for one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._remove()
        self._db = sqlite3.connect(path, isolation_level=None)
        # Nothing in it outlives the check: no journal, no fsync.
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_TABLES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def add_files(self, files: Iterable[BagFile]) -> None:
        """Note files of the bag; those below data/ are its payload."""
        rows = ((one.path, one.size, one.sha256, one.path.startswith(b"data/")) for one in files)
        self._many("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?)", rows)

    def _many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        batch: list[tuple[object, ...]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _BATCH:
                self._write(statement, batch)
                batch.clear()
        self._write(statement, batch)

    def _write(self, statement: str, batch: list[tuple[object, ...]]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(statement, batch)
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def listing(self) -> Iterator[None]:
        """Make `list_file` cheap within the block."""
        self._db.execute("BEGIN")
        yield
        self._db.execute("COMMIT")

    def list_file(self, manifest: int, path: bytes, digest: bytes) -> bytes | None:
        """Note what a manifest says of a file; return the digest it has given before, None for none.

        Args:
            manifest: its number.
            path: the file's, within the bag.
            digest: what the manifest says.
        """
        done = self._db.execute("INSERT OR IGNORE INTO listed VALUES (?, ?, ?)", (path, manifest, digest))
        if done.rowcount:
            return None
        found = self._db.execute(
            "SELECT digest FROM listed WHERE path = ? AND manifest = ?", (path, manifest)
        ).fetchone()
        return bytes(found[0])

    def has(self, path: bytes) -> bool:
        """Tell whether the bag has a file."""
        return self._db.execute("SELECT 1 FROM file WHERE path = ?", (path,)).fetchone() is not None

    def lists(self, manifest: int, path: bytes) -> bool:
        """Tell whether a manifest lists a file."""
        found = self._db.execute(
            "SELECT 1 FROM listed WHERE path = ? AND manifest = ?", (path, manifest)
        ).fetchone()
        return found is not None

    def payload(self) -> tuple[int, int]:
        """Return how many payload files there are, and their bytes."""
        count, size = self._db.execute("SELECT count(*), total(size) FROM file WHERE payload").fetchone()
        return int(count), int(size)

    def missing(self) -> Iterator[bytes]:
        """Yield the files that some manifest lists and that are not there."""
        rows = self._db.execute(
            "SELECT DISTINCT path FROM listed WHERE NOT EXISTS"
            " (SELECT 1 FROM file WHERE file.path = listed.path) ORDER BY path"
        )
        return (bytes(path) for (path,) in rows)

    def unlisted(self) -> Iterator[bytes]:
        """Yield the payload files that no manifest lists."""
        rows = self._db.execute(
            "SELECT path FROM file WHERE payload AND NOT EXISTS"
            " (SELECT 1 FROM listed WHERE listed.path = file.path) ORDER BY path"
        )
        return (bytes(path) for (path,) in rows)

    def left_out_by(self, manifest: int) -> Iterator[bytes]:
        """Yield the payload files that a manifest does not list, and another does."""
        rows = self._db.execute(
            "SELECT path FROM file WHERE payload"
            " AND EXISTS (SELECT 1 FROM listed WHERE listed.path = file.path)"
            " AND NOT EXISTS (SELECT 1 FROM listed WHERE listed.path = file.path AND manifest = ?)"
            " ORDER BY path",
            (manifest,),
        )
        return (bytes(path) for (path,) in rows)

    def said_of(self, path: bytes) -> dict[int, bytes]:
        """Return what each manifest says of a file: number -> digest."""
        rows = self._db.execute("SELECT manifest, digest FROM listed WHERE path = ?", (path,))
        return {int(manifest): bytes(digest) for manifest, digest in rows}

    def files(self) -> Iterator[BagFile]:
        """Yield the files of the bag, by path."""
        rows = self._db.execute("SELECT path, size, sha256 FROM file ORDER BY path")
        return (BagFile(path=bytes(path), size=size, sha256=bytes(digest)) for path, size, digest in rows)

    def to_compare(self) -> Iterator[tuple[BagFile, dict[int, bytes]]]:
        """Yield each file that is there and listed, with the digests of its manifests, by path."""
        rows = self._db.execute(
            "SELECT path, size, sha256, manifest, digest FROM file JOIN listed USING (path)"
            " ORDER BY path, manifest"
        )
        held: BagFile | None = None
        digests: dict[int, bytes] = {}
        for path, size, sha256, manifest, digest in rows:
            if held is None or held.path != path:
                if held is not None:
                    yield held, digests
                held, digests = BagFile(path=bytes(path), size=size, sha256=bytes(sha256)), {}
            digests[int(manifest)] = bytes(digest)
        if held is not None:
            yield held, digests
