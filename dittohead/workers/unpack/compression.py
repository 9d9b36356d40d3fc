"""Decompress a stream piece by piece, to its very end: a trailer that is wrong or missing is said."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from dittohead.workers.unpack.broken import BrokenArchive

#: Bytes of a piece of what comes out: however much a few bytes may stand for, no more is held at once.
PIECE = 1 << 20

#: Bytes of memory that an xz stream may ask for: `xz -9` asks for 65 MiB.
_MEMORY = 256 << 20

#: Bytes that tell how a stream is compressed.
MAGIC_LENGTH = 6

_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"


class _Decompressor(Protocol):
    """What bz2, lzma and `_Gzip` have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface of the others; it compares CRC and length at the end."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._rest = b""
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._zlib.decompress(self._rest + data if self._rest else data, max_length)
        self._rest = self._zlib.unconsumed_tail
        # A full piece may have more behind it, which is held inside.
        self.needs_input = not self._rest and len(out) < max_length
        return out


_KINDS: dict[bytes, tuple[str, Callable[[], _Decompressor]]] = {
    _GZIP: ("gzip", _Gzip),
    _BZIP2: ("bzip2", bz2.BZ2Decompressor),
    _XZ: ("xz", lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY)),
}


def kind_of(head: bytes) -> str:
    """Return how a stream that begins so is compressed: "gzip", "bzip2", "xz", "zstd"; "" for none of these.

    Sources: RFC 1952, 2.3.1; bzip2's own header; The .xz File Format, 2.1.1.1; RFC 8878, 3.1.1.
    """
    if head.startswith(_ZSTD):
        return "zstd"
    return next((name for magic, (name, _) in _KINDS.items() if head.startswith(magic)), "")


def decompressed(pieces: Iterator[bytes], kind: str) -> Iterator[bytes]:
    """Yield what compressed pieces stand for, at most `PIECE` bytes at a time.

    Streams that follow each other count as one, as gzip, bzip2 and xz have it; zeros may follow the last.

    Args:
        kind: "gzip", "bzip2" or "xz".

    Raises: Broken: damaged, truncated, or something else follows.
    """
    magic, make = next((magic, make) for magic, (name, make) in _KINDS.items() if name == kind)
    stream = make()
    for piece in pieces:
        data = piece
        while data or not stream.needs_input:
            if stream.eof:
                if not data.strip(b"\0"):
                    break  # padding
                data = _whole_magic(data.lstrip(b"\0"), pieces)
                if not data.startswith(magic):
                    raise BrokenArchive(f"something follows the end of the {kind} stream")
                stream = make()
            try:
                out = stream.decompress(data, PIECE)
            except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
                raise BrokenArchive(f"its {kind} stream is damaged ({error})") from None
            if out:
                yield out
            data = stream.unused_data if stream.eof else b""
    if not stream.eof:
        raise BrokenArchive(f"its {kind} stream is truncated")


def _whole_magic(data: bytes, pieces: Iterator[bytes]) -> bytes:
    """Return data with as much more as a beginning needs."""
    while len(data) < MAGIC_LENGTH and (more := next(pieces, b"")):
        data += more
    return data
