"""Which folders a changed configuration would do otherwise; what earlier jobs made, and how long it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.admin.housekeeping import Housekeeper
from dittohead.admin.outdated import OutdatedJob, compare
from dittohead.config.loader import load
from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.model.records import Output
from dittohead.model.states import Station
from tests.support.harness import Harness

CONFIG = """
root: .
limits: {jobs: 4, script: 4}
space: {floor: 0}
pipelines:
  scans:
    match: "(?P<study>[a-z]+)-.*"
    keep_work: forever
    steps:
      - script: {name: make, do: "%s"}
      - script: {name: send}
"""


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "root", CONFIG % "quality 85 for {study}")
    made.worker.tools = {"vips": "8.14"}
    yield made
    made.store.close()


async def done(harness: Harness, *names: str) -> None:
    async with harness.running():
        for name in names:
            harness.arrive(name)
        harness.offer()
        for name in names:
            await harness.until_over(name)


def found(harness: Harness, text: str) -> dict[str, OutdatedJob]:
    """Compare what was done with another configuration."""
    path = harness.root / "config.yaml"
    path.write_text(text)
    config = load(path, harness.workers)
    return {f.job.name: f for f in compare(config, "scans", harness.workers, harness.store, harness.stations)}


async def test_nothing_has_changed(harness: Harness) -> None:
    await done(harness, "a-1", "b-1")
    for finding in found(harness, CONFIG % "quality 85 for {study}").values():
        assert finding.changes == finding.tools == []


async def test_a_changed_option_names_what_it_was_and_is_for_each_folder(harness: Harness) -> None:
    """Placeholders are filled in: a change that does not reach a folder does not select it."""
    await done(harness, "a-1", "b-1")
    findings = found(harness, CONFIG % "quality {study}")
    assert findings["a-1"].changes == ["make: do quality 85 for a -> quality a"]
    assert findings["b-1"].changes == ["make: do quality 85 for b -> quality b"]
    assert {name: f.changes for name, f in found(harness, CONFIG % "quality 85 for a").items()} == {
        "a-1": [],
        "b-1": ["make: do quality 85 for b -> quality 85 for a"],
    }


async def test_another_version_of_a_tool_is_told_apart_from_a_change(harness: Harness) -> None:
    await done(harness, "a-1")
    harness.worker.tools = {"vips": "8.15"}
    finding = found(harness, CONFIG % "quality 85 for {study}")["a-1"]
    assert (finding.changes, finding.tools[0]) == ([], "make: vips 8.14 -> 8.15")


async def test_new_steps_other_pipelines_and_unknown_recipes_are_changes(harness: Harness) -> None:
    harness.worker.tools = {}
    await done(harness, "a-1")
    harness.worker.tools = {"vips": "8.14"}
    text = CONFIG % "quality 85 for {study}"
    changes = found(harness, text + "      - script: {name: tell}\n")["a-1"].changes
    assert changes[0] == "make: how it was done is not recorded"
    assert changes[-1] == "tell: is new"
    first = text.replace("  scans:", '  first: {match: "a-.*", steps: [script: {}]}\n  scans:')
    assert found(harness, first)["a-1"].changes == ["its name fits the pipeline first now"]
    assert found(harness, text.replace("[a-z]+", "[b-z]+"))["a-1"].changes == [
        "no pipeline fits its name any more"
    ]


async def test_only_folders_that_are_done_and_there_count_once_each(harness: Harness) -> None:
    await done(harness, "a-1", "b-1", "c-1")
    harness.stations.folder(Station.DONE, b"b-1").rename(harness.root / "elsewhere")
    async with harness.running():
        assert (await harness.ask("rerun", "a-1"))["ok"]
        harness.offer()
        await harness.until(lambda: len(harness.jobs("a-1")) == 2)
        await harness.until_over("a-1")
    findings = found(harness, CONFIG % "other")
    assert sorted(findings) == ["a-1", "c-1"]
    assert findings["a-1"].job.id == harness.job("a-1").id


async def test_a_job_sees_what_the_same_step_made_in_earlier_jobs(harness: Harness) -> None:
    seen: list[list[bytes]] = []

    async def make(ctx: StepContext) -> StepResult:
        seen.append([(path / "made").read_bytes() for path in ctx.earlier])
        (ctx.work / "made").write_bytes(b"%d" % len(seen))
        ctx.output(Output(path=b"made", size=1, sha256="0" * 64))
        return Done()

    harness.worker.plays["make"] = make
    await done(harness, "a-1", "b-1")
    for _ in range(2):
        async with harness.running():
            before = len(harness.jobs("a-1"))
            await harness.ask("rerun", "a-1")
            harness.offer()
            await harness.until(lambda before=before: len(harness.jobs("a-1")) > before)
            await harness.until_over("a-1")
    assert seen[:2] == [[], []]
    assert seen[2:] == [[b"1"], [b"3", b"1"]] or seen[2:] == [[b"2"], [b"3", b"2"]]


async def test_work_that_a_later_job_has_made_again_is_removed_though_it_is_kept_for_ever(
    harness: Harness,
) -> None:
    await done(harness, "a-1")
    first = harness.job("a-1")
    keeper = Housekeeper(harness.engine, harness.config.settings.watch, lambda: None)
    await keeper.work_round()
    assert (harness.stations.work / first.id).exists()
    async with harness.running():
        await harness.ask("rerun", "a-1")
        harness.offer()
        await harness.until(lambda: len(harness.jobs("a-1")) == 2)
        await harness.until_over("a-1")
    await keeper.work_round()
    assert not (harness.stations.work / first.id).exists()
    assert (harness.stations.work / harness.job("a-1").id).exists()
