"""The pages and the API of collections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from dittohead.model.states import JobState
from dittohead.web.pages import batches
from tests.support.web_harness import OPERATOR, READER, WebHarness, call
from tests.test_batches import CONFIG, bad, collection, over

Served = tuple[WebHarness, aiohttp.ClientSession]
HTML = {"Accept": "text/html"}
HOSTILE = "<img src=x onerror=alert(1)>\u202e"


@pytest.fixture
async def web_harness(tmp_path: Path) -> AsyncIterator[Served]:
    made = WebHarness(tmp_path / "root", config=CONFIG)
    async with made.serving() as client:
        yield made, client


async def test_a_collection_is_shown_and_tried_again_by_one_button(
    web_harness: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its failures first; names are text; a reader has no button."""
    made, client = web_harness
    status, said = await call(client, "/batches", token=READER, headers=HTML)
    assert (status, "each: folder" in said) == (200, True)
    collection(made.harness, folders=3, **{HOSTILE: {"a.txt": "x"}})
    made.harness.worker.plays["second"] = bad("0001", HOSTILE)
    async with made.harness.running():
        batch = await over(made.harness)
        path = f"/batches/{batch['id']}"
        _, said = await call(client, "/batches", token=READER, headers=HTML)
        assert f'href="{path}"' in said
        _, said = await call(client, path, token=READER, headers=HTML)
        assert "2 of 4 folders done, 2 failed" in said
        assert "<img src=x" not in said
        assert said.index("coll-a/0001") < said.index('id="h-all"') < said.index("coll-a/0000")
        assert "<form" not in said
        assert (await call(client, f"{path}/retry", "POST", token=READER, headers=HTML))[0] == 403
        # Under its name it leads to its own address.
        status, _ = await call(client, "/batches/coll-a", token=READER, headers=HTML)
        assert status == 303
        assert (await call(client, "/batches/nobody", token=READER, headers=HTML))[0] == 404
        job = made.harness.job("coll-a/0001")
        _, said = await call(client, f"/jobs/{job.id}", token=READER, headers=HTML)
        assert f'One folder of the collection <a href="{path}">' in said
        made.harness.worker.plays.clear()
        cookie = await made.signed_in(client)
        given = {"Cookie": cookie, "Sec-Fetch-Site": "same-origin", **HTML}
        data = {"csrf": await made.csrf(client, cookie)}
        async with client.post(f"{path}/retry", data=data, headers=given, allow_redirects=False) as answer:
            assert answer.status == 303
            there = answer.headers["Location"]
        async with client.get(there, headers=given) as answer:
            assert "2 folders tried again, each from the step that failed" in await answer.text()
        await made.harness.until(
            lambda: {job.state for job in made.harness.jobs()} == {JobState.DONE}, timeout_s=20
        )
    # A page at a time.
    monkeypatch.setattr(batches, "_JOBS", 3)
    _, said = await call(client, path, token=READER, headers=HTML)
    assert said.count("coll-a/") == 3
    following = said.partition('rel="next"')[0].rpartition('href="')[2].rstrip('" ')
    _, said = await call(client, following, token=READER, headers=HTML)
    assert said.count("coll-a/") == 1
    assert (await call(client, f"{path}?after=x", token=READER, headers=HTML))[0] == 400


async def test_programs_ask_for_batches(web_harness: Served) -> None:
    """By id or name; who may only read tries nothing again."""
    made, client = web_harness
    assert await call(client, "/api/v1/batches", token=READER) == (200, {"items": []})
    collection(made.harness)
    made.harness.worker.plays["second"] = bad("0001")
    async with made.harness.running():
        batch = await over(made.harness)
        assert await call(client, "/api/v1/batches", token=READER) == (200, {"items": [batch]})
        for named in ("coll-a", batch["id"]):
            assert await call(client, f"/api/v1/batches/{named}", token=READER) == (200, batch)
            _, page = await call(client, f"/api/v1/jobs?batch={named}", token=READER)
            assert len(page["items"]) == 3
            assert {job["batch"] for job in page["items"]} == {batch["id"]}
        status, said = await call(client, "/api/v1/jobs/coll-a", token=READER)
        assert (status, "list --batch" in said["detail"]) == (404, True)
        status, job = await call(client, "/api/v1/jobs/coll-a%2F0001", token=READER)
        assert (status, job["name"]) == (200, "coll-a/0001")
        retry = "/api/v1/batches/coll-a/retry"
        assert (await call(client, retry, "POST", token=READER, json={}))[0] == 403
        made.harness.worker.plays.clear()
        status, said = await call(client, retry, "POST", token=OPERATOR, json={})
        assert (status, said["message"].startswith("coll-a: 1 folder tried again")) == (200, True)
        await made.harness.until(lambda: made.harness.job("coll-a/0001").state is JobState.DONE)
        status, said = await call(client, retry, "POST", token=OPERATOR, json={})
        assert (status, "nothing of coll-a has failed" in said["detail"]) == (409, True)
        assert (await call(client, "/api/v1/batches/none/retry", "POST", token=OPERATOR, json={}))[0] == 404
