"""Uploads that nobody goes on with: people are told few times of one owner's, however many they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog

from dittohead.admin import notice_limits
from dittohead.admin.notice_limits import FEW
from dittohead.admin.stale_uploads import SHOWN, StaleUploads
from dittohead.model.states import Station
from dittohead.notices.compose import Composer
from dittohead.store.tables import outbox
from dittohead.system.users import owner
from tests.support.harness import Harness
from tests.support.notices import rule

_DAY_S = 86400.0


class Uploads:
    """A harness with uploads of several owners, and what goes into its outbox."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.harness = Harness(root)
        self.composer = Composer([rule(url="json://h", on=["stale"])], root)
        self.harness.engine.compose = self.composer
        self.harness.engine.wants = lambda event, pipeline: True
        self.now, self.uids = 1e6, dict[bytes, int]()
        monkeypatch.setattr(notice_limits.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(StaleUploads, "_uid", lambda told, folder: self.uids.get(folder))
        self.told = StaleUploads(self.harness.engine)

    def begin(self, uid: int, *names: str) -> None:
        for name in names:
            (self.harness.stations.path(Station.INBOX) / name).mkdir()
            self.uids[os.fsencode(name)] = uid

    async def round(self) -> list[dict[str, Any]]:
        """Make a round; return the facts of what came new into the outbox."""
        before = {row.id for row in self.rows()}
        await self.told.round(sorted(self.uids), 0.0)
        return [row.data for row in self.rows() if row.id not in before]

    def rows(self) -> list[Any]:
        def read(connection: sa.Connection) -> list[Any]:
            return list(connection.execute(sa.select(outbox).order_by(outbox.c.id)))

        return self.harness.store.run(read)


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Uploads]:
    made = Uploads(tmp_path / "root", monkeypatch)
    yield made
    made.harness.store.close()


async def test_a_few_are_told_of_each_by_itself_and_once(uploads: Uploads) -> None:
    """As many owners as there are; a week later again."""
    uploads.begin(1, ".a", ".b")
    uploads.begin(2, ".c")
    first = await uploads.round()
    assert sorted(found["upload"]["name"] for found in first) == [".a", ".b", ".c"]
    assert [found["count"] for found in first] == [1, 1, 1]
    assert await uploads.round() == []
    uploads.begin(1, ".d")
    assert [found["upload"]["name"] for found in await uploads.round()] == [".d"]


async def test_thousands_of_one_owner_are_one_notice_and_others_are_told_of_theirs(uploads: Uploads) -> None:
    """Anybody may make them, who may write into the inbox; new ones are told of the next day."""
    uploads.begin(1, *(f".m{number:04}" for number in range(1000)))
    uploads.begin(2, ".a")
    with structlog.testing.capture_logs() as logged:
        mine, other = await uploads.round()
    assert (mine["count"], len(mine["uploads"]), mine["more"]) == (1000, SHOWN, 1000 - SHOWN)
    assert other["upload"]["name"] == ".a"
    assert [line.get("more") for line in logged] == [*[None] * FEW, 1000 - FEW, None]
    assert (len(uploads.told.shown), uploads.told.count) == (SHOWN, 1001)
    for number in range(3):
        uploads.begin(1, f".new{number}")
        assert await uploads.round() == []
        uploads.now += _DAY_S / 4
    uploads.now += _DAY_S / 4
    assert [found["count"] for found in await uploads.round()] == [1003]


async def test_few_at_a_time_but_ever_new_ones_are_no_way_around_it(uploads: Uploads) -> None:
    """Each round others, and those of the round before taken away."""
    told = 0
    for number in range(20):
        for name in list(uploads.uids):
            (uploads.harness.stations.path(Station.INBOX) / os.fsdecode(name)).rmdir()
        uploads.uids.clear()
        uploads.begin(1, f".a{number}", f".b{number}")
        told += len(await uploads.round())
        uploads.now += 600
    assert told <= FEW + 1


async def test_after_a_restart_the_same_are_not_told_of_again(uploads: Uploads) -> None:
    """What was told stands in the store."""
    uploads.begin(1, *(f".m{number}" for number in range(FEW + 1)))
    uploads.begin(2, ".a")
    assert len(await uploads.round()) == 2
    uploads.told = StaleUploads(uploads.harness.engine)
    assert await uploads.round() == []


async def test_the_words_say_what_it_is_and_what_to_do_and_never_to_remove_it(uploads: Uploads) -> None:
    """It may be the only copy there is. The command does what it says, and no more."""
    uploads.begin(1, ".it's")
    await uploads.round()
    inbox = uploads.harness.stations.path(Station.INBOX)
    (row,) = uploads.rows()
    assert row.subject == "Stale upload: .it's"
    assert "It may be the only copy." in row.body
    assert f"""mv -nT '{inbox}/.it'"'"'s' '{inbox}/it'"'"'s'""" in row.body
    uploads.begin(2, *(f".m{number:02}" for number in range(60)))
    for number in range(60):
        (inbox / f"m{number:02}").mkdir()
    await uploads.round()
    row = uploads.rows()[-1]
    assert row.subject == f"60 stale uploads of {owner(2).user}"
    assert "and 10 more of" in row.body
    for body in (found.body.lower() for found in uploads.rows()):
        assert "delete" not in body
        assert "remove" not in body
    # A name that is taken is not a place to move it to.
    assert {one["hand_over"] for one in row.data["uploads"]} == {""}
