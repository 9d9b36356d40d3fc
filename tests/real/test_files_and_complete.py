"""Files that become folders, and folders that are not complete, through the real daemon; killed at any moment."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.folders.sent_manifest import NAME
from dittohead.system.fail_points import WRAP_POINTS
from tests.support.daemon import Site, site
from tests.support.trees import read_tree, tree

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

CONFIG = """
root: .
space: {{floor: 0}}
watch: {{settle: 20ms, settle_in_place: 100ms}}
pipelines:
  archives:
    match: "lab.*"
    files: folder
    steps:
      - unpack: {{}}
      - rsync: {{from: unpack, to: "{tmp}/target/{{name}}/", mkpath: true}}
  folders:
    match: ".*"
    steps:
      - rsync: {{to: "{tmp}/target/{{name}}/", mkpath: true}}
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path / "root", CONFIG.format(tmp=tmp_path)) as made:
        yield made


def put(here: Site, name: str) -> None:
    """Put an archive into the inbox by the uploader's protocol."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        made.writestr("scan.tif", b"pixels")
    inbox = here.root / "inbox"
    inbox.mkdir(exist_ok=True)
    (inbox / f".{name}").write_bytes(data.getvalue())
    (inbox / f".{name}").rename(inbox / name)


def done(here: Site, name: str) -> bool:
    return any(job["name"] == name and job["state"] == "done" for job in here.json("list"))


def test_an_archive_is_unpacked_and_delivered(here: Site, tmp_path: Path) -> None:
    here.start()
    put(here, "lab1.zip")
    here.until(lambda: done(here, "lab1.zip"))
    assert read_tree(tmp_path / "target") == {b"lab1.zip/scan.tif": b"pixels"}
    assert os.listdir(here.root / "inbox") == []
    assert here.events("file.wrapped")[0]["name"] == "lab1.zip"
    assert here.stop() == 0


def test_killed_at_every_moment_it_is_taken_by_the_next(here: Site, tmp_path: Path) -> None:
    for number, point in enumerate(WRAP_POINTS):
        put(here, f"lab{number}.zip")
        here.arm(f"{point}:1:kill")
        here.start(wait=False)
        assert here.process is not None
        here.until(lambda: here.process.poll() is not None)
        contents = [data[:2] for data in read_tree(here.root / "inbox").values()]
        assert contents == [b"PK"]
        here.arm("")
        here.start()
        here.until(lambda name=f"lab{number}.zip": done(here, name))
        assert here.stop() == 0
    assert len(read_tree(tmp_path / "target")) == len(WRAP_POINTS)


def test_what_is_not_complete_is_told_and_taken_when_it_is(here: Site, tmp_path: Path) -> None:
    here.start()
    sent = "".join(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in ("a", "b"))
    tree(here.root / "inbox/.x", {"a": "a", NAME: "# ann@pc\n" + sent})
    (here.root / "inbox/.x").rename(here.root / "inbox/x")
    here.until(lambda: "not there (b)" in here.held("x"))
    held = here.json("status")["live"]["held_kinds"]
    assert held == {"incomplete": 1}
    (here.root / "inbox/x/b").write_text("b")
    here.until(lambda: done(here, "x"))
    assert read_tree(tmp_path / "target/x") == {b"a": b"a", b"b": b"b"}
    (receipt,) = here.receipts("x")
    assert any("as on the uploader's disk" in event["detail"] for event in receipt["events"])
    assert here.stop() == 0
