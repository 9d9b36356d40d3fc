"""Pages of collections that were dropped as one: how many of their folders are done, and what failed."""

from __future__ import annotations

from urllib.parse import urlencode

from aiohttp import web

from dittohead.model.job_filter import JobFilter
from dittohead.model.records import Job
from dittohead.model.roles import Role
from dittohead.model.shown import ShownBatch
from dittohead.model.states import Action
from dittohead.store import Connection, queries
from dittohead.store import batches as batch_store
from dittohead.store.search import Cursor, JobPage, find
from dittohead.web.pages.page import PAGES, answer
from dittohead.web.server.app_state import SITE
from dittohead.web.server.identity import identity, needs

#: Batches, and jobs of one, on a page; and failures, which stand above the others.
_BATCHES, _JOBS, _FAILED = 50, 100, 200


def install(app: web.Application) -> None:
    """Give an application the pages."""
    app.router.add_get("/batches", listed)
    app.router.add_get("/batches/{batch}", one)
    app.router.add_post("/batches/{batch}/retry", retry)


@needs(Role.READER)
async def listed(request: web.Request) -> web.Response:
    """Show the latest."""
    found = await request.app[SITE].store.read_apart(queries.batches, _BATCHES)
    return await answer(request, "batches.html", here="batches", found=found)


@needs(Role.READER)
async def one(request: web.Request) -> web.Response:
    """Show one: what failed, then all of its jobs a page at a time."""
    wanted, query = request.match_info["batch"], request.query
    try:
        after = Cursor.read(query["after"]) if query.get("after") else None
    except ValueError as error:
        raise web.HTTPBadRequest(reason=str(error)) from error

    def gather(connection: Connection) -> tuple[ShownBatch, list[Job], JobPage]:
        batch = queries.batch(connection, wanted)
        failed = batch_store.open_failures(connection, batch["id"])[:_FAILED]
        return batch, failed, find(connection, JobFilter(batch=batch["id"]), after=after, limit=_JOBS)

    batch, failed, page = await request.app[SITE].store.read_apart(gather)
    if batch["id"] != wanted:
        raise web.HTTPSeeOther(f"/batches/{batch['id']}")
    following = urlencode({"after": str(page.following)}) if page.following else ""
    return await answer(
        request,
        "batch.html",
        here="batches",
        batch=batch,
        failed=failed,
        found=page.jobs,
        following=following,
        first=after is None,
    )


@needs(Role.OPERATOR)
async def retry(request: web.Request) -> web.Response:
    """Try all again that failed, and lead back with the answer."""
    site = request.app[SITE]
    batch = await site.store.read_apart(queries.resolve_batch, request.match_info["batch"])
    said = await site.queue.ask(Action.RETRY_BATCH, batch.id, identity(request).name, {})
    raise web.HTTPSeeOther(f"/batches/{batch.id}?{urlencode({'said': request.app[PAGES].keep(said)})}")
