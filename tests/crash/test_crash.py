"""The quick part of what `python -m tests.crash` does at length, and kills inside the kernel's doors."""

from __future__ import annotations

import pytest

from tests.crash.batch import Batch, kinds_for
from tests.crash.driver import endure
from tests.support.length import LONG, budget
from tests.support.strace import failing

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("kills", budget([6, 15], 6))
def test_killed_at_random_nothing_is_lost_doubled_or_repeated(batch: Batch, kills: int) -> None:
    """The daemon, its children, or both; at fault points and at any moment."""
    said = endure(batch, kills=kills, folders=6)
    assert said.endswith("no violation")


#: Calls that change what lies on disk, or make it durable.
_CALLS = ("renameat2", "rename", "fsync", "fdatasync", "pwrite64", "mkdir", "unlink", "ftruncate")


@pytest.mark.parametrize("rounds", [200] if LONG else budget([3, 8], 3))
def test_killed_between_any_two_system_calls_nothing_is_lost(batch: Batch, rounds: int) -> None:
    """Wherever no fault point stands: at the Nth call of a kind, inside SQLite and the kernel's doors."""
    (batch.site.root / "inbox").mkdir()
    died = 0
    for _ in range(rounds):
        for kind in kinds_for():
            batch.drop(kind)
        armed = len(batch.site.events("watch.armed"))
        batch.start()
        process = batch.site.process
        assert process is not None
        batch.site.until(lambda armed=armed: len(batch.site.events("watch.armed")) > armed)
        fault = f"{batch.chance.choice(_CALLS)}:signal=SIGKILL:when={batch.chance.randint(1, 30)}"
        with failing(process.pid, batch.base / "calls", fault):
            died += batch.live(3)  # a call that seldom comes need not come so often
        batch.kill(group=False)
        batch.check_now()
    assert died  # how many, depends on how busy the machine is
    batch.to_the_end()
