"""Lists of checksums as `md5sum` and `sha256sum` write and read them: a digest and a name on each line.

Source: GNU coreutils manual, "md5sum invocation": HEX, a blank, a blank or an asterisk, the name; with a
backslash in front where the name holds an escaped backslash, LF or CR.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from dittohead.model.text import display, visible

#: The digest that has so many hex digits.
ALGORITHMS = {32: "md5", 64: "sha256"}

#: Names that a reason gives; the rest is counted.
_NAMED = 5

_LINE = re.compile(rb"(\\?)([0-9A-Fa-f]+) [ *](.+)", re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}


class Unreadable(ValueError):
    """The list is not one; says which line."""


@dataclass(frozen=True, kw_only=True)
class ChecksumList:
    """What a list says."""

    algorithm: str  #: "md5" or "sha256"
    digests: dict[bytes, str] = field(default_factory=dict)  #: path -> lower-case hex digits


def parsed(data: bytes) -> ChecksumList:
    """Return what a list says of each file; a leading `./` of a name is left out.

    Raises: Unreadable: a line is not a digest with a name, a name stands there twice with two digests, the
        digests are of several kinds, or there is none.
    """
    digests: dict[bytes, str] = {}
    algorithms: set[str] = set()
    for number, line in enumerate(data.split(b"\n"), 1):
        line = line.removesuffix(b"\r")
        if not line.strip():
            continue
        algorithm, name, digest = _entry(line, number)
        algorithms.add(algorithm)
        if digests.setdefault(name, digest) != digest:
            raise Unreadable(f"line {number} gives a file another digest than a line before")
    if len(algorithms) != 1:
        raise Unreadable("it holds digests of several kinds" if algorithms else "it is empty")
    return ChecksumList(algorithm=algorithms.pop(), digests=digests)


def _entry(line: bytes, number: int) -> tuple[str, bytes, str]:
    found = _LINE.fullmatch(line)
    algorithm = ALGORITHMS.get(len(found[2])) if found else None
    if found is None or algorithm is None:
        raise Unreadable(f"line {number} is not a digest, two blanks and a name")
    name = found[3]
    if found[1]:
        name = _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[0]), name)
    return algorithm, name.removeprefix(b"./"), found[2].decode("ascii").lower()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where files and a list do not agree."""

    missing: list[bytes]  #: the list names it, and it is not there
    extra: list[bytes]  #: it is there, and the list does not name it
    changed: list[bytes]  #: its digest is another

    def __bool__(self) -> bool:
        return bool(self.missing or self.extra or self.changed)

    def __str__(self) -> str:
        kinds = (
            ("not there", self.missing),
            ("not in the list", self.extra),
            ("with another digest", self.changed),
        )
        return "; ".join(f"{len(paths):,} {what} ({named(paths)})" for what, paths in kinds if paths)


def named(paths: Sequence[bytes]) -> str:
    """Return a few of many names, for a reason."""
    shown = ", ".join(visible(display(path)) for path in paths[:_NAMED])
    return shown + (f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else "")


def compared(listed: ChecksumList, found: dict[bytes, str]) -> Difference:
    """Compare a list with the digests of the files that are there, by path; all in the order of names.

    Args:
        found: path -> lower-case hex digits of the list's algorithm; without the list itself.
    """
    wanted = listed.digests
    return Difference(
        missing=sorted(wanted.keys() - found.keys()),
        extra=sorted(found.keys() - wanted.keys()),
        changed=sorted(path for path in wanted.keys() & found.keys() if wanted[path] != found[path]),
    )
