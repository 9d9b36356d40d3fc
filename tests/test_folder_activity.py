"""One look at a folder: its newest change, marks of uploads under way, programs that still write."""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from dittohead.engine import folder_activity
from dittohead.engine.folder_activity import FolderActivity, expanded
from dittohead.system import files
from dittohead.system.leases import has_writer
from dittohead.system.threads import Stop
from tests.support.trees import tree


def look(folder: Path, partial: Sequence[str] = ("default",)) -> FolderActivity:
    return folder_activity.read_activity(folder, expanded(tuple(partial)), stop=Stop(), now_ns=time.time_ns())


@pytest.mark.parametrize(
    "name",
    [
        ".a.tif.Ab3xYz",
        ".notes.k0Lm9Q",
        ".rsync-partial",
        ".~tmp~",
        "a.tif.filepart",
        "A.TIF.FILEPART",
        "a.part",
        "a.tif.partial",
        "a.crdownload",
        ".in.a.tif.",
        "a.lftp",
        "~$report.docx",
        ".~lock.report.odt#",
        ".nfs00000000deadbeef00000001",
        ".smbdeleteAAA1",
        ".syncthing.a.tif.tmp",
        b"a\xff.part",
        "a\n.part",
    ],
)
@pytest.mark.parametrize("deep", [False, True])
def test_names_of_what_is_not_finished_are_found_at_every_depth(
    tmp_path: Path, name: str | bytes, deep: bool
) -> None:
    held = {name: {"x": b""} if name in (".~tmp~", ".rsync-partial") else b"half"}
    found = look(tree(tmp_path / "f", {"a": b"1", "d": {"e": held}} if deep else held))
    assert os.fsencode(found.mark).endswith(os.fsencode(name))


def test_other_names_are_no_marks(tmp_path: Path) -> None:
    names = [
        "a.part1.rar",
        "part",
        ".DS_Store",
        ".htaccess.bak",
        "a.tif",
        "party",
        "x.in.y",
        "~a",
        "$a",
        ".nfsx",
    ]
    assert look(tree(tmp_path / "f", dict.fromkeys(names, b"1"))).mark == ""


def test_what_counts_as_a_mark_is_a_sites_choice(tmp_path: Path) -> None:
    """More names, others, none; `default` stands for ours."""
    folder = tree(tmp_path / "f", {"a.part": b"1"})
    assert look(folder, []).mark == ""
    assert look(folder, ["*.upload"]).mark == ""
    assert look(folder, ["*.upload", "default"]).mark == "a.part"
    assert look(tree(tmp_path / "g", {"b.upload": b"1"}), ["default", "*.upload"]).mark == "b.upload"


def test_a_file_dated_1970_is_rsyncs_mark_of_one_cut_short(tmp_path: Path) -> None:
    folder = tree(tmp_path / "f", {"a": b"1", "b": b"2"})
    os.utime(folder / "b", (0, 0))
    found = look(folder)
    assert (found.mark, found.is_cut) == ("b", True)
    assert look(folder, ["*.part"]).mark == ""


def test_the_newest_change_is_that_of_what_lies_inside(tmp_path: Path) -> None:
    """A rename of the folder changes only its own time; a directory inside counts."""
    folder = tree(tmp_path / "f", {"a": b"1", "d": {"e": b"2"}})
    first = look(folder)
    folder.rename(tmp_path / "g")
    later = look(tmp_path / "g")
    assert (later.newest_ns, later.trace, later.size) == (first.newest_ns, first.trace, 2)
    os.unlink(tmp_path / "g" / "d" / "e")
    changed = look(tmp_path / "g")
    assert changed.newest_ns == os.stat(tmp_path / "g" / "d").st_ctime_ns
    assert changed.trace != later.trace


def test_a_folder_filled_after_it_got_its_name_says_so(tmp_path: Path) -> None:
    folder = tree(tmp_path / "f", {"a": b"1"})
    os.utime(folder / "a")
    time.sleep(0.02)  # a step of the clock that file systems stamp by
    folder.rename(tmp_path / "g")
    assert not look(tmp_path / "g").written_in_place
    time.sleep(0.02)
    with open(tmp_path / "g" / "a", "ab") as file:
        file.write(b"more")
    assert look(tmp_path / "g").written_in_place
    (tmp_path / "empty").mkdir()
    assert look(tmp_path / "empty").written_in_place


@pytest.mark.parametrize("last", ["created", "renamed to its final name", "removed"])
def test_a_folder_whose_last_change_is_an_entry_was_not_renamed_after_it(tmp_path: Path, last: str) -> None:
    """Its own time is then as new as anything inside, and is not a rename's."""
    folder = tree(tmp_path / "f", {"a": b"1", "b.tmp": b"2"})
    time.sleep(0.02)  # a step of the clock that file systems stamp by
    if last == "created":
        (folder / "c").touch()
    elif last == "removed":
        (folder / "b.tmp").unlink()
    else:
        (folder / "b.tmp").rename(folder / "b")
    assert look(folder).written_in_place
    time.sleep(0.02)
    folder.rename(tmp_path / "g")
    assert not look(tmp_path / "g").written_in_place


def test_our_own_uploads_show_that_the_rename_came_last(tmp_path: Path) -> None:
    """Also where all of it happens in one step of the clock."""
    for number in range(20):
        hidden, name = tmp_path / f".{number}", tmp_path / f"{number}"
        files.give_name(os.fsencode(tree(hidden, {"a": b"1"})), os.fsencode(name))
        assert not look(name).written_in_place


def test_a_program_that_has_a_file_open_for_writing_is_seen(tmp_path: Path) -> None:
    folder = tree(tmp_path / "f", {"a": b"1", "b": b"2"})
    with open(folder / "a", "rb"):
        assert look(folder).writer == ""
    with open(folder / "b", "ab"):
        assert look(folder).writer == "b"
    assert look(folder).writer == ""


def test_a_file_mapped_for_writing_is_seen_though_it_was_closed(tmp_path: Path) -> None:
    folder = tree(tmp_path / "f", {"a": b"1" * 4096})
    with open(folder / "a", "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    assert look(folder).writer == "a"
    mapped.close()
    assert look(folder).writer == ""


def test_asking_who_writes_disturbs_no_writer_and_not_ourselves(tmp_path: Path) -> None:
    """A lease that is broken in the moment it is held sends a signal; it must be one that does nothing."""
    path = tree(tmp_path / "f", {"a": b""}) / "a"
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    over = threading.Event()

    def write() -> None:
        for _ in range(2000):
            with open(path, "ab") as file:
                file.write(b"x")
        over.set()

    before = signal.getsignal(signal.SIGURG)
    thread = threading.Thread(target=write)
    thread.start()
    asked = 0
    while not over.is_set():
        has_writer(b"a", fd)
        asked += 1
    thread.join()
    os.close(fd)
    assert asked
    assert path.stat().st_size == 2000
    assert signal.getsignal(signal.SIGURG) == before


def test_what_cannot_be_read_is_said_and_the_rest_still_counts(tmp_path: Path) -> None:
    folder = tree(tmp_path / "f", {"a": b"123"})
    deep = folder
    for _ in range(260):
        deep = deep / "d"
        deep.mkdir()
    found = look(folder)
    assert found.error is not None
    assert "nested too deeply" in found.error.what
    assert found.size == 3


def test_modes_and_owners_are_no_content(tmp_path: Path) -> None:
    """They change the trace, and nothing of what a folder holds; every way of writing changes both."""
    folder = tree(tmp_path / "f", {"a": b"1", "d": {"b": b"2"}, "e": {}})
    before = look(folder)
    for path in (folder / "a", folder / "d", folder / "d" / "b", folder / "e"):
        path.chmod(0o775)
        os.chown(path, os.getuid(), os.getgid())
    cured = look(folder)
    assert cured.content == before.content
    assert cured.trace != before.trace
    contents = {cured.content}
    (folder / "d" / "b").write_bytes(b"22")
    contents.add(look(folder).content)
    os.utime(folder / "a", (1, 2))
    contents.add(look(folder).content)
    (folder / "d" / "b").rename(folder / "d" / "c")
    contents.add(look(folder).content)
    (folder / "e" / "f").mkdir()
    contents.add(look(folder).content)
    assert len(contents) == 5
