"""What is still being written when its name says that it is whole: it is never `done` with a part."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Site, site
from tests.support.sshd import Sshd, sshd
from tests.support.trees import read_tree, tree

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

#: A folder that is written without the dot settles within the time of a test.
CONFIG = """
root: .
space: {floor: 0}
watch: {settle: 2s, settle_in_place: 4s}
pipelines: {all: {match: ".*", steps: [checksum: {}]}}
"""

#: Writes what it is told to a file it holds open, and says so: `w TEXT`, `c` closes.
WRITER = """
import sys
file = open(sys.argv[1], "ab", buffering=0)
print("ready", flush=True)
for line in sys.stdin:
    file.write(line.encode())
    print("written", flush=True)
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path / "root", CONFIG) as made:
        made.start()
        yield made
        assert made.stop() == 0


def whole(here: Site, name: str, source: Path) -> None:
    """Wait for its end: done with all of the source, or failed; never done with a part."""
    here.until(
        lambda: (here.root / "done" / name).exists() or (here.root / "failed" / name).exists(), timeout_s=120
    )
    assert (here.root / "done" / name).exists(), (here.root / "failed" / f"{name}.reason.txt").read_text()
    assert read_tree(here.root / "done" / name) == read_tree(source)
    (receipt,) = here.receipts(name)
    listed = {file["path"]: file["size"] for file in receipt["manifest"]["files"]}
    assert listed == {os.fsdecode(path): len(data) for path, data in read_tree(source).items()}


def source_of(tmp_path: Path, size: int = 1_500_000) -> Path:
    return tree(
        tmp_path / "source", {"a.txt": b"first", "b.bin": os.urandom(size), "d": {"c.bin": os.urandom(99)}}
    )


class Writer:
    """A program that holds a file open and writes when told."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def write(self, text: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def close(self) -> None:
        self.process.communicate()


@pytest.mark.parametrize("options", [["--bwlimit=200"], ["--bwlimit=200", "--inplace"], ["--bwlimit=50"]])
def test_a_folder_renamed_while_rsync_writes_waits_until_it_has_ended(
    here: Site, tmp_path: Path, options: list[str]
) -> None:
    """Its temporary name, or the file it has open, or its writing holds the folder."""
    source = source_of(tmp_path, 400_000 if "--bwlimit=50" in options else 1_500_000)
    hidden = here.root / "inbox" / ".n"
    hidden.mkdir()
    with subprocess.Popen(["rsync", "-a", *options, f"{source}/", f"{hidden}/"]) as rsync:
        here.until(lambda: any(b"b.bin" in name for name in os.listdir(os.fsencode(hidden))))
        hidden.rename(here.root / "inbox" / "n")
        whole(here, "n", source)
        assert rsync.wait() == 0


def test_a_folder_that_is_written_to_with_pauses_waits_for_its_writer(here: Site, tmp_path: Path) -> None:
    """Whatever the pauses: the kernel tells who has a file open for writing."""
    folder = tree(here.root / "inbox" / ".slow", {"a.txt": b"whole"})
    writer = Writer(folder / "b.txt")
    writer.write("one")
    folder.rename(here.root / "inbox" / "slow")
    here.until(lambda: "a program on this machine has it open for writing: b.txt" in here.held("slow"))
    writer.write("two")
    assert (here.root / "inbox" / "slow").exists()
    writer.close()
    here.until(lambda: (here.root / "done" / "slow").exists())
    assert (here.root / "done" / "slow" / "b.txt").read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize("dotted", [True, False])
@pytest.mark.parametrize("program", ["sftp", "scp", "scp -O"])
def test_what_comes_over_ssh_waits_until_it_is_whole(
    here: Site, tmp_path: Path, server: Sshd, program: str, dotted: bool
) -> None:
    """Renamed in the middle, or put under its final name from the beginning."""
    source = source_of(tmp_path, 300_000)
    inbox = here.root / "inbox"
    place = inbox / (".up" if dotted else "up")
    with sending(server, program, source, place) as sender:
        here.until(lambda: (place / "b.bin").exists() and (place / "b.bin").stat().st_size > 0)
        if dotted:
            place.rename(inbox / "up")
        whole_or_cut(here, "up", source, sender)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with sshd(tmp_path / "sshd") as made:
        yield made


def sending(server: Sshd, program: str, source: Path, place: Path) -> subprocess.Popen[bytes]:
    options = ["-l", "800", "-P", str(server.port), "-i", str(server.base / "client")]
    options += ["-o", f"UserKnownHostsFile={server.base}/known_hosts"]
    if program == "sftp":
        process = subprocess.Popen(
            ["sftp", *options, "-b", "-", server.host], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert process.stdin is not None
        process.stdin.write(f"put -r {source} {place}\n".encode())
        process.stdin.close()
        process.stdin = None
        return process
    return subprocess.Popen(
        [*program.split(), *options, "-r", str(source), f"{server.host}:{place}"], stdout=subprocess.DEVNULL
    )


def whole_or_cut(here: Site, name: str, source: Path, sender: subprocess.Popen[bytes]) -> None:
    """By path sftp and scp lose their place where the folder is renamed in the middle; then all is told."""
    sent = sender.wait() == 0
    here.until(
        lambda: (here.root / "done" / name).exists() or (here.root / "failed" / name).exists(), timeout_s=120
    )
    if sent:
        assert read_tree(here.root / "done" / name) == read_tree(source)
    (receipt,) = here.receipts(name)
    lying = here.root / receipt["state"] / name
    listed = {file["path"]: file["size"] for file in receipt["manifest"]["files"]}
    assert listed == {os.fsdecode(path): len(data) for path, data in read_tree(lying).items()}


@pytest.fixture
def coarse(tmp_path: Path) -> Iterator[Path]:
    """Yield a directory whose file system keeps times in whole seconds, as ext3 with small inodes does.

    So any two changes may fall into one tick of its clock, whatever the machine and its kernel.
    """
    image, point = tmp_path / "image", tmp_path / "coarse"
    point.mkdir()
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    if os.geteuid() != 0:
        pytest.skip("NEEDS ROOT to mount a small disk: left out")
    made = subprocess.run(["mkfs.ext3", "-q", "-F", "-I", "128", image], capture_output=True, check=False)
    if (
        made.returncode != 0
        or subprocess.run(["mount", "-o", "loop", image, point], check=False).returncode != 0
    ):
        pytest.skip("AN EXT3 CANNOT BE MOUNTED HERE: left out")
    yield point
    subprocess.run(["umount", "-l", point], check=True)


def test_a_script_that_hands_over_small_folders_waits_no_longer_than_others(coarse: Path) -> None:
    """Filled and renamed within one tick of the clock: the watch saw that they were renamed."""
    config = CONFIG.replace("settle_in_place: 4s", "settle_in_place: 1d")
    with site(coarse / "root", config) as here:
        here.start()
        inbox = here.root / "inbox"
        for number in range(20):
            tree(inbox / f".n{number}", {"a.txt": b"all of it"}).rename(inbox / f"n{number}")
        here.until(lambda: len(os.listdir(here.root / "done")) == 20, timeout_s=120)
        tree(inbox / "in-place", {"a.txt": b"first"})
        here.until(lambda: here.held("in-place"))
        assert here.stop() == 0


def test_a_folder_that_is_mended_and_moved_back_at_once_is_no_upload_that_went_on(tmp_path: Path) -> None:
    """What was seen of it before it was claimed says nothing of the folder that comes back."""
    config = CONFIG.replace("settle_in_place: 4s", "settle_in_place: 1d, interval: 1h")
    with site(tmp_path / "root", config) as here:
        here.start()
        inbox, done = here.root / "inbox", here.root / "done"
        tree(inbox / ".a", {"a.txt": b"first", "b.txt": b"other"}).rename(inbox / "a")
        for content in (b"second", b"third"):
            here.until((done / "a").exists)
            (done / "a" / "a.txt").write_bytes(content)
            (done / "a").rename(inbox / "a")
        here.until((done / "a").exists)
        assert (done / "a" / "a.txt").read_bytes() == b"third"
        assert len(here.receipts("a")) == 3
        assert here.stop() == 0
