"""What each image's result is called: no two alike, none lost in another."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import os
import re
from array import array
from collections.abc import Iterable

from dittohead.toolkit.result_cache import holds, name_digest

#: What macOS, Windows and Synology leave beside images, thumbnails among it; never treated as one.
_JUNK = ("._*", ".DS_Store", "Thumbs.db", "desktop.ini")
_JUNK_FOLDERS = frozenset({b"@eaDir", b"__MACOSX", b".AppleDouble"})

_NAME_MAX = 255  #: bytes of a file name

#: What a page's name ends in: a-0001 is a page of a.
_PAGE = re.compile(rb"-\d{4,}$")


class Names:
    """What each image becomes: a.tif of a.jpg, but a.jpg.tif and a.png.tif where both are there.

    Knows images by eight bytes each, so that a million of them take 8 MB.
    """

    def __init__(self, suffix: bytes = b".tif", *, pages: bool = False) -> None:
        """Name results that end in `suffix`; with `pages` an image may have several, NAME-0001 ..."""
        self._suffix, self._pages = suffix, pages
        self._room = _NAME_MAX - len(suffix) - (7 if pages else 0)
        self._stems = array("Q")
        self._clashing: set[int] = set()
        self._folders: set[int] = set()  #: those named like a result

    def __len__(self) -> int:
        return len(self._stems)

    def learn(self, paths: Iterable[bytes]) -> None:
        """Take in all images; those alike but for their ending, in upper or lower case, clash."""
        self._stems = array("Q", sorted(name_digest(_stem(path)) for path in paths))
        self._clashing = {one for one, two in itertools.pairwise(self._stems) if one == two}

    def avoid(self, paths: Iterable[bytes]) -> None:
        """See that no result takes the name of a folder, or of another image's long form."""
        before = b""
        for path in paths:
            taken = [path.lower()]  # a.jpg.bmp is not to become the a.jpg.tif of a.jpg
            folder = os.path.dirname(path)
            if folder != before:
                before, parts = folder, folder.split(b"/")
                folders = (b"/".join(parts[: i + 1]) for i in range(len(parts)))
                alike = [name.lower() for name in folders if name.lower().endswith(self._suffix)]
                self._folders.update(map(name_digest, alike))
                taken += map(_stem, alike)
            found = (name_digest(name) for name in taken)
            self._clashing.update(digest for digest in found if holds(self._stems, digest))
            if self._like_a_page(_stem(path)):
                self._clashing.add(name_digest(_stem(path)))

    def _like_a_page(self, stem: bytes) -> bool:
        """Tell whether a-0001.jpg would be named like a page of a.pdf, or like one of a.pdf's long form."""
        before, dash, _ = stem.rpartition(b"-")
        if not self._pages or not _PAGE.search(stem) or not dash:
            return False
        return bool(os.path.splitext(before)[1]) or holds(self._stems, name_digest(before))

    def output(self, path: bytes) -> bytes:
        """Return the result's path.

        A name that is too long for a file system is cut, and given a digest as is one that a folder has.
        """
        base = path if name_digest(_stem(path)) in self._clashing else os.path.splitext(path)[0]
        folder, name = os.path.split(base)
        taken = name_digest(base.lower() + self._suffix) in self._folders
        odd = self._pages and base == path and _PAGE.search(base)  # "a.b-0001" is an ending too
        if taken or odd or len(name) > self._room:
            mark = b"~" + hashlib.blake2b(path, digest_size=8).hexdigest().encode()
            name = _cut(name, self._room - len(mark)) + mark
        return os.path.join(folder, name + self._suffix)


def is_junk(path: bytes) -> bool:
    """Tell whether a file is what an operating system left beside images."""
    *folders, name = path.split(b"/")
    if not _JUNK_FOLDERS.isdisjoint(folders):
        return True
    return any(fnmatch.fnmatchcase(os.fsdecode(name), pattern) for pattern in _JUNK)


def _stem(path: bytes) -> bytes:
    return os.path.splitext(path)[0].lower()


def _cut(name: bytes, size: int) -> bytes:
    """Return at most `size` bytes of a name, not ending within a character."""
    if len(name) <= size:
        return name
    while size and name[size] & 0xC0 == 0x80:
        size -= 1
    return name[:size]
