"""Where an object lies under its storage root, by its id. Source: OCFL community extensions 0002 to 0007."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dittohead.toolkit.ocfl import digests

#: The extensions that are known here, by their numbers.
NAMES = {
    "0002": "0002-flat-direct-storage-layout",
    "0003": "0003-hash-and-id-n-tuple-storage-layout",
    "0004": "0004-hashed-n-tuple-storage-layout",
    "0006": "0006-flat-omit-prefix-storage-layout",
    "0007": "0007-n-tuple-omit-prefix-storage-layout",
}

#: What the description in `ocfl_layout.json` says.
DESCRIPTIONS = {
    "0002": "Objects lie directly in the root, in directories named like their ids",
    "0003": "Directories made of a digest of the id, and in them one named like the id, percent-encoded",
    "0004": "Directories made of a digest of the id, and in them one named like the digest",
    "0006": "Objects lie directly in the root, in directories named like the ends of their ids",
    "0007": "Directories made of the end of the id, and in them one named like that end",
}

_TUPLES: dict[str, Any] = {"tupleSize": 3, "numberOfTuples": 3}
_HASHED: dict[str, Any] = {"digestAlgorithm": "sha256", **_TUPLES}

#: The parameters of each layout, and what they are where they are not given; None: they must be.
_PARAMETERS: dict[str, dict[str, Any]] = {
    "0002": {},
    "0003": _HASHED,
    "0004": {**_HASHED, "shortObjectRoot": False},
    "0006": {"delimiter": None},
    "0007": {"delimiter": ":", **_TUPLES, "zeroPadding": "left", "reverseObjectRoot": False},
}

_MOST = 32  # of tuples, and of characters in one
_LONGEST = 255  # bytes of a name on nearly all file systems
_SAFE = re.compile(r"[A-Za-z0-9_-]")
_CUT = 100  # characters of an encoded id in 0003

#: Names in a root that are not objects'. Source: OCFL 1.1, 4.1.
_TAKEN = re.compile(r"extensions|ocfl_layout\.json|0=ocfl_.*", re.IGNORECASE)


class BadLayout(ValueError):
    """A layout is unknown here, or its parameters are wrong; the message says which and why."""


class NoPlace(ValueError):
    """An id has no place in a layout; the message says why."""


@dataclass(frozen=True)
class StorageLayout:
    """One way to lay out a storage root."""

    number: str
    parameters: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The extension's registered name."""
        return NAMES[self.number]

    def config(self) -> dict[str, Any]:
        """Return what the extension's `config.json` holds."""
        return {"extensionName": self.name, **self.parameters}

    def path(self, id_: str) -> str:
        """Return the path of an object relative to its root. Raises: NoPlace."""
        parts = _PATHS[self.number](id_, self.parameters)
        for part in parts:
            _check_name(part)
        if _TAKEN.fullmatch(parts[0]):
            raise NoPlace(f'"{parts[0]}" has another meaning in a storage root')
        return "/".join(parts)


def layout(name: str, parameters: Mapping[str, Any]) -> StorageLayout:
    """Return a layout by its extension's name or number. Raises: BadLayout."""
    number = name[:4]
    if name not in (number, NAMES.get(number)) or number not in NAMES:
        raise BadLayout(f'the layout "{name}" is unknown; known are {", ".join(NAMES.values())}')
    known = _PARAMETERS[number]
    given = {key: value for key, value in parameters.items() if key != "extensionName"}
    said = parameters.get("extensionName", NAMES[number])
    if said != NAMES[number]:
        raise BadLayout(f"its configuration is of another extension: {said}")
    if unknown := sorted(set(given) - set(known)):
        raise BadLayout(f"{NAMES[number]} has no parameter {unknown[0]}")
    found = StorageLayout(number, {**known, **given})
    for problem in _problems(found.parameters):
        raise BadLayout(f"{NAMES[number]}: {problem}")
    return found


def _problems(given: Mapping[str, Any]) -> list[str]:
    found = []
    if "delimiter" in given and not (isinstance(given["delimiter"], str) and given["delimiter"]):
        found.append("delimiter must be a text that is not empty")
    if given.get("digestAlgorithm", "md5") not in digests.FIXITY:
        found.append(f"digestAlgorithm must be one of {', '.join(digests.FIXITY)}")
    if given.get("zeroPadding", "left") not in ("left", "right"):
        found.append("zeroPadding must be left or right")
    switches = ("shortObjectRoot", "reverseObjectRoot")
    found += [
        f"{key} must be true or false" for key in switches if not isinstance(given.get(key, False), bool)
    ]
    return found or _tuple_problems(given)


def _tuple_problems(given: Mapping[str, Any]) -> list[str]:
    if "tupleSize" not in given:
        return []
    size, number = given["tupleSize"], given["numberOfTuples"]
    least = 0 if "digestAlgorithm" in given else 1
    for key in ("tupleSize", "numberOfTuples"):
        value = given[key]
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
            return [f"{key} must be a number from {least} to {_MOST}"]
    if (size == 0) != (number == 0):
        return ["tupleSize and numberOfTuples must both be 0, or neither"]
    if "digestAlgorithm" not in given:
        return []
    length = len(digests.of_text(given["digestAlgorithm"], ""))
    if size * number > length:
        return [f"tupleSize times numberOfTuples is more than the digest's {length} characters"]
    if given.get("shortObjectRoot") and size * number == length:
        return ["shortObjectRoot must be false: the tuples leave nothing of the digest"]
    return []


def _check_name(name: str) -> None:
    if name in ("", ".", ".."):
        raise NoPlace(f'its directory would be called "{name}"')
    if "/" in name or "\0" in name:
        raise NoPlace("its directory's name would hold a slash")
    if len(name.encode()) > _LONGEST:
        raise NoPlace(f"its directory's name would be longer than {_LONGEST} bytes")


# -- each layout's way -----------------------------------------------------------------------


def _split(text: str, given: Mapping[str, Any]) -> list[str]:
    size = given["tupleSize"]
    return [text[number * size : (number + 1) * size] for number in range(given["numberOfTuples"])]


def _flat(id_: str, given: Mapping[str, Any]) -> list[str]:
    return [id_]


def _hashed_with_id(id_: str, given: Mapping[str, Any]) -> list[str]:
    digest = digests.of_text(given["digestAlgorithm"], id_)
    name = "".join(c if _SAFE.fullmatch(c) else "".join(f"%{b:02x}" for b in c.encode()) for c in id_)
    return [*_split(digest, given), name if len(name) <= _CUT else f"{name[:_CUT]}-{digest}"]


def _hashed(id_: str, given: Mapping[str, Any]) -> list[str]:
    digest = digests.of_text(given["digestAlgorithm"], id_)
    used = given["tupleSize"] * given["numberOfTuples"]
    return [*_split(digest, given), digest[used:] if given["shortObjectRoot"] else digest]


def _end(id_: str, given: Mapping[str, Any]) -> str:
    """Return what follows the last delimiter, which is found whatever its case."""
    ends = [
        found.end(1) for found in re.finditer(f"(?=({re.escape(given['delimiter'])}))", id_, re.IGNORECASE)
    ]
    return id_[max(ends, default=0) :]


def _flat_end(id_: str, given: Mapping[str, Any]) -> list[str]:
    return [_end(id_, given)]


def _tuples_of_end(id_: str, given: Mapping[str, Any]) -> list[str]:
    end = _end(id_, given)
    if not all(" " <= c <= "\x7f" for c in id_):
        raise NoPlace("this layout is for ids of ASCII characters alone")
    width = given["tupleSize"] * given["numberOfTuples"]
    filled = end.rjust(width, "0") if given["zeroPadding"] == "left" else end.ljust(width, "0")
    return [*_split(filled[::-1] if given["reverseObjectRoot"] else filled, given), end]


_PATHS: dict[str, Callable[[str, Mapping[str, Any]], list[str]]] = {
    "0002": _flat,
    "0003": _hashed_with_id,
    "0004": _hashed,
    "0006": _flat_end,
    "0007": _tuples_of_end,
}
