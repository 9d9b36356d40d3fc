"""The quick part of what `python -m tests.crash` does at length, and power cuts at every fault point."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.faults import POINTS
from tests.crash.batch import Batch
from tests.crash.driver import endure
from tests.crash.power import KINDS, Disk, disk
from tests.support.length import LONG
from tests.support.receivers import Mailbox, mailbox
from tests.support.s3_server import S3Server
from tests.support.sshd import Sshd, sshd
from tests.support.strace import failing

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]


def _kinds(point: str = "upload") -> tuple[str, ...]:
    """Return kinds of folders of which one comes to a point; large ones only where they are needed."""
    return ("far", "near", "bad", "cloud") if point.startswith("upload") else ("far", "near", "bad")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("server") / "ssh") as made:
        yield made


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


@pytest.fixture
def store() -> Iterator[S3Server]:
    with S3Server() as made:
        yield made


@pytest.fixture
def batch(tmp_path: Path, server: Sshd, box: Mailbox, store: S3Server) -> Iterator[Batch]:
    made = Batch.make(tmp_path / "root", tmp_path / "out", server, box, store, seed=5)
    yield made
    if made.site.process is not None:
        made.kill(group=True)


def test_killed_at_random_nothing_is_lost_doubled_or_repeated(batch: Batch) -> None:
    """The daemon, its children, or both; at fault points and at any moment."""
    said = endure(batch, kills=15, folders=6)
    assert said.endswith("no violation")


def test_every_fault_point_is_reached_and_a_death_there_harms_nothing(batch: Batch) -> None:
    """Once each, in the order in which a job meets them."""
    (batch.site.root / "inbox").mkdir()
    for point in POINTS:
        for kind in _kinds(point):
            batch.drop(kind)
        batch.start(f"{point}:1:kill")
        assert batch.live(60), f"{point} is never reached"
        batch.check_now()
    batch.to_the_end()
    reached = (batch.base / "reached").read_text().split()
    assert set(reached) == set(POINTS)


#: Calls that change what lies on disk, or make it durable.
_CALLS = ("renameat2", "rename", "fsync", "fdatasync", "pwrite64", "mkdir", "unlink", "ftruncate")


def test_killed_between_any_two_system_calls_nothing_is_lost(batch: Batch) -> None:
    """Wherever no fault point stands: at the Nth call of a kind, inside SQLite and the kernel's doors."""
    (batch.site.root / "inbox").mkdir()
    died = 0
    rounds = 200 if LONG else 8
    for _ in range(rounds):
        for kind in _kinds():
            batch.drop(kind)
        armed = len(batch.site.events("watch.armed"))
        batch.start()
        process = batch.site.process
        assert process is not None
        batch.site.until(lambda armed=armed: len(batch.site.events("watch.armed")) > armed)
        fault = f"{batch.chance.choice(_CALLS)}:signal=SIGKILL:when={batch.chance.randint(1, 30)}"
        with failing(process.pid, batch.base / "calls", fault):
            died += batch.live(3)  # a call that seldom comes need not come so often
        batch.kill(group=False)
        batch.check_now()
    assert died  # how many, depends on how busy the machine is
    batch.to_the_end()


@pytest.fixture(params=sorted(KINDS))
def cut(
    request: pytest.FixtureRequest, tmp_path: Path, server: Sshd, box: Mailbox, store: S3Server
) -> Iterator[tuple[Batch, Disk]]:
    with disk(tmp_path, request.param) as drive:
        made = Batch.make(drive.mount / "root", tmp_path / "out", server, box, store, seed=6)
        made.site.env["MORTAL_DISK"] = str(drive.mount)
        try:
            yield made, drive
        finally:
            if made.site.process is not None:
                made.kill(group=True)


def test_a_power_cut_at_any_fault_point_loses_nothing(cut: tuple[Batch, Disk]) -> None:
    """A real file system forgets all that was not made durable; its journal is recovered; work goes on."""
    batch, drive = cut
    (batch.site.root / "inbox").mkdir()
    numbers = (1, 2, 3, 5, 8) if LONG else (1,)
    # In a quick run each kind of disk gets every second point.
    points = POINTS if LONG else POINTS[sorted(KINDS).index(drive.kind) :: len(KINDS)]
    places = [(point, number) for point in points for number in numbers]
    random.Random(7).shuffle(places)
    for point, number in places:
        for kind in _kinds(point):
            batch.drop(kind)
        batch.start(f"{point}:{number}:power")
        assert batch.live(60), f"{point} is not reached {number} times"
        drive.again()
        batch.check_now()
    batch.to_the_end()
