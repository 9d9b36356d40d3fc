"""What S3 says of new objects: event notifications in a queue's messages, and token objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from dittohead.model.text import is_utf8


class UnreadableEvent(Exception):
    """A message or token that is not understood; says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Created:
    """An object that a message names."""

    bucket: str
    key: str  #: decoded


def read_message(text: str) -> list[Created]:
    """Return every object created (or restored) of which a message speaks; [] when it is of nothing else.

    Understood are S3's own notifications (all records, not only the first), the same wrapped by SNS,
    EventBridge's events, and the test message S3 sends when notifications are set up. Keys of
    notifications are encoded as in forms ("+" is a space); those of EventBridge are not encoded.

    Raises: Unreadable.
    Source: Amazon S3 User Guide, "Event message structure" and "EventBridge event message structure";
    Amazon SNS Developer Guide, "HTTP/HTTPS notification JSON format".
    """
    try:
        given = json.loads(text)
        if isinstance(given, dict) and given.get("Type") == "Notification" and "Message" in given:
            given = json.loads(given["Message"])
    except (ValueError, TypeError):
        raise UnreadableEvent("it is not JSON") from None
    if not isinstance(given, dict):
        raise UnreadableEvent("it is not a JSON object")
    if given.get("Event") == "s3:TestEvent":
        return []
    try:
        if "detail-type" in given:
            return _of_eventbridge(given)
        return _of_records(given["Records"])
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UnreadableEvent("it is not an event of S3") from None


def _of_records(records: Any) -> list[Created]:
    if not isinstance(records, list) or not records:
        raise UnreadableEvent("it has no records")
    found = []
    for record in records:
        name = str(record["eventName"]).removeprefix("s3:")
        if name.startswith("ObjectCreated:") or name == "ObjectRestore:Completed":
            s3 = record["s3"]
            found.append(_created(s3["bucket"]["name"], unquote_plus(s3["object"]["key"], errors="strict")))
    return found


def _of_eventbridge(given: Mapping[str, Any]) -> list[Created]:
    if given.get("source") != "aws.s3":
        raise UnreadableEvent("it is not an event of S3")
    if given["detail-type"] not in ("Object Created", "Object Restore Completed"):
        return []
    detail = given["detail"]
    return [_created(detail["bucket"]["name"], detail["object"]["key"])]


def _created(bucket: Any, key: Any) -> Created:
    if not isinstance(bucket, str) or not isinstance(key, str) or not bucket or not key:
        raise UnreadableEvent("a record names no object")
    _check_text(key)
    return Created(bucket=bucket, key=key)


def _check_text(key: str) -> None:
    """See that a key can be asked for and stored at all. Raises: Unreadable."""
    if "\0" in key or not is_utf8(key.encode("utf-8", "surrogatepass")):
        raise UnreadableEvent("it names a key that is not text")


def read_token(data: bytes) -> str:
    """Return the key that a token names.

    A token is a JSON object with "key" and, told but not needed, "path" (the key up to and with its
    last slash) and "eTag": what is fetched is the object as it is now.

    Raises: Unreadable.
    Source: the tokens of Notre Dame's marble image pipeline.
    """
    try:
        given = json.loads(data)
    except ValueError:
        raise UnreadableEvent("it is not JSON") from None
    key = given.get("key") if isinstance(given, dict) else None
    if not isinstance(key, str) or not key:
        raise UnreadableEvent('it has no "key"')
    _check_text(key)
    return key
