"""islandora killed at every call it makes: nothing at the site is doubled, lost or left half made."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dittohead.contract.worker import UndoContext
from dittohead.workers.islandora.worker import IslandoraOptions, IslandoraWorker
from tests.support.islandora import Islandora, served
from tests.support.islandora_state import PASSWORD, Call
from tests.support.trees import tree

# Each kills at every call: slow by nature.
pytestmark = pytest.mark.rest

KNOWN = {"objects": [{"description": {"identifier": "GEH_1_2", "title": "Letters"}}]}


class Runner:
    """A process that runs steps in children of its own; see tests.support.islandora_runner."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = 0

    async def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        said: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return said

    async def run(self, base: Path, payload: Path, options: dict[str, Any]) -> dict[str, Any]:
        """Run a step; return what came of it, {"status": -9} when it was killed."""
        order = {"base": str(base), "payload": str(payload), "options": options, "description": KNOWN}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self.pid = (await self._read())["pid"]
        self._process.stdin.write(b"go\n")
        said = await self._read()
        if "status" not in said:
            said = {**said, **(await self._read())}
        return said

    def kill(self) -> None:
        """Kill the step that runs, at once."""
        os.kill(self.pid, signal.SIGKILL)


@pytest_asyncio.fixture
async def runner() -> AsyncIterator[Runner]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.islandora_runner",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    yield Runner(process)
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


class Scene:
    """One folder and one site, from the beginning."""

    def __init__(self, base: Path, site: Islandora, **more: Any) -> None:
        self.base, self.site = base, site
        site.add_node("Hale papers", field_local_identifier="GEH")
        next(iter(site.nodes.values()))["uuid"] = "collection"
        self.payload = tree(base / "GEH_1_2", {"p1.jpg": "image 1", "p2.jpg": "image 2"})
        self.options = {
            "url": site.base,
            "user": "dittohead",
            "credential": "password",
            "collection": "GEH",
            "parallel": 1,
            **more,
        }

    def content(self) -> dict[str, Any]:
        """Return what the site holds, but for UUIDs, which depend on its port."""
        found = self.site.content()
        for node in found["nodes"]:
            del node["uuid"]
        found["nodes"].sort(key=lambda node: json.dumps(node, sort_keys=True))
        return found

    async def undo(self) -> None:
        ctx = UndoContext(
            job_id="x",
            ledger=next((self.base / "state" / "ledger").iterdir()),
            locations=lambda: iter(()),
            env={},
            secret=lambda name: PASSWORD,
            dry_run=False,
            report=lambda ok, uri, text: None,
        )
        await IslandoraWorker().undo(ctx, IslandoraOptions.model_validate(self.options))


@contextlib.asynccontextmanager
async def scene(base: Path, **more: Any) -> AsyncIterator[Scene]:
    async with served(Islandora()) as site:
        yield Scene(base, site, **more)


async def undisturbed(base: Path, runner: Runner, **more: Any) -> tuple[dict[str, Any], list[Call]]:
    """Return (what a site holds after a run that nothing disturbs, the calls it made)."""
    async with scene(base, **more) as calm:
        said = await runner.run(calm.base, calm.payload, calm.options)
        assert said.get("result") == "Done", said
        return calm.content(), calm.site.calls


def kills(runner: Runner, number: int, *, after: bool) -> Any:
    """Return what kills the step at its call of this number, before or after its effect."""

    async def at_call(call: Call, then: bool) -> None:
        if call.number == number and then == after:
            runner.kill()

    return at_call


async def _resumed(it: Scene, runner: Runner) -> dict[str, Any]:
    """Run until it is done, as the engine would."""
    said: dict[str, Any] = {}
    for _ in range(8):
        said = await runner.run(it.base, it.payload, it.options)
        if "result" in said:
            return said
        assert said["error"].startswith("TransientError"), said
    raise AssertionError(said)


@pytest.mark.parametrize(
    ("kind", "after"), [("plain", False), ("plain", True), ("lagging", True), ("hidden", True)]
)
async def test_killed_at_every_call_it_ends_as_if_undisturbed(
    tmp_path: Path, runner: Runner, kind: str, after: bool
) -> None:
    """Each call once, before and after its effect; each write with a View that lags, and hidden media."""
    more: dict[str, Any] = {"publish": False} if kind == "hidden" else {}
    wanted, calls = await undisturbed(tmp_path / "calm", runner, **more)
    assert len(calls) > 20
    for number in [call.number for call in calls if kind == "plain" or call.writes]:
        async with scene(tmp_path / str(number), **more) as it:
            it.site.lag = 2 if kind == "lagging" else 0
            it.site.at_call = kills(runner, number, after=after)
            said = await runner.run(it.base, it.payload, it.options)
            assert said == {"status": -signal.SIGKILL}
            it.site.at_call = None
            said = await _resumed(it, runner)
            assert said["locations"] == (3 if kind == "hidden" else 4)
            assert it.content() == wanted, f"killed at call {number}"


async def test_killed_again_and_again_it_ends_as_if_undisturbed(tmp_path: Path, runner: Runner) -> None:
    """At every write, after its effect, one after the other, with pages under way at once."""
    wanted, _ = await undisturbed(tmp_path / "calm", runner)
    async with scene(tmp_path / "x", parallel=2) as it:
        killed: list[str] = []

        async def at_call(call: Call, then: bool) -> None:
            if then and call.writes and call.path not in killed:
                killed.append(call.path)
                runner.kill()

        it.site.at_call = at_call
        said: dict[str, Any] = {}
        for _ in range(20):
            said = await runner.run(it.base, it.payload, it.options)
            if "result" in said:
                break
        assert said["result"] == "Done"
        assert len(killed) >= 5
        assert it.content() == wanted


async def test_undo_after_a_kill_leaves_what_was_there_before(tmp_path: Path, runner: Runner) -> None:
    """At every write, after its effect: what was not noted any more is found by what was intended."""
    _, calls = await undisturbed(tmp_path / "calm", runner)
    numbers = [call.number for call in calls if call.writes]
    assert len(numbers) == 7  # three nodes, two files, two alternative texts
    for number in numbers:
        async with scene(tmp_path / str(number)) as it:
            before = it.content()
            it.site.at_call = kills(runner, number, after=True)
            await runner.run(it.base, it.payload, it.options)
            it.site.at_call = None
            assert it.content() != before
            await it.undo()
            assert it.content() == before, f"killed at call {number}"


async def test_a_large_file_passes_through_little_memory(tmp_path: Path, runner: Runner) -> None:
    """It is read as it is sent, and read back as it arrives."""
    async with scene(tmp_path) as it:
        it.site.hashes = False
        large = it.payload / "p1.jpg"
        with open(large, "wb") as file:
            for number in range(96):
                file.write(bytes([number]) * (1 << 20))
        said = await runner.run(it.base, it.payload, it.options)
        assert said["result"] == "Done", said
        assert said["grown"] < 48 << 20
