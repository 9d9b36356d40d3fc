"""Forks of a template: apart from each other, ended with what they started, and started again when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from dittohead.system.process import environment
from dittohead.system.template import FD, TemplateLost, forked

MODULE = "tests.support.template_work"

pytestmark = pytest.mark.usefixtures("nothing_blocks_the_loop")


async def said(root: Path, *argv: str, fds: tuple[int, ...] = ()) -> list[str]:
    """Return the lines that a fork prints."""
    env = environment(root) | {"PYTHONPATH": os.getcwd()}
    async with forked(MODULE, argv, env=env, stderr=subprocess.DEVNULL, line_most=4096, fds=fds) as child:
        return (await child.stdout.read()).decode().split()


async def test_forks_are_apart(tmp_path: Path) -> None:
    """What one leaves in memory, the next does not see; the template made itself ready for both."""
    first, second = await said(tmp_path, "count"), await said(tmp_path, "count")
    assert first[:2] == ["seen", "0"]
    assert second[:2] == ["seen", "0"]
    assert (first[2], second[2]) == ("1", "2")  # times that it was warmed
    assert first[3] != second[3]  # processes


async def test_a_descriptor_is_handed_on(tmp_path: Path) -> None:
    """By its place, under another number."""
    fd = os.memfd_create("x")
    os.write(fd, b"hello")
    try:
        assert await said(tmp_path, "read", f"{FD}0", fds=(fd,)) == ["hello"]
    finally:
        os.close(fd)


async def test_a_crash_is_one_forks_own(tmp_path: Path) -> None:
    """Its output ends; the next is well."""
    assert await said(tmp_path, "crash") == []
    assert (await said(tmp_path, "count"))[0] == "seen"


async def test_what_is_left_ends_with_all_it_started(tmp_path: Path) -> None:
    """On cancellation."""
    pids: list[int] = []
    env = environment(tmp_path) | {"PYTHONPATH": os.getcwd()}

    async def work() -> None:
        async with forked(MODULE, ["sleep"], env=env, stderr=subprocess.DEVNULL, line_most=4096) as child:
            pids.extend(map(int, (await child.stdout.readline()).split()))
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    while not pids:
        await asyncio.sleep(0.01)
    fds = [os.pidfd_open(pid) for pid in pids]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for fd in fds:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(fd, ended.set)
        await ended.wait()
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)


async def test_a_template_that_dies_is_started_again(tmp_path: Path) -> None:
    """What it had forked dies with it; that is no answer."""
    *_, first, template = await said(tmp_path, "count")
    os.kill(int(template), signal.SIGKILL)
    for _ in range(3):
        try:
            *_, second, other = await said(tmp_path, "count")
            break
        except TemplateLost:  # it was asked before its death was seen
            continue
    else:
        raise AssertionError("no template is started")
    assert (first, template) != (second, other)
