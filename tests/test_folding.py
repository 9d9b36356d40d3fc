"""Two names that a target takes for one: said before anything is lost, with both names."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.model.errors import ItemError
from dittohead.model.records import Entry
from dittohead.system.folding import Alike
from dittohead.workers.rsync.rsync_messages import listed_names
from dittohead.workers.rsync.worker import RsyncOptions, RsyncWorker
from tests.support.context import LoneContext
from tests.support.sshd import Sshd, sshd
from tests.support.trees import read_tree, tree

service = pytest.mark.service


def groups(*paths: str) -> list[list[str]]:
    entries = [Entry(path=path.encode(), size=0, sha256="") for path in paths]
    alike = Alike()
    for entry in entries:
        alike.add(entry)
    return [sorted(path.decode() for path in paths) for paths in alike.groups(entries)]


def test_names_that_any_file_system_takes_for_one_are_found() -> None:
    """Case, composed and decomposed accents, dots and blanks at the end; in one folder, or folders themselves."""
    assert groups("a", "b", "sub/a", "sub2/A") == []
    assert groups("IMG_1.TIF", "img_1.tif", "c") == [["IMG_1.TIF", "img_1.tif"]]
    assert groups("\u00e9", "e\u0301") == [["e\u0301", "\u00e9"]]
    assert groups("STRASSE", "straße") == [["STRASSE", "straße"]]
    assert groups("x.", "x") == [["x", "x."]]
    assert groups("Sub/a", "sub/a", "sub/b") == [["Sub", "sub"]]


def test_names_are_read_from_a_listing_as_they_are() -> None:
    said = (
        b"drwxr-xr-x          4,096 2026/01/02 03:04:05 .\n-rw-r--r--     3,000,000 2026/01/02 03:04:05 a  b\n"
        b"-rw-r--r--              0 2026/01/02 03:04:05 new\\#012line\n"
    )
    assert listed_names(said) == [b"a  b", b"new\nline"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh") / "d") as running:
        yield running


async def deliver(base: Path, target: Path, server: Sshd | None) -> None:
    more: dict[str, Any] = {"ssh": server.options} if server is not None else {}
    to = f"{server.host}:{target}/out/" if server is not None else f"{target}/out/"
    await RsyncWorker().run(LoneContext(base, base / "x"), RsyncOptions.model_validate({"to": to, **more}))


@service
@pytest.mark.parametrize("over_ssh", [False, True])
async def test_names_that_the_target_keeps_apart_are_delivered(
    tmp_path: Path, server: Sshd, over_ssh: bool
) -> None:
    """They may be one elsewhere: that is no matter here."""
    names: dict[str | bytes, Any] = {"a.txt": "1", "A.txt": "1", "Sub": {"n\nl": "2"}, "sub": {"n\nl": "3"}}
    tree(tmp_path / "x", names)
    await deliver(tmp_path, tmp_path, server if over_ssh else None)
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "x")


@pytest.fixture
def exfat(tmp_path: Path) -> Iterator[Path]:
    """A real exFAT, by FUSE: no kernel need have it."""
    if os.geteuid() != 0 or not shutil.which("mount.exfat-fuse") or not shutil.which("mkfs.exfat"):
        pytest.skip("NEEDS ROOT, exfat-fuse AND exfatprogs: exFAT left out")
    image, point = tmp_path / "exfat.img", tmp_path / "exfat"
    with open(image, "wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.exfat", image], check=True, stdout=subprocess.DEVNULL)
    device = subprocess.check_output(["losetup", "-f", "--show", image], text=True).strip()
    point.mkdir()
    try:
        subprocess.run(["mount.exfat-fuse", device, point], check=True, stdout=subprocess.DEVNULL)
        yield point
        subprocess.run(["umount", "-l", point], check=True)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@service
@pytest.mark.parametrize("over_ssh", [False, True])
async def test_two_names_that_are_one_at_the_target_are_refused_with_both(
    tmp_path: Path, server: Sshd, exfat: Path, over_ssh: bool
) -> None:
    """Of the same content even: two names would come to one, and the receipt would say two. Again after a try."""
    tree(tmp_path / "x", {"a.txt": "same", "A.TXT": "same", "b.txt": "b"})
    for _ in range(2):
        with pytest.raises(ItemError, match="takes for one name 'A.TXT' and 'a.txt'"):
            await deliver(tmp_path, exfat, server if over_ssh else None)
    assert not (exfat / "out" / "b.txt").exists()


@service
@pytest.mark.parametrize("over_ssh", [False, True])
async def test_names_that_the_target_does_not_take_are_refused_all_at_once(
    tmp_path: Path, server: Sshd, exfat: Path, over_ssh: bool
) -> None:
    """Counted, and five of them named: they are renamed at once."""
    wrong = ["a:b", "c?", "d*", "e|f", "<g>", 'h"i']
    tree(tmp_path / "x", {"good": "1", **dict.fromkeys(wrong, "2")})
    with pytest.raises(ItemError, match=r"does not take 6 names: .*, \.\.\."):
        await deliver(tmp_path, exfat, server if over_ssh else None)
