"""dittohead replace: through the daemon, and without one; the same folder is then done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Site, site

pytestmark = pytest.mark.service

CONFIG = """
root: .
space: {floor: 0}
pipelines:
  all:
    match: ".*"
    steps:
      - command: {name: look, argv: [sh, -c, "! grep -rl half $0", "{payload}"]}
      - checksum: {}
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path / "root", CONFIG) as made:
        made.start()
        yield made


def states(here: Site) -> list[str]:
    return [job["state"] for job in here.json("list")]


def test_files_are_replaced_with_and_without_a_daemon(here: Site, tmp_path: Path) -> None:
    """Sizes and digests are said; what cannot be is refused with an exit status and words."""
    new, empty = tmp_path / "new.txt", tmp_path / "empty.txt"
    new.write_text("whole")
    empty.touch()
    here.drop("n", {"a.txt": "half", b"b\xff.txt": "half", "c.txt": "good"})
    here.until(lambda: states(here) == ["failed"])
    for file, given, why in (
        ("A.txt", new, "There is a.txt"),
        ("../n/a.txt", new, "of dots alone"),
        ("a.txt", empty, "the new file is empty"),
    ):
        said = here.run("replace", "n", file, "--with", str(given), check=False)
        assert said.returncode == os.EX_UNAVAILABLE, said.stderr
        assert why in said.stderr
    said = here.run("replace", "n", "a.txt", "--with", str(new), "--no-run", "--reason", "copied again")
    assert "new.txt: 5 bytes, SHA-256 " in said.stdout
    assert "a.txt replaced; when all are: dittohead rerun" in said.stdout
    here.stop()
    said = here.run("replace", "n", os.fsdecode(b"b\xff.txt"), "--with", str(new))
    assert "moved back to the inbox" in said.stdout
    here.start()
    here.until(lambda: states(here) == ["done", "failed"])
    for job in here.json("list"):
        events = here.json("show", job["id"])["events"]
        assert len([event for event in events if event["type"] == "modification"]) == 2
    kept = [path.read_text() for path in (here.root / "state/replaced").glob("*/*/earlier/*")]
    assert kept == ["half", "half"]
