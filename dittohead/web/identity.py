"""Who asks, and what they may do; found out once for each request, before any handler runs."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from aiohttp import web


class Role(enum.IntEnum):
    """What somebody may do; each may do what those before may."""

    NOBODY = 0  #: sign in, and see that the daemon is alive
    READER = 1  #: see everything
    OPERATOR = 2  #: drop, retry, rerun, freeze, thaw, cancel, poke


@dataclass(frozen=True)
class Identity:
    """Who asks."""

    name: str  #: stands in every record of what they did; "" for nobody
    role: Role
    csrf: str = ""  #: what a form must send back as `csrf`; "" where no cookie is trusted


IDENTITY = web.RequestKey("identity", Identity)


def identity(request: web.Request) -> Identity:
    """Return who asks."""
    return request[IDENTITY]
