"""The page and the API over HTTP: who may come in, what they may do, and where it is answered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from dittohead.settings import Http
from dittohead.web import api, login, page_routes, server
from dittohead.web.access import ACCESS, Access, guard
from dittohead.web.problems import ERROR_PAGE, ErrorPage, add_headers, answer_plainly
from dittohead.web.sessions import Sessions
from dittohead.web.site import SITE, Site
from dittohead.web.tokens import Tokens


def create_app(site: Site, access: Access) -> web.Application:
    """Return the application."""
    app = web.Application(
        middlewares=[server.count, answer_plainly, server.as_it_is, guard], client_max_size=server.MOST_BYTES
    )
    app.on_response_prepare.append(add_headers)
    app[SITE], app[ACCESS] = site, access
    app[ERROR_PAGE], app[server.LINES] = ErrorPage(), server.Lines()
    api.add_routes(app)
    login.add_routes(app)
    page_routes.install(app)
    return app


@contextlib.asynccontextmanager
async def serving(settings: Http | None, site: Site) -> AsyncIterator[web.Application]:
    """Serve while inside: on the daemon's own socket always, over the network when the settings ask for it.

    Raises: OSError: an address cannot be used, or state/ cannot be written.
    """
    sessions = Sessions(site.stations.state)
    await asyncio.to_thread(sessions.load)
    tokens = None
    if settings is not None and settings.tokens is not None:
        name = settings.tokens
        tokens = Tokens(lambda: site.credential(name))
        await asyncio.to_thread(tokens.refresh)
    app = create_app(site, Access(settings, tokens, sessions))
    async with server.listening(app, settings, site.stations.state):
        yield app
