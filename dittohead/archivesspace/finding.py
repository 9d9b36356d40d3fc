"""Preflight: which records the folder needs, and everything that can be wrong, before anything is written."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dittohead.archivesspace import describing, records
from dittohead.archivesspace.client import Client, Record
from dittohead.archivesspace.naming import Naming
from dittohead.archivesspace.options import ArchivesSpaceOptions
from dittohead.archivesspace.records import (
    AGENT_ROLE,
    CHECKSUM,
    EVENT,
    FORMAT,
    INSTANCE,
    LONGEST_ID,
    OUTCOME,
    RECORD_ROLE,
    SHOW,
    TYPE,
    USE,
)
from dittohead.description import Described, Description, Object
from dittohead.errors import ItemError, StepError, TargetError, ungrouped
from dittohead.threads import in_thread
from dittohead.worker import StepContext

#: Archival objects that are read at once.
_AT_ONCE = 4

#: What events are recorded as; see `events`.
EVENT_TYPES = ("ingestion", "validation", "message_digest_calculation", "replication")

_VIEW = "view_repository"
_NEEDED = ("update_digital_object_record", "update_resource_record")
_FOR_EVENTS = ("update_event_record", "update_agent_record")


@dataclass(frozen=True, kw_only=True)
class Found:
    """One archival object and what is to be recorded for it, as facts keep it."""

    identifier: str
    uri: str  #: of the archival object
    title: str
    digital_object_id: str
    digital_object: str  #: its uri when there is one; "" when it is to be created
    files: list[str] | None  #: None: all

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> list[Found]:
        """Return what facts keep."""
        return [cls(**one) for one in facts["objects"]]


def needed(options: ArchivesSpaceOptions) -> list[str]:
    """Return the permissions that the options ask for."""
    if not options.write:
        return [_VIEW]
    return [_VIEW, *_NEEDED, *(_FOR_EVENTS if options.events else ())]


def wanted_values(options: ArchivesSpaceOptions, kinds: Collection[records.Kind]) -> dict[str, set[str]]:
    """Return the controlled values that are written whatever happens; others are left out where unknown."""
    wanted: dict[str, set[str]] = {INSTANCE: {"digital_object"}, USE: set(), SHOW: set(), CHECKSUM: set()}
    if options.digital_object_type:
        wanted[TYPE] = {options.digital_object_type}
    if options.masters:
        wanted[CHECKSUM] = {"sha-256"}
        own = {options.use_statement} if options.use_statement else {kind.master for kind in kinds}
        wanted[USE] |= own - {""}
    if options.access:
        wanted[USE] |= {"image-thumbnail", "image-service"}
        wanted[SHOW] = {"new", "embed"}
    if options.formats:
        wanted[FORMAT] = set(options.formats.values())
    if options.events:
        wanted |= {EVENT: set(EVENT_TYPES), OUTCOME: {"pass"}}
        wanted |= {AGENT_ROLE: {"executing_program"}, RECORD_ROLE: {"outcome"}}
    return {name: values for name, values in wanted.items() if values}


async def enumerations(client: Client, names: Collection[str]) -> dict[str, frozenset[str]]:
    """Return the values of controlled lists that can be used; nothing for a list that does not exist."""
    found = {}
    for name in sorted(names):
        told = await client.find(f"/config/enumerations/names/{name}")
        rows = (told or {}).get("enumeration_values", ())
        hidden = {row["value"] for row in rows if row.get("suppressed")}
        found[name] = frozenset((told or {}).get("values", ())) - hidden
    return found


async def look(ctx: StepContext, options: ArchivesSpaceOptions, client: Client) -> dict[str, Any]:
    """Return the facts of a folder. Raises: ItemError, naming everything that is wrong; TargetError."""
    naming = Naming(options, ctx.name)
    objects, kinds = await in_thread(lambda _: _survey(naming, ctx))
    if missing := await client.lacks(needed(options)):
        raise TargetError(
            f'the user "{options.user}" lacks {", ".join(missing)} in {options.base}',
            where=client.shown(""),
            hint="Put the user into a group of that repository that has it",
        )
    hits = await _archival_objects(client, options, list(objects))
    read = await _read(client, [hit["uri"] for hit in hits.values()])
    described = Described(
        objects=tuple(
            Object(description=_called(read[hit["uri"]], key, options), files=objects[key])
            for key, hit in hits.items()
        )
    )
    facts: dict[str, Any] = {"described": described.model_dump(mode="json")}
    if not options.write:
        return facts | {"objects": [], "enumerations": {}}
    problems = [f"{one['uri']} is suppressed: lift that" for one in read.values() if one.get("suppressed")]
    problems += _hidden(ctx, options, described)
    wanted = wanted_values(options, kinds)
    known = await enumerations(client, {*wanted, USE, FORMAT, TYPE})
    for name, values in wanted.items():
        if lacking := values - known[name]:
            problems.append(f"ask staff to {records.where_to_add(lacking, name, options.staff_url)}")
    looking = _Objects(client, options)
    found = await looking.find({key: read[hit["uri"]] for key, hit in hits.items()}, objects)
    problems += looking.problems
    if problems:
        hint = f"When that is settled: dittohead retry {ctx.job_id}"
        raise ItemError("; ".join(problems), where=client.shown(options.base), hint=hint)
    lists = {name: sorted(known[name]) for name in (USE, FORMAT, TYPE)}
    return facts | {"objects": [asdict(one) for one in found], "enumerations": lists}


def _survey(
    naming: Naming, ctx: StepContext
) -> tuple[dict[str, tuple[str, ...] | None], frozenset[records.Kind]]:
    objects = naming.objects(ctx.originals.root, ctx.originals.entries())
    naming.check(ctx.originals.entries(), objects)
    entries = ctx.originals.entries()
    return objects, frozenset(records.kind_of(entry.path) for entry in entries if naming.recorded(entry))


def _called(record: Record, key: str, options: ArchivesSpaceOptions) -> Description:
    return describing.describe(record, options.public_url)


def _hidden(ctx: StepContext, options: ArchivesSpaceOptions, described: Described) -> list[str]:
    """Return the objects that the public may not see, where access copies are to be published."""
    chosen = any(ctx.made_by(step) is not None for step in options.access)
    if options.unpublished == "allow" or not chosen:
        return []
    return [
        f"{one.description.identifier} ({one.description.ref}), or a level above it, is not published, and "
        "access copies are to be: publish it, or set unpublished: allow"
        for one in described.objects
        if not one.description.published
    ]


async def _archival_objects(
    client: Client, options: ArchivesSpaceOptions, wanted: Sequence[str]
) -> dict[str, Record]:
    """Return the one archival object of each identifier. Raises: ItemError: naming all that have not one."""
    hits: dict[str, dict[str, Record]] = {key: {} for key in wanted}
    near: dict[str, str] = {}
    lots = [[key] for key in wanted] if options.by == "ark" else [wanted]
    for lot in lots:
        for record in await client.find_by_id("archival_objects", options.by, lot):
            told = lot[0] if options.by == "ark" else record.get(options.by, "")
            if told in hits:
                hits[told][record["uri"]] = record
            else:  # the database does not tell capitals apart
                near[told.casefold()] = f"{told} ({record['uri']})"
    problems = []
    for key, found in hits.items():
        if not found:
            like = near.get(key.casefold())
            problems.append(f'"{key}" is not there' + (f", but {like} is" if like else ""))
        elif len(found) > 1:
            problems.append(f'"{key}" is {" and ".join(sorted(found))}')
    if problems:
        raise ItemError(
            f"not one archival object for each {options.by}: {'; '.join(problems)}",
            where=client.shown(options.base),
            hint=f"Correct the {options.by} there, or the name here, and move the folder to the inbox again",
        )
    return {key: next(iter(found.values())) for key, found in hits.items()}


async def _read(client: Client, uris: Sequence[str]) -> dict[str, Record]:
    """Return archival objects with what they refer to."""
    turn = asyncio.Semaphore(_AT_ONCE)
    query = [("resolve[]", name) for name in describing.RESOLVED]

    async def one(uri: str) -> Record:
        async with turn:
            return await client.get(uri, query)

    with ungrouped(StepError):
        async with asyncio.TaskGroup() as group:
            tasks = {uri: group.create_task(one(uri)) for uri in uris}
    return {uri: task.result() for uri, task in tasks.items()}


class _Objects:
    """The digital objects that are there already, and what is wrong with them."""

    def __init__(self, client: Client, options: ArchivesSpaceOptions) -> None:
        self._client, self._options = client, options
        self.problems: list[str] = []

    async def find(
        self, archival: Mapping[str, Record], files: Mapping[str, Sequence[str] | None]
    ) -> list[Found]:
        """Return what is to be recorded for each archival object, by its identifier."""
        ids = {key: self._options.digital_object_id or key for key in archival}
        there = await self._client.find_by_id("digital_objects", "digital_object_id", ids.values())
        by_id = {one["digital_object_id"].casefold(): one for one in there}
        found = []
        for key, record in archival.items():
            id_ = ids[key]
            if len(id_) > LONGEST_ID:
                self.problems.append(f"{id_} is longer than {LONGEST_ID} characters")
            object_ = await self._one(record, id_, by_id.get(id_.casefold()))
            names = files[key]
            found.append(
                Found(
                    identifier=key,
                    uri=record["uri"],
                    title=describing.title_of(record) or key,
                    digital_object_id=object_.get("digital_object_id", id_),
                    digital_object=object_.get("uri", ""),
                    files=None if names is None else list(names),
                )
            )
        return found

    async def _one(self, archival: Record, id_: str, there: Record | None) -> Record:
        """Return the digital object to be used; {} when one is to be created."""
        uri, links = archival["uri"], records.linked(archival)
        for twice in sorted({link for link in links if links.count(link) > 1}):
            self.problems.append(f"{uri} is linked to {twice} {links.count(twice)} times: remove all but one")
        if there is not None:
            holders = {one["ref"] for one in there.get("linked_instances", ())} - {uri}
            if holders and there["uri"] not in links:
                self.problems.append(
                    f'the digital object id "{id_}" is taken by {there["uri"]}, which belongs to '
                    f"{', '.join(sorted(holders))}: set digital_object_id, or correct that one"
                )
            return there
        if not links or self._options.linked == "add":
            return {}
        if self._options.linked == "use" and len(set(links)) == 1:
            return await self._client.get(links[0])
        self.problems.append(
            f"{uri} has {', '.join(links)} already, of which none has the id {id_}: set linked: "
            "use (where there is one) or add"
        )
        return {}
