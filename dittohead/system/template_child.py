"""A template (see template.py): `python -m dittohead.system.template_child MODULE FD`.

Takes orders from a socket: {"argv": [...]} with descriptors: a socket, standard output, standard error, and
those of the child. It writes a byte to that socket when it has forked, and closes it when it has reaped the
child. When the other side closes it, the child's group is killed.
"""

from __future__ import annotations

import array
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from importlib import import_module
from types import ModuleType
from typing import Any

from dittohead.system.template import FD

#: Seconds without an order and without a child, after which it ends.
_IDLE_S = 60.0

#: Descriptors of one order, at most.
_FDS = 16

_PR_SET_PDEATHSIG = 1  # prctl(2)


class Template:
    """Forks, and sees to what it has forked."""

    def __init__(self, module: ModuleType, orders: socket.socket) -> None:
        self._module, self._orders = module, orders
        self._children: dict[int, socket.socket] = {}
        self._killed: set[int] = set()  #: of them, those that are not heard any more
        self._ended, wake = socket.socketpair()
        for one in (self._ended, wake):
            one.setblocking(False)
        self._wake = wake
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def run(self) -> None:
        """Serve until the other side is gone, or there is nothing to do."""
        try:
            while True:
                heard = self._killed
                waiting = [one for pid, one in self._children.items() if pid not in heard]
                waiting += [self._orders, self._ended]
                ready, _, _ = select.select(waiting, [], [], _IDLE_S)
                if self._ended in ready:
                    self._ended.recv(4096)
                self._reap()
                for pid, told in self._children.items():
                    if told in ready:  # the other side has closed it
                        _kill(pid)
                        self._killed.add(pid)
                if (self._orders in ready and not self._obey()) or not (ready or self._children):
                    return
        finally:
            for pid in self._children:
                _kill(pid)

    def _reap(self) -> None:
        for pid in list(self._children):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                _kill(pid)  # what it has started, while its number is still its own
                os.waitpid(pid, 0)
                self._children.pop(pid).close()
                self._killed.discard(pid)

    def _obey(self) -> bool:
        size = array.array("i").itemsize * _FDS
        data, ancillary, _, _ = self._orders.recvmsg(1 << 16, socket.CMSG_SPACE(size))
        fds = array.array("i")
        for level, kind, given in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(given[: len(given) - len(given) % fds.itemsize])
        if not data:
            return False
        told = socket.socket(fileno=fds[0])
        try:
            self._fork(json.loads(data)["argv"], list(fds[1:]), told)
        finally:
            for fd in fds[1:]:
                os.close(fd)
        return True

    def _fork(self, argv: list[str], fds: list[int], told: socket.socket) -> None:
        given = [str(fds[2 + int(one.removeprefix(FD))]) if one.startswith(FD) else one for one in argv]
        sys.argv = [self._module.__name__, *given]
        if hasattr(self._module, "warm"):
            try:
                self._module.warm()
            except Exception:  # noqa: BLE001  # what is wrong, the child finds, and says
                traceback.print_exc()
        gc.freeze()  # what is there is not to be copied page by page by each child's collections
        pid = os.fork()
        if pid == 0:
            self._child(fds, told)
        self._children[pid] = told
        told.send(b"+")

    def _child(self, fds: list[int], told: socket.socket) -> None:
        status = 1
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(fds[0], 1)
            os.dup2(fds[1], 2)
            os.close(fds[0])
            os.close(fds[1])
            for one in (told, self._orders, self._ended, self._wake, *self._children.values()):
                one.close()
            self._module.main()
            status = 0
        except BaseException:  # noqa: BLE001  # nothing may come back into the template's own work
            traceback.print_exc()
        finally:
            os._exit(status)


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # before its setsid it has no group
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def main(module: str, fd: str) -> None:
    """Serve."""
    loaded: Any = import_module(module)
    Template(loaded, socket.socket(fileno=int(fd))).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
