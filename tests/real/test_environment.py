"""What the programs that a real daemon runs are given of its environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.daemon import Site, site
from tests.support.images import tiff
from tests.support.sshd import sshd

pytestmark = pytest.mark.service

KEYS = ("AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "MY_TOKEN", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET")


def environments(here: Site) -> dict[str, dict[str, str]]:
    """Return the environments of the daemon's children that run now, by what they are, from /proc."""
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            # Of any process of the machine: its names need not be UTF-8.
            argv = os.fsdecode(Path(f"/proc/{entry}/cmdline").read_bytes()).split("\0")
            lines = os.fsdecode(Path(f"/proc/{entry}/environ").read_bytes()).split("\0")
        except OSError:
            continue
        env = dict(line.split("=", 1) for line in lines if "=" in line)
        if env.get("DITTOHEAD_ROOT") == str(here.root):
            found["images" if "dittohead.toolkit.images" in argv else os.path.basename(argv[0])] = env
    return found


def test_no_program_is_given_the_daemons_keys(tmp_path: Path) -> None:
    """The images' child, rsync, ssh and a command: each gets what it needs, and none a key."""
    kept: dict[str, dict[str, str]] = {}
    with sshd(tmp_path / "ssh") as server, site(tmp_path / "root", "") as here:
        ssh = ", ".join(f"{key}: {value}" for key, value in server.options.items())
        to = f'"{server.host}:{tmp_path}/there/", bwlimit: 8MiB, ssh: {{{ssh}}}'
        here.config.write_text(
            f"""
root: .
space: {{floor: 0}}
pipelines:
  all:
    match: ".*"
    steps:
      - convert: {{}}
      - rsync: {{to: {to}}}
      - command: {{argv: [sleep, "1000"], inherit: [WANTED]}}
"""
        )
        (tmp_path / "there").mkdir()
        here.env |= {key: f"value of {key}" for key in (*KEYS, "WANTED", "SSH_AUTH_SOCK")}
        here.start()
        # Enough for each child to live for a while.
        here.drop("x", {f"{n}.tif": tiff(1500, 1000) for n in range(4)})
        wanted = {"images", "rsync", "ssh", "sleep"}
        here.until(lambda: kept.update(environments(here)) or wanted <= kept.keys())
    for name in wanted:
        assert not kept[name].keys() & set(KEYS), name
        assert kept[name]["PATH"] == os.environ["PATH"]
        assert ("WANTED" in kept[name]) == (name == "sleep")
        assert ("SSH_AUTH_SOCK" in kept[name]) == (name in ("rsync", "ssh"))
