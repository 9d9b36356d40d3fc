"""A source's board without a daemon: its keeper and the requests it makes, carried out in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dittohead.admin.actions import Actions
from dittohead.config import registry
from dittohead.config.loader import SourceSetting
from dittohead.intake import Intake
from dittohead.intake.board.keeper import BoardPass, Keeper
from dittohead.store import requests as request_store
from dittohead.store.requests import RequestRow
from tests.support.grin.library import Library


class Board:
    """The board of a library's source."""

    def __init__(self, library: Library) -> None:
        self.library, harness = library, library.harness
        self.intake = Intake(
            harness.store,
            harness.stations,
            harness.claimer,
            registry.sources(),
            lambda name: library.secrets[name],
        )
        self.again()
        self.actions = Actions(
            harness.engine,
            harness.dispatch,
            self.intake.handlers(alone=False),
            config=lambda: harness.config,
        )
        self.path = harness.root / "board" / "google"

    def again(self) -> None:
        """A runner that knows only what is in the store and on the disk, as after a crash."""
        self.intake._runners.clear()
        self.intake.configure([SourceSetting(name="google", kind="grin", options=self.library.options)])
        self.runner = self.library.runner = self.intake._runners["google"]
        self.library.keep = self.runner.keep
        assert self.runner.board is not None
        self.keeper: Keeper = self.runner.board

    async def passes(self, count: int = 3) -> BoardPass:
        """Make passes, with the requests that come of each; return what all of them did."""
        whole = BoardPass()
        for _ in range(count):
            done = await self.keeper.once()
            whole.asked += done.asked
            whole.refused += done.refused
            whole.written += done.written
            whole.removed += done.removed
            await self.actions.answer_all()
        return whole

    def places(self) -> dict[str, list[str]]:
        """Stage -> names of what lies there, of stages that are not empty."""
        found = {stage: sorted(os.listdir(self.path / stage)) for stage in os.listdir(self.path)}
        return {stage: names for stage, names in found.items() if names}

    def token(self, stage: str, key: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / stage / f"{key}.json").read_text())
        return found

    def drop(self, stage: str, name: str, content: Any, *, uid: int | None = None) -> Path:
        """Put a file there as a person does."""
        path = self.path / stage / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        if uid is not None:
            os.chown(path, uid, uid)
        return path

    def move(self, key: str, start: str, end: str) -> None:
        """Move a token as a person does."""
        (self.path / start / f"{key}.json").rename(self.path / end / f"{key}.json")

    def reason(self, stage: str, name: str) -> str:
        return (self.path / stage / f"{name}.reason.txt").read_text()

    def requests(self, action: str = "") -> Sequence[RequestRow]:
        return self.library.harness.store.run(request_store.listing, action=action)
