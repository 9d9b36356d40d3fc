"""Fetching from a real S3 server: faults, resumption, changes, hostile keys; nothing unverified gets in."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.worker import StepContext, StepResult
from dittohead.model.errors import ItemError, TargetError
from dittohead.sources.s3 import Queue
from dittohead.store import drops as drop_store
from dittohead.system import fail_points
from dittohead.toolkit.s3 import connection, fetch
from tests.support.patience import Patience
from tests.support.s3_server import Request, S3Server
from tests.support.source_harness import SourceHarness

pytestmark = pytest.mark.service

MIB = 1 << 20


@pytest.fixture(scope="module")
def strict() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
async def source_harness(
    strict: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SourceHarness]:
    monkeypatch.setattr("dittohead.toolkit.s3.request_rate._FIRST_S", 0.001)
    strict.requests.clear()
    strict.faults.clear()
    strict.stalled.clear()
    strict.release.clear()
    strict.checks = strict.conditions = strict.etags = True
    strict.on_request = lambda request: None
    made = SourceHarness(tmp_path, strict.url)
    await made.call("create_bucket")
    yield made
    made.harness.store.close()


def gets(server: S3Server, key: str) -> list[Request]:
    return [r for r in server.requests if r.operation == "get" and r.path.endswith("/" + key)]


@pytest.mark.parametrize("kind", ["500", "slow-down", "cut", "half", "flip-answer"])
async def test_a_passing_fault_is_sat_out_and_what_arrives_is_whole(
    source_harness: SourceHarness, strict: S3Server, kind: str
) -> None:
    """Also wrong bytes under an unchanged ETag, which only the checksum tells."""
    body = os.urandom(3 * MIB)
    await source_harness.put("set/a", body)
    strict.fail("get", kind, key="set/a")
    assert await source_harness.round() == 1
    assert source_harness.in_inbox("set") == {b"a": body}
    assert source_harness.items() == {"dropped": 1}
    # aiohttp asks once more by itself where a connection that was kept turns out to be closed.
    assert len(gets(strict, "set/a")) in (2, 3)


async def test_small_objects_come_with_one_request_each(
    source_harness: SourceHarness, strict: S3Server
) -> None:
    """A look before each would double the time of thousands of them."""
    for number in range(20):
        await source_harness.put(f"set/{number}", b"%d" % number)
    await source_harness.put("set/empty", b"")
    await source_harness.look()
    strict.requests.clear()
    assert await source_harness.runner.bring() == 1
    assert source_harness.in_inbox("set") == {b"empty": b""} | {b"%d" % n: b"%d" % n for n in range(20)}
    assert (strict.count("get"), strict.count("head")) == (21, 0)


async def test_what_was_there_before_a_cut_is_not_fetched_again(
    source_harness: SourceHarness, strict: S3Server
) -> None:
    """By a range, pinned to the ETag."""
    body = os.urandom(32 * MIB)  # half of it is more than sockets hold: some was written before the cut
    await source_harness.put("set/a", body)
    strict.fail("get", "half", key="set/a")
    await source_harness.round()
    second = gets(strict, "set/a")[1]
    begin = int(second.headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < begin < len(body)
    assert second.headers["if-match"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert source_harness.in_inbox("set") == {b"a": body}


@pytest.mark.parametrize("checks", [True, False])
async def test_wrong_bytes_again_and_again_never_get_in(
    source_harness: SourceHarness, strict: S3Server, checks: bool
) -> None:
    """By the store's checksum, or by the ETag where it keeps none; the folder waits, and says why."""
    strict.checks = checks
    await source_harness.put("set/a", b"right")
    await source_harness.put("other/a", b"fine")
    strict.fail("get", "flip-answer", times=4, key="set/a")
    assert await source_harness.round() == 1
    assert source_harness.in_inbox("other") == {b"a": b"fine"}
    assert "set" not in source_harness.listing()
    assert (
        "arrives otherwise than the store's checksum says" in source_harness.runner.shown()["waiting"]["set"]
    )
    await until_due(source_harness)
    assert await source_harness.runner.bring() == 1
    assert source_harness.in_inbox("set") == {b"a": b"right"}


async def until_due(source_harness: SourceHarness) -> None:
    """Let what was put off be due now."""
    source_harness.runner._waits = {
        name: (0.0, why, wait) for name, (_, why, wait) in source_harness.runner._waits.items()
    }


@pytest.mark.parametrize(
    ("etags", "how"), [("md5", "MD5 (ETag) kept by the store"), ("opaque", "SHA-256, read twice")]
)
async def test_a_store_without_checksums_is_verified_by_etag_or_by_reading_twice(
    source_harness: SourceHarness, strict: S3Server, etags: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    strict.checks = False
    source_harness.again(etags=etags)
    await source_harness.put("set/a", os.urandom(1000))
    assert await source_harness.round() == 1
    assert how in capsys.readouterr().out


async def test_a_multipart_etag_is_worked_out(
    source_harness: SourceHarness, strict: S3Server, capsys: Any
) -> None:
    strict.checks = False
    body = os.urandom(11 * MIB)
    upload = (await source_harness.call("create_multipart_upload", Key="set/a"))["UploadId"]
    parts = []
    for number, begin in enumerate(range(0, len(body), 5 * MIB), 1):
        piece = body[begin : begin + 5 * MIB]
        answer = await source_harness.call(
            "upload_part", Key="set/a", UploadId=upload, PartNumber=number, Body=piece
        )
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    await source_harness.call(
        "complete_multipart_upload", Key="set/a", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    assert await source_harness.round() == 1
    assert source_harness.in_inbox("set") == {b"a": body}
    assert "MD5 of parts (ETag) kept by the store" in capsys.readouterr().out
    assert len(gets(strict, "set/a")) == 1


async def test_credentials_that_expire_stop_the_source_until_they_are_renewed(
    source_harness: SourceHarness, strict: S3Server
) -> None:
    await source_harness.put("set/a", b"x")
    await source_harness.look()
    strict.fail("get", "ExpiredToken", key="set/a")
    with pytest.raises(TargetError, match="Renew the credentials"):
        await source_harness.runner.bring()
    assert source_harness.items() == {"fetching": 1}
    await until_due(source_harness)
    assert await source_harness.runner.bring() == 1


async def test_an_object_that_changes_during_the_fetch_comes_in_its_new_content_alone(
    source_harness: SourceHarness, strict: S3Server
) -> None:
    """If-Match sees it; the half of the old content that lies there is not mixed with the new."""
    old, new = os.urandom(2 * MIB), os.urandom(2 * MIB)
    await source_harness.put("set/a", old)
    await source_harness.look()
    strict.fail("get", "half", key="set/a")
    gets: list[Request] = []

    def overwrite(request: Request) -> None:
        if request.operation == "get":
            gets.append(request)
            if (
                len(gets) == 2
            ):  # whether it asks for the rest, or, where the break has cost it all, for the whole
                strict.overwrite(request.path, new)

    strict.on_request = overwrite
    assert await source_harness.runner.bring() == 0
    assert source_harness.listing() == [".set"]
    await until_due(source_harness)
    assert await source_harness.runner.bring() == 1
    assert source_harness.in_inbox("set") == {b"a": new}
    await source_harness.look()
    assert source_harness.items() == {"dropped": 1}


async def test_an_object_that_vanishes_before_it_is_fetched_is_said_and_left_out(
    source_harness: SourceHarness,
) -> None:
    await source_harness.put("set/a", b"x")
    await source_harness.put("set/b", b"y")
    await source_harness.put("alone/a", b"z")
    await source_harness.look()
    await source_harness.call("delete_object", Key="set/a")
    await source_harness.call("delete_object", Key="alone/a")
    assert await source_harness.runner.bring() == 1
    assert source_harness.in_inbox("set") == {b"b": b"y"}
    assert source_harness.listing() == ["set"]
    assert source_harness.items() == {"gone": 2, "dropped": 1}
    await source_harness.put("alone/a", b"z")  # it is back
    assert await source_harness.round() == 1


HOSTILE = [
    "set/../../escape",
    "set//a",
    "set/./b",
    "/set/lead",
    "set/" + "n" * 256,
    "set/line\nbreak",
    "set/esc\x1b[0m",
    ".hidden/a",
    "../up/a",
    "set/end/",
]


async def test_hostile_keys_are_refused_with_a_reason_and_never_written_outside(
    source_harness: SourceHarness, strict: S3Server, tmp_path: Path
) -> None:
    for key in HOSTILE:
        strict.overwrite(
            f"/{source_harness.bucket}/{key}", b"evil"
        )  # not by HTTP, whose clients would tidy the path
    await source_harness.put("set/fine", b"good")
    await source_harness.put("set/folder/", b"")  # what consoles make for an empty folder
    before = sorted(os.listdir(tmp_path)) + sorted(os.listdir(tmp_path / "root"))
    assert await source_harness.round() == 1
    assert source_harness.listing() == ["set"]
    assert source_harness.in_inbox("set") == {b"fine": b"good"}
    assert sorted(os.listdir(tmp_path)) + sorted(os.listdir(tmp_path / "root")) == before
    # "/set/lead" begins with an empty folder name, which the rule for groups does not take at all.
    assert source_harness.items() == {"refused": len(HOSTILE) - 1, "dropped": 1}
    assert all(one["reason"] for one in source_harness.known()["refused"])


async def test_a_key_that_is_a_file_and_a_directory_is_refused_once(source_harness: SourceHarness) -> None:
    """The one that comes first stays; none is lost silently."""
    await source_harness.put("set/a", b"file")
    await source_harness.put("set/a/b", b"below")
    await source_harness.put("set/c", b"c")
    assert await source_harness.round() == 1
    assert source_harness.items() == {"refused": 1, "dropped": 2}
    assert len(source_harness.in_inbox("set")) == 2
    assert source_harness.in_inbox("set")[b"c"] == b"c"
    await source_harness.look()
    assert source_harness.items() == {"refused": 1, "dropped": 2}  # stays refused


async def test_two_keys_with_one_path_never_overwrite_each_other(
    source_harness: SourceHarness, tmp_path: Path
) -> None:
    """As marble's a/p1.tif and b/p1.tif."""
    source_harness.again(group="(?P<folder>x)/(?:.*/)?(?P<path>[^/]+)")
    await source_harness.put("x/a/p1.tif", b"one")
    await source_harness.put("x/b/p1.tif", b"two")
    assert await source_harness.round() == 1
    assert source_harness.in_inbox("x") == {b"p1.tif": b"one"}
    (refused,) = source_harness.known()["refused"]
    assert refused["key"] == "x/b/p1.tif"
    assert "which x/a/p1.tif is already" in refused["reason"]


async def test_a_folder_that_is_dropped_is_not_fetched_again_unless_it_changed(
    source_harness: SourceHarness, strict: S3Server
) -> None:
    await source_harness.put("set/a", b"one")
    await source_harness.put("set/b", b"two")
    assert await source_harness.round() == 1
    strict.requests.clear()
    assert await source_harness.round() == 0
    assert strict.count("get") == 1  # the listing
    await source_harness.put("set/b", b"three")
    assert await source_harness.round() == 0  # the first folder of this name is still under way
    async with source_harness.harness.running():
        await source_harness.harness.until_over("set")
        await source_harness.runner.follow()
        assert source_harness.items() == {"done": 1, "seen": 1}
        assert await source_harness.runner.bring() == 1
    assert source_harness.in_inbox("set") == {b"b": b"three"}


async def test_it_holds_back_when_enough_is_ahead(source_harness: SourceHarness) -> None:
    for number in range(5):
        await source_harness.put(f"s{number}/a", b"x")
    source_harness.again(ahead=2)
    assert await source_harness.round() == 2
    assert source_harness.runner.held == "2 of its folders are under way (ahead: 2)"
    async with source_harness.harness.running():
        await source_harness.harness.until_over("s0")
        await source_harness.harness.until_over("s1")
    await source_harness.runner.follow()
    assert await source_harness.runner.bring() == 2


async def test_it_holds_back_when_the_disk_is_nearly_full(source_harness: SourceHarness) -> None:
    await source_harness.put("set/a", b"x")
    settings = source_harness.harness.config.settings
    low = settings.model_copy(update={"space": settings.space.model_copy(update={"floor": 1 << 60})})
    object.__setattr__(source_harness.harness.config, "settings", low)
    assert await source_harness.round() == 0
    assert "set needs" in source_harness.runner.held
    assert "more free disk space" in source_harness.runner.held


async def test_a_folder_waits_until_nothing_of_it_has_changed_for_a_while(
    source_harness: SourceHarness,
) -> None:
    source_harness.again(settle="1h")
    await source_harness.put("set/a", b"x")
    assert await source_harness.round() == 0
    assert source_harness.items() == {"seen": 1}
    source_harness.again(settle=0)
    assert await source_harness.round() == 1


async def test_a_folder_waits_for_its_marker_which_is_not_fetched(source_harness: SourceHarness) -> None:
    source_harness.again(marker="_COMPLETE")
    await source_harness.put("set/a", b"x")
    assert await source_harness.round() == 0
    await source_harness.put("set/_COMPLETE", b"")
    assert await source_harness.round() == 1
    assert source_harness.in_inbox("set") == {b"a": b"x"}


async def test_only_what_is_wanted_is_taken(source_harness: SourceHarness) -> None:
    source_harness.again(prefix="p/", match=["*.tif"], ignore=["*/._*"], least=2, most="1KB")
    for key, body in {
        "p/s/a.tif": b"good",
        "p/s/a.txt": b"other",
        "p/s/._a.tif": b"junk",
        "p/s/tiny.tif": b"1",
        "p/s/large.tif": b"x" * 1001,
        "q/s/a.tif": b"elsewhere",
    }.items():
        await source_harness.put(key, body)
    assert await source_harness.round() == 1
    assert source_harness.in_inbox("s") == {b"a.tif": b"good"}


async def test_one_key_can_be_one_folder(source_harness: SourceHarness) -> None:
    source_harness.again(group="(?:.*/)?(?P<path>(?P<stem>[^/]+)\\.tif)", folder="image-{stem}")
    await source_harness.put("a/b/p1.tif", b"1")
    await source_harness.put("a/c/p2.tif", b"2")
    assert await source_harness.round() == 2
    assert source_harness.in_inbox("image-p1") == {b"p1.tif": b"1"}


async def test_somebody_elses_upload_of_the_same_name_is_left_alone(source_harness: SourceHarness) -> None:
    (source_harness.inbox / ".set").mkdir()
    (source_harness.inbox / ".set" / "theirs").write_bytes(b"theirs")
    await source_harness.put("set/a", b"x")
    assert await source_harness.round() == 0
    assert "somebody else's upload" in source_harness.runner.shown()["waiting"]["set"]
    assert source_harness.in_inbox(".set") == {b"theirs": b"theirs"}
    (source_harness.inbox / ".set").rename(source_harness.inbox / "set")
    await until_due(source_harness)
    assert await source_harness.runner.bring() == 0  # not over their folder
    async with source_harness.harness.running():
        await source_harness.harness.until_over("set")
    await until_due(source_harness)
    assert await source_harness.runner.bring() == 1


@pytest.mark.parametrize(
    "point",
    ["source.made", "source.piece", "source.fetched", "source.durable", "source.recorded", "source.renamed"],
)
async def test_it_goes_on_wherever_it_was_killed(
    source_harness: SourceHarness, strict: S3Server, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each named moment: the folder comes once, whole, and no byte is fetched twice."""
    body = os.urandom(2 * MIB)
    what = {b"a": body} if point == "source.piece" else {b"a": body, b"b": b"small"}
    for name, data in what.items():
        await source_harness.put(f"set/{name.decode()}", data)

    class Killed(BaseException):
        pass

    def die(name: str) -> None:
        if name == point:
            monkeypatch.setattr(fail_points, "point", lambda name: None)
            raise Killed

    monkeypatch.setattr(fail_points, "point", die)
    await source_harness.look()
    with pytest.raises((Killed, BaseExceptionGroup)):
        await source_harness.runner.bring()
    before = sum(r.operation == "get" and r.path.endswith("/a") for r in strict.requests)
    source_harness.again()
    await source_harness.runner.follow()
    await source_harness.round()
    assert source_harness.listing() == ["set"]
    assert source_harness.in_inbox("set") == what
    assert source_harness.items() == {"dropped": len(what)}
    again = gets(strict, "a")[before:]
    assert all("range" in request.headers for request in again) or point == "source.made"
    async with source_harness.harness.running():
        await source_harness.harness.until_over("set")
    await source_harness.runner.follow()
    assert source_harness.items() == {"done": len(what)}
    assert len(source_harness.harness.jobs("set")) == 1


async def test_a_folder_taken_away_before_it_became_a_job_is_said(source_harness: SourceHarness) -> None:
    await source_harness.put("set/a", b"x")
    await source_harness.round()
    (source_harness.inbox / "set").rename(source_harness.inbox.parent / "elsewhere")
    await source_harness.runner.follow()
    assert source_harness.items() == {"dropped": 1}  # it may just be on its way
    await source_harness.runner.follow()
    assert source_harness.items() == {"failed": 1}


async def test_a_new_folder_with_an_old_inode_is_not_taken_for_an_earlier_jobs(
    source_harness: SourceHarness,
) -> None:
    """Inode numbers come again: the jobs of before are noted at the drop, and are not its own."""
    await source_harness.put("set/a", b"x")
    await source_harness.round()
    async with source_harness.harness.running():
        await source_harness.harness.until_over("set")
    await source_harness.runner.follow()
    await source_harness.put("set/a", b"y")
    await source_harness.look()
    run = source_harness.harness.store.run
    drop = run(drop_store.begin, "up", "set", time.time())
    assert drop is not None
    run(drop_store.made, drop.id, source_harness.harness.job("set").ino)
    run(drop_store.fetched, [(item.id, item.version) for item in run(drop_store.page, drop.id, None, 9)])
    assert run(drop_store.dropped, drop.id, "", time.time())
    assert run(drop_store.follow, "up") == []


async def test_a_round_killed_in_its_middle_goes_on_there(
    source_harness: SourceHarness, strict: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from the beginning: a bucket of a million keys is walked once."""
    monkeypatch.setattr("dittohead.sources.s3.BATCH", 3)
    for number in range(10):
        await source_harness.put(f"s{number}/a", b"x")
    strict.requests.clear()
    strict.on_request = lambda r: strict.fail("get", "ExpiredToken") if strict.count("get") == 3 else None
    with pytest.raises(TargetError):
        await source_harness.look()
    strict.on_request = lambda r: None
    assert source_harness.items() == {"seen": 9}
    strict.requests.clear()
    source_harness.again()
    await source_harness.look()
    assert strict.requests[0].query["start-after"] == "s8/a"
    assert source_harness.items() == {"seen": 10}
    await source_harness.put("s00/a", b"x")  # before the position: the next round finds it
    await source_harness.look()
    assert source_harness.items() == {"seen": 11}


async def test_reset_lets_a_prefix_be_fetched_again(source_harness: SourceHarness) -> None:
    from dittohead.store import items as item_store

    for key in ("set/a", "set/b", "other/a"):
        await source_harness.put(key, b"x")
    await source_harness.round()
    async with source_harness.harness.running():
        await source_harness.harness.until_over("set")
        await source_harness.harness.until_over("other")
        await source_harness.runner.follow()
        assert source_harness.harness.store.run(item_store.forget, "up", "set/", time.time()) == (2, 0)
        assert await source_harness.round() == 1
        source_harness.harness.offer()
        await source_harness.harness.until(lambda: len(source_harness.harness.jobs("set")) == 2)
    assert len(source_harness.harness.jobs("other")) == 1


async def test_a_store_that_stalls_is_given_up_and_asked_again(
    source_harness: SourceHarness, strict: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before the silence is kept."""
    patience = Patience(monkeypatch, fetch)
    body = os.urandom(2 * MIB)
    await source_harness.put("set/a", body)
    strict.fail("get", "half-stall", key="set/a")

    def half_is_here() -> bool:
        return strict.stalled.is_set() and any(
            path.stat().st_size for path in source_harness.inbox.glob(".set*/a*")
        )

    dropped, _ = await asyncio.gather(
        source_harness.round(), patience.run_out_when(half_is_here, fetch._STALL_S)
    )
    assert dropped == 1
    assert source_harness.in_inbox("set") == {b"a": body}
    assert "range" in gets(strict, "set/a")[1].headers


async def test_a_store_given_up_while_a_piece_is_written_goes_on_after_that_piece(
    source_harness: SourceHarness, strict: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, its digests and what is asked for next agree, at whatever moment patience ends."""
    patience = Patience(monkeypatch, fetch)
    written, let_go = threading.Event(), threading.Event()
    write = fetch.Download._write_sync

    def slowly(self: Any, piece: bytes) -> None:
        write(self, piece)
        written.set()
        assert let_go.wait(60)

    monkeypatch.setattr(fetch.Download, "_write_sync", slowly)
    body = os.urandom(2 * MIB)
    await source_harness.put("set/a", body)
    strict.fail("get", "half-stall", key="set/a")

    async def give_up() -> None:
        await patience.run_out_when(written.is_set, fetch._STALL_S)
        let_go.set()

    dropped, _ = await asyncio.gather(source_harness.round(), give_up())
    assert dropped == 1
    assert source_harness.in_inbox("set") == {b"a": body}
    asked = gets(strict, "set/a")
    assert len(asked) == 2
    assert asked[1].headers["range"] == f"bytes={MIB}-"


async def test_one_folder_that_cannot_be_had_keeps_no_other_from_coming(
    source_harness: SourceHarness, strict: S3Server
) -> None:
    """An object that always fails, before others in the order."""
    for name in ("a", "b", "c"):
        await source_harness.put(f"{name}/x", b"x")
    strict.fail("get", "500", times=1000, key="a/x")
    assert await source_harness.round() == 2
    assert source_harness.listing() == [".a", "b", "c"]
    assert "InternalError" in source_harness.runner.shown()["waiting"]["a"]


async def test_a_message_is_hidden_anew_while_its_job_goes_on_and_not_when_it_failed(
    source_harness: SourceHarness, strict: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQS shows it again otherwise, and after some times lays it aside."""
    queue = {"url": f"{strict.url}/123456789012/hold", "hold": 30}  # not Amazon's: it is asked where it is
    source_harness.again(queue=queue)
    async with connection.client(
        source_harness.options, source_harness.secret, "sqs", queue_endpoint=strict.url
    ) as client:
        await client.create_queue(QueueName="hold")
        body = {
            "Records": [
                {
                    "eventName": "ObjectCreated:Put",
                    "s3": {"bucket": {"name": source_harness.bucket}, "object": {"key": "set/a"}},
                }
            ]
        }
        await client.send_message(QueueUrl=queue["url"], MessageBody=json.dumps(body))
    await source_harness.put("set/a", b"x")
    assert await source_harness.round() == 1
    clock = time.time()
    monkeypatch.setattr("time.time", lambda: clock + 20)
    before = len(strict.requests)
    await source_harness.runner.follow()
    assert len(strict.requests) == before + 1  # hidden again
    await source_harness.runner.follow()
    assert len(strict.requests) == before + 1  # once is enough
    source_harness.harness.worker.plays["first"] = fails
    async with source_harness.harness.running():
        await source_harness.harness.until_over("set")
    monkeypatch.setattr("time.time", lambda: clock + 60)
    await source_harness.runner.follow()
    assert source_harness.items() == {"failed": 1}
    assert len(strict.requests) == before + 1


@pytest.mark.parametrize(
    ("url", "endpoint_url", "endpoint", "asked"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/1/q", None, None, "https://sqs.eu-west-1.amazonaws.com/1/q"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", None, None, "https://sqs.cn-north-1.amazonaws.com.cn/1/q"),
        ("https://mq.example.org:9324/1/q", None, "https://mq.example.org:9324", "https://mq.example.org:9324/1/q"),
        ("http://queue.amazonaws.com.example/1/q", None, "http://queue.amazonaws.com.example", "http://queue.amazonaws.com.example/1/q"),
        ("http://a.example/1/q", "http://b.example/", "http://b.example/", "http://a.example/1/q (asked for at http://b.example/)"),
    ],
)  # fmt: skip
def test_a_queue_is_asked_where_it_is_and_messages_say_where(
    url: str, endpoint_url: str | None, endpoint: str | None, asked: str
) -> None:
    """A client posts to its endpoint, whatever address the queue's is."""
    queue = Queue(url=url, endpoint_url=endpoint_url)
    assert (queue.endpoint, queue.asked) == (endpoint, asked)


async def fails(ctx: StepContext) -> StepResult:
    raise ItemError("no")


async def test_a_folder_that_goes_on_over_the_page_of_a_listing_is_not_begun_before_its_end(
    source_harness: SourceHarness, strict: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long ago its objects were written: half of a folder is not a folder."""
    monkeypatch.setattr("dittohead.sources.s3.BATCH", 3)
    await source_harness.put("early/a", b"x")
    await source_harness.look()
    for number in range(7):
        await source_harness.put(f"set/{number}", b"x")
    strict.requests.clear()
    strict.on_request = lambda r: strict.fail("get", "ExpiredToken") if strict.count("get") == 2 else None
    with pytest.raises(TargetError):
        await source_harness.look()
    strict.on_request = lambda r: None
    assert source_harness.items() == {"seen": 6}
    assert await source_harness.runner.bring() == 1  # what was known before
    assert source_harness.listing() == ["early"]
    source_harness.again()
    await source_harness.look()
    assert await source_harness.runner.bring() == 1
    assert len(source_harness.in_inbox("set")) == 7
