"""The dry run: what it says is what would be done, and nothing is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dittohead.admin.dry_run import plan
from dittohead.cli import main
from dittohead.config import registry
from dittohead.config.loader import load
from dittohead.config.registry import Registry
from dittohead.contract.worker import Planned, StepContext
from dittohead.model.errors import ItemError
from dittohead.model.records import Output
from tests.support.harness import ScriptOptions, ScriptWorker
from tests.support.s3_server import S3Server
from tests.support.trees import tree
from tests.support.upstream import KEYS

pytestmark = pytest.mark.service

CONFIG = """
root: .
pipelines:
  scans:
    match: "(?P<object>[A-Z]+_[0-9]+)(-(?P<purpose>preservation|access))?"
    steps:
      - checksum: {name: list, for: preservation}
      - rsync: {name: keep, from: list, to: "/srv/{object}/", for: preservation}
      - upload: {name: publish, after: [], bucket: access, endpoint_url: "URL", credentials: keys, key: "{object}/{stem}.{ext}", for: access}
      - command: {argv: [logger, "{object} is done"]}
"""


def test_a_place_that_is_down_is_waited_for_and_no_failure(tmp_path: Path) -> None:
    """As the daemon would; with the status of what can be tried later."""
    (tmp_path / "config.yaml").write_text(
        "root: .\npipelines: {p: {match: .*, steps: [{archivesspace: {url: 'http://127.0.0.1:1', repository: 2, "
        "user: u, credential: c, find: '{name}', write: false}}]}}\n"
    )
    (tmp_path / "credentials" / "c").write_text("not-to-be-seen")
    folder = tree(tmp_path / "HBF_001", {"a.txt": "hello"})
    ended = CliRunner().invoke(main, ["--config", str(tmp_path / "config.yaml"), "plan", str(folder)])
    assert ended.exit_code == 75
    assert "cannot be done now:" in ended.stdout
    assert "It would wait, and go on by itself." in ended.stdout
    assert "not-to-be-seen" not in ended.output


@pytest.mark.parametrize("key", ["", "files: folder, "])
def test_a_file_is_planned_as_a_folder_that_holds_it(tmp_path: Path, key: str) -> None:
    """What lies beside it is not looked at; and where a pipeline does not take files, that is said."""
    (tmp_path / "config.yaml").write_text(
        f"root: .\npipelines: {{p: {{match: .*, {key}steps: [{{checksum: {{}}}}]}}}}\n"
    )
    place = tree(tmp_path / "place", {"a.zip": "hello", "b": "other"})
    given = ["--config", str(tmp_path / "config.yaml"), "plan", str(place / "a.zip")]
    ended = CliRunner().invoke(main, given)
    assert ended.exit_code == 0, ended.output
    assert "a.zip: 1 file, 5 bytes, by p" in ended.stdout
    assert ("it would be left alone" in " ".join(ended.stdout.split())) == (not key)
    found = json.loads(CliRunner().invoke(main, [*given, "--json"]).stdout)
    assert (found["files"], "note" in found) == (1, not key)
    assert sorted(path.name for path in place.iterdir()) == ["a.zip", "b"]


class FindingWorker(ScriptWorker):
    """Finds facts first, and makes what its option says."""

    name = "finding"
    describes = True

    async def preflight(self, ctx: StepContext, options: ScriptOptions) -> Mapping[str, Any]:
        if options.do == "missing":
            raise ItemError("there is no such record", hint="Correct the name")
        (entry, *_) = ctx.originals.entries()
        title = entry.path.decode()
        return {"described": {"objects": [{"description": {"identifier": "i", "title": title}}]}}

    async def plan(self, ctx: StepContext, options: ScriptOptions) -> AsyncIterator[Planned]:
        ctx.output(Output(path=b"made", size=0, sha256=""))
        made = ctx.made_by("first")
        seen = [o.path for o in made.outputs()] if made is not None else []
        title = ctx.described().objects[0].description.title
        yield Planned(action="create", what=f"{title} of {[e.path for e in ctx.source.entries()]} and {seen}")


@pytest.fixture(scope="module")
def bucket() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture(autouse=True)
def _configured(tmp_path: Path, bucket: S3Server) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "keys").write_text(KEYS)
    (tmp_path / "config.yaml").write_text(CONFIG.replace("URL", bucket.url))
    bucket.client().create_bucket(Bucket="access")


def whole(root: Path) -> list[tuple[Path, bytes]]:
    return sorted((path, path.read_bytes()) for path in root.rglob("*") if path.is_file())


def run(tmp_path: Path, *arguments: str) -> Any:
    folder = tree(tmp_path / "HBF_001", {"a.txt": "hello", "sub": {"b.txt": "ho"}})
    before = whole(tmp_path)
    ended = CliRunner().invoke(
        main, ["--config", str(tmp_path / "config.yaml"), "plan", str(folder), *arguments]
    )
    assert whole(tmp_path) == before
    assert not (tmp_path / "state").exists()
    return ended


def test_every_file_and_place_is_named_and_nothing_is_written(tmp_path: Path, bucket: S3Server) -> None:
    """Wherever the folder lies; no station is even made."""
    ended = run(tmp_path)
    assert ended.exit_code == 0
    assert ended.stdout.splitlines() == [
        "HBF_001: 2 files, 7 bytes, by scans",
        "",
        "list (checksum)",
        "  make   manifest-sha256.txt  SHA-256 of 2 files",
        "",
        "keep (rsync) → /srv",
        "  send   manifest-sha256.txt → file:///srv/HBF_001/manifest-sha256.txt",
        "",
        f"publish (upload), at once → s3://access at {bucket.url.removeprefix('http://')} as keys",
        "  send   a.txt → s3://access/HBF_001/a.txt  5 bytes",
        "  send   sub/b.txt → s3://access/HBF_001/b.txt  2 bytes",
        "",
        "command",
        "  run    logger 'HBF_001 is done'",
        "",
        "Nothing was changed.",
    ]


def test_the_plan_as_json_is_for_programs(tmp_path: Path) -> None:
    """With only the steps that the folder asks for by its name."""
    ended = run(tmp_path, "--json", "--as", "HBF_001-access")
    found = json.loads(ended.stdout)
    assert (found["good"], found["purposes"], found["bytes"]) == (True, ["access"], 7)
    assert [(s["name"], s["needs"]) for s in found["steps"]] == [("publish", []), ("command", ["publish"])]
    assert found["steps"][0]["would"][0] == {
        "action": "send",
        "what": "a.txt",
        "where": "s3://access/HBF_001/a.txt",
        "detail": "5 bytes",
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [("hbf", "no pipeline's match fits"), ("HBF_1-what", "no pipeline's match fits")],
)
def test_a_folder_that_would_fail_is_told_why(tmp_path: Path, name: str, said: str) -> None:
    """With the exit status of a check that did not hold."""
    ended = run(tmp_path, "--as", name)
    assert ended.exit_code == 65
    assert said in ended.stderr


def test_two_files_of_one_key_are_found_by_the_plan(tmp_path: Path) -> None:
    """As they would be by the step."""
    (tmp_path / "more").mkdir()
    folder = tree(tmp_path / "HBF_2", {"a.txt": "1", "sub": {"a.txt": "2"}})
    ended = CliRunner().invoke(main, ["--config", str(tmp_path / "config.yaml"), "plan", str(folder)])
    assert ended.exit_code == 65
    assert "two files would get the same key HBF_2/a.txt: a.txt and sub/a.txt" in ended.stdout + ended.stderr


def finding(tmp_path: Path, second: str) -> tuple[Any, Registry]:
    known = Registry(registry.entry_points(group=registry.GROUP))
    known.add(FindingWorker())
    (tmp_path / "config.yaml").write_text(
        "root: .\npipelines: {p: {match: .*, steps: [{finding: {name: first}}, "
        f"{{finding: {{name: second, from: first, do: {second}}}}}]}}}}\n"
    )
    return load(tmp_path / "config.yaml", known), known


async def test_each_step_knows_what_those_before_said_and_found(tmp_path: Path) -> None:
    """Facts of the look, outputs of the plan."""
    config, known = finding(tmp_path, "done")
    folder = tree(tmp_path / "x", {"a.txt": "hello"})
    found = await plan(config, known, {}.__getitem__, folder, "x", tmp_path)
    said = []
    for step in found.steps:
        assert step.do is not None
        said += [planned.what async for planned in step.do()]
    assert said == [
        "a.txt of [b'a.txt'] and []",
        "a.txt of [b'made'] and [b'made']",
    ]


async def test_what_a_worker_does_not_find_is_a_problem_of_its_step(tmp_path: Path) -> None:
    """All of them look, so all problems are told at once."""
    config, known = finding(tmp_path, "missing")
    folder = tree(tmp_path / "x", {"a.txt": "hello"})
    found = await plan(config, known, {}.__getitem__, folder, "x", tmp_path)
    assert [step.problem for step in found.steps] == ["", "there is no such record. Correct the name"]
