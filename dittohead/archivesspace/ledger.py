"""What a step is about to create or change in ArchivesSpace: JSON lines, durable before it is sent.

A line says what was meant, not that it was done. Whether it was is seen in ArchivesSpace itself, when
the step goes on after a crash and when it is undone: what is there is ours if it is what we meant.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dittohead.files import fsync_dir

#: A first line is not longer; of other jobs' ledgers only that much is read to see whose they are.
_HEAD_MOST = 1 << 22


class Ledger:
    """The notes of one step of one job. Blocking."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._path, self._head = path, head
        self._file: IO[bytes] | None = None

    def note(self, **fields: Any) -> None:
        """Keep a line durably."""
        text = json.dumps(fields, sort_keys=True)
        fresh = self._file is None and self._opened()
        assert self._file is not None  # noqa: S101
        self._file.write(text.encode() + b"\n")
        os.fsync(self._file.fileno())
        if fresh:
            fsync_dir(self._path.parent)

    def _opened(self) -> bool:
        fresh = not self._path.exists()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115  # closed by `close`
        # A line break first: the last line may be a crash's half.
        self._file.write((b"" if fresh else b"\n") + json.dumps(self._head, sort_keys=True).encode() + b"\n")
        return fresh

    def close(self) -> None:
        """Finish."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read(path: Path) -> list[dict[str, Any]]:
    """Return the lines about what was meant, in their order; [] when there is no ledger. Blocking.

    What the server has refused for certain is left out.
    """
    found: list[dict[str, Any]] = []
    for line in _lines(path):
        if line.get("do") == "void":
            names = ("archival_object", "uri", "of")
            at = [i for i, one in enumerate(found) if line["uri"] in map(one.get, names)]
            if at:
                del found[at[-1]]
        elif "worker" not in line:
            found.append(line)
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for line in data.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:  # a crash's half line
            continue
        yield fields


def of_other_jobs(path: Path, head: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what all jobs have noted that recorded some of the same objects. Blocking.

    Args:
        path: this step's ledger; the others lie beside it.
        head: this step's first line; another's has the same site and some of the objects.
    """
    if not path.parent.is_dir():
        return
    objects = set(head["objects"])
    for other in sorted(path.parent.glob("*.jsonl")):
        with open(other, "rb") as file:
            first = file.readline(_HEAD_MOST)
        try:
            fields = json.loads(first)
        except ValueError:
            continue
        same = all(fields.get(key) == head[key] for key in ("worker", "url", "repository"))
        if same and not objects.isdisjoint(fields.get("objects", ())):
            yield from read(other)
