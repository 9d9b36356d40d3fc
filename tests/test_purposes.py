"""What a folder asks for: by its name, by the file in it; and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.admin.outdated import compare
from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.engine.claim import Held
from dittohead.folders import manifest
from dittohead.folders.job_files import JobFiles
from dittohead.model.errors import ConfigError
from dittohead.model.records import Job
from dittohead.model.states import JobState
from tests.support.harness import Harness

CONFIG = """
root: .
limits: {jobs: 4, script: 4}
space: {floor: 0}
pipelines:
  objects:
    match: "(?P<object>[a-z]+)(-(?P<purpose>.+))?"
    steps:
      - script: {name: masters}
        for: preservation
      - script: {name: tiles, for: access, after: []}
      - script: {name: record}
"""


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    made = Harness(tmp_path / "root", CONFIG)
    yield made
    made.store.close()


async def done(harness: Harness, name: str, what: dict[str | bytes, Any] | None = None) -> Job:
    harness.arrive(name, what)
    async with harness.running():
        return await harness.until_over(name)


@pytest.mark.parametrize(
    ("name", "sidecar", "steps"),
    [
        ("box", None, ["masters", "record", "tiles"]),
        ("box-access", None, ["record", "tiles"]),
        ("box-preservation", None, ["masters", "record"]),
        ("box-access+preservation", None, ["masters", "record", "tiles"]),
        ("box", "purpose: access", ["record", "tiles"]),
        ("box", "purpose: [preservation]\n", ["masters", "record"]),
        ("box-access", '{"purpose": ["access"]}', ["record", "tiles"]),
    ],
)
async def test_a_folder_gets_the_steps_it_asks_for(
    harness: Harness, name: str, sidecar: str | None, steps: list[str]
) -> None:
    """By its name, by the file in it, or all."""
    what: dict[str | bytes, Any] = {"a.txt": "hello"} | ({"dittohead.yaml": sidecar} if sidecar else {})
    job = await done(harness, name, what)
    assert job.state is JobState.DONE
    assert sorted(step for _, step in harness.worker.ran) == steps
    assert [row.name for row in harness.steps(job)] == [
        s for s in ("masters", "tiles", "record") if s in steps
    ]


async def test_no_step_is_given_the_sidecar_and_it_stands_in_the_manifest(harness: Harness) -> None:
    """It is not content, but it was handed over."""
    seen = []

    async def look(ctx: StepContext) -> StepResult:
        seen.extend(entry.path for entry in ctx.source.entries())
        return Done()

    harness.worker.plays["record"] = look
    job = await done(harness, "box", {"a.txt": "hello", "dittohead.yaml": "purpose: access"})
    assert seen == [b"a.txt"]
    assert job.files == 1
    (_, sidecar) = manifest.read(JobFiles(harness.stations, job).manifest, ignored=True)
    assert (sidecar.path, sidecar.is_ignored) == (b"dittohead.yaml", True)


@pytest.mark.parametrize(
    ("name", "sidecar", "reason"),
    [
        ("box-acces", None, "nothing for acces. Ask for access or preservation"),
        ("box", "purpose: acces", "nothing for acces"),
        (
            "box-access",
            "purpose: preservation",
            "the folder's name asks for access, and the file in it for pres",
        ),
        ("box", "purpose: {a: b}", "purpose is a word or a list of words"),
        ("box", "porpoise: access", "one key is required, purpose"),
        ("box", "a: &a [x]\npurpose: *a", "it is not valid YAML"),
        ("box", "purpose: [", "it is not valid YAML"),
        ("box", "purpose: !!python/object/apply:os.system [id]", "it is not valid YAML"),
        ("box", "purpose: !!timestamp x", "it is not valid YAML"),
        ("box", 'purpose: !!int ""', "it is not valid YAML"),
        ("box", "purpose: " + "[" * 3000, "it is not valid YAML"),
        ("box", "purpose: 2001-99-99", "nothing for 2001-99-99"),
        ("box", "#" * 5000, "longer than 4 KiB"),
        ("box", "\x00", "it is not valid YAML"),
        ("box", "purpose: access\npurpose: open", "it is not valid YAML"),
        ("box", 'purpose: "\\ud800"', "purpose is a word or a list of words"),
        ("box", 'purpose: [access, "a\\0"]', "purpose is a word or a list of words"),
        ("box", 'purpose: "\\u202eaccess"', "purpose is a word or a list of words"),
        ("box-acces", None, "nothing for acces"),
    ],
)
async def test_what_cannot_be_understood_fails_before_anything_is_done(
    harness: Harness, name: str, sidecar: str | None, reason: str
) -> None:
    """Never guessed: neither all nor nothing is what was asked for."""
    what: dict[str | bytes, Any] = {"a.txt": "hello"} | ({"dittohead.yaml": sidecar} if sidecar else {})
    job = await done(harness, name, what)
    assert (job.state, harness.worker.ran) == (JobState.FAILED, [])
    assert reason in job.reason


@pytest.mark.parametrize("name", ["dittohead.yml", "Dittohead.yaml", "dittohead.yaml.txt"])
async def test_a_sidecar_of_nearly_that_name_is_not_passed_over(harness: Harness, name: str) -> None:
    """What was to stay private would be published."""
    job = await done(harness, "box", {"a.txt": "hello", name: "purpose: preservation"})
    assert (job.state, harness.worker.ran) == (JobState.FAILED, [])
    assert f"the folder has a file {name}, which is not read" in job.reason


def test_a_group_that_is_nearly_purpose_is_told(tmp_path: Path) -> None:
    """A folder that asks for a part would get all of it."""
    with pytest.raises(ConfigError, match='the group is called "porpose", and steps have for:'):
        Harness(tmp_path / "root", CONFIG.replace("P<purpose>", "P<porpose>"))


async def test_a_sidecar_that_is_a_link_is_not_followed(harness: Harness, tmp_path: Path) -> None:
    """Whatever it leads to."""
    (tmp_path / "other").write_text("purpose: access")
    folder = harness.arrive("box")
    (folder / "dittohead.yaml").symlink_to(tmp_path / "other")
    async with harness.running():
        job = await harness.until_over("box")
    assert (job.state, harness.worker.ran) == (JobState.FAILED, [])


async def test_a_folder_waits_in_the_inbox_for_the_targets_it_asks_for(tmp_path: Path) -> None:
    """And for no other; a bucket whose keys are made from each file's path is a target as any."""
    upload = "upload: {bucket: b, key: '{object}/{path}', for: preservation}"
    harness = Harness(
        tmp_path / "root", CONFIG.replace("script: {name: masters}\n        for: preservation", upload)
    )
    await harness.targets.load()
    await harness.targets.pause("s3://b", "down")
    for name in ("one", "two-access"):
        harness.arrive(name)
    found = {arrival.folder: arrival for arrival in harness.stations.scan().arrivals}
    held = await harness.claimer.claim(found[b"one"])
    assert isinstance(held, Held)
    assert held.reason == "the target s3://b is paused: down"
    assert isinstance(await harness.claimer.claim(found[b"two-access"]), Job)
    harness.store.close()


async def test_steps_nobody_asked_for_are_no_change(harness: Harness) -> None:
    """`rerun --changed` compares with what the folder was to have."""
    await done(harness, "box-access")
    (found,) = compare(harness.config, "objects", harness.workers, harness.store, harness.stations)
    assert found.changes == []


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        ("- script: {after: [nobody]}", 'config.yaml:6:44: there is no earlier step "nobody"'),
        ("- script: {name: a}\n      - script: {name: c, after: b}", "there is no earlier step"),
        ("- script: {after: {a: b}}", "names of earlier steps are required"),
        ("- script: {for: [access]}", "one word is required, such as preservation or access"),
        ("- script: {for: 'a b'}", "one word is required"),
        (
            "- script: {name: a, for: preservation}\n      - script: {name: b, for: preservaton}",
            '"preservaton" is nearly "preservation"',
        ),
    ],
)
def test_errors_in_after_and_for_name_their_line(tmp_path: Path, steps: str, problem: str) -> None:
    """And what to write instead."""
    with pytest.raises(ConfigError) as caught:
        Harness(tmp_path / "root", f"root: .\npipelines:\n  p:\n    match: .*\n    steps:\n      {steps}\n")
    assert problem.rpartition("config.yaml:6:44: ")[2] in str(caught.value)
    assert "config.yaml:" in str(caught.value)
