"""What is true only now (progress, held arrivals, the watcher's mode), in state/live.json for readers.

Not durable and not the truth: it is replaced up to twice a second while something happens, and a
reader must take a daemon as dead when the lock is free, whatever stands here.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from dittohead.model.errors import Unreadable
from dittohead.model.held import Held
from dittohead.model.shown import LiveFacts, LiveStatus, ShownHeld, ShownProgress
from dittohead.model.text import display
from dittohead.system import own_files
from dittohead.system.files import replace_file

#: Arrivals named with their reason; the others are only counted.
NAMED = 50


@dataclass
class Progress:
    """How far one job's present step is, with a rate from its own history."""

    step: str
    done: int
    total: int
    unit: str
    since: float
    first: int  #: what was done already when it was first told

    def fields(self, now: float) -> ShownProgress:
        """Return it as JSON fields; `eta_seconds` only where the total is known."""
        elapsed = max(now - self.since, 0.001)
        rate = (self.done - self.first) / elapsed
        fields: ShownProgress = {
            "step": self.step,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "per_second": round(rate, 2),
        }
        if self.total and rate > 0:
            fields["eta_seconds"] = round((self.total - self.done) / rate, 1)
        return fields


@dataclass
class Live:
    """Collects what is true now and writes it for readers."""

    path: Path
    #: by job and step; steps run in parallel
    progress: dict[str, dict[str, Progress]] = field(default_factory=dict)
    facts: LiveFacts = field(default_factory=LiveFacts)
    held: dict[str, str] = field(default_factory=dict)  #: `NAMED` at most
    waiting: dict[str, ShownHeld] = field(default_factory=dict)  #: of the same, part by part
    held_count: int = 0
    _written: str = ""

    def tell(self, held: Mapping[bytes, Held]) -> None:
        """Note what waits in the inbox."""
        named = {display(name): why for name, why in itertools.islice(held.items(), NAMED)}
        self.held = {name: why.text for name, why in named.items()}
        self.waiting = {name: why.as_dict() for name, why in named.items()}
        self.held_count = len(held)

    def report(self, job: str, step: str, done: int, total: int, unit: str) -> None:
        """Note a step's progress. Cheap; may come from any thread.

        Args:
            job: the job's id.
            step: the step's name.
            done: how much is done since the step began, in `unit`.
            total: how much there is, in `unit`; 0 when that is not known.
            unit: "bytes", or a plural noun such as "images".
        """
        steps = self.progress.setdefault(job, {})
        known = steps.get(step)
        if known is None:
            steps[step] = Progress(step, done, total, unit, time.monotonic(), done)
        else:
            known.done, known.total, known.unit = done, total, unit

    def step_over(self, job: str, step: str) -> None:
        """Forget a step's progress."""
        self.progress.get(job, {}).pop(step, None)

    def clear(self, job: str) -> None:
        """Forget a job's progress."""
        self.progress.pop(job, None)

    def snapshot(self) -> LiveStatus:
        """Return all of it."""
        now = time.monotonic()
        return {
            **self.facts,
            "pid": os.getpid(),
            "held": self.held,
            "waiting": self.waiting,
            "held_count": self.held_count,
            "progress": {
                job: _of_job([p.fields(now) for p in list(steps.values())])
                for job, steps in list(self.progress.items())
                if steps
            },
        }

    def write(self) -> None:
        """Write the file when something changed."""
        text = json.dumps(self.snapshot(), ensure_ascii=False)
        if text == self._written:
            return
        replace_file(self.path, text.encode("utf-8", "backslashreplace"))
        self._written = text


def _of_job(steps: list[ShownProgress]) -> ShownProgress:
    """Return the progress of a job: of the step that began first, and of those beside it."""
    first = steps[0]
    if len(steps) > 1:
        first["beside"] = steps[1:]
    return first


def read(state: Path) -> LiveStatus:
    """Return what the daemon last wrote, {} when there is nothing to read."""
    try:
        return cast(LiveStatus, own_files.document(state / "live.json", own_files.mapping))
    except (OSError, Unreadable):
        return {}
