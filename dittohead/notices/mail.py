"""A notice by mail. Blocking: for a thread."""

from __future__ import annotations

import contextlib
import smtplib
import ssl
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY

from dittohead.config.notice_rules import Smtp
from dittohead.model.text import host_name
from dittohead.notices.outcome import NotSent, credential
from dittohead.store.outbox import Notice
from dittohead.system import log

#: A server that does not answer in this time has failed. Seconds.
TIMEOUT_S = 30.0


def send(smtp: Smtp, notice: Notice, credentials: Callable[[str], str]) -> None:
    """Hand a notice to the mail server. Where no one is to get it, only try that the server works.

    Args:
        smtp: the server, and who gets mail by this rule.
        notice: with a recipient it goes to that address alone.
        credentials: a credential by name.

    Raises: NotSent.
    """
    to = [notice.recipient] if notice.recipient else smtp.fixed
    message = _message(smtp, notice, to)
    password = credential(credentials, smtp.password_credential) if smtp.password_credential else None
    try:
        refused = _hand_over(smtp, message if to else None, password)
    except smtplib.SMTPAuthenticationError as error:
        raise NotSent("the mail server refused the login") from error
    except smtplib.SMTPRecipientsRefused as error:
        text = "the mail server refused every address of this rule"
        if notice.recipient:  # one uploader's address is not a fault of the server's
            raise NotSent(f"the mail server refused {notice.recipient}", receivers_fault=False) from error
        raise NotSent(text) from error
    except smtplib.SMTPResponseException as error:
        raise NotSent(f"the mail server answered {error.smtp_code}") from error
    except (smtplib.SMTPException, OSError) as error:
        raise NotSent(f"the mail server cannot be used ({type(error).__name__})") from error
    if refused:  # not tried again: the others would get it twice
        log.get().warning(
            log.NOTIFY_FAILED,
            notice=notice.id,
            to=", ".join(sorted(refused)),
            error="the mail server refused these addresses and took the others",
        )


def probe(smtp: Smtp, credentials: Callable[[str], str], timeout_s: float) -> str:
    """Do all that comes before a mail, and send none; return what the server would accept, in words.

    Args:
        smtp: the server; the first of the rule's addresses is tried.
        credentials: a credential by name.
        timeout_s: seconds for each answer of the server.
    """
    password = credential(credentials, smtp.password_credential) if smtp.password_credential else None
    to = smtp.fixed[:1]
    try:
        server = _connected(smtp, password, timeout_s)
        try:
            for code, said in [server.mail(smtp.sender), *map(server.rcpt, to)]:
                if not 200 <= code < 300:
                    raise smtplib.SMTPResponseException(code, said)
            server.rset()
            with contextlib.suppress(smtplib.SMTPException, OSError):
                server.quit()
        finally:
            server.close()
    except smtplib.SMTPAuthenticationError as error:
        raise NotSent(f"the mail server refused the login of {smtp.user}") from error
    except smtplib.SMTPResponseException as error:
        words = (
            error.smtp_error
            if isinstance(error.smtp_error, str)
            else error.smtp_error.decode("ascii", "replace")
        )
        raise NotSent(f"the mail server refused: {error.smtp_code} {words[:200]}") from error
    except (smtplib.SMTPException, OSError) as error:
        reason = str(error) or type(error).__name__
        raise NotSent(f"the mail server {smtp.host}, port {smtp.port}, cannot be used ({reason})") from error
    return f"{smtp.host} takes mail to {to[0]}" if to else f"{smtp.host} takes mail from {smtp.sender}"


def _connected(smtp: Smtp, password: str | None, timeout_s: float) -> smtplib.SMTP:
    """Return a connection that is encrypted and logged in as the rule has it."""
    server = smtplib.SMTP(smtp.host, smtp.port, timeout=timeout_s)
    try:
        _encrypt(server, smtp)
        if smtp.user is not None:
            server.login(smtp.user, password or "")
    except BaseException:
        server.close()
        raise
    return server


def _hand_over(smtp: Smtp, message: EmailMessage | None, password: str | None) -> Mapping[str, object]:
    server = _connected(smtp, password, TIMEOUT_S)
    try:
        refused = {} if message is None else dict(server.send_message(message))
        # The mail is taken; a server that says goodbye badly must not get it again.
        with contextlib.suppress(smtplib.SMTPException, OSError):
            server.quit()
    finally:
        server.close()
    return refused


def _encrypt(server: smtplib.SMTP, smtp: Smtp) -> None:
    server.ehlo()
    if smtp.starttls == "never":
        return
    if server.has_extn("starttls"):
        server.starttls(context=ssl.create_default_context())
        server.ehlo()
    elif smtp.starttls == "required" or smtp.user is not None:
        raise NotSent("the mail server offers no encryption, and a password is not sent without")


def _message(smtp: Smtp, notice: Notice, to: list[str]) -> EmailMessage:
    message = EmailMessage(policy=SMTP_POLICY)
    try:
        message["From"] = smtp.sender
        if to:
            message["To"] = ", ".join(to)
    except ValueError as error:  # such as a line break in an address
        raise NotSent("the addresses of this rule cannot be used") from error
    message["Subject"] = notice.subject
    message["Date"] = notice.created_at
    message["Message-ID"] = f"<{notice.id}@{host_name()}>"  # the same at every try
    message["X-Dittohead-Notice"] = notice.id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(f"{notice.body}\n\nnotice {notice.id}\n")
    return message
