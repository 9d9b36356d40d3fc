"""A file in the inbox becomes a folder that holds it: whose it is, when, which never, and what a death leaves."""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.config.loader import ConfigError, load
from dittohead.config.settings import Watch
from dittohead.engine.folder_activity import expanded, read_file_activity
from dittohead.engine.reconcile import reconcile
from dittohead.engine.settling import Settling, Why
from dittohead.folders import lone_files
from dittohead.folders.stations import Stations, owner_of
from dittohead.model.held import HeldKind
from dittohead.model.records import Arrival
from dittohead.model.states import JobState, Station
from dittohead.system import fail_points
from tests.support.harness import Harness
from tests.support.trees import read_tree, tree

CONFIG = """
root: .
limits: {jobs: 4, script: 4}
space: {floor: 0}
pipelines:
  archives:
    match: "lab.*"
    files: folder
    steps:
      - script: {name: first}
  folders:
    match: "only.*"
    steps:
      - script: {name: first}
"""

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT, FOR TWO UIDS: left out")


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "root", CONFIG)
    yield made
    made.store.close()


def inbox(harness: Harness) -> Path:
    return harness.stations.path(Station.INBOX)


def put(harness: Harness, name: str, data: bytes = b"zip") -> Path:
    """Put a file into the inbox by the uploader's protocol."""
    hidden = inbox(harness) / f".{name}"
    hidden.write_bytes(data)
    hidden.rename(inbox(harness) / name)
    return inbox(harness) / name


async def until_over(harness: Harness, name: str) -> Any:
    def over() -> bool:
        harness.offer()
        return harness._over(name)

    await harness.until(over)
    return harness.job(name)


# -- what becomes of it ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lab1.zip", "lab1.tar.gz", "lab 'x'", "lab-ü.tif"])
async def test_a_file_becomes_a_folder_of_its_name_and_goes_its_way(harness: Harness, name: str) -> None:
    put(harness, name)
    async with harness.running():
        job = await until_over(harness, name)
    assert (job.state, job.name, job.files) == (JobState.DONE, name, 1)
    assert read_tree(harness.root / "done" / name) == {os.fsencode(name): b"zip"}
    assert os.listdir(inbox(harness)) == []


async def test_it_goes_its_way_again_when_it_is_moved_back(harness: Harness) -> None:
    put(harness, "lab1.zip")
    async with harness.running():
        first = await until_over(harness, "lab1.zip")
        (harness.root / "done/lab1.zip").rename(inbox(harness) / "lab1.zip")
        await harness.until(lambda: harness.quiet() and len(harness.jobs("lab1.zip")) == 2)
    assert harness.job("lab1.zip").uid == first.uid
    assert read_tree(harness.root / "done/lab1.zip") == {b"lab1.zip": b"zip"}


async def test_a_further_file_of_the_name_waits_as_a_file(harness: Harness) -> None:
    """Where it were a folder already, `mv` of a third would put that into it."""
    (harness.root / "processing/lab1.zip").mkdir()
    put(harness, "lab1.zip")
    (arrival,) = harness.stations.scan().arrivals
    held = await harness.claimer.claim(arrival)
    assert getattr(held, "kind", None) is HeldKind.NAMESAKE
    assert (inbox(harness) / "lab1.zip").is_file()


def test_which_names_are_taken(harness: Harness) -> None:
    for name in ("other.zip", "only.zip", "dittohead.yaml", "dittohead-manifest-sha256.txt", "Thumbs.db"):
        (inbox(harness) / name).write_bytes(b"1")
    (inbox(harness) / ".lab-hidden").write_bytes(b"1")
    with open(os.fsencode(inbox(harness)) + b"/lab\xff.zip", "wb"):
        pass
    put(harness, "lab.zip")
    scan = harness.stations.scan()
    assert [(one.folder, one.is_file) for one in scan.arrivals] == [(b"lab.zip", True)]
    assert sorted(scan.strays) == [
        b"dittohead-manifest-sha256.txt",
        b"dittohead.yaml",
        b"lab\xff.zip",
        b"only.zip",
        b"other.zip",
    ]


def test_a_control_file_is_never_one_by_itself(tmp_path: Path) -> None:
    harness = Harness(tmp_path / "root", CONFIG.replace("lab.*", ".*"))
    (inbox(harness) / "dittohead-manifest-sha256.txt").write_bytes(b"1")
    assert harness.stations.scan().arrivals == []
    harness.store.close()


def test_without_the_key_nothing_changes(tmp_path: Path) -> None:
    harness = Harness(tmp_path / "root", CONFIG.replace("    files: folder\n", ""))
    put(harness, "lab.zip")
    scan = harness.stations.scan()
    assert (scan.arrivals, scan.strays) == ([], [b"lab.zip"])
    harness.store.close()


# -- what never becomes one ------------------------------------------------------------------------


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(path.parent)
        made.bind(path.name)
        os.chdir(here)


@pytest.mark.parametrize(
    "make", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo, _socket], ids=["link", "fifo", "socket"]
)
def test_what_is_no_regular_file_is_left_alone(harness: Harness, make: Callable[[Path], None]) -> None:
    make(inbox(harness) / "lab.zip")
    scan = harness.stations.scan()
    assert (scan.arrivals, scan.strays) == ([], [b"lab.zip"])


@NEEDS_ROOT
def test_a_device_is_left_alone(harness: Harness) -> None:
    os.mknod(inbox(harness) / "lab.zip", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert harness.stations.scan().strays == [b"lab.zip"]


async def test_a_file_with_a_second_name_is_held_with_what_to_type(harness: Harness, tmp_path: Path) -> None:
    """Another than its owner may have linked it here; and it could be written to by the other name."""
    path = put(harness, "lab.zip")
    os.link(path, tmp_path / "other")
    (arrival,) = harness.stations.scan().arrivals
    held: Any = await harness.claimer.claim(arrival)
    assert (held.kind, path.is_file()) == (HeldKind.IMMOVABLE, True)
    assert "2 names (hard links)" in held.reason
    subprocess.run(held.command.replace("sudo ", ""), shell=True, check=True)  # as people type it
    (arrival,) = harness.stations.scan().arrivals
    await harness.claimer.claim(arrival)
    assert read_tree(inbox(harness)) == {b"lab.zip/lab.zip": b"zip"}


async def test_a_reason_of_ours_is_not_taken_for_a_file_of_somebodys(tmp_path: Path) -> None:
    harness = Harness(tmp_path / "root", CONFIG.replace("lab.*", ".*"))
    reason = harness.stations.write_reason(
        b"lab", "lab was not finished.\n\nJob 01AAAAAAAAAAAAAAAAAAAAAAAA, pipeline x, step y.\n"
    )
    reason.rename(inbox(harness) / reason.name)
    (arrival,) = harness.stations.scan().arrivals
    held: Any = await harness.claimer.claim(arrival)
    assert held.command.startswith("sudo rm -i ")
    harness.store.close()


async def test_what_was_put_in_its_place_meanwhile_is_left_alone(harness: Harness) -> None:
    """The look saw another file."""
    put(harness, "lab.zip")
    (arrival,) = harness.stations.scan().arrivals
    put(harness, "lab.zip", b"another")
    assert not lone_files.wrap(harness.stations, arrival)
    assert read_tree(inbox(harness)) == {b"lab.zip": b"another"}
    assert len(os.listdir(inbox(harness))) == 1


def test_a_file_that_is_gone_leaves_nothing_behind(harness: Harness) -> None:
    path = put(harness, "lab.zip")
    (arrival,) = harness.stations.scan().arrivals
    path.unlink()
    assert not lone_files.wrap(harness.stations, arrival)
    assert os.listdir(inbox(harness)) == []


@pytest.mark.parametrize("call", ["mkdir", "rename"])
async def test_one_that_may_not_be_moved_is_held_and_nothing_is_left(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    put(harness, "lab.zip")
    (arrival,) = harness.stations.scan().arrivals

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(lone_files.os if call == "mkdir" else lone_files, _CALLS[call], refuse)
    held: Any = await harness.claimer.claim(arrival)
    assert (held.kind, held.reason[:36]) == (HeldKind.IMMOVABLE, "the daemon may not move this file: m")
    assert os.listdir(inbox(harness)) == ["lab.zip"]


_CALLS = {"mkdir": "mkdir", "rename": "rename_noreplace"}


# -- whose it is -----------------------------------------------------------------------------------


@NEEDS_ROOT
@pytest.mark.parametrize(("mode", "wanted"), [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755), (0o666, 0o755)])
async def test_it_stays_its_uploaders_and_nobody_else_can_write_into_it(
    harness: Harness, mode: int, wanted: int
) -> None:
    path = put(harness, "lab.zip")
    os.chown(path, 60001, 60002)
    path.chmod(mode)
    (arrival,) = harness.stations.scan().arrivals
    assert (arrival.uid, arrival.is_file) == (60001, True)
    async with harness.running():
        job = await until_over(harness, "lab.zip")
    assert (job.uid, job.state) == (60001, JobState.DONE)
    folder = (harness.root / "done/lab.zip").stat()
    assert (folder.st_uid, folder.st_gid, stat.S_IMODE(folder.st_mode)) == (os.geteuid(), 60002, wanted)


@NEEDS_ROOT
async def test_a_file_that_was_replaced_here_leaves_it_its_uploaders(harness: Harness) -> None:
    path = put(harness, "lab.zip")
    os.chown(path, 60001, 60001)
    async with harness.running():
        await until_over(harness, "lab.zip")
        folder = harness.root / "done/lab.zip"
        os.chown(folder / "lab.zip", os.geteuid(), os.getegid())
        folder.rename(inbox(harness) / "lab.zip")
        await harness.until(lambda: harness.quiet() and len(harness.jobs("lab.zip")) == 2)
    assert harness.job("lab.zip").uid == 60001


@NEEDS_ROOT
@pytest.mark.parametrize(
    "what",
    [{}, {"a": b"1", "b": b"2"}, {"a": {"b": b"1"}}],
    ids=["empty", "two files", "a folder in it"],
)
def test_a_folder_of_the_daemons_own_stays_its(tmp_path: Path, what: dict[str | bytes, Any]) -> None:
    tree(tmp_path / "x", what)
    for path in (tmp_path / "x").rglob("*"):
        os.chown(path, 60001, 60001)
    path = tmp_path / "x"
    assert owner_of(os.fsencode(path), path.lstat()) == os.geteuid()


@NEEDS_ROOT
def test_a_linked_file_makes_nobody_the_owner(tmp_path: Path) -> None:
    path = tree(tmp_path / "x", {"a": b"1"})
    os.chown(path / "a", 60001, 60001)
    assert owner_of(os.fsencode(path), path.lstat()) == 60001
    (path / "dittohead.yaml").write_text("purpose: access")
    assert owner_of(os.fsencode(path), path.lstat()) == 60001
    os.link(path / "a", tmp_path / "other")
    assert owner_of(os.fsencode(path), path.lstat()) == os.geteuid()


# -- when it is taken ------------------------------------------------------------------------------


def _why(path: Path, *, renamed: bool = False) -> Why | None:
    seen = read_file_activity(path.parent, os.fsencode(path.name), (), now_ns=time.time_ns())
    arrival = Arrival(
        folder=os.fsencode(path.name), dev=1, ino=path.stat().st_ino, uid=0, seen_at=0.0, renamed=renamed
    )
    watch = Watch.model_validate({})
    wait = Settling(shared=False).wait(arrival, seen, watch)
    return None if wait is None else wait.why


def test_its_times_tell_whether_it_was_renamed_or_written_last(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"1")
    assert _why(path) is Why.WRITTEN
    assert _why(path, renamed=True) is Why.FRESH
    os.utime(path, ns=(1, 10**18))  # as rsync and cp -p end, and as a rename changes the ctime alone
    assert _why(path) is Why.FRESH
    path.write_bytes(b"")
    assert _why(path) is Why.EMPTY


@pytest.mark.parametrize("name", ["x.zip.part", "x.filepart", ".x.zip.A1b2C3", "x.crdownload"])
def test_names_of_unfinished_files_are_marks(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"1")
    seen = read_file_activity(tmp_path, name.encode(), expanded(("default",)), now_ns=time.time_ns())
    assert seen.mark == name


async def test_a_file_that_is_open_for_writing_is_held(tmp_path: Path) -> None:
    harness = Harness(tmp_path / "root", CONFIG + "watch: {settle: 1ms, settle_in_place: 1ms}\n")
    with open(inbox(harness) / "lab.zip", "wb") as file:
        file.write(b"1")
        file.flush()
        (arrival,) = harness.stations.scan().arrivals
        held: Any = await harness.claimer.claim(arrival)
        assert held.kind is HeldKind.WRITTEN
    harness.store.close()


# -- a death at any moment -------------------------------------------------------------------------

_CHILD = """
import os, signal, sys
from pathlib import Path
from dittohead.folders import lone_files
from dittohead.folders.stations import Stations
from dittohead.system import fail_points
wanted = sys.argv[2]
def point(name):
    if name == wanted:
        os.kill(os.getpid(), signal.SIGKILL)
fail_points.point = point
stations = Stations(Path(sys.argv[1]), takes_file=lambda name: True)
(arrival,) = stations.scan().arrivals
lone_files.wrap(stations, arrival)
"""


@pytest.mark.parametrize("point", fail_points.WRAP_POINTS)
def test_a_kill_at_any_moment_leaves_it_whole_and_the_next_start_finishes_it(
    tmp_path: Path, point: str
) -> None:
    stations = Stations(tmp_path, takes_file=lambda name: True)
    stations.prepare()
    place = stations.path(Station.INBOX)
    (place / "lab.zip").write_bytes(b"zip")
    argv = [sys.executable, "-c", textwrap.dedent(_CHILD), str(tmp_path), point]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    (content,) = read_tree(place).values()
    assert content == b"zip"
    assert stations.scan().arrivals or stations.scan().uploads
    lone_files.finish_all(stations)
    assert lone_files.finish_all(stations) == 0
    (arrival,) = stations.scan().arrivals
    if arrival.is_file:
        assert lone_files.wrap(stations, arrival)
    assert read_tree(place) == {b"lab.zip/lab.zip": b"zip"}
    assert os.listdir(place) == ["lab.zip"]


@pytest.mark.parametrize("point", fail_points.WRAP_POINTS)
async def test_the_next_daemon_takes_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    put(harness, "lab.zip")
    (arrival,) = harness.stations.scan().arrivals

    class Death(BaseException):
        """The daemon dies here."""

    def die(name: str) -> None:
        if name == point:
            raise Death

    with monkeypatch.context() as dying:
        dying.setattr(fail_points, "point", die)
        with pytest.raises(Death):
            lone_files.wrap(harness.stations, arrival)
    await reconcile(harness.engine, harness.claimer, ())
    async with harness.running():
        job = await until_over(harness, "lab.zip")
    assert (job.state, read_tree(harness.root / "done")) == (JobState.DONE, {b"lab.zip/lab.zip": b"zip"})


@pytest.mark.parametrize("taken", ["file", "folder"])
def test_a_name_that_is_taken_meanwhile_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    """Nothing is replaced, merged or lost."""
    stations = Stations(tmp_path, takes_file=lambda name: True)
    stations.prepare()
    place = stations.path(Station.INBOX)
    (place / "lab.zip").write_bytes(b"first")

    def come_between(name: str) -> None:
        if name == "wrap.durable":
            (place / "lab.zip").mkdir() if taken == "folder" else (place / "lab.zip").write_bytes(b"second")

    (arrival,) = stations.scan().arrivals
    with monkeypatch.context() as patch:
        patch.setattr(fail_points, "point", come_between)
        assert not lone_files.wrap(stations, arrival)
    assert lone_files.finish_all(stations) == 0
    assert b"first" in read_tree(place).values()
    (place / "lab.zip").rename(tmp_path / "away")
    assert lone_files.finish_all(stations) == 1
    assert read_tree(place) == {b"lab.zip/lab.zip": b"first"}


@NEEDS_ROOT
def test_a_directory_of_anothers_is_not_finished(tmp_path: Path) -> None:
    """Anyone may call theirs like ours."""
    stations = Stations(tmp_path)
    stations.prepare()
    theirs = tree(stations.path(Station.INBOX) / ".dittohead-file-0", {"x": b"1"})
    os.chown(theirs, 60001, 60001)
    assert lone_files.finish_all(stations) == 0
    assert theirs.is_dir()


# -- the configuration -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ('match: "lab.*"', 'match: "lab.*"\n    each: folder', "makes a job of each folder"),
        ('match: "lab.*"', 'match: "lab.*"\n    complete: bag', "a file brings no list along"),
        ('match: "lab.*"', 'match: "lab[0-9]+"\n    example: lab1', "fits no name of a file"),
    ],
)
def test_check_refuses_what_could_take_no_file(tmp_path: Path, key: str, value: str, said: str) -> None:
    harness_config = CONFIG.replace(key, value).replace("script", "pack")
    (tmp_path / "config.yaml").write_text(harness_config)
    try:
        found = [str(doubt) for doubt in load(tmp_path / "config.yaml").doubts]
    except ConfigError as error:
        found = [str(problem) for problem in error.problems]
    assert any(said in one for one in found)


def test_check_names_the_pipeline_that_comes_before(tmp_path: Path) -> None:
    text = CONFIG.replace('match: "only.*"', 'match: "(lab|only).*"\n    files: folder\n    example: only1')
    (tmp_path / "config.yaml").write_text(
        text.replace("    files: folder\n", "", 1).replace('"lab.*"', '".*[.].*"').replace("script", "pack")
    )
    (doubt,) = load(tmp_path / "config.yaml").doubts
    assert 'a file "only1.zip" goes through archives' in str(doubt)
