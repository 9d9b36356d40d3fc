"""The HTTP front of a root without a daemon: served on real sockets, its actions carried out in this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from dittohead import web
from dittohead.admin.actions import Actions
from dittohead.admin.request_queue import RequestQueue
from dittohead.admin.verify import Report, verify_job
from dittohead.config.settings import Http
from dittohead.engine.metrics import Metrics
from dittohead.model.records import Job
from dittohead.system.credentials import Credentials
from dittohead.web.server.app_state import AppState
from tests.support.harness import CONFIG, Harness

OPERATOR = "operator-token-0123456789"
READER = "reader-token-0123456789"
TOKENS = f"operator alice {OPERATOR}\nreader bob {READER}\n"


class WebHarness:
    """A harness, what it serves, and clients of several kinds."""

    def __init__(self, root: Path, tokens: str = TOKENS, config: str = CONFIG, **settings: Any) -> None:
        self.harness = Harness(root, config)
        self.credential = root / "credentials" / "people"
        self.credential.parent.mkdir(exist_ok=True)
        self.write_tokens(tokens)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        given = {"listen": f"127.0.0.1:{self.port}", "tokens": "people", **settings}
        self.settings = Http.model_validate(given)
        self.progress: dict[str, Any] = {}
        self._answering: set[asyncio.Task[Any]] = set()
        self._lock = asyncio.Lock()
        self.verifying = asyncio.Event()  #: comparisons wait for it
        self.verifying.set()

    def write_tokens(self, text: str) -> None:
        self.credential.write_text(text)

    def _site(self) -> AppState:
        queue = RequestQueue(self.harness.store, self._poke)
        self.actions = Actions(
            self.harness.engine, self.harness.dispatch, queue=queue, config=lambda: self.harness.config
        )
        return AppState(
            store=self.harness.store,
            stations=self.harness.stations,
            queue=queue,
            metrics=Metrics(),
            live=lambda: {"watcher": {"mode": "polling"}, "progress": self.progress, "sources": {}},
            config=lambda: self.harness.config,
            credential=Credentials(self.harness.config.path),
            examine=self._examine,
            reload=self._reload,
            verify=self._verify,
        )

    async def _examine(self) -> list[dict[str, str]]:
        return [{"level": "good", "about": "stations", "message": "as it should be"}]

    async def _reload(self) -> str:
        return str(self.harness.config.path)

    def _verify(self, job: Job) -> tuple[Awaitable[dict[str, Any]], Callable[[], tuple[int, int]]]:
        report, harness = Report(job.id), self.harness

        async def work() -> dict[str, Any]:
            await self.verifying.wait()
            secret = {}.__getitem__
            return (
                await verify_job(job, harness.store, harness.stations, harness.workers, secret, report)
            ).as_dict()

        return work(), lambda: (report.looked, report.total)

    def _poke(self) -> None:
        task = asyncio.get_running_loop().create_task(self._answer())
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self) -> None:
        async with self._lock:
            await self.actions.answer_all()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Serve, and give a client without rights or cookies of its own."""
        async with web.serving(self.settings, self._site()) as self.app, self.client() as client:
            yield client
        self.harness.store.close()

    def client(self, address: str = "127.0.0.1", **more: Any) -> aiohttp.ClientSession:
        """A client at another address of this host."""
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        return aiohttp.ClientSession(
            self.base, connector=connector, cookie_jar=aiohttp.DummyCookieJar(), **more
        )

    async def signed_in(self, client: aiohttp.ClientSession, token: str = OPERATOR, **headers: str) -> str:
        """Sign in as the form does, and return the cookie as it is to be sent back."""
        async with client.post(
            "/login", data={"token": token}, headers=headers, allow_redirects=False
        ) as answer:
            assert answer.status == 303, await answer.text()
            return answer.headers["Set-Cookie"].partition(";")[0]

    async def csrf(self, client: aiohttp.ClientSession, cookie: str) -> str:
        """Return what the forms of a session send back."""
        async with client.get("/login", headers={"Cookie": cookie}) as answer:
            found = re.search(r'name="csrf" value="([^"]+)"', await answer.text())
            assert found is not None
            return found[1]


async def call(
    client: aiohttp.ClientSession, path: str, method: str = "GET", *, token: str = "", **more: Any
) -> tuple[int, Any]:
    """Return an answer's status and its JSON, or its text where it is none."""
    headers = dict(more.pop("headers", {}))
    if token:
        headers["Authorization"] = f"Bearer {token}"
    async with client.request(method, path, headers=headers, allow_redirects=False, **more) as answer:
        text = await answer.text()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text
