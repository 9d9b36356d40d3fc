"""Addresses in the web as they are written down: nothing in them that RFC 3986 does not allow.

What people and their systems give as an address may hold spaces, letters of all scripts, brackets, or a
percent sign that encodes nothing. Readers of what we write refuse these, or correct them in their own ways.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import quote, urlsplit

from pydantic import HttpUrl, TypeAdapter

#: Scheme and authority, and what follows (RFC 3986, appendix B).
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(#.*)?", re.DOTALL)

#: What stays as it is in a path and in a query (RFC 3986, 3.3 and 3.4), and the sign of what is encoded.
_KEPT = "/?:@!$&'()*+,;=~%"

#: Likewise in an authority (RFC 3986, 3.2): brackets are those of an IPv6 address.
_KEPT_HOST = ":@!$&'()*+,;=~%[]"

#: A percent sign that encodes nothing (RFC 3986, 2.1).
_STRAY = re.compile(r"%(?![0-9A-Fa-f]{2})")

#: Lone surrogates that stand for no byte of a name.
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")

#: Names in the DNS, as URIs of the web have them.
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")

#: Addresses, and names of hosts, as browsers read them (https://url.spec.whatwg.org/, 3 and 4.4).
_BROWSERS: TypeAdapter[HttpUrl] = TypeAdapter(HttpUrl)

_PLACEHOLDER = re.compile(r"\{[^{}]*\}")


def encoded(uri: str) -> str:
    """Return a URI in which what may not stand in one is percent-encoded; what is encoded stays so.

    A host in letters beyond ASCII is written in the form that name servers know (Unicode TS 46).
    """
    found = _PARTS.fullmatch(uri)
    if found is None:
        return _quoted(uri, _KEPT + "#[]")
    scheme, authority, rest, fragment = found.groups()
    more = "#" + _quoted(fragment[1:], _KEPT) if fragment else ""
    return f"{scheme.lower()}://{_quoted(_ascii(authority), _KEPT_HOST)}{_quoted(rest, _KEPT)}{more}"


def web_address(text: str) -> str:
    """Return what people gave as an address in the web, encoded; "" when it is none.

    It is one by http or https, with a host and, where it names one, a port; a user's name or password is
    nothing to be written down.
    """
    uri = encoded(text.strip())
    try:
        parts = urlsplit(uri)
        _BROWSERS.validate_python(uri)
        is_one = parts.port != 0 and _is_host(parts.hostname or "")
    except ValueError:
        return ""
    return uri if is_one and parts.scheme in ("http", "https") and "@" not in parts.netloc else ""


def is_template(text: str) -> bool:
    """Tell whether a template with `{placeholders}` makes addresses in the web."""
    return bool(web_address(_PLACEHOLDER.sub("x", text)))


def _quoted(text: str, kept: str) -> str:
    text = _NO_BYTE.sub("\ufffd", _STRAY.sub("%25", text))
    return quote(text, safe=kept, errors="surrogateescape")


def _ascii(authority: str) -> str:
    if authority.isascii() or "@" in authority:
        return authority
    host, colon, port = authority.partition(":")
    try:
        known = _BROWSERS.validate_python(f"http://{host}/").host
    except ValueError:  # no name that a name server could know
        return authority
    return f"{known}{colon}{port}"


def _is_host(host: str) -> bool:
    if ":" in host:
        return bool(ipaddress.IPv6Address(host))
    labels = host.removesuffix(".").split(".")
    if labels[-1].isdecimal():  # to browsers, what ends in a number is an IPv4 address
        return bool(ipaddress.IPv4Address(host))
    return len(host) < 254 and all(_NAME.fullmatch(label) and len(label) < 64 for label in labels)
