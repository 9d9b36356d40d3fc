"""What waits in the inbox before it is a job has a voice: status, page, metric, notice; the cure works as printed."""

from __future__ import annotations

import html
import os
import re
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from dittohead.engine import live_status
from tests.support import hostile as by
from tests.support.daemon import site
from tests.support.hostile import UPLOADER, Box, box
from tests.support.ports import free_port
from tests.support.receivers import mailbox

needs_two = pytest.mark.skipif(not by.ROOT, reason="NEEDS ROOT, FOR TWO UIDS: left out")
pytestmark = pytest.mark.service

MORE = """
http: {{listen: "127.0.0.1:{http}"}}
uploaders: {{{uid}: technician@example.org}}
notify:
  - smtp: {{host: 127.0.0.1, port: {smtp}, sender: d@example.org, to: [archive@example.org, uploader]}}
"""


def fetched(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        said: str = answer.read().decode()
        return said


def attention(page: str) -> str:
    """Return what stands under "Needs attention"; "" where that is not shown."""
    found = re.search(r'<section id="attention"[^>]*?( hidden)?>(.*?)</section>', page, re.DOTALL)
    assert found is not None
    return "" if found[1] else found[2]


def typed(command: str, programs: Path, answer: str = "") -> None:
    """Type a command as it was printed, as root in a shell; sudo is a stand-in, since we are root."""
    sudo = programs / "sudo"
    sudo.write_text('#!/bin/sh\nexec "$@"\n')
    sudo.chmod(0o755)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    given: dict[str, Any] = {"env": env, "cwd": "/", "input": answer, "text": True, "timeout": 60}
    said = subprocess.run(["sh", "-c", command], capture_output=True, check=False, **given)
    assert said.returncode == 0, said.stderr


@needs_two
@pytest.mark.skipif(not by.python(), reason="INTERPRETER OR REPOSITORY CLOSED TO OTHER USERS: left out")
def test_what_cannot_be_taken_is_told_and_the_cure_works_as_printed(tmp_path: Path) -> None:
    """To the technician who uploaded it too; what a file server put there is nobody's."""
    with mailbox() as mails:
        port = free_port()
        more = MORE.format(http=port, smtp=mails.port, uid=UPLOADER)
        with box(watch=", held_after: 1s", more=more) as here:
            shut = here.prepare("it's", {"a": "1"})
            here.publish(shut, (os.chmod, ".", 0o755))
            here.upload("cut off", {"a b.filepart": "1", "c": "1"})
            here.uploader.do(None, by.write, here.root / "inbox" / "a b.tif", b"1")
            here.uploader.do(None, os.mkdir, here.root / "inbox" / "@eaDir", 0o777)
            names = {"it's", "cut off", "a b.tif"}
            found = here.until(lambda: told(here, names))
            assert {one["kind"] for one in found.values()} == {"immovable", "unfinished", "stray"}
            assert {one["owner"] for one in found.values()} == {str(UPLOADER)}
            assert here.json("status")["live"]["ignored"] == 1

            status = here.run("status").stdout
            page = html.unescape(attention(fetched(port, "/")))
            here.until(lambda: len(mails.mails) >= 2 * len(names))
            bodies = [mail.get_content().replace("\r\n", "\n") for mail in mails.mails]
            for name, one in found.items():
                assert f"\n    {one['command']}\n" in status
                assert one["command"] in page.replace(" &&\n", " && ")
                assert sum(f"Type: {one['command']}\n" in body for body in bodies) == 2, name
            assert "mode 0755, owner 60001" in status
            assert "@eaDir" not in status + fetched(port, "/")
            assert {mail["To"] for mail in mails.mails} == {"archive@example.org", "technician@example.org"}
            metrics = fetched(port, "/metrics")
            for line in (
                'arrivals_held{kind="immovable"}',
                'arrivals_held{kind="unfinished"}',
                "inbox_strays",
            ):
                assert f"dittohead_{line} 1.0\n" in metrics

            for one in found.values():
                typed(one["command"], tmp_path, answer="y\n")
            here.until(
                lambda: all(here.stations_of(os.fsencode(name)) in (["done"], ["failed"]) for name in names)
            )
            assert (here.root / "done" / "a b.tif" / "a b.tif").read_bytes() == b"1"
            assert (here.root / "done" / "it's" / "a").read_text() == "1"
            here.until(lambda: not told(here, set()))
            assert "held" not in here.run("status").stdout
            assert "a b.tif" not in attention(fetched(port, "/"))
            assert here.stations_of(b"@eaDir") == ["inbox"]


def told(here: Box, names: set[str]) -> dict[str, dict[str, Any]]:
    """Return what the daemon says needs attention, by name; {} where names are missing."""
    found = {one["name"]: one for one in live_status.read(here.root / "state").get("overdue", [])}
    return found if names <= found.keys() else {}


def test_a_failure_for_want_of_a_pipeline_is_over_when_it_was_renamed(tmp_path: Path) -> None:
    """As advised: on the page, in status and in the metric."""
    port = free_port()
    config = f"""
        root: .
        http: {{listen: "127.0.0.1:{port}"}}
        space: {{floor: 0}}
        pipelines: {{all: {{match: "[a-z]+", steps: [{{command: {{argv: ["true"]}}}}]}}}}
        """
    with site(tmp_path / "root", config) as here:
        here.start()
        here.drop("BAD", {"a": "1"})
        here.until(lambda: (here.root / "failed" / "BAD.reason.txt").exists())
        here.until(lambda: "BAD" in attention(fetched(port, "/")))
        assert here.json("status")["failed_count"] == 1
        (here.root / "failed" / "BAD").rename(here.root / "inbox" / "good")
        here.until(lambda: (here.root / "done" / "good").exists())
        here.until(lambda: here.json("status")["failed_count"] == 0)
        assert here.json("status")["failed"] == []
        assert attention(fetched(port, "/")) == ""
        assert "dittohead_open_failures 0.0\n" in fetched(port, "/metrics")
        assert "Needs attention" not in here.run("status").stdout
