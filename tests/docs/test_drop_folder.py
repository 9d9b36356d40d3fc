"""The page on a laboratory's drop folder, as it stands: both ways over a real sshd.

By one user, who may do all; by those whom the page is for: test_setups.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks
from tests.docs.shell import Shell
from tests.support.daemon import Site, site
from tests.support.receivers import mailbox
from tests.support.sshd import sshd
from tests.support.trees import read_tree, tree

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

PAGE = DOCS / "drop-folder.md"
MEASURED = {"raw": {"plate.csv": b"1,2\n" * 999}, "run.log": b"ok\n", ".DS_Store": b"x"}


@dataclass
class Laboratory:
    """The server, the storage, and a person who types."""

    here: Site
    storage: Path
    shell: Shell

    def words(self, text: str) -> str:
        """The page's words, with the places of this test."""
        return text.replace("/srv/dittohead", str(self.here.root)).replace("/study/", f"{self.storage}/")

    def commands(self) -> list[str]:
        return [self.words(block.text) for block in blocks(PAGE) if block.language == "sh"]


@pytest.fixture
def laboratory(tmp_path: Path) -> Iterator[Laboratory]:
    with sshd(tmp_path / "sshd") as server, site(tmp_path / "root", "") as here, mailbox() as box:
        shell = Shell(tmp_path / "shell", here.config)
        shell.sudo()
        shell.hosts(server, "ingest.example.org", "storage.example.org")
        made = Laboratory(here, tmp_path / "study", shell)
        (here.root / "state").mkdir()
        shutil.copy(server.base / "client", here.root / "state" / "id_ed25519")
        shutil.copy(server.base / "known_hosts", here.root / "state" / "known_hosts")
        config = next(block.text for block in blocks(PAGE) if block.language == "yaml")
        here.config.write_text(
            made.words(config).replace("host: mail.example.org", f"host: 127.0.0.1, port: {box.port}")
            + "space: {floor: 0}\n"
        )
        here.env |= shell.env
        yield made


def test_what_the_page_says_is_what_happens(laboratory: Laboratory) -> None:
    """Checked, uploaded over ssh, delivered over ssh, verified; a mistyped study fails, and is retried."""
    here, shell = laboratory.here, laboratory.shell
    before, drop, upload, look, again, _, _, keep = laboratory.commands()
    (laboratory.storage / "lab1" / "raw").mkdir(parents=True)
    here.start()
    assert "rsync can deliver there" in shell.run(before).stdout
    tree(shell.home / "lab1-run42", MEASURED)
    shell.run(upload)
    here.until((here.root / "done" / "lab1-run42").exists)
    said = shell.run(look).stdout
    assert "done" in said
    delivered = read_tree(laboratory.storage / "lab1" / "raw" / "lab1-run42")
    assert delivered == {b"raw/plate.csv": b"1,2\n" * 999, b"run.log": b"ok\n"}
    (receipt,) = here.receipts("lab1-run42")
    assert {location["verified_by"] for location in receipt["locations"]} == {"rsync --checksum"}

    shutil.copytree(shell.home / "lab1-run42", shell.home / "lab2-run7")
    shell.run(drop.replace("lab1-run42", "lab2-run7"))
    here.until((here.root / "failed" / "lab2-run7").exists)
    (laboratory.storage / "lab2" / "raw").mkdir(parents=True)
    shell.run(again)
    here.until((here.root / "done" / "lab2-run7").exists)
    assert len(read_tree(laboratory.storage / "lab2" / "raw" / "lab2-run7")) == 2

    assert shell.run(keep).stdout.count("as in the receipt") == 2
    assert (here.root / "done" / "lab1-run42").exists()  # it is younger than a month


def test_another_file_in_the_place_is_not_replaced(laboratory: Laboratory) -> None:
    """And no other of the folder's is delivered."""
    here, shell = laboratory.here, laboratory.shell
    place = laboratory.storage / "lab1" / "raw" / "lab1-run42"
    tree(place, {"run.log": b"another"})
    here.start()
    tree(shell.home / "lab1-run42", MEASURED)
    shell.run(laboratory.commands()[2])
    here.until((here.root / "failed" / "lab1-run42").exists)
    assert read_tree(place) == {b"run.log": b"another"}
    assert "run.log" in (here.root / "failed" / "lab1-run42.reason.txt").read_text()


def test_an_upload_that_broke_and_was_renamed_waits_until_it_is_finished(laboratory: Laboratory) -> None:
    """The line is broken in the middle of a file, and the second typed all the same; then both are typed again."""
    here, shell = laboratory.here, laboratory.shell
    first, second = laboratory.commands()[2].splitlines()
    (laboratory.storage / "lab1" / "raw").mkdir(parents=True)
    here.start()
    measured = {"plate.bin": os.urandom(3_000_000), "run.log": b"ok\n"}
    tree(shell.home / "lab1-run42", measured)
    hidden, ready = here.root / "inbox" / ".lab1-run42", here.root / "inbox" / "lab1-run42"
    shell.program("rsync", 'exec /usr/bin/rsync --bwlimit=300 "$@"')
    with subprocess.Popen(
        ["bash", "-c", f"exec {first}"], cwd=shell.home, env=shell.env, start_new_session=True
    ) as upload:
        here.until(lambda: any(file.stat().st_size for file in hidden.glob(".plate.bin.*")))
        os.killpg(upload.pid, signal.SIGTERM)
    here.until(lambda: (hidden / ".rsync-partial" / "plate.bin").exists())
    shell.run(second)
    here.until(lambda: here.held("lab1-run42").startswith(".rsync-partial: so is called what"))
    assert ready.is_dir()

    ready.rename(hidden)
    shell.program("rsync", 'exec /usr/bin/rsync "$@"')
    shell.run(f"{first}\n{second}")
    here.until((here.root / "done" / "lab1-run42").exists)
    delivered = read_tree(laboratory.storage / "lab1" / "raw" / "lab1-run42")
    assert delivered == {name.encode(): data for name, data in measured.items()}
