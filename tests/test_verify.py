"""Checking a finished job: what differs, what is as it was, and what nobody can look at now."""

from __future__ import annotations

from pathlib import Path

from dittohead.admin.verify import Report, verify_job
from dittohead.contract.worker import Done, StepContext, StepResult, VerifyContext
from dittohead.model.errors import TargetError
from dittohead.model.records import Location
from tests.support.harness import Harness, ScriptOptions, ScriptWorker


class DeliveringWorker(ScriptWorker):
    """Says that it has delivered three files; what is found there later is the test's."""

    name = "delivering"
    down = False

    async def run(self, ctx: StepContext, options: ScriptOptions) -> StepResult:
        for path in (b"a/1", b"a/2", b"b/3"):
            uri = f"s3://bucket/x/{path.decode()}"
            ctx.location(Location(uri=uri, path=path, size=1, sha256="0", verified_by="v"))
        return Done()

    async def verify(self, ctx: VerifyContext, options: ScriptOptions) -> None:
        if self.down:
            raise TargetError("the store cannot be reached", where="s3://bucket")
        for location in ctx.locations():
            gone = location.path == b"b/3" and options.do == "gone"
            unknown = location.path == b"b/3" and options.do == "unknown"
            what = "is missing" if gone else "cannot be checked: it is frozen" if unknown else ""
            ctx.report(not what, location.uri, what)


async def verified(root: Path, do: str, *, down: bool = False) -> Report:
    worker = DeliveringWorker()
    config = f"root: .\npipelines: {{p: {{match: .*, steps: [{{delivering: {{do: {do}}}}}]}}}}\n"
    harness = Harness(root / "root", config, workers=[worker])
    harness.arrive("x")
    async with harness.running():
        job = await harness.until_over("x")
    worker.down = down
    report = await verify_job(job, harness.store, harness.stations, harness.workers, str)
    harness.store.close()
    return report


async def test_what_lies_in_many_folders_of_a_place_is_one_line(tmp_path: Path) -> None:
    """A folder of tiles is a hundred directories, and one place."""
    report = await verified(tmp_path, "done")
    assert report.good
    assert report.checked["s3://bucket/x/"] == 3


async def test_a_difference_is_named_by_its_file(tmp_path: Path) -> None:
    """And nothing else is."""
    report = await verified(tmp_path, "gone")
    assert report.problems == [("s3://bucket/x/b/3", "is missing")]
    assert (report.good, report.unchecked, report.checked["s3://bucket/x/"]) == (False, [], 2)


async def test_what_cannot_be_looked_at_is_no_difference_and_not_good_either(tmp_path: Path) -> None:
    """One file, or a whole place that is down."""
    report = await verified(tmp_path / "1", "unknown")
    assert report.problems == []
    assert report.unchecked == [("s3://bucket/x/b/3", "cannot be checked: it is frozen")]
    report = await verified(tmp_path / "2", "done", down=True)
    assert report.problems == []
    assert report.unchecked == [("step delivering", "s3://bucket: the store cannot be reached")]
    assert not report.good
