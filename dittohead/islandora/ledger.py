"""What a step creates at a site, noted durably before it is asked for: for a later try, and for undo."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from dittohead.files import fsync_dir
from dittohead.threads import in_thread


class Ledger:
    """A file of JSON lines, whose first says whose it is.

    Each other line is one of

    - `{"node": KEY, "uuid": U, "at": T}`: a node is about to be created so, at the site's time T;
    - `{"node": KEY, "uuid": U, "nid": N, "vid": V, "ours": B, ...}`: it is there, in this revision;
    - `{"media": [N, USE], "was": MID or null, "sha256": S}`: a file is about to be put there;
    - `{"media": [N, USE], "mid": M, "fid": F, "uid": U, "vid": V, ...}`: it is there, in this revision;
    - `{"patch": N, "was": {...}, "is": {...}}`: fields of a node of others are about to be changed.

    A line that is about to happen is on disk before its method returns; the others may be lost with the
    power, and are found again by what was intended.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._path, self._head = path, head
        self._file: IO[bytes] | None = None
        self._turn = asyncio.Lock()
        self._lines: list[tuple[bytes, bool]] = []  #: noted and not written: (line, whether durably)
        self._noted = self._written = 0  #: lines
        self.nodes: dict[str, dict[str, Any]] = {}
        self.media: dict[tuple[int, str], dict[str, Any]] = {}
        self.patches: dict[int, list[dict[str, Any]]] = {}

    @classmethod
    async def opened(cls, path: Path, head: dict[str, Any]) -> Ledger:
        """Read what earlier tries noted."""
        ledger = cls(path, head)
        await asyncio.to_thread(ledger._read)
        return ledger

    def _read(self) -> None:
        for fields in lines(self._path):
            self._take(fields)

    def _take(self, fields: dict[str, Any]) -> None:
        if "node" in fields:
            self.nodes[fields["node"]] = fields
        elif "media" in fields:
            key = (fields["media"][0], fields["media"][1])
            before = self.media.get(key)
            # What was there before the first try is what later tries and undo must know.
            self.media[key] = fields if before is None else {**before, **fields, "was": before.get("was")}
        elif "patch" in fields:
            self.patches.setdefault(fields["patch"], []).append(fields)

    async def intend(self, **fields: Any) -> None:
        """Note, durably, what is about to be asked for."""
        await self._note(fields, durable=True)

    async def done(self, **fields: Any) -> None:
        """Note what came of it."""
        await self._note(fields, durable=False)

    async def _note(self, fields: dict[str, Any], *, durable: bool) -> None:
        self._take(fields)
        self._lines.append((json.dumps(fields).encode() + b"\n", durable))
        self._noted += 1
        number = self._noted
        async with self._turn:
            if self._written >= number:  # it went with another's: pages under way at once share a flush
                return
            some, self._lines = self._lines, []
            try:
                await in_thread(lambda stop: self._write(some))
            except BaseException:
                # Again with the next: a line twice is no harm, and a half one before a break is skipped.
                self._lines = [(b"\n" + some[0][0], some[0][1]), *some[1:], *self._lines]
                raise
            self._written += len(some)

    def _write(self, some: Sequence[tuple[bytes, bool]]) -> None:
        file, fresh = self._opened()
        rest = memoryview(b"".join(line for line, _ in some))
        while rest:  # a disk that fills up takes a part first
            rest = rest[file.write(rest) :]
        if any(durable for _, durable in some):
            os.fsync(file.fileno())
        if fresh:
            fsync_dir(self._path.parent)

    def _opened(self) -> tuple[IO[bytes], bool]:
        if self._file is not None:
            return self._file, False
        fresh = not self._path.exists()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(self._path, "ab", buffering=0)  # noqa: SIM115  # closed by `close`
        # A line break first: the last line may be a crash's half.
        file.write((b"" if fresh else b"\n") + json.dumps(self._head).encode() + b"\n")
        self._file = file
        return file, fresh

    async def close(self) -> None:
        """Finish."""
        async with self._turn:
            if self._file is not None:
                await asyncio.to_thread(self._file.close)
                self._file = None


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the notes of a file, but no half line of a crash; none when there is no file. Blocking."""
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed below
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                continue
