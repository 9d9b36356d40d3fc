"""Sign in by a token, and out again: for people, whose browsers send cookies and no tokens."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import jinja2
from aiohttp import web

from dittohead.model.roles import Role
from dittohead.model.text import visible
from dittohead.system import log
from dittohead.web.server.access import ACCESS, Access, form
from dittohead.web.server.identity import identity, needs
from dittohead.web.server.problems import Problem
from dittohead.web.server.sessions import PLAIN_NAME, SECURE_NAME, cookie

#: A form with a token and the way back holds no more.
_MOST_BYTES = 16384


@dataclass
class LoginPage:
    """How the form is drawn: set by the one who makes the pages."""

    render: Callable[[web.Request, dict[str, str]], Awaitable[web.StreamResponse]] | None = None


LOGIN_PAGE = web.AppKey("login_page", LoginPage)

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("dittohead.web.pages"), autoescape=True, undefined=jinja2.StrictUndefined
)


def add_routes(app: web.Application) -> None:
    """Give the application its form and its two actions."""
    app[LOGIN_PAGE] = LoginPage()
    app.router.add_get("/login", _form)
    app.router.add_post("/login", _login)
    app.router.add_post("/logout", _logout)


@needs(Role.NOBODY)
async def _form(request: web.Request) -> web.StreamResponse:
    return await _show(request, 200, "", request.query.get("next", "/"))


async def _show(request: web.Request, status: int, error: str, following: str) -> web.StreamResponse:
    fields = {
        "error": error,
        "next": way_back(following),
        "name": identity(request).name,
        "csrf": identity(request).csrf,
    }
    render = request.app[LOGIN_PAGE].render
    if render is not None:
        response = await render(request, fields)
        response.set_status(status)
        return response
    text = _templates.get_template("login.html").render(fields)
    return web.Response(text=text, status=status, content_type="text/html")


# Without a form's secret: anyone who signs in has none yet. The origin was checked.
@needs(Role.NOBODY, csrf_later=True)
async def _login(request: web.Request) -> web.StreamResponse:
    access = request.app[ACCESS]
    if request.content_type != "application/x-www-form-urlencoded":
        raise Problem(415, "a form is required")
    if (request.content_length or 0) > _MOST_BYTES:
        raise Problem(413, "the form is too large")
    fields = await form(request)
    secret, following = fields.get("token", "").strip(), fields.get("next", "/")
    token = access.tokens.find(secret) if access.tokens is not None else None
    if token is None or access.settings is None:
        return await _refuse(request, access, following)
    # Always a new one: a session that somebody else may have set before is not taken over.
    lasting_s = access.settings.session
    _, value = access.sessions.begin(token.mark, lasting_s)
    log.get().info(log.HTTP_LOGGED_IN, who=token.name, address=access.address(request))
    answer = web.Response(status=303, headers={"Location": way_back(following)})
    answer.headers.add("Set-Cookie", cookie(access.cookie_name(request), value, lasting_s))
    return answer


async def _refuse(request: web.Request, access: Access, following: str) -> web.StreamResponse:
    wait_s = access.refused(request, "form")
    if wait_s <= 0:
        return await _show(request, 403, "this token is not known", following)
    response = await _show(
        request, 429, "this token is not known, and there were too many wrong ones; wait a little", following
    )
    response.headers["Retry-After"] = str(math.ceil(wait_s))
    return response


@needs(Role.NOBODY)
async def _logout(request: web.Request) -> web.StreamResponse:
    access = request.app[ACCESS]
    found = access.session(request)
    if found is not None:
        await asyncio.to_thread(access.sessions.end, found[0])
        log.get().info(log.HTTP_LOGGED_OUT, who=found[1].name, address=access.address(request))
    answer = web.Response(status=303, headers={"Location": "/login"})
    for name in (PLAIN_NAME, SECURE_NAME):
        answer.headers.add("Set-Cookie", cookie(name, "", 0))
    return answer


def way_back(following: str) -> str:
    """Return where to go after signing in: a path of ours, "/" for anything else."""
    # Browsers take "\\" for "/", and "//host" for another host; they leave out tabs and line breaks.
    ours = following.startswith("/") and not following.startswith("//") and "\\" not in following
    return following if ours and visible(following) == following and following.isascii() else "/"
