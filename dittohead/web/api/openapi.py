"""openapi.json, made from the operations and the shapes they name.

Source: OpenAPI Specification 3.1.1; its schemas are JSON Schema 2020-12, as pydantic writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from dittohead import __version__
from dittohead.model.roles import Role
from dittohead.web.api import shapes
from dittohead.web.api.operations import Operation
from dittohead.web.server.problems import CONTENT_TYPE

_REF = "#/components/schemas/{model}"
_Mode = Literal["validation", "serialization"]

_SAID = {
    200: "Done.",
    201: "Taken; it waits.",
    202: "Taken, and not answered yet; it will be carried out.",
    206: "A part, as Range asked for.",
    304: "Not changed.",
    400: "The request cannot be read.",
    401: "A token is required.",
    403: "Not allowed.",
    404: "There is no such thing.",
    408: "The request did not come to its end.",
    409: "It cannot be done now, and nothing was changed.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    416: "There is no such part.",
    422: "The body does not fit.",
    507: "There is no room for it on the disk.",
    503: "The store does not answer, or the inbox is not watched.",
}
_PARAMETERS = {
    "job": "An id, the beginning of one (at least six characters), or a name: its latest job.",
    "step": "A step's name.",
    "source": "A source's name.",
    "entry": "What the remote system calls it.",
    "batch": "A batch's id, or a collection's name: its latest batch.",
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document."""
    refs, definitions = models_json_schema(list(_models(operations)), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dittohead",
            "version": __version__,
            "description": "What runs, what waits, what happened to every folder; and what to do about it.",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in dict.fromkeys(operation.tag for operation in operations)],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _models(operations: Iterable[Operation]) -> Iterable[tuple[type[BaseModel], _Mode]]:
    yield shapes.Problem, "serialization"
    for operation in operations:
        if operation.body is not None:
            yield operation.body, "validation"
        if not isinstance(operation.answer, str):
            yield operation.answer, "serialization"


def _operation(operation: Operation, refs: dict[Any, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": {str(status): _response(operation, status, refs) for status in _statuses(operation)},
    }
    parameters = [*_in_path(operation.path), *_in_query(operation.query)]
    if parameters:
        made["parameters"] = parameters
    if operation.body is not None:
        schema = refs[(operation.body, "validation")]
        required = any(known.is_required() for known in operation.body.model_fields.values())
        made["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema}}}
    if operation.takes_bytes:
        made["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    if operation.role is Role.NOBODY:
        made["security"] = []
    elif operation.role is Role.OPERATOR:
        made["description"] = "For operators."
    return made


def _statuses(operation: Operation) -> list[int]:
    common = {operation.answers, 400, 503} | ({401, 403} if operation.role is not Role.NOBODY else set())
    posted = {202, 408, 409, 413, 415, 422} if operation.body is not None else set()
    named = {404} if "{" in operation.path else set()
    return sorted(common | posted | named | set(operation.refusals))


def _response(operation: Operation, status: int, refs: dict[Any, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"description": _SAID[status]}
    if status == 304:
        return made
    health = status == 503 and operation.role is Role.NOBODY
    if status < 300 or health:
        if isinstance(operation.answer, str):
            return {**made, "content": {operation.answer: {}}}
        schema = refs[(operation.answer, "serialization")]
        return {**made, "content": {"application/json": {"schema": schema}}}
    schema = refs[(shapes.Problem, "serialization")]
    return {**made, "content": {CONTENT_TYPE: {"schema": schema}}}


def _in_path(path: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PARAMETERS[name],
            "schema": {"type": "string"},
        }
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _in_query(model: type[BaseModel] | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = model.model_json_schema(ref_template=_REF)
    definitions = schema.get("$defs", {})
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": fields.pop("description", ""),
            "schema": _plain(fields, definitions),
        }
        for name, fields in schema["properties"].items()
    ]


def _plain(fields: Any, definitions: dict[str, Any]) -> Any:
    """Return a schema with what it refers to in its place; in a query nothing is null."""
    if isinstance(fields, list):
        return [_plain(item, definitions) for item in fields]
    if not isinstance(fields, dict):
        return fields
    if "$ref" in fields:
        return _plain(definitions[fields["$ref"].rsplit("/", 1)[-1]], definitions)
    kept = {key: value for key, value in fields.items() if not (key == "default" and value is None)}
    if "anyOf" in kept:
        (only,) = (one for one in kept.pop("anyOf") if one != {"type": "null"})
        kept |= only
    return {key: _plain(value, definitions) for key, value in kept.items()}
