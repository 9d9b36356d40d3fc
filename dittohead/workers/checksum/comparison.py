"""The lists of checksums that came with a folder: found, read, and compared with the files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dittohead.contract.worker import Inputs
from dittohead.model.errors import ItemError
from dittohead.model.text import display
from dittohead.system import files
from dittohead.toolkit import checksum_lists
from dittohead.toolkit.checksum_lists import ChecksumList, UnreadableList
from dittohead.toolkit.faulty_files import FaultyFiles

#: A list of a million files has about this size. Bytes.
_LARGEST = 256 << 20


@dataclass(kw_only=True)
class Lists:
    """All lists of a folder."""

    lists: dict[bytes, ChecksumList] = field(default_factory=dict)  #: by path
    #: path of a file -> (path of a list, algorithm, digest) for each list that names it
    wanted: dict[bytes, list[tuple[bytes, str, str]]] = field(default_factory=dict)

    def algorithms(self, path: bytes) -> set[str]:
        """Return the algorithms by which the lists name a file."""
        return {algorithm for _, algorithm, _ in self.wanted.get(path, ())}


def found(source: Inputs, patterns: Sequence[str]) -> Lists:
    """Return the lists of a folder, read.

    Args:
        source: the files of the step.
        patterns: of the lists' names, or of their paths where a pattern has a slash; capitals do not matter.

    Raises: ItemError: there is none, or one cannot be read.
    """
    paths = [entry.path for entry in source.entries() if not entry.is_dir]
    has = set(paths)
    lists = Lists()
    for path in paths:
        if checksum_lists.is_called_so(path, patterns):
            lists.lists[path] = _read(source, path)
    if not lists.lists:
        hint = f"Send one along, named like {patterns[0]}, or set compare: false"
        raise ItemError(f"the folder has no list of checksums ({', '.join(patterns)})", hint=hint)
    for path, one in lists.lists.items():
        folder = path[: path.rfind(b"/") + 1]
        local = checksum_lists.locally(one.digests, has, folder)
        for name, digest in one.digests.items():
            lists.wanted.setdefault(local[name], []).append((path, one.algorithm, digest))
    return lists


def _read(source: Inputs, path: bytes) -> ChecksumList:
    with files.opened_beneath(source.root, path) as fd, os.fdopen(os.dup(fd), "rb") as file:
        data = file.read(_LARGEST + 1)
    hint = "Write it as sha256sum does, or leave it out by compare: with the patterns of the others"
    if len(data) > _LARGEST:
        raise ItemError("this list of checksums is too large", where=display(path), hint=hint)
    try:
        return checksum_lists.parsed(data, path.rpartition(b"/")[2].rpartition(b".")[0])
    except UnreadableList as error:
        what = f"this list of checksums cannot be read: {error}"
        raise ItemError(what, where=display(path), hint=hint) from error


class Comparison:
    """Compares files with lists, one file after the other; at the end the files that are not there."""

    def __init__(self, lists: Lists) -> None:
        self.faults = FaultyFiles()
        self.surplus = FaultyFiles()
        self.count = 0  #: files that lists name, with the right digests
        self._lists = lists
        self._seen: set[bytes] = set()

    def add(self, path: bytes, digests: dict[str, str]) -> None:
        """Compare a file.

        Args:
            path: in the folder.
            digests: algorithm -> lower-case hex digits, for those that the lists name.
        """
        wanted = self._lists.wanted.get(path)
        if wanted is None:
            if path not in self._lists.lists:
                self.surplus.add(path, "no list names it")
            return
        self._seen.add(path)
        wrong = [where for where, algorithm, digest in wanted if digests[algorithm] != digest]
        for where in wrong:
            self.faults.add(path, f"its digest is not what {display(where)} says", "changed")
        self.count += not wrong

    def end(self) -> None:
        """Note the files that lists name and that are not there."""
        for path in self._missing():
            where = self._lists.wanted[path][0][0]
            self.faults.add(path, f"{display(where)} names it, and it is not there", "missing")

    def _missing(self) -> Iterator[bytes]:
        return (path for path in sorted(self._lists.wanted) if path not in self._seen)
