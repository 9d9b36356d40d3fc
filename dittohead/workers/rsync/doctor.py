"""What `doctor` says of an rsync step: by a dry run of a delivery, with the step's very options."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from dittohead.model.errors import StepError
from dittohead.model.units import size
from dittohead.system import disk_space
from dittohead.system.attributes import Keeps
from dittohead.system.process import Completed, environment, run
from dittohead.toolkit.mounted import sandboxed
from dittohead.workers.rsync.local_target import LocalTarget
from dittohead.workers.rsync.options import (
    PROBE,
    Destination,
    RsyncOptions,
    arguments,
    fixed_part,
    paths,
    place_of,
)
from dittohead.workers.rsync.remote_account import AGENT, Account, way_to
from dittohead.workers.rsync.rsync_messages import failure, is_vague
from dittohead.workers.rsync.ssh_messages import DeliveryPlace, explained, lines_of

#: Below this rsync has holes that let anyone who may write the source or the target mislead it.
_ADVISED = (3, 5, 0)
#: How long a file system, or an rsync after its connection, may take to answer.
_ANSWER_S = 10.0
#: What rsync prints of a folder that it would have to make. Source: rsync(1), --itemize-changes.
_WOULD_MAKE = b"cd+++++++++ ./"

Said = tuple[bool, str]


async def doctor(options: RsyncOptions, written: Mapping[str, Any]) -> AsyncIterator[Said]:
    """Yield (good, statement) for rsync itself, and for the part of the target that no folder's name makes.

    Args:
        written: the options as config.yaml has them, with their placeholders.
    """
    version = PROBE.version()
    if version is None:
        yield False, "rsync is not installed: apt-get install rsync"
        return
    numbers = tuple(int(part) for part in version.split(".")[:3])
    known = "" if numbers >= _ADVISED else "; 3.5.0 closes holes in all before it: update it when you can"
    yield True, f"rsync {version}{known}"
    place = place_of(options)
    examination = _Examination(options, place, fixed_part(written, place))
    async for said in examination.at_host() if place.host else examination.at_path():
        yield said


class _Examination:
    """Finds out about where a step delivers.

    Args:
        place: with stand-ins for what a folder's name fills in.
        fixed: the beginning of its path that config.yaml gives.
    """

    def __init__(self, options: RsyncOptions, place: Destination, fixed: str) -> None:
        self.options, self.place = options, place
        # A delivery makes the last part of its path by itself.
        self.makes_last = fixed == place.path
        self.fixed = fixed
        self.written_into = fixed in (place.path, os.path.dirname(place.path))

    async def at_path(self) -> AsyncIterator[Said]:
        mount = self.options.require_mount
        target = LocalTarget(self.place.path, mount=mount, stall_s=_ANSWER_S)
        found = await target.run(lambda stop: list(self._seen(mount)))
        for said in found:
            yield said
        if all(good for good, _ in found):
            async for good, message in self._tried():
                if not good:  # else it is all said
                    yield good, message

    def _seen(self, mount: str | None) -> Iterator[Said]:
        """Look at a local path. Blocking."""
        if mount and not os.path.ismount(mount):
            yield False, f"{mount} is not mounted"
        base = self.fixed
        if self.makes_last and not os.path.isdir(base):
            base = os.path.dirname(base)
        missing = not os.path.isdir(base)
        if missing and not self.options.mkpath:
            yield False, self._missing(base)
            return
        while not os.path.isdir(base):
            base = os.path.dirname(base)
        status = os.statvfs(base)
        free = f"{size(disk_space.free(base))} free"
        if status.f_flag & os.ST_RDONLY:
            yield False, f"{base}: read-only for the daemon. {sandboxed(base) or 'Mount it for writing'}"
        elif os.access(base, os.W_OK | os.X_OK):
            yield True, f"{base}: writable, {free}"
        elif (self.written_into or missing) or not os.access(base, os.X_OK):
            yield False, f"{base}: may not be written. {sandboxed(base) or 'Give the daemon write access'}"
        else:
            yield True, f"{base}: can be passed; what lies in it is written, {free}"

    def _missing(self, path: str) -> str:
        return f"{self._at(path)} does not exist. Check its name; or make it; or set mkpath: true"

    def _at(self, path: str) -> str:
        return f"{self.place.host}:{path}" if self.place.host else path

    async def at_host(self) -> AsyncIterator[Said]:
        async for good, message in self._tried():
            # A dry run writes nothing, and so does not meet what forbids it.
            if good and self.written_into and await self._account(self.fixed).may_write() is False:
                yield False, f"{self._at(self.fixed)}: the account may not write there. Give it write access"
            else:
                yield good, message

    async def _tried(self) -> AsyncIterator[Said]:
        """Deliver an empty folder, as far as a dry run goes."""
        path = self.fixed
        ended, error = await self._dry_run(path)
        if error is None and _WOULD_MAKE in ended.stdout and self.makes_last:
            path = os.path.dirname(path) or "/"
            ended, error = await self._dry_run(path)
        if error is not None:
            yield False, str(error).replace("; work goes on by itself", "")
        elif _WOULD_MAKE in ended.stdout and not self.options.mkpath:
            yield False, self._missing(path)
        else:
            yield True, f"{self._at(path)}: rsync can deliver there (tried without writing)"

    async def _dry_run(self, path: str) -> tuple[Completed, StepError | None]:
        """Return how rsync ended, and why if it has failed. Raises: StepError."""
        place = Destination(host=self.place.host, path=path)
        keeps = Keeps(xattrs=self.options.xattrs, acls=self.options.acls, hard_links=self.options.hard_links)
        with tempfile.TemporaryDirectory() as work:
            source, listed = Path(work) / "empty", Path(work) / "files"
            source.mkdir()
            listed.write_bytes(b"./\0")
            try:
                ended = await run(
                    [
                        *arguments(self.options, place, keeps),
                        "--dry-run",
                        "--out-format=%i %n",
                        *paths(source, listed, place.argument),
                    ],
                    env=environment(also=AGENT),
                    timeout_s=self.options.ssh.connect_timeout + _ANSWER_S,
                )
            except TimeoutError:
                raise StepError("rsync had no answer in time", where=place.argument) from None
        if ended.returncode == 0:
            return ended, None
        way = way_to(self.options, place, "dittohead doctor")
        return ended, await self._why(ended, way, path)

    async def _why(self, ended: Completed, way: DeliveryPlace, path: str) -> StepError:
        if not self.place.host:
            return failure(ended, way)
        # What is said about the account is so for every path there.
        of_host = dataclasses.replace(way, where=self.place.host)
        if is_vague(ended, way):
            found = await self._account(path).why(ended, 0, of_host)
            if found is not None:
                return found
        error, known = failure(ended, way), explained(lines_of(ended.stderr), of_host)
        return known if known is not None and known.what == error.what else error

    def _account(self, path: str) -> Account:
        place = Destination(host=self.place.host, path=path)
        return Account(self.options, place, environment(also=AGENT))
