"""A job is verified by the daemon for anyone who may act: told how far it is, and ended with its reader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dittohead.web.api import verify_stream
from tests.support.web_harness import OPERATOR, READER, WebHarness, call
from tests.web.test_page import ran

Served = tuple[WebHarness, aiohttp.ClientSession]
PATH = "/api/v1/jobs/n/verify"


@pytest.fixture
async def web_harness(tmp_path: Path) -> AsyncIterator[Served]:
    made = WebHarness(tmp_path / "root")
    async with made.serving() as client:
        yield made, client


async def said(client: aiohttp.ClientSession) -> tuple[int, list[dict[str, Any]]]:
    status, text = await call(client, PATH, "POST", token=OPERATOR)
    return status, [
        json.loads(line) for line in (json.dumps(text) if status != 200 else raw(text)).splitlines()
    ]


def raw(found: Any) -> str:
    """One line alone is read as JSON by the client."""
    return found if isinstance(found, str) else json.dumps(found)


async def test_the_report_is_the_last_line(web_harness: Served) -> None:
    """Good, then with what is wrong; readers may not, and what is not over is refused."""
    made, client = web_harness
    assert (await call(client, PATH, "POST", token=OPERATOR))[0] == 404
    await ran(made, "n")
    assert (await call(client, PATH, "POST", token=READER))[0] == 403
    status, lines = await said(client)
    assert (status, lines[-1]["report"]["good"]) == (200, True)
    assert lines[-1]["report"]["checked"] == {str(made.harness.root / "done/n"): 1}
    (made.harness.root / "done/n/a.txt").write_text("other")
    _, lines = await said(client)
    (problem,) = lines[-1]["report"]["problems"]
    assert problem["what"] == "differs from the manifest"
    for path in (made.harness.root / "receipts").iterdir():
        path.unlink()
    status, lines = await said(client)
    assert (status, "the receipt cannot be read" in lines[0]["detail"]) == (409, True)


async def test_how_far_it_is_comes_meanwhile_and_no_more_than_two_are_at_once(
    web_harness: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that goes away ends it."""
    monkeypatch.setattr(verify_stream, "_TELL_S", 0.01)
    made, client = web_harness
    await ran(made, "n")
    made.verifying.clear()
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    async with client.post(PATH, headers=headers) as first:
        assert json.loads(await first.content.readline()) == {"looked": 0, "of": 0}
        async with client.post(PATH, headers=headers) as second:
            assert second.content_type == "application/x-ndjson"
            status, problem = await call(client, PATH, "POST", token=OPERATOR)
            assert (status, "other jobs are being verified" in problem["detail"]) == (409, True)
            second.close()
        under_way = made.app[verify_stream._UNDER_WAY]
        async with asyncio.timeout(20):
            while len(under_way) > 1:
                await asyncio.sleep(0.005)
        made.verifying.set()
        lines = [json.loads(line) async for line in first.content]
    assert lines[-1]["report"]["good"]
