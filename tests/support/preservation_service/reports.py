"""Ingest reports by their own schema. Source: dpres-xml-schemas 1.3.0, ingest_report/."""

from __future__ import annotations

import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from lxml import etree, isoschematron

P = "info:lc/xmlns/premis-v2"
#: step -> (eventType, eventDetail, agent, what it is about)
STEPS = {
    "transfer": ("transfer", "Transfer of submission information package", "USER", "sip"),
    "unpacking": ("unpacking", "Unpacking of submission information package", "extract_sip.py", "sip"),
    "virus check": ("virus check", "Virus check of transferred files", "check_virus.py", "sip"),
    "signature": ("digital signature validation", "Submission information package digital signature validation", "check_signature.py", "signature"),
    "schema": ("validation", "METS schema validation", "validate_mets_schema.py", "mets"),
    "additional": ("validation", "Additional METS validation of required features", "validate_mets_schematron.py", "mets"),
    "fixity": ("fixity check", "Fixity check of digital objects in submission information package", "check_checksums.py", "sip"),
    "objects": ("validation", "Validation compilation of submission information package", "create_premis_report.py", "sip"),
    "contract": ("validation", "Validation of service contract properties", "contract.py", "sip"),
    "identity": ("validation", "Validation compilation of submission information package", "create_premis_report.py", "sip"),
    "aip": ("information package creation", "Creation of archival information package", "create_aip.py", "aip"),
    "accession": ("accession", "Preservation responsibility change to the digital preservation service", "create_premis_report.py", "aip"),
    "responsibility": ("preservation responsibility change", "Preservation responsibility change to the digital preservation service", "create_premis_report.py", "aip"),
}  # fmt: skip


def add(parent: Any, name: str, text: str | None = None) -> Any:
    made = etree.SubElement(parent, f"{{{P}}}{name}")
    made.text = text
    return made


def _object(root: Any, kind: str, value: str, name: str = "", objid: str = "", sip: str = "") -> None:
    one = add(root, "object")
    one.set("{http://www.w3.org/2001/XMLSchema-instance}type", "representation")
    identifier = add(one, "objectIdentifier")
    add(identifier, "objectIdentifierType", f"preservation-{kind}-id")
    add(identifier, "objectIdentifierValue", value)
    if name:
        add(one, "originalName", name)
    if objid:
        dependency = add(add(add(one, "environment"), "dependency"), "dependencyIdentifier")
        add(dependency, "dependencyIdentifierType", "mets:OBJID")
        add(dependency, "dependencyIdentifierValue", objid)
    if sip:
        relation = add(one, "relationship")
        derived = kind == "aip"
        add(relation, "relationshipType", "derivation" if derived else "structural")
        add(relation, "relationshipSubType", "has source" if derived else "is included in")
        related = add(relation, "relatedObjectIdentification")
        add(related, "relatedObjectIdentifierType", "preservation-sip-id")
        add(related, "relatedObjectIdentifierValue", sip)


def report(name: str, transfer: str, told: dict[str, Any], user: str, at: str, aip: str) -> bytes:
    """Return the report of a package.

    Args:
        name: of its file.
        transfer: the service's id of the transfer.
        told: what the judge says.
        aip: the id of what was made of it; "" where it is rejected.
    """
    root = etree.Element(
        f"{{{P}}}premis", nsmap={None: P, "xsi": "http://www.w3.org/2001/XMLSchema-instance"}, version="2.2"
    )
    ids = {kind: str(uuid.uuid4()) for kind in ("sip", "signature", "mets")} | {"aip": aip}
    _object(root, "transfer", f"{name.removesuffix('.tar')}-{transfer}.tar", name)
    _object(root, "sip", ids["sip"], name, told["objid"])
    _object(root, "signature", ids["signature"], "signature.sig", sip=ids["sip"])
    _object(root, "mets", ids["mets"], "mets.xml", sip=ids["sip"])
    if aip:
        _object(root, "aip", aip, f"{aip}.tar", sip=ids["sip"])
    steps = [["transfer", ""], *told["steps"]] + (
        [["aip", ""], ["accession", ""], ["responsibility", ""]] if aip else []
    )
    agents: dict[str, str] = {}
    for step, failure in steps:
        kind, detail, agent, about = STEPS[step]
        event = add(root, "event")
        identifier = add(event, "eventIdentifier")
        add(identifier, "eventIdentifierType", "preservation-event-id")
        add(identifier, "eventIdentifierValue", str(uuid.uuid4()))
        add(event, "eventType", kind)
        add(event, "eventDateTime", at)
        add(event, "eventDetail", detail)
        outcome = add(event, "eventOutcomeInformation")
        add(outcome, "eventOutcome", "failure" if failure else "success")
        add(add(outcome, "eventOutcomeDetail"), "eventOutcomeDetailNote", failure or "ok")
        value = agents.setdefault(agent, user if agent == "USER" else f"{agent}-{uuid.uuid4()}")
        link = add(event, "linkingAgentIdentifier")
        add(link, "linkingAgentIdentifierType", f"preservation-{'user' if agent == 'USER' else 'agent'}-id")
        add(link, "linkingAgentIdentifierValue", value)
        link = add(event, "linkingObjectIdentifier")
        add(link, "linkingObjectIdentifierType", f"preservation-{about}-id")
        add(link, "linkingObjectIdentifierValue", ids[about])
    for agent, value in agents.items():
        one = add(root, "agent")
        identifier = add(one, "agentIdentifier")
        add(identifier, "agentIdentifierType", f"preservation-{'user' if agent == 'USER' else 'agent'}-id")
        add(identifier, "agentIdentifierValue", value)
        add(one, "agentName", value if agent == "USER" else agent)
        add(one, "agentType", "organization" if agent == "USER" else "software")
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


@lru_cache(maxsize=2)
def _rules(schemas: Path) -> tuple[Any, Any]:
    schema = etree.XMLSchema(etree.parse(str(schemas / "ingest_report/ingest_report.xsd")))
    made = isoschematron.Schematron(
        etree.parse(str(schemas / "ingest_report/ingest_report.sch")),
        store_report=True,
        validate_schema=False,
    )
    return schema, made


def check(data: bytes, schemas: Path) -> None:
    """See that a report is valid by its schema and its schematron."""
    document = etree.fromstring(data)
    schema, rules = _rules(schemas)
    schema.assertValid(document)
    assert rules.validate(document), etree.tostring(rules.validation_report).decode()


def html(told: dict[str, Any], name: str) -> bytes:
    rows = "".join(
        f"<tr><td>{escape(step)}</td><td>{escape(why) or 'success'}</td></tr>" for step, why in told["steps"]
    )
    return f"<!DOCTYPE html><html><body><h1>{escape(name)}</h1><table>{rows}</table></body></html>".encode()
