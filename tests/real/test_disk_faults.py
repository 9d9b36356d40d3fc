"""Disks that are full, read-only or broken, under the daemon's root, its store or a target."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Site, site
from tests.support.length import LONG
from tests.support.strace import failing
from tests.support.trees import read_tree, tree

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(500)]

CONFIG = """
root: .
limits: {{jobs: 3}}
space: {{floor: 0}}
watch: {{interval: 1s}}
pipelines:
  all:
    match: ".*"
    steps:
      - checksum: {{}}
      - command: {{argv: [sh, -c, 'echo made > x']}}
      - rsync: {{to: "{target}/{{name}}", mkpath: true}}
"""

#: What a disk may answer, by call; one error for each is injected in a quick run.
FAULTS = {
    "pwrite64": ["ENOSPC", "EIO", "EDQUOT"],
    "fdatasync": ["EIO", "ENOSPC"],
    "fsync": ["EIO", "ENOSPC", "EDQUOT"],
    "openat": ["EMFILE", "ENOSPC", "EROFS", "EIO"],
    "renameat2": ["EIO", "EROFS", "ENOSPC"],
    "rename": ["ENOSPC", "EIO", "EROFS"],
    "mkdir": ["ENOSPC", "EDQUOT", "EROFS"],
    "getdents64": ["EIO", "EMFILE"],
    "pipe2": ["EMFILE"],
}


def what(number: int) -> dict[str | bytes, Any]:
    return {"a.txt": f"folder {number}", "sub": {"b.bin": bytes([number]) * 40_000, "empty": b""}}


def whole(here: Site, target: Path, names: list[str]) -> None:
    """Everything is where it belongs: done, delivered, one receipt each."""
    assert sorted(os.listdir(here.root / "done")) == sorted(names)
    assert os.listdir(here.root / "failed") == []
    for number, name in enumerate(names):
        expected = {
            b"a.txt": f"folder {number}".encode(),
            b"sub/b.bin": bytes([number]) * 40_000,
            b"sub/empty": b"",
        }
        assert read_tree(here.root / "done" / name) == expected
        assert read_tree(target / name) == expected
    assert sorted(receipt["name"] for receipt in here.receipts()) == sorted(names)


def heal(here: Site, count: int) -> None:
    """Poke what is paused, start what has died, until all is done."""

    def done() -> bool:
        assert here.process is not None
        if here.process.poll() is not None:
            here.start(wait=False)
        for job in here.json("list", "--state", "paused"):
            here.run("poke", job["id"], check=False)
        return len(os.listdir(here.root / "done")) == count or bool(os.listdir(here.root / "failed"))

    here.until(done, 150)


@pytest.mark.parametrize("seed", range(12) if LONG else [1])
def test_calls_that_fail_now_and_then_fail_no_folder(tmp_path: Path, seed: int) -> None:
    """A disk's error is nobody's folder's fault: all of them end in done/, as soon as it has ended."""
    chance = random.Random(seed)
    names = [f"f{number}" for number in range(5)]
    with site(tmp_path / "root", CONFIG.format(target=tmp_path / "target")) as here:
        here.log = tmp_path / "daemon.log"
        here.start()
        assert here.process is not None
        faults = [
            f"{call}:error={chance.choice(errors)}:when={chance.randint(2, 12)}+{chance.randint(5, 17)}"
            for call, errors in FAULTS.items()
        ]
        with failing(here.process.pid, tmp_path / "calls", *faults) as injected:
            for number, name in enumerate(names):
                here.drop(name, what(number))
            here.until(lambda: injected.count() >= 15 or here.process.poll() is not None)
        assert here.process.poll() is None, "it died: " + here.log.read_text()[-2000:]
        heal(here, len(names))
        whole(here, tmp_path / "target", names)


@contextlib.contextmanager
def tmpfs(point: Path, size: str) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("NEEDS ROOT to mount a small disk: left out")
    point.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(point)]
    if subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("A TMPFS CANNOT BE MOUNTED HERE: left out")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(point)], check=False)


def fill(point: Path) -> Path:
    """Use a disk's last byte up."""
    stuffing = point / "stuffing"
    with open(stuffing, "ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return stuffing


def test_a_full_root_pauses_the_work_and_loses_nothing(tmp_path: Path) -> None:
    """Not a byte is left for manifest, store or receipt; with room again, it all goes on."""
    names = [f"f{number}" for number in range(4)]
    with (
        tmpfs(tmp_path / "disk", "24m"),
        site(tmp_path / "disk/root", CONFIG.format(target=tmp_path / "target")) as here,
    ):
        here.log = tmp_path / "daemon.log"
        here.start()
        for number, name in list(enumerate(names))[:2]:
            here.drop(name, what(number))
        here.until(lambda: len(os.listdir(here.root / "done")) == 2)
        for number, name in list(enumerate(names))[2:]:
            tree(here.root / "inbox" / f".{name}", what(number))
        stuffing = fill(tmp_path / "disk")
        for name in names[2:]:
            (here.root / "inbox" / f".{name}").rename(here.root / "inbox" / name)
        said = ("disk is full", "No space left on device", "more free disk space")
        here.until(lambda: any(words in here.log.read_text() for words in said))
        assert os.listdir(here.root / "failed") == []
        stuffing.unlink()
        heal(here, len(names))
        whole(here, tmp_path / "target", names)
        assert here.stop() == 0


def test_a_target_that_is_full_or_read_only_is_paused_and_resumed(tmp_path: Path) -> None:
    """People are told once; its jobs wait in processing/ and go on."""
    target = tmp_path / "target"
    with (
        tmpfs(target, "2m"),
        site(tmp_path / "root", CONFIG.format(target=target)) as here,
    ):
        stuffing = fill(target)
        here.start()
        here.drop("f0", what(0))
        here.until(lambda: here.events("target.paused"))
        assert "full" in here.events("target.paused")[0]["reason"]
        stuffing.unlink()
        heal(here, 1)
        subprocess.run(["mount", "-o", "remount,ro", target], check=True)
        here.drop("f1", what(1))
        here.until(lambda: len(here.events("target.paused")) == 2)
        subprocess.run(["mount", "-o", "remount,rw", target], check=True)
        heal(here, 2)
        whole(here, target, ["f0", "f1"])
        assert [e["target"] for e in here.events("target.resumed")] == [str(target)] * 2
        assert here.stop() == 0


def test_a_store_that_is_locked_for_long_delays_and_loses_nothing(tmp_path: Path) -> None:
    """Somebody holds a transaction open in another program."""
    with site(tmp_path / "root", CONFIG.format(target=tmp_path / "target")) as here:
        here.start()
        other = sqlite3.connect(here.root / "state/dittohead.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        here.drop("f0", what(0))
        here.until(lambda: (here.root / "processing/f0").is_dir())
        other.execute("COMMIT")
        other.close()
        here.until(lambda: (here.root / "done/f0").is_dir())
        whole(here, tmp_path / "target", ["f0"])
