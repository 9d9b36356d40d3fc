"""The manifest: the SHA-256 of each file, as read here while it was sent; and the journal until then.

Both are lines as `sha256sum` writes them, below lines of comment that begin with `#`. The manifest is
written when all files are confirmed. Until then the folder holds the journal: which files are confirmed, and
how far the large ones are. Its name ends with `.part`, so the daemon waits even if somebody renames the
folder by hand.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

#: At the top of the folder. The daemon compares it with its own manifest.
NAME = b"dittohead-manifest-sha256.txt"
JOURNAL = NAME + b".part"

_LINE = re.compile(rb"(\\?)([0-9a-f]{64})  (.+)")
_POINT = re.compile(rb"#@ ([0-9]{1,18}) (\\?)([0-9a-f]{64})  (.+)")
_HEADER = re.compile(rb"# (origin|content): ([0-9a-f]{64})")
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_UNESCAPES = {escape: plain for plain, escape in _ESCAPES.items()}


def line(digest: str, path: bytes) -> bytes:
    r"""Return a line of a manifest. A name with a backslash or a line break is escaped; `\` stands first.

    Source: GNU coreutils manual, "md5sum invocation".
    """
    escaped = re.sub(rb"[\\\n\r]", lambda found: _ESCAPES[found[0]], path)
    return (b"\\" if escaped != path else b"") + digest.encode() + b"  " + escaped + b"\n"


def point(offset: int, digest: str, path: bytes) -> bytes:
    """Return a line of the journal: this is the digest of so many bytes, on the server's disk."""
    return b"#@ %d " % offset + line(digest, path)


def _unescaped(mark: bytes, path: bytes) -> bytes:
    return re.sub(rb"\\[\\nr]", lambda found: _UNESCAPES[found[0]], path) if mark else path


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Whose upload it is: the one of the same folder here, or of the same files."""

    origin: str  #: digest of who sends from which machine and folder
    content: str  #: digest of the paths, sizes and times of all files

    def matches(self, other: Identity | None) -> bool:
        """Tell whether another upload is of the same folder, or of the same files."""
        return other is not None and (self.origin == other.origin or self.content == other.content)


@dataclass(kw_only=True, slots=True)
class Record:
    """What a manifest or a journal says."""

    identity: Identity | None = None  #: None: this program has not written it
    digests: dict[bytes, str] = field(default_factory=dict)  #: of confirmed files
    points: dict[bytes, dict[int, str]] = field(default_factory=dict)  #: digests of beginnings


def read(data: bytes, more: Record | None = None) -> Record:
    """Read a manifest or a journal, and add it to `more`.

    Lines that are torn are left out. One that reads as another path does no harm: its digest is not that of
    the other file.
    """
    record = Record() if more is None else more
    header: dict[str, str] = {}
    for text in data.split(b"\n"):
        if found := _LINE.fullmatch(text):
            record.digests[_unescaped(found[1], found[3])] = found[2].decode()
        elif found := _POINT.fullmatch(text):
            points = record.points.setdefault(_unescaped(found[2], found[4]), {})
            points[int(found[1])] = found[3].decode()
        elif found := _HEADER.fullmatch(text):
            header.setdefault(found[1].decode(), found[2].decode())
    if len(header) == 2:
        record.identity = Identity(**header)
    return record


def header(identity: Identity, about: Iterable[str]) -> bytes:
    """Return the lines of comment at the top."""
    lines = [*about, f"origin: {identity.origin}", f"content: {identity.content}"]
    return "".join(f"# {text}\n" for text in lines).encode("utf-8", "backslashreplace")


def text(head: bytes, digests: Mapping[bytes, str]) -> bytes:
    """Return a whole manifest, its paths sorted by their bytes."""
    return head + b"".join(line(digests[path], path) for path in sorted(digests))


def digest_of(parts: Iterable[bytes]) -> str:
    """Return one digest of several texts, each with its length."""
    made = hashlib.sha256()
    for part in parts:
        made.update(b"%d:" % len(part) + part)
    return made.hexdigest()
