"""Names in the inbox that are ignored are neither taken nor reported; a list of the site's extends them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dittohead.contract.source import folder_fault
from dittohead.engine.reconcile import reconcile
from dittohead.folders.stations import Stations
from dittohead.model.errors import ItemError
from dittohead.model.states import ACTIVE, Station
from dittohead.web.pages.front import arrivals
from dittohead.web.uploads.receive import fitting
from tests.support.harness import CONFIG, Harness

THEIRS = [
    "@eaDir", "#recycle", "#snapshot", ".stfolder", ".stversions", ".Trashes", ".Trash-1000", ".snapshot",
    ".snapshots", ".zfs", "lost+found", ".fseventsd", ".Spotlight-V100", ".TemporaryItems",
    "System Volume Information", "$RECYCLE.BIN", "$Recycle.Bin", "Thumbs.db", "desktop.ini", "aquota.user",
    ".nfs000000000012d68700000001",
]  # fmt: skip


def fill(inbox: Path) -> None:
    """Put all there as folders, which is the worse: folders are taken."""
    for name in THEIRS:
        (inbox / name).mkdir()


def test_none_of_them_is_an_arrival_an_upload_or_a_stray(tmp_path: Path) -> None:
    """They are counted, and nothing else; names that are only like them are somebody's."""
    stations = Stations(tmp_path)
    stations.prepare()
    inbox = stations.path(Station.INBOX)
    fill(inbox)
    (inbox / "._a.tif").write_bytes(b"1")  # macOS: a dotted file, which is never looked at
    ours = ["a@eaDir", "recycle", "snapshot", "Trashes", "._scans", ".nfsdata", "lost+found-2"]
    for name in ours:
        (inbox / name).mkdir()
    scan = stations.scan()
    found = [*(arrival.folder for arrival in scan.arrivals), *scan.uploads, *scan.strays, *scan.held]
    assert sorted(found) == sorted(map(os.fsencode, ours))
    assert scan.ignored == len(THEIRS)
    assert arrivals(stations) == sorted(name for name in ours if name[0] != ".")


@pytest.mark.parametrize(
    ("given", "theirs", "taken"),
    [
        (["default", "scratch-*"], ["@eaDir", "scratch-1"], ["x"]),
        (["scratch-*"], ["scratch-1"], ["@eaDir", "x"]),
        ([], [], ["@eaDir", "scratch-1", "x"]),
    ],
)
def test_the_list_is_extended_or_replaced(
    tmp_path: Path, given: list[str], theirs: list[str], taken: list[str]
) -> None:
    stations = Stations(tmp_path, given)
    stations.prepare()
    for name in ("@eaDir", "scratch-1", "x"):
        (stations.path(Station.INBOX) / name).mkdir()
    scan = stations.scan()
    assert sorted(arrival.folder.decode() for arrival in scan.arrivals) == taken
    assert scan.ignored == len(theirs)
    stations.ignore = ["x"]  # a reload: also what was an arrival
    assert stations.scan().ignored == 1
    assert b"x" not in {arrival.folder for arrival in stations.scan().arrivals}


async def test_a_file_servers_own_in_processing_is_not_taken_for_a_claim(tmp_path: Path) -> None:
    """Synology puts one into every directory. A job's folder of such a name is still that job's."""
    harness = Harness(tmp_path)
    (harness.stations.path(Station.PROCESSING) / "@eaDir").mkdir()
    assert await reconcile(harness.engine, harness.claimer, ()) == 0
    assert harness.jobs() == []
    harness.arrive("scratch-1")
    (arrival,) = harness.stations.scan().arrivals
    job = await harness.claimer.claim(arrival)
    harness.stations.ignore = ["default", "scratch-*"]
    assert await reconcile(harness.engine, harness.claimer, ()) == 0
    assert [one.id for one in harness.jobs()] == [getattr(job, "id", None)]
    assert harness.job("scratch-1").state in ACTIVE
    harness.store.close()


def test_no_door_lets_a_folder_in_that_would_never_be_taken(tmp_path: Path) -> None:
    """Sources and the page; `dittohead drop` asks the same."""
    harness = Harness(tmp_path, CONFIG + "watch: {settle: 0, ignore: [default, 'scratch-*']}\n")
    assert "is never taken" in folder_fault("@eaDir")
    assert folder_fault("scratch-1") == ""
    assert "is never taken" in folder_fault("scratch-1", harness.config.settings.watch.ignore)
    with pytest.raises(ItemError, match="is never taken"):
        fitting(harness.config, "scratch-1", ())
    assert fitting(harness.config, "lab1", ()).name == "three"
    harness.store.close()
