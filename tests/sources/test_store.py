"""What sources remember: the same on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dittohead.contract.source import Sighting
from dittohead.model.definition import Ignored, JobDefinition
from dittohead.model.records import JobId
from dittohead.model.states import DropState, JobState
from dittohead.store import Store, sqlite_url
from dittohead.store import drops as drop_store
from dittohead.store import items as item_store
from dittohead.store import jobs as job_store
from dittohead.store.jobs import NewJob
from dittohead.store.tables import metadata
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
    made.run(item_store.put_round, "s", looked_at=0.0, finished_at=0.5)
    yield made
    if request.param == "postgresql":
        made.run(lambda c: [c.execute(table.delete()) for table in reversed(metadata.sorted_tables)])
    made.close()


def sighting(key: str, version: str = "1", **more: object) -> Sighting:
    folder, _, path = key.partition("/")
    return Sighting(key=key, folder=folder, path=path, version=version, size=10, **more)  # type: ignore[arg-type]


def drop(store: Store, folder: str, ino: int) -> int:
    """Have a folder fetched and dropped."""
    begun = store.run(drop_store.begin, "s", folder, 100.0)
    assert begun is not None
    store.run(drop_store.made, begun.id, ino)
    found = store.run(drop_store.page, begun.id, None, 100)
    store.run(drop_store.fetched, [(item.id, item.version) for item in found])
    assert store.run(drop_store.dropped, begun.id, "1 by MD5", 101.0)
    return begun.id


def job(
    store: Store, number: int, ino: int, *, name: str = "set", claimed: bool = True, ignored: int = 0
) -> JobId:
    new = NewJob(
        id=JobId(f"J{number:025}"),
        name=name,
        folder=name.encode(),
        dev=1,
        ino=ino,
        uid=0,
        pipeline="p",
        definition=JobDefinition(),
        values={},
        steps=[],
        host="h",
    )
    store.run(job_store.create, new)
    left_out = Ignored(files=ignored, size=10 * ignored)
    definition = JobDefinition(ignored=left_out) if ignored else None
    store.run(job_store.set_manifest, new.id, 1, 2 - ignored, 20 - 10 * ignored, [], (), definition)
    if claimed:
        store.run(drop_store.claimed, ino, new.id)
    return new.id


def end(store: Store, number: JobId, state: JobState) -> None:
    token = store.run(job_store.get, number).token
    store.run(
        job_store.finish,
        number,
        token,
        state=state,
        reason="why",
        error=None,
        finished_at=1.0,
        failed_step=None,
    )


def states(store: Store) -> dict[str, int]:
    return {state: count for state, count in store.run(item_store.counts, "s").items() if count}


def test_only_what_is_new_or_changed_counts(store: Store) -> None:
    found = [sighting(f"set/{n}") for n in range(1200)]
    assert store.run(item_store.saw, "s", found, 1.0) == (1200, 0)
    assert store.run(item_store.saw, "s", found, 2.0) == (0, 0)
    assert store.run(item_store.saw, "s", [sighting("set/7", "2"), sighting("set/x")], 3.0) == (1, 1)
    assert store.run(item_store.saw, "other", found[:1], 3.0) == (1, 0)
    assert [s.key for s in store.run(item_store.differing, "s", [found[0], sighting("set/8", "3")])] == [
        "set/8"
    ]


def test_an_order_waits_for_the_version_seen_last_of_all_its_items(store: Store) -> None:
    """A job of an older version settles nothing."""
    store.run(item_store.saw, "s", [sighting("set/a"), sighting("set/b")], 1.0)
    store.run(item_store.put_order, "s", "m", ["set/a", "set/b"], {"receipt": 1}, 1.0, keep_at=5.0)
    drop(store, "set", 7)
    store.run(item_store.saw, "s", [sighting("set/b", "2")], 2.0)
    first = job(store, 1, 7)
    assert states(store) == {"dropped": 1, "seen": 1}
    assert store.run(item_store.keepable, "s", 6.0, 9)[0].data == {"receipt": 1}
    end(store, first, JobState.DONE)
    (turn,) = store.run(drop_store.follow, "s")
    assert (turn.state, turn.job) == (DropState.DONE, first)
    assert states(store) == {"done": 1, "seen": 1}
    assert store.run(item_store.settleable, "s", 9) == []
    drop(store, "set", 8)
    end(store, job(store, 2, 8), JobState.DONE)
    store.run(drop_store.follow, "s")
    (order,) = store.run(item_store.settleable, "s", 9)
    store.run(item_store.settled, order.id)
    assert store.run(item_store.order_counts, "s") == {"open": 0, "unreadable": 0}


def test_an_order_of_an_item_nobody_knows_is_never_settled(store: Store) -> None:
    store.run(item_store.put_order, "s", "m", ["set/a"], {}, 1.0)
    assert store.run(item_store.settleable, "s", 9) == []
    store.run(item_store.put_order, "s", "empty", [], {}, 1.0)
    assert [order.handle for order in store.run(item_store.settleable, "s", 9)] == ["empty"]


@pytest.mark.parametrize("ignored", [0, 1])
def test_a_failed_folder_is_followed_to_a_retry_and_to_a_rerun_of_the_same_content(
    store: Store, ignored: int
) -> None:
    """Also where the pipeline ignores a part of what was fetched."""
    store.run(item_store.saw, "s", [sighting("set/a"), sighting("set/b")], 1.0)
    drop(store, "set", 7)
    first = job(store, 1, 7)
    end(store, first, JobState.FAILED)
    assert store.run(drop_store.follow, "s")[0].reason == "why"
    assert states(store) == {"failed": 2}
    assert store.run(item_store.keepable, "s", 9.0, 9) == []
    second = job(store, 2, 7, name="renamed", ignored=ignored)
    store.run(drop_store.follow, "s")
    assert states(store) == {"dropped": 2}
    end(store, second, JobState.DONE)
    store.run(drop_store.follow, "s")
    assert states(store) == {"done": 2}


def test_an_earlier_job_that_is_tried_again_settles_what_a_later_one_did_not(store: Store) -> None:
    """Run again as a new job, which failed; then the first one was retried and came to its end."""
    store.run(item_store.saw, "s", [sighting("set/a"), sighting("set/b")], 1.0)
    drop(store, "set", 7)
    first = job(store, 1, 7)
    end(store, first, JobState.FAILED)
    end(store, job(store, 2, 7), JobState.FAILED)
    store.run(job_store.reopen, first, range(9))
    store.run(job_store.begin_run, first)
    end(store, first, JobState.DONE)
    store.run(drop_store.follow, "s")
    assert states(store) == {"done": 2}


def test_an_item_that_changed_before_the_drop_keeps_its_folder_back(store: Store) -> None:
    """A listing saw it meanwhile: what lies there is the old content."""
    store.run(item_store.saw, "s", [sighting("set/a")], 1.0)
    begun = store.run(drop_store.begin, "s", "set", 100.0)
    assert begun is not None
    (item,) = store.run(drop_store.page, begun.id, None, 100)
    store.run(drop_store.fetched, [(item.id, item.version)])
    store.run(item_store.saw, "s", [sighting("set/a", "2")], 2.0)
    assert not store.run(drop_store.dropped, begun.id, "", 101.0)
    assert states(store) == {"fetching": 1}


def test_a_later_folder_of_the_same_inode_does_not_mend_a_failed_one(store: Store) -> None:
    """A person deleted the failed folder; a part of it was fetched again, and got its inode number."""
    store.run(item_store.saw, "s", [sighting("set/a"), sighting("set/b")], 1.0)
    drop(store, "set", 7)
    end(store, job(store, 1, 7), JobState.FAILED)
    store.run(drop_store.follow, "s")
    assert store.run(item_store.forget, "s", "set/a", 50.0) == (1, 0)
    store.run(item_store.put_round, "s", looked_at=51.0, finished_at=52.0)
    drop(store, "set", 7)
    end(store, job(store, 2, 7), JobState.DONE)
    store.run(drop_store.follow, "s")
    assert states(store) == {"done": 1, "failed": 1}


def test_a_prefix_is_taken_exactly(store: Store) -> None:
    """Neither % nor _ nor capitals mean anything else."""
    store.run(item_store.saw, "s", [sighting(key) for key in ("A_b/1", "a_b/1", "axb/1", "a_b%/1")], 1.0)
    for number, folder in enumerate(("A_b", "a_b", "axb", "a_b%")):
        drop(store, folder, number + 10)
        end(store, job(store, number, number + 10), JobState.DONE)
    store.run(drop_store.follow, "s")
    assert store.run(item_store.forgettable, "s", "a_b") == (2, 0)
    assert store.run(item_store.forget, "s", "a_b/", 50.0) == (1, 0)


def test_a_marker_comes_again_with_a_part_that_is_wanted_again(store: Store) -> None:
    store.run(item_store.saw, "s", [sighting("set/a"), sighting("set/END", marker=True)], 1.0)
    assert store.run(item_store.ready, "s", 2.0, marker=True, limit=9)[0].files == 1
    drop(store, "set", 7)
    end(store, job(store, 1, 7), JobState.DONE)
    store.run(drop_store.follow, "s")
    store.run(item_store.forget, "s", "set/a", 50.0)
    assert store.run(item_store.ready, "s", 60.0, marker=True, limit=9) == []  # there may be more
    store.run(item_store.put_round, "s", looked_at=51.0, finished_at=52.0)
    assert [one.folder for one in store.run(item_store.ready, "s", 2.0, marker=True, limit=9)] == ["set"]


def test_a_folder_to_which_something_young_has_come_is_not_begun(store: Store) -> None:
    store.run(item_store.saw, "s", [sighting("set/a", ready_at=1.0), sighting("set/b", ready_at=500.0)], 1.0)
    assert store.run(item_store.ready, "s", 100.0, marker=False, limit=9) == []
    assert store.run(drop_store.begin, "s", "set", 100.0) is None
    assert store.run(item_store.next_ready, "s", 100.0) == 500.0
    assert store.run(item_store.ready, "s", 500.0, marker=False, limit=9)[0].size == 20
