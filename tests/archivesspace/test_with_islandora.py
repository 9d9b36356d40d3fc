"""Pages at Islandora and records in ArchivesSpace by one pipeline of the real engine, and what goes wrong between."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dittohead.admin.undo import undo_job
from dittohead.admin.verify import verify_job
from dittohead.contract.worker import Done, StepContext
from dittohead.model.records import Job, Output
from dittohead.model.states import JobState
from dittohead.workers.islandora.worker import IslandoraWorker
from tests.archivesspace.conftest import the
from tests.support.archivesspace import ArchivesSpace
from tests.support.archivesspace_job import NAME, SECRETS, furnish
from tests.support.harness import Harness
from tests.support.islandora import Islandora, served
from tests.support.islandora_state import PASSWORD, Call

pytestmark = pytest.mark.service

CONFIG = """
root: .
retry: {attempts: 3, first: 1ms, most: 2ms}
space: {floor: 0}
pipelines:
  objects:
    match: "(?P<object>[A-Z]+_[0-9]+_[0-9]+|box)(-(?P<purpose>preservation|access))?(-again)?"
    steps:
      - rsync: {name: keep, to: "KEPT/{object}/", mkpath: true, for: preservation}
      - script: {name: copies, after: [], for: access}
      - islandora: {url: "ISLANDORA", user: dittohead, credential: islandora, collection: HALE, from: copies,
                    after: [copies], for: access}
      - archivesspace: {name: record, url: "URL", repository: 2, user: dittohead, credential: aspace-password,
                        masters: [keep], access: [islandora], FIND}
"""


@dataclass
class Rooms:
    """The engine and the two systems."""

    harness: Harness
    archive: ArchivesSpace
    islandora: Islandora

    async def done(self, *names: str, **files: Any) -> list[Job]:
        """Let folders arrive together; return their jobs when all have ended."""
        for name in names:
            self.harness.arrive(
                name, files.get("what") or {f"{NAME}_{n}.tif": f"image {n}" for n in (1, 2, 3)}
            )
        async with self.harness.running():
            return [await self.harness.until_over(name) for name in names]

    async def undo(self, job: Job) -> Any:
        harness = self.harness
        return await undo_job(job, harness.store, harness.stations, harness.workers, secret, dry_run=False)


async def copies(ctx: StepContext) -> Done:
    """Make a copy of each TIFF."""
    for entry in ctx.originals.entries():
        if entry.path.endswith(b".tif"):
            data = b"copy of " + (ctx.payload / os.fsdecode(entry.path)).read_bytes()
            path = entry.path[:-4] + b".jpg"
            made = ctx.work / os.fsdecode(path)
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            ctx.output(Output(path=path, size=len(data), sha256=digest, source=entry.path))
    return Done()


def secret(name: str) -> str:
    return {**SECRETS, "islandora": PASSWORD}[name]


@contextlib.asynccontextmanager
async def rooms_with(archive: ArchivesSpace, base: Path, find: str) -> AsyncIterator[Rooms]:
    islandora = Islandora()
    islandora.add_node("Hale papers", field_local_identifier="HALE")
    async with served(islandora):
        config = CONFIG.replace("URL", archive.url).replace("KEPT", str(base / "kept"))
        config = config.replace("ISLANDORA", islandora.base).replace("FIND", find)
        harness = Harness(base / "root", config)
        object.__setattr__(harness.engine, "secret", secret)
        harness.worker.plays["copies"] = copies
        try:
            yield Rooms(harness, archive, islandora)
        finally:
            harness.store.close()


@pytest.fixture
async def rooms(site: ArchivesSpace, tmp_path: Path) -> AsyncIterator[Rooms]:
    async with rooms_with(site, tmp_path, 'find: "{object}"') as made:
        yield made


async def test_several_objects_in_one_folder_have_each_their_own_page(
    site: ArchivesSpace, tmp_path: Path
) -> None:
    """By a list; what the public sees of one stands in no other's record."""
    second = furnish(site, "HBF_001_03", "/repositories/2/archival_objects/8", title="Second")
    before = site.state()
    lines = "\ufefffile,note,component_id\r\n" + "".join(
        f'"{file}","a, b",{id_}\r\n'
        for file, id_ in (("a 1.tif", NAME), ("a#2.tif", NAME), ("ä?%41,.tif", "HBF_001_03"))
    )
    what = {"objects.csv": lines, "a 1.tif": "1", "a#2.tif": "2", "ä?%41,.tif": "3"}
    async with rooms_with(site, tmp_path, "map: objects.csv") as rooms:
        [job] = await rooms.done("box", what=what)
        assert job.state is JobState.DONE, job.error
        for id_ in (NAME, "HBF_001_03"):
            uris = [one["file_uri"] for one in the(site, id_)["file_versions"]]
            assert f"{rooms.islandora.base}/node/{rooms.islandora.nid(id_)}" in uris
        assert site.records[second]["instances"]
        report = await verify_job(
            job, rooms.harness.store, rooms.harness.stations, rooms.harness.workers, secret
        )
        assert report.good, report.as_dict()
        undone = await rooms.undo(job)
        assert undone.good, undone.as_dict()
    assert site.state() == before


@pytest.mark.parametrize("second", [f"{NAME}-preservation", f"{NAME}-access", f"{NAME}-again"])
async def test_jobs_of_one_object_at_once(rooms: Rooms, second: str) -> None:
    """Whichever is first: one digital object, one node, one media of each page."""
    first = f"{NAME}-access" if second.endswith("preservation") else NAME
    jobs = await rooms.done(first, second)
    assert [(job.state, job.error) for job in jobs] == [(JobState.DONE, None)] * 2
    state = rooms.archive.state()
    [[_, _, pages]] = state["trees"]
    assert len(pages) == 3
    assert len(rooms.islandora.nodes) == 1 + 1 + 3
    assert len(rooms.islandora.media) == 3, json.dumps(rooms.islandora.content(), indent=1)
    for job in jobs:
        report = await verify_job(
            job, rooms.harness.store, rooms.harness.stations, rooms.harness.workers, secret
        )
        assert report.good, report.as_dict()


async def test_a_second_job_of_an_object_waits_for_the_first(rooms: Rooms) -> None:
    """Both would see that a page has no media yet, and a site does not refuse the second."""
    worker = rooms.harness.workers.get("islandora")
    assert isinstance(worker, IslandoraWorker)
    sent: list[str] = []
    may = asyncio.Event()

    async def hold(call: Call, over: bool) -> None:
        if call.method == "PUT" and not over:
            sent.append(call.path)
            if len(sent) == 1:
                await may.wait()

    rooms.islandora.at_call = hold
    task = asyncio.create_task(rooms.done(NAME, f"{NAME}-access"))
    await rooms.harness.until(lambda: worker.locks.waiting or len(sent) > 3)
    may.set()
    assert [job.state for job in await task] == [JobState.DONE] * 2
    assert len(sent) == len(set(sent)) == 3
    assert worker.locks.waiting == 0


async def test_verify_tells_once_of_a_site_that_is_down(rooms: Rooms) -> None:
    """Nothing is known of its files then; none is said to be wrong."""
    [job] = await rooms.done(NAME)
    harness, base = rooms.harness, rooms.islandora.base
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dittohead.toolkit.rest.aiohttp.ClientSession.request", _refused)
        report = await verify_job(job, harness.store, harness.stations, harness.workers, secret)
    assert report.problems == []
    assert [why for _, why in report.unchecked if base.partition("//")[2] in why] != []
    assert len(report.unchecked) < 10


def _refused(*_: object, **__: object) -> object:
    raise aiohttp.ServerTimeoutError
