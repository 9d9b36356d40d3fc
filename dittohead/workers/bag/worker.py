"""bag: check a BagIt bag that was dropped, or make one of the files that the step takes."""

from __future__ import annotations

import contextlib
import os
import threading
import zipfile
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dittohead import __version__
from dittohead.contract.worker import Done, Inputs, Planned, Recipe, StepContext, StepResult, Worker
from dittohead.model import units
from dittohead.model.errors import ItemError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Output
from dittohead.model.text import counted
from dittohead.system import files
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit.bagit.making import BagFolder, BagPlace, BagTar, BagZip, MadeBag, Making
from dittohead.workers.bag import profile
from dittohead.workers.bag.check import Bag, BagCheck, BagFindings
from dittohead.workers.bag.completing import complete
from dittohead.workers.bag.index import Index
from dittohead.workers.bag.options import BagOptions

#: Raised when the same files and options make another bag than before.
_VERSION = "1"


class BagWorker(Worker[BagOptions]):
    """Validates a bag, every finding named; or makes one, each file compared while it is copied."""

    name = "bag"
    Options = BagOptions
    makes_outputs = True
    packs = True
    space_factor = 1.1

    def check(self, options: BagOptions) -> list[str]:
        """See that the profile can be read."""
        if options.profile is None:
            return []
        try:
            profile.read(options.profile)
        except (OSError, profile.BadProfile) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            return [f"profile: {options.profile}: {reason}; correct the path or the file"]
        return []

    def recipe(self, options: BagOptions) -> Recipe | None:
        """Return what decides the bag beside the files."""
        if options.check:
            return None
        return Recipe(settings=options.model_dump(mode="json"), tools={"bagger": _VERSION})

    async def plan(self, ctx: StepContext, options: BagOptions) -> AsyncIterator[Planned]:
        """Yield the bag, or that it would be checked."""
        if options.check:
            yield Planned(action="run", what="check of the bag", detail=counted(ctx.source.files, "file"))
            if options.fetch:
                hosts = ", ".join(options.fetch)
                yield Planned(action="make", what="the completed bag", detail=f"fetched from {hosts}")
            return
        if options.form == "folder":
            for entry in ctx.source.entries():
                if not entry.is_dir:
                    ctx.output(Output(path=b"data/" + entry.path, size=entry.size, sha256=entry.sha256))
        else:
            ctx.output(Output(path=_archive(ctx, options), size=0, sha256=""))
        what = "a bag" if options.form == "folder" else os.fsdecode(_archive(ctx, options))
        yield Planned(action="make", what=what, detail=counted(ctx.source.files, "file"))

    async def run(self, ctx: StepContext, options: BagOptions) -> StepResult:
        """Check the bag, or make it. Twice has the same result."""
        if options.check:
            return await self._check(ctx, options)
        return await self._make(ctx, options)

    # -- check -------------------------------------------------------------------------------

    async def _check(self, ctx: StepContext, options: BagOptions) -> Done:
        source = await complete(ctx, options.fetch) if options.fetch else ctx.source
        bag, findings = await in_thread(lambda stop: _checked(ctx, options, source, stop))
        if findings.errors.count:
            if options.fetch:  # what was fetched may be what is wrong
                await in_thread(lambda stop: files.empty(ctx.work, stop.check))
            error = ItemError(
                f"this is not a valid bag: {findings.errors}",
                where=ctx.name,
                hint=f"All {counted(findings.errors.count, 'finding')}: dittohead logs {ctx.job_id}. "
                "Correct the bag and drop it again",
            )
            error.files = () if ctx.source.made else tuple(findings.differing)
            raise error
        count, size = bag.payload
        detail = f"{bag.declaration}: {counted(count, 'payload file')}, {units.size(size)}; "
        detail += f"complete and valid by {', '.join(bag.algorithms)}"
        if options.profile is not None:
            detail += f", and by the profile {options.profile.name}"
        if findings.warnings.count:
            detail += f"; {counted(findings.warnings.count, 'warning')}: {findings.warnings}"
        outcome = "warning" if findings.warnings.count else "success"
        ctx.event(Event(type=EventType.VALIDATION, outcome=outcome, detail=detail, agent=AGENT))
        if options.fetch:
            await in_thread(lambda stop: _put(ctx, source, stop))
        return Done(detail=detail)

    # -- make --------------------------------------------------------------------------------

    async def _make(self, ctx: StepContext, options: BagOptions) -> Done:
        outputs: list[Output] = []
        made = await in_thread(lambda stop: _Maker(ctx, options, stop).made(outputs))
        for output in outputs:
            ctx.output(output)
        names = ", ".join(options.algorithms)
        detail = f"BagIt 1.0: {counted(made.files, 'payload file')}, {units.size(made.size)}, by {names}"
        if made.empty:
            detail += f"; {counted(made.empty, 'empty folder')} left out: a bag holds files only"
        outcome = "warning" if made.empty else "success"
        ctx.event(Event(type=EventType.PACKING, outcome=outcome, detail=detail, agent=AGENT))
        return Done(detail=detail)


def _archive(ctx: StepContext, options: BagOptions) -> bytes:
    return os.fsencode(f"{ctx.name}.{options.form}")


def _put(ctx: StepContext, source: Inputs, stop: Stop) -> None:
    """Record the files of a completed bag as made, each with the one that it is a copy of."""
    dropped = ctx.source.files
    for number, entry in enumerate(entry for entry in source.entries() if not entry.is_dir):
        stop.check()
        copied = entry.path if number < dropped else b""
        ctx.output(Output(path=entry.path, size=entry.size, sha256=entry.sha256, source=copied))


def _checked(ctx: StepContext, options: BagOptions, source: Inputs, stop: Stop) -> tuple[Bag, BagFindings]:
    done, lock = 0, threading.Lock()

    def progress(size: int) -> None:  # in any of the threads that read
        nonlocal done
        with lock:
            done += size
        ctx.progress(done, source.size, "bytes")

    with open(ctx.log_file(), "a", encoding="utf-8", errors="backslashreplace") as log:
        findings = BagFindings(lambda line: print(line, file=log))
        with Index(ctx.work / ".index.tmp") as index:
            check = BagCheck(source, index, findings, stop)
            check.progress = progress
            bag = check.run()
        if options.profile is not None and bag.declaration is not None:
            for problem in _profile(options.profile).problems(bag):
                findings.error(os.fsencode(options.profile.name), problem)
    return bag, findings


def _profile(path: Path) -> profile.BagProfile:
    try:
        return profile.read(path)
    except profile.BadProfile as error:
        raise ItemError(f"this is not a BagIt profile: {error}", where=str(path)) from error


class _Maker:
    """Makes a bag in the step's directory. Blocking."""

    def __init__(self, ctx: StepContext, options: BagOptions, stop: Stop) -> None:
        self._ctx, self._options, self._stop = ctx, options, stop

    def made(self, outputs: list[Output]) -> MadeBag:
        """Make the bag again from the beginning, and read back what was written.

        Args:
            outputs: are filled in.

        Raises: ItemError, OSError, Stopped.
        """
        files.empty(self._ctx.work)
        making = Making(self._ctx.source, self._options.algorithms, self._ctx.work, self._stop)
        making.hint = f"Run the folder again: dittohead rerun {self._ctx.job_id}"
        making.progress = lambda done: self._ctx.progress(done, self._ctx.source.size, "bytes")
        if self._options.form == "folder":
            making.put = outputs.append
            made = making.run(BagFolder(self._ctx.work), self._info)
            files.sync_filesystem(self._ctx.work)
            for output in outputs:
                self._read_back(output)
            return made
        path = self._ctx.work / os.fsdecode(_archive(self._ctx, self._options))
        with self._place(path) as place:
            made = making.run(place, self._info)
        digest, size = files.sha256_file(path)
        outputs.append(
            Output(path=os.fsencode(path.name), size=size, sha256=digest, detail={"members": made.files})
        )
        return made

    @contextlib.contextmanager
    def _place(self, path: Path) -> Iterator[BagPlace]:
        top = os.fsencode(self._ctx.name)
        with files.durable_file(path) as file:
            if self._options.form == "tar":
                tar = BagTar(file, top)
                yield tar
                tar.end()
            else:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                    yield BagZip(archive, top)

    def _read_back(self, output: Output) -> None:
        self._stop.check()
        with files.opened_beneath(self._ctx.work, output.path) as fd:
            digest, _ = files.sha256_fd(fd, files.hash_buffer(), lambda size: self._stop.check())
        if digest != output.sha256:
            raise ItemError("this file reads back with other bytes than were written", where=str(output.path))

    def _info(self, made: MadeBag) -> Sequence[tuple[str, str]]:
        own = {label.lower() for label in self._options.info}
        at = datetime.fromtimestamp(self._ctx.claimed_at, UTC).date().isoformat()
        known = self._ctx.described().objects
        more = [("Bag-Software-Agent", f"dittohead {__version__}")]
        if len(known) == 1:
            about = known[0].description
            more += [("External-Identifier", about.identifier), ("External-Description", about.title)]
        return [
            *self._options.info.items(),
            *((label, value) for label, value in more if value and label.lower() not in own),
            ("Bagging-Date", at),
            ("Bag-Size", units.size(made.size)),
            ("Payload-Oxum", f"{made.size}.{made.files}"),
        ]
