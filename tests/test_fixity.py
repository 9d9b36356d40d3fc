"""The fixity schedule: what is due is compared again, the longest ago first; what is wrong is recorded and told."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from dittohead.admin.fixity import FixityCheck
from dittohead.admin.verify import Reading, Report, verify_job
from dittohead.config.settings import Verify
from dittohead.model.errors import TargetError
from dittohead.model.records import Job
from dittohead.model.states import Fixity
from dittohead.store import custody
from dittohead.system.pace import Pace
from dittohead.system.threads import Stop, Stopped
from tests.support.delivering import Delivering
from tests.support.harness import Harness

CONFIG = "root: .\npipelines: {p: {match: .*, steps: [delivering: {}]}}\n"
DAY = 86_400.0


class Rig:
    """A harness with a schedule."""

    def __init__(self, root: Path) -> None:
        self.worker = Delivering()
        self.harness = Harness(root, CONFIG, workers=[self.worker])
        self.schedule = Verify(every=10 * DAY, rate=10**9)
        self.check = FixityCheck(self.harness.engine, lambda: self.schedule, self.compare)

    async def compare(self, job: Job, reading: Reading) -> Report:
        harness = self.harness
        return await verify_job(job, harness.store, harness.stations, harness.workers, str, reading=reading)

    async def done(self, *names: str, days_ago: float = 20) -> None:
        """Have folders done, the first longest ago."""
        for at, name in enumerate(names):
            self.harness.arrive(name, {"a": name.encode()})
            async with self.harness.running():
                job = await self.harness.until_over(name)
            ended = time.time() - days_ago * DAY + at
            self.harness.store.run(
                lambda connection, job=job, ended=ended: connection.exec_driver_sql(
                    "UPDATE jobs SET finished_at = ? WHERE id = ?", (ended, job.id)
                )
            )

    def known(self, name: str) -> custody.Custody:
        return self.harness.store.run(custody.get, self.harness.job(name).id)

    def events(self, name: str) -> list[tuple[str, str]]:
        """Return (outcome, detail) of the fixity events in the receipt that were added after the end."""
        (path,) = self.harness.stations.receipts.glob(f"{name}.*.json")
        found = json.loads(path.read_bytes())["events"]
        ended = next(n for n, event in enumerate(found) if event["type"] == "ingestion end")
        return [
            (event["outcome"], event["detail"])
            for event in found[ended + 1 :]
            if event["type"] == "fixity check"
        ]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "root")


async def test_what_is_due_is_compared_the_longest_ago_first_and_only_once(rig: Rig) -> None:
    await rig.done("b", "a", "c")
    await rig.done("young", days_ago=1)
    assert await rig.check.round(rig.schedule) == 3
    assert rig.worker.asked == ["b", "a", "c"]
    assert rig.known("a").fixity is Fixity.GOOD
    assert rig.events("a") == [("success", "2 files and places as the receipt says")]
    assert await rig.check.round(rig.schedule) == 0
    assert rig.check.report is not None
    assert rig.check.report.as_dict() == {
        "done": 4, "never": 1, "overdue": 0, "good": 3, "wrong": 0, "unknown": 0,
    }  # fmt: skip


async def test_a_difference_is_in_the_receipt_in_the_store_and_told_once(rig: Rig) -> None:
    await rig.done("a")
    rig.worker.wrong["a"] = "is missing"
    await rig.check.round(rig.schedule)
    assert rig.known("a").fixity is Fixity.WRONG
    assert rig.known("a").reason == "s3://bucket/a/a is missing"
    assert rig.events("a") == [("failure", "s3://bucket/a/a is missing")]
    assert [one["name"] for one in rig.check.wrong] == ["a"]
    again = Verify(every=1e-9, rate=10**9)
    await rig.check.check(rig.harness.job("a"), again)
    told = [facts for event, facts in rig.harness.told if event == "damaged"]
    assert [(facts["job"].name, facts["count"]) for facts in told] == [("a", 1)]
    rig.worker.wrong.clear()
    await rig.check.check(rig.harness.job("a"), again)
    assert rig.known("a").fixity is Fixity.GOOD
    rig.worker.wrong["a"] = "is missing"
    await rig.check.check(rig.harness.job("a"), again)
    assert len([event for event, _ in rig.harness.told if event == "damaged"]) == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TargetError("the store cannot be reached", where="s3"), "the store cannot be reached"),
        (ValueError("a defect"), "ValueError: a defect"),
        (OSError(5, "bad"), "bad"),
    ],
)
async def test_what_cannot_be_looked_at_is_unknown_is_overdue_and_holds_up_no_other(
    rig: Rig, error: Exception, said: str
) -> None:
    await rig.done("a", "b")
    rig.worker.raises["a"] = error
    assert await rig.check.round(rig.schedule) == 2
    assert (rig.known("a").fixity, rig.known("b").fixity) == (Fixity.UNKNOWN, Fixity.GOOD)
    assert said in rig.known("a").reason
    assert rig.known("a").checked_at is None
    assert rig.events("a") == []
    assert rig.check.report is not None
    assert (rig.check.report.overdue, rig.check.report.never, rig.check.report.unknown) == (1, 1, 1)
    assert await rig.check.round(rig.schedule) == 0  # not before a day has passed
    rig.harness.store.run(custody.put, rig.harness.job("a").id, tried_at=time.time() - 2 * DAY)
    rig.worker.raises.clear()
    assert await rig.check.round(rig.schedule) == 1
    assert rig.known("a").fixity is Fixity.GOOD


async def test_a_receipt_that_is_gone_or_damaged_is_unknown(rig: Rig) -> None:
    await rig.done("a", "b", "c")
    next(rig.harness.stations.receipts.glob("a.*.json")).unlink()
    next(rig.harness.stations.receipts.glob("b.*.json")).write_text("{")
    assert await rig.check.round(rig.schedule) == 3
    assert [rig.known(name).fixity for name in "abc"] == [Fixity.UNKNOWN, Fixity.UNKNOWN, Fixity.GOOD]
    assert "receipt" in rig.known("a").reason


async def test_a_folder_that_has_left_done_is_not_missed_and_one_that_is_there_is_read(rig: Rig) -> None:
    await rig.done("a", "b")
    (rig.harness.root / "done" / "a").rename(rig.harness.root / "elsewhere")
    (rig.harness.root / "done" / "b" / "a").write_bytes(b"x")
    await rig.check.round(rig.schedule)
    assert rig.known("a").fixity is Fixity.GOOD
    assert rig.known("b").fixity is Fixity.WRONG
    assert "differs from the manifest" in rig.known("b").reason


async def test_a_job_whose_folder_was_done_again_is_not_compared(rig: Rig) -> None:
    await rig.done("a")
    first = rig.harness.job("a").id
    await rig.harness.ask("rerun", "a")
    async with rig.harness.running():
        await rig.harness.until(lambda: len(rig.harness.jobs("a")) == 2)
        await rig.harness.until_over("a")
    assert await rig.check.round(rig.schedule) == 0
    assert rig.harness.store.run(custody.get, first).fixity is None
    assert rig.check.report is not None
    assert rig.check.report.done == 1


async def test_what_is_read_is_counted_against_the_rate(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's bytes, those at the target and nothing else; a new rate counts at once."""
    await rig.done("a")
    spent: list[int] = []
    monkeypatch.setattr(Pace, "owed", lambda self, size: spent.append(size) or 0.0)
    await rig.check.round(rig.schedule)
    assert sum(spent) == 2 * len(b"a")


def test_a_pace_gives_each_reader_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    pace = Pace(10)
    assert pace.owed(20) == pytest.approx(2)
    assert pace.owed(5) == pytest.approx(2.5)
    assert Pace(None).owed(10**12) == 0
    stop = Stop()
    stop.set()
    with pytest.raises(Stopped):
        pace.spend_in_thread(1, stop)
