"""checksum: re-read every file, compare it with the manifest and with lists that came along, write a list."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
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
from dittohead.toolkit import checksum_lists
from dittohead.toolkit.checksum_lists import NAMES
from dittohead.toolkit.faulty_files import blamed
from dittohead.workers.checksum.comparison import Comparison, Lists, found

_AGENT = f"dittohead {__version__} (hashlib SHA-256)"


class ChecksumOptions(Options):
    """What a checksum step may be told."""

    path: str = Field("manifest-sha256.txt", description="Name of the file that is written.")
    algorithm: Literal["sha256"] = Field("sha256", description="The digest.")
    verify: bool = Field(
        True, description="Read every file again and compare it with the manifest taken at the claim."
    )
    compare: bool | list[str] = Field(
        False,
        description="Compare the files with lists of checksums that came with the folder: `true` for lists "
        "of the usual names (`*.md5`, `SHA256SUMS`, `checksums.csv`, ...), or patterns of their names. Files "
        "that are missing or changed fail the folder, and so does a list that cannot be read.",
    )
    surplus: Literal["fail", "note"] = Field(
        "fail", description="With `compare`: what happens to files that no list names."
    )

    @field_validator("path")
    @classmethod
    def _plain(cls, value: str) -> str:
        if "/" in value or value in ("", ".", ".."):
            raise ValueError("a plain file name is required")
        return value

    @field_validator("compare")
    @classmethod
    def _some(cls, value: bool | list[str]) -> bool | list[str]:
        if value == []:
            raise ValueError("write true, false, or patterns such as [checksum.md5]")
        return value

    @property
    def patterns(self) -> Sequence[str]:
        """The names of lists to compare with; none where nothing is compared."""
        if isinstance(self.compare, bool):
            return NAMES if self.compare else ()
        return self.compare


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
        """Verify and compare, then write the list durably. Twice leaves the same file."""
        target = ctx.work / options.path
        files_read = _Reading(ctx, options)
        count = await in_thread(lambda stop: files_read.run(target, stop))
        digest, size = await in_thread(lambda stop: files.sha256_file(target))
        ctx.output(Output(path=os.fsencode(options.path), size=size, sha256=digest))
        for event in files_read.events(count):
            ctx.event(event)
        return Done(detail=files_read.detail(count))


class _Reading:
    """Reads each file once for all digests that are needed of it."""

    def __init__(self, ctx: StepContext, options: ChecksumOptions) -> None:
        self._ctx, self._options = ctx, options
        self._lists: Lists | None = None
        self._comparison: Comparison | None = None

    def run(self, target: Path, stop: Stop) -> int:
        """Write the list; return how many files it names. Blocking.

        Raises: ItemError: a file is not what a list or the manifest says; OSError; Stopped.
        """
        source = self._ctx.source
        if self._options.patterns:
            self._lists = found(source, self._options.patterns)
            self._comparison = Comparison(self._lists)
        count = done = 0
        with files.durable_file(target) as out:
            for entry in source.entries():
                stop.check()
                if entry.is_dir:
                    continue
                self._file(entry, stop)
                out.write(line(entry))
                count, done = count + 1, done + entry.size
                self._ctx.progress(done, source.size, "bytes")
            self._judge()
        return count

    def _file(self, entry: Entry, stop: Stop) -> None:
        wanted = self._lists.algorithms(entry.path) if self._lists else set()
        digests = {"sha256": entry.sha256}
        if self._options.verify or wanted - {"sha256"}:
            digests = _digests(self._ctx.source, entry, {"sha256", *wanted}, stop)
            if digests["sha256"] != entry.sha256:
                changed = ItemError(
                    "this file is not what it was at the claim",
                    where=os.fsdecode(entry.path),
                    hint="Compare it with the original and upload the folder again",
                )
                raise blamed(changed, self._ctx.source, entry.path)
        if self._comparison is not None:
            self._comparison.add(entry.path, digests)

    def _judge(self) -> None:
        """Raise ItemError where files and lists do not agree."""
        if self._comparison is None:
            return
        self._comparison.end()
        faults = [str(self._comparison.faults)] if self._comparison.faults.count else []
        if self._comparison.surplus.count and self._options.surplus == "fail":
            faults.append(str(self._comparison.surplus))
        if faults:
            error = ItemError(
                f"the files are not what their checksums say: {'; '.join(faults)}",
                where=self._ctx.name,
                hint="Compare them with the originals and upload the folder again",
            )
            if self._ctx.source.made is None and not self._comparison.faults.kinds["missing"]:
                error.files = self._comparison.faults.named
            raise error

    def _compared(self) -> str:
        """Return what was compared with lists, in words; "" for nothing."""
        if self._lists is None or self._comparison is None:
            return ""
        names = checksum_lists.named(list(self._lists.lists))
        text = f"{counted(self._comparison.count, 'file')} compared with {names}"
        surplus = self._comparison.surplus
        return f"{text}; {counted(surplus.count, 'file')} in no list" if surplus.count else text

    def events(self, count: int) -> Iterator[Event]:
        """Yield what was done, in PREMIS terms."""
        if self._options.verify:
            detail = f"{counted(count, 'file')} read again and compared with the manifest"
            yield Event(type=EventType.FIXITY, outcome="success", detail=detail, agent=_AGENT)
        if detail := self._compared():
            outcome = "warning" if self._comparison and self._comparison.surplus.count else "success"
            yield Event(type=EventType.FIXITY, outcome=outcome, detail=detail, agent=_AGENT)
        detail = f"{self._options.path}: SHA-256"
        yield Event(type=EventType.DIGEST, outcome="success", detail=detail, agent=_AGENT)

    def detail(self, count: int) -> str:
        """Return it in a line for people."""
        compared = self._compared()
        verified = " verified" if self._options.verify else ""
        return counted(count, "file") + verified + (f"; {compared}" if compared else "")


def _digests(source: Inputs, entry: Entry, algorithms: set[str], stop: Stop) -> dict[str, str]:
    """Return a file's digests, taken in one read. Raises: ItemError: it is gone; OSError."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    try:
        with files.opened_beneath(source.root, entry.path) as fd:
            files.hash_fd(fd, hashes.values(), files.hash_buffer(), lambda block: stop.check())
    except FileNotFoundError as error:
        path = os.path.join(os.fsencode(source.root), entry.path)
        raise ItemError("this file is gone", where=os.fsdecode(path)) from error
    return {name: one.hexdigest() for name, one in hashes.items()}


def line(entry: Entry) -> bytes:
    r"""Return a file's line as GNU coreutils writes it: names with \, LF or CR are escaped.

    Source: GNU coreutils manual, "md5sum invocation", and cksum's output_file.
    """
    name = entry.path
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""
    return mark + entry.sha256.encode() + b"  " + escaped + b"\n"
