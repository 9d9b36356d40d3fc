"""A call that blocks the event loop is a failure, where a coroutine or callback of ours makes it.

What a test's own coroutine calls is the test's: then no daemon waits.
"""

from __future__ import annotations

import inspect
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from blockbuster import BlockBuster, BlockBusterFunction

import dittohead

_OURS = str(Path(dittohead.__file__).parent)
_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

#: Short calls on local disks, as ASYNC230 and ASYNC240 in pyproject.toml allow them: one look at a path or one
#: small file takes less time than a thread to do it in. Hashing, copying and the store go to threads.
_SHORT = (
    "os.access", "os.getcwd", "os.link", "os.listdir", "os.mkdir", "os.read", "os.readlink", "os.remove",
    "os.rename", "os.replace", "os.rmdir", "os.scandir", "os.stat", "os.statvfs", "os.symlink", "os.unlink",
    "os.write", "os.path.abspath", "os.path.islink", "os.path.ismount", "os.path.sameopenfile",
    "os.path.samestat",
)  # fmt: skip

#: Programs that are waited for; the library does not know these.
_PROGRAMS = ("subprocess.Popen.wait", "subprocess.Popen.communicate")

#: Reads and writes of files up to this many bytes are short, too: settings, tokens, what the page is made of.
_SMALL = 1 << 20

#: Whether a lock is held just then is chance, on a busy machine above all.
_CHANCE = ("threading.Lock.acquire", "threading.Lock.acquire_lock")


def _by_a_test() -> bool:
    """Return whether the innermost coroutine of the calling stack is not ours."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_flags & _ASYNC:
            return not frame.f_code.co_filename.startswith(_OURS)
        frame = frame.f_back
    return False


def _is_small(file: Any, *_: object) -> bool:
    """Return whether a regular file is a small one."""
    found = os.fstat(file.fileno())
    return stat.S_ISREG(found.st_mode) and found.st_size <= _SMALL


def _unless_a_test(allowed: Callable[..., bool]) -> Callable[..., bool]:
    def check(*args: Any, **kwargs: Any) -> bool:
        return allowed(*args, **kwargs) or _by_a_test()

    return check


def _unless_small(allowed: Callable[..., bool]) -> Callable[..., bool]:
    def check(*args: Any, **kwargs: Any) -> bool:
        return allowed(*args, **kwargs) or _is_small(*args)

    return check


@contextmanager
def refused() -> Iterator[None]:
    """Have calls that block raise BlockingError while this holds."""
    guard = BlockBuster([dittohead])
    for name in (*_SHORT, *_CHANCE):
        del guard.functions[name]
    for name in _PROGRAMS:
        guard.functions[name] = BlockBusterFunction(None, name, scanned_modules=[dittohead])
    for name, one in guard.functions.items():
        if name.startswith("io."):
            one.can_block_predicate = _unless_small(one.can_block_predicate)
        one.can_block_predicate = _unless_a_test(one.can_block_predicate)
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()
