"""Packages for a preservation service, and one submit step that runs alone."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dittohead.contract.worker import Inputs, Made, StepResult
from dittohead.model.records import Entry, Output
from dittohead.workers.submit.options import SubmitOptions
from dittohead.workers.submit.worker import SubmitWorker
from tests.support import package
from tests.support.context import LoneContext
from tests.support.package import CONTRACT, DPRES, LIDO, context, packed
from tests.support.preservation_service import PreservationService, Served
from tests.support.trees import tree

OBJECT = {"reports": {"lido.xml": LIDO.encode()}}


@dataclass(frozen=True)
class Sip:
    """A package that the service accepts."""

    path: Path
    output: Output
    certificate: Path
    schemas: Path


def sip(base: Path, schemas: Path, **more: Any) -> Sip:
    """Make a package of the Finnish profile."""
    from tests.support.images import tiff

    what = {**OBJECT, "images": {"a.tif": tiff(900, 700)}}
    ctx = context(base, tree(base / "object-7", what))
    asyncio.run(packed(ctx, **{**DPRES, "schemas": schemas, "metadata": ["*/lido.xml"], **more}))
    (output,) = ctx.outputs
    certificate = base / "cert.pem"
    certificate.write_text("-----BEGIN CERT" + package._KEY.partition("-----BEGIN CERT")[2])
    return Sip(ctx.work / output.path.decode(), output, certificate, schemas)


def service(base: Path, made: Sip, **more: Any) -> PreservationService:
    """Return a service that knows the partner's certificate."""
    found = PreservationService(
        base / "sip", contract=CONTRACT, ca=made.certificate, schemas=made.schemas, **more
    )
    return found


class Step:
    """One submit step of one job, tried as often as a test likes."""

    def __init__(
        self,
        base: Path,
        made: Sip,
        served: Served,
        job_id: str = "01JTESTTESTTESTTESTTESTTEST",
        **options: Any,
    ) -> None:
        root = base / f"package-{job_id}"
        root.mkdir(parents=True, exist_ok=True)
        shutil.copy(made.path, root / made.path.name)
        entry = Entry(path=os.fsencode(made.path.name), size=made.output.size, sha256=made.output.sha256)
        before = Made(
            name="package", worker="package", source="", root=root, outputs=lambda: iter([made.output]),
            locations=lambda: iter(()),
        )  # fmt: skip
        source = Inputs(root=root, entries=lambda: iter([entry]), files=1, size=entry.size, made=before)
        folder = base / "object-7"
        folder.mkdir(exist_ok=True)
        self.ctx = LoneContext(
            base, folder, source=source, job_id=job_id, secrets=served.secrets, step="submit"
        )
        self.served, self.service, self.made = served, served.service, made
        self.options = SubmitOptions.model_validate({"ask_first": "1s", **options})
        self.archive = root / made.path.name

    async def run(self) -> StepResult:
        """Try it once; what it leaves is kept for the next try."""
        self.ctx.again()
        result = await SubmitWorker().run(self.ctx, self.options)
        if hasattr(result, "state"):
            self.ctx.saved = result.state
        return result

    def release(self, gone: bool = True) -> None:
        """Let the archive be gone, as the engine does."""
        self.ctx.source = replace(self.ctx.source, released=gone)
        if gone:
            self.archive.unlink()
        else:
            shutil.copy(self.made.path, self.archive)
