"""islandora: nodes, pages and media at an Islandora 2 site, each created once and verified there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dittohead import __version__
from dittohead.contract.worker import (
    Done,
    Planned,
    StepContext,
    StepResult,
    UndoContext,
    VerifyContext,
    Wait,
    Worker,
)
from dittohead.folders import receipt
from dittohead.model.errors import StepError
from dittohead.model.events import Event, EventType
from dittohead.model.records import Location, Use
from dittohead.model.text import display
from dittohead.system.threads import in_thread
from dittohead.toolkit.keyed_lock import KeyedLock
from dittohead.workers.islandora import objects, preflight, public
from dittohead.workers.islandora.intent_log import EntityIntentLog
from dittohead.workers.islandora.options import IslandoraOptions
from dittohead.workers.islandora.public import PublicObject
from dittohead.workers.islandora.sign_in import RefusedSignIns
from dittohead.workers.islandora.site import Drupal
from dittohead.workers.islandora.undo import IslandoraUndo
from dittohead.workers.islandora.write import IslandoraWriter

_AGENT = f"dittohead {__version__} (islandora)"

#: Seconds between two looks for what the site makes by itself.
_ASK_S = 30.0

#: The file in `work` that keeps what was delivered while the site is waited for.
_DELIVERED = "delivered.jsonl"


@dataclass(frozen=True, kw_only=True)
class _Delivered:
    """What a run has brought, before the site has made its own of it."""

    shown: Sequence[PublicObject]
    detail: str
    since: float  #: when it was complete, seconds since the epoch


class IslandoraWorker(Worker[IslandoraOptions]):
    """Brings a folder's images to an Islandora site as an object with pages."""

    name = "islandora"
    Options = IslandoraOptions
    takes = frozenset({"service", "thumbnails", "text"})
    knows = frozenset({"record"})
    default_limit = 2

    def __init__(self) -> None:
        #: Of objects at sites: the site does not refuse a second media of a page by two jobs at once.
        self.locks = KeyedLock()
        self.sign_in = RefusedSignIns()

    def check(self, options: IslandoraOptions) -> list[str]:
        """Say what cannot be."""
        if options.ca_bundle and not Path(options.ca_bundle).exists():
            return [f"ca_bundle {options.ca_bundle} does not exist"]
        return []

    def target(self, options: IslandoraOptions) -> str:
        """Return the site, as the user: what one may not do does not stop another."""
        return f"{options.url} as {options.user}"

    async def doctor(
        self, options: IslandoraOptions, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Say whether the site can be used as these options want it, and what to enable there."""
        parts = urlsplit(options.url)
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            yield False, f"{options.url}: the password is sent with each request, unencrypted. Use https://"
        try:
            async with preflight.opened(options, secret(options.credential)) as site:
                async for said in preflight.examined(site, options):
                    yield said
        except StepError as error:
            yield False, str(error)

    async def preflight(self, ctx: StepContext, options: IslandoraOptions) -> Mapping[str, Any]:
        """Look for the terms, the collection and the objects; compare fields with what is to be written."""
        known = ctx.described(options.record)
        async with self.sign_in.entered(options, ctx.secret(options.credential)) as site:
            base = await preflight.ground(site, options)
            descriptions = [found.description for found in known.objects]
            await preflight.check_fields(site, options, base, descriptions)
            nids = {}
            for found in descriptions:
                node = await preflight.existing(site, options, found, base, paged=None)
                nids[found.identifier] = None if node is None else node.nid
        return {"site": options.url, "terms": base.terms, "collection": base.collection, "objects": nids}

    async def plan(self, ctx: StepContext, options: IslandoraOptions) -> AsyncIterator[Planned]:
        """Say which nodes would be created and which files sent, by what preflight has found."""
        nids = ctx.facts(ctx.step).get("objects", {})
        for thing in await in_thread(lambda stop: objects.things(ctx, options, stop)):
            nid = nids.get(thing.description.identifier)
            where = f"{options.url}/node/{nid}" if nid else f"POST {options.url}/node"
            kind = f"paged content, {len(thing.pages)} pages" if thing.paged else "image"
            yield Planned(
                action="keep" if nid else "create",
                what=thing.description.identifier,
                where=where,
                detail=kind,
            )
            ctx.location(
                Location(
                    uri=f"{options.url}/node/{nid or ''}",
                    path=thing.first,
                    size=0,
                    sha256="",
                    verified_by="",
                    use=Use.PAGE,
                )
            )
            for page in thing.pages:
                if thing.paged and not nid:
                    detail = f"page {page.weight}"
                    yield Planned(action="create", what=page.identifier, where=where, detail=detail)
                for part in page.parts:
                    what = display(part.entry.path)
                    place = f"PUT {options.url}/node/{nid or 'N'}/media/{part.bundle}"
                    detail = f"{part.use}, {part.entry.size:,} bytes"
                    yield Planned(action="send", what=what, where=place, detail=detail)
                    ctx.location(
                        Location(
                            uri=f"{options.url}/",
                            path=part.entry.path,
                            size=part.entry.size,
                            sha256=part.entry.sha256,
                            verified_by="",
                        )
                    )

    async def run(self, ctx: StepContext, options: IslandoraOptions) -> StepResult:
        """Create what is not there yet; a try after a crash finds what the last one created."""
        async with self.sign_in.entered(options, ctx.secret(options.credential)) as site:
            delivered = await _resumed(ctx)
            if delivered is None:
                delivered = await self._deliver(ctx, options, site)
            return await self._show(ctx, options, site, delivered)

    async def _deliver(self, ctx: StepContext, options: IslandoraOptions, site: Drupal) -> _Delivered:
        things = await in_thread(lambda stop: objects.things(ctx, options, stop))
        async with self.locks.all_of(f"{options.url} {thing.description.identifier}" for thing in things):
            return await self._bring(ctx, options, site, things)

    async def _bring(
        self, ctx: StepContext, options: IslandoraOptions, site: Drupal, things: Sequence[objects.SiteObject]
    ) -> _Delivered:
        base = await preflight.ground(site, options)
        ledger = await EntityIntentLog.opened(
            ctx.ledger, {"worker": self.name, "job": ctx.job_id, "site": options.url}
        )
        kept: list[Location] = []
        try:
            delivery = IslandoraWriter(ctx, options, site, ledger, base, kept.append)
            brought = await delivery.run(things)
        finally:
            await ledger.close()
        shown = [
            PublicObject(
                identifier=thing.description.identifier,
                nid=node.nid,
                first=pages[0].nid if pages else node.nid,
                paged=thing.paged,
                path=thing.first,
            )
            for thing, node, pages in brought
        ]
        if options.wait_for != "nothing":
            await asyncio.to_thread(_keep, ctx.work / _DELIVERED, kept)
        _events(ctx, options, delivery, len(kept), kept)
        return _Delivered(shown=shown, detail=_words(delivery, options, things), since=time.time())

    async def _show(
        self, ctx: StepContext, options: IslandoraOptions, site: Drupal, delivered: _Delivered
    ) -> StepResult:
        """Record where the public sees it; wait if the option says so."""
        missing = []
        found: list[Location] = []
        for shown in delivered.shown:
            found.append(await public.page(site, shown))
            there, thumbnail = await public.thumbnail(site, shown)
            if not there or (options.publish is not False and thumbnail is None):
                missing.append(shown.identifier)
            found += [place for place in (thumbnail, await public.manifest(site, shown)) if place is not None]
        waited = time.time() - delivered.since
        if missing and options.wait_for == "thumbnail" and waited < options.wait_at_most:
            state = {
                "objects": [shown.as_dict() for shown in delivered.shown],
                "detail": delivered.detail,
                "since": delivered.since,
            }
            reason = f"the site has not made thumbnails of {', '.join(missing[:3])} yet"
            seconds = min(_ASK_S, options.wait_at_most)
            return Wait(reason=reason, seconds=seconds, state={"delivered": state})
        for place in found:
            ctx.location(place)
        late = ""
        if missing and options.wait_for == "thumbnail":
            late = f"; no thumbnail after {waited:.0f} s"
            ctx.event(
                Event(type=EventType.VALIDATION, outcome="warning", detail=late.strip("; "), agent=_AGENT)
            )
        return Done(detail=delivered.detail + late)

    async def undo(self, ctx: UndoContext, options: IslandoraOptions) -> None:
        """Remove media, pages and objects that this step created and nobody changed since."""
        ledger = await EntityIntentLog.opened(ctx.ledger, {})
        if not (ledger.nodes or ledger.media or ledger.patches):
            return
        async with preflight.opened(options, ctx.secret(options.credential)) as site:
            await IslandoraUndo(ctx, options, site, ledger).run()

    async def verify(self, ctx: VerifyContext, options: IslandoraOptions) -> None:
        """Ask the site for each file's SHA-256; fetch pages, thumbnails and manifests."""
        async with preflight.opened(options, ctx.secret(options.credential)) as site:
            # A site that is down is told once, not after a wait for each of ten thousand files.
            await site.rest.send("GET", "/", anonymous=True, sink=lambda _: None)
            for location in ctx.locations():
                if ctx.stopped.is_set():
                    return
                try:
                    problem = await _fault_of(site, location, options)
                except StepError as error:
                    problem = f"cannot be checked: {error}"
                ctx.report(not problem, location.uri, problem)


async def _fault_of(site: Drupal, location: Location, options: IslandoraOptions) -> str:
    """Return what is wrong with a location; "" when nothing is."""
    if location.use:
        return await public.missing(site, location, hidden=options.publish is not True)
    sha256, _ = await site.sha256_of(location.version, location.uri)
    if not sha256:
        return "is missing"
    return "" if sha256 == location.sha256 else "is another file now"


async def _resumed(ctx: StepContext) -> _Delivered | None:
    """Return what an earlier run has brought, and record it again; None when there was none."""
    state = ctx.saved.get("delivered")
    if state is None:
        return None
    path = ctx.work / _DELIVERED
    places = await asyncio.to_thread(_kept, path)
    if places is None:
        return None
    for place in places:
        ctx.location(place)
    shown = [PublicObject.of(fields) for fields in state["objects"]]
    return _Delivered(shown=shown, detail=state["detail"], since=state["since"])


def _keep(path: Path, places: Sequence[Location]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for place in places:
            file.write(json.dumps(receipt.location_fields(place)) + "\n")


def _kept(path: Path) -> list[Location] | None:
    return list(receipt.read_locations(path)) if path.exists() else None


def _words(delivery: IslandoraWriter, options: IslandoraOptions, things: Sequence[objects.SiteObject]) -> str:
    """Return what the job has done, in all its tries: its intent log knows of the earlier ones."""
    pages = sum(len(thing.pages) for thing in things)
    parts = sum(len(page.parts) for thing in things for page in thing.pages)
    created = sum("nid" in noted and bool(noted.get("ours")) for noted in delivery.ledger.nodes.values())
    sent = sum("mid" in noted for noted in delivery.ledger.media.values())
    words = [
        f"{pages} page{'s' if pages > 1 else ''} to {options.url}",
        f"{created} nodes created",
        f"{sent} files sent",
    ]
    if parts > sent:
        words.append(f"{parts - sent} were there already")
    if delivery.ledger.patches:
        words.append(f"{len(delivery.ledger.patches)} nodes changed")
    return ", ".join(words)


def _events(
    ctx: StepContext,
    options: IslandoraOptions,
    delivery: IslandoraWriter,
    count: int,
    places: Sequence[Location],
) -> None:
    how = ", ".join(sorted({place.verified_by for place in places}))
    said = f"{count} files at {options.url}"
    ctx.event(Event(type=EventType.REPLICATION, outcome="success", detail=said, agent=_AGENT))
    ctx.event(Event(type=EventType.FIXITY, outcome="success", detail=f"{count} files: {how}", agent=_AGENT))
    for said in [*delivery.linking.warnings, *delivery.warnings]:
        ctx.event(Event(type=EventType.METADATA, outcome="warning", detail=said, agent=_AGENT))
    if delivery.linking.missing:
        names = ", ".join(sorted(set(delivery.linking.missing)))
        said = f"there is no term for {names}: not linked"
        ctx.event(Event(type=EventType.METADATA, outcome="warning", detail=said, agent=_AGENT))
