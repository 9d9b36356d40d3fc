"""Servers that take notices: mail on aiosmtpd, HTTP on aiohttp; loopback, ports of their own."""

from __future__ import annotations

import contextlib
import email
import email.policy
import socket
from collections.abc import AsyncIterator, Iterator
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
