"""The numbers of a receipt are what was done: of random folders, at real targets, with files ignored."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from dittohead.admin.rebuild import rebuild
from dittohead.folders import receipt
from dittohead.model.records import Job
from dittohead.store import Store, sqlite_url
from dittohead.store.queries import listing
from tests.support.harness import Harness
from tests.support.s3_server import S3Server
from tests.support.trees import read_tree, symlink, tree

pytestmark = pytest.mark.service

IGNORED = ("*.tmp", ".DS_Store", "cache")
KEYS = "[default]\naws_access_key_id = test\naws_secret_access_key = not-to-be-seen\n"

CONFIG = """
root: .
space: {{floor: 0}}
retry: {{attempts: 1, first: 1ms, most: 2ms}}
pipelines:
  counts:
    match: ".*"
    ignore: ["*.tmp", .DS_Store, cache]
    links: skip
    steps:
      - checksum: {{name: sums}}
      - rsync: {{name: here, to: "{out}/{{name}}/"}}
      - rsync: {{name: sums-here, from: sums, to: "{out}/{{name}}.sums/"}}
      - upload: {{name: there, bucket: counts, endpoint_url: "{url}", credentials: keys, key: "{{name}}/{{path}}"}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


def some_tree(chance: random.Random, depth: int = 0) -> dict[str | bytes, Any]:
    """Return a folder of files of many names, links, empty folders, and what is ignored."""
    made: dict[str | bytes, Any] = {}
    for _ in range(chance.randint(0, 5)):
        name = chance.choice(["a", "b.tmp", ".DS_Store", "ü", "cache", "c d", "x.tif", "tmp"])
        if depth < 2 and chance.random() < 0.35:
            made[name] = some_tree(chance, depth + 1)
        elif chance.random() < 0.1:
            made[name] = symlink("nowhere")
        else:
            made[name] = chance.randbytes(chance.choice([0, 1, 700]))
    return made


def given(root: Path) -> dict[bytes, bytes]:
    """Return the files that steps are to be given."""
    return {
        path: data
        for path, data in read_tree(root).items()
        if not any(fnmatchcase(part, one) for part in os.fsdecode(path).split("/") for one in IGNORED)
    }


def numbers(text: str) -> list[tuple[int, int | None]]:
    """Return each "N files[, M bytes]" of a text."""
    found = re.findall(r"([\d,]+) files?(?:, ([\d,]+) bytes)?", text)
    return [(_number(count), _number(size) if size else None) for count, size in found]


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def house_of(base: Path, server: S3Server) -> Harness:
    out = tree(base / "out", {})
    harness = Harness(base / "root", CONFIG.format(out=out, url=server.url))
    harness.engine.secret = {"keys": KEYS}.__getitem__
    return harness


def read_receipt(harness: Harness, job: Job) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(receipt.path_of(harness.stations.receipts, job).read_bytes())
    return fields


async def test_a_receipts_numbers_are_what_lies_at_the_targets(tmp_path: Path, server: S3Server) -> None:
    """Files, bytes, locations and every number in an event, of each step, for random folders."""
    chance = random.Random(14)
    harness = house_of(tmp_path, server)
    server.client().create_bucket(Bucket="counts")
    names = [f"f{number}" for number in range(12)]
    holds = {}
    for name in names:
        holds[name] = given(harness.arrive(name, some_tree(chance)))
    async with harness.running():
        jobs = [await harness.until_over(name) for name in names]
    assert any(holds.values())
    assert not all(holds.values())
    for job in jobs:
        wanted = holds[job.name]
        fields = read_receipt(harness, job)
        files, size = len(wanted), sum(map(len, wanted.values()))
        if not files:
            assert job.state == "failed"
            assert job.reason.startswith(("the folder holds no files", "every file of the folder is ignored"))
            assert not fields["locations"]
            continue
        assert (job.state, job.files, job.size) == ("done", files, size), job.reason
        out = tmp_path / "out" / job.name
        assert read_tree(out) == wanted
        assert len([one for one in fields["manifest"]["files"] if not one.get("ignored")]) == files
        for step in ("here", "there"):
            assert len([one for one in fields["locations"] if one["step"] == step]) == files
        told = {(event["step"], event["type"]): event["detail"] for event in fields["events"]}
        assert numbers(told["", "message digest calculation"])[0] == (files, size)
        assert numbers(told["sums", "fixity check"]) == [(files, None)]
        assert numbers(told["here", "replication"])[0] == (files, size)
        assert numbers(told["here", "fixity check"]) == [(files, None)]
        assert numbers(told["there", "replication"])[0] == (files, size)
        assert sum(count for count, _ in numbers(told["there", "fixity check"])) == files
        assert numbers(told["sums-here", "replication"])[0][0] == 1
        details = {step["name"]: step["detail"] for step in fields["steps"]}
        assert numbers(details["here"])[0] == numbers(details["there"])[0] == (files, size)
        assert numbers(details["sums"]) == [(files, None)]
        assert (
            len((harness.stations.work / job.id / "sums" / "manifest-sha256.txt").read_bytes().splitlines())
            == files
        )
        objects = server.client().list_objects_v2(Bucket="counts", Prefix=f"{job.name}/").get("Contents", [])
        assert sorted(one["Size"] for one in objects) == sorted(map(len, wanted.values()))
    await _is_rebuilt_alike(harness, tmp_path)


async def _is_rebuilt_alike(harness: Harness, base: Path) -> None:
    """A store made again from the receipts counts the same."""
    (base / "new").mkdir()
    store = Store.open(sqlite_url(base / "new"))
    rebuild(store, harness.stations, harness.config)
    again = {job.id: (job.files, job.size) for job in store.run(listing, limit=1000) if job.state == "done"}
    assert again == {job.id: (job.files, job.size) for job in harness.jobs() if job.state == "done"}


NOTHING = """
root: .
space: {floor: 0}
pipelines:
  nothing:
    match: ".*"
    ignore: ["*.tmp"]
    steps:
      - script: {name: makes}
      - rsync: {name: deliver, from: makes, to: "OUT/{name}/"}
"""


async def test_a_folder_of_which_nothing_goes_out_is_not_done(tmp_path: Path) -> None:
    """All its files are ignored, or the step that was to make what is delivered has made nothing."""
    harness = Harness(tmp_path / "root", NOTHING.replace("OUT", str(tree(tmp_path / "out", {}))))
    harness.arrive("ignored", {"a.tmp": "1", "sub": {"b.tmp": "2"}})
    harness.arrive("unmade", {"a.tif": "1"})
    async with harness.running():
        ignored, unmade = await harness.until_over("ignored"), await harness.until_over("unmade")
    assert ignored.state == unmade.state == "failed"
    assert ignored.reason.startswith("every file of the folder is ignored by the pipeline (2 files)")
    assert "nothing of the folder was delivered" in unmade.reason
    assert f"dittohead rerun {unmade.id}" in unmade.reason
    assert harness.where("ignored") == harness.where("unmade") == ["failed"]
