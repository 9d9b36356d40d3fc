"""A collection through the real daemon: seen, told and tried again as one; killed at any moment, nothing is lost."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Site, site
from tests.support.length import budget
from tests.support.trees import read_tree, tree

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

CONFIG = """
root: .
space: {{floor: 0}}
pipelines:
  collections:
    match: "coll-.*"
    each: folder
    steps:
      - command: {{name: look, argv: [sh, -c, '! grep -rq half "$0"', "{{payload}}"]}}
      - rsync: {{to: "{tmp}/target/{{batch}}/{{name}}/", mkpath: true}}
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path / "root", CONFIG.format(tmp=tmp_path)) as made:
        made.start()
        yield made
        assert made.stop() == 0


def objects(count: int) -> dict[str | bytes, Any]:
    return {f"{number:03}": {"a.txt": f"of {number}"} for number in range(count)}


def counts(here: Site) -> tuple[int, int, int]:
    """Return how many jobs of the latest batch there are, are done, have failed."""
    found = here.json("batches")
    return (found[0]["jobs"], found[0]["done"], found[0]["failed"]) if found else (0, 0, 0)


@pytest.mark.rest
def test_a_collection_is_seen_and_tried_again_as_one(here: Site, tmp_path: Path) -> None:
    """By commands alone, as its page says."""
    tree(tmp_path / "coll-a", {**objects(4), "002": {"a.txt": "half"}, "list.csv": "x"})
    planned = here.json("plan", str(tmp_path / "coll-a"))
    assert [folder["name"] for folder in planned["folders"]] == [f"coll-a/00{n}" for n in range(4)]
    dropped = here.run("drop", "--follow", str(tmp_path / "coll-a"), check=False)
    assert dropped.returncode == os.EX_DATAERR, dropped.stderr
    assert "3 of 4 folders done, 1 failed" in dropped.stdout
    assert "coll-a/002" in dropped.stdout
    assert counts(here) == (4, 3, 1)
    assert len(here.json("list", "--batch", "coll-a")) == 4
    said = here.run("show", "coll-a", check=False)
    assert "dittohead list --batch" in said.stderr
    assert "coll-a/002" in here.run("list", "--batch", "coll-a").stdout
    assert here.run("list", "--batch", "nobody", check=False).returncode != 0
    # It fails again, alone.
    said = here.run("retry", "--batch", "coll-a")
    assert "coll-a: 1 folder tried again" in said.stdout
    here.until(lambda: len(here.events("collection.ended")) == 2)
    # Mended in its place, it is another folder: the whole of what failed is moved back.
    failed = here.root / "failed" / "coll-a"
    here.until(lambda: (failed / "002.reason.txt").exists())
    (failed / "002" / "a.txt").write_text("whole")
    assert "is not what it was at the claim" in here.run("retry", "--batch", "coll-a", check=False).stderr
    failed.rename(here.root / "inbox" / "coll-a")
    here.until(lambda: counts(here) == (1, 1, 0))
    here.until(lambda: not (here.root / "processing" / "coll-a").exists())
    assert not failed.exists()
    whole = {f"00{n}/a.txt".encode(): f"of {n}".encode() for n in (0, 1, 3)} | {b"002/a.txt": b"whole"}
    assert read_tree(tmp_path / "target" / "coll-a") == whole
    assert read_tree(here.root / "done" / "coll-a") == whole | {b"list.csv": b"x"}
    # And all of it once more.
    (here.root / "done" / "coll-a").rename(here.root / "inbox" / "coll-a")
    here.until(lambda: counts(here) == (4, 4, 0))
    here.until(lambda: not (here.root / "processing" / "coll-a").exists())
    assert read_tree(here.root / "done" / "coll-a") == whole | {b"list.csv": b"x"}
    for number in range(4):
        assert here.json("verify", f"coll-a/00{number}")["good"]


@pytest.mark.parametrize(
    "moment",
    budget(
        [
            "claim.decided:1",
            "move.renamed:1",
            "move.durable:1",
            "store.written:1",
            "store.committed:1",
            "store.committed:2",
            "claim.split:1",
            "finish.committed:2",
            "move.renamed:3",
            "finish.moved:4",
            "store.committed:23",
        ],
        "claim.decided:1",
        "store.committed:2",
        "claim.split:1",
        "finish.moved:4",
    ),
)
def test_a_daemon_killed_at_any_moment_loses_nothing_of_a_collection(tmp_path: Path, moment: str) -> None:
    """Each folder has one job, and comes to done/ and to its target once."""
    with site(tmp_path / "root", CONFIG.format(tmp=tmp_path)) as here:
        here.arm(f"{moment}:kill")
        (here.root / "inbox").mkdir()
        here.drop("coll-a", {**objects(5), "README": "x"})
        here.start(wait=False)
        assert here.process is not None
        here.process.wait(60)
        del here.env["MORTAL_DIES"]
        here.start()
        here.until(lambda: counts(here) == (5, 5, 0))
        here.until(lambda: not (here.root / "processing" / "coll-a").exists())
        expected = {f"00{n}/a.txt".encode(): f"of {n}".encode() for n in range(5)}
        assert read_tree(here.root / "done" / "coll-a") == expected | {b"README": b"x"}
        assert read_tree(tmp_path / "target" / "coll-a") == expected
        jobs = here.json("list")
        assert Counter(job["name"] for job in jobs) == Counter({f"coll-a/00{n}": 1 for n in range(5)})
        assert len({job["batch"] for job in jobs}) == 1
        assert here.stop() == 0


@pytest.mark.rest
def test_a_kill_between_two_pieces_of_the_splitting(tmp_path: Path) -> None:
    """More folders than one transaction makes jobs of."""
    config = CONFIG.format(tmp=tmp_path).replace("rsync: {to", "checksum: {} #")
    with site(tmp_path / "root", config) as here:
        here.arm("claim.split:1:kill")
        (here.root / "inbox").mkdir()
        here.drop("coll-a", objects(130))
        here.start(wait=False)
        assert here.process is not None
        here.process.wait(60)
        with contextlib.closing(sqlite3.connect(here.root / "state" / "dittohead.sqlite3")) as store:
            assert store.execute("SELECT count(*) FROM jobs").fetchone() == (100,)
        del here.env["MORTAL_DIES"]
        here.start()
        here.until(lambda: counts(here) == (130, 130, 0), timeout_s=120)
        assert here.stop() == 0


def test_a_lost_store_is_made_anew_with_its_batches(here: Site, tmp_path: Path) -> None:
    here.drop("coll-a", {**objects(3), "002": {"a.txt": "half"}})
    here.until(lambda: counts(here) == (3, 2, 1))
    here.until(lambda: not (here.root / "processing" / "coll-a").exists())
    batch = here.json("batches")[0]
    here.stop()
    for path in (here.root / "state").glob("dittohead.sqlite3*"):
        path.unlink()
    here.start()
    assert here.json("batches")[0] | {"claimed_at": ""} == batch | {"claimed_at": ""}
    assert {job["name"]: job["folder"] for job in here.json("list")} == {
        f"coll-a/00{n}": f"coll-a/00{n}" for n in range(3)
    }
    assert "1 folder tried again" in here.run("retry", "--batch", "coll-a").stdout
    here.until(lambda: counts(here) == (3, 2, 1))


@pytest.mark.rest
def test_a_scheduled_run_ends_when_the_whole_collection_is_told(tmp_path: Path) -> None:
    """Neither between two pieces of the splitting, nor before its end is noted."""
    config = CONFIG.format(tmp=tmp_path).replace("rsync: {to", "checksum: {} #")
    with site(tmp_path / "root", config) as here:
        (here.root / "inbox").mkdir()
        here.drop("coll-a", {**objects(120), "README": "x"})
        said = here.run("run", "--until-empty")
        assert said.returncode == 0
        assert set(os.listdir(here.root / "done" / "coll-a")) == {"README", *map(str, objects(120))}
        assert os.listdir(here.root / "processing") == []
        with contextlib.closing(sqlite3.connect(here.root / "state" / "dittohead.sqlite3")) as store:
            assert store.execute("SELECT whole, told FROM batches").fetchall() == [(1, "done")]
