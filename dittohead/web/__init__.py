"""The page and the API over HTTP: who may come in, what they may do, and where it is answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from dittohead.admin.tokens import AccessTokens
from dittohead.config.settings import Http
from dittohead.web.api import routes, verify_stream
from dittohead.web.pages import routes as page_routes
from dittohead.web.server import listener, login
from dittohead.web.server.access import ACCESS, Access, guard
from dittohead.web.server.app_state import SITE, AppState
from dittohead.web.server.problems import ERROR_PAGE, ErrorPage, Problem, add_headers, answer_plainly
from dittohead.web.server.sessions import Sessions


def create_app(site: AppState, access: Access) -> web.Application:
    """Return the application."""
    app = web.Application(
        middlewares=[listener.count, answer_plainly, listener.as_it_is, guard],
        client_max_size=listener.MOST_BYTES,
    )
    app.on_response_prepare.append(add_headers)
    app.on_response_prepare.append(listener.tell_configuration)
    app[SITE], app[ACCESS] = site, access
    app[ERROR_PAGE], app[listener.LINES] = ErrorPage(), listener.OpenConnections()
    verify_stream.install(app)
    routes.add_routes(app)
    login.add_routes(app)
    page_routes.install(app)
    return app


@contextlib.asynccontextmanager
async def waiting(settings: Http | None, reason: str) -> AsyncIterator[None]:
    """Say while inside, where the settings have us listen, that the daemon waits to start, and for what."""
    runner = listener.runner_of(_not_yet(reason))
    try:
        if settings is not None:
            # Where the address itself is what is waited for, nobody can be told.
            with contextlib.suppress(OSError):
                await runner.setup()
                await listener.site_of(runner, settings.listen).start()
        yield
    finally:
        await runner.cleanup()


def _not_yet(reason: str) -> web.Application:
    async def health(request: web.Request) -> web.Response:
        fields = {"ok": False, "watcher": "starting", "jobs": {}, "troubles": [reason]}
        return web.json_response(fields, status=503)

    async def anything(request: web.Request) -> web.Response:
        return Problem(503, f"the daemon waits to start: {reason}", headers={"Retry-After": "15"}).response()

    app = web.Application()
    app.router.add_get("/healthz", health)
    app.router.add_route("*", "/{path:.*}", anything)
    app.on_response_prepare.append(add_headers)
    return app


@contextlib.asynccontextmanager
async def serving(settings: Http | None, site: AppState) -> AsyncIterator[web.Application]:
    """Serve while inside: on the daemon's own socket always, over the network when the settings ask for it.

    Raises: OSError: an address cannot be used, or state/ cannot be written.
    """
    sessions = Sessions(site.stations.state)
    await asyncio.to_thread(sessions.load)
    tokens = None
    if settings is not None and settings.tokens is not None:
        name = settings.tokens
        tokens = AccessTokens(lambda: site.credential(name))
        await asyncio.to_thread(tokens.refresh)
    app = create_app(site, Access(settings, tokens, sessions))
    async with listener.listening(app, settings, site.stations.state):
        yield app
