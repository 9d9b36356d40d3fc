"""What a BagIt profile asks of a bag. Source: BagIt Profiles Specification 1.3.0, 1.4.0 (bagit-profiles)."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dittohead.model.text import display
from dittohead.workers.bag.check import Bag

#: A profile is far smaller. Bytes.
_LARGEST = 1 << 20


class BadProfile(ValueError):
    """A file is not a BagIt profile; says why."""


@dataclass(frozen=True, kw_only=True)
class BagProfile:
    """A profile, as its JSON has it."""

    identifier: str
    rules: Mapping[str, Any]

    def problems(self, bag: Bag) -> Iterator[str]:
        """Yield everything in which a bag does not conform to the profile."""
        for check in (_version, _manifests, _tag_files, _info, _rest):
            yield from check(self.rules, bag)


def read(path: Path) -> BagProfile:
    """Return the profile in a file. Raises: BadProfile: it is not one; OSError."""
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise BadProfile("it is too large for a BagIt profile")
    try:
        rules = json.loads(data)
    except ValueError as error:
        raise BadProfile(f"it is not JSON ({error})") from None
    about = rules.get("BagIt-Profile-Info") if isinstance(rules, dict) else None
    if not isinstance(about, dict):
        raise BadProfile("it has no BagIt-Profile-Info")
    for key, kind in _KINDS.items():
        if key in rules and not isinstance(rules[key], kind):
            raise BadProfile(f"{key} is not {'a list' if kind is list else 'an object'}")
    return BagProfile(identifier=str(about.get("BagIt-Profile-Identifier", "")), rules=rules)


_KINDS: dict[str, type] = {
    "Bag-Info": dict,
    **dict.fromkeys(
        (
            "Accept-BagIt-Version",
            "Manifests-Required",
            "Manifests-Allowed",
            "Tag-Manifests-Required",
            "Tag-Manifests-Allowed",
            "Tag-Files-Required",
            "Tag-Files-Allowed",
        ),
        list,
    ),
}


def _version(rules: Mapping[str, Any], bag: Bag) -> Iterator[str]:
    accepted = rules.get("Accept-BagIt-Version")
    if accepted and bag.declaration is not None:
        version = "{}.{}".format(*bag.declaration.version)
        if version not in [str(one) for one in accepted]:
            yield f"its version {version} is not accepted ({', '.join(map(str, accepted))})"


def _manifests(rules: Mapping[str, Any], bag: Bag) -> Iterator[str]:
    for is_tag, kind in ((False, "Manifests"), (True, "Tag-Manifests")):
        there = {one.called.lower() for one in bag.manifests if one.is_tag == is_tag}
        name = "tagmanifest" if is_tag else "manifest"
        for wanted in rules.get(f"{kind}-Required", []):
            if str(wanted).lower() not in there:
                yield f"{name}-{wanted}.txt is required, and is not there"
        allowed = rules.get(f"{kind}-Allowed")
        if allowed is not None:
            for one in sorted(there - {str(one).lower() for one in allowed}):
                yield f"{name}-{one}.txt is not allowed"


def _tag_files(rules: Mapping[str, Any], bag: Bag) -> Iterator[str]:
    there = [display(path) for path in bag.tag_files]
    for wanted in rules.get("Tag-Files-Required", []):
        if str(wanted) not in there:
            yield f"the tag file {wanted} is required, and is not there"
    allowed = rules.get("Tag-Files-Allowed")
    if allowed is not None:
        patterns = [str(one) for one in (*allowed, *rules.get("Tag-Files-Required", []))]
        own = ("bagit.txt", "bag-info.txt", "fetch.txt", "manifest-*.txt", "tagmanifest-*.txt")
        for path in there:
            if not any(fnmatch.fnmatchcase(path, one) for one in (*own, *patterns)):
                yield f"the tag file {path} is not allowed"


def _info(rules: Mapping[str, Any], bag: Bag) -> Iterator[str]:
    for label, rule in rules.get("Bag-Info", {}).items():
        if not isinstance(rule, dict):
            continue
        values = [value for name, value in bag.info if name.lower() == str(label).lower()]
        if rule.get("required") and not any(values):
            yield f"bag-info.txt has no {label}, which is required"
        if rule.get("repeatable") is False and len(values) > 1:
            yield f"bag-info.txt has {label} {len(values)} times, and it may be there once"
        allowed = rule.get("values")
        if allowed:
            for value in values:
                if value not in allowed:
                    yield f'bag-info.txt says {label}: "{value}"; allowed are {", ".join(map(str, allowed))}'


def _is(value: Any) -> bool:
    return value is True or str(value).lower() == "true"


def _rest(rules: Mapping[str, Any], bag: Bag) -> Iterator[str]:
    has_fetch = b"fetch.txt" in bag.tag_files
    count, size = bag.payload
    tests: tuple[tuple[str, Callable[[], bool], str], ...] = (
        ("Fetch.txt-Required", lambda: not has_fetch, "fetch.txt is required, and is not there"),
        ("Data-Empty", lambda: count > 1 or size > 0, "data/ must be empty, and it has files"),
    )
    for key, fails, what in tests:
        if _is(rules.get(key)) and fails():
            yield what
    if has_fetch and "Allow-Fetch.txt" in rules and not _is(rules["Allow-Fetch.txt"]):
        yield "fetch.txt is not allowed"
