"""The source itself: its connections, what people may tell it, what it shows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from dittohead.contract.catalogue import Keep, Told
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
from dittohead.model.errors import StepError, TargetError, first_of
from dittohead.sources.grin import commands, panels
from dittohead.sources.grin.authorize import authorize
from dittohead.sources.grin.client import Grin, GrinAccess, session
from dittohead.sources.grin.fetch import Fetcher
from dittohead.sources.grin.limits import Most, RateLimit
from dittohead.sources.grin.options import BOARD, VOLUME, GrinOptions
from dittohead.sources.grin.refresh import WISH, Refresh
from dittohead.sources.grin.sign_in import GrinSignIn, read_client
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

    access: GrinAccess
    state: State


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
        self._limits: dict[str, RateLimit] = {}  #: of each library, by its address
        self._known: dict[tuple[str, str], _Shared] = {}  #: of each source, by its address and directory

    def _shared(self, options: GrinOptions, keep: Keep) -> _Shared:
        """Return what a source's connections share; its limits also with other sources of that library."""
        key = options.base, f"{keep.directory}"
        if key not in self._known:
            limits = self._limits.setdefault(options.base, RateLimit(_most(options)))
            sign_in = GrinSignIn(keep.directory / _TOKEN, f"dittohead source authorize {keep.name}", keep.log)
            self._known[key] = _Shared(GrinAccess(limits, sign_in), State())
        return self._known[key]

    @contextlib.asynccontextmanager
    async def connect(self, options: GrinOptions, keep: Keep) -> AsyncIterator[Upstream]:
        client = read_client(keep.secret(options.client), options.client)
        shared = self._shared(options, keep)
        with shared.access.limits.held(_most(options)):
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


def _most(options: GrinOptions) -> Most:
    return Most(options.rate, options.connections, options.downloads)


class Library(Upstream):
    """An open session with a library's place at GRIN."""

    def __init__(self, options: GrinOptions, keep: Keep, grin: Grin, state: State) -> None:
        self._options, self._keep, self._state = options, keep, state
        self._refresh = Refresh(options, keep, grin)
        self._work = Work(options, keep, grin, state)
        self._fetcher = Fetcher(options, keep, grin)

    async def look(self, ctx: Look) -> None:
        await self._check_library(note=not ctx.dry)
        if ctx.dry:
            await self._work.dry(ctx)
            return
        async with self._state.turn:
            await self._refresh.small()
        await self._work.once(ctx)
        await self._refresh.books()
        await self._work.once(ctx)

    async def _check_library(self, *, note: bool) -> None:
        """See that the catalogue is this library's. Raises: TargetError: it is another's."""
        entry = (await self._keep.catalogue.get(WISH, ["library"])).get("library")
        library = self._options.library
        if entry is None:
            if note:
                told = Told(key="library", state=library)
                await self._keep.catalogue.tell(WISH, [told], by="look")
        elif entry.state != library:
            raise TargetError(
                f"this source's catalogue is of the library {entry.state}, and config.yaml says {library}",
                where=self._keep.name,
                hint="Give the other library a source of another name",
            )

    async def listen(self, ctx: Look) -> None:
        """Keep the work flowing between rounds."""
        await self._check_library(note=False)
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
        # The archive that was fetched, which may be a later one than was looked at.
        told = [(order.handle, next(iter(order.versions.values()), "")) for order in orders]
        await self._work.stored(told)
        for order in orders:
            yield order
