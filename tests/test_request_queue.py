"""Requests are rows first, and their answers find anyone who waits, whatever happens in between."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dittohead.admin import request_queue as desk_module
from dittohead.admin.request_queue import RequestQueue
from dittohead.cli import main
from dittohead.folders.stations import Stations
from dittohead.store import Store, sqlite_url
from dittohead.store import requests as request_store
from dittohead.system import lock
from tests.support.house import House

SAID = {"ok": True, "message": "done"}


async def test_the_answer_comes_back_and_the_row_stays(tmp_path: Path) -> None:
    """With who asked for it."""
    house = House(tmp_path)
    desk = RequestQueue(house.store, lambda: None)

    def poked() -> None:
        (request,) = house.store.run(request_store.open_requests)
        assert (request.action, request.job, request.who) == ("retry", "x", "alice (token)")
        house.store.run(request_store.answer, request.id, SAID)
        desk.answered(request.id, SAID)

    desk._poke = poked
    assert await desk.ask("retry", "x", "alice (token)") == SAID
    assert house.store.run(request_store.open_requests) == []


async def test_an_answer_that_was_there_before_anybody_waited_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's poke may have had it carried out at once."""
    house = House(tmp_path)
    add = request_store.add

    def answered_at_once(connection: Any, *args: Any) -> int:
        number = add(connection, *args)
        request_store.answer(connection, number, SAID)
        return number

    monkeypatch.setattr(request_store, "add", answered_at_once)
    assert await RequestQueue(house.store, lambda: None).ask("retry", "x", "me") == SAID


async def test_who_waits_in_vain_is_told_that_it_is_not_yet_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still there to be carried out; an answer that comes too late hurts nobody."""
    monkeypatch.setattr(desk_module, "PATIENCE_S", 0.01)
    house = House(tmp_path)
    desk = RequestQueue(house.store, lambda: None)
    assert await desk.ask("retry", "x", "me") is None
    (request,) = house.store.run(request_store.open_requests)
    desk.answered(request.id, SAID)


def test_a_daemon_that_starts_between_two_looks_carries_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command found nobody, and then could not take the daemon's place: its row is there all the same."""
    (tmp_path / "config.yaml").write_text("root: .\npipelines: {a: {match: '.*', steps: [{checksum: {}}]}}\n")
    stations = Stations(tmp_path)
    stations.prepare()
    store = Store.open(sqlite_url(stations.state))
    over = threading.Event()

    def daemon() -> None:
        while not over.is_set():
            for request in store.run(request_store.open_requests):
                store.run(request_store.answer, request.id, SAID)

    monkeypatch.setattr(lock, "is_held", lambda state: False)
    answering = threading.Thread(target=daemon)
    with lock.held(stations.state):
        answering.start()
        try:
            ended = CliRunner().invoke(main, ["--config", str(tmp_path / "config.yaml"), "retry", "x"])
        finally:
            over.set()
            answering.join()
    assert (ended.exit_code, ended.stdout) == (0, "done\n"), ended.output
    store.close()
