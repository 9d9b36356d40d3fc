"""Webhooks: as Standard Webhooks 1.0.0 has them, to a receiver that checks every header and signature."""

from __future__ import annotations

import base64
import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
import standardwebhooks

from dittohead.config.notice_rules import Rule
from dittohead.notices import webhook
from dittohead.notices.outcome import NotSent
from dittohead.notices.sender import Notifier
from dittohead.store import Store
from dittohead.store import outbox as outbox_store
from dittohead.store.outbox import NewNotice
from tests.support.notices import Clock, broken, composer, mail, notifier, put, rows, rule
from tests.support.receivers import Hook, Mailbox, hook, receiver
from tests.test_metrics import NOTHING, values

pytestmark = pytest.mark.service

SECRET = "whsec_" + base64.b64encode(b"n" * 24).decode()
OLD = "whsec_" + base64.b64encode(b"o" * 64).decode()


def to(got: Hook, *secrets: str, **more: Any) -> Rule:
    names = list(secrets) or ["hook-secret"]
    return rule(webhook={"url": got.url("/hook?token=S3CRET1"), "secret_credential": names}, **more)


def sender(store: Store, *rules: Rule, **more: Any) -> Notifier:
    return notifier(store, rules, {"hook-secret": SECRET, "old": OLD + "\n"}, **more)


async def test_a_failure_is_posted_signed_and_in_the_documented_shape(store: Store) -> None:
    """Whatever the folder is called."""
    async with hook(SECRET) as got:
        way = to(got)
        store.run(outbox_store.add, composer([way])(
            "failed", job=broken(b"x\n\xff", where="a\udcff.tif"), steps=[], receipt="r.json"
        ))  # fmt: skip
        assert await sender(store, way).send_due() == 1
    assert got.wrong == []
    (taken,) = got.taken
    (row,) = rows(store)
    assert (taken["id"], taken["type"]) == (row["id"], "job.failed")
    assert taken["data"]["job"]["id"] == "01J0000000000000000000JOB1"
    assert taken["data"]["error"]["where"] == "a\\udcff.tif"
    assert row["state"] == "sent"


async def test_while_a_secret_is_changed_both_sign(store: Store) -> None:
    """A receiver that knows only the old one, or only the new one, believes it."""
    for known in (OLD, SECRET):
        async with hook(known) as got:
            way = to(got, "hook-secret", "old")
            put(store, way)
            await sender(store, way).send_due()
        assert (got.wrong, len(got.taken)) == ([], 1)


async def test_a_receiver_with_another_secret_takes_nothing(store: Store) -> None:
    """The check of the receiver of these tests is one."""
    async with hook(OLD) as got:
        put(store, to(got))
        await sender(store, to(got)).send_due()
    assert got.taken == []
    assert "nobody we know has signed this" in got.wrong[0]


async def test_the_specifications_own_example_is_signed_as_it_says() -> None:
    """By its reference libraries' published test vector."""
    key = webhook.secret("s", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    now = datetime.fromtimestamp(1614265330, UTC)
    headers = webhook.signed("msg_p5jXN8AQM9LWM0D4loKWxJek", now, b'{"test": 2432232314}', [key])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"


@pytest.mark.parametrize("body", [b"{}", b'{"x":"\xc3\xa9"}', b"[" + b"0," * 50_000 + b"0]"])
@pytest.mark.parametrize("secrets", [[SECRET], [OLD], [OLD, SECRET]])
def test_the_reference_implementation_takes_our_signatures(body: bytes, secrets: list[str]) -> None:
    """By any of the secrets that a rule has; not for another body, nor by another secret."""
    keys = [webhook.secret("s", text) for text in secrets]
    headers = webhook.signed("01J", datetime.now(UTC), body, keys)
    for text in secrets:
        standardwebhooks.Webhook(text).verify(body, headers)
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(text).verify(body + b" ", headers)
    other = "whsec_" + base64.b64encode(b"p" * 32).decode()
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(other).verify(body, headers)


@pytest.mark.parametrize(
    "text", ["", "whsec_", "no", "whsec_!!!", "whsec_" + base64.b64encode(b"x" * 23).decode(), SECRET[6:]]
)
def test_what_is_no_secret_is_refused_without_being_shown(text: str) -> None:
    """With what would do."""
    with pytest.raises(
        NotSent, match='the credential "name" is not a secret of a webhook: whsec_ and'
    ) as raised:
        webhook.secret("name", text)
    assert text == "" or text in ("no", "whsec_") or text not in str(raised.value)


async def test_it_is_tried_by_the_schedule_with_one_id_and_one_body_and_then_given_up(store: Store) -> None:
    """Ten tries over three days; then it is disabled, and the others are told."""
    clock = Clock()
    async with hook(SECRET) as got, receiver() as chat:
        way, other = to(got, name="machine"), rule(url=f"json://127.0.0.1:{chat.port}/", on=["paused"])
        got.answers = [(500, {})] * 30
        got.now = lambda: clock.now.timestamp()
        put(store, way)
        notify, began, tries = sender(store, way, other, now=clock), clock.now, []
        clock.forward(seconds=1)
        while rows(store)[0]["state"] == "due":
            before = len(got.tries)
            await notify.send_due()
            tries += [(clock.now - began).total_seconds()] * (len(got.tries) - before)
            clock.now = datetime.fromtimestamp(rows(store)[0]["due_at"] + 0.001, UTC)
        assert len(set(got.tries)) == 1
        assert got.wrong == []
        assert len(tries) == 10
        waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
        for wait, wanted in zip(waits, webhook.WAITS_S, strict=True):
            assert 0.79 * wanted <= wait <= 1.21 * wanted
        assert 60 * 3600 < tries[-1] < 91 * 3600
        assert store.run(outbox_store.count_disabled) == 1
        clock.forward(minutes=1)
        await notify.send_due()
    assert [row["state"] for row in rows(store)] == ["given_up", "sent"]
    found = values(notify.metrics.expose(NOTHING, {}).decode())
    counted = {
        (name.removeprefix("dittohead_notices_"), labels[0][1]): value
        for (name, labels), value in found.items()
        if name.endswith("_total") and "notices" in name and value
    }
    assert counted == {
        ("failed_total", "webhook"): 10,
        ("given_up_total", "webhook"): 1,
        ("sent_total", "apprise"): 1,
    }
    (told,) = chat.posts
    assert told["title"] == "No more notices to machine"
    assert "dittohead notify enable machine" in told["message"]


async def test_retry_after_is_heeded(store: Store) -> None:
    """Where it asks for more than the schedule."""
    clock = Clock()
    async with hook(SECRET) as got:
        way = to(got)
        got.answers = [(429, {"Retry-After": "7200"}), (503, {"Retry-After": "1"})]
        put(store, way)
        clock.forward(seconds=1)
        await sender(store, way, now=clock).send_due()
        assert rows(store)[0]["due_at"] == pytest.approx(clock.now.timestamp() + 7200, abs=5)
        clock.forward(hours=2, seconds=5)
        await sender(store, way, now=clock).send_due()
        assert 230 < rows(store)[0]["due_at"] - clock.now.timestamp() < 370


async def test_410_disables_at_once_and_keeps_what_waits(store: Store) -> None:
    """Also what comes later; enabled again it gets all of it, once."""
    async with hook(SECRET) as got:
        way, notify = to(got), sender(store, to(got))
        got.answers = [(410, {})]
        put(store, way, subject="first")
        await notify.send_due()
        put(store, way, subject="second")
        assert await notify.send_due() == 0
        assert [row["state"] for row in rows(store)] == ["parked", "parked"]
        assert await notify.enable(way)
        await notify.send_due()
        assert not await notify.enable(way)
    assert [row["state"] for row in rows(store)] == ["sent", "sent"]
    assert len(got.taken) == 2
    assert store.run(outbox_store.count_disabled) == 0


async def test_redirects_are_not_followed_and_bodies_not_read(store: Store) -> None:
    """A token would go along; and an answer may never end."""
    async with hook(SECRET) as got:
        got.answers = [(307, {"Location": got.url("/elsewhere")})]
        put(store, to(got))
        await sender(store, to(got)).send_due()
        assert len(got.tries) == 1
    assert "redirects are not followed" in rows(store)[0]["error"]


async def test_no_secret_of_a_webhook_is_said(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever goes wrong: URL, token, secret."""
    bad = [
        rule(webhook={"url": "http://127.0.0.1:9/S3CRET2", "secret_credential": "hook-secret"}),
        rule(webhook={"url_credential": "url", "secret_credential": "hook-secret"}),
        rule(webhook={"url_credential": "ftp", "secret_credential": "hook-secret"}),
        rule(webhook={"url": "https://u:S3CRET3@127.0.0.1:9/", "secret_credential": "bad"}),
        rule(webhook={"url": "https://127.0.0.1:9/x", "secret_credential": "none"}),
    ]
    for way in bad:
        put(store, way)
    secrets = {
        "hook-secret": SECRET,
        "bad": "whsec_S3CRET4",
        "url": "http://S3CRET5.invalid/S3CRET6",
        "ftp": "ftp://h/S3CRET7",
    }
    await notifier(store, bad, secrets).send_due()
    said = capsys.readouterr()
    everything = said.out + said.err + "".join(row["error"] for row in rows(store))
    everything += "".join(way.shown for way in bad)
    assert "S3CRET" not in everything
    assert SECRET not in everything
    assert all(row["error"] for row in rows(store))


async def test_a_receiver_that_works_again_gets_what_waits_at_once(store: Store, box: Mailbox) -> None:
    """Not each at the end of its own wait; and no other receiver waits for one that is down."""
    clock = Clock()
    async with hook(SECRET) as got:
        way = to(got)
        got.answers = [(500, {})] * 3
        for number in range(3):
            put(store, way, subject=str(number))
        put(store, mail(box))
        notify = sender(store, way, mail(box), now=clock)
        clock.forward(seconds=1)
        await notify.send_due()
        assert (len(box.mails), len(got.taken)) == (1, 0)
        with store.engine.begin() as connection:  # two of them wait for a day
            connection.exec_driver_sql(
                f"UPDATE outbox SET due_at = due_at + 86400 WHERE subject IN ('1', '2') AND rule = '{way.key}'"
            )
        clock.forward(seconds=70)
        await notify.send_due()
        assert len(got.taken) == 1
        clock.forward(seconds=1)
        await notify.send_due()
        assert len(got.taken) == 3


def test_every_event_has_a_type_of_its_own() -> None:
    """Full-stop delimited, as the specification wants it."""
    from dittohead.config.notice_templates import EVENTS

    assert set(webhook.TYPES) == set(EVENTS)
    assert len(set(webhook.TYPES.values())) == len(EVENTS)


async def test_a_digest_for_a_program_says_what_it_stands_for(store: Store) -> None:
    """Counts and members, with their ids."""
    clock = Clock()
    async with hook(SECRET) as got:
        way = to(got, on=["done"], digest=60)
        for number in range(70):
            notice = NewNotice(
                rule=way.key, event="done", subject=f"Done: {number}", body="", gather_s=60, pipeline="scans"
            )
            store.run(outbox_store.add, [notice])
        clock.forward(seconds=61)
        await sender(store, way, now=clock).send_due()
    (taken,) = got.taken
    assert taken["type"] == "notice.digest"
    data = taken["data"]
    assert (data["count"], data["more"], len(data["notices"])) == (70, 20, 50)
    assert data["pipelines"] == [{"name": "scans", "kinds": [{"event": "done", "count": 70}]}]
    members = {row["id"] for row in rows(store) if row["parent"] == taken["id"]}
    assert len(members) == 70
    assert {notice["id"] for notice in data["notices"]} <= members


async def test_a_notice_that_alone_is_refused_keeps_its_own_schedule(store: Store) -> None:
    """Else each that is taken would have it tried again at once."""
    clock = Clock()
    async with hook(SECRET) as got:
        way, notify = to(got), sender(store, to(got), now=clock)
        got.answers = [(422, {})]
        put(store, way, subject="bad")
        clock.forward(seconds=1)
        await notify.send_due()
        (bad,) = rows(store)
        put(store, way, subject="good")
        clock.forward(seconds=1)
        await notify.send_due()
        assert len(got.taken) == 1
        assert {row["subject"]: row["due_at"] for row in rows(store)}["bad"] == bad["due_at"]
