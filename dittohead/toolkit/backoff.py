"""How long is waited between tries: longer each time, and never by all at the same moment."""

from __future__ import annotations

import random

from dittohead.toolkit.retry_after import bounded

#: How much of a wait chance may add or take away. Where several wait for one thing, that keeps them from
#: coming back together; where only one can be served at a time, they come one by one anywhere between now
#: and twice the wait.
NONE, SOME, FULL = 0.0, 0.2, 1.0

#: More doublings than any wait has.
_DOUBLINGS = 60


def wait_s(
    failures: float, *, first_s: float, most_s: float, jitter: float = SOME, asked_s: float | None = None
) -> float:
    """Return for how long to wait before the next try: `first_s`, doubled with each failure up to `most_s`.

    Args:
        failures: tries that have failed; 1 after the first. Parts of one are parts of a doubling.
        first_s: seconds after the first failure, before chance.
        most_s: the longest wait, before chance.
        jitter: the part of the wait that chance may add or take away, from 0 to 1.
        asked_s: seconds that the remote system asks for; the wait is at least that, up to a day.
    """
    return spread(min(first_s * 2.0 ** min(failures - 1, _DOUBLINGS), most_s), jitter=jitter, asked_s=asked_s)


def spread(plain_s: float, *, jitter: float = SOME, asked_s: float | None = None) -> float:
    """Return a wait of a schedule, in seconds: with chance, and no shorter than what is asked for.

    Args:
        plain_s: the wait before chance. Seconds.
        jitter: the part of the wait that chance may add or take away, from 0 to 1.
        asked_s: seconds that the remote system asks for, of which a day counts at most; None for nothing.
    """
    return max(plain_s * random.uniform(1 - jitter, 1 + jitter), bounded(asked_s or 0.0))  # noqa: S311
