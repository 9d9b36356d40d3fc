"""What `doctor` says of an inbox: which set-up for uploaders it has, what is wrong, what lies there and is held."""

from __future__ import annotations

import grp
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dittohead.admin import uploader_setup
from dittohead.admin.uploader_setup import InboxSetup
from dittohead.folders.stations import Stations
from dittohead.model.states import Station

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT, FOR TWO UIDS: left out")
DAEMON, UPLOADER = 60000, 60001


@pytest.fixture
def stations() -> Iterator[Stations]:
    """A root that other users may enter; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        made = Stations(Path(name))
        made.prepare()
        for path in (Path(name), *Path(name).iterdir()):
            os.chown(path, DAEMON, DAEMON)
        Path(name).chmod(0o755)
        made.path(Station.INBOX).chmod(0o3773)
        yield made


@contextmanager
def daemon(*groups: int) -> Iterator[None]:
    """Be the daemon's user for a while."""
    before = os.getgroups()
    os.setgroups(list(groups))
    os.setegid(DAEMON)
    os.seteuid(DAEMON)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


def seen(stations: Stations) -> list[InboxSetup]:
    with daemon():
        return list(uploader_setup.examine(stations))


def command(found: list[InboxSetup]) -> str:
    """Return what the one warning says to type."""
    (bad,) = (one for one in found if not one.good)
    said = re.search(r"Type: (.*)$", bad.message)
    assert said is not None, bad.message
    return said[1]


def typed(text: str) -> None:
    """Type a command as it was printed; sudo is not needed by root."""
    subprocess.run(["sh", "-ec", text.replace("sudo ", "")], check=True, capture_output=True)


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o755, 0o750])
def test_a_folder_that_is_held_is_named_and_the_cure_works_as_printed(stations: Stations, mode: int) -> None:
    """As `rsync -a` and sftp's `put -r` leave it; one that may be moved is not named."""
    inbox = stations.path(Station.INBOX)
    for name, its in (("it's held", mode), ("fine", 0o2775), (".being-uploaded", mode)):
        (inbox / name).mkdir()
        os.chown(inbox / name, UPLOADER, UPLOADER if its == mode else DAEMON)
        (inbox / name).chmod(its)
    found = seen(stations)
    assert [one.good for one in found] == [True, False]
    assert f"it's held is held: the daemon may not move this folder: mode {mode:04o}" in found[1].message
    typed(command(found))
    assert [one.good for one in seen(stations)] == [True]


@needs_root
def test_of_many_that_are_held_five_are_named(stations: Stations) -> None:
    """And the others counted."""
    for number in range(7):
        folder = stations.path(Station.INBOX) / f"lab-{number}"
        folder.mkdir()
        os.chown(folder, UPLOADER, UPLOADER)
    found = [one.message for one in seen(stations) if not one.good]
    assert len(found) == 6
    assert found[-1] == "2 folders more held like that: dittohead status"


@needs_root
@pytest.mark.parametrize("mode", [0o1773, 0o1770, 0o770])
def test_an_inbox_that_gives_folders_another_group_is_told_with_the_cure(
    stations: Stations, mode: int
) -> None:
    """Without setgid, or of a group that the daemon is not in."""
    inbox = stations.path(Station.INBOX)
    inbox.chmod(mode)
    typed(command(seen(stations)))
    assert inbox.stat().st_mode & 0o7777 == mode | 0o2000
    os.chown(inbox, DAEMON, 100)
    inbox.chmod(0o3773)
    typed(command(seen(stations)))
    assert inbox.stat().st_gid == DAEMON
    assert inbox.stat().st_mode & 0o7777 == 0o3773
    assert [one.good for one in seen(stations)] == [True]


@needs_root
def test_a_group_that_nobody_is_in_lets_nobody_upload(
    stations: Stations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where others may not either; else it is a hint."""
    inbox = stations.path(Station.INBOX)
    (said,) = seen(stations)
    assert said.good
    assert "nobody is: sudo usermod -aG" in said.message
    inbox.chmod(0o3770)
    (said,) = seen(stations)
    assert not said.good
    assert said.message.endswith(f"For each uploader type: sudo usermod -aG {DAEMON} NAME")
    group = grp.struct_group(("ingest", "x", DAEMON, ["alice"]))
    monkeypatch.setattr("dittohead.admin.uploader_setup.grp.getgrgid", lambda gid: group)
    (said,) = seen(stations)
    assert said.good
    assert "writable for the group ingest; " in said.message
    assert "usermod" not in said.message


@needs_root
@pytest.mark.skipif(shutil.which("setfacl") is None, reason="SETFACL IS NOT INSTALLED: left out")
@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (f"u:{DAEMON}:rwx", "everybody on this machine may change"),  # others have what 3773 gives them
        (f"u:{DAEMON}:r-x,o::-", "does not let the daemon"),
        (f"u:{DAEMON}:rwx,m::r-x,o::-", "does not let the daemon"),
        ("u::rwx,g::r-x,o::-", "does not let the daemon"),
        ("u:60009:rwx,g::r-x,o::-", "does not let the daemon"),
        ("g:60009:rwx,g::r-x,o::r-x", "does not let the daemon"),
    ],
)
def test_a_default_list_that_will_not_do_is_told_with_the_cure(
    stations: Stations, entries: str, words: str
) -> None:
    """Each folder made there afterwards may be moved, and is closed to others."""
    inbox = stations.path(Station.INBOX)
    subprocess.run(["setfacl", "-d", "-m", entries, inbox], check=True)
    found = seen(stations)
    assert words in found[0].message
    typed(command(found))
    assert [one.good for one in seen(stations)] == [True]
    subprocess.run(["mkdir", inbox / "x"], check=True, user=UPLOADER, group=UPLOADER, umask=0o022)
    with daemon():
        assert stations.immovable(b"x") is None
    assert not (inbox / "x").stat().st_mode & 0o002


@needs_root
@pytest.mark.skipif(shutil.which("setfacl") is None, reason="SETFACL IS NOT INSTALLED: left out")
@pytest.mark.parametrize("entries", [f"u:{DAEMON}:rwx,o::-", f"g:{DAEMON}:rwx,o::-", "g::rwx,o::-"])
def test_a_default_list_that_will_do_is_good(stations: Stations, entries: str) -> None:
    """By the daemon's user, its group, or the inbox's own group."""
    subprocess.run(["setfacl", "-d", "-m", entries, stations.path(Station.INBOX)], check=True)
    assert [one.good for one in seen(stations)] == [True]


@needs_root
def test_root_is_told_whom_to_ask(stations: Stations) -> None:
    """It may move all, and says nothing of what the daemon may."""
    (said,) = uploader_setup.examine(stations)
    assert said.message.endswith(f"sudo -u {DAEMON} dittohead doctor")
    os.chown(stations.path(Station.INBOX), 0, 0)
    (said,) = uploader_setup.examine(stations)
    assert "it is root" in said.message


@needs_root
def test_a_private_inbox_is_the_same_user(stations: Stations) -> None:
    """Nobody else may create anything in it."""
    stations.path(Station.INBOX).chmod(0o700)
    assert seen(stations) == [InboxSetup(good=True, message="uploads come from exactly this user (same uid)")]
