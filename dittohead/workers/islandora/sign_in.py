"""The way in: a password that a site does not know is not tried until the site locks its user.

Drupal locks a user for 6 hours after 5 wrong passwords, and then refuses the right one too.
Source: Drupal core, user.flood; basic_auth, BasicAuth::authenticate.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from dittohead.workers.islandora import preflight
from dittohead.workers.islandora.options import IslandoraOptions
from dittohead.workers.islandora.site import Drupal, Unknown

#: Times that a password is tried at once, of which the first takes two requests.
_TRIES = 2

#: Seconds until it is tried again: with those, four requests in any 6 hours.
_REST_S = 4 * 3600.0


@dataclass
class _Refusal:
    password: bytes  #: its digest
    error: Unknown
    times: int = 0
    last: float = 0.0


class RefusedSignIns:
    """Remembers, for each user of each site, the password that was refused."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: dict[tuple[str, str], _Refusal] = {}
        self._known: dict[tuple[str, str], bytes] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def entered(self, options: IslandoraOptions, password: str) -> AsyncIterator[Drupal]:
        """Open a session as a user that the site knows. Raises: Unknown: it does not, or did not just now."""
        key, digest = (options.url, options.user), hashlib.sha256(password.encode()).digest()
        async with preflight.opened(options, password) as site:
            if self._known.get(key) != digest:
                async with self._locks.setdefault(key, asyncio.Lock()):  # not by many jobs at once
                    if self._known.get(key) != digest:
                        await self._tried(key, digest, site, options)
            try:
                yield site
            except Unknown:
                self._known.pop(key, None)
                raise

    async def _tried(
        self, key: tuple[str, str], digest: bytes, site: Drupal, options: IslandoraOptions
    ) -> None:
        before = self._refused.get(key)
        if before is not None and before.password == digest:
            site.asks_who = False
            if before.times >= _TRIES and self._clock() - before.last < _REST_S:
                again = "It is tried again in 4 hours; at once with another password or daemon"
                hint = f"{before.error.hint}. {again}"
                raise Unknown(before.error.what, where=before.error.where, hint=hint)
        try:
            await site.term(preflight.wanted_terms(options)[0])
        except Unknown as error:
            times = before.times if before is not None and before.password == digest else 0
            self._refused[key] = _Refusal(digest, error, times + 1, self._clock())
            raise
        self._refused.pop(key, None)
        self._known[key] = digest
