"""What people give commands: moments in local time, users by name or number, files or their digests."""

from __future__ import annotations

import hashlib
import pwd
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dittohead.model.job_filter import LEAST, is_digest
from dittohead.model.units import parse_duration


class MomentArgument(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions of click
    """A date, or a date with a time; in local time where it says no zone."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return a moment with its time zone; one that was typed without a zone is in the machine's own.

        Args:
            value: what was typed, or a default that is a datetime already.
            param, ctx: click's own, for its message.

        Raises: click.BadParameter: it is not a date.
        """
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            self.fail(f"{value} is not a date, such as 2026-01-31 or 2026-01-31T14:00", param, ctx)


class Span(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions of click
    """A length of time, such as 5m; in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return a span in seconds.

        Args:
            value: what was typed, such as "90s" or "2d".
            param, ctx: click's own, for its message.

        Raises: click.BadParameter: it is not a span.
        """
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def uid_of(user: str) -> int:
    """Return a user's number. Raises: UsageError: there is no such user."""
    if user.isascii() and user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise click.UsageError(f"there is no user {user}") from error


def digest_of(given: str) -> str:
    """Return the SHA-256 of a file, or the digest that was given. Raises: UsageError: it is neither."""
    path = Path(given)
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not is_digest(given):
        raise click.UsageError(
            f"{given} is neither a file nor a SHA-256, of which at least {LEAST} digits are required"
        )
    return given.lower()
