"""How names, moments and counts are written: for people, for a shell, in JSON."""

from __future__ import annotations

import grp
import os
import shlex
import textwrap
from datetime import UTC, datetime
from typing import overload
from urllib.parse import quote_from_bytes


def utcnow() -> datetime:
    """Return the present moment, aware, UTC."""
    return datetime.now(UTC)


def display(name: bytes) -> str:
    """Return a name for people: UTF-8 text, or percent-encoded when it is not UTF-8."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return quote_from_bytes(name, safe="/ ")


def visible(text: str, *, but: str = "") -> str:
    """Return text without control characters and lone surrogates, each shown as an escape.

    A line break in a name would forge lines of a mail or a reason, an escape sequence would write to a
    reader's terminal, and a lone surrogate (a byte that is not UTF-8) cannot be stored or sent at all.
    """
    return "".join(c if c.isprintable() or c in but else repr(c)[1:-1] for c in text)


def short(text: str) -> str:
    """Return a server's words as one line that fits a reason, a receipt and a mail."""
    return textwrap.shorten(visible(" ".join(text.split())), 300, placeholder=" ...")


def counted(count: int, noun: str) -> str:
    """Return a number with its noun for people, as "1 file" or "1,200 files"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def own_group() -> str:
    """Return the name of the daemon's group, as a word of a command line; its number where it has none."""
    try:
        return shell_word(os.fsencode(grp.getgrgid(os.getegid()).gr_name))
    except KeyError:
        return str(os.getegid())


def shell_word(path: bytes) -> str:
    """Return a path as one word of a shell's command line, exact to the byte, in printable text.

    Source: POSIX.1-2024, 2.2.4 "Dollar-Single-Quotes"; bash, zsh and ksh have long had them.
    """
    text = path.decode("utf-8", "surrogateescape")
    if text.isprintable():
        return shlex.quote(text)
    # Three octal digits: a hexadecimal escape would swallow digits that follow it.
    shown = "".join(
        c if c.isprintable() and c not in "\\'" else "".join(f"\\{byte:03o}" for byte in os.fsencode(c))
        for c in text
    )
    return f"$'{shown}'"


def is_utf8(name: bytes) -> bool:
    """Tell whether the name can be written as text."""
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@overload
def rfc3339(moment: datetime) -> str: ...
@overload
def rfc3339(moment: None) -> None: ...
@overload
def rfc3339(moment: datetime | None) -> str | None: ...
def rfc3339(moment: datetime | None) -> str | None:
    """Return the moment as RFC 3339 in UTC with milliseconds, or None."""
    if moment is None:
        return None
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def host_name() -> str:
    """Return this host's name, as receipts give it."""
    return os.uname().nodename
