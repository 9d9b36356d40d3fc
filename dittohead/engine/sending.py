"""Whether a folder is what its uploader sent: the manifest that came along against that of the claim."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from dittohead.engine.engine import Engine
from dittohead.folders import replacement, sent_manifest
from dittohead.folders.job_files import JobFiles
from dittohead.folders.sent_manifest import SentDifference
from dittohead.model.errors import ItemError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.paths import path_fields
from dittohead.model.records import Job, collection_of
from dittohead.model.states import Station
from dittohead.store import history
from dittohead.store import jobs as job_store
from dittohead.system.files import durable_file
from dittohead.system.threads import Stop, in_thread

#: Every difference, one JSON object a line, beside the job's manifest.
DIFFERENCES = "not-as-sent.jsonl"


async def as_sent(engine: Engine, job: Job, files: JobFiles) -> list[Event]:
    """Compare what was claimed with what was sent; return what the receipt says of it, [] without a manifest.

    The claim has read every file already: none is read again.
    Raises: ItemError: it is not what was sent, which is recorded with the job; Superseded, StoreError,
        OSError.
    """
    listed = files.home / DIFFERENCES
    try:
        found = await _difference(engine, job, files, listed)
        if found is None:
            return []
        if found:
            raise sent_manifest.not_as_sent(found, str(listed))
    except ItemError as error:
        failed = Event(type=EventType.FIXITY, outcome="failure", detail=error.what, agent=AGENT)
        await engine.store.write(job_store.note, job.id, job.token, [failed])
        raise
    said = sent_manifest.succeeded(found)
    return [Event(type=EventType.FIXITY, outcome="success", detail=said, agent=AGENT)]


async def _difference(engine: Engine, job: Job, files: JobFiles, listed: Path) -> SentDifference | None:
    """Return where the two do not agree; None where no manifest was sent along."""
    while (found := _place(engine, job, files)) is not None:
        place, prefix = found
        sentences = await engine.store.read(history.replacements, job.ino)
        compare = functools.partial(_compared, place, files.manifest, prefix, sentences, listed)
        try:
            return await in_thread(compare)
        except FileNotFoundError:  # that of a collection moves on with the last of its other folders
            if sent_manifest.lies_in(place):
                raise
    return None


def _place(engine: Engine, job: Job, files: JobFiles) -> tuple[Path, bytes] | None:
    """Return where the manifest lies that was sent along, and before which of its paths the job's begin.

    Of a collection it came with that: it lies in processing/ until the last of its folders has left, and then
    where they are. Blocking, but short.
    """
    if sent_manifest.lies_in(files.payload):
        return files.payload, b""
    collection = collection_of(job.folder)
    if collection:
        for station in (Station.PROCESSING, Station.FAILED, Station.DONE):
            place = engine.stations.folder(station, collection)
            if sent_manifest.lies_in(place):
                return place, job.folder.removeprefix(collection + b"/") + b"/"
    return None


def _compared(
    place: Path, manifest: Path, prefix: bytes, sentences: list[str], listed: Path, stop: Stop
) -> SentDifference:
    """Compare, and write every difference to a file of its own. Raises: ItemError, OSError, Stopped."""
    with durable_file(listed) as out:

        def note(kind: str, path: bytes) -> None:
            fields = {"difference": kind, **path_fields(path)}
            out.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")

        found = sent_manifest.compared(
            place,
            manifest,
            prefix,
            stop=stop,
            is_replaced=functools.partial(replacement.is_told, sentences),
            note=note,
        )
    if not found:
        listed.unlink()
    return found
