"""The real daemon as a process, driven as people drive it: files, signals and the command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from dittohead.system.process import sweep
from tests.support import forks
from tests.support.forks import Forked
from tests.support.settled import at_once
from tests.support.wheel import TOP, program

#: The daemon whose fail points are armed, as a program.
MORTAL = [sys.executable, "-m", "tests.support.mortal"]


class Site:
    """A root, its config.yaml, and a daemon that may be started, killed and started again.

    Daemon and commands are forked from a process that has imported dittohead already, where they can be: see
    tests/support/forks.py. A test that is about the start of the process sets `forks` to False.
    """

    forks = True

    def __init__(self, root: Path, config: str) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.config = root / "config.yaml"
        self.configure(config)
        self.log = root / "daemon.log"
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self.env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
        self.program = program()  #: what `start` runs

    def configure(self, text: str) -> None:
        """Write config.yaml."""
        self.config.write_text(at_once(text))

    def start(self, *, wait: bool = True) -> None:
        began = len(self.events("watch.armed"))
        with open(self.log, "ab") as log:
            self.start_into(log)
        if wait:
            self.until(lambda: len(self.events("watch.armed")) > began or self._dead())

    def start_into(self, log: int | IO[bytes]) -> None:
        """Start the daemon with its log somewhere else."""
        arguments = ["--config", str(self.config), "run"]
        file = log if isinstance(log, int) else log.fileno()
        main = "mortal" if self.program == MORTAL else "dittohead"
        known = main == "mortal" or self.program == program()
        if self.forks and known and forks.can_be(self._forked_env()):
            self.process = forks.fork(
                main,
                ["dittohead", *arguments],
                env=self._forked_env(),
                cwd=self.config.parent,
                files=(0, file, file),
                session=True,
            )
            return
        self.process = subprocess.Popen(
            [*self.program, *arguments],
            stdout=file,
            stderr=file,
            env=self.env,
            cwd=self.config.parent,  # where nothing of the checkout can be imported
            start_new_session=True,
        )

    def arm(self, dies: str, **more: str) -> None:
        """Let the daemon's fail points be armed from now on.

        Args:
            dies: where it dies, as MORTAL_DIES of tests/support/mortal.py; "" for nowhere.
            more: further variables for it.
        """
        self.program = MORTAL
        self.env |= {
            "PYTHONPATH": str(TOP),
            "MORTAL_ROOT": str(self.root.resolve()),
            "MORTAL_DIES": dies,
            **more,
        }

    def _forked_env(self) -> dict[str, str]:
        """Return the daemon's environment without what leads to the module that arms it."""
        given = dict(self.env)
        if self.program == MORTAL and given.get("PYTHONPATH") == str(TOP):
            del given["PYTHONPATH"]
        return given

    def _dead(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return False

    def kill(self) -> None:
        """SIGKILL the daemon alone; what it started lives on, as after a crash."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 20) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def run(self, *arguments: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line."""
        argv = ["--config", str(self.config), *arguments]
        known = {"cwd", "user", "group", "extra_groups"}
        if self.forks and more.keys() <= known and forks.can_be(self._forked_env()):
            user = (more["user"], more["group"], list(more["extra_groups"])) if "user" in more else None
            said = forks.run(
                ["dittohead", *argv],
                env=self._forked_env(),
                cwd=more.get("cwd", self.config.parent),
                timeout=100,
                user=user,
            )
        else:
            said = subprocess.run(
                [*program(), *argv],
                **{"cwd": self.config.parent, **more},
                capture_output=True,
                text=True,
                env=self.env,
                timeout=100,
                check=False,
            )
        assert not check or said.returncode == 0, said.stdout + said.stderr
        return said

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def json_failing(self, *arguments: str) -> Any:
        """Return what a command prints that ends with a failure's exit status."""
        said = self.run(*arguments, "--json", check=False)
        assert said.returncode == os.EX_DATAERR, said.stderr
        return json.loads(said.stdout)

    def held(self, name: str) -> str:
        """Return why a folder waits in the inbox, as status says; "" where it does not."""
        reason: str = self.json("status")["live"].get("held", {}).get(name, "")
        return reason

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the daemon's log lines of one event."""
        found = []
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            if f'"{event}"' not in line:  # most lines need not be parsed
                continue
            with contextlib.suppress(ValueError):
                fields = json.loads(line)
                if fields.get("event") == event:
                    found.append(fields)
        return found

    def until(self, check: Callable[[], Any], timeout_s: float = 60) -> Any:
        """Wait until a condition holds and return it."""
        end, pause_s = time.monotonic() + timeout_s, 0.01
        while time.monotonic() < end:
            found = check()
            if found:
                return found
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.2, 0.05)  # looking takes time from what is waited for
        raise AssertionError("never came true; the log ends: " + self.log.read_text()[-3000:])

    def drop(self, name: str, what: dict[str | bytes, Any]) -> None:
        """The uploader's protocol, by hand."""
        from tests.support.trees import tree

        tree(self.root / "inbox" / f".{name}", what)
        (self.root / "inbox" / f".{name}").rename(self.root / "inbox" / name)

    def receipts(self, name: str = "") -> list[dict[str, Any]]:
        paths = sorted((self.root / "receipts").glob(f"{name}*.json"))
        return [json.loads(path.read_bytes()) for path in paths]


@contextlib.contextmanager
def site(root: Path, config: str) -> Iterator[Site]:
    """A site whose daemon is dead when the block ends."""
    made = Site(root, config)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.wait()
        sweep(root)
