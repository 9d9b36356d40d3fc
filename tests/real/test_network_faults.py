"""rsync over a real sshd that refuses, breaks off, stalls, is away, or is somebody else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.daemon import Site, site
from tests.support.proxy import Proxy, proxy
from tests.support.sshd import Sshd, sshd
from tests.support.trees import read_tree

pytestmark = pytest.mark.service

CONFIG = """
root: .
space: {{floor: 0}}
retry: {{first: 20ms, most: 100ms, attempts: 40}}
pipelines:
  far:
    match: ".*"
    steps:
      - rsync: {{to: "{host}:{base}/far/{{name}}", mkpath: true, timeout: 2s, ssh: {{{ssh}}}}}
"""


@dataclass
class Far:
    """A site that delivers through a proxy to a host."""

    here: Site
    server: Sshd
    proxy: Proxy
    base: Path

    def delivered(self) -> dict[bytes, bytes]:
        return read_tree(self.base / "far")

    def heal(self, name: str) -> None:
        """The fault has ended: look now, and see it done."""
        self.here.run("poke", name, check=False)
        self.here.until(lambda: (self.here.root / "done" / name).exists())


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    with sshd(tmp_path / "ssh") as server, proxy(server.port) as between:
        known = (server.base / "known_hosts").read_text()
        options = {**server.options, "port": between.port, "connect_timeout": 3}
        known_here = tmp_path / "known_hosts"
        known_here.write_text(known.replace(f":{server.port} ", f":{between.port} "))
        options["known_hosts"] = str(known_here)
        ssh = ", ".join(f"{key}: {value}" for key, value in options.items())
        config = CONFIG.format(host=server.host, base=tmp_path, ssh=ssh)
        with site(tmp_path / "root", config) as here:
            here.start()
            yield Far(here, server, between, tmp_path)
            assert here.stop() == 0


DATA = os.urandom(300_000)


def test_a_host_that_refuses_is_paused_and_resumed(far: Far) -> None:
    """Connections are closed at once, as by a firewall or a server that is full."""
    far.proxy.refusing = True
    far.here.drop("x", {"a": DATA})
    far.here.until(lambda: far.here.events("target.paused"))
    assert far.here.json("list")[0]["state"] == "paused"
    far.proxy.refusing = False
    far.heal("x")
    assert far.delivered() == {b"x/a": DATA}


@pytest.mark.rest
@pytest.mark.parametrize("after", [10, 2500, 60_000, 290_000])
def test_a_connection_that_breaks_off_is_taken_up_again(far: Far, after: int) -> None:
    """At the greeting, in the handshake, in the middle of a file, near its end; nothing half stays."""
    far.proxy.cut_after = after
    far.here.drop("x", {"a": DATA, "b": b"small"})
    far.here.until(lambda: far.here.events("step.retried") or far.here.events("target.paused"))
    far.proxy.cut_after = None
    far.heal("x")
    assert far.delivered() == {b"x/a": DATA, b"x/b": b"small"}


def test_a_connection_that_stalls_is_given_up_and_tried_again(far: Far) -> None:
    """Nothing comes through for the step's timeout: it does not wait forever."""
    far.proxy.stalled.set()
    far.here.drop("x", {"a": DATA})
    far.here.until(lambda: far.here.events("step.retried") or far.here.events("target.paused"))
    far.proxy.stalled.clear()
    far.heal("x")
    assert far.delivered() == {b"x/a": DATA}


def test_a_stop_does_not_wait_for_a_stalled_host(far: Far) -> None:
    """The step is interrupted, its programs end, and the next start finishes it."""
    far.here.drop("x", {"a": DATA})
    far.proxy.stalled.set()
    far.here.until(lambda: far.proxy.seen)
    assert far.here.stop(10) == 0
    assert subprocess.run(["pgrep", "-f", f"{far.base}/far"], check=False).returncode == 1
    far.proxy.stalled.clear()
    far.here.start()
    far.heal("x")
    assert far.delivered() == {b"x/a": DATA}


def test_a_host_with_another_key_gets_nothing(far: Far) -> None:
    """Somebody else may be answering: paused, in words; a person corrects known_hosts."""
    known = far.base / "known_hosts"
    good = known.read_text()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", far.base / "other"], check=True)
    other = (far.base / "other.pub").read_text().split()
    known.write_text(good.split(" ")[0] + f" {other[0]} {other[1]}\n")
    far.here.drop("x", {"a": DATA})
    far.here.until(lambda: far.here.events("target.paused"))
    assert "key" in far.here.events("target.paused")[0]["reason"]
    assert not (far.base / "far").exists()
    known.write_text(good)
    far.heal("x")
    assert far.delivered() == {b"x/a": DATA}


@pytest.mark.rest
def test_a_host_that_was_away_gets_everything(far: Far) -> None:
    """Its sshd is stopped and started again; jobs of other days wait meanwhile, and are told of once."""
    far.server.stop()
    for name in ("x", "y", "z"):
        far.here.drop(name, {"a": name})
    far.here.until(lambda: far.here.events("target.paused"))
    restarted = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-f", far.server.base / "sshd_config"], stderr=subprocess.DEVNULL
    )
    try:
        for name in ("x", "y", "z"):
            far.heal(name)
    finally:
        restarted.terminate()
        restarted.wait()
    assert far.delivered() == {b"x/a": b"x", b"y/a": b"y", b"z/a": b"z"}
    assert len(far.here.events("target.paused")) == 1
