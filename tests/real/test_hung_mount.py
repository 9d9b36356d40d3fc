"""A target whose file system hangs, then is gone, then is back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.daemon import site
from tests.support.fuse import hung_mount
from tests.support.trees import read_tree

pytestmark = pytest.mark.service

CONFIG = """
root: .
space: {{floor: 0}}
pipelines:
  study:
    match: "s-.*"
    steps: [{{rsync: {{to: "{tmp}/study/{{name}}", timeout: 1s}}}}]
  other:
    match: "o-.*"
    steps: [{{rsync: {{to: "{tmp}/other/{{name}}", mkpath: true}}}}]
"""


def test_a_hung_mount_holds_up_only_its_own_jobs(tmp_path: Path) -> None:
    """Its target is paused; others go on, stop and start are quick; when it answers, work goes on."""
    (tmp_path / "study").mkdir()
    with site(tmp_path / "root", CONFIG.format(tmp=tmp_path)) as here:
        with hung_mount(tmp_path / "study") as mount:
            here.start()
            for name in ("s-one", "s-two", "o-one"):
                here.drop(name, {"a": name})
            here.until(lambda: (here.root / "done/o-one").exists())
            here.until(lambda: here.events("target.paused"))
            (paused,) = here.events("target.paused")
            assert "the file system does not answer" in paused["reason"]
            here.drop("o-two", {"a": "2"})  # the pool of threads is not used up
            here.until(lambda: (here.root / "done/o-two").exists())
            said = here.run("doctor", check=False)
            assert "does not answer" in said.stdout
            assert here.stop() == 0  # though a thread hangs
            here.start()
            here.until(lambda: len(here.events("job.paused")) >= 3)
            mount.leave()  # now every access fails at once
            here.run("poke", "s-one")
            here.until(lambda: "Transport endpoint is not connected" in here.log.read_text())
            assert len(here.json("list", "--state", "paused")) == 2
        (tmp_path / "study").chmod(0o755)
        here.run("poke", "s-one")
        here.until(lambda: sorted(os.listdir(here.root / "done")) == ["o-one", "o-two", "s-one", "s-two"])
    assert read_tree(tmp_path / "study") == {b"s-one/a": b"s-one", b"s-two/a": b"s-two"}


def test_a_half_written_file_of_a_killed_rsync_is_removed(tmp_path: Path) -> None:
    """Only what rsync left of a file of ours since this step began; nobody else's, however it is called."""
    config = CONFIG.format(tmp=tmp_path).replace("mkpath: true", "mkpath: true, bwlimit: 1MB")
    place = tmp_path / "other/o-big"
    with site(tmp_path / "root", config) as here:
        place.mkdir(parents=True)
        (place / ".big.bin.Zz9Zz9").write_text("somebody's, from before")
        (place / ".big.bin.Zz9Zz9").chmod(0o600)
        here.start()
        here.drop("o-big", {"big.bin": os.urandom(3_000_000)})
        here.until(lambda: len(list(place.glob(".big.bin.*"))) == 2)
        here.kill()
        (place / ".big.bin.backup").write_text("another's, written meanwhile, of six letters by chance")
        (place / ".big.bin.backup").chmod(0o600)
        here.start()
        here.until(lambda: (here.root / "done/o-big").exists())
    assert sorted(os.listdir(place)) == [".big.bin.Zz9Zz9", ".big.bin.backup", "big.bin"]
