"""A notice by any of Apprise's URLs. Blocking: for a thread."""

from __future__ import annotations

import logging
from collections.abc import Callable

from dittohead.config.notice_rules import Rule
from dittohead.notices.outcome import NotSent, credential
from dittohead.store.outbox import Notice


def send(rule: Rule, notice: Notice, credentials: Callable[[str], str]) -> None:
    """Hand a notice to Apprise.

    Args:
        rule: the rule; its URL may hold a secret.
        credentials: a credential by name.

    Raises: NotSent, and whatever Apprise raises, with secrets in it.
    """
    import apprise  # large, and only where a rule needs it

    _hush()
    url = credential(credentials, rule.url_credential) if rule.url_credential else rule.url
    sender = apprise.Apprise()
    if not url or not sender.add(url):
        raise NotSent("Apprise does not understand this URL")
    body = f"{notice.body}\n\nnotice {notice.id}"
    if not sender.notify(title=notice.subject, body=body, body_format=apprise.NotifyFormat.TEXT):
        raise NotSent("the receiver did not take it")


def _hush() -> None:
    """Keep what the libraries log to themselves: URLs they could not reach, tokens and all."""
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    # urllib3 logs each request's path, which is the token in many URLs, at the level debug.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)
