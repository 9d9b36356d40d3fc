"""Start-up and shutdown, in order: lock, stations, store, dispatch, watcher, notices, signals."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import gc
import resource
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from dittohead import __version__, web
from dittohead.admin import rebuild
from dittohead.admin.actions import Actions
from dittohead.admin.doctor import examine
from dittohead.admin.fixity import FixityCheck
from dittohead.admin.housekeeping import Housekeeper
from dittohead.admin.late_changes import LateChangeCheck
from dittohead.admin.monitor import Monitor
from dittohead.admin.overdue import Overdue
from dittohead.admin.removal import Removal
from dittohead.admin.request_queue import RequestQueue
from dittohead.admin.root_watch import RootWatch
from dittohead.admin.row_check import RowCheck
from dittohead.admin.verify import Reading, Report, verify_job
from dittohead.config import registry
from dittohead.config.loader import Config, load
from dittohead.config.settings import Watch
from dittohead.engine import live_status
from dittohead.engine.claim import Claimer
from dittohead.engine.dispatch import Dispatch
from dittohead.engine.dispatch.local import LocalDispatch
from dittohead.engine.engine import Engine
from dittohead.engine.reconcile import reconcile
from dittohead.engine.supervisor import Service, Supervisor
from dittohead.engine.targets import Targets
from dittohead.folders.stations import Scan, Stations
from dittohead.intake import Intake
from dittohead.model import units
from dittohead.model.errors import ConfigError, DittoheadError, StationError, StationMissing, StoreError
from dittohead.model.records import Job
from dittohead.model.shown import LiveFacts, LiveStatus, ShownReport, ShownTrouble
from dittohead.model.states import Station
from dittohead.model.text import counted, display
from dittohead.notices import doctor as receivers
from dittohead.notices.commands import Commands
from dittohead.notices.compose import Composer
from dittohead.notices.ping import Pinger
from dittohead.notices.sender import Notifier
from dittohead.scheduled_run import UntilEmpty
from dittohead.startup import Starting, is_passing
from dittohead.store import SILENT_S, Connection, Store
from dittohead.store import items as item_store
from dittohead.store import jobs as job_store
from dittohead.store import outbox as outbox_store
from dittohead.store.connect import open_store
from dittohead.store.outbox import StoreOutbox
from dittohead.system import disk_space, lock, log, mounts, process, sd_notify, threads
from dittohead.system.clock_steps import Clock, heeded
from dittohead.system.credentials import Credentials
from dittohead.system.limits import FairLimiter
from dittohead.system.threads import detached
from dittohead.system.waiting import event_or_time
from dittohead.watcher import Watcher
from dittohead.web.server.app_state import AppState

#: How often what readers see is written while something happens.
_LIVE_S = 0.5

#: Requests are searched for this often even when nobody pokes.
_REQUESTS_S = 5.0

#: Store and stations are compared this often.
_RECONCILE_S = 60.0

#: After a fault of the disk or the store they are compared this soon.
_TROUBLE_S = 5.0

#: Without a look at the inbox, or an answer of the store, for this long the daemon is not well. Seconds.
_LATE_S = 60.0

#: Seconds a start waits for the root's lock: a command that finds no daemon holds it for a moment.
_LOCK_PATIENCE_S = 3.0


#: Things in the inbox that are not folders that the log names at a look, and readers see.
_STRAYS = 20


class Daemon:
    """One process on one root."""

    def __init__(self, config: Config, *, patience_s: float | None = None) -> None:
        """Prepare. Args: patience_s: run until nothing is left (scheduled_run.py); None: until stopped."""
        self.config, self._patience_s = config, patience_s
        self.exit_status = 0
        self.stations = Stations(
            config.root, config.settings.watch.ignore, lambda name: self.config.takes_file(name)
        )
        self.live = live_status.Live(self.stations.state / "live.json")
        self._stop = asyncio.Event()
        self._interrupt = asyncio.Event()
        self._poked = asyncio.Event()
        self._compare = asyncio.Event()  # store and stations may differ
        self._scan: Scan | None = None
        self.parts = Supervisor([])
        self._last_status = ""
        self._clock, self._set_back = Clock(), 0.0
        self._started = False  # the start has ended: what goes wrong now is not a start's
        self._free = 0

    async def run(self) -> None:
        """Work until told to stop; what may go away by itself holds up the start, and does not end it.

        Raises: DittoheadError: it cannot start, or not go on.
        """
        asyncio.get_running_loop().set_default_executor(threads.PatientPool())
        _raise_file_limit()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        starting = Starting(self.config, self._stop, self._patience_s)
        while not self._stop.is_set():
            try:
                await self._until_told(self._live())
                return
            except Exception as error:
                if self._started:
                    raise
                if not is_passing(error):
                    raise self._lasting(error) from error
                await starting.wait(error)

    def _lasting(self, error: Exception) -> Exception:
        """Return the error with which a start ends that waiting does not help."""
        if isinstance(error, OSError):  # an address or a directory that we may not use
            return ConfigError(f"the daemon cannot start: {error}", where=str(self.config.path))
        if isinstance(error, StoreError) and self.config.settings.store != "sqlite":
            return ConfigError(error.what, where=error.where, hint=error.hint)  # a wrong password, say
        return error

    async def _until_told(self, life: Coroutine[Any, Any, None]) -> None:
        """Live; a stop during the start ends it at once, whatever it waits for."""
        living = asyncio.create_task(life, name="daemon")
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        await asyncio.wait({living, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not living.done() and not self._started:
            living.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await living

    async def _live(self) -> None:
        """From the first look at the root to the last of it; a fault of the start may end it early."""
        made = await detached(functools.partial(_prepared, self.stations), "prepare")
        with lock.held(self.stations.state, patience_s=_LOCK_PATIENCE_S) as self._lock:
            await asyncio.to_thread(
                self._clock.begin, self.stations.state
            )  # before anything is written there
            killed = process.sweep(self.stations.root)
            if killed:
                log.get().warning(log.DAEMON_SWEPT, processes=len(killed))
            await asyncio.to_thread(self.stations.tidy)
            opening = functools.partial(open_store, self.config, self.stations, check=True)
            store = await detached(opening, "open-store")
            try:
                if Station.PROCESSING.value in made:
                    await asyncio.to_thread(self._must_lose_nothing, store)
                if await asyncio.to_thread(rebuild.is_needed, store, self.stations):
                    await asyncio.to_thread(rebuild.rebuild, store, self.stations, self.config)
                await self._work(store)
            finally:
                if self._started:
                    sd_notify.stopping()
                await asyncio.to_thread(store.close)
                log.get().info(log.DAEMON_STOPPED)

    def _must_lose_nothing(self, store: Store) -> None:
        """See that processing/ was not made in the place of one that holds folders of jobs. Blocking.

        Raises: StationMissing.
        """
        jobs = [job for job in store.run(job_store.active) if job.station is Station.PROCESSING]
        if not jobs:
            return
        path = self.stations.path(Station.PROCESSING)
        with contextlib.suppress(OSError):
            path.rmdir()
        raise StationMissing(
            f"processing/ is missing, and {counted(len(jobs), 'job')} had their folders in it",
            where=str(path),
            hint="See that the root's file system is mounted, and that nobody has moved it. If the folders "
            f"are gone permanently: mkdir -m 700 {path}; their jobs are then cancelled",
        )

    async def _work(self, store: Store) -> None:
        await self._build(store)
        await self._heed_clock()
        await self.dispatch.take_over()  # before anything begins to run
        mended = await reconcile(self.engine, self.claimer, ())
        _say_doubts(self.config)
        log.get().info(
            log.DAEMON_STARTED,
            version=__version__,
            root=str(self.stations.root),
            pipelines=[pipeline.name for pipeline in self.config.pipelines],
            mended=mended,
        )
        # Before all else: anyone who asks while it starts is told so, and their requests are taken.
        async with web.serving(self.config.settings.http, self._site(store)):
            self._started = True
            await self._go_on()

    async def _go_on(self) -> None:
        self.parts = Supervisor(
            [
                Service(name="dispatch", run=self.dispatch.run, vital=True),
                Service(name="watcher", run=self.watcher.run, vital=True),
                Service(name="reconcile", run=self._reconciles, vital=True),
                Service(name="ground", run=self.ground.run),
                Service(name="notify", run=self.notifier.run),
                Service(name="pings", run=self.pinger.run),
                Service(name="lookout", run=self.lookout.run),
                Service(name="late", run=self.late.run),
                Service(name="fixity", run=self.fixity.run),
                Service(name="removal", run=self.removal.run),
                Service(name="requests", run=self._requests),
                Service(name="housekeeping", run=self.housekeeper.run),
                Service(name="held", run=self.overdue.run),
                Service(name="outside", run=self.housekeeper.run_outside),
                Service(name="sources", run=self.intake.run),
                Service(name="live", run=self._write_live),
                Service(name="rows", run=self.rows.run),
                Service(name="lag", run=self.engine.metrics.watch_the_loop),
            ]
        )
        running = asyncio.create_task(self.parts.run(), name="parts")
        once = [asyncio.create_task(self._say_ready(), name="ready")]
        if self._patience_s is not None:
            once.append(asyncio.create_task(self._run_until_empty(), name="until empty"))
        try:
            await self._until_stopped(running)
            log.get().info(log.DAEMON_STOPPING, mode=self.config.settings.stop.mode)
            sd_notify.stopping()
            await self._drain()
        finally:
            for task in (running, *once):
                task.cancel()
            await asyncio.gather(running, *once, return_exceptions=True)
            with contextlib.suppress(OSError):  # as in `_tell`
                self.live.path.unlink(missing_ok=True)

    async def answer_only(self) -> None:
        """Open everything, answer the open requests, close; nothing is started."""
        with lock.held(self.stations.state) as self._lock:
            store = await asyncio.to_thread(open_store, self.config, self.stations)
            try:
                await self._build(store, alone=True)
                await self.actions.answer_all()
            finally:
                await asyncio.to_thread(store.close)

    async def _build(self, store: Store, *, alone: bool = False) -> None:
        settings, credentials = self.config.settings, Credentials(self.config.path)
        workers = registry.default()
        self.composer = _composer(self.config)
        self.notifier = Notifier(StoreOutbox(store), self.composer, credentials)
        self.pinger = Pinger(settings.notify, credentials, self._trouble)
        self.targets = Targets(store, self.compose, settings.nearly_full)
        await self.targets.load()
        self.limits = {
            name: FairLimiter(limit) for name, limit in self.config.limits.items() if name != "jobs"
        }
        self.engine = Engine(
            store=store,
            stations=self.stations,
            workers=workers,
            targets=self.targets,
            limits=_Limits(self.limits, workers),
            compose=self.compose,
            retry=settings.retry,
            secret=credentials.needed,
            report=self.live.report,
            step_over=self.live.step_over,
            clear_report=self.live.clear,
            wake_notifier=self.notifier.wake,
            wants=lambda event, pipeline: self.composer.wants(event, pipeline),
            metrics=self.notifier.metrics,
            settle_s=settings.watch.settle,
            floor=lambda: self.config.settings.space.floor,
        )
        self.claimer = Claimer(
            config=self.config,
            stations=self.stations,
            store=store,
            workers=workers,
            targets=self.targets,
        )
        self.dispatch: Dispatch = LocalDispatch(self.engine, self.claimer, self.config.limits["jobs"])
        self.dispatch.on_trouble = self._compare.set
        self.intake = Intake(
            store, self.stations, self.claimer, registry.sources(), credentials.needed, self._poked.set
        )
        self.intake.configure(self.config.sources)
        self.fixity = FixityCheck(self.engine, lambda: self.config.settings.verify, self._compared)
        self.removal = Removal(self.engine, lambda: self.config, self._compared)
        self.queue = RequestQueue(store, self._poked.set)
        self.actions = Actions(
            self.engine,
            self.dispatch,
            {
                **self.intake.handlers(alone=alone),
                **Commands(self.notifier).handlers,
                **self.removal.handlers,
            },
            queue=self.queue,
            config=lambda: self.config,
            mend=self._compare.set,
        )
        self.watcher = Watcher(self.stations, self._watch_settings(), self._on_scan)
        self.housekeeper = Housekeeper(self.engine, settings.watch, lambda: self._scan)
        self.overdue = Overdue(
            self.engine, self.dispatch, lambda: self._scan, lambda: self.config.settings.watch.held_after
        )
        self.lookout = Monitor(self.engine, lambda: self.config.settings)
        self.ground = RootWatch(self.stations, self._lock, self.targets, self._on_ground_back)
        self.rows = RowCheck(self.engine.store)
        self.late = LateChangeCheck(self.engine, lambda: self.config.settings.watch.late_look)

    def _site(self, store: Store) -> AppState:
        return AppState(
            store=store,
            stations=self.stations,
            queue=self.queue,
            metrics=self.engine.metrics,
            live=self._snapshot,
            config=lambda: self.config,
            credential=Credentials(self.config.path),
            examine=self._examine,
            reload=self._asked_to_reload,
            verify=self._verify,
        )

    async def _examine(self) -> list[dict[str, str]]:
        """Return what there is to be said of this daemon's surroundings (see admin/doctor.py)."""
        secret = Credentials(self.config.path).needed
        found = await examine(
            self.config, self.engine.workers, secret, self.engine.store, receivers.probe_all
        )
        return [dataclasses.asdict(finding) for finding in found]

    def _verify(self, job: Job) -> tuple[Awaitable[ShownReport], Callable[[], tuple[int, int]]]:
        """Have a job's receipt compared with everything; return the report to come, and how far it is."""
        report = Report(job.id)

        async def work() -> ShownReport:
            secret = Credentials(self.config.path).needed
            workers, store = self.engine.workers, self.engine.store
            return (await verify_job(job, store, self.stations, workers, secret, report)).as_dict()

        return work(), lambda: (report.looked, report.total)

    async def _compared(self, job: Job, reading: Reading) -> Report:
        """Compare a job's receipt with everything. Raises: DittoheadError, OSError."""
        secret = Credentials(self.config.path).needed
        workers, store = self.engine.workers, self.engine.store
        return await verify_job(job, store, self.stations, workers, secret, reading=reading)

    def _watch_settings(self) -> Watch:
        """Return how to watch; scans feed the service's watchdog, and must come oftener than it bites."""
        watch, limit = self.config.settings.watch, sd_notify.watchdog_interval_s()
        if limit is None or watch.interval <= limit / 2:
            return watch
        return watch.model_copy(update={"interval": limit / 2})

    def compose(self, event: str, **facts: Any) -> list[Any]:
        """Return the notices that the rules ask for at an event."""
        return self.composer(event, **facts)

    async def _trouble(self) -> str:
        """Return why the daemon is not well; "" while the inbox is looked at and the store can be written."""
        late = time.time() - self.watcher.last_scan_at
        if late > max(_LATE_S, 5 * self.config.settings.watch.interval):
            return "the inbox has not been looked at"
        try:
            async with asyncio.timeout(_LATE_S):
                await self.engine.store.write(outbox_store.prove)
        except (StoreError, TimeoutError):
            return "the store cannot be written"
        return ""

    async def _until_stopped(self, running: asyncio.Task[None]) -> None:
        """Wait for a signal. Raises: Over: the parts cannot be kept up."""
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        await asyncio.wait({stop, running}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if running.done():
            running.result()

    async def _drain(self) -> None:
        settings = self.config.settings.stop
        self.dispatch.draining = True
        if settings.mode != "drain" or not self.dispatch.running:
            return
        idle = asyncio.create_task(self.dispatch.idle.wait())
        interrupt = asyncio.create_task(self._interrupt.wait())
        keepalive = asyncio.create_task(self._extend_stop())
        try:
            await asyncio.wait({idle, interrupt}, timeout=settings.drain, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (idle, interrupt, keepalive):
                task.cancel()

    async def _extend_stop(self) -> None:
        while True:
            sd_notify.extend_timeout(15)
            sd_notify.watchdog()
            await asyncio.sleep(5)

    def _on_stop(self) -> None:
        if self._stop.is_set():
            self._interrupt.set()
        self._stop.set()

    def _on_ground_back(self) -> None:
        """What was missing is there again."""
        self._compare.set()
        self.watcher.scan_soon()
        self.dispatch.wake()

    def _on_reload(self) -> None:
        with contextlib.suppress(
            ConfigError
        ):  # it is in the log; anyone who sends a signal waits for nothing
            self._reload()

    def _reload(self) -> None:
        """Read the configuration again. Raises: ConfigError: it is refused, and the old one stays."""
        try:
            if not self._started:
                raise ConfigError("the daemon is starting", hint="systemctl restart dittohead")
            sd_notify.reloading()
            try:
                self._apply(load(self.config.path))
            finally:
                sd_notify.ready()
        except ConfigError as error:
            log.get().error(log.CONFIG_REFUSED, error=str(error))
            raise

    async def _asked_to_reload(self) -> str:
        """Do so for somebody who waits for it; return which file it is."""
        self._reload()
        return str(self.config.path)

    def _apply(self, config: Config) -> None:
        """Use a new configuration for what comes; jobs in flight keep the pipeline they began with."""
        old, new = self.config.settings, config.settings
        for key, same in (
            ("root", config.root == self.config.root),
            ("store", new.store == old.store),
            ("http", new.http == old.http),
            # How it is watched; when a folder may be taken is asked at each.
            ("watch: mode", new.watch.mode == old.watch.mode),
            ("watch: interval", new.watch.interval == old.watch.interval),
            ("watch: stale_after", new.watch.stale_after == old.watch.stale_after),
        ):
            if not same:
                raise ConfigError(
                    f'"{key}" cannot change while the daemon runs',
                    where=str(config.path),
                    hint="systemctl restart dittohead",
                )
        self.config = self.claimer.config = config
        self.stations.ignore = new.watch.ignore
        self.engine.retry = config.settings.retry
        self.engine.settle_s = config.settings.watch.settle
        self.composer = _composer(config)
        self.notifier.configure(self.composer)
        self.pinger.configure(config.settings.notify)
        self.dispatch.limit = config.limits["jobs"]
        for name, limit in config.limits.items():
            if name != "jobs":
                self.limits.setdefault(name, FairLimiter(limit)).resize(limit)
        self.intake.configure(config.sources)
        self.watcher.scan_soon()
        self.dispatch.wake()
        self._tell()
        _say_doubts(config)
        log.get().info(log.CONFIG_LOADED, path=str(config.path))

    # -- what goes on all the time -----------------------------------------------------------

    def _on_scan(self, scan: Scan) -> None:
        fresh = set(scan.strays) - set(self._scan.strays if self._scan else ())
        for name in sorted(fresh)[:_STRAYS]:
            log.get().warning(
                log.WATCH_IGNORED,
                name=display(name),
                reason="it is not a folder: put it into one, or set files: folder in a pipeline whose match "
                "fits its name",
            )
        if len(fresh) > _STRAYS:
            log.get().warning(log.WATCH_IGNORED, more=len(fresh) - _STRAYS)
        self._scan = scan
        self.dispatch.offer(scan.arrivals, scan.held)
        # Only a scan that came to its end feeds the watchdog: it proves the loop and the disk.
        sd_notify.watchdog()

    async def _say_ready(self) -> None:
        await self.watcher.ready.wait()
        sd_notify.ready()

    async def _run_until_empty(self) -> None:
        """Stop once nothing is left to do."""
        assert self._patience_s is not None  # noqa: S101
        await self.watcher.ready.wait()
        store, patience_s = self.engine.store, self._patience_s
        work = UntilEmpty(store, self.dispatch, self.intake, lambda: self._scan, patience_s)
        self.exit_status = await work.run()
        self._stop.set()

    async def _requests(self) -> None:
        while True:
            self._poked.clear()
            try:
                await self.actions.answer_all()
            except StoreError as error:  # tried again; a database that restarts takes nobody down
                log.get().error(log.TASK_CRASHED, task="requests", error=str(error))
            await event_or_time(self._poked, _REQUESTS_S)

    async def _reconciles(self) -> None:
        while True:
            if await event_or_time(self._compare, _RECONCILE_S):
                self._compare.clear()
                await asyncio.sleep(_TROUBLE_S)  # it may last; and one trouble seldom comes alone
            try:
                if await reconcile(self.engine, self.claimer, self.dispatch.running):
                    self.dispatch.wake()
            except (DittoheadError, OSError) as error:  # tried again; the ground says what is missing
                log.get().error(log.TASK_CRASHED, task="reconcile", error=str(error))
                self._compare.set()

    async def _write_live(self) -> None:
        while True:
            self._tell()
            self._say_status()
            await self._heed_clock()
            await asyncio.sleep(_LIVE_S)

    async def _heed_clock(self) -> None:
        """Whatever is due by the clock stays due in as many seconds when the clock is set back."""
        self._set_back += self._clock.set_back_by()
        if not self._set_back:
            return
        seconds = self._set_back

        def work(connection: Connection) -> None:
            job_store.sooner(connection, seconds)
            outbox_store.sooner(connection, seconds)
            item_store.sooner(connection, seconds)

        try:
            await self.engine.store.write(work)
        except StoreError as error:  # tried again
            log.get().error(log.TASK_CRASHED, task="clock", error=str(error))
            return
        self._set_back = 0.0
        await asyncio.to_thread(heeded, self.stations.state)
        self.targets.sooner(seconds)
        self.dispatch.wake()
        self.intake.sooner()
        self.notifier.wake()
        log.get().warning(log.CLOCK_SET_BACK, seconds=round(seconds))

    def _snapshot(self) -> LiveStatus:
        self.live.tell(self.dispatch.held)
        self.live.facts = self._facts()
        return self.live.snapshot()

    def _facts(self) -> LiveFacts:
        return {
            "version": __version__,
            "config_sha256": self.config.digest,
            "watcher": {
                "mode": self.watcher.mode,
                "reason": self.watcher.reason,
                # In whole intervals: else the file would be written again forever.
                "last_scan_at": int(self.watcher.last_scan_at),
                "losses": self.watcher.losses,
            },
            "backlog": self.dispatch.backlog,
            "oldest_arrival_at": self.dispatch.oldest,
            "running": len(self.dispatch.running),
            "uploads": len(self._scan.uploads) if self._scan else 0,
            "strays": [display(name) for name in (self._scan.strays if self._scan else [])[:_STRAYS]],
            "stray_count": len(self._scan.strays) if self._scan else 0,
            "ignored": self._scan.ignored if self._scan else 0,
            "held_kinds": Counter(held.kind.value for held in self.dispatch.held.values()),
            "overdue": self.overdue.shown,
            "overdue_count": self.overdue.count,
            "overdue_strays": self.overdue.strays,
            "stale": self.housekeeper.stale.shown,
            "stale_count": self.housekeeper.stale.count,
            "sources": self.intake.shown(),
            "free_bytes": self._free_bytes(),
            "fixity": self.fixity.shown(),
            "deletions": self.removal.pending,
            "troubles": self._troubles(),
            "damaged_rows": self.rows.shown,
            "stuck": {display(name): why for name, why in self.claimer.stuck.items()},
        }

    def _troubles(self) -> list[ShownTrouble]:
        """Return what of the daemon itself needs somebody's attention."""
        failing = [
            DittoheadError(f"the daemon's part {part} has failed: {why}", hint="See the daemon's log")
            for part, why in self.parts.failing.items()
        ]
        if (silent_s := self.engine.store.silent_s) > SILENT_S:
            what = f"the store has not answered for {units.duration(silent_s)}"
            failing.append(DittoheadError(what, hint="Work goes on by itself when it does"))
        return [
            {"what": error.what, "where": error.where, "hint": error.hint}
            for error in (*self.ground.troubles, *failing)
        ]

    def _free_bytes(self) -> int:
        """Free bytes, in steps of 16 MiB so that what readers see does not change all the time."""
        with contextlib.suppress(OSError):  # the root is away: the last that was seen
            self._free = disk_space.in_steps(disk_space.free(self.stations.root))
        return self._free

    def _tell(self) -> None:
        """Write down for readers what is true now."""
        self._snapshot()
        with contextlib.suppress(OSError):  # a full disk must not stop the work it reports
            self.live.write()

    def _say_status(self) -> None:
        paused = sum(row.paused for row in self.targets.rows())
        text = (
            f"{len(self.dispatch.running)} running, {self.dispatch.backlog} waiting in the inbox, "
            f"{paused} targets paused; watching by {self.watcher.mode}"
        )
        if text != self._last_status:
            self._last_status = text
            sd_notify.status(text)


def _say_doubts(config: Config) -> None:
    for doubt in config.doubts:
        log.get().warning(log.CONFIG_DOUBTED, problem=str(doubt))


def _composer(config: Config) -> Composer:
    http = config.settings.http
    url = (http.public_url if http is not None else None) or ""
    return Composer(config.settings.notify, config.root, config.wording, config.addresses, url)


class _Limits(dict[str, FairLimiter]):
    """Limiters by worker's name; one for a worker that only an older configuration used is made."""

    def __init__(self, known: dict[str, FairLimiter], workers: registry.Registry) -> None:
        super().__init__(known)
        self._known, self._workers = known, workers

    def __missing__(self, name: str) -> FairLimiter:
        limiter = self._known.get(name) or FairLimiter(self._workers.get(name).default_limit)
        self._known[name] = self[name] = limiter
        return limiter


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _prepared(stations: Stations) -> set[str]:
    """Prepare the stations; return the names of the directories that were made. Blocking.

    Raises: StationMissing: the root is not mounted; ConfigError: they cannot be used; OSError: not now.
    """
    point = mounts.awaited(stations.root)
    if point is not None:
        raise StationMissing(f"{point} is not mounted, as /etc/fstab has it", where=str(stations.root))
    try:
        return stations.prepare()
    except StationMissing:
        raise
    except StationError as error:
        raise ConfigError(error.what, where=error.where, hint=error.hint) from error


def answer_requests(config: Config) -> None:
    """Carry out what people asked for while no daemon runs, under the root's lock.

    Raises: lock.Locked: a daemon has just started and will do it.
    """
    asyncio.run(Daemon(config).answer_only())


def log_in_thread() -> None:
    """Let nobody who reads the log, or does not, hold the daemon; to be called before anything is logged."""
    # An error, so that it is seen at every level that can be set.
    reason = "standard error could not be written"
    log.write_in_thread(lambda lines: log.get().error(log.LOG_DROPPED, lines=lines, reason=reason))


def main(config: Config, *, patience_s: float | None = None) -> int:
    """Run the daemon in this process until it is told to stop; return its exit status.

    Args:
        patience_s: until nothing is left, or has only waited for this long.
    """
    process.use_pidfd()
    # What is imported stays forever: a full garbage collection need not go through it, and hold the loop.
    gc.collect()
    gc.freeze()
    daemon = Daemon(config, patience_s=patience_s)
    asyncio.run(daemon.run())
    return daemon.exit_status
