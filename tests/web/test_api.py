"""What the API answers: always in the shapes that openapi.json tells of, and never a defect."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import re
import socket
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import aiohttp
import jsonschema
import pytest
from aiohttp import http_parser, web

from dittohead.folders.job_files import JobFiles
from dittohead.model.errors import ItemError
from dittohead.model.states import JobState
from dittohead.store.tables import requests
from dittohead.web.api import routes, shapes
from dittohead.web.api.openapi import document
from dittohead.web.server import listener
from dittohead.web.server.listener import OpenConnections
from dittohead.web.server.problems import ERROR_PAGE
from tests.support.web_harness import OPERATOR, READER, WebHarness, call

Served = tuple[WebHarness, aiohttp.ClientSession]

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "a\nb",
    "50%25 %2F..%2f",
    "ünï 'quo\"tes",
    "-rf",
    "a\\b",
    "x?y#z&w=1;v",
    "\u202egnp",
]


@pytest.fixture
async def web_harness(tmp_path: Path) -> AsyncIterator[Served]:
    made = WebHarness(tmp_path / "root")
    async with made.serving() as client:
        yield made, client


async def get(client: aiohttp.ClientSession, path: str, **more: Any) -> Any:
    status, said = await call(client, path, token=READER, **more)
    assert status == 200, said
    return said


async def post(client: aiohttp.ClientSession, path: str, fields: Any = None) -> tuple[int, Any]:
    return await call(client, path, "POST", token=OPERATOR, json={} if fields is None else fields)


def fits(answer: Any, path: str, method: str = "get", status: str = "200") -> None:
    """The answer is what the document says of the operation."""
    made = document(routes.OPERATIONS)
    content = made["paths"][path][method]["responses"][status]["content"]
    (kind,) = content
    schema = {**content[kind]["schema"], "components": made["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer)


async def done(web_harness: WebHarness, *names: str) -> None:
    async with web_harness.harness.running():
        for name in names:
            web_harness.harness.arrive(name)
            web_harness.harness.offer()
            await web_harness.harness.until_over(name)


async def test_every_answer_is_in_the_shape_that_the_document_tells_of(web_harness: Served) -> None:
    """With a job that is done, one that failed, requests on it, and progress."""
    made, client = web_harness

    async def fail(ctx: Any) -> Any:
        raise ItemError("no", where="a.txt", hint="fix it")

    await done(made, "good")
    made.harness.worker.plays["second"] = fail
    await done(made, "bad")
    job = made.harness.job("bad")
    made.progress[job.id] = {"step": "x", "done": 1, "total": 2, "unit": "bytes", "per_second": 1.0}
    assert (await post(client, "/api/v1/jobs/good/freeze", {"reason": "x"}))[0] == 409
    status, missing = await post(client, "/api/v1/jobs/absent/retry")
    assert (status, 'there is no job "absent"' in missing["detail"]) == (404, True)
    jobs = await get(client, "/api/v1/jobs")
    fits(jobs, "/api/v1/jobs")
    assert [item["name"] for item in jobs["items"]] == ["bad", "good"]
    for name in ("good", "bad"):
        found = await get(client, f"/api/v1/jobs/{name}")
        fits(found, "/api/v1/jobs/{job}")
    assert found["progress"]["done"] == 1
    for path in ("/api/v1/status", "/api/v1/sources", "/api/v1/requests", "/healthz"):
        fits(await get(client, path), path)
    status, found = await post(client, "/api/v1/doctor")
    fits(found, "/api/v1/doctor", "post")
    status, found = await post(client, "/api/v1/reload")
    fits(found, "/api/v1/reload", "post")
    status, problem = await call(client, "/api/v1/jobs/nobody", token=READER)
    fits(problem, "/api/v1/jobs/{job}", status="404")
    assert (status, problem["title"]) == (404, "Not Found")


async def test_pages_hold_every_job_once(web_harness: Served) -> None:
    """By the cursor, and by the link in the header, which keeps what was asked for."""
    made, client = web_harness
    names = [f"n{number}" for number in range(5)]
    await done(made, *names, "other")
    seen: list[str] = []
    path = "/api/v1/jobs?name=n&limit=2"
    while path:
        async with client.get(path, headers={"Authorization": f"Bearer {READER}"}) as answer:
            page = await answer.json()
            seen += [item["name"] for item in page["items"]]
            linked = answer.links.get("next")
            assert (linked is None) == (page["next"] is None)
            path = str(linked["url"].relative()) if linked else ""
    assert seen == names[::-1]


async def test_jobs_are_found_by_whatever_is_known(web_harness: Served) -> None:
    """Each filter, and all of them together."""
    made, client = web_harness
    await done(made, "alpha", "beta")
    job = made.harness.job("beta")
    at = job.claimed_at.isoformat()
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # of "hello"
    for query, names in (
        ({"q": "bet"}, ["beta"]),
        ({"q": job.id[:12]}, None),
        ({"name": "ALPH"}, ["alpha"]),
        ({"state": ["failed", "frozen"]}, []),
        ({"state": "done", "pipeline": "three", "uid": str(job.uid)}, ["beta", "alpha"]),
        ({"since": at}, ["beta"]),
        ({"until": at}, ["alpha"]),
        ({"since": "2000-01-01", "until": "2001-01-01"}, []),
        ({"holds": digest}, ["beta", "alpha"]),
        ({"holds": "0" * 64}, []),
    ):
        found = [item["name"] for item in (await get(client, "/api/v1/jobs", params=query))["items"]]
        assert (names is None and "beta" in found) or found == names, query


async def test_a_question_that_cannot_be_read_is_refused_with_its_key(web_harness: Served) -> None:
    """Also one that is mistyped: left out, it would find too much."""
    for query in [
        "state=odd",
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=1&limit=2",
        "cursor=xx",
        "cursor=WzEsMl0",
        "cursor=WzEuMCwiXHVkODAwIl0",
        "cursor=" + "A" * 501,
        "since=yesterday",
        "since=0",
        "since=1700000000",
        "until=0000-00-00",
        "uid=-1",
        "uid=99999999999999999999",
        "holds=abc",
        "q=%00",
        "nmae=x",
        "name=" + "x" * 501,
    ]:
        status, said = await call(web_harness[1], f"/api/v1/jobs?{query}", token=READER)
        assert status == 400
        fits(said, "/api/v1/jobs", status="400")
        key = query.partition("=")[0]
        assert key in said["detail"] or key == "cursor"


async def test_a_body_that_cannot_be_read_changes_nothing(web_harness: Served) -> None:
    """Each with the status that says why; nothing of it becomes a request."""
    for body, kind, status in [
        (b"{", "application/json", 400),
        (b'{"reason": "\xff"}', "application/json", 400),
        (b'"reason"', "application/json", 422),
        (b"[" * 100_000, "application/json", 400),
        (b'{"reason": ""}', "application/json", 422),
        (b'{"reason": 1}', "application/json", 422),
        (b'{"reason": "a\\u0000"}', "application/json", 422),
        (b'{"reason": "x", "more": 1}', "application/json", 422),
        (b'{"reason": "\\ud800"}', "application/json", 422),
        (b"", "application/json", 422),
        (b'{"reason": "x"}', "text/plain", 415),
        (b"reason=x", "application/x-www-form-urlencoded", 415),
        (b'{"reason": "' + b"x" * 400_000 + b'"}', "application/json", 413),
        (b'{"reason": "x"}', "application/json; charset=utf-16", 404),
    ]:
        made, client = web_harness
        found, said = await call(
            client, "/api/v1/jobs/x/freeze", "POST", token=OPERATOR, data=body, headers={"Content-Type": kind}
        )
        assert (found, said["status"]) == (status, status)
        assert made.harness.store.run(lambda c: c.execute(requests.select()).all()) == []


async def test_a_value_of_another_type_is_refused(web_harness: Served) -> None:
    """As the description says: 0 is not false, and "true" is not true, where copies are not to be compared."""
    for given in (0, 1, "true", "false", None, [], {}):
        made, client = web_harness
        body = {"reason": "x", "unverified": given}
        found, said = await call(client, "/api/v1/jobs/x/delete", "POST", token=OPERATOR, json=body)
        assert (found, said["status"]) == (422, 422)
        assert "unverified" in said["detail"]
        assert made.harness.store.run(lambda c: c.execute(requests.select()).all()) == []


async def test_methods_and_addresses_that_are_not_there_are_said(web_harness: Served) -> None:
    """As problem details, with what is allowed."""
    _, client = web_harness
    for method, path, status in (
        ("POST", "/api/v1/jobs", 405),
        ("DELETE", "/api/v1/jobs/x", 405),
        ("GET", "/api/v1/jobs/x/retry", 405),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v2/jobs", 404),
    ):
        async with client.request(method, path, headers={"Authorization": f"Bearer {OPERATOR}"}) as answer:
            assert (answer.status, answer.content_type) == (status, "application/problem+json")
            assert ("Allow" in answer.headers) == (status == 405)


async def test_an_action_tells_what_was_done_and_by_whom(web_harness: Served) -> None:
    """In the answer, with the job, among the requests and in the job's own events."""
    made, client = web_harness
    stopped = asyncio.Event()

    async def hold(ctx: Any) -> Any:
        stopped.set()
        await asyncio.Event().wait()

    made.harness.worker.plays["second"] = hold
    async with made.harness.running():
        made.harness.arrive("held")
        made.harness.offer()
        await stopped.wait()
        status, said = await post(client, "/api/v1/jobs/held/freeze", {"reason": "a <b> reason"})
        assert (status, said) == (200, {"message": "held: frozen"})
        fits(said, "/api/v1/jobs/{job}/freeze", "post")
        found = await get(client, "/api/v1/jobs/held")
        assert found["reason"] == "frozen by alice (token): a <b> reason"
        assert (await post(client, "/api/v1/jobs/held/retry"))[0] == 409  # frozen
        assert (await post(client, "/api/v1/jobs/held/cancel"))[0] == 200
    status, said = await post(client, "/api/v1/jobs/held/cancel")
    assert status == 409
    assert said["detail"].startswith("held has ended (failed)")
    found = await get(client, "/api/v1/jobs/held")
    asked = [(row["action"], row["who"], row["ok"]) for row in found["requests"]]
    assert asked == [
        ("cancel", "alice (token)", False),
        ("cancel", "alice (token)", True),
        ("retry", "alice (token)", False),
        ("freeze", "alice (token)", True),
    ]
    page = await get(client, "/api/v1/requests", params={"limit": 3, "of": found["id"]})
    rest = await get(client, "/api/v1/requests", params={"cursor": page["next"], "who": "alice (token)"})
    assert [row["action"] for row in (page["items"] + rest["items"])] == [action for action, _, _ in asked]


async def test_failures_that_are_over_are_told_apart(web_harness: Served) -> None:
    """An earlier failure is meant although a later folder of the name is under way."""
    made, client = web_harness

    async def fail(ctx: Any) -> Any:
        raise ItemError("no", where="a.txt", hint="fix it")

    made.harness.worker.plays["second"] = fail
    await done(made, "bad")
    query = {"open": "true", "reason": "no"}
    assert [job["name"] for job in (await get(client, "/api/v1/jobs", params=query))["items"]] == ["bad"]
    none = {"open": "true", "reason": "something else"}
    assert (await get(client, "/api/v1/jobs", params=none))["items"] == []
    status, said = await post(client, "/api/v1/jobs/bad/dismiss", {"reason": "scanned again"})
    assert (status, said["message"]) == (200, "bad: dismissed; its folder stays in failed/")
    assert (await get(client, "/api/v1/jobs", params=query))["items"] == []
    found = await get(client, "/api/v1/jobs/bad")
    assert (found["state"], found["outcome"]) == ("failed", "dismissed")
    assert found["requests"][0]["args"] == {"reason": "scanned again"}


async def test_who_retried_a_job_stays_known(web_harness: Served) -> None:
    """Also where the request named the folder, and not the id."""
    made, client = web_harness

    async def fail(ctx: Any) -> Any:
        raise ItemError("no")

    made.harness.worker.plays["first"] = fail
    await done(made, "bad")
    made.harness.worker.plays.clear()
    job = made.harness.job("bad")
    answer = await made.harness.ask("retry", "bad")
    assert answer["ok"]
    found = await get(client, f"/api/v1/jobs/{job.id}")
    assert [(row["of"], row["who"]) for row in found["requests"]] == [(job.id, "tester")]


async def test_names_of_every_kind_find_their_job_and_nothing_else(web_harness: Served) -> None:
    """Percent signs, line breaks, markup, separators: a name is a name."""
    made, client = web_harness
    await done(made, *HOSTILE)
    for name in HOSTILE:
        found = await get(client, f"{made.base}/api/v1/jobs/{quote(name, safe='')}")
        assert found["name"] == name
        assert (await get(client, "/api/v1/jobs", params={"name": name}))["items"][0]["name"] == name


async def test_no_path_leads_out(web_harness: Served) -> None:
    """To a file that is neither a receipt nor a log."""
    for path in [
        "/api/v1/jobs/..%2f..%2fetc%2fpasswd",
        "/api/v1/jobs/%2e%2e/receipt",
        "/api/v1/jobs/x%00",
        "/api/v1/jobs/%ff%fe",
        "/api/v1/jobs/" + "a" * 5000,
        "/api/v1/jobs/good/steps/..%2f..%2fmanifest/log",
        "/api/v1/jobs/good/steps/..%2f..%2f..%2fconfig.yaml%00/log",
        "/api/v1/jobs/good/steps/%2e%2e/log",
        "/api/v1/jobs/good/steps/first.log%00/log",
        "/api/v1/../../config.yaml",
    ]:
        made, client = web_harness
        await done(made, "good")
        url = aiohttp.client.URL(made.base + path, encoded=True)
        async with client.get(url, headers={"Authorization": f"Bearer {READER}"}) as answer:
            assert answer.status == 404
            assert answer.content_type == "application/problem+json"


async def test_receipts_and_logs_come_whole_in_part_or_not_again(web_harness: Served) -> None:
    """By ETag and Range; of a job that has none it is said."""
    made, client = web_harness
    await done(made, "good")
    job = made.harness.job("good")
    path = f"/api/v1/jobs/{job.id}/receipt"
    headers = {"Authorization": f"Bearer {READER}"}
    async with client.get(path, headers=headers) as answer:
        assert (await answer.json())["job"] == job.id
        tag = answer.headers["ETag"]
    async with client.get(path, headers=headers | {"If-None-Match": tag}) as answer:
        assert answer.status == 304
    async with client.head(path, headers=headers) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    log = made.harness.stations.work / job.id / "first.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("0123456789<script>")
    path = f"/api/v1/jobs/{job.id}/steps/first/log"
    async with client.get(path, headers=headers) as answer:
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for asked, status, text in (
        ("bytes=5-8", 206, "5678"),
        ("bytes=18-", 416, None),
        ("bytes=-3", 206, "pt>"),
    ):
        async with client.get(path, headers=headers | {"Range": asked}) as answer:
            assert answer.status == status
            assert text is None or await answer.text() == text
    assert (await call(client, f"/api/v1/jobs/{job.id}/steps/second/log", token=READER))[0] == 404


async def test_what_is_not_answered_yet_is_said_so(
    web_harness: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request stays, and is carried out."""
    made, client = web_harness
    await done(made, "good")
    monkeypatch.setattr("dittohead.admin.request_queue.PATIENCE_S", 0.05)
    monkeypatch.setattr(WebHarness, "_poke", lambda self: None)
    made.actions.queue._poke = lambda: None  # type: ignore[union-attr]
    status, said = await post(client, "/api/v1/jobs/good/poke")
    assert status == 202
    fits(said, "/api/v1/jobs/{job}/poke", "post", "202")
    await made._answer()
    (row,) = (await get(client, "/api/v1/requests"))["items"]
    assert (row["action"], row["ok"]) == ("poke", False)


async def test_a_defect_is_an_answer_and_a_line_in_the_log(
    web_harness: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a word of what went wrong inside."""
    monkeypatch.setattr("dittohead.store.queries.overview", lambda c: 1 / 0)
    status, said = await call(web_harness[1], "/api/v1/status", token=READER)
    assert (status, said["title"]) == (500, "Internal Server Error")
    assert "division" not in json.dumps(said)
    web_harness[0].app[ERROR_PAGE].render = lambda request, problem: 1 / 0
    async with web_harness[1].get("/nowhere", headers={"Accept": "text/html"}) as answer:
        assert (answer.status, answer.content_type) == (404, "application/problem+json")


async def test_whoever_only_holds_a_line_is_cut_off(web_harness: Served) -> None:
    """A head that comes byte by byte, a body that does not come, more lines than there is room for."""
    made, _ = web_harness
    reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: ")
    await writer.drain()
    lines = OpenConnections()
    app_server = next(iter(_servers()))
    async with asyncio.timeout(20):
        while not app_server.connections:
            await asyncio.sleep(0.01)
    assert lines.sweep(app_server, 0.0) == 0
    assert lines.sweep(app_server, listener.IDLE_S) == 0
    assert lines.sweep(app_server, listener.IDLE_S + 1) >= 1
    with contextlib.suppress(ConnectionResetError):  # what had come was not read to its end
        async with asyncio.timeout(20):
            assert await reader.read() == b""
    writer.close()


async def test_a_file_is_sent_to_its_end_however_long_that_takes(web_harness: Served) -> None:
    """Its connection is not taken for an idle one meanwhile."""
    made, client = web_harness
    await done(made, "good")
    job = made.harness.job("good")
    path = JobFiles(made.harness.stations, job).log("first")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(64 << 20)
    headers = {"Authorization": f"Bearer {READER}"}
    app_server, lines = next(iter(_servers()), None), made.app[listener.LINES]
    async with client.get(f"/jobs/{job.id}/steps/first/log.txt", headers=headers) as answer:
        app_server = app_server or next(iter(_servers()))
        now = asyncio.get_running_loop().time()
        lines.sweep(app_server, now)
        assert lines.sweep(app_server, now + 10 * listener.IDLE_S) == 0
        assert len(await answer.read()) == 64 << 20


async def test_whoever_does_not_read_the_answers_is_cut_off(web_harness: Served) -> None:
    """Also when more of them wait to be sent than the system takes: closing would wait forever."""
    made, client = web_harness
    async with client.get("/login") as answer:
        found = re.search(r"/static/page[^\"]+css", await answer.text())
    assert found is not None
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", made.port))
    port = sock.getsockname()[1]
    asked = f"GET {found[0]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(sock, asked * 2000))
    app_server = next(iter(_servers()))

    def theirs() -> list[Any]:
        lines = [line for line in app_server.connections if line.transport is not None]
        return [line for line in lines if line.transport.get_extra_info("peername")[1] == port]

    async with asyncio.timeout(20):
        while not any(line.transport.get_write_buffer_size() for line in theirs()):
            await asyncio.sleep(0.01)
    lines, (stuck,) = made.app[listener.LINES], theirs()
    now = asyncio.get_running_loop().time() + 2 * listener.IDLE_S
    async with asyncio.timeout(20):
        while stuck in app_server.connections:
            lines.sweep(app_server, now)
            now += listener.IDLE_S
            await asyncio.sleep(0.01)
    sending.cancel()
    sock.close()


@pytest.mark.parametrize("page", ["", "?page=front"])
async def test_a_stream_ends_with_the_right_to_read_it(
    web_harness: Served, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    """Whose token is taken out, or who signs out, is told nothing more."""
    made, client = web_harness
    monkeypatch.setattr("dittohead.web.server.events.HEARTBEAT_S", 0.02)
    monkeypatch.setattr("dittohead.web.server.access._FRESH_S", 0.0)
    cookie = await made.signed_in(client, READER)
    async with asyncio.timeout(20):
        for headers in ({"Cookie": cookie}, {"Authorization": f"Bearer {READER}"}):
            async with client.get(f"/api/v1/events{page}", headers=headers) as answer:
                while b"still here" not in await answer.content.readline():
                    assert not answer.content.at_eof()
                if "Cookie" in headers:
                    form = {"csrf": await made.csrf(client, cookie)}
                    async with client.post("/logout", headers=headers, data=form) as said:
                        assert said.status == 200
                else:
                    made.write_tokens(f"operator alice {OPERATOR}\n")
                await answer.content.read()


async def test_a_day_that_no_calendar_follows_is_refused_in_words(web_harness: Served) -> None:
    """The last day there is has no day after it."""
    status, said = await call(web_harness[1], "/jobs?until=9999-12-31", token=READER)
    assert (status, "is not a date" in said) == (400, True)


async def test_what_is_packed_is_refused_and_never_unpacked(
    web_harness: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From anybody, before it is asked who they are: unpacking stands in the loop's way."""
    unpacked: list[int] = []
    made_of = http_parser.DeflateBuffer.feed_data

    def feed(self: Any, *given: Any) -> Any:
        unpacked.append(1)
        return made_of(self, *given)

    monkeypatch.setattr(http_parser.DeflateBuffer, "feed_data", feed)
    body = gzip.compress(b"token=" + bytes(1 << 20))
    for path in ("/login", "/nowhere", "/drop/uploads"):
        status, said = await call(
            web_harness[1], path, "POST", token=OPERATOR, data=body, headers={"Content-Encoding": "gzip"}
        )
        assert (status, said["title"]) == (415, "Unsupported Media Type")
    assert unpacked == []


async def test_a_body_that_does_not_come_is_not_waited_for(
    web_harness: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a form and of JSON; the line is cut then."""
    made, _ = web_harness
    monkeypatch.setattr("dittohead.web.server.access._FORM_S", 0.01)
    monkeypatch.setattr("dittohead.web.api.operations._BODY_S", 0.01)
    for path, kind in (
        ("/login", "application/x-www-form-urlencoded"),
        ("/api/v1/jobs/x/thaw", "application/json"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 50\r\n"
        writer.write(f"{head}Authorization: Bearer {OPERATOR}\r\n\r\n".encode())
        async with asyncio.timeout(20):
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_the_proxys_socket_is_for_nobody_else(tmp_path: Path) -> None:
    """Anyone who can connect to it is believed: its user alone, unless its directory says which group."""
    place = Path(tempfile.mkdtemp(prefix="dh-"))  # a socket's path is short
    for mode, wanted in ((0o755, 0o600), (0o2750, 0o660)):
        place.chmod(mode)
        made = WebHarness(
            tmp_path / str(mode),
            listen=str(place / "http.sock"),
            proxy={"from": ["unix"], "operators": ["*"]},
        )
        async with made.serving():
            assert stat.S_IMODE((place / "http.sock").stat().st_mode) == wanted
            connector = aiohttp.UnixConnector(str(place / "http.sock"))
            async with aiohttp.ClientSession("http://localhost", connector=connector) as proxy:
                assert (await call(proxy, "/api/v1/jobs"))[0] == 401
                assert (await call(proxy, "/api/v1/jobs", headers={"X-Remote-User": "carol"}))[0] == 200
                assert (await call(proxy, "/api/v1/jobs", headers={"Host": "evil.org"}))[0] == 403
        assert not (place / "http.sock").exists()
    place.rmdir()


def _servers() -> list[Any]:
    return [thing for thing in gc.get_objects() if isinstance(thing, web.Server) and thing.connections]


async def test_what_is_no_http_is_refused_cleanly(web_harness: Served) -> None:
    """And the next one is served."""
    for sent in [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GARBAGE\r\n\r\n",
    ]:
        made, client = web_harness
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(sent)
        async with asyncio.timeout(20):
            said = await reader.readuntil(b"\r\n\r\n")
        assert said.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), said[:200]
        writer.close()
        assert (await call(client, "/healthz"))[0] == 200


async def test_every_operation_says_whom_it_serves(web_harness: Served) -> None:
    """Whatever is served; nothing that changes anything serves readers."""
    for operation in routes.OPERATIONS:
        assert (operation.method != "GET") == (operation.role.name == "OPERATOR"), operation.name
    made = document(routes.OPERATIONS)
    assert made["openapi"] == "3.1.0"
    assert json.dumps(made).count('"$ref": "#/$defs') == 0


def test_states_in_the_shapes_are_those_of_jobs() -> None:
    """Written out there, so that the document names them."""
    assert set(get_args(shapes._State)) == {state.value for state in JobState}
