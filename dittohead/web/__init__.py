"""Read-only over HTTP for other programs: health, metrics, status, jobs. Changes nothing."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web
from sqlalchemy.engine import Connection

from dittohead import queries
from dittohead.errors import StoreError
from dittohead.metrics import CONTENT_TYPE
from dittohead.model import JobState
from dittohead.settings import Http
from dittohead.web.site import SITE, Site

#: Rows a listing gives at most.
_MOST = 1000


def create_app(site: Site, *, loopback: bool) -> web.Application:
    """Return the application.

    Args:
        loopback: refuse requests under another host's name, as a page elsewhere that had its name
            pointed at 127.0.0.1 would send.
    """
    app = web.Application(middlewares=[_plainly, *([_own_name_only] if loopback else [])])
    app[SITE] = site
    app.router.add_get("/healthz", _health)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/api/v1/status", _status)
    app.router.add_get("/api/v1/jobs", _jobs)
    app.router.add_get("/api/v1/jobs/{job}", _job)
    return app


@contextlib.asynccontextmanager
async def serving(settings: Http | None, site: Site) -> AsyncIterator[None]:
    """Serve while inside, when the configuration asks for it.

    Raises: OSError: the address cannot be used.
    """
    if settings is None:
        yield
        return
    host, _, port = settings.listen.rpartition(":")
    unix = settings.listen.startswith("/")
    app = create_app(site, loopback=not unix and _is_loopback(host))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        listening: web.BaseSite = (
            web.UnixSite(runner, settings.listen)
            if unix
            else web.TCPSite(runner, host.strip("[]"), int(port))
        )
        await listening.start()
        yield
    finally:
        await runner.cleanup()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _plainly(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except (queries.NoSuchJob, StoreError) as error:
        response = _problem(404 if isinstance(error, queries.NoSuchJob) else 503, str(error))
    except web.HTTPException as error:
        response = _problem(error.status, error.reason)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response


@web.middleware
async def _own_name_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    name = request.host.rsplit(":", 1)[0].strip("[]")
    if name != "localhost" and not _is_loopback(name):
        return _problem(403, "this address answers only under its own name")
    return await handler(request)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _problem(status: int, detail: str) -> web.Response:
    """Return an error as RFC 9457 problem details."""
    fields = {"type": "about:blank", "status": status, "detail": detail}
    return web.json_response(fields, status=status, content_type="application/problem+json")


async def _health(request: web.Request) -> web.Response:
    """200 while the store answers and the inbox is watched; 503 otherwise."""
    counts = await request.app[SITE].store.look(queries.counts)
    mode = request.app[SITE].live().get("watcher", {}).get("mode", "starting")
    good = mode in ("inotify", "polling")
    fields = {"ok": good, "watcher": mode, "jobs": counts}
    return web.json_response(fields, status=200 if good else 503)


async def _metrics(request: web.Request) -> web.Response:
    """Prometheus' text."""
    totals = await request.app[SITE].store.look(queries.totals)
    text = request.app[SITE].metrics.expose(totals, request.app[SITE].live())
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})


async def _status(request: web.Request) -> web.Response:
    found = await request.app[SITE].store.look(queries.overview)
    return web.json_response({**found, "live": request.app[SITE].live()})


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


async def _job(request: web.Request) -> web.Response:
    def work(connection: Connection) -> dict[str, Any]:
        return queries.detail(connection, queries.resolve(connection, request.match_info["job"]))

    return web.json_response(await request.app[SITE].store.look(work))
