"""What settings and options say of themselves: tables for the reference and the man pages."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dittohead.model.units import parse_duration, parse_size

#: Units, the largest first: a default is written in the largest that gives a whole number.
_DURATIONS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1), ("ms", 0.001))
_SIZES = ("", "KiB", "MiB", "GiB", "TiB", "PiB")

#: What the command line's exit statuses mean, by their names in dittohead/cli/base.py.
STATUSES = {
    "OK": "done",
    "USAGE": "wrong usage: an unknown command or option",
    "DATA": "a job failed, or a check did not hold",
    "NO_INPUT": "there is no such job, folder or file",
    "UNAVAILABLE": "what was asked for cannot be done now",
    "OUTPUT_LOST": "standard output cannot be written; a reader that stops early (`| head`) is not an error",
    "TEMPORARY": "another daemon holds the root, or (`dittohead plan`) the folder would wait for a place",
    "NO_PERMISSION": "not permitted: run it as the daemon's user",
    "CONFIG": "the configuration is wrong",
}


@dataclass(frozen=True)
class Key:
    """One key of a mapping in YAML."""

    name: str
    default: str  #: as it would be written; "" for none, "required", "see below"
    meaning: str  #: Markdown


@dataclass(frozen=True)
class Section:
    """One mapping: the keys of a model, and where it stands."""

    title: str  #: such as "notify: smtp"
    about: str
    keys: list[Key]


def _as_written(field: FieldInfo, given: Any) -> str:
    """Return a default as people write it: `24h` and `1TiB`, not 86400.0 and 1099511627776."""
    read_by = {part.func for part in field.metadata if isinstance(part, BeforeValidator)}
    if parse_duration in read_by and given:
        unit, seconds = next((unit, s) for unit, s in _DURATIONS if given % s == 0 or s < 1)
        return f"{given / seconds:g}{unit}"
    if parse_size in read_by and given:
        power = next(power for power in range(5, -1, -1) if given % 1024**power == 0)
        return f"{given // 1024**power}{_SIZES[power]}"
    return str(given)


def keys(model: type[BaseModel]) -> list[Key]:
    """Return a model's keys, in the order they are written in the code."""
    found = []
    for name, field in model.model_fields.items():
        given = field.get_default(call_default_factory=True)
        if given is PydanticUndefined:
            default = "required"
        elif isinstance(given, BaseModel):
            default = "see below"
        elif isinstance(given, list):
            default = "[" + ", ".join(map(str, given)) + "]"
        elif given is None or given == "":
            default = ""
        else:
            default = str(given).lower() if isinstance(given, bool) else _as_written(field, given)
        found.append(Key(field.alias or name, default, field.description or ""))
    return found


def below(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[Section]:
    """Yield the mappings that stand in a model's keys, and those in theirs; each once."""
    for name, field in model.model_fields.items():
        for inner, what in _models(field.annotation):
            here = (*path, field.alias or name)
            about = (inner.__doc__ or "").strip().split("\n\n")[0]
            title = ": ".join((*here, what) if what else here)
            yield Section(title, " ".join(about.split()), keys(inner))
            yield from below(inner, here)


def _models(annotation: Any, what: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """Yield the models in an annotation, each with what it is there: "", "one entry" or "NAME"."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, what
        return
    origin = typing.get_origin(annotation)
    inner = {list: "one entry", tuple: "one entry", dict: "NAME"}.get(origin, what)  # type: ignore[arg-type]
    for argument in typing.get_args(annotation):
        yield from _models(argument, inner)
