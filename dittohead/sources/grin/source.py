"""The source itself: its connections, what people may tell it, what it shows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dittohead.contract.catalogue import Keep
from dittohead.contract.source import (
    Command,
    Counts,
    Fetch,
    Look,
    Order,
    Panel,
    Person,
    Source,
    SourceOptions,
    Upstream,
)
from dittohead.model.errors import StepError, first_of
from dittohead.sources.grin import commands, panels
from dittohead.sources.grin.authorize import authorize
from dittohead.sources.grin.client import Access, Grin, session
from dittohead.sources.grin.fetch import Fetcher
from dittohead.sources.grin.options import BOARD, VOLUME, GrinOptions
from dittohead.sources.grin.pace import Pace
from dittohead.sources.grin.refresh import Refresh
from dittohead.sources.grin.sign_in import SignIn, read_client
from dittohead.sources.grin.work import State, Work
from dittohead.system.files import remove_unfinished
from dittohead.system.waiting import event_or_time

#: Between two passes of work while the source listens. Seconds.
_PASS_S = 20.0

#: Where the tokens of a person's sign-in are kept, in the source's directory.
_TOKEN = "token.json"  # noqa: S105  # a file's name


@dataclass(frozen=True)
class _Shared:
    """What all connections of one source share in this process."""

    access: Access
    state: State
    paced: tuple[float, int, int]


class GrinSource(Source[GrinOptions]):
    """Volumes from Google Books, by GRIN: asked for, converted there, fetched as they are."""

    name = "grin"
    Options: ClassVar[type[SourceOptions]] = GrinOptions
    commands: ClassVar[Mapping[str, Command]] = commands.COMMANDS
    switches: ClassVar[Mapping[str, str]] = {
        "fetches": "bringing volumes in",
        "requests": "asking GRIN for conversions",
    }
    shows = VOLUME
    board = BOARD
    signs_in = True

    def __init__(self) -> None:
        self._known: dict[str, _Shared] = {}

    def _shared(self, options: GrinOptions, keep: Keep) -> _Shared:
        """Return what a source's connections share: also of two sources with the same library."""
        paced = (options.rate, options.connections, options.downloads)
        known = self._known.get(f"{keep.directory}")
        if known is not None and known.paced == paced:
            return known
        same = next(
            (one.access.pace for key, one in self._known.items() if key.startswith(f"{options.base} ")), None
        )
        sign_in = SignIn(keep.directory / _TOKEN, f"dittohead source authorize {keep.name}", keep.log)
        made = _Shared(Access(same or Pace(*paced), sign_in), State(), paced)
        self._known[f"{keep.directory}"] = self._known[f"{options.base} {keep.name}"] = made
        return made

    @contextlib.asynccontextmanager
    async def connect(self, options: GrinOptions, keep: Keep) -> AsyncIterator[Upstream]:
        client = read_client(keep.secret(options.client), options.client)
        shared = self._shared(options, keep)
        async with session(options.stall) as opened:
            yield Library(options, keep, Grin(options, opened, shared.access, client), shared.state)

    async def examine(self, options: GrinOptions, keep: Keep) -> AsyncIterator[tuple[bool, str]]:
        """Say whether GRIN lets us in, and who we are there."""
        try:
            client = read_client(keep.secret(options.client), options.client)
            shared = self._shared(options, keep)
            async with session(options.stall) as opened:
                grin = Grin(options, opened, shared.access, client)
                async with grin.request("GET", "?format=text&result_count=1") as answer:
                    good = answer.status == 200
            token = await asyncio.to_thread(shared.access.sign_in.kept)
            who = client.email or (token.email if token else "") or "the account"
            said = f"{options.base} lets {who} in" if good else f"{options.base} answers with {answer.status}"
            yield good, said
        except StepError as error:
            yield False, str(error)

    async def doctor(
        self, options: GrinOptions, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Say whether the client file can be read; nobody can have signed in before the first start."""
        try:
            client = read_client(secret(options.client), options.client)
            kind = "a service account" if client.is_service else "an installed application"
            yield True, f"{options.client} is a client file of {kind}"
        except StepError as error:
            yield False, str(error)

    async def authorize(self, options: GrinOptions, keep: Keep, person: Person) -> str:
        client = read_client(keep.secret(options.client), options.client)
        sign_in = self._shared(options, keep).access.sign_in
        async with session(options.stall) as opened:
            if client.is_service:
                await sign_in.bearer(client, opened)
                return f"{client.email} is a service account: it signs in by itself, and just has"
            who = await authorize(client, opened, sign_in, options.redirect_port, person)
        return f"{who} is signed in; a running daemon goes on by itself"

    async def act(self, options: GrinOptions, keep: Keep, command: str, args: Mapping[str, Any]) -> str:
        said = await commands.act(keep, command, args)
        self._shared(options, keep).state.wake.set()
        return said

    def panels(self, options: GrinOptions, counts: Counts) -> Sequence[Panel]:
        return panels.of(options, counts)


class Library(Upstream):
    """An open session with a library's place at GRIN."""

    def __init__(self, options: GrinOptions, keep: Keep, grin: Grin, state: State) -> None:
        self._state = state
        self._refresh = Refresh(options, keep, grin)
        self._work = Work(options, keep, grin, state)
        self._fetcher = Fetcher(options, keep, grin)

    async def look(self, ctx: Look) -> None:
        if ctx.dry:
            await self._work.dry(ctx)
            return
        async with self._state.turn:
            await self._refresh.small()
        await self._work.once(ctx)
        await self._refresh.books()
        await self._work.once(ctx)

    async def listen(self, ctx: Look) -> None:
        """Keep the work flowing between rounds."""
        while True:
            await event_or_time(self._state.wake, _PASS_S)
            self._state.wake.clear()
            await self._work.once(ctx)

    async def fetch(self, ctx: Fetch) -> None:
        # What a kill left of a note of an archive's ETag: the folder would hold a file too many.
        await asyncio.to_thread(remove_unfinished, ctx.root)
        try:
            async with asyncio.TaskGroup() as group:
                async for item in ctx.items():
                    group.create_task(self._fetcher.fetch(ctx, item), name=f"fetch:{item.key}")
        except BaseExceptionGroup as errors:
            raise first_of(errors) from errors

    async def settle(self, orders: Sequence[Order]) -> AsyncIterator[Order]:
        """Note what is stored; GRIN is told nothing."""
        await self._work.stored([(order.handle, str(order.data.get("etag", ""))) for order in orders])
        for order in orders:
            yield order
