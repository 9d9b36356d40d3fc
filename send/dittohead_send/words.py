"""How numbers and names are written for people."""

from __future__ import annotations

import os

#: Binary units, each 1,024 of the one before. Source: IEC 80000-13.
_SIZES = ("", "KiB", "MiB", "GiB", "TiB", "PiB")


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, as "1 file" or "1,200 files"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """Return bytes in binary units: "512 bytes", "1.5 KiB", "117 MiB"."""
    if count < 1024:
        return counted(int(count), "byte")
    power = min((int(count).bit_length() - 1) // 10, len(_SIZES) - 1)
    value = count / 1024**power
    return f"{value:,.0f} {_SIZES[power]}" if value >= 100 else f"{value:,.1f} {_SIZES[power]}"


def duration(seconds: float) -> str:
    """Return a duration in at most two units: "4 s", "3 min 20 s", "2 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def visible(text: str) -> str:
    """Return text without control characters and lone surrogates, each shown as an escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shown(path: bytes) -> str:
    """Return a path for people."""
    return visible(path.decode("utf-8", "surrogateescape"))


def some(names: list[str], most: int = 5) -> str:
    """Return the first names of a list, and how many more there are."""
    more = f", and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def plain(error: OSError) -> str:
    """Return what the system says of an error, without the path."""
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error) or type(error).__name__)
