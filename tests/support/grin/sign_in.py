"""Google's sign-in as far as GRIN's clients use it: consent in a browser, tokens, service accounts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

CLIENT, SECRET = "client-1.apps.example", "GOCSPX-not-to-be-seen"
SCOPES = {
    "openid",
    "https://www.googleapis.com/auth/userinfo.email",
    "https://www.googleapis.com/auth/userinfo.profile",
}


@dataclass
class SignIn:
    """Accounts, tokens and what they are worth."""

    now: float = 1_767_600_000.0  #: seconds since the epoch, moved by the test
    tokens: dict[str, float] = field(default_factory=dict)  #: access token -> until when it is good
    refresh: set[str] = field(default_factory=set)  #: refresh tokens that are good
    rotates: bool = False  #: a refresh gives a new refresh token, and ends the old one
    answer: list[tuple[int, dict[str, Any]]] = field(default_factory=list)  #: instead, of the next refreshes
    delay_s: float = 0.0
    lasts_s: float = 3600.0
    refreshes: int = 0
    at_once: int = 0  #: refreshes under way now
    most_at_once: int = 0
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))
    _key: Any = None

    def token(self) -> str:
        """Return a new access token."""
        made = f"ya29.not-to-be-seen-{next(self._numbers)}"
        self.tokens[made] = self.now + self.lasts_s
        return made

    def good(self, token: str) -> bool:
        return self.tokens.get(token, 0.0) > self.now

    def client_file(self, url: str) -> str:
        """Return the client file of an installed application."""
        inner = {
            "client_id": CLIENT,
            "client_secret": SECRET,
            "auth_uri": f"{url}/auth",
            "token_uri": f"{url}/token",
        }
        return json.dumps({"installed": inner})

    def service_file(self, url: str) -> str:
        """Return a service account's key file."""
        self._key = self._key or rsa.generate_private_key(65537, 2048)
        pem = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return json.dumps(
            {
                "type": "service_account",
                "client_email": "robot@example.iam",
                "private_key_id": "key-1",
                "private_key": pem.decode(),
                "token_uri": f"{url}/token",
            }
        )

    async def consent(self, request: web.Request) -> web.Response:
        """The page that a browser opens; here everybody consents at once."""
        asked = request.query
        parts = urlsplit(asked.get("redirect_uri", ""))
        wrong = [
            asked.get("client_id") != CLIENT,
            asked.get("response_type") != "code",
            parts.scheme != "http" or parts.hostname != "127.0.0.1" or not parts.port,
            not set(asked.get("scope", "").split()) <= SCOPES,
            asked.get("code_challenge_method") != "S256",
            len(asked.get("code_challenge", "")) != 43,
            len(asked.get("state", "")) < 16,
        ]
        if any(wrong):
            return web.Response(status=400, text="Error 400: invalid_request")
        code = f"4/{secrets.token_urlsafe(12)}"
        self.codes[code] = dict(asked)
        back = urlencode({"state": asked["state"], "code": code, "scope": asked["scope"]})
        return web.Response(status=302, headers={"Location": f"{asked['redirect_uri']}/?{back}"})

    async def give(self, request: web.Request) -> web.Response:
        """The token endpoint."""
        form = await request.post()
        if request.content_type != "application/x-www-form-urlencoded":
            return _refused("invalid_request", "a form is required")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay_s)
            return self._answer({key: str(value) for key, value in form.items()})
        finally:
            self.at_once -= 1

    def _answer(self, form: dict[str, str]) -> web.Response:
        grant = form.get("grant_type", "")
        if grant == "authorization_code":
            return self._exchanged(form)
        self.refreshes += 1
        if self.answer:
            status, body = self.answer.pop(0)
            return web.json_response(body, status=status)
        if grant == "refresh_token":
            return self._refreshed(form)
        if grant == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return self._asserted(form.get("assertion", ""))
        return _refused("unsupported_grant_type", grant)

    def _exchanged(self, form: dict[str, str]) -> web.Response:
        asked = self.codes.pop(form.get("code", ""), None)
        verifier = form.get("code_verifier", "")
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if asked is None or asked["redirect_uri"] != form.get("redirect_uri"):
            return _refused("invalid_grant", "Malformed auth code.")
        if digest != asked["code_challenge"] or not 43 <= len(verifier) <= 128:
            return _refused("invalid_grant", "Invalid code verifier.")
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, SECRET):
            return _refused("invalid_client", "Unauthorized", 401)
        given = {**self._given(), "id_token": _unsigned({"email": "someone@library.example"})}
        if asked.get("access_type") == "offline" and asked.get("prompt") == "consent":
            given["refresh_token"] = self.new_refresh()
        return web.json_response(given)

    def new_refresh(self) -> str:
        made = f"1//not-to-be-seen-{next(self._numbers)}"
        self.refresh.add(made)
        return made

    def _refreshed(self, form: dict[str, str]) -> web.Response:
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, SECRET):
            return _refused("invalid_client", "Unauthorized", 401)
        if form.get("refresh_token") not in self.refresh:
            return _refused("invalid_grant", "Token has been expired or revoked.")
        given = self._given()
        if self.rotates:
            self.refresh.discard(form["refresh_token"])
            given["refresh_token"] = self.new_refresh()
        return web.json_response(given)

    def _given(self) -> dict[str, Any]:
        return {"access_token": self.token(), "expires_in": int(self.lasts_s), "token_type": "Bearer"}

    def _asserted(self, assertion: str) -> web.Response:
        """Check a service account's assertion. Source: RFC 7523 and Google's page on service accounts."""
        try:
            head, body, signature = assertion.split(".")
            self._key.public_key().verify(
                _decoded(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256()
            )
            header, claims = json.loads(_decoded(head)), json.loads(_decoded(body))
        except Exception:
            return _refused("invalid_grant", "Invalid JWT Signature.")
        good = [
            header.get("alg") == "RS256" and header.get("kid") == "key-1",
            claims.get("iss") == "robot@example.iam",
            str(claims.get("aud", "")).endswith("/token"),
            claims.get("iat", 0) < claims.get("exp", 0) <= claims.get("iat", 0) + 3600,
            bool(claims.get("scope")),
        ]
        if not all(good):
            return _refused("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        return web.json_response(self._given())


def _refused(error: str, description: str, status: int = 400) -> web.Response:
    return web.json_response({"error": error, "error_description": description}, status=status)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _unsigned(claims: dict[str, str]) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{body}.sig"
