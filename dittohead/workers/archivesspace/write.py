"""Recording: each write noted before it is sent, and never sent twice without having looked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from dittohead.contract.worker import StepContext
from dittohead.model.errors import ItemError, StepError, TransientError
from dittohead.system.threads import in_thread
from dittohead.workers.archivesspace import diff, records
from dittohead.workers.archivesspace import intent_log as ledgers
from dittohead.workers.archivesspace.client import ArchivesSpaceClient, Taken
from dittohead.workers.archivesspace.component_names import some_of
from dittohead.workers.archivesspace.diff import (
    ComponentDifference,
    ComponentFile,
    RecordBefore,
    WantedRecord,
)
from dittohead.workers.archivesspace.intent_log import RecordIntentLog
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from dittohead.workers.archivesspace.records import Record

#: Children in one request: each is saved on its own within one transaction.
CHUNK = 200

#: Rounds of looking and creating what is missing before it is left to a later try.
_ROUNDS = 4

_UNIT = "records"


@dataclass(kw_only=True)
class WriteCounts:
    """What was done, for people."""

    created: int = 0
    changed: int = 0
    kept: int = 0

    def words(self) -> str:
        """Return it as one line."""
        named = (("created", self.created), ("changed", self.changed), ("right already", self.kept))
        return ", ".join(f"{number} {word}" for word, number in named if number)


def head_of(
    ctx: StepContext, options: ArchivesSpaceOptions, wanted: Sequence[WantedRecord]
) -> dict[str, Any]:
    """Return the first line of an intent log: whose it is, and which objects it is about.

    Args:
        wanted: what is to be recorded, in the order in which it is written.
    """
    return {
        "worker": "archivesspace",
        "job": ctx.job_id,
        "step": ctx.step,
        "url": options.url,
        "repository": options.repository,
        "objects": [one.found.digital_object_id for one in wanted],
    }


class ArchivesSpaceWriter:
    """One try of recording one folder's objects."""

    def __init__(
        self,
        ctx: StepContext,
        options: ArchivesSpaceOptions,
        client: ArchivesSpaceClient,
        ledger: RecordIntentLog,
        known: Mapping[str, frozenset[str]],
    ) -> None:
        self.ctx, self.options, self.client, self.known = ctx, options, client, known
        self.counts = WriteCounts()
        self._ledger = ledger
        self._steps = self._total = 0
        self._refusal: Taken | None = None  #: why the last creation was refused
        self._before = RecordBefore()

    async def note(self, **fields: Any) -> None:
        """Keep a line of the intent log durably, and see that this run still owns the job."""
        await in_thread(lambda _: self._ledger.note(**fields))
        await self.ctx.fence()

    async def record(self, wanted: Sequence[WantedRecord]) -> list[tuple[WantedRecord, ComponentDifference]]:
        """Record all objects; return them with what was written, as it is there now."""
        self._total = sum(len(one.pages) + 2 for one in wanted)
        for one in wanted:
            await self._see_still(one)
        self._before = await in_thread(lambda _: self._recorded_before(wanted))
        if self.options.digital_objects == "each":
            return await self._each(wanted)
        return [await self._object(one) for one in wanted]

    async def _each(self, wanted: Sequence[WantedRecord]) -> list[tuple[WantedRecord, ComponentDifference]]:
        """Record a digital object for each file; each archival object is saved once for all of its own."""
        links: dict[str, list[str]] = {}
        for of in wanted:
            of.found = replace(of.found, digital_object=await self._digital_object(of))
            links.setdefault(of.found.uri, []).append(of.found.digital_object)
            self._progress()
        for uri, objects in links.items():
            await self._link(uri, objects)
        for of in wanted:
            await self._access(of, self._before.access.get(of.found.digital_object_id, {}))
            self._progress(2)
        return [(of, ComponentDifference()) for of in wanted]

    async def _see_still(self, of: WantedRecord) -> None:
        """See that what was looked up before the first step is still so: days may lie between.

        Raises: ItemError: the archival object is gone, or is called otherwise.
        """
        record, by = await self.client.find(of.found.uri), self.options.by
        if record is None:
            what = "is gone"
        elif record.get("suppressed"):
            what = "is suppressed now"
        elif by != "ark" and record.get(by) != of.found.identifier:
            what = f'is "{record.get(by, "")}" now'
        else:
            return
        raise ItemError(
            f'the archival object that was "{of.found.identifier}" {what}; nothing was recorded',
            where=self.client.shown(of.found.uri),
            hint=f"To look it up again: dittohead rerun {self.ctx.job_id}",
        )

    def _recorded_before(self, wanted: Sequence[WantedRecord]) -> RecordBefore:
        head = head_of(self.ctx, self.options, wanted)
        return diff.of_ledger(ledgers.of_other_jobs(self.ctx.ledger, head))

    def _progress(self, number: int = 1) -> None:
        self._steps += number
        self.ctx.progress(min(self._steps, self._total), self._total, _UNIT)

    async def _object(self, of: WantedRecord) -> tuple[WantedRecord, ComponentDifference]:
        uri = await self._digital_object(of)
        of.found = replace(of.found, digital_object=uri)
        self._progress()
        await self._link(of.found.uri, [uri])
        self._progress()
        found = await self._components(of)
        # Saving the archival object has changed the digital object's version: it is read again.
        await self._access(of, self._before.access.get(of.found.digital_object_id, {}))
        return of, found

    async def _sent(self, path: str, body: Record, named: str) -> Record | None:
        """Create what was noted last; None where only looking tells whether it is there.

        A refusal is kept: when looking finds nothing, it is what is told.

        Args:
            named: the id or uri that the note names; when another has it, the note is taken back.
        """
        try:
            return await self.client.create(path, body)
        except TransientError as error:
            if error.retry_after_s is not None:
                raise
        except Taken as error:
            await self.note(do="void", uri=named)
            self._refusal = error
        return None

    def _give_up(self, where: str, what: str, more: str) -> StepError:
        """Return why something cannot be created: the server's words, where it has refused."""
        if self._refusal is None:
            return TransientError(what, where=where)
        return ItemError(f"{what}: {self._refusal.what}; {more}", where=where)

    # -- the digital object ------------------------------------------------------------------

    async def _digital_object(self, of: WantedRecord) -> str:
        """Return the digital object's uri; it is created where it is not there."""
        body = self._new(of)
        self._refusal = None
        for number in range(_ROUNDS):
            there = await self._present(of)
            if there is not None:
                if number == 0:
                    self.counts.kept += 1
                return str(there["uri"])
            if self._refusal is not None:
                break  # refused, and not to be found
            await self.note(
                do="create",
                what="digital object",
                of=of.found.digital_object_id,
                content=records.content(body),
                access=of.roles,
            )
            made = await self._sent(f"{self.options.base}/digital_objects", body, of.found.digital_object_id)
            if made is not None:
                self.counts.created += 1
                if made.get("uri"):
                    return str(made["uri"])
        raise self._give_up(
            of.found.digital_object_id,
            "its digital object cannot be created",
            "yet none of this id can be found: it may be suppressed",
        )

    def _new(self, of: WantedRecord) -> Record:
        versions = [*of.access(self.options, self.known), *of.masters(self.options, self.known)]
        type_ = of.type(self.options, self.known)
        found = of.found
        publish = self.options.publish
        title = records.title_of(found.markup, found.title)
        made = records.digital_object(
            found.digital_object_id, title, type_, publish=publish, versions=versions
        )
        return made | found.copied

    async def _present(self, of: WantedRecord) -> Record | None:
        if of.found.digital_object:
            found = await self.client.find(of.found.digital_object)
            if found is not None and found.get("digital_object_id") == of.found.digital_object_id:
                return self._visible(found)
        id_ = of.found.digital_object_id
        exact, like = await self.client.find_by_id("digital_objects", "digital_object_id", [id_])
        for hit in [*exact, *like]:
            holders = {one["ref"] for one in hit.get("linked_instances", ())}
            # One whose id differs by capitals or accents is another's, unless it is linked to ours.
            others = hit not in exact or bool(holders)
            if others and of.found.uri not in holders:
                raise ItemError(
                    f'the digital object id "{id_}" was taken meanwhile, by {hit["uri"]} '
                    f'("{hit["digital_object_id"]}")',
                    where=self.client.shown(of.found.uri),
                    hint="Set digital_object_id, or correct that one, and run the folder again",
                )
            return self._visible(hit)
        return None

    def _visible(self, object_: Record) -> Record:
        if object_.get("suppressed"):
            raise ItemError(
                "this digital object is suppressed, and nobody would see it",
                where=self.client.shown(object_["uri"]),
                hint=f"Lift that, then: dittohead retry {self.ctx.job_id}",
            )
        return object_

    async def _link(self, archival: str, objects: Sequence[str]) -> None:
        async def apply(record: Record) -> bool:
            there = set(records.linked(record))
            new = [uri for uri in objects if uri not in there]
            if not new:
                return False
            links = record.get("instances", [])
            first = not any(one.get("is_representative") for one in links)
            made = [records.instance(uri, representative=first and uri == new[0]) for uri in new]
            record["instances"] = [*links, *made]
            more = {"more": new[1:]} if new[1:] else {}
            await self.note(do="link", archival_object=record["uri"], digital_object=new[0], **more)
            return True

        await self._change(archival, apply)

    async def _access(self, of: WantedRecord, before: Mapping[str, str]) -> None:
        # Another step's manifest does not make the page of this one an old one.
        ours = {uri for uri, role in before.items() if role in of.roles.values()}
        published = self.options.publish

        async def apply(record: Record) -> bool:
            old = record.get("file_versions", [])
            versions = diff.with_own(of, self.options, self.known, old, ours)
            publish = published and not record.get("publish")
            if versions is None and not publish:
                return False
            fields: dict[str, Any] = {"publish": True} if publish else {}
            if versions is not None:
                fields |= {"before": _kept(old), "after": _kept(versions)}
                fields["access"] = of.roles
                record["file_versions"] = versions
            record["publish"] = bool(record.get("publish") or published)
            await self.note(do="change", uri=record["uri"], of=of.found.digital_object_id, **fields)
            return True

        await self._change(of.found.digital_object, apply)

    async def _change(self, uri: str, apply: Callable[[Record], Awaitable[bool]]) -> None:
        changes = 0

        async def counted(record: Record) -> bool:
            nonlocal changes
            wanted = await apply(record)
            changes += wanted
            return wanted

        async def void() -> None:
            await self.note(do="void", uri=uri)

        await self.client.change(uri, counted, void)
        if changes:
            self.counts.changed += 1
        else:
            self.counts.kept += 1

    # -- components --------------------------------------------------------------------------

    async def _components(self, of: WantedRecord) -> ComponentDifference:
        """Create what is missing, in order, and bring up what differs; look again until nothing does."""
        kept: int | None = None
        uri = of.found.digital_object
        former = self._before.components.get(uri, ())
        self._refusal = None
        for _ in range(_ROUNDS):
            found = await diff.compare(self.client, self.options, self.known, of, uri, former)
            if kept is None:
                kept = len(found.same)
                self.counts.kept += kept
                self._progress(kept)
            if not found.missing and not found.differing:
                return found
            if self._refusal is not None and found.missing:
                await self._see_who_has(found.missing)
            await self._create(of, found.missing)
            for page, component in found.differing:
                await self._bring_up(of, page, component)
        raise self._give_up(
            self.client.shown(uri), "its components are not what was sent, again and again", "looked at again"
        )

    async def _see_who_has(self, missing: Sequence[tuple[ComponentFile, int | None]]) -> None:
        """See that what was refused as taken is not another's. Raises: ItemError: with the server's words."""
        ids = [page.component_id for page, _ in missing]
        hits = await self.client.find_by_id("digital_object_components", "component_id", ids)
        taken = [
            f'"{one["component_id"]}" by {one["uri"]} of {(one.get("digital_object") or {}).get("ref", "")}'
            for one in chain(*hits)
        ]
        if taken and self._refusal is not None:
            raise ItemError(
                f"ids of components are taken: {some_of(taken)}; ArchivesSpace says: {self._refusal.what}",
                where=self.client.shown(self.options.base),
                hint="Set component_id, or correct those, and run the folder again",
            )

    async def _create(self, of: WantedRecord, missing: Sequence[tuple[ComponentFile, int | None]]) -> None:
        uri = of.found.digital_object
        for at in range(0, len(missing), CHUNK):
            some = missing[at : at + CHUNK]
            children = []
            for page, position in some:
                child = of.component(page, self.options, self.known) | {"digital_object": {"ref": uri}}
                children.append(child if position is None else child | {"position": position})
            contents = {child["component_id"]: records.content(child) for child in children}
            await self.note(do="create", what="components", uri=uri, contents=contents)
            if await self._sent(f"{uri}/children", {"children": children}, uri) is None:
                return  # look first
            self.counts.created += len(some)
            self._progress(len(some))

    async def _bring_up(self, of: WantedRecord, page: ComponentFile, uri: str) -> None:
        new = of.versions(page, self.options, self.known)

        async def apply(record: Record) -> bool:
            old = record.get("file_versions", [])
            versions = diff.with_masters(old, new)
            if versions is None:
                return False
            record["file_versions"] = versions
            await self.note(do="change", uri=uri, before=_kept(old), after=_kept(versions))
            return True

        await self._change(uri, apply)
        self._progress()


def _kept(versions: Sequence[Record]) -> list[Record]:
    """Return file versions as the intent log keeps them: all that can be sent again."""
    left = ("identifier", "lock_version", "created_by", "last_modified_by")
    times = ("create_time", "system_mtime", "user_mtime")
    return [{name: one[name] for name in one if name not in (*left, *times)} for one in versions]
