"""A service that runs in a thread, reached over SFTP and over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
from aiohttp import web

from tests.support.preservation_service.rest import Api
from tests.support.preservation_service.sftp import server
from tests.support.preservation_service.state import PreservationService


@dataclass
class Served:
    service: PreservationService
    port: int  #: of SFTP
    url: str  #: of REST
    key: str  #: the client's private key
    known_hosts: Path

    @property
    def sftp(self) -> dict[str, Any]:
        """Options of a step that sends over SFTP; the key is the credential `sip.key`."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": self.service.user,
            "key": "sip.key",
            "known_hosts": str(self.known_hosts),
        }

    @property
    def rest(self) -> dict[str, Any]:
        """Options of a step that uses REST; the password is the credential `sip.password`."""
        return {
            "url": self.url,
            "user": self.service.user,
            "credential": "sip.password",
            "contract": self.service.contract,
        }

    @property
    def secrets(self) -> dict[str, str]:
        return {"sip.key": self.key, "sip.password": self.service.password}


@contextlib.contextmanager
def served(service: PreservationService, *, ticks_s: float = 0.0) -> Iterator[Served]:
    """Run a service until the block ends.

    Args:
        ticks_s: it ticks by itself so often; 0: only when it is told to.
    """
    ready, over = threading.Event(), threading.Event()
    host, client = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    found: dict[str, Any] = {}
    connections: list[asyncssh.SSHServerConnection] = []

    class Login(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            connections.append(conn)

        def begin_auth(self, username: str) -> bool:
            return True

        def public_key_auth_supported(self) -> bool:
            return True

        def validate_public_key(self, username: str, key: Any) -> bool:
            return username == service.user and key.public_data == client.public_data

    async def run() -> None:
        ssh = await asyncssh.listen(
            "127.0.0.1", found.get("port", 0), server_host_keys=[host], server_factory=Login, sftp_factory=server(service),
            config=None, allow_scp=False,
        )  # fmt: skip
        runner = web.AppRunner(Api(service).app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found["port"], found["http"] = ssh.get_port(), runner.addresses[0][1]
        ready.set()
        while not over.is_set():
            await asyncio.sleep(min(ticks_s or 0.02, 0.02))
            if ticks_s:
                await asyncio.to_thread(service.tick)
        ssh.close()
        for one in connections:
            one.abort()
            await one.wait_closed()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="preservation service")
    thread.start()
    try:
        assert ready.wait(30)
        hosts = service.base.parent / f"{service.base.name}.known_hosts"
        hosts.write_text(f"[127.0.0.1]:{found['port']} {host.export_public_key().decode()}")
        yield Served(
            service,
            found["port"],
            f"http://127.0.0.1:{found['http']}",
            client.export_private_key().decode(),
            hosts,
        )
    finally:
        over.set()
        thread.join()
