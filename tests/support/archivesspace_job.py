"""One folder's archivesspace step, without an engine: `python -m tests.support.archivesspace_job BASE`.

As a program it forks a child for each line on stdin and tells its pid; the child does the step once
"go" comes. Whatever is kept between tries lies on disk, so a child may be killed at any moment.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dittohead.contract.worker import Done, Made, UndoContext, VerifyContext
from dittohead.model.records import Location, Output, Use
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from dittohead.workers.archivesspace.worker import ArchivesSpaceWorker
from tests.support.archivesspace import ArchivesSpace
from tests.support.context import LoneContext, source_of

AO = "/repositories/2/archival_objects/7"
NAME = "HBF_001_02"
SECRETS = {"aspace-password": "not-to-be-seen"}


def furnish(server: ArchivesSpace, identifier: str = NAME, uri: str = AO, **fields: Any) -> str:
    """Put a collection, a series and an archival object into the server."""
    resource, series = "/repositories/2/resources/1", "/repositories/2/archival_objects/3"
    if resource not in server.records:
        server.add(
            resource, title="The <emph>Hale</emph> Papers", id_0="HBF", level="fonds", publish=True,
            notes=[{"type": "userestrict", "publish": True, "subnotes": [{"jsonmodel_type": "note_text", "content": "of the fonds", "publish": True}]}],
        )  # fmt: skip
        server.add(
            series, {"ancestors": [{"ref": resource, "level": "fonds"}]}, title="Letters", level="otherlevel", other_level="bundle",
            resource={"ref": resource}, publish=True,
            notes=[{"type": "userestrict", "publish": True, "subnotes": [{"jsonmodel_type": "note_text", "content": "of the <title>bundle</title>", "publish": True}]}],
        )  # fmt: skip
    given: dict[str, Any] = {
        "title": "Correspondence <emph render='italic'>with</emph> B. &amp; C.",
        "level": "file",
        "component_id": identifier,
        "resource": {"ref": resource},
        "parent": {"ref": series},
        "publish": True,
        "dates": [{"label": "creation", "expression": "1951", "begin": "1951", "date_type": "single"}],
        "notes": [
            {
                "jsonmodel_type": "note_singlepart",
                "type": "abstract",
                "publish": True,
                "content": ["About <emph>them</emph>."],
            }
        ],
        "user_defined": {"string_1": "kept"},
        "repository_processing_note": "kept too",
    }
    ancestors = [{"ref": series, "level": "bundle"}, {"ref": resource, "level": "fonds"}]
    server.add(uri, {"ancestors": ancestors, "has_unpublished_ancestor": False}, **(given | fields))
    return uri


class Job:
    """A folder of images with its steps, all of it told by what lies below `base`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.spec: dict[str, Any] = json.loads((base / "spec.json").read_text())
        self.options = ArchivesSpaceOptions.model_validate(self.spec["options"])
        self.worker = ArchivesSpaceWorker()
        self.last: LoneContext | None = None

    @classmethod
    def made(
        cls,
        base: Path,
        url: str,
        pages: int | Sequence[str] = 3,
        /,
        *,
        bucket: str = "preservation",
        job: str = "01JTESTTESTTESTTESTTESTTEST",
        access: Sequence[tuple[str, str]] = (),
        name: str = NAME,
        **options: Any,
    ) -> Job:
        """Make the folder.

        Args:
            pages: their paths below the folder, or how many.
            access: (use, uri) of what an access step has published.
        """
        names = [f"{name}_{n:04}.tif" for n in range(1, pages + 1)] if isinstance(pages, int) else pages
        for path in names:
            file = base / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                file.write_bytes(path.encode())
        given = {"url": url, "user": "dittohead", "credential": "aspace-password", "repository": 2}
        given |= {"masters": ["preserve"], "access": ["islandora"] if access else []} | options
        spec = {"options": given, "bucket": bucket, "job": job, "access": list(access), "name": name}
        base.mkdir(parents=True, exist_ok=True)
        (base / "spec.json").write_text(json.dumps(spec))
        (base / f"facts.{job}.json").unlink(missing_ok=True)
        return cls(base)

    @property
    def facts(self) -> Path:
        return self.base / f"facts.{self.spec['job']}.json"

    @property
    def ledger(self) -> Path:
        return self.base / "state" / "ledger" / f"{self.spec['job']}.record.jsonl"

    def context(self) -> LoneContext:
        """Return a try's context; earlier steps have done what they do."""
        payload = self.base / self.spec["name"]
        ctx = LoneContext(self.base, payload, job_id=self.spec["job"], secrets=SECRETS, step="record")
        ctx.claimed_at = 1_700_000_000.0
        made = [
            Output(
                path=os.path.splitext(entry.path)[0] + b".jp2", size=100 + i, source=entry.path,
                sha256=hashlib.sha256(b"jp2 " + entry.path).hexdigest(), detail={"width": 8000, "height": 10000 + i},
            )
            for i, entry in enumerate(ctx.source.entries()) if entry.path.endswith(b".tif")
        ]  # fmt: skip
        described = [
            Output(path=one.path, size=one.size + 1, sha256=one.sha256[::-1], source=one.path) for one in made
        ]
        places = [
            Location(
                uri=f"s3://{self.spec['bucket']}/{self.spec['name']}/{one.path.decode()}", path=one.path, size=one.size,
                sha256=one.sha256, verified_by="sha256",
            )
            for one in described
        ]  # fmt: skip
        shown = [
            Location(uri=uri, path=b"", size=0, sha256="", verified_by="read back", use=Use(use))
            for use, uri in self.spec["access"]
        ]

        def step(name: str, source: str, outputs: list[Output], locations: list[Location]) -> Made:
            return Made(
                name=name, worker=name, source=source, root=ctx.work, outputs=lambda: iter(outputs), locations=lambda: iter(locations)
            )  # fmt: skip

        ctx.others = {
            "masters": step("masters", "", made, []),
            "described": step("described", "masters", described, []),
            "preserve": step("preserve", "described", [], places),
            "islandora": step("islandora", "", [], shown),
        }
        if self.facts.exists():
            ctx.found["record"] = json.loads(self.facts.read_text())
        self.last = ctx
        return ctx

    async def preflight(self) -> dict[str, Any]:
        """Look before anything is done, and keep what was found."""
        found = dict(await self.worker.preflight(self.context(), self.options))
        temporary = self.facts.with_suffix(".new")
        temporary.write_text(json.dumps(found))
        temporary.rename(self.facts)
        return found

    async def run(self) -> LoneContext:
        """Do the step, after its preflight where that has not been done."""
        if not self.facts.exists():
            await self.preflight()
        ctx = self.context()
        assert isinstance(await self.worker.run(ctx, self.options), Done)
        return ctx

    async def undo(self, *, dry_run: bool = False) -> list[tuple[bool, str, str]]:
        """Undo the job; return what was reported."""
        said: list[tuple[bool, str, str]] = []
        ctx = UndoContext(
            job_id=self.spec["job"], ledger=self.ledger, locations=lambda: iter(()), env={}, secret=SECRETS.__getitem__,
            dry_run=dry_run, report=lambda *one: said.append(one),
        )  # fmt: skip
        await self.worker.undo(ctx, self.options)
        return said

    async def verify(self, locations: Sequence[Location]) -> list[tuple[bool, str, str]]:
        """Verify recorded locations; return what was reported."""
        said: list[tuple[bool, str, str]] = []
        ctx = VerifyContext(
            locations=lambda: iter(locations), source=None, env={}, report=lambda *one: said.append(one), secret=SECRETS.__getitem__
        )  # fmt: skip
        await self.worker.verify(ctx, self.options)
        return said

    def source(self) -> Any:
        """Return the folder's files."""
        return source_of(self.base / self.spec["name"])


def _serve() -> None:
    """Fork a child for each base that comes on stdin; tell its pid, wait for "go", tell how it ended."""
    for line in sys.stdin:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)
            code = 1
            try:
                asyncio.run(Job(Path(line.strip())).run())
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(reader)
        print(pid, flush=True)
        sys.stdin.readline()
        os.write(writer, b"g")
        os.close(writer)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
