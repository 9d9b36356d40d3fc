"""The convert worker alone, on a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dittohead.contract.worker import Made
from dittohead.model.records import Output
from dittohead.toolkit.images.options import ConvertOptions
from dittohead.workers.convert import ConvertWorker
from tests.support.context import LoneContext
from tests.support.trees import tree


class Rig:
    """A payload and the worker."""

    def __init__(self, base: Path) -> None:
        self.base, self.payload = base, base / "payload"
        self.worker = ConvertWorker()

    async def convert(
        self, what: dict[str | bytes, Any] | None = None, *, ctx: LoneContext | None = None, **options: Any
    ) -> LoneContext:
        if what is not None:
            tree(self.payload, what)
        ctx = ctx or LoneContext(self.base, self.payload)
        self.ctx = ctx
        self.result = await self.worker.run(ctx, ConvertOptions.model_validate(options))
        return ctx

    def made(self) -> Made:
        """Return what the last conversion made, as a later step sees it."""
        ctx = self.ctx
        return Made(
            name="tiles",
            worker="convert",
            source="",
            root=ctx.work,
            outputs=lambda: iter(ctx.outputs),
            locations=lambda: iter(()),
        )

    async def one(self, name: str, data: bytes, **options: Any) -> tuple[Path, Output]:
        ctx = await self.convert({name: data}, **options)
        (output,) = ctx.outputs
        return ctx.work / os.fsdecode(output.path), output

    async def details(self, what: dict[str | bytes, Any], **options: Any) -> dict[str, dict[str, Any]]:
        """Return {path: detail} of the results that have one."""
        ctx = await self.convert(what, **options)
        return {os.fsdecode(output.path): output.detail for output in ctx.outputs if output.detail}
