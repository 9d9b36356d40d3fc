"""What every run of a job shares: the store, the stations, the workers, the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dittohead.config.registry import Registry
from dittohead.config.settings import Retry
from dittohead.engine.disks import Disks
from dittohead.engine.metrics import Metrics
from dittohead.engine.runner import LocalRunner, StepRunner
from dittohead.engine.shortage import Shortage
from dittohead.engine.suspects import Suspects
from dittohead.engine.targets import Compose, Targets
from dittohead.folders.stations import Stations
from dittohead.store import Store
from dittohead.system.limits import FairLimiter


@dataclass(kw_only=True)
class Engine:
    """Everything a run needs; one for the process."""

    store: Store
    stations: Stations
    workers: Registry
    targets: Targets
    limits: Mapping[str, FairLimiter]  #: by worker's name
    compose: Compose
    retry: Retry
    secret: Callable[[str], str]  #: a credential by name; ItemError when there is none
    report: Callable[[str, str, int, int, str], None]  #: (job, step, done, total, unit)
    step_over: Callable[[str, str], None]  #: (job, step): there is no more progress to report
    clear_report: Callable[[str], None]
    wake_notifier: Callable[[], None]
    #: (event, pipeline): whether anybody asks to be told; where nobody does, nothing is spent on it
    wants: Callable[[str, str | None], bool] = lambda event, pipeline: True
    settle_s: float = 0.0  #: nothing in a folder may have changed for this long before it is done
    floor: Callable[[], int] = lambda: 0  #: bytes that stay free on the disk, by the configuration in force
    disks: Disks = field(init=False)
    runner: StepRunner = field(init=False)  #: where steps run
    metrics: Metrics = field(default_factory=Metrics)
    suspects: Suspects = field(default_factory=Suspects)
    shortage: Shortage = field(default_factory=Shortage)
    #: held by the one who moves folders for a reason other than a run of their job: an admin's request,
    #: or the comparison of store and stations, each of which would take the other's half-done move
    #: for something to fix
    folders: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.disks = Disks(self.stations, lambda: self.floor())
        self.runner = LocalRunner(self.limits)
