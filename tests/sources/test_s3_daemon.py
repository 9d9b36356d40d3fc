"""S3 sources in the real daemon, against a real S3 server: listings, queues, tokens, kills and faults."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.system.fail_points import SOURCE_POINTS
from tests.support.images import jpeg, levels
from tests.support.length import budget
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
    (receipt,) = place.site.receipts("set1.")
    origin = next(event for event in receipt["events"] if event["type"] == "transfer")
    assert "fetched by the source up, each verified: 4 by CRC32C kept by the store" in origin["detail"]
    dropped = {event["folder"]: event for event in place.site.events("source.dropped")}
    assert dropped["set1"]["verified"] == {"CRC32C kept by the store": 4}
    assert place.source()["finished_at"] is not None
    assert place.gets("set1/a.tif") == 1
    assert "not-to-be-seen" not in place.site.log.read_text()


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
    """SNS and EventBridge; what is not an event stays in the queue."""
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
    assert said == {"it is not JSON", "it names the bucket another"}


@pytest.mark.rest
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


@pytest.mark.rest
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
    place.site.until(lambda: len(place.site.receipts("bad1.")) == 2)
    assert place.names(prefix="tokens/") == ["tokens/1.json"]
    (tmp_path / "mended").touch()
    place.site.until(lambda: (place.site.root / "failed" / "bad1").exists())
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


def test_the_whole_job_of_the_documentation_from_events_to_images_and_a_prefix_again(
    place: Place, tmp_path: Path
) -> None:
    """docs/bucket-to-bucket.md as it stands, with this server's addresses."""
    page = (Path(__file__).parents[2] / "docs" / "bucket-to-bucket.md").read_text()
    (block,) = (b for b in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "convert" in b)
    images = f"{place.bucket}-images"
    place.call("create_bucket", Bucket=images)
    here = f'endpoint_url: "{place.server.url}", credentials: keys'
    for before, after in {
        "root: /srv/dittohead": "root: .",
        "bucket: images,": f"bucket: {images}, {here},",
        "bucket: masters\n": f"bucket: {place.bucket}\n      endpoint_url: {place.server.url}\n      credentials: keys\n",
        'url: "https://sqs.us-east-1.amazonaws.com/123456789012/masters"': f'url: "{place.make_queue()}", '
        f'endpoint_url: "{place.server.url}"',
        "      schedule:": "      settle: 0\n      schedule:",
    }.items():
        assert before in block
        block = block.replace(before, after)
    place.configure()
    place.site.config.write_text(block)
    for key in ("digital/a/1.jpg", "digital/a/b/1.jpg", "digital/a/note.txt", "other/a/1.jpg"):
        place.put(key, jpeg() if key.endswith("jpg") else b"no image")
    place.site.start()
    place.send(
        {"Records": [place.record(key) for key in ("digital/a/1.jpg", "digital/a/b/1.jpg", "other/a/1.jpg")]}
    )
    place.until_done("a", "a_b")
    assert place.names(images) == ["digital/a/1.tif", "digital/a/b/1.tif"]
    made = tmp_path / "1.tif"
    made.write_bytes(place.call("get_object", Bucket=images, Key="digital/a/1.tif")["Body"])
    assert levels(made)[0] == (400, 300)
    place.site.until(lambda: place.messages() == 0)
    for words in re.findall(r"`dittohead (source list|source sync masters|rerun [^`]+|verify NAME)`", page):
        place.site.run(*words.replace("NAME", "a").split())
    (command,) = re.findall(r"^    dittohead (source reset .*)$", page, re.MULTILINE)
    place.site.until(lambda: place.source_of("masters")["items"]["done"] == 2)
    place.site.run(*command.replace("BPP_1001", "a/b").split())
    place.site.until(lambda: len(place.site.receipts("a_b.")) == 2)
    assert len(place.site.receipts("a.")) == 1
    assert place.names(images) == ["digital/a/1.tif", "digital/a/b/1.tif"]


def test_a_daemon_killed_in_mid_fetch_resumes_and_fetches_nothing_twice(place: Place) -> None:
    """SIGKILL while the store stalls; what lies there is gone on with by a range."""
    big = os.urandom(6 * MIB)
    place.put("set/big", big)
    for number in range(20):
        place.put(f"set/small{number:02}", b"%d" % number)
    place.configure()
    place.server.fail("get", "half-stall", key="set/big")
    place.site.start()
    hidden = place.site.root / "inbox" / ".set"
    place.site.until(lambda: (hidden / "big").exists() and (hidden / "big").stat().st_size >= 2 * MIB)
    small = [hidden / f"small{number:02}" for number in range(20)]
    place.site.until(lambda: all(path.exists() and path.read_bytes() for path in small))
    place.site.kill()
    assert not (place.site.root / "inbox" / "set").exists()
    place.server.requests.clear()
    place.site.start()
    place.until_done("set")
    assert place.done("set")[b"big"] == big
    assert len(place.done("set")) == 21
    (second,) = [r for r in place.server.requests if r.operation == "get" and r.path.endswith("/big")]
    assert int(second.headers["range"].removeprefix("bytes=").removesuffix("-")) >= 2 * MIB
    assert sum(place.gets(f"set/{path.name}") for path in small) == 0
    assert len(place.site.receipts("set.")) == 1


def test_a_stop_in_mid_fetch_is_quick_and_what_lies_there_is_gone_on_with(place: Place) -> None:
    """With a store that says nothing, and a queue that is being waited for."""
    body = os.urandom(4 * MIB)
    place.put("set/big", body)
    place.configure(list=True, queue={"url": place.make_queue(), "endpoint_url": place.server.url})
    place.server.fail("get", "half-stall", key="set/big")
    place.site.start()
    part = place.site.root / "inbox" / ".set" / "big"
    place.site.until(lambda: part.exists() and part.stat().st_size >= MIB)
    assert place.site.stop(timeout_s=9) == 0
    place.site.start()
    place.until_done("set")
    assert place.done("set") == {b"big": body}
    assert place.gets("set/big") == 2


def test_two_sources_with_one_folder_take_turns(place: Place) -> None:
    """Each as a folder of its own, one after the other; neither is merged with the other."""
    place.put("one/set/a", b"1")
    place.put("two/set/b", b"2")
    place.configure(prefix="one/")
    text = place.site.config.read_text()
    line = next(line for line in text.splitlines() if line.startswith("    s3:"))
    place.site.config.write_text(text + "  up2:\n" + line.replace("one/", "two/") + "\n")
    place.site.start()
    place.site.until(lambda: len(place.site.receipts("set.")) == 2)
    done = place.site.root / "done"
    place.site.until(lambda: len(os.listdir(done)) == 2)
    found = [path.name for folder in done.iterdir() for path in folder.iterdir()]
    assert sorted(found) == ["a", "b"]


def test_a_store_that_is_down_stops_only_its_source_and_is_said(place: Place) -> None:
    """The daemon goes on; `source list` and `status` tell."""
    place.configure(endpoint_url="http://127.0.0.1:9")
    place.site.start()
    place.site.until(lambda: place.site.events("source.failed"))
    place.site.drop("x", {"a": b"1"})
    place.until_done("x")
    (said,) = place.site.json("source", "list")
    assert said["state"] == "failing"
    assert "the store cannot be reached" in said["error"]
    assert "source failing up" in place.site.run("status").stdout
    # Put right and reloaded, it goes on without a restart.
    place.put("set/a", b"x")
    place.configure()
    place.site.process.send_signal(1)  # type: ignore[union-attr]
    place.until_done("set")


@pytest.mark.rest
def test_commands_work_with_and_without_a_daemon(place: Place) -> None:
    """A dry run writes nothing; a round without a daemon drops what there is room for."""
    place.put("set/a", b"x")
    place.put("set/\x01", b"y")
    place.configure()
    place.site.start()
    place.until_done("set")
    place.site.until(lambda: place.source()["items"]["done"] == 1)
    place.put("set2/a", b"x")
    said = place.site.run("source", "sync", "up", "--dry-run").stdout
    assert "set2/a  1 bytes  → set2" in said
    assert "1 new or changed, for 1 folder; nothing was done" in said
    assert (
        "1 items would be fetched again"
        in place.site.run("source", "reset", "up", "--prefix", "set/a", "--dry-run").stdout
    )
    assert "control characters" in place.site.run("source", "list").stdout
    assert "can be listed" in place.site.run("doctor").stdout
    assert place.site.json("check")["sources"][0]["s3"]["bucket"] == place.bucket
    assert "source up: s3" in place.site.run("check").stdout
    assert place.site.stop() == 0
    said = place.site.run("source", "sync", "up").stdout
    assert "3 items seen, 1 new, 0 changed; 1 folder dropped" in said
    assert (place.site.root / "inbox" / "set2" / "a").read_bytes() == b"x"
    refused = place.site.run("source", "sync", "upp", check=False)
    assert refused.returncode == os.EX_USAGE
    assert 'there is no source "upp". There are: up' in refused.stderr
    said = place.site.run("source", "reset", "up", "--prefix", "set/a", "--sync").stdout
    assert "1 items are fetched again" in said
    assert "1 folder dropped" in said


def test_a_lost_store_fetches_again_beside_what_is_done(place: Place) -> None:
    """No folder is replaced or merged: the second gets a time suffix, as any second arrival."""
    place.put("set/a", b"x")
    place.configure()
    place.site.start()
    place.until_done("set")
    assert place.site.stop() == 0
    for path in (place.site.root / "state").glob("dittohead.sqlite3*"):
        path.unlink()
    place.site.start()
    place.site.until(lambda: len(place.site.receipts("set.")) == 2)
    place.site.until(lambda: len(list((place.site.root / "done").glob("set*"))) == 2)
    place.site.until(lambda: place.source()["items"]["done"] == 1)


@pytest.mark.parametrize("point", budget(SOURCE_POINTS, "source.piece", "source.renamed"))
def test_a_daemon_killed_at_any_moment_of_a_fetch_brings_the_folder_once(place: Place, point: str) -> None:
    """And the message is deleted in the end, not before."""
    place.put("set/a", os.urandom(MIB))
    place.put("set/b", b"small")
    place.configure(queue={"url": place.make_queue(), "endpoint_url": place.server.url})
    place.send({"Records": [place.record("set/a"), place.record("set/b")]})
    place.site.arm(f"{point}:1:kill")
    place.site.start(wait=False)
    assert place.site.process is not None
    place.site.process.wait(60)
    assert place.messages() == (0 if point == "source.settled" else 1)
    del place.site.env["MORTAL_DIES"]
    place.site.start()
    place.until_done("set")
    place.site.until(lambda: place.source()["items"]["done"] == 2)
    place.site.until(lambda: place.source()["orders"]["open"] == 0)
    assert place.messages() == 0
    assert len(place.site.receipts()) == 1
    assert set(place.done("set")) == {b"a", b"b"}
    again = place.gets("set/a") - 1
    assert again <= (1 if point == "source.piece" else 0) + (point == "source.made")


def test_a_scheduled_run_ends_when_the_bucket_holds_nothing_more(place: Place) -> None:
    """It looks at once, whatever the schedule says, and waits for what it fetched to be done."""
    place.put("set1/a", b"one")
    place.put("set2/b", b"two")
    place.configure()
    said = place.site.run("run", "--until-empty", "--patience", "20s", check=False)
    assert said.returncode == 0, said.stderr
    assert place.done("set1") == {b"a": b"one"}
    assert place.done("set2") == {b"b": b"two"}
