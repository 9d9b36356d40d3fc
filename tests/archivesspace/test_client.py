"""One session over HTTP: what is asked, what is told, and what an answer means."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from dittohead.model.errors import ItemError, StepError, TargetError, TransientError
from dittohead.toolkit.rest import Rest, RestAnswer, connected
from dittohead.workers.archivesspace.client import ArchivesSpaceClient, Taken, fault, opened
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from tests.support.archivesspace import ArchivesSpace, Fault
from tests.support.archivesspace_job import AO, SECRETS


def options(url: str, **more: Any) -> ArchivesSpaceOptions:
    return ArchivesSpaceOptions(url=url, user="dittohead", credential="aspace-password", repository=2, **more)


@pytest.fixture
async def client(site: ArchivesSpace) -> AsyncIterator[ArchivesSpaceClient]:
    async with opened(options(site.url), SECRETS.__getitem__) as made:
        yield made


@pytest.fixture
async def echo() -> AsyncIterator[tuple[str, list[str]]]:
    """A server that notes what it was asked, to the byte."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(f"{request.method} {request.raw_path}")
        return web.json_response({})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/api", asked
    await runner.cleanup()


async def test_what_is_asked_for_is_encoded_once(echo: tuple[str, list[str]]) -> None:
    """Repeated names, what a path asks for already, and every character that means something."""
    url, asked = echo
    async with connected(options(url)) as rest:
        assert isinstance(rest, Rest)
        await rest.send("GET", "/x%2Fy", params=[("a[]", "1;2&3=4+5 6/7%"), ("a[]", "ö"), ("n", 1)])
        await rest.send("GET", "/x?a=%2F", params={"a": "2"})
        await rest.send("GET", url + "/whole")
    assert asked == [
        "GET /api/x%2Fy?a%5B%5D=1%3B2%263%3D4%2B5%206%2F7%25&a%5B%5D=%C3%B6&n=1",
        "GET /api/x?a=%2F&a=2",
        "GET /api/whole",
    ]


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, b'{"error": {"title": ["Property is required but was missing"]}}', ItemError, "title: Property is required"),
        (400, b'{"error": {"db_error": ["x: Duplicate entry \'3-1\' for key \'doc_unique_identifier\'"]}}', Taken, "Duplicate entry"),
        (400, b'{"error": {"conflicting_record": ["/agents/software/3"]}}', Taken, "/agents/software/3"),
        (400, b'{"error": {"digital_object_id": ["Must be unique"]}}', Taken, "Must be unique"),
        (400, b'{"error": {"db_error": ["x: Data too long for column \'caption\' at row 1"]}}', ItemError, "too long for column 'caption'"),
        (400, b'{"error": {"db_error": ["x: Illegal mix of collations"]}}', ItemError, "Illegal mix"),
        (400, b'{"error": {"db_error": ["x: Lock wait timeout exceeded; try restarting transaction"]}}', TransientError, "Lock wait timeout"),
        (400, b'{"error": {"db_error": ["x: Deadlock found when trying to get lock"]}}', TransientError, "Deadlock found"),
        (400, b'{"error": {"title": ["mixed_content_invalid_inline_ead"]}}', ItemError, "its markup is not well-formed"),
        (403, b'{"error": "Access denied"}', TargetError, "Access denied"),
        (404, b'{"error": "DigitalObject not found"}', ItemError, "not found"),
        (409, b'{"error": "Record is suppressed"}', ItemError, "refuses the change (Record is suppressed)"),
        (500, b'{"error": "boom: /opt/a.rb:1:in `x\'\\n\\t/opt/b.rb"}', TransientError, "boom: /opt/a.rb:1"),
        (502, b"<html>Bad Gateway", TransientError, "502"),
        (301, b"", TargetError, "(https://x)"),
    ],
)  # fmt: skip
def test_what_an_answer_means(status: int, body: bytes, kind: type[StepError], words: str) -> None:
    """ArchivesSpace's own words, of a backtrace only the first line."""
    found = fault(
        RestAnswer(method="POST", url="u", status=status, headers={"Location": "https://x"}, body=body)
    )
    assert type(found) is kind
    assert words in str(found)
    assert "b.rb" not in str(found)


async def test_a_change_reads_anew_each_time(site: ArchivesSpace, client: ArchivesSpaceClient) -> None:
    """A lost answer is settled by reading: what was obeyed is not sent again."""
    site.faults.append(Fault(r"POST .*/7", "drop", after=True))
    tries = 0

    async def apply(record: dict[str, Any]) -> bool:
        nonlocal tries
        tries += 1
        wanted = record["title"] != "New"
        record["title"] = "New"
        return wanted

    await client.change(AO, apply)
    assert tries == 2
    assert site.posts == [f"POST {AO}"]
    assert site.records[AO]["lock_version"] == 1


async def test_other_conflicts_are_no_race(site: ArchivesSpace, client: ArchivesSpaceClient) -> None:
    """A 409 that reading again cannot fix is not tried again."""
    site.faults.append(Fault(r"POST .*/7", "409", times=9))

    async def apply(record: dict[str, Any]) -> bool:
        return True

    with pytest.raises(ItemError, match="refuses the change"):
        await client.change(AO, apply)
    assert len([call for call in site.calls if call.path == AO and call.method == "POST"]) == 1


async def test_a_site_that_is_none(echo: tuple[str, list[str]]) -> None:
    """A staff interface, say, whose login answers something else."""
    with pytest.raises(TargetError, match="nothing an ArchivesSpace would"):
        async with opened(options(echo[0]), SECRETS.__getitem__) as client:
            await client.get(AO)
