"""The board: tokens show where each volume stands, and what people drop or move is a request, never a folder."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.catalogue import Told
from dittohead.contract.worker import StepContext, StepResult
from dittohead.intake.board import keeper as keeper_module
from dittohead.model.errors import ItemError
from dittohead.model.states import JobState
from dittohead.sources.grin import refresh as refresh_module
from dittohead.sources.grin.options import VOLUME
from dittohead.store import queries
from dittohead.store import requests as request_store
from dittohead.store.requests import Request
from dittohead.store.tables import entries, entry_counts
from dittohead.system import trust
from tests.support.board import Board
from tests.support.grin import Server, serving
from tests.support.grin.library import Library

pytestmark = pytest.mark.service

ROOT = os.geteuid() == 0


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh_module, "_GRACE_S", 0.0)


@pytest.fixture
def board(tmp_path: Path, server: Server) -> Iterator[Board]:
    library = Library(tmp_path, server)
    library.sign_in()
    yield Board(library)
    library.harness.store.close()


async def listed(board: Board, *barcodes: str) -> None:
    """Have the source know volumes, and the board its directories."""
    board.library.world.add(*barcodes)
    await board.library.round()
    await board.passes(1)


def no_images(*_: Any) -> Any:
    async def play(ctx: StepContext) -> StepResult:
        raise ItemError("there is no image in it", hint="Add one")

    return play


# -- what is shown ---------------------------------------------------------------------------


async def test_a_token_goes_from_stage_to_stage_with_its_history(board: Board) -> None:
    library = board.library
    await listed(board, "B1", "B2", "B3")
    assert board.places() == {}  # a million known volumes are no million files
    await library.want("B1", "B2")
    await board.passes(1)
    assert board.places() == {"available": ["B1.json", "B2.json"]}
    await library.round()
    await board.passes(1)
    assert board.places() == {"requested": ["B1.json", "B2.json"]}
    library.world.tick(most=1)
    await library.runner.look()
    await board.passes(1)
    assert board.places() == {"converted": ["B1.json"], "requested": ["B2.json"]}
    await library.runner.bring()
    await board.passes(1)
    assert board.places() == {"downloaded": ["B1.json"], "requested": ["B2.json"]}
    await library.jobs()
    await board.passes(1)
    assert board.places() == {"stored": ["B1.json"], "requested": ["B2.json"]}
    token = board.token("stored", "B1")
    assert (token["barcode"], token["source"], token["stage"]) == ("B1", "google", "stored")
    assert (token["state"], token["here"], token["job_state"]) == ("converted", "stored", "done")
    said = [line["what"] for line in token["history"]]
    assert [s for n, s in enumerate(said) if s not in said[:n]] == [
        "available", "available, wanted", "requested, wanted", "converted, wanted",
        "converted, fetching", "first", "second", "third", "converted, stored",
    ]  # fmt: skip
    assert board.keeper.row == (
        "available", "requested", "converted", "downloaded", "first", "second", "third", "stored",
    )  # fmt: skip


async def test_nothing_is_written_while_nothing_changes(board: Board) -> None:
    await listed(board, "B1")
    await board.library.want("B1")
    assert (await board.passes(2)).written == 1
    assert (await board.passes(3)).written == 0


async def test_what_failed_stands_in_the_last_stage_it_reached_and_says_why(board: Board) -> None:
    library = board.library
    await failed_at_second(board)
    assert board.places() == {"first": ["B1.json", "B1.reason.txt"]}
    assert "there is no image in it" in board.reason("first", "B1")
    assert "there is no image in it" in board.token("first", "B1")["reason"]
    del library.harness.worker.plays["second"]
    await library.harness.store.write(request_store.add, "retry", "B1", {}, "alice")
    await board.passes(1)
    await library.jobs()
    await board.passes(2)
    assert board.places() == {"stored": ["B1.json"]}  # the reason has gone with the failure


async def failed_at_second(board: Board) -> None:
    library = board.library
    await listed(board, "B1")
    await library.want("B1")
    await library.round()
    library.world.tick()
    library.harness.worker.plays["second"] = no_images()
    await library.round()
    await library.jobs()
    await board.passes(2)


async def test_what_was_given_up_says_why(board: Board) -> None:
    board.library.world.add("no", state="forbidden")
    await board.library.round()
    await board.library.want("no")
    await board.library.runner.look()
    await board.passes(1)
    assert board.places() == {"available": ["no.json", "no.reason.txt"]}
    assert "Not allowed to be downloaded" in board.reason("available", "no")


async def test_a_token_that_somebody_removes_or_changes_comes_back(board: Board) -> None:
    await listed(board, "B1", "B2")
    await board.library.want("B1", "B2")
    await board.passes(1)
    (board.path / "available" / "B1.json").unlink()
    told = board.token("available", "B2")
    board.drop("available", "B2.json", {**told, "history": []})
    done = await board.passes(3)
    assert done.asked == []
    assert board.token("available", "B1")["barcode"] == "B1"
    assert board.token("available", "B2") == told


async def test_the_directories_have_the_rights_of_the_inbox(board: Board) -> None:
    inbox = board.library.inbox
    inbox.chmod(0o3773)
    await listed(board, "B1")
    for stage in ("available", "hold", "stored"):
        assert stat.S_IMODE((board.path / stage).stat().st_mode) == 0o3773
    assert stat.S_IMODE(board.path.stat().st_mode) == 0o755


# -- what is asked for -----------------------------------------------------------------------


async def test_a_token_dropped_into_available_starts_work(board: Board) -> None:
    await listed(board, "B1", "uc1.$b2")
    board.drop("available", "B1.json", {"barcode": "B1"})
    board.drop("available", "uc1.$b2.json", {})  # its name says it
    await board.passes(3)
    assert await board.library.states() == {"B1": "available/wanted", "uc1.$b2": "available/wanted"}
    assert board.places() == {"available": ["B1.json", "uc1.$b2.json"]}
    assert board.token("available", "B1")["stage"] == "available"
    (asked,) = board.requests("source-tell")
    assert asked.args["args"]["keys"] == ["B1", "uc1.$b2"]
    assert asked.answer is not None
    assert asked.answer.ok


async def test_a_file_of_barcodes_starts_work_and_what_is_not_known_is_named(board: Board) -> None:
    await listed(board, "B1", "B2", "HN3")
    board.drop("available", "wanted.csv", b"\xef\xbb\xbfB1,Title\n\n# ours\nhn3\nnobody\nB1\n")
    await board.passes(3)
    assert {k for k, s in (await board.library.states()).items() if "wanted" in s} == {"B1", "HN3"}
    assert board.places() == {"available": ["B1.json", "HN3.json", "wanted.csv.reason.txt"]}
    assert "1 of 3 are not known: nobody" in board.reason("available", "wanted.csv")
    board.again()
    await board.passes(3)  # which a restart does not take away
    assert "not known: nobody" in board.reason("available", "wanted.csv")


async def test_a_file_is_taken_when_it_has_come_to_rest(board: Board) -> None:
    """Who writes in pieces, or under a name with a dot, is not read in between."""
    await listed(board, "B1", "B2")
    path = board.drop("available", ".wanted.txt", b"B1\n")
    await board.passes(3)
    assert "wanted" not in "".join((await board.library.states()).values())
    path.rename(board.path / "available" / "wanted.txt")
    assert (await board.keeper.once()).asked == []
    with (board.path / "available" / "wanted.txt").open("a") as file:
        file.write("B2\n")
    assert (await board.keeper.once()).asked == []
    assert (await board.keeper.once()).asked == ["want 2"]


async def test_moved_back_it_is_run_again_from_that_stage(board: Board) -> None:
    await failed_at_second(board)
    worker = board.library.harness.worker
    worker.ran.clear()
    del worker.plays["second"]
    board.move("B1", "first", "downloaded")
    done = await board.passes(3)
    assert [one.split()[0] for one in done.asked] == ["rerun"]
    assert board.places() == {"downloaded": ["B1.json"]}
    await board.library.jobs()
    await board.passes(2)
    assert [step for _, step in worker.ran] == ["first", "second", "third"]
    assert board.places() == {"stored": ["B1.json"]}
    board.move("B1", "stored", "second")
    worker.ran.clear()
    await board.passes(3)
    await board.library.jobs()
    await board.passes(2)
    assert [step for _, step in worker.ran] == ["third"]
    assert board.places() == {"stored": ["B1.json"]}


async def test_moved_back_to_a_stage_upstream_it_is_fetched_again(board: Board) -> None:
    await failed_at_second(board)
    library = board.library
    del library.harness.worker.plays["second"]
    board.move("B1", "first", "converted")
    await board.passes(3)
    assert (await library.states())["B1"] == "converted/wanted"
    assert library.harness.store.run(queries.resolve, "B1").outcome.value == "dismissed"
    assert board.places() == {"converted": ["B1.json"]}
    assert await library.round() == 1
    await library.jobs()
    await board.passes(2)
    assert board.places() == {"stored": ["B1.json"]}
    assert (await library.states())["B1"] == "converted/stored"
    assert library.harness.store.run(queries.resolve, "B1").state is JobState.DONE


async def test_moved_forward_or_where_nothing_can_begin_it_goes_back_and_says_why(board: Board) -> None:
    await failed_at_second(board)
    for stage, why in (("second", "the step second is not done"), ("stored", "no stage")):
        board.move("B1", "first", stage)
        done = await board.passes(3)
        assert done.asked == []
        assert board.places() == {"first": ["B1.json", "B1.reason.txt"]}
        assert why in done.refused[0]


async def test_on_hold_nothing_goes_on_until_it_is_moved_out(board: Board) -> None:
    library = board.library
    await listed(board, "B1", "B2")
    await library.want("B1", "B2")
    await board.passes(1)
    board.move("B1", "available", "hold")
    await board.passes(3)
    assert board.places() == {"available": ["B2.json"], "hold": ["B1.json"]}
    await library.round()
    library.world.tick()
    await library.round()
    await board.passes(2)
    assert library.world.asked == {"B2": 1}
    assert board.places() == {"downloaded": ["B2.json"], "hold": ["B1.json"]}
    board.move("B1", "hold", "available")
    await board.passes(3)
    assert (await library.states())["B1"] == "available/wanted"
    await library.round()
    assert library.world.asked == {"B1": 1, "B2": 1}


async def test_a_folder_that_is_to_be_fetched_waits_on_hold(board: Board) -> None:
    library = board.library
    await listed(board, "B1")
    await library.want("B1")
    await library.round()
    library.world.tick()
    await library.runner.look()
    assert (await library.states())["B1"] == "converted/fetching"
    await board.passes(1)
    board.move("B1", "converted", "hold")
    await board.passes(3)
    assert await library.runner.bring() == 0
    board.move("B1", "hold", "converted")
    await board.passes(3)
    assert await library.runner.bring() == 1


async def test_a_job_is_frozen_on_hold_and_thawed_when_moved_out(board: Board) -> None:
    library, harness = board.library, board.library.harness
    await listed(board, "B1")
    await library.want("B1")
    await library.round()
    library.world.tick()
    begun, may = asyncio.Event(), asyncio.Event()

    async def play(ctx: StepContext) -> StepResult:
        begun.set()
        await may.wait()
        raise ItemError("never so far")

    harness.worker.plays["second"] = play
    await library.round()
    async with harness.running():
        harness.dispatch.wake()
        await begun.wait()
        await board.passes(1)
        board.move("B1", "first", "hold")
        await board.passes(3)
        assert harness.store.run(queries.resolve, "B1").state is JobState.FROZEN
        assert board.places() == {"hold": ["B1.json"]}
        del harness.worker.plays["second"]
        board.move("B1", "hold", "first")
        await board.passes(3)
        await harness.until(harness.quiet)
    await library.runner.follow()
    await board.passes(2)
    assert board.places() == {"stored": ["B1.json"]}


# -- what must not be done -------------------------------------------------------------------


def fifo(path: Path) -> None:
    os.mkfifo(path)


HOSTILE: dict[str, tuple[Any, str]] = {
    "torn.json": (lambda path: path.write_text('{"barcode": "B'), "not JSON"),
    "empty.json": (lambda path: path.touch(), "not JSON"),
    "list.json": (lambda path: path.write_text("[1]"), "a JSON object"),
    "deep.json": (lambda path: path.write_text("[" * 60_000), "not JSON"),
    "unknown.json": (lambda path: path.write_text('{"barcode": "unknown"}'), "not known"),
    "other.json": (lambda path: path.write_text('{"barcode": "B1"}'), "its name must be B1.json"),
    "odd.json": (lambda path: path.write_text('{"barcode": {"a": 1}}'), "not text"),
    "B3.json": (lambda path: path.write_text('{"barcode": "B3", "bucket": "x"}'), 'a field "bucket"'),
    "huge.json": (lambda path: path.write_text(" " * 70_000), "more than 65,536 bytes"),
    "link.json": (lambda path: path.symlink_to("/etc/passwd"), "symbolic link"),
    "folder.json": (lambda path: path.mkdir(), "directory"),
    "folder": (lambda path: (path / "x").mkdir(parents=True), "directory"),
    "pipe.json": (fifo, "FIFO"),
    "bytes.json": (lambda path: path.write_bytes(b"\xff\xfe"), "UTF-8"),
    "picture": (lambda path: path.write_bytes(b"\x00\x01\n\x02"), "not a list of keys"),
    "blank.txt": (lambda path: path.write_text("\n\n"), "no key in it"),
}


async def test_each_bad_token_says_why_beside_it_and_stops_no_other(board: Board) -> None:
    await listed(board, "B1", "B2", "B3")
    for name, (make, _) in HOSTILE.items():
        make(board.path / "available" / name)
    board.drop("available", "B2.json", {"barcode": "B2"})
    await board.passes(3)
    assert {k for k, s in (await board.library.states()).items() if "wanted" in s} == {"B2"}
    for name, (_, why) in HOSTILE.items():
        assert why in board.reason("available", name.removesuffix(".json")), name
        assert os.path.lexists(board.path / "available" / name)
    assert (await board.passes(2)).refused == []  # each is said once
    path = board.path / "available" / "B3.json"
    path.write_text('{"barcode": "B3"}')  # corrected
    (board.path / "available" / "huge.json").unlink()
    await board.passes(4)
    assert (await board.library.states())["B3"] == "available/wanted"
    names = board.places()["available"]
    assert "B3.reason.txt" not in names
    assert "huge.reason.txt" not in names


async def test_a_name_that_is_no_text_does_no_harm(board: Board) -> None:
    await listed(board, "B1")
    path = os.fsencode(board.path / "available") + b"/\xff\xfe.json"
    with open(path, "w") as file:
        file.write("{}")
    board.drop("available", "B1.json", {})
    await board.passes(3)
    assert (await board.library.states())["B1"] == "available/wanted"


@pytest.mark.skipif(not ROOT, reason="needs files of another user")
async def test_only_operators_may_ask(board: Board) -> None:
    """A stranger's token says who may; root's and the daemon's own are taken."""
    await listed(board, "B1", "B2")
    board.drop("available", "B1.json", {"barcode": "B1"}, uid=60001)
    board.drop("available", "wanted.txt", b"B2\n", uid=60001)
    await board.passes(3)
    assert set((await board.library.states()).values()) == {"available"}
    assert "60001 is not an operator" in board.reason("available", "B1")
    assert "60001 is not an operator" in board.reason("available", "wanted.txt")


async def test_a_file_with_another_name_elsewhere_is_nobodys(board: Board) -> None:
    """A hard link to somebody's file would ask in that person's name."""
    await listed(board, "B1")
    path = board.drop("available", ".mine", b"B1\n")
    os.link(path, board.path / "available" / "wanted.txt")
    await board.passes(3)
    assert "hard link" in board.reason("available", "wanted.txt")
    assert await board.library.states() == {"B1": "available"}


async def test_where_others_may_move_files_a_moved_token_is_nobodys(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token keeps its owner when it is moved: so it counts only where operators alone can move it."""
    monkeypatch.setattr(trust, "_is_reached", lambda path, gid: True)  # the tests' own directory is closed
    await listed(board, "B1")
    await board.library.want("B1")
    await board.passes(1)
    (board.path / "hold").chmod(0o777)
    board.move("B1", "available", "hold")
    done = await board.passes(3)
    assert "who moved it cannot be known" in done.refused[0]
    assert board.places() == {"available": ["B1.json", "B1.reason.txt"]}
    assert "who moved it cannot be known" in board.reason("available", "B1")
    (board.path / "hold").chmod(0o1777)  # now only its owner can move it
    board.move("B1", "available", "hold")
    await board.passes(3)
    assert board.places() == {"hold": ["B1.json"]}


# -- fields ----------------------------------------------------------------------------------


async def test_a_field_of_a_token_is_kept_and_shown(board: Board) -> None:
    board.library.again(fields={"storage_bucket": "usual"})
    board.again()
    await listed(board, "B1", "B2")
    board.drop("available", "B1.json", {"barcode": "B1", "storage_bucket": "special"})
    board.drop("available", "B2.json", {"barcode": "B2", "storage_bucket": ["no"]})
    await board.passes(3)
    assert board.token("available", "B1")["storage_bucket"] == "special"
    assert "storage_bucket" in board.reason("available", "B2")


# -- after a crash ---------------------------------------------------------------------------


async def test_a_restart_asks_for_nothing_twice(board: Board) -> None:
    """Killed when the request was made, and its file still there."""
    await listed(board, "B1")
    path = board.drop("available", "B1.json", {"barcode": "B1"})
    before = os.stat(path)
    await board.keeper.once()
    done = await board.keeper.once()
    assert done.asked == ["want 1"]
    board.again()
    assert not path.exists() or os.stat(path).st_ino == before.st_ino
    await board.passes(4)
    assert len(board.requests("source-tell")) == 1
    assert board.places() == {"available": ["B1.json"]}


async def test_tokens_that_were_moved_while_no_daemon_ran_are_requests(board: Board) -> None:
    await listed(board, "B1")
    await board.library.want("B1")
    await board.passes(1)
    board.again()
    board.move("B1", "available", "hold")
    await board.passes(4)
    assert (await board.library.states())["B1"] == "available/hold"
    assert board.places() == {"hold": ["B1.json"]}


async def test_a_token_in_two_places_or_torn_by_a_power_loss_is_put_right(board: Board) -> None:
    await listed(board, "B1", "B2")
    await board.library.want("B1", "B2")
    await board.passes(1)
    twice = {**board.token("available", "B1"), "stage": "requested"}
    board.again()
    board.drop("requested", "B1.json", twice)
    board.drop("available", "B2.json", b"")
    done = await board.passes(4)
    assert done.asked == []
    assert board.places() == {"available": ["B1.json", "B2.json"]}
    assert board.token("available", "B2")["barcode"] == "B2"


async def test_a_token_outlives_a_store_that_was_lost(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wanted is in the tokens: when the catalogue is read again, it is wanted again."""
    monkeypatch.setattr(keeper_module, "_UNKNOWN_S", 0.0)
    await listed(board, "B1")
    await board.library.want("B1")
    await board.passes(1)
    board.library.harness.store.run(lambda c: c.execute(entries.delete()) and None)
    board.library.harness.store.run(lambda c: c.execute(entry_counts.delete()) and None)
    board.again()
    await board.passes(4)
    assert board.places() == {"available": ["B1.json", "B1.reason.txt"]}
    assert "is not known" in board.reason("available", "B1")
    await board.library.tell("refresh")
    await board.library.runner.look()
    await board.passes(4)
    assert (await board.library.states())["B1"] == "available/wanted"
    assert board.places() == {"available": ["B1.json"]}


async def test_the_check_names_what_disagrees_and_repairs_it(board: Board) -> None:
    library = board.library
    await listed(board, "B1", "B2")
    await library.want("B1")
    await board.passes(1)
    await library.keep.catalogue.tell(VOLUME, [Told(key="B2", stage="fetching")])
    library.harness.store.run(lambda c: c.execute(entry_counts.update().values(count=7)) and None)
    (board.path / "available" / "B1.json").unlink()

    async def check(*, repair: bool) -> list[tuple[str, str, str]]:
        request = Request(id=0, action="source-check", job="google", args={"repair": repair}, who="alice")
        found = json.loads(await board.intake.check(request, live=False))
        return [(one["kind"], one["what"], one["done"]) for one in found]

    assert ("lost", "B2", "") in await check(repair=False)
    found = await check(repair=True)
    assert ("counts", "available, wanted", "counted again") in found
    assert ("lost", "B2", "brought in again") in found
    assert ("token", "available/B1.json", "written again") in found
    assert await check(repair=False) == []
    assert await library.counts_hold()
