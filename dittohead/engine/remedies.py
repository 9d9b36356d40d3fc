"""What to do about a folder that has failed, with its own name and place in the commands."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dittohead.folders.stations import Stations
from dittohead.model.errors import ClosedError, ItemError
from dittohead.model.records import Job, collection_of
from dittohead.model.states import Station
from dittohead.model.text import display, own_group, shell_word, visible

#: How steps say that what was corrected is to be done again.
_AGAIN = re.compile(r"move (the folder|it) to the inbox again")


def hint(error: ItemError, job: Job, stations: Stations) -> str:
    """Return the hint of an error, made for the folder of the job that fails: what helps most comes first.

    Args:
        error: what the worker raised.
        job: the job that fails of it.
        stations: where its folder lies; only read.
    """
    text = _hint(error, job, stations)
    if not job.batch:
        return text
    # A folder of a collection is none by itself in the inbox: it would lose the name of the collection.
    collection = f"failed/{visible(display(collection_of(job.folder)))}"
    return _AGAIN.sub(lambda _: f"move {collection} to the inbox again", text)


def _hint(error: ItemError, job: Job, stations: Stations) -> str:
    name = shell_word(os.fsencode(job.name))
    if isinstance(error, ClosedError):
        return _opened(error.where, job, stations, name)
    if error.kind != ItemError.kind or error.good or not error.files:
        return error.hint
    file, several = shell_word(os.fsencode(error.files[0])), len(error.files) > 1
    each = "each of them, such as the first" if several else "it"
    replace = f"Put a good file in the place of {each}: `dittohead replace {name} {file} --with NEW`"
    return f"{replace} (on the page: Replace a file)" + (f". Or: {error.hint}" if error.hint else "")


def _opened(path: str, job: Job, stations: Stations, name: str) -> str:
    """Return how the daemon comes to read something in a folder that is on its way to failed/."""
    folder = stations.folder(Station.FAILED, job.folder)
    if os.path.lexists(folder):  # it will get another name there
        where = f"the folder that `dittohead show {name}` names"
        return f"Let the daemon's group, {own_group()}, read {where}, and then: `dittohead retry {name}`"
    return f"Type: `{_readable(folder, path)}`, and then: `dittohead retry {name}`"


def _readable(folder: Path, path: str) -> str:
    """Return the command that lets the daemon's group read a part of a folder."""
    place = shell_word(os.path.normpath(os.path.join(os.fsencode(folder), os.fsencode(path))))
    return f"sudo chgrp -R {own_group()} {place} && sudo chmod -R ug+rX {place}"
