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


@contextlib.contextmanager
def postgres() -> Iterator[sa.URL]:
    """Run a server until the block ends; yields the URL of an empty database."""
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
        control = [*as_user, f"{found[-1]}/pg_ctl", "-D", data, "-w", "-l", f"{base}/log"]
        subprocess.run(
            [*control, "-o", f"-k {base} -c listen_addresses=''", "start"],
            check=True, cwd=base, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield sa.URL.create("postgresql+psycopg", "dh", database="postgres", query={"host": base})
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd=base, capture_output=True)
    finally:
        shutil.rmtree(base, ignore_errors=True)
