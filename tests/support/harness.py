"""A root with an engine and a dispatch in this process, without a daemon: for tests of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from dittohead.admin.actions import Actions
from dittohead.config import registry as registry_module
from dittohead.config.loader import Config, load
from dittohead.config.registry import Registry
from dittohead.contract.worker import Done, Options, Recipe, StepContext, StepResult, Worker
from dittohead.engine.claim import Claimer
from dittohead.engine.dispatch.local import LocalDispatch
from dittohead.engine.engine import Engine
from dittohead.engine.targets import Targets
from dittohead.folders.stations import Stations
from dittohead.model.records import Job, StepRow
from dittohead.model.states import Station
from dittohead.store import Store, sqlite_url
from dittohead.store import jobs as job_store
from dittohead.store import requests as request_store
from dittohead.store.outbox import NewNotice
from dittohead.store.queries import listing
from dittohead.system.limits import FairLimiter
from tests.support.settled import at_once
from tests.support.trees import tree


class ScriptOptions(Options):
    """What a scripted step is told."""

    do: str = "done"
    target: str = ""


class ScriptWorker(Worker[ScriptOptions]):
    """Does what the test's function for the step's name says; `done` otherwise."""

    name = "script"
    Options = ScriptOptions
    makes_outputs = True
    default_limit = 4

    def __init__(self) -> None:
        self.tools: dict[str, str] = {}  #: versions in the steps' recipes; none without any
        self.plays: dict[str, Callable[[StepContext], Awaitable[StepResult]]] = {}
        self.ran: list[tuple[str, str]] = []  #: (folder, step) of each try, in order

    def target(self, options: ScriptOptions) -> str:
        return options.target

    def recipe(self, options: ScriptOptions) -> Recipe | None:
        return Recipe(settings={"do": options.do}, tools=self.tools) if self.tools else None

    async def run(self, ctx: StepContext, options: ScriptOptions) -> StepResult:
        self.ran.append((ctx.name, ctx.step))
        play = self.plays.get(ctx.step)
        return Done(detail=options.do) if play is None else await play(ctx)


CONFIG = """
root: .
limits: {jobs: 4, script: 4}
retry: {attempts: 3, first: 1ms, most: 2ms}
space: {floor: 0}
pipelines:
  three:
    match: "[^!].*"
    steps:
      - script: {name: first}
      - script: {name: second}
      - script: {name: third}
"""


class Harness:
    """Everything but the daemon; `start()` runs the dispatch."""

    def __init__(
        self,
        root: Path,
        config_text: str = CONFIG,
        store: Store | None = None,
        workers: Sequence[Worker[Any]] = (),
    ) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        (root / "config.yaml").write_text(at_once(config_text))
        self.worker = ScriptWorker()
        self.workers = Registry(registry_module.entry_points(group=registry_module.GROUP))
        for worker in (self.worker, *workers):
            self.workers.add(worker)
        self.config: Config = load(root / "config.yaml", self.workers)
        self.stations = Stations(
            root, self.config.settings.watch.ignore, lambda name: self.config.takes_file(name)
        )
        self.stations.prepare()
        self.store = store or Store.open(sqlite_url(self.stations.state))
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.targets = Targets(self.store, self.compose, 90.0)
        self.progress: list[tuple[str, str, int, int, str]] = []
        self.engine = Engine(
            store=self.store,
            stations=self.stations,
            workers=self.workers,
            targets=self.targets,
            limits={n: FairLimiter(c) for n, c in self.config.limits.items() if n != "jobs"},
            compose=self.compose,
            retry=self.config.settings.retry,
            secret={}.__getitem__,
            report=lambda *a: self.progress.append(a),
            step_over=lambda job, step: None,
            clear_report=lambda job: None,
            wake_notifier=lambda: None,
            settle_s=self.config.settings.watch.settle,
        )
        self.claimer = Claimer(
            config=self.config,
            stations=self.stations,
            store=self.store,
            workers=self.workers,
            targets=self.targets,
        )
        self.dispatch = LocalDispatch(self.engine, self.claimer, self.config.limits["jobs"])
        self.actions = Actions(self.engine, self.dispatch, config=lambda: self.config)

    def compose(self, event: str, **facts: Any) -> list[NewNotice]:
        self.told.append((event, facts))
        return [NewNotice(rule="r", event=event, subject=event, body="")]

    def arrive(self, name: str | bytes, what: dict[str | bytes, Any] | None = None) -> Path:
        """Put a ready folder into the inbox."""
        folder = self.stations.folder(Station.INBOX, os.fsencode(name))
        return tree(folder, {"a.txt": "hello"} if what is None else what)

    def offer(self) -> None:
        """Scan the inbox and offer what is there."""
        self.dispatch.offer(self.stations.scan().arrivals)

    def quiet(self) -> bool:
        """Offer what is in the inbox; tell whether nothing is left to do with any folder."""
        self.offer()
        # A folder that is being claimed is not an arrival any more, and has no job yet.
        if self.stations.scan().arrivals or os.listdir(self.stations.path(Station.PROCESSING)):
            return False
        return all(job.finished_at for job in self.jobs()) and not self.dispatch.running

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the dispatch; on leaving everything has been interrupted, as by a stop."""
        await self.targets.load()
        task = asyncio.create_task(self.dispatch.run())
        self.offer()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, check: Callable[[], bool], timeout_s: float = 20) -> None:
        """Wait until a condition holds, looking whenever the loop is free."""
        async with asyncio.timeout(timeout_s):
            while not check():
                await asyncio.sleep(0.005)

    async def until_over(self, name: str) -> Job:
        """Wait until the latest job of a name has ended and its folder has moved."""
        await self.until(lambda: self._over(name))
        return self.job(name)

    def _over(self, name: str) -> bool:
        jobs = self.jobs(name)
        return bool(jobs) and jobs[0].finished_at is not None and jobs[0].station is not Station.PROCESSING

    def jobs(self, name: str = "") -> list[Job]:
        """Return jobs, the latest first."""
        return [j for j in self.store.run(listing, limit=10_000) if not name or j.name == name]

    def job(self, name: str) -> Job:
        """Return the latest job of a name."""
        return self.jobs(name)[0]

    def steps(self, job: Job) -> list[StepRow]:
        """Return a job's steps."""
        return self.store.run(job_store.steps_of, job.id)

    async def ask(self, action: str, job: str, **args: Any) -> dict[str, Any]:
        """Make a request and have it carried out."""
        number = await self.store.write(request_store.add, action, job, args, "tester")
        await self.actions.answer_all()
        answer = await self.store.read(request_store.answer_to, number)
        assert answer is not None
        return answer.as_dict()

    def where(self, name: str | bytes) -> list[str]:
        """Return the stations that hold a folder of this name."""
        return [s.value for s in Station if self.stations.exists(s, os.fsencode(name))]
