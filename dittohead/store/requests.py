"""Transactions on requests: what people asked for, and what the daemon answered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dittohead.model.records import Job, JobId, RequestAnswer
from dittohead.model.request_args import RequestArgs, read_args
from dittohead.model.states import Action
from dittohead.model.text import utcnow
from dittohead.store.columns import DamagedJson
from dittohead.store.tables import jobs, requests

#: What may be asked of ended jobs; of several jobs of a name the latest is meant, not one under way.
OF_ENDED_JOBS = frozenset(
    {
        Action.RETRY,
        Action.RERUN,
        Action.RENAME,
        Action.REPLACE,
        Action.UNDONE,
        Action.DISMISS,
        Action.DELETE,
        Action.APPROVE,
        Action.KEEP,
    }
)


def read_answer(found: Any) -> RequestAnswer | None:
    """Return an answer that the store has, None while there is none; of a damaged one that it is."""
    if found is None:
        return None
    if not isinstance(found, dict) or isinstance(found, DamagedJson):
        return RequestAnswer(ok=False, message="what the daemon answered cannot be read any more")
    return RequestAnswer(
        ok=bool(found.get("ok")),
        message=str(found.get("message", "")),
        missing=bool(found.get("missing")),
    )


@dataclass(frozen=True, kw_only=True)
class Request:
    """Something a person asked for."""

    id: int
    action: str  #: an `Action`; another where the row is of a later version, or damaged
    job: str
    args: dict[str, Any]  #: JSON, the action's own, as it was given; read by `given`
    who: str
    before: list[Any] = field(default_factory=list)  #: what it would change, as that was when it was begun
    tries: int = 0  #: how many daemons have begun to carry it out; not those that were stopped in good order

    @cached_property
    def given(self) -> RequestArgs:
        """Its arguments by their names."""
        return read_args(self.args)


#: Where the tries of a request are counted, among its arguments.
_TRIES, _BEFORE = "tries", "before"


@dataclass(frozen=True, kw_only=True)
class RequestRow(Request):
    """A request with when it was made, and what became of it."""

    at: datetime
    answer: RequestAnswer | None  #: None: not yet answered


def add(connection: Connection, action: Action | str, job: str, args: dict[str, Any], who: str) -> int:
    """Leave a request for the daemon; return its number.

    Args:
        action: such as "retry" or "freeze".
        job: the job's id; for other actions what they are about, such as a source's name.
        args: JSON, the action's own.
        who: the person who asks, for the history.
    """
    result = connection.execute(
        requests.insert().values(
            action=str(action), job=job, args=args, who=who, at=utcnow().timestamp(), answer=None
        )
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101
    return int(key[0])


def open_requests(connection: Connection) -> list[Request]:
    """Return requests that have no answer yet, in the order they were made."""
    return [get(connection, number) for number in open_numbers(connection)]


def open_numbers(connection: Connection) -> list[int]:
    """Return the numbers of requests that have no answer yet, in the order they were made."""
    found = connection.execute(
        sa.select(requests.c.id).where(requests.c.answer.is_(None)).order_by(requests.c.id)
    )
    return list(found.scalars())


def get(connection: Connection, request: int) -> Request:
    """Return one request.

    Raises: KeyError: there is none; ValueError, TypeError: its row is damaged.
    """
    row = connection.execute(sa.select(requests).where(requests.c.id == request)).mappings().first()
    if row is None:
        raise KeyError(request)
    if not isinstance(row["args"], dict) or isinstance(row["args"], DamagedJson):
        raise TypeError("the arguments of a request are damaged")
    args = dict(row["args"])
    tries = args.pop(_TRIES, 0)
    before = args.pop(_BEFORE, [])
    if not isinstance(tries, int) or not isinstance(before, list):
        raise TypeError("what was noted of a request is damaged")
    given = {key: row[key] for key in ("id", "action", "job", "who")}
    return Request(**given, args=args, before=before, tries=tries)


def count_try(connection: Connection, request: Request, by: int, before: Sequence[Any] = ()) -> None:
    """Note that a daemon begins to carry out a request (1), or did not end while it did (-1).

    Args:
        before: what it would change, as that is now; kept from the first time on.
    """
    args = {**request.args, _TRIES: request.tries + max(by, 0)}
    if kept := request.before or list(before):
        args[_BEFORE] = kept
    connection.execute(requests.update().where(requests.c.id == request.id).values(args=args))


def answer(connection: Connection, request: int, said: RequestAnswer) -> None:
    """Record what became of a request."""
    connection.execute(requests.update().where(requests.c.id == request).values(answer=said.as_dict()))


def answer_to(connection: Connection, request: int) -> RequestAnswer | None:
    """Return the answer to a request, None while there is none."""
    found = connection.execute(sa.select(requests.c.answer).where(requests.c.id == request)).scalar()
    return read_answer(found)


def set_job(connection: Connection, request: int, job: str) -> None:
    """Record which job a request meant, that was named by a folder's name or the beginning of an id."""
    connection.execute(requests.update().where(requests.c.id == request).values(job=job))


def listing(
    connection: Connection,
    *,
    job: str = "",
    who: str = "",
    action: str = "",
    before: int | None = None,
    limit: int = 50,
) -> list[RequestRow]:
    """Return requests, the latest first.

    Args:
        job: a job's id, or a source's name.
        before: only those with a smaller number.
    """
    query = sa.select(requests).order_by(requests.c.id.desc()).limit(limit)
    for column, wanted in ((requests.c.job, job), (requests.c.who, who), (requests.c.action, action)):
        if wanted:
            query = query.where(column == wanted)
    if before is not None:
        query = query.where(requests.c.id < before)
    return [
        RequestRow(
            **{key: row[key] for key in ("id", "action", "job", "who")},
            args={key: value for key, value in _mapping(row["args"]).items() if key not in (_TRIES, _BEFORE)},
            at=datetime.fromtimestamp(row["at"], UTC),
            answer=read_answer(row["answer"]),
        )
        for row in connection.execute(query).mappings()
    ]


def _mapping(args: Any) -> dict[str, Any]:
    return args if isinstance(args, dict) else DamagedJson()


def renamed_from(connection: Connection, name: str, ino: int) -> tuple[str, str]:
    """Return (earlier name, who asked) of a folder that a failed job had left under another name."""
    found = connection.execute(
        sa.select(jobs.c.name, requests.c.who, requests.c.args)
        .join(requests, requests.c.job == jobs.c.id)
        .where(jobs.c.ino == str(ino), requests.c.action == Action.RENAME.value)
        .order_by(requests.c.id.desc())
    )
    return next(((row.name, row.who) for row in found if read_args(row.args).name == name), ("", ""))


def dropped(connection: Connection, found: Collection[Job]) -> dict[JobId, str]:
    """Return who has uploaded the folders of some jobs through the page; of those alone."""
    rows = connection.execute(
        sa.select(requests.c.job, requests.c.who, requests.c.args)
        .where(requests.c.action == Action.DROP.value, requests.c.job.in_({job.name for job in found}))
        .order_by(requests.c.id)
    )
    who = {(row.job, read_args(row.args).ino): row.who for row in rows}
    return {job.id: who[job.name, job.ino] for job in found if (job.name, job.ino) in who}


def dropped_by(connection: Connection, name: str, ino: int) -> str:
    """Return who has uploaded a folder through the page; "" when nobody has."""
    found = connection.execute(
        sa.select(requests.c.who, requests.c.args)
        .where(requests.c.job == name, requests.c.action == Action.DROP.value)
        .order_by(requests.c.id.desc())
    )
    return next((row.who for row in found if read_args(row.args).ino == ino), "")
