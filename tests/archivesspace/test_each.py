"""`digital_objects: each`: one for each file, without components."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dittohead.model.errors import ItemError, TransientError
from dittohead.model.records import Output
from tests.archivesspace.conftest import object_there, the
from tests.support.archivesspace import ArchivesSpace, Fault
from tests.support.archivesspace_job import AO, NAME, Job, furnish

OTHER, OTHER_AO = "HBF_001_07", "/repositories/2/archival_objects/8"


def each(base: Path, site: ArchivesSpace, pages: Any = ("1.tif", "2.tif", "10.tif"), **more: Any) -> Job:
    return Job.made(base, site.url, pages, **{"digital_objects": "each", **more})


def linked(site: ArchivesSpace, uri: str = AO) -> list[str]:
    """Return the ids of the digital objects of an archival object, in its order."""
    refs = [one["digital_object"]["ref"] for one in site.shown(uri)["instances"]]
    return [site.records[ref]["digital_object_id"] for ref in refs]


async def test_what_is_recorded(site: ArchivesSpace, tmp_path: Path) -> None:
    """In the order of people; linked in one save; verified by file; a second job writes nothing; undone."""
    before = site.state()
    job = each(tmp_path, site, copy_description=["dates"])
    ctx = await job.run()
    assert linked(site) == [f"{NAME}_1", f"{NAME}_2", f"{NAME}_10"]
    assert [one["is_representative"] for one in site.shown(AO)["instances"]] == [True, False, False]
    assert len([post for post in site.posts if post == f"POST {AO}"]) == 1
    second = the(site, f"{NAME}_2")
    assert second["title"] == site.shown(AO)["display_string"] + " (2.tif)"
    [version] = second["file_versions"]
    assert (version["file_uri"], version["publish"]) == (f"s3://preservation/{NAME}/2.jp2", False)
    assert second["dates"]
    assert site.trees == {}
    assert "3 digital objects with 3 file versions" in ctx.events[0].detail
    count = len(site.posts)
    again = await each(tmp_path, site, copy_description=["dates"], job="01JAGAIN").run()
    assert site.posts[count:] == []
    for places in (ctx.locations, again.locations):
        assert sorted(one.path for one in places if one.path) == [b"1.tif", b"10.tif", b"2.tif"]
        assert [problem for ok, _, problem in await job.verify(places) if not ok] == []
    version["checksum"] = "0" * 64
    site.save(second["uri"], "digital_object", second, "colleague")
    assert [problem for ok, _, problem in await job.verify(ctx.locations) if not ok] == [
        "says something else of its file now"
    ]
    await each(tmp_path, site, copy_description=["dates"], job="01JMENDS").run()
    assert [problem for ok, _, problem in await job.verify(ctx.locations) if not ok] == []
    planned = await job.undo(dry_run=True)
    assert await job.undo() == planned
    assert all(gone for gone, _, _ in planned)
    assert site.state() == before


@pytest.mark.parametrize("after", [False, True])
async def test_any_write_may_break(site: ArchivesSpace, tmp_path: Path, *, after: bool) -> None:
    """Nothing is doubled, and undo takes all of it out."""
    before, held = site.state(), site.saved()
    await each(tmp_path / "well", site).run()
    wanted = site.state()
    for write in (r"POST .*/digital_objects", f"POST {AO}"):
        site.restore(held)
        site.faults.append(Fault(write, "drop", after=after))
        job = each(tmp_path / f"{write[-2:]}", site)
        await job.run()
        assert site.state() == wanted
        await job.undo()
        assert site.state() == before


async def test_a_try_goes_on_where_the_last_one_was(site: ArchivesSpace, tmp_path: Path) -> None:
    job = each(tmp_path, site)
    site.faults.append(Fault(f"POST {AO}", "503", times=99))
    with pytest.raises(TransientError):
        await job.run()
    site.faults.clear()
    await job.run()
    assert linked(site) == [f"{NAME}_1", f"{NAME}_2", f"{NAME}_10"]
    assert len([uri for uri in site.records if "/digital_objects/" in uri]) == 3


async def test_each_file_has_its_own_page(site: ArchivesSpace, tmp_path: Path) -> None:
    """What was made of the whole folder stands with the first; one file alone has the plain title."""
    job = each(tmp_path, site, ["1.tif", "2.tif"], access=[("thumbnail", f"{site.url}/public/t.jpg")])
    await job.preflight()
    ctx = job.context()
    page = Output(
        path=b"p",
        size=2,
        sha256="",
        source=b"2.tif",
        detail={"use": "page", "uri": f"{site.url}/public/node/45"},
    )
    object.__setattr__(ctx.others["islandora"], "outputs", lambda: iter([page]))
    await job.worker.run(ctx, job.options)
    first, second = (the(site, f"{NAME}_{n}")["file_versions"] for n in (1, 2))
    assert [one.get("use_statement") for one in first] == ["image-thumbnail", "image-master"]
    assert [one.get("use_statement") for one in second] == ["image-service", "image-master"]
    furnish(site, OTHER, OTHER_AO)
    await each(tmp_path / "b", site, ["1.tif"], name=OTHER, job="01JB").run()
    assert the(site, f"{OTHER}_1")["title"] == site.shown(OTHER_AO)["display_string"]


async def test_several_objects_in_one_folder(site: ArchivesSpace, tmp_path: Path) -> None:
    furnish(site, OTHER, OTHER_AO)
    files = [f"{one}/{n}.tif" for one in (NAME, OTHER) for n in (1, 2)]
    await each(tmp_path, site, files, pattern=r"(?P<object>[^/]+)/.*", name="mixed").run()
    assert (linked(site), linked(site, OTHER_AO)) == (
        [f"{NAME}_1", f"{NAME}_2"],
        [f"{OTHER}_1", f"{OTHER}_2"],
    )


async def test_access_alone_makes_none_without_anything(site: ArchivesSpace, tmp_path: Path) -> None:
    access = [("page", f"{site.url}/public/node/45")]
    await each(tmp_path, site, masters=["not-chosen"], access=access).run()
    assert linked(site) == [f"{NAME}_1"]
    await each(tmp_path, site, job="01JLATER").run()
    assert linked(site) == [f"{NAME}_1", f"{NAME}_2", f"{NAME}_10"]
    assert [one.get("use_statement") for one in the(site, f"{NAME}_1")["file_versions"]] == [
        "image-service",
        "image-master",
    ]


@pytest.mark.parametrize("theirs", [f"{NAME}_2", f"{NAME.lower()}_2", "OTHER"])
async def test_what_stands_against_it(site: ArchivesSpace, tmp_path: Path, theirs: str) -> None:
    """An id that is another's, or like it; another object that is linked."""
    furnish(site, OTHER, OTHER_AO)
    uri = object_there(site, theirs, to=(AO,) if theirs == "OTHER" else (OTHER_AO,))
    with pytest.raises(ItemError) as error:
        await each(tmp_path, site).preflight()
    said = {
        f"{NAME}_2": f"is taken by {uri}",
        f"{NAME.lower()}_2": f"{uri} is called",
        "OTHER": "set linked: add",
    }
    assert said[theirs] in str(error.value)
    assert site.posts == []
    if theirs == "OTHER":
        await each(tmp_path, site, linked="add").run()
        assert linked(site) == ["OTHER", f"{NAME}_1", f"{NAME}_2", f"{NAME}_10"]


async def test_the_plan_names_each(site: ArchivesSpace, tmp_path: Path) -> None:
    job = each(tmp_path, site, ["1.tif", "2.tif"])
    await job.preflight()
    plan = [one async for one in job.worker.plan(job.context(), job.options)]
    assert [one.what for one in plan if one.what.startswith("digital object")] == [
        f"digital object {NAME}_1",
        f"digital object {NAME}_2",
    ]
    await job.run()
    await job.preflight()
    assert {one.action async for one in job.worker.plan(job.context(), job.options)} == {"keep"}


def test_one_that_is_there_cannot_be_used_for_each(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="use refuse or add"):
        Job.made(tmp_path, "http://x", 1, digital_objects="each", linked="use")
