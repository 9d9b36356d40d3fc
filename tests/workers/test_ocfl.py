"""OCFL: the public fixtures, objects and versions as another validator accepts them, kills at every point."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from dittohead.cli import main
from dittohead.contract.worker import Done, VerifyContext
from dittohead.model.errors import ChangedError, ItemError, TargetError, TransientError
from dittohead.system import fail_points, files
from dittohead.system.fail_points import OCFL_POINTS
from dittohead.toolkit.ocfl import layouts, storage_root
from dittohead.toolkit.ocfl.check import ObjectCheck, RootCheck
from dittohead.workers.ocfl.options import OcflOptions
from dittohead.workers.ocfl.worker import OcflWorker
from tests.crash.power import KINDS, disk
from tests.support.context import LoneContext
from tests.support.length import LONG
from tests.support.shared import shared
from tests.support.trees import read_tree, tree

TOP = Path(__file__).parents[2]
FIXTURES = shared("ocfl-fixtures-1.1.tar.gz")
MISSING = f"LEFT OUT: THE OCFL FIXTURES (OCFL/fixtures) ARE NOT AT {FIXTURES.name} IN ../shared/data"

FILES: dict[str | bytes, Any] = {
    "a.tif": b"image",
    "sub": {"é.txt": b"text", "copy.tif": b"image"},
    "empty": b"",
}


# -- the fixtures --------------------------------------------------------------------------------


def cases() -> Iterator[Any]:
    """Yield the fixtures' objects, each by its path."""
    if not FIXTURES.exists():
        yield pytest.param("", marks=pytest.mark.skip(reason=MISSING))
        return
    with tarfile.open(FIXTURES) as archive:
        paths = (member.name.split("/") for member in archive)
        yield from sorted(
            {"/".join(parts[1:4]) for parts in paths if len(parts) > 3 and "-objects" in parts[2]}
        )


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("fixtures")
    subprocess.run(["tar", "-xzf", FIXTURES, "-C", home], check=True)
    return next(home.iterdir())


@pytest.mark.parametrize("case", list(cases()))
def test_the_fixtures(fixtures: Path, case: str) -> None:
    """Good objects have no finding, the others those that their names say, by the specification's codes."""
    check = ObjectCheck(fixtures / case)
    check.run()
    kind, name = case.split("/")[1:]
    said = set(re.findall(r"[EW]\d{3}", name))
    assert bool(check.findings.errors) == (kind == "bad-objects")
    assert check.findings.codes >= said
    assert kind != "good-objects" or not check.findings.codes


def test_the_fixtures_are_whole() -> None:
    if not FIXTURES.exists():
        pytest.skip(MISSING)
    assert sum(isinstance(case, str) for case in cases()) == 80


# -- layouts -------------------------------------------------------------------------------------

LONG_ID = "abcdefghij" * 26


@pytest.mark.parametrize(
    ("name", "parameters", "id_", "path"),
    [
        ("0002", {}, "object-01", "object-01"),
        ("0002", {}, "..hor_rib:lé-$id", "..hor_rib:lé-$id"),
        ("0003", {}, "object-01", "3c0/ff4/240/object-01"),
        ("0003", {}, "..Hor/rib:lè-$id", "373/529/21a/%2e%2eHor%2frib%3al%c3%a8-%24id"),
        ("0003", {"tupleSize": 0, "numberOfTuples": 0}, "object-01", "object-01"),
        (
            "0003",
            {},
            LONG_ID,
            f"55b/432/806/{LONG_ID[:100]}-55b432806f4e270da0cf23815ed338742179002153cd8d896f23b3e2d8a14359",
        ),
        (
            "0004",
            {},
            "..hor/rib:le-$id",
            "487/326/d8c/487326d8c2a3c0b885e23da1469b4d6671fd4e76978924b4443e9e3c316cda6d",
        ),
        (
            "0004",
            {"digestAlgorithm": "md5", "tupleSize": 2, "numberOfTuples": 15, "shortObjectRoot": True},
            "object-01",
            "ff/75/53/44/92/48/5e/ab/b3/9f/86/35/67/28/88/4e",
        ),
        ("0006", {"delimiter": ":"}, "urn:uuid:6e8bc430", "6e8bc430"),
        ("0006", {"delimiter": "EDU/"}, "https://institution.edu/abc/edu/f8.05v", "f8.05v"),
        (
            "0007",
            {"tupleSize": 4, "numberOfTuples": 2, "reverseObjectRoot": True},
            "abc123",
            "321c/ba00/abc123",
        ),
        (
            "0007",
            {"delimiter": "edu/", "zeroPadding": "right"},
            "https://x.edu/3448793",
            "344/879/300/3448793",
        ),
    ],
)
def test_layouts_as_their_pages_show(name: str, parameters: dict[str, Any], id_: str, path: str) -> None:
    """The examples of the extensions' own pages."""
    assert layouts.layout(name, parameters).path(id_) == path


@pytest.mark.parametrize(
    ("name", "parameters", "id_"),
    [
        ("0002", {}, "a/b"),
        ("0002", {}, ".."),
        ("0002", {}, "extensions"),
        ("0002", {}, "0=ocfl_1.1"),
        ("0002", {}, "x" * 256),
        ("0002", {}, "é" * 128),
        ("0006", {"delimiter": ":"}, "urn:"),
        ("0007", {}, "urn:é"),
        ("0007", {"tupleSize": 2}, "..abcdef"),
    ],
)
def test_ids_without_a_place(name: str, parameters: dict[str, Any], id_: str) -> None:
    with pytest.raises(layouts.NoPlace):
        layouts.layout(name, parameters).path(id_)


@pytest.mark.parametrize(
    "given",
    [
        {"layout": "0005"},
        {"layout": "0003-flat"},
        {"layout": "0006"},  # the delimiter is missing
        {"layout": "0004", "layout_config": {"tupleSize": 32, "numberOfTuples": 3}},
        {"layout": "0004", "layout_config": {"tupleSize": 0}},
        {"layout": "0004", "layout_config": {"digestAlgorithm": "crc32"}},
        {"layout": "0004", "layout_config": {"digestAlgorithm": ["md5"]}},
        {"layout": "0003", "layout_config": {"shortObjectRoot": True}},
        {"root": "relative"},
        {"id": ""},
    ],
)
def test_options_that_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OcflOptions.model_validate({"root": "/srv/ocfl", **given})


# -- writing -------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "ocfl"
    made.mkdir()
    return made


async def stored(base: Path, root: Path, folder: Path, **options: Any) -> tuple[LoneContext, str]:
    ctx = LoneContext(base, folder)
    done = await OcflWorker().run(ctx, OcflOptions.model_validate({"root": str(root), **options}))
    assert isinstance(done, Done)
    return ctx, done.detail


def valid(root: Path) -> set[str]:
    """Return the codes of what is odd in a valid root; nothing of ours is left in it."""
    check = RootCheck(root)
    findings = check.run()
    assert findings.errors == []
    assert not (root / "extensions" / storage_root.WORK).exists()
    return {one.code for one in findings.warnings}


def heads(root: Path) -> list[dict[str, Any]]:
    """Return the inventories of all objects."""
    return [
        json.loads((path.parent / "inventory.json").read_bytes())
        for path in sorted(root.rglob("0=ocfl_obj*"))
    ]


def logical(root: Path, version: str = "") -> dict[str, bytes]:
    """Return the files of the only object, by their logical paths."""
    (inventory,) = heads(root)
    (place,) = {path.parent for path in root.rglob("0=ocfl_object_1.1")}
    state = inventory["versions"][version or inventory["head"]]["state"]
    content = inventory["manifest"]
    return {
        name: (place / content[digest][0]).read_bytes() for digest, names in state.items() for name in names
    }


FLAT = {"a.tif": b"image", "sub/é.txt": b"text", "sub/copy.tif": b"image", "empty": b""}
ABOUT = {"id": "urn:example:{name}", "user": {"name": "A", "address": "mailto:a@example.org"}}


@pytest.mark.parametrize("layout", ["0002", "0003", "0004", "0006", "0007"])
@pytest.mark.parametrize("digest", ["sha512", "sha256"])
async def test_a_new_object(tmp_path: Path, root: Path, layout: str, digest: str) -> None:
    """It is valid, holds each content once, and each file has a location whose bytes are right."""
    config = {"delimiter": ":"} if layout == "0006" else {}
    folder = tree(tmp_path / "vol", FILES)
    given = {**ABOUT, "id": "urn:example:vol", "layout": layout, "layout_config": config, "digest": digest}
    ctx, detail = await stored(tmp_path, root, folder, **given, fixity=["md5", "sha256"])
    assert valid(root) == (set() if digest == "sha512" else {"W004"})
    assert logical(root) == FLAT
    assert "v1: 4 files" in detail
    assert len({location.uri for location in ctx.locations}) == 3
    for location in ctx.locations:
        path = os.fsencode(unquote(location.uri.removeprefix("file://")))
        assert files.sha256_file(path)[0] == location.sha256
        assert location.verified_by == f"{digest} read-back"
    assert [(event.type, event.outcome) for event in ctx.events] == [
        ("replication", "success"),
        ("fixity check", "success"),
    ]
    assert ctx.fullness[0][0] == str(root)


async def test_a_new_version_holds_only_what_is_new(tmp_path: Path, root: Path) -> None:
    """Content that any version had is not stored again; earlier versions stay as they were, byte for byte."""
    folder = tree(tmp_path / "vol", FILES)
    await stored(tmp_path, root, folder, **ABOUT)
    before = {path: path.read_bytes() for path in root.rglob("v1/**/*") if path.is_file()}
    (folder / "a.tif").write_bytes(b"edited")
    (folder / "empty").unlink()
    (folder / "moved.txt").write_bytes(b"text")
    ctx, detail = await stored(tmp_path, root, folder, **ABOUT, digest="sha256")
    assert "v2: 4 files" in detail
    assert "3 files of which the object had already" in detail
    assert valid(root) == set()
    assert logical(root) == {
        "a.tif": b"edited",
        "sub/é.txt": b"text",
        "sub/copy.tif": b"image",
        "moved.txt": b"text",
    }
    assert logical(root, "v1") == FLAT
    assert {path: path.read_bytes() for path in before} == before
    (second,) = root.rglob("v2")
    assert sorted(path.name for path in second.rglob("content/**/*")) == ["a.tif"]
    assert {location.path for location in ctx.locations} == {
        b"a.tif",
        "sub/é.txt".encode(),
        b"sub/copy.tif",
        b"moved.txt",
    }


async def test_the_same_files_make_no_new_version(tmp_path: Path, root: Path) -> None:
    folder = tree(tmp_path / "vol", FILES)
    await stored(tmp_path, root, folder, **ABOUT)
    before = read_tree(root)
    ctx, detail = await stored(tmp_path, root, folder, **ABOUT)
    assert "no new version" in detail
    assert read_tree(root) == before
    assert len(ctx.locations) == 4


@pytest.mark.parametrize(
    "id_", ["a/b/../c", "Ünïcode 書", "x" * 3000, "..", "%2e", "A", "CON", "a\nb", "extensions"]
)
async def test_ids_of_all_kinds(tmp_path: Path, root: Path, id_: str) -> None:
    """By the layout of a new root each id has a place of its own."""
    await stored(tmp_path, root, tree(tmp_path / "vol", FILES), id=id_)
    await stored(tmp_path, root, tree(tmp_path / "vol2", {"a": b"other"}), id=id_.swapcase() + "2")
    assert {head["id"] for head in heads(root)} == {id_, id_.swapcase() + "2"}
    valid(root)


async def test_an_id_that_the_layout_cannot_hold(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ItemError, match="has no place in this storage root"):
        await stored(tmp_path, root, tree(tmp_path / "vol", FILES), id="a/b", layout="0002")
    valid(root)


async def test_two_ids_at_one_place(tmp_path: Path, root: Path) -> None:
    """A layout that drops prefixes may send two ids to one place: the second is refused, the first untouched."""
    given = {"layout": "0006", "layout_config": {"delimiter": ":"}}
    await stored(tmp_path, root, tree(tmp_path / "vol", FILES), id="a:1", **given)
    before = read_tree(root)
    with pytest.raises(ItemError, match='another object, "a:1", lies at this place'):
        await stored(tmp_path, root, tree(tmp_path / "vol2", FILES), id="b:1", **given)
    assert read_tree(root) == before


async def test_names_that_are_one_elsewhere_get_content_paths_that_are_not(
    tmp_path: Path, root: Path
) -> None:
    """So that the root can be copied to any file system; the logical paths are the folder's own."""
    twins: dict[str | bytes, Any] = {
        "A": b"1",
        "a": b"2",
        "Sub": {"x": b"3"},
        "sub": {"x": b"4"},
        "a~2": b"5",
    }
    await stored(tmp_path, root, tree(tmp_path / "vol", twins))
    valid(root)
    assert logical(root) == {"A": b"1", "a": b"2", "Sub/x": b"3", "sub/x": b"4", "a~2": b"5"}
    (inventory,) = heads(root)
    paths = [path for paths in inventory["manifest"].values() for path in paths]
    assert len({path.lower() for path in paths}) == len(paths)


async def test_names_that_are_not_text(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ItemError, match="not UTF-8"):
        await stored(tmp_path, root, tree(tmp_path / "vol", {b"\xff.tif": b"x", "a": b"y"}))
    assert heads(root) == []
    valid(root)


async def test_empty_folders_are_said(tmp_path: Path, root: Path) -> None:
    ctx, _ = await stored(tmp_path, root, tree(tmp_path / "vol", {"a": b"x", "none": {}}))
    assert ctx.events[0].outcome == "warning"
    assert "1 empty folder left out" in ctx.events[0].detail
    valid(root)


async def test_a_file_that_changed_since_the_claim(tmp_path: Path, root: Path) -> None:
    folder = tree(tmp_path / "vol", FILES)
    ctx = LoneContext(tmp_path, folder)
    (folder / "a.tif").write_bytes(b"IMAGE")
    with pytest.raises(ChangedError):
        await OcflWorker().run(ctx, OcflOptions(root=str(root)))
    assert heads(root) == []
    valid(root)


async def test_many_writers_of_many_objects(tmp_path: Path, root: Path) -> None:
    """All at once, in the same directories; those of one object wait for each other."""
    folders = [tree(tmp_path / f"vol{n}", {"a": b"%d" % n, "same": b"x"}) for n in range(12)]
    given = {"layout": "0004", "layout_config": {"tupleSize": 1, "numberOfTuples": 1}}
    await asyncio.gather(
        *(
            stored(tmp_path / str(n), root, folder, id=f"o{n % 4}", **given)
            for n, folder in enumerate(folders)
        )
    )
    valid(root)
    assert sorted(head["head"] for head in heads(root)) == ["v3"] * 4


async def test_damage_after_the_copy_is_found(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies at the target is read again before the step is done."""

    def harm(name: str) -> None:
        if name == "ocfl.published":
            (place,) = root.rglob("a.tif")
            place.write_bytes(bytes([place.read_bytes()[0] ^ 1]) + place.read_bytes()[1:])

    monkeypatch.setattr(fail_points, "point", harm)
    with pytest.raises(TransientError, match="E092"):
        await stored(tmp_path, root, tree(tmp_path / "vol", FILES))


async def test_a_damaged_object_gets_no_new_version(tmp_path: Path, root: Path) -> None:
    await stored(tmp_path, root, tree(tmp_path / "vol", FILES), id="x")
    (sidecar,) = (path.parent / "inventory.json.sha512" for path in root.rglob("0=ocfl_obj*"))
    sidecar.write_text("0" * 128 + " inventory.json\n")
    (place,) = root.rglob("v1")
    (place / "inventory.json.sha512").unlink()
    before = read_tree(root)
    with pytest.raises(ItemError, match="E0"):
        await stored(tmp_path, root, tree(tmp_path / "vol2", {"b": b"y"}), id="x")
    assert read_tree(root) == before


# -- roots ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"photos": {"a": b"x"}}, "not an OCFL storage root"),
        ({"notes.txt": b"x"}, "not an OCFL storage root"),
        ({"0=ocfl_1.0": b"ocfl_1.0\n"}, "only 0=ocfl_1.1"),
        ({"0=ocfl_2.0": b"ocfl_2.0\n"}, "only 0=ocfl_1.1"),
        ({"0=ocfl_1.1": b"ocfl_1.1\n", "0=ocfl_1.0": b"ocfl_1.0\n"}, "only 0=ocfl_1.1"),
        ({"0=ocfl_object_1.1": b"ocfl_object_1.1\n"}, "this is an OCFL object"),
        ({"0=ocfl_1.1": b"ocfl_1.1\n"}, "ocfl_layout.json is not there"),
        ({"0=ocfl_1.1": b"ocfl_1.1\n", "ocfl_layout.json": b"{"}, "not JSON"),
        (
            {"0=ocfl_1.1": b"ocfl_1.1\n", "ocfl_layout.json": b'{"extension": "0005-mutable-head"}'},
            "0005-mutable-head",
        ),
        ({"0=ocfl_1.1": b"ocfl_1.1\n", "ocfl_layout.json": b'{"extension": "../x"}'}, '"../x" is unknown'),
    ],
)
async def test_what_is_no_root_pauses_the_target(
    tmp_path: Path, what: dict[str | bytes, Any], said: str
) -> None:
    """No folder fails for it, and nothing there is touched."""
    root = tree(tmp_path / "ocfl", what)
    before = read_tree(root)
    with pytest.raises(TargetError, match=re.escape(said)):
        await stored(tmp_path, root, tree(tmp_path / "vol", FILES))
    assert read_tree(root) == before


async def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="not there"):
        await stored(tmp_path, tmp_path / "ocfl", tree(tmp_path / "vol", FILES))
    assert not (tmp_path / "ocfl").exists()


async def test_a_mount_that_is_not_there(tmp_path: Path, root: Path) -> None:
    with pytest.raises(TargetError, match="nothing is mounted here"):
        await stored(tmp_path, root, tree(tmp_path / "vol", FILES), mount=str(tmp_path))
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [(errno.ENOLCK, "has no locks"), (errno.EACCES, "may not write there"), (errno.ENOSPC, "No space left")],
)
async def test_a_root_that_cannot_be_written_pauses_the_target(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    def refuse(fd: int, how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(TargetError, match=said) as met:
        await stored(tmp_path, root, tree(tmp_path / "vol", FILES))
    assert met.value.full == (code == errno.ENOSPC)
    assert heads(root) == []


async def test_a_writer_waits_for_one_of_another_process(tmp_path: Path, root: Path) -> None:
    """The lock is the kernel's, so another daemon of this host waits; a killed one keeps nobody waiting."""
    folder = tree(tmp_path / "vol", FILES)
    await stored(tmp_path, root, folder, id="x")
    held = storage_root.taken(os.fsencode(root), storage_root.key_of("x"), lambda: None)
    (folder / "a.tif").write_bytes(b"edited")
    waiting = asyncio.ensure_future(stored(tmp_path, root, folder, id="x"))
    await stored(tmp_path, root, tree(tmp_path / "vol2", FILES), id="y")  # another object need not wait
    assert not waiting.done()
    held.close()
    await waiting
    valid(root)
    assert sorted(head["head"] for head in heads(root)) == ["v1", "v2"]


async def test_a_root_keeps_its_layout(tmp_path: Path, root: Path) -> None:
    await stored(tmp_path, root, tree(tmp_path / "vol", FILES), id="one", layout="0002")
    await stored(tmp_path, root, tree(tmp_path / "vol2", FILES), id="two", layout="0004")
    assert (root / "two/0=ocfl_object_1.1").exists()
    valid(root)


async def test_doctor_says_what_a_root_is(tmp_path: Path, root: Path) -> None:
    async def said(path: Path) -> list[tuple[bool, str]]:
        options = OcflOptions(root=str(path))
        return [one async for one in OcflWorker().examine(options, lambda name: "", {"root": str(path)})]

    ((good, words),) = await said(root)
    assert good
    assert "becomes a storage root" in words
    await stored(tmp_path, root, tree(tmp_path / "vol", FILES))
    ((good, words),) = await said(root)
    assert good
    assert "layout 0003-hash-and-id-n-tuple-storage-layout" in words
    ((good, words),) = await said(tmp_path / "none")
    assert not good


async def test_plan_changes_nothing(tmp_path: Path, root: Path) -> None:
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", FILES))
    planned = [one async for one in OcflWorker().plan(ctx, OcflOptions(root=str(root), id="x"))]
    assert planned[0].what == "version v1 of x"
    assert len(planned) == 5
    assert list(root.iterdir()) == []


async def test_verify_reads_the_object_again(tmp_path: Path, root: Path) -> None:
    ctx, _ = await stored(tmp_path, root, tree(tmp_path / "vol", FILES), id="x")

    async def reported() -> list[tuple[bool, str, str]]:
        found: list[tuple[bool, str, str]] = []
        context = VerifyContext(
            locations=lambda: iter(ctx.locations), source=None, env={}, report=lambda *one: found.append(one)
        )
        await OcflWorker().verify(context, OcflOptions(root=str(root), id="x"))
        return found

    assert [good for good, _, _ in await reported()] == [True] * 4
    (place,) = root.rglob("a.tif")
    place.write_bytes(b"imagE")
    bad = [words for good, _, words in await reported() if not good]
    assert any("E092" in words for words in bad)
    assert bad.count("differs from the receipt") == 2  # the file, and its copy of the same content
    place.unlink()
    assert any("cannot be read" in words for good, _, words in await reported() if not good)


# -- death at any moment -------------------------------------------------------------------------


def write(base: Path, folder: Path, root: Path, dies: str = "", disk: str = "") -> int:
    """Store a folder in another process, which may be killed; return its exit status."""
    env = {
        **os.environ,
        "PYTHONPATH": str(TOP),
        "MORTAL_DIES": dies,
        "MORTAL_ROOT": str(base),
        "MORTAL_DISK": disk,
    }
    argv = [
        sys.executable,
        "-m",
        "tests.workers.ocfl_writer",
        str(base),
        str(folder),
        str(root),
        '{"id": "x"}',
    ]
    return subprocess.run(argv, env=env, cwd=TOP, check=False, capture_output=True).returncode


VERSIONS = [FLAT, {"a.tif": b"edited", "new": b"file"}]


def folders(base: Path) -> list[Path]:
    return [tree(base / "v1/vol", FILES), tree(base / "v2/vol", {"a.tif": b"edited", "new": b"file"})]


def check_whole(root: Path, done: int) -> None:
    valid(root)
    (inventory,) = heads(root)
    assert inventory["head"] == f"v{done}"
    for number in range(1, done + 1):
        assert logical(root, f"v{number}") == VERSIONS[number - 1]


PLACES = [(0, "file.written:1"), (0, "file.renamed:1"), (0, "file.renamed:2"), (0, "file.renamed:3")]
PLACES += [(0, f"{point}:1") for point in OCFL_POINTS if point not in ("ocfl.inventory", "ocfl.sidecar")]
PLACES += [(1, f"{point}:1") for point in OCFL_POINTS]


@pytest.mark.parametrize(("which", "point"), PLACES)
def test_a_kill_at_every_point_leaves_one_whole_object(
    tmp_path: Path, root: Path, which: int, point: str
) -> None:
    """The next run, of the same folder, leaves what one run alone would have left."""
    given = folders(tmp_path)
    for folder in given[:which]:
        assert write(tmp_path, folder, root) == 0
    assert write(tmp_path, given[which], root, f"{point}:kill") == -9
    assert write(tmp_path, given[which], root) == 0
    check_whole(root, which + 1)


@pytest.mark.parametrize("point", OCFL_POINTS)
def test_the_next_version_ends_what_a_kill_left(tmp_path: Path, root: Path, point: str) -> None:
    """Also where the folder that was killed never comes back: another version, or another object, is written."""
    first, second = folders(tmp_path)
    assert write(tmp_path, first, root) == 0
    assert write(tmp_path, second, root, f"{point}:1:kill") == -9
    third = tree(tmp_path / "v3/vol", {"third": b"3"})
    assert write(tmp_path, third, root) == 0
    valid(root)
    is_placed = OCFL_POINTS.index(point) >= OCFL_POINTS.index("ocfl.placed")
    assert heads(root)[0]["head"] == ("v3" if is_placed else "v2")
    assert logical(root) == {"third": b"3"}


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.rest
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_power_cut_at_every_point_loses_nothing(tmp_path: Path, kind: str) -> None:
    """A real file system forgets all that was not made durable; what it has is valid, and work goes on."""
    first, second = folders(tmp_path)
    places = PLACES if LONG else PLACES[sorted(KINDS).index(kind) :: 2]  # in a quick run the kinds share them
    with disk(tmp_path, kind) as drive:
        for number, (which, point) in enumerate(places):
            root = drive.mount / f"root{number}"
            root.mkdir()
            files.sync_filesystem(drive.mount)
            if which:
                assert write(tmp_path, first, root) == 0
            assert write(tmp_path, [first, second][which], root, f"{point}:power", str(drive.mount)) == -9
            drive.again()
            assert write(tmp_path, [first, second][which], root) == 0
            check_whole(root, which + 1)


async def test_nothing_is_renamed_that_is_not_durable(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All is synchronised before the first rename into place, and each directory after its last."""
    folder = tree(tmp_path / "vol", FILES)
    await stored(tmp_path, root, folder, id="x")
    (folder / "a.tif").write_bytes(b"edited")
    seen: list[str] = []
    (place,) = {path.parent for path in root.rglob("0=ocfl_object_1.1")}

    def watched(name: str, real: Any) -> Any:
        def call(*args: Any) -> Any:
            into = os.fsdecode(args[-1])
            if name != "rename" or into.startswith(str(place)):
                seen.append(f"{name} {os.path.basename(into)}")
            return real(*args)

        return call

    monkeypatch.setattr(os, "rename", watched("rename", os.rename))
    monkeypatch.setattr(files, "rename_noreplace", watched("rename", files.rename_noreplace))
    monkeypatch.setattr(files, "fsync_dir", watched("fsync", files.fsync_dir))
    monkeypatch.setattr(files, "sync_filesystem", watched("sync", files.sync_filesystem))
    await stored(tmp_path, root, folder, id="x")
    key = storage_root.key_of("x")
    assert seen == [
        f"sync {key}.new",
        "rename v2",
        f"fsync {place.name}",
        "rename inventory.json",
        "rename inventory.json.sha512",
        f"fsync {place.name}",
    ]


# -- commands ------------------------------------------------------------------------------------


async def test_commands_list_verify_export(tmp_path: Path, root: Path) -> None:
    folder = tree(tmp_path / "vol", FILES)
    await stored(tmp_path, root, folder, **{**ABOUT, "id": "urn:x"})
    (folder / "a.tif").write_bytes(b"edited")
    await stored(tmp_path, root, folder, **{**ABOUT, "id": "urn:x"})
    run = CliRunner().invoke
    listed = run(main, ["ocfl", "list", str(root), "--json"])
    assert json.loads(listed.output) == {"id": "urn:x", "head": "v2", "files": 4, "path": heads_path(root)}
    assert run(main, ["ocfl", "verify", str(root)]).output.strip() == "1 object: valid; 0 errors, 0 warnings"
    assert run(main, ["ocfl", "export", str(root), "urn:x", str(tmp_path / "now")]).exit_code == 0
    assert (
        run(main, ["ocfl", "export", str(root), "urn:x", str(tmp_path / "v1"), "--version", "v1"]).exit_code
        == 0
    )
    assert (tmp_path / "now/a.tif").read_bytes() == b"edited"
    assert {os.fsdecode(path): data for path, data in read_tree(tmp_path / "v1").items()} == FLAT
    assert run(main, ["ocfl", "export", str(root), "urn:y", str(tmp_path / "no")]).exit_code != 0
    (place,) = root.rglob("v1/**/a.tif")
    place.write_bytes(b"imagE")
    told = run(main, ["ocfl", "verify", str(root), "urn:x"])
    assert told.exit_code == os.EX_DATAERR
    assert "E092 v1/content/a.tif" in told.output
    assert (
        run(main, ["ocfl", "export", str(root), "urn:x", str(tmp_path / "bad"), "--version", "v1"]).exit_code
        != 0
    )
    assert not (tmp_path / "bad").exists()


def heads_path(root: Path) -> str:
    (place,) = {path.parent for path in root.rglob("0=ocfl_object_1.1")}
    return str(place.relative_to(root))


async def test_what_may_not_lie_in_a_root_is_found(tmp_path: Path, root: Path) -> None:
    """Each by its code; files directly in the root may be anything."""
    await stored(tmp_path, root, tree(tmp_path / "vol", FILES), **{**ABOUT, "id": "urn:x"})
    (root / "README.md").write_text("about")
    assert valid(root) == set()
    tree(root / "more", {"stray.txt": b"x", "none": {}})
    (root / "link").symlink_to("/etc")
    (root / "extensions/file").write_text("x")
    (root / "0=ocfl_1.1").write_text("ocfl_1.1")
    assert {one.code for one in RootCheck(root).run().errors} == {"E072", "E073", "E080", "E090", "E112"}


# -- another's validator -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ocfl_py(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of ocfl-py, in an environment of its own: it brings a package called `tests`."""
    home = tmp_path_factory.mktemp("ocfl-py")
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    got = subprocess.run(
        [home / "bin/python", "-m", "pip", "install", "-q", "ocfl-py==2.1.0"],
        check=False,
        capture_output=True,
        text=True,
    )
    if got.returncode != 0:
        pytest.skip("LEFT OUT: OCFL-PY CANNOT BE INSTALLED HERE, whose validator is the second opinion")
    return home / "bin"


@pytest.mark.service
@pytest.mark.slow
@pytest.mark.rest
@pytest.mark.timeout(600)
async def test_another_validator_accepts_what_is_made(tmp_path: Path, root: Path, ocfl_py: Path) -> None:
    """ocfl-py finds nothing wrong with a root of three objects, one of them in three versions."""
    folder = tree(tmp_path / "vol", FILES)
    for number in range(3):
        (folder / "a.tif").write_bytes(b"%d" % number)
        await stored(tmp_path, root, folder, **{**ABOUT, "id": "urn:a"}, fixity=["md5", "blake2b-512"])
    await stored(tmp_path, root, folder, **{**ABOUT, "id": "urn:b"}, digest="sha256")
    await stored(tmp_path, root, folder, **{**ABOUT, "id": "urn:Ünï/" + "x" * 300})
    done = subprocess.run(
        [ocfl_py / "ocfl-root.py", "validate", "--root", root], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "E0" not in done.stdout + done.stderr
