"""A machine with a real systemd: this one's files under an overlay, booted by systemd-nspawn."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.system.mounts import mount_of

TOP = Path(__file__).parent.parent.parent

#: Units of the host that have no business in there.
_MASKED = ("ssh.service", "ssh.socket", "postgresql.service", "apt-daily.timer", "apt-daily-upgrade.timer")


class Machine:
    """Runs commands in the booted machine; `files` is its root as seen from here."""

    def __init__(self, files: Path, init: int) -> None:
        self.files, self._init = files, init

    def run(self, *argv: str | Path, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command there as root, or as `user=` by number."""
        user = more.pop("user", None)
        inner = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        said = subprocess.run(
            [*_entering(self._init), *inner, *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
            **more,
        )
        assert not check or said.returncode == 0, f"{argv}: {said.stdout[-2000:]}{said.stderr[-2000:]}"
        return said

    def show(self, name: str) -> str:
        """Return a property of the service."""
        return self.run("systemctl", "show", "-P", name, "dittohead").stdout.strip()

    def journal(self) -> str:
        """Return what the service has logged."""
        return self.run("journalctl", "-u", "dittohead", "-o", "cat", "--no-pager").stdout

    def until(self, check: Callable[[], Any], timeout_s: float = 60) -> Any:
        """Wait until a condition holds and return it."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            found = check()
            if found:
                return found
            time.sleep(0.05)
        raise AssertionError("never came true; the journal ends: " + self.journal()[-3000:])


@contextlib.contextmanager
def machine(base: Path, shown: dict[Path, str] | None = None) -> Iterator[Machine]:
    """Boot one until the block ends; skips, with the reason, where that cannot be done.

    Args:
        shown: directories of this machine, and where in the booted one they are seen, to read.
    """
    if os.geteuid() != 0:
        pytest.skip("NEEDS ROOT to boot a real systemd: left out")
    if mount_of("/").point != "/":
        pytest.skip("IN A CHROOT THAT IS NO MOUNT: no systemd is booted")
    if not (shutil.which("systemd-nspawn") and Path("/usr/lib/systemd/systemd").exists()):
        pytest.skip("SYSTEMD-NSPAWN IS NOT INSTALLED: no systemd is booted")
    base.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        _mount(stack, "-t", "tmpfs", "-o", "size=8g", "tmpfs", base)
        for name in ("up", "work", "merged"):
            (base / name).mkdir()
        options = f"lowerdir=/,upperdir={base}/up,workdir={base}/work"
        _mount(stack, "-t", "overlay", "overlay", "-o", options, base / "merged")
        files = base / "merged"
        for unit in _MASKED:
            link = files / "etc/systemd/system" / unit
            link.unlink(missing_ok=True)
            link.symlink_to("/dev/null")
        shutil.rmtree(files / "var/log/journal", ignore_errors=True)
        seen = [f"--bind-ro={path}:{place}" for path, place in (shown or {}).items()]
        init = stack.enter_context(_booted(files, base / "console", seen))
        yield Machine(files, init)


def _mount(stack: contextlib.ExitStack, *arguments: str | Path) -> None:
    said = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if said.returncode != 0:
        pytest.skip(f"CANNOT MOUNT WHAT A MACHINE NEEDS ({said.stderr.strip()}): no systemd is booted")
    stack.callback(subprocess.run, ["umount", "-l", arguments[-1]], check=False)


@contextlib.contextmanager
def _booted(files: Path, console: Path, more: list[str]) -> Iterator[int]:
    # It wants a terminal, which `script` gives it; and a name that no other has, also of those that were killed.
    name = f"dittohead-{os.urandom(4).hex()}"
    command = f"systemd-nspawn -D {files} -M {name} --register=no --keep-unit -b --link-journal=no"
    command = shlex.join([*command.split(), "--console=read-only", *more])
    with open(console, "wb") as out:
        process = subprocess.Popen(
            ["script", "-qfc", command, "/dev/null"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        yield _wait_for_init(process, console)
    finally:
        for pid in _descendants(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
        left = Path("/run/systemd/nspawn/unix-export", name)
        if left.exists():
            subprocess.run(["umount", "-l", left], check=False, capture_output=True)
            left.rmdir()


def _wait_for_init(process: subprocess.Popen[bytes], console: Path) -> int:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, console.read_text(errors="replace")[-3000:]
        for pid in _descendants(process.pid):
            with contextlib.suppress(OSError):
                is_init = b"systemd\0" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b" ")[0] + b"\0"
                status = Path(f"/proc/{pid}/status").read_text()
                if (
                    is_init
                    and "\nNSpid:" in status
                    and status.split("\nNSpid:")[1].split("\n")[0].split()[1:] == ["1"]
                ):
                    said = subprocess.run(
                        [*_entering(pid), "systemctl", "is-system-running"],
                        capture_output=True,
                        text=True,
                        check=False,
                    )
                    if said.stdout.strip() in ("running", "degraded"):
                        return pid
        time.sleep(0.1)
    raise AssertionError("it does not come up: " + console.read_text(errors="replace")[-3000:])


def _entering(init: int) -> list[str]:
    """Return what runs a command in a machine. With its root, too: in a chroot, that of its mounts is another's."""
    return ["nsenter", "-t", str(init), "-m", "-u", "-i", "-p", "-n", "-r", "--"]


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found[1:]
