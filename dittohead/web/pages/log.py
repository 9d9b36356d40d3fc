"""What the programs of a step have printed: its end as a page, all of it as text, and what comes next."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from dittohead.folders.job_files import JobFiles
from dittohead.model.records import Job
from dittohead.model.roles import Role
from dittohead.model.states import TERMINAL
from dittohead.model.text import visible
from dittohead.store import jobs as job_store
from dittohead.web.pages.log_text import read
from dittohead.web.pages.page import answer, one_job
from dittohead.web.server.app_state import SITE
from dittohead.web.server.identity import needs
from dittohead.web.server.listener import Sent

#: Bytes of a log's end on its page, and in one answer to those who follow it.
TAIL, PIECE = 64 << 10, 256 << 10


def install(app: web.Application) -> None:
    """Give an application the pages of logs."""
    app.router.add_get("/jobs/{job}/steps/{step}/log", page)
    app.router.add_get("/jobs/{job}/steps/{step}/log.txt", text)


async def _log(request: web.Request) -> tuple[Job, Path]:
    """Return the job and the log's path. Raises: HTTPNotFound: the job has no step of this name."""
    job, step = await one_job(request), request.match_info["step"]
    steps = await request.app[SITE].store.read_apart(job_store.steps_of, job.id)
    if step not in {row.name for row in steps}:  # only a step's name is used in a path
        raise web.HTTPNotFound(reason=f"this job has no step {visible(step)}")
    return job, JobFiles(request.app[SITE].stations, job).log(step)


@needs(Role.READER)
async def page(request: web.Request) -> web.Response:
    """Show the end of a log."""
    job, path = await _log(request)
    over, step = job.state in TERMINAL, request.match_info["step"]
    shown, at = await asyncio.to_thread(read, path, -TAIL, TAIL, whole_lines=not over)
    return await answer(
        request,
        "log.html",
        job=job,
        step=step,
        text=shown,
        at=at,
        skipped=max(at - TAIL, 0) if at > TAIL else 0,
        follow=not over,
        whole=f"/jobs/{job.id}/steps/{step}/log.txt",
    )


@needs(Role.READER)
async def text(request: web.Request) -> web.StreamResponse:
    """Send a log as it is; with `from`, what has come after that byte, and in X-Next where to go on."""
    job, path = await _log(request)
    if "from" not in request.query:
        if not await asyncio.to_thread(path.is_file):
            raise web.HTTPNotFound(reason="nothing that this step printed is kept")
        return Sent(path, headers={"Content-Type": "text/plain; charset=utf-8"})
    try:
        start = max(int(request.query["from"]), 0)
    except ValueError:
        raise web.HTTPBadRequest(reason="from is a number of bytes") from None
    over = job.state in TERMINAL
    shown, at = await asyncio.to_thread(read, path, start, PIECE, whole_lines=not over)
    done = over and not shown
    return web.Response(text=shown, headers={"X-Next": str(at), "X-Over": "yes" if done else "no"})
