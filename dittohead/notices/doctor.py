"""See whether receivers could take a notice, without sending any; for `doctor`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from dittohead.config.notice_rules import Rule, shown
from dittohead.model.errors import DittoheadError, TransientError
from dittohead.notices import http, mail, webhook
from dittohead.notices.outcome import NotSent, credential

#: A receiver that has not answered by then is not there. Seconds.
TIMEOUT_S = 10.0
_PORTS = {"http": 80, "https": 443}


async def probe_all(rules: Sequence[Rule], credentials: Callable[[str], str]) -> list[tuple[bool, str, str]]:
    """Return (good, receiver, statement) of each rule; all are looked at in parallel.

    Args:
        rules: the entries under notify:.
        credentials: a credential by name. It raises DittoheadError where there is none.
    """

    def needed(name: str) -> str:
        try:
            return credentials(name)
        except TransientError:
            raise
        except DittoheadError as error:
            raise NotSent(str(error)) from error

    return list(await asyncio.gather(*(_one(rule, needed) for rule in rules)))


async def _one(rule: Rule, credentials: Callable[[str], str]) -> tuple[bool, str, str]:
    try:
        async with asyncio.timeout(2 * TIMEOUT_S):
            return True, shown(rule), await _probe(rule, credentials)
    except TimeoutError:
        return False, shown(rule), f"no answer within {2 * TIMEOUT_S:.0f} seconds"
    except NotSent as error:
        return False, shown(rule), str(error)


async def _probe(rule: Rule, credentials: Callable[[str], str]) -> str:
    """Return in words that a receiver could take a notice. Raises: NotSent."""
    smtp = rule.smtp
    if smtp is not None:
        return await asyncio.to_thread(lambda: mail.probe(smtp, credentials, TIMEOUT_S))
    place = rule.webhook or rule.ping
    if place is None:
        if rule.url_credential is not None:
            credential(credentials, rule.url_credential)
        return "its URL is there; whether it is taken only a test shows: dittohead notify test"
    for name in rule.webhook.secret_credential if rule.webhook is not None else ():
        webhook.secret(name, credential(credentials, name))
    await _connect(place.url or http.good_url(credential(credentials, place.url_credential or "")))
    return "its host can be reached; whether it takes notices only a test shows: dittohead notify test"


async def _connect(url: str) -> None:
    """See that a URL's host is known and answers. Raises: NotSent, with no part of the URL."""
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme, 443)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except TimeoutError:
        raise NotSent(f"its host did not answer within {TIMEOUT_S:.0f} seconds") from None
    except OSError as error:
        raise NotSent(f"its host cannot be reached ({type(error).__name__})") from None
    writer.close()
