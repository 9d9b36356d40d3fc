"""The engine of sources: what brings work in from elsewhere and drops it into the inbox.

Each source of config.yaml is one `SourceRunner`, supervised here: its faults are said and tried again, and
end nothing else. A folder comes into the inbox by the uploader's protocol alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

from dittohead.config.loader import SourceSetting
from dittohead.config.registry import Sources
from dittohead.contract.board import Board
from dittohead.contract.catalogue import SWITCH, Told
from dittohead.engine.claim import Claimer
from dittohead.folders.stations import Stations
from dittohead.intake.board import acts
from dittohead.intake.board.check import BoardCheck
from dittohead.intake.runner import SourceRunner, Tools
from dittohead.model.errors import DittoheadError, ItemError
from dittohead.model.shown import RunningSource
from dittohead.model.states import Action
from dittohead.model.text import counted
from dittohead.store import Store
from dittohead.store import items as item_store
from dittohead.store.requests import Request
from dittohead.system import log


class NoSuchSource(DittoheadError):
    """There is no source of this name."""


class Intake:
    """All sources of the configuration."""

    def __init__(
        self,
        store: Store,
        stations: Stations,
        claimer: Claimer,
        sources: Sources,
        secret: Callable[[str], str],
        poke: Callable[[], None] = lambda: None,
    ) -> None:
        self._tools = Tools(store=store, stations=stations, claimer=claimer, secret=secret, poke=poke)
        self._sources = sources
        self._runners: dict[str, SourceRunner] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def configure(self, settings: Sequence[SourceSetting]) -> None:
        """Use these settings from now on: sources that have not changed go on undisturbed."""
        wanted = {setting.name: setting for setting in settings}
        for name, runner in list(self._runners.items()):
            if wanted.get(name) != runner.setting:
                del self._runners[name]
        for name, setting in wanted.items():
            if name not in self._runners:
                self._runners[name] = SourceRunner(self._tools, setting, self._sources.get(setting.kind))
        self._changed.set()

    async def run(self) -> None:
        """Run every source until cancelled."""
        running: dict[str, SourceRunner] = {}
        try:
            while True:
                self._changed.clear()
                for name, runner in list(running.items()):
                    if self._runners.get(name) is not runner:
                        del running[name]
                        await _end(self._tasks.pop(name))
                for name, runner in self._runners.items():
                    if name not in running:
                        running[name] = runner
                        self._tasks[name] = asyncio.create_task(runner.run(), name=f"source:{name}")
                await self._supervise()
        finally:
            for task in self._tasks.values():
                await _end(task)

    async def _supervise(self) -> None:
        """Wait for other settings; a runner that ends by itself is a defect, and is started again."""
        change = asyncio.create_task(self._changed.wait())
        try:
            while not change.done():
                done, _ = await asyncio.wait(
                    {change, *self._tasks.values()}, return_when=asyncio.FIRST_COMPLETED
                )
                for name, task in list(self._tasks.items()):
                    if task in done:
                        log.get().error(log.SOURCE_CRASHED, source=name, exc_info=task.exception())
                        await asyncio.sleep(_AGAIN_S)
                        if name not in self._runners:  # taken out of config.yaml meanwhile
                            continue
                        self._tasks[name] = asyncio.create_task(
                            self._runners[name].run(), name=f"source:{name}"
                        )
        finally:
            await _end(change)

    def sooner(self) -> None:
        """See again when rounds are due: the clock was set back."""
        for runner in self._runners.values():
            runner.sooner()

    @property
    def names(self) -> Collection[str]:
        """The sources there are."""
        return self._runners.keys()

    @property
    def busy(self) -> int:
        """How many sources look or fetch now; one that only tries again after a fault is not counted."""
        return sum(fields["state"] not in ("idle", "failing", "stopped") for fields in self.shown().values())

    def look_all(self) -> None:
        """Have every source look now, whatever its schedule says."""
        for runner in self._runners.values():
            runner.look_soon()

    def shown(self) -> dict[str, RunningSource]:
        """Return what is true only now, of each source."""
        return {name: runner.shown() for name, runner in self._runners.items()}

    def handlers(self, *, alone: bool) -> dict[str, Callable[[Request], Awaitable[str]]]:
        """Return what can be asked of sources, by the name of the action; `alone` as of `carry_out`."""
        return {
            **dict.fromkeys((Action.SYNC, Action.RESET), partial(self.carry_out, alone=alone)),
            Action.SOURCE_PAUSE: self.switch,
            Action.SOURCE_RESUME: self.switch,
            Action.SOURCE_TELL: self.tell,
            **dict.fromkeys((Action.SOURCE_HOLD, Action.SOURCE_THAW, Action.SOURCE_REFETCH), self.on_board),
            Action.SOURCE_CHECK: partial(self.check, live=not alone),
        }

    def _runner(self, name: str) -> SourceRunner:
        runner = self._runners.get(name)
        if runner is None:
            names = ", ".join(self._runners) or "none"
            raise NoSuchSource(f'there is no source "{name}"', hint=f"There are: {names}")
        return runner

    async def switch(self, request: Request) -> str:
        """Pause a part of a source, or let it go on. Raises: NoSuchSource, ItemError, StoreError."""
        runner = self._runner(request.job)
        what, off = request.given.what or "fetches", request.action == Action.SOURCE_PAUSE
        known = self._sources.get(runner.setting.kind).switches
        if what not in known:
            raise ItemError(f'"{what}" cannot be paused', hint=f"There are: {', '.join(known)}")
        reason = request.given.reason if off else ""
        told = Told(key=what, state="paused" if off else "on", reason=reason)
        await runner.keep.catalogue.tell(SWITCH, [told], by=request.who)
        runner.news()
        return f"{runner.name}: {known[what]} " + ("is paused; what is under way ends" if off else "goes on")

    async def tell(self, request: Request) -> str:
        """Tell a source something by one of its commands. Raises: NoSuchSource, ItemError, StoreError."""
        runner = self._runner(request.job)
        source, command = self._sources.get(runner.setting.kind), request.given.command
        if command not in source.commands:
            known = ", ".join(source.commands) or "none"
            raise ItemError(f'this source knows no command "{command}"', hint=f"It knows: {known}")
        args = {**request.given.args, "who": request.who}
        said = await source.act(runner.options, runner.keep, command, args)
        runner.news()
        return f"{runner.name}: {said}"

    async def on_board(self, request: Request) -> str:
        """Hold entries, let them go on, bring them in again. Raises: NoSuchSource, ItemError, StoreError."""
        runner, board, kind = self._with_board(request.job)
        keys = request.given.keys
        if request.action == Action.SOURCE_HOLD:
            said = await acts.hold(runner.keep, kind, board, keys, request.who)
        elif request.action == Action.SOURCE_THAW:
            said = await acts.thaw(runner.keep, kind, board, keys, request.who)
        else:
            said = await acts.again(self._tools.store, runner.keep, kind, board, keys, request.who)
        runner.news()
        return f"{runner.name}: {said}"

    async def check(self, request: Request, *, live: bool) -> str:
        """Compare store, board and disk of a source; return the findings as JSON, a list of objects.

        Args:
            live: a daemon keeps the board.

        Raises: NoSuchSource, ItemError, StoreError.
        """
        runner, board, kind = self._with_board(request.job)
        assert runner.board is not None  # noqa: S101  # so says `_with_board`
        found = await BoardCheck(
            store=self._tools.store,
            stations=self._tools.stations,
            setting=runner.setting,
            kind=kind,
            board=board,
            keep=runner.keep,
            keeper=runner.board,
            repair=request.given.repair,
            live=live,
        ).run()
        return json.dumps([one.as_dict() for one in found], ensure_ascii=False)

    def _with_board(self, name: str) -> tuple[SourceRunner, Board, str]:
        runner = self._runner(name)
        source = self._sources.get(runner.setting.kind)
        if source.board is None:
            raise ItemError(f"{name}: a source of the kind {runner.setting.kind} has no board")
        return runner, source.board, source.shows

    async def carry_out(self, request: Request, *, alone: bool) -> str:
        """Do what a person asked for, and return what was done, in words.

        Args:
            alone: no daemon goes on after this: a round is made to its end.

        Raises: NoSuchSource, StepError, StoreError.
        """
        runner = self._runner(request.job)
        prefix = request.given.prefix
        if request.action == Action.RESET:
            store = self._tools.store
            count, busy = await store.write(item_store.forget, runner.name, prefix, time.time())
            said = f"{runner.name}: {count} items are fetched again"
            left = f"; {busy} were left, which are under way" if busy else ""
            if not request.given.sync:
                runner.news()
                return f"{said}, when it has looked{left}"
            return f"{said}{left}; {await self._sync(runner, prefix, alone=alone)}"
        return f"{runner.name}: {await self._sync(runner, prefix, alone=alone)}"

    async def _sync(self, runner: SourceRunner, prefix: str, *, alone: bool) -> str:
        if not alone:
            runner.look_soon(prefix)
            return "a round has begun; see: dittohead source list"
        await runner.follow()
        looked = await runner.look(prefix)
        dropped = await runner.bring()
        await runner.follow()
        said = (
            f"{counted(looked.seen, 'item')} seen, {looked.new} new, {looked.changed} changed; "
            f"{counted(dropped, 'folder')} dropped"
        )
        return f"{said}; held back: {runner.held}" if runner.held else said


#: A runner that crashed is started again after this long.
_AGAIN_S = 10.0


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
