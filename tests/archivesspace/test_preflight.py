"""What is found before anything is written: the objects, and what stands against recording them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dittohead.model.description import Described
from dittohead.model.errors import ItemError, StepError, TargetError
from tests.archivesspace.conftest import object_there, pages, shown, the
from tests.support.archivesspace import ArchivesSpace
from tests.support.archivesspace_job import AO, NAME, Job, furnish

R = "/repositories/2"


async def refusal(job: Job, site: ArchivesSpace, error: type[StepError] = ItemError) -> str:
    """Return why preflight refuses; nothing was written."""
    with pytest.raises(error) as raised:
        await job.preflight()
    assert site.posts == []
    return str(raised.value)


async def test_what_is_described(site: ArchivesSpace, tmp_path: Path) -> None:
    """Any level structure, markup taken out, and the nearest level's rights, not the collection's."""
    site.extra[AO]["ark_name"] = {"current": "https://x.org/ark:/99999/f1"}
    site.records["/agents/people/1"] = {
        "uri": "/agents/people/1",
        "title": "Hale, <i>G.</i> E.",
        "publish": True,
        "display_name": {"authority_id": "https://viaf.org/1"},
    }
    site.records[AO]["linked_agents"] = [{"role": "creator", "relator": "cre", "ref": "/agents/people/1"}]
    job = Job.made(tmp_path, site.url, 1, public_url="https://public.example.org")
    [one] = Described.model_validate((await job.preflight())["described"]).objects
    found = one.description
    assert one.files is None
    assert (found.title, found.identifier, found.ref) == ("Correspondence with B. & C., 1951", NAME, AO)
    assert found.rights == "of the bundle"
    assert [(level.level, level.title) for level in found.ancestors] == [
        ("fonds", "The Hale Papers"),
        ("bundle", "Letters"),
    ]
    assert found.ancestors[0].identifier == "HBF"
    assert (found.publisher, found.published, found.abstract) == ("Institute Archives", True, "About them.")
    assert [(who.name, who.role, who.uri) for who in found.creators] == [
        ("Hale, G. E.", "cre", "https://viaf.org/1")
    ]
    assert found.other_identifiers == ("https://x.org/ark:/99999/f1",)
    assert found.page == "https://public.example.org" + AO


async def test_several_objects_in_one_folder(site: ArchivesSpace, tmp_path: Path) -> None:
    """A pattern gives each file to its object; ids are looked up together, whatever characters they hold."""
    odd = "A&B; 1+2%_ö"
    furnish(site, odd, f"{R}/archival_objects/8", title="Second")
    names = [f"{NAME}-1.tif", f"{NAME}-2.tif", f"{odd}-1.tif"]
    job = Job.made(tmp_path, site.url, names, pattern=r"(?P<object>.*)-\d+\.tif", name="mixed")
    facts = await job.preflight()
    assert [one["files"] for one in facts["objects"]] == [[names[2]], names[:2]] or [
        one["files"] for one in facts["objects"]
    ] == [names[:2], [names[2]]]
    assert len([call for call in site.calls if "find_by_id/archival_objects" in call.path]) == 1
    await job.run()
    assert [page["label"] for page in pages(site)] == names[:2]
    assert [page["label"] for page in pages(site, odd)] == names[2:]
    described = Described.model_validate(facts["described"])
    of = described.of(names[2].encode())
    assert of is not None
    assert of.description.title == "Second, 1951"


async def test_a_list_of_objects(site: ArchivesSpace, tmp_path: Path) -> None:
    """A CSV as Excel writes it; the list itself gets no component."""
    furnish(site, "X", f"{R}/archival_objects/8")
    job = Job.made(tmp_path, site.url, ["a.tif", "b.tif"], map="objects.csv", name="mixed")
    (tmp_path / "mixed" / "objects.csv").write_bytes(
        f"\ufefffile,component_id\r\na.tif,{NAME}\r\nb.tif,X\r\n".encode()
    )
    await job.run()
    assert [page["label"] for page in pages(site)] == ["a.tif"]
    assert [page["label"] for page in pages(site, "X")] == ["b.tif"]
    job.facts.unlink()
    (tmp_path / "mixed" / "objects.csv").write_text("file,component_id\na.tif,X\nc.tif,X\n")
    with pytest.raises(
        ItemError, match=r"lists c\.tif, which the folder does not hold; it does not list b\.tif"
    ):
        await job.preflight()


async def test_many_ids_take_few_requests(site: ArchivesSpace, tmp_path: Path) -> None:
    ids = [f"ID-{n:04}" for n in range(300)]
    for n, id_ in enumerate(ids):
        furnish(site, id_, f"{R}/archival_objects/{1000 + n}")
    job = Job.made(
        tmp_path, site.url, [f"{id_}.tif" for id_ in ids], pattern=r"(?P<object>.*)\.tif", name="many"
    )
    facts = await job.preflight()
    assert len(facts["objects"]) == 300
    finds = [call for call in site.calls if "find_by_id" in call.path]
    assert 2 < len(finds) <= 6 * 2
    assert all(len(call.query) < 301 for call in finds)


async def test_missing_and_ambiguous_are_all_named(site: ArchivesSpace, tmp_path: Path) -> None:
    furnish(site, "TWICE", f"{R}/archival_objects/8")
    furnish(site, "TWICE", f"{R}/archival_objects/9")
    names = ["NONE-1.tif", "TWICE-1.tif", f"{NAME.lower()}-1.tif", "GONE-1.tif"]
    said = await refusal(
        Job.made(tmp_path, site.url, names, pattern=r"(?P<object>.*)-\d+\.tif", name="m"), site
    )
    for words in (
        '"NONE" is not there',
        '"GONE"',
        f'"{NAME.lower()}" is not there, but {NAME} ({AO}) is',
        f'"TWICE" is {R}/archival_objects/8 and {R}/archival_objects/9',
    ):
        assert words in said


@pytest.mark.parametrize("by", ["ref_id", "ark"])
async def test_by_other_identifiers(site: ArchivesSpace, tmp_path: Path, by: str) -> None:
    site.records[AO]["ref_id"] = "abc"
    site.extra[AO]["ark_name"] = {"current": "https://x.org/ark:/99999/f1"}
    find = {"ref_id": "abc", "ark": "ark:/99999/f1"}[by]
    job = Job.made(tmp_path, site.url, 1, by=by, find=find, digital_object_id="DO-1")
    await job.run()
    assert the(site, "DO-1")["linked_instances"] == [{"ref": AO}]


async def test_what_stands_against_recording_is_found_first(site: ArchivesSpace, tmp_path: Path) -> None:
    """All of it at once, each with what to do."""
    site.enums["file_version_use_statement"].remove("image-master")
    furnish(site, "OTHER", f"{R}/archival_objects/8")
    taken = object_there(site, to=(f"{R}/archival_objects/8",))
    site.records[AO]["publish"] = False
    said = await refusal(
        Job.made(tmp_path, site.url, 1, access=shown(site), staff_url="https://staff.example.org"), site
    )
    assert (
        f'the digital object id "{NAME}" is taken by {taken}, which belongs to {R}/archival_objects/8' in said
    )
    assert 'add "image-master" to "File Version Use Statement" (file_version_use_statement)' in said
    assert "https://staff.example.org/enumerations" in said
    assert "is not published" in said


async def test_links_that_are_there(site: ArchivesSpace, tmp_path: Path) -> None:
    """Twice the same is refused; another one is refused, used or added to."""
    other = object_there(site, "THEIRS")
    assert "set linked: use (where there is one) or add" in await refusal(
        Job.made(tmp_path, site.url, 1), site
    )
    held = site.saved()
    await Job.made(tmp_path / "use", site.url, 1, linked="use").run()
    assert [page["component_id"] for page in pages(site, "THEIRS")] == [f"{NAME}_0001"]
    site.restore(held)
    await Job.made(tmp_path / "add", site.url, 1, linked="add").run()
    assert [one["digital_object"]["ref"] for one in site.shown(AO)["instances"]] == [other, the(site)["uri"]]
    site.restore(held)
    old = site.records[AO]
    site.save(AO, "archival_object", {**old, "instances": old["instances"] * 2}, "staff")
    assert f"linked to {other} 2 times" in await refusal(Job.made(tmp_path, site.url, 1, linked="use"), site)


async def test_ids_of_components_must_differ(site: ArchivesSpace, tmp_path: Path) -> None:
    """Before anything is written; capitals do not tell them apart."""
    said = await refusal(Job.made(tmp_path, site.url, ["a/P1.tif", "b/p1.tif", "c.tif"]), site)
    assert f"b/p1.tif and a/P1.tif ({NAME}_p1)" in said
    await Job.made(
        tmp_path / "x",
        site.url,
        ["a/1.tif", "a/1.txt", "b/1.tif"],
        component_id="{folder}_{stem}",
        files=["*.TIF"],
    ).run()
    assert [page["component_id"] for page in pages(site)] == ["a_1", "b_1"]


async def test_permissions_and_repository(site: ArchivesSpace, tmp_path: Path) -> None:
    site.permissions["dittohead"] -= {"update_resource_record"}
    said = await refusal(Job.made(tmp_path, site.url, 1), site, TargetError)
    assert 'lacks update_resource_record ("create/update resources") in /repositories/2' in said
    assert (await Job.made(tmp_path, site.url, 1, write=False).preflight())["objects"] == []


async def test_write_false_only_looks(site: ArchivesSpace, tmp_path: Path) -> None:
    job = Job.made(tmp_path, site.url, 1, write=False)
    ctx = await job.run()
    assert site.posts == []
    assert ctx.locations == []
    assert (
        Described.model_validate(json.loads(job.facts.read_text())["described"]).objects[0].description.ref
        == AO
    )
