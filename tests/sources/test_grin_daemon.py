"""The daemon with a grin source, killed with SIGKILL: nothing lost, nothing asked for twice while in process."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dittohead.store import catalogue as catalogue_store
from dittohead.system.files import write_durably
from tests.support.daemon import Site, site
from tests.support.grin import Server, serving, unreadable
from tests.support.length import LONG, budget
from tests.support.trees import read_tree

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(900)]

#: Where the daemon dies, and at which time that it comes there. Usually some of them: `test_grin_chance` has all
#: of them in one process.
MOMENTS = [
    ("grin.noted", 1), ("grin.asked", 1), ("grin.asked", 2), ("source.told", 3), ("source.left", 1),
    ("source.made", 2), ("source.piece", 3), ("source.fetched", 2), ("source.durable", 1),
    ("source.recorded", 2), ("source.renamed", 1), ("source.settled", 1), ("store.written", 60),
    ("store.committed", 60),
]  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        made.sign_in.now = time.time()
        made.sign_in.lasts_s = 1e6
        yield made


class Rig:
    """A site with a library of volumes, all wanted by its queues."""

    def __init__(self, here: Site, server: Server, volumes: int) -> None:
        self.here, self.server, self.world = here, server, server.world
        self.barcodes = [f"B{n:05}" for n in range(volumes)]
        self.world.add(*self.barcodes)
        (here.root / "credentials").mkdir()
        (here.root / "credentials" / "client").write_text(server.sign_in.client_file(server.url))
        token = {
            "access_token": server.sign_in.token(),
            "expires_at": time.time() + 1e6,
            "refresh_token": server.sign_in.new_refresh(),
        }
        place = here.root / "state" / "sources" / "google"
        place.mkdir(parents=True)
        write_durably(place / "token.json", json.dumps(token).encode(), 0o600)
        options = {
            "library": "LIB",
            "client": "client",
            "url": f"{server.url}/libraries",
            "rate": 10_000,
            "every": 0.2,
            "ahead": 40,
            "batch": 20,
            "in_process": 60,
            "queues": ["converted", "previous", "unconverted"],
            "evictions": 1000,
        }
        here.config.write_text(
            "root: .\nspace: {floor: 0}\nretry: {first: 10ms, most: 20ms}\n"
            "pipelines:\n  all: {match: '.*', steps: [checksum: {}]}\n"
            f"sources:\n  google:\n    grin: {json.dumps(options)}\n"
        )

    def counts(self) -> dict[tuple[str, str], int]:
        path = self.here.root / "state" / "dittohead.sqlite3"
        engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
        with engine.connect() as connection:
            return catalogue_store.counts(connection, "google", "volume")

    def stored(self) -> int:
        return sum(count for (_, stage), count in self.counts().items() if stage == "stored")

    def waiting(self) -> int:
        """Converted volumes that are not done."""
        return len(set(self.world.converted) - set(os.listdir(self.here.root / "done")))

    def asked(self) -> int:
        return len(self.server.log)

    def holds(self) -> None:
        """All volumes are stored, each once, and none was asked for while it was in process."""
        done = self.here.root / "done"
        assert sorted(os.listdir(done)) == self.barcodes
        for barcode in self.barcodes:
            assert read_tree(done / barcode) == {f"{barcode}.tar.gz.gpg".encode(): unreadable(barcode)}
        jobs = Counter(receipt["name"] for receipt in self.here.receipts())
        assert set(jobs.values()) == {1}
        assert self.world.asked_in_process == {}
        assert [name for name in os.listdir(self.here.root / "inbox") if not name.startswith(".trial")] == []


def finish(rig: Rig) -> None:
    """Let time pass until all is stored."""

    def step() -> bool:
        if rig.waiting() < 30:  # a pool that turns over faster than anybody fetches has no end
            rig.world.tick(most=10)
        return rig.stored() == len(rig.barcodes)

    rig.here.until(step, 300)
    assert rig.here.stop() == 0
    rig.holds()


@pytest.mark.parametrize(("volumes", "kills"), budget([(80, 3), (200, 12 if LONG else 6)]))
def test_killed_at_random_over_many_volumes(tmp_path: Path, server: Server, volumes: int, kills: int) -> None:
    """After so many requests, drawn by chance, while conversions end and the oldest leave the pool."""
    chance = random.Random(7)
    with site(tmp_path / "root", "") as here:
        rig = Rig(here, server, volumes)
        server.world.pool = 50
        for _ in range(kills):
            here.start()
            until = rig.asked() + chance.randrange(3, 90)

            def step(until: int = until) -> bool:
                if rig.waiting() < 60:  # ten more than the pool holds: some leave before they are fetched
                    rig.world.tick(most=2)
                return rig.asked() >= until

            here.until(step)
            here.kill()
        here.start()
        finish(rig)


@pytest.mark.parametrize(("point", "number"), MOMENTS if LONG else budget(MOMENTS[::3], ("source.piece", 3)))
def test_killed_at_a_named_moment(tmp_path: Path, server: Server, point: str, number: int) -> None:
    with site(tmp_path / "root", "") as here:
        rig = Rig(here, server, 12)
        usual: Any = here.program
        here.arm(f"{point}:{number}:kill")
        here.start(wait=False)
        assert here.process is not None

        def died() -> bool:
            assert here.process is not None
            rig.world.tick(most=3)
            return here.process.poll() is not None

        here.until(died)
        here.program = usual
        here.start()
        finish(rig)
