"""pack: files into one tar archive, byte for byte the same each time; it is read back before it counts."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from dittohead.contract.worker import Done, Options, Planned, Recipe, StepContext, StepResult, Worker
from dittohead.model import units
from dittohead.model.errors import ItemError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Entry, Output
from dittohead.model.text import counted
from dittohead.system import files
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit import tar_members

#: Raised when the same files and options make another archive than before.
_VERSION = "1"

#: A gzip header without a name or a time, so that equal content makes equal bytes. Source: RFC 1952, 2.3.
_GZIP_BITS = 16 + zlib.MAX_WBITS


class PackOptions(Options):
    """What a pack step may be told."""

    path: str = Field("{name}.tar", description="Name of the archive that is made, such as `{name}.tar.gz`.")
    compress: Literal["none", "gzip"] = Field(
        "none",
        description="`gzip` makes the same bytes each time only with one version of zlib; `none` always.",
    )
    prefix: str = Field("", description="Directory that everything lies in inside the archive.")
    mtime: int = Field(
        0, ge=0, le=0o77777777777, description="The time that every member gets, seconds since 1970 (UTC)."
    )

    @field_validator("path")
    @classmethod
    def _plain(cls, value: str) -> str:
        if "/" in value or value in ("", ".", ".."):
            raise ValueError("write a file's name without a directory, such as {name}.tar")
        return value

    @field_validator("prefix")
    @classmethod
    def _directory(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("write a directory inside the archive, such as data/")
        return value if not value or value.endswith("/") else f"{value}/"


class PackWorker(Worker[PackOptions]):
    """Makes one tar archive of all files: sorted, without owners, times and modes of their own."""

    name = "pack"
    Options = PackOptions
    makes_outputs = True
    packs = True
    space_factor = 1.1

    def recipe(self, options: PackOptions) -> Recipe:
        """Return what decides the archive beside the files."""
        tools = {"packer": _VERSION}
        if options.compress == "gzip":
            tools["zlib"] = zlib.ZLIB_RUNTIME_VERSION
        return Recipe(settings=options.model_dump(mode="json"), tools=tools)

    async def plan(self, ctx: StepContext, options: PackOptions) -> AsyncIterator[Planned]:
        """Yield the archive."""
        name = options.path
        ctx.output(Output(path=os.fsencode(name), size=0, sha256=""))
        yield Planned(action="make", what=name, detail=counted(ctx.source.files, "file"))

    async def run(self, ctx: StepContext, options: PackOptions) -> StepResult:
        """Write the archive durably and read it back. Twice leaves the same file."""
        name = options.path
        target = ctx.work / name
        count, digest = await in_thread(lambda stop: _packed(ctx, options, target, stop))
        found, size = await in_thread(lambda stop: files.sha256_file(target))
        if found != digest:
            raise ItemError("the archive reads back with other bytes than were written", where=str(target))
        ctx.output(Output(path=os.fsencode(name), size=size, sha256=digest, detail={"members": count}))
        detail = f"{name}: {counted(count, 'file')}, SHA-256 {digest}; each compared with its digest"
        ctx.event(Event(type=EventType.PACKING, outcome="success", detail=detail, agent=AGENT))
        return Done(detail=f"{counted(count, 'file')} in {name}, {units.size(size)}")


def _packed(ctx: StepContext, options: PackOptions, target: Path, stop: Stop) -> tuple[int, str]:
    """Write the archive; return how many files it holds and its SHA-256. Raises: ItemError, OSError."""
    files.remove_unfinished(ctx.work)
    entries = sorted((one for one in ctx.source.entries() if not one.is_dir), key=lambda one: one.path)
    if not entries:
        raise ItemError("there are no files to pack", hint="See from: of the step and what it has made")
    digest = hashlib.sha256()
    done = 0
    with files.durable_file(target) as file:

        def write(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        with _compressor(options, write) as put:
            for entry in entries:
                for piece in _member(ctx, options, entry, stop):
                    put(piece)
                done += entry.size
                ctx.progress(done, ctx.source.size, "bytes")
            put(tar_members.END)
    return len(entries), digest.hexdigest()


@contextlib.contextmanager
def _compressor(options: PackOptions, write: Callable[[bytes], None]) -> Iterator[Callable[[bytes], None]]:
    if options.compress == "none":
        yield write
        return
    stream = zlib.compressobj(6, zlib.DEFLATED, _GZIP_BITS)
    yield lambda data: write(stream.compress(data))
    write(stream.flush())


def _member(ctx: StepContext, options: PackOptions, entry: Entry, stop: Stop) -> Iterator[bytes]:
    """Yield a header, the content and its padding. Raises: ItemError: the file is not what it was."""
    name = options.prefix.encode("utf-8", "surrogateescape") + entry.path
    yield tar_members.header(name, entry.size, options.mtime)
    hint = f"Run the folder again: dittohead rerun {ctx.job_id}"
    yield from tar_members.content(ctx.source.root, entry, stop.check, hint)
    yield tar_members.padding(entry.size)
