"""`dittohead drop`: the copy in the inbox is the folder, with all that its files have besides content."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from dittohead.folders.upload_protocol import Upload
from dittohead.system import attributes
from tests.support.trees import read_tree, tree

#: A user who is nobody here.
STRANGER = 23456


def folder(root: Path) -> Path:
    """Make a folder with modes, times, attributes, lists, links and holes."""
    tree(root, {"run.sh": "#!/bin/sh\n", "read.txt": "r", "one": "same", "sub": {"b": "b"}, "hollow": {}})
    (root / "run.sh").chmod(0o755)
    (root / "read.txt").chmod(0o440)
    os.link(root / "one", root / "sub" / "two")
    with open(root / "sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
        file.truncate(16 << 20)
    os.setxattr(root / "read.txt", "user.camera", b"Leica")
    os.setxattr(root / "sub", "user.box", b"7")
    subprocess.run(["setfacl", "-m", "u:12345:r", root / "one"], check=True)
    (root / "sub").chmod(0o710)
    for number, name in enumerate(["run.sh", "sub/b", "sub", "hollow", "."]):
        os.utime(root / name, ns=(0, (1_000_000_000 + number) * 10**9 + 123_456_789))
    return root


def drop(source: Path, inbox: Path) -> Upload:
    upload = Upload(source, inbox)
    sizes: list[int] = []
    upload.copy(sizes.append)
    upload.publish()
    assert sum(sizes) == upload.size
    return upload


@pytest.fixture(params=["as ourselves", "as a stranger"])
def who(request: pytest.FixtureRequest) -> int:
    if request.param == "as ourselves":
        return os.geteuid()
    if os.geteuid() != 0:
        pytest.skip("only root can become another")
    return STRANGER


def as_user(uid: int, code: str) -> str:
    """Run a few lines of Python as somebody; return what they print."""
    become = f"if os.geteuid() != {uid}: os.setgroups([]); os.setgid({uid}); os.setuid({uid})"
    # What is imported may lie where only root reads.
    program = f"import os\nfrom pathlib import Path\nfrom dittohead.folders.upload_protocol import Upload\n{become}\n{code}"
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_everything_a_folder_has_is_in_the_copy(tmp_path: Path, who: int) -> None:
    """Modes, times to the nanosecond, attributes, lists, hard links, holes; of folders as well."""
    source = folder(tmp_path / "x")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    if who != os.geteuid():
        for parent in (tmp_path, *tmp_path.parents):
            if parent.is_relative_to(tempfile.gettempdir()) and parent != Path(tempfile.gettempdir()):
                parent.chmod(0o755)
        for path in (inbox, source, *source.rglob("*")):
            os.chown(path, who, who)
    said = as_user(
        who,
        f"upload = Upload(Path({str(source)!r}), Path({str(inbox)!r}))\n"
        "upload.copy(lambda count: None); upload.publish(); print(upload.not_kept)",
    )
    assert said.strip() == ""
    copy = inbox / "x"
    assert read_tree(copy) == read_tree(source)
    for path in (source, *source.rglob("*")):
        here, there = path.stat(), (copy / path.relative_to(source)).stat()
        assert stat.S_IMODE(here.st_mode) == stat.S_IMODE(there.st_mode), path
        assert here.st_mtime_ns == there.st_mtime_ns, path
        names = os.listxattr(path)
        assert {n: os.getxattr(path, n) for n in names} == {
            n: os.getxattr(copy / path.relative_to(source), n) for n in names
        }
    assert (copy / "one").stat().st_ino == (copy / "sub/two").stat().st_ino
    assert (copy / "sparse").stat().st_blocks * 512 < 1 << 20


def test_what_the_inbox_does_not_take_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own default list is how the daemon is let in; a file system may hold no attributes."""
    source = folder(tmp_path / "x")
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    subprocess.run(["setfacl", "-d", "-m", "u:12346:rwx", inbox], check=True)

    def refuse(there: Any, name: str, *more: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    upload = drop(source, inbox)
    assert upload.not_kept.startswith("extended attributes of 1 file and 1 folder (")
    # `one` and `sub/two` are one file.
    assert ", access control lists of 1 file (" in upload.not_kept
    listed = os.getxattr(inbox / "x" / "sub" / "b", attributes.ACLS[0])
    assert (12346).to_bytes(4, "little") in listed


def test_no_file_runs_as_another_in_the_copy(tmp_path: Path) -> None:
    """What root drops of somebody else's would run as root."""
    source = tree(tmp_path / "x", {"tool": "t", "open": "o"})
    (source / "tool").chmod(0o6755)
    (source / "open").chmod(0o000)
    drop(source, tree(tmp_path / "inbox", {}))
    assert stat.S_IMODE((tmp_path / "inbox/x/tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "inbox/x/open").stat().st_mode) == 0o400


def test_an_inbox_that_is_closed_to_those_who_upload_takes_their_folder(tmp_path: Path) -> None:
    """Mode 3773, as installed: everybody may put a folder in, nobody but its group may look."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another")
    source, inbox = tmp_path / "x", tmp_path / "inbox"
    for place in (source, inbox):
        place.mkdir()
    (source / "a").write_text("1")
    for parent in (tmp_path, *tmp_path.parents):
        if parent.is_relative_to(tempfile.gettempdir()) and parent != Path(tempfile.gettempdir()):
            parent.chmod(0o755)
    for path in (source, source / "a"):
        os.chown(path, STRANGER, STRANGER)
    inbox.chmod(0o3773)
    as_user(
        STRANGER,
        f"upload = Upload(Path({str(source)!r}), Path({str(inbox)!r}))\n"
        "upload.copy(lambda count: None); upload.publish()",
    )
    assert read_tree(inbox / "x") == {b"a": b"1"}
