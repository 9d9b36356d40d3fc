"""Take back what one step of one job has created at a site, where nobody has changed it since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dittohead.errors import StepError
from dittohead.islandora import preflight
from dittohead.islandora.fields import bundle, kept
from dittohead.islandora.ledger import Ledger
from dittohead.islandora.options import IslandoraOptions
from dittohead.islandora.site import Drupal, Media, Node
from dittohead.worker import UndoContext


class Undoing:
    """Goes through a ledger backwards: media, pages, objects, and fields that were changed."""

    def __init__(self, ctx: UndoContext, options: IslandoraOptions, site: Drupal, ledger: Ledger) -> None:
        self.ctx, self.options, self.site, self.ledger = ctx, options, site, ledger
        self._stays: set[int] = set()  #: nodes that hold what is not ours
        self._parents: set[str] = set()  #: objects with a page that stays
        self._gone: set[int] = set()  #: media that are gone, or would be
        self._us: set[int] = {m["uid"] for m in ledger.media.values() if m.get("uid") is not None}

    async def run(self) -> None:
        """Take back what can be; report everything. Raises: StepError: the site does not answer."""
        for (nid, use), noted in reversed(self.ledger.media.items()):
            await self._media(nid, use, noted)
        # Pages have a line break in their key; an object goes after its pages.
        for key in sorted(self.ledger.nodes, key=lambda key: "\n" not in key):
            await self._node(key, self.ledger.nodes[key])
        for nid, patches in self.ledger.patches.items():
            for noted in reversed(patches):
                await self._patched(nid, noted)

    # -- media -------------------------------------------------------------------------------

    async def _media(self, nid: int, use: str, noted: Mapping[str, Any]) -> None:
        where = f"{self.site.rest.base}/node/{nid}"
        if noted.get("was") is not None:
            self.ctx.report(False, where, f"the file for {use} was put in another's place, which is not kept")
            return
        media = await self._found(nid, use, noted)
        if media is None:
            return
        changed = await self._changed(media, noted)
        if changed:
            self._stays.add(nid)
            self.ctx.report(False, media.file_url or where, f"media {media.mid} stays: {changed}")
            return
        await self._remove_media(media)

    async def _found(self, nid: int, use: str, noted: Mapping[str, Any]) -> Media | None:
        if await self.site.node(nid) is None and "mid" not in noted:
            return None
        if "mid" in noted:
            found = await self.site.media_by_number(noted["mid"])
            return None if found is None else found[1]
        tid = await self.site.term(use)  # the try died before it learnt which media it had made
        return next((media for media in await self.site.media_of(nid) if tid in media.uses), None)

    async def _changed(self, media: Media, noted: Mapping[str, Any]) -> str:
        """Return what is no longer as it was left; "" when nothing is."""
        if "vid" in noted and (media.vid, media.changed) != (noted["vid"], noted["changed"]):
            return "it was changed since"
        sha256, _ = await self.site.sha256(media)
        return "" if sha256 == noted["sha256"] else "its file is another now"

    async def _remove_media(self, media: Media) -> None:
        self._gone.add(media.mid)
        if self.ctx.dry_run:
            self.ctx.report(True, media.file_url, f"media {media.mid} with its file")
            return
        found = await self.site.media_by_number(media.mid)
        if found is not None:
            await self.site.delete(found[0])
        try:
            if media.fid is not None:
                await self.site.delete(f"/entity/file/{media.fid}")
        except StepError as error:
            hint = "the user needs `delete own files`"
            self.ctx.report(
                False, media.file_url, f"media {media.mid} is gone, its file stays: {error}; {hint}"
            )
            return
        self.ctx.report(True, media.file_url, f"media {media.mid} with its file")

    # -- nodes -------------------------------------------------------------------------------

    async def _node(self, key: str, noted: Mapping[str, Any]) -> None:
        node = await self._noted_node(key, noted)
        if node is None:
            return
        where = f"{self.site.rest.base}/node/{node.nid}"
        why = await self._why_it_stays(key, node, noted)
        if why:
            self._parents.add(key.partition("\n")[0])
            self.ctx.report(False, where, f"the node stays: {why}")
            return
        for media in await self._left(node):
            await self._remove_media(media)
        if not self.ctx.dry_run:
            await self.site.delete(f"/node/{node.nid}")
        self.ctx.report(True, where, f"the node of {node.title}")

    async def _noted_node(self, key: str, noted: Mapping[str, Any]) -> Node | None:
        if "nid" in noted:
            node = await self.site.node(noted["nid"])
            return node if node is not None and node.uuid == noted["uuid"] else None
        identifier = key.rpartition("\n")[2]
        nodes = await preflight.by_identifier(self.site, self.options, identifier)
        return next((node for node in nodes if node.uuid == noted["uuid"]), None)

    async def _why_it_stays(self, key: str, node: Node, noted: Mapping[str, Any]) -> str:
        if not noted.get("ours", node.created >= (noted.get("at") or 0)):
            return "it was there before this job"
        if "vid" in noted and (node.vid, node.changed) != (noted["vid"], noted["changed"]):
            return "it was changed since"
        if node.nid in self._stays:
            return "a media of it was changed since"
        if "\n" not in key and key in self._parents:
            return "a page of it stays"
        if any(not self._by_us(media) for media in await self._left(node)):
            return "others have added media to it"
        return await self._strangers(key, node)

    async def _strangers(self, key: str, node: Node) -> str:
        if "\n" in key or not self.options.members:
            return ""
        ours = {noted.get("nid") for noted in self.ledger.nodes.values()}
        there = await preflight.members(self.site, self.options, node.nid)
        return "others have added members to it" if any(member.nid not in ours for member in there) else ""

    async def _left(self, node: Node) -> list[Media]:
        """Return the media of a node that are not gone: what the site has derived, or others added."""
        return [media for media in await self.site.media_of(node.nid) if media.mid not in self._gone]

    def _by_us(self, media: Media) -> bool:
        """Tell whether a media was made for us: derivatives are, in the name of who sent the original."""
        return media.uid in self._us and media.reviser in (None, media.uid)

    # -- fields ------------------------------------------------------------------------------

    async def _patched(self, nid: int, noted: Mapping[str, Any]) -> None:
        node = await self.site.node(nid)
        where = f"{self.site.rest.base}/node/{nid}"
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
