"""Access tokens: OAuth 2 of an installed application, or of a service account; kept, and renewed in time.

Source: RFC 6749 (sections 4.1 and 6), RFC 7636 (PKCE), RFC 8252 (loopback redirect), RFC 7523 (service
accounts); Google's pages "OAuth 2.0 for iOS & Desktop Apps" and "Using OAuth 2.0 for Server to Server
Applications".
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from dittohead.model.errors import ItemError, SourceStopped, StepError, TransientError
from dittohead.model.text import short, visible
from dittohead.sources.grin.options import may_have_secrets
from dittohead.system import files, log
from dittohead.toolkit import retry_after

#: A token is renewed this long before it ends. Seconds.
EARLY_S = 300.0

#: The identity alone; Google gives an account its rights at GRIN. Source: public clients of GRIN.
SCOPES = (
    "openid",
    "https://www.googleapis.com/auth/userinfo.email",
    "https://www.googleapis.com/auth/userinfo.profile",
)

#: A request for a token is given up after this long. Seconds.
_TIMEOUT_S = 60.0

#: A token that is said to last longer is none of Google's. Seconds.
_LASTS_MOST_S = 366 * 86400.0

#: How long an assertion of a service account is good. Seconds; Google takes an hour at most.
_ASSERTED_S = 3600

_JWT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(frozen=True, kw_only=True)
class OAuthClient:
    """The client file that Google gives, of either kind."""

    token_uri: str
    auth_uri: str = ""
    id: str = ""
    secret: str = ""
    email: str = ""  #: of a service account
    key_id: str = ""
    key: str = ""  #: its private key, PEM

    @property
    def is_service(self) -> bool:
        """Whether it is a service account's."""
        return bool(self.key)

    @property
    def name(self) -> str:
        """What Google calls it; no secret."""
        return self.email or self.id

    def __repr__(self) -> str:
        return f"Client({self.email or self.id})"  # no secret into a traceback


def read_client(text: str, name: str) -> OAuthClient:
    """Return a client file. Raises: ItemError: it is none."""
    try:
        found = json.loads(text)
        if found.get("type") == "service_account":
            return OAuthClient(
                token_uri=_safe(found["token_uri"]),
                email=found["client_email"],
                key_id=found.get("private_key_id", ""),
                key=found["private_key"],
            )
        inner = found["installed"]
        return OAuthClient(
            token_uri=_safe(inner["token_uri"]),
            auth_uri=inner["auth_uri"],
            id=inner["client_id"],
            secret=inner.get("client_secret", ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ItemError(
            f'the credential "{name}" is not an OAuth client of an installed application or the key of a '
            "service account",
            hint="Download the JSON again, from the project's page of credentials, and store it as it is",
        ) from None


def _safe(address: str) -> str:
    """Return the address of a token endpoint. Raises: ValueError: a secret must not go there."""
    if not may_have_secrets(address):
        raise ValueError(address)
    return address


@dataclass(frozen=True, kw_only=True)
class OAuthToken:
    """What is kept of a sign-in."""

    access: str
    expires_at: float  #: seconds since the epoch
    refresh: str = ""
    email: str = ""
    early_s: float = EARLY_S  #: seconds before its end at which it is renewed
    client: str = ""  #: whose it is, see `OAuthClient.name`; "" where that was not kept

    def __repr__(self) -> str:
        return f"Token({self.email}, expires_at={self.expires_at})"

    @classmethod
    def read(cls, path: Path) -> OAuthToken | None:
        """Return the one in a file; None where there is none that can be used."""
        try:
            found = json.loads(path.read_bytes())
            return cls(
                access=str(found["access_token"]),
                expires_at=float(found["expires_at"]),
                refresh=str(found["refresh_token"]),
                email=str(found.get("email", "")),
                early_s=float(found.get("early_s", EARLY_S)),
                client=str(found.get("client", "")),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Keep it: readable to this user alone from its first byte; whole, or as it was before."""
        made = {
            "access_token": self.access,
            "expires_at": self.expires_at,
            "refresh_token": self.refresh,
            "email": self.email,
            "early_s": self.early_s,
            "client": self.client,
        }
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_durably(path, json.dumps(made).encode(), 0o600)


class GrinSignIn:
    """A source's access token, for everything that asks; one is renewed at a time, by one request.

    Args:
        path: where it is kept.
        command: what a person types to sign in.
        logger: structlog's.
    """

    def __init__(self, path: Path, command: str, logger: Any) -> None:
        self._path, self._command, self._log = path, command, logger
        self._token: OAuthToken | None = None
        self._stamp: float | None = None  #: of the file that it came from
        self._turn = asyncio.Lock()
        self.now: Callable[[], float] = time.time

    async def bearer(self, client: OAuthClient, session: aiohttp.ClientSession, *, not_: str = "") -> str:
        """Return an access token that is good for some minutes.

        Args:
            not_: one that was refused: it is not returned again.

        Raises: SourceStopped: a person has to sign in; TransientError: there is none just now.
        """
        token = self._good(client, not_)
        if token is not None:
            return token.access
        async with self._turn:
            token = self._good(client, not_)  # another may have renewed it meanwhile
            if token is None:
                await asyncio.to_thread(self._load)
                token = self._good(client, not_) or await self._renew(client, session, not_)
            return token.access

    def _good(self, client: OAuthClient, not_: str) -> OAuthToken | None:
        token = self._token
        if token is None or token.access == not_ or token.client not in ("", client.name):
            return None
        return token if token.expires_at - token.early_s > self.now() else None

    def _load(self) -> None:
        """Read the file where somebody has signed in since."""
        stamp = _stamp(self._path)
        if stamp is not None and stamp != self._stamp and (found := OAuthToken.read(self._path)) is not None:
            self._token, self._stamp = found, stamp

    async def _renew(self, client: OAuthClient, session: aiohttp.ClientSession, not_: str) -> OAuthToken:
        old = self._token
        if old is not None and old.client not in ("", client.name):
            old = None  # another client's, of before config.yaml or the credential was changed
        if not client.is_service and (old is None or not old.refresh):
            raise self.stopped("nobody has signed in yet")
        form = _assertion(client, self.now()) if client.is_service else _refreshing(client, old)
        try:
            given = await _ask(client, session, form)
        except TransientError as error:
            if old is not None and old.access != not_ and old.expires_at > self.now() + 1:
                self._log.warning(log.SOURCE_RENEWAL_FAILED, error=str(error))
                return old  # good for some minutes: it is tried again
            raise
        except _Refused as error:
            raise self.stopped(error.what) from None
        self._token = await self.keep(given, old, client)
        return self._token

    async def keep(self, given: Mapping[str, Any], old: OAuthToken | None, client: OAuthClient) -> OAuthToken:
        """Keep what the token endpoint gave. Raises: TransientError: it is not a token.

        Args:
            given: its answer.
            old: what was kept before; None for nothing.
            client: whose token it is.
        """
        try:
            lasts = float(given.get("expires_in", 3600))
            if not 0 < lasts <= _LASTS_MOST_S:
                raise ValueError(lasts)
            token = OAuthToken(
                access=_word(given["access_token"]),
                expires_at=self.now() + lasts,
                # Mostly there is no new one, and the old one stays good.
                refresh=_word(given.get("refresh_token") or "") or (old.refresh if old else ""),
                email=_email(given) or (old.email if old else ""),
                # One that is short is used for half of its time, or each request would have to renew it.
                early_s=min(EARLY_S, lasts / 2),
                client=client.name,
            )
            if not token.access:
                raise ValueError("empty")
        except (KeyError, ValueError, TypeError):
            raise TransientError("the token endpoint gave no token", where=client.token_uri) from None
        await asyncio.to_thread(token.write, self._path)
        self._token, self._stamp = token, _stamp(self._path)
        return token

    def stopped(self, why: str) -> SourceStopped:
        """Return what stops the source until somebody signs in."""
        stamp = _stamp(self._path)
        return SourceStopped(
            f"GRIN does not let us in: {why}",
            hint=f"Type: {self._command}",
            over=lambda: _stamp(self._path) != stamp,
        )

    def kept(self) -> OAuthToken | None:
        """Return the token in the file. Blocking."""
        return OAuthToken.read(self._path)


class _Refused(StepError):
    """The token endpoint says no, permanently."""


async def exchange(
    client: OAuthClient, session: aiohttp.ClientSession, form: Mapping[str, str]
) -> dict[str, Any]:
    """Exchange the code of a consent for tokens. Raises: ItemError, TransientError."""
    try:
        return await _ask(client, session, {"grant_type": "authorization_code", **_named(client), **form})
    except _Refused as error:
        raise ItemError(
            error.what, where=client.token_uri, hint="Begin again with the same command"
        ) from None


def _named(client: OAuthClient) -> dict[str, str]:
    return {"client_id": client.id, "client_secret": client.secret}


def _refreshing(client: OAuthClient, old: OAuthToken | None) -> dict[str, str]:
    refresh = old.refresh if old is not None else ""
    return {"grant_type": "refresh_token", "refresh_token": refresh, **_named(client)}


def _assertion(client: OAuthClient, now: float) -> dict[str, str]:
    """Return the form by which a service account asks. Raises: ItemError: its key cannot be used."""
    # Only service accounts need it, and it takes a while to load.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    claims = {
        "iss": client.email,
        "scope": " ".join(SCOPES),
        "aud": client.token_uri,
        "iat": int(now),
        "exp": int(now) + _ASSERTED_S,
    }
    head = {"alg": "RS256", "typ": "JWT", "kid": client.key_id}
    signed = f"{base64url(json.dumps(head).encode())}.{base64url(json.dumps(claims).encode())}"
    try:
        key = serialization.load_pem_private_key(client.key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ItemError("the service account's private key cannot be read", hint="Download its JSON again")
    signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return {"grant_type": _JWT, "assertion": f"{signed}.{base64url(signature)}"}


def base64url(data: bytes) -> str:
    """Return data as tokens and challenges have it. Source: RFC 7515, section 2."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def _ask(
    client: OAuthClient, session: aiohttp.ClientSession, form: Mapping[str, str]
) -> dict[str, Any]:
    """Ask the token endpoint, once. Raises: _Refused, TransientError."""
    where = client.token_uri
    try:
        async with (
            asyncio.timeout(_TIMEOUT_S),
            session.post(where, data=dict(form), allow_redirects=False) as answer,
        ):
            body = await answer.content.read(1 << 16)
            status, wait = answer.status, retry_after.asked_s(answer.headers.get("Retry-After", ""))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise TransientError(f"no token was obtained ({type(error).__name__})", where=where) from None
    found = _object(body)
    if status == 200:
        return found
    said = short(" ".join(str(found.get(key, "")) for key in ("error", "error_description")))
    if status in (400, 401, 403) and found.get("error"):
        raise _Refused(f"the sign-in is not good any more ({said.strip()})", where=where)
    raise TransientError(f"no token was obtained: it answered {status}", where=where, retry_after_s=wait)


def _object(body: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(body)
        return found if isinstance(found, dict) else {}
    return {}


def _word(value: object) -> str:
    """Return a token. Raises: ValueError: no header could hold it."""
    if not isinstance(value, str) or not value.isascii() or not (value + "x").isprintable() or " " in value:
        raise ValueError("no token")
    return value


def _email(given: Mapping[str, Any]) -> str:
    """Return whose token it is, for people; it is not relied on, so its signature is not checked."""
    with contextlib.suppress(Exception):
        body = str(given["id_token"]).split(".")[1]
        email = str(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["email"])
        return short(visible(email))
    return ""


def _stamp(path: Path) -> float | None:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return None
