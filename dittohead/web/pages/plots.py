"""How it goes over days: jobs, bytes, what was left, and how long steps take; drawn here, with tables."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from dittohead.model.roles import Role
from dittohead.model.units import size
from dittohead.store import Connection, numbers
from dittohead.store.numbers import Day, StepPace
from dittohead.web.pages.page import answer
from dittohead.web.server.app_state import SITE, AppState
from dittohead.web.server.identity import needs

#: What may be looked at. Days.
SPANS = (14, 30, 90, 365)

#: What was counted is shown for this long before it is counted again. Seconds.
_FRESH_S = 30.0

#: A plot's inner size and margins, in its own units.
WIDTH, HEIGHT, LEFT, BELOW = 520.0, 150.0, 92.0, 24.0


@dataclass(frozen=True)
class _Counted:
    at: float
    days: list[Day]
    before: int
    paces: list[StepPace]


@dataclass
class Numbers:
    """What was counted last, by span; one count at a time, no matter who asks."""

    known: dict[int, _Counted] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def of(self, site: AppState, span: int) -> _Counted:
        """Return what there is of so many days."""
        async with self.lock:
            found = self.known.get(span)
            if found is None or time.monotonic() - found.at > _FRESH_S:
                found = await site.store.read_apart(_count, span)
                self.known[span] = found
            return found


def _count(connection: Connection, span: int) -> _Counted:
    days = numbers.days(connection, span)
    before = numbers.size_before(connection, days[0].start)
    return _Counted(time.monotonic(), days, before, numbers.paces(connection))


NUMBERS = web.AppKey("numbers", Numbers)


def install(app: web.Application) -> None:
    """Give an application the page of statistics."""
    app[NUMBERS] = Numbers()
    app.router.add_get("/statistics", page)
    app.router.add_get("/numbers", former)


@needs(Role.READER)
async def page(request: web.Request) -> web.Response:
    """Show the plots of a span of days."""
    given = request.query.get("days", str(SPANS[1]))
    span = int(given) if given in {str(one) for one in SPANS} else SPANS[1]
    found = await request.app[NUMBERS].of(request.app[SITE], span)
    return await answer(
        request,
        "statistics.html",
        here="statistics",
        span=span,
        spans=SPANS,
        days=[(datetime.fromtimestamp(day.start, UTC).strftime("%Y-%m-%d"), day) for day in found.days],
        ended=bars(found.days),
        grown=trace([found.before + total for total in _running(found.days)], found.days, size),
        left=trace([day.left for day in found.days], found.days, lambda value: f"{value:,.0f}"),
        before=found.before,
        paces=_paces(found.paces),
    )


@needs(Role.READER)
async def former(request: web.Request) -> web.Response:
    """Lead from the address that the page had before."""
    query = f"?{request.query_string}" if request.query_string else ""
    raise web.HTTPPermanentRedirect(f"/statistics{query}")


def _running(days: Sequence[Day]) -> list[int]:
    total, found = 0, []
    for day in days:
        total += day.size
        found.append(total)
    return found


def top(most: float) -> float:
    """Return a round number at or above the most that is drawn.

    Its half is a whole number: it is named as well.
    """
    if most <= 2:
        return 2.0
    power = 10.0 ** math.floor(math.log10(most))
    steps = (2, 4, 6, 10) if power == 1 else (1, 2, 4, 5, 10)
    return next(step * power for step in steps if step * power >= most)


def top_bytes(most: float) -> float:
    """Return a round number of bytes, in binary units, at or above the most that is drawn."""
    unit = 1024.0 ** min(max(int(math.log(most, 1024)), 0), 5) if most >= 1 else 1.0
    return top(most / unit) * unit


def _frame(days: Sequence[Day], highest: float, said: Any) -> dict[str, Any]:
    """Return what every plot has: its size, the lines of its scale, the days named below it."""
    named = sorted({0, len(days) // 2, len(days) - 1})
    step = (WIDTH - LEFT) / len(days)
    return {
        "width": WIDTH,
        "height": HEIGHT + BELOW,
        "floor": HEIGHT,
        "left": LEFT,
        "scale": [(round(HEIGHT * (1 - part), 1), said(highest * part)) for part in (0.0, 0.5, 1.0)],
        "below": [
            (
                round(LEFT + (at + 0.5) * step, 1),
                datetime.fromtimestamp(days[at].start, UTC).strftime("%-d %b"),
                "start" if at == 0 else "end" if at == len(days) - 1 else "middle",
            )
            for at in named
        ],
    }


def bars(days: Sequence[Day]) -> dict[str, Any]:
    """Return a plot of jobs done and failed, one bar a day."""
    highest = top(max(2, *(day.done + day.failed for day in days)))
    step = (WIDTH - LEFT) / len(days)
    drawn = []
    for at, day in enumerate(days):
        x, wide = round(LEFT + at * step + step * 0.12, 2), round(step * 0.76, 2)
        done, failed = HEIGHT * day.done / highest, HEIGHT * day.failed / highest
        drawn.append((x, wide, round(HEIGHT - done, 2), round(done, 2), "good"))
        drawn.append((x, wide, round(HEIGHT - done - failed, 2), round(failed, 2), "bad"))
    return {**_frame(days, highest, "{:,.0f}".format), "bars": [bar for bar in drawn if bar[3] > 0]}


def trace(values: Sequence[float], days: Sequence[Day], said: Any) -> dict[str, Any]:
    """Return a plot of one value a day as a line; coordinates are in the SVG's units.

    Args:
        values: one for each day; at least one.
        days: the days, the earliest first; as many as values.
        said: writes a value for people; `size` for bytes.
    """
    most = max(values, default=0)
    highest = top_bytes(most) if said is size else top(max(most, 2))
    step = (WIDTH - LEFT) / len(days)
    points = [
        (round(LEFT + (at + 0.5) * step, 2), round(HEIGHT * (1 - value / highest), 2))
        for at, value in enumerate(values)
    ]
    line = " ".join(f"{x},{y}" for x, y in points)
    return {
        **_frame(days, highest, said),
        "line": line,
        "area": f"{points[0][0]},{HEIGHT} {line} {points[-1][0]},{HEIGHT}",
    }


def _paces(paces: Sequence[StepPace]) -> list[dict[str, Any]]:
    """Return the steps with their bars, 100 units for the slowest of them all, by the square root."""
    most = max((pace.p95 for pace in paces), default=0.0) or 1.0
    return [
        {
            "pace": pace,
            "median": round(100 * math.sqrt(pace.median / most), 2),
            "p95": round(100 * math.sqrt(pace.p95 / most), 2),
        }
        for pace in paces
    ]
