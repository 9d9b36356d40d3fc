"""Runs one try of one step. The engine decides which step is next, and what its result means."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from dittohead.contract.worker import Options, StepContext, StepResult, Worker
from dittohead.system.limits import FairLimiter


class StepRunner(Protocol):
    """Where steps run: within this process, or elsewhere.

    What a worker raises leaves `run` and `preflight` as it is. When they are cancelled, nothing of the step
    goes on after they have ended. tests/test_runner.py is what any runner must pass.
    """

    def slot(self, kind: str, uid: int) -> AbstractAsyncContextManager[None]:
        """Wait for the permission to run a step, and hold it inside.

        Args:
            kind: the worker's name; `limits:` of the configuration sets how many run at once.
            uid: whose job it is: slots are shared fairly between owners.
        """

    async def run(self, worker: Worker[Any], options: Options, context: StepContext) -> StepResult:
        """Do a step once.

        Args:
            worker: of the step's kind.
            options: as the worker declares them, with all placeholders filled in.
            context: the folders, records and secrets of this try.
        """

    async def preflight(
        self, worker: Worker[Any], options: Options, context: StepContext
    ) -> Mapping[str, Any]:
        """Check a step before any step of its job runs; return the facts found.

        Args:
            worker: of the step's kind.
            options: as for `run`.
            context: as for `run`.
        """


class LocalRunner:
    """Runs steps in this process's event loop.

    Args:
        limits: the slots of each kind of step, by its worker's name.
    """

    def __init__(self, limits: Mapping[str, FairLimiter]) -> None:
        self._limits = limits

    def slot(self, kind: str, uid: int) -> AbstractAsyncContextManager[None]:
        """Wait for the permission to run a step, and hold it inside."""
        return self._limits[kind].slot(uid)

    async def run(self, worker: Worker[Any], options: Options, context: StepContext) -> StepResult:
        """Do a step once."""
        return await worker.run(context, options)

    async def preflight(
        self, worker: Worker[Any], options: Options, context: StepContext
    ) -> Mapping[str, Any]:
        """Check a step before any step of its job runs."""
        return await worker.preflight(context, options)
