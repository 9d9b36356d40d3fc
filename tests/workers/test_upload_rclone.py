"""The upload step against a second S3 server, rclone's, which knows no x-amz-checksum and no If-None-Match."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.worker import Done, VerifyContext
from dittohead.model.errors import ItemError, TargetError
from dittohead.system import fail_points
from dittohead.toolkit.s3 import bucket as s3_bucket
from dittohead.workers.upload import UploadOptions, UploadWorker
from tests.support.context import LoneContext
from tests.support.rclone import ACCESS, SECRET, Rclone, rclone
from tests.support.trees import read_tree, tree

pytestmark = pytest.mark.service

LARGE = os.urandom(17 << 20)
FOLDER: dict[str | bytes, Any] = {
    "a.tif": b"one",
    "Über": {"b c+d%.txt": b"two", "ünï.xml": b""},
    "large.bin": LARGE,
    "middle.bin": LARGE[: 3 << 20],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    with rclone(tmp_path_factory.mktemp("rclone") / "buckets") as made:
        yield made


class Place:
    """A bucket of rclone's and a folder to go there."""

    def __init__(self, store: Rclone, base: Path, what: dict[str | bytes, Any], secret: str = SECRET) -> None:
        s3_bucket._known.clear()
        self.bucket = store.base / base.name.replace("_", "-").lower()[:40].rstrip("-0123456789")
        self.bucket.mkdir()
        payload = tree(base / "folder", what)
        keys = f"[default]\naws_access_key_id = {ACCESS}\naws_secret_access_key = {secret}\n"
        self.ctx = LoneContext(base, payload, secrets={"keys": keys}, step="upload")
        given = {"bucket": self.bucket.name, "endpoint_url": store.url, "credentials": "keys"}
        self.options = UploadOptions.model_validate(given)
        self.expected = read_tree(payload)

    async def run(self) -> Done:
        done = await UploadWorker().run(self.ctx, self.options)
        assert isinstance(done, Done)
        return done

    async def verified(self) -> list[tuple[bool, str, str]]:
        said: list[tuple[bool, str, str]] = []
        looking = VerifyContext(
            locations=lambda: iter(self.ctx.locations),
            source=None,
            env={},
            report=lambda *line: said.append(line),
            secret=self.ctx.secret,
        )
        await UploadWorker().verify(looking, self.options)
        return said


async def test_a_folder_arrives_and_is_verified_by_md5_or_read_back(store: Rclone, tmp_path: Path) -> None:
    it = Place(store, tmp_path, FOLDER)
    await it.run()
    assert read_tree(it.bucket) == it.expected
    how = {place.uri.rsplit("/", 1)[1]: place.verified_by for place in it.ctx.locations}
    assert how["a.tif"] == how["middle.bin"] == "MD5 (ETag) computed by the store"
    assert how["large.bin"] == "MD5 (ETag) of every part, computed by the store"
    assert [ok for ok, *_ in await it.verified()] == [True] * 5


async def test_what_is_there_is_left_and_what_is_another_is_not_overwritten(
    store: Rclone, tmp_path: Path
) -> None:
    it = Place(store, tmp_path, FOLDER)
    await it.run()
    before = {path: path.stat().st_mtime_ns for path in it.bucket.rglob("*") if path.is_file()}
    it.ctx.again()
    await it.run()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (it.bucket / "a.tif").write_bytes(b"another's")
    it.ctx.again()
    with pytest.raises(ItemError, match="another object"):
        await it.run()
    assert (it.bucket / "a.tif").read_bytes() == b"another's"


async def test_a_bit_that_flips_in_the_store_is_found(store: Rclone, tmp_path: Path) -> None:
    it = Place(store, tmp_path, FOLDER)
    await it.run()
    (it.bucket / "large.bin").write_bytes(LARGE[:-1] + bytes([LARGE[-1] ^ 1]))
    wrong = [(uri, problem) for ok, uri, problem in await it.verified() if not ok]
    assert wrong == [(f"s3://{it.bucket.name}/large.bin", "is another object now")]


async def test_an_upload_that_was_interrupted_goes_on(
    store: Rclone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = Place(store, tmp_path, {"large.bin": LARGE})
    sent: list[str] = []
    running = asyncio.ensure_future(it.run())

    def point(name: str) -> None:
        sent.append(name)
        if name == "upload.part":
            running.cancel()

    monkeypatch.setattr(fail_points, "point", point)
    with pytest.raises(asyncio.CancelledError):
        await running
    first = sent.count("upload.part")
    assert 1 <= first < 3
    it.ctx.again()
    monkeypatch.setattr(fail_points, "point", sent.append)
    await it.run()
    assert sent.count("upload.begun") == 1
    # No more than were left; fewer where one arrived that was under way at the interruption.
    assert sent.count("upload.part") <= 3
    assert read_tree(it.bucket) == it.expected


async def test_a_wrong_secret_key_pauses_the_target(store: Rclone, tmp_path: Path) -> None:
    it = Place(store, tmp_path, {"a": b"1"}, secret="another")
    with pytest.raises(TargetError, match="SignatureDoesNotMatch") as raised:
        await it.run()
    assert "another" not in str(raised.value)
