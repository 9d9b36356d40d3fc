"""The simulated site refuses what a real one refuses: a client that passes here was really tested."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.islandora import Islandora, served
from tests.support.islandora_state import PASSWORD, USER, Fault

BASIC = aiohttp.encode_basic_auth(USER, PASSWORD, encoding="utf-8")
JSON = {"_format": "json"}
ORIGINAL = "http://pcdm.org/use#OriginalFile"


class Client:
    """Asks one site anything."""

    def __init__(self, site: Islandora, session: aiohttp.ClientSession) -> None:
        self.site, self.session = site, session

    async def __call__(
        self, method: str, path: str, *, auth: str | None = BASIC, **more: Any
    ) -> tuple[int, Any]:
        headers = {**({"Authorization": auth} if auth else {}), **more.pop("headers", {})}
        async with self.session.request(method, self.site.base + path, headers=headers, **more) as answer:
            if answer.content_type == "application/json":
                return answer.status, await answer.json()
            return answer.status, dict(answer.headers)


@pytest_asyncio.fixture
async def ask() -> AsyncIterator[Client]:
    async with served(Islandora()) as site, aiohttp.ClientSession() as session:
        site.add_node("Papers", field_local_identifier="GEH")
        yield Client(site, session)


def node(site: Islandora, **more: Any) -> dict[str, Any]:
    return {
        "type": [{"target_id": "islandora_object"}],
        "title": [{"value": "A letter"}],
        "field_model": [{"target_id": site.tid("https://schema.org/Book")}],
        **more,
    }


async def test_a_wrong_password_makes_the_public_of_a_user_and_locks_him_after_five(ask: Client) -> None:
    """As Drupal's basic_auth: 200 where the public may, else the words of a missing permission."""
    wrong = aiohttp.encode_basic_auth(USER, "wrong")
    assert (await ask("GET", "/node/41", params=JSON, auth=None))[0] == 200
    assert (await ask("GET", "/node/41", params=JSON, auth=wrong))[0] == 200
    given = {**JSON, "uri": ORIGINAL}
    assert (await ask("GET", "/term_from_uri", params=given, auth=None))[0] == 401
    status, body = await ask("GET", "/term_from_uri", params=given, auth=wrong)
    assert (status, body["message"]) == (403, "The 'administer taxonomy' permission is required.")
    assert (await ask("GET", "/term_from_uri", params=given))[0] == 200
    for _ in range(5):
        await ask("GET", "/term_from_uri", params=given, auth=wrong)
    assert (await ask("GET", "/term_from_uri", params=given))[0] == 403


@pytest.mark.parametrize("path", ["/node/41", "/node/41/book-manifest", "/_flysystem/fedora/a.jpg", "/"])
async def test_credentials_are_refused_where_a_route_is_not_rest(ask: Client, path: str) -> None:
    """What the public gets at the same place."""
    ask.site.media[ask.site.add_media(41, ORIGINAL, b"abc", "a.jpg", "image")]["fid"] = 99
    ask.site.files[99] = {"uuid": "x", "uri": "fedora://a.jpg", "data": b"abc", "status": 1, "uid": 1}
    assert (await ask("GET", path))[0] == 403
    assert (await ask("GET", path, auth=None))[0] == 200


async def test_errors_are_json_only_for_who_asks_for_it(ask: Client) -> None:
    """A PUT needs no format, but its reason does."""
    path = f"/node/41/media/image/{ask.site.tid(ORIGINAL)}"
    headers = {"Content-Type": "image/jpeg", "Content-Location": "fedora://a.tif"}
    status, body = await ask("PUT", path, data=b"x", headers=headers)
    assert (status, body["Content-Type"]) == (400, "text/html; charset=utf-8")
    status, body = await ask("PUT", path, params=JSON, data=b"x", headers=headers)
    assert "Valid types are png" in body["message"]


async def test_what_is_unpublished_can_be_referenced_and_read_by_few(ask: Client) -> None:
    """Core's NodeSelection; files of a media that the user may not view."""
    hidden = ask.site.add_node("Hidden")
    ask.site.nodes[hidden]["status"] = [{"value": False}]
    mid = ask.site.add_media(41, ORIGINAL, b"abc", "a.jpg", "image")
    ask.site.media[mid]["status"] = [{"value": False}]
    fields = node(ask.site, field_member_of=[{"target_id": hidden}])
    given = {"file_uuid": ask.site.files[ask.site.media[mid]["fid"]]["uuid"], "algorithm": "sha256"}
    path = "/islandora_workbench_integration/file_hash"
    assert (await ask("POST", "/node", params=JSON, json=fields))[0] == 201
    assert (await ask("GET", path, params=given))[0] == 200
    ask.site.permissions -= {"bypass node access", "view own unpublished media"}
    status, body = await ask("POST", "/node", params=JSON, json=fields)
    assert status == 422
    assert (
        f"field_member_of.0.target_id: This entity (node: {hidden}) cannot be referenced" in body["message"]
    )
    assert (await ask("GET", path, params=given))[0] == 403


async def test_a_field_of_terms_takes_its_own_vocabularies(ask: Client) -> None:
    """`target_bundles` of the starter site."""
    tid = ask.site.add_term("person", "Hubble, Edwin", "")
    status, body = await ask(
        "POST", "/node", params=JSON, json=node(ask.site, field_subject=[{"target_id": tid}])
    )
    assert (status, f"(taxonomy_term: {tid}) cannot be referenced" in body["message"]) == (422, True)
    named = node(ask.site, field_subjects_name=[{"target_id": tid}])
    assert (await ask("POST", "/node", params=JSON, json=named))[0] == 201


async def test_people_are_found_by_another_link_than_uses_and_names_without_case(ask: Client) -> None:
    """Two Views, two fields; the collation of the database."""
    uri = "http://id.loc.gov/authorities/names/n79018806"
    assert (await ask("GET", "/term_from_uri", params={**JSON, "uri": uri}))[1] == []
    found = (await ask("GET", "/term_from_authority_link", params={**JSON, "authority_link": uri}))[1]
    assert [term["vid"][0]["target_id"] for term in found] == ["person"]
    given = {**JSON, "vocab": "person", "name": "hale, george ellery"}
    assert (await ask("GET", "/term_from_term_name", params=given))[1] == found


@pytest.mark.parametrize("newer", [False, True])
async def test_a_scheme_that_is_not_there_makes_a_media_that_cannot_be_read(ask: Client, newer: bool) -> None:
    """Islandora 2.13.3; newer ones refuse it."""
    ask.site.schemes, ask.site.checks_schemes = {"private"}, newer
    headers = {"Content-Type": "image/jpeg", "Content-Location": "fedora://a.jpg"}
    path = f"/node/41/media/image/{ask.site.tid(ORIGINAL)}"
    status, made = await ask("PUT", path, params=JSON, data=b"x", headers=headers)
    assert status == (400 if newer else 201)
    if newer:
        return
    place = made["Location"].removeprefix(ask.site.base)
    assert (await ask("GET", place, params=JSON))[0] == 500
    assert (await ask("GET", "/node/41/media", params=JSON))[0] == 500
    assert (await ask("DELETE", place, params=JSON))[0] == 204
    assert (await ask("GET", "/node/41/media", params=JSON)) == (200, [])


async def test_fields_are_told_to_who_may_know_them(ask: Client) -> None:
    """By core to "administer node fields", by the module, from 1.2 on, to its own permission."""
    core, own = "/entity/field_config/node.islandora_object", "/islandora_workbench_integration/node_actions"
    assert (await ask("GET", f"{core}.field_extent", params=JSON))[0] == 403
    told = await ask("GET", f"{own}/field_config/node/islandora_object/field_subject")
    assert list(told[1]["settings"]["handler_settings"]["target_bundles"]) == ["subject"]
    assert (await ask("GET", f"{own}/field_config/node/islandora_object/field_none"))[0] == 404
    scheme = await ask("GET", f"{own}/field_storage_config/media/field_media_file")
    assert scheme[1]["settings"]["uri_scheme"] == "fedora"


async def test_a_manifest_is_there_for_any_node_with_what_it_shows(ask: Client) -> None:
    """200 alone proves nothing; that of pages is not there for who may not see the node."""
    assert (await ask("GET", "/node/41/manifest", auth=None))[1]["sequences"] == [{"canvases": []}]
    ask.site.add_media(41, ORIGINAL, b"abc", "a.jpg", "image")
    assert len((await ask("GET", "/node/41/manifest", auth=None))[1]["sequences"][0]["canvases"]) == 1
    ask.site.nodes[41]["status"] = [{"value": False}]
    assert (await ask("GET", "/node/41/manifest", auth=None))[1]["sequences"] == [{"canvases": []}]
    assert (await ask("GET", "/node/41/book-manifest", auth=None))[0] == 404


@pytest.mark.parametrize(("name", "status"), [("x.php.jpg", 422), ("x.JS.jpg", 422), ("php.jpg", 200)])
async def test_a_name_that_could_be_run_is_refused_when_its_media_is_saved(
    ask: Client, name: str, status: int
) -> None:
    """Not when it is put."""
    mid = ask.site.add_media(41, ORIGINAL, b"abc", name, "image")
    file = {"target_id": ask.site.media[mid]["fid"], "alt": "words"}
    patch = {"bundle": [{"target_id": "image"}], "field_media_image": [file]}
    assert (await ask("PATCH", f"/media/{mid}/edit", params=JSON, json=patch))[0] == status


async def test_the_format_and_the_content_type_must_be_said(ask: Client) -> None:
    """406 without _format, 415 for what is not JSON, 400 for what is not JSON inside."""
    assert (await ask("POST", "/node", json=node(ask.site)))[0] == 406
    text = {"Content-Type": "text/plain"}
    assert (await ask("POST", "/node", params=JSON, data=b"{}", headers=text))[0] == 415
    kind = {"Content-Type": "application/json"}
    assert (await ask("POST", "/node", params=JSON, data=b"{", headers=kind))[0] == 400
    assert (await ask("GET", "/jsonapi/node", params=JSON))[0] == 404


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"type": []}, "Could not determine entity type bundle"),
        ({"title": []}, "title: This value should not be null."),
        ({"field_model": []}, "field_model: This value should not be null."),
        ({"title": [{"value": "x" * 256}]}, "title.0.value: title: may not be longer than 255 characters."),
        ({"field_extent": [{"value": "x" * 256}]}, "field_extent.0.value"),
        ({"field_unknown": [{"value": 1}]}, "Field field_unknown is unknown."),
        ({"field_member_of": [{"target_id": 999}]}, "The referenced entity (node: 999) does not exist."),
        ({"field_weight": [{"value": "1"}]}, "correct primitive type"),
        ({"field_weight": [{"value": 1}, {"value": 2}]}, "cannot hold more than 1 values"),
        ({"field_edtf_date": [{"value": "circa 1951"}]}, "Could not parse the date"),
        ({"field_note": [{"value": "x", "format": "full_html"}]}, "not a valid choice"),
        ({"field_rights": "All"}, "an array of arrays"),
    ],
)
async def test_what_no_node_can_hold_is_422_in_drupals_words(
    ask: Client, changed: dict[str, Any], said: str
) -> None:
    """And nothing is created."""
    status, body = await ask("POST", "/node", params=JSON, json=node(ask.site, **changed))
    assert status == 422
    assert said in body["message"]
    assert len(ask.site.nodes) == 1


async def test_a_uuid_can_be_chosen_once(ask: Client) -> None:
    """The database refuses a second node of the same; and none can be given another."""
    wanted = [{"value": "5f2b2c3e-0000-4000-8000-000000000001"}]
    status, made = await ask("POST", "/node", params=JSON, json=node(ask.site, uuid=wanted))
    assert (status, made["uuid"]) == (201, wanted)
    assert (await ask("POST", "/node", params=JSON, json=node(ask.site, uuid=wanted)))[0] == 500
    patch = {"type": [{"target_id": "islandora_object"}], "uuid": [{"value": "x"}]}
    assert (await ask("PATCH", f"/node/{made['nid'][0]['value']}", params=JSON, json=patch))[0] == 403
    assert len(ask.site.nodes) == 2


async def test_terms_are_found_by_their_whole_uri(ask: Client) -> None:
    """A bare # ends a URL: what is behind it never arrives."""
    status, found = await ask("GET", "/term_from_uri", params={**JSON, "uri": ORIGINAL})
    assert (status, found[0]["tid"]) == (200, [{"value": ask.site.tid(ORIGINAL)}])
    assert await ask("GET", "/term_from_uri", params={**JSON, "uri": "http://pcdm.org/use"}) == (200, [])


async def test_a_media_is_put_by_node_and_use(ask: Client) -> None:
    """201 the first time, 204 when its file is replaced; the bytes are the ones sent."""
    path = f"/node/41/media/image/{ask.site.tid(ORIGINAL)}"
    good = {"Content-Type": "image/jpeg", "Content-Location": "fedora://a/1.jpg"}
    status, headers = await ask("PUT", path, data=b"one", headers=good)
    assert status == 201
    assert headers["Location"].startswith(ask.site.base + "/media/")
    assert (await ask("PUT", path, data=b"two", headers=good))[0] == 204
    assert [file["data"] for file in ask.site.files.values()] == [b"two"]


@pytest.mark.parametrize(
    ("bundle", "headers", "data", "said"),
    [
        ("image", {"Content-Location": ""}, b"x", "Missing Content-Location header"),
        ("image", {"Content-Location": "a.jpg"}, b"x", "valid stream wrapper URI"),
        ("image", {"Content-Location": "fedora://"}, b"x", "must include a filename"),
        ("image", {"Content-Location": "fedora://../a.jpg"}, b"x", "path traversal"),
        ("image", {"Content-Location": "fedora://a.tif"}, b"x", "Valid types are png gif jpg jpeg"),
        ("file", {"Content-Location": "fedora://a.jpg"}, b"x", "Invalid file extension"),
        ("image", {"Content-Location": "fedora://a.jpg"}, b"", "No bytes were copied"),
    ],
)
async def test_a_put_that_cannot_be_stored_is_400(
    ask: Client, bundle: str, headers: dict[str, str], data: bytes, said: str
) -> None:
    """As MediaSourceService refuses it."""
    path = f"/node/41/media/{bundle}/{ask.site.tid(ORIGINAL)}"
    told = {"Content-Type": "image/jpeg", **headers}
    status, body = await ask("PUT", path, params=JSON, data=data, headers=told)
    assert status == 400
    assert said in body["message"]


async def test_a_file_that_is_put_at_anothers_place_overwrites_it(ask: Client) -> None:
    """Which is why each file has a place of its own."""
    ask.site.add_node("Other")
    headers = {"Content-Type": "image/jpeg", "Content-Location": "fedora://a.jpg"}
    for nid, data in ((41, b"one"), (42, b"two")):
        assert (
            await ask("PUT", f"/node/{nid}/media/image/{ask.site.tid(ORIGINAL)}", data=data, headers=headers)
        )[0] == 201
    assert [file["data"] for file in ask.site.files.values()] == [b"two", b"two"]


async def test_an_upload_wants_basic_auth_a_type_and_a_name(ask: Client) -> None:
    """As Drupal's FileUploadResource; the media made of it wants a text for its image."""
    path = "/file/upload/media/image/field_media_image"
    good = {"Content-Type": "application/octet-stream", "Content-Disposition": 'file; filename="a.jpg"'}
    cookie = {**good, "Cookie": "SESS=1"}
    assert (await ask("POST", path, params=JSON, data=b"x", headers=cookie))[0] == 403
    assert (await ask("POST", path, data=b"x", headers=good))[0] == 406
    assert (await ask("POST", path, params=JSON, data=b"x", headers={**good, "Content-Type": "image/jpeg"}))[
        0
    ] == 415
    bare = {**good, "Content-Disposition": "file; filename=a.jpg"}
    assert (await ask("POST", path, params=JSON, data=b"x", headers=bare))[0] == 400
    status, made = await ask("POST", path, params=JSON, data=b"x", headers=good)
    assert status == 201
    media = {
        "bundle": [{"target_id": "image"}],
        "name": [{"value": "a"}],
        "field_media_of": [{"target_id": 41}],
        "field_media_use": [{"target_id": ask.site.tid(ORIGINAL)}],
        "field_media_image": [{"target_id": made["fid"][0]["value"]}],
    }
    status, body = await ask("POST", "/entity/media", params=JSON, json=media)
    assert status == 422
    assert "Alternative text" in body["message"]
    media["field_media_image"] = [{**media["field_media_image"][0], "alt": "A letter"}]
    assert (await ask("POST", "/entity/media", json=media))[0] == 201


async def test_the_hash_is_of_the_file_as_it_lies_there(ask: Client) -> None:
    """Errors come with 200, as the module answers."""
    mid = ask.site.add_media(41, ORIGINAL, b"abc", "a.jpg", "image")
    file = ask.site.files[ask.site.media[mid]["fid"]]
    path = "/islandora_workbench_integration/file_hash"
    given = {"file_uuid": file["uuid"], "algorithm": "sha256"}
    told = (await ask("GET", path, params=given))[1][0]["checksum"]
    assert told == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    ask.site.corrupt(ask.site.media[mid]["fid"])
    assert (await ask("GET", path, params=given))[1][0]["checksum"] != told
    assert (await ask("GET", path, params={**given, "file_uuid": "x"}))[1] == {
        "error": "No file found with UUID x."
    }
    assert "error" in (await ask("GET", path, params={**given, "algorithm": "crc32"}))[1]
    assert (await ask("GET", path, params=given, auth=None))[0] == 403


async def test_faults_come_before_or_after_the_effect(ask: Client) -> None:
    """Every call is recorded, those that break too."""
    ask.site.faults = [
        Fault("POST", "/node$", 503),
        Fault("POST", "/node$", 502, after=True),
        Fault("POST", "/node$", "drop"),
    ]
    assert (await ask("POST", "/node", params=JSON, json=node(ask.site)))[0] == 503
    assert len(ask.site.nodes) == 1
    assert (await ask("POST", "/node", params=JSON, json=node(ask.site)))[0] == 502
    assert len(ask.site.nodes) == 2
    with pytest.raises(aiohttp.ClientError):
        await ask("POST", "/node", params=JSON, json=node(ask.site))
    assert len(ask.site.calls) == 3
    slow = Fault("GET", "/node", "slow")
    ask.site.faults = [slow]
    waiting = asyncio.create_task(ask("GET", "/node/41", params=JSON))
    while len(ask.site.calls) < 4:
        await asyncio.sleep(0)
    assert not waiting.done()
    slow.until.set()
    assert (await waiting)[0] == 200


async def test_views_lag_and_are_cut_and_derivatives_come_later(ask: Client) -> None:
    """As caches and queues have it; a REST export gives its first ten, whatever page is asked for."""
    ask.site.lag = 1
    await ask("POST", "/node", params=JSON, json=node(ask.site, field_local_identifier=[{"value": "X"}]))
    given = {**JSON, "field_local_identifier": "X"}
    assert (await ask("GET", "/islandora/identifier", params=given))[1] == []
    assert (await ask("GET", "/islandora/identifier", params=given))[1] == [{"nid": "42"}]
    for number in range(11):
        ask.site.add_media(41, ORIGINAL, b"x", f"{number}.jpg", "image")
    ask.site.derives_after = 1
    first = (await ask("GET", "/node/41/media", params=JSON))[1]
    assert len(first) == 10
    assert (await ask("GET", "/node/41/media", params={**JSON, "page": 1}))[1] == first
    ask.site.turns = True
    assert len((await ask("GET", "/node/41/media", params={**JSON, "page": 1}))[1]) == 2
    ask.site.listed = 0
    assert len((await ask("GET", "/node/41/media", params=JSON))[1]) == 12
