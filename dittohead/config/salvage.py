"""Keep the valid part of a faulty configuration, so that all errors can be reported at once.

What is wrong is left out, or a stand-in takes its place; what says something of that is not to be believed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from dittohead.config.positions import Place
from dittohead.config.settings import Settings

#: Each leaves out what the one before has found; a stand-in may be wrong itself.
_ROUNDS = 5

_STAND_INS: dict[str, Any] = {"root": "."}


@dataclass(frozen=True)
class Salvaged:
    """What could be kept."""

    settings: Settings
    sections: frozenset[str] = frozenset()  #: top-level keys in which something is wrong
    unmatched: frozenset[str] = frozenset()  #: pipelines whose match is not known, and so no group of it


def salvage(data: dict[str, Any], error: ValidationError) -> Salvaged | None:
    """Return what of a configuration is right; None where that is too little to go on with."""
    kept = copy.deepcopy(data)
    sections: set[str] = set()
    unmatched: set[str] = set()
    for _ in range(_ROUNDS):
        for finding in error.errors(include_url=False, include_context=False):
            place: Place = finding["loc"]
            sections.update(str(part) for part in place[:1])
            if len(place) > 2 and place[0] == "pipelines" and place[2] == "match":
                unmatched.add(str(place[1]))
            _leave_out(kept, place)
        try:
            settings = Settings.model_validate(kept)
        except ValidationError as more:
            error = more
        else:
            return Salvaged(settings, frozenset(sections), frozenset(unmatched))
    return None


def _leave_out(data: dict[str, Any], place: Place) -> None:
    """Take away what stands at a place, as far as it is there, or put a stand-in there."""
    known = _known(data, place)
    if len(place) == 1 and place[0] in _STAND_INS:
        data[str(place[0])] = _STAND_INS[str(place[0])]
    elif len(place) > 2 and place[0] == "pipelines" and place[2] == "match" and len(known) > 1:
        _at(data, known[:2])["match"] = "(?s).*"
    elif known:
        _at(data, known[:-1]).pop(known[-1], None)


def _known(data: Any, place: Iterable[str | int]) -> Place:
    """Return as much of a place as is there and lies in no list: numbers of what comes after would change."""
    found: list[str | int] = []
    for part in place:
        if not isinstance(data, dict) or part not in data:
            break
        data = data[part]
        found.append(part)
    return tuple(found)


def _at(data: Any, place: Place) -> Any:
    for part in place:
        data = data[part]
    return data


class Every(frozenset[str]):
    """Stands for names that are not known: each may be one."""

    def __contains__(self, name: object) -> bool:
        return True

    def __or__(self, other: object) -> Every:
        return self
