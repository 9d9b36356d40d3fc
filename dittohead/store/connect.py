"""Open the store that a configuration names: for the daemon, and for commands while none runs."""

from __future__ import annotations

import sqlalchemy as sa

from dittohead.config.loader import Config
from dittohead.folders.stations import Stations
from dittohead.model.errors import ConfigError, StoreError, TransientError
from dittohead.store import Store, sqlite_url
from dittohead.system.credentials import Credentials, UnreadableCredential


def open_store(config: Config, stations: Stations, *, check: bool = False) -> Store:
    """Open the store that the configuration names.

    Args:
        config: with `store`, and the name of its credential.
        stations: the embedded store lies in their state/.
        check: look for damage first; the embedded store alone.

    Raises: ConfigError: the credential cannot be read; StoreError: it cannot be opened, or is damaged.
    """
    if config.settings.store == "sqlite":
        return Store.open(sqlite_url(stations.state), check=check)
    url = sa.make_url(config.settings.store).set(drivername="postgresql+psycopg")
    if config.settings.store_credential:
        url = url.set(password=_password(config, config.settings.store_credential))
    return Store.open(url)


def _password(config: Config, name: str) -> str:
    try:
        return Credentials(config.path)(name)
    except TransientError as error:
        raise StoreError(error.what) from error
    except UnreadableCredential as error:
        raise ConfigError(
            f'the credential "{name}" cannot be used: {error}',
            where=str(config.path),
            hint="Make it readable to the daemon's user, and to nobody else",
        ) from error
    except KeyError as error:
        raise ConfigError(
            f'there is no credential "{name}"',
            where=str(config.path),
            hint="Give it to the service with LoadCredential=, or put it in credentials/",
        ) from error
