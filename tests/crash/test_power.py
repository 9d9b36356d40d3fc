"""The power is cut at every fault point, on real file systems."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.system.fail_points import POINTS
from tests.crash.batch import Batch, kinds_for
from tests.crash.power import KINDS, Disk, disk
from tests.support.length import LONG, budget
from tests.support.receivers import Mailbox
from tests.support.s3_server import S3Server
from tests.support.sshd import Sshd

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(params=budget(sorted(KINDS), "ext4"))
def cut(
    request: pytest.FixtureRequest, tmp_path: Path, server: Sshd, box: Mailbox, store: S3Server
) -> Iterator[tuple[Batch, Disk]]:
    with disk(tmp_path, request.param) as drive:
        made = Batch.make(drive.mount / "root", tmp_path / "out", server, box, store, seed=6)
        made.site.env["MORTAL_DISK"] = str(drive.mount)
        try:
            yield made, drive
        finally:
            if made.site.process is not None:
                made.kill(group=True)


def test_a_power_cut_at_any_fault_point_loses_nothing(cut: tuple[Batch, Disk]) -> None:
    """A real file system forgets all that was not made durable; its journal is recovered; work goes on."""
    batch, drive = cut
    (batch.site.root / "inbox").mkdir()
    numbers = (1, 2, 3, 5, 8) if LONG else (1,)
    # In a quick run the kinds of disk share those points at which test_points.py kills nobody.
    points = POINTS if LONG else POINTS[1 + 2 * sorted(KINDS).index(drive.kind) :: 4]
    places = [(point, number) for point in points for number in numbers]
    random.Random(7).shuffle(places)
    for point, number in places:
        for kind in kinds_for(point):
            batch.drop(kind)
        batch.start(f"{point}:{number}:power")
        assert batch.live(60), f"{point} is not reached {number} times"
        drive.again()
        batch.check_now()
    batch.to_the_end()
