"""Make a bag: the same bytes each time, each file compared with its digest while it is copied."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from dittohead.contract.worker import Inputs
from dittohead.model.errors import ItemError
from dittohead.model.records import Entry, Output
from dittohead.model.text import display
from dittohead.system import files
from dittohead.system.threads import Stop
from dittohead.toolkit import tar_members
from dittohead.toolkit.bagit import manifests

DECLARATION = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"

#: Zip knows no time before this. Source: APPNOTE.TXT 6.3.10, 4.4.6.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


class BagPlace(Protocol):
    """Where a bag's files are put."""

    def put(self, path: bytes, size: int, pieces: Iterator[bytes]) -> None:
        """Put one file there.

        Args:
            path: within the bag.
            size: of its content, bytes.
            pieces: the content; taken to the end.
        """


class Writable(Protocol):
    """What an archive is written to."""

    def write(self, data: bytes, /) -> int:
        """Write some bytes."""


class BagFolder:
    """A directory, which holds the bag's files as they are."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: bytes, size: int, pieces: Iterator[bytes]) -> None:
        """Write a file. What the caller must make durable."""
        target = os.path.join(os.fsencode(self.root), path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "xb") as file:
            for piece in pieces:
                file.write(piece)


class BagTar:
    """A tar archive.

    Args:
        file: takes it.
        top: the directory that everything lies in; b"" for none.
    """

    def __init__(self, file: Writable, top: bytes) -> None:
        self._file, self._top = file, top + b"/" if top else b""

    def put(self, path: bytes, size: int, pieces: Iterator[bytes]) -> None:
        """Add a member."""
        self._file.write(tar_members.header(self._top + path, size, 0))
        for piece in pieces:
            self._file.write(piece)
        self._file.write(tar_members.padding(size))

    def end(self) -> None:
        """Write the end of the archive."""
        self._file.write(tar_members.END)


class BagZip:
    """A zip archive; its members are not compressed.

    Args:
        archive: takes them.
        top: the directory that everything lies in; b"" for none.
    """

    def __init__(self, archive: zipfile.ZipFile, top: bytes) -> None:
        self._archive, self._top = archive, top + b"/" if top else b""

    def put(self, path: bytes, size: int, pieces: Iterator[bytes]) -> None:
        """Add a member. Raises: ItemError: its name is not text, which a zip archive needs."""
        try:
            name = (self._top + path).decode("utf-8")
        except UnicodeDecodeError:
            hint = "Rename it, or choose another form: folder or tar"
            raise ItemError("a zip archive cannot hold this name", where=display(path), hint=hint) from None
        member = zipfile.ZipInfo(name, _ZIP_TIME)
        member.create_system, member.external_attr, member.file_size = 3, 0o100644 << 16, size
        with self._archive.open(member, "w") as file:
            for piece in pieces:
                file.write(piece)


@dataclass(kw_only=True)
class MadeBag:
    """What was put into a bag."""

    files: int = 0  #: of the payload
    size: int = 0  #: of the payload, bytes
    empty: int = 0  #: empty folders, which a bag cannot hold


class Making:
    """Makes one bag. Blocking; `run` it in a thread."""

    def __init__(self, source: Inputs, algorithms: Sequence[str], scratch: Path, stop: Stop) -> None:
        self.progress: Callable[[int], None] = lambda done: None  #: told how many bytes are in the bag
        self.put: Callable[[Output], None] = lambda output: None  #: given each file of the bag
        self.hint = "Run the folder again"
        self.tags: Mapping[bytes, Path] = {}  #: tag files besides those of BagIt, by their paths in the bag
        self._source, self._algorithms, self._scratch, self._stop = source, algorithms, scratch, stop
        self._made = MadeBag()

    def run(self, place: BagPlace, info: Callable[[MadeBag], Sequence[tuple[str, str]]]) -> MadeBag:
        """Put the payload, then the tag files, into a place.

        Args:
            place: takes the files.
            info: gives labels and values of bag-info.txt, once the payload is known.

        Raises: ItemError: a file is not what its digest says; OSError; Stopped.
        """
        with contextlib.ExitStack() as stack:
            lists = {name: stack.enter_context(self._list(name)) for name in self._algorithms}
            for entry in self._source.entries():
                self._stop.check()
                if entry.is_dir:
                    self._made.empty += 1
                else:
                    self._payload(place, entry, lists)
            for file in lists.values():
                file.flush()
            self._tags(place, info, lists)
        return self._made

    @contextlib.contextmanager
    def _list(self, algorithm: str) -> Iterator[IO[bytes]]:
        """Give a file for a manifest's lines, which may be too many for the memory."""
        path = self._scratch / f".manifest-{algorithm}.tmp"
        try:
            with open(path, "w+b") as file:
                yield file
        finally:
            path.unlink(missing_ok=True)

    def _payload(self, place: BagPlace, entry: Entry, lists: dict[str, IO[bytes]]) -> None:
        hashes = {name: _hash(name) for name in self._algorithms if name != "sha256"}
        pieces = tar_members.content(
            self._source.root, entry, self._stop.check, self.hint, tuple(hashes.values())
        )
        path = b"data/" + entry.path
        place.put(path, entry.size, pieces)
        for name, file in lists.items():
            digest = hashes[name].hexdigest() if name in hashes else entry.sha256
            file.write(digest.encode() + b"  " + manifests.encoded(path) + b"\n")
        self._made.files += 1
        self._made.size += entry.size
        self.put(Output(path=path, size=entry.size, sha256=entry.sha256, source=entry.path))
        self.progress(self._made.size)

    def _tags(
        self,
        place: BagPlace,
        info: Callable[[MadeBag], Sequence[tuple[str, str]]],
        lists: dict[str, IO[bytes]],
    ) -> None:
        tags: dict[bytes, list[str]] = {}
        self._tag(place, tags, b"bagit.txt", iter([DECLARATION]), len(DECLARATION))
        written = bag_info(info(self._made))
        self._tag(place, tags, b"bag-info.txt", iter([written]), len(written))
        for name, file in lists.items():
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            self._tag(place, tags, f"manifest-{name}.txt".encode(), _pieces(file), size)
        for name_in_bag, place_on_disk in self.tags.items():
            with open(place_on_disk, "rb") as more:
                self._tag(place, tags, name_in_bag, _pieces(more), os.fstat(more.fileno()).st_size)
        for at, name in enumerate(self._algorithms):
            data = b"".join(
                digests[at].encode() + b"  " + path + b"\n" for path, digests in sorted(tags.items())
            )
            self._tag(place, {}, f"tagmanifest-{name}.txt".encode(), iter([data]), len(data))

    def _tag(
        self, place: BagPlace, tags: dict[bytes, list[str]], path: bytes, pieces: Iterator[bytes], size: int
    ) -> None:
        hashes = [_hash(name) for name in self._algorithms]
        own = hashlib.sha256()
        place.put(path, size, _hashed(pieces, [*hashes, own]))
        tags[path] = [one.hexdigest() for one in hashes]
        self.put(Output(path=path, size=size, sha256=own.hexdigest()))


def _hash(name: str) -> Any:
    return hashlib.new(name, usedforsecurity=False)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(files.BLOCK):
        yield piece


def _hashed(pieces: Iterator[bytes], hashes: Sequence[Any]) -> Iterator[bytes]:
    for piece in pieces:
        for one in hashes:
            one.update(piece)
        yield piece


def bag_info(labels: Sequence[tuple[str, str]]) -> bytes:
    """Return bag-info.txt; a line break in a value goes on in an indented line. Source: RFC 8493, 2.2.2."""
    lines = (label + ": " + "\n  ".join(value.splitlines()) + "\n" for label, value in labels)
    return "".join(lines).encode("utf-8", "backslashreplace")
