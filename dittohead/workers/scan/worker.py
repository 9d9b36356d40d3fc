"""scan: every file is sent to clamd; three outcomes, and all findings before the folder stops."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal

from pydantic import Field, field_validator

from dittohead.contract.options import Duration
from dittohead.contract.worker import Done, Options, Planned, StepContext, StepResult, Worker
from dittohead.model import units
from dittohead.model.errors import ItemError, StepError, TargetError
from dittohead.model.events import Event, EventType
from dittohead.model.records import Entry
from dittohead.model.text import counted, display
from dittohead.system import files
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit.faulty_files import FaultyFiles
from dittohead.toolkit.runners import Renewed, Runners
from dittohead.workers.scan.clamd import BrokenConnection, Clamd, ScanVerdict, Version, problem_of

#: Files, and bytes, that are scanned one after the other before it is seen whether another job waits.
_AT_A_TIME, _BYTES = 64, 4 << 20

#: How often clamd may break off at a file that it reads alone, until the file is held to be the reason.
_ALONE = 2

_LIMITS = "clamd does not say so where it reads a file only in part"


class ScanOptions(Options):
    """What a scan step may be told."""

    clamd: str = Field(
        "unix:/run/clamav/clamd.ctl",
        description="Where clamd listens: `unix:` and the path of its socket, or `tcp://HOST:3310`. "
        "TCP is not encrypted.",
    )
    not_scanned: Literal["fail", "note"] = Field(
        "fail",
        description="What happens to a folder with files that clamd could not scan: too large, nested too "
        "deeply, encrypted (where clamd reports that), or an error. `note` writes them into the receipt and "
        "goes on.",
    )
    definitions_age: Duration = Field(
        604800.0,
        gt=0,
        description="Definitions older than this are a warning in the receipt and of `dittohead doctor`.",
    )
    timeout: Duration = Field(
        600.0, gt=0, description="The longest that clamd may say nothing while it scans one file."
    )

    @field_validator("clamd")
    @classmethod
    def _address(cls, value: str) -> str:
        if problem := problem_of(value):
            raise ValueError(problem)
        return value


class ScanWorker(Worker[ScanOptions]):
    """Streams each file to clamd; nothing is stored. A find fails the folder, after all were scanned."""

    name = "scan"
    Options = ScanOptions
    default_limit = 4

    def target(self, options: ScanOptions) -> str:
        """Return the clamd, which is paused while it is away."""
        return f"clamd at {options.clamd}"

    async def doctor(
        self, options: ScanOptions, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Say whether it answers, how old its definitions are, and whether it tells what it leaves out."""
        clamd = Clamd(options.clamd, options.timeout)
        place = self.target(options)
        try:
            await asyncio.to_thread(clamd.ping)
            version = await asyncio.to_thread(clamd.version)
            tells = await in_thread(clamd.tells_limits)
        except StepError as error:
            yield False, str(error)
            return
        yield True, f"{place} answers: {version.engine}, {version}"
        if version.older_than(options.definitions_age):
            age = units.duration(options.definitions_age)
            yield False, f"{place}: its {version} are older than {age}; see that freshclam runs"
        if not tells:
            yield False, f"{place}: {_LIMITS}; set AlertExceedsMax yes in its clamd.conf"

    async def plan(self, ctx: StepContext, options: ScanOptions) -> AsyncIterator[Planned]:
        """Yield that the files would be scanned."""
        yield Planned(
            action="run",
            what="virus scan",
            where=self.target(options),
            detail=f"{counted(ctx.source.files, 'file')}, {units.size(ctx.source.size)}",
        )

    async def run(self, ctx: StepContext, options: ScanOptions) -> StepResult:
        """Scan every file. Twice does no harm."""
        clamd = Clamd(options.clamd, options.timeout)
        before = await asyncio.to_thread(clamd.version)
        tells = await in_thread(clamd.tells_limits)
        with open(ctx.log_file(), "a", encoding="utf-8", errors="backslashreplace") as log:
            findings = _Findings(lambda line: print(line, file=log))
            await _Scan(ctx, clamd, findings).run()
        after = await asyncio.to_thread(clamd.version)
        notes = [*_notes(after, options), *([] if tells else [_LIMITS])]
        return _result(ctx, options, findings, (before, after), notes)


def _notes(version: Version, options: ScanOptions) -> Iterator[str]:
    if version.older_than(options.definitions_age):
        yield f"the definitions are older than {units.duration(options.definitions_age)}"


def _result(
    ctx: StepContext,
    options: ScanOptions,
    findings: _Findings,
    versions: tuple[Version, Version],
    notes: list[str],
) -> Done:
    """Record what was found, and by what.

    Args:
        versions: of clamd, before and after.
        notes: what else is worth a warning.

    Raises: ItemError: the folder may not go on.
    """
    before, after = versions
    faults = findings.faults(options.not_scanned)
    by = str(after) if before == after else f"{before}, then {after}"
    detail = "; ".join([findings.summary(), by, *notes])
    outcome = "failure" if faults else "warning" if notes or findings.not_scanned.count else "success"
    ctx.event(Event(type=EventType.VIRUS_CHECK, outcome=outcome, detail=detail, agent=after.engine))
    if faults:
        error = ItemError("; ".join(faults), where=ctx.name, hint=findings.hint(ctx.job_id))
        error.files = tuple(findings.found.named + findings.not_scanned.named)
        error.good = not findings.found.count and not findings.changed.count
        raise error
    return Done(detail=detail)


class _Findings:
    """What has come of all files; threads add to it.

    Args:
        write: puts a line in the step's log.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self.found, self.not_scanned, self.changed = FaultyFiles(), FaultyFiles(), FaultyFiles()
        self.clean = self.size = 0
        self._write, self._lock = write, threading.Lock()

    def add(self, path: bytes, verdict: ScanVerdict) -> None:
        """Take down what clamd says of a file."""
        with self._lock:
            if verdict.outcome == "clean":
                self.clean += 1
                return
            faulty = self.found if verdict.outcome == "found" else self.not_scanned
            faulty.add(path, verdict.what)
            self._write(f"{display(path)}: {verdict.outcome}: {verdict.what}")

    def add_changed(self, path: bytes, what: str) -> None:
        """Take down that a file is not what it was."""
        with self._lock:
            self.changed.add(path, what)
            self._write(f"{display(path)}: {what}")

    def add_size(self, size: int) -> int:
        """Count bytes that were read; return all."""
        with self._lock:
            self.size += size
            return self.size

    def faults(self, not_scanned: str) -> list[str]:
        """Return why the folder may not go on; [] where it may."""
        faults = []
        if self.found.count:
            faults.append(f"clamd found something in {counted(self.found.count, 'file')}: {self.found}")
        if self.not_scanned.count and not_scanned == "fail":
            faults.append(f"{counted(self.not_scanned.count, 'file')} not scanned: {self.not_scanned}")
        if self.changed.count:
            faults.append(f"{counted(self.changed.count, 'file')} changed: {self.changed}")
        return faults

    def summary(self) -> str:
        """Return the numbers, in words, and what was found."""
        parts = [f"{counted(self.clean, 'file')} clean"]
        for count, words, faulty in (
            (self.found.count, "with a finding", self.found),
            (self.not_scanned.count, "not scanned", self.not_scanned),
        ):
            if count:
                parts.append(f"{counted(count, 'file')} {words} ({faulty})")
        return "; ".join(parts)

    def hint(self, job_id: str) -> str:
        """Return what to do about it."""
        every = f"All files: dittohead logs {job_id}"
        if self.found.count:
            return f"Delete the folder from failed/ when nobody needs it any more. {every}"
        if self.changed.count:
            return f"Compare them with the originals and upload the folder again. {every}"
        return f"Raise clamd's limits and retry, or set not_scanned: note. {every}"


class _Scan:
    """One try: first, alone, the files at which clamd broke off before; then all others in parallel."""

    def __init__(self, ctx: StepContext, clamd: Clamd, findings: _Findings) -> None:
        self._ctx, self._clamd, self._findings = ctx, clamd, findings
        self._suspects = dict(_suspects(ctx.saved))
        self._known = frozenset(self._suspects)
        self._under_way: set[bytes] = set()
        self._broke_off: frozenset[bytes] = frozenset()  #: what clamd had when the first connection broke
        self._entries = (entry for entry in ctx.source.entries() if not entry.is_dir)

    async def run(self) -> None:
        """Scan everything. Raises: TargetError: clamd is away."""
        if self._known:
            await self._alone()
        try:
            await Runners[list[Entry], None, None](
                self._ctx,
                "scan",
                self._ctx.source.files,
                pick=self._pick,
                make=self._make,
                good=lambda some, known: None,
                start=lambda: contextlib.nullcontext(),
            ).run()
        except StepError:
            if self._broke_off:
                self._suspects |= dict.fromkeys(self._broke_off, 0)
                await self._keep()
            raise

    async def _alone(self) -> None:
        for entry in self._ctx.source.entries():
            if entry.path not in self._known:
                continue
            if self._suspects[entry.path] >= _ALONE:
                what = "clamd broke off each time it read this file"
                self._findings.add(entry.path, ScanVerdict(outcome="not scanned", what=what))
                continue
            try:
                await self._make([entry], None)
            except StepError:
                self._suspects[entry.path] += bool(self._broke_off)
                await self._keep()
                raise

    async def _keep(self) -> None:
        await self._ctx.save({"broke_off": {path.hex(): count for path, count in self._suspects.items()}})

    def _pick(self, stop: Stop) -> tuple[list[Entry], None] | None:
        others = (entry for entry in self._entries if entry.path not in self._known)
        some: list[Entry] = []
        size = 0
        for entry in islice(others, _AT_A_TIME):
            some.append(entry)
            size += entry.size
            if size >= _BYTES:
                break
        return (some, None) if some else None

    async def _make(self, some: list[Entry], child: Renewed[None] | None) -> None:
        await in_thread(lambda stop: self._scan(some, stop))

    def _scan(self, some: list[Entry], stop: Stop) -> None:
        for entry in some:
            stop.check()
            self._under_way.add(entry.path)
            try:
                self._file(entry, stop)
            except BrokenConnection as error:
                self._broke_off = self._broke_off or frozenset(self._under_way)
                raise TargetError(
                    f"the connection broke while a file was scanned: {error}",
                    where=f"clamd at {self._clamd.address}",
                    hint="See clamd's log (journalctl -u clamav-daemon); the scan begins again by itself",
                ) from error
            self._under_way.discard(entry.path)

    def _file(self, entry: Entry, stop: Stop) -> None:
        try:
            with files.opened_beneath(self._ctx.source.root, entry.path) as fd:
                scanned = self._clamd.scan(fd, stop, self._read)
        except FileNotFoundError:
            self._findings.add_changed(entry.path, "it is gone")
            return
        except ItemError as error:
            self._findings.add_changed(entry.path, error.what)
            return
        self._findings.add(entry.path, scanned.verdict)
        if scanned.sha256 != entry.sha256:
            self._findings.add_changed(entry.path, "it is not what it was before")

    def _read(self, size: int) -> None:
        self._ctx.progress(self._findings.add_size(size), self._ctx.source.size, "bytes")


def _suspects(saved: Mapping[str, Any]) -> Iterator[tuple[bytes, int]]:
    for path, count in saved.get("broke_off", {}).items():
        yield bytes.fromhex(path), count
