"""The notes of what is created outside."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from dittohead.toolkit import intent_log
from dittohead.toolkit.intent_log import IntentLog
from dittohead.toolkit.intent_log import read as lines
from dittohead.workers.islandora.intent_log import EntityIntentLog

HEAD = {"worker": "islandora", "job": "x"}


async def test_what_is_intended_is_flushed_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came of it need not be; several at once share a flush."""
    flushed: list[bytes] = []
    path = tmp_path / "new" / "ledger.jsonl"

    def fsync(fd: int) -> None:
        flushed.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(intent_log, "fsync_dir", lambda directory: None)
    ledger = await EntityIntentLog.opened(path, HEAD)
    await ledger.intend(node="a", uuid="1")
    assert b'"uuid": "1"' in flushed[-1]
    await ledger.done(node="a", uuid="1", nid=5)
    assert len(flushed) == 1
    assert b'"nid": 5' in path.read_bytes()
    await asyncio.gather(*(ledger.intend(node=f"n{number}", uuid=str(number)) for number in range(20)))
    assert all(f'"n{number}"'.encode() in flushed[-1] for number in range(20))
    assert len(flushed) < 20
    await ledger.close()


async def test_a_later_try_knows_what_was_noted_and_skips_a_half_line(tmp_path: Path) -> None:
    """What was there before the first try stays what was there before."""
    path = tmp_path / "ledger.jsonl"
    first = await EntityIntentLog.opened(path, HEAD)
    await first.intend(node="a", uuid="1")
    await first.done(node="a", uuid="1", nid=5)
    await first.intend(media=[5, "use"], was=None, sha256="x")
    await first.done(media=[5, "use"], mid=7, sha256="x")
    await first.intend(patch=9, was={"t": []}, **{"is": {"t": [1]}})
    await first.close()
    with open(path, "ab") as file:
        file.write(b'{"node": "half')
    second = await EntityIntentLog.opened(path, HEAD)
    assert second.nodes["a"]["nid"] == 5
    await second.intend(media=[5, "use"], was=7, sha256="y")
    assert second.media[5, "use"]["was"] is None
    assert second.media[5, "use"]["mid"] == 7
    assert second.patches[9][0]["was"] == {"t": []}
    await second.close()
    assert [note.get("worker") for note in lines(path)].count("islandora") == 2


async def test_a_disk_that_fills_up_loses_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised, and the line goes with the next."""
    path = tmp_path / "ledger.jsonl"
    ledger = await EntityIntentLog.opened(path, HEAD)
    await ledger.done(node="a", uuid="0")
    real, failing = IntentLog.write, [True]

    def write(self: IntentLog, some: Any, *, durable: bool) -> None:
        if failing:
            failing.pop()
            raise OSError(28, "No space left on device")
        real(self, some, durable=durable)

    monkeypatch.setattr(IntentLog, "write", write)
    with pytest.raises(OSError, match="No space"):
        await ledger.intend(node="b", uuid="1")
    await ledger.intend(node="c", uuid="2")
    await ledger.close()
    assert [note["node"] for note in lines(path) if "node" in note] == ["a", "b", "c"]
