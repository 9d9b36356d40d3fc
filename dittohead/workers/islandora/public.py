"""What the public sees of an object that was brought: its page, its thumbnail, its IIIF manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dittohead.model.errors import ItemError, StepError
from dittohead.model.records import Location, Use
from dittohead.workers.islandora.options import use_uri
from dittohead.workers.islandora.site import Drupal

#: How it is known that a manifest is one.
_LISTS = "shows its pages"


@dataclass(frozen=True, kw_only=True)
class PublicObject:
    """An object whose public places are searched for."""

    identifier: str
    nid: int
    first: int  #: nid of its first page; its own when it has none
    paged: bool
    path: bytes = b""  #: the object's first file, which tells whose its places are

    def as_dict(self) -> dict[str, Any]:
        """Return it as a step's state keeps it."""
        path = self.path.decode("utf-8", "surrogateescape")
        return {
            "identifier": self.identifier,
            "nid": self.nid,
            "first": self.first,
            "paged": self.paged,
            "path": path,
        }

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> PublicObject:
        """Return what `as_dict` gave."""
        path = fields.get("path", "").encode("utf-8", "surrogateescape")
        return cls(**{**fields, "path": path})

    def place(self, use: Use, uri: str, verified_by: str) -> Location:
        """Return the place of a part of the object, for the receipt.

        Args:
            use: what it is for the public, such as the thumbnail.
            uri: where it is.
            verified_by: how it was verified, in words.
        """
        return Location(uri=uri, path=self.path, size=0, sha256="", verified_by=verified_by, use=use)


async def page(site: Drupal, shown: PublicObject) -> Location:
    """Return where people look at an object, as the site says. Raises: StepError."""
    node = await site.node(shown.nid)  # again: its alias is made after it is created
    if node is None:
        raise ItemError("the node that was just there is gone", where=f"{site.rest.base}/node/{shown.nid}")
    return shown.place(Use.PAGE, site.page_of(node), "read from the site")


async def manifest(site: Drupal, shown: PublicObject) -> Location | None:
    """Return where an object's IIIF manifest is; None while the public cannot fetch it."""
    name = "book-manifest" if shown.paged else "manifest"
    url = f"{site.rest.base}/node/{shown.nid}/{name}"
    # Islandora answers 200 for any node: only what it shows proves something.
    if not await _canvases(site, url):
        return None
    return shown.place(Use.MANIFEST, url, _LISTS)


async def _canvases(site: Drupal, url: str) -> bool:
    """Tell whether the public gets a manifest that shows something."""
    try:
        answer = await site.rest.send("GET", url, anonymous=True)
    except ItemError:  # larger than what is read: it surely shows something
        return True
    if answer.status != 200:
        return False
    with contextlib.suppress(StepError, AttributeError, TypeError):
        manifest = answer.json()
        sequences = manifest.get("sequences") or []
        return bool(manifest.get("items") or any(sequence.get("canvases") for sequence in sequences))
    return False


async def missing(site: Drupal, place: Location, *, hidden: bool) -> str:
    """Return what is wrong with a page, a thumbnail or a manifest, as the public sees it; "" when nothing is.

    Args:
        hidden: a page may be one that the public may not see; then the user looks for its node.
    """
    answer = await site.rest.send("GET", place.uri, anonymous=True, sink=lambda _: None)
    if answer.status in (401, 403) and hidden and place.use is Use.PAGE:
        # As JSON: Drupal refuses credentials for the page itself.
        answer = await site.rest.send("GET", place.uri, params={"_format": "json"})
    if answer.status != 200:
        return f"answers {answer.status}"
    if place.use is Use.MANIFEST and place.verified_by == _LISTS and not await _canvases(site, place.uri):
        return "shows no page"
    return ""


async def thumbnail(site: Drupal, shown: PublicObject) -> tuple[bool, Location | None]:
    """Return (whether there is a thumbnail, where it is when the public can fetch it).

    An object that has none is seen by that of its first page.
    """
    tid = await site.term(use_uri("thumbnail"))
    for nid in dict.fromkeys((shown.nid, shown.first)):
        listed, _ = await site.media_of(nid)
        media = next((media for media in listed if tid in media.uses), None)
        if media is not None and media.file_url:
            url = media.file_url
            return True, shown.place(Use.THUMBNAIL, url, "answered 200") if await site.public(url) else None
    return False, None
