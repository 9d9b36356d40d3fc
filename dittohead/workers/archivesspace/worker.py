"""archivesspace: finds a folder's archival objects, and records in them what lies where, verified."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from dittohead.contract.worker import (
    Done,
    Planned,
    StepContext,
    StepResult,
    UndoContext,
    VerifyContext,
    Worker,
)
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.text import counted
from dittohead.system.threads import in_thread
from dittohead.workers.archivesspace import (
    diff,
    doctor,
    events,
    intent_log,
    plan,
    preflight,
    verify,
)
from dittohead.workers.archivesspace.client import opened
from dittohead.workers.archivesspace.diff import WantedRecord
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from dittohead.workers.archivesspace.preflight import FoundObject
from dittohead.workers.archivesspace.undo import ArchivesSpaceUndo
from dittohead.workers.archivesspace.write import ArchivesSpaceWriter, WriteCounts, head_of


class ArchivesSpaceWorker(Worker[ArchivesSpaceOptions]):
    """Knows what ArchivesSpace says of a folder's objects, and tells it where their files lie."""

    name = "archivesspace"
    Options = ArchivesSpaceOptions
    default_limit = 2
    per_file = frozenset({"component_id", "label"})
    file_values = frozenset({"object-id"})
    takes = frozenset({"masters", "access"})
    describes = True

    def check(self, options: ArchivesSpaceOptions) -> list[str]:
        """See that there is something to record."""
        if options.write and not options.masters and not options.access:
            return ["it would record no file: name steps in masters or access, or set write: false"]
        return []

    def target(self, options: ArchivesSpaceOptions) -> str:
        """Return the site."""
        return options.url

    async def doctor(
        self, options: ArchivesSpaceOptions, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Say whether the user can log in and may do what is asked, and what the site's lists lack."""
        async for one in doctor.doctor(options, secret):
            yield one

    async def preflight(self, ctx: StepContext, options: ArchivesSpaceOptions) -> Mapping[str, Any]:
        """Find the archival objects and whatever stands against recording; nothing is written."""
        async with opened(options, ctx.secret) as client:
            return await preflight.examine(ctx, options, client)

    async def _facts(self, ctx: StepContext, options: ArchivesSpaceOptions) -> Mapping[str, Any]:
        facts = await asyncio.to_thread(ctx.facts, ctx.step)
        return facts or await self.preflight(ctx, options)

    async def plan(self, ctx: StepContext, options: ArchivesSpaceOptions) -> AsyncIterator[Planned]:
        """Tell what would be recorded."""
        if not options.write:
            return
        facts = await self._facts(ctx, options)
        wanted = await in_thread(lambda _: diff.wanted(ctx, options, FoundObject.of(facts)))
        known = diff.of_mapping(facts["enumerations"])
        async with opened(options, ctx.secret) as client:
            async for one in plan.plan(client, options, known, wanted):
                yield one

    async def run(self, ctx: StepContext, options: ArchivesSpaceOptions) -> StepResult:
        """Record what is not recorded yet; a try after a crash goes on where the last one was."""
        if not options.write:
            return Done(detail="looked up only")
        facts = await self._facts(ctx, options)
        await in_thread(lambda _: diff.see_something(ctx, options))
        wanted = await in_thread(lambda _: diff.wanted(ctx, options, FoundObject.of(facts)))
        if options.check_access:
            await verify.fetch_shown(options, wanted)
        notes = intent_log.RecordIntentLog(ctx.ledger, head_of(ctx, options, wanted))
        try:
            async with opened(options, ctx.secret) as client:
                known = diff.of_mapping(facts["enumerations"])
                recording = ArchivesSpaceWriter(ctx, options, client, notes, known)
                for of, difference in await recording.record(wanted):
                    if options.events:
                        await events.record(recording, of)
                    for location in await verify.read_back(client, options, known, of, difference):
                        ctx.location(location)
        finally:
            await asyncio.to_thread(notes.close)
        return _result(ctx, options, wanted, recording.counts)

    async def verify(self, ctx: VerifyContext, options: ArchivesSpaceOptions) -> None:
        """Read each record again and compare what it says of our files."""
        async with opened(options, ctx.secret) as client:
            await verify.verify(ctx, client)

    async def undo(self, ctx: UndoContext, options: ArchivesSpaceOptions) -> None:
        """Take out what this job has put in, where nobody has changed it since."""
        lines = await asyncio.to_thread(intent_log.read, ctx.ledger)
        if not lines:
            return
        async with opened(options, ctx.secret) as client:
            await ArchivesSpaceUndo(ctx, client, lines).run()


def _result(
    ctx: StepContext, options: ArchivesSpaceOptions, wanted: list[WantedRecord], counts: WriteCounts
) -> Done:
    pages = sum(len(one.pages) for one in wanted)
    copies = sum(len(page.copies) for one in wanted for page in one.pages)
    archival = {one.found.identifier for one in wanted}
    what = archival.pop() if len(archival) == 1 else f"{len(archival)} archival objects"
    kind = "digital object" if options.digital_objects == "each" else "component"
    words = f"{what} at {options.url}: {counted(pages, kind)} with {counted(copies, 'file version')}"
    left = sum(one.left for one in wanted)
    if left and any(ctx.made_by(step) is not None for step in options.masters):
        words += f" (without a copy, and so without a {kind}: {counted(left, 'file')})"
    shown = sum(len(one.shown) for one in wanted)
    words += f", {shown} for access" if shown else ""
    words += f"; records {counts.words()}; read back" if counts.words() else ""
    ctx.event(Event(type=EventType.METADATA, outcome="success", detail=words, agent=AGENT))
    return Done(detail=words)
