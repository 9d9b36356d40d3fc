"""describe: what is known of an object, written into its images as XMP; their pixels are proved unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from pydantic import Field

from dittohead.contract.options import Duration, Size
from dittohead.contract.worker import Done, Options, Planned, Recipe, StepContext, StepResult, Worker
from dittohead.model.errors import ItemError, TransientError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Entry, Output
from dittohead.model.text import display
from dittohead.system import files
from dittohead.system.machine_faults import DISK
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit import natural_order
from dittohead.toolkit.faulty_files import FaultyFiles
from dittohead.toolkit.images import xmp, xmp_description, xmp_embedding
from dittohead.toolkit.images.process import ImageChild, abilities
from dittohead.toolkit.images.reasons import RefusedImage
from dittohead.toolkit.images.reuse import is_whole, journal_of
from dittohead.toolkit.provenance import Owners, origins
from dittohead.toolkit.result_cache import ResultCache, keep_only, name_digest
from dittohead.toolkit.runners import Renewed, Runners

#: Raised when the same description makes another packet, or a packet another file, than before.
_VERSION = "1"

#: Faulty files named in the reason; the rest is counted.
_SHOWN = 5


#: Seconds until a full disk is tried again: people and other jobs make room in minutes.
_RETRY_S = 60.0

#: Characters of a former value that the receipt keeps.
_KEPT = 200

#: Of an input's detail, what is not true of what is made of it here.
_OF_THE_INPUT = frozenset({"reused_from", "warnings", "use", "uri"})


class DescribeOptions(Options):
    """What a describe step may be told."""

    record: str = Field(
        "", description="The step that describes the objects; by default the first that does."
    )
    others: Literal["copy", "skip", "fail"] = Field(
        "copy",
        description="What to do with files that hold no XMP (and images of no object): take them along as "
        "they are, leave them out, or fail.",
    )
    unreadable_xmp: Literal["fail", "keep"] = Field(
        "fail",
        description="An image whose own XMP is not XMP: fail, or take it along as it is, with a warning.",
    )
    verify: bool = Field(
        True,
        description="Also decode each result once. Its bytes are compared with the source's in any case.",
    )
    memory: Size = Field(2 << 30, ge=512 << 20, description="Address space a decoding child process may use.")
    timeout: Duration = Field(600.0, gt=0, description="The longest that decoding one image may take.")


class DescribeWorker(Worker[DescribeOptions]):
    """Writes what is known of an object into its images as XMP; every other byte stays as it was."""

    name = "describe"
    Options = DescribeOptions
    makes_outputs = True
    knows = frozenset({"record"})
    space_factor = 1.05
    default_limit = os.cpu_count() or 1

    def check(self, options: DescribeOptions) -> list[str]:
        """Check that the decoder is there, if it is needed."""
        if options.verify and not abilities():
            return ["the image library is not installed: apt-get install libvips42, or set verify: false"]
        return []

    def recipe(self, options: DescribeOptions) -> Recipe:
        """Return what decides the results, beside the images and what is known of them."""
        settings = {"others": options.others, "unreadable_xmp": options.unreadable_xmp}
        return Recipe(settings=settings, tools={"describer": f"{_VERSION} ({AGENT})"})

    async def run(self, ctx: StepContext, options: DescribeOptions) -> StepResult:
        """Write each image with XMP; all are tried before bad ones fail the step."""
        work = _Describing(ctx, options, self.recipe(options))
        try:
            await in_thread(work.survey)
            await work.run()
            await in_thread(work.make_durable)
        finally:
            await in_thread(work.close)
        return work.result()

    async def plan(self, ctx: StepContext, options: DescribeOptions) -> AsyncIterator[Planned]:
        """Yield the files that would be written; whether each holds XMP is seen when it is there."""
        for entry in await asyncio.to_thread(lambda: list(ctx.source.entries())):
            if not entry.is_dir:
                ctx.output(Output(path=entry.path, size=0, sha256="", source=entry.path))
                yield Planned(action="make", what=display(entry.path), detail="with XMP where it can hold it")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """One file."""

    entry: Entry
    kind: str  #: media type, "" for what holds no XMP
    facts: xmp_description.ObjectFacts | None  #: None: it is taken along as it is
    carried: Mapping[str, Any]  #: the input's detail

    @property
    def source(self) -> str:
        """What stands for the input and for all that is its own in what is made of it."""
        wanted = (
            [] if self.facts is None else [asdict(each) for each in xmp_description.properties(self.facts)]
        )
        return f"{self.entry.sha256} {hashlib.sha256(json.dumps(wanted).encode()).hexdigest()}"


class _Describing:
    """One try of one describe step."""

    def __init__(self, ctx: StepContext, options: DescribeOptions, recipe: Recipe) -> None:
        self.ctx, self.options = ctx, options
        self.described = self.copied = self.skipped = self.reused = self.warned = 0
        self.bytes = 0  #: compared
        self.replaced: Counter[str] = Counter()
        self.faulty = FaultyFiles()
        self._cache = ResultCache(journal_of(ctx.work), recipe.as_dict())
        self._scratch = ctx.work.parent / f"{ctx.step}.scratch"
        self._made = array("Q")  #: digests of the names of all results
        self._tasks: Iterator[_Task] = iter(())
        self.total = 0

    # -- which files -------------------------------------------------------------------------

    def survey(self, stop: Stop) -> None:
        """Find out what each file is, and which image of which object; read what an earlier try finished."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        self._cache.load()
        entries = [entry for entry in self.ctx.source.entries() if not entry.is_dir]
        self.total = len(entries)
        back, details = self._origins(stop)
        objects = self.ctx.described(self.options.record)
        owners = Owners(objects)
        kinds, shares = [], [list[bytes]() for _ in objects.objects]
        for entry in entries:
            stop.check()
            kinds.append(self._kind(entry))
            owner = owners.of(back.get(entry.path, entry.path)) if kinds[-1] else None
            if owner is not None:
                shares[owner].append(entry.path)
        places: dict[bytes, tuple[int, int]] = {}
        for owner, paths in enumerate(shares):
            paths.sort(key=lambda path: natural_order.page_key(path, back.get(path, b"")))
            places.update({path: (owner, number) for number, path in enumerate(paths, 1)})
        digests = self._digests({back.get(path, path) for path in places})

        def facts(entry: Entry, kind: str) -> xmp_description.ObjectFacts | None:
            if entry.path not in places:
                return None
            owner, number = places[entry.path]
            origin = back.get(entry.path, entry.path)
            return xmp_description.ObjectFacts(
                description=objects.objects[owner].description,
                number=number,
                total=len(shares[owner]),
                media_type=kind,
                original=display(origin),
                original_sha256=digests.get(origin, ""),
                converted=_conversion(origin, kind, details.get(entry.path)),
                agent=AGENT,
            )

        self._tasks = (
            _Task(entry=entry, kind=kind, facts=facts(entry, kind), carried=details.get(entry.path) or {})
            for entry, kind in zip(entries, kinds, strict=True)
        )

    def _origins(self, stop: Stop) -> tuple[dict[bytes, bytes], dict[bytes, dict[str, Any]]]:
        """Return {file: the folder's own file it goes back to} and {file: the detail it was made with}."""
        made = self.ctx.source.made
        if made is None:
            return {}, {}
        before = origins(self.ctx, made, stop)
        back, details = {}, {}
        for output in made.outputs():
            stop.check()
            back[output.path] = before.get(output.source, output.source) or output.path
            details[output.path] = output.detail
        return back, details

    def _kind(self, entry: Entry) -> str:
        with files.opened_beneath(self.ctx.source.root, entry.path) as fd:
            return xmp_embedding.kind_of(fd)

    def _digests(self, paths: set[bytes]) -> dict[bytes, str]:
        return {entry.path: entry.sha256 for entry in self.ctx.originals.entries() if entry.path in paths}

    # -- one after another -------------------------------------------------------------------

    async def run(self) -> None:
        """Do every file, with as many children as there are slots. Raises: StepError."""
        await Runners(
            self.ctx,
            "describe",
            self.total,
            pick=self._pick,
            make=self._do,
            good=self._good,
            start=lambda: ImageChild.start(self.ctx, self.options, self._scratch),
        ).run()

    async def _do(self, task: _Task, own: Renewed[ImageChild]) -> None:
        try:
            known = await self._one(task, own)
        except (RefusedImage, ItemError) as error:
            self._failed(task.entry, error.what if isinstance(error, ItemError) else str(error))
        else:
            self._good(task, known)

    def _pick(self, stop: Stop) -> tuple[_Task, dict[str, Any] | None] | None:
        """Return the next file, with what an earlier try made of it if that is still right."""
        for task in self._tasks:
            if task.facts is None and self.options.others != "copy":
                self._left(task)
                continue
            known = self._cache.find(task.entry.path, task.source)
            if known is not None and is_whole(self.ctx.work, known["files"][0], stop):
                self.reused += 1
                return task, known["files"][0]
            return task, None
        return None

    def _left(self, task: _Task) -> None:
        if self.options.others == "fail":
            why = "belongs to no object" if task.kind else "holds no XMP"
            self._failed(task.entry, f"it {why}, and others: fail is set")
        else:
            self.skipped += 1

    # -- one file ----------------------------------------------------------------------------

    async def _one(self, task: _Task, own: Renewed[ImageChild]) -> dict[str, Any]:
        """Make, decode and publish one file; return what it is. Raises: RefusedImage, StepError."""
        file = await in_thread(partial(self._make, task))
        if self.options.verify and "xmp" in file["detail"]:
            answer = await self._decoded(file["temp"], own)
            if not answer["ok"]:
                raise RefusedImage(f"it cannot be decoded: {answer['what']}")
            said = [task.carried.get(side) for side in ("width", "height")]
            if None not in said and said != [answer["width"], answer["height"]]:
                raise RefusedImage(
                    f"it decodes to {answer['width']}x{answer['height']}, not {said[0]}x{said[1]}"
                )
            file["detail"]["xmp"]["decoded"] = True
        await in_thread(partial(self._publish, task, file))
        return file

    async def _decoded(self, name: str, own: Renewed[ImageChild]) -> dict[str, Any]:
        """Return what a child says of a file; it is asked twice: another image may have worn it out."""
        what = ""
        for _ in range(2):
            child = await own.get()
            answer = await child.ask({"root": str(self._scratch), "probe": name}, self.options.timeout)
            if answer is not None:
                return answer
            await own.drop()
            if what:
                child.must_not_be_killed(name)
            what = child.epitaph(self.options)
        return {"ok": False, "what": what}

    def _make(self, task: _Task, stop: Stop) -> dict[str, Any]:
        """Write a file under a temporary name; return what it is.

        # 1 compare the input's digest  2 write temp  3 compare it with the input  4 fsync
        # (`_publish`: 5 rename; `keep_only` makes the names durable).
        Raises: RefusedImage, ItemError, TransientError: the disk takes no more.
        """
        name = hashlib.blake2b(task.entry.path, digest_size=16).hexdigest()
        with files.opened_beneath(self.ctx.source.root, task.entry.path) as fd:
            if files.sha256_fd(fd, files.hash_buffer(), lambda _: stop.check())[0] != task.entry.sha256:
                raise RefusedImage("the file is not what it was when the step before was done")
            with self._temporary(name) as made:
                detail = self._fill(task, fd, made, stop)
                os.fsync(made)
                os.lseek(made, 0, os.SEEK_SET)
                digest, size = files.sha256_fd(made, files.hash_buffer(), lambda _: stop.check())
        return {
            "file": os.fsdecode(task.entry.path),
            "size": size,
            "sha256": digest,
            "detail": detail,
            "temp": name,
        }

    @contextlib.contextmanager
    def _temporary(self, name: str) -> Iterator[int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        made = os.open(self._scratch / name, flags, 0o640)
        try:
            yield made
        except OSError as error:
            if error.errno in DISK:
                raise self._full(error) from error
            raise
        finally:
            os.close(made)

    def _full(self, error: OSError) -> TransientError:
        return TransientError(
            f"the disk of work/ takes no more data ({error.strerror})",
            where=str(self.ctx.work),
            hint="Make room; the step goes on by itself",
            retry_after_s=_RETRY_S,
        )

    def _fill(self, task: _Task, source: int, made: int, stop: Stop) -> dict[str, Any]:
        detail = {key: value for key, value in task.carried.items() if key not in _OF_THE_INPUT}
        if task.facts is None:
            _copy(source, made, stop)
            return detail
        before = xmp_embedding.packet_of(source, task.kind)
        try:
            packet, replaced = xmp.merged(before, list(xmp_description.properties(task.facts)))
        except xmp.UnreadablePacket as error:
            if self.options.unreadable_xmp == "fail":
                raise RefusedImage(
                    f"its own XMP cannot be read: {error}; unreadable_xmp: keep leaves it so"
                ) from error
            _copy(source, made, stop)
            return detail | {"unreadable": str(error), "warnings": [f"its own XMP cannot be read: {error}"]}
        xmp_embedding.write(source, made, task.kind, packet, stop.check)
        compared = xmp_embedding.compare(source, made, task.kind, packet, stop.check)
        found: dict[str, Any] = {"bytes": len(packet), "merged": bool(before), "compared": compared}
        if replaced:
            found["replaced"] = {name: text[:_KEPT] for name, text in replaced.items()}
        return detail | {"xmp": found}

    def _publish(self, task: _Task, file: dict[str, Any], stop: Stop) -> None:
        path = os.path.join(os.fsencode(self.ctx.work), task.entry.path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.replace(os.fsencode(self._scratch / file.pop("temp")), path)
        try:
            self._cache.add(task.entry.path, task.source, [file])
        except OSError as error:
            raise self._full(error) from error

    # -- results -----------------------------------------------------------------------------

    def _good(self, task: _Task, file: dict[str, Any]) -> None:
        detail = file["detail"]
        if "xmp" in detail:
            self.described += 1
            self.bytes += detail["xmp"]["compared"]
            self.replaced.update(list(detail["xmp"].get("replaced", {})))
        else:
            self.copied += 1
            self.warned += bool(task.kind)  # an image that is not described is worth a word
        self._made.append(name_digest(task.entry.path))
        self.ctx.output(
            Output(
                path=task.entry.path,
                size=file["size"],
                sha256=file["sha256"],
                source=task.entry.path,
                detail=detail,
            )
        )
        self.ctx.progress(self.described + self.copied + self.faulty.count, self.total, "files")

    def _failed(self, entry: Entry, what: str) -> None:
        self.faulty.add(entry.path, what)

    def make_durable(self, stop: Stop) -> None:
        """Remove what belongs to no file of this step and make the rest durable."""
        keep_only(self.ctx.work, self._made, stop)

    def close(self, stop: Stop) -> None:
        """Let go of everything but the results."""
        self._cache.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def result(self) -> Done:
        """Return what was done. Raises: ItemError: some files are bad."""
        if self.faulty.count:
            error = ItemError(
                f"{self.faulty.count} of {self.total} files cannot be described: {self.faulty}",
                hint="Fix them or take them out, then run the folder again",
            )
            error.files = [] if self.ctx.source.made else self.faulty.named
            raise error
        if self.described == 0 and self.options.others != "copy":
            raise ItemError("there are no images that could be described", hint="See from: and others:")
        self._tell()
        words = [f"{self.described} images described"]
        words += [f"{self.reused} of them from before"] if self.reused else []
        words += [f"{self.copied} files taken along"] if self.copied else []
        words += [f"{self.skipped} files left out"] if self.skipped else []
        return Done(detail=", ".join(words))

    def _tell(self) -> None:
        detail = f"XMP written into {self.described} images"
        if self.replaced:
            detail += "; in the place of former values: "
            detail += ", ".join(f"{name} ({count})" for name, count in self.replaced.most_common(_SHOWN))
        if self.warned:
            detail += f"; {self.warned} images not described, see outputs"
        outcome = "warning" if self.warned else "success"
        self.ctx.event(Event(type=EventType.METADATA, outcome=outcome, detail=detail, agent=AGENT))
        if self.described:
            detail = f"{self.bytes} bytes of {self.described} images compared with their sources"
            detail += ", and all decoded" if self.options.verify else ""
            self.ctx.event(Event(type=EventType.FIXITY, outcome="success", detail=detail, agent=AGENT))


def _conversion(origin: bytes, kind: str, detail: Mapping[str, Any] | None) -> str:
    """Return what a step has made of a file of the folder, for people; "" when none has."""
    if detail is None:
        return ""
    same = "; every pixel the same" if detail.get("lossless") else ""
    changes: Sequence[str] = detail.get("changes", ())
    return f"from {display(origin)} to {kind}{same}{''.join(f'; {change}' for change in changes)}"


def _copy(source: int, made: int, stop: Stop) -> None:
    at = 0
    while count := os.sendfile(made, source, at, 1 << 24):
        stop.check()
        at += count
