"""What reading commands find in the store itself, where no daemon answers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from dittohead.admin import views
from dittohead.cli import advice
from dittohead.cli.open_config import reading_at
from dittohead.cli.view import NamedRoot
from dittohead.config.loader import Config, SourceSetting
from dittohead.engine import live_status
from dittohead.folders import listing
from dittohead.folders.job_files import JobFiles
from dittohead.folders.stations import Stations
from dittohead.model.errors import NoSuchJob, StoreError
from dittohead.model.job_filter import JobFilter
from dittohead.model.records import JobId
from dittohead.model.shown import (
    EntryHistory,
    LiveStatus,
    ShownBatch,
    ShownEntry,
    ShownFile,
    ShownJob,
    ShownSource,
    ShownStatus,
    WholeJob,
)
from dittohead.model.text import display
from dittohead.store import Store, damage, queries
from dittohead.store import jobs as job_store
from dittohead.store.search import Cursor, find
from dittohead.system import lock
from dittohead.system.ignored_names import DEFAULT

#: Jobs asked for at once.
_PAGE = 1000

#: Entries of a source's catalogue asked for at once.
_ENTRIES = 5000

#: Folders of the inbox that are named.
_INBOX = 1000

#: Damaged rows of the store that are named.
_DAMAGED = 50

#: Bytes of a log that are read at once.
_PIECE = 1 << 16


class FromStore:
    """What the store says; for nobody answers."""

    def __init__(self, store: Store, stations: Stations, config: Config | None) -> None:
        self._store, self._stations, self._config = store, stations, config

    def status(self) -> ShownStatus:
        running = lock.is_held(self._stations.state)
        found = self._store.run(queries.overview)
        rules = self._config.settings.notify if self._config is not None else ()
        return {
            "running_daemon": running,
            "root": str(self._stations.root),
            **found,
            "disabled_receivers": views.receivers(found["disabled_receivers"], rules),
            "live": live_status.read(self._stations.state) if running else self._damaged(),
            "inbox": self._inbox(),
        }

    def _damaged(self) -> LiveStatus:
        """Return the damaged rows as the daemon would; nothing where there are none."""
        found = [row.as_dict() for row in itertools.islice(self._store.run(damage.listed), _DAMAGED)]
        return {"damaged_rows": found} if found else {}

    def _inbox(self) -> list[str]:
        try:
            return [display(arrival.folder) for arrival in self._stations.scan().arrivals[:_INBOX]]
        except FileNotFoundError:  # the daemon's own words about it follow
            return []

    def jobs(self, wanted: JobFilter, limit: int | None) -> Iterator[ShownJob]:
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

    def batches(self, limit: int) -> list[ShownBatch]:
        return self._store.run(queries.batches, limit)

    def batch(self, named: str) -> ShownBatch:
        return self._store.run(queries.batch, named)

    def job(self, named: str) -> WholeJob:
        found = self._store.run(queries.resolve, named)
        return self._store.run(views.job, self._stations, found)

    def files(self, job_id: str) -> Iterator[ShownFile]:
        found = self._store.run(job_store.get, JobId(job_id))
        steps = self._store.run(job_store.steps_of, found.id)
        cursor: str | None = ""
        while cursor is not None:
            page = listing.page(self._stations, found, steps, cursor, _PAGE)
            yield from map(listing.fields, page.files)
            cursor = page.following

    def summary(self, job_id: str) -> ShownJob:
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

    def sources(self) -> list[ShownSource]:
        now: LiveStatus = live_status.read(self._stations.state) if lock.is_held(self._stations.state) else {}
        settings = self._config.sources if self._config else ()
        return self._store.run(views.sources, settings, now.get("sources", {}))

    def _setting(self, name: str) -> SourceSetting:
        setting = self._config.source(name) if self._config else None
        if setting is not None:
            return setting
        raise NoSuchJob(f'there is no source "{name}"; see: dittohead source list')

    def entries(self, source: str, state: str, stage: str | None) -> Iterator[ShownEntry]:
        setting, after = self._setting(source), ""
        while page := self._store.run(
            views.entries, setting, state=state, stage=stage, after=after, limit=_ENTRIES
        ):
            yield from page
            after = page[-1]["key"]

    def entry(self, source: str, key: str) -> EntryHistory:
        found = self._store.run(views.entry, self._setting(source), key)
        if found is None:
            raise NoSuchJob(f'there is no "{key}" in the catalogue of {source}')
        return found


@contextmanager
def store_at(here: NamedRoot) -> Iterator[FromStore]:
    """Look at the store of a root.

    Raises: StoreError: there is none yet, it cannot be read, or only a good configuration says where it is.
    """
    config = here.config
    if config is None and not here.sqlite:
        hint = f"Correct them: {advice.command('check')}"
        raise StoreError("no daemon runs, and the configuration has mistakes", hint=hint)
    ignore = config.settings.watch.ignore if config is not None else (DEFAULT,)
    with reading_at(here.root, config) as store:
        takes_file = config.takes_file if config is not None else lambda name: False
        yield FromStore(store, Stations(here.root, ignore, takes_file), config)
