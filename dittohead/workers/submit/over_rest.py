"""A service's REST interfaces: 3.0 with tus 1.0.0, to send packages; 2.0, to ask for reports.

Sources: tus.io/protocols/resumable-upload (1.0.0, with creation and termination); the client program
dpres-rest-api-client 1.1.0.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from dittohead.model.errors import ItemError, StepError, TargetError, TransientError
from dittohead.model.text import display, short
from dittohead.system import fail_points, files
from dittohead.toolkit import rest
from dittohead.toolkit.rest import Rest, RestAnswer
from dittohead.workers.submit import report
from dittohead.workers.submit.notes import Attempt
from dittohead.workers.submit.options import RestPlace
from dittohead.workers.submit.report import BadReport
from dittohead.workers.submit.service import PackageFile, PreservationService, Said, Sight, State

_TUS = {"Tus-Resumable": "1.0.0"}

#: Bytes read from the disk at a time.
_BLOCK = 1 << 20

#: Entries of a page of a listing, and the most pages that are read of one.
_PAGE, _PAGES = 100, 1000

#: How often the service may say that it has another part than it was sent.
_CONFLICTS = 5

#: A report of an earlier day than this before the package was sent is none of it.
_BEFORE = timedelta(days=1)

_STATES: Mapping[str, State] = {
    "uploading": "part",
    "in_progress": "whole",
    "accepted": "accepted",
    "rejected": "rejected",
}


@contextlib.asynccontextmanager
async def connected(place: RestPlace, secret: str) -> AsyncIterator[Rest]:
    """Open a session. Raises: TargetError."""
    async with rest.connected(place, (place.user, secret.strip()), connections=2) as session:
        yield session


class RestService(PreservationService):
    """Speaks REST 3.0 with one service."""

    def __init__(self, place: RestPlace, session: Rest, part: int) -> None:
        self._place, self._rest, self._part = place, session, part
        self._base = f"/api/3.0/{quote(place.contract, safe=':')}/transfers"

    # -- looking -----------------------------------------------------------------------------

    async def sights_of(self, attempts: Sequence[Attempt]) -> list[Sight]:
        return [await self._seen(one) for one in attempts]

    async def _seen(self, attempt: Attempt) -> Sight:
        if attempt.handle:
            found = await self._transfer(attempt.handle)
            return Sight(state="absent") if found is None else await self._sight(found)
        # It may have been begun, and the answer lost: then only its name tells.
        sights = [await self._sight(one) async for one in self._named(attempt.name)]
        order = ("accepted", "rejected", "whole", "part")
        sights.sort(key=lambda one: (order.index(one.state), -one.size))
        return sights[0] if sights else Sight(state="absent")

    async def _transfer(self, handle: str) -> dict[str, Any] | None:
        answer = await self._rest.send("GET", f"{self._base}/{quote(handle, safe='')}")
        return None if answer.status == 404 else _data(answer)

    async def _named(self, name: str) -> AsyncIterator[dict[str, Any]]:
        for page in range(1, _PAGES + 1):
            found = _data(await self._rest.send("GET", self._base, params={"page": page, "limit": _PAGE}))
            results = found.get("results", [])
            for one in results:
                if one.get("filename") == name:
                    yield one
            if not results or not found.get("links", {}).get("next"):
                return

    async def _sight(self, found: Mapping[str, Any]) -> Sight:
        handle, status = str(found["transfer_id"]), str(found.get("status"))
        state = _STATES.get(status)
        if state is None:
            raise TransientError(f"it has a package with a status that is not known ({short(status)})")
        where = f"{self._place.url}{self._base}/{quote(handle, safe='')}"
        if state != "part":
            return Sight(state=state, handle=handle, where=where, reports=("xml", "html"))
        return Sight(state=state, handle=handle, where=where, size=await self._offset(handle) or 0)

    async def fetch(self, attempt: Attempt, sight: Sight) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for ending in sight.reports:
            path = f"{self._base}/{quote(sight.handle, safe='')}/report"
            answer = await self._rest.send("GET", path, params={"type": ending})
            if answer.status == 200:
                found[ending] = answer.body
            elif answer.status != 404:
                raise _fault(answer)
        return found

    # -- sending -----------------------------------------------------------------------------

    def _upload(self, handle: str) -> str:
        return f"/api/3.0/transfers/{quote(handle, safe='')}"

    async def _offset(self, handle: str) -> int | None:
        """Return how many bytes the service has; None where it knows no such upload."""
        answer = await self._rest.send("HEAD", self._upload(handle), headers=_TUS)
        if answer.status in (404, 410):
            return None
        if answer.status not in (200, 204):
            raise _fault(answer)
        return _number(answer, "Upload-Offset")

    async def send(
        self,
        attempt: Attempt,
        package: PackageFile,
        sight: Sight,
        *,
        begun: Callable[[str], Awaitable[Attempt]],
        commit: Callable[[], Awaitable[None]],
        progress: Callable[[int], None],
    ) -> None:
        # The bytes are read twice: they are known to be right before the last of them hands the package over.
        await asyncio.to_thread(_see_whole, package)
        handle = sight.handle if sight.state == "part" else await self._create(attempt, package)
        fail_points.point("submit.created")
        await begun(handle)
        fail_points.point("submit.begun")
        with files.opened_beneath(Path(package.root), package.path) as fd:
            at, conflicts = sight.size, 0
            while at < package.size:
                size = min(self._part, package.size - at)
                if at + size == package.size:
                    fail_points.point("submit.sent")
                    await commit()
                answer = await self._patch(handle, fd, at, size)
                if answer.status == 204:
                    at = _number(answer, "Upload-Offset")
                elif answer.status == 409 and conflicts < _CONFLICTS:
                    conflicts += 1
                    at = await self._offset(handle) or 0
                else:
                    raise _fault(answer)
                progress(at)

    async def _create(self, attempt: Attempt, package: PackageFile) -> str:
        told = {"contract_id": self._place.contract, "filename": attempt.name}
        metadata = ",".join(
            f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in told.items()
        )
        headers = {**_TUS, "Upload-Length": str(package.size), "Upload-Metadata": metadata}
        answer = await self._rest.send("POST", "/api/3.0/transfers", headers=headers)
        if answer.status != 201:
            raise _fault(answer)
        there = urlsplit(urljoin(answer.url, answer.headers.get("Location", "")))
        if there.netloc != urlsplit(self._place.url).netloc:
            raise TargetError("it asks to send the package to another server", where=answer.where)
        return there.path.rstrip("/").rpartition("/")[2]

    async def _patch(self, handle: str, fd: int, at: int, size: int) -> RestAnswer:
        headers = {
            **_TUS, "Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(size),
        }  # fmt: skip
        return await self._rest.send(
            "PATCH", self._upload(handle), data=_slice(fd, at, size), headers=headers
        )

    # -- taking back -------------------------------------------------------------------------

    async def withdraw(self, attempt: Attempt, *, whole: bool, dry_run: bool) -> Said:
        sight = await self._seen(attempt)
        if sight.state not in (("part", "whole") if whole else ("part",)):
            return False, f"it is {sight.state}"
        if not dry_run:
            answer = await self._rest.send("DELETE", f"{self._base}/{quote(sight.handle, safe='')}")
            if answer.status not in (204, 404, 410):
                return False, str(_fault(answer))
        return True, f"{sight.where}: {'would be removed' if dry_run else 'removed'}"

    async def examined(self) -> AsyncIterator[Said]:
        found = await self._rest.send("GET", self._base, params={"page": 1, "limit": 1})
        _data(found)
        yield True, f"{self._place.url}: REST 3.0 answers for {self._place.contract}"


def _slice(fd: int, at: int, size: int) -> AsyncIterator[bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        done = 0
        while done < size:
            data = await asyncio.to_thread(os.pread, fd, min(_BLOCK, size - done), at + done)
            if not data:
                raise ConnectionError("the package became shorter while it was sent")
            done += len(data)
            yield data

    return pieces()


def _see_whole(package: PackageFile) -> None:
    with files.opened_beneath(Path(package.root), package.path) as fd:
        digest = hashlib.sha256()
        while data := os.read(fd, _BLOCK):
            digest.update(data)
    if digest.hexdigest() != package.sha256:
        raise ItemError(
            "the package is not what was made: its digest is another one. It was not handed over",
            where=display(package.path),
            hint="Look at the disk; then make it again: dittohead rerun",
        )


# -- REST 2.0 ------------------------------------------------------------------------------------


class ReportsByObject:
    """Asks REST 2.0 for the reports of an object, and finds the one of a package among them."""

    def __init__(self, place: RestPlace, session: Rest) -> None:
        self._place, self._rest = place, session
        self._base = f"/api/2.0/{quote(place.contract, safe=':')}/ingest/report"

    async def sights_of(self, attempt: Attempt) -> Sight:
        """Return the answer to a package; "absent" where there is none. Raises: StepError."""
        found = [one async for one in self._reports(attempt)]
        for state in ("accepted", "rejected"):
            for one in found:
                if one.get("status") == state and await self._is_of(attempt, str(one["id"])):
                    path = (
                        f"{self._base}/{quote(attempt.object_id, safe='')}/{quote(str(one['id']), safe='')}"
                    )
                    return Sight(
                        state=_STATES[state],
                        handle=str(one["id"]),
                        where=f"{self._place.url}{path}",
                        reports=("xml", "html"),
                    )
        return Sight(state="absent")

    async def _reports(self, attempt: Attempt) -> AsyncIterator[dict[str, Any]]:
        answer = await self._rest.send("GET", f"{self._base}/{quote(attempt.object_id, safe='')}")
        if answer.status == 404:
            return
        since = datetime.fromtimestamp(attempt.at, UTC) - _BEFORE
        for one in _data(answer).get("results", []):
            if _moment(str(one.get("date", "")), since) >= since:
                yield one

    async def _is_of(self, attempt: Attempt, number: str) -> bool:
        sight = Sight(state="absent", handle=number, reports=("xml",))
        data = (await self.fetch(attempt, sight)).get("xml", b"")
        with contextlib.suppress(BadReport):
            said = await asyncio.to_thread(report.read, data)
            return attempt.name in (said.name, said.transfer) or said.transfer.startswith(f"{attempt.name}-")
        return False

    async def fetch(self, attempt: Attempt, sight: Sight) -> dict[str, bytes]:
        """Return the reports of an answer. Raises: StepError."""
        found: dict[str, bytes] = {}
        for ending in sight.reports:
            path = f"{self._base}/{quote(attempt.object_id, safe='')}/{quote(sight.handle, safe='')}"
            answer = await self._rest.send("GET", path, params={"type": ending})
            if answer.status == 200:
                found[ending] = answer.body
            elif answer.status != 404:
                raise _fault(answer)
        return found

    async def examined(self) -> AsyncIterator[Said]:
        """Say whether it can be asked. Raises: StepError."""
        answer = await self._rest.send("GET", f"{self._base}/dittohead-doctor")
        if answer.status != 404:
            _data(answer)
        yield True, f"{self._place.url}: REST 2.0 answers for {self._place.contract}"


def _moment(text: str, otherwise: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return otherwise
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _data(answer: RestAnswer) -> dict[str, Any]:
    """Return what a success holds. Raises: StepError."""
    if answer.status != 200:
        raise _fault(answer)
    found = answer.json()
    inner = found.get("data", found) if isinstance(found, dict) else None
    if not isinstance(inner, dict):
        raise TransientError("the answer is not what was expected", where=answer.where)
    return inner


def _fault(answer: RestAnswer) -> StepError:
    with contextlib.suppress(StepError, AttributeError, TypeError):
        told = answer.json()
        said = told.get("message") or (told.get("data") or {}).get("message") or ""
        return answer.fault(str(said))
    return answer.fault()


def _number(answer: RestAnswer, header: str) -> int:
    text = answer.headers.get(header, "")
    if not (text.isascii() and text.isdigit()):
        raise TransientError(f"the answer has no {header}", where=answer.where)
    return int(text)
