"""A site with a collection and a folder of images, for the tests of the islandora step."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dittohead.contract.worker import Done, UndoContext, Wait
from dittohead.model.description import Described, Description
from dittohead.workers.islandora.worker import IslandoraOptions, IslandoraWorker
from tests.support.context import LoneContext
from tests.support.islandora import Islandora
from tests.support.islandora_state import PASSWORD
from tests.support.trees import tree

ORIGINAL = "http://pcdm.org/use#OriginalFile"
SERVICE = "http://pcdm.org/use#ServiceFile"
THUMBNAIL = "http://pcdm.org/use#ThumbnailImage"

KNOWN = {
    "identifier": "GEH_1_2",
    "title": "Letters of the year 1951",
    "ref": "/repositories/2/archival_objects/7",
    "dates": [{"label": "creation", "begin": "1951-03", "end": "1951-08"}],
    "extents": ["3 pages"],
    "rights": "In copyright",
    "creators": [{"name": "Hale, George Ellery", "role": "cre"}],
}


@dataclass
class Rig:
    """A site with a collection, and a folder of images."""

    base: Path
    site: Islandora
    files: dict[str, Any] = field(default_factory=dict)
    jobs: int = 0

    def __post_init__(self) -> None:
        self.collection = self.site.add_node("Hale papers", field_local_identifier="GEH")
        self.description = Description.model_validate(KNOWN)
        self.worker = IslandoraWorker()
        self.payload = tree(
            self.base / "GEH_1_2", self.files or {f"GEH_1_2_{n}.jpg": f"image {n}" for n in (1, 2, 10)}
        )
        self.ctx = self.job()

    def job(self) -> LoneContext:
        """Begin another job of the folder."""
        self.jobs += 1
        ctx = LoneContext(self.base, self.payload, job_id=f"01J{self.jobs}", secrets={"password": PASSWORD})
        ctx.description = Described.model_validate({"objects": [{"description": self.description}]})
        return ctx

    def options(self, **more: Any) -> IslandoraOptions:
        given = {"url": self.site.base, "user": "dittohead", "credential": "password", "collection": "GEH"}
        return IslandoraOptions.model_validate({**given, **more})

    async def run(self, **more: Any) -> Done | Wait:
        return await self.worker.run(self.ctx, self.options(**more))

    async def again(self, **more: Any) -> list[str]:
        """Run another job of the folder; return what it wrote."""
        before = len(self.site.calls)
        self.ctx = self.job()
        await self.run(**more)
        return [f"{call.method} {call.path}" for call in self.site.calls[before:] if call.writes]

    async def undo(self, *, dry_run: bool = False, **more: Any) -> list[tuple[bool, str, str]]:
        said: list[tuple[bool, str, str]] = []
        ctx = UndoContext(
            job_id=self.ctx.job_id,
            ledger=self.ctx.ledger,
            locations=lambda: iter(self.ctx.locations),
            env={},
            secret=lambda name: PASSWORD,
            dry_run=dry_run,
            report=lambda ok, uri, text: said.append((ok, uri, text)),
        )
        await self.worker.undo(ctx, self.options(**more))
        return said

    @property
    def object(self) -> dict[str, Any]:
        return self.site.nodes[self.site.nid("GEH_1_2")]

    def media(self, use: str = ORIGINAL) -> list[dict[str, Any]]:
        return [one for one in self.site.media.values() if self.site.tid(use) in one["uses"]]

    def uses(self) -> dict[str, str]:
        return {place.use: place.uri for place in self.ctx.locations if place.use}
