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

from dittohead.description import Described, Description
from dittohead.errors import ItemError, Superseded, TargetError, TransientError
from dittohead.model import Output
from dittohead.worker import Done, Made
from tests.support.context import LoneContext, source_of
from tests.support.islandora import Islandora, served
from tests.support.islandora_rig import KNOWN, ORIGINAL, SERVICE, THUMBNAIL, Rig
from tests.support.islandora_state import Fault
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


async def test_long_titles_and_rights_are_kept_whole(rig: Rig) -> None:
    """255 characters are all that a title takes; nothing of the rest may be lost."""
    long = "A very long title " * 20
    rig.description = Description(identifier="GEH_1_2", title=long, rights="No " * 100)
    rig.ctx = rig.job()
    await rig.run()
    title = rig.object["title"][0]["value"]
    assert len(title) <= 255
    assert title.endswith("…")
    assert rig.object["field_full_title"][0]["value"] == long.strip()
    assert "field_rights" not in rig.object
    assert rig.object["field_note"][0]["value"] == "Rights: " + "No " * 100
    assert all(len(page["title"][0]["value"]) <= 255 for page in rig.site.pages(rig.site.nid("GEH_1_2")))


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


async def test_who_may_not_publish_can_leave_it_to_the_site(rig: Rig) -> None:
    """Drupal lets only administrators of content say whether a node is published."""
    rig.site.permissions.discard("administer nodes")
    with pytest.raises(TargetError, match="field 'status'"):
        await rig.run(publish=True)
    rig.ctx.again()
    await rig.run()
    assert rig.object["status"] == [{"value": True}]


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


async def test_media_are_found_beyond_the_first_page_of_a_listing(rig: Rig) -> None:
    """The View that lists a node's media shows ten at a time."""
    one = await rigged(rig, {"a.jpg": "image"})
    one.description = Description(identifier="MAP_1", title="A map")
    one.site.pager = 10
    nid = one.site.add_node("A map", "Image", field_local_identifier="MAP_1", field_member_of=rig.collection)
    for number in range(12):
        one.site.add_media(nid, SERVICE if number else THUMBNAIL, b"x", f"{number}.jpg", "image")
    one.site.add_media(nid, ORIGINAL, b"image", "a.jpg", "image")
    assert await one.again(collection=f"node/{rig.collection}") == []


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
    await rig.run()
    assert await rig.again() == []
    assert len(rig.site.nodes) == 5
    for number in range(60):
        rig.site.add_node("x", "Image", field_local_identifier=f"GEH_1_2{number}")
    with pytest.raises(TargetError, match='"Is equal to"'):
        await rig.again()


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
    """An HTTP library would send it again by itself; only a look tells whether it was heeded."""
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
    """The module that hashes is no part of Drupal."""
    rig.site.hashes = False
    await rig.run()
    assert {place.verified_by for place in rig.ctx.locations if not place.use} == {"read back"}
    assert sum("file_hash" in call.path for call in rig.site.calls) <= 4


async def test_a_wrong_password_pauses_the_target_and_is_not_said(rig: Rig) -> None:
    """What one user may not do is no fault of the folder."""
    rig.ctx.secrets["password"] = "WRONGWORD"
    with pytest.raises(TargetError, match="403") as caught:
        await rig.run()
    assert "WRONGWORD" not in str(caught.value)
    assert rig.worker.target(rig.options()) == f"{rig.site.base} as dittohead"


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
