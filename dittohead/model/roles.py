"""Roles of people and programs that come over HTTP."""

from __future__ import annotations

import enum


class Role(enum.IntEnum):
    """What somebody may do; each may do what those before may."""

    NOBODY = 0  #: sign in, and see that the daemon is alive
    READER = 1  #: see everything
    OPERATOR = 2  #: drop, retry, rerun, freeze, thaw, cancel, poke
