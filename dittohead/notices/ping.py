"""Say again and again that the daemon is well, so that its silence tells that it is dead.

A GET of the URL while it is well, of the URL with /fail when it is not. Source: healthchecks.io's Pinging
API. There is no /start: that measures how long something takes, and a daemon does not end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit, urlunsplit

from dittohead.config.notice_rules import Ping, Rule, shown
from dittohead.notices import http
from dittohead.notices.outcome import NotSent, credential
from dittohead.system import log
from dittohead.system.waiting import event_or_time

#: Seconds a monitor has to answer.
TIMEOUT_S = 10.0

#: Without any rule it is searched for one this often; a reload wakes it.
_TURN_S = 300.0


async def send(ping: Ping, credentials: Callable[[str], str], *, well: bool = True) -> None:
    """Ping once.

    Args:
        ping: the rule; its URL may hold a secret.
        credentials: a credential by name.
        well: False: its address for failures is asked.

    Raises: NotSent.
    """
    url = ping.url or http.good_url(credential(credentials, ping.url_credential or ""))
    await http.request("GET", url if well else failing(url), timeout_s=TIMEOUT_S)


def failing(url: str) -> str:
    """Return the URL that says that something is wrong."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/fail"))


class Pinger:
    """Pings by each rule that asks for it. `rules` may be replaced at any time."""

    def __init__(
        self,
        rules: Sequence[Rule],
        credentials: Callable[[str], str],
        trouble: Callable[[], Awaitable[str]],
    ) -> None:
        self.rules = rules
        #: returns why the daemon is not well; "" when it is
        self._credentials, self._trouble = credentials, trouble
        self._due: dict[str, float] = {}
        self._failing: set[str] = set()
        self._wake = asyncio.Event()

    def configure(self, rules: Sequence[Rule]) -> None:
        """Use the rules of a new configuration."""
        self.rules = rules
        self._wake.set()

    async def run(self) -> None:
        """Ping until cancelled; no monitor's fault ever leaves."""
        while True:
            self._wake.clear()
            await self.ping_due()
            wait = min(self._due.values(), default=time.monotonic() + _TURN_S) - time.monotonic()
            await event_or_time(self._wake, max(wait, 0.05))

    async def ping_due(self) -> None:
        """Ping by each rule whose time has come."""
        pings = {rule.key: rule for rule in self.rules if rule.ping is not None}
        self._due = {key: self._due.get(key, 0.0) for key in pings}
        now = time.monotonic()
        due = [rule for key, rule in pings.items() if self._due[key] <= now]
        if not due:
            return
        trouble = await self._trouble()
        for rule in due:
            assert rule.ping is not None  # noqa: S101
            self._due[rule.key] = now + rule.ping.every
        await asyncio.gather(*(self._ping(rule, trouble) for rule in due))

    async def _ping(self, rule: Rule, trouble: str) -> None:
        assert rule.ping is not None  # noqa: S101
        try:
            await send(rule.ping, self._credentials, well=not trouble)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next ping comes
            if rule.key not in self._failing:  # said once, not each minute
                self._failing.add(rule.key)
                text = str(error) if isinstance(error, NotSent) else f"unforeseen {type(error).__name__}"
                log.get().warning(log.PING_FAILED, to=shown(rule), error=text)
            return
        if rule.key in self._failing:
            self._failing.remove(rule.key)
            log.get().info(log.PING_RESTORED, to=shown(rule))
