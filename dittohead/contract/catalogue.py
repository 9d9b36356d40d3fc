"""What a source may keep: a catalogue of what there is upstream, and a directory of its own.

Items and orders (see `source`) are what is to be fetched now. A catalogue is all that is known of the remote
system, which may be millions of entries, most of which nobody fetches for months. It belongs to no kind of
source: states, stages and attributes are the source's own words.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Entries given to `Catalogue.tell` at once; each call is one transaction.
BATCH = 2000

#: The kind under which switches are kept: what a person has paused.
SWITCH = "switch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What is said about one entry now; what is not said stays as it is."""

    key: str  #: what upstream calls it; UTF-8 text without NUL
    state: str | None = None  #: what upstream makes of it, in a word of the source's
    over: frozenset[str] | None = None  #: only states that `state` may replace; None for all
    stage: str | None = None  #: what we make of it, in a word of the source's; "" for nothing
    over_stages: frozenset[str] | None = None  #: only stages that `stage` may replace; None for all
    reason: str | None = None  #: why it is so, for people; kept with the change
    priority: int | None = None  #: higher comes first
    #: since when it is in that state, seconds since the epoch; None: since it is told, where that is new
    since: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)  #: merged with those kept; None removes one


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueEntry:
    """One entry as it is kept."""

    id: int
    key: str
    state: str
    stage: str
    reason: str
    priority: int
    attributes: dict[str, Any]
    first_at: float  #: when it was first told, seconds since the epoch
    changed_at: float  #: when state, stage or attributes changed last
    since: float  #: when it came into its state, as upstream says, or when it was first reported


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One line of an entry's history."""

    at: float  #: seconds since the epoch
    state: str
    stage: str
    reason: str
    by: str  #: what told it: a listing's name, a person, a part of the source


@dataclass(frozen=True, kw_only=True, slots=True)
class ToldCounts:
    """What came of telling."""

    seen: int = 0
    new: int = 0
    changed: int = 0
    unknown: tuple[str, ...] = ()  #: keys that were not known, where only known ones may be told

    def __add__(self, other: ToldCounts) -> ToldCounts:
        return ToldCounts(
            seen=self.seen + other.seen,
            new=self.new + other.new,
            changed=self.changed + other.changed,
            unknown=self.unknown + other.unknown,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """One reading of a listing of upstream's."""

    id: int
    kind: str
    name: str
    state: str  #: open, whole, cut (it broke off), doubtful (too much would be gone)
    reason: str
    begun_at: float  #: seconds since the epoch
    ended_at: float | None
    position: dict[str, Any]  #: how far it is; the source's own
    seen: int
    new: int
    changed: int
    gone: int
    sha256: str  #: of the file it is kept in; "" while there is none
    file: str  #: relative to the source's directory


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaving:
    """What happens to entries that a whole listing did not name.

    Args:
        states: only entries in these states; None for all.
        state: the state they get.
        stage: the stage they get; None: it stays.
        reason: why, for people.
        before: only those that have not changed since; seconds since the epoch.
        most: no more than so many may leave at once; otherwise the listing is doubtful, and nothing leaves.
    """

    states: frozenset[str] | None
    state: str
    reason: str
    before: float
    stage: str | None = None
    most: int | None = None


class Catalogue(abc.ABC):
    """The entries of one source. Every method is one transaction, durable on return, but for `end`."""

    @abc.abstractmethod
    async def tell(
        self,
        kind: str,
        told: Sequence[Told],
        *,
        by: str = "",
        listing: Listing | None = None,
        position: Mapping[str, Any] | None = None,
        only_known: bool = False,
    ) -> ToldCounts:
        """Remember what is said about entries; what is as it was costs no write. Counts are kept with it.

        Args:
            by: what tells it, for the history.
            listing: that names them: they do not leave when it ends.
            position: how far that listing is, kept in the same transaction.
            only_known: entries that are not known are not made.
        """

    @abc.abstractmethod
    async def begin(self, kind: str, name: str) -> Listing:
        """Return the listing of this name that is open, or open one."""

    @abc.abstractmethod
    async def note(self, listing: Listing, position: Mapping[str, Any]) -> None:
        """Remember how far a listing is."""

    @abc.abstractmethod
    async def cut(self, listing: Listing, why: str) -> None:
        """End a listing that broke off: nothing leaves by it."""

    @abc.abstractmethod
    async def end(
        self, listing: Listing, leaving: Leaving | None, *, sha256: str = "", file: str = ""
    ) -> Listing:
        """End a whole listing; entries that it did not name leave. After a kill, call it again to go on.

        Args:
            listing: an open one, as `begin` gave it.
            leaving: what happens to entries that it did not name; None: they stay as they are.
            sha256: the SHA-256 of the file that the listing is kept in, in hex; "" where there is no file.
            file: that file, relative to the source's directory; "" where there is none.

        Returns: the listing as it ended: whole, or doubtful where too many would leave.
        """

    @abc.abstractmethod
    async def last(self, kind: str, name: str) -> Listing | None:
        """Return the latest whole listing of a name."""

    @abc.abstractmethod
    async def listings(self, kind: str, name: str, limit: int) -> list[Listing]:
        """Return listings of a name, the latest first.

        Args:
            kind: the kind of entry.
            name: the listing's name.
            limit: how many at most.
        """

    @abc.abstractmethod
    async def counts(self, kind: str) -> dict[tuple[str, str], int]:
        """Return how many entries there are by (state, stage): kept, not counted."""

    @abc.abstractmethod
    async def get(self, kind: str, keys: Sequence[str]) -> dict[str, CatalogueEntry]:
        """Return those of these entries that are known."""

    @abc.abstractmethod
    async def pick(
        self, kind: str, states: Collection[str], stages: Collection[str], limit: int, *, sample: bool = False
    ) -> list[CatalogueEntry]:
        """Return entries in these states and stages: by priority, then the longest in its state.

        Args:
            kind: the kind of entry.
            states: each of these.
            stages: with each of these; "" for none.
            limit: how many at most.
            sample: any of them, each as likely as every other.
        """

    @abc.abstractmethod
    async def page(
        self, kind: str, *, after: str = "", limit: int = 1000, state: str = "", stage: str | None = None
    ) -> list[CatalogueEntry]:
        """Return entries in the order of their keys, those behind a key.

        Args:
            kind: the kind of entry.
            after: only keys behind this one; "" begins at the first.
            limit: how many at most.
            state: only entries in this state; "" for all.
            stage: only entries in this stage; "" for those without one, None for all.
        """

    @abc.abstractmethod
    async def history(self, kind: str, key: str, limit: int = 200) -> list[Change]:
        """Return what was reported about an entry, the latest first.

        Args:
            kind: the kind of entry.
            key: the entry's key.
            limit: how many changes at most.
        """


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What the engine gives a source besides its options."""

    name: str  #: the source's name in config.yaml
    directory: Path  #: its own, in state/; made with mode 0700; the daemon alone goes there
    catalogue: Catalogue
    secret: Callable[[str], str]  #: a credential by its file name. Raises: ItemError
    log: Any  #: structlog logger, bound to source

    async def paused(self, switch: str) -> str:
        """Return why a switch of this source is off; "" while it is on."""
        found = (await self.catalogue.get(SWITCH, [switch])).get(switch)
        return (found.reason or "paused") if found is not None and found.state == "paused" else ""
