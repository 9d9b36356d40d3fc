"""Addresses: what is not an address is told from what only has to be encoded."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dittohead.toolkit.uris import encoded, is_template, web_address

#: RFC 3986, appendix A.
URI = re.compile(
    r"[a-z][a-z0-9+.-]*://(([\w.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2}|[\[\]])*)"
    r"((/|[\w.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)(\?([\w.~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
    r"(#([\w.~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?",
    re.ASCII,
)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("https://h.example/a b", "https://h.example/a%20b"),
        ("https://h.example/a%20b", "https://h.example/a%20b"),
        ("https://h.example/100% wool", "https://h.example/100%25%20wool"),
        ("https://h.example/100%", "https://h.example/100%25"),
        ("https://h.example/[x]?a[]=[b]#c[d]#e", "https://h.example/%5Bx%5D?a%5B%5D=%5Bb%5D#c%5Bd%5D%23e"),
        ("https://h.example/ü\udcff\ud800", "https://h.example/%C3%BC%FF%EF%BF%BD"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://straße.example:8443/", "https://xn--strae-oqa.example:8443/"),
        ("HTTPS://h.example/X", "https://h.example/X"),
        ("http://[2001:db8::1]:80/x", "http://[2001:db8::1]:80/x"),
        ("https://h.example", "https://h.example"),
    ],
)
def test_what_may_not_stand_in_an_address_is_encoded(given: str, wanted: str) -> None:
    """Once: what is encoded already stays."""
    assert encoded(given) == web_address(given) == wanted
    assert encoded(wanted) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "x", "www.example.org", "//h.example/", "ftp://h.example/", "javascript:alert(1)", "https://",
        "http:///x", "https://?q", "https://h:x/", "https://h:99999/", "https://h:0/", "https://[::1", "https://[x]/",
        "https://a b/", "https://a..b/", "https://.a/", "https://1.2.3/", "https://1.2.3.999/", "https://-/",
        "https://\u0378.example/", "https://xn--h34d/", "https://user@h.example/", "https://user:word@h.example/", f"https://{'x' * 64}.example/",
    ],
)  # fmt: skip
def test_what_is_no_address_in_the_web_is_told(text: str) -> None:
    assert web_address(text) == ""


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_else_than_a_uri_comes_out(text: str) -> None:
    """Whatever goes in; and what is encoded twice is what is encoded once."""
    assert URI.fullmatch(encoded(f"https://h.example/{text}"))
    for made in (encoded(f"https://{text}"), web_address(f"https://{text}")):
        assert not made or URI.fullmatch(made)
        assert encoded(made) == made


def test_a_template_is_an_address_once_it_is_filled_in() -> None:
    assert is_template("https://h.example/{name}/{path}")
    assert is_template("https://{host}.example/{path}")
    assert not is_template("{path}")
    assert not is_template("h.example/{path}")
