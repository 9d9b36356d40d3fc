"""What the daemon stands on goes away and comes back: stations, the root, the lock, the store at the start."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Site, site
from tests.support.ports import free_port

pytestmark = pytest.mark.service

CONFIG = """
root: root
space: {{floor: 0}}
http: {{listen: "127.0.0.1:{port}"}}
{more}
pipelines:
  all:
    match: ".*"
    steps:
      - command: {{argv: [sh, -c, 'echo "$DITTOHEAD_NAME" >> "$0"; test ! -e "$0.hold-$DITTOHEAD_NAME" || exit 75', "{ledger}"], poll: 20ms}}
"""


def fill(directory: Path, what: str) -> None:
    """Use up a file system's bytes or inodes. Raises: OSError."""
    for number in range(10_000):
        with open(directory / str(number), "wb", buffering=0) as file:
            while what == "bytes":
                file.write(b"x" * 4096)


class Here(Site):
    """A root one level below its configuration and its log, so that it can be moved away."""

    def __init__(self, base: Path, more: str = "") -> None:
        self.port, self.ledger = free_port(), base / "ran"
        super().__init__(base, CONFIG.format(port=self.port, ledger=self.ledger, more=more))
        self.base, self.root = base, base / "root"
        self.ledger.touch()

    def health(self) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except OSError:
            return 0, {"troubles": []}
        finally:
            connection.close()

    def ill(self, what: str) -> bool:
        status, said = self.health()
        return status == 503 and any(what in trouble for trouble in said["troubles"])

    def ran(self, name: str) -> int:
        return self.ledger.read_text().splitlines().count(name)

    def is_done(self, name: str) -> bool:
        return (self.root / "done" / name).is_dir()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with site(tmp_path / "unused", "") as unused:
        made = Here(tmp_path)
        yield made
        unused.process = made.process
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.wait()


def test_stations_and_the_root_go_away_and_come_back(here: Here) -> None:
    """Nothing whose end is recorded is run again; nothing fails for it; the daemon lives, and says what is missing."""
    here.start()
    root = here.root
    # done/ archived by its admin, with mv: said, waited for, and an empty one is made in the end.
    (root / "done").chmod(0o2755)
    here.until(lambda: here.health()[0] == 200)
    (root / "done").rename(root / "done-2026")
    here.drop("a", {"f": "a"})
    here.until(lambda: here.ill("done/ is missing"))
    assert "done/ is missing" in here.run("status").stdout
    here.until(lambda: here.is_done("a"))
    here.until(lambda: here.health()[0] == 200)
    assert not (root / "processing/a").exists()
    assert [line["directory"] for line in here.events("station.made")] == ["done"]
    # processing/: not made again, since its jobs' folders were in it.
    (here.base / "ran.hold-b").touch()
    here.drop("b", {"f": "b"})
    here.until(lambda: here.ran("b"))
    (root / "processing").rename(root / "elsewhere")
    here.until(lambda: here.ill("processing/ is missing"))
    here.drop("c", {"f": "c"})
    here.until(lambda: "processing/ is missing" in here.run("status").stdout)
    assert (root / "inbox/c").is_dir()
    (root / "elsewhere").rename(root / "processing")
    (here.base / "ran.hold-b").unlink()
    here.until(lambda: here.is_done("b") and here.is_done("c"), 120)
    # The whole root.
    root.rename(here.base / "root.away")
    here.until(lambda: here.ill("the root is not there"))
    (here.base / "root.away").rename(root)
    here.until(lambda: here.health()[0] == 200)
    here.drop("d", {"f": "d"})
    here.until(lambda: here.is_done("d"))
    # The lock's file.
    (root / "state/lock").unlink()
    here.until(lambda: here.events("lock.lost"))
    assert here.run("run", check=False).returncode == os.EX_TEMPFAIL
    assert [here.ran(name) for name in "acd"] == [1, 1, 1]
    assert len(here.receipts()) == 4
    assert {job["state"] for job in here.json("list")} == {"done"}
    assert here.stop() == 0


def test_a_daemon_whose_root_was_replaced_ends_to_be_started_again(here: Here) -> None:
    """Its lock does not keep anybody out of the new one."""
    here.start()
    here.root.rename(here.base / "old")
    here.root.mkdir()
    assert here.process is not None
    assert here.process.wait(60) == os.EX_UNAVAILABLE
    assert "in the root's place" in here.log.read_text()
    assert list(here.root.iterdir()) == []


def test_a_start_waits_for_a_database_that_is_down_and_obeys_a_stop(tmp_path: Path) -> None:
    """It is not a wrong configuration, and systemd gives up after five starts."""
    here = Here(tmp_path, f'store: "postgresql://nobody@127.0.0.1:{free_port()}/none"')
    here.start(wait=False)
    try:
        here.until(lambda: here.ill("refused"))
        assert here.events("daemon.waiting")
        assert here.stop(10) == 0
    finally:
        assert here.process is not None
        here.process.kill()
        here.process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a file system")
@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_start_on_a_full_disk_waits_for_room(here: Here, what: str) -> None:
    """A daemon that died while its disk was full comes back by itself."""
    here.root.mkdir()
    size = "size=16m,nr_inodes=100"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", here.root], check=False).returncode:
        pytest.skip("no mounts here")
    try:
        here.start()
        here.drop("a", {"f": "a"})
        here.until(lambda: here.is_done("a"))
        here.kill()
        filler = here.root / "filler"
        filler.mkdir()
        if what == "bytes":  # a start that needs none of them would go well
            for path in (here.root / "state").glob("dittohead.sqlite3*"):
                path.unlink()
        with pytest.raises(OSError, match="No space"):
            fill(filler, what)
        here.start(wait=False)
        here.until(lambda: here.events("daemon.waiting"))
        here.until(lambda: here.health()[0] == 503)
        for path in filler.iterdir():
            path.unlink()
        here.until(lambda: here.health()[0] == 200)
        here.drop("b", {"f": "b"})
        here.until(lambda: here.is_done("b"))
        assert here.stop() == 0
    finally:
        if here.process is not None:
            here.process.kill()
            here.process.wait()
        subprocess.run(["umount", "-l", here.root], check=True)


def test_a_start_whose_processing_is_missing_cancels_nothing(here: Here) -> None:
    """An unmounted root looks like one whose folders were all moved away by hand."""
    here.start()
    (here.base / "ran.hold-b").touch()
    here.drop("b", {"f": "b"})
    here.until(lambda: here.ran("b"))
    here.kill()
    (here.root / "processing").rename(here.root / "elsewhere")
    here.start(wait=False)
    here.until(lambda: here.ill("1 job had their folders in it"))
    (here.root / "elsewhere").rename(here.root / "processing")
    (here.base / "ran.hold-b").unlink()
    here.until(lambda: here.is_done("b"))
    assert here.stop() == 0


@pytest.mark.parametrize("wrong", ["root: a file", "root: closed", "an address of others"])
def test_what_is_wrongly_configured_still_ends_with_78(here: Here, wrong: str) -> None:
    """A start that waits for what nobody will do would say nothing to anybody."""
    if wrong == "root: a file":
        here.root.write_text("")
    elif wrong == "root: closed":
        here.config.write_text(here.config.read_text().replace("root: root", "root: /proc/nowhere"))
    else:
        here.config.write_text(here.config.read_text().replace('"127.0.0.1:', '"/proc/nowhere/sock" #'))
    said = here.run("run", check=False)
    assert said.returncode == os.EX_CONFIG, said.stdout + said.stderr
    assert "Traceback" not in said.stderr
