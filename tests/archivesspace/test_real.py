"""What a whole ArchivesSpace (v4.2.1) did to folders, and what happens to them now; see docs/simulators.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dittohead import __version__
from dittohead.config.loader import load
from dittohead.config.registry import default
from dittohead.contract.placeholders import render_options
from dittohead.model.errors import ConfigError, ItemError, TargetError, TransientError
from dittohead.model.records import Entry
from dittohead.workers.archivesspace.component_names import Naming
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from dittohead.workers.archivesspace.worker import ArchivesSpaceWorker
from tests.archivesspace.conftest import object_there, pages, shown, the
from tests.support.archivesspace import ArchivesSpace, Call, Fault
from tests.support.archivesspace_job import AO, NAME, SECRETS, Job, furnish

R = "/repositories/2"
OTHER, OTHER_AO = "HBF_001_07", f"{R}/archival_objects/8"


def ids(site: ArchivesSpace, id_: str = NAME) -> list[str]:
    return [one["component_id"] for one in pages(site, id_)]


async def refused(job: Job, site: ArchivesSpace) -> str:
    """Return why preflight refuses; nothing was written."""
    with pytest.raises(ItemError) as error:
        await job.preflight()
    assert site.posts == []
    return str(error.value)


# -- ids of components are unique in the repository ------------------------------------------


async def test_a_second_folder_of_the_same_names(site: ArchivesSpace, tmp_path: Path) -> None:
    """As scanners name them: each folder begins with 0001.tif."""
    furnish(site, OTHER, OTHER_AO)
    names = ["0001.tif", "0002.tif"]
    await Job.made(tmp_path / "a", site.url, names, job="01JA").run()
    await Job.made(tmp_path / "b", site.url, names, name=OTHER, job="01JB").run()
    assert ids(site) == [f"{NAME}_0001", f"{NAME}_0002"]
    assert ids(site, OTHER) == [f"{OTHER}_0001", f"{OTHER}_0002"]


@pytest.mark.parametrize("stem", [f"{NAME}_0001", NAME, f"{NAME}-recto", f"{NAME}.1"])
async def test_a_name_that_says_its_object_stands_alone(
    site: ArchivesSpace, tmp_path: Path, stem: str
) -> None:
    await Job.made(tmp_path, site.url, [f"{stem}.tif", f"{NAME}1.tif"]).run()
    assert sorted(ids(site)) == sorted([stem, f"{NAME}_{NAME}1"])


async def test_two_objects_of_one_folder_have_the_same_names(site: ArchivesSpace, tmp_path: Path) -> None:
    """letters/0001 and photos/0001: each by its object; with ids that clash it is told before."""
    furnish(site, OTHER, OTHER_AO)
    files = ["letters/0001.tif", "photos/0001.tif"]
    list_ = f"file,component_id\n{files[0]},{NAME}\n{files[1]},{OTHER}\n"
    for options, fits in (({}, True), ({"component_id": "{stem}"}, False)):
        job = Job.made(tmp_path / str(fits), site.url, files, map="l.csv", name="mixed", **options)
        (tmp_path / str(fits) / "mixed" / "l.csv").write_text(list_)
        if fits:
            held = site.saved()
            await job.run()
            assert (ids(site), ids(site, OTHER)) == ([f"{NAME}_0001"], [f"{OTHER}_0001"])
            site.restore(held)
        else:
            assert "photos/0001.tif and letters/0001.tif (0001)" in await refused(job, site)


@pytest.mark.parametrize("there", ["0001", "a_É", "A_é", "a_e "])
async def test_a_taken_id_is_told_before_anything_is_written(
    site: ArchivesSpace, tmp_path: Path, there: str
) -> None:
    """With whose it is; by the database's collation, which knows neither capitals nor accents."""
    theirs = object_there(site, "THEIRS", to=())
    uri = site.add(
        f"{R}/digital_object_components/900",
        digital_object={"ref": theirs},
        component_id=there,
        label="l",
        publish=False,
    )
    said = await refused(Job.made(tmp_path, site.url, ["0001.tif", "a_e.tif"], component_id="{stem}"), site)
    assert f'by {uri} ("{there}") of {theirs}' in said
    assert "set component_id, such as {object-id}_{stem}" in said


async def test_with_linked_add_the_older_object_has_the_ids(site: ArchivesSpace, tmp_path: Path) -> None:
    older = object_there(site, "OLDER")
    site.add(
        f"{R}/digital_object_components/900",
        digital_object={"ref": older},
        component_id=f"{NAME}_0001",
        label="l",
        publish=False,
    )
    job = Job.made(tmp_path / "a", site.url, ["0001.tif"], linked="add")
    assert f'digital_object_components/900 ("{NAME}_0001") of {older}' in await refused(job, site)
    await Job.made(tmp_path / "b", site.url, ["0001.tif"], linked="add", digital_object_id="NEW").run()
    assert ids(site, "NEW") == ["NEW_0001"]


async def test_an_id_that_is_taken_after_the_look_is_told_in_the_servers_words(
    site: ArchivesSpace, tmp_path: Path
) -> None:
    """At once, and not as "again and again"."""
    theirs = object_there(site, "THEIRS", to=())
    job = Job.made(tmp_path, site.url, ["0001.tif"])
    await job.preflight()
    site.add(
        f"{R}/digital_object_components/900",
        digital_object={"ref": theirs},
        component_id=f"{NAME}_0001",
        label="l",
        publish=False,
    )
    with pytest.raises(ItemError) as error:
        await job.run()
    said = str(error.value)
    assert f"by {R}/digital_object_components/900 of {theirs}" in said
    assert f"Duplicate entry '2-{NAME}_0001' for key 'doc_unique_identifier'" in said
    assert len([call for call in site.calls if call.path.endswith("/children")]) == 1


@pytest.mark.parametrize("known", ["by its ledger", "by its copy"])
async def test_what_an_earlier_version_recorded_keeps_its_ids(
    site: ArchivesSpace, tmp_path: Path, known: str
) -> None:
    """Another run writes nothing, also of events; a new page comes in its place; verify and undo hold for both."""
    before = site.state()
    old = Job.made(tmp_path, site.url, ["1.tif", "3.tif"], component_id="{stem}", events=True, job="01JOLD")
    places = (await old.run()).locations
    if known == "by its copy":
        text = old.ledger.read_bytes()
        old.ledger.unlink()
    count = len(site.posts)
    again = Job.made(tmp_path, site.url, ["1.tif", "3.tif"], events=True, job="01JAGAIN")
    again_places = (await again.run()).locations
    assert site.posts[count:] == []
    assert [one async for one in again.worker.plan(again.context(), again.options) if one.action != "keep"][
        :-1
    ] == []
    moved, new = ("moved", "2") if known == "by its ledger" else ("preservation", "4")
    later = Job.made(tmp_path, site.url, ["1.tif", f"{new}.tif", "3.tif"], bucket=moved, job="01JLATER")
    later_places = (await later.run()).locations
    assert sorted(ids(site)) == sorted(["1", f"{NAME}_{new}", "3"])
    assert ids(site).index(f"{NAME}_{new}") == int(new) // 2
    for job, some in ((old, places), (again, again_places), (later, later_places)):
        assert [problem for ok, _, problem in await job.verify(some) if not ok] == []
    assert all(gone for gone, _, _ in await later.undo())
    assert ids(site) == ["1", "3"]
    assert [len(one["file_versions"]) for one in pages(site)] == [1, 1]
    if known == "by its copy":
        old.ledger.write_bytes(text)
    await old.undo()
    agents = [uri for uri in site.records if uri.startswith("/agents/software/")]
    site.remove(agents[0])
    assert site.state() == before


async def test_a_half_recorded_folder_of_an_earlier_version_goes_on(
    site: ArchivesSpace, tmp_path: Path
) -> None:
    """Its options came with the old default, its facts without what is new."""
    job = Job.made(tmp_path, site.url, ["1.tif", "2.tif"], component_id="{stem}")
    await job.preflight()
    facts = json.loads(job.facts.read_text())
    for one in facts["objects"]:
        one.pop("markup")
    site.faults.append(Fault(r"POST .*/children", "503", after=True, times=1))
    site.faults.append(Fault(r"GET .*/tree/root", "503", times=9))
    job.facts.write_text(json.dumps(facts))
    with pytest.raises(TransientError):
        await job.run()
    site.faults.clear()
    after = Job.made(tmp_path, site.url, ["1.tif", "2.tif"])
    after.facts.write_text(json.dumps(facts))
    await after.run()
    assert len(pages(site)) == 2


# -- what is suppressed ----------------------------------------------------------------------


def suppressed_links(site: ArchivesSpace) -> str:
    """Link the archival object to a digital object and an accession, and suppress both."""
    theirs = object_there(site, "THEIRS")
    accession = site.add(f"{R}/accessions/5", title="Gift")
    old = site.records[AO]
    site.save(AO, "archival_object", {**old, "accession_links": [{"ref": accession}]}, "staff")
    site.suppress(theirs)
    site.suppress(accession)
    return theirs


async def test_without_sight_of_what_is_suppressed_nothing_is_saved(
    site: ArchivesSpace, tmp_path: Path
) -> None:
    """It would lose its links; the user lacks the right."""
    suppressed_links(site)
    site.permissions["dittohead"] -= {"view_suppressed"}
    for options in ({}, {"linked": "add"}, {"linked": "use"}):
        with pytest.raises(TargetError, match="lacks view_suppressed.*would lose its links"):
            await Job.made(tmp_path, site.url, 1, **options).run()
    assert site.posts == []
    assert (await Job.made(tmp_path, site.url, 1, write=False).preflight())["objects"] == []


@pytest.mark.parametrize("right", ["view_suppressed", "manage_repository", "suppress_archival_record"])
@pytest.mark.parametrize("own", [None, {"publish": True}, {"show_suppressed": False}])
async def test_links_to_what_is_suppressed_stay(
    site: ArchivesSpace, tmp_path: Path, right: str, own: dict[str, Any] | None
) -> None:
    """The user's preference is set where only that is missing; what it preferred besides stays. Undo as well."""
    theirs = suppressed_links(site)
    site.permissions["dittohead"] = site.permissions["dittohead"] - {"view_suppressed"} | {right}
    site.preferences.pop("dittohead")
    if own is not None:
        site.preferences["dittohead"] = {"lock_version": 3, "defaults": own}
    before = site.state()
    job = Job.made(tmp_path, site.url, 2, linked="add")
    await job.run()
    assert [one["digital_object"]["ref"] for one in site.shown(AO)["instances"]] == [theirs, the(site)["uri"]]
    assert site.shown(AO)["accession_links"] == [{"ref": f"{R}/accessions/5"}]
    assert site.preferences["dittohead"]["defaults"] == {**(own or {}), "show_suppressed": True}
    site.preferences.pop("dittohead")
    assert all(gone for gone, _, _ in await job.undo())
    assert site.state() == before


async def test_what_is_suppressed_counts_as_linked(site: ArchivesSpace, tmp_path: Path) -> None:
    """`refuse` protects what nobody else can see."""
    theirs = suppressed_links(site)
    assert f"has {theirs} already" in await refused(Job.made(tmp_path, site.url, 1), site)


async def test_a_plan_sets_no_preference(site: ArchivesSpace, tmp_path: Path) -> None:
    site.preferences.clear()
    job = Job.made(tmp_path, site.url, 1)
    ctx = job.context()
    ctx.dry_run = True
    await job.worker.preflight(ctx, job.options)
    said = [one async for one in job.worker.doctor(job.options, SECRETS.__getitem__)]
    assert [words for ok, words in said if not ok] == []
    assert any("as soon as the first job sets its preference" in words for _, words in said)
    assert (site.posts, site.preferences) == ([], {})


async def test_a_preference_that_cannot_be_set_pauses_the_site(site: ArchivesSpace, tmp_path: Path) -> None:
    site.preferences.clear()
    site.faults.append(Fault(r"POST .*/preferences", "400", body=b'{"error": "no"}'))
    with pytest.raises(TargetError, match="not shown suppressed records.*tick Show Suppressed"):
        await Job.made(tmp_path, site.url, 1).run()
    assert site.posts == []


@pytest.mark.parametrize("when", ["before", "after the look"])
async def test_a_suppressed_object_is_not_recorded_into(
    site: ArchivesSpace, tmp_path: Path, when: str
) -> None:
    theirs = object_there(site)
    job = Job.made(tmp_path, site.url, 1)
    if when == "before":
        site.suppress(theirs)
        assert f"{theirs} is suppressed" in await refused(job, site)
        return
    await job.preflight()
    site.suppress(theirs)
    with pytest.raises(ItemError, match="is suppressed, and nobody would see it"):
        await job.run()
    assert site.posts == []


async def test_an_archival_object_that_is_suppressed_after_the_look(
    site: ArchivesSpace, tmp_path: Path
) -> None:
    job = Job.made(tmp_path, site.url, 1)
    await job.preflight()
    site.suppress(AO)
    with pytest.raises(ItemError, match="is suppressed now; nothing was recorded"):
        await job.run()
    assert site.posts == []


async def test_what_cannot_be_seen_ends_with_the_servers_words(site: ArchivesSpace, tmp_path: Path) -> None:
    """The right was taken away between the look and the writing: once, not again and again."""
    theirs = object_there(site, to=())
    job = Job.made(tmp_path, site.url, 1)
    site.suppress(theirs)
    site.preferences.clear()
    ctx = job.context()
    ctx.dry_run = True
    job.facts.write_text(json.dumps(dict(await job.worker.preflight(ctx, job.options))))
    with pytest.raises(ItemError, match="digital_object_id: Must be unique.*may be suppressed"):
        await job.run()
    posts = [call for call in site.calls if call.method == "POST" and call.path.endswith("/digital_objects")]
    assert len(posts) == 1


async def test_verify_does_not_call_gone_what_it_may_not_see(site: ArchivesSpace, tmp_path: Path) -> None:
    job = Job.made(tmp_path, site.url, 2)
    places = (await job.run()).locations
    second = pages(site)[1]["uri"]
    site.suppress(second)
    assert [problem for ok, _, problem in await job.verify(places) if not ok] == []
    site.preferences.clear()
    [problem] = [problem for ok, _, problem in await job.verify(places) if not ok]
    assert problem.startswith("is gone, or suppressed")


# -- ids that differ by accents --------------------------------------------------------------


@pytest.mark.parametrize(
    "theirs", ["Mueller_Muller_1", "MUELLER_MÜLLER_1", "Mueller_Mûller_1", "Mueller_Müller_1 "]
)
@pytest.mark.parametrize("when", ["before", "after the look"])
async def test_an_id_like_it_is_somebody_elses(
    site: ArchivesSpace, tmp_path: Path, theirs: str, when: str
) -> None:
    """It cannot be given, and that one is not recorded into; both are named."""
    mine = "Mueller_Müller_1"
    furnish(site, mine, OTHER_AO)
    job = Job.made(tmp_path, site.url, 1, name=mine)
    if when == "before":
        uri = object_there(site, theirs, to=())
        assert f'{uri} is called "{theirs}"' in await refused(job, site)
    else:
        await job.preflight()
        uri = object_there(site, theirs, to=())
        with pytest.raises(ItemError, match=f'taken meanwhile, by {uri} \\("{theirs}"\\)'):
            await job.run()
    assert site.posts == []
    assert site.trees.get((uri, ""), []) == []


async def test_one_like_it_that_is_linked_is_its_own(site: ArchivesSpace, tmp_path: Path) -> None:
    """As staff have written it."""
    uri = object_there(site, NAME.lower())
    await Job.made(tmp_path, site.url, 1).run()
    assert len(site.trees[uri, ""]) == 1


async def test_an_archival_object_like_it_is_another(site: ArchivesSpace, tmp_path: Path) -> None:
    furnish(site, "Muller_1", OTHER_AO)
    said = await refused(Job.made(tmp_path, site.url, 1, name="Müller_1"), site)
    assert f'"Müller_1" is not there, but Muller_1 ({OTHER_AO}) is' in said


# -- texts that the database does not take ---------------------------------------------------


@pytest.mark.parametrize(
    ("title", "caption"),
    [
        ("T" * 400, "T" * 254 + "…"),
        ("é " * 200, ("é " * 127).rstrip() + "…"),
        ("Letters &lt;draft&gt; of 1912", "Letters <draft> of 1912, 1951"),
        ("&lt;script&gt; &amp; co", "<script> & co, 1951"),
        ("a &lt; b", "a < b, 1951"),
        ("H<sub>2</sub>O &#128220;", "H2O \ufffd, 1951"),
        ("<emph render='italic'>A</emph> “B”", "A “B”, 1951"),
    ],
)
async def test_any_title_is_taken(site: ArchivesSpace, tmp_path: Path, title: str, caption: str) -> None:
    """The digital object has the archival object's own; the caption is plain and has its length."""
    site.save(AO, "archival_object", {**site.records[AO], "title": title}, "staff")
    await Job.made(tmp_path, site.url, 1, access=shown(site)).run()
    assert the(site)["title"] == site.shown(AO)["display_string"]
    assert the(site)["file_versions"][0]["caption"] == caption


@pytest.mark.parametrize(
    "title", ["A <emph>broken title", "A</b>", '<a href="x>y</a>', "<i x=1>y</i>", "<script/>"]
)
@pytest.mark.parametrize("version", ["v4.1.1", "v4.2.1"])
async def test_a_malformed_title_is_told_where_it_is_refused(
    site: ArchivesSpace, tmp_path: Path, title: str, version: str
) -> None:
    """By 4.2.0 and later, before a digital object is left behind without its link; older ones take it."""
    site.version = "v4.1.1"
    site.save(AO, "archival_object", {**site.records[AO], "title": title}, "staff")
    site.version = version
    job = Job.made(tmp_path, site.url, 1)
    if version == "v4.2.1":
        assert f"the title of {AO} is not well-formed markup" in await refused(job, site)
    else:
        await job.run()
        assert the(site)["linked_instances"] == [{"ref": AO}]
        assert "<" not in the(site)["title"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a_📜.tif", {}),
        ("a_𠮷.tif", {}),
        ("a_📜.tif", {"component_id": "{object-id}_{sha256}"}),
        ("a_📜.tif", {"label": "page"}),
    ],
)
async def test_characters_that_it_cannot_hold_are_told_first(
    site: ArchivesSpace, tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    said = await refused(Job.made(tmp_path, site.url, ["1.tif", name], **options), site)
    assert f"{name} (ArchivesSpace's database cannot hold {name[2]}" in said


async def test_an_object_whose_name_it_cannot_hold(site: ArchivesSpace, tmp_path: Path) -> None:
    said = await refused(Job.made(tmp_path, site.url, 1, find="X📜", component_id="{stem}"), site)
    assert '"X📜" is not there' in said
    said = await refused(
        Job.made(tmp_path, site.url, 1, digital_object_id="X📜", component_id="{stem}"), site
    )
    assert "X📜: ArchivesSpace's database cannot hold 📜" in said


async def test_a_place_that_it_cannot_hold(site: ArchivesSpace, tmp_path: Path) -> None:
    job = Job.made(tmp_path, site.url, 1, bucket="📜")
    with pytest.raises(ItemError, match="cannot hold 📜.*where it is delivered to"):
        await job.run()
    assert site.posts == []


# -- races, and faults of the database -------------------------------------------------------


@pytest.mark.parametrize(
    "what", ["/agents/software", f"{R}/digital_objects", f"{R}/digital_object_components"]
)
async def test_two_at_the_very_same_time(site: ArchivesSpace, tmp_path: Path, what: str) -> None:
    """The other's comes between the server's check and its save: the database refuses, not the check."""
    initial = site.saved()
    ours = Job.made(tmp_path / "a", site.url, 2, events=True)
    await ours.run()
    wanted = site.state()
    made = [
        (uri, site.records[uri], site.extra.get(uri)) for uri in site.records if uri.startswith(what + "/")
    ]
    site.restore(initial)

    def other() -> None:
        for uri, record, _ in made[:1]:
            site.records[uri + "9"] = record | {"uri": uri + "9"}
            if "/digital_object_components/" in uri:
                key = (record["digital_object"]["ref"], "")
                site.trees.setdefault(key, []).append(uri + "9")

    site.between.append((what, other))
    job = Job.made(tmp_path / "b", site.url, 2, events=True)
    await job.run()
    assert [call.status for call in site.calls if call.status == 400] == [400]
    assert site.state()["links"] == wanted["links"]
    assert len(pages(site)) == 2


@pytest.mark.parametrize("words", ["Lock wait timeout exceeded", "Deadlock found", "Connection is closed"])
@pytest.mark.parametrize(
    "write",
    ["digital_objects", r"digital_objects/\d+/children", r"archival_objects/\d+", "events", "software"],
)
async def test_a_fault_that_passes_is_waited_out(
    site: ArchivesSpace, tmp_path: Path, write: str, words: str
) -> None:
    body = json.dumps({"error": {"db_error": [f"Database integrity constraint conflict: {words}"]}}).encode()
    site.faults.append(Fault(f"POST .*/{write}", "400", body=body))
    await Job.made(tmp_path, site.url, 2, events=True).run()
    assert len(pages(site)) == 2
    assert len([uri for uri in site.records if "/events/" in uri]) == 4


async def test_a_fault_that_stays_is_told(site: ArchivesSpace, tmp_path: Path) -> None:
    body = json.dumps({"error": {"db_error": ["x: Data too long for column 'label' at row 1"]}}).encode()
    site.faults.append(Fault("POST .*/children", "400", body=body, times=9))
    with pytest.raises(ItemError, match="Data too long for column 'label'"):
        await Job.made(tmp_path, site.url, 1).run()
    assert len([call for call in site.calls if call.path.endswith("/children")]) == 1


# -- permissions, agents, arks, pages --------------------------------------------------------


async def test_who_may_not_create_agents_names_one(site: ArchivesSpace, tmp_path: Path) -> None:
    """It is asked for where the agent is missing alone; an agent that is none is told first."""
    site.permissions["dittohead"] -= {"manage_agent_record"}
    said = await refused(Job.made(tmp_path, site.url, 1, events=True), site)
    assert f'there is no agent "dittohead {__version__}" yet' in said
    assert 'manage_agent_record ("create/update/delete agents (system-wide)")' in said
    name = {"software_name": "Ingest", "version": "1", "sort_name": "I", "source": "local"}
    agent = site.add("/agents/software/3", names=[name])
    job = Job.made(tmp_path, site.url, 1, events=True, agent="/agents/software/4")
    assert "there is no /agents/software/4" in await refused(job, site)
    await Job.made(tmp_path, site.url, 1, events=True, agent=agent).run()
    events = [one for uri, one in site.records.items() if "/events/" in uri]
    assert {one["linked_agents"][0]["ref"] for one in events} == {agent}


async def test_an_agent_that_is_there_needs_no_right(site: ArchivesSpace, tmp_path: Path) -> None:
    name = {"software_name": "dittohead", "version": __version__, "sort_name": "I", "source": "local"}
    site.add("/agents/software/3", names=[name])
    site.permissions["dittohead"] -= {"manage_agent_record"}
    await Job.made(tmp_path, site.url, 1, events=True).run()
    assert len([uri for uri in site.records if uri.startswith("/agents/")]) == 1


async def test_doctor_says_what_undo_of_events_needs(site: ArchivesSpace, tmp_path: Path) -> None:
    site.permissions["dittohead"] -= {"delete_event_record", "view_suppressed", "manage_agent_record"}
    job = Job.made(tmp_path, site.url, 1, events=True)
    said = [one async for one in job.worker.doctor(job.options, SECRETS.__getitem__)]
    assert (True, 'undo cannot delete events (delete_event_record ("delete events"))') in said
    bad = [words for ok, words in said if not ok]
    assert any("lacks view_suppressed" in words for words in bad)
    assert any("may not create one" in words for words in bad)


@pytest.mark.parametrize(
    ("stored", "external", "asked", "found"),
    [
        ("https://x.org/ark:/99999/f1", "", "ark:/99999/f1", True),
        ("https://x.org/ark:/99999/f1", "", "https://x.org/ark:/99999/f1", True),
        ("https://x.org/ark:/99999/f1", "", "https://elsewhere.org/ark:/99999/f1", True),
        ("", "https://n2t.net/ark:/12345/abc", "ark:/12345/abc", True),
        ("", "https://n2t.net/ark:/12345/abc", "https://n2t.net/ark:/12345/abc", True),
        ("", "https://other.org/ark:/12345/abc", "https://other.org/ark:/12345/abc", True),
        ("", "https://other.org/ark:/12345/abc", "ark:/12345/abc", False),
        ("https://x.org/ark:/99999/F1", "", "ark:/99999/f1", False),
    ],
)
async def test_arks(
    site: ArchivesSpace, tmp_path: Path, stored: str, external: str, asked: str, found: bool
) -> None:
    """Minted ones are stored bare, external ones as the whole address; capitals count here, if not there."""
    if stored:
        site.extra[AO]["ark_name"] = {"current": stored}
    site.save(AO, "archival_object", {**site.records[AO], "external_ark_url": external}, "staff")
    job = Job.made(tmp_path, site.url, 1, by="ark", find=asked, digital_object_id="DO-1")
    if found:
        await job.run()
        assert the(site, "DO-1")["linked_instances"] == [{"ref": AO}]
    else:
        assert f'"{asked}" is not there' in await refused(job, site)


@pytest.mark.parametrize("most", [150, 10])
async def test_a_site_that_lists_fewer_at_once(site: ArchivesSpace, tmp_path: Path, most: int) -> None:
    site.page_most = most
    job = Job.made(tmp_path, site.url, 210)
    places = (await job.run()).locations
    assert len(pages(site)) == 210
    assert [problem for ok, _, problem in await job.verify(places) if not ok] == []


async def test_without_a_page_a_click_does_not_open_the_manifest(site: ArchivesSpace, tmp_path: Path) -> None:
    """What comes next to the thumbnail is what a click on it opens."""
    some = [one for one in shown(site) if one[0] != "page"]
    await Job.made(tmp_path, site.url, 1, access=some).run()
    assert [one["use_statement"] for one in the(site)["file_versions"]] == ["text-json", "image-thumbnail"]


async def test_a_colleague_without_sight_loses_nothing_of_ours_to_our_save(
    site: ArchivesSpace, tmp_path: Path
) -> None:
    """What is suppressed between our look and our save is read again."""
    theirs = object_there(site, "THEIRS")

    async def suppress(call: Call) -> None:
        site.suppress(theirs)

    site.before.append((rf"GET {AO}", suppress))
    await Job.made(tmp_path, site.url, 1, linked="add").run()
    assert [one["digital_object"]["ref"] for one in site.shown(AO)["instances"]] == [theirs, the(site)["uri"]]


# -- what staff have deleted -----------------------------------------------------------------


@pytest.mark.parametrize("what", ["digital object", "component"])
async def test_what_staff_deleted_is_made_anew(site: ArchivesSpace, tmp_path: Path, what: str) -> None:
    """Verify says that it is gone, and another run of the folder makes it as it was, in its place."""
    job = Job.made(tmp_path, site.url, 3, access=shown(site))
    places = (await job.run()).locations
    wanted = site.state()
    site.remove(the(site)["uri"] if what == "digital object" else pages(site)[1]["uri"])
    said = {problem for ok, _, problem in await job.verify(places) if not ok}
    assert said == (
        {"is gone", "is no longer linked to the digital object"} if what == "digital object" else {"is gone"}
    )
    again = Job.made(tmp_path, site.url, 3, access=shown(site), job="01JAGAIN")
    places = (await again.run()).locations
    assert site.state() == wanted
    assert [problem for ok, _, problem in await again.verify(places) if not ok] == []
    assert all(gone for gone, _, _ in await again.undo())


# -- the id of the object in templates -------------------------------------------------------

CONFIG = """
root: .
pipelines:
  objects:
    match: "(?P<object>.*)"
    steps:
      - rsync: {name: keep, to: "/kept/WHERE"}
      - archivesspace: {url: "https://a.example.org", repository: 2, user: u, credential: c, masters: [keep],
                        component_id: "{object-id}_{file}", label: "{object-id} {object}"}
"""


def test_the_objects_id_stands_in_templates_of_files(tmp_path: Path) -> None:
    """And nowhere else: another step's option would be left with nothing in its place."""
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.replace("WHERE", "x"))
    [_, step] = load(file, default()).pipelines[0].steps
    filled = render_options(step.options, {"object": "A{1}"}, ArchivesSpaceWorker())
    assert filled["component_id"] == "{object-id}_{file}"
    naming = Naming(ArchivesSpaceOptions.model_validate(filled), "A")
    entry = Entry(path=b"f/0001.tif", size=1, sha256="")
    assert (naming.component_id(entry, "X{9}"), naming.label(entry, "X")) == ("X{9}_0001.tif", "X A{1}")
    file.write_text(CONFIG.replace("WHERE", "{object-id}"))
    with pytest.raises(ConfigError, match="there is no placeholder {object-id}"):
        load(file, default())
