"""Packages: valid by the schemas of others, the same each time, and every fault of what goes in."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import bagit
import pytest
from lxml import etree
from pydantic import ValidationError

from dittohead.contract.worker import Inputs
from dittohead.model.description import Dated, Described, Description, Named, Object
from dittohead.model.errors import ItemError
from dittohead.model.events import EventType
from dittohead.model.records import Entry
from dittohead.toolkit.sip import profile, sorting
from dittohead.toolkit.sip.signature import BadKey, Signer
from dittohead.workers.package.options import PackageOptions
from dittohead.workers.package.worker import PackageWorker
from tests.support import package
from tests.support.context import LoneContext
from tests.support.images import encode, pixels, tiff
from tests.support.length import budget
from tests.support.package import DPRES, LIDO, NS, context, folder, key, mets_of, packed, unpacked
from tests.support.trees import read_tree, tree

pytestmark = pytest.mark.usefixtures("nothing_blocks_the_loop")

MODS = '<mods xmlns="http://www.loc.gov/mods/v3" version="3.7"><titleInfo><title>Tower</title></titleInfo></mods>'


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package.schemas(tmp_path_factory.mktemp("schemas"))


async def refused(ctx: LoneContext, **options: Any) -> ItemError:
    with pytest.raises(ItemError) as caught:
        await packed(ctx, **options)
    assert ctx.outputs == []
    return caught.value


# -- the Finnish profile -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finnish(schemas: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LoneContext, Path]:
    """A package of the Finnish profile, and where it is unpacked."""
    base = tmp_path_factory.mktemp("finnish")
    ctx = context(base, tree(base / "object-7", folder()))
    asyncio.run(packed(ctx, **DPRES, schemas=schemas, metadata=["*/lido.xml"]))
    return ctx, unpacked(ctx, base / "out")


def test_the_finnish_profile_is_valid(finnish: tuple[LoneContext, Path]) -> None:
    """By its own schemas and schematrons, with images of seven kinds, a record and a text."""
    ctx, root = finnish
    validation, packing = ctx.events
    assert (validation.type, validation.outcome) == (EventType.VALIDATION, "success")
    assert "valid by XML schemas and 15 schematrons" in validation.detail
    assert packing.outcome == "success"
    assert "9 files" in packing.detail
    assert "MIX of 7 images" in packing.detail
    assert sorted(path.name for path in root.iterdir()) == ["data", "mets.xml", "signature.sig"]


def test_the_finnish_profile_by_another_validator(
    finnish: tuple[LoneContext, Path], schemas: Path, tmp_path: Path
) -> None:
    """Xmllint's library with its own catalogs, where it is not we who say which file stands for an address."""
    code = (
        "import sys; from lxml import etree; s = etree.XMLSchema(etree.parse(sys.argv[1]));"
        "s.assertValid(etree.parse(sys.argv[2]))"
    )
    xsd = schemas / "schema_catalogs/schemas/mets/mets.xsd"
    catalog = (schemas / "schema_catalogs/catalog_main.xml").as_uri()
    env = {**os.environ, "XML_CATALOG_FILES": catalog}
    subprocess.run([sys.executable, "-c", code, xsd, finnish[1] / "mets.xml"], env=env, check=True)


def test_the_same_sections_as_the_sample(finnish: tuple[LoneContext, Path]) -> None:
    """As a document that the validator of the service accepts has them, in the same order."""
    if not package.SAMPLE.exists():
        pytest.skip(f"LEFT OUT: {package.SAMPLE.name} is not in ../shared/facts")
    sample, made = etree.parse(str(package.SAMPLE)).getroot(), mets_of(finnish[1])

    def attributes(root: Any) -> set[str]:
        return {name for element in root.iter("{*}mets") for name in element.attrib}

    def order(root: Any) -> list[str]:
        return list(dict.fromkeys(element.tag for element in root))

    assert attributes(made) == attributes(sample)
    assert order(made) == order(sample)
    assert order(made.find("mets:amdSec", NS)) == order(sample.find("mets:amdSec", NS))
    # All that is said of a file, of an event and of an agent there is said here.
    for name in ("premis:object", "mix:mix", "premis:event", "premis:agent", "mets:file", "lido:lido"):
        theirs, ours = sample.find(f".//{name}", NS), [e.tag for e in made.iterfind(f".//{name}//*", NS)]
        assert {e.tag for e in theirs.iter() if e is not theirs} <= set(ours), name


def test_the_order_is_the_natural_one(finnish: tuple[LoneContext, Path]) -> None:
    """Page 2 before page 10; and folders as they are."""
    mets = mets_of(finnish[1])
    top = mets.find("mets:structMap/mets:div", NS)
    assert [div.get("LABEL") for div in top] == ["images", "reports"]
    places = {
        file.get("ID"): file.find("mets:FLocat", NS).get(f"{{{NS['xlink']}}}href")
        for file in mets.iterfind(".//mets:file", NS)
    }
    found = [places[one.get("FILEID")] for one in top.iterfind(".//mets:fptr", NS)]
    assert found == [
        f"file:///data/{name}"
        for name in (
            "images/a.gif", "images/a.jp2", "images/a.png", "images/a.webp", "images/%C3%A4.jpg",
            "images/page%202.tif", "images/page%2010.tif", "reports/lido.xml", "reports/notes.txt",
        )
    ]  # fmt: skip


def test_events_and_agents_are_those_of_the_job(finnish: tuple[LoneContext, Path]) -> None:
    mets = mets_of(finnish[1])
    events = [(e.findtext("premis:eventType", "", NS), e.findtext(".//premis:eventOutcome", "", NS),
               e.findtext("premis:eventDateTime", "", NS)) for e in mets.iterfind(".//premis:event", NS)]  # fmt: skip
    assert events == [
        ("ingestion", "success", "2026-11-29T10:00:00Z"),
        ("message digest calculation", "success", "2026-11-29T10:00:01Z"),
        ("virus check", "success", "2026-11-29T10:00:02Z"),
        ("format identification", "success", "2026-11-29T10:00:03Z"),
        ("information package creation", "success", "2026-11-29T10:00:03Z"),
    ]
    agents = [e.findtext("premis:agentName", "", NS) for e in mets.iterfind(".//premis:agent", NS)]
    assert agents[:3] == ["dittohead 1.0", "ClamAV 1.4.6", "Siegfried 1.11.9"]
    assert mets.find("mets:metsHdr", NS).get("CREATEDATE") == "2026-11-29T10:00:03Z"


def test_every_file_is_what_the_document_says(finnish: tuple[LoneContext, Path]) -> None:
    mets, root = mets_of(finnish[1]), finnish[1]
    objects = {
        e.getparent().getparent().getparent().get("ID"): e for e in mets.iterfind(".//premis:object", NS)
    }
    for number, file in enumerate(mets.iterfind(".//mets:file", NS), 1):
        told = objects[f"T{number}"]
        data = (root / told.findtext("premis:originalName", "", NS)).read_bytes()
        assert told.findtext(".//premis:messageDigest", "", NS) == hashlib.sha256(data).hexdigest()
        assert told.findtext(".//premis:size", "", NS) == str(len(data))
        assert f"T{number}" in file.get("ADMID").split()
    names = [e.text for e in mets.iterfind(".//premis:formatName", NS)]
    assert "text/xml; charset=UTF-8" in names
    assert "text/plain; charset=UTF-8" in names


def test_the_signature_is_verified_by_openssl(finnish: tuple[LoneContext, Path], tmp_path: Path) -> None:
    ctx, root = finnish
    (tmp_path / "ca.pem").write_text(ctx.secrets["signing.pem"])
    argv = ["openssl", "smime", "-verify", "-in", root / "signature.sig", "-CAfile", tmp_path / "ca.pem"]
    said = subprocess.run(argv, capture_output=True, check=True)
    digest = hashlib.sha256((root / "mets.xml").read_bytes()).hexdigest()
    assert said.stdout.split() == [f"mets.xml:sha256:{digest}".encode()]
    shown = subprocess.run(
        ["openssl", "smime", "-pk7out", "-in", root / "signature.sig"], capture_output=True, check=True
    )
    parsed = subprocess.run(
        ["openssl", "pkcs7", "-print", "-noout"], input=shown.stdout, capture_output=True, check=True
    )
    assert b"sha256" in parsed.stdout
    data = (root / "signature.sig").read_bytes().replace(digest[:8].encode(), b"00000000", 1)
    (tmp_path / "changed.sig").write_bytes(data)
    argv[4] = tmp_path / "changed.sig"
    assert subprocess.run(argv, capture_output=True).returncode != 0


def test_no_secret_lies_in_the_package(finnish: tuple[LoneContext, Path]) -> None:
    ctx, root = finnish
    private = ctx.secrets["signing.pem"].splitlines()[3].encode()
    for path in (*root.rglob("*"), *ctx.work.parent.rglob("*")):
        assert not path.is_file() or private not in path.read_bytes()


async def test_an_update(schemas: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path, tree(tmp_path / "v", folder()))
    await packed(ctx, **DPRES, schemas=schemas, update_of="2025-01-02T03:04:05Z")
    header = mets_of(unpacked(ctx, tmp_path / "out")).find("mets:metsHdr", NS)
    assert dict(header.attrib) == {
        "CREATEDATE": "2025-01-02T03:04:05Z", "LASTMODDATE": "2026-11-29T10:00:03Z", "RECORDSTATUS": "update",
    }  # fmt: skip


async def test_images_of_awkward_kinds_are_valid(schemas: Path, tmp_path: Path) -> None:
    """Alpha, palettes, CMYK, 16 bits, grey, both byte orders: what the schematrons say of MIX holds for all."""
    import numpy as np
    from PIL import Image

    rgba = Image.fromarray(pixels(30, 20, 4))
    files: dict[str | bytes, Any] = {
        "rgba.tif": encode(rgba, "TIFF"),
        "rgba.png": encode(rgba, "PNG"),
        "rgba.webp": encode(rgba, "WEBP", lossless=True),
        "cmyk.tif": encode(Image.fromarray(pixels(30, 20)).convert("CMYK"), "TIFF"),
        "cmyk.jpg": encode(Image.fromarray(pixels(30, 20)).convert("CMYK"), "JPEG"),
        "grey.jpg": encode(pixels(30, 20, 1), "JPEG"),
        "grey.tif": encode(pixels(30, 20, 1, np.uint16), "TIFF"),
        "bits.tif": encode(Image.fromarray(pixels(30, 20, 1)).convert("1"), "TIFF", compression="group4"),
        "palette.tif": encode(Image.fromarray(pixels(30, 20)).quantize(16), "TIFF"),
        "palette.png": encode(Image.fromarray(pixels(30, 20)).quantize(16), "PNG"),
        "lab.tif": encode(Image.fromarray(pixels(30, 20)).convert("LAB"), "TIFF"),
        "grey.jp2": encode(pixels(30, 20, 1), "JPEG2000"),
        "rgba.jp2": encode(rgba, "JPEG2000"),
    }
    ctx = context(tmp_path, tree(tmp_path / "v", files))
    await packed(ctx, **DPRES, schemas=schemas)
    mets = mets_of(unpacked(ctx, tmp_path / "out"))
    assert len(mets.findall(".//mix:mix", NS)) == len(files)
    assert {e.text for e in mets.iterfind(".//mix:colorSpace", NS)} >= {
        "RGB", "CMYK", "BlackIsZero", "PaletteColor", "CIELab",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("files", "more", "reasons"),
    [
        ({"a.wad": b"IWAD", "b.wad": b"IWAD"}, {}, ["2 findings: ", "a.wad, b.wad: its format is not known"]),
        ({"a.csv": b"a,b\n"}, {}, ["the profile demands ADDML of text/csv"]),
        ({"a.tif": tiff(), "a.txt": b"\xe4\xff"}, {}, ["a.txt: it is not UTF-8, and its character set is not known"]),
        ({"a.xml": b'<?xml version="1.0" encoding="koi8-r"?><a/>'}, {}, ["character set KOI8-R is not one of"]),
        ({"a.tif": b"II*\0\x08\0\0\0"}, {}, ["a.tif: the profile demands MIX of image/tiff"]),
        ({"a.odd": b"1"}, {}, ["the profile does not take its format (fmt/9999, application/odd)"]),
        ({"a.tif": tiff(), b"\xff.tif": tiff()}, {}, ["%FF.tif: its name is not UTF-8"]),
        ({"a\nb.tif": tiff(), "\x1b[1m.tif": tiff()}, {}, ["control characters, which XML cannot hold"]),
        ({"a.tif": tiff()}, {"metadata": ["*.lido", "meta/*"]}, ["no file fits *.lido", "no file fits meta/*"]),
        ({"a.tif": tiff()}, {"identifier": "x", "use": {"*": "fi-dpres-file-format-identification"}}, []),
        ({"a.tif": tiff(), "b.tif": tiff()}, {"identifier": "x"}, ["b.tif: its identifier is that of another file"]),
        ({"a": {}}, {}, ["there are no files for a package"]),
    ],
)  # fmt: skip
async def test_what_the_finnish_profile_refuses(
    schemas: Path, tmp_path: Path, files: dict[str | bytes, Any], more: dict[str, Any], reasons: list[str]
) -> None:
    ctx = context(tmp_path, tree(tmp_path / "v", files))
    formats = package.FORMATS | {
        ".csv": ("x-fmt/18", "CSV", "", "text/csv"), ".odd": ("fmt/9999", "Odd", "", "application/odd"),
    }  # fmt: skip
    package.identified(ctx, formats)
    if not reasons:
        await packed(ctx, **DPRES, schemas=schemas, **more)
        return
    error = await refused(ctx, **DPRES, schemas=schemas, **more)
    for reason in reasons:
        assert reason in error.what
    (event,) = ctx.events
    assert (event.type, event.outcome) == (EventType.VALIDATION, "failure")


async def test_all_findings_at_once(schemas: Path, tmp_path: Path) -> None:
    """Of files, of names and of metadata in one reason; each in the log; and files are named to be replaced."""
    files = {f"{n:02}.wad": b"IWAD" for n in range(12)} | {
        "bad.lido": b"<lido", "mods.xml": MODS.replace("title>", "titel>").encode(), "c\rd": b"1",
        "good.tif": tiff(),
    }  # fmt: skip
    ctx = context(tmp_path, tree(tmp_path / "v", dict(files)))
    error = await refused(ctx, **DPRES, schemas=schemas, metadata=["*.lido", "mods.xml", "none/*"])
    for part in (
        "16 findings: ",
        "bad.lido: as metadata: it is not XML",
        "and 8 more",
        "no file fits none/*",
        "mods.xml: as metadata: line 1: Element '{http://www.loc.gov/mods/v3}titel': This element is not expected",
    ):
        assert part in error.what, part
    assert "00.wad" in error.files
    log = ctx.log_file().read_text()
    assert "\nc\\rd: its name has control characters" in log
    assert all(f"{n:02}.wad: its format is not known" in log for n in range(12))
    assert "good.tif" not in log


BOMB = """<?xml version="1.0"?><!DOCTYPE mods [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]>
<mods xmlns="http://www.loc.gov/mods/v3"><titleInfo><title>&d;</title></titleInfo></mods>"""

OUTSIDE = """<?xml version="1.0"?><!DOCTYPE mods [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<mods xmlns="http://www.loc.gov/mods/v3"><titleInfo><title>&a;</title></titleInfo></mods>"""


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "it is not XML"),
        (b"nonsense", "it is not XML"),
        (b"<mods", "it is not XML"),
        (LIDO.encode()[:400], "it is not XML"),
        (b"\xff\xfe<\0a\0", "it is not XML"),
        (BOMB.encode(), "it has a document type"),
        (OUTSIDE.encode(), "it has a document type"),
        (b"<!DOCTYPE a SYSTEM 'http://192.0.2.1/a.dtd'><a/>", "it has a document type"),
        (b"<html xmlns='http://www.w3.org/1999/xhtml'/>", "which the profile does not know as metadata"),
        (b"<mets:mets xmlns:mets='http://www.loc.gov/METS/'/>", "which the profile does not know as metadata"),
        (b"<l:x xmlns:l='http://www.lido-schema.org'/>", "which the profile does not know as metadata"),
        (b"<l:lidoWrap xmlns:l='http://www.lido-schema.org'/>", "its root lidoWrap holds nothing"),
        (LIDO.replace("lido:lidoRecID", "lido:nonsense").encode(), "not expected"),
        (MODS.replace("title>", "titel>").encode(), "not expected"),
        (b"<a>" * 230 + b"</a>" * 230, "nested too deeply"),
        (b"<a>" * 3000 + b"</a>" * 3000, "it is not XML"),
        (b"<m:mods xmlns:m='http://www.loc.gov/mods/v3'>\x01</m:mods>", "it is not XML"),
    ],
    ids=range(17),
)  # fmt: skip
async def test_metadata_of_others_that_cannot_be_used(
    schemas: Path, tmp_path: Path, document: bytes, reason: str
) -> None:
    """Each with its reason and its file; what entities name is neither read nor expanded."""
    ctx = context(tmp_path, tree(tmp_path / "v", {"a.tif": tiff(), "meta.xml": document}))
    error = await refused(ctx, schemas=schemas, metadata=["meta.xml"])
    assert "meta.xml: as metadata: " in error.what
    assert reason in error.what
    assert error.files == ["meta.xml"]


async def test_a_document_that_is_too_large(tmp_path: Path) -> None:
    payload = tree(tmp_path / "v", {"meta.xml": b""})
    os.truncate(payload / "meta.xml", (64 << 20) + 1)
    error = await refused(context(tmp_path, payload), metadata=["meta.xml"])
    assert "more than 67,108,864 are not read as metadata" in error.what


# -- the general profile -------------------------------------------------------------------------


async def test_the_general_profile(schemas: Path, tmp_path: Path) -> None:
    """A bag that others accept, with a document that is valid by METS and PREMIS 3."""
    ctx = context(tmp_path, tree(tmp_path / "object-7", folder()))
    package.identified(ctx)
    await packed(
        ctx, schemas=schemas, metadata=["*/lido.xml"], id="urn:x:7", creator="Archive", label="Torni",
        formats="identify",
    )  # fmt: skip
    root = unpacked(ctx, tmp_path / "out") / "object-7"
    bag = bagit.Bag(str(root))
    bag.validate(processes=1)
    assert bag.info["External-Identifier"] == "urn:x:7"
    assert "mets.xml" in (root / "tagmanifest-sha256.txt").read_text()
    mets = mets_of(root)
    assert mets.get("LABEL") == "Torni"
    assert len(mets.findall(".//premis3:object", NS)) == 9
    assert mets.findtext(".//premis3:agentVersion", "", NS) == "1.0"
    files = {
        e.find("mets:FLocat", NS).get(f"{{{NS['xlink']}}}href"): e for e in mets.iterfind(".//mets:file", NS)
    }
    assert files["data/images/page%202.tif"].get("CHECKSUMTYPE") == "SHA-256"
    assert files["data/images/page%202.tif"].get("MIMETYPE") == "image/tiff"
    assert ctx.events[-1].outcome == "success"


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
async def test_other_forms(tmp_path: Path, form: str) -> None:
    payload = tree(tmp_path / "vol", {"a.tif": tiff(), "sub": {"b.txt": b"text"}})
    ctx = context(tmp_path, payload)
    await packed(ctx, form=form)
    if form == "folder":
        found = ctx.work
        assert {os.fsdecode(one.path) for one in ctx.outputs} == {
            str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()
        }
    elif form == "zip":
        with zipfile.ZipFile(ctx.work / "vol.zip") as archive:
            assert archive.testzip() is None
            archive.extractall(tmp_path / "out")
        found = tmp_path / "out/vol"
    else:
        found = unpacked(ctx, tmp_path / "out") / "vol"
    bagit.Bag(str(found)).validate(processes=1)
    assert read_tree(found / "data") == read_tree(payload)
    for output in ctx.outputs:
        data = (ctx.work / os.fsdecode(output.path)).read_bytes()
        assert (output.size, output.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert not (ctx.work / ".scratch.tmp").exists()


async def test_without_schemas_it_is_said(tmp_path: Path) -> None:
    ctx = context(tmp_path, tree(tmp_path / "v", {"a.txt": b"1", "empty": {}}))
    await packed(ctx)
    (event,) = ctx.events
    assert event.outcome == "warning"
    for part in ("the formats of 1 file not known", "1 empty folder only in METS", "not validated"):
        assert part in event.detail
    mets = mets_of(unpacked(ctx, tmp_path / "out") / "v")
    assert [div.get("LABEL") for div in mets.iterfind(".//mets:structMap/mets:div/mets:div", NS)] == [
        None,
        "empty",
    ]


# -- profiles as data ----------------------------------------------------------------------------

OTHER = {
    "name": "ministry",
    "layout": "files",
    "form": "zip",
    "payload": "content/",
    "premis": "2.3",
    "values": {"system": {"about": "the sending system", "pattern": "[A-Z]+"}},
    "mets": {
        "namespaces": {"gov": "urn:example:gov"},
        "attributes": {"OBJID": "urn:example:{id}", "TYPE": "Records", "gov:SYSTEM": "{system}"},
    },
    "event_types": {"ingestion start": "accession", "message digest calculation": ""},
    "descriptive": [
        {"namespace": "urn:example:case", "roots": ["case"], "mdtype": "OTHER", "othermdtype": "CASE"}
    ],
    "formats": {"listed": [{"puid": "fmt/353", "name": "image/tiff", "version": "6"}]},
    "limits": {"files": 2, "file_size": 100000, "size": 150000},
}


async def test_a_profile_of_another_maker_is_data_alone(tmp_path: Path) -> None:
    path = tmp_path / "ministry.json"
    path.write_text(json.dumps(OTHER))
    case = b"<case xmlns='urn:example:case'><number>7</number></case>"
    payload = tree(tmp_path / "v", {"a.tif": tiff(10, 10), "case.xml": case})
    ctx = context(tmp_path, payload)
    await packed(
        ctx, profile=str(path), id="7", values={"system": "DMS"}, metadata=["case.xml"], formats="identify"
    )
    with zipfile.ZipFile(ctx.work / "v.zip") as archive:
        assert archive.namelist() == ["mets.xml", "content/a.tif", "content/case.xml"]
        mets = etree.fromstring(archive.read("mets.xml"))
    assert (mets.get("OBJID"), mets.get("TYPE"), mets.get("{urn:example:gov}SYSTEM")) == (
        "urn:example:7",
        "Records",
        "DMS",
    )
    assert mets.find(".//mets:dmdSec/mets:mdWrap", NS).get("OTHERMDTYPE") == "CASE"
    kinds = [e.text for e in mets.iterfind(".//premis:eventType", NS)]
    assert kinds[0] == "accession"
    assert "message digest calculation" not in kinds
    assert mets.findtext(".//premis:formatVersion", "", NS) == "6"


async def test_limits_of_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "ministry.json"
    path.write_text(json.dumps(OTHER))
    ctx = context(tmp_path, tree(tmp_path / "v", {"a": b"1" * 120_000, "b": b"2" * 80_000, "c": b""}))
    error = await refused(ctx, profile=str(path), values={"system": "DMS"})
    for part in (
        "a: it has more bytes than the profile allows (100,000)",
        "the package has 3 files; the profile allows 2",
        "the package has 200,000 bytes; the profile allows 150,000",
    ):
        assert part in error.what


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "all of it: "),
        ("name: x\nlayuot: bag", "layuot: "),
        ("name: [", "while parsing"),
        ("name: x\nvalues: {a: {pattern: '('}}", "not a regular expression"),
        ("name: x\npayload: ../up/", "write a directory inside the package"),
        ("name: x\npremis: '1.0'", "premis: "),
    ],
)
def test_a_profile_that_is_none_is_said_at_the_start(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(content)
    (said,) = PackageWorker().check(PackageOptions(profile=str(path)))
    assert str(path) in said
    assert reason in said


def test_what_a_profile_asks_for_is_said_at_the_start(tmp_path: Path) -> None:
    said = PackageWorker().check(
        PackageOptions(profile="dpres-1.8", values={"contract": "7", "other": "x"}, schemas=tmp_path)
    )
    for part in (
        'has no value "other"', '"7" does not have the form', "values: service is missing", "creator: is missing",
        "signing_credential: is missing", "lacks schema_catalogs/schemas/mets/mets.xsd",
    ):  # fmt: skip
        assert part in " ".join(said), part
    assert "there are dpres-1.8, generic" in PackageWorker().check(PackageOptions(profile="none"))[0]
    assert PackageWorker().check(PackageOptions()) == []
    (said_one,) = PackageWorker().check(PackageOptions(signing_credential="x"))
    assert "has no meaning" in said_one


@pytest.mark.parametrize(
    "options",
    [
        {"dc": {"titel": "x"}}, {"id": ""}, {"id": "ä"}, {"id": "a ä"}, {"id": "a\n"}, {"path": "a/b.tar"}, {"update_of": "yesterday"},
        {"identifier_type": "x"},  {"form": "rar"}, {"memory": "1MiB"},
    ],
)  # fmt: skip
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PackageOptions.model_validate(options)


# -- what is known of objects --------------------------------------------------------------------

TOWER = Description(
    identifier="A-1", title="Tower & bridge", creators=(Named(name="N. N.", role="pht"),), publisher="Museum",
    dates=(Dated(begin="1950", end="1951"),), subjects=(Named(name="towers"),), languages=("fi",),
    rights_uri="http://rightsstatements.org/vocab/InC/1.0/", abstract="A \x07 bell", extents=("2 prints",),
)  # fmt: skip


@pytest.mark.parametrize("kind", ["dc", "mods"])
async def test_what_is_known_of_the_object(schemas: Path, tmp_path: Path, kind: str) -> None:
    ctx = context(tmp_path, tree(tmp_path / "v", {"a.tif": tiff()}))
    ctx.description = Described(objects=(Object(description=TOWER),))
    await packed(
        ctx, **DPRES, schemas=schemas, describe_as=kind, dc={"title": "Torni", "coverage": ["Oulu", "Kuopio"]}
    )
    mets = mets_of(unpacked(ctx, tmp_path / "out"))
    data = mets.find("mets:dmdSec//mets:xmlData", NS)
    texts = [text for text in data.itertext() if text.strip()]
    assert {"Torni", "Oulu", "Kuopio", "A-1", "N. N.", "1950/1951", "towers", "A \\x07 bell"} <= set(texts)
    assert "Tower & bridge" not in texts
    assert mets.find("mets:structMap/mets:div", NS).get("DMDID") == "D1"


async def test_files_of_several_objects(schemas: Path, tmp_path: Path) -> None:
    """Each object has its description, and each file names that of its own."""
    ctx = context(
        tmp_path, tree(tmp_path / "v", {"1": {"a.tif": tiff()}, "2": {"a.tif": tiff()}, "x.txt": b"x"})
    )
    objects = [
        Object(description=Description(identifier=f"B-{n}", title=f"Sheet {n}"), files=(f"{n}/a.tif",))
        for n in (1, 2)
    ]
    ctx.description = Described(objects=tuple(objects))
    await packed(ctx, **DPRES, schemas=schemas)
    mets = mets_of(unpacked(ctx, tmp_path / "out"))
    assert [e.text for e in mets.iterfind(".//dc:title", NS)] == ["Sheet 1", "Sheet 2"]
    leaves = [div.get("DMDID") for div in mets.iterfind(".//mets:div[@TYPE='file']", NS)]
    assert leaves == [None, "D1", "D2"]
    assert mets.find("mets:structMap/mets:div", NS).get("DMDID") is None


# -- the same each time --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [DPRES, {"form": "tar"}, {"form": "zip"}], ids=["dpres", "tar", "zip"])
async def test_the_same_bytes_each_time(schemas: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    """A second try, after one that was cut, in another process and another place."""
    payload = tree(tmp_path / "vol", folder())
    first = await packed(context(tmp_path / "1", payload), **options, schemas=schemas)
    second = context(tmp_path / "2", payload)
    (second.work / ".scratch.tmp").mkdir()
    (second.work / ".scratch.tmp/known").write_bytes(b"half")
    (second.work / "vol.tar").write_bytes(b"half")
    await packed(second, **options, schemas=schemas)
    assert first.outputs == second.outputs
    assert read_tree(first.work) == read_tree(second.work)


async def test_names_that_are_odd_and_that_xml_holds(schemas: Path, tmp_path: Path) -> None:
    """Blanks that do not break, joiners, other scripts, all that XML or an address would take for its own."""
    names = [
        "a\u00a0b",
        "\u0938\u094d\u200d",
        "<&>\"'",
        "100%25 #?;=",
        "..x",
        " a ",
        "\U0001f3db",
        "e\u0301",
        "\u00e9",
    ]
    ctx = context(tmp_path, tree(tmp_path / "v", {f"{name}.tif": tiff(9, 9) for name in names}))
    await packed(ctx, **DPRES, schemas=schemas)
    root = unpacked(ctx, tmp_path / "out")
    mets = mets_of(root)
    hrefs = [e.get(f"{{{NS['xlink']}}}href") for e in mets.iterfind(".//mets:FLocat", NS)]
    found = {unquote(href.removeprefix("file:///data/")) for href in hrefs}
    assert found == {path.name for path in (root / "data").iterdir()} == {f"{name}.tif" for name in names}
    assert {e.text for e in mets.iterfind(".//premis:originalName", NS)} == {f"data/{name}" for name in found}


async def test_a_schematron_that_asks_the_network_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "s"
    home.mkdir()
    (home / "r.sch").write_text(
        '<schema xmlns="http://purl.oclc.org/dsdl/schematron"><include href="b.incl"/></schema>'
    )
    (home / "b.incl").write_text(
        '<pattern xmlns="http://purl.oclc.org/dsdl/schematron"><include href="http://192.0.2.1/x"/></pattern>'
    )
    (tmp_path / "p.json").write_text(
        json.dumps({"name": "x", "schemas": {"schematron": [{"file": "r.sch"}]}})
    )
    ctx = context(tmp_path, tree(tmp_path / "v", {"a.tif": tiff()}))
    error = await refused(ctx, profile=str(tmp_path / "p.json"), schemas=home)
    assert "includes http://192.0.2.1/x, which is not a file beside it" in error.what


async def test_identifiers_of_a_site(tmp_path: Path) -> None:
    ctx = context(tmp_path, tree(tmp_path / "v", {"a b.tif": tiff()}))
    await packed(ctx, identifier="Multimedia:{path}:{size}", identifier_type="museumplus")
    mets = mets_of(unpacked(ctx, tmp_path / "out") / "v")
    size = (tmp_path / "v/a b.tif").stat().st_size
    assert mets.findtext(".//premis3:objectIdentifierType", "", NS) == "museumplus"
    assert mets.findtext(".//premis3:objectIdentifierValue", "", NS) == f"Multimedia:a b.tif:{size}"


async def test_a_file_that_changed_since_the_claim_is_not_packed(tmp_path: Path) -> None:
    payload = tree(tmp_path / "v", {"a.txt": b"first"})
    ctx = context(tmp_path, payload)
    source = ctx.source
    known = list(source.entries())
    ctx.source = dataclasses.replace(source, entries=lambda: iter(known))
    (payload / "a.txt").write_bytes(b"other")
    with pytest.raises(ItemError, match="this file is not what it was"):
        await packed(ctx)
    assert ctx.outputs == []


async def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    payload = tree(tmp_path / "v", {"a.txt": b"first", "b.txt": b"1"})
    ctx = context(tmp_path, payload)
    known = list(ctx.source.entries())
    ctx.source = dataclasses.replace(ctx.source, entries=lambda: iter(known))
    (payload / "a.txt").unlink()
    (payload / "a.txt").symlink_to("/etc/passwd")
    error = await refused(ctx)
    assert "a.txt: " in error.what


# -- schemas -------------------------------------------------------------------------------------


async def test_a_document_that_the_schemas_refuse_is_not_packed(schemas: Path, tmp_path: Path) -> None:
    """METS has no attribute of that name; the schematron demands others."""
    told = {**OTHER, "limits": {}, "schemas": {"catalog": "catalog.xml", "xsd": {"http://www.loc.gov/METS/": "mets.xsd"},
            "schematron": [{"file": "schematron/mets_root.sch"}]}}  # fmt: skip
    told["mets"] = {"attributes": {"OBJID": "{id}", "NONSENSE": "x"}}
    path = tmp_path / "p.json"
    path.write_text(json.dumps(told))
    ctx = context(tmp_path, tree(tmp_path / "v", {"a.tif": tiff()}))
    error = await refused(ctx, profile=str(path), values={"system": "DMS"}, schemas=schemas)
    assert "The attribute 'NONSENSE' is not allowed" in error.what
    assert "the schematrons refuse the METS document: schematron/mets_root.sch: " in error.what


async def test_premis_3_is_validated_and_not_passed_over(schemas: Path, tmp_path: Path) -> None:
    from dittohead.toolkit.sip.schemas import Validator

    ctx = context(tmp_path, tree(tmp_path / "v", {"a.tif": tiff()}))
    await packed(ctx, schemas=schemas)
    made = unpacked(ctx, tmp_path / "out") / "v/mets.xml"
    validator = Validator(profile.read("generic"), schemas, set(), {})
    with open(made, "rb") as file:
        assert list(validator.by_schema(file)) == []
    made.write_bytes(made.read_bytes().replace(b"premis:size>", b"premis:sise>"))
    with open(made, "rb") as file:
        assert any("sise" in one for one in validator.by_schema(file))


async def test_an_address_without_a_file_is_not_fetched(schemas: Path, tmp_path: Path) -> None:
    home = tmp_path / "schemas"
    home.mkdir()
    (home / "premis-v3-0.xsd").write_bytes((schemas / "premis-v3-0.xsd").read_bytes())
    (home / "mets.xsd").write_text(
        '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="http://www.loc.gov/METS/">'
        '<xs:import namespace="http://www.w3.org/1999/xlink" schemaLocation="http://192.0.2.1/xlink.xsd"/></xs:schema>'
    )
    ctx = context(tmp_path, tree(tmp_path / "v", {"a.tif": tiff()}))
    error = await refused(ctx, schemas=home)
    assert "not in the catalog: http://192.0.2.1/xlink.xsd" in error.what


async def test_a_changed_schematron_is_compiled_again(schemas: Path, tmp_path: Path) -> None:
    """What was compiled before is kept for this process only as long as its file is the same."""
    rules = (
        '<schema xmlns="http://purl.oclc.org/dsdl/schematron"><ns prefix="m" uri="http://www.loc.gov/METS/"/>'
        '<pattern><rule context="/m:mets"><assert test="{}">said {}</assert></rule></pattern></schema>'
    )
    home = tmp_path / "s"
    home.mkdir()
    told = {"name": "x", "schemas": {"schematron": [{"file": "r.sch"}]}}
    (tmp_path / "p.json").write_text(json.dumps(told))
    options = {"profile": str(tmp_path / "p.json"), "schemas": home}
    for number, test in enumerate(("@OBJID", "true()", "@LABEL")):
        (home / "r.sch").write_text(rules.format(test, number))
        ctx = context(tmp_path / str(number), tree(tmp_path / f"v{number}", {"a.tif": tiff()}))
        if test == "true()":
            await packed(ctx, **options)
        else:
            assert f"r.sch: said {number}" in (await refused(ctx, **options)).what


# -- keys ----------------------------------------------------------------------------------------


def test_keys_that_cannot_sign() -> None:
    good, other = key(), key()
    private, _, certificate = good.partition("-----BEGIN CERT")
    for pem in ("", "nonsense", private, "-----BEGIN CERT" + certificate, private + other[other.index("-----BEGIN CERT"):],
                good + private, good.replace("MII", "MIX")):  # fmt: skip
        with pytest.raises(BadKey) as caught:
            Signer(pem)
        assert not any(line in str(caught.value) for line in private.splitlines()[1:] if line)


async def test_an_elliptic_key_signs(tmp_path: Path) -> None:
    pem = key("ec")
    (tmp_path / "ca.pem").write_text(pem)
    (tmp_path / "s").write_bytes(Signer(pem).sign("mets.xml:sha256:00\n"))
    argv = ["openssl", "smime", "-verify", "-in", tmp_path / "s", "-CAfile", tmp_path / "ca.pem"]
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"mets.xml:sha256:00\r\n"


async def test_a_credential_that_cannot_sign(schemas: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path, tree(tmp_path / "v", {"a.tif": tiff()}))
    ctx.secrets["signing.pem"] = "nonsense"
    error = await refused(ctx, **DPRES, schemas=schemas)
    assert "this credential cannot sign" in error.what


@pytest.mark.parametrize(("days", "ok"), [(400, True), (5, False)])
async def test_doctor_says_how_long_the_certificate_lasts(days: int, ok: bool) -> None:
    options = PackageOptions(**DPRES)
    pem = key(days=days)
    ((found, said),) = [one async for one in PackageWorker().doctor(options, lambda name: pem)]
    assert found is ok
    assert "its certificate is valid until 20" in said
    ((found, said),) = [one async for one in PackageWorker().doctor(options, lambda name: "x")]
    assert (found, "must hold one private key" in said) == (False, True)


# -- many files ----------------------------------------------------------------------------------


def test_files_are_sorted_on_disk_as_in_memory(tmp_path: Path) -> None:
    from dittohead.toolkit import natural_order

    paths = [f"d{n % 7}/p{n}.tif".encode() for n in range(1500)]
    lines = ({"path": path.hex()} for path in paths)
    found = [bytes.fromhex(line["path"]) for line in sorting.in_order(lines, tmp_path, run=5)]
    assert found == sorted(paths, key=natural_order.key)
    assert list(tmp_path.iterdir()) == []


class Many:
    """As many small files as are wanted, of which no list is kept."""

    def __init__(self, base: Path, count: int) -> None:
        (base / "v").mkdir(parents=True)
        self.root, self.count = base / "v", count
        for number in range(count):
            folder = self.root / f"d{number // 1000}"
            folder.mkdir(exist_ok=True)
            (folder / f"p{number}").write_bytes(b"x")

    def entries(self) -> Iterator[Entry]:
        digest = hashlib.sha256(b"x").hexdigest()
        for number in range(self.count):
            yield Entry(path=f"d{number // 1000}/p{number}".encode(), size=1, sha256=digest, mtime_ns=10**18)


@pytest.mark.rest
@pytest.mark.slow
def test_memory_does_not_grow_with_the_files(schemas: Path, tmp_path: Path) -> None:
    """Ten times as many files need hardly more memory, here and in the child."""
    code = (
        "import sys, asyncio, resource; from pathlib import Path; from tests.workers import test_sip as t;"
        "print(*t.memory_of(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))"
    )

    def megabytes(count: int) -> list[float]:
        argv = [sys.executable, "-c", code, tmp_path / str(count), str(count), schemas]
        said = subprocess.run(argv, check=True, capture_output=True, cwd=Path(__file__).parents[2])
        return [float(one) for one in said.stdout.split()]

    few, many = megabytes(1_000), megabytes(20_000)
    assert many[0] - few[0] < 40  # the daemon
    assert many[1] - few[1] < 60  # the child, which sorts 20,000 at once


def memory_of(base: Path, count: int, schemas: Path) -> tuple[float, float]:
    """Return (megabytes of this process, of its child) at most."""
    import resource

    many = Many(base, count)
    source = Inputs(root=many.root, entries=many.entries, files=count, size=count)
    ctx = context(base, many.root, source=source)
    asyncio.run(packed(ctx, schemas=schemas))
    used = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return next(used), next(used)


# -- SIGKILL -------------------------------------------------------------------------------------


def written(base: Path, payload: Path, kill: int = 0, dies: str = "") -> tuple[int, str]:
    env = {**os.environ, "MORTAL_DIES": dies, "MORTAL_ROOT": str(base)}
    argv = [
        sys.executable,
        "-m",
        "tests.workers.package_writer",
        base,
        payload,
        json.dumps({"form": "tar"}),
        str(kill),
    ]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode in (0, -9), done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("kill", "dies"),
    budget(
        [
            (1, ""),
            (3, ""),
            (7, ""),
            (0, "file.written:1:kill"),
            (0, "file.durable:1:kill"),
            (0, "file.renamed:1:kill"),
        ],
        (3, ""),
        (0, "file.durable:1:kill"),
    ),
)
def test_killed_while_it_is_written(tmp_path: Path, kill: int, dies: str) -> None:
    """What is left of a try that was killed is no package; the next try leaves the same as one that was not."""
    payload = tree(tmp_path / "vol", folder())
    _, whole = written(tmp_path / "whole", payload)
    assert written(tmp_path / "killed", payload, kill, dies)[0] == -9
    _, again = written(tmp_path / "killed", payload)
    assert again == whole
    left = next((tmp_path / "killed/work").iterdir()) / "package"
    assert [path.name for path in left.iterdir()] == ["vol.tar"]
