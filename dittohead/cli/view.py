"""What reading commands look at: the running daemon, or, where none answers, the store itself."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from dittohead import listing, live, lock, queries, shown
from dittohead.cli.base import config_path, err, escape, load_config, reading_at
from dittohead.cli.door import Door, segment
from dittohead.config import Config
from dittohead.context import JobFiles
from dittohead.errors import ConfigError, StoreError
from dittohead.model import JobId, display
from dittohead.nobodys import DEFAULT
from dittohead.stations import Stations
from dittohead.store import Store, damage
from dittohead.store import jobs as job_store
from dittohead.store.search import Cursor, Wanted, find
from dittohead.yamlmap import read as read_yaml

#: Jobs asked for at once.
_PAGE = 1000

#: Folders of the inbox that are named.
_INBOX = 1000

#: Damaged rows of the store that are named.
_DAMAGED = 50

#: Bytes of a log that are read at once.
_PIECE = 1 << 16


class View(Protocol):
    """Answers what reading commands ask, in the API's shapes."""

    def status(self) -> dict[str, Any]:
        """Return what runs, what waits and why."""

    def jobs(self, wanted: Wanted, limit: int | None) -> Iterator[dict[str, Any]]:
        """Yield jobs that fit, the latest claim first; all of them without a limit."""

    def batches(self, limit: int) -> list[dict[str, Any]]:
        """Return collections that were dropped, the latest first."""

    def batch(self, named: str) -> dict[str, Any]:
        """Return one of them. Raises: NoSuchJob."""

    def job(self, named: str) -> dict[str, Any]:
        """Return everything about one job. Raises: NoSuchJob."""

    def files(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Yield all files of a job, and where each lies."""

    def summary(self, job_id: str) -> dict[str, Any]:
        """Return a job in a few fields."""

    def log(self, job_id: str, step: str, start: int) -> Iterator[bytes]:
        """Yield what a step has printed, from a byte on."""

    def sources(self) -> list[dict[str, Any]]:
        """Return all sources."""


class FromDaemon:
    """What the daemon says."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self._door.get("/api/v1/status")
        return found

    def jobs(self, wanted: Wanted, limit: int | None) -> Iterator[dict[str, Any]]:
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
            page = self._door.get("/api/v1/jobs", **query, limit=size, cursor=cursor)
            yield from page["items"]
            left = None if left is None else left - len(page["items"])
            cursor = page["next"]
            if cursor is None:
                return

    def batches(self, limit: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._door.get("/api/v1/batches", limit=limit)["items"]
        return found

    def batch(self, named: str) -> dict[str, Any]:
        found: dict[str, Any] = self._door.get(f"/api/v1/batches/{segment(named)}")
        return found

    def job(self, named: str) -> dict[str, Any]:
        found: dict[str, Any] = self._door.get(f"/api/v1/jobs/{segment(named)}")
        return found

    def files(self, job_id: str) -> Iterator[dict[str, Any]]:
        cursor: str | None = ""
        while cursor is not None:
            page = self._door.get(f"/api/v1/jobs/{segment(job_id)}/files", limit=_PAGE, cursor=cursor)
            yield from page["items"]
            cursor = page["next"]

    def summary(self, job_id: str) -> dict[str, Any]:
        return next(iter(self.jobs(Wanted(text=job_id), 1)))

    def log(self, job_id: str, step: str, start: int) -> Iterator[bytes]:
        return self._door.log(job_id, step, start)

    def sources(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._door.get("/api/v1/sources")["items"]
        return found


class FromStore:
    """What the store says; for nobody answers."""

    def __init__(self, store: Store, stations: Stations, config: Config | None) -> None:
        self._store, self._stations, self._config = store, stations, config

    def status(self) -> dict[str, Any]:
        running = lock.is_held(self._stations.state)
        found = self._store.run(queries.overview)
        rules = self._config.settings.notify if self._config is not None else ()
        return {
            "running_daemon": running,
            "root": str(self._stations.root),
            **found,
            "disabled_receivers": shown.receivers(found["disabled_receivers"], rules),
            "live": live.read(self._stations.state) if running else self._damaged(),
            "inbox": self._inbox(),
        }

    def _damaged(self) -> dict[str, Any]:
        """Return the damaged rows as the daemon would; nothing where there are none."""
        found = [row.as_dict() for row in itertools.islice(self._store.run(damage.listed), _DAMAGED)]
        return {"damaged_rows": found} if found else {}

    def _inbox(self) -> list[str]:
        try:
            return [display(arrival.folder) for arrival in self._stations.scan().arrivals[:_INBOX]]
        except FileNotFoundError:  # the daemon's own words about it follow
            return []

    def jobs(self, wanted: Wanted, limit: int | None) -> Iterator[dict[str, Any]]:
        after: Cursor | None = None
        left = limit
        while left is None or left > 0:
            page = self._store.run(
                find, wanted, after=after, limit=_PAGE if left is None else min(left, _PAGE)
            )
            yield from map(queries.summary, page.jobs)
            left = None if left is None else left - len(page.jobs)
            after = page.following
            if after is None:
                return

    def batches(self, limit: int) -> list[dict[str, Any]]:
        return self._store.run(queries.batches, limit)

    def batch(self, named: str) -> dict[str, Any]:
        return self._store.run(queries.batch, named)

    def job(self, named: str) -> dict[str, Any]:
        found = self._store.run(queries.resolve, named)
        return self._store.run(shown.job, self._stations, found)

    def files(self, job_id: str) -> Iterator[dict[str, Any]]:
        found = self._store.run(job_store.get, JobId(job_id))
        steps = self._store.run(job_store.steps_of, found.id)
        cursor: str | None = ""
        while cursor is not None:
            page = listing.page(self._stations, found, steps, cursor, _PAGE)
            yield from map(listing.fields, page.files)
            cursor = page.following

    def summary(self, job_id: str) -> dict[str, Any]:
        return queries.summary(self._store.run(job_store.get, JobId(job_id)))

    def log(self, job_id: str, step: str, start: int) -> Iterator[bytes]:
        found = self._store.run(job_store.get, JobId(job_id))
        path = JobFiles(self._stations, found).log(step)
        if not path.exists():
            return
        with open(path, "rb") as file:
            file.seek(start)
            while piece := file.read(_PIECE):
                yield piece

    def sources(self) -> list[dict[str, Any]]:
        now = live.read(self._stations.state) if lock.is_held(self._stations.state) else {}
        settings = self._config.sources if self._config else ()
        return self._store.run(shown.sources, settings, now.get("sources", {}))


@dataclass(frozen=True)
class Place:
    """A root, and its configuration where that can be read."""

    root: Path
    config: Config | None
    sqlite: bool = True


def find_place() -> Place:
    """Return the root that the configuration names, also where the configuration has a mistake.

    The mistake is said; who wants to know what goes on is not to be blind for it.
    Raises: ConfigError: no root can be found in it.
    """
    try:
        config = load_config()
    except ConfigError as error:
        found = root_of(config_path())
        if found is None:
            raise
        for problem in error.problems:
            err.print(f"[yellow]warning:[/yellow] {escape(str(problem))}")
        return found
    return Place(config.root, config, config.settings.store == "sqlite")


def root_of(path: Path) -> Place | None:
    """Return the root of a configuration with mistakes, None where it cannot be made out."""
    try:
        data = read_yaml(path).data
    except ConfigError:
        data = None
    fields = data if isinstance(data, dict) else _plain_lines(path)
    root, store = fields.get("root"), fields.get("store", "sqlite")
    if not isinstance(root, str) or not root:
        return None
    found = (path.resolve().parent / root).absolute()
    return Place(found, None, store == "sqlite") if found.is_dir() else None


_LINE = re.compile(r"""(root|store):[ \t]*(?P<quote>["']?)(?P<value>[^"'#\n]+?)(?P=quote)[ \t]*(#.*)?""")


def _plain_lines(path: Path) -> dict[str, str]:
    """Return root and store where they stand on lines of their own, in a file that is no YAML."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {found[1]: found["value"] for line in lines if (found := _LINE.fullmatch(line))}


@contextmanager
def viewing(here: Place | None = None) -> Iterator[View]:
    """Look at the running daemon; where none answers, at the store.

    Args:
        here: the root, when it is known already.

    Raises: ConfigError, StoreError.
    """
    here = here or find_place()
    ignore = here.config.settings.watch.ignore if here.config else (DEFAULT,)
    stations = Stations(here.root, ignore)
    door = Door.open(stations.state)
    if door is not None:
        try:
            yield FromDaemon(door)
        finally:
            door.close()
        return
    if here.config is None and not here.sqlite:
        raise StoreError(
            "no daemon runs, and the configuration has mistakes", hint="Correct them: dittohead check"
        )
    with reading_at(here.root, here.config) as store:
        yield FromStore(store, stations, here.config)
