"""Commands for bad days: rebuild."""

from __future__ import annotations

import click

from dittohead.admin import rebuild as rebuilding
from dittohead.cli import advice
from dittohead.cli.base import DATA, with_config
from dittohead.cli.open_config import load_config
from dittohead.cli.terminal import escape, fail, out
from dittohead.config.loader import Config
from dittohead.folders.stations import Stations
from dittohead.model.errors import StoreError
from dittohead.model.text import utcnow
from dittohead.store import Store
from dittohead.store.connect import open_store
from dittohead.system import lock, log


@click.command()
@with_config
def rebuild() -> None:
    """Rebuild a damaged or lost store from receipts, stations and work/.

    The damaged files are kept beside it. Finished jobs come back from their receipts; folders in
    processing/ begin their steps again and find what earlier tries left. A store that is sound is
    not touched. Stop the daemon first.
    """
    config = load_config()
    stations = Stations(config.root)
    stations.prepare()
    log.configure(level="error")
    with lock.held(stations.state):
        store = _empty_store(config, stations)
        try:
            said = rebuilding.rebuild(store, stations, config)
        finally:
            store.close()
    out.print(f"the store was rebuilt: {escape(str(said))}")
    next_ = escape(advice.start(config.path))
    out.print(f"Lost: notices not yet sent, and why jobs were frozen. Next: {next_}")
    if said.unreadable:
        raise click.exceptions.Exit(DATA)


def _empty_store(config: Config, stations: Stations) -> Store:
    try:
        store = open_store(config, stations, check=True)
    except StoreError as error:
        # One that only is not available now (a full disk, a lock) is not to be made again.
        passing = error.passing and "I/O" not in error.what
        if config.settings.store != "sqlite" or passing:
            raise
        _set_aside(stations)
        return open_store(config, stations)
    if not rebuilding.is_empty(store):
        store.close()
        fail(f"{config.root}: the store is sound and knows its jobs; it was not touched", DATA)
    return store


def _set_aside(stations: Stations) -> None:
    moment = utcnow().strftime("%Y%m%dT%H%M%SZ")
    for suffix in ("-shm", "-wal", ""):
        path = stations.state / f"dittohead.sqlite3{suffix}"
        if path.exists():
            kept = stations.state / f"damaged-{moment}.sqlite3{suffix}"
            path.rename(kept)
            out.print(f"kept: {escape(str(kept))}")


COMMANDS = (rebuild,)
