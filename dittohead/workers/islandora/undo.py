"""Take back what one step of one job has created at a site, where nobody has changed it since."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dittohead.contract.worker import UndoContext
from dittohead.model.errors import ItemError, StepError, TransientError
from dittohead.workers.islandora import preflight
from dittohead.workers.islandora.fields import bundle, kept
from dittohead.workers.islandora.intent_log import EntityIntentLog
from dittohead.workers.islandora.options import IslandoraOptions
from dittohead.workers.islandora.site import Drupal, Media, Node


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What is left of a media that an intent log names."""

    where: str
    mid: int
    fid: int | None = None
    path: str = ""  #: where it can be deleted unread: the site cannot read it any more
    why: str = ""  #: it stays; "" when nothing speaks against its removal


class IslandoraUndo:
    """Goes through an intent log backwards: pages with their media, objects, and fields that were changed."""

    def __init__(
        self, ctx: UndoContext, options: IslandoraOptions, site: Drupal, ledger: EntityIntentLog
    ) -> None:
        self.ctx, self.options, self.site, self.ledger = ctx, options, site, ledger
        self._parents: set[str] = set()  #: objects with a page that stays
        self._gone: set[int] = set()  #: media that are gone, or would be
        self._seen: set[int] = set()  #: nodes whose media were decided on with them
        self._us: set[int] = {m["uid"] for m in ledger.media.values() if m.get("ours") and m.get("uid")}
        begun = [noted["at"] for noted in ledger.nodes.values() if noted.get("at") is not None]
        self._since: float | None = min(begun, default=None)  #: when the job began, by the site's clock

    async def run(self) -> None:
        """Take back what can be; report everything. Raises: StepError: the site does not answer."""
        await self.site.rest.send("GET", "/", anonymous=True, sink=lambda _: None)  # down: said once
        # Pages have a line break in their key; an object goes after its pages.
        for key in sorted(self.ledger.nodes, key=lambda key: "\n" not in key):
            await self._node_or_why(key, self.ledger.nodes[key])
        for (nid, use), noted in reversed(self.ledger.media.items()):
            if nid not in self._seen:
                await self._media(nid, use, noted)
        for nid, patches in self.ledger.patches.items():
            for noted in reversed(patches):
                await self._patched(nid, noted)

    # -- media -------------------------------------------------------------------------------

    async def _media(self, nid: int, use: str, noted: Mapping[str, Any]) -> None:
        """Remove a media of a node that is not ours."""
        if noted.get("was") is not None or noted.get("strange"):
            said = f"the file for {use} was put in another's place, which is not kept"
            self.ctx.report(False, self._url(nid), said)
            return
        found = await self._found(nid, use, noted)
        if found is not None and found.why:
            self.ctx.report(False, found.where, f"media {found.mid} stays: {found.why}")
        elif found is not None:
            await self._remove(found)

    async def _found(self, nid: int, use: str, noted: Mapping[str, Any]) -> _Found | None:
        """Return what is there of a media that was noted, and whether it may go; None: nothing is."""
        number = noted.get("mid", noted.get("made"))
        try:
            media = await self._media_made(nid, use, number)
        except TransientError as error:
            where = self._url(nid)
            if number is None or "mid" in noted:
                return _Found(where=where, mid=number or 0, why=f"it cannot be looked at: {error}")
            # The site could never read it: nobody has changed it since it was put.
            return _Found(where=where, mid=number, path=noted["path"])
        if media is None:
            return None
        where = media.file_url or self._url(nid)
        why = await self._why_media_stays(nid, use, media, noted)
        return _Found(where=where, mid=media.mid, fid=media.fid, why=why)

    async def _media_made(self, nid: int, use: str, number: int | None) -> Media | None:
        if number is not None:
            found = await self.site.media_by_number(number)
            return None if found is None else found[1]
        if await self.site.node(nid) is None:
            return None
        tid = await self.site.term(use)  # the try died before it learnt which media it had made
        listed, _ = await self.site.media_of(nid)
        return next((media for media in listed if tid in media.uses), None)

    async def _why_media_stays(self, nid: int, use: str, media: Media, noted: Mapping[str, Any]) -> str:
        """Return what is no longer as it was left, or was never ours; "" when nothing is."""
        if not self._made_here(nid, use, media, noted):
            return "it was there before this job, or is somebody else's"
        if "vid" in noted and (media.vid, media.changed) != (noted["vid"], noted["changed"]):
            return "it was changed since"
        try:
            sha256, _ = await self.site.sha256(media)
        except StepError as error:
            return f"its file cannot be compared: {error}"
        return "" if sha256 == noted["sha256"] else "its file is another now"

    def _made_here(self, nid: int, use: str, media: Media, noted: Mapping[str, Any]) -> bool:
        """Tell whether this job has made a media: by owner, time and place where nothing says so."""
        if "ours" in noted or "made" in noted:
            return bool(noted.get("ours", noted.get("made") == media.mid))
        if self._since is not None and media.created is not None and media.created < self._since:
            return False
        if self._us and media.uid not in self._us:
            return False
        known = self._since is not None and media.created is not None and bool(self._us)
        return known or media.lies_at(nid, use)

    async def _remove(self, found: _Found) -> None:
        self._gone.add(found.mid)
        said = f"media {found.mid} with its file"
        if self.ctx.dry_run:
            self.ctx.report(True, found.where, said)
            return
        if found.path:
            await self.site.delete(found.path)
        elif (there := await self.site.media_by_number(found.mid)) is not None:
            await self.site.delete(there[0])
        try:
            if found.fid is not None:
                await self.site.delete(f"/entity/file/{found.fid}")
        except StepError as error:
            hint = "the user needs `delete own files`"
            said = f"media {found.mid} is gone, its file stays: {error}; {hint}"
            self.ctx.report(False, found.where, said)
            return
        self.ctx.report(True, found.where, said)

    # -- nodes -------------------------------------------------------------------------------

    async def _node_or_why(self, key: str, noted: Mapping[str, Any]) -> None:
        """Take back a node; one that cannot be looked at stays with its media, and the others go on."""
        try:
            await self._node(key, noted)
        except (ItemError, TransientError) as error:
            self._parents.add(key.partition("\n")[0])
            if "nid" in noted:
                self._seen.add(noted["nid"])
            self.ctx.report(False, self._url(noted.get("nid", 0)), f"the node stays: {error}")

    async def _node(self, key: str, noted: Mapping[str, Any]) -> None:
        """Decide on a node first, then on its media: a page that stays keeps its image."""
        node = await self._noted_node(key, noted)
        if node is None:
            return
        ours = noted.get("ours", node.created >= (noted.get("at") or 0))
        if not ours:
            self._stays(key, node, "it was there before this job")
            return
        if node.uid is not None and noted.get("vid") == node.vid:
            self._us.add(node.uid)
        self._seen.add(node.nid)
        media = await self._media_noted(node)
        for unread in [found for found in media if found.path]:  # till then nothing is listed
            await self._remove(unread)
        why = await self._why_it_stays(key, node, noted, media)
        if not why:
            for found in media:
                if not found.path:
                    await self._remove(found)
            why = await self._remove_left(node)
        if why:
            self._stays(key, node, why)
            self._kept(media)
            return
        if not self.ctx.dry_run:
            await self.site.delete(f"/node/{node.nid}")
        self.ctx.report(True, self._url(node.nid), f"the node of {node.title}")

    def _stays(self, key: str, node: Node, why: str) -> None:
        self._parents.add(key.partition("\n")[0])
        self.ctx.report(False, self._url(node.nid), f"the node stays: {why}")

    def _kept(self, media: Sequence[_Found]) -> None:
        for found in media:
            if found.mid not in self._gone:
                why = found.why or "its node stays"
                self.ctx.report(False, found.where, f"media {found.mid} stays: {why}")

    async def _media_noted(self, node: Node) -> list[_Found]:
        """Return what is there of the media that this job has put at a node of its own."""
        found = [
            await self._found(nid, use, noted)
            for (nid, use), noted in reversed(self.ledger.media.items())
            if nid == node.nid and noted.get("was") is None
        ]
        return [one for one in found if one is not None]

    async def _noted_node(self, key: str, noted: Mapping[str, Any]) -> Node | None:
        if "nid" in noted:
            node = await self.site.node(noted["nid"])
            return node if node is not None and node.uuid == noted["uuid"] else None
        identifier = key.rpartition("\n")[2]
        nodes = await preflight.by_identifier(self.site, self.options, identifier)
        return next((node for node in nodes if node.uuid == noted["uuid"]), None)

    async def _why_it_stays(
        self, key: str, node: Node, noted: Mapping[str, Any], media: Sequence[_Found]
    ) -> str:
        if "vid" in noted and (node.vid, node.changed) != (noted["vid"], noted["changed"]):
            return "it was changed since"
        if any(found.why for found in media):
            return "a media of it stays" if not _changed(media) else "a media of it was changed since"
        if "\n" not in key and key in self._parents:
            return "a page of it stays"
        try:
            left = await self._left(node, {found.mid for found in media})
        except TransientError as error:
            if self.ctx.dry_run and any(found.path for found in media):
                return ""  # it can be listed once that is gone
            return f"its media cannot be listed: {error}"
        if any(not self._by_us(media) for media in left):
            return "others have added media to it"
        return await self._strangers(key, node)

    async def _strangers(self, key: str, node: Node) -> str:
        if "\n" in key or not self.options.members:
            return ""
        ours = {noted.get("nid") for noted in self.ledger.nodes.values()}
        # Our own pages are gone by now: a list that may be cut shows others first of all.
        there, _ = await preflight.members(self.site, self.options, node.nid)
        return "others have added members to it" if any(member.nid not in ours for member in there) else ""

    async def _left(self, node: Node, but: Collection[int] = ()) -> list[Media]:
        """Return the media of a node that are not gone: what the site has derived, or others added."""
        listed, _ = await self.site.media_of(node.nid)
        return [media for media in listed if media.mid not in self._gone and media.mid not in but]

    async def _remove_left(self, node: Node) -> str:
        """Remove what the site has derived, as often as its listing shows more; return why the node stays."""
        if self.ctx.dry_run and self._gone and await self._unlistable(node):
            return ""
        while left := await self._left(node):
            if any(not self._by_us(media) for media in left):
                return "others have added media to it"
            for media in left:
                await self._remove(_Found(where=media.file_url, mid=media.mid, fid=media.fid))
        return ""

    async def _unlistable(self, node: Node) -> bool:
        try:
            await self._left(node)
        except TransientError:
            return True
        return False

    def _by_us(self, media: Media) -> bool:
        """Tell whether a media was made for us: derivatives are, in the name of who sent the original."""
        return media.uid in self._us and media.reviser in (None, media.uid)

    # -- fields ------------------------------------------------------------------------------

    async def _patched(self, nid: int, noted: Mapping[str, Any]) -> None:
        node = await self.site.node(nid)
        where = self._url(nid)
        if node is None:
            return
        names = ", ".join(noted["was"])
        if not kept(node.raw, noted["was"]):  # it was never changed, or was undone already
            return
        if other := kept(node.raw, noted["is"]):
            self.ctx.report(False, where, f"{names} stay: {', '.join(other)} was changed since")
            return
        if not self.ctx.dry_run:
            await self.site.patch_node(nid, {**bundle(self.options.content_type), **noted["was"]})
        self.ctx.report(True, where, f"{names} as before")

    def _url(self, nid: int) -> str:
        return f"{self.site.rest.base}/node/{nid}"


def _changed(media: Sequence[_Found]) -> bool:
    return any(found.why in ("it was changed since", "its file is another now") for found in media)
