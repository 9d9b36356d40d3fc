"""What a step's programs have printed, as text that can be shown: a part of it, or its last lines."""

from __future__ import annotations

import os
from pathlib import Path

from dittohead.model.text import visible

#: Bytes of a log's end that its last lines are taken from.
_LAST = 4096


def read(path: Path, start: int, most: int, *, whole_lines: bool) -> tuple[str, int]:
    """Return (text, where it ends) of a log from a byte on; nothing when it is not there. Blocking.

    Args:
        start: a byte; negative: so many before the end, from the first whole line on.
        whole_lines: leave a last line that is not ended for the next time.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed below
    except FileNotFoundError:
        return "", max(start, 0)
    with file:
        size = os.fstat(file.fileno()).st_size
        cut = start < 0 and size + start > 0
        file.seek(size + start if cut else max(start, 0))
        at = file.tell()
        data = file.read(most)
    if cut:
        lead = data.find(b"\n") + 1
        data, at = data[lead:], at + lead
    if whole_lines and data.rfind(b"\n") >= 0:
        data = data[: data.rfind(b"\n") + 1]
    elif whole_lines and len(data) < most:
        data = b""
    shown = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return visible(shown, but="\n\t"), at + len(data)


def last_lines(path: Path, most: int) -> str:
    """Return the last lines of a log, "" where there are none. Blocking."""
    text, _ = read(path, -_LAST, _LAST, whole_lines=False)
    return "\n".join(text.rstrip().split("\n")[-most:])
