"""identify: name the format of every file, write a list of them, and follow the policy."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from importlib import metadata, util
from itertools import islice
from typing import IO, Any, Literal

from pydantic import Field, field_validator

from dittohead.contract.options import Duration
from dittohead.contract.worker import (
    Done,
    Freeze,
    Options,
    Planned,
    Recipe,
    StepContext,
    StepResult,
    Worker,
)
from dittohead.model import paths
from dittohead.model.errors import ItemError, StepError
from dittohead.model.events import Event, EventType
from dittohead.model.records import Entry, Output
from dittohead.model.text import counted, display
from dittohead.system import files
from dittohead.system.process import environment
from dittohead.system.threads import in_thread
from dittohead.toolkit import scripts
from dittohead.toolkit.faulty_files import FaultyFiles
from dittohead.toolkit.runners import Renewed
from dittohead.workers.identify.policy import Decision, FormatRule, FormatVerdict, verdict
from dittohead.workers.identify.process import About, Identified, Identifier, as_dict
from dittohead.workers.identify.wellformed import Check, Checker, Judged

#: Files in one request to the child.
_AT_A_TIME = 128

#: Formats that the receipt counts by name.
_NAMED = 10

_COLUMNS = (
    "path",
    "size",
    "sha256",
    "puid",
    "name",
    "version",
    "mime",
    "basis",
    "warning",
    "verdict",
    "rule",
    "wellformed",
)


class IdentifyOptions(Options):
    """What an identify step may be told."""

    format: Literal["json", "csv"] = Field("json", description="How the list of formats is written.")
    path: str = Field("", description="Its name; `formats.json` or `formats.csv` by default.")
    policy: list[FormatRule] = Field(
        default_factory=list, description="Rules; the first that fits a file gives the verdict."
    )
    default: Decision = Field("accept", description="The verdict where no rule fits.")
    wellformed: list[Check] = Field(
        default_factory=list, description="Programs that say whether files are well-formed and valid."
    )
    parallel: int = Field(2, ge=1, le=64, description="Of these, programs that run at once.")
    timeout: Duration = Field(600.0, gt=0, description="The longest time for a group of files, 128 at most.")

    @field_validator("path")
    @classmethod
    def _plain(cls, value: str) -> str:
        if "/" in value or value in (".", ".."):
            raise ValueError("a plain file name is required")
        return value

    @property
    def output(self) -> str:
        """The name of the list."""
        return self.path or f"formats.{self.format}"


class IdentifyWorker(Worker[IdentifyOptions]):
    """Asks a child program with Siegfried, and writes what it says of every file, in the files' order."""

    name = "identify"
    Options = IdentifyOptions
    makes_outputs = True
    per_file = frozenset({"wellformed"})

    def check(self, options: IdentifyOptions) -> list[str]:
        """See that Siegfried is there."""
        if util.find_spec("pygfried") is None:
            return ["pygfried is not installed; type: pip install 'dittohead[identify]'"]
        return [missing for check in options.wellformed if (missing := check.missing())]

    def mistakes(self, options: IdentifyOptions) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
        """Find placeholders inside a script: a file's name would be run as a part of it."""
        for number, check in enumerate(options.wellformed):
            for index, what, hint in scripts.mistakes(check.argv):
                yield ("wellformed", number, "argv", index), what, hint

    async def doctor(
        self, options: IdentifyOptions, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Say which signatures there are."""
        try:
            async with Identifier.start(environment(), None) as child:
                yield True, f"Siegfried {child.about.siegfried} identifies by {child.about.signatures}"
        except StepError as error:
            yield False, str(error)

    def recipe(self, options: IdentifyOptions) -> Recipe | None:
        """Return what decides the list beside the files."""
        try:
            tools = {"pygfried": metadata.version("pygfried")}
        except metadata.PackageNotFoundError:
            tools = {}
        unseen: Any = {"timeout": True, "parallel": True, "wellformed": {"__all__": {"timeout"}}}
        return Recipe(settings=options.model_dump(mode="json", exclude=unseen), tools=tools)

    async def plan(self, ctx: StepContext, options: IdentifyOptions) -> AsyncIterator[Planned]:
        """Yield each file with its format and verdict, where the files are there.

        Raises: ItemError: the policy refuses or holds some; after all were yielded.
        """
        ctx.output(Output(path=os.fsencode(options.output), size=0, sha256=""))
        if ctx.source.made is not None:  # they are not made yet
            yield Planned(action="run", what="format identification", detail="of what the earlier step makes")
            return
        reading = _Identifying(ctx, options)
        async for entry, found, judged, checked in reading.files():
            action: Literal["keep", "leave"] = "leave" if judged.then in ("hold", "refuse") else "keep"
            detail = f"{_named(found)}: {judged.then}, by {judged.rule}"
            detail += "".join(f"; {one.tool}: {one.judgement}" for one in checked)
            yield Planned(action=action, what=display(entry.path), detail=detail)
        yield Planned(action="make", what=options.output, detail=reading.totals.summary())
        reading.totals.judge(ctx)

    async def run(self, ctx: StepContext, options: IdentifyOptions) -> StepResult:
        """Identify every file and write the list durably. Twice leaves the same list."""
        target = ctx.work / options.output
        reading = _Identifying(ctx, options)
        with (
            files.durable_file(target) as out,
            open(ctx.log_file(), "a", encoding="utf-8", errors="backslashreplace") as log,
        ):
            lines = (_Csv if options.format == "csv" else _Json)(out)
            async for entry, found, judged, checked in reading.files():
                lines.add(entry, found, judged, checked)
                for one in checked:
                    if one.judgement != "valid":
                        said = "; ".join(one.findings)
                        print(f"{display(entry.path)}: {one.tool}: {one.judgement}: {said}", file=log)
                if found.error or judged.then != "accept":
                    what = found.error or _named(found)
                    print(f"{display(entry.path)}: {what}: {judged.then}, by {judged.rule}", file=log)
            lines.end(reading.about)
        totals, about = reading.totals, reading.about
        digest, size = await in_thread(lambda stop: files.sha256_file(target))
        ctx.output(
            Output(path=os.fsencode(options.output), size=size, sha256=digest, detail=totals.as_dict())
        )
        agent = f"Siegfried {about.siegfried}"
        detail = f"{totals.summary()}; by {about.signatures}"
        event = Event(
            type=EventType.FORMAT_IDENTIFICATION, outcome=totals.outcome, detail=detail, agent=agent
        )
        ctx.event(event)
        for event in totals.validations(reading.checker.versions):
            ctx.event(event)
        totals.judge(ctx)
        if (held := totals.held) and ctx.saved.get("held") != held:
            why = f"the policy holds {held}; to accept it: dittohead thaw {ctx.job_id}"
            return Freeze(reason=why, state={"held": held})
        return Done(
            detail=totals.summary() + ("; what was held was accepted: the job was thawed" if held else "")
        )


class _Identifying:
    """Reads the files of a step, a batch after the other; a file that ends the child is asked for alone."""

    def __init__(self, ctx: StepContext, options: IdentifyOptions) -> None:
        self._ctx, self._options = ctx, options
        self.totals = _Totals()
        self.checker = Checker(options.wellformed, ctx.source.root, ctx.env, options.parallel)
        self._tolerant = {check.called for check in options.wellformed if check.invalid == "warn"}
        self.about = About(siegfried="", signatures="")

    async def files(self) -> AsyncIterator[tuple[Entry, Identified, FormatVerdict, list[Judged]]]:
        """Yield each file, what is known of it, what is to become of it, and what programs say of it."""
        entries = (entry for entry in self._ctx.source.entries() if not entry.is_dir)
        done, log = 0, None if self._ctx.dry_run else self._ctx.log_file()
        async with Renewed(lambda: Identifier.start(self._ctx.env, log)) as child:
            self.about = (await child.get()).about
            while some := await in_thread(lambda stop: list(islice(entries, _AT_A_TIME))):
                known = await self._batch(child, some)
                of_all = await asyncio.gather(
                    *(self.checker.of(entry.path, found) for entry, found in zip(some, known, strict=True))
                )
                for entry, found, checked in zip(some, known, of_all, strict=True):
                    judged = verdict(self._options.policy, self._options.default, entry.path, found)
                    self.totals.add(entry.path, found, judged)
                    for one in checked:
                        self.totals.add_check(entry.path, one, tolerant=one.tool in self._tolerant)
                    yield entry, found, judged, checked
                done += len(some)
                self._ctx.progress(done, self._ctx.source.files, "files")

    async def _batch(self, child: Renewed[Identifier], some: Sequence[Entry]) -> list[Identified]:
        found = await self._asked(child, some)
        if found is not None:
            return found
        alone = [await self._asked(child, [entry]) for entry in some] if len(some) > 1 else [None]
        lost = Identified(matches=[], error="the program that identifies formats ended, or took too long")
        return [lost if one is None else one[0] for one in alone]

    async def _asked(self, child: Renewed[Identifier], some: Sequence[Entry]) -> list[Identified] | None:
        slot = self._ctx.spare_slot() if len(some) > 1 else None
        root, timeout_s = self._ctx.source.root, self._options.timeout
        running = await child.get()
        if slot is None:
            found = await running.ask(root, some, workers=1, timeout_s=timeout_s)
        else:
            async with slot:
                found = await running.ask(root, some, workers=2, timeout_s=timeout_s)
        if found is None:
            await child.drop()
        return found


class _Totals:
    """What has come of all files."""

    def __init__(self) -> None:
        self.formats: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.checks: dict[str, Counter[str]] = {}  #: program -> what it said -> of how many files
        self._failed: dict[str, FaultyFiles] = {}  #: program -> files that are not valid
        self._faults = {
            key: FaultyFiles() for key in ("refuse", "hold", "warn", "error", "invalid", "unknown")
        }

    def add(self, path: bytes, found: Identified, judged: FormatVerdict) -> None:
        """Take down a file."""
        self.formats[_named(found)] += 1
        self.verdicts[judged.then] += 1
        if found.error:
            self._faults["error"].add(path, found.error)
        if judged.then in self._faults:
            self._faults[judged.then].add(path, f"{_named(found)}, {judged.rule}")

    def add_check(self, path: bytes, one: Judged, *, tolerant: bool) -> None:
        """Take down what a program says of a file.

        Args:
            path: of the file.
            one: what is said.
            tolerant: an invalid file is a warning only.
        """
        self.checks.setdefault(one.tool, Counter())[one.judgement] += 1
        if one.judgement == "valid":
            return
        why = f"{one.tool}: {'; '.join(one.findings)}"
        self._failed.setdefault(one.tool, FaultyFiles()).add(
            path, f"{one.judgement}: {'; '.join(one.findings)}"
        )
        if one.judgement == "unknown" or (one.judgement == "invalid" and not tolerant):
            self._faults[one.judgement].add(path, why)

    def validations(self, versions: Mapping[str, str]) -> Iterator[Event]:
        """Yield an event for each program that was asked.

        Args:
            versions: program -> its name and version.
        """
        for tool, said in self.checks.items():
            bad = said["invalid"] + said["unknown"]
            counts = ", ".join(
                f"{said[key]:,} {key}" for key in ("valid", "warning", "invalid", "unknown") if said[key]
            )
            failed = f": {self._failed[tool]}" if tool in self._failed else ""
            yield Event(
                type=EventType.VALIDATION,
                outcome="failure" if bad else "warning" if said["warning"] else "success",
                detail=f"{counted(said.total(), 'file')}: {counts}{failed}",
                agent=versions.get(tool, tool),
            )

    def summary(self) -> str:
        """Return the formats and verdicts, in words."""
        count = self.formats.total()
        most = [f"{number:,} {name}" for name, number in self.formats.most_common(_NAMED)]
        more = len(self.formats) - len(most)
        parts = [
            f"{counted(count, 'file')}: {', '.join(most)}" + (f" and {more} other formats" if more else "")
        ]
        parts += [
            f"{self.verdicts[key]:,} {key} ({self._faults[key]})" if key in self._faults else
            f"{self.verdicts[key]:,} {key}"
            for key in ("refuse", "hold", "warn", "convert") if self.verdicts[key]
        ]  # fmt: skip
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, for later steps."""
        checks = {tool: dict(sorted(said.items())) for tool, said in self.checks.items()}
        return {"verdicts": dict(sorted(self.verdicts.items())), **({"wellformed": checks} if checks else {})}

    @property
    def outcome(self) -> str:
        """What an event says of it."""
        if any(self._faults[key].count for key in ("refuse", "error")):
            return "failure"
        return "warning" if self._faults["warn"].count or self._faults["hold"].count else "success"

    @property
    def held(self) -> str:
        """What a person has to decide about, in words; "" for nothing."""
        found = self._faults["hold"]
        return f"{counted(found.count, 'file')}: {found}" if found.count else ""

    def judge(self, ctx: StepContext) -> None:
        """Raise ItemError where the folder may not go on, with all files at fault."""
        words = {
            "refuse": "refused by the policy",
            "error": "not identified",
            "invalid": "not valid",
            "unknown": "could not be checked",
        }
        stopping = {key: self._faults[key] for key in words if self._faults[key].count}
        if not stopping:
            return
        parts = [f"{counted(one.count, 'file')} {words[key]}: {one}" for key, one in stopping.items()]
        if set(stopping) <= {"error", "unknown"}:
            hint = f"See dittohead logs {ctx.job_id}, then dittohead retry {ctx.job_id}"
        else:
            hint = f"Correct the folder, or the policy in config.yaml; then: dittohead rerun {ctx.job_id}"
        error = ItemError("; ".join(parts), where=ctx.name, hint=hint)
        error.files = tuple(name for one in stopping.values() for name in one.named)
        error.good = not {"refuse", "invalid"} & set(stopping)
        raise error


def _named(found: Identified) -> str:
    """Return a file's formats in a word or two."""
    if not found.matches:
        return "not identified"
    first = found.matches[0]
    more = f" or {len(found.matches) - 1} more" if len(found.matches) > 1 else ""
    name = " ".join(part for part in (first.format, first.version) if part)
    return f"{first.id}{f' {name}' if name else ''}{more}"


class _Json:
    """A list as JSON, a file a line."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out, self._begun = out, False

    def add(self, entry: Entry, found: Identified, judged: FormatVerdict, checked: Sequence[Judged]) -> None:
        """Write a file."""
        about = {
            **paths.path_fields(entry.path), "size": entry.size, "sha256": entry.sha256, **as_dict(found),
            "verdict": judged.then, "rule": judged.rule,
            **({"wellformed": [one.as_dict() for one in checked]} if checked else {}),
        }  # fmt: skip
        self._out.write(b",\n" if self._begun else b'{"files": [\n')
        self._out.write(json.dumps(about, ensure_ascii=False).encode("utf-8", "backslashreplace"))
        self._begun = True

    def end(self, about: About) -> None:
        """Write by what the files were identified."""
        tool = {"siegfried": about.siegfried, "signatures": about.signatures}
        self._out.write(b"" if self._begun else b'{"files": [')
        self._out.write(f'\n], "by": {json.dumps(tool)}}}\n'.encode())


class _Csv:
    """A list as CSV, a line for each format that a file may have."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._write(_COLUMNS)

    def add(self, entry: Entry, found: Identified, judged: FormatVerdict, checked: Sequence[Judged]) -> None:
        """Write a file."""
        said = "; ".join(f"{one.tool}: {one.judgement}" for one in checked)
        for one in as_dict(found)["formats"] or [{}]:
            about = [one.get(key, "") for key in _COLUMNS[3:9]]
            self._write(
                [display(entry.path), entry.size, entry.sha256, *about, judged.then, judged.rule, said]
            )

    def end(self, about: About) -> None:
        """Do nothing: the receipt says by what the files were identified."""

    def _write(self, row: Sequence[object]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerow(row)
        self._out.write(text.getvalue().encode("utf-8", "backslashreplace"))
