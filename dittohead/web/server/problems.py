"""Errors as answers: problem details for programs, a page for people; and the headers of every answer.

Source: RFC 9457, Problem Details for HTTP APIs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from aiohttp import web

from dittohead.model.errors import DittoheadError, NoSuchJob, StoreError
from dittohead.system import log
from dittohead.web.server.identity import Handler

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """An answer that is no: raised by handlers, made into problem details or a page.

    Args:
        detail: what is wrong, for people.
        hint: what to do about it.
        headers: what else the answer must say, such as Retry-After.
    """

    def __init__(
        self, status: int, detail: str, *, hint: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.hint, self.headers = status, detail, hint, headers or {}

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    def as_dict(self) -> dict[str, object]:
        """Return it as problem details; `hint` is our own member, left out where there is none."""
        fields = {"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail}
        return {**fields, "hint": self.hint} if self.hint else fields

    def response(self) -> web.Response:
        """Return it as problem details."""
        return web.json_response(
            self.as_dict(), status=self.status, content_type=CONTENT_TYPE, headers=self.headers
        )


@dataclass
class ErrorPage:
    """How people are told: set by the one who makes the pages; without it they get problem details too."""

    render: Callable[[web.Request, Problem], Awaitable[web.StreamResponse]] | None = field(default=None)


ERROR_PAGE = web.AppKey("error_page", ErrorPage)

#: Nothing from elsewhere, nothing inline, no frames around it, no forms to elsewhere.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With "no-referrer" browsers send "Origin: null" with our own forms. Source: Fetch, 3.2.5.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
    "Server": "dittohead",
}


def wants_page(request: web.Request) -> bool:
    """Tell whether a person asks, with a browser, for a page."""
    return "text/html" in request.headers.get("Accept", "") and not request.path.startswith("/api/")


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Give every answer its headers, those of streams too; what a handler has said itself stands."""
    for name, value in _HEADERS.items():
        if name not in response.headers or name == "Server":
            response.headers[name] = value


@web.middleware
async def answer_plainly(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Make whatever goes wrong an answer; the one place for defects of handlers."""
    try:
        return await handler(request)
    except Exception as error:
        if isinstance(error, web.HTTPException) and error.status < 400:
            raise  # a redirection is not an error
        problem = _problem(request, error)
    page = request.app[ERROR_PAGE].render
    if page is not None and wants_page(request):
        try:
            return await page(request, problem)
        except Exception as error:  # noqa: BLE001  # whatever broke the handler may break this page as well
            log.get().error(log.HTTP_CRASHED, path=request.path, method=request.method, exc_info=error)
    return problem.response()


def _problem(request: web.Request, error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case web.HTTPException():
            return _of_http(error)
        case NoSuchJob():
            return Problem(404, str(error))
        case StoreError():
            return Problem(503, error.what, hint=error.hint, headers={"Retry-After": "10"})
        case DittoheadError():
            return Problem(409, str(error), hint=error.hint)
        case ConnectionError() | TimeoutError():
            return Problem(408, "the request did not come to its end")
        case _:
            log.get().error(log.HTTP_CRASHED, path=request.path, method=request.method, exc_info=error)
            return Problem(500, "this is a defect of dittohead; its log has a traceback")


def _of_http(error: web.HTTPException) -> Problem:
    words = {
        404: "there is nothing under this address",
        405: "this address does not know that method",
        413: "the request's body is too large",
    }
    kept = ("Allow", "Retry-After", "WWW-Authenticate")
    headers = {name: error.headers[name] for name in kept if name in error.headers}
    return Problem(error.status, words.get(error.status, error.reason), headers=headers)
