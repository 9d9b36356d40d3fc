"""One study's disk on a host is full: that study waits, the host and its other studies go on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import site
from tests.support.sshd import sshd
from tests.support.trees import read_tree

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(os.geteuid() != 0, reason="MOUNTING SMALL DISKS NEEDS ROOT: full study left out"),
]

CONFIG = """
root: .
space: {{floor: 0}}
nearly_full: 50
retry: {{first: 20ms, most: 100ms, attempts: 40}}
pipelines:
  far:
    match: "(?P<study>lab[0-9])-.+"
    steps:
      - rsync: {{to: "{host}:{base}/{{study}}/raw/{{name}}", mkpath: true, ssh: {{{ssh}}}}}
"""


def test_a_full_study_holds_up_no_other_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """Told as full by its path; and the other, on a disk that fills, as nearly full by its mount."""
    for study in ("lab1", "lab2"):
        (tmp_path / study).mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path / study], check=True)
    try:
        with sshd(tmp_path / "ssh") as server:
            ssh = ", ".join(f"{key}: {value}" for key, value in server.options.items())
            config = CONFIG.format(host=server.host, base=tmp_path, ssh=ssh)
            (tmp_path / "lab1" / "ballast").write_bytes(bytes(2_000_000))
            with site(tmp_path / "root", config) as here:
                here.start()
                here.drop("lab1-a", {"a": os.urandom(500_000)})
                here.until(lambda: here.events("target.paused"))
                place = f"{server.host}:{tmp_path}/lab1/raw"
                assert here.events("target.paused")[0]["target"] == place
                assert [event["target"] for event in here.events("target.full")] == [place]
                here.drop("lab2-a", {"a": os.urandom(1_200_000)})
                here.drop("lab1-b", {"a": b"waits too"})
                here.until(lambda: (here.root / "done" / "lab2-a").exists())
                nearly = f"{server.host}:{tmp_path}/lab2"
                here.until(lambda: here.events("target.nearly_full"))
                assert [event["target"] for event in here.events("target.nearly_full")] == [nearly]
                assert not (here.root / "done" / "lab1-b").exists()
                (tmp_path / "lab1" / "ballast").unlink()
                here.run("poke", "lab1-a")
                for name in ("lab1-a", "lab1-b"):
                    here.until(lambda name=name: (here.root / "done" / name).exists())
                assert len(here.events("target.paused")) == 1
                assert [event["target"] for event in here.events("target.resumed")] == [place]
                assert here.stop() == 0
            assert len(read_tree(tmp_path / "lab1")) == 2
    finally:
        for study in ("lab1", "lab2"):
            subprocess.run(["umount", "-l", tmp_path / study], check=True)
