"""The form for uploads: a folder in pieces by a script, or all at once without one; never in memory.

A piece may carry its SHA-256 as the browser counted it (RFC 9530, Content-Digest): then what is on its way to
the disk is compared with it, and a piece that differs is not kept.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import urlencode
from weakref import WeakValueDictionary

from aiohttp import BodyPartReader, web

from dittohead.config.settings import Drop
from dittohead.folders import sidecar
from dittohead.folders.stations import Stations
from dittohead.model import units
from dittohead.model.errors import ItemError
from dittohead.model.records import RequestAnswer
from dittohead.model.roles import Role
from dittohead.model.states import Action
from dittohead.model.text import counted, rfc3339, visible
from dittohead.store import history
from dittohead.system import log
from dittohead.system.threads import in_thread
from dittohead.web.pages.page import PAGES, answer
from dittohead.web.server.access import check_csrf
from dittohead.web.server.app_state import SITE, AppState
from dittohead.web.server.identity import identity, needs
from dittohead.web.server.problems import Problem
from dittohead.web.uploads import names
from dittohead.web.uploads.incoming import BLOCK, write_chunks
from dittohead.web.uploads.receive import Incoming, Reception, checked_files, checked_path, fitting, listed

#: Bytes of a piece at most.
PIECE = 16 << 20

#: A list of a hundred thousand files with long names holds no more.
_MOST_LISTED = 64 << 20

#: Fields of a plain form that are not files: its name, its purposes, and what guards it.
_MOST_FIELDS = 100

#: The disk's room is looked at again after so many bytes whose number was not known before.
_LOOK_AFTER = 64 << 20

#: Uploads that were handed over and are remembered, for anyone who has not had the answer.
_MOST_OVER = 256

#: Characters of a name that are looked at.
_NAME_MOST = 1000

#: Digits of the greatest number of bytes that a file can have.
_DIGITS_MOST = 19

#: A browser writes these for quotation marks and line breaks, and the same for themselves: they cannot be
#: told apart. Source: HTML Living Standard, 4.10.21.8 "Multipart form data".
_AMBIGUOUS = re.compile("%22|%0A|%0D", re.IGNORECASE)

_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


class DropForm:
    """What the form's handlers share; of one event loop."""

    def __init__(self, reception: Reception) -> None:
        self.reception = reception
        self.beginning = asyncio.Lock()
        self._files: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._writing: dict[str, int] = {}  #: pieces on their way, by upload
        self._closing: set[str] = set()
        self.handing: set[asyncio.Task[None]] = set()  #: what goes on without its browser
        self.over: OrderedDict[str, str] = OrderedDict()  #: upload -> where its form leads

    @contextlib.asynccontextmanager
    async def writing(self, incoming: Incoming, path: str) -> AsyncIterator[None]:
        """Write one of an upload's files: nobody else does, and nobody hands the folder over, while inside.

        Raises: Problem: it is being handed over.
        """
        if incoming.id in self._closing:
            raise Problem(409, "this upload is just being handed over or given up")
        lock = self._files.get((incoming.id, path)) or asyncio.Lock()
        self._files[incoming.id, path] = lock
        self._writing[incoming.id] = self._writing.get(incoming.id, 0) + 1
        try:
            async with lock:
                yield
        finally:
            self._writing[incoming.id] -= 1
            if not self._writing[incoming.id]:
                del self._writing[incoming.id]

    @contextlib.contextmanager
    def closing(self, incoming: Incoming) -> Iterator[None]:
        """End an upload: nothing of it is written while inside.

        Raises: Problem: something is being written, or it is being ended already.
        """
        if incoming.id in self._writing or incoming.id in self._closing:
            raise Problem(409, "files of this upload are still coming", hint="Try again in a moment")
        self._closing.add(incoming.id)
        try:
            yield
        finally:
            self._closing.discard(incoming.id)


DOOR = web.AppKey("door", DropForm)


def install(app: web.Application) -> None:
    """Give an application the form."""
    stations: Stations = app[SITE].stations
    app[DOOR] = DropForm(Reception(stations.root / "inbox", stations.state / "uploads"))
    add = app.router
    add.add_get("/drop", form)
    add.add_post("/drop", plain)
    add.add_get("/drop/match", match)
    add.add_get("/drop/done", done)
    add.add_post("/drop/uploads", begin)
    add.add_get("/drop/uploads/{id}", received)
    add.add_put("/drop/uploads/{id}/file", piece)
    add.add_post("/drop/uploads/{id}/finish", finish)
    add.add_post("/drop/uploads/{id}/give-up", give_up)


def _bounds(site: AppState) -> Drop:
    settings = site.config().settings.http
    return settings.drop if settings is not None else Drop.model_validate({})


def _refusal(error: ItemError, status: int = 409) -> Problem:
    where = f"{error.where}: " if error.where else ""
    return Problem(status, f"{where}{error.what}", hint=error.hint)


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Run blocking work and say its refusals as answers. Raises: Problem."""
    try:
        return await in_thread(lambda stop: work())
    except ItemError as error:
        raise _refusal(error) from error
    except OSError as error:
        raise Problem(507, f"this could not be written: {error.strerror}") from error


# -- the form, and what it asks while one types -----------------------------------------------------


@needs(Role.OPERATOR)
async def form(request: web.Request) -> web.Response:
    """Show the form, with the uploads that were broken off."""
    return await _form(request)


async def _form(request: web.Request, wrong: Problem | None = None) -> web.Response:
    site, door = request.app[SITE], request.app[DOOR]

    def work() -> list[dict[str, Any]]:
        return [
            {
                "id": one.id,
                "name": one.name,
                "who": one.who,
                "files": len(one.files),
                "size": one.size,
                "there": sum(door.reception.received(one).values()),
            }
            for one in door.reception.all()
        ]

    bounds, typed = _bounds(site), request.query.get("name", "")[:_NAME_MOST]
    return await answer(
        request,
        "drop.html",
        typed=typed,
        told=await _told(request, typed) if typed else None,
        here="drop",
        open=await _in_thread(work),
        purposes=sorted({word for pipeline in site.config().pipelines for word in pipeline.purposes}),
        pipelines=site.config().pipelines,
        most_bytes=bounds.most_bytes,
        most_files=bounds.most_files,
        piece=PIECE // 2,
        wrong=wrong,
        status=wrong.status if wrong else 200,
    )


@needs(Role.OPERATOR)
async def match(request: web.Request) -> web.Response:
    """Tell which pipeline a name would go through, what stands in its way, and whether it was done before."""
    said = await _told(request, request.query.get("name", "")[:_NAME_MOST])
    if said["known"]:
        said["known"] = {**said["known"], "at": rfc3339(said["known"]["at"])}
    return web.json_response(said)


async def _told(request: web.Request, name: str) -> dict[str, Any]:
    site, config, reception = request.app[SITE], request.app[SITE].config(), request.app[DOOR].reception
    asked = name if is_text(name) and "\0" not in name else ""
    candidates = names.like(config, asked)
    before = await site.store.read_apart(names.known, asked, candidates)
    return await asyncio.to_thread(names.told, config, reception, name, before, candidates)


# -- in pieces, by a script -------------------------------------------------------------------------


async def _must_fit(request: web.Request, size: int) -> None:
    """Raises: Problem: the disk has no room for so much more."""
    site, door = request.app[SITE], request.app[DOOR]
    floor = site.config().settings.space.floor
    lacking = await _in_thread(lambda: door.reception.lacking(door.reception.all(), size, floor))
    if lacking > 0:
        raise Problem(507, f"there is not room for it on the disk: {units.size(lacking)} more are needed")


@needs(Role.OPERATOR, csrf_later=True)
async def begin(request: web.Request) -> web.Response:
    """Take a list of files, and make room for them: {"name", "purposes", "files": [{"path", "size"}]}."""
    check_csrf_of(request)
    site, door = request.app[SITE], request.app[DOOR]
    given = await _json(request)
    purposes = given.get("purposes") or []
    if not isinstance(purposes, list) or not all(
        isinstance(word, str) and is_text(word) for word in purposes
    ):
        raise Problem(422, "purposes are words")

    def work() -> Incoming:
        name = str(given.get("name", ""))
        fitting(site.config(), name, purposes)
        found = checked_files(listed(given.get("files")), _bounds(site))
        return _incoming(request, name, found, purposes)

    incoming = await _in_thread(work)
    async with door.beginning:  # two must not both count on the same room
        await _must_fit(request, incoming.size)
        incoming = await _in_thread(lambda: door.reception.begin(incoming))
    return web.json_response({"id": incoming.id, "piece": PIECE // 2}, status=201)


def _incoming(request: web.Request, name: str, found: dict[str, int], purposes: list[str]) -> Incoming:
    if purposes and sidecar.NAME in found:
        raise both_say()
    who = identity(request).name
    return Incoming(id=secrets.token_hex(16), name=name, who=who, ino=0, files=found, purposes=purposes)


def is_text(word: str) -> bool:
    """Tell whether a word can be written in UTF-8: JSON can name half a character."""
    return not any("\ud800" <= character <= "\udfff" for character in word)


def both_say() -> ItemError:
    """Return the refusal of a folder whose own side-car would be written over."""
    return ItemError(f"the folder says already what it is for, by its {sidecar.NAME}")


def check_csrf_of(request: web.Request) -> None:
    """Refuse what a script sends without the form's secret, unless it came by a token. Raises: Problem."""
    if identity(request).csrf:
        check_csrf(request, "")


async def _json(request: web.Request) -> dict[str, Any]:
    """Return a long JSON body. Raises: Problem."""
    body = bytearray()
    async for chunk in request.content.iter_chunked(BLOCK):
        body += chunk
        if len(body) > _MOST_LISTED:
            raise Problem(413, "the list of files is too long")
    try:
        found = await asyncio.to_thread(json.loads, bytes(body))
    except (ValueError, RecursionError):
        raise Problem(400, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise Problem(422, "the body must be a JSON object")
    return found


async def _upload(request: web.Request) -> Incoming:
    found: Incoming | None = await _in_thread(
        lambda: request.app[DOOR].reception.get(request.match_info["id"])
    )
    if found is None:
        raise Problem(404, "this upload is not under way any more")
    return found


@needs(Role.OPERATOR)
async def received(request: web.Request) -> web.Response:
    """Tell how many bytes are there of each file, to go on where it was broken off."""
    incoming = await _upload(request)
    there = await _in_thread(lambda: request.app[DOOR].reception.received(incoming))
    fields = {"name": incoming.name, "files": incoming.files, "there": there, "piece": PIECE // 2}
    return web.json_response(fields)


@needs(Role.OPERATOR, csrf_later=True)
async def piece(request: web.Request) -> web.Response:
    """Take a piece of a file: PUT ?path=PATH&at=BYTE, with Content-Digest where the browser can."""
    check_csrf_of(request)
    incoming, door = await _upload(request), request.app[DOOR]
    path, at = request.query.get("path", ""), request.query.get("at", "")
    size = incoming.files.get(path)
    if size is None or not at.isascii() or not at.isdecimal() or len(at) > _DIGITS_MOST:
        raise Problem(422, "path is not one of this upload's files, or at is not a number")
    most = min(PIECE, size - int(at))
    digest = _DIGEST.search(request.headers.get("Content-Digest", ""))
    async with door.writing(incoming, path):
        try:
            with door.reception.opened(incoming, path, int(at)) as fd:
                got, found = await write_chunks(request.content.iter_chunked(BLOCK), fd, most)
                if digest and base64.b64decode(digest[1]) != found:
                    raise Problem(422, "the piece is not what was sent", hint="Send it again")
        except ItemError as error:
            raise _refusal(error) from error
        except (TimeoutError, ConnectionError):  # the sender; the disk is well
            raise
        except OSError as error:
            raise Problem(507, f"{visible(path)}: this could not be written: {error.strerror}") from error
    return web.json_response({"at": int(at) + got})


@needs(Role.OPERATOR, csrf_later=True)
async def finish(request: web.Request) -> web.Response:
    """Hand the folder over, when all of it is there."""
    check_csrf_of(request)
    way = request.app[DOOR].over.get(request.match_info["id"])
    if way is None:  # else the answer was lost on its way, and it is asked again
        incoming = await _upload(request)
        await _finished(request, incoming)
        way = _way(incoming)
    return web.json_response({"go": way})


async def _finished(request: web.Request, incoming: Incoming) -> None:
    """Hand a folder over, to the end also where nobody waits for it any more."""
    handing = request.app[DOOR].handing
    task = asyncio.create_task(_hand_over(request.app, incoming), name="drop")
    handing.add(task)
    task.add_done_callback(handing.discard)
    await asyncio.shield(task)


async def _hand_over(app: web.Application, incoming: Incoming) -> None:
    site, door = app[SITE], app[DOOR]
    with door.closing(incoming):
        await _in_thread(lambda: door.reception.complete(incoming))
        count, size = len(incoming.files), incoming.size
        # Recorded before it is the daemon's: the job's first event says whose it is.
        facts = {"files": count, "bytes": size, "ino": incoming.ino}
        await site.queue.ask(Action.DROP, incoming.name, incoming.who, facts)
        await _in_thread(lambda: door.reception.hand_over(incoming))
    door.over[incoming.id] = _way(incoming)
    while len(door.over) > _MOST_OVER:
        door.over.popitem(last=False)
    log.get().info(log.HTTP_UPLOADED, name=incoming.name, who=incoming.who, files=count, bytes=size)


def _way(incoming: Incoming) -> str:
    return f"/drop/done?{urlencode({'name': incoming.name, 'ino': incoming.ino})}"


@needs(Role.OPERATOR)
async def give_up(request: web.Request) -> web.Response:
    """Remove an upload that was broken off."""
    incoming, door = await _upload(request), request.app[DOOR]
    with door.closing(incoming):
        await _in_thread(lambda: door.reception.give_up(incoming))
    said = request.app[PAGES].keep(RequestAnswer(ok=True, message=f"{incoming.name}: given up"))
    raise web.HTTPSeeOther(f"/drop?{urlencode({'said': said})}")


@needs(Role.OPERATOR)
async def done(request: web.Request) -> web.Response:
    """Lead to the job of a folder that was handed over, as soon as there is one."""
    name, ino, after = (request.query.get(key, "") for key in ("name", "ino", "after"))

    job = await request.app[SITE].store.read_apart(history.job_of_folder, name, ino, after)
    if job is not None:
        raise web.HTTPSeeOther(f"/jobs/{job}")
    held = request.app[SITE].live().get("held", {}).get(name, "")
    response = await answer(request, "dropped.html", here="drop", name=name, held=held)
    response.headers["Refresh"] = "2"
    return response


# -- all at once, without a script ------------------------------------------------------------------


@needs(Role.OPERATOR, csrf_later=True)
async def plain(request: web.Request) -> web.Response:
    """Take a form with its files. Its fields come first: what follows is written as it comes."""
    if not request.content_type.startswith("multipart/"):
        raise Problem(415, "the request must be a form with files")
    try:
        incoming = await _Plain(request).receive()
    except Problem as problem:
        if problem.status == 403:
            raise
        return await _form(request, problem)
    except ValueError as error:  # of aiohttp's reader
        return await _form(request, Problem(400, f"the form is incomplete: {error}"))
    raise web.HTTPSeeOther(_way(incoming))


class _Plain:
    """One form on its way in."""

    def __init__(self, request: web.Request) -> None:
        self.request, self.door = request, request.app[DOOR]
        self.fields: dict[str, list[str]] = {}
        self.sizes: dict[str, int] = {}
        self.incoming: Incoming | None = None
        self.texts = 0  #: fields that are not files
        self.unseen = 0  #: bytes since the disk's room was looked at

    async def receive(self) -> Incoming:
        """Receive all of it, and hand it over. Raises: Problem; then nothing of it stays."""
        try:
            async with contextlib.AsyncExitStack() as stack:  # until all is there, nobody else ends it
                async for part in await self.request.multipart():
                    if isinstance(part, BodyPartReader):
                        await self._part(part, stack)
            if self.incoming is None or not self.sizes:
                raise Problem(422, "there are no files", hint="Choose files, or a folder that holds some")
            whole = Incoming(
                id=self.incoming.id,
                name=self.incoming.name,
                who=self.incoming.who,
                ino=self.incoming.ino,
                files=self.sizes,
                purposes=self.incoming.purposes,
            )
            await _finished(self.request, whole)
        except BaseException:
            if self.incoming is not None:
                given_up = self.incoming
                await asyncio.shield(asyncio.to_thread(self.door.reception.give_up, given_up))
            raise
        return whole

    async def _part(self, part: BodyPartReader, stack: contextlib.AsyncExitStack) -> None:
        if part.filename is None:
            self.texts += 1
            if self.texts > _MOST_FIELDS:
                raise Problem(413, "the form has too many fields")
            text = bytearray()
            while chunk := await part.read_chunk():
                text += chunk
                if len(text) > 4096:
                    raise Problem(413, "a field of the form is too long")
            self.fields.setdefault(part.name or "", []).append(text.decode("utf-8", "replace"))
        elif part.filename:
            if self.incoming is None:
                self.incoming = await self._begin(part.filename)
                await stack.enter_async_context(self.door.writing(self.incoming, ""))
            await self._file(self.incoming, part)

    async def _begin(self, first: str) -> Incoming:
        """Check the form's fields, and make the folder."""
        given = {key: values[-1] for key, values in self.fields.items()}
        if identity(self.request).csrf:
            check_csrf(self.request, given.get("csrf", "") or "none")
        site = self.request.app[SITE]
        purposes = [word for word in self.fields.get("purposes", []) if word]
        name = given.get("name", "").strip() or first.partition("/")[0] * ("/" in first)

        def work() -> Incoming:
            fitting(site.config(), name, purposes)
            return _incoming(self.request, name, {}, purposes)

        incoming: Incoming = await _in_thread(work)
        await _must_fit(self.request, self.request.content_length or 0)
        begun: Incoming = await _in_thread(lambda: self.door.reception.begin(incoming))
        return begun

    async def _file(self, incoming: Incoming, part: BodyPartReader) -> None:
        path = part.filename or ""
        if part.name == "tree" and "/" in path:
            path = path.partition("/")[2]  # the folder's own name
        if _AMBIGUOUS.search(path):
            raise Problem(
                422, f"{visible(path)}: this name cannot be sent without scripts", hint="Allow scripts here"
            )
        try:
            if incoming.purposes and path == sidecar.NAME:
                raise both_say()
            if checked_path(path) in self.sizes:
                raise ItemError("two files have this name", where=visible(path))
            bounds = _bounds(self.request.app[SITE])
            if len(self.sizes) >= bounds.most_files:
                raise ItemError(f"there are more than {counted(bounds.most_files, 'file')}")
            left = bounds.most_bytes - sum(self.sizes.values())
            with self.door.reception.opened(incoming, path, 0) as fd:
                self.sizes[path], _ = await write_chunks(self._chunks(part), fd, left)
        except ItemError as error:
            raise _refusal(error, 422) from error
        except (TimeoutError, ConnectionError):  # the sender; the disk is well
            raise
        except OSError as error:
            raise Problem(507, f"{visible(path)}: this could not be written: {error.strerror}") from error

    async def _chunks(self, part: BodyPartReader) -> AsyncIterator[bytes]:
        while chunk := await part.read_chunk(1 << 18):
            self.unseen += len(chunk)
            if self.unseen > _LOOK_AFTER:
                self.unseen = 0
                await _must_fit(self.request, 0)
            yield chunk
