"""Bags: the public conformance suite, damage of all kinds, and bags that another library accepts."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bagit
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dittohead.model.description import Described, Description, Object
from dittohead.model.errors import ItemError
from dittohead.model.events import EventType
from dittohead.toolkit.bagit import manifests
from dittohead.workers.bag.options import BagOptions
from dittohead.workers.bag.worker import BagWorker
from tests.support.context import LoneContext, source_of
from tests.support.shared import shared
from tests.support.trees import read_tree, tree

SUITE = shared("bagit-conformance-suite.tar.gz")
INVALID = ("invalid", "linux-only", "windows-only")


def cases() -> Iterator[Any]:
    """Yield the members of the suite, each with its directory within it."""
    if not SUITE.exists():
        why = f"LEFT OUT: the BagIt conformance suite is not at {SUITE.name} in ../shared/data"
        yield pytest.param("", marks=pytest.mark.skip(reason=why))
        return
    with tarfile.open(SUITE) as archive:
        names = {"/".join(member.name.split("/")[1:4]) for member in archive if member.name.count("/") > 3}
    yield from sorted(names)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("suite")
    subprocess.run(["tar", "-xzf", SUITE, "-C", home], check=True)
    return next(home.iterdir())


async def checked(base: Path, folder: Path, **options: Any) -> LoneContext:
    ctx = LoneContext(base, folder)
    await BagWorker().run(ctx, BagOptions.model_validate({"check": True, **options}))
    return ctx


async def refused(base: Path, folder: Path, **options: Any) -> str:
    with pytest.raises(ItemError) as caught:
        await checked(base, folder, **options)
    return caught.value.what


def count_of_cases() -> int:
    return sum(1 for case in cases() if isinstance(case, str))


@pytest.mark.parametrize("case", list(cases()))
async def test_the_conformance_suite(suite: Path, tmp_path: Path, case: str) -> None:
    """Valid bags are accepted, those with oddities with a warning, invalid ones refused with a reason."""
    kind = case.split("/")[1]
    if kind in INVALID:
        assert "this is not a valid bag: " in await refused(tmp_path, suite / case)
        return
    ctx = await checked(tmp_path, suite / case)
    (event,) = ctx.events
    assert event.type == EventType.VALIDATION
    assert event.outcome == "warning" if kind == "warning" else event.outcome in ("success", "warning")


def test_the_suite_is_whole() -> None:
    """All of its cases are met: a listing that was cut would pass unseen."""
    if not SUITE.exists():
        pytest.skip(f"LEFT OUT: {SUITE.name} is not in ../shared/data")
    assert count_of_cases() == 60


# -- bags of our own, and what can be wrong with them -------------------------------------------

FILES: dict[str | bytes, Any] = {"a.tif": b"image", "sub": {"é.txt": b"text", "100%.txt": b"%", "empty": b""}}


def bag(base: Path, files: dict[str | bytes, Any] = FILES, algorithms: tuple[str, ...] = ("sha256",)) -> Path:
    """Make a bag by the library that most people use."""
    root = tree(base / "vol", files)
    bagit.make_bag(str(root), checksums=list(algorithms), processes=1)
    return root


def again(root: Path) -> None:
    """Write the tag manifests of a bag again, whose tag files were changed."""
    for path in root.glob("tagmanifest-*.txt"):
        name = path.stem.removeprefix("tagmanifest-")
        others = sorted(one for one in root.iterdir() if one.is_file() and "tagmanifest" not in one.name)
        path.write_text(
            "".join(f"{hashlib.new(name, one.read_bytes()).hexdigest()} {one.name}\n" for one in others)
        )


def listed(root: Path, path: str) -> None:
    with (root / "manifest-sha256.txt").open("a") as file:
        file.write(f"{'0' * 64}  {path}\n")


@pytest.mark.parametrize("algorithms", [("sha256",), ("md5",), ("sha256", "sha512"), ("md5", "sha1")])
async def test_bags_of_another_maker(tmp_path: Path, algorithms: tuple[str, ...]) -> None:
    ctx = await checked(tmp_path, bag(tmp_path, algorithms=algorithms))
    (event,) = ctx.events
    assert (event.outcome, "4 payload files" in event.detail) == ("success", True)
    assert ctx.outputs == []


async def test_everything_wrong_is_named(tmp_path: Path) -> None:
    """Missing, surplus and changed files in one reason; all of them in the step's log."""
    root = bag(tmp_path, {f"{number:03}.tif": b"x" * number for number in range(60)})
    for number in range(20):
        (root / f"data/{number:03}.tif").unlink()
    for number in range(20, 40):
        (root / f"data/{number:03}.tif").write_bytes(b"changed")
    for number in range(100, 120):
        (root / f"data/{number:03}.tif").write_bytes(b"new")
    ctx = LoneContext(tmp_path, root)
    with pytest.raises(ItemError) as caught:
        await BagWorker().run(ctx, BagOptions(check=True))
    what = caught.value.what
    assert "data/000.tif, data/001.tif, data/002.tif, data/003.tif, data/004.tif and 15 more: " in what
    assert "no manifest lists it" in what
    assert "Payload-Oxum" in what
    log = ctx.log_file().read_text()
    assert all(f"error: data/{number:03}.tif: " in log for number in (*range(40), *range(100, 120)))
    assert log.count("error: ") == 61
    assert "All 61 findings: dittohead logs " in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda root: (root / "bagit.txt").unlink(), "this folder is not a bag"),
        (lambda root: (root / "manifest-sha256.txt").unlink(), "no other payload manifest is"),
        (lambda root: (root / "bagit.txt").write_text("BagIt-Version: 2.0\nTag-File-Character-Encoding: UTF-8\n"), "version 2.0 is unknown"),
        (lambda root: (root / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: klingon\n"), "the encoding klingon is unknown"),
        (lambda root: (root / "bagit.txt").write_bytes(b"\xff\xfe\0"), "byte order mark"),
        (lambda root: (root / "bagit.txt").write_bytes(b"\x80\n\n"), "it is not UTF-8"),
        (lambda root: (root / "manifest-sha256.txt").write_text("nonsense\n"), "line 1 is not a digest and a path"),
        (lambda root: (root / "manifest-sha256.txt").write_text("ab  data/a.tif\n"), "a digest of the wrong length for sha256"),
        (lambda root: (root / "manifest-tiger.txt").write_text("ab  data/a.tif\n"), "the algorithm tiger is unknown here"),
        (lambda root: (root / "bag-info.txt").write_text("no label\n"), "line 1 has no label"),
        (lambda root: (root / "fetch.txt").write_text("https://example.org/b.tif 5 data/b.tif\n"), "complete the bag"),
        (lambda root: (root / "fetch.txt").write_text("nonsense\n"), "line 1 is not a URL, a length and a path"),
        (lambda root: listed(root, "bagit.txt"), "it is not a payload file"),
        (lambda root: listed(root, "data/../../x"), "it would lie outside the bag"),
    ],
)  # fmt: skip
async def test_what_is_damaged_is_said(tmp_path: Path, change: Any, reason: str) -> None:
    root = bag(tmp_path)
    change(root)
    again(root)
    assert reason in await refused(tmp_path, root)


async def test_in_1_0_each_manifest_lists_all(tmp_path: Path) -> None:
    root = bag(tmp_path, algorithms=("sha256", "sha512"))
    (root / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n")
    again(root)
    await checked(tmp_path / "1", root)
    path = root / "manifest-sha512.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "a.tif" not in line))
    again(root)
    assert "data/a.tif: manifest-sha512.txt does not list it, and another manifest does" in await refused(
        tmp_path / "2", root
    )


async def test_a_bag_in_the_only_folder(tmp_path: Path) -> None:
    """As an unpacked archive has it; beside another file it is not the bag."""
    root = bag(tmp_path / "box")
    await checked(tmp_path / "1", root.parent)
    (root.parent / "other").write_bytes(b"")
    assert "this folder is not a bag" in await refused(tmp_path / "2", root.parent)


async def test_a_file_with_other_content_is_named_for_those_who_replace_it(tmp_path: Path) -> None:
    """Also in a bag that is the only folder: the path is the folder's. A missing file cannot be replaced."""
    root = bag(tmp_path / "box", {"a.tif": b"a", "b.tif": b"b", "c.tif": b"c"})
    (root / "data/a.tif").write_bytes(b"x")
    (root / "data/b.tif").unlink()
    ctx = LoneContext(tmp_path / "work", root.parent)
    with pytest.raises(ItemError) as told:
        await BagWorker().run(ctx, BagOptions(check=True))
    assert told.value.files == (f"{root.name}/data/a.tif",)


async def test_percent_signs_either_way(tmp_path: Path) -> None:
    """RFC 8493 codes them in 1.0; common tools write them as they are."""
    root = bag(tmp_path, {"100%25.txt": b"a", "b%0A": b"b"})
    assert b"data/100%25.txt" in (root / "manifest-sha256.txt").read_bytes()
    await checked(tmp_path / "1", root)
    data = (root / "manifest-sha256.txt").read_bytes()
    (root / "manifest-sha256.txt").write_bytes(
        data.replace(b"100%25", b"100%2525").replace(b"b%0A", b"b%250A")
    )
    again(root)
    await checked(tmp_path / "2", root)


async def test_ignored_files_are_part_of_the_bag(tmp_path: Path) -> None:
    """A pipeline's `ignore` leaves a file out of the step's files; it is in the bag all the same."""
    root = bag(tmp_path, {"a.tif": b"1", "notes.tmp": b"2"})
    whole = source_of(root)
    source = type(whole)(
        root=root,
        entries=lambda: (one for one in whole.entries() if not one.path.endswith(b".tmp")),
        files=whole.files - 1,
        size=whole.size - 1,
    )
    ctx = LoneContext(tmp_path, root, source=source)
    await BagWorker().run(ctx, BagOptions(check=True))
    (root / "data/notes.tmp").write_bytes(b"3")
    ctx = LoneContext(tmp_path, root, source=source)
    with pytest.raises(ItemError, match=r"data/notes\.tmp: its sha256 is not what"):
        await BagWorker().run(ctx, BagOptions(check=True))


async def test_sha256_is_not_read_again(tmp_path: Path) -> None:
    """The manifest of the claim counts, of which the files were read once already."""
    root = bag(tmp_path, {"a.tif": b"1" * 50_000})
    source = source_of(root)
    (root / "data/a.tif").write_bytes(b"2" * 50_000)
    ctx = LoneContext(tmp_path, root, source=source)
    await BagWorker().run(ctx, BagOptions(check=True))
    assert ctx.progressed == []


# -- profiles ----------------------------------------------------------------------------------

PROFILE: dict[str, Any] = {
    "BagIt-Profile-Info": {"BagIt-Profile-Identifier": "https://example.org/profile.json", "Version": "1.0"},
    "Bag-Info": {
        "Source-Organization": {"required": True, "values": ["City Archive"]},
        "Bagging-Date": {"required": True, "repeatable": False},
    },
    "Manifests-Required": ["sha256"],
    "Manifests-Allowed": ["sha256", "sha512"],
    "Accept-BagIt-Version": ["0.97", "1.0"],
    "Tag-Files-Allowed": ["metadata/*"],
    "Allow-Fetch.txt": False,
}


def profile(base: Path, **changes: Any) -> str:
    path = base / "profile.json"
    path.write_text(json.dumps({**PROFILE, **changes}))
    return str(path)


async def test_a_profile(tmp_path: Path) -> None:
    root = bag(tmp_path)
    path = profile(tmp_path)
    assert "bag-info.txt has no Source-Organization, which is required" in await refused(
        tmp_path / "1", root, profile=path
    )
    with (root / "bag-info.txt").open("a") as file:
        file.write("Source-Organization: City Archive\n")
    again(root)
    await checked(tmp_path / "2", root, profile=path)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Bag-Info": {"Bagging-Date": {"values": ["2000-01-01"]}}}, "bag-info.txt says Bagging-Date: "),
        ({"Bag-Info": {}, "Manifests-Required": ["sha512"]}, "manifest-sha512.txt is required"),
        ({"Bag-Info": {}, "Manifests-Allowed": ["sha512"]}, "manifest-sha256.txt is not allowed"),
        ({"Bag-Info": {}, "Tag-Manifests-Required": ["md5"]}, "tagmanifest-md5.txt is required"),
        ({"Bag-Info": {}, "Tag-Files-Required": ["dc.xml"]}, "the tag file dc.xml is required"),
        ({"Bag-Info": {}, "Tag-Files-Allowed": []}, "the tag file metadata/x is not allowed"),
        ({"Bag-Info": {}, "Accept-BagIt-Version": ["1.0"]}, "its version 0.97 is not accepted (1.0)"),
        ({"Bag-Info": {}, "Fetch.txt-Required": True}, "fetch.txt is required"),
        ({"Bag-Info": {}, "Data-Empty": True}, "data/ must be empty"),
    ],
)
async def test_what_a_profile_asks(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    root = bag(tmp_path)
    (root / "metadata").mkdir()
    (root / "metadata/x").write_bytes(b"")
    assert reason in await refused(tmp_path, root, profile=profile(tmp_path, **changes))


@pytest.mark.parametrize("content", ["[]", "{}", "nonsense", '{"BagIt-Profile-Info": {}, "Bag-Info": []}'])
def test_a_profile_that_is_none_is_said_at_the_start(tmp_path: Path, content: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    (said,) = BagWorker().check(BagOptions(check=True, profile=path))
    assert str(path) in said
    (said,) = BagWorker().check(BagOptions(check=True, profile=tmp_path / "none.json"))
    assert "No such file" in said


# -- making ------------------------------------------------------------------------------------


async def made(base: Path, payload: Path, **options: Any) -> LoneContext:
    ctx = LoneContext(base, payload)
    ctx.claimed_at = 1_700_000_000
    await BagWorker().run(ctx, BagOptions.model_validate(options))
    for output in ctx.outputs:
        data = (ctx.work / os.fsdecode(output.path)).read_bytes()
        assert (output.size, output.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    return ctx


async def test_a_bag_that_others_accept(tmp_path: Path) -> None:
    """Valid by the library that most people use, and by our own check."""
    payload = tree(tmp_path / "vol", {**FILES, b"\xc3\xa9 2.tif": b"z", "line\nbreak": b"n"})
    ctx = await made(tmp_path, payload, info={"Source-Organization": "City Archive\nReading room"})
    assert {os.fsdecode(output.path) for output in ctx.outputs} == {
        os.path.relpath(path, ctx.work) for path in ctx.work.rglob("*") if path.is_file()
    }
    assert read_tree(ctx.work / "data") == read_tree(payload)
    lines = (ctx.work / "bag-info.txt").read_text().splitlines()
    assert lines[:2] == ["Source-Organization: City Archive", "  Reading room"]
    assert {"Bagging-Date: 2023-11-14", "Payload-Oxum: 12.6", "External-Identifier: vol"} <= set(lines)
    await checked(tmp_path / "again", ctx.work)
    # That library cannot read a percent sign as RFC 8493 has it coded.
    (payload / "sub/100%.txt").unlink()
    ctx = await made(tmp_path / "2", payload)
    bagit.Bag(str(ctx.work)).validate(processes=1)


@pytest.mark.parametrize("form", ["folder", "tar", "zip"])
async def test_the_same_each_time(tmp_path: Path, form: str) -> None:
    """Whatever the times on disk; a second run, and one after a try that was cut, leave the same bytes."""
    payload = tree(tmp_path / "vol", FILES)
    ctx = await made(tmp_path / "x", payload, form=form)
    first = read_tree(ctx.work)
    os.utime(payload / "a.tif", (1, 1))
    (ctx.work / "left").mkdir()
    (ctx.work / ".manifest-sha256.tmp").write_bytes(b"half")
    ctx.again()
    await BagWorker().run(ctx, BagOptions.model_validate({"form": form}))
    assert read_tree(ctx.work) == first


@pytest.mark.parametrize("form", ["tar", "zip"])
async def test_an_archive_holds_the_bag(tmp_path: Path, form: str) -> None:
    payload = tree(tmp_path / "vol", {"a.tif": b"image", "sub": {"b": b""}})
    ctx = await made(tmp_path, payload, form=form)
    (output,) = ctx.outputs
    data = (ctx.work / os.fsdecode(output.path)).read_bytes()
    out = tmp_path / "out"
    if form == "tar":
        out.mkdir()
        subprocess.run(["tar", "-xf", "-", "-C", out], input=data, check=True)
    else:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            archive.extractall(out)
    assert [path.name for path in out.iterdir()] == ["vol"]
    bagit.Bag(str(out / "vol")).validate(processes=1)


async def test_a_file_that_changed_since_the_claim_is_not_bagged(tmp_path: Path) -> None:
    payload = tree(tmp_path / "vol", {"a.tif": b"image"})
    source = source_of(payload)
    (payload / "a.tif").write_bytes(b"other")
    ctx = LoneContext(tmp_path, payload, source=source)
    with pytest.raises(ItemError, match="this file is not what it was"):
        await BagWorker().run(ctx, BagOptions())


async def test_empty_folders_are_told(tmp_path: Path) -> None:
    payload = tree(tmp_path / "vol", {"a.tif": b"image", "none": {}})
    ctx = await made(tmp_path, payload)
    (event,) = ctx.events
    assert (event.outcome, "1 empty folder left out" in event.detail) == ("warning", True)


async def test_what_is_known_of_the_object(tmp_path: Path) -> None:
    """Its identifier and title; what the options say goes first."""
    payload = tree(tmp_path / "vol", {"a": b""})
    ctx = LoneContext(tmp_path, payload)
    ctx.description = Described(objects=(Object(description=Description(identifier="X-1", title="A title")),))
    await BagWorker().run(ctx, BagOptions(info={"external-identifier": "mine"}))
    lines = (ctx.work / "bag-info.txt").read_text().splitlines()
    assert "external-identifier: mine" in lines
    assert "External-Description: A title" in lines
    assert not any(line.startswith("External-Identifier") for line in lines)


async def test_a_name_that_a_zip_cannot_hold(tmp_path: Path) -> None:
    payload = tree(tmp_path / "vol", {b"\xff": b"1"})
    with pytest.raises(ItemError, match="a zip archive cannot hold this name"):
        await made(tmp_path / "1", payload, form="zip")
    ctx = await made(tmp_path / "2", payload, form="tar")
    assert len(ctx.outputs) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"check": True, "form": "tar"},
        {"info": {"Payload-Oxum": "1.1"}},
        {"info": {"a: b": "c"}},
        {"algorithms": []},
        {"algorithms": ["sha256", "sha256"]},
        {"algorithms": ["crc32"]},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BagOptions.model_validate(options)


@given(path=st.binary(min_size=1).filter(lambda path: b"\0" not in path))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_path_survives_its_line(path: bytes) -> None:
    """What is written for a path is read back as that path."""
    path = b"data/x" + path
    line = b"0" * 64 + b"  " + manifests.encoded(path) + b"\n"
    (found,) = manifests.lines(io.BytesIO(line), "utf-8", "sha256")
    assert manifests.decoded(found.path) == path
