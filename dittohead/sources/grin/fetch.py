"""An archive's way to the disk: gone on with at the byte where it broke, as long as it is the same archive.

Beside the part lies its ETag. If-Range makes GRIN send the rest only of that very archive; where it ignores
ranges, or has another archive now, it sends all of it, and the part begins again. The ETag is not a checksum:
that the bytes are right is known when the archive is decrypted and its own checksums are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiohttp

from dittohead.contract.catalogue import Keep, Told
from dittohead.contract.source import Fetch, Item, Sighting, folder_fault
from dittohead.model.errors import TransientError
from dittohead.sources.grin import options as words
from dittohead.sources.grin.client import Grin
from dittohead.sources.grin.options import VOLUME, GrinOptions
from dittohead.system import fail_points
from dittohead.system.files import write_durably

#: Bytes written at once.
_PIECE = 1 << 20

_PART, _ETAG = ".part", ".etag"

#: Bytes of a file's name. Source: limits.h, NAME_MAX.
_NAME_MOST = 255

#: Characters of an ETag.
_ETAG_MOST = 1000


@dataclass(frozen=True)
class Archive:
    """An archive as GRIN has it now."""

    etag: str  #: as it was sent, with its quotes
    size: int  #: bytes


async def archive_of(grin: Grin, file: str) -> Archive | None:
    """Return an archive's ETag and size, without fetching it; None where there is none.

    Raises: SourceStopped, TransientError.
    """
    async with grin.request("HEAD", quote(file)) as answer:
        if answer.status == 404:
            return None
        etag, size = answer.headers.get("ETag", ""), answer.headers.get("Content-Length", "")
    if not etag:
        raise TransientError("GRIN gives no ETag for it", where=file)
    if len(etag) > _ETAG_MOST or not etag.isascii() or not etag.isprintable():
        raise TransientError("GRIN gives an ETag for it that no request can name", where=file)
    if not size.isdecimal():
        return await _by_range(grin, file, etag)
    return Archive(etag, int(size))


async def _by_range(grin: Grin, file: str, etag: str) -> Archive | None:
    """Return the size of an archive that HEAD does not give: the range of one byte names the whole."""
    async with grin.request("GET", quote(file), headers={"Range": "bytes=0-0"}) as answer:
        if answer.status == 404:
            return None
        whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if answer.status != 206 or not whole.isdecimal():
            raise TransientError("GRIN does not say how large it is", where=file)
        return Archive(answer.headers.get("ETag", etag), int(whole))


def file_fault(file: str) -> str:
    """Return why an archive of this name cannot be fetched; "" when it can: beside it lie its notes."""
    return "" if len(f".{file}{_PART}".encode()) <= _NAME_MOST else "its archive's name is too long"


def sighting(barcode: str, file: str, archive: Archive, *, priority: int = 0, turn: str = "") -> Sighting:
    """Return an archive as the engine knows it.

    Args:
        barcode: the volume's.
        file: what GRIN calls the archive.
        archive: as GRIN has it now.
        priority: higher is fetched first.
        turn: another than before has the same archive fetched again.
    """
    return Sighting(
        key=file,
        folder=barcode,
        path=file,
        version=archive.etag,
        size=archive.size,
        refused=folder_fault(barcode),
        priority=priority,
        turn=turn,
        data={"barcode": barcode},
    )


class Fetcher:
    """Fetches archives for one source."""

    def __init__(self, options: GrinOptions, keep: Keep, grin: Grin) -> None:
        self._options, self._keep, self._grin = options, keep, grin

    async def fetch(self, ctx: Fetch, item: Item) -> None:
        """Bring one archive. Raises: SourceStopped, TransientError."""
        whole, part, note = (ctx.root / f"{prefix}{item.path}{ending}" for prefix, ending in _NAMES)
        if whole.exists() and whole.stat().st_size == item.size and _read(note) == item.version:
            await self._done(ctx, item, part, note)
            return
        have = _size(part) if _read(note) == item.version else 0
        have = have if have <= item.size else 0
        if have == item.size:  # killed before it got its name
            await asyncio.to_thread(os.replace, part, whole)
            await self._done(ctx, item, part, note)
            return
        status = await self._receive(item, part, note, have)
        if status == 404:
            await self._gone(ctx, item)
        elif status == 0:
            await asyncio.to_thread(_forget, part, note)
            await self._other(ctx, item)
        elif _size(part) != item.size:
            said = f"{_size(part):,} of {item.size:,} bytes came; it goes on there"
            raise TransientError(said, where=item.key)
        else:
            await asyncio.to_thread(os.replace, part, whole)
            await self._done(ctx, item, part, note)

    async def _receive(self, item: Item, part: Path, note: Path, have: int) -> int:
        """Write what is missing of an archive; return the answer's status, 0 for another archive."""
        headers = {"Range": f"bytes={have}-", "If-Range": item.version} if have else {}
        async with (
            self._grin.access.limits.download(),
            self._grin.request("GET", quote(item.key), headers=headers) as answer,
        ):
            if answer.status == 416 or answer.headers.get("ETag", item.version) != item.version:
                return 404 if answer.status == 404 else 0
            if answer.status == 404:
                return 404
            begin = _begin(answer, have)
            await asyncio.to_thread(write_durably, note, item.version.encode())
            await self._write(answer, part, begin, item.size)
            return answer.status

    async def _write(self, answer: aiohttp.ClientResponse, part: Path, begin: int, most: int) -> None:
        """Write what comes from `begin` on; what is longer than it was said to be is not this archive."""
        with open(part, "r+b" if part.exists() else "w+b") as file:
            file.truncate(begin)
            file.seek(begin)
            async for piece in answer.content.iter_chunked(_PIECE):
                if file.tell() + len(piece) > most:
                    raise TransientError(f"more than its {most:,} bytes came", where=str(answer.url))
                await asyncio.to_thread(file.write, piece)
                fail_points.point("source.piece")

    async def _done(self, ctx: Fetch, item: Item, part: Path, note: Path) -> None:
        await asyncio.to_thread(_forget, part, note)
        await ctx.fetched(item, f"size and the ETag {item.version}")

    async def _gone(self, ctx: Fetch, item: Item) -> None:
        """It has left the pool: it is asked for again, but not forever."""
        barcode = str(item.data.get("barcode", ctx.root.name.removeprefix(".")))
        entry = (await self._keep.catalogue.get(VOLUME, [barcode])).get(barcode)
        times = 1 + int(entry.attributes.get("evictions", 0) if entry is not None else 0)
        again = times <= self._options.evictions
        why = "it left the pool of converted volumes before it was fetched"
        told = Told(
            key=barcode,
            state=words.PREVIOUS,
            stage=words.WANTED if again else words.ASIDE,
            reason=why if again else f"{why}, {times} times",
            attributes={"evictions": times, "file": None},
        )
        await self._keep.catalogue.tell(VOLUME, [told], by="fetch", only_known=True)
        await ctx.gone(item)

    async def _other(self, ctx: Fetch, item: Item) -> None:
        """It is another archive now."""
        now = await archive_of(self._grin, item.key)
        if now is None:
            await self._gone(ctx, item)
        else:
            await ctx.changed(sighting(str(item.data["barcode"]), item.key, now))


#: How the archive, its part and its ETag are called while it is fetched: (before, behind) its name.
_NAMES = (("", ""), (".", _PART), (".", _ETAG))


def _begin(answer: aiohttp.ClientResponse, have: int) -> int:
    """Return at which byte an answer begins. Raises: TransientError: at none that was asked for."""
    if answer.status != 206:
        return 0
    said = answer.headers.get("Content-Range", "")
    if not said.startswith(f"bytes {have}-"):
        raise TransientError(f'GRIN sends another part than it was asked for ("{said[:60]}")')
    return have


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace")
    return ""


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _forget(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
