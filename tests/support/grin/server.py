"""The simulated GRIN over HTTP: strict about who asks, what for, how much and how fast; with faults on demand."""

from __future__ import annotations

import asyncio
import contextlib
import html
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.support.grin.sign_in import SignIn
from tests.support.grin.world import COLUMNS, TITLES, World, etag

LISTS = tuple(COLUMNS)

#: Parameters that public clients send; anything else is refused here, so that a mistake is seen.
_KNOWN = {
    "format",
    "mode",
    "result_count",
    "first",
    "ctoken",
    "execute_query",
    "last_scan_date_start",
    "last_scan_date_end",
}

#: Characters of an address at most: clients keep below 7,500. Barcodes in one `_process`, by the same clients.
_URL_MOST, _BATCH_MOST = 8000, 200

UNAVAILABLE = "<html><body><h1>Sorry</h1><p>Your request is unavailable at this time.</p></body></html>"
LOGIN = "<html><head><title>Sign in - Google Accounts</title></head><body>Sign in</body></html>"


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose path ends so."""

    path: str
    kind: (
        str  #: throttled, login, cut, stall, 429, 500, 503, 404, 403, loses-answer, no-answer, off-host, rows
    )
    times: int = 1
    after: int = 0  #: bytes of an archive, or lines of a list, before it is cut
    headers: dict[str, str] = field(default_factory=dict)
    until: Callable[[], bool] = lambda: True  #: it is not cut before this is so


@dataclass
class Meter:
    """How fast and how many at once requests came."""

    at: deque[float] = field(default_factory=lambda: deque(maxlen=100_000))
    downloads: int = 0
    most_downloads: int = 0
    running: int = 0
    most_running: int = 0

    def most_in(self, seconds: float) -> int:
        """Return the most requests that began within so many seconds."""
        times, most, first = list(self.at), 0, 0
        for last, moment in enumerate(times):
            while moment - times[first] >= seconds:
                first += 1
            most = max(most, last - first + 1)
        return most


class Server:
    """GRIN, its sign-in and another host that a bearer must never reach."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.sign_in = SignIn()
        self.url = self.accounts = ""
        self.faults: list[Fault] = []
        self.meter = Meter()
        self.log: list[tuple[str, str, dict[str, str]]] = []  #: (method, path with query, headers)
        self.leaked: list[str] = []  #: Authorization headers that came to the other host
        self.no_length = self.no_ranges = False
        self.allowed = True  #: whether the account has rights
        self.page = 3  #: rows of an HTML page
        self.next_by = "first"  #: or ctoken
        self.html_order: list[str] | None = None  #: columns of converted ones' pages, in another order
        self.redirect_each = 0  #: every so manieth request is led to the same host first
        self.piece = 4096  #: bytes of an archive sent at once
        self.release = threading.Event()  #: ends what stalls
        self._count = 0
        #: What answers to `_process`: a test may put something else there.
        self.process_answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self._process

    # -- who asks ----------------------------------------------------------------------------

    def fail(self, path: str, kind: str, times: int = 1, **more: Any) -> None:
        self.faults.append(Fault(path, kind, times, **more))

    def _fault(self, path: str, *kinds: str) -> Fault | None:
        for fault in self.faults:
            if path.endswith(fault.path) and fault.times > 0 and (not kinds or fault.kind in kinds):
                fault.times -= 1
                return fault
        return None

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if not request.path.startswith("/libraries/"):
            return await handler(request)
        self.meter.at.append(time.monotonic())
        self.log.append((request.method, request.path_qs, dict(request.headers)))
        self.meter.running += 1
        self.meter.most_running = max(self.meter.most_running, self.meter.running)
        try:
            return await self._guarded(request, handler)
        finally:
            self.meter.running -= 1

    async def _guarded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        refused = self._refuse(request)
        if refused is not None:
            return refused
        fault = self._fault(
            request.path, "throttled", "login", "429", "500", "503", "404", "403", "off-host", "no-answer"
        )
        if fault is None:
            return await handler(request)
        if fault.kind in ("throttled", "login"):
            text = UNAVAILABLE if fault.kind == "throttled" else LOGIN
            return web.Response(text=text, content_type="text/html")
        if fault.kind == "off-host":
            return web.Response(status=302, headers={"Location": f"{self.accounts}/elsewhere"})
        if fault.kind == "no-answer":
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=500)
        return web.Response(status=int(fault.kind), text="no", headers=fault.headers)

    def _refuse(self, request: web.Request) -> web.Response | None:
        if len(str(request.url)) > _URL_MOST:
            return web.Response(status=414)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not self.sign_in.good(token):
            return web.Response(status=302, headers={"Location": f"{self.accounts}/ServiceLogin?continue=x"})
        if not self.allowed:
            return web.Response(status=403, text="Forbidden")
        self._count += 1
        if self.redirect_each and self._count % self.redirect_each == 0:
            return web.Response(status=302, headers={"Location": request.path_qs})
        if not request.path.startswith(f"/libraries/{self.world.library}/"):
            return web.Response(status=404)
        return None

    # -- lists -------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.StreamResponse:
        name, query = request.match_info["what"], request.query
        if name not in LISTS or set(query) - _KNOWN or request.method not in ("GET", "HEAD"):
            return web.Response(status=404 if name not in LISTS else 400)
        if query.get("format") != "text":
            return self._html(request, name)
        if "mode" in query and query["mode"] != "all":
            return web.Response(status=400)
        answer = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        cut = self._fault(request.path, "cut")
        async for piece in self._text(name, query, cut):
            await answer.write(piece)
        if cut is not None:
            assert request.transport is not None
            request.transport.abort()
            return answer
        await answer.write_eof()
        return answer

    async def _text(self, name: str, query: Any, cut: Fault | None) -> AsyncIterator[bytes]:
        lines: list[str] = []
        rows = self.world.rows(
            name, query.get("last_scan_date_start", ""), query.get("last_scan_date_end", "")
        )
        for sent, row in enumerate(rows):
            if cut is not None and sent >= cut.after:
                break
            cells = [row.get(column, "") for column in COLUMNS[name]]
            lines.append("\t".join(cells) if query.get("mode") == "all" else cells[0])
            if len(lines) >= 5000:
                yield ("\n".join(lines) + "\n").encode()
                lines = []
                await asyncio.sleep(0)
        if lines:
            yield ("\n".join(lines) + "\n").encode()

    def _html(self, request: web.Request, name: str) -> web.Response:
        query = request.query
        size = int(query.get("result_count", self.page))
        rows = list(
            self.world.rows(name, query.get("last_scan_date_start", ""), query.get("last_scan_date_end", ""))
        )
        size = len(rows) if size == -1 else min(size, self.page)
        begin = int(query.get("first") or query.get("ctoken", "t0")[1:] or 0)
        columns = (self.html_order if name == "_converted" else None) or list(COLUMNS[name])
        head = "".join(f'<td><span class="hd3">{html.escape(TITLES[c])}</span></td>' for c in columns)
        body = "".join(
            "<tr>" + "".join(_cell(c, row.get(c, "")) for c in columns) + "</tr>\n"
            for row in rows[begin : begin + size]
        )
        after = begin + size
        link = ""
        if after < len(rows):
            where = f"first={after}" if self.next_by == "first" else f"ctoken=t{after}"
            link = f'<a href="{name}?result_count={size}&amp;{where}">Next&nbsp;&gt;</a>'
        text = f'<html><body><table><tr class="heading">{head}</tr><tbody>{body}</tbody></table>{link}</body></html>'
        return web.Response(text=text, content_type="text/html")

    async def _search(self, request: web.Request) -> web.Response:
        """Details of volumes: a table with a header, whose rows may be shorter than it."""
        query = request.query
        wanted = {"execute_query": "true", "format": "text", "mode": "full"}
        if {key: query.get(key) for key in wanted} != wanted or set(query) != {*wanted, "barcodes"}:
            return web.Response(status=400)
        lines = ["Barcode\tState\tViewability\tOverall Error%\tSource Library Bibkey\tRubbish"]
        for barcode in query["barcodes"].split(" "):
            if (book := self.world.books.get(barcode)) is not None:
                lines.append("\t".join([barcode, *book.details]))
        return web.Response(text="\n".join(lines) + "\n", content_type="text/plain")

    # -- conversions -------------------------------------------------------------------------

    async def _asked(self, request: web.Request) -> web.StreamResponse:
        return await self.process_answer(request)

    async def _process(self, request: web.Request) -> web.Response:
        given: list[str] = []
        for value in request.query.getall("barcodes", []):
            given += value.split(",")
        given += (
            [line.strip() for line in (await request.text()).split("\n")] if request.method == "POST" else []
        )
        given = [barcode for barcode in given if barcode]
        if len(given) > _BATCH_MOST or not given:
            return web.Response(status=400)
        if len(self.world.in_process) >= self.world.queue_limit:
            return web.Response(status=429, text="Too many requests in queue")
        lost = self._fault(request.path, "loses-answer")
        lines = ["Barcode\tStatus", *(f"{barcode}\t{self.world.process(barcode)}" for barcode in given)]
        if lost is not None:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text="\n".join(lines) + "\n", content_type="text/plain")

    # -- archives ----------------------------------------------------------------------------

    async def _archive(self, request: web.Request) -> web.StreamResponse:
        book = self.world.by_file(request.match_info["file"])
        if book is None or book.archive is None:
            return web.Response(status=404)
        data, headers = book.archive, {"ETag": etag(book.archive), "Content-Type": "application/octet-stream"}
        begin, status = 0, 200
        wanted = request.headers.get("Range", "")
        if wanted and not self.no_ranges and request.headers.get("If-Range", etag(data)) == etag(data):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin, status = int(first), 206
            if begin >= len(data):
                return web.Response(status=416)
            end = int(last) if last else len(data) - 1
            headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
            data = data[: end + 1]
        answer = web.StreamResponse(status=status, headers=headers)
        if self.no_length:
            answer.enable_chunked_encoding()
        else:
            answer.content_length = len(data) - begin
        if request.method == "HEAD":
            if self.no_length:
                return web.Response(headers={**headers, "Transfer-Encoding": "chunked"})
            await answer.prepare(request)
            return answer
        return await self._send(request, answer, data, begin)

    async def _send(
        self, request: web.Request, answer: web.StreamResponse, data: bytes, begin: int
    ) -> web.StreamResponse:
        self.meter.downloads += 1
        self.meter.most_downloads = max(self.meter.most_downloads, self.meter.downloads)
        fault = self._fault(request.path, "cut", "stall")
        try:
            await answer.prepare(request)
            sent = 0
            for start in range(begin, len(data), self.piece):
                if fault is not None and sent >= fault.after:
                    await self._break(request, fault)
                piece = data[start : start + self.piece]
                await answer.write(piece)
                sent += len(piece)
            await answer.write_eof()
        finally:
            self.meter.downloads -= 1
        return answer

    async def _break(self, request: web.Request, fault: Fault) -> None:
        while not fault.until():
            await asyncio.sleep(0.005)
        if fault.kind == "stall":
            while (
                not self.release.is_set()
                and request.transport is not None
                and not request.transport.is_closing()
            ):
                await asyncio.sleep(0.01)
        assert request.transport is None or request.transport.abort() is None
        raise ConnectionResetError

    # -- serving -----------------------------------------------------------------------------

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=1 << 24)
        app.router.add_route("*", "/libraries/{library}/_process", self._asked)
        app.router.add_get("/libraries/{library}/_barcode_search", self._search)
        app.router.add_get("/libraries/{library}/{what:_[a-z_]+}", self._list)
        app.router.add_get("/libraries/{library}/{file:[^_].*\\.tar\\.gz\\.gpg}", self._archive)
        app.router.add_get("/libraries/{library}/", self._summary)
        app.router.add_get("/auth", self.sign_in.consent)
        app.router.add_post("/token", self.sign_in.give)
        return app

    async def _summary(self, request: web.Request) -> web.Response:
        return web.Response(text=f"all_books\t{len(self.world.books)}\n", content_type="text/plain")

    def other(self) -> web.Application:
        async def trap(request: web.Request) -> web.Response:
            if "Authorization" in request.headers:
                self.leaked.append(request.headers["Authorization"])
            return web.Response(text=LOGIN, content_type="text/html")

        app = web.Application()
        app.router.add_route("*", "/{anything:.*}", trap)
        return app

    @property
    def library_url(self) -> str:
        return f"{self.url}/libraries/{self.world.library}"


def _cell(column: str, text: str) -> str:
    shown = html.escape(text)
    return f'<td><a href="{shown}">view</a></td>' if column == "link" and text else f"<td>{shown}</td>"


@contextlib.contextmanager
def serving(world: World | None = None) -> Iterator[Server]:
    """Serve until the block ends, in a thread with a loop of its own."""
    made = Server(world)
    loop = asyncio.new_event_loop()
    runners: list[web.AppRunner] = []

    async def start() -> None:
        for app in (made.app(), made.other()):
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handler_cancellation=True)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            runners.append(runner)
        made.url, made.accounts = (f"http://127.0.0.1:{runner.addresses[0][1]}" for runner in runners)

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.release.set()

        async def stop() -> None:
            for runner in runners:
                await runner.cleanup()

        asyncio.run_coroutine_threadsafe(stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
