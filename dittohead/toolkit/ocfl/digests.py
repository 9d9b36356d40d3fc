"""The digest algorithms of OCFL, several of them taken in one read. Source: OCFL 1.1, 3.4."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import Any

from dittohead.system import files

#: For manifests, states and side-cars.
MAIN = ("sha512", "sha256")

#: For the fixity block and for layouts: those that every client must know.
FIXITY = ("md5", "sha1", "sha256", "sha512", "blake2b-512")

#: Those that the extensions 0001 and 0009 name besides; they are not checked here.
OTHERS = frozenset(
    {"blake2b-160", "blake2b-256", "blake2b-384", "sha512/256", "size", "crc32", "xxh32", "xxh64", "xxh128"}
)


def new(algorithm: str) -> Any:
    """Return a hash object of one of `FIXITY`."""
    return hashlib.new("blake2b" if algorithm == "blake2b-512" else algorithm, usedforsecurity=False)


def of_text(algorithm: str, text: str) -> str:
    """Return the digest of a text's UTF-8, in lower-case hex digits."""
    found = new(algorithm)
    found.update(text.encode())
    return str(found.hexdigest())


def of_data(algorithm: str, data: bytes) -> str:
    """Return the digest of some bytes, in lower-case hex digits."""
    found = new(algorithm)
    found.update(data)
    return str(found.hexdigest())


def of_file(
    fd: int, algorithms: Collection[str], on_block: Callable[[memoryview], None] = lambda block: None
) -> dict[str, str]:
    """Return the digests of an open file by algorithm, from one read from where it stands.

    Args:
        fd: the file.
        algorithms: some of `FIXITY`.
        on_block: is given each block that was read; may raise to stop.
    """
    found = {algorithm: new(algorithm) for algorithm in algorithms}
    files.hash_fd(fd, found.values(), files.hash_buffer(), on_block)
    return {algorithm: str(one.hexdigest()) for algorithm, one in found.items()}
