"""Packages: schemas of others, keys, a folder with images of many kinds, and a step that packs it."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from lxml import etree

from dittohead.contract.worker import Made
from dittohead.model.events import Event, EventType
from dittohead.model.records import Output
from dittohead.workers.package.options import PackageOptions
from dittohead.workers.package.worker import PackageWorker
from tests.support.context import LoneContext
from tests.support.images import encode, jpeg, pixels, tiff
from tests.support.shared import shared

SCHEMAS = shared("dpres-xml-schemas-1.3.0.tar.gz")
PREMIS = shared("premis-v3-0.xsd")
SAMPLE = SCHEMAS.parent.parent / "facts/sample-mets-1.8.0.xml"

LEFT_OUT = (
    f"LEFT OUT: {SCHEMAS.name} (Digital-Preservation-Finland/dpres-xml-schemas) and {PREMIS.name} "
    "(www.loc.gov/standards/premis) are not in ../shared/data"
)

NS = {
    "mets": "http://www.loc.gov/METS/",
    "premis": "info:lc/xmlns/premis-v2",
    "premis3": "http://www.loc.gov/premis/v3",
    "mix": "http://www.loc.gov/mix/v20",
    "xlink": "http://www.w3.org/1999/xlink",
    "lido": "http://www.lido-schema.org",
    "mods": "http://www.loc.gov/mods/v3",
    "dc": "http://purl.org/dc/elements/1.1/",
}

LIDO = """<?xml version="1.0" encoding="UTF-8"?>
<lido:lidoWrap xmlns:lido="http://www.lido-schema.org"><lido:lido>
<lido:lidoRecID lido:type="local">7</lido:lidoRecID>
<lido:descriptiveMetadata xml:lang="fi"><lido:objectClassificationWrap><lido:objectWorkTypeWrap>
<lido:objectWorkType><lido:term>valokuva</lido:term></lido:objectWorkType></lido:objectWorkTypeWrap>
</lido:objectClassificationWrap><lido:objectIdentificationWrap><lido:titleWrap><lido:titleSet>
<lido:appellationValue>Torni</lido:appellationValue></lido:titleSet></lido:titleWrap>
</lido:objectIdentificationWrap></lido:descriptiveMetadata>
<lido:administrativeMetadata xml:lang="fi"><lido:recordWrap><lido:recordID lido:type="local">7</lido:recordID>
<lido:recordType><lido:term>item</lido:term></lido:recordType><lido:recordSource><lido:legalBodyName>
<lido:appellationValue>Museum</lido:appellationValue></lido:legalBodyName></lido:recordSource>
</lido:recordWrap></lido:administrativeMetadata></lido:lido></lido:lidoWrap>
"""

CONTRACT = "urn:uuid:12345678-f00d-d00f-a4b7-010a184befdd"

DPRES: dict[str, Any] = {
    "profile": "dpres-1.8",
    "id": "Museum_Object_7",
    "creator": "Museum",
    "values": {"contract": CONTRACT, "content": "Object_7", "service": "cultural-heritage"},
    "signing_credential": "signing.pem",
    "formats": "identify",
}

#: What Siegfried says of what is in `folder()`.
FORMATS = {
    ".tif": ("fmt/353", "Tagged Image File Format", "", "image/tiff"),
    ".jpg": ("fmt/43", "JPEG File Interchange Format", "1.01", "image/jpeg"),
    ".png": ("fmt/13", "Portable Network Graphics", "1.2", "image/png"),
    ".gif": ("fmt/4", "Graphics Interchange Format", "89a", "image/gif"),
    ".jp2": ("x-fmt/392", "JP2 (JPEG 2000 part 1)", "", "image/jp2"),
    ".webp": ("fmt/567", "WebP", "", "image/webp"),
    ".xml": ("fmt/101", "Extensible Markup Language", "1.0", "application/xml, text/xml"),
    ".txt": ("x-fmt/111", "Plain Text File", "", "text/plain"),
}


def jp2(width: int = 60, height: int = 40) -> bytes:
    return encode(pixels(width, height), "JPEG2000", irreversible=False)


def folder() -> dict[str | bytes, Any]:
    """Return a folder with an image of each kind, a record and a text."""
    return {
        "reports": {"lido.xml": LIDO.encode(), "notes.txt": "hyvää päivää\n".encode()},
        "images": {
            "page 2.tif": tiff(60, 40),
            "page 10.tif": tiff(60, 40, compression="tiff_lzw"),
            "ä.jpg": jpeg(60, 40),
            "a.png": encode(pixels(60, 40), "PNG"),
            "a.gif": encode(pixels(60, 40), "GIF"),
            "a.jp2": jp2(),
            "a.webp": encode(pixels(60, 40), "WEBP", lossless=True),
        },
    }


def key(kind: str = "rsa", days: int = 3650) -> str:
    """Return a private key with a certificate of its own."""
    made: Any = (
        rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Museum")])
    begin = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(made.public_key())
    builder = builder.serial_number(7).not_valid_before(begin).not_valid_after(end)
    certificate = builder.sign(made, hashes.SHA256())
    private = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (private + certificate.public_bytes(serialization.Encoding.PEM)).decode()


def identified(ctx: LoneContext, formats: dict[str, tuple[str, str, str, str]] = FORMATS) -> None:
    """Let a step `identify` have named the formats of a context's files, by their endings."""
    from dittohead.model import paths

    root = ctx.work.parent / "identify"
    root.mkdir(exist_ok=True)
    lines = []
    for entry in ctx.source.entries():
        if entry.is_dir:
            continue
        known = formats.get(Path(entry.path.decode("utf-8", "replace")).suffix)
        found = [dict(zip(("puid", "name", "version", "mime"), known, strict=True))] if known else []
        lines.append(json.dumps({**paths.path_fields(entry.path), "sha256": entry.sha256, "formats": found}))
    (root / "formats.json").write_text('{"files": [\n' + ",\n".join(lines) + '\n], "by": {}}\n')
    output = Output(path=b"formats.json", size=0, sha256="")
    ctx.others["identify"] = Made(
        name="identify", worker="identify", source="", root=root, outputs=lambda: iter([output]),
        locations=lambda: iter(()),
    )  # fmt: skip


def past() -> list[Event]:
    """Return what a job has recorded before."""
    at = dt.datetime(2026, 11, 29, 10, 0, 0, tzinfo=dt.UTC)
    told = [
        (EventType.INGESTION_START, "success", "claimed", "dittohead 1.0", ""),
        (EventType.DIGEST, "success", "SHA-256 of 9 files", "dittohead 1.0", ""),
        (EventType.VIRUS_CHECK, "success", "9 files clean", "ClamAV 1.4.6", "scan"),
        (EventType.FORMAT_IDENTIFICATION, "warning", "9 files", "Siegfried 1.11.9", "identify"),
    ]
    return [
        Event(
            type=kind, outcome=outcome, detail=detail, agent=agent, step=step, at=at + dt.timedelta(seconds=n)
        )
        for n, (kind, outcome, detail, agent, step) in enumerate(told)
    ]


_KEY = key()


def context(base: Path, payload: Path, **more: Any) -> LoneContext:
    """Return a context whose past, formats and times are always the same."""
    ctx = LoneContext(base, payload, secrets={"signing.pem": _KEY}, step="package", **more)
    ctx.claimed_at = 1_700_000_000
    ctx.past = past()
    return ctx


async def packed(ctx: LoneContext, **options: Any) -> LoneContext:
    """Run a step."""
    if options.get("formats") and "identify" not in ctx.others:
        identified(ctx)
    await PackageWorker().run(ctx, PackageOptions.model_validate(options))
    return ctx


def unpacked(ctx: LoneContext, target: Path) -> Path:
    """Unpack the only output by tar."""
    (output,) = ctx.outputs
    target.mkdir()
    subprocess.run(["tar", "-xf", ctx.work / output.path.decode(), "-C", target], check=True)
    return target


def mets_of(root: Path) -> Any:
    return etree.parse(str(root / "mets.xml")).getroot()


def schemas(base: Path) -> Path:
    """Unpack the Finnish schemas, and lay a catalog for METS with PREMIS 3 beside them."""
    if not (SCHEMAS.exists() and PREMIS.exists()):
        pytest.skip(LEFT_OUT)
    subprocess.run(["tar", "-xzf", SCHEMAS, "-C", base], check=True)
    home = base / "dpres-xml-schemas"
    (home / "catalog.xml").write_text(
        '<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog">'
        '<nextCatalog catalog="schema_catalogs/catalog_main.xml"/></catalog>'
    )
    (home / "mets.xsd").write_text(
        '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="http://www.loc.gov/METS/">'
        '<xs:include schemaLocation="schema_catalogs/schemas/mets/mets.xsd"/></xs:schema>'
    )
    (home / "premis-v3-0.xsd").write_bytes(PREMIS.read_bytes())
    return home
