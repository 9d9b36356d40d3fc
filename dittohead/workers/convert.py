"""convert: images to pyramids, derivatives and tiles, in child processes, each read back before it counts."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import hashlib
import itertools
import os
import shutil
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from dittohead.contract.worker import Done, Planned, Recipe, StepContext, StepResult, Worker
from dittohead.model import units
from dittohead.model.errors import ItemError, MachineShort, TransientError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Entry, Output
from dittohead.model.text import counted, display
from dittohead.system.machine_faults import DISK
from dittohead.system.threads import Stop, in_thread
from dittohead.toolkit.faulty_files import FaultyFiles
from dittohead.toolkit.images.kinds import is_read
from dittohead.toolkit.images.names import Names, is_junk
from dittohead.toolkit.images.options import ConvertOptions
from dittohead.toolkit.images.other_files import Leftover
from dittohead.toolkit.images.other_files import kind_of as leftover_kind
from dittohead.toolkit.images.process import ImageChild, abilities
from dittohead.toolkit.images.recipe import LOADERS, MASTERS, SUFFIXES, VERSION
from dittohead.toolkit.images.reuse import Earlier, is_whole, journal_of
from dittohead.toolkit.images.sizes import Sizes
from dittohead.toolkit.result_cache import ResultCache, keep_only, name_digest
from dittohead.toolkit.runners import Renewed, Runners

_CORES = os.cpu_count() or 1

#: Bad images named in the reason; the rest is counted.
_SHOWN = 5

#: Bytes that must still fit when a child has died, or the disk is what killed it.
_ROOM = 4 << 20

#: Images that are planned at once.
_PLANNED = 500

#: A program, whose interpreter reads files.
_POSTSCRIPT = frozenset({"eps", "ps"})

#: Seconds until a full disk is tried again: people and other jobs make room in minutes.
_RETRY_S = 60.0


class ConvertWorker(Worker[ConvertOptions]):
    """Makes a pyramid, a derivative or a static IIIF service of every image, under the same relative name."""

    name = "convert"
    Options = ConvertOptions
    makes_outputs = True
    per_file = frozenset({"iiif_id"})
    uris = frozenset({"iiif_id"})
    space_factor = 1.5  # JPEG to JPEG of like quality, and the pyramid's third; lossless needs more
    default_limit = _CORES

    def stage(self, options: Mapping[str, Any]) -> str:
        """Call a folder that was processed."""
        return "processed"

    def check(self, options: ConvertOptions) -> list[str]:
        """See that this libvips can write what is asked for."""
        found = abilities()
        if not found:
            return ["the image library is not installed: apt-get install libvips42"]
        return list(_impossible(options, found))

    async def doctor(
        self, options: ConvertOptions, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Say which libvips there is, what it reads, and what of the options it cannot do."""
        found = await asyncio.to_thread(abilities)
        if not found:
            yield False, "the image library is not installed: apt-get install libvips42"
        else:
            lacking = sorted({*LOADERS.values()} - {*found["load"]})
            lacks = f"; it is built without {', '.join(lacking)}" if lacking else ""
            yield True, f"libvips {found['version']} reads {', '.join(found['load'])}{lacks}"
            for lack in _impossible(options, found):
                yield False, lack

    def recipe(self, options: ConvertOptions) -> Recipe:
        """Return what decides the results, with the version of libvips."""
        found = abilities()
        tools = {"libvips": found.get("version", "?"), "converter": VERSION}
        if options.format in MASTERS:
            codec = "htj2k" if options.format == "jph" else "openjpeg"
            tools[codec] = found.get(codec, "?")
        if options.is_master:
            tools |= found.get("proof", {})
        return Recipe(settings=options.recipe(), tools=tools)

    async def plan(self, ctx: StepContext, options: ConvertOptions) -> AsyncIterator[Planned]:
        """Yield which file would be made of which image, by its headers where the image is there already.

        No pixel is decoded. Raises: ItemError: some images cannot be converted.
        """
        conversion = _Conversion(ctx, options, Recipe(settings={}, tools={}))
        await in_thread(conversion.learn)
        tasks = conversion.tasks()
        async with conversion.foreseeing() as look:
            while some := await in_thread(lambda _: list(itertools.islice(tasks, _PLANNED))):
                for task in some:
                    ctx.output(Output(path=_first(task, options), size=0, sha256="", source=task.entry.path))
                    kept = await look(task)
                    if kept is not None:
                        yield _planned(task, options, kept)
        if conversion.faulty.count:
            raise conversion.failure()
        if conversion.left.count:
            what = counted(conversion.left.count, "other file")
            yield Planned(action="keep", what=what, detail=conversion.left.named)

    async def run(self, ctx: StepContext, options: ConvertOptions) -> StepResult:
        """Convert every image; all are tried before bad ones fail the step.

        What an earlier, killed try has finished, or an earlier job of the folder by the same recipe
        and tools, is kept when its digests still hold.
        """
        recipe = await asyncio.to_thread(self.recipe, options)
        conversion = _Conversion(ctx, options, recipe)
        try:
            await in_thread(conversion.survey)
            await conversion.run()
            await in_thread(conversion.make_durable)
        finally:
            await in_thread(conversion.close)
        return conversion.result(agent=f"libvips {recipe.tools['libvips']}")


def _impossible(options: ConvertOptions, found: dict[str, Any]) -> Iterator[str]:
    """Yield what this libvips cannot do of what is asked for."""
    here = f"libvips {found['version']} here"
    if options.format not in found["formats"]:
        cure = f"; {found['missing'][options.format]}" if options.format in found["missing"] else ""
        cure = "; for jph: pip install 'dittohead[masters]'" if options.format == "jph" else cure
        yield f"{here} cannot write {options.format}; it can: {', '.join(found['formats'])}{cure}"
    elif (options.is_master or options.format == "jph") and "ffmpeg" not in found["proof"]:
        yield "masters are proved by FFmpeg's decoder, which is missing: pip install 'dittohead[masters]'"
    if options.format == "pyramid-tiff" and options.compression not in found["compressions"]:
        yield f"{here} cannot write {options.compression}; it can: {', '.join(found['compressions'])}"
    if "match" in options.model_fields_set:
        for pattern in options.match:
            ending = pattern.lower().rpartition(".")[2]
            if ending in _POSTSCRIPT:
                yield f"{pattern} is PostScript, which is not drawn here; make PDFs or images of it"
            elif LOADERS.get(ending, "") not in ("", *found["load"]):
                yield f"{here} cannot read {pattern}; it can: {', '.join(found['load'])}"


#: What to do about images, by how they are at fault.
_CURES = {
    "damaged": "Scan or copy the damaged ones again",
    "unfit": "Have those that the format cannot hold made in another way",
    "left": "Have match name those that are images and left out, take them out, or set others: skip",
    "memory": "Give the step more memory (memory:)",
    "missing": "Install a libvips, or decoders, that read those it lacks (apt-get install libvips42)",
    "other": "Take out what is not an image",
}

_UNFIT_FOR_MASTER = (
    "For those that a master cannot hold, set unfit: keep (the original itself becomes the master) or "
    "master: false (a changed copy), or have them made in another way"
)


async def _unseen(task: _Task) -> str | None:
    return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """One image to be converted."""

    entry: Entry
    out: bytes  #: relative to the step's work directory
    recipe: dict[str, Any]

    @property
    def source(self) -> str:
        """What stands for the input and for what is its own in how it is made."""
        size = (self.recipe.get("max_width"), self.recipe.get("max_height"))
        return f"{self.entry.sha256} {size[0]}x{size[1]}"


def _first(task: _Task, options: ConvertOptions) -> bytes:
    """Return the file that stands for an image's result."""
    return task.out + (b"/info.json" if options.format == "iiif-static" else b"")


def _planned(task: _Task, options: ConvertOptions, kept: str) -> Planned:
    """Return what would be made of one image.

    Args:
        kept: why the original would be kept as it is; "" where it would not, or where nobody knows.
    """
    if kept:
        return Planned(action="keep", what=display(task.entry.path), detail=f"as it is: {kept}")
    detail = f"of {display(task.entry.path)}, {options.words()}"
    for side in ("width", "height"):
        if task.recipe[f"max_{side}"]:
            detail += f", {side} at most {task.recipe[f'max_{side}']}"
    if options.pages != "first":
        stem, ending = os.path.splitext(display(task.out))
        pages = "each page" if options.pages == "all" else f"each of pages {options.pages}"
        detail += f"; {stem}-0001{ending} and so on for {pages} where there are several"
    return Planned(action="make", what=display(_first(task, options)), detail=detail)


class _Conversion:
    """One try of one convert step."""

    def __init__(self, ctx: StepContext, options: ConvertOptions, recipe: Recipe) -> None:
        self.ctx, self.options = ctx, options
        self.total = self.done = self.reused = self.warned = 0
        self.left = Leftover()
        self._by_content: set[int] = set()  #: digests of names that do not say that they are images
        self.lost: Counter[str] = Counter()  #: images that no longer say something, by what
        self.faulty = FaultyFiles()
        self._suffix = SUFFIXES[options.format].encode()
        self._names = Names(self._suffix, pages=options.pages != "first")
        self._sizes = Sizes(options.sizes)
        self._made = array("Q")  #: digests of the names of all results
        self._cache = ResultCache(journal_of(ctx.work), recipe.as_dict())
        self._earlier = Earlier(ctx.earlier, recipe.as_dict())
        self.proved = 0  #: masters whose samples were compared in this try
        self.provers: set[str] = set()  #: by what
        self.kept = 0  #: originals that a master cannot hold
        self.taken: Counter[str] = Counter()  #: images taken over, by the job that made them
        #: Half-made results and libvips' own temporary files; beside `work`, for no name to clash.
        self._scratch = ctx.work.parent / f"{ctx.step}.scratch"
        self._tasks: Iterator[_Task] = iter(())

    # -- which files, and what they become ---------------------------------------------------

    def survey(self, stop: Stop) -> None:
        """Count the images and find names that would clash; read what an earlier try finished."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        self.learn(stop)
        self._cache.load()
        self._earlier.load()
        self._tasks = self.tasks()

    def learn(self, stop: Stop) -> None:
        """Count the images and find names that would clash. Raises: ItemError: there is no image."""
        for entry in self._files(stop):
            if not self._is_named(entry.path):
                self._classify(entry)
        self._names.learn(entry.path for entry in self._images(stop))
        self._names.avoid(entry.path for entry in self._images(stop))
        self.total = len(self._names)
        if self.total == 0:
            raise ItemError(
                f"there are no images in the folder (names such as {', '.join(self.options.match[:4])})"
                + (f"; {self.left}" if self.left.images else ""),
                hint="Put the images in, then move the folder to the inbox again",
            )

    def _files(self, stop: Stop | None = None) -> Iterator[Entry]:
        for entry in self.ctx.source.entries():
            if stop is not None:
                stop.check()
            if not entry.is_dir:
                yield entry

    def _images(self, stop: Stop | None = None) -> Iterator[Entry]:
        return (entry for entry in self._files(stop) if self._is_image(entry.path))

    def _is_image(self, path: bytes) -> bool:
        return self._is_named(path) or (bool(self._by_content) and name_digest(path) in self._by_content)

    def _is_named(self, path: bytes) -> bool:
        name = os.fsdecode(os.path.basename(path)).lower()
        return not is_junk(path) and any(
            fnmatch.fnmatchcase(name, pattern.lower()) for pattern in self.options.match
        )

    def tasks(self) -> Iterator[_Task]:
        """Yield the images and what they become."""
        recipe = self.options.child_recipe()
        for entry in self._images():
            yield _Task(
                entry=entry,
                out=self._names.output(entry.path),
                recipe=self._sizes.narrowed(entry.path, recipe),
            )

    def _classify(self, entry: Entry) -> None:
        """Find out what a file is whose name does not say that it is an image."""
        beside, about = self._sizes.learn(entry.path), self.options.about_others
        # What another step has yet to make is not there, and is known by its name alone.
        kind = "" if beside else leftover_kind(self.ctx.source.root, entry.path)
        taken = is_read(kind) or (kind and self.options.keeps_unfit and about != "skip")
        if taken and "match" not in self.options.model_fields_set:
            self._by_content.add(name_digest(entry.path))
            return
        self.left.add(entry.path, kind)
        if beside or is_junk(entry.path):
            return
        if kind and about != "skip":
            why = "match leaves it out" if is_read(kind) else "which is not read here"
            self._failed(entry, f"it is an image ({kind}), {why}, and others: skip is not set", "left")
        elif about == "fail":
            self._failed(entry, "this is not an image, and others: fail is set", "other")

    # -- what would be made ------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def foreseeing(self) -> AsyncIterator[Callable[[_Task], Awaitable[str | None]]]:
        """Give what says why an image's original would be kept, "" where it would not.

        Of one that cannot be converted it says None, and notes why. What another step has yet to make
        cannot be looked at.
        """
        if self.ctx.source.made is not None:
            yield _unseen
            return
        await in_thread(lambda _: self._scratch.mkdir(parents=True, exist_ok=True))
        async with Renewed(self._child) as own:

            async def foresee(task: _Task) -> str | None:
                child = await own.get()
                answer = await child.ask({**self._request(task), "foresee": True}, self.options.timeout)
                if answer is None:
                    answer = {"ok": False, "kind": "image", "what": child.epitaph(self.options)}
                    await own.drop()
                if answer["ok"]:
                    return str(answer["kept"])
                self._failed(task.entry, answer["what"], answer["kind"])
                return None

            yield foresee

    # -- children ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Convert everything with as many children as there are slots. Raises: StepError."""
        await Runners(
            self.ctx,
            "convert",
            self.total,
            pick=self._pick,
            make=self._make,
            good=self._good,
            start=self._child,
        ).run()

    async def _make(self, task: _Task, own: Renewed[ImageChild]) -> None:
        child = await own.get()
        answer = await child.ask(self._request(task), self.options.timeout)
        if answer is None or answer.get("kind") == "memory":
            await own.drop()
            answer = await self._alone(task)
        self._take(task, answer)

    def _pick(self, stop: Stop) -> tuple[_Task, dict[str, Any] | None] | None:
        """Return the next image, with what an earlier try made of it if that is still right."""
        task = next(self._tasks, None)
        return None if task is None else (task, self._finished(task, stop))

    def _finished(self, task: _Task, stop: Stop) -> dict[str, Any] | None:
        known = self._cache.find(task.out, task.source)
        if known is not None and all(is_whole(self.ctx.work, file, stop) for file in known["files"]):
            self.reused += 1
            return known
        taken = self._earlier.take(task.out, task.source, self.ctx.work, stop)
        if taken is None:
            return None
        self._cache.add(task.out, task.source, taken)
        return {"files": taken}

    def _child(self) -> AbstractAsyncContextManager[ImageChild]:
        return ImageChild.start(self.ctx, self.options, self._scratch)

    async def _alone(self, task: _Task) -> dict[str, Any]:
        """Try once more an image whose child died: another may have worn that child out.

        In this try the child decodes the source before it writes, which finds the reason where
        libvips crashes instead of telling one.
        """
        await in_thread(self._see_space)
        async with self._child() as child:
            answer = await child.ask({**self._request(task), "careful": True}, self.options.timeout)
            if answer is None:
                await in_thread(self._see_space)
                child.must_not_be_killed(display(task.entry.path))
                answer = {"ok": False, "kind": "image", "what": child.epitaph(self.options)}
        if answer.get("kind") == "memory":
            answer["what"] = f"it needs more than {units.size(self.options.memory)} of memory"
        return answer

    def _see_space(self, stop: Stop) -> None:
        """Find out whether a full disk was what killed a child: libvips 8.14 crashes of it.

        What the child left is still there, so the disk is as full as it was then.
        Raises: TransientError.
        """
        path = self._scratch / "room"
        try:
            with open(path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, _ROOM)
        except OSError as error:
            if error.errno in DISK:
                raise self._full(os.strerror(error.errno)) from error
            raise
        finally:
            path.unlink(missing_ok=True)

    def _full(self, what: str) -> TransientError:
        # The disk of work/ is ours, not an outside target: wait for room and go on.
        return TransientError(
            f"the disk of work/ takes no more data ({what})",
            where=str(self.ctx.work),
            hint="Make room; the step goes on by itself",
            retry_after_s=_RETRY_S,
        )

    def _request(self, task: _Task) -> dict[str, Any]:
        temp = hashlib.blake2b(task.out, digest_size=16).hexdigest()
        return {
            "root": os.fsdecode(self.ctx.source.root),
            "path": os.fsdecode(task.entry.path),
            "sha256": task.entry.sha256,
            "temp": str(self._scratch / temp),
            "work": str(self.ctx.work),
            "out": os.fsdecode(task.out),
            "recipe": task.recipe,
            "pixels": self.options.pixels,
        }

    # -- results -----------------------------------------------------------------------------

    def _take(self, task: _Task, answer: dict[str, Any]) -> None:
        if not answer["ok"]:
            if answer["kind"] == "disk":
                raise self._full(answer["what"])
            if answer["kind"] == "short":
                raise MachineShort(answer["what"], of=answer["what"])
            self._failed(task.entry, answer["what"], answer["kind"])
            return
        try:
            self._cache.add(task.out, task.source, answer["files"])
        except OSError as error:
            raise self._full(error.strerror or str(error)) from error
        self._good(task, answer)

    def _good(self, task: _Task, answer: dict[str, Any]) -> None:
        self.done += 1
        details = [file["detail"] for file in answer["files"]]
        self.kept += any("kept" in detail for detail in details)
        self.warned += any("warnings" in detail for detail in details)
        self.taken.update({detail["reused_from"] for detail in details if "reused_from" in detail})
        self.lost.update({name for detail in details for name in detail.get("lost", ())})
        proofs = [detail["proof"] for detail in details if "proof" in detail and "reused_from" not in detail]
        self.proved += len(proofs)
        self.provers.update(proof["result_decoder"] for proof in proofs)
        for file in answer["files"]:
            path = os.fsencode(file["file"])
            self._made.append(name_digest(path))
            self.ctx.output(
                Output(
                    path=path,
                    size=file["size"],
                    sha256=file["sha256"],
                    source=task.entry.path,
                    detail=file["detail"],
                )
            )
        self.ctx.progress(self.done + self.faulty.count, self.total, "images")

    def _failed(self, entry: Entry, what: str, kind: str) -> None:
        self.faulty.add(entry.path, what, kind)

    def failure(self) -> ItemError:
        """Return the error of the images that cannot be converted, with what to do about theirs."""
        every = self.total + self.faulty.kinds["left"]
        own = {"unfit": _UNFIT_FOR_MASTER} if self.options.is_master else {}
        cures = [cure for kind, cure in (_CURES | own).items() if self.faulty.kinds[kind]]
        cures = cures or ["Take them out, or have them made in another way"]
        error = ItemError(
            f"{self.faulty.count} of {every} images cannot be converted: {self.faulty}",
            hint=f"{'; '.join(cures)}; then move the folder to the inbox again",
        )
        error.files = [] if self.ctx.source.made else self.faulty.named
        error.good = {kind for kind, count in self.faulty.kinds.items() if count} <= {
            "memory",
            "left",
            "missing",
        }
        return error

    def make_durable(self, stop: Stop) -> None:
        """Remove what belongs to no image of this folder and make the rest durable."""
        keep_only(self.ctx.work, self._made, stop)

    def close(self, stop: Stop) -> None:
        """Let go of everything but the results."""
        self._cache.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def result(self, agent: str) -> Done:
        """Return what was done. Raises: ItemError: some images are bad."""
        if self.faulty.count:
            raise self.failure()
        outcome = "warning" if self.warned or self.left.images else "success"
        detail = f"{self.done - self.kept} images to {self.options.words()}"
        detail += f"; {self.kept} kept as they are, see outputs" if self.kept else ""
        if self.lost:
            named = ", ".join(f"{name} ({count})" for name, count in self.lost.most_common(_SHOWN))
            detail += f"; not carried over: {named}"
        detail += f"; {self.left}" if self.left.count else ""
        if self.warned:
            detail += f"; {self.warned} with a warning, see outputs"
        self.ctx.event(Event(type=EventType.MIGRATION, outcome=outcome, detail=detail, agent=agent))
        taken = [f"{count} of them from job {job}" for job, count in self.taken.items()]
        if taken:
            detail = f"{', '.join(taken)}: same input, recipe and tools; digests compared"
            self.ctx.event(Event(type=EventType.FIXITY, outcome="success", detail=detail, agent=AGENT))
        if self.options.verify and not self.options.is_master and self.done > self.taken.total():
            detail = f"all results of {self.done - self.taken.total()} images decoded"
            self.ctx.event(Event(type=EventType.VALIDATION, outcome="success", detail=detail, agent=agent))
        if self.kept:
            detail = f"{self.kept} originals copied and compared with the manifest"
            self.ctx.event(Event(type=EventType.FIXITY, outcome="success", detail=detail, agent=AGENT))
        if self.provers:
            detail = f"the samples of {self.proved} masters are their sources' own; digests in outputs"
            by = "; ".join(sorted(self.provers))
            self.ctx.event(Event(type=EventType.VALIDATION, outcome="success", detail=detail, agent=by))
        words = [f"{self.done} images"]
        words += [f"{self.kept} of them kept as they are"] if self.kept else []
        words += taken
        words += [f"{self.reused} of them from before"] if self.reused else []
        words += [str(self.left)] if self.left.count else []
        return Done(detail=", ".join(words))
