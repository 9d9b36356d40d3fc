"""A real store that is away for some seconds while jobs run: all go on by themselves, nobody asks for it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from dittohead.store import Store, sqlite_url
from tests.real.test_disk_faults import fill, tmpfs
from tests.support.daemon import Site, site
from tests.support.postgres import postgres_server

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]

CONFIG = """
root: .
{store}
limits: {{jobs: 3, command: 3}}
space: {{floor: 0}}
watch: {{settle: 0s, interval: 1s}}
pipelines:
  all:
    match: ".*"
    steps:
      - command: {{name: one, argv: [sh, -c, 'echo "$DITTOHEAD_JOB one" >> {base}/ledger; while test ! -e {base}/go; do sleep 0.05; done']}}
      - command: {{name: two, argv: [sh, -c, 'echo "$DITTOHEAD_JOB two" >> {base}/ledger']}}
"""

NAMES = ["a", "b", "c"]


def begin(here: Site, base: Path) -> None:
    """Have three jobs in their first step."""
    here.log = base / "daemon.log"
    here.start()
    for name in NAMES:
        here.drop(name, {"a.txt": name})
    here.until(lambda: len(ledger(base)) == 3)


def ledger(base: Path) -> Counter[str]:
    path = base / "ledger"
    return Counter(path.read_text().splitlines() if path.exists() else [])


def end(here: Site, base: Path) -> None:
    """See that all of it ends, in its time, and each step that was recorded ran once."""
    here.until(lambda: sorted(os.listdir(here.root / "done")) == NAMES, 90)
    assert here.process is not None
    assert here.process.poll() is None
    assert os.listdir(here.root / "failed") == []
    assert {count for line, count in ledger(base).items() if line.endswith("two")} == {1}
    assert here.events("job.overlooked") == []
    assert len(here.receipts()) == 3


def met(url: sa.URL) -> set[tuple[str, int]]:
    """Return the states of all steps, with the deaths of the daemon that they are charged with."""
    store = Store(url)
    rows = store.run(lambda connection: connection.exec_driver_sql("SELECT state, crashes FROM steps").all())
    store.close()
    return {(state, crashes) for state, crashes in rows}


def test_a_postgresql_that_is_stopped_at_once_for_seconds(tmp_path: Path) -> None:
    """Two of three jobs stayed "running" until somebody typed `poke`."""
    with postgres_server() as server:
        store = f"store: postgresql://dh@/postgres?host={server.url.query['host']}"
        text = CONFIG.format(store=store, base=tmp_path)
        with site(tmp_path / "root", text) as here:
            begin(here, tmp_path)
            server.stop()
            (tmp_path / "go").touch()
            here.until(lambda: len(here.events("job.crashed")) >= 3)
            server.start()
            end(here, tmp_path)
            assert met(server.url) == {("done", 0)}


def test_a_disk_that_is_full_for_seconds(tmp_path: Path) -> None:
    """Nothing can be recorded; the steps that have run meanwhile run again, as after a crash."""
    with (
        tmpfs(tmp_path / "disk", "24m"),
        site(tmp_path / "disk/root", CONFIG.format(store="", base=tmp_path)) as here,
    ):
        begin(here, tmp_path)
        stuffing = fill(tmp_path / "disk")
        (tmp_path / "go").touch()
        here.until(lambda: len(here.events("job.crashed")) + len(here.events("target.paused")) >= 1)
        stuffing.unlink()
        end(here, tmp_path)
        assert met(sqlite_url(here.root / "state")) == {("done", 0)}
