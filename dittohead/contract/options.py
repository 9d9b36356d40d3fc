"""Kinds of values that options share: durations, sizes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from dittohead.model.units import parse_duration, parse_rate, parse_size

#: Seconds, written as "90s", "10m", "2h", "7d" or a number.
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0),
    WithJsonSchema({"type": ["string", "number"], "examples": ["90s", "10m", "2h", "7d"]}),
]

#: Bytes a second, written as "50MB/s" or a number.
Rate = Annotated[
    int,
    BeforeValidator(parse_rate),
    Field(ge=0),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["50MB/s"]}),
]

#: Bytes, written as "512MiB", "10GB" or a number.
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=0),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["512MiB", "10GB"]}),
]
