"""Counts over many jobs: the same on SQLite and on PostgreSQL, and bounded by an index, not by their number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dittohead.model.definition import JobDefinition
from dittohead.model.records import JobId
from dittohead.model.states import JobState, StepState
from dittohead.model.units import duration, size
from dittohead.store import Store, numbers, sqlite_url
from dittohead.store import jobs as job_store
from dittohead.store.jobs import NewJob
from dittohead.store.numbers import DAY_S
from dittohead.store.tables import jobs, metadata, steps
from dittohead.web.pages.plots import bars, top, top_bytes, trace
from tests.support.postgres import postgres

pytestmark = pytest.mark.service

#: Noon of a day.
NOON = 20_000 * DAY_S + DAY_S / 2


@pytest.fixture(scope="module")
def server() -> Iterator[sa.URL]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = Store.open(
        sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("server")
    )
    yield made
    if request.param == "postgresql":
        made.run(lambda c: [c.execute(table.delete()) for table in reversed(metadata.sorted_tables)])
    made.close()


def add(
    store: Store, number: int, state: JobState, claimed: float, ended: float | None, size: int = 10
) -> str:
    id_ = JobId(f"01ARZ3NDEKTSV4RRFFQ69G{number:04}")
    new = NewJob(
        id=id_,
        name=f"n{number}",
        folder=b"x",
        dev=1,
        ino=number,
        uid=1,
        pipeline="p",
        definition=JobDefinition(),
        values={},
        steps=[("one", "checksum"), ("two", "rsync")],
        host="h",
    )
    store.run(job_store.create, new)
    values: dict[str, Any] = {"state": state.value, "claimed_at": claimed, "finished_at": ended, "size": size}
    store.run(lambda c: c.execute(jobs.update().where(jobs.c.id == id_).values(values)))
    return id_


def test_days_hold_what_was_claimed_and_ended_on_them(store: Store) -> None:
    """To the second at midnight; days without any stand there; what was left is reckoned back from now."""
    midnight = NOON - DAY_S / 2
    add(store, 1, JobState.DONE, NOON - DAY_S, midnight - 0.001, 5)
    add(store, 2, JobState.DONE, NOON - DAY_S, midnight, 7)
    add(store, 3, JobState.FAILED, NOON - 3 * DAY_S, NOON, 100)
    add(store, 4, JobState.WAITING, NOON - 9 * DAY_S, None)
    add(store, 5, JobState.DONE, NOON - 30 * DAY_S, NOON - 29 * DAY_S, 1000)
    found = store.run(numbers.days, 4, NOON)
    assert [(day.claimed, day.done, day.failed, day.size, day.left) for day in found] == [
        (1, 0, 0, 0, 2),
        (0, 0, 0, 0, 2),
        (2, 1, 0, 5, 3),
        (0, 1, 1, 7, 1),
    ]
    assert [day.start for day in found] == [midnight - n * DAY_S for n in (3, 2, 1, 0)]
    assert store.run(numbers.size_before, found[0].start) == 1000
    assert store.run(numbers.done_since, midnight) == (1, 7)


def test_steps_are_timed_by_nearest_rank_over_the_latest_jobs(store: Store) -> None:
    """Steps that never ran count for nothing; earlier jobs fall out of the sample."""
    for number in range(1, 22):
        id_ = add(store, number, JobState.DONE, 1000.0 + number, 2000.0)
        took = {"state": StepState.DONE.value, "started_at": 10.0, "finished_at": 10.0 + number}
        store.run(
            lambda c, i=id_, v=took: c.execute(
                steps.update().where(steps.c.job_id == i, steps.c.position == 0).values(v)
            )
        )
    (pace,) = store.run(numbers.paces, 20)
    assert (pace.pipeline, pace.step, pace.worker, pace.count) == ("p", "one", "checksum", 20)
    assert (pace.median, pace.p95) == (11.0, 20.0)


def test_an_empty_store_has_numbers_too(store: Store) -> None:
    """And plots that can be drawn."""
    found = store.run(numbers.days, 14)
    assert len(found) == 14
    assert store.run(numbers.paces) == []
    assert store.run(numbers.done_since, 0.0) == (0, 0)
    assert store.run(numbers.waiting_for, []) == {}
    assert bars(found)["bars"] == []
    assert "nan" not in trace([0] * 14, found, size)["line"]


def test_what_ended_is_counted_by_an_index_alone(tmp_path: Path) -> None:
    """SQLite answers from the index, and reads no job's row."""
    store = Store.open(sqlite_url(tmp_path))
    asked: list[tuple[str, Any]] = []

    @sa.event.listens_for(store.engine, "before_cursor_execute")
    def _note(conn: Any, cursor: Any, statement: str, given: Any, context: Any, many: bool) -> None:
        if "finished_at" in statement and statement.startswith("SELECT"):
            asked.append((statement, given))

    store.run(numbers.days, 30)
    store.run(numbers.done_since, 1.0)
    store.run(numbers.size_before, 1.0)
    for statement, given in list(asked):
        plan = store.run(
            lambda c, s=statement, g=given: c.exec_driver_sql(f"EXPLAIN QUERY PLAN {s}", g).all()
        )
        assert "COVERING INDEX ix_jobs_finished_at_state_size" in plan[0][3], plan
    assert len(asked) >= 3
    store.close()


@pytest.mark.parametrize(
    ("most", "highest"),
    [
        (0, 2),
        (1, 2),
        (3, 4),
        (5, 6),
        (7, 10),
        (10, 10),
        (11, 20),
        (45, 50),
        (99, 100),
        (0.3, 2),
        (200_001, 400_000),
    ],
)
def test_scales_end_at_round_numbers(most: float, highest: float) -> None:
    """At or above what is drawn; half of it, which is named as well, is a whole number."""
    assert top(most) == pytest.approx(highest)
    assert (top(most) / 2).is_integer()


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1,023 bytes"),
        (1024, "1.0 KiB"),
        (1 << 20, "1.0 MiB"),
        ((1 << 20) - 1, "1,024 KiB"),
        (150 << 30, "150 GiB"),
        (5 << 60, "5,120 PiB"),
    ],
)
def test_sizes_are_said_in_binary_units(count: int, said: str) -> None:
    """One unit, no more digits than tell anything."""
    assert size(count) == said
    assert top_bytes(count) >= count


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0123, "12 ms"),
        (5.25, "5.2 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (7260, "2 h 1 min"),
        (86400.0, "1 d"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float, said: str) -> None:
    """From milliseconds to days."""
    assert duration(seconds) == said
