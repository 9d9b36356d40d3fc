"""A machine with too few processes: folders wait, and are done as soon as there are enough."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import site

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]

#: The kernel bounds no process of root: a user of our own, who may read what root's Python lies in.
_UID = "20177"
_CAPS = "+dac_override,+dac_read_search"

CONFIG = """
root: .
limits: {{jobs: 6}}
space: {{floor: 0}}
watch: {{settle: 0s}}
pipelines:
  all:
    match: ".*"
    steps:
      - checksum: {{}}
      - command: {{argv: [sh, -c, 'sleep 0.1; echo made > x']}}
      - rsync: {{to: "{target}/{{name}}", mkpath: true}}
"""


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that others get at, too."""
    with tempfile.TemporaryDirectory(prefix="shortage-", dir="/var/tmp") as made:
        os.chmod(made, 0o777)
        yield Path(made)


def test_where_no_process_can_be_started_folders_wait_and_none_fails(open_path: Path) -> None:
    """They failed "in an unforeseen way", or with the words of a shell that cannot fork."""
    if os.geteuid() != 0:
        pytest.skip("NEEDS ROOT to be somebody whose processes are bounded: left out")
    with site(open_path / "root", CONFIG.format(target=open_path / "target")) as here:
        here.log = open_path / "daemon.log"
        os.chown(here.root, int(_UID), int(_UID))
        here.program = [
            "setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups",
            f"--inh-caps={_CAPS}", f"--ambient-caps={_CAPS}", *here.program,
        ]  # fmt: skip
        here.start()
        assert here.process is not None
        pid = here.process.pid
        hard = resource.prlimit(pid, resource.RLIMIT_NPROC)[1]
        resource.prlimit(pid, resource.RLIMIT_NPROC, (1, hard))
        names = [f"f{number}" for number in range(6)]
        for name in names:
            here.drop(name, {"a.txt": name})
        here.until(lambda: len({line.get("name") for line in here.events("machine.short")}) >= len(names))
        assert os.listdir(here.root / "failed") == []
        assert here.process.poll() is None
        resource.prlimit(pid, resource.RLIMIT_NPROC, (hard, hard))
        here.until(lambda: sorted(os.listdir(here.root / "done")) == names, 200)
        assert os.listdir(here.root / "failed") == []
        here.process.send_signal(signal.SIGTERM)
        assert here.process.wait(20) == 0
