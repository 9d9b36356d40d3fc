"""Sent to the inbox of a running daemon, and followed over its API until the job has ended."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from dittohead_send import follow

from tests.support.daemon import Site, site
from tests.support.ports import free_port
from tests.support.sending import MANIFEST, Sender
from tests.support.trees import read_tree, tree
from tests.support.web_harness import READER, TOKENS

pytestmark = pytest.mark.service

CONFIG = """
root: .
space: {{floor: 0}}
http: {{listen: "127.0.0.1:{port}", tokens: people}}
pipelines:
  bad:
    match: "bad.*"
    steps: [{{command: {{name: judge, argv: [sh, -c, "echo not this one >&2; exit 1"]}}}}]
  all:
    match: ".*"
    steps: [{{checksum: {{}}}}]
"""


@pytest.fixture
def here(sender: Sender, tmp_path: Path) -> Iterator[Site]:
    port = free_port()
    with site(tmp_path / "root", CONFIG.format(port=port)) as made:
        (made.root / "credentials").mkdir(mode=0o700)
        (made.root / "credentials" / "people").write_text(TOKENS)
        (tmp_path / "token").write_text(READER + "\n")
        made.start()
        sender.inbox = made.root / "inbox"
        sender.options = ["--follow", f"http://127.0.0.1:{port}/", "--token-file", str(tmp_path / "token")]
        yield made


def test_it_says_what_became_of_it(sender: Sender, here: Site) -> None:
    """Done, with its steps; failed, with the daemon's reason; each its exit code. A name that was there before counts
    as another job.
    """
    folder = tree(sender.here / "lab1", {"a.tif": b"a" * 999, "sub": {"b.tif": b"b"}})
    (sender.here / "bad1").mkdir()
    (sender.here / "bad1" / "x").write_bytes(b"x")
    for _ in range(2):
        assert sender.send("lab1") == 0, sender.err
        assert "lab1: claimed as job " in sender.err
        assert "lab1: step checksum done" in sender.err
        assert sender.out.endswith("lab1: done\n")
    found = read_tree(here.root / "done" / "lab1")
    assert found.pop(MANIFEST.encode())
    assert found == read_tree(folder)
    for receipt in here.receipts("lab1"):
        (event,) = (event for event in receipt["events"] if "uploader's disk" in event["detail"])
        assert event["outcome"] == "success"
        assert event["detail"].startswith("2 files as on the uploader's disk")
        assert "origin:" not in event["detail"]
    assert READER not in sender.out + sender.err
    good, bad = sender.results("lab1", "bad1")
    assert good["state"] == "done"
    assert len(good["job"]) == 26
    assert bad["state"] == "failed"
    assert bad["error"]["exit_code"] == 65
    assert "judge" in bad["error"]["what"]


def test_a_token_that_is_not_admitted_is_said_before_anything_is_sent(
    sender: Sender, here: Site, tmp_path: Path
) -> None:
    tree(sender.here / "lab1", {"a.tif": b"a"})
    (tmp_path / "token").write_text("another-token-0123456789\n")
    assert sender.send("lab1") == 77
    assert "does not admit this token" in sender.err
    assert not (here.root / "inbox" / "lab1").exists()
    assert "another-token" not in sender.err


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """The token would go to another host."""
    seen = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(302)
            self.send_header("Location", "/stolen")
            self.end_headers()

        def log_message(self, *given: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = follow.Api(f"http://127.0.0.1:{server.server_address[1]}", "secret")
        with pytest.raises(follow.SendError, match="answered 302"):
            api.get("status")
        server.shutdown()
    assert seen == ["/api/v1/status"]


def test_what_waits_is_said_once_and_a_daemon_that_starts_again_is_waited_for() -> None:
    """Held in the inbox, then paused, then done; an answer is missing between them."""
    job = {"id": "01J", "name": "lab1", "reason": "", "all_steps": []}
    answers = iter([
        {"items": [{"id": "00A", "name": "lab1"}]},
        {"items": [{"id": "00A", "name": "lab1"}]}, {"live": {"held": {"lab1": "x is open for writing"}}},
        {"items": []}, {"live": {"held": {"lab1": "x is open for writing"}}},
        OSError(111, "refused"),
        {"items": [{"id": "01J", "name": "lab1"}, {"id": "01K", "name": "lab12"}]},
        {**job, "state": "paused", "reason": "the disk is full"},
        {**job, "state": "done", "all_steps": [{"name": "rsync", "state": "done"}]},
    ])  # fmt: skip

    class Api(follow.Api):
        def get(self, path: str, **query: str) -> object:
            answer = next(answers)
            if isinstance(answer, OSError):
                raise answer
            return json.loads(json.dumps(answer))

    told: list[str] = []
    follower = follow.Follower(Api("http://localhost", None), "lab1", told.append, sleep=lambda seconds: None)
    follower.begin()
    assert follower.end()["state"] == "done"
    assert told == [
        "lab1: waits in the inbox: x is open for writing",
        "lab1: claimed as job 01J",
        "lab1: paused: the disk is full",
        "lab1: step rsync done",
    ]


def test_what_is_dropped_is_not_settled_longer_than_a_finished_folder(sender: Sender, here: Site) -> None:
    """The rename comes last, so the daemon sees a folder that was filled before it."""
    tree(sender.here / "lab1", {"a.tif": b"a"})
    assert sender.send("lab1") == 0
    assert "waits in the inbox" not in sender.err
    assert stat.S_ISDIR((here.root / "done" / "lab1").stat().st_mode)


def test_a_manifest_that_lost_lines_on_its_way_holds_the_folder(sender: Sender, here: Site) -> None:
    """It says how many files it names; what is not whole proves nothing."""
    tree(sender.here / "lab2", {"a.tif": b"a", "b.tif": b"b"})
    sender.options = []
    here.stop()
    assert sender.send("lab2") == 0, sender.err
    sent = here.root / "inbox" / "lab2" / MANIFEST
    sent.write_bytes(b"".join(sent.read_bytes().splitlines(keepends=True)[:-1]))
    (here.root / "inbox" / "lab2" / "b.tif").unlink()
    here.start()
    assert "it says that it has 2 files, and has 1" in here.until(lambda: here.held("lab2"))
