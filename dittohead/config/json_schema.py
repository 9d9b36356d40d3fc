"""The JSON Schema of config.yaml, made from the settings, every worker's and every source's options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from dittohead.config.registry import Registry, Sources, sources
from dittohead.config.settings import Settings


def json_schema(workers: Registry) -> dict[str, Any]:
    """Return the schema, JSON Schema 2020-12; a step is one of the workers there are."""
    schema = Settings.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    choices = []
    for name in workers.names():
        worker = workers.get(name)
        options = _options(worker.Options, name, definitions)
        options["properties"] = {
            **_COMMON,
            **options.get("properties", {}),
        }
        definitions[f"{name}-step"] = options
        choices.append(
            {
                "type": "object",
                "required": [name],
                "properties": {
                    name: {"anyOf": [{"$ref": f"#/$defs/{name}-step"}, {"type": "null"}]},
                    **_COMMON,
                },
                "additionalProperties": False,
            }
        )
    pipeline = definitions["PipelineSettings"]["properties"]
    pipeline["steps"]["items"] = {"oneOf": choices}
    schema["properties"]["sources"]["additionalProperties"] = {
        "oneOf": list(_sources(sources(), definitions))
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "dittohead", **schema}


#: What a step, or a purpose, may be called.
_WORD = "^[A-Za-z][A-Za-z0-9_-]{0,63}$"

#: The engine's own keys of a step.
_COMMON: dict[str, Any] = {
    "name": {"type": "string", "pattern": _WORD, "description": "Tells two steps of a kind apart."},
    "from": {"type": "string", "description": "The earlier step whose output is taken."},
    "after": {
        "type": ["string", "array"],
        "items": {"type": "string"},
        "description": "The earlier steps that must be done before, beside those it takes from; all of "
        "them when left out.",
    },
    "for": {
        "type": "string",
        "pattern": _WORD,
        "description": "What it is for; folders can ask for some purposes only.",
    },
}


def _options(options: type[BaseModel], name: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a kind's options; what it defines goes under names that no other kind has."""
    schema = options.model_json_schema(ref_template=f"#/$defs/{name}-{{model}}")
    definitions.update({f"{name}-{model}": part for model, part in schema.pop("$defs", {}).items()})
    return schema


def _sources(known: Sources, definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in known.names():
        options = _options(known.get(name).Options, name, definitions)
        definitions[f"{name}-source"] = options
        yield {
            "type": "object",
            "required": [name],
            "properties": {name: {"$ref": f"#/$defs/{name}-source"}},
            "additionalProperties": False,
        }
