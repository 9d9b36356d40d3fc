"""Digests: one mail instead of five hundred, a failure at once, and nothing lost on the way."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from ulid import ULID

from dittohead.config.notice_rules import Rule
from dittohead.model.records import JobId
from dittohead.model.states import JobState
from dittohead.store import Store, sqlite_url
from dittohead.store import outbox as outbox_store
from dittohead.store.outbox import MANY, MANY_S, NewNotice
from dittohead.store.tables import outbox
from dittohead.system import fail_points
from tests.support.notices import Clock, composer, job, mail, notifier, rows, rule
from tests.support.postgres import postgres
from tests.support.receivers import Mailbox

pytestmark = pytest.mark.service


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store of either kind."""
    if request.param == "sqlite":
        made = Store.open(sqlite_url(tmp_path))
    else:
        made = Store.open(request.getfixturevalue("server"))
    yield made
    with made.engine.begin() as connection:
        connection.execute(outbox.delete())
    made.close()


@pytest.fixture(scope="module")
def server() -> Iterator[sa.URL]:
    """One PostgreSQL for all."""
    with postgres() as url:
        yield url


def told(store: Store, way: Rule, event: str, *names: str, pipeline: str = "scans") -> None:
    """Put in what a rule says of the ends of jobs."""
    notices = [
        NewNotice(
            rule=way.key,
            event=event,
            subject=f"{event.capitalize()}: {name}",
            body=f"about {name}",
            pipeline=pipeline,
            gather_s=way.digest,
        )
        for name in names
    ]
    store.run(outbox_store.add, notices)


def counts(store: Store) -> dict[str, int]:
    query = sa.select(outbox.c.state, sa.func.count()).group_by(outbox.c.state)
    return {row[0]: row[1] for row in store.run(lambda c: list(c.execute(query)))}


async def test_five_hundred_done_are_one_mail_that_counts_and_names_them(either: Store, box: Mailbox) -> None:
    """Bounded, by pipeline and kind; each member knows its digest."""
    way = mail(box, "done", "failed", digest=900)
    clock, sender = Clock(), notifier(either, [way])
    told(either, way, "done", *(f"lab-{number}" for number in range(490)))
    told(either, way, "done", *(f"other-{number}" for number in range(10)), pipeline="raw")
    assert await sender.send_due() == 0
    assert counts(either) == {"held": 500}
    clock.forward(minutes=15, seconds=1)
    sender = notifier(either, [way], now=clock)
    assert await sender.send_due() == 1
    assert await sender.send_due() == 0
    (message,) = box.mails
    assert message["Subject"] == "500 done"
    text = message.get_content().replace("\r\n", "\n")
    assert "  raw: 10 done\n  scans: 490 done\n" in text
    assert text.count("Done: lab-") == 50
    assert "and 450 more" in text
    assert counts(either) == {"gathered": 500, "sent": 1}
    assert {row["parent"] for row in rows(either) if row["state"] == "gathered"} == {
        message["X-Dittohead-Notice"]
    }


async def test_a_failure_goes_at_once_and_a_flood_of_them_is_two_mails(either: Store, box: Mailbox) -> None:
    """The first as it is, the others in the window's digest, first in it; then again one at once."""
    way = mail(box, "done", "failed", digest=900)
    clock = Clock()
    sender = notifier(either, [way], now=clock)
    told(either, way, "done", "good")
    told(either, way, "failed", *(f"x-{number}" for number in range(500)))
    clock.forward(seconds=60)  # telling so many takes seconds by the real one
    assert await sender.send_due() == 1
    assert box.mails[0]["Subject"] == "Failed: x-0"
    clock.forward(minutes=15)
    await sender.send_due()
    assert await sender.send_due() == 0
    assert [message["Subject"] for message in box.mails[1:]] == ["1 done, 499 failed"]
    assert box.mails[1].get_content().index("Failed: x-1") < box.mails[1].get_content().index("and 450 more")
    with either.engine.begin() as connection:  # as if all that were an hour ago
        connection.execute(outbox.update().values(created_at=outbox.c.created_at - 3600))
    told(either, way, "failed", "later")
    await sender.send_due()
    assert box.mails[2]["Subject"] == "Failed: later"


def test_what_is_told_once_a_day_is_told_again_after_the_clock_was_set_back(
    either: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moment that is yet to come was told nobody knows how long ago: silence for months would be worse."""
    notice = NewNotice(rule="r", event="stuck", subject="s", body="b", once_s=86400.0)
    now = outbox_store.utcnow()
    for back, told_in_all in (
        (timedelta(), 1),
        (timedelta(), 1),
        (timedelta(days=90), 2),
        (timedelta(days=90), 2),
    ):
        monkeypatch.setattr(outbox_store, "utcnow", lambda back=back: now - back)
        either.run(outbox_store.add, [notice])
        with either.engine.connect() as connection:
            found = connection.execute(sa.select(outbox.c.id).where(outbox.c.event == "stuck")).all()
        assert len(found) == told_in_all


async def test_a_failure_goes_at_once_also_after_the_clock_was_set_back(
    either: Store, box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went out before has a moment that is yet to come: nothing is gathered until then."""
    way = mail(box, digest="15m")
    told(either, way, "failed", "one")
    now = outbox_store.utcnow()
    monkeypatch.setattr(outbox_store, "utcnow", lambda: now - timedelta(hours=3))
    either.run(outbox_store.sooner, 3 * 3600.0)
    told(either, way, "failed", "two")
    told(either, way, "failed", "three")
    with either.engine.connect() as connection:
        found = connection.execute(sa.select(outbox.c.body, outbox.c.state)).all()
    assert sorted((row.body, row.state) for row in found) == [
        ("about one", "due"),
        ("about three", "held"),
        ("about two", "due"),
    ]


async def test_one_alone_goes_as_it_is(store: Store, box: Mailbox) -> None:
    """Nobody wants a list of one."""
    way, clock = mail(box, "done", digest=60), Clock()
    told(store, way, "done", "only")
    clock.forward(seconds=61)
    await notifier(store, [way], now=clock).send_due()
    assert [message["Subject"] for message in box.mails] == ["Done: only"]


async def test_rules_reloaded_meanwhile_lose_nothing(store: Store, box: Mailbox) -> None:
    """What was held goes at its time, with or without a digest now; what comes later goes by the new rules."""
    way, clock = mail(box, "done", digest=60), Clock()
    sender = notifier(store, [way], now=clock)
    told(store, way, "done", "a")
    told(store, way, "done", "b")
    without = way.model_copy(update={"digest": None, "on": ["failed"]})
    sender.configure(composer([without]))
    told(store, without, "failed", "c")
    clock.forward(seconds=1)
    await sender.send_due()
    assert [message["Subject"] for message in box.mails] == ["Failed: c"]
    clock.forward(seconds=61)
    await sender.send_due()
    assert [message["Subject"] for message in box.mails] == ["Failed: c", "2 done"]


async def test_a_digest_that_cannot_be_sent_keeps_its_id_and_its_members(store: Store, box: Mailbox) -> None:
    """What comes meanwhile is for the next one."""
    way, clock = mail(box, "done", digest=60), Clock()
    sender = notifier(store, [way], now=clock)
    told(store, way, "done", "a")
    told(store, way, "done", "b")
    clock.forward(seconds=61)
    box.refusing = True
    await sender.send_due()
    (digest,) = [row for row in rows(store) if row["event"] == "digest"]
    told(store, way, "done", "c")
    box.refusing = False
    clock.forward(minutes=1)
    await notifier(store, [way], now=clock).send_due()  # another process
    sent = {message["Subject"]: message["X-Dittohead-Notice"] for message in box.mails}
    assert sent.keys() == {"2 done", "Done: c"}
    assert sent["2 done"] == digest["id"]


@pytest.mark.parametrize("point", ["store.written", "store.committed", "notice.sent"])
async def test_a_death_at_any_moment_sends_each_member_once_more_at_most(
    store: Store, box: Mailbox, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """And always under one id: anyone who gets it twice can tell."""

    class Dead(BaseException):
        pass

    def die(name: str) -> None:
        if name == point:
            raise Dead

    way, clock = mail(box, "done", digest=60), Clock()
    for name in "abc":
        told(store, way, "done", name)
    clock.forward(seconds=61)
    with monkeypatch.context() as patch:
        patch.setattr(fail_points, "point", die)
        with contextlib.suppress(Dead):
            await notifier(store, [way], now=clock).send_due()
            raise AssertionError("it lives")
    again = notifier(store, [way], now=clock)
    while await again.send_due():
        pass
    assert 1 <= len(box.mails) <= 2
    assert len({message["X-Dittohead-Notice"] for message in box.mails}) == 1
    assert {message["Subject"] for message in box.mails} == {"3 done"}
    assert counts(store) == {"gathered": 3, "sent": 1}


def test_what_is_known_of_receivers_is_the_same_on_either(either: Store, box: Mailbox) -> None:
    """Failing, disabled with what is kept, enabled as one digest, forgotten when no rule names it."""
    way, now = mail(box, "done"), Clock().now.timestamp()
    either.run(outbox_store.failed, way.key, "down", now - 5)
    either.run(outbox_store.failed, way.key, "still down", now)
    row = either.run(outbox_store.receiver_rows)[way.key]
    assert (row.failing_since, row.error, row.disabled_at) == (now - 5, "still down", None)
    told(either, way, "done", "a", "b")
    assert either.run(outbox_store.disable, way.key, "gone", now)
    assert not either.run(outbox_store.disable, way.key, "gone", now)
    told(either, way, "done", "c")
    assert either.run(outbox_store.waiting) == {way.key: {"parked": 3}}
    assert either.run(outbox_store.count_disabled) == 1
    either.run(outbox_store.prove)
    either.run(outbox_store.tidy, [way.key], 0.0)
    assert either.run(outbox_store.count_disabled) == 1
    assert either.run(outbox_store.enable, way.key, now, keep_s=60, gathered=True, proven=False)
    assert either.run(outbox_store.waiting) == {way.key: {"held": 3}}
    either.run(outbox_store.disable, way.key, "gone", now)
    either.run(outbox_store.tidy, [], now + 60)
    assert counts(either) == {"given_up": 3}
    assert set(either.run(outbox_store.receiver_rows)) == {"store"}


async def test_each_uploader_has_a_digest_of_their_own(store: Store, box: Mailbox) -> None:
    """And sees nobody else's folders."""
    way = mail(box, "done", to=["uploader", "all@example.org"], digest=60)
    makes = composer([way], addresses={"1000": "one@example.org", "0": "root@example.org"})
    clock = Clock()
    for uid, name in ((1000, b"a"), (1000, b"b"), (0, b"c"), (4242, b"d")):
        store.run(outbox_store.add, makes("done", job=job(name, uid=uid), steps=[], receipt="r"))
    clock.forward(seconds=61)
    await notifier(store, [way], now=clock).send_due()
    got = {message["To"]: message for message in box.mails}
    assert {address: message["Subject"] for address, message in got.items()} == {
        "all@example.org": "4 done",
        "one@example.org": "2 done",
        "root@example.org": "Done: c",
    }
    assert "Done: c" not in got["one@example.org"].get_content()


# -- many of one owner ---------------------------------------------------------------------------


def ended(store: Store, way: Rule, event: str, uid: int, *names: str) -> None:
    """Put in what a rule says of the ends of one owner's jobs, as the engine does."""
    more: dict[str, Any] = {"steps": [], "receipt": Path("r")}
    if event == "recovered":
        more["failure"] = {"job": "J", "at": "then", "reason": "r"}
    for name in names:
        state = JobState.FAILED if event == "failed" else JobState.DONE
        one = replace(job(name.encode(), state=state), uid=uid, id=JobId(str(ULID())))
        store.run(outbox_store.add, composer([way])(event, job=one, **more))


@pytest.mark.parametrize("event", ["failed", "done", "recovered"])
async def test_many_of_one_owner_are_gathered_also_without_a_digest(
    either: Store, box: Mailbox, event: str
) -> None:
    """Two thousand folders are few mails; those of others go at once, and are named beside them."""
    way = mail(box, event)
    ended(either, way, event, 60011, *(f"m{number}" for number in range(MANY + 70)))
    ended(either, way, event, 60012, "alices")
    clock = Clock()
    sender = notifier(either, [way], now=clock)
    await sender.send_due()
    while await sender.send_due():
        pass
    assert len(box.mails) == MANY + 1
    assert box.mails[-1]["Subject"].endswith("alices")
    clock.forward(seconds=MANY_S + 1)
    await sender.send_due()
    text = box.mails[-1].get_content()
    assert (len(box.mails), "and 20 more of 60011: dittohead list" in text) == (MANY + 2, True)
    assert "70 notices since" in text


def test_good_news_holds_no_failure_back(either: Store, box: Mailbox) -> None:
    """Nor the other way round: one owner's many folders that are done, and one that failed."""
    way = mail(box, "done", "failed")
    ended(either, way, "done", 60011, *(f"m{number}" for number in range(MANY + 5)))
    ended(either, way, "failed", 60011, *(f"f{number}" for number in range(MANY + 3)))
    states = Counter((row["event"], row["state"]) for row in rows(either))
    assert states == {
        ("done", "due"): MANY, ("done", "held"): 5, ("failed", "due"): MANY, ("failed", "held"): 3,
    }  # fmt: skip


async def test_a_digest_names_those_of_each_owner(either: Store, box: Mailbox) -> None:
    """One who has thousands does not hide the failure of another."""
    way = mail(box, "failed", digest=600.0)
    ended(either, way, "failed", 60011, *(f"m{number}" for number in range(100)))
    ended(either, way, "failed", 60012, "alices")
    clock = Clock()
    sender = notifier(either, [way], now=clock)
    clock.forward(seconds=601)
    while await sender.send_due():
        pass
    (text,) = [mail.get_content() for mail in box.mails if mail["Subject"] == "100 failed"]
    assert "Failed: alices" in text
    assert "By uploader: 60011 99, 60012 1" in text
    assert "and 50 more: dittohead list" in text


def test_programs_get_each_by_itself(either: Store) -> None:
    """A catalogue that enters every folder needs every one."""
    way = rule(webhook={"url": "https://h", "secret_credential": "s"}, on=["done"])
    ended(either, way, "done", 60011, *(f"m{number}" for number in range(MANY + 5)))
    assert {row["state"] for row in rows(either)} == {"due"}
