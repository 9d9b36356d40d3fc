"""What is recorded of packages that went to a preservation service: events that a later job can read.

An event keeps a text. These have a fixed form, so that they say the same to people and to a later step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dittohead.model.events import Event, EventType

_SENT = re.compile(r"package (?P<name>\S+) of (?P<id>.+?) was handed to ")
_ACCEPTED = re.compile(
    r"package (?P<name>\S+) of (?P<id>.+?) was accepted"
    r"(?: as AIP (?P<aip>\S+))?(?:; its first version was made at (?P<created>[0-9TZ:-]+))?(?:;|$)"
)
_REJECTED = re.compile(r"package (?P<name>\S+) of (?P<id>.+?) was rejected: ")


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A package that a service has taken over."""

    name: str  #: of its file
    aip: str  #: the service's own id; "" where it names none
    created: str  #: CREATEDATE of its first version; "" where that is not known


def sent(name: str, identifier: str, where: str, sha256: str) -> str:
    """Return the text of a transfer.

    Args:
        name: of the package's file, at the service.
        identifier: the object's, as the package has it.
        where: the service.
        sha256: of the package.
    """
    return f"package {name} of {identifier} was handed to {where}; SHA-256 {sha256}"


def accepted(name: str, identifier: str, *, aip: str, created: str) -> str:
    """Return the text of an accession.

    Args:
        name: of the package's file, at the service.
        identifier: the object's, as the package has it.
        aip: the service's own id; "" where it names none.
        created: CREATEDATE of the first version; "" where it is not known.
    """
    text = f"package {name} of {identifier} was accepted"
    text += f" as AIP {aip}" if aip else ""
    return text + (f"; its first version was made at {created}" if created else "")


def rejected(name: str, identifier: str, why: str) -> str:
    """Return the text of an accession that failed."""
    return f"package {name} of {identifier} was rejected: {why}"


def accessions(events: Iterable[Event], identifier: str) -> list[Accepted]:
    """Return the packages of an object that were accepted, in the order of the events."""
    return [
        Accepted(name=match["name"], aip=match["aip"] or "", created=match["created"] or "")
        for event in events
        if event.type is EventType.ACCESSION
        and event.outcome == "success"
        and (match := _ACCEPTED.match(event.detail))
        and match["id"] == identifier
    ]


def first_version(events: Iterable[Event], identifier: str) -> str:
    """Return when the first version of an accepted object was made; "" where none is known."""
    return next((one.created for one in reversed(accessions(events, identifier)) if one.created), "")


def unanswered(events: Sequence[Event], identifier: str) -> list[str]:
    """Return the names of an object's packages that were sent and neither accepted nor rejected."""
    names: dict[str, None] = {}
    for event in events:
        for pattern, is_open in ((_SENT, True), (_ACCEPTED, False), (_REJECTED, False)):
            match = pattern.match(event.detail)
            if match and match["id"] == identifier:
                if is_open:
                    names[match["name"]] = None
                else:
                    names.pop(match["name"], None)
    return list(names)
