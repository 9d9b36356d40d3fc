"""google-books: a volume against its own checksums, pages and METS; every fault named, with what to do."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from dittohead.contract.worker import Done, Made
from dittohead.model.errors import ItemError
from dittohead.workers.google_books.options import GoogleBooksOptions
from dittohead.workers.google_books.worker import GoogleBooksWorker
from dittohead.workers.unpack.options import UnpackOptions
from dittohead.workers.unpack.worker import UnpackWorker
from tests.support.archives import PASSPHRASE, sealed, tar_of
from tests.support.context import LoneContext, source_of
from tests.support.trees import read_tree, tree

Files = dict[str, bytes]

BARCODE = "32101081977728"

METS = """<?xml version="1.0" encoding="UTF-8"?>
<METS:mets xmlns:METS="http://www.loc.gov/METS/" xmlns:gbs="http://books.google.com/gbs" OBJID="{id}">
<METS:dmdSec ID="DMD1"><METS:mdWrap MDTYPE="MARC"><METS:xmlData>
<slim:record xmlns:slim="http://www.loc.gov/MARC21/slim"><slim:leader>00000nam a2200000</slim:leader>
<slim:controlfield tag="001">42</slim:controlfield>
<slim:datafield tag="245" ind1="1" ind2="0"><slim:subfield code="a">Über die &lt;Bienen&gt; :</slim:subfield>
<slim:subfield code="b">eine Lehre /</slim:subfield><slim:subfield code="c">von X.</slim:subfield></slim:datafield>
</slim:record></METS:xmlData></METS:mdWrap></METS:dmdSec></METS:mets>
"""


def volume(pages: int = 3, **other: Any) -> Files:
    """Return a volume's files but for its list; `other` gives its METS file's name or OBJID."""
    name = other.get("name", f"PRNC_{BARCODE}.xml")
    files: Files = {name: METS.format(id=other.get("id", f"PRNC_{BARCODE}")).encode()}
    for number in range(1, pages + 1):
        files[f"{number:08}.{'tif' if number % 2 else 'jp2'}"] = random.Random(number).randbytes(3000)
        files[f"{number:08}.txt"] = f"page {number}: é\n".encode()
        files[f"{number:08}.html"] = b"<html/>"
    return files


def listed(files: Files) -> Files:
    """Return files with their list."""
    lines = [f"{hashlib.md5(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())]
    return {**files, "checksum.md5": "".join(lines).encode()}


class Rig:
    """Runs one google-books step over a folder that holds a volume's files."""

    def __init__(self, base: Path) -> None:
        self.base, self.count = base, 0
        self.ctx: LoneContext

    async def run(self, files: Files, name: str = BARCODE, **options: Any) -> Files:
        self.count += 1
        payload = tree(self.base / f"{self.count}" / name, files)
        self.ctx = LoneContext(self.base / f"site{self.count}", payload)
        given = GoogleBooksOptions.model_validate(options)
        assert isinstance(await GoogleBooksWorker().run(self.ctx, given), Done)
        made = {path.decode(): data for path, data in read_tree(self.ctx.work).items()}
        assert {o.path.decode(): o.sha256 for o in self.ctx.outputs} == {
            path: hashlib.sha256(data).hexdigest() for path, data in made.items()
        }
        assert read_tree(payload) == {path.encode(): data for path, data in files.items()}
        return made

    async def refused(self, files: Files, said: str, **options: Any) -> ItemError:
        with pytest.raises(ItemError) as caught:
            await self.run(files, **options)
        assert said in caught.value.what, caught.value.what
        assert caught.value.hint
        assert read_tree(self.ctx.work) == {}
        return caught.value


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_record_text_and_pages_of_a_volume(rig: Rig) -> None:
    """The MARC record as its own document, a line of text and a row of sizes for each page."""
    files = listed(volume())
    made = await rig.run(files)
    assert sorted(made) == [f"{BARCODE}_{end}" for end in ("marc.xml", "ocr.jsonl", "pages.csv")]
    record = ElementTree.fromstring(made[f"{BARCODE}_marc.xml"])
    assert record.tag == "{http://www.loc.gov/MARC21/slim}record"
    assert "".join(record.itertext()).split()[:2] == ["00000nam", "a2200000"]
    lines = [json.loads(line) for line in made[f"{BARCODE}_ocr.jsonl"].splitlines()]
    assert lines == [{"page": f"{n:08}", "text": f"page {n}: é\n"} for n in (1, 2, 3)]
    rows = list(csv.DictReader(io.StringIO(made[f"{BARCODE}_pages.csv"].decode())))
    assert [(row["page"], row["image"], row["image_bytes"]) for row in rows] == [
        ("00000001", "00000001.tif", "3000"),
        ("00000002", "00000002.jp2", "3000"),
        ("00000003", "00000003.tif", "3000"),
    ]
    assert rows[0]["text_md5"] == hashlib.md5(files["00000001.txt"]).hexdigest()
    marc = next(output for output in rig.ctx.outputs if output.path.endswith(b"_marc.xml"))
    assert marc.detail["title"] == "Über die <Bienen> : eine Lehre"
    made = await rig.run(files, ocr="strings")
    assert json.loads(made[f"{BARCODE}_ocr.jsonl"].splitlines()[1]) == "page 2: é\n"
    assert len(await rig.run(files, ocr="none")) == 2


@pytest.mark.service
async def test_behind_unpack_no_page_is_read_again(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its MD5s were taken as the archive was unpacked."""
    files = listed(volume())
    payload = tree(tmp_path / BARCODE, {"v.tar.gz.gpg": sealed(tar_of(files, "w:gz"), tmp_path / "g")})
    first = LoneContext(tmp_path / "site", payload, secrets={"p": PASSPHRASE}, step="unpack")
    await UnpackWorker().run(first, UnpackOptions(credential="p", checksums="checksum.md5"))
    source = source_of(first.work)
    made = Made(
        name="unpack",
        worker="unpack",
        source="",
        root=first.work,
        outputs=lambda: iter(first.outputs),
        locations=lambda: iter(()),
    )
    object.__setattr__(source, "made", made)
    for image in first.work.glob("*.tif"):
        image.unlink()  # anyone who reads it now fails
    ctx = LoneContext(tmp_path / "site", payload, source=source, step="google")
    await GoogleBooksWorker().run(ctx, GoogleBooksOptions())
    assert len(ctx.outputs) == 3


async def test_text_that_is_not_utf8_is_recorded_and_kept(rig: Rig) -> None:
    """In the list of texts it is marked; the file stays as it is."""
    files = listed({**volume(), "00000002.txt": b"caf\xe9"})
    made = await rig.run(files)
    line = json.loads(made[f"{BARCODE}_ocr.jsonl"].splitlines()[1])
    assert line == {"page": "00000002", "text": "caf�", "not_utf8": True}
    event = next(event for event in rig.ctx.events if event.outcome == "warning")
    assert "00000002.txt" in event.detail


def without(name: str) -> Callable[[Files], Files]:
    return lambda files: {key: data for key, data in files.items() if key != name}


def with_(**named: bytes) -> Callable[[Files], Files]:
    return lambda files: {**files, **{key.replace("__", "."): data for key, data in named.items()}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("checksum.md5"), "has no checksum.md5"),
        (with_(checksum__md5=b"nonsense"), "checksum.md5 cannot be read: line 1"),
        (lambda files: {**files, "checksum.md5": b"\xff" * 9}, "cannot be read"),
        (lambda files: {**files, "00000009.jp2": b"x"}, "1 not in the list (00000009.jp2)"),
        (without("00000002.txt"), "1 not there (00000002.txt)"),
        (lambda files: {**files, "00000002.jp2": b"x"}, "1 with another digest (00000002.jp2)"),
        (lambda files: listed(without("00000002.txt")(volume())), "1 without text (00000002)"),
        (lambda files: listed(without("00000002.html")(volume())), "1 without hOCR (00000002)"),
        (lambda files: listed(without("00000002.jp2")(volume())), "1 without image (00000002)"),
        (
            lambda files: listed({**volume(), "00000002.jp2": b""}),
            "1 with an empty image file (00000002.jp2)",
        ),
        (lambda files: listed({**volume(), "00000002.html": b""}), "1 with an empty hOCR file"),
        (lambda files: listed({**volume(), "00000002.tif": b"x"}), "pages with two images (00000002."),
        (
            lambda files: listed({k: v for k, v in volume().items() if not k.startswith("00000002")}),
            "1 missing",
        ),
        (lambda files: listed(volume(pages=0)), "it has no pages"),
        (lambda files: listed(without(f"PRNC_{BARCODE}.xml")(volume())), "there is no METS file"),
        (lambda files: listed({**volume(), "OTHER_1.xml": b"<x/>"}), "there are 2 METS files"),
        (lambda files: listed({**volume(), f"PRNC_{BARCODE}.xml": b"<x/>"}), "its root is x"),
        (lambda files: listed({**volume(), f"PRNC_{BARCODE}.xml": b"<x"}), "it is not XML"),
        (
            lambda files: listed(
                {**volume(), f"PRNC_{BARCODE}.xml": b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'}
            ),
            "it has a document type",
        ),
        (lambda files: listed({**volume(), f"PRNC_{BARCODE}.xml": b"<a>" * 999}), "nested too deeply"),
        (lambda files: listed(volume(id="PRNC_99999")), 'its METS file says "PRNC_99999": another volume'),
        (lambda files: listed(volume(name="PRNC_99999.xml")), 'is called "PRNC_99999": another volume'),
    ],
)
async def test_volumes_that_are_not_whole(rig: Rig, change: Callable[[Files], Files], said: str) -> None:
    """Each says which files; nothing is written."""
    await rig.refused(change(listed(volume())), said)


async def test_barcodes_as_libraries_write_them(rig: Rig) -> None:
    """With and without the prefix; in other letters it would be stored in another place."""
    for name in (BARCODE, f"PRNC_{BARCODE}"):
        assert f"{name}_marc.xml" in await rig.run(listed(volume()), name=name)
    assert await rig.run(listed(volume()), name="x", barcode=BARCODE)
    files = listed(volume(id="UCAL_$B12345", name="UCAL_$B12345.xml"))
    assert "$B12345_marc.xml" in await rig.run(files, name="$B12345")
    error = await rig.refused(
        files, 'and its METS file says "$B12345": capital letters differ', name="$b12345"
    )
    assert "dittohead rename $b12345 $B12345" in error.hint or "'$B12345'" in error.hint
    assert await rig.run(listed(volume(id="")))  # the file's name says it as well


async def test_what_a_page_may_lack(rig: Rig) -> None:
    """A blank page has no words; some old volumes have no hOCR. Both are counted."""
    files = {k: v for k, v in volume().items() if not k.endswith(".html")} | {"00000002.txt": b""}
    await rig.run(listed(files), tolerate=["no-hocr", "empty-text"])
    detail = " ".join(event.detail for event in rig.ctx.events)
    assert "3 without hOCR" in detail
    assert "1 with an empty text" in detail
    await rig.refused(listed(files), "1 with an empty text file", tolerate=["no-hocr"])


async def test_again_leaves_the_same(rig: Rig) -> None:
    """What is not of this try goes."""
    files = listed(volume())
    made = await rig.run(files)
    tree(rig.ctx.work, {"remains": b"x"})
    rig.ctx.again()
    await GoogleBooksWorker().run(rig.ctx, GoogleBooksOptions())
    assert {path.decode(): data for path, data in read_tree(rig.ctx.work).items()} == made


async def test_files_that_changed_since_the_claim(rig: Rig) -> None:
    """Neither an image nor a text is believed."""
    files = listed(volume())
    await rig.run(files)
    (rig.ctx.payload / "00000001.txt").write_bytes(b"changed")
    rig.ctx.again()
    with pytest.raises(ItemError, match="not what it was"):
        await GoogleBooksWorker().run(rig.ctx, GoogleBooksOptions())
