"""What servers ask for by Retry-After, and the waits that nobody can be asked for."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import botocore.exceptions as boto
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dittohead.notices import http
from dittohead.toolkit.rest import RestAnswer
from dittohead.toolkit.retry_after import MOST_S, asked_s, bounded, http_date
from dittohead.toolkit.s3 import connection

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120\t", 120.0),
        ("007", 7.0),
        ("86401", MOST_S),
        ("9" * 30, MOST_S),
        ("9" * 9000, MOST_S),
        ("Thu, 01 Jan 2026 00:10:00 GMT", 600.0),
        ("Thursday, 01-Jan-26 00:10:00 GMT", 600.0),
        ("Thu Jan  1 00:10:00 2026", 600.0),
        ("Thu, 01 Jan 2026 01:10:00 +0100", 600.0),
        ("Wed, 31 Dec 2025 23:59:59 GMT", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", MOST_S),
    ],
)
def test_seconds_and_dates_in_all_formats_are_understood(header: str, seconds: float) -> None:
    """From now to a day from now."""
    assert asked_s(header, NOW) == seconds


@pytest.mark.parametrize(
    "header",
    [
        *("", " ", "soon", "-5", "+5", "1.5", "1e3", "0x10", "٣", "²", "nan", "inf", "5, 6", "5 s", "1\n2"),
        "Thu, 32 Jan 2026 00:10:00 GMT",
        "Thu, 01 Jan 2026 25:10:00 GMT",
        "Thu, 01 Jan 99999 00:00:00 GMT",
        "Thu,",
    ],
)
def test_what_is_neither_says_nothing(header: str) -> None:
    """The caller's own waits hold."""
    assert asked_s(header, NOW) is None


@given(st.text(max_size=40))
def test_no_header_is_an_error_or_a_wait_beyond_a_day(header: str) -> None:
    """Whatever a server sends."""
    found = asked_s(header, NOW)
    assert found is None or 0 <= found <= MOST_S


@given(st.integers(0, 2**32), st.integers(-1439, 1439))
def test_a_date_is_the_same_moment_in_any_zone(moment: int, minutes: int) -> None:
    """To the second."""
    given_ = datetime.fromtimestamp(moment, timezone(timedelta(minutes=minutes)))
    assert http_date(format_datetime(given_)) == given_


@given(st.floats())
def test_a_wait_is_bounded_whatever_is_asked_for(seconds: float) -> None:
    """No number, endless and negative waits among it."""
    assert 0 <= bounded(seconds) <= MOST_S
    assert bounded(seconds) == seconds or math.isnan(seconds) or not 0 <= seconds <= MOST_S


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("9" * 30, MOST_S), ("-1", None), ("nan", None)])
def test_every_client_asks_the_same(header: str, seconds: float | None) -> None:
    """Servers with JSON, stores, and receivers of notices."""
    answer = RestAnswer(
        method="GET", url="https://x/y", status=429, headers={"Retry-After": header}, body=b""
    )
    said = {"HTTPStatusCode": 503, "HTTPHeaders": {"retry-after": header}}
    error = boto.ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": said}, "GetObject")  # type: ignore[typeddict-item]
    assert answer.retry_after_s() == seconds
    assert connection.retry_after_s(error) == seconds
    assert http._refusal(429, header).retry_after_s == seconds


def test_a_date_without_a_zone_is_utc_for_every_client() -> None:
    """As asctime writes it; a machine's own zone changes nothing."""
    header = "Thu Jan  1 00:10:00 2099"
    answer = RestAnswer(
        method="GET", url="https://x/y", status=429, headers={"Retry-After": header}, body=b""
    )
    assert answer.retry_after_s() == MOST_S
    assert http._refusal(429, header).retry_after_s == MOST_S
