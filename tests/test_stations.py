"""Stations: every move is durable and replaces nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dittohead import files
from dittohead.errors import NameTaken, StationError
from dittohead.model import Arrival, Station, utcnow
from dittohead.stations import NAME_MAX, Stations, fit
from tests.support.trees import read_tree, tree


@pytest.fixture
def stations(tmp_path: Path) -> Stations:
    made = Stations(tmp_path)
    made.prepare()
    return made


def arrive(stations: Stations, name: str) -> Arrival:
    tree(stations.path(Station.INBOX) / name, {"a": name})
    return next(a for a in stations.scan().arrivals if a.folder == os.fsencode(name))


def test_a_claim_never_replaces_an_empty_directory(stations: Stations) -> None:
    """rename(2) alone would do so silently."""
    arrival = arrive(stations, "x")
    (stations.path(Station.PROCESSING) / "x").mkdir()
    with pytest.raises(NameTaken):
        stations.claim(arrival)
    assert read_tree(stations.path(Station.INBOX) / "x") == {b"a": b"x"}


def test_without_renameat2_nothing_is_replaced_either(
    stations: Stations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS the name is taken by mkdir first."""
    import errno

    def refuse(*_: object) -> int:
        import ctypes

        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(files._libc, "renameat2", refuse)
    arrival = arrive(stations, "x")
    (stations.path(Station.PROCESSING) / "x").mkdir()
    with pytest.raises(NameTaken):
        stations.claim(arrival)
    (stations.path(Station.PROCESSING) / "x").rmdir()
    assert stations.claim(arrival)
    assert read_tree(stations.path(Station.PROCESSING) / "x") == {b"a": b"x"}


def test_a_taken_name_gets_a_suffix_and_then_a_number(stations: Stations) -> None:
    """Three folders of one name at one moment."""
    now = utcnow()
    names = []
    for _ in range(3):
        stations.claim(arrive(stations, "x"))
        names.append(stations.settle(b"x", Station.DONE, now=now).decode())
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    assert names == ["x", f"x.{moment}", f"x.{moment}.2"]


def test_a_name_of_255_bytes_can_be_suffixed_and_given_a_reason(stations: Stations) -> None:
    """Cut at a character, never in the middle of one."""
    name = "ü" * 127
    for _ in range(2):
        stations.claim(arrive(stations, name))
        settled = stations.settle(os.fsencode(name), Station.FAILED)
        stations.write_reason(settled, "why")
    assert len(list(stations.path(Station.FAILED).glob("*.reason.txt"))) == 2
    fitted = fit("ü".encode() * 127, b".reason.txt")
    assert len(fitted) <= NAME_MAX
    fitted.decode()


def test_a_vanished_arrival_is_no_error(stations: Stations) -> None:
    """Its uploader took it back between scan and claim."""
    arrival = arrive(stations, "x")
    (stations.path(Station.INBOX) / "x").rename(stations.path(Station.INBOX) / ".x")
    assert stations.claim(arrival) is False


def test_an_arrival_swapped_for_a_link_is_put_back(stations: Stations, tmp_path: Path) -> None:
    """Only directories are claimed."""
    arrival = arrive(stations, "x")
    inbox = stations.path(Station.INBOX)
    (inbox / "x").rename(tmp_path / "elsewhere")
    (inbox / "x").symlink_to(tmp_path / "elsewhere")
    assert stations.claim(arrival) is False
    assert os.listdir(stations.path(Station.PROCESSING)) == []
    assert (inbox / "x").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="ANOTHER USER'S FOLDER NEEDS ROOT: test left out")
def test_a_folder_that_may_not_be_moved_is_named_with_owner_and_mode(stations: Stations) -> None:
    """The sticky drop box: an upload of umask 022 by another user."""
    os.chmod(stations.root, 0o755)
    for path in stations.root.iterdir():
        os.chown(path, 65534, 65534)
    os.chmod(stations.path(Station.INBOX), 0o3777)
    arrival = arrive(stations, "x")
    parents = [p for p in stations.root.parents if not p.stat().st_mode & 1]
    for parent in parents:
        parent.chmod(parent.stat().st_mode | 0o11)
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            stations.claim(arrival)
        except StationError as error:
            good = "mode 2755, owner root" in str(
                error
            ) and f"sudo chmod -R g+rwX {stations.root}/inbox/x" in str(error)

            os._exit(0 if good else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_stations_on_different_mounts_are_refused_at_start(tmp_path: Path) -> None:
    """A rename between two mounts fails, even of one file system."""
    if os.geteuid() != 0:
        pytest.skip("MOUNTING NEEDS ROOT: test left out")
    import subprocess

    stations = Stations(tmp_path)
    stations.prepare()
    subprocess.run(["mount", "--bind", tmp_path / "done", tmp_path / "done"], check=True)
    try:
        with pytest.raises(StationError, match="one file system and one mount"):
            stations.prepare()
    finally:
        subprocess.run(["umount", tmp_path / "done"], check=True)
