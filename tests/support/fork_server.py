"""A process that has imported what a program imports, and forks one whenever it is asked: `fork_server.py KIND FD`.

Importing takes most of the time in which a daemon, a command or an image child starts. A fork of this process is
what such a program is after its imports: its arguments, environment, directory, session and open files are those
that were asked for. It ends when FD, a socket, is closed by the tests.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

TOP = Path(__file__).parent.parent.parent

#: What one request may hold: arguments and an environment.
MOST = 200_000


def _daemon() -> dict[str, Callable[[], Any]]:
    """Import what a daemon and the commands import, each worker and source too."""
    from dittohead import cli

    for of in cli.MODULES.values():
        import_module(f"dittohead.cli.{of.module}")
    for name in (
        "anyio._backends._asyncio",
        "dittohead.cli.open_config",
        "dittohead.daemon",
        "sqlalchemy.dialects.sqlite.pysqlite",
        "stringprep",
    ):
        import_module(name)
    for group in ("dittohead.workers", "dittohead.sources"):
        for point in metadata.entry_points(group=group):
            point.load()
    sys.path.append(str(TOP))
    mortal = import_module("tests.support.mortal")
    sys.path.remove(str(TOP))  # where nothing of the checkout can be imported
    return {"dittohead": cli.main, "mortal": mortal.main}


def _images() -> dict[str, Callable[[], Any]]:
    """Import what an image child imports."""
    sys.path.insert(0, str(TOP))  # where `python -m` has its directory
    child = import_module("dittohead.toolkit.images.child")

    def main() -> None:
        child._messages = child.LibraryMessages()  # it keeps them in a file, which forks would share
        child.main()

    return {"images": main}


def load(kind: str) -> dict[str, Callable[[], Any]]:
    """Import what children of a kind import; return the main functions, by the names in requests."""
    here = str(Path(__file__).parent)
    sys.path[:] = [place for place in sys.path if place != here]  # not where the program's own path has it
    gc.disable()
    mains = {"daemon": _daemon, "images": _images}[kind]()
    assert os.listdir("/proc/self/task") == [str(os.getpid())], "a thread would not be there in a fork"
    gc.freeze()
    gc.enable()
    return mains


class Server:
    """Forks, and says by a socket of each child's how it has ended."""

    def __init__(self, asked: socket.socket) -> None:
        self.asked = asked
        self.children: dict[int, socket.socket] = {}
        self.died, write = os.pipe()
        for fd in (self.died, write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.written = write

    def serve(self) -> dict[str, Any] | None:
        """Return None when the tests have ended, and in a child the request it was made for."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.asked, selectors.EVENT_READ)
            selector.register(self.died, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self.died in ready:
                    os.read(self.died, 4096)
                    self.reap()
                if self.asked not in ready:
                    continue
                data, fds, _, _ = socket.recv_fds(self.asked, MOST, 4)
                if not data:
                    return None
                request = json.loads(data)
                if not self.fork(fds):
                    break
        self.become(request, fds)
        return request

    def reap(self) -> None:
        """Say of each child that has ended its status and the seconds of a processor it has used."""
        while self.children:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            told = self.children.pop(pid)
            cpu = used.ru_utime + used.ru_stime
            said = json.dumps({"status": os.waitstatus_to_exitcode(status), "cpu": cpu})
            with contextlib.suppress(OSError):  # nobody waits for it
                told.send(said.encode())
            told.close()

    def fork(self, fds: list[int]) -> bool:
        """Make a child; return whether this is the parent."""
        pid = os.fork()
        if pid == 0:
            return False
        told = socket.socket(fileno=os.dup(fds[3]))
        self.children[pid] = told
        for fd in fds:
            os.close(fd)
        told.send(json.dumps({"pid": pid}).encode())
        return True

    def become(self, request: dict[str, Any], fds: list[int]) -> None:
        """Let this child be what a new process would be."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if request["session"]:
            os.setsid()
        if request["umask"] >= 0:
            os.umask(request["umask"])
        for fd, place in zip(fds[:3], range(3), strict=True):
            os.dup2(fd, place)
        for fd in (*fds, self.died, self.written):
            os.close(fd)
        for told in (self.asked, *self.children.values()):
            told.close()
        for name, place, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
            setattr(sys, name, stream(name, place, mode))
            setattr(sys, f"__{name}__", getattr(sys, name))
        if request["user"]:
            uid, gid, groups = request["user"]
            os.setgroups(groups)
            os.setgid(gid)
            os.setuid(uid)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv[:] = request["argv"]


def stream(name: str, place: int, mode: str) -> io.TextIOWrapper:
    """Return a standard stream as Python makes it when it starts."""
    plain = open(place, f"{mode}b", closefd=False, buffering=-1)  # noqa: SIM115
    errors = "backslashreplace" if name == "stderr" else sys.__stdout__.errors  # type: ignore[union-attr]
    return io.TextIOWrapper(
        plain,
        encoding=sys.__stdout__.encoding,  # type: ignore[union-attr]
        errors=errors,
        line_buffering=name == "stderr" or (mode == "w" and os.isatty(place)),
        write_through=False,
    )


if __name__ == "__main__":
    mains = load(sys.argv[1])
    asked = socket.socket(fileno=int(sys.argv[2]))
    asked.set_inheritable(False)
    request = Server(asked).serve()
    if request is not None:
        sys.exit(mains[request["main"]]())
