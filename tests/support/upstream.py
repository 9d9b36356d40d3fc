"""A site whose daemon has an S3 source, and the bucket (and queue) it watches."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dittohead.sources.s3 import S3Options
from dittohead.store import queries
from dittohead.toolkit.s3 import connection
from tests.support.daemon import Site, site
from tests.support.s3_server import S3Server
from tests.support.trees import read_tree

KEYS = "[default]\naws_access_key_id = test\naws_secret_access_key = not-to-be-seen\n"


class Place:
    """A root with a daemon, and a bucket of its own."""

    def __init__(self, server: S3Server, here: Site, bucket: str) -> None:
        self.server, self.site, self.bucket = server, here, bucket
        self.options = S3Options.model_validate(
            {"bucket": bucket, "endpoint_url": server.url, "credentials": "keys"}
        )

    def call(self, operation: str, service: str = "s3", **given: Any) -> Any:
        """Make one request as somebody else."""

        async def once() -> Any:
            async with connection.client(
                self.options,
                {"keys": KEYS}.__getitem__,
                service,  # type: ignore[arg-type]
                queue_endpoint=self.server.url,
            ) as client:
                answer = await getattr(client, operation)(**given)
                if "Body" in answer and operation == "get_object":
                    answer["Body"] = await answer["Body"].read()
                return answer

        return asyncio.run(once())

    def put(self, key: str, body: bytes, bucket: str = "", **given: Any) -> str:
        """Put an object, with a checksum that the server keeps; return its ETag."""
        given = given or {"ChecksumAlgorithm": "CRC32C"}
        answer = self.call("put_object", Bucket=bucket or self.bucket, Key=key, Body=body, **given)
        return str(answer["ETag"]).strip('"')

    def names(self, bucket: str = "", prefix: str = "") -> list[str]:
        answer = self.call("list_objects_v2", Bucket=bucket or self.bucket, Prefix=prefix)
        return [item["Key"] for item in answer.get("Contents", ())]

    def make_queue(self) -> str:
        name = "q" + hashlib.sha256(os.fsencode(self.site.root)).hexdigest()[:10]
        self.queue = str(self.call("create_queue", "sqs", QueueName=name)["QueueUrl"])
        return self.queue

    def send(self, body: str | dict[str, Any]) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.call("send_message", "sqs", QueueUrl=self.queue, MessageBody=text)

    def messages(self) -> int:
        """How many messages the queue holds, hidden ones too."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.call("get_queue_attributes", "sqs", QueueUrl=self.queue, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def record(self, key: str) -> dict[str, Any]:
        """One record of an event notification, as S3 writes it."""
        from urllib.parse import quote_plus

        return {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "bucket": {"name": self.bucket},
                "object": {"key": quote_plus(key), "size": 1, "eTag": "x"},
            },
        }

    def configure(self, pipelines: str = "", **source: Any) -> None:
        """Write config.yaml: a source, and a pipeline that takes any folder."""
        given = {
            "bucket": self.bucket,
            "endpoint_url": self.server.url,
            "credentials": "keys",
            "every": "1h",
            "settle": 0,
            **source,
        }
        if "schedule" in given:
            del given["every"]
        (self.site.root / "credentials").mkdir(exist_ok=True)
        (self.site.root / "credentials" / "keys").write_text(KEYS)
        self.site.config.write_text(
            "root: .\nspace: {floor: 0}\nretry: {first: 10ms, most: 20ms}\n"
            + (pipelines or "pipelines:\n  all: {match: '.*', steps: [checksum: {}]}\n")
            + "sources:\n  up:\n    s3: "
            + json.dumps(given)
            + "\n"
        )

    def until_done(self, *names: str) -> None:
        self.site.until(lambda: all(self.site.receipts(f"{name}.") for name in names))
        self.site.until(lambda: all((self.site.root / "done" / name).exists() for name in names))

    def done(self, name: str) -> dict[bytes, bytes]:
        return read_tree(self.site.root / "done" / name)

    def source(self) -> dict[str, Any]:
        """What the store knows of the source "up"."""
        return self.source_of("up")

    def source_of(self, name: str) -> dict[str, Any]:
        """What the store knows of the source; as `source list --json` says, without a process for it."""
        path = self.site.root / "state" / "dittohead.sqlite3"
        engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
        with engine.connect() as connection:
            return queries.source(connection, name)

    def gets(self, key: str) -> int:
        return sum(r.operation == "get" and r.path == f"/{self.bucket}/{key}" for r in self.server.requests)


@contextlib.contextmanager
def upstream(server: S3Server, base: Path) -> Iterator[Place]:
    """A place whose daemon is dead when the block ends; its bucket exists."""
    bucket = "b" + hashlib.sha256(os.fsencode(base)).hexdigest()[:20]
    with site(base / "root", "") as here:
        made = Place(server, here, bucket)
        made.call("create_bucket", Bucket=bucket)
        yield made
