"""A source's part of the day, what people pause, and a source that may not go on before somebody acts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dittohead.config.loader import SourceSetting
from dittohead.contract.catalogue import SWITCH, Keep, Told
from dittohead.contract.schedule import Window
from dittohead.contract.source import Fetch, Look, Source, SourceOptions, Upstream
from dittohead.intake.runner import SourceRunner, Tools
from dittohead.model.errors import SourceStopped
from tests.support.harness import Harness

BERLIN = "Europe/Berlin"


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN)).timestamp()


@pytest.mark.parametrize(
    ("window", "now", "left_h", "opens_h"),
    [
        ("20:00-04:00", "2026-01-10T21:30", 6.5, 0),
        ("20:00-04:00", "2026-01-10T03:30", 0.5, 0),
        ("20:00-04:00", "2026-01-10T04:00", 0, 16),
        ("08:00-12:00", "2026-01-10T12:30", 0, 19.5),
        ("08:00-12:00", "2026-01-10T08:00", 4, 0),
        ("20:00-04:00", "2026-03-29T01:00", 2, 0),  # the night that is an hour short
        ("20:00-04:00", "2026-10-25T01:00", 4, 0),  # and the one that has one more
        ("20:00-24:00", "2026-01-10T23:00", 1, 0),
    ],
)
def test_how_long_a_window_is_open_and_when_it_opens(
    window: str, now: str, left_h: float, opens_h: float
) -> None:
    found = Window.read(window)
    assert found.left_s(moment(now), BERLIN) == left_h * 3600
    assert found.opens_s(moment(now), BERLIN) == opens_h * 3600


@pytest.mark.parametrize("text", ["20:00", "25:00-04:00", "20:00-20:00", "8-12", "20:61-22:00", ""])
def test_what_is_no_part_of_a_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"part of a day|no clock shows|whole day"):
        SourceOptions(between=text)


class Far(Upstream):
    """Halts in its look until it is let go; is let in or not."""

    def __init__(self) -> None:
        self.has_preflight = self.halted = 0
        self.refused: SourceStopped | None = None
        self.looking, self.go = asyncio.Event(), asyncio.Event()

    async def look(self, ctx: Look) -> None:
        self.has_preflight += 1
        self.looking.set()
        if self.refused is not None:
            raise self.refused
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.halted += 1
            raise

    async def fetch(self, ctx: Fetch) -> None:
        raise AssertionError


class FarSource(Source[SourceOptions]):
    name = "far"
    Options = SourceOptions

    def __init__(self) -> None:
        self.far = Far()

    @contextlib.asynccontextmanager
    async def connect(self, options: SourceOptions, keep: Keep) -> AsyncIterator[Upstream]:
        yield self.far


class Rig:
    def __init__(self, harness: Harness, **options: Any) -> None:
        self.harness, self.source = harness, FarSource()
        self.far = self.source.far
        tools = Tools(
            store=harness.store, stations=harness.stations, claimer=harness.claimer, secret={}.__getitem__
        )
        setting = SourceSetting(name="up", kind="far", options=SourceOptions(**options))
        self.runner = SourceRunner(tools, setting, self.source)


@contextlib.asynccontextmanager
async def running(runner: SourceRunner) -> AsyncIterator[None]:
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Clock:
    """The window's clock, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left_s: float) -> None:
        self.left_s = left_s
        monkeypatch.setattr(Window, "left_s", lambda window, moment, timezone: self.left_s)
        monkeypatch.setattr(Window, "opens_s", lambda window, moment, timezone: 0.01)


async def test_a_look_halts_at_the_end_of_its_part_of_the_day_and_goes_on_in_the_next(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, 0.05)
    rig = Rig(harness, between="20:00-04:00")
    async with running(rig.runner):
        await rig.far.looking.wait()
        clock.left_s = 0.0
        while not rig.far.halted:
            await asyncio.sleep(0.01)
        rig.far.looking.clear()
        looks = rig.far.has_preflight
        clock.left_s = 3600.0
        await rig.far.looking.wait()
    assert rig.far.has_preflight == looks + 1
    assert rig.runner.faults == {}


async def test_a_person_has_it_look_at_any_time(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, 0.0)
    rig = Rig(harness, between="20:00-04:00")
    async with running(rig.runner):
        rig.runner.look_soon()
        await rig.far.looking.wait()


async def test_a_stopped_source_is_said_once_and_goes_on_when_a_person_has_acted(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What refuses us is not asked again and again; that it is well again is told too."""
    monkeypatch.setattr("dittohead.intake.runner._STOPPED_LOOK_S", 0.01)
    told: list[tuple[str, str]] = []

    def compose(event: str, **facts: Any) -> list[Any]:
        told.append((event, facts["target"]))
        return []

    monkeypatch.setattr(harness.claimer.targets, "_compose", compose)
    rig = Rig(harness)
    acted: list[bool] = []
    rig.far.refused = SourceStopped(
        "it lets nobody in", hint="dittohead source authorize up", over=lambda: bool(acted)
    )
    async with running(rig.runner):
        await rig.far.looking.wait()
        while rig.runner.shown()["state"] != "stopped":
            await asyncio.sleep(0.01)
        assert "dittohead source authorize up" in rig.runner.shown()["error"]
        acted.append(True)
        while rig.far.has_preflight < 2:  # refused again: nobody is told a second time
            await asyncio.sleep(0.01)
        rig.far.refused = None
        rig.far.go.set()
        while ("resumed", "source up") not in told:
            await asyncio.sleep(0.01)
    assert told == [("paused", "source up"), ("resumed", "source up")]


async def test_nothing_is_fetched_while_fetches_are_paused(harness: Harness) -> None:
    rig = Rig(harness)
    told = Told(key="fetches", state="paused", reason="the line is needed")
    await rig.runner.keep.catalogue.tell(SWITCH, [told], by="alice")
    assert await rig.runner.bring() == 0
    assert rig.runner.held == "fetches are paused: the line is needed"
