r"""Lists of checksums that people and programs send with files: a digest and a name for each.

Read are lines as GNU coreutils write them (`HEX  NAME`, with a backslash in front where the name holds an
escaped backslash, LF or CR), as BSD and OpenSSL do (`SHA256 (NAME) = HEX`), and tables of columns divided by
commas, semicolons or tabs. Source: GNU coreutils manual, "md5sum invocation" and "cksum invocation";
openssl-dgst(1).
"""

from __future__ import annotations

import codecs
import csv
import fnmatch
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from dittohead.model.text import display, visible

#: The digest that has this many hex digits; of two of one length the one that such lists hold.
ALGORITHMS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}

#: How lists are called, in small letters; within any folder.
NAMES = (
    *("md5sum*", "sha*sum*", "*.md5", "*.sha1", "*.sha224", "*.sha256", "*.sha384", "*.sha512"),
    *("checksum.*", "checksums.*", "manifest-md5.txt", "manifest-sha*.txt"),
)

#: Names that a reason gives; the rest is counted.
_NAMED = 5

#: A longer line names no file that there can be; a list that is but a digest is shorter. Bytes.
_LONGEST, _ALONE_MOST = 1 << 16, 1 << 10

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_LINE = re.compile(rb"(\\?)([0-9A-Fa-f]+)(?: [ *]|[ \t]+\*?)(.+)", re.DOTALL)
_BSD = re.compile(rb"(\\?)([A-Za-z0-9/-]+) ?\((.+)\) ?= ?([0-9A-Fa-f]+)", re.DOTALL)
_ALONE = re.compile(rb"\s*([0-9A-Fa-f]+)\s*")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPED = {b"\\": b"\\", b"n": b"\n", b"r": b"\r"}
_HEX = re.compile(r"[0-9A-Fa-f]+")

#: What the columns of a table are called, in small letters without punctuation.
_NAMES = ("file", "filename", "filepath", "path", "name", "relativepath")
_DIGESTS = ("checksum", "digest", "hash", "hashvalue", *ALGORITHMS.values())


class UnreadableList(ValueError):
    """The list is not one; says which line."""


@dataclass(frozen=True, kw_only=True)
class ChecksumList:
    """What a list says."""

    algorithm: str  #: as `hashlib` names it, such as "sha256"
    digests: dict[bytes, str] = field(default_factory=dict)  #: path -> lower-case hex digits


@dataclass(frozen=True, kw_only=True, slots=True)
class ListEntry:
    """What one line of a list says."""

    number: int  #: of the line, from 1
    path: bytes
    digest: str  #: lower-case hex digits
    algorithm: str  #: as `hashlib` names it


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    number: int
    path: bytes
    digest: bytes


def is_called_so(path: bytes, patterns: Sequence[str] = NAMES) -> bool:
    """Tell whether a file is a list, by its name.

    Args:
        path: in the folder.
        patterns: of names, or of paths where a pattern has a slash; capitals do not matter.
    """
    text = path.decode("utf-8", "surrogateescape").lower()
    name = text.rpartition("/")[2]
    return any(fnmatch.fnmatchcase(text if "/" in one else name, one.lower()) for one in patterns)


def parsed(data: bytes, of: bytes = b"") -> ChecksumList:
    """Return what a list says of each file; a leading `./` of a name is left out.

    Args:
        data: the list.
        of: the file that a list means which holds nothing but a digest; b"" where it may not.

    Raises: Unreadable: a line is not a digest with a name, a name stands there twice with two digests, the
        digests are of several kinds, or there is none.
    """
    digests: dict[bytes, str] = {}
    algorithm = ""
    for entry in entries(io.BytesIO(data), of):
        algorithm = entry.algorithm
        if digests.setdefault(entry.path, entry.digest) != entry.digest:
            raise contradiction(entry.number)
    return ChecksumList(algorithm=algorithm, digests=digests)


def contradiction(number: int) -> UnreadableList:
    """Return the error of a list that says two things of one file."""
    return UnreadableList(f"line {number} gives a file another digest than a line before")


def entries(file: IO[bytes], of: bytes = b"") -> Iterator[ListEntry]:
    """Yield what a list says, line by line, so that a list of any length needs little memory.

    Args:
        file: the list, from its beginning.
        of: as for `parsed`.

    Raises: Unreadable: as `parsed`, at the line in question; a name that stands there twice is yielded twice.
    """
    head = file.read(_ALONE_MOST + 1) if of else b""
    found = _ALONE.fullmatch(_as_utf8(head)) if 0 < len(head) <= _ALONE_MOST else None
    file.seek(0)
    first = ""
    for entry in [_Entry(number=1, path=of, digest=found[1])] if found else _entries(_lines(file)):
        algorithm = ALGORITHMS.get(len(entry.digest))
        if algorithm is None:
            raise _not_one(entry.number)
        if algorithm != (first := first or algorithm):
            raise UnreadableList("it holds digests of several kinds")
        yield ListEntry(
            number=entry.number,
            path=entry.path.removeprefix(b"./"),
            digest=entry.digest.decode("ascii").lower(),
            algorithm=algorithm,
        )
    if not first:
        raise UnreadableList("it is empty")


def _not_one(number: int) -> UnreadableList:
    return UnreadableList(f"line {number} is not a digest, two blanks and a name")


def _as_utf8(data: bytes) -> bytes:
    """Return a list without its byte order mark; one in UTF-16, as Windows writes it, in UTF-8."""
    if data.startswith(_UTF16):
        try:
            return data.decode("utf-16").encode("utf-8")
        except UnicodeError:
            raise UnreadableList("it begins as UTF-16 and is not") from None
    return data.removeprefix(codecs.BOM_UTF8)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line) of those that are neither blank nor a comment, without their ends."""
    is_wide = file.read(2).startswith(_UTF16)
    file.seek(0)
    read = _wide(file) if is_wide else iter(lambda: file.readline(_LONGEST), b"")
    for number, line in enumerate(read, 1):
        if len(line) >= _LONGEST:
            raise UnreadableList(f"line {number} is too long")
        text = line.removesuffix(b"\n").removesuffix(b"\r")
        text = text.removeprefix(codecs.BOM_UTF8) if number == 1 else text
        if text.strip() and text[:1] != b"#":
            yield number, text


def _wide(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a list in UTF-16, in UTF-8."""
    text = codecs.getreader("utf-16")(file)
    try:
        while line := text.readline(_LONGEST, keepends=True):
            yield line.encode("utf-8")
    except UnicodeError:
        raise UnreadableList("it begins as UTF-16 and is not") from None


def _entries(lines: Iterator[tuple[int, bytes]]) -> Iterator[_Entry]:
    for at, (number, line) in enumerate(lines):
        entry = _line(number, line)
        if entry is None and at == 0 and (delimiter := _delimiter(line)):
            yield from _table(itertools.chain([(number, line)], lines), delimiter)
            return
        if entry is None:
            raise _not_one(number)
        yield entry


def _line(number: int, line: bytes) -> _Entry | None:
    """Return what a line as coreutils, BSD or OpenSSL write it says; None for another."""
    if found := _LINE.fullmatch(line):
        escaped, digest, name = found.groups()
    elif found := _BSD.fullmatch(line):
        escaped, _, name, digest = found.groups()
    else:
        return None
    if escaped:
        name = _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[0]), name)
    return _Entry(number=number, path=name, digest=digest)


# -- tables ----------------------------------------------------------------------------------


def _delimiter(line: bytes) -> str:
    """Return what divides the columns of a table's first line; "" where it has no columns."""
    counts = {one: line.count(one.encode()) for one in "\t;,"}
    best = max(counts, key=lambda one: counts[one])
    return best if counts[best] else ""


def _table(lines: Iterable[tuple[int, bytes]], delimiter: str) -> Iterator[_Entry]:
    """Yield the rows of a table, whose first line may name its columns."""
    number = 0

    def text() -> Iterator[str]:
        nonlocal number
        for number, line in lines:  # noqa: B007  # read below
            yield line.decode("utf-8", "surrogateescape")

    columns: tuple[int, int] | None = None
    try:
        for row in csv.reader(text(), delimiter=delimiter, strict=True):
            if columns is None:
                columns = _columns(row)
                if columns is not None:
                    continue
                columns = _by_content(row, number)
            yield _row(row, columns, number)
    except csv.Error as error:
        raise UnreadableList(f"it cannot be read as a table ({error})") from None


def _columns(row: Sequence[str]) -> tuple[int, int] | None:
    """Return which columns hold the name and the digest, by their titles; None where it has none."""
    titles = [re.sub(r"[^a-z0-9]", "", title.lower()) for title in row]
    names = [at for at, title in enumerate(titles) if title in _NAMES]
    digests = [at for at, title in enumerate(titles) if title in _DIGESTS]
    return (names[0], digests[-1]) if names and digests else None


def _by_content(row: Sequence[str], number: int) -> tuple[int, int]:
    """Return which of two columns holds the name, and which the digest, by what stands in them."""
    digests = [
        at for at, cell in enumerate(row) if _HEX.fullmatch(cell.strip()) and len(cell.strip()) in ALGORITHMS
    ]
    if len(row) != 2 or len(digests) != 1:
        what = "has no columns for a name and a digest: title them file and checksum"
        raise UnreadableList(f"line {number} {what}")
    return 1 - digests[0], digests[0]


def _row(row: Sequence[str], columns: tuple[int, int], number: int) -> _Entry:
    name, digest = columns
    if len(row) <= max(columns) or not row[name].strip() or not _HEX.fullmatch(row[digest].strip()):
        raise UnreadableList(f"line {number} has no name or no digest in its column")
    path = row[name].strip().encode("utf-8", "surrogateescape")
    return _Entry(number=number, path=path, digest=row[digest].strip().encode())


# -- comparison ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ListDifference:
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


def compared(listed: ChecksumList, found: dict[bytes, str]) -> ListDifference:
    """Compare a list with the digests of the files that are there, by path; all in the order of names.

    Args:
        found: path -> lower-case hex digits of the list's algorithm; without the list itself.
    """
    wanted = listed.digests
    return ListDifference(
        missing=sorted(wanted.keys() - found.keys()),
        extra=sorted(found.keys() - wanted.keys()),
        changed=sorted(path for path in wanted.keys() & found.keys() if wanted[path] != found[path]),
    )


def locally(paths: Iterable[bytes], has: set[bytes], folder: bytes) -> dict[bytes, bytes]:
    r"""Return what each path of a list is in the folder; a path that is not there stays as it is written.

    Args:
        paths: as the list has them.
        has: the files that are there, by their paths in the folder.
        folder: where the list lies, with a slash at its end, or empty. Names count from there, otherwise from
            the folder's top; where `\` divides a path, as on Windows, it counts as a slash.
    """
    found = {}
    for path in paths:
        plain = path.replace(b"\\", b"/").removeprefix(b"./")
        forms = (folder + path, path, folder + plain, plain)
        found[path] = next((form for form in forms if form in has), folder + path)
    return found
