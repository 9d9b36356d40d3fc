"""Notices: sent at least once with a stable id, retried, given up loudly, and never with a secret in the log."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
import threading
import time
from collections.abc import Collection
from datetime import datetime
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from dittohead.engine.targets import Targets
from dittohead.model.errors import StoreError
from dittohead.notices.sender import Notifier
from dittohead.store import Connection, Store
from dittohead.store import outbox as outbox_store
from dittohead.store.outbox import NewNotice, Notice, StoreOutbox
from tests.support.notices import Clock, composer, mail, notifier, put, rows, rule, running
from tests.support.receivers import Mailbox, receiver

pytestmark = pytest.mark.service


@dataclasses.dataclass(frozen=True)
class Watched(StoreOutbox):
    """An outbox that says when a notice was recorded as sent."""

    recorded: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    async def sent(self, notice: Notice, now: datetime) -> None:
        await super().sent(notice, now)
        self.recorded.set()


async def test_a_notice_goes_out_by_mail_with_its_id(store: Store, box: Mailbox) -> None:
    """The same Message-ID at every try, so that a repetition is recognised."""
    to = mail(box)
    put(store, to, subject="Failed: ümläut\nBcc: evil@example.org".replace("\n", "\\n"))
    sender = notifier(store, [to])
    assert await sender.send_due() == 1
    (message,) = box.mails
    (row,) = rows(store)
    assert row["state"] == "sent"
    assert message["X-Dittohead-Notice"] == row["id"]
    assert message["Message-ID"].startswith(f"<{row['id']}@")
    assert message.get_content().splitlines() == ["why", "", f"notice {row['id']}"]
    assert message["Bcc"] is None


async def test_a_notice_wakes_the_sender_by_whatever_part_it_is_written(store: Store, box: Mailbox) -> None:
    """A target that is down, full, nearly full or back: not only at the next look, in five minutes."""
    to = mail(box, "paused", "full", "nearly_full", "resumed")
    targets = Targets(store, composer([to]), 90.0)
    sender = notifier(store, [to])
    looked = asyncio.Event()
    due = sender.outbox.next_due

    async def next_due(leaving_out: Collection[str] = ()) -> datetime | None:
        looked.set()
        return await due(leaving_out)

    object.__setattr__(sender.outbox, "next_due", next_due)
    async with running(sender), asyncio.timeout(60):
        await looked.wait()  # it has nothing to do, and sleeps
        for number, tell in enumerate(
            (lambda: targets.pause("a", "down"), lambda: targets.filled("b", "no room", is_own=False)), 1
        ):
            await tell()
            while len(box.mails) < number:
                await asyncio.sleep(0.01)


async def test_a_notice_that_is_not_written_wakes_nobody(store: Store, box: Mailbox) -> None:
    """Nor does what is written besides."""
    woken: list[int] = []
    store.on_told = lambda: woken.append(1)

    def work(connection: Connection) -> None:
        outbox_store.add(connection, [NewNotice(rule="r", event="failed", subject="s", body="b")])
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await store.write(work)
    await store.write(outbox_store.prove)
    assert woken == []
    await store.write(outbox_store.add, [NewNotice(rule="r", event="failed", subject="s", body="b")])
    assert woken == [1]


async def test_a_notice_goes_out_by_apprise(store: Store) -> None:
    """Any of Apprise's URLs; here its JSON one, to a real receiver."""
    async with receiver() as got:
        to = rule(url=f"json://127.0.0.1:{got.port}/hook")
        put(store, to)
        await notifier(store, [to]).send_due()
    (post,) = got.posts
    assert post["title"] == "Failed: x"
    assert post["message"].endswith(f"notice {rows(store)[0]['id']}")


async def test_a_failed_try_is_repeated_later_until_it_works(store: Store, box: Mailbox) -> None:
    """With growing waits; nothing is lost, nothing sent twice."""
    to, clock = mail(box), Clock()
    sender = notifier(store, [to], now=clock)
    put(store, to)
    clock.forward(seconds=1)
    box.refusing = True
    assert await sender.send_due() == 1
    assert await sender.send_due() == 0
    (row,) = rows(store)
    assert (row["state"], row["attempts"], row["error"]) == ("due", 1, "the mail server answered 451")
    box.refusing = False
    clock.forward(minutes=1)
    assert await sender.send_due() == 1
    clock.forward(days=1)
    assert await sender.send_due() == 0
    assert len(box.mails) == 1


async def test_after_days_a_notice_is_given_up(store: Store, box: Mailbox) -> None:
    """Kept in the store as evidence, and said in the log as an error."""
    to, clock = mail(box), Clock()
    box.refusing = True
    put(store, to)
    clock.forward(days=4)
    await notifier(store, [to], now=clock).send_due()
    assert rows(store)[0]["state"] == "given_up"


async def test_a_notice_whose_rule_is_gone_is_given_up(store: Store, box: Mailbox) -> None:
    """The configuration was changed meanwhile."""
    put(store, mail(box))
    await notifier(store, []).send_due()
    assert rows(store)[0]["error"] == "its rule is no longer in config.yaml"


async def test_no_secret_reaches_the_log_or_the_store(
    store: Store, box: Mailbox, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever fails: the URL with its token, the password, the credential; at any level of logging."""
    caplog.set_level(logging.DEBUG)
    async with receiver() as got:
        got.status = 500
        tos = [
            rule(url=f"json://user:S3CRET1@127.0.0.1:{got.port}/S3CRET2"),
            rule(url_credential="hook"),
            rule(url="nonsense://S3CRET3"),
            rule(url_credential="odd"),
            mail(box, user="u", password_credential="pw"),
            mail(box, port=1),
        ]
        for to in tos:
            put(store, to)
        secrets = {"hook": f"json://127.0.0.1:{got.port}/S3CRET4", "pw": "S3CRET5", "odd": "json://[S3CRET6"}
        sender = notifier(store, tos, secrets)
        await sender.send_due()
        await sender.send_due()
    said = capsys.readouterr()
    # The receivers run in this process too, and log what reaches them.
    ours = [r for r in caplog.records if not r.name.startswith(("aiohttp", "mail.", "asyncio"))]
    everything = said.out + said.err + "".join(row["error"] for row in rows(store))
    everything += "".join(f"{r.getMessage()} {r.exc_text}" for r in ours)
    assert "S3CRET" not in everything
    errors = sorted(row["error"] for row in rows(store))
    assert all(errors)
    assert "the mail server offers no encryption, and a password is not sent without" in errors
    assert [to.shown for to in tos[:3]] == ["json://***", "credential hook", "nonsense://***"]


async def test_a_silent_receiver_keeps_no_other_waiting(store: Store, box: Mailbox) -> None:
    """However much is due for it: each has a lane of its own."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        smtp = {"host": "127.0.0.1", "port": silent.getsockname()[1], "sender": "d@x", "to": ["a@x"]}
        hung, well = rule(smtp=smtp), mail(box)
        outbox = Watched(store)
        sender = Notifier(outbox, composer([hung, well]), {}.__getitem__)
        for number in range(10):
            put(store, hung, subject=str(number))
        async with running(sender):
            for _ in range(3):
                put(store, well)
                sender.wake()
                async with asyncio.timeout(20):
                    await outbox.recorded.wait()
                outbox.recorded.clear()
    assert len(box.mails) == 3


async def test_the_loop_sends_when_woken(store: Store, box: Mailbox) -> None:
    """A notice put in while the notifier sleeps goes out at once."""
    to = mail(box)
    outbox = Watched(store)
    sender = Notifier(outbox, composer([to]), {}.__getitem__)
    async with running(sender):
        put(store, to)
        sender.wake()
        async with asyncio.timeout(20):
            await outbox.recorded.wait()
    assert len(box.mails) == 1


def test_a_receiver_that_says_nothing_does_not_hold_up_a_stop(store: Store) -> None:
    """Systemd kills after 20 s; the notice is kept and goes out after the next start."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        to = rule(smtp={"host": "127.0.0.1", "port": port, "sender": "d@x", "to": ["a@x"]})
        put(store, to)

        async def start_and_stop() -> socket.socket:
            async with running(notifier(store, [to])):
                connection, _ = await asyncio.to_thread(silent.accept)
            return connection

        began = time.monotonic()
        with asyncio.run(start_and_stop()):
            assert time.monotonic() - began < 10
    assert rows(store)[0]["state"] == "due"


async def test_a_url_that_cannot_be_read_harms_nobody_else(store: Store, box: Mailbox) -> None:
    """Its own notice is tried again; the others go out."""
    bad, good = rule(url_credential="bad"), mail(box)
    put(store, bad)
    put(store, good)
    await notifier(store, [bad, good], {"bad": "json://[nonsense"}).send_due()
    assert [row["state"] for row in sorted(rows(store), key=lambda row: row["id"])] == ["due", "sent"]


async def test_when_the_store_fails_the_others_under_way_are_waited_for(store: Store, box: Mailbox) -> None:
    """Else they would be due still, and go out a second time beside the first."""
    failed = threading.Event()

    class Failing(StoreOutbox):
        async def sent(self, notice: Notice, now: datetime) -> None:
            if not failed.is_set():
                failed.set()
                raise StoreError("the database is away")
            await super().sent(notice, now)

    take = box.handle_DATA

    async def second_takes_longer(server: Any, session: Any, envelope: Any) -> str:
        if b"Subject: second" in envelope.content:
            await asyncio.to_thread(failed.wait, 20)
        return await take(server, session, envelope)

    box.handle_DATA = second_takes_longer  # type: ignore[method-assign]
    put(store, mail(box), subject="first")
    put(store, mail(box), subject="second")
    with pytest.raises(StoreError):
        await Notifier(Failing(store), composer([mail(box)]), {}.__getitem__).send_due()
    assert {row["subject"]: row["state"] for row in rows(store)} == {"first": "due", "second": "sent"}


async def test_one_refused_address_does_not_send_the_others_their_mail_twice(
    store: Store, box: Mailbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is sent, and the log says who did not get it."""

    async def only_a(server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("gone"):
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    box.handle_RCPT = only_a  # type: ignore[attr-defined]
    to = mail(box, to=["a@example.org", "gone@example.org"])
    put(store, to)
    await notifier(store, [to]).send_due()
    assert rows(store)[0]["state"] == "sent"
    assert "gone@example.org" in capsys.readouterr().out
    nobody = mail(box, to=["gone@example.org"])
    put(store, nobody)
    await notifier(store, [nobody]).send_due()
    assert "the mail server refused every address of this rule" in [row["error"] for row in rows(store)]


async def test_a_server_that_hangs_up_after_taking_a_mail_gets_it_once(store: Store, box: Mailbox) -> None:
    """The mail is taken; the goodbye does not matter."""

    async def rude(server: Any, session: Any, envelope: Any) -> str:
        return "421 closing"

    box.handle_QUIT = rude  # type: ignore[attr-defined]
    put(store, mail(box))
    await notifier(store, [mail(box)]).send_due()
    assert rows(store)[0]["state"] == "sent"


async def test_addresses_that_would_forge_headers_are_refused(store: Store, box: Mailbox) -> None:
    """And said so in words."""
    good = mail(box)  # config.yaml would be refused; what the sender is given is looked at once more
    assert good.smtp is not None
    forged = good.smtp.model_copy(update={"sender": "d@example.org\nBcc: evil@example.org"})
    to = good.model_copy(update={"smtp": forged})
    put(store, to)
    await notifier(store, [to]).send_due()
    assert rows(store)[0]["error"] == "the addresses of this rule cannot be used"
    assert box.mails == []


async def test_a_refused_login_is_said_without_the_password(store: Store) -> None:
    """By a server that takes no password."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Controller(
        Mailbox(),
        hostname="127.0.0.1",
        port=port,
        authenticator=lambda *_: AuthResult(success=False, handled=False),
        auth_require_tls=False,
    )
    server.start()
    smtp = {"host": "127.0.0.1", "port": port, "starttls": "never", "sender": "d@example.org"}
    to = rule(smtp=smtp | {"to": ["a@example.org"], "user": "u", "password_credential": "pw"})
    put(store, to)
    try:
        await notifier(store, [to], {"pw": "S3CRET"}).send_due()
    finally:
        server.stop()
    assert rows(store)[0]["error"] == "the mail server refused the login"
