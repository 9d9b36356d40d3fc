"""A step's context without an engine: runs one worker alone, and keeps what it recorded."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import structlog

from dittohead.contract.worker import Inputs, Made, StepContext
from dittohead.model.description import Described
from dittohead.model.events import Event
from dittohead.model.records import Entry, Location, Output
from dittohead.system.files import sha256_file, walk
from dittohead.system.process import environment


def source_of(root: Path) -> Inputs:
    """Return the files below `root` as a step would be given them."""
    found = []
    for item in walk(root):
        if item.is_empty_dir:
            found.append(Entry(path=item.path, size=0, sha256="", is_dir=True))
        else:
            digest, size = sha256_file(bytes(root) + b"/" + item.path)
            found.append(
                Entry(
                    path=item.path,
                    size=size,
                    sha256=digest,
                    mtime_ns=item.status.st_mtime_ns,
                    ctime_ns=item.status.st_ctime_ns,
                    ino=item.status.st_ino,
                )
            )
    return Inputs(root=root, entries=lambda: iter(found), files=len(found), size=sum(e.size for e in found))


class LoneContext(StepContext):
    """The contract, recorded in lists."""

    def __init__(
        self,
        base: Path,
        payload: Path,
        *,
        source: Inputs | None = None,
        spare: int = 0,
        job_id: str = "01JTESTTESTTESTTESTTESTTEST",
        secrets: Mapping[str, str] | None = None,
        step: str = "step",
    ) -> None:
        self.job_id, self.name, self.batch = job_id, payload.name, ""
        self.pipeline, self.step = "test", step
        self.payload = payload
        self.work = base / "work" / job_id / step
        self.work.mkdir(parents=True, exist_ok=True)
        self.source = source or source_of(payload)
        self.earlier: list[Path] = []
        self.attempt = 1
        self.came = False
        self.past: list[Event] = []
        self.before: list[Event] = []  #: of earlier jobs of the name
        self.releases = 0
        self.claimed_at = time.time()
        self.saved: dict[str, Any] = {}
        self.ledger = base / "state" / "ledger" / f"{job_id}.{step}.jsonl"
        self.others: dict[str, Made] = {}
        self.found: dict[str, dict[str, Any]] = {}
        self.description: Described | None = None
        self.outside = base / "state" / "outside" / f"{job_id}.{step}.jsonl"
        self.log = structlog.get_logger()
        self.env = environment(base)
        self.spare = spare
        self.secrets = dict(secrets or {})
        self.outputs: list[Output] = []
        self.locations: list[Location] = []
        self.events: list[Event] = []
        self.progressed: list[tuple[int, int, str]] = []
        self.fullness: list[tuple[str, float]] = []
        self.fences = 0

    async def came_before(self) -> bool:
        return self.came

    async def history(self, *, earlier: bool = False) -> list[Event]:
        return self.before if earlier else self.past

    async def release(self) -> None:
        self.releases += 1

    def made_by(self, step: str) -> Made | None:
        return self.others.get(step)

    def facts(self, step: str) -> Mapping[str, Any]:
        return self.found.get(step, {})

    def described(self, step: str = "") -> Described:
        return self.description or Described.nameless(self.name)

    @property
    def originals(self) -> Inputs:  # type: ignore[override]  # read when it is asked for
        return source_of(self.payload)

    async def save(self, state: dict[str, Any]) -> None:
        self.saved = dict(state)

    async def fence(self) -> None:
        self.fences += 1

    def progress(self, done: int, total: int, unit: str) -> None:
        self.progressed.append((done, total, unit))

    def output(self, output: Output) -> None:
        self.outputs.append(output)

    def location(self, location: Location) -> None:
        self.locations.append(location)

    def event(self, event: Event) -> None:
        self.events.append(event)

    def full(self, target: str, used: float, capacity: int) -> None:
        self.fullness.append((target, used))

    def spare_slot(self) -> AbstractAsyncContextManager[None] | None:
        if self.spare <= 0:
            return None
        self.spare -= 1
        return contextlib.nullcontext()

    @property
    def contended(self) -> bool:
        return False

    def log_file(self) -> Path:
        return self.work.parent / f"{self.step}.log"

    def secret(self, name: str) -> str:
        return self.secrets[name]

    def again(self) -> None:
        """Begin another try: what was recorded is forgotten, what was saved is kept."""
        self.outputs, self.locations, self.events = [], [], []
        self.attempt += 1
