"""Open the store that a configuration names: for the daemon, and for commands while none runs."""

from __future__ import annotations

import sqlalchemy as sa

from dittohead.config import Config
from dittohead.credentials import Credentials
from dittohead.errors import ConfigError
from dittohead.stations import Stations
from dittohead.store import Store, sqlite_url


def open_store(config: Config, stations: Stations, *, check: bool = False) -> Store:
    """Open the store that the configuration names; `check` it for damage. Raises: ConfigError, StoreError."""
    if config.settings.store == "sqlite":
        return Store.open(sqlite_url(stations.state), check=check)
    url = sa.make_url(config.settings.store).set(drivername="postgresql+psycopg")
    if config.settings.store_credential:
        try:
            password = Credentials(config.path)(config.settings.store_credential)
        except KeyError as error:
            raise ConfigError(
                f'there is no credential "{config.settings.store_credential}"',
                where=str(config.path),
                hint="Give it to the service with LoadCredential=, or put it in credentials/",
            ) from error
        url = url.set(password=password)
    return Store.open(url)
