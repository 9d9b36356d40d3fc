"""JSON over HTTP to the systems we record in: one session, and what its faults mean for a job.

Nothing is tried twice here: after a broken POST only its worker knows how to look whether it was obeyed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, field_validator
from yarl import URL

from dittohead.model.errors import ItemError, StepError, TargetError, TransientError
from dittohead.model.text import short
from dittohead.toolkit import retry_after

#: Seconds to connect, and without a byte of an answer, before a request is given up.
_CONNECT_S = 10.0
_SILENT_S = 300.0  # a thousand children are saved in one transaction

#: Seconds for a whole answer, byte after byte: a slot is not held for days by one that trickles.
_WHOLE_S = 1800.0

#: The most an answer may hold: a listing of everything has its pages.
_ANSWER_MOST = 64 << 20

#: Bytes of an answer that a sink is given at most at once.
_PIECE = 1 << 18

_AGENT = f"dittohead/{version('dittohead')}"

Params = Mapping[str, str | int] | Sequence[tuple[str, str | int]]


class RestSite(BaseModel):
    """Where a system is; a part of its worker's options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="Where its API is, such as `https://archives.example.org/api`.")
    ca_bundle: str = Field("", description="A file of certificates to trust instead of the system's.")

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        parts = urlsplit(value)
        try:
            parts.port  # noqa: B018  # read to be checked
        except ValueError:
            raise ValueError("its port is not a number from 0 to 65535") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a URL that begins with https:// or http:// is required")
        if parts.username or parts.password:
            raise ValueError("a user or password does not belong here; name a credential file")
        if parts.query or parts.fragment:
            raise ValueError("a URL without ? and # is required")
        return value.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class RestAnswer:
    """What a server answered."""

    method: str
    url: str  #: without its query
    status: int
    headers: Mapping[str, str]  #: without regard to case
    body: bytes

    @property
    def where(self) -> str:
        """Which request it was, for people."""
        return f"{self.method} {self.url}"

    def json(self) -> Any:
        """Return the answer's JSON. Raises: TransientError: it is none, such as a proxy's page."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise TransientError(
                f"the answer ({self.status}) is not JSON: {short(self.body.decode('utf-8', 'replace'))}",
                where=self.where,
            ) from None

    def retry_after_s(self) -> float | None:
        """Return how long the server asks to wait; None when it does not."""
        return retry_after.asked_s(self.headers.get("Retry-After", ""))

    def fault(self, said: str = "", *, hint: str = "") -> StepError:
        """Return what an answer that is not a success means for a job, by its status.

        Args:
            said: the server's own words, where they are to be told.
        """
        words = short(said).rstrip(".")
        what = f"it answered {self.status}" + (f" ({words})" if words else "")
        if self.status in (401, 403):
            hint = hint or "Correct the user's name and password, or give the user what it needs"
            return TargetError(what, where=self.where, hint=hint)
        if 300 <= self.status < 400:  # never followed: credentials would go along
            there = self.headers.get("Location", "")
            hint = hint or f"Set url to where it is now{f' ({short(there)})' if there else ''}"
            return TargetError(what, where=self.where, hint=hint)
        if self.status == 507:
            return TargetError(what, where=self.where, hint=hint or "Make room there", full=True)
        if self.status in (408, 425, 429) or self.status >= 500:
            return TransientError(what, where=self.where, hint=hint, retry_after_s=self.retry_after_s())
        return ItemError(what, where=self.where, hint=hint)


class Rest:
    """One session with one server; connections are kept and used again."""

    def __init__(
        self, session: aiohttp.ClientSession, base: str, auth: tuple[str, str] | None = None
    ) -> None:
        self._session, self.base = session, base
        self.server_time: float | None = None  #: what the server's clock said last, seconds since the epoch
        self._own = {} if auth is None else {"Authorization": _basic(*auth)}

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        anonymous: bool = False,
        sink: Callable[[bytes], None] | None = None,
        silent_s: float = _SILENT_S,
    ) -> RestAnswer:
        """Send one request and return the answer, whatever its status.

        Args:
            path: below the base, or a whole URL of the same server; percent-encoded already.
            json: sent as JSON.
            data: sent as it is: bytes, a payload, an asynchronous iterator; or form fields by name.
            anonymous: asks as the public would, without credentials.
            sink: takes the body of a success piece by piece, however large it is; the answer then
                holds none of it.
            silent_s: seconds until the server must answer, and between two pieces of it.

        Raises: TargetError: the server cannot be reached; TransientError: the exchange broke, and it
            is not known whether the server obeyed the request.
        """
        whole = path if "://" in path else self.base + path
        if params:
            # Not URL.update_query: it drops what the path asks for by the same name, and what it keeps
            # it writes again.
            whole += ("&" if "?" in whole else "?") + urlencode(params, quote_via=quote, safe="")
        url = URL(whole, encoded=True)
        shown = str(url.with_query(None).with_fragment(None))
        own = url.origin() == URL(self.base).origin()
        known = own and not anonymous
        # What is sent or taken in pieces may be as large as it likes.
        whole_s = _WHOLE_S if sink is None and (data is None or isinstance(data, dict)) else None
        try:
            async with (
                asyncio.timeout(whole_s),
                self._session.request(
                    method,
                    url,
                    json=json,
                    data=data,
                    headers={**(self._own if known else {}), **(headers or {})},
                    allow_redirects=False,
                    timeout=_timeout(silent_s),
                ) as response,
            ):
                if own:
                    self._tell_time(response.headers.get("Date", ""))
                if sink is not None and response.status == 200:
                    body = b""
                    async for piece in response.content.iter_chunked(_PIECE):
                        sink(piece)
                else:
                    body = await _whole(response, f"{method} {shown}")
                return RestAnswer(
                    method=method, url=shown, status=response.status, headers=response.headers, body=body
                )
        except _FAULTS as error:
            raise _fault(error, method, shown) from error

    def _tell_time(self, date: str) -> None:
        if (found := retry_after.http_date(date)) is not None:
            self.server_time = found.timestamp()


def _timeout(silent_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=silent_s)


def _basic(user: str, password: str) -> str:
    """Return an Authorization header. Source: RFC 7617, with the charset UTF-8."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def _whole(response: aiohttp.ClientResponse, where: str) -> bytes:
    pieces, size = [], 0
    async for piece in response.content.iter_chunked(_PIECE):
        size += len(piece)
        if size > _ANSWER_MOST:
            raise ItemError("the answer is larger than 64 MiB", where=where)
        pieces.append(piece)
    return b"".join(pieces)


@contextlib.asynccontextmanager
async def connected(
    site: RestSite, auth: tuple[str, str] | None = None, *, connections: int = 8
) -> AsyncIterator[Rest]:
    """Open a session with a site.

    Args:
        auth: user and password, sent with each request to the site itself (HTTP Basic).
        connections: the most that are open at once.

    Raises: TargetError: the certificates to trust cannot be read.
    """
    trust: ssl.SSLContext | bool = True
    if site.ca_bundle:
        try:
            trust = ssl.create_default_context(cafile=site.ca_bundle)
        except (OSError, ssl.SSLError) as error:
            raise TargetError("its certificates cannot be read", where=site.ca_bundle) from error
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=trust),
        timeout=_timeout(_SILENT_S),
        headers={"User-Agent": _AGENT, "Accept": "application/json"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=True,
    )
    # aiohttp sends PUT and DELETE again by itself when a connection that was kept breaks; whether the
    # first was obeyed is for the worker to find out. It has no public switch for it.
    session._retry_connection = False
    async with session:
        yield Rest(session, site.url, auth)


_FAULTS = (aiohttp.ClientError, TimeoutError, ConnectionError, OSError)


def _fault(error: BaseException, method: str, shown: str) -> StepError:
    host = urlsplit(shown).netloc
    where = f"{method} {shown}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return TargetError(
            f"its certificate is not trusted ({short(str(error.certificate_error))})",
            where=where,
            hint="Set ca_bundle, or fix the certificate",
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return TargetError(f"{host} does not speak TLS as it should ({short(str(error))})", where=where)
    if isinstance(error, aiohttp.SocketTimeoutError):  # it was sent: whether it was obeyed is not known
        return TransientError(f"{host} does not answer", where=where)
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError)):
        why = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else "no answer"
        what = f"{host} cannot be reached ({short(why or str(error))})"
        return TargetError(what, where=where, hint="It is tried again by itself")
    if type(error) is TimeoutError:
        return TransientError(f"{host} does not come to the end of its answer", where=where)
    return TransientError(f"the connection broke ({type(error).__name__})", where=where)
