"""What happened to a job, in PREMIS terms."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from dittohead import __version__
from dittohead.model.text import utcnow

#: Who did it, in events of our own: program and version.
AGENT = f"dittohead {__version__}"


class EventType(StrEnum):
    """PREMIS event types used in receipts.

    Source: PREMIS 3 eventType vocabulary, id.loc.gov/vocabulary/preservation/eventType.
    """

    INGESTION_START = "ingestion start"
    INGESTION_END = "ingestion end"
    DIGEST = "message digest calculation"
    FIXITY = "fixity check"
    FORMAT_IDENTIFICATION = "format identification"
    VALIDATION = "validation"
    VIRUS_CHECK = "virus check"
    MIGRATION = "migration"
    REPLICATION = "replication"
    EXECUTION = "execution"
    METADATA = "metadata modification"
    DELETION = "deletion"
    TRANSFER = "transfer"
    ACCESSION = "accession"
    DECRYPTION = "decryption"
    UNPACKING = "unpacking"
    PACKING = "packing"
    RENAMING = "filename change"
    MODIFICATION = "modification"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened to a job, in PREMIS terms."""

    type: EventType
    outcome: str  #: "success", "warning" or "failure"
    detail: str
    agent: str  #: program and version
    step: str = ""
    at: datetime = field(default_factory=lambda: utcnow())
