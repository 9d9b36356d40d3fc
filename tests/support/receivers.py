"""Servers that take notices: mail on aiosmtpd, HTTP on aiohttp; loopback, ports of their own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email
import email.policy
import hmac
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from email.message import EmailMessage
from typing import Any

from aiohttp import web
from aiosmtpd.controller import Controller


class Mailbox:
    """Keeps the mail it gets; refuses everything while `refusing`."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refusing = False
        self.port = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refusing:
            return "451 try again later"
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append(message)
        return "250 OK"


@contextlib.contextmanager
def mailbox() -> Iterator[Mailbox]:
    """Run a mail server until the block ends."""
    box = Mailbox()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        box.port = sock.getsockname()[1]
    controller = Controller(box, hostname="127.0.0.1", port=box.port)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()


class Receiver:
    """Keeps the JSON it is posted; answers with `status`."""

    def __init__(self) -> None:
        self.posts: list[Any] = []
        self.status = 200
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        if self.status == 200:
            self.posts.append(await request.json())
        return web.Response(status=self.status)


@contextlib.asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Run an HTTP server until the block ends."""
    made = Receiver()
    app = web.Application()
    app.router.add_post("/{tail:.*}", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


class Hook:
    """A receiver of webhooks that believes nothing: each header is checked as Standard Webhooks 1.0.0 has it.

    Written from the specification, not from the sender.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self.secrets = secrets  #: one of them must have signed
        self.taken: list[dict[str, Any]] = []  #: the payloads, with their "id"
        self.tries: list[str] = []  #: the id of each request that was in order, taken or not
        self.bodies: dict[str, set[bytes]] = {}
        self.wrong: list[str] = []
        self.answers: list[tuple[int, dict[str, str]]] = []  #: one for each try; then 204
        self.port = 0
        self.now: Callable[[], float] = time.time
        self.gets: list[str] = []  #: paths of GET requests

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            self.gets.append(request.path_qs)
        else:
            try:
                await self._take(request)
            except (AssertionError, KeyError, ValueError) as error:
                self.wrong.append(repr(error))
                return web.Response(status=400)
        status, headers = self.answers.pop(0) if self.answers else (204, {})
        if status < 300 and request.method != "GET":
            self.taken.append({"id": self.tries[-1], **json.loads(await request.read())})
        return web.Response(status=status, headers=headers)

    async def _take(self, request: web.Request) -> None:
        body, headers = await request.read(), request.headers
        id, moment = headers["webhook-id"], headers["webhook-timestamp"]
        assert re.fullmatch(r"[^.\s]+", id)
        assert re.fullmatch(r"[0-9]+", moment)
        assert abs(int(moment) - self.now()) < 300, "too old, or from the future"
        assert headers["Content-Type"] == "application/json"
        given = headers["webhook-signature"].split(" ")
        assert all(re.fullmatch(r"v1,[A-Za-z0-9+/]{43}=", signature) for signature in given)
        assert len(given) == len(set(given))
        keys = [base64.b64decode(secret.removeprefix("whsec_"), validate=True) for secret in self.secrets]
        content = b".".join((id.encode(), moment.encode(), body))
        ours = {b"v1," + base64.b64encode(hmac.digest(key, content, "sha256")) for key in keys}
        assert ours & {signature.encode() for signature in given}, "nobody we know has signed this"
        fields = json.loads(body)
        assert set(fields) == {"type", "timestamp", "data"}
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+", fields["type"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields["timestamp"])
        self.tries.append(id)
        self.bodies.setdefault(id, set()).add(body)
        assert len(self.bodies[id]) == 1, "the same id with another body"


@contextlib.asynccontextmanager
async def hook(*secrets: str) -> AsyncIterator[Hook]:
    """Run a receiver of webhooks until the block ends."""
    made = Hook(secrets)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def hook_in_thread(*secrets: str) -> Iterator[Hook]:
    """Run one beside a test that has no loop."""
    loop, ready, made = asyncio.new_event_loop(), threading.Event(), []

    async def serve() -> None:
        stop = asyncio.Event()
        async with hook(*secrets) as one:
            made.extend((one, stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(20)
    try:
        yield made[0]
    finally:
        loop.call_soon_threadsafe(made[1].set)
        thread.join()
        loop.close()
