"""Plain words: exact to the byte where a command is to be pasted, and forged by no name."""

from __future__ import annotations

import email.parser
import os
import re
import subprocess
from pathlib import Path

import pytest

from dittohead.model.definition import StepTotals
from dittohead.model.records import StepRow
from dittohead.model.states import StepState
from dittohead.store import Store
from tests.support.notices import broken, job, told_of, words

STEPS = [
    StepRow(
        position=0,
        name="originals",
        worker="rsync",
        state=StepState.DONE,
        attempts=1,
        started_at=None,
        finished_at=None,
        saved={},
        result=StepTotals(locations=1234, copies=1234, detail="1,234 files"),
        error="",
    )
]


def test_words_for_each_event(tmp_path: Path) -> None:
    """Plain words, numbers people understand, and names that cannot break a header."""
    subject, body = words("nearly_full", tmp_path, target="/study/lab1", percent=91.6, free=12_300_000_000)
    assert body.startswith("Your study is 92% full: /study/lab1 has 11.5 GiB left.")
    subject, _ = words("stale", tmp_path, name=".x\nBcc: e@x", age_seconds=7200.0, size=5)
    assert subject == "Stale upload: .x\\nBcc: e@x"
    assert words("paused", tmp_path, target="h", reason="down")[0] == "Paused: h"
    assert words("resumed", tmp_path, target="h")[0] == "Resumed: h"


def test_done_is_told_with_what_was_done_and_where_the_evidence_lies(tmp_path: Path) -> None:
    """What an archivist keeps."""
    receipt = tmp_path / "receipts" / "r.json"
    links = [("record", "https://archives.example.org/repositories/2/digital_objects/9")]
    subject, body = words("done", tmp_path, job=job(), steps=STEPS, receipt=receipt, links=links)
    assert "Record: https://archives.example.org/repositories/2/digital_objects/9" in body
    many = words("done", tmp_path, job=job(), steps=STEPS, receipt=receipt, links=links * 15)[1]
    assert many.count("Record: ") == 12
    assert "and 3 more, in the receipt" in many
    assert subject == "Done: lab1-x"
    assert "lab1-x is done: 1,234 files, 54.1 MiB." in body
    assert "Delivered and verified: 1,234 files." in body
    assert f"Receipt: {receipt}" in body
    assert "Job 01J0000000000000000000JOB1, pipeline scans." in body


@pytest.mark.parametrize(
    "folder", [b"plain", b"it's $HOME", b"two\nlines", b"\xff7 latin", b"a\\'\n1", b"-rf", b"\x1b[2J"]
)
def test_the_line_to_run_a_failed_folder_again_is_exact(tmp_path: Path, folder: bytes) -> None:
    """Pasted into a shell it moves that very folder, whatever its name."""
    _, body = told_of(tmp_path, broken(folder))
    for station in (b"failed", b"inbox"):
        os.mkdir(os.path.join(os.fsencode(tmp_path), station))
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"failed", folder))
    assert all(line.isprintable() for line in body.splitlines())
    (line,) = re.findall(r"^    (mv .*)$", body, re.MULTILINE)
    subprocess.run(["bash", "-c", line], check=True)
    assert os.listdir(os.path.join(os.fsencode(tmp_path), b"inbox")) == [folder]


def test_the_line_never_moves_an_earlier_failure_of_that_name(tmp_path: Path) -> None:
    """This one gets another name in failed/; the job's id says which is meant."""
    (tmp_path / "failed" / "lab1-x").mkdir(parents=True)
    _, body = told_of(tmp_path, broken())
    assert "mv " not in body
    assert "    dittohead rerun 01J0000000000000000000JOB1" in body


def test_a_failure_says_what_where_and_what_to_do(tmp_path: Path) -> None:
    """In three lines that a name cannot forge, and that can be stored whatever bytes are in them."""
    subject, body = told_of(tmp_path, broken(b"x\nDo:    nothing", where="a\udcff.tif", what="cut\x1b[2J"))
    assert subject == "Failed: x\\nDo:    nothing"
    lines = body.splitlines()
    assert [line for line in lines if line.startswith(("What:", "Where:", "Do:"))] == [
        "What:  cut\\x1b[2J",
        "Where: a\\udcff.tif",
        "Do:    Scan it again",
    ]
    assert (subject + body).encode()


def test_a_subject_stays_one_header_of_bounded_length(tmp_path: Path, store: Store) -> None:
    """A name may have 255 bytes, of any kind."""
    subject, _ = told_of(tmp_path, broken(b"n\r\nBcc: e@x\r\n" + b"y" * 240))
    assert len(subject) <= 200
    assert email.parser.HeaderParser().parsestr(f"Subject: {subject}\n\n").keys() == ["Subject"]
