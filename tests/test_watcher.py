"""The watcher: whatever way a folder comes, it is seen; whatever happens to the watch, it recovers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from dittohead.config.settings import Watch
from dittohead.folders.stations import Scan, Stations
from dittohead.model.states import Station
from dittohead.system.mounts import filesystem_type, mounts_beneath, needs_polling
from dittohead.watcher import Watcher, stale_uploads
from tests.support.trees import tree

pytestmark = pytest.mark.usefixtures("nothing_blocks_the_loop")

#: Longer than any test: what is seen is then seen by an event, not by the timed scan.
NEVER = 1000.0


class Seen:
    """Collects scans and wakes everyone who waits for one."""

    def __init__(self) -> None:
        self.scans: list[Scan] = []
        self.changed = asyncio.Condition()
        self._loop = asyncio.get_running_loop()

    def __call__(self, scan: Scan) -> None:
        self.scans.append(scan)
        self._loop.create_task(self._tell())

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, *names: bytes) -> None:
        """Wait for a scan that holds these arrivals."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(
                lambda: bool(self.scans) and set(names) <= {a.folder for a in self.scans[-1].arrivals}
            )

    async def until_scan(self, check: Callable[[Scan], bool]) -> None:
        """Wait until the last scan passes a check."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: bool(self.scans) and check(self.scans[-1]))


@contextlib.asynccontextmanager
async def watching(root: Path, **settings: object) -> AsyncIterator[tuple[Watcher, Stations, Seen]]:
    stations = Stations(root)
    stations.prepare()
    seen = Seen()
    watcher = Watcher(stations, Watch.model_validate({"interval": NEVER, **settings}), seen)
    task = asyncio.create_task(watcher.run())
    try:
        async with asyncio.timeout(20):
            await watcher.ready.wait()
        yield watcher, stations, seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_rename_in_is_seen_by_an_event(tmp_path: Path) -> None:
    """The uploader's protocol: .name becomes name."""
    async with watching(tmp_path) as (watcher, stations, seen):
        assert watcher.mode == "inotify"
        inbox = stations.path(Station.INBOX)
        (inbox / ".x").mkdir()
        (inbox / ".x").rename(inbox / "x")
        await seen.until(b"x")


async def test_a_folder_is_known_to_have_been_renamed_only_where_it_was(tmp_path: Path) -> None:
    """However fast: that is what tells a script's upload from one that goes on under its name."""
    async with watching(tmp_path) as (watcher, stations, seen):
        inbox = stations.path(Station.INBOX)
        for number in range(20):
            name = f"fast{number}".encode()
            tree(inbox / f".fast{number}", {"a": b"1"}).rename(inbox / f"fast{number}")
            await seen.until(name)
        (inbox / ".gone").mkdir()
        await seen.until_scan(lambda scan: b".gone" in scan.uploads)
        (inbox / ".gone").rmdir()
        (inbox / "later").mkdir()
        await seen.until(b"later")  # by its event: those told together with the deletion have ended
        for name in ("gone", "made"):
            tree(inbox / name, {"a": b"1"})
        (tmp_path / "moved").mkdir()
        (tmp_path / "moved").rename(inbox / "moved")
        await seen.until(b"gone", b"made", b"moved")
        watcher.scan_soon()
        renamed = {arrival.folder: arrival.renamed for arrival in seen.scans[-1].arrivals}
        assert {name for name, was in renamed.items() if not was} == {b"later", b"gone", b"made", b"moved"}
        # It stays known at later scans.
        count = len(seen.scans)
        watcher.scan_soon()
        await seen.until_scan(lambda scan: len(seen.scans) > count)
        assert {arrival.folder: arrival.renamed for arrival in seen.scans[-1].arrivals} == renamed


async def test_every_other_way_in_is_seen_too(tmp_path: Path) -> None:
    """Moved in from done/, made undotted, there at start."""
    (tmp_path / "inbox" / "early").mkdir(parents=True)
    (tmp_path / "done" / "again").mkdir(parents=True)
    async with watching(tmp_path) as (_, stations, seen):
        await seen.until(b"early")
        inbox = stations.path(Station.INBOX)
        (tmp_path / "done" / "again").rename(inbox / "again")
        await seen.until(b"early", b"again")
        (inbox / "made").mkdir()
        await seen.until(b"early", b"again", b"made")


async def test_names_that_editors_and_tools_use_are_seen(tmp_path: Path) -> None:
    """Nothing is filtered but the dot."""
    names = ["box~", "node_modules", "a.swp", "#x#", "new\nline", "-rf", "a:b", "😀", "x" * 255]
    async with watching(tmp_path) as (_, stations, seen):
        for name in names:
            (stations.path(Station.INBOX) / name).mkdir()
        await seen.until(*(os.fsencode(name) for name in names))


async def test_a_name_that_is_not_utf8_does_not_end_the_watch(tmp_path: Path) -> None:
    """Watchfiles raises on such a name; the next arrival is seen all the same."""
    async with watching(tmp_path) as (watcher, stations, seen):
        inbox = os.fsencode(stations.path(Station.INBOX))
        os.mkdir(inbox + b"/bad\xff\xfe")
        await seen.until(b"bad\xff\xfe")
        async with asyncio.timeout(20):
            while watcher.mode != "inotify":
                await asyncio.sleep(0.01)
        os.mkdir(inbox + b"/after")
        await seen.until(b"after")


async def test_an_inbox_that_is_removed_and_made_anew_is_watched_again(tmp_path: Path) -> None:
    """Missing is a state that is shown, not the end."""
    async with watching(tmp_path, interval=0.05) as (watcher, stations, seen):
        inbox = stations.path(Station.INBOX)
        shutil.rmtree(inbox)
        async with asyncio.timeout(20):
            while watcher.mode != "missing":
                await asyncio.sleep(0.01)
            inbox.mkdir()
            (inbox / "x").mkdir()
        await seen.until(b"x")
        async with asyncio.timeout(20):
            while watcher.mode != "inotify":
                await asyncio.sleep(0.01)


async def test_an_inbox_replaced_by_another_directory_is_noticed(tmp_path: Path) -> None:
    """The watch looks at the old inode; the scan sees the new one and re-arms it."""
    async with watching(tmp_path, interval=0.05) as (watcher, stations, seen):
        inbox = stations.path(Station.INBOX)
        inbox.rename(tmp_path / "old")
        inbox.mkdir()
        async with asyncio.timeout(20):
            while watcher.losses == 0 or watcher.mode != "inotify":
                await asyncio.sleep(0.01)
        (inbox / "x").mkdir()
        await seen.until(b"x")


async def test_polling_sees_arrivals_without_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For NFS and SMB: the mode is said, and the timed scan does the work."""
    monkeypatch.setattr("dittohead.watcher._POLL_S", 0.02)
    async with watching(tmp_path, mode="polling") as (watcher, stations, seen):
        assert (watcher.mode, watcher.reason) == ("polling", "set by watch: {mode: polling}")
        (stations.path(Station.INBOX) / "x").mkdir()
        await seen.until(b"x")


def test_network_file_systems_are_polled() -> None:
    """By type, from the mount table."""
    assert [needs_polling(k) for k in ("nfs4", "cifs", "fuse.sshfs", "ext4", "tmpfs", "btrfs")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert filesystem_type(Path("/proc")) == "proc"


async def test_dotted_names_files_and_links_are_no_arrivals(tmp_path: Path) -> None:
    """Uploads in progress and what is not a directory stay where they are."""
    async with watching(tmp_path) as (_, stations, seen):
        inbox = stations.path(Station.INBOX)
        (inbox / ".up").mkdir()
        (inbox / "file.txt").write_text("x")
        (inbox / "link").symlink_to(tmp_path)
        (inbox / "x").mkdir()
        await seen.until(b"x")
        scan = seen.scans[-1]
        assert [a.folder for a in scan.arrivals] == [b"x"]
        assert scan.uploads == [b".up"]
        assert sorted(scan.strays) == [b"file.txt", b"link"]
        assert sorted(os.listdir(inbox)) == [".up", "file.txt", "link", "x"]


def ctimes(folder: Path) -> list[float]:
    """Of a tree: of the folder itself and everything in it."""
    return [os.lstat(path).st_ctime for path in (folder, *folder.rglob("*"))]


async def stale_after(stations: Stations, name: str, age_s: float) -> list[tuple[bytes, float, int]]:
    return [found async for found in stale_uploads(stations, [name.encode(), b".gone"], age_s)]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "in" / "deep" / "a").write_bytes(b"54321"),
        lambda folder: (folder / "in" / "deep" / "b").touch(),
        lambda folder: (folder / "in" / "deep" / "gone").unlink(),
        lambda folder: (folder / "in" / "empty").chmod(0o700),
        lambda folder: (folder / "in" / "link").symlink_to("x"),
        lambda folder: folder.rename(folder.with_name(".b")).rename(folder),
    ],
    ids=["a file", "a new file", "a file taken out", "an empty directory", "a link", "its own name"],
)
async def test_an_upload_is_as_old_as_the_last_change_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], Any]
) -> None:
    """By ctime: `rsync -a`, `cp -p` and sftp set mtimes back by years, and nobody sets a ctime."""
    stations = Stations(tmp_path)
    stations.prepare()
    inbox = stations.path(Station.INBOX)
    folder = tree(inbox / ".a", {"in": {"deep": {"a": "12345", "gone": ""}, "empty": {}}})
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (1, 1))  # as what copies old files does
    began = max(ctimes(folder))
    assert [size for _, _, size in await stale_after(stations, ".a", 0)] == [5]
    assert await stale_after(stations, ".a", 3600) == []
    tick = tree(tmp_path / "tick", {"t": ""})
    while max(ctimes(tick)) <= began:  # the clock of the file system has a grain
        (tick / "t").touch()
    change(folder)
    assert max(ctimes(folder)) > began
    os.utime(inbox, (1, 1))
    later = max(ctimes(folder)) + 7200
    monkeypatch.setattr("dittohead.watcher.time.time", lambda: later)
    (found,) = await stale_after(stations, ".a", 3600)
    assert found[1] == pytest.approx(7200)


def test_mounts_are_found_whatever_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel escapes spaces, tabs, line breaks and backslashes, and nothing else."""
    names = [b"a b", b"a\tb", b"a\nb", b"a\\b", b"a\x0bb", b"a\x1cb", "a\u2028b".encode(), b"a\xffb", b"a\rb"]
    lines = [b"1 0 8:1 / / rw - ext4 /dev/vda rw"]
    for number, name in enumerate(names):
        point = os.fsencode(tmp_path) + b"/" + name
        for plain in (b"\\", b" ", b"\t", b"\n"):
            point = point.replace(plain, b"\\%03o" % plain[0])
        lines.append(b"%d 1 0:5 / %s/sub rw shared:1 - fuse.sshfs x rw" % (number, point))
    (tmp_path / "mountinfo").write_bytes(b"\n".join(lines) + b"\n")
    monkeypatch.setattr("dittohead.system.mounts._MOUNTS", tmp_path / "mountinfo")
    found = mounts_beneath(tmp_path)
    assert found == {name: os.fsencode(tmp_path) + b"/" + name + b"/sub" for name in names}
    assert filesystem_type(tmp_path / "a b" / "sub") == "fuse.sshfs"
    assert mounts_beneath(tmp_path / "a b") == {b"sub": os.fsencode(tmp_path) + b"/a b/sub"}
