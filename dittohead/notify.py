"""Tell people: from the outbox to Apprise and mail; retried for days, never deciding an outcome."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import smtplib
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from pathlib import Path
from typing import Any, Protocol

from dittohead import faults, log
from dittohead.errors import DittoheadError, StoreError
from dittohead.model import Job, Station, StepRow, counted, host_name, shell_word, utcnow, visible
from dittohead.rules import Rule, Smtp
from dittohead.store.outbox import NewNotice, Notice
from dittohead.threads import detached

#: Waits between tries: doubled from the first to the last, with jitter.
RETRY_FIRST_S, RETRY_MOST_S = 30.0, 6 * 3600.0
#: After this long a notice is given up, loudly: nobody needs it any more.
GIVE_UP_S = 3 * 86400.0
#: Notices sent at once.
AT_ONCE = 4
#: A receiver that does not answer in this time has failed.
TIMEOUT_S = 30.0
#: Records and pages that a notice names.
_LINKS = 12
#: Looked for at least this often, in case a wake-up was lost.
_LOOK_S = 300.0


class Outbox(Protocol):
    """The outbox as the notifier needs it; rows are kept after sending."""

    async def due(self, now: datetime, limit: int) -> list[Notice]:
        """Return notices to be sent now, oldest first."""

    async def next_due(self) -> datetime | None:
        """Return when the next notice is due."""

    async def sent(self, id: str) -> None:
        """Record that a notice was handed over."""

    async def postponed(self, id: str, until: datetime, error: str) -> None:
        """Record a failed try."""

    async def given_up(self, id: str, error: str) -> None:
        """Record that no more tries are made."""


class _NotSent(Exception):
    """A try failed; the message holds no secret."""


class Notifier:
    """Sends what the outbox holds. `rules` may be replaced at any time."""

    def __init__(
        self,
        outbox: Outbox,
        rules: Sequence[Rule],
        credentials: Callable[[str], str],
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        self.rules = rules
        self._outbox, self._credentials, self._now = outbox, credentials, now
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look into the outbox now."""
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled; no receiver's fault ever leaves."""
        while True:
            self._wake.clear()
            try:
                while await self.send_due():
                    pass
                due = await self._outbox.next_due()
            except StoreError as error:
                log.get().error(log.NOTIFY_FAILED, error=str(error))
                due = None
            wait = _LOOK_S if due is None else (due - self._now()).total_seconds()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(wait, 0.05), _LOOK_S)):
                    await self._wake.wait()

    async def send_due(self) -> int:
        """Try every notice that is due, a few at once; return how many there were."""
        notices = await self._outbox.due(self._now(), AT_ONCE)
        ends = await asyncio.gather(*(self._send(notice) for notice in notices), return_exceptions=True)
        # All have ended before the next look: a notice still under way would be due again and go twice.
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return len(notices)

    async def _send(self, notice: Notice) -> None:
        rule = next((rule for rule in self.rules if rule.key == notice.rule), None)
        if rule is None:
            await self._give_up(notice, "a rule that is gone", "its rule is no longer in config.yaml")
            return
        try:
            # A receiver that says nothing would hold up a stop for longer than systemd waits. A send
            # left behind goes out again, with the same id.
            if rule.smtp is not None:
                smtp = rule.smtp
                await detached(lambda: self._mail(smtp, notice), "notice")
            else:
                await detached(lambda: self._apprise(rule, notice), "notice")
        except _NotSent as error:
            await self._failed(notice, rule, str(error))
        except Exception as error:  # noqa: BLE001  # a receiver's library may raise anything, secrets in it
            await self._failed(notice, rule, f"unforeseen {type(error).__name__}")
        else:
            faults.point("notice.sent")
            await self._outbox.sent(notice.id)
            log.get().info(
                log.NOTIFY_SENT, notice=notice.id, notice_event=notice.event, to=_shown(rule), job=notice.job
            )

    async def _failed(self, notice: Notice, rule: Rule, error: str) -> None:
        if (self._now() - notice.created_at).total_seconds() > GIVE_UP_S:
            await self._give_up(notice, _shown(rule), error)
            return
        wait = min(RETRY_FIRST_S * 2 ** min(notice.attempts, 20), RETRY_MOST_S) * random.uniform(0.8, 1.2)  # noqa: S311
        log.get().warning(
            log.NOTIFY_FAILED, notice=notice.id, to=_shown(rule), error=error, wait_s=round(wait)
        )
        await self._outbox.postponed(notice.id, self._now() + timedelta(seconds=wait), error)

    async def _give_up(self, notice: Notice, to: str, error: str) -> None:
        log.get().error(
            log.NOTIFY_GIVEN_UP, notice=notice.id, to=to, subject=notice.subject, error=error, job=notice.job
        )
        await self._outbox.given_up(notice.id, error)

    # -- the two ways ------------------------------------------------------------------------

    def _credential(self, name: str) -> str:
        try:
            return self._credentials(name)
        except KeyError as error:
            raise _NotSent(f'there is no credential "{name}"') from error

    def _apprise(self, rule: Rule, notice: Notice) -> None:
        import apprise  # large, and only where a rule needs it

        _hush()
        url = self._credential(rule.url_credential) if rule.url_credential else rule.url
        sender = apprise.Apprise()
        if not url or not sender.add(url):
            raise _NotSent("Apprise does not understand this URL")
        body = f"{notice.body}\n\nnotice {notice.id}"
        if not sender.notify(title=notice.subject, body=body, body_format=apprise.NotifyFormat.TEXT):
            raise _NotSent("the receiver did not take it")

    def _mail(self, smtp: Smtp, notice: Notice) -> None:
        message = _message(smtp, notice)
        password = self._credential(smtp.password_credential) if smtp.password_credential else None
        try:
            server = smtplib.SMTP(smtp.host, smtp.port, timeout=TIMEOUT_S)
            try:
                self._encrypt(server, smtp)
                if smtp.user is not None:
                    server.login(smtp.user, password or "")
                refused = server.send_message(message)
                # The mail is taken; a server that says goodbye badly must not get it again.
                with contextlib.suppress(smtplib.SMTPException, OSError):
                    server.quit()
            finally:
                server.close()
        except smtplib.SMTPAuthenticationError as error:
            raise _NotSent("the mail server refused the login") from error
        except smtplib.SMTPRecipientsRefused as error:
            raise _NotSent("the mail server refused every address of this rule") from error
        except smtplib.SMTPResponseException as error:
            raise _NotSent(f"the mail server answered {error.smtp_code}") from error
        except (smtplib.SMTPException, OSError) as error:
            raise _NotSent(f"the mail server cannot be used ({type(error).__name__})") from error
        if refused:  # not tried again: the others would get it twice
            log.get().warning(
                log.NOTIFY_FAILED,
                notice=notice.id,
                to=", ".join(sorted(refused)),
                error="the mail server refused these addresses and took the others",
            )

    def _encrypt(self, server: smtplib.SMTP, smtp: Smtp) -> None:
        server.ehlo()
        if smtp.starttls == "never":
            return
        if server.has_extn("starttls"):
            server.starttls(context=ssl.create_default_context())
            server.ehlo()
        elif smtp.starttls == "required" or smtp.user is not None:
            raise _NotSent("the mail server offers no encryption, and a password is not sent without")


def _hush() -> None:
    """Keep what the libraries log to themselves: URLs they could not reach, tokens and all."""
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    # urllib3 logs each request's path, which is the token in many URLs, at the level debug.
    logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)


def _shown(rule: Rule) -> str:
    """Return a rule for logs, also one whose URL cannot be taken apart."""
    try:
        return rule.shown
    except ValueError:
        return "a rule whose URL cannot be read"


def _message(smtp: Smtp, notice: Notice) -> EmailMessage:
    message = EmailMessage(policy=SMTP_POLICY)
    try:
        message["From"], message["To"] = smtp.sender, ", ".join(smtp.to)
    except ValueError as error:  # such as a line break in an address
        raise _NotSent("the addresses of this rule cannot be used") from error
    message["Subject"] = notice.subject
    message["Date"] = notice.created_at
    message["Message-ID"] = f"<{notice.id}@{host_name()}>"  # the same at every try
    message["X-Dittohead-Notice"] = notice.id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(f"{notice.body}\n\nnotice {notice.id}\n")
    return message


def notices(rules: Sequence[Rule], root: Path, event: str, **facts: Any) -> list[NewNotice]:
    """Return what goes into the outbox at an event, one row for each rule that asks for it.

    Args:
        facts: of done and failed: job, steps, receipt, links (use, URI); of nearly_full: target,
            percent, free; of stale: name, age_seconds, size; of paused and resumed: target (and reason).
    """
    job: Job | None = facts.get("job")
    wanting = [rule for rule in rules if rule.wants(event, job.pipeline if job else None)]
    if not wanting:
        return []
    subject, body = compose(event, root, **facts)
    keys = dict.fromkeys(rule.key for rule in wanting)
    return [
        NewNotice(rule=key, event=event, subject=subject, body=body, job=job.id if job else None)
        for key in keys
    ]


def compose(event: str, root: Path, **facts: Any) -> tuple[str, str]:
    """Return (subject, body) in plain words; control characters in names are made visible."""
    subject, body = _WORDS[event](root, **facts)
    subject = visible(subject)
    return subject if len(subject) <= 200 else subject[:197] + "...", visible(body, but="\n")


_Links = Sequence[tuple[str, str]]


def _done(
    root: Path, *, job: Job, steps: Sequence[StepRow], receipt: Path, links: _Links = ()
) -> tuple[str, str]:
    delivered = sum(step.result.get("locations", 0) for step in steps)
    lines = [
        f"{visible(job.name)} is done: {counted(job.files, 'file')}, {_bytes(job.size)}.",
        f"Delivered and verified: {counted(delivered, 'file')}." if delivered else "",
        *(visible(f"  {step.name}: {step.result.get('detail', '')}") for step in steps),
        "",
        *(visible(f"{use.capitalize()}: {uri}") for use, uri in links[:_LINKS]),
        f"and {len(links) - _LINKS} more, in the receipt" if len(links) > _LINKS else "",
        f"Receipt: {visible(str(receipt))}",
        f"Job {job.id}, pipeline {job.pipeline}.",
    ]
    return f"Done: {job.name}", "\n".join(lines)


def _failed(
    root: Path, *, job: Job, steps: Sequence[StepRow], receipt: Path, links: _Links = ()
) -> tuple[str, str]:
    error = job.error or {"what": job.reason, "where": "", "hint": "", "step": ""}
    lines = [
        f"{visible(job.name)} was not finished; nothing is lost, the folder is in failed/.",
        "",
        f"What:  {visible(error['what'])}",
        f"Where: {visible(error['where'] or error['step'] or 'the folder')}",
        f"Do:    {visible(error['hint'] or 'mend it, then try again')}",
        "",
        *_again(job),
        f"    {_from_the_first_step(root, job)}",
        "",
        f"Job {job.id}, pipeline {job.pipeline or 'none'}, step {error['step'] or 'none'}.",
    ]
    return f"Failed: {job.name}", "\n".join(lines)


def _again(job: Job) -> Sequence[str]:
    if "refuse" in job.definition:  # it has no step to be tried
        return ("To try again, when that is mended:",)
    retry = f"    dittohead retry {job.id}"
    return "To try again from the step that failed:", retry, "or from the first step:"


def _from_the_first_step(root: Path, job: Job) -> str:
    """Return the command that runs a failed folder again, before it lies in failed/."""
    folder = os.path.join(os.fsencode(root), Station.FAILED.value.encode(), job.folder)
    # An earlier failure of that name lies there, and this one gets a name nobody knows yet.
    if os.path.lexists(folder):
        return f"dittohead rerun {job.id}"
    return f"mv {shell_word(folder)} {shell_word(os.fsencode(root / Station.INBOX.value))}/"


def _nearly_full(root: Path, *, target: str, percent: float, free: int) -> tuple[str, str]:
    text = f"Your study is {percent:.0f}% full: {visible(target)} has {_bytes(free)} left."
    return f"{percent:.0f}% full: {target}", text + "\nMake room before it is full; deliveries wait then."


def _stale(root: Path, *, name: str, age_seconds: float, size: int) -> tuple[str, str]:
    hours = age_seconds / 3600
    text = (
        f"The upload {visible(name)} in {root / Station.INBOX.value} has not changed for {hours:,.0f} hours "
        f"({_bytes(size)}). If it is complete, rename it without the dot; if it was given up, "
        "delete it. It is never touched by itself."
    )
    return f"Stale upload: {name}", text


def _paused(root: Path, *, target: str, reason: str) -> tuple[str, str]:
    text = (
        f"{visible(target)} cannot be used: {visible(reason)}\n\nIts jobs wait and go on by themselves "
        "when it can be used again; it is tried every few minutes. To try now: dittohead poke JOB"
    )
    return f"Paused: {target}", text


def _resumed(root: Path, *, target: str) -> tuple[str, str]:
    return f"Resumed: {target}", f"{visible(target)} can be used again; its jobs go on."


_WORDS: dict[str, Callable[..., tuple[str, str]]] = {
    "done": _done,
    "failed": _failed,
    "nearly_full": _nearly_full,
    "stale": _stale,
    "paused": _paused,
    "resumed": _resumed,
}


def _bytes(size: int) -> str:
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"
        value /= 1000
    raise DittoheadError("unreachable")
