"""What a step creates at a site, noted durably before it is asked for: for a later try, and for undo."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from dittohead.system.threads import in_thread
from dittohead.toolkit import intent_log
from dittohead.toolkit.intent_log import IntentLog


class EntityIntentLog:
    """A file of JSON lines, whose first says whose it is.

    Each other line is one of

    - `{"node": KEY, "uuid": U, "at": T}`: a node is about to be created so, at the site's time T;
    - `{"node": KEY, "uuid": U, "nid": N, "vid": V, "ours": B, ...}`: it is there, in this revision;
    - `{"media": [N, USE], "was": MID or null, "sha256": S}`: a file is about to be put there;
    - `{"media": [N, USE], "made": M, "path": P, ...}`: the site says that it is there, and has not shown it;
    - `{"media": [N, USE], "mid": M, "fid": F, "uid": U, "vid": V, "ours": B, ...}`: it is there, so;
    - `{"media": [N, USE], "strange": true, ...}`: the file took the place of another's, which was not listed;
    - `{"patch": N, "was": {...}, "is": {...}}`: fields of a node of others are about to be changed.

    Those of earlier versions have no `made` and no `ours` of media, and `was` says only what was listed.

    A line that is about to happen is on disk before its method returns; the others may be lost with the
    power, and are found again by what was intended.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._path, self._notes = path, IntentLog(path, head)
        self._turn = asyncio.Lock()
        self._lines: list[tuple[dict[str, Any], bool]] = []  #: noted and not written: (line, whether durably)
        self._noted = self._written = 0  #: lines
        self.nodes: dict[str, dict[str, Any]] = {}
        self.media: dict[tuple[int, str], dict[str, Any]] = {}
        self.patches: dict[int, list[dict[str, Any]]] = {}

    @classmethod
    async def opened(cls, path: Path, head: dict[str, Any]) -> EntityIntentLog:
        """Read what earlier tries noted."""
        ledger = cls(path, head)
        await asyncio.to_thread(ledger._read)
        return ledger

    def _read(self) -> None:
        for fields in intent_log.read(self._path):
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
        self._lines.append((fields, durable))
        self._noted += 1
        number = self._noted
        async with self._turn:
            if self._written >= number:  # it went with another's: pages under way at once share a flush
                return
            some, self._lines = self._lines, []
            try:
                durable = any(one for _, one in some)
                await in_thread(lambda stop: self._notes.write([line for line, _ in some], durable=durable))
            except BaseException:
                self._lines = [*some, *self._lines]  # again with the next: a line twice does no harm
                raise
            self._written += len(some)

    async def close(self) -> None:
        """Finish."""
        async with self._turn:
            await asyncio.to_thread(self._notes.close)
