"""Requests to GRIN: who asks, how fast, where redirects lead, and what an answer means for the source.

The bearer goes to GRIN's own origin and nowhere else: redirects are followed here, one by one. GRIN does
not say 401: it leads who has no good token to a sign-in page on another host, or shows that page with status
200 where a list or an archive should be. That is the whole source's fault, never one volume's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urljoin

import aiohttp
from yarl import URL

from dittohead.model.errors import SourceStopped, StepError, TransientError
from dittohead.sources.grin.limits import RateLimit
from dittohead.sources.grin.options import GrinOptions
from dittohead.sources.grin.sign_in import GrinSignIn, OAuthClient
from dittohead.toolkit import retry_after

#: Redirects on GRIN's own host that are followed for one request.
_REDIRECTS = 5

#: Seconds to connect.
_CONNECT_S = 30.0

#: What a page of GRIN's says in place of a list, with status 200, when it is asked too much.
_THROTTLED = b"your request is unavailable"

#: What a sign-in page says, whatever its status.
_SIGN_IN = (b"accounts.google.com", b"sign in - google accounts", b"servicelogin")

#: Bytes of a page that are looked at to see what it is.
_PAGE_MOST = 1 << 16

#: Characters that stand in addresses as they are. Source: RFC 3986, 2.2; "%" begins what is quoted already.
_ADDRESS = "%:/?#[]@!$&'()*+,;=~"

_MOVED = frozenset({301, 302, 303, 307, 308})


class QueueFull(StepError):
    """GRIN takes no more requests for conversion now (429 to `_process`)."""

    def __init__(self, wait_s: float | None) -> None:
        super().__init__("GRIN's queue of conversions is full")
        self.wait_s = wait_s


@dataclass(frozen=True)
class GrinAccess:
    """What all connections of one source share."""

    limits: RateLimit
    sign_in: GrinSignIn


class Grin:
    """One open session with a library's place at GRIN."""

    def __init__(
        self, options: GrinOptions, session: aiohttp.ClientSession, access: GrinAccess, client: OAuthClient
    ) -> None:
        self.options, self.access = options, access
        self._session, self._client = session, client
        self._origin = URL(options.base).origin()

    @contextlib.asynccontextmanager
    async def request(
        self,
        method: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        page: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make one request; statuses of 200, 206, 404 and 416 are the caller's.

        Args:
            what: below the library's place, with its query; or a whole address on the same host.
            page: a page of HTML is what is asked for.

        Raises: SourceStopped, TransientError; QueueFull where conversions are asked for.
        """
        url = self._address(what)
        try:
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(self.access.limits.turn())
                answer = await self._followed(stack, method, url, dict(headers or {}), data)
                await self._judge(answer, url, page=page)
                self.access.limits.answered()
                yield answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransientError(_words(error), where=_shown(url)) from error

    def _address(self, what: str) -> str:
        """Return the address of what is asked for. Raises: TransientError: the bearer must not go there."""
        if "://" not in what:
            return f"{self.options.base}/{what}"
        if not self._is_ours(what):
            raise TransientError("GRIN's page leads to another host", where=_shown(what))
        return quote(what, safe=_ADDRESS)

    def _is_ours(self, url: str) -> bool:
        with contextlib.suppress(ValueError):  # no address at all
            return URL(url).origin() == self._origin
        return False

    async def _followed(
        self,
        stack: contextlib.AsyncExitStack,
        method: str,
        url: str,
        headers: dict[str, str],
        data: bytes | None,
    ) -> aiohttp.ClientResponse:
        """Send a request wherever GRIN leads on its own host; sign in again once where it leads elsewhere."""
        bearer, renewed = await self._bearer(), False
        for _ in range(_REDIRECTS):
            answer = await self._session.request(
                method,
                URL(url, encoded=True),
                headers={**headers, "Authorization": f"Bearer {bearer}"},
                data=data,
                allow_redirects=False,
            )
            if answer.status not in _MOVED:
                stack.callback(answer.release)
                return answer
            answer.release()
            there = _joined(url, answer.headers.get("Location", ""))
            if self._is_ours(there):
                url = quote(there, safe=_ADDRESS)
            elif renewed:
                raise self.access.sign_in.stopped("it leads to a sign-in page, with a new token too")
            else:
                bearer, renewed = await self._bearer(not_=bearer), True
            await self.access.limits.spaced()
        raise TransientError("GRIN leads from one address to the next", where=_shown(url))

    async def _bearer(self, not_: str = "") -> str:
        return await self.access.sign_in.bearer(self._client, self._session, not_=not_)

    async def _judge(self, answer: aiohttp.ClientResponse, url: str, *, page: bool) -> None:
        """Raise what an answer means that is not what was asked for."""
        if answer.status in (401, 403):
            raise self._refused(answer.status)
        if answer.status in (429, 503) or answer.status in (408, 425):
            await self._throttled(answer, url)
        if answer.status >= 500:
            raise TransientError(f"GRIN answers with {answer.status}", where=_shown(url))
        if answer.status not in (200, 206, 404, 416):
            raise TransientError(f"GRIN answers with {answer.status}", where=_shown(url))
        if answer.status == 200 and not page and _is_html(answer):
            raise self._of_page(await answer.content.read(_PAGE_MOST), url)

    async def _throttled(self, answer: aiohttp.ClientResponse, url: str) -> None:
        asked = retry_after.asked_s(answer.headers.get("Retry-After", ""))
        if answer.status == 429 and "/_process" in url:
            raise QueueFull(asked)
        wait = self.access.limits.throttled(asked)
        what = f"GRIN answers with {answer.status}: it is asked no more for a while"
        raise TransientError(what, where=_shown(url), retry_after_s=wait)

    def _refused(self, status: int) -> SourceStopped:
        sign_in = self.access.sign_in
        stopped = sign_in.stopped(f"it answers with {status}")
        email = (kept.email if (kept := sign_in.kept()) else "") or self._client.email
        who = f" {email}" if email else ""
        return SourceStopped(
            stopped.what,
            where=self.options.base,
            hint=f"Ask Google to give the account{who} access to {self.options.library} at GRIN (it takes up "
            f"to 12 hours); or sign in with another. {stopped.hint}",
            over=stopped.over,
        )

    def _of_page(self, body: bytes, url: str) -> StepError:
        """Return what a page means that came in place of what was asked for."""
        return self.fault_of_page(body, url) or TransientError(
            "GRIN answers with a page in place of what was asked for", where=_shown(url)
        )

    def fault_of_page(self, body: bytes, url: str) -> StepError | None:
        """Return what is wrong where a page is GRIN's apology or a sign-in; None for any other."""
        text = body[:_PAGE_MOST].lower()
        if _THROTTLED in text:
            wait = self.access.limits.throttled(None)
            return TransientError("GRIN throttles by a page", where=_shown(url), retry_after_s=wait)
        if any(words in text for words in _SIGN_IN) and b"hd3" not in text:
            return self.access.sign_in.stopped("it shows a sign-in page")
        return None


def _joined(url: str, location: str) -> str:
    """Return where a redirect leads; "" where that is not an address."""
    with contextlib.suppress(ValueError):
        return urljoin(url, location)
    return ""


async def read_whole(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """Return an answer's body.

    Args:
        most: bytes that it may have.

    Raises: TransientError: it has more.
    """
    body = bytearray()
    async for piece in answer.content.iter_chunked(1 << 16):
        body += piece
        if len(body) > most:
            raise TransientError(f"GRIN sends more than {most:,} bytes", where=_shown(str(answer.url)))
    return bytes(body)


def _is_html(answer: aiohttp.ClientResponse) -> bool:
    return answer.content_type in ("text/html", "application/xhtml+xml")


def _shown(url: str) -> str:
    """Return an address for people: without its query, which may hold a hundred barcodes."""
    return url.partition("?")[0]


def _words(error: BaseException) -> str:
    if isinstance(error, aiohttp.SocketTimeoutError):
        return "GRIN has sent nothing for a while"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"GRIN cannot be reached ({error.os_error.strerror or 'no answer'})"
    return f"the connection to GRIN broke ({type(error).__name__})"


def session(stall_s: float) -> aiohttp.ClientSession:
    """Return a session: no limit of time but for silence; nothing is sent twice by itself; no cookies."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=stall_s)
    made = aiohttp.ClientSession(
        timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=True, auto_decompress=True
    )
    # aiohttp sends some requests again by itself when a kept connection breaks; whether the first was heard
    # is for us to find out. It has no public switch for it.
    made._retry_connection = False
    return made
