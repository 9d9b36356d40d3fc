"""islandora, against a simulator as strict as a site."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dittohead.contract.worker import Done, Made
from dittohead.model.description import Described, Description
from dittohead.model.errors import ItemError, Superseded, TargetError, TransientError
from dittohead.model.records import Output
from dittohead.workers.islandora.sign_in import RefusedSignIns
from tests.support import islandora_rules
from tests.support.context import LoneContext, source_of
from tests.support.islandora import Islandora, served
from tests.support.islandora_rig import KNOWN, ORIGINAL, SERVICE, THUMBNAIL, Rig
from tests.support.islandora_state import PASSWORD, Fault
from tests.support.trees import tree


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with served(Islandora()) as site:
        yield Rig(tmp_path, site)


async def rigged(rig: Rig, files: dict[str, Any]) -> Rig:
    """Return a rig with another folder at the same site."""
    return Rig(rig.base / "other", rig.site, files)


# -- what is made --------------------------------------------------------------------------------


async def test_a_folder_becomes_an_object_with_its_pages_in_natural_order(rig: Rig) -> None:
    """Page 10 is the third of three, and every file is what the folder holds."""
    result = await rig.run()
    nid = rig.site.nid("GEH_1_2")
    assert rig.object["title"] == [{"value": "Letters of the year 1951"}]
    assert rig.object["field_member_of"] == [{"target_id": rig.collection}]
    assert rig.object["field_model"] == [{"target_id": rig.site.tid("https://schema.org/Book")}]
    assert rig.object["field_edtf_date_created"] == [{"value": "1951-03/1951-08"}]
    assert rig.object["field_rights"] == [{"value": "In copyright"}]
    assert rig.object["field_identifier"] == [{"value": "/repositories/2/archival_objects/7"}]
    pages = rig.site.pages(nid)
    assert [page["field_local_identifier"][0]["value"] for page in pages] == [
        "GEH_1_2_1",
        "GEH_1_2_2",
        "GEH_1_2_10",
    ]
    assert [page["field_weight"][0]["value"] for page in pages] == [1, 2, 3]
    assert [page["title"][0]["value"] for page in pages][2] == "Letters of the year 1951, page 3"
    stored = {rig.site.files[one["fid"]]["data"] for one in rig.media()}
    assert stored == {b"image 1", b"image 2", b"image 10"}
    assert {one["alt"] for one in rig.media()} == {f"Letters of the year 1951, page {n}" for n in (1, 2, 3)}
    assert isinstance(result, Done)
    assert "4 nodes created, 3 files sent" in result.detail


async def test_every_file_sent_has_a_location_that_the_site_vouches_for(rig: Rig) -> None:
    """And the page and the manifest have theirs; the alias is what the site says."""
    await rig.run()
    sent = [place for place in rig.ctx.locations if not place.use]
    assert {place.path for place in sent} == {b"GEH_1_2_1.jpg", b"GEH_1_2_2.jpg", b"GEH_1_2_10.jpg"}
    assert {place.verified_by for place in sent} == {"sha256 reported by the site"}
    assert all(
        place.sha256 == hashlib.sha256((rig.payload / place.path.decode()).read_bytes()).hexdigest()
        for place in sent
    )
    nid = rig.site.nid("GEH_1_2")
    assert rig.uses() == {
        "page": f"{rig.site.base}/node/{nid}",
        "manifest": f"{rig.site.base}/node/{nid}/book-manifest",
    }
    rig.site.aliases[nid] = "/letters/größe"
    await rig.again()
    assert rig.uses()["page"] == f"{rig.site.base}/letters/gr%C3%B6%C3%9Fe"


async def test_one_image_becomes_a_node_of_its_own_unless_it_is_to_be_a_page(rig: Rig) -> None:
    """The model follows the number, or the option."""
    one = await rigged(rig, {"a.tif": "x"})
    one.description = Description(identifier="MAP_1", title="A map")
    one.ctx = one.job()
    await one.run(collection=f"node/{rig.collection}")
    node = one.site.nodes[one.site.nid("MAP_1")]
    assert node["field_model"] == [{"target_id": one.site.tid("http://purl.org/coar/resource_type/c_c513")}]
    assert len(one.site.nodes) == 3  # two collections, the map
    assert one.uses()["manifest"].endswith("/manifest")
    two = await rigged(rig, {"a.tif": "x"})
    two.description = Description(identifier="MAP_2", title="A map")
    two.ctx = two.job()
    await two.run(model="paged", collection=f"node/{rig.collection}")
    assert [page["field_local_identifier"][0]["value"] for page in two.site.pages(two.site.nid("MAP_2"))] == [
        "MAP_2_a"
    ]
    with pytest.raises(ItemError, match="3 images, and model is image"):
        await rig.run(model="image", collection=f"node/{rig.collection}")


@pytest.mark.parametrize("told", [True, False])
async def test_long_titles_rights_and_extents_are_kept_whole(rig: Rig, told: bool) -> None:
    """255 characters are all that a title takes; where a field's kind is not told, a note takes the rest."""
    long = "A very long title " * 20
    rig.site.actions = told
    rig.description = Description(
        identifier="GEH_1_2", title=long, rights="No " * 100, extents=("3 pages", "many " * 60)
    )
    rig.ctx = rig.job()
    await rig.run()
    title = rig.object["title"][0]["value"]
    assert len(title) <= 255
    assert title.endswith("…")
    assert rig.object["field_full_title"][0]["value"] == long.strip()
    notes = [note["value"] for note in rig.object["field_note"]]
    assert notes == ["Extent: " + "many " * 60] + ([] if told else ["Rights: " + "No " * 100])
    assert rig.object.get("field_rights") == ([{"value": "No " * 100}] if told else None)
    assert rig.object["field_extent"] == [{"value": "3 pages"}]
    assert all(len(page["title"][0]["value"]) <= 255 for page in rig.site.pages(rig.site.nid("GEH_1_2")))
    assert await rig.again(update="all") == []


async def test_what_is_derived_of_the_old_words_goes_with_them(rig: Rig) -> None:
    """With update: all; what people wrote into the same fields stays, and undo gives everything back."""
    rig.site.actions = False
    rig.description = Description(identifier="GEH_1_2", title="A very long title " * 20, rights="No " * 100)
    rig.ctx = rig.job()
    await rig.run()
    rig.object["field_note"].append({"value": "Rights: see the file", "format": "basic_html"})
    before = {name: rig.object[name] for name in ("title", "field_full_title", "field_note")}
    rig.description = Description(identifier="GEH_1_2", title="Letters", rights="All")
    await rig.again(update="empty")
    assert {name: rig.object[name] for name in before} == before
    await rig.undo()
    assert not rig.object["field_rights"]
    await rig.again(update="all")
    assert rig.object["title"] == [{"value": "Letters"}]
    assert rig.object["field_full_title"] == []
    assert rig.object["field_note"] == [{"value": "Rights: see the file", "format": "basic_html"}]
    assert rig.object["field_rights"] == [{"value": "All"}]
    changing = rig.ctx
    assert await rig.again(update="all") == []
    rig.ctx = changing
    await rig.undo()
    assert {name: rig.object[name] for name in before} == before


async def test_a_date_that_is_none_is_named_in_the_receipt(rig: Rig) -> None:
    """REST would take the thirtieth of February."""
    dates = [{"label": "creation", "begin": "1951-02-30"}, {"label": "creation", "expression": "circa 1951"}]
    rig.description = Description.model_validate({"identifier": "GEH_1_2", "title": "x", "dates": dates})
    rig.ctx = rig.job()
    await rig.run()
    assert "field_edtf_date_created" not in rig.object
    warned = [event.detail for event in rig.ctx.events if event.outcome == "warning"]
    assert [text.partition(" is not written")[0] for text in warned] == [
        "the date 1951-02-30",
        "the date circa 1951",
    ]


@pytest.mark.parametrize("told", [True, False])
async def test_subjects_go_to_the_field_that_takes_their_vocabulary(rig: Rig, told: bool) -> None:
    """By the URI of their authority first, which another View finds than that of uses."""
    rig.site.actions = told
    uri = "http://id.loc.gov/authorities/names/n1"
    place = rig.site.add_term("geo_location", "Pasadena (Calif.)", uri)
    body = rig.site.add_term("corporate_body", "Mount Wilson Observatory", "")
    topic = rig.site.add_term("subject", "Sunspots", "")
    subjects = [
        {"name": "Pasadena", "uri": uri},
        {"name": "Mount Wilson Observatory"},
        {"name": "Hale, George Ellery"},
        {"name": "Sunspots"},
        {"name": "Sunspots"},
        {"name": "Comets"},
    ]
    rig.description = Description.model_validate({**KNOWN, "subjects": subjects})
    rig.ctx = rig.job()
    await rig.run(agents=True)
    person = next(tid for tid, term in rig.site.terms.items() if term["name"].startswith("Hale"))
    assert rig.object["field_subject"] == [{"target_id": topic}]
    assert rig.object["field_subjects_name"] == [{"target_id": body}, {"target_id": person}]
    assert rig.object["field_geographic_subject"] == [{"target_id": place}]
    (warned,) = [event.detail for event in rig.ctx.events if event.outcome == "warning"]
    assert warned == "there is no term for Comets: not linked"


async def test_a_subject_that_no_field_takes_fails_no_folder(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site without the stock field for places, and with two terms of one name."""
    monkeypatch.delitem(islandora_rules.NODE_FIELDS, "field_geographic_subject")
    rig.site.add_term("geo_location", "Pasadena", "")
    for _ in range(2):
        rig.site.add_term("subject", "Comets", "")
    subjects = [{"name": "Pasadena"}, {"name": "Comets"}]
    rig.description = Description.model_validate({**KNOWN, "creators": [], "subjects": subjects})
    rig.ctx = rig.job()
    await rig.run(agents=True)
    assert [event.detail for event in rig.ctx.events if event.outcome == "warning"] == [
        "no field takes Pasadena (of geo_location) as a subject: not linked",
        "there are 2 terms for Comets: not linked",
    ]


@pytest.mark.parametrize(
    ("there", "wanted", "linked"),
    [
        (["Astronomy", "astronomy"], "Astronomy", ["Astronomy"]),
        (["Astronomy"], "astronomy", []),
        (["Société"], "Socie\u0301te\u0301", ["Société"]),
    ],
)
async def test_a_name_is_this_very_name(rig: Rig, there: list[str], wanted: str, linked: list[str]) -> None:
    """The site looks without regard to case: what it finds is compared."""
    tids = {name: rig.site.add_term("subject", name, "") for name in there}
    rig.description = Description.model_validate({**KNOWN, "subjects": [{"name": wanted}]})
    rig.ctx = rig.job()
    await rig.run(agents=True)
    assert rig.object.get("field_subject", []) == [{"target_id": tids[name]} for name in linked]


async def test_a_creator_is_found_by_its_authority_and_by_no_term_of_another_kind(rig: Rig) -> None:
    """A subject of the same URI is not a person."""
    uri = "http://id.loc.gov/authorities/names/n79018806"
    rig.site.add_term("subject", "Hale, George Ellery", uri)
    creators = [{"name": "Hale, G. E.", "uri": uri, "role": "pht"}]
    rig.description = Description.model_validate({**KNOWN, "creators": creators})
    rig.ctx = rig.job()
    await rig.run(agents=True)
    person = next(tid for tid, term in rig.site.terms.items() if term["vocabulary"] == "person")
    assert rig.object["field_linked_agent"] == [{"target_id": person, "rel_type": "relators:pht"}]


async def test_creators_are_linked_where_the_site_has_their_term(rig: Rig) -> None:
    """And named in a warning where it has none; none is ever made."""
    creators = [{"name": "Hale, George Ellery", "role": "cre"}, {"name": "Nobody, N."}]
    rig.description = Description.model_validate({**KNOWN, "creators": creators})
    rig.ctx = rig.job()
    before = len(rig.site.terms)
    await rig.run(agents=True)
    tid = next(tid for tid, term in rig.site.terms.items() if term["name"].startswith("Hale"))
    assert rig.object["field_linked_agent"] == [{"target_id": tid, "rel_type": "relators:cre"}]
    assert len(rig.site.terms) == before
    assert [event.detail for event in rig.ctx.events if event.outcome == "warning"] == [
        "there is no term for Nobody, N.: not linked"
    ]


async def test_other_steps_files_go_to_their_pages_with_their_uses(rig: Rig) -> None:
    """Thumbnails, text and the originals lie beside the page's image, each once."""

    def made(name: str, files: dict[str, str]) -> Made:
        root = tree(rig.base / name, files)
        found = source_of(root)
        return Made(
            name=name,
            worker="convert",
            source="",
            root=root,
            outputs=lambda: (Output(path=e.path, size=e.size, sha256=e.sha256) for e in found.entries()),
            locations=lambda: iter(()),
        )

    pages = ("GEH_1_2_1", "GEH_1_2_2", "GEH_1_2_10")
    rig.ctx.others = {
        "small": made("small", {f"{page}.jpg": f"thumb {page}" for page in pages}),
        "ocr": made("ocr", {f"{page}.txt": f"words of {page}" for page in pages}),
    }
    rig.ctx.source = source_of(tree(rig.base / "copies", {f"{page}.jp2": f"copy {page}" for page in pages}))
    await rig.run(use="service", thumbnails="small", text="ocr", originals="original")
    by_use = {use: [one["bundle"] for one in rig.media(use)] for use in (ORIGINAL, SERVICE, THUMBNAIL)}
    assert by_use == {ORIGINAL: ["image"] * 3, SERVICE: ["file"] * 3, THUMBNAIL: ["image"] * 3}
    texts = rig.media("http://pcdm.org/use#ExtractedText")
    assert {one["bundle"] for one in texts} == {"extracted_text"}
    assert {one["field_edited_text"][0]["value"] for one in texts} == {f"words of {page}" for page in pages}
    assert "thumbnail" in rig.uses()
    rig.ctx.others["ocr"] = made("strange", {"unknown.txt": "x"})
    with pytest.raises(ItemError, match=r"unknown.txt is of no page"):
        await rig.run(text="ocr")


async def test_what_is_not_published_is_seen_by_nobody(rig: Rig) -> None:
    """Neither nodes nor media, and no manifest is promised."""
    await rig.run(publish=False)
    assert {node["status"][0]["value"] for nid, node in rig.site.nodes.items() if nid != rig.collection} == {
        False
    }
    assert {one["status"][0]["value"] for one in rig.media()} == {False}
    assert set(rig.uses()) == {"page"}


async def test_a_media_that_was_left_public_is_hidden_by_whoever_comes_next(rig: Rig) -> None:
    """Another job finds it with the right hash: it compares what the media is, too."""
    rig.site.faults = [Fault("PATCH", "/media/", 503)]
    with pytest.raises(TransientError):
        await rig.run(parallel=1, publish=False)
    assert [one["status"][0]["value"] for one in rig.media()] == [True]
    await rig.again(publish=False)
    assert [one["status"][0]["value"] for one in rig.media()] == [False] * 3
    assert {one["alt"] for one in rig.media()} == {f"Letters of the year 1951, page {n}" for n in (1, 2, 3)}
    assert await rig.again(publish=False) == []


async def test_what_people_said_of_a_media_stays(rig: Rig) -> None:
    """Its words, whether it is public, and what lies elsewhere than where we put it."""
    await rig.run(publish=False)
    edited, public, named = rig.media()
    edited["alt"] = "A hand-made description"
    public |= {"status": [{"value": True}], "revision_user": 1}
    named |= {"alt": "", "revision_user": 1}
    assert await rig.again(publish=False) == []
    one, _ = await full(rig, others=0, ours=b"image")
    assert await one.again(collection=f"node/{rig.collection}") == []


async def test_what_was_public_before_stays_so(rig: Rig) -> None:
    """`publish` is for what is created: its node is not hidden either."""
    await rig.run()
    assert await rig.again(publish=False) == []


@pytest.mark.parametrize("name", ["x.php.jpg", "x.JS.jpg", "a.b.pl.jpg", "x.php.php.jpg"])
async def test_a_name_that_a_server_would_run_is_put_under_another(rig: Rig, name: str) -> None:
    """The site takes such a file, and then refuses to save its media."""
    one = await rigged(rig, {name: "image"})
    one.description = Description(identifier="MAP_1", title="A map")
    one.ctx = one.job()
    await one.run(collection=f"node/{rig.collection}")
    assert [media["alt"] for media in one.media()] == ["A map"]
    assert one.ctx.locations[0].path == name.encode()


async def test_a_media_whose_words_cannot_be_written_any_more_is_named(rig: Rig) -> None:
    """As the version before left them; the file is there all the same."""
    one = await rigged(rig, {"x.php.jpg": "image"})
    one.description = Description(identifier="MAP_1", title="A map")
    where = {"collection": f"node/{rig.collection}"}
    await one.again(**where)
    (media,) = one.media()
    file = one.site.files[media["fid"]]
    file["uri"] = file["uri"].replace("x_php.jpg", "x.php.jpg")
    media |= {"alt": "x.php.jpg", "name": [{"value": "x.php.jpg"}]}
    await one.again(**where)
    (warned,) = [event.detail for event in one.ctx.events if event.outcome == "warning"]
    assert "stays without field_media_image" in warned
    assert "For security reasons" in warned


async def test_pages_of_what_is_hidden_need_a_permission_that_is_named(rig: Rig) -> None:
    """Core lets only what is published be referenced."""
    rig.site.permissions.discard("bypass node access")
    with pytest.raises(ItemError, match="cannot be referenced.*bypass node access"):
        await rig.run(publish=False)
    rig.site.permissions.discard("view own unpublished media")
    one, _ = await full(rig, others=0, ours=None)
    one.site.nodes.pop(one.site.nid("MAP_1"))
    with pytest.raises(TargetError, match="view own unpublished media"):
        await one.run(publish=False, collection=f"node/{rig.collection}")


async def test_who_may_not_publish_can_leave_it_to_the_site(rig: Rig) -> None:
    """Drupal lets only administrators of content say whether a node is published."""
    rig.site.permissions.discard("administer nodes")
    with pytest.raises(TargetError, match="field 'status'.*administer nodes"):
        await rig.run(publish=True)
    rig.ctx.again()
    await rig.run()
    assert rig.object["status"] == [{"value": True}]


@pytest.mark.parametrize("kind", ["php8", "tif"])
async def test_the_reason_of_a_refused_file_is_told(rig: Rig, kind: str) -> None:
    """An error of Drupal is a page of HTML unless JSON is asked for."""
    one = await rigged(rig, {f"a.{kind if kind == 'tif' else 'png'}": "image"})
    with pytest.raises(ItemError, match=r"400 .Invalid file extension\. Valid types are"):
        await one.run(collection=f"node/{rig.collection}", bundles={"tif": "image", "png": "file"})


# -- where files are kept ------------------------------------------------------------------------


async def test_files_go_where_the_site_keeps_its_own(rig: Rig) -> None:
    """Each kind of media by its own field; fedora where nothing is told, as ever."""
    rig.site.uri_schemes = {"field_media_file": "private", "field_media_image": "public"}
    (rig.payload / "GEH_1_2_1.jpg").rename(rig.payload / "GEH_1_2_1.tif")
    rig.ctx = rig.job()
    await rig.run()
    assert {file["uri"].split("/")[0] for file in rig.site.files.values()} == {"private:", "public:"}
    rig.site.actions = False
    one, _ = await full(rig, others=0, ours=None)
    await one.run(collection=f"node/{rig.collection}")
    assert one.site.files[one.media()[-1]["fid"]]["uri"].startswith("fedora://dittohead/")


async def test_a_place_that_the_site_has_not_is_refused_before_anything_is_sent(rig: Rig) -> None:
    """Islandora 2.13 would answer 201, and could neither show nor list what it has made."""
    rig.site.schemes, rig.site.uri_schemes = {"private", "public"}, {"field_media_file": "private"}
    for ask in (rig.worker.preflight, rig.worker.run):
        with pytest.raises(
            TargetError, match=r"keeps its files at private://.*Set storage to private://ditto"
        ):
            await ask(rig.ctx, rig.options(storage="fedora://dittohead"))
    said = [s async for s in rig.worker.doctor(rig.options(storage="fedora://x"), lambda name: PASSWORD)]
    assert [text for ok, text in said if not ok and "storage is fedora://x" in text]
    assert rig.site.writes() == []
    for storage in ("", "private://x", "public://x"):
        await rig.worker.preflight(rig.ctx, rig.options(storage=storage))
    rig.site.schemes.add("s3")
    await rig.run(storage="s3://x", any_storage=True)


async def test_what_went_astray_is_undone_unread(rig: Rig) -> None:
    """A media that the site cannot read blocks its node, and every listing of it."""
    before = rig.site.content()
    rig.site.actions, rig.site.schemes = False, {"private"}
    with pytest.raises(TransientError, match="500"):
        await rig.run(parallel=1)
    would = await rig.undo(dry_run=True)
    assert all(ok for ok, _, _ in would), would
    said = await rig.undo()
    assert all(ok for ok, _, _ in said), said
    assert sorted(would) == sorted(said)
    left = rig.site.content()
    assert (left["nodes"], left["media"]) == (before["nodes"], before["media"])


async def test_several_objects_of_one_folder_each_get_their_own_files(rig: Rig) -> None:
    """A file of none of them is refused before anything is written."""
    objects = [
        {"description": {"identifier": "GEH_1_2", "title": "One"}, "files": ["GEH_1_2_1.tif"]},
        {
            "description": {"identifier": "GEH_1_3", "title": "Two"},
            "files": ["GEH_1_2_2.tif", "GEH_1_2_10.tif"],
        },
    ]
    rig.ctx.description = Described.model_validate({"objects": objects})
    await rig.run()
    assert len(rig.site.pages(rig.site.nid("GEH_1_3"))) == 2
    assert rig.site.pages(rig.site.nid("GEH_1_2")) == []
    rig.ctx.description = Described.model_validate({"objects": objects[:1]})
    with pytest.raises(ItemError, match="GEH_1_2_10, GEH_1_2_2 are of no object"):
        await rig.run()


# -- nothing twice ------------------------------------------------------------------------------


@pytest.mark.parametrize("members", ["", "/islandora/members"])
async def test_the_same_folder_again_sends_nothing(rig: Rig, members: str) -> None:
    """Another job, with no ledger to go by, finds all of it at the site."""
    await rig.run(members=members)
    before = rig.site.content()
    assert await rig.again(members=members) == []
    assert rig.site.content() == before
    assert len([place for place in rig.ctx.locations if not place.use]) == 3


async def full(rig: Rig, *, others: int, ours: bytes | None) -> tuple[Rig, int]:
    """Return a rig of one image whose node has so many other media, and somebody's original after them."""
    one = await rigged(rig, {"a.jpg": "image"})
    one.description = Description(identifier="MAP_1", title="A map")
    one.ctx = one.job()
    nid = one.site.add_node("A map", "Image", field_local_identifier="MAP_1", field_member_of=rig.collection)
    for number in range(others):
        one.site.add_media(nid, SERVICE if number else THUMBNAIL, b"x", f"{number}.jpg", "image")
    if ours is not None:
        one.site.add_media(nid, ORIGINAL, ours, "curators-original.jpg", "image")
    return one, nid


async def test_media_are_found_beyond_the_first_page_of_a_listing(rig: Rig) -> None:
    """Where a module lets a REST export turn its pages."""
    one, _ = await full(rig, others=13, ours=b"image")
    one.site.turns = True
    assert await one.again(collection=f"node/{rig.collection}") == []


@pytest.mark.parametrize("more", [{}, {"replace": True}])
@pytest.mark.parametrize("cut", [5, 10, 20])
async def test_a_listing_that_may_be_cut_is_not_taken_for_the_whole(rig: Rig, cut: int, more: Any) -> None:
    """A REST export gives its first rows whatever page is asked for: what is beyond would be overwritten."""
    one, _ = await full(rig, others=cut, ours=b"the curator's")
    one.site.listed = cut
    with pytest.raises(
        ItemError, match=f"lists {cut} media.*cannot be known.*show all items.*lists_all: true"
    ):
        await one.run(collection=f"node/{rig.collection}", **more)
    assert one.site.writes() == []
    one.site.listed = 0
    with pytest.raises(ItemError, match="another file than a.jpg, and replace is not set"):
        await one.run(collection=f"node/{rig.collection}", lists_all=True)
    assert [one.site.files[m["fid"]]["data"] for m in one.media()] == [b"the curator's"]


@pytest.mark.parametrize(("others", "listed"), [(10, 0), (7, 0), (3, 10)])
async def test_a_listing_is_whole_where_it_is_told_or_shows_no_number_of_a_cut(
    rig: Rig, others: int, listed: int
) -> None:
    """`lists_all` is for what cannot be told otherwise."""
    one, nid = await full(rig, others=others, ours=None)
    one.site.listed = listed
    await one.run(collection=f"node/{rig.collection}", lists_all=others % 5 == 0)
    assert [m["nid"] for m in one.media()] == [nid]


async def test_a_view_that_has_shown_more_is_not_cut_at_less(rig: Rig) -> None:
    """What one answer of it held, another can."""
    one, nid = await full(rig, others=10, ours=None)
    one.site.listed = 0
    two = one.site.add_node("x", "Image", field_local_identifier="MAP_2", field_member_of=rig.collection)
    for number in range(12):
        one.site.add_media(two, SERVICE, b"x", f"{number}.jpg", "image")
    one.site.add_media(two, ORIGINAL, b"image", "b.jpg", "image")
    (one.payload / "b.jpg").write_text("image")
    ctx = one.job()
    objects = [
        {"description": {"identifier": "MAP_2", "title": "x"}, "files": ["b.jpg"]},
        {"description": {"identifier": "MAP_1", "title": "A map"}, "files": ["a.jpg"]},
    ]
    ctx.description = Described.model_validate({"objects": objects[::-1]})
    with pytest.raises(ItemError, match="cannot be known"):
        await one.worker.run(ctx, one.options(collection=f"node/{rig.collection}"))
    await two_first(one, objects, rig.collection)
    assert nid in [m["nid"] for m in one.media()]


async def two_first(rig: Rig, objects: list[dict[str, Any]], collection: int) -> None:
    """Run the same files in another order."""
    (rig.payload / "a.jpg").rename(rig.payload / "c.jpg")
    ctx = rig.job()
    objects[1]["files"] = ["c.jpg"]
    ctx.description = Described.model_validate({"objects": objects})
    await rig.worker.run(ctx, rig.options(collection=f"node/{collection}"))


async def test_a_file_that_took_anothers_place_is_an_alarm_and_is_not_undone(rig: Rig) -> None:
    """A View cut at a number that none suspects: 204 came where a new media was meant."""
    one, _ = await full(rig, others=7, ours=b"the curator's")
    one.site.listed = 7
    where = f"node/{rig.collection}"
    with pytest.raises(ItemError, match="in place of the file of a media that it does not list.*Restore"):
        await one.run(collection=where)
    (mid,) = [mid for mid, m in one.site.media.items() if m["uses"] == [one.site.tid(ORIGINAL)]]
    one.site.listed = 0
    for dry_run in (True, False):
        said = await one.undo(dry_run=dry_run, collection=where)
        assert [ok for ok, _, _ in said] == [False]
        assert "in another's place, which is not kept" in said[0][2]
    one.ctx.again()
    await one.run(collection=where)  # the same job, with a View that was corrected
    assert one.site.media[mid]["alt"] == "curators-original.jpg"
    assert [ok for ok, _, _ in await one.undo(collection=where)] == [False]
    assert mid in one.site.media


async def test_what_the_site_derives_in_our_name_before_ours_comes_is_no_alarm(rig: Rig) -> None:
    """Its thumbnail of an original that was just put; ours replaces it, and undo takes it."""
    before = rig.site.content()
    root = tree(rig.base / "small", {f"GEH_1_2_{page}.jpg": f"thumb {page}" for page in (1, 2, 10)})
    found = source_of(root)
    rig.ctx.others["small"] = Made(
        name="small",
        worker="convert",
        source="",
        root=root,
        outputs=lambda: (Output(path=e.path, size=e.size, sha256=e.sha256) for e in found.entries()),
        locations=lambda: iter(()),
    )

    async def derive(call: Any, after: bool) -> None:
        if after and call.method == "PUT" and call.status == 201:
            nid = int(call.path.split("/")[2])
            rig.site.derives_after = -1
            rig.site._derive(nid)
            rig.site.derives_after = None

    rig.site.at_call = derive
    await rig.run(thumbnails="small", parallel=1)
    assert {rig.site.files[one["fid"]]["data"] for one in rig.media(THUMBNAIL)} == {
        b"thumb 1",
        b"thumb 2",
        b"thumb 10",
    }
    assert all(ok for ok, _, _ in await rig.undo())
    assert rig.site.content() == before


@pytest.mark.parametrize("listed", [0, 10])
async def test_undo_by_an_old_ledger_looks_at_owner_time_and_place_of_a_media(rig: Rig, listed: int) -> None:
    """`"was": null` of the version before says only that nothing was listed."""
    one, nid = await full(rig, others=6, ours=b"the curator's")
    one.site.listed = listed
    (mid,) = [mid for mid, m in one.site.media.items() if m["uses"] == [one.site.tid(ORIGINAL)]]
    file = one.site.files[one.site.media[mid]["fid"]]
    sha256 = hashlib.sha256(file["data"]).hexdigest()
    lines = [
        {"worker": "islandora", "job": one.ctx.job_id, "site": one.site.base},
        {"media": [nid, ORIGINAL], "was": None, "sha256": sha256},
    ]
    one.ctx.ledger.parent.mkdir(parents=True, exist_ok=True)
    one.ctx.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = await one.undo(dry_run=True)
    assert [(ok, "somebody else's" in text) for ok, _, text in said] == [(False, True)]
    noted = {"mid": mid, "fid": one.site.media[mid]["fid"], "uid": 1, "vid": one.site.media[mid]["vid"]}
    done = {
        "media": [nid, ORIGINAL],
        **noted,
        "changed": one.site.now,
        "uuid": file["uuid"],
        "sha256": sha256,
    }
    one.ctx.ledger.write_text("".join(json.dumps(line) + "\n" for line in [*lines, done]))
    assert [ok for ok, _, _ in await one.undo()] == [False]
    assert mid in one.site.media


async def test_records_of_the_version_before_are_rerun_verified_and_undone(rig: Rig) -> None:
    """Its ledger has neither `ours` nor `made`, its receipt another word for a manifest."""
    before = rig.site.content()
    await rig.run()
    kept = []
    for line in rig.ctx.ledger.read_text().splitlines():
        fields = json.loads(line)
        if "made" in fields:
            continue
        if "media" in fields:
            fields.pop("ours", None)
        kept.append(json.dumps(fields) + "\n")
    ledger, text = rig.ctx.ledger, "".join(kept)
    ledger.write_text(text)
    first = rig.ctx
    assert await rig.again() == []
    rig.ctx = first
    rig.ctx.again()
    await rig.run()
    assert len(rig.site.writes()) == 10
    assert all(ok for ok, _, _ in await rig.undo())
    assert rig.site.content() == before


@pytest.mark.parametrize("cut", [10, 5])
async def test_pages_that_a_cut_view_does_not_show_are_not_made_again(rig: Rig, cut: int) -> None:
    """An object with twelve pages by hand, of which ten are shown."""
    many = await rigged(rig, {f"p{n:02}.jpg": f"image {n}" for n in range(1, 13)})
    where = {"collection": f"node/{rig.collection}", "members": "/islandora/members"}
    nid = many.site.add_node(
        "By hand", "Paged Content", field_local_identifier="GEH_1_2", field_member_of=rig.collection
    )
    for weight in range(1, 13):
        many.site.add_node(f"p. {weight}", "Page", field_member_of=nid, field_weight=weight)
    many.site.pager = cut
    with pytest.raises(ItemError, match=f"shows {cut} pages.*cannot be known.*show all items"):
        await many.run(**where)
    assert many.site.writes() == []
    many.site.pager = 0
    await many.run(**where)
    assert len(many.site.pages(nid)) == 12
    assert await many.again(**where) == []


@pytest.mark.parametrize("pages", [10, 11])
async def test_our_own_objects_of_ten_pages_are_rerun_added_to_and_undone(rig: Rig, pages: int) -> None:
    """Their UUIDs and identifiers tell them, whatever a View shows."""
    many = await rigged(rig, {f"p{n:02}.jpg": f"image {n}" for n in range(1, pages + 1)})
    where = {"collection": f"node/{rig.collection}", "members": "/islandora/members"}
    before = many.site.content()
    await many.run(**where)
    first = many.ctx
    assert await many.again(**where) == []
    many.ctx = first
    would = await many.undo(dry_run=True, **where)
    said = await many.undo(**where)
    assert all(ok for ok, _, _ in said)
    assert sorted(would) == sorted(said)
    assert many.site.content() == before


async def test_a_view_that_lags_doubles_nothing(rig: Rig) -> None:
    """What was just created is not seen by a look-up yet: the database itself refuses it a second time."""
    rig.site.lag = 10
    rig.site.faults = [Fault("POST", "/node$", "drop", after=True)]
    reasons = []
    for _ in range(60):
        try:
            await rig.run()
        except TransientError as error:
            reasons.append(error.what)
            rig.ctx.again()
        else:
            break
    assert reasons[0].startswith("the connection broke")
    assert reasons[1:].count("it answered 500 (Internal Server Error)") == len(reasons) - 1 > 0
    rig.site.settle()
    assert len(rig.site.nodes) == 5
    assert len(rig.site.pages(rig.site.nid("GEH_1_2"))) == 3
    assert await rig.again() == []


async def test_a_view_that_finds_too_much_is_read_with_care(rig: Rig) -> None:
    """`Contains any word` finds pages by their object's identifier; a whole collection is refused."""
    rig.site.contains = True
    await rig.run(lists_all=True)
    assert await rig.again(lists_all=True) == []
    assert len(rig.site.nodes) == 5
    with pytest.raises(TargetError, match='shows 5 nodes for "GEH".*"Is equal to"'):
        await rig.again()
    for number in range(60):
        rig.site.add_node("x", "Image", field_local_identifier=f"GEH_1_2{number}")
    with pytest.raises(TargetError, match='"Is equal to"'):
        await rig.again(lists_all=True)


async def test_two_jobs_at_once_make_one_object(rig: Rig) -> None:
    """Both looked before either created."""
    other = rig.job()
    rig.site.lag = 3

    async def patient(ctx: LoneContext) -> None:
        for _ in range(20):
            try:
                await rig.worker.run(ctx, rig.options())
            except TransientError:
                ctx.again()
            else:
                return
        raise AssertionError("never done")

    await asyncio.gather(patient(rig.ctx), patient(other))
    assert len(rig.site.nodes) == 5
    assert len(rig.site.media) == 3


async def test_pages_made_by_hand_are_found_by_their_weight(rig: Rig) -> None:
    """The cataloguer's nodes get the files; they keep their titles."""
    nid = rig.site.add_node(
        "By hand", "Paged Content", field_local_identifier="GEH_1_2", field_member_of=rig.collection
    )
    for weight in (1, 2, 3):
        rig.site.add_node(f"p. {weight}", "Page", field_member_of=nid, field_weight=weight)
    with pytest.raises(ItemError, match="which pages it has cannot be told"):
        await rig.run()
    assert rig.site.writes() == []
    await rig.run(members="/islandora/members")
    assert len(rig.site.nodes) == 5
    assert [page["title"][0]["value"] for page in rig.site.pages(nid)] == ["p. 1", "p. 2", "p. 3"]
    assert len(rig.media()) == 3


async def test_new_pages_are_not_put_between_pages_counted_otherwise(rig: Rig) -> None:
    """Unless all is to be as the folder has it."""
    await rig.run(members="/islandora/members")
    (rig.payload / "GEH_1_2_0.jpg").write_text("image 0")
    with pytest.raises(ItemError, match="is page 1 there, not 2; there are new pages"):
        await rig.again(members="/islandora/members")
    await rig.again(members="/islandora/members", update="all")
    pages = rig.site.pages(rig.site.nid("GEH_1_2"))
    assert [p["field_local_identifier"][0]["value"] for p in pages] == [
        "GEH_1_2_0",
        "GEH_1_2_1",
        "GEH_1_2_2",
        "GEH_1_2_10",
    ]


@pytest.mark.parametrize(
    ("update", "title", "extent"),
    [
        ("nothing", "Edited", None),
        ("empty", "Edited", "3 pages"),
        ("all", "Letters of the year 1951", "3 pages"),
    ],
)
async def test_what_people_edited_stays_unless_all_is_to_be_replaced(
    rig: Rig, update: str, title: str, extent: str | None
) -> None:
    """Empty fields may be filled in; nothing else of a node is touched."""
    await rig.run()
    nid = rig.site.nid("GEH_1_2")
    rig.site.edit_node(nid, title="Edited")
    del rig.object["field_extent"]
    await rig.again(update=update)
    assert rig.object["title"] == [{"value": title}]
    assert rig.object.get("field_extent") == (None if extent is None else [{"value": extent}])
    assert rig.object["field_member_of"] == [{"target_id": rig.collection}]


async def test_another_file_in_the_place_is_replaced_only_when_told(rig: Rig) -> None:
    """And never by one of another kind, whose name the site would keep."""
    await rig.run()
    (rig.payload / "GEH_1_2_1.jpg").write_text("a better scan")
    with pytest.raises(ItemError, match="another file than GEH_1_2_1.jpg, and replace is not set"):
        await rig.again()
    (written,) = await rig.again(replace=True)
    assert written.startswith("PUT /node/")
    assert len(rig.media()) == 3
    assert b"a better scan" in {rig.site.files[one["fid"]]["data"] for one in rig.media()}
    assert len(rig.site.files) == 3
    (rig.payload / "GEH_1_2_1.jpg").rename(rig.payload / "GEH_1_2_1.png")
    (rig.payload / "GEH_1_2_1.png").write_text("a png")
    with pytest.raises(ItemError, match="cannot become GEH_1_2_1.png"):
        await rig.again(replace=True)


# -- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [500, 502, 503, 429, "drop"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("method", "path"), [("POST", "/node$"), ("PUT", "/media/"), ("PATCH", "/media/")])
async def test_a_fault_of_the_site_is_tried_again_and_doubles_nothing(
    rig: Rig, method: str, path: str, kind: int | str, after: bool
) -> None:
    """Before and after its effect; nothing is sent a second time within the try."""
    rig.site.faults = [Fault(method, path, kind, after=after, skip=1)]
    tries = 0
    while True:
        try:
            await rig.run(parallel=1)
            break
        except TransientError:
            tries += 1
            rig.ctx.again()
    assert tries <= 1
    assert tries == 1 or (method == "POST" and after)  # found at once, by its UUID
    disturbed = rig.site.content()
    async with served(Islandora()) as quiet:
        calm = Rig(rig.base / "calm", quiet)
        rig.site.base, base = quiet.base, rig.site.base
        await calm.run(parallel=1)
        rig.site.base = base
        assert len(quiet.nodes) == len(rig.site.nodes)
        assert _but_uuids(quiet.content()) == _but_uuids(disturbed)


def _but_uuids(content: dict[str, Any]) -> dict[str, Any]:
    nodes = [{key: value for key, value in node.items() if key != "uuid"} for node in content["nodes"]]
    return {**content, "nodes": sorted(nodes, key=lambda node: json.dumps(node, sort_keys=True))}


async def test_a_wait_that_the_site_asks_for_is_kept(rig: Rig) -> None:
    """Retry-After goes to the engine."""
    rig.site.faults = [Fault("POST", "/node$", 429, headers={"Retry-After": "17"})]
    with pytest.raises(TransientError) as caught:
        await rig.run()
    assert caught.value.retry_after_s == 17


async def test_a_put_whose_connection_broke_is_not_repeated_unseen(rig: Rig) -> None:
    """An HTTP library would send it again by itself; only a look tells whether it was obeyed."""
    rig.site.faults = [Fault("PUT", "/media/", "drop", after=True)]
    with pytest.raises(TransientError):
        await rig.run(parallel=1)
    assert [call.method for call in rig.site.calls].count("PUT") == 1


async def test_a_file_that_is_stored_wrongly_is_sent_again_once(rig: Rig) -> None:
    """And the target is paused when it happens again: no such file is ever recorded."""
    rig.site.faults = [Fault("PUT", "/media/", "corrupt")]
    await rig.run(parallel=1)
    assert len(rig.site.media) == len(rig.site.files) == 3
    worse = await rigged(rig, {"a.jpg": "abc"})
    worse.description = Description(identifier="X", title="x")
    worse.ctx = worse.job()
    rig.site.faults = [Fault("PUT", "/media/", "corrupt", times=2)]
    with pytest.raises(TargetError, match="not what it was sent"):
        await worse.run(collection=f"node/{rig.collection}")
    assert worse.ctx.locations == []


async def test_a_media_that_arrived_wrong_and_unheard_is_finished_all_the_same(rig: Rig) -> None:
    """The next try replaces its file, and must hide it too: nothing says any more that it is new."""
    rig.site.faults = [Fault("PUT", "/media/", "corrupt"), Fault("GET", r"/media/\d+", 503)]
    with pytest.raises(TransientError):
        await rig.run(parallel=1, publish=False)
    assert [one["status"][0]["value"] for one in rig.media()] == [True]
    rig.ctx.again()
    await rig.run(parallel=1, publish=False)
    assert [one["status"][0]["value"] for one in rig.media()] == [False] * 3
    assert {one["alt"] for one in rig.media()} == {f"Letters of the year 1951, page {n}" for n in (1, 2, 3)}


async def test_a_file_that_changed_since_the_claim_is_the_folders_fault(rig: Rig) -> None:
    """Not the site's."""
    (rig.payload / "GEH_1_2_1.jpg").write_text("IMAGE 1")
    with pytest.raises(ItemError, match="not what it was at the claim"):
        await rig.run(parallel=1)


async def test_without_a_hash_of_the_site_files_are_read_back(rig: Rig) -> None:
    """The module that hashes is not a part of Drupal; credentials would be refused there."""
    rig.site.hashes = False
    await rig.run()
    assert {place.verified_by for place in rig.ctx.locations if not place.use} == {"read back"}
    assert sum("file_hash" in call.path for call in rig.site.calls) <= 4


@pytest.mark.parametrize("publish", [None, False])
async def test_what_can_neither_be_hashed_nor_read_back_names_the_permission(
    rig: Rig, publish: bool | None
) -> None:
    """Not the password, which is right."""
    missing = "use islandora workbench" if publish is None else "view own unpublished media"
    rig.site.permissions -= {missing}
    rig.site.private = publish is None
    with pytest.raises(TargetError, match=f"the public may not read this file.*{missing}"):
        await rig.run(publish=publish)


async def test_a_wrong_password_pauses_the_target_and_is_not_said(rig: Rig) -> None:
    """What one user may not do is not a fault of the folder."""
    rig.ctx.secrets["password"] = "WRONGWORD"
    with pytest.raises(TargetError, match=r"takes the user for the public.*403.*6 hours after 5") as caught:
        await rig.run()
    assert "WRONGWORD" not in str(caught.value)
    assert rig.worker.target(rig.options()) == f"{rig.site.base} as dittohead"


@pytest.mark.parametrize("at_once", [1, 6])
async def test_a_wrong_password_is_not_tried_until_the_user_is_locked(rig: Rig, at_once: int) -> None:
    """However often the daemon tries, and however many folders wait; one that was corrected works at once."""
    now = [0.0]
    rig.worker.sign_in = RefusedSignIns(lambda: now[0])

    async def attempt(password: str) -> list[Any]:
        ctxs = [rig.job() for _ in range(at_once)]
        for ctx in ctxs:
            ctx.secrets["password"] = password
        runs = (rig.worker.preflight(ctx, rig.options()) for ctx in ctxs)
        return await asyncio.gather(*runs, return_exceptions=True)

    for _ in range(10):
        assert all(isinstance(said, TargetError) for said in await attempt("wrong"))
    assert rig.site.failed_logins <= 3
    said = (await attempt("wrong"))[0]
    assert "tried again in 4 hours" in str(said)
    now[0] = 4 * 3600.0
    await attempt("wrong")
    assert rig.site.failed_logins <= 4
    assert all("terms" in facts for facts in await attempt(PASSWORD))
    assert rig.site.failed_logins == 0


async def test_a_missing_permission_is_told_from_a_wrong_password(rig: Rig) -> None:
    """And tried again as usual: it works as soon as it is given."""
    rig.site.permissions.discard("administer taxonomy")
    for _ in range(5):
        with pytest.raises(TargetError, match=r"'administer taxonomy' permission.*Give the user that perm"):
            await rig.worker.preflight(rig.ctx, rig.options())
    assert rig.site.failed_logins == 0
    rig.site.permissions.add("administer taxonomy")
    await rig.worker.preflight(rig.ctx, rig.options())


async def test_what_a_job_did_is_told_of_all_its_tries(rig: Rig) -> None:
    """Not of the last one alone, which found most of it there."""
    rig.site.faults = [Fault("PUT", "/media/", 503, skip=2)]
    with pytest.raises(TransientError):
        await rig.run(parallel=1)
    rig.ctx.again()
    result = await rig.run(parallel=1)
    assert isinstance(result, Done)
    assert "4 nodes created, 3 files sent" in result.detail
    assert "there already" not in result.detail


async def test_an_empty_image_is_refused_and_an_empty_text_is_named(rig: Rig) -> None:
    """The site takes no file without a byte; a page without words has such a text."""
    root = tree(rig.base / "ocr", {"GEH_1_2_1.txt": "", "GEH_1_2_2.txt": "words"})
    found = source_of(root)
    rig.ctx.others["ocr"] = Made(
        name="ocr",
        worker="script",
        source="",
        root=root,
        outputs=lambda: (Output(path=e.path, size=e.size, sha256=e.sha256) for e in found.entries()),
        locations=lambda: iter(()),
    )
    await rig.run(text="ocr")
    assert len(rig.media("http://pcdm.org/use#ExtractedText")) == 1
    warned = [event.detail for event in rig.ctx.events if event.outcome == "warning"]
    assert warned == ["GEH_1_2_1.txt is empty: not sent"]
    (rig.payload / "GEH_1_2_1.jpg").write_text("")
    rig.ctx = rig.job()
    before = len(rig.site.writes())
    with pytest.raises(ItemError, match="GEH_1_2_1.jpg is empty"):
        await rig.run()
    assert len(rig.site.writes()) == before


async def test_a_redirect_is_not_followed_and_says_where_it_leads(rig: Rig) -> None:
    """With credentials it must not be; the url is wrong."""
    rig.site.faults = [Fault("GET", "/term_from_uri", 301, headers={"Location": "https://new.example.org/"})]
    with pytest.raises(TargetError, match=r"301.*Set url to where it is now .https://new.example.org/"):
        await rig.run()


async def test_a_site_that_calls_itself_by_another_name_is_understood(rig: Rig) -> None:
    """Behind a proxy Drupal often gives http:// URLs, or its inner host's."""
    rig.site.called = "http://127.0.0.1:1/en"
    rig.site.derives_after = 0
    await rig.run()
    assert set(rig.uses()) == {"page", "manifest"}  # a thumbnail that nobody can fetch is not promised
    assert len(rig.media()) == 3


async def test_credentials_are_sent_to_the_site_alone(rig: Rig) -> None:
    """Public places are asked for as the public would."""
    await rig.run()
    unknown = {call.path.rpartition("/")[2] for call in rig.site.calls if not call.known}
    assert unknown == {"book-manifest"}
    assert {call.status for call in rig.site.calls} <= {200, 201, 204}


# -- several at once ---------------------------------------------------------------------------------


async def test_several_pages_are_under_way_at_once_and_no_more_than_told(rig: Rig) -> None:
    """Terms are looked up once for all of them."""
    flying, most, enough = 0, 0, asyncio.Event()

    async def at_call(call: Any, after: bool) -> None:
        nonlocal flying, most
        if call.method != "PUT":
            return
        flying += -1 if after else 1
        most = max(most, flying)
        if flying == 2:
            enough.set()
        if not after:
            await enough.wait()

    rig.site.at_call = at_call
    await rig.run(parallel=2)
    assert most == 2
    uris = [call.query["uri"] for call in rig.site.calls if call.path == "/term_from_uri"]
    assert len(uris) == len(set(uris))


async def test_a_run_that_is_cancelled_is_gone_on_with(rig: Rig) -> None:
    """In the middle of a file."""
    arrived = asyncio.Event()

    async def at_call(call: Any, after: bool) -> None:
        if call.method == "PUT" and not after:
            arrived.set()

    rig.site.at_call = at_call
    rig.site.faults = [Fault("PUT", "/media/", "slow")]
    task = asyncio.create_task(rig.run(parallel=2))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    rig.site.faults[0].until.set()
    rig.ctx.again()
    await rig.run()
    assert len(rig.site.nodes) == 5
    assert len(rig.media()) == len(rig.site.files) == 3


async def test_a_run_that_no_longer_owns_the_job_writes_nothing_more(rig: Rig) -> None:
    """It is asked right before each write."""
    fences = 0

    async def fence() -> None:
        nonlocal fences
        fences += 1
        if fences == 3:
            raise Superseded("another run owns the job")

    rig.ctx.fence = fence  # type: ignore[method-assign]
    with pytest.raises(Superseded):
        await rig.run(parallel=1)
    assert len(rig.site.writes()) == 2
