"""Who holds connections: in what number, for how long, and who gets in all the same."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from dittohead.web.server import listener
from dittohead.web.server.listener import LINES, ListenLimits, bounds
from tests.support.web_harness import OPERATOR, READER, TOKENS, WebHarness, call

WITHIN = ListenLimits(most=24, strangers=8, one=8, backlog=4)

POST = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"

#: What somebody without a token may send to hold a line.
HELD = {
    "nothing": b"",
    "a part of the request line": b"GE",
    "the request line alone": b"GET / HTTP/1.1\r\n",
    "a part of the head": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ",
    "a head, and a part of the body": POST + b"Content-Length: 100\r\n\r\ntoken=",
    "a head, and a part of a chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nto",
    "a head that waits to be asked on": POST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    "a body that nobody reads": b"PUT /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n1",
    "a form to go out": POST.replace(b"login", b"logout") + b"Content-Length: 100\r\n\r\ncsrf=",
    "many requests at once": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 300,
    "a change to another protocol": b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\n\r\nabc",
    "what begins TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


@pytest.fixture
async def web_harness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[WebHarness, aiohttp.ClientSession]]:
    monkeypatch.setattr(listener, "bounds", lambda: WITHIN)
    made = WebHarness(tmp_path / "root")
    async with made.serving() as client:
        yield made, client


Served = tuple[WebHarness, aiohttp.ClientSession]


@contextlib.asynccontextmanager
async def held(port: int, sent: bytes, count: int) -> AsyncIterator[list[socket.socket]]:
    """Hold so many lines, each of which has sent this."""
    loop = asyncio.get_running_loop()
    socks = []
    try:
        for number in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            sock.bind((f"127.1.{number >> 8}.{number & 255}", 0))
            await loop.sock_connect(sock, ("127.0.0.1", port))
            socks.append(sock)
            with contextlib.suppress(OSError):  # closed already
                await loop.sock_sendall(sock, sent)
        yield socks
    finally:
        for sock in socks:
            sock.close()


def strangers(made: WebHarness) -> int:
    return len(made.app[LINES]._strangers)


@pytest.mark.parametrize("sent", HELD.values(), ids=HELD.keys())
async def test_who_shows_no_token_holds_few_lines_and_keeps_nobody_out(
    web_harness: Served, sent: bytes
) -> None:
    """Whatever is sent or held back: the oldest is closed for the newest."""
    made, client = web_harness
    with structlog.testing.capture_logs() as logged:
        async with held(made.port, sent, 3 * WITHIN.strangers):
            assert strangers(made) <= WITHIN.strangers
            assert (await call(client, "/api/v1/jobs", token=READER))[0] == 200
            assert (await call(client, "/login", "POST", data={"token": OPERATOR}))[0] == 303
            assert (await call(client, "/healthz"))[0] == 200
    # One line in the log, not one for each.
    assert len([line for line in logged if line["event"] == "http.crowded"]) <= 1


async def test_a_strangers_form_must_come_at_once(web_harness: Served) -> None:
    """Not after twenty seconds, as that of somebody known may; the line goes with it."""
    made, _ = web_harness
    async with held(made.port, HELD["a head, and a part of the body"], 1) as (sock,):
        async with asyncio.timeout(8):
            said = await asyncio.get_running_loop().sock_recv(sock, 4096)
        assert said.startswith(b"HTTP/1.1 408 ")


async def test_a_person_who_is_known_is_not_closed_for_strangers(web_harness: Served) -> None:
    """A stream that goes on for long, and what is uploaded slowly, stay."""
    made, _ = web_harness
    headers = {"Authorization": f"Bearer {READER}"}
    async with made.client(headers=headers) as reader, reader.get("/api/v1/events") as stream:
        assert await stream.content.readline() == b"retry: 2000\n"
        async with held(made.port, b"GET /", 2 * WITHIN.most):
            assert strangers(made) <= WITHIN.strangers
            assert len(made.app[LINES]._known) == 1
        assert (stream.content.at_eof(), stream.content.exception()) == (False, None)


async def test_one_person_holds_a_part_of_the_lines(web_harness: Served) -> None:
    """Streams of events are requests that do not end: another's are let in, and theirs when some have ended."""
    made, client = web_harness
    async with contextlib.AsyncExitStack() as stack:
        mine = await stack.enter_async_context(made.client(headers={"Authorization": f"Bearer {READER}"}))
        streams = [await mine.get("/api/v1/events") for _ in range(WITHIN.one)]
        assert {stream.status for stream in streams} == {200}
        status, said = await call(client, "/api/v1/jobs", token=READER)
        assert (status, said["detail"]) == (429, "bob (token) has 8 requests under way already")
        assert (await call(client, "/api/v1/jobs", token=OPERATOR))[0] == 200
        streams[0].close()
        await made.harness.until(lambda: made.app[LINES]._people.get("bob (token)") == WITHIN.one - 1)
        assert (await call(client, "/api/v1/jobs", token=READER))[0] == 200
        for stream in streams:
            stream.close()


async def test_all_lines_together_are_bounded_also_of_people_who_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then one that waits for a request is closed for one that has one."""
    monkeypatch.setattr(listener, "bounds", lambda: WITHIN)
    more = "".join(f"reader r{n} {READER}-{n}\n" for n in range(5))
    made = WebHarness(tmp_path / "root", tokens=TOKENS + more)
    async with made.serving() as client, contextlib.AsyncExitStack() as stack:
        streams: list[Any] = []
        for n in range(4):
            headers = {"Authorization": f"Bearer {READER}-{n}"}
            one = await stack.enter_async_context(made.client(headers=headers))
            streams += [await one.get("/api/v1/events") for _ in range(WITHIN.one - 2)]
        assert [stream.status for stream in streams] == [200] * WITHIN.most
        lines = made.app[LINES]
        assert len(lines._strangers) + len(lines._known) <= WITHIN.most
        with pytest.raises((aiohttp.ClientError, OSError)):
            await call(client, "/healthz")
        for stream in streams:
            stream.close()
        await made.harness.until(lambda: not lines._people)
        assert (await call(client, "/healthz"))[0] == 200


def test_lines_take_a_part_of_the_descriptors_whatever_their_number() -> None:
    """The daemon's own work, and the programs it starts, have the others."""
    for files in (64, 256, 1024, 65536, 1 << 30):
        found = bounds(files)
        # Those that are taken in three turns of the loop before any is closed.
        assert found.most + 3 * found.backlog <= max(files // 2, 36), files
        assert found.strangers <= max(files // 8, 8)
        assert found.strangers < found.most
        assert 8 <= found.one < found.most
    assert bounds(1 << 30) == bounds(4096)
