"""The simulated ArchivesSpace is no more lenient than the real one: what tests rest on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.archivesspace import ArchivesSpace, Fault
from tests.support.archivesspace_job import AO, NAME, furnish

R = "/repositories/2"


class Raw:
    """A client that knows nothing."""

    def __init__(self, site: ArchivesSpace, session: aiohttp.ClientSession) -> None:
        self.site, self.session, self.token = site, session, ""

    async def __call__(
        self, method: str, path: str, body: Any = None, token: str | None = None
    ) -> tuple[int, Any]:
        headers = {"X-ArchivesSpace-Session": self.token if token is None else token}
        async with self.session.request(method, self.site.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def login(self, user: str = "dittohead", password: str = "not-to-be-seen") -> int:
        async with self.session.post(
            f"{self.site.url}/users/{user}/login", data={"password": password}
        ) as answer:
            self.token = (await answer.json()).get("session", "")
            return answer.status


@pytest.fixture
async def raw(site: ArchivesSpace) -> AsyncIterator[Raw]:
    async with aiohttp.ClientSession() as session:
        made = Raw(site, session)
        assert await made.login() == 200
        yield made


def object_(**more: Any) -> dict[str, Any]:
    return {"jsonmodel_type": "digital_object", "digital_object_id": "X1", "title": "T", **more}


async def test_sessions_and_permissions(site: ArchivesSpace, raw: Raw) -> None:
    """No token and no permission are 403, an expired or unknown token is 412 with its code."""
    assert (await raw("GET", AO, token=""))[0] == 403
    status, told = await raw("GET", AO, token="f" * 64)
    assert (status, told["code"]) == (412, "SESSION_GONE")
    site.expired.add(raw.token)
    status, told = await raw("GET", AO)
    assert (status, told["code"]) == (412, "SESSION_EXPIRED")
    assert await raw.login(password="wrong") == 403
    await raw.login()
    site.permissions["dittohead"] = {"view_repository"}
    for method, path, body in (
        ("POST", f"{R}/digital_objects", object_()),
        ("POST", AO, {"lock_version": 0}),
        ("DELETE", AO, None),
    ):
        assert await raw(method, path, body) == (403, {"error": "Access denied"})
    assert (await raw("GET", AO))[0] == 200
    assert (await raw("POST", "/logout"))[0] == 200
    assert (await raw("GET", AO))[0] == 412


@pytest.mark.parametrize(
    ("more", "at", "words"),
    [
        ({"title": None}, "title", "required"),
        ({"digital_object_id": "x" * 256}, "digital_object_id", "255"),
        ({"digital_object_type": "picture"}, "digital_object_type", "configurable values: cartographic"),
        ({"file_versions": [{"publish": True}]}, "file_versions/0/file_uri", "required"),
        ({"file_versions": [{"file_uri": "x", "file_format_name": "jp2"}]}, "file_versions/0/file_format_name", "'jp2' did not match"),
        ({"file_versions": [{"file_uri": "x", "file_size_bytes": "7"}]}, "file_versions/0/file_size_bytes", "Must be a int"),
        ({"file_versions": [{"file_uri": "x", "publish": False, "is_representative": True}]}, "is_representative", "published"),
        ({"file_versions": [{"file_uri": x, "publish": True, "is_representative": True} for x in "ab"]}, "is_representative", "only one"),
        ({"colour": "red"}, "colour", "Unrecognised"),
    ],
)  # fmt: skip
async def test_what_is_refused(
    site: ArchivesSpace, raw: Raw, more: dict[str, Any], at: str, words: str
) -> None:
    """Required fields, lengths, lists, types, and what may be representative; nothing is written."""
    held = site.state()
    status, told = await raw("POST", f"{R}/digital_objects", object_(**more))
    assert status == 400
    assert words in " ".join(told["error"][at])
    assert site.state() == held


async def test_a_forgotten_publish_is_public(site: ArchivesSpace, raw: Raw) -> None:
    """The users' preference holds where a new record, or any file version, does not say."""
    body = object_(file_versions=[{"file_uri": "s3://x/1"}])
    uri = (await raw("POST", f"{R}/digital_objects", body))[1]["uri"]
    made = site.records[uri]
    assert made["publish"] is True
    assert made["file_versions"][0]["publish"] is True


async def test_locking_and_replacement(site: ArchivesSpace, raw: Raw) -> None:
    """Both kinds of 409; what is absent is nulled, what is nested gets new identifiers, readonly is ignored."""
    body = object_(level="work", file_versions=[{"file_uri": "a", "publish": False}])
    uri = (await raw("POST", f"{R}/digital_objects", body))[1]["uri"]
    status, told = await raw("POST", f"{R}/digital_objects", object_(digital_object_id="x1"))
    assert (status, told) == (400, {"error": {"digital_object_id": ["Must be unique"]}})
    _, first = await raw("GET", uri)
    status, told = await raw("POST", uri, {k: v for k, v in first.items() if k != "lock_version"})
    assert (status, told["error"]) == (409, "You must provide a lock_version in your request")
    first.pop("level")
    first |= {"created_by": "me", "linked_instances": [{"ref": AO}], "tree": {"ref": "x"}}
    status, told = await raw("POST", uri, first)
    assert (status, told["lock_version"], told["status"]) == (200, 1, "Updated")
    assert await raw("POST", uri, first) == (
        409,
        {"error": "The record you tried to update has been modified since you fetched it."},
    )
    _, second = await raw("GET", uri)
    assert "level" not in second
    assert second["created_by"] == "dittohead"
    assert second["linked_instances"] == []
    assert second["file_versions"][0]["identifier"] != first["file_versions"][0]["identifier"]


async def test_saving_an_archival_object_bumps_its_digital_object(site: ArchivesSpace, raw: Raw) -> None:
    """So a digital object that was read before is stale."""
    uri = (await raw("POST", f"{R}/digital_objects", object_()))[1]["uri"]
    _, record = await raw("GET", AO)
    record["instances"] = [{"instance_type": "digital_object"}]
    assert (await raw("POST", AO, record))[0] == 400
    record["instances"] = [{"instance_type": "digital_object", "digital_object": {"ref": uri}}]
    assert (await raw("POST", AO, record))[0] == 200
    _, object_now = await raw("GET", uri)
    assert object_now["lock_version"] == 1
    assert object_now["linked_instances"] == [{"ref": AO}]
    assert (await raw("DELETE", uri))[0] == 200
    assert (await raw("GET", AO))[1].get("instances") == []


async def test_trees(site: ArchivesSpace, raw: Raw) -> None:
    """200 children to a waypoint, without their ids; positions; one transaction for a lot of children."""
    uri = (await raw("POST", f"{R}/digital_objects", object_()))[1]["uri"]
    children = [{"component_id": f"c{n}", "label": f"l{n}"} for n in range(201)]
    assert (await raw("POST", f"{uri}/children", {"children": children}))[0] == 200
    _, root = await raw("GET", f"{uri}/tree/root")
    assert (root["child_count"], root["waypoints"], list(root["precomputed_waypoints"][""])) == (
        201,
        2,
        ["0"],
    )
    assert "component_id" not in root["precomputed_waypoints"][""]["0"][0]
    _, second = await raw("GET", f"{uri}/tree/waypoint?offset=1")
    assert [node["label"] for node in second] == ["l200"]
    assert (await raw("GET", f"{uri}/tree/waypoint"))[0] == 400
    more = [{"component_id": "new", "label": "new", "position": 1}, {"component_id": "C5", "label": "clash"}]
    status, told = await raw("POST", f"{uri}/children", {"children": more})
    assert status == 400
    assert "unique to its Digital Object" in told["error"]["component_id"][0]
    assert (await raw("GET", f"{uri}/tree/root"))[1]["child_count"] == 201
    assert (await raw("POST", f"{uri}/children", {"children": more[:1]}))[0] == 200
    _, root = await raw("GET", f"{uri}/tree/root")
    assert [node["label"] for node in root["precomputed_waypoints"][""]["0"][:3]] == ["l0", "new", "l1"]
    ids = ",".join(str(n) for n in range(251))
    assert (await raw("GET", f"{R}/digital_object_components?id_set={ids}"))[0] == 400


async def test_finding(site: ArchivesSpace, raw: Raw) -> None:
    """Values of one parameter are ORed, parameters ANDed; ids are decoded; the index lags."""
    furnish(site, "A&B; 1/2+3%", f"{R}/archival_objects/8", ref_id="r8")
    path = f"{R}/find_by_id/archival_objects"
    for query, count in (
        (f"component_id[]={NAME}", 1),
        (f"component_id[]={NAME.lower()}", 1),
        (f"component_id[]={NAME}&component_id[]=A%26B%3B%201%2F2%2B3%25", 2),
        (f"component_id[]={NAME}&ref_id[]=r8", 0),
        ("ref_id[]=r8", 1),
        ("", 0),
    ):
        assert len((await raw("GET", f"{path}?{query}"))[1]["archival_objects"]) == count, query
    assert (await raw("GET", f"{path}?component=x"))[0] == 400
    async with raw.session.get(f"{site.url}{R}/nonsense") as answer:  # as Sinatra says it, not as JSON
        assert (answer.status, await answer.text()) == (404, "<h1>Not Found</h1>")
    assert (await raw("GET", "/repositories/3/find_by_id/archival_objects?ref_id[]=1"))[0] == 400
    assert (await raw("GET", f"{R}/search?q=*"))[1]["total_hits"] == 0
    site.index()
    assert (await raw("GET", f"{R}/search?q=*&type[]=archival_object"))[1]["total_hits"] == 3


async def test_faults(site: ArchivesSpace, raw: Raw) -> None:
    """Before the write nothing happened, after it everything did."""
    for after, there in ((False, 0), (True, 1)):
        for kind in ("500", "drop"):
            id_ = f"{kind}-{after}"
            site.faults.append(Fault(r"POST .*/digital_objects", kind, after=after))
            if kind == "drop":
                with pytest.raises(aiohttp.ServerDisconnectedError):
                    await raw("POST", f"{R}/digital_objects", object_(digital_object_id=id_))
            else:
                assert (await raw("POST", f"{R}/digital_objects", object_(digital_object_id=id_)))[0] == 500
            assert len([one for one in site.records.values() if one.get("digital_object_id") == id_]) == there


async def test_events_and_agents(site: ArchivesSpace, raw: Raw) -> None:
    """An event needs agent, record and date; an agent of the same name is a conflict."""
    name = {"software_name": "d", "version": "1", "sort_name": "d", "source": "local"}
    agent = (await raw("POST", "/agents/software", {"names": [name]}))[1]["uri"]
    assert (await raw("POST", "/agents/software", {"names": [name]}))[1]["error"] == {
        "conflicting_record": [agent]
    }
    event: dict[str, Any] = {"event_type": "ingestion", "timestamp": "2026-01-01T00:00:00Z"}
    event["linked_agents"] = [{"role": "executing_program", "ref": agent}]
    assert (await raw("POST", f"{R}/events", event))[0] == 400
    event["linked_records"] = [{"role": "outcome", "ref": AO}]
    uri = (await raw("POST", f"{R}/events", event))[1]["uri"]
    assert (await raw("GET", AO))[1]["linked_events"] == [{"ref": uri}]
    assert (await raw("POST", f"{R}/events", event | {"timestamp": None}))[0] == 400


async def test_as_a_program() -> None:
    """It serves alone, too, and says where."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.archivesspace", stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        async with aiohttp.ClientSession() as session, session.get(url + "/version") as answer:
            assert await answer.text() == "ArchivesSpace (v4.2.1)"
    finally:
        process.terminate()
        await process.wait()
