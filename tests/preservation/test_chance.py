"""Many objects, and a daemon that is killed again and again: none doubled, none lost, none in a wrong state."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support import package
from tests.support.length import LONG
from tests.support.museum import OBJECT, museum

pytestmark = [
    pytest.mark.service,
    pytest.mark.slow,
    pytest.mark.rest,
    pytest.mark.timeout(3600 if LONG else 900),
]

MANY = 1000 if LONG else 200


@pytest.mark.parametrize("way", ["sftp", "rest"])
def test_many_objects_and_a_daemon_that_dies(tmp_path: Path, way: str) -> None:
    """Killed after a random number of finished steps and waits; every tenth object is rejected."""
    pytest.importorskip("pygfried")
    chance = random.Random(way)
    with museum(tmp_path, package.schemas(tmp_path), way=way, ticks_s=0.1, ask="500ms") as found:
        here, service = found.here, found.service
        service.rejects, service.rejected_names = "not today", r"^object-\d*7-"
        (here.root / "inbox").mkdir()
        for number in range(MANY):
            here.drop(f"object-{number}", OBJECT)

        def finished() -> int:
            return len(here.receipts())

        def happened() -> int:
            return here.log.read_bytes().count(b"\n")

        while finished() < MANY:
            here.start()
            lines = happened() + chance.randrange(20, 8 * MANY // 5)
            here.until(lambda lines=lines: happened() > lines or finished() >= MANY, 600)
            here.kill()
        here.start()
        here.until(lambda: not list((here.root / "processing").iterdir()))
        rejected = {f"object-{number}" for number in range(MANY) if str(number).endswith("7")}
        failed = {path.name for path in (here.root / "failed").iterdir() if path.is_dir()}
        done = {path.name for path in (here.root / "done").iterdir()}
        assert failed == rejected
        assert done == {f"object-{number}" for number in range(MANY)} - rejected
        assert (service.doubles, service.complaints) == ([], [])
        assert len(service.handed) == MANY
        assert len(service.kept) == len(done)
        for receipt in here.receipts():
            kinds = [(event["type"], event["outcome"]) for event in receipt["events"]]
            assert kinds.count(("transfer", "success")) == 1, receipt["name"]
            outcome = "failure" if receipt["name"] in rejected else "success"
            # A failure is recorded before the job's end is: a death between them records it once more.
            assert {one for kind, one in kinds if kind == "accession"} == {outcome}, receipt["name"]
