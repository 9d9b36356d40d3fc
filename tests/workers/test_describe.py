"""describe: what is known of an object is in its images, as others read it; the pixels are the same."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dittohead.config.loader import load
from dittohead.contract.worker import Made
from dittohead.model.description import Dated, Described, Description, Level, Named, Object
from dittohead.model.errors import ItemError, TransientError
from dittohead.system.files import sha256_file
from dittohead.toolkit.images import xmp, xmp_embedding
from dittohead.workers.describe import DescribeOptions, DescribeWorker
from tests.support.context import LoneContext, source_of
from tests.support.convert import Rig
from tests.support.images import by_vips, decoded, encode, jpeg, pixels, tiff
from tests.support.trees import read_tree, tree

KNOWN = Description(
    identifier="ABC_12_3",
    title='Letters <of> "É" & others',
    ref="/repositories/2/archival_objects/7",
    page="https://archives.example.org/repositories/2/archival_objects/7",
    other_identifiers=("ark:/12345/x",),
    ancestors=(
        Level(level="collection", title="Papers", identifier="ABC"),
        Level(level="series", title="Letters"),
    ),
    dates=(Dated(label="creation", expression="circa 1951", begin="1951", end="1952-03"),),
    creators=(Named(name="Person, A."), Named(name="Müller, Ö.")),
    subjects=(Named(name="Physics"), Named(name="Letters")),
    languages=("de", "en"),
    abstract="Line one.\nLine two.",
    rights="Ask the archives.",
    rights_uri="https://rightsstatements.org/vocab/InC/1.0/",
    publisher="Example Archives",
)

XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmp:CreatorTool="Scanner 9"><dc:title><rdf:Alt><rdf:li xml:lang="x-default">Scan</rdf:li></rdf:Alt></dc:title>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


class DescribeHarness:
    """The worker alone."""

    def __init__(self, base: Path) -> None:
        self.base, self.payload, self.worker = base, base / "payload", DescribeWorker()

    def context(self, *objects: Object, step: str = "described") -> LoneContext:
        ctx = LoneContext(self.base, self.payload, step=step)
        ctx.claimed_at = 1_700_000_000.5
        ctx.description = Described(objects=objects or (Object(description=KNOWN),))
        return ctx

    async def describe(
        self, what: dict[str | bytes, Any] | None = None, *, ctx: LoneContext | None = None, **options: Any
    ) -> LoneContext:
        if what is not None:
            tree(self.payload, what)
        self.ctx = ctx = ctx or self.context()
        self.result = await self.worker.run(ctx, DescribeOptions.model_validate(options))
        for output in ctx.outputs:
            assert sha256_file(ctx.work / os.fsdecode(output.path)) == (output.sha256, output.size)
        assert set(read_tree(ctx.work)) == {output.path for output in ctx.outputs}
        return ctx


@pytest.fixture
def harness(tmp_path: Path) -> DescribeHarness:
    return DescribeHarness(tmp_path)


def exif(*paths: Path) -> list[dict[str, Any]]:
    """Return what ExifTool, which is none of ours, reads of XMP, and what it complains of."""
    said = subprocess.run(
        ["exiftool", "-json", "-G1", "-XMP:all", "-Warning", "-Error", *map(str, paths)],
        capture_output=True,
        check=True,
        text=True,
    )
    found: list[dict[str, Any]] = json.loads(said.stdout)
    return found


def of_all_kinds(base: Path) -> dict[str | bytes, Any]:
    (base / "p.jpg").write_bytes(jpeg(600, 400))
    tile = ["tiffsave", "p.jpg", "out.tif", "--tile", "--pyramid", "--compression=jpeg"]
    big = by_vips(base, [*tile, "--bigtiff"], "out.tif")
    return {
        "1.tif": tiff(300, 200, tiffinfo={700: XMP}),
        "2 ü.tif": big,
        "3.jpg": jpeg(300, 200, orientation=3, xmp=XMP),
        "4.png": encode(pixels(300, 200), "PNG"),
        "5.jp2": encode(pixels(300, 200), "JPEG2000"),
        "6.jp2": encode(pixels(100, 80, bands=1), "JPEG2000", irreversible=False),
    }


async def test_every_field_is_read_back_by_another_program(harness: DescribeHarness, tmp_path: Path) -> None:
    """In every format, with characters that XML and headers stumble over; pixels as before."""
    what = of_all_kinds(tmp_path)
    ctx = await harness.describe(what)
    for number, name in enumerate(what, 1):
        path = ctx.work / os.fsdecode(os.fsencode(name))
        (said,) = exif(path)
        assert not {key for key in said if key.endswith(("Warning", "Error"))}
        original = harness.payload / os.fsdecode(os.fsencode(name))
        kind = {"tif": "image/tiff", "jpg": "image/jpeg", "png": "image/png", "jp2": "image/jp2"}[
            path.suffix[1:]
        ]
        wanted = {
            "XMP-dc:Title": f"{KNOWN.title} [{number}/6]",
            "XMP-dc:Identifier": "ABC_12_3",
            "XMP-dc:Format": kind,
            "XMP-dc:Source": "Example Archives: Papers (ABC) / Letters",
            "XMP-dc:Description": "Line one..Line two.",  # so it shows a line's end
            "XMP-dc:Rights": "Ask the archives.",
            "XMP-dc:Creator": ["Person, A.", "Müller, Ö."],
            "XMP-dc:Publisher": "Example Archives",
            "XMP-dc:Subject": ["Physics", "Letters"],
            "XMP-dc:Language": ["de", "en"],
            "XMP-dc:Relation": [KNOWN.page, KNOWN.ref],
            "XMP-xmp:Identifier": ["ABC_12_3", "ark:/12345/x"],
            "XMP-xmpRights:UsageTerms": "Ask the archives.",
            "XMP-xmpRights:WebStatement": KNOWN.rights_uri,
            "XMP-xmpMM:PreservedFileName": name,
            "XMP-xmpMM:DerivedFromFilePath": name,
            "XMP-xmpMM:HistoryAction": "saved",
            "XMP-dittohead:OriginalSHA256": sha256_file(original)[0],
            "XMP-dittohead:DateExpression": "circa 1951",
        }
        said["XMP-dc:Description"] = str(said["XMP-dc:Description"]).replace("\n", ".")
        assert {key: said.get(key) for key in wanted} == wanted
        assert [str(date) for date in said["XMP-dc:Date"]] == ["1951", "1952:03"]
        assert np.array_equal(decoded(path), decoded(original))
    said_1, said_3 = exif(ctx.work / "1.tif", ctx.work / "3.jpg")
    assert said_1["XMP-xmp:CreatorTool"] == said_3["XMP-xmp:CreatorTool"] == "Scanner 9"
    details = {output.path: output.detail["xmp"] for output in ctx.outputs}
    assert details[b"1.tif"]["replaced"] == {"dc:title": "Scan"}
    assert all(detail["decoded"] and detail["compared"] > 1000 for detail in details.values())
    assert [event.type.value for event in ctx.events] == ["metadata modification", "fixity check"]
    assert "in the place of former values: dc:title (2)" in ctx.events[0].detail


async def test_masters_are_described_by_what_they_were_made_of(harness: DescribeHarness) -> None:
    """By way of a real conversion: its detail is carried, the original is named by its own digest."""
    rig = Rig(harness.base)
    tree(harness.payload, {"in": {"p10.tif": tiff(400, 300), "p2.tif": tiff(200, 100)}})
    masters = LoneContext(harness.base, harness.payload, step="masters")
    await rig.convert(ctx=masters, format="jp2")
    made = Made(
        name="masters",
        worker="convert",
        source="",
        root=masters.work,
        outputs=lambda: iter(
            dataclasses.replace(o, detail={**o.detail, "samples_sha256": "f" * 64}) for o in masters.outputs
        ),
        locations=lambda: iter(()),
    )
    ctx = harness.context()
    ctx.source = dataclasses.replace(source_of(masters.work), made=made)
    await harness.describe(ctx=ctx)
    details = {output.path: output.detail for output in ctx.outputs}
    assert details[b"in/p2.jp2"]["samples_sha256"] == "f" * 64
    assert details[b"in/p2.jp2"]["lossless"] is True
    said = exif(ctx.work / "in/p2.jp2", ctx.work / "in/p10.jp2")
    assert [each["XMP-dc:Title"].rpartition(" ")[2] for each in said] == ["[1/2]", "[2/2]"]
    assert said[0]["XMP-xmpMM:DerivedFromFilePath"] == "in/p2.tif"
    assert said[0]["XMP-dittohead:OriginalSHA256"] == sha256_file(harness.payload / "in/p2.tif")[0]
    assert said[0]["XMP-xmpMM:HistoryAction"] == ["converted", "saved"]
    assert said[0]["XMP-xmpMM:HistoryParameters"] == "from in/p2.tif to image/jp2; every pixel the same"
    assert np.array_equal(decoded(ctx.work / "in/p10.jp2"), decoded(harness.payload / "in/p10.tif"))


async def test_the_same_gives_the_same_bytes_and_is_not_done_twice(
    harness: DescribeHarness, tmp_path: Path
) -> None:
    """Within a job: the date is the claim's. A result that was damaged since is made again."""
    ctx = await harness.describe(of_all_kinds(tmp_path))
    first = {output.path: output.sha256 for output in ctx.outputs}
    (ctx.work / "3.jpg").write_bytes(b"damaged")
    (ctx.work / "stray.tif").write_bytes(b"stray")
    ctx.again()
    await harness.describe(ctx=ctx)
    assert {output.path: output.sha256 for output in ctx.outputs} == first
    assert harness.result.detail == "6 images described, 5 of them from before"


async def test_each_object_has_its_own_words_and_numbers(harness: DescribeHarness) -> None:
    """What belongs to none is taken along as it is, with a warning; other files without one."""
    one = Object(description=KNOWN, files=("a/2.png", "a/10.png"))
    two = Object(description=Description(identifier="X", title="Other"), files=("b.png",))
    png = encode(pixels(20, 20), "PNG")
    what: dict[str | bytes, Any] = {
        "a": {"2.png": png, "10.png": png},
        "b.png": png,
        "c.png": png,
        "d.txt": "d",
    }
    tree(harness.payload, what)
    ctx = await harness.describe(ctx=harness.context(one, two))
    titles = {
        output.path: xmp.values(_packet(ctx.work / os.fsdecode(output.path)))["dc:title"][0]
        for output in ctx.outputs
        if "xmp" in output.detail
    }
    assert titles == {
        b"a/2.png": f"{KNOWN.title} [1/2]",
        b"a/10.png": f"{KNOWN.title} [2/2]",
        b"b.png": "Other [1/1]",
    }
    assert (ctx.work / "c.png").read_bytes() == png
    assert (ctx.work / "d.txt").read_text() == "d"
    assert ctx.events[0].outcome == "warning"
    assert "1 images not described" in ctx.events[0].detail
    assert harness.result.detail == "3 images described, 2 files taken along"


def _packet(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return xmp_embedding.packet_of(fd, xmp_embedding.kind_of(fd))
    finally:
        os.close(fd)


async def test_other_files_are_left_out_or_fail_when_that_is_wanted(harness: DescribeHarness) -> None:
    """By option."""
    ctx = await harness.describe({"a.png": encode(pixels(9, 9), "PNG"), "b.txt": "b"}, others="skip")
    assert [output.path for output in ctx.outputs] == [b"a.png"]
    with pytest.raises(ItemError, match=r"1 of 2 files cannot be described: b\.txt: it holds no XMP"):
        await harness.describe(ctx=harness.context(step="again"), others="fail")


async def test_xmp_that_cannot_be_read_fails_or_stays(harness: DescribeHarness) -> None:
    """It may be all that is known; nothing is put over it."""
    bad = jpeg(30, 20, xmp=b'<!DOCTYPE x [<!ENTITY a "b">]><rdf:RDF/>')
    with pytest.raises(ItemError, match="its own XMP cannot be read: it has a document type"):
        await harness.describe({"a.jpg": bad, "b.jpg": jpeg(30, 20)})
    ctx = await harness.describe(ctx=harness.context(step="again"), unreadable_xmp="keep")
    assert (ctx.work / "a.jpg").read_bytes() == bad
    (detail,) = [output.detail for output in ctx.outputs if output.path == b"a.jpg"]
    assert detail["warnings"] == [
        "its own XMP cannot be read: it has a document type, which could define entities"
    ]
    assert ctx.events[0].outcome == "warning"


async def test_a_file_that_cannot_be_decoded_is_not_passed_on(harness: DescribeHarness) -> None:
    """The others are done all the same; what was said about its size counts, too."""
    data = jpeg(300, 200)
    with pytest.raises(ItemError, match=r"1 of 2 files cannot be described: b\.jpg: it cannot be decoded"):
        await harness.describe({"a.jpg": data, "b.jpg": data[: len(data) // 2]})
    assert sorted(path.name for path in harness.ctx.work.iterdir()) == ["a.jpg"]
    ctx = await harness.describe(ctx=harness.context(step="quick"), verify=False)
    assert all("decoded" not in output.detail["xmp"] for output in ctx.outputs)


async def test_a_file_changed_since_the_step_before_is_found(harness: DescribeHarness) -> None:
    """A digest that is not the manifest's."""
    tree(harness.payload, {"a.png": encode(pixels(30, 20), "PNG")})
    ctx = harness.context()
    (harness.payload / "a.png").write_bytes(encode(pixels(30, 20, seed=2), "PNG"))
    with pytest.raises(ItemError, match=r"a\.png: the file is not what it was"):
        await harness.describe(ctx=ctx)


async def test_a_full_disk_is_waited_for(harness: DescribeHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not a fault of the folder; nothing half-written stays."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(xmp_embedding, "write", full)
    with pytest.raises(TransientError, match=r"takes no more data \(No space left on device\)"):
        await harness.describe({"a.png": encode(pixels(9, 9), "PNG")})
    assert read_tree(harness.ctx.work.parent) == {b"described.journal.jsonl": b""}


async def test_a_try_that_is_stopped_is_gone_on_with(harness: DescribeHarness) -> None:
    """What is finished is not made again; what is not leaves nothing."""
    png = {f"{n}.png": encode(pixels(300, 200, seed=n), "PNG") for n in range(8)}
    tree(harness.payload, png)
    ctx = harness.context()
    task = asyncio.create_task(harness.describe(ctx=ctx))
    while len(ctx.outputs) < 2:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not (ctx.work.parent / "described.scratch").exists()
    finished = {path.name: path.stat().st_ino for path in ctx.work.iterdir()}
    ctx.again()
    await harness.describe(ctx=ctx)
    assert len(ctx.outputs) == 8
    assert f"{len(finished)} of them from before" in harness.result.detail
    assert finished.items() <= {path.name: path.stat().st_ino for path in ctx.work.iterdir()}.items()


async def test_names_of_all_kinds_are_kept(harness: DescribeHarness) -> None:
    """Bytes that are not text are shown as such in the XMP."""
    png = encode(pixels(9, 9), "PNG")
    ctx = await harness.describe({b"a\xff.png": png, "x\ny.png": png, "s": {"t&<>.png": png}})
    names = {
        xmp.values(_packet(ctx.work / os.fsdecode(o.path)))["xmpMM:PreservedFileName"][0] for o in ctx.outputs
    }
    assert names == {"a%FF.png", "x\ny.png", "t&<>.png"}


async def test_the_payload_is_never_written(harness: DescribeHarness, tmp_path: Path) -> None:
    """Results are copies, not links."""
    tree(harness.payload, of_all_kinds(tmp_path))
    before = read_tree(harness.payload)
    ctx = await harness.describe()
    assert read_tree(harness.payload) == before
    assert not {p.stat().st_ino for p in ctx.work.iterdir()} & {
        p.stat().st_ino for p in harness.payload.iterdir()
    }


async def test_plan_names_what_would_be_made(harness: DescribeHarness) -> None:
    """And writes nothing."""
    tree(harness.payload, {"a.png": b"x", "s": {"b.txt": b"y"}})
    ctx = harness.context()
    planned = [each async for each in harness.worker.plan(ctx, DescribeOptions())]
    assert [(each.action, each.what) for each in planned] == [("make", "a.png"), ("make", "s/b.txt")]
    assert [output.path for output in ctx.outputs] == [b"a.png", b"s/b.txt"]
    assert not list(ctx.work.iterdir())


def test_a_pipeline_that_describes_masters_can_be_configured(tmp_path: Path) -> None:
    """As the manual has it."""
    (tmp_path / "config.yaml").write_text("""
root: .
pipelines:
  objects:
    match: "(?P<object>.*)"
    steps:
      - convert: {name: masters, format: jp2}
      - describe: {name: described, from: masters}
      - rsync: {from: described, to: /tmp/}
""")
    load(tmp_path / "config.yaml")
