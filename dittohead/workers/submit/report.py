"""Ingest reports: what a preservation service says of a package.

A report is PREMIS 2.2: objects typed preservation-{transfer,sip,signature,mets,object,aip}-id, and events in
the order in which they happened, each with eventOutcome success or failure.
Source: dpres-xml-schemas 1.3.0, ingest_report/ingest_report.xsd.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lxml import etree

from dittohead.model.text import short
from dittohead.toolkit.sip.xml import parser, plain

#: Bytes of the largest report that is read: it has an event for each file.
LARGEST = 64 << 20

_P = "{info:lc/xmlns/premis-v2}"

#: Where the schema of reports lies in the service's schemas.
_XSD = "ingest_report/ingest_report.xsd"


class BadReport(Exception):
    """A report cannot be used; says why."""


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What a report says."""

    name: str  #: of the package's file, as the report has it; "" where it has none
    object_id: str  #: OBJID; "" where the service could not read it
    transfer: str  #: the service's id of the transfer
    aip: str  #: the service's id of what it made of the package; "" where it made nothing
    failure: str  #: the first event that failed, in words; "" where none did
    at: str  #: when the last event happened
    events: int

    @property
    def is_accepted(self) -> bool:
        """Whether the service has taken the package over, by its events."""
        return not self.failure and bool(self.aip)


def read(data: bytes, schemas: Path | None = None) -> IngestReport:
    """Read a report. Blocking.

    Args:
        data: the document.
        schemas: a directory with the service's schemas; it is validated by them.

    Raises: BadReport: it is none, or not valid.
    """
    if len(data) > LARGEST:
        raise BadReport(f"it has {len(data):,} bytes")
    try:
        root = etree.fromstring(data, parser())
    except etree.XMLSyntaxError as error:
        raise BadReport(f"it is not XML: {plain(error.msg or '')}") from None
    if root.tag != f"{_P}premis" or root.getroottree().docinfo.doctype:
        raise BadReport("it is not a PREMIS document without a document type")
    if schemas is not None:
        _validate(root, schemas)
    objects = dict(_objects(root))
    events = list(root.iter(f"{_P}event"))
    if not events:
        raise BadReport("it has no events")
    sip = objects.get("preservation-sip-id")
    return IngestReport(
        name=_text(sip, "originalName"),
        object_id=_dependency(sip, "mets:OBJID"),
        transfer=_text(objects.get("preservation-transfer-id"), "objectIdentifier/objectIdentifierValue"),
        aip=_text(objects.get("preservation-aip-id"), "objectIdentifier/objectIdentifierValue"),
        failure=next(_failures(events), ""),
        at=_text(events[-1], "eventDateTime"),
        events=len(events),
    )


def _objects(root: Any) -> Iterator[tuple[str, Any]]:
    for one in root.iter(f"{_P}object"):
        yield _text(one, "objectIdentifier/objectIdentifierType"), one


def _failures(events: list[Any]) -> Iterator[str]:
    """Yield each event that failed: its type and detail, and the service's words."""
    for event in events:
        outcome = _text(event, "eventOutcomeInformation/eventOutcome")
        if outcome not in ("success", "failure"):
            raise BadReport(f"it has an event with the outcome {short(outcome)!r}")
        if outcome == "failure":
            said = event.find(f"{_P}eventOutcomeInformation/{_P}eventOutcomeDetail")
            words = "" if said is None else " ".join(" ".join(said.itertext()).split())
            what = _text(event, "eventType")
            yield plain(f"{what}: {short(words or _text(event, 'eventDetail'))}")


def _dependency(sip: Any, kind: str) -> str:
    if sip is None:
        return ""
    for one in sip.iter(f"{_P}dependencyIdentifier"):
        if _text(one, "dependencyIdentifierType") == kind:
            return _text(one, "dependencyIdentifierValue")
    return ""


def _text(element: Any, path: str) -> str:
    if element is None:
        return ""
    found = element.findtext("/".join(f"{_P}{name}" for name in path.split("/")))
    return " ".join((found or "").split())


def _validate(root: Any, schemas: Path) -> None:
    try:
        schema = _schema(str(schemas / _XSD))
    except (OSError, etree.LxmlError) as error:
        raise BadReport(f"{schemas / _XSD} cannot be used: {plain(str(error))}") from error
    if not schema.validate(root):
        first = next(iter(schema.error_log), None)
        raise BadReport(f"it is not valid: {plain(first.message) if first is not None else ''}")


@lru_cache(maxsize=4)
def _schema(path: str) -> Any:
    return etree.XMLSchema(etree.parse(path, parser()))
