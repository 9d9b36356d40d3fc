"""archivesspace: recorded once, read back, planned and verified; against a strict ArchivesSpace over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dittohead.contract.worker import Done, Planned
from dittohead.model.errors import ItemError, TransientError
from dittohead.model.events import EventType
from dittohead.model.records import Use
from tests.archivesspace.conftest import object_there, pages, shown, the
from tests.support.archivesspace import ArchivesSpace, Call
from tests.support.archivesspace_job import AO, NAME, SECRETS, Job, furnish

R = "/repositories/2"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dittohead.workers.archivesspace.client.PAUSE_S", 0.001)


@pytest.fixture
async def site() -> AsyncIterator[ArchivesSpace]:
    async with ArchivesSpace().serving() as server:
        furnish(server)
        server.coming()
        server.public = {
            "/public/t.jpg": b"thumbnail",
            "/public/node/45": b"page",
            "/public/manifest.json": b"{}",
        }
        yield server


# -- recording -------------------------------------------------------------------------------


async def test_what_is_recorded(site: ArchivesSpace, tmp_path: Path) -> None:
    """Every field of the object, its components and its link; nothing else of the archival object changed."""
    before = site.shown(AO)
    job = Job.made(tmp_path, site.url, 2, access=shown(site))
    ctx = await job.run()
    object_ = the(site)
    assert object_["title"] == site.shown(AO)["display_string"]  # markup and all
    assert object_["file_versions"][0]["caption"] == "Correspondence with B. & C., 1951"
    assert (object_["publish"], object_["digital_object_type"]) == (False, "still_image")
    assert object_["linked_instances"] == [{"ref": AO}]
    thumbnail, page, manifest = object_["file_versions"]
    assert thumbnail["use_statement"] == "image-thumbnail"
    assert (thumbnail["is_representative"], thumbnail["xlink_show_attribute"]) == (True, "embed")
    assert (page["file_uri"], page["xlink_show_attribute"]) == (f"{site.url}/public/node/45", "new")
    assert [manifest[name] for name in ("file_format_name", "use_statement", "xlink_show_attribute")] == [
        "iiif",
        "text-json",
        "embed",
    ]
    assert all(one["publish"] for one in (thumbnail, page, manifest))

    first, second = pages(site)
    assert (first["component_id"], first["label"], first["publish"]) == (
        f"{NAME}_0001",
        f"{NAME}_0001.tif",
        False,
    )
    [version] = second["file_versions"]
    made = list(ctx.others["preserve"].locations())[1]
    assert {name: version[name] for name in version if name not in ("identifier", "jsonmodel_type")} == {
        "file_uri": f"s3://preservation/{NAME}/{NAME}_0002.jp2", "publish": False, "is_representative": False,
        "use_statement": "image-master", "file_format_version": "JPEG 2000 Part 1 (JP2)", "file_size_bytes": made.size,
        "checksum_method": "sha-256", "checksum": made.sha256, "caption": "8000 x 10001 px",
    }  # fmt: skip
    after = site.shown(AO)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    assert changed == {"instances", "lock_version", "last_modified_by"}
    [link] = after["instances"]
    assert link["digital_object"] == {"ref": object_["uri"]}

    places = {place.uri: place for place in ctx.locations}
    assert all(
        place.use == Use.RECORD and place.verified_by == "read back" and place.sha256
        for place in places.values()
    )
    assert places[site.url + AO].version == "lock_version 1"
    assert places[site.url + object_["uri"]].version == f"lock_version {object_['lock_version']}"
    assert places[site.url + first["uri"]].path == f"{NAME}_0001.tif".encode()
    assert len(places) == 2 + 3 + 2
    [event] = ctx.events
    assert event.type == EventType.METADATA
    assert site.sessions == {}  # logged out
    assert "not-to-be-seen" not in str(ctx.locations) + str(ctx.events) + job.ledger.read_text()


async def test_a_second_run_writes_nothing(site: ArchivesSpace, tmp_path: Path) -> None:
    """Neither a resumed step nor another job of the same folder posts anything."""
    await Job.made(tmp_path, site.url, 3, access=shown(site), events=True, publish=True).run()
    held, count = site.saved(), len(site.posts)
    assert count == 8  # object, link, components, agent, four events
    ctx = await Job(tmp_path).run()
    assert site.posts[count:] == []
    again = Job.made(tmp_path, site.url, 3, access=shown(site), job="01JOTHER", events=True, publish=True)
    await again.run()
    assert site.posts[count:] == []
    assert site.saved() == held
    assert len(ctx.locations) == 8


async def test_a_folder_that_is_for_access_alone(site: ArchivesSpace, tmp_path: Path) -> None:
    """No step of masters was chosen: the object, its link and what the public sees; the masters come later."""
    job = Job.made(
        tmp_path / "a", site.url, 2, access=shown(site), masters=["not-chosen"], events=True, publish=True
    )
    await job.run()
    assert pages(site) == []
    assert (the(site)["digital_object_type"], the(site)["publish"]) == ("still_image", True)
    assert len(site.posts) == 2
    await Job.made(tmp_path / "b", site.url, 2, job="01JLATER").run()
    assert len(pages(site)) == 2
    assert the(site)["publish"] is True
    assert len(the(site)["file_versions"]) == 3


async def test_a_file_without_a_copy_is_told_of(site: ArchivesSpace, tmp_path: Path) -> None:
    """It was not an image, say: what was recorded does not pass for all there is."""
    ctx = await Job.made(tmp_path, site.url, ["1.tif", "notes.txt", ".DS_Store"]).run()
    assert (
        "1 component with 1 file version (without a copy, and so without a component: 1 file)"
        in ctx.events[0].detail
    )
    ctx = await Job.made(tmp_path, site.url, ["1.tif"], files=["*.tif"], job="01JOTHER").run()
    assert "without" not in ctx.events[0].detail


async def test_a_format_is_named_where_the_list_has_it(site: ArchivesSpace, tmp_path: Path) -> None:
    site.enums["file_version_file_format_name"].append("jp2")
    await Job.made(tmp_path, site.url, 1).run()
    [version] = pages(site)[0]["file_versions"]
    assert version["file_format_name"] == "jp2"
    assert "file_format_version" not in version


async def test_a_thousand_pages(site: ArchivesSpace, tmp_path: Path) -> None:
    """Calls grow by the lot, not by the page; order is that of people, not of letters."""
    job = Job.made(
        tmp_path, site.url, [f"box/p{n}.tif" for n in range(1, 1001)], component_id="{folder}/{stem}"
    )
    await job.preflight()
    site.calls.clear()
    await job.run()
    assert [page["label"] for page in pages(site)] == [f"p{n}.tif" for n in range(1, 1001)]
    assert len([call for call in site.calls if call.path.endswith("/children")]) == 5
    assert len(site.calls) <= 12 + 5 + 5 + 5  # and children, waypoints, lists
    site.calls.clear()
    await job.run()
    assert site.posts == []
    assert len(site.calls) <= 9 + 5 + 5


async def test_order_is_kept_among_what_is_there(site: ArchivesSpace, tmp_path: Path) -> None:
    """New pages come after the one before them, even when later ones and others' are there already."""
    await Job.made(tmp_path / "a", site.url, [f"p{n}.tif" for n in (2, 5)]).run()
    site.add(
        f"{R}/digital_object_components/900",
        digital_object={"ref": the(site)["uri"]},
        component_id="theirs",
        label="t",
        publish=False,
        position=1,
    )
    await Job.made(tmp_path / "b", site.url, [f"p{n}.tif" for n in range(1, 8)]).run()
    own = [f"{NAME}_p{n}" for n in range(1, 8)]
    assert [page["component_id"] for page in pages(site)] == [*own[:4], "theirs", *own[4:]]


async def test_components_below_others_and_behind_the_first_waypoint_count(
    site: ArchivesSpace, tmp_path: Path
) -> None:
    """A page that staff have put into a chapter, or that is the 201st, is not created again."""
    await Job.made(tmp_path, site.url, [f"p{n}.tif" for n in range(1, 203)]).run()
    chapter = site.add(
        f"{R}/digital_object_components/900",
        digital_object={"ref": the(site)["uri"]},
        component_id="chapter",
        label="c",
        publish=False,
    )
    moved = pages(site)[4]["uri"]
    site.trees[the(site)["uri"], ""].remove(moved)
    site.trees[the(site)["uri"], chapter] = [moved]
    site.records[moved]["parent"] = {"ref": chapter}
    count = len(site.posts)
    await Job(tmp_path).run()
    assert site.posts[count:] == []


async def test_what_differs_is_brought_up_and_the_rest_stays(site: ArchivesSpace, tmp_path: Path) -> None:
    """Ours are corrected in place; captions, versions, fields and labels of others stay."""
    await Job.made(tmp_path, site.url, 2).run()
    uri = pages(site)[0]["uri"]
    record = site.shown(uri)
    record["file_versions"][0] |= {"checksum": "0" * 64, "publish": True, "caption": "better words"}
    record["file_versions"].insert(0, {"file_uri": "file:///shelf", "publish": True, "caption": "ours too"})
    record |= {"label": "recto", "notes": [{"type": "note", "content": ["x"], "persistent_id": "p"}]}
    site.save(uri, "digital_object_component", record, "colleague")
    count = len(site.posts)
    ctx = await Job(tmp_path).run()
    assert site.posts[count:] == [f"POST {uri}"]
    after = site.shown(uri)
    shelf, master = after["file_versions"]
    assert (shelf["caption"], shelf["publish"]) == ("ours too", True)
    assert master["checksum"] == next(iter(ctx.others["preserve"].locations())).sha256
    assert (master["publish"], master["caption"]) == (False, "better words")
    assert (after["label"], after["notes"]) == ("recto", record["notes"])


async def test_a_page_that_is_brought_up_stays_in_its_place(site: ArchivesSpace, tmp_path: Path) -> None:
    """A colleague puts a title page before it, between our look and our save."""
    await Job.made(tmp_path, site.url, 2).run()
    first, second = pages(site)
    second["file_versions"][0]["checksum"] = "0" * 64
    site.save(second["uri"], "digital_object_component", second, "colleague")

    async def add(call: Call) -> None:
        title = {
            "digital_object": {"ref": the(site)["uri"]},
            "component_id": "title",
            "label": "t",
            "publish": False,
        }
        site.add(f"{R}/digital_object_components/900", position=0, **title)

    site.before.append((f"POST {second['uri']}", add))
    await Job(tmp_path).run()
    assert [page["component_id"] for page in pages(site)] == [
        "title",
        first["component_id"],
        second["component_id"],
    ]
    assert pages(site)[2]["file_versions"][0]["checksum"] != "0" * 64


async def test_access_is_replaced_and_others_are_kept(site: ArchivesSpace, tmp_path: Path) -> None:
    """A later job's page takes the place of an earlier one's; a colleague's representative stays the only one."""
    theirs = [
        {"file_uri": "https://elsewhere.example.org/a", "publish": True, "use_statement": "image-service"},
        {
            "file_uri": "https://elsewhere.example.org/b",
            "publish": True,
            "is_representative": True,
            "use_statement": "image-thumbnail",
        },
    ]
    object_there(site, file_versions=theirs)
    await Job.made(tmp_path, site.url, 1, access=shown(site)).run()
    found = the(site)["file_versions"]
    assert [one["use_statement"] for one in found] == [
        "image-thumbnail",
        "image-service",
        "text-json",
        "image-service",
        "image-thumbnail",
    ]
    assert [one["is_representative"] for one in found] == [False, False, False, False, True]
    site.public["/public/node/99"] = b"another page"
    new = [("page", f"{site.url}/public/node/99"), ("thumbnail", f"{site.url}/public/t.jpg")]
    await Job.made(tmp_path, site.url, 1, access=new, job="01JLATER").run()
    uris = [one["file_uri"] for one in the(site)["file_versions"]]
    assert uris == [
        f"{site.url}/public/t.jpg",
        f"{site.url}/public/node/99",
        f"{site.url}/public/manifest.json",  # for which the later job has nothing
        *(one["file_uri"] for one in theirs),
    ]


async def test_another_steps_manifest_does_not_replace_a_page(site: ArchivesSpace, tmp_path: Path) -> None:
    """Only what is there for the same is replaced."""
    await Job.made(tmp_path, site.url, 1, access=shown(site)[1:]).run()
    await Job.made(tmp_path, site.url, 1, access=shown(site)[:1], job="01JLATER").run()
    assert sorted(one["use_statement"] for one in the(site)["file_versions"]) == [
        "image-service",
        "image-thumbnail",
        "text-json",
    ]


async def test_two_jobs_of_one_object_at_once(site: ArchivesSpace, tmp_path: Path) -> None:
    """Preservation and access come together: one object, one link, one component of each file."""
    one = Job.made(tmp_path / "a", site.url, 3)
    two = Job.made(tmp_path / "b", site.url, 3, masters=[], access=shown(site), job="01JACCESS")
    await asyncio.gather(one.run(), two.run())
    assert len(pages(site)) == 3
    assert len(the(site)["file_versions"]) == 3
    assert the(site)["linked_instances"] == [{"ref": AO}]


@pytest.mark.parametrize("path", ["digital_objects", r"digital_objects/\d+/children"])
async def test_what_another_job_created_first_is_not_ours(
    site: ArchivesSpace, tmp_path: Path, path: str
) -> None:
    """Between our look and our POST: the POST is refused, theirs is used, and undo leaves it to them."""
    ours = Job.made(tmp_path / "a", site.url, 3)
    theirs = Job.made(tmp_path / "b", site.url, 3, job="01JOTHER")

    async def first(call: Call) -> None:
        await theirs.run()

    site.before.append((rf"POST {R}/{path}", first))
    await ours.run()
    assert [call.status for call in site.calls if call.status == 400] == [400]
    assert len(pages(site)) == 3
    await ours.undo()
    assert len(pages(site)) == 3
    await theirs.undo()
    assert (f"{R}/digital_objects/" in str(list(site.records))) is (path != "digital_objects")


async def test_access_is_fetched_before_anything_is_written(site: ArchivesSpace, tmp_path: Path) -> None:
    """A page that the public cannot see is recorded nowhere."""
    job = Job.made(tmp_path, site.url, 1, access=[("page", f"{site.url}/public/missing")])
    with pytest.raises(TransientError, match="answers 404"):
        await job.run()
    assert site.posts == []
    await Job.made(
        tmp_path, site.url, 1, access=[("page", f"{site.url}/public/missing")], check_access=False
    ).run()
    assert the(site)["file_versions"][0]["file_uri"].endswith("/missing")


async def test_where_a_page_redirects_is_followed(site: ArchivesSpace, tmp_path: Path) -> None:
    """The address that was given is recorded; one that leads nowhere is not, and our session goes nowhere."""
    site.public |= {
        "/public/alias": b"-> node/45",
        "/public/round": b"-> /public/round",
        "/public/off": b"-> ftp://x/",
    }
    await Job.made(tmp_path / "a", site.url, 1, access=[("page", f"{site.url}/public/alias")]).run()
    assert the(site)["file_versions"][0]["file_uri"].endswith("/public/alias")
    for name, error, words in (
        ("round", TransientError, "again and again"), ("off", TransientError, "to nowhere"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            await Job.made(tmp_path / name, site.url, 1, access=[("page", f"{site.url}/public/{name}")]).run()
    with pytest.raises(ItemError, match="not an address that the public can open"):
        await Job.made(tmp_path / "s3", site.url, 1, access=[("page", "s3://bucket/page")]).run()


async def test_each_object_gets_its_own_page(site: ArchivesSpace, tmp_path: Path) -> None:
    """By the record that a manifest's maker names, or the file it was made of; what says neither is refused."""
    from dittohead.model.records import Output

    second = furnish(site, "X", f"{R}/archival_objects/8")
    names = [f"{NAME}-1.tif", "X-1.tif"]
    job = Job.made(
        tmp_path, site.url, names, pattern=r"(?P<object>.*)-\d+\.tif", name="mixed", access=shown(site)[1:2]
    )
    await job.preflight()
    with pytest.raises(ItemError, match="does not say to which of the 2 objects this page belongs"):
        await job.run()
    page, manifest = f"{site.url}/public/node/45", f"{site.url}/public/manifest.json"
    outputs = [
        Output(
            path=b"m",
            size=2,
            sha256="",
            detail={"use": "manifest", "uri": manifest, "object": "?", "ref": second},
        ),
        Output(path=b"p", size=2, sha256="", source=names[0].encode(), detail={"use": "page", "uri": page}),
    ]
    ctx = job.context()
    object.__setattr__(ctx.others["islandora"], "outputs", lambda: iter(outputs))
    object.__setattr__(ctx.others["islandora"], "locations", lambda: iter(()))
    await job.worker.run(ctx, job.options)
    assert [one["file_uri"] for one in the(site, "X")["file_versions"]] == [manifest]
    assert [one["file_uri"] for one in the(site)["file_versions"]] == [page]


async def test_what_an_output_says_is_published_is_compared(site: ArchivesSpace, tmp_path: Path) -> None:
    """The iiif step's manifest must be the one that was made."""
    from dittohead.model.records import Output
    from dittohead.workers.archivesspace.records import sha256

    job = Job.made(tmp_path, site.url, 1, access=[("page", f"{site.url}/public/node/45")])
    await job.preflight()
    for digest, fails in ((sha256(b"{}"), False), (sha256(b"other"), True)):
        ctx = job.context()
        detail = {"use": "manifest", "uri": f"{site.url}/public/manifest.json"}
        made = Output(path=b"manifest.json", size=2, sha256=digest, detail=detail)
        object.__setattr__(ctx.others["islandora"], "outputs", lambda made=made: iter([made]))
        if fails:
            with pytest.raises(TransientError, match="not what was made"):
                await job.worker.run(ctx, job.options)
        else:
            assert isinstance(await job.worker.run(ctx, job.options), Done)
            assert [one["use_statement"] for one in the(site)["file_versions"]] == [
                "image-service",
                "text-json",
            ]


# -- plan, verify, doctor --------------------------------------------------------------------


async def test_the_plan_is_what_is_done(site: ArchivesSpace, tmp_path: Path) -> None:
    """Every record, and no write; afterwards everything is kept."""
    job = Job.made(tmp_path, site.url, 2, access=shown(site))
    await job.preflight()

    async def plan() -> list[Planned]:
        return [one async for one in job.worker.plan(job.context(), job.options)]

    found = await plan()
    assert site.posts == []
    assert [(one.action, one.where) for one in found if one.action != "create"] == [("change", f"POST {AO}")]
    created = [one for one in found if one.action == "create"]
    assert created[0].where == f"POST {R}/digital_objects"
    assert [one.what for one in created if one.what.startswith("component")] == [
        f"component {NAME}_000{n} ({NAME}_000{n}.tif)" for n in (1, 2)
    ]
    await job.run()
    await job.preflight()
    assert {one.action for one in await plan()} == {"keep"}


async def test_verify(site: ArchivesSpace, tmp_path: Path) -> None:
    """What people add is not a fault; what they take away or change of ours is."""
    job = Job.made(tmp_path, site.url, 3, access=shown(site))
    ctx = await job.run()
    assert [said for said in await job.verify(ctx.locations) if not said[0]] == []
    first, second, third = pages(site)
    first["file_versions"].append({"file_uri": "https://elsewhere.example.org", "publish": True})
    site.save(first["uri"], "digital_object_component", first, "colleague")
    second["file_versions"][0]["file_uri"] = "s3://moved"
    site.save(second["uri"], "digital_object_component", second, "colleague")
    site.remove(third["uri"])
    object_ = the(site)
    object_["file_versions"].pop(1)
    site.save(object_["uri"], "digital_object", object_, "colleague")
    said = {
        uri.removeprefix(site.url): problem for ok, uri, problem in await job.verify(ctx.locations) if not ok
    }
    gone = [uri for uri in said if uri.startswith(object_["uri"] + "#")]
    assert len(gone) == 1
    assert "node%2F45" in gone[0]
    assert said == {
        second["uri"]: "says something else of its files now",
        third["uri"]: "is gone",
        gone[0]: "is no longer among the file versions",
    }


async def test_doctor(site: ArchivesSpace, tmp_path: Path) -> None:
    """Each permission and value, the version, and what to add where."""
    site.enums["file_version_use_statement"].remove("image-thumbnail")
    site.permissions["dittohead"] -= {"update_event_record", "delete_archival_record"}
    job = Job.made(tmp_path, site.url, 1, access=shown(site), events=True)

    async def doctor(job: Job) -> list[tuple[bool, str]]:
        return [one async for one in job.worker.doctor(job.options, SECRETS.__getitem__)]

    said = await doctor(job)
    assert said[0] == (True, f"{site.url}: ArchivesSpace v4.2.1")
    bad = [words for ok, words in said if not ok]
    assert len(bad) == 2
    assert "lacks update_event_record" in bad[0]
    assert 'add "image-thumbnail"' in bad[1]
    assert any("undo cannot delete" in words for _, words in said)
    assert any("JPEG 2000 is named in words" in words and 'add "jp2"' in words for _, words in said)
    assert site.posts == []
    assert (await doctor(Job.made(tmp_path, site.url, 1, repository=5)))[-1] == (
        False,
        "there is no repository /repositories/5",
    )
    site.users["dittohead"] = "changed"
    assert [ok for ok, _ in await doctor(job)] == [False]
