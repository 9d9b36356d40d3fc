"""convert: images to pyramid TIFFs, in child processes with limits, each read back before it counts."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import Field, field_validator

from dittohead import files
from dittohead.errors import ItemError, TransientError
from dittohead.manifest import path_bytes, path_fields
from dittohead.model import Entry, Event, EventType, Output
from dittohead.options import Duration, Size
from dittohead.process import Child
from dittohead.threads import Stop, in_thread
from dittohead.worker import Done, Options, StepContext, StepResult, Worker

_CORES = os.cpu_count() or 1
_IMAGES = ["*.tif", "*.tiff", "*.jpg", "*.jpeg", "*.png", "*.webp", "*.jp2", "*.heic", "*.bmp", "*.gif"]
#: Files that systems leave beside images; never taken for one. Source: facts about drop folders of
#: macOS, Windows and Synology.
_JUNK = ["._*", ".DS_Store", "Thumbs.db", "desktop.ini"]
_SHOWN = 5


class ConvertOptions(Options):
    """What a convert step may be told."""

    format: Literal["pyramid-tiff"] = Field("pyramid-tiff", description="What is made.")
    compression: Literal["jpeg", "deflate", "lzw", "webp", "zstd", "none"] = Field(
        "jpeg",
        description="How tiles are compressed. `jpeg` and `webp` hold 8-bit grey or colour, and images are "
        "brought to that; the others keep every pixel and are compared with the source.",
    )
    quality: int = Field(
        85,
        ge=1,
        le=100,
        description="Of JPEG and WebP; from 90 on libvips writes JPEG tiles as RGB, three times larger.",
    )
    tile: int = Field(256, ge=64, le=1024, multiple_of=16, description="Width and height of a tile, pixels.")
    match: list[str] = Field(
        default_factory=lambda: list(_IMAGES),
        description="Names of the files that are images; upper and lower case alike.",
    )
    others: Literal["skip", "fail"] = Field("skip", description="What to do with other files.")
    verify: bool = Field(True, description="Read every level back before the result counts.")
    memory: Size = Field(4 << 30, ge=512 << 20, description="Address space a child process may use.")
    timeout: Duration = Field(600.0, gt=0, description="The longest one image may take.")

    @field_validator("tile")
    @classmethod
    def _power(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("a power of two from 64 to 1024 is wanted")
        return value

    def recipe(self) -> dict[str, Any]:
        """Return what decides the result, for the child and for recognising it again."""
        return {
            "format": self.format,
            "compression": self.compression,
            "quality": self.quality,
            "tile": self.tile,
            "verify": self.verify,
        }


@cache
def abilities() -> dict[str, Any]:
    """Return what this machine's libvips can do, asked of a child once; {} when there is none."""
    asked = subprocess.run(
        [sys.executable, "-m", "dittohead.vips", "--probe"],
        capture_output=True,
        check=False,
        timeout=60,
        env={**os.environ, "LC_ALL": "C"},
    )
    if asked.returncode != 0:
        return {}
    found: dict[str, Any] = json.loads(asked.stdout)
    return found


class ConvertWorker(Worker[ConvertOptions]):
    """Makes a pyramid TIFF of every image, under the same relative name."""

    name = "convert"
    Options = ConvertOptions
    makes_outputs = True
    space_factor = 1.0
    default_limit = _CORES

    def check(self, options: ConvertOptions) -> list[str]:
        """See that this libvips can write what is asked for."""
        found = abilities()
        if not found:
            return ["the image library is not installed: apt-get install libvips42"]
        if options.compression not in found["compressions"]:
            known = ", ".join(found["compressions"])
            return [f"libvips {found['version']} here cannot write {options.compression}; it can: {known}"]
        return []

    async def doctor(self, options: ConvertOptions) -> AsyncIterator[tuple[bool, str]]:
        """Say which libvips there is and what it reads."""
        found = await asyncio.to_thread(abilities)
        if not found:
            yield False, "the image library is not installed: apt-get install libvips42"
        else:
            yield True, f"libvips {found['version']} reads {', '.join(found['load'])}"

    async def run(self, ctx: StepContext, options: ConvertOptions) -> StepResult:
        """Convert every image; all are tried before bad ones fail the step.

        What an earlier, killed try has finished is kept when its digests still hold.
        """
        conversion = _Conversion(ctx, options)
        await in_thread(conversion.survey)
        if conversion.total == 0:
            raise ItemError(
                f"there are no images in the folder (names such as {', '.join(options.match[:4])})",
                hint="Put the images in, then move the folder to the inbox again",
            )
        await conversion.run()
        await in_thread(conversion.settle)
        return conversion.result()


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One image to be converted."""

    entry: Entry
    out: bytes  #: relative to the step's work directory


class _Conversion:
    """One try of one convert step."""

    def __init__(self, ctx: StepContext, options: ConvertOptions) -> None:
        self.ctx, self.options = ctx, options
        self.total = self.done = self.skipped = self.reused = self.bad = 0
        self.reasons: list[str] = []
        self.warned = 0
        self._journal = _Journal(ctx.work.parent / f"{ctx.step}.journal.jsonl", options.recipe())
        self._clashing: set[bytes] = set()
        self._children = 0

    # -- which files, and what they become ---------------------------------------------------

    def survey(self, stop: Stop) -> None:
        """Count the images and find names that would clash; read what an earlier try finished."""
        seen: set[bytes] = set()
        for entry in self.ctx.source.entries():
            stop.check()
            if entry.is_dir:
                continue
            if not self._is_image(entry.path):
                self._other(entry)
                continue
            self.total += 1
            key = _digest(_stem(entry.path))
            (self._clashing if key in seen else seen).add(key)
        self._journal.load()

    def _is_image(self, path: bytes) -> bool:
        name = os.fsdecode(os.path.basename(path))
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in _JUNK):
            return False
        return any(fnmatch.fnmatchcase(name.lower(), pattern.lower()) for pattern in self.options.match)

    def tasks(self) -> Iterator[_Task]:
        """Yield the images; a.jpg beside a.png become a.jpg.tif and a.png.tif, never one a.tif."""
        for entry in self.ctx.source.entries():
            if entry.is_dir or not self._is_image(entry.path):
                continue
            clash = _digest(_stem(entry.path)) in self._clashing
            base = entry.path if clash else os.path.splitext(entry.path)[0]
            yield _Task(entry=entry, out=base + b".tif")

    def _other(self, entry: Entry) -> None:
        self.skipped += 1
        name = os.fsdecode(entry.path)
        junk = any(fnmatch.fnmatchcase(os.path.basename(name), pattern) for pattern in _JUNK)
        if self.options.others == "fail" and not junk:
            self._failed(entry, "this is no image, and others: fail is set")

    # -- children ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Convert everything with as many children as there are slots."""
        tasks = self.tasks()
        try:
            async with asyncio.TaskGroup() as group:
                self._start_runner(group, tasks, None)
        except* (TransientError, ItemError) as errors:
            raise errors.exceptions[0] from None
        finally:
            self._journal.close()

    def _start_runner(
        self,
        group: asyncio.TaskGroup,
        tasks: Iterator[_Task],
        slot: AbstractAsyncContextManager[None] | None,
    ) -> None:
        self._children += 1
        group.create_task(self._runner(group, tasks, slot), name=f"convert:{self.ctx.job_id}")

    async def _runner(
        self,
        group: asyncio.TaskGroup,
        tasks: Iterator[_Task],
        slot: AbstractAsyncContextManager[None] | None,
    ) -> None:
        """Convert images one after another in one child; an extra one leaves when others wait."""
        async with slot or contextlib.nullcontext(), contextlib.AsyncExitStack() as stack:
            child: _Child | None = None
            for task in tasks:
                if self._reuse(task):
                    continue
                self._grow(group, tasks)
                if child is None:
                    child = await stack.enter_async_context(_Child.start(self.ctx, self.options))
                answer = await child.ask(self._request(task), self.options.timeout)
                if answer is None:  # it died, and may have taken an innocent image along: once more, alone
                    await stack.aclose()
                    child = None
                    answer = await self._alone(task)
                self._take(task, answer)
                if slot is not None and self.ctx.contended:
                    break
            self._children -= 1

    def _grow(self, group: asyncio.TaskGroup, tasks: Iterator[_Task]) -> None:
        if self._children < min(_CORES * 2, self.total - self.done):
            slot = self.ctx.spare_slot()
            if slot is not None:
                self._start_runner(group, tasks, slot)

    async def _alone(self, task: _Task) -> dict[str, Any]:
        async with _Child.start(self.ctx, self.options) as child:
            answer = await child.ask(self._request(task), self.options.timeout)
            if answer is not None:
                return answer
            return {"ok": False, "kind": "image", "what": child.epitaph(self.options)}

    def _request(self, task: _Task) -> dict[str, Any]:
        return {
            "root": os.fsdecode(self.ctx.source.root),
            "path": os.fsdecode(task.entry.path),
            "sha256": task.entry.sha256,
            "out": os.fsdecode(os.path.join(os.fsencode(self.ctx.work), task.out)),
            "recipe": self.options.recipe(),
        }

    # -- results -----------------------------------------------------------------------------

    def _reuse(self, task: _Task) -> bool:
        known = self._journal.known.get(task.out)
        if known is None or known["source_sha256"] != task.entry.sha256:
            return False
        path = os.path.join(os.fsencode(self.ctx.work), task.out)
        try:
            same = files.sha256_file(path) == (known["sha256"], known["size"])
        except (OSError, ItemError):
            return False
        if same:
            self.reused += 1
            self._good(task, known)
        return same

    def _take(self, task: _Task, answer: dict[str, Any]) -> None:
        if answer["ok"]:
            self._journal.add(task, answer)
            self._good(task, answer)
        elif answer["kind"] == "disk":
            # The disk of work/ is ours, not an outside target: wait for room and go on.
            raise TransientError(answer["what"], where=str(self.ctx.work), retry_after_s=60)
        else:
            self._failed(task.entry, answer["what"])

    def _good(self, task: _Task, answer: dict[str, Any]) -> None:
        self.done += 1
        self.warned += bool(answer["detail"].get("warnings"))
        self.ctx.output(
            Output(
                path=task.out,
                size=answer["size"],
                sha256=answer["sha256"],
                source=task.entry.path,
                detail=answer["detail"],
            )
        )
        self.ctx.progress(self.done + self.bad, self.total, "images")

    def _failed(self, entry: Entry, what: str) -> None:
        self.bad += 1
        if len(self.reasons) < _SHOWN:
            self.reasons.append(f"{os.fsdecode(entry.path)}: {what}")

    def settle(self, stop: Stop) -> None:
        """Make everything durable and remove what belongs to no image of this folder."""
        wanted = {task.out for task in self.tasks()} if not self.bad else None
        for found in files.walk(self.ctx.work):
            stop.check()
            stale = found.name.startswith(b".") and found.name.endswith(b".tmp")
            if wanted is not None and not found.is_empty_dir and (stale or found.path not in wanted):
                os.unlink(found.name, dir_fd=found.dir_fd)
        files.sync_filesystem(self.ctx.work)

    def result(self) -> Done:
        """Return what was done. Raises: ItemError: some images are bad."""
        if self.bad:
            more = f"; and {self.bad - len(self.reasons)} more" if self.bad > len(self.reasons) else ""
            raise ItemError(
                f"{self.bad} of {self.total} images cannot be converted: {'; '.join(self.reasons)}{more}",
                hint="Replace or remove them, then move the folder to the inbox again",
            )
        agent = f"libvips {abilities().get('version', '?')}"
        outcome = "warning" if self.warned else "success"
        detail = f"{self.done} images to {self.options.format}, {self.options.compression}"
        if self.warned:
            detail += f"; {self.warned} with a warning, see outputs"
        self.ctx.event(Event(type=EventType.MIGRATION, outcome=outcome, detail=detail, agent=agent))
        if self.options.verify:
            detail = f"every level of {self.done} images decoded"
            self.ctx.event(Event(type=EventType.VALIDATION, outcome="success", detail=detail, agent=agent))
        words = [f"{self.done} images"]
        words += [f"{self.reused} of them from before"] if self.reused else []
        words += [f"{self.skipped} other files left"] if self.skipped else []
        return Done(detail=", ".join(words))


class _Child:
    """One running image process."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._timed_out = False

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, ctx: StepContext, options: ConvertOptions) -> AsyncIterator[_Child]:
        argv = [sys.executable, "-m", "dittohead.vips", str(options.memory)]
        with open(ctx.log_file(), "ab") as log:
            async with Child.start(
                argv,
                env={**ctx.env, "VIPS_CONCURRENCY": "1", "TMPDIR": str(ctx.work.parent)},
                stdin=subprocess.PIPE,
                stderr=log.fileno(),
            ) as child:
                yield cls(child)

    async def ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Return the answer, None when the child died or took too long (and is dead now)."""
        process = self._child.process
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            async with asyncio.timeout(timeout_s):
                line = await process.stdout.readline()
        except TimeoutError:
            self._timed_out = True
            await self._child.end()
            return None
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        if not line:
            await process.wait()
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer

    def epitaph(self, options: ConvertOptions) -> str:
        """Say how the child ended, in words."""
        if self._timed_out:
            return f"it took longer than {options.timeout:g} s"
        status = self._child.process.returncode or 0
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return (
            f"the image library crashed ({name}); it may need more than {options.memory >> 20} MiB of memory"
        )


class _Journal:
    """What earlier tries of the step have finished: a JSON line for each image."""

    def __init__(self, path: Path, recipe: dict[str, Any]) -> None:
        self._path, self._recipe = (
            path,
            hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest(),
        )
        self._file: IO[bytes] | None = None
        self.known: dict[bytes, dict[str, Any]] = {}

    def load(self) -> None:
        """Read it; lines of another recipe and a half last line do not count."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    fields = json.loads(line)
                    if fields["recipe"] == self._recipe:
                        self.known[path_bytes(fields)] = fields

    def add(self, task: _Task, answer: dict[str, Any]) -> None:
        """Note a finished image."""
        fields = {
            **path_fields(task.out),
            "recipe": self._recipe,
            "source_sha256": task.entry.sha256,
            "sha256": answer["sha256"],
            "size": answer["size"],
            "detail": answer["detail"],
        }
        if self._file is None:
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115  # closed by `close`
        self._file.write(json.dumps(fields).encode() + b"\n")

    def close(self) -> None:
        """Finish."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _stem(path: bytes) -> bytes:
    return os.path.splitext(path)[0].lower()


def _digest(name: bytes) -> bytes:
    # Eight bytes for each image are enough to find clashes among millions.
    return hashlib.blake2b(name, digest_size=8).digest()
