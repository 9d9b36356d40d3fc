"""Jobs are found by what people know of them; the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from dittohead.model.definition import JobDefinition
from dittohead.model.job_filter import JobFilter
from dittohead.model.records import JobId
from dittohead.model.states import JobState
from dittohead.store import Store, sqlite_url
from dittohead.store import digests as digest_store
from dittohead.store import jobs as job_store
from dittohead.store.jobs import NewJob
from dittohead.store.search import Cursor, find
from dittohead.store.tables import jobs, metadata
from tests.support.harness import Harness
from tests.support.postgres import postgres

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server() -> Iterator[sa.URL]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = Store.open(
        sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("server")
    )
    for number in range(30):
        job = NewJob(
            id=JobId(f"01ARZ3NDEKTSV4RRFFQ69G{number:04}"),
            name=f"Lab{number % 3}_50%-{number}",
            folder=b"x",
            dev=1,
            ino=number,
            uid=1000 + number % 2,
            pipeline="scans" if number % 2 else "raw",
            definition=JobDefinition(),
            values={},
            steps=[],
            host="h",
        )
        made.run(job_store.create, job)
        state = JobState.FAILED if number == 7 else JobState.DONE
        # Some were claimed in the same moment.
        changes = {"state": state.value, "claimed_at": 1000.0 + number // 4}
        made.run(lambda c, id=job.id, to=changes: c.execute(jobs.update().where(jobs.c.id == id).values(to)))
    yield made
    if request.param == "postgresql":
        made.run(lambda c: [c.execute(table.delete()) for table in reversed(metadata.sorted_tables)])
    made.close()


def names(store: Store, **wanted: object) -> list[str]:
    return [job.name for job in store.run(find, JobFilter(**wanted)).jobs]  # type: ignore[arg-type]


def test_pages_hold_every_job_once_the_latest_first(store: Store) -> None:
    """Also where several were claimed in one moment, and when the cursor travelled through a URL."""
    seen: list[int] = []
    cursor: Cursor | None = None
    while True:
        page = store.run(find, JobFilter(), after=cursor, limit=7)
        seen.extend(job.ino for job in page.jobs)
        if page.following is None:
            break
        cursor = Cursor.read(str(page.following))
    assert seen == list(reversed(range(30)))


def test_each_condition_leaves_out_what_does_not_fit(store: Store) -> None:
    """State, pipeline, uploader, dates."""
    assert names(store, states=[JobState.FAILED]) == ["Lab1_50%-7"]
    assert len(names(store, pipeline="raw")) == 15
    assert len(names(store, uid=1001)) == 15
    assert len(names(store, name="Lab1_50%-7")) == 1
    since = datetime.fromtimestamp(1006, UTC)
    assert names(store, since=since) == [f"Lab{n % 3}_50%-{n}" for n in range(29, 23, -1)]
    assert len(names(store, until=since)) == 24


def test_a_text_is_part_of_a_name_or_the_beginning_of_an_id(store: Store) -> None:
    """In any case of letters; what databases take for wildcards stands for itself."""
    assert len(names(store, text="lab2")) == 10
    assert len(names(store, text="b0_50%-")) == 10
    assert names(store, text="b0x50%") == []
    assert names(store, text="01arz3ndektsv4rrffq69g0012") == ["Lab0_50%-12"]
    assert len(names(store, text="01ARZ3NDEKTSV4RRFFQ69G000")) == 10


@pytest.mark.parametrize("first", ["00", "7f", "80", "ff"])
def test_a_file_is_found_by_its_digest(store: Store, first: str) -> None:
    """By the whole SHA-256 or its beginning, whatever its first bit; recorded twice is found once."""
    digest = first + hashlib.sha256(first.encode()).hexdigest()[2:]
    wanted = JobId("01ARZ3NDEKTSV4RRFFQ69G0003")
    for _ in range(2):
        store.run(digest_store.add, wanted, [digest_store.head(digest)])
    for text in (digest, digest.upper(), digest[:16], digest[:9]):
        assert names(store, text=text) == ["Lab0_50%-3"]
    assert names(store, text=digest[:8] + ("0" if digest[8] != "0" else "1")) == []


@pytest.mark.parametrize("text", ["", "x", "bnVsbA", "WzEsMl0", "é", "WyJhIiwgImIiXQ"])
def test_what_is_no_cursor_is_said_to_be_none(text: str) -> None:
    """Not a traceback, and not the first page again."""
    with pytest.raises(ValueError, match="no cursor"):
        Cursor.read(text)


async def test_files_given_are_found_once_their_job_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is committed with the job's end, also where it needs several transactions."""
    monkeypatch.setattr(digest_store, "AT_ONCE", 1)
    harness = Harness(tmp_path)
    harness.arrive("many", {f"{n}.txt": f"{n}" for n in range(3)})
    async with harness.running():
        await harness.until_over("many")
    for content in (b"0", b"1", b"2"):
        page = harness.store.run(find, JobFilter(text=hashlib.sha256(content).hexdigest()))
        assert [job.name for job in page.jobs] == ["many"]
