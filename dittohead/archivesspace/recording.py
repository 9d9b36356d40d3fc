"""Recording: each write noted before it is sent, and never sent twice without having looked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dittohead.archivesspace import ledger as ledgers
from dittohead.archivesspace import looking, records
from dittohead.archivesspace.client import Client, not_unique
from dittohead.archivesspace.ledger import Ledger
from dittohead.archivesspace.looking import Difference, Page, Wanted
from dittohead.archivesspace.options import ArchivesSpaceOptions
from dittohead.archivesspace.records import Record
from dittohead.errors import ItemError, TransientError
from dittohead.threads import in_thread
from dittohead.worker import StepContext

#: Children in one request: each is saved on its own within one transaction.
CHUNK = 200

#: Rounds of looking and creating what is missing before it is left to a later try.
_ROUNDS = 4

_UNIT = "records"


@dataclass(kw_only=True)
class Counts:
    """What was done, for people."""

    created: int = 0
    changed: int = 0
    kept: int = 0

    def words(self) -> str:
        """Return it as one line."""
        named = (("created", self.created), ("changed", self.changed), ("right already", self.kept))
        return ", ".join(f"{number} {word}" for word, number in named if number)


def head_of(ctx: StepContext, options: ArchivesSpaceOptions, wanted: Sequence[Wanted]) -> dict[str, Any]:
    """Return a ledger's first line."""
    return {
        "worker": "archivesspace",
        "job": ctx.job_id,
        "step": ctx.step,
        "url": options.url,
        "repository": options.repository,
        "objects": [one.found.digital_object_id for one in wanted],
    }


class Recording:
    """One try of recording one folder's objects."""

    def __init__(
        self,
        ctx: StepContext,
        options: ArchivesSpaceOptions,
        client: Client,
        ledger: Ledger,
        known: Mapping[str, frozenset[str]],
    ) -> None:
        self.ctx, self.options, self.client, self.known = ctx, options, client, known
        self.counts = Counts()
        self._ledger = ledger
        self._steps = self._total = 0

    async def note(self, **fields: Any) -> None:
        """Keep a line of the ledger durably, and see that this run still owns the job."""
        await in_thread(lambda _: self._ledger.note(**fields))
        await self.ctx.fence()

    async def record(self, wanted: Sequence[Wanted]) -> list[tuple[Wanted, Difference]]:
        """Record all objects; return them with what was written, as it is there now."""
        self._total = sum(len(one.pages) + 2 for one in wanted)
        for one in wanted:
            await self._see_still(one)
        ours = await in_thread(lambda _: self._recorded_before(wanted))
        return [await self._object(one, ours) for one in wanted]

    async def _see_still(self, of: Wanted) -> None:
        """See that what was looked up before the first step is still so: days may lie between.

        Raises: ItemError: the archival object is gone, or is called otherwise.
        """
        record, by = await self.client.find(of.found.uri), self.options.by
        if record is None:
            what = "is gone"
        elif by != "ark" and record.get(by) != of.found.identifier:
            what = f'is "{record.get(by, "")}" now'
        else:
            return
        raise ItemError(
            f'the archival object that was "{of.found.identifier}" {what}; nothing was recorded',
            where=self.client.shown(of.found.uri),
            hint=f"To look it up anew: dittohead rerun {self.ctx.job_id}",
        )

    def _recorded_before(self, wanted: Sequence[Wanted]) -> dict[str, dict[str, str]]:
        """Return by digital object id the access URIs that all jobs have recorded, and as what."""
        found: dict[str, dict[str, str]] = {}
        if not any(one.shown for one in wanted):
            return found
        head = head_of(self.ctx, self.options, wanted)
        for line in ledgers.of_other_jobs(self.ctx.ledger, head):
            if line.get("access"):
                found.setdefault(line["of"], {}).update(line["access"])
        return found

    def _progress(self, number: int = 1) -> None:
        self._steps += number
        self.ctx.progress(min(self._steps, self._total), self._total, _UNIT)

    async def _object(self, of: Wanted, ours: Mapping[str, Mapping[str, str]]) -> tuple[Wanted, Difference]:
        uri = await self._digital_object(of)
        of.found = replace(of.found, digital_object=uri)
        self._progress()
        await self._link(of)
        self._progress()
        found = await self._components(of)
        # Saving the archival object has changed the digital object's version: it is read anew.
        await self._access(of, ours.get(of.found.digital_object_id, {}))
        return of, found

    async def _sent(self, path: str, body: Record, named: str) -> Record | None:
        """Create what was noted last; None where only looking tells whether it is there.

        Args:
            named: the id or uri that the note names; when another has it, the note is taken back.
        """
        try:
            return await self.client.create(path, body)
        except TransientError as error:
            if error.retry_after_s is not None:
                raise
        except ItemError as error:
            if not not_unique(error):
                raise
            await self.note(do="void", uri=named)
        return None

    # -- the digital object ------------------------------------------------------------------

    async def _digital_object(self, of: Wanted) -> str:
        """Return the digital object's uri; it is created where it is not there."""
        body = self._new(of)
        for number in range(_ROUNDS):
            there = await self._present(of)
            if there is not None:
                if number == 0:
                    self.counts.kept += 1
                return str(there["uri"])
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
        raise TransientError("it cannot be created", where=of.found.digital_object_id)

    def _new(self, of: Wanted) -> Record:
        access = of.access(self.options, self.known)
        type_ = of.type(self.options, self.known)
        found = of.found
        publish = self.options.publish
        return records.digital_object(
            found.digital_object_id, found.title, type_, publish=publish, versions=access
        )

    async def _present(self, of: Wanted) -> Record | None:
        if of.found.digital_object:
            found = await self.client.find(of.found.digital_object)
            if found is not None and found.get("digital_object_id") == of.found.digital_object_id:
                return found
        id_ = of.found.digital_object_id
        hits = await self.client.find_by_id("digital_objects", "digital_object_id", [id_])
        for hit in hits:
            holders = {one["ref"] for one in hit.get("linked_instances", ())}
            if holders and of.found.uri not in holders:
                raise ItemError(
                    f'the digital object id "{id_}" was taken meanwhile, by {hit["uri"]}',
                    where=self.client.shown(of.found.uri),
                    hint="Set digital_object_id, or correct that one, and do the folder again",
                )
            return hit
        return None

    async def _link(self, of: Wanted) -> None:
        uri = of.found.digital_object

        async def apply(record: Record) -> bool:
            if uri in records.linked(record):
                return False
            links = record.get("instances", [])
            first = not any(one.get("is_representative") for one in links)
            record["instances"] = [*links, records.instance(uri, representative=first)]
            await self.note(do="link", archival_object=record["uri"], digital_object=uri)
            return True

        await self._change(of.found.uri, apply)

    async def _access(self, of: Wanted, before: Mapping[str, str]) -> None:
        new = of.access(self.options, self.known)
        # Another step's manifest does not make the page of this one an old one.
        ours = {uri for uri, role in before.items() if role in of.roles.values()}
        published = self.options.publish

        async def apply(record: Record) -> bool:
            old = record.get("file_versions", [])
            versions = looking.with_access(old, new, ours) if new else None
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

    async def _components(self, of: Wanted) -> Difference:
        """Create what is missing, in order, and bring up what differs; look again until nothing does."""
        kept: int | None = None
        for _ in range(_ROUNDS):
            found = await looking.compare(self.client, self.options, self.known, of, of.found.digital_object)
            if kept is None:
                kept = len(found.same)
                self.counts.kept += kept
                self._progress(kept)
            if not found.missing and not found.differing:
                return found
            await self._create(of, found.missing)
            for page, uri in found.differing:
                await self._bring_up(of, page, uri)
        raise TransientError(
            "its components are not what was sent, again and again",
            where=self.client.shown(of.found.digital_object),
        )

    async def _create(self, of: Wanted, missing: Sequence[tuple[Page, int | None]]) -> None:
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

    async def _bring_up(self, of: Wanted, page: Page, uri: str) -> None:
        new = of.versions(page, self.options, self.known)

        async def apply(record: Record) -> bool:
            old = record.get("file_versions", [])
            versions = looking.with_masters(old, new)
            if versions is None:
                return False
            record["file_versions"] = versions
            await self.note(do="change", uri=uri, before=_kept(old), after=_kept(versions))
            return True

        await self._change(uri, apply)
        self._progress()


def _kept(versions: Sequence[Record]) -> list[Record]:
    """Return file versions as the ledger keeps them: all that can be sent again."""
    left = ("identifier", "lock_version", "created_by", "last_modified_by")
    times = ("create_time", "system_mtime", "user_mtime")
    return [{name: one[name] for name in one if name not in (*left, *times)} for one in versions]
