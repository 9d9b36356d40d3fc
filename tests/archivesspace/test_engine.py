"""Within a real pipeline: looked up before anything is delivered, recorded after, verified, planned, undone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.admin.dry_run import plan
from dittohead.admin.undo import undo_job
from dittohead.admin.verify import verify_job
from dittohead.config.loader import load
from dittohead.model.states import JobState, Station
from tests.support.archivesspace import ArchivesSpace
from tests.support.archivesspace_job import AO, NAME, SECRETS
from tests.support.harness import Harness

pytestmark = pytest.mark.service

CONFIG = """
root: .
retry: {attempts: 3, first: 1ms, most: 2ms}
space: {floor: 0}
pipelines:
  objects:
    match: "(?P<object>[A-Z]+_[0-9]+_[0-9]+)(-(?P<purpose>preservation|access))?"
    steps:
      - script: {name: show, after: [], for: access}
      - rsync: {name: keep, to: "KEPT/{object}/", mkpath: true, for: preservation}
      - archivesspace: {name: record, url: "URL", repository: 2, user: dittohead, credential: aspace-password,
                        find: "{object}", masters: [keep], access: [show], label: "{stem}", component_id: "{object}_{stem}"}
"""


@pytest.fixture
async def harness(site: ArchivesSpace, tmp_path: Path) -> AsyncIterator[Harness]:
    made = Harness(tmp_path / "root", CONFIG.replace("URL", site.url).replace("KEPT", str(tmp_path / "kept")))
    object.__setattr__(made.engine, "secret", SECRETS.__getitem__)
    yield made
    made.store.close()


async def done(harness: Harness, name: str, what: dict[str | bytes, Any] | None = None) -> Any:
    harness.arrive(name, what)
    async with harness.running():
        return await harness.until_over(name)


async def test_a_folder_is_recorded(harness: Harness, site: ArchivesSpace, tmp_path: Path) -> None:
    """Its masters by preservation, whether or not the record is public; verify and undo know what it was."""
    before = site.state()
    site.records[AO]["publish"] = False
    job = await done(harness, f"{NAME}-preservation", {"2.tif": b"2", "10.tif": b"10"})
    assert job.state is JobState.DONE, job.error
    [[_, _, pages]] = site.state()["trees"]
    assert [page["component_id"] for page in pages] == [f"{NAME}_2", f"{NAME}_10"]
    assert [page["file_versions"][0]["file_uri"] for page in pages] == [
        f"file://{tmp_path}/kept/{NAME}/{n}.tif" for n in (2, 10)
    ]
    report = await verify_job(job, harness.store, harness.stations, harness.workers, SECRETS.__getitem__)
    assert report.good, report.as_dict()
    undone = await undo_job(
        job, harness.store, harness.stations, harness.workers, SECRETS.__getitem__, dry_run=False
    )
    assert undone.good, undone.as_dict()
    site.records[AO]["publish"] = True
    assert site.state() == before


async def test_what_cannot_be_recorded_is_delivered_nowhere(
    harness: Harness, site: ArchivesSpace, tmp_path: Path
) -> None:
    """No such record, or one that the public may not see: before any step."""
    job = await done(harness, "NONE_001_01", {"1.tif": b"1"})
    assert (job.state, job.station) == (JobState.FAILED, Station.FAILED)
    assert job.error is not None
    assert '"NONE_001_01" is not there' in job.error.what
    site.records[AO]["publish"] = False
    job = await done(harness, f"{NAME}-access", {"1.tif": b"1"})
    assert job.error is not None
    assert "is not published" in job.error.what
    assert not (tmp_path / "kept").exists()
    assert harness.worker.ran == []
    assert site.posts == []


async def test_the_plan_names_every_record(harness: Harness, site: ArchivesSpace, tmp_path: Path) -> None:
    """Of a folder that lies elsewhere, with sizes and digests that nobody knows yet."""
    from tests.support.trees import tree

    folder = tree(tmp_path / "elsewhere", {"1.tif": b"1", "2.tif": b"2"})
    config = load(harness.root / "config.yaml", harness.workers)
    (tmp_path / "scratch").mkdir()
    found = await plan(config, harness.workers, SECRETS.__getitem__, folder, NAME, tmp_path / "scratch")
    said: list[str] = []
    for step in found.steps:
        assert step.problem == ""
        assert step.do is not None
        lines = [f"{one.action} {one.what}" async for one in step.do()]
        said = lines if step.name == "record" else said
    assert said == [
        f"create digital object {NAME}", f"change link of archival object {NAME}",
        f"create component {NAME}_1 (1.tif)", f"create component {NAME}_2 (2.tif)",
    ]  # fmt: skip
    assert site.posts == []
    site.records[AO]["publish"] = False
    (tmp_path / "again").mkdir()
    found = await plan(config, harness.workers, SECRETS.__getitem__, folder, NAME, tmp_path / "again")
    assert "is not published" in found.steps[-1].problem


async def test_a_site_that_is_down_is_waited_for(harness: Harness, site: ArchivesSpace) -> None:
    """It is paused, and nothing is lost."""
    site.users["dittohead"] = "changed"
    harness.arrive(NAME, {"1.tif": b"1"})
    async with harness.running():
        await harness.until(lambda: bool(harness.targets.paused(site.url)))
        assert any(event == "paused" for event, _ in harness.told)
    assert site.posts == []


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("access: [keep]", 'the step "keep", named by access:, has no page, thumbnail or manifest'),
        ("masters: [show]", 'the step "show", named by masters:, has delivered no file of this folder'),
    ],
)
async def test_a_step_that_has_nothing_to_be_recorded_is_not_passed_over(
    site: ArchivesSpace, tmp_path: Path, option: str, said: str
) -> None:
    """The wrong one of two was named: "done" would say that all is recorded."""
    name = option.partition(":")[0]
    text = CONFIG.replace({"access": "access: [show]", "masters": "masters: [keep]"}[name], option)
    made = Harness(tmp_path / "root", text.replace("URL", site.url).replace("KEPT", str(tmp_path / "kept")))
    object.__setattr__(made.engine, "secret", SECRETS.__getitem__)
    job = await done(made, NAME, {"1.tif": b"1"})
    assert (job.state, site.posts) == (JobState.FAILED, [])
    assert said in job.reason
    made.store.close()
