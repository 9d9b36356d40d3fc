"""One try of one islandora step: nodes and media that are not there yet, each created once."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from dittohead.contract.worker import StepContext
from dittohead.model.errors import DittoheadError, ItemError, TargetError, TransientError, ungrouped
from dittohead.model.records import Location
from dittohead.model.text import display
from dittohead.system import files
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit.file_slice import Slice
from dittohead.workers.islandora import preflight
from dittohead.workers.islandora.fields import (
    Fields,
    bare,
    bundle,
    changes,
    fitted,
    page_title,
    reference,
    unwritten,
)
from dittohead.workers.islandora.intent_log import EntityIntentLog
from dittohead.workers.islandora.links import Linking
from dittohead.workers.islandora.objects import MediaFile, ObjectPage, SiteObject, node_uuid
from dittohead.workers.islandora.options import IslandoraOptions
from dittohead.workers.islandora.preflight import SiteFacts
from dittohead.workers.islandora.site import SHOW_ALL, Drupal, Media, Node, use_word
from dittohead.workers.islandora.vocabulary import FILE_FIELDS, MODELS, USES, extension, media_type

#: Sendings of one file that the site stores as something else.
_SENDINGS = 2

#: Bytes of extracted text that are written into the node's search field too.
_TEXT_MOST = 1 << 20

#: The dot before an extension that makes Drupal refuse a media when it is saved.
#: Source: Drupal core, FileSystemInterface, INSECURE_EXTENSION_REGEX.
_RUN = re.compile(r"\.(?=(phar|php|pl|py|cgi|asp|js|htaccess)(\.|$))", re.IGNORECASE)

#: Fields of a node that is there which are never written again.
_IDENTITY = frozenset({"type", "uuid", "status", "field_model", "field_member_of"})


class IslandoraWriter:
    """Brings one folder's objects to a site."""

    def __init__(
        self,
        ctx: StepContext,
        options: IslandoraOptions,
        site: Drupal,
        ledger: EntityIntentLog,
        base: SiteFacts,
        delivered: Callable[[Location], None],
    ) -> None:
        self.ctx, self.options, self.site, self.ledger, self.base = ctx, options, site, ledger, base
        self.delivered = delivered  #: told about each file that is there and verified
        self.bytes = 0
        self.total = 0
        self.linking = Linking(site, base.configuration, options.leave_out)
        self.warnings: list[str] = []  #: what is not as it should be, though the files are there

    async def run(self, things: Sequence[SiteObject]) -> list[tuple[SiteObject, Node, list[Node]]]:
        """Bring every object; return each with its node and those of its pages.

        Raises: StepError; nothing is written when an object is there in another collection.
        """
        self.total = sum(part.entry.size for thing in things for page in thing.pages for part in page.parts)
        found = [
            await preflight.existing(self.site, self.options, thing.description, self.base, paged=thing.paged)
            for thing in things
        ]
        return [await self._thing(thing, node) for thing, node in zip(things, found, strict=True)]

    async def _thing(self, thing: SiteObject, node: Node | None) -> tuple[SiteObject, Node, list[Node]]:
        key = thing.description.identifier
        fields = await self._object_fields(thing)
        if node is None:
            node, fresh = await self._create(key, fields)
        else:
            node, fresh = await self._adopted(key, node), False
            node = await self._update(node, fields)
        if not thing.paged:
            await self._parts(node, thing.pages[0], fresh=fresh)
            return thing, node, []
        pages = await self._existing_pages(thing, node, fresh=fresh)
        parent = node

        async def bring(page: ObjectPage) -> Node:
            return await self._page(thing, parent, page, pages.get(page.stem), look=not fresh)

        return thing, node, await _each(thing.pages, self.options.parallel, bring)

    # -- nodes -------------------------------------------------------------------------------

    async def _create(self, key: str, fields: Fields) -> tuple[Node, bool]:
        """Create a node, or find the one that an earlier try has created.

        Returns: the node, and whether nothing can be attached to it yet.
        """
        wanted = node_uuid(self.site.rest.base, key)
        if key in self.ledger.nodes:
            node = await self._noted(key)
            if node is not None:
                return node, False
        at = self.ledger.nodes.get(key, {}).get("at", self.site.rest.server_time)
        await self.ledger.intend(node=key, uuid=wanted, at=at)
        await self.ctx.fence()
        try:
            given = {name: items for name, items in fields.items() if items}
            node = await self.site.create_node({**given, "uuid": [{"value": wanted}]})
        except TargetError as error:
            if "field 'status'" not in error.what:
                raise
            hint = "Give the user `administer nodes`, or leave `publish` out"
            raise TargetError(error.what, where=error.where, hint=hint) from error
        except (TransientError, ItemError) as error:
            if isinstance(error, ItemError) and "uuid" not in error.what.lower():
                raise self._explained(error) from error
            # The database refuses a second node of one UUID with 500: it may be there already, and a
            # View that lags did not say so.
            there = await self._by_uuid(fields, wanted)
            if there is None:
                raise TransientError(
                    error.what,
                    where=error.where,
                    hint=f"If it stays so: has a node with the UUID {wanted} another local identifier now?",
                    retry_after_s=getattr(error, "retry_after_s", None),
                ) from error
            await self._have(key, there)
            return there, False
        if node.uuid != wanted:
            raise TargetError("the site gave the node a UUID of its own", where=self._url(node))
        await self._have(key, node, ours=True)
        return node, True

    def _explained(self, error: ItemError) -> ItemError:
        """Say which permission a refused reference wants."""
        if "cannot be referenced" not in error.what:
            return error
        hint = "A field takes terms of its own vocabularies alone: set agents: false, or leave_out"
        if "(node:" in error.what:
            hint = "Give the user `bypass node access`: without it Drupal refers only to what is published"
        return ItemError(error.what, where=error.where, hint=hint)

    async def _noted(self, key: str) -> Node | None:
        """Return the node that the intent log names, if it can be found."""
        noted = self.ledger.nodes[key]
        if "nid" in noted:
            node = await self.site.node(noted["nid"])
            if node is not None and node.uuid == noted["uuid"]:
                return node
        return None

    async def _by_uuid(self, fields: Fields, wanted: str) -> Node | None:
        identifier = str(fields["field_local_identifier"][0]["value"])
        nodes = await preflight.by_identifier(self.site, self.options, identifier)
        return next((node for node in nodes if node.uuid == wanted), None)

    async def _adopted(self, key: str, node: Node) -> Node:
        """Note the node's number if it is one that an earlier try meant to create."""
        noted = self.ledger.nodes.get(key)
        if noted is not None and "nid" not in noted and noted["uuid"] == node.uuid:
            await self._have(key, node)
        return node

    async def _have(self, key: str, node: Node, *, ours: bool | None = None) -> None:
        at = self.ledger.nodes[key].get("at")
        if ours is None:
            # What was found after a broken request: one that is older than what was noted before the
            # request is another job's, which undo must leave.
            ours = self.ledger.nodes[key].get("ours", at is None or node.created >= at)
        written = {"uuid": node.uuid, "nid": node.nid, "vid": node.vid, "changed": node.changed}
        await self.ledger.done(node=key, at=at, ours=ours, **written)

    async def _update(self, node: Node, fields: Fields) -> Node:
        """Change what `update` lets be changed of a node that is there."""
        wanted = {name: items for name, items in fields.items() if name not in _IDENTITY}
        different = changes(node.raw, wanted, self.options.update)
        if not different:
            return node
        was = {name: bare(node.raw.get(name, [])) for name in different}
        await self.ledger.intend(patch=node.nid, was=was, **{"is": different})
        await self.ctx.fence()
        patched = await self.site.patch_node(node.nid, {**bundle(self.options.content_type), **different})
        for key, noted in list(self.ledger.nodes.items()):
            if noted.get("nid") == node.nid and noted.get("vid") == node.vid:  # nobody else's edit is between
                await self._have(key, patched)
        return patched

    async def _object_fields(self, thing: SiteObject) -> Fields:
        model = "paged" if thing.paged else "image"
        fields: Fields = {
            **bundle(self.options.content_type),
            **self._common(model, self.base.collection),
            **await preflight.written(self.base, self.options, thing.description),
        }
        self.warnings += unwritten(thing.description, self.options.leave_out)
        if self.options.agents:
            fields.update(await self.linking.fields(thing.description))
        return fields

    def _common(self, model: str, parent: int) -> Fields:
        return {
            **({} if self.options.publish is None else {"status": [{"value": self.options.publish}]}),
            "field_model": reference(self.base.terms[MODELS[model]], "taxonomy_term"),
            "field_member_of": reference(parent, "node"),
        }

    # -- pages -------------------------------------------------------------------------------

    async def _existing_pages(
        self, thing: SiteObject, parent: Node, *, fresh: bool
    ) -> dict[str, Node | None]:
        """Return the nodes that pages have already, by stem; nothing of pages that are to be looked for.

        Raises: ItemError: it cannot be told which pages are there.
        """
        if fresh:
            return dict.fromkeys(page.stem for page in thing.pages)
        # A node under a UUID of ours has pages with local identifiers of ours.
        ours = parent.uuid == node_uuid(self.site.rest.base, thing.description.identifier)
        if self.options.members:
            there, whole = await preflight.members(self.site, self.options, parent.nid)
            found = self._matched(thing, parent, there)
            if not (whole or ours or all(found.values())):
                raise ItemError(
                    f"the View at {self.options.members} shows {len(there)} pages, whatever page is asked "
                    "for, and not all of the folder's: whether it has more cannot be known",
                    where=self._url(parent),
                    hint=SHOW_ALL,
                )
            return found
        if ours or await self._page_by_identifier(parent, thing.pages[0]) is not None:
            return {}
        raise ItemError(
            "this node was there before, and which pages it has cannot be told",
            where=self._url(parent),
            hint="Make a View that lists members and name it in `members`; see docs/islandora.md",
        )

    def _matched(self, thing: SiteObject, parent: Node, there: Sequence[Node]) -> dict[str, Node | None]:
        """Match pages with members of the parent, by local identifier, otherwise by weight."""
        page_model = self.base.terms[MODELS["page"]]
        pages = [node for node in there if node.model == page_model]
        by_identifier = {text: node for node in pages for text in node.identifiers}
        by_weight: dict[int | None, list[Node]] = {}
        for node in pages:
            if not node.identifiers:  # made by hand, or by another tool
                by_weight.setdefault(node.weight, []).append(node)
        found: dict[str, Node | None] = {}
        for page in thing.pages:
            candidates = by_weight.get(page.weight, [])
            if len(candidates) > 1:
                nids = ", ".join(str(node.nid) for node in candidates)
                raise ItemError(f"nodes {nids} are all page {page.weight}", where=self._url(parent))
            found[page.stem] = by_identifier.get(page.identifier) or (candidates[0] if candidates else None)
        self._check_order(thing, parent, found)
        return found

    def _check_order(self, thing: SiteObject, parent: Node, found: Mapping[str, Node | None]) -> None:
        """Refuse to put new pages between pages that are counted otherwise."""
        if self.options.update == "all" or all(found.values()):
            return
        for page in thing.pages:
            node = found[page.stem]
            if node is not None and node.weight != page.weight:
                raise ItemError(
                    f"{page.identifier} is page {node.weight} there, not {page.weight}; there are new pages",
                    where=self._url(parent),
                    hint="Correct the order there, or set update: all",
                )

    async def _page_by_identifier(self, parent: Node, page: ObjectPage) -> Node | None:
        nodes = await preflight.by_identifier(self.site, self.options, page.identifier)
        mine = [node for node in nodes if parent.nid in node.member_of]
        if len(mine) > 1:
            nids = ", ".join(str(node.nid) for node in mine)
            raise ItemError(
                f"nodes {nids} have the local identifier {page.identifier}", where=self._url(parent)
            )
        return mine[0] if mine else None

    async def _page(
        self, thing: SiteObject, parent: Node, page: ObjectPage, node: Node | None, *, look: bool
    ) -> Node:
        key = f"{thing.description.identifier}\n{page.identifier}"
        fields: Fields = {
            **bundle(self.options.content_type),
            **self._common("page", parent.nid),
            "title": [{"value": page_title(thing.description.title, page.weight)}],
            "field_local_identifier": [{"value": page.identifier}],
            "field_weight": [{"value": page.weight}],
        }
        if node is None and look:
            node = await self._noted(key) if key in self.ledger.nodes else None
            node = node or await self._page_by_identifier(parent, page)
        if node is None:
            node, fresh = await self._create(key, fields)
        else:
            node, fresh = await self._update(await self._adopted(key, node), fields), False
        await self._parts(node, page, fresh=fresh)
        return node

    # -- media -------------------------------------------------------------------------------

    async def _parts(self, node: Node, page: ObjectPage, *, fresh: bool) -> None:
        there, whole = ([], True) if fresh else await self.site.media_of(node.nid)
        whole = whole or self._made_now(node)
        for name in page.empty:
            self._warn(f"{name} is empty: not sent")
        for part in page.parts:
            await self._part(node, part, there, whole=whole)

    def _made_now(self, node: Node) -> bool:
        """Tell whether this job has made a node: others have hardly added ten media to it."""
        return any(noted.get("nid") == node.nid and noted.get("ours") for noted in self.ledger.nodes.values())

    async def _part(self, node: Node, part: MediaFile, there: Sequence[Media], *, whole: bool) -> None:
        """See to it that a node has a file, for one use, that is this one.

        Args:
            whole: `there` is known to be all.

        Raises: StepError.
        """
        tid = self.base.terms[part.use]
        present = [media for media in there if tid in media.uses]
        if len(present) > 1:
            mids = ", ".join(str(media.mid) for media in present)
            raise ItemError(f"it has media {mids} for {part.use}; one is required", where=self._url(node))
        media = present[0] if present else None
        sha256, how = await self.site.sha256(media) if media is not None else ("", "")
        if media is None or sha256 != part.entry.sha256:
            if not whole:
                raise ItemError(
                    f"the site lists {len(there)} media, whatever page is asked for: whether it has another "
                    f"for {part.use}, whose file {part.name} would replace, cannot be known",
                    where=f"{self._url(node)}/media",
                    hint=f"The View is media_of. {SHOW_ALL}",
                )
            if media is not None:
                self._may_replace(node, part, media)
            media, how = await self._put(node, part, media)
            await self._have_media(node, part, media)
        else:
            await self._piece_sent(part.entry.size)
            media = await self._adopted_media(node, part, media)
        self._record(part, media, how)

    async def _adopted_media(self, node: Node, part: MediaFile, media: Media) -> Media:
        """Finish a media that an earlier try, or another job, put there and did not live to finish."""
        fresh = self._unfinished(node, part, media)
        if fresh or (media.lies_at(node.nid, part.use) and media.reviser in (None, media.uid)):
            media = await self._finish(node, part, media, fresh=fresh)
        if fresh:
            await self._have_media(node, part, media)
        return media

    def _unfinished(self, node: Node, part: MediaFile, media: Media) -> bool:
        """Tell whether a media was created by this job, and may lack what it cannot be created with."""
        noted = self.ledger.media.get((node.nid, part.use))
        if noted is None or noted.get("was") is not None or "mid" in noted or noted.get("strange"):
            return False
        return self._made_by_us(node, part, media)

    def _made_by_us(self, node: Node, part: MediaFile, media: Media) -> bool:
        """Tell whether a media comes of what this job has put, or of what the site derived of that."""
        noted = self.ledger.media.get((node.nid, part.use), {})
        in_our_name = media.uid == node.uid and media.reviser in (None, media.uid)
        derived = media.uid is not None and in_our_name and self._made_now(node)
        return derived or noted.get("made") == media.mid or media.lies_at(node.nid, part.use)

    def _may_replace(self, node: Node, part: MediaFile, media: Media) -> None:
        """Refuse to put a file in another's place. Raises: ItemError."""
        name = urlsplit(media.file_url).path
        if media.bundle != part.bundle or extension(name) != extension(part.name):
            raise ItemError(
                f"media {media.mid} there ({media.bundle}, {name}) cannot become {part.name}",
                where=self._url(node),
                hint="Delete that media at the site, with its file",
            )
        noted = self.ledger.media.get((node.nid, part.use), {"was": media.mid})
        mine = (
            noted.get("was") is None and not noted.get("strange") and self._put_here(node, part, media, noted)
        )
        if not mine and not self.options.replace:
            raise ItemError(
                f"media {media.mid} there is another file than {part.name}, and replace is not set",
                where=self._url(node),
            )

    def _put_here(self, node: Node, part: MediaFile, media: Media, noted: Mapping[str, Any]) -> bool:
        """Tell whether a media is the one that this job has put, or has begun to put."""
        if "mid" in noted:
            return bool(noted["mid"] == media.mid)
        return media.lies_at(node.nid, part.use)

    async def _put(self, node: Node, part: MediaFile, before: Media | None) -> tuple[Media, str]:
        media = before
        for _ in range(_SENDINGS):
            was = before.mid if before is not None else None
            await self.ledger.intend(media=[node.nid, part.use], was=was, sha256=part.entry.sha256)
            await self.ctx.fence()
            path = await self._send(node, part)
            if path:
                made = int(path.split("/")[2])
                await self.ledger.done(
                    media=[node.nid, part.use], made=made, path=path, sha256=part.entry.sha256
                )
            elif before is None:
                await self._not_anothers(node, part)
            media = await self._arrived(node, part, path)
            if self._unfinished(node, part, media):
                media = await self._finish(node, part, media, path, fresh=True)
            sha256, how = await self.site.sha256(media)
            if sha256 == part.entry.sha256:
                return media, how
            await self._check_source(part)
            before = media
        raise TargetError(
            "what the site stores is not what it was sent",
            where=media.file_url if media is not None else self._url(node),
            hint="Check its disks and whatever lies between; then it goes on by itself",
        )

    async def _not_anothers(self, node: Node, part: MediaFile) -> None:
        """Make sure that a file which was to be new took the place of none but ours. Raises: ItemError.

        Ours is what an earlier request has put there, whose answer never came, and what the site has derived
        of what this job has put, before this job's own came.
        """
        tid = self.base.terms[part.use]
        there, _ = await self.site.media_of(node.nid)
        media = next((media for media in there if tid in media.uses), None)
        if media is not None and self._made_by_us(node, part, media):
            return
        await self.ledger.intend(media=[node.nid, part.use], strange=True, sha256=part.entry.sha256)
        named = f"media {media.mid} ({media.name})" if media is not None else "a media that it does not list"
        raise ItemError(
            f"the site put {part.name} in place of the file of {named}: a new one for {part.use} was meant",
            where=self._url(node),
            hint=f"Restore that file there from a backup of the site. The View is media_of. {SHOW_ALL}",
        )

    async def _send(self, node: Node, part: MediaFile) -> str:
        tid = self.base.terms[part.use]
        headers = {
            "Content-Type": media_type(part.name),
            "Content-Location": self._place(node, part),
            "Content-Length": str(part.entry.size),
        }
        with files.opened_beneath(part.root, part.entry.path) as fd:
            body: Any = Slice(fd, 0, part.entry.size, self._piece_sent)
            return await self.site.put_media(node.nid, part.bundle, tid, body, headers, size=part.entry.size)

    def _place(self, node: Node, part: MediaFile) -> str:
        """Return where the site is to put a file: a place of its own, for it would overwrite another's."""
        storage = self.base.storage(part.bundle)
        separator = "" if storage.endswith("://") else "/"
        return f"{storage}{separator}{node.nid}/{use_word(part.use)}/{_name(part)}"

    async def _piece_sent(self, size: int) -> None:
        self.bytes += size
        self.ctx.progress(min(self.bytes, self.total), self.total, "bytes")

    async def _arrived(self, node: Node, part: MediaFile, path: str) -> Media:
        if path:
            media = await self.site.media(path)
        else:
            tid = self.base.terms[part.use]
            there, _ = await self.site.media_of(node.nid)
            media = next((m for m in there if tid in m.uses), None)
        if media is None:
            raise TransientError("the media that was put there is not there", where=self._url(node))
        return media

    async def _finish(
        self, node: Node, part: MediaFile, media: Media, path: str = "", *, fresh: bool
    ) -> Media:
        """Give a media what it cannot be created with: who may see it, words for its image, its text.

        Args:
            fresh: it is this job's; otherwise what people have said of it since stays.
        """
        fields = await self._lacking(node, part, media, fresh=fresh)
        if not fields:
            return media
        if not path:
            found = await self.site.media_by_number(media.mid)
            if found is None:
                raise TransientError("a media that was just there is gone", where=self._url(node))
            path = found[0]
        kind = {"bundle": [{"target_id": part.bundle, "target_type": "media_type"}]}
        await self.ctx.fence()
        try:
            return await self.site.patch_media(path, {**kind, **fields})
        except ItemError as error:
            if fresh or "status" in fields:
                raise
            self._warn(f"media {media.mid} was there already, and stays without {', '.join(fields)}: {error}")
            return media

    async def _lacking(self, node: Node, part: MediaFile, media: Media, *, fresh: bool) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self.options.publish is False and media.published and (fresh or not node.published):
            fields["status"] = [{"value": False}]
        alt = fitted(node.title)
        given = media.alt in ("", _name(part), media.name)  # by the site: nobody has said better
        if part.bundle == "image" and media.alt != alt and (fresh or given):
            fields[FILE_FIELDS["image"]] = [{"target_id": media.fid, "alt": alt}]
        if part.use == USES["extracted-text"] and (fresh or media.text == ""):
            text = await in_thread(lambda stop: _text(part))
            if text is None:
                self._warn(f"{part.name} is not in the text for searches: it is too long, or no UTF-8")
            elif text != media.text:
                fields["field_edited_text"] = [{"value": text}]
        return fields

    def _warn(self, said: str) -> None:
        self.warnings.append(said)

    async def _check_source(self, part: MediaFile) -> None:
        if await in_thread(lambda stop: _digest(part, stop)) != part.entry.sha256:
            raise ItemError("the file is not what it was at the claim", where=display(part.entry.path))

    async def _have_media(self, node: Node, part: MediaFile, media: Media) -> None:
        await self.ledger.done(
            media=[node.nid, part.use],
            mid=media.mid,
            fid=media.fid,
            uid=media.uid,
            vid=media.vid,
            changed=media.changed,
            uuid=media.file_uuid,
            sha256=part.entry.sha256,
            ours=self._is_ours(node, part, media),
        )

    def _is_ours(self, node: Node, part: MediaFile, media: Media) -> bool:
        """Tell whether this job has made a media, which undo then may remove."""
        noted = self.ledger.media.get((node.nid, part.use), {})
        if noted.get("was") is not None or noted.get("strange"):
            return False
        return self._made_by_us(node, part, media)

    def _record(self, part: MediaFile, media: Media, how: str) -> None:
        place = Location(
            uri=media.file_url,
            path=part.entry.path,
            size=part.entry.size,
            sha256=part.entry.sha256,
            verified_by=how,
            version=media.file_uuid,
        )
        self.delivered(place)
        self.ctx.location(place)

    def _url(self, node: Node) -> str:
        return f"{self.site.rest.base}/node/{node.nid}"


def _name(part: MediaFile) -> str:
    """Return a file's name as the site is asked to keep it: nothing in it that a server would run."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", part.name)
    stem, dot, ext = name.rpartition(".")
    return _RUN.sub("_", stem or "file")[:120] + dot + ext


def _text(part: MediaFile) -> str | None:
    if part.entry.size > _TEXT_MOST:
        return None
    with files.opened_beneath(part.root, part.entry.path) as fd:
        data = os.pread(fd, _TEXT_MOST, 0)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _digest(part: MediaFile, stop: Stop) -> str:
    with files.opened_beneath(part.root, part.entry.path) as fd:
        return files.sha256_fd(fd, files.hash_buffer(), lambda size: stop.check())[0]


async def _each(
    items: Sequence[ObjectPage], at_once: int, work: Callable[[ObjectPage], Awaitable[Node]]
) -> list[Node]:
    """Do `work` with every item, several at once, the first ones first; return what it returns in order.

    Raises: the first DittoheadError or OSError of any, by itself: Superseded must be seen as what it is.
    """
    results: dict[int, Node] = {}
    waiting = iter(enumerate(items))

    async def runner() -> None:
        for number, item in waiting:
            results[number] = await work(item)

    with ungrouped(DittoheadError, OSError):
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(runner(), name="islandora page")
    return [results[number] for number in range(len(items))]
