"""ocfl: store a folder's (or a step's) files as a version of an object in an OCFL storage root."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from dittohead.contract.worker import Done, Planned, Recipe, StepContext, StepResult, VerifyContext, Worker
from dittohead.model.errors import ItemError, StepError, TargetError
from dittohead.model.events import AGENT, Event, EventType
from dittohead.model.records import Location
from dittohead.model.text import counted, display
from dittohead.model.units import size
from dittohead.system import disk_space, files
from dittohead.system.process import UMASK
from dittohead.system.threads import Stop, Stopped, in_thread
from dittohead.toolkit import mounted
from dittohead.toolkit.ocfl import inventory, storage_root
from dittohead.toolkit.ocfl.check import ObjectCheck
from dittohead.toolkit.ocfl.layouts import NoPlace
from dittohead.toolkit.ocfl.storage_root import NotARoot, StorageRoot
from dittohead.workers.ocfl.options import OcflOptions
from dittohead.workers.ocfl.writing import Write, words

#: Writing back what was copied may take long without any sign of life in between.
_SYNC_LEAST_S = 600.0

#: What flock(2) says where a file system cannot lock.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})

Said = tuple[bool, str]


class OcflWorker(Worker[OcflOptions]):
    """Stores objects and versions; content that an object has is not stored twice, none is ever changed."""

    name = "ocfl"
    Options = OcflOptions
    delivers = True

    def stage(self, options: Mapping[str, Any]) -> str:
        """Call a folder that was stored."""
        return "stored"

    def target(self, options: OcflOptions) -> str:
        """Return the storage root."""
        return options.root

    def recipe(self, options: OcflOptions) -> Recipe | None:
        """Return what decides the object beside the files."""
        settings = {"id": options.id, "digest": options.digest, "fixity": options.fixity}
        return Recipe(settings=settings, tools={"ocfl": inventory.SPEC})

    async def examine(
        self, options: OcflOptions, secret: Callable[[str], str], written: Mapping[str, Any]
    ) -> AsyncIterator[Said]:
        """Look at the storage root: is it one, which layout has it, may it be written."""
        root = str(written.get("root", options.root))
        fixed = root.partition("{")[0].rpartition("/")[0] or "/" if "{" in root else ""
        try:
            found = await mounted.run(
                lambda stop: list(_seen(options, fixed)),
                options.mount or options.root,
                max(options.timeout, 1.0),
            )
        except StepError as error:
            found = [(False, str(error).replace("; work goes on by itself", ""))]
        for said in found:
            yield said

    async def plan(self, ctx: StepContext, options: OcflOptions) -> AsyncIterator[Planned]:
        """Yield the object and its next version, and each file."""
        where, what = _uri(os.fsencode(options.root)), "a version"
        try:
            place, what = await _Storing(ctx, options).foreseen()
            where = _uri(place)
        except TargetError as error:
            what = f"a version; the root cannot be looked at now ({error.what})"
        yield Planned(action="create", what=f"{what} of {options.id}", where=where)
        for entry in ctx.source.entries():
            if entry.is_dir:
                yield Planned(action="leave", what=display(entry.path), detail="an empty folder")
                continue
            ctx.location(
                Location(uri=where, path=entry.path, size=entry.size, sha256=entry.sha256, verified_by="")
            )
            yield Planned(
                action="send", what=display(entry.path), where=where, detail=f"{entry.size:,} bytes"
            )

    async def run(self, ctx: StepContext, options: OcflOptions) -> StepResult:
        """Store the files. Twice leaves one version."""
        if not ctx.source.files:  # a step before has made nothing
            return Done(detail="nothing to store")
        return await _Storing(ctx, options).run()

    async def verify(self, ctx: VerifyContext, options: OcflOptions) -> None:
        """Read the whole object again: every version by its own digests, and what was recorded by SHA-256."""
        await in_thread(lambda stop: _verify(ctx, options, stop))


class _Storing:
    """One try of one ocfl step."""

    def __init__(self, ctx: StepContext, options: OcflOptions) -> None:
        self._ctx, self._options = ctx, options
        self._name = options.mount or options.root
        self._done = 0

    async def _ask(self, work: Callable[[Stop], Any]) -> Any:
        return await mounted.run(work, self._name, max(self._options.timeout, 1.0))

    async def _work(self, work: Callable[[Stop], Any]) -> Any:
        """Run what reads and writes content, which may take long."""
        stall_s = max(_SYNC_LEAST_S, 10 * self._options.timeout)
        try:
            return await mounted.run(
                lambda stop: mounted.with_umask(lambda: work(stop), UMASK), self._name, stall_s
            )
        except PermissionError as error:
            hint = mounted.sandboxed(self._options.root) or "Give the daemon write access to all of the root"
            where = str(error.filename or self._options.root)
            raise TargetError("the daemon may not write there", where=where, hint=hint) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise TargetError(
                f"this file system has no locks ({error.strerror}), so that two could write one object",
                where=self._options.root,
                hint="Mount it with locks (NFS: without nolock, with lockd running)",
            ) from error

    async def _part(self, write: Write, work: Callable[[Stop], Any]) -> Any:
        """Run a part of a write; a thread that was left behind lets the object go when it wakes."""

        def body(stop: Stop) -> Any:
            try:
                found = work(stop)
                stop.check()
            except Stopped:
                write.close()
                raise
            return found

        return await self._work(body)

    async def foreseen(self) -> tuple[bytes, str]:
        """Return where the object lies or will lie, and what will be made. Raises: TargetError, ItemError."""

        def work(stop: Stop) -> tuple[bytes, str]:
            root = _opened(self._options)
            if root is None:
                root = StorageRoot(os.fsencode(self._options.root), self._options.of_new_root())
            write = Write(root, self._options, self._ctx.source, self._ctx.job_id)
            if not os.path.isdir(write.object):
                return write.object, "version v1"
            found = ObjectCheck(write.object, on_block=lambda size: stop.check()).run(())
            return write.object, f"version {found.next_version()}" if found is not None else "a version"

        found: tuple[bytes, str] = await self._ask(work)
        return found

    async def run(self) -> Done:
        """Store, read back, and record. Raises: StepError."""
        if await self._ask(lambda stop: _opened(self._options)) is None:
            await self._ctx.fence()
        root = await self._work(self._root)
        write = Write(root, self._options, self._ctx.source, self._ctx.job_id)
        write.progress = self._progress
        try:
            await self._part(write, write.build)
            await self._ctx.fence()
            await self._part(write, write.publish)
            findings = await self._part(write, write.read_back)
        finally:
            with contextlib.suppress(TargetError):  # it hangs: the thread that was left behind lets go
                await self._ask(lambda stop: write.close())
        self._record(write, [str(one) for one in findings.warnings])
        await in_thread(lambda stop: self._locations(write, stop))
        self._ctx.full(self._options.root, *await self._ask(lambda stop: disk_space.used(self._options.root)))
        return Done(detail=f"{self._options.id} {words(write.tally, write.head.head, is_new=write.is_new)}")

    def _root(self, stop: Stop) -> StorageRoot:
        found = _opened(self._options)
        if found is not None:
            return found
        try:
            return storage_root.made(os.fsencode(self._options.root), self._options.of_new_root(), stop.check)
        except NotARoot as error:
            raise _not_a_root(error, self._options) from error

    def _progress(self, size: int) -> None:
        self._done += size
        self._ctx.progress(self._done, self._ctx.source.size, "bytes")

    def _record(self, write: Write, warnings: list[str]) -> None:
        place, empty = display(write.object), write.tally.empty
        detail = f"{write.id} {words(write.tally, write.head.head, is_new=write.is_new)}, at {place}"
        if empty:
            detail += f"; {counted(empty, 'empty folder')} left out: an object holds files only"
        outcome = "warning" if empty else "success"
        checked = (
            f"OCFL {write.head.spec} object at {place}, {write.head.algorithm} of every file of its head"
        )
        if warnings:
            checked += f"; {'; '.join(warnings[:5])}"
        for kind, result, text in (
            (EventType.REPLICATION, outcome, detail),
            (EventType.FIXITY, "success", checked),
        ):
            self._ctx.event(Event(type=kind, outcome=result, detail=text, agent=AGENT))

    def _locations(self, write: Write, stop: Stop) -> None:
        how = f"{write.head.algorithm} read-back"
        for entry in self._ctx.source.entries():
            stop.check()
            if entry.is_dir:
                continue
            path = os.path.join(write.object, os.fsencode(write.content[entry.path.decode()]))
            self._ctx.location(
                Location(
                    uri=_uri(path), path=entry.path, size=entry.size, sha256=entry.sha256, verified_by=how
                )
            )


def _uri(path: bytes) -> str:
    return f"file://{quote_from_bytes(path, safe='/')}"


def _opened(options: OcflOptions) -> StorageRoot | None:
    """Open the root; None where it is empty. Blocking. Raises: TargetError, OSError."""
    if options.mount:
        mounted.see_mounted(options.mount)
    try:
        return storage_root.opened(os.fsencode(options.root))
    except NotARoot as error:
        raise _not_a_root(error, options) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TargetError(
            "the storage root is not there",
            where=options.root,
            hint="Mount it, or make an empty directory, which becomes a root; work goes on by itself",
        ) from error
    except PermissionError as error:
        hint = mounted.sandboxed(options.root) or "Give the daemon access; work goes on by itself"
        raise TargetError(
            "the daemon may not read the storage root", where=options.root, hint=hint
        ) from error


def _not_a_root(error: NotARoot, options: OcflOptions) -> TargetError:
    return TargetError(str(error), where=options.root, hint=f"{error.hint}; work goes on by itself")


def _seen(options: OcflOptions, fixed: str) -> Iterator[Said]:
    """Look at the root for `doctor`; at the part of its path that no folder's name fills in. Blocking."""
    if fixed:
        if options.mount:
            mounted.see_mounted(options.mount)
        is_there = os.path.isdir(fixed)
        yield is_there, f"{fixed}: {'storage roots lie there' if is_there else 'is not there: make it'}"
        return
    root = _opened(options)
    free = f"{size(disk_space.free(options.root))} free"
    if not os.access(options.root, os.W_OK | os.X_OK):
        hint = mounted.sandboxed(options.root) or "Give the daemon write access"
        yield False, f"{options.root}: may not be written. {hint}"
    elif root is None:
        yield (
            True,
            f"{options.root}: empty; becomes a storage root with layout {options.of_new_root().name}, {free}",
        )
    else:
        yield True, f"{options.root}: OCFL {inventory.SPEC}, layout {root.layout.name}, {free}"


# -- verifying -------------------------------------------------------------------------------


def _verify(ctx: VerifyContext, options: OcflOptions, stop: Stop) -> None:
    found: dict[bytes, str] = {}
    try:
        root = _opened(options)
        place = root.object(options.id) if root is not None else b""
    except (StepError, NoPlace, OSError) as error:
        ctx.report(False, _uri(os.fsencode(options.root)), str(error))
        place = b""
    if place:
        _verify_object(ctx, place, found, stop)
    for location in ctx.locations():
        stop.check()
        _verify_location(ctx, location, found)


def _verify_object(ctx: VerifyContext, place: bytes, found: dict[bytes, str], stop: Stop) -> None:
    """Check an object with all of its content; put the SHA-256 of each file into `found`."""

    def on_file(path: str, digests: dict[str, str]) -> None:
        found[os.path.join(place, os.fsencode(path))] = digests["sha256"]

    def on_block(size: int) -> None:
        ctx.pace.spend_in_thread(size, stop)

    check = ObjectCheck(place, on_block=on_block, also={"sha256"}, on_file=on_file)
    try:
        check.run()
    except OSError as error:
        ctx.report(False, _uri(place), f"cannot be read: {error.strerror}")
    for one in check.findings.errors:
        ctx.report(False, _uri(place), str(one))


def _verify_location(ctx: VerifyContext, location: Location, found: Mapping[bytes, str]) -> None:
    path = unquote_to_bytes(location.uri.removeprefix("file://"))
    try:
        digest = found.get(path) or files.sha256_file(path)[0]
    except (OSError, ItemError) as error:
        ctx.report(False, location.uri, f"cannot be read: {error}")
        return
    good = digest == location.sha256
    ctx.report(good, location.uri, "" if good else "differs from the receipt")
