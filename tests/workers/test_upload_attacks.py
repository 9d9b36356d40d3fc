"""Uploads attacked: answers lost, stores that answer strangely, others who write the same keys."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dittohead.admin.housekeeping import Housekeeper
from dittohead.model.errors import ItemError, StepError, TargetError, TransientError
from dittohead.system import fail_points
from dittohead.toolkit.s3 import bucket as s3_bucket
from dittohead.toolkit.s3.intent_log import UploadIntentLog
from dittohead.toolkit.s3.intent_log import read as read_notes
from dittohead.toolkit.s3.request_rate import RequestRate
from dittohead.workers.upload import UploadOptions
from tests.support.context import LoneContext
from tests.support.harness import Harness
from tests.support.patience import Patience
from tests.support.s3_server import Request, S3Server
from tests.workers.test_upload import MIB, Place, interrupted, place

pytestmark = [pytest.mark.rest, pytest.mark.service]

LARGE = 10 * MIB  #: two parts of the smallest size
SMALLEST: dict[str, Any] = {"part_size": "5MiB"}


def nothing_strange(request: Request, start: Any) -> Iterable[bytes] | None:
    """Leave every answer to the server."""
    return None


class StrangeServer(S3Server):
    """A server whose answers can be put another way: `strange` may answer itself."""

    strange: Callable[[Request, Any], Iterable[bytes] | None] = staticmethod(nothing_strange)

    def _answer(self, environ: dict[str, Any], request: Request, body: bytes, start: Any) -> Iterable[bytes]:
        answer = self.strange(request, start)
        return super()._answer(environ, request, body, start) if answer is None else answer


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing learnt of a store by another test, and no long waits between tries."""
    s3_bucket._known.clear()
    monkeypatch.setattr("dittohead.toolkit.s3.request_rate._FIRST_S", 0.001)


@pytest.fixture(scope="module")
def one() -> Iterator[StrangeServer]:
    with StrangeServer() as server:
        yield server


@pytest.fixture
def server(one: StrangeServer) -> Iterator[StrangeServer]:
    one.requests.clear()
    one.faults.clear()
    one.checks = one.conditions = one.etags = True
    one.strange = nothing_strange
    yield one
    one.on_request = lambda request: None
    one.strange = nothing_strange


def new_job(it: Place) -> None:
    """Have the same folder come again, as another job's."""
    it.ctx = LoneContext(it.base, it.payload, secrets=it.ctx.secrets, step="upload", job_id="02JTEST")
    it.server.requests.clear()


def believe(it: Place) -> None:
    """Have the store's abilities be known: it checks, and obeys conditions."""
    abilities = s3_bucket.Abilities(checksum="CRC64NVME", versioned=False, conditional=True)
    s3_bucket._known[it.options.address(), it.bucket] = (time.monotonic(), abilities)


def once(server: S3Server, operation: str, work: Callable[[], None]) -> None:
    """Do something when the server has the next request of an operation, before it answers."""
    left = [work]

    def look(request: Request) -> None:
        if request.operation == operation and left:
            left.pop()()

    server.on_request = look


@pytest.mark.parametrize("size", [10, 3 * MIB, 15 * MIB])
async def test_a_folder_that_came_before_sends_nothing_that_is_there(
    server: S3Server, tmp_path: Path, size: int
) -> None:
    """A store that refuses by If-None-Match takes the whole body first; what is new is sent, and only that."""
    it = await place(server, tmp_path, {"a": os.urandom(size), "b": b"fine"})
    await it.run()
    (it.payload / "c").write_bytes(b"new")
    new_job(it)
    believe(it)
    it.ctx.came = True
    done = await it.run()
    assert "2 of them were there already" in done.detail
    assert server.count("put") == 1


@pytest.mark.parametrize("versioned", [True, False])
async def test_an_object_that_lay_there_before_is_not_removed_when_the_upload_was_forgotten(
    server: StrangeServer, tmp_path: Path, versioned: bool
) -> None:
    """A lifecycle rule aborts the upload right before it is completed; below the key lies an older one."""
    it = await place(server, tmp_path, {"a": os.urandom(LARGE)}, **SMALLEST, replace=not versioned)
    if versioned:
        await it.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    older = os.urandom(LARGE)
    await it.call("put_object", Key="a", Body=older)

    def forgotten(request: Request, start: Any) -> Iterable[bytes] | None:
        if request.operation != "complete":
            return None
        start("404 Not Found", [("Content-Type", "application/xml")])
        return [b"<Error><Code>NoSuchUpload</Code></Error>"]

    server.strange = forgotten
    with pytest.raises(TransientError):
        await it.run()
    server.strange = nothing_strange
    assert await it.objects() == {"a": older}
    it.again()
    await it.run()
    assert await it.objects() != {"a": older}


async def test_another_version_that_comes_right_after_ours_is_not_removed(
    server: S3Server, tmp_path: Path
) -> None:
    it = await place(server, tmp_path, {"a": os.urandom(LARGE)}, **SMALLEST)
    await it.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    theirs = os.urandom(LARGE)

    def write(name: str) -> None:
        if name == "upload.completed":
            server.client().put_object(Bucket=it.bucket, Key="a", Body=theirs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fail_points, "point", write)
        await it.run()
    assert await it.objects() == {"a": theirs}
    versions = (await it.call("list_object_versions"))["Versions"]
    ours = next(version["VersionId"] for version in versions if not version["IsLatest"])
    assert [location.version for location in it.ctx.locations] == [ours]


def test_a_version_whose_id_holds_null_is_kept_as_it_is() -> None:
    assert s3_bucket.version_of({"VersionId": "anullb"}) == "anullb"
    assert s3_bucket.version_of({"VersionId": "null"}) == ""


async def test_large_files_alone_are_guarded_too(server: S3Server, tmp_path: Path) -> None:
    """Nothing small has shown yet that the store obeys If-None-Match: it is asked all the same."""
    it = await place(server, tmp_path, {"a": os.urandom(LARGE)}, **SMALLEST)

    def write() -> None:
        server.client().put_object(Bucket=it.bucket, Key="a", Body=b"theirs")

    once(server, "part", write)
    with pytest.raises(ItemError, match="another object"):
        await it.run()
    assert await it.objects() == {"a": b"theirs"}
    assert await it.uploads() == []


async def test_what_came_while_the_daemon_was_down_is_seen_before_an_upload_goes_on(
    server: S3Server, tmp_path: Path
) -> None:
    server.conditions = False
    it = await place(server, tmp_path, {"a": os.urandom(LARGE)}, **SMALLEST)
    await interrupted(it, "part", 2)
    await it.call("put_object", Key="a", Body=b"theirs")
    it.again()
    with pytest.raises(ItemError, match="another object"):
        await it.run()
    assert await it.objects() == {"a": b"theirs"}


async def test_what_was_completed_is_not_sent_again_after_a_stop(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = await place(server, tmp_path, {"a": os.urandom(LARGE)}, **SMALLEST)
    task = asyncio.ensure_future(it.run())
    monkeypatch.setattr(
        fail_points, "point", lambda name: task.cancel() if name == "upload.completed" else None
    )
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    it.again()
    await it.run()
    assert server.count("part") == server.count("create") == 0
    assert await it.uploads() == []


async def test_what_rotted_at_the_store_before_is_not_removed(server: S3Server, tmp_path: Path) -> None:
    it = await place(server, tmp_path, {"a": b"right"}, verify="read-back")
    await it.run()
    kept = dict(server._kept)
    await it.call("put_object", Key="a", Body=b"wrong")
    server._kept.update(kept)  # the checksum it had: bits have flipped since
    new_job(it)
    with pytest.raises(TargetError):
        await it.run()
    assert await it.objects() == {"a": b"wrong"}


async def test_an_object_that_comes_and_goes_is_not_removed(server: StrangeServer, tmp_path: Path) -> None:
    it = await place(server, tmp_path, {"a": b"ours"})
    await it.call("put_object", Key="a", Body=b"theirs")

    def not_seen(request: Request, start: Any) -> Iterable[bytes] | None:
        if request.operation in ("head",) or "list-type" in request.query:
            start("404 Not Found", [("Content-Length", "0")])
            return []
        return None

    await it.call("put_object", Key="warm", Body=b"")
    believe(it)
    server.strange = not_seen
    with pytest.raises(StepError):
        await it.run()
    server.strange = nothing_strange
    assert (await it.objects())["a"] == b"theirs"


async def test_a_versioned_bucket_gets_no_second_version_of_what_is_there(
    server: S3Server, tmp_path: Path
) -> None:
    it = await place(server, tmp_path, {"a": b"1", "b": b"2"})
    await it.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    await it.run()
    new_job(it)
    done = await it.run()
    assert "2 of them were there already" in done.detail
    assert len((await it.call("list_object_versions"))["Versions"]) == 2


async def test_versioning_that_was_suspended_meanwhile_is_seen(server: S3Server, tmp_path: Path) -> None:
    it = await place(server, tmp_path, {"a": b"1"})
    await it.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    await it.run()
    await it.call("put_bucket_versioning", VersioningConfiguration={"Status": "Suspended"})
    await it.call("put_object", Key="b", Body=b"theirs")
    (it.payload / "b").write_bytes(b"ours")
    new_job(it)
    with pytest.raises(ItemError, match="another object"):
        await it.run()
    assert (await it.objects())["b"] == b"theirs"


async def test_a_store_that_heeds_conditions_no_longer_is_looked_at_first(
    server: StrangeServer, tmp_path: Path
) -> None:
    it = await place(server, tmp_path, {"a": b"1"})
    await it.run()
    (it.payload / "b").write_bytes(b"ours")
    await it.call("put_object", Key="b", Body=b"theirs")
    new_job(it)

    def refuse(request: Request, start: Any) -> Iterable[bytes] | None:
        if request.operation == "put" and "if-none-match" in request.headers:
            start("501 Not Implemented", [("Content-Type", "application/xml")])
            return [b"<Error><Code>NotImplemented</Code></Error>"]
        return None

    server.strange = refuse
    with pytest.raises(ItemError, match="another object"):
        await it.run()
    assert (await it.objects())["b"] == b"theirs"


async def test_a_store_that_keeps_what_is_there_does_not_pause_for_our_asking(
    server: StrangeServer, tmp_path: Path
) -> None:
    """Write once: what lies there can be sent again by nobody, whatever If-None-Match says."""
    it = await place(server, tmp_path, {"a": b"1", "b": b"2"})
    seen: set[str] = set()

    def worm(request: Request, start: Any) -> Iterable[bytes] | None:
        if request.operation == "put" and "probe" not in request.path:
            if request.path in seen:
                start("403 Forbidden", [("Content-Type", "application/xml")])
                return [b"<Error><Code>AccessDenied</Code><Message>write once</Message></Error>"]
            seen.add(request.path)
        return None

    server.strange = worm
    await it.run()
    assert await it.objects() == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize("plus", [b"+", b"%2B"])
async def test_keys_are_known_in_a_listing_however_it_encodes_them(
    server: StrangeServer, tmp_path: Path, plus: bytes
) -> None:
    """Amazon writes a space as "+" and a plus as "%2B"; other stores leave the plus as it is."""
    names = {"b+c": b"1", "b c": b"2", "b%2Bc": b"3", "e\u0301": b"4", "b&<": b"5"}
    server.conditions = False
    it = await place(server, tmp_path, {**names}, prefix="p/")
    for name in names:
        await it.call("put_object", Key=f"p/{name}", Body=b"theirs")

    def listed(request: Request, start: Any) -> Iterable[bytes] | None:
        if "list-type" not in request.query:
            return None
        keys = [quote(f"p/{name}", safe="+/").encode().replace(b"+", plus) for name in sorted(names)]
        start("200 OK", [("Content-Type", "application/xml")])
        found = b"".join(b"<Contents><Key>%s</Key></Contents>" % key for key in keys)
        return [b"<ListBucketResult><EncodingType>url</EncodingType>%s</ListBucketResult>" % found]

    server.strange = listed
    with pytest.raises(ItemError, match="5 files cannot"):
        await it.run()
    server.strange = nothing_strange
    assert {bytes(data) for data in (await it.objects()).values()} == {b"theirs"}


async def test_a_listing_in_another_order_is_not_believed(server: StrangeServer, tmp_path: Path) -> None:
    server.conditions = False
    it = await place(server, tmp_path, {"b": b"ours", "c": b"ours"})
    await it.call("put_object", Key="b", Body=b"theirs")

    def listed(request: Request, start: Any) -> Iterable[bytes] | None:
        if "list-type" not in request.query:
            return None
        start("200 OK", [("Content-Type", "application/xml")])
        found = b"".join(b"<Contents><Key>%s</Key></Contents>" % key for key in (b"z", b"a"))
        return [b"<ListBucketResult><IsTruncated>true</IsTruncated>%s</ListBucketResult>" % found]

    server.strange = listed
    with pytest.raises(ItemError, match="another object"):
        await it.run()
    server.strange = nothing_strange
    assert (await it.objects())["b"] == b"theirs"


@pytest.mark.parametrize("operation", ["put", "create", "part", "complete"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", b"<html><body>Please log in</body></html>"),
        ("200 OK", b"<?xml version='1.0'?><InitiateMultipartUploadRes"),
        ("200 OK", b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>x</Message></Error>"),
        ("200 OK", b""),
        ("502 Bad Gateway", b"<html><body>Bad <b>Gateway</body></html>"),
    ],
)
async def test_answers_that_are_not_the_stores_are_not_believed(
    server: StrangeServer, tmp_path: Path, operation: str, status: str, body: bytes
) -> None:
    files = {"a": b"small", "b": os.urandom(LARGE)}
    it = await place(server, tmp_path, dict(files), **SMALLEST)
    believe(it)
    left = [1, 2]

    def strange(request: Request, start: Any) -> Iterable[bytes] | None:
        if request.operation != operation or not left:
            return None
        left.pop()
        start(status, [("Content-Length", str(len(body))), ("Content-Type", "text/html")])
        return [body]

    server.strange = strange
    await it.run()
    assert not left
    assert await it.objects() == files
    assert await it.uploads() == []


async def test_a_lost_beginning_is_not_left_behind_by_a_later_try(server: S3Server, tmp_path: Path) -> None:
    it = await place(server, tmp_path, {"a": os.urandom(LARGE)}, **SMALLEST)
    server.fail("create", "lost-answer", times=1)
    await interrupted(it, "part", 1)
    it.again()
    await it.run()
    assert await it.uploads() == []


async def test_the_same_key_in_another_bucket_keeps_nothing_from_being_let_go(
    server: S3Server, tmp_path: Path
) -> None:
    it = await place(server, tmp_path, {"a": os.urandom(LARGE)}, **SMALLEST)
    await it.call("create_multipart_upload", Key="a")
    for job, bucket in (("A", it.bucket), ("B", "another")):
        options = {**it.options.model_dump(mode="json"), "bucket": bucket}
        head = {"worker": "upload", "options": options}
        notes = UploadIntentLog(it.ctx.outside.with_name(f"{job}.upload.jsonl"), head)
        notes.intend("a")
        notes.close(done=False)
    await it.worker.let_go(it.ctx.outside.with_name("A.upload.jsonl"), it.ctx.secret)
    assert await it.uploads() == []


def test_notes_begin_with_whose_they_are_however_many_write(tmp_path: Path) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as pool:
            for number in range(100):
                path = tmp_path / f"{number}.jsonl"
                notes = UploadIntentLog(path, {"worker": "upload", "job": "A"})
                list(pool.map(notes.intend, map(str, range(16))))
                notes.close(done=False)
                lines = path.read_text().split("\n")
                assert "worker" in lines[0]
                assert sum("worker" in line for line in lines) == 1
                assert len(read_notes(path)[1]) == 16
    finally:
        sys.setswitchinterval(before)


async def test_a_folders_own_file_of_the_probes_name_is_left_alone(server: S3Server, tmp_path: Path) -> None:
    server.checks = False
    it = await place(server, tmp_path, {"a": b"1"}, prefix="p/")
    await it.call("put_object", Key="p/.dittohead-probe", Body=b"precious")
    await it.run()
    assert await it.objects() == {"p/.dittohead-probe": b"precious", "p/a": b"1"}


async def test_the_probe_leaves_no_version_behind(server: S3Server, tmp_path: Path) -> None:
    server.checks = False
    it = await place(server, tmp_path, {"a": b"1"})
    await it.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    await it.run()
    found = await it.call("list_object_versions")
    assert {version["Key"] for version in found["Versions"]} == {"a"}
    assert not found.get("DeleteMarkers")


async def test_with_key_the_probe_stays_below_the_keys_first_folder(server: S3Server, tmp_path: Path) -> None:
    it = await place(server, tmp_path, {"a": b"1"}, key="study7/{sha256}/{file}")
    await it.run()
    assert {r.path.split("/")[2] for r in server.requests if r.operation == "put"} == {"study7"}


async def test_a_store_that_is_full_pauses_the_bucket(server: S3Server, tmp_path: Path) -> None:
    it = await place(server, tmp_path, {"a": b"x"})
    server.fail("put", "507", times=100, key="/a")
    with pytest.raises(TargetError):
        await it.run()


@pytest.mark.parametrize("status", ["400", "403"])
async def test_expired_credentials_pause_the_bucket_though_head_has_no_body(
    server: S3Server, tmp_path: Path, status: str
) -> None:
    """S3 answers ExpiredToken with 400, and HEAD's answer has no body that would say so."""
    it = await place(server, tmp_path, {"small": b"1"})
    await it.run()
    (it.payload / "a").write_bytes(os.urandom(17 * MIB))
    new_job(it)
    server.fail("head", status, times=100)
    server.fail("get", "ExpiredToken", times=100)
    with pytest.raises(TargetError, match="ExpiredToken"):
        await it.run()


@pytest.mark.parametrize("text", ["9" * 400, "99999999999"])
async def test_a_retry_after_that_cannot_be_meant_is_no_defect(
    server: S3Server, tmp_path: Path, text: str
) -> None:
    it = await place(server, tmp_path, {"a": b"x"})
    server.fail("put", "slow-down", times=100, key="/a", Retry_After=text)
    with pytest.raises(TransientError) as caught:
        await it.run()
    assert caught.value.retry_after_s == 86400


@pytest.mark.parametrize("kind", ["429", "503"])
async def test_throttling_without_a_code_slows_down_too(server: S3Server, tmp_path: Path, kind: str) -> None:
    it = await place(server, tmp_path, {"a": b"x"})
    await it.run()
    it.again()
    server.fail("head", kind, times=1)
    await it.run()
    assert it.worker._rate(it.options).window < 32


async def test_completing_may_take_longer_than_a_minute(
    server: StrangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 sends white space for minutes while it puts thousands of parts together."""
    it = await place(server, tmp_path, {"a": os.urandom(LARGE)}, **SMALLEST)
    patience, loop, passed = Patience(monkeypatch, s3_bucket), asyncio.get_running_loop(), threading.Event()

    def a_minute() -> None:
        patience.run_out(s3_bucket._STALL_S)
        loop.call_later(0.1, passed.set)  # whoever was given up asks again

    def complete() -> None:
        loop.call_soon_threadsafe(a_minute)
        passed.wait(60)

    once(server, "complete", complete)
    await it.run()
    assert server.count("complete") == 1


async def test_what_is_too_large_for_one_request_goes_in_parts(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dittohead.workers.upload._MOST_AT_ONCE", 7 * MIB, raising=False)
    it = await place(server, tmp_path, {"a": os.urandom(8 * MIB)}, part_size="6MiB")
    await it.run()
    assert server.count("part") == 2


@pytest.mark.parametrize("size", [5 * MIB, 10 * MIB - 1, 10 * MIB, 10 * MIB + 1])
async def test_sizes_about_the_parts_limit(server: S3Server, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    it = await place(server, tmp_path, {"a": data}, **SMALLEST)
    await it.run()
    assert await it.objects() == {"a": data}


async def test_an_early_answer_leaves_no_writer(server: S3Server, tmp_path: Path) -> None:
    """The store answers 503 before it has read the body: nothing goes on reading the closed file."""
    tries = 0

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        await reader.readuntil(b"\r\n\r\n")
        tries += 1
        writer.write(b"HTTP/1.1 503 Slow\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(0.5)
        writer.close()

    it = await place(server, tmp_path, {"a": os.urandom(9 * MIB)}, **SMALLEST)
    wild = await asyncio.start_server(early, "127.0.0.1", 0, limit=4096)
    port = wild.sockets[0].getsockname()[1]
    it.options = it.options.model_copy(update={"endpoint_url": f"http://127.0.0.1:{port}"})
    believe(it)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(TransientError):
        await it.run()
    await asyncio.sleep(0.1)
    others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and "early" not in repr(t)]
    assert others == []
    wild.close()
    await asyncio.sleep(0.6)
    assert len(os.listdir("/proc/self/fd")) <= before
    assert tries == 5


async def test_a_bandwidth_and_patience_are_for_pieces_of_small_files_too(
    server: S3Server, tmp_path: Path
) -> None:
    """32 files of a megabyte at once on a slow line take longer than a minute each, steadily."""
    it = await place(server, tmp_path, {"a": os.urandom(MIB), "b": os.urandom(100_000)}, bandwidth="1GB")
    believe(it)
    spent: list[int] = []

    async def spend(size: int) -> None:
        spent.append(size)

    it.worker._rate(it.options).spend = spend  # type: ignore[method-assign]
    await it.run()
    assert sorted(spent) == [100_000, *[256 << 10] * 4]


async def test_a_stores_long_words_are_cut_short(server: StrangeServer, tmp_path: Path) -> None:
    it = await place(server, tmp_path, {"a": b"1"})
    believe(it)

    def refuse(request: Request, start: Any) -> Iterable[bytes] | None:
        if request.operation != "put":
            return None
        start("403 Forbidden", [("Content-Type", "application/xml")])
        return [b"<Error><Code>AccessDenied</Code><Message>%s</Message></Error>" % (b"no\n" * 300_000)]

    server.strange = refuse
    with pytest.raises(TargetError) as caught:
        await it.run()
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://[::1", "http://host:99999", "http://exa mple", "https://:9000"])
def test_an_address_that_is_none_is_refused_with_the_configuration(url: str) -> None:
    with pytest.raises(ValueError, match="endpoint_url"):
        UploadOptions.model_validate({"bucket": "b", "endpoint_url": url})


async def test_certificates_that_are_missing_pause_the_bucket(server: S3Server, tmp_path: Path) -> None:
    it = await place(server, tmp_path, {"a": b"1"})
    it.options = it.options.model_copy(update={"ca_bundle": str(tmp_path / "none.pem")})
    with pytest.raises(TargetError, match="ca_bundle"):
        await it.run()


async def test_a_job_with_many_requests_does_not_starve_one_with_few() -> None:
    rate, ended = RequestRate(4), []

    async def job(name: str, at_once: int, each: int) -> None:
        async def one() -> None:
            for _ in range(each):
                async with rate.turn(name):
                    await asyncio.sleep(0)

        await asyncio.gather(*(one() for _ in range(at_once)))
        ended.append(name)

    await asyncio.gather(job("sixteen large files", 128, 5), job("three small files", 1, 10))
    assert ended == ["three small files", "sixteen large files"]


async def test_notes_of_a_job_that_is_tried_again_while_it_is_let_go_of_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = "root: .\nspace: {floor: 0}\npipelines: {p: {match: '.*', steps: [{script: {name: send}}]}}\n"
    harness = Harness(tmp_path / "root", config)
    async with harness.running():
        harness.arrive("a-1")
        harness.offer()
        await harness.until_over("a-1")
    notes = harness.stations.state / "outside" / f"{harness.job('a-1').id}.send.jsonl"
    notes.parent.mkdir(parents=True, exist_ok=True)
    first = '{"worker": "script", "job": "a-1"}\n'
    notes.write_text(first)
    seen: list[str] = []

    async def let_go(self: Any, path: Path, secret: Any) -> None:
        seen.append(path.read_text())
        notes.write_text(first + '{"begin": "x"}\n')  # the job goes on, and begins another upload

    monkeypatch.setattr(type(harness.worker), "let_go", let_go)
    await Housekeeper(harness.engine, harness.config.settings.watch, lambda: None).outside_round()
    harness.store.close()
    assert seen == [first]
    assert list(notes.parent.iterdir()) == [notes]


async def test_what_arrived_wrong_pauses_the_bucket_though_it_cannot_be_removed(
    server: S3Server, tmp_path: Path
) -> None:
    """A locked object: stores refuse to delete it in many words."""
    server.checks = False
    it = await place(server, tmp_path, {"small": b"s" * 1000})
    server.fail("put", "flip", times=5, key="small")
    server.fail("delete", "InvalidRequest", times=9, key="small")
    with pytest.raises(TargetError, match="keeps something else than what was sent.*could not be removed"):
        await it.run()


async def test_a_bandwidth_holds_while_another_pipeline_without_one_uses_the_bucket(
    server: S3Server, tmp_path: Path
) -> None:
    it = await place(server, tmp_path, {"a": b"1"}, bandwidth="1MB")
    seen: list[float | None] = []
    other = LoneContext(tmp_path, it.payload, secrets=it.ctx.secrets, step="upload", job_id="02JTEST")
    free = it.options.model_copy(update={"bandwidth": None})
    rate = it.worker._rate(it.options)
    with rate.limited(it.options.bandwidth):
        await it.worker.run(other, free)
        seen.append(rate.bytes_per_s)
    assert seen == [1_000_000]
    assert rate.bytes_per_s is None


async def test_a_head_without_a_length_is_no_defect(server: StrangeServer, tmp_path: Path) -> None:
    it = await place(server, tmp_path, {"a": b"", "b": b"1"})
    await it.run()
    it.again()

    def mute(request: Request, start: Any) -> Iterable[bytes] | None:
        if request.operation != "head" or not request.path.endswith("b"):
            return None
        start("200 OK", [("ETag", '"x"')])
        return []

    server.strange = mute
    with pytest.raises(TransientError, match="ContentLength"):
        await it.run()


async def test_a_versioned_bucket_gets_one_version_of_each_file(server: S3Server, tmp_path: Path) -> None:
    """Whether the store obeys If-None-Match is not tried where trying leaves a second version."""
    server.conditions = False
    it = await place(server, tmp_path, {"a": b"1", "b": b"2"})
    await it.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    await it.run()
    assert len((await it.call("list_object_versions"))["Versions"]) == 2
