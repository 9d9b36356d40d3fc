"""The ground is looked at: what is missing is said, and made again only where nothing is lost by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dittohead.admin import root_watch
from dittohead.admin.root_watch import RootWatch
from dittohead.engine.supervisor import CannotGoOn
from dittohead.model.errors import StoreError
from dittohead.startup import is_passing
from dittohead.system import lock, mounts
from tests.support.harness import Harness


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_watch, "_GRACE_S", 0.0)


@pytest.mark.parametrize("name", ["done", "failed", "receipts", "work", "inbox", "processing", "state"])
async def test_only_what_may_be_empty_is_made_again(harness: Harness, soon: None, name: str) -> None:
    """An empty processing/ would cancel jobs, an inbox has permissions that only an admin knows."""
    told = []
    with lock.held(harness.stations.state) as held:
        watched = RootWatch(harness.stations, held, harness.targets, lambda: told.append("back"))
        (harness.root / name).rename(harness.root / "away")
        await watched.check()
        again = name in ("done", "failed", "receipts", "work")
        assert (harness.root / name).is_dir() == again
        assert [error.what for error in watched.troubles] == ([] if again else [f"{name}/ is missing"])
        if not again:
            (harness.root / "away").rename(harness.root / name)
            await watched.check()
            assert watched.troubles == []
            assert told == ["back"]


async def test_what_is_just_being_replaced_is_given_time(harness: Harness) -> None:
    """`mv done x; mv x done` must not find a directory in its place."""
    with lock.held(harness.stations.state) as held:
        watched = RootWatch(harness.stations, held, harness.targets, lambda: None)
        (harness.root / "done").rename(harness.root / "away")
        await watched.check()
        assert not (harness.root / "done").exists()
        assert watched.troubles


async def test_a_file_in_a_stations_place_is_said_and_not_touched(harness: Harness, soon: None) -> None:
    """Anyone who put it there has to take it away."""
    with lock.held(harness.stations.state) as held:
        watched = RootWatch(harness.stations, held, harness.targets, lambda: None)
        (harness.root / "done").rmdir()
        (harness.root / "done").write_text("mine")
        await watched.check()
        assert (harness.root / "done").read_text() == "mine"
        assert [error.what for error in watched.troubles] == ["done/ is missing"]


async def test_another_directory_in_the_roots_place_ends_the_daemon_at_the_second_look(
    harness: Harness, tmp_path: Path
) -> None:
    """Once may be in the middle of a change; its lock is not ours, and nothing is made in it."""
    with lock.held(harness.stations.state) as held:
        watched = RootWatch(harness.stations, held, harness.targets, lambda: None)
        harness.root.rename(tmp_path / "old")
        await watched.check()
        assert [error.what for error in watched.troubles] == ["the root is not there"]
        harness.root.mkdir()
        await watched.check()
        with pytest.raises(CannotGoOn, match="in the root's place"):
            await watched.check()
        assert list(harness.root.iterdir()) == []


async def test_a_lock_taken_by_another_ends_the_daemon(harness: Harness) -> None:
    """Two on one root would take each other's half-done moves for something to be put right."""
    with lock.held(harness.stations.state) as held:
        watched = RootWatch(harness.stations, held, harness.targets, lambda: None)
        (harness.stations.state / "lock").unlink()
        with lock.held(harness.stations.state), pytest.raises(CannotGoOn, match="another dittohead"):
            await watched.check()


def test_a_file_system_that_fstab_names_and_that_is_not_mounted_is_waited_for(tmp_path: Path) -> None:
    """A root made beneath a mount point would be hidden by the mount, with all that was dropped into it."""
    fstab = tmp_path / "fstab"
    point = tmp_path / "with space"
    escaped = str(point).replace(" ", "\\040")
    fstab.write_text(
        "# a comment\n/dev/a / ext4 defaults 0 1\nnone none swap sw 0 0\n/dev/c /proc proc defaults 0 0\n"
        f"/dev/b {escaped} ext4 defaults 0 2\n/dev/d {tmp_path}/hand ext4 noauto 0 2\nshort\n"
    )
    assert mounts.awaited(point / "root", fstab) == str(point)
    assert mounts.awaited(point, fstab) == str(point)
    assert mounts.awaited(f"{point}-beside", fstab) is None
    assert mounts.awaited(tmp_path / "hand/root", fstab) is None
    assert mounts.awaited("/proc/x", fstab) is None
    assert mounts.awaited(point, tmp_path / "none") is None


def test_the_file_system_of_all_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a chroot the kernel lists no mount at "/", and a daemon there waited forever."""
    (tmp_path / "mountinfo").write_bytes(b"30 20 0:5 / /proc rw - proc proc rw\n")
    monkeypatch.setattr(mounts, "_MOUNTS", tmp_path / "mountinfo")
    (tmp_path / "fstab").write_text("/dev/a / ext4 defaults 0 1\n/dev/b /srv ext4 defaults 0 2\n")
    assert mounts.awaited("/var/root", tmp_path / "fstab") is None
    assert mounts.awaited("/srv/root", tmp_path / "fstab") == "/srv"


def test_what_a_database_says_for_good_is_not_waited_for() -> None:
    """A wrong password stays wrong; a server that starts up does not."""
    assert is_passing(StoreError("x", passing=True))
    assert not is_passing(StoreError("x"))
    assert is_passing(OSError(28, "No space left on device"))
    assert not is_passing(PermissionError(13, "Permission denied"))
