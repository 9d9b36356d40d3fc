"""Who may come in: names of this host, tokens, sessions, the proxy's word, forms that are ours."""

from __future__ import annotations

import asyncio
import hmac
import html
import ipaddress
import math
import os
import re
import socket
import struct
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from dittohead.admin.tokens import AccessToken, AccessTokens
from dittohead.config.settings import Http, Proxy
from dittohead.model.roles import Role
from dittohead.system import log
from dittohead.system.users import owner
from dittohead.web.server import identity as identity_module
from dittohead.web.server.attempt_limit import AttemptLimit
from dittohead.web.server.identity import IDENTITY, Handler, Identity, Way
from dittohead.web.server.listener import LINES, is_own
from dittohead.web.server.problems import Problem, wants_page
from dittohead.web.server.sessions import PLAIN_NAME, SECURE_NAME, Session, Sessions, cookie_of

#: The file of tokens is read again when it was read this long ago. Seconds.
_FRESH_S = 1.0

#: A form is read for this long at most; one of nobody known, which is small, for less. Seconds.
_FORM_S, _STRANGERS_FORM_S = 20.0, 2.0

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

#: A person's name as a proxy may tell it: it stands in logs, mails and receipts.
# Not beginning as the settings' groups and everybody do: a name would stand for them.
_NAME = re.compile(r"(?![@*])[^\s\x00-\x1f\x7f,;:\"<>\\]{1,100}")

#: pid, uid, gid. Source: unix(7), SO_PEERCRED, struct ucred.
_UCRED = struct.Struct("3i")

#: Names of the uids that came through the socket, and of no more than these.
_MOST_NAMES = 1000


class Access:
    """Finds out who asks.

    Args:
        settings: None where nothing is served but the daemon's own socket.
        tokens: None where the configuration names none.
    """

    def __init__(self, settings: Http | None, tokens: AccessTokens | None, sessions: Sessions) -> None:
        self.settings, self.tokens, self.sessions = settings, tokens, sessions
        self.limit = AttemptLimit()  #: of wrong tokens
        self._networks = _networks(settings.proxy) if settings and settings.proxy else []
        self._read_at = float("-inf")
        self._people: dict[int, str] = {}
        self._hosts = {os.uname().nodename.lower(), "localhost"}
        if settings is not None:
            self._hosts.update(name.lower() for name in settings.names)

    # -- who ---------------------------------------------------------------------------------

    async def identify(self, request: web.Request) -> Identity:
        """Return who asks. Raises: Problem: what they show does not hold."""
        if is_own_socket(request):
            return await self._peer(request)
        await self._refresh()
        by_proxy = self._by_proxy(
            request
        )  # first: its header is refused from elsewhere, whatever else is shown
        secret = _bearer(request)
        if secret is not None:
            return self._by_token(request, secret)
        return by_proxy or self._by_session(request) or self._anybody()

    async def _refresh(self) -> None:
        now = time.monotonic()
        if self.tokens is not None and now - self._read_at > _FRESH_S:
            self._read_at = now
            await asyncio.to_thread(self.tokens.refresh)

    async def _peer(self, request: web.Request) -> Identity:
        """The socket's own permissions say who may connect; the kernel says who did."""
        sock: Any = request.get_extra_info("socket")
        if sock is None:
            raise Problem(408, "the connection is gone")
        _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in self._people:
            if len(self._people) >= _MOST_NAMES:
                self._people.clear()
            self._people[uid] = (await asyncio.to_thread(owner, uid)).user
        return Identity(self._people[uid], Role.OPERATOR, way=Way.SOCKET)

    def _by_token(self, request: web.Request, secret: str) -> Identity:
        found = self.tokens.find(secret) if self.tokens is not None else None
        if found is None:
            wait_s = self.refused(request, "bearer")
            raise _too_many(wait_s) if wait_s > 0 else _unknown("this token is not known")
        return Identity(f"{found.name} (token)", found.role, way=Way.TOKEN)

    def _by_proxy(self, request: web.Request) -> Identity | None:
        proxy = self.settings.proxy if self.settings else None
        if proxy is None:
            return None
        told = [name for name in (proxy.user, proxy.groups) if name and name in request.headers]
        if not told:
            return None
        if not self.is_from_proxy(request):
            log.get().warning(log.HTTP_HEADER_REFUSED, header=told[0], address=_peer_address(request))
            raise Problem(403, f"the header {told[0]} is taken from the proxy alone", hint=_PROXY_HINT)
        users = request.headers.getall(proxy.user, [])
        if not users or users == [""]:  # the proxy has not signed this person in
            return None
        if len(users) > 1 or not _NAME.fullmatch(users[0]):
            raise Problem(400, f"the proxy's header {proxy.user} holds no single name")
        groups = ",".join(request.headers.getall(proxy.groups, [])) if proxy.groups else ""
        role = _role(proxy, users[0], {group.strip() for group in groups.split(",") if group.strip()})
        if self.settings is not None and self.settings.open_to_read:
            role = max(role, Role.READER)
        name = f"{users[0]} (proxy)"
        return Identity(name, role, self.sessions.csrf(f"proxy {name}"), Way.PROXY)

    def _by_session(self, request: web.Request) -> Identity | None:
        found = self.session(request)
        if found is None:
            return None
        session, token = found
        return Identity(
            f"{token.name} (signed in)", token.role, self.sessions.csrf(f"session {session.id}"), Way.SESSION
        )

    def _anybody(self) -> Identity:
        is_open = self.settings is not None and self.settings.open_to_read
        return Identity("", Role.READER if is_open else Role.NOBODY, self.sessions.csrf("anybody"))

    def session(self, request: web.Request) -> tuple[Session, AccessToken] | None:
        """Return the session that a request's cookie names, with its token, where both hold."""
        header = "; ".join(request.headers.getall("Cookie", []))
        value = cookie_of(header, self.cookie_name(request))
        session = self.sessions.read(value) if value else None
        token = self.tokens.marked(session.mark) if session and self.tokens else None
        return (session, token) if session and token else None

    # -- by which way ------------------------------------------------------------------------

    def is_from_proxy(self, request: web.Request) -> bool:
        """Tell whether the trusted proxy sent this."""
        proxy = self.settings.proxy if self.settings else None
        if proxy is None or is_own_socket(request):
            return False
        address = _peer_address(request)
        if address == "unix":
            return "unix" in proxy.from_
        return _is_in(address, self._networks)

    def is_secure(self, request: web.Request) -> bool:
        """Tell whether the browser came by https, as the proxy says."""
        return self.is_from_proxy(request) and request.headers.get("X-Forwarded-Proto") == "https"

    def cookie_name(self, request: web.Request) -> str:
        """Return the name of the session's cookie."""
        return SECURE_NAME if self.is_secure(request) else PLAIN_NAME

    def address(self, request: web.Request) -> str:
        """Return where a request came from: of those the proxy names, the last that is not a proxy itself."""
        if self.is_from_proxy(request):
            told = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
            for place in reversed(told):
                if _is_address(place.strip()) and not _is_in(place.strip(), self._networks):
                    return place.strip()
        return _peer_address(request)

    def refused(self, request: web.Request, how: str) -> float:
        """Note that a token was wrong: in the log, never with what was shown.

        Returns: seconds until another of that address is taken; 0: at once.
        """
        address = self.address(request)
        if self.limit.may_log(address):
            log.get().warning(log.HTTP_LOGIN_FAILED, address=address, how=how)
        return self.limit.wrong(address)

    # -- under which name, and from which page -----------------------------------------------

    def check_host(self, request: web.Request) -> None:
        """Refuse a request under a name that is not ours: a page elsewhere may point its name here.

        An address in place of a name is good: no page elsewhere has it as its own.
        Raises: Problem.
        """
        given = request.headers.getall("Host", [])
        if len(given) != 1:
            raise Problem(400, "one Host header is required")
        name = _host_of(given[0])
        if not name or not (name in self._hosts or _is_address(name)):
            raise Problem(
                403,
                "this address answers only under its own name",
                hint="Add the name to http: {names: [...]} in config.yaml",
            )

    def check_origin(self, request: web.Request) -> None:
        """Refuse what a page of another origin sends. Raises: Problem.

        Source: Fetch Metadata Request Headers, Sec-Fetch-Site; RFC 6454, 7.
        """
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        origin = request.headers.get("Origin")
        good = site in ("same-origin", "none")
        if origin is not None:
            netloc = urlsplit(origin).netloc.lower()
            names = {name.lower() for name in self.settings.names} if self.settings else set()
            # A proxy may put its own name for ours into Host: then the names of the settings count.
            good = (
                good
                and bool(netloc)
                and (netloc == request.headers.get("Host", "").lower() or _host_of(netloc) in names)
            )
        if not good:
            raise Problem(403, "this was sent by a page of another site")


_PROXY_HINT = "If it is the proxy that sent this, add its address to http: {proxy: {from: [...]}}"

ACCESS = web.AppKey("access", Access)


def is_own_socket(request: web.Request) -> bool:
    """Tell whether a request came by the daemon's own socket in state/."""
    transport = request.transport
    return transport is not None and is_own(transport)


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who asks, and refuse anyone who may not, before the handler runs."""
    access = request.app[ACCESS]
    request[IDENTITY] = Identity("", Role.NOBODY)  # until it is found out, for pages of errors
    if not is_own_socket(request):
        access.check_host(request)
    who = await access.identify(request)
    request[IDENTITY] = who
    if who.way is Way.AMBIENT or who.role is Role.NOBODY:
        return await _admit(request, handler)
    lines = request.app[LINES]
    lines.recognised(request.protocol)
    with lines.of(who.name):
        return await _admit(request, handler)


async def _admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let the handler run where who asks may, and a form is ours. Raises: Problem."""
    access, who = request.app[ACCESS], request[IDENTITY]
    found = request.match_info.handler
    if request.match_info.http_exception is not None:  # no such address: the handler says so
        return await handler(request)
    if request.method not in _SAFE and who.way is not Way.TOKEN:
        access.check_origin(request)
    require(request, identity_module.needed_by(found))
    if (
        request.method not in _SAFE
        and who.way not in (Way.TOKEN, Way.SOCKET)
        and not identity_module.checks_csrf_itself(found)
    ):
        check_csrf(request, await _sent(request))
    return await handler(request)


# A link in a mail or on another site: the browser has held the cookie back (SameSite=Strict), and sends
# it when the same page is asked for from here.
_AGAIN = '<!doctype html><title>dittohead</title><meta http-equiv="refresh" content="0;url={}">'


def require(request: web.Request, role: Role) -> None:
    """Refuse who may do less than `role`. Raises: Problem, or a redirection to the sign-in page."""
    who = request[IDENTITY]
    if who.role >= role:
        return
    if who.way is Way.AMBIENT:
        if wants_page(request) and request.method in _SAFE:
            if request.headers.get("Sec-Fetch-Site") == "cross-site":
                raise web.HTTPOk(text=_AGAIN.format(html.escape(request.path_qs)), content_type="text/html")
            raise web.HTTPSeeOther(f"/login?{urlencode({'next': request.path_qs})}")
        raise _unknown("this needs a token" if role > Role.READER or not who.role else "sign in first")
    raise Problem(403, f"{who.name} may not do this; it needs the role {role.name.lower()}")


async def may_still(request: web.Request) -> bool:
    """Tell whether who asked may do as much now: of an answer that goes on for long."""
    try:
        who = await request.app[ACCESS].identify(request)
    except Problem:
        return False
    return who.role >= request[IDENTITY].role


def check_csrf(request: web.Request, given: str) -> None:
    """Refuse a form that is not ours. Raises: Problem.

    Args:
        given: what the form sent as `csrf`; "" where it came in the header X-CSRF-Token, if at all.
    """
    wanted = request[IDENTITY].csrf
    given = given or request.headers.get("X-CSRF-Token", "")
    if not wanted or not hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
        raise Problem(403, "this form is not of this session", hint="Load the page again, and repeat it")


async def form(request: web.Request) -> dict[str, str]:
    """Return the fields of a plain form. Raises: Problem: it does not come to its end in time."""
    limit_s = _STRANGERS_FORM_S if request[IDENTITY].way is Way.AMBIENT else _FORM_S
    try:
        async with asyncio.timeout(limit_s):
            found = await request.post()
    except TimeoutError:
        raise Problem(408, "the form did not come to its end") from None
    return {key: value for key, value in found.items() if isinstance(value, str)}


async def _sent(request: web.Request) -> str:
    if request.content_type != "application/x-www-form-urlencoded":
        return ""
    return (await form(request)).get("csrf", "")


def _unknown(detail: str) -> Problem:
    headers = {"WWW-Authenticate": 'Bearer realm="dittohead"'}
    return Problem(401, detail, hint="Send a token as Authorization: Bearer, or sign in", headers=headers)


def _too_many(wait_s: float) -> Problem:
    return Problem(
        429,
        "this token is not known, and there were too many wrong ones",
        hint="A right token is taken at any time",
        headers={"Retry-After": str(math.ceil(wait_s))},
    )


def _bearer(request: web.Request) -> str | None:
    """Return the token sent with a request. Other schemes are the proxy's business, and left alone."""
    given = request.headers.getall("Authorization", [])
    parts = [value.partition(" ") for value in given]
    tokens = [token.strip() for scheme, _, token in parts if scheme.lower() == "bearer"]
    if len(tokens) > 1:
        raise Problem(400, "one token is required")
    return tokens[0] if tokens else None


def _role(proxy: Proxy, user: str, groups: set[str]) -> Role:
    known = {"*", user, *(f"@{group}" for group in groups)}
    if known.intersection(proxy.operators):
        return Role.OPERATOR
    return Role.READER if known.intersection(proxy.readers) else Role.NOBODY


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(proxy: Proxy) -> list[_Network]:
    return [ipaddress.ip_network(place) for place in proxy.from_ if place != "unix"]


def _is_in(address: str, networks: list[_Network]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in networks)


def _peer_address(request: web.Request) -> str:
    """Return the address at the other end of the connection; "unix" for a unix socket."""
    peer = request.transport and request.transport.get_extra_info("peername")
    return str(peer[0]).partition("%")[0] if isinstance(peer, tuple) and peer else "unix"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")


def _host_of(netloc: str) -> str:
    """Return the name of "NAME:PORT", small and without brackets; "" where it is none."""
    found = _HOST.fullmatch(netloc)
    return found[1].strip("[]").rstrip(".").lower() if found else ""
