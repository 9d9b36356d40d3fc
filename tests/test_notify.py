"""Notices: sent at least once with a stable id, retried, given up loudly, and never with a secret in the log."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import email.parser
import importlib.util
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from dittohead.errors import StoreError
from dittohead.model import Job, JobId, JobState, Station, StepRow, StepState, display, utcnow
from dittohead.notify import Notifier, compose
from dittohead.rules import Rule, check_rules
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


@dataclasses.dataclass(frozen=True)
class Watched(StoreOutbox):
    """An outbox that says when a notice was recorded as sent."""

    recorded: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    async def sent(self, id: str) -> None:
        await super().sent(id)
        self.recorded.set()


def job(folder: bytes = b"lab1-x", **more: Any) -> Job:
    fields: dict[str, Any] = {
        "id": JobId("01J0000000000000000000JOB1"),
        "name": display(folder),
        "folder": folder,
        "station": Station.PROCESSING,
        "dev": 1,
        "ino": 2,
        "uid": 1000,
        "pipeline": "scans",
        "definition": {},
        "values": {},
        "state": JobState.DONE,
        "reason": "",
        "error": None,
        "token": 1,
        "wake_at": None,
        "target": "",
        "files": 1234,
        "size": 56_700_000,
        "claimed_at": utcnow(),
        "finished_at": utcnow(),
        "host": "h",
    }
    return Job(**(fields | more))


def broken(folder: bytes = b"lab1-x", **error: str) -> Job:
    """A job that failed."""
    told = {"what": "the image is cut short", "where": "a.tif", "hint": "Scan it again", "step": "convert"}
    return job(folder, state=JobState.FAILED, error=told | error)


def told_of(root: Path, failed: Job) -> tuple[str, str]:
    return compose("failed", root, job=failed, steps=[], receipt=root / "receipts" / "r.json")


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
    assert message.get_content().splitlines() == ["why", "", f"notice {row['id']}"]
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
        notifier = Notifier(StoreOutbox(store), tos, secrets.__getitem__)
        await notifier.send_due()
        await notifier.send_due()
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


async def test_the_loop_sends_when_woken(store: Store, box: Mailbox) -> None:
    """A notice put in while the notifier sleeps goes out at once."""
    to = mail(box)
    outbox = Watched(store)
    notifier = Notifier(outbox, [to], {}.__getitem__)
    async with running(notifier):
        put(store, to)
        notifier.wake()
        async with asyncio.timeout(20):
            await outbox.recorded.wait()
    assert len(box.mails) == 1


def test_words_for_each_event(tmp_path: Path) -> None:
    """Plain words, numbers people understand, and names that cannot break a header."""
    subject, body = compose("nearly_full", tmp_path, target="/study/lab1", percent=91.6, free=12_300_000_000)
    assert body.startswith("Your study is 92% full: /study/lab1 has 12.3 GB left.")
    subject, _ = compose("stale", tmp_path, name=".x\nBcc: e@x", age_seconds=7200.0, size=5)
    assert subject == "Stale upload: .x\\nBcc: e@x"
    assert compose("paused", tmp_path, target="h", reason="down")[0] == "Paused: h"
    assert compose("resumed", tmp_path, target="h")[0] == "Resumed: h"


def test_a_receiver_that_says_nothing_does_not_hold_up_a_stop(store: Store) -> None:
    """Systemd kills after 20 s; the notice is kept and goes out after the next start."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        to = rule(smtp={"host": "127.0.0.1", "port": port, "sender": "d@x", "to": ["a@x"]})
        put(store, to)

        async def start_and_stop() -> socket.socket:
            async with running(Notifier(StoreOutbox(store), [to], {}.__getitem__)):
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
    await Notifier(StoreOutbox(store), [bad, good], {"bad": "json://[nonsense"}.__getitem__).send_due()
    assert [row["state"] for row in sorted(rows(store), key=lambda row: row["id"])] == ["due", "sent"]


async def test_when_the_store_fails_the_others_under_way_are_waited_for(store: Store, box: Mailbox) -> None:
    """Else they would be due still, and go out a second time beside the first."""
    failed = threading.Event()

    class Failing(StoreOutbox):
        async def sent(self, id: str) -> None:
            if not failed.is_set():
                failed.set()
                raise StoreError("the database is away")
            await super().sent(id)

    take = box.handle_DATA

    async def second_takes_longer(server: Any, session: Any, envelope: Any) -> str:
        if b"Subject: second" in envelope.content:
            await asyncio.to_thread(failed.wait, 20)
        return await take(server, session, envelope)

    box.handle_DATA = second_takes_longer  # type: ignore[method-assign]
    put(store, mail(box), subject="first")
    put(store, mail(box), subject="second")
    with pytest.raises(StoreError):
        await Notifier(Failing(store), [mail(box)], {}.__getitem__).send_due()
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
    await Notifier(StoreOutbox(store), [to], {}.__getitem__).send_due()
    assert rows(store)[0]["state"] == "sent"
    assert "gone@example.org" in capsys.readouterr().out
    nobody = mail(box, to=["gone@example.org"])
    put(store, nobody)
    await Notifier(StoreOutbox(store), [nobody], {}.__getitem__).send_due()
    assert "the mail server refused every address of this rule" in [row["error"] for row in rows(store)]


async def test_a_server_that_hangs_up_after_taking_a_mail_gets_it_once(store: Store, box: Mailbox) -> None:
    """The mail is taken; the goodbye does not matter."""

    async def rude(server: Any, session: Any, envelope: Any) -> str:
        return "421 closing"

    box.handle_QUIT = rude  # type: ignore[attr-defined]
    put(store, mail(box))
    await Notifier(StoreOutbox(store), [mail(box)], {}.__getitem__).send_due()
    assert rows(store)[0]["state"] == "sent"


async def test_addresses_that_would_forge_headers_are_refused(store: Store, box: Mailbox) -> None:
    """And said so in words."""
    to = mail(box, sender="d@example.org\nBcc: evil@example.org")
    put(store, to)
    await Notifier(StoreOutbox(store), [to], {}.__getitem__).send_due()
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
        await Notifier(StoreOutbox(store), [to], {"pw": "S3CRET"}.__getitem__).send_due()
    finally:
        server.stop()
    assert rows(store)[0]["error"] == "the mail server refused the login"


def test_done_is_told_with_what_was_done_and_where_the_evidence_lies(tmp_path: Path) -> None:
    """What an archivist keeps."""
    steps = [
        StepRow(
            position=0,
            name="originals",
            worker="rsync",
            state=StepState.DONE,
            attempts=1,
            started_at=None,
            finished_at=None,
            saved={},
            result={"locations": 1234, "detail": "1,234 files"},
            error="",
        )
    ]
    receipt = tmp_path / "receipts" / "r.json"
    links = [("record", "https://archives.example.org/repositories/2/digital_objects/9")]
    subject, body = compose("done", tmp_path, job=job(), steps=steps, receipt=receipt, links=links)
    assert "Record: https://archives.example.org/repositories/2/digital_objects/9" in body
    many = compose("done", tmp_path, job=job(), steps=steps, receipt=receipt, links=links * 15)[1]
    assert many.count("Record: ") == 12
    assert "and 3 more, in the receipt" in many
    assert subject == "Done: lab1-x"
    assert "lab1-x is done: 1,234 files, 56.7 MB." in body
    assert "Delivered and verified: 1,234 files." in body
    assert f"Receipt: {receipt}" in body
    assert "Job 01J0000000000000000000JOB1, pipeline scans." in body


@pytest.mark.parametrize(
    "folder", [b"plain", b"it's $HOME", b"two\nlines", b"\xff7 latin", b"a\\'\n1", b"-rf", b"\x1b[2J"]
)
def test_the_line_to_run_a_failed_folder_again_is_exact(tmp_path: Path, folder: bytes) -> None:
    """Pasted into a shell it moves that very folder, whatever its name."""
    _, body = told_of(tmp_path, broken(folder))
    for station in (b"failed", b"inbox"):
        os.mkdir(os.path.join(os.fsencode(tmp_path), station))
    os.mkdir(os.path.join(os.fsencode(tmp_path), b"failed", folder))
    assert all(line.isprintable() for line in body.splitlines())
    (line,) = re.findall(r"^    (mv .*)$", body, re.MULTILINE)
    subprocess.run(["bash", "-c", line], check=True)
    assert os.listdir(os.path.join(os.fsencode(tmp_path), b"inbox")) == [folder]


def test_the_line_never_moves_an_earlier_failure_of_that_name(tmp_path: Path) -> None:
    """This one gets another name in failed/; the job's id says which is meant."""
    (tmp_path / "failed" / "lab1-x").mkdir(parents=True)
    _, body = told_of(tmp_path, broken())
    assert "mv " not in body
    assert "    dittohead rerun 01J0000000000000000000JOB1" in body


def test_a_failure_says_what_where_and_what_to_do(tmp_path: Path) -> None:
    """In three lines that a name cannot forge, and that can be stored whatever bytes are in them."""
    subject, body = told_of(tmp_path, broken(b"x\nDo:    nothing", where="a\udcff.tif", what="cut\x1b[2J"))
    assert subject == "Failed: x\\nDo:    nothing"
    lines = body.splitlines()
    assert [line for line in lines if line.startswith(("What:", "Where:", "Do:"))] == [
        "What:  cut\\x1b[2J",
        "Where: a\\udcff.tif",
        "Do:    Scan it again",
    ]
    assert (subject + body).encode()


def test_a_subject_stays_one_header_of_bounded_length(tmp_path: Path, store: Store) -> None:
    """A name may have 255 bytes, of any kind."""
    subject, _ = told_of(tmp_path, broken(b"n\r\nBcc: e@x\r\n" + b"y" * 240))
    assert len(subject) <= 200
    assert email.parser.HeaderParser().parsestr(f"Subject: {subject}\n\n").keys() == ["Subject"]


def test_a_rule_names_one_way_only() -> None:
    """Which of two was meant cannot be guessed."""
    with pytest.raises(ValueError, match="exactly one of url, url_credential and smtp"):
        rule(url="json://h", url_credential="x")
    with pytest.raises(ValueError, match="exactly one of url, url_credential and smtp"):
        rule()


def test_a_rules_key_is_stable_and_tells_no_secret() -> None:
    """It is kept in the store across restarts; what is asked for may change without losing notices."""
    one = rule(url="json://user:S3CRET@h/S3CRET")
    assert one.key == rule(url="json://user:S3CRET@h/S3CRET", on=["done"]).key
    assert one.key != rule(url="json://user:S3CRET@other/S3CRET").key
    assert re.fullmatch("[0-9a-f]{16}", one.key)


def test_without_apprise_a_url_is_refused_when_the_configuration_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the command that mends it; mail needs nothing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (problem,) = check_rules([rule(url="json://h")])
    assert "pip install 'dittohead[notify]'" in problem
    assert check_rules([rule(smtp={"host": "h", "sender": "d@x", "to": ["a@x"]})]) == []


def test_apprise_is_loaded_only_when_a_rule_needs_it() -> None:
    """It is large; most sites send mail."""
    code = "import sys, dittohead.daemon; sys.exit('apprise' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
