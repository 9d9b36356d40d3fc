"""One arrival that cannot be looked at, or never answers, holds up itself alone."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dittohead.config.settings import Watch
from dittohead.contract.worker import Done
from dittohead.engine import folder_activity, waiting_room
from dittohead.engine.folder_activity import FolderActivity
from dittohead.engine.settling import SettlingWait, Why
from dittohead.folders import manifest
from dittohead.folders.stations import Stations, refusal
from dittohead.model.errors import Immovable, StationError
from dittohead.model.held import Held, HeldKind, writers
from dittohead.model.states import JobState, Station
from dittohead.system.threads import Stop
from tests.support.harness import CONFIG, Harness

SETTLING = CONFIG + "watch: {settle: 200ms, settle_in_place: 200ms}\n"


class Trouble:
    """What looks at arrivals of some names meet."""

    def __init__(self) -> None:
        self.errors: dict[str, OSError] = {}
        self.hanging: set[str] = set()
        self.go_on = threading.Event()
        self.has_preflight: list[str] = []
        self.pause_s = 0.0

    def look(self, folder: Path, *args: Any, **more: Any) -> FolderActivity:
        self.has_preflight.append(folder.name)
        if folder.name in self.errors:
            raise self.errors[folder.name]
        if folder.name in self.hanging:
            self.go_on.wait(60)
        time.sleep(self.pause_s)
        return folder_activity.read_activity(folder, *args, **more)


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trouble]:
    made = Trouble()
    monkeypatch.setattr(waiting_room, "read_activity", made.look)
    yield made
    made.go_on.set()


@pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT, FOR TWO UIDS: left out")
@pytest.mark.parametrize(
    ("mode", "uid", "gid", "may"),
    [
        (0o700, 60001, 60001, False),
        (0o755, 60001, 60001, False),
        (0o750, 60001, 60000, False),
        (0o775, 60001, 60001, False),
        (0o770, 60001, 60000, True),
        (0o757, 60001, 60001, True),
        (0o700, 60000, 60001, True),
        (0o500, 60000, 60000, False),
    ],
)
def test_what_may_not_be_moved_is_known_before_it_is_tried(mode: int, uid: int, gid: int, may: bool) -> None:
    """By its mode and the daemon's user and group; with the cure that the attempt would give."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are closed to others
        stations = Stations(Path(name))
        stations.prepare()
        for path in (Path(name), *Path(name).iterdir()):
            path.chmod(0o777)
        folder = stations.path(Station.INBOX) / "x"
        folder.mkdir()
        os.chown(folder, uid, gid)
        folder.chmod(mode)
        os.setegid(60000)
        os.seteuid(60000)
        try:
            found = stations.immovable(b"x")
            with pytest.raises(Immovable) if not may else nullcontext() as tried:
                rename(stations, "x")
        finally:
            os.seteuid(0)
            os.setegid(0)
    assert (found is None) is may
    if found is not None:
        assert tried is not None
        assert (str(found), found.command) == (str(tried.value), tried.value.command)
        assert f"mode {mode:04o}" in str(found)


def rename(stations: Stations, name: str) -> None:
    (arrival,) = stations.scan().arrivals
    assert stations.claim(arrival)


async def test_waiting_is_not_told_where_it_will_not_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is closed to the daemon looks like one that is being written: its mode is told at once."""
    harness = Harness(tmp_path, CONFIG + "watch: {settle: 1h, settle_in_place: 1h}\n")
    cause = Immovable("mode 0700", where="x", cure="Open it", command="chmod x")
    monkeypatch.setattr(Stations, "immovable", lambda _, folder: cause if folder == b"shut" else None)
    harness.arrive("shut")
    harness.arrive("open")
    async with harness.running():
        await harness.until(lambda: len(harness.dispatch.held) == 2)
        held = harness.dispatch.held
        assert (held[b"shut"].kind, held[b"shut"].reason, held[b"shut"].command) == (
            HeldKind.IMMOVABLE,
            "mode 0700",
            "chmod x",
        )
        assert held[b"open"].kind is HeldKind.SETTLING


async def test_the_cure_of_what_could_not_be_moved_starts_no_long_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not an upload that went on: the folder is as whole as it was."""
    harness = Harness(tmp_path, CONFIG + "watch: {settle: 1h, settle_in_place: 24h}\n")
    watch, room = harness.config.settings.watch, harness.claimer.waiting_room
    cause = Immovable("mode 0755", where="x", cure="Open it", command="chmod x")
    monkeypatch.setattr(Stations, "immovable", lambda *_: cause)
    hidden = harness.arrive(".x", {"a": b"1", "d": {"b": b"2"}})
    await tick(tmp_path)
    folder = hidden.rename(harness.root / "inbox" / "x")
    (arrival,) = harness.stations.scan().arrivals
    held = await room.admit(arrival, watch, [])
    assert isinstance(held, Held)
    assert held.kind is HeldKind.IMMOVABLE
    await tick(tmp_path)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o775)
    monkeypatch.setattr(Stations, "immovable", lambda *_: None)
    held = await room.admit(arrival, watch, [])
    assert isinstance(held, Held)
    assert held.due.endswith("if nothing in it changes for 1 h")


async def tick(path: Path) -> None:
    """Wait until the file system's clock has gone on."""
    probe = path / "probe"
    probe.touch()
    first = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == first:
        await asyncio.sleep(0.001)
        probe.touch()


def test_a_wait_is_told_with_its_moment_first() -> None:
    """As people read it; and only who surely wrote under the final name is told of another way."""
    now = datetime(2026, 1, 31, 20, 31, 35).astimezone().timestamp()
    texts = {
        why: waiting_room._waits(
            SettlingWait(seconds=569.2, need_s=569.615, in_place=why is not Why.FRESH, grew=False, why=why),
            now,
        ).text
        for why in Why
    }
    for text in texts.values():
        assert text.startswith("taken at 20:41:05 if nothing in it changes for 9 min 30 s: ")
    told = {why for why, text in texts.items() if "upload as .NAME, then rename" in text}
    assert told == {Why.GREW, Why.LATER}
    assert "one tick of the clock" in texts[Why.ONE_STEP]
    assert "it is empty" in texts[Why.EMPTY]
    assert len(set(texts.values())) == len(Why)
    late = waiting_room._waits(SettlingWait(seconds=86400, need_s=86400, in_place=True, grew=True), now)
    assert "taken at 2026-02-01 20:31:35 " in late.text


@pytest.mark.parametrize(
    ("there", "command"),
    [(["fuser", "lsof"], "sudo fuser -v '/i/a b'"), (["lsof"], "sudo lsof '/i/a b'"), ([], "")],
)
def test_a_program_that_is_not_there_is_not_told_to_be_typed(
    monkeypatch: pytest.MonkeyPatch, there: list[str], command: str
) -> None:
    monkeypatch.setattr(
        "dittohead.model.held.shutil.which", lambda name, path: name if name in there else None
    )
    assert writers(b"/i/a b") == command


@pytest.mark.parametrize("number", ["EACCES", "EIO", "ESTALE", "EUCLEAN", "ENOTCONN", "ENOMEM", "EMFILE"])
async def test_an_error_of_one_arrival_is_that_ones_alone(
    tmp_path: Path, trouble: Trouble, number: str
) -> None:
    """It is held with the reason; the others go on, also its owner's, and it goes on when it can."""
    harness = Harness(tmp_path)
    code = getattr(errno, number)
    trouble.errors["bad"] = OSError(code, os.strerror(code))
    harness.arrive("bad")
    harness.arrive("good")
    async with harness.running():
        await harness.until_over("good")
        (held,) = harness.dispatch.held.values()
        assert (held.kind, held.reason) == (
            HeldKind.UNREADABLE,
            f"it cannot be looked at ({os.strerror(code)})",
        )
        assert held.command.startswith("sudo chgrp root " if number == "EACCES" else "ls -la ")
        assert harness.where("bad") == ["inbox"]
        assert harness.dispatch.backlog == 1
        trouble.errors.clear()
        harness.dispatch._try_again(harness.dispatch._waiting[b"bad"].arrival)
        assert (await harness.until_over("bad")).state is JobState.DONE
    assert harness.dispatch.held == {}


async def test_an_error_while_it_is_claimed_is_that_ones_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where not even its owner and mode can be told, as on a mount of another user."""
    harness = Harness(tmp_path)
    harness.arrive("bad")
    harness.arrive("good")
    refused = {os.fsencode(harness.root / "inbox" / "bad")}
    real_rename, real_lstat = os.rename, os.lstat

    def rename(source: bytes, destination: bytes) -> None:
        if source in refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source)
        real_rename(source, destination)

    def lstat(path: Any, **more: Any) -> os.stat_result:
        if os.fsencode(path) in refused:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real_lstat(path, **more)

    monkeypatch.setattr("dittohead.folders.stations.rename_noreplace", rename)
    monkeypatch.setattr("dittohead.folders.stations.os.lstat", lstat)
    monkeypatch.setattr(
        waiting_room,
        "read_activity",
        lambda *a, **k: folder_activity.read_activity(harness.root / "inbox", [], stop=Stop(), now_ns=0),
    )
    async with harness.running():
        await harness.until_over("good")
        assert "this folder cannot be moved (Permission denied)" in harness.dispatch.held[b"bad"].reason


async def test_arrivals_that_never_answer_hold_up_nobody(
    tmp_path: Path, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are threads; each is said to hang, and goes on when it answers."""
    monkeypatch.setattr(waiting_room, "_STALL_S", 0.3)
    monkeypatch.setattr(waiting_room, "_PATIENCE_S", 0.01)
    harness = Harness(tmp_path)
    names = [f"hung-{number}" for number in range(waiting_room._WALKS * 2)]
    trouble.hanging.update(names)
    for name in names:
        harness.arrive(name)
    async with harness.running():
        await harness.until(lambda: len(harness.dispatch.held) == len(names))
        assert {held.kind for held in harness.dispatch.held.values()} == {HeldKind.SILENT}
        harness.arrive("good")
        harness.offer()
        await harness.until_over("good")
        before = len(trouble.has_preflight)
        harness.offer()
        await asyncio.sleep(0.05)
        assert len(trouble.has_preflight) == before  # no other thread is sent after those that hang
        trouble.go_on.set()
        trouble.hanging.clear()
        for waiting in list(harness.dispatch._waiting.values()):
            await harness.until(
                lambda w=waiting: all(p.over for p in harness.claimer.waiting_room._hung.values())
            )
            harness.dispatch._try_again(waiting.arrival)
        for name in names:
            await harness.until_over(name)


async def test_a_long_look_is_waited_for_beside_the_others(
    tmp_path: Path, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of very many files; what the look saw is used when it has ended."""
    monkeypatch.setattr(waiting_room, "_PATIENCE_S", 0.01)
    harness = Harness(tmp_path)
    trouble.hanging.add("large")
    harness.arrive("large")
    harness.arrive("small")
    async with harness.running():
        await harness.until_over("small")
        assert harness.dispatch.held == {}
        assert harness.dispatch.backlog == 1
        trouble.go_on.set()
        await harness.until_over("large")
    assert trouble.has_preflight.count("large") == 1


async def test_a_long_look_of_a_while_ago_is_not_believed(
    tmp_path: Path, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All slots were taken when it was over; somebody began to write again, and is waited for."""
    monkeypatch.setattr(waiting_room, "_PATIENCE_S", 0.01)
    harness = Harness(tmp_path, SETTLING)
    folder, watch = harness.arrive("large"), harness.config.settings.watch
    (arrival,) = harness.stations.scan().arrivals
    await asyncio.sleep(0.3)
    trouble.hanging.add("large")
    room = harness.claimer.waiting_room
    assert isinstance(await room.admit(arrival, watch, []), Held)
    monkeypatch.setattr(waiting_room, "_PATIENCE_S", 60)
    trouble.go_on.set()
    await harness.until(lambda: not room._pending)
    (seen,) = room._seen.values()
    room._seen = {key: replace(seen, at=seen.at - 60, began=seen.began - 60) for key in room._seen}
    (folder / "b").write_bytes(b"more")
    held = await room.admit(arrival, watch, [])
    assert isinstance(held, Held)
    assert trouble.has_preflight == ["large", "large"]
    await asyncio.sleep(0.5)
    assert await room.admit(arrival, watch, []) == len("hellomore")


async def test_who_came_too_late_for_its_long_look_is_waited_for(
    tmp_path: Path, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another folder takes its turn each time."""
    monkeypatch.setattr(waiting_room, "_PATIENCE_S", 0.01)
    harness = Harness(tmp_path)
    harness.arrive("large")
    (arrival,) = harness.stations.scan().arrivals
    watch, room = (
        Watch.model_validate({"settle": "1ms", "settle_in_place": "1ms"}),
        harness.claimer.waiting_room,
    )
    trouble.pause_s = 0.2
    assert isinstance(await room.admit(arrival, watch, []), Held)
    await harness.until(lambda: not room._pending)
    (seen,) = room._seen.values()
    room._seen = {key: replace(seen, at=seen.at - 60, began=seen.began - 60) for key in room._seen}
    assert await room.admit(arrival, watch, []) == len("hello")


async def test_many_wait_beside_each_other_and_hold_no_slot(tmp_path: Path) -> None:
    """More than there are slots; one that is old enough passes them, and each goes on when it is due."""
    harness = Harness(tmp_path, SETTLING.replace("200ms", "400ms"))
    harness.arrive("old")
    await asyncio.sleep(0.5)
    for number in range(20):
        harness.arrive(f"new-{number:02}")
    async with harness.running():
        await harness.until_over("old")
        assert harness.dispatch.oldest is not None
        for number in range(20):
            await harness.until_over(f"new-{number:02}")
    assert all(job.state is JobState.DONE for job in harness.jobs())


async def test_what_grows_is_not_taken_before_it_has_stopped(tmp_path: Path) -> None:
    # Long enough that the file below comes in time on any machine.
    harness = Harness(tmp_path, SETTLING.replace("200ms", "3s"))
    folder = harness.arrive("grows", {"a": b"1"})
    async with harness.running():
        await harness.until(lambda: b"grows" in harness.dispatch._waiting)
        (folder / "b").write_bytes(b"2")
        job = await harness.until_over("grows")
    assert job.files == 2


async def test_a_mark_holds_a_folder_until_it_is_gone(tmp_path: Path) -> None:
    """However old it is; it is named, with what to do."""
    harness = Harness(tmp_path)
    folder = harness.arrive("x", {"a.tif.filepart": b"1"})
    async with harness.running():
        await harness.until(lambda: b"x" in harness.dispatch.held)
        why = harness.dispatch.held[b"x"].text
        assert why.startswith("a.tif.filepart: so is called what is still being uploaded")
        assert "watch: {partial: ...}" in why
        (folder / "a.tif.filepart").rename(folder / "a.tif")
        assert (await harness.until_over("x")).state is JobState.DONE


async def test_a_pipeline_may_have_other_marks(tmp_path: Path) -> None:
    """Where such names belong to the folders."""
    harness = Harness(tmp_path, CONFIG.replace('match: "[^!].*"', 'match: "[^!].*"\n    partial: []'))
    harness.arrive("x", {"a.part": b"1"})
    async with harness.running():
        assert (await harness.until_over("x")).state is JobState.DONE


async def test_what_changed_since_the_look_is_met_before_the_end(tmp_path: Path) -> None:
    """Written between the look and the manifest, and on: the end waits as long as the claim would."""
    harness = Harness(tmp_path, SETTLING)
    folder = harness.arrive("x", {"a": b"1"})
    payload = harness.root / "processing" / "x"
    await asyncio.sleep(0.3)

    async def play(ctx: Any) -> Any:
        os.utime(payload / "a")  # no change of what it holds
        return Done()

    harness.worker.plays["third"] = play
    checks: list[float] = []
    real = manifest.recheck

    def recheck(*args: Any, **more: Any) -> manifest.ManifestCheck:
        checks.append(0.0)
        if len(checks) == 1:
            found = real(*args, **more)
            (payload / "late").write_bytes(b"more")
            return found
        return real(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "recheck", recheck)
        async with harness.running():
            job = await harness.until_over("x")
    assert job.state is JobState.FAILED
    assert "late: this was added after the folder was handed over" in job.reason
    assert not folder.exists()


async def test_a_program_that_still_has_a_file_open_fails_the_job_at_its_end(tmp_path: Path) -> None:
    """Opened after the look: it may write at any moment."""
    harness = Harness(tmp_path, SETTLING)
    harness.arrive("x", {"a": b"1"})
    held = []

    async def play(ctx: Any) -> Any:
        held.append(open(harness.root / "processing" / "x" / "a", "ab"))  # noqa: SIM115
        return Done()

    harness.worker.plays["first"] = play
    try:
        async with harness.running():
            job = await harness.until_over("x")
    finally:
        held[0].close()
    assert job.state is JobState.FAILED
    assert "a: this was still open for writing by a program on this machine" in job.reason


def test_a_refusal_says_what_it_can(tmp_path: Path) -> None:
    stations = Stations(tmp_path)
    stations.prepare()
    (tmp_path / "inbox" / "x").mkdir(mode=0o750)
    known = refusal(PermissionError(errno.EACCES, "no"), tmp_path / "inbox" / "x", tmp_path / "done")
    error = PermissionError(errno.EACCES, "Permission denied")
    unknown = refusal(error, tmp_path / "inbox" / "gone", tmp_path / "done")
    assert isinstance(known, StationError)
    assert "mode 0750" in known.what
    assert unknown.what == "this folder cannot be moved (Permission denied)"
