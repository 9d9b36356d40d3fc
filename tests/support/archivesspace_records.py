"""What the simulated ArchivesSpace holds, and the rules by which it is read and saved."""

from __future__ import annotations

import copy
import functools
import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from tests.support.archivesspace_schema import SCHEMAS, STOCK, Invalid, cleaned, mixed_content_error

Record = dict[str, Any]

NOW = "2026-01-01T00:00:00Z"

#: Columns that are shorter than the JSON schema says. Source: information_schema of a v4.2.1 database.
_COLUMNS = {"digital_object": {"title": 8704}, "file_version": {"caption": 255}}

#: Fields that are checked as inline EAD. Source: mixed_content_validatable.rb (4.2.0 and later), title.
_MIXED = {"digital_object", "digital_object_component", "archival_object"}


class Refused(Exception):
    """Answered with a status and ArchivesSpace's words."""

    def __init__(self, status: int, error: Any) -> None:
        super().__init__(str(error))
        self.status, self.error = status, error


class Holdings:
    """All records, by uri."""

    def __init__(self) -> None:
        self.enums = copy.deepcopy(STOCK)
        self.default_publish = True  #: the users' preference: a forgotten `publish` shows
        self.repositories = {
            2: {"repo_code": "HBF", "name": "Institute Archives"},
            7: {"repo_code": "X", "name": "Other"},
        }
        self.version = "v4.2.1"
        #: Done once between the checks of a save and the save, as a second request at the same time would.
        self.between: list[tuple[str, Callable[[], None]]] = []
        self.records: dict[str, Record] = {}  #: by uri
        self.extra: dict[str, Record] = {}  #: what is readonly and set by a test: ark_name, ancestors
        #: (digital object, parent or "") -> components in order
        self.trees: dict[tuple[str, str], list[str]] = {}
        self.indexed: dict[str, Record] = {}  #: what the search index knows
        self._next = 100

    def sees(self, user: str) -> bool:
        """Tell whether a user is shown what is suppressed; the server knows of rights and preferences."""
        return user in ("", "staff")

    def suppressed(self, uri: str) -> bool:
        return bool(self.extra.get(uri, {}).get("suppressed"))

    def suppress(self, uri: str, on: bool = True) -> None:  # reads as it is said
        """Suppress a record as staff would, or lift that."""
        self.extra.setdefault(uri, {})["suppressed"] = on

    def _hide(self, record: Record) -> None:
        """Leave out relations to what is suppressed. Source: relationships.rb, `relationship.suppressed == 1`.

        Seen in v4.2.1: a save of such a view then deletes them.
        """

        def kept(ref: Any) -> bool:
            return not self.suppressed(str((ref or {}).get("ref", "")))

        if "instances" in record:
            record["instances"] = [one for one in record["instances"] if kept(one.get("digital_object"))]
        for name in ("accession_links", "linked_instances", "linked_events"):
            if record.get(name):
                record[name] = [one for one in record[name] if kept(one)]

    def shown(self, uri: str, resolve: tuple[str, ...] = (), user: str = "") -> Record:
        record = self.records.get(uri)
        if record is None or (self.suppressed(uri) and not self.sees(user)):
            kind = uri.split("/")[-2].rstrip("s").title().replace("_", "")
            raise Refused(404, f"{kind} not found")
        result = copy.deepcopy(record) | copy.deepcopy(self.extra.get(uri, {}))
        if "/digital_objects/" in uri:
            result["linked_instances"] = [
                {"ref": other}
                for other, one in self.records.items()
                for i in one.get("instances") or ()
                if (i.get("digital_object") or {}).get("ref") == uri
            ]
            result["tree"] = {"ref": uri + "/tree"}
        if "/digital_object_components/" in uri:
            siblings = self.trees[
                record["digital_object"]["ref"], (record.get("parent") or {}).get("ref", "")
            ]
            result["position"] = siblings.index(uri)
        if "/archival_objects/" in uri:
            date = next(
                (one.get("expression") or one.get("begin") for one in record.get("dates") or ()), None
            )
            result["display_string"] = ", ".join(part for part in (record.get("title"), date) if part)
        if "/digital_object_components/" not in uri:
            result["linked_events"] = self._events(uri)
        shown: Record = without_nulls(result)
        if not self.sees(user):
            self._hide(shown)
        return self._resolved(shown, resolve)

    def _events(self, uri: str) -> list[Record]:
        events = ((other, one) for other, one in self.records.items() if "/events/" in other)
        return [{"ref": other} for other, one in events if uri in (x["ref"] for x in one["linked_records"])]

    def _resolved(self, value: Any, names: tuple[str, ...]) -> Any:
        if not isinstance(value, dict):
            return value
        for name in names:
            for one in value[name] if isinstance(value.get(name), list) else [value.get(name)]:
                if isinstance(one, dict) and "ref" in one:
                    one["_resolved"] = (
                        self.shown(one["ref"]) if one["ref"] in self.records else self._repository(one["ref"])
                    )
        return value

    def _repository(self, uri: str) -> Record:
        number = int(uri.rpartition("/")[2])
        if not re.fullmatch(r"/repositories/\d+", uri) or number not in self.repositories:
            raise Refused(404, "Not found")
        return {"uri": uri, **self.repositories[number]}

    def coming(self) -> None:
        """Give the lists what the coming version has for its viewer. Source: migration 176."""
        self.enums["file_version_use_statement"].append("text-json")
        self.enums["file_version_file_format_name"].append("iiif")

    def index(self) -> None:
        """Let the search index catch up, which it does only after a while."""
        self.indexed = {uri: self.shown(uri) for uri in self.records}

    def _new(self, base: str) -> str:
        self._next += 1
        return f"{base}/{self._next}"

    def _publish(self, record: Record, *, fresh: bool) -> None:
        if record.get("publish") is None:
            record["publish"] = self.default_publish if fresh else False
        for version in record.get("file_versions") or ():
            self._next += 1
            version |= {"identifier": str(self._next), "jsonmodel_type": "file_version"}
            if version["publish"] is None:
                version["publish"] = self.default_publish  # made again at each save
            version["is_representative"] = bool(version["is_representative"])
        if sum(bool(one.get("is_representative")) for one in record.get("instances") or ()) > 1:
            raise Invalid(
                {"is_representative": ["A record can have only one Instance defined as: is_representative"]}
            )
        chosen = [one for one in record.get("file_versions") or () if one["is_representative"]]
        if len(chosen) > 1:
            raise Invalid(
                {
                    "is_representative": [
                        "A digital_object can have only one file_version defined as: is_representative"
                    ]
                }
            )
        if any(not one["publish"] for one in chosen):
            raise Invalid({"is_representative": ["must be published to be representative"]})

    def _refer(self, record: Record) -> None:
        refs = [i["digital_object"]["ref"] for i in record.get("instances") or () if i.get("digital_object")]
        refs += [
            one["ref"]
            for name in ("linked_records", "linked_agents")
            for one in record.get(name) or ()
            if isinstance(one, dict) and "role" in one and "linked_records" in record
        ]
        refs += [record[name]["ref"] for name in ("digital_object", "parent") if record.get(name)]
        if "digital_object_id" in record:
            refs += [one["ref"] for name in ("linked_agents", "subjects") for one in record.get(name) or ()]
        for ref in refs:
            if ref not in self.records:
                # Source: exceptions.rb, ReferenceError; the words are assumed.
                raise Refused(400, f"Can't relate to non-existent record: {ref}")

    def _unique(self, uri: str, record: Record) -> None:
        """The models' own checks: what is taken already gets their words. They see what is suppressed."""
        repo = "/".join(uri.split("/")[:3])
        if mine := record.get("digital_object_id"):
            for other, one in self.records.items():
                others = other != uri and other.startswith(f"{repo}/digital_objects/")
                if others and folded(one["digital_object_id"]) == folded(mine):
                    raise Invalid({"digital_object_id": ["Must be unique"]})
        if "/digital_object_components/" in uri and (mine := record.get("component_id")):
            object_, wanted = record["digital_object"]["ref"], folded(mine)
            for other in (one for key, uris in self.trees.items() if key[0] == object_ for one in uris):
                if other != uri and folded(self.records[other]["component_id"] or "") == wanted:
                    words = "A Digital Object Component ID must be unique to its Digital Object"
                    raise Invalid({"component_id": [words]})

    def _indexes(self, uri: str, record: Record) -> None:
        """The database's own: wider than the models' checks, and all that two requests at once meet.

        Source: migration 001, UNIQUE KEY doc_unique_identifier (repo_id, component_id); seen in v4.2.1.
        """
        repo = "/".join(uri.split("/")[:3])
        for kind, name, key in (
            ("digital_object_components", "component_id", "doc_unique_identifier"),
            ("digital_objects", "digital_object_id", "digital_object_repo_id_digital_object_id_index"),
        ):
            mine = record.get(name)
            if f"/{kind}/" not in uri or not mine:
                continue
            for other, one in self.records.items():
                there = other != uri and other.startswith(f"{repo}/{kind}/") and one.get(name)
                if there and folded(one[name]) == folded(mine):
                    raise duplicate(f"{repo.rpartition('/')[2]}-{mine}", key)
        if uri.startswith("/agents/software/"):
            names = [(one["software_name"], one["version"]) for one in record["names"]]
            for other, one in self.records.items():
                others = other.startswith("/agents/software/") and other != uri
                if others and [(n["software_name"], n["version"]) for n in one["names"]] == names:
                    raise duplicate("0" * 40, "sha1_agent_software")

    def _columns(self, kind: str, record: Record) -> None:
        """What the tables take: shorter texts than the schema, and no character beyond the BMP (utf8mb3).

        Source: information_schema of a v4.2.1 database; the words are MariaDB's.
        """
        for name, most in _COLUMNS.get(kind, {}).items():
            if len(record.get(name) or "") > most:
                raise db_error(f"Data too long for column '{name}' at row 1")
        for name, value in record.items():
            if isinstance(value, str) and beyond(value):
                if name == "component_id":
                    raise db_error(
                        "Illegal mix of collations (utf8mb3_general_ci,IMPLICIT) and "
                        "(utf8mb4_general_ci,COERCIBLE) for operation '='"
                    )
                raise db_error(f"Incorrect string value: '\\xF0\\x9F...' for column '{name}' at row 1")
        for version in record.get("file_versions") or ():
            self._columns("file_version", version)

    def _checked(self, kind: str, record: Record) -> None:
        checks = kind in _MIXED and self.version >= "v4.2"
        if checks and (code := mixed_content_error(record.get("title") or "")):
            raise Invalid({"title": [code]})

    def save(self, uri: str, kind: str, body: Record, user: str) -> Record:
        """Create or replace a record, in one go or not at all."""
        old = self.records.get(uri)
        record = cleaned(kind, body, self.enums)
        self._publish(record, fresh=old is None) if "publish" in record else None
        self._refer(record)
        self._checked(kind, record)
        self._unique(uri, record)
        for match, act in list(self.between):
            if re.fullmatch(match, uri.rpartition("/")[0]):
                self.between.remove((match, act))
                act()
        for note in record.get("notes") or ():  # Source: notes.rb gives each an id that stays
            if not note.get("persistent_id"):
                self._next += 1
                note["persistent_id"] = f"{self._next:032x}"
        self._indexes(uri, record)
        self._columns(kind, record)
        position = record.pop("position", None)
        stamp = {
            "uri": uri,
            "jsonmodel_type": kind,
            "last_modified_by": user,
            "system_mtime": NOW,
            "user_mtime": NOW,
        }
        made = {
            "created_by": user,
            "create_time": NOW,
            "repository": {"ref": "/".join(uri.split("/")[:3])},
            "lock_version": -1,
        }
        kept = {name: (old or made)[name] for name in made}
        if kind in ("agent_software",):
            kept.pop("repository", None)
        self.records[uri] = record | stamp | kept | {"lock_version": kept["lock_version"] + 1}
        if kind == "event" and old is None:  # seen in v4.2.1: each event raises its records' versions
            for one in record["linked_records"]:
                self.records[one["ref"]]["lock_version"] += 1
        if kind == "digital_object_component":
            self._place(uri, old, position)
        if kind == "archival_object":
            for ref in {*linked(old or {}), *linked(record)}:
                if ref in self.records:
                    self.records[ref]["lock_version"] += 1
        return self.records[uri]

    def _place(self, uri: str, old: Record | None, position: int | None) -> None:
        record = self.records[uri]
        key = (record["digital_object"]["ref"], (record.get("parent") or {}).get("ref", ""))
        siblings = self.trees.setdefault(key, [])
        if uri not in siblings:
            siblings.append(uri)
        if position is not None:
            siblings.remove(uri)
            siblings.insert(min(position, len(siblings)), uri)

    def remove(self, uri: str) -> None:
        """Delete a record with what is below it, and whatever refers to it."""
        record = self.records[uri]
        for key in [key for key in self.trees if uri in key]:
            for child in list(self.trees.get(key, ())):
                self.remove(child)
            self.trees.pop(key, None)
        for siblings in self.trees.values():
            if uri in siblings:
                siblings.remove(uri)
        for one in self.records.values():
            if uri in linked(one):
                one["instances"] = [
                    i for i in one["instances"] if (i.get("digital_object") or {}).get("ref") != uri
                ]
        del self.records[record["uri"]]

    def saved(self) -> Any:
        """Return all that it holds, for `restore`."""
        return copy.deepcopy((self.records, self.extra, self.trees, self._next))

    def hold(self, saved: Any) -> None:
        """Hold again what it held."""
        self.records, self.extra, self.trees, self._next = copy.deepcopy(saved)

    def add(self, uri: str, extra: Record | None = None, **fields: Any) -> str:
        """Put a record in, as staff would have."""
        self.extra[uri] = extra or {}
        if model_of(uri.split("/")[-2]) not in SCHEMAS:  # what clients here only read
            self.records[uri] = {
                "uri": uri,
                "lock_version": 0,
                "repository": {"ref": "/".join(uri.split("/")[:3])},
                **fields,
            }
        else:
            self.save(uri, model_of(uri.split("/")[-2]), fields, "staff")
        return uri

    def state(self) -> Any:
        """Return everything people would see, without what every save changes."""
        left = {"lock_version", "identifier", "last_modified_by", "uri", "ref"}

        def strip(value: Any) -> Any:
            if isinstance(value, dict):
                return {
                    k: strip(v) for k, v in sorted(value.items()) if k not in left and v not in (None, [])
                }
            return [strip(one) for one in value] if isinstance(value, list) else value

        trees = [
            [
                self.records[object_].get("digital_object_id"),
                (self.records[parent]["component_id"] if parent else ""),
                [strip(self.records[uri]) for uri in uris],
            ]
            for (object_, parent), uris in self.trees.items()
            if uris
        ]
        links = {
            uri: [self.records[ref].get("digital_object_id") for ref in linked(one)]
            for uri, one in self.records.items()
            if "/archival_objects/" in uri
        }
        plain = [
            strip(one)
            for uri, one in sorted(
                self.records.items(), key=lambda pair: (kind_of(pair[0]), number_of(pair[0]))
            )
            if "/digital_object_components/" not in uri
        ]
        return json.loads(json.dumps({"records": plain, "trees": trees, "links": links}))


def db_error(words: str) -> Invalid:
    """Every fault of the database, a passing one too. Source: exceptions.rb, Sequel::DatabaseError: 400."""
    return Invalid({"db_error": [f"Database integrity constraint conflict: Java::JavaSql: {words}"]})


def duplicate(value: str, key: str) -> Invalid:
    return db_error(f"Duplicate entry '{value}' for key '{key}'")


def beyond(text: str) -> bool:
    """Tell whether a text has characters that three bytes of UTF-8 do not hold."""
    return any(ord(one) > 0xFFFF for one in text)


@functools.lru_cache(100_000)
def folded(text: str) -> str:
    """Return what utf8mb3_general_ci compares: neither capitals nor accents, nor blanks at the end.

    Seen in v4.2.1: capitals, ü = u. By MySQL's table, not run: each character by its base alone, ß = s.
    """
    return "".join(_base(one) for one in text).rstrip(" ")


def _base(character: str) -> str:
    base = unicodedata.normalize("NFD", character)[0]
    return {"ß": "S", "ı": "I"}.get(base) or (base.upper() if len(base.upper()) == 1 else base)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def number_of(uri: str) -> int:
    return int(uri.rpartition("/")[2])


def kind_of(uri: str) -> str:
    return model_of(uri.split("/")[-2])


def model_of(kind: str) -> str:
    return "agent_software" if kind == "software" else kind.removesuffix("s")


def linked(record: Record) -> list[str]:
    return [i["digital_object"]["ref"] for i in record.get("instances") or () if i.get("digital_object")]
