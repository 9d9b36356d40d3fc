"""A value in the store that nobody can have written ends no list, no search, no start; its row is named."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
import structlog

from dittohead.admin import views
from dittohead.admin.row_check import RowCheck
from dittohead.config.loader import SourceSetting
from dittohead.contract.source import SourceOptions
from dittohead.contract.worker import StepContext, StepResult, Wait
from dittohead.engine.reconcile import reconcile
from dittohead.model.errors import ItemError
from dittohead.model.job_filter import JobFilter
from dittohead.model.states import JobState
from dittohead.store import custody, damage, history, numbers, queries
from dittohead.store import jobs as job_store
from dittohead.store import outbox as outbox_store
from dittohead.store import requests as request_store
from dittohead.store import suspects as suspect_store
from dittohead.store import targets as target_store
from dittohead.store.columns import FolderPath, Id, Json, Moment, Whole
from dittohead.store.damage import TABLES
from dittohead.store.search import find
from dittohead.web.pages import front
from dittohead.web.pages import job as page_job
from tests.support.harness import Harness
from tests.support.length import budget

#: What SQLite keeps in any column.
NONSENSE: tuple[Any, ...] = (
    "nonsense",
    b"\xff\x00",
    9.9e307,
    "",
    "[1, {",
    '{"steps": [1]}',
    "null",
)

COLUMNS = [
    (table.name, column.name) for table in TABLES for column in table.columns if not column.primary_key
]


#: All of them; `make test` takes those that every folder meets.
TABLES_FIRST = budget(TABLES, *(table for table in TABLES if table.name in ("jobs", "events")))


async def fails(ctx: StepContext) -> StepResult:
    raise ItemError("no", where="a.txt")


@pytest.fixture
async def full(harness: Harness) -> Harness:
    """With a row in every table."""
    harness.worker.plays["second"] = fails
    for name in ("bad", "good"):
        harness.arrive(name)
        async with harness.running():
            await harness.until_over(name)
        harness.worker.plays.clear()
    await harness.ask("freeze", "good", reason="x")
    now = time.time()
    for table in TABLES:
        if harness.store.run(
            lambda c, t=table: c.execute(sa.select(sa.func.count()).select_from(t)).scalar()
        ):
            continue
        values = {column.name: _plain(column, now) for column in table.columns}
        if values.get("job_id") and table.c.job_id.foreign_keys:
            values["job_id"] = harness.job("good").id
        harness.store.run(lambda c, t=table, v=values: c.execute(t.insert().values(v)))
    return harness


def _plain(column: Any, now: float) -> Any:
    if isinstance(column.type, Json):
        return [] if column.type.kind == "array" else {}
    if getattr(column.type, "known", ()):
        return column.type.known[1]
    for kind, value in ((Moment, now), (Whole, 1), (FolderPath, b"x"), (sa.Integer, 1), (sa.BigInteger, 1)):
        if isinstance(column.type, kind):
            return value
    return "1"


@contextlib.contextmanager
def damaged(harness: Harness, table: str, column: str, value: Any) -> Iterator[bool]:
    """Have a value in a column of every row while inside; give whether SQLite took it."""
    file = str(harness.stations.state / "dittohead.sqlite3")
    with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection:
        before = connection.execute(f"SELECT {column}, rowid FROM {table}").fetchall()
        assert before, table
        try:
            with connection:
                connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
        except sqlite3.IntegrityError:
            yield False
            return
        yield True
        with connection:
            connection.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", before)


def looked_at(harness: Harness) -> None:
    """All that lists, search, status, metrics and the page ask."""
    run = harness.store.run
    run(queries.overview)
    run(queries.totals)
    run(numbers.days, 3)
    run(numbers.paces)
    run(custody.due, time.time() + 1, time.time() + 1, 10)
    run(custody.report, time.time())
    run(custody.wrong, 10)
    run(custody.asked)
    run(custody.being_removed)
    run(custody.to_remove, "p", time.time() + 1, [], 10)
    for job in run(queries.listing):
        run(views.job, harness.stations, job)
        seen = run(page_job.gather, job.id)
        known = page_job.files_of(harness.stations, seen)
        page_job.values(harness.stations, seen, known, {})
        run(history.earlier, job)
    page = run(find, JobFilter(), limit=1)
    assert page.following is None or len(run(find, JobFilter(), after=page.following, limit=1).jobs) == 1
    for wanted in (
        JobFilter(),
        JobFilter(text="good"),
        JobFilter(states=[JobState.DONE]),
        JobFilter(open=True),
    ):
        run(find, wanted, limit=1)
    run(front.gather, [SourceSetting(name="up", kind="s3", options=SourceOptions.model_construct())])
    run(queries.source, "up")
    run(request_store.listing)
    run(request_store.open_requests)
    run(target_store.load)
    run(outbox_store.receiver_rows)
    run(suspect_store.take_over)
    run(job_store.active)
    run(job_store.unmoved)
    run(history.may_be_gone, 10)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("table", TABLES_FIRST, ids=lambda table: table.name)
async def test_nonsense_in_any_column_ends_nothing_and_is_named(full: Harness, table: sa.Table) -> None:
    """Read at once, compared with the stations, at another start; a new folder is done meanwhile."""
    before = {job.id for job in full.store.run(queries.listing)}
    wrong = []
    for column in (column.name for column in table.columns if not column.primary_key):
        for value in NONSENSE:
            with damaged(full, table.name, column, value) as taken:
                if not taken:
                    continue
                try:
                    looked_at(full)
                    named, _ = full.store.run(damage.damaged_rows, table)
                    await reconcile(full.engine, full.claimer, ())  # which may put another value there
                    assert {job.id for job in full.store.run(queries.listing)} == before
                    assert all(row.table == table.name and row.columns == (column,) for row in named)
                    if value == b"\xff\x00" and column != "folder":
                        assert named or isinstance(table.c[column].type, Id)
                except Exception as error:  # all of them are told at once
                    wrong.append(f"{column} = {value!r}: {type(error).__name__}: {str(error)[:200]}")
    assert not wrong, "\n".join(wrong)


async def test_a_job_under_way_with_a_damaged_definition_fails_and_says_so(harness: Harness) -> None:
    """What was to be done with its folder, nobody knows; the folder is as it was."""
    harness.worker.plays["second"] = waits
    harness.arrive("n")
    async with harness.running():
        await harness.until(lambda: [job.state for job in harness.jobs("n")] == [JobState.WAITING])
    harness.worker.plays.clear()
    with damaged(harness, "jobs", "definition", "[]"):
        await harness.ask("poke", "n")
        async with harness.running():
            job = await harness.until_over("n")
        assert (job.state, harness.where("n")) == (JobState.FAILED, ["failed"])
        assert "its row in the store is damaged" in job.reason


async def test_a_step_whose_own_notes_are_damaged_does_not_begin_anew(harness: Harness) -> None:
    """It may have asked somebody outside, and would ask twice."""
    harness.worker.plays["second"] = waits
    harness.arrive("n")
    async with harness.running():
        await harness.until(lambda: [job.state for job in harness.jobs("n")] == [JobState.WAITING])
    tries = len(harness.worker.ran)
    with damaged(harness, "steps", "saved", "[1, {"):
        await harness.ask("poke", "n")
        async with harness.running():
            job = await harness.until_over("n")
        assert (job.state, len(harness.worker.ran)) == (JobState.FAILED, tries)
        assert "had noted of itself" in job.reason


async def waits(ctx: StepContext) -> StepResult:
    return Wait(reason="somebody outside", seconds=3600)


async def test_a_folder_whose_jobs_state_is_damaged_is_not_taken_for_another_job(harness: Harness) -> None:
    """It stays in processing/; when the row is corrected, the job goes on."""
    harness.worker.plays["second"] = waits
    harness.arrive("n")
    async with harness.running():
        await harness.until(lambda: [job.state for job in harness.jobs("n")] == [JobState.WAITING])
    with damaged(harness, "jobs", "state", "nonsense"):
        await reconcile(harness.engine, harness.claimer, ())
        assert (len(harness.jobs("n")), harness.where("n")) == (1, ["processing"])
        (row,) = harness.store.run(damage.listed)
        assert (row.name, row.columns) == ("n", ("state",))
        watch = RowCheck(harness.store)
        with structlog.testing.capture_logs() as logged:
            await watch.round()
            await watch.round()
        assert [line["event"] for line in logged] == ["row.damaged"]
        assert watch.shown == [row.as_dict()]
    harness.worker.plays.clear()
    await harness.ask("poke", "n")
    async with harness.running():
        assert (await harness.until_over("n")).state is JobState.DONE
