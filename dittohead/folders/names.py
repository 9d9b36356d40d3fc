"""What a folder can be called in the inbox."""

from __future__ import annotations

import re

from dittohead.folders.stations import NAME_MAX
from dittohead.model.errors import ItemError
from dittohead.model.text import visible

#: Bytes of a name at most: a dot stands in front of it while it is uploaded.
MOST = NAME_MAX - 1

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def checked(name: str) -> str:
    """Return a folder's name that can come into the inbox. Raises: ItemError."""
    if not name:
        raise ItemError("a name is required", hint="Give the folder one")
    if why := _wrong(name):
        raise ItemError(f'"{visible(name)}" is not a name for a folder: it {why}', hint="Choose another name")
    return name


def _wrong(name: str) -> str:
    """Return what a name does that none may; "" for nothing."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "is not UTF-8 text"
    if name.startswith("."):
        return "begins with a dot"
    if "/" in name or "\\" in name:
        return "holds a slash"
    if _CONTROL.search(name):
        return "holds a control character"
    return f"has more than {MOST} bytes" if length > MOST else ""
