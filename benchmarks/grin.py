"""(n) A catalogue of a million volumes: listed over HTTP, compared and stored; listed again; counted."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import Row
from dittohead.config import registry
from dittohead.config.loader import SourceSetting, load
from dittohead.contract.catalogue import BATCH, Keep, Told
from dittohead.folders.stations import Stations
from dittohead.intake.board import figures, stages
from dittohead.intake.board.keeper import Keeper
from dittohead.sources.grin.client import Grin, GrinAccess, session
from dittohead.sources.grin.limits import Most, RateLimit
from dittohead.sources.grin.options import VOLUME, GrinOptions
from dittohead.sources.grin.refresh import Refresh
from dittohead.sources.grin.sign_in import GrinSignIn, OAuthToken, read_client
from dittohead.sources.grin.source import GrinSource
from dittohead.store import Store, sqlite_url
from dittohead.store import board as board_store
from dittohead.store.keeping import keep

_SERVE = """
import sys, time
from tests.support.grin import World, serving
world = World(bulk=int(sys.argv[1]))
with serving(world) as server:
    server.sign_in.now = time.time()
    print(server.url, server.sign_in.token(), flush=True)
    sys.stdin.read()
"""

_LIST = """
import asyncio, sys
from pathlib import Path
from benchmarks.grin import listed
asyncio.run(listed(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
"""

#: Goals for a million rows: seconds for all of it, and more memory in MiB.
_GOAL_S, _GOAL_MIB = 600.0, 100.0


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """List in a process of its own, against a server in another."""
    count = 50_000 if quick else 1_000_000
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        url, token = server.stdout.readline().split()
        argv = [sys.executable, "-c", _LIST, str(base / "root"), url, token, str(count)]
        said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        assert server.stdin is not None
        server.stdin.close()
    first, again, counted, more, board, story, shown = (float(word) for word in said.split()[-7:])
    goal_s = _GOAL_S * count / 1_000_000
    yield Row(
        f"{count:,} volumes listed, all new",
        f"{first:.1f} s",
        f"{count / first:,.0f} a second",
        goal=f"< {goal_s:.0f} s",
        holds=first < goal_s,
    )
    yield Row("  listed again", f"{again:.1f} s", goal=f"< {goal_s:.0f} s", holds=again < goal_s)
    yield Row("  counts by state", f"{counted * 1000:.2f} ms", goal="< 100 ms", holds=counted < 0.1)
    for what, took in (("the board's page", board), ("one volume's story", story)):
        yield Row(f"  {what}", f"{took * 1000:.1f} ms", goal="< 100 ms", holds=took < 0.1)
    yield Row("  20,000 wanted: a pass of the board", f"{shown * 1000:.0f} ms", "in its own threads")
    yield Row("  more memory", f"{more:.0f} MiB", goal=f"< {_GOAL_MIB:.0f} MiB", holds=more < _GOAL_MIB)


async def listed(root: Path, url: str, token: str, count: int) -> None:
    """List all books twice; print seconds of both, of a question, and MiB that it took more."""
    (root / "state").mkdir(parents=True)
    store = Store.open(sqlite_url(root / "state"))
    kept = keep(store, root / "state", "google", {}.__getitem__)
    path = kept.directory / "token.json"
    OAuthToken(access=token, expires_at=time.time() + 1e6, refresh="r").write(path)
    options = GrinOptions.model_validate({"library": "LIB", "client": "c", "url": f"{url}/libraries"})
    client = read_client(
        '{"installed": {"client_id": "c", "auth_uri": "https://a", "token_uri": "https://t"}}', "c"
    )
    async with session(60) as opened:
        grin = Grin(
            options, opened, GrinAccess(RateLimit(Most(100, 4, 4)), GrinSignIn(path, "", kept.log)), client
        )
        refresh = Refresh(options, kept, grin)
        await refresh.small()
        before = _mib()
        first = await _timed(refresh)
        again = await _timed(refresh)
    began = time.perf_counter()
    counts = await kept.catalogue.counts(VOLUME)
    counted = time.perf_counter() - began
    assert sum(counts.values()) == count, counts
    more = _mib() - before
    looked = await _board(store, kept, root, options)
    store.close()
    print(first, again, counted, more, *looked)


async def _board(store: Store, kept: Keep, root: Path, options: GrinOptions) -> tuple[float, float, float]:
    """Return seconds that the board's page, one volume's story and a pass over the tokens take."""
    wanted = await kept.catalogue.pick(VOLUME, ["known", "available"], [""], 20_000)
    for begin in range(0, len(wanted), BATCH):
        told = [Told(key=one.key, stage="wanted", reason="") for one in wanted[begin : begin + BATCH]]
        await kept.catalogue.tell(VOLUME, told, by="somebody")
    aside = await kept.catalogue.pick(VOLUME, ["known", "available"], [""], 20_000)
    for begin in range(0, len(aside), BATCH):
        told = [
            Told(key=one.key, stage="set_aside", reason=f"why {begin % 7}")
            for one in aside[begin : begin + BATCH]
        ]
        await kept.catalogue.tell(VOLUME, told, by="somebody")
    setting = SourceSetting(name="google", kind="grin", options=options)
    board, workers = GrinSource.board, registry.default()
    assert board is not None
    began = time.perf_counter()
    row = stages.row(board, None, workers)
    asked = ("google", VOLUME, "stored", board, row, workers, time.time())
    await store.read_apart(figures.gather, *asked)
    page = time.perf_counter() - began
    began = time.perf_counter()
    await store.read_apart(board_store.standing, "google", VOLUME, wanted[0].key)
    await kept.catalogue.history(VOLUME, wanted[0].key)
    story = time.perf_counter() - began
    stations = Stations(root)
    stations.prepare()
    (root / "config.yaml").write_text("root: .\npipelines: {all: {match: '.*', steps: [checksum: {}]}}\n")
    config = load(root / "config.yaml", probe=False)
    keeper = Keeper(store, stations, setting, GrinSource(), kept, lambda: config, lambda: None)
    await keeper.once()
    began = time.perf_counter()
    await keeper.once()
    return page, story, time.perf_counter() - began


async def _timed(refresh: Refresh) -> float:
    began = time.perf_counter()
    await refresh._full(believe=False)
    return time.perf_counter() - began


def _mib() -> float:
    """Return the most memory that this process has had. Source: proc(5), VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
