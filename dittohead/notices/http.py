"""Requests to URLs that may hold a token: no redirects, nothing read, and no URL in the text about them."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp

from dittohead import __version__
from dittohead.config.notice_rules import check_url
from dittohead.notices.outcome import NotSent
from dittohead.toolkit import retry_after


def good_url(url: str) -> str:
    """Return a URL from a credential. Raises: NotSent: it is none."""
    try:
        return check_url(url.strip()) or ""
    except ValueError as error:
        raise NotSent(f"its URL cannot be used: {error}") from None


async def request(
    method: str, url: str, *, timeout_s: float, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> None:
    """Send one request. An answer of 2xx means that it was taken; its body is not read.

    Args:
        method: such as "POST".
        url: http or https; it may hold a secret, so no error names it. Redirects are not followed.
        timeout_s: seconds for all of it.
        headers: sent besides User-Agent.
        body: b"" for none.

    Raises: NotSent: no answer, another answer, or one that asks to try later.
    """
    agent = {"User-Agent": f"dittohead/{__version__}"}
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            ) as session,
            session.request(
                method, url, data=body or None, headers={**agent, **(headers or {})}, allow_redirects=False
            ) as answer,
        ):
            status, later = answer.status, answer.headers.get("Retry-After", "")
            answer.close()  # whatever it still says
    except TimeoutError:
        raise NotSent(f"the receiver did not answer within {timeout_s:.0f} seconds") from None
    except aiohttp.ClientConnectorCertificateError:
        raise NotSent("the receiver's certificate cannot be verified") from None
    except aiohttp.ClientConnectionError as error:
        raise NotSent(f"the receiver cannot be reached ({type(error).__name__})") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise NotSent(f"the receiver cannot be used ({type(error).__name__})") from None
    if not 200 <= status < 300:
        raise _refusal(status, later)


def _refusal(status: int, later: str) -> NotSent:
    if 300 <= status < 400:
        return NotSent(f"the receiver answered {status}: redirects are not followed; correct its URL")
    if status == 410:
        return NotSent("the receiver answered 410: it accepts no more notices", gone=True)
    return NotSent(f"the receiver answered {status}", retry_after_s=retry_after.asked_s(later))
