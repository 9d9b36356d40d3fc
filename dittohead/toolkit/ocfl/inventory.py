"""An object's inventory: read with everything that is wrong with it, and written. Source: OCFL 1.1, 3.5."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dittohead.toolkit.ocfl import digests
from dittohead.toolkit.ocfl.findings import OcflFindings

#: Versions of the specification whose objects can be read.
SPECS = ("1.0", "1.1")
SPEC = "1.1"  #: of what is made

FILE = "inventory.json"

_TYPE = re.compile(r"https://ocfl\.io/(\d+\.\d+)/spec/#inventory")
_VERSION = re.compile(r"v(0*)([1-9][0-9]*)")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_KEYS = {"id", "type", "digestAlgorithm", "head", "contentDirectory", "manifest", "versions", "fixity"}
_VERSION_KEYS = {"created", "state", "message", "user"}


def type_of(spec: str) -> str:
    """Return the type of inventories of a version of the specification."""
    return f"https://ocfl.io/{spec}/spec/#inventory"


def sidecar(algorithm: str) -> str:
    """Return the name of the file that holds the inventory's digest."""
    return f"{FILE}.{algorithm}"


def number_of(version: str) -> int:
    """Return the number of a version's name; 0 where it is none."""
    found = _VERSION.fullmatch(version)
    return int(found[2]) if found else 0


@dataclass(kw_only=True)
class Inventory:
    """What an inventory says, as far as it can be read."""

    id: str = ""
    spec: str = ""  #: the version of the specification in its type
    algorithm: str = ""
    head: str = ""
    content_directory: str | None = None  #: as it is written; None where it is not
    manifest: dict[str, list[str]] = field(default_factory=dict)  #: content paths by digest
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    fixity: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """The name of the directories that hold content."""
        return self.content_directory or "content"

    def state(self, version: str) -> dict[str, str]:
        """Return the digest of each logical path of a version, as the manifest writes it."""
        state = self.versions.get(version, {}).get("state", {})
        return {path: digest for digest, paths in state.items() for path in paths}

    def paths(self) -> Iterator[tuple[str, str]]:
        """Yield each content path with its digest."""
        for digest, paths in self.manifest.items():
            for path in paths:
                yield path, digest

    def next_version(self) -> str:
        """Return the name of the version after the head, in the way in which the others are named."""
        return following(self.head)

    def dump(self) -> bytes:
        """Return it as the bytes of an `inventory.json`."""
        found: dict[str, Any] = {
            "id": self.id,
            "type": type_of(self.spec),
            "digestAlgorithm": self.algorithm,
            "head": self.head,
        }
        if self.content_directory is not None:
            found["contentDirectory"] = self.content_directory
        found |= {"manifest": self.manifest, "versions": self.versions}
        if self.fixity:
            found["fixity"] = self.fixity
        return json.dumps(found, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"


def following(version: str) -> str:
    """Return the name of the version after this one; "" where padded names have no more digits.

    Source: OCFL 1.1, 3.3: a padded name keeps its length, and begins with a zero.
    """
    number = str(number_of(version) + 1)
    if not version.startswith("v0"):
        return f"v{number}"
    return f"v{number.zfill(len(version) - 1)}" if len(number) < len(version) - 1 else ""


def read(data: bytes, findings: OcflFindings, where: str = "") -> Inventory | None:
    """Read an inventory.

    Args:
        data: the file.
        findings: get everything that is wrong.
        where: a path in front of `inventory.json`, for the findings.

    Returns: what could be read; None where it is not a JSON object.
    """
    place = f"{where}{FILE}"
    try:
        raw = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        findings.add("E033", place, f"it is not JSON in UTF-8: {error}")
        return None
    if not isinstance(raw, dict):
        findings.add("E033", place, "it is not a JSON object")
        return None
    return _Reader(raw, findings, place).read()


class _Reader:
    """Reads one inventory; what has the wrong shape is left out of the result."""

    def __init__(self, raw: dict[str, Any], findings: OcflFindings, place: str) -> None:
        self._raw, self._findings, self._place = raw, findings, place
        self._made = Inventory()

    def _add(self, code: str, what: str) -> None:
        self._findings.add(code, self._place, what)

    def read(self) -> Inventory:
        for key in sorted(set(self._raw) - _KEYS):
            self._add("E102", f"the key {key} is none of the specification's")
        for key in ("id", "type", "digestAlgorithm", "head"):
            if key not in self._raw:
                self._add("E036", f"the key {key} is not there")
        for key in ("manifest", "versions"):
            if key not in self._raw:
                self._add("E041" if key == "manifest" else "E043", f"the key {key} is not there")
        self._id()
        self._type()
        self._algorithm()
        self._content_directory()
        self._manifest()
        self._versions()
        self._head()
        self._fixity()
        return self._made

    def _id(self) -> None:
        value = self._raw.get("id", "?:?")
        if not isinstance(value, str) or not value:
            self._add("E037", "the id is not a text, or empty")
            return
        self._made.id = value if "id" in self._raw else ""
        if not _URI.fullmatch(value):
            self._add("W005", f'the id "{value}" is not a URI')

    def _type(self) -> None:
        value = self._raw.get("type")
        found = _TYPE.fullmatch(value) if isinstance(value, str) else None
        if found is not None and found[1] in SPECS:
            self._made.spec = found[1]
        elif "type" in self._raw:
            self._add("E038", f'the type "{value}" is not that of an inventory of {" or ".join(SPECS)}')

    def _algorithm(self) -> None:
        value = self._raw.get("digestAlgorithm")
        if value in digests.MAIN:
            self._made.algorithm = str(value)
            if value != digests.MAIN[0]:
                self._add("W004", f"the digest algorithm is {value}, and should be {digests.MAIN[0]}")
        elif "digestAlgorithm" in self._raw:
            self._add("E025", f"the digest algorithm {value} is neither sha512 nor sha256")

    def _content_directory(self) -> None:
        value = self._raw.get("contentDirectory", "content")
        if not isinstance(value, str) or not value or "/" in value:
            self._add("E017", f"contentDirectory may not be {value!r}: it is the name of one directory")
        elif value in (".", ".."):
            self._add("E018", f"contentDirectory may not be {value}")
        elif "contentDirectory" in self._raw:
            self._made.content_directory = value

    def _manifest(self) -> None:
        value = self._raw.get("manifest", {})
        if not isinstance(value, dict):
            self._add("E106", "the manifest is not a JSON object")
            return
        self._made.manifest = self._block(value, "manifest", "E092", "E096")
        paths = [path for found in self._made.manifest.values() for path in found]
        for path in _clashes(paths):
            self._add("E101", f"the content path {path} is there twice, or is also a directory of others")

    def _block(self, value: dict[str, Any], name: str, shape: str, twice: str) -> dict[str, list[str]]:
        """Return the sound part of a table of content paths by digest."""
        found: dict[str, list[str]] = {}
        seen: set[str] = set()
        for digest, paths in value.items():
            if digest.lower() in seen:
                self._add(twice, f"the {name} has the digest {digest[:16]}... twice")
            seen.add(digest.lower())
            if not _are_texts(paths):
                self._add(shape, f"the {name} has no list of paths for the digest {digest[:16]}...")
                continue
            found[digest] = [path for path in paths if self._is_sound(path, "content path", "E100", "E099")]
        return found

    def _is_sound(self, path: str, what: str, ends: str, parts: str) -> bool:
        if path.startswith("/") or path.endswith("/"):
            self._add(ends, f"the {what} {path} begins or ends with a slash")
        elif any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
            self._add(parts, f"the {what} {path!r} has an element that is empty, . or ..")
        else:
            return True
        return False

    # -- versions ----------------------------------------------------------------------------

    def _versions(self) -> None:
        value = self._raw.get("versions", {})
        if not isinstance(value, dict):
            self._add("E044", "versions is not a JSON object")
            return
        if not value:
            self._add("E008", "there is no version")
        self._names(list(value))
        for name, version in value.items():
            if not isinstance(version, dict):
                self._add("E047", f"version {name} is not a JSON object")
            else:
                self._version(name, version)
        used = {digest for version in self._made.versions.values() for digest in version["state"]}
        for digest in set(self._made.manifest) - used if self._made.versions else ():
            self._add("E107", f"no version has the digest {digest[:16]}... of the manifest")

    def _names(self, names: list[str]) -> None:
        sound = [name for name in names if number_of(name)]
        for name in sorted(set(names) - set(sound)):
            self._add("E046", f"{name} is not the name of a version")
        padded = [name for name in sound if name.startswith("v0")]
        if padded:
            self._add("W001", "the names of versions are padded with zeros")
            for name in sorted(set(sound) - set(padded)):
                self._add("E011", f"{name} has no zero after its v, and others have")
                self._add("E013", f"{name} is not named in the way of the other versions")
            if len(set(map(len, padded))) > 1:
                self._add("E012", "the names of versions are padded to different lengths")
        numbers = sorted(map(number_of, sound))
        if numbers and numbers[0] != 1:
            self._add("E009", "versions do not begin with the first")
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))) if numbers else False:
            self._add("E010", "there are gaps in the numbers of versions, or one is there twice")

    def _version(self, name: str, value: dict[str, Any]) -> None:
        for key in sorted(set(value) - _VERSION_KEYS):
            self._add("E102", f"version {name}: the key {key} is none of the specification's")
        for key in ("created", "state"):
            if key not in value:
                self._add("E048", f"version {name}: the key {key} is not there")
        if "created" in value and not _is_time(value["created"]):
            self._add("E049", f"version {name}: created is not a time with seconds and a zone (RFC 3339)")
        if not isinstance(value.get("message", ""), str):
            self._add("E094", f"version {name}: the message is not a text")
        if "message" not in value or "user" not in value:
            self._add("W007", f"version {name} has no message or no user")
        if "user" in value:
            self._user(name, value["user"])
        self._made.versions[name] = {**value, "state": self._state(name, value.get("state", {}))}

    def _user(self, name: str, value: Any) -> None:
        if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
            self._add("E054", f"version {name}: the user has no name")
        elif "address" not in value:
            self._add("W008", f"version {name}: the user has no address")
        elif not isinstance(value["address"], str) or not _URI.fullmatch(value["address"]):
            self._add("W009", f"version {name}: the user's address is not a URI")

    def _state(self, name: str, value: Any) -> dict[str, list[str]]:
        if not isinstance(value, dict):
            self._add("E050", f"version {name}: the state is not a JSON object")
            return {}
        found: dict[str, list[str]] = {}
        for digest, paths in value.items():
            if digest not in self._made.manifest:
                self._add("E050", f"version {name}: the digest {digest[:16]}... is not in the manifest")
            if not _are_texts(paths):
                self._add("E051", f"version {name}: no list of paths for the digest {digest[:16]}...")
                continue
            found[digest] = [path for path in paths if self._is_sound(path, "logical path", "E053", "E052")]
        for path in _clashes(path for paths in found.values() for path in paths):
            self._add("E095", f"version {name}: {path} is there twice, or is also a directory of others")
        return found

    def _head(self) -> None:
        value = self._raw.get("head")
        if isinstance(value, str):
            self._made.head = value
        if "head" not in self._raw:
            return
        latest = max(map(number_of, self._made.versions), default=0)
        if not isinstance(value, str) or value not in self._made.versions:
            self._add("E040", f"the head {value} is none of the versions")
        elif number_of(value) != latest:
            self._add("E040", f"the head {value} is not the latest version")

    def _fixity(self) -> None:
        value = self._raw.get("fixity", {})
        if not isinstance(value, dict):
            self._add("E111", "fixity is not a JSON object")
            return
        for algorithm, block in value.items():
            if algorithm not in digests.FIXITY and algorithm not in digests.OTHERS:
                self._add("E056", f"fixity: the algorithm {algorithm} is unknown")
            if not isinstance(block, dict):
                self._add("E057", f"fixity: {algorithm} is not a JSON object")
                continue
            self._made.fixity[algorithm] = self._block(block, f"fixity block {algorithm}", "E057", "E097")


# -- small helpers ---------------------------------------------------------------------------


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice in one object")
    return found


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_time(value: Any) -> bool:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return False
    try:
        # Python reads six digits of a second at most, and "Z" alone in capitals.
        datetime.fromisoformat(re.sub(r"\.\d+", "", value).upper().replace("Z", "+00:00"))
    except ValueError:
        return False
    return True


def _clashes(paths: Iterable[str]) -> Iterator[str]:
    """Yield paths that are there twice, or are directories of others."""
    seen: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        if path in seen:
            yield path
        seen.add(path)
        parent = path.rpartition("/")[0]
        while parent and parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    yield from sorted(seen & folders)


def same_about(version: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two accounts of one version say the same besides its state."""
    return all(version.get(key) == other.get(key) for key in ("created", "message", "user"))
