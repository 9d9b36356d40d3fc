"""One order of pages: a total one, the one people mean, and the same wherever pages are put in order."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from dittohead.cli import main
from dittohead.contract.worker import Inputs, Made
from dittohead.model.records import Location, Output
from dittohead.system.threads import Stop
from dittohead.toolkit.natural_order import key, page_key
from dittohead.web.pages.thumbnails import pictures
from dittohead.workers.archivesspace import diff
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from dittohead.workers.archivesspace.preflight import FoundObject
from dittohead.workers.describe import DescribeOptions, DescribeWorker
from dittohead.workers.iiif.worker import IiifOptions, IiifWorker
from dittohead.workers.islandora import objects
from dittohead.workers.islandora.options import IslandoraOptions
from tests.support import iiif
from tests.support.context import LoneContext, source_of
from tests.support.harness import Harness
from tests.support.images import jpeg
from tests.support.trees import tree

# -- the order -----------------------------------------------------------------------------------

#: Names of the awkward kinds: digits of several scripts, zeros, cases, accents in both ways, no UTF-8.
names = st.one_of(
    st.text(st.sampled_from("pPßéÉ019-_. ٣९²"), min_size=1, max_size=8).map(
        lambda text: text.encode().replace(b"/", b"")
    ),
    st.binary(min_size=1, max_size=4).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_")),
    st.sampled_from(
        [b"p1.tif", b"P1.tif", b"p01.tif", b"p1-2.tif", b"p10", "e\u0301".encode(), "\u00e9".encode()]
    ),
)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)


@given(st.lists(paths, unique=True, max_size=12), st.randoms(use_true_random=False))
def test_the_order_is_total_and_does_not_depend_on_where_names_come_from(
    found: list[bytes], mixing: random.Random
) -> None:
    """Of two paths one comes first, and not the other; shuffled they come out the same."""
    ordered = sorted(found, key=key)
    mixing.shuffle(found)
    assert sorted(found, key=key) == ordered
    for number, one in enumerate(ordered):
        for other in ordered[number + 1 :]:
            assert key(one) < key(other)
            assert not key(other) < key(one)


@given(st.lists(paths, unique=True, max_size=12))
def test_a_folders_own_files_come_first_and_stand_together(found: list[bytes]) -> None:
    """No folder is left and entered again, not even where another differs by case alone."""
    ordered = sorted(found, key=key)
    folders = [os.path.dirname(path) for path in ordered]
    for depth in range(1, 4):
        outer = [b"/".join(path.split(b"/")[:depth]) for path in ordered if path.count(b"/") >= depth]
        runs = [one for number, one in enumerate(outer) if number == 0 or outer[number - 1] != one]
        assert len(runs) == len(set(runs))
    for number, folder in enumerate(folders):
        below = folder + b"/" if folder else b""
        assert not any(inner != folder and inner.startswith(below) for inner in folders[:number])


@given(st.integers(0, 10**30), st.integers(0, 10**30), st.integers(0, 3), st.sampled_from(["٠", "०", "0"]))
def test_numbers_count_by_value_in_any_script(one: int, other: int, zeros: int, zero: str) -> None:
    """Leading zeros decide nothing between different numbers."""

    def name(number: int, digits: str) -> bytes:
        spelt = "".join(chr(ord(digits) + int(digit)) for digit in str(number))
        return f"p{digits * zeros}{spelt}x.tif".encode()

    assert (key(name(one, zero)) < key(name(other, "0"))) == (one < other) or one == other


def test_numbers_have_any_length() -> None:
    """More digits than Python makes a number of."""
    digits = ["9" * 5000, "1" + "0" * 5000, "0" * 9000 + "8"]
    assert sorted((text.encode() for text in digits), key=key) == [
        digits[2].encode(),
        digits[0].encode(),
        digits[1].encode(),
    ]


@pytest.mark.parametrize(
    "ordered",
    [
        ["p1.tif", "p1-2.tif", "p2.tif", "P3.tif", "p10.tif"],
        ["1.tif", "a.tif", "A1.tif", "a2.tif", "A10.tif"],
        ["p01.tif", "p1.tif", "P2.tif", "p02b.tif", "p3.tif"],
        ["p02a.tif", "p2b.tif", "p2c.tif", "p02d.tif"],
        ["p2a.tif", "p02b.tif"],
        ["p1.jpg", "p01.tif", "p1.tif", "p1.b.tif"],
        ["z.tif", "a/1.tif", "a/b/1.tif", "a/b/2.tif", "b/0.tif"],
        ["A/1", "A/3", "a/2", "a/4"],
        ["v1/9", "v2/1", "v10/1"],
        ["e.tif", "é.tif", "f.tif"],
        ["..b", ".a.tif", "a"],
    ],
)
def test_the_order_is_the_one_people_mean(ordered: list[str]) -> None:
    """Whatever the order they are found in."""
    for seed in range(20):
        mixed = list(ordered)
        random.Random(seed).shuffle(mixed)
        assert sorted(mixed, key=lambda name: key(name.encode())) == ordered


def test_pages_of_one_file_stand_where_it_stands() -> None:
    """Several pages of a PDF come between the images before and after it, in their order."""
    made = [
        (b"a2-0010.tif", b"a2.pdf"),
        (b"a2-0002.tif", b"a2.pdf"),
        (b"a10.tif", b"a10.png"),
        (b"a1.tif", b""),
    ]
    ordered = sorted(made, key=lambda one: page_key(*one))
    assert [path for path, _ in ordered] == [b"a1.tif", b"a2-0002.tif", b"a2-0010.tif", b"a10.tif"]


# -- anyone who puts pages in order -----------------------------------------------------------------

PAGES = [
    "p1.jpg",
    "p1-2.jpg",
    "P2.jpg",
    "p02b.jpg",
    "p3.jpg",
    "P10.jpg",
    "p٣٠.jpg",
    "z.jpg",
    "A/9.jpg",
    "A/b/1.jpg",
    "a-1/2.jpg",
    "a-1/10.jpg",
    "b/0.jpg",
]


def payload(base: Path) -> Path:
    """Return a folder of these pages, made in another order."""
    folder = tree(base / "payload", {})
    for name in random.Random(3).sample(PAGES, len(PAGES)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(40, 30))
    return folder


def step_of(name: str, root: Path, entries: Inputs) -> Made:
    """Return a step that delivered each of these files."""
    return Made(
        name=name,
        worker="rsync",
        source="",
        root=root,
        outputs=lambda: iter(()),
        locations=lambda: (
            Location(
                uri=f"file:///{os.fsdecode(e.path)}",
                path=e.path,
                size=e.size,
                sha256=e.sha256,
                verified_by="",
            )
            for e in entries.entries()
        ),
    )


async def of_archivesspace(base: Path, folder: Path) -> list[str]:
    ctx = LoneContext(base, folder)
    ctx.others["keep"] = step_of("keep", folder, ctx.source)
    options = ArchivesSpaceOptions.model_validate(
        {"url": "http://127.0.0.1:1", "user": "u", "credential": "c", "repository": 2, "masters": ["keep"]}
    )
    found = FoundObject(
        identifier="i", uri="/x", title="t", digital_object_id="i", digital_object="", files=None
    )
    (wanted,) = diff.wanted(ctx, options, [found])
    return [os.fsdecode(page.path) for page in wanted.pages]


async def of_islandora(base: Path, folder: Path) -> list[str]:
    ctx = LoneContext(base, folder)
    options = IslandoraOptions.model_validate(
        {"url": "http://127.0.0.1:1", "user": "u", "credential": "c", "collection": "C"}
    )
    (thing,) = objects.things(ctx, options, Stop())
    assert [page.weight for page in thing.pages] == list(range(1, len(PAGES) + 1))
    return [os.fsdecode(page.parts[0].entry.path) for page in thing.pages]


async def of_islandora_by_a_step(base: Path, folder: Path) -> list[str]:
    """Called otherwise by the step that made them: they stand where their originals stand."""
    ctx = LoneContext(base, folder)
    named = {page.encode(): b"%d.jpg" % (len(PAGES) - number) for number, page in enumerate(PAGES)}
    outputs = [
        Output(path=named[e.path], size=1, sha256="", source=e.path) for e in source_of(folder).entries()
    ]
    made = Made(
        name="convert",
        worker="convert",
        source="",
        root=folder,
        outputs=lambda: iter(outputs),
        locations=lambda: iter(()),
    )
    root = tree(base / "made", {name.decode(): "x" for name in named.values()})
    given = source_of(root)
    ctx.source = Inputs(root=root, entries=given.entries, files=given.files, size=given.size, made=made)
    options = IslandoraOptions.model_validate(
        {"url": "http://127.0.0.1:1", "user": "u", "credential": "c", "collection": "C"}
    )
    (thing,) = objects.things(ctx, options, Stop())
    back = {path: page.decode() for page, path in named.items()}
    return [back[page.parts[0].entry.path] for page in thing.pages]


async def of_iiif(base: Path, folder: Path) -> list[str]:
    ctx = LoneContext(base, folder, step="presentation")
    mixed = random.Random(5).sample(PAGES, len(PAGES))
    ctx.others["tiles"] = iiif.tiles(
        base / "tiles", dict.fromkeys(mixed, (600, 400)), "https://iiif.example.org/o"
    )
    options = {"tiles": "tiles", "base": "https://iiif.example.org/o", "canvas_labels": "name"}
    await IiifWorker().run(ctx, IiifOptions.model_validate(options))
    said = json.loads((ctx.work / "manifest.json").read_text())
    ids = [item["items"][0]["items"][0]["body"]["service"][0]["id"] for item in said["items"]]
    folders = {
        f"https://iiif.example.org/o/{quote(page.rpartition('.')[0] + '.iiif')}": page for page in PAGES
    }
    return [folders[each] for each in ids]


async def of_describe(base: Path, folder: Path) -> list[str]:
    ctx = LoneContext(base, folder, step="described")
    await DescribeWorker().run(ctx, DescribeOptions())
    numbered = {}
    for page in PAGES:
        found = re.search(rb"\[(\d+)/%d\]" % len(PAGES), (ctx.work / page).read_bytes())
        assert found is not None
        numbered[int(found[1])] = page
    return [numbered[number] for number in sorted(numbered)]


async def of_the_page(base: Path, folder: Path) -> list[str]:
    harness = Harness(base / "root")
    harness.arrive("n", {})
    where = harness.root / "inbox" / "n"
    for page in PAGES:
        (where / page).parent.mkdir(parents=True, exist_ok=True)
        (where / page).write_bytes((folder / page).read_bytes())
    async with harness.running():
        job = await harness.until_over("n")
    return [one.label for one in pictures(harness.stations, job, [])]


def planned(base: Path, folder: Path) -> dict[str, Any]:
    """Return what is planned for the only step."""
    ended = CliRunner().invoke(
        main, ["--config", str(base / "config.yaml"), "plan", str(folder), "--json"], catch_exceptions=False
    )
    (step,) = json.loads(ended.stdout)["steps"]
    found: dict[str, Any] = step
    return found


async def of_plan(base: Path, folder: Path) -> list[str]:
    (base / "config.yaml").write_text(
        f"root: .\npipelines: {{p: {{match: .*, steps: [{{rsync: {{to: {base / 'target'}/}}}}]}}}}\n"
    )
    (base / "target").mkdir()
    step = await asyncio.to_thread(planned, base, folder)
    return [would["what"] for would in step["would"] if would["action"] == "send"]


async def of_a_planned_conversion(base: Path, folder: Path) -> list[str]:
    (base / "config.yaml").write_text(
        "root: .\npipelines: {p: {match: .*, steps: [{convert: {format: pyramid-tiff}}]}}\n"
    )
    step = await asyncio.to_thread(planned, base, folder)
    return [would["what"].replace(".tif", ".jpg") for would in step["would"]]


CALLERS: list[Callable[[Path, Path], Awaitable[list[str]]]] = [
    of_archivesspace,
    of_islandora,
    of_islandora_by_a_step,
    of_iiif,
    of_describe,
    of_the_page,
    of_plan,
    of_a_planned_conversion,
]


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: caller.__name__.removeprefix("of_"))
async def test_the_same_folder_has_the_same_pages_everywhere(caller: Any, tmp_path: Path) -> None:
    """In the catalogue, at the repository, in the viewer, in the files, on the page and in the plan."""
    assert sorted(PAGES, key=lambda page: key(page.encode())) == PAGES
    assert await caller(tmp_path, payload(tmp_path)) == PAGES
