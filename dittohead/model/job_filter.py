"""What jobs are searched for by: commands, the page and the API ask with it, and the store answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dittohead.model.states import JobState

#: Hexadecimal digits of a digest that are enough to look it up; fewer fit too many.
LEAST = 8

_DIGITS = re.compile(rf"[0-9a-fA-F]{{{LEAST},64}}")


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """What is searched for; everything given must hold."""

    text: str = ""  #: part of a name, the beginning of an id, or of a file's SHA-256
    states: Sequence[JobState] = ()
    pipeline: str = ""
    name: str = ""  #: the whole name
    part: str = ""  #: part of the name
    holds: str = ""  #: the SHA-256 of a file, or at least eight digits of its beginning
    uid: int | None = None
    since: datetime | None = None  #: claimed at this moment or later
    until: datetime | None = None  #: claimed before this moment
    open: bool = False  #: only failures that wait for somebody
    reason: str = ""  #: part of the reason
    batch: str = ""  #: id of a batch, or the name of a collection: its latest


def is_digest(text: str) -> bool:
    """Tell whether a text can be a SHA-256, or the beginning of one."""
    return _DIGITS.fullmatch(text) is not None
