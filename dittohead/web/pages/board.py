"""Pages of a board: how many stand where, how fast they come, what is stuck; one entry's whole story."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from dittohead.admin import views
from dittohead.config import registry
from dittohead.config.loader import SourceSetting
from dittohead.contract.board import HOLD, Board
from dittohead.contract.source import Source
from dittohead.folders import receipt
from dittohead.intake.board import figures, stages, tokens
from dittohead.intake.board.figures import Figures
from dittohead.model.errors import DittoheadError
from dittohead.model.records import Job, RequestAnswer
from dittohead.model.roles import Role
from dittohead.model.shown import ShownPanel
from dittohead.model.states import Action, JobState
from dittohead.store import Connection
from dittohead.store import board as board_store
from dittohead.store import catalogue as catalogue_store
from dittohead.store import jobs as job_store
from dittohead.store.board import Standing
from dittohead.web.pages.cures import cures
from dittohead.web.pages.page import PAGES, answer
from dittohead.web.server.access import form
from dittohead.web.server.app_state import SITE
from dittohead.web.server.identity import identity, needs

#: Folders of one entry that are shown, and lines of its history.
_FOLDERS, _HISTORY = 20, 200

#: What buttons may ask of one entry: the word -> the action of the request.
_ACTIONS = {
    "want": Action.SOURCE_TELL,
    "unwant": Action.SOURCE_TELL,
    "hold": Action.SOURCE_HOLD,
    "thaw": Action.SOURCE_THAW,
    "refetch": Action.SOURCE_REFETCH,
}

#: Jobs that one button tries again, or dismisses; asked for in parallel.
_TOGETHER = 200


def install(app: web.Application) -> None:
    """Give an application the pages."""
    app.router.add_get("/sources/{source}", shown)
    app.router.add_get("/sources/{source}/find", find)
    app.router.add_post("/sources/{source}/failures", failures)
    app.router.add_get("/sources/{source}/entries/{key}", one)
    app.router.add_post("/sources/{source}/entries/{key}/{action}", act)


@dataclass(frozen=True)
class _Shown:
    """The source that an address names."""

    setting: SourceSetting
    source: Source[Any]
    board: Board

    @property
    def path(self) -> str:
        return f"/sources/{quote(self.setting.name, safe='')}"

    def entry(self, key: str) -> str:
        return f"{self.path}/entries/{quote(key, safe='')}"


def _named(request: web.Request) -> _Shown:
    """Return the source of an address. Raises: HTTPNotFound."""
    setting = request.app[SITE].config().source(request.match_info["source"])
    source = registry.sources().get(setting.kind) if setting is not None else None
    if setting is None or source is None or source.board is None:
        raise web.HTTPNotFound(reason="there is no source of this name that has a board")
    return _Shown(setting, source, source.board)


# -- the board -----------------------------------------------------------------------------------


@needs(Role.READER)
async def shown(request: web.Request) -> web.Response:
    """Show the board in numbers."""
    found, site = _named(request), request.app[SITE]
    name, kind = found.setting.name, found.source.shows

    def gather(connection: Connection) -> tuple[Figures, list[ShownPanel], dict[str, str]]:
        some = catalogue_store.page(connection, name, kind, limit=1)
        matched = None
        try:
            matched = site.config().pipeline_for(some[0].key) if some else None
        except DittoheadError:  # a match that takes too long: the stages of steps are missing
            matched = None
        workers = registry.default()
        row = stages.row(found.board, matched[0] if matched else None, workers)
        numbers = figures.gather(
            connection, name, kind, found.source.stored, found.board, row, workers, time.time()
        )
        return numbers, views.panels(connection, found.setting), views.paused(connection, name)

    numbers, panels, paused = await site.store.read_apart(gather)
    return await answer(
        request,
        "board.html",
        here="",
        name=name,
        path=found.path,
        entry_of=found.entry,
        board=found.board,
        figures=numbers,
        panels=panels,
        paused=paused,
        hold=HOLD,
        live_source=site.live().get("sources", {}).get(name, {}),
    )


@needs(Role.READER)
async def find(request: web.Request) -> web.Response:
    """Lead to the entry of a key that was typed."""
    found = _named(request)
    raise web.HTTPSeeOther(found.entry(request.query.get("key", "").strip()[:500] or "?"))


@needs(Role.OPERATOR)
async def failures(request: web.Request) -> web.Response:
    """Try all with one reason again, or dismiss them; and lead back with the answer."""
    found, site, given = _named(request), request.app[SITE], await form(request)
    why, action = given.get("why", ""), given.get("action", "")
    if action not in ("retry", "dismiss", "want", "unwant"):
        raise web.HTTPBadRequest(reason="there is no such button")
    name, kind = found.setting.name, found.source.shows

    def gather(connection: Connection) -> Figures:
        return figures.gather(
            connection,
            name,
            kind,
            found.source.stored,
            found.board,
            (),
            registry.default(),
            time.time(),
        )

    numbers = await site.store.read_apart(gather)
    of_jobs = action in ("retry", "dismiss")
    alike = next((one for one in numbers.reasons if one.why == why and bool(one.jobs) == of_jobs), None)
    who = identity(request).name
    if alike is None:
        said: RequestAnswer | None = RequestAnswer(ok=False, message="Nothing has this reason any more.")
    elif of_jobs:
        answers = await asyncio.gather(
            *(site.queue.ask(action, job, who, {}) for job in alike.jobs[:_TOGETHER])
        )
        said = _together(action, [one for one in answers if one is not None])
    else:
        args = {"keys": list(alike.keys), **({"again": True} if action == "want" else {})}
        said = await site.queue.ask(Action.SOURCE_TELL, name, who, {"command": action, "args": args})
    raise web.HTTPSeeOther(f"{found.path}?{urlencode({'said': request.app[PAGES].keep(said)})}")


def _together(action: str, answers: list[RequestAnswer]) -> RequestAnswer:
    """Return one answer for those of many jobs."""
    refused = [one.message for one in answers if not one.ok]
    what = "tried again" if action == "retry" else "dismissed"
    said = f"{len(answers) - len(refused):,} {what}"
    if refused:
        said += f", {len(refused):,} not: {refused[0]}"
    return RequestAnswer(ok=not refused, message=said)


# -- one entry -----------------------------------------------------------------------------------


@needs(Role.READER)
async def one(request: web.Request) -> web.Response:
    """Show all that is known of one entry: upstream, here, its folders, its jobs, its receipts."""
    found, site, key = _named(request), request.app[SITE], request.match_info["key"]
    name, kind = found.setting.name, found.source.shows

    def gather(connection: Connection) -> tuple[Standing | None, Any, Any, list[Job]]:
        standing = board_store.standing(connection, name, kind, key)
        changes = list(reversed(catalogue_store.history(connection, name, kind, key, _HISTORY)))
        folders = board_store.jobs_of(connection, name, key, _FOLDERS)
        jobs = [job_store.get(connection, row["job_id"]) for row in folders if row["job_state"]]
        return standing, changes, folders, jobs

    standing, changes, folders, jobs = await site.store.read_apart(gather)
    if standing is None:
        raise web.HTTPNotFound(reason=f'"{key}" is not known: it is in none of the lists that were read')
    at = stages.stand(standing, found.board, found.source.stored, registry.default())
    receipts = await asyncio.to_thread(
        lambda: {job.id for job in jobs if receipt.path_of(site.stations.receipts, job).is_file()}
    )
    story = tokens.story(standing, changes, at.words if at is not None else ())
    return await answer(
        request,
        "entry.html",
        here="",
        name=name,
        path=found.path,
        here_path=found.entry(key),
        entry=standing.entry,
        at=at,
        buttons=_buttons(standing, at, found),
        story=list(reversed(story)),
        folders=folders,
        jobs={job.id: job for job in jobs},
        cures={job.id: cures(job)[:1] for job in jobs if job.state is JobState.FAILED},
        receipts=receipts,
        active=standing.active,
    )


def _buttons(standing: Standing, at: stages.Stand | None, found: _Shown) -> list[tuple[str, str]]:
    """Return (action, label) of what can be asked for now, the likeliest first."""
    board, stage = found.board, standing.entry.stage
    if stage == HOLD:
        return [("thaw", "Let it go on")]
    if stage == board.wanted:
        return [("hold", "Hold"), ("unwant", "Do not bring it in")]
    if stage == board.aside:
        return [("want", "Try again"), ("unwant", "Give it up")]
    if stage in ("", found.source.stored):
        return [("refetch", "Bring it in again")] if stage else [("want", "Bring it in")]
    if at is not None and at.failed:
        return [("refetch", "Fetch it again")]
    return [] if standing.job else [("hold", "Hold")]


@needs(Role.OPERATOR)
async def act(request: web.Request) -> web.Response:
    """Hand in what a button asks for, and lead back to the entry with the answer."""
    found, key, action = _named(request), request.match_info["key"], request.match_info["action"]
    if action not in _ACTIONS:
        raise web.HTTPNotFound
    args: dict[str, Any] = {"keys": [key]}
    if _ACTIONS[action] == Action.SOURCE_TELL:
        args = {"command": action, "args": {**args, **({"again": True} if action == "want" else {})}}
    queue, who = request.app[SITE].queue, identity(request).name
    said = await queue.ask(_ACTIONS[action], found.setting.name, who, args)
    raise web.HTTPSeeOther(f"{found.entry(key)}?{urlencode({'said': request.app[PAGES].keep(said)})}")
