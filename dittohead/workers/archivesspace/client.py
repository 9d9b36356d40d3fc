"""One session with ArchivesSpace: renewed when it expires, ended at the end, and what answers mean."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from dittohead.model.errors import ItemError, StepError, TargetError, TransientError
from dittohead.model.text import short
from dittohead.system.program_output import Mask
from dittohead.toolkit.backoff import FULL, wait_s
from dittohead.toolkit.rest import Rest, RestAnswer, connected
from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
from dittohead.workers.archivesspace.records import beyond

#: Tries of what may be repeated: a request that only reads, a change that is read again each time.
_TRIES = 4
_CONFLICTS = 8

#: Seconds before the first repetition, doubled for each further one up to the longest.
PAUSE_S, _PAUSE_MOST_S = 0.2, 1.6

#: The longest that a server's Retry-After is waited for here; a longer one waits without a slot.
_PATIENCE_S = 5.0

#: Characters of a query that every server and proxy takes.
_QUERY_MOST = 3500

#: Records in one listing. Source: ArchivesSpace, AppConfig[:max_page_size], 250.
_LISTED = 200

#: The fewest that are asked for where a site takes fewer.
_LISTED_LEAST = 10

#: Children of a waypoint. Source: ArchivesSpace, backend/app/model/large_tree.rb.
_WAYPOINT = 200

#: Tries of one request, each in a session of its own, as long as it is the session that is wrong.
_SESSIONS = 3

#: One of these, and the user's preference, show what is suppressed. Source: backend/app/lib/rest.rb,
#: enforce_suppression.
SIGHT = frozenset({"view_suppressed", "manage_repository", "suppress_archival_record"})

#: Faults of the database that come again as often as the same is sent; all others may pass. Source:
#: exceptions.rb answers 400 to each Sequel::DatabaseError, a lock that was not got in time too.
_LASTING = (
    "too long",
    "incorrect string value",
    "illegal mix of collations",
    "out of range",
    "cannot be null",
    "foreign key",
    "truncated",
)

#: What ArchivesSpace's codes mean, for people.
_CODES = {
    "mixed_content_invalid_inline_ead": "its markup is not well-formed: each <tag> is closed, in order, and "
    "values of attributes stand in straight quotes",
    "mixed_content_disallowed_tag": "it holds an HTML element that ArchivesSpace does not allow there, "
    "such as <script>",
}

#: What each answer about a tree holds.
_TREE = ("waypoints", "child_count")

Record = dict[str, Any]
Query = Sequence[tuple[str, str | int]]


class Taken(ItemError):
    """Something could not be created because it is there already, or another of its name is."""


class ArchivesSpaceClient:
    """A logged-in user of one repository.

    Raises, from each call that sends: TargetError, TransientError, ItemError.
    """

    def __init__(self, rest: Rest, options: ArchivesSpaceOptions, secret: Callable[[str], str]) -> None:
        self.options, self.base = options, options.base
        self.user: Record = {}  #: as the login tells it
        self._rest, self._secret = rest, secret
        self._token = ""
        self._renewing = asyncio.Lock()
        self._listed_most = _LISTED
        self._sees_all = False

    # -- the session -------------------------------------------------------------------------

    async def _session(self, worn: str) -> str:
        """Return a token that is not `worn`; of several that ask at once, one logs in for all."""
        async with self._renewing:
            if self._token == worn:
                self._token = await self._login()
            return self._token

    async def _login(self) -> str:
        path = f"/users/{quote(self.options.user, safe='')}/login"
        password = self._secret(self.options.credential)
        answer = await self._patiently(
            lambda: self._rest.send("POST", path, data={"password": password}), password
        )
        if answer.status != 200:
            raise self._refused(answer, password)
        try:
            told = answer.json()
            token, self.user = str(told["session"]), dict(told["user"])
        except (KeyError, TypeError, ValueError, TransientError):  # whose words may hold a session
            raise TargetError(
                "its login answers nothing an ArchivesSpace would",
                where=answer.where,
                hint="Correct url, which must be the API's; or a proxy answers in its place",
            ) from None
        return token

    def _refused(self, answer: RestAnswer, password: str) -> StepError:
        if answer.status in (400, 403, 404):
            hint = f"Correct user, or the credential {self.options.credential}; url must be the API's"
            return TargetError(f"the login failed ({answer.status})", where=answer.where, hint=hint)
        return answer.fault(_said(answer, password))

    async def logout(self) -> None:
        """End the session, so that it does not linger for an hour; failing to does no harm."""
        if self._token:
            with contextlib.suppress(StepError):
                await self._rest.send("POST", "/logout", headers={"X-ArchivesSpace-Session": self._token})
            self._token = ""

    async def lacks(self, wanted: Iterable[str]) -> list[str]:
        """Return which permissions the user has not in the repository, as the login tells them."""
        if not self._token:
            await self._session("")
        told = self.user.get("permissions")
        if not isinstance(told, dict):
            return []  # it does not tell: the first refusal will
        return sorted(set(wanted) - {*told.get(self.base, ()), *told.get("_archivesspace", ())})

    async def version(self) -> str:
        """Return what the site says it is: "v4.2.1"; "" where it does not say."""
        answer = await self.send("GET", "/version")
        told = re.search(r"\(([^)]*)\)", answer.body.decode("utf-8", "replace"))
        return told[1] if told else ""

    async def checks_markup(self) -> bool:
        """Tell whether the site refuses titles that are not well-formed markup: 4.2.0 and later."""
        told = re.match(r"v?(\d+)\.(\d+)", await self.version())
        return told is None or (int(told[1]), int(told[2])) >= (4, 2)

    async def see_all(self, *, may_set: bool = True) -> bool:
        """See that nothing suppressed is kept from this user.

        A record's links to what is suppressed are left out for others, and their saves of it delete them.

        Args:
            may_set: set the user's own preference where only that is missing.

        Returns: False where it is missing and may not be set.

        Raises: TargetError: the user may not see it.
        """
        if self._sees_all:
            return True
        if len(await self.lacks(SIGHT)) == len(SIGHT):
            raise TargetError(
                f'the user "{self.options.user}" lacks view_suppressed in {self.options.base}: what it saves '
                "would lose its links to suppressed records",
                where=self.shown(""),
                hint='Give its group "view suppressed records"',
            )
        told = await self._preferences()
        if not _shows(told):
            if not may_set:
                return False
            await self._prefer(told)
            if not _shows(await self._preferences()):
                raise self._blind("the preference was not kept")
        self._sees_all = True
        return True

    async def _preferences(self) -> Record:
        return await self.get(f"{self.base}/current_preferences", keys=["defaults"])

    async def _prefer(self, told: Record) -> None:
        """Set this user's own preference for the repository. Raises: TargetError."""
        own = told.get("user_repo") or {}
        path = own.get("uri") or f"{self.base}/preferences"
        number = str(self.user.get("uri", "")).rpartition("/")[2]
        if not own and number.isdigit():
            own = {"jsonmodel_type": "preference", "user_id": int(number)}
        answer = await self.send(
            "POST", path, body={**own, "defaults": {**(own.get("defaults") or {}), "show_suppressed": True}}
        )
        if answer.status != 200:
            raise self._blind(f"setting it was answered {answer.status}")

    def _blind(self, why: str) -> TargetError:
        return TargetError(
            f'the user "{self.options.user}" is not shown suppressed records in {self.options.base} ({why}): '
            "what it saves would lose its links to them",
            where=self.shown(""),
            hint="Log in to the staff interface as that user and tick Show Suppressed in its preferences for "
            "that repository",
        )

    # -- requests ----------------------------------------------------------------------------

    async def send(self, method: str, path: str, query: Query = (), body: Any = None) -> RestAnswer:
        """Send one request in the session; when the session has expired, sign in and send it again.

        Args:
            method: such as "GET".
            path: below the API's address, beginning with a slash.
            query: (name, value) pairs.
            body: sent as JSON; None for none.

        Raises: TransientError, TargetError: no answer, or no session; other answers are returned, whatever
            their status.
        """
        token = self._token or await self._session("")
        for _ in range(_SESSIONS):
            headers = {"X-ArchivesSpace-Session": token}
            answer = await self._rest.send(method, path, params=query, json=body, headers=headers)
            if answer.status != 412:  # which is answered before anything is done
                return answer
            token = await self._session(token)
        raise TargetError(
            "it forgets each session as soon as it has given it",
            where=f"{method} {self._rest.base}{path}",
            hint="See whether its backends share one database and one clock",
        )

    async def get(self, path: str, query: Query = (), keys: Collection[str] = ()) -> Record:
        """Return what is there; a broken exchange is repeated.

        Args:
            keys: fields without which it is not an answer of ArchivesSpace.

        Raises: TransientError: something else answers, such as a proxy.
        """
        answer = await self._got(path, query)
        if answer.status != 200:
            raise fault(answer)
        return _record(answer, path, keys)

    async def find(self, path: str) -> Record | None:
        """Return a record, None when there is none."""
        answer = await self._got(path, ())
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise fault(answer)
        return _record(answer, path)

    async def _list(self, path: str, query: Query) -> list[Record]:
        """Return a list of things that have a uri."""
        answer = await self._got(path, query)
        if answer.status != 200:
            raise fault(answer)
        found = answer.json()
        if not isinstance(found, list) or not all(isinstance(one, dict) and "uri" in one for one in found):
            raise _strange(answer)
        return found

    async def _got(self, path: str, query: Query) -> RestAnswer:
        return await self._patiently(lambda: self.send("GET", path, query))

    async def _patiently(self, ask: Callable[[], Awaitable[RestAnswer]], secret: str = "") -> RestAnswer:
        """Ask again when an exchange breaks, or the server says that it cannot just now.

        Args:
            secret: what is sent and must not be told when the server repeats it.
        """
        for number in range(_TRIES):
            try:
                answer = await ask()
                if answer.status == 429 or answer.status >= 500:
                    raise answer.fault(_said(answer, secret))
                return answer
            except TransientError as error:
                await self._pause(number, error)
        raise AssertionError("the last pause raises")

    async def _pause(self, number: int, error: TransientError) -> None:
        """Wait before a repetition. Raises: the error, when there were enough, or a long wait is asked."""
        asked = error.retry_after_s
        if number + 1 >= _TRIES or (asked or 0.0) > _PATIENCE_S:
            raise error
        await asyncio.sleep(wait_s(number + 1, first_s=PAUSE_S, most_s=_PAUSE_MOST_S, asked_s=asked))

    async def create(self, path: str, body: Record | dict[str, Any]) -> Record:
        """Create something, once. Raises: TransientError: it is not known whether it was created."""
        answer = await self.send("POST", path, body=body)
        if answer.status != 200:
            raise fault(answer)
        return _record(answer, "", ("status",))

    async def delete(self, uri: str) -> None:
        """Delete a record; one that is gone is fine."""
        answer = await self.send("DELETE", uri)
        if answer.status not in (200, 404):
            raise fault(answer)

    async def change(
        self,
        uri: str,
        apply: Callable[[Record], Awaitable[bool]],
        void: Callable[[], Awaitable[None]] | None = None,
    ) -> Record:
        """Change a record so that nothing is lost: read it, all of it, change it, send it whole.

        When it was changed by others meanwhile, or the exchange broke, it is read again, which tells
        what happened to it.

        Args:
            apply: changes the record in place; returns whether there is anything to be changed.
                Called again for each try.
            void: called when what `apply` has changed was refused for certain.

        Returns: the record as it is then, without what the server makes of it.

        Raises: TransientError: others change it again and again.
        """
        await self.see_all()
        broken: TransientError | None = None
        for number in range(_CONFLICTS):
            record: Record = await self.get(uri)
            if not await apply(record):
                return record
            # Absent, it stays where it is; as it was read, it would be moved there among others that were
            # put before it meanwhile. Source: tree_nodes.rb, update_from_json.
            record.pop("position", None)
            try:
                answer = await self.send("POST", uri, body=record)
            except TransientError as error:
                broken = error
                await self._pause(min(number, _TRIES - 1), error)
                continue
            if answer.status == 200:
                record["lock_version"] = _record(answer, "").get("lock_version")
                return record
            if void is not None and answer.status < 500:
                await void()
            await self._again(answer, number)
        raise broken or TransientError("others change this record again and again", where=uri)

    async def _again(self, answer: RestAnswer, number: int) -> None:
        """Wait, where reading again and sending again can help. Raises: StepError: where not."""
        if answer.status == 409:
            if "modified since" not in _said(answer):
                raise fault(answer)
            # Of those that change one record at once, one gets through at a time.
            await asyncio.sleep(wait_s(number + 1, first_s=PAUSE_S / 2, most_s=4 * PAUSE_S, jitter=FULL))
            return
        error = fault(answer)
        if not isinstance(error, TransientError):
            raise error
        await self._pause(min(number, _TRIES - 1), error)

    # -- many at once ------------------------------------------------------------------------

    async def find_by_id(self, kind: str, key: str, ids: Iterable[str]) -> tuple[list[Record], list[Record]]:
        """Return the records of a kind that have one of these identifiers, and those that have one like it.

        The database tells neither capitals nor accents apart: what it finds is compared here.

        Args:
            kind: such as "archival_objects".
            key: such as "component_id".
        """
        asked = {value for value in ids if not beyond(value)}  # no record has such a one
        hits = await self._hits(kind, key, sorted(asked))
        exact = [one for one in hits if _names(one, key) & asked]
        return exact, [one for one in hits if not _names(one, key) & asked]

    async def _hits(self, kind: str, key: str, ids: Iterable[str]) -> list[Record]:
        found: list[Record] = []
        for some in _chunks(ids, key):
            query = [(f"{key}[]", value) for value in some]
            path = f"{self.base}/find_by_id/{kind}"
            told = await self.get(path, [*query, ("resolve[]", kind)], [kind])
            for hit in told[kind]:
                record = hit.get("_resolved") or await self.find(hit["ref"])
                if record is not None:
                    found.append({"uri": hit["ref"], **record})
        return found

    async def listed(self, kind: str, ids: Sequence[int]) -> AsyncIterator[Record]:
        """Yield records of a kind by their numbers, in that order; those that are gone are left out."""
        at = 0
        while at < len(ids):
            some = ids[at : at + self._listed_most]
            query = [("id_set", ",".join(map(str, some)))]
            try:
                told = await self._list(f"{self.base}/{kind}", query)
            except ItemError as error:  # a site may take fewer at once: AppConfig[:max_page_size]
                if "id_set" not in error.what or len(some) <= _LISTED_LEAST:
                    raise
                self._listed_most = max(_LISTED_LEAST, len(some) // 2)
                continue
            at += len(some)
            by_number = {number_of(one["uri"]): one for one in told}
            for number in some:
                if number in by_number:
                    yield by_number[number]

    async def components(self, digital_object: str) -> AsyncIterator[Record]:
        """Yield every component of a digital object in order, those below components after all others."""
        parents = [""]
        for parent in parents:
            numbers: list[int] = []
            async for node in self._nodes(digital_object, parent):
                numbers.append(number_of(node["uri"]))
                if node.get("child_count"):
                    parents.append(node["uri"])
            async for record in self.listed("digital_object_components", numbers):
                yield record

    async def _nodes(self, digital_object: str, parent: str) -> AsyncIterator[Record]:
        if parent:
            root = await self.get(f"{digital_object}/tree/node", [("node_uri", parent)], _TREE)
        else:
            root = await self.get(f"{digital_object}/tree/root", keys=_TREE)
        first = root.get("precomputed_waypoints", {}).get(parent, {})
        for offset in range(root["waypoints"]):
            nodes = first.get(str(offset))
            if nodes is None:
                query: list[tuple[str, str | int]] = [("offset", offset)]
                if parent:
                    query.append(("parent_node", parent))
                nodes = await self._list(f"{digital_object}/tree/waypoint", query)
            for node in nodes:
                yield node

    def shown(self, uri: str) -> str:
        """Return where the API has a record, as a whole URL."""
        return self._rest.base + uri


@contextlib.asynccontextmanager
async def opened(
    options: ArchivesSpaceOptions, secret: Callable[[str], str]
) -> AsyncIterator[ArchivesSpaceClient]:
    """Open a session and end it. Raises: TargetError."""
    async with connected(options) as rest:
        client = ArchivesSpaceClient(rest, options, secret)
        try:
            yield client
        finally:
            await client.logout()


def number_of(uri: str) -> int:
    """Return a record's number: 7 of "/repositories/2/archival_objects/7"."""
    return int(uri.rpartition("/")[2])


def _record(answer: RestAnswer, path: str, keys: Collection[str] = ()) -> Record:
    """Return an answer's fields. Raises: TransientError: they are not those of what was asked for."""
    found = answer.json()
    if not isinstance(found, dict) or not found.keys() >= set(keys):
        raise _strange(answer)
    if path.rpartition("/")[2].isdigit() and found.get("uri") != path:  # another record: a cache's, say
        raise _strange(answer)
    return found


def _strange(answer: RestAnswer) -> TransientError:
    text = short(answer.body.decode("utf-8", "replace"))
    return TransientError(f"it answers nothing an ArchivesSpace would: {text}", where=answer.where)


def fault(answer: RestAnswer) -> StepError:
    """Return what an answer that is not a success means."""
    said = _said(answer)
    if answer.status == 403:
        hint = "Give the user the permission for this in the repository (see docs/archivesspace.md)"
        return answer.fault(said, hint=hint)
    if answer.status == 409:
        return ItemError(f"ArchivesSpace refuses the change ({said})", where=answer.where)
    if answer.status == 400:
        return _refused(answer, said)
    return answer.fault(said)


def _refused(answer: RestAnswer, said: str) -> StepError:
    """Return what a 400 means: something is there already, the database's trouble may pass, or neither."""
    told = _errors(answer)
    words = said.lower()
    if "db_error" in told:
        if "duplicate entry" in words:
            return Taken(f"it answered 400 ({said})", where=answer.where)
        if not any(fault in words for fault in _LASTING):
            return TransientError(f"its database had trouble ({said})", where=answer.where)
    elif "conflicting_record" in told or "must be unique" in words:
        return Taken(f"it answered 400 ({said})", where=answer.where)
    return answer.fault(said)


def _errors(answer: RestAnswer) -> dict[str, Any]:
    """Return ArchivesSpace's errors by field; {} where it has only words."""
    try:
        told = answer.json().get("error")
    except (TransientError, AttributeError):
        return {}
    return told if isinstance(told, dict) else {}


def _said(answer: RestAnswer, secret: str = "") -> str:
    """Return ArchivesSpace's own words about what was wrong; of a backtrace only its first line.

    Args:
        secret: what is struck out of them.
    """
    try:
        told = answer.json().get("error", "")
    except (TransientError, AttributeError):
        return ""
    if isinstance(told, dict):
        told = "; ".join(f"{key}: {_words(value)}" for key, value in told.items())
    return short(Mask([secret])(str(told)).partition("\n")[0])


def _words(value: Any) -> str:
    every = value if isinstance(value, list) else [value]
    return ", ".join(f"{one}: {_CODES[one]}" if one in _CODES else str(one) for one in map(str, every))


def _shows(told: Record) -> bool:
    defaults = told["defaults"]
    return isinstance(defaults, dict) and bool(defaults.get("show_suppressed"))


def bare_ark(text: str) -> str:
    """Return an ARK without the place that resolves it: "ark:/12345/abc"."""
    at = text.find("ark:")
    return text[at:] if at >= 0 else text


def _names(record: Record, key: str) -> set[str]:
    """Return what a record is called by that key."""
    if key != "ark":
        return {str(record.get(key, ""))}
    arks = record.get("ark_name") or {}
    every = [arks.get("current"), *(arks.get("previous") or ()), record.get("external_ark_url")]
    return {name for one in every if one for name in (one, bare_ark(one))}


def _chunks(ids: Iterable[str], key: str) -> Iterator[list[str]]:
    """Yield the identifiers in lots whose query is not too long."""
    lot: list[str] = []
    room = _QUERY_MOST
    for value in dict.fromkeys(ids):
        size = len(quote(value, safe="")) + len(key) + 10
        if lot and size > room:
            yield lot
            lot, room = [], _QUERY_MOST
        lot.append(value)
        room -= size
    if lot:
        yield lot
