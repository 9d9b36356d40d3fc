"""Who runs which job now. The contract; `local.py` keeps it within this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from dittohead.model.held import Held
from dittohead.model.records import Arrival


class Dispatch(Protocol):
    """Starts runs of jobs, no more at once than allowed, fairly between owners.

    All of it belongs to the loop's thread. tests/test_dispatch.py is what any dispatch must pass.
    """

    limit: int  #: jobs at once; may be changed at any time
    draining: bool  #: what runs goes on to its end, and nothing is begun
    idle: asyncio.Event  #: no job runs
    on_trouble: Callable[[], None]  #: is called when store and stations may differ

    @property
    def running(self) -> Collection[str]:
        """The ids of the jobs that run now."""

    @property
    def held(self) -> Mapping[bytes, Held]:
        """The arrivals that cannot be taken yet, by their names, and why."""

    @property
    def backlog(self) -> int:
        """How many arrivals were seen in the inbox and are not claimed."""

    @property
    def oldest(self) -> float | None:
        """When the arrival was first seen that waits longest, seconds since the epoch."""

    def offer(self, arrivals: Collection[Arrival], held: Mapping[bytes, Held] | None = None) -> None:
        """Replace what is known of the inbox. Cheap; may be called at any time.

        Args:
            held: what else lies there, and why it cannot be taken.
        """

    def wake(self) -> None:
        """Look again for jobs that may run: rows have changed."""

    def halted(self, job_id: str) -> AbstractAsyncContextManager[None]:
        """End a job's run if there is one, and start none while inside."""

    async def take_over(self) -> None:
        """Charge the death of an earlier daemon to the steps it was in; to be called before `run`.

        Called again it does nothing.

        Raises: StoreError: it is to be called again.
        """

    async def run(self) -> None:
        """Start jobs until cancelled; on cancellation every run has ended. It never ends by itself."""
