"""A source without a daemon: its runner in this process, with a store, stations and an S3 server."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from dittohead.config.loader import SourceSetting
from dittohead.intake.look import SourceLook
from dittohead.intake.runner import SourceRunner, Tools
from dittohead.model.states import Station
from dittohead.sources.s3 import S3Source
from dittohead.store import queries
from dittohead.toolkit.s3 import connection
from tests.support.harness import Harness
from tests.support.trees import read_tree
from tests.support.upstream import KEYS


class SourceHarness:
    """One S3 source named "up"."""

    def __init__(self, base: Path, url: str, **options: Any) -> None:
        self.harness = Harness(base / "root")
        self.url = url
        self.bucket = "b" + hashlib.sha256(os.fsencode(base)).hexdigest()[:20]
        self.inbox = self.harness.stations.path(Station.INBOX)
        self.secret = {"keys": KEYS}.__getitem__
        self.again(**options)

    def again(self, **options: Any) -> None:
        """A runner that knows only what is in the store, as after a crash."""
        given = {"bucket": self.bucket, "endpoint_url": self.url, "credentials": "keys", "settle": 0}
        self.options = S3Source.Options.model_validate(given | options)
        tools = Tools(
            store=self.harness.store,
            stations=self.harness.stations,
            claimer=self.harness.claimer,
            secret=self.secret,
        )
        setting = SourceSetting(name="up", kind="s3", options=self.options)
        self.source = S3Source()
        self.runner = SourceRunner(tools, setting, self.source)

    async def call(self, operation: str, **given: Any) -> Any:
        async with connection.client(self.options, self.secret) as client:
            return await getattr(client, operation)(Bucket=self.bucket, **given)

    async def put(self, key: str, body: bytes, **given: Any) -> None:
        await self.call("put_object", Key=key, Body=body, **(given or {"ChecksumAlgorithm": "CRC32C"}))

    async def look(self, prefix: str = "") -> SourceLook:
        return await self.runner.look(prefix)

    async def round(self) -> int:
        """Look, fetch, follow; return how many folders were dropped."""
        await self.look()
        count = await self.runner.bring()
        await self.runner.follow()
        return count

    def items(self) -> dict[str, int]:
        found: dict[str, int] = self.known()["items"]
        return {state: count for state, count in found.items() if count}

    def known(self) -> dict[str, Any]:
        return self.harness.store.run(queries.source, "up")

    def in_inbox(self, name: str) -> dict[bytes, bytes]:
        return read_tree(self.inbox / name)

    def listing(self) -> list[str]:
        return sorted(os.listdir(self.inbox))
