"""The page for people: what goes on now, one job, jobs that are searched for, and the buttons."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlencode

from aiohttp import web
from markupsafe import Markup

from dittohead.folders import receipt
from dittohead.folders.stations import Stations
from dittohead.model.errors import StoreError
from dittohead.model.job_filter import JobFilter
from dittohead.model.records import Job, RequestAnswer
from dittohead.model.roles import Role
from dittohead.model.states import JobState
from dittohead.model.text import utcnow
from dittohead.store import Connection, queries
from dittohead.store.search import Cursor, JobPage, find
from dittohead.web.pages import front as page_front
from dittohead.web.pages import job as page_job
from dittohead.web.pages import thumbnails
from dittohead.web.pages.assets import Assets
from dittohead.web.pages.people import uploaders
from dittohead.web.pages.thumbnails import THUMBNAILER
from dittohead.web.pages.words import Words, aged
from dittohead.web.server import events
from dittohead.web.server.access import may_still
from dittohead.web.server.app_state import SITE, AppState
from dittohead.web.server.events import CSRF, Broadcaster, Fragment
from dittohead.web.server.identity import IDENTITY, Identity, Way, identity, needs
from dittohead.web.server.listener import Sent
from dittohead.web.server.login import LOGIN_PAGE
from dittohead.web.server.problems import ERROR_PAGE, Problem

_FRONT = ("glance", "attention", "running", "waiting", "arrivals", "lately", "places", "daemon")
_JOB = ("head", "steps", "places", "events", "asked")

#: What buttons may ask of a job.
_ACTIONS = frozenset(
    {"retry", "rerun", "freeze", "thaw", "cancel", "dismiss", "poke", "delete", "approve", "keep"}
)

#: Stands among the states of a search for failures that wait for somebody.
_OPEN = "open"

#: Jobs on a page of those found; and reported to programs that listen.
_FOUND, _TOLD = 50, 200

#: Answers kept until the page that shows them is asked for.
_SAID = 256


@dataclass
class Pages:
    """What all pages share; of one event loop."""

    words: Words
    assets: Assets
    broadcaster: Broadcaster = field(default_factory=Broadcaster)
    said: OrderedDict[str, RequestAnswer] = field(default_factory=OrderedDict)

    @classmethod
    def load(cls) -> Pages:
        """Read templates and assets. Blocking."""
        assets = Assets.load()
        return cls(Words(assets.paths), assets)

    def keep(self, answer: RequestAnswer | None) -> str:
        """Keep an answer, None while there is none, for the page that is loaded next; return its key."""
        answer = answer or RequestAnswer(ok=True, message="The request is stored and has no answer yet.")
        key = secrets.token_urlsafe(9)
        self.said[key] = answer
        while len(self.said) > _SAID:
            self.said.popitem(last=False)
        return key


PAGES = web.AppKey("pages", Pages)


def install(app: web.Application) -> None:
    """Give an application the pages. Blocking: it reads their files."""
    pages = app[PAGES] = Pages.load()
    get, post = app.router.add_get, app.router.add_post
    get("/", front)
    get("/jobs", found)
    get("/jobs/{job}", job)
    get("/jobs/{job}/receipt", job_receipt)
    post("/jobs/{job}/{action}", act)
    post("/targets/resume", resume)
    post("/sources/sync", sync)
    get("/api/v1/events", stream, allow_head=False)
    get("/static/{asset}", needs(Role.NOBODY)(pages.assets.serve))
    app.on_shutdown.append(_close)
    app[ERROR_PAGE].render = _problem
    app[LOGIN_PAGE].render = _login


async def _close(app: web.Application) -> None:
    await app[PAGES].broadcaster.close()


# -- what every page has -------------------------------------------------------------------------


async def answer(
    request: web.Request,
    template: str,
    *,
    here: str = "",
    live: str = "",
    parts: Mapping[str, Fragment] | None = None,
    status: int = 200,
    **values: Any,
) -> web.Response:
    """Return a page.

    Args:
        here: which of the menu's pages it is.
        live: the query of the events that keep it up to date; "" for none.
        parts: its fragments, shared with other readers.
    """
    pages, who = request.app[PAGES], identity(request)
    filled = {name: Markup(events.for_reader(_html(part), who.csrf)) for name, part in (parts or {}).items()}  # noqa: S704  # made by our templates, which escape
    text = await asyncio.to_thread(
        pages.words.fill,
        template,
        here=here,
        reader=who.role >= Role.READER,
        operator=who.role >= Role.OPERATOR,
        drops=request.app[SITE].config().settings.http is not None,
        who=who.name,
        csrf=who.csrf,
        leave="/logout" if who.way is Way.SESSION else "",
        enter=_enter(request),
        said=pages.said.pop(request.query.get("said", ""), None),
        events=f"/api/v1/events?{live}" if live else "",
        parts=filled,
        **values,
    )
    return web.Response(text=aged(text, utcnow()), content_type="text/html", status=status)


def _enter(request: web.Request) -> str:
    """Return where somebody who is not known can sign in; "" where that cannot be."""
    settings = request.app[SITE].config().settings.http
    if identity(request).way is not Way.AMBIENT or settings is None or settings.tokens is None:
        return ""
    return f"/login?{urlencode({'next': request.path_qs})}"


async def _problem(request: web.Request, problem: Problem) -> web.StreamResponse:
    """Tell a person what went wrong."""
    if IDENTITY not in request:  # refused before it was known who asks
        request[IDENTITY] = Identity("", Role.NOBODY)
    title = {404: "Not found", 403: "Not allowed", 401: "Not signed in"}.get(problem.status, problem.title)
    detail, hint = problem.detail, problem.hint
    response = await answer(
        request, "problem.html", status=problem.status, title=title, detail=detail, hint=hint
    )
    response.headers.update(problem.headers)
    return response


async def _login(request: web.Request, fields: dict[str, str]) -> web.StreamResponse:
    """Draw the form of sessions."""
    return await answer(
        request,
        "login.html",
        here="login",
        error=fields["error"],
        following=fields["next"],
        name=fields["name"],
    )


def _html(part: Fragment) -> str:
    html: str = json.loads(part.data)["html"]
    return html


async def _fragments(
    pages: Pages, prefix: str, names: tuple[str, ...], values: dict[str, Any]
) -> dict[str, Fragment]:
    """Fill the templates of a page's parts, in a thread: they may be long."""

    def work() -> dict[str, Fragment]:
        return {
            name: events.fragment(name, pages.words.fill(f"{prefix}/{name}.html", csrf=CSRF, **values))
            for name in names
        }

    return await asyncio.to_thread(work)


# -- the front page ------------------------------------------------------------------------------


async def _front_values(site: AppState) -> dict[str, Any]:
    config = site.config()
    seen = await site.store.read_apart(page_front.gather, config.sources)
    live = site.live()
    # Not the daemon's own, which remembers what its scans saw.
    stations = Stations(site.stations.root, site.stations.ignore, config.takes_file)

    def gather() -> tuple[list[str], tuple[int, int]]:
        return page_front.arrivals(stations), page_front.free_space(stations)

    inbox, space = await asyncio.to_thread(gather)
    rooms = {
        sample.labels["target"]: sample.value
        for metric in site.metrics.target_free.collect()
        for sample in metric.samples
    }
    return page_front.front(seen, live, inbox, space, config.settings.space.floor, rooms)


def _front(site: AppState, pages: Pages, *, operator: bool) -> tuple[Any, events.Make]:
    async def make() -> dict[str, Fragment]:
        return await _fragments(pages, "front", _FRONT, {**await _front_values(site), "operator": operator})

    return ("front", operator), make


@needs(Role.READER)
async def front(request: web.Request) -> web.Response:
    """Show what goes on now."""
    pages, operator = request.app[PAGES], identity(request).role >= Role.OPERATOR
    parts = await pages.broadcaster.now(*_front(request.app[SITE], pages, operator=operator))
    well = 'class="glance well"' in parts["glance"].data.replace('\\"', '"')
    return await answer(request, "front.html", here="front", live="page=front", parts=parts, well=well)


# -- one job -------------------------------------------------------------------------------------


async def _job_values(site: AppState, wanted: str) -> tuple[page_job.JobData, dict[str, Any]]:
    seen = await site.store.read_apart(page_job.gather, wanted)
    known = await asyncio.to_thread(page_job.files_of, site.stations, seen)
    return seen, page_job.values(site.stations, seen, known, site.live())


def _job(site: AppState, pages: Pages, wanted: str, *, operator: bool) -> tuple[Any, events.Make]:
    async def make() -> dict[str, Fragment]:
        _, values = await _job_values(site, wanted)
        return await _fragments(pages, "job", _JOB, {**values, "operator": operator})

    return ("job", wanted, operator), make


@needs(Role.READER)
async def job(request: web.Request) -> web.Response:
    """Show one job; under another name of it, lead to its own address."""
    pages, site, operator = request.app[PAGES], request.app[SITE], identity(request).role >= Role.OPERATOR
    wanted = request.match_info["job"]
    seen = await site.store.read_apart(page_job.gather, wanted)
    if seen.job.id != wanted:
        raise web.HTTPSeeOther(f"/jobs/{seen.job.id}")
    parts = await pages.broadcaster.now(*_job(site, pages, wanted, operator=operator))
    found = await request.app[THUMBNAILER].of(site.stations, seen.job, list(seen.steps))
    return await answer(
        request,
        "job.html",
        live=urlencode({"page": "job", "id": wanted}),
        parts=parts,
        job=seen.job,
        history=seen.history,
        later=seen.later,
        pictures=found,
        more_pictures=len(found) == thumbnails.MOST,
    )


async def one_job(request: web.Request) -> Job:
    """Return the job of a request's path. Raises: NoSuchJob."""
    return await request.app[SITE].store.read_apart(queries.resolve, request.match_info["job"])


@needs(Role.READER)
async def job_receipt(request: web.Request) -> web.StreamResponse:
    """Send the receipt."""
    wanted = await one_job(request)
    path = receipt.path_of(request.app[SITE].stations.receipts, wanted)
    if not await asyncio.to_thread(path.is_file):
        raise web.HTTPNotFound(reason="there is no receipt yet; it is written when the job ends")
    headers = {
        "Content-Type": "application/json",
        "Content-Disposition": f'attachment; filename="receipt-{wanted.id}.json"',
    }
    return Sent(path, headers=headers)


# -- the buttons ---------------------------------------------------------------------------------


@needs(Role.OPERATOR)
async def act(request: web.Request) -> web.Response:
    """Hand in what a button asks for, and lead back to the job with the answer."""
    action = request.match_info["action"]
    if action not in _ACTIONS:
        raise web.HTTPNotFound
    given = await request.post()
    args = {key: str(given[key])[:300] for key in ("reason", "from") if given.get(key)}
    wanted = await one_job(request)
    return await _asked(request, action, wanted.id, args, f"/jobs/{wanted.id}")


@needs(Role.OPERATOR)
async def resume(request: web.Request) -> web.Response:
    """Let a paused target's jobs go on."""
    return await _asked(request, "resume", request.query.get("name", ""), {}, "/")


@needs(Role.OPERATOR)
async def sync(request: web.Request) -> web.Response:
    """Have a source look now."""
    return await _asked(request, "sync", request.query.get("name", ""), {}, "/")


async def _asked(
    request: web.Request, action: str, what: str, args: dict[str, Any], back: str
) -> web.Response:
    said = await request.app[SITE].queue.ask(action, what, identity(request).name, args)
    key = request.app[PAGES].keep(said)
    raise web.HTTPSeeOther(f"{back}?{urlencode({'said': key})}")


# -- jobs that are searched for ----------------------------------------------------------------------


class SearchForm(NamedTuple):
    """What a search asks for, as its form has it."""

    q: str
    state: list[str]
    pipeline: str
    since: str
    until: str


@needs(Role.READER)
async def found(request: web.Request) -> web.Response:
    """Show jobs that fit; the address holds the whole question."""
    site, query = request.app[SITE], request.query
    asked = SearchForm(
        query.get("q", "")[:300],
        query.getall("state", []),
        query.get("pipeline", ""),
        query.get("since", ""),
        query.get("until", ""),
    )
    wrong, page, who = "", JobPage([], None), dict[str, str]()
    try:
        wanted, after = _wanted(asked), Cursor.read(query["after"]) if query.get("after") else None
    except ValueError as error:
        wrong = str(error)
    else:
        page, who = await site.store.read_apart(_found, wanted, after)
    kept = [(key, value) for key, value in query.items() if key not in ("after", "said") and value]
    following = urlencode([*kept, ("after", str(page.following))]) if page.following else ""
    return await answer(
        request,
        "jobs.html",
        here="jobs",
        asked=asked,
        states=[state.value for state in JobState] + [_OPEN],
        pipelines=[pipeline.name for pipeline in site.config().pipelines],
        wrong=wrong,
        found=page.jobs,
        who_of=who,
        following=following,
        first=urlencode(kept) if query.get("after") else "",
        status=400 if wrong else 200,
    )


def _found(connection: Connection, wanted: JobFilter, after: Cursor | None) -> tuple[JobPage, dict[str, str]]:
    page = find(connection, wanted, after=after, limit=_FOUND)
    return page, dict(uploaders(connection, page.jobs))


def _wanted(asked: SearchForm) -> JobFilter:
    """Return the question in the store's terms. Raises: ValueError, in words."""
    unknown = [state for state in asked.state if state not in {"", _OPEN, *JobState}]
    if unknown:
        raise ValueError(f'there is no state "{unknown[0][:40]}"')
    states = [JobState(state) for state in asked.state if state not in ("", _OPEN)]
    since, until = page_job.day(asked.since), page_job.day(asked.until, end=True)
    return JobFilter(
        text=asked.q,
        states=states,
        pipeline=asked.pipeline,
        since=since,
        until=until,
        open=_OPEN in asked.state,
    )


# -- as it happens -------------------------------------------------------------------------------


def _told(site: AppState) -> tuple[Any, events.Make]:
    """What programs are told: counts, targets, each job that is not over or has ended lately."""

    def gather(connection: Connection) -> dict[str, Any]:
        unfinished = [state for state in JobState if state not in (JobState.DONE, JobState.FAILED)]
        listed = queries.listing(connection, states=unfinished, limit=_TOLD)
        listed += queries.listing(connection, states=[JobState.DONE, JobState.FAILED], limit=_FOUND)
        totals = queries.totals(connection)
        return {
            "status": {key: totals[key] for key in ("counts", "failed_count", "targets")},
            "jobs": [queries.summary(one) for one in listed],
        }

    async def make() -> dict[str, Fragment]:
        seen, progress = await site.store.read_apart(gather), site.live().get("progress", {})
        parts = {"": Fragment("status", json.dumps(seen["status"]))}
        for one in seen["jobs"]:
            fields = {**one, "progress": progress.get(one["id"])}
            parts[one["id"]] = Fragment("job", json.dumps(fields))
        return parts

    return ("told",), make


@needs(Role.READER)
async def stream(request: web.Request) -> web.StreamResponse:
    """Send events while somebody reads: a page's fragments, or for programs `status` and `job`."""
    pages, site, who = request.app[PAGES], request.app[SITE], identity(request)
    operator = who.role >= Role.OPERATOR
    wanted = request.query.get("page", "")
    if wanted == "front":
        topic = _front(site, pages, operator=operator)
    elif wanted == "job":
        id_ = (await site.store.read_apart(queries.resolve, request.query.get("id", ""))).id
        topic = _job(site, pages, id_, operator=operator)
    elif not wanted:
        topic = _told(site)
    else:
        raise web.HTTPBadRequest(reason='page is "front", "job", or left out')
    follow = pages.broadcaster.follow(*topic, request.headers.get("Last-Event-ID", ""))
    return await _send(request, follow, lambda text: events.for_reader(text, who.csrf))


async def _send(
    request: web.Request, follow: AsyncIterator[str], personal: Callable[[str], str]
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # nginx would hold events back until its buffer is full
        }
    )
    async with contextlib.aclosing(follow) as texts:  # type: ignore[type-var]  # it is a generator
        try:
            first = await anext(texts)
        except events.TooMany:
            raise web.HTTPServiceUnavailable(
                reason="too many read already", headers={"Retry-After": "30"}
            ) from None
        await response.prepare(request)
        try:
            await _write(response, personal(first))
            async for text in texts:
                if not await may_still(request):  # signed out, or the token was taken away
                    break
                await _write(response, personal(text))
        except TimeoutError:  # it takes nothing any more; it may come again with its Last-Event-ID
            if request.transport is not None:
                request.transport.abort()
        except (ConnectionError, StoreError):
            pass
    return response


async def _write(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(events.PATIENCE_S):
        await response.write(text.encode())
