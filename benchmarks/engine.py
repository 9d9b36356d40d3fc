"""(e) A folder through five steps that do nothing, against the same commits and fsyncs done bare."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import Row, ratio_of, settle_disk
from dittohead.system import files

_STEPS = 5
_COUNTED = ("transaction", "read", "commit", "fsync")
_CONFIG = """
root: .
limits: {jobs: 4, script: 4}
space: {floor: 0}
pipelines: {all: {match: ".*", steps: [%s]}}
""" % ", ".join(f"{{script: {{name: s{i}}}}}" for i in range(_STEPS))  # noqa: UP031  # braces are YAML's


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Run the engine and its floor in processes of their own, in turns."""
    count, rounds = (100, 3) if quick else (300, 3)
    ours: list[dict[str, Any]] = []
    floor: list[dict[str, Any]] = []
    for turn in range(rounds):
        ours.append(_measured("engine", base / f"ours{turn}", count))
        did = ours[-1]["did"]
        floor.append(_measured("floor", base / f"floor{turn}", count, did["commit"], did["fsync"]))
    did = ours[-1]["did"]
    each = ", ".join(f"{did.get(what, 0) / count:.1f} {what}s" for what in _COUNTED)
    cpu = sorted(run["cpu"] for run in ours)[len(ours) // 2]
    for what, name, goal in (("cpu", "CPU", "< 10 ms"), ("wall", "time elapsed", "")):
        middle = [sorted(run[what] for run in runs)[rounds // 2] for runs in (ours, floor)]
        ratio = ratio_of([run[what] for run in ours], [run[what] for run in floor])
        yield Row(
            f"{_STEPS} no-op steps, {name} a folder",
            f"{middle[0]:.1f} ms ({each})" if goal else f"{middle[0]:.1f} ms",
            f"{middle[1]:.1f} ms (bare SQLite, files)",
            f"{ratio:.1f}",
            goal,
            cpu < 10 if goal else None,
        )


def _measured(what: str, base: Path, *numbers: int) -> dict[str, Any]:
    settle_disk()
    argv = [sys.executable, "-m", "benchmarks.engine", what, str(base), *map(str, numbers)]
    found: dict[str, Any] = json.loads(subprocess.check_output(argv).splitlines()[-1])
    return found


# -- in a process of its own -----------------------------------------------------------------


def _cpu_ms() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1000


def _each(count: int, cpu: float, started: float) -> dict[str, Any]:
    return {"wall": (time.perf_counter() - started) * 1000 / count, "cpu": (_cpu_ms() - cpu) / count}


def _counted(did: Counter[str]) -> None:
    """Count this process's fsyncs."""
    bare = os.fsync

    def fsync(fd: int) -> None:
        did["fsync"] += 1
        bare(fd)

    os.fsync = fsync


def _counting(
    call: Callable[..., Awaitable[Any]], did: Counter[str], name: str
) -> Callable[..., Awaitable[Any]]:
    """Return the same call, counted."""

    async def counted(*args: Any, **kwargs: Any) -> Any:
        did[name] += 1
        return await call(*args, **kwargs)

    return counted


def run_engine(base: Path, count: int) -> dict[str, Any]:
    """Take folders through the real engine and dispatch, without a daemon around them."""
    import sqlalchemy as sa

    from dittohead.system import log
    from tests.support.harness import Harness

    log.configure(level="info", json=True)
    harness, did = Harness(base, _CONFIG), Counter[str]()
    sa.event.listen(harness.store.engine, "commit", lambda connection: did.update(["commit"]))
    for what, name in (("write", "transaction"), ("read", "read")):
        setattr(harness.store, what, _counting(getattr(harness.store, what), did, name))
    _counted(did)

    async def drop(first: int, last: int) -> None:
        for i in range(first, last):
            harness.arrive(f"f{i:05}")
        harness.offer()
        # Not listed while jobs run: listing would be the most of what is measured.
        await harness.until(
            lambda: not harness.dispatch.running and len(os.listdir(base / "done")) == last, 60
        )

    async def both() -> dict[str, Any]:
        async with harness.running():
            await drop(0, 10)  # the first ones pay for what is made once
            did.clear()
            cpu, started = _cpu_ms(), time.perf_counter()
            await drop(10, 10 + count)
            return _each(count, cpu, started)

    return {**asyncio.run(both()), "did": did}


def run_floor(base: Path, count: int, commits: int, fsyncs: int) -> dict[str, Any]:
    """Do what no durable engine can do without: as many commits, two renames, as many fsyncs."""
    for name in ("a", "b", "files"):
        (base / name).mkdir(parents=True)
    connection = sqlite3.connect(base / "db", isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (a, b, c);")

    cpu, started = _cpu_ms(), time.perf_counter()
    for i in range(count):
        name = b"%d" % i
        os.mkdir(os.path.join(os.fsencode(base / "a"), name))
        _move(base / "a", base / "b", name)
        _commit(connection, i, _share(commits, count, i))
        _durable_files(base / "files", i, _share(fsyncs, count, i) - 4)
        _move(base / "b", base / "a", name)
    return _each(count, cpu, started)


def _move(here: Path, there: Path, name: bytes) -> None:
    files.rename_noreplace(os.path.join(os.fsencode(here), name), os.path.join(os.fsencode(there), name))
    files.fsync_dir(there)
    files.fsync_dir(here)


def _share(total: int, count: int, i: int) -> int:
    return total * (i + 1) // count - total * i // count


def _commit(connection: sqlite3.Connection, i: int, times: int) -> None:
    for _ in range(times):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t VALUES (?, ?, ?)", (i, "x" * 200, "y"))
        connection.execute("UPDATE t SET b = 'z' WHERE rowid = ?", (i + 1,))
        connection.execute("COMMIT")


def _durable_files(folder: Path, i: int, fsyncs: int) -> None:
    """Write durable files: two fsyncs each."""
    for part in range(fsyncs // 2):
        files.write_durably(folder / f"{i}.{part}", b"x" * 500)


def _main() -> None:
    what, base, *numbers = sys.argv[1:]
    call = {"engine": run_engine, "floor": run_floor}[what]
    with tempfile.TemporaryFile("w+") as log:  # the engine logs to stderr: to a file, as in service
        os.dup2(log.fileno(), 2)
        found = call(Path(base), *map(int, numbers))  # type: ignore[operator]
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
