"""Who asks, and what they may do; found out once for each request, before any handler runs."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps

from aiohttp import web

from dittohead.model.roles import Role

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Way(enum.StrEnum):
    """How somebody was recognised."""

    AMBIENT = "ambient"  #: by nothing but the address they came to
    TOKEN = "token"  # noqa: S105  #: a token sent with the request itself
    SESSION = "session"  #: a cookie, given for a token
    PROXY = "proxy"  #: the trusted proxy's header
    SOCKET = "socket"  #: the kernel's word on the process at the other end of the daemon's own socket


@dataclass(frozen=True)
class Identity:
    """Who asks."""

    name: str  #: stands in every record of what they did; "" for nobody
    role: Role
    csrf: str = ""  #: what a form must send back as `csrf`; "" where no cookie is trusted
    way: Way = Way.AMBIENT


IDENTITY = web.RequestKey("identity", Identity)


def identity(request: web.Request) -> Identity:
    """Return who asks."""
    return request[IDENTITY]


#: What a handler without a mark of its own needs: one that was forgotten opens nothing.
DEFAULT = Role.OPERATOR

_NEEDS, _CSRF_LATER = "dittohead_needs", "dittohead_csrf_later"


def needs(role: Role, *, csrf_later: bool = False) -> Callable[[Handler], Handler]:
    """Say whom a handler serves; the middleware refuses everybody else before it runs.

    Args:
        csrf_later: the handler itself calls `access.check_csrf` before it changes anything, for its
            body is a stream that must not be read before.
    """

    def mark(handler: Handler) -> Handler:
        @wraps(handler)
        async def marked(request: web.Request) -> web.StreamResponse:
            return await handler(request)

        setattr(marked, _NEEDS, role)
        setattr(marked, _CSRF_LATER, csrf_later)
        return marked

    return mark


def needed_by(handler: object) -> Role:
    """Return whom a handler serves."""
    found = getattr(handler, _NEEDS, DEFAULT)
    return found if isinstance(found, Role) else DEFAULT


def checks_csrf_itself(handler: object) -> bool:
    """Tell whether a handler checks the form's secret by itself."""
    return getattr(handler, _CSRF_LATER, False) is True
