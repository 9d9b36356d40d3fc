"""identify: formats by PRONOM, the list of them, and the policy."""

from __future__ import annotations

import csv
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dittohead.contract.worker import Done, Freeze
from dittohead.model.errors import ItemError
from dittohead.workers.identify import process, worker
from dittohead.workers.identify.policy import FormatRule, verdict
from dittohead.workers.identify.process import Identified, Identifier, Match
from dittohead.workers.identify.worker import IdentifyOptions, IdentifyWorker
from tests.support.context import LoneContext
from tests.support.harness import Harness
from tests.support.trees import tree


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0\0"))
        + chunk(b"IEND", b"")
    )


FILES: dict[str | bytes, Any] = {
    "a.png": png(), "sub": {"wrong.tif": png(), b"\xff.png": png(), "empty.txt": b""}, "none": b"\x01\x02\x03",
}  # fmt: skip


def options(**more: Any) -> IdentifyOptions:
    return IdentifyOptions.model_validate(more)


async def identified(ctx: LoneContext, **more: Any) -> dict[str, Any]:
    assert isinstance(await IdentifyWorker().run(ctx, options(**more)), Done)
    listed: dict[str, Any] = json.loads((ctx.work / "formats.json").read_text())
    return listed


async def test_the_list(tmp_path: Path) -> None:
    """Every file with its PUID, in the order of the manifest; wrong extensions and empty files are told."""
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", FILES))
    listed = await identified(ctx)
    found = {one["path"]: one for one in listed["files"]}
    assert [one["sha256"] for one in listed["files"]] == [entry.sha256 for entry in ctx.source.entries()]
    assert found["a.png"]["formats"][0]["puid"] == "fmt/11"
    assert found["a.png"]["formats"][0]["mime"] == "image/png"
    assert "extension match png" in found["a.png"]["formats"][0]["basis"]
    assert found["sub/wrong.tif"]["formats"][0]["puid"] == "fmt/11"
    assert found["sub/wrong.tif"]["formats"][0]["warning"] == "extension mismatch"
    assert found["sub/%FF.png"]["formats"][0]["warning"] == ""
    assert found["sub/empty.txt"]["formats"][0]["puid"] == "x-fmt/111"
    assert found["none"]["formats"][0]["puid"] == "UNKNOWN"
    assert "PRONOM" in listed["by"]["signatures"] or "DROID" in listed["by"]["signatures"]
    (event,) = ctx.events
    assert (event.type, event.outcome) == ("format identification", "success")
    assert event.agent.startswith("Siegfried ")
    assert "5 files: 3 fmt/11" in event.detail
    assert ctx.outputs[0].path == b"formats.json"
    assert ctx.outputs[0].detail == {"verdicts": {"accept": 5}}


async def test_csv(tmp_path: Path) -> None:
    """The same as a table."""
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", FILES))
    await IdentifyWorker().run(ctx, options(format="csv", policy=[{"puid": "fmt/11", "then": "convert"}]))
    with open(ctx.work / "formats.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["puid"] for row in rows if row["path"] == "a.png"] == ["fmt/11"]
    assert [row["verdict"] for row in rows].count("convert") == 3
    assert len(rows) == 5


async def test_many_files(tmp_path: Path) -> None:
    """Several requests to the child, and with a second slot: each file once, in order."""
    names = {f"{n:04}.txt": b"text %d\n" % n for n in range(300)}
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", names), spare=1)
    listed = await identified(ctx)
    assert [one["path"] for one in listed["files"]] == sorted(names)
    assert ctx.progressed[-1] == (300, 300, "files")


async def test_no_link_is_followed(tmp_path: Path) -> None:
    """A file that became a link since the claim is not read, and fails the folder."""
    folder = tree(tmp_path / "vol", FILES)
    ctx = LoneContext(tmp_path, folder)
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("/etc/passwd")
    (folder / "none").unlink()
    with pytest.raises(ItemError) as caught:
        await identified(ctx)
    assert "2 files not identified" in str(caught.value)
    assert "a.png: this is not a regular file" in str(caught.value)
    assert ctx.events[0].outcome == "failure"


POLICY = [
    {"warning": "*extension mismatch*", "then": "refuse", "why": "rename it"},
    {"puid": "fmt/11", "then": "convert"},
    {"puid": "UNKNOWN", "extension": "", "then": "hold"},
    {"mime": "text/*", "then": "warn"},
]


async def test_policy(tmp_path: Path) -> None:
    """All files at fault are named, each with its rule; the list is written all the same."""
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", FILES))
    with pytest.raises(ItemError) as caught:
        await identified(ctx, policy=POLICY)
    said = str(caught.value)
    assert "1 file refused by the policy: sub/wrong.tif" in said
    assert "rule 1 (warning *extension mismatch*: rename it)" in said
    assert f"dittohead rerun {ctx.job_id}" in said
    assert set(caught.value.files) == {"sub/wrong.tif"}
    listed = json.loads((ctx.work / "formats.json").read_text())
    assert [one["verdict"] for one in listed["files"]].count("convert") == 2
    log = ctx.log_file().read_text()
    assert "sub/empty.txt: x-fmt/111 Plain Text File: warn, by rule 4 (mime text/*)" in log
    assert ctx.events[0].outcome == "failure"


async def test_what_is_held_is_for_a_person_to_decide(tmp_path: Path) -> None:
    """The job is frozen, with the files and the rule; thawed, it goes on; another file is another question."""
    folder = tree(tmp_path / "vol", FILES)
    policy = [{"puid": "UNKNOWN", "then": "hold"}]
    ctx = LoneContext(tmp_path, folder)
    result = await IdentifyWorker().run(ctx, options(policy=policy))
    assert isinstance(result, Freeze)
    assert "the policy holds 1 file: none: UNKNOWN, rule 1" in result.reason
    assert f"dittohead thaw {ctx.job_id}" in result.reason
    thawed = LoneContext(tmp_path, folder)
    thawed.saved = result.state
    done = await IdentifyWorker().run(thawed, options(policy=policy))
    assert isinstance(done, Done)
    assert "was accepted" in done.detail
    (folder / "other").write_bytes(b"\x01\x02")
    more = LoneContext(tmp_path, folder)
    more.saved = result.state
    assert isinstance(await IdentifyWorker().run(more, options(policy=policy)), Freeze)


async def test_plan(tmp_path: Path) -> None:
    """Plan shows the verdict of every file, and ends as the step would."""
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", FILES))
    ctx.dry_run = True
    planned = []

    async def plan() -> None:
        async for one in IdentifyWorker().plan(ctx, options(policy=POLICY)):
            planned.append(one)

    with pytest.raises(ItemError, match="refused by the policy"):
        await plan()
    what = {one.what: (one.action, one.detail) for one in planned}
    assert what["sub/wrong.tif"][0] == "leave"
    assert "refuse, by rule 1" in what["sub/wrong.tif"][1]
    assert what["a.png"] == ("keep", "fmt/11 Portable Network Graphics 1.0: convert, by rule 2 (puid fmt/11)")
    assert planned[-1].what == "formats.json"
    assert not ctx.log_file().exists()


def known(*puids: str, mime: str = "", warning: str = "") -> Identified:
    return Identified(
        matches=[Match(id=p, format="", version="", mime=mime, basis="", warning=warning) for p in puids],
        error="",
    )


@pytest.mark.parametrize(
    ("rule", "path", "found", "fits"),
    [
        ({"puid": "fmt/*"}, b"a", known("fmt/1"), True),
        ({"puid": "fmt/1"}, b"a", known("fmt/11"), False),
        ({"puid": ["x-fmt/1", "fmt/2"]}, b"a", known("fmt/3", "fmt/2"), True),
        ({"mime": "IMAGE/*"}, b"a", known("fmt/1", mime="image/tiff"), True),
        ({"extension": "TIF"}, b"d.x/a.tif", known(), True),
        ({"extension": "x"}, b"d.x/a", known(), False),
        ({"extension": ""}, b"d.x/.hidden", known(), True),
        ({"extension": "gz"}, b"a.tar.gz", known(), True),
        ({"extension": "tif", "puid": "fmt/1"}, b"a.tif", known("fmt/2"), False),
        ({"puid": "fmt/1", "mime": "text/*"}, b"a", known("fmt/1", mime="image/x"), False),
        ({"warning": "*mismatch*"}, b"a", known("fmt/1", warning="extension mismatch"), True),
        ({"puid": "UNKNOWN"}, b"a", known(), False),
    ],
)
def test_rules(rule: dict[str, Any], path: bytes, found: Identified, fits: bool) -> None:
    """All conditions must fit, one of each list; capitals do not matter."""
    assert FormatRule(then="warn", **rule).fits(path, found) is fits


def test_the_first_rule_wins() -> None:
    """And where none fits, the default."""
    rules = [FormatRule(then="accept", puid=["fmt/1"]), FormatRule(then="refuse", puid=["fmt/*"])]
    assert verdict(rules, "hold", b"a", known("fmt/1")).then == "accept"
    assert verdict(rules, "hold", b"a", known("fmt/2")).rule == "rule 2 (puid fmt/*)"
    assert verdict(rules, "hold", b"a", known("x-fmt/2")).rule == "default"


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": [{"then": "warn"}]},
        {"policy": [{"then": "no", "puid": "x"}]},
        {"default": "maybe"},
        {"path": "a/b"},
    ],
)
def test_mistakes(wrong: dict[str, Any]) -> None:
    """A policy that says nothing is refused when config.yaml is read."""
    with pytest.raises(ValidationError):
        options(**wrong)


async def test_a_file_that_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found out by asking for each alone; the others are identified."""
    asked = Identifier.ask

    async def ask(self: Identifier, root: Path, entries: Any, **more: Any) -> Any:
        if any(entry.path == b"none" for entry in entries):
            self._child.process.kill()
        return await asked(self, root, entries, **more)

    monkeypatch.setattr(Identifier, "ask", ask)
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", FILES))
    with pytest.raises(ItemError, match="1 file not identified: none: the program that identifies"):
        await identified(ctx)
    listed = json.loads((ctx.work / "formats.json").read_text())
    assert [bool(one["formats"]) for one in listed["files"]].count(True) == 4


@pytest.mark.parametrize(
    "answer", [b"not JSON", b'{"files": []}', b'{"files": [{"matches": 1, "error": ""}]}', None]
)
async def test_answers_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    """What the child says is checked: nothing it says wrong becomes a format."""
    line = process._line

    async def wrong(child: Any, timeout_s: float) -> bytes | None:
        found = await line(child, timeout_s)
        return found if found and b'"siegfried"' in found else answer

    monkeypatch.setattr(process, "_line", wrong)
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", {"a.png": png()}))
    with pytest.raises(ItemError, match="1 file not identified"):
        await identified(ctx)


async def test_doctor() -> None:
    """Doctor says by which signatures."""
    ((ok, said),) = [one async for one in IdentifyWorker().doctor(options(), str)]
    assert ok
    assert "Siegfried" in said


def test_check_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Siegfried is missing, check says what to type."""
    assert IdentifyWorker().check(options()) == []
    monkeypatch.setattr(worker.util, "find_spec", lambda name: None)
    assert "pip install 'dittohead[identify]'" in IdentifyWorker().check(options())[0]


async def test_in_a_job(tmp_path: Path) -> None:
    """A refused folder is in failed/, with the reason; the receipt has the event."""
    config = """
root: .
limits: {jobs: 4}
space: {floor: 0}
pipelines:
  all:
    match: ".*"
    steps: [{identify: {policy: [{extension: exe, then: refuse}]}}]
"""
    harness = Harness(tmp_path, config)
    harness.arrive("bad", {"x.exe": b"MZ", "a.txt": b"a"})
    harness.arrive("good", {"a.txt": b"a"})
    async with harness.running():
        await harness.until_over("bad")
        await harness.until_over("good")
    assert (harness.where("bad"), harness.where("good")) == (["failed"], ["done"])
    assert "rule 1 (extension exe)" in (tmp_path / "failed" / "bad.reason.txt").read_text()
    for receipt in (tmp_path / "receipts").iterdir():
        assert '"format identification"' in receipt.read_text()
