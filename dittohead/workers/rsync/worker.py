"""rsync: deliver exactly the manifest's files to a local path or over ssh, and verify them there.

The list of files comes from the manifest (`--files-from`), so what is not in it is never sent, and
no link is followed. Locally every delivered file is read back and compared with the manifest by
SHA-256; over ssh a second pass with `--checksum` compares both sides.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from dittohead.contract.worker import Done, Inputs, Planned, StepContext, StepResult, VerifyContext, Worker
from dittohead.model.errors import ItemError, StepError, TransientError
from dittohead.model.events import Event, EventType
from dittohead.model.records import Entry, Location
from dittohead.model.text import counted, display
from dittohead.system import attributes, fail_points, files, folding
from dittohead.system.attributes import Extras, Keeps
from dittohead.system.folding import Alike
from dittohead.system.mounts import mount_of
from dittohead.system.process import Completed, environment, run
from dittohead.system.program_output import StepLog
from dittohead.system.threads import Stop, in_thread
from dittohead.workers.rsync import doctor
from dittohead.workers.rsync.local_target import SHOWN, Arrived, LocalTarget, open_folder
from dittohead.workers.rsync.options import (
    PROBE,
    SSH,
    Destination,
    RsyncOptions,
    arguments,
    fixed_part,
    paths,
    place_of,
    room_of,
)
from dittohead.workers.rsync.remote_account import AGENT, Account, way_to
from dittohead.workers.rsync.rsync_messages import (
    Differences,
    Lines,
    changed,
    failure,
    is_vague,
    listed_names,
    only_times_are_lost,
)
from dittohead.workers.rsync.sending import touched, unchanged, write_list

_BACKUP = ".dittohead-backup"
#: With the job's id in it, so that nothing in a folder can be named like it.
_PARTIAL = ".dittohead-partial-"
#: rsync itself is to notice first what it can notice.
_STALL_MORE_S = 5.0
#: How long a measure of the room on a host holds; and how long an account is left alone that allows none.
_MEASURED_S = 60.0
_NOT_ALLOWED_S = 3600.0
#: Copies `version` makes at most in parallel.
_VERSIONS = 10_000


class RsyncWorker(Worker[RsyncOptions]):
    """Delivers a folder's (or a step's) files; identical ones are left, different ones never lost."""

    name = "rsync"
    Options = RsyncOptions
    delivers = True

    def __init__(self) -> None:
        self._measured: dict[str, float] = {}  #: place on a host -> when it is measured again, monotonic

    def stage(self, options: Mapping[str, Any]) -> str:
        """Call a folder that was stored."""
        return "stored"

    def check(self, options: RsyncOptions) -> list[str]:
        """See that the programs are there."""
        needed = [PROBE] + ([SSH] if place_of(options).host else [])
        return [
            f"{probe.program} is not installed: apt-get install {probe.package}"
            for probe in needed
            if probe.version() is None
        ]

    def target(self, options: RsyncOptions) -> str:
        """Return the host, or the mount the path lies on."""
        place = place_of(options)
        if place.host:
            return place.host
        if options.require_mount:
            return options.require_mount
        point = mount_of(place.path).point
        # A path on the system's own disk: its first directory is as good a name as any.
        return point if point not in ("", "/") else "/".join(place.path.split("/")[:2])

    def room(self, options: RsyncOptions, written: Mapping[str, Any]) -> str:
        """Return the place up to where the folder's own name comes in."""
        return room_of(written, place_of(options))

    async def run(self, ctx: StepContext, options: RsyncOptions) -> StepResult:
        """Check for conflicts, deliver, verify. Twice leaves the same files at the target."""
        return await _Delivery(ctx, options, self._measured).run()

    async def plan(self, ctx: StepContext, options: RsyncOptions) -> AsyncIterator[Planned]:
        """Yield each file and where it goes; what lies there already is seen when it is delivered."""
        place = place_of(options)
        for entry in ctx.source.entries():
            if entry.is_dir:
                continue
            uri = place.uri(entry.path)
            ctx.location(
                Location(uri=uri, path=entry.path, size=entry.size, sha256=entry.sha256, verified_by="")
            )
            detail = f"{entry.size:,} bytes" if entry.size else ""
            yield Planned(action="send", what=display(entry.path), where=uri, detail=detail)
        keeps, own = options.keeps(ctx.source), ctx.source.made is None
        given = await in_thread(
            lambda stop: attributes.survey(
                os.fsencode(ctx.source.root), ctx.source.entries(), lambda entry: stop.check(), attributes=own
            )
        )
        for words in given.left(keeps):
            yield Planned(action="leave", what=words, detail="not delivered")

    async def examine(
        self, options: RsyncOptions, secret: Callable[[str], str], written: Mapping[str, Any]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Look at rsync's version, and try a delivery without writing."""
        async for said in doctor.doctor(options, written):
            yield said

    async def verify(self, ctx: VerifyContext, options: RsyncOptions) -> None:
        """Read what was delivered again: locally by SHA-256, over ssh by rsync --checksum."""
        if not place_of(options).host:
            await in_thread(lambda stop: _verify_locations(ctx, stop))
            return
        first = next(ctx.locations(), None)
        if first is None:
            return
        if ctx.source is None:
            ctx.report(False, first.uri, "cannot be compared: the folder is no longer here")
            return
        await _verify_remote(ctx, ctx.source, options, first)


class _Delivery:
    """One try of one rsync step."""

    def __init__(self, ctx: StepContext, options: RsyncOptions, measured: dict[str, float]) -> None:
        self.ctx, self.options, self.measured = ctx, options, measured
        self.wanted = place_of(options)
        self.place = self.wanted
        self.keeps = options.keeps(ctx.source)
        self.agent = f"rsync {PROBE.version() or '?'}"
        self.list = ctx.work / "files"
        self.alike = Alike()
        self.given = Extras()  #: what the list of files amounts to
        self.exists = True
        self.local = None if self.place.host else self._at(self.place)

    def _at(self, place: Destination) -> LocalTarget:
        return LocalTarget(
            place.path,
            mount=self.options.require_mount,
            stall_s=max(self.options.timeout, 1.0),
            fixed=fixed_part(self.ctx.written, place),
            umask=self.options.makes_with,
        )

    async def run(self) -> Done:
        """Deliver and verify; return what was done. Raises: StepError."""
        self.given = await in_thread(
            lambda stop: write_list(self.ctx.source, self.list, stop, self.alike.add)
        )
        if not self.given.files and not self.given.empty:  # a step before has made nothing
            return Done(detail="nothing to deliver")
        try:
            await self.prepare()
            await self.deliver()
            return await self.verify()
        finally:
            if self.local is not None:
                self.local.close()

    async def prepare(self) -> None:
        """Choose the version, refuse conflicts before anything is delivered."""
        if self.local is not None:
            await self.local.check(mkpath=self.options.mkpath, job=self.ctx.job_id)
        fail_points.point("rsync.listed")
        chosen = self.ctx.saved.get("version")
        if self.options.on_conflict == "version":
            number = int(chosen) if chosen else await self._choose_version()
            await self.ctx.save({"version": number})
            self.place = self.wanted.beside(number)
            self.local = None if self.place.host else self._at(self.place)
        elif self.options.on_conflict == "refuse":
            conflicts = await self._conflicts(self.place)
            if conflicts:
                raise _conflict(self.place, conflicts, self.ctx.job_id)

    async def _choose_version(self) -> int:
        for number in range(1, _VERSIONS):
            if not await self._conflicts(self.wanted.beside(number)):
                return number
        raise ItemError("there are too many versions", where=self.wanted.argument)

    async def _conflicts(self, place: Destination) -> list[str]:
        """Return files at the place that differ from ours under the same name; only a few of many."""
        if place.host:
            return await self._remote_conflicts(place)
        found = await self._at(place).conflicts(self.ctx.source)
        self.exists = found is not None
        return found or []

    async def _remote_conflicts(self, place: Destination) -> list[str]:
        differing: list[str] = []
        ended = await self._rsync(
            place, "--dry-run", "--existing", "--checksum", "--out-format=%i %n", on_line=changed(differing)
        )
        missing = ended.returncode in (3, 11, 12, 23) and b"No such file or directory" in ended.stderr
        if ended.returncode != 0 and not missing:
            raise await self._failure(ended, place)
        return differing

    async def deliver(self) -> None:
        """Send the files; rsync writes each under a temporary name and renames it."""
        await self.ctx.fence()
        if self.local is not None:
            await self._hold(self.local)
        await self._see_that_names_stay_apart()
        policy = {
            # A file that appeared after the check is left alone, and the second pass finds it.
            "refuse": ["--ignore-existing"],
            "version": ["--ignore-existing"],
            "backup": self._checked,
        }[self.options.on_conflict]
        if not self.wanted.host and not self.exists:
            policy = []
        progress = _Progress(self.ctx, self.given.size)
        ended = await self._rsync(
            self.place,
            *policy,
            *self._partial,
            "--info=progress2",
            "--no-inc-recursive",
            *(["--mkpath"] if self.options.mkpath and self.place.host else []),
            on_stdout=progress,
        )
        if ended.returncode != 0 and not only_times_are_lost(ended):
            raise await self._failure(ended, self.place)
        fail_points.point("rsync.delivered")

    async def _see_that_names_stay_apart(self) -> None:
        """Deliver names that may be one there before all others; no file is replaced by another of ours.

        Raises: ItemError: they are one.
        """
        groups = await in_thread(lambda stop: self.alike.groups(self.ctx.source.entries()))
        if not groups:
            return
        listed = self.ctx.work / "alike"
        listed.write_bytes(b"".join(b"./" + path + b"\0" for paths in groups for path in paths))
        mkpath = ["--mkpath"] if self.options.mkpath and self.place.host else []
        ended = await self._rsync(self.place, "--ignore-existing", *self._partial, *mkpath, listed=listed)
        if ended.returncode != 0 and not only_times_are_lost(ended):
            raise await self._failure(ended, self.place)
        one = []
        for parent, below in itertools.groupby(sorted(groups), key=lambda paths: os.path.dirname(paths[0])):
            there = Counter(map(folding.key, await self._names(parent)))
            # By count: how a file system writes accents is its own affair.
            one += [
                paths
                for paths in below
                if there and there[folding.key(os.path.basename(paths[0]))] < len(paths)
            ]
        if one:
            raise _are_one(self.place, one)

    async def _names(self, parent: bytes) -> list[bytes]:
        """Return the names in a folder there; none where they cannot be listed."""
        if self.local is not None:
            return await self.local.names(parent)
        where = os.fsencode(self.place.argument) + parent + b"/"
        ended = await run(
            [*arguments(self.options, self.place, self.keeps), "--list-only", "--8-bit-output", "--", where],
            env=self._env,
            stall_s=self.options.timeout + _STALL_MORE_S,
        )
        return listed_names(ended.stdout) if ended.returncode == 0 else []

    async def _hold(self, target: LocalTarget) -> None:
        try:
            await target.hold(mkpath=self.options.mkpath)
        except PermissionError as error:
            raise ItemError(
                f"the daemon may not write there ({error.strerror})",
                where=self.place.argument,
                hint=f"Give it write access, then: dittohead retry {self.ctx.job_id}",
            ) from error

    @property
    def _checked(self) -> list[str]:
        """The options with which whatever differs is replaced, and kept."""
        return ["--checksum", "--backup", f"--backup-dir={_BACKUP}/{self.ctx.job_id}"]

    @property
    def _partial(self) -> list[str]:
        return [f"--partial-dir={_PARTIAL}{self.ctx.job_id}"]

    async def verify(self) -> Done:
        """Compare what lies at the target with the manifest; tell what was found, and what is not there."""
        how = "sha256 read-back" if self.local else "rsync --checksum"
        found = await self._compared(how)
        # Every content is right now; where it lies need not be recorded twice.
        if found.bare:  # left by an earlier try, or there before with the same content
            await self._bring_along()
            found = await self._compared(how, record=False)
        if found.bare:
            raise self._lacks(found.bare)
        fail_points.point("rsync.verified")
        to = self.place.argument
        words = f"{counted(found.files, 'file')}, {found.size:,} bytes to {to}"
        left = [*self.given.left(self.keeps), *([f"times of {found.untimed}"] if found.untimed else [])]
        if left:
            words += f"; not delivered: {', '.join(left)}"
        for kind, outcome, detail, agent in (
            (EventType.REPLICATION, "warning" if left else "success", words, self.agent),
            (
                EventType.FIXITY,
                "success",
                f"{counted(found.files, 'file')} at {to} by {how}{self._kept()}",
                self.agent if self.place.host else "dittohead (hashlib SHA-256)",
            ),
        ):
            self.ctx.event(Event(type=kind, outcome=outcome, detail=detail, agent=agent))
        self.list.unlink(missing_ok=True)
        return Done(detail=words)

    def _kept(self) -> str:
        """Return what was compared besides the content, in words."""
        names = {"extended attributes": "xattrs", "access control lists": "acls", "hard links": "hard_links"}
        kept = [words for words, option in names.items() if getattr(self.keeps, option)]
        return f"; {', '.join(kept)} compared" if kept else ""

    async def _compared(self, how: str, *, record: bool = True) -> Arrived:
        """Return how what lies there compares. Raises: TransientError: a content is another."""

        def note(entry: Entry) -> None:
            if record:
                self._location(entry, how)

        if self.local is not None:
            found = await self._read_back(self.local, note)
        else:
            before = await in_thread(lambda stop: dict(touched(self.ctx.source, stop)))
            found = await self._second_pass()
            await in_thread(lambda stop: unchanged(self.ctx.source, before, stop))
            found.files, found.size = await in_thread(lambda stop: self._each(note))
            if record:
                await self._measure()
        return found

    async def _measure(self) -> None:
        """Report how full the file system on the host is, now and then."""
        name, now = room_of(self.ctx.written, self.place), time.monotonic()
        if self.measured.get(name, now) > now:
            return
        found = await self._account(self.place).space()
        self.measured[name] = now + (_NOT_ALLOWED_S if found is None else _MEASURED_S)
        if found is not None:
            self.ctx.full(f"{self.place.host}:{found.mount}", found.used, found.capacity)

    async def _read_back(self, target: LocalTarget, good: Callable[[Entry], None]) -> Arrived:
        found, used = await target.read_back(self.ctx.source, good, self.ctx.claimed_at, self.keeps)
        if found.wrong:
            raise self._differs(found.wrong)
        self.ctx.full(target.name, *used)
        return found

    def _location(self, entry: Entry, how: str) -> None:
        self.ctx.location(
            Location(
                uri=self.place.uri(entry.path),
                path=entry.path,
                size=entry.size,
                sha256=entry.sha256,
                verified_by=how,
            )
        )

    def _each(self, good: Callable[[Entry], None]) -> tuple[int, int]:
        count = size = 0
        for entry in self.ctx.source.entries():
            if not entry.is_dir:
                good(entry)
                count, size = count + 1, size + entry.size
        return count, size

    async def _second_pass(self) -> Arrived:
        found = Differences()
        ended = await self._rsync(self.place, "--dry-run", "--checksum", "--out-format=%i %n", on_line=found)
        if ended.returncode != 0:
            raise await self._failure(ended, self.place)
        if found.wrong:
            raise self._differs(found.wrong)
        return Arrived(bare=found.bare, untimed=found.untimed)

    async def _bring_along(self) -> None:
        """Have files of the right content get the attributes and links that they lack."""
        await self.ctx.fence()
        ended = await self._rsync(self.place, "--existing", *self._checked, *self._partial)
        if ended.returncode != 0 and not only_times_are_lost(ended):
            raise await self._failure(ended, self.place)

    def _differs(self, names: list[str]) -> StepError:
        # Damaged on the way, or written by somebody else since the check: sent or refused next time.
        return TransientError(
            f"after delivery {len(names)} files differ from the manifest: {_some(names)}",
            where=self.place.argument,
            hint="Look at the target's disk and network",
        )

    def _lacks(self, names: list[str]) -> StepError:
        return ItemError(
            f"{len(names)} files or folders lack extended attributes, access control lists or hard links "
            f"there: {_some(names)}; their content is right",
            where=self.place.argument,
            hint="See whether that file system can hold them; or take xattrs, acls and hard_links out of the "
            f"step, have the daemon read config.yaml again, then: dittohead rerun {self.ctx.job_id}",
        )

    async def _failure(self, ended: Completed, place: Destination) -> StepError:
        """Return why an rsync has failed; where its words do not say, the account there is asked."""
        way = way_to(self.options, place, f"dittohead retry {self.ctx.job_id}")
        if place.host and is_vague(ended, way):
            found = await self._account(place).why(ended, self.given.size, way)
            if found is not None:
                return found
        return failure(ended, way)

    def _account(self, place: Destination) -> Account:
        return Account(self.options, place, self._env)

    @property
    def _env(self) -> dict[str, str]:
        return {**environment(also=AGENT), **self.ctx.env}

    async def _rsync(
        self,
        place: Destination,
        *more: str,
        on_stdout: Callable[[bytes], None] | None = None,
        on_line: Callable[[str], None] | None = None,
        listed: Path | None = None,
    ) -> Completed:
        lines = Lines(on_line) if on_line else None
        into, to, fds = _into(self.local)
        given = arguments(self.options, place, self.keeps)
        try:
            ended = await run(
                [
                    *into,
                    *given,
                    *more,
                    *paths(self.ctx.source.root, listed or self.list, to or place.argument),
                ],
                env=self._env,
                # Its own --timeout sees the connection only, not a read or write that hangs.
                stall_s=self.options.timeout + _STALL_MORE_S,
                on_stdout=lines or on_stdout,
                fds=fds,
                umask=self.options.makes_with,
            )
        except TimeoutError as error:
            raise TransientError("rsync did nothing for too long", where=place.argument) from error
        if ended.stderr:
            log = StepLog(self.ctx.log_file())
            log.write(ended.stderr)
            log.close()
        return ended


def _into(target: LocalTarget | None) -> tuple[list[str], str, tuple[int, ...]]:
    """Return what has rsync write into the directory that is held, whatever stands at its path now.

    Its own process goes there: doing that for it could hang the daemon.
    """
    if target is None or target.fd < 0:
        return [], "", ()
    env = shutil.which("env") or "/usr/bin/env"
    return [env, f"--chdir=/proc/self/fd/{target.fd}"], "./", (target.fd,)


# -- comparing -------------------------------------------------------------------------------


def _verify_locations(ctx: VerifyContext, stop: Stop) -> None:
    for location in ctx.locations():
        stop.check()
        path = unquote_to_bytes(location.uri.removeprefix("file://"))
        try:
            place = os.fsdecode(path.removesuffix(b"/" + location.path))
            digest = _digest(place, location.path, lambda size: ctx.pace.spend_in_thread(size, stop))
        except (OSError, ItemError) as error:
            ctx.report(False, location.uri, f"cannot be read: {error}")
            continue
        good = digest == location.sha256
        ctx.report(good, location.uri, "" if good else "differs from the receipt")


def _digest(place: str, path: bytes, on_block: Callable[[int], None]) -> str:
    """Return the SHA-256 of a file that was delivered; no link that others have planted is followed."""
    fd = open_folder(place, place)
    try:
        with files.opened_beneath(b"/proc/self/fd/%d" % fd, path) as file:
            return files.sha256_fd(file, files.hash_buffer(), on_block)[0]
    finally:
        os.close(fd)


async def _verify_remote(ctx: VerifyContext, source: Inputs, options: RsyncOptions, first: Location) -> None:
    inner = first.uri.removeprefix("ssh://")
    host, _, whole = inner.partition("/")
    tail = quote_from_bytes(first.path, safe="/")
    place = Destination(host=host, path="/" + whole[: len(whole) - len(tail)].strip("/"))
    differing: list[str] = []
    with tempfile.TemporaryDirectory() as work:
        listed = Path(work) / "files"
        await in_thread(lambda stop: write_list(source, listed, stop))
        ended = await run(
            [
                *arguments(options, place, Keeps(folder_times=False)),
                "--dry-run",
                "--checksum",
                "--out-format=%i %n",
                *paths(source.root, listed, place.argument),
            ],
            env={**environment(also=AGENT), **ctx.env},
            on_stdout=Lines(changed(differing)),
        )
    if ended.returncode != 0:
        ctx.report(False, place.argument, ended.complaint)
    for name in differing:
        ctx.report(False, f"{place.argument}{name}", "differs from the folder or is missing")
    if ended.returncode == 0 and not differing:
        for location in ctx.locations():
            ctx.report(True, location.uri, "")


# -- reading rsync's words -------------------------------------------------------------------


class _Progress:
    """Reads `--info=progress2`: bytes so far."""

    _AMOUNT = re.compile(rb"\r?\s*([\d,]+)\s+\d+%")

    def __init__(self, ctx: StepContext, size: int) -> None:
        self._ctx, self._size = ctx, size

    def __call__(self, data: bytes) -> None:
        amounts = self._AMOUNT.findall(data)
        if amounts:
            self._ctx.progress(int(amounts[-1].replace(b",", b"")), self._size, "bytes")


def _conflict(place: Destination, names: list[str], job: str) -> ItemError:
    return ItemError(
        f"the target has other files under these names: {_some(names)}; nothing was replaced",
        where=place.argument,
        hint="Compare them; rename the folder, and move it to the inbox again; or set on_conflict: backup or "
        f"version, have the daemon read config.yaml again, then: dittohead rerun {job}",
    )


def _are_one(place: Destination, groups: list[list[bytes]]) -> ItemError:
    pairs = [" and ".join(repr(display(path)) for path in sorted(paths)) for paths in groups]
    more = "; ..." if len(pairs) > SHOWN else ""
    return ItemError(
        f"{counted(len(pairs), 'name')} would be lost: the file system there treats as one name "
        f"{'; '.join(pairs[:SHOWN])}{more}",
        where=place.argument,
        hint="Rename one of each and bring the folder again; or deliver to another file system",
    )


def _some(names: list[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more
