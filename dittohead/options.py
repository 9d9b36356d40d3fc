"""Kinds of values that options share: durations, sizes."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?\s*")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGTP]i?)?B?\s*", re.IGNORECASE)
_POWERS = "KMGTP"


def parse_duration(value: Any) -> float:
    """Return seconds for "90s", "10m", "2h", "7d" or a plain number of seconds.

    Raises: ValueError: with the forms that would do.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError('a duration such as "90s", "10m", "2h" or "7d" is wanted')
    if isinstance(value, (int, float)):
        return float(value)
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f'{value!r} is no duration; write "90s", "10m", "2h" or "7d"')
    return float(match[1]) * _SECONDS[match[2] or "s"]


def parse_size(value: Any) -> int:
    """Return bytes for "512MiB", "10GB", "2T" (decimal without the i) or a plain number.

    Raises: ValueError: with the forms that would do.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError('a size such as "512MiB" or "10GB" is wanted')
    if isinstance(value, (int, float)):
        return int(value)
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError(f'{value!r} is no size; write "512MiB", "10GB" or a number of bytes')
    unit = (match[2] or "").upper()
    base = 1024 if unit.endswith("I") else 1000
    power = _POWERS.index(unit[0]) + 1 if unit else 0
    return int(float(match[1]) * base**power)


#: Seconds, written as "90s", "10m", "2h", "7d" or a number.
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0),
    WithJsonSchema({"type": ["string", "number"], "examples": ["90s", "10m", "2h", "7d"]}),
]

#: Bytes, written as "512MiB", "10GB" or a number.
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=0),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["512MiB", "10GB"]}),
]
