"""Who runs which job now. The contract; `local.py` keeps it within this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from dittohead.held import Held
from dittohead.model import Arrival


class Dispatch(Protocol):
    """Starts runs of jobs, no more at once than allowed, fairly between owners."""

    @property
    def running(self) -> Collection[str]:
        """The jobs that run now, on this host."""

    def offer(self, arrivals: Collection[Arrival], held: Mapping[bytes, Held] | None = None) -> None:
        """Replace what is known of the inbox. Cheap; may be called at any time.

        Args:
            held: what else lies there, and why it cannot be taken.
        """

    def wake(self) -> None:
        """Look again for jobs that may run: rows have changed."""

    def halted(self, job_id: str) -> AbstractAsyncContextManager[None]:
        """End a job's run if there is one, and start none while inside."""

    async def run(self) -> None:
        """Start jobs until cancelled; on cancellation every run has ended."""
