"""work/ on a file system of its own that is full: the wait backs off, and says what it waits for."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.admin.monitor import Monitor
from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.engine import disks
from dittohead.engine.disks import Disks, disk_of
from dittohead.folders.stations import Stations
from dittohead.model.states import JobState
from dittohead.system import disk_space
from tests.support.house import House

CONFIG = """
root: .
limits: {jobs: 4, script: 4}
space: {floor: 0}
pipelines:
  two:
    match: ".*"
    steps:
      - script: {name: small}
      - script: {name: large}
"""

MIB = 1 << 20


def waiting(house: House) -> int:
    """Return how many jobs are laid aside until a target is resumed."""
    return sum(job.state is JobState.PAUSED for job in house.jobs())


class Apart:
    """A root whose work/ lies on a file system of its own, by what the system says of it."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.work, self.free = root / "work", 0
        device, free = disks._device, disk_space.free
        patch.setattr(disks, "_device", lambda place: -1 if place == self.work else device(place))
        patch.setattr(disk_space, "free", lambda path: self.free if path == self.work else free(path))

    async def large(self, ctx: StepContext) -> StepResult:
        """Write more than there is, as a program would: its error names no file."""
        if self.free < MIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return Done()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "root", CONFIG)
    yield made
    made.store.close()


async def test_a_step_that_needs_little_wakes_none_that_need_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder is tried once, and then waits for the disk of work/; with space again all are done."""
    apart = Apart(house.root, monkeypatch)
    house.worker.plays["large"] = apart.large
    monitor, disk = Monitor(house.engine, lambda: house.config.settings), disk_of(apart.work)
    names = [f"f{number}" for number in range(5)]
    async with house.running():
        for count, name in enumerate(names, 1):
            house.arrive(name)
            house.look()
            await house.until(lambda n=count: waiting(house) == n)
        assert [name for name, step in house.worker.ran if step == "large"] == names
        reason = house.targets.paused(disk) or ""
        assert f"the {disk} gave an error (No space left on device)" in reason
        assert [event for event, _ in house.told] == ["full", "paused"]
        await monitor.root_round()
        apart.free = 64 * MIB
        await monitor.root_round()
        await house.until(house.quiet)
    assert [event for event, _ in house.told if event in ("full", "paused", "resumed")] == [
        "full",
        "paused",
        "resumed",
    ]
    assert sorted(os.listdir(house.root / "done")) == names


async def test_waits_grow_where_a_small_job_lets_a_large_one_try_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is still full is not as good as new because something small fitted."""
    targets, disk = house.targets, disk_of(house.root / "work")
    for tries in range(1, 5):
        await targets.pause(disk, "full", full=True, is_own=True)
        (row,) = targets.rows()
        assert row.failures == tries
        await targets.resume(disk, is_own=True)
    await targets.has_room(disk)
    await targets.pause(disk, "full", full=True, is_own=True)
    assert targets.rows()[0].failures == 1


async def test_each_job_that_waits_has_its_turn_to_try(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest may need more than there will ever be."""
    apart = Apart(house.root, monkeypatch)
    house.worker.plays["large"] = apart.large
    disk = disk_of(apart.work)
    async with house.running():
        for name in "abc":
            house.arrive(name)
        house.look()
        await house.until(lambda: waiting(house) == 3)
    tried = []
    for _ in range(4):
        assert house.targets.try_now(disk)
        tried += await house.targets.probes()
        house.targets.probe_over(tried[-1])
    assert len(set(tried[:3])) == 3
    assert tried[3] == tried[0]


@pytest.mark.parametrize("floor", [1 << 30, 1 << 40])
async def test_no_folder_is_taken_while_the_disk_of_work_is_below_its_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, floor: int
) -> None:
    """The root's own disk has space: it is the other one that the reason names."""
    monkeypatch.setattr(disk_space, "capacity", lambda path: 1 << 34)
    monkeypatch.setattr(disk_space, "free", lambda path: 1 << 50)
    house = House(tmp_path / "root", CONFIG.replace("floor: 0", f"floor: {floor}"))
    apart = Apart(house.root, monkeypatch)
    apart.free = (1 << 30) - 1
    async with house.running():
        house.arrive("x")
        house.look()
        await house.until(lambda: bool(house.dispatch.held))
        (held,) = house.dispatch.held.values()
        assert held.reason.endswith(f"more free disk space under {apart.work}")
        assert house.jobs() == []
        apart.free = 2 << 30
        await house.until(house.quiet)
    house.store.close()


@contextlib.contextmanager
def tmpfs(point: Path) -> Iterator[None]:
    """A file system of 128 KiB."""
    point.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k,mode=700", "tmpfs", str(point)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("NEEDS ROOT to mount a small disk: left out")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(point)], check=True)


async def test_a_real_file_system_that_is_full(tmp_path: Path) -> None:
    """Of 128 KiB; nothing is tried twice until there is space."""
    with tmpfs(tmp_path / "root/work"):
        house = House(tmp_path / "root", CONFIG)

        async def large(ctx: StepContext) -> StepResult:
            ctx.work.joinpath("x").write_bytes(bytes(1 << 20))
            return Done()

        house.worker.plays["large"] = large
        disk = disk_of(house.root / "work")
        async with house.running():
            for count in range(1, 4):
                house.arrive(f"f{count}")
                house.look()
                await house.until(lambda n=count: waiting(house) == n)
            tries = [step for _, step in house.worker.ran]
            assert tries.count("large") <= 3
            resize = ["mount", "-o", "remount,size=16m", str(house.root / "work")]
            subprocess.run(resize, check=True)
            assert house.targets.try_now(disk)
            house.dispatch.wake()
            await house.until(house.quiet)
        assert len(os.listdir(house.root / "done")) == 3
        house.store.close()


def test_an_error_is_of_the_file_system_that_its_file_lies_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that names no file: of the one with the least space, or of that which steps write to."""
    stations = Stations(tmp_path)
    stations.prepare()
    found = Disks(stations, lambda: 0)
    assert found.of_error(OSError(errno.EIO, "", str(stations.work / "x"))) == disk_of(tmp_path)
    apart = Apart(tmp_path, monkeypatch)
    assert [disk.place for disk in found.all()] == [tmp_path, apart.work]
    assert found.of_error(OSError(errno.EIO, "", os.fsencode(apart.work / "x"))) == disk_of(apart.work)
    assert found.of_error(OSError(errno.ENOSPC, "", str(tmp_path / "receipts/x"))) == disk_of(tmp_path)
    assert found.of_error(OSError(errno.ENOSPC, "")) == disk_of(apart.work)
    apart.free = 1 << 60
    assert found.of_error(OSError(errno.ENOSPC, "")) == disk_of(tmp_path)
    assert found.of_error(OSError(errno.EIO, "")) == disk_of(apart.work)
    assert {disk.name for disk in found.all()} <= found.names
