"""The pages as they are sent: who sees which buttons, what hostile words become, logs, files, events."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import pwd
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.folders.job_files import JobFiles
from dittohead.model.definition import Failure, JobDefinition, Refusal, StepDefinition
from dittohead.model.errors import NameTaken
from dittohead.model.records import Location
from dittohead.model.states import JobState, Outcome
from dittohead.store import jobs as job_store
from dittohead.store import requests as request_store
from dittohead.web.pages import front as page_front
from dittohead.web.pages import job as page_job
from dittohead.web.pages import log
from dittohead.web.pages import page as page_module
from dittohead.web.pages.cures import cures
from dittohead.web.pages.words import Words, aged, ago, link, moment, name, typed
from tests.support.web_harness import OPERATOR, READER, WebHarness, call

Served = tuple[WebHarness, aiohttp.ClientSession]
HTML = {"Accept": "text/html"}


@pytest.fixture
async def web_harness(tmp_path: Path) -> AsyncIterator[Served]:
    made = WebHarness(tmp_path / "root")
    async with made.serving() as client:
        yield made, client


async def text(client: aiohttp.ClientSession, path: str, token: str = READER, status: int = 200) -> str:
    found, said = await call(client, path, token=token, headers=HTML)
    assert found == status, said
    return str(said)


async def ran(web_harness: WebHarness, name: str) -> Any:
    web_harness.harness.arrive(name)
    async with web_harness.harness.running():
        return await web_harness.harness.until_over(name)


async def test_buttons_are_for_operators_alone(web_harness: Served) -> None:
    """Also in what is told live; a reader's page holds no form that acts."""
    made, client = web_harness
    made.harness.worker.plays["second"] = _fails
    job = await ran(made, "n")
    for path in ("/", f"/jobs/{job.id}"):
        assert f'action="/jobs/{job.id}/retry"' in await text(client, path, OPERATOR)
        assert 'method="post"' not in await text(client, path)
    for token, acts in ((OPERATOR, True), (READER, False)):
        event = await first_event(client, f"/api/v1/events?page=job&id={job.id}", token)
        assert ("/retry" in event) is acts


async def _fails(ctx: StepContext) -> StepResult:
    raise NameTaken("<b>taken</b>\u202e", where="<script>x</script>", hint="<i>do</i>")


async def first_event(client: aiohttp.ClientSession, path: str, token: str, **headers: str) -> str:
    given = {"Authorization": f"Bearer {token}", **headers}
    async with client.get(path, headers=given) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        async for line in answer.content:
            if line.startswith(b"data:"):
                return line.decode()
    raise AssertionError("it ended")


@pytest.mark.parametrize(
    "hostile", ["<img src=x onerror=alert(1)>", "a\u202eb", "a\nb", 'a" onx="1', "{{ 7*7 }}"]
)
async def test_names_and_reasons_are_text_everywhere(web_harness: Served, hostile: str) -> None:
    """On every page, in the live parts, in a title; directions and line breaks are seen."""
    made, client = web_harness

    async def fails(ctx: StepContext) -> StepResult:
        raise NameTaken(hostile, where=hostile, hint=hostile)

    made.harness.worker.plays["first"] = fails
    job = await ran(made, hostile)
    event = json.loads((await first_event(client, "/api/v1/events?page=front", READER))[5:])
    pages = [await text(client, path) for path in ("/", f"/jobs/{job.id}", "/jobs", "/statistics")]
    for page in [*pages, event["html"]]:
        assert "<img src=x" not in page
        assert "\u202e" not in page
        assert 'onx="1' not in page
        assert "49" not in re.findall(r"<h1.*?</h1>", page)
    if "\n" in hostile:
        assert "a\\nb" in pages[1]


async def test_nothing_is_inline_and_everything_named_is_there(web_harness: Served) -> None:
    """As the policy wants it; assets are kept forever under names made of their content."""
    made, client = web_harness
    job, imported = await ran(made, "n"), set[str]()
    for path in ("/", f"/jobs/{job.id}", "/jobs", "/statistics", "/drop", "/nowhere"):
        page = (await call(client, path, token=OPERATOR, headers=HTML))[1]
        assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]* src=)", page), path
        for asset in re.findall(r'(?:href|src)="(/static/[^"]+)"', page):
            async with client.get(asset) as answer:
                assert answer.status == 200
                imported |= set(re.findall(r'^import .* from "(.*)";', await answer.text(), re.MULTILINE))
                assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
                tag = answer.headers["ETag"]
            async with client.get(asset, headers={"If-None-Match": tag}) as answer:
                assert answer.status == 304
    assert imported
    for asset in imported:
        assert re.fullmatch(r"/static/units\.[0-9a-f]{16}\.js", asset)
        assert (await call(client, asset))[0] == 200
    for asset in ("page.css", "..%2fpage.py", "%2e%2e/page.py", ""):
        assert (await call(client, f"/static/{asset}"))[0] == 404


async def test_a_page_leads_to_a_jobs_own_address(web_harness: Served) -> None:
    """By its name and the beginning of its id; unknown ones are pages that say so."""
    made, client = web_harness
    job = await ran(made, "a name")
    for wanted in ("a name", job.id[:20].lower()):
        headers = {"Authorization": f"Bearer {READER}"}
        async with client.get(f"/jobs/{wanted}", headers=headers, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, f"/jobs/{job.id}")
    assert "there is no job" in await text(client, "/jobs/nobody", status=404)
    assert (await call(client, f"/jobs/{job.id}/explode", "POST", token=OPERATOR))[0] == 404


async def test_a_search_is_its_address_and_goes_on_page_by_page(
    web_harness: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be looked for is said; a cursor of nowhere is none."""
    made, client = web_harness
    monkeypatch.setattr("dittohead.web.pages.page._FOUND", 2)
    for number in range(5):
        await ran(made, f"set-{number}")
    seen: list[str] = []
    path = "/jobs?q=set&state=done"
    while path:
        page = await text(client, path)
        seen += re.findall(r"<bdi>(set-\d)</bdi>", page)
        assert 'value="set"' in page
        following = re.search(r'href="([^"]+)" rel="next"', page)
        path = following[1].replace("&amp;", "&") if following else ""
    assert seen == [f"set-{number}" for number in (4, 3, 2, 1, 0)]
    assert "No job was found" in await text(client, "/jobs?q=other")
    for wrong, said in (
        ("state=Odd", "There is no state &#34;Odd&#34;."),
        ("since=Yesterday", "&#34;Yesterday&#34; is not a date; write it as 2026-01-31."),
        ("until=9999-12-31", "is not a date"),  # there is no day after it
        ("until=2026-13-01", "is not a date"),
        ("after=x", "This is not a cursor"),
    ):
        page = await text(client, f"/jobs?{wrong}", status=400)
        assert said in page[page.index('role="alert"') :]


async def test_a_job_whose_folder_was_done_again_leads_to_the_later_one(web_harness: Served) -> None:
    """Its folder is no longer where it left it, and there is nothing to be retried."""
    made, client = web_harness
    made.harness.worker.plays["second"] = _fails
    first = await ran(made, "n")
    made.harness.worker.plays.clear()
    async with made.harness.running():
        assert (await made.harness.ask("rerun", first.id))["ok"]
        made.harness.offer()
        await made.harness.until(lambda: len(made.harness.jobs("n")) == 2)
        second = await made.harness.until_over("n")
    page = await text(client, f"/jobs/{first.id}", OPERATOR)
    assert f'The folder was run again since, by <a href="/jobs/{second.id}">a later job</a>' in page
    assert f'action="/jobs/{first.id}/retry"' not in page
    assert "failed/n" not in page
    assert "done again since" not in await text(client, f"/jobs/{second.id}", OPERATOR)


async def test_what_a_failed_step_printed_is_one_click_away(web_harness: Served) -> None:
    """Where there is anything."""
    made, client = web_harness
    made.harness.worker.plays["second"] = _fails
    job = await ran(made, "n")
    link = f'<a href="/jobs/{job.id}/steps/second/log">What the step second printed</a>'
    assert link not in await text(client, f"/jobs/{job.id}")
    path = JobFiles(made.harness.stations, job).log("second")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("begun\n" * 20 + "no <scanner>\n")
    page = await text(client, f"/jobs/{job.id}")
    assert link in page
    card = page[page.index('<li class="step s-failed">') :]
    card = card[: card.index("</li>")]
    assert '<p class="error">&lt;script&gt;x&lt;/script&gt;: &lt;b&gt;taken' in card
    assert card.count("begun\n") == 7
    assert "no &lt;scanner&gt;</pre>" in card


async def test_a_log_is_shown_from_its_end_and_followed(web_harness: Served) -> None:
    """Whole lines, in UTF-8 wherever it is cut; of this job's steps alone."""
    made, client = web_harness
    job = await ran(made, "n")
    path = JobFiles(made.harness.stations, job).log("first")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("é<b>\u202e\x1b[31m\r\n".encode() * 20_000 + b"end")
    page = await text(client, f"/jobs/{job.id}/steps/first/log")
    assert page.count("é&lt;b&gt;\\u202e\\x1b[31m\n") > 1000
    assert "end</pre>" in page
    assert "\x1b" not in page
    assert "\ufffd" not in page
    whole = f"/jobs/{job.id}/steps/first/log.txt"
    async with client.get(whole, headers={"Authorization": f"Bearer {READER}"}) as answer:
        assert await answer.read() == path.read_bytes()
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    at, got = 0, ""
    while True:
        headers = {"Authorization": f"Bearer {READER}"}
        async with client.get(f"{whole}?from={at}", headers=headers) as answer:
            got += await answer.text()
            at = int(answer.headers["X-Next"])
            if answer.headers["X-Over"] == "yes":
                break
    assert got.count("\n") == 20_000
    assert at == path.stat().st_size
    for step in ("nobody", "..", "..%2f..%2fstate", "first%00", "first.log"):
        assert (await call(client, f"/jobs/{job.id}/steps/{step}/log", token=READER))[0] in (404, 405)
    assert (await call(client, f"{whole}?from=x", token=READER))[0] == 400


def test_a_log_that_grows_is_cut_at_lines_only(tmp_path: Path) -> None:
    """A line that is being written comes when it is whole, unless it is longer than a piece."""
    path = tmp_path / "log"
    assert log.read(path, 0, 100, whole_lines=True) == ("", 0)
    path.write_bytes(b"one\ntw")
    assert log.read(path, 0, 100, whole_lines=True) == ("one\n", 4)
    assert log.read(path, 4, 100, whole_lines=True) == ("", 4)
    assert log.read(path, 4, 100, whole_lines=False) == ("tw", 6)
    path.write_bytes(b"x" * 50)
    assert log.read(path, 0, 10, whole_lines=True) == ("x" * 10, 10)
    path.write_bytes(b"a\nbb\nccc\n")
    assert log.read(path, -5, 100, whole_lines=True) == ("ccc\n", 9)


async def test_programs_hear_of_jobs_and_of_their_end(web_harness: Served) -> None:
    """Each with its summary; who comes back with the last id is told only what is newer."""
    made, client = web_harness
    made.harness.arrive("n")
    headers = {"Authorization": f"Bearer {READER}"}
    async with made.harness.running(), client.get("/api/v1/events", headers=headers) as answer:
        kind, last, states = "", "", set()
        async for raw in answer.content:
            line = raw.decode().rstrip("\n")
            key, _, value = line.partition(": ")
            if key == "id":
                last = value
            elif key == "event":
                kind = value
            elif key == "data" and kind == "job":
                fields = json.loads(value)
                assert fields["name"] == "n"
                states.add(fields["state"])
                if fields["state"] == "done":
                    break
    assert "done" in states
    assert re.fullmatch(r"[0-9a-f]{8}-\d+", last)
    assert (await call(client, "/api/v1/events?page=odd", token=READER))[0] == 400
    assert (await call(client, "/api/v1/events?page=job&id=nobody", token=READER))[0] == 404
    assert (await call(client, "/api/v1/events"))[0] == 401


async def test_a_stop_waits_for_nobody_who_reads(tmp_path: Path) -> None:
    """Streams end with the daemon, at once."""
    made = WebHarness(tmp_path / "root")
    async with made.serving():
        other = made.client()
        answer = await other.get("/api/v1/events?page=front", headers={"Authorization": f"Bearer {READER}"})
        assert await answer.content.readline()
    async with asyncio.timeout(20):
        await answer.content.read()
    await other.close()


async def test_steps_stand_beside_each_other_as_they_may_run(web_harness: Served) -> None:
    """By what each needs; jobs claimed before steps could say so stand in a line."""
    made, _ = web_harness
    job = await ran(made, "n")
    steps = made.harness.steps(job)
    named = [
        StepDefinition(name=name, worker="w", options={}, needs=needs)
        for name, needs in (("first", ()), ("second", ()), ("third", ("first", "second")))
    ]
    job = dataclasses.replace(job, definition=JobDefinition(steps=tuple(named)))
    assert [[s.name for s in level] for level in page_job.levels(job, steps)] == [
        ["first", "second"],
        ["third"],
    ]
    before = tuple(dataclasses.replace(one, needs=None) for one in named)
    job = dataclasses.replace(job, definition=JobDefinition(steps=before))
    assert [len(level) for level in page_job.levels(job, steps)] == [1, 1, 1]


async def test_where_it_is_are_links_only_where_a_browser_can_follow(web_harness: Served) -> None:
    """A record and a page; a script is text, no matter who wrote it."""
    made, client = web_harness

    async def places(ctx: StepContext) -> StepResult:
        for use, uri in (
            ("record", "https://a.example/1"),
            ("page", "javascript:alert(1)"),
            ("", "s3://b/x/a.txt"),
        ):
            at = Location(uri=uri, path=b"a.txt", size=0, sha256="", verified_by="read-back", use=use)
            ctx.location(at)
        return Done(detail="")

    made.harness.worker.plays["first"] = places
    job = await ran(made, "n")
    page = await text(client, f"/jobs/{job.id}")
    assert '<a href="https://a.example/1" rel="noreferrer">' in page
    assert "<code>javascript:alert(1)</code>" in page
    assert "<code>s3://b/x/</code>" in page
    assert "javascript:" not in re.findall(r'href="([^"]*)', page)
    assert str(link("http://[broken")) == "<code>http://[broken</code>"


def front_of(**live: Any) -> dict[str, Any]:
    counts = {state.value: 0 for state in JobState}
    seen = page_front.FrontData(
        counts=counts, running=[], waiting=[], frozen=[], failed=[], failed_count=0, lately=[], lately_count=0,
        lately_bytes=0, targets=[], waits_for={}, unsent=0, looked={}, panels={}, boards=[], uploaders={},
    )  # fmt: skip
    given = {"watcher": {"mode": "inotify"}, **live}
    return page_front.front(seen, given, list(given.get("held", {})), (10 << 30, 100 << 30), 1 << 30, {})


def test_the_glance_says_what_is_wrong_and_nothing_else() -> None:
    """A folder that waits for its namesake needs no attention; one that may not be moved is."""
    assert front_of()["glance"].startswith("All is well. 0 running")
    assert front_of(held={"a": "an earlier folder of this name", "b": "the target x is paused: y"})["well"]
    stuck = front_of(held={"a": "it may not be moved", "b": "it waits"}, overdue=[{}], overdue_count=1)
    assert stuck["glance"].startswith("1 folder held in the inbox.")
    stray = front_of(overdue=[{}], overdue_count=1, overdue_strays=1)
    assert stray["glance"].startswith("1 thing in the inbox outside of any folder.")
    assert front_of(watcher={"mode": "missing"})["troubles"] == ["the inbox is not watched"]
    assert not front_of(sources={"s": {"error": "away", "held": "", "state": "failing"}})["well"]


def test_every_template_compiles() -> None:
    """The daemon finds out only when somebody asks for the page."""
    words = Words({})
    names = words._env.list_templates()
    assert len(names) > 20
    for template in names:
        words._env.get_template(template)


HELD = {
    "name": "<b>", "kind": "immovable", "reason": "mode 0755", "cure": "Do", "command": "sudo 'a&b'", "since": 0,
    "owner": "alice", "uid": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    "live",
    [
        {"watcher": {"mode": "missing"}},
        {"sources": {"s": {"error": "away", "held": "", "state": "failing"}}},
        {"overdue": [HELD], "overdue_count": 1},
        {
            "overdue": [{**HELD, "kind": "stray", "owner": "", "cure": ""}],
            "overdue_count": 9,
            "overdue_strays": 9,
        },
        {"stale": [{"name": ".x", "age_seconds": 9, "bytes": 1}], "stale_count": 1},
    ],
    ids=["watcher", "source", "held", "stray", "stale"],
)
def test_what_is_wrong_is_never_a_heading_alone(live: dict[str, Any]) -> None:
    """Each trouble has an entry that says what to do; hostile names are text."""
    given = front_of(**live)
    assert len(given["troubles"]) == 1
    said = Words({}).fill("front/attention.html", **given, csrf="", operator=False)
    assert "hidden" not in said
    assert said.count("<li ") == 1
    if "overdue" in live:
        assert "&lt;b&gt;" in said
        assert '<pre class="command">sudo &#39;a&amp;b&#39;</pre>' in said
        assert ("and 8 more that wait in the inbox" in said) is (live["overdue_count"] == 9)


async def test_who_asked_for_what_stands_on_the_job(web_harness: Served) -> None:
    """By its id or by its name, and no other job's."""
    made, client = web_harness
    job = await ran(made, "n")
    await made.harness.store.write(job_store.set_state, job.id, JobState.DONE, "")
    said = await call(client, f"/jobs/{job.id}/poke", "POST", token=OPERATOR)
    assert said[0] == 303
    page = await text(client, f"/jobs/{job.id}")
    assert "<bdi>alice (token)</bdi>" in page
    assert "n has ended (done)" in page


def test_words() -> None:
    """Names are set apart; a moment is one that programs read too, and so is an age."""
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for seconds, said in ((0, "now"), (42, "42 s ago"), (200, "3 min ago"), (90_000, "1 d ago"), (-5, "now")):
        at = now - timedelta(seconds=seconds)
        shared = f"<p>{ago(at)}</p>"
        assert f'title="{at:%Y-%m-%d %H:%M:%S} UTC">{at:%Y-%m-%d %H:%M:%S} UTC</time>' in shared
        assert f'title="{at:%Y-%m-%d %H:%M:%S} UTC">{said}</time></p>' in aged(shared, now)
    assert str(ago(None)) == ""
    assert str(name("a\u202e<")) == "<bdi>a\\u202e&lt;</bdi>"
    assert str(moment(0.0)) == '<time datetime="1970-01-01T00:00:00.000Z">1970-01-01 00:00:00 UTC</time>'
    assert str(moment(None)) == ""


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        ("Type: `rm -- 'a&b'`, then wait", "Type: <code>rm -- &#39;a&amp;b&#39;</code>, then wait"),
        ("`<b>` and `a\u202e`", "<code>&lt;b&gt;</code> and <code>a\\u202e</code>"),
        ("a ` alone, and <i>", "a ` alone, and &lt;i&gt;"),
        ("`over\ntwo lines`", "`over\ntwo lines`"),
        ("", ""),
    ],
)
def test_commands_in_hints_are_shown_as_code(hint: str, shown: str) -> None:
    """Without their backticks; whatever a name puts there is text."""
    assert str(typed(hint)) == shown


def over(kind: str, worker: str = "rsync", *, pipeline: str = "p", refuse: bool = False) -> Any:
    """A failed job, as far as it decides what helps."""
    steps = (StepDefinition(name="s", worker=worker, options={}),)
    refusal = Refusal(what="", where="", hint="") if refuse else None
    definition = JobDefinition(steps=steps, refusal=refusal)
    fields = {"state": JobState.FAILED, "outcome": Outcome.NONE, "pipeline": pipeline}
    return SimpleNamespace(error=Failure(what="", kind=kind, step="s"), definition=definition, **fields)


@pytest.mark.parametrize(
    ("job", "helps"),
    [
        (over("item"), ["retry", "rerun", "dismiss"]),
        (over("transient"), ["retry", "rerun", "dismiss"]),
        (over("cancelled", "convert"), ["retry", "rerun", "dismiss"]),
        (over("changed"), ["rerun", "dismiss"]),
        (over("item", "convert"), ["rerun", "retry", "dismiss"]),
        (over("item", pipeline="", refuse=True), ["rename", "rerun", "dismiss"]),
        (over("item", refuse=True), ["rerun", "rename", "dismiss"]),
    ],
)
def test_the_main_button_is_what_helps(job: Any, helps: list[str]) -> None:
    """Trying again is not first where it can only fail, nor offered where it is refused."""
    assert cures(job) == helps
    job.outcome = Outcome.DISMISSED
    assert cures(job) == helps[:-1]


async def test_a_folder_that_was_changed_is_offered_as_a_new_job(web_harness: Served) -> None:
    """Retry would be refused."""
    made, client = web_harness

    async def changes(ctx: StepContext) -> StepResult:
        (made.harness.root / "processing" / "n" / "a.txt").write_text("other")
        return Done(detail="")

    made.harness.worker.plays["second"] = changes
    job = await ran(made, "n")
    assert "after the folder was handed over" in job.reason
    page = await text(client, f"/jobs/{job.id}", OPERATOR)
    assert '<summary class="first">Run again' in page
    assert "/retry" not in page
    assert "/retry" not in await text(client, "/", OPERATOR)


async def test_a_name_that_fits_nothing_is_mended_by_another(web_harness: Served) -> None:
    """The form says what would come of it, moves nothing before, and leads to the new job."""
    made, client = web_harness
    job = await ran(made, "!n")
    address = f"/jobs/{job.id}/rename"
    for path in ("/", f"/jobs/{job.id}"):
        assert f'href="{address}"' in await text(client, path, OPERATOR)
        assert "/rename" not in await text(client, path)
    page = await text(client, address, OPERATOR)
    assert 'value="!n"' in page
    assert "[^!].*" in page
    for given, ok in (("n", True), ("!m", False), ("", False)):
        status, said = await call(client, f"{address}/check?name={given}", token=OPERATOR)
        assert (status, said["ok"]) == (200, ok)
    for method in ("GET", "POST"):
        assert (await call(client, address, method, token=READER))[0] == 403
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    async with client.post(address, data={"name": "!m"}, headers=headers) as answer:
        page = await answer.text()
    assert 'class="said bad"' in page
    assert 'value="!m"' in page
    assert made.harness.where("!n") == ["failed"]
    async with client.post(address, data={"name": "n"}, headers=headers, allow_redirects=False) as answer:
        leads = answer.headers["Location"]
    async with made.harness.running():
        done = await made.harness.until_over("n")
    assert (await call(client, leads, token=OPERATOR))[0] == 303
    page = await text(client, f"/jobs/{job.id}", OPERATOR)
    assert f'by <a href="/jobs/{done.id}">a later job</a>' in page


async def test_a_name_is_given_by_a_session_only_with_its_secret(web_harness: Served) -> None:
    """As every button."""
    made, client = web_harness
    job = await ran(made, "!n")
    cookie = await made.signed_in(client)
    status, _ = await call(
        client, f"/jobs/{job.id}/rename", "POST", data={"name": "n"}, headers={"Cookie": cookie}
    )
    assert (status, made.harness.where("!n")) == (403, ["failed"])


async def test_an_address_that_was_given_away_goes_on_to_work(web_harness: Served) -> None:
    """With its query, and only for who may read."""
    _, client = web_harness
    headers = {"Authorization": f"Bearer {READER}"}
    async with client.get("/numbers?days=14", headers=headers, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (308, "/statistics?days=14")
    assert "<h1>Statistics</h1>" in await text(client, "/statistics")
    assert (await call(client, "/numbers"))[0] == 401


async def test_lists_say_who_brought_a_folder_and_how_long_ago(web_harness: Served) -> None:
    """Anyone who dropped it through the page, however often it is done; else the user that owns it."""
    made, client = web_harness
    made.harness.worker.plays["second"] = _fails
    folder = made.harness.arrive("n")
    facts = {"ino": folder.stat().st_ino, "files": 1, "bytes": 5}
    await made.harness.store.write(request_store.add, "drop", "n", facts, "carol (signed in)")
    await made.harness.actions.answer_all()
    made.harness.arrive("m")
    async with made.harness.running():
        await made.harness.until_over("n")
        await made.harness.until_over("m")
    user = pwd.getpwuid(os.geteuid()).pw_name
    for path in ("/", "/jobs"):
        page = await text(client, path)
        assert page.count("<bdi>carol (signed in)</bdi>") == 1
        assert page.count(f"<bdi>{user}</bdi>") == 1
        assert re.search(r'<time class="age" datetime="[^"]+" title="[^"]+ UTC">(now|\d+ s ago)</time>', page)


async def test_the_bar_of_the_disk_fills_with_what_is_used(web_harness: Served) -> None:
    """And words say what is free, and what is to stay so."""
    made, client = web_harness
    values = {**front_of(), "operator": False}
    daemon = made.app[page_module.PAGES].words.fill("front/daemon.html", csrf="", **values)
    assert "90.0 GiB of 100 GiB used, 10.0 GiB free; below 1.0 GiB free, folders wait in the inbox" in daemon
    assert f'max="{100 << 30}"' in daemon
    assert f'value="{90 << 30}"' in daemon
    assert "used" in await text(client, "/")
