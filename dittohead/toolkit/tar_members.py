"""Members of a tar archive that is the same bytes each time: no owners, no times and modes of their own."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dittohead.model.errors import ItemError
from dittohead.model.records import Entry
from dittohead.system import files

#: Two blocks of zeros end an archive. Source: POSIX.1-2024, pax, "ustar Interchange Format".
END = bytes(2 * tarfile.BLOCKSIZE)


def header(name: bytes, size: int, mtime: int) -> bytes:
    """Return the header of a regular file, with an extended one where the name needs it.

    Args:
        name: as it is to stand in the archive.
        size: of the content, bytes.
        mtime: seconds since the epoch.
    """
    member = tarfile.TarInfo(os.fsdecode(name))
    member.size, member.mtime, member.mode = size, mtime, 0o644
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """Return what follows a content of so many bytes, up to the next block."""
    return bytes(-size % tarfile.BLOCKSIZE)


def content(
    root: Path | bytes, entry: Entry, stopped: Callable[[], None], hint: str, also: Sequence[Any] = ()
) -> Iterator[bytes]:
    """Yield the bytes of a file, and see at the end that they are what they were.

    Args:
        root: what the entry's path is relative to.
        entry: the file, with its size and SHA-256.
        stopped: called before each piece; may raise.
        hint: what to do where the file is not what it was.
        also: hash objects that are updated with each piece.

    Raises: ItemError: the file has changed; OSError.
    """
    read, digest = 0, hashlib.sha256()
    with files.opened_beneath(root, entry.path) as fd:
        while piece := os.read(fd, min(files.BLOCK, entry.size - read + 1)):
            stopped()
            read += len(piece)
            for one in (digest, *also):
                one.update(piece)
            yield piece
    if read != entry.size or digest.hexdigest() != entry.sha256:
        what = "this file is not what it was when its digest was taken"
        raise ItemError(what, where=os.fsdecode(entry.path), hint=hint)
