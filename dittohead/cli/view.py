"""What reading commands look at: the running daemon, or, where none answers, the store itself.

Where a daemon answers it has checked the configuration; only what names its root is read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dittohead.cli.base import config_path
from dittohead.cli.daemon_client import DaemonClient, segment
from dittohead.cli.terminal import err, escape
from dittohead.config.positions import read as read_yaml
from dittohead.model.errors import ConfigError
from dittohead.model.job_filter import JobFilter
from dittohead.model.shown import (
    EntryHistory,
    ShownBatch,
    ShownEntry,
    ShownFile,
    ShownJob,
    ShownSource,
    ShownStatus,
    WholeJob,
)
from dittohead.system.control_socket import state_of

if TYPE_CHECKING:
    from dittohead.config.loader import Config

#: Jobs asked for at once.
_PAGE = 1000


class View(Protocol):
    """Answers what reading commands ask, in the API's shapes."""

    def status(self) -> ShownStatus:
        """Return what runs, what waits and why."""

    def jobs(self, wanted: JobFilter, limit: int | None) -> Iterator[ShownJob]:
        """Yield jobs that fit, the latest claim first; all of them without a limit."""

    def batches(self, limit: int) -> list[ShownBatch]:
        """Return collections that were dropped, the latest first."""

    def batch(self, named: str) -> ShownBatch:
        """Return one of them. Raises: NoSuchJob."""

    def job(self, named: str) -> WholeJob:
        """Return everything about one job. Raises: NoSuchJob."""

    def files(self, job_id: str) -> Iterator[ShownFile]:
        """Yield all files of a job, and where each lies."""

    def summary(self, job_id: str) -> ShownJob:
        """Return a job in a few fields."""

    def log(self, job_id: str, step: str, start: int) -> Iterator[bytes]:
        """Yield what a step has printed, from a byte on.

        Args:
            job_id: the job's id.
            step: the step's name.
            start: offset of the first byte, from 0.

        Returns: an iterator over pieces of bytes; empty where nothing was printed.
        """

    def sources(self) -> list[ShownSource]:
        """Return all sources."""

    def entries(self, source: str, state: str, stage: str | None) -> Iterator[ShownEntry]:
        """Yield entries of a source's catalogue as JSON objects, by key.

        Args:
            source: the source's name.
            state: only entries in this state; "" for all.
            stage: only entries in this stage; "" for those without one, None for all.

        Raises: NoSuchJob: there is no such source.
        """

    def entry(self, source: str, key: str) -> EntryHistory:
        """Return one, with what became of it. Raises: NoSuchJob."""


class FromDaemon:
    """What the daemon says."""

    def __init__(self, client: DaemonClient) -> None:
        self._client = client

    def status(self) -> ShownStatus:
        found: ShownStatus = self._client.get("/api/v1/status")
        return found

    def jobs(self, wanted: JobFilter, limit: int | None) -> Iterator[ShownJob]:
        fields = asdict(wanted)
        query = {
            "q": fields["text"],
            "state": [state.value for state in wanted.states],
            "name": fields["part"],
            "since": wanted.since and wanted.since.isoformat(),
            "until": wanted.until and wanted.until.isoformat(),
            "open": "true" if wanted.open else "",
            **{key: fields[key] for key in ("pipeline", "uid", "holds", "reason", "batch")},
        }
        cursor, left = "", limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            page = self._client.get("/api/v1/jobs", **query, limit=size, cursor=cursor)
            yield from page["items"]
            left = None if left is None else left - len(page["items"])
            cursor = page["next"]
            if cursor is None:
                return

    def batches(self, limit: int) -> list[ShownBatch]:
        found: list[ShownBatch] = self._client.get("/api/v1/batches", limit=limit)["items"]
        return found

    def batch(self, named: str) -> ShownBatch:
        found: ShownBatch = self._client.get(f"/api/v1/batches/{segment(named)}")
        return found

    def job(self, named: str) -> WholeJob:
        found: WholeJob = self._client.get(f"/api/v1/jobs/{segment(named)}")
        return found

    def files(self, job_id: str) -> Iterator[ShownFile]:
        cursor: str | None = ""
        while cursor is not None:
            page = self._client.get(f"/api/v1/jobs/{segment(job_id)}/files", limit=_PAGE, cursor=cursor)
            yield from page["items"]
            cursor = page["next"]

    def summary(self, job_id: str) -> ShownJob:
        return next(iter(self.jobs(JobFilter(text=job_id), 1)))

    def log(self, job_id: str, step: str, start: int) -> Iterator[bytes]:
        return self._client.log(job_id, step, start)

    def sources(self) -> list[ShownSource]:
        found: list[ShownSource] = self._client.get("/api/v1/sources")["items"]
        return found

    def entries(self, source: str, state: str, stage: str | None) -> Iterator[ShownEntry]:
        cursor: str | None = ""
        asked = f"?stage={stage}" if stage == "" else ""  # an empty one is a question too
        while cursor is not None:
            path = f"/api/v1/sources/{segment(source)}/entries{asked}"
            page = self._client.get(path, state=state, stage=stage, limit=_PAGE, cursor=cursor)
            yield from page["items"]
            cursor = page["next"]

    def entry(self, source: str, key: str) -> EntryHistory:
        path = f"/api/v1/sources/{segment(source)}/entries/{segment(key)}"
        found: EntryHistory = self._client.get(path)
        return found


@dataclass
class NamedRoot:
    """A root, and the configuration that names it."""

    root: Path
    path: Path | None  #: the configuration's; None: only the root is known
    sqlite: bool = True  #: the store lies in the root
    digest: str = ""  #: of the configuration; "" where it is not YAML

    @cached_property
    def config(self) -> Config | None:
        """The configuration, checked; None where it has a mistake, which is said.

        Who wants to know what goes on is not to be blind for it.
        """
        if self.path is None:
            return None
        from dittohead.config.loader import load

        try:
            return load(self.path, probe=False)
        except ConfigError as error:
            for problem in error.problems:
                err.print(f"[yellow]warning:[/yellow] {escape(str(problem))}")
            return None

    def client(self) -> DaemonClient | None:
        """Return the daemon that runs here; None where none does, or where this user may not ask it."""
        return DaemonClient.open(state_of(self.root), heard=self._heard)

    def _heard(self, digest: str) -> None:
        """Say what is wrong with a configuration that is not the one that the daemon has checked."""
        if digest != self.digest or not digest:
            _ = self.config


def find_place() -> NamedRoot:
    """Return the root that the configuration names, also where the configuration has a mistake.

    Raises: ConfigError: no root can be found in it.
    """
    path = config_path()
    found = root_of(path)
    if found is None:  # or none that is there: then the whole of it is to be good
        from dittohead.config.loader import load

        config = load(path, probe=False)
        found = NamedRoot(config.root, path, config.settings.store == "sqlite", config.digest)
    return found


def root_of(path: Path) -> NamedRoot | None:
    """Return the root that a configuration names, None where it cannot be made out, or is not there."""
    digest = ""
    try:
        document = read_yaml(path)
    except ConfigError:
        data = None
    else:
        data, digest = document.data, document.digest
    fields = data if isinstance(data, dict) else _plain_lines(path)
    root, store = fields.get("root"), fields.get("store", "sqlite")
    if not isinstance(root, str) or not root:
        return None
    found = (path.resolve().parent / root).absolute()
    return NamedRoot(found, path, store == "sqlite", digest) if _may_be_there(found) else None


def _may_be_there(root: Path) -> bool:
    try:
        return root.is_dir()
    except PermissionError:  # in a directory that is closed to us: what follows says so, and what helps
        return True


_LINE = re.compile(r"""(root|store):[ \t]*(?P<quote>["']?)(?P<value>[^"'#\n]+?)(?P=quote)[ \t]*(#.*)?""")


def _plain_lines(path: Path) -> dict[str, str]:
    """Return root and store where they stand on lines of their own, in a file that is not YAML."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {found[1]: found["value"] for line in lines if (found := _LINE.fullmatch(line))}


@contextmanager
def viewing(here: NamedRoot | None = None) -> Iterator[View]:
    """Look at the running daemon; where none answers, at the store.

    Args:
        here: the root, when it is known already.

    Raises: ConfigError, StoreError.
    """
    here = here or find_place()
    client = here.client()
    if client is None:
        from dittohead.cli.storeview import store_at

        with store_at(here) as view:
            yield view
        return
    try:
        yield FromDaemon(client)
    finally:
        client.close()
