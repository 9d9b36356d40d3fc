"""A death at every fault point, one after the other."""

from __future__ import annotations

import pytest

from dittohead.system.fail_points import POINTS
from tests.crash.batch import Batch, kinds_for
from tests.support.length import LONG, budget

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]


#: Every second point; at the others the power is cut, which is worse (test_power.py).
_PARTS = [list(POINTS)] if LONG else budget([list(POINTS[::4]), list(POINTS[2::4])], list(POINTS[::4]))


@pytest.mark.parametrize("points", _PARTS, ids=lambda points: points[0])
def test_every_fault_point_is_reached_and_a_death_there_harms_nothing(
    batch: Batch, points: list[str]
) -> None:
    """Once each, in the order in which a job meets them."""
    (batch.site.root / "inbox").mkdir()
    for point in points:
        for kind in kinds_for(point):
            batch.drop(kind)
        batch.start(f"{point}:1:kill")
        assert batch.live(60), f"{point} is never reached"
        batch.check_now()
    batch.to_the_end()
    reached = (batch.base / "reached").read_text().split()
    assert set(reached) >= set(points)
