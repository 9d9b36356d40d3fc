"""What earlier steps delivered, followed back through what each made of what to the files of the folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dittohead.model.records import Output, Use
from dittohead.toolkit import provenance
from dittohead.toolkit.provenance import Origin

_ROLES = frozenset({Use.PAGE, Use.THUMBNAIL, Use.MANIFEST})


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliveredCopy:
    """A file that lies at a place outside."""

    uri: str
    path: bytes  #: of the file that was delivered, for its ending
    size: int
    sha256: str  #: "" where it is not known yet
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFile:
    """A page, thumbnail or manifest."""

    use: Use
    uri: str
    origin: bytes | None  #: the folder's file it was made of; None for none or many
    sha256: str  #: what fetching it must give; "" where that is not known
    known_as: str  #: the object's record or identifier, where its maker says it


class DeliveredChain(provenance.Chain):
    """Follows what was delivered back through the steps that made it."""

    def copies(self, step: str) -> Iterator[tuple[bytes, DeliveredCopy]]:
        """Yield (the folder's file, a copy of it or of what was made of it) of a step's locations."""
        made = self._ctx.made_by(step)
        if made is None:
            return
        taken = self.taken(made)
        for location in made.locations():
            found = None if location.use else self.origin(location.path, taken)
            if found is not None:
                copy = DeliveredCopy(
                    uri=location.uri,
                    path=location.path,
                    size=location.size,
                    sha256=location.sha256,
                    caption=_caption(found.detail),
                )
                yield found.path, copy

    def shown(self, step: str) -> Iterator[PublishedFile]:
        """Yield the pages, thumbnails and manifests of a step: its locations and what its outputs say."""
        made = self._ctx.made_by(step)
        if made is None:
            return
        taken = self.taken(made)
        for location in made.locations():
            if location.use in _ROLES:
                found = self.origin(location.path, taken)
                path = found.path if found else None
                # Its digest is of what its worker counts, not of what a browser gets.
                yield PublishedFile(
                    use=Use(location.use), uri=location.uri, origin=path, sha256="", known_as=""
                )
        for output in made.outputs():
            if output.detail.get("use") in _ROLES and output.detail.get("uri"):
                yield self._said(output, taken)

    def _said(self, output: Output, taken: Mapping[bytes, Origin] | None) -> PublishedFile:
        found = self.origin(output.source, taken)
        return PublishedFile(
            use=Use(output.detail["use"]),
            uri=str(output.detail["uri"]),
            origin=found.path if found else None,
            sha256=output.sha256,
            known_as=str(output.detail.get("ref") or output.detail.get("object", "")),
        )


def _caption(detail: dict[str, Any]) -> str:
    """Return what staff want to know of an image: "8000 x 10000 px, 3 x 16 bit, lossless"."""
    words = []
    if detail.get("width") and detail.get("height"):
        words.append(f"{detail['width']} x {detail['height']} px")
    if detail.get("bands") and detail.get("bits"):
        words.append(f"{detail['bands']} x {detail['bits']} bit")
    if detail.get("page"):
        words.append(f"page {detail['page']}")
    if detail.get("lossless"):
        words.append("lossless")
    return ", ".join(words)
