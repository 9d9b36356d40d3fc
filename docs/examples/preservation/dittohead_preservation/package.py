"""make-sip PAYLOAD PACKAGE: a tar of a folder's files and a METS file with the SHA-256 of each.

Source: METS Primer and Reference Manual, fileSec and structMap (loc.gov/standards/mets).
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import quote

METS = "http://www.loc.gov/METS/"
XLINK = "http://www.w3.org/1999/xlink"


def mets(name: str, payload: Path, files: list[Path]) -> bytes:
    """Return the METS file: every file with its size and SHA-256, and one division that holds them."""
    ET.register_namespace("mets", METS)
    ET.register_namespace("xlink", XLINK)
    root = ET.Element(f"{{{METS}}}mets", OBJID=name)
    group = ET.SubElement(ET.SubElement(root, f"{{{METS}}}fileSec"), f"{{{METS}}}fileGrp", USE="payload")
    structure = ET.SubElement(root, f"{{{METS}}}structMap", TYPE="physical")
    division = ET.SubElement(structure, f"{{{METS}}}div", TYPE="object", LABEL=name)
    for number, path in enumerate(files, 1):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        one = ET.SubElement(
            group,
            f"{{{METS}}}file",
            ID=f"file-{number}",
            SIZE=str(path.stat().st_size),
            CHECKSUM=digest,
            CHECKSUMTYPE="SHA-256",
        )
        where = quote(path.relative_to(payload).as_posix())
        ET.SubElement(one, f"{{{METS}}}FLocat", {"LOCTYPE": "URL", f"{{{XLINK}}}href": where})
        ET.SubElement(division, f"{{{METS}}}fptr", FILEID=f"file-{number}")
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def main() -> int:
    """Write the package; of the same files it is the same, byte for byte."""
    payload, package = Path(sys.argv[1]), Path(sys.argv[2])
    files = sorted(path for path in payload.rglob("*") if path.is_file() and not path.is_symlink())
    with tarfile.open(package, "w", format=tarfile.PAX_FORMAT) as tar:
        description = mets(payload.name, payload, files)
        head = tarfile.TarInfo("mets.xml")
        head.size = len(description)
        tar.addfile(head, io.BytesIO(description))
        for path in files:
            member = tar.gettarinfo(path, path.relative_to(payload).as_posix())
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            with open(path, "rb") as file:
                tar.addfile(member, file)
    print(f"{len(files)} files in {package.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
