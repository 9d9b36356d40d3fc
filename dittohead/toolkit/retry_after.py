"""What a server's Retry-After asks for. Source: RFC 9110, sections 10.2.3 and 5.6.7."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: The longest that is waited because somebody asks for it: what asks for more is tried once a day. Seconds.
MOST_S = 86400.0


def asked_s(header: str, now: datetime | None = None) -> float | None:
    """Return the seconds that a Retry-After asks for, from 0 to a day; None where it says nothing.

    Args:
        header: delta-seconds, or a date in any of HTTP's three formats; "" for none.
        now: an aware moment; by default this one.
    """
    text = header.strip()
    if text.isascii() and text.isdigit():
        return bounded(float(text))
    date = http_date(text)
    return None if date is None else bounded((date - (now or datetime.now(UTC))).total_seconds())


def http_date(text: str) -> datetime | None:
    """Return an HTTP date as an aware moment; None where it is none.

    IMF-fixdate, and the obsolete formats of RFC 850 and of asctime, which names no zone: all are UTC.
    """
    try:
        found = parsedate_to_datetime(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def bounded(seconds: float) -> float:
    """Return a wait that somebody asks for as one from 0 to a day; 0 where it is not a number. Seconds."""
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), MOST_S)
