"""Whether all of a folder is there, by the lists that came with it; and that it is what was sent."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dittohead.config.loader import load
from dittohead.engine import sending, waiting_room
from dittohead.folders import completeness, manifest, receipt, sent_manifest
from dittohead.folders.completeness import Verdict, is_unchanged, verdict_on
from dittohead.folders.job_files import JobFiles
from dittohead.model.held import Held, HeldKind
from dittohead.model.records import Entry
from dittohead.model.states import JobState
from dittohead.system.threads import Stop
from dittohead.workers.checksum.worker import line
from tests.support.harness import CONFIG, Harness
from tests.support.trees import tree

NAME = sent_manifest.NAME


def lines(what: dict[str, bytes], algorithm: str = "sha256") -> str:
    """Return a list as `sha256sum` writes it."""
    return "".join(f"{hashlib.new(algorithm, data).hexdigest()}  {path}\n" for path, data in what.items())


def seen(folder: Path, *asked: str, ignore: tuple[str, ...] = ()) -> Verdict:
    return verdict_on(folder, asked, ignore, Stop())


# -- the manifest that was sent along --------------------------------------------------------------


def test_without_any_list_nothing_is_missed(tmp_path: Path) -> None:
    assert seen(tree(tmp_path / "x", {"a": b"1"})) == Verdict()


def test_every_name_that_is_missing_or_too_many_is_said(tmp_path: Path) -> None:
    listed = {"a": b"1", "sub/b": b"2", "gone": b"3"}
    folder = tree(tmp_path / "x", {"a": b"other", "sub": {"b": b"2"}, "more": b"", NAME: lines(listed)})
    assert seen(folder).lack == (
        f"it is not complete: 1 file of {NAME} not there (gone); 1 file not in {NAME} (more)"
    )
    (folder / "gone").write_bytes(b"3")
    (folder / "more").unlink()
    assert seen(folder) == Verdict()


def test_twenty_names_are_said_and_the_others_counted(tmp_path: Path) -> None:
    listed = {f"{number:03}": b"" for number in range(500)}
    folder = tree(tmp_path / "x", {NAME: lines(listed)})
    lack = seen(folder).lack
    assert "500 files" in lack
    assert lack.endswith("018, 019 and 480 more)")


def test_what_systems_and_the_pipeline_leave_out_is_never_too_many(tmp_path: Path) -> None:
    more = {".DS_Store": b"1", "sub": {"Thumbs.db": b"1", "._a": b"1", "x.tmp": b"1"}, "dittohead.yaml": "x"}
    folder = tree(
        tmp_path / "x", {"a": b"1", NAME: lines({"a": b"1", ".DS_Store": b"2", "@eaDir/x": b""}), **more}
    )
    assert seen(folder, ignore=("*.tmp",)) == Verdict()
    assert "sub/x.tmp" in seen(folder).lack


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "it is empty"),
        (b"# only words\n", "it is empty"),
        (b"nonsense\n", "line 1 is not a digest"),
        (lines({"a": b"1"}, "md5").encode(), "line 1 has no SHA-256"),
        (b"# files: 2\n" + lines({"a": b"1"}).encode(), "it says that it has 2 files, and has 1"),
        (lines({"a": b"1"}).encode()[:40], "line 1 is not a digest"),
        (b"a" * (1 << 17), "line 1 is too long"),
    ],
)
def test_a_list_that_cannot_be_read_holds_and_says_why(tmp_path: Path, text: bytes, said: str) -> None:
    folder = tree(tmp_path / "x", {"a": b"1", NAME: text})
    assert f"{NAME} cannot be read: {said}" in seen(folder).lack


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    folder = tree(tmp_path / "x", {"a": b"1"})
    (folder / NAME).symlink_to("/etc/passwd")
    assert "is not a regular file" in seen(folder).lack


def test_a_link_is_no_file_that_is_there(tmp_path: Path) -> None:
    folder = tree(tmp_path / "x", {NAME: lines({"a": b"1"})})
    (folder / "a").symlink_to("/etc/passwd")
    assert "not there (a)" in seen(folder).lack


_PARTS = st.binary(min_size=1, max_size=12).filter(
    lambda name: not set(name) & {0, 47} and name not in (b".", b"..")
)


@settings(max_examples=60, deadline=None)
@given(st.sets(_PARTS, min_size=1, max_size=8), st.data())
def test_any_names_at_all_are_compared_to_the_byte(
    tmp_path_factory: pytest.TempPathFactory, names: set[bytes], data: st.DataObject
) -> None:
    """Written as coreutils write them, backslashes and line breaks escaped."""
    names = {name for name in names if not sent_manifest.is_system_name(name)}
    there = data.draw(st.sets(st.sampled_from(sorted(names)))) if names else set()
    listed = data.draw(st.sets(st.sampled_from(sorted(names)), min_size=1)) if names else {b"a"}
    folder = tree(tmp_path_factory.mktemp("x"), dict.fromkeys(there, b""))
    empty = hashlib.sha256(b"").hexdigest()
    text = b"".join(line(Entry(path=name, size=0, sha256=empty)) for name in listed)
    (folder / NAME).write_bytes(text)
    verdict = seen(folder)
    assert bool(verdict.lack) == (there != listed)
    assert ("not there" in verdict.lack) == bool(listed - there)
    assert (f"not in {NAME}" in verdict.lack) == bool(there - listed)
    claimed = folder.parent / f"{folder.name}.jsonl"
    manifest.take(folder, claimed, stop=Stop(), ignore=(sent_manifest.PATTERN,))
    found = sent_manifest.compared(folder, claimed, b"", stop=Stop())
    assert found.missing.count == len(listed - there)
    assert found.surplus.count == len(there - listed)
    assert found.agreed == len(listed & there)


# -- bags ------------------------------------------------------------------------------------------


def bag(payload: dict[str, bytes], **more: Any) -> dict[str | bytes, Any]:
    size = sum(len(data) for data in payload.values())
    return {
        "bagit.txt": "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n",
        "manifest-sha256.txt": lines({f"data/{path}": data for path, data in payload.items()}),
        "bag-info.txt": f"Payload-Oxum: {size}.{len(payload)}\n",
        "data": dict(payload),
        **more,
    }


@pytest.mark.parametrize("inner", [False, True])
def test_a_whole_bag_is_complete_and_one_without_a_file_is_not(tmp_path: Path, inner: bool) -> None:
    whole = bag({"a": b"1", "b": b"22"})
    folder = tree(tmp_path / "x", {"bag": whole} if inner else whole)
    top = folder / "bag" if inner else folder
    assert seen(folder, "bag") == Verdict()
    (top / "data/b").unlink()
    (top / "data/c").write_bytes(b"1")
    prefix = "bag/" if inner else ""
    lack = seen(folder, "bag").lack
    assert f"not there ({prefix}data/b)" in lack
    assert f"not in its bag's manifests ({prefix}data/c)" in lack


def test_a_file_that_still_grows_is_seen_by_the_sizes(tmp_path: Path) -> None:
    folder = tree(tmp_path / "x", bag({"a": b"12345"}))
    (folder / "data/a").write_bytes(b"12")
    verdict = seen(folder, "bag")
    assert verdict.lack.endswith("Payload-Oxum says 1 file and 5 bytes; there are 1 and 2 bytes")
    assert verdict.marks == ()  # by names alone it would never be seen that it has grown


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bagit.txt": "BagIt-Version: 9.0\n"}, "bagit.txt cannot be read"),
        ({"manifest-sha256.txt": "zz  data/a\n"}, "manifest-sha256.txt cannot be read: line 1"),
        ({"manifest-sha256.txt": "00  ../a\n"}, "leads out of the bag"),
        ({"tagmanifest-sha256.txt": lines({"gone.txt": b""})}, "not there (gone.txt)"),
        ({"bag-info.txt": "no label\n"}, "bag-info.txt cannot be read"),
    ],
)
def test_a_bag_that_cannot_be_read_holds_and_says_why(
    tmp_path: Path, change: dict[str, str], said: str
) -> None:
    assert said in seen(tree(tmp_path / "x", bag({"a": b"1"}, **change)), "bag").lack


def test_coded_names_of_a_bag_are_understood_both_ways(tmp_path: Path) -> None:
    digest = "0" * 64
    text = f"{digest}  data/100%25\n{digest}  data/50%\n{digest}  data/a%0Ab\n"
    data = {"100%": b"", "50%": b"", "a\nb": b""}
    more = {"manifest-sha256.txt": text, "bag-info.txt": "Payload-Oxum: 0.3\n"}
    assert seen(tree(tmp_path / "x", bag(data, **more)), "bag") == Verdict()


def test_each_folder_of_a_collection_is_to_be_a_bag(tmp_path: Path) -> None:
    folder = tree(tmp_path / "x", {"1": bag({"a": b"1"}), "2": {"in": bag({"b": b"2"})}, "list.txt": b""})
    assert verdict_on(folder, ["bag"], (), Stop(), each=True) == Verdict()
    (folder / "1/data/a").unlink()
    assert "not there (1/data/a)" in verdict_on(folder, ["bag"], (), Stop(), each=True).lack
    tree(folder / "3", {"a": b"1"})
    lack = verdict_on(folder, ["bag"], (), Stop(), each=True).lack
    assert lack == "3 has no bagit.txt, as a bag has"


# -- lists of checksums ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("checksum.md5", lines({"a.tif": b"1", "sub/b.tif": b"2"}, "md5")),
        ("manifest-sha256.txt", lines({"./a.tif": b"1", "./sub/b.tif": b"2"})),
        ("SHA1SUMS", f"SHA1 (a.tif) = {'0' * 40}\nSHA1 (sub/b.tif) = {'1' * 40}\n"),
        ("x.sha256", lines({"a.tif": b"1", "sub\\b.tif": b"2"}).replace("\n", "\r\n")),
        ("checksums.csv", f"file;md5\na.tif;{'0' * 32}\nsub/b.tif;{'1' * 32}\n"),
    ],
)
def test_lists_of_any_form_say_what_is_to_be_there(tmp_path: Path, name: str, text: str) -> None:
    folder = tree(tmp_path / "x", {"a.tif": b"1", "sub": {"b.tif": b"2"}, name: text})
    assert seen(folder, "list") == Verdict()
    (folder / "sub/b.tif").rename(folder / "sub/c.tif")
    lack = seen(folder, "list").lack
    assert "b.tif)" in lack
    assert f"not in {name} (sub/c.tif)" in lack


def test_a_list_in_wide_text_is_read(tmp_path: Path) -> None:
    text = lines({"ä.tif": b"1", "gone": b"2"}, "md5").encode("utf-16")
    folder = tree(tmp_path / "x", {"ä.tif": b"1", "a.md5": text})
    assert seen(folder, "list").lack == "it is not complete: 1 file of a.md5 not there (gone)"


def test_lists_in_subfolders_name_their_neighbours(tmp_path: Path) -> None:
    inner = {"a": b"1", "x.md5": lines({"a": b"1"}, "md5")}
    folder = tree(tmp_path / "x", {"one": inner, "two": inner, "top.md5": lines({"one/x.md5": b""}, "md5")})
    assert seen(folder, "list") == Verdict()
    (folder / "two/a").unlink()
    assert seen(folder, "list").lack.endswith("1 file of its lists of checksums not there (two/a)")


def test_either_is_enough_and_none_is_not(tmp_path: Path) -> None:
    folder = tree(tmp_path / "x", {"a": b"1"})
    assert seen(folder, "bag").lack == "it has no bagit.txt, as a bag has"
    assert seen(folder, "bag", "list").lack == "it has no bagit.txt, as a bag has, and no list of checksums"
    (folder / "a.md5").write_text(lines({"a": b"1"}, "md5"))
    assert seen(folder, "bag", "list") == Verdict()
    assert seen(tree(tmp_path / "y", bag({"a": b"1"})), "bag", "list") == Verdict()


# -- marks: a look is not repeated for nothing -----------------------------------------------------


@pytest.mark.parametrize("change", ["comes", "goes", "list", "deep"])
def test_marks_tell_that_a_name_has_come_or_gone(tmp_path: Path, change: str) -> None:
    what = {"sub": {"deep": {"a": b"1"}, "none": {}}, NAME: lines({"sub/deep/a": b"1", "gone": b""})}
    folder = tree(tmp_path / "x", what)
    marks = seen(folder).marks
    assert is_unchanged(folder, marks, Stop())
    match change:
        case "comes":
            (folder / "sub/none/b").write_bytes(b"")
        case "goes":
            (folder / "sub/deep/a").unlink()
        case "list":
            (folder / NAME).write_text("")
        case "deep":
            (folder / "sub/deep/new").mkdir()
    assert not is_unchanged(folder, marks, Stop())
    assert not is_unchanged(folder, (), Stop())


async def test_looks_are_not_repeated_while_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path / "root", CONFIG + "watch: {settle: 1ms, settle_in_place: 1ms}\n")
    looks = []
    walks = []
    monkeypatch.setattr(completeness, "verdict_on", lambda *a, **b: looks.append(1) or verdict_on(*a, **b))
    read = waiting_room.read_activity
    monkeypatch.setattr(waiting_room, "read_activity", lambda *a, **b: walks.append(1) or read(*a, **b))
    folder = harness.arrive("x", {"a": b"1", NAME: lines({"a": b"1", "b": b"2"})})
    (arrival,) = harness.stations.scan().arrivals
    held = None
    while not (isinstance(held, Held) and held.kind is HeldKind.INCOMPLETE):
        held = await harness.claimer.claim(arrival)
    before = (len(looks), len(walks))
    for _ in range(5):
        held = await harness.claimer.claim(arrival)
        assert held.kind is HeldKind.INCOMPLETE
    assert (len(looks), len(walks)) == before
    assert held.again_s is not None
    assert "sudo rm -i" in held.command
    (folder / "b").write_bytes(b"2")
    while isinstance(held, Held):
        held = await harness.claimer.claim(arrival)
    assert held is not None
    harness.store.close()


# -- the engine ------------------------------------------------------------------------------------


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path / "root")
    yield made
    made.store.close()


def events(harness: Harness, name: str) -> list[Any]:
    job = harness.job(name)
    path = receipt.path_of(harness.stations.receipts, job)
    import json

    return [one for one in json.loads(path.read_text())["events"] if one["type"] == "fixity check"]


async def test_a_folder_that_is_not_complete_is_held_and_taken_when_it_is(harness: Harness) -> None:
    sent = {"a": b"1", "b": b"2"}
    folder = harness.arrive("x", {"a": b"1", NAME: "# dittohead-send 1.0\n# ann@pc\n" + lines(sent)})
    async with harness.running():
        await harness.until(lambda: b"x" in harness.dispatch.held)
        held = harness.dispatch.held[b"x"]
        assert (held.kind, held.as_dict()["reason"]) == (
            HeldKind.INCOMPLETE,
            f"it is not complete: 1 file of {NAME} not there (b)",
        )
        (folder / "b").write_bytes(b"2")
        await harness.until(lambda: harness.quiet())
    job = harness.job("x")
    assert (job.state, job.files) == (JobState.DONE, 2)
    (event,) = events(harness, "x")
    assert event["detail"] == f"2 files as on the uploader's disk, by {NAME} (dittohead-send 1.0, ann@pc)"
    assert (harness.root / "done/x" / NAME).is_file()
    kept = {entry.path for entry in manifest.read(JobFiles(harness.stations, job).manifest)}
    assert kept == {b"a", b"b"}


async def test_one_of_its_name_further_down_is_payload(harness: Harness) -> None:
    harness.arrive("x", {"sub": {NAME: b"1"}})
    async with harness.running():
        job = await harness.until_over("x")
    assert (job.state, job.files) == (JobState.DONE, 1)


async def test_changed_files_fail_the_job_with_all_the_names(harness: Harness) -> None:
    sent = {f"{number:02}": b"1" for number in range(30)}
    harness.arrive("x", {**dict.fromkeys(sent, b"2"), NAME: lines(sent)})
    async with harness.running():
        job = await harness.until_over("x")
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "30 files with another digest (00, 01" in job.error.what
    assert "19 and 10 more" in job.error.what
    assert (job.error.where, len(job.error.files)) == (NAME, 20)
    assert harness.worker.ran == []
    listed = (JobFiles(harness.stations, job).home / sending.DIFFERENCES).read_text().splitlines()
    assert len(listed) == 30
    (event,) = events(harness, "x")
    assert event["outcome"] == "failure"


async def test_it_is_compared_again_when_the_job_is_tried_again(harness: Harness) -> None:
    """It cannot slip through by a second try; a right file in its place makes it pass."""
    harness.arrive("x", {"a": b"2", NAME: lines({"a": b"1"})})
    async with harness.running():
        job = await harness.until_over("x")
        await harness.ask("retry", job.id)
        await harness.until(lambda: harness.job("x").token > job.token)
        job = await harness.until_over("x")
        assert job.state is JobState.FAILED
        (harness.root / "failed/x/a").write_bytes(b"1")
        (harness.root / "failed/x").rename(harness.root / "inbox/x")
        harness.offer()
        await harness.until(lambda: harness.job("x").state is JobState.DONE)


async def test_a_file_that_somebody_replaced_here_is_let_through_and_told(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is recorded of it, with its digest; another change beside it is not."""
    from dittohead.folders import replacement

    new = hashlib.sha256(b"new").hexdigest()
    sentence = f"a replaced by ann; SHA-256 was {'0' * 64}, is {new} (3 bytes); the earlier file is kept as x"
    folder = tree(harness.root / "f", {"a": b"new", "b": b"1", NAME: lines({"a": b"1", "b": b"1"})})
    claimed = harness.root / "m.jsonl"
    manifest.take(folder, claimed, stop=Stop())
    told = lambda path, sha256: replacement.is_told([sentence], path, sha256)  # noqa: E731
    found = sent_manifest.compared(folder, claimed, b"", stop=Stop(), is_replaced=told)
    assert (bool(found), found.replaced, found.agreed) == (False, 1, 1)
    assert "1 file replaced here since" in sent_manifest.succeeded(found)
    (folder / "a").write_bytes(b"now")
    manifest.take(folder, claimed, stop=Stop())
    assert sent_manifest.compared(folder, claimed, b"", stop=Stop(), is_replaced=told)


async def test_one_of_a_collection_is_compared_folder_by_folder(tmp_path: Path) -> None:
    harness = Harness(tmp_path / "root", CONFIG.replace('"[^!].*"', '"coll"\n    each: folder'))
    sent = {"0001/a": b"1", "0002/a": b"2"}
    harness.arrive("coll", {"0001": {"a": b"1"}, "0002": {"a": b"X"}, NAME: lines(sent)})
    async with harness.running():
        await harness.until(lambda: len([j for j in harness.jobs() if j.finished_at]) == 2)
    states = {job.name: job.state for job in harness.jobs()}
    assert states == {"coll/0001": JobState.DONE, "coll/0002": JobState.FAILED}
    harness.store.close()


async def test_a_pipeline_that_asks_for_a_bag_holds_what_is_none(tmp_path: Path) -> None:
    harness = Harness(tmp_path / "root", CONFIG.replace('"[^!].*"', '"[^!].*"\n    complete: bag'))
    harness.arrive("x", {"a": b"1"})
    harness.arrive("y", bag({"a": b"1"}))
    async with harness.running():
        await harness.until(lambda: harness._over("y") and b"x" in harness.dispatch.held)
    assert harness.dispatch.held[b"x"].reason == "it has no bagit.txt, as a bag has"
    harness.store.close()


@pytest.mark.parametrize(
    ("given", "found"), [("bag", ("bag",)), ("[list, bag]", ("bag", "list")), ("[]", ())]
)
def test_the_key_takes_one_or_both(tmp_path: Path, given: str, found: tuple[str, ...]) -> None:
    text = CONFIG.replace('"[^!].*"', f'"[^!].*"\n    complete: {given}').replace("script", "pack")
    text = text.replace("limits: {jobs: 4, pack: 4}\n", "")
    (tmp_path / "config.yaml").write_text(text)
    assert load(tmp_path / "config.yaml").pipelines[0].settings.completeness == found


def test_the_command_of_the_page_makes_a_list_that_is_read(tmp_path: Path) -> None:
    """With names that need to be escaped."""
    from tests.docs.pages import TOP, blocks

    (block,) = (one for one in blocks(TOP / "docs/arrivals.md") if one.language == "sh")
    folder = tree(tmp_path / "x", {"a": b"1", "line\nbreak \\": b"2", "sub": {"-b": b"3"}})
    subprocess.run(block.text, shell=True, check=True, cwd=folder)  # as people type it
    assert seen(folder) == Verdict()
    claimed = tmp_path / "m.jsonl"
    manifest.take(folder, claimed, stop=Stop(), ignore=(sent_manifest.PATTERN,))
    found = sent_manifest.compared(folder, claimed, b"", stop=Stop())
    assert (bool(found), found.agreed) == (False, 3)
