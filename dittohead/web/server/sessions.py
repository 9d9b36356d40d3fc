"""Sessions of people who signed in by a token: signed cookies that end with their token, or at sign-out."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any

from itsdangerous import BadData, Signer, URLSafeSerializer

from dittohead.model.errors import Unreadable
from dittohead.system import own_files
from dittohead.system.files import write_durably

#: Under https the name alone has browsers refuse a cookie that another host, or no https, has set.
#: Source: RFC 6265bis, 4.1.3.2, The "__Host-" Prefix.
SECURE_NAME = "__Host-dittohead"
PLAIN_NAME = "dittohead"

#: Sessions that were signed out and would still hold; more than anybody signs out in a session's life.
_MOST_ENDED = 10_000

#: No key's file is longer. Bytes.
_KEY_MOST = 4096

#: How the library signs. By itself it takes SHA-1, and concatenates key and purpose.
_SIGNED: dict[str, Any] = {"key_derivation": "hmac", "digest_method": hashlib.sha256}


@dataclass(frozen=True)
class Session:
    """What a cookie says."""

    id: str  #: random
    mark: str  #: of the token it was begun with (see Token.mark)
    until: float  #: seconds since the epoch


class Sessions:
    """Makes and reads the cookies of one root; what was signed out stays so, also after a restart.

    Args:
        state: the root's state/ directory.
    """

    def __init__(self, state: Path, *, now: Callable[[], float] = time.time) -> None:
        self._key_path, self._ended_path = state / "http.key", state / "http-ended.json"
        self._now = now
        self._key = b""
        self._ended: dict[str, float] = {}

    def load(self) -> None:
        """Read the key, or make one; and what was signed out. Blocking.

        A file that is damaged is not believed: everybody signs in again. Raises: OSError.
        """
        try:
            with own_files.opened(self._key_path) as file:
                self._key = bytes.fromhex(file.read(_KEY_MOST).decode("ascii").strip())
        except (FileNotFoundError, ValueError, Unreadable):
            self._key = b""
        try:
            self._ended = own_files.document(self._ended_path, _ended)
        except FileNotFoundError:
            self._ended = {}
        except Unreadable:  # who was signed out is not known any more: then nobody is to be signed in
            self._ended, self._key = {}, b""
            write_durably(self._ended_path, b"{}", 0o600)
        if len(self._key) < 32:
            self._key = secrets.token_bytes(32)
            write_durably(self._key_path, self._key.hex().encode() + b"\n", 0o600)

    def begin(self, mark: str, lasting_s: float) -> tuple[Session, str]:
        """Begin a session; return it and its cookie's value."""
        session = Session(secrets.token_urlsafe(24), mark, self._now() + lasting_s)
        return session, str(self._cookies().dumps([session.id, session.mark, session.until]))

    def read(self, value: str) -> Session | None:
        """Return the session of a cookie's value, None where it is not ours, has ended, or was signed out."""
        if not value.isascii():  # also what was not UTF-8, which the library does not expect
            return None
        try:
            cookies = self._cookies()
            session = Session(*(fields := cookies.loads(value)))
        except BadData:
            return None
        if cookies.dumps(fields) != value:  # base64 is read leniently: each session has one text all the same
            return None
        return session if session.until > self._now() and session.id not in self._ended else None

    def end(self, session: Session) -> None:
        """Let a session hold no longer. Durable on return. Blocking. Raises: OSError."""
        now = self._now()
        self._ended = {id_: until for id_, until in self._ended.items() if until > now}
        while len(self._ended) >= _MOST_ENDED:  # the one that would end soonest by itself
            del self._ended[min(self._ended, key=self._ended.__getitem__)]
        self._ended[session.id] = session.until
        write_durably(self._ended_path, json.dumps(self._ended).encode(), 0o600)

    def csrf(self, what: str) -> str:
        """Return what forms must send back: nobody can know it who cannot read our pages.

        Args:
            what: whose forms: a session's id, or a name that the proxy told.
        """
        signer = Signer(self._key, salt="form", **_SIGNED)
        return signer.get_signature(what.encode("utf-8", "backslashreplace")).decode()

    def _cookies(self) -> URLSafeSerializer:
        return URLSafeSerializer(self._key, salt="session", signer_kwargs=_SIGNED)


def _ended(found: Any) -> dict[str, float]:
    return {str(id_): float(until) for id_, until in own_files.mapping(found).items()}


def cookie_of(header: str, name: str) -> str:
    """Return a cookie's value from a Cookie header; "" where there is none, or more than one of that name.

    Of two, one was tossed in by somebody else: a neighbouring host, or another path.
    """
    found = []
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            found.append(value)
    return found[0] if len(found) == 1 else ""


def cookie(name: str, value: str, lasting_s: float) -> str:
    """Return a Set-Cookie header's value; lasting 0 seconds removes it."""
    made: SimpleCookie = SimpleCookie()
    try:
        made[name] = value
    except CookieError as error:
        raise ValueError("this is not a cookie") from error
    morsel = made[name]
    morsel["path"], morsel["httponly"], morsel["samesite"] = "/", True, "Strict"
    morsel["max-age"] = str(int(lasting_s))
    if name == SECURE_NAME:
        morsel["secure"] = True
    return morsel.OutputString()
