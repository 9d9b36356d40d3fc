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
from tests.support.harness import Harness

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


def waiting(harness: Harness) -> int:
    """Return how many jobs are laid aside until a target is resumed."""
    return sum(job.state is JobState.PAUSED for job in harness.jobs())


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
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "root", CONFIG)
    yield made
    made.store.close()


async def test_a_step_that_needs_little_wakes_none_that_need_more(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each folder is tried once, and then waits for the disk of work/; with space again all are done."""
    apart = Apart(harness.root, monkeypatch)
    harness.worker.plays["large"] = apart.large
    monitor, disk = Monitor(harness.engine, lambda: harness.config.settings), disk_of(apart.work)
    names = [f"f{number}" for number in range(5)]
    async with harness.running():
        for count, name in enumerate(names, 1):
            harness.arrive(name)
            harness.offer()
            await harness.until(lambda n=count: waiting(harness) == n)
        assert [name for name, step in harness.worker.ran if step == "large"] == names
        reason = harness.targets.paused(disk) or ""
        assert f"the {disk} gave an error (No space left on device)" in reason
        assert [event for event, _ in harness.told] == ["full", "paused"]
        await monitor.root_round()
        apart.free = 64 * MIB
        await monitor.root_round()
        await harness.until(harness.quiet)
    assert [event for event, _ in harness.told if event in ("full", "paused", "resumed")] == [
        "full",
        "paused",
        "resumed",
    ]
    assert sorted(os.listdir(harness.root / "done")) == names


async def test_waits_grow_where_a_small_job_lets_a_large_one_try_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is still full is not as good as new because something small fitted."""
    targets, disk = harness.targets, disk_of(harness.root / "work")
    for tries in range(1, 5):
        await targets.pause(disk, "full", full=True, is_own=True)
        (row,) = targets.rows()
        assert row.failures == tries
        await targets.resume(disk, is_own=True)
    await targets.has_space(disk)
    await targets.pause(disk, "full", full=True, is_own=True)
    assert targets.rows()[0].failures == 1


async def test_each_job_that_waits_has_its_turn_to_try(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest may need more than there will ever be."""
    apart = Apart(harness.root, monkeypatch)
    harness.worker.plays["large"] = apart.large
    disk = disk_of(apart.work)
    async with harness.running():
        for name in "abc":
            harness.arrive(name)
        harness.offer()
        await harness.until(lambda: waiting(harness) == 3)
    tried = []
    for _ in range(4):
        assert harness.targets.try_now(disk)
        tried += await harness.targets.probes()
        harness.targets.probe_over(tried[-1])
    assert len(set(tried[:3])) == 3
    assert tried[3] == tried[0]


@pytest.mark.parametrize("floor", [1 << 30, 1 << 40])
async def test_no_folder_is_taken_while_the_disk_of_work_is_below_its_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, floor: int
) -> None:
    """The root's own disk has space: it is the other one that the reason names."""
    monkeypatch.setattr(disk_space, "capacity", lambda path: 1 << 34)
    monkeypatch.setattr(disk_space, "free", lambda path: 1 << 50)
    harness = Harness(tmp_path / "root", CONFIG.replace("floor: 0", f"floor: {floor}"))
    apart = Apart(harness.root, monkeypatch)
    apart.free = (1 << 30) - 1
    async with harness.running():
        harness.arrive("x")
        harness.offer()
        await harness.until(lambda: bool(harness.dispatch.held))
        (held,) = harness.dispatch.held.values()
        assert held.reason.endswith(f"more free disk space under {apart.work}")
        assert harness.jobs() == []
        apart.free = 2 << 30
        await harness.until(harness.quiet)
    harness.store.close()


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
        harness = Harness(tmp_path / "root", CONFIG)

        async def large(ctx: StepContext) -> StepResult:
            ctx.work.joinpath("x").write_bytes(bytes(1 << 20))
            return Done()

        harness.worker.plays["large"] = large
        disk = disk_of(harness.root / "work")
        async with harness.running():
            for count in range(1, 4):
                harness.arrive(f"f{count}")
                harness.offer()
                await harness.until(lambda n=count: waiting(harness) == n)
            tries = [step for _, step in harness.worker.ran]
            assert tries.count("large") <= 3
            resize = ["mount", "-o", "remount,size=16m", str(harness.root / "work")]
            subprocess.run(resize, check=True)
            assert harness.targets.try_now(disk)
            harness.dispatch.wake()
            await harness.until(harness.quiet)
        assert len(os.listdir(harness.root / "done")) == 3
        harness.store.close()


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
