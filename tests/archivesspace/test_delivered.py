"""What lies outside is followed back to the folder's files, whatever they are called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dittohead.contract.worker import Made
from dittohead.folders import receipt
from dittohead.model.errors import ItemError
from dittohead.model.records import Location, Output, Use
from dittohead.workers.archivesspace.delivered import DeliveredChain
from tests.support.context import LoneContext
from tests.support.trees import tree

ODD = b"caf\xe9 %41 \xc3\xa9.tif"


def kept(base: Path, outputs: list[Output], locations: list[Location]) -> tuple[Path, Path]:
    """Write results as the engine keeps them."""
    for name, lines in (
        ("outputs", [receipt.output_fields(one) for one in outputs]),
        ("locations", [receipt.location_fields(one) for one in locations]),
    ):
        (base / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return base / "outputs", base / "locations"


def made(base: Path, name: str, source: str, outputs: list[Output], locations: list[Location]) -> Made:
    (base / name).mkdir()
    one, two = kept(base / name, outputs, locations)
    return Made(
        name=name,
        worker=name,
        source=source,
        root=base,
        outputs=lambda: receipt.read_outputs(one),
        locations=lambda: receipt.read_locations(two),
    )


def place(path: bytes, **more: str) -> Location:
    return Location(uri=f"s3://b/{len(path)}", path=path, size=1, sha256="0" * 64, verified_by="x", **more)


@pytest.fixture
def ctx(tmp_path: Path) -> LoneContext:
    made_ctx = LoneContext(tmp_path, tree(tmp_path / "x", {ODD: b"1", "b.tif": b"2"}))
    base = tmp_path / "results"
    base.mkdir()
    images = [
        Output(
            path=ODD[:-3] + b"jp2",
            size=1,
            sha256="",
            source=ODD,
            detail={"width": 8, "height": 9, "lossless": True},
        ),
        Output(path=b"list.txt", size=1, sha256=""),
        Output(path=b"b-0001.jp2", size=1, sha256="", source=b"b.tif", detail={"page": 1}),
        Output(path=b"b-0002.jp2", size=1, sha256="", source=b"b.tif", detail={"page": 2}),
    ]
    copied = [Output(path=one.path, size=1, sha256="", source=one.path) for one in images]
    places = [place(one.path) for one in copied] + [place(b"page", use=Use.PAGE)]
    made_ctx.others = {
        "images": made(base, "images", "", images, []),
        "tagged": made(base, "tagged", "images", copied, []),
        "sent": made(base, "sent", "tagged", [], places),
        "raw": made(base, "raw", "", [], [place(b"b.tif"), place(b"")]),
    }
    return made_ctx


def test_through_every_step_back_to_the_file(ctx: LoneContext) -> None:
    """A name that is not UTF-8, several pages of one file, and files made of none."""
    found = [(path, copy.path, copy.caption) for path, copy in DeliveredChain(ctx).copies("sent")]
    assert found == [
        (ODD, ODD[:-3] + b"jp2", "8 x 9 px, lossless"),
        (b"b.tif", b"b-0001.jp2", "page 1"),
        (b"b.tif", b"b-0002.jp2", "page 2"),
    ]
    assert [path for path, _ in DeliveredChain(ctx).copies("raw")] == [b"b.tif"]
    assert list(DeliveredChain(ctx).copies("not-chosen")) == []


def test_what_the_public_sees_is_apart(ctx: LoneContext) -> None:
    assert [(one.use, one.origin) for one in DeliveredChain(ctx).shown("sent")] == [(Use.PAGE, None)]


def test_a_step_of_which_nothing_is_known_is_an_error(ctx: LoneContext) -> None:
    """No file is left out in silence."""
    del ctx.others["images"]
    with pytest.raises(ItemError, match='made by "images", of which nothing is known'):
        list(DeliveredChain(ctx).copies("sent"))
