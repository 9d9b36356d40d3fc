"""A job's files, a page at a time: the same from its work and from its receipt, whatever they are called."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.folders import listing
from dittohead.folders.job_files import JobFiles
from dittohead.model.records import Job, Location, Output
from tests.support.harness import Harness
from tests.support.web_harness import OPERATOR, READER, WebHarness, call

CONFIG = """
root: .
space: {floor: 0}
pipelines:
  p:
    match: ".*"
    ignore: [junk]
    steps:
      - script: {name: make}
      - script: {name: send}
      - script: {name: publish, from: make}
"""

#: Names that could be taken for something else in a list of JSON lines.
ODD = ('quo"te', '"path": "x', "back\\slash", "new\nline", "é", b"\xff", "sub/b.txt")


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "root", CONFIG)
    yield made
    made.store.close()


async def done(harness: Harness) -> Job:
    """Have a folder done whose files are sent, and of each of which something is made and published."""

    async def make(ctx: StepContext) -> StepResult:
        for entry in (entry for entry in ctx.source.entries() if not entry.is_dir):
            ctx.output(Output(path=entry.path + b".tif", size=3, sha256="f" * 64, source=entry.path))
        return Done()

    async def send(ctx: StepContext) -> StepResult:
        for entry in reversed(list(ctx.source.entries())):
            path, uri = entry.path, f"s3://b/{ctx.step}/{entry.path!r}"
            ctx.location(Location(uri=uri, path=path, size=1, sha256=entry.sha256, verified_by="v"))
        page = Location(uri="https://a/1", path=b"a", size=0, sha256="", verified_by="v", use="page")
        ctx.location(page)
        return Done()

    async def publish(ctx: StepContext) -> StepResult:
        for output in ctx.source.entries():
            uri = f"s3://b/{ctx.step}/{output.path!r}"
            ctx.location(Location(uri=uri, path=output.path, size=3, sha256="f" * 64, verified_by="v"))
        return Done()

    harness.worker.plays.update(make=make, send=send, publish=publish)
    odd = {name: "3" for name in ODD if name != "sub/b.txt"}
    harness.arrive("n", {"a": "1", "junk": "2", "empty": {}, "sub": {"b.txt": "3"}, **odd})
    async with harness.running():
        job = await harness.until_over("n")
    assert job.state == "done", job.reason
    return job


def every(harness: Harness, job: Job, limit: int = 1000) -> list[listing.ListedFile]:
    found: list[listing.ListedFile] = []
    cursor: str | None = ""
    while cursor is not None:
        page = listing.page(harness.stations, job, harness.steps(job), cursor, limit)
        assert len(page.files) <= limit
        found += page.files
        cursor = page.following
    return found


async def test_files_are_listed_with_where_they_lie(harness: Harness) -> None:
    """Those of the folder and those that were made, each with its own places alone."""
    job = await done(harness)
    found = every(harness, job)
    own = [file for file in found if not file.step]
    assert {file.path for file in own} == {
        b"a", b"junk", *(n if isinstance(n, bytes) else n.encode() for n in ODD)
    }  # fmt: skip
    for file in own:
        sent = [] if file.path == b"junk" else [("send", f"s3://b/send/{file.path!r}")]
        assert [(place.step, place.uri) for place in file.places] == sent
    for file in found[len(own) :]:
        assert (file.step, file.path) == ("make", file.source + b".tif")
        assert [place.uri for place in file.places] == [f"s3://b/publish/{file.path!r}"]
    assert len(found) == 2 * len(own) - 1


async def test_the_receipt_lists_what_the_work_did(harness: Harness) -> None:
    """When what the steps made has been removed; at any length of a page."""
    job = await done(harness)
    before = every(harness, job)
    assert every(harness, job, 1) == every(harness, job, 4) == before
    shutil.rmtree(JobFiles(harness.stations, job).home)
    for limit in (1, 4, 1000):
        assert every(harness, job, limit) == before


async def test_a_cursor_of_nowhere_is_refused(harness: Harness) -> None:
    """Also one of the work, once that is gone: the offsets are other ones then."""
    job = await done(harness)
    steps = harness.steps(job)
    cursor = listing.page(harness.stations, job, steps, "", 1).following
    assert cursor is not None
    for wrong in ("x", "work::3", "work:../x:0", "work:nobody:0", "receipt::0", "work::-1"):
        with pytest.raises(ValueError, match="cursor"):
            listing.page(harness.stations, job, steps, wrong, 1)
    shutil.rmtree(JobFiles(harness.stations, job).home)
    with pytest.raises(ValueError, match="cursor"):
        listing.page(harness.stations, job, steps, cursor, 1)


async def test_a_job_without_lists_has_no_files(harness: Harness) -> None:
    """Its receipt is gone as well, or is not a receipt."""
    job = await done(harness)
    shutil.rmtree(JobFiles(harness.stations, job).home)
    (receipt,) = harness.stations.receipts.iterdir()
    for text in (b"", b"{}", b'{\n "manifest": {"algorithm": "sha256", "files": []}\n}'):
        receipt.write_bytes(text)
        assert every(harness, job) == []
    receipt.unlink()
    assert every(harness, job) == []


async def test_the_api_and_the_page_show_the_files(tmp_path: Path) -> None:
    """Page by page, with a link to the next."""
    made = WebHarness(tmp_path / "root")
    made.harness.arrive("n", {f"{number:02}.txt": str(number) for number in range(5)})
    async with made.serving() as client:
        async with made.harness.running():
            job = await made.harness.until_over("n")
        seen: list[dict[str, Any]] = []
        path = f"/api/v1/jobs/{job.id}/files?limit=2"
        while path:
            async with client.get(path, headers={"Authorization": f"Bearer {READER}"}) as answer:
                page = await answer.json()
                path = str(answer.links["next"]["url"]) if "next" in answer.links else ""
            seen += page["items"]
        assert [file["path"] for file in seen] == [f"{number:02}.txt" for number in range(5)]
        assert json.dumps(seen[0]["locations"]) == "[]"
        assert (await call(client, f"/api/v1/jobs/{job.id}/files?cursor=x", token=OPERATOR))[0] == 400
        assert (await call(client, f"/api/v1/jobs/{job.id}/files"))[0] == 401
        status, shown = await call(client, f"/jobs/{job.id}/files", token=READER)
        assert (status, shown.count(".txt</bdi>")) == (200, 5)
        assert seen[4]["sha256"] in shown
        shown = (await call(client, f"/jobs/{job.id}", token=READER))[1]
        assert f'href="/jobs/{job.id}/files"' in shown
        assert (await call(client, f"/jobs/{job.id}/files?after=x", token=READER))[0] == 400


async def test_a_list_too_long_for_an_index_is_gone_through(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same result."""
    job = await done(harness)
    before = every(harness, job, 3)
    monkeypatch.setattr(listing, "_INDEXED", 0)
    assert every(harness, job, 3) == before
