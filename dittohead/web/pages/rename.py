"""Pages that help a failed folder on: another name for it, checked before it moves."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from dittohead.admin import admission
from dittohead.model.errors import ItemError
from dittohead.model.records import Job
from dittohead.model.roles import Role
from dittohead.model.states import Action, JobState
from dittohead.web.pages.page import PAGES, answer, one_job
from dittohead.web.server.app_state import SITE
from dittohead.web.server.identity import identity, needs

#: Characters of a name that are read at most.
_MOST = 1000


def install(app: web.Application) -> None:
    """Give an application the pages. Before those of which a path with any action would fit as well."""
    app.router.add_get("/jobs/{job}/rename", form)
    app.router.add_get("/jobs/{job}/rename/check", check)
    app.router.add_post("/jobs/{job}/rename", rename)


@needs(Role.OPERATOR)
async def form(request: web.Request) -> web.Response:
    """Ask for another name, and say what pipelines take."""
    job, site = await one_job(request), request.app[SITE]
    typed = request.query.get("name", "")[:_MOST]
    return await answer(
        request,
        "rename.html",
        job=job,
        failed=job.state is JobState.FAILED,
        typed=typed or job.name,
        checked=await _check(request, job, typed) if typed else None,
        pipelines=site.config().pipelines,
    )


@needs(Role.OPERATOR)
async def check(request: web.Request) -> web.Response:
    """Tell which pipeline would take the folder under a name, or what stands in its way."""
    job = await one_job(request)
    return web.json_response(await _check(request, job, request.query.get("name", "")[:_MOST]))


async def _check(request: web.Request, job: Job, name: str) -> dict[str, Any]:
    site = request.app[SITE]
    try:
        pipeline = await asyncio.to_thread(admission.renamed, site.config(), site.stations, job, name)
    except ItemError as error:
        return {"ok": False, "said": f"{error.what}. {error.hint}"}
    steps = ", ".join(step.name for step in pipeline.steps)
    return {"ok": True, "said": f"Pipeline {pipeline.name}: {steps}"}


@needs(Role.OPERATOR)
async def rename(request: web.Request) -> web.Response:
    """Hand the wish in; lead to the new job, or back to the form with what stands in its way."""
    job, name = await one_job(request), str((await request.post()).get("name", ""))[:_MOST].strip()
    said = await request.app[SITE].queue.ask(Action.RENAME, job.id, identity(request).name, {"name": name})
    if said is not None and said.ok:
        raise web.HTTPSeeOther(f"/drop/done?{urlencode({'name': name, 'ino': job.ino})}")
    query = urlencode({"name": name, "said": request.app[PAGES].keep(said)})
    raise web.HTTPSeeOther(f"/jobs/{job.id}/rename?{query}")
