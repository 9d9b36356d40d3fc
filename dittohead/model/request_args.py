"""What people give with a request, by the names that rows of the store and the API have for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestArgs:
    """The arguments of any action; those that it does not have are as if they were not given.

    They come from people, and from rows that an earlier version wrote: what is of another kind than it
    should be is read as text, or as not given.
    """

    reason: str = ""  #: why, for people
    name: str = ""  #: of rename: the new one
    step: str = ""  #: of rerun ("from"): the first step that is run again; "" for all, as a new job
    offer: str = ""  #: of replace ("with"): the file that waits to be put in the place of another
    run: bool = True  #: of replace: run the folder again afterwards
    what: str = ""  #: of pause and resume: the part of a source; of undone: what was taken back, in words
    good: bool = False  #: of undone: everything was taken back
    prefix: str = ""  #: of sync and reset: only items whose keys begin so
    sync: bool = False  #: of reset: look for them at once
    repair: bool = False  #: of a check of a board: correct what is wrong
    command: str = ""  #: of what a source is told: one of its commands
    args: Mapping[str, Any] = field(default_factory=dict)  #: the command's own
    keys: tuple[str, ...] = ()  #: entries of a board
    files: int = 0  #: of a drop: how many were uploaded
    size: int = 0  #: of a drop ("bytes"): of all of them
    ino: int | None = None  #: of a drop: the folder's inode number
    token: str = ""  #: what tells a board token from every other
    asked: tuple[str, ...] = ()  #: digests of board tokens all of whose requests are made


def read_args(given: Any) -> RequestArgs:
    """Return the arguments of a request from its row; none where the row is damaged."""
    found = given if isinstance(given, Mapping) else {}
    args, ino = found.get("args"), found.get("ino")
    return RequestArgs(
        reason=_text(found.get("reason")),
        name=_text(found.get("name")),
        step=_text(found.get("from")),
        offer=_text(found.get("with")),
        run=bool(found.get("run", True)),
        what=_text(found.get("what")),
        good=bool(found.get("good")),
        prefix=_text(found.get("prefix")),
        sync=bool(found.get("sync")),
        repair=bool(found.get("repair")),
        command=_text(found.get("command")),
        args=args if isinstance(args, Mapping) else {},
        keys=_texts(found.get("keys")),
        files=_number(found.get("files")),
        size=_number(found.get("bytes")),
        ino=ino if isinstance(ino, int) else None,
        token=_text(found.get("token")),
        asked=_texts(found.get("asked")),
    )


def _text(found: Any) -> str:
    return str(found) if found else ""


def _texts(found: Any) -> tuple[str, ...]:
    return tuple(str(one) for one in found) if isinstance(found, list | tuple) else ()


def _number(found: Any) -> int:
    return found if isinstance(found, int) else 0
