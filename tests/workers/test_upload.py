"""Uploads to real S3 servers over HTTP: strict (as S3), forgetful (as moto), and rclone's."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.worker import Done, VerifyContext
from dittohead.model.errors import ItemError, StepError, TargetError, TransientError
from dittohead.toolkit.s3 import bucket as s3_bucket
from dittohead.toolkit.s3 import connection
from dittohead.toolkit.s3.intent_log import read as read_notes
from dittohead.toolkit.s3.request_rate import RequestRate
from dittohead.workers.upload import UploadOptions, UploadWorker
from tests.support.context import LoneContext, source_of
from tests.support.patience import Patience
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.service

KEYS = "[default]\naws_access_key_id = test\naws_secret_access_key = not-to-be-seen\n"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing learnt of a store by another test, and no long waits between tries."""
    s3_bucket._known.clear()
    monkeypatch.setattr("dittohead.toolkit.s3.request_rate._FIRST_S", 0.001)


@pytest.fixture(scope="module")
def strict() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def server(strict: S3Server) -> S3Server:
    strict.requests.clear()
    strict.faults.clear()
    strict.stalled.clear()
    strict.release.clear()
    strict.checks = strict.conditions = strict.etags = True
    return strict


class Place:
    """A bucket and a folder to be uploaded to it."""

    def __init__(self, server: S3Server, base: Path, what: dict[str | bytes, Any], **options: Any) -> None:
        self.server, self.base = server, base
        self.bucket = "b" + hashlib.sha256(os.fsencode(base)).hexdigest()[:20]
        self.payload = base / "lab1-2026"
        for name, data in what.items():
            path = self.payload / os.fsdecode(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        given = {"bucket": self.bucket, "endpoint_url": server.url, "credentials": "keys", **options}
        self.options = UploadOptions.model_validate(given)
        self.ctx = LoneContext(base, self.payload, secrets={"keys": KEYS}, step="upload")
        self.worker = UploadWorker()

    async def call(self, operation: str, **given: Any) -> Any:
        async with connection.client(self.options, {"keys": KEYS}.__getitem__) as client:
            return await getattr(client, operation)(Bucket=self.bucket, **given)

    async def run(self) -> Done:
        done = await self.worker.run(self.ctx, self.options)
        assert isinstance(done, Done)
        return done

    async def objects(self) -> dict[str, bytes]:
        found = {}
        for item in (await self.call("list_objects_v2")).get("Contents", ()):
            async with connection.client(self.options, {"keys": KEYS}.__getitem__) as client:
                answer = await client.get_object(Bucket=self.bucket, Key=item["Key"])
                found[item["Key"]] = await answer["Body"].read()
        return found

    async def uploads(self) -> list[str]:
        return [item["Key"] for item in (await self.call("list_multipart_uploads")).get("Uploads", ())]

    def again(self) -> None:
        self.ctx.again()
        self.server.requests.clear()


async def place(server: S3Server, base: Path, what: dict[str | bytes, Any], **options: Any) -> Place:
    made = Place(server, base, what, **options)
    await made.call("create_bucket")
    server.requests.clear()
    return made


FOLDER: dict[str | bytes, Any] = {
    "a.tif": b"one",
    "Über/b c+d%.txt": b"two",
    "empty.xml": b"",
    "x/y/z.bin": os.urandom(300_000),
}


async def test_every_file_arrives_under_its_key_and_is_verified_by_the_stores_checksum(
    server: S3Server, tmp_path: Path
) -> None:
    it = await place(server, tmp_path, FOLDER, prefix="lab1/")
    done = await it.run()
    assert "4 files" in done.detail
    assert await it.objects() == {f"lab1/{name}": data for name, data in FOLDER.items()}
    assert {location.verified_by for location in it.ctx.locations} == {"CRC64NVME checked by the store"}
    found = {location.uri for location in it.ctx.locations}
    assert f"s3://{it.bucket}/lab1/Über/b c+d%.txt" in found
    head = await it.call("head_object", Key="lab1/a.tif")
    assert head["ContentType"] == "image/tiff"
    assert not it.ctx.outside.exists()


@pytest.mark.parametrize("etags", [True, False])
async def test_a_store_without_checksums_is_verified_by_etag_or_read_back(
    server: S3Server, tmp_path: Path, etags: bool
) -> None:
    server.checks, server.etags = False, etags
    it = await place(server, tmp_path, FOLDER)
    await it.run()
    assert await it.objects() == FOLDER
    words = "MD5 (ETag) computed by the store" if etags else "SHA-256 read back"
    assert {location.verified_by for location in it.ctx.locations} == {words}
    assert not [key for key in await it.objects() if "probe" in key]


async def test_who_may_not_delete_can_upload_all_the_same(server: S3Server, tmp_path: Path) -> None:
    server.checks = False  # so that the probe is taken, and stays
    it = await place(server, tmp_path, {"a": b"1"})
    server.fail("delete", "AccessDenied")
    await it.run()
    assert await it.objects() == {"a": b"1", ".dittohead-probe": b"probe"}


async def test_the_store_is_asked_once_what_it_checks(server: S3Server, tmp_path: Path) -> None:
    it = await place(server, tmp_path, FOLDER)
    await it.run()
    probes = [request for request in server.requests if "probe" in request.path]
    assert [probe.operation for probe in probes] == ["head", "put"]  # refused: nothing is to be removed
    first = len(server.requests)
    it.worker.target(it.options)
    it.ctx.again()
    server.requests.clear()
    await it.run()
    assert not [request for request in server.requests if "probe" in request.path]
    assert len(server.requests) < first


async def test_known_stores_get_one_request_a_small_file(server: S3Server, tmp_path: Path) -> None:
    """A look before each sending would double the time of thousands of small files."""
    it = await place(server, tmp_path, {"one": b"1"})
    await it.run()
    for n in range(20):
        (it.payload / f"f{n}").write_bytes(b"%d" % n)
    (it.payload / "one").unlink()
    it.ctx.source = source_of(it.payload)
    server.requests.clear()
    await it.run()
    operations = [request.operation for request in server.requests]
    assert operations.count("put") == 20
    assert operations.count("head") == 0


# -- what is there already -------------------------------------------------------------------


@pytest.mark.parametrize("checks", [True, False])
async def test_what_is_there_already_is_not_sent_again(
    server: S3Server, tmp_path: Path, checks: bool
) -> None:
    server.checks = checks
    it = await place(server, tmp_path, {**FOLDER, "large": os.urandom(17 * MIB)})
    await it.run()
    it.again()
    done = await it.run()
    assert "5 of them were there already" in done.detail
    assert server.count("put") == server.count("part") == server.count("create") == 0
    assert len(it.ctx.locations) == 5


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize("size", [10, 3 * MIB, 17 * MIB])
async def test_another_object_is_never_overwritten(
    server: S3Server, tmp_path: Path, conditions: bool, size: int
) -> None:
    server.conditions = conditions
    it = await place(server, tmp_path, {"a": os.urandom(size), "b": b"fine"})
    await it.call("put_object", Key="a", Body=b"precious")
    with pytest.raises(ItemError, match="there is another object at s3://.*/a, and replace is not set"):
        await it.run()
    assert (await it.objects())["a"] == b"precious"
    assert (await it.objects())["b"] == b"fine"  # the others go all the same
    assert await it.uploads() == []


async def test_an_object_that_appears_meanwhile_is_not_overwritten(server: S3Server, tmp_path: Path) -> None:
    """Between the look and the sending somebody else may have written it: If-None-Match sees that."""
    it = await place(server, tmp_path, {"first": b"x"})
    await it.run()
    (it.payload / "late").write_bytes(b"ours")
    (it.payload / "large").write_bytes(os.urandom(17 * MIB))
    it.ctx.source = source_of(it.payload)
    for key in ("late", "large"):
        await it.call("put_object", Key=key, Body=b"theirs")
        server._kept[f"/{it.bucket}/{key}"] = {}
    with pytest.raises(ItemError, match="2 files cannot be uploaded"):
        await it.run()
    assert (await it.objects())["late"] == (await it.objects())["large"] == b"theirs"


async def test_replace_replaces_and_a_versioned_bucket_may_be_written_over(
    server: S3Server, tmp_path: Path
) -> None:
    it = await place(server, tmp_path / "1", {"a": b"new"}, replace=True)
    await it.call("put_object", Key="a", Body=b"old")
    await it.run()
    assert await it.objects() == {"a": b"new"}

    it = await place(server, tmp_path / "2", {"a": b"new"})
    await it.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
    await it.call("put_object", Key="a", Body=b"old")
    await it.run()
    versions = (await it.call("list_object_versions"))["Versions"]
    assert len(versions) == 2
    latest = next(version["VersionId"] for version in versions if version["IsLatest"])
    assert [location.version for location in it.ctx.locations] == [latest]


# -- parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("checks", [True, False])
async def test_a_large_file_goes_in_parts_and_is_verified_as_a_whole(
    server: S3Server, tmp_path: Path, checks: bool
) -> None:
    server.checks = checks
    data = os.urandom(21 * MIB + 5)
    it = await place(server, tmp_path, {"large.tif": data})
    await it.run()
    assert await it.objects() == {"large.tif": data}
    assert server.count("part") == 3
    words = "CRC64NVME of the whole, kept by the store" if checks else "MD5 (ETag) of every part"
    assert it.ctx.locations[0].verified_by.startswith(words)
    assert it.ctx.progressed[-1] == (len(data), len(data), "bytes")
    assert not it.ctx.outside.exists()


def test_parts_grow_so_that_no_file_needs_more_than_ten_thousand() -> None:
    from dittohead.toolkit.s3.parts import part_size

    assert part_size(1 << 30, 8 * MIB) == 8 * MIB
    assert part_size(5 << 40, 8 * MIB) == 525 * MIB
    assert (5 << 40) / part_size(5 << 40, 8 * MIB) <= 10_000


async def interrupted(it: Place, at: str, number: int) -> None:
    """Run until the server has begun to see the nth request of an operation, and cancel there."""
    task = asyncio.ensure_future(it.run())
    loop = asyncio.get_running_loop()

    def look(request: Any) -> None:
        if request.operation == at and it.server.count(at) == number:
            loop.call_soon_threadsafe(task.cancel)

    it.server.on_request = look
    try:
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        it.server.on_request = lambda request: None


async def test_an_interrupted_upload_goes_on_with_the_parts_that_are_missing(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dittohead.workers.upload._PARTS", 1)
    data = os.urandom(40 * MIB)
    it = await place(server, tmp_path, {"large.tif": data}, parallel=1)
    await interrupted(it, "part", 4)
    noted = next(iter(read_notes(it.ctx.outside)[1].values()))
    assert set(noted.parts) >= {1, 2, 3}
    it.again()
    await it.run()
    sent = {int(request.query["partNumber"]) for request in server.requests if request.operation == "part"}
    assert sent.isdisjoint(noted.parts)
    assert server.count("create") == 0
    assert await it.objects() == {"large.tif": data}
    assert await it.uploads() == []


async def test_a_file_that_changed_since_is_not_completed_from_old_parts(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dittohead.workers.upload._PARTS", 1)
    it = await place(server, tmp_path, {"large.tif": os.urandom(40 * MIB)}, parallel=1)
    await interrupted(it, "part", 3)
    changed = os.urandom(40 * MIB)
    (it.payload / "large.tif").write_bytes(changed)
    it.ctx.source = source_of(it.payload)
    it.again()
    await it.run()
    assert await it.objects() == {"large.tif": changed}
    assert await it.uploads() == []


async def test_an_upload_that_was_begun_but_not_noted_is_not_left_behind(
    server: S3Server, tmp_path: Path
) -> None:
    """A kill between the store's answer and our note: the intention was noted, and is followed up."""
    it = await place(server, tmp_path, {"large.tif": os.urandom(17 * MIB)})
    server.fail("create", "lost-answer", times=1)
    await interrupted(it, "create", 2)
    assert "large.tif" in await it.uploads()
    it.again()
    await it.run()
    assert await it.uploads() == []
    assert set(await it.objects()) == {"large.tif"}


@pytest.mark.parametrize("at", ["create", "part", "complete"])
async def test_what_a_job_that_is_over_left_unfinished_is_aborted(
    server: S3Server, tmp_path: Path, at: str
) -> None:
    it = await place(server, tmp_path, {"large.tif": os.urandom(17 * MIB)})
    server.fail("complete", "AccessDenied")
    await interrupted(it, at, 1)
    await it.worker.let_go(it.ctx.outside, it.ctx.secret)
    assert await it.uploads() == []
    await it.worker.let_go(it.ctx.outside, it.ctx.secret)  # again does no harm


async def test_letting_go_spares_an_upload_that_another_job_begins_at_the_same_key(
    server: S3Server, tmp_path: Path
) -> None:
    it = await place(server, tmp_path, {"large.tif": os.urandom(17 * MIB)})
    ours = it.ctx.outside
    ours.parent.mkdir(parents=True)
    head = {"worker": "upload", "job": "A", "options": it.options.model_dump(mode="json")}
    ours.write_text(json.dumps(head) + '\n{"begin": "large.tif"}\n')
    ours.with_name("B.upload.jsonl").write_text('{"worker": "upload"}\n{"begin": "large.tif"}\n')
    await it.call("create_multipart_upload", Key="large.tif")
    with pytest.raises(TransientError, match="another job"):  # so that it is tried again
        await it.worker.let_go(ours, it.ctx.secret)
    assert await it.uploads() == ["large.tif"]
    ours.with_name("B.upload.jsonl").unlink()
    await it.worker.let_go(ours, it.ctx.secret)
    assert await it.uploads() == []


# -- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["500", "slow-down", "cut", "lost-answer", "flip"])
@pytest.mark.parametrize("operation", ["put", "create", "part", "complete", "head"])
async def test_passing_faults_are_ridden_out(
    server: S3Server, tmp_path: Path, operation: str, kind: str
) -> None:
    data = {"small": b"s" * 1000, "middle": os.urandom(2 * MIB), "large": os.urandom(17 * MIB)}
    it = await place(server, tmp_path, data)
    await it.call("put_object", Key="warm", Body=b"")
    if kind != "flip" or operation in ("put", "part"):
        server.fail(operation, kind, times=2)
    await it.run()
    assert {key: value for key, value in (await it.objects()).items() if key != "warm"} == data
    assert await it.uploads() == []


async def test_a_store_that_keeps_something_else_is_found_out(server: S3Server, tmp_path: Path) -> None:
    """Without checksums of the store a flipped bit is seen in the ETag; once is corrected, always pauses."""
    server.checks = False
    it = await place(server, tmp_path, {"small": b"s" * 1000})
    server.fail("put", "flip", times=5, key="small")
    with pytest.raises(TargetError, match="keeps something else than what was sent, 3 times; it was removed"):
        await it.run()
    assert await it.objects() == {}
    server.faults.clear()
    server.fail("put", "flip", times=1, key="small")
    it.again()
    await it.run()
    assert await it.objects() == {"small": b"s" * 1000}


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("AccessDenied", "Allow this user"),
        ("ExpiredToken", "Renew the credentials"),
        ("RequestTimeTooSkewed", "clock"),
        ("SignatureDoesNotMatch", "secret key"),
        ("QuotaExceeded", "Make room"),
    ],
)
async def test_standing_faults_pause_the_bucket_with_what_to_do(
    server: S3Server, tmp_path: Path, code: str, hint: str
) -> None:
    it = await place(server, tmp_path, {"a": b"x", "b": os.urandom(17 * MIB)})
    server.fail("put", code, times=100)
    server.fail("create", code, times=100)
    with pytest.raises(TargetError) as caught:
        await it.run()
    assert hint in caught.value.hint
    assert "not-to-be-seen" not in str(caught.value)
    assert it.worker.target(it.options).startswith("s3://b")


async def test_a_missing_bucket_and_a_store_that_is_down_pause_the_target(
    server: S3Server, tmp_path: Path
) -> None:
    it = Place(server, tmp_path, {"a": b"x"})
    with pytest.raises(TargetError, match="NoSuchBucket"):
        await it.run()
    it.options = it.options.model_copy(update={"endpoint_url": "http://127.0.0.1:9"})
    with pytest.raises(TargetError, match="the store cannot be reached"):
        await it.run()


async def test_a_store_that_asks_for_a_long_wait_is_obeyed_without_a_slot(
    server: S3Server, tmp_path: Path
) -> None:
    it = await place(server, tmp_path, {"a": b"x"})
    await it.run()
    it.again()
    server.fail("head", "slow-down", times=9, Retry_After="300")
    with pytest.raises(TransientError) as caught:
        await it.run()
    assert caught.value.retry_after_s == 300
    assert server.count("head") == 1


async def test_a_store_that_takes_no_more_bytes_is_given_up(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = Patience(monkeypatch, s3_bucket)
    it = await place(server, tmp_path, {"a": b"x" * 5000, "large": os.urandom(17 * MIB)})
    server.fail("part", "stall", times=1)
    run_out = patience.run_out_when(server.stalled.is_set, s3_bucket._STALL_S)
    await asyncio.gather(it.run(), run_out)
    assert len(await it.objects()) == 2
    server.release.set()


def test_throttling_halves_the_window_once_a_moment_and_answers_open_it_again() -> None:
    rate = RequestRate(32)
    rate.slow_down()
    rate.slow_down()
    assert rate.window == 16
    for _ in range(16):
        rate.well()
    assert 16.9 < rate.window < 17.1
    for _ in range(10_000):
        rate.well()
    assert rate.window == 32


async def test_turns_are_given_in_order_and_never_more_than_the_window() -> None:
    rate, running, most, order = RequestRate(3), 0, 0, []

    async def work(name: int) -> None:
        nonlocal running, most
        async with rate.turn():
            running += 1
            most = max(most, running)
            order.append(name)
            await asyncio.sleep(0)
            running -= 1

    tasks = [asyncio.ensure_future(work(number)) for number in range(50)]
    await asyncio.sleep(0)
    tasks[30].cancel()  # one that waits
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 3
    assert order == [number for number in range(50) if number != 30]


async def test_a_bandwidth_spaces_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("dittohead.toolkit.s3.request_rate.time.monotonic", lambda: 100.0)
    monkeypatch.setattr("dittohead.toolkit.s3.request_rate.asyncio.sleep", sleep)
    rate = RequestRate(8, bytes_per_s=1000)
    for _ in range(3):
        await rate.spend(500)
    assert slept == [0.5, 1.0]


# -- keys and what is said about objects --------------------------------------------------------


async def test_keys_types_and_everything_else_are_as_configured(server: S3Server, tmp_path: Path) -> None:
    it = await place(
        server,
        tmp_path,
        {"scans/Ä 1.TIF": b"x", "top.jp2": b"y"},
        key="{folder}/{stem}.{ext}",
        content_types={".tif": "image/x-special"},
        metadata={"sha256": "{sha256}", "original": "{path}"},
        tags={"kind": "master / more"},
        storage_class="STANDARD_IA",
        cache_control="no-store",
    )
    await it.run()
    head = await it.call("head_object", Key="scans/Ä 1.TIF")
    assert head["ContentType"] == "image/x-special"
    assert head["Metadata"] == {"sha256": hashlib.sha256(b"x").hexdigest(), "original": "scans/%C3%84 1.TIF"}
    assert (head["StorageClass"], head["CacheControl"]) == ("STANDARD_IA", "no-store")
    assert (await it.call("head_object", Key="top.jp2"))["ContentType"] == "image/jp2"
    tags = (await it.call("get_object_tagging", Key="top.jp2"))["TagSet"]
    assert tags == [{"Key": "kind", "Value": "master / more"}]


async def test_encryption_and_object_lock_are_asked_for(server: S3Server, tmp_path: Path) -> None:
    it = Place(
        server,
        tmp_path,
        {"a": b"x", "large": os.urandom(17 * MIB)},
        encryption={"type": "AES256"},
        object_lock={"mode": "governance", "retain": "10d", "legal_hold": True},
    )
    await it.call("create_bucket", ObjectLockEnabledForBucket=True)
    await it.run()
    head = await it.call("head_object", Key="a")
    assert (head["ObjectLockMode"], head["ObjectLockLegalHoldStatus"]) == ("GOVERNANCE", "ON")
    begun = [r for r in it.server.requests if r.operation == "create" or r.path.endswith("/a")]
    assert {"create", "put"} <= {request.operation for request in begun}
    for request in begun:  # of a multipart upload moto forgets them
        if request.operation in ("create", "put"):
            assert request.headers["x-amz-server-side-encryption"] == "AES256"
            assert request.headers["x-amz-object-lock-mode"] == "GOVERNANCE"
            assert request.headers["x-amz-object-lock-legal-hold"] == "ON"


@pytest.mark.parametrize("fault", ["", "AccessDenied", "501"])
async def test_what_lies_behind_a_thousand_others_or_cannot_be_listed_is_not_overwritten(
    server: S3Server, tmp_path: Path, fault: str
) -> None:
    server.conditions = False  # so that it is ours to look
    it = await place(server, tmp_path, {"m": b"1", "z": b"mine"})
    async with connection.client(it.options, {"keys": KEYS}.__getitem__) as client:
        for n in range(0 if fault else 1001):
            await client.put_object(Bucket=it.bucket, Key=f"n{n}", Body=b"")
        await client.put_object(Bucket=it.bucket, Key="z", Body=b"another's")
    if fault:
        server.fail("get", fault, times=2)  # the question for versions, and the listing
    with pytest.raises(ItemError, match="z: there is another object"):
        await it.run()
    objects = await it.call("get_object", Key="z")
    assert objects["ContentLength"] == len(b"another's")
    assert (await it.call("head_object", Key="m"))["ContentLength"] == 1


async def test_two_files_with_one_key_are_refused_before_anything_is_sent(
    server: S3Server, tmp_path: Path
) -> None:
    it = await place(server, tmp_path, {"a/x.tif": b"1", "b/x.tif": b"2"}, key="{stem}.{ext}")
    with pytest.raises(ItemError, match="two files would get the same key x.tif: a/x.tif and b/x.tif"):
        await it.run()
    assert server.requests == []


async def test_a_name_that_is_not_utf8_is_percent_encoded_in_its_key(
    server: S3Server, tmp_path: Path
) -> None:
    it = await place(server, tmp_path, {b"caf\xe9.txt": b"x"})
    await it.run()
    assert await it.objects() == {"caf%E9.txt": b"x"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prefix": "a"}, 'a prefix ends with "/"'),
        ({"prefix": "a/", "key": "{path}"}, "prefix and key exclude each other"),
        ({"endpoint_url": "https://me:pw@host"}, "a password does not belong here"),
        ({"object_lock": {"mode": "governance"}}, "mode and retain belong together"),
        ({"encryption": {"type": "AES256", "key": "k"}}, "a key goes with type aws:kms"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        UploadOptions.model_validate({"bucket": "b", **given})


# -- changes of the source, verification -----------------------------------------------------


@pytest.mark.parametrize("size", [1000, 3 * MIB, 17 * MIB])
async def test_a_file_that_is_not_what_it_was_is_not_uploaded(
    server: S3Server, tmp_path: Path, size: int
) -> None:
    it = await place(server, tmp_path, {"a": os.urandom(size)})
    (it.payload / "a").write_bytes(os.urandom(size))
    with pytest.raises(ItemError, match="not what it was at the claim"):
        await it.run()
    assert await it.objects() == {}
    assert await it.uploads() == []


async def test_read_back_is_read_back(server: S3Server, tmp_path: Path) -> None:
    it = await place(server, tmp_path, {"a": b"x", "large": os.urandom(17 * MIB)}, verify="read-back")
    await it.run()
    assert server.count("get") >= 2


async def report_of(it: Place) -> dict[str, str]:
    found: dict[str, str] = {}
    ctx = VerifyContext(
        locations=lambda: iter(it.ctx.locations),
        source=it.ctx.source,
        env={},
        secret=it.ctx.secret,
        report=lambda ok, uri, what: found.update({uri.rsplit("/", 1)[1]: "" if ok else what}),
    )
    await it.worker.verify(ctx, it.options)
    return found


@pytest.mark.parametrize("checks", [True, False])
async def test_verify_sees_what_is_missing_or_another(server: S3Server, tmp_path: Path, checks: bool) -> None:
    server.checks = checks
    it = await place(server, tmp_path, {"a": b"one", "b": b"two", "c": b"three", "d": os.urandom(17 * MIB)})
    await it.run()
    assert await report_of(it) == {"a": "", "b": "", "c": "", "d": ""}
    await it.call("put_object", Key="a", Body=b"eno")
    await it.call("put_object", Key="b", Body=b"longer")
    await it.call("delete_object", Key="c")
    found = await report_of(it)
    assert found == {"a": "is another object now", "b": "has 6 bytes, not 3", "c": "is missing", "d": ""}


async def test_doctor_says_what_the_store_does(server: S3Server, tmp_path: Path) -> None:
    it = await place(server, tmp_path, {"a": b"x"})
    found = [said async for said in it.worker.doctor(it.options, it.ctx.secret)]
    assert found[0][0]
    assert "the store checks CRC64NVME, the bucket keeps no versions" in found[0][1]
    missing = it.options.model_copy(update={"bucket": "there-is-none"})
    s3_bucket._known.clear()
    assert [good async for good, _ in it.worker.doctor(missing, it.ctx.secret)] == [False]


def test_a_credential_is_read_in_both_of_awss_forms_and_never_shown() -> None:
    found = connection.parse_keys(KEYS, None)
    assert (found.access_key, found.secret_key) == ("test", "not-to-be-seen")
    assert "not-to-be-seen" not in repr(found)
    found = connection.parse_keys(
        '{"Version": 1, "AccessKeyId": "k", "SecretAccessKey": "s", "SessionToken": "t"}', None
    )
    assert found.token == "t"
    for text in ("nonsense", "[other]\naws_access_key_id=x", '{"AccessKeyId": 5}', "not-to-be-seen\n[x"):
        with pytest.raises(ValueError, match="holds no keys") as caught:
            connection.parse_keys(text, None)
        assert "not-to-be-seen" not in str(caught.value)


def test_all_errors_are_of_the_three_kinds() -> None:
    for error in (TimeoutError(), ConnectionResetError()):
        assert isinstance(connection.fault(error, where="s3://b", doing="x"), StepError)


async def test_a_plan_says_what_lies_there_and_writes_nothing(server: S3Server, tmp_path: Path) -> None:
    """The same, another of that size or of another, nothing, and what earlier steps would make."""
    it = await place(server, tmp_path, dict.fromkeys(("same", "other", "longer", "new"), b"one"))
    for key, data in (("same", b"one"), ("other", b"two"), ("longer", b"three")):
        told = base64.b64encode(hashlib.sha256(data).digest()).decode()
        await it.call("put_object", Key=key, Body=data, ChecksumSHA256=told)
    server.requests.clear()
    said: dict[str, tuple[str, str]] = {}

    async def plan() -> None:
        async for one in it.worker.plan(it.ctx, it.options):
            said[one.what] = (one.action, one.detail)

    with pytest.raises(ItemError, match="2 files could not be uploaded: .*longer: there is another object"):
        await plan()
    assert said == {
        "same": ("keep", "3 bytes, is there already"),
        "other": ("keep", "3 bytes, another object is there: refused"),
        "longer": ("keep", "3 bytes, another object is there: refused"),
        "new": ("send", "3 bytes"),
    }
    assert {request.method for request in server.requests} <= {"GET", "HEAD"}
    assert not any(
        "partNumber" in request.path or request.path.endswith("/same")
        for request in server.requests
        if request.method == "GET"
    )
    it.options = it.options.model_copy(update={"replace": True})
    await plan()
    assert {name for name, (action, _) in said.items() if action == "change"} == {"other", "longer"}
