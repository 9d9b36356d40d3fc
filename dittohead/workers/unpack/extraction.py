"""One archive's way into files, in one pass: decompressed, its members let in, hashed and written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dittohead.system import files
from dittohead.system.threads import Stop
from dittohead.toolkit import checksum_lists
from dittohead.workers.unpack import compression, kinds
from dittohead.workers.unpack.broken import FETCH_AGAIN, BrokenArchive, RefusedMember
from dittohead.workers.unpack.members import Gate
from dittohead.workers.unpack.streams import Flow, ahead
from dittohead.workers.unpack.tar_stream import Member, TarStream
from dittohead.workers.unpack.zip_file import ZipFile

#: What a file system says of a name that it cannot give a file, or has given to another member.
_NAMES = frozenset(
    {
        errno.EEXIST,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.EILSEQ,
    }
)

#: Bytes of a list of checksums, which is held in memory.
_LIST_MOST = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenMember:
    """One member as it was written."""

    place: bytes  #: below the step's directory
    name: bytes  #: in the archive, without its prefix
    size: int  #: bytes
    md5: str  #: 32 lower-case hex digits
    sha256: str


@dataclass(kw_only=True)
class Extraction:
    """What comes out of one archive."""

    gate: Gate
    root: Path | None  #: directory for the members; None: they are read, and not written
    kept: Path | None  #: file for the archive itself, decrypted; None: it is not kept
    spool: Path  #: file for a decrypted zip archive, whose list is at its end; removed again
    checksums: bytes  #: name of the member that lists the others' digests; b"" for none
    made: list[WrittenMember] = field(default_factory=list)
    listed: bytes | None = None  #: what that member holds
    progress: Callable[[int], None] = lambda size: None  #: is told how many bytes have come in

    def take(self, make: Callable[[Flow], Iterator[bytes]], stop: Stop) -> None:
        """Take all members of an archive, from its bytes. Blocking.

        Args:
            make: gives the bytes, decrypted, in pieces.

        Raises: Broken, RefusedMember; OSError.
        """
        flow = Flow(stop)
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(ahead(lambda: make(flow), flow))
            head, pieces = _peeked(self._counted(raw))
            kind = kinds.kind_of(head)
            if self.kept is not None:
                pieces = _copied(pieces, stack.enter_context(files.created(self.kept)))
            if kind == "zip":
                self._zip(pieces, stack)
            elif kind in ("gzip", "bzip2", "xz"):
                packed = pieces
                pieces = stack.enter_context(ahead(lambda: compression.decompressed(packed, kind), flow))
                head, pieces = _peeked(pieces)
                if kinds.kind_of(head) != "tar":
                    what = f"what is compressed in it by {kind} is not a tar archive"
                    raise RefusedMember(what, hint="See match: and from: of the step")
                self._tar(pieces)
            elif kind == "tar":
                self._tar(pieces)
            else:
                raise _no_archive(kind, head)

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        size = 0
        for piece in pieces:
            size += len(piece)
            self.gate.bear(size)
            self.progress(len(piece))
            yield piece

    def _tar(self, pieces: Iterator[bytes]) -> None:
        def grown() -> Iterator[bytes]:
            for piece in pieces:
                self.gate.grown(len(piece))
                yield piece

        tar = TarStream(grown())
        for member in tar.members():
            self._member(member, tar.content)

    def _zip(self, pieces: Iterator[bytes], stack: contextlib.ExitStack) -> None:
        where = self.kept or self.spool
        if self.kept is None:
            stack.callback(where.unlink, missing_ok=True)
            with files.created(where) as file:
                for piece in pieces:
                    file.write(piece)
        else:
            for _ in pieces:  # written as they pass
                pass
        archive = ZipFile(stack.enter_context(where.open("rb")))
        stack.callback(archive.close)
        for member in archive.members():

            def content(name: bytes = member.name) -> Iterator[memoryview]:
                for piece in archive.content():
                    self.gate.grown(len(piece), name)
                    yield piece

            self._member(member, content)

    def _member(self, member: Member, content: Callable[[], Iterator[memoryview]]) -> None:
        place = self.gate.place(member.name, member.kind, member.size)
        if place is None:
            return
        name = place[len(self.gate.into) :]
        sinks: list[Callable[[memoryview], object]] = []
        listed = bytearray()
        if name == self.checksums:
            if member.size > _LIST_MOST:
                what = "the list of checksums is too large to be one"
                raise RefusedMember(what, member=member.name, hint=_ANEW)
            sinks.append(listed.extend)
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        sinks += [md5.update, sha256.update]
        size = 0
        with self._file(place, member) as write:
            for piece in content():
                for sink in (*sinks, *write):
                    sink(piece)
                size += len(piece)
        if name == self.checksums:
            self.listed = bytes(listed)
        digests = {"md5": md5.hexdigest(), "sha256": sha256.hexdigest()}
        self.made.append(WrittenMember(place=place, name=name, size=size, **digests))

    @contextlib.contextmanager
    def _file(self, place: bytes, member: Member) -> Iterator[list[Callable[[memoryview], object]]]:
        """Open the member's new file; a list of what writes to it, which is empty where none is made."""
        if self.root is None:
            yield []
            return
        path = os.path.join(os.fsencode(self.root), place)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            fd = os.open(path, flags, 0o640)
        except OSError as error:
            if error.errno not in _NAMES:
                raise
            what = f"the file system of work/ cannot hold this member ({os.strerror(error.errno or 0)})"
            raise RefusedMember(
                what, member=member.name, hint="Ask who made the archive for other names"
            ) from error
        with open(fd, "wb", buffering=0) as file:
            yield [lambda piece: _write(file, piece)]
            with contextlib.suppress(OverflowError, ValueError, OSError):  # a time that no file can have
                ns = int(member.mtime * 1e9)
                os.utime(file.fileno(), ns=(ns, ns))

    def compare(self) -> None:
        """Compare all members with the list among them. Raises: RefusedMember: they are not as it says."""
        if not self.checksums:
            return
        name = self.checksums
        shown = name.decode("utf-8", "backslashreplace")
        if self.listed is None:
            hint = "Fetch the archive again; where such archives have no list, leave checksums: out"
            raise RefusedMember(f"the list of checksums, {shown}, is not in it", hint=hint)
        try:
            listed = checksum_lists.parsed(self.listed)
        except checksum_lists.UnreadableList as error:
            what = f"the list of checksums, {shown}, cannot be read: {error}"
            raise RefusedMember(what, hint=_ANEW) from None
        found = {
            made.name: made.md5 if listed.algorithm == "md5" else made.sha256
            for made in self.made
            if made.name != name
        }
        different = checksum_lists.compared(listed, found)
        if different:
            raise RefusedMember(f"its members are not as {shown} says: {different}", hint=_ANEW)


_ANEW = f"{FETCH_AGAIN}; if it is the same, ask who made it"


def _peeked(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Return the first bytes, and all pieces."""
    first: list[bytes] = []
    while sum(map(len, first)) < kinds.HEAD and (piece := next(pieces, None)) is not None:
        first.append(piece)
    return b"".join(first)[: kinds.HEAD], itertools.chain(first, pieces)


def _copied(pieces: Iterator[bytes], file: IO[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        file.write(piece)
        yield piece
    file.flush()


def _write(file: IO[bytes], piece: memoryview) -> None:
    while piece:
        piece = piece[file.write(piece) :]


def _no_archive(kind: str, head: bytes) -> Exception:
    if not head:
        return BrokenArchive(kinds.IS_EMPTY)
    what, hint = {
        "zstd": (
            "it is compressed by zstd, which is not read here",
            "Decompress it before: zstd --decompress",
        ),
        "gpg": ("what is encrypted in it is encrypted once more", "Decrypt it once before"),
        "page": (
            kinds.IS_PAGE,
            "What was fetched is an error or a sign-in",
        ),
    }.get(kind, (kinds.IS_NONE, "See match: and from:"))
    return RefusedMember(what, hint=hint)
