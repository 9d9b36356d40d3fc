"""A slice of a file as a request's body: read in pieces as it is sent, however large it is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import payload, payload_type
from aiohttp.abc import AbstractStreamWriter

#: Bytes read and sent at a time: a write of this size holds the loop for well under a millisecond.
PIECE = 256 * 1024


class Slice:
    """Bytes `start` to `start + size` of an open file, to be given to botocore as `Body`.

    Nothing is held in memory but the piece under way, and reading happens in threads, so that a
    part of hundreds of megabytes costs no more than a small one.

    Args:
        fd: stays open until the request has ended.
        piece_sent: awaited before each piece, with its size: the place for limits and signs of life.
        data: the bytes, where they are in memory already.
    """

    def __init__(
        self,
        fd: int,
        start: int,
        size: int,
        piece_sent: Callable[[int], Awaitable[None]],
        data: bytes | None = None,
    ) -> None:
        self.fd, self.start, self.size, self.piece_sent = fd, start, size, piece_sent
        self.data = data

    def __len__(self) -> int:
        return self.size

    def read(self, size: int = -1) -> bytes:
        """Refuse: botocore only wants to see that there is such a method."""
        raise TypeError("a slice is sent by aiohttp, in pieces")

    def seek(self, offset: int, whence: int = 0) -> int:
        """Do nothing: every sending begins at the start."""
        return 0

    def tell(self) -> int:
        """Return 0."""
        return 0


@payload_type(Slice)
class _SlicePayload(payload.Payload):
    """How aiohttp sends a Slice."""

    _value: Slice

    def __init__(self, value: Slice, *args: Any, **kwargs: Any) -> None:
        super().__init__(value, *args, **kwargs)
        self._size = value.size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a slice is not text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        part = self._value
        at, end = part.start, part.start + part.size
        while at < end:
            if part.data is not None:
                piece = part.data[at - part.start : at - part.start + PIECE]
            else:
                piece = await asyncio.to_thread(os.pread, part.fd, min(PIECE, end - at), at)
            if not piece:
                raise OSError("the file has become shorter")
            await part.piece_sent(len(piece))
            await writer.write(piece)
            at += len(piece)
