"""s3: objects of a bucket become folders in the inbox, announced by a queue, by tokens or by a listing.

What upstream waits for is settled late, so that nothing is lost at any moment:

A queue's message is remembered in the store, with all its items, and stays in the queue, hidden for
`hold`, hidden again while their jobs go on, and is deleted when all of these are done. SQS hides a message
for 12 hours at most: one that waits longer appears again, is known by its items, and is hidden again.
Should the store be lost, it appears by itself. One whose job has failed is not hidden any longer: it
comes up again every `hold`, so that the queue's own redrive policy can lay it aside.

A token is deleted (or moved) only when the job of its object is done, and only if it is still the one
that was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dittohead.contract import placeholders
from dittohead.contract.options import Duration, Size
from dittohead.contract.source import (
    BATCH,
    Fetch,
    Item,
    Look,
    Order,
    Sighting,
    Source,
    SourceOptions,
    Upstream,
)
from dittohead.model.errors import ItemError, StepError, first_of
from dittohead.system import log
from dittohead.system.patterns import Pattern, TooSlow
from dittohead.toolkit.s3 import connection
from dittohead.toolkit.s3.bucket import ABSENT, Bucket
from dittohead.toolkit.s3.events import UnreadableEvent, read_message, read_token
from dittohead.toolkit.s3.fetch import Changed, Download, Gone, etag_of
from dittohead.toolkit.s3.request_rate import RequestRate

#: Requests at once to one store.
_MOST_REQUESTS = 32

#: A token is a few lines of JSON.
_TOKEN_MOST = 65536

#: Seconds one request waits for a message. Source: SQS, long polling, 20 at most.
_POLL_S = 20

#: Seconds a message can be hidden in all. Source: SQS quotas, visibility timeout.
_HIDDEN_MOST_S = 43200.0

#: How a queue says that a handle is too old, or its message gone.
_OLD_HANDLE = frozenset(
    {
        "ReceiptHandleIsInvalid",
        "InvalidParameterValue",
        "MessageNotInflight",
        "AWS.SimpleQueueService.MessageNotInflight",
        "InvalidIdFormat",
    }
)


class Queue(BaseModel):
    """An SQS queue that gets the bucket's event notifications."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="Address of the queue, as SQS gives it.")
    endpoint_url: str | None = Field(
        None, description="Address of a service that is not Amazon's SQS; by default where `url` is."
    )
    hold: Duration = Field(
        1800.0,
        ge=30,
        le=_HIDDEN_MOST_S,
        description="How long a message is hidden from others at a time, while its jobs go on.",
    )

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        if not re.match(r"https?://[^/\s]+/", value):
            raise ValueError(
                "a queue's address is required, such as https://sqs.eu-west-1.amazonaws.com/123/masters"
            )
        return value

    @property
    def endpoint(self) -> str | None:
        """Where requests go: None for the service of Amazon's in the source's region.

        A client posts to its endpoint, and the queue's address is only a field of the request.
        """
        parts = urlsplit(self.url)
        amazons = (parts.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))
        return self.endpoint_url or (None if amazons else f"{parts.scheme}://{parts.netloc}")

    @property
    def asked(self) -> str:
        """The address in messages: the queue's, and the service's where that is another."""
        endpoint = self.endpoint
        there = endpoint is None or self.url.startswith(endpoint.rstrip("/") + "/")
        return self.url if there else f"{self.url} (asked for at {endpoint})"


class Tokens(BaseModel):
    """Small JSON objects, each asking for an object: `{key, path, eTag}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bucket: str | None = Field(None, description="The bucket they lie in; by default the source's own.")
    prefix: str = Field("", description="What their keys begin with.")
    when_done: Literal["delete", "move"] = Field(
        "delete", description="What happens to a token when the job of its object is done."
    )
    move_to: str | None = Field(None, description="Prefix that tokens are moved below, with `move`.")

    @model_validator(mode="after")
    def _both(self) -> Tokens:
        if (self.when_done == "move") != (self.move_to is not None):
            raise ValueError("when_done: move and move_to belong together")
        if self.move_to is not None and self.move_to.startswith(self.prefix):
            raise ValueError("move_to must not lie below prefix: tokens would be found again")
        return self


class S3Options(connection.Connection, SourceOptions):
    """What an S3 source may be told."""

    bucket: str = Field(description="The bucket that objects are fetched from.")
    prefix: str = Field("", description="Only objects whose keys begin so; cut off before `group`.")
    queue: Queue | None = Field(None, description="Learn of new objects from a queue.")
    tokens: Tokens | None = Field(None, description="Learn of wanted objects from token objects in a bucket.")
    listing: bool | None = Field(
        None,
        alias="list",
        description="List the bucket in each round; by default where there is no queue and no tokens.",
    )
    group: str = Field(
        "(?P<folder>[^/]+)/(?P<path>.+)",
        description="Regular expression that a whole key must match, without `prefix`; others are left "
        "alone. The group `path`, or otherwise all of the key, is the file's path in its folder.",
    )
    folder: str = Field(
        "{folder}",
        description="Name of the folder that a key goes into, made from the groups; a slash becomes `_`.",
    )
    match: list[str] = Field(
        default_factory=list,
        description="Only keys that fit one of these patterns (`*`, `?`; across slashes), without `prefix`.",
    )
    ignore: list[str] = Field(
        default_factory=list, description="Not keys that fit one of these patterns, without `prefix`."
    )
    least: Size = Field(0, description="Only objects of so many bytes or more.")
    most: Size | None = Field(None, description="Only objects of so many bytes or fewer.")
    settle: Duration = Field(
        60.0, description="A folder is complete when no object of it has changed for this long."
    )
    marker: str | None = Field(
        None,
        description="A folder is complete when it has an object of this path, such as `_COMPLETE`, which is "
        "not fetched itself.",
    )
    etags: Literal["md5", "opaque"] = Field(
        "md5",
        description="Whether this store's ETags are MD5s; where they are not and there is no other checksum, "
        "objects are read twice.",
    )
    parallel: int = Field(8, ge=1, le=64, description="Objects of one folder fetched at once.")
    bandwidth: Size | None = Field(None, gt=0, description="Bytes a second from this bucket.")

    @field_validator("group")
    @classmethod
    def _group(cls, value: str) -> str:
        try:
            Pattern(value)
        except re.error as error:
            raise ValueError(f"this is not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _known(self) -> S3Options:
        groups = self._group_pattern.groups
        for problem, _ in placeholders.problems(self.folder, groups):
            raise ValueError(f"folder: {problem}; group has {', '.join(sorted(groups)) or 'no named groups'}")
        return self

    @cached_property
    def _group_pattern(self) -> Pattern:
        return Pattern(self.group, re.DOTALL)

    @property
    def lists(self) -> bool:
        """Whether the bucket is listed."""
        return self.queue is None and self.tokens is None if self.listing is None else self.listing

    def uri(self) -> str:
        """Return the bucket, with its store where that is not Amazon's."""
        address = self.address()
        return f"s3://{self.bucket}/{self.prefix}" + (f" at {address}" if address else "")

    def place(self, key: str) -> tuple[str, str] | None:
        """Return (folder, path in it) of a key; None when it is not wanted."""
        if not key.startswith(self.prefix):
            return None
        rest = key[len(self.prefix) :]
        if self.match and not any(fnmatchcase(rest, pattern) for pattern in self.match):
            return None
        if any(fnmatchcase(rest, pattern) for pattern in self.ignore):
            return None
        try:
            groups = self._group_pattern.fullmatch(rest)
        except TooSlow as error:  # one key is left alone, and stops no other
            if error.first:
                log.get().warning(log.SOURCE_REFUSED, key=key, reason=error.what)
            return None
        if groups is None:
            return None
        return placeholders.fill(self.folder, groups).replace("/", "_"), groups.get("path", rest)


class S3Source(Source[S3Options]):
    """Brings objects of a bucket in, each fetched whole and verified by the store's own checksum."""

    name = "s3"
    Options = S3Options

    def __init__(self) -> None:
        self._paces: dict[str, RequestRate] = {}

    def needs_marker(self, options: S3Options) -> bool:
        return options.marker is not None

    def _rate(self, options: S3Options) -> RequestRate:
        rate = self._paces.setdefault(options.uri(), RequestRate(_MOST_REQUESTS))
        rate.bytes_per_s = options.bandwidth
        return rate

    @contextlib.asynccontextmanager
    async def open(self, options: S3Options, secret: Callable[[str], str]) -> AsyncIterator[Upstream]:
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(connection.client(options, secret))
            queue = None
            if options.queue is not None:
                queue = await stack.enter_async_context(
                    connection.client(options, secret, "sqs", queue_endpoint=options.queue.endpoint)
                )
            yield S3Upstream(options, client, queue, self._rate(options))

    async def doctor(
        self, options: S3Options, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Say whether bucket, tokens and queue can be read."""
        try:
            async with self.open(options, secret) as upstream:
                assert isinstance(upstream, S3Upstream)  # noqa: S101
                yield True, await upstream.can_list(options.bucket, options.prefix)
                if options.tokens is not None:
                    bucket = options.tokens.bucket or options.bucket
                    yield True, await upstream.can_list(bucket, options.tokens.prefix) + " (tokens)"
                if options.queue is not None:
                    yield True, await upstream.can_receive()
        except StepError as error:
            yield False, str(error)


class S3Upstream(Upstream):
    """Open clients of the store and, where there is one, of the queue."""

    def __init__(self, options: S3Options, client: Any, queue: Any, rate: RequestRate) -> None:
        self._options, self._client, self._sqs = options, client, queue
        self._rate = rate
        self._bucket = Bucket(client, options.bucket, options.address(), rate)
        self._folder = ""  #: the directory that was made last

    async def can_list(self, bucket: str, prefix: str) -> str:
        """Return that objects below a prefix can be listed. Raises: StepError."""
        place = Bucket(self._client, bucket, self._options.address(), self._rate)
        await place.ask("list_objects_v2", "listing", Prefix=prefix, MaxKeys=1)
        return f"{place.uri(prefix)} can be listed"

    async def can_receive(self) -> str:
        """Return that the queue can be asked. Raises: StepError."""
        queue = self._options.queue
        assert queue is not None  # noqa: S101
        answer = await self._queue(
            "get_queue_attributes", "asking the queue", AttributeNames=["ApproximateNumberOfMessages"]
        )
        count = answer.get("Attributes", {}).get("ApproximateNumberOfMessages", "?")
        return f"{queue.url} can be read; about {count} messages wait"

    # -- look --------------------------------------------------------------------------------

    async def look(self, ctx: Look) -> None:
        if self._options.tokens is not None:
            await self._look_at_tokens(ctx, self._options.tokens)
        if self._options.queue is not None and not ctx.dry:
            while await self._receive(ctx, wait_s=0):
                pass
        if self._options.lists:
            await self._list(ctx)

    async def _list(self, ctx: Look) -> None:
        """List the bucket, a page at a time; each page is remembered together with where it ended."""
        after = str(ctx.position.get("after", ""))
        prefix = max(self._options.prefix, ctx.prefix, key=len)
        if not prefix.startswith(self._options.prefix) or not prefix.startswith(ctx.prefix):
            raise ItemError(f'"{ctx.prefix}" does not lie below "{self._options.prefix}"')
        while True:
            answer = await self._bucket.ask(
                "list_objects_v2",
                "listing",
                Prefix=prefix,
                MaxKeys=BATCH,
                StartAfter=after,
            )
            page = answer.get("Contents", ())
            found = [sighting for item in page if (sighting := self._sighting(item["Key"], item)) is not None]
            last = page[-1]["Key"] if page else after
            await ctx.saw(found, position={"after": last})
            if not answer.get("IsTruncated") or last == after:
                return
            after = last

    def _sighting(self, key: str, told: dict[str, Any]) -> Sighting | None:
        """Return an object as it is told by a listing or HEAD; None when it is not wanted."""
        size = int(told.get("Size", told.get("ContentLength", 0)))
        place = self._options.place(key)
        if place is None or (key.endswith("/") and size == 0):  # what consoles make for a folder
            return None
        folder, path = place
        marker = self._options.marker is not None and path == self._options.marker
        if not marker and not self._options.least <= size <= (self._options.most or size):
            return None
        when = told.get("LastModified")
        moment = when.timestamp() if isinstance(when, datetime) else time.time()
        etag = etag_of(told)
        return Sighting(
            key=key.replace("\0", "\\0"),
            folder=folder.replace("\0", "\\0"),
            path=path.replace("\0", "\\0"),
            version=etag or f"{int(moment)}-{size}",
            size=0 if marker else size,
            ready_at=0.0 if self._options.marker is not None else moment + self._options.settle,
            marker=marker,
            refused="its key holds a NUL" if "\0" in key else "",
            data={"etag": etag},
        )

    async def _current(self, key: str) -> dict[str, Any] | None:
        return await self._bucket.head(key)

    # -- tokens ------------------------------------------------------------------------------

    async def _look_at_tokens(self, ctx: Look, tokens: Tokens) -> None:
        bucket = self._token_bucket(tokens)
        after = ""
        while True:
            answer = await bucket.ask(
                "list_objects_v2", "listing tokens", Prefix=tokens.prefix, MaxKeys=BATCH, StartAfter=after
            )
            page = [item for item in answer.get("Contents", ()) if not item["Key"].endswith("/")]
            known = await ctx.orders([f"token:{item['Key']}" for item in page])
            for item in page:
                if known.get(f"token:{item['Key']}", {}).get("etag") != etag_of(item) or not etag_of(item):
                    await self._read_token(ctx, bucket, item)
            if not answer.get("IsTruncated"):
                return
            after = answer["Contents"][-1]["Key"]

    def _token_bucket(self, tokens: Tokens) -> Bucket:
        name = tokens.bucket or self._options.bucket
        return Bucket(self._client, name, self._options.address(), self._rate)

    async def _read_token(self, ctx: Look, bucket: Bucket, item: dict[str, Any]) -> None:
        handle, data = f"token:{item['Key']}", {"etag": etag_of(item)}
        try:
            if int(item["Size"]) > _TOKEN_MOST:
                raise UnreadableEvent("it is too large for a token")
            key = read_token(await self._body(bucket, item["Key"]))
            if not key.startswith(ctx.prefix):
                return
            sighting = await self._wanted(key)
        except (UnreadableEvent, ItemError) as error:
            # Without its ETag: it is read again in each round, since it may only have come too early.
            await ctx.unreadable(handle, f"{bucket.uri(item['Key'])}: {error}", {})
            return
        await ctx.saw([sighting])
        await ctx.ordered(handle, [sighting.key], data)

    async def _wanted(self, key: str) -> Sighting:
        """Return an object that somebody asked for by its key. Raises: Unreadable."""
        head = await self._current(key)
        if head is None:
            raise UnreadableEvent(f"there is no object {self._bucket.uri(key)}")
        sighting = self._sighting(key, head)
        if sighting is None:
            raise UnreadableEvent(f"{key} is none that this source takes (prefix, match, group, size)")
        return sighting

    async def _body(self, bucket: Bucket, key: str) -> bytes:
        async def once() -> bytes:
            answer = await self._client.get_object(Bucket=bucket.name, Key=key)
            async with answer["Body"] as body:
                data: bytes = await body.read()
            return data

        try:
            return await self._rate.persist(
                once, where=bucket.uri(key), doing="reading a token", expected=ABSENT
            )
        except ClientError as error:
            raise UnreadableEvent("it is gone") from error

    async def _settle_token(self, tokens: Tokens, order: Order) -> None:
        bucket, key = self._token_bucket(tokens), order.handle.removeprefix("token:")
        head = await bucket.head(key)
        if head is None or etag_of(head) != order.data.get("etag"):
            return  # gone, or written again: then it is read again
        if tokens.move_to is not None:
            await bucket.ask(
                "copy_object",
                "moving a token",
                Key=tokens.move_to + key.removeprefix(tokens.prefix),
                CopySource={"Bucket": bucket.name, "Key": key},
            )
        await bucket.ask("delete_object", "removing a token", Key=key)

    # -- queue -------------------------------------------------------------------------------

    async def _queue(
        self, operation: str, doing: str, *, expected: frozenset[str] = frozenset(), **given: Any
    ) -> dict[str, Any]:
        queue = self._options.queue
        assert queue is not None  # noqa: S101
        method = getattr(self._sqs, operation)

        async def once() -> dict[str, Any]:
            answer: dict[str, Any] = await method(QueueUrl=queue.url, **given)
            return answer

        # A pace of its own: a long poll is not load, and must not keep the store's turns.
        rate = RequestRate(_MOST_REQUESTS)
        return await rate.persist(once, where=queue.asked, doing=doing, expected=expected)

    async def listen(self, ctx: Look) -> None:
        if self._options.queue is None:
            return
        while True:
            await self._receive(ctx, wait_s=_POLL_S)

    async def _receive(self, ctx: Look, *, wait_s: int) -> int:
        """Take some messages, remember what they ask for, leave them hidden in the queue; return how many."""
        queue = self._options.queue
        assert queue is not None  # noqa: S101
        answer = await self._queue(
            "receive_message",
            "waiting for messages",
            MaxNumberOfMessages=10,
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=int(queue.hold),
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        messages = answer.get("Messages", [])
        try:
            async with asyncio.TaskGroup() as group:
                for message in messages:
                    group.create_task(self._take(ctx, message))
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
        return len(messages)

    async def _take(self, ctx: Look, message: dict[str, Any]) -> None:
        now = time.time()
        handle = f"message:{message['MessageId']}"
        data = {"receipt": message["ReceiptHandle"], "since": now}
        try:
            created = read_message(message["Body"])
            strange = [one.bucket for one in created if one.bucket != self._options.bucket]
            if strange:
                raise UnreadableEvent(f"it names the bucket {strange[0]}")
            found = [sighting for one in created if (sighting := await self._told(ctx, one.key)) is not None]
        except (UnreadableEvent, ItemError) as error:
            await ctx.unreadable(handle, str(error), data)
            return
        await ctx.saw(found)
        await ctx.ordered(handle, [one.key for one in found], data, keep_at=now + self._hold_s() / 2)

    async def _told(self, ctx: Look, key: str) -> Sighting | None:
        """Return an object that an event names, as it is now: events come late and in any order."""
        if self._options.place(key) is None:
            return None
        head = await self._current(key)
        if head is None:
            ctx.log.info(log.SOURCE_GONE, key=key)
            return None
        return self._sighting(key, head)

    def _hold_s(self) -> float:
        return self._options.queue.hold if self._options.queue is not None else 0.0

    # -- settle ------------------------------------------------------------------------------

    async def settle(self, orders: Sequence[Order]) -> AsyncIterator[Order]:
        for order in orders:
            if order.handle.startswith("token:"):
                if self._options.tokens is not None:
                    await self._settle_token(self._options.tokens, order)
            elif self._options.queue is not None:
                with contextlib.suppress(ClientError):  # too old a handle: it comes again, and is known
                    await self._queue(
                        "delete_message",
                        "removing a message",
                        expected=_OLD_HANDLE,
                        ReceiptHandle=order.data["receipt"],
                    )
            yield order

    async def keep(self, orders: Sequence[Order]) -> AsyncIterator[tuple[Order, float | None]]:
        """Hide messages again whose jobs go on; SQS hides none for more than 12 hours in all."""
        now, hold = time.time(), self._hold_s()
        for order in orders:
            if not order.handle.startswith("message:") or not hold:
                yield order, None
                continue
            seconds = min(hold, order.data["since"] + _HIDDEN_MOST_S - now)
            if seconds < 1:
                yield order, None  # it comes again, and is hidden again
                continue
            with contextlib.suppress(ClientError):
                await self._queue(
                    "change_message_visibility",
                    "hiding a message",
                    expected=_OLD_HANDLE,
                    ReceiptHandle=order.data["receipt"],
                    VisibilityTimeout=int(seconds),
                )
            yield order, now + seconds / 2

    # -- fetch -------------------------------------------------------------------------------

    async def fetch(self, ctx: Fetch) -> None:
        """Fetch a folder's objects, several at once; all are tried before the first fault is raised."""
        room = asyncio.Semaphore(self._options.parallel)
        faults: list[ItemError] = []

        async def one(item: Item) -> None:
            try:
                await self._fetch_one(ctx, item)
            except ItemError as error:
                faults.append(error)
            finally:
                room.release()

        try:
            async with asyncio.TaskGroup() as group:
                async for item in ctx.items():
                    await room.acquire()
                    group.create_task(one(item), name=f"fetch:{item.key}")
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors
        if faults:
            more = f" (and {len(faults) - 1} others)" if len(faults) > 1 else ""
            raise ItemError(faults[0].what + more, where=faults[0].where, hint=faults[0].hint)

    async def _make_folder(self, path: str) -> None:
        if path != self._folder:  # keys come in order: mostly it is the one before
            await asyncio.to_thread(os.makedirs, path, exist_ok=True)
            self._folder = path

    async def _fetch_one(self, ctx: Fetch, item: Item) -> None:
        path = os.path.join(ctx.root, item.path)
        try:
            await self._make_folder(os.path.dirname(path))
        except (FileExistsError, NotADirectoryError):
            await ctx.refuse(
                item, "a part of its path is an object of its own, and cannot be a directory too"
            )
            return
        download = Download(
            self._bucket,
            self._client,
            item.key,
            item.data.get("etag", ""),
            item.size,
            opaque=self._options.etags == "opaque",
        )
        try:
            how = await download.to(path)
        except IsADirectoryError:
            await ctx.refuse(item, "other objects lie below it, and a file cannot be a directory too")
        except Gone:
            await ctx.gone(item)
        except Changed:
            with contextlib.suppress(OSError):
                os.truncate(path, 0)  # not to be gone on with
            head = await self._current(item.key)
            now = None if head is None else self._sighting(item.key, head)
            if now is None:
                await ctx.gone(item)
            else:
                await ctx.changed(now)
        else:
            await ctx.fetched(item, how)
