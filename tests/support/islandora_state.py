"""What a simulated Islandora site holds, what people do there, and what a test looks at."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.islandora_rules import AUTHORITIES, TERMS, Json

USER, PASSWORD, UID = "dittohead", "S3CRET pä:ss", 7

#: What docs/islandora.md names, and what `publish` needs.
PERMISSIONS = frozenset(
    {
        "access content",
        "administer nodes",
        "administer taxonomy",
        "bypass node access",
        "create media",
        "delete own files",
        "manage media",
        "use islandora workbench",
        "view own unpublished content",
        "view own unpublished media",
    }
)


@dataclass
class Call:
    """One request that was made."""

    number: int
    method: str
    path: str
    query: dict[str, str]
    size: int = 0
    status: int = 0
    known: bool = False  #: whether it came with the right credentials
    header: bool = False  #: whether it came with any

    @property
    def writes(self) -> bool:
        return self.method != "GET"


@dataclass
class Fault:
    """What goes wrong: at requests of a method and a path, `times` times after `skip` right ones.

    kind: a status; "drop" (the connection breaks); "slow" (waits for `until`); "corrupt" (a bit of the file).
    """

    method: str
    path: str
    kind: int | str
    after: bool = False  #: whether the effect is had first
    times: int = 1
    skip: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    until: asyncio.Event = field(default_factory=asyncio.Event)

    def hits(self, call: Call) -> bool:
        if self.method != call.method or not re.search(self.path, call.path) or self.times <= 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class State:
    """Everything a site holds, and everything it was asked."""

    def __init__(self) -> None:
        self.base = ""
        self.called = ""  #: what it calls itself, where that is another URL
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.nodes: dict[int, Json] = {}
        self.media: dict[int, Json] = {}
        self.files: dict[int, Json] = {}
        self.terms: dict[int, Json] = {}
        self.aliases: dict[int, str] = {}
        self.lag = 0  #: calls of a View that do not see a new node yet
        self.pager = 0  #: items that the Views show which find nodes; 0: all
        self.listed = 10  #: items that the View of a node's media shows; 0: all
        self.turns = False  #: `page` turns their pages, as no stock REST export has it
        self.standalone = False  #: "standalone media URL"
        self.integration = True  #: islandora_workbench_integration is enabled
        self.hashes = True  #: its file_hash too
        self.actions = True  #: it is of version 1.2 or newer: field configuration can be asked for
        self.permissions = set(PERMISSIONS)  #: of the user
        self.failed_logins = 0
        self.schemes = {"fedora", "public", "private"}  #: stream wrappers that there are
        self.uri_schemes = dict.fromkeys(
            ("field_media_file", "field_media_image", "field_media_document"), "fedora"
        )
        self.private = False  #: the public may not read files
        self.checks_schemes = False  #: it is newer than Islandora 2.13.3
        self.exposed = True  #: the Views filter
        self.contains = False  #: by "Contains any word", which finds more than what was meant
        self.derives_after: int | None = None  #: polls of a node's media until thumbnails are there
        self.now = "2026-11-21T10:00:00+00:00"
        self.at_call: Callable[[Call, bool], Awaitable[None]] | None = None  #: (call, after its effect)
        self._ids = {"node": 40, "media": 10, "file": 20, "term": 0, "vid": 100}
        self._unseen: dict[int, int] = {}
        self._polls: dict[int, int] = {}
        for vocabulary, terms in TERMS.items():
            for name, uri in terms.items():
                self.add_term(vocabulary, name, uri)

    # -- what people do at the site ------------------------------------------------------------

    def add_term(self, vocabulary: str, name: str, uri: str) -> int:
        tid = self._next("term")
        authority = vocabulary in AUTHORITIES
        self.terms[tid] = {
            "vocabulary": vocabulary,
            "name": name,
            "uri": "" if authority else uri,
            "authority": uri if authority else "",
        }
        return tid

    def tid(self, uri: str) -> int:
        return next(tid for tid, term in self.terms.items() if term["uri"] == uri)

    def add_node(self, title: str, model: str = "Collection", uid: int = 1, **fields: Any) -> int:
        tid = next(tid for tid, term in self.terms.items() if term["name"] == model)
        nid = self._next("node")
        values = {name: [{"value": value}] for name, value in fields.items()}
        for name in ("field_member_of",):
            if name in fields:
                values[name] = [{"target_id": fields[name]}]
        self.nodes[nid] = {
            "uuid": str(uuid.uuid4()),
            "uid": uid,
            "vid": self._next("vid"),
            "created": 0,
            "changed": self.now,
            "title": [{"value": title}],
            "status": [{"value": True}],
            "field_model": [{"target_id": tid}],
            **values,
        }
        return nid

    def edit_node(self, nid: int, **fields: Any) -> None:
        self.nodes[nid] |= {name: [{"value": value}] for name, value in fields.items()}
        self.nodes[nid] |= {"vid": self._next("vid"), "changed": self.now, "uid_revision": 1}

    def edit_media(self, mid: int, name: str) -> None:
        self.media[mid] |= {
            "name": [{"value": name}],
            "vid": self._next("vid"),
            "revision_user": 1,
            "changed": self.now,
        }

    def add_media(self, nid: int, use: str, data: bytes, name: str, bundle: str, uid: int = 1) -> int:
        fid = self._file(f"fedora://by-hand/{nid}/{name}", data, 1, uid)
        return self._media(nid, self.tid(use), bundle, fid, uid)

    def settle(self) -> None:
        """Let every View see everything."""
        self.lag = 0
        self._unseen.clear()

    def corrupt(self, fid: int) -> None:
        data = bytearray(self.files[fid]["data"])
        data[len(data) // 2] ^= 1
        self.files[fid]["data"] = bytes(data)

    # -- what a test looks at --------------------------------------------------------------------

    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.writes]

    def content(self) -> Json:
        """Return all there is, without numbers that depend on the order of creation."""
        names = {nid: self._name(node) for nid, node in self.nodes.items()}

        def shown(node: Json) -> Json:
            dropped = ("vid", "created", "changed", "uid_revision", "field_member_of")
            rest = {key: value for key, value in node.items() if key not in dropped}
            above = [names[item["target_id"]] for item in node.get("field_member_of", ())]
            return {**rest, "field_member_of": above}

        media = []
        for one in self.media.values():
            file = self.files[one["fid"]]
            media.append(
                {
                    "of": names.get(one["nid"], "gone"),
                    "uses": sorted(self.terms[tid]["uri"] for tid in one["uses"]),
                    "bundle": one["bundle"],
                    "name": one["name"],
                    "status": one["status"],
                    "alt": one["alt"],
                    "text": one.get("field_edited_text"),
                    "sha256": hashlib.sha256(file["data"]).hexdigest(),
                    "place": re.sub(r"/\d+/", "/N/", file["uri"], count=1),
                }
            )
        files = sorted((re.sub(r"/\d+/", "/N/", f["uri"], count=1), f["status"]) for f in self.files.values())
        nodes = sorted((shown(node) for node in self.nodes.values()), key=lambda n: str(n["uuid"]))
        return {"nodes": nodes, "media": sorted(media, key=json.dumps), "files": files}

    def _name(self, node: Json) -> str:
        found = node.get("field_local_identifier") or node["title"]
        return str(found[0]["value"])

    def pages(self, parent: int) -> list[Json]:
        of = [n for n in self.nodes.values() if {"target_id": parent} in n.get("field_member_of", ())]
        return sorted(of, key=lambda node: node["field_weight"][0]["value"])

    def nid(self, identifier: str) -> int:
        return next(nid for nid, node in self.nodes.items() if self._name(node) == identifier)

    def _next(self, kind: str) -> int:
        self._ids[kind] += 1
        return self._ids[kind]

    def _file(self, uri: str, data: bytes, status: int, uid: int) -> int:
        fid = self._next("file")
        self.files[fid] = {"uuid": str(uuid.uuid4()), "uri": uri, "data": data, "status": status, "uid": uid}
        return fid

    def _media(self, nid: int, tid: int, bundle: str, fid: int, uid: int) -> int:
        mid = self._next("media")
        name = self.files[fid]["uri"].rpartition("/")[2]
        self.media[mid] = {
            "uuid": str(uuid.uuid4()),
            "nid": nid,
            "uses": [tid],
            "bundle": bundle,
            "fid": fid,
            "uid": uid,
            "revision_user": uid,
            "vid": self._next("vid"),
            "changed": self.now,
            "created": int(time.time()) if uid == UID else 0,
            "status": [{"value": True}],
            "name": [{"value": name}],
            "alt": name if bundle == "image" else None,
        }
        return mid
