"""A database that takes what it is asked, and does not answer: it is said, and holds up no stop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dittohead.model.errors import StoreError
from dittohead.store import Store, database, jobs, sqlite_url
from tests.support.postgres import postgres


@pytest.fixture(scope="module")
def server() -> Iterator[sa.URL]:
    with postgres() as url:
        yield url


async def test_whoever_looks_is_told_that_no_answer_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first after a while, the others at once; when it answers, everybody has an answer again."""
    monkeypatch.setattr(database, "SILENT_S", 0.2)
    store, go_on = Store.open(sqlite_url(tmp_path)), threading.Event()
    try:
        for _ in range(3):
            with pytest.raises(StoreError, match="the store does not answer") as told:
                await store.read_apart(lambda connection: go_on.wait(60))
            assert told.value.passing
        assert await store.read(jobs.active) == []  # jobs do not wait for those who look
    finally:
        go_on.set()
    monkeypatch.setattr(database, "SILENT_S", 60)
    async with asyncio.timeout(20):
        while store._begun:
            await asyncio.sleep(0.01)
    assert await store.read_apart(jobs.active) == []
    await asyncio.to_thread(store.close)


async def test_a_server_that_does_not_answer_holds_up_no_stop(
    server: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its table is locked, as by an upgrade; or it is frozen: what waits for it fails, and the store closes."""
    monkeypatch.setattr(database, "_END_S", 0.2)
    monkeypatch.setattr(database, "SILENT_S", 0.2)
    store, other = Store.open(server), sa.create_engine(server)
    with other.connect() as holder:
        holder.exec_driver_sql("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        waiting = [asyncio.ensure_future(ask(jobs.active)) for ask in (store.write, store.read)]
        with pytest.raises(StoreError, match="does not answer"):
            await store.read_apart(jobs.active)
        assert store.silent_s > 0  # said in the daemon's status
        begun = time.monotonic()
        await asyncio.to_thread(store.close)
        assert time.monotonic() - begun < 60  # it would be forever
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, StoreError)
    other.dispose()
