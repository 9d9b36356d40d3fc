"""Notices: sent at least once with a stable id, retried, given up loudly, and never with a secret in the log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dittohead.notify import Notifier, compose
from dittohead.rules import Rule
from dittohead.store import Store, sqlite_url
from dittohead.store import outbox as outbox_store
from dittohead.store.outbox import NewNotice, StoreOutbox
from dittohead.store.tables import outbox
from tests.support.receivers import Mailbox, mailbox, receiver

pytestmark = pytest.mark.service


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **amount: float) -> None:
        self.now += timedelta(**amount)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.open(sqlite_url(tmp_path))
    yield made
    made.close()


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


def rule(**fields: Any) -> Rule:
    return Rule.model_validate({"on": ["failed"], **fields})


def mail(box: Mailbox, **more: Any) -> Rule:
    smtp = {"host": "127.0.0.1", "port": box.port, "sender": "d@example.org", "to": ["a@example.org"], **more}
    return rule(smtp=smtp)


def put(store: Store, to: Rule, subject: str = "Failed: x", body: str = "why") -> None:
    notice = NewNotice(rule=to.key, event="failed", subject=subject, body=body)
    store.run(outbox_store.add, [notice])


def rows(store: Store) -> list[Any]:
    return store.run(lambda c: list(c.execute(sa.select(outbox)).mappings()))


@contextlib.asynccontextmanager
async def running(notifier: Notifier) -> AsyncIterator[None]:
    task = asyncio.create_task(notifier.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_notice_goes_out_by_mail_with_its_id(store: Store, box: Mailbox) -> None:
    """The same Message-ID at every try, so that a repetition is recognised."""
    to = mail(box)
    put(store, to, subject="Failed: ümläut\nBcc: evil@example.org".replace("\n", "\\n"))
    notifier = Notifier(StoreOutbox(store), [to], {}.__getitem__)
    assert await notifier.send_due() == 1
    (message,) = box.mails
    (row,) = rows(store)
    assert row["state"] == "sent"
    assert message["X-Dittohead-Notice"] == row["id"]
    assert message["Message-ID"].startswith(f"<{row['id']}@")
    assert message.get_content() == "why\r\n\r\n".replace("\r\n\r\n", "\n") or "why" in message.get_content()
    assert message["Bcc"] is None


async def test_a_notice_goes_out_by_apprise(store: Store) -> None:
    """Any of Apprise's URLs; here its JSON one, to a real receiver."""
    async with receiver() as got:
        to = rule(url=f"json://127.0.0.1:{got.port}/hook")
        put(store, to)
        await Notifier(StoreOutbox(store), [to], {}.__getitem__).send_due()
    (post,) = got.posts
    assert post["title"] == "Failed: x"
    assert post["message"].endswith(f"notice {rows(store)[0]['id']}")


async def test_a_failed_try_is_repeated_later_until_it_works(store: Store, box: Mailbox) -> None:
    """With growing waits; nothing is lost, nothing sent twice."""
    to, clock = mail(box), Clock()
    notifier = Notifier(StoreOutbox(store), [to], {}.__getitem__, clock)
    put(store, to)
    clock.forward(seconds=1)
    box.refusing = True
    assert await notifier.send_due() == 1
    assert await notifier.send_due() == 0
    (row,) = rows(store)
    assert (row["state"], row["attempts"], row["error"]) == ("due", 1, "the mail server answered 451")
    box.refusing = False
    clock.forward(minutes=1)
    assert await notifier.send_due() == 1
    clock.forward(days=1)
    assert await notifier.send_due() == 0
    assert len(box.mails) == 1


async def test_after_days_a_notice_is_given_up(store: Store, box: Mailbox) -> None:
    """Kept in the store as evidence, and said in the log as an error."""
    to, clock = mail(box), Clock()
    box.refusing = True
    put(store, to)
    clock.forward(days=4)
    await Notifier(StoreOutbox(store), [to], {}.__getitem__, clock).send_due()
    assert rows(store)[0]["state"] == "given_up"


async def test_a_notice_whose_rule_is_gone_is_given_up(store: Store, box: Mailbox) -> None:
    """The configuration was changed meanwhile."""
    put(store, mail(box))
    await Notifier(StoreOutbox(store), [], {}.__getitem__).send_due()
    assert rows(store)[0]["error"] == "its rule is no longer in config.yaml"


async def test_no_secret_reaches_the_log_or_the_store(
    store: Store, box: Mailbox, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever fails: the URL with its token, the password, the credential."""
    async with receiver() as got:
        got.status = 500
        tos = [
            rule(url=f"json://user:S3CRET1@127.0.0.1:{got.port}/S3CRET2"),
            rule(url_credential="hook"),
            rule(url="nonsense://S3CRET3"),
            mail(box, user="u", password_credential="pw"),
            mail(box, port=1),
        ]
        for to in tos:
            put(store, to)
        secrets = {"hook": f"json://127.0.0.1:{got.port}/S3CRET4", "pw": "S3CRET5"}
        notifier = Notifier(StoreOutbox(store), tos, secrets.__getitem__)
        await notifier.send_due()
        await notifier.send_due()
    said = capsys.readouterr()
    everything = said.out + said.err + caplog.text + "".join(row["error"] for row in rows(store))
    assert "S3CRET" not in everything
    errors = sorted(row["error"] for row in rows(store))
    assert all(errors)
    assert "the mail server offers no encryption, and a password is not sent without" in errors
    assert [to.shown for to in tos[:3]] == ["json://***", "credential hook", "nonsense://***"]


async def test_the_loop_sends_when_woken(store: Store, box: Mailbox) -> None:
    """A notice put in while the notifier sleeps goes out at once."""
    to = mail(box)
    notifier = Notifier(StoreOutbox(store), [to], {}.__getitem__)
    async with running(notifier):
        put(store, to)
        notifier.wake()
        async with asyncio.timeout(20):
            while not box.mails:
                await asyncio.sleep(0.01)


def test_words_for_each_event(tmp_path: Path) -> None:
    """Plain words, numbers people understand, and names that cannot break a header."""
    subject, body = compose("nearly_full", tmp_path, target="/study/lab1", percent=91.6, free=12_300_000_000)
    assert body.startswith("Your study is 92% full: /study/lab1 has 12.3 GB left.")
    subject, _ = compose("stale", tmp_path, name=".x\nBcc: e@x", age_seconds=7200.0, size=5)
    assert subject == "Stale upload: .x\\nBcc: e@x"
    assert compose("paused", tmp_path, target="h", reason="down")[0] == "Paused: h"
    assert compose("resumed", tmp_path, target="h")[0] == "Resumed: h"
