"""What comes in pieces of any size, written to a file as it comes, never held in memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

from dittohead.system.threads import in_thread
from dittohead.web.server.problems import Problem

#: Bytes that are written at once.
BLOCK = 1 << 20

#: Anyone who sends nothing for this long is let go. Seconds.
_PATIENCE_S = 60.0


async def write_chunks(chunks: AsyncIterator[bytes], fd: int, most: int) -> tuple[int, bytes]:
    """Write chunks as they come, and return (how many bytes, their SHA-256).

    Args:
        chunks: the bytes, in their order.
        fd: an open descriptor; writing begins at its offset.
        most: how many bytes may come at most.

    Raises: Problem: more came; OSError: it cannot be written.
    """
    digest, total, waiting = hashlib.sha256(), 0, bytearray()

    def put(data: bytes) -> None:
        digest.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]

    async def flush() -> None:
        data = bytes(waiting)
        waiting.clear()
        await in_thread(lambda stop: put(data))  # the file is not closed before it ends

    while chunk := await _next(chunks):
        total += len(chunk)
        if total > most:
            raise Problem(413, "this is more than there was to be")
        waiting += chunk
        if len(waiting) >= BLOCK:
            await flush()
    await flush()
    return total, digest.digest()


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """Return what comes next, b"" at the end. Raises: TimeoutError: nothing comes."""
    async with asyncio.timeout(_PATIENCE_S):
        return await anext(chunks, b"")
