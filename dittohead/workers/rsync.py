"""rsync: deliver exactly the manifest's files to a local path or over ssh, and verify them there.

The list of files comes from the manifest (`--files-from`), so what is not in it is never sent, and
no link is followed. Locally every delivered file is read back and compared with the manifest by
SHA-256; over ssh a second pass with `--checksum` compares both sides.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pydantic import Field, field_validator

from dittohead import faults, files, manifest
from dittohead.errors import ItemError, StepError, TransientError
from dittohead.local_target import SHOWN, LocalTarget
from dittohead.model import Entry, Event, EventType, Location, counted, display
from dittohead.mounts import mount_of
from dittohead.options import Duration, Size
from dittohead.printed import StepLog
from dittohead.process import Completed, Probe, environment, run
from dittohead.rsync_words import Lines, changed, failure
from dittohead.threads import Stop, in_thread
from dittohead.worker import Done, Inputs, Options, Planned, StepContext, StepResult, VerifyContext, Worker

PROBE = Probe(program="rsync", package="rsync")
SSH = Probe(program="ssh", package="openssh-client", version_argv=("-V",), version_pattern=r"OpenSSH_(\S+)")

#: Below this rsync has holes that let whoever may write the source or the target mislead it.
_ADVISED = (3, 5, 0)

_HOST = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?(?P<host>\[[0-9A-Fa-f:]+\]|[A-Za-z0-9][\w.-]*):"
)
_BACKUP = ".dittohead-backup"
#: With the job's id in it, so that nothing in a folder can be called like it.
_PARTIAL = ".dittohead-partial-"
#: rsync itself is to notice first what it can notice.
_STALL_MORE_S = 5.0
#: How long `doctor` waits for a file system.
_DOCTOR_S = 10.0
#: The agent that holds keys is for ssh alone; no other program is told of it.
_AGENT = ("SSH_AUTH_SOCK",)
#: Copies `version` makes at most beside each other.
_VERSIONS = 10_000


class SshOptions(Options):
    """How to reach a host. The host's key is always checked, and no password is ever asked for."""

    port: int | None = Field(None, ge=1, le=65535, description="The port; ssh's own default otherwise.")
    identity: str | None = Field(None, description="The private key's file.")
    known_hosts: str | None = Field(None, description="The file with the hosts' keys.")
    connect_timeout: Duration = Field(15.0, description="How long to wait for the connection.")


class RsyncOptions(Options):
    """What an rsync step may be told."""

    to: str = Field(
        description="Absolute path, `host:/path` or `user@host:/path`; the folder's content goes into it."
    )
    on_conflict: Literal["refuse", "backup", "version"] = Field(
        "refuse",
        description="When the target has a different file of the same name: deliver nothing; move the "
        "old file to .dittohead-backup/JOB/ there; or deliver everything beside it as PATH.v2.",
    )
    chmod: str | None = Field(None, description="rsync's --chmod, such as `D2775,F664`.")
    chown: str | None = Field(None, description="rsync's --chown, `user:group`.")
    perms: bool = Field(False, description="Keep the modes of the files.")
    mkpath: bool = Field(
        False, description="Make all missing parts of the path; else only its last one is made."
    )
    require_mount: str | None = Field(
        None, description="A local path that must be a mount point; else the target is taken to be down."
    )
    bwlimit: Size | None = Field(None, description="Bytes a second at most.")
    timeout: Duration = Field(60.0, description="How long nothing may come through before it is an error.")
    ssh: SshOptions = Field(
        default_factory=lambda: SshOptions.model_validate({}), description="How to reach the host."
    )
    fsync: bool = Field(
        False,
        description="Over ssh: have the far side flush each file to its disk before it counts as delivered; "
        "rsync 3.2.4 or newer is wanted at both ends. A local target is always flushed.",
    )
    rsync_path: str | None = Field(None, description="The rsync program on the far side.")

    @field_validator("to")
    @classmethod
    def _to(cls, value: str) -> str:
        if "::" in value.split("/")[0] or value.startswith("rsync://"):
            raise ValueError("rsync daemons cannot be used; write host:/path for ssh")
        host = _HOST.match(value)
        path = value[host.end() :] if host else value
        if not path.startswith("/"):
            raise ValueError("an absolute path, or host:/absolute/path, is wanted")
        return value


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a delivery goes."""

    host: str  #: "user@host"; "" for a local path
    path: str  #: absolute, without a final slash

    @property
    def argument(self) -> str:
        return f"{self.host}:{self.path}/" if self.host else f"{self.path}/"

    def beside(self, number: int) -> _Place:
        return self if number == 1 else _Place(host=self.host, path=f"{self.path}.v{number}")

    def uri(self, path: bytes) -> str:
        whole = quote_from_bytes(os.fsencode(self.path) + b"/" + path, safe="/")
        return f"ssh://{self.host}{whole}" if self.host else f"file://{whole}"


def _place(options: RsyncOptions) -> _Place:
    host = _HOST.match(options.to)
    path = options.to[host.end() :] if host else options.to
    return _Place(host=host[0][:-1] if host else "", path="/" + path.strip("/"))


class RsyncWorker(Worker[RsyncOptions]):
    """Delivers a folder's (or a step's) files; identical ones are left, different ones never lost."""

    name = "rsync"
    Options = RsyncOptions

    def check(self, options: RsyncOptions) -> list[str]:
        """See that the programs are there."""
        needed = [PROBE] + ([SSH] if _place(options).host else [])
        return [
            f"{probe.program} is not installed: apt-get install {probe.package}"
            for probe in needed
            if probe.version() is None
        ]

    def target(self, options: RsyncOptions) -> str:
        """Return the host, or the mount the path lies on."""
        place = _place(options)
        if place.host:
            return place.host
        if options.require_mount:
            return options.require_mount
        point = mount_of(place.path).point
        # A path on the system's own disk: its first directory is as good a name as any.
        return point if point not in ("", "/") else "/".join(place.path.split("/")[:2])

    async def run(self, ctx: StepContext, options: RsyncOptions) -> StepResult:
        """Check for conflicts, deliver, verify. Twice leaves the same files at the target."""
        delivery = _Delivery(ctx, options)
        await delivery.prepare()
        await delivery.deliver()
        count = await delivery.verify()
        return Done(
            detail=f"{counted(count, 'file')}, {ctx.source.size:,} bytes to {delivery.place.argument}"
        )

    async def plan(self, ctx: StepContext, options: RsyncOptions) -> AsyncIterator[Planned]:
        """Yield each file and where it goes; what lies there already is seen when it is delivered."""
        place = _place(options)
        for entry in ctx.source.entries():
            if entry.is_dir:
                continue
            uri = place.uri(entry.path)
            ctx.location(
                Location(uri=uri, path=entry.path, size=entry.size, sha256=entry.sha256, verified_by="")
            )
            detail = f"{entry.size:,} bytes" if entry.size else ""
            yield Planned(action="send", what=display(entry.path), where=uri, detail=detail)

    async def doctor(
        self, options: RsyncOptions, secret: Callable[[str], str]
    ) -> AsyncIterator[tuple[bool, str]]:
        """Look at rsync's version and at the target."""
        version = PROBE.version()
        if version is None:
            yield False, "rsync is not installed: apt-get install rsync"
            return
        numbers = tuple(int(part) for part in version.split(".")[:3])
        known = "" if numbers >= _ADVISED else "; 3.5.0 closes holes in all before it: update it when you can"
        yield True, f"rsync {version}{known}"
        place = _place(options)
        if place.host:
            ended = await run(
                [SSH.path(), *_ssh_arguments(options.ssh), place.host, "true"],
                env=environment(also=_AGENT),
                timeout_s=options.ssh.connect_timeout + 10,
            )
            good = ended.returncode == 0
            yield good, f"{place.host}: " + ("reached by ssh" if good else ended.complaint)
            return
        target = LocalTarget(place.path, mount=options.require_mount, stall_s=_DOCTOR_S)
        for good, said in await target.look(lambda stop: list(_look_at(place.path, options.require_mount))):
            yield good, said

    async def verify(self, ctx: VerifyContext, options: RsyncOptions) -> None:
        """Read what was delivered again: locally by SHA-256, over ssh by rsync --checksum."""
        if not _place(options).host:
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

    def __init__(self, ctx: StepContext, options: RsyncOptions) -> None:
        self.ctx, self.options = ctx, options
        self.wanted = _place(options)
        self.place = self.wanted
        self.agent = f"rsync {PROBE.version() or '?'}"
        self.list = ctx.work / "files"
        self.exists = True
        self.local = None if self.place.host else self._at(self.place)

    def _at(self, place: _Place) -> LocalTarget:
        return LocalTarget(
            place.path, mount=self.options.require_mount, stall_s=max(self.options.timeout, 1.0)
        )

    async def prepare(self) -> None:
        """Write the list of files, choose the version, refuse conflicts before anything is delivered."""
        await in_thread(lambda stop: _write_list(self.ctx.source, self.list))
        if self.local is not None:
            await self.local.check(mkpath=self.options.mkpath, job=self.ctx.job_id)
        faults.point("rsync.listed")
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

    async def _conflicts(self, place: _Place) -> list[str]:
        """Return files at the place that differ from ours under the same name; only a few of many."""
        if place.host:
            return await self._remote_conflicts(place)
        found = await self._at(place).conflicts(self.ctx.source)
        self.exists = found is not None
        return found or []

    async def _remote_conflicts(self, place: _Place) -> list[str]:
        differing: list[str] = []
        ended = await self._rsync(
            place, "--dry-run", "--existing", "--checksum", "--out-format=%i %n", on_line=changed(differing)
        )
        missing = ended.returncode in (3, 11, 12, 23) and b"No such file or directory" in ended.stderr
        if ended.returncode != 0 and not missing:
            raise self._failure(ended, place)
        return differing

    async def deliver(self) -> None:
        """Send the files; rsync writes each under a temporary name and renames it."""
        await self.ctx.fence()
        policy = {
            # A file that appeared after the check is left alone, and the second pass finds it.
            "refuse": ["--ignore-existing"],
            "version": ["--ignore-existing"],
            "backup": ["--checksum", "--backup", f"--backup-dir={_BACKUP}/{self.ctx.job_id}"],
        }[self.options.on_conflict]
        if not self.wanted.host and not self.exists:
            policy = []
        progress = _Progress(self.ctx)
        ended = await self._rsync(
            self.place,
            *policy,
            f"--partial-dir={_PARTIAL}{self.ctx.job_id}",
            "--info=progress2",
            "--no-inc-recursive",
            *(["--mkpath"] if self.options.mkpath else []),
            on_stdout=progress,
        )
        if ended.returncode != 0:
            raise self._failure(ended, self.place)
        faults.point("rsync.delivered")
        self.ctx.event(
            Event(
                type=EventType.REPLICATION,
                outcome="success",
                detail=f"{counted(self.ctx.source.files, 'file')} to {self.place.argument}",
                agent=self.agent,
            )
        )

    async def verify(self) -> int:
        """Compare what lies at the target with the manifest; return the number of files."""
        how = "sha256 read-back" if self.local else "rsync --checksum"
        if self.local is not None:
            count = await self._read_back(self.local)
        else:
            touched = await in_thread(lambda stop: dict(_touched(self.ctx.source, stop)))
            await self._second_pass()
            await in_thread(lambda stop: _unchanged(self.ctx.source, touched, stop))
            count = await in_thread(lambda stop: self._record(how))
        faults.point("rsync.verified")
        self.ctx.event(
            Event(
                type=EventType.FIXITY,
                outcome="success",
                detail=f"{counted(count, 'file')} at {self.place.argument} by {how}",
                agent=self.agent if self.place.host else "dittohead (hashlib SHA-256)",
            )
        )
        self.list.unlink(missing_ok=True)
        return count

    async def _read_back(self, target: LocalTarget) -> int:
        wrong, status = await target.read_back(self.ctx.source, self._location, self.ctx.claimed_at)
        if wrong:
            raise self._differs(wrong)
        used = 1 - status.f_bavail / max(status.f_blocks, 1)
        self.ctx.full(target.name, used, status.f_blocks * status.f_frsize)
        return self.ctx.source.files

    def _location(self, entry: Entry, how: str = "sha256 read-back") -> None:
        self.ctx.location(
            Location(
                uri=self.place.uri(entry.path),
                path=entry.path,
                size=entry.size,
                sha256=entry.sha256,
                verified_by=how,
            )
        )

    def _record(self, how: str) -> int:
        for entry in self.ctx.source.entries():
            if not entry.is_dir:
                self._location(entry, how)
        return self.ctx.source.files

    async def _second_pass(self) -> None:
        differing: list[str] = []
        ended = await self._rsync(
            self.place, "--dry-run", "--checksum", "--out-format=%i %n", on_line=changed(differing)
        )
        if ended.returncode != 0:
            raise self._failure(ended, self.place)
        if differing:
            raise self._differs(differing)

    def _differs(self, names: list[str]) -> StepError:
        # Damaged on the way, or written by somebody else since the check: sent or refused next time.
        return TransientError(
            f"after delivery {len(names)} files differ from the manifest: {_some(names)}",
            where=self.place.argument,
            hint="Look at the target's disk and network",
        )

    def _failure(self, ended: Completed, place: _Place) -> StepError:
        return failure(ended, place.argument, f"dittohead retry {self.ctx.job_id}")

    async def _rsync(
        self,
        place: _Place,
        *more: str,
        on_stdout: Callable[[bytes], None] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        lines = Lines(on_line) if on_line else None
        try:
            ended = await run(
                [*_arguments(self.options, place), *more, *_paths(self.ctx.source.root, self.list, place)],
                env={**environment(also=_AGENT), **self.ctx.env},
                # Its own --timeout sees the connection only, not a read or write that hangs.
                stall_s=self.options.timeout + _STALL_MORE_S,
                on_stdout=lines or on_stdout,
            )
        except TimeoutError as error:
            raise TransientError("rsync did nothing for too long", where=place.argument) from error
        if ended.stderr:
            log = StepLog(self.ctx.log_file())
            log.write(ended.stderr)
            log.close()
        return ended


# -- arguments -------------------------------------------------------------------------------


def _arguments(options: RsyncOptions, place: _Place) -> list[str]:
    """Return rsync's options that every pass shares."""
    given = [
        PROBE.path(),
        "--times",
        "--dirs",
        "--sparse",
        "--from0",
        f"--timeout={max(int(options.timeout), 1)}",
    ]
    given += ["--perms"] if options.perms or options.chmod else []
    # Else what its owner may not read is delivered so that nobody can compare it.
    given += [f"--chmod={options.chmod or 'Du+rwx,Fu+r'}"] if not options.perms or options.chmod else []
    given += ["--owner", "--group", f"--chown={options.chown}"] if options.chown else []
    given += [f"--bwlimit={max(options.bwlimit // 1024, 1)}"] if options.bwlimit else []
    # Modes of directories are the target's business (setgid study folders), not the upload's.
    given += [] if options.perms or options.chmod else ["--no-implied-dirs", "--omit-dir-times"]
    if place.host:
        given += ["--secluded-args", "--rsh=" + shlex.join([SSH.path(), *_ssh_arguments(options.ssh)])]
        given += [f"--rsync-path={options.rsync_path}"] if options.rsync_path else []
        given += ["--fsync"] if options.fsync else []
    return given


def _paths(root: Path, listed: Path, place: _Place) -> list[str | bytes]:
    return [f"--files-from={listed}", "--", os.fsencode(root) + b"/", os.fsencode(place.argument)]


def _ssh_arguments(ssh: SshOptions) -> list[str]:
    given = [
        "-oBatchMode=yes",
        "-oStrictHostKeyChecking=yes",
        f"-oConnectTimeout={max(int(ssh.connect_timeout), 1)}",
        "-oServerAliveInterval=15",
        "-oServerAliveCountMax=4",
    ]
    given += [f"-p{ssh.port}"] if ssh.port else []
    given += [f"-i{ssh.identity}", "-oIdentitiesOnly=yes"] if ssh.identity else []
    given += [f"-oUserKnownHostsFile={ssh.known_hosts}"] if ssh.known_hosts else []
    return given


def _touched(source: Inputs, stop: Stop) -> Iterator[tuple[bytes, int]]:
    """Yield (path, ctime in ns) of the payload's files whose times are not those of the manifest."""
    for entry in source.entries():
        stop.check()
        if entry.is_dir or not entry.ctime_ns:  # what a step made is the daemon's own
            continue
        with files.opened_beneath(source.root, entry.path) as fd:
            status = os.fstat(fd)
        if (status.st_size, status.st_mtime_ns, status.st_ctime_ns) != (
            entry.size,
            entry.mtime_ns,
            entry.ctime_ns,
        ):
            yield entry.path, status.st_ctime_ns


def _unchanged(source: Inputs, before: dict[bytes, int], stop: Stop) -> None:
    """See that what was compared with the far side was what the manifest says.

    Args:
        before: what `_touched` said before the comparison.

    Raises: ItemError: a file is another; TransientError: one was touched meanwhile.
    """
    meanwhile = dict(_touched(source, stop))
    for entry in source.entries():
        if entry.path not in meanwhile:
            continue
        with files.opened_beneath(source.root, entry.path) as fd:
            digest, _ = files.sha256_fd(fd, files.hash_buffer(), lambda n: stop.check())
        if digest != entry.sha256:
            raise manifest.changed(entry.path, "changed")
        if before.get(entry.path) != meanwhile[entry.path]:
            raise TransientError("this was touched while it was delivered", where=os.fsdecode(entry.path))


def _write_list(source: Inputs, path: Path) -> None:
    with open(path, "wb") as out:
        for entry in source.entries():
            # "./": a name that begins with # or ; would be a comment. Source: rsync(1), --files-from.
            out.write(b"./" + entry.path + (b"/\0" if entry.is_dir else b"\0"))


# -- comparing -------------------------------------------------------------------------------


def _verify_locations(ctx: VerifyContext, stop: Stop) -> None:
    for location in ctx.locations():
        stop.check()
        path = unquote_to_bytes(location.uri.removeprefix("file://"))
        try:
            digest = files.sha256_file(path)[0]
        except (OSError, ItemError) as error:
            ctx.report(False, location.uri, f"cannot be read: {error}")
            continue
        good = digest == location.sha256
        ctx.report(good, location.uri, "" if good else "differs from the receipt")


async def _verify_remote(ctx: VerifyContext, source: Inputs, options: RsyncOptions, first: Location) -> None:
    inner = first.uri.removeprefix("ssh://")
    host, _, whole = inner.partition("/")
    tail = quote_from_bytes(first.path, safe="/")
    place = _Place(host=host, path="/" + whole[: len(whole) - len(tail)].strip("/"))
    differing: list[str] = []
    with tempfile.TemporaryDirectory() as work:
        listed = Path(work) / "files"
        await asyncio.to_thread(_write_list, source, listed)
        ended = await run(
            [
                *_arguments(options, place),
                "--dry-run",
                "--checksum",
                "--out-format=%i %n",
                *_paths(source.root, listed, place),
            ],
            env={**environment(also=_AGENT), **ctx.env},
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

    def __init__(self, ctx: StepContext) -> None:
        self._ctx = ctx

    def __call__(self, data: bytes) -> None:
        amounts = self._AMOUNT.findall(data)
        if amounts:
            self._ctx.progress(int(amounts[-1].replace(b",", b"")), self._ctx.source.size, "bytes")


def _conflict(place: _Place, names: list[str], job: str) -> ItemError:
    return ItemError(
        f"the target has other files under these names: {_some(names)}; nothing was replaced",
        where=place.argument,
        hint="Compare them; rename the folder, and move it to the inbox again; or set on_conflict: backup or "
        f"version, have the daemon read config.yaml again, then: dittohead rerun {job}",
    )


def _some(names: list[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more


def _look_at(path: str, mount: str | None) -> Iterator[tuple[bool, str]]:
    if mount and not os.path.ismount(mount):
        yield False, f"{mount} is not mounted"
    base = _nearest(path)
    if base == "/":
        yield False, f"{'/'.join(path.split('/')[:2])} does not exist"
        return
    good = os.access(base, os.W_OK | os.X_OK)
    free = os.statvfs(base)
    size = free.f_bavail * free.f_frsize / 1e9
    yield good, f"{base}: " + (f"writable, {size:,.1f} GB free" if good else "may not be written")


def _nearest(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path
