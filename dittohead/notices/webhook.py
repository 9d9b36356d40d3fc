"""A notice as JSON to a program, signed. Source: Standard Webhooks 1.0.0, www.standardwebhooks.com."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Iterable
from datetime import datetime

from dittohead.config.notice_rules import Webhook
from dittohead.model.text import rfc3339
from dittohead.notices import http
from dittohead.notices.outcome import NotSent, credential
from dittohead.store.outbox import Notice

#: Seconds a receiver has to answer. Source: "Request timeouts": 15 to 30 seconds.
TIMEOUT_S = 20.0

#: Waits after each try that failed, with jitter. Source: the specification's example schedule.
WAITS_S = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)

#: The type of each event, as programs get it.
TYPES = {
    "done": "job.done",
    "failed": "job.failed",
    "batch": "batch.ended",
    "cancelled": "job.cancelled",
    "recovered": "job.recovered",
    "late_change": "job.changed_late",
    "damaged": "job.damaged",
    "frozen": "job.frozen",
    "stuck": "jobs.stuck",
    "stale": "upload.stale",
    "held": "arrival.held",
    "paused": "target.paused",
    "resumed": "target.resumed",
    "nearly_full": "target.nearly_full",
    "full": "target.full",
    "digest": "notice.digest",
    "disabled": "receiver.disabled",
    "test": "notice.test",
}


async def send(hook: Webhook, notice: Notice, credentials: Callable[[str], str], now: datetime) -> None:
    """Post a notice as JSON, signed where the rule has secrets.

    Args:
        hook: the receiver.
        credentials: a credential by name.
        now: the time that is signed.

    Raises: NotSent: also when a credential is missing or is not a secret.
    """
    url = hook.url or http.good_url(credential(credentials, hook.url_credential or ""))
    keys = [secret(name, credential(credentials, name)) for name in hook.secret_credential]
    body = payload(notice)
    await http.request(
        "POST",
        url,
        timeout_s=TIMEOUT_S,
        headers={"Content-Type": "application/json", **signed(notice.id, now, body, keys)},
        body=body,
    )


def payload(notice: Notice) -> bytes:
    """Return a notice's body, the same at every try."""
    fields = {
        "type": TYPES[notice.event],
        "timestamp": rfc3339(notice.created_at),
        "data": notice.data,
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def secret(name: str, text: str) -> bytes:
    """Return a secret's bytes. Raises: NotSent: it is none.

    Source: "Signature scheme": 24 to 64 bytes, as base64, after `whsec_`.
    """
    try:
        key = base64.b64decode(text.strip().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.strip().startswith("whsec_") or not 24 <= len(key) <= 64:
        wanted = "whsec_ and 24 to 64 bytes in base64 are required"
        raise NotSent(f'the credential "{name}" is not a secret of a webhook: {wanted}')
    return key


def signed(id: str, now: datetime, body: bytes, keys: Iterable[bytes]) -> dict[str, str]:
    """Return the three headers; one signature for each key, so that a secret can be replaced.

    Args:
        id: the notice's id, the same at each try.
        now: the time of this try.
        body: the body, exactly as it is sent.
        keys: the secrets, decoded: each key in bytes.
    """
    moment = str(int(now.timestamp()))
    content = f"{id}.{moment}.".encode() + body
    signatures = (
        "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in keys
    )
    return {
        "webhook-id": id,
        "webhook-timestamp": moment,
        "webhook-signature": " ".join(signatures),
    }
