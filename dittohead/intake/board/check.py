"""Where store, board and disk of a source disagree; each finding with what was done about it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

from dittohead.config.loader import SourceSetting
from dittohead.contract.board import Board
from dittohead.contract.catalogue import Keep, Told
from dittohead.folders.stations import Stations
from dittohead.intake.board.keeper import Keeper
from dittohead.model.states import DropState, Station
from dittohead.store import Store
from dittohead.store import board as board_store
from dittohead.store import drops as drop_store
from dittohead.system import log

#: Findings of one kind that are named.
MOST = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Disagreement:
    """Something that two of the three say differently."""

    kind: str  #: counts, lost, folder, token
    what: str
    why: str
    done: str = ""  #: what was done about it; "" for nothing

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class BoardCheck:
    """Compares, and repairs where it is told to.

    Args:
        kind: the kind of entry on the board.
        repair: make the others say what the store says.
        live: a daemon keeps the board: a token that is late by a moment does not count.
    """

    store: Store
    stations: Stations
    setting: SourceSetting
    kind: str
    board: Board
    keep: Keep
    keeper: Keeper
    repair: bool
    live: bool

    async def run(self) -> list[Disagreement]:
        """Return all findings. Raises: StoreError, OSError, DittoheadError."""
        if self.live:
            await self.keeper.once()
        found = []
        for part in (self._counts, self._lost, self._folders):
            found += [one async for one in part()]
        found += await self._tokens()
        for one in found:
            if one.done:
                fields = one.as_dict()
                log.get().warning(log.BOARD_REPAIRED, source=self.setting.name, **fields)
        return found

    async def _counts(self) -> AsyncIterator[Disagreement]:
        """The counts that are kept, against the entries."""
        name = self.setting.name
        wrong = await self.store.read_apart(board_store.recount, name, self.kind)
        if wrong and self.repair:
            await self.store.write(board_store.keep_counts, name, self.kind)
        for (state, stage), (kept, counted) in sorted(wrong.items()):
            yield Disagreement(
                kind="counts",
                what=state + (f", {stage}" if stage else ""),
                why=f"{kept:,} are kept, {counted:,} are there",
                done="counted again" if self.repair else "",
            )

    async def _lost(self) -> AsyncIterator[Disagreement]:
        """Entries that the engine is said to have, and has not."""
        board = self.board
        found = await self.store.read_apart(
            board_store.lost, self.setting.name, self.kind, board.fetching, MOST
        )
        told = [
            Told(
                key=one.key,
                stage=board.aside if one.given_up else board.wanted,
                over_stages=frozenset({board.fetching}),
                reason=one.why,
            )
            for one in found
        ]
        if told and self.repair:
            await self.keep.catalogue.tell(self.kind, told, by="check", only_known=True)
        for one in found:
            done = "set aside" if one.given_up else "brought in again"
            yield Disagreement(kind="lost", what=one.key, why=one.why, done=done if self.repair else "")

    async def _folders(self) -> AsyncIterator[Disagreement]:
        """Folders being fetched that are not where they were made; their source makes them again."""
        for drop in await self.store.read_apart(
            drop_store.of_source, self.setting.name, {DropState.FETCHING}
        ):
            path = self.stations.path(Station.INBOX) / f".{drop.folder}"
            try:
                there = not drop.ino or str(os.lstat(path).st_ino) == drop.ino
            except FileNotFoundError:
                there = False
            if not there:
                why = f"{path} is not there, or is another; it is fetched from the beginning"
                yield Disagreement(kind="folder", what=drop.folder, why=why)

    async def _tokens(self) -> list[Disagreement]:
        """Tokens that are not where their entries stand."""
        wrong = await self.keeper.differences()
        if self.repair:
            # At the first look it is read what is there; what asks for something is taken at the second.
            self.keeper.forget()
            await self.keeper.once()
            await self.keeper.once()
        left = dict(await self.keeper.differences()) if self.repair else dict(wrong)
        return [
            Disagreement(kind="token", what=what, why=why, done="" if what in left else "written again")
            for what, why in wrong
        ]
