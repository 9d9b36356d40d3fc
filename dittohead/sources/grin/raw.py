"""GRIN's lists as they came: kept in files, whole, each with its digest; read again in pieces."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp

from dittohead.contract.catalogue import BATCH
from dittohead.model.errors import TransientError
from dittohead.system.files import fsync_dir, fsync_file, make_way

#: Bytes read from GRIN, and written, at once.
_PIECE = 1 << 20

#: Bytes of a list, unpacked: a million lines with all columns have some 200 MB.
_MOST = 4 << 30

#: Bytes of a line; a longer one does not belong to a list.
_LINE_MOST = 1 << 16

#: The level of gzip: lists shrink to a third at the speed of the line.
_LEVEL = 1


#: Stands for a line that is none: it has no barcode.
_UNREADABLE = "\0"


def name_for(listing: str, began: float, ending: str) -> str:
    """Return the path of a list's file below the source's directory."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(began))
    plain = re.sub(r"[^A-Za-z0-9_-]", "", listing)
    return f"listings/{plain}-{stamp}-{int(began * 1000) % 1000:03}.{ending}.gz"


async def store_text(answer: aiohttp.ClientResponse, path: Path) -> None:
    """Write the lines of an answer into a file that is there whole and durable, or not at all.

    Raises: TransientError: it ended in the middle, or is a page.
    """
    part = path.with_name(f".{path.name}.part")
    await asyncio.to_thread(_prepare, part)
    file = await asyncio.to_thread(gzip.open, part, "wb", _LEVEL)
    try:
        with contextlib.closing(file):
            first, size = True, 0
            async for piece in answer.content.iter_chunked(_PIECE):
                if first and piece.lstrip()[:1] == b"<":
                    raise TransientError("GRIN answers with a page in place of a list")
                first, size = False, size + len(piece)
                if size > _MOST:
                    raise TransientError(f"GRIN sends a list of more than {_MOST:,} bytes")
                await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(_publish, part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def _prepare(part: Path) -> None:
    part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_way(part)


def _publish(part: Path, path: Path) -> None:
    # 1 fsync  2 rename  3 fsync the directory
    fsync_file(part)
    os.replace(part, path)
    fsync_dir(path.parent)


def append_page(path: Path, data: bytes, begin: int) -> int:
    """Write a page behind the first `begin` bytes of a file, durably; return its size. Blocking.

    What a killed round wrote behind them goes.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "r+b" if path.exists() else "w+b") as file:
        file.truncate(begin)
        file.seek(begin)
        file.write(gzip.compress(data, _LEVEL))
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


async def lines(path: Path, after: int) -> AsyncIterator[tuple[int, list[str]]]:
    """Yield (lines read so far, the next of them) of a kept list, in bounded memory.

    Args:
        after: lines to be left out at its beginning.

    Raises: TransientError: the file is not there or damaged; the list is to be read again.
    """
    source = await asyncio.to_thread(_opened, path)
    with contextlib.closing(source):
        reader = _batches(source)
        at = 0
        while True:
            try:
                batch = await asyncio.to_thread(next, reader, None)
            except (OSError, EOFError) as error:
                raise TransientError("a kept list is damaged; it is read again", where=str(path)) from error
            if batch is None:
                return
            at += len(batch)
            if at > after:
                yield at, batch[max(len(batch) - (at - after), 0) :]


def _opened(path: Path) -> gzip.GzipFile:
    try:
        return gzip.GzipFile(path, "rb")
    except OSError as error:
        raise TransientError("a kept list is not there; it is read again", where=str(path)) from error


def _batches(source: gzip.GzipFile) -> Iterator[list[str]]:
    batch: list[str] = []
    while line := source.readline(_LINE_MOST):
        text = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
        while line and not line.endswith(b"\n") and len(line) == _LINE_MOST:
            text = _UNREADABLE
            line = source.readline(_LINE_MOST)
        batch.append(text)
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
