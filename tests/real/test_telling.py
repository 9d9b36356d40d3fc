"""What people are told, by the real daemon: mail, stale uploads, full disks, held arrivals; drop and doctor."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from dittohead.cli import follow
from dittohead.config.loader import load
from dittohead.system import lock
from tests.support.daemon import site
from tests.support.receivers import mailbox
from tests.support.trees import fifo, read_tree, tree

pytestmark = pytest.mark.service


def test_done_failed_and_stale_are_told_by_mail(tmp_path: Path) -> None:
    """Each once, in words, with the command to type."""
    with mailbox() as box:
        config = f"""
            root: .
            space: {{floor: 0}}
            watch: {{interval: 50ms, stale_after: 100ms}}
            pipelines:
              all: {{match: "[a-z]+", steps: [{{command: {{argv: ["true"]}}}}]}}
            notify:
              - smtp: {{host: 127.0.0.1, port: {box.port}, sender: d@example.org, to: [a@example.org]}}
                on: [done, failed, stale]
            """
        with site(tmp_path / "root", config) as here:
            tree(tmp_path / "root" / "inbox" / ".given-up", {"half": "12345"})
            here.start()
            here.drop("good", {"a": "1"})
            here.drop("BAD", {"a": "1"})
            # A stop between the sending and its record would send it again, with the same id.
            here.until(lambda: len(here.events("notify.sent")) >= 3)
            here.stop()
            here.start()
            here.until(lambda: here.events("watch.stale_upload"))
        subjects = sorted(mail["Subject"] for mail in box.mails)
        assert subjects == ["Done: good", "Failed: BAD", "Stale upload: .given-up"]
        (failed,) = [mail for mail in box.mails if mail["Subject"] == "Failed: BAD"]
        assert f"mv {tmp_path}/root/failed/BAD {tmp_path}/root/inbox/" in failed.get_content()
        assert len({mail["X-Dittohead-Notice"] for mail in box.mails}) == 3


def test_without_room_work_waits_and_says_so(tmp_path: Path) -> None:
    """The folder stays in the inbox until there is room; then it goes on by itself."""
    config = """
        root: .
        watch: {{interval: 50ms}}
        space: {{floor: {floor}}}
        pipelines: {{all: {{match: ".*", space_factor: 2, steps: [{{command: {{argv: ["true"]}}}}]}}}}
        """
    with site(tmp_path / "root", config.format(floor="900TB")) as here:
        here.start()
        here.drop("x", {"a": "1"})
        held = here.until(lambda: here.json("status")["live"]["held"])
        assert "more free disk space" in held["x"]
        assert os.listdir(here.root / "inbox") == ["x"]
        import signal

        here.configure(config.format(floor=0))
        here.process.send_signal(signal.SIGHUP)
        here.until(lambda: (here.root / "done" / "x").exists())


def test_draining_finishes_what_runs(tmp_path: Path) -> None:
    """stop: {mode: drain}: a stop takes no more, and ends when the running job has ended."""
    config = f"""
        root: .
        space: {{floor: 0}}
        stop: {{mode: drain}}
        pipelines:
          all:
            match: ".*"
            steps:
              - command: {{argv: [sh, -c, 'touch "$0/there"; while ! test -e "$0/go"; do sleep 0.02; done', "{tmp_path}"]}}
        """
    with site(tmp_path / "root", config) as here:
        here.start()
        here.drop("x", {"a": "1"})
        here.until(lambda: (tmp_path / "there").exists())
        here.process.terminate()
        here.until(lambda: here.events("daemon.stopping"))
        here.drop("late", {"a": "1"})
        (tmp_path / "go").touch()
        assert here.process.wait(30) == 0
        assert os.listdir(here.root / "done") == ["x"]
        assert os.listdir(here.root / "inbox") == ["late"]


def test_drop_refuses_what_would_be_refused_and_takes_a_single_file(tmp_path: Path) -> None:
    """Before anything is copied; nothing half remains."""
    config = "root: .\npipelines: {a: {match: '[^!]*', steps: [{checksum: {}}]}}\n"
    with site(tmp_path / "root", config) as here:
        here.run("drop", "x", check=False)
        (here.root / "inbox").mkdir()
        tree(tmp_path / "bad", {"p": fifo()})
        said = here.run("drop", str(tmp_path / "bad"), check=False)
        assert "this is a FIFO" in said.stderr
        assert os.listdir(here.root / "inbox") == []
        (tmp_path / "one.txt").write_text("1")
        for more, why in (
            (("--name", "no!"), "no pipeline's match fits"),
            (("--for", "access"), "has nothing for"),
        ):
            said = here.run("drop", str(tmp_path / "one.txt"), *more, check=False)
            assert why in said.stderr
            assert os.listdir(here.root / "inbox") == []
        here.run("drop", str(tmp_path / "one.txt"), "--name", "single")
        assert read_tree(here.root / "inbox" / "single") == {b"one.txt": b"1"}
        tree(tmp_path / "up", {"a": {"b": "1"}, "e": {}})
        os.utime(tmp_path / "up/a/b", (1000, 1000))
        here.run("drop", str(tmp_path / "up"))
        assert (here.root / "inbox/up/a/b").stat().st_mtime == 1000
        assert (here.root / "inbox/up/e").is_dir()
        assert "is in the inbox already" in here.run("drop", str(tmp_path / "up"), check=False).stderr


def test_init_and_doctor_lead_a_newcomer(tmp_path: Path) -> None:
    """A configuration that is good at once, and a look at everything."""
    with site(tmp_path / "unused", "root: .\npipelines: {}\n") as here:
        here.config = tmp_path / "new" / "config.yaml"
        here.config.parent.mkdir()  # commands are typed there
        here.run("init", str(tmp_path / "new"))
        assert here.run("init", str(tmp_path / "new"), check=False).returncode == os.EX_DATAERR
        here.run("check")
        found = here.json("doctor")
        assert {f["about"] for f in found} >= {"stations", "inbox", "permissions", "images, step convert"}
        assert [f for f in found if f["level"] == "bad"] == []
        schema = here.run("schema").stdout
        assert '"pyramid-tiff"' in schema


def test_a_drop_waits_until_a_starting_daemon_has_made_its_store(tmp_path: Path) -> None:
    """Anyone who starts the one and drops into the other at once is not told that there is no store."""
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "config.yaml").write_text(
        'root: .\npipelines: {all: {match: ".*", steps: [{command: {argv: ["true"]}}]}}\n'
    )
    waiting = threading.Thread(target=follow._wait_for_store, args=(load(tmp_path / "config.yaml"),))
    with lock.held(state):  # it has begun to start
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive()
        (state / "live.json").write_text('{"pid": 1}')
        waiting.join(60)
        assert not waiting.is_alive()
