"""The files of one job, a page at a time: its folder's own and those that steps made, and where each lies.

They are read from the lists in work/<job id>/ while those are there, otherwise from the receipt. A cursor is
a byte offset in such a list: the last page of a hundred thousand files costs what the first does.
"""

from __future__ import annotations

import contextlib
import functools
import json
import mmap
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dittohead.folders import receipt
from dittohead.folders.job_files import JobFiles
from dittohead.folders.stations import Stations
from dittohead.model import paths
from dittohead.model.records import Job, StepRow
from dittohead.model.shown import ShownFile
from dittohead.model.states import StepState

#: A path as it stands in a line: quotation marks within other values are escaped, and cannot look like it.
_PATH = re.compile(rb'"path": "((?:[^"\\\n]|\\.)*)"')

_CURSOR = re.compile(r"(work|receipt):([A-Za-z0-9_-]*):([0-9]{1,15})")

#: A list of places of no more bytes is gone through once, and where each path stands kept in memory.
_INDEXED = 64 << 20

#: Where the parts of a receipt begin. No line break stands in a JSON string.
_MANIFEST = b'\n "manifest": {"algorithm": "sha256", "files": ['
_OUTPUTS, _LOCATIONS, _EVENTS = b',\n "outputs": [', b',\n "locations": [', b',\n "events": '

_DECODER = json.JSONDecoder()


@dataclass(frozen=True, kw_only=True)
class FileCopy:
    """Where a copy of a file lies."""

    step: str
    uri: str
    verified_by: str


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """One file of a job."""

    path: bytes  #: within the folder, or within what the step made
    size: int
    sha256: str
    step: str  #: that made it; "" for the folder's own
    source: bytes  #: of what a step made, the file it was made from
    places: list[FileCopy] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class FilePage:
    """Some of the files, in their order."""

    files: Sequence[ListedFile]
    following: str | None  #: the cursor of the next page


@dataclass(frozen=True)
class _Part:
    """A list of files: of the folder, of one step, or of all steps in a receipt."""

    name: str
    path: Path
    start: int


@dataclass(frozen=True)
class _Lists:
    """All lists of a job."""

    kind: str
    parts: Sequence[_Part]
    places: Sequence[tuple[str, Path, int, int]]  #: (step, file, from, to) of lists of locations


def page(stations: Stations, job: Job, steps: Sequence[StepRow], after: str, limit: int) -> FilePage:
    """Return the job's files behind a cursor, in the order of its lists. Blocking.

    Args:
        job: the job; its own lists are read while they are there, otherwise its receipt.
        steps: the job's steps, as the store has them.
        after: a cursor, `following` of the page before; "" for the first page.
        limit: how many files at most.

    Raises: ValueError: this is not a cursor of the job's lists as they are now.
    """
    lists = _lists(stations, job, steps)
    found: list[ListedFile] = []
    following = None
    for part, start in _from(lists, after):
        for file, end in _read(part, start):
            if len(found) == limit:
                following = f"{lists.kind}:{part.name}:{start}"
                break
            found.append(file)
            start = end
        if following:
            break
    sources = {step.name: step.source for step in job.definition.steps}
    _add_places(found, lists, sources)
    return FilePage(files=found, following=following)


def _from(lists: _Lists, after: str) -> Iterator[tuple[_Part, int]]:
    """Yield the lists that are still to be read, each with where. Raises: ValueError."""
    names = [part.name for part in lists.parts]
    given = _CURSOR.fullmatch(after)
    if after and (given is None or given[1] != lists.kind or given[2] not in names):
        raise ValueError("this cursor is of another list; begin with the first page")
    first = names.index(given[2]) if given else 0
    for part in lists.parts[first:]:
        yield part, int(given[3]) if given and part is lists.parts[first] else part.start


def _lists(stations: Stations, job: Job, steps: Sequence[StepRow]) -> _Lists:
    files = JobFiles(stations, job)
    if not files.manifest.exists():
        return _of_receipt(receipt.path_of(stations.receipts, job))
    done = [step.name for step in steps if step.state is StepState.DONE]
    made = [_Part(name, files.outputs(name), 0) for name in done if files.outputs(name).exists()]
    places = [(name, files.locations(name), 0, -1) for name in done if files.locations(name).exists()]
    return _Lists("work", [_Part("", files.manifest, 0), *made], places)


def _of_receipt(path: Path) -> _Lists:
    with _mapped(path) as data:
        start = data.find(_MANIFEST)
        outputs = data.find(_OUTPUTS, max(start, 0))
        places = data.find(_LOCATIONS, max(outputs, 0))
        end = data.find(_EVENTS, max(places, 0))
    if min(start, outputs, places, end) < 0:  # none, or one that somebody has edited
        return _Lists("receipt", [], [])
    parts = [
        _Part("", path, start + len(_MANIFEST)),
        _Part("outputs", path, outputs + len(_OUTPUTS)),
    ]
    return _Lists("receipt", parts, [("", path, places, end)])


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap | bytes]:
    """Give a file's bytes without reading them; none where it is not there, or is empty."""
    try:
        file = open(path, "rb")  # noqa: SIM115  # closed below
    except FileNotFoundError:
        yield b""
        return
    with file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            yield b""
            return
        with data:
            yield data


def _read(part: _Part, start: int) -> Iterator[tuple[ListedFile, int]]:
    """Yield each file of a list from a byte on, and where the next one begins.

    Raises: ValueError: no line begins there.
    """
    with open(part.path, "rb") as file:
        file.seek(max(start - 1, 0))
        if start and file.read(1) not in b"\n[":
            raise ValueError("this cursor is of another list; begin with the first page")
        while line := file.readline():
            text = line.decode().strip()
            if not text:  # behind the bracket that opens a receipt's list
                continue
            if not text.startswith("{"):
                return
            fields, end = _DECODER.raw_decode(text)
            if "sha256" in fields:  # no directory, nor what was left out
                yield _file(fields, part), file.tell()
            if text[end : end + 1] == "]":
                return


def _file(fields: dict[str, Any], part: _Part) -> ListedFile:
    source = {"path": fields.get("source", ""), "encoding": fields.get("source_encoding", "")}
    return ListedFile(
        path=paths.path_bytes(fields),
        size=fields["size"],
        sha256=fields["sha256"],
        step=fields.get("step", part.name),
        source=paths.path_bytes(source),
    )


def _add_places(found: Sequence[ListedFile], lists: _Lists, sources: Mapping[str, str]) -> None:
    """Note where the files lie that are shown: of the others' places no more than the path is looked at."""
    wanted = {(file.step, _written(file.path)): file for file in found}
    paths = {path for _, path in wanted}
    for step, path, start, end in lists.places if paths else ():
        with _mapped(path) as data:
            for name, at in _hits(path, data, start, len(data) if end < 0 else end, paths):
                fields = _line_at(data, at)
                by = fields.get("step", step)
                file = wanted.get((sources.get(by, ""), name))
                if file is not None and not fields.get("use"):
                    file.places.append(
                        FileCopy(step=by, uri=fields["uri"], verified_by=fields["verified_by"])
                    )


def _hits(
    path: Path, data: mmap.mmap | bytes, start: int, end: int, paths: Set[bytes]
) -> Iterator[tuple[bytes, int]]:
    """Yield (path, where it stands) of the lines that name one of the paths, as they are written."""
    if end - start > _INDEXED:
        for hit in _PATH.finditer(data, start, end):
            if hit[1] in paths:
                yield hit[1], hit.start()
        return
    known = _index(path, path.stat().st_mtime_ns, start, end)
    yield from sorted(((name, at) for name in paths for at in known.get(name, ())), key=lambda hit: hit[1])


@functools.lru_cache(maxsize=2)
def _index(path: Path, mtime_ns: int, start: int, end: int) -> dict[bytes, list[int]]:
    """Return where each path stands: anyone who asks for one page asks for the next."""
    found: dict[bytes, list[int]] = {}
    with _mapped(path) as data:
        for hit in _PATH.finditer(data, start, end):
            found.setdefault(hit[1], []).append(hit.start())
    return found


def _line_at(data: mmap.mmap | bytes, at: int) -> dict[str, Any]:
    first, last = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
    line = data[first : last if last >= 0 else len(data)].decode().strip()
    fields: dict[str, Any]
    fields, _ = _DECODER.raw_decode(line)
    return fields


def _written(path: bytes) -> bytes:
    """Return a path as it stands within quotation marks in the lists."""
    return json.dumps(paths.path_fields(path)["path"], ensure_ascii=False)[1:-1].encode()


def fields(file: ListedFile) -> ShownFile:
    """Return a file for programs."""
    path, source = paths.path_fields(file.path), paths.path_fields(file.source)
    return {
        "path": path["path"],
        "encoding": path.get("encoding", ""),
        "size": file.size,
        "sha256": file.sha256,
        "step": file.step,
        "source": source["path"],
        "locations": [
            {"step": place.step, "uri": place.uri, "verified_by": place.verified_by} for place in file.places
        ],
    }
