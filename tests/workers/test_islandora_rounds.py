"""islandora: what is looked at before, waited for, planned, verified and undone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ValidationError

from dittohead.admin.dry_run import plan
from dittohead.admin.undo import undo_job
from dittohead.config.loader import load
from dittohead.config.registry import default
from dittohead.contract.worker import Done, VerifyContext, Wait
from dittohead.folders import receipt
from dittohead.model.description import Description
from dittohead.model.errors import ItemError, StepError, TargetError, TransientError
from dittohead.model.records import Location
from dittohead.toolkit.intent_log import read as lines
from dittohead.workers.islandora.worker import IslandoraOptions
from tests.support import islandora_rules
from tests.support.harness import Harness
from tests.support.islandora import Islandora, served
from tests.support.islandora_rig import KNOWN, ORIGINAL, SERVICE, Rig
from tests.support.islandora_state import PASSWORD, UID, Fault
from tests.support.length import budget
from tests.support.trees import tree


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with served(Islandora()) as site:
        yield Rig(tmp_path, site)


# -- before anything is written ---------------------------------------------------------------------


async def test_preflight_keeps_what_it_found(rig: Rig) -> None:
    """And writes nothing."""
    facts = await rig.worker.preflight(rig.ctx, rig.options())
    assert facts["collection"] == rig.collection
    assert facts["objects"] == {"GEH_1_2": None}
    assert facts["terms"][ORIGINAL] == rig.site.tid(ORIGINAL)
    await rig.run()
    facts = await rig.worker.preflight(rig.ctx, rig.options())
    assert facts["objects"] == {"GEH_1_2": rig.site.nid("GEH_1_2")}
    json.dumps(facts)


@pytest.mark.parametrize("where", ["preflight", "run"])
async def test_an_object_in_another_collection_is_refused_before_anything_is_written(
    rig: Rig, where: str
) -> None:
    """Also when the folder's other object is new."""
    other = rig.site.add_node("Another collection")
    rig.site.add_node("x", "Paged Content", field_local_identifier="GEH_1_2", field_member_of=other)
    with pytest.raises(ItemError, match=f"in another collection .node {other}, not {rig.collection}"):
        await getattr(rig.worker, where)(rig.ctx, rig.options())
    assert rig.site.writes() == []


@pytest.mark.parametrize(
    ("breaks", "error", "said"),
    [
        (
            lambda site: site.terms.pop(site.tid(ORIGINAL)),
            TargetError,
            r"no term with the external URI http://pcdm.org/use#OriginalFile .islandora_media_use",
        ),
        (lambda site: setattr(site, "integration", False), TargetError, "cannot look up terms"),
        (
            lambda site: setattr(site, "exposed", False),
            TargetError,
            "finds nodes by an identifier that none has",
        ),
        (lambda site: site.nodes.clear(), ItemError, 'no node with the local identifier "GEH"'),
        (
            lambda site: site.add_node("x", field_local_identifier="GEH"),
            ItemError,
            "which is to be the collection",
        ),
        (
            lambda site: site.add_node("x", "Image", field_local_identifier="GEH_1_2", field_member_of=41),
            ItemError,
            "nodes 42, 43 have",
        ),
    ],
)
async def test_what_is_missing_is_named_before_anything_is_written(
    rig: Rig, breaks: Any, error: type[StepError], said: str
) -> None:
    """A look-up that cannot be done is refused, never guessed."""
    if "42, 43" in said:
        breaks(rig.site)
    breaks(rig.site)
    with pytest.raises(error, match=said):
        await rig.worker.preflight(rig.ctx, rig.options())
    assert rig.site.writes() == []


async def test_a_missing_field_is_named_where_the_sites_fields_can_be_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And left out when told."""
    monkeypatch.delitem(islandora_rules.NODE_FIELDS, "field_extent")
    with pytest.raises(TargetError, match="has no field_extent.*leave_out"):
        await rig.worker.preflight(rig.ctx, rig.options())
    await rig.worker.preflight(rig.ctx, rig.options(leave_out=["field_extent"]))
    await rig.run(leave_out=["field_extent"])
    rig.site.actions = False
    await rig.worker.preflight(rig.job(), rig.options())


async def test_only_what_the_model_needs_must_be_there(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site of single images has no pages, nor anything to count them."""
    monkeypatch.delitem(islandora_rules.NODE_FIELDS, "field_weight")
    with pytest.raises(TargetError, match=r"has no field_weight.*Add the field there$"):
        await rig.worker.preflight(rig.ctx, rig.options())
    for uri in ("https://schema.org/Book", "http://id.loc.gov/ontologies/bibframe/part"):
        rig.site.terms.pop(rig.site.tid(uri))
    with pytest.raises(TargetError, match=r"no term with the external URI https://schema.org/Book"):
        await rig.worker.preflight(rig.ctx, rig.options())
    await rig.worker.preflight(rig.ctx, rig.options(model="image"))
    nid = rig.site.add_node(
        "A map", "Image", field_local_identifier="GEH_1_2", field_member_of=rig.collection
    )
    facts = await rig.worker.preflight(rig.ctx, rig.options(model="image"))
    assert facts["objects"] == {"GEH_1_2": nid}


async def test_a_node_that_the_user_may_not_see_fails_its_own_folder(rig: Rig) -> None:
    """A curator's draft of the object: the View lists it, and Drupal shows it to nobody else."""
    nid = rig.site.add_node(
        "Draft", "Paged Content", field_local_identifier="GEH_1_2", field_member_of=rig.collection
    )
    rig.site.nodes[nid]["status"] = [{"value": False}]
    rig.site.permissions.discard("bypass node access")
    with pytest.raises(ItemError, match=f"may not see node {nid}.*bypass node access"):
        await rig.run()
    assert rig.site.writes() == []


async def test_a_collection_is_found_by_its_title_too(rig: Rig) -> None:
    """To the letter."""
    by_title = {"title": "Hale papers", "find": "/islandora/title"}
    assert (await rig.worker.preflight(rig.ctx, rig.options(collection=by_title)))[
        "collection"
    ] == rig.collection
    with pytest.raises(ItemError, match='the title "Hale"'):
        await rig.worker.preflight(
            rig.ctx, rig.options(collection={"title": "Hale", "find": "/islandora/title"})
        )


async def test_files_that_are_no_images_or_one_page_twice_are_refused(rig: Rig) -> None:
    """Nothing in a folder is passed over in silence."""
    (rig.payload / "notes.xml").write_text("x")
    rig.ctx = rig.job()
    with pytest.raises(ItemError, match="notes.xml is not an image"):
        await rig.run()
    (rig.payload / "notes.xml").rename(rig.payload / "GEH_1_2_1.tif")
    rig.ctx = rig.job()
    with pytest.raises(ItemError, match="two files would be the page GEH_1_2_1"):
        await rig.run()


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "https://me:secret@example.org"},
        {"use": "master"},
        {"use": "service", "service": "copies"},
        {"find": ""},
        {"storage": "../x"},
        {"bundles": {"jpg": "picture"}},
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    """Two kinds of files of one use would replace each other."""
    given = {"url": "https://example.org", "user": "u", "credential": "c", "collection": "x"}
    with pytest.raises(ValidationError):
        IslandoraOptions.model_validate({**given, **wrong})


# -- waiting, plan, doctor, verify -------------------------------------------------------------------


async def test_a_thumbnail_is_waited_for_and_recorded_once_it_is_there(rig: Rig) -> None:
    """Polls look at little, and every location is recorded again."""
    rig.site.derives_after = 3
    result = await rig.run(wait_for="thumbnail")
    polls = 0
    while isinstance(result, Wait):
        polls += 1
        rig.ctx.again()
        rig.ctx.saved = json.loads(json.dumps(result.state))
        before = len(rig.site.calls)
        result = await rig.run(wait_for="thumbnail")
        assert len(rig.site.calls) - before < 10
    assert polls >= 1
    assert set(rig.uses()) == {"page", "manifest", "thumbnail"}
    assert len([place for place in rig.ctx.locations if not place.use]) == 3


async def test_a_thumbnail_that_never_comes_is_not_waited_for_for_ever(rig: Rig) -> None:
    """The step is done, with a warning."""
    result = await rig.run(wait_for="thumbnail", wait_at_most=0)
    assert isinstance(result, Done)
    assert "no thumbnail after" in result.detail
    assert [event.outcome for event in rig.ctx.events].count("warning") == 1
    assert "thumbnail" not in rig.uses()


async def test_a_plan_names_what_would_be_and_asks_nobody(rig: Rig) -> None:
    """By the facts of preflight."""
    rig.ctx.found[rig.ctx.step] = dict(await rig.worker.preflight(rig.ctx, rig.options()))
    before = len(rig.site.calls)
    planned = [p async for p in rig.worker.plan(rig.ctx, rig.options())]
    assert [(p.action, p.what) for p in planned][:3] == [
        ("create", "GEH_1_2"),
        ("create", "GEH_1_2_1"),
        ("send", "GEH_1_2_1.jpg"),
    ]
    assert len(rig.site.calls) == before
    assert len(rig.ctx.locations) == 4
    rig.ctx = rig.job()
    await rig.run()
    rig.ctx.found[rig.ctx.step] = dict(await rig.worker.preflight(rig.ctx, rig.options()))
    assert ("keep", "GEH_1_2") in [(p.action, p.what) async for p in rig.worker.plan(rig.ctx, rig.options())]


async def test_doctor_says_what_is_there_and_what_to_add(rig: Rig) -> None:
    """Every thing by itself, and nothing is written."""
    said = [
        s async for s in rig.worker.doctor(rig.options(members="/islandora/members"), lambda name: PASSWORD)
    ]
    assert all(ok for ok, _ in said), said
    assert any("reports SHA-256" in text for _, text in said)
    rig.site.terms.pop(rig.site.tid(ORIGINAL))
    rig.site.hashes = rig.site.exposed = False
    said = [s async for s in rig.worker.doctor(rig.options(), lambda name: PASSWORD)]
    wrong = [text for ok, text in said if not ok]
    assert len(wrong) == 3
    assert "Add it to the vocabulary" in wrong[0]
    assert "Expose its filter under the name field_local_identifier" in wrong[1]
    assert "files are read back instead" in wrong[2]
    said = [s async for s in rig.worker.doctor(rig.options(), lambda name: "WRONG")]
    assert [ok for ok, _ in said] == [False]
    assert "WRONG" not in said[0][1]
    assert rig.site.writes() == []


async def test_a_view_that_may_be_cut_is_named_where_a_look_up_depends_on_it(rig: Rig) -> None:
    """By doctor, from the members of the collection; by a look-up of a title that ten nodes contain."""
    for number in range(12):
        rig.site.add_node(f"Letter {number}", "Image", field_member_of=rig.collection)
    rig.site.pager = 10

    async def doctor(**more: Any) -> list[str]:
        options = rig.options(members="/islandora/members", **more)
        return [text async for ok, text in rig.worker.doctor(options, lambda name: PASSWORD) if not ok]

    (said,) = await doctor()
    assert "the View at /islandora/members shows 10 nodes" in said
    assert "lists_all: true" in said
    assert await doctor(lists_all=True) == []
    rig.site.pager = 0
    assert await doctor() == []
    rig.site.pager, rig.site.contains = 5, True
    by_title = {"title": "Letter 11", "find": "/islandora/title"}
    with pytest.raises(TargetError, match='the View at /islandora/title shows 5 nodes for "Letter 11"'):
        await rig.worker.preflight(rig.ctx, rig.options(collection=by_title))


async def test_doctor_says_what_cannot_be_told_before_something_is_written(rig: Rig) -> None:
    """Fields that are not told, and permissions that Drupal tells nobody."""
    options = rig.options(publish=False)
    said = [s async for s in rig.worker.doctor(options, lambda name: PASSWORD)]
    assert all(ok for ok, _ in said)
    assert "`bypass node access` (for pages) and `view own unpublished media`" in said[-1][1]
    rig.site.actions = False
    wrong = [text async for ok, text in rig.worker.doctor(rig.options(), lambda name: PASSWORD) if not ok]
    assert len(wrong) == 1
    assert "does not tell its fields" in wrong[0]
    rig.site.permissions.add("administer node fields")  # core tells them to who may administer them
    assert [
        text async for ok, text in rig.worker.doctor(rig.options(), lambda name: PASSWORD) if not ok
    ] == []


async def test_verify_of_a_receipt_of_the_version_before_asks_no_more_than_that_said(rig: Rig) -> None:
    """A manifest that "answered 200" showed nothing perhaps."""
    await rig.run()
    rig.site.media.clear()
    places = [
        dataclasses.replace(place, verified_by="answered 200") for place in rig.ctx.locations if place.use
    ]
    said: list[bool] = []
    ctx = VerifyContext(
        locations=lambda: iter(places),
        source=None,
        env={},
        report=lambda ok, uri, text: said.append(ok),
        secret=lambda name: PASSWORD,
    )
    await rig.worker.verify(ctx, rig.options())
    assert said == [True, True]


async def test_doctor_warns_of_a_password_in_the_clear(rig: Rig) -> None:
    """Basic authentication is only as secret as the connection."""
    options = rig.options(url="http://islandora.invalid")
    ok, text = await anext(rig.worker.doctor(options, lambda name: PASSWORD))
    assert not ok
    assert "unencrypted" in text


async def test_verify_finds_what_is_no_longer_as_it_was(rig: Rig) -> None:
    """By the hash that the site computes now."""
    await rig.run()
    said: dict[str, tuple[bool, str]] = {}

    async def verify() -> list[str]:
        said.clear()
        ctx = VerifyContext(
            locations=lambda: iter(rig.ctx.locations),
            source=None,
            env={},
            report=lambda ok, uri, text: said.update({uri: (ok, text)}),
            secret=lambda name: PASSWORD,
        )
        await rig.worker.verify(ctx, rig.options())
        return sorted(text for ok, text in said.values() if not ok)

    assert await verify() == []
    assert len(said) == 5
    assert {call.status for call in rig.site.calls} <= {200, 201, 204}
    nid = rig.site.nid("GEH_1_2")
    shown = rig.site.media.copy()
    rig.site.media.clear()
    assert await verify() == ["shows no page"]
    rig.site.media.update(shown)
    rig.object["status"] = [{"value": False}]
    assert await verify() == ["answers 404"]  # the manifest; the page is searched for as the user
    rig.object["status"] = [{"value": True}]
    rig.site.aliases[nid] = "/letters"
    first, second, _ = rig.site.files
    rig.site.corrupt(first)
    del rig.site.files[second]
    del rig.site.nodes[rig.site.nid("GEH_1_2")]
    assert await verify() == ["answers 404", "answers 404", "is another file now", "is missing"]


# -- undo ---------------------------------------------------------------------------------------------


async def test_verify_of_what_is_hidden_looks_for_the_page_as_the_user(rig: Rig) -> None:
    """The public may not see it, and Drupal refuses credentials for it but as JSON."""
    rig.site.aliases = dict.fromkeys(range(40, 60), "")
    await rig.run(publish=False)
    said: list[tuple[bool, str, str]] = []
    ctx = VerifyContext(
        locations=lambda: iter(rig.ctx.locations),
        source=None,
        env={},
        report=lambda ok, uri, text: said.append((ok, uri, text)),
        secret=lambda name: PASSWORD,
    )
    await rig.worker.verify(ctx, rig.options(publish=False))
    assert [text for ok, _, text in said if not ok] == []
    await rig.worker.verify(ctx, rig.options(publish=True))
    assert [text for ok, _, text in said if not ok] == ["answers 403"]


@pytest.mark.parametrize("standalone", [False, True])
async def test_undo_leaves_exactly_what_was_there_before(rig: Rig, standalone: bool) -> None:
    """Also what the site has derived since; asked again it has nothing to do."""
    rig.site.standalone = standalone
    before = rig.site.content()
    rig.site.derives_after = 0
    await rig.run()
    for nid in list(rig.site.nodes):
        rig.site._derive(nid)
    assert len(rig.site.media) == 6
    would = await rig.undo(dry_run=True)
    assert len(rig.site.media) == 6
    said = await rig.undo()
    assert rig.site.content() == before
    assert all(ok for ok, _, _ in said)
    assert sorted(would) == sorted(said)
    assert await rig.undo() == []


async def test_undo_leaves_what_others_changed(rig: Rig) -> None:
    """An edited page, a media that was renamed, one that was added: and the object above them."""
    await rig.run(members="/islandora/members")
    first, second, third = (rig.site.nid(f"GEH_1_2_{n}") for n in (1, 2, 10))
    rig.site.edit_node(first, title="Edited")
    mid = next(mid for mid, one in rig.site.media.items() if one["nid"] == second)
    rig.site.edit_media(mid, "Renamed")
    rig.site.add_media(third, SERVICE, b"by hand", "h.jp2", "file")
    said = await rig.undo(members="/islandora/members")
    assert {first, second, third, rig.site.nid("GEH_1_2")} <= set(rig.site.nodes)
    assert mid in rig.site.media
    reasons = {text for ok, _, text in said if not ok}
    assert "the node stays: it was changed since" in reasons
    assert f"media {mid} stays: it was changed since" in reasons
    assert len(rig.media()) == 3  # a page that stays keeps its image
    assert sum("its node stays" in reason for ok, _, reason in said if not ok) == 2
    assert "the node stays: others have added media to it" in reasons
    assert "the node stays: a page of it stays" in reasons


@pytest.mark.parametrize("kind", [500, 403])
async def test_undo_goes_on_past_what_cannot_be_looked_at(rig: Rig, kind: int) -> None:
    """One page that the site cannot show stays with its image, and so does its object."""
    await rig.run()
    stuck = rig.site.nid("GEH_1_2_2")
    rig.site.faults = [Fault("GET", f"/node/{stuck}$", kind, times=99)]
    said = await rig.undo()
    assert {rig.site.nid("GEH_1_2"), stuck} == set(rig.site.nodes) - {rig.collection}
    assert [one["nid"] for one in rig.media()] == [stuck]
    assert sum(not ok for ok, _, _ in said) == 2
    rig.site.faults = []
    assert all(ok for ok, _, _ in await rig.undo())
    assert set(rig.site.nodes) == {rig.collection}


async def test_undo_leaves_an_object_that_others_added_pages_to(rig: Rig) -> None:
    """They would hang in the air."""
    await rig.run(members="/islandora/members")
    nid = rig.site.nid("GEH_1_2")
    rig.site.add_node("p. 4", "Page", field_member_of=nid, field_weight=4)
    said = await rig.undo(members="/islandora/members")
    assert nid in rig.site.nodes
    assert "the node stays: others have added members to it" in {text for _, _, text in said}


async def test_undo_leaves_what_an_earlier_job_made_though_this_one_meant_to(rig: Rig) -> None:
    """A View that lagged let this job try; the database refused, and the node found is the other job's."""
    await rig.run()
    for node in rig.site.nodes.values():
        node["created"] -= 60
    before = rig.site.content()
    rig.ctx = rig.job()
    rig.site._unseen = dict.fromkeys(rig.site.nodes, 0) | {rig.site.nid("GEH_1_2"): 3}
    await rig.run()
    assert [call.status for call in rig.site.calls if call.method == "POST"].count(500) == 1
    assert [text for _, _, text in await rig.undo()] == ["the node stays: it was there before this job"]
    assert rig.site.content() == before


async def test_undo_gives_fields_back_and_leaves_what_was_there_already(rig: Rig) -> None:
    """A node of the cataloguer's loses only what was added to it."""
    nid = rig.site.add_node(
        "By hand", "Paged Content", field_local_identifier="GEH_1_2", field_member_of=rig.collection
    )
    rig.site.nodes[nid]["field_note"] = [{"value": "A note", "format": "basic_html"}]
    rig.description = Description.model_validate({**KNOWN, "rights": "No " * 100})
    rig.ctx = rig.job()
    before = rig.site.content()
    rig.site.actions = False
    await rig.run(members="/islandora/members", update="all")
    assert rig.object["field_note"][0]["value"].startswith("Rights: No")
    assert rig.object["field_note"][1]["value"] == "A note"
    assert rig.object["title"] == [{"value": "Letters of the year 1951"}]
    await rig.undo(members="/islandora/members")
    after = rig.site.content()
    for node in after["nodes"]:
        for name in [name for name, items in node.items() if items == []]:
            del node[name]
    for node in before["nodes"]:
        for name in [name for name, items in node.items() if items == []]:
            del node[name]
    assert after == before
    assert nid in rig.site.nodes


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("PUT", "/media/", "drop", after=True)],
        # The look for what a broken request left fails as well: its number is never learnt.
        [Fault("POST", "/node$", "drop", after=True, skip=1), Fault("GET", "/identifier", 503, skip=3)],
    ],
)
async def test_undo_after_a_crash_finds_what_was_begun(rig: Rig, faults: list[Fault]) -> None:
    """What was created and not noted is known by its UUID, its place and its hash."""
    before = rig.site.content()
    rig.site.faults = faults
    with pytest.raises(TransientError):
        await rig.run(parallel=1)
    assert len(rig.site.nodes) == 3
    assert all(ok for ok, _, _ in await rig.undo())
    assert rig.site.content() == before


async def test_undo_says_which_files_stay_when_the_user_may_not_delete_them(rig: Rig) -> None:
    """A permission of its own."""
    rig.site.permissions.discard("delete own files")
    await rig.run()
    said = await rig.undo()
    assert sum("its file stays" in text and "delete own files" in text for _, _, text in said) == 3


async def test_the_ledger_speaks_before_the_site_is_asked(rig: Rig) -> None:
    """Whatever was created stands in it as intended, by the time the request arrives."""
    missing = []

    async def look(call: Any, after: bool) -> None:
        if after or not call.writes:
            return
        notes = list(lines(rig.ctx.ledger))
        intended = [n for n in notes if "uuid" in n and "node" in n and "nid" not in n]
        sent = [c for c in rig.site.writes() if c.method == "POST"]
        if call.method == "POST" and len(intended) < len(sent):
            missing.append(call.path)
        puts = [c for c in rig.site.writes() if c.method == "PUT"]
        if call.method == "PUT" and len([n for n in notes if "was" in n and "mid" not in n]) < len(puts):
            missing.append(call.path)

    rig.site.at_call = look
    await rig.run()
    assert missing == []
    assert rig.ctx.fences >= len(rig.site.writes())
    assert UID == 7


@pytest.mark.parametrize(("pages", "again"), budget([(1000, False), (100, True)], (100, True)))
async def test_a_thousand_pages_take_a_counted_number_of_calls(
    tmp_path: Path, pages: int, again: bool
) -> None:
    """Per new page: a node, a file, a look, its alt text, a hash. Again: three looks each, no writes."""
    async with served(Islandora()) as site:
        rig = Rig(tmp_path, site, {f"p{n:04}.jpg": f"{n}" for n in range(pages)})
        await rig.run(members="/islandora/members", parallel=8)
        assert len(rig.media()) == pages
        weights = [page["field_weight"][0]["value"] for page in site.pages(site.nid("GEH_1_2"))]
        assert weights == list(range(1, pages + 1))
        assert len(site.calls) < 5 * pages + 40
        assert len(site.writes()) == 3 * pages + 1
        if again:
            before = len(site.calls)
            assert await rig.again(members="/islandora/members", parallel=8) == []
            assert len(site.calls) - before < 3 * pages + 40


async def test_locations_are_those_of_the_contract(rig: Rig) -> None:
    """What the archivesspace worker reads of them."""
    await rig.run()
    assert all(isinstance(place, Location) for place in rig.ctx.locations)
    assert all(place.uri.startswith("http") for place in rig.ctx.locations)


async def test_a_folder_goes_through_the_engine_and_is_undone_by_command(tmp_path: Path) -> None:
    """Facts, ledger and receipt lie where the contract puts them; a fault is tried again by itself."""
    async with served(Islandora()) as site:
        site.add_node("Hale papers", field_local_identifier="GEH")
        before = site.content()
        site.faults = [Fault("PUT", "/media/", "drop", after=True), Fault("POST", "/node$", 503, skip=1)]
        harness = Harness(
            tmp_path / "root",
            f"""
            root: .
            retry: {{attempts: 5, first: 1ms, most: 2ms}}
            space: {{floor: 0}}
            pipelines:
              objects:
                match: "(?P<object>[A-Z]+_[0-9]+)"
                steps:
                  - islandora: {{url: "{site.base}", user: dittohead, credential: password, collection: GEH}}
            """,
        )
        harness.engine.secret = {"password": PASSWORD}.__getitem__
        harness.arrive("GEH_1", {"GEH_1_1.jpg": "one", "GEH_1_2.jpg": "two"})
        async with harness.running():
            job = await harness.until_over("GEH_1")
        assert job.error is None
        fields = json.loads(receipt.path_of(harness.stations.receipts, job).read_bytes())
        uses = [place.get("use", "") for place in fields["locations"]]
        assert sorted(uses) == ["", "", "manifest", "page"]
        assert (len(site.nodes), len(site.media)) == (4, 2)
        undone = await undo_job(
            job,
            harness.store,
            harness.stations,
            harness.workers,
            {"password": PASSWORD}.__getitem__,
            dry_run=False,
        )
        assert undone.kept == []
        assert site.content() == before
        harness.store.close()


async def test_the_plan_of_a_folder_names_each_node_and_file(tmp_path: Path) -> None:
    """By the command's own way, with what preflight found."""
    async with served(Islandora()) as site:
        site.add_node("Hale papers", field_local_identifier="GEH")
        config = tmp_path / "root" / "config.yaml"
        config.parent.mkdir()
        config.write_text(
            "root: .\npipelines:\n  p:\n    match: 'GEH_.*'\n    steps:\n"
            f"      - islandora: {{url: '{site.base}', user: dittohead, credential: p, collection: GEH}}\n"
        )
        folder = tree(tmp_path / "GEH_1", {"GEH_1_1.jpg": "one", "GEH_1_2.jpg": "two"})
        (tmp_path / "scratch").mkdir()
        workers = default()
        made = await plan(
            load(config, workers), workers, lambda name: PASSWORD, folder, "GEH_1", tmp_path / "scratch"
        )
        (step,) = made.steps
        assert step.problem == ""
        assert step.do is not None
        said = repr([planned async for planned in step.do()])
        for word in ("GEH_1_1.jpg", "GEH_1_2.jpg", f"POST {site.base}/node", "paged content, 2 pages"):
            assert word in said
        assert site.writes() == []
