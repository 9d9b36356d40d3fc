"""undo: what a job put in goes, what others made of it stays; in the order that leaves nothing dangling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dittohead.model.errors import TargetError
from dittohead.workers.archivesspace.undo import restore
from tests.archivesspace.conftest import shown
from tests.support.archivesspace import ArchivesSpace, Call
from tests.support.archivesspace_job import AO, NAME, Job

R = "/repositories/2"


def object_of(site: ArchivesSpace) -> str:
    [uri] = [uri for uri, one in site.records.items() if one.get("digital_object_id") == NAME]
    return uri


def edited(site: ArchivesSpace, uri: str, kind: str, **fields: Any) -> None:
    """Save a record as a colleague would."""
    site.save(uri, kind, {**site.shown(uri), **fields}, "colleague")


async def test_everything_goes(site: ArchivesSpace, tmp_path: Path) -> None:
    """And the dry run says the same and does nothing."""
    before = site.state()
    job = Job.made(tmp_path, site.url, 3, access=shown(site))
    await job.run()
    held = site.saved()
    planned = await job.undo(dry_run=True)
    assert site.saved() == held
    assert await job.undo() == planned
    assert all(gone for gone, _, _ in planned)
    assert len(planned) == 3 + 2
    assert site.state() == before
    assert await job.undo() == []  # again: nothing is left to be said


async def test_a_large_object_goes_in_one_request(site: ArchivesSpace, tmp_path: Path) -> None:
    """With all its components, unless one of them is another's."""
    before = site.state()
    job = Job.made(tmp_path, site.url, 450)
    await job.run()
    held, object_ = site.saved(), object_of(site)
    site.calls.clear()
    assert len(await job.undo()) == 450 + 2
    assert site.posts == [f"POST {AO}", f"DELETE {object_}"]
    assert site.state() == before
    site.hold(held)
    site.add(
        f"{R}/digital_object_components/900", digital_object={"ref": object_}, label="theirs", publish=False
    )
    said = await job.undo()
    assert [words for gone, _, words in said if not gone] == [
        f"digital object {NAME} holds components that stay: it stays"
    ]
    assert site.trees[object_, ""] == [f"{R}/digital_object_components/900"]
    assert site.shown(object_)["linked_instances"] == [{"ref": AO}]


async def test_what_was_changed_since_stays_where_people_find_it(site: ArchivesSpace, tmp_path: Path) -> None:
    """A component with a colleague's note keeps its object, and that its link."""
    job = Job.made(tmp_path, site.url, 3, access=shown(site))
    await job.run()
    object_ = object_of(site)
    second = site.trees[object_, ""][1]
    edited(site, second, "digital_object_component", notes=[{"type": "note", "content": ["seen"]}])
    planned = await job.undo(dry_run=True)
    said = await job.undo()
    assert said == planned
    kept = {uri.removeprefix(site.url): words for gone, uri, words in said if not gone}
    assert kept == {
        second: f"component {NAME}_0002 was changed since: it stays",
        object_: f"digital object {NAME} holds components that stay: it stays",
    }
    assert site.trees[object_, ""] == [second]
    assert site.shown(object_)["linked_instances"] == [{"ref": AO}]


async def test_an_object_that_was_changed_stays(site: ArchivesSpace, tmp_path: Path) -> None:
    job = Job.made(tmp_path, site.url, 2)
    await job.run()
    object_ = object_of(site)
    edited(site, object_, "digital_object", title="A better title")
    said = await job.undo()
    assert [words for gone, _, words in said if not gone] == [
        f"digital object {NAME} was changed since: it stays"
    ]
    assert site.shown(object_)["linked_instances"] == [{"ref": AO}]
    assert site.trees.get((object_, ""), []) == []


async def test_a_later_job_is_undone_to_the_earlier_one(site: ArchivesSpace, tmp_path: Path) -> None:
    """Another bucket's copies are taken out of the components again, and the replaced page comes back."""
    await Job.made(tmp_path, site.url, 3, access=shown(site)).run()
    before = site.state()
    site.public["/public/node/46"] = b"new"
    new = [("page", f"{site.url}/public/node/46"), ("thumbnail", f"{site.url}/public/t.jpg")]
    later = Job.made(tmp_path, site.url, 4, access=new, bucket="second", job="01JLATER", publish=True)
    await later.run()
    object_ = object_of(site)
    assert [len(site.records[uri]["file_versions"]) for uri in site.trees[object_, ""]] == [2, 2, 2, 1]
    assert site.records[object_]["publish"] is True
    planned = await later.undo(dry_run=True)
    said = await later.undo()
    assert said == planned
    assert site.state() == before
    assert all(gone for gone, _, _ in said)


async def test_only_ours_are_taken_out_of_a_component(site: ArchivesSpace, tmp_path: Path) -> None:
    """Versions that others added since, or changed, stay."""
    await Job.made(tmp_path, site.url, 2).run()
    later = Job.made(tmp_path, site.url, 2, bucket="second", job="01JLATER")
    await later.run()
    first, second = site.trees[object_of(site), ""]
    versions = [*site.shown(first)["file_versions"], {"file_uri": "file:///shelf", "publish": False}]
    edited(site, first, "digital_object_component", file_versions=versions)
    versions = site.shown(second)["file_versions"]
    versions[1]["caption"] = "in words of theirs"
    edited(site, second, "digital_object_component", file_versions=versions)
    await later.undo()
    assert [one["file_uri"].split("/")[2] for one in site.shown(first)["file_versions"]] == [
        "preservation",
        "",
    ]
    assert [one.get("caption") for one in site.shown(second)["file_versions"]][1] == "in words of theirs"


async def test_it_says_what_it_lacks(site: ArchivesSpace, tmp_path: Path) -> None:
    """And has removed nothing then."""
    job = Job.made(tmp_path, site.url, 1)
    await job.run()
    held = site.saved()
    site.permissions["dittohead"] -= {"delete_archival_record"}
    with pytest.raises(
        TargetError, match=r"lacks delete_archival_record \(.*\); nothing was removed.*as long as it takes"
    ):
        await job.undo()
    assert site.saved() == held


async def test_what_others_created_under_our_names_stays(site: ArchivesSpace, tmp_path: Path) -> None:
    """The ledger says what was meant, before it was sent; a colleague's record of that id is not ours."""
    job = Job.made(tmp_path, site.url, 1)
    await job.run()
    uri = object_of(site)
    site.remove(uri)
    theirs = site.add(f"{R}/digital_objects/900", digital_object_id=NAME, title="By hand", publish=False)
    said = await job.undo()
    assert theirs in site.records
    assert [(gone, words) for gone, _, words in said] == [
        (False, f"digital object {NAME} was changed since: it stays")
    ]


async def test_nothing_was_done(site: ArchivesSpace, tmp_path: Path) -> None:
    """Without a ledger there is nothing to undo, and nobody is asked."""
    assert await Job.made(tmp_path, site.url, 1).undo() == []
    assert site.calls == []


def version(uri: str, **more: Any) -> dict[str, Any]:
    return {"jsonmodel_type": "file_version", "file_uri": uri, "publish": True, **more}


@pytest.mark.parametrize(
    ("before", "after", "now", "then"),
    [
        ("a", "ab", "ab", "a"),
        ("a", "ba", "bac", "ac"),
        ("ab", "cb", "cb", "ab"),
        ("ab", "cb", "cbd", "bda"),
        ("a", "ab", "a", "a"),
        ("a", "ab", "", ""),
        ("", "a", "b", "b"),
    ],
)  # fmt: skip
def test_file_versions_are_restored_one_by_one(before: str, after: str, now: str, then: str) -> None:
    """Each letter is a file version: what was added goes, what was replaced returns, what others did stays."""
    record = {"file_versions": [version(uri, identifier="9") for uri in now]}
    line = {"before": [version(uri) for uri in before], "after": [version(uri) for uri in after]}
    restore(record, line)
    assert "".join(one["file_uri"] for one in record["file_versions"]) == then


async def test_a_change_that_was_refused_is_not_undone(site: ArchivesSpace, tmp_path: Path) -> None:
    """A colleague took the old page out while we were replacing it: undo does not bring it back."""
    await Job.made(tmp_path, site.url, 1, access=[("page", f"{site.url}/public/node/45")]).run()
    object_ = object_of(site)

    async def save(call: Call) -> None:
        edited(site, object_, "digital_object", file_versions=[])

    site.before.append((rf"POST {object_}", save))
    site.public["/public/node/46"] = b"new"
    later = Job.made(tmp_path, site.url, 1, access=[("page", f"{site.url}/public/node/46")], job="01JLATER")
    await later.run()
    assert [one["file_uri"][-2:] for one in site.shown(object_)["file_versions"]] == ["46"]
    await later.undo()
    assert site.shown(object_)["file_versions"] == []
