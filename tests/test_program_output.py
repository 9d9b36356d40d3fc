"""What programs print: secrets never, in whatever pieces it comes; never too much; never a reason to fail."""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dittohead.system.program_output import Mask, MaskedStream, StepLog

PEM = "-----BEGIN KEY-----\nLINEONEsecret\n  LINETWOsecret  \r\nabc\n-----END KEY-----\n"


def test_each_line_of_a_secret_is_masked_alone() -> None:
    """A key is printed line by line, by grep or sed or an error message that repeats one."""
    mask = Mask([PEM, "tok$n"])
    assert mask("x LINETWOsecret y tok$n z\nLINEONEsecret") == "x *** y *** z\n***"
    assert mask(PEM) == "***\n"
    assert mask("abc is a word") == "abc is a word"


#: How programs write what they were given.
WAYS: dict[str, Callable[[str], str]] = {
    "Basic": lambda s: "Authorization: Basic " + base64.b64encode(f"user:{s}".encode()).decode(),
    "Bearer": lambda s: f"authorization: Bearer {s}",
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 in more": lambda s: base64.b64encode(f'{{"k":"{s}"}}'.encode()).decode(),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(f"x{s}".encode()).decode(),
    "URL": lambda s: f"https://u:{quote(s, safe='')}@host/",
    "URL, small letters": lambda s: re.sub("%..", lambda m: m[0].lower(), quote(s, safe="")),
    "query": lambda s: f"?token={quote_plus(s)}",
    "path": lambda s: quote(s),
    "encodeURIComponent": lambda s: quote(s, safe="!~*'()"),
    "JSON": lambda s: json.dumps({"k": s}),
    "JSON, UTF-8": lambda s: json.dumps({"k": s}, ensure_ascii=False),
    "HTML": html.escape,
    "repr": lambda s: repr({"k": s}),
    "hexadecimal": lambda s: s.encode().hex(),
    "HEXADECIMAL": lambda s: s.encode().hex().upper(),
}


def shown(way: str, text: str, secret: str) -> bool:
    """Tell whether somebody could read it back from what was printed."""
    if way.startswith(("base64", "Basic")):
        word = text.rpartition(" ")[2]
        rests = [rest[at:] for rest in re.split(r"[*=]+", word) for at in range(4)]
        pieces = [base64.b64decode(rest[: len(rest) // 4 * 4], b"-_") for rest in rests]
        return any(secret.encode()[n : n + 3] in piece for piece in pieces for n in range(len(secret) - 2))
    return WAYS[way](secret) in text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "secret", ['pa ss/w+"rd&=<é>\\x', "hunter2-hunter2", "12345678", "a%20b?c~d~", "ü'ü\"ü"]
)
def test_a_secret_is_masked_however_programs_write_it(way: str, secret: str) -> None:
    mask = Mask([secret])
    printed = WAYS[way](secret)
    said = mask(f"before {printed}")
    assert "***" in said
    assert not shown(way, said, secret)
    stream = MaskedStream(mask)
    pieces = [stream.add(bytes([byte])) for byte in f"before {printed}".encode()]
    assert (b"".join(pieces) + stream.end()).decode() == said


def test_secrets_that_overlap_leave_no_rest() -> None:
    """One that begins with another, or within another."""
    mask = Mask(["abcd", "abcdefgh", "ghijkl"])
    assert mask("1 abcdefghijkl 2 abcd 3 abcde") == "1 *** 2 *** 3 ***e"


def test_what_was_cut_before_shows_no_end_of_a_secret() -> None:
    """Of a program's output only the end is kept; it may begin within a secret."""
    mask = Mask(["0123456789"])
    assert mask.raw(b"56789 rest of what was printed and 0123456789", cut=True) == b"as printed and ***"
    assert mask.raw(b"56", cut=True) == b""


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is not an error
@given(
    st.lists(st.text("abcd", min_size=4, max_size=9), max_size=3),
    st.lists(st.text("abcd-", max_size=12), max_size=20),
)
def test_pieces_are_masked_as_the_whole_is(secrets: list[str], pieces: list[str]) -> None:
    """However it is cut: the same comes out, and no secret."""
    mask = Mask(secrets)
    stream = MaskedStream(mask)
    shown = b"".join(stream.add(piece.encode()) for piece in pieces) + stream.end()
    assert shown.decode() == mask("".join(pieces))
    assert not any(secret in shown.decode() for secret in secrets)


def test_a_log_keeps_the_beginning_and_the_end_of_what_is_printed_without_end(tmp_path: Path) -> None:
    """A program in a loop does not fill the disk."""
    log = StepLog(tmp_path / "log", most=1000)
    for number in range(100_000):
        log.write(b"%07d\n" % number)
    log.close()
    text = (tmp_path / "log").read_text()
    assert text.startswith("0000000\n0000001\n")
    assert text.endswith("0099998\n0099999\n")
    assert f"[{800_000 - 1000 - 64 * 1024:,} bytes more were printed, and are not kept]" in text
    assert len(text) < 70_000


def test_a_log_that_cannot_be_opened_or_written_stops_nothing(tmp_path: Path) -> None:
    """A full disk, a directory that has gone."""
    for path in (tmp_path / "gone" / "log", Path("/dev/full")):
        log = StepLog(path)
        log.write(b"x" * 100_000)
        log.close()
    assert os.listdir(tmp_path) == []
