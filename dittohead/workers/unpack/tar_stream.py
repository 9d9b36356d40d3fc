"""Read a tar archive as a stream, strictly: each header's checksum, each member whole, both end blocks.

Python's `tarfile` takes a damaged header, or the end of the file, as the end of the archive. Here only two
blocks of zeros are the end, and nothing but zeros may follow them. Headers are parsed by `tarfile`.

Source: POSIX.1-2024, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar manual, "Basic Tar
Format".
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dittohead.workers.unpack.broken import BrokenArchive

BLOCK = 512
_ZEROS = bytes(BLOCK)

#: Bytes of one extended header: names and times take hundreds, not millions.
_MOST_EXTENDED = 1 << 20

_KINDS = {
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.DIRTYPE: "directory",
    tarfile.FIFOTYPE: "FIFO",
    tarfile.GNUTYPE_SPARSE: "sparse file",
}
_FILES = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})

_RECORD = re.compile(rb"(\d{1,20}) ")


@dataclass(frozen=True, kw_only=True)
class Member:
    """What a header says."""

    name: bytes
    kind: str  #: "file", "directory", "symbolic link" ...
    size: int  #: bytes of its content that follow
    mtime: float = 0.0  #: seconds since the epoch


def is_tar(head: bytes) -> bool:
    """Tell whether data begins with the header of a member, or with the end of an empty archive.

    Args:
        head: at least 512 bytes, where there are so many.
    """
    if len(head) < BLOCK:
        return False
    try:
        tarfile.TarInfo.frombuf(head[:BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return head[:BLOCK] == _ZEROS
    return True


class TarStream:
    """The members of an archive, one after another; each one's `content` is to be read before the next."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")
        self._left = 0  #: bytes of the present member's content that are still to come
        self._padding = 0
        self.read = 0  #: bytes read

    def members(self) -> Iterator[Member]:
        """Yield the members, in their order. Raises: Broken."""
        extended: dict[str, bytes] = {}
        while (block := self._taken(BLOCK, "header")) != _ZEROS:
            header = self._header(block)
            if header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                extended |= _records(self._extended(header))
            elif header.type == tarfile.XGLTYPE:
                self._global(_records(self._extended(header)))
            elif header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                name = self._extended(header).partition(b"\0")[0]
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    extended["path"] = name
            else:
                member = _member(header, extended)
                extended = {}
                self._left, self._padding = member.size, -member.size % BLOCK
                yield member
                for _ in self.content():  # what was not read
                    pass
                self._taken(self._padding, "padding")
        if extended:
            raise BrokenArchive("it ends behind a header that belongs to a member")
        self._end()

    def content(self) -> Iterator[memoryview]:
        """Yield the present member's content in pieces. Raises: Broken: it is truncated."""
        while self._left:
            piece = self._some(self._left)
            if not piece:
                raise BrokenArchive(f"it is truncated, {self._left:,} bytes before the end of a member")
            self._left -= len(piece)
            yield piece

    def _header(self, block: bytes) -> tarfile.TarInfo:
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            at = self.read - BLOCK
            raise BrokenArchive(
                f"the header at byte {at:,} of the tar archive is damaged ({error})"
            ) from None
        if header.size < 0:
            raise BrokenArchive(
                f"the header at byte {self.read - BLOCK:,} of the tar archive gives a negative size"
            )
        return header

    def _extended(self, header: tarfile.TarInfo) -> bytes:
        if header.size > _MOST_EXTENDED:
            raise BrokenArchive(f"an extended header of {header.size:,} bytes is too large")
        data = self._taken(header.size, "extended header")
        self._taken(-header.size % BLOCK, "padding")
        return data

    def _global(self, records: dict[str, bytes]) -> None:
        # What holds for all members is a comment or a time; a path or a size for all would be a trick.
        if records.keys() & {"path", "size", "linkpath"}:
            raise BrokenArchive("a global header gives all members one name or size")

    def _end(self) -> None:
        if self._taken(BLOCK, "end: one of its two blocks of zeros is missing") != _ZEROS:
            raise BrokenArchive("a member follows half of the end mark")
        while piece := self._some(1 << 20):
            if bytes(piece).strip(b"\0"):
                raise BrokenArchive("something follows the end of the tar archive")

    def _taken(self, size: int, what: str) -> bytes:
        """Return so many bytes. Raises: Broken: there are fewer."""
        if size <= len(self._piece):
            return bytes(self._some(size))
        found = bytearray()
        while len(found) < size:
            piece = self._some(size - len(found))
            if not piece:
                raise BrokenArchive(f"the tar archive is truncated at byte {self.read:,}, in its {what}")
            found += piece
        return bytes(found)

    def _some(self, most: int) -> memoryview:
        """Return some bytes, at most so many; none at the end."""
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return self._piece
            self._piece = memoryview(piece)
        some, self._piece = self._piece[:most], self._piece[most:]
        self.read += len(some)
        return some


def _member(header: tarfile.TarInfo, extended: dict[str, bytes]) -> Member:
    kind = "file" if header.type in _FILES else _KINDS.get(header.type, "thing of an unknown kind")
    size = header.size if kind in ("file", "sparse file") or header.type not in _KINDS else 0
    member = Member(
        name=header.name.encode("utf-8", "surrogateescape"), kind=kind, size=size, mtime=header.mtime
    )
    if any(key.startswith("GNU.sparse.") for key in extended):
        member = replace(member, kind="sparse file")
    if "path" in extended:
        member = replace(member, name=extended["path"].rstrip(b"/") or b"/")
    if "size" in extended and kind == "file":
        member = replace(member, size=_number(extended["size"]))
    if "mtime" in extended:
        member = replace(member, mtime=_seconds(extended["mtime"]))
    return member


def _records(data: bytes) -> dict[str, bytes]:
    """Return the records of an extended header: `LENGTH KEY=VALUE` and a newline each. Raises: Broken."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data) and data[at:].strip(b"\0"):
        match = _RECORD.match(data, at)
        length = int(match[1]) if match else 0
        record = data[match.end() : at + length] if match else b""
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n") or at + length > len(data):
            raise BrokenArchive("an extended header is damaged")
        found[key.decode("utf-8", "replace")] = value[:-1]
        at += length
    return found


def _number(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise BrokenArchive("an extended header gives a size that is not a number")
    return int(value)


def _seconds(value: bytes) -> float:
    try:
        return float(value)
    except ValueError:
        return 0.0
