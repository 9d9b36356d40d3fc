"""What blocks the event loop fails a test, and what may be done there does not."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType

import pytest
from blockbuster import BlockingError

from tests.support import blocking

pytestmark = pytest.mark.usefixtures("nothing_blocks_the_loop")


def as_ours(call: Callable[[], object]) -> Callable[[], object]:
    """Return a coroutine function that calls, as if it stood in a module of ours."""
    space: dict[str, FunctionType] = {}
    code = compile("async def run(call):\n    return call()\n", f"{blocking._OURS}/daemon.py", "exec")
    exec(code, space)
    return lambda: space["run"](call)


@cache
def ended() -> subprocess.Popen[bytes]:
    made = subprocess.Popen([sys.executable, "-c", ""])
    made.wait()
    return made


def program() -> object:
    return ended().wait()


@pytest.mark.parametrize(
    "call",
    [lambda: time.sleep(0), lambda: sqlite3.connect(":memory:").execute("select 1"), program],
    ids=["sleep", "store", "program"],
)
async def test_what_blocks_is_refused_in_a_coroutine_of_ours_alone(call: Callable[[], object]) -> None:
    """A thread may block, and so may a test's own coroutine."""
    ended()
    with pytest.raises(BlockingError):
        await as_ours(call)()  # type: ignore[misc]
    await asyncio.to_thread(call)
    call()


async def test_a_small_file_may_be_read_and_a_large_one_not(tmp_path: Path) -> None:
    """Up to a MiB, as the linter's settings allow."""
    file = tmp_path / "a"
    file.write_bytes(bytes(blocking._SMALL))
    await as_ours(file.read_bytes)()  # type: ignore[misc]
    file.write_bytes(bytes(blocking._SMALL + 1))
    with pytest.raises(BlockingError):
        await as_ours(file.read_bytes)()  # type: ignore[misc]
