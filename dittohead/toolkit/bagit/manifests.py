"""The lines of payload manifests, tag manifests and `fetch.txt`. Source: RFC 8493, 2.1.3, 2.2.1, 2.2.3."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

_MANIFEST = re.compile(rb"(tag)?manifest-([A-Za-z0-9_-]+)\.txt")
_LINE = re.compile(r"([0-9A-Fa-f]+)[ \t]+(.+)", re.DOTALL)
_FETCH = re.compile(r"(\S+)[ \t]+([0-9]{1,18}|-)[ \t]+(.+)", re.DOTALL)

#: What a manifest writes in place of CR, LF and the percent sign. Source: RFC 8493, 2.1.3.
_CODED = re.compile(rb"%(0[DdAa]|25)")
_CODES = {b"0d": b"\r", b"0a": b"\n", b"25": b"%"}

#: A longer line names no file that there can be. Characters.
_LONGEST = 1 << 16


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


#: Python's name of each algorithm, by the name in a manifest's file name without punctuation.
#: Source: RFC 8493, 2.4: names are written without punctuation, such as sha256.
ALGORITHMS = {
    _plain(name): name for name in sorted(hashlib.algorithms_guaranteed) if not name.startswith("shake")
}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest of the bag, by its file's name."""

    path: bytes  #: within the bag
    algorithm: str  #: as `hashlib` names it; "" where it is unknown
    called: str  #: as the file's name has it
    is_tag: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestLine:
    """One file that a manifest lists."""

    number: int  #: of the line, from 1
    path: bytes  #: as it is written
    digest: bytes  #: empty where its length does not fit the algorithm
    marked: bool = False  #: an asterisk stands before the path, as md5sum writes it


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchLine:
    """One file that `fetch.txt` lists."""

    number: int
    url: str
    size: int | None  #: bytes; None where it says none
    path: bytes


class BadLine(ValueError):
    """A line is not what the format allows; says which."""


def manifest(name: bytes) -> Manifest | None:
    """Return what a file at the top of a bag is as a manifest; None for other files."""
    found = _MANIFEST.fullmatch(name)
    if found is None:
        return None
    called = found[2].decode("ascii")
    return Manifest(
        path=name, algorithm=ALGORITHMS.get(_plain(called), ""), called=called, is_tag=bool(found[1])
    )


def _texts(file: IO[bytes], encoding: str) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of lines that are not blank. Raises: BadLine."""
    number = 0
    try:
        with io.TextIOWrapper(file, encoding=encoding, errors=_errors(encoding)) as text:
            while line := text.readline(_LONGEST):
                number += 1
                if len(line) == _LONGEST:
                    raise BadLine(f"line {number} is too long")
                if line.strip():
                    yield number, line.removesuffix("\n")
    except UnicodeError:
        raise BadLine(f"line {number + 1} is not {encoding.upper()}") from None


def _errors(encoding: str) -> str:
    return "surrogateescape" if encoding == "utf-8" else "strict"  # a name on disk may not be UTF-8


def lines(file: IO[bytes], encoding: str, algorithm: str) -> Iterator[ManifestLine]:
    """Yield what a manifest lists.

    Args:
        file: the manifest, from its beginning; closed at the end.
        encoding: of the bag's tag files.
        algorithm: as `hashlib` names it.

    Raises: BadLine: a line is not a digest and a path.
    """
    size = hashlib.new(algorithm, usedforsecurity=False).digest_size
    for number, line in _texts(file, encoding):
        found = _LINE.fullmatch(line)
        if found is None:
            raise BadLine(f"line {number} is not a digest and a path")
        digest = bytes.fromhex(found[1]) if len(found[1]) == 2 * size else b""
        path = found[2].encode("utf-8", "surrogateescape")
        marked = path.startswith(b"*")
        yield ManifestLine(number=number, path=path[1:] if marked else path, digest=digest, marked=marked)


def fetches(file: IO[bytes], encoding: str) -> Iterator[FetchLine]:
    """Yield what `fetch.txt` lists.

    Args:
        file: from its beginning; closed at the end.
        encoding: of the bag's tag files.

    Raises: BadLine: a line is not a URL, a length and a path.
    """
    for number, line in _texts(file, encoding):
        found = _FETCH.fullmatch(line)
        if found is None:
            raise BadLine(f"line {number} is not a URL, a length and a path")
        path = found[3].encode("utf-8", "surrogateescape")
        size = None if found[2] == "-" else int(found[2])
        yield FetchLine(number=number, url=found[1], size=size, path=path)


def decoded(path: bytes) -> bytes:
    """Return a path of a manifest with CR, LF and the percent sign in place of their codes."""
    return _CODED.sub(lambda found: _CODES[found[1].lower()], path)


def encoded(path: bytes) -> bytes:
    """Return a path as a manifest of version 1.0 writes it."""
    return path.replace(b"%", b"%25").replace(b"\r", b"%0D").replace(b"\n", b"%0A")


def plain(path: bytes) -> bytes:
    """Return a path without `./` at its beginning."""
    while path.startswith(b"./"):
        path = path[2:].lstrip(b"/")
    return path


def outside(path: bytes) -> str:
    """Return why a path leads, or could lead, out of the bag; "" where it does not.

    Source: RFC 8493, 5.2: no absolute paths, no `..`, no `~`, none of the operating system's special names.
    """
    if path.startswith(b"/"):
        return "it is absolute"
    if b".." in path.split(b"/"):
        return 'it has ".." in it'
    if path.startswith(b"~"):
        return 'it begins with "~"'
    if path.startswith(b"\\") or re.match(rb"[A-Za-z]:[\\/]", path):
        return "it is absolute on Windows"
    return ""
