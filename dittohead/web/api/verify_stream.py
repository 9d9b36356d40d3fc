"""A comparison that may take hours, reported while it goes on; it ends when nobody reads any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from dittohead.model.errors import DittoheadError
from dittohead.model.shown import ShownReport
from dittohead.web.server.problems import Problem

#: Between two words on how far it is. Seconds.
_TELL_S = 1.0

#: Comparisons at once: each reads disks and networks as fast as they go.
_MOST = 2

_UNDER_WAY = web.AppKey("verifying", set[asyncio.Task[Any]])


def install(app: web.Application) -> None:
    """Give an application what counts them."""
    app[_UNDER_WAY] = set()


async def told(
    request: web.Request, work: Awaitable[ShownReport], progress: Callable[[], tuple[int, int]]
) -> web.StreamResponse:
    """Answer with lines of JSON: {"looked", "of"} while it goes on, then {"report"} or {"problem"}.

    Args:
        work: the verification; its result is the report. It is cancelled when it may not begin.
        progress: called now and then; returns (how many were looked at, of how many).

    Raises: Problem: it cannot begin, or enough are under way already.
    """
    under_way = request.app[_UNDER_WAY]
    task = asyncio.ensure_future(work)
    if len(under_way) >= _MOST:
        task.cancel()
        raise Problem(409, "other jobs are being verified just now", hint="Try again when that has ended")
    under_way.add(task)
    response = web.StreamResponse(
        headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
    )
    try:
        await asyncio.wait([task], timeout=_TELL_S)
        if task.done() and isinstance(error := task.exception(), DittoheadError):
            raise Problem(409, str(error))
        await response.prepare(request)
        while not task.done():
            looked, total = progress()
            await _line(response, {"looked": looked, "of": total})
            await asyncio.wait([task], timeout=_TELL_S)
        await _line(response, _end(task))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        under_way.discard(task)
    return response


def _end(task: asyncio.Task[ShownReport]) -> dict[str, Any]:
    try:
        return {"report": task.result()}
    except (DittoheadError, OSError) as error:
        return {"problem": str(error)}


async def _line(response: web.StreamResponse, fields: dict[str, Any]) -> None:
    await response.write(json.dumps(fields).encode() + b"\n")
