"""JSON over HTTP to the systems we record in: one session, and what its faults mean for a job.

Nothing is tried twice here: after a broken POST only its worker knows how to look whether it was heeded.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import textwrap
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, field_validator
from yarl import URL

from dittohead.errors import ItemError, StepError, TargetError, TransientError
from dittohead.model import utcnow, visible

#: Seconds to connect, and without a byte of an answer, before a request is given up.
_CONNECT_S = 10.0
_SILENT_S = 300.0  # a thousand children are saved in one transaction

#: The most an answer may hold: a listing of everything has its pages.
_ANSWER_MOST = 64 << 20

#: The longest wait that a server is believed to mean.
_LONGEST_S = 86400.0

_AGENT = f"dittohead/{version('dittohead')}"

Params = Mapping[str, str | int] | Sequence[tuple[str, str | int]]


class Site(BaseModel):
    """Where a system is; a part of its worker's options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="Where its API is, such as `https://archives.example.org/api`.")
    ca_bundle: str = Field("", description="A file of certificates to trust instead of the system's.")

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a URL that begins with https:// or http:// is wanted")
        if parts.username or parts.password:
            raise ValueError("a user or password does not belong here; name a credential file")
        if parts.query or parts.fragment:
            raise ValueError("a URL without ? and # is wanted")
        return value.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class Answer:
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
        except ValueError:
            raise TransientError(
                f"the answer ({self.status}) is no JSON: {short(self.body.decode('utf-8', 'replace'))}",
                where=self.where,
            ) from None

    def retry_after_s(self) -> float | None:
        """Return how long the server asks to wait. Source: RFC 9110, section 10.2.3."""
        text = self.headers.get("Retry-After", "").strip()
        if text.isascii() and text.isdigit():
            return min(float(text), _LONGEST_S)
        with contextlib.suppress(ValueError, TypeError):
            return min(max(0.0, (parsedate_to_datetime(text) - utcnow()).total_seconds()), _LONGEST_S)
        return None

    def fault(self, said: str = "", *, hint: str = "") -> StepError:
        """Return what an answer that is no success means for a job, by its status.

        Args:
            said: the server's own words, where they are to be told.
        """
        words = short(said).rstrip(".")
        what = f"it answered {self.status}" + (f" ({words})" if words else "")
        if self.status in (401, 403):
            hint = hint or "Correct the user's name and password, or give the user what it needs"
            return TargetError(what, where=self.where, hint=hint)
        if 300 <= self.status < 400:
            target = self.headers.get("Location", "")
            return TargetError(what, where=self.where, hint=hint or f"Set url to where it leads: {target}")
        if self.status == 507:
            return TargetError(what, where=self.where, hint=hint or "Make room there")
        if self.status in (408, 425, 429) or self.status >= 500:
            return TransientError(what, where=self.where, hint=hint, retry_after_s=self.retry_after_s())
        return ItemError(what, where=self.where, hint=hint)


class Rest:
    """One session with one server; connections are kept and used again."""

    def __init__(
        self, session: aiohttp.ClientSession, base: str, auth: aiohttp.BasicAuth | None = None
    ) -> None:
        self._session, self.base, self._auth = session, base, auth

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and return the answer, whatever its status.

        Args:
            path: below the base, or a whole URL of the same server; percent-encoded already.
            json: sent as JSON.
            data: sent as it is: bytes, a payload, an asynchronous iterator; or form fields by name.

        Raises: TargetError: the server cannot be reached; TransientError: the exchange broke, and it
            is not known whether the server heeded the request.
        """
        whole = path if "://" in path else self.base + path
        if params:
            # Not URL.update_query: it drops what the path asks for by the same name, and what it keeps
            # it writes anew.
            whole += ("&" if "?" in whole else "?") + urlencode(params, quote_via=quote, safe="")
        url = URL(whole, encoded=True)
        shown = str(url.with_query(None).with_fragment(None))
        try:
            async with self._session.request(
                method,
                url,
                json=json,
                data=data,
                headers=headers,
                allow_redirects=False,
                auth=self._auth if url.origin() == URL(self.base).origin() else None,
            ) as response:
                body = await response.content.read(_ANSWER_MOST + 1)
                while not response.content.at_eof() and len(body) <= _ANSWER_MOST:
                    body += await response.content.read(_ANSWER_MOST + 1 - len(body))
                if len(body) > _ANSWER_MOST:
                    raise ItemError("the answer is larger than 64 MiB", where=f"{method} {shown}")
                return Answer(
                    method=method, url=shown, status=response.status, headers=response.headers, body=body
                )
        except _FAULTS as error:
            raise _fault(error, method, shown) from error


@contextlib.asynccontextmanager
async def connected(
    site: Site, auth: aiohttp.BasicAuth | None = None, *, connections: int = 8
) -> AsyncIterator[Rest]:
    """Open a session with a site.

    Args:
        auth: sent with each request to the site itself (HTTP Basic).
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
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENT_S),
        headers={"User-Agent": _AGENT, "Accept": "application/json"},
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=True,
    )
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
            hint="Set ca_bundle, or mend the certificate",
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return TargetError(f"{host} does not speak TLS as it should ({short(str(error))})", where=where)
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError)):
        why = error.os_error.strerror if isinstance(error, aiohttp.ClientConnectorError) else "no answer"
        what = f"{host} cannot be reached ({short(why or str(error))})"
        return TargetError(what, where=where, hint="It is tried again by itself")
    return TransientError(f"the connection broke ({type(error).__name__})", where=where)


def short(text: str) -> str:
    """Return a server's words as one line that fits a reason, a receipt and a mail."""
    return textwrap.shorten(visible(" ".join(text.split())), 300, placeholder=" ...")
