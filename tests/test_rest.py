"""HTTP to the systems we record in: what is sent, how often, to whom, and what a fault means."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from aiohttp import web

from dittohead.model.errors import ItemError, StepError, TargetError, TransientError
from dittohead.toolkit.rest import Rest, RestAnswer, RestSite, connected

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Far:
    """A server that answers as a test says."""

    def __init__(self) -> None:
        self.base = ""
        self.seen: list[web.Request] = []
        self.answer: Handler = self.fine

    async def fine(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.json_response({"ok": True})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        return await self.answer(request)


@pytest_asyncio.fixture
async def far() -> AsyncIterator[Far]:
    made = Far()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest_asyncio.fixture
async def rest(far: Far) -> AsyncIterator[Rest]:
    async with connected(RestSite(url=far.base), ("me", "pä:ss")) as opened:
        yield opened


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_nothing_is_sent_twice_when_a_kept_connection_breaks(far: Far, rest: Rest, method: str) -> None:
    """Aiohttp would repeat what HTTP calls idempotent; whether it was obeyed nobody would know."""
    await rest.send("GET", "/warm")

    async def drop(request: web.Request) -> web.StreamResponse:
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    far.answer = drop
    with pytest.raises(TransientError, match="connection broke"):
        await rest.send(method, "/x", data=b"body" if method in ("PUT", "POST") else None)
    assert [request.path for request in far.seen] == ["/warm", "/x"]


async def test_a_server_that_is_silent_may_have_heeded(far: Far, rest: Rest) -> None:
    """Not to be told apart from one that is about to; one that was never reached is."""
    release = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    far.answer = silent
    with pytest.raises(TransientError, match="does not answer"):
        await rest.send("POST", "/x", silent_s=0.05)
    release.set()
    async with connected(RestSite(url="http://127.0.0.1:1")) as nobody:
        with pytest.raises(TargetError, match="cannot be reached"):
            await nobody.send("POST", "/x")


async def test_an_answer_that_trickles_is_not_waited_for_for_ever(
    far: Far, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte now and then is not silence; a slot would be held for days. Large files may take their time."""
    release = asyncio.Event()

    async def trickle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"[")
        await release.wait()
        return answer

    far.answer = trickle
    monkeypatch.setattr("dittohead.toolkit.rest._WHOLE_S", 0.05)
    with pytest.raises(TransientError, match="the end of its answer"):
        await rest.send("GET", "/x")
    pieces: list[bytes] = []

    def take(piece: bytes) -> None:
        pieces.append(piece)
        release.set()

    monkeypatch.setattr("dittohead.toolkit.rest._WHOLE_S", 0.0)
    release.clear()
    assert (await rest.send("GET", "/x", sink=take)).status == 200
    assert pieces == [b"["]


async def test_credentials_go_to_the_site_itself_and_only_when_meant(far: Far, rest: Rest) -> None:
    """RFC 7617, in UTF-8; another host sees none, nor does a look as the public has it."""
    await rest.send("GET", "/a")
    await rest.send("GET", "/b", anonymous=True)
    await rest.send("GET", far.base.replace("127.0.0.1", "localhost") + "/c")
    given = [request.headers.get("Authorization") for request in far.seen]
    assert given == ["Basic bWU6cMOkOnNz", None, None]


async def test_a_large_body_passes_through_a_sink(far: Far, rest: Rest) -> None:
    """Only that of a success; an error's is kept to be told."""

    async def large(request: web.Request) -> web.StreamResponse:
        if request.path == "/gone":
            return web.json_response({"message": "gone"}, status=404)
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(70):
            await response.write(bytes([number]) * (1 << 20))
        return response

    far.answer = large
    digest, pieces = hashlib.sha256(), []

    def take(piece: bytes) -> None:
        digest.update(piece)
        pieces.append(len(piece))

    answer = await rest.send("GET", "/x", sink=take)
    assert (answer.status, answer.body) == (200, b"")
    assert sum(pieces) == 70 << 20
    assert max(pieces) <= 1 << 20
    assert (await rest.send("GET", "/gone", sink=take)).json() == {"message": "gone"}
    assert sum(pieces) == 70 << 20
    with pytest.raises(ItemError, match="larger than 64 MiB"):
        await rest.send("GET", "/x")


async def test_parameters_are_escaped_whole(far: Far, rest: Rest) -> None:
    """A bare # would end the URL."""
    await rest.send("GET", "/x", params={"uri": "http://pcdm.org/use#OriginalFile", "q": "a+b &c"})
    assert dict(far.seen[0].query) == {"uri": "http://pcdm.org/use#OriginalFile", "q": "a+b &c"}
    assert "%23" in str(far.seen[0].rel_url.raw_query_string)


@pytest.mark.parametrize(
    ("status", "headers", "kind", "said"),
    [
        (301, {"Location": "https://new/"}, TargetError, "Set url to where it is now"),
        (401, {}, TargetError, "password"),
        (403, {}, TargetError, "password"),
        (507, {}, TargetError, "room"),
        (429, {"Retry-After": "7"}, TransientError, "429"),
        (503, {}, TransientError, "503"),
        (404, {}, ItemError, "404"),
        (422, {}, ItemError, "422 (field: wrong)"),
    ],
)
def test_a_fault_means_what_its_status_says(
    status: int, headers: dict[str, str], kind: type[StepError], said: str
) -> None:
    """For the folder, for a later try, for the target."""
    answer = RestAnswer(method="GET", url="https://x/y", status=status, headers=headers, body=b"")
    fault = answer.fault("field: wrong.")
    assert type(fault) is kind
    assert said in str(fault)
    if isinstance(fault, TransientError) and headers:
        assert fault.retry_after_s == 7


@pytest.mark.parametrize("url", ["http://example.org:18x89/api", "http://example.org:99999"])
def test_a_port_that_is_none_is_refused_by_the_configuration(url: str) -> None:
    """Not by the first request."""
    with pytest.raises(ValueError, match="its port is not a number from 0 to 65535"):
        RestSite(url=url)
