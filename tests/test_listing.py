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
from tests.support.front import OPERATOR, READER, Front, call
from tests.support.house import House

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
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "root", CONFIG)
    yield made
    made.store.close()


async def done(house: House) -> Job:
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

    house.worker.plays.update(make=make, send=send, publish=publish)
    odd = {name: "3" for name in ODD if name != "sub/b.txt"}
    house.arrive("n", {"a": "1", "junk": "2", "empty": {}, "sub": {"b.txt": "3"}, **odd})
    async with house.running():
        job = await house.until_over("n")
    assert job.state == "done", job.reason
    return job


def every(house: House, job: Job, limit: int = 1000) -> list[listing.ListedFile]:
    found: list[listing.ListedFile] = []
    cursor: str | None = ""
    while cursor is not None:
        page = listing.page(house.stations, job, house.steps(job), cursor, limit)
        assert len(page.files) <= limit
        found += page.files
        cursor = page.following
    return found


async def test_files_are_listed_with_where_they_lie(house: House) -> None:
    """Those of the folder and those that were made, each with its own places alone."""
    job = await done(house)
    found = every(house, job)
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


async def test_the_receipt_lists_what_the_work_did(house: House) -> None:
    """When what the steps made has been removed; at any length of a page."""
    job = await done(house)
    before = every(house, job)
    assert every(house, job, 1) == every(house, job, 4) == before
    shutil.rmtree(JobFiles(house.stations, job).home)
    for limit in (1, 4, 1000):
        assert every(house, job, limit) == before


async def test_a_cursor_of_nowhere_is_refused(house: House) -> None:
    """Also one of the work, once that is gone: the offsets are other ones then."""
    job = await done(house)
    steps = house.steps(job)
    cursor = listing.page(house.stations, job, steps, "", 1).following
    assert cursor is not None
    for wrong in ("x", "work::3", "work:../x:0", "work:nobody:0", "receipt::0", "work::-1"):
        with pytest.raises(ValueError, match="cursor"):
            listing.page(house.stations, job, steps, wrong, 1)
    shutil.rmtree(JobFiles(house.stations, job).home)
    with pytest.raises(ValueError, match="cursor"):
        listing.page(house.stations, job, steps, cursor, 1)


async def test_a_job_without_lists_has_no_files(house: House) -> None:
    """Its receipt is gone as well, or is not a receipt."""
    job = await done(house)
    shutil.rmtree(JobFiles(house.stations, job).home)
    (receipt,) = house.stations.receipts.iterdir()
    for text in (b"", b"{}", b'{\n "manifest": {"algorithm": "sha256", "files": []}\n}'):
        receipt.write_bytes(text)
        assert every(house, job) == []
    receipt.unlink()
    assert every(house, job) == []


async def test_the_api_and_the_page_show_the_files(tmp_path: Path) -> None:
    """Page by page, with a link to the next."""
    made = Front(tmp_path / "root")
    made.house.arrive("n", {f"{number:02}.txt": str(number) for number in range(5)})
    async with made.serving() as client:
        async with made.house.running():
            job = await made.house.until_over("n")
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
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same result."""
    job = await done(house)
    before = every(house, job, 3)
    monkeypatch.setattr(listing, "_INDEXED", 0)
    assert every(house, job, 3) == before
