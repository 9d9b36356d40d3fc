"""What stays in the inbox until somebody does something: when it is shown and told, of whom, how often."""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import sqlalchemy as sa
from rich.console import Console

from dittohead.admin import notice_limits, overdue
from dittohead.admin.notice_limits import DAY_S, FEW, WEEK_S
from dittohead.admin.overdue import SHOWN, Overdue
from dittohead.cli import status
from dittohead.folders.stations import Scan, Stations
from dittohead.model.errors import Immovable
from dittohead.model.held import AT_ONCE, IN_TIME, Held, HeldKind, immovable, mounted
from dittohead.model.records import Arrival
from dittohead.model.states import Station
from dittohead.notices.compose import Composer
from dittohead.store.tables import outbox
from tests.support.harness import Harness
from tests.support.notices import rule

AFTER_S = 900.0


class Inbox:
    """A harness in whose inbox things are held, and what goes into its outbox."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.harness = Harness(root)
        self.harness.engine.compose = Composer([rule(url="json://h", on=["held"])], root)
        self.harness.engine.wants = lambda event, pipeline: True
        self.held: dict[bytes, Held] = {}
        self.now, self._monotonic = time.time(), time.monotonic()
        began = self.now
        monkeypatch.setattr(overdue.time, "time", lambda: self.now)
        monkeypatch.setattr(notice_limits.time, "monotonic", lambda: self._monotonic + self.now - began)
        self.start()

    def start(self) -> None:
        """As at a start of the daemon."""
        self.told = Overdue(self.harness.engine, self, self._scan, lambda: AFTER_S)

    def _scan(self) -> Scan:
        return self.harness.stations.scan()

    def hold(self, name: str, kind: HeldKind = HeldKind.IMMOVABLE, uid: int = 1, **more: Any) -> None:
        ino = more.pop("ino", len(self.held) + 1)
        arrival = Arrival(folder=name.encode(), dev=1, ino=ino, uid=uid, seen_at=self.now)
        given = {"cure": "Do this", "command": f"do {name}", "since": self.now, **more}
        self.held[name.encode()] = Held(reason="it is so", kind=kind, arrival=arrival, **given)

    async def round(self, later_s: float = 0.0) -> list[dict[str, Any]]:
        """Make a round; return the facts of what came new into the outbox."""
        self.now += later_s
        before = {row.id for row in self._rows()}
        await self.told.round()
        return [row.data for row in self._rows() if row.id not in before]

    def names(self) -> list[str]:
        """Return what is shown."""
        return [one["name"] for one in self.told.shown]

    def _rows(self) -> list[Any]:
        def read(connection: sa.Connection) -> list[Any]:
            return list(connection.execute(sa.select(outbox).order_by(outbox.c.id)))

        return self.harness.store.run(read)


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    made = Inbox(tmp_path / "root", monkeypatch)
    yield made
    made.harness.store.close()


@pytest.mark.parametrize("kind", list(HeldKind))
async def test_what_somebody_must_do_something_about_is_shown_and_told_once(
    inbox: Inbox, kind: HeldKind
) -> None:
    """At once, or when it lasts; never what waits by itself or is told already."""
    inbox.hold("x", kind)
    assert await inbox.round() == []
    assert inbox.names() == (["x"] if kind in AT_ONCE else [])
    told = await inbox.round(AFTER_S)
    assert inbox.names() == (["x"] if kind in AT_ONCE | IN_TIME else [])
    assert [one["arrival"]["kind"] for one in told] == ([kind.value] if inbox.names() else [])
    assert [one["arrival"]["command"] for one in told] == (["do x"] if inbox.names() else [])
    assert await inbox.round(AFTER_S) == []


async def test_an_upload_that_goes_on_is_not_told(inbox: Inbox) -> None:
    """The mark is there all the time, and something changes all the time."""
    for _ in range(5):
        inbox.hold("x", HeldKind.UNFINISHED, ino=1)
        assert await inbox.round(AFTER_S / 2) == []
    assert inbox.names() == []
    assert len(await inbox.round(AFTER_S)) == 1


async def test_a_week_later_again_and_not_after_a_restart(inbox: Inbox) -> None:
    """What was told stands in the store; a folder that is gone and comes again is another."""
    inbox.hold("x")
    assert len(await inbox.round(AFTER_S)) == 1
    inbox.start()
    assert await inbox.round(1) == []
    inbox.held.clear()
    await inbox.round(1)
    inbox.hold("x", ino=1)  # the same number, used again
    assert len(await inbox.round(AFTER_S)) == 1
    # The clock of the outbox is the real one: what it keeps a week for is tried here by itself.
    assert inbox.told._was_told(overdue._thing(b"x", inbox.held[b"x"], 0.0))
    inbox.now += WEEK_S
    assert not inbox.told._was_told(overdue._thing(b"x", inbox.held[b"x"], 0.0))


async def test_thousands_of_one_owner_are_one_notice_and_others_are_told_of_theirs(inbox: Inbox) -> None:
    """Anybody may make them, who may write into the inbox."""
    for number in range(1000):
        inbox.hold(f"m{number:04}", uid=1)
    inbox.hold("other", uid=2)
    mine, other = await inbox.round(AFTER_S)
    assert (mine["count"], len(mine["arrivals"]), mine["more"]) == (1000, SHOWN, 1000 - SHOWN)
    assert other["arrival"]["name"] == "other"
    assert (len(inbox.told.shown), inbox.told.count) == (SHOWN, 1001)
    inbox.hold("new", uid=1)
    assert await inbox.round(AFTER_S) == []
    assert [one["count"] for one in await inbox.round(DAY_S)] == [1001]


async def test_ever_new_ones_are_no_way_around_it(inbox: Inbox) -> None:
    """Each round another, and that of the round before taken away."""
    told = 0
    for number in range(20):
        inbox.held.clear()
        inbox.hold(f"x{number}", ino=number, since=inbox.now - AFTER_S)
        told += len(await inbox.round(60))
    assert told == FEW + 1


async def test_a_stray_is_told_with_how_to_make_a_folder_of_it(inbox: Inbox) -> None:
    """A link or a FIFO is none."""
    path = inbox.harness.stations.path(Station.INBOX)
    (path / "it's.tif").write_bytes(b"1")
    (path / "link").symlink_to("/etc")
    os.mkfifo(path / "fifo")
    (path / "Thumbs.db").write_bytes(b"1")
    (path / ".dotted").write_bytes(b"1")
    inbox.now = time.time() + 60
    told = {one["arrival"]["name"]: one["arrival"] for one in await inbox.round(AFTER_S)}
    assert told.keys() == {"it's.tif", "link", "fifo"}
    assert inbox.told.strays == inbox.told.count == 3
    assert told["link"]["command"] == f"sudo rm -i {path}/link"
    assert told["fifo"]["reason"].startswith("this is a FIFO, mode ")
    assert "mv -nT" in told["it's.tif"]["command"]


async def test_what_cannot_even_be_looked_at_is_shown_without_an_owner(inbox: Inbox) -> None:
    inbox.held[b"m"] = mounted(b"/srv/in box/m")
    (told,) = await inbox.round() or await inbox.round(AFTER_S)
    assert (told["arrival"]["uid"], told["arrival"]["uploader"]) == (None, "")
    assert inbox.told.shown[0]["command"] == "sudo umount '/srv/in box/m'"


def test_status_prints_the_command_whole_in_a_narrow_terminal() -> None:
    """What is broken into lines, or cut, cannot be typed."""
    command = "sudo chgrp -R dittohead " + "/srv/a-long-way" * 20
    one = {"name": "x", "kind": "immovable", "reason": "r", "cure": "c", "command": command, "since": 0}
    found: dict[str, Any] = {
        "counts": {}, "frozen": [], "failed": [], "failed_count": 0, "targets": [], "disabled_receivers": [], "unsent_notices": 0,
    }  # fmt: skip
    to = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    status._print_attention(found, {"overdue": [{**one, "owner": "alice"}], "overdue_count": 3}, to)
    said = to.file.getvalue()
    assert f"\n    {command}\n" in said
    assert "  held x of alice, " in said
    assert "2 more in the inbox" in said


# -- the cures -------------------------------------------------------------------------------


def refused(
    stations: Stations, monkeypatch: pytest.MonkeyPatch, number: int, uid: int, gid: int, mode: int
) -> Held:
    """Return how a folder is held whose rename fails with that errno."""
    folder = stations.path(Station.INBOX) / "x"
    folder.mkdir()
    os.chown(folder, uid, gid)
    folder.chmod(mode)

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("dittohead.folders.stations.rename_noreplace", refuse)
    (arrival,) = stations.scan().arrivals
    with pytest.raises(Immovable) as caught:
        stations.claim(arrival)
    return immovable(caught.value, arrival)


@pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT, TO GIVE FOLDERS AWAY: left out")
def test_each_cause_has_the_cure_that_fits_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the errno, the owner, and the directories around it."""
    opened = "sudo chmod -R g+rwX {0}/x && sudo chgrp -R root {0}/x"
    cases = (
        (errno.EACCES, (60001, 60001), 0o755, None, opened),
        # Of our group: else it could be taken as soon as it has its mode, before what is in it has.
        (errno.EACCES, (60001, 0), 0o755, None, "sudo chgrp root {0}/x && " + opened),
        (errno.EACCES, (0, 0), 0o555, None, "sudo chmod -R u+rwX {0}/x"),
        (errno.EPERM, (60001, 0), 0o775, (60002, 0o1777), "sudo chown root {0}"),
        (errno.EPERM, (60001, 0), 0o775, None, "sudo chattr -R -ia {0}/x"),
    )
    for number, (code, (uid, gid), mode, place, command) in enumerate(cases):
        stations = Stations(tmp_path / str(number))
        stations.prepare()
        inbox = stations.path(Station.INBOX)
        if place:
            os.chown(inbox, place[0], -1)
            inbox.chmod(place[1])
        held = refused(stations, monkeypatch, code, uid, gid, mode)
        monkeypatch.undo()
        assert held.kind is HeldKind.IMMOVABLE
        assert held.command == command.format(inbox)
        assert held.reason.startswith(f"the daemon may not move this folder: mode {mode:04o}, owner ")
        assert stat.S_IMODE((inbox / "x").stat().st_mode) == mode


async def test_a_folder_that_no_room_will_ever_come_for_is_told(tmp_path: Path) -> None:
    """Others are not held up by it; where jobs under way give room back, or all wait, nothing is to be done."""
    harness = Harness(tmp_path / "root")
    pipeline = harness.config.pipelines[0]
    harness.claimer.config = replace(
        harness.config, pipelines=[replace(pipeline, space_factor=1e18), *harness.config.pipelines[1:]]
    )
    harness.arrive("x", {"a": b"1"})
    (arrival,) = harness.stations.scan().arrivals
    held = await harness.claimer.claim(arrival)
    assert isinstance(held, Held)
    assert held.kind is HeldKind.TOO_LARGE
    assert "Make room" in held.cure
    harness.store.close()


async def test_a_namesake_under_way_is_nobodys_fault(tmp_path: Path) -> None:
    """It waits by itself."""
    harness = Harness(tmp_path / "root")
    first = harness.arrive("n")
    first.rename(harness.root / "processing" / "n")
    harness.arrive("n")
    (arrival,) = harness.stations.scan().arrivals
    held = await harness.claimer.claim(arrival)
    assert isinstance(held, Held)
    assert held.kind is HeldKind.NAMESAKE
    assert held.kind not in AT_ONCE | IN_TIME
    harness.store.close()


def test_status_says_in_words_once_what_helps_several_folders() -> None:
    """Each has its own command."""
    common = {"kind": "immovable", "owner": "alice", "since": time.time(), "reason": "mode 0755"}
    held = [
        {**common, "name": name, "cure": cure, "command": f"chmod {name}"}
        for name, cure in (("lab1-a", "Do this"), ("lab1-b", "Do this"), ("lab1-c", "Do that"))
    ]
    said = list(status._overdue({"overdue": held}))
    assert [line.rpartition(". ")[2] for line in said[::2]] == ["Do this", ANY, "Do that"]
    assert "Do this" not in said[2]
    assert [line for line in said if "chmod" in line] == said[1::2]
    assert len(said) == 6
