"""The API: what programs may ask, and the command line through the daemon's own socket."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from dittohead.admin import views
from dittohead.config.loader import SourceSetting
from dittohead.engine.metrics import CONTENT_TYPE
from dittohead.folders import listing, receipt, replacement
from dittohead.folders.job_files import JobFiles
from dittohead.folders.stations import Stations
from dittohead.model.errors import DittoheadError, NoSuchJob
from dittohead.model.job_filter import JobFilter
from dittohead.model.records import Job, StepRow
from dittohead.model.roles import Role
from dittohead.model.shown import ShownStatus, StoreStatus, WholeJob
from dittohead.model.states import ACTIVE, JobState
from dittohead.model.text import display
from dittohead.notices import commands
from dittohead.store import Connection, queries
from dittohead.store import jobs as job_store
from dittohead.store import requests as request_store
from dittohead.store.search import Cursor, find
from dittohead.web.api import openapi, shapes, verify_stream
from dittohead.web.api.operations import Operation
from dittohead.web.server.app_state import SITE
from dittohead.web.server.identity import identity
from dittohead.web.server.listener import Sent
from dittohead.web.server.problems import Problem
from dittohead.web.uploads import incoming, replacements

#: Folders of the inbox that the status names; the others are only counted, by `live`.
_INBOX = 1000

#: What is asked of sources by the name it has had from the first; what came later is called source-NAME.
_OF_ROUNDS = ("sync", "reset")

#: May be kept, and must be asked for again each time: it changes, but seldom.
_ASK_AGAIN = "private, no-cache"


def add_routes(app: web.Application) -> None:
    """Give the application the API."""
    document = functools.cache(lambda: openapi.document(OPERATIONS))

    async def description(request: web.Request, given: None) -> web.Response:
        # Made when somebody asks for it; in a thread, for it takes longer than the loop may stand still.
        return web.json_response(await asyncio.to_thread(document))

    own = Operation(
        method="GET",
        path="/api/v1/openapi.json",
        name="openapi",
        summary="This description",
        does=description,
    )
    for operation in (*OPERATIONS, own):
        app.router.add_route(operation.method, operation.path, operation.handler())
        if operation.method == "GET":
            app.router.add_route("HEAD", operation.path, operation.handler())


# -- reading ------------------------------------------------------------------------------------


async def _health(request: web.Request, given: None) -> web.Response:
    """200 while the store answers, the inbox is watched and nothing is missing; 503 otherwise."""
    counts = await request.app[SITE].store.read_apart(queries.counts)
    live = request.app[SITE].live()
    mode = live.get("watcher", {}).get("mode", "starting")
    # What is wrong, and no paths: anybody may ask.
    troubles = [trouble["what"] for trouble in live.get("troubles", [])]
    good = mode in ("inotify", "polling") and not troubles
    fields = {"ok": good, "watcher": mode, "jobs": counts, "troubles": troubles}
    return web.json_response(fields, status=200 if good else 503)


async def _doctor(request: web.Request, given: shapes.Nothing) -> web.Response:
    """What the daemon itself finds: with its user, its groups, its sandbox and its credentials."""
    return web.json_response({"findings": await request.app[SITE].examine()})


async def _reload(request: web.Request, given: shapes.Nothing) -> web.Response:
    """The configuration is used that the file holds now; or it is refused, with all that is wrong."""
    path = await request.app[SITE].reload()
    return web.json_response({"message": f"the daemon uses {path} as it is now"})


async def _verify(request: web.Request, given: shapes.Nothing) -> web.StreamResponse:
    """Compare, and say how far it is, a line each; the last one is the report. It ends with its reader."""
    site = request.app[SITE]
    job = await site.store.read_apart(queries.resolve, _text(request.match_info["job"]), (JobState.DONE,))
    work, progress = site.verify(job)
    return await verify_stream.told(request, work, progress)


async def _metrics(request: web.Request, given: None) -> web.Response:
    """Prometheus' text."""
    totals = await request.app[SITE].store.read_apart(queries.totals)
    text = request.app[SITE].metrics.expose(totals, request.app[SITE].live())
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})


async def _status(request: web.Request, given: None) -> web.Response:
    site = request.app[SITE]

    def work(connection: Connection) -> tuple[StoreStatus, list[str]]:
        return queries.overview(connection), in_inbox(site.stations)

    found, inbox = await site.store.read_apart(work)
    fields: ShownStatus = {
        "running_daemon": True,
        "root": str(site.stations.root),
        **found,
        "inbox": inbox,
        "disabled_receivers": views.receivers(found["disabled_receivers"], site.config().settings.notify),
        "live": site.live(),
    }
    return web.json_response(fields)


def in_inbox(stations: Stations) -> list[str]:
    """Return the folders that wait in the inbox, the first thousand. Blocking."""
    try:
        return [display(arrival.folder) for arrival in stations.scan().arrivals[:_INBOX]]
    except OSError:  # the watcher's own words say why
        return []


async def _jobs(request: web.Request, given: shapes.JobQuery) -> web.Response:
    wanted = JobFilter(
        text=given.q,
        states=given.state,
        pipeline=given.pipeline,
        part=given.name,
        holds=given.holds,
        uid=given.uid,
        since=given.since,
        until=given.until,
        open=given.open,
        reason=given.reason,
        batch=given.batch,
    )
    try:
        after = Cursor.read(given.cursor) if given.cursor else None
    except ValueError as error:
        raise Problem(400, str(error)) from error
    page = await request.app[SITE].store.read_apart(find, wanted, after=after, limit=given.limit)
    following = None if page.following is None else str(page.following)
    return _page(request, [queries.summary(job) for job in page.jobs], following)


def _page(request: web.Request, items: Sequence[Mapping[str, Any]], following: str | None) -> web.Response:
    """Return a page, with a link to the next. Source: RFC 8288, Web Linking."""
    headers = {}
    if following is not None:
        headers["Link"] = f'<{request.rel_url.update_query(cursor=following)}>; rel="next"'
    return web.json_response({"items": items, "next": following}, headers=headers)


async def _job(request: web.Request, given: None) -> web.Response:
    site = request.app[SITE]

    def work(connection: Connection) -> WholeJob:
        return views.job(connection, site.stations, _resolved(connection, request))

    found = await site.store.read_apart(work)
    return web.json_response({**found, "progress": site.live()["progress"].get(found["id"])})


def _resolved(connection: Connection, request: web.Request) -> Job:
    return queries.resolve(connection, _text(request.match_info["job"]))


def _text(given: str) -> str:
    """Return a part of a path that can stand in a question to the store. Raises: NoSuchJob."""
    if "\x00" in given or (not given.isprintable() and not given.encode("utf-8", "ignore")):
        raise NoSuchJob("there is no such job; see: dittohead list")
    return given.encode("utf-8", "replace").decode()


async def _batches(request: web.Request, given: shapes.BatchQuery) -> web.Response:
    items = await request.app[SITE].store.read_apart(queries.batches, given.limit)
    return web.json_response({"items": items})


async def _batch(request: web.Request, given: None) -> web.Response:
    named = _text(request.match_info["batch"])
    return web.json_response(await request.app[SITE].store.read_apart(queries.batch, named))


async def _retry_batch(request: web.Request, given: shapes.Nothing) -> web.Response:
    named = _text(request.match_info["batch"])
    batch = await request.app[SITE].store.read_apart(queries.resolve_batch, named)
    return await _asked(request, "retry-batch", batch.id, {})


async def _receipt(request: web.Request, given: None) -> web.StreamResponse:
    site = request.app[SITE]

    def work(connection: Connection) -> Path:
        return receipt.path_of(site.stations.receipts, _resolved(connection, request))

    path = await site.store.read_apart(work)
    return _file(path, "application/json", "there is no receipt yet: the job is not over")


async def _log(request: web.Request, given: None) -> web.StreamResponse:
    site, step = request.app[SITE], request.match_info["step"]

    def work(connection: Connection) -> Path:
        job = _resolved(connection, request)
        names = [row.name for row in job_store.steps_of(connection, job.id)]
        if step not in names:  # a step's name is a plain word; nothing else becomes a path
            raise Problem(404, f"{job.name} has no such step", hint=f"There are {', '.join(names) or 'none'}")
        return JobFiles(site.stations, job).log(step)

    path = await site.store.read_apart(work)
    return _file(path, "text/plain; charset=utf-8", "nothing that this step's programs printed is kept")


def _file(path: Path, kind: str, missing: str) -> Sent:
    """Return a file; aiohttp answers Range, If-None-Match and If-Range."""
    if not path.is_file():
        raise Problem(404, missing)
    return Sent(path, headers={"Cache-Control": _ASK_AGAIN, "Content-Type": kind})


async def _files(request: web.Request, given: shapes.FileQuery) -> web.Response:
    site = request.app[SITE]

    def work(connection: Connection) -> tuple[Job, list[StepRow]]:
        job = _resolved(connection, request)
        return job, job_store.steps_of(connection, job.id)

    job, steps = await site.store.read_apart(work)
    try:
        page = await asyncio.to_thread(listing.page, site.stations, job, steps, given.cursor, given.limit)
    except ValueError as error:
        raise Problem(400, str(error)) from error
    return _page(request, [listing.fields(file) for file in page.files], page.following)


async def _sources(request: web.Request, given: None) -> web.Response:
    site = request.app[SITE]
    now = site.live().get("sources", {})
    return web.json_response(
        {"items": await site.store.read_apart(views.sources, site.config().sources, now)}
    )


def _setting(request: web.Request) -> SourceSetting:
    """Return the source that an address names. Raises: Problem 404."""
    setting = request.app[SITE].config().source(request.match_info["source"])
    if setting is not None:
        return setting
    raise Problem(404, "there is no source of this name", hint="See: /api/v1/sources")


async def _entries(request: web.Request, given: shapes.EntryQuery) -> web.Response:
    setting = _setting(request)
    found = await request.app[SITE].store.read_apart(
        views.entries,
        setting,
        state=given.state,
        stage=given.stage,
        after=given.cursor,
        limit=given.limit + 1,
    )
    more = len(found) > given.limit
    items = found[: given.limit]
    return _page(request, items, items[-1]["key"] if more else None)


async def _entry(request: web.Request, given: None) -> web.Response:
    setting, key = _setting(request), _text(request.match_info["entry"])
    found = await request.app[SITE].store.read_apart(views.entry, setting, key)
    if found is None:
        raise Problem(404, "there is no such entry in this source's catalogue")
    return web.json_response(found)


async def _requests(request: web.Request, given: shapes.RequestQuery) -> web.Response:
    found = await request.app[SITE].store.read_apart(
        request_store.listing,
        job=given.of,
        who=given.who,
        action=given.action,
        before=int(given.cursor) if given.cursor else None,
        limit=given.limit + 1,
    )
    more = len(found) > given.limit
    items = [views.request(row) for row in found[: given.limit]]
    return _page(request, items, str(items[-1]["id"]) if more else None)


# -- acting -------------------------------------------------------------------------------------


async def _act(request: web.Request, given: Any) -> web.Response:
    """Hand in a request on a job, and wait for its answer."""
    action = request.path.rsplit("/", 1)[-1]
    active = () if action in request_store.OF_ENDED_JOBS else sorted(ACTIVE)
    named = _text(request.match_info["job"])
    job = await request.app[SITE].store.read_apart(queries.resolve, named, active)
    return await _asked(request, action, job.id, given.model_dump(by_alias=True, exclude_none=True))


async def _replacement(request: web.Request, given: shapes.Replacement) -> web.Response:
    """Take the bytes of a new file; they wait to be asked for."""
    job = await request.app[SITE].store.read_apart(_resolved, request)
    chunks = request.content.iter_chunked(incoming.BLOCK)
    sha256 = replacements.announced(request)
    offer = await replacements.receive(request, job, given.path, given.encoding, chunks, sha256)
    return web.json_response(replacement.fields(offer), status=201)


async def _act_on_source(request: web.Request, given: Any) -> web.Response:
    name, action = _setting(request).name, request.path.rsplit("/", 1)[-1]
    action = action if action in _OF_ROUNDS else f"source-{action}"
    return await _asked(request, action, name, given.model_dump())


async def _act_on_notices(request: web.Request, given: Any) -> web.Response:
    action = "notify-" + request.path.rsplit("/", 1)[-1]
    rules = list(request.app[SITE].config().settings.notify)
    if given.rule:
        try:
            given = given.model_copy(update={"rule": commands.find(rules, given.rule).key})
        except DittoheadError as error:
            raise Problem(404, error.what, hint=error.hint) from error
    return await _asked(request, action, given.rule, {})


async def _asked(request: web.Request, action: str, of: str, args: dict[str, Any]) -> web.Response:
    answer = await request.app[SITE].queue.ask(action, of, identity(request).name, args)
    if answer is None:
        message = "not yet answered; it will be carried out, and /api/v1/requests says what became of it"
        return web.json_response({"message": message}, status=202)
    if not answer.ok:
        raise Problem(404 if answer.missing else 409, answer.message)
    return web.json_response({"message": answer.message})


def _acting(path: str, name: str, summary: str, does: Any, body: type[Any], **more: Any) -> Operation:
    return Operation(
        method="POST",
        path=path,
        name=name,
        summary=summary,
        does=does,
        role=Role.OPERATOR,
        body=body,
        answer=shapes.Done,
        **more,
    )


def _action(name: str, summary: str, body: type[Any]) -> Operation:
    return _acting(f"/api/v1/jobs/{{job}}/{name}", f"{name}_job", summary, _act, body)


def _on_source(name: str, summary: str, body: type[Any]) -> Operation:
    path = f"/api/v1/sources/{{source}}/{name}"
    return _acting(path, f"{name}_source", summary, _act_on_source, body, tag="sources")


def _on_notices(name: str, summary: str, body: type[Any]) -> Operation:
    path = f"/api/v1/notices/{name}"
    return _acting(path, f"{name}_notices", summary, _act_on_notices, body, refusals=(404,), tag="notices")


def _reading(path: str, name: str, summary: str, does: Any, answer: Any, **more: Any) -> Operation:
    return Operation(method="GET", path=path, name=name, summary=summary, does=does, answer=answer, **more)


_FILE = (206, 304, 416)

OPERATIONS = (
    _reading(
        "/api/v1/status", "status", "What runs, what waits and why", _status, shapes.Status, tag="daemon"
    ),
    _reading("/api/v1/jobs", "list_jobs", "Find jobs", _jobs, shapes.Jobs, query=shapes.JobQuery),
    _reading("/api/v1/jobs/{job}", "show_job", "Everything about one job", _job, shapes.Job),
    _reading(
        "/api/v1/jobs/{job}/receipt",
        "receipt",
        "Its receipt",
        _receipt,
        "application/json",
        refusals=_FILE,
    ),
    _reading(
        "/api/v1/jobs/{job}/steps/{step}/log",
        "log",
        "What a step's programs printed; a part of it with Range",
        _log,
        "text/plain",
        refusals=_FILE,
    ),
    _reading(
        "/api/v1/jobs/{job}/files",
        "list_files",
        "Its files: the folder's own, then those that steps made, and where each lies",
        _files,
        shapes.Files,
        query=shapes.FileQuery,
    ),
    _action("retry", "Try it again from the step that failed; wake it when it waits", shapes.Nothing),
    _action("rerun", "Run it again, once it has ended", shapes.Rerun),
    _action("rename", "Do a failed folder again under another name; it is checked before", shapes.Rename),
    Operation(
        method="PUT",
        path="/api/v1/jobs/{job}/replacements",
        name="offer_replacement",
        summary="Send the bytes of a file that is to stand in for one of a failed folder",
        does=_replacement,
        role=Role.OPERATOR,
        query=shapes.Replacement,
        takes_bytes=True,
        answer=shapes.Replacing,
        answers=201,
        refusals=(409, 413, 507),
    ),
    _action("replace", "Put a file that was sent in the place of another", shapes.Replace),
    _action("freeze", "Stop it where it is", shapes.Freeze),
    _action("thaw", "Let it go on", shapes.Nothing),
    _action("cancel", "End it; its folder goes to failed/", shapes.Nothing),
    _action("dismiss", "Note that nothing more is to be done about its failure", shapes.Dismiss),
    _action("delete", "Remove its folder from done/ or failed/; the receipt stays", shapes.Delete),
    _action("approve", "Approve that its folder is deleted, as another has asked", shapes.Nothing),
    _action("keep", "Keep its folder that somebody has asked to delete", shapes.Nothing),
    _action("poke", "Look at it now", shapes.Nothing),
    Operation(
        method="POST",
        path="/api/v1/jobs/{job}/verify",
        name="verify_job",
        summary="Compare its receipt with what is on disk and at the targets: a JSON object a line",
        does=_verify,
        role=Role.OPERATOR,
        body=shapes.Nothing,
        answer="application/x-ndjson",
    ),
    _action("undone", "Record that what it had created outside was taken back", shapes.Undone),
    _reading(
        "/api/v1/batches",
        "list_batches",
        "Collections that were dropped, the latest first, and how many of their jobs are done",
        _batches,
        shapes.Batches,
        query=shapes.BatchQuery,
        tag="batches",
    ),
    _reading(
        "/api/v1/batches/{batch}",
        "show_batch",
        "One of them, by its id, or the latest of a name",
        _batch,
        shapes.Batch,
        tag="batches",
    ),
    _acting(
        "/api/v1/batches/{batch}/retry",
        "retry_batch",
        "Try all of its jobs again that failed, each from the step that failed",
        _retry_batch,
        shapes.Nothing,
        tag="batches",
    ),
    _reading("/api/v1/sources", "list_sources", "All sources", _sources, shapes.Sources, tag="sources"),
    _on_source("sync", "Have it look now", shapes.Sync),
    _on_source("reset", "Let items be fetched again", shapes.Reset),
    _on_source("pause", "Pause a part of it", shapes.SourcePause),
    _on_source("resume", "Let a part of it go on that was paused", shapes.SourceResume),
    _on_source("hold", "Hold entries that are on their way", shapes.SourceEntries),
    _on_source("thaw", "Let held entries go on", shapes.SourceEntries),
    _on_source("refetch", "Bring entries in once more, changed or not", shapes.SourceEntries),
    _on_source("check", "Compare the store with its board and the disk", shapes.SourceCheck),
    _on_source("tell", "Tell it something by one of its commands", shapes.SourceTell),
    _reading(
        "/api/v1/sources/{source}/entries",
        "list_entries",
        "Its catalogue: all that it knows of the remote system",
        _entries,
        shapes.Entries,
        query=shapes.EntryQuery,
        tag="sources",
    ),
    _reading(
        "/api/v1/sources/{source}/entries/{entry}",
        "show_entry",
        "One entry of its catalogue, and what became of it",
        _entry,
        shapes.EntryStory,
        tag="sources",
    ),
    _on_notices("test", "Send a test to every receiver, or to that of one rule", shapes.Rules),
    _on_notices("enable", "Send notices again to the receiver of a rule that was disabled", shapes.OneRule),
    _reading(
        "/api/v1/requests",
        "list_requests",
        "Who asked for what, and what became of it",
        _requests,
        shapes.Requests,
        query=shapes.RequestQuery,
        tag="requests",
    ),
    Operation(
        method="POST",
        path="/api/v1/doctor",
        name="doctor",
        summary="Have the daemon look at permissions, programs, targets and all else it needs",
        does=_doctor,
        role=Role.OPERATOR,
        body=shapes.Nothing,
        answer=shapes.Findings,
        tag="daemon",
    ),
    Operation(
        method="POST",
        path="/api/v1/reload",
        name="reload",
        summary="Have the daemon read its configuration again; a wrong one is refused, and the old one stays",
        does=_reload,
        role=Role.OPERATOR,
        body=shapes.Nothing,
        answer=shapes.Done,
        tag="daemon",
    ),
    _reading("/metrics", "metrics", "Numbers for Prometheus", _metrics, "text/plain", tag="daemon"),
    _reading(
        "/healthz",
        "health",
        "Whether it is well",
        _health,
        shapes.Health,
        role=Role.NOBODY,
        tag="daemon",
    ),
)
