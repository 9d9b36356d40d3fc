"""Run the daemon's parts in parallel: one that fails is started again, and ends no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from dittohead.model.errors import DittoheadError
from dittohead.system import log, machine_faults
from dittohead.toolkit.backoff import wait_s

#: Waits before a part is started again, doubled each time.
_FIRST_S, _MOST_S = 1.0, 60.0

#: A part that has run this long is well.
_WELL_S = 300.0

#: A part without which folders do not go on may fail so often before the whole daemon is started again.
_VITAL_MOST = 6


@dataclass(frozen=True, kw_only=True)
class Service:
    """Something that the daemon does all the time."""

    name: str
    run: Callable[[], Coroutine[Any, Any, None]]  #: works until it is cancelled
    vital: bool = False  #: without it folders do not go on: if it cannot be kept up, the daemon ends


async def alone(task: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do one thing; what goes wrong with it is logged, and ends nothing else."""
    try:
        await work()
    except (DittoheadError, OSError) as error:
        log.get().error(log.TASK_CRASHED, task=task, error=str(error))
    except Exception as error:  # noqa: BLE001  # around one task: a defect ends no other
        log.get().exception(log.TASK_CRASHED, task=task, error=str(error))


class CannotGoOn(DittoheadError):
    """The daemon cannot go on; a start from the beginning may help."""


class Supervisor:
    """Keeps parts running."""

    def __init__(self, parts: Sequence[Service]) -> None:
        self._parts = parts
        self.failing: dict[str, str] = {}  #: part -> what it failed of last, until it is well again

    async def run(self) -> None:
        """Run all of them until cancelled; on cancellation every one has ended.

        Raises: Over: one cannot be kept up without which folders do not go on.
        """
        tasks = [asyncio.create_task(self._keep(part), name=part.name) for part in self._parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, part: Service) -> None:
        starts = failures = 0  #: since it was well; those that count against it
        while True:
            began = time.monotonic()
            try:
                await part.run()
                failure = "it came to an end"
                log.get().error(log.TASK_CRASHED, task=part.name, error=failure)
            except CannotGoOn:
                raise
            except Exception as error:  # noqa: BLE001  # around one part: it ends no other
                failure = self._failed(part, error)
                # Want of threads or memory passes, and is nothing that a new start would cure.
                failures -= bool(machine_faults.short_of(error))
            if time.monotonic() - began > _WELL_S:
                starts = failures = 0
            starts, failures = starts + 1, failures + 1
            if part.vital and failures >= _VITAL_MOST:
                raise CannotGoOn(
                    f"the daemon's part {part.name} failed {failures} times ({failure})",
                    hint="This is a defect of dittohead; the log has a traceback",
                )
            self.failing[part.name] = failure
            await self._pause(part, wait_s(starts, first_s=_FIRST_S, most_s=_MOST_S))

    def _failed(self, part: Service, error: Exception) -> str:
        """Log what a part failed of, with a traceback the first time; return it in words."""
        failure = f"{type(error).__name__}: {error}"
        if short := machine_faults.short_of(error):
            log.get().error(log.MACHINE_SHORT, of=short, task=part.name, error=failure)
            return failure
        known = self.failing.get(part.name) == failure
        log.get().error(log.TASK_CRASHED, task=part.name, error=failure, exc_info=None if known else error)
        return failure

    async def _pause(self, part: Service, wait: float) -> None:
        await asyncio.sleep(wait)
        asyncio.get_running_loop().call_later(_WELL_S, self._well, part.name, self.failing[part.name])

    def _well(self, name: str, failure: str) -> None:
        if self.failing.get(name) == failure:
            del self.failing[name]
