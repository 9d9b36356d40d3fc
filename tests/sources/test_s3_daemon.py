"""S3 sources in the real daemon, against a real S3 server: listings, queues, tokens, kills and faults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.s3_server import S3Server
from tests.support.upstream import Place, upstream

pytestmark = pytest.mark.service

MIB = 1 << 20


@pytest.fixture(scope="module")
def strict() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def place(strict: S3Server, tmp_path: Path) -> Iterator[Place]:
    strict.requests.clear()
    strict.faults.clear()
    strict.checks = strict.conditions = strict.etags = True
    with upstream(strict, tmp_path) as made:
        yield made


def test_a_listed_bucket_becomes_folders_that_are_processed(place: Place) -> None:
    """Paths are kept, each object is verified by the store's checksum, and the table knows the job."""
    files = {"a.tif": b"one", "sub/b c+d%.txt": b"two", "Über.xml": b"", "big": os.urandom(9 * MIB)}
    for name, body in files.items():
        place.put(f"set1/{name}", body)
    place.put("set2/x", b"x")
    place.configure()
    place.site.start()
    place.until_done("set1", "set2")
    assert place.done("set1") == {name.encode(): body for name, body in files.items()}
    place.site.until(lambda: place.source()["items"]["done"] == 5)
    dropped = {event["folder"]: event for event in place.site.events("source.dropped")}
    assert dropped["set1"]["verified"] == {"CRC32C kept by the store": 4}
    assert place.source()["finished_at"] is not None
    assert place.gets("set1/a.tif") == 1
