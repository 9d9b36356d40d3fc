"""What earlier tries of a step have finished, so that a repeated one need not make it again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from dittohead.model.paths import path_bytes, path_fields
from dittohead.system import files, own_files
from dittohead.system.threads import Stop


class ResultCache:
    """What earlier tries of the step have finished: a JSON line for each image.

    It need not be durable: a line counts only if the file it names has the digest it gives.
    """

    def __init__(self, path: Path, recipe: dict[str, Any]) -> None:
        self._path = path
        self._recipe = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        self._file: IO[bytes] | None = None
        self._lines: dict[int, int] = {}  #: where the last line about a result stands

    def load(self) -> None:
        """Read it, to be gone on with."""
        self._file = own_files.extended(self._path)
        if not self.read():
            self._file.write(b"\n")

    def read(self) -> bool:
        """Read it; lines of another recipe and a half last line do not count, nor does a missing file.

        Returns: whether the last line is whole.
        """
        at, line = 0, b"\n"
        with contextlib.suppress(FileNotFoundError):
            for line in own_files.lines(self._path):
                fields = self._fields(line)
                if fields is not None:
                    self._lines[name_digest(path_bytes(fields))] = at
                at += len(line)
        return line.endswith(b"\n")

    def _fields(self, line: bytes) -> dict[str, Any] | None:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            fields: dict[str, Any] = json.loads(line)
            if fields["recipe"] == self._recipe and path_bytes(fields) and {"source", "files"} <= set(fields):
                return fields
        return None

    def find(self, path: bytes, source: str) -> dict[str, Any] | None:
        """Return what an earlier try made of exactly this input, of which `source` is a digest."""
        at = self._lines.get(name_digest(path))
        if at is None:
            return None
        with open(self._path, "rb") as file:
            file.seek(at)
            fields = self._fields(file.readline())
        if fields is None or path_bytes(fields) != path:
            return None
        return fields if fields["source"] == source else None

    def add(self, path: bytes, source: str, files: list[dict[str, Any]]) -> None:
        """Note a finished image. Not durable by itself.

        Args:
            path: where its result goes, relative to the work directory.
            source: the SHA-256 of the file it was made from, in hex.
            files: what was made of it, as JSON, at least {"file", "sha256", "size"} each.
        """
        fields = {
            **path_fields(path),
            "recipe": self._recipe,
            "source": source,
            "files": files,
        }
        assert self._file is not None  # noqa: S101
        self._file.write(json.dumps(fields).encode() + b"\n")

    def close(self) -> None:
        """Finish."""
        if self._file is not None:
            self._file.close()
            self._file = None


def name_digest(name: bytes) -> int:
    """Return what stands for a name among very many."""
    # Eight bytes for each name are enough to tell millions apart; a chance likeness only makes a
    # name longer, or is seen when the name itself is compared.
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")


def holds(ordered: array[int], value: int) -> bool:
    """Tell whether a sorted array holds a value."""
    at = bisect_left(ordered, value)
    return at < len(ordered) and ordered[at] == value


def keep_only(work: Path, made: Iterable[int], stop: Stop) -> None:
    """Remove from a step's directory what it has not made this time, and make the rest durable. Blocking.

    Args:
        made: the `name_digest` of each file's path below it.
    """
    wanted = array("Q", sorted(made))
    for found in files.walk(work):
        stop.check()
        if not found.is_empty_dir and not holds(wanted, name_digest(found.path)):
            os.unlink(found.name, dir_fd=found.dir_fd)
    files.sync_filesystem(work)
