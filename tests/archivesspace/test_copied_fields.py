"""What a new digital object is given of the archival object's description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.archivesspace.conftest import object_there, the
from tests.support.archivesspace import ArchivesSpace
from tests.support.archivesspace_job import AO, Job

FIELDS = ("dates", "linked_agents", "subjects", "lang_materials", "notes", "restrictions", "extents")


@pytest.fixture
def described(site: ArchivesSpace) -> ArchivesSpace:
    """An archival object that has all of it, as the server gives it back."""
    site.records["/agents/people/1"] = {"uri": "/agents/people/1", "title": "Hale", "publish": True}
    site.records["/subjects/1"] = {"uri": "/subjects/1", "title": "Sun"}
    multi = {"jsonmodel_type": "note_multipart", "publish": True, "persistent_id": "a"}
    text = {"jsonmodel_type": "note_text", "publish": True}
    more: dict[str, Any] = {
        "extents": [{"portion": "whole", "number": "2", "extent_type": "linear_feet", "created_by": "x"}],
        "linked_agents": [{"role": "creator", "relator": "cre", "terms": [], "ref": "/agents/people/1"}],
        "subjects": [{"ref": "/subjects/1"}],
        "lang_materials": [
            {"language_and_script": {"language": "eng", "create_time": "x"}, "notes": []},
            {"notes": [{"type": "langmaterial", "content": ["in English"]}]},
        ],
        "notes": [
            {**multi, "type": "scopecontent", "subnotes": [{**text, "content": "<p>all</p>"}]},
            {
                **multi,
                "type": "accessrestrict",
                "label": "Access",
                "subnotes": [
                    {**text, "content": "by appointment"},
                    {**text, "publish": False, "content": "x"},
                ],
            },
            {**multi, "type": "odd", "subnotes": [{**text, "content": "not copied"}]},
        ],
        "dates": [{**site.records[AO]["dates"][0], "created_by": "staff", "lock_version": 3}],
    }
    site.records[AO] |= more
    site.records["/repositories/2/resources/1"]["restrictions"] = True
    return site


def given(site: ArchivesSpace) -> set[str]:
    return {name for name in FIELDS if the(site).get(name)}


@pytest.mark.parametrize(
    ("option", "fields"),
    [
        (False, set()),
        (True, set(FIELDS) - {"extents"}),
        (["extents", "dates"], {"extents", "dates"}),
        (["agents"], {"linked_agents"}),
        ([], set()),
    ],
)
async def test_what_is_copied(
    described: ArchivesSpace, tmp_path: Path, option: Any, fields: set[str]
) -> None:
    """A second run changes nothing, and undo takes it all out: what the server adds to notes is not ours."""
    before = described.state()
    job = Job.made(tmp_path, described.url, 2, copy_description=option)
    await job.run()
    assert given(described) == fields
    count = len(described.posts)
    await Job.made(tmp_path, described.url, 2, copy_description=option, job="01JAGAIN").run()
    assert described.posts[count:] == []
    assert all(gone for gone, _, _ in await job.undo())
    assert described.state() == before


async def test_how_it_is_copied(described: ArchivesSpace, tmp_path: Path) -> None:
    """In the shapes of a digital object; conditions of the nearest level that has any; texts with their markup."""
    await Job.made(tmp_path, described.url, 1, copy_description=True).run()
    made = the(described)
    assert made["dates"] == [
        {
            "jsonmodel_type": "date",
            "label": "creation",
            "expression": "1951",
            "begin": "1951",
            "date_type": "single",
        }
    ]
    assert made["linked_agents"] == [{"role": "creator", "relator": "cre", "ref": "/agents/people/1"}]
    assert made["subjects"] == [{"ref": "/subjects/1"}]
    assert [one["language_and_script"]["language"] for one in made["lang_materials"]] == ["eng"]
    assert made["restrictions"] is True
    assert [(one["type"], one.get("label"), one["content"]) for one in made["notes"]] == [
        ("accessrestrict", "Access", ["by appointment"]),
        ("userestrict", None, ["of the <title>bundle</title>"]),
        ("summary", None, ["<p>all</p>"]),
    ]


async def test_what_is_there_is_left_as_it_is(described: ArchivesSpace, tmp_path: Path) -> None:
    """Staff describe their digital objects themselves."""
    object_there(described)
    await Job.made(tmp_path, described.url, 1, copy_description=True).run()
    assert given(described) == set()
