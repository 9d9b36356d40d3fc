"""What any runner of steps must pass; and that the engine runs each step by its runner alone."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import dittohead
from dittohead.contract.worker import Done, Options, StepContext, StepResult, Worker
from dittohead.engine.runner import LocalRunner, StepRunner
from dittohead.model.errors import ItemError
from dittohead.system.limits import FairLimiter
from tests.support.context import LoneContext
from tests.support.harness import Harness, ScriptOptions, ScriptWorker
from tests.support.trees import tree


def local(limits: Mapping[str, FairLimiter]) -> StepRunner:
    """Within this process."""
    return LocalRunner(limits)


@pytest.fixture(params=[local])
def make(request: pytest.FixtureRequest) -> Callable[[Mapping[str, FairLimiter]], StepRunner]:
    made: Callable[[Mapping[str, FairLimiter]], StepRunner] = request.param
    return made


@pytest.fixture
def runner(make: Callable[[Mapping[str, FairLimiter]], StepRunner]) -> StepRunner:
    return make({"script": FairLimiter(2)})


@pytest.fixture
def ctx(tmp_path: Path) -> LoneContext:
    return LoneContext(tmp_path, tree(tmp_path / "folder", {"a": "1"}))


async def test_a_result_comes_back_as_the_worker_gave_it(runner: StepRunner, ctx: LoneContext) -> None:
    """With its options and its context."""
    worker, seen = ScriptWorker(), []

    async def play(given: StepContext) -> StepResult:
        seen.append(given)
        return Done(detail="well")

    worker.plays[ctx.step] = play
    assert await runner.run(worker, ScriptOptions(), ctx) == Done(detail="well")
    assert seen == [ctx]


@pytest.mark.parametrize(
    "error", [ItemError("bad", where="a", hint="look"), OSError(28, "full"), ValueError("x")]
)
async def test_an_error_leaves_as_it_is(runner: StepRunner, ctx: LoneContext, error: Exception) -> None:
    """What it means for the job, the engine decides."""
    worker = ScriptWorker()

    async def play(given: StepContext) -> StepResult:
        raise error

    worker.plays[ctx.step] = play
    with pytest.raises(type(error)) as raised:
        await runner.run(worker, ScriptOptions(), ctx)
    assert str(raised.value) == str(error)
    assert vars(raised.value) == vars(error)


async def test_nothing_goes_on_after_a_cancellation(runner: StepRunner, ctx: LoneContext) -> None:
    """The worker has cleaned up when the runner has ended."""
    worker, begun, ended = ScriptWorker(), asyncio.Event(), []

    async def play(given: StepContext) -> StepResult:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)
        raise AssertionError

    worker.plays[ctx.step] = play
    task = asyncio.create_task(runner.run(worker, ScriptOptions(), ctx))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


class Looking(ScriptWorker):
    """Finds something out before all steps."""

    async def preflight(self, ctx: StepContext, options: ScriptOptions) -> Mapping[str, Any]:
        return {"pages": 3, "do": options.do}


async def test_a_preflight_gives_its_facts(runner: StepRunner, ctx: LoneContext) -> None:
    """As the worker found them."""
    assert await runner.preflight(Looking(), ScriptOptions(do="it"), ctx) == {"pages": 3, "do": "it"}


async def test_no_more_slots_are_held_than_there_are(runner: StepRunner) -> None:
    """One that is waited for is had when another comes back, and a wait that is cancelled leaves nothing."""
    async with AsyncExitStack() as first:
        await first.enter_async_context(runner.slot("script", 1))
        async with runner.slot("script", 1):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), runner.slot("script", 2):
                    pass
        async with runner.slot("script", 2):
            pass


class Counting:
    """A runner that notes what it is asked for, and has another do it."""

    def __init__(self, inner: StepRunner) -> None:
        self.inner, self.asked = inner, list[tuple[str, str]]()
        self.slot = inner.slot

    async def run(self, worker: Worker[Any], options: Options, context: StepContext) -> StepResult:
        self.asked.append(("run", context.step))
        return await self.inner.run(worker, options, context)

    async def preflight(
        self, worker: Worker[Any], options: Options, context: StepContext
    ) -> Mapping[str, Any]:
        self.asked.append(("preflight", context.step))
        return await self.inner.preflight(worker, options, context)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "root")
    yield made
    made.store.close()


async def test_the_engine_runs_each_step_by_its_runner(harness: Harness) -> None:
    """In the order of the steps; nothing is run beside it."""
    runner = harness.engine.runner = Counting(harness.engine.runner)
    harness.arrive("x")
    async with harness.running():
        await harness.until_over("x")
    assert runner.asked == [("run", "first"), ("run", "second"), ("run", "third")]
    assert [step for _, step in harness.worker.ran] == ["first", "second", "third"]


def test_nothing_else_in_the_engine_calls_a_worker() -> None:
    """Else a step would run here whatever the runner is."""
    engine = Path(dittohead.__file__).parent / "engine"
    calls = re.compile(r"worker\.(run|preflight)\(")
    assert [path.name for path in engine.rglob("*.py") if calls.search(path.read_text())] == ["runner.py"]
