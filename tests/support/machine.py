"""A machine with a real systemd: this one's files under an overlay, booted by systemd-nspawn.

It lives in namespaces and a control group of its own, and dies with the process that booted it: nothing
of it is seen from outside, and no mount of it can be left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: Control group hierarchies; which there are depends on the host (one, or systemd's two).
_CGROUPS = [Path("/sys/fs/cgroup", tree) for tree in ("", "systemd", "unified")]

#: Units that the host enables, its disks and what it has of dittohead have no business in there.
_BOOT = """
set -e
name=$1
for tree in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
    if [ -e $tree/cgroup.procs ]; then mkdir $tree/$name; fi
done
mount -t tmpfs -o size=6g,mode=755 tmpfs .
cd "$PWD"
mkdir up work root
mount -t overlay overlay -o lowerdir=/,upperdir=up,workdir=work root
(cd root && rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires etc/rc?.d etc/fstab \
    etc/crypttab var/log/journal opt/dittohead etc/dittohead srv/dittohead \
    etc/systemd/system/dittohead.service* etc/tmpfiles.d/dittohead.conf usr/local/bin/dittohead)
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
boot() (
    for group in /sys/fs/cgroup/$name /sys/fs/cgroup/*/$name; do
        if [ -e $group ]; then echo 0 >$group/cgroup.procs; fi
    done
    exec systemd-nspawn -D root --machine=$name --register=no --keep-unit --boot --link-journal=no \
        --console=read-only
)
set +e
while boot; [ $? = 133 ]; do :; done  # 133: it wants to be booted again
"""

#: What an admin's shell would have, and what pip needs to reach its index from here.
_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
} | {
    key: value
    for key, value in os.environ.items()
    if key.startswith(("PIP_", "SSL_", "REQUESTS_")) or key.lower().endswith("_proxy")
}


class Machine:
    """Runs commands in the booted machine, and knows its service dittohead."""

    def __init__(self, process: subprocess.Popen[bytes], console: Path) -> None:
        self._process, self._console = process, console
        self._cursor = ""

    @property
    def init(self) -> int | None:
        """The machine's process 1, by its number out here; None while there is none."""
        below = _children(self._process.pid)  # the shell, then systemd-nspawn, then process 1
        for _ in range(2):
            below = [child for pid in below for child in _children(pid)]
        for pid in below:
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if status.startswith("Name:\tsystemd\n") and re.search(r"\nNSpid:.*\t1\n", status):
                    return pid
        return None

    @property
    def files(self) -> Path:
        """The machine's root directory, as seen from here. Absolute links in it lead out of it."""
        return Path(f"/proc/{self.init}/root")

    def run(
        self, *argv: str | Path, user: str = "root", check: bool = True, timeout_s: float = 100
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        init = self.init
        assert init is not None, "the machine is off: " + self.console()
        inner = [] if user == "root" else ["runuser", "-u", user, "--"]
        said = subprocess.run(
            ["nsenter", "-t", str(init), "-m", "-u", "-i", "-p", "-n", "--", *inner, *argv],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            cwd="/",
            env=_ENV,
            check=False,
            timeout=timeout_s,
        )
        assert not check or said.returncode == 0, f"{argv}: {said.stdout[-3000:]}{said.stderr[-3000:]}"
        return said

    def systemctl(self, *argv: str, check: bool = True) -> int:
        """Run `systemctl VERB dittohead` and return its exit status."""
        return self.run("systemctl", *argv, "dittohead", check=check).returncode

    def show(self, name: str) -> str:
        """Return a property of the service."""
        return self.run("systemctl", "show", "-P", name, "dittohead").stdout.strip()

    def forget_journal(self) -> None:
        """Let `journal` and `events` begin here."""
        said = (
            self.run("journalctl", "--sync").stdout
            + self.run("journalctl", "-n", "0", "--show-cursor", "--no-pager").stdout
        )
        self._cursor = said.split("-- cursor: ")[1].strip()

    def journal(self) -> str:
        """Return all that the service has logged, and systemd about it."""
        return "\n".join(str(entry.get("MESSAGE")) for entry in self._entries())

    def events(self, event: str = "") -> list[dict[str, Any]]:
        """Return the service's own lines, of one event or of all."""
        own = (str(entry["MESSAGE"]) for entry in self._entries() if entry.get("_COMM") == "dittohead")
        lines = [json.loads(line) for line in own if line.startswith("{")]
        return [line for line in lines if event in ("", line["event"])]

    def _entries(self) -> list[dict[str, Any]]:
        self.run("journalctl", "--sync")
        after = [f"--after-cursor={self._cursor}"] if self._cursor else []
        said = self.run("journalctl", "-u", "dittohead", "-o", "json", "--no-pager", "--all", *after)
        return [json.loads(line) for line in said.stdout.splitlines()]

    def until(self, check: Callable[[], Any], timeout_s: float = 60) -> Any:
        """Wait until a condition holds and return it."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            found = check()
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError("never came true; the journal ends: " + self.journal()[-3000:])

    def reboot(self) -> None:
        """Shut down in order and come up again, with the same files."""
        before = self.init
        self.run("systemctl", "reboot", check=False)
        self.wait_until_up(but=before)

    def wait_until_up(self, but: int | None = None) -> None:
        """Wait until all that is to be started at boot has been; skips where nothing can be booted."""
        end, seen = time.monotonic() + 60, False
        while time.monotonic() < end:
            if self._process.poll() is not None:
                assert not seen, self.console()
                pytest.skip(f"CANNOT BOOT A REAL SYSTEMD HERE, ITS TESTS ARE LEFT OUT: {self.console()}")
            if self.init not in (None, but):
                seen = True
                said = self.run("systemctl", "is-system-running", "--wait", check=False)
                if said.stdout.strip() in ("running", "degraded"):
                    return
            time.sleep(0.05)
        raise AssertionError("it does not come up: " + self.console())

    def console(self) -> str:
        """Return the end of what was said while it booted."""
        return self._console.read_text(errors="replace")[-2000:].strip()

    def off(self) -> None:
        """Shut down in order; by force where that does not work."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.run("systemctl", "poweroff", timeout_s=15)
            self._process.wait(20)
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Boot one until the block ends; skips, with the reason, where that cannot be done."""
    if os.geteuid() != 0:
        pytest.skip("NEEDS ROOT TO BOOT A REAL SYSTEMD: its tests are left out")
    for program in ("systemd-nspawn", "unshare", "setpriv", "nsenter", "runuser"):
        if shutil.which(program) is None:
            pytest.skip(f"{program.upper()} IS NOT INSTALLED: no systemd is booted, its tests are left out")
    name = f"dittohead-{os.getpid()}"
    files = folder / "machine"
    files.mkdir()
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with open(folder / "console", "wb") as console:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *alone, "sh", "-c", _BOOT, "sh", name],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            cwd=files,
            start_new_session=True,
        )
    made = Machine(process, folder / "console")
    try:
        made.wait_until_up()
        yield made
    finally:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a second Ctrl-C waits
        try:
            made.off()
            _remove_cgroups(name)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _remove_cgroups(name: str) -> None:
    """Remove the emptied groups, as soon as the last processes are gone."""
    end = time.monotonic() + 10
    for top in (tree / name for tree in _CGROUPS):
        while top.exists() and time.monotonic() < end:
            for folder, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
