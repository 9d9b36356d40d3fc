"""One session with ArchivesSpace: renewed when it expires, ended at the end, and what answers mean."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from dittohead.archivesspace.options import ArchivesSpaceOptions
from dittohead.errors import ItemError, StepError, TargetError, TransientError
from dittohead.model import short
from dittohead.rest import Answer, Rest, connected

#: Tries of what may be repeated: a request that only reads, a change that is read anew each time.
_TRIES = 4
_CONFLICTS = 8

#: Seconds before the first repetition, doubled for each further one, times a random 0.5 to 1.5.
PAUSE_S = 0.2

#: The longest that a server's Retry-After is waited for here; a longer one waits without a slot.
_PATIENCE_S = 5.0

#: Characters of a query that every server and proxy takes.
_QUERY_MOST = 3500

#: Records in one listing. Source: ArchivesSpace, AppConfig[:max_page_size], 250.
_LISTED = 200

#: Children of a waypoint. Source: ArchivesSpace, backend/app/model/large_tree.rb.
_WAYPOINT = 200

#: Tries of one request, each in a session of its own, as long as it is the session that is wrong.
_SESSIONS = 3

Record = dict[str, Any]
Query = Sequence[tuple[str, str | int]]


class Client:
    """A logged-in user of one repository.

    Raises, from each call that sends: TargetError, TransientError, ItemError.
    """

    def __init__(self, rest: Rest, options: ArchivesSpaceOptions, secret: Callable[[str], str]) -> None:
        self.options, self.base = options, options.base
        self.user: Record = {}  #: as the login tells it
        self._rest, self._secret = rest, secret
        self._token = ""
        self._renewing = asyncio.Lock()

    # -- the session -------------------------------------------------------------------------

    async def _session(self, worn: str) -> str:
        """Return a token that is not `worn`; of several that ask at once, one logs in for all."""
        async with self._renewing:
            if self._token == worn:
                self._token = await self._login()
            return self._token

    async def _login(self) -> str:
        path = f"/users/{quote(self.options.user, safe='')}/login"
        form = {"password": self._secret(self.options.credential)}
        answer = await self._patiently(lambda: self._rest.send("POST", path, data=form))
        if answer.status != 200:
            raise self._refused(answer)
        told = answer.json()
        try:
            token, self.user = str(told["session"]), dict(told["user"])
        except (KeyError, TypeError, ValueError):
            raise TargetError(
                "its login answers nothing an ArchivesSpace would", where=answer.where
            ) from None
        return token

    def _refused(self, answer: Answer) -> StepError:
        if answer.status in (400, 403, 404):
            hint = f"Correct user, or the credential {self.options.credential}; url must be the API's"
            return TargetError(f"the login failed ({answer.status})", where=answer.where, hint=hint)
        return answer.fault(_said(answer))

    async def logout(self) -> None:
        """End the session, so that it does not linger for an hour; failing to is no matter."""
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

    # -- requests ----------------------------------------------------------------------------

    async def send(self, method: str, path: str, query: Query = (), body: Any = None) -> Answer:
        """Send one request in the session; one that an expired session has kept from happening, again."""
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

    async def get(self, path: str, query: Query = ()) -> Any:
        """Return what is there; a broken exchange is repeated."""
        answer = await self._got(path, query)
        if answer.status != 200:
            raise fault(answer)
        return answer.json()

    async def find(self, path: str, query: Query = ()) -> Record | None:
        """Return a record, None when there is none."""
        answer = await self._got(path, query)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise fault(answer)
        found: Record = answer.json()
        return found

    async def _got(self, path: str, query: Query) -> Answer:
        return await self._patiently(lambda: self.send("GET", path, query))

    async def _patiently(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask again when an exchange breaks, or the server says that it cannot just now."""
        for number in range(_TRIES):
            try:
                answer = await ask()
                if answer.status == 429 or answer.status >= 500:
                    raise answer.fault(_said(answer))
                return answer
            except TransientError as error:
                await self._pause(number, error)
        raise AssertionError("the last pause raises")

    async def _pause(self, number: int, error: TransientError) -> None:
        """Wait before a repetition. Raises: the error, when there were enough, or a long wait is asked."""
        asked = error.retry_after_s or 0.0
        if number + 1 >= _TRIES or asked > _PATIENCE_S:
            raise error
        await asyncio.sleep(max(asked, PAUSE_S * 2**number * random.uniform(0.5, 1.5)))  # noqa: S311  # jitter

    async def create(self, path: str, body: Record | dict[str, Any]) -> Record:
        """Create something, once. Raises: TransientError: it is not known whether it was created."""
        answer = await self.send("POST", path, body=body)
        if answer.status != 200:
            raise fault(answer)
        created: Record = answer.json()
        return created

    async def delete(self, uri: str) -> None:
        """Delete a record; one that is gone is no matter."""
        answer = await self.send("DELETE", uri)
        if answer.status not in (200, 404):
            raise fault(answer)

    async def change(
        self,
        uri: str,
        apply: Callable[[Record], Awaitable[bool]],
        void: Callable[[], Awaitable[None]] | None = None,
    ) -> Record:
        """Change a record so that nothing is lost: read it, change it, send it whole.

        When it was changed by others meanwhile, or the exchange broke, it is read anew, which tells
        what has become of it.

        Args:
            apply: changes the record in place; returns whether there is anything to be changed.
                Called anew for each try.
            void: called when what `apply` has changed was refused for certain.

        Returns: the record as it is then, without what the server makes of it.

        Raises: TransientError: others change it again and again.
        """
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
                record["lock_version"] = answer.json().get("lock_version")
                return record
            if void is not None and answer.status < 500:
                await void()
            await self._again(answer, number)
        raise broken or TransientError("others change this record again and again", where=uri)

    async def _again(self, answer: Answer, number: int) -> None:
        """Wait, where reading anew and sending again can help. Raises: StepError: where not."""
        if answer.status == 409:
            if "modified since" not in _said(answer):
                raise fault(answer)
            await asyncio.sleep(PAUSE_S * random.uniform(0, number + 1))  # noqa: S311  # jitter
            return
        error = fault(answer)
        if not isinstance(error, TransientError):
            raise error
        await self._pause(min(number, _TRIES - 1), error)

    # -- many at once ------------------------------------------------------------------------

    async def find_by_id(self, kind: str, key: str, ids: Iterable[str]) -> list[Record]:
        """Return the records of a kind that have one of these identifiers, as the database has them.

        Args:
            kind: such as "archival_objects".
            key: such as "component_id".
        """
        found: list[Record] = []
        for some in _chunks(ids, key):
            query = [(f"{key}[]", value) for value in some]
            told = await self.get(f"{self.base}/find_by_id/{kind}", [*query, ("resolve[]", kind)])
            for hit in told.get(kind, ()):
                record = hit.get("_resolved") or await self.find(hit["ref"])
                if record is not None:
                    found.append({"uri": hit["ref"], **record})
        return found

    async def listed(self, kind: str, ids: Sequence[int]) -> AsyncIterator[Record]:
        """Yield records of a kind by their numbers, in that order; those that are gone are left out."""
        for at in range(0, len(ids), _LISTED):
            some = ids[at : at + _LISTED]
            query = [("id_set", ",".join(map(str, some)))]
            by_number = {number_of(one["uri"]): one for one in await self.get(f"{self.base}/{kind}", query)}
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
            root = await self.get(f"{digital_object}/tree/node", [("node_uri", parent)])
        else:
            root = await self.get(f"{digital_object}/tree/root")
        first = root.get("precomputed_waypoints", {}).get(parent, {})
        for offset in range(root["waypoints"]):
            nodes = first.get(str(offset))
            if nodes is None:
                query: list[tuple[str, str | int]] = [("offset", offset)]
                if parent:
                    query.append(("parent_node", parent))
                nodes = await self.get(f"{digital_object}/tree/waypoint", query)
            for node in nodes:
                yield node

    def shown(self, uri: str) -> str:
        """Return where the API has a record, as a whole URL."""
        return self._rest.base + uri


@contextlib.asynccontextmanager
async def opened(options: ArchivesSpaceOptions, secret: Callable[[str], str]) -> AsyncIterator[Client]:
    """Open a session and end it. Raises: TargetError."""
    async with connected(options) as rest:
        client = Client(rest, options, secret)
        try:
            yield client
        finally:
            await client.logout()


def number_of(uri: str) -> int:
    """Return a record's number: 7 of "/repositories/2/archival_objects/7"."""
    return int(uri.rpartition("/")[2])


def fault(answer: Answer) -> StepError:
    """Return what an answer that is no success means."""
    said = _said(answer)
    if answer.status == 403:
        hint = "Give the user the permission for this in the repository (see docs/archivesspace.md)"
        return answer.fault(said, hint=hint)
    if answer.status == 409:
        return ItemError(f"ArchivesSpace refuses the change ({said})", where=answer.where)
    return answer.fault(said)


def not_unique(error: ItemError) -> bool:
    """Tell whether something could not be created because it is there already."""
    return "unique" in error.what.lower()


def _said(answer: Answer) -> str:
    """Return ArchivesSpace's own words about what was wrong; of a backtrace only its first line."""
    try:
        told = answer.json().get("error", "")
    except (TransientError, AttributeError):
        return ""
    if isinstance(told, dict):
        told = "; ".join(f"{key}: {_words(value)}" for key, value in told.items())
    return short(str(told).partition("\n")[0])


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


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
