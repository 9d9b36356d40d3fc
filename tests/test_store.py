"""The store: the same promises on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from dittohead.model.definition import JobDefinition, StepTotals
from dittohead.model.errors import StoreError, Superseded
from dittohead.model.events import Event, EventType
from dittohead.model.records import JobId, RequestAnswer
from dittohead.model.states import JobState, StepState
from dittohead.store import Store, schema, sqlite_url
from dittohead.store import catalogue as catalogue_store
from dittohead.store import jobs as job_store
from dittohead.store import requests as request_store
from dittohead.store import suspects as suspect_store
from dittohead.store import targets as target_store
from dittohead.store.jobs import NewJob
from dittohead.store.tables import metadata
from dittohead.store.targets import TargetRow
from tests.support.harness import Harness
from tests.support.postgres import postgres

pytestmark = pytest.mark.service


@pytest.fixture(scope="session")
def server() -> Iterator[sa.URL]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        made = Store.open(sqlite_url(tmp_path))
    else:
        made = Store.open(request.getfixturevalue("server"))
    yield made
    if request.param == "postgresql":
        made.run(lambda c: [c.execute(table.delete()) for table in reversed(metadata.sorted_tables)])
    made.close()


EVENT = Event(type=EventType.FIXITY, outcome="success", detail="d", agent="a")


def new_job(store: Store, number: int = 1, name: str = "x") -> str:
    job = NewJob(
        id=JobId(f"J{number:025}"),
        name=name,
        folder=b"bad\xff",
        dev=2**63 + 5,
        ino=2**64 - 1,
        uid=1000,
        pipeline="p",
        definition=JobDefinition(),
        values={"a": "ü"},
        steps=[("one", "script"), ("two", "script")],
        host="h",
    )
    return store.run(job_store.create, job, EVENT).id


def test_a_job_comes_back_as_it_was_put_in(store: Store) -> None:
    """Names that are not text, inodes of 64 bits, groups with umlauts."""
    job = store.run(job_store.get, new_job(store))
    assert (job.folder, job.dev, job.ino, job.values) == (b"bad\xff", 2**63 + 5, 2**64 - 1, {"a": "ü"})
    assert (job.state, job.token) == (JobState.RUNNING, 1)
    assert [e.detail for e in store.run(job_store.events_of, job.id)] == ["d"]


def test_a_steps_result_its_events_and_the_next_start_are_one_commit(store: Store) -> None:
    """All or nothing."""
    job_id = new_job(store)
    job, _, _ = store.run(job_store.begin_run, job_id)
    store.run(job_store.start_step, job_id, job.token, 0)
    store.run(
        job_store.finish_step,
        job_id,
        job.token,
        0,
        result=StepTotals(outputs=1),
        found=[EVENT],
        following=[1],
    )
    steps = store.run(job_store.steps_of, job_id)
    assert [s.state for s in steps] == [StepState.DONE, StepState.RUNNING]
    assert steps[0].result == StepTotals(outputs=1)
    assert len(store.run(job_store.events_of, job_id)) == 2


def test_an_old_token_changes_nothing(store: Store) -> None:
    """Whatever a superseded run wants to write."""
    job_id = new_job(store)
    old, _, _ = store.run(job_store.begin_run, job_id)
    store.run(job_store.begin_run, job_id)
    for attempt in (
        lambda: store.run(job_store.start_step, job_id, old.token, 0),
        lambda: store.run(job_store.save_step, job_id, old.token, 0, {"x": 1}),
        lambda: store.run(
            job_store.finish_step, job_id, old.token, 0, result=StepTotals(), found=[EVENT], following=[1]
        ),
        lambda: store.run(job_store.update_job, job_id, old.token, reason="x"),
    ):
        with pytest.raises(Superseded):
            attempt()
    assert len(store.run(job_store.events_of, job_id)) == 1


def test_a_step_that_sees_the_daemon_die_counts_it(store: Store) -> None:
    """Once for each death, however many starts follow it; and not for a run that the store truncated."""
    job_id = new_job(store)
    for met in range(3):
        for _ in range(2):  # a run that ended without the daemon
            job, _, crashes = store.run(job_store.begin_run, job_id)
            assert crashes == met
            store.run(job_store.start_step, job_id, job.token, 0)
        for _ in range(2):  # a start that came to nothing
            assert store.run(suspect_store.take_over) == {job_id: {0: met + 1}}


def test_due_jobs_come_oldest_first_and_sleeping_ones_not(store: Store) -> None:
    """What dispatch asks for."""
    ids = [new_job(store, number) for number in (1, 2, 3)]
    job, _, _ = store.run(job_store.begin_run, ids[1])
    put_off = {"state": JobState.WAITING, "reason": "r", "wake_at": 5000.0}
    store.run(job_store.put_off, ids[1], job.token, **put_off)
    assert [j.id for j in store.run(job_store.ready, 4000.0, 10, [])] == [ids[0], ids[2]]
    assert store.run(job_store.next_wake, 4000.0) == 5000.0
    assert [j.id for j in store.run(job_store.ready, 6000.0, 10, [ids[0]])] == [ids[1], ids[2]]


def put_off(store: Store, number: int, *waits_for: str, wake_at: float | None = None) -> str:
    job_id = new_job(store, number)
    job, _, _ = store.run(job_store.begin_run, job_id)
    for position, target in enumerate(waits_for):
        store.run(job_store.put_off_step, job_id, job.token, position, {"target": target})
    state = JobState.PAUSED if wake_at is None else JobState.WAITING
    changes = {"state": state, "reason": "r", "wake_at": wake_at, "waits_for": waits_for}
    store.run(job_store.put_off, job_id, job.token, **changes)
    return job_id


def test_whoever_waits_for_a_target_is_found_and_woken_whatever_else_it_waits_for(store: Store) -> None:
    """Also for the clock, and for two targets."""
    for name in ("t", "u", "v"):
        row = TargetRow(
            name=name, paused=True, reason="r", since=1.0, probe_at=2.0, failures=1, nearly_full=False
        )
        store.run(target_store.put, row)
    both, clock = put_off(store, 1, "u", "t"), put_off(store, 2, "t", wake_at=5000.0)
    assert store.run(target_store.first_waiting, "t") == both
    assert store.run(target_store.first_waiting, "u") == both
    assert store.run(target_store.first_waiting, "v") is None
    store.run(target_store.wake, "u")
    assert store.run(target_store.first_waiting, "u") is None
    assert [job.id for job in store.run(job_store.ready, 4000.0, 10, [])] == [both]
    store.run(target_store.wake, "t")
    assert [job.id for job in store.run(job_store.ready, 4000.0, 10, [])] == [both, clock]


def test_a_job_laid_aside_for_a_target_that_was_resumed_meanwhile_is_tried_at_once(store: Store) -> None:
    """Anyone who resumed it has woken those that waited then; nobody would wake this one."""
    row = TargetRow(
        name="t", paused=False, reason="", since=None, probe_at=None, failures=0, nearly_full=False
    )
    store.run(target_store.put, row)
    ids = [put_off(store, 1, "t"), put_off(store, 2, "t", wake_at=5000.0)]
    assert [job.id for job in store.run(job_store.ready, 4000.0, 10, [])] == ids


def test_a_job_that_an_earlier_version_forgot_goes_on(store: Store) -> None:
    """It waits for a target that is not paused."""
    job_id = new_job(store)
    job, _, _ = store.run(job_store.begin_run, job_id)
    gone = {"state": JobState.PAUSED.value, "target": "t"}
    store.run(job_store.update_job, job_id, job.token, **gone)
    store.run(target_store.wake_forgotten)
    assert [job.id for job in store.run(job_store.ready, 4000.0, 10, [])] == [job_id]


def test_targets_and_requests_are_kept(store: Store) -> None:
    """Put twice, read once."""
    row = TargetRow(name="t", paused=True, reason="r", since=1.0, probe_at=2.0, failures=1, nearly_full=False)
    store.run(target_store.put, row)
    store.run(target_store.put, row)
    assert store.run(target_store.load) == [row]
    number = store.run(request_store.add, "retry", "x", {"from": "one"}, "me")
    assert [r.id for r in store.run(request_store.open_requests)] == [number]
    store.run(request_store.answer, number, RequestAnswer(ok=True, message="m"))
    assert store.run(request_store.open_requests) == []
    assert store.run(request_store.answer_to, number) == RequestAnswer(ok=True, message="m")


def test_the_migrations_make_what_the_code_expects(store: Store) -> None:
    """No table, column or index differs."""
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": False})
        assert compare_metadata(context, metadata) == []
    assert schema.current(store.engine) == schema.HEAD


def described(engine: sa.Engine) -> dict[str, object]:
    """Everything a database says of its tables, in no order."""
    inspector = sa.inspect(engine)
    return {
        table: (
            sorted(
                (c["name"], str(c["type"]), c["nullable"], str(c["default"]))
                for c in inspector.get_columns(table)
            ),
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted(
                (
                    i["name"],
                    i["column_names"],
                    i["unique"],
                    sorted((k, str(v)) for k, v in i.get("dialect_options", {}).items()),
                )
                for i in inspector.get_indexes(table)
            ),
            sorted(
                (k["constrained_columns"], k["referred_table"], str(k["options"]))
                for k in inspector.get_foreign_keys(table)
            ),
        )
        for table in inspector.get_table_names()
    }


def test_a_new_store_is_what_migrations_make_of_an_old_one(
    request: pytest.FixtureRequest, store: Store
) -> None:
    """Column by column, index by index: a new store is made at once, and never sees them."""
    made = described(store.engine)
    with store.engine.begin() as connection:
        metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE alembic_version"))
        schema.migrate(connection)
    assert described(store.engine) == made
    assert schema.current(store.engine) == schema.HEAD


async def test_a_folder_goes_through_on_either(store: Store, tmp_path: Path) -> None:
    """The engine itself."""
    harness = Harness(tmp_path / "root", store=store)
    harness.arrive("x")
    async with harness.running():
        job = await harness.until_over("x")
    assert job.state is JobState.DONE
    assert len(harness.worker.ran) == 3


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """An older daemon must not write into it."""
    Store.open(sqlite_url(tmp_path)).close()
    with sqlite3.connect(tmp_path / "dittohead.sqlite3") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreError, match="made by a newer dittohead"):
        Store.open(sqlite_url(tmp_path))


def test_a_damaged_store_is_refused_in_words(tmp_path: Path) -> None:
    """Never worked on as if nothing were wrong."""
    (tmp_path / "dittohead.sqlite3").write_bytes(b"this is not a database" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        Store.open(sqlite_url(tmp_path))


def _damaged(file: Path) -> None:
    """No database at all: refused while it is connected to."""
    file.write_bytes(b"this is not a database" * 1000)


def _newer(file: Path) -> None:
    """Refused after it was read."""
    Store.open(sqlite_url(file.parent)).close()
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def _damaged_inside(file: Path) -> None:
    """Refused by the check."""
    Store.open(sqlite_url(file.parent)).close()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'jobs'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with open(file, "r+b") as data:
        data.seek((page - 1) * size)
        data.write(b"\xff" * size)


@pytest.mark.parametrize("spoil", [_damaged, _newer, _damaged_inside])
def test_a_store_that_is_refused_is_let_go(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """No file of it stays open: a daemon tries again and again."""
    file = tmp_path / "dittohead.sqlite3"
    spoil(file)
    kept: list[StoreError] = []  # with their tracebacks, which would keep what they name
    for _ in range(3):
        with pytest.raises(StoreError) as caught:
            Store.open(sqlite_url(tmp_path))
        kept.append(caught.value)
    assert not opened_in(tmp_path)


def opened_in(folder: Path) -> list[str]:
    """Return the files of a folder that this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return [path for path in found if path.startswith(str(folder))]


def test_a_closed_store_may_be_closed_again(store: Store) -> None:
    store.close()
    store.close()


async def test_transactions_that_wait_together_fail_alone(store: Store) -> None:
    """One of many committed at once raises: it has changed nothing, the others have."""
    import asyncio

    def add(connection: sa.Connection, name: str, fail: bool) -> str:
        request_store.add(connection, "retry", name, {}, "me")
        if fail:
            raise LookupError(name)
        return name

    results = await asyncio.gather(
        *(store.write(add, f"r{i}", i % 3 == 0) for i in range(30)), return_exceptions=True
    )
    assert [isinstance(r, LookupError) for r in results] == [i % 3 == 0 for i in range(30)]
    kept = [request.job for request in store.run(request_store.open_requests)]
    assert kept == [f"r{i}" for i in range(30) if i % 3]


def test_entries_of_an_older_store_keep_their_order(store: Store) -> None:
    """What was kept before it was known since when an entry is in its state: since its last change."""
    with store.engine.begin() as connection:
        metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE alembic_version"))
        schema.migrate(connection, "0012")
        old = sa.Table("entries", sa.MetaData(), autoload_with=connection)
        words = dict.fromkeys(("source", "kind", "state", "stage"), "x") | {"reason": "", "attributes": {}}
        numbers = {"rank": 0, "first_at": 1.0}
        connection.execute(
            old.insert(),
            [{**words, **numbers, "key": key, "changed_at": at} for key, at in (("b", 7.0), ("a", 5.0))],
        )
        schema.migrate(connection)
        picked = catalogue_store.pick(connection, "x", "x", ["x"], ["x"], 9)
    assert [(entry.key, entry.since) for entry in picked] == [("a", 5.0), ("b", 7.0)]
