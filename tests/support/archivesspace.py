"""A strict ArchivesSpace over HTTP, with faults on demand: `python -m tests.support.archivesspace [PORT]`.

It is made after ArchivesSpace's controllers and models (version 4) and is no more lenient: what it
leaves out answers 404, a parameter it does not know 400 (ArchivesSpace drops those; here a mistake is to
be seen). State lies in the server, so that clients can be killed around it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from tests.support.archivesspace_records import (
    Holdings,
    Record,
    Refused,
    beyond,
    db_error,
    folded,
    kind_of,
    model_of,
    number_of,
)
from tests.support.archivesspace_schema import Invalid

ALL = frozenset(
    [
        "view_repository",
        "update_digital_object_record",
        "update_resource_record",
        "update_event_record",
        # update_agent_record is implied by this one and can be given to no group (seen in v4.2.1).
        "manage_agent_record",
        "view_suppressed",
        "delete_archival_record",
        "delete_event_record",
    ]
)
#: One of these and the preference show what is suppressed. Source: endpoint in rest.rb, enforce_suppression.
SIGHT = {"manage_repository", "view_suppressed", "suppress_archival_record"}
WAYPOINT = 200
_STALE = "The record you tried to update has been modified since you fetched it."
_PLAIN = ["digital_objects", "digital_object_components", "archival_objects", "events", "resources"]


@dataclass
class Call:
    """One request as it came."""

    number: int
    method: str
    path: str  #: decoded
    query: list[tuple[str, str]]
    body: Any
    user: str
    status: int = 0
    wrote: bool = False


@dataclass
class Fault:
    """What goes wrong with requests that fit."""

    match: str  #: regular expression for "METHOD /path"
    kind: str  #: "500", "502", "503", "429", "drop", "412", "403"; "slow": answered when `ArchivesSpace.hurry` is set
    after: bool = False  #: when the write has taken effect
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""  #: in place of ArchivesSpace's own words, as a proxy answers


class NoRoute(Exception):
    """Answered as HTML. Source: exceptions.rb, handle_exception!, not_found?."""


class Dropped(Exception):
    """The connection is closed without an answer."""


class ArchivesSpace(Holdings):
    """The server and all it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.users = {"dittohead": "not-to-be-seen", "colleague": "other"}
        self.permissions: dict[str, set[str]] = {"dittohead": set(ALL), "colleague": set(ALL)}
        #: Preferences by user, of repository 2. A new user has none, and sees nothing suppressed.
        self.preferences: dict[str, Record] = {
            user: {"lock_version": 0, "defaults": {"show_suppressed": True}} for user in self.users
        }
        self.page_most = 250  #: AppConfig[:max_page_size]
        self.sessions: dict[str, str] = {}
        self.expired: set[str] = set()
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self.before: list[
            tuple[str, Callable[[Call], Awaitable[None]]]
        ] = []  #: done once, before such a request
        self.expire_at: set[int] = set()  #: numbers of calls at which all sessions are found expired
        self.kill: tuple[int, bool] | None = None  #: (call, after its effect)
        self.victim = 0  #: process to be killed
        self.logins = 0
        self.slow, self.hurry = asyncio.Event(), asyncio.Event()
        self._tokens = 0
        self.url = ""
        self.public: dict[str, bytes] = {}  #: what lies at /public/...

    def sees(self, user: str) -> bool:
        if super().sees(user):
            return True
        prefers = self.preferences.get(user, {}).get("defaults", {}).get("show_suppressed")
        return bool(prefers and self.permissions.get(user, set()) & SIGHT)

    # -- the server --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[ArchivesSpace]:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = unquote(request.raw_path.partition("?")[0])
        if path.startswith("/public/"):
            if "X-ArchivesSpace-Session" in request.headers:  # it is not for the public's server
                return web.Response(status=400)
            found = self.public.get(path)
            if found is not None and found.startswith(b"-> "):
                return web.Response(status=302, headers={"Location": found[3:].decode()})
            return web.Response(status=404 if found is None else 200, body=found or b"")
        body: Any = None
        if request.content_type == "application/json" and request.can_read_body:
            try:
                body = await request.json()
            except ValueError:
                return web.json_response({"error": "Had some trouble parsing your request"}, status=400)
        elif request.method == "POST":
            body = dict(await request.post())
        query = parse_qsl(request.raw_path.partition("?")[2], keep_blank_values=True)
        token = request.headers.get("X-ArchivesSpace-Session", "")
        call = Call(len(self.calls) + 1, request.method, path, query, body, self.sessions.get(token, ""))
        self.calls.append(call)
        try:
            answer = await self._answered(call, token)
        except Dropped:
            assert request.transport is not None
            request.transport.close()
            return web.Response(status=500)
        call.status = answer.status
        return answer

    async def _answered(self, call: Call, token: str) -> web.Response:
        doomed = self.kill is not None and call.number == self.kill[0]
        if doomed and self.kill is not None and not self.kill[1]:
            self._kill()
            raise Dropped
        await self._others(call)
        if call.number in self.expire_at:
            self.expired |= set(self.sessions)
        fault = self._fault(call)
        if fault is not None and fault.kind == "slow":
            self.slow.set()
            if not fault.after:
                await self.hurry.wait()
        elif fault is not None and not fault.after:
            return self._broken(fault)
        try:
            told = self._do(call, token)
            answer = web.Response(text=told) if isinstance(told, str) else web.json_response(told)
        except NoRoute:
            answer = web.Response(status=404, text="<h1>Not Found</h1>", content_type="text/html")
        except Refused as error:
            code = (
                {}
                if error.status != 412
                else {"code": "SESSION_EXPIRED" if token in self.sessions else "SESSION_GONE"}
            )
            answer = web.json_response({**code, "error": error.error}, status=error.status)
        except Invalid as error:
            told = {"error": error.errors}
            if error.invalid is not None:
                told |= {"warning": {}, "invalid_object": str(error.invalid)}
            answer = web.json_response(told, status=400)
        call.wrote = (
            answer.status == 200
            and call.method in ("POST", "DELETE")
            and not call.path.endswith(("/login", "/logout"))
        )
        if doomed:
            self._kill()
            raise Dropped
        if fault is not None and fault.kind == "slow":
            await self.hurry.wait()
            return answer
        return answer if fault is None else self._broken(fault)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.victim, signal.SIGKILL)

    def _fault(self, call: Call) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.fullmatch(fault.match, f"{call.method} {call.path}"):
                fault.times -= 1
                return fault
        return None

    def _broken(self, fault: Fault) -> web.Response:
        if fault.kind == "drop":
            raise Dropped
        if fault.body:
            return web.Response(status=int(fault.kind), headers=fault.headers, body=fault.body)
        words = {
            "412": {"code": "SESSION_GONE", "error": "No session found"},
            "403": {"error": "Access denied"},
        }
        told = words.get(
            fault.kind, {"error": "Something failed: /opt/app/backend.rb:1:in `x'\n\t/opt/app/y.rb:2"}
        )
        return web.json_response(told, status=int(fault.kind), headers=fault.headers)

    async def _others(self, call: Call) -> None:
        for index, (match, act) in enumerate(self.before):
            if call.user != "colleague" and re.fullmatch(match, f"{call.method} {call.path}"):
                del self.before[index]
                await act(call)
                return

    # -- who, and where ----------------------------------------------------------------------

    def _do(self, call: Call, token: str) -> Any:
        login = re.fullmatch(r"POST /users/([^/]+)/login", f"{call.method} {call.path}")
        if login:
            return self._login(login[1], call.body or {})
        if token and (token in self.expired or token not in self.sessions):
            raise Refused(
                412, "Session timed out" if token in self.sessions else "No session found for " + token
            )
        if call.path == "/version" and call.method == "GET":
            return f"ArchivesSpace ({self.version})"
        if call.path == "/logout" and call.method == "POST":
            self.sessions.pop(token, None)
            return {"status": "session_logged_out"}
        for method, pattern, permission, parameters, name in _ROUTES:
            match = re.fullmatch(pattern, call.path)
            if match and method == call.method:
                self._allowed(call, match, permission)
                for key, _ in call.query:
                    if key not in parameters.split():
                        raise Invalid({key: ["Unknown parameter"]})
                return getattr(self, name)(call, **match.groupdict())
        raise NoRoute

    def _login(self, user: str, form: Record) -> Record:
        if set(form) - {"password", "expiring"}:
            raise Invalid({"form": ["Unknown parameter"]})
        if self.users.get(user) is None or self.users[user] != form.get("password"):
            raise Refused(403, "Login failed")
        self._tokens += 1
        self.logins += 1
        token = f"{self._tokens:064x}"
        self.sessions[token] = user
        granted = sorted(self.permissions[user] - {"update_agent_record"})
        return {
            "session": token,
            "user": {
                "username": user,
                "uri": f"/users/{self._number(user)}",
                "permissions": {"/repositories/2": granted, "_archivesspace": []},
            },
        }

    def _number(self, user: str) -> int:
        return 5 + list(self.users).index(user)

    def _current(self, call: Call, repo: str) -> Record:
        """The defaults that hold, and of what they are made. Source: preference.rb, current_preferences."""
        own = self.preferences.get(call.user)
        told: Record = {"defaults": {"publish": False, **(own or {}).get("defaults", {})}}
        if own is not None:
            uri = f"/repositories/{repo}/preferences/{self._number(call.user)}"
            told["user_repo"] = {"jsonmodel_type": "preference", "uri": uri, **own}
        return told

    def _prefer(self, call: Call, repo: str, id: str = "") -> Record:
        """A user may set its own. Source: controllers/preference.rb; seen in v4.2.1 (creation)."""
        given = call.body if isinstance(call.body, dict) else {}
        if given.get("user_id", self._number(call.user)) != self._number(call.user):
            raise Refused(403, "Access denied")
        old = self.preferences.get(call.user)
        if not id and old is not None:
            raise Invalid({"user_id": ["Preference already exists"]})
        if id and given.get("lock_version") != (old or {}).get("lock_version"):
            raise Refused(409, _STALE)
        version = (old or {"lock_version": -1})["lock_version"] + 1
        self.preferences[call.user] = {"lock_version": version, "defaults": given.get("defaults", {})}
        return {
            "status": "Updated" if id else "Created",
            "id": self._number(call.user),
            "lock_version": version,
        }

    def _allowed(self, call: Call, match: re.Match[str], permission: str) -> None:
        repo = match.groupdict().get("repo")
        if repo is not None and int(repo) not in self.repositories:
            raise Invalid({"repo_id": ["The Repository must exist"]})
        if permission and (not call.user or permission not in self.permissions[call.user]):
            raise Refused(403, "Access denied")

    # -- reading -----------------------------------------------------------------------------

    def _repo(self, call: Call) -> Record:
        return self._repository(call.path)

    def _get(self, call: Call, **_: str) -> Record:
        return self.shown(call.path, _all(call, "resolve[]"), call.user)

    def _list(self, call: Call, kind: str, repo: str = "") -> Any:
        base = f"/repositories/{repo}/{kind}/" if repo else f"/agents/{kind}/"
        hidden = set() if self.sees(call.user) else {uri for uri in self.records if self.suppressed(uri)}
        uris = sorted(
            (uri for uri in self.records if uri.startswith(base) and uri not in hidden), key=number_of
        )
        query = dict(call.query)
        if "id_set" in query:
            numbers = [int(one) for one in query["id_set"].split(",") if one]
            if len(set(numbers)) > self.page_most:
                words = f"Wanted type IdSet: ID set cannot contain more than {self.page_most} IDs"
                raise Invalid({"id_set": [words]})
            return [self.shown(uri, (), call.user) for uri in uris if number_of(uri) in numbers]
        if "page" not in query:
            names = ("page", "id_set", "all_ids")
            raise Invalid({name: ["Must provide either 'page', 'id_set' or 'all_ids'"] for name in names})
        size, page = min(int(query.get("page_size", "10")), self.page_most), int(query["page"])
        return {
            "first_page": 1,
            "last_page": max(1, -(-len(uris) // size)),
            "this_page": page,
            "total": len(uris),
            "results": [self.shown(uri, (), call.user) for uri in uris[(page - 1) * size : page * size]],
        }

    def _find(self, call: Call, repo: str, kind: str) -> Record:
        """Different parameters are ANDed, values of one are ORed; neither capitals nor accents are told apart."""
        hits = {uri for uri in self.records if uri.startswith(f"/repositories/{repo}/{kind}/")}
        if not [key for key, _ in call.query if key != "resolve[]"]:
            hits = set()
        if not self.sees(call.user):
            hits = {uri for uri in hits if not self.suppressed(uri)}
        for name in {key for key, _ in call.query} - {"resolve[]"}:
            if name not in _FIND[kind]:
                raise Invalid({name: ["Unknown parameter"]})
            if any(beyond(value) for value in _all(call, name)):  # assumed: as the model's own look-up
                raise db_error("Illegal mix of collations (utf8mb3_general_ci,IMPLICIT)")
            wanted = {folded(value) for value in _all(call, name)}
            hits = {uri for uri in hits if self._id(uri, name.removesuffix("[]")) & wanted}
        found: Record = {kind: [{"ref": uri} for uri in sorted(hits, key=number_of)]}
        for name in _all(call, "resolve[]"):
            for one in found.get(name, ()):
                one["_resolved"] = self.shown(one["ref"], (), call.user)
        return found

    def _id(self, uri: str, name: str) -> set[str]:
        if name == "ark":
            # Source: idlookup.rb compares ark_value; seen in v4.2.1: a minted one is found without its
            # host alone, an external one as the whole URL alone.
            arks = self.extra.get(uri, {}).get("ark_name") or {}
            every = [arks.get("current") or "", *arks.get("previous", ())]
            external = self.records[uri].get("external_ark_url")
            minted = {folded(one[one.find("ark:") :]) for one in every if "ark:" in one and one != external}
            return minted | ({folded(external)} if external else set())
        value = self.records[uri].get(name)
        return {folded(value)} if value else set()

    def _enum(self, call: Call, name: str) -> Record:
        if name not in self.enums:
            raise Refused(404, "Enumeration not found")
        rows = [
            {"value": value, "position": i, "suppressed": False} for i, value in enumerate(self.enums[name])
        ]
        return {"name": name, "editable": True, "values": self.enums[name], "enumeration_values": rows}

    def _search(self, call: Call, repo: str) -> Record:
        kinds = _all(call, "type[]")
        hits = [one for uri, one in self.indexed.items() if not kinds or kind_of(uri) in kinds]
        return {"total_hits": len(hits), "results": hits}

    # -- trees -------------------------------------------------------------------------------

    def _node(self, uri: str, object_: str, parent: str) -> Record:
        below = self.trees.get((object_, parent), [])
        waypoints = -(-len(below) // WAYPOINT)
        told: Record = {
            "child_count": len(below),
            "waypoints": waypoints,
            "waypoint_size": WAYPOINT,
            "uri": uri,
        }
        told["precomputed_waypoints"] = {parent: {"0": self._slice(object_, parent, 0)}} if waypoints else {}
        return told

    def _slice(self, object_: str, parent: str, offset: int) -> list[Record]:
        """No component_id: a waypoint does not tell it."""
        result = []
        for i, uri in enumerate(
            self.trees.get((object_, parent), [])[offset * WAYPOINT : (offset + 1) * WAYPOINT]
        ):
            record, below = self.records[uri], len(self.trees.get((object_, uri), []))
            node = {
                "uri": uri,
                "title": record.get("title"),
                "position": offset * WAYPOINT + i,
                "child_count": below,
            }
            node |= {"waypoints": -(-below // WAYPOINT), "waypoint_size": WAYPOINT}
            result.append(node | ({"label": record["label"]} if record.get("label") else {}))
        return result

    def _root(self, call: Call, repo: str, id: str) -> Record:
        uri = f"/repositories/{repo}/digital_objects/{id}"
        return {"title": self.shown(uri, (), call.user)["title"], **self._node(uri, uri, "")}

    def _tree_node(self, call: Call, repo: str, id: str) -> Record:
        node = dict(call.query).get("node_uri", "")
        self.shown(node, (), call.user)
        return self._node(node, f"/repositories/{repo}/digital_objects/{id}", node)

    def _waypoint(self, call: Call, repo: str, id: str) -> list[Record]:
        query = dict(call.query)
        if "offset" not in query:
            raise Invalid({"offset": ["Parameter required but no value provided"]})
        return self._slice(
            f"/repositories/{repo}/digital_objects/{id}", query.get("parent_node", ""), int(query["offset"])
        )

    # -- writing -----------------------------------------------------------------------------

    def _told(self, status: str, record: Record) -> Record:
        uri = record["uri"]
        return {
            "status": status,
            "id": number_of(uri),
            "lock_version": record["lock_version"],
            "stale": True,
            "uri": uri,
            "warnings": [],
        }

    def _create(self, call: Call, kind: str, repo: str = "") -> Record:
        base = f"/repositories/{repo}/{kind}" if repo else f"/agents/{kind}"
        return self._told("Created", self.save(self._new(base), model_of(kind), call.body, call.user))

    def _agent(self, call: Call) -> Record:
        names = [(one.get("software_name"), one.get("version")) for one in call.body.get("names", ())]
        for uri, one in self.records.items():
            if (
                uri.startswith("/agents/software/")
                and [(n["software_name"], n["version"]) for n in one["names"]] == names
            ):
                raise Invalid({"conflicting_record": [uri]})
        return self._create(call, "software")

    def _update(self, call: Call, kind: str, **_: str) -> Record:
        old = self.records.get(call.path)
        if old is None or (self.suppressed(call.path) and not self.sees(call.user)):
            raise Refused(404, f"{model_of(kind)} not found")
        if self.suppressed(call.path):  # assumed: asmodel_crud.rb, ReadOnlyException
            raise Refused(409, "Can't update an object that has been suppressed")
        lock = call.body.get("lock_version") if isinstance(call.body, dict) else None
        if lock is None:
            raise Refused(409, "You must provide a lock_version in your request")
        if lock != old["lock_version"]:
            raise Refused(409, _STALE)
        return self._told("Updated", self.save(call.path, model_of(kind), call.body, call.user))

    def _children(self, call: Call, repo: str, id: str) -> Record:
        uri = f"/repositories/{repo}/digital_objects/{id}"
        if uri not in self.records:
            raise Refused(404, "DigitalObject not found")
        if (
            not isinstance(call.body, dict)
            or not call.body.get("children")
            or set(call.body) - {"children", "jsonmodel_type"}
        ):
            raise Invalid({"children": ["At least 1 item(s) is required"]})
        saved = copy.deepcopy((self.records, self.trees))
        try:
            for child in call.body["children"]:
                self.save(
                    self._new(f"/repositories/{repo}/digital_object_components"),
                    "digital_object_component",
                    {**child, "digital_object": {"ref": uri}},
                    call.user,
                )
        except (Invalid, Refused):
            self.records, self.trees = saved  # one transaction
            raise
        return self._told("Updated", self.records[uri])

    def _delete(self, call: Call, **_: str) -> Record:
        if call.path not in self.records:
            raise Refused(404, "Not found")
        self.remove(call.path)
        return {"status": "Deleted", "id": number_of(call.path)}

    # -- for tests ---------------------------------------------------------------------------

    def restore(self, saved: Any) -> None:
        """Hold again what it held, and forget calls, sessions and faults."""
        self.hold(saved)
        for kept in (self.calls, self.faults, self.before, self.sessions, self.expired, self.expire_at):
            kept.clear()
        self.kill, self.victim, self.logins = None, 0, 0

    @property
    def posts(self) -> list[str]:
        """The writes that took effect."""
        return [f"{call.method} {call.path}" for call in self.calls if call.wrote]


def _all(call: Call, name: str) -> tuple[str, ...]:
    return tuple(value for key, value in call.query if key == name)


_FIND = {
    "archival_objects": ("component_id[]", "ref_id[]", "ark[]"),
    "digital_objects": ("digital_object_id[]", "ark[]"),
    "digital_object_components": ("component_id[]",),
}

_R = r"/repositories/(?P<repo>\d+)"
_LISTED = "page page_size id_set all_ids modified_since resolve[]"
_VIEW = "view_repository"
_DO, _AO = "update_digital_object_record", "update_resource_record"

#: method, path, permission, query parameters, handler
_ROUTES = [
    ("GET", r"/repositories/\d+", "", "", "_repo"),
    ("GET", r"/config/enumerations/names/(?P<name>\w+)", "", "", "_enum"),
    (
        "GET",
        _R + r"/find_by_id/(?P<kind>archival_objects|digital_objects|digital_object_components)",
        _VIEW,
        "component_id[] ref_id[] ark[] digital_object_id[] resolve[]",
        "_find",
    ),
    ("GET", _R + r"/search", _VIEW, "q type[] page page_size", "_search"),
    *[("GET", _R + rf"/(?P<kind>{kind})", _VIEW, _LISTED, "_list") for kind in _PLAIN],
    *[("GET", _R + rf"/{kind}/\d+", _VIEW, "resolve[]", "_get") for kind in _PLAIN],
    ("GET", _R + r"/digital_objects/(?P<id>\d+)/tree/root", _VIEW, "published_only", "_root"),
    ("GET", _R + r"/digital_objects/(?P<id>\d+)/tree/node", _VIEW, "node_uri published_only", "_tree_node"),
    (
        "GET",
        _R + r"/digital_objects/(?P<id>\d+)/tree/waypoint",
        _VIEW,
        "offset parent_node published_only",
        "_waypoint",
    ),
    ("POST", _R + r"/(?P<kind>digital_objects)", _DO, "", "_create"),
    ("POST", _R + r"/(?P<kind>digital_object_components)", _DO, "", "_create"),
    ("POST", _R + r"/(?P<kind>events)", "update_event_record", "", "_create"),
    ("POST", _R + r"/(?P<kind>digital_objects)/\d+", _DO, "", "_update"),
    ("POST", _R + r"/(?P<kind>digital_object_components)/\d+", _DO, "", "_update"),
    ("POST", _R + r"/(?P<kind>archival_objects)/\d+", _AO, "", "_update"),
    ("POST", _R + r"/digital_objects/(?P<id>\d+)/children", _DO, "", "_children"),
    (
        "DELETE",
        _R + r"/(?:digital_objects|digital_object_components|archival_objects)/\d+",
        "delete_archival_record",
        "",
        "_delete",
    ),
    ("DELETE", _R + r"/events/\d+", "delete_event_record", "", "_delete"),
    ("GET", r"/agents/(?P<kind>software)", "", _LISTED, "_list"),
    ("GET", r"/agents/software/\d+", "", "resolve[]", "_get"),
    ("POST", r"/agents/software", "manage_agent_record", "", "_agent"),
    ("GET", _R + r"/current_preferences", "", "", "_current"),
    ("POST", _R + r"/preferences", "", "", "_prefer"),
    ("POST", _R + r"/preferences/(?P<id>\d+)", "", "", "_prefer"),
]


async def _main(port: int) -> None:
    async with ArchivesSpace().serving(port) as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
