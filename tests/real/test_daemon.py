"""The real daemon, end to end: killed, stopped, reloaded, asked by the real command line."""

from __future__ import annotations

import hashlib
import os
import pty
import select
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Site, site
from tests.support.images import jpeg, tiff
from tests.support.sshd import sshd
from tests.support.trees import read_tree, tree
from tests.support.wheel import program

pytestmark = pytest.mark.service

#: Each step notes that it ran, and the second waits for a file, so that a test can stop it there.
STEPS = """
root: .
limits: {{jobs: 4, command: 4}}
retry: {{first: 10ms, most: 20ms}}
space: {{floor: 0}}
pipelines:
  all:
    match: ".*"
    steps:
      - command: {{name: one, argv: [sh, -c, 'echo one >> "$0"', "{tmp}/ran"]}}
      - command: {{name: two, argv: [sh, -c, 'echo two >> "$0/ran"; while ! test -e "$0/go"; do sleep 0.02; done', "{tmp}"]}}
      - command: {{name: three, argv: [sh, -c, 'echo three >> "$0"', "{tmp}/ran"]}}
"""


def ran(tmp_path: Path) -> list[str]:
    path = tmp_path / "ran"
    return path.read_text().split() if path.exists() else []


@pytest.fixture
def steps(tmp_path: Path) -> Any:
    with site(tmp_path / "root", STEPS.format(tmp=tmp_path)) as made:
        yield made


def test_the_whole_job_on_real_images_over_ssh(tmp_path: Path) -> None:
    """Dropped, claimed, converted, delivered over a real sshd, done; verify agrees, then finds damage."""
    with sshd(tmp_path / "ssh") as server, site(tmp_path / "root", "") as here:
        ssh = ", ".join(f"{key}: {value}" for key, value in server.options.items())
        here.config.write_text(
            f"""
root: .
pipelines:
  scans:
    match: "(?P<study>[a-z0-9]+)-.*"
    steps:
      - convert: {{quality: 80}}
      - checksum: {{}}
      - rsync: {{name: raw, to: "{server.host}:{tmp_path}/study/{{study}}/{{name}}/", mkpath: true, ssh: {{{ssh}}}}}
      - rsync: {{name: pyramids, from: convert, to: "{tmp_path}/iiif/{{study}}/{{name}}", mkpath: true}}
"""
        )
        here.start()
        tree(
            tmp_path / "up" / "lab1-x",
            {"a.tif": tiff(900, 700), "sub": {"b.jpg": jpeg(500, 400)}, "n.txt": "hi"},
        )
        said = here.run("drop", "--follow", str(tmp_path / "up" / "lab1-x"))
        assert "done: " in said.stdout
        assert read_tree(tmp_path / "study/lab1/lab1-x") == read_tree(tmp_path / "up/lab1-x")
        assert sorted(read_tree(tmp_path / "iiif/lab1/lab1-x")) == [b"a.tif", b"sub/b.tif"]
        (receipt,) = here.receipts()
        assert Counter(place["step"] for place in receipt["locations"]) == {"raw": 3, "pyramids": 2}
        assert {place["verified_by"] for place in receipt["locations"]} == {
            "rsync --checksum",
            "sha256 read-back",
        }
        assert here.run("verify", "lab1-x").returncode == 0
        (tmp_path / "iiif/lab1/lab1-x/a.tif").write_bytes(b"rotten")
        (tmp_path / "study/lab1/lab1-x/n.txt").write_bytes(b"ho")
        found = here.json_failing("verify", "lab1-x")
        assert len(found["problems"]) == 2
        assert here.stop() == 0


def test_kill_9_resumes_at_the_step_in_flight(steps: Site, tmp_path: Path) -> None:
    """The daemon dies in step two: step one is not run again, and the orphan of step two is ended."""
    steps.start()
    steps.drop("x", {"a": "1"})
    steps.until(lambda: "two" in ran(tmp_path))
    steps.kill()
    assert os.listdir(steps.root / "processing") == ["x"]
    steps.start()
    assert steps.events("daemon.swept")
    (tmp_path / "go").touch()
    steps.until(lambda: (steps.root / "done" / "x").exists())
    assert ran(tmp_path) == ["one", "two", "two", "three"]
    assert read_tree(steps.root / "done" / "x") == {b"a": b"1"}
    assert len(steps.receipts()) == 1


def test_kill_9_at_many_moments_loses_and_repeats_nothing(steps: Site, tmp_path: Path) -> None:
    """Killed again and again while twelve folders pass: each is in one station, whole, with one receipt."""
    (tmp_path / "go").touch()
    steps.start()
    names = [f"f{i:02}" for i in range(12)]
    for i, name in enumerate(names):
        steps.drop(name, {"a.txt": name, "sub": {"b.bin": bytes([i]) * 5000}})
    for target in range(1, 12, 2):
        steps.until(lambda target=target: len(ran(tmp_path)) >= target * 3 or len(steps.receipts()) == 12)
        steps.kill()
        stations = Counter(
            name
            for s in ("inbox", "processing", "done", "failed")
            for name in os.listdir(steps.root / s)
            if name[0] != "."
        )
        assert stations == Counter(names)
        steps.start()
    steps.until(lambda: len(os.listdir(steps.root / "done")) == 12)
    for i, name in enumerate(names):
        assert read_tree(steps.root / "done" / name) == {
            b"a.txt": name.encode(),
            b"sub/b.bin": bytes([i]) * 5000,
        }
    steps.until(lambda: len(steps.receipts()) == 12)
    jobs = steps.json("list")
    assert Counter(job["name"] for job in jobs) == Counter(names)
    # A step in flight at a kill is repeated; a finished one never.
    assert len(ran(tmp_path)) <= 36 + 6 * 4


def test_a_claim_without_a_row_is_adopted(steps: Site, tmp_path: Path) -> None:
    """Killed between the rename and the commit."""
    (tmp_path / "go").touch()
    tree(steps.root / "processing" / "x", {"a": "1"})
    steps.start()
    steps.until(lambda: (steps.root / "done" / "x").exists())


def test_a_folder_moved_out_of_processing_cancels_its_job(steps: Site) -> None:
    """An admin's mv is understood at the next start."""
    steps.start()
    steps.drop("x", {"a": "1"})
    steps.until(lambda: (steps.root / "processing" / "x").exists() and steps.json("list"))
    steps.stop()
    (steps.root / "processing" / "x").rename(steps.root / "elsewhere")
    steps.start()
    (job,) = steps.json("list")
    assert job["state"] == "failed"
    assert "moved out of processing/ by hand" in job["reason"]


def test_sigterm_interrupts_and_the_next_start_goes_on(steps: Site, tmp_path: Path) -> None:
    """`systemctl stop`: quick, no child left, nothing counted as a crash."""
    steps.start()
    steps.drop("x", {"a": "1"})
    steps.until(lambda: "two" in ran(tmp_path))
    assert steps.stop() == 0
    assert subprocess.run(["pgrep", "-f", f"{tmp_path}/go"], check=False).returncode == 1
    (tmp_path / "go").touch()
    steps.start()
    steps.until(lambda: (steps.root / "done" / "x").exists())


def test_a_second_sigterm_turns_a_drain_into_an_interrupt(steps: Site, tmp_path: Path) -> None:
    """Anyone who cannot wait says so again; the job goes on at the next start, from the step in flight."""
    steps.config.write_text(steps.config.read_text() + "stop: {mode: drain}\n")
    steps.start()
    steps.drop("x", {"a": "1"})
    steps.until(lambda: "two" in ran(tmp_path))
    assert steps.process is not None
    steps.process.send_signal(signal.SIGTERM)
    steps.until(lambda: steps.events("daemon.stopping"))
    assert steps.process.poll() is None
    assert steps.stop() == 0
    assert os.listdir(steps.root / "processing") == ["x"]
    (tmp_path / "go").touch()
    steps.start()
    steps.until(lambda: (steps.root / "done" / "x").exists())
    assert ran(tmp_path) == ["one", "two", "two", "three"]


def test_a_second_daemon_is_kept_out(steps: Site) -> None:
    """By the root's lock, with the other's process id."""
    steps.start()
    said = steps.run("run", check=False)
    assert said.returncode == os.EX_TEMPFAIL
    assert f"another dittohead works on this root (process {steps.process.pid})" in said.stderr


def test_a_reload_changes_what_comes_and_not_what_runs(steps: Site, tmp_path: Path) -> None:
    """The job in flight keeps its three steps; a bad configuration is refused, with why, and the old stays.

    By SIGHUP, which tells nobody, or by the command, which waits for the answer.
    """
    steps.start()
    steps.drop("old", {"a": "1"})
    steps.until(lambda: "two" in ran(tmp_path))
    good = steps.config.read_text()
    steps.config.write_text("root: .\npipelines: {}\n")
    steps.process.send_signal(signal.SIGHUP)
    steps.until(lambda: steps.events("config.refused"))
    for wrong, said in (
        (good.replace("pipelines:", "pipelined:", 1), 'unknown key "pipelined"'),
        (
            good.replace("root: .", "root: .\nstore: postgresql://a@h/b"),
            '"store" cannot change while the daemon runs',
        ),
        (good + "\n  - [", "this is not valid YAML"),
    ):
        steps.config.write_text(wrong)
        refused = steps.run("reload", check=False)
        assert (refused.returncode, refused.stdout) == (os.EX_CONFIG, "")
        assert "refused: the daemon goes on with" in refused.stderr
        assert said in refused.stderr
    only = [line for line in good.splitlines() if "name: two" not in line and "name: three" not in line]
    steps.config.write_text("\n".join(only))
    assert steps.run("reload").stdout == f"the daemon uses {steps.config} as it is now\n"
    assert len(steps.events("config.loaded")) == 1
    steps.drop("new", {"a": "1"})
    steps.until(lambda: (steps.root / "done" / "new").exists())
    (tmp_path / "go").touch()
    steps.until(lambda: (steps.root / "done" / "old").exists())
    assert Counter(ran(tmp_path)) == {"one": 2, "two": 1, "three": 1}
    assert steps.stop() == 0
    alone = steps.run("reload", check=False)
    assert alone.returncode == os.EX_UNAVAILABLE
    start = f"dittohead --config {steps.config} run"
    assert f"the daemon is not running (or does not answer). Start it: {start}\n" in alone.stderr


def test_every_command_on_a_job(steps: Site, tmp_path: Path) -> None:
    """freeze, thaw, cancel, retry, rerun, show, status through the real command line."""
    steps.start()
    steps.drop("x", {"a": "1"})
    steps.until(lambda: "two" in ran(tmp_path))
    assert "frozen" in steps.run("freeze", "x", "--reason", "rights unclear").stdout
    assert steps.json("show", "x")["reason"].endswith("rights unclear")
    attention = steps.run("status").stdout.partition("Needs attention\n")[2]
    assert attention.startswith("  ")
    assert "rights unclear" in attention.splitlines()[0]
    assert "dittohead show x" in attention
    assert "thawed" in steps.run("thaw", "x").stdout
    steps.until(lambda: ran(tmp_path).count("two") == 2)
    assert "cancelled" in steps.run("cancel", "x").stdout
    digest = hashlib.sha256(b"1").hexdigest()
    assert steps.run("show", "x", "--files").stdout.split() == [digest, "1", "a"]
    refused = steps.run("rename", "x", "a/b", check=False)
    assert (refused.returncode, "holds a slash" in refused.stderr) == (os.EX_UNAVAILABLE, True)
    assert (steps.root / "failed" / "x.reason.txt").exists()
    (tmp_path / "go").touch()
    assert "tried again from step two" in steps.run("retry", "x").stdout
    steps.until(lambda: (steps.root / "done" / "x").exists())
    assert not (steps.root / "failed" / "x.reason.txt").exists()
    assert "run again from step three" in steps.run("rerun", "x", "--from", "three").stdout
    steps.until(lambda: ran(tmp_path).count("three") == 2)
    steps.until(lambda: (steps.root / "done" / "x").exists())
    assert "a new job begins" in steps.run("rerun", "x").stdout
    steps.until(lambda: len(steps.json("list", "--state", "done")) == 2)
    status = steps.json("status")
    assert status["running_daemon"] is True
    assert status["live"]["watcher"]["mode"] == "inotify"
    assert steps.run("show", "nobody", check=False).returncode == os.EX_NOINPUT
    assert steps.run("retry", "x", check=False).returncode == os.EX_UNAVAILABLE
    assert steps.run("frobnicate", check=False).returncode == os.EX_USAGE


def test_a_command_without_a_daemon_is_carried_out_all_the_same(steps: Site, tmp_path: Path) -> None:
    """A job can be frozen while the daemon is down; the next start leaves it alone."""
    steps.start()
    steps.drop("x", {"a": "1"})
    steps.until(lambda: "two" in ran(tmp_path))
    steps.stop()
    assert "frozen" in steps.run("freeze", "x", "--reason", "later").stdout
    assert [file["path"] for file in steps.json("show", "x", "--files")] == ["a"]
    steps.start()
    steps.drop("y", {"a": "1"})
    steps.until(lambda: ran(tmp_path).count("one") == 2)
    assert {job["name"]: job["state"] for job in steps.json("list")}["x"] == "frozen"


def test_config_may_stand_before_or_after_the_command(steps: Site) -> None:
    """As people type it."""
    before = subprocess.run(
        [*program(), "--config", steps.config, "check"], capture_output=True, text=True, check=True
    )
    after = subprocess.run(
        [*program(), "check", "--config", steps.config], capture_output=True, text=True, check=True
    )
    assert before.stdout == after.stdout


def test_a_bad_configuration_ends_with_78_and_every_line(tmp_path: Path) -> None:
    """So that systemd does not start it again and again."""
    with site(
        tmp_path, "root: .\npipelines:\n  a:\n    match: x\n    steps:\n      - convrt: {}\nfoo: 1\n"
    ) as here:
        said = here.run("run", check=False)
    assert said.returncode == os.EX_CONFIG
    assert f'{here.config}:7:1: unknown key "foo"' in said.stderr


def test_the_terminal_shows_a_bar_and_the_steps(steps: Site, tmp_path: Path) -> None:
    """The real command line in a pseudo-terminal, as a person sees it."""
    steps.start()
    (tmp_path / "go").touch()
    tree(tmp_path / "up" / "x", {"a.bin": os.urandom(2_000_000)})
    shown = _in_terminal(
        [*program(), "--config", str(steps.config), "drop", "-f", str(tmp_path / "up" / "x")]
    )
    assert "handed over" in shown
    for step in ("one", "two", "three"):
        assert f"done\x1b[0m {step}" in shown
    assert "receipt: " in shown


def _in_terminal(argv: list[str]) -> str:
    pid, fd = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm", "COLUMNS": "120"}
        os.execvp(argv[0], argv)
    shown = b""
    while select.select([fd], [], [], 60)[0]:
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
    _, status = os.waitpid(pid, 0)
    os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 0, shown
    return shown.decode()
