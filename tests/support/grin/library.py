"""A grin source without a daemon: its runner in this process, with a store, stations and a simulated GRIN."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from dittohead.config.loader import SourceSetting
from dittohead.contract.catalogue import CatalogueEntry
from dittohead.intake.runner import SourceRunner, Tools
from dittohead.model.states import Station
from dittohead.sources.grin.options import VOLUME
from dittohead.sources.grin.source import GrinSource
from dittohead.store import queries
from dittohead.system.files import write_durably
from tests.support.grin.server import Server
from tests.support.harness import Harness
from tests.support.trees import read_tree


class Library:
    """One grin source named "google"."""

    def __init__(self, base: Path, server: Server, **options: Any) -> None:
        self.harness = Harness(base / "root")
        self.server, self.world = server, server.world
        self.inbox = self.harness.stations.path(Station.INBOX)
        self.secrets = {"client": server.sign_in.client_file(server.url)}
        server.sign_in.now = time.time()
        self.given: dict[str, Any] = {
            "library": server.world.library,
            "client": "client",
            "url": f"{server.url}/libraries",
            "rate": 100_000,
            "stall": 5,
            **options,
        }
        self.again()

    def again(self, **options: Any) -> None:
        """A runner that knows only what is in the store, as after a crash."""
        self.given |= options
        self.options = GrinSource.Options.model_validate(self.given)
        tools = Tools(
            store=self.harness.store,
            stations=self.harness.stations,
            claimer=self.harness.claimer,
            secret=lambda name: self.secrets[name],
        )
        self.source = GrinSource()
        self.runner = SourceRunner(
            tools, SourceSetting(name="google", kind="grin", options=self.options), self.source
        )
        self.keep = self.runner.keep
        self.token = self.keep.directory / "token.json"

    def sign_in(self, *, expires_in: float = 3600.0) -> str:
        """Have somebody signed in; return the access token."""
        access = self.server.sign_in.token()
        made = {
            "access_token": access,
            "expires_at": time.time() + expires_in,
            "refresh_token": self.server.sign_in.new_refresh(),
            "email": "someone@library.example",
        }
        self.token.parent.mkdir(parents=True, exist_ok=True)
        write_durably(self.token, json.dumps(made).encode(), 0o600)
        return access

    async def tell(self, command: str, **args: Any) -> str:
        return await self.source.act(self.options, self.keep, command, {"who": "alice", **args})

    async def want(self, *barcodes: str, **args: Any) -> str:
        return await self.tell("want", keys=list(barcodes), **args)

    async def round(self) -> int:
        """Look, fetch, follow; return how many folders were dropped."""
        await self.runner.look()
        count = await self.runner.bring()
        await self.runner.follow()
        return count

    async def jobs(self) -> None:
        """Let every folder's job come to its end."""
        harness = self.harness
        async with harness.running():
            harness.dispatch.wake()
            await harness.until(harness.quiet)
        await self.runner.follow()

    async def entry(self, barcode: str) -> CatalogueEntry:
        return (await self.keep.catalogue.get(VOLUME, [barcode]))[barcode]

    async def states(self) -> dict[str, str]:
        """Barcode -> state, and the stage where there is one."""
        return {
            e.key: e.state + (f"/{e.stage}" if e.stage else "")
            for e in await self.keep.catalogue.page(VOLUME)
        }

    async def counts_hold(self) -> bool:
        """Tell whether the counts that are kept are what counting gives."""
        pages, after = Counter[tuple[str, str]](), ""
        while page := await self.keep.catalogue.page(VOLUME, after=after):
            pages.update((e.state, e.stage) for e in page)
            after = page[-1].key
        return await self.keep.catalogue.counts(VOLUME) == dict(pages)

    def known(self) -> dict[str, Any]:
        return self.harness.store.run(queries.source, "google")

    def in_inbox(self, barcode: str) -> dict[bytes, bytes]:
        return read_tree(self.inbox / barcode)

    def listing(self) -> list[str]:
        return sorted(os.listdir(self.inbox))
