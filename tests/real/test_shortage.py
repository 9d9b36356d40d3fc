"""A machine with too few processes: folders wait, and are done as soon as there are enough."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import site

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]

#: The kernel bounds no process of root: a user of our own, who may read what root's Python lies in.
_UID = "20177"
_CAPS = "+dac_override,+dac_read_search"

#: The daemon and what it starts take fewer.
_MOST = 100

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
      - command: {{argv: [sh, -c, 'sleep 2; echo made > x']}}
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
        other = ["setpriv", f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups"]
        caps = [f"--inh-caps={_CAPS}", f"--ambient-caps={_CAPS}"]
        here.program = [*other, *caps, "prlimit", f"--nproc={_MOST}", *here.program]
        here.start()
        assert here.process is not None
        names = [f"f{number}" for number in range(6)]
        for name in names:
            here.drop(name, {"a.txt": name})
        here.until(lambda: sum(line["step"] == "command" for line in here.events("step.started")) == 6)
        with hoard(other):
            here.drop("later", {"a.txt": "later"})
            here.until(lambda: sum("name" in line for line in here.events("machine.short")) >= 3)
        names.append("later")
        here.until(lambda: sorted(os.listdir(here.root / "done")) == names, 200)
        assert os.listdir(here.root / "failed") == []
        assert here.process.poll() is None
        assert here.stop() == 0


@contextlib.contextmanager
def hoard(other: list[str]) -> Iterator[None]:
    """Have the same user run as many processes as the daemon may, until the block ends."""
    script = f"for i in $(seq {_MOST}); do sleep 1000 & done; echo all; wait"
    with subprocess.Popen(
        [*other, "sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"all\n"
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
