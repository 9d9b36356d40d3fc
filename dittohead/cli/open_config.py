"""The whole configuration and the store, for commands that read them themselves."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dittohead.cli import advice
from dittohead.cli.base import config_path
from dittohead.config import loader as config_module
from dittohead.config.loader import Config
from dittohead.folders.stations import Stations
from dittohead.model.errors import StoreError
from dittohead.store import Store, sqlite_url
from dittohead.store.connect import open_store


def load_config(*, probe: bool = False) -> Config:
    """Load the configuration. Raises: ConfigError.

    Args:
        probe: also check what this host can do; for commands that start work.
    """
    return config_module.load(config_path(), probe=probe)


def has_store(config: Config) -> bool:
    """Tell whether there is a store to read; one that is not a file here is taken to be there."""
    return config.settings.store != "sqlite" or _has_file(config.root)


def _has_file(root: Path) -> bool:
    try:
        os.stat(Stations(root).state / "dittohead.sqlite3")
    except FileNotFoundError:  # no other error: who may not look is to be told so
        return False
    return True


@contextmanager
def reading(config: Config) -> Iterator[tuple[Store, Stations]]:
    """Open the store to read, whether a daemon runs or not.

    Raises: StoreError: there is no store yet, or it cannot be read.
    """
    with reading_at(config.root, config) as store:
        yield store, Stations(config.root)


@contextmanager
def reading_at(root: Path, config: Config | None) -> Iterator[Store]:
    """Open the store of a root to read; the embedded one where the configuration cannot be read.

    Raises: StoreError: there is no store yet, or it cannot be read.
    """
    stations = Stations(root)
    if config is None or config.settings.store == "sqlite":
        file = stations.state / "dittohead.sqlite3"
        if not _has_file(root):
            start = advice.start(config.path if config is not None else None)
            hint = f"It is made when the daemon first starts: {start}"
            raise StoreError("there is no store here yet", where=str(stations.state), hint=hint)
        if not os.access(file, os.R_OK | os.W_OK):  # SQLite would only say that it cannot be opened
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    if config is None:
        store = Store.open(sqlite_url(stations.state), check=False)
    else:
        store = open_store(config, stations)
    try:
        yield store
    finally:
        store.close()
