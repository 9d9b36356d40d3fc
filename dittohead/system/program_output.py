"""What programs print, on its way to people: credentials masked, the step's log bounded."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO
from urllib.parse import quote_from_bytes

#: A secret, or a line of one, that is shorter would mask half of every line.
LEAST = 4

#: Bytes of one try's output that its step's log keeps; of more, only the end.
MOST = 64 << 20

_END = 64 * 1024
_PERCENT = re.compile(rb"%..")
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_STARS = b"***"


class Mask:
    """Strikes secrets out of text: each whole one, as such or as programs write it, and each of its lines.

    A URL has it percent-encoded, a header `Authorization: Basic` in base64 behind a name, JSON, HTML and
    debug output with escapes. To be used before anything is cut: of a secret that is cut first, the rest
    would be shown.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        given = [secret.strip().encode() for secret in secrets]
        lines = [line.strip() for secret in given for line in secret.splitlines()]
        forms = [form for secret in given if len(secret) >= LEAST for form in _forms(secret)]
        self._pieces = {piece for piece in (*lines, *forms) if len(piece) >= LEAST}
        self.longest = max(map(len, self._pieces), default=0)

    def __call__(self, text: str) -> str:
        """Return text without the secrets."""
        return self.raw(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")

    def raw(self, data: bytes, *, cut: bool = False) -> bytes:
        """Return bytes without the secrets.

        Args:
            cut: something stood before them, which may have ended within a secret.
        """
        stream = MaskedStream(self, covered=min(self.longest, len(data)) if cut else 0)
        return stream.add(data) + stream.end()

    def found(self, data: bytes, before: int) -> list[tuple[int, int]]:
        """Return where secrets stand that begin before an offset: (start, end), joined where they overlap."""
        found: list[tuple[int, int]] = []
        for start, end in sorted(place for piece in self._pieces for place in _places(piece, data, before)):
            if found and start < found[-1][1]:
                found[-1] = (found[-1][0], max(end, found[-1][1]))
            else:
                found.append((start, end))
        return found


def _forms(secret: bytes) -> Iterator[bytes]:
    """Yield a secret as it is, and as programs write it into URLs, headers, JSON, pages and dumps."""
    text = secret.decode("utf-8", "surrogateescape")
    written = [text, html.escape(text), html.escape(text, quote=False), repr(text)[1:-1]]
    written += [json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]
    yield from (form.encode("utf-8", "surrogateescape") for form in written)
    for safe in ("", "/", "!*'()", "!~*'()/:@,;&=+$"):
        quoted = quote_from_bytes(secret, safe=safe).encode()
        yield from (quoted, quoted.replace(b"%20", b"+"), _PERCENT.sub(lambda m: m[0].lower(), quoted))
    yield from (secret.hex().encode(), secret.hex().upper().encode())
    for before in range(3):  # what stands before it shifts its letters
        coded = base64.b64encode(b"\0" * before + secret).rstrip(b"=")
        # Those at its two ends are made of its neighbours' bits as well.
        coded = coded[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        yield from (coded, coded.translate(_URL_SAFE))


def _places(piece: bytes, data: bytes, before: int) -> Iterable[tuple[int, int]]:
    at = data.find(piece)
    while 0 <= at < before:
        yield at, at + len(piece)
        at = data.find(piece, at + 1)


class MaskedStream:
    """Masks bytes that come in pieces, also a secret that is cut between two of them."""

    def __init__(self, mask: Mask, covered: int = 0) -> None:
        self._mask = mask
        self._rest = b""
        self._covered = covered  #: bytes of the rest that belong to a secret masked already

    def add(self, data: bytes) -> bytes:
        """Take a piece; return what can be shown so far."""
        self._rest += data
        # What might be the beginning of a secret is kept back until the next piece.
        return self._until(max(len(self._rest) - max(self._mask.longest - 1, 0), 0))

    def end(self) -> bytes:
        """Return what was kept back."""
        return self._until(len(self._rest))

    def _until(self, limit: int) -> bytes:
        shown, at = [], min(self._covered, limit)
        reached = self._covered
        for start, end in self._mask.found(self._rest, limit):
            if start >= reached:
                shown += [self._rest[at:start], _STARS]
            reached = max(reached, end)
            at = min(reached, limit)
        shown.append(self._rest[at:limit])
        self._rest, self._covered = self._rest[limit:], max(reached - limit, 0)
        return b"".join(shown)


class StepLog:
    """Adds what a program prints to its step's log.

    It is for people, and decides nothing: where it cannot be written (a full disk), the step goes on,
    and it is the step's own files that report the disk's state.
    """

    def __init__(self, path: Path, mask: Mask | None = None, most: int = MOST) -> None:
        self._stream = MaskedStream(mask or Mask())
        self._file = opened(path)
        self._room, self._end = most, bytearray()
        self._lost = 0  #: bytes that the log does not hold

    def write(self, data: bytes) -> None:
        """Add some bytes; they are in the file at once, for people look on while a program runs."""
        self._keep(self._stream.add(data))

    def close(self) -> None:
        """Add what was kept back, and how much is missing."""
        self._keep(self._stream.end())
        end = bytes(self._end)
        if self._lost > len(end):
            self._put(f"\n[{self._lost - len(end):,} bytes more were printed, and are not kept]\n".encode())
        self._put(end)
        with contextlib.suppress(OSError):
            self._file.close()

    def _keep(self, data: bytes) -> None:
        now, later = data[: self._room], data[self._room :]
        self._room -= len(now)
        self._put(now)
        self._lost += len(later)
        self._end += later
        del self._end[:-_END]

    def _put(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._file.write(data)


def opened(path: Path) -> IO[bytes]:
    """Open a step's log to add to it, unbuffered; where that cannot be, what is written goes nowhere."""
    try:
        return open(path, "ab", buffering=0)
    except OSError:
        return open(os.devnull, "ab", buffering=0)
