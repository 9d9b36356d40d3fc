"""Read a volume's METS file: its barcode, its MARC record, which is written out as it is, and its title.

Sources: METS 1.12 (OBJID of the root; dmdSec/mdWrap/xmlData), MARCXML (namespace MARC21/slim); MARC 21, field
245 (title) and subfields a, n, p, b. That Google's OBJID is LIB_BARCODE, as is the file's name, is read in
HathiTrust's tools. Read without document types.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree  # the tree alone; see `xml_tree`
from xml.etree.ElementTree import Element

from dittohead.toolkit import xml_tree

METS = "http://www.loc.gov/METS/"
MARC = "http://www.loc.gov/MARC21/slim"

#: A larger one is not read: a volume of 1,000 pages has one of a megabyte or two.
MOST = 128 << 20


class UnreadableMets(Exception):
    """It is not a readable METS file; says why."""


@dataclass(frozen=True, kw_only=True)
class Mets:
    """What a volume's METS file says."""

    object_id: str  #: OBJID of its root, such as "LIB_32101081977728"; "" for none
    title: str  #: of its MARC record; "" where that has none
    marc: bytes  #: the MARC record as an XML document; b"" where there is none


def read(data: bytes) -> Mets:
    """Return what a METS file says. Raises: UnreadableMets."""
    try:
        root = xml_tree.parse(data)
    except xml_tree.UnreadableXml as error:
        raise UnreadableMets(str(error)) from None
    if root.tag != f"{{{METS}}}mets":
        raise UnreadableMets(f"its root is {root.tag}, and not METS")
    record = root.find(f".//{{{METS}}}dmdSec//{{{MARC}}}record")
    return Mets(
        object_id=root.get("OBJID", "").strip(),
        title="" if record is None else _title(record),
        marc=b"" if record is None else _document(record),
    )


def _title(record: Element) -> str:
    field = record.find(f"{{{MARC}}}datafield[@tag='245']")
    if field is None:
        return ""
    parts = [part.text or "" for part in field if part.get("code") in ("a", "n", "p", "b")]
    return " ".join(" ".join(parts).split()).rstrip(" /:;,")


def _document(record: Element) -> bytes:
    ElementTree.register_namespace("marc", MARC)
    record.tail = None
    written: bytes = ElementTree.tostring(record, encoding="utf-8", xml_declaration=True)
    return written + b"\n"
