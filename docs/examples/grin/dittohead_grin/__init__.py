"""grin: volumes that a library has scanned by Google, requested and fetched by GRIN.

A directory holds a file for each barcode that is wanted. A round asks GRIN to convert those it has not
converted, and tells the engine of those it has; the file goes when the volume's job is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import aiohttp
from pydantic import Field

from dittohead import (
    Fetch,
    Item,
    Look,
    Order,
    Sighting,
    Source,
    SourceOptions,
    TargetError,
    TransientError,
    Upstream,
)

ENDING = ".tar.gz.gpg"
#: What `_process` says of a barcode that needs no more asking; all else is shown to people.
ASKED = ("success", "already")
BATCH = 200  # barcodes in one request


class GrinOptions(SourceOptions):
    """What the source may be told."""

    url: str = Field(description="Such as `https://books.google.com/libraries/HARVARD`.")
    credential: str = Field(description="Name of the credential file that holds an OAuth 2 access token.")
    wanted: Path = Field(description="Directory that holds an empty file for each barcode that is wanted.")
    in_process: int = Field(
        50, ge=1, description="Volumes that GRIN is to convert at the same time, at most."
    )
    gap: float = Field(0.25, ge=0, description="Seconds between two requests, at least.")


class Library(Upstream):
    """A library's place at GRIN."""

    def __init__(self, options: GrinOptions, session: aiohttp.ClientSession) -> None:
        self.options, self.session = options, session
        self._turn, self._last = asyncio.Lock(), 0.0

    async def look(self, ctx: Look) -> None:
        """Tell of what is converted; ask for the conversion of what is not."""
        tokens = await asyncio.to_thread(_tokens, self.options.wanted)
        # In the order in which a volume moves on: one that does so meanwhile is in the later list.
        under_way, failed = await self._list("_in_process"), await self._list("_failed")
        converted = {self._barcode(file): file for file in await self._list("_converted")}
        for barcode in sorted(tokens.keys() & converted.keys()):
            file = converted[barcode]
            if file.startswith(ctx.prefix) and (now := await self._sighting(file)) is not None:
                await ctx.saw([now])
                await ctx.ordered(barcode, [file], {})
        if ctx.dry or ctx.prefix:
            return
        # One that is known is being worked on, unless the fetch found it gone and said so.
        known = await ctx.orders(sorted(tokens))
        missing = [
            code for code in sorted(tokens.keys() - converted.keys()) if code not in known or tokens[code]
        ]
        for barcode in set(missing) & set(failed):
            await ctx.unreadable(barcode, "GRIN could not convert it", {})
        ask = [code for code in missing if code not in failed and code not in under_way]
        room = max(self.options.in_process - len(under_way), 0)
        for begin in range(0, min(len(ask), room), BATCH):
            await self._ask(ctx, ask[begin : min(begin + BATCH, room)])

    async def _ask(self, ctx: Look, barcodes: Sequence[str]) -> None:
        async with self._request("POST", "_process", data="\n".join(barcodes)) as answer:
            lines = (await answer.text()).splitlines()
        for line in lines[1:]:  # the first is Barcode<TAB>Status
            barcode, _, status = line.partition("\t")
            if not status.lower().startswith(ASKED):
                await ctx.unreadable(barcode, f"GRIN says: {status}", {})
            elif barcode in barcodes:
                await asyncio.to_thread((self.options.wanted / barcode).write_text, "")

    async def fetch(self, ctx: Fetch) -> None:
        """Fetch a volume's archive; a broken one is gone on with, as long as it is the same."""
        async for item in ctx.items():
            await self._fetch_one(ctx, item)

    async def _fetch_one(self, ctx: Fetch, item: Item) -> None:
        path, note = ctx.root / item.path, ctx.root / ".etag"
        have = (
            path.stat().st_size if path.exists() and note.exists() and note.read_text() == item.version else 0
        )
        have = have if have < item.size else 0
        headers = {"Range": f"bytes={have}-", "If-Range": f'"{item.version}"'} if have else {}
        async with self._request("GET", item.key, headers=headers) as answer:
            if answer.status == 404:  # the pool of converted volumes is small, and the oldest go
                (self.options.wanted / self._barcode(item.key)).write_text("again")
                return await ctx.gone(item)
            if answer.headers.get("ETag", "").strip('"') != item.version:
                now = await self._sighting(item.key)
                return await (ctx.gone(item) if now is None else ctx.changed(now))
            note.write_text(item.version)
            with open(path, "ab" if answer.status == 206 else "wb") as file:
                async for chunk in answer.content.iter_chunked(1 << 20):
                    await asyncio.to_thread(file.write, chunk)
        if path.stat().st_size != item.size:
            raise TransientError(f"{path.stat().st_size:,} of {item.size:,} bytes came", where=item.key)
        note.unlink()
        await ctx.fetched(item, "size and ETag")
        return None

    async def settle(self, orders: Sequence[Order]) -> AsyncIterator[Order]:
        """Take the files of volumes away whose jobs are done."""
        for order in orders:
            with contextlib.suppress(FileNotFoundError):
                await asyncio.to_thread((self.options.wanted / order.handle).unlink)
            yield order

    def _barcode(self, file: str) -> str:
        return file.removesuffix(ENDING).removeprefix(self.options.url.rpartition("/")[2] + "_")

    async def _sighting(self, file: str) -> Sighting | None:
        async with self._request("HEAD", file) as answer:
            if answer.status == 404:
                return None
            version, size = answer.headers["ETag"].strip('"'), int(answer.headers["Content-Length"])
        return Sighting(key=file, folder=self._barcode(file), path=file, version=version, size=size)

    async def _list(self, name: str) -> list[str]:
        async with self._request("GET", f"{name}?format=text") as answer:
            text = await answer.text()
        if answer.status == 404 or "<" in text:  # such as "Your request is unavailable", with status 200
            raise TransientError("GRIN answers with a page where a list is wanted", where=name)
        return [line.split("\t")[0].strip() for line in text.splitlines() if line.strip()]

    @asynccontextmanager
    async def _request(
        self, method: str, what: str, **given: object
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a request; raise what its status means. 404 is the caller's."""
        url = f"{self.options.url}/{what}"
        try:
            for _ in range(5):
                async with self._turn:
                    await asyncio.sleep(max(self._last + self.options.gap - time.monotonic(), 0))
                    self._last = time.monotonic()
                async with self.session.request(method, url, allow_redirects=False, **given) as answer:  # type: ignore[arg-type]
                    if answer.status != 302:
                        _judge(answer)
                        yield answer
                        return
                    # The token goes to GRIN's own host and to no other.
                    url = urljoin(url, answer.headers["Location"])
                    if urlsplit(url).netloc != urlsplit(self.options.url).netloc:
                        raise TargetError("the access token is not good any more", where=self.options.url)
            raise TransientError("GRIN leads from one address to the next", where=url)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TransientError(f"{type(error).__name__}: {error}", where=url) from error


def _judge(answer: aiohttp.ClientResponse) -> None:
    if answer.status in (401, 403):
        raise TargetError("GRIN does not let this account in", where=str(answer.url))
    if answer.status >= 400 and answer.status != 404:
        wait = answer.headers.get("Retry-After", "")
        raise TransientError(
            f"GRIN answers with {answer.status}",
            where=str(answer.url),
            retry_after_s=float(wait) if wait.isdecimal() else None,
        )


def _tokens(wanted: Path) -> dict[str, str]:
    """Return what is wanted: barcode -> what its file says, "" or "again"."""
    return {path.name: path.read_text().strip() for path in wanted.iterdir() if not path.name.startswith(".")}


class GrinSource(Source[GrinOptions]):
    """Volumes from Google Books, by GRIN."""

    name = "grin"
    Options = GrinOptions

    def check(self, options: GrinOptions) -> list[str]:
        """Find the directory of what is wanted."""
        return [] if options.wanted.is_dir() else [f"{options.wanted} is no directory; make it"]

    @asynccontextmanager
    async def open(self, options: GrinOptions, secret: Callable[[str], str]) -> AsyncIterator[Upstream]:
        """Open a session that says who asks. An archive may take hours; a minute of silence ends it."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
        headers = {"Authorization": f"Bearer {secret(options.credential)}"}
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            yield Library(options, session)
