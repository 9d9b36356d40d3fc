"""What earlier steps delivered, followed back through what each made of what to the files of the folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dittohead.errors import ItemError
from dittohead.model import Output, Use
from dittohead.worker import Made, StepContext

_ROLES = frozenset({Use.PAGE, Use.THUMBNAIL, Use.MANIFEST})


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """A file that lies at a place outside."""

    uri: str
    path: bytes  #: of the file that was delivered, for its ending
    size: int
    sha256: str  #: "" where it is not known yet
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """A page, thumbnail or manifest."""

    use: Use
    uri: str
    origin: bytes | None  #: the folder's file it was made of; None for none or many
    sha256: str  #: what fetching it must give; "" where that is not known
    known_as: str  #: the object's record or identifier, where its maker says it


@dataclass(frozen=True, slots=True)
class _Origin:
    """Which of the folder's files something was made of, and what is known of it."""

    path: bytes
    detail: dict[str, Any]


class Chain:
    """Follows files back through the steps that made them."""

    def __init__(self, ctx: StepContext) -> None:
        self._ctx = ctx
        self._made: dict[str, dict[bytes, _Origin]] = {}

    def _inputs(self, made: Made) -> dict[bytes, _Origin] | None:
        """Return the origin of each file a step took; None when it took the folder's own."""
        if not made.source:
            return None
        if made.source not in self._made:
            source = self._ctx.made_by(made.source)
            if source is None:
                raise ItemError(
                    f'what "{made.name}" delivered was made by "{made.source}", of which nothing is known',
                    hint=f"Do the folder again: dittohead rerun {self._ctx.job_id}",
                )
            self._made[made.source] = dict(self._outputs(source))
        return self._made[made.source]

    def _outputs(self, made: Made) -> Iterator[tuple[bytes, _Origin]]:
        before = self._inputs(made)
        for output in made.outputs():
            origin = self._origin(output.source, before)
            if origin is not None:
                yield output.path, _Origin(origin.path, {**origin.detail, **output.detail})

    def _origin(self, path: bytes, inputs: dict[bytes, _Origin] | None) -> _Origin | None:
        if not path:
            return None
        return _Origin(path, {}) if inputs is None else inputs.get(path)

    def copies(self, step: str) -> Iterator[tuple[bytes, Copy]]:
        """Yield (the folder's file, a copy of it or of what was made of it) of a step's locations."""
        made = self._ctx.made_by(step)
        if made is None:
            return
        inputs = self._inputs(made)
        for location in made.locations():
            origin = None if location.use else self._origin(location.path, inputs)
            if origin is not None:
                copy = Copy(
                    uri=location.uri,
                    path=location.path,
                    size=location.size,
                    sha256=location.sha256,
                    caption=_caption(origin.detail),
                )
                yield origin.path, copy

    def shown(self, step: str) -> Iterator[Shown]:
        """Yield the pages, thumbnails and manifests of a step: its locations and what its outputs say."""
        made = self._ctx.made_by(step)
        if made is None:
            return
        inputs = self._inputs(made)
        for location in made.locations():
            if location.use in _ROLES:
                origin = self._origin(location.path, inputs)
                path = origin.path if origin else None
                # Its digest is of what its worker counts, not of what a browser gets.
                yield Shown(use=Use(location.use), uri=location.uri, origin=path, sha256="", known_as="")
        for output in made.outputs():
            if output.detail.get("use") in _ROLES and output.detail.get("uri"):
                yield self._said(output, inputs)

    def _said(self, output: Output, inputs: dict[bytes, _Origin] | None) -> Shown:
        origin = self._origin(output.source, inputs)
        return Shown(
            use=Use(output.detail["use"]),
            uri=str(output.detail["uri"]),
            origin=origin.path if origin else None,
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
