"""XML as all of this package writes and reads it: no entities, no network, nothing that XML cannot hold."""

from __future__ import annotations

import os
import re
from typing import Any

from lxml import etree

#: Characters that XML 1.0 cannot hold. Source: XML 1.0, 2.2 (Char).
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

#: Bytes of the largest document that is read.
LARGEST = 64 << 20

#: Elements within elements; libxml2 reads no more than 256 either.
DEEPEST = 200


class NotXml(Exception):
    """A document cannot be used; says why."""


def holds(text: str) -> bool:
    """Tell whether XML can hold a text."""
    return _NOT_XML.search(text) is None


def plain(text: str) -> str:
    """Return a text with escapes in the place of what XML cannot hold."""
    return _NOT_XML.sub(lambda found: repr(found[0])[1:-1], text)


def parser() -> etree.XMLParser:
    """Return a parser that fetches and expands nothing."""
    return etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, dtd_validation=False, huge_tree=False
    )


def parsed(fd: int) -> Any:
    """Return the root of the document that a file holds.

    Raises: NotXml: it is too large, none, or has a document type, which could define entities.
    """
    size = os.fstat(fd).st_size
    if size > LARGEST:
        raise NotXml(f"it has {size:,} bytes, and more than {LARGEST:,} are not read as metadata")
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, "rb", closefd=False) as file:
        data = file.read()
    try:
        root = etree.fromstring(data, parser())
    except etree.XMLSyntaxError as error:
        raise NotXml(f"it is not XML: {plain(error.msg or 'no reason is given')}") from None
    document = root.getroottree().docinfo
    if document.doctype or document.internalDTD is not None:
        raise NotXml("it has a document type, which could define entities; remove it")
    if any(depth > DEEPEST for depth in _depths(root)):
        raise NotXml("its elements are nested too deeply")
    return root


def _depths(root: Any) -> Any:
    depth = 0
    for event, _ in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        yield depth


def add(parent: Any, namespace: str, path: str, text: str, **attributes: str) -> Any:
    """Add an element, within others that are made as well, and return it; nothing where there is no text.

    Args:
        parent: what it is added to.
        namespace: of all of them.
        path: local names, such as `format/formatDesignation/formatName`; one whose name is the last child's
            already is gone into, and not made again.
        text: what the last one holds.
        attributes: of the last one, by name.
    """
    if not text:
        return None
    *around, name = path.split("/")
    for outer in around:
        tag = f"{{{namespace}}}{outer}"
        parent = parent[-1] if len(parent) and parent[-1].tag == tag else etree.SubElement(parent, tag)
    made = etree.SubElement(parent, f"{{{namespace}}}{name}", attributes)
    made.text = plain(text)
    return made
