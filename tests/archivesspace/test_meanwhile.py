"""What was looked up is no longer so: between the look and the writing days may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from dittohead.model.errors import ItemError
from tests.archivesspace.conftest import object_there, pages, the
from tests.support.archivesspace import ArchivesSpace
from tests.support.archivesspace_job import AO, NAME, Job, furnish


@pytest.mark.parametrize("change", ["renamed", "swapped", "deleted"])
async def test_the_archival_object_is_another_by_then(
    site: ArchivesSpace, tmp_path: Path, change: str
) -> None:
    """Its files are not put under what now has another name; a new look finds the right one."""
    job = Job.made(tmp_path / "x", site.url, 2)
    await job.preflight()
    if change == "deleted":
        del site.records[AO]
    else:
        site.records[AO]["component_id"] = "HBF_009_09"
    if change != "renamed":
        furnish(site, NAME, "/repositories/2/archival_objects/8")
    with pytest.raises(ItemError, match=f'was "{NAME}" is.*rerun {job.spec["job"]}'):
        await job.run()
    assert site.posts == []
    if change == "swapped":
        await Job.made(tmp_path / "x", site.url, 2, job="01JAGAIN").run()
        assert len(pages(site)) == 2


@pytest.mark.parametrize("there", [False, True])
async def test_the_digital_object_comes_or_goes_meanwhile(
    site: ArchivesSpace, tmp_path: Path, *, there: bool
) -> None:
    if there:
        uri = object_there(site)
    job = Job.made(tmp_path / "x", site.url, 2)
    await job.preflight()
    if there:
        del site.records[uri]
        site.records[AO]["instances"] = []
    else:
        object_there(site)
    await job.run()
    assert [one["ref"] for one in the(site)["linked_instances"]] == [AO]
    assert len(pages(site)) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'"file"x,component_id\n1.tif,A', "line 1"),
        (b'"file,component_id\n1.tif,A', "line"),
        (b'file,component_id\n"1.tif"x,A', "line 2"),
        (b"file,component_id\n\xe4.tif,A", "not UTF-8"),
        ("file,component_id\n1.tif,A".encode("utf-16"), '"A" is not there'),  # it is read
        (b"file;component_id\n1.tif;A", '"A" is not there'),
        (b"file:component_id\n1.tif:A", "first line must name"),
        (b"file,component_id\n1.tif,A\n1.tif,B", "a second object"),
        (b"file,component_id\n1.tif,=A", '"=A" is not there'),
        (b"file,component_id\n1.tif," + b"A" * 200_000, "line 2: field larger"),
        (b"f" * 200_000 + b",component_id\n1.tif,A", "line 1: field larger"),
        (b"file,component_id\n\0,A", "1.tif"),
        (b"", "first line must name"),
    ],
)
async def test_a_list_that_is_none(site: ArchivesSpace, tmp_path: Path, text: bytes, said: str) -> None:
    """Each is told with its line, and nothing is taken for a defect of ours."""
    job = Job.made(tmp_path / "x", site.url, ["1.tif"], map="objects.csv")
    (tmp_path / "x" / NAME / "objects.csv").write_bytes(text)
    with pytest.raises(ItemError) as error:
        await job.preflight()
    assert said in str(error.value)


async def test_a_copy_at_a_new_place_makes_the_old_one_no_fault(site: ArchivesSpace, tmp_path: Path) -> None:
    """The target has moved and the folder was done again: both jobs are what they say, until one is changed."""
    first = Job.made(tmp_path / "x", site.url, 2, job="01JA")
    old = (await first.run()).locations
    second = Job.made(tmp_path / "x", site.url, 2, job="01JB", bucket="moved")
    new = (await second.run()).locations
    for job, places in ((first, old), (second, new)):
        assert [problem for ok, _, problem in await job.verify(places) if not ok] == []
    uri = pages(site)[0]["uri"]
    [version] = [one for one in site.records[uri]["file_versions"] if "//moved/" in one["file_uri"]]
    version["checksum"] = "0" * 64
    assert [ok for ok, _, _ in await first.verify(old)] == [True] * len(old)
    assert [where for ok, where, _ in await second.verify(new) if not ok] == [site.url + uri]
