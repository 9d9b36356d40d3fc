"""Preflight: which records the folder needs, and everything that can be wrong, before anything is written."""

from __future__ import annotations

import asyncio
import html
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from dittohead import __version__
from dittohead.contract.worker import StepContext
from dittohead.model.description import Described, Description, Object
from dittohead.model.errors import ItemError, StepError, TargetError, ungrouped
from dittohead.system.threads import in_thread
from dittohead.toolkit import natural_order
from dittohead.workers.archivesspace import copied_fields, description, records
from dittohead.workers.archivesspace.client import ArchivesSpaceClient, Record, bare_ark
from dittohead.workers.archivesspace.component_names import Naming, some_of
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from dittohead.workers.archivesspace.records import (
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

#: Archival objects that are read at once.
_AT_ONCE = 4

#: What events are recorded as; see `events`.
EVENT_TYPES = ("ingestion", "validation", "message_digest_calculation", "replication")

_VIEW = "view_repository"
_NEEDED = ("update_digital_object_record", "update_resource_record")
_FOR_EVENTS = "update_event_record"

#: Either lets a user create agents: the second implies the first, which can be given to nobody. Source:
#: bootstrap_access_control.rb.
_FOR_AGENTS = ("update_agent_record", "manage_agent_record")

#: What the staff interface calls permissions. Source: common/locales/en.yml.
_SHOWN_AS = {
    _VIEW: "view all records",
    "update_digital_object_record": "create/update digital objects",
    "update_resource_record": "create/update resources",
    "update_event_record": "create/update events",
    "manage_agent_record": "create/update/delete agents (system-wide)",
    "view_suppressed": "view suppressed records",
    "delete_archival_record": "delete accessions, archival objects, digital objects and resources",
    "delete_event_record": "delete events",
}

#: The software that events name.
AGENT = "dittohead"


@dataclass(frozen=True, kw_only=True)
class FoundObject:
    """One archival object and what is to be recorded for it, as facts keep it."""

    identifier: str
    uri: str  #: of the archival object
    title: str  #: for people
    digital_object_id: str
    digital_object: str  #: its uri when there is one; "" when it is to be created
    files: list[str] | None  #: None: all
    markup: str = ""  #: the title as ArchivesSpace has it
    each: bool = False  #: a digital object for one file, which has no components
    copied: dict[str, Any] = field(default_factory=dict)  #: what a new digital object is given besides

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> list[FoundObject]:
        """Return what facts keep."""
        return [cls(**one) for one in facts["objects"]]


def needed(options: ArchivesSpaceOptions) -> list[str]:
    """Return the permissions that the options ask for."""
    if not options.write:
        return [_VIEW]
    return [_VIEW, *_NEEDED, *([_FOR_EVENTS] if options.events else ())]


def permission(name: str) -> str:
    """Return a permission for people: its name, and what the staff interface calls it."""
    return f'{name} ("{_SHOWN_AS[name]}")' if name in _SHOWN_AS else name


async def missing_agent(client: ArchivesSpaceClient, options: ArchivesSpaceOptions) -> str:
    """Return what keeps events from having their agent; "" for nothing."""
    if options.agent:
        there = await client.find(options.agent)
        return "" if there is not None else f"there is no {options.agent}: correct agent"
    if len(await client.lacks(_FOR_AGENTS)) < len(_FOR_AGENTS) or await find_agent(client):
        return ""
    return (
        f'there is no agent "{AGENT} {__version__}" yet, and the user "{options.user}" may not create one: '
        "name another with agent: (such as /agents/software/3), or give it "
        f"{permission('manage_agent_record')}"
    )


async def find_agent(client: ArchivesSpaceClient) -> str:
    """Return the uri of the agent that this version of dittohead is; "" when there is none."""
    page = last = 1
    while page <= last:
        told = await client.get("/agents/software", [("page", page), ("page_size", 100)], ["results"])
        for agent in told["results"]:
            for name in agent.get("names", ()):
                if name.get("software_name") == AGENT and name.get("version") == __version__:
                    return str(agent["uri"])
        last = told.get("last_page", 1)
        page += 1
    return ""


def wanted_values(
    options: ArchivesSpaceOptions, kinds: Collection[records.RecordKind]
) -> dict[str, set[str]]:
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


async def enumerations(client: ArchivesSpaceClient, names: Collection[str]) -> dict[str, frozenset[str]]:
    """Return the values of controlled lists that can be used; nothing for a list that does not exist."""
    found = {}
    for name in sorted(names):
        told = await client.find(f"/config/enumerations/names/{name}")
        rows = (told or {}).get("enumeration_values", ())
        hidden = {row["value"] for row in rows if row.get("suppressed")}
        found[name] = frozenset((told or {}).get("values", ())) - hidden
    return found


async def examine(
    ctx: StepContext, options: ArchivesSpaceOptions, client: ArchivesSpaceClient
) -> dict[str, Any]:
    """Return the facts of a folder as JSON: its objects as they are known, and the controlled values.

    Args:
        ctx: gives the folder's files; in a dry run no setting of the session is changed.
        client: signed in by the step's user.

    Raises: ItemError: names everything that is wrong; TargetError: the user lacks a permission;
        TransientError.
    """
    naming = Naming(options, ctx.name)
    objects, ids, kinds = await in_thread(lambda _: _survey(naming, ctx))
    if missing := await client.lacks(needed(options)):
        raise TargetError(
            f'the user "{options.user}" lacks {", ".join(map(permission, missing))} in {options.base}',
            where=client.shown(""),
            hint="Put the user into a group of that repository that has it",
        )
    if options.write:
        await client.see_all(may_set=not ctx.dry_run)
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
    problems += await _misspelt(client, read.values())
    if options.events and (lacking_agent := await missing_agent(client, options)):
        problems.append(lacking_agent)
    problems += _hidden(ctx, options, described)
    wanted = wanted_values(options, kinds)
    known = await enumerations(client, {*wanted, USE, FORMAT, TYPE})
    for name, values in wanted.items():
        if lacking := values - known[name]:
            problems.append(f"ask staff to {records.where_to_add(lacking, name, options.staff_url)}")
    looking = _Objects(client, options)
    archival = {key: read[hit["uri"]] for key, hit in hits.items()}
    each = options.digital_objects == "each"
    found = await (looking.find_each(archival, ids) if each else looking.find(archival, objects))
    if not each and any(ctx.made_by(step) is not None for step in options.masters):
        await looking.see_free(found, ids)
    problems += looking.problems
    if problems:
        hint = f"When that is settled: dittohead retry {ctx.job_id}"
        raise ItemError("; ".join(problems), where=client.shown(options.base), hint=hint)
    lists = {name: sorted(known[name]) for name in (USE, FORMAT, TYPE)}
    return facts | {"objects": [asdict(one) for one in found], "enumerations": lists}


def _survey(
    naming: Naming, ctx: StepContext
) -> tuple[dict[str, tuple[str, ...] | None], dict[str, dict[str, str]], frozenset[records.RecordKind]]:
    """Return the objects with their files, the components' ids, and the kinds of files. Blocking."""
    objects = naming.objects(ctx.originals.root, ctx.originals.entries())
    ids = naming.check(ctx.originals.entries(), objects)
    entries = ctx.originals.entries()
    kinds = frozenset(records.kind_of(entry.path) for entry in entries if naming.recorded(entry))
    return objects, ids, kinds


async def _misspelt(client: ArchivesSpaceClient, archival: Iterable[Record]) -> list[str]:
    """Return the archival objects that the site would not save, for their titles' markup.

    Older ones, before 4.2.0, take and hold any.
    """
    wrong = [one for one in archival if records.malformed(one.get("title") or "")]
    if not wrong or not await client.checks_markup():
        return []
    return [
        f"the title of {one['uri']} is not well-formed markup, so that it cannot be saved: correct it there"
        for one in wrong
    ]


def _called(record: Record, key: str, options: ArchivesSpaceOptions) -> Description:
    return description.describe(record, options.public_url)


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
    client: ArchivesSpaceClient, options: ArchivesSpaceOptions, wanted: Sequence[str]
) -> dict[str, Record]:
    """Return the one archival object of each identifier. Raises: ItemError: naming all that have not one."""
    hits: dict[str, dict[str, Record]] = {key: {} for key in wanted}
    near: dict[str, str] = {}
    lots = [_arks(key) for key in wanted] if options.by == "ark" else [wanted]
    for lot in lots:
        exact, like = await client.find_by_id("archival_objects", options.by, lot)
        for record in exact:
            told = lot[0] if options.by == "ark" else record[options.by]
            hits[told][record["uri"]] = record
        for record in like:  # the database tells neither capitals nor accents apart
            told = str(record.get(options.by, ""))
            near[records.alike(told)] = f"{told} ({record['uri']})"
    problems = []
    for key, found in hits.items():
        if not found:
            other = near.get(records.alike(key))
            problems.append(f'"{key}" is not there' + (f", but {other} is" if other else ""))
        elif len(found) > 1:
            problems.append(f'"{key}" is {" and ".join(sorted(found))}')
    if problems:
        raise ItemError(
            f"not one archival object for each {options.by}: {'; '.join(problems)}",
            where=client.shown(options.base),
            hint=f"Correct the {options.by} there, or the name here, and move the folder to the inbox again",
        )
    return {key: next(iter(found.values())) for key, found in hits.items()}


def _arks(ark: str) -> list[str]:
    """Return how an ARK may be stored: minted ones bare, external ones as the whole address given."""
    bare = bare_ark(ark)
    return list(dict.fromkeys([ark, bare, f"https://n2t.net/{bare}", f"http://n2t.net/{bare}"]))


async def _read(client: ArchivesSpaceClient, uris: Sequence[str]) -> dict[str, Record]:
    """Return archival objects with what they refer to."""
    turn = asyncio.Semaphore(_AT_ONCE)
    query = [("resolve[]", name) for name in description.RESOLVED]

    async def one(uri: str) -> Record:
        async with turn:
            return await client.get(uri, query)

    with ungrouped(StepError):
        async with asyncio.TaskGroup() as group:
            tasks = {uri: group.create_task(one(uri)) for uri in uris}
    return {uri: task.result() for uri, task in tasks.items()}


class _Objects:
    """The digital objects that are there already, and what is wrong with them."""

    def __init__(self, client: ArchivesSpaceClient, options: ArchivesSpaceOptions) -> None:
        self._client, self._options = client, options
        self.problems: list[str] = []

    async def find(
        self, archival: Mapping[str, Record], files: Mapping[str, Sequence[str] | None]
    ) -> list[FoundObject]:
        """Return what is to be recorded for each archival object, by its identifier."""
        ids = {key: self._options.digital_object_id or key for key in archival}
        there, like = await self._client.find_by_id("digital_objects", "digital_object_id", ids.values())
        by_id = {one["digital_object_id"]: one for one in there}
        by_id_like = {records.alike(one["digital_object_id"]): one for one in like}
        found = []
        for key, record in archival.items():
            id_ = ids[key]
            if len(id_) > LONGEST_ID:
                self.problems.append(f"{id_} is longer than {LONGEST_ID} characters")
            if strange := records.beyond(id_):
                self.problems.append(f"{id_}: ArchivesSpace's database cannot hold {strange}")
            one = by_id.get(id_) or self._alike(record, id_, by_id_like.get(records.alike(id_)))
            object_ = await self._one(record, id_, one)
            names = files[key]
            found.append(self._found(key, record, id_, object_, files=None if names is None else list(names)))
        return found

    async def find_each(
        self, archival: Mapping[str, Record], files: Mapping[str, Mapping[str, str]]
    ) -> list[FoundObject]:
        """Return what is to be recorded for each file: as `find`, by the ids that `files` has for them."""
        ids = [id_ for some in files.values() for id_ in some]
        there, like = await self._client.find_by_id("digital_objects", "digital_object_id", ids)
        by_id = {one["digital_object_id"]: one for one in there}
        by_id_like = {records.alike(one["digital_object_id"]): one for one in like}
        found = []
        for key, record in archival.items():
            own = set()
            some = sorted(files.get(key, {}).items(), key=lambda one: natural_order.key(os.fsencode(one[1])))
            for id_, path in some:
                one = by_id.get(id_) or self._alike(record, id_, by_id_like.get(records.alike(id_)))
                if one is not None:
                    self._see_its(record, id_, one)
                    own.add(one["uri"])
                name = path.rpartition("/")[2] if len(some) > 1 else ""
                found.append(self._found(key, record, id_, one or {}, files=[path], each=True, name=name))
            self._see_others(record, own)
        return found

    def _see_others(self, archival: Record, own: Collection[str]) -> None:
        """See that nothing else is linked, unless one more may be."""
        self._see_once(archival)
        others = set(records.linked(archival)) - set(own)
        if others and self._options.linked != "add":
            self.problems.append(
                f"{archival['uri']} has {', '.join(sorted(others))} already, which is of none of these "
                "files: set linked: add"
            )

    def _found(
        self,
        key: str,
        record: Record,
        id_: str,
        object_: Record,
        *,
        files: list[str] | None,
        each: bool = False,
        name: str = "",
    ) -> FoundObject:
        """Return what is known of a digital object that is there or to be made.

        Args:
            name: of its file, which tells it from the others in its title.
        """
        markup = record.get("display_string") or record.get("title") or key
        return FoundObject(
            identifier=key,
            uri=record["uri"],
            title=(description.title_of(record) or key) + (f" ({name})" if name else ""),
            digital_object_id=object_.get("digital_object_id", id_),
            digital_object=object_.get("uri", ""),
            files=files,
            markup=markup + (f" ({html.escape(name, quote=False)})" if name else ""),
            each=each,
            copied=copied_fields.copied(record, self._options.parts),
        )

    def _alike(self, archival: Record, id_: str, there: Record | None) -> Record | None:
        """Return a digital object whose id differs by capitals or accents alone, if it is this one's own.

        Both cannot exist, and another's is not to be recorded into.
        """
        if there is None:
            return None
        if there["uri"] not in records.linked(archival):
            self.problems.append(
                f'the digital object id "{id_}" cannot be given: {there["uri"]} is called '
                f'"{there["digital_object_id"]}", which ArchivesSpace\'s database treats as the same: set '
                "digital_object_id, or correct that one"
            )
        return there

    async def see_free(self, found: Sequence[FoundObject], ids: Mapping[str, Iterable[str]]) -> None:
        """See that no component elsewhere has an id that is to be given: they are unique in the repository.

        Source: migration 001, doc_unique_identifier (repo_id, component_id), by the database's collation.
        """
        own = {one.identifier: one.digital_object for one in found}
        of = {records.alike(id_): (id_, own[key]) for key, some in ids.items() for id_ in some if key in own}
        wanted = [id_ for id_, _ in of.values()]
        taken = []
        for one in chain(*await self._client.find_by_id("digital_object_components", "component_id", wanted)):
            id_, object_ = of.get(records.alike(one["component_id"]), ("", ""))
            there = str((one.get("digital_object") or {}).get("ref", ""))
            if id_ and (there != object_ or one["component_id"] != id_):
                taken.append(f'"{id_}" by {one["uri"]} ("{one["component_id"]}") of {there}')
        if taken:
            self.problems.append(
                f"ids of components, which are unique in the repository, are taken: {some_of(taken)}: set "
                "component_id, such as {object-id}_{stem}, or correct those"
            )

    async def _one(self, archival: Record, id_: str, there: Record | None) -> Record:
        """Return the digital object to be used; {} when one is to be created."""
        uri, links = archival["uri"], records.linked(archival)
        self._see_once(archival)
        if there is not None:
            self._see_its(archival, id_, there)
            return there
        if not links or self._options.linked == "add":
            return {}
        if self._options.linked == "use" and len(set(links)) == 1:
            used = await self._client.get(links[0])
            self._see_shown(used)
            return used
        self.problems.append(
            f"{uri} has {', '.join(links)} already, of which none has the id {id_}: set linked: "
            "use (where there is one) or add"
        )
        return {}

    def _see_shown(self, there: Record) -> None:
        if there.get("suppressed"):
            self.problems.append(f"{there['uri']} is suppressed, and nobody would see it: lift that")

    def _see_once(self, archival: Record) -> None:
        uri, links = archival["uri"], records.linked(archival)
        for twice in sorted({link for link in links if links.count(link) > 1}):
            self.problems.append(f"{uri} is linked to {twice} {links.count(twice)} times: remove all but one")

    def _see_its(self, archival: Record, id_: str, there: Record) -> None:
        """See that a digital object of a wanted id can be used for this archival object."""
        self._see_shown(there)
        holders = {one["ref"] for one in there.get("linked_instances", ())} - {archival["uri"]}
        if holders and there["uri"] not in records.linked(archival):
            self.problems.append(
                f'the digital object id "{id_}" is taken by {there["uri"]}, which belongs to '
                f"{', '.join(sorted(holders))}: set digital_object_id, or correct that one"
            )
