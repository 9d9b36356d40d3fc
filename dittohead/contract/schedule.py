"""When something is due again: every so often, or by a cron expression in a stated time zone."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError


def zone(name: str | None) -> tzinfo | None:
    """Return a time zone by its IANA name; None, the machine's own, when none is given.

    Raises: ValueError: there is none of this name.
    """
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f'there is no time zone "{name}"; write it as in "Europe/Berlin"') from error


def check(expression: str) -> None:
    """See that a cron expression can be understood and ever comes true. Raises: ValueError."""
    try:
        next(CronSim(expression, datetime(2024, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        raise ValueError(
            f'"{expression}" is no schedule ({error}); write minute, hour, day, month and weekday as cron '
            'does: "30 5 * * *"'
        ) from error


def next_after(expression: str, moment: float, timezone: str | None) -> float:
    """Return when a schedule is due next, later than `moment`; both in seconds since the epoch.

    Source: crontab(5) of Debian, whose behaviour at changes of summer time cronsim follows.
    """
    own = zone(timezone)
    given = datetime.fromtimestamp(moment, UTC)
    return next(CronSim(expression, given.astimezone(own))).timestamp()
