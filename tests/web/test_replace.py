"""A file of a failed folder is replaced over HTTP: by programs in two requests, by people through the page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from dittohead.model.records import Job
from dittohead.model.states import JobState
from tests.support.web_harness import OPERATOR, READER, WebHarness, call
from tests.test_replacement import broken, kept, told
from tests.web.test_api import fits

Served = tuple[WebHarness, aiohttp.ClientSession]
HTML = {"Accept": "text/html"}
WHERE = "/api/v1/jobs/{job}/replacements"


@pytest.fixture
async def web_harness(tmp_path: Path) -> AsyncIterator[Served]:
    made = WebHarness(tmp_path / "root")
    async with made.serving() as client:
        yield made, client


async def put(
    client: aiohttp.ClientSession, job: Job, path: str = "a.tif", data: bytes = b"mended", **more: Any
) -> tuple[int, Any]:
    given = {"token": OPERATOR, "data": data, **more}
    return await call(client, f"/api/v1/jobs/{job.id}/replacements?path={quote(path)}", "PUT", **given)


def digest(data: bytes) -> dict[str, str]:
    return {"Content-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"}


async def test_a_program_sends_the_bytes_then_asks_for_it(web_harness: Served) -> None:
    """As openapi.json tells of both."""
    made, client = web_harness
    job = await broken(made.harness)
    status, offer = await put(client, job, headers=digest(b"mended"))
    assert status == 201
    fits(offer, WHERE, "put", "201")
    assert (offer["size"], offer["sha256"]) == (6, hashlib.sha256(b"mended").hexdigest())
    body = {"with": offer["id"], "reason": "scanned again"}
    status, said = await call(client, "/api/v1/jobs/n/replace", "POST", token=OPERATOR, json=body)
    assert (status, said["message"]) == (
        200,
        "n: a.tif replaced; moved back to the inbox, and a new job begins",
    )
    fits(said, "/api/v1/jobs/{job}/replace", "post")
    assert (made.harness.root / "inbox/n/a.tif").read_text() == "mended"
    assert "replaced by alice (token): scanned again" in told(made.harness, job)[0]


async def test_what_does_not_fit_is_refused_and_nothing_stays(web_harness: Served) -> None:
    """By whom, of which job, which path, which bytes."""
    made, client = web_harness
    job = await broken(made.harness)
    assert (await put(client, job, token=READER))[0] == 403
    assert (await put(client, job, token=""))[0] == 401
    for path in ("../n/a.tif", "/etc/passwd", "sub", "A.TIF", "%2e%2e/x"):
        status, problem = await put(client, job, path)
        assert status == 409, problem
        fits(problem, WHERE, "put", "409")
    assert (await put(client, job, data=b""))[1]["detail"] == "a.tif: the new file is empty"
    assert (await put(client, job, headers=digest(b"other")))[0] == 409
    assert (await call(client, f"/api/v1/jobs/{job.id}/replacements", "PUT", token=OPERATOR))[0] == 400
    for wrong in ("x", "../../etc", ""):
        body = {"with": wrong}
        assert (await call(client, "/api/v1/jobs/n/replace", "POST", token=OPERATOR, json=body))[0] == 422
    made.harness.arrive("fresh")
    async with made.harness.running():
        done = await made.harness.until_over("fresh")
    assert (await put(client, done))[0] == 409
    assert not list((made.harness.stations.state / "replacements").glob("*"))
    assert made.harness.where("n") == ["failed"]


async def test_no_page_of_another_site_and_no_form_of_another_session_replaces(web_harness: Served) -> None:
    """A browser sends its cookie with neither."""
    made, client = web_harness
    job = await broken(made.harness)
    cookie = {"Cookie": await made.signed_in(client)}
    form = aiohttp.FormData({"path": "a.tif"})
    form.add_field("file", b"mended", filename="new.tif")
    for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        status, _ = await call(
            client, f"/jobs/{job.id}/replacement", "POST", data=form(), headers=cookie | headers
        )
        assert status == 403
        status, _ = await put(client, job, token="", headers=cookie | headers)
        assert status == 403
        fields = {"with": "0" * 32}
        status, _ = await call(
            client, f"/jobs/{job.id}/replace", "POST", data=fields, headers=cookie | headers
        )
        assert status == 403
    assert not list((made.harness.stations.state).glob("repl*/*"))


async def test_a_person_chooses_sends_looks_and_replaces(web_harness: Served) -> None:
    """Without scripts; a reader is offered none of it."""
    made, client = web_harness
    job = await broken(made.harness)
    link = f"/jobs/{job.id}/replace?path=a.tif"
    for path in (f"/jobs/{job.id}", f"/jobs/{job.id}/files", f"/jobs/{job.id}/replace"):
        page = (await call(client, path, token=OPERATOR, headers=HTML))[1]
        assert f'href="{link}"' in page, path
        assert "/replace" not in str((await call(client, path, token=READER, headers=HTML))[1])
    front_page = (await call(client, "/", token=OPERATOR, headers=HTML))[1]
    assert f'href="/jobs/{job.id}/replace" aria-label="Replace a file: n"' in front_page
    cookie = await made.signed_in(client)
    headers = {"Cookie": cookie, **HTML}
    csrf = await made.csrf(client, cookie)

    async def send(data: bytes) -> tuple[int, str, str]:
        form = aiohttp.FormData({"csrf": csrf, "path": "a.tif", "encoding": ""})
        form.add_field("file", data, filename="IMG_1.TIF")
        given = {"data": form(), "headers": headers, "allow_redirects": False}
        async with client.post(f"/jobs/{job.id}/replacement", **given) as answer:
            return answer.status, answer.headers.get("Location", ""), await answer.text()

    status, _, page = await send(b"")
    assert status in (409, 422)
    assert re.search("the new file is empty|no file was chosen", page)
    status, where, _ = await send(b"mended")
    assert status == 303
    page = (await call(client, where, headers=headers))[1]
    for sha256 in (hashlib.sha256(b"half").hexdigest(), hashlib.sha256(b"mended").hexdigest()):
        assert sha256 in page
    assert made.harness.where("n") == ["failed"]
    fields = {"csrf": csrf, "with": where.rpartition("=")[2], "reason": "new scan", "run": "yes"}
    given = {"data": fields, "headers": headers, "allow_redirects": False}
    async with client.post(f"/jobs/{job.id}/replace", **given) as answer:
        where = answer.headers["Location"]
    assert "/drop/done?" in where
    waits = await call(client, where, headers=headers)
    assert waits[0] == 200
    async with made.harness.running():
        await made.harness.until(lambda: len(made.harness.jobs("n")) == 2)
        later = await made.harness.until_over("n")
    assert later.state is JobState.DONE
    async with client.get(where, headers=headers, allow_redirects=False) as answer:
        assert answer.headers["Location"] == f"/jobs/{later.id}"
    page = (await call(client, f"/jobs/{later.id}", headers=headers))[1]
    assert "new scan; SHA-256 was" in page
    assert [path.read_text() for path in kept(made.harness, job)] == ["half"]


async def test_a_file_that_is_not_there_is_said_on_the_page(web_harness: Served) -> None:
    """And nothing hostile in its name is more than text."""
    made, client = web_harness
    job = await broken(made.harness)
    for path, why in (("<b>x</b>", "no such file"), ("../x", "of dots alone"), ("A.TIF", "There is a.tif")):
        status, page = await call(
            client, f"/jobs/{job.id}/replace?path={quote(path)}", token=OPERATOR, headers=HTML
        )
        assert status == 200
        assert why in page
        assert "<b>x</b>" not in page
    for query in ("with=nonsense", f"with={'0' * 32}"):
        status, page = await call(client, f"/jobs/{job.id}/replace?{query}", token=OPERATOR, headers=HTML)
        assert status == 409
        assert "not here any more" in page
