"""The daemon with a board, killed with SIGKILL: what was asked for by tokens is done once, and nothing is lost."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sources.test_grin_daemon import Rig
from tests.support.daemon import site
from tests.support.grin import Server, serving
from tests.support.length import LONG, budget

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]

#: Where the daemon dies, and at which time that it comes there.
MOMENTS = [
    ("board.asked", 1), ("board.written", 1), ("board.written", 4), ("board.written", 9),
    ("store.committed", 25), ("source.told", 5), ("source.durable", 1), ("source.settled", 2),
]  # fmt: skip


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        made.sign_in.now = time.time()
        made.sign_in.lasts_s = 1e6
        yield made


def rig_of(here: Any, server: Server, volumes: int) -> Rig:
    """A library whose volumes are wanted by tokens alone, each with its own bucket's name."""
    rig = Rig(here, server, volumes)
    text = here.config.read_text().replace('"converted", "previous", "unconverted"', "")
    text = text.replace('{"library"', '{"fields": {"storage_bucket": "usual"}, "library"')
    text = text.replace(
        "[checksum: {}]",
        "[checksum: {}, command: {name: filed, argv: [echo, '{storage_bucket}']}]",
    )
    here.config.write_text(text)
    return rig


def tokens(rig: Rig) -> dict[str, list[str]]:
    place = rig.here.root / "board" / "google"
    return {stage: sorted(os.listdir(place / stage)) for stage in os.listdir(place)}


@pytest.mark.parametrize(("point", "number"), MOMENTS if LONG else budget(MOMENTS[::2], ("board.asked", 1)))
def test_killed_while_it_keeps_the_board(tmp_path: Path, server: Server, point: str, number: int) -> None:
    with site(tmp_path / "root", "") as here:
        rig = rig_of(here, server, 12)
        here.start()
        here.until(lambda: (here.root / "board" / "google" / "available").is_dir())
        here.until(lambda: sum(rig.counts().values()) == 12)
        assert here.stop() == 0
        place = here.root / "board" / "google" / "available"
        for barcode in rig.barcodes[:4]:
            told = {"barcode": barcode, "storage_bucket": f"of-{barcode}"}
            (place / f"{barcode}.json").write_text(json.dumps(told))
        (place / "more.txt").write_text("\n".join([*rig.barcodes[4:], "nobody"]))
        (place / "bad.json").write_text("{")
        usual: Any = here.program
        here.program = [sys.executable, "-m", "tests.support.mortal"]
        here.env |= {
            "MORTAL_ROOT": str(here.root),
            "MORTAL_DIES": f"{point}:{number}:kill",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }
        here.start(wait=False)

        def died() -> bool:
            assert here.process is not None
            rig.world.tick(most=3)
            return here.process.poll() is not None

        here.until(died, 120)
        here.program = usual
        here.start()

        def stored() -> bool:
            rig.world.tick(most=3)
            return rig.stored() == 12

        here.until(stored, 300)
        every = [f"{barcode}.json" for barcode in rig.barcodes]
        here.until(lambda: tokens(rig)["stored"] == every)
        rest = ["bad.json", "bad.reason.txt", "more.txt.reason.txt"]
        here.until(lambda: tokens(rig)["available"] == rest)
        assert {stage for stage, names in tokens(rig).items() if names} == {"available", "stored"}
        rig.holds()
        said = {receipt["name"]: receipt for receipt in here.receipts()}
        for barcode in rig.barcodes:
            bucket = f"of-{barcode}" if barcode in rig.barcodes[:4] else "usual"
            assert bucket in here.run("logs", said[barcode]["job"]).stdout
        found = here.json_failing("source", "check", "google")
        assert [(one["kind"], one["what"]) for one in found] == [("token", "available/bad.json")]
        (place / "bad.json").unlink()
        assert "agree" in here.run("source", "check", "google").stdout
        assert here.stop() == 0
