"""What an audit says of objects in a bucket: by what each is known to be right, and what is wrong."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dittohead.admin import audit
from dittohead.admin.audit import Audit, ComparedBucket
from dittohead.model.errors import TransientError
from dittohead.toolkit.s3 import connection
from dittohead.toolkit.s3.bucket import Bucket
from dittohead.toolkit.s3.request_rate import RequestRate
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.service

KEYS = "[default]\naws_access_key_id = test\naws_secret_access_key = test\n"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as made:
        yield made


@pytest.fixture
async def bucket(server: S3Server, request: pytest.FixtureRequest) -> AsyncIterator[Bucket]:
    given = connection.Connection.model_validate({"endpoint_url": server.url, "credentials": "keys"})
    name = "b" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    async with connection.client(given, {"keys": KEYS}.__getitem__) as client:
        await client.create_bucket(Bucket=name)
        yield Bucket(client, name, given.address(), RequestRate(8))


async def put(bucket: Bucket, key: str, body: bytes, **given: Any) -> None:
    await bucket._client.put_object(Bucket=bucket.name, Key=key, Body=body, **given)


def expected(body: bytes, *, md5: bool = True, checksum: str = "") -> audit._Expected:
    digest = hashlib.md5(body).hexdigest() if md5 else ""
    sha256 = hashlib.sha256(body).hexdigest()
    return audit._Expected(size=len(body), sha256=sha256, checksum=checksum, md5=digest)


async def compared(bucket: Bucket, key: str, objects: dict[str, audit._Expected], **given: Any) -> Audit:
    found = Audit()
    await audit._compare(ComparedBucket(bucket=bucket, prefix="p/", **given), key, objects, found)
    return found


async def test_content_is_known_by_the_etag_a_checksum_or_by_reading(bucket: Bucket) -> None:
    sha256 = base64.b64encode(hashlib.sha256(b"two").digest()).decode()
    await put(bucket, "p/B1/1", b"one")
    await put(bucket, "p/B1/2", b"two", ChecksumAlgorithm="SHA256", ChecksumSHA256=sha256)
    await put(bucket, "p/B1/3", b"three")
    objects = {
        "p/B1/1": expected(b"one"),
        "p/B1/2": expected(b"two", md5=False),
        "p/B1/3": expected(b"three", md5=False),
    }
    found = await compared(bucket, "B1", objects)
    assert found.as_dict()["wrong"] == 0
    assert (found.by["ETag"], found.by["checksum"] + found.by["size alone"]) == (1, 2)
    assert found.by["checksum"] >= 1
    assert found.objects == 3
    assert dict((await compared(bucket, "B1", objects, read=True)).by) == {"reading": 3}


async def test_other_bytes_of_the_same_size_are_found(bucket: Bucket) -> None:
    """By a checksum that the store keeps; and by reading where it keeps none that the receipt has."""
    right = base64.b64encode(hashlib.sha256(b"one").digest()).decode()
    wrong = base64.b64encode(hashlib.sha256(b"eno").digest()).decode()
    await put(bucket, "p/B1/1", b"eno", ChecksumAlgorithm="SHA256", ChecksumSHA256=wrong)
    kept = expected(b"one", checksum=f"SHA256:{right}")
    for given in (kept, expected(b"one", md5=False)):
        for read in (False, True):
            found = await compared(bucket, "B1", {"p/B1/1": given}, read=read)
            assert (found.counts["changed"], found.objects) == (1, 0)


async def test_what_was_replaced_without_a_checksum_is_read(bucket: Bucket) -> None:
    """Its ETag is another MD5, or the checksum that it had is gone; one encrypted by KMS has no MD5."""
    await put(bucket, "p/B1/1", b"eno")
    for given in (expected(b"one"), expected(b"one", md5=False, checksum="CRC64NVME:AAAAAAAAAAA=")):
        found = await compared(bucket, "B1", {"p/B1/1": given})
        assert [one["why"] for one in found.named["changed"]] == [
            "its bytes have another SHA-256 than the receipt says"
        ]
    head = {"ETag": '"' + "0" * 32 + '"', "ContentLength": 3}
    assert audit._is_doubtful(expected(b"one"), head)
    assert not audit._is_doubtful(expected(b"one"), head | {"ServerSideEncryption": "aws:kms"})


async def test_missing_surplus_and_other_sizes_are_named(bucket: Bucket) -> None:
    for key, body in (("p/B1/1", b"one"), ("p/B1/more", b"x"), ("p/B1/3", b"longer")):
        await put(bucket, key, body)
    objects = {f"p/B1/{n}": expected(b"one") for n in (1, 2, 3)}
    found = await compared(bucket, "B1", objects)
    assert [one["what"] for one in found.named["missing"]] == [bucket.uri("p/B1/2")]
    assert [one["what"] for one in found.named["surplus"]] == [bucket.uri("p/B1/more")]
    assert [one["why"] for one in found.named["changed"]] == ["6 bytes; the receipt says 3"]


async def test_others_objects_in_a_shared_directory_are_not_surplus(bucket: Bucket) -> None:
    """`raw/BARCODE.tar.gz`: no directory is one volume's own, so each object is asked for."""
    for name in ("B1", "B2", "B10"):
        await put(bucket, f"p/raw/{name}.tar.gz", name.encode())
    found = await compared(bucket, "B1", {"p/raw/B1.tar.gz": expected(b"B1")})
    assert (found.as_dict()["wrong"], found.objects) == (0, 1)
    found = await compared(bucket, "B3", {"p/raw/B3.tar.gz": expected(b"B3")})
    assert found.counts == {"missing": 1, "surplus": 0, "changed": 0}


async def test_a_listing_goes_on_to_its_end_and_not_for_ever(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        await put(bucket, f"p/B1/{number}", b"x")
    real = bucket.ask

    async def few(operation: str, doing: str, **given: Any) -> dict[str, Any]:
        return await real(operation, doing, MaxKeys=2, **given)

    monkeypatch.setattr(bucket, "ask", few)
    names = [one["Key"] async for page in audit._pages(bucket, Prefix="p/") for one in page["Contents"]]
    assert names == [f"p/B1/{number}" for number in range(7)]

    async def stuck(operation: str, doing: str, **given: Any) -> dict[str, Any]:
        return {"IsTruncated": True, "NextContinuationToken": "same", "Contents": []}

    monkeypatch.setattr(bucket, "ask", stuck)
    with pytest.raises(TransientError, match="and not where"):
        async for _ in audit._pages(bucket, Prefix="p/"):
            pass
