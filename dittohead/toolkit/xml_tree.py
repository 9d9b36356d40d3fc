"""Read XML of others into a tree: no document types, so no entities, and not nested without end.

By expat of the standard library, for programs and children that do without lxml (see `toolkit/sip`).
"""

from __future__ import annotations

from collections.abc import Callable
from xml.etree.ElementTree import Element, TreeBuilder  # the tree alone; see `parse`
from xml.parsers import expat

#: Elements within elements: XMP and METS have some ten, and each level more costs a level of recursion.
_DEEPEST = 100


class UnreadableXml(Exception):
    """It is not readable XML; says why."""


def parse(data: bytes, declared: Callable[[str | None, str], None] | None = None) -> Element:
    """Return the root of a document; names are in Clark's notation, `{namespace}name`.

    Args:
        data: the document.
        declared: called with each prefix (None for none) and the namespace that it stands for.

    Raises: UnreadableXml: also where it has a document type, or is nested too deeply.
    """
    builder, depth = TreeBuilder(), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise UnreadableXml("its elements are nested too deeply")
        builder.start(_clark(name), {_clark(key): text for key, text in attributes.items()})

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_clark(name))

    def refuse(*_: object) -> None:
        raise UnreadableXml("it has a document type, which could define entities")

    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    if declared is not None:
        parser.StartNamespaceDeclHandler = declared
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, LookupError, ValueError, AssertionError) as error:  # Lookup: of an encoding
        raise UnreadableXml(f"it is not XML ({error})") from None


def _clark(name: str) -> str:
    return f"{{{name}" if "}" in name else name
