"""Requests are rows first, and their answers find anyone who waits, whatever happens in between."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dittohead.admin import request_queue as desk_module
from dittohead.admin.request_queue import RequestQueue
from dittohead.cli import main
from dittohead.folders.stations import Stations
from dittohead.model.records import RequestAnswer
from dittohead.model.states import Action
from dittohead.store import Store, sqlite_url
from dittohead.store import requests as request_store
from dittohead.system import lock
from tests.support.harness import Harness

SAID = RequestAnswer(ok=True, message="done")


async def test_the_answer_comes_back_and_the_row_stays(tmp_path: Path) -> None:
    """With who asked for it."""
    harness = Harness(tmp_path)
    queue = RequestQueue(harness.store, lambda: None)

    def poked() -> None:
        (request,) = harness.store.run(request_store.open_requests)
        assert (request.action, request.job, request.who) == ("retry", "x", "alice (token)")
        harness.store.run(request_store.answer, request.id, SAID)
        queue.answered(request.id, SAID)

    queue._poke = poked
    assert await queue.ask("retry", "x", "alice (token)") == SAID
    assert harness.store.run(request_store.open_requests) == []


async def test_an_answer_that_was_there_before_anybody_waited_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's poke may have had it carried out at once."""
    harness = Harness(tmp_path)
    add = request_store.add

    def answered_at_once(connection: Any, *args: Any) -> int:
        number = add(connection, *args)
        request_store.answer(connection, number, SAID)
        return number

    monkeypatch.setattr(request_store, "add", answered_at_once)
    assert await RequestQueue(harness.store, lambda: None).ask("retry", "x", "me") == SAID


async def test_who_waits_in_vain_is_told_that_it_is_not_yet_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is still there to be carried out; an answer that comes too late hurts nobody."""
    monkeypatch.setattr(desk_module, "PATIENCE_S", 0.01)
    harness = Harness(tmp_path)
    queue = RequestQueue(harness.store, lambda: None)
    assert await queue.ask("retry", "x", "me") is None
    (request,) = harness.store.run(request_store.open_requests)
    queue.answered(request.id, SAID)


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


#: (action, arguments, answer) of rows as versions before this one have written them, and as none has.
OLD_ROWS: list[tuple[str, Any, Any]] = [
    ("retry", {}, None),
    ("retry-batch", {}, {"ok": True, "message": "2 folders tried again"}),
    ("freeze", {"reason": "rights", "tries": 1}, {"ok": False, "message": "x is over"}),
    ("drop", {"ino": 7, "files": 2, "bytes": 9}, {"ok": True, "message": ""}),
    ("moved-to-the-moon", {}, {"ok": True, "message": "of a later version"}),
    ("retry", {}, {"message": "cut"}),
    ("retry", {}, {"ok": False, "message": "there is no such job", "missing": True}),
    ("retry", {}, []),
]


def test_rows_of_the_version_before_are_read(tmp_path: Path) -> None:
    """Written as JSON, without the types that hold them now; an answer that is damaged refuses nothing else."""
    harness = Harness(tmp_path)

    def write(connection: Any) -> None:
        for number, (action, args, said) in enumerate(OLD_ROWS, 1):
            row = (number, action, f"j{number}", json.dumps(args), None if said is None else json.dumps(said))
            connection.exec_driver_sql(
                "INSERT INTO requests (id, action, job, args, answer, who, at) VALUES (?, ?, ?, ?, ?, 'me', 1)",
                row,
            )

    harness.store.run(write)
    found = sorted(harness.store.run(request_store.listing), key=lambda one: one.id)
    assert [one.action for one in found] == [action for action, _, _ in OLD_ROWS]
    for one, (_, args, said) in zip(found, OLD_ROWS, strict=True):
        assert one.args == {key: value for key, value in args.items() if key != "tries"}
        if isinstance(said, dict) and len(said) > 1:
            assert one.answer is not None
            assert one.answer.as_dict() == said
    assert found[0].answer is None
    assert found[5].answer == RequestAnswer(ok=False, message="cut")
    assert found[7].answer is not None
    assert not found[7].answer.ok
    assert [one.id for one in harness.store.run(request_store.open_requests)] == [1]


def test_the_store_holds_what_it_held_before(tmp_path: Path) -> None:
    """Text and JSON, which the version before reads too."""
    harness = Harness(tmp_path)
    number = harness.store.run(request_store.add, Action.RETRY_BATCH, "b", {"x": 1}, "me")
    harness.store.run(request_store.answer, number, SAID)

    def read(connection: Any) -> list[Any]:
        return list(connection.exec_driver_sql("SELECT action, args, answer FROM requests"))

    ((action, args, said),) = harness.store.run(read)
    assert (action, json.loads(args)) == ("retry-batch", {"x": 1})
    assert json.loads(said) == {"ok": True, "message": "done"}
    assert {str(one) for one in Action} >= {"retry", "rerun", "rename", "drop", "sync", "notify-test"}
