"""S3 sources in the real daemon, against a real S3 server: listings, queues, tokens, kills and faults."""

from __future__ import annotations

import json
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


def test_all_records_of_a_message_are_fetched_and_it_is_deleted_when_all_their_jobs_are_done(
    place: Place, tmp_path: Path
) -> None:
    """Not only the first; keys are decoded; while a job goes on the message stays, hidden."""
    for key in ("s1/a b+c.tif", "s1/Ü.tif", "s2/x.tif"):
        place.put(key, key.encode())
    url = place.make_queue()
    place.configure(
        wait_pipeline(tmp_path), queue={"url": url, "endpoint_url": place.server.url}, bucket=place.bucket
    )
    place.site.start()
    place.send({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": place.bucket})
    place.send({"Records": [place.record(key) for key in ("s1/a b+c.tif", "s1/Ü.tif", "s2/x.tif")]})
    place.until_done("s1")
    assert place.done("s1") == {b"a b+c.tif": b"s1/a b+c.tif", "Ü.tif".encode(): "s1/Ü.tif".encode()}
    place.site.until(lambda: place.messages() == 1)  # the test message is gone
    place.site.until(lambda: place.source()["items"]["done"] == 2)
    assert place.source()["orders"] == {"open": 1, "unreadable": 0}
    (tmp_path / "go").touch()
    place.until_done("s2")
    place.site.until(lambda: place.messages() == 0)
    place.site.until(lambda: place.source()["orders"]["open"] == 0)


def wait_pipeline(tmp_path: Path) -> str:
    """A folder s2 waits for a file `go`; a folder named bad... fails while there is no file `mended`."""
    return f"""
pipelines:
  slow:
    match: "s2.*"
    steps: [command: {{argv: [sh, -c, 'while ! test -e "$0/go"; do sleep 0.02; done', "{tmp_path}"]}}]
  bad:
    match: "bad.*"
    steps: [command: {{argv: [test, -e, "{tmp_path}/mended"]}}]
  all: {{match: ".*", steps: [checksum: {{}}]}}
"""


def test_wrapped_messages_are_understood_and_others_left_counted_and_said(place: Place) -> None:
    """SNS and EventBridge; what is no event stays in the queue."""
    for key in ("s1/a+b.tif", "s3/c+d.tif"):
        place.put(key, b"x")
    url = place.make_queue()
    place.configure(queue={"url": url, "endpoint_url": place.server.url})
    place.site.start()
    place.send({"Type": "Notification", "Message": json.dumps({"Records": [place.record("s1/a+b.tif")]})})
    detail = {"bucket": {"name": place.bucket}, "object": {"key": "s3/c+d.tif"}}
    place.send({"detail-type": "Object Created", "source": "aws.s3", "detail": detail})
    place.send("no JSON")
    place.send(
        {
            "Records": [
                place.record("s1/a+b.tif") | {"s3": {"bucket": {"name": "another"}, "object": {"key": "x"}}}
            ]
        }
    )
    place.until_done("s1", "s3")
    place.site.until(lambda: place.messages() == 2)
    place.site.until(lambda: place.source()["orders"] == {"open": 0, "unreadable": 2})
    said = {event["reason"] for event in place.site.events("source.unreadable")}
    assert said == {"it is no JSON", "it speaks of the bucket another"}


def test_a_message_is_not_lost_when_its_job_fails_and_goes_when_a_retry_succeeds(
    place: Place, tmp_path: Path
) -> None:
    """A token likewise; and both by `rerun`, which makes a new job of the same folder."""
    for key in ("bad1/a", "bad2/a"):
        place.put(key, b"x")
    place.put("tokens/1.json", json.dumps({"key": "bad2/a", "path": "bad2/", "eTag": "-"}).encode())
    url = place.make_queue()
    place.configure(
        wait_pipeline(tmp_path),
        queue={"url": url, "endpoint_url": place.server.url},
        tokens={"prefix": "tokens/"},
    )
    place.site.start()
    place.send({"Records": [place.record("bad1/a")]})
    place.site.until(lambda: place.source()["items"]["failed"] == 2)
    assert place.messages() == 1
    assert "tokens/1.json" in place.names()
    (tmp_path / "mended").touch()
    place.site.run("retry", "bad1")
    (place.site.root / "failed" / "bad2").rename(place.site.root / "inbox" / "bad2-renamed")
    place.site.until(lambda: place.source()["items"]["done"] == 2)
    place.site.until(lambda: place.messages() == 0)
    place.site.until(lambda: place.names(prefix="tokens/") == [])
    assert place.source()["orders"]["open"] == 0


def test_a_rerun_of_a_failed_folder_settles_what_upstream_waits_for(place: Place, tmp_path: Path) -> None:
    """Another job, of the same inode."""
    place.put("bad1/a", b"x")
    place.put("tokens/1.json", b'{"key": "bad1/a"}')
    place.configure(
        wait_pipeline(tmp_path), tokens={"prefix": "tokens/", "when_done": "move", "move_to": "kept/"}
    )
    place.site.start()
    place.site.until(lambda: place.source()["items"]["failed"] == 1)
    place.site.run("rerun", "bad1")
    place.site.until(lambda: len(place.site.events("source.followed")) >= 2)
    (tmp_path / "mended").touch()
    place.site.until(lambda: place.source()["items"]["failed"] == 1)
    place.site.run("rerun", "bad1")
    place.site.until(lambda: place.names(prefix="kept/") == ["kept/1.json"])
    assert place.names(prefix="tokens/") == []


def test_a_token_that_names_nothing_is_left_and_said(place: Place) -> None:
    """The pipeline before this deleted it, and the work was lost."""
    place.put("tokens/1.json", b'{"key": "s1/missing"}')
    place.put("tokens/2.json", b'{"path": "s1/"}')
    place.put("tokens/3.json", b'{"key": "outside"}')
    place.configure(tokens={"prefix": "tokens/"})
    place.site.start()
    place.site.until(lambda: place.source()["finished_at"])
    assert place.source()["orders"] == {"open": 0, "unreadable": 3}
    assert len(place.names(prefix="tokens/")) == 3
    # It may only have come too early.
    place.put("s1/missing", b"found")
    place.site.run("source", "sync", "up")
    place.until_done("s1")
    place.site.until(lambda: len(place.names(prefix="tokens/")) == 2)
