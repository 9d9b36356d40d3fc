"""Text that cannot be stored as it is (a lone surrogate, a NUL): it ends no job, and holds up no other."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dittohead.contract.worker import Done, StepContext, StepResult, Wait
from dittohead.folders import sidecar
from dittohead.model.errors import DittoheadError, ItemError, TransientError
from dittohead.model.events import Event, EventType
from dittohead.model.states import JobState
from dittohead.store import Store
from dittohead.store import outbox as outbox_store
from dittohead.store.outbox import NewNotice
from dittohead.store.tables import outbox
from tests.support.harness import CONFIG, Harness
from tests.support.postgres import postgres

ODD = ["\ud800", "x\udfff!", "\udcff", "a\0b", "\ud83d \0 \udc80"]

PURPOSES = CONFIG.replace("- script: {name: second}", "- script: {name: second, for: access}")


@pytest.fixture(scope="module")
def server() -> Iterator[sa.URL]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
    if request.param == "sqlite":
        return Harness(tmp_path, PURPOSES)
    url: sa.URL = request.getfixturevalue("server")
    name = f"d{abs(hash(tmp_path))}"
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return Harness(tmp_path, PURPOSES, Store.open(url.set(database=name)))


@pytest.mark.parametrize("text", ODD)
def test_an_error_may_be_about_anything(text: str) -> None:
    error = DittoheadError(text, where=text, hint=text)
    for said in (str(error), error.what, error.where, error.hint):
        assert "\0" not in said
        said.encode()


async def _fails(ctx: StepContext, text: str) -> StepResult:
    raise ItemError(f"no {text}", where=text, hint=text)


async def _passes(ctx: StepContext, text: str) -> StepResult:
    raise TransientError(f"no {text}")


async def _breaks(ctx: StepContext, text: str) -> StepResult:
    raise KeyError(text)


async def _says(ctx: StepContext, text: str) -> StepResult:
    ctx.event(Event(type=EventType.EXECUTION, outcome="success", detail=text, agent=text))
    return Done(detail=text)


async def _waits(ctx: StepContext, text: str) -> StepResult:
    if ctx.saved:
        return Done(detail=ctx.saved["text"])
    return Wait(reason=text, seconds=0.0, state={"text": text})


WAYS = {
    _fails: JobState.FAILED,
    _passes: JobState.FAILED,
    _breaks: JobState.FAILED,
    _says: JobState.DONE,
    _waits: JobState.DONE,
}


async def test_whatever_a_step_says_its_job_ends_with_a_receipt(harness: Harness) -> None:
    """As programs, other systems' records and names on disk may have them say."""
    cases: dict[str, tuple[Any, str]] = {}

    async def play(ctx: StepContext) -> StepResult:
        way, text = cases[ctx.name]
        result: StepResult = await way(ctx, text)
        return result

    harness.worker.plays["first"] = play
    for number, way in enumerate(WAYS):
        for which, text in enumerate(ODD):
            cases[f"x-{number}-{which}"] = way, text
            harness.arrive(f"x-{number}-{which}")
    async with harness.running():
        for name, (way, _) in cases.items():
            assert (await harness.until_over(name)).state is WAYS[way], name
    for path in (harness.root / "receipts").iterdir():
        json.loads(path.read_text("utf-8"))
        assert "\0" not in path.read_text("utf-8")


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000", "\\udcff", "a\\ud83d"])
async def test_what_a_side_car_asks_for_fails_its_folder_alone(harness: Harness, text: str) -> None:
    """Before, it lay in processing/ forever, and each such folder held up all others for ten seconds."""
    harness.arrive("bad", {"a": b"1", sidecar.NAME: f'purpose: "{text}"'.encode()})
    harness.arrive("good")
    async with harness.running():
        assert (await harness.until_over("bad")).state is JobState.FAILED
        assert (await harness.until_over("good")).state is JobState.DONE


async def test_a_request_may_say_anything(harness: Harness) -> None:
    """As a browser or a program may send it: JSON can write what text cannot hold."""
    harness.arrive("x")
    async with harness.running():
        job = await harness.until_over("x")
    for text in ODD:
        for action, args in (("freeze", {"reason": text}), ("rerun", {"from": text}), (text, {})):
            assert (await harness.ask(action, job.id, **args))["message"]
        assert (await harness.ask("retry", text))["message"]


async def test_notices_may_be_about_anything(harness: Harness) -> None:
    """One that the database cannot look into would end the digests of all."""
    for number, text in enumerate(ODD):
        about = {"job": {"name": text, "uploader": text}, "error": {"what": [text, {text: text}]}}
        notice = NewNotice(rule="r", event="failed", subject=text, body=text, data=about)
        await harness.store.write(outbox_store.add, [notice])
        await harness.store.write(
            lambda connection: connection.execute(sa.update(outbox).values(state="held"))
        )
        made = await harness.store.write(outbox_store.gather, time.time() + 1e6, lambda _, n=notice: n)
        assert len(made) == (number > 0)  # one alone goes as it is


async def test_what_a_step_keeps_for_itself_comes_back_as_it_was(harness: Harness) -> None:
    """A path of bytes that are not UTF-8 is to be found again by it."""
    kept: list[str] = []

    async def play(ctx: StepContext) -> StepResult:
        if ctx.saved:
            kept.append(ctx.saved["path"])
            return Done()
        return Wait(reason="not yet", seconds=0.0, state={"path": "a\udcff\udc80"})

    harness.worker.plays["first"] = play
    harness.arrive("x")
    async with harness.running():
        assert (await harness.until_over("x")).state is JobState.DONE
    assert kept == ["a\udcff\udc80"]
