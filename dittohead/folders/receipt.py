"""The receipt: one JSON file for each finished job, streamed, durable before the folder moves."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NotRequired, TypedDict, TypeVar, cast

from dittohead.folders.stations import fit, must_be_folder, must_be_plain
from dittohead.model import paths
from dittohead.model.errors import Unreadable
from dittohead.model.events import Event, EventType
from dittohead.model.records import SCHEMA, Entry, Job, Location, Output, StepRow
from dittohead.model.shown import ShownEvent, ShownFailure
from dittohead.model.states import StepState
from dittohead.model.text import rfc3339
from dittohead.system import files, own_files

T = TypeVar("T")


class ReceiptFile(paths.PathFields):
    """A file of the folder as it was at the claim."""

    size: int
    sha256: str
    ignored: NotRequired[bool]  #: no step was given it


class ReceiptManifest(TypedDict):
    """The folder's files."""

    algorithm: str
    files: list[ReceiptFile]


class RecordedOutput(paths.PathFields):
    """A file that a step made."""

    step: NotRequired[str]  #: in receipts; a step's own list is all of one step
    size: int
    sha256: str
    source: NotRequired[str]
    source_encoding: NotRequired[str]
    detail: NotRequired[dict[str, Any]]


class RecordedLocation(paths.PathFields):
    """Where something lies."""

    step: NotRequired[str]
    uri: str
    size: int
    sha256: str
    verified_by: str
    checksum: NotRequired[str]
    version: NotRequired[str]
    use: NotRequired[str]


class ReceiptStep(TypedDict):
    """A step of the job."""

    name: str
    worker: str
    state: str
    started_at: str | None
    finished_at: str | None
    detail: str
    recipe: NotRequired[Mapping[str, Any]]


class Receipt(TypedDict):
    """A whole receipt; keys that are not required are newer than the first receipts."""

    schema: str
    job: str
    name: str
    folder: str
    folder_encoding: NotRequired[str]
    pipeline: str
    state: str
    host: str
    claimed_at: str
    finished_at: str
    error: ShownFailure | None
    uid: int
    batch: NotRequired[str]
    steps: NotRequired[list[ReceiptStep]]
    manifest: ReceiptManifest
    outputs: list[RecordedOutput]
    locations: list[RecordedLocation]
    events: list[ShownEvent]


def path_of(receipts: Path, job: Job) -> Path:
    """Return where a job's receipt is: receipts/NAME.JOBID.json, the name cut where too long."""
    name = job.name.replace("/", "_").encode("utf-8", "surrogateescape")
    return receipts / os.fsdecode(fit(name, f".{job.id}.json".encode()))


def write(
    path: Path,
    job: Job,
    *,
    entries: Iterable[Entry],
    outputs: Iterable[tuple[str, Output]],
    locations: Iterable[tuple[str, Location]],
    events: Iterable[Event],
    steps: Iterable[StepRow] = (),
) -> None:
    """Write a job's receipt durably, replacing an earlier one of the same job. Blocking.

    Streams its parts, so that a million files need no memory.

    Args:
        path: where it goes, in receipts/.
        job: as it ends: with state, error and finish time.
        entries: the manifest's files, in its order.
        outputs: (step's name, a file that it made).
        locations: (step's name, a place where something lies now).
        events: in the order in which they happened.
        steps: in the pipeline's order.

    Raises: OSError: it cannot be written; an earlier receipt is as it was.
    """
    head = {
        "schema": SCHEMA,
        "job": job.id,
        "name": job.name,
        **_folder_fields(job.folder),
        "pipeline": job.pipeline,
        "state": job.state.value,
        "host": job.host,
        "claimed_at": rfc3339(job.claimed_at),
        "finished_at": rfc3339(job.finished_at),
        "error": None if job.error is None else job.error.as_dict(),
        "uid": job.uid,
        **({"batch": job.batch} if job.batch else {}),
        "steps": [_step_fields(step, job) for step in steps],
    }
    with files.durable_file(path) as out:
        out.write(_json(head, indent=1)[:-2])
        out.write(b',\n "manifest": {"algorithm": "sha256", "files": ')
        _array(out, entries, _entry)
        out.write(b'},\n "outputs": ')
        _array(out, outputs, lambda pair: {"step": pair[0], **output_fields(pair[1])})
        out.write(b',\n "locations": ')
        _array(out, locations, lambda pair: {"step": pair[0], **location_fields(pair[1])})
        out.write(b',\n "events": ')
        _array(out, events, event_fields)
        out.write(b"\n}\n")


def add_event(path: Path, event: Event) -> None:
    """Append an event to a receipt that is written, durably. Blocking; streams, however long it is.

    Raises: FileNotFoundError, OSError; Unreadable: it does not end as receipts do: it was changed by hand.
    """
    end = b"]\n}\n"
    with own_files.opened(path) as old, files.durable_file(path) as out:
        size = os.fstat(old.fileno()).st_size
        old.seek(max(size - len(end) - 1, 0))
        tail = old.read()
        if not tail.endswith(end):
            raise Unreadable("this receipt does not end as receipts do", where=str(path))
        old.seek(0)
        left = size - len(end)
        while left:
            piece = old.read(min(left, 1 << 20))
            out.write(piece)
            left -= len(piece)
        out.write(b"\n  " if tail.startswith(b"[") else b",\n  ")
        out.write(_json(event_fields(event)) + end)


def _json(value: Any, indent: int | None = None) -> bytes:
    """Return JSON in UTF-8; halves of characters, which are not UTF-8, as JSON's own escapes."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "backslashreplace")


def _array(out: IO[bytes], items: Iterable[Any], fields: Callable[[Any], Mapping[str, Any] | None]) -> None:
    separator = b"["
    for item in items:
        line = fields(item)
        if line is not None:
            out.write(separator + b"\n  " + _json(line))
            separator = b","
    out.write(b"]" if separator == b"," else b"[]")


def _folder_fields(folder: bytes) -> dict[str, Any]:
    fields = paths.path_fields(folder)
    encoding = {"folder_encoding": fields["encoding"]} if "encoding" in fields else {}
    return {"folder": fields["path"], **encoding}


def folder_bytes(fields: Mapping[str, Any]) -> bytes:
    """Return the folder's name at the claim, as a receipt gives it."""
    return paths.path_bytes({"path": fields["folder"], "encoding": fields.get("folder_encoding", "")})


def _step_fields(step: StepRow, job: Job) -> dict[str, Any]:
    failed = job.error is not None and job.error.step == step.name and step.state is not StepState.DONE
    return {
        "name": step.name,
        "worker": step.worker,
        "state": StepState.FAILED if failed else step.state,
        "started_at": rfc3339(step.started_at),
        "finished_at": rfc3339(step.finished_at),
        "detail": step.result.detail,
        **({} if step.result.recipe is None else {"recipe": step.result.recipe}),
    }


def _entry(entry: Entry) -> dict[str, Any] | None:
    if entry.is_dir:
        return None
    fields = {**paths.path_fields(entry.path), "size": entry.size, "sha256": entry.sha256}
    return {**fields, "ignored": True} if entry.is_ignored else fields


def output_fields(output: Output) -> RecordedOutput:
    """Return an output as it stands in receipts and result files."""
    path = paths.path_fields(output.path)
    fields = cast(RecordedOutput, {**path, "size": output.size, "sha256": output.sha256})
    if output.source:
        source = paths.path_fields(output.source)
        fields["source"] = source["path"]
        if "encoding" in source:
            fields["source_encoding"] = source["encoding"]
    if output.detail:
        fields["detail"] = output.detail
    return fields


def location_fields(location: Location) -> RecordedLocation:
    """Return a location as it stands in receipts and result files."""
    copy = {"size": location.size, "sha256": location.sha256, "verified_by": location.verified_by}
    fields = cast(RecordedLocation, {"uri": location.uri, **paths.path_fields(location.path), **copy})
    if location.checksum:
        fields["checksum"] = location.checksum
    if location.version:
        fields["version"] = location.version
    if location.use:
        fields["use"] = location.use
    return fields


def event_fields(event: Event) -> ShownEvent:
    """Return an event as it stands in receipts."""
    return {
        "type": event.type.value,
        "step": event.step,
        "at": rfc3339(event.at),
        "outcome": event.outcome,
        "detail": event.detail,
        "agent": event.agent,
    }


def read_events(fields: Iterable[Mapping[str, Any]]) -> Iterator[Event]:
    """Read the events of a receipt. Raises: KeyError, ValueError: they are none."""
    for event in fields:
        yield Event(
            type=EventType(event["type"]),
            step=event["step"],
            at=datetime.fromisoformat(event["at"]),
            outcome=event["outcome"],
            detail=event["detail"],
            agent=event["agent"],
        )


def read_location(fields: Mapping[str, Any]) -> Location:
    """Read one location of a receipt or a result file. Raises: KeyError, TypeError: it is none."""
    return Location(
        uri=own_files.text(fields["uri"]),
        path=paths.path_bytes(fields),
        size=own_files.size(fields["size"]),
        sha256=own_files.text(fields["sha256"]),
        verified_by=own_files.text(fields["verified_by"]),
        checksum=own_files.text(fields.get("checksum", "")),
        version=own_files.text(fields.get("version", "")),
        use=own_files.text(fields.get("use", "")),
    )


def read(path: Path) -> Receipt:
    """Return a receipt, with all that others look for in it.

    Raises: Unreadable: it is damaged, or no receipt; FileNotFoundError, OSError.
    """
    return own_files.document(path, _checked)


def _checked(found: Any) -> Receipt:
    fields = own_files.mapping(found)
    for file in _items(own_files.mapping(fields["manifest"])["files"]):
        _must_be_a_file(file)
    for output in _items(fields["outputs"]):
        _must_be_a_file(output)
        must_be_plain(own_files.text(output["step"]).encode())
    for location in _items(fields["locations"]):
        own_files.text(location["step"])
        read_location(location)
    for _ in read_events(_items(fields["events"])):
        pass
    for step in _items(fields.get("steps", [])):
        own_files.text(step["name"]), own_files.text(step["worker"]), StepState(step["state"])
    for key in ("job", "name", "folder", "pipeline", "state", "host", "claimed_at", "finished_at"):
        own_files.text(fields[key])
    must_be_folder(folder_bytes(fields))
    return cast(Receipt, fields)


def _items(found: Any) -> list[dict[str, Any]]:
    if not isinstance(found, list):
        raise TypeError("this must be a list")
    return [own_files.mapping(one) for one in found]


def _must_be_a_file(fields: Mapping[str, Any]) -> None:
    paths.path_bytes(fields), own_files.size(fields["size"]), own_files.text(fields["sha256"])


class Recorder:
    """Collects what a step made or delivered, a JSON line each, for a result file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.size = 0
        self.copies = 0  #: of those locations that are copies of files, not records and pages
        self._file: IO[bytes] | None = None

    def add(self, fields: RecordedOutput | RecordedLocation) -> None:
        """Append one record."""
        if self._file is None:
            self._file = files.created(self.path)
        self._file.write(_json(fields) + b"\n")
        self.count += 1
        self.size += fields["size"]
        self.copies += not fields.get("use")

    def close(self, *, durable: bool) -> None:
        """Finish the file; with `durable` its bytes are on disk afterwards. Blocking."""
        if self._file is not None:
            self._file.flush()
            if durable:
                os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
        elif durable:
            self.path.unlink(missing_ok=True)  # an earlier try's


def read_outputs(path: Path) -> Iterator[Output]:
    """Read the outputs a step recorded; none when it made none. Raises: Unreadable."""
    yield from _recorded(path, read_output)


def read_output(fields: dict[str, Any]) -> Output:
    """Read one output of a receipt or a result file. Raises: KeyError, TypeError: it is none."""
    return Output(
        path=paths.path_bytes(fields),
        size=own_files.size(fields["size"]),
        sha256=own_files.text(fields["sha256"]),
        source=_source_bytes(fields),
        detail=own_files.mapping(fields.get("detail", {})),
    )


def _source_bytes(fields: dict[str, Any]) -> bytes:
    encoding = fields.get("source_encoding", "")
    return paths.path_bytes({"path": fields.get("source", ""), "encoding": encoding})


def read_locations(path: Path) -> Iterator[Location]:
    """Read the locations a step recorded; none when it delivered none. Raises: Unreadable."""
    yield from _recorded(path, read_location)


def _recorded(path: Path, make: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    with contextlib.suppress(FileNotFoundError):
        yield from own_files.records(path, make)
