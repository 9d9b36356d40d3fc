"""One source at work: it looks when it is due, listens, fetches while there is room, follows its jobs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from dittohead.config.loader import SourceSetting
from dittohead.contract.board import HELD, HOLD
from dittohead.contract.catalogue import Told
from dittohead.contract.source import Source, SourceOptions, Upstream
from dittohead.engine.claim import Claimer
from dittohead.engine.disk_budget import Need
from dittohead.folders.stations import Stations
from dittohead.intake.board.keeper import Keeper
from dittohead.intake.drop import Dropper
from dittohead.intake.look import SourceLook
from dittohead.model import units
from dittohead.model.errors import (
    DittoheadError,
    ItemError,
    SourceStopped,
    StoreError,
    TargetError,
    TransientError,
)
from dittohead.model.shown import RunningSource
from dittohead.model.states import DropState
from dittohead.store import Connection, Store
from dittohead.store import catalogue as catalogue_store
from dittohead.store import drops as drop_store
from dittohead.store import items as item_store
from dittohead.store.drops import SourceDrop
from dittohead.store.keeping import keep
from dittohead.system import fail_points, log
from dittohead.system.patterns import TooSlow
from dittohead.system.waiting import event_or_time
from dittohead.toolkit.backoff import wait_s

#: Folders of one source fetched in parallel.
_FOLDERS = 4

#: Folders asked of the store at once when some may be fetched.
_CANDIDATES = 100

#: Waits after a fault, doubled each time, with jitter.
_FIRST_S, _MOST_S = 5.0, 900.0

#: What went on this long without a fault is well.
_WELL_S = 60.0

#: Between two looks at the jobs of dropped folders, while there are such.
_FOLLOW_S = 1.0

#: Between two looks at what may have become due, when nothing else says so.
_IDLE_S = 10.0

#: Folders that is not available now, besides those that can, for each that may be under way.
_STUCK = 10

#: A source that stopped is tried again after this long: what refused it may take hours to let it in. Seconds.
_STOPPED_S = 3600.0

#: Between two looks whether a person has done what a stopped source waits for. Seconds.
_STOPPED_LOOK_S = 1.0

#: Between two passes of the board. Seconds.
_BOARD_S = 1.0

#: Orders settled with one connection.
_ORDERS = 100


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What all sources share."""

    store: Store
    stations: Stations
    claimer: Claimer
    secret: Callable[[str], str]
    poke: Callable[[], None] = lambda: None  #: have requests carried out now


class SourceRunner:
    """One source of config.yaml."""

    def __init__(self, tools: Tools, setting: SourceSetting, source: Source[Any]) -> None:
        self._tools, self.setting, self._source = tools, setting, source
        self.name = setting.name
        self.options: SourceOptions = setting.options
        self._store = tools.store
        self._dropper = Dropper(tools.store, tools.stations)
        self.keep = keep(tools.store, tools.stations.state, setting.name, tools.secret)
        self.stopped: SourceStopped | None = None  #: what a person has to do something about
        self._stopped_at = 0.0  #: by the clock that only goes on
        self.doing = ""  #: what it does now, in words
        self.held = ""  #: why it holds back; "" when it does not
        self.faults: dict[str, str] = {}  #: part -> what is wrong with it now
        #: folder -> (not before, by the clock that only goes on; why; how often)
        self._waits: dict[str, tuple[float, str, int]] = {}
        self.board: Keeper | None = None  #: None where the source has none
        if source.board is not None:
            config = lambda: tools.claimer.config  # noqa: E731
            self.board = Keeper(tools.store, tools.stations, setting, source, self.keep, config, tools.poke)
        self._look_now = asyncio.Event()
        self._prefixes: list[str] = []  #: parts of the place to be looked at out of turn
        self._bring_now, self._follow_now = asyncio.Event(), asyncio.Event()
        self._active: set[int] = set()  #: drops being fetched
        self._missing: set[int] = set()  #: dropped folders that were nowhere at the last look
        self._candidates: list[item_store.Ready] = []

    def open(self) -> AbstractAsyncContextManager[Upstream]:
        """Connect to what lies upstream."""
        return self._source.connect(self.options, self.keep)

    async def run(self) -> None:
        """Work until cancelled; faults are said and tried again."""
        async with asyncio.TaskGroup() as group:
            for part, work in (
                ("look", lambda: self._within(self._look_when_due)),
                ("listen", lambda: self._within(self._listen)),
                ("fetch", lambda: self._within(self._bring_when_ready)),
                ("follow", self._follow_when_due),
                ("board", self._keep_board),
            ):
                group.create_task(self._persist(part, work), name=f"source:{self.name}:{part}")

    async def _persist(self, part: str, work: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            await self._while_stopped()
            began = time.monotonic()
            try:
                await work()
            except SourceStopped as error:
                await self._stop(part, error)
                continue
            except Exception as error:  # noqa: BLE001  # around one source: a site's own may raise anything
                failures = 1 if time.monotonic() - began > _WELL_S else failures + 1
                wait = _wait_s(failures, error)
                self._failed(part, error, wait)
            else:
                self.faults.pop(part, None)
                failures = 0
                continue
            await asyncio.sleep(wait)

    async def _stop(self, part: str, error: SourceStopped) -> None:
        """Stop all parts; people are told once, until the source is let in again."""
        if self.faults.get(part) != str(error):
            log.get().error(log.SOURCE_STOPPED, source=self.name, error=str(error))
        self.faults[part] = str(error)
        self.stopped, self._stopped_at = error, time.monotonic()
        await self._tools.claimer.targets.pause(self._place, str(error))

    async def _while_stopped(self) -> None:
        """Return when a person has done what it waits for, asks for a look, or much time has passed."""
        while (stopped := self.stopped) is not None:
            if stopped.over() or self._prefixes or time.monotonic() - self._stopped_at > _STOPPED_S:
                self.stopped = None
                return
            await asyncio.sleep(_STOPPED_LOOK_S)

    @property
    def _place(self) -> str:
        """What it is called among the places that can be paused."""
        return f"source {self.name}"

    async def _within(self, work: Callable[[], Awaitable[None]]) -> None:
        """Work in the part of the day that is given; at its end what is under way halts."""
        window = self.options.window()
        if window is None:
            await work()
            return
        while (left := window.left_s(time.time(), self.options.timezone)) <= 0 and not self._prefixes:
            opens = window.opens_s(time.time(), self.options.timezone)
            # In short waits: the clock may be set.
            await event_or_time(self._look_now, min(opens, _IDLE_S))
            self._look_now.clear()
        scope = asyncio.timeout(left if left > 0 else None)
        try:
            async with scope:
                await work()
        except TimeoutError:
            if not scope.expired():
                raise

    def _failed(self, part: str, error: Exception, wait: float) -> None:
        text = str(error)
        if not isinstance(error, (DittoheadError, OSError)):
            log.get().exception(log.SOURCE_CRASHED, source=self.name, part=part, error=text)
            text = f"{type(error).__name__}: {error}"
        if self.faults.get(part) != text:
            log.get().warning(
                log.SOURCE_FAILED, source=self.name, part=part, error=text, wait_seconds=round(wait, 1)
            )
        self.faults[part] = text

    def sooner(self) -> None:
        """See again when the next round is due: the clock was set back."""
        self._look_now.set()

    # -- look --------------------------------------------------------------------------------

    def look_soon(self, prefix: str = "") -> None:
        """Look now, out of turn, at keys that begin so."""
        self._prefixes.append(prefix)
        self._look_now.set()
        self._bring_now.set()

    async def _look_when_due(self) -> None:
        while not self._prefixes:
            self._look_now.clear()  # before what it reports is looked at
            row = await self._store.read(item_store.rounds, self.name)
            due = 0.0 if row.unfinished else self.options.due(row.looked_at)
            if due <= time.time():
                break
            # In short waits: the clock may be set.
            await event_or_time(self._look_now, min(due - time.time(), _IDLE_S))
        prefix = self._prefixes.pop(0) if self._prefixes else ""
        try:
            await self.look(prefix)
        except StoreError:  # else the round is known to be unfinished
            self._prefixes.append(prefix)
            raise

    async def look(self, prefix: str = "") -> SourceLook:
        """Make a round: tell the store of all that is upstream. Goes on where a killed one was."""
        self.doing = "looks"
        try:
            position: dict[str, Any] | None = None
            row = await self._store.read(item_store.rounds, self.name)
            if not prefix:
                position = row.position
            if not row.unfinished:  # also a look at a part: killed, the whole is looked at again
                await self._store.write(item_store.put_round, self.name, looked_at=time.time(), position={})
            ctx = SourceLook(
                self._store, self.name, prefix, position, self.news, self._tools.stations.ignore, self.urgent
            )
            async with self.open() as upstream:
                await upstream.look(ctx)
            # A look at a part does not end a round that was begun before it.
            over = {} if prefix and row.unfinished else {"position": {}, "finished_at": time.time()}
            await self._store.write(item_store.put_round, self.name, error="", **over)
            await self._tools.claimer.targets.resume(self._place)
            self._bring_now.set()
            ctx.log.info(log.SOURCE_LOOKED, seen=ctx.seen, new=ctx.new, changed=ctx.changed, prefix=prefix)
            return ctx
        except (DittoheadError, OSError) as error:
            with contextlib.suppress(DittoheadError):
                await self._store.write(item_store.put_round, self.name, error=str(error))
            raise
        finally:
            self.doing = ""

    def urgent(self) -> None:
        """Ask the store again what comes next: something may go before what was found last."""
        self._candidates.clear()

    def news(self) -> None:
        """Look in the store for what may be fetched or settled: rows have changed."""
        self._bring_now.set()
        self._follow_now.set()

    async def _listen(self) -> None:
        ctx = SourceLook(
            self._store, self.name, "", None, self.news, self._tools.stations.ignore, self.urgent
        )
        well = asyncio.get_running_loop().call_later(_WELL_S, self.faults.pop, "listen", None)
        try:
            async with self.open() as upstream:
                await upstream.listen(ctx)
        finally:
            well.cancel()
        self.faults.pop("listen", None)
        await asyncio.Event().wait()  # it has nothing to say by itself

    # -- fetch -------------------------------------------------------------------------------

    async def _bring_when_ready(self) -> None:
        self._bring_now.clear()
        drop = await self._next()
        if drop is None:
            soon = await self._store.read(item_store.next_ready, self.name, time.time())
            due = [] if soon is None else [soon - time.time()]
            due += [left for at, _, _ in self._waits.values() if (left := at - time.monotonic()) > 0]
            # In short waits: whatever else becomes possible, such as room on the disk, tells nobody.
            await event_or_time(self._bring_now, min([_IDLE_S, *(max(left, 0.05) for left in due)]))
            return
        await self.bring(drop)

    async def bring(self, first: SourceDrop | None = None) -> int:
        """Fetch folders and drop them while there are some and there is room; return how many."""
        count = 0
        running: set[asyncio.Task[bool]] = set()
        drop = first or await self._next()
        if drop is None:
            return 0
        try:
            async with self.open() as upstream:
                while drop is not None or running:
                    if drop is not None:
                        self._active.add(drop.id)
                        needed = self._needed(drop.folder, drop.size)
                        self._tools.claimer.budget.reserve(_reservation(drop), needed)
                        running.add(asyncio.create_task(self._one(upstream, drop)))
                    if len(running) < _FOLDERS and (drop := await self._next()) is not None:
                        continue
                    drop = None
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    count += sum(task.result() for task in done)
                    drop = await self._next()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return count

    async def _one(self, upstream: Upstream, drop: SourceDrop) -> bool:
        try:
            dropped = await self._dropper.bring(upstream, drop, lambda size: self._written(drop, size))
        except (ItemError, TransientError) as error:
            self._put_off(drop.folder, error)
            return False
        except TargetError as error:  # of all of them, most likely; but after the wait another goes first
            self._put_off(drop.folder, error)
            raise
        finally:
            self._active.discard(drop.id)
            self._tools.claimer.budget.release(_reservation(drop))
        self._waits.pop(drop.folder, None)
        self._follow_now.set()
        return dropped

    def _put_off(self, folder: str, error: DittoheadError) -> None:
        _, why, failures = self._waits.get(folder, (0.0, "", 0))
        if why != str(error):
            log.get().warning(log.SOURCE_HELD, source=self.name, folder=folder, reason=str(error))
        wait = _wait_s(failures + 1, error)
        self._waits[folder] = (time.monotonic() + wait, str(error), failures + 1)

    def _is_put_off(self, folder: str) -> bool:
        return folder in self._waits and self._waits[folder][0] > time.monotonic()

    async def _next(self) -> SourceDrop | None:
        """Return the next folder to be fetched: one begun earlier first; None when none may be now."""
        if why := await self.keep.paused("fetches"):
            self._hold(f"fetches are paused: {why}")
            return None
        under_way = await self._store.read(drop_store.of_source, self.name)
        now = time.time()
        for drop in under_way:
            mine = drop.state is DropState.FETCHING and drop.id not in self._active
            if mine and not self._is_put_off(drop.folder) and not await self._is_held(drop.folder):
                return drop if self._has_space(drop.folder, drop.size) else None
        # One that is not available now takes no other's place; but there is an end to that too.
        ahead = [drop for drop in under_way if not self._is_put_off(drop.folder)]
        if len(ahead) >= self.options.ahead or len(under_way) >= self.options.ahead * _STUCK:
            self._hold(f"{len(under_way)} of its folders are under way (ahead: {self.options.ahead})")
            return None
        return await self._begin({drop.folder for drop in under_way}, now)

    async def _begin(self, busy: set[str], now: float) -> SourceDrop | None:
        if not self._candidates:
            self._candidates = await self._store.read(
                item_store.ready,
                self.name,
                now,
                marker=self._source.needs_marker(self.options),
                limit=_CANDIDATES,
            )
        while self._candidates:
            found = self._candidates[0]
            if found.folder in busy or self._is_put_off(found.folder) or await self._is_held(found.folder):
                self._candidates.pop(0)
                continue
            if not self._has_space(found.folder, found.size):
                return None
            self._candidates.pop(0)
            drop = await self._store.write(drop_store.begin, self.name, found.folder, now)
            if drop is not None:
                self._hold("")
                return drop
        self._hold("")
        return None

    def _needed(self, folder: str, size: int) -> Need:
        """Return what a folder will take under the root, with what its pipeline makes of it."""
        try:
            matched = self._tools.claimer.config.pipeline_for(folder)
        except TooSlow:
            matched = None  # its job will say so
        return Need(folder=size, work=int(size * (matched[0].space_factor if matched else 0.0)))

    def _has_space(self, folder: str, size: int) -> bool:
        lack = self._tools.claimer.budget.lacking(self._needed(folder, size))
        if lack is not None:
            place = lack.disk.place
            self._hold(f"{folder} needs {units.size(lack.size)} more free disk space under {place}")
        return lack is None

    def _written(self, drop: SourceDrop, size: int) -> None:
        """What lies on the disk need not be reserved any more."""
        self._tools.claimer.budget.written(_reservation(drop), size)

    def _hold(self, why: str) -> None:
        if why and why != self.held:
            log.get().info(log.SOURCE_HELD, source=self.name, reason=why)
        self.held = why

    # -- follow ------------------------------------------------------------------------------

    async def _follow_when_due(self) -> None:
        self._follow_now.clear()
        busy = await self.follow()
        await event_or_time(self._follow_now, _FOLLOW_S if busy else _IDLE_S)

    async def follow(self) -> bool:
        """Find out what happened to dropped folders, and settle what is done; True while some are open."""
        for drop in await self._store.read(drop_store.of_source, self.name, {DropState.DROPPED}):
            if drop.job_id is None:
                await self._see_to(drop)
        for turn in await self._store.write(self._turns):
            log.get().info(
                log.SOURCE_FOLLOWED,
                source=self.name,
                folder=turn.drop.folder,
                job=turn.job,
                state=turn.state.value,
            )
            self._bring_now.set()
        await self.settle()
        await self._keep()
        return bool(await self._store.read(drop_store.of_source, self.name))

    def _turns(self, connection: Connection) -> list[drop_store.Turn]:
        """Find what happened to jobs; in the same transaction the catalogue says it of their entries."""
        turns = drop_store.follow(connection, self.name)
        latest = {turn.drop.folder: turn for turn in turns}
        for turn in latest.values():
            self._tell_stage(connection, turn.drop, turn.state, turn.reason, turn.job)
        return turns

    def _tell_stage(
        self, connection: Connection, drop: SourceDrop, state: DropState, reason: str, job: str = ""
    ) -> None:
        """Let an entry of the catalogue be where its folder's job is; one that is done is its source's."""
        board, kind = self._source.board, self._source.shows
        if board is None or drop_store.later(connection, drop):
            return
        is_failed = state is DropState.FAILED
        stage, attributes = board.failed if is_failed else board.fetching, {"job": job or None}
        entry = catalogue_store.get(connection, self.name, kind, [drop.folder]).get(drop.folder)
        if entry is not None and entry.stage == HOLD:  # it goes on from there when it is let go on
            held = entry.attributes.get(HELD) in (board.fetching, board.failed)
            told = Told(key=drop.folder, attributes=attributes | ({HELD: stage} if held else {}))
        else:
            told = Told(
                key=drop.folder,
                stage=stage,
                over_stages=frozenset({board.fetching, board.failed}),
                reason=reason if is_failed else "",
                attributes=attributes,
            )
        catalogue_store.tell(connection, self.name, kind, [told], time.time(), by="jobs", only_known=True)

    async def _see_to(self, drop: SourceDrop) -> None:
        """Rename a folder whose rename a crash forestalled; notice one that a person took away."""
        try:
            if await asyncio.to_thread(self._dropper.publish, drop):
                self._missing.discard(drop.id)
                return
        except ItemError as error:
            self._put_off(drop.folder, error)
            return
        if await asyncio.to_thread(self._dropper.lies_somewhere, drop):
            self._missing.discard(drop.id)
        elif drop.id not in self._missing:
            self._missing.add(drop.id)  # it may just have become a job, and left processing/
        else:
            current = await self._store.read(drop_store.get, drop.id)
            if current.job_id is None and current.state is DropState.DROPPED:
                why = "the folder was removed from the inbox before it became a job"
                log.get().warning(log.SOURCE_HELD, source=self.name, folder=drop.folder, reason=why)
                await self._store.write(self._lost, drop, why)

    def _lost(self, connection: Connection, drop: SourceDrop, why: str) -> None:
        drop_store.turn_to(connection, drop.id, DropState.FAILED, why)
        self._tell_stage(connection, drop, DropState.FAILED, why)

    async def settle(self) -> int:
        """Tell upstream of orders all of whose items are done; return how many."""
        count = 0
        while orders := await self._store.read(item_store.settleable, self.name, _ORDERS):
            before = count
            async with self.open() as upstream:
                async for order in upstream.settle(orders):
                    fail_points.point("source.settled")
                    await self._store.write(item_store.settled, order.id)
                    log.get().info(log.SOURCE_SETTLED, source=self.name, order=order.handle)
                    count += 1
            if count == before:
                break
        return count

    async def _keep(self) -> None:
        orders = await self._store.read(item_store.keepable, self.name, time.time(), _ORDERS)
        if orders:
            async with self.open() as upstream:
                async for order, keep_at in upstream.keep(orders):
                    await self._store.write(item_store.kept, order.id, keep_at)

    # -- the board ---------------------------------------------------------------------------

    async def _keep_board(self) -> None:
        """Keep the board as long as the source runs; a pass takes a twentieth of the time at most."""
        if self.board is None:
            await asyncio.Event().wait()
            return
        began = time.monotonic()
        await self.board.once()
        self.faults.pop("board", None)
        took = time.monotonic() - began
        await asyncio.sleep(max(_BOARD_S, 19 * took))

    async def _is_held(self, folder: str) -> bool:
        """Tell whether a person holds what a folder would be fetched for."""
        if self._source.board is None:
            return False
        found = (await self.keep.catalogue.get(self._source.shows, [folder])).get(folder)
        return found is not None and found.stage == HOLD

    # -- for people --------------------------------------------------------------------------

    def shown(self) -> RunningSource:
        """Return what is true only now."""
        now = time.monotonic()
        return {
            "state": self._state(),
            "error": next(iter(self.faults.values()), ""),
            "held": self.held,
            "reserved": self._tools.claimer.budget.promised_to([f"source:{one}" for one in self._active]),
            "waiting": {name: why for name, (at, why, _) in list(self._waits.items())[:20] if at > now},
        }

    def _state(self) -> str:
        if self.stopped is not None:
            return "stopped"
        return "failing" if self.faults else self.doing or ("fetches" if self._active else "idle")


def _reservation(drop: SourceDrop) -> str:
    return f"source:{drop.id}"


def _wait_s(failures: int, error: Exception) -> float:
    asked = error.retry_after_s if isinstance(error, TransientError) else None
    return wait_s(failures, first_s=_FIRST_S, most_s=_MOST_S, asked_s=asked)
