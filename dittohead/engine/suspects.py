"""Jobs in whose steps the daemon has died again and again: tried one at a time, until one proves guilty.

Anyone who was in a step when the daemon died may have killed it, or may only have been there. So a job is
frozen for deaths that it met as the only suspect; and of suspects no two run in parallel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from dittohead.store import suspects as suspect_store
from dittohead.toolkit.backoff import wait_s

#: Seconds a suspect waits after a start, doubled with each death more: a daemon that dies within them,
#: for another cause or by somebody's hand, says nothing of it; and others get on meanwhile.
_FIRST_S = 5.0


class Suspects:
    """Who is suspected, and who of them runs now."""

    def __init__(self) -> None:
        self._steps: dict[str, set[int]] = {}  #: job -> its steps that have met too many deaths
        self._on_trial = ""
        self.on_free: Callable[[], None] = lambda: None  #: the next suspect may run

    def learn(self, charged: Mapping[str, Mapping[int, int]]) -> dict[str, float]:
        """Take over what the store knows of deaths; return for how long each suspect is to wait. Seconds.

        Args:
            charged: job -> position of a step -> deaths of the daemon met in it.
        """
        waits = {}
        for job, steps in charged.items():
            met = max(steps.values())
            if suspect_store.SUSPECT_AT <= met < suspect_store.FREEZE_AT:
                self._steps[job] = {at for at, deaths in steps.items() if deaths >= suspect_store.SUSPECT_AT}
                times = met - suspect_store.SUSPECT_AT + 1
                waits[job] = wait_s(times, first_s=_FIRST_S, most_s=math.inf)  # few: it is frozen soon
        return waits

    def waiting(self) -> set[str]:
        """Return the jobs that must not begin now: another suspect runs."""
        return self._steps.keys() - {self._on_trial} if self._on_trial else set()

    def begins(self, job: str) -> None:
        """Note that a job begins to run."""
        if job in self._steps:
            self._on_trial = job

    def step_over(self, job: str, position: int) -> None:
        """Note that a step has come to an end of some kind, and the daemon lives."""
        steps = self._steps.get(job)
        if steps is None:
            return
        steps.discard(position)
        if not steps:
            del self._steps[job]
            self._free(job)

    def ended(self, job: str, *, over: bool) -> None:
        """Note that a job runs no more."""
        if over:
            self._steps.pop(job, None)
        self._free(job)

    def _free(self, job: str) -> None:
        if self._on_trial == job:
            self._on_trial = ""
            self.on_free()
