"""How people read and write sizes, durations and rates: one form everywhere (page, command line, notices).

Programs get exact numbers instead: bytes and seconds, in JSON.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any

from dittohead.model.text import counted

#: Binary units, each 1,024 of the one before. Source: IEC 80000-13.
_SIZES = ("", "KiB", "MiB", "GiB", "TiB", "PiB")

#: What people write.
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)?\s*")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGTP]i?)?B?\s*", re.IGNORECASE)
_POWERS = "KMGTP"


def size(count: float) -> str:
    """Return bytes in binary units: "512 bytes", "1.5 KiB", "117 MiB"."""
    if count < 1024:
        return counted(int(count), "byte")
    power = min((int(count).bit_length() - 1) // 10, len(_SIZES) - 1)
    value = count / 1024**power
    return f"{value:,.0f} {_SIZES[power]}" if value >= 100 else f"{value:,.1f} {_SIZES[power]}"


def duration(seconds: float) -> str:
    """Return a duration in at most two units: "210 ms", "4.2 s", "3 min 20 s", "2 d 4 h"."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def clock(at: float, now: float) -> str:
    """Return a moment in local time, to the second: "20:41:05", with its date on another day."""
    moment, today = (datetime.fromtimestamp(math.ceil(of)).astimezone() for of in (at, now))
    return f"{moment:%H:%M:%S}" if moment.date() == today.date() else f"{moment:%Y-%m-%d %H:%M:%S}"


def age(seconds: float) -> str:
    """Return how long ago something was, in one unit: "now", "42 s", "3 min", "5 h", "12 d"."""
    if seconds < 1:
        return "now"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def amount(done: float, unit: str) -> str:
    """Return how much of something: bytes in their units, anything else counted."""
    return size(done) if unit == "bytes" else f"{done:,.0f} {unit}"


def rate(per_second: float, unit: str) -> str:
    """Return how fast something goes, such as "3.2 MiB/s" or "4.0 files/s"."""
    return f"{size(per_second) if unit == 'bytes' else f'{per_second:,.1f} {unit}'}/s"


def parse_duration(value: Any) -> float:
    """Return seconds for "90s", "10m", "2h", "7d" or a plain number of seconds.

    Raises: ValueError: with the forms that would do.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError('a duration such as "90s", "10m", "2h" or "7d" is required')
    if isinstance(value, (int, float)):
        return float(value)
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f'{value!r} is not a duration; write "90s", "10m", "2h" or "7d"')
    return float(match[1]) * _SECONDS[match[2] or "s"]


def parse_rate(value: Any) -> int:
    """Return bytes a second for "50MB/s", "1MiB/s" or, as `parse_size` does, without the "/s".

    Raises: ValueError: with the forms that would do.
    """
    if isinstance(value, str):
        value = value.removesuffix("/s").rstrip()
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError('a rate such as "50MB/s" or a number of bytes a second is required') from error


def parse_size(value: Any) -> int:
    """Return bytes for "512MiB", "10GB", "2T" (decimal without the i) or a plain number.

    Raises: ValueError: with the forms that would do.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError('a size such as "512MiB" or "10GB" is required')
    if isinstance(value, (int, float)):
        return int(value)
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError(f'{value!r} is not a size; write "512MiB", "10GB" or a number of bytes')
    unit = (match[2] or "").upper()
    base = 1024 if unit.endswith("I") else 1000
    power = _POWERS.index(unit[0]) + 1 if unit else 0
    return int(float(match[1]) * base**power)
