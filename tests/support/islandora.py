"""An Islandora 2 site, as strict as the real one: `python -m tests.support.islandora [PORT]`.

What it refuses, and in which words, follows Drupal core 10 (rest: RequestHandler, EntityResource and its
tests; file: FileUploadResource, ContentDispositionFilenameParser; basic_auth), the starter site's REST
resources, fields and views, islandora's MediaSourceController and MediaSourceService, and the controllers and
views of islandora_workbench_integration. Where they leave something open it takes the stricter side. What is
marked "measured" was seen at a Drupal 10.4.1 with Islandora 2.13.3; docs/simulators.md has the table.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from tests.support.islandora_rules import (
    BUNDLES,
    MEDIA_FIELDS,
    NODE_FIELDS,
    VOCABULARIES,
    Json,
    Refused,
    Site,
    check_extension,
    check_security,
    decoded,
    found,
    listed,
    place_of,
    validated,
)
from tests.support.islandora_state import PASSWORD, UID, USER, Call, Fault, State

_FILENAME = re.compile(r'\bfilename="(?P<filename>.+)"')

#: Failed logins until a user is locked, for 6 hours. Source: Drupal core, user.flood, user_limit.
_FLOOD = 5

_WORKBENCH = "use islandora workbench"


class Islandora(State):
    """One site: what it answers to what it is asked."""

    # -- requests --------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        query = dict(parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True))
        call = Call(len(self.calls) + 1, request.method, unquote(request.rel_url.raw_path), query)
        self.calls.append(call)
        fault = next((fault for fault in self.faults if fault.hits(call)), None)
        if self.at_call is not None:
            await self.at_call(call, False)
        try:
            if fault is not None and not fault.after and fault.kind != "corrupt":
                await self._fail(fault, request)
            answer = await self._answer(request, call, fault)
        except Refused as refused:
            answer = self._said(call, refused)
        call.status = answer.status
        if self.at_call is not None:
            await self.at_call(call, True)
        if fault is not None and fault.after:
            broken = await self._fail(fault, request)
            return broken or answer
        return answer

    def _said(self, call: Call, refused: Refused) -> web.Response:
        """Answer an error: in HTML where JSON is not asked for, also on REST routes (measured)."""
        if call.query.get("_format") == "json":
            body = {"message": refused.message}
            return web.json_response(body, status=refused.status, headers=refused.headers)
        text = f"<html><title>{refused.status}</title>The website encountered an error.</html>"
        headers = refused.headers
        return web.Response(text=text, status=refused.status, headers=headers, content_type="text/html")

    async def _fail(self, fault: Fault, request: web.Request) -> web.Response | None:
        if fault.kind == "slow":
            await fault.until.wait()
            return None
        if fault.kind == "drop":
            assert request.transport is not None
            request.transport.abort()
            raise web.HTTPServiceUnavailable
        if fault.after:
            return web.Response(status=int(fault.kind), text="<html>proxy</html>", headers=fault.headers)
        raise Refused(int(fault.kind), "The website encountered an unexpected error.", fault.headers)

    async def _answer(self, request: web.Request, call: Call, fault: Fault | None) -> web.Response:
        call.known = self._authenticated(request, call)
        for method, pattern, action in self._routes():
            match = re.fullmatch(pattern, call.path)
            if match and (method == call.method or method == "*"):
                self._allowed(call, action)
                body = await request.read()
                call.size = len(body)
                made = action(request, call, body, *match.groups())
                if fault is not None and fault.kind == "corrupt":
                    self.corrupt(max(self.files))
                return made
        raise Refused(404, f'No route found for "{call.method} {call.path}"')

    def _authenticated(self, request: web.Request, call: Call) -> bool:
        """Tell whether the user is known; one with a wrong password is the public (measured).

        Source: Drupal core, BasicAuth::authenticate: it returns nobody, and asks flood first.
        """
        given = request.headers.get("Authorization", "")
        call.header = bool(given)
        if not given or self.failed_logins >= _FLOOD:
            return False
        if given != "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode():
            self.failed_logins += 1
            return False
        self.failed_logins = 0
        return True

    def _allowed(self, call: Call, action: Callable[..., web.Response]) -> None:
        """Refuse Basic credentials on a route that does not list basic_auth (measured).

        Source: Drupal core, AuthenticationSubscriber::onKernelRequestFilterProvider.
        """
        people = action in (self._page, self._manifest, self._download)
        if call.header and people and call.query.get("_format") != "json":
            raise Refused(403, "The used authentication method is not allowed on this route.")

    def _routes(self) -> list[tuple[str, str, Callable[..., web.Response]]]:
        media = r"/media/(\d+)" if self.standalone else r"/media/(\d+)/edit"
        return [
            ("GET", r"/term_from_uri", self._term_from_uri),
            ("GET", r"/term_from_term_name", self._term_from_name),
            ("GET", r"/term_from_authority_link", self._term_from_link),
            ("GET", r"/taxonomy/term/(\d+)", self._get_term),
            ("GET", r"/islandora/identifier", self._find("field_local_identifier")),
            ("GET", r"/islandora/members", self._find("field_member_of")),
            ("GET", r"/islandora/title", self._find("title")),
            ("POST", r"/node", self._post_node),
            ("GET", r"/node/(\d+)", self._get_node),
            ("PATCH", r"/node/(\d+)", self._patch_node),
            ("DELETE", r"/node/(\d+)", self._delete_node),
            ("GET", r"/node/(\d+)/media", self._media_of),
            ("PUT", r"/node/(\d+)/media/(\w+)/(\d+)", self._put_media),
            ("GET", r"/node/(\d+)/(book-manifest|manifest)", self._manifest),
            ("POST", r"/file/upload/media/(\w+)/(\w+)", self._upload),
            ("POST", r"/entity/media", self._post_media),
            ("GET", media, self._get_media),
            ("PATCH", media, self._patch_media),
            ("DELETE", media, self._delete_media),
            ("GET", r"/media/(\d+)/edit", self._form),
            ("DELETE", r"/entity/file/(\d+)", self._delete_file),
            ("GET", r"/entity/field_config/node\.islandora_object\.(\w+)", self._field_config),
            ("GET", r"/entity/field_storage_config/node\.(\w+)", self._field_storage),
            ("GET", r"/islandora_workbench_integration/file_hash", self._file_hash),
            (
                "GET",
                r"/islandora_workbench_integration/node_actions/(field_config|field_storage_config)/(.+)",
                self._node_actions,
            ),
            ("GET", r"/_flysystem/(.+)", self._download),
            ("GET", r"(/.*)", self._page),
        ]

    def _rest(self, call: Call, request: web.Request, permission: str = "") -> None:
        """Refuse what any REST route refuses; `permission`: what the public has not."""
        if call.query.get("_format") != "json":
            said = "No route found for the specified format html. Supported formats: json, jsonld."
            raise Refused(406, said)
        if permission or call.writes:
            self._user(call, permission)
        kind = request.headers.get("Content-Type", "").partition(";")[0]
        if call.method in ("POST", "PATCH") and kind != "application/json":
            raise Refused(415, f'No route found that matches "Content-Type: {kind}"')

    def _user(self, call: Call, permission: str = "") -> None:
        """Refuse who is not known, or may not: in the same words, when a header was sent (measured)."""
        if call.known and (not permission or permission in self.permissions):
            return
        if not call.header:  # AuthenticationSubscriber::onExceptionSendChallenge
            said = "No authentication credentials provided."
            raise Refused(401, said, {"WWW-Authenticate": 'Basic realm="x"'})
        raise Refused(403, f"The '{permission or 'access content'}' permission is required.")

    # -- terms and views -------------------------------------------------------------------------

    # The stock Views ask for "administer taxonomy": config/sync of the starter site (measured).

    def _term_from_uri(self, request: web.Request, call: Call, body: bytes) -> web.Response:
        return self._terms_where(request, call, lambda term: term["uri"] == call.query.get("uri"))

    def _term_from_link(self, request: web.Request, call: Call, body: bytes) -> web.Response:
        """Find by `field_authority_link`, which people, bodies, places and subjects have (measured)."""
        given = call.query.get("authority_link")
        return self._terms_where(request, call, lambda term: term["authority"] == given)

    def _term_from_name(self, request: web.Request, call: Call, body: bytes) -> web.Response:
        """Find by name, without case, as the collations of SQLite and MySQL compare (measured)."""
        vocabulary, name = call.query.get("vocab"), call.query.get("name", "").casefold()
        return self._terms_where(
            request,
            call,
            lambda term: term["vocabulary"] == vocabulary and term["name"].casefold() == name,
        )

    def _terms_where(self, request: web.Request, call: Call, wanted: Callable[[Json], bool]) -> web.Response:
        self._integrated()
        self._rest(call, request, "administer taxonomy")
        found = [self._term_json(tid) for tid, term in self.terms.items() if wanted(term)]
        return web.json_response(found)

    def _get_term(self, request: web.Request, call: Call, body: bytes, tid: str) -> web.Response:
        self._rest(call, request)
        if int(tid) not in self.terms:
            raise Refused(404, "The term was not found.")
        return web.json_response(self._term_json(int(tid)))

    def _term_json(self, tid: int) -> Json:
        term = self.terms[tid]
        return {
            "tid": [{"value": tid}],
            "vid": [{"target_id": term["vocabulary"], "target_type": "taxonomy_vocabulary"}],
            "name": [{"value": term["name"]}],
            "field_external_uri": [{"uri": term["uri"]}] if term["uri"] else [],
            "field_authority_link": [{"uri": term["authority"], "source": "lcnaf"}]
            if term["authority"]
            else [],
        }

    def _integrated(self) -> None:
        if not self.integration:
            raise Refused(404, "No route found")

    def _find(self, by: str) -> Callable[..., web.Response]:
        def view(request: web.Request, call: Call, body: bytes) -> web.Response:
            self._rest(call, request)
            nids = []
            for nid, node in self.nodes.items():
                if self._unseen.get(nid, 0) > 0:  # the View's cache, or its index
                    self._unseen[nid] -= 1
                    continue
                values = [str(i.get("value", i.get("target_id"))) for i in node.get(by, ())]
                wanted = call.query.get(by, "")
                words = wanted.split() if self.contains else [wanted]
                if not self.exposed or any(found(w, value, self.contains) for w in words for value in values):
                    nids.append(nid)
            rows = [{"nid": str(nid)} for nid in nids]
            return web.json_response(listed(rows, call.query, self.pager, turns=self.turns))

        return view

    # -- nodes -----------------------------------------------------------------------------------

    def _post_node(self, request: web.Request, call: Call, body: bytes) -> web.Response:
        self._rest(call, request)
        fields = decoded(body, "type", {"islandora_object"})
        given = fields.pop("uuid", None)
        self._administers(fields, "creating")
        values = validated(fields, NODE_FIELDS, "node", self._there(), new=True)
        chosen = given[0]["value"] if given else str(uuid.uuid4())
        if any(node["uuid"] == chosen for node in self.nodes.values()):
            # The database's unique key: EntityResourceTestBase, "500 when creating an entity with a
            # duplicate UUID".
            raise Refused(500, "Internal Server Error")
        nid = self._next("node")
        stamps = {
            "created": int(time.time()),
            "uuid": chosen,
            "uid": UID,
            "vid": self._next("vid"),
            "changed": self.now,
        }
        self.nodes[nid] = {"status": [{"value": True}], **values, **stamps}
        self._unseen[nid] = self.lag
        headers = {"Location": f"{self.base}/node/{nid}?_format=json"}
        return web.json_response(self._node_json(nid), status=201, headers=headers)

    def _get_node(self, request: web.Request, call: Call, body: bytes, nid: str) -> web.Response:
        if "_format" not in call.query:
            self._allowed(call, self._page)
            return self._page(request, call, body, call.path)
        self._rest(call, request)
        number = self._node(nid)
        if not self.nodes[number]["status"][0]["value"]:
            # Source: Drupal core, NodeAccessControlHandler::checkAccess.
            own = self.nodes[number]["uid"] == UID
            self._user(call, "view own unpublished content" if own else "bypass node access")
        return web.json_response(self._node_json(number))

    def _patch_node(self, request: web.Request, call: Call, body: bytes, nid: str) -> web.Response:
        self._rest(call, request)
        number = self._node(nid)
        fields = decoded(body, "type", {"islandora_object"})
        if "uuid" in fields:
            raise Refused(403, "Access denied on updating field 'uuid'.")
        self._administers(fields, "updating")
        self.nodes[number] |= validated(fields, NODE_FIELDS, "node", self._there(), new=False)
        self.nodes[number] |= {"vid": self._next("vid"), "changed": self.now}
        return web.json_response(self._node_json(number))

    def _delete_node(self, request: web.Request, call: Call, body: bytes, nid: str) -> web.Response:
        self._rest(call, request)
        del self.nodes[self._node(nid)]
        return web.Response(status=204)

    def _administers(self, fields: Json, what: str) -> None:
        if (
            "status" in fields and "administer nodes" not in self.permissions
        ):  # NodeAccessControlHandler::checkFieldAccess
            raise Refused(403, f"Access denied on {what} field 'status'.")

    def _node(self, nid: str) -> int:
        if int(nid) not in self.nodes:
            raise Refused(404, f"The node {nid} was not found.")
        return int(nid)

    def _node_json(self, nid: int) -> Json:
        node = self.nodes[nid]
        shown = {key: value for key, value in node.items() if key.startswith("field_") or key == "title"}
        for name, items in list(shown.items()):
            if name in NODE_FIELDS and NODE_FIELDS[name][0] in ("node", "taxonomy_term", "typed_relation"):
                shown[name] = [{**i, "target_type": "x", "target_uuid": "x", "url": "/x"} for i in items]
        for name in [name for name in shown if NODE_FIELDS.get(name, ("", 1))[0] == "text_long"]:
            shown[name] = [{**item, "processed": f"<p>{item['value']}</p>"} for item in shown[name]]
        empty = {name: [] for name in NODE_FIELDS if name not in node}
        return {
            **empty,
            **shown,
            "nid": [{"value": nid}],
            "uuid": [{"value": node["uuid"]}],
            "vid": [{"value": node["vid"]}],
            "uid": [{"target_id": node["uid"], "target_type": "user"}],
            "type": [{"target_id": "islandora_object", "target_type": "node_type"}],
            "status": node["status"],
            "created": [{"value": datetime.fromtimestamp(node["created"], UTC).isoformat()}],
            "changed": [{"value": node["changed"], "format": "Y-m-d\\TH:i:sP"}],
            "path": [{"alias": self.aliases.get(nid), "pid": None, "langcode": "en"}],
        }

    # -- fields ----------------------------------------------------------------------------------

    def _there(self) -> Site:
        bypass = "bypass node access" in self.permissions
        return Site(nodes=self.nodes, terms=self.terms, bypasses=bypass)

    def _field_config(self, request: web.Request, call: Call, body: bytes, name: str) -> web.Response:
        self._rest(call, request, "administer node fields")
        if name not in NODE_FIELDS:
            raise Refused(404, "No such field")
        return web.json_response(self._config_json(name))

    def _config_json(self, name: str) -> Json:
        vocabularies = {one: one for one in VOCABULARIES.get(name, ())}
        settings = {"handler_settings": {"target_bundles": vocabularies}} if vocabularies else {}
        return {"field_name": name, "required": name == "field_model", "settings": settings}

    def _field_storage(self, request: web.Request, call: Call, body: bytes, name: str) -> web.Response:
        self._rest(call, request, "administer node fields")
        return web.json_response(self._storage_json(name))

    def _storage_json(self, name: str) -> Json:
        kind, most = NODE_FIELDS[name]
        settings = {"max_length": 255} if kind == "string" else {}
        return {"type": kind, "cardinality": most, "settings": settings}

    def _node_actions(
        self, request: web.Request, call: Call, body: bytes, kind: str, rest: str
    ) -> web.Response:
        """Answer as islandora_workbench_integration 1.2 and newer: to "use islandora workbench" (measured)."""
        self._integrated()
        if not self.actions:
            raise Refused(404, "No route found")
        self._user(call, _WORKBENCH)
        entity, *_, name = rest.split("/")
        if entity == "media" and name in self.uri_schemes:
            scheme = self.uri_schemes[name]
            return web.json_response({"type": "file", "settings": {"uri_scheme": scheme}})
        if entity != "node" or name not in NODE_FIELDS:
            what = "Field" if kind == "field_config" else "Field storage"
            return web.json_response({"error": f"{what} configuration not found."}, status=404)
        found = self._config_json(name) if kind == "field_config" else self._storage_json(name)
        return web.json_response(found)

    # -- media -----------------------------------------------------------------------------------

    def _media_of(self, request: web.Request, call: Call, body: bytes, nid: str) -> web.Response:
        self._rest(call, request, "manage media")
        self._derive(self._node(nid))
        rows = [self._media_json(mid) for mid, one in self.media.items() if one["nid"] == int(nid)]
        return web.json_response(listed(rows, call.query, self.listed, turns=self.turns))

    def _derive(self, nid: int) -> None:
        """Make thumbnails of originals, some polls after they came."""
        thumbnail = self.tid("http://pcdm.org/use#ThumbnailImage")
        mine = [one for one in self.media.values() if one["nid"] == nid]
        if self.derives_after is None or any(thumbnail in one["uses"] for one in mine) or not mine:
            return
        self._polls[nid] = self._polls.get(nid, 0) + 1
        if self._polls[nid] > self.derives_after:
            fid = self._file(f"public://thumbnails/{nid}.jpg", b"thumbnail", 1, UID)
            self._media(nid, thumbnail, "image", fid, UID)

    def _put_media(
        self, request: web.Request, call: Call, body: bytes, nid: str, bundle: str, tid: str
    ) -> web.Response:
        self._user(call, "create media")
        number = self._node(nid)
        if bundle not in BUNDLES or int(tid) not in self.terms:
            raise Refused(404, "The media type or term was not found.")
        if not request.headers.get("Content-Type"):
            raise Refused(400, "Missing Content-Type header")
        place = place_of(request.headers.get("Content-Location", "").strip())
        scheme = place.partition("://")[0]
        if scheme not in self.schemes and self.checks_schemes:  # newer than 2.13.3 (read)
            raise Refused(400, "Content-Location must be a valid stream wrapper URI")
        for one in self.media.values():
            if one["nid"] == number and int(tid) in one["uses"] and one["bundle"] == bundle:
                self._written(one["fid"], body)
                one |= {"vid": self._next("vid"), "changed": self.now, "revision_user": UID}
                return web.Response(status=204)
        check_extension(place, bundle)
        other = next((fid for fid, file in self.files.items() if file["uri"] == place), None)
        fid = self._file(place, b"", 1, UID)
        self._written(fid, body)
        if other is not None:  # two file entities of one URI: the bytes of the other are overwritten
            self.files[other]["data"] = body
        mid = self._media(number, int(tid), bundle, fid, UID)
        return web.Response(status=201, headers={"Location": (self.called or self.base) + self._path(mid)})

    def _written(self, fid: int, body: bytes) -> None:
        if not body:
            raise Refused(400, f"No bytes were copied to {self.files[fid]['uri']}")
        self.files[fid]["data"] = body

    def _path(self, mid: int) -> str:
        return f"/media/{mid}" if self.standalone else f"/media/{mid}/edit"

    def _one(self, mid: str) -> int:
        if int(mid) not in self.media:
            raise Refused(404, f"The media {mid} was not found.")
        return int(mid)

    def _get_media(self, request: web.Request, call: Call, body: bytes, mid: str) -> web.Response:
        self._rest(call, request)
        one = self.media[self._one(mid)]
        if not one["status"][0]["value"]:
            self._user(call, "view own unpublished media")
        return web.json_response(self._media_json(int(mid)))

    def _form(self, request: web.Request, call: Call, body: bytes, mid: str) -> web.Response:
        raise Refused(406, "No route found for the specified format json. Supported formats: html.")

    def _patch_media(self, request: web.Request, call: Call, body: bytes, mid: str) -> web.Response:
        self._rest(call, request)
        one = self.media[self._one(mid)]
        fields = decoded(body, "bundle", {one["bundle"]})
        self._file_field(fields, one["bundle"], one)
        values = validated(fields, MEDIA_FIELDS, "media", self._there(), new=False)
        one |= values | {"vid": self._next("vid"), "changed": self.now, "revision_user": UID}
        return web.json_response(self._media_json(int(mid)))

    def _file_field(self, fields: Json, bundle: str, one: Json) -> None:
        name = BUNDLES[bundle][0]
        if name not in fields:
            return
        (item,) = fields.pop(name)
        if int(item.get("target_id", 0)) not in self.files:
            raise Refused(
                422, f"Unprocessable Entity: validation failed.\n{name}.0.target_id: does not exist"
            )
        check_security(self.files[int(item["target_id"])]["uri"], name)
        if bundle == "image" and not item.get("alt"):
            said = f"{name}.0.alt: Alternative text: field is required."
            raise Refused(422, f"Unprocessable Entity: validation failed.\n{said}\n")
        one |= {"fid": int(item["target_id"]), "alt": item.get("alt")}

    def _delete_media(self, request: web.Request, call: Call, body: bytes, mid: str) -> web.Response:
        self._rest(call, request)
        del self.media[self._one(mid)]
        return web.Response(status=204)

    def _media_json(self, mid: int) -> Json:
        one = self.media[mid]
        file = self.files[one["fid"]]
        if file["uri"].partition("://")[0] not in self.schemes:  # InvalidStreamWrapperException (measured)
            raise Refused(500, "The website encountered an unexpected error.")
        shown = {
            "target_id": one["fid"],
            "target_type": "file",
            "target_uuid": file["uuid"],
            "url": f"{self.called or self.base}/_flysystem/{file['uri'].replace('://', '/')}",
            **({"alt": one["alt"], "title": ""} if one["bundle"] == "image" else {}),
        }
        text = one.get("field_edited_text", []) if one["bundle"] == "extracted_text" else None
        return {
            "mid": [{"value": mid}],
            "uuid": [{"value": one["uuid"]}],
            "vid": [{"value": one["vid"]}],
            "bundle": [{"target_id": one["bundle"], "target_type": "media_type"}],
            "name": one["name"],
            "status": one["status"],
            "uid": [{"target_id": one["uid"], "target_type": "user"}],
            "revision_user": [{"target_id": one["revision_user"], "target_type": "user"}],
            "changed": [{"value": one["changed"], "format": "Y-m-d\\TH:i:sP"}],
            "created": [{"value": datetime.fromtimestamp(one["created"], UTC).isoformat()}],
            **({} if text is None else {"field_edited_text": text}),
            "field_media_of": [{"target_id": one["nid"], "target_type": "node"}],
            "field_media_use": [{"target_id": tid, "target_type": "taxonomy_term"} for tid in one["uses"]],
            BUNDLES[one["bundle"]][0]: [shown],
        }

    # -- files -----------------------------------------------------------------------------------

    def _upload(self, request: web.Request, call: Call, body: bytes, bundle: str, name: str) -> web.Response:
        if "Cookie" in request.headers:
            raise Refused(403, "The used authentication method is not allowed on this route.")
        if call.query.get("_format") != "json":
            raise Refused(406, "No route found for the specified format html. Supported formats: json.")
        self._user(call)
        kind = request.headers.get("Content-Type", "")
        if kind != "application/octet-stream":
            raise Refused(415, f'No route found that matches "Content-Type: {kind}"')
        if bundle not in BUNDLES or BUNDLES[bundle][0] != name:
            raise Refused(404, f"Field {name} does not exist")
        found = _FILENAME.search(request.headers.get("Content-Disposition", ""))
        if found is None:
            said = 'No filename found in "Content-Disposition" header. A file name in the format '
            raise Refused(400, said + '"filename=FILENAME" must be provided.')
        check_extension(found["filename"], bundle)
        fid = self._file(f"fedora://2026-11/{found['filename'].rpartition('/')[2]}", body, 0, UID)
        shown = {"fid": [{"value": fid}], "uuid": [{"value": self.files[fid]["uuid"]}]}
        return web.json_response(shown, status=201)

    def _post_media(self, request: web.Request, call: Call, body: bytes) -> web.Response:
        self._user(call)
        fields = decoded(body, "bundle", set(BUNDLES))
        bundle = json.loads(body)["bundle"][0]["target_id"]
        if BUNDLES[bundle][0] not in fields:
            raise Refused(422, f"Unprocessable Entity: validation failed.\n{BUNDLES[bundle][0]}: null\n")
        one: Json = {}
        self._file_field(fields, bundle, one)
        values = validated(fields, MEDIA_FIELDS, "media", self._there(), new=True)
        (of,), uses = values["field_media_of"], values["field_media_use"]
        mid = self._media(of["target_id"], uses[0]["target_id"], bundle, one["fid"], UID)
        self.media[mid] |= {"name": values["name"], "alt": one["alt"]}
        self.files[one["fid"]]["status"] = 1
        return web.json_response(self._media_json(mid), status=201)

    def _delete_file(self, request: web.Request, call: Call, body: bytes, fid: str) -> web.Response:
        self._rest(call, request)
        if int(fid) not in self.files:
            raise Refused(404, f"The file {fid} was not found.")
        self._user(call, "delete own files")
        del self.files[int(fid)]
        return web.Response(status=204)

    def _file_hash(self, request: web.Request, call: Call, body: bytes) -> web.Response:
        self._integrated()
        if not self.hashes:
            raise Refused(404, "No route found")
        if not call.known or _WORKBENCH not in self.permissions:
            raise Refused(403, f"The '{_WORKBENCH}' permission is required.")
        wanted, algorithm = call.query.get("file_uuid"), call.query.get("algorithm", "")
        if algorithm not in ("md5", "sha1", "sha256"):
            return web.json_response({"error": '"algorithm" parameter must be one of "md5", ...'})
        for fid, file in self.files.items():
            if file["uuid"] == wanted:
                self._visible(fid, call)
                digest = hashlib.new(algorithm, file["data"]).hexdigest()
                row = {"checksum": digest, "file_uuid": wanted, "algorithm": algorithm}
                return web.json_response([row])
        return web.json_response({"error": f"No file found with UUID {wanted}."})

    def _download(self, request: web.Request, call: Call, body: bytes, place: str) -> web.Response:
        uri = place.replace("/", "://", 1)
        found = next((fid for fid, file in self.files.items() if file["uri"] == uri), None)
        if found is None:
            raise Refused(404, "Not found")
        self._visible(found, call)
        return web.Response(body=self.files[found]["data"], content_type="application/octet-stream")

    def _visible(self, fid: int, call: Call) -> None:
        """Refuse a file whose media is unpublished to who may not view that (measured)."""
        if self.private and not call.known:
            raise Refused(403, "Access denied.")
        hidden = [one for one in self.media.values() if one["fid"] == fid and not one["status"][0]["value"]]
        if hidden and not (call.known and "view own unpublished media" in self.permissions):
            raise Refused(403, "Access denied.")

    # -- pages for people ------------------------------------------------------------------------

    def _manifest(self, request: web.Request, call: Call, body: bytes, nid: str, name: str) -> web.Response:
        """Answer 200 for any node, with no canvas where there is nothing to show (measured)."""
        number = self._node(nid)
        hidden = not self.nodes[number]["status"][0]["value"]
        if hidden and name == "book-manifest":  # its contextual filter is validated (measured)
            raise Refused(404, "Not found")
        of = (
            {number} if name == "manifest" else {one for one, page in self.nodes.items() if _in(page, number)}
        )
        shown = [mid for mid, one in self.media.items() if one["nid"] in of and not hidden]
        canvases = [{"@id": f"{self.base}/canvas/{mid}", "@type": "sc:Canvas"} for mid in shown]
        manifest = {"@type": "sc:Manifest", "@id": f"{self.base}{call.path}"}
        return web.json_response({**manifest, "sequences": [{"canvases": canvases}]})

    def _page(self, request: web.Request, call: Call, body: bytes, path: str) -> web.Response:
        for nid, alias in self.aliases.items():
            if alias == path and nid in self.nodes:
                if call.query.get("_format") == "json":  # an alias is a path of the REST route too
                    return self._get_node(request, call, body, str(nid))
                self._public(nid, call)
                return web.Response(text="<html>", content_type="text/html")
        if path == "/":
            return web.Response(text="<html>", content_type="text/html")
        match = re.fullmatch(r"/node/(\d+)", path)
        if match is None or int(match[1]) not in self.nodes:
            raise Refused(404, f'No route found for "GET {path}"')
        self._public(int(match[1]), call)
        return web.Response(text="<html>", content_type="text/html")

    def _public(self, nid: int, call: Call) -> None:
        if not self.nodes[nid]["status"][0]["value"] and not call.known:
            raise Refused(403, "You are not authorized to access this page.")


def _in(node: Json, parent: int) -> bool:
    return {"target_id": parent} in node.get("field_member_of", ()) and node["status"][0]["value"]


@contextlib.asynccontextmanager
async def served(site: Islandora, port: int = 0) -> AsyncIterator[Islandora]:
    """Run a site on the loopback until the block ends."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{tail:.*}", site.handle)
    runner = web.AppRunner(app, handler_cancellation=False, shutdown_timeout=0.1)
    await runner.setup()
    place = web.TCPSite(runner, "127.0.0.1", port)
    await place.start()
    site.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield site
    finally:
        await runner.cleanup()


async def _main(port: int) -> None:
    async with served(Islandora(), port) as site:
        nid = site.add_node("Hale papers", field_local_identifier="GEH")
        print(f"{site.base}  user {USER}  password {PASSWORD}  collection node/{nid}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
