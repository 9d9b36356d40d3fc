"""Find jobs by what people know of them, a page at a time; quick also among a hundred thousand."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dittohead.model.job_filter import JobFilter, is_digest
from dittohead.model.records import Job
from dittohead.model.states import JobState
from dittohead.store import digests as digest_store
from dittohead.store import history
from dittohead.store.columns import FIRST, LAST
from dittohead.store.jobs import to_job
from dittohead.store.tables import batches, digests, jobs

#: Characters of an id from which on its beginning is searched for.
_ID_LEAST = 6


@dataclass(frozen=True)
class Cursor:
    """The last job of a page: the next page begins after it."""

    claimed_at: float
    id: str

    def __str__(self) -> str:
        """Return it as text for a URL; its form is private."""
        return base64.urlsafe_b64encode(json.dumps([self.claimed_at, self.id]).encode()).decode().rstrip("=")

    @classmethod
    def read(cls, text: str) -> Cursor:
        """Return the cursor of a text. Raises: ValueError: it is none."""
        try:
            found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            moment, id_ = found
            if not (isinstance(moment, float) and isinstance(id_, str)):
                raise TypeError
            id_.encode()  # JSON can name half a character, which no database takes
        except (binascii.Error, ValueError, TypeError) as error:
            raise ValueError("this is not a cursor of an earlier answer") from error
        return cls(moment, id_)


@dataclass(frozen=True)
class JobPage:
    """Some of the jobs that were found, the latest claim first."""

    jobs: list[Job]
    following: Cursor | None  #: None: there are no more


def find(
    connection: Connection, wanted: JobFilter, *, after: Cursor | None = None, limit: int = 50
) -> JobPage:
    """Return one page of the jobs that fit, the latest claim first.

    Args:
        wanted: what they have to fit.
        after: where the page before ended; None for the first page.
        limit: how many at most.
    """
    # Ids first: their index holds all that is asked for, while a job's row is long.
    ids = sa.select(jobs.c.id).where(*_conditions(wanted)).limit(limit + 1)
    if after is not None:
        ids = ids.where(sa.tuple_(jobs.c.claimed_at, jobs.c.id) < sa.tuple_(after.claimed_at, after.id))
    ids = ids.order_by(*latest_first(wanted.states))
    query = sa.select(jobs).where(jobs.c.id.in_(connection.execute(ids).scalars().all()))
    query = query.order_by(jobs.c.claimed_at.desc(), jobs.c.id.desc())
    found = [to_job(row) for row in connection.execute(query).mappings()]
    if len(found) <= limit:
        return JobPage(found, None)
    last = found[limit - 1]
    return JobPage(found[:limit], Cursor(last.claimed_at.timestamp(), last.id))


def latest_first(states: Sequence[JobState]) -> tuple[sa.ColumnElement[Any], ...]:
    """Return the order of jobs in some states (none: in any), the latest claim first.

    Of states that few jobs are in, SQLite would still go through all jobs by the time of their claim,
    since it need not sort then: the longest question among a hundred thousand jobs. A sum cannot be looked
    up in an index.
    """
    rare = bool(states) and JobState.DONE not in states
    claimed_at = jobs.c.claimed_at + 0 if rare else jobs.c.claimed_at
    return claimed_at.desc(), jobs.c.id.desc()


def _conditions(wanted: JobFilter) -> list[sa.ColumnElement[bool]]:
    # A damaged moment has no place in the order, and no page could go on from it; its row is told apart.
    found = [jobs.c.claimed_at.between(FIRST, LAST), *_of_span(wanted), *_of_name(wanted)]
    if wanted.states:
        found.append(jobs.c.state.in_([state.value for state in wanted.states]))
    if wanted.pipeline:
        found.append(jobs.c.pipeline == wanted.pipeline)
    if wanted.uid is not None:
        found.append(jobs.c.uid == wanted.uid)
    if wanted.open:
        found.append(history.open_failure())
    if wanted.reason:
        found.append(jobs.c.reason.icontains(wanted.reason, autoescape=True))
    if wanted.holds:
        found.append(_held(wanted.holds))
    if wanted.text:
        found.append(_said(wanted.text.strip()))
    return found


def _of_name(wanted: JobFilter) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if wanted.name:
        found.append(jobs.c.name == wanted.name)
    if wanted.part:
        found.append(jobs.c.name.icontains(wanted.part, autoescape=True))
    if wanted.batch:
        found.append(jobs.c.batch == _latest_batch(wanted.batch))
    return found


def _latest_batch(named: str) -> sa.ScalarSelect[str]:
    query = sa.select(batches.c.id).where(sa.or_(batches.c.id == named.upper(), batches.c.name == named))
    return query.order_by(batches.c.claimed_at.desc()).limit(1).scalar_subquery()


def _of_span(wanted: JobFilter) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if wanted.since is not None:
        found.append(jobs.c.claimed_at >= wanted.since.timestamp())
    if wanted.until is not None:
        found.append(jobs.c.claimed_at < wanted.until.timestamp())
    return found


def _said(text: str) -> sa.ColumnElement[bool]:
    """Return the condition for a text that may be part of a name, of an id or of a digest."""
    ways: list[sa.ColumnElement[bool]] = [jobs.c.name.icontains(text, autoescape=True)]
    if len(text) >= _ID_LEAST and text.isalnum() and text.isascii():
        ways.append(jobs.c.id.startswith(text.upper()))
    if is_digest(text):
        ways.append(_held(text))
    return sa.or_(*ways)


def _held(digest: str) -> sa.ColumnElement[bool]:
    least, greatest = digest_store.span(digest)
    return jobs.c.id.in_(sa.select(digests.c.job_id).where(digests.c.head.between(least, greatest)))
