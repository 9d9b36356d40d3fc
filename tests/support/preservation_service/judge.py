"""What a service finds in a package: `python -m tests.support.preservation_service.judge SCHEMAS CA`.

A process of its own: libxml2 reads XML_CATALOG_FILES once. Takes lines of JSON {"path", "contract", "known"} and
answers {"objid", "contract", "status", "created", "modified", "files", "steps": [[step, words of a failure]]}; the
steps end with the first that fails.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

METS, PREMIS = "{http://www.loc.gov/METS/}", "{info:lc/xmlns/premis-v2}"
FI = "{http://digitalpreservation.fi/schemas/mets/fi-extensions}"
XLINK = "{http://www.w3.org/1999/xlink}"
_HASHES = {
    "MD5": "md5",
    "SHA-1": "sha1",
    "SHA-224": "sha224",
    "SHA-256": "sha256",
    "SHA-384": "sha384",
    "SHA-512": "sha512",
}

#: Schematrons of kinds of metadata, by what must be in the document for them to have anything to say.
_ONLY = {
    "mods": b"http://www.loc.gov/mods/v3", "ead3": b"http://ead3.archivists.org/schema/", "ead": b"urn:isbn:1-931666-22-9",
    "eaccpf": b"urn:isbn:1-931666-33-4", "lido": b"http://www.lido-schema.org", "marc": b"http://www.loc.gov/MARC21/slim",
    "vra": b"http://www.vraweb.org/", "addml": b"addml", "audiomd": b"audioMD", "videomd": b"videoMD", "mix": b"http://www.loc.gov/mix/v20",
}  # fmt: skip


class Refused(Exception):
    """A step fails; says why."""


class Judge:
    def __init__(self, schemas: Path | None, ca: Path | None) -> None:
        self.schemas, self.ca = schemas, ca
        self._schema: Any = None
        self._rules: dict[Path, Any] = {}

    def judge(self, path: Path, contract: str, known: dict[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = {
            "objid": "",
            "contract": "",
            "status": "",
            "created": "",
            "modified": "",
            "files": [],
            "steps": [],
        }
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            steps = [
                ("unpacking", lambda: self._unpack(path, root)),
                ("virus check", lambda: None),
                ("signature", lambda: self._signature(root)),
                ("schema", lambda: self._mets(root, told)),
                ("additional", lambda: self._additional(root)),
                ("fixity", lambda: self._fixity(root, told)),
                ("objects", lambda: None),
                ("contract", lambda: self._contract(told, contract)),
                ("identity", lambda: self._identity(told, known)),
            ]
            for name, step in steps:
                try:
                    step()
                except Refused as error:
                    told["steps"].append([name, str(error)])
                    break
                told["steps"].append([name, ""])
        return told

    def _unpack(self, path: Path, root: Path) -> None:
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    parts = Path(member.name).parts
                    if (
                        member.name.startswith("/")
                        or ".." in parts
                        or not (member.isfile() or member.isdir())
                    ):
                        raise Refused(f"unsafe member {member.name!r}")
                tar.extractall(root)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise Refused(f"not a readable tar archive: {error}") from None
        names = {one.name for one in root.iterdir()}
        if "mets.xml" not in names:
            raise Refused("mets.xml is missing")

    def _signature(self, root: Path) -> None:
        signature = root / "signature.sig"
        if not signature.is_file():
            raise Refused("signature.sig is missing")
        if self.ca is None:
            raise Refused("no certificate of this partner is known")
        said = subprocess.run(
            ["openssl", "smime", "-verify", "-in", signature, "-CAfile", self.ca],
            capture_output=True,
            check=False,
        )
        if said.returncode:
            raise Refused("Invalid signature: " + said.stderr.decode().strip().splitlines()[0])
        lines = [line.strip() for line in said.stdout.decode().splitlines() if line.strip()]
        if not lines:
            raise Refused("the signature names no file")
        for line in lines:
            name, algorithm, digest = line.split(":")
            if hashlib.new(algorithm, (root / name).read_bytes()).hexdigest() != digest:
                raise Refused(f"the signed digest of {name} is another one")

    def _mets(self, root: Path, told: dict[str, Any]) -> None:
        from lxml import etree

        try:
            document = etree.parse(
                str(root / "mets.xml"), etree.XMLParser(resolve_entities=False, no_network=True)
            )
        except etree.XMLSyntaxError as error:
            raise Refused(f"mets.xml is not XML: {error}") from None
        mets = document.getroot()
        header = mets.find(f"{METS}metsHdr")
        told["objid"], told["contract"] = mets.get("OBJID", ""), mets.get(f"{FI}CONTRACTID", "")
        told["status"] = "" if header is None else header.get("RECORDSTATUS", "")
        told["created"] = "" if header is None else header.get("CREATEDATE", "")
        told["modified"] = "" if header is None else header.get("LASTMODDATE", "")
        if self.schemas is None:
            return
        if self._schema is None:
            self._schema = etree.XMLSchema(
                etree.parse(str(self.schemas / "schema_catalogs/schemas/mets/mets.xsd"))
            )
        if not self._schema.validate(document):
            raise Refused(
                f"mets.xml, line {self._schema.error_log[0].line}: {self._schema.error_log[0].message}"
            )

    def _additional(self, root: Path) -> None:
        if self.schemas is None:
            return
        from lxml import etree, isoschematron

        data = (root / "mets.xml").read_bytes()
        document = etree.fromstring(data)
        for path in sorted((self.schemas / "schematron").glob("mets_*.sch")):
            kind = next((key for key in sorted(_ONLY, key=len, reverse=True) if key in path.stem), "")
            if kind and _ONLY[kind] not in data:
                continue
            if path not in self._rules:
                made = isoschematron.Schematron(etree.parse(str(path)), store_report=True, store_xslt=True)
                self._rules[path] = etree.XSLT(made.validator_xslt)
            report = self._rules[path](document)
            for one in report.getroot().iter("{http://purl.oclc.org/dsdl/svrl}failed-assert"):
                raise Refused(f"{path.name}: {' '.join(''.join(one.itertext()).split())}")

    def _fixity(self, root: Path, told: dict[str, Any]) -> None:
        from lxml import etree

        mets = etree.parse(str(root / "mets.xml")).getroot()
        sections = {one.get("ID"): one for one in mets.iter(f"{METS}techMD")}
        left = {str(one.relative_to(root)) for one in root.rglob("*") if one.is_file()} - {
            "mets.xml",
            "signature.sig",
        }
        for one in mets.iter(f"{METS}file"):
            href = one.find(f"{METS}FLocat").get(f"{XLINK}href")
            name = unquote(href.removeprefix("file:///").removeprefix("file://"))
            if name not in left:
                raise Refused(f"{name} is not in the package, or there twice")
            left.discard(name)
            told["files"].append(name)
            ids = (one.get("ADMID") or "").split()
            found = [
                fixity for at in ids if at in sections for fixity in sections[at].iter(f"{PREMIS}fixity")
            ]
            if len(found) != 1:
                raise Refused(f"{name} has {len(found)} fixities")
            algorithm = _HASHES[found[0].findtext(f"{PREMIS}messageDigestAlgorithm").strip().upper()]
            wanted = found[0].findtext(f"{PREMIS}messageDigest").strip().lower()
            if hashlib.new(algorithm, (root / name).read_bytes()).hexdigest() != wanted:
                raise Refused(f"the digest of {name} is another one")
        if left:
            raise Refused(f"{min(left)} is not in METS")

    def _contract(self, told: dict[str, Any], contract: str) -> None:
        if told["contract"] != contract:
            raise Refused(f"the agreement {told['contract']} is not one of this user")

    def _identity(self, told: dict[str, Any], known: dict[str, Any]) -> None:
        here = known.get(told["objid"])
        if told["status"] == "update":
            if here is None:
                raise Refused(f"there is nothing with the OBJID {told['objid']} to be updated")
            if here["created"] != told["created"] or not told["modified"]:
                raise Refused("CREATEDATE is not that of the first version, or LASTMODDATE is missing")
        elif told["status"] != "submission":
            raise Refused(f"RECORDSTATUS {told['status']!r} is not known")
        elif here is not None:
            raise Refused(f"duplicate OBJID {told['objid']}: it has been ingested already")


def main(schemas: str, ca: str) -> None:
    judge = Judge(Path(schemas) if schemas else None, Path(ca) if ca else None)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(judge.judge(Path(asked["path"]), asked["contract"], asked["known"])), flush=True)


if __name__ == "__main__":
    assert os.environ.get("XML_CATALOG_FILES") or not sys.argv[1]
    main(*sys.argv[1:])
