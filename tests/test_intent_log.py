"""Notes of what is done outside: whole, or an error; what is torn or garbage hides nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dittohead.model.errors import TargetError
from dittohead.toolkit import intent_log
from dittohead.toolkit.intent_log import IntentLog, read
from dittohead.workers.archivesspace import intent_log as archivesspace

HEAD = {"worker": "w"}


class Filling:
    """A file on a disk that is full after so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self.room = file, room

    def write(self, data: Any) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        taken = min(self.room, len(data))
        self.room -= taken
        return int(self._file.write(data[:taken]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 1, 7, 19, 20, 21])
def test_a_line_is_kept_whole_or_its_writing_fails(tmp_path: Path, room: int) -> None:
    """write(2) takes what there is room for and says nothing: half a note was taken for one."""
    path = tmp_path / "ledger" / "1.jsonl"
    notes = IntentLog(path, HEAD)
    notes.write([{"n": 0}], durable=True)
    disk = Filling(notes._file, room)
    notes._file = disk  # type: ignore[assignment]
    try:
        notes.write([{"n": 1}, {"n": 2}], durable=True)
        assert room >= len(b'{"n": 1}\n{"n": 2}\n')
    except OSError:
        assert [line["n"] for line in read(path) if "n" in line] == [0, 1][: 1 + (room >= 8)]
        disk.room = 1 << 20
        notes.write([{"n": 1}, {"n": 2}], durable=True)
    notes.close()
    assert [line["n"] for line in read(path) if "n" in line][-2:] == [1, 2]


def test_a_real_full_file_system_is_told(tmp_path: Path) -> None:
    """As the kernel does it: a part is written, then the bound is met."""
    script = f"""
import resource, signal, sys
from pathlib import Path
from dittohead.workers.archivesspace.intent_log import RecordIntentLog
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
notes = RecordIntentLog(Path({str(tmp_path)!r}) / "l" / "1.jsonl", {{"worker": "w"}})
try:
    notes.note(do="create", what="digital object", of="HBF_001_02", content="0" * 64)
except OSError:
    print("told")
notes.close()
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "told\n"
    assert (tmp_path / "l" / "1.jsonl").stat().st_size == 60
    assert archivesspace.read(tmp_path / "l" / "1.jsonl") == []


def test_garbage_hides_no_other_line(tmp_path: Path) -> None:
    """Of a disk's fault, of an editor: what is not a note is passed over."""
    path = tmp_path / "1.jsonl"
    garbage = [b'{"worker": "hal', b"null", b"7", b'"x"', b"[1]", b"\0" * 9, b"\xff\xfe", b"[" * 100_000, b""]
    path.write_bytes(
        b"\n".join([*garbage, b'{"worker": "w", "url": "u", "repository": 2, "objects": ["A"]}'])
    )
    notes = IntentLog(path, HEAD)
    notes.write([{"n": 1}], durable=False)
    notes.close()
    assert [line["n"] for line in archivesspace.read(path)] == [1]
    head = {"worker": "w", "url": "u", "repository": 2, "objects": ["A", "B"]}
    assert [line["n"] for line in archivesspace.of_other_jobs(path, head)] == [1]


def test_the_names_are_durable_before_the_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a directory just made, and when an earlier opening failed after it."""
    synced: list[Path] = []
    monkeypatch.setattr(intent_log, "fsync_dir", synced.append)
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "1.jsonl").touch()
    notes = IntentLog(tmp_path / "ledger" / "1.jsonl", HEAD)
    notes.write([{"n": 1}], durable=True)
    notes.close()
    assert synced == [tmp_path, tmp_path / "ledger"]


def test_what_may_not_be_noted_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a run as root, say: it is told whose directory it must be, and is not a defect."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(TargetError, match=r"1\.jsonl"):
        IntentLog(tmp_path / "ledger" / "1.jsonl", HEAD).write([{"n": 1}], durable=True)
