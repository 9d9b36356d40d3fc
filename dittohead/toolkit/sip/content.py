"""What a package is made of, as it is handed to the program that writes its METS document."""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import BaseModel, ConfigDict

from dittohead.toolkit.sip.profile import Profile

#: Of all identifiers that are derived here: of equal parts they are equal. Source: RFC 9562, 5.5.
_NAMESPACE = uuid.UUID("7e1d3c1e-6a0b-5b43-9c43-0f7a4f0c6c5d")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SipEvent(_Part):
    """An event in PREMIS' terms."""

    identifier: str
    type: str
    at: str  #: RFC 3339, UTC
    detail: str
    outcome: str
    agent: str  #: identifier of one of the agents


class Agent(_Part):
    """A program."""

    identifier: str
    name: str
    version: str = ""


class DescriptiveMetadata(_Part):
    """Descriptive metadata: a file of the folder, or what is known of an object."""

    file: str = ""  #: path of an XML document, relative to the files, in hex
    mods: bool = False  #: what is known is written as MODS, and as Dublin Core otherwise
    terms: tuple[tuple[str, str], ...] = ()  #: (Dublin Core element, value)
    of_all: bool = True  #: it is about all files; otherwise about those that name it as their owner


class Package(_Part):
    """One package, but for its files."""

    id: str  #: OBJID
    label: str = ""
    values: dict[str, str] = {}  #: what the profile asks for
    creator: str = ""  #: the organization
    created: str  #: RFC 3339, UTC: when the first version of the package was made
    modified: str = ""  #: when this version was, where there is an earlier one
    documents: tuple[DescriptiveMetadata, ...] = ()
    events: tuple[SipEvent, ...] = ()
    agents: tuple[Agent, ...] = ()
    identifier_type: str = "UUID"  #: of files
    identifiers_given: bool = False  #: they are a site's own, and may be the same or empty
    charset: str = ""  #: of texts that are not UTF-8
    use: dict[str, str] = {}  #: pattern of paths: USE of those files


class PackageRequest(_Part):
    """What the program is asked for."""

    profile: Profile
    package: Package
    root: str  #: directory that the files are relative to
    #: a line of JSON for each file: path (hex), size, sha256, at (RFC 3339), identifier, and, where they are
    #: known, format ({puid, name, version, mime}) and owner (number of its document)
    files: str
    target: str  #: the METS document that is written
    scratch: str  #: an empty directory
    schemas: str = ""  #: directory of schemas; "" to validate by none


def derived(*parts: str) -> str:
    """Return the UUID that stands for some words, always the same."""
    return str(uuid.uuid5(_NAMESPACE, "\n".join(parts)))


def as_line(**fields: Any) -> dict[str, Any]:
    """Return what a file's line holds: fields without a value are left out."""
    return {name: value for name, value in fields.items() if value is not None}
