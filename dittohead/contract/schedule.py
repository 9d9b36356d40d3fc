"""When something is due again: every so often, or by a cron expression in a stated time zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
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
            f'"{expression}" is not a schedule ({error}); write minute, hour, day, month and weekday as cron '
            'does: "30 5 * * *"'
        ) from error


def next_after(expression: str, moment: float, timezone: str | None) -> float:
    """Return when a schedule is due next, later than `moment`; both in seconds since the epoch.

    Args:
        expression: five fields, as in a crontab.
        moment: seconds since the epoch.
        timezone: such as "Europe/Berlin"; None for the machine's own.

    Source: crontab(5) of Debian, whose behaviour at changes of summer time cronsim follows.
    """
    own = zone(timezone)
    given = datetime.fromtimestamp(moment, UTC)
    return next(CronSim(expression, given.astimezone(own))).timestamp()


@dataclass(frozen=True)
class Window:
    """A part of the day, such as 20:00-04:00; where it ends before it begins it goes over midnight."""

    begins: time
    ends: time

    @classmethod
    def read(cls, text: str) -> Window:
        """Return what is written as "HH:MM-HH:MM". Raises: ValueError."""
        found = re.fullmatch(r"\s*(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s*", text)
        if found is None:
            raise ValueError(f'"{text}" is not a part of a day; write it as "20:00-04:00"')
        hours = [int(part) for part in found.groups()]
        try:
            window = cls(time(hours[0], hours[1]), time(hours[2] % 24, hours[3]))
        except ValueError as error:
            raise ValueError(f'"{text}" has an hour or minute that no clock shows') from error
        if window.begins == window.ends:
            raise ValueError(f'"{text}" ends when it begins; leave it out for the whole day')
        return window

    def left_s(self, moment: float, timezone: str | None) -> float:
        """Return for how long it is still open, in seconds; 0.0 while it is closed."""
        return _until_s(self.ends, moment, timezone) if self._is_open(moment, timezone) else 0.0

    def opens_s(self, moment: float, timezone: str | None) -> float:
        """Return how long it is until it opens, in seconds; 0.0 while it is open."""
        return 0.0 if self._is_open(moment, timezone) else _until_s(self.begins, moment, timezone)

    def _is_open(self, moment: float, timezone: str | None) -> bool:
        now = datetime.fromtimestamp(moment, UTC).astimezone(zone(timezone)).time()
        if self.begins < self.ends:
            return self.begins <= now < self.ends
        return now >= self.begins or now < self.ends


def _until_s(clock: time, moment: float, timezone: str | None) -> float:
    """Return how long it is until a clock on the wall shows a time; where it never does, the hour after."""
    now = datetime.fromtimestamp(moment, UTC)
    here = now.astimezone(zone(timezone))
    then = here.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0, fold=0)
    if then.replace(tzinfo=None) <= here.replace(tzinfo=None):
        then += timedelta(days=1)
    return max((then.astimezone(UTC) - now).total_seconds(), 1.0)
