"""A store that is damaged or gone: refused in words, and made again from what lies on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Site, site
from tests.support.trees import read_tree

pytestmark = pytest.mark.service

CONFIG = """
root: .
space: {{floor: 0}}
pipelines:
  bad:
    match: "bad-.*"
    steps:
      - command: {{name: one, argv: [sh, -c, 'echo one >> "$0"', "{tmp}/ran"]}}
      - command: {{name: two, argv: [test, -e, "{tmp}/go"]}}
  all:
    match: ".*"
    steps:
      - command: {{name: make, argv: [sh, -c, 'echo made > x']}}
      - rsync: {{to: "{tmp}/target/{{name}}", mkpath: true}}
      - command: {{name: hold, poll: 10ms, argv: [sh, -c, 'test "$DITTOHEAD_NAME" != slow -o -e "$0/go" || exit 75', "{tmp}"]}}
"""


@pytest.fixture
def worn(tmp_path: Path) -> Iterator[Site]:
    """A root after some work: two done (one of them twice), one failed, one under way; then killed."""
    with site(tmp_path / "root", CONFIG.format(tmp=tmp_path)) as here:
        here.start()
        for name in ("plain", "tréma", "bad-one", "slow"):
            here.drop(name, {"a.txt": name, "sub": {"b.bin": b"\0" * 3000}})
        here.until(lambda: len(here.receipts()) == 3 and "hold" in here.log.read_text())
        here.until(lambda: (here.root / "done/plain").exists())
        (here.root / "done/plain").rename(here.root / "inbox/plain")
        here.until(lambda: len(here.receipts("plain")) == 2 and (here.root / "done/plain").exists())
        here.until(lambda: any(job["state"] == "waiting" for job in here.json("list")))
        here.kill()
        yield here


def shown(here: Site) -> dict[str, tuple[Any, ...]]:
    """What people know of each job."""
    keys = ("name", "state", "pipeline", "files", "bytes", "claimed_at", "finished_at")
    return {job["id"]: tuple(job[key] for key in keys) for job in here.json("list")}


def damage(here: Site) -> None:
    """Write over the middle of the database, and lose its log."""
    path = here.root / "state/dittohead.sqlite3"
    (here.root / "state/dittohead.sqlite3-wal").unlink(missing_ok=True)
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(size // 3)
        file.write(os.urandom(size // 3))


def finish(here: Site, before: dict[str, tuple[Any, ...]], tmp_path: Path) -> None:
    """Start, let everything end, and compare with what was known before the loss."""
    here.start()
    (tmp_path / "go").touch()
    here.until(lambda: (here.root / "done/slow").exists())
    after = shown(here)
    assert set(after) == set(before)
    over = {job: fields for job, fields in before.items() if fields[1] in ("done", "failed")}
    assert len(over) == 4
    assert {job: after[job] for job in over} == over
    assert "tried again from step two" in here.run("retry", "bad-one").stdout
    here.until(lambda: (here.root / "done/bad-one").exists())
    assert (tmp_path / "ran").read_text() == "one\n"  # the finished step was not run again
    here.until(lambda: len(here.receipts()) == 5)
    for job in before:
        assert here.run("verify", job).returncode == 0
    assert {name: (tmp_path / "target" / name / "a.txt").read_text() for name in ("plain", "tréma", "slow")}
    assert read_tree(here.root / "done/slow") == {b"a.txt": b"slow", b"sub/b.bin": b"\0" * 3000}
    shows = here.json("show", "tréma")
    assert [event["type"] for event in shows["events"]].count("ingestion end") == 1


def test_a_damaged_store_is_refused_and_rebuilt(worn: Site, tmp_path: Path) -> None:
    """The refusal says what to do; the history comes back under its ids, the damaged file is kept."""
    before = shown(worn)
    damage(worn)
    said = worn.run("run", check=False)
    assert said.returncode == os.EX_UNAVAILABLE
    assert "dittohead rebuild" in said.stderr
    said = worn.run("rebuild")
    assert "4 finished jobs from their receipts, 1 jobs under way" in said.stdout
    assert list((worn.root / "state").glob("damaged-*.sqlite3"))
    finish(worn, before, tmp_path)


def test_a_store_that_is_gone_is_made_anew_at_the_start(worn: Site, tmp_path: Path) -> None:
    """Without being asked: nobody has to know that state/ was not in the backup."""
    before = shown(worn)
    for path in (worn.root / "state").glob("dittohead.sqlite3*"):
        path.unlink()
    finish(worn, before, tmp_path)
    (line,) = worn.events("store.rebuilt")
    assert (line["finished"], line["resumed"], line["unreadable"]) == (4, 1, 0)


def test_a_sound_store_is_not_touched(worn: Site) -> None:
    """Anyone who is only curious changes nothing; a daemon that runs keeps it out."""
    before = shown(worn)
    said = worn.run("rebuild", check=False)
    assert said.returncode == os.EX_DATAERR
    assert "was not touched" in said.stderr
    assert shown(worn) == before
    worn.start()
    assert worn.run("rebuild", check=False).returncode == os.EX_TEMPFAIL


def test_a_receipt_that_is_none_is_named_and_the_others_come_back(worn: Site) -> None:
    """One bad file does not keep the rest from being known."""
    (worn.root / "receipts" / "torn.json").write_text('{"schema": ')
    for path in (worn.root / "state").glob("dittohead.sqlite3*"):
        path.unlink()
    said = worn.run("rebuild", check=False)
    assert said.returncode == os.EX_DATAERR
    assert "torn.json" in said.stdout
    assert len(shown(worn)) == 5
