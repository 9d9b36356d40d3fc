"""The contract between the engine and everything that brings work in; no implementation.

A source knows what lies upstream and how to fetch it. The engine (`dittohead.intake`) knows all the
rest: when to look, what was seen before, whether there is room, how a folder is dropped into the inbox,
which job came of it, and when that job is done.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dittohead.contract import schedule
from dittohead.contract.board import Board
from dittohead.contract.catalogue import Keep
from dittohead.contract.options import Duration
from dittohead.contract.schedule import Window
from dittohead.system.files import MAX_DEPTH, MAX_PATH
from dittohead.system.ignored_names import DEFAULT, fault

#: Items given to `Look.saw` at once; each call is one transaction.
BATCH = 1000


#: A field of a token: also a placeholder, so it is written as the groups of a match are.
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]


class SourceOptions(BaseModel):
    """What every source may be told; a source subclasses it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: Duration = Field(300.0, gt=0, description="How often to look for what is new.")
    schedule: str | None = Field(
        None,
        description='Instead of `every`: when to look, as cron writes it, such as `"30 5 * * *"`: '
        "minute, hour, day, month, weekday.",
    )
    timezone: str | None = Field(
        None,
        description="Time zone of `schedule` and `between`, such as `Europe/Berlin`; by default the "
        "machine's own.",
    )
    between: str | None = Field(
        None,
        description='Look and fetch only in this part of the day, such as `"20:00-04:00"`; what is under way '
        "halts at its end, and goes on the next day.",
    )
    ahead: int = Field(
        8,
        ge=1,
        description="Folders of this source in `inbox/` and `processing/` at most; then it holds back.",
    )
    fields: dict[FieldName, Annotated[str, Field(min_length=1, max_length=1000)]] = Field(
        default_factory=dict,
        description="Fields that a token on the board may have, each with the value where there is none. "
        "They can stand in the options of steps, such as `{storage_bucket}`.",
    )

    @field_validator("schedule")
    @classmethod
    def _schedule(cls, value: str | None) -> str | None:
        if value is not None:
            schedule.check(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str | None) -> str | None:
        schedule.zone(value)
        return value

    @field_validator("between")
    @classmethod
    def _between(cls, value: str | None) -> str | None:
        if value is not None:
            Window.read(value)
        return value

    @model_validator(mode="after")
    def _one(self) -> SourceOptions:
        if self.schedule is not None and "every" in self.model_fields_set:
            raise ValueError("every and schedule exclude each other")
        if self.timezone is not None and self.schedule is None and self.between is None:
            raise ValueError("timezone goes with schedule or between")
        return self

    def due(self, last: float | None) -> float:
        """Return when to look next, seconds since the epoch; 0.0 when it never was.

        Args:
            last: when the last look began; None for never.
        """
        if last is None:
            return 0.0
        if self.schedule is not None:
            return schedule.next_after(self.schedule, last, self.timezone)
        return last + self.every

    def window(self) -> Window | None:
        """Return the part of the day in which it works; None for all of it."""
        return None if self.between is None else Window.read(self.between)


OptionsT = TypeVar("OptionsT", bound=SourceOptions)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """One item as it is upstream now."""

    key: str  #: what upstream calls it; UTF-8 text without NUL, 2000 bytes at most
    folder: str  #: the folder it goes into, see `folder_fault`
    path: str  #: where in that folder, relative, "/" between the parts
    version: str  #: changes when the content does; never ""
    size: int  #: bytes
    ready_at: float = 0.0  #: not to be taken before, seconds since the epoch
    marker: bool = False  #: says that its folder is complete; is itself never fetched
    refused: str = ""  #: why it is never fetched; "" when it may be
    priority: int = 0  #: higher is fetched first; of equal ones the longest waiting
    turn: str = ""  #: another than the one remembered has the same version fetched again
    data: dict[str, Any] = field(default_factory=dict)  #: the source's own; JSON


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One item to be fetched."""

    id: int
    key: str
    path: str
    version: str
    size: int  #: bytes
    data: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """Something upstream that asks for items: a queue's message, a token.

    It is settled only when the jobs of all its items are done.
    """

    id: int
    handle: str  #: what upstream calls it
    data: dict[str, Any]  #: the source's own; JSON
    versions: Mapping[str, str] = field(default_factory=dict)  #: of its items: key -> version seen last


class Look(abc.ABC):
    """What a source may know and do while it looks and listens."""

    name: str  #: the source's name in config.yaml
    prefix: str  #: look only for keys that begin so; "" for all
    dry: bool  #: nothing is written; what upstream says is not to be taken from it
    position: Mapping[str, Any]  #: what `saw` kept last, {} at the beginning of a round
    log: Any  #: structlog logger, bound to source

    @abc.abstractmethod
    async def saw(self, found: Sequence[Sighting], *, position: dict[str, Any] | None = None) -> None:
        """Remember items, and how far the round is, durably. Items seen before cost nothing.

        An item is new, or changed when its version is another than the one remembered.
        """

    @abc.abstractmethod
    async def ordered(
        self, handle: str, keys: Sequence[str], data: dict[str, Any], *, keep_at: float | None = None
    ) -> None:
        """Remember durably that upstream waits for these items; after they were told by `saw`.

        Called again for a handle it replaces what was known of it.

        Args:
            keep_at: when `Upstream.keep` is to be called for it, seconds since the epoch; None for never.
        """

    @abc.abstractmethod
    async def unreadable(self, handle: str, why: str, data: dict[str, Any]) -> None:
        """Remember an order that cannot be understood. People see it, and it is never settled.

        Args:
            handle: the order's name upstream.
            why: what is wrong with it, for people.
            data: JSON, the source's own.
        """

    @abc.abstractmethod
    async def orders(self, handles: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the data of those of these orders that are remembered."""

    @abc.abstractmethod
    async def waiting(self) -> int:
        """Return how many items are remembered that nobody has begun to fetch."""

    def folder_fault(self, name: str) -> str:
        """Return why this inbox would not take a folder of this name; "" when it would."""
        return folder_fault(name)


class Fetch(abc.ABC):
    """What a source may know and do while it fetches the items of one folder."""

    root: Path  #: inbox/.NAME: everything goes below; may hold what an earlier try left
    log: Any  #: structlog logger, bound to source and folder

    @abc.abstractmethod
    def items(self) -> AsyncIterator[Item]:
        """Yield the items to be fetched, in the order of their keys; never all in memory."""

    @abc.abstractmethod
    async def fetched(self, item: Item, how: str) -> None:
        """Record that an item lies below `root`, whole and verified.

        Args:
            how: it was verified, in words.
        """

    @abc.abstractmethod
    async def changed(self, now: Sighting) -> None:
        """Record that an item is another now; its folder is tried again when it is ready."""

    @abc.abstractmethod
    async def gone(self, item: Item) -> None:
        """Record that an item is no longer there."""

    @abc.abstractmethod
    async def refuse(self, item: Item, why: str) -> None:
        """Record that an item cannot be taken; its folder goes without it, and it is said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """Something people may tell a source by one of its commands; the arguments are plain JSON."""

    what: str  #: one line for people, such as "Say which volumes to bring in"


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A few lines about a source, for the page and `dittohead source list`."""

    title: str
    rows: tuple[tuple[str, str], ...]  #: (label, value)


#: How many entries of a source there are: kind -> (state, stage) -> count.
Counts = Mapping[str, Mapping[tuple[str, str], int]]


class Person(Protocol):
    """Somebody at a terminal."""

    def say(self, text: str) -> None:
        """Show a line."""

    async def ask(self, text: str) -> str:
        """Ask for a line and return it; may be cancelled. Raises: EOFError: nobody is there to answer."""


class Upstream(abc.ABC):
    """An open connection to what lies upstream. All raise StepError for faults of the remote system.

    ItemError: this folder (in `fetch`) is not available now; others can. TransientError and TargetError:
    the source is left alone for a while. After any of them the connection is opened again.
    """

    @abc.abstractmethod
    async def look(self, ctx: Look) -> None:
        """Tell `ctx` of everything there is. May be cancelled and killed; goes on from `ctx.position`."""

    async def listen(self, ctx: Look) -> None:
        """Tell `ctx` of what upstream says by itself, until cancelled; returns at once if it says nothing."""
        return

    @abc.abstractmethod
    async def fetch(self, ctx: Fetch) -> None:
        """Bring the items of one folder, verified; goes on where an earlier try was killed.

        Files need not be made durable: the engine does that for all of them at once.
        """

    async def settle(self, orders: Sequence[Order]) -> AsyncIterator[Order]:
        """Tell upstream that orders are carried out, and yield each that need not be remembered any more.

        May be called twice for one: what is gone already is settled.
        """
        for order in orders:
            yield order

    async def keep(self, orders: Sequence[Order]) -> AsyncIterator[tuple[Order, float | None]]:
        """Tell upstream that orders are still being carried out; yield each with the next `keep_at`.

        Called for orders whose time has come, unless the job of one of their items has failed.
        """
        for order in orders:
            yield order, None


class Source(abc.ABC, Generic[OptionsT]):
    """Code that can bring work in from one kind of place; found by the entry-point group `dittohead.sources`.

    One instance serves the whole process and keeps no state of its own.

    A whole one:

        from contextlib import asynccontextmanager

        from dittohead import Sighting, Source, SourceOptions, Upstream

        NOTES = {"monday": b"dry", "tuesday": b"rain"}

        class Notes(Upstream):
            async def look(self, ctx):
                await ctx.saw(
                    [
                        Sighting(key=day, folder=day, path="note.txt", version="1", size=len(text))
                        for day, text in NOTES.items()
                        if day.startswith(ctx.prefix)
                    ]
                )

            async def fetch(self, ctx):
                async for item in ctx.items():
                    (ctx.root / item.path).write_bytes(NOTES[item.key])
                    await ctx.fetched(item, "written by this process")

        class NotesSource(Source[SourceOptions]):
            name = "notes"
            Options = SourceOptions

            @asynccontextmanager
            async def open(self, options, secret):
                yield Notes()
    """

    name: ClassVar[str]  #: the key in config.yaml
    Options: ClassVar[type[SourceOptions]]  #: what its options may be
    #: what people may tell it, besides what they may tell every source
    commands: ClassVar[Mapping[str, Command]] = {}
    #: what of it people may pause apart: the word -> what it is; the engine sees to "fetches" itself
    switches: ClassVar[Mapping[str, str]] = {"fetches": "bringing folders in"}
    #: the kind of its entries that people are shown; "" where it keeps no catalogue
    shows: ClassVar[str] = ""
    #: the stage of entries whose jobs are done; they are named like their folders
    stored: ClassVar[str] = "stored"
    #: how its entries stand on the board; None where it has no board
    board: ClassVar[Board | None] = None
    #: whether a person has to sign in once, by `dittohead source authorize`
    signs_in: ClassVar[bool] = False

    def check(self, options: OptionsT) -> list[str]:
        """Return what makes these options impossible on this host, each a statement with its cure.

        Called by `dittohead check` and at start; must not reach out to the network.
        """
        return []

    async def doctor(
        self, options: OptionsT, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Yield (ok, statement) for each thing worth checking outside, for `dittohead doctor`."""
        for _ in ():
            yield True, ""

    def needs_marker(self, options: OptionsT) -> bool:
        """Tell whether a folder is complete only when one of its items is a marker."""
        return False

    def open(self, options: OptionsT, secret: Callable[[str], str]) -> AbstractAsyncContextManager[Upstream]:
        """Return an open connection, which the engine closes. Several may be open at once.

        A source has this or `connect`.

        Args:
            secret: gives a credential by its file name. Raises: ItemError: there is none.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither open nor connect")

    def connect(self, options: OptionsT, keep: Keep) -> AbstractAsyncContextManager[Upstream]:
        """Return an open connection, as `open` does, of a source that keeps a catalogue or files."""
        return self.open(options, keep.secret)

    def examine(self, options: OptionsT, keep: Keep) -> AsyncIterator[tuple[bool, str]]:
        """Yield what `doctor` does, of a source that keeps a catalogue or files."""
        return self.doctor(options, keep.secret)

    async def act(self, options: OptionsT, keep: Keep, command: str, args: Mapping[str, Any]) -> str:
        """Do what a person asks for by one of `commands`; return what was done, in words.

        Args:
            keep: what the engine keeps for this source: its catalogue, its files, its credentials.
            command: a key of `commands`.
            args: the command's arguments by name, as that command declares them.

        Raises: ItemError: it cannot be done; nothing was changed.
        """
        raise NotImplementedError(command)

    async def authorize(self, options: OptionsT, keep: Keep, person: Person) -> str:
        """Have a person sign in, and keep what that gives; return what was done, in words.

        Args:
            keep: where the credential that comes of it is kept.
            person: asks the person, and shows them where to sign in.

        Raises: ItemError, TargetError: the person could not be signed in.
        """
        raise NotImplementedError

    def panels(self, options: OptionsT, counts: Counts) -> Sequence[Panel]:
        """Return what people are shown of the catalogue, made from its counts alone: it must be quick."""
        return ()


def folder_fault(name: str, ignore: Sequence[str] = (DEFAULT,)) -> str:
    """Return why the inbox would not take a folder of this name; "" when it would.

    254 bytes: with the dot in front a directory entry has 255.

    Args:
        ignore: names that are ignored (see system/ignored_names.py).
    """
    if not name or name.startswith("."):
        return f'"{name}" is not a name for a folder in the inbox: it is empty or begins with a dot'
    if "/" in name or not name.isprintable():
        return "the folder's name would hold a slash or control characters"
    if len(name.encode("utf-8", "surrogatepass")) > 254:
        return "the folder's name would be longer than 254 bytes"
    return fault(name, ignore)


def path_fault(path: str) -> str:
    """Return why a path cannot stand below a folder, whatever upstream calls it; "" when it can."""
    parts = path.split("/")
    if path.startswith("/") or "" in parts:
        return "it begins or ends with a slash, or has two in a row, and a file's path cannot"
    if "." in parts or ".." in parts:
        return 'it has a part "." or "..", which would lead elsewhere'
    if not path.isprintable():
        return "it has control characters"
    if any(len(part.encode("utf-8", "surrogatepass")) > 255 for part in parts):
        return "a part of it is longer than the 255 bytes of a file's name"
    if len(parts) > MAX_DEPTH or len(path.encode("utf-8", "surrogatepass")) > MAX_PATH:
        return f"it is nested deeper than {MAX_DEPTH} levels or longer than {MAX_PATH} bytes"
    return ""
