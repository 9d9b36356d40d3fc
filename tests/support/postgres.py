"""A real PostgreSQL, in a directory of its own, reached by a unix socket; as root it runs as postgres."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import sqlalchemy as sa


class Server:
    """A server that can be stopped at once, as a crash or a restart does, and started again."""

    def __init__(self, base: str, control: list[str]) -> None:
        self._base, self._control = base, control
        self.url = sa.URL.create("postgresql+psycopg", "dh", database="postgres", query={"host": base})

    def start(self) -> None:
        subprocess.run(
            [*self._control, "-o", f"-k {self._base} -c listen_addresses=''", "start"],
            check=True, cwd=self._base, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def stop(self) -> None:
        subprocess.run(
            [*self._control, "-m", "immediate", "stop"], check=True, cwd=self._base, capture_output=True
        )


@contextlib.contextmanager
def postgres() -> Iterator[sa.URL]:
    """Run a server until the block ends; yields the URL of an empty database."""
    with postgres_server() as server:
        yield server.url


@contextlib.contextmanager
def postgres_server() -> Iterator[Server]:
    """Run a server until the block ends; it is running then."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    assert found, "PostgreSQL is missing: tools/setup test"
    base = tempfile.mkdtemp(prefix="dh-pg-")  # short: a socket's path is limited
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(base, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    data = f"{base}/data"
    try:
        subprocess.run(
            [*as_user, f"{found[-1]}/initdb", "-D", data, "-U", "dh", "-A", "trust", "-N"],
            check=True, capture_output=True, cwd=base,
        )  # fmt: skip
        server = Server(base, [*as_user, f"{found[-1]}/pg_ctl", "-D", data, "-w", "-l", f"{base}/log"])
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(base, ignore_errors=True)
