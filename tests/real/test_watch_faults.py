"""The inbox taken away, mounted over or overflowed; no inotify left; the clock set: nothing is missed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Site, site
from tests.support.length import budget
from tests.support.strace import failing
from tests.support.trees import tree

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

CONFIG = """
root: .
space: {{floor: 0}}
watch: {{interval: 2s}}
pipelines:
  asks:
    match: "ask-.*"
    steps: [{{command: {{argv: [sh, -c, 'test -e "$0/go" || exit 75', "{tmp}"], poll: 5s}}}}]
  all:
    match: ".*"
    steps: [{{checksum: {{}}}}]
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path / "root", CONFIG.format(tmp=tmp_path)) as made:
        yield made


def done(here: Site, *names: str) -> bool:
    return set(names) <= set(os.listdir(here.root / "done"))


def watching(here: Site) -> str:
    mode: str = here.json("status")["live"].get("watcher", {}).get("mode", "")
    return mode


def test_an_inbox_that_was_moved_away_is_watched_again_when_it_is_back(here: Site) -> None:
    """Removed, made again, renamed: said in the status, and never a reason to end."""
    here.start()
    inbox = here.root / "inbox"
    for round_ in ("removed", "renamed"):
        if round_ == "removed":
            inbox.rmdir()
        else:
            inbox.rename(here.root / "elsewhere")
        here.until(lambda: watching(here) == "missing")
        if round_ == "removed":
            inbox.mkdir()
        else:
            tree(here.root / "elsewhere" / "while-away", {"a": "1"})
            (here.root / "elsewhere").rename(inbox)
        here.drop(f"after-{round_}", {"a": "1"})
        here.until(lambda round_=round_: done(here, f"after-{round_}"))
        here.until(lambda: watching(here) == "inotify")
    here.until(lambda: done(here, "while-away"))
    assert here.stop() == 0


def test_a_disk_mounted_over_the_inbox_takes_nothing_along(here: Site) -> None:
    """A folder that would have to be copied is left where it is, with the reason; unmounted, work goes on."""
    if os.geteuid() != 0:
        pytest.skip("NEEDS ROOT to mount something over the inbox: left out")
    here.start()
    inbox = here.root / "inbox"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", inbox], check=True)
    try:
        here.drop("on-the-other", {"a": "1"})
        here.until(lambda: here.events("claim.held"))
        assert "cross-device" in here.events("claim.held")[0]["reason"]
        assert "cross-device" in str(here.json("status")["live"]["held"])
        assert os.listdir(inbox / "on-the-other") == ["a"]
        shutil.copytree(inbox / "on-the-other", here.root / "kept")
    finally:
        subprocess.run(["umount", "-l", inbox], check=True)
    here.drop("on-the-first", {"a": "1"})
    here.until(lambda: done(here, "on-the-first"))
    assert here.stop() == 0


def test_without_inotify_the_inbox_is_polled(here: Site, tmp_path: Path) -> None:
    """The system's limit is used up by others: said in the status, and folders are found all the same."""
    limited = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"'
    probe = subprocess.run(["unshare", "-Ur", "sh", "-c", limited, "sh", "true"], check=False)
    if probe.returncode != 0:
        pytest.skip("NO USER NAMESPACES HERE: inotify's limit is left out")
    here.program = ["unshare", "-Ur", "sh", "-c", limited, "sh", *here.program]
    here.start(wait=False)
    here.until(lambda: (here.root / "done").is_dir())
    here.drop("x", {"a": "1"})
    here.until(lambda: done(here, "x"))
    assert here.until(lambda: watching(here)) == "polling"
    assert here.stop() == 0


def test_more_events_than_the_kernel_keeps_hide_nothing(here: Site) -> None:
    """A hundred thousand renames while the daemon is stopped, and real folders among them."""
    here.start()
    assert here.process is not None
    here.process.send_signal(signal.SIGSTOP)
    inbox = os.fsencode(here.root / "inbox")
    os.mkdir(inbox + b"/.noise")
    for number in range(50_000):
        os.rename(inbox + b"/.noise", inbox + b"/.noise2")
        os.rename(inbox + b"/.noise2", inbox + b"/.noise")
        if number % 10_000 == 5_000:
            here.drop(f"real-{number}", {"a": "1"})
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    assert limit < 100_000, "the kernel keeps more events than this test makes"
    here.process.send_signal(signal.SIGCONT)
    here.until(lambda: done(here, *(f"real-{n}" for n in range(5_000, 50_000, 10_000))))
    here.drop("after", {"a": "1"})
    here.until(lambda: done(here, "after"))
    assert here.stop() == 0


def test_reads_of_the_inbox_that_fail_are_no_reason_to_forget_it(here: Site, tmp_path: Path) -> None:
    """As on a disk with errors: each scan is tried again."""
    here.start()
    assert here.process is not None
    with failing(here.process.pid, tmp_path / "calls", "getdents64:error=EIO:when=1..6") as injected:
        here.drop("x", {"a": "1"})
        here.until(lambda: injected.count() >= 4)
    here.until(lambda: done(here, "x"))
    assert here.stop() == 0


def set_by(here: Site, clock: Path) -> Path:
    """Let a file say by how much the daemon's clock is wrong."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("FAKETIME IS NOT INSTALLED: clocks that are set are left out")
    clock.write_text("+0")
    here.env |= {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    return clock


@pytest.mark.rest
@pytest.mark.parametrize("step", budget(["-1d", "+1d"], "-1d"))
def test_a_clock_that_is_set_puts_nothing_off(here: Site, tmp_path: Path, step: str) -> None:
    """A day back or forth: what waits for a few seconds waits for a few seconds."""
    clock = set_by(here, tmp_path / "clock")
    here.start()
    here.drop("ask-x", {"a": "1"})
    here.until(lambda: here.events("step.waiting"))
    clock.write_text(step)
    here.drop("y", {"a": "1"})
    here.until(lambda: done(here, "y"))
    if step[0] == "-":
        (line,) = here.until(lambda: here.events("clock.set_back"))
        assert abs(line["seconds"] - 86400) < 60
    asked = len(here.events("step.waiting"))
    here.until(lambda: len(here.events("step.waiting")) > asked)  # asked again, not in a day
    (tmp_path / "go").touch()
    here.until(lambda: done(here, "ask-x"))
    assert here.stop() == 0


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_clock_that_is_set_back_while_no_daemon_runs_puts_nothing_off(
    here: Site, tmp_path: Path, end: str
) -> None:
    """As where a machine had started with a wrong clock: what was due in seconds is not due in a day.

    Here it is what the daemon has written whose times are of the future.
    """
    here.start()
    here.drop("ask-x", {"a": "1"})
    here.until(lambda: here.events("step.waiting"))
    _ = here.stop() if end == "stopped" else here.kill()
    state, day = here.root / "state", 86400.0
    for path in (*state.iterdir(), state):
        os.utime(path, (time.time() + day, time.time() + day))
    with contextlib.closing(sqlite3.connect(state / "dittohead.sqlite3")) as store, store:
        for table in ("jobs", "steps"):
            store.execute(f"UPDATE {table} SET wake_at = wake_at + {day} WHERE wake_at IS NOT NULL")
    (tmp_path / "go").touch()
    here.start()
    (line,) = here.events("clock.set_back")
    assert abs(line["seconds"] - day) < 60
    here.until(lambda: done(here, "ask-x"))
    assert here.stop() == 0
    here.start()  # that is told once
    assert len(here.events("clock.set_back")) == 1
