"""(l) The page: fifty look on while a thousand jobs run, or none; and pages of a hundred thousand jobs."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import sqlalchemy as sa

from benchmarks.common import Daemon, Row, folders, ratio_of, running, settle_disk
from benchmarks.noop import NoopWorker
from benchmarks.stalls import Watched
from dittohead.config import registry
from dittohead.model.definition import JobDefinition, StepDefinition
from dittohead.model.records import JobId
from dittohead.model.states import JobState
from dittohead.store import Store, sqlite_url
from dittohead.store import jobs as job_store
from dittohead.store.jobs import NewJob
from dittohead.store.tables import jobs, steps
from dittohead.system import log, process

_READERS = 50

#: Pages of a large store, asked for again and again.
_PAGES = ("/", "/jobs", "/jobs?q=f0500&state=done", "/numbers?days=90")
_ASKED = 20

#: Rows put into a store by one statement.
_AT_ONCE = 5000


class _Watched(Daemon):
    """A daemon with a page, steps that do nothing, and notes of how long its loop stands still."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.url = "http://127.0.0.1:%d" % sock.getsockname()[1]  # noqa: UP031
        self.notes = root / "notes"
        listen = self.url.removeprefix("http://")
        super().__init__(
            root,
            f"""
            http: {{listen: "{listen}"}}
            limits: {{jobs: 8}}
            pipelines: {{all: {{match: ".*", steps: [{{noop: {{name: one}}}}, {{noop: {{name: two}}}}]}}}}
            """,
        )

    def _argv(self) -> list[str]:
        return [sys.executable, "-m", "benchmarks.page", "serve", str(self.config), str(self.notes)]


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Run the same jobs with readers and without, in turns; then look at large stores."""
    count, rounds = (300, 1) if quick else (1000, 3)
    alone: list[dict[str, float]] = []
    watched: list[dict[str, float]] = []
    for turn in range(rounds):
        alone.append(_jobs(base / f"alone{turn}", count, readers=0))
        watched.append(_jobs(base / f"watched{turn}", count, readers=_READERS))
    what = f"{count} jobs, {_READERS} readers with live updates"
    page = statistics.median(run["page"] for run in watched)
    yield Row(f"{what}: the front page, p95", f"{page * 1000:.0f} ms", "", "", "< 250 ms", page < 0.25)
    for key, name, goal in (("wall", "time elapsed", 1.5), ("lag", "the loop stands still, p99.9", None)):
        middle = [statistics.median(run[key] for run in runs) for runs in (watched, alone)]
        ratio = ratio_of([run[key] for run in watched], [run[key] for run in alone])
        yield Row(
            f"{what}: {name}",
            f"{middle[0] * 1000:.1f} ms",
            f"{middle[1] * 1000:.1f} ms (no readers)",
            f"{ratio:.2f}",
            f"<= {goal}" if goal else "< 20 ms",
            ratio <= goal if goal else middle[0] < 0.02,
        )
    small, large = (_pages(base / f"store{size}", size) for size in (1000, 100_000))
    for path in _PAGES:
        yield Row(
            f"GET {path} of 100,000 jobs, p95",
            f"{large[path] * 1000:.0f} ms",
            f"{small[path] * 1000:.0f} ms (of 1,000)",
            f"{large[path] / small[path]:.1f}",
            "< 500 ms",
            large[path] < 0.5,
        )


def _jobs(root: Path, count: int, *, readers: int) -> dict[str, float]:
    """Run jobs and return seconds: all of it, the page's 95th percentile, the loop's 99.9th."""
    settle_disk()
    source = root.with_name(root.name + "-folders")
    names = folders(source, count)
    with running(_Watched(root)) as daemon:
        assert isinstance(daemon, _Watched)
        argv = [sys.executable, "-m", "benchmarks.page", "read", daemon.url, str(readers)]
        looking = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert looking.stdout is not None
        looking.stdout.readline()  # all of them have seen the page
        began = time.perf_counter()
        daemon.drop(source, names)
        daemon.until(daemon.done(count), pause_s=0.05)
        wall = time.perf_counter() - began
        said, _ = looking.communicate(b"enough\n")
        times = json.loads(said.splitlines()[-1])
    lates = sorted(float(line) for line in daemon.notes.read_text().split())
    return {"wall": wall, "page": _rank(times, 0.95), "lag": _rank(lates, 0.999)}


def _rank(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def _pages(root: Path, count: int) -> dict[str, float]:
    """Return the 95th percentile of each page's time, in seconds, with so many jobs in the store."""
    fill(root, count)
    with running(_Watched(root)) as daemon:
        assert isinstance(daemon, _Watched)
        return asyncio.run(_timed(daemon.url))


async def _timed(url: str) -> dict[str, float]:
    found = {}
    async with aiohttp.ClientSession(url) as client:
        for path in _PAGES:
            times = [await _page(client, path) for _ in range(_ASKED)]
            found[path] = _rank(times, 0.95)
    return found


async def _page(client: aiohttp.ClientSession, path: str) -> float:
    began = time.perf_counter()
    async with client.get(path) as answer:
        answer.raise_for_status()
        await answer.read()
    return time.perf_counter() - began


def fill(root: Path, count: int) -> None:
    """Make a store of jobs that ended over ninety days, each with two steps."""
    state = root / "state"
    state.mkdir(parents=True)
    store = Store.open(sqlite_url(state))
    first = time.time() - 90 * 86400
    planned = tuple(StepDefinition(name=name, worker="noop", options={}) for name in ("one", "two"))
    definition = JobDefinition(steps=planned)

    def work(connection: Any) -> None:
        job_store.create(connection, _new(0, definition))
        (job,) = connection.execute(sa.select(jobs)).mappings().all()
        rows = connection.execute(sa.select(steps)).mappings().all()
        connection.execute(steps.delete())
        connection.execute(jobs.delete())
        for begin in range(0, count, _AT_ONCE):
            some = [(n, first + n * 90 * 86400 / count) for n in range(begin, min(begin + _AT_ONCE, count))]
            connection.execute(jobs.insert(), [{**job, **_ended(n, at)} for n, at in some])
            timed = [
                {**row, "job_id": _id(n), "state": "done", "started_at": at, "finished_at": at + n % 60}
                for n, at in some
                for row in rows
            ]
            connection.execute(steps.insert(), timed)

    store.run(work)
    store.close()
    for path in root.iterdir():  # the daemon makes the rest, and its configuration
        assert path == state


def _id(number: int) -> JobId:
    return JobId(f"01ARZ3NDEKTSV4RRFF{number:08}")


def _ended(number: int, at: float) -> dict[str, Any]:
    """Return what tells an ended job from the others."""
    over = JobState.FAILED if number % 1000 == 7 else JobState.DONE
    return {
        "id": _id(number),
        "name": f"f{number:06}",
        "folder": f"f{number:06}".encode(),
        "ino": str(number),
        "state": over.value,
        "station": over.value,
        "claimed_at": at,
        "finished_at": at + 60,
        "files": 100,
        "size": 1 << 30,
    }


def _new(number: int, definition: JobDefinition) -> NewJob:
    return NewJob(
        id=_id(number),
        name=f"f{number:06}",
        folder=f"f{number:06}".encode(),
        dev=1,
        ino=number,
        uid=1000,
        pipeline="all",
        definition=definition,
        values={},
        steps=[("one", "noop"), ("two", "noop")],
        host="h",
    )


# -- in processes of their own ---------------------------------------------------------------


async def _look_on(url: str, readers: int) -> None:
    """Follow the front page so many times, and ask for it again and again; print each answer's seconds."""
    loop, enough = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), enough.set)
    times: list[float] = []
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as client:
        seen = [asyncio.Event() for _ in range(readers)]
        following = [asyncio.create_task(_follow(client, event)) for event in seen]
        for event in seen:
            await event.wait()
        print("ready", flush=True)
        while not enough.is_set():
            times.append(await _page(client, "/") if readers else 0.0)
            await asyncio.sleep(0.1)
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    print(json.dumps(times))


async def _follow(client: aiohttp.ClientSession, seen: asyncio.Event) -> None:
    async with client.get("/api/v1/events?page=front") as answer:
        async for line in answer.content:
            if line.startswith(b"data:"):
                seen.set()


def main() -> None:
    """Serve a daemon, or look on."""
    if sys.argv[1] == "read":
        asyncio.run(_look_on(sys.argv[2], int(sys.argv[3])))
        return
    registry.default().add(NoopWorker())
    log.configure(level="info", json=True)
    process.use_pidfd()
    asyncio.run(Watched(Path(sys.argv[2]), Path(sys.argv[3])).run())


if __name__ == "__main__":
    main()
