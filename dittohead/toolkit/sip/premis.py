"""Objects, events and agents as PREMIS 2.3 or 3.0.

Sources: www.loc.gov/standards/premis/v2/premis-v2-3.xsd and v3/premis-v3-0.xsd. What differs here: the
namespace, eventDetail within eventDetailInformation, agentVersion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lxml import etree

from dittohead.toolkit.sip.content import Agent, SipEvent
from dittohead.toolkit.sip.xml import add

NAMESPACES = {"2.3": "info:lc/xmlns/premis-v2", "3.0": "http://www.loc.gov/premis/v3"}

_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"

_Put = Callable[[str, str], object]


@dataclass(frozen=True, kw_only=True)
class FileObject:
    """What is known of a file."""

    identifier_type: str
    identifier: str
    sha256: str
    size: int  #: bytes
    format_name: str
    format_version: str
    puid: str
    created: str  #: RFC 3339
    original_name: str


class Premis:
    """Makes elements of one version."""

    def __init__(self, version: Literal["2.3", "3.0"]) -> None:
        self.namespace = NAMESPACES[version]
        self._third = version == "3.0"

    def file(self, told: FileObject) -> Any:
        """Return a file's `object`."""
        root, put = self._root("object")
        root.set(_TYPE, "premis:file")
        put("objectIdentifier/objectIdentifierType", told.identifier_type)
        put("objectIdentifier/objectIdentifierValue", told.identifier)
        about = "objectCharacteristics"
        put(f"{about}/compositionLevel", "0")
        put(f"{about}/fixity/messageDigestAlgorithm", "SHA-256")
        put(f"{about}/fixity/messageDigest", told.sha256)
        put(f"{about}/size", str(told.size))
        put(f"{about}/format/formatDesignation/formatName", told.format_name)
        put(f"{about}/format/formatDesignation/formatVersion", told.format_version)
        put(f"{about}/format/formatRegistry/formatRegistryName", "PRONOM" if told.puid else "")
        put(f"{about}/format/formatRegistry/formatRegistryKey", told.puid)
        put(f"{about}/creatingApplication/dateCreatedByApplication", told.created)
        put("originalName", told.original_name)
        return root

    def event(self, told: SipEvent) -> Any:
        """Return an `event`."""
        root, put = self._root("event")
        put("eventIdentifier/eventIdentifierType", "UUID")
        put("eventIdentifier/eventIdentifierValue", told.identifier)
        put("eventType", told.type)
        put("eventDateTime", told.at)
        put("eventDetailInformation/eventDetail" if self._third else "eventDetail", told.detail)
        put("eventOutcomeInformation/eventOutcome", told.outcome)
        put("linkingAgentIdentifier/linkingAgentIdentifierType", "UUID")
        put("linkingAgentIdentifier/linkingAgentIdentifierValue", told.agent)
        return root

    def agent(self, told: Agent) -> Any:
        """Return an `agent`."""
        root, put = self._root("agent")
        put("agentIdentifier/agentIdentifierType", "UUID")
        put("agentIdentifier/agentIdentifierValue", told.identifier)
        put("agentName", told.name if self._third else f"{told.name} {told.version}".rstrip())
        put("agentType", "software")
        if self._third:
            put("agentVersion", told.version)
        return root

    def _root(self, name: str) -> tuple[Any, _Put]:
        root = etree.Element(f"{{{self.namespace}}}{name}", nsmap={"premis": self.namespace})
        return root, lambda path, text: add(root, self.namespace, path, text)
