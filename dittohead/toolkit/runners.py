"""As many runners of one step as there are slots, each with a child process that is renewed when it dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

from dittohead.contract.worker import StepContext
from dittohead.model.errors import StepError, ungrouped
from dittohead.system.threads import Stop, in_thread

T = TypeVar("T")  #: one thing to be done
K = TypeVar("K")  #: what is known of one that is done
C = TypeVar("C")  #: a child


class Renewed(Generic[C]):
    """A child that is started when it is first needed, and again when it was dropped. Of one runner."""

    def __init__(self, start: Callable[[], AbstractAsyncContextManager[C]]) -> None:
        self._start, self._stack = start, contextlib.AsyncExitStack()
        self._child: C | None = None

    async def __aenter__(self) -> Renewed[C]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drop()

    async def get(self) -> C:
        """Return the child."""
        if self._child is None:
            self._child = await self._stack.enter_async_context(self._start())
        return self._child

    async def drop(self) -> None:
        """End the child, dead or alive."""
        self._child = None
        await self._stack.aclose()


class Runners(Generic[T, K, C]):
    """Does every one of many things; an extra runner leaves when other jobs wait for its slot.

    Args:
        ctx: gives slots beside the step's own.
        kind: what the tasks are called, before the job's id.
        total: how many things there are.
        pick: returns the next thing, with what is known of it where it is done already; None at the end.
            Called in a thread, one call at a time.
        make: does one thing, with the runner's child.
        good: takes note of what was done already.
        start: starts a child.
    """

    def __init__(
        self,
        ctx: StepContext,
        kind: str,
        total: int,
        *,
        pick: Callable[[Stop], tuple[T, K | None] | None],
        make: Callable[[T, Renewed[C]], Awaitable[None]],
        good: Callable[[T, K], None],
        start: Callable[[], AbstractAsyncContextManager[C]],
    ) -> None:
        self._ctx, self._kind, self._total = ctx, kind, total
        self._pick, self._make, self._good, self._new_child = pick, make, good, start
        self._turn = asyncio.Lock()
        self._running = self._begun = 0

    async def run(self) -> None:
        """Do everything. Raises: StepError, of the first that fails; what `make` raises."""
        with ungrouped(StepError):
            async with asyncio.TaskGroup() as group:
                self._add(group, None)

    def _add(self, group: asyncio.TaskGroup, slot: AbstractAsyncContextManager[None] | None) -> None:
        self._running += 1
        group.create_task(self._one_after_another(group, slot), name=f"{self._kind}:{self._ctx.job_id}")

    async def _one_after_another(
        self, group: asyncio.TaskGroup, slot: AbstractAsyncContextManager[None] | None
    ) -> None:
        async with slot or contextlib.nullcontext(), Renewed(self._new_child) as child:
            while (picked := await self._next()) is not None:
                task, known = picked
                if known is not None:
                    self._good(task, known)
                else:
                    self._grow(group)
                    await self._make(task, child)
                if slot is not None and self._ctx.contended:
                    break
            self._running -= 1

    async def _next(self) -> tuple[T, K | None] | None:
        async with self._turn:
            picked = await in_thread(self._pick)
        self._begun += picked is not None
        return picked

    def _grow(self, group: asyncio.TaskGroup) -> None:
        if self._begun < self._total and self._running < self._total:
            slot = self._ctx.spare_slot()
            if slot is not None:
                self._add(group, slot)
