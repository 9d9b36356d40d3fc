"""One operation of the API: its address, whom it serves, what it takes and answers; made into a handler."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, get_origin

from aiohttp import web
from multidict import MultiMapping
from pydantic import BaseModel, ValidationError

from dittohead.model.roles import Role
from dittohead.web.server.identity import Handler, needs
from dittohead.web.server.problems import Problem

#: A body is read for this long at most. Seconds.
_BODY_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What one method of one address does."""

    method: str
    path: str
    name: str  #: operationId
    summary: str
    does: Callable[[web.Request, Any], Awaitable[web.StreamResponse]]
    role: Role = Role.READER
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    takes_bytes: bool = False  #: its body is a file's bytes, which the handler reads as they come
    answer: type[BaseModel] | str = ""  #: the model of its JSON, or the media type of something else
    answers: int = 200  #: the status of what is good
    refusals: tuple[int, ...] = field(default=())  #: besides those that every operation may answer
    tag: str = "jobs"

    def handler(self) -> Handler:
        """Return the handler: it reads what is given, and refuses what does not fit."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if self.body is not None:
                return await self.does(request, await read_body(request, self.body))
            if request.query and self.query is None:
                raise Problem(400, "no query is known here")
            given = None if self.query is None else read_query(request.query, self.query)
            return await self.does(request, given)

        return needs(self.role)(handle)


def read_query(query: MultiMapping[str], model: type[BaseModel]) -> BaseModel:
    """Return a query as the model. Raises: Problem 400."""
    fields: dict[str, Any] = {}
    for key in query:
        values = query.getall(key)
        known = model.model_fields.get(key)
        many = known is not None and get_origin(known.annotation) is list
        if len(values) > 1 and not many:
            raise Problem(400, f'"{key}" is given more than once')
        fields[key] = values if many else values[0]
    return _validated(fields, model, 400)


async def read_body(request: web.Request, model: type[BaseModel]) -> BaseModel:
    """Return a JSON body as the model; no body at all is an empty object.

    Raises: Problem: 400 no JSON, 408 too slow, 413 too large, 415 not said to be JSON, 422 it does not fit.
    """
    try:
        async with asyncio.timeout(_BODY_S):
            raw = await request.read()
    except TimeoutError:
        raise Problem(408, "the request's body did not come to its end") from None
    if not raw:
        return _validated({}, model, 422)
    # Only this type: a form of another site can send others without asking us first.
    if request.content_type != "application/json":
        raise Problem(415, "a body of the type application/json is required")
    try:
        given = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Problem(400, "the body is not JSON in UTF-8") from error
    if not isinstance(given, dict):
        raise Problem(422, "the body is not a JSON object")
    return _validated(given, model, 422, strict=True)


def _validated(
    fields: dict[str, Any], model: type[BaseModel], status: int, *, strict: bool = False
) -> BaseModel:
    # What is said in JSON has its type: 0 is not false there. In an address all is text.
    try:
        return model.model_validate(fields, strict=strict)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        said = "; ".join(f'"{".".join(map(str, e["loc"]))}": {_words(e["msg"])}' for e in found[:5])
        raise Problem(status, said, hint=f"Known are {', '.join(_names(model)) or 'none'}") from error


def _words(message: str) -> str:
    return message[:1].lower() + message[1:]


def _names(model: type[BaseModel]) -> list[str]:
    return [known.alias or name for name, known in model.model_fields.items()]
