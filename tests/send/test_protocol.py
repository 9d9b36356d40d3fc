"""Folders sent to a real sshd: complete or dotted, never anything else."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from dittohead_send import local, manifest

from tests.support.sending import MANIFEST, Sender
from tests.support.trees import fifo, read_tree, symlink, tree

pytestmark = pytest.mark.service

MEASURED = {"raw": {"plate.csv": b"1,2\n" * 99, "none": {}}, "run.log": b"ok\n", "empty.txt": b""}


def whole(sender: Sender, name: str = "lab1") -> dict[bytes, bytes]:
    """Return what arrived, after sha256sum has compared it with the manifest that came along."""
    place = sender.inbox / name
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", MANIFEST], cwd=place, check=True)
    found = read_tree(place)
    found.pop(MANIFEST.encode())
    return found


def test_a_folder_arrives_whole_under_its_name(sender: Sender) -> None:
    """With its empty folders, times, and names of any bytes; the manifest is one that sha256sum reads."""
    odd = {
        b"\xff\xfe.tif": b"a",
        "line\nbreak\\back": b"b",
        "-rf": b"c",
        "ä" * 60: b"d",
        "big": os.urandom(3 << 20),
    }
    folder = tree(sender.here / "lab1", {**MEASURED, **odd})
    os.utime(folder / "run.log", (1_000_000_000, 1_000_000_000))
    os.utime(folder / "raw", (1_100_000_000, 1_100_000_000))
    assert sender.send("lab1") == 0, sender.err
    assert sender.names() == ["lab1"]
    assert whole(sender) == read_tree(folder)
    assert (sender.inbox / "lab1/raw/none").is_dir()
    assert (sender.inbox / "lab1/run.log").stat().st_mtime == 1_000_000_000
    assert (sender.inbox / "lab1/raw").stat().st_mtime == 1_100_000_000
    head = (sender.inbox / "lab1" / MANIFEST).read_text(errors="replace").splitlines()[:3]
    assert head[0].startswith("# dittohead-send ")
    assert head[1].startswith("# sender: ")
    assert head[2].startswith("# time: ")


def test_the_group_of_the_inbox_can_read_and_move_all_of_it(sender: Sender) -> None:
    """Whatever the modes here; the setgid bit that folders have from the inbox stays."""
    folder = tree(sender.here / "lab1", MEASURED)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    sender.inbox.chmod(0o3773)
    assert sender.send("lab1") == 0, sender.err
    for path in (sender.inbox / "lab1", *(sender.inbox / "lab1").rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & (0o2070 if path.is_dir() else 0o040) == (0o2070 if path.is_dir() else 0o040), path


def test_files_of_file_managers_are_left_out_and_said(sender: Sender) -> None:
    tree(sender.here / "lab1", {**MEASURED, ".DS_Store": b"x", "sub": {"Thumbs.db": b"x"}})
    (said,) = sender.results("lab1")
    assert sorted(said["left_out"]) == [".DS_Store", "sub/Thumbs.db"]
    assert "left out: .DS_Store, sub/Thumbs.db" in sender.err
    assert {b".DS_Store", b"sub/Thumbs.db"}.isdisjoint(whole(sender))


def test_links_and_special_files_are_refused_by_name(sender: Sender) -> None:
    """Before anything is sent; all of them are named."""
    tree(sender.here / "lab1", {**MEASURED, "l": symlink("run.log"), "pipe": fifo()})
    assert sender.send("lab1") == 65
    assert "2 names cannot be sent: l (a link), pipe (a FIFO)" in sender.err
    assert "--follow-links" in sender.err
    assert sender.names() == []


def test_links_are_followed_if_that_is_asked_for(sender: Sender, tmp_path: Path) -> None:
    """A link that leads to a folder above it would never end."""
    tree(tmp_path / "elsewhere", {"x.tif": b"x"})
    folder = tree(
        sender.here / "lab1", {"a": b"a", "l": symlink("a"), "d": symlink(str(tmp_path / "elsewhere"))}
    )
    assert sender.send("lab1", options=("--follow-links",)) == 0, sender.err
    assert whole(sender) == {b"a": b"a", b"l": b"a", b"d/x.tif": b"x"}
    (folder / "round").symlink_to("..")
    (sender.here / "lab2").mkdir()
    (sender.here / "lab2" / "round").symlink_to("..")
    assert sender.send("lab2", options=("--follow-links",)) == 65
    assert "a link to a folder that it is in" in sender.err


def test_a_folder_that_holds_a_manifest_of_ours_is_refused(sender: Sender) -> None:
    tree(sender.here / "lab1", {**MEASURED, MANIFEST: b"# something\n"})
    assert sender.send("lab1") == 65
    assert "a manifest of this program" in sender.err


@pytest.mark.parametrize("name", [".lab", "desktop.ini", "a" * 255])
def test_a_name_that_the_daemon_never_takes_is_refused_before_anything_is_sent(
    sender: Sender, name: str
) -> None:
    tree(sender.here / name, MEASURED)
    assert sender.send(name) == 64
    assert "--name" in sender.err
    assert sender.send(name, options=("--name", "lab1")) == 0, sender.err
    assert whole(sender) == read_tree(sender.here / name)


def test_names_that_the_daemon_waits_for_are_said(sender: Sender) -> None:
    """They are sent: the daemon may be configured otherwise."""
    tree(sender.here / "lab1", {"a.part": b"a", "sub": {"~$b.docx": b"b"}})
    assert sender.send("lab1") == 0
    assert "the daemon may wait for these, as for unfinished uploads: a.part, sub/~$b.docx" in sender.err


@pytest.mark.parametrize("there", [{}, {"x": b"x"}])
def test_a_name_that_is_taken_is_never_merged_with(sender: Sender, there: dict[str, bytes]) -> None:
    """Nor is an empty directory replaced, which a rename of POSIX does without a word."""
    tree(sender.here / "lab1", MEASURED)
    tree(sender.inbox / "lab1", there)
    assert sender.send("lab1") == 73
    assert "a folder of this name is in the inbox" in sender.err
    assert sender.names() == ["lab1"]
    assert read_tree(sender.inbox / "lab1") == {name.encode(): data for name, data in there.items()}


def test_a_name_that_is_taken_meanwhile_is_not_replaced(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder stays dotted and whole, and the same command gives it its name when that is free."""
    tree(sender.here / "lab1", MEASURED)
    look = manifest.text

    def taken(*given: object) -> bytes:
        if (sender.inbox / ".lab1" / "run.log").exists():
            (sender.inbox / "lab1").mkdir(exist_ok=True)
        return look(*given)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(manifest, "text", taken)
    assert sender.send("lab1") == 73
    assert sender.names() == [".lab1", "lab1"]
    assert list((sender.inbox / "lab1").iterdir()) == []
    monkeypatch.undo()
    (sender.inbox / "lab1").rmdir()
    (again,) = sender.results("lab1")
    assert (again["state"], again["bytes_sent"]) == ("sent", 0)
    assert sender.names() == ["lab1"]
    assert whole(sender) == read_tree(sender.here / "lab1")


def test_an_upload_of_somebody_else_is_left_alone(sender: Sender) -> None:
    """Also one of this program, from another folder with other files."""
    tree(sender.here / "lab1", MEASURED)
    tree(sender.inbox / ".lab1", {"theirs": b"x"})
    assert sender.send("lab1") == 73
    assert read_tree(sender.inbox / ".lab1") == {b"theirs": b"x"}
    other = manifest.Identity(origin="0" * 64, content="1" * 64)
    (sender.inbox / ".lab1" / f"{MANIFEST}.part").write_bytes(manifest.header(other, []))
    for options in ((), ("--restart",)):
        assert sender.send("lab1", options=options) == 73
    assert (sender.inbox / ".lab1" / "theirs").read_bytes() == b"x"


def test_the_same_folder_again_is_said_to_be_there(sender: Sender) -> None:
    tree(sender.here / "lab1", MEASURED)
    assert sender.send("lab1") == 0
    assert sender.send("lab1") == 0
    assert "was sent already" in sender.out
    (sender.here / "lab1" / "more").write_bytes(b"x")
    assert sender.send("lab1") == 73


def broken_off(sender: Sender, monkeypatch: pytest.MonkeyPatch, name: str = "lab1") -> Path:
    """Send a folder whose manifest cannot be written, and return what lies there."""
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "NAME", b"no/such/place")
        assert sender.send(name) == 69
    return sender.inbox / f".{name}"


def test_what_was_confirmed_is_not_sent_again(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree(sender.here / "lab1", {**MEASURED, "big": os.urandom(5 << 20)})
    broken_off(sender, monkeypatch)
    (said,) = sender.results("lab1")
    assert (said["state"], said["bytes_sent"]) == ("sent", 0)
    assert whole(sender) == read_tree(folder)


@pytest.mark.parametrize("journal", [True, False])
def test_a_file_that_broke_off_goes_on_after_its_last_good_byte(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, journal: bool
) -> None:
    """Also where the journal is lost but for its header: everything there is read back then."""
    folder = tree(sender.here / "lab1", {"big": os.urandom(5 << 20), "small": b"x" * 99})
    there = broken_off(sender, monkeypatch)
    os.truncate(there / "big", 4_500_000)
    if not journal:
        part = there / f"{MANIFEST}.part"
        part.write_text(
            "".join(line + "\n" for line in part.read_text().splitlines() if line.startswith("# "))
        )
    (said,) = sender.results("lab1")
    assert said["bytes_sent"] == (5 << 20) - 4_500_000
    assert whole(sender) == read_tree(folder)


def test_wrong_bytes_of_a_server_that_lost_power_are_found(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The length of a file is no proof: it may hold zeros. What the journal vouches for was made durable."""
    folder = tree(sender.here / "lab1", {"big": os.urandom(5 << 20), "small": b"x" * 99})
    there = broken_off(sender, monkeypatch)
    part = there / f"{MANIFEST}.part"
    part.write_text("".join(line + "\n" for line in part.read_text().splitlines() if line.startswith("# ")))
    with open(there / "big", "r+b") as file:
        file.seek(3 << 20)
        file.write(bytes(1000))
    (there / "small").write_bytes(bytes(99))
    (said,) = sender.results("lab1")
    assert said["state"] == "sent"
    assert whole(sender) == read_tree(folder)
    assert said["bytes_sent"] < 5 << 20


def test_a_longer_file_there_is_cut(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """It became shorter here since."""
    folder = tree(sender.here / "lab1", {"big": os.urandom(5 << 20)})
    broken_off(sender, monkeypatch)
    os.truncate(folder / "big", 3 << 20)
    assert sender.send("lab1") == 0, sender.err
    assert whole(sender) == read_tree(folder)


def test_a_large_file_goes_on_after_the_last_point_of_the_journal(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is before it is not read back; a point of another content does not count."""
    monkeypatch.setattr(local, "POINT", 4 << 20)
    monkeypatch.setattr("dittohead_send.transfer.POINT", 4 << 20)
    folder = tree(sender.here / "lab1", {"big": os.urandom(13 << 20)})
    there = broken_off(sender, monkeypatch)
    part = there / f"{MANIFEST}.part"
    lines = part.read_text().splitlines()
    assert sum(line.startswith("#@ ") for line in lines) == 3
    part.write_text("".join(line + "\n" for line in lines if line.startswith("#")))
    os.truncate(there / "big", 9 << 20)
    with open(there / "big", "r+b") as file:  # before the last point: nobody looks there
        file.write(b"\0")
    (said,) = sender.results("lab1", options=("--verify",))
    assert said["bytes_sent"] == 4 << 20
    assert said["error"]["what"] == "read back, this is not what was sent: big"
    assert sender.send("lab1", options=("--restart",)) == 0, sender.err
    assert whole(sender) == read_tree(folder)


def test_what_was_removed_here_since_is_named(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is removed there without being asked for."""
    folder = tree(sender.here / "lab1", {**MEASURED, "old": b"x"})
    broken_off(sender, monkeypatch)
    (folder / "old").unlink()
    assert sender.send("lab1") == 73
    assert "not in the folder here: old" in sender.err
    assert sender.send("lab1", options=("--restart",)) == 0
    assert whole(sender) == read_tree(folder)


@pytest.mark.parametrize("times", [1, 99])
def test_a_file_that_changes_while_it_is_sent_is_sent_again_then_refused(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    folder = tree(sender.here / "lab1", {"big": os.urandom(5 << 20), "other": b"x"})
    check, left = local.Reader.check, times

    def written_to(reader: local.Reader) -> None:
        nonlocal left
        if reader.state.size > 99 and left:
            left -= 1
            (folder / "big").write_bytes(os.urandom(5 << 20))
        check(reader)

    monkeypatch.setattr(local.Reader, "check", written_to)
    if times == 1:
        assert sender.send("lab1") == 0, sender.err
        assert whole(sender) == read_tree(folder)
    else:
        assert sender.send("lab1") == 75
        assert "big: the file changes while it is sent" in sender.err
        assert sender.names() == [".lab1"]


@pytest.mark.parametrize("how", ["content", "time", "new"])
def test_what_changes_after_it_was_sent_is_noticed_before_the_end(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder = tree(sender.here / "lab1", {"a": b"a" * 500_000, "b": b"b"})
    scan, scans = local.scan, 0

    def later(root: str, *, follow: bool = False) -> local.Listing:
        nonlocal scans
        scans += 1
        if scans == 2 and how == "content":
            (folder / "a").write_bytes(b"c" * 600_000)
        elif scans == 2 and how == "time":
            os.utime(folder / "a", (1, 1))
        elif scans == 2:
            (folder / "c").write_bytes(b"c")
        return scan(root, follow=follow)

    monkeypatch.setattr(local, "scan", later)
    (said,) = sender.results("lab1")
    if how == "new":
        assert "c came or went" in said["error"]["what"]
        assert sender.names() == [".lab1"]
        return
    assert said["state"] == "sent", said
    assert said["bytes_sent"] == {"content": 500_001 + 600_000, "time": 500_001}[how]
    assert whole(sender) == read_tree(folder)


def test_several_folders_one_of_which_cannot_be_sent(sender: Sender) -> None:
    """The others are sent; the exit code is that of the first that failed."""
    tree(sender.here / "lab1", MEASURED)
    tree(sender.here / "lab2", {})
    tree(sender.here / "lab3", MEASURED)
    said = sender.results("lab1", "lab2", "nothing", "lab3", "lab3")
    assert [one["state"] for one in said] == ["sent", "failed", "failed", "sent", "failed"]
    assert [one["error"] and one["error"]["exit_code"] for one in said] == [None, 65, 66, None, 64]
    assert sender.send("lab2", "nothing") == 65
    assert sender.names() == ["lab1", "lab3"]


def test_a_dry_run_lists_and_connects_to_nothing(sender: Sender) -> None:
    tree(sender.here / "lab1", MEASURED)
    assert sender.send("lab1", options=("--dry-run",), to="nobody@no.such.host.example:") == 0
    assert "lab1/raw/plate.csv" in sender.out
    assert "lab1/raw/none/" in sender.out
    assert "lab1: 3 files, 399 bytes would be sent" in sender.out
    assert sender.names() == []


def test_everything_is_read_back_if_that_is_asked_for(sender: Sender) -> None:
    folder = tree(sender.here / "lab1", {**MEASURED, "big": os.urandom(5 << 20)})
    assert sender.send("lab1", options=("--verify", "--jobs", "2", "--quiet")) == 0
    assert sender.err == ""
    assert whole(sender) == read_tree(folder)


def test_two_runs_for_one_folder_do_not_meet(sender: Sender) -> None:
    tree(sender.here / "lab1", MEASURED)
    listing = local.scan(str(sender.here / "lab1"))
    with local.locked(listing.identity()):
        assert sender.send("lab1") == 75
    assert "another run of this program is sending this folder" in sender.err
    assert sender.send("lab1") == 0


def test_an_upload_that_was_begun_and_no_more_is_taken_up(sender: Sender) -> None:
    """Killed before the journal had its header."""
    tree(sender.here / "lab1", MEASURED)
    (sender.inbox / ".lab1").mkdir()
    (sender.inbox / ".lab1" / f"{MANIFEST}.part").touch()
    assert sender.send("lab1") == 0, sender.err
    assert whole(sender) == read_tree(sender.here / "lab1")


def test_the_folder_is_found_again_when_it_was_moved_here(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that has another letter today: the same files, with the same times."""
    tree(sender.here / "lab1", MEASURED)
    broken_off(sender, monkeypatch)
    shutil.move(sender.here / "lab1", sender.here / "moved")
    (said,) = sender.results("moved", options=("--name", "lab1"))
    assert (said["state"], said["bytes_sent"]) == ("sent", 0)
