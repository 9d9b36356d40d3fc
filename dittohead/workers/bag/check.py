"""Check a bag: is it complete, is it valid, and everything that is wrong with it. Source: RFC 8493, 3."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from dittohead.contract.worker import Inputs
from dittohead.model.errors import ItemError
from dittohead.model.records import Entry
from dittohead.model.text import display
from dittohead.system import files, folding
from dittohead.system.threads import Stop, in_order
from dittohead.toolkit.bagit import declaration, manifests
from dittohead.toolkit.bagit.declaration import Declaration, Malformed
from dittohead.toolkit.bagit.manifests import Manifest
from dittohead.toolkit.faulty_files import FaultyFiles
from dittohead.workers.bag.index import BagFile, Index

_DECLARATION, _FETCH = b"bagit.txt", b"fetch.txt"
_INFO = (b"bag-info.txt", b"package-info.txt")  # the second until 0.95
_OXUM = re.compile(r"(\d+)\.(\d+)")

#: Files that systems make and remove by themselves. A bag without them has lost nothing.
_JUNK = re.compile(rb"(?:.*/)?(?:\.DS_Store|Thumbs\.db|desktop\.ini|\._[^/]*)")

#: With more missing files than this, none is searched for under a name that differs by case or accents alone.
_MOST_TWINS = 10_000


class BagFindings:
    """What is wrong with a bag, and what is only odd; each also goes to `say` at once."""

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self.errors = FaultyFiles()
        self.warnings = FaultyFiles()
        self.differing: list[str] = []  #: files of the folder, with other content than a manifest says; some
        self._say = say

    def error(self, path: bytes, what: str) -> None:
        """Note what makes the bag invalid."""
        self.errors.add(path, what)
        self._say(f"error: {display(path)}: {what}")

    def differs(self, path: bytes) -> None:
        """Note a file that another could be put in the place of."""
        name = display(path)
        if len(self.differing) < _DIFFERING and name not in self.differing:
            self.differing.append(name)

    def warning(self, path: bytes, what: str) -> None:
        """Note what a valid bag should not have."""
        self.warnings.add(path, what)
        self._say(f"warning: {display(path)}: {what}")


@dataclass(kw_only=True)
class Bag:
    """A bag that was checked."""

    declaration: Declaration | None = None
    manifests: list[Manifest] = field(default_factory=list)
    tag_files: list[bytes] = field(default_factory=list)  #: paths of all files that are not payload
    info: list[tuple[str, str]] = field(default_factory=list)  #: labels and values of bag-info.txt
    fetches: int = 0  #: files that fetch.txt lists
    payload: tuple[int, int] = (0, 0)  #: files and bytes

    @property
    def algorithms(self) -> list[str]:
        """Those of the payload manifests, as their files' names have them."""
        return [one.called for one in self.manifests if not one.is_tag]


#: Files with other content that are named to those who may put others in their place.
_DIFFERING = 100

#: Files that are read at once.
_READERS = 2


def top_of(source: Inputs, stop: Stop) -> bytes:
    """Return the directory that is the bag, with a slash: b"" for the folder itself, or the only one in it.

    Blocking. Raises: OSError; Stopped.
    """
    if os.path.lexists(source.root / "bagit.txt"):
        return b""
    tops = set()
    for entry in source.entries():
        stop.check()
        if not entry.is_dir:
            tops.add(entry.path.partition(b"/")[0] + b"/")
    only = next(iter(tops)) if len(tops) == 1 else b""
    inner = os.path.join(os.fsencode(source.root), only, _DECLARATION)
    return only if only and os.path.isfile(inner) else b""


class BagCheck:
    """One check of one bag. Blocking; `run` it in a thread."""

    def __init__(self, source: Inputs, index: Index, findings: BagFindings, stop: Stop) -> None:
        self.bag = Bag()
        self.progress: Callable[[int], None] = lambda size: None  #: told how many bytes were read
        self._source, self._index, self._findings, self._stop = source, index, findings, stop
        self._root = source.root
        self._prefix = b""
        self._junk = 0  # files that are not there and need not be

    def run(self) -> Bag:
        """Check everything; what is wrong is in the findings, never raised.

        Raises: OSError: the disk; Stopped.
        """
        self._prefix = top_of(self._source, self._stop)
        self._root = Path(os.fsdecode(os.path.join(os.fsencode(self._source.root), self._prefix)))
        self._index.add_files(self._files())
        if self._declared():
            self._read_manifests()
            self._read_info()
            self._read_fetches()
            self._not_there()
            self._surplus()
            self._compare()
        self.bag.payload = self._index.payload()
        self._oxum()
        return self.bag

    # -- what lies there ---------------------------------------------------------------------

    def _entries(self) -> Iterator[Entry]:
        for entry in self._source.entries():
            self._stop.check()
            yield entry

    def _files(self) -> Iterator[BagFile]:
        alike = folding.Alike()
        for entry in self._entries():
            if entry.is_dir or not entry.path.startswith(self._prefix):
                continue
            path = entry.path[len(self._prefix) :]
            if not path.startswith(b"data/"):
                self.bag.tag_files.append(path)
            alike.add(entry)
            yield BagFile(path=path, size=entry.size, sha256=bytes.fromhex(entry.sha256))
        for group in alike.groups(self._source.entries()):
            names = ", ".join(display(path) for path in group[1:])
            self._findings.warning(group[0], f"on some file systems this is the same name as {names}")

    @contextlib.contextmanager
    def _opened(self, path: bytes) -> Iterator[IO[bytes]]:
        with (
            files.opened_beneath(self._source.root, self._prefix + path) as fd,
            open(fd, "rb", closefd=False) as file,
        ):
            yield file

    def _tag_file(self, path: bytes) -> bytes:
        """Return a tag file as a whole. Raises: Malformed."""
        with self._opened(path) as file:
            data = file.read(declaration.LARGEST + 1)
        if len(data) > declaration.LARGEST:
            raise Malformed("it is too large for a tag file")
        return data

    def _declared(self) -> bool:
        if not self._index.has(_DECLARATION):
            self._findings.error(_DECLARATION, "it is not there: this folder is not a bag")
            return False
        if not os.path.isdir(self._root / "data"):
            self._findings.error(b"data", "it is not there: a bag has its payload in data/")
        try:
            self.bag.declaration = declaration.read(self._tag_file(_DECLARATION))
        except (Malformed, ItemError) as error:
            self._findings.error(_DECLARATION, str(error))
            return False
        return True

    @property
    def _declaration(self) -> Declaration:
        assert self.bag.declaration is not None  # noqa: S101  # `_declared` has seen to it
        return self.bag.declaration

    # -- what is listed ----------------------------------------------------------------------

    def _read_manifests(self) -> None:
        for path in self.bag.tag_files:
            if (one := manifests.manifest(path)) is not None:
                self.bag.manifests.append(one)
                if not one.algorithm:
                    self._findings.error(path, f"the algorithm {one.called} is unknown here")
        if not self._numbers(is_tag=False):
            self._findings.error(b"manifest-sha256.txt", "it is not there, and no other payload manifest is")
        for number, one in enumerate(self.bag.manifests):
            if one.algorithm:
                with self._index.listing():
                    self._read_manifest(number, one)
        self._tag_manifests()

    def _numbers(self, *, is_tag: bool) -> list[int]:
        known = enumerate(self.bag.manifests)
        return [number for number, one in known if one.is_tag == is_tag and one.algorithm]

    def _read_manifest(self, number: int, one: Manifest) -> None:
        marked = False
        try:
            with self._opened(one.path) as file:
                for line in manifests.lines(file, self._declaration.encoding, one.algorithm):
                    self._stop.check()
                    self._list(number, one, line)
                    marked = marked or line.marked
        except manifests.BadLine as error:
            self._findings.error(one.path, str(error))
        if marked:
            self._findings.warning(one.path, "asterisks stand before its paths, as md5sum writes them")

    def _list(self, number: int, one: Manifest, line: manifests.ManifestLine) -> None:
        where = f"line {line.number} of {display(one.path)}"
        if reason := manifests.outside(line.path):
            self._findings.error(line.path, f"{where} lists it, and {reason}: it would lie outside the bag")
            return
        path = manifests.plain(line.path)
        if path != line.path:
            self._findings.warning(line.path, f"{where} lists it with a leading ./")
        if one.is_tag == path.startswith(b"data/"):
            kind = "tag file" if one.is_tag else "payload file"
            self._findings.error(path, f"{where} lists it, and it is not a {kind}")
            return
        if not line.digest:
            self._findings.error(path, f"{where} has a digest of the wrong length for {one.called}")
            return
        path = self._named(path)
        before = self._index.list_file(number, path, line.digest)
        if before is None:
            return
        if before != line.digest:
            self._findings.error(path, f"{where} lists it again, with another digest")
        elif self._declaration.strict:
            self._findings.error(path, f"{where} lists it again")
        else:
            self._findings.warning(path, f"{where} lists it again")

    def _named(self, path: bytes) -> bytes:
        """Return the path that is meant: as it is written, or with its codes for CR, LF and % read.

        Common tools write `%` as it is, so that the text alone does not tell.
        """
        if b"%" not in path or self._index.has(path):
            return path
        other = manifests.decoded(path)
        return other if other == path or manifests.outside(other) == "" else path

    def _tag_manifests(self) -> None:
        if not self._declaration.strict:
            return
        for number in self._numbers(is_tag=True):
            for one in self.bag.manifests:
                listed = self._index.lists(number, one.path)
                name = display(self.bag.manifests[number].path)
                if not one.is_tag and not listed:
                    self._findings.error(one.path, f"{name} does not list it")
                if one.is_tag and listed:
                    self._findings.error(one.path, f"{name} lists it, and it is a tag manifest")

    def _read_info(self) -> None:
        for path in _INFO:
            if self._index.has(path):
                try:
                    self.bag.info += declaration.labels(self._tag_file(path), self._declaration.encoding)
                except (Malformed, ItemError) as error:
                    self._findings.error(path, str(error))

    def _read_fetches(self) -> None:
        if not self._index.has(_FETCH):
            return
        try:
            with self._opened(_FETCH) as file:
                for one in manifests.fetches(file, self._declaration.encoding):
                    self.bag.fetches += 1
                    if reason := manifests.outside(one.path):
                        what = f"line {one.number} of fetch.txt lists it, and {reason}"
                        self._findings.error(one.path, f"{what}: it would lie outside the bag")
                    elif not self._index.has(self._named(manifests.plain(one.path))):
                        what = "fetch.txt names where it can be fetched, and it was not: complete the bag"
                        self._findings.error(one.path, what)
        except manifests.BadLine as error:
            self._findings.error(_FETCH, str(error))

    # -- what does not agree -----------------------------------------------------------------

    def _not_there(self) -> None:
        absent = [path for path in self._index.missing() if not self._found_on_disk(path)]
        twins = self._twins(absent)
        for path in absent:
            if path in twins:
                what = f"it is not there under this name; {display(twins[path])} has the same digest"
                self._findings.warning(path, what)
            elif _JUNK.fullmatch(path):
                self._junk += 1
                self._findings.warning(path, "it is not there; systems remove such files by themselves")
            else:
                self._findings.error(path, "a manifest lists it, and it is not there")

    def _found_on_disk(self, path: bytes) -> bool:
        """Note a file that is there and was left out of the step's files, as the pipeline ignores it."""
        try:
            with files.opened_beneath(self._source.root, self._prefix + path) as fd:
                digest, size = files.sha256_fd(fd, files.hash_buffer(), self._read)
        except (OSError, ItemError):
            return False
        self._index.add_files([BagFile(path=path, size=size, sha256=bytes.fromhex(digest))])
        return True

    def _read(self, size: int) -> None:
        self._stop.check()
        self.progress(size)

    def _twins(self, absent: list[bytes]) -> dict[bytes, bytes]:
        """Return what is there under a name that differs by case or accents alone, with the same digests."""
        if not absent or len(absent) > _MOST_TWINS:
            return {}
        keys = {folding.key(path): path for path in absent}
        found: dict[bytes, bytes] = {}
        for file in self._index.files():
            path = keys.get(folding.key(file.path))
            if (
                path is not None
                and self._index.said_of(path).items() <= self._index.said_of(file.path).items()
            ):
                found[path] = file.path
        return found

    def _surplus(self) -> None:
        payload = self._numbers(is_tag=False)
        if not payload:
            return
        for path in self._index.unlisted():
            self._findings.error(path, "no manifest lists it")
        for number in payload if self._declaration.strict else ():
            for path in self._index.left_out_by(number):
                name = display(self.bag.manifests[number].path)
                self._findings.error(path, f"{name} does not list it, and another manifest does")

    def _compare(self) -> None:
        """Compare digests: SHA-256 with what the claim has read, the others in one read of each file."""
        pairs = self._index.to_compare()
        reads = any(one.algorithm != "sha256" for one in self.bag.manifests)
        digests = (
            in_order(pairs, self._digests, _READERS)
            if reads
            else ((one, self._digests(one)) for one in pairs)
        )
        for (file, listed), found in digests:
            for number, digest in listed.items():
                one = self.bag.manifests[number]
                if found.get(one.algorithm) != digest:
                    self._findings.differs(self._prefix + file.path)
                    self._findings.error(file.path, f"its {one.called} is not what {display(one.path)} says")

    def _digests(self, one: tuple[BagFile, dict[int, bytes]]) -> dict[str, bytes]:
        """Return the digests of a file that its manifests want. In one of the threads that read."""
        self._stop.check()
        file, listed = one
        wanted = {self.bag.manifests[number].algorithm for number in listed}
        found = {"sha256": file.sha256}
        if unread := wanted - {"sha256"}:
            hashes = {name: hashlib.new(name, usedforsecurity=False) for name in unread}
            with files.opened_beneath(self._source.root, self._prefix + file.path) as fd:
                files.hash_fd(fd, hashes.values(), files.hash_buffer(), lambda block: self._read(len(block)))
            found |= {name: one.digest() for name, one in hashes.items()}
        return found

    def _oxum(self) -> None:
        count, size = self.bag.payload
        for label, value in self.bag.info:
            said = _OXUM.fullmatch(value)
            if label.lower() != "payload-oxum" or said is None:
                continue
            if (int(said[1]), int(said[2])) != (size, count):
                what = f"Payload-Oxum says {value}; the payload is {size}.{count} (bytes.files)"
                (self._findings.warning if self._junk else self._findings.error)(_INFO[0], what)
