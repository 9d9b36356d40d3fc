"""The files of a job as a page: name, size, digest, and where each lies."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from dittohead.folders import listing
from dittohead.model.roles import Role
from dittohead.model.states import JobState
from dittohead.model.text import display
from dittohead.store import jobs as job_store
from dittohead.web.pages.page import answer, one_job
from dittohead.web.server.app_state import SITE
from dittohead.web.server.identity import identity, needs
from dittohead.web.server.problems import Problem

#: Files on a page.
_SHOWN = 200


def install(app: web.Application) -> None:
    """Give an application the page."""
    app.router.add_get("/jobs/{job}/files", page)


@needs(Role.READER)
async def page(request: web.Request) -> web.Response:
    """Show the files behind a cursor."""
    site, job, after = request.app[SITE], await one_job(request), request.query.get("after", "")
    steps = await site.store.read_apart(job_store.steps_of, job.id)
    try:
        found = await asyncio.to_thread(listing.page, site.stations, job, steps, after, _SHOWN)
    except ValueError as error:
        raise Problem(400, str(error)) from error
    return await answer(
        request,
        "files.html",
        job=job,
        files=[_shown(file) for file in found.files],
        faulty=set(job.error.files) if job.error is not None and job.state is JobState.FAILED else set(),
        replaces=identity(request).role >= Role.OPERATOR and job.state is JobState.FAILED,
        first=bool(after),
        following=urlencode({"after": found.following}) if found.following else "",
    )


def _shown(file: listing.ListedFile) -> dict[str, Any]:
    fields = listing.fields(file)
    query = urlencode({key: fields[key] for key in ("path", "encoding") if fields[key]})
    return {**fields, "path": display(file.path), "query": query}
