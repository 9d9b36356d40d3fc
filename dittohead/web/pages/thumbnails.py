"""Pictures of a job's images, small ones and larger ones: made by child processes; kept, within bounds.

They are made of the derivative at hand. A picture is asked for by its number in the job's own list: no path
comes from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import itertools
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from dittohead.folders import receipt
from dittohead.folders.job_files import JobFiles
from dittohead.folders.stations import Stations
from dittohead.model.errors import ItemError, Unreadable
from dittohead.model.records import Job, StepRow
from dittohead.model.roles import Role
from dittohead.model.states import StepState
from dittohead.model.text import display
from dittohead.store import Connection, queries
from dittohead.store import jobs as job_store
from dittohead.system import files
from dittohead.system.process import environment
from dittohead.toolkit import natural_order
from dittohead.toolkit.images.process import ImageChild
from dittohead.web.server.app_state import SITE
from dittohead.web.server.identity import needs
from dittohead.web.server.problems import Problem

#: Pictures of one job; names that are looked at to find them.
MOST, LOOKED_AT = 48, 5000

#: Pixels of the longer side: of a small picture, and of one to be looked at.
SIZE, LARGE = 320, 1600

#: Children at once, and requests that may wait for them.
CHILDREN, QUEUE = 2, 200

#: A child with nothing to do ends after this long. Seconds.
IDLE_S = 10.0

#: What is kept, in all.
KEPT_BYTES = 64 << 20

#: What is kept is counted after so many new ones.
_COUNT_AFTER = 64

_ENDINGS = (
    *(b".tif", b".tiff", b".jpg", b".jpeg", b".png", b".webp", b".gif", b".bmp"),
    *(b".jp2", b".jpx", b".j2k", b".jph", b".heic", b".heif", b".jxl"),
)

#: Shown where no picture can be made: of a file that is damaged, or no image for all its name.
_NONE = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path d="M4 4h24v24H4zM4 4l24 24M28 4L4 28"'
    b' fill="none" stroke="#888" stroke-width=".7"/></svg>'
)

#: What `convert` makes that is one picture of its source; tiles are not.
_WHOLE = frozenset({"pyramid-tiff", "jpeg", "png", "jp2", "jph"})


@dataclass(frozen=True)
class ThumbnailLimits:
    """What one picture may need."""

    memory: int = 2 << 30  #: address space, bytes
    timeout: float = 30.0  #: seconds


@dataclass(frozen=True)
class SourceImage:
    """One image of a job that can be shown."""

    number: int
    root: Path
    path: bytes  #: below the root
    label: str  #: the original's name
    key: str  #: changes with the file, and with the size
    size: int = SIZE

    @property
    def large(self) -> SourceImage:
        """The same to be looked at."""
        return dataclasses.replace(self, key=f"{self.key}-{LARGE}", size=LARGE)


def pictures(stations: Stations, job: Job, steps: list[StepRow]) -> list[SourceImage]:
    """Return the first images of a job: of those made from its files, otherwise of the files. Blocking.

    Args:
        steps: the job's steps, as the store has them.

    Returns: in the order of their pages; those that cannot be looked at are left out.
    """
    found = list(_derived(JobFiles(stations, job), job, steps))
    folder = stations.folder(job.station, job.folder)
    if not found and _is_its_own(folder, job):
        found = list(_originals(folder))
    found.sort(key=lambda one: natural_order.page_key(one[1], one[2]))
    listed: list[SourceImage] = []
    for root, path, origin in found[:MOST]:
        try:
            status = os.lstat(os.path.join(os.fsencode(root), path))
        except OSError:
            continue
        said = b"\0".join([os.fsencode(root), path, b"%d %d" % (status.st_mtime_ns, status.st_size)])
        key = hashlib.sha256(said).hexdigest()[:32]
        listed.append(SourceImage(len(listed), root, path, display(origin or path), key))
    return listed


def _derived(files_of: JobFiles, job: Job, steps: list[StepRow]) -> Iterator[tuple[Path, bytes, bytes]]:
    """Yield (root, path, the file it was made from) of what a step has made for people to see."""
    options = {step.name: step.options for step in job.definition.steps}
    for step in steps:
        whole = options.get(step.name, {}).get("format") in _WHOLE
        if step.worker != "convert" or step.state is not StepState.DONE or not whole:
            continue
        seen: set[bytes] = set()
        with contextlib.suppress(Unreadable):  # a list that is damaged shows what comes before that
            for output in itertools.islice(receipt.read_outputs(files_of.outputs(step.name)), LOOKED_AT):
                if output.path.lower().endswith(_ENDINGS) and output.source not in seen:
                    seen.add(output.source)
                    yield files_of.work(step.name), output.path, output.source
        return


def _is_its_own(folder: Path, job: Job) -> bool:
    """Tell whether a folder is the job's: another of its name may lie there by now."""
    try:
        return os.lstat(folder).st_ino == job.ino
    except OSError:
        return False


def _originals(folder: Path) -> Iterator[tuple[Path, bytes, bytes]]:
    try:
        for found in itertools.islice(files.walk(folder), LOOKED_AT):
            if found.kind == "file" and found.path.lower().endswith(_ENDINGS):
                yield folder, found.path, b""
    except (ItemError, OSError):  # it has just moved on, or holds what cannot be walked
        return


@dataclass
class _Outside:
    """Where a child runs."""

    env: Mapping[str, str]

    def log_file(self) -> Path:
        """Nobody reads what it prints."""
        return Path(os.devnull)


@dataclass
class Thumbnailer:
    """Makes pictures when they are asked for, a few at once, and keeps them; of one event loop."""

    root: Path
    home: Path  #: where they are kept
    bounds: ThumbnailLimits = field(default_factory=ThumbnailLimits)
    _queue: asyncio.Queue[tuple[SourceImage, asyncio.Future[bool]]] = field(
        default_factory=lambda: asyncio.Queue(QUEUE)
    )
    _wanted: dict[str, asyncio.Future[bool]] = field(default_factory=dict)
    _children: set[asyncio.Task[None]] = field(default_factory=set)
    _lists: OrderedDict[tuple[str, int, str], list[SourceImage]] = field(default_factory=OrderedDict)
    _made: int = 0

    async def of(self, stations: Stations, job: Job, steps: list[StepRow]) -> list[SourceImage]:
        """Return the images of a job, as `pictures` does. The list is kept until the job has gone on.

        Args:
            steps: the job's steps, as the store has them.
        """
        done = sum(step.state is StepState.DONE for step in steps)
        known = (job.id, done, f"{job.token} {job.station.value} {display(job.folder)}")
        found = self._lists.get(known)
        if found is None:
            found = await asyncio.to_thread(pictures, stations, job, steps)
            self._lists[known] = found
            while len(self._lists) > 64:
                self._lists.popitem(last=False)
        return found

    async def get(self, picture: SourceImage) -> bytes | None:
        """Return a picture's JPEG, None where none can be made of it. Raises: Problem: too many wait."""
        kept = self.home / f"{picture.key}.jpg"
        data = await asyncio.to_thread(_read, kept)
        if data is None and await self._make(picture):
            data = await asyncio.to_thread(_read, kept)
        return data

    async def _make(self, picture: SourceImage) -> bool:
        wanted = self._wanted.get(picture.key)
        if wanted is None:
            wanted = asyncio.get_running_loop().create_future()
            try:
                self._queue.put_nowait((picture, wanted))
            except asyncio.QueueFull:
                raise Problem(503, "too many pictures are being made", headers={"Retry-After": "5"}) from None
            self._wanted[picture.key] = wanted
            wanted.add_done_callback(lambda _: self._wanted.pop(picture.key, None))
            if len(self._children) < CHILDREN:
                task = asyncio.create_task(self._serve(), name="thumbnails")
                self._children.add(task)
                task.add_done_callback(self._ended)
        return await asyncio.shield(wanted)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._children.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._give_up()

    def _give_up(self) -> None:
        """Tell everybody who waits that no picture comes: no child can be started."""
        while not self._queue.empty():
            self._queue.get_nowait()[1].set_result(False)

    async def _serve(self) -> None:
        """Make pictures until nobody has asked for one for a while, in one child after another."""
        await asyncio.to_thread(self.home.mkdir, mode=0o700, parents=True, exist_ok=True)
        while True:
            async with _child(self.root, self.bounds, self.home) as child:
                while True:
                    try:
                        async with asyncio.timeout(IDLE_S):
                            picture, wanted = await self._queue.get()
                    except TimeoutError:
                        return
                    alive = await self._ask(child, picture, wanted)
                    if not alive:
                        break

    async def _ask(self, child: ImageChild, picture: SourceImage, wanted: asyncio.Future[bool]) -> bool:
        """Have one made; return whether the child lives."""
        answer = None
        try:
            answer = await child.ask(
                {
                    "root": os.fsdecode(picture.root),
                    "thumbnail": os.fsdecode(picture.path),
                    "out": str(self.home / f"{picture.key}.jpg"),
                    "size": picture.size,
                },
                self.bounds.timeout,
            )
        finally:
            if not wanted.done():
                wanted.set_result(bool(answer and answer["ok"]))
        self._made += 1
        if self._made % _COUNT_AFTER == 1:
            await asyncio.to_thread(trim, self.home, KEPT_BYTES)
        return answer is not None

    async def close(self) -> None:
        """End the children."""
        tasks = list(self._children)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._give_up()


@contextlib.asynccontextmanager
async def _child(root: Path, bounds: ThumbnailLimits, scratch: Path) -> AsyncIterator[ImageChild]:
    async with ImageChild.start(_Outside(environment(root)), bounds, scratch) as child:
        yield child


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
        os.utime(path)  # what is looked at stays longest
    except OSError:
        return None
    return data


def trim(home: Path, most: int) -> None:
    """Remove what was looked at longest ago, until no more than so many bytes are kept. Blocking."""
    with os.scandir(home) as entries:
        kept = sorted(
            ((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path) for entry in entries), reverse=True
        )
    total = 0
    for _, size, path in kept:
        total += size
        if total > most:
            with contextlib.suppress(OSError):
                os.unlink(path)


THUMBNAILER = web.AppKey("thumbnailer", Thumbnailer)


def install(app: web.Application) -> None:
    """Give an application the pictures."""
    stations = app[SITE].stations
    app[THUMBNAILER] = Thumbnailer(stations.root, stations.state / "thumbnails")
    app.router.add_get("/jobs/{job}/thumbnails/{number}", serve)
    app.on_shutdown.append(_close)


async def _close(app: web.Application) -> None:
    await app[THUMBNAILER].close()


def _job_and_steps(connection: Connection, wanted: str) -> tuple[Job, list[StepRow]]:
    job = queries.resolve(connection, wanted)
    return job, job_store.steps_of(connection, job.id)


async def one_of(request: web.Request) -> tuple[Job, list[SourceImage], int]:
    """Return the job, its pictures and the number of the one that a request's path asks for."""
    site, number = request.app[SITE], request.match_info["number"]
    job, steps = await site.store.read_apart(_job_and_steps, request.match_info["job"])
    found = await request.app[THUMBNAILER].of(site.stations, job, steps)
    if not (number.isascii() and number.isdecimal() and len(number) < 5 and int(number) < len(found)):
        raise web.HTTPNotFound
    return job, found, int(number)


@needs(Role.READER)
async def serve(request: web.Request) -> web.Response:
    """Send one picture; with `large` in the query one to be looked at."""
    _, found, number = await one_of(request)
    picture = found[number].large if "large" in request.query else found[number]
    headers = {"ETag": f'"{picture.key}"', "Cache-Control": "private, max-age=86400"}
    if any(given.value == picture.key for given in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    data = await request.app[THUMBNAILER].get(picture)
    if data is None:
        return web.Response(body=_NONE, content_type="image/svg+xml")
    return web.Response(body=data, content_type="image/jpeg", headers=headers)
