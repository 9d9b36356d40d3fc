"""Make the tables, or migrate older ones with Alembic; quick when there is nothing to do."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from dittohead.model.errors import StoreError
from dittohead.store.tables import metadata

#: The newest revision in migrations/versions; a test compares the two.
HEAD = "0014"


def current(engine: Engine) -> str | None:
    """Return the revision the database is at, None when it is empty."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def upgrade(engine: Engine) -> None:
    """Bring the database to HEAD.

    Raises: StoreError: it was made by a newer dittohead.
    """
    found = current(engine)
    if found == HEAD:
        return
    if found is None:  # Alembic takes longer to import than all else at start
        with engine.begin() as connection:
            make(connection)
        return
    if found > HEAD:
        raise StoreError(
            f"the store was made by a newer dittohead (revision {found}; this one knows {HEAD})",
            where=engine.url.render_as_string(),
            hint="Install that version again; a store is never taken back to an older one",
        )
    with engine.begin() as connection:
        migrate(connection)


def make(connection: Connection) -> None:
    """Make all tables at once in an empty database: those that the migrations would make one by one."""
    if sa.inspect(connection).has_table("alembic_version"):  # made meanwhile by another process
        return
    metadata.create_all(connection)
    version = sa.Table(
        "alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True)
    )
    version.create(connection)
    connection.execute(version.insert().values(version_num=HEAD))


def migrate(connection: Connection, revision: str = "head") -> None:
    """Run the migrations that a database has not had, up to a revision; all of them in an empty one."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
