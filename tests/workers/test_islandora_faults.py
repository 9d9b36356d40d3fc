"""islandora through faults at random: whatever breaks, the end is that of a run that nothing disturbs."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from dittohead.model.errors import StepError, TargetError, TransientError
from tests.support.islandora import Islandora, served
from tests.support.islandora_rig import Rig
from tests.support.islandora_state import Fault
from tests.support.length import budget

_PLACES = [
    ("POST", "/node$"),
    ("PUT", "/media/"),
    ("PATCH", "/media/"),
    ("GET", "/media"),
    ("GET", "identifier"),
    ("GET", "file_hash"),
    ("GET", r"/node/\d+$"),
]
_KINDS: list[int | str] = [500, 502, 503, 429, "drop"]


def _content(site: Islandora) -> dict[str, Any]:
    found = site.content()
    for node in found["nodes"]:
        del node["uuid"]  # it depends on the port
    found["nodes"].sort(key=lambda node: json.dumps(node, sort_keys=True))
    return found


def _fault(chance: random.Random) -> Fault:
    method, path = chance.choice(_PLACES)
    kind = chance.choice([*_KINDS, "corrupt"] if method == "PUT" else _KINDS)
    after = kind != "corrupt" and chance.random() < 0.6
    return Fault(method, path, kind, after=after, skip=chance.randint(0, 4), times=chance.choice([1, 1, 2]))


async def _through(rig: Rig, chance: random.Random, options: dict[str, Any]) -> None:
    """Run until it is done, now and then cancelled at some moment."""
    for _ in range(60):
        try:
            await rig.run(**options)
        except (TransientError, TargetError):
            rig.ctx.again()
        else:
            return
        if chance.random() < 0.3:
            task = asyncio.create_task(rig.run(**options))
            for _ in range(chance.randint(0, 400)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled() or task.exception() is None or isinstance(task.exception(), StepError)
            rig.ctx.again()
    raise AssertionError("never done")


@pytest.mark.parametrize("seed", budget(range(16), *range(4)))
async def test_whatever_breaks_it_ends_as_if_undisturbed_and_can_be_undone(tmp_path: Path, seed: int) -> None:
    """Faults before and after their effects, files stored wrongly, a View that lags, cancelled tries."""
    chance = random.Random(seed)
    async with served(Islandora()) as calm:
        rig = Rig(tmp_path / "calm", calm)
        await rig.run()
        wanted = _content(calm)
    async with served(Islandora()) as site:
        rig = Rig(tmp_path / "wild", site)
        before = site.content()
        site.lag = chance.choice([0, 0, 1, 3, 8])
        site.faults = [_fault(chance) for _ in range(chance.randint(1, 6))]
        members = chance.choice(["", "/islandora/members"])
        await _through(rig, chance, {"parallel": chance.choice([1, 2, 4]), "members": members})
        site.faults = []
        site.settle()
        assert _content(site) == wanted
        await rig.undo(members=members)
        assert site.content() == before
