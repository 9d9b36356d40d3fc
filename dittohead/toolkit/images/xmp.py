"""Read an XMP packet, put more into it, write it: what was there stays.

Source: XMP Specification Part 1 (ISO 16684-1): 7 (serialisation), 8.2 (properties and their kinds);
Part 3, table 1 (the packet's wrapper). An RDF document is read without document types.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal
from xml.etree.ElementTree import Element, SubElement  # the tree alone; see `_parsed`
from xml.sax.saxutils import escape, quoteattr  # writes, reads nothing

from dittohead.toolkit import xml_tree

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XML = "http://www.w3.org/XML/1998/namespace"
_META = "adobe:ns:meta/"

#: Prefixes by which the names are known; a packet that has others of its own keeps them.
PREFIXES = {
    "rdf": RDF,
    "x": _META,
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "stEvt": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "stRef": "http://ns.adobe.com/xap/1.0/sType/ResourceRef#",
    "dittohead": "urn:x-dittohead:xmp:1#",
}

#: An XMP packet above this size is not read: it would be a hostile file's.
MOST = 16 << 20

#: Of attributes that say how a value stands, not what it is.
_GRAMMAR = (
    *(f"{{{RDF}}}{name}" for name in ("parseType", "about", "nodeID", "ID", "datatype")),
    f"{{{_XML}}}",
)

_LIST = {"alt": "Alt", "bag": "Bag", "seq": "Seq"}

_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END = '\n<?xpacket end="w"?>'

#: Characters that XML 1.0 cannot hold.
_UNHELD = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class UnreadablePacket(Exception):
    """The packet is not readable XMP; says why."""


@dataclass(frozen=True, slots=True)
class Property:
    """One property and what is to be said by it.

    A text and the default of an `alt` take the place of what is there; a `bag` or `seq` is added to; a
    structure replaces, and `events` are structures added to a sequence.
    """

    name: str  #: with its prefix: "dc:title"
    kind: Literal["text", "alt", "bag", "seq", "struct", "events"]
    values: Sequence[str] = ()
    fields: Sequence[dict[str, str]] = field(default=())  #: of structures: {"stRef:filePath": ...}


def merged(packet: bytes, wanted: Sequence[Property]) -> tuple[bytes, dict[str, str]]:
    """Return the packet with the properties in it, and {name: value} of what they took the place of.

    The same of the same. Args: packet: b"" for none. Raises: Unreadable.
    """
    tree = _Tree(packet)
    replaced: dict[str, str] = {}
    for each in wanted:
        before = tree.put(each)
        if before is not None:
            replaced[each.name] = before
    return tree.written(), replaced


def values(packet: bytes) -> dict[str, list[str]]:
    """Return {name: texts} of the simple and list properties of a packet. Raises: Unreadable."""
    tree = _Tree(packet)
    found: dict[str, list[str]] = {}
    for description in tree.descriptions:
        for name, text in description.attrib.items():
            if not name.startswith((f"{{{RDF}}}", f"{{{_XML}}}")):
                found[tree.short(name)] = [text]
        for element in description:
            items = [item.text or "" for item in _items(element)]
            found[tree.short(element.tag)] = items or [(element.text or "").strip()]
    return found


class _Tree:
    """One packet's properties."""

    def __init__(self, packet: bytes) -> None:
        self._prefixes = dict(PREFIXES)
        self._used: set[str] = set()
        self.root = self._parsed(packet) if packet.strip(b"\0 \t\r\n") else self._empty()
        rdf = self.root if self.root.tag == f"{{{RDF}}}RDF" else self.root.find(f".//{{{RDF}}}RDF")
        if rdf is None:
            raise UnreadablePacket("it holds no rdf:RDF")
        self._rdf = rdf
        self.descriptions = [each for each in rdf if each.tag == f"{{{RDF}}}Description"]
        if not self.descriptions:
            self.descriptions = [SubElement(rdf, f"{{{RDF}}}Description", {f"{{{RDF}}}about": ""})]

    @staticmethod
    def _empty() -> Element:
        root = Element(f"{{{_META}}}xmpmeta")
        SubElement(root, f"{{{RDF}}}RDF")
        return root

    def _parsed(self, packet: bytes) -> Element:
        if len(packet) > MOST:
            raise UnreadablePacket(f"it has {len(packet)} bytes")
        if packet[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            # Some writers end the text by a zero, which in UTF-16 is half of a character.
            packet = packet.rstrip(b"\0")
        try:
            return xml_tree.parse(packet, self._declared)
        except xml_tree.UnreadableXml as error:
            raise UnreadablePacket(str(error)) from None

    def _declared(self, prefix: str | None, uri: str) -> None:
        # A prefix may stand for two names in two places: the first keeps it.
        if uri not in self._prefixes.values() and prefix and prefix not in self._prefixes:
            self._prefixes[prefix] = uri

    def short(self, name: str) -> str:
        """Return a name with its prefix."""
        uri, _, local = name.removeprefix("{").rpartition("}")
        if not uri:
            return local
        if uri == _XML:
            return f"xml:{local}"
        prefix = next((prefix for prefix, known in self._prefixes.items() if known == uri), "")
        number = 1
        while not prefix:
            if f"ns{number}" not in self._prefixes:
                prefix = f"ns{number}"
                self._prefixes[prefix] = uri
            number += 1
        self._used.add(prefix)
        return f"{prefix}:{local}"

    # -- properties --------------------------------------------------------------------------

    def put(self, wanted: Property) -> str | None:
        """Say a property; return what it took the place of, None when nothing or the same."""
        name = _full(wanted.name)
        before = self._taken(name)
        element = Element(name)
        self._fill(element, before, wanted)
        self.descriptions[0].append(element)
        # Compared by all that it said, so that no form in which it may stand is lost in silence.
        said = set(_said(element))
        return "; ".join(dict.fromkeys(t for each in before for t in _said(each) if t not in said)) or None

    def _taken(self, name: str) -> list[Element]:
        """Take a property out, in whichever form and as often as it stands, and return it as elements."""
        found: list[Element] = []
        for description in self.descriptions:
            text = description.attrib.pop(name, None)
            if text is not None:
                found.append(Element(name))
                found[-1].text = text
            for element in description.findall(name):
                description.remove(element)
                found.append(element)
        return found

    def _fill(self, element: Element, before: Sequence[Element], wanted: Property) -> None:
        texts = [_UNHELD.sub("\ufffd", text) for text in wanted.values]
        if wanted.kind == "text":
            element.text = texts[0]
            return
        if wanted.kind == "struct":
            element.set(f"{{{RDF}}}parseType", "Resource")
            _structure(element, wanted.fields[0])
            return
        items = [item for each in before for item in _items_or_text(each)]
        listed = SubElement(element, f"{{{RDF}}}{_LIST.get(wanted.kind, 'Seq')}")
        if wanted.kind == "alt":
            _alternative(listed, items, texts[0])
            return
        known = {item.text for item in items}
        listed.extend(items)
        listed.extend(_item(text) for text in dict.fromkeys(texts) if text not in known)
        for fields in wanted.fields:
            item = SubElement(listed, f"{{{RDF}}}li", {f"{{{RDF}}}parseType": "Resource"})
            _structure(item, fields)

    # -- writing -----------------------------------------------------------------------------

    def written(self) -> bytes:
        """Return the packet."""
        root = self.root
        if root.tag != f"{{{_META}}}xmpmeta":
            root = Element(f"{{{_META}}}xmpmeta")  # around what has none, or that of before 2004
            root.append(self._rdf)
        self._used.clear()
        body = "\n".join(self._lines(root, 0))
        names = [(prefix, uri) for prefix, uri in sorted(self._prefixes.items()) if prefix in self._used]
        declared = "".join(f" xmlns:{prefix}={quoteattr(uri)}" for prefix, uri in names)
        return (_BEGIN + body.replace("<x:xmpmeta", f"<x:xmpmeta{declared}", 1) + _END).encode()

    def _lines(self, element: Element, depth: int) -> Iterator[str]:
        name = self.short(element.tag)
        head, space = self._head(element), " " * depth
        if not len(element):
            text = escape(element.text or "", _RETURN)
            yield f"{space}{head}>{text}</{name}>" if text else f"{space}{head}/>"
            return
        if any((text or "").strip() for text in (element.text, *(child.tail for child in element))):
            yield f"{space}{self._letters(element)}"
            return
        yield f"{space}{head}>"
        for child in element:
            yield from self._lines(child, depth + 1)
        yield f"{space}</{name}>"

    def _head(self, element: Element) -> str:
        attributes = (
            f" {self.short(key)}={quoteattr(text, _BREAKS)}" for key, text in element.attrib.items()
        )
        return f"<{self.short(element.tag)}{''.join(attributes)}"

    def _letters(self, element: Element) -> str:
        """Return an element to the letter: in it text and elements stand in parallel (rdf:Literal)."""
        inner = "".join(self._letters(child) + escape(child.tail or "", _RETURN) for child in element)
        text = escape(element.text or "", _RETURN)
        return f"{self._head(element)}>{text}{inner}</{self.short(element.tag)}>"


#: A parser would make spaces of these in an attribute, and a line feed of a carriage return.
_RETURN = {"\r": "&#13;"}
_BREAKS = {"\n": "&#10;", "\t": "&#9;", **_RETURN}


def _full(name: str) -> str:
    prefix, _, local = name.partition(":")
    return f"{{{PREFIXES[prefix]}}}{local}"


def _items(element: Element) -> Iterator[Element]:
    """Yield the items of a property that is a list."""
    for kind in _LIST.values():
        for listed in element.findall(f"{{{RDF}}}{kind}"):
            yield from listed.findall(f"{{{RDF}}}li")


def _items_or_text(element: Element) -> Iterator[Element]:
    """Yield the items of a list, or the one that a simple value is where a list belongs."""
    items = list(_items(element))
    text = (element.text or "").strip()
    yield from items or ([_item(text)] if text else [])


def _said(element: Element) -> Iterator[str]:
    """Yield everything that a property says: texts, and attributes that are not grammar."""
    for each in element.iter():
        for name, value in each.attrib.items():
            if name == f"{{{RDF}}}resource" or not name.startswith(_GRAMMAR):
                yield value
        yield from filter(None, ((text or "").strip() for text in (each.text, *(c.tail for c in each))))


def _item(text: str) -> Element:
    item = Element(f"{{{RDF}}}li")
    item.text = text
    return item


def _alternative(listed: Element, items: Sequence[Element], text: str) -> None:
    """Put a text first as the default; other languages stay."""
    lang = f"{{{_XML}}}lang"
    default = [item for item in items if item.get(lang, "x-default") == "x-default"]
    item = _item(text)
    item.set(lang, "x-default")
    listed.append(item)
    listed.extend(each for each in items if each not in default)


def _structure(element: Element, fields: dict[str, str]) -> None:
    for name, text in fields.items():
        SubElement(element, _full(name)).text = _UNHELD.sub("\ufffd", text)
