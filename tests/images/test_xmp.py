"""XMP packets: what is there stays, what is put in can be read by others, what is hostile is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dittohead.toolkit.images.xmp import Property, UnreadablePacket, merged, values

RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
DC = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'

THERE = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Scanner 1"><rdf:RDF {RDF}>
 <rdf:Description rdf:about="" {DC} xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:odd="http://example.org/odd#"
   xmp:CreatorTool="Scan &amp; Go" dc:identifier="scan-7">
  <dc:title><rdf:Alt><rdf:li xml:lang="x-default">Scan 7</rdf:li><rdf:li xml:lang="de">Bild 7</rdf:li></rdf:Alt></dc:title>
  <dc:subject><rdf:Bag><rdf:li>letters</rdf:li></rdf:Bag></dc:subject>
  <odd:deep rdf:parseType="Resource"><odd:a>1</odd:a><odd:b odd:c="2"/></odd:deep>
 </rdf:Description>
 <rdf:Description rdf:about="" {DC} dc:source="Box 1"/>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()


def test_what_was_there_stays_and_what_is_replaced_is_told() -> None:
    """Lists are added to, other languages and other properties are kept, attributes count as properties."""
    packet, replaced = merged(
        THERE,
        [
            Property("dc:title", "alt", ["Letter"]),
            Property("dc:subject", "bag", ["physics", "letters"]),
            Property("dc:identifier", "text", ["ABC_1"]),
            Property("dc:source", "text", ["Papers"]),
            Property("xmpMM:DerivedFrom", "struct", fields=[{"stRef:filePath": "a.tif"}]),
        ],
    )
    assert replaced == {"dc:title": "Scan 7", "dc:identifier": "scan-7", "dc:source": "Box 1"}
    found = values(packet)
    assert found["dc:title"] == ["Letter", "Bild 7"]
    assert found["dc:subject"] == ["letters", "physics"]
    assert found["dc:identifier"] == ["ABC_1"]
    assert found["dc:source"] == ["Papers"]
    assert found["xmp:CreatorTool"] == ["Scan & Go"]
    assert b"<odd:a>1</odd:a>" in packet
    assert b'<odd:b odd:c="2"/>' in packet
    assert packet.count(b"<dc:source>") == 1


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ('<dc:source rdf:resource="http://old.example/1"/>', "http://old.example/1"),
        ("<dc:source><rdf:Bag><rdf:li>one</rdf:li><rdf:li>two</rdf:li></rdf:Bag></dc:source>", "one; two"),
        ('<dc:source rdf:parseType="Resource"><rdf:value>one</rdf:value><o:q>two</o:q></dc:source>', "one; two"),
        ('<dc:source o:a="one"><rdf:Description o:b="two"/></dc:source>', "one; two"),
        ("<dc:source>one</dc:source><dc:source>two</dc:source>", "one; two"),
        ("<dc:source>Papers</dc:source>", None),
    ],
)  # fmt: skip
def test_what_is_replaced_is_told_in_whichever_form_it_stands(there: str, told: str | None) -> None:
    """Of a link, a list, a structure and a second value nothing was told."""
    packet, replaced = merged(described(there), [Property("dc:source", "text", ["Papers"])])
    assert replaced.get("dc:source") == told
    assert values(packet)["dc:source"] == ["Papers"]


def described(properties: str) -> bytes:
    return (
        f'<rdf:RDF {RDF} {DC} xmlns:o="urn:o"><rdf:Description rdf:about="">{properties}'
        "</rdf:Description></rdf:RDF>"
    ).encode()


def test_a_second_default_and_a_second_list_are_not_lost() -> None:
    there = (
        "<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>a</rdf:li><rdf:li>b</rdf:li></rdf:Alt></dc:title>"
        "<dc:subject><rdf:Bag><rdf:li>c</rdf:li></rdf:Bag></dc:subject><dc:subject>d</dc:subject>"
    )
    wanted = [Property("dc:title", "alt", ["T"]), Property("dc:subject", "bag", ["e"])]
    packet, replaced = merged(described(there), wanted)
    assert replaced == {"dc:title": "a; b"}
    assert values(packet)["dc:subject"] == ["c", "d", "e"]


def test_text_beside_elements_stays_to_the_letter() -> None:
    """A literal of RDF: what stood before and behind an element in it was gone."""
    literal = "Hello <o:b>w<o:i/>rld</o:b> &amp; again"
    packet, _ = merged(described(f'<o:note rdf:parseType="Literal">{literal}</o:note>'), [])
    assert literal.replace("<o:i/>", "<o:i></o:i>") in packet.decode()
    assert merged(packet, [])[0] == packet


def test_an_unknown_encoding_is_no_xmp() -> None:
    with pytest.raises(UnreadablePacket, match="unknown encoding"):
        merged(b'<?xml version="1.0" encoding="no-such"?><a/>', [])


def test_the_same_again_changes_nothing() -> None:
    """Neither bytes nor what is told as replaced."""
    wanted = [
        Property("dc:title", "alt", ["T"]),
        Property("dc:subject", "bag", ["a", "a"]),
        Property("xmpMM:DerivedFrom", "struct", fields=[{"stRef:filePath": "x"}]),
    ]
    once, _ = merged(THERE, wanted)
    twice, replaced = merged(once, wanted)
    assert (twice, replaced) == (once, {})
    assert merged(b"", wanted) == merged(b"\0\0", wanted)


def test_a_prefix_that_stands_for_something_else_is_no_trouble() -> None:
    """`dc` of another namespace keeps its meaning under another prefix."""
    other = f'<rdf:RDF {RDF}><rdf:Description rdf:about="" xmlns:dc="urn:other" dc:title="x"/></rdf:RDF>'
    packet, replaced = merged(other.encode(), [Property("dc:title", "alt", ["T"])])
    assert replaced == {}
    assert b'xmlns:ns1="urn:other"' in packet
    assert b'ns1:title="x"' in packet


def test_prefixes_are_any_names_of_xml() -> None:
    """Whatever the letters, what is written can be read again."""
    other = f'<rdf:RDF {RDF}><rdf:Description rdf:about="" xmlns:a\u00b7\u0300="urn:o" a\u00b7\u0300:b="x"/></rdf:RDF>'
    packet, _ = merged(other.encode(), [])
    assert values(packet) == {"a\u00b7\u0300:b": ["x"]}


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16-le", "utf-16-be"])
def test_other_encodings_are_read(coding: str) -> None:
    """With the mark that says which."""
    mark = "" if coding == "utf-8-sig" else "\ufeff"
    text = f'{mark}<rdf:RDF {RDF}><rdf:Description rdf:about="" {DC} dc:source="ü"/></rdf:RDF>'
    assert values(merged(text.encode(coding), [])[0])["dc:source"] == ["ü"]


HOSTILE = [
    b'<!DOCTYPE x [<!ENTITY a "b">]><rdf:RDF/>',
    b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
    b"<x/>",
    b"no xml",
    b"<rdf:RDF>",
    b"\xff\xfe\x00",
    f"<rdf:RDF {RDF}>{'<a>' * 5000}{'</a>' * 5000}</rdf:RDF>".encode(),
    b"\0" + b"x" * (17 << 20),
]


@pytest.mark.parametrize("packet", HOSTILE)
def test_what_is_no_xmp_or_would_do_harm_is_refused(packet: bytes) -> None:
    """Nothing is opened, nothing is expanded, nothing recurses without end."""
    with pytest.raises(UnreadablePacket):
        merged(packet, [])


@given(st.text(), st.lists(st.text(min_size=1), max_size=4))
def test_any_text_survives(title: str, subjects: list[str]) -> None:
    """But for what XML cannot hold, which is replaced by the sign for that."""
    packet, _ = merged(
        b"", [Property("dc:title", "alt", [title]), Property("dc:subject", "bag", subjects or ["x"])]
    )
    found = values(packet)

    def held(text: str) -> str:
        good = (
            c in "\t\n\r" or " " <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff" for c in text
        )
        return "".join(c if ok else "\ufffd" for c, ok in zip(text, good, strict=True))

    assert found["dc:title"] == [held(title)]
    assert found["dc:subject"] == list(dict.fromkeys(held(text) for text in subjects or ["x"]))
    assert merged(packet, [])[0] == packet
