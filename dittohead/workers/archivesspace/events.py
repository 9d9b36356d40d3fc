"""ArchivesSpace's own events about a digital object, each recorded once for the same files and places."""

from __future__ import annotations

from datetime import UTC, datetime

from dittohead import __version__
from dittohead.model.errors import TransientError
from dittohead.workers.archivesspace.client import ArchivesSpaceClient, Taken, number_of
from dittohead.workers.archivesspace.diff import WantedRecord
from dittohead.workers.archivesspace.preflight import AGENT as NAME
from dittohead.workers.archivesspace.preflight import EVENT_TYPES, find_agent
from dittohead.workers.archivesspace.records import Record, digest
from dittohead.workers.archivesspace.write import ArchivesSpaceWriter

#: What `external_ids` of our events say they come from.
SOURCE = "dittohead"

_ROUNDS = 4


async def record(recording: ArchivesSpaceWriter, of: WantedRecord) -> None:
    """Record the events about a digital object that are not there yet."""
    client, ctx = recording.client, recording.ctx
    agent = ""
    if not of.pages:  # only access was recorded, which is none of these events
        return
    # What was recorded, not which job did: doing a folder again that is as it was adds nothing.
    stated = [[page.component_id, [[copy.uri, copy.sha256] for copy in page.copies]] for page in of.pages]
    keys = await recorded(client, of.found.digital_object)
    for type_ in EVENT_TYPES:
        key = f"{type_} {digest(stated)}"
        for _ in range(_ROUNDS):
            if key in keys:
                break
            agent = agent or await _agent(recording)
            body = _event(type_, key, agent, of, ctx.claimed_at)
            await recording.note(do="create", what="event", uri=of.found.digital_object, key=key)
            if await _created(client, f"{client.base}/events", body):
                recording.counts.created += 1
                break
            keys = await recorded(client, of.found.digital_object)
        else:
            raise TransientError("its events cannot be recorded", where=of.found.digital_object)


async def recorded(client: ArchivesSpaceClient, digital_object: str) -> dict[str, str]:
    """Return the uris of our events about a digital object, by their keys."""
    object_ = await client.get(digital_object)
    numbers = [number_of(one["ref"]) for one in object_.get("linked_events", ())]
    return {
        one["external_id"]: event["uri"]
        async for event in client.listed("events", numbers)
        for one in event.get("external_ids", ())
        if one.get("source") == SOURCE
    }


async def _created(client: ArchivesSpaceClient, path: str, body: Record) -> bool:
    try:
        await client.create(path, body)
    except Taken:  # another created the agent at the same time
        return False
    except TransientError as error:
        if error.retry_after_s is not None:
            raise
        return False
    return True


def _event(type_: str, key: str, agent: str, of: WantedRecord, at: float) -> Record:
    copies = sum(len(page.copies) for page in of.pages)
    words = {
        "ingestion": f"{len(of.pages)} files taken in as {of.found.identifier}",
        "validation": f"{len(of.pages)} files compared with the manifest of their arrival",
        "message_digest_calculation": f"SHA-256 of {len(of.pages)} files",
        "replication": f"{copies} verified copies",
    }
    return {
        "jsonmodel_type": "event",
        "event_type": type_,
        "timestamp": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "outcome": "pass",
        "outcome_note": words[type_],
        "external_ids": [{"external_id": key[:255], "source": SOURCE}],
        "linked_agents": [{"role": "executing_program", "ref": agent}],
        "linked_records": [{"role": "outcome", "ref": of.found.digital_object}],
    }


async def _agent(recording: ArchivesSpaceWriter) -> str:
    """Return the uri of the agent that this version of dittohead is; created where it is not there."""
    name = {
        "jsonmodel_type": "name_software",
        "software_name": NAME,
        "version": __version__,
        "sort_name": f"{NAME} {__version__}",
        "sort_name_auto_generate": False,
        "source": "local",
    }
    body = {"jsonmodel_type": "agent_software", "publish": False, "names": [name]}
    for _ in range(_ROUNDS):
        found = recording.options.agent or await find_agent(recording.client)
        if found:
            return found
        await recording.note(do="create", what="agent", name=NAME, version=__version__)
        if await _created(recording.client, "/agents/software", body):
            recording.counts.created += 1
    raise TransientError("its agent cannot be created", where="/agents/software")
