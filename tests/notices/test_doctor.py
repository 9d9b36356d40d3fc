"""`doctor` on receivers of notices: everything that comes before a notice, and none."""

from __future__ import annotations

import socket

from dittohead.config.notice_rules import Rule
from dittohead.notices.doctor import probe_all
from tests.support.receivers import mailbox, receiver

SECRET = "whsec_" + "A" * 32


def rule(**fields: object) -> Rule:
    return Rule.model_validate(fields)


async def test_a_receiver_is_good_when_it_would_take_a_notice_and_gets_none() -> None:
    """A mail server is asked up to the first address; a program's host is connected to."""
    with mailbox() as box:
        async with receiver() as hook:
            smtp = {"host": "127.0.0.1", "port": box.port, "sender": "d@example.org", "to": ["a@example.org"]}
            url = f"http://127.0.0.1:{hook.port}/secret-path"
            rules = [
                rule(smtp=smtp),
                rule(smtp={**smtp, "to": ["uploader"]}),
                rule(webhook={"url": url, "secret_credential": "key"}),
                rule(ping={"url_credential": "ping"}),
            ]
            found = await probe_all(rules, {"key": SECRET, "ping": url}.__getitem__)
        assert box.mails == []
        assert hook.posts == []
    assert [good for good, _, _ in found] == [True, True, True, True]
    assert found[0][2] == "127.0.0.1 takes mail to a@example.org"


async def test_a_receiver_that_could_take_nothing_is_bad_in_words_without_secrets() -> None:
    """Nobody listens; the login, an address or encryption is refused; a credential is missing or no secret."""
    with socket.socket() as taken, mailbox() as box:
        taken.bind(("127.0.0.1", 0))  # and never listens
        port = taken.getsockname()[1]
        smtp = {"host": "127.0.0.1", "port": box.port, "sender": "d@example.org", "to": ["a@example.org"]}
        url = f"http://127.0.0.1:{port}/secret-path"
        rules = [
            rule(smtp={**smtp, "port": port}),
            rule(smtp={**smtp, "starttls": "required"}),
            rule(smtp={**smtp, "user": "u", "password_credential": "none"}),
            rule(smtp={**smtp, "sender": "d@" + "x" * 70_000 + ".org"}),
            rule(webhook={"url": url, "secret_credential": "key"}),
            rule(webhook={"url": url, "secret_credential": "short"}),
            rule(ping={"url_credential": "none"}),
        ]
        found = await probe_all(rules, {"key": SECRET, "short": "whsec_AA"}.__getitem__)
        assert box.mails == []
    said = [message for _, _, message in found]
    assert [good for good, _, _ in found] == [False] * len(rules)
    for message, words in zip(
        said,
        (
            f"port {port}, cannot be used",
            "offers no encryption",
            'no credential "none"',
            "the mail server refused: 5",
            "its host cannot be reached",
            'the credential "short" is not a secret',
            'no credential "none"',
        ),
        strict=True,
    ):
        assert words in message
        assert "secret-path" not in message
