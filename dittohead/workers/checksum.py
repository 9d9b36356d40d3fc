"""checksum: re-read every file against the manifest and write a list that `sha256sum -c` accepts."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Literal

from pydantic import Field, field_validator

from dittohead import __version__
from dittohead.contract.worker import Done, Inputs, Options, Planned, StepContext, StepResult, Worker
from dittohead.model.errors import ItemError
from dittohead.model.events import Event, EventType
from dittohead.model.records import Entry, Output
from dittohead.model.text import counted
from dittohead.system import files
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit.faulty_files import blamed

_AGENT = f"dittohead {__version__} (hashlib SHA-256)"


class ChecksumOptions(Options):
    """What a checksum step may be told."""

    path: str = Field("manifest-sha256.txt", description="Name of the file that is written.")
    algorithm: Literal["sha256"] = Field("sha256", description="The digest.")
    verify: bool = Field(
        True, description="Read every file again and compare it with the manifest taken at the claim."
    )

    @field_validator("path")
    @classmethod
    def _plain(cls, value: str) -> str:
        if "/" in value or value in ("", ".", ".."):
            raise ValueError("a plain file name is required")
        return value


class ChecksumWorker(Worker[ChecksumOptions]):
    """Writes `<hex>  <path>` lines into work/, paths relative to what the step took."""

    name = "checksum"
    Options = ChecksumOptions
    makes_outputs = True

    async def plan(self, ctx: StepContext, options: ChecksumOptions) -> AsyncIterator[Planned]:
        """Yield the list it would write."""
        ctx.output(Output(path=os.fsencode(options.path), size=0, sha256=""))
        yield Planned(
            action="make", what=options.path, detail=f"SHA-256 of {counted(ctx.source.files, 'file')}"
        )

    async def run(self, ctx: StepContext, options: ChecksumOptions) -> StepResult:
        """Verify, then write the list durably. Twice leaves the same file."""
        target = ctx.work / options.path

        def work(stop: Stop) -> int:
            count = done = 0
            buffer = files.hash_buffer()
            with files.durable_file(target) as out:
                for entry in ctx.source.entries():
                    stop.check()
                    if entry.is_dir:
                        continue
                    if options.verify:
                        _verify(ctx.source, entry, buffer, stop)
                    out.write(line(entry))
                    count, done = count + 1, done + entry.size
                    ctx.progress(done, ctx.source.size, "bytes")
            return count

        count = await in_thread(work)
        digest, size = await in_thread(lambda stop: files.sha256_file(target))
        ctx.output(Output(path=os.fsencode(options.path), size=size, sha256=digest))
        if options.verify:
            detail = f"{counted(count, 'file')} read again and compared with the manifest"
            ctx.event(Event(type=EventType.FIXITY, outcome="success", detail=detail, agent=_AGENT))
        ctx.event(
            Event(type=EventType.DIGEST, outcome="success", detail=f"{options.path}: SHA-256", agent=_AGENT)
        )
        return Done(detail=counted(count, "file") + (" verified" if options.verify else ""))


def _verify(source: Inputs, entry: Entry, buffer: memoryview, stop: Stop) -> None:
    path = os.path.join(os.fsencode(source.root), entry.path)
    try:
        with files.opened_beneath(source.root, entry.path) as fd:
            digest, _ = files.sha256_fd(fd, buffer, lambda size: stop.check())
    except FileNotFoundError as error:
        raise ItemError("this file is gone", where=os.fsdecode(path)) from error
    if digest != entry.sha256:
        changed = ItemError(
            "this file is not what it was at the claim",
            where=os.fsdecode(entry.path),
            hint="Compare it with the original and upload the folder again",
        )
        raise blamed(changed, source, entry.path)


def line(entry: Entry) -> bytes:
    r"""Return a file's line as GNU coreutils writes it: names with \, LF or CR are escaped.

    Source: GNU coreutils manual, "md5sum invocation", and cksum's output_file.
    """
    name = entry.path
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""
    return mark + entry.sha256.encode() + b"  " + escaped + b"\n"
