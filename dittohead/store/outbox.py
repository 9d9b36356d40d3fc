"""Transactions on the outbox: notices written with the change they report, and sent after it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping
from ulid import ULID

from dittohead.model.states import PENDING, NoticeState
from dittohead.model.text import utcnow
from dittohead.store.database import TOLD, Store
from dittohead.store.tables import outbox, receivers

#: Notices that a digest names; the others are only counted.
NAMED = 50

#: Notices of one owner's folders that one receiver gets by themselves in so many seconds; more are gathered,
#: also where a rule has no digest: any uploader could cause thousands.
MANY, MANY_S = 20, 900.0

#: News that all is well: however much of it there is, what went wrong is told at once.
_WELL = ("done", "recovered")

#: Uploaders that a digest names.
_OWNERS = 10

_PENDING = [state.value for state in NoticeState if state in PENDING]
_ALL = [state.value for state in NoticeState]
_BY_ITSELF = [NoticeState.DUE.value, NoticeState.SENT.value, NoticeState.GIVEN_UP.value]

_IS_DUE = outbox.c.state == NoticeState.DUE.value
_IS_HELD = outbox.c.state == NoticeState.HELD.value
_IS_PARKED = outbox.c.state == NoticeState.PARKED.value

#: A receiver that has taken nothing for this long, and then takes something, is taken to be back. Seconds.
_WHILE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class NewNotice:
    """A notice to be put in the outbox."""

    rule: str  #: key of the rule it is for
    event: str
    subject: str
    body: str
    job: str | None = None
    pipeline: str = ""  #: of the job
    recipient: str = ""  #: an address instead of the rule's own
    data: dict[str, Any] = field(default_factory=dict)  #: its facts, as programs get them
    gather_s: float | None = None  #: seconds for which notices of this rule are gathered into one
    once_s: float | None = None  #: not put in where one like it was, so many seconds ago or less
    of: int | None = None  #: whose folder it tells people of, where many of one owner's are gathered


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One row of the outbox."""

    id: str  #: the idempotency key, sent with every try
    rule: str
    event: str
    job: str | None
    subject: str
    body: str
    created_at: datetime
    attempts: int
    recipient: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """What a digest lists."""

    rule: str
    recipient: str
    counts: list[tuple[str, str, int]]  #: (pipeline, event, how many)
    notices: list[Notice]  #: failures first, then the oldest first; `NAMED` at most
    since: datetime  #: when the first was put in
    owners: list[tuple[str, int]] = field(default_factory=list)  #: (uploader, how many), the most first


@dataclass(frozen=True, kw_only=True)
class ReceiverRow:
    """A receiver that has failed at least once."""

    key: str
    failing_since: float | None  #: seconds since the epoch; None: its last try was taken
    disabled_at: float | None
    error: str  #: of its last try that failed
    error_at: float | None


def instead(notices: Sequence[NewNotice], of: Iterable[NewNotice]) -> list[NewNotice]:
    """Return notices, and of others those for whom there is none of the first: nobody is told both."""
    told = {(notice.rule, notice.recipient) for notice in notices}
    return [*notices, *(other for other in of if (other.rule, other.recipient) not in told)]


def add(connection: Connection, notices: Iterable[NewNotice], *, about: str | None = None) -> None:
    """Put notices in, in the same transaction as what they report.

    Each is due at once, but for one that is gathered with others (`gather_s`): a failure where none
    went out within that time goes at once, all else waits for the digest.

    Args:
        about: what they are about where that is not a job; 26 characters at most.
    """
    new = list(notices)
    if not new:
        return
    now = utcnow().timestamp()
    disabled = set(
        connection.execute(sa.select(receivers.c.key).where(receivers.c.disabled_at.is_not(None))).scalars()
    )
    for notice in new:
        key = notice.job or about
        if notice.once_s is not None and _was_told(connection, notice, key, now):
            continue
        state, due_at = (
            (NoticeState.PARKED, now) if notice.rule in disabled else _when(connection, notice, now)
        )
        _insert(connection, notice, key, state=state, now=now, due_at=due_at)


def _insert(
    connection: Connection,
    notice: NewNotice,
    job: str | None,
    *,
    state: NoticeState,
    now: float,
    due_at: float,
) -> str:
    made = str(ULID())
    connection.info[TOLD] = (
        True  # the sender is woken when it is on disk, by whatever part of us it was written
    )
    connection.execute(
        outbox.insert(),
        {
            "id": made,
            "rule": notice.rule,
            "event": notice.event,
            "job_id": job,
            "subject": notice.subject,
            "body": notice.body,
            "state": state.value,
            "created_at": now,
            "due_at": due_at,
            "attempts": 0,
            "error": "",
            "recipient": notice.recipient,
            "pipeline": notice.pipeline,
            "data": notice.data,
            "parent": None,
        },
    )
    return made


def _like(notice: NewNotice) -> tuple[sa.ColumnElement[bool], ...]:
    return outbox.c.rule == notice.rule, outbox.c.recipient == notice.recipient


def _was_told(connection: Connection, notice: NewNotice, job: str | None, now: float) -> bool:
    assert notice.once_s is not None  # noqa: S101
    same = outbox.c.job_id.is_(None) if job is None else outbox.c.job_id == job
    # What seems to come from the future was told before the clock was set back, nobody knows how long ago.
    lately = outbox.c.created_at.between(now - notice.once_s, now)
    query = sa.select(outbox.c.id).where(*_like(notice), outbox.c.event == notice.event, same, lately)
    return connection.execute(query.limit(1)).first() is not None


def _when(connection: Connection, notice: NewNotice, now: float) -> tuple[NoticeState, float]:
    """Return the state and the moment of a new notice: at once, or with those it is gathered with."""
    if notice.gather_s is None:
        if notice.of is None or not _has_many(connection, notice, now):
            return NoticeState.DUE, now
        return _held_until(connection, notice, now + MANY_S)
    ends = now + notice.gather_s
    if notice.event == "failed":
        lead = connection.execute(
            sa.select(sa.func.max(outbox.c.created_at)).where(
                *_like(notice),
                outbox.c.event == "failed",
                outbox.c.state.in_(
                    [NoticeState.DUE.value, NoticeState.SENT.value, NoticeState.GIVEN_UP.value]
                ),
                # Not what was put in before the clock was set back: until then is longer than `gather_s`.
                outbox.c.created_at > now - notice.gather_s,
                outbox.c.created_at <= now,
            )
        ).scalar()
        if lead is None:
            return NoticeState.DUE, now
        ends = lead + notice.gather_s
    return _held_until(connection, notice, ends)


def _has_many(connection: Connection, notice: NewNotice, now: float) -> bool:
    """Tell whether a receiver got as many notices of this owner's folders lately as it may.

    What went well, and what did not, are counted apart.
    """
    kind = outbox.c.event.in_(_WELL)
    query = sa.select(outbox.c.id).where(
        *_like(notice),
        outbox.c.state.in_(_ALL),  # for the index
        outbox.c.created_at > now - MANY_S,
        outbox.c.created_at <= now,
        kind if notice.event in _WELL else ~kind,
        outbox.c.data["job"]["uid"].as_integer() == notice.of,
    )
    return len(connection.execute(query.limit(MANY)).all()) == MANY


def _held_until(connection: Connection, notice: NewNotice, ends: float) -> tuple[NoticeState, float]:
    """Return that a notice goes with those that are held already, or at a moment."""
    held = connection.execute(
        sa.select(sa.func.min(outbox.c.due_at)).where(*_like(notice), _IS_HELD)
    ).scalar()
    return NoticeState.HELD, ends if held is None else min(held, ends)


def sooner(connection: Connection, seconds: float) -> None:
    """Let notices be due so much earlier: the clock was set back."""
    connection.execute(
        outbox.update().where(sa.or_(_IS_DUE, _IS_HELD)).values(due_at=outbox.c.due_at - seconds)
    )


def gather(connection: Connection, now: float, words: Callable[[Gathered], NewNotice]) -> list[str]:
    """Make a digest of what is held for each rule and address whose time has ended; return their ids.

    One notice alone goes as it is. A digest's members stay as rows, each with its digest's id.
    """
    groups = connection.execute(
        sa.select(outbox.c.rule, outbox.c.recipient).where(_IS_HELD, outbox.c.due_at <= now).distinct()
    ).all()
    made = []
    for rule, recipient in groups:
        held = (
            _IS_HELD,
            outbox.c.rule == rule,
            outbox.c.recipient == recipient,
        )
        found = _held(connection, rule, recipient, held)
        if sum(count for _, _, count in found.counts) == 1:
            connection.execute(outbox.update().where(*held).values(state=NoticeState.DUE.value))
            continue
        digest = _insert(connection, words(found), None, state=NoticeState.DUE, now=now, due_at=now)
        connection.execute(
            outbox.update().where(*held).values(state=NoticeState.GATHERED.value, parent=digest)
        )
        made.append(digest)
    return made


def _held(
    connection: Connection, rule: str, recipient: str, held: Sequence[sa.ColumnElement[bool]]
) -> Gathered:
    counts = connection.execute(
        sa.select(outbox.c.pipeline, outbox.c.event, sa.func.count(), sa.func.min(outbox.c.created_at))
        .where(*held)
        .group_by(outbox.c.pipeline, outbox.c.event)
        .order_by(outbox.c.pipeline, outbox.c.event)
    ).all()
    first = sa.case((outbox.c.event == "failed", 0), else_=1)
    # Each owner in turn: one who has thousands does not hide the others.
    oldest = (outbox.c.created_at, outbox.c.id)
    turn = sa.func.row_number().over(partition_by=[_fact("uid"), first], order_by=oldest)
    rows = connection.execute(
        sa.select(outbox).where(*held).order_by(first, turn, *oldest).limit(NAMED)
    ).mappings()
    number, uploader = sa.func.count(), _fact("uploader")
    owners = connection.execute(
        sa.select(uploader, number)
        .where(*held, uploader.is_not(None))
        .group_by(uploader)
        .order_by(number.desc(), uploader)
        .limit(_OWNERS)
    ).all()
    return Gathered(
        rule=rule,
        recipient=recipient,
        counts=[(row[0], row[1], row[2]) for row in counts],
        notices=[_notice(row) for row in rows],
        since=datetime.fromtimestamp(min(row[3] for row in counts), UTC),
        owners=[(row[0], row[1]) for row in owners],
    )


def _fact(name: str) -> sa.ColumnElement[str]:
    """Return a fact of the folder that a notice is about."""
    return sa.func.coalesce(
        *(outbox.c.data[about][name].as_string() for about in ("job", "upload", "arrival"))
    )


def _notice(row: RowMapping) -> Notice:
    return Notice(
        id=row["id"],
        rule=row["rule"],
        event=row["event"],
        job=row["job_id"],
        subject=row["subject"],
        body=row["body"],
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        attempts=row["attempts"],
        recipient=row["recipient"],
        data=row["data"],
    )


def _due_rules(connection: Connection, now: float) -> list[str]:
    query = sa.select(outbox.c.rule).where(_IS_DUE, outbox.c.due_at <= now).distinct()
    return list(connection.execute(query).scalars())


def _due(connection: Connection, now: float, limit: int, rule: str) -> list[Notice]:
    found = connection.execute(
        sa.select(outbox)
        .where(outbox.c.rule == rule, _IS_DUE, outbox.c.due_at <= now)
        .order_by(outbox.c.due_at, outbox.c.id)
        .limit(limit)
    ).mappings()
    return [_notice(row) for row in found]


def _next_due(connection: Connection, leaving_out: Collection[str]) -> float | None:
    return connection.execute(
        sa.select(sa.func.min(outbox.c.due_at)).where(
            sa.or_(_IS_DUE, _IS_HELD),
            outbox.c.rule.not_in(list(leaving_out)),
        )
    ).scalar()


def _set(connection: Connection, notice: str, values: dict[str, object]) -> None:
    connection.execute(
        outbox.update().where(outbox.c.id == notice).values(attempts=outbox.c.attempts + 1, **values)
    )


# -- receivers -------------------------------------------------------------------------------


def receiver_rows(connection: Connection) -> dict[str, ReceiverRow]:
    """Return what is known of each receiver that has ever failed, by its rule's key."""
    rows = connection.execute(sa.select(receivers)).mappings()
    return {row["key"]: ReceiverRow(**row) for row in rows}


def count_disabled(connection: Connection) -> int:
    """Return how many receivers are disabled."""
    query = sa.select(sa.func.count()).where(receivers.c.disabled_at.is_not(None))
    return connection.execute(query).scalar_one()


def waiting(connection: Connection) -> dict[str, dict[str, int]]:
    """Return how many notices wait for each rule, by state: due, held for a digest, parked."""
    found: dict[str, dict[str, int]] = {}
    query = (
        sa.select(outbox.c.rule, outbox.c.state, sa.func.count())
        .where(outbox.c.state.in_(_PENDING))
        .group_by(outbox.c.rule, outbox.c.state)
    )
    for rule, state, count in connection.execute(query):
        found.setdefault(rule, {})[state] = count
    return found


def put_receiver(connection: Connection, key: str, **values: object) -> None:
    """Change what is known of a receiver."""
    result = connection.execute(receivers.update().where(receivers.c.key == key).values(**values))
    if result.rowcount == 0:
        connection.execute(receivers.insert().values({"key": key, "error": "", **values}))


def failed(connection: Connection, key: str, error: str, now: float) -> None:
    """Record that a receiver did not take what it was sent.

    Args:
        key: the key of its rule.
        error: why, in words, without secrets.
        now: seconds since the epoch.
    """
    since = connection.execute(sa.select(receivers.c.failing_since).where(receivers.c.key == key)).scalar()
    put_receiver(connection, key, failing_since=since or now, error=error, error_at=now)


def works(connection: Connection, key: str, now: float) -> bool:
    """Record that a receiver has taken something.

    What waits for its next try is due at once where the receiver had taken nothing for a while: where it
    refuses one notice only and takes the others, that one keeps its waits.

    Returns: whether it had failed before.
    """
    since = connection.execute(
        sa.select(receivers.c.failing_since).where(
            receivers.c.key == key, receivers.c.failing_since.is_not(None)
        )
    ).scalar()
    if since is None:
        return False
    put_receiver(connection, key, failing_since=None)
    if since <= now - _WHILE_S:
        connection.execute(outbox.update().where(outbox.c.rule == key, _IS_DUE).values(due_at=now))
    return True


def disable(connection: Connection, key: str, error: str, now: float) -> bool:
    """Send a receiver nothing more, until it is enabled; what waits for it is kept.

    Args:
        key: the key of its rule.
        error: the last error, in words, without secrets.
        now: seconds since the epoch.

    Returns: whether it was enabled until now.
    """
    known = connection.execute(sa.select(receivers.c.disabled_at).where(receivers.c.key == key)).scalar()
    if known is None:
        put_receiver(connection, key, disabled_at=now, error=error, error_at=now)
    connection.execute(
        outbox.update()
        .where(outbox.c.rule == key, sa.or_(_IS_DUE, _IS_HELD))
        .values(state=NoticeState.PARKED.value)
    )
    return known is None


def enable(
    connection: Connection, key: str, now: float, *, keep_s: float, gathered: bool, proven: bool
) -> bool:
    """Send a receiver notices again, and those that were kept for it and are not older than `keep_s`.

    Args:
        gathered: the kept ones go as one digest.
        proven: it has just taken something; otherwise one that was not disabled goes on failing as it did.

    Returns: whether it was disabled.
    """
    was = connection.execute(sa.select(receivers.c.disabled_at).where(receivers.c.key == key)).scalar()
    if was is None and not proven:
        return False
    connection.execute(
        receivers.update().where(receivers.c.key == key).values(disabled_at=None, failing_since=None)
    )
    _give_up_parked(connection, now - keep_s)
    connection.execute(
        outbox.update()
        .where(outbox.c.rule == key, _IS_PARKED)
        .values(state=(NoticeState.HELD if gathered else NoticeState.DUE).value, due_at=now, attempts=0)
    )
    return was is not None


#: The row that shows that the store can be written; no rule's key.
_PROOF = "store"


def prove(connection: Connection) -> None:
    """Write something, to see that the store can be written."""
    put_receiver(connection, _PROOF, error_at=utcnow().timestamp())


def tidy(connection: Connection, keys: Collection[str], before: float) -> None:
    """Forget receivers that no rule names, and give up what has been kept since before a moment."""
    connection.execute(receivers.delete().where(receivers.c.key.not_in([*keys, _PROOF])))
    _give_up_parked(connection, before)


def _give_up_parked(connection: Connection, before: float) -> None:
    connection.execute(
        outbox.update()
        .where(_IS_PARKED, outbox.c.created_at <= before)
        .values(state=NoticeState.GIVEN_UP.value, error="its receiver was disabled")
    )


@dataclass(frozen=True)
class StoreOutbox:
    """The outbox as the notifier sees it."""

    store: Store

    async def gather(self, now: datetime, words: Callable[[Gathered], NewNotice]) -> list[str]:
        """Make the digests that are due; return their ids."""
        return await self.store.write(gather, now.timestamp(), words)

    async def has_held(self, now: datetime) -> bool:
        """Tell whether a digest is due."""
        return await self.store.read(_has_held, now.timestamp())

    async def due_rules(self, now: datetime) -> list[str]:
        """Return the keys of the rules that have something to be sent now."""
        return await self.store.read(_due_rules, now.timestamp())

    async def due(self, now: datetime, limit: int, rule: str) -> list[Notice]:
        """Return notices of a rule that are to be sent now, the oldest first.

        Args:
            now: notices with a later time wait.
            limit: how many at most.
            rule: the rule's key.
        """
        return await self.store.read(_due, now.timestamp(), limit, rule)

    async def next_due(self, leaving_out: Collection[str] = ()) -> datetime | None:
        """Return when the next notice or digest is due; None when the outbox is empty."""
        seconds = await self.store.read(_next_due, leaving_out)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    async def sent(self, notice: Notice, now: datetime) -> None:
        """Record that a notice has been handed over."""

        def work(connection: Connection) -> None:
            _set(connection, notice.id, {"state": NoticeState.SENT.value, "error": ""})
            works(connection, notice.rule, now.timestamp())

        await self.store.write(work)

    async def postponed(
        self, notice: Notice, until: datetime, error: str, now: datetime, *, receivers_fault: bool
    ) -> None:
        """Record a try that failed, and when the next one is due.

        Args:
            notice: what was not sent.
            until: when it is due again.
            error: why, in words, without secrets.
            now: when it was tried.
            receivers_fault: the receiver itself does not work; False: only this notice was refused.

        Raises: StoreError.
        """

        def work(connection: Connection) -> None:
            _set(connection, notice.id, {"due_at": until.timestamp(), "error": error})
            if receivers_fault:
                failed(connection, notice.rule, error, now.timestamp())

        await self.store.write(work)

    async def given_up(self, notice: Notice, error: str) -> None:
        """Record that no more tries will be made."""
        await self.store.write(_set, notice.id, {"state": NoticeState.GIVEN_UP.value, "error": error})

    async def failing_since(self, rule: str) -> float | None:
        """Return since when a receiver has taken nothing, seconds since the epoch; None: it works."""
        known = (await self.store.read(receiver_rows)).get(rule)
        return None if known is None else known.failing_since

    async def disable(
        self, rule: str, error: str, now: datetime, told: Callable[[int], list[NewNotice]]
    ) -> bool:
        """Disable a receiver, and store the notices that tell others of it.

        Args:
            rule: the key of its rule.
            error: the last error, in words, without secrets.
            now: when it is disabled.
            told: makes those notices; it is given how many notices are kept for the receiver.

        Returns: whether it was enabled until now.
        Raises: StoreError.
        """

        def work(connection: Connection) -> bool:
            if not disable(connection, rule, error, now.timestamp()):
                return False
            kept = waiting(connection).get(rule, {}).get("parked", 0)
            add(connection, told(kept))
            return True

        return await self.store.write(work)

    async def enable(self, rule: str, now: datetime, *, keep_s: float, gathered: bool, proven: bool) -> bool:
        """Enable a receiver, and send it what was kept for it; return whether it was disabled.

        Args:
            rule: the key of its rule.
            now: when it is enabled; kept notices are due then.
            keep_s: kept notices older than this are given up. Seconds.
            gathered: the kept ones go as one digest.
            proven: it has just accepted something; otherwise one that was not disabled is left as it was.

        Raises: StoreError.
        """
        return await self.store.write(
            enable, rule, now.timestamp(), keep_s=keep_s, gathered=gathered, proven=proven
        )

    async def tidy(self, rules: Collection[str], before: datetime) -> None:
        """Forget receivers no rule names, and what was kept too long."""
        await self.store.write(tidy, rules, before.timestamp())


def _has_held(connection: Connection, now: float) -> bool:
    query = sa.select(outbox.c.id).where(_IS_HELD, outbox.c.due_at <= now)
    return connection.execute(query.limit(1)).first() is not None
