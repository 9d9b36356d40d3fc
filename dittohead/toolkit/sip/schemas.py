"""Validate a METS document by XML schemas and schematrons that lie on disk; nothing is ever fetched.

Sources: OASIS XML Catalogs 1.1 (rewriteURI, uri, system, rewriteSystem, nextCatalog, xml:base); ISO/IEC
19757-3 (schematron), by the XSLT 1 skeleton that comes with lxml.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from lxml import etree, isoschematron

from dittohead.toolkit.sip.profile import Profile
from dittohead.toolkit.sip.xml import parser, plain

_CATALOG = "{urn:oasis:names:tc:entity:xmlns:xml:catalog}"
_SVRL = "{http://purl.oclc.org/dsdl/svrl}"
_XSD = "http://www.w3.org/2001/XMLSchema"


class BadSchemas(Exception):
    """The schemas cannot be used; says why."""


def missing(profile: Profile, directory: Path) -> list[str]:
    """Return which files of a profile's schemas are not in a directory."""
    asked = [*profile.schemas.xsd.values(), *(one.file for one in profile.schemas.schematron)]
    return [name for name in dict.fromkeys(asked) if not (directory / name).is_file()]


class _Catalog(etree.Resolver):  # type: ignore[misc]  # lxml has no types
    """Which file stands for an address; an address without one is refused."""

    def __init__(self, path: Path) -> None:
        self._whole: dict[str, str] = {}
        self._starts: dict[str, str] = {}
        self.refused: list[str] = []
        if path.is_file():
            self._load(path, set())

    def _load(self, path: Path, seen: set[Path]) -> None:
        if path in seen:
            return
        seen.add(path)
        try:
            root = etree.parse(str(path), parser()).getroot()
        except (OSError, etree.XMLSyntaxError) as error:
            raise BadSchemas(f"{path} is not an XML catalog: {error}") from error
        for one in root.iter(f"{_CATALOG}*"):
            base = os.path.dirname(one.base or str(path))
            name = etree.QName(one).localname
            told = {key: one.get(key, "") for key in ("name", "uri", "systemId", "catalog", "rewritePrefix")}
            start = one.get("uriStartString") or one.get("systemIdStartString") or ""
            if name == "nextCatalog":
                self._load(Path(os.path.normpath(os.path.join(base, told["catalog"]))), seen)
            elif start:
                self._starts[start] = os.path.join(base, told["rewritePrefix"])
            elif told["uri"]:
                self._whole[told["name"] or told["systemId"]] = os.path.join(base, told["uri"])

    def resolve(self, system_url: str, public_id: str, context: Any) -> Any:
        place = self._place(system_url)
        if place is not None:
            return self.resolve_filename(place, context)
        if "://" in system_url and not system_url.startswith("file:///"):
            self.refused.append(system_url)
            raise BadSchemas(f"the catalog has no file for {system_url}")
        return None

    def _place(self, url: str) -> str | None:
        if url in self._whole:
            return os.path.normpath(self._whole[url])
        starts = [start for start in self._starts if url.startswith(start)]
        if not starts:
            return None
        start = max(starts, key=len)
        return os.path.normpath(self._starts[start] + url[len(start) :])


class _Ready:
    """What is compiled in this process: of equal files it is the same."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}
        self.rules: dict[str, Any] = {}


_READY = _Ready()


def make_ready(profile: Profile, directory: Path, compiled: dict[str, str]) -> None:
    """Make a profile's schemas ready, and schematrons that are compiled, for forks of this process.

    Raises: BadSchemas, OSError.
    """
    Validator(profile, directory, set(), {}, rules=False)
    for key, text in compiled.items():
        if key not in _READY.rules:
            _READY.rules[key] = _transformation(text)


def _transformation(text: str) -> Any:
    access = etree.XSLTAccessControl.DENY_ALL
    return etree.XSLT(etree.fromstring(text, parser()), access_control=access)


class Validator:
    """The schemas of one profile, made ready.

    Args:
        profile: says which there are.
        directory: where they lie.
        kinds: the MDTYPEs and OTHERMDTYPEs of what is validated: some schematrons are for some only.
        compiled: schematrons that were made ready before, which takes seconds; more are added.
        rules: make schematrons ready.

    Raises: BadSchemas.
    """

    def __init__(
        self,
        profile: Profile,
        directory: Path,
        kinds: set[str],
        compiled: dict[str, str],
        *,
        rules: bool = True,
    ) -> None:
        self._directory, self._profile = directory, profile
        self._state = functools.cache(_state)
        self.schema = self._schema(profile.schemas.xsd) if profile.schemas.xsd else None
        self.rules = [
            (one.file, self._rules(directory / one.file, compiled))
            for one in profile.schemas.schematron
            if rules and (not one.where or one.where in kinds)
        ]

    @functools.cached_property
    def _catalog(self) -> _Catalog:
        return _Catalog(self._directory / self._profile.schemas.catalog)

    def _parser(self) -> etree.XMLParser:
        made = parser()
        made.resolvers.add(self._catalog)
        return made

    def _schema(self, files: dict[str, str]) -> Any:
        key = f"{self._directory}:{json.dumps(files, sort_keys=True)}:{self._state(self._directory)}"
        if key not in _READY.schemas:
            _READY.schemas[key] = self._compiled_schema(files)
        return _READY.schemas[key]

    def _compiled_schema(self, files: dict[str, str]) -> Any:
        all_of_it = etree.Element(f"{{{_XSD}}}schema", nsmap={"xs": _XSD})
        for namespace, name in files.items():
            place = (self._directory / name).resolve().as_uri()
            etree.SubElement(all_of_it, f"{{{_XSD}}}import", namespace=namespace, schemaLocation=place)
        # Parsed again: a schema asks the resolvers of the parser that its document came from.
        document = etree.fromstring(etree.tostring(all_of_it), self._parser())
        try:
            return etree.XMLSchema(document.getroottree())
        except (etree.XMLSchemaParseError, BadSchemas) as error:
            why = "; ".join(
                [plain(str(error)), *(f"not in the catalog: {url}" for url in self._catalog.refused)]
            )
            raise BadSchemas(f"the schemas in {self._directory} cannot be used: {why}") from error

    def _rules(self, path: Path, compiled: dict[str, str]) -> Any:
        try:
            key = f"{path}:{self._state(path.parent)}"
            if key in _READY.rules:
                return _READY.rules[key]
            if key not in compiled:
                document = etree.parse(str(path), self._parser())
                _see_local(document.getroot(), path)
                made = isoschematron.Schematron(document, store_xslt=True, store_report=True)
                compiled[key] = etree.tostring(made.validator_xslt, encoding="unicode")
            return _transformation(compiled[key])
        except (OSError, etree.LxmlError) as error:
            raise BadSchemas(f"{path} cannot be used as a schematron: {plain(str(error))}") from error

    def by_schema(self, file: IO[bytes]) -> Iterator[str]:
        """Yield what the schemas say against a document, which is read as a stream."""
        if self.schema is None:
            return
        reading = etree.iterparse(
            file, events=("end",), schema=self.schema, resolve_entities=False, load_dtd=False, no_network=True
        )
        try:
            for _, element in reading:
                _forget(element)
        except etree.XMLSyntaxError:
            yield from _errors(reading.error_log)

    def document(self, root: Any) -> Iterator[str]:
        """Yield what the schemas say against one element of which they know the root."""
        if self.schema is None or self.schema.validate(root):
            return
        errors = list(_errors(self.schema.error_log))
        if not any("No matching global" in one for one in errors):
            yield from errors

    def by_rules(self, document: bytes) -> Iterator[str]:
        """Yield what the schematrons say against a document."""
        root = etree.fromstring(document, parser())
        for name, rules in self.rules:
            report = rules(root)
            for one in report.getroot().iter(f"{_SVRL}failed-assert"):
                yield f"{name}: {' '.join(''.join(one.itertext()).split())}"


def _forget(element: Any) -> None:
    """Let go of an element that was read, and of those before it."""
    element.clear(keep_tail=False)
    parent = element.getparent()
    while element.getprevious() is not None:
        del parent[0]


def _errors(log: Iterable[Any]) -> Iterator[str]:
    for one in log:
        place = f"line {one.line}: " if one.line else ""
        yield place + plain(" ".join(one.message.split()))


def _see_local(root: Any, path: Path) -> None:
    """See that a schematron, and all that it includes, asks for nothing on a network. Raises: BadSchemas."""
    for one in root.iter("{*}include", "{*}extends"):
        place = one.get("href", "").partition("#")[0]
        if "://" in place:
            raise BadSchemas(f"{path} includes {place}, which is not a file beside it")
        inner = path.parent / place
        if place and inner.is_file() and inner != path:
            _see_local(etree.parse(str(inner), parser()).getroot(), inner)


def _state(directory: Path) -> str:
    """Return what changes when a schematron in a directory, or one that it includes from there, does."""
    seen = sorted(
        (str(path), path.stat().st_mtime_ns, path.stat().st_size)
        for path in directory.rglob("*")
        if path.is_file()
    )
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()
