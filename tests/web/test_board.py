"""The page of a source's board, and the page of one entry."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dittohead.contract.catalogue import Told
from dittohead.intake.board import figures
from dittohead.sources.grin.options import VOLUME
from dittohead.store import catalogue as catalogue_store
from dittohead.store import requests as request_store
from tests.support.harness import CONFIG
from tests.support.web_harness import OPERATOR, READER, WebHarness, call

HTML = {"Accept": "text/html"}
HOSTILE = "<img src=x onerror=alert(1)>\u202e"
SOURCES = "sources:\n  google:\n    grin: {library: LIB, client: c}\n  plain:\n    s3: {bucket: b}\n"
Served = tuple[WebHarness, aiohttp.ClientSession]


@pytest.fixture
async def web_harness(tmp_path: Path) -> AsyncIterator[Served]:
    made = WebHarness(tmp_path / "root", config=CONFIG + SOURCES)
    async with made.serving() as client:
        yield made, client


async def tell(made: WebHarness, *told: Told, at: float = 0.0) -> None:
    await made.harness.store.write(
        catalogue_store.tell, "google", VOLUME, told, at or time.time(), by="_all_books"
    )


def volume(key: str, state: str, stage: str = "", reason: str = "") -> Told:
    return Told(key=key, state=state, stage=stage, reason=reason)


async def pressed(made: WebHarness, client: aiohttp.ClientSession, path: str, **data: str) -> str:
    """Press a button as an operator; return where it leads."""
    cookie = await made.signed_in(client)
    given = {"Cookie": cookie, "Sec-Fetch-Site": "same-origin", **HTML}
    form = {"csrf": await made.csrf(client, cookie), **data}
    async with client.post(path, data=form, headers=given, allow_redirects=False) as answer:
        assert answer.status == 303, await answer.text()
        return answer.headers["Location"]


async def test_the_board_in_numbers_with_failures_by_reason(web_harness: Served) -> None:
    made, client = web_harness
    await tell(
        made,
        volume("A1", "available", "wanted"),
        volume("A2", "in_process", "wanted"),
        volume("A3", "converted", "hold"),
        volume("A4", "failed", "set_aside", HOSTILE),
        volume("A5", "failed", "set_aside", HOSTILE),
        volume("A6", "converted", "stored"),
        volume("A7", "available"),
    )
    _, said = await call(client, "/", token=READER, headers=HTML)
    status, said = await call(client, "/sources/google", token=READER, headers=HTML)
    assert status == 200
    assert "2 on their way, 24 stored a day" in said
    assert "<img src=x" not in said
    assert '<form method="post" action="/sources' not in said  # a reader has no buttons
    assert 'href="/sources/google/entries/A1"' in said
    for stage in ("available", "requested", "converted", "downloaded", "first", "stored", "hold"):
        assert f'<th scope="row">{stage}</th>' in said
    _, said = await call(client, "/sources/google", token=OPERATOR, headers=HTML)
    assert "Try again all 2" in said
    assert (await call(client, "/sources/plain", token=READER, headers=HTML))[0] == 404
    assert (await call(client, "/sources/nobody", token=READER, headers=HTML))[0] == 404
    status, _ = await call(client, "/sources/google/find?key=A1", token=READER, headers=HTML)
    assert status == 303


async def test_one_entry_and_its_buttons(web_harness: Served) -> None:
    made, client = web_harness
    await tell(made, volume("A/1", "available"), at=1000.0)
    await tell(made, volume("A/1", "available", "wanted", HOSTILE))
    status, said = await call(client, "/sources/google/entries/A%2F1", token=OPERATOR, headers=HTML)
    assert (status, "available, wanted" in said, "<img src=x" in said) == (200, True, False)
    assert "Hold" in said
    assert (await call(client, "/sources/google/entries/none", token=READER, headers=HTML))[0] == 404
    assert (await pressed(made, client, "/sources/google/entries/A%2F1/hold")).startswith(
        "/sources/google/entries/A%2F1?said="
    )
    (asked,) = made.harness.store.run(request_store.listing, action="source-hold")
    assert (asked.job, asked.args["keys"]) == ("google", ["A/1"])
    assert asked.who.startswith("alice")


async def test_all_with_one_reason_are_tried_again(web_harness: Served) -> None:
    made, client = web_harness
    await tell(made, *(volume(f"A{n}", "failed", "set_aside", "bad page") for n in range(3)))
    await pressed(made, client, "/sources/google/failures", why="bad page", action="want")
    (asked,) = made.harness.store.run(request_store.listing, action="source-tell")
    assert sorted(asked.args["args"]["keys"]) == ["A0", "A1", "A2"]
    assert asked.args["args"]["again"] is True
    led = await pressed(made, client, "/sources/google/failures", why="other", action="want")
    assert "said=" in led


@pytest.mark.parametrize(
    ("hours", "expected"),
    [({}, 0.0), ({100: 60}, 60.0), ({76: 0, 100: 60}, None), ({99: 10, 100: 10}, 10.0)],
)
def test_a_rate_is_a_mean_that_forgets(hours: dict[int, int], expected: Any) -> None:
    """Old hours count less; the hour that goes on counts as far as it has gone."""
    now = 101 * 3600 - 1e-6
    found = figures.smoothed(hours, now)
    if expected is None:
        assert 0 < found < 60
    else:
        assert found == pytest.approx(expected, rel=1e-6)
    assert figures.smoothed({99: 10, 100: 5}, 100.5 * 3600) == pytest.approx(10, rel=1e-6)
