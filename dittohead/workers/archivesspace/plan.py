"""What recording would do, told without doing it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from typing import Literal

from dittohead.contract.worker import Planned
from dittohead.model.text import display
from dittohead.workers.archivesspace import diff, records
from dittohead.workers.archivesspace.client import ArchivesSpaceClient
from dittohead.workers.archivesspace.diff import WantedRecord
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from dittohead.workers.archivesspace.records import Enumerations
from dittohead.workers.archivesspace.write import CHUNK


async def plan(
    client: ArchivesSpaceClient,
    options: ArchivesSpaceOptions,
    known: Enumerations,
    wanted: Sequence[WantedRecord],
) -> AsyncIterator[Planned]:
    """Yield every record that would be created, changed or kept, and by which call.

    Args:
        known: the controlled values that the site has, by enumeration.
        wanted: what is to be recorded, one for each object, in this order.

    Raises: TransientError, TargetError: the site cannot be read.
    """
    for of in wanted:
        async for one in _object(client, options, known, of):
            yield one


async def _object(
    client: ArchivesSpaceClient, options: ArchivesSpaceOptions, known: Enumerations, of: WantedRecord
) -> AsyncIterator[Planned]:
    found = of.found
    name = f"digital object {found.digital_object_id}"
    access = of.access(options, known)
    archival = await client.get(found.uri)
    there: set[str] = set()
    if not found.digital_object:
        yield Planned(
            action="create",
            what=name,
            where=f"POST {options.base}/digital_objects",
            detail=f"with {', '.join(found.copied)} of the archival object" if found.copied else "",
        )
    else:
        record = await client.get(found.digital_object)
        old = record.get("file_versions", [])
        there = {version["file_uri"] for version in old}
        versions = diff.with_own(of, options, known, old, ())
        publish = options.publish and not record.get("publish")
        yield _changed(name, found.digital_object, bool(versions is not None or publish))
    for version in [*access, *of.masters(options, known)]:
        action: Literal["keep", "create"] = "keep" if version["file_uri"] in there else "create"
        yield Planned(action=action, what=f"file version of {name}", where=version["file_uri"])
    linked = found.digital_object in records.linked(archival)
    yield _changed(f"link of archival object {found.identifier}", found.uri, not linked)
    async for one in _components(client, options, known, of):
        yield one
    if options.events and of.pages:
        yield Planned(action="create", what=f"4 events of {name}", where=f"POST {options.base}/events")


async def _components(
    client: ArchivesSpaceClient, options: ArchivesSpaceOptions, known: Enumerations, of: WantedRecord
) -> AsyncIterator[Planned]:
    if of.found.each:
        return
    difference = await diff.compare(client, options, known, of, of.found.digital_object)
    requests = math.ceil(len(difference.missing) / CHUNK)
    where = f"POST {of.found.digital_object or options.base + '/digital_objects/(new)'}/children"
    for number, (page, position) in enumerate(difference.missing):
        place = f"at {position}" if position is not None else "at the end"
        yield Planned(
            action="create",
            what=f"component {page.component_id} ({display(page.path)})",
            where=where,
            detail=f"{place}, in request {number // CHUNK + 1} of {requests}",
        )
    for page, uri in difference.differing:
        yield _changed(f"component {page.component_id}", uri, True)
    for page, kept in difference.same:
        yield _changed(f"component {page.component_id}", kept["uri"], False)


def _changed(what: str, uri: str, differs: bool) -> Planned:
    if differs:
        return Planned(action="change", what=what, where=f"POST {uri}")
    return Planned(action="keep", what=what, where=uri)
