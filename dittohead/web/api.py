"""The API: what programs may ask."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from sqlalchemy.engine import Connection

from dittohead import queries
from dittohead.metrics import CONTENT_TYPE
from dittohead.model import JobState
from dittohead.web.identity import Role, needs
from dittohead.web.site import SITE

#: Rows a listing gives at most.
_MOST = 1000


def add_routes(app: web.Application) -> None:
    """Give the application the API."""
    app.router.add_get("/healthz", _health)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/api/v1/status", _status)
    app.router.add_get("/api/v1/jobs", _jobs)
    app.router.add_get("/api/v1/jobs/{job}", _job)


@needs(Role.NOBODY)
async def _health(request: web.Request) -> web.Response:
    """200 while the store answers and the inbox is watched; 503 otherwise."""
    counts = await request.app[SITE].store.look(queries.counts)
    mode = request.app[SITE].live().get("watcher", {}).get("mode", "starting")
    good = mode in ("inotify", "polling")
    fields = {"ok": good, "watcher": mode, "jobs": counts}
    return web.json_response(fields, status=200 if good else 503)


@needs(Role.READER)
async def _metrics(request: web.Request) -> web.Response:
    """Prometheus' text."""
    totals = await request.app[SITE].store.look(queries.totals)
    text = request.app[SITE].metrics.expose(totals, request.app[SITE].live())
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})


@needs(Role.READER)
async def _status(request: web.Request) -> web.Response:
    found = await request.app[SITE].store.look(queries.overview)
    return web.json_response({**found, "live": request.app[SITE].live()})


@needs(Role.READER)
async def _jobs(request: web.Request) -> web.Response:
    query = request.query
    try:
        states = [JobState(state) for state in query.getall("state", [])]
        limit = min(max(int(query.get("limit", "50")), 1), _MOST)
    except ValueError as error:
        raise web.HTTPBadRequest(reason=str(error)) from error
    found = await request.app[SITE].store.look(
        queries.listing,
        states=states,
        pipeline=query.get("pipeline", ""),
        name=query.get("name", ""),
        limit=limit,
    )
    return web.json_response([queries.summary(job) for job in found])


@needs(Role.READER)
async def _job(request: web.Request) -> web.Response:
    def work(connection: Connection) -> dict[str, Any]:
        return queries.detail(connection, queries.resolve(connection, request.match_info["job"]))

    return web.json_response(await request.app[SITE].store.look(work))
