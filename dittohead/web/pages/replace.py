"""Pages that put another file in the place of one in a failed folder: chosen, sent, looked at, swapped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

from aiohttp import BodyPartReader, web

from dittohead.folders.replacement import Offer, Replacements, at_fault, path_of, place
from dittohead.folders.stations import Stations
from dittohead.model.errors import ItemError
from dittohead.model.paths import path_fields
from dittohead.model.records import Job
from dittohead.model.roles import Role
from dittohead.model.states import Action, JobState
from dittohead.model.text import display, visible
from dittohead.web.pages.page import PAGES, answer, one_job
from dittohead.web.server.access import check_csrf
from dittohead.web.server.app_state import SITE
from dittohead.web.server.identity import identity, needs
from dittohead.web.server.problems import Problem
from dittohead.web.uploads.replacements import receive, waiting

#: Characters of a path, percent-encoded, and of a reason that are read at most.
_PATH_MOST, _REASON_MOST = 12_000, 300

#: Bytes of a part of the form that are read at once.
_PIECE = 1 << 18


def install(app: web.Application) -> None:
    """Give an application the pages. Before those of which a path with any action would fit as well."""
    app.router.add_get("/jobs/{job}/replace", form)
    app.router.add_post("/jobs/{job}/replacement", take)
    app.router.add_post("/jobs/{job}/replace", replace)


@needs(Role.OPERATOR)
async def form(request: web.Request) -> web.Response:
    """Ask which file, then for the new one, then whether it is the right one."""
    job, query = await one_job(request), request.query
    if query.get("with"):
        offer = await waiting(request, job, query["with"])
        return await _form(request, job, offer.path, offer.encoding, offer=offer)
    return await _form(request, job, query.get("path", "")[:_PATH_MOST], query.get("encoding", ""))


async def _form(
    request: web.Request,
    job: Job,
    path: str,
    encoding: str,
    *,
    offer: Offer | None = None,
    wrong: Problem | None = None,
) -> web.Response:
    stations = request.app[SITE].stations
    known = await asyncio.to_thread(_known, stations, job, path, encoding) if path else None
    faulty = await asyncio.to_thread(at_fault, stations, job) if known is None else []
    return await answer(
        request,
        "replace.html",
        job=job,
        failed=job.state is JobState.FAILED,
        file=known,
        faulty=faulty,
        offer=offer,
        wrong=wrong,
        status=wrong.status if wrong else 200,
    )


def _known(stations: Stations, job: Job, path: str, encoding: str) -> dict[str, Any]:
    """Return what is known of a file in the folder. Blocking."""
    try:
        name = path_of(path, encoding)
        with place(stations.folder(job.station, job.folder), name) as (_, _, status):
            size = status.st_size
    except ItemError as error:
        return {"shown": visible(path), "wrong": f"{error.what}. {error.hint}"}
    listed = Replacements(stations).listed(job, name)
    return {"encoding": "", **path_fields(name), "shown": display(name), "size": size, "sha256": listed}


@needs(Role.OPERATOR, csrf_later=True)
async def take(request: web.Request) -> web.Response:
    """Take the new file, and lead to where it is looked at. The form's fields come before it."""
    if not request.content_type.startswith("multipart/"):
        raise Problem(415, "the request must be a form with a file")
    fields: dict[str, str] = {}
    try:
        part = await _file(request, fields)
        job = await one_job(request)
        offer = await receive(request, job, fields.get("path", ""), fields.get("encoding", ""), _chunks(part))
    except Problem as problem:
        if problem.status == 403:
            raise
        wrong = problem
    except ValueError as error:  # of aiohttp's reader
        wrong = Problem(400, f"the form is incomplete: {error}")
    else:
        raise web.HTTPSeeOther(f"/jobs/{job.id}/replace?{urlencode({'with': offer.id})}")
    job = await one_job(request)
    return await _form(request, job, fields.get("path", ""), fields.get("encoding", ""), wrong=wrong)


async def _file(request: web.Request, fields: dict[str, str]) -> BodyPartReader:
    """Read the fields and return the file behind them; whose form it is, is seen before all else.

    Raises: Problem, ValueError.
    """
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            continue
        if part.filename is None:
            fields[part.name or ""] = await _text(part)
        elif part.filename:
            if identity(request).csrf:
                check_csrf(request, fields.get("csrf", "") or "none")
            return part
    raise Problem(422, "no file was chosen", hint="Choose the new file")


async def _text(part: BodyPartReader) -> str:
    text = bytearray()
    while chunk := await part.read_chunk():
        text += chunk
        if len(text) > _PATH_MOST:
            raise Problem(413, "a field of the form is too long")
    return text.decode("utf-8", "replace")


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(_PIECE):
        yield chunk


@needs(Role.OPERATOR)
async def replace(request: web.Request) -> web.Response:
    """Hand the wish in; lead to the new job, or to the old one with the answer."""
    job, given = await one_job(request), await request.post()
    run = given.get("run") != "no"
    reason = str(given.get("reason", ""))[:_REASON_MOST].strip()
    args = {"with": str(given.get("with", "")), "reason": reason, "run": run}
    said = await request.app[SITE].queue.ask(Action.REPLACE, job.id, identity(request).name, args)
    if said is not None and said.ok and run:
        raise web.HTTPSeeOther(f"/drop/done?{urlencode({'name': job.name, 'ino': job.ino, 'after': job.id})}")
    query = {"said": request.app[PAGES].keep(said)}
    raise web.HTTPSeeOther(f"/jobs/{job.id}?{urlencode(query)}")
