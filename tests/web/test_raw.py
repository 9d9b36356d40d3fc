"""Bytes that no browser sends: smuggled, forged and broken requests, and what comes behind them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.web_harness import OPERATOR, READER, WebHarness, call

Served = tuple[WebHarness, aiohttp.ClientSession]

LOGIN = "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"

#: What would be a second request, for a program that reads lengths in another way: one that only an operator may make.
INSIDE = (
    f"POST /api/v1/jobs/x/retry HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {OPERATOR}\r\n"
    "Content-Length: 0\r\n\r\n"
)

#: Heads in which the length is said twice, or in a way that readers differ on. Source: RFC 9112, 6.3 and 11.2.
SMUGGLED = [
    "Content-Length: {n}\r\nContent-Length: 0\r\n",
    "Content-Length: 0\r\nContent-Length: {n}\r\n",
    "Content-Length: {n}, 0\r\n",
    "Content-Length: +{n}\r\n",
    "Content-Length: -1\r\n",
    "Content-Length: 0x{n}\r\n",
    "Content-Length: {n}_0\r\n",
    "Content-Length: \u0661\r\n",
    "Content-Length:\r\n",
    "Content-Length : {n}\r\n",
    " Content-Length: {n}\r\n",
    "Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding: identity, chunked, identity\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding:\x0bchunked\r\n",
    "Transfer-Encoding: chun\x00ked\r\n",
    "X: a\rContent-Length: {n}\r\n",
    "X: a\nTransfer-Encoding: chunked\r\n",
    "X\x00: a\r\n",
    "X: a\r\n  folded: b\r\n",
]

#: Bodies behind `Transfer-Encoding: chunked`.
CHUNKS = [
    "+0\r\n\r\n",
    "0x0\r\n\r\n",
    "-1\r\n\r\n",
    "g\r\n\r\n",
    "0 \r\n\r\n",
    "0\n\n",
    "1\r\naX0\r\n\r\n",
    "f" * 40 + "\r\n",
]

#: First lines.
LINES = [
    "GET / HTTP/9.9", "GET / HTTP/1.1 x", "GET  /", "GET", "", " GET / HTTP/1.1", "G\x00T / HTTP/1.1", "GET /\x00 HTTP/1.1",
    "GET http://[ HTTP/1.1", "GET //evil.org/ HTTP/1.1", "CONNECT evil.org:443 HTTP/1.1", "GET * HTTP/1.1", "PRI * HTTP/2.0",
    "GET /" + "a" * 9000 + " HTTP/1.1", "GET /%00%ff%2e%2e/ HTTP/1.1", "GET /static/../../etc/passwd HTTP/1.1",
    "GET /static/%2e%2e%2fpage.py HTTP/1.1", "\x16\x03\x01", "TRACE / HTTP/1.1",
]  # fmt: skip


@pytest.fixture
async def web_harness(tmp_path: Path) -> AsyncIterator[Served]:
    made = WebHarness(tmp_path / "root")
    async with made.serving() as client:
        yield made, client


#: Behind all that is sent: where it is read as what it is, it is answered, and the line is closed.
LAST = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def answers(made: WebHarness, sent: str) -> list[int]:
    """Send bytes and return the statuses of all answers until the line is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
    writer.write((sent + LAST).encode("utf-8", "surrogateescape"))
    said = b""
    # What waits for more bytes is closed when it has been idle, after a form's time.
    with contextlib.suppress(ConnectionResetError):  # closed, with some of ours unread
        async with asyncio.timeout(60):
            while some := await reader.read(65536):
                said += some
    writer.close()
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", said)]


async def test_no_request_is_smuggled_in_anothers_body(web_harness: Served) -> None:
    """Whatever the head says of the length: the body's own request is not answered behind it, nor carried out."""
    made, client = web_harness
    sent = [f"{LOGIN}{head.format(n=len(INSIDE))}\r\n{INSIDE}" for head in SMUGGLED]
    sent += [f"{LOGIN}Transfer-Encoding: chunked\r\n\r\n{chunk}{INSIDE}" for chunk in CHUNKS]
    for one in sent:
        assert await answers(made, one) == [400], one
    assert await answers(made, f"{LOGIN}Content-Length: 0\r\n\r\n{INSIDE}") == [403, 404, 200]
    assert (await call(client, "/api/v1/requests", token=READER))[1]["items"] == []


async def test_broken_first_lines_are_refused_and_reach_nothing(web_harness: Served) -> None:
    """Nothing of another place, no answer of ours that is a defect."""
    made, _ = web_harness
    for line in LINES:
        said = await answers(made, f"{line}\r\nHost: localhost\r\nAuthorization: Bearer {READER}\r\n\r\n")
        assert said[0] in (400, 404, 405), (line, said)
        assert said[1:] in ([], [200]), (line, said)


async def test_cookies_and_tokens_that_are_forged_open_nothing(web_harness: Served) -> None:
    """Parts of real ones put together, cut, doubled, in other places."""
    made, client = web_harness
    mine, theirs = await made.signed_in(client), await made.signed_in(client, READER)
    name, _, value = mine.partition("=")
    body, _, signature = value.partition(".")
    other, _, seal = theirs.partition("=")[2].partition(".")
    cookies = [
        f"{name}={other}.{signature}", f"{name}={body}.{seal}", f"{name}={body}", f"{name}={value}.{value}",
        f"{name.upper()}={value}", f"__Host-{name}={value}", f"{name}={value}; {name}={value}", f'{name}="{value}"',
        f"{name} ={value} x", f"{name}={value[:-1]}", f"{name}={OPERATOR}", f"x={value}",
    ]  # fmt: skip
    for cookie in cookies:
        assert (await call(client, "/api/v1/jobs", headers={"Cookie": cookie}))[0] == 401, cookie
    for header in (
        f"Bearer{OPERATOR}",
        f"Token {OPERATOR}",
        OPERATOR,
        f"Bearer {OPERATOR},",
        f"Bearer {value}",
    ):
        said = await call(client, "/api/v1/jobs", headers={"Authorization": header})
        assert said[0] in (401, 429), header
    assert (await call(client, "/api/v1/jobs", headers={"Cookie": mine}))[0] == 200


async def test_fuzzed_requests_are_refused_and_the_next_are_answered(web_harness: Served) -> None:
    """A good one with some of its bytes changed, left out or doubled: no defect, no line that is held."""
    made, client = web_harness
    rng = random.Random(14)
    good = "GET /api/v1/jobs?limit=1 HTTP/1.1\r\nHost: localhost\r\nX: y\r\nAccept: */*\r\n\r\n"
    for _ in range(300):
        bytes_ = list(good)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(bytes_))
            bytes_[at] = rng.choice(["", bytes_[at] * 2, chr(rng.randrange(256)), "\r\n", "\0", " "])
        assert 500 not in await answers(made, "".join(bytes_)), bytes_
    assert (await call(client, "/api/v1/jobs", token=READER))[0] == 200
