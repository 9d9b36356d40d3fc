"""Write a METS document as a stream: its memory does not grow with the number of files.

Source: METS 1.12.1; the order of its sections is the schema's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import quote_from_bytes

from lxml import etree

from dittohead.contract import placeholders
from dittohead.toolkit.images.headers import ImageHeader
from dittohead.toolkit.sip import mix
from dittohead.toolkit.sip.content import Package
from dittohead.toolkit.sip.descriptive import Section
from dittohead.toolkit.sip.premis import FileObject, Premis
from dittohead.toolkit.sip.profile import Profile
from dittohead.toolkit.sip.xml import plain

METS = "http://www.loc.gov/METS/"
XLINK = "http://www.w3.org/1999/xlink"
XSI = "http://www.w3.org/2001/XMLSchema-instance"

#: A mets:div within others; each folder is one. `xml.DEEPEST` less what is around and within them.
DEEPEST = 150


@dataclass(frozen=True, kw_only=True)
class PackedFile:
    """One file of a package, or an empty folder."""

    number: int  #: 1 for the first, in the order of the structMap
    path: bytes  #: relative to the payload
    size: int = 0  #: bytes
    sha256: str = ""  #: "" for an empty folder
    created: str = ""  #: RFC 3339
    identifier: str = ""
    media_type: str = ""  #: with its charset, where it has one
    version: str = ""
    puid: str = ""
    use: str = ""
    document: int | None = None  #: number of the descriptive metadata that is about it, from 0
    image: ImageHeader | None = None

    @property
    def is_dir(self) -> bool:
        """Whether it is an empty folder."""
        return not self.sha256


class MetsWriter:
    """Writes documents of one package; of some of its files as well, with all that is not about a file."""

    def __init__(self, profile: Profile, package: Package, sections: Sequence[Section]) -> None:
        self._profile, self._package, self._sections = profile, package, sections
        self._premis = Premis(profile.premis)
        self._now = package.modified or package.created
        self._events = " ".join(
            [f"E{number}" for number, _ in enumerate(package.events, 1)]
            + [f"A{number}" for number, _ in enumerate(package.agents, 1)]
        )
        prefixes = {"mets": METS, "xlink": XLINK, "xsi": XSI, "premis": self._premis.namespace}
        self._namespaces = prefixes | profile.mets.namespaces

    def write(self, out: IO[bytes], files: Callable[[], Iterable[PackedFile]]) -> None:
        """Write a document.

        Args:
            out: takes it.
            files: yields them in the natural order of their paths, the same at each call.
        """
        with etree.xmlfile(out, encoding="UTF-8") as xml:
            xml.write_declaration()
            with xml.element(_mets("mets"), self._root(), nsmap=self._namespaces):
                _put(xml, self._header())
                for number, section in enumerate(self._sections, 1):
                    _put(xml, self._wrapped("dmdSec", f"D{number}", section))
                with xml.element(_mets("amdSec")):
                    xml.write("\n")
                    self._administrative(xml, files)
                with xml.element(_mets("fileSec")), xml.element(_mets("fileGrp")):
                    xml.write("\n")
                    for one in files():
                        if not one.is_dir:
                            _put(xml, self._file(one))
                with xml.element(_mets("structMap"), TYPE="directory"):
                    self._structure(xml, files())
        out.write(b"\n")

    def _root(self) -> dict[str, str]:
        values = {name: self._package.values.get(name, "") for name in self._profile.values}
        values |= {"id": self._package.id, "label": self._package.label}
        filled = {
            self._attribute(name): plain(placeholders.fill(template, values))
            for name, template in self._profile.mets.attributes.items()
        }
        filled[f"{{{XSI}}}schemaLocation"] = self._profile.mets.schema_location
        return {name: value for name, value in filled.items() if value}

    def _attribute(self, name: str) -> str:
        prefix, colon, local = name.rpartition(":")
        return f"{{{self._namespaces[prefix]}}}{local}" if colon else local

    def _header(self) -> Any:
        package = self._package
        header = etree.Element(_mets("metsHdr"), CREATEDATE=package.created, nsmap={"mets": METS})
        if package.modified:
            header.set("LASTMODDATE", package.modified)
        header.set("RECORDSTATUS", "update" if package.modified else "submission")
        if package.creator:
            agent = etree.SubElement(header, _mets("agent"), ROLE="CREATOR", TYPE="ORGANIZATION")
            etree.SubElement(agent, _mets("name")).text = plain(package.creator)
        return header

    def _administrative(self, xml: Any, files: Callable[[], Iterable[PackedFile]]) -> None:
        for one in files():
            if not one.is_dir:
                _put(xml, self._technical(f"T{one.number}", "PREMIS:OBJECT", self._object(one)))
                if one.image is not None:
                    _put(
                        xml,
                        self._technical(
                            f"M{one.number}", "NISOIMG", mix.element(one.image, href(self._profile, one.path))
                        ),
                    )
        for number, event in enumerate(self._package.events, 1):
            section = self._section("PREMIS:EVENT", self._premis.event(event))
            _put(xml, self._wrapped("digiprovMD", f"E{number}", section))
        for number, agent in enumerate(self._package.agents, 1):
            section = self._section("PREMIS:AGENT", self._premis.agent(agent))
            _put(xml, self._wrapped("digiprovMD", f"A{number}", section))

    def _object(self, one: PackedFile) -> Any:
        told = FileObject(
            identifier_type=self._package.identifier_type,
            identifier=one.identifier,
            sha256=one.sha256,
            size=one.size,
            format_name=one.media_type,
            format_version=one.version,
            puid=one.puid,
            created=one.created,
            original_name=self._profile.payload + one.path.decode(),
        )
        return self._premis.file(told)

    def _technical(self, identifier: str, mdtype: str, element: Any) -> Any:
        return self._wrapped("techMD", identifier, self._section(mdtype, element))

    def _section(self, mdtype: str, element: Any) -> Section:
        version = "2.0" if mdtype == "NISOIMG" else self._profile.premis
        return Section(mdtype=mdtype, othermdtype="", version=version, elements=(element,))

    def _wrapped(self, name: str, identifier: str, section: Section) -> Any:
        made = etree.Element(_mets(name), ID=identifier, CREATED=self._now, nsmap={"mets": METS})
        wrap = etree.SubElement(made, _mets("mdWrap"), MDTYPE=section.mdtype)
        if section.othermdtype:
            wrap.set("OTHERMDTYPE", section.othermdtype)
        wrap.set("MDTYPEVERSION", section.version)
        data = etree.SubElement(wrap, _mets("xmlData"))
        data.extend(section.elements)
        return made

    def _file(self, one: PackedFile) -> Any:
        about = " ".join([f"T{one.number}", *([f"M{one.number}"] if one.image else []), self._events])
        made = etree.Element(_mets("file"), ID=f"F{one.number}", nsmap={"mets": METS, "xlink": XLINK})
        if self._profile.mets.checksums:
            made.set("MIMETYPE", one.media_type.partition(";")[0])
            made.set("SIZE", str(one.size))
            made.set("CHECKSUM", one.sha256)
            made.set("CHECKSUMTYPE", "SHA-256")
        made.set("ADMID", about.strip())
        if one.use:
            made.set("USE", one.use)
        place = etree.SubElement(made, _mets("FLocat"), LOCTYPE="URL")
        place.set(f"{{{XLINK}}}type", "simple")
        place.set(f"{{{XLINK}}}href", href(self._profile, one.path))
        return made

    # -- structMap ---------------------------------------------------------------------------

    def _structure(self, xml: Any, files: Iterable[PackedFile]) -> None:
        top = {"TYPE": "directory"}
        if self._package.label:
            top["LABEL"] = plain(self._package.label)
        about = [f"D{number}" for number, one in enumerate(self._package.documents, 1) if one.of_all]
        if about:
            top["DMDID"] = " ".join(about)
        if self._events:
            top["ADMID"] = self._events
        with contextlib.ExitStack() as outermost:
            outermost.enter_context(xml.element(_mets("div"), top))
            folders = outermost.enter_context(_Folders(xml))
            for one in files:
                *around, name = one.path.split(b"/")
                folders.enter([*around, name] if one.is_dir else around)
                if not one.is_dir:
                    _put(xml, self._leaf(one))

    def _leaf(self, one: PackedFile) -> Any:
        div = etree.Element(_mets("div"), TYPE="file", nsmap={"mets": METS})
        if one.document is not None:
            div.set("DMDID", f"D{one.document + 1}")
        etree.SubElement(div, _mets("fptr"), FILEID=f"F{one.number}")
        return div


class _Folders(contextlib.AbstractContextManager["_Folders"]):
    """The divs of folders that are open, one within the other."""

    def __init__(self, xml: Any) -> None:
        self._xml = xml
        self._open: list[tuple[bytes, Any]] = []

    def enter(self, folder: Sequence[bytes]) -> None:
        """Close and open divs until those of a folder are open."""
        same = 0
        while same < min(len(folder), len(self._open)) and self._open[same][0] == folder[same]:
            same += 1
        self._close(same)
        for name in folder[same:]:
            div = self._xml.element(_mets("div"), {"TYPE": "directory", "LABEL": plain(name.decode())})
            div.__enter__()
            self._open.append((name, div))

    def _close(self, depth: int) -> None:
        while len(self._open) > depth:
            self._open.pop()[1].__exit__(None, None, None)

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._close(0)


def href(profile: Profile, path: bytes) -> str:
    """Return how a file of the payload is referred to."""
    return profile.mets.href + quote_from_bytes(profile.payload.encode() + path, safe="/")


def _mets(name: str) -> str:
    return f"{{{METS}}}{name}"


def _put(xml: Any, element: Any) -> None:
    xml.write(element)
    xml.write("\n")


def chunks(files: Iterable[PackedFile], most: int) -> Iterator[list[PackedFile]]:
    """Yield files in groups of so many at most."""
    group: list[PackedFile] = []
    for one in files:
        group.append(one)
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group
