"""kill -9 between every two calls, before and after the effect of each: nothing doubled, nothing lost, undone."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.archivesspace.conftest import shown
from tests.support.archivesspace import ArchivesSpace
from tests.support.archivesspace_job import AO, NAME, Job
from tests.support.length import budget

pytestmark = pytest.mark.slow


class Children:
    """Forks a process for each try, which the server can kill."""

    def __init__(self, process: asyncio.subprocess.Process, site: ArchivesSpace) -> None:
        self._process, self._site = process, site

    async def _line(self, text: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if text:
            self._process.stdin.write(text.encode() + b"\n")
        return (await self._process.stdout.readline()).decode().strip()

    async def run(self, job: Job) -> int:
        """Return how the child ended: 0, or -9 when it was killed."""
        self._site.victim = int(await self._line(str(job.base)))
        return int(await self._line("go"))


@contextlib.asynccontextmanager
async def children(site: ArchivesSpace) -> AsyncIterator[Children]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.archivesspace_job",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        yield Children(process, site)
    finally:
        process.terminate()
        await process.wait()


def nothing_there(site: ArchivesSpace) -> dict[str, Any]:
    return {"publish": True}


def with_events(site: ArchivesSpace) -> dict[str, Any]:
    return {"events": True}


def each_file(site: ArchivesSpace) -> dict[str, Any]:
    return {"digital_objects": "each"}


def half_there(site: ArchivesSpace) -> dict[str, Any]:
    """A colleague has begun: a linked object with a component in the middle, versions of their own."""
    theirs = {"file_uri": "https://elsewhere.example.org/1", "publish": True, "is_representative": True}
    object_ = site.add(
        "/repositories/2/digital_objects/50",
        digital_object_id=NAME,
        title="As we say",
        publish=False,
        file_versions=[theirs],
    )
    for number, id_ in ((60, f"{NAME}_0002"), (61, "transcript")):
        site.add(
            f"/repositories/2/digital_object_components/{number}", digital_object={"ref": object_}, component_id=id_,
            label="by hand", publish=False, file_versions=[{"file_uri": "file:///shelf/2", "publish": False}],
        )  # fmt: skip
    record = site.records[AO]
    site.save(
        AO,
        "archival_object",
        {**record, "instances": [{"instance_type": "digital_object", "digital_object": {"ref": object_}}]},
        "staff",
    )
    return {}


@pytest.mark.parametrize(
    ("begun", "first"),
    budget(
        [
            (nothing_there, ".*"),
            (half_there, ".*"),
            (with_events, "/agents/software|.*/events"),
            (each_file, r".*/digital_objects"),
        ],
        (half_there, ".*"),
    ),
)
async def test_killed_anywhere(
    site: ArchivesSpace, tmp_path: Path, begun: Callable[[ArchivesSpace], dict[str, Any]], first: str
) -> None:
    """The records are those of an undisturbed run, whichever call the killed one made last; and go again."""
    options = begun(site)
    initial, before = site.saved(), _without_agents(site)

    def job(name: str) -> Job:
        return Job.made(tmp_path / name, site.url, 3, access=shown(site), **options)

    async with children(site) as forked:
        assert await forked.run(job("undisturbed")) == 0
        wanted, calls = site.state(), list(site.calls)
        assert len(calls) > 20
        begins = next(call.number for call in calls if re.fullmatch(first, call.path))
        for number, call in enumerate(calls[begins - 1 :], start=begins):
            # After a call that only reads is before the next one.
            for after in (False, True) if call.method == "POST" else (False,):
                site.restore(initial)
                killed = job(f"{number}-{after}")
                site.kill = (number, after)
                assert await forked.run(killed) == -9, (number, after)
                site.kill = None
                held = site.saved()
                await killed.undo()
                assert _without_agents(site) == before, (number, after)
                site.hold(held)
                await killed.run()
                assert site.state() == wanted, (number, after)
                said = await killed.undo()
                assert _without_agents(site) == before, (number, after, said)


def _without_agents(site: ArchivesSpace) -> Any:
    """Return the state without agents: one that was created stays, since other events may name it."""
    state = site.state()
    state["records"] = [one for one in state["records"] if one.get("jsonmodel_type") != "agent_software"]
    return state
